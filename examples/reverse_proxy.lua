-- Reverse proxy: one web application behind Moongate, with the settings most people look for first.
--
--     moongate run examples/reverse_proxy.lua
--
-- The application here is a further site on port 9001 that tells what it got. To use yours, put its address into
-- `backends` and delete `app`.
--
--     $ curl http://127.0.0.1:8080/hello
--     GET http://127.0.0.1:8080/hello from 127.0.0.1
--     $ curl -d some=form http://127.0.0.1:8080/form
--     POST http://127.0.0.1:8080/form from 127.0.0.1
--
-- A client cannot lie about its address, since nobody is in `trusted_proxies`:
--
--     $ curl -H 'X-Forwarded-For: 10.9.8.7' http://127.0.0.1:8080/hello
--     GET http://127.0.0.1:8080/hello from 127.0.0.1
--
-- A body over `max_body` is refused before the application sees any of it, and each answer has the id under which the
-- log knows its request:
--
--     $ head -c 2000000 /dev/zero | curl -s -o /dev/null -w '%{http_code}\n' --data-binary @- http://127.0.0.1:8080/
--     413
--     $ curl -si http://127.0.0.1:8080/hello | grep -i ^x-request-id
--     X-Request-Id: ...
--
-- Standard error has the access log, http://127.0.0.1:9901/metrics the figures.

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = {
    app = { "127.0.0.1:9001", health = { path = "/healthz", interval = "2s" }, keepalive = 32 },
  },
  use = { require "scripts.request_id" {} },
  max_body = "1M",
  timeouts = { connect = "2s", first_byte = "30s" },
  -- trusted_proxies = { "10.0.0.0/8" }, -- believe the X-Forwarded-For of a load balancer in front
}

-- An application sees the client through the header fields the proxy sets. This one, being Moongate too, trusts them.
local app = { listen = "127.0.0.1:9001", trusted_proxies = { "127.0.0.1" } }

function app.on_request(req)
  if req.path == "/healthz" then return 200 end
  local h = req.headers
  local url = ("%s://%s%s"):format(h["X-Forwarded-Proto"], h["X-Forwarded-Host"], req.target)
  return gate.reply(200, ("%s %s from %s\n"):format(req.method, url, h["X-Forwarded-For"]))
end

return {
  sites = { site, app },
  log = { access = "stderr" },
  admin = "127.0.0.1:9901",
}
