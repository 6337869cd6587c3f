local net = require("moongate_core").net

describe("a mailbox", function()
  local loop, mailbox
  before_each(function()
    loop = net.loop()
    mailbox = loop:mailbox()
  end)
  after_each(function() loop:close() end)

  it("delivers in the gather phase, in the order of posting", function()
    local story = {}
    local task = loop:task(function() story[#story + 1] = "advanced" end)
    for i = 1, 3 do
      mailbox:post(function()
        story[#story + 1] = i
        task:wake()
      end)
    end
    assert.same({}, story)
    loop:turn()
    assert.same({ 1, 2, 3, "advanced" }, story)
  end)

  it("rings again for letters that a delivery posts", function()
    local arrived
    mailbox:post(function()
      mailbox:post(function() arrived = true end)
    end)
    assert.is_true(loop:run_until(function() return arrived end))
  end)

  it("keeps the order of each of many threads, and loses nothing", function()
    local threads, letters = 8, 5000
    mailbox:storm(threads, letters)
    assert.is_true(loop:run_until(function() return mailbox:delivered() == threads * letters end, 60))
    local delivered, misplaced, refused = mailbox:join()
    assert.same({ threads * letters, 0, 0 }, { delivered, misplaced, refused })
  end)

  it("delivers what is left when it closes, and refuses the rest", function()
    local threads, letters = 8, 5000
    mailbox:storm(threads, letters)
    loop:run_until(function() return mailbox:delivered() > 0 end)
    mailbox:close()
    local delivered, misplaced, refused = mailbox:join()
    assert.equal(threads * letters, delivered + refused)
    assert.equal(0, misplaced)
  end)

  it("refuses letters once it is closed, which stay the poster's", function()
    mailbox:close()
    assert.is_false(mailbox:post(function() end))
  end)
end)

describe("the helper threads", function()
  local loop, mailbox, helpers
  before_each(function()
    loop = net.loop()
    mailbox = loop:mailbox()
    helpers = net.helpers()
  end)
  after_each(function()
    helpers:destroy()
    loop:close()
  end)

  it("work elsewhere and tell in the asker's loop, in the order of asking", function()
    local story = {}
    for i = 1, 3 do
      helpers:ask("load", false, mailbox, function(elsewhere) story[#story + 1] = elsewhere and i end)
    end
    assert.is_true(loop:run_until(function() return #story == 3 end))
    assert.same({ 1, 2, 3 }, story)
  end)

  it("do not wait for each other", function()
    local story = {}
    helpers:ask("load", true, mailbox, function() story[#story + 1] = "load" end)
    helpers:ask("files", false, mailbox, function() story[#story + 1] = "files" end)
    assert.is_true(loop:run_until(function() return #story == 1 end))
    helpers:release()
    assert.is_true(loop:run_until(function() return #story == 2 end))
    assert.same({ "files", "load" }, story)
  end)

  it("refuse a job when 4096 are waiting", function()
    local taken = 0
    while helpers:ask("files", true) do
      taken = taken + 1
      assert.is_true(taken <= 4097)
    end
    assert.is_true(taken >= 4096)
    helpers:release(taken)
  end)

  it("finish what is queued before they end", function()
    local done = 0
    for _ = 1, 100 do
      helpers:ask("load", false, mailbox, function() done = done + 1 end)
    end
    helpers:destroy()
    loop:turn()
    assert.equal(100, done)
  end)
end)
