-- luacheck: no max line length (scripts and messages stand in one line)
local engine = require "core.lua.engine"

-- The libraries that Moongate has written again are held against those of the Lua that runs this: the same chunk runs here and
-- in a state, and must say the same.

describe("the libraries", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  -- The chunk is given `say`, which takes values or what a call raises, and gives back all that was said.
  local prelude = [[
    local said = {}
    local function text(value)
      if type(value) == "string" then return ("%q"):format(value) end
      if type(value) == "table" or type(value) == "function" then return type(value) end
      return tostring(value)
    end
    local function note(ok, ...)
      local list = table.pack(...)
      for i = 1, list.n do list[i] = text(list[i]) end
      -- Places, and the names of functions as each finds them, are not what is compared.
      local line = table.concat(list, " "):gsub("argument #%d", "argument"):gsub('[%w%./_%-]+:%d+: ', ""):gsub("%b''", "NAME"):gsub('%[string[^:]*:%d+: ', "")
      said[#said + 1] = (ok and "" or "raised ") .. line
    end
    local function say(f, ...) note(pcall(f, ...)) end
  ]]

  local function same(chunk)
    chunk = chunk:gsub("ROUNDS", engine.few_errors and "300" or "6000")
    local whole = prelude .. chunk .. " return table.concat(said, '\\n')"
    local expected = assert(load(whole))()
    local state = engine.open(([[
      local gate = require "moongate"
      local function run() %s end
      return { on_request = function() return gate.reply(200, run()) end }
    ]]):format(whole), { hook_cpu = 20, memory = 256 << 20 })
    local answer = state:call "on_request"
    assert.equal("reply", answer.verdict, engine.log())
    local wanted = expected:gmatch "[^\n]*"
    local line = 0
    for got in (answer.body .. "\n"):gmatch "([^\n]*)\n" do
      line = line + 1
      assert.equal(wanted() or "(the end)", got, "what was said as number " .. line)
    end
  end

  it("find and match like Lua's", function()
    same [==[
      local subjects = { "", "a", "abc", "hello world", "key = value", "  trim  ", "a.b.c", "((x)(y))", "THE (quick) fox", "0x1F", "\0a\0", "aaaab", "x^2", "%d", "[]", "f(a(b)c)d", "one;two;;four" }
      local patterns = {
        "", "a", "^a", "a$", "^$", ".", ".*", ".-", ".+", "a?", "a*", "a-b", "%a+", "%d+", "%s*(.-)%s*$", "(%w+)%s*=%s*(%w+)", "()", "()a()", "[abc]", "[^abc]",
        "[a-c]+", "[%a_][%w_]*", "[]]", "[^]]", "[a-]", "[%]]", "%b()", "%f[%w]%w+", "%f[%a]", "(a)(b)(c)", "(.)%1", "((.)(.))", "%.", "%%", "[%z]", "\0", "^%((.*)%)$",
        "a.-b", "(a*(.)%w(%s*))", "[^;]*", "%x+", "%p", "%u+", "%l+", "%c", "%g+", "%D", "%S+", "%W", "^", "$", "a^", "$a", "*", "+a", "-", "?", "x-y", "[a%-z]", "[+--]", "%-",
        "(", ")", "(()", "%", "[", "[a", "[%", "%b", "%bx", "%f", "%fa", "%1", "(%1)", "%9", "(a", "a)", "[^", "[]", "%0", "(a)%2", "[a-%%]",
      }
      for _, s in ipairs(subjects) do
        for _, p in ipairs(patterns) do
          say(string.find, s, p) say(string.match, s, p) say(string.find, s, p, 2) say(string.match, s, p, -2) say(string.find, s, p, 1, true)
          say(string.gsub, s, p, "<%0>") say(string.gsub, s, p, "%1%%", 2)
          say(function() local t = {} for a, b in s:gmatch(p) do t[#t + 1] = tostring(a) .. ":" .. tostring(b) end return table.concat(t, ",") end)
        end
      end
    ]==]
  end)

  it("find and match like Lua's, on patterns by chance", function()
    same [==[
      local seed = 1
      local function random(n) seed = (seed * 1103515245 + 12345) % 2147483648 return seed // 65536 % n + 1 end
      local atoms = { "a", "b", ".", "%a", "%d", "[ab]", "[^a]", "(", ")", "()", "%1", "%b()", "%f[a]", "*", "+", "-", "?", "^", "$", "%w", "[a-c%d]", "c" }
      local letters = { "a", "b", "c", "1", "(", ")", " " }
      for _ = 1, ROUNDS do
        local p, s = {}, {}
        for i = 1, random(7) do p[i] = atoms[random(#atoms)] end
        for i = 1, random(10) do s[i] = letters[random(#letters)] end
        p, s = table.concat(p), table.concat(s)
        say(string.find, s, p, random(4)) say(string.gsub, s, p, "[%0]") say(string.gsub, s, p, { a = "A", b = false, ab = 1 })
        say(string.gsub, s, p, function(x, y) return y end)
        say(function() local t = {} for m in s:gmatch(p, random(3)) do t[#t + 1] = tostring(m) end return table.concat(t, ",") end)
      end
    ]==]
  end)

  it("replace like Lua's", function()
    same [==[
      say(string.gsub, "hello", "l", "%") say(string.gsub, "hello", "l", "%2") say(string.gsub, "hello", "(l)", "%1%1") say(string.gsub, "hello", "l", "%%")
      say(string.gsub, "hello", "", "-") say(string.gsub, "hello", ".", { h = 1, e = true }) say(string.gsub, "hello", ".", function(c) return {} end)
      say(string.gsub, "hello", "l", 7) say(string.gsub, "hello", "l", nil) say(string.gsub, "hello", "l", true) say(string.gsub, "abc", "%w", "%0%0", -1)
      say(string.gsub, "abc", "b*", "x") say(string.gsub, "abc", "^a", "x") say(string.gsub, "aaa", "^a", "x") say(string.gsub, 123, 2, "x")
      say(string.gsub, "x", "x", "%1") say(string.gsub, "x", "()", "%1") say(string.gsub, "abc", "(b)()", function(...) return select("#", ...) end)
    ]==]
  end)

  it("cut and copy like Lua's", function()
    same [==[
      local numbers = { 0, 1, 2, 3, 5, 6, -1, -2, -5, -6, math.maxinteger, math.mininteger, 2.0, "3", 2.5, "x" }
      for _, s in ipairs { "", "hello" } do
        for _, i in ipairs(numbers) do
          say(string.sub, s, i) say(string.byte, s, i) say(string.rep, s, i == math.maxinteger and 3 or i) say(string.find, s, "l", i) say(string.find, s, "", i)
          say(function() return (s:gmatch(".", i)()) end)
          for _, j in ipairs(numbers) do say(string.sub, s, i, j) say(string.byte, s, i, j) end
        end
      end
      for n = -1, 20 do say(string.rep, "ab", n, ", ") say(string.rep, "", n, "x") say(string.rep, "x", n, "") end
      say(string.reverse, "abc") say(string.lower, "ÀBC\0D") say(string.upper, "àbc\0d") say(string.len, "\0\0") say(string.reverse, "")
      say(function() return #("x"):rep(100001, "yz") end) say(function() return ("abc"):rep(50000, "-"):sub(-8) end)
      say(string.sub) say(string.rep, "x") say(string.byte, {}) say(string.upper, nil)
    ]==]
  end)

  it("format and pack like Lua's", function()
    same [==[
      for _, f in ipairs { "%d", "%5.2f", "%s", "%q", "%x", "%g", "%a", "%c", "%i", "%%", "%10s|", "%-10s|", "%.3s", "%y", "%", "%099d", "%100d", "%s %s" } do
        for _, v in ipairs { 1, 1.5, "text\n\0", -7, "12", {} } do say(function() local ok, r = pcall(string.format, f, v) return ok, ok and type(v) ~= "table" and r end) end
      end
      say(string.pack, ">I2 s1 z", 258, "ab", "c") say(string.unpack, "<i4", "\1\0\0\0rest") say(string.packsize, "i4i8") say(string.pack, "i17", 1)
    ]==]
  end)

  it("handle tables like Lua's", function()
    same [==[
      local function all(t) local list = {} for i = 1, 12 do list[i] = tostring(rawget(t, i)) end return table.concat(list, " ") end
      local function on(f, ...) local arguments = table.pack(...) say(function() local t = { 10, 20, 30, 40, 50 } local r = table.pack(f(t, table.unpack(arguments, 1, arguments.n))) return all(t), r.n, r[1] ~= t and r[1] or "t" end) end
      for _, i in ipairs { -1, 0, 1, 3, 5, 6, 7, math.maxinteger, math.mininteger, "2", 2.5 } do
        on(table.insert, i, "x") on(table.remove, i) on(table.concat, ",", i) on(table.concat, ",", 1, i) on(table.unpack, i) on(table.unpack, 1, math.type(i) == "integer" and i < 1000 and i or 1)
        for _, j in ipairs { 0, 1, 2, 4, 6 } do on(table.move, 1, 3, j) on(table.move, 2, 5, j) on(table.move, j, 5, 3) end
      end
      on(table.insert, "x") on(table.insert) on(table.insert, 1, 2, 3) on(table.remove) on(table.concat, {}) on(table.concat)
      say(table.concat, { 1, {}, 3 }) say(table.concat, { 1, 2.5, "x" }, "--") say(table.concat, {}, "x", 1, 2) say(table.insert, nil, 1) say(table.insert, 12, 1)
      say(table.remove, {}) say(table.remove, {}, 0) say(table.remove, {}, 1) say(table.remove, { n = 1, [0] = "zero" }, 0)
      say(table.move, {}, 1, math.maxinteger, 2) say(table.move, {}, math.mininteger, 0, 2) say(table.move, { 1, 2 }, 1, 2, math.maxinteger)
      say(function() return table.unpack(table.move({ 1, 2, 3 }, 1, 3, 2, { "a" })) end) say(table.unpack, {}, 1, 1e8) say(table.unpack, { 1, 2 }, -1, 3)
      say(function() local t = table.pack() return t.n, #t end) say(function() local t = table.pack(nil, 2, nil) return t.n, t[2] end)
    ]==]
  end)

  it("sort like Lua's", function()
    same [==[
      local seed = 7
      local function random(n) seed = (seed * 1103515245 + 12345) % 2147483648 return seed // 65536 % n + 1 end
      for n = 0, 60 do
        local t, words = {}, {}
        for i = 1, n do t[i] = random(n * 2) words[i] = tostring(random(1000)) end
        table.sort(t) table.sort(words)
        say(table.concat, t, " ") say(table.concat, words, " ")
        table.sort(t, function(a, b) return a > b end)
        say(table.concat, t, " ")
      end
      local big = {}
      for i = 1, 20000 do big[i] = i % 100 end
      table.sort(big)
      for i = 2, #big do assert(big[i - 1] <= big[i]) end
      say(table.sort, { 1, 2 }, 3) say(table.sort, {}) say(table.sort, { {}, {} }) say(table.sort, 3)
    ]==]
  end)

  it("survive an order function that lies", function()
    assert.equal("ok", engine.run [[
      for n = 2, 40 do
        local t = {}
        for i = 1, n do t[i] = i end
        for _, f in ipairs { function() return true end, function() return false end, function(a, b) return math.random(2) == 1 end, function(a, b) return nil end } do
          local ok, err = pcall(table.sort, t, f)
          if not ok and not err:find "invalid order function" then return err end
          table.sort(t)
          for i = 1, n do if t[i] ~= i then return "lost" end end
        end
      end
      return "ok"]])
  end)

  it("do the rest like Lua's", function()
    same [==[
      say(select, "#") say(select, "#", nil, nil) say(select, -1, 1, 2) say(select, 0) say(tonumber, "0x10") say(tonumber, "z", 36) say(tonumber, "1e1") say(tonumber, " 12 ") say(tonumber, "")
      say(xpcall, error, function(e) return "handled " .. tostring(e) end, "x") say(xpcall, function(...) return select("#", ...) end, print, 1, nil, nil) say(xpcall, 1)
      say(rawset, {}, 1, 2) say(rawset, {}, nil, 2) say(setmetatable, {}, 1) say(setmetatable, 1, {}) say(utf8.len, "äö") say(utf8.char, 228, 8364) say(utf8.codepoint, "ä", 1, -1)
      say(function() return getmetatable(setmetatable({}, { __metatable = "mine" })) end) say(math.tointeger, "8") say(os.time, { year = 2026, month = 1, day = 1, hour = 0 }) say(os.date, "!%Y", 0)
      say(os.date, "%Ez") say(next, {}) say(load, "return 1", "n", "t") say(load, 12) say(load, function() return {} end)
    ]==]
  end)

  it("bound what is Lua's own", function()
    assert.matches("format too long", engine.run "return (('%s'):rep(40000)):format()")
    assert.matches("too long for '%%q'", engine.run "return #('%q'):format(('x'):rep(2e6))")
    assert.matches("size too large", engine.run "return string.pack('c999999999', 'x')")
    assert.matches("format too long", engine.run "return string.pack(('i'):rep(5000), 1)")
    assert.matches("format too long", engine.run "return os.date(('%c'):rep(100))")
  end)
end)
