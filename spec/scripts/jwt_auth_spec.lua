-- luacheck: no max line length (tokens and messages stand in one line)
local support = require "support"
local keys = require "support.keys"
local policy = require "scripts.policy"
local it, http = support.it, support.http

local SECRET <const> = ("s"):rep(40)
local LATER <const> = os.time() + 1000

-- Options beside the usual ones.
local function start(more)
  return policy.start("jwt_auth", ('{ keys = "%s", algorithms = { "HS256" }, %s }'):format(SECRET, more or ""))
end

local function token_of(claims) return keys.token(claims, SECRET) end

local function get(port, token, more)
  local headers = { ["Authorization"] = token and "Bearer " .. token }
  for name, value in pairs(more or {}) do headers[name] = value end
  return http.get(port, "/", { headers = headers })
end

local ada = ('{"sub":"ada","exp":%d,"scope":"read write","roles":["a","b"],"n":5,"admin":true}'):format(LATER)

describe("scripts.jwt_auth", function()
  it("asks who brings nothing, or another scheme", function()
    local port, backend = start 'realm = "shop"'
    for _, field in ipairs { false, "Basic YWRhOm1vb24=" } do
      local response = http.get(port, "/", { headers = { ["Authorization"] = field or nil } })
      assert.equal(401, response.status)
      assert.equal('Bearer realm="shop"', response.headers["WWW-Authenticate"])
    end
    assert.equal(0, #backend.requests)
  end)

  it("lets in who brings a good token, tells the application what it says, and keeps the token to itself", function()
    local port, backend = start 'claims = { sub = "X-User", roles = "X-Roles", n = "X-N", admin = "X-Admin", no = "X-No" }'
    assert.equal(200, get(port, token_of(ada), { ["X-No"] = "forged", ["X-User"] = "root" }).status)
    local headers = backend.requests[1].headers
    assert.equal("ada a,b 5 true", table.concat({ headers["X-User"], headers["X-Roles"], headers["X-N"], headers["X-Admin"] }, " "))
    assert.equal("ada", headers["X-Seen-User"]) -- req.ctx.user
    assert.is_nil(headers["X-No"])
    assert.is_nil(headers["Authorization"])
  end)

  it("turns away bad tokens, and says what is wrong as RFC 6750 wants it", function()
    local port, backend = start 'issuer = "https://id.example", audience = "shop"'
    local bad = {
      [token_of(('{"exp":%d,"iss":"https://id.example","aud":"shop"}'):format(os.time() - 100))] = "the token has expired",
      [token_of '{"iss":"https://id.example","aud":"shop"}'] = "the token does not say enough", -- exp is required
      [token_of(('{"exp":%d,"iss":"https://evil.example","aud":"shop"}'):format(LATER))] = "the token was issued by somebody else",
      [token_of(('{"exp":%d,"iss":"https://id.example","aud":"bank"}'):format(LATER))] = "the token is for somebody else",
      [keys.token(ada, ("t"):rep(40))] = "the token's signature is wrong",
      [keys.token(ada, keys.private "rsa")] = "the token is not signed as it should be",
      ["a.b.c"] = "the token is malformed",
    }
    for token, sentence in pairs(bad) do
      local response = get(port, token)
      assert.equal(401, response.status)
      assert.equal(('Bearer realm="api", error="invalid_token", error_description="%s"'):format(sentence),
        response.headers["WWW-Authenticate"])
    end
    for _, field in ipairs { "Bearer", "Bearer ", "Bearer a b", "Bearer a,Bearer b", 'Bearer "a"' } do
      local response = http.get(port, "/", { headers = { ["Authorization"] = field } })
      assert.equal(400, response.status, field)
      assert.matches('error="invalid_request"', response.headers["WWW-Authenticate"])
    end
    assert.equal(0, #backend.requests)
  end)

  it("takes tokens that a key of a file verifies", function()
    local folder = support.temp_dir()
    assert(require("luv").fs_chmod(folder, tonumber("755", 8)))
    support.process.write_file(folder .. "/key.pem", keys.public "rsa")
    local options = '{ keys = require("moongate").crypto.key_file "%s/key.pem", algorithms = { "RS256" } }'
    local port = policy.start("jwt_auth", options:format(folder))
    assert.equal(200, get(port, keys.token(ada, keys.private "rsa")).status)
    assert.equal(401, get(port, token_of(ada)).status)
  end)

  it("takes keys of a URL, and answers 503 while they cannot be had", function()
    local down = true
    local server = http.backend(function()
      if down then return 500 end
      return 200, nil, '{"keys":[{"kty":"oct","k":"c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzcw"}]}'
    end)
    local options = '{ jwks = "http://%s/", jwks_options = { refresh = "100ms" }, algorithms = { "HS256" } }'
    local port = policy.start("jwt_auth", options:format(server.address))
    assert.equal(503, get(port, token_of(ada)).status)
    down = false
    support.eventually("the keys are there", function() return get(port, token_of(ada)).status == 200 end)
  end)

  it("finds the token in another field or a cookie, and takes only that away", function()
    local port, backend = start 'cookie = "session"'
    local token = token_of(ada)
    assert.equal(200, get(port, nil, { ["Cookie"] = "a=1; session=" .. token .. "; b=2" }).status)
    assert.equal("a=1; b=2", backend.requests[1].headers["Cookie"])
    assert.equal(401, get(port, token).status)
    port, backend = start 'header = "X-Token", forward = true'
    assert.equal(200, get(port, nil, { ["X-Token"] = token }).status)
    assert.equal(token, backend.requests[1].headers["X-Token"])
  end)

  it("asks for scopes, and for what a function wants", function()
    local port = start 'scopes = { "read", "write" }'
    assert.equal(200, get(port, token_of(ada)).status)
    assert.equal(200, get(port, token_of(('{"exp":%d,"scp":["write","read"]}'):format(LATER))).status)
    local response = get(port, token_of(('{"exp":%d,"scope":"read"}'):format(LATER)))
    assert.equal(403, response.status)
    assert.matches('error="insufficient_scope".*scope="read write"', response.headers["WWW-Authenticate"])
    port = start [[check = function(claims, req)
      if req.headers["X-Teapot"] then return require("moongate").reply(418) end
      return claims.admin == true
    end]]
    assert.equal(200, get(port, token_of(ada)).status)
    assert.equal(403, get(port, token_of(('{"exp":%d}'):format(LATER))).status)
    assert.equal(418, get(port, token_of(ada), { ["X-Teapot"] = "1" }).status)
  end)

  it("lets in without a token where it is not required, or the path is open, but without a name", function()
    local port, backend = start 'required = false, claims = { sub = "X-User" }'
    assert.equal(200, get(port, nil, { ["X-User"] = "root" }).status)
    assert.is_nil(backend.requests[1].headers["X-User"])
    assert.equal(401, get(port, "a.b.c").status)
    port, backend = start 'except = { "/open" }, claims = { sub = "X-User" }'
    assert.equal(200, http.get(port, "/open/page", { headers = { ["X-User"] = "root" } }).status)
    assert.is_nil(backend.requests[1].headers["X-User"])
    assert.equal(401, http.get(port, "/opened").status)
  end)

  it("does not let a claim write more than its field", function()
    local port, backend = start 'claims = { sub = "X-User" }'
    for _, claim in ipairs { [["a\r\nX-Admin: 1"]], '{"a":1}', '["a,b"]', '"' .. ("x"):rep(5000) .. '"' } do
      local token = token_of(('{"exp":%d,"sub":%s}'):format(LATER, claim))
      assert.equal(401, get(port, token).status, claim)
    end
    assert.equal(0, #backend.requests)
  end)

  it("refuses wrong options", function()
    local key = 'keys = ("s"):rep(32), '
    policy.assert_refused("jwt_auth", {
      ["{}"] = "jwt_auth: expected either jwks or keys",
      ['{ keys = "x", jwks = "y" }'] = "jwt_auth: expected either jwks or keys",
      ["{ " .. key .. "}"] = "jwt_auth: algorithms is a list",
      ["{ " .. key .. 'algorithms = { "none" } }'] = "jwt_auth: algorithms has none",
      ['{ keys = "short", algorithms = { "HS256" } }'] = "jwt_auth: a secret for HS256 has at least 32 bytes",
      ['{ jwks = "missing.json", algorithms = { "RS256" } }'] = "jwt_auth: jwks: gate.crypto.keys_file: cannot read",
      ["{ " .. key .. 'algorithms = { "HS256" }, leeway = "x" }'] = "jwt_auth: leeway is seconds",
      ["{ " .. key .. 'algorithms = { "HS256" }, isuer = "x" }'] = 'jwt_auth: unknown option "isuer"',
      ["{ " .. key .. 'algorithms = { "HS256" }, claims = { sub = "X User" } }'] = "jwt_auth: claims.sub: expected the name",
      ["{ " .. key .. 'algorithms = { "HS256" }, header = "A", cookie = "b" }'] = "jwt_auth: expected either header or cookie",
      ["{ " .. key .. [[algorithms = { "HS256" }, realm = 'a"b' }]] ] = "jwt_auth: realm: no quotes",
      ["{ " .. key .. 'algorithms = { "HS256" }, scopes = { "a b" } }'] = "jwt_auth: scopes[1]: expected the name of a scope",
    })
  end)
end)
