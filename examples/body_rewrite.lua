-- Bodies that change on their way: an application's inner addresses become outer ones, in what it sends and in what it
-- gets.
--
--     moongate run examples/body_rewrite.lua
--
--     $ curl -s http://127.0.0.1:8080/
--     <a href="https://www.example.com/cats">cats</a>
--
-- Also if the page is compressed; it is compressed again:
--
--     $ curl -s -H 'Accept-Encoding: gzip' http://127.0.0.1:8080/packed | gunzip
--     <a href="https://www.example.com/cats">cats</a>
--     $ curl -si -H 'Accept-Encoding: gzip' http://127.0.0.1:8080/packed | grep -ai ^Content-Encoding
--     Content-Encoding: gzip
--
-- Other types stay as they are, and JSON that comes in is changed the other way round:
--
--     $ curl -s http://127.0.0.1:8080/plain
--     http://app.internal/cats
--     $ curl -s --json '{"page":"https://www.example.com/cats"}' http://127.0.0.1:8080/
--     {"page":"http://app.internal/cats"}

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  use = {
    require "scripts.body_rewrite" {
      response = { replace = { ["http://app.internal"] = "https://www.example.com" } },
      request = { types = { "application/json" }, replace = { ["https://www.example.com"] = "http://app.internal" } },
    },
  },
}

-- The application, played by one more site.
local app = { listen = "127.0.0.1:9001", compress = { min = 1 } }

function app.on_request(req)
  if req.body then return gate.reply(200, req.body:text(), { ["Content-Type"] = "application/json" }) end
  if req.path == "/plain" then return gate.reply(200, "http://app.internal/cats\n") end
  if req.path ~= "/packed" then req.headers["Accept-Encoding"] = nil end
  return gate.reply(200, '<a href="http://app.internal/cats">cats</a>\n', { ["Content-Type"] = "text/html" })
end

return { sites = { site, app } }
