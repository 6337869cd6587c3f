-- A new version is tried on real traffic: it gets copies of requests, and nobody sees its answers.
--
--     moongate run examples/mirror.lua
--
--     $ curl -s 'http://127.0.0.1:8080/page?[1-3]'
--     old version
--     old version
--     old version
--     $ curl http://127.0.0.1:8080/report
--     old version
--
-- The new version takes a second for each, which nobody noticed, and fails at /report, which the figures tell:
--
--     $ sleep 1.5; curl -s http://127.0.0.1:9901/metrics | grep '^mirror_[rs][et].*_total' | sort
--     mirror_requests_total{name="new",outcome="different"} 1
--     mirror_requests_total{name="new",outcome="same"} 3
--     mirror_statuses_total{name="new",original="2xx",mirror="5xx"} 1

local gate = require "moongate"
local mirror = require "scripts.mirror"

local site = {
  listen = "127.0.0.1:8080",
  backends = { default = { "127.0.0.1:9001" }, new = { "127.0.0.1:9002" } },
  use = { mirror { backend = "new", share = 100, remove = { "Cookie", "Authorization" } } },
}

-- The two versions, played by two more sites.
local old = { listen = "127.0.0.1:9001" }
local new = { listen = "127.0.0.1:9002" }

function old.on_request()
  return gate.reply(200, "old version\n")
end

function new.on_request(req)
  gate.sleep(1)
  if req.path == "/report" then return gate.reply(500, "boom\n") end
  return gate.reply(200, "new version\n")
end

return { sites = { site, old, new }, admin = "127.0.0.1:9901" }
