-- `moongate profile`: in which lines of its scripts a running proxy spends its time.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

-- ThreadSanitizer's build has no timers for scripts.
local timers = os.getenv "MOONGATE_PRESET" ~= "tsan"

local config = [[
local gate = require "moongate"
local function cold(n) return n + 1 end
local function hot(n)
  local sum = 0
  for i = 1, n do
    sum = sum + cold(i) % 7
  end
  return sum
end
local text = ("x"):rep(1000000)
local site = { listen = "127.0.0.1:$PORT" }
function site.on_request(req)
  if req.path == "/c" then
    local digest = gate.hash(text)
    return 204
  end
  if req.path == "/idle" then return 204 end
  hot(20000)
  return 200
end
if "$EVERY" == "yes" then gate.every(0.01, function() hot(60000) end) end
return site
]]

local function start(every, workers)
  return moongate.start { config = config, values = { EVERY = every and "yes" or "no" }, workers = workers }
end

-- Profiles while `ask` sends requests.
local function profile(gate, arguments, ask)
  local status, out, err
  local task = support.spawn(function()
    status, out, err = moongate.run { "profile", "--control", gate.control, table.unpack(arguments) }
  end)
  while ask and not status do ask() end
  task:join()
  return status, out, err
end

local function lines_of(out)
  local lines = {}
  for stack, count in out:gmatch "([^\n]+) (%d+)\n" do
    lines[#lines + 1] = { stack = stack, count = tonumber(count) }
  end
  return lines
end

local function asker(gate, path)
  local conn = net.connect(gate.port)
  return function() http.get(gate.port, path, { conn = conn }) end
end

describe("moongate profile", function()
  if not timers then
    it("says that this build cannot", function()
      local status, out, err = profile(start(), { "--seconds", "1" })
      assert.equal("moongate: profile: this build has no timers that could take samples\n", err)
      assert.same({ 1, "" }, { status, out })
    end)
    return
  end

  it("shows a hot function first, with its site, its hook and the way to its line", function()
    local gate = start()
    local status, out, err = profile(gate, { "--seconds", "1" }, asker(gate, "/"))
    assert.equal(0, status)
    local first = lines_of(out)[1]
    assert.truthy(first, err)
    assert.matches("^127%.0%.0%.1:%d+;on_request;", first.stack)
    assert.matches(";[^;]*moongate.lua:function@12:18;[^;]*moongate.lua:hot:[567]", first.stack)
    assert.matches("^moongate: %d+ samples, %d+ in scripts %(%d+%.%d %%%)\n$", err)
  end)

  it("tells the time of C to the line that called it", function()
    local gate = start()
    local _, out = profile(gate, { "--seconds", "1", "--hz", "900" }, asker(gate, "/c"))
    local found
    for _, line in ipairs(lines_of(out)) do
      if line.stack:find "moongate.lua:function@12:14;%[C%]:gate.hash$" then found = line.count end
      assert.falsy(line.stack:find "moongate.lua:function@12:15;%[C%]", line.stack)
    end
    assert.truthy(found, out)
  end)

  it("counts tasks apart, and what is no script as the core's", function()
    local gate = start(true)
    local _, out = profile(gate, { "--seconds", "1", "--hz", "900" }, asker(gate, "/idle"))
    assert.matches(";%(task%);[^;]*moongate.lua:function@21:21;[^;]*moongate.lua:hot:", out)
    assert.matches("\n%(core%) %d+\n$", "\n" .. out)
  end)

  it("sums the workers, the most frequent stack first", function()
    local gate = start(false, 4)
    local asks = {}
    for i = 1, 8 do asks[i] = asker(gate, "/") end
    local at = 0
    local _, out = profile(gate, { "--seconds", "1", "--hz", "900" }, function()
      at = at % #asks + 1
      asks[at]()
    end)
    local lines, seen = lines_of(out), {}
    for i, line in ipairs(lines) do
      assert.falsy(seen[line.stack], line.stack)
      seen[line.stack] = true
      if i > 1 and line.stack ~= "(core)" then assert.truthy(lines[i - 1].count >= line.count, out) end
    end
  end)

  it("leaves budgets as they are: a hook that loops is ended while it is sampled", function()
    local gate = moongate.start { config = [[
      return { listen = "127.0.0.1:$PORT", on_request = function(req)
        if req.path == "/loop" then
          local wrapped = coroutine.wrap(function()
            while true do pcall(function() local x = ("x"):rep(100) end) end
          end)
          wrapped()
        end
        return 204
      end }
    ]] }
    local answers = {}
    local status = profile(gate, { "--seconds", "1", "--hz", "1000" }, function()
      answers[#answers + 1] = http.get(gate.port, "/loop").status
    end)
    assert.equal(0, status)
    for _, answer in ipairs(answers) do assert.equal(500, answer) end
    assert.equal(204, http.get(gate.port, "/").status)
  end)

  it("ends when the one who asked leaves, and when the proxy stops", function()
    local gate = start()
    local onlooker = net.connect(gate.control)
    onlooker:send "profile 60 199\n"
    onlooker:read_until "0\n"
    local status, _, err = profile(gate, { "--seconds", "1" })
    assert.same({ 1, "moongate: profile: somebody else does already: one at a time\n" }, { status, err })
    onlooker:close()
    support.eventually("a profile of our own", function() return profile(gate, { "--seconds", "1" }) == 0 end)
    onlooker = net.connect(gate.control)
    onlooker:send "profile 60 199\n"
    onlooker:read_until "0\n"
    gate:stop()
    onlooker:expect_eof()
  end)

  it("says what it does not take", function()
    local status, _, err = profile(start(), { "--hz", "5000" })
    assert.equal("moongate: profile: expected 1 to 3600 seconds, 2 to 1000 samples a second\n", err)
    assert.equal(2, status)
    status, _, err = profile(start(), { "--seconds", "many" })
    assert.same({ 2, "moongate: --seconds many: expected a whole number\n" }, { status, err })
  end)
end)
