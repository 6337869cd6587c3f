-- luacheck: no max line length (scripts and messages stand in one line)
local engine = require "core.lua.engine"

describe("a wait", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("stops the hook and lets it go on where it was", function()
    local state = engine.script "local before = gate.clock(); gate.sleep(0.01); return gate.clock() - before >= 0.0099"
    local call = state:begin "on_request"
    assert.equal("wait", call:verdict())
    assert.equal(1, state:figures().waiting)
    assert.equal("true", call:finish().body)
    assert.equal(0, state:figures().waiting)
  end)

  it("says how long it may be", function()
    assert.matches("expected seconds from 0 to 86400, or a text like \"500ms\"", engine.run "gate.sleep(-1)", 1, true)
  end)

  it("is not ended by a wake for another reason", function()
    local call = engine.script("gate.sleep(0.02) return 'done'"):begin "on_request"
    for _ = 1, 5 do assert.equal("wait", call:go()) end
    assert.equal("done", call:finish().body)
  end)

  it("blocks nobody", function()
    local state = engine.open [[
      local gate = require "moongate"
      return { on_request = function() gate.sleep(0.02) return 201 end, on_response = 202 }
    ]]
    local calls = {}
    for i = 1, 50 do calls[i] = state:begin "on_request" end
    assert.equal("reply 202", engine.answer(state, "on_response"))
    assert.equal(50, state:figures().runs)
    local before = os.time()
    for i = 1, 50 do assert.equal(201, calls[i]:finish().status) end
    assert.is_true(os.time() - before < 2)
    assert.equal(0, state:figures().runs)
  end)

  describe("passes through", function()
    local function passes(body, expected)
      assert.equal(expected, engine.run(body))
    end

    it("pcall and xpcall", function()
      passes("return pcall(function() gate.sleep(0) error('x', 0) end)", "false|x")
      passes("return xpcall(function(a) gate.sleep(0) return a end, print, 7)", "true|7")
    end)

    it("metamethods and iterators", function()
      passes("return setmetatable({}, { __index = function(_, k) gate.sleep(0) return k end }).name", "name")
      passes("return setmetatable({}, { __concat = function() gate.sleep(0) return 'c' end }) .. 'x'", "c")
      passes("local n = 0 for i in function(_, i) gate.sleep(0) i = (i or 0) + 1 return i < 4 and i or nil end do n = n + i end return n", "6")
    end)

    it("a <close> variable that goes out of scope", function()
      passes([[
        local said = "no"
        do local c <close> = setmetatable({}, { __close = function() gate.sleep(0) said = "yes" end }) end
        return said]], "yes")
    end)

    it("the script's own coroutines, at any depth", function()
      passes([[
        local function generator(n)
          return coroutine.wrap(function() for i = 1, n do gate.sleep(0) coroutine.yield(i) gate.sleep(0) end end)
        end
        local sum = 0
        local outer = coroutine.wrap(function() for i in generator(3) do coroutine.yield(i * 10) gate.sleep(0) end end)
        for i in outer do sum = sum + i end
        return sum]], "60")
    end)

    it("coroutine.resume, with values either way", function()
      passes([[
        local co = coroutine.create(function(a) gate.sleep(0) local b = coroutine.yield(a + 1) gate.sleep(0) error("e" .. b, 0) end)
        local one, two = coroutine.resume(co, 1)
        local three, four = coroutine.resume(co, 5)
        return one, two, three, four, coroutine.status(co)]], "true|2|false|e5|dead")
    end)

    it("many of them", function()
      passes([[
        local function nest(n) if n == 0 then gate.sleep(0) return 1 end return coroutine.wrap(function() return nest(n - 1) + 1 end)() end
        return nest(60)]], "61")
    end)
  end)

  describe("cannot be", function()
    local function refuses(what, body) assert.is_truthy(engine.run(body):find("cannot wait inside " .. what, 1, true), engine.run(body)) end

    it("inside a C function's callback, which it names", function()
      refuses("table.sort", "table.sort({ 2, 1 }, function(a, b) gate.sleep(0) return a < b end)")
      refuses("string.gsub", "return (('x'):gsub('x', function() gate.sleep(0) end))")
      refuses("tostring", "return tostring(setmetatable({}, { __tostring = function() gate.sleep(0) return '' end }))")
      refuses("table.concat", "return table.concat(setmetatable({}, { __index = function() gate.sleep(0) end, __len = function() return 1 end }))")
      refuses("load", "return load(function() gate.sleep(0) end)")
      refuses("table.sort", "table.sort({ 2, 1 }, function(a, b) return pcall(function() gate.all(function() end) end) or error(select(2, pcall(gate.sleep, 0)), 0) end)")
    end)

    it("inside one further out, through a coroutine", function()
      refuses("table.sort", "table.sort({ 2, 1 }, function(a, b) coroutine.wrap(function() gate.sleep(0) end)() end)")
    end)

    it("in a handler of a coroutine that is being closed", function()
      refuses("a <close> handler", [[
        local co = coroutine.create(function() local c <close> = setmetatable({}, { __close = function() gate.sleep(0) end }) coroutine.yield() end)
        coroutine.resume(co)
        return select(2, coroutine.close(co))]])
    end)

    it("while the file is loaded", function()
      local _, errors = engine.load "require 'moongate'.sleep(0)"
      assert.matches("config.lua:1: cannot wait while the file is loaded", errors)
    end)
  end)

  it("makes a coroutine neither resumable nor closable", function()
    local state = engine.open [[
      local gate = require "moongate"
      local co = coroutine.create(function() gate.sleep(0.05) return "woken" end)
      return {
        on_request = function() return gate.reply(200, (select(2, coroutine.resume(co)))) end,
        on_response = function()
          return gate.reply(200, table.concat({ coroutine.status(co), tostring(select(2, coroutine.resume(co))), tostring(select(2, pcall(coroutine.close, co))) }, "|"))
        end,
      }
    ]]
    local call = state:begin "on_request"
    assert.equal("normal|cannot resume non-suspended coroutine|cannot close a normal coroutine", state:call("on_response").body)
    assert.equal("woken", call:finish().body)
    assert.matches("^dead|cannot resume dead coroutine", state:call("on_response").body)
  end)

  describe("that is cancelled", function()
    local function cancelled(body)
      local state = engine.open(([[
        local gate = require "moongate"
        local said = {}
        local function closer(name, f) return setmetatable({}, { __close = function() if f then f() end said[#said + 1] = name end }) end
        return {
          on_request = function() %s end,
          on_log = function() end,
          on_error = function() return gate.reply(200, table.concat(said, " ")) end,
        }
      ]]):format(body))
      local call = state:begin "on_request"
      assert.equal("wait", call:verdict())
      call:cancel()
      assert.equal(0, state:figures().runs)
      assert.equal(0, state:figures().waiting)
      return state:call("on_error").body, state, call
    end

    it("runs <close> handlers, innermost coroutine first", function()
      assert.equal("inner middle outer", (cancelled [[
        local a <close> = closer "outer"
        coroutine.wrap(function()
          local b <close> = closer "middle"
          coroutine.wrap(function() local c <close> = closer "inner" gate.sleep(10) end)()
        end)()
      ]]))
    end)

    it("closes the functions of gate.all too", function()
      assert.equal("one two outer", (cancelled [[
        local a <close> = closer "outer"
        gate.all(function() local c <close> = closer "one" gate.sleep(10) end, function() local c <close> = closer "two" gate.sleep(10) end)
      ]]))
    end)

    it("does not let handlers wait", function()
      assert.equal("after", (cancelled [[
        local a <close> = closer "after"
        local b <close> = closer("never", function() gate.sleep(0) end)
        gate.sleep(10)
      ]]))
      assert.matches("a <close> handler failed: .*cannot wait in a <close> handler", engine.log())
    end)

    it("gives its handlers a little time together, not more", function()
      local took = engine.cpu(function()
        assert.equal("", (cancelled [[
          local a <close> = closer "outer"
          local b <close> = closer("never", function() while true do end end)
          gate.sleep(10)
        ]]))
      end)
      assert.is_true(took < 0.5)
      assert.matches("over its CPU budget %(1 ms%)", engine.log())
    end)

    it("runs on in a coroutine of the pool as if nothing had been", function()
      local _, state = cancelled "gate.sleep(10)"
      for _ = 1, 3 do
        local call = state:begin "on_request"
        assert.equal("wait", call:verdict())
        call:cancel()
        call:cancel()
      end
    end)
  end)

  describe("gate.all", function()
    it("runs functions side by side and returns the first result of each", function()
      assert.equal("1|nil|3|4", engine.run [[
        local before = gate.clock()
        local a, b, c = gate.all(function() gate.sleep(0.2) return 1, 2 end, function() gate.sleep(0.2) end, function() return 3 end)
        return a, b, c, gate.clock() - before < 0.4 and 4 or "slow"]])
      assert.equal("", engine.run "return gate.all()")
    end)

    it("throws on what one throws, after it has closed the others", function()
      assert.equal("false|oh|first closed", engine.run [[
        local said = "nothing"
        local ok, err = pcall(gate.all,
          function() local c <close> = setmetatable({}, { __close = function() said = "first closed" end }) gate.sleep(10) end,
          function() gate.sleep(0.001) error("oh", 0) end,
          function() gate.sleep(10) end)
        return ok, err, said]])
    end)

    it("may be nested, and waits pass through coroutines in it", function()
      assert.equal("1|2|3", engine.run [[
        local a, b = gate.all(function()
          local x, y = gate.all(function() gate.sleep(0) return 1 end, function() return coroutine.wrap(function() gate.sleep(0) return 2 end)() end)
          return { x, y }
        end, function() return 3 end)
        return a[1], a[2], b]])
    end)

    it("can be used again after one threw", function()
      assert.equal("false|x|7", engine.run [[
        local ok, err = pcall(gate.all, function() error("x", 0) end, function() gate.sleep(1) end)
        return ok, err, (gate.all(function() gate.sleep(0) return 7 end))]])
    end)

    it("takes functions only, and not too many", function()
      assert.matches("bad argument #2", engine.run "gate.all(print, 12)")
      assert.matches("too many functions", engine.run "local t = {} for i = 1, 65 do t[i] = print end gate.all(table.unpack(t))")
    end)

    it("lets a reply through that one throws", function()
      local state = engine.open [[
        local gate = require "moongate"
        return { on_request = function() gate.all(function() gate.sleep(0) error(gate.reply(403)) end) end }
      ]]
      assert.equal("reply 403", engine.answer(state, "on_request"))
    end)
  end)

  describe("gate.spawn", function()
    local function open(body)
      return engine.open(([[
        local gate = require "moongate"
        local said = {}
        local function say(text) said[#said + 1] = text end
        return {
          on_request = function(req) %s end,
          on_error = function() return gate.reply(200, table.concat(said, " ")) end,
        }
      ]]):format(body))
    end

    it("runs after the hook has answered, with its arguments", function()
      local state = open "gate.spawn(function(a, b) say(a .. b) gate.sleep(0) say 'later' end, 'x', 1) say 'hook' gate.sleep(0) say 'end'"
      state:call "on_request"
      state:wait(0.01)
      assert.equal("hook end x1 later", state:call("on_error").body)
      assert.equal(0, state:figures().runs)
    end)

    it("logs and survives what the function raises", function()
      local state = open "gate.spawn(function() error 'oh' end)"
      state:call "on_request"
      state:turn(3)
      assert.matches("a spawned task of site1 failed: nowhere/config.lua:%d+: oh", engine.log())
    end)

    it("is closed when the state stops", function()
      local state = open "gate.spawn(function() local c <close> = setmetatable({}, { __close = function() print 'closed' end }) gate.sleep(100) end)"
      state:call "on_request"
      state:turn(3)
      assert.equal(1, state:figures().runs)
      state:stop()
      assert.equal(0, state:figures().runs)
      assert.matches("closed", engine.log())
    end)

    it("refuses more than a thousand", function()
      local state = open "for i = 1, 1000 do assert(gate.spawn(function() end)) end say(select(2, gate.spawn(function() end)))"
      state:call "on_request"
      assert.equal("overloaded", state:call("on_error").body)
      state:turn(20)
      assert.equal(0, state:figures().runs)
    end)

    it("loses req with its exchange", function()
      local state = open "gate.spawn(function() gate.sleep(0) say(select(2, pcall(function() return req.method end))) end)"
      local call = state:begin "on_request"
      call:finish()
      call:end_subject()
      local said
      for _ = 1, 100 do
        state:wait(0.01)
        said = state:call("on_error").body
        if said ~= "" then break end
      end
      assert.matches("the exchange has ended", said)
    end)
  end)

  describe("gate.every", function()
    local function open(body, options)
      return engine.open(([[
        local gate = require "moongate"
        local n = 0
        %s
        return { on_error = function() return gate.reply(200, tostring(n)) end }
      ]]):format(body), options)
    end

    it("repeats from when the generation is current, never overlapping itself", function()
      local state = open "local busy; gate.every(0.01, function() if busy then error 'overlap' end busy = true n = n + 1 gate.sleep(0.02) busy = false end)"
      state:wait(0.03)
      assert.equal("0", state:call("on_error").body)
      state:become_current()
      state:wait(0.1)
      local n = tonumber(state:call("on_error").body)
      assert.is_true(n >= 2 and n <= 4, n .. " times")
      assert.equal("", engine.log())
    end)

    it("goes on after an error, which it logs", function()
      local state = open "gate.every(0.01, function() n = n + 1 error 'oh' end)"
      state:become_current()
      state:wait(0.05)
      assert.is_true(tonumber(state:call("on_error").body) >= 2)
      assert.matches("a repeated task %(gate.every%) failed: nowhere/config.lua:%d+: oh", engine.log())
    end)

    it("is declared at load time only", function()
      assert.matches("declared while the file is loaded", engine.run "gate.every(1, print)")
    end)
  end)
end)

describe("coroutines of a script", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("are plain Lua's", function()
    assert.equal("suspended|true|1|running|suspended|true|2|dead|false|cannot resume dead coroutine", engine.run [[
      local seen
      local co = coroutine.create(function(a) seen = coroutine.status(coroutine.running()) coroutine.yield(a) return 2 end)
      local out = { coroutine.status(co) }
      local function add(...) for _, v in ipairs { ... } do out[#out + 1] = tostring(v) end end
      local function resume(...) local t = table.pack(coroutine.resume(co, ...)) for i = 1, t.n do add(t[i] == nil and "nil" or t[i] == false and "false" or t[i]) end end
      resume(1) add(seen) add(coroutine.status(co)) resume() add(coroutine.status(co))
      local ok, err = coroutine.resume(co) out[#out + 1] = tostring(ok) out[#out + 1] = err
      return table.concat(out, "|")]])
  end)

  it("cannot yield out of the hook", function()
    assert.matches("attempt to yield from outside a coroutine", engine.run "coroutine.yield(1)")
    assert.equal("false|true", engine.run "return coroutine.isyieldable(), select(2, coroutine.running())")
    assert.equal("true|false", engine.run "return coroutine.wrap(function() return coroutine.isyieldable(), select(2, coroutine.running()) end)()")
  end)

  it("pass errors on with wrap, and close what is open", function()
    assert.equal("false|closed|oh", engine.run [[
      local said
      local ok, err = pcall(coroutine.wrap(function() local c <close> = setmetatable({}, { __close = function() said = "closed" end }) error("oh", 0) end))
      return ok, said, err:match "oh$"]])
    assert.equal("false|table", engine.run "local ok, err = pcall(coroutine.wrap(function() error {} end)) return ok, type(err)")
  end)

  it("may be closed", function()
    assert.equal("true|closed|dead", engine.run [[
      local said
      local co = coroutine.create(function() local c <close> = setmetatable({}, { __close = function() said = "closed" end }) coroutine.yield() end)
      coroutine.resume(co)
      return coroutine.close(co), said, coroutine.status(co)]])
    assert.equal("false|bad", engine.run [[
      local co = coroutine.create(function() local c <close> = setmetatable({}, { __close = function() error("bad", 0) end }) coroutine.yield() end)
      coroutine.resume(co)
      return coroutine.close(co)]])
  end)

  it("live on from one hook to another", function()
    local state = engine.open [[
      local gate = require "moongate"
      local next_number = coroutine.wrap(function() for i = 1, 1000 do coroutine.yield(i) end end)
      return { on_request = function() return gate.reply(200, tostring(next_number())) end }
    ]]
    for i = 1, 20 do assert.equal("reply 200 " .. i, engine.answer(state, "on_request")) end
  end)

  it("do not overflow the C stack, however they are nested", function()
    assert.matches("C stack overflow", engine.run("local function f() return coroutine.wrap(f)() end return f()", { hook_cpu = 1 }))
    assert.matches("C stack overflow", engine.run([[
      local err
      local function nest()
        local co = coroutine.create(function()
          local c <close> = setmetatable({}, { __close = function() local ok, e = pcall(nest) if not ok then err = err or e end end })
          coroutine.yield()
        end)
        coroutine.resume(co)
        local ok, e = coroutine.close(co)
        if not ok then err = err or e end
      end
      nest()
      return err]], { hook_cpu = 1 }))
  end)
end)
