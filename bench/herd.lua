-- A herd: a thousand clients ask at once for one object that the cache has not, 10 MiB from a slow backend. Says how
-- many requests the backend got, when the first byte could be read at all clients, and what memory it took beside the
-- object.
--
--     ./dev build release && lua5.4 bench/herd.lua [--moongate PATH] [-w WORKERS] [-r ROUNDS]
--
-- The backend waits half a second before its head and ten milliseconds between each 64 KiB. Clients take a few KiB and
-- pause until all of them have had something, so that what they read does not delay what they measure; then a tenth of
-- them reads slowly to the end. Three processes on all CPUs: what else runs on the machine is in the figures.

local processes = require "bench.processes"
local uv = require "luv"

local clients, size, piece = 1000, 10 << 20, 64 << 10
local options = { ["--moongate"] = "build/release/moongate", ["-w"] = "1", ["-r"] = "3" }

-- The backend, a process of its own: prints a line for each head it sends, its time in nanoseconds -------------------

local function send_slowly(conn)
  local sent, timer = 0, uv.new_timer()
  io.write(("%d\n"):format(uv.hrtime())):flush()
  conn:write("HTTP/1.1 200 OK\r\nCache-Control: max-age=1000\r\nContent-Length: " .. size .. "\r\n\r\n")
  timer:start(0, 10, function()
    conn:write(("x"):rep(piece))
    sent = sent + piece
    if sent == size then timer:close() end
  end)
end

local function run_backend(port)
  local server = uv.new_tcp()
  assert(server:bind("127.0.0.1", port))
  assert(server:listen(128, function()
    local conn, timer = uv.new_tcp(), uv.new_timer()
    server:accept(conn)
    conn:read_start(function(err, bytes)
      if err or not bytes then conn:close() else timer:start(500, 0, function() send_slowly(conn) end) end
    end)
  end))
  uv.run()
end

-- The herd ------------------------------------------------------------------------------------------------------------

local children = {}

local function spawn(argv, on_text)
  local out, child = uv.new_pipe(), {}
  child.handle, child.pid = uv.spawn(argv[1], { args = { table.unpack(argv, 2) }, stdio = { nil, out, 2 } },
    function() child.ended = true end)
  assert(child.handle, argv[1] .. " does not start")
  out:read_start(function(_, text) if text then on_text(text) end end)
  children[#children + 1] = child
  return child
end

local function stop_all()
  for _, child in ipairs(children) do if not child.ended then uv.kill(child.pid, "sigterm") end end
  processes.wait_until(5, function()
    for _, child in ipairs(children) do if not child.ended then return false end end
    return true
  end)
  children = {}
end

-- Of the serving process, KiB.
local function resident(pid)
  local serving = processes.serving(pid)
  return tonumber(processes.read_file(("/proc/%s/status"):format(serving)):match "VmRSS:%s+(%d+)")
end

local function join(herd, port, slow)
  local conn, got = uv.new_tcp "inet", 0
  local nap = slow and uv.new_timer()
  uv.recv_buffer_size(conn, 8192)
  local function read()
    conn:read_start(function(err, bytes)
      if err or not bytes then
        if got >= size then herd.whole = herd.whole + 1 end
        herd.ended = herd.ended + 1
        conn:close()
        return
      end
      if got == 0 then
        herd.begun, herd.last = herd.begun + 1, uv.hrtime()
        conn:read_stop()
      elseif slow and not nap:is_active() then
        conn:read_stop()
        nap:start(2, 0, read)
      end
      got = got + #bytes
    end)
  end
  herd.go_on[#herd.go_on + 1] = function() if not conn:is_closing() then read() end end
  conn:connect("127.0.0.1", port, function(err)
    assert(not err, err)
    conn:write "GET /big HTTP/1.1\r\nHost: herd.test\r\nConnection: close\r\n\r\n"
    read()
  end)
end

local function round(dir)
  local origin, port, heads = processes.free_port(), processes.free_port(), {}
  spawn({ "lua5.4", arg[0], "backend", tostring(origin) }, function(text)
    for time in text:gmatch "%d+" do heads[#heads + 1] = tonumber(time) end
  end)
  local config = assert(io.open(dir .. "/herd.lua", "w"))
  config:write(([[
    return { listen = "127.0.0.1:%d", cache = { memory = "256M" }, backends = { app = { "127.0.0.1:%d" } } }
  ]]):format(port, origin)):close()
  local proxy = spawn({ options["--moongate"], "run", dir .. "/herd.lua", "--workers", options["-w"], "--control",
    dir .. "/control.sock" }, function() end)
  assert(processes.await_port(5, origin) and processes.await_port(5, port), "nobody listens")

  local herd = { begun = 0, ended = 0, whole = 0, go_on = {} }
  local before, peak = resident(proxy.pid), 0
  for i = 1, clients do join(herd, port, i % 10 == 0) end
  assert(processes.wait_until(30, function() return herd.begun == clients end), "some got nothing")
  local spread = (herd.last - heads[1]) / 1e6
  for _, go_on in ipairs(herd.go_on) do go_on() end
  assert(processes.wait_until(120, function()
    peak = math.max(peak, resident(proxy.pid))
    return herd.ended == clients
  end), "some are not served")
  local line = "requests to the backend: %d; first byte at all %d clients after %.0f ms; whole at %d; %.1f MiB more"
  print(line:format(#heads, clients, spread, herd.whole, (peak - before - size / 1024) / 1024))
  stop_all()
end

if arg[1] == "backend" then
  run_backend(tonumber(arg[2]))
  return
end
for i = 1, #arg, 2 do
  local usage = "usage: lua5.4 bench/herd.lua [--moongate PATH] [-w WORKERS] [-r ROUNDS]"
  if not options[arg[i]] or not arg[i + 1] then error(usage, 0) end
  options[arg[i]] = arg[i + 1]
end
local dir = assert(uv.fs_mkdtemp "/tmp/moongate-herd-XXXXXX")
assert(uv.fs_chmod(dir, 493)) -- 0755: the proxy may serve as another user
local ok, err = xpcall(function() for _ = 1, tonumber(options["-r"]) do round(dir) end end, debug.traceback)
stop_all()
os.remove(dir .. "/herd.lua")
uv.fs_rmdir(dir)
if not ok then error(err, 0) end
