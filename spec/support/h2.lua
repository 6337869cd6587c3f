-- HTTP/2 for specs, frame by frame, either side. What is sent is exactly what the spec says, also when that breaks the
-- protocol; what is received is answered like a good peer does (SETTINGS and PING are acknowledged, windows opened as
-- content is read), unless the spec asks otherwise.

local async = require "support.async"
local hpack = require "support.hpack"
local http = require "support.http"
local net = require "support.net"
local tls = require "support.tls"

local h2 = { hpack = hpack }

h2.preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

h2.types = {
  [0] = "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
  "CONTINUATION",
}
local numbers = { PRIORITY_UPDATE = 16 }
for number, name in pairs(h2.types) do numbers[name] = number end

h2.errors = {
  [0] = "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
  "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
}
local codes = {}
for code, name in pairs(h2.errors) do codes[name] = code end

h2.settings = { HEADER_TABLE_SIZE = 1, ENABLE_PUSH = 2, MAX_CONCURRENT_STREAMS = 3, INITIAL_WINDOW_SIZE = 4,
  MAX_FRAME_SIZE = 5, MAX_HEADER_LIST_SIZE = 6, ENABLE_CONNECT_PROTOCOL = 8 }

h2.END_STREAM, h2.ACK, h2.END_HEADERS, h2.PADDED, h2.PRIORITY = 1, 1, 4, 8, 32

---The bytes of a frame.
---@param kind string "DATA", …
---@param flags integer
---@param stream integer
---@param payload? string
---@return string
function h2.frame(kind, flags, stream, payload)
  payload = payload or ""
  return (">I3BBI4"):pack(#payload, numbers[kind], flags, stream) .. payload
end

-- Peers ---------------------------------------------------------------------------------------------------------------

---@class support.H2Frame
---@field type string
---@field flags integer
---@field stream integer
---@field payload string
---@field error? string of RST_STREAM and GOAWAY: "CANCEL", …
---@field fields? support.Headers of HEADERS, with all its CONTINUATIONs

---@class support.H2
---@field conn support.Conn
---@field settings table<integer, integer> what the other side has set
---@field thrifty boolean windows are not opened
local Peer = {}
Peer.__index = Peer

local function new_peer(conn, options)
  return setmetatable({
    conn = conn, decoder = hpack.decoder(), settings = {}, next_id = 1, kept = {}, thrifty = options.thrifty,
  }, Peer)
end

---Connects and greets.
---@param where support.Address|support.Conn
---@param options? { settings?: table<string, integer>, thrifty?: boolean, silent?: boolean }  silent: sends nothing yet
---@return support.H2
function h2.connect(where, options)
  options = options or {}
  local conn = (type(where) == "table" and where.handle) and where or net.connect(where)
  local peer = new_peer(conn, options)
  if not options.silent then
    conn:send(h2.preface)
    peer:set(options.settings)
  end
  return peer
end

---The same over TLS, where ALPN must agree on it.
---@param port integer
---@param options? table
---@return support.H2
function h2.connect_tls(port, options)
  local conn = net.connect_tls(port, tls.client { alpn = { "h2" } })
  if conn.handle.secure:getalpn() ~= "h2" then async.fail "ALPN did not agree on h2" end
  return h2.connect(conn, options)
end

---Serves a conn: reads the preface, greets.
---@param conn support.Conn
---@param options? { settings?: table<string, integer>, thrifty?: boolean }
---@return support.H2
function h2.accept(conn, options)
  options = options or {}
  local preface = conn:read_exactly(#h2.preface)
  if preface ~= h2.preface then async.fail("not the preface: " .. net.quote(preface)) end
  local peer = new_peer(conn, options)
  peer:set(options.settings)
  return peer
end

-- Sending -------------------------------------------------------------------------------------------------------------

---@param kind string
---@param flags integer
---@param stream integer
---@param payload? string
function Peer:send(kind, flags, stream, payload) self.conn:send(h2.frame(kind, flags, stream, payload)) end

---SETTINGS, by their names.
---@param settings? table<string, integer>
function Peer:set(settings)
  local payload = {}
  for name, value in pairs(settings or {}) do payload[#payload + 1] = (">I2I4"):pack(h2.settings[name], value) end
  self:send("SETTINGS", 0, 0, table.concat(payload))
end

---HEADERS; `fields` as `{ name, value }` each.
---@param stream integer
---@param fields table
---@param last? boolean END_STREAM
function Peer:headers(stream, fields, last)
  self:send("HEADERS", h2.END_HEADERS | (last and h2.END_STREAM or 0), stream, hpack.encode(fields))
end

---@param stream integer
---@param bytes string cut into frames of 16,384 bytes
---@param last? boolean END_STREAM
function Peer:data(stream, bytes, last)
  local at = 1
  repeat
    local part = bytes:sub(at, at + 16383)
    at = at + #part
    self:send("DATA", last and at > #bytes and h2.END_STREAM or 0, stream, part)
  until at > #bytes
end

---@param stream integer
---@param error string "CANCEL", …
function Peer:reset(stream, error) self:send("RST_STREAM", 0, stream, (">I4"):pack(codes[error])) end

---@param last integer
---@param error string
function Peer:goaway(last, error) self:send("GOAWAY", 0, 0, (">I4I4"):pack(last, codes[error])) end

---@param stream integer 0: the connection's
---@param n integer
function Peer:open_window(stream, n) self:send("WINDOW_UPDATE", 0, stream, (">I4"):pack(n)) end

---The fields of a request, for `headers`.
---@param target string
---@param options? { method?: string, headers?: table, authority?: string, scheme?: string }
---@return table
function h2.request_fields(target, options)
  options = options or {}
  local fields = {
    { ":method", options.method or "GET" }, { ":scheme", options.scheme or "http" }, { ":path", target },
    { ":authority", options.authority or "a.test" },
  }
  for _, field in ipairs(options.headers or {}) do fields[#fields + 1] = field end
  return fields
end

---Begins a request; returns its stream.
---@param target string
---@param options? { method?: string, headers?: table, authority?: string, open?: boolean }  open: more of it follows
---@return integer
function Peer:request(target, options)
  local stream = self.next_id
  self.next_id = stream + 2
  self:headers(stream, h2.request_fields(target, options), not (options and options.open))
  return stream
end

-- Receiving -----------------------------------------------------------------------------------------------------------

local function strip(frame)
  local payload, flags = frame.payload, frame.flags
  if flags & h2.PADDED ~= 0 then payload = payload:sub(2, -1 - payload:byte(1)) end
  if frame.type == "HEADERS" and flags & h2.PRIORITY ~= 0 then payload = payload:sub(6) end
  return payload
end

local function read_raw(peer, timeout)
  local length, kind, flags, stream = (">I3BBI4"):unpack(peer.conn:read_exactly(9, timeout))
  local payload = length > 0 and peer.conn:read_exactly(length) or ""
  return { type = h2.types[kind] or kind, flags = flags, stream = stream, payload = payload }
end

local function take_settings(peer, frame)
  if frame.flags & h2.ACK ~= 0 then return end
  for id, value in frame.payload:gmatch "(..)(....)" do
    peer.settings[(">I2"):unpack(id)] = (">I4"):unpack(value)
  end
  peer:send("SETTINGS", h2.ACK, 0)
end

local readers = {
  HEADERS = function(peer, frame)
    local block, last = { strip(frame) }, frame
    while last.flags & h2.END_HEADERS == 0 do
      last = read_raw(peer)
      if last.type ~= "CONTINUATION" or last.stream ~= frame.stream then async.fail "a head that does not go on" end
      block[#block + 1] = last.payload
    end
    frame.fields = http.headers(peer.decoder:decode(table.concat(block)))
  end,
  DATA = function(peer, frame)
    local n = #frame.payload
    frame.bytes = strip(frame)
    if n == 0 or peer.thrifty then return end
    peer:open_window(0, n)
    if frame.flags & h2.END_STREAM == 0 then peer:open_window(frame.stream, n) end
  end,
  SETTINGS = take_settings,
  PING = function(peer, frame)
    if frame.flags & h2.ACK == 0 then peer:send("PING", h2.ACK, 0, frame.payload) end
  end,
  RST_STREAM = function(_, frame) frame.error = h2.errors[(">I4"):unpack(frame.payload)] end,
  GOAWAY = function(_, frame)
    frame.last, frame.error = (">I4I4"):unpack(frame.payload)
    frame.error = h2.errors[frame.error]
  end,
}

-- The next frame off the conn.
local function read_frame(peer, timeout)
  local frame = read_raw(peer, timeout)
  local read = readers[frame.type]
  if read then read(peer, frame) end
  return frame
end

---The next frame for which `is_wanted` holds; those that come before it are kept for who asks for them.
---@param is_wanted fun(frame: support.H2Frame): boolean?
---@param timeout? number
---@return support.H2Frame
function Peer:await(is_wanted, timeout)
  for i, frame in ipairs(self.kept) do
    if is_wanted(frame) then return table.remove(self.kept, i) end
  end
  while true do
    local frame = read_frame(self, timeout)
    if is_wanted(frame) then return frame end
    self.kept[#self.kept + 1] = frame
  end
end

---The next frame of a type, and stream.
---@param kind string
---@param stream? integer
---@param timeout? number
---@return support.H2Frame
function Peer:expect(kind, stream, timeout)
  return self:await(function(frame) return frame.type == kind and (not stream or frame.stream == stream) end, timeout)
end

---Waits for a GOAWAY other than the polite one of NO_ERROR; returns its error's word, nil if the conn ends without.
---@return string?
function Peer:dismissed()
  while true do
    local ok, frame = pcall(read_frame, self)
    if not ok then return nil end
    if frame.type == "GOAWAY" and frame.error ~= "NO_ERROR" then return frame.error end
  end
end

---All frames until the acknowledgement of a PING that is sent now: what was sent before it has been dealt with.
function Peer:sync()
  self.pings = (self.pings or 0) + 1
  local payload = (">I8"):pack(self.pings)
  self:send("PING", 0, 0, payload)
  self:await(function(frame) return frame.type == "PING" and frame.flags & h2.ACK ~= 0 and frame.payload == payload end)
end

---Exactly `n` bytes of content of a stream, in however many frames.
---@param stream integer
---@param n integer
---@return string
function Peer:content(stream, n)
  local pieces, got = {}, 0
  while got < n do
    local bytes = self:expect("DATA", stream).bytes
    pieces[#pieces + 1], got = bytes, got + #bytes
  end
  if got > n then async.fail(("%d bytes of content where %d were expected"):format(got, n)) end
  return table.concat(pieces)
end

local function is_of(stream)
  return function(frame) return frame.stream == stream and frame.type ~= "WINDOW_UPDATE" end
end

-- What follows a head: content, trailers, or a reset.
local function read_message(peer, stream, message, ended)
  local pieces = {}
  message.stream, message.body = stream, ""
  while not ended do
    local frame = peer:await(is_of(stream))
    if frame.type == "DATA" then pieces[#pieces + 1] = frame.bytes
    elseif frame.type == "HEADERS" then message.trailers = frame.fields
    elseif frame.type == "RST_STREAM" then
      message.error = frame.error
      break
    end
    ended = frame.flags & h2.END_STREAM ~= 0
  end
  message.body = table.concat(pieces)
  return message
end

---@class support.H2Response: support.Response
---@field stream integer
---@field error? string it was reset

---The whole response on a stream; 1xx before it are in `interim`.
---@param stream integer
---@return support.H2Response
function Peer:response(stream)
  local interim = {}
  while true do
    local frame = self:await(is_of(stream))
    if frame.type == "RST_STREAM" then return { stream = stream, error = frame.error, interim = interim } end
    local status = tonumber(frame.fields[":status"])
    local message = { version = "2", status = status, headers = frame.fields, interim = interim }
    if message.status >= 200 then return read_message(self, stream, message, frame.flags & h2.END_STREAM ~= 0) end
    interim[#interim + 1] = message
  end
end

---A request and its response.
---@param target string
---@param options? { method?: string, headers?: table, authority?: string, body?: string, trailers?: table }
---@return support.H2Response
function Peer:exchange(target, options)
  options = options or {}
  local open = options.body ~= nil
  local stream = self:request(target, { method = options.method, headers = options.headers, open = open,
    authority = options.authority })
  if open then self:data(stream, options.body, not options.trailers) end
  if options.trailers then self:headers(stream, options.trailers, true) end
  return self:response(stream)
end

-- A server's side -----------------------------------------------------------------------------------------------------

---The head of the next request.
---@return { stream: integer, headers: support.Headers, method: string, target: string, ended: boolean }
function Peer:accept()
  local frame = self:await(function(frame) return frame.type == "HEADERS" and frame.stream % 2 == 1 end)
  local fields = frame.fields
  return { stream = frame.stream, headers = fields, method = fields[":method"], target = fields[":path"],
    ended = frame.flags & h2.END_STREAM ~= 0 }
end

---The rest of a request that `accept` gave.
function Peer:finish_request(request) return read_message(self, request.stream, request, request.ended) end

---@param stream integer
---@param status integer
---@param headers? table
---@param body? string nil: more follows
---@param trailers? table
function Peer:respond(stream, status, headers, body, trailers)
  local fields = { { ":status", status } }
  for _, field in ipairs(headers or {}) do fields[#fields + 1] = field end
  self:headers(stream, fields, body == "" and not trailers)
  if not body then return end
  if body ~= "" then self:data(stream, body, not trailers) end
  if trailers then self:headers(stream, trailers, true) end
end

---A fake backend that speaks HTTP/2 with prior knowledge (with `tls` among the options, by ALPN): the handler gets each
---request and returns a status, headers (`{ name, value }` each), body and trailers. Requests are answered in order.
---@param handler? string|fun(request: table, peer: support.H2): any, any, any, any
---@param options? table as for `net.listen`, and `settings`
---@return support.Server
function h2.backend(handler, options)
  local body = type(handler) == "string" and handler or "ok"
  if type(handler) ~= "function" then handler = function() return 200, nil, body end end
  local backend
  backend = net.listen(function(conn)
    local ended = pcall(function()
      local peer = h2.accept(conn, options)
      backend.peer = peer
      while true do
        local request = peer:finish_request(peer:accept())
        table.insert(backend.requests, request)
        backend.signal:notify()
        local status, headers, answer, trailers = handler(request, peer)
        if status then peer:respond(request.stream, status, headers, answer or "", trailers) end
      end
    end)
    if not ended and not (conn.eof or conn.lost or conn.closed) then async.fail "the h2 backend failed" end
  end, options)
  backend.requests = {}
  return backend
end

return h2
