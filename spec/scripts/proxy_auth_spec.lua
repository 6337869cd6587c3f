local support = require "support"
local policy = require "scripts.policy"
local it, http, net = support.it, support.http, support.net

-- "moon", hashed cheaply.
local hash <const> = "$pbkdf2-sha256$1000$c2FsdHNhbHQ$z1zcedibhUbbCApzs8H.Up7Nf74KT6BvWTxKbndgTi4"

local function field(text) return { headers = { ["Proxy-Authorization"] = text } } end
local ada = field "Basic YWRhOm1vb24=" -- ada:moon

-- One worker: each remembers by itself who may pass.
local open = { site = 'forward = { ports = "1-65535", private = true },', workers = 1 }

describe("scripts.proxy_auth", function()
  local target, url
  support.setup(function()
    target = http.backend "target"
    url = "http://" .. target.address .. "/"
  end)

  local function start(options)
    return policy.start("proxy_auth", (options:gsub("HASH", function() return hash end)), open)
  end

  it("asks who brings nothing, also for tunnels", function()
    local port = start '{ realm = "staff", users = { ada = "HASH" } }'
    local response = http.get(port, url)
    assert.equal(407, response.status)
    assert.equal('Basic realm="staff", charset="UTF-8"', response.headers["Proxy-Authenticate"])
    local client = net.connect(port)
    client:send(("CONNECT %s HTTP/1.1\r\nHost: a\r\n\r\n"):format(target.address))
    assert.equal(407, http.response(client).status)
    assert.equal(0, #target.requests)
  end)

  it("lets in who brings the right password, and keeps that to itself", function()
    local port = start '{ users = { ada = "HASH" } }'
    for _ = 1, 3 do assert.equal(200, http.get(port, url, ada).status) end
    local headers = target.requests[#target.requests].headers
    assert.equal("ada", headers["X-Seen-User"]) -- req.ctx.user
    assert.is_nil(headers["Proxy-Authorization"])
    local client = net.connect(port)
    client:send(("CONNECT %s HTTP/1.1\r\nHost: a\r\nProxy-Authorization: %s\r\n\r\n"):format(target.address,
      ada.headers["Proxy-Authorization"]))
    assert.equal(200, http.response_head(client).status)
  end)

  it("turns away everything else", function()
    local port = start '{ users = { ada = "HASH" } }'
    for _, value in ipairs {
      "Basic YWRhOnN1bg==", -- ada:sun
      "Basic Ym9iOm1vb24=", -- bob:moon
      "Basic YWRh", "Basic", "Basic !!!!", "Bearer YWRhOm1vb24=", "",
    } do
      assert.equal(407, http.get(port, url, field(value)).status, value)
    end
  end)

  it("asks nobody on the way to the site's own backends", function()
    local port, backend = start '{ users = { ada = "HASH" } }'
    assert.equal("ok", http.get(port, "/").body)
    assert.equal(1, #backend.requests)
  end)

  it("asks a function instead, once for each as long as its yes is kept", function()
    local asked = http.backend(function(request) return request.body == "ada moon" and 200 or 403 end)
    local function options(ttl)
      return ([[{ ttl = %d, check = function(user, password)
        local answer = gate.fetch("http://%s/", { method = "POST", body = user .. " " .. password })
        return answer and answer.status == 200
      end }]]):format(ttl, asked.address):gsub("gate%.fetch", 'require "moongate".fetch')
    end
    local port = policy.start("proxy_auth", (options(60)), open)
    assert.equal(407, http.get(port, url, field "Basic YWRhOnN1bg==").status)
    for _ = 1, 3 do assert.equal(200, http.get(port, url, ada).status) end
    assert.equal(407, http.get(port, url, field "Basic YWRhOnN1bg==").status)
    assert.equal(3, #asked.requests)
    port = policy.start("proxy_auth", (options(0)), open)
    for _ = 1, 2 do assert.equal(200, http.get(port, url, ada).status) end
    assert.equal(5, #asked.requests)
  end)

  it("refuses wrong options", function()
    policy.assert_refused("proxy_auth", {
      ["{}"] = "proxy_auth: expected either users or check",
      ["{ users = {} }"] = "proxy_auth: users: is empty",
      ['{ users = { ada = "moon" } }'] = "proxy_auth: users.ada: expected a hash",
      ["{ check = function() end, ttl = -1 }"] = "proxy_auth: ttl: expected seconds",
      ['{ users = { ada = "$scrypt$x" }, realm = "a\\"b" }'] = "proxy_auth: realm: no quotes",
      ['{ user = { ada = "x" } }'] = 'proxy_auth: unknown option "user"',
    })
  end)
end)
