-- The command line: what it understands, what it says when it does not, and `check`.

local support = require "support"
local it, process, moongate = support.it, support.process, support.moongate

-- Writes a config into a directory of its own; returns its path.
local function config(text, name)
  local path = support.temp_dir() .. "/" .. (name or "moongate.lua")
  process.write_file(path, text)
  return path
end

local good = [[return { listen = "127.0.0.1:1", backends = { app = { "127.0.0.1:9" } } }]]

describe("the command line", function()
  it("tells version, commit, flags and libraries, a line each", function()
    local status, out, err = moongate.run { "--version" }
    assert.equal(0, status)
    assert.equal("", err)
    assert.matches("^moongate %d+%.%d+%.%d+\n", out)
    assert.matches("\ncommit: [^\n]+\nflags: [^\n]+\n", out)
    for _, name in ipairs {
      "lua", "libev", "c%-ares", "http%-parser", "xxhash", "jansson", "openssl", "nghttp2", "zlib", "brotli", "zstd",
      "pcre2", "libmaxminddb",
    } do
      assert.matches("\n" .. name .. ": %d+%.%d[%w.]*\n", out)
    end
  end)

  it("has help for all and for each command", function()
    local status, out = moongate.run { "--help" }
    assert.equal(0, status)
    for _, command in ipairs { "run", "check", "reload", "stop", "status", "profile", "trace" } do
      assert.matches("\n  " .. command .. " ", out)
      local its_status, its_out, its_err = moongate.run { command, "--help" }
      assert.equal(0, its_status)
      assert.equal("", its_err)
      assert.matches("^usage: moongate " .. command .. " ", its_out)
      assert.same({ 0, its_out, "" }, { moongate.run { "help", command } })
    end
    assert.same({ moongate.run { "cache", "why", "--help" } }, { moongate.run { "help", "cache", "why" } })
    assert.matches("unknown command relaod, did you mean reload", select(3, moongate.run { "help", "relaod" }))
  end)

  it("prints its help to stderr when it is given nothing", function()
    local status, out, err = moongate.run {}
    assert.same({ 2, "" }, { status, out })
    assert.matches("^usage: moongate COMMAND", err)
  end)

  local mistakes = {
    { { "relaod" }, "unknown command relaod, did you mean reload%?" },
    { { "frobnicate" }, "unknown command frobnicate %(" },
    { { "run", "--wokers", "2", "x" }, "unknown option %-%-wokers, did you mean %-%-workers%?" },
    { { "stop", "--workers", "2" }, "unknown option %-%-workers" },
    { { "run", "--workers" }, "%-%-workers needs a value: %-%-workers N" },
    { { "run", "--watch=1", "x" }, "%-%-watch takes no value" },
    { { "run" }, "run needs a FILE" },
    { { "check", "a", "b" }, "check takes one FILE; b is another" },
    { { "--frob" }, "unknown option %-%-frob" },
  }
  for _, mistake in ipairs(mistakes) do
    it("says what is wrong with `" .. table.concat(mistake[1], " ") .. "`", function()
      local status, out, err = moongate.run(mistake[1])
      assert.same({ 2, "" }, { status, out })
      assert.matches("^moongate: " .. mistake[2], err)
    end)
  end

  it("refuses a number of workers that is none", function()
    for _, number in ipairs { "0", "-1", "65", "two", "1.5", "" } do
      local status, _, err = moongate.run { "run", config(good), "--workers", number }
      assert.equal(2, status)
      assert.matches("%-%-workers .*expected a number from 1 to 64", err)
    end
  end)

  it("says that a config does not exist", function()
    for _, command in ipairs { "run", "check" } do
      local status, out, err = moongate.run { command, "/nonexistent/moongate.lua" }
      assert.same({ 1, "" }, { status, out })
      assert.equal("moongate: /nonexistent/moongate.lua: No such file or directory\n", err)
    end
  end)

  it("says that nobody runs", function()
    local socket = support.temp_dir() .. "/control.sock"
    for _, command in ipairs { "reload", "stop", "status" } do
      local status, out, err = moongate.run { command, "--control", socket }
      assert.same({ 1, "" }, { status, out })
      assert.matches("it is not running", err)
      assert.matches(socket, err, 1, true)
    end
  end)
end)

describe("check", function()
  it("prints a summary of a good config, and binds nothing", function()
    local listener = support.net.listen()
    local path = config(([[
      return { sites = { { listen = "%s", backends = { default = { "127.0.0.1:9" }, b = { "127.0.0.1:9" } } } } }
    ]]):format(listener.address))
    local status, out, err = moongate.run { "check", path }
    assert.same({ 0, "" }, { status, err })
    assert.equal(path .. ": ok (1 site, 2 backends, 1 listener)\n", out)
  end)

  it("prints all errors with file, line and path, and fails", function()
    local path = config [[
return {
  workers = "many",
  sites = {
    {
      listen = "127.0.0.1:99999",
      backnds = {},
    },
  },
}]]
    local status, out, err = moongate.run { "check", path }
    assert.same({ 1, "" }, { status, out })
    assert.matches(path .. ":2: workers: ", err, 1, true)
    assert.matches(path .. ":5: sites[1].listen: ", err, 1, true)
    assert.matches(path .. ":6: sites[1].backnds: ", err, 1, true)
    assert.matches('did you mean "backends"', err, 1, true)
  end)

  it("prints a syntax error with its line", function()
    local path = config "local x = 1\nreturn {{{\n"
    local status, out, err = moongate.run { "check", path }
    assert.same({ 1, "" }, { status, out })
    assert.matches("^" .. path:gsub("%p", "%%%0") .. ":%d: ", err)
  end)

  it("names the file as it was said", function()
    local dir = support.temp_dir()
    process.write_file(dir .. "/edge.lua", "return { listen = 'nowhere' }")
    local status, _, err = moongate.run({ "check", "edge.lua" }, { cwd = dir })
    assert.equal(1, status)
    assert.matches("^edge.lua:1: listen: ", err)
  end)

  it("warns of what is allowed but not wise, and succeeds", function()
    local path = config [[
      return {
        listen = "127.0.0.1:1", backends = { app = { "127.0.0.1:9" } }, raw_target = true,
        fail = { on_request = "continue" }, on_request = function() end,
      }
    ]]
    local status, out, err = moongate.run { "check", path }
    assert.equal(0, status)
    assert.matches(": ok ", out)
    assert.matches("raw_target", err)
    assert.matches("fail.on_request", err, 1, true)
  end)

  it("reads a config that only who started it can read", function()
    local path = config(good)
    assert(require "luv".fs_chmod(path, tonumber("600", 8)))
    assert.equal(0, (moongate.run { "check", path }))
  end)
end)

describe("run", function()
  it("prints the errors of a bad config to stderr and ends with 1", function()
    local path = config "return { listen = 'nowhere', workers = 0 }"
    local status, out, err = moongate.run { "run", path, "--control", support.temp_dir() .. "/c.sock" }
    assert.same({ 1, "" }, { status, out })
    assert.matches(path .. ":1: listen: ", err, 1, true)
    assert.matches(path .. ":1: workers: ", err, 1, true)
  end)

  it("names the address that it cannot have", function()
    local other = support.net.listen()
    local path = config(("return { listen = %q, backends = { a = { '127.0.0.1:9' } } }"):format(other.address))
    local status, out, err = moongate.run { "run", path, "--control", support.temp_dir() .. "/c.sock" }
    assert.same({ 1, "" }, { status, out })
    assert.matches("listen: cannot listen on " .. other.address .. ": Address already in use", err, 1, true)
  end)

  it("prints one line when it is ready, with its pid and all addresses", function()
    local gate = moongate.start { config = [[
      return { listen = { "127.0.0.1:$PORT", "127.0.0.1:$PORT2" }, backends = { app = { "127.0.0.1:9" } } }
    ]] }
    gate:stop()
    local values = gate.values
    local line = "moongate: ready, pid %d, listening on 127.0.0.1:%d, 127.0.0.1:%d"
    assert.same({ line:format(gate:pid(), values.PORT, values.PORT2) }, { table.unpack(gate.process.stdout) })
  end)

  it("tells the port that port 0 became", function()
    local gate = moongate.start { config = good:gsub("127.0.0.1:1", "127.0.0.1:0") }
    local port = tonumber(gate.listening:match ":(%d+)$")
    assert.is_true(port > 0)
    support.net.connect(port):close()
  end)

  it("goes to the background with -D, and returns when it is ready", function()
    local dir = support.temp_dir()
    local path, control, pidfile = dir .. "/moongate.lua", dir .. "/c.sock", dir .. "/pid"
    process.write_file(path, (good:gsub("127.0.0.1:1", "127.0.0.1:" .. support.free_port())))
    local status, out = moongate.run { "run", path, "-D", "--pidfile", pidfile, "--control", control }
    assert.equal(0, status)
    local pid = out:match "^moongate: ready, pid (%d+), listening on "
    assert.equal(pid .. "\n", process.read_file(pidfile))
    assert.equal(0, (moongate.run { "stop", "--control", control }))
    assert.is_nil(io.open(pidfile))
    support.eventually("its end", function()
      local file = io.open(("/proc/%s/stat"):format(pid))
      if not file then return true end
      local text = file:read "a"
      file:close()
      return text:find "%) Z " -- nobody reaps orphans where specs run
    end)
  end)

  it("does not start when its pid cannot be written, and leaves nothing", function()
    local dir = support.temp_dir()
    local path, control, pidfile = dir .. "/moongate.lua", dir .. "/c.sock", dir .. "/nowhere/pid"
    local port = support.free_port()
    process.write_file(path, (good:gsub("127.0.0.1:1", "127.0.0.1:" .. port)))
    for _, how in ipairs { {}, { "-D" } } do
      local command = { "run", path, "--pidfile", pidfile, "--control", control, table.unpack(how) }
      local status, out, err = moongate.run(command)
      assert.same({ 1, "" }, { status, out })
      assert.truthy(err:find(("moongate: --pidfile %s: No such file or directory\n"):format(pidfile), 1, true), err)
      assert.is_nil((support.net.try_connect(port)))
      assert.is_nil(io.open(control))
    end
  end)

  it("fails in the foreground when -D cannot become ready", function()
    local path = config "return { listen = 'nowhere' }"
    local status, out, err = moongate.run { "run", path, "-D", "--control", support.temp_dir() .. "/c.sock" }
    assert.same({ 1, "" }, { status, out })
    assert.matches("listen: ", err)
  end)

  it("is refused a control socket that another one answers on", function()
    local gate = moongate.start { config = good:gsub("127.0.0.1:1", "127.0.0.1:$PORT") }
    local status, _, err = moongate.run { "run", gate.config, "--control", gate.control }
    assert.equal(1, status)
    assert.matches("is in use: is it running already?", err, 1, true)
    assert.equal(0, (gate:command "status"))
  end)
end)
