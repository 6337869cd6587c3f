-- luacheck: no max line length (scripts and messages stand in one line)
local engine = require "core.lua.engine"

describe("the sandbox", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("has what is harmless and nothing else", function()
    assert.equal(table.concat({
      "_G", "_VERSION", "assert", "collectgarbage", "coroutine", "debug", "error", "getmetatable", "ipairs", "load", "math", "next", "os", "pairs",
      "pcall", "print", "rawequal", "rawget", "rawlen", "rawset", "require", "select", "setmetatable", "string", "table", "tonumber", "tostring",
      "type", "utf8", "xpcall",
    }, " "), engine.run "local names = {} for name in pairs(_G) do names[#names + 1] = name end table.sort(names) return table.concat(names, ' ')")
    assert.equal("clock date difftime time|traceback", engine.run [[
      local function names(t) local list = {} for name in pairs(t) do list[#list + 1] = name end table.sort(list) return table.concat(list, " ") end
      return names(os), names(debug)]])
    assert.equal("nil|nil|nil", engine.run "return io, package, string.dump")
  end)

  it("keeps libraries as they are", function()
    for _, library in ipairs { "string", "table", "math", "coroutine", "os", "utf8", "debug", "gate" } do
      assert.is_truthy(engine.run(library .. ".find = 1"):find(("cannot set '%s.find': it is read-only"):format(library), 1, true))
      assert.matches("read%-only", engine.run(("rawset(%s, 'find', 1)"):format(library)))
      assert.equal("false", engine.run(("return getmetatable(%s)"):format(library)))
      assert.matches("protected metatable", engine.run(("setmetatable(%s, {})"):format(library)))
      assert.matches("read%-only", engine.run(("table.insert(%s, 'x')"):format(library)))
      assert.matches("read%-only", engine.run(("table.move({ 1 }, 1, 1, 1, %s)"):format(library)))
      assert.equal("nil", engine.run(("return next(%s)"):format(library)))
    end
  end)

  it("lists libraries with pairs without giving them away", function()
    assert.equal("true|true", engine.run [[
      local found, given = false, true
      local next_pair, subject = pairs(string)
      for name, f in next_pair, subject do if name == "find" and f == string.find then found = true end end
      given = subject == string
      return found, given]])
  end)

  it("hides the metatable of strings", function()
    assert.equal("false", engine.run "return getmetatable('')")
    assert.equal("11|3|abc", engine.run "return '10' + 1, ('abc'):len(), ('ABC'):lower()")
    assert.equal("nil", engine.run "return ('').__index")
  end)

  it("makes globals read-only after loading", function()
    local state = engine.open [[
      local gate = require "moongate"
      counter = 1
      function helper() return counter end
      return {
        on_request = function() return gate.reply(200, helper() .. tostring(undefined)) end,
        on_response = function() counter = 2 end,
        on_log = function() _G.fresh = 1 end,
        on_error = function() rawset(_G, "fresh", 1) end,
      }
    ]]
    assert.equal("reply 200 1nil", engine.answer(state, "on_request"))
    assert.equal("failed", engine.answer(state, "on_response"))
    assert.matches("config.lua:6: cannot set global 'counter': globals are read%-only", engine.log())
    state:call "on_log"
    assert.matches("cannot set global 'fresh'", engine.log())
    state:call "on_error"
    assert.matches("read%-only", engine.log())
    assert.equal("reply 200 1nil", engine.answer(state, "on_request"))
  end)

  it("gives each file globals of its own", function()
    local state = engine.open([[
      local gate = require "moongate"
      shared = "config's"
      local other = require "other"
      return { on_request = function() return gate.reply(200, table.concat({ shared, other(), tostring(string == other(1)) }, "|")) end }
    ]], { modules = { other = "shared = 'module\\'s'; return function(n) return n and string or tostring(shared) end" } })
    assert.equal("reply 200 config's|module's|true", engine.answer(state, "on_request"))
  end)

  it("has no finalizers", function()
    assert.matches("__gc is not allowed", engine.run "setmetatable({}, { __gc = function() end })")
    assert.matches("__gc is not allowed", engine.run "setmetatable({}, { __gc = true })")
    local state = engine.open [[
      local gate = require "moongate"
      local ran = false
      return {
        on_request = function()
          local mt = {}
          for i = 1, 100 do setmetatable({}, mt) end
          mt.__gc = function() ran = true end
        end,
        on_response = function() return gate.reply(200, tostring(ran)) end,
      }
    ]]
    state:call "on_request"
    state:collect()
    state:collect()
    assert.equal("reply 200 false", engine.answer(state, "on_response"))
  end)

  describe("load", function()
    it("takes text, in the environment of the file", function()
      assert.equal("3", engine.run "return load 'return 1 + 2' ()")
      assert.equal("true", engine.run "return load('return string')() == string")
      assert.equal("7", engine.run "return load('return x', 'n', 't', { x = 7 })()")
      assert.equal("5", engine.run "local parts = { 'return ', '5' } local i = 0 return load(function() i = i + 1 return parts[i] end)()")
      assert.matches("cannot set global", engine.run "load 'x = 1' ()")
    end)

    it("reports syntax errors", function()
      assert.matches("nil|%[string \"return %+\"%]:1: unexpected symbol", engine.run "return load 'return +'")
    end)

    it("takes no bytecode", function()
      local code = string.dump(function() return 1 end):gsub(".", function(c) return ("\\%03d"):format(c:byte()) end)
      assert.matches("nil|attempt to load a binary chunk", engine.run(("return load '%s'"):format(code)))
      assert.matches("nil|attempt to load bytecode", engine.run(("return load('%s', 'x', 'b')"):format(code)))
    end)

    it("takes no more than a hook can afford", function()
      assert.equal("nil|chunk too long", engine.run "return load(('x = 1 '):rep(10000))")
      assert.equal("nil|chunk too long", engine.run "return load(function() return 'x = 1 ' end)")
    end)
  end)

  it("has print write to the log", function()
    engine.run "print('one', 2, nil, setmetatable({}, { __tostring = function() return 'three' end }))"
    assert.matches("info .*one\t2\tnil\tthree", engine.log())
    engine.run "print(('x'):rep(1e6))"
    assert.is_true(#engine.log() < 5000)
  end)

  it("gives a traceback, not more of debug", function()
    assert.matches("stack traceback:", engine.run "return debug.traceback 'here'")
  end)

  describe("unsafe", function()
    it("allows what the config's global names, at once", function()
      local state = engine.open [[
        unsafe = { "io", "os" }
        local gate = require "moongate"
        local popen, getenv = io.popen, os.getenv
        return { on_request = function() return gate.reply(200, type(popen) .. type(getenv) .. type(io.open)) end }
      ]]
      assert.equal("reply 200 functionfunctionfunction", engine.answer(state, "on_request"))
      assert.same({ "io", "os" }, state:config().unsafe)
    end)

    it("allows what the returned table names, in hooks", function()
      local state = engine.open [[
        local gate = require "moongate"
        local before = tostring(io)
        return { unsafe = { "io", "debug" }, on_request = function() return gate.reply(200, before .. type(io.open) .. type(debug.getinfo)) end }
      ]]
      assert.equal("reply 200 nilfunctionfunction", engine.answer(state, "on_request"))
    end)

    it("allows bytecode", function()
      local state = engine.open [[
        unsafe = { "bytecode" }
        local gate = require "moongate"
        return { on_request = function() return gate.reply(200, tostring(load("return 4")())) end }
      ]]
      assert.equal("reply 200 4", engine.answer(state, "on_request"))
    end)
  end)
end)

describe("every C function a script can reach", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  -- Runs in the hook: walks everything that can be reached, and calls each function with each list of hostile arguments. Each
  -- call is one hook of its own, so that each has its whole budget.
  local attack = [[
    local gate = require "moongate"
    local skip = { ["gate.spawn"] = true } -- would run everything else, later

    local functions, seen = {}, {}
    local function add(name, value)
      if type(value) == "function" and not seen[value] and not skip[name] then
        seen[value] = true
        functions[#functions + 1] = { name = name, call = value }
      elseif type(value) == "table" and not seen[value] then
        seen[value] = true
        for key, inner in pairs(value) do add((name == "_G" and "" or name .. ".") .. tostring(key), inner) end
      end
    end
    add("_G", _G)
    add("gate", gate)
    add("gmatch's", ("x"):gmatch "x")
    add("wrap's", coroutine.wrap(function() end))
    add("ipairs'", (ipairs {}))
    add("pairs'", (pairs(string)))
    add("codes'", (utf8.codes "x"))

    local function hostile()
      local liar = setmetatable({}, {
        __len = function() return math.maxinteger end, __index = function(t, k) return k end, __newindex = function() end,
        __tostring = function() return ("x"):rep(1e6) end, __name = ("n"):rep(1e6), __call = function(self, ...) return ... end,
        __lt = function() return true end, __le = function() return true end, __eq = function() return true end,
        __concat = function() return "" end, __unm = function(t) return t end, __close = function() end,
        __pairs = function(t) return next, t end, __idiv = function() return 1 end,
      })
      local deep = {}
      do local t = deep for _ = 1, 10000 do t[1] = {} t = t[1] end end
      local self = {}
      self[1], self.self = self, self
      setmetatable(self, { __index = function(t, k) return t[k] end })
      local forever = function() while true do end end
      local long = ("a"):rep(1e6)
      local values = {
        0, -1, 1, math.maxinteger, math.mininteger, 0 / 0, math.huge, 1e308, 0.5, "", "x", long, "%d%s%q%99999d", "(((((", "%", "[", "%b", "%f", ".-.-.-.-b",
        ("%s"):rep(20000), ("a*"):rep(100) .. "b", "\0\0\0", ("9"):rep(1e5), true, false, liar, deep, self, print, error, forever, coroutine.create(forever),
        coroutine.running(), string, _G, gate, { [1] = 1, n = 1e9 }, { ["X-A"] = long }, ("(a)"):rep(40), "2", "1e9", ("%1"):rep(10),
        "c99999999", "s1s2s4", "!16", ("i16"):rep(1000), "x\r\ny",
      }
      return values
    end

    local lists
    local function make_lists()
      local v, n = hostile(), nil
      lists = { table.pack() }
      for i = 1, #v do lists[#lists + 1] = table.pack(v[i]) end
      -- Pairs and triples, chosen by a generator of our own so that runs repeat.
      local seed = 12345
      local function any() seed = (seed * 1103515245 + 12345) % 2147483648 return v[seed // 65536 % #v + 1] end
      local lead = { "x", ("a"):rep(1e6), { 3, 2, 1 }, function() return "x" end }
      for i = 1, PAIRS do lists[#lists + 1] = table.pack(i % 3 == 0 and lead[i // 3 % #lead + 1] or any(), any()) end
      for i = 1, PAIRS do lists[#lists + 1] = table.pack(i % 2 == 0 and lead[i // 2 % #lead + 1] or any(), any(), any()) end
      for i = 1, PAIRS do lists[#lists + 1] = table.pack(i % 2 == 0 and lead[i // 2 % #lead + 1] or any(), any(), any(), any(), any()) end
    end

    local at_function, at_list = 1, 0
    local site = {}
    function site.on_request(req)
      if not lists then
        make_lists()
        add("headers.all", req.headers.all)
        add("headers.add", req.headers.add)
      end
      if at_list == 0 then at_list = 1 return gate.reply(200, "begun") end
      local f, arguments = functions[at_function], lists[at_list]
      if not f then return gate.reply(200, "end of " .. #functions) end
      at_list = at_list + 1
      if at_list > #lists then at_function, at_list = at_function + 1, 1 end
      f.call(table.unpack(arguments, 1, arguments.n))
    end
    function site.on_error() local f = functions[at_function] or functions[#functions] return gate.reply(200, f.name .. " with list " .. at_list - 1) end
    return site
  ]]

  it("neither crashes nor hangs on hostile arguments", function()
    if engine.few_errors then return pending "too many errors" end
    local pairs_count = tonumber(os.getenv "MOONGATE_HOSTILE") or 60
    attack = attack:gsub("PAIRS", tostring(pairs_count))
    local state = engine.open(attack, { memory = 32 << 20, hook_cpu = 0.010 })
    local slowest, calls, functions = 0, 0, nil
    repeat
      local before = os.clock()
      local call = state:begin "on_request"
      while call:verdict() == "wait" and os.clock() - before < 0.002 do
        state:turn()
        call:go()
      end
      local took = os.clock() - before
      calls = calls + 1
      if took > slowest then slowest = took end
      assert.is_true(took < 0.3, ("%.0f ms: %s"):format(took * 1000, state:call("on_error").body))
      if call:verdict() == "wait" then call:cancel() else
        local body = call:finish().body
        functions = body and body:match "^end of (%d+)"
      end
      call:end_subject()
      state:turn()
    until functions
    assert.is_true(tonumber(functions) > 100, functions)
    assert.is_true(calls > 100 * pairs_count * 3)
    assert.is_true(slowest < 0.3)
  end)
end)
