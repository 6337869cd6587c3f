-- Maintenance: a switch that operators turn over HTTP; who works on the site passes.
--
--     moongate run examples/maintenance.lua
--
--     $ curl -s http://127.0.0.1:8080/
--     the application
--     $ curl -s -X PUT -H 'Authorization: Bearer the-secret-of-operators' 'http://127.0.0.1:8080/.maintenance?for=30m'
--     {"ends":"...","on":true}
--     $ curl -s -w '%{http_code}\n' http://127.0.0.1:8080/ | grep -e '<h1>' -e '^5'
--     <h1>Back soon</h1>
--     503
--     $ curl -s -H 'Accept: application/json' http://127.0.0.1:8080/
--     {"error":"maintenance","message":"We are moving to a larger house."}
--     $ curl -si http://127.0.0.1:8080/ | grep -i ^Retry-After
--     Retry-After: 1...
--
-- Monitoring sees the application all the time, and so do the operators, told by their address (here 127.0.0.2) or by a
-- cookie:
--
--     $ curl -s http://127.0.0.1:8080/healthz
--     the application
--     $ curl -s --interface 127.0.0.2 http://127.0.0.1:8080/
--     the application
--     $ curl -s -b 'preview=0a1b2c3d4e5f6071' http://127.0.0.1:8080/
--     the application
--
--     $ curl -s -X DELETE -H 'Authorization: Bearer the-secret-of-operators' http://127.0.0.1:8080/.maintenance
--     {"on":false}
--     $ curl -s http://127.0.0.1:8080/
--     the application

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  use = {
    require "scripts.maintenance" {
      control = { path = "/.maintenance", secret = "the-secret-of-operators" },
      ips = { "127.0.0.2" },
      cookie = { name = "preview", value = "0a1b2c3d4e5f6071" },
      except = { "/healthz" },
      message = "We are moving to a larger house.",
      failures = true,
    },
  },
}

-- The application, played by one more site.
local app = {
  listen = "127.0.0.1:9001",
  on_request = function() return gate.reply(200, "the application\n") end,
}

return { sites = { site, app } }
