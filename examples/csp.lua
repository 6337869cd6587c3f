-- Content-Security-Policy: every page has a nonce of its own, which is put into the HTML on the way; browsers report
-- what they blocked.
--
--     moongate run examples/csp.lua
--
--     $ curl -si http://127.0.0.1:8080/ | grep -i ^Content-Security
--     Content-Security-Policy: default-src 'self'; report-to csp; report-uri /.csp-report; script-src 'nonce-...'
--
-- The script of the page has the same nonce, and the next page another one:
--
--     $ curl -si http://127.0.0.1:8080/ | grep -o '[a-zA-Z0-9+/]*==' | uniq | wc -l
--     1
--     $ curl -s 'http://127.0.0.1:8080/[1-3]' | grep script | sort -u | wc -l
--     3
--
-- A report, as a browser sends it, is a line in the error log, and counted:
--
--     $ curl -si -d '{"csp-report":{"effective-directive":"img-src"}}' http://127.0.0.1:8080/.csp-report | head -1
--     HTTP/1.1 204 No Content
--     $ curl -s http://127.0.0.1:9901/metrics | grep ^csp_reports
--     csp_reports_total{directive="img-src"} 1

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  use = {
    require "scripts.csp" {
      policy = "default-src 'self'; script-src 'nonce'",
      placeholder = "nonce-5b0c9f6e1d", -- known to the application's templates, and nobody else
      report = "/.csp-report",
    },
  },
}

-- The application, played by one more site.
local app = { listen = "127.0.0.1:9001" }

function app.on_request()
  return gate.reply(200, '<script nonce="nonce-5b0c9f6e1d">hello()</script>\n', { ["Content-Type"] = "text/html" })
end

return { sites = { site, app }, admin = "127.0.0.1:9901" }
