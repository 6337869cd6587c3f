-- Robots: those that nobody wants, those that pretend to be a search engine, and those that fall into a trap.
--
--     moongate run examples/bot_filter.lua
--
--     $ curl -s http://127.0.0.1:8080/
--     the application sees score=3
--     $ curl -s -A 'Mozilla/5.0 (compatible; GPTBot/1.0)' http://127.0.0.1:8080/
--     not for robots
--
-- The name of this machine's address is not in a domain of Google's (if names can be resolved here at all):
--
--     $ curl -s -A 'Mozilla/5.0 (compatible; Googlebot/2.1)' http://127.0.0.1:8080/ | grep -c -e 'not for' -e 'score=2'
--     1
--
-- A browser that accepts nothing, no language and no coding, is none:
--
--     $ curl -s -H 'Accept:' -A 'Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0' http://127.0.0.1:8080/
--     not for robots
--
-- Whoever looks for what is not here, is not looked at any more for a while; others are:
--
--     $ curl -s --interface 127.0.0.2 http://127.0.0.1:8080/.env
--     not for robots
--     $ curl -s --interface 127.0.0.2 http://127.0.0.1:8080/
--     not for robots
--     $ curl -s --interface 127.0.0.3 http://127.0.0.1:8080/
--     the application sees score=3
--     $ curl -s http://127.0.0.1:9901/metrics | grep -e '^bot_filter_refused_total.*"banned"'
--     bot_filter_refused_total{reason="banned"} 1

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  use = {
    require "scripts.bot_filter" {
      deny = { "GPTBot", "masscan" },
      traps = { "/.env", "/wp-login.php" },
      header = "X-Bot",
    },
  },
}

-- The application, played by one more site.
local app = { listen = "127.0.0.1:9001" }

function app.on_request(req)
  return gate.reply(200, ("the application sees %s\n"):format(req.headers["X-Bot"]))
end

return { sites = { site, app }, admin = "127.0.0.1:9901" }
