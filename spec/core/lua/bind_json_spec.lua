-- gate.json.
-- luacheck: no max line length (texts stand in one line)

local engine = require "core.lua.engine"

local function value(text, options) return engine.run("local json = gate.json return " .. text, options) end

-- What comes out when a text is decoded and encoded again.
local function again(text) return value(("json.encode(json.decode(%q), { sort_keys = true })"):format(text)) end

describe("gate.json", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  describe("decode", function()
    it("reads every kind of value, at the top too", function()
      assert.equal("1|1.5|true|false|x|true", value [[json.decode "1", json.decode "1.5", json.decode "true", json.decode "false", json.decode '"x"', json.decode "null" == json.null]])
      assert.equal("b|2", value [[json.decode('{"a":{"b":["x","b"]}}').a.b[2], #json.decode "[1,2]"]])
    end)

    it("keeps 64-bit integers, and floats to the last bit", function()
      assert.equal("9223372036854775807|-9223372036854775808|integer|float", value [[
        json.decode "9223372036854775807", json.decode "-9223372036854775808", math.type(json.decode "1"), math.type(json.decode "1.0")]])
      for _, text in ipairs { "0.1", "1e-300", "1.7976931348623157e+308", "4.94065645841247e-324", "3.141592653589793", "1e+100", "-0.0", "100.0", "1.2345678901234568e+17" } do
        assert.equal(text, again(text))
      end
    end)

    it("decodes escapes, NUL and surrogates included", function()
      assert.equal('true', value [[json.decode '"\\u0000\\u00e9\\ud83c\\udf15\\n\\/"' == "\0é🌕\n/"]])
    end)

    it("says where a text is no JSON", function()
      assert.matches("^nil|bad_json|line 3, column 7: ", value [[json.decode '{\n"a": 1,\n"b" : x}']])
      for _, text in ipairs {
        "", "{", "[1,]", "{'a':1}", '{"a":1,}', "01", "1.", "+1", "nan", "[1 2]", '"\\x"', '"\1"', "\255", '"\\ud800"', "1 1", "9223372036854775808", "1e999", '{"a\\u0000":1}',
      } do
        assert.matches("^nil|bad_json|line %d+, column %d+: ", value(("json.decode(%q)"):format(text)))
      end
    end)

    it("bounds depth, length and the number of values", function()
      assert.equal("table", value "type(json.decode(('['):rep(64) .. (']'):rep(64)))")
      assert.equal("nil|bad_json|deeper than 64 levels", value "json.decode(('['):rep(65))")
      assert.equal("nil|bad_json|deeper than 2 levels", value "json.decode('[[[]]]', { max_depth = 2 })")
      assert.equal("nil|bad_json|the text has too many values", value("json.decode('[' .. ('[],'):rep(1 << 18) .. '0]')", { hook_cpu = 1 }))
      assert.equal("nil|bad_json|the text is longer than 8 MiB", value("json.decode((' '):rep((8 << 20) + 1))", { hook_cpu = 1 }))
      assert.equal("raised: nowhere/config.lua:8: gate.json.decode: max_depth is a whole number from 1 to 128", value "json.decode('1', { max_depth = 129 })")
      assert.matches("raised: .*string expected", value "json.decode(1)")
    end)

    it("is charged for by its length", function()
      local state = engine.open [[
        local gate = require "moongate"
        local text = "[" .. ("1,"):rep(100000) .. "1]"
        return { on_request = function() for _ = 1, 1000 do gate.json.decode(text) end end }
      ]]
      assert.is_true(engine.cpu(function() state:call "on_request" end) < (engine.few_errors and 20 or 2))
      assert.matches("over its CPU budget", engine.log())
    end)
  end)

  describe("encode", function()
    it("keeps [] and {} apart", function()
      assert.equal('{"a":[],"b":{},"c":[[]]}', again '{"a":[],"b":{},"c":[[]]}')
      assert.equal("{}|[]|[]", value "json.encode {}, json.encode(json.array {}), json.encode(json.array())")
    end)

    it("keeps the mark of an array that is emptied", function()
      assert.equal("[]", value "(function() local t = json.decode '[1]' t[1] = nil return json.encode(t) end)()")
    end)

    it("writes with sorted keys and indentation", function()
      assert.equal('{\n  "a": [\n    1,\n    {}\n  ],\n  "b": null\n}', value "json.encode({ b = json.null, a = { 1, {} } }, { indent = 2, sort_keys = true })")
      assert.equal('{\n"a": []\n}', value "json.encode({ a = json.array() }, { indent = 0 })")
      assert.equal('{"":0,"A":1,"B":2,"a":3,"aa":4}', value "json.encode({ aa = 4, a = 3, B = 2, A = 1, [''] = 0 }, { sort_keys = true })")
    end)

    it("escapes what must be, and nothing else", function()
      assert.equal([["\"\\/\b\f\n\r\t\u0000\u001f]] .. "\127é🌕\"", value [[json.encode "\"\\/\b\f\n\r\t\0\31\127é🌕"]])
    end)

    it("writes numbers so that they are read as the same", function()
      assert.equal("1|1.0|0.1|-9223372036854775808|1e+15|1e-07", value "json.encode(1), json.encode(1.0), json.encode(0.1), json.encode(math.mininteger), json.encode(1e15), json.encode(1e-7)")
    end)

    it("says which string is not UTF-8", function()
      assert.equal("nil|bad_json|value.a[2].b: the string is not UTF-8 at byte 2", value [[json.encode { a = { 1, { b = "x\255" } } }]])
      assert.equal("nil|bad_json|value.\xc0: the key is not UTF-8 at byte 1", value [[json.encode { ["\xc0"] = 1 }]])
      for _, bytes in ipairs { "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8", "\xc3", "\xe2\x82" } do
        assert.matches("^nil|bad_json|value: the string is not UTF%-8 at byte 1", value(("json.encode(%q)"):format(bytes)))
      end
    end)

    it("raises for what JSON has not, naming the path", function()
      for text, sentence in pairs {
        ["{ a = { 1, print } }"] = "value.a[2]: JSON has no function", ["{ a = 0/0 }"] = "value.a: JSON has no infinity", ["1/0"] = "value: JSON has no infinity",
        ["{ 1, nil, 3 }"] = "value: an array with holes", ["{ x = { 1, n = 1 } }"] = "value.x: an array with holes", ["{ [1.5] = 1 }"] = "a number among its keys",
        ["{ x = { [{}] = 1 } }"] = "value.x: a table with a table among its keys", ["json.array { a = 1 }"] = "value: an array with holes", ["coroutine.create(print)"] = "JSON has no thread",
        ["{ x = { [2] = 1 } }"] = "value.x: a table with a number among its keys", ["gate.reply(200)"] = "JSON has no userdata",
      } do
        for _, options in ipairs { "", ", { sort_keys = true }" } do
          local said = value(("json.encode(%s%s)"):format(text, options))
          assert.matches("^raised: ", said)
          assert.truthy(said:find(sentence, 1, true), said)
        end
      end
      assert.matches("raised: .*value expected", value "json.encode()")
      assert.matches("raised: .*did you mean 'sort_keys'", value "json.encode(1, { sort_key = true })")
      assert.matches("raised: .*indent is", value "json.encode(1, { indent = 9 })")
    end)

    it("raises for cycles and depth", function()
      assert.matches("raised: .*value.a.b: the table contains itself", value "(function() local t = { a = {} } t.a.b = t return json.encode(t) end)()")
      assert.matches("raised: .*deeper than 128 levels", value "(function() local t = {} for _ = 1, 200 do t = { t } end return json.encode(t) end)()")
      assert.equal("[[],[]]", value "(function() local t = json.array() return json.encode { t, t } end)()")
    end)

    it("reads tables raw", function()
      assert.equal("{}", value "json.encode(setmetatable({}, { __index = function() return 1 end, __len = function() return 9 end, __pairs = error }))")
    end)

    it("bounds the text", function()
      assert.matches("raised: .*longer than 8 MiB", value("json.encode { ('x'):rep(5 << 20), ('x'):rep(5 << 20) }", { hook_cpu = 1 }))
    end)
  end)

  it("marks only tables without a metatable", function()
    assert.matches("raised: .*has a metatable", value "json.array(setmetatable({}, {}))")
    assert.equal("true", value "(function() local t = {} return json.array(json.array(t)) == t end)()")
    assert.equal("false", value "getmetatable(json.array())")
  end)
end)
