-- Tokens that only their issuer can read: it is asked about each, and the answer is kept for a while.
--
--     moongate run examples/oauth2_introspection.lua
--
--     $ curl http://127.0.0.1:8080/
--     a token, please
--     $ curl -H 'Authorization: Bearer made-up' http://127.0.0.1:8080/
--     the token is not valid any more
--     $ curl -H 'Authorization: Bearer ada-token' http://127.0.0.1:8080/
--     hello ada
--
-- What a token may do, the issuer says, too:
--
--     $ curl -H 'Authorization: Bearer guest-token' http://127.0.0.1:8080/
--     the token does not allow this
--
-- A second request with the same token does not ask again:
--
--     $ curl -H 'Authorization: Bearer ada-token' http://127.0.0.1:8080/
--     hello ada
--     $ curl http://127.0.0.1:9002/asked
--     3 times

local gate = require "moongate"
local introspection = require "scripts.oauth2_introspection"

local site = {
  listen = "127.0.0.1:8080",
  backends = { default = { "127.0.0.1:9001" }, issuer = { "127.0.0.1:9002" } },
  use = {
    introspection {
      backend = "issuer", path = "/introspect",
      client_id = "shop", client_secret = "moon", -- in real life from a file that only the proxy can read
      scopes = { "read" },
      claims = { sub = "X-User" },
    },
  },
}

-- The application and the issuer, played by two more sites.
local app = { listen = "127.0.0.1:9001" }
local issuer = { listen = "127.0.0.1:9002" }

function app.on_request(req)
  return gate.reply(200, ("hello %s\n"):format(req.headers["X-User"]))
end

local tokens = {
  ["ada-token"] = { active = true, sub = "ada", scope = "read write" },
  ["guest-token"] = { active = true, sub = "guest", scope = "browse" },
}
local counters = gate.shared("counters", { max = "64K" })

function issuer.on_request(req)
  if req.path == "/asked" then return gate.reply(200, (counters:get "asked" or 0) .. " times\n") end
  if req.headers["Authorization"] ~= "Basic " .. gate.base64.encode "shop:moon" then return 401 end
  counters:incr "asked"
  local token = req.body:text("4K"):match "token=([%w-]+)"
  return gate.reply(200, gate.json.encode(tokens[token] or { active = false }))
end

return { sites = { site, app, issuer } }
