-- Quickstart: a site, its policy and the servers behind it in one file, so that nothing else is needed.
--
--     moongate run examples/quickstart.lua
--
-- The site is http://127.0.0.1:8080/. Try, in another terminal:
--
--     $ curl http://127.0.0.1:8080/
--     blue answers GET /
--     $ curl 'http://127.0.0.1:8080/?color=green'
--     green answers GET /?color=green
--     $ curl http://127.0.0.1:8080/%61dmin
--     not for you
--     $ curl -si http://127.0.0.1:8080/ | grep -i ^X-
--     X-Served-By: blue
--
-- Figures are at http://127.0.0.1:9901/metrics and http://127.0.0.1:9901/status. Change a line of this file, then say
-- `moongate reload examples/quickstart.lua` (or start it with --watch): what is connected stays connected. In the
-- source tree the program is build/moongate.

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = {
    blue = { "127.0.0.1:9001" },
    green = { "127.0.0.1:9002" },
  },
}

function site.on_request(req)
  if req.path == "/admin" then return gate.reply(403, "not for you\n") end
end

function site.pick_backend(req)
  return req.args.color == "green" and "green" or "blue"
end

function site.on_response(_req, res)
  res.headers["X-Served-By"] = res.headers["X-Name"]
  res.headers["X-Name"] = nil
end

-- The servers behind it, played by two more sites.
local function server(port, name)
  return {
    listen = "127.0.0.1:" .. port,
    on_request = function(req)
      return gate.reply(200, ("%s answers %s %s\n"):format(name, req.method, req.target), { ["X-Name"] = name })
    end,
  }
end

return {
  sites = { site, server(9001, "blue"), server(9002, "green") },
  admin = "127.0.0.1:9901",
}
