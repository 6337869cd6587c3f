-- The cache's hits beside those of nginx and Varnish, if they are installed, with the same memory: a tenth of the set.
--
--     lua5.4 bench/hits.lua [--moongate PATH] [--requests N] [moongate nginx varnish]
--
-- Requests come over 16 connections, in the order of a seed, over loopback; an origin in this process counts those that
-- no cache has answered. The first half only warms. nginx keeps its cache in a tmpfs, which is its memory. Its manager
-- looks only every ten seconds whether there is too much of it, so that its figure is that of the memory printed beside
-- it, not of the memory it was given. Ratios are by requests, not bytes.

local processes = require "bench.processes"
local uv = require "luv"

local objects, count, memory_share, lanes = 8000, 60000, 10, 16
local binary = "build/release/moongate"
local chosen = {}

local i = 1
while arg[i] do
  if arg[i] == "--moongate" then binary, i = arg[i + 1], i + 1
  elseif arg[i] == "--requests" then count, i = math.tointeger(tonumber(arg[i + 1])), i + 1
  else chosen[arg[i]] = true end
  i = i + 1
end

-- Loads: the shapes of bench/cache_ratio.c ----------------------------------------------------------------------------

local seed

local function draw()
  seed = seed ~ (seed << 13)
  seed = seed ~ (seed >> 7)
  seed = seed ~ (seed << 17)
  return (seed >> 11) / 2.0 ^ 53
end

-- A log-normal middle of 8 KB and a long tail, always the same for one object.
local function size_of(object)
  local was = seed
  seed = object * 0x9E3779B97F4A7C15 + 1
  draw()
  local normal = math.sqrt(-2 * math.log(draw() + 1e-12)) * math.cos(6.283185307 * draw())
  seed = was
  return math.tointeger(math.floor(math.max(100, math.min(1e6, math.exp(9 + 1.3 * normal)))))
end

local zipf = {}
do
  local sum = 0
  for n = 1, objects do
    sum = sum + n ^ -0.8
    zipf[n] = sum
  end
end

local function draw_zipf()
  local at, low, high = draw() * zipf[objects], 1, objects
  while low < high do
    local middle = (low + high) // 2
    if zipf[middle] < at then low = middle + 1 else high = middle end
  end
  return low
end

local scan_at, scan_left, wonder = 0, 0, 1000000000

local loads = {
  { name = "Zipf web", next = draw_zipf },
  { name = "scans through it", next = function()
    if scan_left == 0 and draw() < 0.0002 then scan_left, scan_at = objects // 5, math.floor(draw() * objects) end
    if scan_left == 0 or draw() < 0.5 then return draw_zipf() end
    scan_left, scan_at = scan_left - 1, scan_at + 1
    return scan_at % objects + 1
  end },
  { name = "one-hit wonders", next = function()
    if draw() >= 0.5 then return draw_zipf() end
    wonder = wonder + 1
    return wonder
  end },
}

local function make_requests(load)
  seed, scan_left = 88172645463325252, 0
  local list = {}
  for n = 1, count do list[n] = load.next() end
  return list
end

local set = 0
for n = 1, objects do
  seed = 1
  set = set + size_of(n)
end
local memory = set // memory_share

-- The origin ----------------------------------------------------------------------------------------------------------

local asked = 0
local body = ("x"):rep(1000000)

local function serve(conn)
  local pending = ""
  conn:read_start(function(_, bytes)
    if not bytes then
      if not conn:is_closing() then conn:close() end
      return
    end
    pending = pending .. bytes
    for target in pending:gmatch "GET (%S+) HTTP/1%.%d\r\n.-\r\n\r\n" do
      asked = asked + 1
      local size = size_of(math.tointeger(tonumber(target:match "%d+") or 1) or 1)
      conn:write({ ("HTTP/1.1 200 OK\r\nCache-Control: max-age=36000\r\nContent-Length: %d\r\n\r\n"):format(size),
        body:sub(1, size) })
    end
    pending = pending:gsub("^.*\r\n\r\n", "")
  end)
end

local function listen()
  local server = uv.new_tcp()
  assert(server:bind("127.0.0.1", 0))
  assert(server:listen(128, function()
    local conn = uv.new_tcp()
    server:accept(conn)
    serve(conn)
  end))
  return server:getsockname().port
end

-- The targets ---------------------------------------------------------------------------------------------------------

local dir = assert(uv.fs_mkdtemp "/dev/shm/moongate-hits-XXXXXX")
assert(uv.fs_chmod(dir, 493)) -- 0755: Varnish compiles as a user of its own

local function write(name, text)
  local file = assert(io.open(dir .. "/" .. name, "w"))
  file:write(text)
  file:close()
  return dir .. "/" .. name
end

local targets = {
  { name = "moongate", argv = function(port, origin)
    return { binary, "run", write("moongate.lua", ([[return { workers = 1, sites = { { listen = "127.0.0.1:%d",
      cache = { memory = "%dK" }, backends = { app = { "127.0.0.1:%d" } } } } }]]):format(port, memory // 1024,
      origin)) }
  end },
  { name = "nginx", argv = function(port, origin)
    local paths, root = {}, uv.getuid() == 0 and "user root;" or ""
    for n, name in ipairs { "client_body", "proxy", "fastcgi", "uwsgi", "scgi" } do
      paths[n] = ("%s_temp_path %s/%s;"):format(name, dir, name)
    end
    local text = ([[%s daemon off; worker_processes 1; pid %s/pid; error_log /dev/null crit;
      events { worker_connections 1024; }
      http { access_log off; keepalive_requests 1000000000; %s
        proxy_cache_path %s/c levels=1:2 keys_zone=c:32m max_size=%dk inactive=10h use_temp_path=off;
        upstream app { server 127.0.0.1:%d; keepalive 16; }
        server { listen 127.0.0.1:%d; location / {
          proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache c; } } }
    ]]):format(root, dir, table.concat(paths, " "), dir, memory // 1024, origin, port)
    return { "nginx", "-c", write("nginx.conf", text) }
  end },
  { name = "varnish", program = "varnishd", argv = function(port, origin)
    -- By default it answers 503 when fifty small objects make no room for a large one.
    return { "varnishd", "-F", "-n", dir .. "/varnish", "-a", "127.0.0.1:" .. port,
      "-s", ("malloc,%dk"):format(memory // 1024), "-p", "nuke_limit=100000",
      "-f", write("default.vcl", ('vcl 4.1; backend default { .host = "127.0.0.1"; .port = "%d"; }'):format(origin)) }
  end },
}

local function is_installed(program)
  if program:find "/" then return uv.fs_stat(program) ~= nil end
  for folder in ((os.getenv "PATH" or "") .. ":/usr/sbin"):gmatch "[^:]+" do
    if uv.fs_stat(folder .. "/" .. program) then return true end
  end
  return false
end

local function start(target, port, origin)
  local argv = target.argv(port, origin)
  local process = assert(uv.spawn(argv[1], { args = { table.unpack(argv, 2) } }, function() end))
  assert(processes.await_port(15, port), target.name .. " does not listen")
  return process
end

-- The load ------------------------------------------------------------------------------------------------------------

local next_request, requests, done, asked_at_half

local function ask_next(lane)
  if next_request > #requests then
    lane.conn:close()
    return
  end
  lane.missing, lane.head = nil, ""
  lane.conn:write(("GET /o/%d HTTP/1.1\r\nHost: bench\r\n\r\n"):format(requests[next_request]))
  next_request = next_request + 1
end

local function finish(lane)
  done = done + 1
  if done == #requests // 2 then asked_at_half = asked end
  ask_next(lane)
end

local function take(lane, bytes)
  if not lane.missing then
    lane.head = lane.head .. bytes
    local stop = select(2, lane.head:find("\r\n\r\n", 1, true))
    if not stop then return end
    if not lane.head:find "^HTTP/1.1 200" then asked = asked + 1 end -- no answer is no hit
    lane.missing = tonumber(lane.head:lower():match "content%-length: (%d+)")
    bytes = lane.head:sub(stop + 1)
  end
  lane.missing = lane.missing - #bytes
  if lane.missing == 0 then finish(lane) end
end

local function run_load(port, list)
  next_request, requests, done, asked, asked_at_half = 1, list, 0, 0, 0
  for _ = 1, lanes do
    local lane = { conn = uv.new_tcp() }
    lane.conn:connect("127.0.0.1", port, function(err)
      assert(not err, err)
      lane.conn:read_start(function(_, bytes) if bytes then take(lane, bytes) end end)
      ask_next(lane)
    end)
  end
  while done < #list do uv.run "once" end
  return 1 - (asked - asked_at_half) / (#list - #list // 2)
end

local function taken(folder)
  local pipe = assert(io.popen(("du -sm '%s'"):format(folder)))
  local megabytes = pipe:read "n"
  pipe:close()
  return (" (with %d MB)"):format(megabytes)
end

-- All -----------------------------------------------------------------------------------------------------------------

local origin = listen()
print(("%d objects, %d MB in all, memory for a tenth; %d requests, the second half counts"):format(objects,
  set // 1000000, count))
for _, target in ipairs(targets) do
  target.out = not is_installed(target.program or (target.name == "moongate" and binary or target.name))
    or (next(chosen) and not chosen[target.name])
end
for _, load in ipairs(loads) do
  local list, line = make_requests(load), { ("%-18s"):format(load.name) }
  for _, target in ipairs(targets) do
    if not target.out then
      local port = processes.free_port()
      local process = start(target, port, origin)
      line[#line + 1] = ("%s %.1f %%"):format(target.name, 100 * run_load(port, list))
      if target.name == "nginx" then line[#line] = line[#line] .. taken(dir .. "/c") end
      process:kill "sigterm"
      while process:is_active() do uv.run "once" end
      os.execute(("rm -rf '%s/c' '%s/varnish'"):format(dir, dir))
    end
  end
  print(table.concat(line, "   "))
end
os.execute(("rm -rf '%s'"):format(dir))
