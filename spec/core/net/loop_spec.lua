local net = require("moongate_core").net

local function spin(seconds)
  local began = os.clock()
  while os.clock() - began < seconds do end
end

describe("a turn of the loop", function()
  local loop, story
  local function note(line) story[#story + 1] = line end

  before_each(function()
    loop, story = net.loop(), {}
  end)
  after_each(function() loop:close() end)

  it("gathers, advances, flushes, buries and then runs the turn hooks", function()
    local ours, theirs = net.socketpair()
    local conn = loop:conn(ours, { on_flushed = function() note "flushed" end })
    local grave = loop:grave(function() note "buried" end)
    local task = loop:task(function()
      note "advanced"
      grave:bury()
      conn:write "x"
    end)
    loop:hook(function() note "hook" end)
    loop:gather(function()
      note "gathered"
      task:wake()
    end)
    loop:turn()
    assert.same({ "gathered", "advanced", "flushed", "buried", "hook" }, story)
    net.close(theirs)
  end)

  it("frees nothing inside a callback, however often it is buried", function()
    local grave = loop:grave(function() note "buried" end)
    loop:gather(function()
      grave:bury()
      grave:bury()
      note "gathered"
    end)
    loop:gather(function()
      grave:bury()
      note "gathered"
    end)
    loop:turn()
    assert.same({ "gathered", "gathered", "buried" }, story)
  end)

  it("buries what a burial buries", function()
    local second = loop:grave(function() note "second" end)
    local first = loop:grave(function()
      note "first"
      second:bury()
    end)
    loop:gather(function() first:bury() end)
    loop:turn()
    assert.same({ "first", "second" }, story)
  end)

  it("advances a task once for all wakes that came before", function()
    local task = loop:task(function() note "advanced" end)
    for _ = 1, 3 do task:wake() end
    loop:turn()
    assert.same({ "advanced" }, story)
  end)

  it("advances whoever is woken while others advance, also one who was advanced before", function()
    local exchange, fetch
    exchange = loop:task(function()
      note "exchange"
      if #story == 1 then fetch:wake() end
    end)
    fetch = loop:task(function()
      note "fetch"
      exchange:wake()
    end)
    exchange:wake()
    loop:turn()
    assert.same({ "exchange", "fetch", "exchange" }, story)
  end)

  it("does not advance a task whose wake was taken back", function()
    local task = loop:task(function() note "advanced" end)
    task:wake()
    task:forget()
    task:forget()
    loop:gather(function() note "gathered" end)
    loop:turn()
    assert.same({ "gathered" }, story)
  end)

  it("advances for 5 ms only, and goes on with the rest after a poll that does not wait", function()
    local tasks = {}
    for i = 1, 4 do
      tasks[i] = loop:task(function()
        note(i)
        spin(0.006)
        tasks[i]:long()
      end)
      tasks[i]:wake()
    end
    loop:turn()
    assert.same({ 1 }, story)
    loop:gather(function() note "gathered" end)
    loop:turn()
    assert.same({ 1, "gathered", 2 }, story)
    loop:turn()
    loop:turn()
    assert.same({ 1, "gathered", 2, 3, 4 }, story)
  end)

  it("looks at the clock after eight tasks, whatever they say of themselves", function()
    for i = 1, 20 do
      local task = loop:task(function()
        note(i)
        if i == 1 then spin(0.006) end
      end)
      task:wake()
    end
    loop:turn()
    assert.equal(8, #story)
    loop:turn()
    assert.equal(20, #story)
  end)

  it("sends what many have written before the rest of them adds to it", function()
    local ours, theirs = net.socketpair()
    local conn = loop:conn(ours, { on_flushed = function() note "flushed" end })
    for i = 1, 100 do
      loop:task(function()
        note(i)
        if i == 1 or i == 100 then conn:write "x" end -- a byte is all that the hard build sends at once
      end):wake()
    end
    loop:turn()
    assert.same({ 64, "flushed" }, { story[64], story[65] })
    loop:turn()
    assert.same({ 100, "flushed" }, { story[101], story[102] })
    net.close(theirs)
  end)

  it("does not let a task that always wakes itself keep the sockets waiting", function()
    local ours, theirs = net.socketpair()
    local task
    local heard = false
    task = loop:task(function() task:wake() end)
    loop:conn(ours, { on_bytes = function(conn) heard = conn:take() end })
    task:wake()
    net.write(theirs, "x")
    loop:turn()
    assert.equal("x", heard)
    net.close(theirs)
  end)

  it("advances in the next turn what the flush and the burials woke", function()
    local ours, theirs = net.socketpair()
    local task = loop:task(function() note "advanced" end)
    local grave = loop:grave(function() task:wake() end)
    local conn = loop:conn(ours, { on_flushed = function() task:wake() end })
    conn:write "x"
    loop:turn()
    assert.same({}, story)
    grave:bury()
    loop:turn()
    assert.same({ "advanced" }, story)
    loop:turn()
    assert.same({ "advanced", "advanced" }, story)
    net.close(theirs)
  end)

  it("runs every hook once though hooks come and go meanwhile", function()
    local second, third
    loop:hook(function()
      note "first"
      if second then second:close() end
      second = nil
      third = third or loop:hook(function() note "third" end)
    end)
    second = loop:hook(function() note "second" end)
    loop:gather(function() end)
    loop:turn()
    assert.same({ "first" }, story)
    loop:gather(function() end)
    loop:turn()
    assert.same({ "first", "first", "third" }, story)
  end)

  it("is the last one only when nothing is left to advance", function()
    local second = loop:task(function() note "second" end)
    local first = loop:task(function()
      note "first"
      loop:stop()
      spin(0.006)
    end)
    first:wake()
    second:wake()
    loop:run()
    assert.same({ "first", "second" }, story)
  end)
end)

describe("a deadline", function()
  local loop
  before_each(function() loop = net.loop() end)
  after_each(function() loop:close() end)

  -- Sets and moves a deadline as `act` says, then waits for it; returns the seconds from the first set to the event.
  local function measure(act)
    local passed
    local began = loop:now()
    local deadline = loop:deadline(function() passed = loop:now() - began end)
    act(deadline)
    assert.is_true(loop:run_until(function() return passed end))
    return passed
  end

  it("passes when its time has come, not before", function()
    local passed = measure(function(deadline) deadline:set(0.02) end)
    assert.is_true(passed >= 0.0198 and passed < 1, passed)
  end)

  it("counts from the turn it is set in, however long the last poll waited", function()
    local began, passed
    local second = loop:deadline(function() passed = loop:now() - began end)
    local first = loop:deadline(function()
      began = loop:now()
      second:set(0.03)
    end)
    first:set(0.05)
    assert.is_true(loop:run_until(function() return passed end))
    assert.is_true(passed >= 0.0298, passed)
  end)

  it("counts from now when tasks have advanced for long", function()
    local began, passed
    local deadline = loop:deadline(function() passed = loop:now() - began end)
    local setter = loop:task(function()
      began = loop:now()
      deadline:set(0.02)
    end)
    loop:gather(function()
      spin(0.05)
      setter:wake()
    end)
    assert.is_true(loop:run_until(function() return passed end))
    assert.is_true(passed >= 0.0198, passed)
  end)

  it("that is moved later leaves its timer alone, and passes later", function()
    local passed = measure(function(deadline)
      deadline:set(0.01)
      local fires = deadline:fires()
      deadline:set(0.05)
      assert.equal(fires, deadline:fires())
    end)
    assert.is_true(passed >= 0.0498, passed)
  end)

  it("that is moved earlier passes earlier", function()
    local passed = measure(function(deadline)
      deadline:set(60)
      deadline:set(0.01)
    end)
    assert.is_true(passed < 10, passed)
  end)

  it("that is cleared never passes, and can be set again", function()
    local count = 0
    local cleared = loop:deadline(function() count = count + 1 end)
    cleared:set(0.005)
    cleared:clear()
    measure(function(deadline) deadline:set(0.02) end)
    assert.equal(0, count)
    cleared:set(0.005)
    assert.is_true(loop:run_until(function() return count == 1 end))
    cleared:set(0.005)
    cleared:set(0)
    measure(function(deadline) deadline:set(0.02) end)
    assert.equal(1, count)
  end)

  it("passes once", function()
    local count = 0
    loop:deadline(function() count = count + 1 end):set(0.005)
    measure(function(deadline) deadline:set(0.03) end)
    assert.equal(1, count)
  end)

  it("may be set again from its own event", function()
    local count, deadline = 0, nil
    deadline = loop:deadline(function()
      count = count + 1
      if count < 3 then deadline:set(0.002) end
    end)
    deadline:set(0.002)
    assert.is_true(loop:run_until(function() return count == 3 end))
  end)

  it("that is closed while it is due stays silent", function()
    local second, passed
    local first = loop:deadline(function()
      passed = true
      second:close()
    end)
    second = loop:deadline(function() error "closed" end)
    second:set(0.0102)
    first:set(0.01)
    spin(0.02)
    assert.is_true(loop:run_until(function() return passed end))
    measure(function(deadline) deadline:set(0.02) end)
  end)
end)
