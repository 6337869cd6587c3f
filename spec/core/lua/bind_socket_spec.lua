-- gate.socket against peers scripted line by line, in hooks of a real proxy.
-- luacheck: no max line length (scripts and messages stand in one line)

local uv = require "luv"
local support = require "support"
local probe = require "core.lua.probe"
local it, net = support.it, support.net

-- A peer of one spec: runs `script(conn)` for every conn, until that ends; `run` runs a hook that knows HOST and PORT.
local function with_peer(script, options)
  local peer = net.listen(script and function(conn)
    local ok, err = pcall(script, conn)
    if not ok and not tostring(err):find("the conn ended", 1, true) then error(err, 0) end
  end, options)
  return function(text)
    return probe.request(("local HOST, PORT = '127.0.0.1', %d "):format(peer.port) .. text)
  end, peer
end

local function echo(conn)
  while true do
    local line = conn:read_until "\n"
    conn:send("you said " .. line)
  end
end

local connect = "local sock = assert(gate.socket.connect(HOST, PORT)) "

describe("gate.socket", function()
  support.setup(probe.start)

  describe("connecting", function()
    it("connects to an address, with LuaSocket's methods and results", function()
      local run = with_peer(function(conn) conn:expect_closed() end)
      assert.equal("1", run "local s = gate.socket.tcp() s:settimeout(2) return s:connect(HOST, PORT)")
      assert.equal("moongate.socket", run(connect .. "return sock"))
      assert.equal("127.0.0.1|inet", run(connect .. "local ip, port, family = sock:getpeername() assert(port == PORT) return ip, family"))
      assert.equal("127.0.0.1|integer|inet", run(connect .. "local ip, port, family = sock:getsockname() return ip, math.type(port), family"))
    end)

    it("connects to a name", function()
      local run = with_peer(echo)
      assert.equal("you said hello", run [[
        local sock = assert(gate.socket.connect("localhost", PORT))
        sock:send "hello\n"
        return sock:receive()
      ]])
    end)

    it("connects to a Unix socket", function()
      local dir = support.temp_dir()
      local path = dir .. "/peer.sock"
      assert(uv.fs_chmod(dir, tonumber("755", 8))) -- the serving process may have given up privileges
      with_peer(echo, { path = path })
      assert(uv.fs_chmod(path, tonumber("777", 8)))
      assert.equal("1|you said hello|" .. path, probe.request(([[
        local sock = gate.socket.unix()
        local ok = sock:connect(%q)
        sock:send "hello\n"
        return ok, sock:receive(), (sock:getpeername())
      ]]):format(path)))
      assert.equal("nil|connect_failed|the server could not be reached",
        probe.request "return gate.socket.unix():connect '/nowhere/at/all.sock'")
    end)

    it("says why there is no connection, and may try again", function()
      local run = with_peer(echo)
      local refused = support.refusing_port()
      assert.equal("nil|connect_refused|1|you said again", run(([[
        local sock = gate.socket.tcp()
        local ok, word = sock:connect(HOST, %d)
        local second = sock:connect(HOST, PORT)
        sock:send "again\n"
        return ok, word, second, sock:receive()
      ]]):format(refused)))
      assert.equal("nil|name_not_found", run "return select(1, gate.socket.connect('a b', 1)), (select(2, gate.socket.connect('a b', 1)))")
    end)

    it("keeps to the family that was asked for", function()
      local run = with_peer(echo)
      assert.equal("1", run "return gate.socket.tcp4():connect('localhost', PORT)")
      assert.equal("name_not_found", run "return (select(2, gate.socket.tcp6():connect(HOST, PORT)))")
    end)

    it("gives up after its timeout", function()
      local hole = net.black_hole()
      local text = [[local s = gate.socket.tcp() s:settimeout(0.1, %s)
        local began = gate.clock()
        local ok, word = s:connect("127.0.0.1", %d)
        local took = gate.clock() - began
        return ok, word, took >= 0.1 and took < 2]]
      assert.equal("nil|timeout|true", probe.request(text:format("'b'", hole)))
      assert.equal("nil|timeout|true", probe.request(text:format("'t'", hole)))
      assert.equal("nil|timeout|the time set for it has passed",
        probe.request(("return gate.socket.connect('127.0.0.1', %d, { timeout = '50ms' })"):format(hole)))
    end)

    it("refuses what is no place to connect to", function()
      local run = with_peer(echo)
      probe.raises("a port is 1 to 65535", "gate.socket.connect('localhost', 0)")
      probe.raises("a host has 1 to 255 bytes", "gate.socket.connect('', 1)")
      probe.raises("a host name or an IP expected", "gate.socket.connect('unix:/etc', 1)")
      probe.raises("a path has 1 to 107 bytes", "gate.socket.unix():connect(('x'):rep(108))")
      probe.raises("has no option 'pol' (did you mean 'pool'?)", "gate.socket.connect('localhost', 1, { pol = 1 })")
      assert.matches("this socket is connected already", run(connect .. "sock:connect(HOST, PORT)"))
    end)
  end)

  describe("receive", function()
    it("gives lines without their ends, and numbers of bytes, with what belongs before them", function()
      local run = with_peer(function(conn) conn:send "one\r\ntwo\nthree\r\r\n\n12345678" conn:expect_closed() end)
      assert.equal("one|two|three||1234|ab56|abc|78", run(connect .. [[
        return sock:receive(), sock:receive "*l", sock:receive "l", sock:receive "*l", sock:receive(4),
          sock:receive(4, "ab"), sock:receive(2, "abc"), sock:receive(2)
      ]]))
    end)

    it("gives all to the end, and then says that it is closed", function()
      local run = with_peer(function(conn) conn:send "first " support.sleep(0.01) conn:send "second" conn:close() end)
      assert.equal("> first second|nil|closed|", run(connect .. "return sock:receive('*a', '> '), sock:receive '*a'"))
    end)

    it("puts together what comes in pieces", function()
      local run = with_peer(function(conn)
        for c in ("a line\nand 10 by!"):gmatch "." do conn:send(c) support.sleep(0.001) end
        conn:expect_closed()
      end)
      assert.equal("a line|and 10 by!", run(connect .. "return sock:receive(), sock:receive(10)"))
    end)

    it("keeps what came before a timeout, and goes on afterwards", function()
      local go = support.async.signal()
      local gone
      local run = with_peer(function(conn)
        conn:send "half a li"
        support.async.wait(go, function() return gone end, "the timeout")
        conn:send "ne\n"
        conn:expect_closed()
      end)
      support.spawn(function()
        support.eventually("the script to time out", function() return probe.proxy:log():find("timed out", 1, true) end)
        gone = true
        go:notify()
      end)
      assert.equal("nil|timeout|half a li|half a line", run(connect .. [[
        sock:settimeout(0.05)
        local line, word, partial = sock:receive()
        gate.log("warn", "timed out")
        sock:settimeout(5)
        return line, word, partial, (sock:receive("*l", partial))
      ]]))
    end)

    it("measures a timeout from one arrival to the next, or for the whole call", function()
      local run = with_peer(function(conn)
        for _ = 1, 8 do conn:send "." support.sleep(0.05) end
        conn:expect_closed()
      end)
      assert.equal("........", run(connect .. "sock:settimeout(0.5) return sock:receive(8)"))
      assert.equal("timeout|true", run(connect .. [[
        sock:settimeout(0.12, "t")
        local data, word, partial = sock:receive(8)
        return word, #partial >= 1 and #partial < 8
      ]]))
    end)

    it("looks once and does not wait with a timeout of 0", function()
      local run = with_peer(function(conn) conn:read_until "go" conn:send "there" conn:expect_closed() end)
      assert.equal("timeout||there", run(connect .. [[
        sock:settimeout(0)
        local _, word, partial = sock:receive(5)
        sock:send "go"
        local data, rest
        repeat local why data, why, rest = sock:receive(5, rest) until data
        return word, partial, data
      ]]))
    end)

    it("tells a peer that closed or reset from one that is slow", function()
      local run = with_peer(function(conn) conn:send "part" conn:close() end)
      assert.equal("nil|closed|part", run(connect .. "return sock:receive()"))
      run = with_peer(function(conn) conn:send "part" conn:read_until "go" conn:reset() end)
      assert.equal("part|nil|closed|", run(connect .. "local part = sock:receive(4) sock:send 'go' return part, sock:receive()"))
      assert.equal("nil|closed|4", run(connect .. [[
        sock:send "go"
        repeat local _, word = sock:receive() until word == "closed"
        return sock:send("more", 5)
      ]]))
    end)

    it("says whether there is something to receive", function()
      local run = with_peer(function(conn) conn:read_until "go" conn:send "x" conn:expect_closed() end)
      assert.equal("false|false|true|true|x", run(connect .. [[
        local before, dirty = sock:readable(0.01), sock:dirty()
        sock:send "go"
        return before, dirty, sock:readable(5), sock:dirty(), sock:receive(1)
      ]]))
    end)

    it("gathers no more than it may", function()
      local run = with_peer(function(conn) while not conn.lost and conn:try_send(("x"):rep(65536)) do end end)
      assert.equal("nil|too_large|a socket gathers 32 MiB at most", run(connect .. "return sock:receive(2 ^ 30 // 1 | 0)"))
      if support.process.preset == "hard" then return end -- 32 MiB, byte by byte
      assert.equal("nil|too_large|more came than a socket gathers|nil|closed|", run(connect .. [[
        local data, word, sentence = sock:receive "*l"
        return data, word, sentence, sock:receive()
      ]]))
    end)

    it("refuses patterns it does not know", function()
      local run = with_peer(echo)
      assert.matches('expected "%*l", "%*a" or a number of bytes', run(connect .. "sock:receive 'x'"))
      assert.matches("not negative", run(connect .. "sock:receive(-1)"))
    end)
  end)

  describe("send", function()
    it("sends all or a part, and says how far it came", function()
      local got = {}
      local run = with_peer(function(conn) got[1] = conn:read_all() end)
      assert.equal("5|4|5|3|0|2", run(connect .. [[
        local a, b, c, d = sock:send "12345", sock:send("abcde", 2, 4), sock:send("vwxyz", -2), sock:send("pqr", 1, 99)
        local e, f = sock:send "", sock:send("none", 3, 2)
        sock:close()
        return a, b, c, d, e, f
      ]]))
      support.eventually("the bytes", function() return got[1] end)
      assert.equal("12345bcdyzpqr", got[1])
    end)

    it("times out when the peer does not read, and says how far it came", function()
      local run = with_peer(function(conn) conn:stop_reading() conn:expect_closed(20) end)
      assert.equal("nil|timeout|true", run(connect .. [[
        sock:settimeout(0.1)
        local piece, last = ("x"):rep(1 << 20)
        local sent, word
        repeat sent, word, last = sock:send(piece) until not sent
        return sent, word, last >= 0 and last < #piece
      ]]))
    end)

    it("goes on when the peer has closed its side only", function()
      local got = {}
      local run = with_peer(function(conn) conn:shutdown() got[1] = conn:read_all() end)
      assert.equal("closed|4", run(connect .. [[
        local _, word = sock:receive()
        local sent = sock:send "late"
        sock:close()
        return word, sent
      ]]))
      support.eventually("the bytes", function() return got[1] end)
      assert.equal("late", got[1])
    end)

    it("delivers what was sent before the socket was closed", function()
      local size = support.process.preset == "hard" and 20000 or 3000000
      local counts = {}
      local run = with_peer(function(conn)
        conn:stop_reading()
        support.sleep(0.05)
        conn:start_reading()
        local length = #conn:read_all()
        counts[#counts + 1] = length
      end)
      local send = connect .. ("local piece = ('x'):rep(%d) for _ = 1, 10 do sock:send(piece) end "):format(size // 10)
      assert.equal("1", run(send .. "return sock:close()"))
      assert.equal("and forgot to close", run(send .. "return 'and forgot to close'"))
      support.eventually("both", function() return #counts == 2 end)
      assert.same({ size, size }, counts)
    end)

    it("shuts down one direction", function()
      local run = with_peer(function(conn) conn:send(("%d bytes"):format(#conn:read_all())) conn:close() end)
      assert.equal("1|5 bytes|closed", run(connect .. [[
        sock:send "12345"
        local ok = sock:shutdown "send"
        return ok, sock:receive "*a", (select(2, sock:send "more"))
      ]]))
      assert.equal("1|nil|closed|", run(connect .. "return sock:shutdown 'receive', sock:receive()"))
    end)
  end)

  it("carries ten megabytes each way", function()
    local size = support.process.preset == "hard" and 40000 or 10 << 20
    local run = with_peer(function(conn)
      conn:skip(size)
      conn:send(("y"):rep(size))
      conn:expect_closed()
    end)
    assert.equal(("%d|%d|true|%d|%d"):format(size, size, size, size), run(connect .. ([[
      local size = %d
      local sent = sock:send(("x"):rep(size))
      local data = sock:receive(size)
      local received_bytes, sent_bytes = sock:getstats()
      return sent, #data, data == ("y"):rep(size), received_bytes, sent_bytes
    ]]):format(size)))
  end)

  describe("a socket", function()
    it("is closed when it is closed", function()
      local run, peer = with_peer(nil)
      assert.equal("1|closed|closed|closed|1|closed", run(connect .. [[
        local first = sock:close()
        local function word(...) return (select(2, ...)) end
        return first, word(sock:send "x"), word(sock:receive()), word(sock:getpeername()), sock:close(),
          word(sock:connect(HOST, PORT))
      ]]))
      peer:accept():expect_eof()
    end)

    it("is closed at the end of its block, and at the end of the exchange that made it", function()
      local run, peer = with_peer(nil)
      run(connect .. "do local scoped <close> = sock end gate.log('warn', 'scoped: ' .. select(2, sock:receive()))")
      assert.matches("scoped: closed", probe.proxy:log())
      peer:accept():expect_eof()
      run(connect .. "upvalue.sock = sock return 'kept'")
      peer:accept():expect_eof()
      assert.equal("nil|closed|", run "return upvalue.sock:receive()")
    end)

    it("is there for the later hooks of its exchange", function()
      local _, peer = with_peer(echo)
      local response = probe.exchange {
        on_request = ("req.ctx.sock = assert(gate.socket.connect('127.0.0.1', %d)) req.ctx.sock:send 'kept\\n'"):format(peer.port),
        on_response = "return (req.ctx.sock:receive())",
      }
      assert.equal("you said kept", response.body)
    end)

    it("is closed when the client leaves, and so is one that still connects", function()
      local _, peer = with_peer(nil)
      local client = net.connect(probe.port)
      client:send("GET / HTTP/1.1\r\nHost: a\r\n" .. probe.field("on_request",
        ("local s = gate.socket.connect('127.0.0.1', %d) s:receive()"):format(peer.port)) .. "\r\n\r\n")
      local conn = peer:accept()
      client:reset()
      conn:expect_eof()
      local hole = net.black_hole()
      client = net.connect(probe.port)
      client:send("GET / HTTP/1.1\r\nHost: a\r\n" .. probe.field("on_request",
        ("gate.log('warn', 'now') gate.socket.connect('127.0.0.1', %d)"):format(hole)) .. "\r\n\r\n")
      probe.proxy:wait_log "now"
      client:reset()
    end)

    it("serves one strand at a time", function()
      local run = with_peer(function(conn) conn:expect_closed() end)
      assert.matches("this socket is in use: another strand waits in its receive", run(connect .. [[
        sock:settimeout(5)
        gate.all(function() sock:receive() end, function() sock:receive() end)
      ]]))
      assert.equal("nil|closed|", run(connect .. [[
        local result
        gate.all(function() result = table.pack(sock:receive()) end, function() sock:close() end)
        return table.unpack(result, 1, 3)
      ]]))
    end)

    it("may be used by another exchange while its own lasts, one at a time", function()
      local run = with_peer(function(conn) conn:read_until "go" conn:send "answer\n" conn:expect_closed() end)
      local owner = support.spawn(function()
        return run(connect .. [[
          upvalue.shared = sock
          gate.log("warn", "shared now")
          repeat gate.sleep(0.001) until upvalue.done
          return "over"
        ]])
      end)
      probe.proxy:wait_log "shared now"
      assert.equal("answer", run "upvalue.shared:send 'go' local line = upvalue.shared:receive() upvalue.done = true return line")
      owner:join()
      assert.equal("closed", run "return (select(2, upvalue.shared:receive()))")
    end)

    it("cannot be waited for where nothing can wait", function()
      local run = with_peer(echo)
      assert.matches("cannot wait inside table.sort", run(connect .. "table.sort({ 2, 1 }, function() sock:receive() end)"))
      assert.matches("cannot wait inside table.sort", run "table.sort({ 2, 1 }, function() gate.socket.connect(HOST, PORT) end)")
      assert.equal("you said on\n", run(connect .. "pcall(table.sort, { 2, 1 }, function() sock:receive() end) sock:send 'on\\n' return sock:receive '*l' .. '\\n'"))
    end)

    it("has options, and says what it does not have", function()
      local run = with_peer(echo)
      assert.equal("1|1|1|1", run [[
        local sock = gate.socket.tcp()
        local before = sock:setoption("keepalive", true)
        sock:connect(HOST, PORT)
        return before, sock:setoption("tcp-nodelay", true), sock:setoption("tcp-keepidle", 30), sock:setoption("reuseaddr", true)
      ]])
      assert.matches("invalid option 'broadcast'", run(connect .. "sock:setoption('broadcast', true)"))
      assert.matches("a socket has no descriptor", run(connect .. "sock:getfd()"))
      assert.matches("a socket has no field 'recieve' %(did you mean 'receive'%?%)", run(connect .. "sock:recieve()"))
    end)
  end)

  it("cannot be made while the file is loaded", function()
    local status, _, err = support.moongate.run({ "check", (function()
      local path = support.temp_dir() .. "/config.lua"
      support.process.write_file(path, 'require "moongate".socket.tcp() return { listen = 1 }')
      return path
    end)() })
    assert.equal(1, status)
    assert.matches("gate.socket cannot be used while the file is loaded", err)
  end)

  it("bounds the sockets of a worker", function()
    assert.equal("true|overloaded|true", probe.request [[
      local list, word = {}
      repeat
        local sock, why = gate.socket.tcp()
        list[#list + 1], word = sock, why
      until not sock
      list[1]:close()
      return #list > 4000 and #list <= 4096, word, gate.socket.tcp() ~= nil -- some may still be closing
    ]])
  end)

  describe("a pool", function()
    local function counting()
      local count = 0
      local run = with_peer(function(conn)
        count = count + 1
        local mine = count
        while true do
          local line = conn:read_until "\n"
          if line == "bye\n" then return conn:close() end
          conn:send(mine .. "\n")
        end
      end)
      return run, function() return count end
    end

    local ask = [[
      local function ask(pool, idle, size)
        local sock = assert(gate.socket.connect(HOST, PORT, { pool = pool }))
        sock:send "which\n"
        local number = sock:receive()
        return number .. "/" .. sock:getreusedtimes(), sock:setkeepalive(idle, size)
      end
    ]]

    it("gives a connection to the next one that asks for it by the same name", function()
      local run, count = counting()
      assert.equal("1/0|1|1/1|1", run(ask .. "local a, b = ask 'one' return a, b, ask 'one'"))
      assert.equal("1/2|1", run(ask .. "return ask 'one'"))
      assert.equal("2/0|1", run(ask .. "return ask 'other'"))
      assert.equal("0", run(connect .. "return sock:getreusedtimes()"))
      support.eventually("all three to be accepted", function() return count() == 3 end)
    end)

    it("keeps no more than it was told, the newest", function()
      local run = counting()
      assert.equal("1 2 3|3|4", run [[
        local function open() return assert(gate.socket.connect(HOST, PORT, { pool = "small" })) end
        local function number(sock) sock:send "which\n" return sock:receive() end
        local a, b, c = open(), open(), open()
        local first = number(a) .. " " .. number(b) .. " " .. number(c)
        for _, sock in ipairs { a, b, c } do assert(sock:setkeepalive(60, 1)) end
        return first, number(open()), number(open())
      ]])
    end)

    it("closes what was idle too long, what its peer closed, and what speaks unasked", function()
      local run, count = counting()
      run(ask .. "ask('brief', '20ms')")
      support.eventually("a new connection", function() return run(ask .. "return (ask('brief', '20ms'))") ~= "1/1" end)
      local closed = count()
      run "local s = gate.socket.connect(HOST, PORT, { pool = 'left' }) s:send 'which\\n' s:receive() s:send 'bye\\n' s:setkeepalive()"
      support.eventually("a new connection", function() return run(ask .. "return (ask 'left')"):match "/0" end)
      assert.is_true(count() > closed)
    end)

    it("takes none that holds bytes, that has ended, or that was not connected with a pool", function()
      local run = with_peer(function(conn) conn:send "unread" conn:read_until "x" conn:close() end)
      assert.equal("nil|dirty", run [[
        local s = gate.socket.connect(HOST, PORT, { pool = "p" })
        s:readable(5)
        local ok, word = s:setkeepalive()
        return ok, word
      ]])
      assert.equal("nil|closed", run [[
        local s = gate.socket.connect(HOST, PORT, { pool = "p" })
        s:receive(6)
        s:send "x"
        s:receive()
        local ok, word = s:setkeepalive()
        return ok, word
      ]])
      assert.matches("connected without { pool", run(connect .. "sock:setkeepalive()"))
    end)

    it("is a worker's, and ends with it", function()
      local run = counting()
      assert.equal("1/0", run(ask .. "return (ask('last', 3600))"))
    end)
  end)
end)
