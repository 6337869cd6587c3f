-- CORS: pages of one other origin may use the API, with cookies; forms of all others are kept out.
--
--     moongate run examples/cors.lua
--
--     $ curl -si -H 'Origin: https://a.test' http://127.0.0.1:8080/api/cats | grep -i ^Access-Control
--     Access-Control-Allow-Origin: https://a.test
--     Access-Control-Allow-Credentials: true
--     $ curl -si -H 'Origin: https://evil.example' http://127.0.0.1:8080/api/cats | grep -ci ^Access-Control
--     0
--
-- Before a page may delete something its browser asks; the application is not bothered:
--
--     $ curl -si -XOPTIONS -H 'Origin: https://a.test' -H 'Access-Control-Request-Method: PUT' 127.0.0.1:8080 | sed 1q
--     HTTP/1.1 204 No Content
--
-- A form of another site, sent with the cookies of whoever is logged in:
--
--     $ curl -s -X POST -H 'Origin: https://evil.example' http://127.0.0.1:8080/api/cats
--     not from there
--     $ curl -s -X POST -H 'Origin: http://127.0.0.1:8080' http://127.0.0.1:8080/api/cats
--     POST /api/cats

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  use = {
    require "scripts.cors" {
      origins = { "https://a.test" },
      methods = { "PUT", "DELETE" },
      credentials = true,
      refuse = true,
    },
  },
}

-- The application, played by one more site. What it says of CORS itself does not count.
local app = { listen = "127.0.0.1:9001" }

function app.on_request(req)
  return gate.reply(200, ("%s %s\n"):format(req.method, req.path), { ["Access-Control-Allow-Origin"] = "*" })
end

return { sites = { site, app } }
