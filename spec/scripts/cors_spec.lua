local support = require "support"
local policy = require "scripts.policy"
local it, http = support.it, support.http

local function start(options, settings) return policy.start("cors", options, settings) end

local function get(port, origin) return http.get(port, "/", { headers = { ["Origin"] = origin } }).headers end

local function preflight(port, origin, asked)
  return http.exchange(port, "OPTIONS", "/", { headers = {
    ["Origin"] = origin, ["Access-Control-Request-Method"] = "PUT", ["Access-Control-Request-Headers"] = asked,
  } })
end

describe("scripts.cors", function()
  it("allows listed origins and says that the answer depends on it", function()
    local port = start '{ origins = { "https://app.example.com" } }'
    local headers = get(port, "https://app.example.com")
    assert.equal("https://app.example.com", headers["Access-Control-Allow-Origin"])
    assert.equal("Origin", headers["Vary"])
    headers = get(port, "https://evil.example")
    assert.is_nil(headers["Access-Control-Allow-Origin"])
    assert.equal("Origin", headers["Vary"])
  end)

  it("takes a star for the first labels of a name, and for nothing more", function()
    local port = start '{ origins = { "https://*.example.com" } }'
    for origin, allowed in pairs {
      ["https://a.example.com"] = true, ["https://a.b.example.com"] = true, ["https://example.com"] = false,
      ["https://evilexample.com"] = false, ["http://a.example.com"] = false, ["https://a.example.com:444"] = false,
      ["https://evil.test/.example.com"] = false, ["https://.example.com"] = false, ["null"] = false,
    } do
      assert.equal(allowed and origin or nil, get(port, origin)["Access-Control-Allow-Origin"], origin)
    end
  end)

  it("answers preflights in the application's place", function()
    local port, backend = start '{ origins = { "https://a.example" }, max_age = 60, credentials = true }'
    local response = preflight(port, "https://a.example", "X-Token, Content-Type")
    assert.equal(204, response.status)
    local headers = response.headers
    assert.equal("https://a.example", headers["Access-Control-Allow-Origin"])
    assert.equal("PUT, PATCH, DELETE", headers["Access-Control-Allow-Methods"])
    assert.equal("X-Token, Content-Type", headers["Access-Control-Allow-Headers"])
    assert.equal("true", headers["Access-Control-Allow-Credentials"])
    assert.equal("60", headers["Access-Control-Max-Age"])
    assert.matches("Origin", headers["Vary"])
    response = preflight(port, "https://evil.example", "X-Token")
    assert.equal(204, response.status)
    assert.is_nil(response.headers["Access-Control-Allow-Origin"])
    assert.is_nil(response.headers["Access-Control-Allow-Methods"])
    assert.equal(0, #backend.requests)
  end)

  it("leaves an OPTIONS that is no preflight to the application", function()
    local port, backend = start '{ origins = "*" }'
    assert.equal(200, http.exchange(port, "OPTIONS", "/").status)
    assert.equal(1, #backend.requests)
  end)

  it("opens what is public to everybody, in the same words for all", function()
    local port = start '{ origins = "*", expose = { "X-Total" } }'
    local headers = get(port, "https://anyone.example")
    assert.equal("*", headers["Access-Control-Allow-Origin"])
    assert.equal("X-Total", headers["Access-Control-Expose-Headers"])
    assert.is_nil(headers["Vary"])
  end)

  it("adds to a Vary that is there, once", function()
    local options = '{ origins = { "https://a.example" } }'
    local port = start(options, { headers = { ["Vary"] = "Accept-Encoding" } })
    assert.equal("Accept-Encoding, Origin", get(port, "https://a.example")["Vary"])
    port = start(options, { headers = { ["Vary"] = "Accept, origin" } })
    assert.equal("Accept, origin", get(port, "https://a.example")["Vary"])
  end)

  it("refuses wrong options", function()
    policy.assert_refused("cors", {
      ["{}"] = "cors: origins: say who may read",
      ['{ origins = { "app.example.com" } }'] = "cors: origins[1]: expected one such as",
      ['{ origins = { "https://app.example.com/" } }'] = "cors: origins[1]: expected one such as",
      ['{ origins = { "https://*example.com" } }'] = "cors: origins[1]: a * stands for the first labels only",
      ['{ origins = "*", credentials = true }'] = "cors: credentials: browsers refuse them",
      ['{ origins = "*", methods = { "GET, PUT" } }'] = "cors: methods[1]: expected a name",
      ['{ origin = "*" }'] = 'cors: unknown option "origin"',
    })
  end)
end)
