local net = require("moongate_core").net

describe("a listener", function()
  local loop, fds
  before_each(function()
    loop, fds = net.loop(), {}
  end)
  after_each(function()
    loop:close()
    for _, fd in ipairs(fds) do net.close(fd) end
  end)

  local function bind(address, count)
    local bound, word = net.bind(address, count)
    for _, fd in ipairs(bound or {}) do fds[#fds + 1] = fd end
    return bound, word
  end

  local function connect(address)
    local fd = assert(net.connect(address))
    fds[#fds + 1] = fd
    return fd
  end

  -- Accepts all that comes on `bound`; returns the list that grows.
  local function accept_all(bound, workers)
    local taken = {}
    local ear = loop:ear(bound, workers or 1, function(_, fd, peer)
      fds[#fds + 1] = fd
      taken[#taken + 1] = { fd = fd, peer = peer }
    end)
    return taken, ear
  end

  it("binds as many sockets as asked for, all to the port the kernel chose", function()
    local bound = bind("127.0.0.1:0", 4)
    assert.equal(4, #bound)
    local name, port = net.name(bound[1])
    assert.is_true(port > 0)
    for _, fd in ipairs(bound) do
      assert.equal(name, (net.name(fd)))
      assert.is_true(net.options(fd).reuseport)
    end
  end)

  it("serves both families on one socket when it is bound to all addresses", function()
    local bound = bind("0", 1)
    local _, port = net.name(bound[1])
    local taken = accept_all(bound)
    connect("127.0.0.1:" .. port)
    assert.is_true(loop:run_until(function() return #taken == 1 end))
    assert.matches("^127%.0%.0%.1:%d+$", taken[1].peer)
    local v6 = net.connect("[::1]:" .. port)
    if not v6 then return end
    fds[#fds + 1] = v6
    assert.is_true(loop:run_until(function() return #taken == 2 end))
    assert.matches("^%[::1%]:%d+$", taken[2].peer)
  end)

  it("says so when another has the address, though that one shares it", function()
    local bound = bind("127.0.0.1:0", 2)
    local name = net.name(bound[1])
    assert.same({ nil, "EADDRINUSE" }, { bind(name, 2) })
  end)

  it("says so when the address is not ours", function()
    assert.same({ nil, "EADDRNOTAVAIL" }, { bind("203.0.113.1:0", 1) })
  end)

  it("hands out sockets that are tuned", function()
    local bound = bind("127.0.0.1:0", 1)
    local taken = accept_all(bound)
    connect((net.name(bound[1])))
    assert.is_true(loop:run_until(function() return #taken == 1 end))
    local options = net.options(taken[1].fd)
    assert.is_true(options.nodelay)
    assert.is_true(options.keepalive)
    assert.same({ nil, "EAGAIN" }, { net.read(taken[1].fd) })
  end)

  it("spreads its sockets over the workers, j to worker j mod N", function()
    local bound = bind("127.0.0.1:0", 5)
    local second = net.loop(1)
    local _, first_ear = accept_all(bound, 2)
    local second_ear = second:ear(bound, 2, function() end)
    assert.equal(3, first_ear:count())
    assert.equal(2, second_ear:count())
    local seventh = net.loop(6)
    assert.equal(0, seventh:ear(bound, 7, function() end):count())
    seventh:close()
    second:close()
  end)

  it("accepts every connection, whichever socket the kernel put it on", function()
    local bound = bind("127.0.0.1:0", 4)
    local taken = accept_all(bound)
    local name = net.name(bound[1])
    for _ = 1, 60 do connect(name) end
    assert.is_true(loop:run_until(function() return #taken == 60 end))
  end)

  it("accepts at most 16 connections of one socket in a turn", function()
    local bound = bind("127.0.0.1:0", 1)
    local name = net.name(bound[1])
    for _ = 1, 60 do connect(name) end
    local taken = accept_all(bound)
    local before = 0
    assert.is_true(loop:run_until(function()
      assert.is_true(#taken - before <= 16)
      before = #taken
      return #taken == 60
    end))
  end)

  it("leaves connections in the queue while it is paused", function()
    local bound = bind("127.0.0.1:0", 1)
    local taken, ear = accept_all(bound)
    ear:pause(true)
    connect((net.name(bound[1])))
    loop:gather(function() end)
    loop:turn()
    assert.equal(0, #taken)
    ear:pause(false)
    assert.is_true(loop:run_until(function() return #taken == 1 end))
  end)

  it("may be paused or closed while it accepts", function()
    local bound = bind("127.0.0.1:0", 1)
    local name = net.name(bound[1])
    for _ = 1, 3 do connect(name) end
    local count = 0
    loop:ear(bound, 1, function(ear, fd)
      fds[#fds + 1] = fd
      count = count + 1
      if count == 1 then ear:pause(true) else ear:close() end
      loop:gather(function() if count == 1 then ear:pause(false) end end)
    end)
    assert.is_true(loop:run_until(function() return count == 2 end))
    loop:gather(function() end)
    loop:turn()
    assert.equal(2, count)
    local taken = accept_all(bound)
    assert.is_true(loop:run_until(function() return #taken == 1 end))
  end)

  it("rests when there are no descriptors, keeps the queue, and goes on by itself", function()
    local bound = bind("127.0.0.1:0", 1)
    local taken = accept_all(bound)
    connect((net.name(bound[1])))
    local before = net.limit_files(0)
    local began, turns = loop:now(), loop:turns()
    loop:run_until(function() return loop:now() - began > 0.05 end, 0.06)
    net.limit_files(before)
    assert.equal(0, #taken)
    assert.is_true(loop:turns() - turns < 10, "it spins")
    assert.is_true(loop:run_until(function() return #taken == 1 end))
    assert.is_true(loop:now() - began >= 0.09)
  end)

  describe("on a unix socket", function()
    local path
    before_each(function()
      path = os.tmpname()
      os.remove(path)
    end)
    after_each(function() os.remove(path) end)

    it("accepts clients, which have no name", function()
      local bound = bind("unix:" .. path, 3)
      assert.equal(3, #bound)
      local taken = accept_all(bound)
      connect("unix:" .. path)
      connect("unix:" .. path)
      assert.is_true(loop:run_until(function() return #taken == 2 end))
      assert.equal("unix:", taken[1].peer)
    end)

    it("replaces a file that is left over", function()
      net.close(assert(net.bind_bare("unix:" .. path)))
      assert.is_truthy(bind("unix:" .. path, 1))
      connect("unix:" .. path)
    end)

    it("does not replace one where somebody listens", function()
      bind("unix:" .. path, 1)
      assert.same({ nil, "EADDRINUSE" }, { bind("unix:" .. path, 1) })
      connect("unix:" .. path)
    end)

    it("never replaces a file that is no socket", function()
      local file = assert(io.open(path, "w"))
      file:write "precious"
      file:close()
      assert.same({ nil, "EADDRINUSE" }, { bind("unix:" .. path, 1) })
      assert.equal("precious", io.open(path):read "a")
    end)

    it("says so when the folder is not there", function()
      assert.same({ nil, "ENOENT" }, { bind("unix:/nobody/has/this.sock", 1) })
    end)
  end)
end)
