-- Which hellos with early data came before. The memory is the process's: each spec has hours of its own.

local note = require("moongate_core").net.tls_replay_note

describe("a hello with early data", function()
  it("is new once, for as long as it is fresh", function()
    local now = 1e9
    assert.is_true(note("a", now))
    assert.is_false(note("a", now))
    assert.is_true(note("b", now + 1))
    for later = 0, 15, 0.5 do assert.is_false(note("a", now + later)) end
  end)

  it("is forgotten when it has long been stale, so that memory is bounded", function()
    local now = 1.1e9
    assert.is_true(note("a", now))
    assert.is_true(note("b", now + 16))
    assert.is_false(note("a", now + 17)) -- the older half still has it
    assert.is_true(note("c", now + 32))
    assert.is_true(note("a", now + 33))
    assert.is_false(note("b", now + 33))
  end)

  it("is refused while the clock, set back, says what was forgotten could be fresh", function()
    local now = 1.2e9
    for i = 0, 4 do assert.is_true(note("hello " .. i, now + 16 * i)) end
    assert.is_false(note("hello 0", now + 1))
    assert.is_false(note("another", now + 1))
    assert.is_true(note("another", now + 80))
  end)

  it("is refused when there is no room to remember it, until there is again", function()
    local now, taken = 1.3e9, 0
    while note("flood " .. taken, now) do taken = taken + 1 end
    assert.is_true(taken >= 4 and taken <= 65536)
    for i = 0, taken - 1, taken // 4 do assert.is_false(note("flood " .. i, now + 1)) end
    assert.is_false(note("late", now + 14))
    assert.is_true(note("late", now + 15))
  end)
end)
