-- A canary that is watched: a part of the users get the new version; when it fails more often than the old one, it is
-- taken back by itself.
--
--     moongate run examples/canary_rollback.lua
--
-- Users are told apart by a field; `bob` is among the 40 %, `eve` is not:
--
--     $ curl -H 'X-User: bob' http://127.0.0.1:8080/
--     new version
--     $ curl -H 'X-User: eve' http://127.0.0.1:8080/
--     old version
--
-- Nobody sees that the new version fails at /report: the old one answers in its place. But it is counted, and then bob
-- gets the old version everywhere:
--
--     $ curl -s -H 'X-User: bob' 'http://127.0.0.1:8080/report?[1-20]' | sort | uniq -c
--     ...20 old version
--     $ curl -H 'X-User: bob' http://127.0.0.1:8080/
--     old version
--
-- Whoever mends it can still look at it:
--
--     $ curl -H 'X-User: eve' -H 'X-Canary: let me see' http://127.0.0.1:8080/
--     new version

local gate = require "moongate"
local canary = require "scripts.canary"

local site = {
  listen = "127.0.0.1:8080",
  backends = { stable = { "127.0.0.1:9001" }, canary = { "127.0.0.1:9002" } },
  use = {
    canary {
      canary = "canary", stable = "stable", share = 40,
      sticky = "header:X-User",
      header = { name = "X-Canary", always = "let me see" },
      rollback = { requests = 10, window = "1m", ratio = 2 },
      release = "2.0",
    },
  },
}

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
