-- WebSocket: policy decides about the handshake; what follows passes in both directions without Lua.
--
--     moongate run examples/websocket.lua
--
-- It needs a WebSocket server on port 9001. With Node:
--
--     npm install ws
--     node -e 'new (require("ws").Server)({ port: 9001 }).on("connection", s => s.on("message", m => s.send(`${m}`)))'
--
-- and a client, which gets back what it sends:
--
--     npx wscat -c ws://127.0.0.1:8080/chat
--
-- A page of another origin is refused before the server hears of it, and so is what is no WebSocket at all:
--
--     $ curl http://127.0.0.1:8080/chat
--     this is for WebSocket clients
--     $ curl -H Connection:Upgrade -H Upgrade:websocket -H Origin:http://evil.example http://127.0.0.1:8080/chat
--     not from http://evil.example
--
-- A reload leaves open WebSockets alone; how many there are is `moongate_tunnels` at http://127.0.0.1:9901/metrics.

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = { chat = { "127.0.0.1:9001" } },
}

local origins = { ["http://127.0.0.1:8080"] = true, ["http://localhost:8080"] = true }

function site.on_request(req)
  if (req.headers["Upgrade"] or ""):lower() ~= "websocket" then
    return gate.reply(426, "this is for WebSocket clients\n")
  end
  local origin = req.headers["Origin"] -- browsers always say it, other clients need not
  if origin and not origins[origin] then return gate.reply(403, ("not from %s\n"):format(origin)) end
end

return { sites = { site }, admin = "127.0.0.1:9901" }
