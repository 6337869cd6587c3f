-- Rate limit: a few requests a minute for strangers, more for those with a key, and hardly any attempts to log in.
--
--     moongate run examples/rate_limit.lua
--
-- An address may come five times a minute. What is left is told with every answer:
--
--     $ curl -si http://127.0.0.1:8080/ | grep -i ^RateLimit-Remaining
--     RateLimit-Remaining: 4
--     $ curl -s 'http://127.0.0.1:8080/[1-6]' | tail -1
--     too many requests
--     $ curl -si http://127.0.0.1:8080/ | grep -i ^Retry-After
--     Retry-After: ...
--
-- Those who have a key are counted by it, whatever their address:
--
--     $ curl -s -H 'X-Api-Key: key-of-ada' 'http://127.0.0.1:8080/[1-50]' | tail -1
--     the application
--
-- Two attempts to log in, then one every thirty seconds; also by another writing of the path:
--
--     $ curl -s -X POST -w '%{http_code}\n' 'http://127.0.0.1:8080/login?[1-2]'
--     the application
--     200
--     the application
--     200
--     $ curl -s --path-as-is -X POST -w '%{http_code}\n' http://127.0.0.1:8080/x/../%6Cogin
--     slow down
--     429

local gate = require "moongate"
local rate_limit = require "scripts.rate_limit"

local keys = { ["key-of-ada"] = "ada" }

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  use = {
    -- A key that nobody gave out is none: made-up keys would be as many limits.
    { on_request = function(req) req.ctx.user = keys[req.headers["X-Api-Key"] or ""] end },
    rate_limit {
      name = "login", body = "slow down\n",
      routes = { { path = "/login", methods = { "POST" }, rate = 2, per = "1m" } },
    },
    rate_limit {
      rate = 5, per = "1m", headers = "always",
      key = function(req) if req.ctx.user then return false end end, -- below: by the key
      except = { "/login" },
    },
    rate_limit { name = "users", key = "ctx:user", rate = 100, per = "1m" },
  },
}

-- The application, played by one more site.
local app = {
  listen = "127.0.0.1:9001",
  on_request = function() return gate.reply(200, "the application\n") end,
}

return { sites = { site, app } }
