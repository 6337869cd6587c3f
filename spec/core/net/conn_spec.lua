local net = require("moongate_core").net

-- A conn that notes all it is told in `story` and keeps what it reads in `got`.
local function noting(options)
  local seen = { story = {}, got = "" }
  local function note(word)
    return function() seen.story[#seen.story + 1] = word end
  end
  seen.handlers = {
    on_bytes = function(conn)
      seen.told = (seen.told or 0) + 1
      if not seen.keeping then seen.got = seen.got .. conn:take() end
    end,
    on_end = note "end",
    on_connected = note "connected",
    on_room = note "room",
    on_flushed = note "flushed",
    on_deadline = note "deadline",
    on_broken = function(_, why) seen.story[#seen.story + 1] = why end,
  }
  for name, handler in pairs(options or {}) do seen.handlers[name] = handler end
  return seen
end

local function last(seen) return seen.story[#seen.story] end

describe("a conn", function()
  local loop, fds
  before_each(function()
    loop, fds = net.loop(), {}
  end)
  after_each(function()
    loop:close()
    for _, fd in ipairs(fds) do net.close(fd) end
  end)

  local function keep(fd)
    fds[#fds + 1] = fd
    return fd
  end

  -- A conn over a unix socket pair; returns it, what it was told, and the other end.
  local function open_pair(options)
    local ours, theirs = net.socketpair()
    local seen = noting(options)
    return loop:conn(ours, seen.handlers), seen, keep(theirs)
  end

  -- The same over TCP, where resets exist; the other end is taken from `fds` when a spec closes it itself.
  local function open_tcp(options)
    local listening = net.bind("127.0.0.1:0", 1)[1]
    keep(listening)
    local theirs = net.connect((net.name(listening)))
    local accepted
    local ear = loop:ear({ listening }, 1, function(_, fd) accepted = fd end)
    assert.is_true(loop:run_until(function() return accepted end))
    ear:close()
    local seen = noting(options)
    return loop:conn(accepted, seen.handlers), seen, theirs
  end

  local function wait(is_done, what)
    assert(loop:run_until(is_done), what or "waited in vain")
  end

  -- Reads all that the other end gets until `n` bytes are there, turning meanwhile.
  local function read_theirs(fd, n)
    local pieces, size = {}, 0
    local watch = loop:watch(fd, function()
      local bytes = net.read(fd)
      if bytes then
        pieces[#pieces + 1] = bytes
        size = size + #bytes
      end
    end)
    wait(function() return size >= n end, "the other end waits for bytes")
    watch:close()
    return table.concat(pieces)
  end

  -- Until the other end sees the end of the stream, "" or an error's name.
  local function wait_end(fd)
    local seen
    local watch = loop:watch(fd, function()
      local bytes, word = net.read(fd)
      if bytes == "" or not bytes and word ~= "EAGAIN" then seen = bytes or word end
    end)
    wait(function() return seen end, "the other end waits for the end")
    watch:close()
    return seen
  end

  describe("that reads", function()
    it("tells of bytes and keeps no memory when they are taken", function()
      local before = net.chunk_bytes()
      local conn, seen, theirs = open_pair()
      net.write(theirs, "hello")
      wait(function() return seen.got == "hello" end)
      assert.equal(5, conn:counts().received)
      assert.equal(before, net.chunk_bytes())
      assert.equal("r", conn:watching())
    end)

    it("reads at most 64 KiB in a turn", function()
      local conn, seen, theirs = open_pair()
      conn:limits(10000000, 65536)
      local sent = 0
      for _ = 1, 4 do sent = sent + (net.write(theirs, ("x"):rep(50000)) or 0) end
      assert.is_true(sent > 65536)
      loop:turn()
      assert.is_true(#seen.got <= 65536)
      wait(function() return #seen.got == sent end)
    end)

    it("stops at its limit and goes on when some was consumed", function()
      local conn, seen, theirs = open_pair()
      seen.keeping = true
      conn:limits(1000, 65536)
      net.write(theirs, ("x"):rep(3000))
      wait(function() return conn:counts().in_size == 1000 end)
      assert.equal("", conn:watching())
      assert.equal(400, #conn:take(400))
      assert.equal("r", conn:watching())
      wait(function() return conn:counts().in_size == 1000 end)
      assert.equal(1400, conn:counts().received)
    end)

    it("does not read while it is paused", function()
      local conn, seen, theirs = open_pair()
      conn:pause(true)
      net.write(theirs, "x")
      loop:gather(function() end)
      loop:turn()
      assert.equal("", seen.got)
      conn:pause(false)
      wait(function() return seen.got == "x" end)
    end)

    it("hears of the other side's end once, after its bytes", function()
      local conn, seen, theirs = open_pair()
      net.write(theirs, "bye")
      net.shutdown(theirs)
      wait(function() return #seen.story > 0 end)
      assert.equal("bye", seen.got)
      assert.same({ "end" }, seen.story)
      assert.equal("", conn:watching())
      assert.equal("open", conn:state())
    end)

    it("still answers after the other side's end", function()
      local conn, seen, theirs = open_pair()
      net.shutdown(theirs)
      wait(function() return last(seen) == "end" end)
      conn:write "answer"
      assert.equal("answer", read_theirs(theirs, 6))
      conn:shut()
      assert.equal("", wait_end(theirs))
    end)

    it("is told of a reset once, and of nothing after it", function()
      local conn, seen, theirs = open_tcp()
      conn:deadline(60)
      net.reset(theirs)
      wait(function() return #seen.story > 0 end)
      conn:write "x"
      loop:turn()
      assert.same({ "reset" }, seen.story)
      assert.equal("broken", conn:state())
      conn:finish()
      assert.equal("closed", conn:state())
    end)

    it("learns of a reset that came while it was full as soon as some is consumed", function()
      local conn, seen, theirs = open_tcp()
      seen.keeping = true
      conn:limits(10, 65536)
      net.write(theirs, "0123456789")
      wait(function() return conn:counts().in_size == 10 end)
      net.reset(theirs)
      loop:gather(function() end)
      loop:turn()
      assert.same({}, seen.story)
      assert.equal("0123456789", conn:take())
      wait(function() return last(seen) == "reset" end)
    end)

    it("may be closed by its own handler", function()
      for _, event in ipairs { "on_bytes", "on_end" } do
        local conn, _, theirs = open_pair { [event] = function(self) self:finish() end }
        net.write(theirs, "x")
        net.shutdown(theirs)
        wait(function() return conn:state() == "closed" end)
      end
    end)

    it("may be closed by the handler of another in the same turn", function()
      local conns = {}
      local function close_other(self)
        self:take()
        conns[self == conns[1] and 2 or 1]:finish()
      end
      local theirs = {}
      for i = 1, 2 do
        local _
        conns[i], _, theirs[i] = open_pair { on_bytes = close_other }
      end
      for i = 1, 2 do net.write(theirs[i], "x") end
      wait(function() return conns[1]:state() == "closed" or conns[2]:state() == "closed" end)
      assert.is_true(conns[1]:state() == "open" or conns[2]:state() == "open")
    end)
  end)

  describe("that writes", function()
    it("writes in the flush phase, once for all that was appended", function()
      local conn, seen, theirs = open_pair()
      conn:write "one "
      conn:write "two"
      assert.is_nil((net.read(theirs)))
      assert.equal("one two", read_theirs(theirs, 7))
      wait(function() return last(seen) == "flushed" end)
      assert.same({ "flushed" }, seen.story)
      assert.equal("r", conn:watching())
    end)

    it("writes more segments than one call takes", function()
      local conn, _, theirs = open_pair()
      conn:write_static(300)
      assert.equal(("segment."):rep(300), read_theirs(theirs, 2400))
    end)

    it("asks for writability only while the socket takes no more", function()
      local conn, seen, theirs = open_pair()
      local bytes = ("0123456789abcdef"):rep(65536)
      conn:limits(65536, 65536)
      conn:write(bytes)
      assert.equal(0, conn:room())
      wait(function() return conn:watching() == "rw" end)
      assert.equal(bytes, read_theirs(theirs, #bytes))
      wait(function() return last(seen) == "flushed" end)
      assert.same({ "room", "flushed" }, seen.story)
      assert.equal("r", conn:watching())
      assert.equal(65536, conn:room())
      assert.equal(#bytes, conn:counts().sent)
    end)

    it("tells of room only after it had been full", function()
      local conn, seen, theirs = open_pair()
      conn:limits(65536, 100)
      conn:write(("x"):rep(99))
      read_theirs(theirs, 99)
      wait(function() return last(seen) == "flushed" end)
      conn:write(("x"):rep(100))
      read_theirs(theirs, 100)
      wait(function() return #seen.story == 3 end)
      assert.same({ "flushed", "room", "flushed" }, seen.story)
    end)

    it("goes on with what was appended while it was blocked", function()
      local conn, _, theirs = open_pair()
      local first, second = ("a"):rep(1000000), ("b"):rep(1000)
      conn:write(first)
      wait(function() return conn:watching() == "rw" end)
      conn:write(second)
      assert.equal(first .. second, read_theirs(theirs, #first + #second))
    end)

    it("sends its FIN when all is written, and reads on", function()
      local conn, seen, theirs = open_pair()
      conn:write "last words"
      conn:shut()
      assert.equal("last words", read_theirs(theirs, 10))
      assert.equal("", wait_end(theirs))
      net.write(theirs, "more")
      wait(function() return seen.got == "more" end)
      assert.is_false(conn:reusable())
    end)

    it("sends its FIN at once when nothing waits", function()
      local conn, _, theirs = open_pair()
      conn:shut()
      assert.equal("", (net.read(theirs)))
    end)

    it("writes at once when it cannot wait, and tells in the flush phase", function()
      local conn, seen, theirs = open_pair()
      conn:write "x"
      conn:flush()
      assert.same({}, seen.story)
      assert.equal("x", (net.read(theirs)))
      loop:turn()
      assert.same({ "flushed" }, seen.story)
    end)

    it("is broken by a write that fails, without a signal", function()
      local conn, seen, theirs = open_pair()
      conn:pause(true)
      net.close(theirs)
      table.remove(fds)
      conn:write "x"
      wait(function() return #seen.story > 0 end)
      assert.same({ "reset" }, seen.story)
    end)

    it("tells of a failed urgent write in the next gather phase", function()
      local conn, seen, theirs = open_pair()
      conn:pause(true)
      net.close(theirs)
      table.remove(fds)
      conn:write "x"
      conn:flush()
      assert.same({}, seen.story)
      wait(function() return #seen.story > 0 end)
      assert.same({ "reset" }, seen.story)
    end)

    it("reads the answer that came before its write failed", function()
      local conn, seen, theirs = open_tcp()
      conn:write "upload"
      read_theirs(theirs, 6)
      conn:pause(true)
      net.write(theirs, "HTTP/1.1 413 Too Large\r\n")
      conn:write(("x"):rep(100000))
      local blocked = net.read(theirs, 1)
      wait(function()
        blocked = blocked or net.read(theirs, 1)
        return blocked
      end)
      net.close(theirs) -- with unread bytes: a reset
      conn:pause(false)
      for _ = 1, 3 do
        conn:write(("x"):rep(1000))
        loop:gather(function() end)
        loop:turn()
      end
      wait(function() return last(seen) == "reset" end)
      assert.equal("HTTP/1.1 413 Too Large\r\n", seen.got)
    end)
  end)

  describe("that closes", function()
    it("stays silent whatever was due", function()
      local conn, seen, theirs = open_pair()
      net.write(theirs, "x")
      conn:write "y"
      conn:deadline(0.001)
      conn:finish()
      conn:finish()
      local passed
      loop:deadline(function() passed = true end):set(0.01)
      wait(function() return passed end)
      assert.same({}, seen.story)
      assert.equal("", seen.got)
    end)

    it("sends a reset when it is to", function()
      local conn, _, theirs = open_tcp()
      conn:reset()
      assert.equal("closed", conn:state())
      assert.equal("ECONNRESET", wait_end(theirs))
      net.close(theirs)
    end)
  end)

  describe("that lingers", function()
    it("sends what it had and a FIN, drops what comes, and ends with the other side", function()
      local conn, seen, theirs = open_tcp()
      net.write(theirs, "upload ")
      wait(function() return seen.got == "upload " end)
      conn:write "answer"
      conn:linger()
      net.write(theirs, "goes on")
      assert.equal("answer", read_theirs(theirs, 6))
      assert.equal("", wait_end(theirs))
      assert.same({}, seen.story)
      net.shutdown(theirs)
      wait(function() return #seen.story > 0 end)
      assert.same({ "cancelled" }, seen.story)
      assert.equal("upload ", seen.got)
      net.close(theirs)
    end)

    it("writes all of a long answer first", function()
      local conn, seen, theirs = open_tcp()
      local answer = ("0123456789abcdef"):rep(65536)
      conn:write(answer)
      conn:linger()
      assert.equal(answer, read_theirs(theirs, #answer))
      assert.equal("", wait_end(theirs))
      net.close(theirs)
      wait(function() return #seen.story > 0 end)
      assert.same({ "cancelled" }, seen.story)
    end)

    it("ends after 256 KiB of a client that does not stop", function()
      local conn, seen, theirs = open_pair()
      conn:linger()
      local began = loop:now()
      wait(function()
        net.write(theirs, ("x"):rep(8192))
        return #seen.story > 0
      end)
      assert.same({ "cancelled" }, seen.story)
      assert.is_true(conn:counts().received <= 262144 + 65536) -- less in the hard build
      assert.is_true(loop:now() - began < 1.9)
    end)

    it("ends after two seconds of a client that does nothing", function()
      local conn, seen = open_pair()
      conn:linger()
      local began = loop:now()
      wait(function() return #seen.story > 0 end)
      assert.same({ "cancelled" }, seen.story)
      assert.is_true(loop:now() - began >= 1.99)
    end)

    it("ends in a later turn when the other side has ended before", function()
      local conn, seen, theirs = open_pair()
      net.shutdown(theirs)
      wait(function() return last(seen) == "end" end)
      conn:linger()
      assert.same({ "end" }, seen.story)
      wait(function() return #seen.story == 2 end)
      assert.same({ "end", "cancelled" }, seen.story)
    end)

    it("ends also when it was broken before, and when the other side resets", function()
      local conn, seen, theirs = open_tcp()
      net.reset(theirs)
      wait(function() return last(seen) == "reset" end)
      conn:linger()
      wait(function() return #seen.story == 2 end)
      assert.same({ "reset", "cancelled" }, seen.story)

      conn, seen, theirs = open_tcp()
      conn:linger()
      net.reset(theirs)
      wait(function() return #seen.story > 0 end)
      assert.same({ "cancelled" }, seen.story)
    end)

    it("has no other deadline than its own", function()
      local conn, seen, theirs = open_pair()
      conn:deadline(0.001)
      conn:linger()
      conn:deadline(0.001)
      local passed
      loop:deadline(function() passed = true end):set(0.02)
      wait(function() return passed end)
      assert.same({}, seen.story)
      net.shutdown(theirs)
      wait(function() return last(seen) == "cancelled" end)
    end)
  end)

  describe("that connects", function()
    it("tells when it stands, and sends what was appended before", function()
      local listening = keep(net.bind("127.0.0.1:0", 1)[1])
      local accepted
      loop:ear({ listening }, 1, function(_, fd) accepted = keep(fd) end)
      local seen = noting()
      local conn = loop:connect((net.name(listening)), seen.handlers)
      conn:write "hello"
      assert.equal("connecting", conn:state())
      assert.same({}, seen.story)
      wait(function() return accepted and last(seen) == "flushed" end)
      assert.same({ "connected", "flushed" }, seen.story)
      assert.equal("hello", read_theirs(accepted, 5))
      assert.is_true(net.options(conn:fd()).nodelay)
      assert.is_true(net.options(conn:fd()).keepalive)
      assert.equal("r", conn:watching())
      assert.is_true(conn:reusable())
    end)

    it("connects to unix sockets, also abstract ones", function()
      for _, path in ipairs { "unix:" .. os.tmpname() .. ".sock", "unix:@moongate-conn-spec" } do
        local listening = keep(net.bind(path, 1)[1])
        local seen = noting()
        loop:connect(path, seen.handlers)
        assert.same({}, seen.story)
        wait(function() return #seen.story > 0 end)
        assert.same({ "connected" }, seen.story)
        assert.is_truthy(listening)
        os.remove(path:sub(6))
      end
    end)

    -- Connects to where it cannot; returns the word, having checked that it came alone and not from inside the call.
    local function fail_connect(address)
      local seen = noting()
      local conn = loop:connect(address, seen.handlers)
      assert.same({}, seen.story)
      wait(function() return #seen.story > 0 end)
      assert.equal(1, #seen.story)
      assert.equal("broken", conn:state())
      conn:finish()
      return seen.story[1]
    end

    it("is told of a refusal, in a later gather phase", function()
      local listening = net.bind("127.0.0.1:0", 1)[1]
      local address = net.name(listening)
      net.close(listening)
      assert.equal("connect_refused", fail_connect(address))
    end)

    it("is told of a unix socket where nobody listens", function()
      local path = "unix:" .. os.tmpname() .. ".sock"
      assert.equal("connect_failed", fail_connect(path))
      net.close(net.bind_bare(path))
      assert.equal("connect_refused", fail_connect(path))
      os.remove(path:sub(6))
    end)

    it("is told of an address that cannot be reached at all", function()
      assert.equal("connect_failed", fail_connect "255.255.255.255:80")
    end)

    it("is told when there is no descriptor left for it", function()
      local before = net.limit_files(0)
      local seen = noting()
      local conn = loop:connect("127.0.0.1:1", seen.handlers)
      net.limit_files(before)
      assert.equal(-1, conn:fd())
      wait(function() return #seen.story > 0 end)
      assert.same({ "connect_failed" }, seen.story)
    end)

    it("may be closed before it knows", function()
      local listening = keep(net.bind("127.0.0.1:0", 1)[1])
      local seen = noting()
      local first = loop:connect((net.name(listening)), seen.handlers)
      local second = loop:connect("unix:/nobody/here", seen.handlers)
      first:finish()
      second:finish()
      loop:gather(function() end)
      loop:turn()
      assert.same({}, seen.story)
    end)

    it("has its deadline while it connects", function()
      local listening = keep(net.bind("127.0.0.1:0", 1)[1])
      local seen
      seen = noting { on_deadline = function(conn)
        seen.story[#seen.story + 1] = "deadline"
        conn:finish()
      end, on_connected = function() end }
      loop:connect((net.name(listening)), seen.handlers):deadline(0.01)
      wait(function() return #seen.story > 0 end)
      assert.same({ "deadline" }, seen.story)
    end)
  end)

  describe("that is idle", function()
    it("is reusable until something comes", function()
      local conn, seen, theirs = open_pair()
      assert.is_true(conn:reusable())
      conn:write "x"
      assert.is_false(conn:reusable())
      wait(function() return last(seen) == "flushed" end)
      assert.is_true(conn:reusable())
      seen.keeping = true
      net.write(theirs, "y")
      wait(function() return conn:counts().in_size > 0 end)
      assert.is_false(conn:reusable())
      conn:take()
      assert.is_true(conn:reusable())
      net.shutdown(theirs)
      wait(function() return last(seen) == "end" end)
      assert.is_false(conn:reusable())
    end)

    it("is told of its deadline, which may be moved", function()
      local conn, seen = open_pair()
      conn:deadline(60)
      conn:deadline(0.01)
      wait(function() return last(seen) == "deadline" end)
      conn:deadline(0.01)
      conn:deadline(0)
      local passed
      loop:deadline(function() passed = true end):set(0.03)
      wait(function() return passed end)
      assert.same({ "deadline" }, seen.story)
    end)
  end)

  it("passes a long stream through with small limits and a slow reader", function()
    local bytes = {}
    for i = 1, 40000 do bytes[i] = ("%07d "):format(i) end
    bytes = table.concat(bytes)
    local conn, seen, theirs = open_pair()
    conn:limits(777, 999)
    seen.keeping = true
    local at, echoed = 1, {}
    local size = 0
    wait(function()
      at = at + (net.write(theirs, bytes:sub(at, at + 4999)) or 0)
      local room = math.min(conn:room(), conn:counts().in_size)
      if room > 0 then conn:write(conn:take(room)) end
      local piece = net.read(theirs, 300)
      if piece then
        echoed[#echoed + 1] = piece
        size = size + #piece
      end
      assert.is_true(conn:counts().in_size <= 777 and conn:counts().out_size <= 999)
      loop:gather(function() end)
      return size >= #bytes
    end)
    assert.is_true(table.concat(echoed) == bytes)
  end)
end)
