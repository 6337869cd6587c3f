-- The control socket: who may use it, what it answers, and that nobody can hold the supervisor up with it.

local support = require "support"
local uv = require "luv"
local it, net, http, moongate, process = support.it, support.net, support.http, support.moongate, support.process

local function start(options)
  options = options or {}
  options.config = options.config or [[return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }]]
  options.values = { BACKEND = http.backend "hello" }
  return moongate.start(options)
end

describe("the control socket", function()
  it("is for its owner only, and goes with the process", function()
    local gate = start()
    local stat = assert(uv.fs_lstat(gate.control))
    assert.equal("socket", stat.type)
    assert.equal(tonumber("600", 8), stat.mode & tonumber("777", 8))
    gate:stop()
    assert.is_nil(uv.fs_lstat(gate.control))
  end)

  it("is taken over from a supervisor that was killed", function()
    local gate = start { status = 137 }
    uv.kill(gate:pid(), "sigkill")
    gate:wait()
    assert.is_table(uv.fs_lstat(gate.control))
    moongate.start { file = gate.config, args = { "--control", gate.control } }
    assert.equal(0, (gate:command "status"))
  end)

  it("answers an unknown command, and goes on", function()
    local gate = start()
    local conn = net.connect(gate.control)
    conn:send "frobnicate\n"
    assert.equal("2\nunknown command\n", conn:read_all())
    assert.equal(0, (gate:command "status"))
  end)

  it("closes on nonsense", function()
    local gate = start()
    local conn = net.connect(gate.control)
    conn:try_send(("\0\255x"):rep(20000))
    conn:expect_closed()
    assert.equal(0, (gate:command "status"))
  end)

  it("is not held up by clients that say nothing", function()
    local gate = start()
    for _ = 1, 100 do net.connect(gate.control) end
    assert.equal(0, (gate:command "status"))
    assert.equal(0, (gate:command "reload"))
  end)

  it("does not mind a client that leaves before its answer", function()
    local gate = start()
    for _ = 1, 20 do
      local conn = net.connect(gate.control)
      conn:send "reload\n"
      conn:close()
    end
    assert.equal(0, (gate:command "reload"))
  end)
end)

-- As a user whose sockets are in a directory of his own; root's are the machine's.
local function run_as_user(dir, ...)
  local argv = uv.getuid() == 0 and { "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups" } or {}
  for _, part in ipairs { moongate.binary, ... } do argv[#argv + 1] = part end
  return support.run(argv, { env = { XDG_RUNTIME_DIR = dir }, cwd = dir })
end

describe("a command that names no config", function()
  local dir

  local function start_as_user(name)
    local path = ("%s/%s"):format(dir, name)
    process.write_file(path .. ".lua", ('return { listen = "unix:%s", workers = 1, on_request = 204 }'):format(path))
    assert.equal(0, (run_as_user(dir, "run", path .. ".lua", "-D", "--pidfile", path .. ".pid")))
  end

  support.before_each(function()
    dir = support.temp_dir()
    if uv.getuid() == 0 then assert(uv.fs_chown(dir, 65534, 65534)) end
  end)

  it("means the only one that runs, whatever others left behind", function()
    local status, _, err = run_as_user(dir, "status")
    assert.equal(1, status)
    assert.equal(("moongate: none runs (nobody answers in %s/moongate)\n"):format(dir), err)

    start_as_user "killed"
    uv.kill(tonumber(process.read_file(dir .. "/killed.pid")), "sigkill")
    support.eventually("it is gone", function() return (run_as_user(dir, "status", "killed.lua")) == 1 end)
    assert.is_table(uv.fs_lstat(dir .. "/moongate/killed.sock"))
    start_as_user "one"
    local out
    status, out = run_as_user(dir, "status")
    assert.equal(0, status)
    assert.matches("/one%.lua\n", out)

    start_as_user "two"
    status, _, err = run_as_user(dir, "status")
    assert.equal(1, status)
    assert.equal(("moongate: 2 of them run (%s/moongate): name the config\n"):format(dir), err)
    assert.equal(0, (run_as_user(dir, "stop", "two.lua")))
    assert.equal(0, (run_as_user(dir, "stop")))
  end)
end)

describe("a command that names a config", function()
  it("does not reach one that serves another of that name", function()
    local dir = support.temp_dir()
    local one, other, link = dir .. "/one.lua", dir .. "/other/one.lua", dir .. "/link"
    assert(uv.fs_mkdir(dir .. "/other", tonumber("700", 8)))
    assert(uv.fs_symlink(dir, link))
    process.write_file(one, ('return { listen = "unix:%s/s", workers = 1, on_request = 204 }'):format(dir))
    process.write_file(other, process.read_file(one))
    local function run(...) return run_as_user(dir, ...) end
    if uv.getuid() == 0 then
      for _, path in ipairs { dir, dir .. "/other", one, other } do assert(uv.fs_chown(path, 65534, 65534)) end
    end
    assert.equal(0, (run("run", one, "-D")))
    for _, command in ipairs { "status", "reload", "stop", "trace", "profile" } do
      local status, out, err = run(command, other)
      assert.same({ 1, "" }, { status, out })
      local said = ("who answers there runs %s, not %s (--control PATH says whom you mean)\n"):format(one, other)
      assert.equal(("moongate: %s/moongate/one.sock: %s"):format(dir, said), err)
    end
    assert.equal(0, (run("status", other, "--control", dir .. "/moongate/one.sock")))
    assert.equal(0, (run("status", link .. "/one.lua")))
    assert.equal(0, (run("status", "nowhere/one.lua")))
    assert.equal(0, (run("stop", "one.lua")))
  end)
end)

describe("status", function()
  it("is text for people", function()
    local gate = start()
    assert.equal(200, http.get(gate.port).status)
    local status, out, err = gate:command "status"
    assert.same({ 0, "" }, { status, err })
    assert.matches("config +" .. gate.config:gsub("%p", "%%%0"), out)
    assert.matches("pid +" .. gate:pid(), out)
    assert.matches("listening +127.0.0.1:" .. gate.port, out)
    assert.matches("generation +1, 1 live, 0 reloads, 0 failed, 0 restarts", out)
    assert.matches("requests +1\n", out)
    assert.matches("app +" .. gate.values.BACKEND.address .. " +well", out)
  end)

  it("is JSON for programs", function()
    local gate = start()
    http.get(gate.port)
    local status, out = gate:command("status", "--json")
    assert.equal(0, status)
    assert.matches("^{.*}\n$", out)
    for _, part in ipairs {
      ('"supervisor":%d'):format(gate:pid()), '"generation":1', '"generations_live":1', '"reloads":0',
      '"requests_total":1',
      ('"listeners":["127.0.0.1:%d"]'):format(gate.port), ('"address":"%s"'):format(gate.values.BACKEND.address),
      ('"pid":%d'):format(gate:children()[1]),
    } do
      assert.is_truthy(out:find(part, 1, true), part .. " in " .. out)
    end
  end)
end)

describe("stop", function()
  it("returns when the process has ended", function()
    local gate = start()
    local pid = gate:children()[1]
    local status, out, err = gate:command "stop"
    assert.same({ 0, "", "" }, { status, out, err })
    assert.is_nil(io.open(("/proc/%d/stat"):format(pid)))
    assert.is_nil((net.try_connect(gate.port)))
    assert.is_nil(uv.fs_lstat(gate.control))
    gate:wait()
  end)

  it("waits for what is under way, unless --now", function()
    local backend = net.listen()
    local gate = moongate.start { values = { BACKEND = backend }, config = [[
      return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }
    ]] }
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    local stopping = support.spawn(function() return gate:command "stop" end)
    gate:wait_log "draining"
    assert.equal(1, (gate:command "reload"))
    assert.equal(0, (gate:command("stop", "--now")))
    client:expect_closed()
    assert.equal(0, (stopping:join()))
    gate:wait()
  end)
end)
