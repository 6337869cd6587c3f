local shared = require("moongate_core").store.shared

describe("a shared dictionary", function()
  local dictionary
  before_each(function() dictionary = shared.open("spec", 0) end)
  after_each(function() shared.close_all() end)

  local function get(key) return (shared.get(dictionary, key)) end

  it("is one for all who open it by its name", function()
    assert.equal(dictionary, shared.open("spec", 1000))
    assert.not_equal(dictionary, shared.open("other", 0))
  end)

  it("keeps booleans, integers, numbers and strings as they are", function()
    local long = ("x"):rep(100000)
    for _, value in ipairs { true, false, 1, -1, math.maxinteger, math.mininteger, 0.5, "", "text", "a\0b", long } do
      assert.equal("ok", shared.set(dictionary, "key", value))
      assert.equal(value, get "key")
      assert.equal(math.type(value), math.type(get "key"))
    end
    assert.is_nil(get "another")
  end)

  it("replaces values and gives their memory back", function()
    shared.set(dictionary, "key", ("x"):rep(1000))
    shared.set(dictionary, "key", "short")
    local count, small = shared.size(dictionary)
    assert.equal(1, count)
    shared.set(dictionary, "key", ("x"):rep(1000))
    local _, large = shared.size(dictionary)
    assert.equal(995, large - small)
    assert.is_true(shared.remove(dictionary, "key"))
    assert.is_false(shared.remove(dictionary, "key"))
    assert.same({ 0, 0 }, { shared.size(dictionary) })
  end)

  it("keeps many keys, each its own", function()
    for i = 1, 20000 do shared.set(dictionary, "key" .. i, i) end
    for i = 1, 20000 do assert(get("key" .. i) == i) end
    for i = 1, 20000, 2 do shared.remove(dictionary, "key" .. i) end
    for i = 1, 20000 do assert(get("key" .. i) == (i % 2 == 0 and i or nil)) end
    assert.equal(10000, (shared.size(dictionary)))
  end)

  it("refuses keys that are empty or longer than 1024 bytes", function()
    assert.equal("too_large", shared.set(dictionary, "", 1))
    assert.equal("too_large", shared.set(dictionary, ("k"):rep(1025), 1))
    assert.equal("ok", shared.set(dictionary, ("k"):rep(1024), 1))
    assert.is_nil(get(""))
    assert.is_nil(get(("k"):rep(1025)))
  end)

  it("forgets a key when it is set to nothing", function()
    shared.set(dictionary, "key", 1)
    shared.set(dictionary, "key", nil)
    assert.is_nil(get "key")
    assert.same({ 0, 0 }, { shared.size(dictionary) })
  end)

  describe("with a time to live", function()
    it("keeps a key for that time and says what is left", function()
      shared.set(dictionary, "key", 1, 0.1)
      local value, left = shared.get(dictionary, "key")
      assert.equal(1, value)
      assert.is_true(left > 0 and left <= 0.1)
      shared.pass(0.1)
      assert.same({ nil, 0 }, { shared.get(dictionary, "key") })
      assert.is_false(shared.remove(dictionary, "key"))
    end)

    it("keeps a key for ever when it is set again without", function()
      shared.set(dictionary, "key", 1, 0.001)
      shared.set(dictionary, "key", 2)
      shared.pass(0.002)
      assert.same({ 2, 0 }, { shared.get(dictionary, "key") })
    end)

    it("expires keys in whatever order they were set, moved and removed", function()
      math.randomseed(7)
      local lives = {}
      for _ = 1, 3000 do
        local key, ttl = "key" .. math.random(500), math.random(4)
        if math.random(5) == 1 then
          shared.remove(dictionary, key)
          lives[key] = nil
        else
          shared.set(dictionary, key, "value", ttl == 4 and 0 or ttl < 3 and 0.000001 * ttl or 60)
          lives[key] = ttl >= 3 and "value" or nil
        end
      end
      shared.pass(0.001)
      for i = 1, 500 do assert(get("key" .. i) == lives["key" .. i]) end
      local live = 0
      for _ in pairs(lives) do live = live + 1 end
      assert.equal(live, #shared.keys(dictionary))
      for key in pairs(lives) do shared.remove(dictionary, key) end
      for i = 1, 500 do shared.remove(dictionary, "key" .. i) end
      assert.same({ 0, 0 }, { shared.size(dictionary) })
    end)
  end)

  describe("that adds", function()
    it("adds only what is absent or expired", function()
      assert.same({ true, "ok" }, { shared.add(dictionary, "key", 1, 0.001) })
      shared.pass(0.002)
      assert.same({ true, "ok" }, { shared.add(dictionary, "key", 2) })
      assert.same({ false, "ok" }, { shared.add(dictionary, "key", 3) })
      assert.equal(2, get "key")
    end)
  end)

  describe("that counts", function()
    it("begins at the start it is given and keeps integers integers", function()
      assert.equal(11, shared.incr(dictionary, "n", 1, 10))
      assert.equal(9, shared.incr(dictionary, "n", -2, 10))
      assert.equal("integer", math.type(get "n"))
      assert.equal(9.5, shared.incr(dictionary, "n", 0.5))
      assert.equal("float", math.type(get "n"))
      assert.equal(10.5, shared.incr(dictionary, "n", 1))
    end)

    it("wraps integers round as Lua does", function()
      shared.set(dictionary, "n", math.maxinteger)
      assert.equal(math.mininteger, shared.incr(dictionary, "n", 1))
    end)

    it("refuses what is absent without a start, and what is no number", function()
      assert.same({ nil, "ok" }, { shared.incr(dictionary, "n", 1) })
      shared.set(dictionary, "n", "text")
      assert.same({ nil, "ok" }, { shared.incr(dictionary, "n", 1, 0) })
      assert.equal("text", get "n")
    end)

    it("sets the time to live when it begins, and keeps it", function()
      shared.incr(dictionary, "n", 1, 0, 0.02)
      shared.incr(dictionary, "n", 1, 0, 60)
      local _, left = shared.get(dictionary, "n")
      assert.is_true(left <= 0.02)
      shared.pass(0.02)
      assert.equal(1, shared.incr(dictionary, "n", 1, 0))
    end)
  end)

  describe("that is full", function()
    local small
    before_each(function() small = shared.open("small", 20000) end)

    local function fill(ttl)
      local i = 0
      repeat
        i = i + 1
      until shared.set(small, "key" .. i, ("x"):rep(500), ttl) ~= "ok"
      return i - 1
    end

    it("refuses to grow, and evicts nothing", function()
      local count = fill()
      assert.is_true(count > 20 and count < 40)
      assert.equal("too_large", shared.set(small, "more", ("x"):rep(500)))
      assert.same({ false, "too_large" }, { shared.add(small, "more", ("x"):rep(500)) })
      assert.equal(count, (shared.size(small)))
      for i = 1, count do assert.truthy((shared.get(small, "key" .. i))) end
      local _, bytes = shared.size(small)
      assert.is_true(bytes <= 20000)
    end)

    it("still replaces a value by one that is not larger", function()
      fill()
      assert.equal("ok", shared.set(small, "key1", ("y"):rep(500)))
      assert.equal("too_large", shared.set(small, "key1", ("y"):rep(2000)))
      assert.equal(("y"):rep(500), (shared.get(small, "key1")))
    end)

    it("says so to who counts", function()
      local n = 0
      repeat
        n = n + 1
        local _, word = shared.incr(small, ("n"):rep(1000) .. n, 1, 0)
      until word
      assert.same({ nil, "too_large" }, { shared.incr(small, ("n"):rep(1024), 1, 0) })
      assert.equal(2, shared.incr(small, ("n"):rep(1000) .. 1, 1, 0))
    end)

    it("makes room by all that has expired, in whatever shard", function()
      local count = fill(0.1)
      shared.pass(0.11)
      for i = 1, count do assert.equal("ok", shared.set(small, "new" .. i, ("x"):rep(500))) end
    end)

    it("refuses a value larger than all of it at once", function()
      assert.equal("too_large", shared.set(small, "key", ("x"):rep(20001)))
    end)
  end)

  it("lists its live keys, as many as are wanted", function()
    for i = 1, 100 do shared.set(dictionary, "key" .. i, i, i % 2 == 0 and 0.000001 or 0) end
    shared.pass(0.001)
    local keys = shared.keys(dictionary)
    table.sort(keys)
    assert.equal(50, #keys)
    assert.equal("key1", keys[1])
    assert.equal(3, #shared.keys(dictionary, 3))
    assert.same({}, shared.keys(shared.open("empty", 0)))
  end)

  it("is exact when many threads use it at once", function()
    shared.hammer(dictionary, 8, 5000)
    assert.equal(40000, get "sum")
    for _, key in ipairs(shared.keys(dictionary)) do shared.remove(dictionary, key) end
    shared.pass(0.001)
    for i = 0, 6 do shared.remove(dictionary, "k" .. string.char(97 + i)) end
    assert.same({ 0, 0 }, { shared.size(dictionary) })
  end)
end)
