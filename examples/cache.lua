-- Cache: a shop's pages are kept, though its application forbids it; shown at once while they are refreshed; and purged
-- by what is on them when that changes.
--
--     moongate run examples/cache.lua
--
-- The application on port 9001 is one more site of this file. It counts what it makes, says no-store, and sets a
-- cookie nobody needs:
--
--     $ curl -s http://127.0.0.1:8080/product/1
--     product 1, made for the 1st time
--     $ curl -s http://127.0.0.1:8080/product/1
--     product 1, made for the 1st time
--     $ curl -si http://127.0.0.1:8080/product/1 | grep -i -e ^Cache-Status -e ^Set-Cookie -e ^X-Cache
--     X-Cache: hit
--     Cache-Status: moongate; hit; ttl=...
--
-- What a campaign adds to a link makes no other page, nor does the order of its arguments:
--
--     $ curl -s 'http://127.0.0.1:8080/search?q=lamp&page=2'
--     lamp, page 2, made for the 1st time
--     $ curl -s 'http://127.0.0.1:8080/search?utm_source=mail&page=2&q=lamp'
--     lamp, page 2, made for the 1st time
--
-- A product changes; the pages that tell of products are made anew, others stay:
--
--     $ curl -s http://127.0.0.1:8080/products
--     products, made for the 1st time
--     $ curl -s -X PUT -d 'a new price' http://127.0.0.1:8080/product/1
--     saved
--     $ curl -s http://127.0.0.1:8080/product/1
--     product 1, made for the 2nd time
--     $ curl -s http://127.0.0.1:8080/products
--     products, made for the 2nd time
--     $ curl -s 'http://127.0.0.1:8080/search?q=lamp&page=2'
--     lamp, page 2, made for the 1st time
--
-- Who is logged in gets pages of his own, which are not kept:
--
--     $ curl -si -H 'Cookie: session=ada' http://127.0.0.1:8080/product/1 | grep -e ^X-Cache -e ^product
--     X-Cache: bypass
--     product 1, made for the 3rd time
--
-- And when the application is away, what was is good enough for an hour, even what has changed since (a soft purge
-- makes pages stale instead of gone):
--
--     $ curl -s -X PUT http://127.0.0.1:8080/crash
--     saved
--     $ curl -s http://127.0.0.1:8080/products
--     products, made for the 2nd time

local gate = require "moongate"
local normal = gate.url.query_filter { drop = { "utm_*", "fbclid", "gclid" } }

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  cache = { memory = "64M" },
}

function site.on_request(req)
  if req.cookies.session then req.cache.bypass = true end
end

-- Scheme and host are always part of the key.
function site.cache_key(req)
  return req.path, normal(req.query)
end

-- A page is fresh for a minute; for another hour it is shown while it is refreshed behind, or the application fails.
function site.on_store(req, res)
  if res.status ~= 200 then return end
  res.headers["Cache-Control"] = nil -- it was meant for us; clients may ask again
  res.headers["Set-Cookie"] = nil -- what is kept is for all
  res.cache.ttl, res.cache.stale, res.cache.stale_if_error = "1m", "1h", "1h"
  if req.path:find "^/product" then res.cache.tags = { "products" } end
end

function site.on_response(req, res)
  if req.method == "PUT" and res.status == 200 then gate.cache.purge { tag = "products", soft = true } end
  if res.cache then res.headers["X-Cache"] = res.cache.status end
end

-- The application.
local app = { listen = "127.0.0.1:9001" }
local made = gate.shared "made"

local function ordinal(n)
  return n .. (n == 1 and "st" or n == 2 and "nd" or n == 3 and "rd" or "th")
end

function app.on_request(req)
  if req.method == "PUT" then
    if req.path == "/crash" then made:set("crashed", true) end
    return gate.reply(200, "saved\n")
  end
  if made:get "crashed" then return 503 end
  if req.path == "/" then return gate.reply(200, "the shop: /products, /product/1, /search?q=lamp&page=2\n") end
  local what = req.args.q and ("%s, page %s"):format(req.args.q, req.args.page) or req.path:sub(2):gsub("/", " ")
  local page = ("%s, made for the %s time\n"):format(what, ordinal(made:incr(what, 1)))
  return gate.reply(200, page, { ["Cache-Control"] = "no-store", ["Set-Cookie"] = "seen=1" })
end

return { sites = { site, app } }
