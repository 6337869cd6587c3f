-- gate.re.
-- luacheck: no max line length (patterns and subjects stand in one line)

local engine = require "core.lua.engine"

local function value(text, options) return engine.run("local re = gate.re return " .. text, options) end

describe("gate.re", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("tests, matches and finds", function()
    assert.equal("true|false", value [[re "b+":test "abbc", re "^b":test "ab"]])
    assert.equal("42|u", value [[re "^/v(\\d+)/(\\w)":match "/v42/users"]])
    assert.equal("bb|nil", value [[re "b+":match "abbc", tostring(re "x":match "abbc")]])
    assert.equal("2|3|b", value [[re "b(b)":find "abbc"]])
    assert.equal("nil", value [[tostring((re "x":find "abbc"))]])
  end)

  it("begins where it is told to, as string.find does", function()
    assert.equal("4|4", value [[re "a":find("abca", 2)]])
    assert.equal("4|4", value [[re "a":find("abca", -1)]])
    assert.equal("1|1", value [[re "a":find("abca", -100)]])
    assert.equal("5|4", value [[re "":find("abca", 5)]])
    assert.equal("nil|nil", value [[tostring((re "":find("abca", 6))), tostring(re "":match("", math.maxinteger))]])
    assert.equal("nil", value [[tostring(re "^a":match("aa", 2))]])
  end)

  it("gives positions, groups and names at once", function()
    assert.equal("3|8|k=v1.23|k|nil|v1.23|v1.23|k", value [[(function()
      local m = re "(?<key>\\w)(x)?=(?<value>v[\\d.]+\\d)":exec "a k=v1.23 b"
      return m.from, m.to - 1, m.text, m.groups[1], tostring(m.groups[2]), m.groups[3], m.names.value, m.names.key end)()]])
    assert.equal("nil", value [[tostring(re "x":exec "a")]])
  end)

  it("takes flags", function()
    assert.equal("true|false", value [[re("MOON", "i"):test "moon", re "MOON":test "moon"]])
    assert.equal("true|false", value [[re("^b$", "m"):test "a\nb\nc", re "^b$":test "a\nb\nc"]])
    assert.equal("true|false", value [[re("a.b", "s"):test "a\nb", re "a.b":test "a\nb"]])
    assert.equal("true", value [[re("a  b # comment", "x"):test "ab"]])
    assert.equal("é|\xc3", value [[re("^.", "u"):match "é", re "^.":match "é"]])
    assert.equal("true|false", value [[re("^\\w+$", "u"):test "é", re "^\\w+$":test "é"]])
    assert.matches("raised: .*no flag 'g'", value [[re("a", "g")]])
    assert.matches("raised: .*UTF", value [[re "(*UTF)a"]])
  end)

  it("does not take a line feed for the end", function()
    assert.equal("false|true", value [[re "^\\d+$":test "1\n", re "^\\d+$":test "1"]])
  end)

  it("does not match across bytes that are no UTF-8", function()
    assert.equal("true|false|true", value [[re("b", "u"):test "\xffb", re("^..$", "u"):test "\xffb", re("^.$", "u"):test "é"]])
    assert.equal("b\xffXb", value [[(re("a", "u"):gsub("b\xffab", "X"))]])
  end)

  it("iterates over all matches, empty ones included", function()
    local all = "(function() local t = {} for %s in re(%s):gmatch(%s) do t[#t + 1] = %s end return table.concat(t, ';') end)()"
    assert.equal("a=1;b=2", value(all:format("k, v", "'(\\\\w)=(\\\\d)'", "'a=1, b=2'", "k .. '=' .. v")))
    assert.equal("a;;bb;;;c;", (value(all:format("m", "'[abc]*'", "'a-bb--c'", "m"))))
    assert.equal(";;", value(all:format("m", "''", "'ab'", "m")))
    assert.equal(";é;;é;", (value(all:format("m", "'é|', 'u'", "'xéyé'", "m"))))
    assert.equal("", value(all:format("m", "'z'", "'abc'", "m")))
  end)

  it("replaces by text, function or table", function()
    assert.equal("<a>-<b>|2", value [[re "\\w":gsub("a-b", "<$0>")]])
    assert.equal("b=a;d=c|2", value [[re "(?<k>\\w)=(\\w)":gsub("a=b;c=d", "$2=${k}")]])
    assert.equal("$5|1", value [[re "a":gsub("a", "$$5")]])
    assert.equal("-|1", value [[re "(a)|b":gsub("b", "$1-")]])
    assert.equal("A-b-C|3", value [[re "\\w":gsub("a-b-c", function(c) return c ~= "b" and c:upper() end)]])
    assert.equal("1-b|2", value [[re "\\w":gsub("a-b", { a = 1 })]])
    assert.equal("b|1", value [[re "(a)|b":gsub("b", { a = 1 })]])
    assert.equal("x-x-a|2", value [[re "a":gsub("a-a-a", "x", 2)]])
    assert.equal("abc|0", value [[re "a":gsub("abc", "x", 0)]])
    assert.equal("-a-b-|3", value [[re "":gsub("ab", "-")]])
    assert.equal("-é-|2", value [[re("", "u"):gsub("é", "-")]])
  end)

  it("survives its own use within a replacement", function()
    assert.equal("[a1][b1]|2", value [[(function()
      local word = re "(\\w)\\d"
      return word:gsub("a1b1", function(c) word:gsub("zzz9", "$1") return "[" .. c .. word:match "q1":gsub("q", "1") .. "]" end)
    end)()]])
  end)

  it("splits", function()
    local split = "table.concat(re(%s):split(%s), '|')"
    assert.equal("a|b||c", value(split:format("',\\\\s*'", "'a, b,,c'")))
    assert.equal("a|b, c", value(split:format("',\\\\s*'", "'a, b, c', 2")))
    assert.equal("a|b|c", value(split:format("''", "'abc'")))
    assert.equal("abc", value(split:format("'x'", "'abc'")))
    assert.equal("|", value(split:format("'x'", "'x'")))
    assert.matches("raised: .*at least 1", value [[re "a":split("a", 0)]])
  end)

  it("says where a pattern is wrong", function()
    assert.matches("raised: .*missing closing parenthesis at byte 3", value [[re "(a"]])
    assert.matches("raised: .*quantifier does not follow .* at byte 1", value [[re "*a"]])
    assert.matches("raised: .*more than 64 groups", value [[re(("(a)"):rep(65))]])
    assert.matches("raised: .*longer than 8192 bytes", value [[re(("a"):rep(8193))]])
    assert.matches("raised: .*string expected", value [[re(1)]])
    assert.matches("raised: .*no group 'x'", value [[re "a":gsub("a", "${x}")]])
    assert.matches("raised: .*no group '2'", value [[re "(a)":gsub("a", "$2")]])
    assert.matches("raised: .*without '}'", value [[re "a":gsub("a", "${x")]])
    assert.matches("raised: .*behind '%$'", value [[re "a":gsub("a", "$x")]])
    assert.matches("raised: .*not a table", value [[re "a":gsub("a", function() return {} end)]])
    assert.matches("raised: .*did you mean 'match'", value [[re "a":matc "a"]])
  end)

  it("never hangs: what takes too many steps raises, and is not taken for no match", function()
    for pattern, subject in pairs {
      ["(a+)+[bc]"] = "('a'):rep(5000)", ["a+(a+)[bc]"] = "('a'):rep(2000)", ["(?:a|aa)+[bc]"] = "('a'):rep(2000)", [".*?.*?.*?[bc]$"] = "('a'):rep(2000)",
      ["a*[bc]"] = "('a'):rep(200000)", ["(.*)(.*)(.*)(.*)(.*)[xy]"] = "('a'):rep(2000)", ["(?=.*.*.*[bc])a"] = "('a'):rep(2000)", ["(a*)*[bc]"] = "('a'):rep(5000)",
      ["(?:(?=a*+)a)*[bc]"] = "('a'):rep(50000)", ["^(?:a?){25}a{25}[bc]"] = "('a'):rep(30)", ["(a*)\\\\1*[bc]"] = "('a'):rep(5000)",
    } do
      local said
      local seconds = engine.cpu(function()
        said = value(("re '%s':test(%s)"):format(pattern, subject), { hook_cpu = 10 })
      end)
      assert.truthy(said:find "^raised: .*too_complex", pattern .. " " .. said)
      assert.is_true(seconds < (engine.few_errors and 10 or 1), pattern .. " " .. seconds)
    end
    local _ = value [[re "(?R)?a[bc]":test(("a"):rep(100000))]] -- comes back at all
  end)

  it("ends with the hook's budget", function()
    local state = engine.open [[
      local gate = require "moongate"
      local re, text = gate.re "(a+)+[bc]", ("a"):rep(30)
      return { on_request = function() while true do pcall(re.test, re, text) end end }
    ]]
    local seconds = engine.cpu(function() state:call "on_request" end)
    assert.is_true(seconds < (engine.few_errors and 10 or 1))
    assert.matches("over its CPU budget", engine.log())
  end)

  it("gives the same object for the same pattern, and forgets the oldest", function()
    assert.equal("true|false|a", value [[re "a" == re "a", re "a" == re("a", "i"), re "a".pattern]])
    assert.equal("true|false", value([[(function()
      local first, kept = re "first", re "kept"
      for i = 1, 1000 do re("x" .. i) re "kept" end
      return rawequal(kept, re "kept"), rawequal(first, re "first") end)()]], { hook_cpu = 5 }))
  end)

  it("counts patterns as the state's memory", function()
    local said = value([[(function()
      local all = {}
      for i = 1, 100000 do all[i] = re(("(?:%d|[a-z]{1,50}){1,20}"):format(i)) end
      return "all of them" end)()]], { hook_cpu = 60, memory = 8 << 20 })
    assert.matches("memory", said)
  end)
end)
