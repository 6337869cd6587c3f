-- HTTPS: plain requests are sent to it, and what is behind speaks TLS, too.
--
--     moongate run examples/https.lua
--
-- The certificate is one for development, made at the first start and kept; -k because nobody has signed it.
--
--     $ curl -k https://127.0.0.1:8443/
--     hello over https, TLSv1.3
--     $ curl -sI http://127.0.0.1:8080/page | grep -i location
--     Location: https://127.0.0.1:8443/page
--     $ curl -skI https://127.0.0.1:8443/ | grep max-age
--     strict-transport-security: max-age=3600
--     $ curl -k https://127.0.0.1:8443/inside
--     the billing service was asked by https
--
-- For real: tls = true at the listener, and tls = { cert = "shop.pem", key = "shop.key" } at each site.

local gate = require "moongate"
local redirect_https = require "scripts.redirect_https"
local security_headers = require "scripts.security_headers"

local shop = {
  listen   = { { "127.0.0.1:8443", tls = "internal" } },
  -- The service's certificate is our own here, and signed by nobody; pins or ca = "internal.pem" are how to trust one.
  backends = { billing = { "127.0.0.1:9001", tls = { verify = false } } },
  -- Browsers remember for so long that this host speaks https only; once all is well, make it a year.
  use      = { security_headers { hsts = { max_age = "1h" } } },
}

function shop.on_request(req)
  if req.path == "/inside" then return end
  return gate.reply(200, ("hello over %s, %s\n"):format(req.scheme, req.client.tls.version))
end

local plain = { listen = "127.0.0.1:8080", use = { redirect_https { port = 8443 } } }

-- What an operator has elsewhere.
local billing = { listen = { { "127.0.0.1:9001", tls = "internal" } } }

function billing.on_request(req)
  return gate.reply(200, ("the billing service was asked by %s\n"):format(req.scheme))
end

return { sites = { shop, plain, billing } }
