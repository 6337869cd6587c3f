-- Several sites on one address, told apart by their host names, each with its own backends and policy.
--
--     moongate run examples/multiple_sites.lua
--
--     $ curl -H 'Host: www.example.com' http://127.0.0.1:8080/
--     the shop
--     $ curl -H 'Host: example.com' -si http://127.0.0.1:8080/cart | grep -i -e ^HTTP -e ^Location
--     HTTP/1.1 301 Moved Permanently
--     Location: http://www.example.com/cart
--
-- A wildcard stands for all names below; the whole name is the policy's to look at:
--
--     $ curl -H 'Host: ada.users.example.com' http://127.0.0.1:8080/
--     the page of ada
--
-- The staff's site asks for a password and is for local addresses only; both come from scripts/:
--
--     $ curl -H 'Host: staff.example.com' -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8080/
--     401
--     $ curl -H 'Host: staff.example.com' -u ada:moon http://127.0.0.1:8080/
--     hello ada
--
-- A name that belongs to no site:
--
--     $ curl -H 'Host: elsewhere.example' -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8080/
--     421

local gate = require "moongate"

local listen = "127.0.0.1:8080"

local shop = {
  listen = listen,
  hosts = { "www.example.com" },
  backends = { app = { "127.0.0.1:9001" } },
  use = { require "scripts.security_headers" { frame = "DENY" } },
}

local bare = {
  listen = listen,
  hosts = { "example.com" },
  on_request = function(req) return gate.redirect("http://www.example.com" .. req.target, 301) end,
}

local users = {
  listen = listen,
  hosts = { "*.users.example.com" },
  on_request = function(req)
    return gate.reply(200, ("the page of %s\n"):format(req.host:match "^[^.]+"))
  end,
}

local staff = {
  listen = listen,
  hosts = { "staff.example.com" },
  use = {
    require "scripts.ip_allow" { allow = { "127.0.0.0/8", "::1", "10.0.0.0/8" } },
    require "scripts.basic_auth" { realm = "staff", users = { ada = "moon" } },
  },
  on_request = function(req) return gate.reply(200, ("hello %s\n"):format(req.ctx.user)) end,
}

-- The shop's application, played by one more site.
local app = {
  listen = "127.0.0.1:9001",
  on_request = function() return gate.reply(200, "the shop\n") end,
}

return { sites = { shop, bare, users, staff, app } }
