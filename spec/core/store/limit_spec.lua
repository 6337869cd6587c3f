local limit = require("moongate_core").limit

describe("a limit", function()
  local l
  before_each(function() l = limit.open "spec" end)
  after_each(function() limit.close_all() end)

  -- How many of `n` takes at one moment are allowed.
  local function count(rule, key, now, n)
    local allowed = 0
    for _ = 1, n do
      if limit.take(l, rule, key, now) == "allowed" then allowed = allowed + 1 end
    end
    return allowed
  end

  it("is one for all who open it by its name, and one of 1024 at most", function()
    assert.equal(l, limit.open("spec", 1 << 30))
    for i = 1, 1023 do assert.truthy(limit.open("n" .. i, 65536)) end
    assert.is_nil(limit.open "one too many")
  end)

  it("lets a whole burst through at once, then as many as the rate says", function()
    local rule = limit.rule { rate = 10, per = 1, burst = 5 }
    assert.equal(5, count(rule, "k", 100, 20))
    assert.equal(0, count(rule, "k", 100.0999, 20))
    assert.equal(1, count(rule, "k", 100.1001, 20))
    assert.equal(3, count(rule, "k", 100.41, 20))
    assert.equal(5, count(rule, "k", 200, 20))
  end)

  it("says what is left, how long to wait, and when all is back", function()
    local rule = limit.rule { rate = 2, per = 1, burst = 4 }
    assert.same({ "allowed", true, 3, 0, 0.5 }, { limit.take(l, rule, "k", 100) })
    assert.same({ "allowed", true, 0, 0, 2 }, { limit.take(l, rule, "k", 100, 3) })
    assert.same({ "refused", false, 0, 0.5, 2 }, { limit.take(l, rule, "k", 100) })
    assert.same({ "refused", false, 0, 0.75, 1.75 }, { limit.take(l, rule, "k", 100.25, 2) })
    assert.same({ "refused", false, 3, math.huge, 0.5 }, { limit.take(l, rule, "k", 101.5, 4.5) })
  end)

  it("keeps to its word: after the wait it lets through", function()
    local rule = limit.rule { rate = 3, per = 7, burst = 2 }
    local now = 12345.678
    for _ = 1, 200 do
      local verdict, _, _, wait = limit.take(l, rule, "k", now)
      if verdict == "refused" then
        assert.equal("refused", (limit.peek(l, rule, "k", now + wait * 0.999)))
        now = now + wait + 1e-8
        assert.equal("allowed", (limit.take(l, rule, "k", now)))
      end
    end
    assert.is_true(now - 12345.678 > 99 * 7 / 3)
  end)

  it("never lets through more than burst + rate * time, whatever the rate", function()
    local rules = { { 3, 1, 1 }, { 7, 3, 10 }, { 1e6, 1, 5 }, { 333333, 1, 100 }, { 1, 86400, 3 }, { 0.7, 1, 2 } }
    for _, r in ipairs(rules) do
      local rule = limit.rule { rate = r[1], per = r[2], burst = r[3] }
      local interval, allowed = r[2] / r[1], 0
      for i = 0, 6400 do
        if limit.take(l, rule, "k" .. r[1], 100 + i * interval / 64) == "allowed" then allowed = allowed + 1 end
      end
      local most = r[3] + 100
      assert(allowed <= most and allowed >= most - 3, ("rate %g: %d of %g"):format(r[1], allowed, most))
    end
  end)

  it("charges what a take costs, fractions and nothing included", function()
    local rule = limit.rule { rate = 10, per = 1, burst = 1 }
    assert.equal("allowed", (limit.take(l, rule, "k", 100, 0.25)))
    assert.equal("refused", (limit.take(l, rule, "k", 100)))
    assert.equal("allowed", (limit.take(l, rule, "k", 100, 0.75)))
    assert.equal("refused", (limit.take(l, rule, "k", 100, 0.001)))
    assert.equal("allowed", (limit.take(l, rule, "k", 100, 0)))
  end)

  it("takes nothing when it refuses or only looks", function()
    local rule = limit.rule { rate = 1, per = 1, burst = 2 }
    for _ = 1, 5 do assert.same({ "allowed", true, 1, 0, 1 }, { limit.peek(l, rule, "k", 100) }) end
    assert.equal(2, count(rule, "k", 100, 2))
    for _ = 1, 5 do limit.take(l, rule, "k", 100, 2) end
    assert.equal(1, count(rule, "k", 101, 5))
  end)

  it("holds each key to its own", function()
    local rule = limit.rule { rate = 1, per = 60, burst = 1 }
    for i = 1, 5000 do assert(limit.take(l, rule, "k" .. i, 100) == "allowed") end
    for i = 1, 5000 do assert(limit.take(l, rule, "k" .. i, 100) == "refused") end
    assert.equal(5000, (limit.size(l)))
    assert.is_true(limit.reset(l, "k7"))
    assert.is_false(limit.reset(l, "unknown"))
    assert.equal("allowed", (limit.take(l, rule, "k7", 100)))
    assert.equal("allowed", (limit.take(l, rule, "", 100)))
  end)

  it("applies another rule at once and forgets nothing", function()
    local wide, narrow = limit.rule { rate = 100, per = 60, burst = 100 }, limit.rule { rate = 10, per = 1, burst = 10 }
    assert.equal(90, count(wide, "k", 100, 90))
    assert.equal(0, count(narrow, "k", 100, 5)) -- owes more than its whole burst
    assert.equal(10, count(narrow, "k", 101.01, 50)) -- which is all that the new rule holds against it
    assert.equal(40, count(limit.rule { rate = 10, per = 1, burst = 50 }, "k", 101.01, 50))
  end)

  it("lets nobody off because another worker's turn began earlier", function()
    local rule = limit.rule { rate = 100, per = 1, burst = 10 }
    assert.equal(10, count(rule, "k", 100.005, 20))
    for _ = 1, 100 do
      assert.same({ "refused", false, 0 }, { table.unpack({ limit.take(l, rule, "k", 100) }, 1, 3) })
    end
    assert.equal(0, count(rule, "k", 100.005, 20))
  end)

  it("lets all through in a dry run, and says what it would have done", function()
    local rule = limit.rule { rate = 1, per = 1, burst = 1, concurrent = 1, dry_run = true }
    assert.same({ "allowed", true, 0 }, { table.unpack({ limit.take(l, rule, "k", 100) }, 1, 3) })
    assert.same({ "refused", true, 0, 1 }, { table.unpack({ limit.take(l, rule, "k", 100) }, 1, 4) })
    assert.equal("allowed", (limit.enter(l, rule, "k", 100)))
    assert.same({ "refused", true }, { table.unpack({ limit.enter(l, rule, "k", 100) }, 1, 2) })
    assert.equal(2, limit.places(l, "k"))
  end)

  it("has so many places for a key, and gets them back", function()
    local rule = limit.rule { concurrent = 2 }
    assert.equal(1, (select(3, limit.enter(l, rule, "k", 100))))
    assert.equal("allowed", (limit.enter(l, rule, "k", 100)))
    assert.equal("refused", (limit.enter(l, rule, "k", 100)))
    assert.equal("allowed", (limit.enter(l, rule, "other", 100)))
    assert.equal(2, limit.places(l, "k"))
    limit.leave(l, "k")
    assert.equal("allowed", (limit.enter(l, rule, "k", 100)))
    assert.is_false(limit.reset(l, "k"))
    assert.equal(2, limit.places(l, "k"))
  end)

  it("refuses rules whose times do not fit", function()
    assert.is_nil(limit.rule { rate = 1, per = 1e9, burst = 1e9 })
    assert.is_nil(limit.rule { rate = 1e-9, per = 86400, burst = 1 })
    assert.truthy(limit.rule { rate = 1e9, per = 1, burst = 1e9 })
    assert.truthy(limit.rule { rate = 1, per = 366 * 86400, burst = 3 })
  end)

  describe("under a flood of keys", function()
    local rule
    before_each(function() rule = limit.rule { rate = 1, per = 60, burst = 1, concurrent = 5, bytes = 1 << 20 } end)

    it("stays within its memory, and forgets no key that owes", function()
      assert.equal("allowed", (limit.take(l, rule, "owes", 100)))
      assert.equal("allowed", (limit.enter(l, rule, "stays", 100)))
      local allowed, full = limit.flood(l, rule, 1000000, 100)
      assert.equal(1000000, allowed + full)
      local keys, bytes = limit.size(l)
      assert.is_true(bytes <= 1 << 20)
      assert.equal(keys, allowed + 2)
      assert.is_true(keys > (1 << 20) / 32 * 0.8)
      assert.equal("refused", (limit.take(l, rule, "owes", 100)))
      assert.equal(1, limit.places(l, "stays"))
      local verdict, passes, _, wait = limit.take(l, rule, "a new one", 100)
      assert.same({ "full", false, 60 }, { verdict, passes, wait })
      assert.equal("full", (limit.enter(l, rule, "a new one", 100)))
    end)

    it("lets new keys through when it is full, if that is wanted", function()
      limit.flood(l, rule, 100000, 100)
      local open = limit.rule { rate = 1, per = 60, burst = 1, bytes = 1 << 20, full_allows = true }
      assert.same({ "full", true }, { table.unpack({ limit.take(l, open, "a new one", 100) }, 1, 2) })
    end)

    it("has room again as keys have paid, without a pause", function()
      limit.enter(l, rule, "stays", 100)
      local now = 100
      for _ = 1, 20 do
        limit.flood(l, rule, 100000, now)
        now = now + 61
        local _, full = limit.flood(l, rule, 5000, now)
        assert.equal(0, full)
      end
      assert.equal(1, limit.places(l, "stays"))
      assert.is_true(select(2, limit.size(l)) <= 1 << 20)
    end)

    it("stays small when keys come and go slowly", function()
      for i = 0, 199 do limit.flood(l, rule, 100, 100 + i * 30) end -- 200 owe at any time
      local keys, bytes = limit.size(l)
      assert.is_true(keys < 2000, keys)
      assert.is_true(bytes <= 65536, bytes)
    end)

    it("grows by what a new rule allows", function()
      local _, full = limit.flood(l, rule, 50000, 100)
      assert.is_true(full > 0)
      local wider = limit.rule { rate = 1, per = 60, burst = 1, bytes = 8 << 20 }
      _, full = limit.flood(l, wider, 50000, 100)
      assert.equal(0, full)
    end)
  end)

  describe("asked by many threads at once", function()
    it("is exact: no take more or less than the burst in one moment", function()
      local rule = limit.rule { rate = 100, per = 1, burst = 1000, concurrent = 3, bytes = 64 << 20 }
      assert.equal(1000, (limit.hammer(l, rule, 8, 5000, 100)))
      assert.equal(100, (limit.hammer(l, rule, 8, 5000, 101.0001)))
      assert.equal(0, limit.places(l, "all"))
    end)

    it("lets through burst + rate * time by the clock", function()
      local rule = limit.rule { rate = 2000, per = 1, burst = 100, concurrent = 3, bytes = 64 << 20 }
      local allowed, seconds = limit.hammer(l, rule, 8, 20000)
      assert(allowed <= 100 + 2000 * seconds, ("%d in %g s"):format(allowed, seconds))
      assert(allowed >= 100 + 2000 * seconds * 0.5, ("%d in %g s"):format(allowed, seconds))
    end)
  end)
end)
