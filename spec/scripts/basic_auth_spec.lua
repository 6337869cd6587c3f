local support = require "support"
local policy = require "scripts.policy"
local it, http = support.it, support.http

local ada = { headers = { ["Authorization"] = "Basic YWRhOm1vb24=" } } -- ada:moon

local function start(options) return policy.start("basic_auth", options) end

describe("scripts.basic_auth", function()
  it("asks who brings nothing", function()
    local port, backend = start '{ realm = "staff", users = { ada = "moon" } }'
    local response = http.get(port)
    assert.equal(401, response.status)
    assert.equal('Basic realm="staff", charset="UTF-8"', response.headers["WWW-Authenticate"])
    assert.equal(0, #backend.requests)
  end)

  it("lets in who brings the right password, and keeps that to itself", function()
    local port, backend = start '{ header = "X-User", users = { ada = "moon" } }'
    assert.equal(200, http.get(port, "/", ada).status)
    local headers = backend.requests[1].headers
    assert.equal("ada", headers["X-User"])
    assert.equal("ada", headers["X-Seen-User"]) -- req.ctx.user
    assert.is_nil(headers["Authorization"])
  end)

  it("turns away everything else", function()
    local port, backend = start '{ users = { ada = "moon" } }'
    for _, field in ipairs {
      "Basic YWRhOnN1bg==", -- ada:sun
      "Basic Ym9iOm1vb24=", -- bob:moon
      "Basic YWRhCng6bW9vbg==", -- with a line feed in the name, which RFC 7617 forbids
      "Basic YWRhOm1vb24A", -- with a NUL in the password
      "Basic YWRh", "Basic", "Basic !!!!", "Bearer YWRhOm1vb24=", "Basic YWRhOm1vb24=,x", "",
    } do
      assert.equal(401, http.get(port, "/", { headers = { ["Authorization"] = field } }).status, field)
    end
    assert.equal(0, #backend.requests)
  end)

  it("takes a password with colons in it, and the scheme in any case", function()
    local port = start '{ users = { ada = "a:b" } }'
    assert.equal(200, http.get(port, "/", { headers = { ["Authorization"] = "bAsIc YWRhOmE6Yg==" } }).status)
  end)

  it("does not let a client say who it is, also where a path is open", function()
    local port, backend = start '{ header = "X-User", users = { ada = "moon" }, except = { "/open", "/all/" } }'
    assert.equal(200, http.get(port, "/all/page").status)
    assert.equal(401, http.get(port, "/all").status)
    assert.equal(200, http.get(port, "/open/page", { headers = { ["X-User"] = "root" } }).status)
    assert.is_nil(backend.requests[2].headers["X-User"])
    assert.equal(401, http.get(port, "/opened").status)
  end)

  it("never asks a function for what has line breaks in it", function()
    local port, backend = start "{ check = function() return true end }"
    assert.equal(401, http.get(port, "/", { headers = { ["Authorization"] = "Basic YWRhCng6bW9vbg==" } }).status)
    assert.equal(0, #backend.requests)
  end)

  it("asks a function instead of a table, and leaves the field if told to", function()
    local port, backend = start [[{ forward = true, check = function(user, password)
      return user .. password == "adamoon"
    end }]]
    assert.equal(200, http.get(port, "/", ada).status)
    assert.equal("Basic YWRhOm1vb24=", backend.requests[1].headers["Authorization"])
  end)

  it("refuses wrong options", function()
    policy.assert_refused("basic_auth", {
      ["{}"] = "basic_auth: expected either users or check",
      ["{ users = {} }"] = "basic_auth: users: is empty",
      ['{ users = { ada = "" } }'] = "basic_auth: users.ada: the password is empty",
      ['{ user = { ada = "x" } }'] = 'basic_auth: unknown option "user", did you mean "users"?',
      ['{ users = { ada = "x" }, header = "X User" }'] = "basic_auth: header: expected a name",
      ['{ users = { ada = "x" }, except = { "open" } }'] = "basic_auth: except: expected a path that begins with /",
    })
  end)
end)
