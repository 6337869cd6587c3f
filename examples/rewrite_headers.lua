-- Rewriting: header fields, paths, queries and cookies, on the way in and on the way out.
--
--     moongate run examples/rewrite_headers.lua
--
-- The application on port 9001 tells what it got. /shop/… is its /…; tracking arguments and a cookie that is not its
-- business are gone; what it needs to know is added:
--
--     $ curl -b 'session=s1; tracker=t9' 'http://127.0.0.1:8080/shop/list?page=2&utm_source=mail'
--     GET /list?page=2
--     Host: shop.internal
--     Cookie: session=s1
--     X-Shop: main
--
-- Nothing of it tells what it is made of, and its cookie is not to be had by scripts in a page:
--
--     $ curl -si http://127.0.0.1:8080/shop/ | grep -i -e ^Server -e ^X-Powered-By -e ^Set-Cookie
--     Set-Cookie: session=s1; Path=/; HttpOnly; SameSite=Lax
--     $ curl -si http://127.0.0.1:8080/old/list?page=2 | grep -i -e ^HTTP -e ^Location
--     HTTP/1.1 301 Moved Permanently
--     Location: /shop/list?page=2

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
}

-- The Cookie field with those the application knows, in the order of their names.
local function keep_cookies(req)
  local kept = {}
  for _, name in ipairs { "lang", "session" } do
    local value = req.cookies[name]
    if value then kept[#kept + 1] = name .. "=" .. value end
  end
  return kept[1] and table.concat(kept, "; ") or nil
end

function site.on_request(req)
  local moved = req.target:match "^/old(/.*)$"
  if moved then return gate.redirect("/shop" .. moved, 301) end
  local path = req.path:match "^/shop(/.*)$"
  if not path then return 404 end
  req.path = path
  req.host = "shop.internal"
  req.args.utm_source = nil
  req.headers["Cookie"] = keep_cookies(req)
  req.headers["X-Shop"] = "main"
end

function site.on_response(_req, res)
  res.headers["Server"] = nil
  res.headers["X-Powered-By"] = nil
  -- Set-Cookie is the one field whose lines cannot be joined: take them all, put them back one by one.
  local cookies = res.headers:all "Set-Cookie"
  res.headers["Set-Cookie"] = nil
  for _, cookie in ipairs(cookies) do
    if not cookie:lower():find("httponly", 1, true) then cookie = cookie .. "; HttpOnly; SameSite=Lax" end
    res.headers:add("Set-Cookie", cookie)
  end
end

-- The application, played by one more site.
local app = { listen = "127.0.0.1:9001" }

function app.on_request(req)
  local lines = { req.method .. " " .. req.target }
  for _, name in ipairs { "Host", "Cookie", "X-Shop" } do
    lines[#lines + 1] = req.headers[name] and name .. ": " .. req.headers[name]
  end
  return gate.reply(200, table.concat(lines, "\n") .. "\n", {
    ["Server"] = "Shopmaker 1.2", ["X-Powered-By"] = "Elbow grease", ["Set-Cookie"] = "session=s1; Path=/",
  })
end

return { sites = { site, app } }
