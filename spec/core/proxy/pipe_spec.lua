-- Pipes by themselves: source, stages, readers, and who waits for whom.

local proxy = require("moongate_core").proxy

describe("a pipe", function()
  it("has no room while nobody reads", function()
    local p = proxy.pipe {}
    assert.equal(0, p:room())
    assert.equal(0, p:state().asked)
  end)

  it("has the room of its reader, up to a window", function()
    local p = proxy.pipe {}
    local r = p:read(10)
    assert.equal(10, p:room())
    r:more(1 << 20)
    assert.equal(proxy.PIPE_WINDOW, p:room())
  end)

  it("passes bytes on at once", function()
    local p = proxy.pipe {}
    local r = p:read(100)
    p:write "one"
    p:write "two"
    assert.equal("onetwo", r:text())
    assert.equal(2, r:state().takes)
    assert.equal(94, p:room())
    assert.equal(6, p:state().total)
  end)

  it("asks its source when a reader comes, and when it has room again", function()
    local p = proxy.pipe {}
    local r = p:read(0)
    assert.equal(0, p:state().asked)
    r:more(5)
    assert.equal(1, p:state().asked)
    p:write "12345"
    assert.equal(0, p:room())
    r:more(5)
    assert.equal(2, p:state().asked)
    p:read(5)
    assert.equal(3, p:state().asked)
  end)

  it("keeps what a reader has no room for, and has none itself until it is gone", function()
    local p = proxy.pipe { hold = 20 }
    p:write "0123456789"
    local r = p:read(4)
    assert.same({ "0123", "456789", 0 }, { r:text(), p:pending(), p:room() })
    r:more(3)
    assert.same({ "0123456", "789", 0 }, { r:text(), p:pending(), p:room() })
    p:write "x"
    r:more(100)
    assert.equal("0123456789x", r:text())
    assert.is_true(p:room() > 0)
  end)

  it("tells the end once, behind the last byte, with its trailers", function()
    local p = proxy.pipe { hold = 10 }
    p:write "12345"
    local r = p:read(3)
    p:finish "sum"
    assert.equal(0, r:state().ends)
    r:more(2)
    assert.same({ "12345", 1, "sum" }, { r:text(), r:state().ends, r:state().trailer })
    r:more(2)
    p:finish()
    assert.equal(1, r:state().ends)
    assert.equal(0, p:room())
  end)

  it("tells a failure once, behind the last byte", function()
    local p = proxy.pipe { hold = 10 }
    p:write "12345"
    local r = p:read(3)
    p:fail()
    assert.equal(0, r:state().fails)
    r:more(2)
    assert.same({ "12345", 1, "truncated" }, { r:text(), r:state().fails, r:state().why })
    r:more(1)
    p:finish()
    assert.same({ 1, 0 }, { r:state().fails, r:state().ends })
  end)

  it("drops what is written after its end", function()
    local p = proxy.pipe {}
    local r = p:read(100)
    p:finish()
    assert.equal(0, p:write "late")
    assert.equal("", r:text())
  end)

  it("tells a reader that comes late of all that is still there, and of the end", function()
    local p = proxy.pipe { hold = 100 }
    p:write "kept"
    p:finish()
    local r = p:read(100)
    assert.same({ "kept", 1 }, { r:text(), r:state().ends })
    assert.equal(0, p:state().abandoned)
  end)

  it("holds bytes without a reader when it is told to, up to a limit", function()
    local p = proxy.pipe { hold = 8 }
    assert.equal(1, p:state().asked)
    assert.equal(8, p:room())
    p:write "12345"
    assert.equal(3, p:room())
    p:hold(6) -- never less
    assert.equal(3, p:room())
    p:hold(10)
    assert.equal(5, p:room())
    assert.equal("12345", p:pending())
    local r = p:read(100)
    assert.equal("12345", r:text())
    assert.equal("", p:pending())
  end)

  it("tells its watch of bytes, of the end, and of a failure", function()
    local p = proxy.pipe { hold = 100 }
    p:write "x"
    assert.equal(1, p:state().news)
    p:finish()
    assert.equal(2, p:state().news)
    local failing = proxy.pipe { hold = 100 }
    failing:fail()
    assert.equal(1, failing:state().news)
  end)

  it("is abandoned when the last reader leaves before the end, not after it", function()
    local p = proxy.pipe {}
    local one, two = p:read(10), p:read(10)
    one:leave()
    assert.equal(0, p:state().abandoned)
    two:leave()
    two:leave()
    assert.equal(1, p:state().abandoned)
    local ended = proxy.pipe {}
    local r = ended:read(10)
    ended:finish()
    r:leave()
    assert.equal(0, ended:state().abandoned)
  end)

  it("survives a reader that leaves while it takes", function()
    local p = proxy.pipe {}
    local r = p:read(100, 3)
    p:write "12345"
    assert.equal("12345", r:text())
    assert.is_false(r:state().attached)
    assert.equal(1, p:state().abandoned)
    p:write "more"
    p:finish()
    assert.same({ "12345", 0 }, { r:text(), r:state().ends })
  end)

  it("detaches its readers without a word at its end", function()
    local p = proxy.pipe {}
    local r = p:read(2)
    p:write "12345"
    p:fini()
    assert.same({ false, 0, 0 }, { r:state().attached, r:state().ends, r:state().fails })
    r:more(10)
    r:leave()
  end)

  it("with a source that writes when asked moves at the pace of its reader", function()
    local text = ("0123456789"):rep(1000)
    local p = proxy.pipe { pull = text }
    local r = p:read(0)
    for moved = 0, 9900, 100 do
      assert.is_true(text:sub(1, moved) == r:text())
      assert.equal(0, r:state().ends)
      r:more(100)
    end
    assert.is_true(text == r:text())
    assert.equal(1, r:state().ends)
  end)

  it("with a source that writes when asked moves any amount in one go", function()
    local text = ("0123456789"):rep(100000)
    local p = proxy.pipe { pull = text }
    local r = p:read(#text)
    assert.is_true(text == r:text())
    assert.equal(1, r:state().ends)
  end)

  describe("with several readers", function()
    it("gives all of them the same, at the pace of the slowest", function()
      local p = proxy.pipe {}
      local fast, slow = p:read(100), p:read(2)
      assert.equal(2, p:room())
      p:write "12"
      assert.same({ "12", "12" }, { fast:text(), slow:text() })
      assert.equal(0, p:room())
      fast:more(10)
      assert.equal(0, p:room())
      slow:more(3)
      assert.equal(3, p:room())
      p:write "345"
      assert.same({ "12345", "12345" }, { fast:text(), slow:text() })
    end)

    it("ends for each of them", function()
      local p = proxy.pipe {}
      local one, two = p:read(10), p:read(10)
      p:write "x"
      p:finish "t"
      for _, r in ipairs { one, two } do
        assert.same({ "x", 1, "t" }, { r:text(), r:state().ends, r:state().trailer })
      end
    end)

    it("goes on when the slowest leaves", function()
      local p = proxy.pipe { hold = 10 }
      p:write "kept"
      local slow = p:read(0)
      local fast = p:read(100)
      assert.equal("", fast:text())
      slow:leave()
      assert.same({ "kept", "" }, { fast:text(), slow:text() })
      assert.equal(0, p:state().abandoned)
      p:write "more"
      assert.equal("keptmore", fast:text())
    end)

    it("starts a late one where the pipe is", function()
      local p = proxy.pipe {}
      local first = p:read(100)
      p:write "early"
      local late = p:read(100)
      p:write "late"
      assert.same({ "earlylate", "late" }, { first:text(), late:text() })
    end)
  end)

  describe("with stages", function()
    it("passes on what they make of it, longer or shorter", function()
      local p = proxy.pipe {}
      p:stage "double"
      local r = p:read(100)
      p:write "ab"
      assert.equal("aabb", r:text())
      assert.equal(2, p:state().total)
      local swallowing = proxy.pipe {}
      swallowing:stage "swallow"
      local nothing = swallowing:read(100)
      swallowing:write "abc"
      swallowing:finish()
      assert.same({ "", 1 }, { nothing:text(), nothing:state().ends })
    end)

    it("runs them in the order they were added", function()
      local p = proxy.pipe {}
      p:stage "hold"
      p:stage "double"
      local r = p:read(100)
      p:write "a"
      p:write "b"
      assert.equal("", r:text())
      p:finish "t"
      assert.same({ "((aabb))", 1, "t" }, { r:text(), r:state().ends, r:state().trailer })
    end)

    it("keeps what they make beyond the room, and the end behind it", function()
      local p = proxy.pipe {}
      p:stage "double"
      local r = p:read(3)
      p:write "abc"
      p:finish()
      assert.same({ "aab", 0 }, { r:text(), r:state().ends })
      r:more(2)
      assert.same({ "aabbc", 0 }, { r:text(), r:state().ends })
      r:more(2)
      assert.same({ "aabbcc", 1 }, { r:text(), r:state().ends })
    end)

    it("fails behind what they had made when one of them fails", function()
      local p = proxy.pipe {}
      p:stage "fail"
      local r = p:read(100)
      p:write "good"
      p:write "bad!"
      p:write "more"
      p:finish()
      assert.same({ "good", 1, 0 }, { r:text(), r:state().fails, r:state().ends })
      assert.equal("failed", p:state().state)
    end)

    it("fails when one of them fails at the very end", function()
      local p = proxy.pipe { hold = 100 }
      p:stage "hold"
      p:stage "fail"
      p:write "a!"
      assert.equal("open", p:state().state)
      p:finish()
      local r = p:read(100)
      assert.same({ 1, 0 }, { r:state().fails, r:state().ends })
    end)

    it("closes each of them once", function()
      local p = proxy.pipe {}
      p:stage "hold"
      p:stage "double"
      p:read(10)
      p:write "held"
      p:fini()
      p:fini()
      assert.equal(2, p:state().closed)
    end)

    it("moves any amount in one go, at the pace of the reader", function()
      local text = ("0123456789"):rep(1000)
      local p = proxy.pipe { pull = text }
      p:stage "double"
      local r = p:read(0)
      while r:state().ends == 0 do r:more(777) end
      assert.equal(2 * #text, #r:text())
      assert.equal("00112233", r:text():sub(1, 8))
    end)

    it("goes on with a full one as fast as its reader, and holds no more than a call of it made", function()
      local p = proxy.pipe { pull = ("ab"):rep(50000) }
      p:stage "grow"
      local r, most = p:read(0), 0
      for _ = 1, 200 do
        r:more(10000)
        most = math.max(most, #p:pending())
      end
      assert.is_true(most <= 32768)
      assert.equal(2000000, #r:text())
      assert.equal(("a"):rep(1000) .. ("b"):rep(1000), r:text():sub(1, 2000))
      assert.equal(0, r:state().ends)
    end)

    it("lets bytes wait before a busy one up to a window, and then stops the source", function()
      local p = proxy.pipe { pull = ("x"):rep(3 * proxy.PIPE_WINDOW) }
      p:stage "double"
      p:stage "slow"
      local r = p:read(1 << 20)
      assert.equal("", r:text())
      assert.is_true(p:waiting(2) <= 2 * 2 * proxy.PIPE_WINDOW)
      assert.is_true(p:waiting(1) <= proxy.PIPE_WINDOW)
      assert.equal(0, p:room())
      p:ready(2)
      assert.equal("x", r:text())
    end)

    it("ends behind what a busy one gives at last", function()
      local p = proxy.pipe {}
      p:stage "slow"
      p:stage "hold"
      local r = p:read(100)
      p:write "ab"
      p:finish "t"
      for _ = 1, 2 do
        p:ready(1)
        assert.same({ "", 0 }, { r:text(), r:state().ends })
      end
      p:ready(1)
      assert.same({ "(ab)", 1, "t" }, { r:text(), r:state().ends, r:state().trailer })
      assert.equal("ended", p:state().state)
    end)

    it("fails at once when a busy one fails, or the source", function()
      for _, break_it in ipairs { function(p) p:break_stage(1) end, function(p) p:fail() end } do
        local p = proxy.pipe {}
        p:stage "slow"
        local r = p:read(100)
        p:write "ab"
        p:ready(1)
        break_it(p)
        break_it(p)
        p:ready(1)
        assert.same({ "a", 1, 0 }, { r:text(), r:state().fails, r:state().ends })
      end
    end)

    it("takes what has gathered through one that comes late, also behind the end", function()
      local p = proxy.pipe { hold = 100 }
      p:write "ab"
      p:stage "double"
      assert.equal("aabb", p:pending())
      p:finish()
      assert.equal("ended", p:state().state)
      p:stage "hold"
      assert.same({ "(aabb)", "ended" }, { p:pending(), p:state().state })
      local r = p:read(100)
      assert.same({ "(aabb)", 1 }, { r:text(), r:state().ends })
    end)

    it("runs none that nobody wants", function()
      local p = proxy.pipe {}
      p:stage "double"
      assert.equal(0, p:room())
      p:hold(4)
      assert.equal(proxy.PIPE_WINDOW, p:room())
      p:write "ab"
      assert.equal("aabb", p:pending())
      p:write "cd"
      assert.same({ "aabb", 2 }, { p:pending(), p:waiting(1) })
      assert.equal("aab", p:take(3))
      assert.same({ "bccdd", 0 }, { p:pending(), p:waiting(1) })
    end)

    it("fails behind nothing but what left them when the source fails", function()
      local p = proxy.pipe {}
      p:stage "hold"
      local r = p:read(100)
      p:write "held"
      p:fail()
      assert.same({ "", 1 }, { r:text(), r:state().fails })
    end)
  end)

  it("gives pending bytes away while there is no reader, and asks its source for more", function()
    local p = proxy.pipe { pull = ("0123456789"):rep(10), hold = 8 }
    local taken = {}
    while p:pending() ~= "" do taken[#taken + 1] = p:take(math.min(5, #p:pending())) end
    assert.equal(("0123456789"):rep(10), table.concat(taken))
    assert.equal("ended", p:state().state)
  end)
end)
