-- luacheck: no max line length (scripts and messages stand in one line)
local engine = require "core.lua.engine"

-- What a call may take: its 10 ms, a tick of the kernel's, and more where a sanitizer or a slow machine has its share.
local patience = 0.25

describe("the CPU budget", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  local function killed(body, options)
    local state = engine.open(([[
      local gate = require "moongate"
      return { on_request = function(req) %s end, on_response = 202 }
    ]]):format(body), options)
    local took = engine.cpu(function() assert.equal("failed", engine.answer(state, "on_request")) end)
    assert.is_true(took < patience, ("%.0f ms"):format(took * 1000))
    assert.matches("over its CPU budget %(%d+ ms%)", engine.log())
    assert.equal("reply 202", engine.answer(state, "on_response"))
    return took
  end

  it("ends a loop without end", function()
    killed "while true do end"
    killed "repeat until false"
    killed "for i = 1, math.huge do end"
    killed "::a:: goto a"
  end)

  it("cannot be caught", function()
    killed "while true do pcall(error) end"
    killed "pcall(function() while true do end end) while true do end"
    killed "while true do pcall(function() while true do end end) end"
    killed "xpcall(function() while true do end end, function() while true do end end)"
    killed "local function f() xpcall(f, f) end while true do f() end"
  end)

  it("reaches into coroutines", function()
    if engine.few_errors then return pending "too many yields" end
    killed "coroutine.wrap(function() while true do end end)()"
    killed "while true do coroutine.resume(coroutine.create(function() while true do end end)) end"
    killed "while true do coroutine.wrap(function() coroutine.yield() end)() end"
    killed "local function f(n) if n == 0 then while true do end end coroutine.resume(coroutine.create(f), n - 1) while true do end end f(50)"
    killed "gate.all(function() gate.sleep(0) while true do end end, function() gate.sleep(5) end)"
    killed "while true do gate.all(function() end, function() end) end"
  end)

  it("reaches into metamethods and callbacks", function()
    killed "local t = setmetatable({}, { __index = function(t, k) while true do end end }) return t.x"
    killed "table.sort({ 1, 2, 3 }, function() while true do end end)"
    killed "(('x'):rep(100)):gsub('x', function() while true do end end)"
    killed "local c <close> = setmetatable({}, { __close = function() while true do end end })"
    killed "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) while true do pcall(function() return t[1] end) end"
  end)

  it("reaches into C functions that loop", function()
    killed "('a'):rep(100000):find(('a*'):rep(50) .. 'b')"
    killed "while true do ('x'):rep(100000) end"
    killed "('a'):rep(30000):gsub('(.-)(.-)(.-)b', '')"
    killed "('a'):rep(1000000):match '^(.*)%1b'"
    for _, call in ipairs { "find(P)", "match(P)", "gmatch(P)()", "gsub(P, '')" } do -- cubic: minutes for 900 bytes
      killed(("local P = '.-.-.-b$' local s = ('a'):rep(900) return s:%s"):format(call))
    end
    killed "for _ = 1, 1000 do ('a'):rep(1000000):match '.-b' end"
    killed "for m in ('a'):rep(1000000):gmatch '.-b' do end while true do end"
    killed "local t = setmetatable({}, { __len = function() return 1 << 50 end, __index = function() return '' end }) table.concat(t)"
    killed "local t = setmetatable({}, { __len = function() return 1 << 50 end }) table.insert(t, 1, 1)"
    killed "local t = setmetatable({}, { __len = function() return 1 << 50 end }) table.remove(t, 1)"
    killed "table.move({}, 1, 1 << 50, 2)"
    killed "table.sort(setmetatable({}, { __len = function() return 1 << 30 end, __index = function() return 1 end, __newindex = function() end }))"
    killed "local t = setmetatable({}, { __len = function() return 100 end }) t.__index = table.concat setmetatable(t, t) while true do pcall(table.concat, t) end"
  end)

  it("reaches into what allocates", function()
    killed "local s = 'x' while true do s = 'x' .. #s end"
    killed "while true do local t = {} end"
    killed "while true do local f = function() return f end end"
  end)

  it("counts what is used before and after a wait", function()
    killed "for i = 1, 1000 do gate.sleep(0) for j = 1, 300000 do end end"
  end)

  it("does not count time that others use, nor waiting", function()
    local state = engine.open [[
      local gate = require "moongate"
      return { on_request = function() for i = 1, 20 do gate.sleep(0.002) end return 200 end }
    ]]
    assert.equal("reply 200", engine.answer(state, "on_request"))
  end)

  it("is for each stretch between two waits where nobody's request waits", function()
    local state = engine.open([[
      local gate = require "moongate"
      return { on_request = function()
        gate.spawn(function()
          for i = 1, 30 do
            local from = os.clock()
            repeat until os.clock() - from > 0.002
            gate.sleep(0)
          end
          print "done"
          while true do end
        end)
      end }
    ]], { hook_cpu = 0.04 })
    state:call "on_request"
    local log = ""
    for _ = 1, 100 do -- 60 ms of CPU, however busy the machine is
      state:wait(0.1)
      log = log .. engine.log()
      if log:find "a spawned task of %S+ failed" then break end
    end
    assert.matches("done", log)
    assert.matches("a spawned task of %S+ failed: .*over its CPU budget", log)
  end)

  it("is never less than it says", function()
    local state = engine.open [[
      return { on_request = function() local from = os.clock() repeat local x = 0 for i = 1, 1000 do x = x + i end until os.clock() - from > 0.007 return 200 end }
    ]]
    for _ = 1, 20 do assert.equal("reply 200", engine.answer(state, "on_request")) end
  end)

  it("names the place where it ended", function()
    killed "local x = 1\nlocal y = 2\nwhile true do x = y end"
    local state = engine.open "return { on_request = function()\n while true do end\n end }"
    engine.answer(state, "on_request")
    assert.matches("config.lua:2: over its CPU budget %(10 ms%)", engine.log())
  end)

  it("can be set", function()
    local state = engine.open([[
      return { on_request = function() local from = os.clock() repeat until os.clock() - from > 0.03 return 200 end }
    ]], { hook_cpu = 0.5 })
    assert.equal("reply 200", engine.answer(state, "on_request"))
  end)

  it("leaves no trace in a coroutine that lives on", function()
    if engine.few_errors then return pending "too many yields" end
    local state = engine.open [[
      local gate = require "moongate"
      local co = coroutine.wrap(function() while true do for i = 1, 100 do coroutine.yield(i) end end end)
      return {
        on_request = function() while true do co() end end,
        on_response = function() local n for i = 1, 1000 do n = co() end return gate.reply(200, type(n)) end,
      }
    ]]
    for _ = 1, 5 do
      assert.equal("failed", engine.answer(state, "on_request"))
      local answer = engine.answer(state, "on_response")
      assert.is_true(answer == "reply 200 number" or answer == "failed", answer) -- it may have died in the middle
    end
  end)

  it("bounds the loading of a file", function()
    local took = engine.cpu(function()
      local state, errors = engine.load("local x\nwhile true do x = 1 end", { load_cpu = 0.05 })
      assert.is_nil(state)
      assert.matches("config.lua:2: over its CPU budget %(50 ms%)", errors)
    end)
    assert.is_true(took < 0.05 + patience)
    if engine.few_errors then return end
    local _, errors = engine.load("while true do pcall(string.rep, 'x', 1e6) end", { load_cpu = 0.05 })
    assert.matches("over its CPU budget", errors)
    _, errors = engine.load("local s = ('a'):rep(1e6) while true do pcall(string.find, s, '.-.-.-b') end", { load_cpu = 0.05 })
    assert.matches("over its CPU budget", errors)
  end)
end)

describe("the time limit", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("ends a hook that waits for longer, and tells where it waits", function()
    local state = engine.open([[
      local gate = require "moongate"
      local function nap()
        local c <close> = setmetatable({}, { __close = function() print "closed" end })
        gate.sleep(60)
      end
      return { on_request = function() nap() end, on_response = function() gate.sleep(0.1) return 202 end }
    ]], { hook_time = 0.4 })
    local call, verdict = state:begin "on_request", nil
    for _ = 1, 300 do
      state:wait(0.02)
      verdict = call:go()
      if verdict ~= "wait" then break end
    end
    assert.equal("failed", verdict)
    local log = engine.log()
    assert.matches("longer than its 0.4 s, waits included", log)
    assert.matches("in upvalue 'nap'", log)
    assert.matches("closed", log)
    assert.equal("reply 202", engine.answer(state, "on_response"))
  end)
end)

describe("the memory limit", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("is an error of the script that passes it, and of no other", function()
    local state = engine.open([[
      local gate = require "moongate"
      local kept = {}
      return {
        on_request = function() local t = {} for i = 1, 1e7 do t[i] = ("x"):rep(1000) .. i end end,
        on_response = 202,
      }
    ]], { memory = 4 << 20, hook_cpu = 5 })
    assert.equal("failed", engine.answer(state, "on_request"))
    assert.matches("config.lua:%d+: not enough memory", engine.log())
    assert.equal("reply 202", engine.answer(state, "on_response"))
    for _ = 1, 3 do assert.equal("failed", engine.answer(state, "on_request")) end
    state:collect()
    assert.is_true(state:figures().bytes < 1 << 20)
  end)

  it("leaves a share to the other hooks", function()
    local state = engine.open([[
      local gate = require "moongate"
      local kept = {}
      return {
        on_request = function()
          for _ = 1, 30 do
            for i = 1, 100 do kept[#kept + 1] = ("x"):rep(500) .. i end
            gate.sleep(0)
          end
        end,
        on_response = 202,
      }
    ]], { memory = 8 << 20, hook_memory = 1 << 20, hook_cpu = 5 })
    local call = state:begin "on_request"
    local verdict = call:verdict()
    for _ = 1, 200 do
      if verdict ~= "wait" then break end
      state:wait(0.01)
      verdict = call:go()
    end
    assert.equal("failed", verdict)
    assert.matches("not enough memory: it has added more than its share", engine.log())
    assert.is_true(state:figures().bytes < 3 << 20)
    assert.equal("reply 202", engine.answer(state, "on_response"))
  end)

  it("can be caught, and the state works on", function()
    assert.equal("false|true", engine.run("local ok = pcall(function() local s = 'x' while true do s = s .. s end end) local t = {} for i = 1, 100 do t[i] = i end return ok, #t == 100", { memory = 4 << 20, hook_cpu = 5 }))
  end)

  it("bounds a single string to half of it", function()
    assert.matches("resulting string too large", engine.run "return #('x'):rep(1e9)")
    assert.matches("resulting string too large", engine.run "return #('x'):rep(1 << 62, 'yy')")
    assert.equal("4000000", engine.run("return #('x'):rep(4e6)", { hook_cpu = 5 }))
    assert.matches("memory", engine.run("local s = ('x'):rep(1e6) return #(s .. s .. s)", { memory = 4 << 20, hook_cpu = 5 }))
  end)

  it("holds while the file is loaded", function()
    local _, errors = engine.load("local t = {} while true do t[#t + 1] = ('x'):rep(10000) .. #t end", { memory = 4 << 20 })
    assert.matches("not enough memory", errors)
  end)

  it("does not refuse what C makes between scripts, and tells the worker when a state is over it for good", function()
    local state = engine.open([[
      local gate = require "moongate"
      local t = {}
      return {
        on_load = function() while collectgarbage "count" < 3900 do t[#t + 1] = {} end end,
        on_request = function(req) gate.sleep(10) end,
      }
    ]], { memory = 4 << 20, hook_cpu = 5 })
    assert.is_false(state:figures().over_limit)
    local calls = {}
    for i = 1, 1000 do calls[i] = state:begin "on_request" end
    assert.equal("wait", calls[1]:verdict()) -- the later ones are refused memory
    assert.is_true(state:figures().bytes > 4 << 20)
    for _ = 1, 300 do state:turn() end
    assert.is_true(state:figures().over_limit)
  end)
end)

describe("the collector", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("keeps a state small between turns", function()
    local state = engine.open "return { on_request = function(req) local t = {} for i = 1, 100 do t[i] = { i } end return 200 end }"
    for _ = 1, 3000 do
      state:call "on_request"
      state:turn()
    end
    assert.is_true(state:figures().bytes < 8 << 20, state:figures().bytes)
  end)

  it("counts only, for scripts", function()
    assert.equal("float", engine.run "return math.type(collectgarbage 'count')")
    assert.matches('only "count" is allowed', engine.run "collectgarbage()")
    assert.matches('only "count" is allowed', engine.run "collectgarbage 'step'")
  end)
end)
