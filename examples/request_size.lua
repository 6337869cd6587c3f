-- Request size: small requests everywhere, larger ones where people upload something.
--
--     moongate run examples/request_size.lua
--
--     $ curl -s -d hello http://127.0.0.1:8080/comment
--     5 bytes for /comment
--     $ head -c 20000 /dev/zero | curl -s --data-binary @- http://127.0.0.1:8080/comment
--     the body is too large
--     $ head -c 20000 /dev/zero | curl -s --data-binary @- http://127.0.0.1:8080/upload/cat
--     20000 bytes for /upload/cat
--
-- A body of which nobody has said the length is counted while it flows:
--
--     $ head -c 20000 /dev/zero | curl -s -o /dev/null -w '%{http_code}\n' -T - http://127.0.0.1:8080/comment
--     413
--
-- Bounds for what stands before the body:
--
--     $ curl -s "http://127.0.0.1:8080/?$(seq -s '&' 100)"
--     too many arguments
--     $ curl -s -H "X-Long: $(seq -s , 2000)" http://127.0.0.1:8080/
--     a header field is too large

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  max_body = "1M", -- the most that any route may say
  use = {
    require "scripts.request_size" {
      body = "16K", field = "4K", fields = 64, target = "2K", args = 50,
      routes = { { path = "/upload", methods = { "POST", "PUT" }, body = "1M", field = "4K" } },
    },
  },
}

-- The application, played by one more site.
local app = { listen = "127.0.0.1:9001" }

function app.on_request(req)
  local text = req.body and req.body:text() or ""
  return gate.reply(200, ("%d bytes for %s\n"):format(#text, req.path))
end

return { sites = { site, app } }
