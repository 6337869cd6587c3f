-- LuaSocket's names over gate.socket and gate.dns, for drivers that say `require "socket"`. A config that has a
-- socket.lua beside it gets that one instead. Drivers often require it, or socket.unix, not before they connect;
-- modules are loaded with the file, so a config says `require "socket"` itself, and both are there.
--
-- Not here: servers (bind, listen, accept) and UDP, which raise and say so, as does a local address to connect from.
-- `select` waits for one socket.

local gate = require "moongate"
require "socket.unix"

local socket = {
  _VERSION = "LuaSocket 3.0 (moongate)",
  BLOCKSIZE = 2048,
  _SETSIZE = 1024,
}

-- Making --------------------------------------------------------------------------------------------------------------

socket.tcp, socket.tcp4, socket.tcp6 = gate.socket.tcp, gate.socket.tcp4, gate.socket.tcp6

local function connector(make)
  return function(host, port, local_address, local_port)
    if local_address or local_port then error("socket.connect: a local address cannot be chosen", 2) end
    local sock, word, sentence = make()
    if not sock then return nil, word, sentence end
    local ok
    ok, word, sentence = sock:connect(host, port)
    if not ok then
      sock:close()
      return nil, word, sentence
    end
    return sock
  end
end

socket.connect, socket.connect4, socket.connect6 =
  connector(socket.tcp), connector(socket.tcp4), connector(socket.tcp6)

local function absent(name, why)
  socket[name] = function() error(("socket.%s: %s"):format(name, why), 2) end
end
absent("bind", "scripts cannot listen; the config's sites do")
for _, name in ipairs { "udp", "udp4", "udp6" } do absent(name, "there is no UDP for scripts") end

-- Time ----------------------------------------------------------------------------------------------------------------

socket.gettime = gate.now

---@param seconds number
function socket.sleep(seconds) gate.sleep(seconds > 0 and seconds or 0) end

-- Names ---------------------------------------------------------------------------------------------------------------

socket.dns = {}

---The first IPv4 address, or the first one, and all that is known.
function socket.dns.toip(host)
  local list, word, sentence = gate.dns.resolve(host)
  if not list then return nil, word, sentence end
  return list[1], { name = host, alias = {}, ip = list }
end

function socket.dns.getaddrinfo(host)
  local list, word, sentence = gate.dns.resolve(host)
  if not list then return nil, word, sentence end
  local found = {}
  for i, address in ipairs(list) do
    found[i] = { addr = address, family = address:find(":", 1, true) and "inet6" or "inet" }
  end
  return found
end

function socket.dns.tohostname(address)
  local list, word, sentence = gate.dns.resolve(address, "PTR")
  if not list then return nil, word, sentence end
  return list[1], { name = list[1], alias = {}, ip = { address } }
end

-- Errors that are caught again: what `try` raises, `protect` returns --------------------------------------------------

local Caught = {} -- marks the tables that newtry raises

local function raised(...) return setmetatable({ ... }, Caught) end

---@param finalizer? fun()
function socket.newtry(finalizer)
  return function(...)
    if (...) then return ... end
    if finalizer then pcall(finalizer) end
    error(raised(select(2, ...)), 0)
  end
end

socket.try = socket.newtry()

local function caught(ok, ...)
  if ok then return ... end
  local err = ...
  if getmetatable(err) == Caught then return nil, err[1], err[2] end
  error(err, 0)
end

function socket.protect(f)
  return function(...) return caught(pcall(f, ...)) end
end

---The n-th and further arguments.
function socket.skip(n, ...) return select(n + 1, ...) end

-- One socket at a time ------------------------------------------------------------------------------------------------

local function set_of(sock) return sock and { sock, [sock] = 1 } or {} end

---Waits until the one socket among `readers` has something to receive. Whoever wants to write may at once.
function socket.select(readers, writers, timeout)
  local reader, writer = (readers or {})[1], (writers or {})[1]
  if #(readers or {}) > 1 or #(writers or {}) > 1 then
    error("socket.select: waits for one socket at a time (gate.all runs functions side by side)", 2)
  end
  local patience = writer and 0 or (timeout and timeout >= 0) and timeout or 86400
  local readable = reader and reader:readable(patience) and reader or nil
  if not readable and not writer then return {}, {}, "timeout" end
  return set_of(readable), set_of(writer)
end

-- Sources and sinks, as ltn12 has them --------------------------------------------------------------------------------

local sources = {}

sources["until-closed"] = function(sock)
  local done
  return function()
    if done then return nil end
    local chunk, word, partial = sock:receive(socket.BLOCKSIZE)
    if chunk then return chunk end
    done = true
    if word ~= "closed" then return nil, word end
    sock:close()
    return partial ~= "" and partial or nil
  end
end

sources["by-length"] = function(sock, length)
  return function()
    if length <= 0 then return nil end
    local chunk, word = sock:receive(math.min(socket.BLOCKSIZE, length))
    if not chunk then return nil, word end
    length = length - #chunk
    return chunk
  end
end

sources.default = sources["until-closed"]

function socket.source(mode, sock, length)
  local make = sources[mode or "default"] or error("socket.source: there is no mode '" .. tostring(mode) .. "'", 2)
  return make(sock, length)
end

local sinks = {}

sinks["close-when-done"] = function(sock)
  return function(chunk, err)
    if chunk then return sock:send(chunk) end
    sock:close()
    return not err and 1 or nil, err
  end
end

sinks["keep-open"] = function(sock)
  return function(chunk)
    if chunk then return sock:send(chunk) end
    return 1
  end
end

sinks.default = sinks["keep-open"]

function socket.sink(mode, sock)
  local make = sinks[mode or "default"] or error("socket.sink: there is no mode '" .. tostring(mode) .. "'", 2)
  return make(sock)
end

return socket
