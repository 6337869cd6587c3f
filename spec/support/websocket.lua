-- WebSocket (RFC 6455) for specs: a client and a fake echo backend, over the harness's conns.

local async = require "support.async"
local http = require "support.http"
local net = require "support.net"

local websocket = {}

-- Handshake -----------------------------------------------------------------------------------------------------------

local function rotate(x, n)
  return ((x << n) | (x >> (32 - n))) & 0xffffffff
end

local function sha1(message)
  local h0, h1, h2, h3, h4 = 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0
  message = message .. "\128" .. ("\0"):rep((55 - #message) % 64) .. (">I8"):pack(#message * 8)
  for block = 1, #message, 64 do
    local w = { (">" .. ("I4"):rep(16)):unpack(message, block) }
    for i = 17, 80 do w[i] = rotate(w[i - 3] ~ w[i - 8] ~ w[i - 14] ~ w[i - 16], 1) end
    local a, b, c, d, e = h0, h1, h2, h3, h4
    for i = 1, 80 do
      local f, k
      if i <= 20 then f, k = (b & c) | (~b & d), 0x5a827999
      elseif i <= 40 then f, k = b ~ c ~ d, 0x6ed9eba1
      elseif i <= 60 then f, k = (b & c) | (b & d) | (c & d), 0x8f1bbcdc
      else f, k = b ~ c ~ d, 0xca62c1d6 end
      a, b, c, d, e = (rotate(a, 5) + f + e + k + w[i]) & 0xffffffff, a, rotate(b, 30), c, d
    end
    h0, h1, h2 = (h0 + a) & 0xffffffff, (h1 + b) & 0xffffffff, (h2 + c) & 0xffffffff
    h3, h4 = (h3 + d) & 0xffffffff, (h4 + e) & 0xffffffff
  end
  return (">I4I4I4I4I4"):pack(h0, h1, h2, h3, h4)
end

local digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(bytes)
  local padding = -#bytes % 3
  local text = (bytes .. ("\0"):rep(padding)):gsub("...", function(three)
    local n = (">I3"):unpack(three)
    local out = {}
    for i = 0, 3 do
      local digit = (n >> (18 - 6 * i)) & 63
      out[i + 1] = digits:sub(digit + 1, digit + 1)
    end
    return table.concat(out)
  end)
  return text:sub(1, #text - padding) .. ("="):rep(padding)
end

---The Sec-WebSocket-Accept that answers a key.
---@param key string
---@return string
function websocket.accept_of(key)
  return base64(sha1(key .. "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
end

-- Frames --------------------------------------------------------------------------------------------------------------

local opcodes = { continuation = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10 }
local kinds = {}
for kind, opcode in pairs(opcodes) do kinds[opcode] = kind end

local function mask(payload, key)
  local k = { key:byte(1, 4) }
  local out = {}
  for at = 1, #payload, 4096 do
    local bytes = { payload:byte(at, at + 4095) }
    for i = 1, #bytes do bytes[i] = bytes[i] ~ k[(i - 1) % 4 + 1] end
    out[#out + 1] = string.char(table.unpack(bytes))
  end
  return table.concat(out)
end

---@class support.WebSocket
---@field conn support.Conn
---@field response support.Response|nil the 101, on the client's side
---@field request support.Request|nil on the backend's side
local WebSocket = {}
WebSocket.__index = WebSocket

---@param payload string
---@param kind? string "text"
function WebSocket:send(payload, kind)
  local masked = self.masks and 0x80 or 0
  local head
  if #payload < 126 then head = ("BB"):pack(0x80 | opcodes[kind or "text"], masked | #payload)
  elseif #payload < 65536 then head = (">BBI2"):pack(0x80 | opcodes[kind or "text"], masked | 126, #payload)
  else head = (">BBI8"):pack(0x80 | opcodes[kind or "text"], masked | 127, #payload) end
  if self.masks then
    local key = "\x12\x34\x56\x78"
    head, payload = head .. key, mask(payload, key)
  end
  self.conn:send(head .. payload)
end

---Reads one frame.
---@return string payload, string kind "text", "binary", "close", "ping", "pong", "continuation"
function WebSocket:receive()
  local first, second = self.conn:read_exactly(2):byte(1, 2)
  local length = second & 0x7f
  if length == 126 then length = (">I2"):unpack(self.conn:read_exactly(2))
  elseif length == 127 then length = (">I8"):unpack(self.conn:read_exactly(8)) end
  local key = second & 0x80 ~= 0 and self.conn:read_exactly(4)
  local payload = length > 0 and self.conn:read_exactly(length) or ""
  if not kinds[first & 15] then async.fail(("not WebSocket: opcode %d"):format(first & 15)) end
  return key and mask(payload, key) or payload, kinds[first & 15]
end

---Closes as RFC 6455 asks: a close frame, its answer, the end of the conn.
function WebSocket:close()
  self:send("\3\232", "close")
  repeat local _, kind = self:receive() until kind == "close"
  self.conn:close()
end

---Opens a WebSocket; the handshake must succeed.
---@param where support.Address
---@param target? string "/"
---@param options? { headers?: table }
---@return support.WebSocket
function websocket.connect(where, target, options)
  local key = base64 "sixteen bytes ok"
  local headers = {
    { "Host", "localhost" }, { "Connection", "Upgrade" }, { "Upgrade", "websocket" },
    { "Sec-WebSocket-Version", "13" }, { "Sec-WebSocket-Key", key },
  }
  for name, value in pairs(options and options.headers or {}) do headers[#headers + 1] = { name, value } end
  local response = http.get(where, target or "/", { headers = headers })
  if response.status ~= 101 then
    async.fail(("no WebSocket: %d %s"):format(response.status, net.quote(response.body)))
  end
  local accept = response.headers["Sec-WebSocket-Accept"]
  if accept ~= websocket.accept_of(key) then async.fail("wrong Sec-WebSocket-Accept: " .. tostring(accept)) end
  return setmetatable({ conn = response.conn, response = response, masks = true }, WebSocket)
end

---Answers a WebSocket handshake that was read as a request.
---@param request support.Request
---@return support.WebSocket
function websocket.accept(request)
  request.conn:send(http.encode_response {
    status = 101, reason = "Switching Protocols",
    headers = {
      { "Connection", "Upgrade" }, { "Upgrade", "websocket" },
      { "Sec-WebSocket-Accept", websocket.accept_of(request.headers["Sec-WebSocket-Key"]) },
    },
  })
  return setmetatable({ conn = request.conn, request = request, masks = false }, WebSocket)
end

-- Sends back what comes, until a close frame.
local function echo(socket)
  while true do
    if socket.conn.size == 0 then async.wait(socket.conn.signal, function()
      return socket.conn.size > 0 or socket.conn.eof or socket.conn.lost
    end, "a frame or the end", { timeout = 3600 }) end
    if socket.conn.size == 0 then return end
    local payload, kind = socket:receive()
    socket:send(payload, kind == "ping" and "pong" or kind)
    if kind == "close" then return end
  end
end

---A fake backend that speaks WebSocket: with each, `handler` is run; without, what comes is echoed.
---@param handler? fun(socket: support.WebSocket)
---@param options? table as for `net.listen`
---@return support.Backend
function websocket.backend(handler, options)
  return http.backend(function(request) (handler or echo)(websocket.accept(request)) end, options)
end

return websocket
