local support = require "support"
local probe = require "core.lua.probe"
local it = support.it

describe("gate.shared", function()
  support.setup(probe.start)

  -- Each spec has a dictionary of its own.
  local number = 0
  local function said(script, options)
    if not options then
      number = number + 1
      options = "'spec" .. number .. "'"
    end
    return probe.request(("local d = gate.shared(%s) %s"):format(options, script))
  end

  it("keeps booleans, numbers and strings with their types", function()
    assert.equal("true|false|5|integer|5.0|float|text|with\0nul", said [[
      d:set("t", true) d:set("f", false) d:set("i", 5) d:set("n", 5.0) d:set("s", "text") d:set("z", "with\0nul")
      local i, n = d:get "i", d:get "n"
      return d:get "t", d:get "f", i, math.type(i), n, math.type(n), d:get "s", d:get "z"
    ]])
  end)

  it("gives nil for what is not there", function()
    assert.equal("nil|nil|false|true|nil", said [[
      return d:get "x", d:ttl "x", d:remove "x", d:set("x", nil), d:get "x"
    ]])
  end)

  it("keeps tables as copies of plain data", function()
    assert.equal("1 2 3|true|x|1.5|nil|7|true", said [[
      local list = { 1, 2, 3, n = { deep = { "x" } }, [1.5] = 1.5, [true] = true }
      d:set("t", list)
      list[1] = "changed"
      local t = d:get "t"
      local again = d:get "t"
      t.n.deep[1] = "mine alone"
      setmetatable(again, { __index = function() return "lie" end, __pairs = error })
      d:set("lying", again)
      d:set("many", (function() local m = {} for i = 1, 5000 do m["k" .. i] = i end return m end)())
      return table.concat(t, " "), t[true], again.n.deep[1], t[1.5], d:get "lying".none, d:get "many".k7, t ~= again
    ]])
  end)

  it("refuses tables that are no plain data", function()
    for value, sentence in pairs {
      ["{ print }"] = "a function is none", ["{ a = { b = req } }"] = "a userdata is none",
      ["{ [print] = 1 }"] = "a function is none",
      ["(function() local t = {} t.t = t return t end)()"] = "holds itself",
      ["(function() local t = {} for _ = 1, 33 do t = { t } end return t end)()"] = "nested too deeply",
    } do
      local text = said(("d:set('x', %s)"):format(value))
      assert(text:find(sentence, 1, true), value .. ": " .. text)
    end
    assert.equal("nil|too_large|the value is larger than the shared dictionary 'tight'|nil", said([[
      local ok, word, sentence = d:set("x", { ("x"):rep(10000) })
      return ok, word, sentence, d:get "x"
    ]], "'tight', { max = '4K' }"))
  end)

  it("replaces only what is there", function()
    assert.equal("false|absent|nil|true|nil|2", said [[
      local a, why_a = d:replace("x", 1)
      local before = d:get "x"
      d:set("x", 1)
      local b, why_b = d:replace("x", 2)
      return a, why_a, before, b, why_b, d:get "x"
    ]])
  end)

  it("updates by a function, which gets the value and gives the new one", function()
    assert.equal("nil 1|1 2|2|nil|nil|nil|0", said [[
      local seen = {}
      local function add(value) seen[#seen + 1] = tostring(value) return (value or 0) + 1 end
      local a, b = d:update("n", add), d:update("n", add)
      local gone = d:update("n", function() end)
      return seen[1] .. " " .. a, seen[2] .. " " .. b, b, gone, d:get "n", d:update("none", function() end), d:count()
    ]])
  end)

  it("asks the function of an update again when the value has changed under it", function()
    assert.equal("1 10|11|2|true", said [[
      d:set("n", 1, 60)
      local seen, calls = {}, 0
      local sum = d:update("n", function(n)
        calls = calls + 1
        seen[calls] = n
        if calls == 1 then d:set("n", 10, 60) end
        return n + 1
      end)
      return table.concat(seen, " "), sum, calls, d:ttl "n" <= 60
    ]])
  end)

  it("stores nothing when the function of an update raises, waits or returns what is none", function()
    for body, sentence in pairs {
      ["error('mine', 0)"] = "mine", ["gate.sleep(0.01)"] = "cannot wait inside",
      ["return print"] = "returned a function",
      ["return { print }"] = "a function is none", ["return req"] = "returned a userdata",
    } do
      assert.equal("false|true|1", said(([[
        d:set("x", 1)
        local ok, why = pcall(d.update, d, "x", function() %s end)
        return ok, why:find(%q, 1, true) ~= nil, d:get "x"
      ]]):format(body, sentence)), body)
    end
  end)

  it("lets a value live on", function()
    assert.equal("false|true|inf|true|true", said [[
      d:set("x", 1, "20ms")
      local none, there = d:touch("y", 1), d:touch("x")
      local ever = d:ttl "x"
      return none, there, ever, d:touch("x", 5), d:ttl "x" <= 5
    ]])
  end)

  it("gives the keys that begin with a prefix", function()
    assert.equal("a:1 a:2|0|1", said [[
      for _, key in ipairs { "a:1", "a:2", "b:1", "a" } do d:set(key, 1) end
      local keys = d:keys "a:"
      table.sort(keys)
      return table.concat(keys, " "), #d:keys "c", #d:keys("", 1)
    ]])
  end)

  it("goes over all keys and values, while they change", function()
    assert.equal("3000|4501500|x|true", said [[
      for i = 1, 3000 do d:set(i, i) end
      local count, sum = 0, 0
      for key, value in pairs(d) do
        count, sum = count + 1, sum + value
        if value % 2 == 0 then d:remove(key) end
      end
      d:clear()
      d:set("t", { "x" }) d:set("f", false)
      local all = {}
      for key, value in pairs(d) do all[key] = value end
      return count, sum, all.t[1], all.f == false
    ]])
  end)

  it("counts, measures and clears", function()
    assert.equal("100|true|65536|100|0|0", said([[
      for i = 1, 100 do d:set(i, "x") end
      local used, max = d:memory()
      local count = d:count()
      return count, used > 5000 and used < max, max, d:clear(), d:count(), (d:memory())
    ]], "'measured', { max = '64K' }"))
  end)

  it("drops what was used longest ago where the config says so", function()
    assert.equal("true|nil|yes", said([[
      local all = true
      d:set("kept", "yes")
      for i = 1, 2000 do all = all and d:set(i, ("x"):rep(100)) == true and d:get "kept" == "yes" end
      return all, d:get(1), d:get "kept"
    ]], "'evicting', { max = '64K', evict = 'lru' }"))
  end)

  it("is said to be one thing by all who say something of it", function()
    assert.equal("128|false|true|false", said([[
      local _, max = d:memory()
      local ok, why = pcall(gate.shared, "agreed", { max = "64K" })
      local _, same = gate.shared("agreed"):memory()
      return max // 1024, ok, why:find("another max or evict", 1, true) ~= nil,
        (pcall(gate.shared, "agreed", { evict = "lru" })) and (pcall(gate.shared, "agreed", { evict = false }))
    ]], "'agreed', { max = '128K' }"))
    assert(said("", "'n', { evict = 'fifo' }"):find('evict is "lru" or false', 1, true))
  end)

  it("is the same for all requests and handles of that name", function()
    said([[d:set("x", 1)]], "'same'")
    assert.equal("1|nil", said([[return d:get "x", gate.shared "other":get "x"]], "'same'"))
  end)

  it("adds only what is not there", function()
    assert.equal("true|nil|false|exists|1", said [[
      local a, why_a = d:add("x", 1)
      local b, why_b = d:add("x", 2)
      return a, why_a, b, why_b, d:get "x"
    ]])
  end)

  it("counts", function()
    assert.equal("1|3|2|12|0.5|integer", said [[
      return d:incr "a", d:incr("a", 2), d:incr("a", -1), d:incr("b", 2, 10), d:incr("c", 0.5), math.type(d:get "a")
    ]])
  end)

  it("removes", function()
    assert.equal("true|false|true|nil", said [[
      d:set("x", 1) d:set("y", 1)
      return d:remove "x", d:remove "x", d:set("y", nil), d:get "y"
    ]])
  end)

  it("forgets after the time to live", function()
    assert.equal("true|true|inf|nil|nil|true", said [[
      d:set("x", 1, "30ms") d:set("y", 1)
      local left, ever = d:ttl "x", d:ttl "y"
      local before = d:get "x" == 1
      gate.sleep(0.05)
      return before, left > 0 and left <= 0.03, ever, d:get "x", d:ttl "x", (d:add("x", 2))
    ]])
  end)

  it("gives the keys, as many as asked for", function()
    assert.equal("a b c|2", said [[
      for key in ("abc"):gmatch "." do d:set(key, 1) end
      local keys = d:keys()
      table.sort(keys)
      return table.concat(keys, " "), #d:keys(nil, 2)
    ]])
  end)

  it("refuses when it is full, and drops nothing", function()
    assert.equal("nil|full|the shared dictionary 'full' is full|true|nil|full|nil|full", said([[
      local text, n = ("x"):rep(10000), 0
      local ok, word, sentence
      repeat n = n + 1 ok, word, sentence = d:set("k" .. n, text) until not ok
      local kept = true
      for i = 1, n - 1 do kept = kept and d:get("k" .. i) == text end
      local added, why_added = d:add("more", text)
      local long = ("y"):rep(900)
      local sum, why_sum
      repeat n = n + 1 sum, why_sum = d:incr(long .. n) until not sum
      return ok, word, sentence, kept, added, why_added, sum, why_sum
    ]], "'full', { max = '64K' }"))
  end)

  it("takes keys that are numbers by their text", function()
    assert.equal("x", said [[d:set(5, "x") return d:get "5"]])
  end)

  it("refuses keys that are none", function()
    for _, call in ipairs { "get(%s)", "set(%s, 1)", "add(%s, 1)", "incr(%s)", "remove(%s)", "ttl(%s)" } do
      for key, sentence in pairs {
        ["''"] = "1 to 1024", ["('x'):rep(1025)"] = "1 to 1024",
        ["nil"] = "string expected", ["{}"] = "string expected", ["true"] = "string expected",
      } do
        local text = said("d:" .. call:format(key))
        assert(text:find(sentence, 1, true), call .. " " .. key .. ": " .. text)
      end
    end
    assert.equal("1", said [[d:set(("x"):rep(1024), 1) return d:get(("x"):rep(1024))]])
  end)

  it("refuses values that are none", function()
    for _, value in ipairs { "print", "req", "coroutine.create(print)" } do
      assert(said(("d:set('x', %s)"):format(value)):find("boolean, number, string or table", 1, true))
      assert(said(("d:add('x', %s)"):format(value)):find("boolean, number, string or table", 1, true))
    end
    assert(said("d:add('x', nil)"):find("boolean, number, string or table", 1, true))
    assert(said("d:incr('x', '1')"):find("number expected", 1, true))
    assert(said("d:incr('x', 1, {})"):find("number expected", 1, true))
    assert(said("d:set('x', 'text') d:incr 'x'"):find("not a number", 1, true))
  end)

  it("refuses times to live that are none", function()
    for _, ttl in ipairs { "-1", "0", "'0s'", "1/0", "0/0", "'10'", "'x'", "{}", "true", "'-1s'", "'1e999s'" } do
      assert(said(("d:set('x', 1, %s)"):format(ttl)):find("seconds", 1, true), ttl)
    end
  end)

  it("refuses names, sizes and counts that are none", function()
    assert(said("", "''"):find("1 to 64", 1, true))
    assert(said("", "('x'):rep(65)"):find("1 to 64", 1, true))
    assert(said("", "'a\\0b'"):find("1 to 64", 1, true))
    assert(said("", "{}"):find("string expected", 1, true))
    assert(said("", "5"):find("string expected", 1, true))
    assert(said("", "'n', 'x'"):find("table expected", 1, true))
    assert(said("", "'n', { mux = 1 }"):find("did you mean 'max'", 1, true))
    for _, size in ipairs { "0", "100", "-1", "'x'", "1/0", "{}", "1.5e4 + 0.5" } do
      assert(said("", ("'n', { max = %s }"):format(size)):find("max is 4K or more", 1, true), size)
    end
    for _, max in ipairs { "0", "-1", "10001", "math.maxinteger" } do
      assert(said(("d:keys(nil, %s)"):format(max)):find("1 to 10000", 1, true), max)
    end
  end)

  it("has methods and nothing else", function()
    assert(said("return d:gett 'x'"):find("did you mean 'get'", 1, true))
    assert(said("d.x = 1"):find("use set", 1, true))
    assert(said("return d.get({}, 'x')"):find("moongate.shared expected", 1, true))
    assert(said("return d.get(req, 'x')"):find("moongate.shared expected", 1, true))
  end)

  it("is there while the file is loaded, outlives reloads and is seen by all workers", function()
    local config = [[
      local gate = require "moongate"
      local hits = gate.shared("hits", { max = "1M" })
      local function on_request() return gate.reply(200, tostring(hits:incr "n")) end
      return { listen = "127.0.0.1:$PORT", on_request = on_request }
    ]]
    local proxy = support.moongate.start { config = config, workers = 2 }
    for i = 1, 6 do assert.equal(tostring(i), support.http.get(proxy.port).body) end
    assert.equal(0, (proxy:reload()))
    assert.equal("7", support.http.get(proxy.port).body)
  end)
end)
