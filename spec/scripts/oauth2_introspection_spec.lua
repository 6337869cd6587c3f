-- luacheck: no max line length (tokens and messages stand in one line)
local support = require "support"
local policy = require "scripts.policy"
local it, http = support.it, support.http

-- An authorization server; `answers` by token, or a function.
local function serve(answers)
  local server
  server = http.backend(function(request)
    local token = request.body:match "token=([^&]*)"
    local answer = server.answers[token]
    if type(answer) == "function" then return answer(request) end
    return 200, { ["Content-Type"] = "application/json" }, answer or '{"active":false}'
  end)
  server.answers = answers
  return server
end

local function start(server, more, settings)
  local options = '{ url = "http://%s/introspect", client_id = "shop", client_secret = "s:e", %s }'
  return policy.start("oauth2_introspection", options:format(server.address, more or ""), settings)
end

local function get(port, token, path)
  return http.get(port, path or "/", { headers = { ["Authorization"] = token and "Bearer " .. token } })
end

describe("scripts.oauth2_introspection", function()
  it("asks the server with its own credentials, and tells the application who it is", function()
    local server = serve { good = '{"active":true,"sub":"ada","scope":"read"}' }
    local port, backend = start(server, 'claims = { sub = "X-User" }')
    assert.equal(200, get(port, "good").status)
    assert.equal("ada", backend.requests[1].headers["X-User"])
    assert.is_nil(backend.requests[1].headers["Authorization"])
    local asked = server.requests[1]
    assert.equal("POST", asked.method)
    assert.equal("/introspect", asked.target)
    assert.equal("Basic c2hvcDpzJTNBZQ==", asked.headers["Authorization"]) -- shop:s%3Ae
    assert.equal("application/x-www-form-urlencoded", asked.headers["Content-Type"])
    assert.equal("token=good&token_type_hint=access_token", asked.body)
  end)

  it("sends its credentials in the body if told to, and asks a backend", function()
    local server = serve { good = '{"active":true}' }
    local port = policy.start("oauth2_introspection", [[{
      backend = "id", path = "/in?x=1", client_id = "a b", client_secret = "c&d", in_body = true,
    }]], { site = ("backends = { app = { '127.0.0.1:1' }, id = { '%s' } },"):format(server.address) })
    get(port, "good")
    assert.equal("/in?x=1", server.requests[1].target)
    assert.is_nil(server.requests[1].headers["Authorization"])
    assert.equal("token=good&token_type_hint=access_token&client_id=a%20b&client_secret=c%26d", server.requests[1].body)
  end)

  it("keeps answers, yes and no, for all workers", function()
    local server = serve { good = '{"active":true}' }
    local port = start(server)
    for _ = 1, 3 do
      assert.equal(200, get(port, "good").status)
      assert.equal(401, get(port, "bad").status)
    end
    assert.equal(2, #server.requests)
  end)

  it("keeps them no longer than told, nor than the token lives", function()
    local server = serve { good = '{"active":true}', brief = ('{"active":true,"exp":%d}'):format(os.time() + 2) }
    local port = start(server, "ttl = 0.05, negative_ttl = 0")
    assert.equal(200, get(port, "good").status)
    assert.equal(401, get(port, "bad").status)
    assert.equal(401, get(port, "bad").status)
    assert.equal(3, #server.requests)
    server.answers.good = nil -- taken back
    support.eventually("it is not good any more", function() return get(port, "good").status == 401 end)
    port = start(server, "ttl = 3600")
    assert.equal(200, get(port, "brief").status)
    support.eventually("it has expired", function() return get(port, "brief").status == 401 end)
  end)

  it("takes no answer for no yes", function()
    local server
    server = serve {
      broken = function() return 500, nil, '{"active":true}' end,
      html = "<html>active</html>", text = '"active"', list = "[true]", odd = '{"active":"true"}', one = '{"active":1}',
      slow = function()
        support.eventually("the proxy gives up", function() return server.aborted > 0 end)
        return 500
      end,
    }
    -- One worker: another one's conn to the server would outlive its listener.
    local port, backend = start(server, "timeout = 0.1", { workers = 1 })
    for _, token in ipairs { "broken", "html", "text", "list", "odd", "one", "slow" } do
      local response = get(port, token)
      assert.equal(503, response.status, token)
      assert.equal("5", response.headers["Retry-After"])
    end
    server:close()
    assert.equal(503, get(port, "good").status)
    assert.equal(0, #backend.requests)
  end)

  it("looks at what the server says beside active", function()
    local server = serve {
      expired = '{"active":true,"exp":1000}', odd = '{"active":true,"exp":"soon"}', early = '{"active":true,"nbf":99999999999}',
      evil = '{"active":true,"iss":"https://evil.example"}', bank = '{"active":true,"aud":["bank"]}',
      good = '{"active":true,"iss":"https://id.example","aud":["bank","shop"],"sub":null}', nobody = '{"active":true}',
    }
    local port, backend = start(server, 'issuer = "https://id.example", audience = "shop", claims = { sub = "X-User" }')
    for _, token in ipairs { "expired", "odd", "early", "evil", "bank", "nobody" } do
      local response = get(port, token)
      assert.equal(401, response.status, token)
      assert.matches('error="invalid_token"', response.headers["WWW-Authenticate"])
    end
    assert.equal(200, get(port, "good").status)
    assert.is_nil(backend.requests[1].headers["X-User"])
  end)

  it("does not mistake another client's kept answers for its own", function()
    local server = serve { good = '{"active":true}' }
    local one = 'require "scripts.oauth2_introspection" { url = "http://%s/", client_id = "%s", client_secret = "x" }'
    local proxy = support.moongate.start { values = {
      ONE = one:format(server.address, "one"), TWO = one:format(server.address, "two"),
    }, config = [[
      return { sites = {
        { listen = "127.0.0.1:$PORT", hosts = { "one" }, use = { $ONE }, on_request = function() return 204 end },
        { listen = "127.0.0.1:$PORT", hosts = { "two" }, use = { $TWO }, on_request = function() return 204 end },
      } }
    ]] }
    for _, host in ipairs { "one", "two", "one" } do
      local response = http.get(proxy.port, "/", { headers = { ["Host"] = host, ["Authorization"] = "Bearer good" } })
      assert.equal(204, response.status)
    end
    assert.equal(2, #server.requests)
  end)

  it("refuses wrong options", function()
    local who = 'client_id = "a", client_secret = "b"'
    policy.assert_refused("oauth2_introspection", {
      ["{ " .. who .. " }"] = "oauth2_introspection: expected either url, or backend and path",
      ['{ url = "id.example", ' .. who .. " }"] = "oauth2_introspection: url: expected one such as",
      ['{ backend = "id", ' .. who .. " }"] = "oauth2_introspection: path: expected one that begins with /",
      ['{ url = "http://a/", client_id = "a" }'] = "oauth2_introspection: client_secret: must be given",
      ['{ url = "http://a/", ttl = -1, ' .. who .. " }"] = "oauth2_introspection: ttl: expected seconds",
      ['{ url = "http://a/", timout = 1, ' .. who .. " }"] = 'oauth2_introspection: unknown option "timout"',
    })
  end)
end)
