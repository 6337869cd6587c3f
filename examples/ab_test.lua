-- Experiments: users get one of several variants, the application is told which, and the metrics compare them.
--
--     moongate run examples/ab_test.lua
--
-- Users are told apart by a field here (without `by` they are given a cookie):
--
--     $ curl -H 'X-User: bob' http://127.0.0.1:8080/
--     checkout=fast
--     $ curl -H 'X-User: eve' http://127.0.0.1:8080/
--     checkout=classic
--
-- What a client says of itself does not count; a tester's password does:
--
--     $ curl -H 'X-User: eve' -H 'X-Experiments: checkout=fast' http://127.0.0.1:8080/
--     checkout=classic
--     $ curl -H 'X-User: eve' -H 'X-Force: sixteen-bytes-and-more checkout=fast' http://127.0.0.1:8080/
--     checkout=fast
--
-- The variant `fast` has a backend of its own. The figures:
--
--     $ curl -s http://127.0.0.1:9901/metrics | grep '^ab_test_requests_total' | sort
--     ab_test_requests_total{experiment="checkout",variant="classic",status="2xx"} 2
--     ab_test_requests_total{experiment="checkout",variant="fast",status="2xx"} 2

local gate = require "moongate"
local ab_test = require "scripts.ab_test"

local site = {
  listen = "127.0.0.1:8080",
  backends = { default = { "127.0.0.1:9001" }, fast = { "127.0.0.1:9002" } },
  use = {
    ab_test {
      by = "header:X-User",
      experiments = { checkout = { variants = { classic = 1, fast = 1 }, backends = { fast = "fast" } } },
      force = { header = "X-Force", secret = "sixteen-bytes-and-more" },
    },
  },
}

-- The backends, played by two more sites.
local function server(port)
  return {
    listen = "127.0.0.1:" .. port,
    on_request = function(req) return gate.reply(200, req.headers["X-Experiments"] .. "\n") end,
  }
end

return { sites = { site, server(9001), server(9002) }, admin = "127.0.0.1:9901" }
