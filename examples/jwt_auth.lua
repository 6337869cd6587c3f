-- Tokens: who calls is told by a JSON Web Token, whose issuer publishes the keys it signs with.
--
--     moongate run examples/jwt_auth.lua
--
-- Without a token, or with one that somebody has changed, there is no way in:
--
--     $ curl 127.0.0.1:8080
--     a token, please
--     $ curl -H "Authorization: Bearer $(curl -s '127.0.0.1:9002/token?user=ada')x" 127.0.0.1:8080
--     the token's signature is wrong
--
-- The application on port 9001 learns who it is, and cannot be told so by the client:
--
--     $ curl -H "Authorization: Bearer $(curl -s '127.0.0.1:9002/token?user=ada')" 127.0.0.1:8080
--     hello ada, you may read
--     $ curl -H "Authorization: Bearer $(curl -s '127.0.0.1:9002/token?user=ada')" -H 'X-User: root' 127.0.0.1:8080
--     hello ada, you may read
--
-- Only tokens with the scope "write" may change something:
--
--     $ curl -X POST -H "Authorization: Bearer $(curl -s '127.0.0.1:9002/token?user=ada')" 127.0.0.1:8080
--     the token does not allow this
--     $ curl -X POST -H "Authorization: Bearer $(curl -s '127.0.0.1:9002/token?user=bob&scope=write')" 127.0.0.1:8080
--     hello bob, you may write

local gate = require "moongate"
local jwt_auth = require "scripts.jwt_auth"

local site = {
  listen = "127.0.0.1:8080",
  backends = { default = { "127.0.0.1:9001" } },
  use = {
    jwt_auth {
      jwks = "http://127.0.0.1:9002/jwks.json", -- in real life https
      algorithms = { "EdDSA" },
      issuer = "http://127.0.0.1:9002",
      audience = "shop",
      claims = { sub = "X-User", scope = "X-Scope" },
      check = function(claims, req) return req.method == "GET" or claims.scope == "write" end,
    },
  },
}

-- The application, played by one more site.
local app = { listen = "127.0.0.1:9001" }

function app.on_request(req)
  return gate.reply(200, ("hello %s, you may %s\n"):format(req.headers["X-User"], req.headers["X-Scope"]))
end

-- And the issuer. In real life its key is nobody's to read: gate.crypto.key_file "signing.pem".
local issuer = { listen = "127.0.0.1:9002" }

local signing_key = assert(gate.crypto.key {
  kty = "OKP", crv = "Ed25519", kid = "2024-07", alg = "EdDSA",
  x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", d = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
})

function issuer.on_request(req)
  if req.path == "/jwks.json" then return gate.reply(200, gate.json.encode { keys = { signing_key:jwk() } }) end
  if req.path ~= "/token" then return 404 end
  local claims = {
    iss = "http://127.0.0.1:9002", aud = "shop", sub = req.args.user, scope = req.args.scope or "read",
  }
  return gate.reply(200, gate.jwt.sign(claims, signing_key, { expires_in = "5m" }))
end

return { sites = { site, app, issuer } }
