local value = require "moongate_core".value

local function keys_of(pairs_of) return value.build(pairs_of):keys() end

describe("a value", function()
  it("says what it is", function()
    local kinds = { ["an integer"] = 1, ["a number"] = 1.5, ["a string"] = "x", ["a boolean"] = true,
      ["a table"] = {} }
    for kind, v in pairs(kinds) do assert.equal(kind, value.from(v):kind()) end
    assert.equal("nothing", value.from(nil):kind())
    assert.equal("a function", value.from(print):kind())
    assert.equal("userdata", value.from(io.stdout):kind())
  end)

  it("finds keys and positions", function()
    local v = value.from { 10, 20, 30, name = "x", deep = { a = 1 }, [100] = "far" }
    assert.equal(10, v:at(1))
    assert.equal(30, v:at(3))
    assert.is_nil(v:at(0))
    assert.is_nil(v:at(4))
    assert.equal("x", v:get "name")
    assert.equal("a table", v:get "deep")
    assert.is_nil(v:get "nam")
    assert.is_nil(v:get "namee")
    assert.is_nil(value.from(1):get "x")
    assert.is_nil(value.from(1):at(1))
  end)

  it("keeps the sequence first and the rest sorted, however they came", function()
    local keys, sequence = keys_of { { "b", 1 }, { 3, 1 }, { true, 1 }, { 1, 1 }, { "a", 1 }, { -5, 1 }, { 2, 1 },
      { 1.5, 1 }, { 9, 1 } }
    assert.same({ 1, 2, 3, -5, 1.5, 9, "a", "b", true }, keys)
    assert.equal(3, sequence)
  end)

  it("replaces what is added again", function()
    local v = value.build { { "a", 1 }, { 1, "x" }, { "a", 2 }, { 1, "y" } }
    assert.equal(2, v:get "a")
    assert.equal("y", v:at(1))
    assert.equal(2, #(v:keys()))
  end)

  it("equals another with the same content, functions being equal to functions", function()
    local function same(a, b) return value.from(a):equal(value.from(b)) end
    assert.is_true(same({ 1, 2, x = { y = "z" } }, { 1, 2, x = { y = "z" } }))
    assert.is_true(same({ f = print }, { f = type }))
    assert.is_true(same(0 / 0, 0 / 0))
    assert.is_false(same({ f = print }, { f = 1 }))
    assert.is_false(same({ 1, 2 }, { 1, 2, 3 }))
    assert.is_false(same({ x = 1 }, { y = 1 }))
    assert.is_false(same({ x = { 1 } }, { x = { 2 } }))
    assert.is_false(same(1, 1.0))
    assert.is_false(same("a", "b"))
    assert.is_false(same(true, false))
  end)

  it("tells where it differs from another", function()
    local function difference(a, b) return value.from(a):difference(value.from(b)) end
    assert.equal("", difference(1, 2))
    assert.equal("x", difference({ x = 1 }, { x = 2 }))
    assert.equal("[2]", difference({ 1, 2 }, { 1, 3 }))
    assert.equal("[3]", difference({ 1, 2 }, { 1, 2, 3 }))
    assert.equal("[3]", difference({ 1, 2, 3 }, { 1, 2 }))
    assert.equal("sites[2].hosts[1]",
      difference({ sites = { {}, { hosts = { "a" } } } }, { sites = { {}, { hosts = { "b" } } } }))
    assert.equal("sites[1].x", difference({ sites = { { x = {} } } }, { sites = { { x = 1 } } }))
    assert.equal("", difference({ [true] = 1 }, { [true] = 2 }))
    local long = ("k"):rep(100)
    assert.equal(("k"):rep(31), difference({ [long] = { [long] = 1 } }, { [long] = { [long] = 2 } }))
  end)

  it("survives the one it was copied from", function()
    local v = value.from { "a", "b", x = { y = "deep" }, f = print }
    local copy = v:copy()
    assert.is_true(copy:equal(v))
    v = nil -- luacheck: ignore
    collectgarbage()
    assert.equal("a", copy:at(1))
    assert.equal("a table", copy:get "x")
  end)

  it("does with 1,000 random keys what a table does", function()
    math.randomseed(11)
    local model, list = {}, {}
    for i = 1, 1000 do
      local key = math.random(2) == 1 and math.random(400) or "k" .. math.random(400)
      model[key] = i
      list[i] = { key, i }
    end
    local v = value.build(list)
    local keys, sequence = v:keys()
    local n = 0
    for _ in pairs(model) do n = n + 1 end
    assert.equal(n, #keys)
    for i = 1, sequence do
      assert.equal(i, keys[i])
      assert.equal(model[i], v:at(i))
    end
    assert.is_nil(model[sequence + 1])
    for key, x in pairs(model) do
      if type(key) == "string" then assert.equal(x, v:get(key)) end
    end
  end)
end)
