local frozen = require("moongate_core").frozen

describe("a frozen map", function()
  local made = {}
  local function make(list, name)
    local f, why, place = frozen.make(name or "spec", list)
    if f then made[#made + 1] = f end
    return f, why, place
  end
  local function read(...)
    local f, why, line = frozen.read(...)
    if f then made[#made + 1] = f end
    return f, why, line
  end
  after_each(function()
    for _, f in ipairs(made) do frozen.unref(f) end
    made = {}
  end)

  it("gives the values of its keys, of every kind, and nothing for others", function()
    local values = {
      "text", "", "a\0b", ("x"):rep(100000), 0, -1, 63, 64, math.maxinteger, math.mininteger, 0.5, true, false,
    }
    local list = {}
    for i, value in ipairs(values) do list[2 * i - 1], list[2 * i] = "k" .. i, value end
    local f = make(list)
    for i, value in ipairs(values) do
      assert.equal(value, frozen.get(f, "k" .. i))
      assert.equal(math.type(value), math.type(frozen.get(f, "k" .. i)))
    end
    for _, key in ipairs { "", "k", "k0", "k14", "k1\0", ("k"):rep(1024), ("k"):rep(5000) } do
      assert.is_nil(frozen.get(f, key))
    end
  end)

  it("finds each of many keys, and none that is not there", function()
    local list = {}
    for i = 1, 50000 do list[2 * i - 1], list[2 * i] = "key-" .. i, i end
    local f = make(list)
    for i = 1, 50000 do assert(frozen.get(f, "key-" .. i) == i) end
    for i = 50001, 100000 do assert(frozen.get(f, "key-" .. i) == nil) end
    local count, bytes = frozen.size(f)
    assert.equal(50000, count)
    assert.is_true(bytes / count < 30, bytes / count)
  end)

  it("is empty when nothing was added", function()
    local f = make {}
    assert.is_nil(frozen.get(f, "x"))
    assert.is_nil((frozen.prefix(f, "x")))
    assert.same({}, frozen.all(f))
  end)

  it("shows its entries in the order in which they came", function()
    local f = make { "z", 1, "a", "text", "m", true }
    assert.same({ "z=1", "a=text", "m=true" }, frozen.all(f))
  end)

  it("takes the same entry twice for one, wherever it stands", function()
    local f = make { "a", 1, "b", "x", "a", 1, "c", 3, "b", "x", "d", 4 }
    assert.same({ "a=1", "b=x", "c=3", "d=4" }, frozen.all(f))
    assert.equal(4, (frozen.size(f)))
    for key, value in pairs { a = 1, b = "x", c = 3, d = 4 } do assert.equal(value, frozen.get(f, key)) end
  end)

  it("is refused when a key comes again with another value, by its place", function()
    assert.same({ nil, "clash", 5 }, { make { "a", 1, "b", 2, "a", 2 } })
    assert.same({ nil, "clash", 3 }, { make { "a", 1, "a", 1.0 } })
    assert.same({ nil, "clash", 3 }, { make { "a", "1", "a", 1 } })
  end)

  it("knows the longest of its keys that a text begins with, and looks only for lengths there are", function()
    local f = make { "/", 1, "/api/", 2, "/api/v1/", 3, ("k"):rep(1024), 4, ("l"):rep(64), 5, ("l"):rep(63), 6 }
    assert.same({ 3, "/api/v1/", 1 }, { frozen.prefix(f, "/api/v1/x") })
    assert.same({ 2, "/api/", 2 }, { frozen.prefix(f, "/api/v2/x") })
    assert.same({ 1, "/", 3 }, { frozen.prefix(f, "/other/path") })
    assert.same({ nil, nil, 3 }, { frozen.prefix(f, "none of them") })
    assert.equal(4, (frozen.prefix(f, ("k"):rep(3000))))
    assert.equal(5, (frozen.prefix(f, ("l"):rep(65))))
    assert.equal(6, (frozen.prefix(f, ("l"):rep(63))))
    assert.is_nil((frozen.prefix(f, "")))
  end)

  it("is one for all who make it of the same, as long as somebody has it", function()
    local f = make({ "a", 1 }, "same")
    assert.equal(f, make({ "a", 1 }, "same"))
    assert.not_equal(f, make({ "a", 1 }, "other"))
    assert.equal(f, frozen.find "same")
    frozen.unref(f)
    for _, one in ipairs(made) do frozen.unref(one) end
    made = {}
    assert.is_nil(frozen.find "same")
  end)

  describe("read from text", function()
    local function shown(...)
      local f, why, line = read(...)
      return f and table.concat(frozen.all(f), "|") or ("%d: %s"):format(line, why)
    end

    it("takes lines apart at their first white space", function()
      assert.equal("a=b c|d=true|e=x", shown("a b c \n d\r\n#no\n\n\t e \t x", "lines"))
      assert.equal("", shown("", "lines"))
      assert.equal("\"a=b\"", shown("\"a b\"", "lines"))
    end)

    it("takes CSV apart by RFC 4180, whatever its lines end in", function()
      assert.equal("a=b|c=d", shown("a,b\r\nc,d\r\n", "csv"))
      assert.equal("a=b|c=d", shown("a,b\nc,d", "csv"))
      assert.equal('a,"=,\n"|b=|c=true| d= e ', shown('"a,""",",\n"""\nb,\nc\n d, e ', "csv"))
      assert.equal("1: its quotes do not end", shown('"', "csv"))
      assert.equal("2: its quotes do not end", shown('a,b\nc,"""\n\n', "csv"))
      assert.equal("1: it has no key", shown('"",x', "csv"))
      assert.equal("1: something stands behind its quotes", shown('a,"b"c', "csv"))
      assert.equal('a=b"c', shown('a,b"c', "csv"))
      assert.equal("a\r=b\rc", shown("a\r,b\rc\r\n", "csv"))
    end)

    it("takes TSV apart at its tab", function()
      assert.equal("a = b|c=true|d=", shown("a \t b\nc\nd\t\n", "tsv"))
      assert.equal("2: it has no key", shown("a\tb\n\tc", "tsv"))
    end)

    it("reads numbers strictly", function()
      local text = "a 1\nb -2\nc 5e-1\nd 100000000000000000000\ne"
      assert.equal("a=1|b=-2|c=0.5|d=1e+20|e=true", shown(text, "lines", true))
      for _, number in ipairs { "x", "1x", "1 2", "nan", "inf", "-", "1e999", ("1"):rep(65) } do
        assert.equal("1: its value is no number", shown("a " .. number, "lines", true))
      end
    end)

    it("reads JSON objects", function()
      assert.equal("a=1|b=0.5|c=x|d=false|e=table of 2|f=table of 0", shown(
        '{"a":1,"b":0.5,"c":"x","d":false,"e":[1,{"x":[]}],"f":{}}', "json"))
      assert.equal("", shown("{}", "json"))
      assert.equal("1: it is no object", shown("[]", "json"))
      assert.matches("^3: ", shown('{\n"a":1,\n}', "json"))
      assert.matches("^1: ", shown("", "json"))
      assert.matches("'a': null is no value", shown('{"a":null}', "json"))
    end)

    it("leaves out a byte order mark", function()
      assert.equal("a=1", shown("\xEF\xBB\xBFa 1", "lines"))
      assert.equal("a=1", shown('\xEF\xBB\xBF{"a":1}', "json"))
    end)
  end)
end)
