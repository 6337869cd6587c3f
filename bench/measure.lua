-- Measures Moongate on loopback, and beside it a peer if it is installed (nginx, if need be with Lua). README.md tells
-- how to read it.
--
--     bench/run [-w plain,hooks,close,big,idle,sleepers] [-r ROUNDS] [-s SECONDS] [-t moongate,nginx] [--moongate PATH]

local processes = require "bench.processes"
local uv = require "luv"

local options = { rounds = 3, seconds = 2, binary = "build/release/moongate", workloads = nil, targets = nil }
local small, large, idle_count, sleeper_count = 1024, 1 << 20, 2000, 10000

-- Command line --------------------------------------------------------------------------------------------------------

local function usage(problem)
  if problem then io.stderr:write("bench/run: ", problem, "\n") end
  io.stderr:write("usage: bench/run [-w plain,hooks,close,big,idle,sleepers] [-t moongate,nginx]",
    " [-r ROUNDS] [-s SECONDS] [--moongate PATH]\n")
  os.exit(problem and 2 or 0)
end

local function as_set(text)
  local set = {}
  for word in text:gmatch "[^,]+" do set[word] = true end
  return set
end

local function read_arguments()
  local takes = {
    ["-w"] = function(v) options.workloads = as_set(v) end,
    ["-t"] = function(v) options.targets = as_set(v) end,
    ["-r"] = function(v) options.rounds = math.tointeger(tonumber(v)) or usage "-r takes a number" end,
    ["-s"] = function(v) options.seconds = tonumber(v) or usage "-s takes a number" end,
    ["--moongate"] = function(v) options.binary = v end,
  }
  local at = 1
  while arg[at] do
    if arg[at] == "--help" or arg[at] == "-h" then usage() end
    local take = takes[arg[at]] or usage("unknown option " .. arg[at])
    take(arg[at + 1] or usage(arg[at] .. " needs a value"))
    at = at + 2
  end
end

-- Files, ports, processes ---------------------------------------------------------------------------------------------

local dir -- made by main
local running = {}

local function write_file(name, text)
  local path = dir .. "/" .. name
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

local cpus = uv.available_parallelism()

-- The target has CPU 0 for itself; load generator and origin share CPU 1.
local function pin(cpu, argv)
  if cpus < 2 then return argv end
  return { "taskset", "-c", tostring(cpu), table.unpack(argv) }
end

local function spawn(cpu, argv)
  argv = pin(cpu, argv)
  local log = assert(uv.fs_open(dir .. "/log", "a", 420))
  local process = {}
  process.handle, process.pid = uv.spawn(argv[1], {
    args = table.move(argv, 2, #argv, 1, {}), stdio = { nil, log, log },
  }, function() process.ended = true end)
  uv.fs_close(log)
  assert(process.handle, process.pid)
  running[#running + 1] = process
  return process
end

local function stop(process)
  if process.ended then return end
  uv.kill(process.pid, "sigterm")
  if processes.wait_until(5, function() return process.ended end) then return end
  uv.kill(process.pid, "sigkill")
  processes.wait_until(5, function() return process.ended end)
end

local function clean_up()
  for _, process in ipairs(running) do stop(process) end
  for name in uv.fs_scandir_next, uv.fs_scandir(dir) do uv.fs_unlink(dir .. "/" .. name) end
  uv.fs_rmdir(dir)
end

local function fail(text)
  io.stderr:write("bench/run: ", text, "\n", processes.read_file(dir .. "/log"), "\n")
  clean_up()
  os.exit(1)
end

local function await_port(process, port)
  local connected
  local ok = processes.wait_until(5, function()
    local socket = uv.new_tcp()
    socket:connect("127.0.0.1", port, function(err)
      connected = connected or not err
      socket:close()
    end)
    uv.run "once"
    return connected or process.ended
  end)
  if not ok or process.ended then fail("nobody listens on port " .. port) end
end

-- What a process tree has used ----------------------------------------------------------------------------------------

local function family_of(pid)
  local pids = { pid }
  for child in processes.read_file(("/proc/%d/task/%d/children"):format(pid, pid)):gmatch "%d+" do
    for _, one in ipairs(family_of(math.tointeger(tonumber(child)))) do pids[#pids + 1] = one end
  end
  return pids
end

-- CPU time of all threads, in nanoseconds.
local function cpu_of(pid)
  local sum = 0
  for _, one in ipairs(family_of(pid)) do
    local threads = uv.fs_scandir(("/proc/%d/task"):format(one))
    for thread in function() return threads and uv.fs_scandir_next(threads) end do
      local text = processes.read_file(("/proc/%d/task/%s/schedstat"):format(one, thread))
      sum = sum + (tonumber(text:match "^%d+") or 0)
    end
  end
  return sum
end

local function memory_of(pid)
  local sum = 0
  for _, one in ipairs(family_of(pid)) do
    local text = processes.read_file(("/proc/%d/smaps_rollup"):format(one))
    sum = sum + 1024 * (tonumber(text:match "\nPss:%s*(%d+)") or 0)
  end
  return sum
end

-- Targets -------------------------------------------------------------------------------------------------------------

-- The origin is a Moongate that answers by itself.
local function start_origin()
  local port = processes.free_port()
  local config = write_file("origin.lua", ([[
    local gate = require "moongate"
    local small = gate.reply(200, ("x"):rep(%d), { ["Server"] = "origin" })
    local large = gate.reply(200, ("x"):rep(%d))
    return { listen = "127.0.0.1:%d", on_request = function(req) return req.path == "/big" and large or small end }
  ]]):format(small, large, port))
  local process = spawn(1, { options.binary, "run", config, "--workers", "1", "--control", dir .. "/origin.sock" })
  await_port(process, port)
  return port
end

local moongate_configs = {
  plain = [[return { listen = "127.0.0.1:@PORT@", backends = { app = { "127.0.0.1:@ORIGIN@" } } }]],
  hooks = [[
    local gate = require "moongate"
    local tiers = { k1 = "gold", k2 = "free" }
    local site = {
      listen = "127.0.0.1:@PORT@", backends = { one = { "127.0.0.1:@ORIGIN@" }, two = { "127.0.0.1:@ORIGIN@" } },
    }
    function site.on_request(req)
      local tier = tiers[req.headers["X-Api-Key"] ] or "none"
      if req.path == "/blocked" then return gate.reply(403) end
      req.headers["X-Tier"] = tier
      req.ctx.key = req.host .. req.target .. tier
    end
    function site.pick_backend(req) return req.args.b == "2" and "two" or "one" end
    function site.on_response(req, res)
      res.headers["X-Served-By"] = "policy"
      res.headers["Server"] = nil
      res.headers["X-Key"] = req.ctx.key
    end
    return site
  ]],
  sleepers = [[
    local gate = require "moongate"
    local answer = gate.reply(200, ("x"):rep(@SMALL@))
    local site = { listen = "127.0.0.1:@PORT@" }
    function site.on_request(req)
      if req.path == "/later" then gate.sleep(2) end
      return answer
    end
    return site
  ]],
}

local nginx_modules = "/usr/lib/nginx/modules/"

local nginx_config = [[
  @MODULES@ daemon off; worker_processes 1; pid @DIR@/nginx.pid; error_log stderr crit; worker_rlimit_nofile 65536;
  events { worker_connections 8192; }
  http { access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
    client_body_temp_path @DIR@; proxy_temp_path @DIR@; fastcgi_temp_path @DIR@; uwsgi_temp_path @DIR@;
    scgi_temp_path @DIR@; @LUA@
    upstream app { server 127.0.0.1:@ORIGIN@; keepalive 128; keepalive_requests 1000000000; }
    server { listen 127.0.0.1:@PORT@ backlog=4096;
      location / { @HOOKS@ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; } } }
]]

local nginx_hooks = [[
  rewrite_by_lua_block {
    local tier = tiers[ngx.req.get_headers()["X-Api-Key"] ] or "none"
    if ngx.var.uri == "/blocked" then return ngx.exit(403) end
    ngx.req.set_header("X-Tier", tier)
    ngx.ctx.key = (ngx.var.host or "") .. ngx.var.request_uri .. tier
  }
  header_filter_by_lua_block {
    ngx.header["X-Served-By"] = "policy"; ngx.header["Server"] = nil; ngx.header["X-Key"] = ngx.ctx.key
  }
]]

local function fill(text, values)
  return (text:gsub("@(%u+)@", function(name) return tostring(values[name]) end))
end

local function find_program(name)
  for folder in ((os.getenv "PATH" or "") .. ":/usr/sbin"):gmatch "[^:]+" do
    if uv.fs_access(folder .. "/" .. name, "X") then return folder .. "/" .. name end
  end
end

local targets = {
  {
    name = "moongate",
    start = function(kind, origin, port)
      local text = fill(moongate_configs[kind], { PORT = port, ORIGIN = origin, SMALL = small })
      local config = write_file("moongate.lua", text)
      return spawn(0, { options.binary, "run", config, "--workers", "1", "--control", dir .. "/moongate.sock" })
    end,
  },
  {
    name = "nginx",
    absent = function(kind)
      if kind == "sleepers" then return "not asked" end
      if not find_program "nginx" then return "not installed" end
      local module = nginx_modules .. "ngx_http_lua_module.so"
      if kind == "hooks" and not uv.fs_access(module, "R") then return "no Lua module" end
    end,
    start = function(kind, origin, port)
      local hooks = kind == "hooks"
      local modules = ("load_module %sndk_http_module.so; load_module %sngx_http_lua_module.so;")
        :format(nginx_modules, nginx_modules)
      local lua = 'lua_package_path "/usr/share/lua/5.1/?.lua;;"; init_by_lua_block { tiers = { k1 = "gold" } }'
      local config = write_file("nginx.conf", fill(nginx_config, {
        DIR = dir, PORT = port, ORIGIN = origin, MODULES = hooks and modules or "",
        LUA = hooks and lua or "", HOOKS = hooks and nginx_hooks or "",
      }))
      return spawn(0, { find_program "nginx", "-c", config })
    end,
  },
}

-- Workloads -----------------------------------------------------------------------------------------------------------

-- Loads a target and gives the CPU time of each of its requests in microseconds, and requests a second.
local function load_with_wrk(process, port, path, seconds, headers)
  local argv = pin(1, { "wrk", "-t1", "-c32", ("-d%ds"):format(math.max(1, math.floor(seconds))) })
  for _, header in ipairs(headers or {}) do table.move({ "-H", header }, 1, 2, #argv + 1, argv) end
  argv[#argv + 1] = ("http://127.0.0.1:%d%s"):format(port, path)
  for i, word in ipairs(argv) do argv[i] = "'" .. word .. "'" end
  local before = cpu_of(process.pid)
  local pipe = assert(io.popen(table.concat(argv, " ") .. " 2>&1"))
  local text = pipe:read "a"
  pipe:close()
  local used = cpu_of(process.pid) - before
  local count, rate = tonumber(text:match "(%d+) requests in"), tonumber(text:match "Requests/sec:%s*([%d.]+)")
  if not count or count == 0 then fail("wrk had no answers:\n" .. text) end
  local bad = tonumber(text:match "Non%-2xx or 3xx responses: (%d+)" or 0)
  if bad > 0 then fail(("%d of %d answers were errors:\n%s"):format(bad, count, text)) end
  return used / count / 1000, rate
end

local function wrk_workload(path, headers)
  return function(process, port)
    load_with_wrk(process, port, path, 1, headers) -- warm
    return load_with_wrk(process, port, path, options.seconds, headers)
  end
end

-- Connections that are opened one after the other, each with a request, and stay open.
local clients = {}
clients.__index = clients

local function new_clients(port) return setmetatable({ port = port, sockets = {}, answered = 0 }, clients) end

local function ask(socket, path)
  socket:write("GET " .. path .. " HTTP/1.1\r\nHost: localhost\r\n\r\n")
end

-- Counts each whole answer of `small` bytes.
function clients:listen(socket)
  local got = ""
  socket:read_start(function(err, bytes)
    self.failed = self.failed or err or (not bytes and "closed" or nil)
    got = got .. (bytes or "")
    local left = select(2, got:find("\r\n\r\n", 1, true))
    if left and #got >= left + small then
      self.answered, got = self.answered + 1, ""
    end
  end)
end

function clients:open(path)
  local socket = uv.new_tcp()
  self.sockets[#self.sockets + 1] = socket
  socket:connect("127.0.0.1", self.port, function(err)
    self.failed = self.failed or err
    if err then return end
    self:listen(socket)
    ask(socket, path)
  end)
end

function clients:await(count)
  return processes.wait_until(20, function() return self.answered >= count or self.failed end)
end

function clients:open_many(count, path)
  for _ = 1, count do
    self:open(path)
    self:await(#self.sockets - 16)
  end
  self:await(#self.sockets)
end

function clients:close(what)
  for _, socket in ipairs(self.sockets) do socket:close() end
  processes.wait_until(1, function() return false end)
  if self.failed then fail(what .. ": " .. self.failed) end
end

-- Leaves connections open after a request each: how much more memory the target has then.
local function hold_idle(process, port)
  local idle = new_clients(port)
  idle:open_many(50, "/")
  uv.sleep(200)
  local before, first = memory_of(process.pid), #idle.sockets
  idle:open_many(idle_count, "/")
  uv.sleep(500)
  local bytes = (memory_of(process.pid) - before) / (#idle.sockets - first)
  idle:close "idle"
  return bytes, nil
end

-- Has all connections, which have had an answer before, wait in a hook at once: what that takes beyond them.
local function hold_sleeping(process, port)
  local sleepers = new_clients(port)
  sleepers:open_many(sleeper_count, "/now")
  uv.sleep(200)
  local before = memory_of(process.pid)
  for _, socket in ipairs(sleepers.sockets) do ask(socket, "/later") end
  processes.wait_until(1.5, function() return false end)
  local bytes = (memory_of(process.pid) - before) / sleeper_count
  if sleepers.answered ~= sleeper_count then fail "sleepers: some did not sleep" end
  if not sleepers:await(2 * sleeper_count) then fail "sleepers: some did not wake" end
  sleepers:close "sleepers"
  return bytes, nil
end

local workloads = {
  { name = "plain", config = "plain", unit = "us/request", run = wrk_workload "/", about = "1 KiB, keep-alive" },
  { name = "hooks", config = "hooks", unit = "us/request", run = wrk_workload("/?b=2", { "X-Api-Key: k1" }),
    about = "the same with three hooks" },
  { name = "close", config = "plain", unit = "us/request", run = wrk_workload("/", { "Connection: close" }),
    about = "a connection for each request" },
  { name = "big", config = "plain", unit = "us/MiB", run = wrk_workload "/big", about = "1 MiB bodies" },
  { name = "idle", config = "plain", unit = "bytes/conn", run = hold_idle, once = true,
    about = idle_count .. " idle keep-alive connections" },
  { name = "sleepers", config = "sleepers", unit = "bytes/call", run = hold_sleeping, once = true,
    about = sleeper_count .. " hooks that wait at once" },
}

-- The table -----------------------------------------------------------------------------------------------------------

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

local function measure(workload, present, origin)
  local results = {}
  for _ = 1, workload.once and 1 or options.rounds do
    for _, target in ipairs(present) do -- taking turns: what else the machine does meets all of them
      local port = processes.free_port()
      local process = target.start(workload.config, origin, port)
      await_port(process, port)
      local cost, rate = workload.run(process, port)
      stop(process)
      local result = results[target.name] or { costs = {}, rates = {} }
      results[target.name] = result
      table.insert(result.costs, cost)
      table.insert(result.rates, rate)
    end
  end
  return results
end

local function present_targets(workload)
  local present, absent = {}, {}
  for _, target in ipairs(targets) do
    local wanted = not options.targets or options.targets[target.name]
    local why = target.absent and target.absent(workload.config)
    if wanted and why then absent[#absent + 1] = target.name .. " (" .. why .. ")" end
    if wanted and not why then present[#present + 1] = target end
  end
  return present, absent
end

local function print_results(workload, present, absent, results)
  local first
  for _, target in ipairs(present) do
    local result = results[target.name]
    local cost, rate = median(result.costs), result.rates[1] and median(result.rates)
    first = first or cost
    local line = "%-8s %-10s %10.2f %-11s %10s %6.2f  %s\n"
    local per_second = rate and ("%.0f/s"):format(rate) or ""
    io.write(line:format(workload.name, target.name, cost, workload.unit, per_second, cost / first, workload.about))
  end
  for _, name in ipairs(absent) do io.write(("%-8s %s\n"):format(workload.name, name)) end
  io.flush()
end

local function check_names(option, chosen, known)
  for name in pairs(chosen or {}) do
    local found = false
    for _, one in ipairs(known) do found = found or one.name == name end
    if not found then usage(("%s: there is no %s"):format(option, name)) end
  end
end

local function main()
  read_arguments()
  check_names("-w", options.workloads, workloads)
  check_names("-t", options.targets, targets)
  if not uv.fs_access(options.binary, "X") then usage(options.binary .. " is not there: ./dev build release") end
  if cpus < 2 then io.write "one CPU only: the load generator shares it with the target\n" end
  dir = assert(uv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/moongate-bench-XXXXXX"))
  local origin = start_origin()
  io.write(("%-8s %-10s %22s %10s %6s\n"):format("workload", "target", "CPU (idle: memory)", "rate", "ratio"))
  for _, workload in ipairs(workloads) do
    if not options.workloads or options.workloads[workload.name] then
      local present, absent = present_targets(workload)
      print_results(workload, present, absent, measure(workload, present, origin))
    end
  end
  clean_up()
end

local ok, err = xpcall(main, debug.traceback)
if not ok then fail(err) end
