local shared = require("moongate_core").store.shared

describe("a shared dictionary", function()
  local dictionary
  before_each(function()
    shared.bounds(16 << 20, false)
    dictionary = shared.open "spec"
  end)
  after_each(function() shared.close_all() end)

  local function get(key) return (shared.get(dictionary, key)) end

  it("is one for all who open it by its name", function()
    assert.equal(dictionary, shared.open "spec")
    assert.not_equal(dictionary, shared.open "other")
  end)

  it("keeps booleans, integers, numbers and strings as they are", function()
    local long = ("x"):rep(100000)
    for _, value in ipairs { true, false, 1, -1, math.maxinteger, math.mininteger, 0.5, "", "text", "a\0b", long } do
      assert.same({ true, "ok" }, { shared.set(dictionary, "key", value) })
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
    assert.same({ false, "too_large" }, { shared.set(dictionary, "", 1) })
    assert.same({ false, "too_large" }, { shared.set(dictionary, ("k"):rep(1025), 1) })
    assert.is_true((shared.set(dictionary, ("k"):rep(1024), 1)))
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
      assert.equal(live, #shared.walk(dictionary))
      for key in pairs(lives) do shared.remove(dictionary, key) end
      for i = 1, 500 do shared.remove(dictionary, "key" .. i) end
      assert.same({ 0, 0 }, { shared.size(dictionary) })
    end)
  end)

  describe("that adds", function()
    it("adds only what is absent or expired", function()
      assert.same({ true, "ok" }, { shared.set(dictionary, "key", 1, 0.001, "absent") })
      shared.pass(0.002)
      assert.same({ true, "ok" }, { shared.set(dictionary, "key", 2, 0, "absent") })
      assert.same({ false, "ok" }, { shared.set(dictionary, "key", 3, 0, "absent") })
      assert.equal(2, get "key")
    end)

    it("replaces only what is there and has not expired", function()
      assert.same({ false, "ok" }, { shared.set(dictionary, "key", 1, 0, "present") })
      assert.is_nil(get "key")
      shared.set(dictionary, "key", 1, 0.001)
      assert.same({ true, "ok" }, { shared.set(dictionary, "key", 2, 0.001, "present") })
      assert.equal(2, get "key")
      shared.pass(0.002)
      assert.same({ false, "ok" }, { shared.set(dictionary, "key", 3, 0, "present") })
    end)

    it("swaps a value only for the very one that is expected", function()
      assert.same({ false, "ok" }, { shared.swap(dictionary, "key", "a", "b") })
      assert.same({ true, "ok" }, { shared.swap(dictionary, "key", nil, "a") })
      assert.same({ false, "ok" }, { shared.swap(dictionary, "key", nil, "b") })
      assert.same({ false, "ok" }, { shared.swap(dictionary, "key", "A", "b") })
      assert.same({ true, "ok" }, { shared.swap(dictionary, "key", "a", 1) })
      assert.same({ false, "ok" }, { shared.swap(dictionary, "key", 1.0, 2) })
      assert.same({ true, "ok" }, { shared.swap(dictionary, "key", 1, false) })
      assert.same({ false, "ok" }, { shared.swap(dictionary, "key", true, 2) })
      assert.same({ true, "ok" }, { shared.swap(dictionary, "key", false, nil) })
      assert.same({ 0, 0 }, { shared.size(dictionary) })
    end)

    it("keeps the time to live when it swaps, unless it is given another", function()
      shared.set(dictionary, "key", 1, 50)
      shared.swap(dictionary, "key", 1, 2)
      local _, left = shared.get(dictionary, "key")
      assert.is_true(left > 0 and left <= 50)
      shared.swap(dictionary, "key", 2, 3, 100)
      _, left = shared.get(dictionary, "key")
      assert.is_true(left > 50)
      shared.swap(dictionary, "key", 3, 4, 0)
      assert.same({ 4, 0 }, { shared.get(dictionary, "key") })
    end)
  end)

  it("lets a key live on, for a time or for ever", function()
    assert.is_false(shared.touch(dictionary, "key", 1))
    shared.set(dictionary, "key", 1, 0.001)
    assert.is_true(shared.touch(dictionary, "key", 60))
    shared.pass(0.002)
    assert.is_true(select(2, shared.get(dictionary, "key")) > 50)
    assert.is_true(shared.touch(dictionary, "key"))
    assert.same({ 1, 0 }, { shared.get(dictionary, "key") })
    assert.is_true(shared.touch(dictionary, "key", 0.001))
    shared.pass(0.002)
    assert.is_false(shared.touch(dictionary, "key", 1))
  end)

  it("is empty after it was cleared, and goes on", function()
    for i = 1, 1000 do shared.set(dictionary, "key" .. i, i, i % 2 == 0 and 60 or 0) end
    assert.equal(1000, shared.clear(dictionary))
    assert.same({ 0, 0 }, { shared.size(dictionary) })
    assert.is_nil(get "key1")
    for i = 1, 1000 do shared.set(dictionary, "key" .. i, -i, i % 2 == 0 and 0.001 or 0) end
    assert.equal(-999, get "key999")
    shared.pass(0.002)
    assert.is_nil(get "key1000")
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
    before_each(function()
      shared.bounds(20000, false)
      small = shared.open "small"
    end)

    local function fill(ttl)
      local i = 0
      repeat
        i = i + 1
      until not shared.set(small, "key" .. i, ("x"):rep(500), ttl)
      return i - 1
    end

    it("refuses to grow, and evicts nothing", function()
      local count = fill()
      assert.is_true(count > 20 and count < 40)
      assert.same({ false, "full" }, { shared.set(small, "more", ("x"):rep(500)) })
      assert.same({ false, "full" }, { shared.set(small, "more", ("x"):rep(500), 0, "absent") })
      assert.same({ false, "full" }, { shared.swap(small, "more", nil, ("x"):rep(500)) })
      assert.equal(count, (shared.size(small)))
      for i = 1, count do assert.truthy((shared.get(small, "key" .. i))) end
      local _, bytes = shared.size(small)
      assert.is_true(bytes <= 20000)
    end)

    it("still replaces a value by one that is not larger", function()
      fill()
      assert.is_true((shared.set(small, "key1", ("y"):rep(500))))
      assert.same({ false, "full" }, { shared.set(small, "key1", ("y"):rep(2000)) })
      assert.equal(("y"):rep(500), (shared.get(small, "key1")))
    end)

    it("says so to who counts", function()
      local n = 0
      repeat
        n = n + 1
        local _, word = shared.incr(small, ("n"):rep(1000) .. n, 1, 0)
      until word ~= "ok"
      assert.same({ nil, "full" }, { shared.incr(small, ("n"):rep(1024), 1, 0) })
      assert.equal(2, (shared.incr(small, ("n"):rep(1000) .. 1, 1, 0)))
    end)

    it("makes room by all that has expired, in whatever shard", function()
      local count = fill(0.1)
      shared.pass(0.11)
      for i = 1, count do assert.is_true((shared.set(small, "new" .. i, ("x"):rep(500)))) end
    end)

    it("refuses a value larger than all of it at once", function()
      assert.same({ false, "too_large" }, { shared.set(small, "key", ("x"):rep(20001)) })
    end)

    it("drops what was used longest ago where that is wanted", function()
      shared.bounds(20000, true)
      for i = 1, 200 do
        assert.is_true((shared.set(small, "n" .. i, ("x"):rep(500))))
        for j = math.max(1, i - 15), i do assert(shared.get(small, "n" .. j), i) end
      end
      shared.clear(small)
      shared.bounds(20000, false)
      local count = fill()
      shared.bounds(20000, true)
      shared.get(small, "key1")
      for i = 1, count * 4 do
        assert.is_true((shared.set(small, "new" .. i, ("x"):rep(500))))
        assert.equal(("x"):rep(500), (shared.get(small, "key1"))) -- used again and again
      end
      local _, bytes = shared.size(small)
      assert.is_true(bytes <= 20000)
      for i = 2, count do assert.is_nil((shared.get(small, "key" .. i))) end
      assert.equal(1, (shared.incr(small, ("n"):rep(1000), 1, 0)))
    end)
  end)

  it("shows each of its live keys once in a walk", function()
    for i = 1, 5000 do shared.set(dictionary, "key" .. i, i, i % 2 == 0 and 0.000001 or 0) end
    shared.pass(0.001)
    local keys = shared.walk(dictionary)
    table.sort(keys)
    assert.equal(2500, #keys)
    for i = 2, #keys do assert.not_equal(keys[i - 1], keys[i]) end
    assert.same({}, shared.walk(shared.open "empty"))
  end)

  it("shows what stays once in a walk, though keys come and go and its tables grow meanwhile", function()
    for i = 1, 2000 do shared.set(dictionary, "stays" .. i, i) end
    local more = 0
    local keys = shared.walk(dictionary, function()
      for _ = 1, 100 do
        more = more + 1
        shared.set(dictionary, "comes" .. more, 1)
        shared.remove(dictionary, "comes" .. more // 2)
      end
    end)
    local seen = {}
    for _, key in ipairs(keys) do
      assert.is_nil(seen[key])
      seen[key] = true
    end
    for i = 1, 2000 do assert(seen["stays" .. i]) end
    assert.is_true(more > 2000)
  end)

  it("is one of 1024 at most", function()
    for i = 1, 1023 do assert.truthy(shared.open("n" .. i)) end
    assert.is_nil(shared.open "one too many")
    assert.truthy(shared.open "n7")
  end)

  it("is exact when many threads use it at once", function()
    shared.hammer(dictionary, 8, 5000)
    assert.equal(40000, get "sum")
    assert.equal(40000, get "swapped")
    for _, key in ipairs(shared.walk(dictionary)) do shared.remove(dictionary, key) end
    shared.pass(0.001)
    for i = 0, 6 do shared.remove(dictionary, "k" .. string.char(97 + i)) end
    assert.same({ 0, 0 }, { shared.size(dictionary) })
  end)
end)
