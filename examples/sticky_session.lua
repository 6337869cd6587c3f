-- Sessions that live in one server's memory: a client comes back to the server that knows it.
--
--     moongate run examples/sticky_session.lua
--
-- The first answer brings a cookie; who sends it is counted by one server:
--
--     $ curl -s -c /tmp/moongate-jar -o /dev/null http://127.0.0.1:8080/
--     $ curl -s -b /tmp/moongate-jar 'http://127.0.0.1:8080/[1-6]' | sort | uniq -c | wc -l
--     1
--
-- Who sends none is spread over all three:
--
--     $ curl -s 'http://127.0.0.1:8080/[1-6]' | sort | uniq -c | wc -l
--     3
--
-- Tenants have no cookies, but a name, and by that always the same server:
--
--     $ curl -s -H 'X-Tenant: acme' 'http://127.0.0.1:8080/tenant/[1-6]' | sort | uniq -c | wc -l
--     1

local gate = require "moongate"
local sticky_session = require "scripts.sticky_session"

local function is_tenant(req) return req.path:find "^/tenant/" end
local function is_browser(req) return not is_tenant(req) end

local servers = {
  { "127.0.0.1:9001", name = "first" }, { "127.0.0.1:9002", name = "second" }, { "127.0.0.1:9003", name = "third" },
}

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = servers },
  use = {
    -- In real life the secret is random, and comes from a module that only the proxy can read.
    sticky_session { backend = "app", secret = "sixteen bytes and more", when = is_browser },
    sticky_session { backend = "app", by = "header:X-Tenant", when = is_tenant },
  },
}

-- The servers, played by three more sites.
local function server(port, name)
  return { listen = "127.0.0.1:" .. port, on_request = function() return gate.reply(200, name .. "\n") end }
end

return { sites = { site, server(9001, "first"), server(9002, "second"), server(9003, "third") } }
