-- Maintenance page: while a switch is on, or when the application does not answer, people get a page instead.
--
--     moongate run examples/maintenance_page.lua
--
--     $ curl http://127.0.0.1:8080/
--     the application
--
-- The switch is a shared value: all workers see it at once, and a reload keeps it. Requests of the operators, told by
-- their address, pass (here: those from 127.0.0.2).
--
--     $ curl -X PUT --interface 127.0.0.2 http://127.0.0.1:8080/.maintenance
--     maintenance is on
--     $ curl -s -w '%{http_code}\n' http://127.0.0.1:8080/
--     <h1>Back soon</h1>
--     503
--     $ curl --interface 127.0.0.2 http://127.0.0.1:8080/
--     the application
--     $ curl -X DELETE --interface 127.0.0.2 http://127.0.0.1:8080/.maintenance
--     maintenance is off
--     $ curl http://127.0.0.1:8080/
--     the application
--
-- When the application cannot be reached, on_error puts the same page in the place of the plain one:
--
--     $ curl http://127.0.0.1:8080/gone
--     <h1>Back soon</h1>

local gate = require "moongate"

local switch = gate.shared("maintenance", { max = "64K" })
local operators = { ["127.0.0.2"] = true }

local site = {
  listen = "127.0.0.1:8080",
  backends = {
    app = { "127.0.0.1:9001" },
    gone = { "127.0.0.1:9999" }, -- nobody listens there
  },
}

local function page()
  return gate.reply(503, "<h1>Back soon</h1>\n", {
    ["Content-Type"] = "text/html; charset=utf-8", ["Retry-After"] = 120, ["Cache-Control"] = "no-store",
  })
end

local function turn(req)
  if req.method == "PUT" then switch:set("on", true) elseif req.method == "DELETE" then switch:remove "on" end
  return gate.reply(200, ("maintenance is %s\n"):format(switch:get "on" and "on" or "off"))
end

function site.on_request(req)
  if operators[req.client.ip] then return req.path == "/.maintenance" and turn(req) or nil end
  if switch:get "on" then return page() end
end

function site.pick_backend(req)
  return req.path == "/gone" and "gone" or "app"
end

function site.on_error(_req, err)
  if err.status >= 502 then return page() end
end

-- The application, played by one more site.
local app = {
  listen = "127.0.0.1:9001",
  on_request = function() return gate.reply(200, "the application\n") end,
}

return { sites = { site, app } }
