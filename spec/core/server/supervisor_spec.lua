-- The supervisor: sockets that survive, restarts, upgrades, and who the serving process is.

local support = require "support"
local uv = require "luv"
local it, net, http, process, moongate = support.it, support.net, support.http, support.process, support.moongate
local is_root = uv.getuid() == 0

local plain = [[return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }]]

local function start(options)
  options = options or {}
  options.config = options.config or plain
  options.values = options.values or { BACKEND = http.backend "hello" }
  return moongate.start(options)
end

-- The serving process, once there is one other than `former`.
local function serving(gate, former)
  local pid
  support.eventually("a serving process", function()
    for _, child in ipairs(gate:children()) do
      if child ~= former then pid = child end
    end
    return pid
  end)
  return pid
end

local function is_gone(pid)
  local file = io.open(("/proc/%d/stat"):format(pid))
  local text = file and file:read "a" or ""
  if file then file:close() end
  return not text:find "^%d+ %(.*%) [^Z]"
end

-- A field of /proc/PID/status.
local function status_of(pid, name)
  return process.read_file(("/proc/%d/status"):format(pid)):match("\n" .. name .. ":%s*([^\n]*)")
end

describe("the death of the serving process", function()
  it("refuses no connection, and those that wait are served", function()
    local gate = start { may_crash = true }
    for _ = 1, 5 do
      local pid = serving(gate)
      uv.kill(pid, "sigkill")
      for _ = 1, 10 do assert.equal("hello", http.get(gate.port).body) end
      support.eventually("the old one to be gone", function() return is_gone(pid) end)
    end
    assert.matches("was killed by signal 9", gate:log())
  end)

  it("is followed by a restart at once, and by longer and longer pauses when it is not the first", function()
    local gate = start { may_crash = true }
    local mark = gate:log_mark()
    local pid = serving(gate)
    uv.kill(pid, "sigkill")
    gate:wait_log("generation 1 serves", { from = mark })
    assert.is_nil(gate:log():find "the next serving process starts in")
    for i, pause in ipairs { "0.1", "0.2", "0.4" } do
      uv.kill(serving(gate, pid), "sigkill")
      gate:wait_log("the next serving process starts in " .. pause, { from = mark })
      mark = gate:log_mark()
      gate:wait_log("generation 1 serves", { from = mark })
      assert(i)
    end
    assert.matches('"restarts":4', (select(2, gate:command("status", "--json"))))
  end)

  it("is told to commands that wait", function()
    local values = { BACKEND = http.backend "hello", T = os.time() + 1 }
    local gate = start { may_crash = true, values = values, config = [[
      local gate = require "moongate"
      return {
        listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } },
        on_load = function() if gate.now() > $T then gate.sleep(8) end end,
      }
    ]] }
    support.eventually("a second to pass", function() return os.time() > gate.values.T end)
    local reloading = support.spawn(function() return gate:reload() end)
    support.sleep(0.1)
    uv.kill(serving(gate), "sigkill")
    local status, output = reloading:join()
    assert.equal(1, status)
    assert.matches("died meanwhile", output)
  end)

  it("cannot be caused by a signal that is meant for the supervisor", function()
    local gate = start()
    local pid = serving(gate)
    for _, signal in ipairs { "sigterm", "sigint", "sighup", "sigusr1", "sigusr2" } do uv.kill(pid, signal) end
    assert.equal("hello", http.get(gate.port).body)
    assert.equal(pid, serving(gate))
  end)
end)

describe("the death of the supervisor", function()
  it("lets the serving process finish what it does, and end", function()
    local backend = net.listen()
    local gate = start { status = 137, values = { BACKEND = backend } }
    local pid = serving(gate)
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    uv.kill(gate:pid(), "sigkill")
    support.eventually("the port to be closed", function()
      local probe = net.try_connect(gate.port)
      if probe then probe:close() end
      return not probe
    end)
    conn:send(http.encode_response { body = "late" })
    assert.equal("late", http.response(client).body)
    support.eventually("its end", function() return is_gone(pid) end)
    gate:wait()
  end)
end)

describe("an upgrade", function()
  it("changes processes under the same pid, and refuses no connection", function()
    local gate = start()
    local before = serving(gate)
    local running, served = true, 0
    local client = support.spawn(function()
      while running do
        assert.equal("hello", http.get(gate.port).body)
        served = served + 1
      end
    end)
    gate:signal "usr2"
    gate:wait_log "upgraded: process"
    support.eventually("the old one to be gone", function() return is_gone(before) end)
    running = false
    client:join()
    assert.is_true(served > 0)
    assert.not_equal(before, serving(gate))
    local status, out = gate:command "status"
    assert.equal(0, status)
    assert.matches("pid +" .. gate:pid(), out)
    assert.equal(0, (gate:reload()))
  end)

  it("lets the old process finish what it does", function()
    local backend = net.listen()
    local gate = start { values = { BACKEND = backend } }
    local before = serving(gate)
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    gate:signal "usr2"
    gate:wait_log "upgraded: process"
    assert.is_false(is_gone(before))
    conn:send(http.encode_response { body = "from the old one" })
    assert.equal("from the old one", http.response(client).body)
    support.eventually("its end", function() return is_gone(before) end)
  end)

  it("does not happen with a config that the new binary refuses", function()
    local gate = start()
    local before = serving(gate)
    gate:write_config "return { listen = 'nowhere' }"
    gate:signal "usr2"
    gate:wait_log "upgrade: the new binary's check failed; all goes on as it was"
    assert.equal(before, serving(gate))
    assert.equal("hello", http.get(gate.port).body)
  end)

  it("can be repeated, and leaks no descriptor", function()
    local gate = start()
    local function count()
      local n = 0
      for _ in uv.fs_scandir_next, assert(uv.fs_scandir(("/proc/%d/fd"):format(gate:pid()))) do n = n + 1 end
      return n
    end
    local function upgrade()
      local mark = gate:log_mark()
      gate:signal "usr2"
      gate:wait_log("upgraded: process", { from = mark })
      gate:wait_log("drained: process", { from = mark })
    end
    upgrade()
    local before = count() -- perhaps with the last process's channel
    for _ = 1, 4 do upgrade() end
    support.eventually("as few descriptors as before", function() return count() <= before end)
  end)
end)

local as_root = is_root and it or function(name, body) pending(name .. " (needs root)", body) end

describe("privilege", function()
  as_root("is given up before the config is read", function()
    local gate = start()
    local pid = serving(gate)
    local nobody = process.read_file "/etc/passwd":match "\nnobody:[^:]*:(%d+)"
    assert.equal(("%s\t%s\t%s\t%s"):format(nobody, nobody, nobody, nobody), status_of(pid, "Uid"))
    assert.equal("1", status_of(pid, "NoNewPrivs"))
    assert.equal("0000000000000000", status_of(pid, "CapEff"))
    assert.matches("^0\t", status_of(gate:pid(), "Uid"))
  end)

  as_root("goes to the user whom the config names", function()
    local gate = start { config = plain:gsub("}$", [[, user = "daemon" }]]) }
    local daemon = process.read_file "/etc/passwd":match "\ndaemon:[^:]*:(%d+)"
    assert.matches("^" .. daemon .. "\t", status_of(serving(gate), "Uid"))
    assert.equal(0, (gate:reload()))
  end)

  as_root("goes to the user whom --user names, whatever the config says", function()
    local gate = start { config = plain:gsub("}$", [[, user = "daemon" }]]), args = { "--user", "games" } }
    local games = process.read_file "/etc/passwd":match "\ngames:[^:]*:(%d+)"
    assert.matches("^" .. games .. "\t", status_of(serving(gate), "Uid"))
  end)

  as_root("is not kept because a config says so", function()
    local gate = start { config = plain:gsub("}$", [[, user = "root" }]]), ready = false, status = 1 }
    gate:wait()
    assert.matches('moongate.lua:%d+: user: "root": root must be named by %-%-user root', gate:log())
  end)

  as_root("is not needed for a user who does not exist", function()
    local gate = start { config = plain:gsub("}$", [[, user = "no-such-user" }]]), ready = false, status = 1 }
    gate:wait()
    assert.matches('moongate.lua:%d+: user: "no%-such%-user": there is no such user', gate:log())
    local status, _, err = moongate.run { "check", gate.config }
    assert.equal(1, status)
    assert.matches(':%d+: user: "no%-such%-user": there is no such user\n', err)
    assert.equal(0, (moongate.run { "check", gate.config, "--user", "daemon" }))
  end)

  as_root("reads modules and logs in directories that are closed to others", function()
    local dir = support.temp_dir()
    assert(uv.fs_chmod(dir, tonumber("700", 8)))
    process.write_file(dir .. "/part.lua", [[return { body = "from a module" }]])
    process.write_file(dir .. "/main.lua", ([[
      local gate, part = require "moongate", require "part"
      return {
        sites = {
          { listen = "127.0.0.1:%d", backends = {}, on_request = function() return gate.reply(200, part.body) end },
        },
        log = { access = "access.log", error = "error.log" },
      }
    ]]):format(support.free_port()))
    local gate = moongate.start { file = dir .. "/main.lua" }
    local port = tonumber(gate.listening:match ":(%d+)$")
    assert.equal("from a module", http.get(port).body)
    gate:stop()
    assert.matches("GET / HTTP/1.1", process.read_file(dir .. "/access.log"))
    assert.matches("generation 1 serves", process.read_file(dir .. "/error.log"))
  end)

  as_root("reads many files by few questions, as they are now", function()
    local dir = support.temp_dir()
    assert(uv.fs_chmod(dir, tonumber("700", 8)))
    local port = support.free_port()
    local function part(i, text) process.write_file(("%s/part%d.lua"):format(dir, i), text or "return " .. i) end
    local function main(first, last)
      process.write_file(dir .. "/main.lua", ([[
        local gate, sum = require "moongate", 0
        for i = %d, %d do sum = sum + require("part" .. i) end
        return { listen = "127.0.0.1:%d", on_request = function() return gate.reply(200, tostring(sum)) end }
      ]]):format(first, last, port))
    end
    local function sum(first, last) return tostring((first + last) * (last - first + 1) // 2) end
    for i = 1, 400 do part(i) end
    main(1, 300)
    local gate = moongate.start { file = dir .. "/main.lua" }
    local function served() return http.get(port).body end
    assert.equal(sum(1, 300), served())
    assert.equal(0, (gate:reload()))
    assert.equal(sum(1, 300), served())

    part(7, "return 1007")
    main(2, 290) -- some are wanted no more
    assert.equal(0, (gate:reload()))
    assert.equal(tostring(tonumber(sum(2, 290)) + 1000), served())
    part(7)
    main(1, 400) -- and others are new
    assert.equal(0, (gate:reload()))
    assert.equal(sum(1, 400), served())

    assert(os.remove(dir .. "/part200.lua"))
    local status, err = gate:reload()
    assert.equal(1, status)
    assert.matches("part200.lua %(no such file%)", err)
    assert(uv.fs_symlink("/etc/shadow", dir .. "/part200.lua"))
    status, err = gate:reload()
    assert.equal(1, status)
    assert.matches("part200.lua %(Permission denied%)", err)
    assert.equal(sum(1, 400), served())

    assert(os.remove(dir .. "/part200.lua"))
    part(200)
    assert.equal(0, (gate:reload()))
    local function open_files()
      local count, scan = 0, assert(uv.fs_scandir(("/proc/%d/fd"):format(serving(gate))))
      while uv.fs_scandir_next(scan) do count = count + 1 end
      return count
    end
    local before = open_files()
    for _ = 1, 3 do assert.equal(0, (gate:reload())) end
    support.eventually("the files to be closed", function() return open_files() <= before end)
  end)

  as_root("tells how keys that lie elsewhere are read", function()
    local there, elsewhere = support.temp_dir(), support.temp_dir()
    for _, name in ipairs { "key.pem", "cert.pem" } do
      local file = assert(io.open(elsewhere .. "/" .. name, "w"))
      file:write("-----BEGIN X-----\n"):close()
      assert(uv.fs_chmod(elsewhere .. "/" .. name, tonumber("600", 8)))
    end
    local file = assert(io.open(there .. "/site.lua", "w"))
    file:write(([[return { backends = { a = { "127.0.0.1:9" } },
      listen = { { "127.0.0.1:1", tls = { cert = "%s/cert.pem", key = "%s/key.pem" } } } }]]):format(elsewhere,
      elsewhere)):close()
    local status, _, err = moongate.run { "check", there .. "/site.lua" }
    assert.equal(1, status)
    assert.matches("key.pem: Permission denied for the user it serves as %(%-%-keys DIR has", err)
    status, _, err = moongate.run { "check", "--keys", elsewhere, there .. "/site.lua" }
    assert.equal(1, status)
    assert.not_matches("Permission denied", err)
  end)

  as_root("opens no file for a config that is not a log", function()
    local dir = support.temp_dir()
    assert(uv.fs_chmod(dir, tonumber("700", 8)))
    local gate = moongate.start { ready = false, status = 1, values = { D = dir }, config = [[
      return {
        sites = { { listen = "127.0.0.1:$PORT", backends = { a = { "127.0.0.1:9" } } } },
        log = { access = "$D/passwd" },
      }
    ]] }
    gate:wait()
    local why = "log.access: .*/passwd: Permission denied for the user it serves as %(the supervisor opens what ends in"
    assert.matches(why, gate:log())
    assert.is_nil(uv.fs_lstat(dir .. "/passwd"))
  end)
end)
