-- Countries: who may come in, who is sent to another address, and what the application is told.
--
--     moongate run examples/geo_redirect.lua
--
-- geo_redirect.mmdb beside this file is a database with three addresses of this machine; in real life it is MaxMind's
-- GeoLite2-Country.mmdb or another one in its format, and `moongate reload` reads a newer one.
--
--     $ curl -s --interface 127.0.0.2 'http://127.0.0.1:8080/shop?page=2'
--     a visitor from CH at /shop
--     $ curl -s -w '%{http_code} %{redirect_url}\n' --interface 127.0.0.3 'http://127.0.0.1:8080/shop?page=2'
--     302 https://de.example.com/shop?page=2
--     $ curl -s --interface 127.0.0.4 http://127.0.0.1:8080/shop
--     not available where you are
--
-- Who has chosen is not sent elsewhere, nobody can say he is from somewhere else, and the unknown may come in:
--
--     $ curl -s --interface 127.0.0.3 -b country=CH http://127.0.0.1:8080/shop
--     a visitor from DE at /shop
--     $ curl -s --interface 127.0.0.2 -H 'X-Country: US' http://127.0.0.1:8080/shop
--     a visitor from CH at /shop
--     $ curl -s http://127.0.0.1:8080/shop
--     a visitor from ZZ at /shop

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  use = {
    require "scripts.geo_redirect" {
      file = "geo_redirect.mmdb",
      deny = { "KP" },
      redirect = { DE = "https://de.example.com", AT = "https://de.example.com" },
      choice = { cookie = "country" },
      header = "X-Country",
    },
  },
}

-- The application, played by one more site.
local app = { listen = "127.0.0.1:9001" }

function app.on_request(req)
  return gate.reply(200, ("a visitor from %s at %s\n"):format(req.headers["X-Country"], req.path))
end

return { sites = { site, app } }
