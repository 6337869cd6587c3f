-- Canary: a tenth of the users get the new version, always the same ones, and none of them its errors.
--
--     moongate run examples/canary.lua
--
-- A user's number decides (here a cookie); `eve` is among the tenth, `bob` is not:
--
--     $ curl -b user=eve http://127.0.0.1:8080/
--     new version
--     $ curl -b user=bob http://127.0.0.1:8080/
--     old version
--
-- A tester asks for it, whoever he is:
--
--     $ curl -H 'X-Canary: always' http://127.0.0.1:8080/
--     new version
--
-- The new version fails at /report. A 5xx of a request that may be repeated goes on to the old one; one that may not
-- (POST) is delivered as it is:
--
--     $ curl -b user=eve http://127.0.0.1:8080/report
--     old version
--     $ curl -b user=eve -X POST http://127.0.0.1:8080/report
--     boom

local gate = require "moongate"

local percent = 10

local site = {
  listen = "127.0.0.1:8080",
  backends = {
    stable = { "127.0.0.1:9001" },
    canary = { "127.0.0.1:9002" },
  },
}

local function is_canary(req)
  if req.headers["X-Canary"] == "always" then return true end
  return gate.hash(req.cookies.user or req.client.ip) % 100 < percent
end

function site.pick_backend(req)
  if is_canary(req) then return { "canary", "stable", retry_on = { "connect", "reset", "timeout", "5xx" } } end
  return "stable"
end

-- The two versions, played by two more sites.
local old = { listen = "127.0.0.1:9001" }
local new = { listen = "127.0.0.1:9002" }

function old.on_request()
  return gate.reply(200, "old version\n")
end

function new.on_request(req)
  if req.path == "/report" then return gate.reply(500, "boom\n") end
  return gate.reply(200, "new version\n")
end

return { sites = { site, old, new } }
