-- What other clients notice of one that floods HTTP/2: their latency, without and with it, and how it is sent away.
--
--     ./dev build release && lua5.4 bench/floods.lua [--moongate PATH] [-r ROUNDS] [-s SECONDS] [-w WORKERS] [KIND...]
--
-- The others send 500 requests a second over 16 connections, at fixed times, whether or not answers have come. The
-- abuser sends its flood as fast as it is taken, and begins again on a new connection when it is sent away. `load` is
-- the control: a client with as much to say that does nothing wrong, a hundred requests at a time on one connection.
-- Clients and origin share CPU 1, the abuser with least priority; one worker has CPU 0. Rounds with and without an
-- abuser take turns, and the median of the rounds counts: where other things run, a single p99 means nothing. The CPU
-- time that the proxy spends on each of the abuser's connections is the steadier figure.

local processes = require "bench.processes"
local uv = require "luv"

local binary, rounds, seconds, workers, chosen = "build/release/moongate", 5, 2, 1, {}
local rate, lanes = 500, 16

-- Frames --------------------------------------------------------------------------------------------------------------

local preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

local function frame(type, flags, stream, payload)
  return (">I3BBI4"):pack(#payload, type, flags, stream) .. payload
end

local DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
local END_STREAM, END_HEADERS = 1, 4
local get, post = "\x82\x84\x86\x01\x01a", "\x83\x84\x86\x01\x01a"

local function each_stream(count, build)
  local parts = {}
  for i = 1, count do parts[i] = build(2 * i - 1) end
  return table.concat(parts)
end

local floods = {
  resets = each_stream(10000, function(id)
    return frame(HEADERS, END_HEADERS | END_STREAM, id, get) .. frame(RESET, 0, id, "\0\0\0\8")
  end),
  provoked = each_stream(10000, function(id) -- resets of ours
    return frame(HEADERS, END_HEADERS | END_STREAM, id, get) .. frame(8, 0, id, "\0\0\0\0")
  end),
  continuation = frame(HEADERS, 0, 1, get) .. frame(CONTINUATION, 0, 1, "\0\1x\1y"):rep(20000),
  bomb = frame(HEADERS, 0, 1, get) .. frame(CONTINUATION, 0, 1, ("\0\1x\1y"):rep(3000)):rep(20),
  settings = frame(SETTINGS, 0, 0, ""):rep(20000),
  ping = frame(PING, 0, 0, "12345678"):rep(20000),
  empty = frame(HEADERS, END_HEADERS, 1, post) .. frame(DATA, 0, 1, ""):rep(20000),
}
local kinds = { "load", "resets", "provoked", "continuation", "bomb", "settings", "ping", "empty" }

-- The others ----------------------------------------------------------------------------------------------------------

local function percentile(list, part) return list[math.max(1, math.ceil(#list * part))] end

local function run_others(port, duration)
  local late, due, asked = {}, {}, 0
  local sockets = {}
  for lane = 1, lanes do
    local socket, got = uv.new_tcp(), ""
    sockets[lane], due[lane] = socket, {}
    socket:connect("127.0.0.1", port, function(err)
      assert(not err, err)
      socket:read_start(function(failed, bytes)
        assert(bytes, failed or "closed")
        got = got .. bytes
        while true do
          local _, stop = got:find("\r\n\r\n", 1, true)
          if not stop or #got < stop + 1024 then return end
          got = got:sub(stop + 1024 + 1)
          late[#late + 1] = (uv.hrtime() - table.remove(due[lane], 1)) / 1e6
        end
      end)
    end)
  end
  local began, timer = uv.hrtime() + 200e6, uv.new_timer()
  timer:start(200, 1, function()
    local now = uv.hrtime()
    while began + asked * 1e9 / rate <= now do
      local lane = asked % lanes + 1
      table.insert(due[lane], began + asked * 1e9 / rate)
      sockets[lane]:write "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
      asked = asked + 1
    end
    if now - began > duration * 1e9 then uv.stop() end
  end)
  uv.run()
  table.sort(late)
  print(("%d %d %.2f %.2f %.2f"):format(asked, #late, percentile(late, 0.5), percentile(late, 0.99), late[#late]))
end

-- The abuser ----------------------------------------------------------------------------------------------------------

local words = { [0] = "NO_ERROR", [1] = "PROTOCOL_ERROR", [2] = "INTERNAL_ERROR", [7] = "REFUSED_STREAM",
  [11] = "ENHANCE_YOUR_CALM" }
local figures = { conns = 0, bytes = 0, answers = 0, lived = {}, ends = {} }

local function each_frame(bytes, take)
  local at = 1
  while #bytes - at + 1 >= 9 do
    local size, type, flags = (">I3BB"):unpack(bytes, at)
    if #bytes - at + 1 < 9 + size then break end
    take(type, flags, bytes:sub(at + 9, at + 8 + size))
    at = at + 9 + size
  end
  return bytes:sub(at)
end

local begin

local function note_end(conn, how)
  if conn.over then return end
  conn.over = true
  figures.lived[#figures.lived + 1] = (uv.hrtime() - conn.began) / 1e6
  figures.ends[how] = (figures.ends[how] or 0) + 1
  figures.bytes = figures.bytes + conn.wrote - conn.socket:get_write_queue_size()
  conn.socket:close()
  begin(conn.port, conn.kind)
end

local function ask_more(conn)
  local parts = {}
  for i = 1, 100 do parts[i] = frame(HEADERS, END_HEADERS | END_STREAM, conn.next + 2 * i - 2, get) end
  conn.next, conn.left = conn.next + 200, 100
  local bytes = table.concat(parts) .. frame(8, 0, 0, "\0\1\x90\0") -- and the window for their answers
  conn.wrote = conn.wrote + #bytes
  conn.socket:write(bytes)
end

function begin(port, kind)
  local conn = { socket = uv.new_tcp(), port = port, kind = kind, wrote = 0, next = 1, rest = "", how = "closed" }
  conn.began = uv.hrtime()
  figures.conns = figures.conns + 1
  local function take(type, flags, payload)
    if type == GOAWAY then conn.how = words[(">I4"):unpack(payload, 5)] or "GOAWAY" end
    if flags & END_STREAM == 0 or type > HEADERS then return end
    figures.answers, conn.left = figures.answers + 1, (conn.left or 0) - 1
    if kind == "load" and conn.left == 0 then ask_more(conn) end
  end
  conn.socket:connect("127.0.0.1", port, function(err)
    if err then return note_end(conn, err) end
    conn.socket:read_start(function(_, bytes)
      if not bytes then return note_end(conn, conn.how) end
      conn.rest = each_frame(conn.rest .. bytes, take)
    end)
    local bytes = preface .. frame(SETTINGS, 0, 0, "") .. (floods[kind] or "")
    conn.wrote = #bytes
    conn.socket:write(bytes)
    if kind == "load" then ask_more(conn) end
  end)
  figures.current = conn
end

local function run_abuser(kind, port, duration)
  begin(port, kind)
  local timer = uv.new_timer()
  timer:start(math.floor(duration * 1000), 0, uv.stop)
  uv.run()
  local now = figures.current
  if not now.over then figures.bytes = figures.bytes + now.wrote - now.socket:get_write_queue_size() end
  local ends = {}
  for word, count in pairs(figures.ends) do ends[#ends + 1] = ("%s x %d"):format(word, count) end
  table.sort(figures.lived)
  local lived = figures.lived[1] and ("after %.1f ms"):format(percentile(figures.lived, 0.5)) or "never"
  print(("%.1f MB/s, %d answers, %d connections, sent away %s: %s"):format(figures.bytes / duration / 1e6,
    figures.answers, figures.conns, lived, table.concat(ends, ", ")))
  io.stdout:flush()
  os.exit(true, false) -- what is still open tells nobody
end

-- Processes -----------------------------------------------------------------------------------------------------------

local children, dir = {}, nil

local function spawn(argv, on_text)
  local out = on_text and uv.new_pipe() or nil
  local child = {}
  child.handle, child.pid = uv.spawn(argv[1], {
    args = table.move(argv, 2, #argv, 1, {}), stdio = { nil, out, on_text and 2 or nil },
  }, function() child.ended = true end)
  assert(child.handle, child.pid)
  if out then
    local text = ""
    out:read_start(function(_, bytes)
      text = text .. (bytes or "")
      if not bytes then on_text(text) end
    end)
  end
  children[#children + 1] = child
  return child
end

local function start(name, cpus, threads, text)
  local path = dir .. "/" .. name
  local file = assert(io.open(path .. ".lua", "w"))
  file:write(text)
  file:close()
  spawn { "taskset", "-c", cpus, binary, "run", path .. ".lua", "--workers", tostring(threads), "--control",
    path .. ".sock" }
end

local function start_proxy()
  local origin, port = processes.free_port(), processes.free_port()
  start("origin", "1", 1, ([[
    local gate = require "moongate"
    return { listen = "127.0.0.1:%d", on_request = gate.reply(200, ("x"):rep(1024)) }
  ]]):format(origin))
  start("proxy", workers == 1 and "0" or "0,1", workers, ([[
    return { listen = { "127.0.0.1:%d", h2c = true }, backends = { app = { "127.0.0.1:%d" } } }
  ]]):format(port, origin))
  assert(processes.await_port(5, origin), "nobody listens on port " .. origin)
  assert(processes.await_port(5, port), "nobody listens on port " .. port)
  return port
end

local function self(...)
  local argv = { ... }
  return { "taskset", "-c", "1", "nice", "-n", argv[1] == "others" and "0" or "19", "lua5.4", arg[0],
    table.unpack(argv) }
end

-- Of all threads of the serving process, nanoseconds.
local function proxy_cpu()
  local pid, sum = children[2].pid, 0
  local serving = processes.serving(pid)
  for thread in uv.fs_scandir_next, uv.fs_scandir("/proc/" .. serving .. "/task") do
    local text = processes.read_file(("/proc/%s/task/%s/schedstat"):format(serving, thread))
    sum = sum + (tonumber(text:match "^%d+") or 0)
  end
  return sum
end

-- One round: the others' p50, p99 and longest in ms, and what the abuser says of itself.
local function try(kind, port)
  local others, abuser, before
  if kind then before = proxy_cpu() end
  if kind then spawn(self("abuser", kind, tostring(port), tostring(seconds + 1)), function(t) abuser = t end) end
  spawn(self("others", tostring(port), tostring(seconds)), function(t) others = t end)
  local function ended() return others and (abuser or not kind) end
  assert(processes.wait_until(seconds + 20, ended), "a child does not end")
  local asked, answered, p50, p99, most = others:match "(%d+) (%d+) (%S+) (%S+) (%S+)"
  assert(asked and asked - answered <= lanes, "the others had no answers")
  local row = { tonumber(p50), tonumber(p99), tonumber(most) }
  if not kind then return row end
  local conns = tonumber(abuser:match "(%d+) connections")
  return row, ("%.0f us of CPU a connection, "):format((proxy_cpu() - before) / 1e3 / conns) .. abuser:gsub("%s+$", "")
end

local function medians(list)
  local out = {}
  for i = 1, 3 do
    local column = {}
    for _, row in ipairs(list) do column[#column + 1] = row[i] end
    table.sort(column)
    out[i] = percentile(column, 0.5)
  end
  return table.unpack(out)
end

local function measure(kind, port)
  local alone, beside, said = {}, {}, nil
  for round = 1, rounds do
    alone[round] = try(nil, port)
    beside[round], said = try(kind, port)
  end
  local line = "%-13s p50 %5.2f -> %5.2f  p99 %6.2f -> %6.2f  most %6.1f -> %6.1f ms   %s\n"
  local a50, a99, amost = medians(alone)
  local b50, b99, bmost = medians(beside)
  io.write(line:format(kind, a50, b50, a99, b99, amost, bmost, said))
  io.flush()
end

local function main()
  dir = assert(uv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/moongate-floods-XXXXXX"))
  local port = start_proxy()
  for _, kind in ipairs(#chosen > 0 and chosen or kinds) do measure(kind, port) end
end

if arg[1] == "others" then return run_others(math.tointeger(tonumber(arg[2])), tonumber(arg[3])) end
if arg[1] == "abuser" then return run_abuser(arg[2], math.tointeger(tonumber(arg[3])), tonumber(arg[4])) end

local i = 1
while arg[i] do
  if arg[i] == "--moongate" then binary, i = arg[i + 1], i + 1
  elseif arg[i] == "-r" then rounds, i = math.tointeger(tonumber(arg[i + 1])), i + 1
  elseif arg[i] == "-s" then seconds, i = tonumber(arg[i + 1]), i + 1
  elseif arg[i] == "-w" then workers, i = math.tointeger(tonumber(arg[i + 1])), i + 1
  else chosen[#chosen + 1] = arg[i] end
  i = i + 1
end

local ok, err = xpcall(main, debug.traceback)
for _, child in ipairs(children) do
  if not child.ended then uv.kill(child.pid, "sigterm") end
end
processes.wait_until(3, function()
  for _, child in ipairs(children) do if not child.ended then return false end end
  return true
end)
for name in uv.fs_scandir_next, uv.fs_scandir(dir) do uv.fs_unlink(dir .. "/" .. name) end
uv.fs_rmdir(dir)
if not ok then io.stderr:write("floods: ", err, "\n") end
os.exit(ok)
