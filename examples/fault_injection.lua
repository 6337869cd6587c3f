-- Faults on purpose: what do your clients do when the API is slow, or gone?
--
--     moongate run examples/fault_injection.lua
--
-- Nothing happens until somebody switches it on, without a reload:
--
--     $ curl http://127.0.0.1:8080/api/orders
--     orders
--     $ curl -X POST http://127.0.0.1:9999/on
--     faults are on
--     $ curl -i -s http://127.0.0.1:8080/api/orders | grep -i -e ^http -e ^x-fault
--     HTTP/1.1 503 Service Unavailable
--     X-Fault-Injected: delay=0.200, abort=503
--     $ curl http://127.0.0.1:8080/elsewhere
--     orders
--     $ curl -X POST http://127.0.0.1:9999/off
--     faults are off
--     $ curl http://127.0.0.1:8080/api/orders
--     orders

local gate = require "moongate"
local fault_injection = require "scripts.fault_injection"

local switches = gate.shared("switches", { max = "64K" })

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  use = {
    fault_injection {
      enabled = function() return switches:get "faults" end,
      faults = {
        { paths = { "/api" }, delay = "200ms" },
        { paths = { "/api" }, abort = 503 }, -- share = 5 in real life
      },
    },
  },
}

-- The switch, at an address that only operators reach.
local switch = { listen = "127.0.0.1:9999" }

function switch.on_request(req)
  if req.method ~= "POST" then return 405 end
  switches:set("faults", req.path == "/on" or nil)
  return gate.reply(200, ("faults are %s\n"):format(switches:get "faults" and "on" or "off"))
end

-- The application, played by one more site.
local app = { listen = "127.0.0.1:9001", on_request = gate.reply(200, "orders\n") }

return { sites = { site, switch, app } }
