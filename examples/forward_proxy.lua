-- A forward proxy: clients of one network reach the world through it, each by name, and not what lies behind it.
--
--     moongate run examples/forward_proxy.lua
--
--     $ curl -s -o /dev/null -w '%{http_code}\n' -x http://127.0.0.1:8080 http://news.test/
--     407
--     $ curl -s -x http://ada:moon@127.0.0.1:8080 http://news.test/
--     the news, for ada
--     $ curl -s -p -x http://ada:moon@127.0.0.1:8080 http://news.test/
--     the news, through a tunnel
--
-- What a cloud tells its machines, what is in the private network, and ports other than those of the web are not to
-- be had:
--
--     $ curl -s -x http://ada:moon@127.0.0.1:8080 http://169.254.169.254/latest/meta-data/ | head -2
--     403 Forbidden
--     connections to that address are not allowed
--     $ curl -s -x http://ada:moon@127.0.0.1:8080 http://news.test:25/ | head -2
--     403 Forbidden
--     connections to that port are not allowed
--     $ curl -s -x http://ada:moon@127.0.0.1:8080 http://games.test/
--     not during work

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  forward = true, -- 80 and 443, public addresses; { ports =, allow =, deny =, private =, parent = } says otherwise
  backends = { news = { "127.0.0.1:9001" } },
  use = { require "scripts.proxy_auth" {
    -- made with gate.crypto.password_hash("moon")
    users = { ada = "$scrypt$ln=15,r=8,p=1$C802Z4XhwyAvsK89mrsXGg$Zv9C77ZroA3WLMAEyzllrI8SHEmDq8VijpcyulZqIwA" },
  } },
}

local closed = { ["games.test"] = true, ["casino.test"] = true }

function site.on_request(req)
  if closed[req.host] then return gate.reply(403, "not during work\n") end
  if req.method ~= "CONNECT" then req.headers["X-User"] = req.ctx.user end
end

-- In the world news.test would be looked up and asked; here a second site plays it.
function site.pick_backend(req)
  if req.host == "news.test" and req.port == 80 then return "news" end
end

local news = {
  listen = "127.0.0.1:9001",
  on_request = function(req)
    local user = req.headers["X-User"]
    return gate.reply(200, user and ("the news, for %s\n"):format(user) or "the news, through a tunnel\n")
  end,
}

return { sites = { site, news } }
