-- The access log: what a line looks like, whatever a stranger puts into it, and that none is lost.
-- luacheck: no max line length (lines are shown as they are printed)

local uv = require "luv"
local server = require "moongate_core.server"
local support = require "support"
local it = support.it

local wall = 1795428672.25 -- 2026-11-23T10:11:12.250Z

local function record(fields)
  local all = {
    client_ip = "192.0.2.7", id = "0123456789abcdef", method = "GET", target = "/a?b=c", version = "HTTP/1.1", host = "example.com",
    referer = "http://example.org/", user_agent = "curl/8.0", site = "example.com", backend = "app", server = "127.0.0.1:9001",
    source = "backend", word = "ok", status = 200, bytes_in = 0, bytes_out = 1234, wall = wall, seconds = 0.0015, first_byte = 0.001, tries = 1,
  }
  for name, value in pairs(fields or {}) do all[name] = value or nil end
  return all
end

-- What is written for these records.
local function write(format, ...)
  local path = support.temp_dir() .. "/access.log"
  local log = server.access_log(path, format)
  for _, fields in ipairs { ... } do log:write(record(fields)) end
  log:close()
  return support.process.read_file(path)
end

describe("a combined line", function()
  it("is what log analysers read", function()
    local stamp = os.date("%d/%b/%Y:%H:%M:%S %z", math.floor(wall))
    assert.equal(('192.0.2.7 - - [%s] "GET /a?b=c HTTP/1.1" 200 1234 "http://example.org/" "curl/8.0"\n'):format(stamp), write("combined", {}))
  end)

  it("has dashes for what there is not", function()
    local line = write("combined", { method = false, target = false, version = false, referer = false, user_agent = false, status = 400, bytes_out = 0 })
    assert.truthy(line:find('] "-" 400 0 "-" "-"\n', 1, true))
  end)

  it("cannot be ended, split or forged by a client", function()
    local line = write("combined", { target = '/"\\\n\r\t\0\127\255é', user_agent = '" 200 0 "x" "y"\n1.2.3.4 - - [' })
    assert.truthy(line:find([["GET /\"\\\x0a\x0d\x09\x00\x7f\xff\xc3\xa9 HTTP/1.1"]], 1, true))
    assert.truthy(line:find([["\" 200 0 \"x\" \"y\"\x0a1.2.3.4 - - ["]], 1, true))
    assert.equal(1, select(2, line:gsub("\n", "")))
  end)

  it("is bounded", function()
    local line = write("combined", { target = ("\1"):rep(100000) })
    assert.equal(16384, select(2, line:gsub("\\x01", "")))
  end)
end)

describe("a JSON line", function()
  it("has every field, null where there is nothing", function()
    assert.equal('{"time":"2026-11-23T10:11:12.250Z","id":"0123456789abcdef","client":"192.0.2.7","method":"GET","host":"example.com","target":"/a?b=c",'
      .. '"version":"HTTP/1.1","status":200,"bytes_in":0,"bytes_out":1234,"seconds":0.001500,"first_byte":0.001000,"referer":"http://example.org/",'
      .. '"user_agent":"curl/8.0","site":"example.com","source":"backend","backend":"app","server":"127.0.0.1:9001","tries":1,"cache":null,"cache_rule":null,"error":null}\n',
      write("json", {}))
    local line = write("json", { method = false, backend = false, server = false, first_byte = -1, word = "no_server", status = 503 })
    assert.truthy(line:find('"method":null', 1, true))
    assert.truthy(line:find('"first_byte":null', 1, true))
    assert.truthy(line:find('"backend":null,"server":null', 1, true))
    assert.truthy(line:find('"error":"no_server"}', 1, true))
  end)

  it("is valid JSON whatever the bytes", function()
    local cases = {
      ['"'] = [[\"]], ["\\"] = [[\\]], ["\n"] = [[\u000a]], ["\0"] = [[\u0000]], ["\127"] = [[\u007f]], ["é€😀"] = "é€😀",
      ["\255"] = [[\ufffd]], ["\xc3"] = [[\ufffd]], ["\xc0\xaf"] = [[\ufffd\ufffd]], ["\xe0\x80\x80"] = [[\ufffd\ufffd\ufffd]],
      ["\xed\xa0\x80"] = [[\ufffd\ufffd\ufffd]], ["\xf5\x80\x80\x80"] = [[\ufffd\ufffd\ufffd\ufffd]], ["\xf0\x9f\x98"] = [[\ufffd\ufffd\ufffd]],
      ["\x80a"] = [[\ufffda]],
    }
    for given, expected in pairs(cases) do
      assert.truthy(write("json", { target = given }):find('"target":"' .. expected .. '"', 1, true), expected)
    end
  end)
end)

describe("the access log", function()
  it("is written within a second without another request", function()
    local path = support.temp_dir() .. "/access.log"
    local log = server.access_log(path)
    log:write(record())
    local began = uv.hrtime()
    while support.process.read_file(path) == "" and uv.hrtime() - began < 5e9 do log:run(0.05) end
    assert.equal(1, select(2, support.process.read_file(path):gsub("\n", "")))
    assert.is_true(uv.hrtime() - began < 2e9)
    log:close()
  end)

  it("loses no line at a stop, and keeps their order", function()
    local path = support.temp_dir() .. "/access.log"
    local log = server.access_log(path)
    for i = 1, 4000 do log:write(record { target = "/" .. i }) end
    log:close()
    local i = 0
    for target in support.process.read_file(path):gmatch '"GET (%S+) HTTP' do
      i = i + 1
      assert.equal("/" .. i, target)
    end
    assert.equal(4000, i)
  end)

  it("goes on in the new file when it is reopened", function()
    local dir = support.temp_dir()
    local log = server.access_log(dir .. "/access.log")
    log:write(record { target = "/before" })
    log:run(1.2)
    assert(os.rename(dir .. "/access.log", dir .. "/access.log.1"))
    log:reopen(dir .. "/access.log")
    log:write(record { target = "/after" })
    log:close()
    assert.truthy(support.process.read_file(dir .. "/access.log.1"):find("/before", 1, true))
    assert.is_nil(support.process.read_file(dir .. "/access.log.1"):find("/after", 1, true))
    assert.truthy(support.process.read_file(dir .. "/access.log"):find("/after", 1, true))
  end)

  it("counts the lines that it could not write", function()
    local dropped = server.count_dropped(function()
      local log = server.access_log "/dev/full"
      for _ = 1, 7 do log:write(record()) end
      log:close()
    end)
    assert.equal(7, dropped)
  end)

  it("sends lines to syslog as datagrams that name us", function()
    local path = support.temp_dir() .. "/log"
    local socket = server.datagram_socket(path)
    local log = server.access_log(path, "combined", true)
    log:write(record())
    log:write(record { target = "/" .. ("x"):rep(9000) })
    log:close()
    local first, second = socket:receive(), socket:receive()
    assert.truthy(first:find '^<30>%u%l%l [ %d]%d %d%d:%d%d:%d%d moongate%[%d+%]: 192%.0%.2%.7 .* "curl/8%.0"$')
    assert.equal(8192, #second)
    assert.is_nil(socket:receive())
  end)
end)

describe("the access log of a proxy", function()
  local http, moongate = support.http, support.moongate

  local function start(format)
    return moongate.start { values = { BACKEND = http.backend "hello", FORMAT = format }, config = [[
      return {
        sites = { { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } }, trusted_proxies = { "127.0.0.1" } } },
        log = { access = "$DIR/access.log", access_format = "$FORMAT" },
      }
    ]] }
  end

  it("has a line for every request when it has stopped, those at the last moment, too", function()
    local gate = start "combined"
    for i = 1, 200 do http.get(gate.port, "/" .. i) end
    gate:stop()
    local seen = {}
    for target, status, bytes in support.process.read_file(gate.dir .. "/access.log"):gmatch '"GET (%S+) HTTP/1.1" (%d+) (%d+) "%-" "%-"\n' do
      assert.same({ "200", "5" }, { status, bytes })
      seen[target] = true
    end
    for i = 1, 200 do assert.is_true(seen["/" .. i], "no line of request " .. i) end
  end)

  local function reopen(gate)
    local mark = gate:log_mark()
    gate:signal "usr1"
    gate:wait_log("logs are reopened", { from = mark })
  end

  it("goes on in a new file after SIGUSR1", function()
    local gate = start "combined"
    http.get(gate.port, "/before")
    assert(os.rename(gate.dir .. "/access.log", gate.dir .. "/old.log"))
    reopen(gate)
    http.get(gate.port, "/after")
    gate:stop()
    assert.truthy(support.process.read_file(gate.dir .. "/access.log"):find("/after", 1, true))
    assert.is_nil(support.process.read_file(gate.dir .. "/old.log"):find("/after", 1, true))
  end)

  it("has in the old file all that was answered before SIGUSR1", function()
    local gate = start "combined"
    for round = 1, 3 do
      local old = ("%s/old.%d"):format(gate.dir, round)
      for i = 1, 20 do http.get(gate.port, ("/%d/%d"):format(round, i)) end
      assert(os.rename(gate.dir .. "/access.log", old))
      reopen(gate)
      local lines = support.process.read_file(old)
      for i = 1, 20 do assert.truthy(lines:find((" /%d/%d "):format(round, i), 1, true), lines) end
    end
  end)

  it("tells in JSON who asked for what, and who answered", function()
    local gate = start "json"
    http.get(gate.port, "/x?y", { headers = { ["X-Forwarded-For"] = "198.51.100.9", ["User-Agent"] = 'a "b"' } })
    gate:stop()
    local line = support.process.read_file(gate.dir .. "/access.log")
    for _, part in ipairs {
      '"client":"198.51.100.9"', '"method":"GET"', '"target":"/x?y"', '"status":200', '"bytes_out":5', '"user_agent":"a \\"b\\""',
      '"source":"backend"', '"backend":"app"', ('"server":%q'):format(gate.values.BACKEND.address), '"tries":1', '"error":null',
    } do
      assert.truthy(line:find(part, 1, true), part .. " in " .. line)
    end
  end)
end)
