-- Raw TCP and Unix sockets for specs: clients that send and expect exact bytes, servers scripted line by line.

local uv = require "luv"
local socket = require "socket"
local async = require "support.async"
local tls = require "support.tls"

local net = {}

-- Bytes for a message: printable, in quotes, the middle of long ones left out.
local function quote(bytes)
  if #bytes > 300 then
    return quote(bytes:sub(1, 140)) .. (" … %d bytes … "):format(#bytes - 280) .. quote(bytes:sub(-140))
  end
  return '"' .. bytes:gsub('[%c"\\\128-\255]', function(c)
    local short = ({ ["\r"] = "\\r", ["\n"] = "\\n", ["\t"] = "\\t", ['"'] = '\\"', ["\\"] = "\\\\" })[c]
    return short or ("\\x%02x"):format(c:byte())
  end) .. '"'
end
net.quote = quote

-- Conns ---------------------------------------------------------------------------------------------------------------

---@class support.Conn
---@field eof boolean the other side has sent its FIN
---@field lost? string the word of the error that ended it: "ECONNRESET", "EPIPE", …
---@field received integer bytes received in all
---@field sent integer bytes handed to `send` in all
local Conn = {}
Conn.__index = Conn

local function open_conn(handle, scope)
  local conn = setmetatable({
    handle = handle, scope = scope, signal = async.signal(), pieces = {}, size = 0,
    eof = false, received = 0, sent = 0,
  }, Conn)
  return scope:own(conn, function() conn:close() end)
end

local function conn_on_read(conn, err, bytes)
  if err then
    conn.lost = err:match "^%w+"
  elseif bytes then
    conn.pieces[#conn.pieces + 1] = bytes
    conn.size = conn.size + #bytes
    conn.received = conn.received + #bytes
  else
    conn.eof = true
  end
  conn.signal:notify()
end

---Reads again after `stop_reading`.
function Conn:start_reading()
  if self.closed or self.eof or self.lost then return end
  self.handle:read_start(function(err, bytes) conn_on_read(self, err, bytes) end)
end

---Leaves bytes in the kernel until `start_reading`: the other side will feel it once the socket buffers are full.
function Conn:stop_reading()
  if not self.closed then self.handle:read_stop() end
end

---What has been received and not yet read.
---@return string
function Conn:pending()
  if #self.pieces > 1 then self.pieces = { table.concat(self.pieces) } end
  return self.pieces[1] or ""
end

local function take(conn, n)
  local bytes = conn:pending()
  local rest = bytes:sub(n + 1)
  conn.pieces = rest ~= "" and { rest } or {}
  conn.size = #rest
  return bytes:sub(1, n)
end

local function describe(conn)
  local state = conn.lost or (conn.eof and "EOF") or (conn.closed and "closed by the spec") or "open"
  return ("%s (%d bytes in all, conn %s)"):format(quote(conn:pending()), conn.received, state)
end

-- Waits for `is_ready`; an end of the stream before that fails at once.
local function await(conn, what, is_ready, timeout)
  local function is_over() return is_ready() or conn.eof or conn.lost or conn.closed end
  async.wait(conn.signal, is_over, what, { timeout = timeout, seen = function() return describe(conn) end })
  local value = is_ready()
  if not value then async.fail(("the conn ended before %s\n  received: %s"):format(what, describe(conn))) end
  return value
end

---Reads up to and with the first match of a Lua pattern.
---@param pattern string
---@param timeout? number seconds
---@return string
function Conn:read_until(pattern, timeout)
  local last = await(self, "bytes up to " .. quote(pattern), function()
    return (select(2, self:pending():find(pattern)))
  end, timeout)
  return take(self, last)
end

---@param n integer
---@param timeout? number seconds
---@return string
function Conn:read_exactly(n, timeout)
  await(self, n .. " bytes", function() return self.size >= n end, timeout)
  return take(self, n)
end

---Reads what there is, at least one byte.
---@param timeout? number seconds
---@return string
function Conn:read_some(timeout)
  await(self, "some bytes", function() return self.size > 0 end, timeout)
  return take(self, self.size)
end

---Reads to the end of the stream.
---@param timeout? number seconds
---@return string
function Conn:read_all(timeout)
  await(self, "the end of the stream", function() return self.eof end, timeout)
  return take(self, self.size)
end

---Reads and drops `n` bytes, or all to the end of the stream, keeping none; returns how many. The deadline holds for
---each step, so that a long body may take its time as long as it moves.
---@param n? integer
---@return integer
function Conn:skip(n)
  local left = n or math.huge
  while left > 0 do
    await(self, n and left .. " more bytes" or "more bytes or the end", function()
      return self.size > 0 or (not n and self.eof)
    end)
    if self.size == 0 then break end
    left = left - #take(self, math.min(left, self.size))
  end
  return (n or self.received) - (n and left or 0)
end

---Waits for the other side's FIN; fails if bytes or a reset come instead.
---@param timeout? number seconds
function Conn:expect_eof(timeout)
  await(self, "EOF", function() return self.eof or self.size > 0 end, timeout)
  if self.size > 0 then async.fail("expected EOF, received " .. describe(self)) end
end

---Waits until the other side resets the conn; bytes before that are dropped, a FIN fails.
---@param timeout? number seconds
function Conn:expect_reset(timeout)
  await(self, "a reset", function() return self.lost == "ECONNRESET" or self.lost == "EPIPE" end, timeout)
end

---Waits until the other side ends the conn, either way; bytes before that fail.
---@param timeout? number seconds
function Conn:expect_closed(timeout)
  await(self, "the end of the conn", function() return self.eof or self.lost or self.size > 0 end, timeout)
  if self.size > 0 then async.fail("expected the conn to end, received " .. describe(self)) end
end

---Hands bytes to the socket without waiting for them to be taken.
---@param bytes string
function Conn:post(bytes)
  if self.closed then async.fail "send on a closed conn" end
  self.sent = self.sent + #bytes
  local written = { done = false }
  local request, err, word = self.handle:write(bytes, function(write_err)
    written.done, written.err = true, write_err
    if write_err and write_err ~= "ECANCELED" then self.lost = self.lost or write_err:match "^%w+" end
    self.signal:notify()
  end)
  if not request then written.done, written.err = true, word or err end
  return written
end

---Sends bytes and waits until the kernel has taken them all.
---@param bytes string
---@param timeout? number seconds
function Conn:send(bytes, timeout)
  local ok, err = self:try_send(bytes, timeout)
  if not ok then async.fail(("could not send %d bytes: %s"):format(#bytes, err)) end
end

---As `send`, but a conn that is lost gives nil and the error's word.
---@param bytes string
---@param timeout? number seconds
---@return true?, string?
function Conn:try_send(bytes, timeout)
  if self.closed then return nil, "closed" end
  local written = self:post(bytes)
  async.wait(self.signal, function() return written.done or self.closed end, ("%d bytes to be taken"):format(#bytes), {
    timeout = timeout,
    seen = function() return ("%d bytes of them still queued"):format(self.handle:get_write_queue_size()) end,
  })
  if written.err then return nil, (written.err:match "^%w+") end
  return true
end

---Sends `chunk` over and over until nothing of it has been taken for `quiet` seconds: the other side has stopped
---reading, all buffers between are full. Returns the bytes taken; what is left of the last chunk stays queued.
---@param chunk string
---@param quiet? number seconds, 0.3
---@param limit? integer give up (and fail) after so many bytes, 1 GiB
---@return integer
function Conn:send_until_blocked(chunk, quiet, limit)
  quiet, limit = (quiet or 0.3) * async.slow, limit or 1 << 30
  local before = self.sent
  while true do
    local written = self:post(chunk)
    local left = self.handle:get_write_queue_size()
    local since = uv.hrtime()
    while not written.done do
      async.sleep(0.001)
      local now_left = self.handle:get_write_queue_size()
      if now_left < left then left, since = now_left, uv.hrtime() end
      if (uv.hrtime() - since) / 1e9 > quiet then return self.sent - before - left end
    end
    if written.err then async.fail("the conn was lost while sending: " .. written.err) end
    if self.sent - before > limit then async.fail(("%d bytes were taken and still no end"):format(limit)) end
  end
end

---Half-closes: sends a FIN after what was sent, goes on reading.
function Conn:shutdown()
  local done
  self.handle:shutdown(function()
    done = true
    self.signal:notify()
  end)
  async.wait(self.signal, function() return done end, "the half-close")
end

local function finish(conn, close)
  if conn.closed then return end
  conn.closed = true
  conn.scope:disown(conn)
  close(conn.handle)
  conn.signal:notify()
end

---Closes with a RST.
function Conn:reset()
  finish(self, function(handle) handle:close_reset() end)
end

function Conn:close()
  finish(self, function(handle) handle:close() end)
end

---The port of the other side, of this side.
---@return integer
function Conn:peer_port() return self.handle:getpeername().port end

---@return integer
function Conn:local_port() return self.handle:getsockname().port end

local function expect_passed(from, to, bytes)
  from:send(bytes)
  local got = to:read_exactly(#bytes)
  if got ~= bytes then async.fail(("sent %s, received %s"):format(net.quote(bytes), net.quote(got))) end
end

---Bytes of any kind go from one conn to the other and back, as through a tunnel.
---@param a support.Conn
---@param b support.Conn
function net.expect_joined(a, b)
  for i = 1, 20 do
    local bytes = ("GET / HTTP/1.1\r\n\r\n\0\255%d"):format(i)
    expect_passed(a, b, bytes)
    expect_passed(b, a, bytes:reverse())
  end
end

-- Clients -------------------------------------------------------------------------------------------------------------

---A port of 127.0.0.1, a Unix socket's path, or both parts.
---@alias support.Address integer|string|{ host: string, port: integer }

local function new_handle(where)
  if type(where) == "string" then return uv.new_pipe(false) end
  return uv.new_tcp()
end

---Connects; gives nil and the error's word ("ECONNREFUSED") when that fails.
---@param where support.Address
---@param options? { timeout?: number, reading?: boolean, from?: string }  from: the local address
---@return support.Conn?, string?
function net.try_connect(where, options)
  options = options or {}
  local handle = new_handle(where)
  local conn = open_conn(handle, async.scope())
  local outcome
  local function on_connect(err)
    outcome = err or "connected"
    conn.signal:notify()
  end
  if options.from then handle:bind(options.from, 0) end
  local label, request, err
  if type(where) == "string" then
    label, request, err = where, handle:connect(where, on_connect)
  else
    local host, port = "127.0.0.1", where
    if type(where) == "table" then host, port = where.host, where.port end
    label, request, err = host .. ":" .. tostring(port), handle:connect(host, port, on_connect)
  end
  if not request then outcome = err end
  async.wait(conn.signal, function() return outcome end, "a conn to " .. label, { timeout = options.timeout })
  if outcome ~= "connected" then
    conn:close()
    return nil, (outcome:match "^%w+")
  end
  if type(where) ~= "string" then handle:nodelay(true) end
  if options.reading ~= false then conn:start_reading() end
  return conn
end

---Connects, or fails the spec.
---@param where support.Address
---@param options? { timeout?: number, reading?: boolean, from?: string }
---@return support.Conn
function net.connect(where, options)
  local conn, err = net.try_connect(where, options)
  if not conn then
    async.fail(("could not connect to %s: %s"):format(type(where) == "table" and where.port or where, err))
  end
  return conn --[[@as support.Conn]]
end

---Connects and does a TLS handshake; nil and what LuaSec says of it when that fails.
---@param port integer of 127.0.0.1
---@param parameters? table LuaSec's; default: any certificate is taken
---@param name? string SNI
---@return support.Conn?, string?
function net.try_connect_tls(port, parameters, name)
  local plain = assert(socket.tcp4())
  assert(plain:connect("127.0.0.1", port))
  local handle = tls.handle(plain, parameters or tls.client(), name)
  local conn = open_conn(handle, async.scope())
  local outcome
  handle.on_shaken = function(err)
    outcome = err or "shaken"
    conn.signal:notify()
  end
  handle:read_stop() -- watches
  async.wait(conn.signal, function() return outcome end, "a TLS handshake")
  if outcome ~= "shaken" then
    conn:close()
    return nil, outcome
  end
  conn:start_reading()
  return conn
end

---@param port integer
---@param parameters? table
---@param name? string
---@return support.Conn
function net.connect_tls(port, parameters, name)
  local conn, err = net.try_connect_tls(port, parameters, name)
  if not conn then async.fail("the TLS handshake failed: " .. err) end
  return conn --[[@as support.Conn]]
end

-- Servers -------------------------------------------------------------------------------------------------------------

---@class support.Server
---@field port? integer
---@field address string "127.0.0.1:4711" or "unix:/path", as a config writes it
---@field accepted integer conns accepted in all
local Server = {}
Server.__index = Server

local function serve_conn(server, conn, options)
  if options.reading ~= false then conn:start_reading() end
  if server.handler then
    async.spawn_in(server.scope, function()
      server.handler(conn)
      conn:close()
    end)
  else
    table.insert(server.waiting, conn)
    server.signal:notify()
  end
end

local function server_on_conn(server, options)
  local handle = new_handle(options.path)
  server.handle:accept(handle)
  if not options.path then handle:nodelay(true) end
  server.accepted = server.accepted + 1
  serve_conn(server, open_conn(handle, server.scope), options)
end

-- What LuaSec serves must be LuaSocket's from the start. A conn is served once its handshake is done.
local function server_on_tls_conn(server, options)
  local plain = server.plain:accept()
  if not plain then return end
  server.accepted = server.accepted + 1
  local handle = tls.handle(plain, options.tls)
  local conn = open_conn(handle, server.scope)
  handle.on_shaken = function(err)
    if err then
      server.refused[#server.refused + 1] = err
      server.signal:notify()
      conn:close()
    else serve_conn(server, conn, options) end
  end
  handle:read_stop() -- watches
end

local function listen_tls(server, options)
  server.plain = assert(socket.tcp4())
  assert(server.plain:setoption("reuseaddr", true))
  assert(server.plain:bind("127.0.0.1", options.port or 0))
  assert(server.plain:listen(512))
  server.plain:settimeout(0)
  server.port = math.tointeger(tonumber((select(2, server.plain:getsockname()))))
  server.address = "127.0.0.1:" .. server.port
  server.handle:close()
  server.handle = uv.new_poll(server.plain:getfd())
  return server.handle:start("r", function() server_on_tls_conn(server, options) end)
end

---Listens on a free port. With a handler, it runs as a task for each conn, which is closed when it returns; without,
---`accept` gives the conns one by one.
---@param handler? fun(conn: support.Conn)
---With `tls` (as from `tls.server`) its conns are TLS; what came of handshakes that failed is in `refused`.
---`reading = false`: its conns begin unread.
---@param options? { port?: integer, host?: string, path?: string, reading?: boolean, tls?: table }
---@return support.Server
function net.listen(handler, options)
  options = options or {}
  local scope = async.scope()
  local server = setmetatable({
    handle = new_handle(options.path), handler = handler, waiting = {}, accepted = 0,
    signal = async.signal(), scope = scope, refused = {},
  }, Server)
  local ok, err
  if options.tls then ok, err = listen_tls(server, options)
  elseif options.path then
    ok, err = server.handle:bind(options.path)
    server.address = "unix:" .. options.path
  else
    local host = options.host or "127.0.0.1"
    ok, err = server.handle:bind(host, options.port or 0)
    server.port = server.handle:getsockname().port
    server.address = (host:find ":" and "[%s]:%d" or "%s:%d"):format(host, server.port)
  end
  if ok and not options.tls then ok, err = server.handle:listen(512, function() server_on_conn(server, options) end) end
  scope:own(server, function() server:close() end)
  if not ok then async.fail("could not listen: " .. tostring(err)) end
  return server
end

---The next conn a client opened.
---@param timeout? number seconds
---@return support.Conn
function Server:accept(timeout)
  return async.wait(self.signal, function() return table.remove(self.waiting, 1) end, "a conn to " .. self.address, {
    timeout = timeout, seen = function() return ("%d conns accepted in all"):format(self.accepted) end,
  })
end

---Closes the listening socket; accepted conns stay.
function Server:close()
  if self.closed then return end
  self.closed = true
  self.scope:disown(self)
  self.handle:close()
  if self.plain then self.plain:close() end
end

---A listener that passes bytes on to a port, both ways, and what ends one way ends the other. `passed` is the last of
---its conns: closing or shutting it down cuts off whoever connected.
---@param port integer
---@return support.Server
function net.relay(port)
  local relay
  local function pass(from, to)
    while async.wait(from.signal, function() return from.size > 0 or from.eof or from.lost or from.closed end,
      "bytes to relay", { timeout = 3600 }) and from.size > 0 do
      if not to:try_send(from:read_some()) then return end
    end
    if not to.closed and not to.lost then to:shutdown() end
  end
  relay = net.listen(function(conn)
    relay.passed = conn
    local up = net.connect(port)
    async.all(function() pass(conn, up) end, function() pass(up, conn) end)
  end)
  return relay
end

---A port whose connects neither succeed nor fail: its queue is full and nobody accepts.
---@return integer port
function net.black_hole()
  local listener = assert(socket.tcp4())
  assert(listener:bind("127.0.0.1", 0))
  assert(listener:listen(0))
  local _, port = listener:getsockname()
  local held = { listener }
  async.scope():own(held, function()
    for _, each in ipairs(held) do each:close() end
  end)
  for _ = 1, 4 do
    local filler = assert(socket.tcp4())
    filler:settimeout(0)
    filler:connect("127.0.0.1", port)
    held[#held + 1] = filler
  end
  return port --[[@as integer]]
end

---A port whose connects are refused, and which nobody else can take: it is bound, and not listened on.
---@return integer port
function net.refusing_port()
  local holder = assert(socket.tcp4())
  assert(holder:bind("127.0.0.1", 0))
  async.scope():own(holder, function() holder:close() end)
  local _, port = holder:getsockname()
  return math.tointeger(port)
end

-- Ports are taken from a range below the kernel's ephemeral ones, none given twice. The runner gives each of the
-- processes that run side by side a part of it; of several runs on a machine each begins elsewhere.
local first, last = (os.getenv "MOONGATE_SPEC_PORTS" or "10000-31999"):match "^(%d+)-(%d+)$"
first = math.tointeger(first)
local span = math.tointeger(last) - first + 1
local next_port = first + math.tointeger(uv.os_getpid()) * 97 % span

---A port nobody listens on now.
---@return integer
function net.free_port()
  for _ = 1, span do
    local port = next_port
    next_port = first + (next_port - first + 1) % span
    local probe = assert(socket.tcp4())
    local ok = probe:bind("*", port) and probe:listen(1)
    probe:close()
    if ok then return port end
  end
  error "no free port"
end

return net
