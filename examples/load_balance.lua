-- Load balancing: three servers in one backend, one of them twice as strong; who does not answer is passed over.
--
--     moongate run examples/load_balance.lua
--
-- By weight, two of four requests go to `strong` (round robin is per worker and so, seen by one client, exact on one
-- connection):
--
--     $ curl -s 'http://127.0.0.1:8080/[1-8]' | sort | uniq -c
--     ...2 first
--     ...2 second
--     ...4 strong
--
-- The backend `half_down` has a server that nobody listens at. Clients do not notice: a connection that fails is tried
-- again at the next server, and the health check takes the dead one out after a few seconds.
--
--     $ curl -s 'http://127.0.0.1:8080/half/[1-4]' | sort | uniq -c
--     ...4 first
--
-- A server can also be named. Which of them are well is told at http://127.0.0.1:9901/status.
--
--     $ curl -H 'X-Server: second' http://127.0.0.1:8080/
--     second

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = {
    app = {
      { "127.0.0.1:9001", name = "first" },
      { "127.0.0.1:9002", name = "second" },
      { "127.0.0.1:9003", name = "strong", weight = 2 },
      balance = "round_robin", -- or "least_conn", better where requests differ much in cost
      health = { path = "/healthz", interval = "1s", fall = 2 },
    },
    half_down = {
      "127.0.0.1:9001", "127.0.0.1:9999",
      health = { path = "/healthz", interval = "1s" },
      retry = { tries = 2, on = { "connect" } },
    },
  },
}

local servers = { first = true, second = true, strong = true }

function site.pick_backend(req)
  if req.path:find "^/half/" then return "half_down" end
  local name = req.headers["X-Server"]
  return servers[name or ""] and "app/" .. name or "app"
end

-- The servers, played by three more sites.
local function server(port, name)
  return { listen = "127.0.0.1:" .. port, on_request = function() return gate.reply(200, name .. "\n") end }
end

return {
  sites = { site, server(9001, "first"), server(9002, "second"), server(9003, "strong") },
  admin = "127.0.0.1:9901",
}
