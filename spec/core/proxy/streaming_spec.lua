-- Bodies flow while they are being made, at the pace of who takes them, in constant memory; and what happens when one
-- side leaves in the middle.

local support = require "support"
local it, h2, http, net, moongate = support.it, support.h2, support.http, support.net, support.moongate

-- How much a transfer moves that is to show constant memory: many times what may be held anywhere.
local preset = support.process.preset
local large = ({ release = 512, debug = 256, asan = 64, tsan = 32 })[preset] or 256
large = large << 20
local hard = preset == "hard"
-- In the hard build bytes move one by one: what must fill the kernel's buffers would take minutes there.
local it_fills = support.process.preset == "hard" and pending or it

describe("a body", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = [[
      local function site(listen, settings)
        settings.listen, settings.backends = listen, { app = { "$BACKEND", keepalive = 0 } }
        settings.max_body = "none"
        return settings
      end
      return { drain = "2s", sites = {
        site({ "127.0.0.1:$PORT", "unix:$DIR/site.sock" }, {}),
        site("127.0.0.1:$PORT2", { abort_on_fin = true }),
        site("127.0.0.1:$PORT3", { timeouts = { between = "300ms" } }),
        site("unix:$DIR/idle.sock", { timeouts = { idle = "100ms" } }),
      } }
    ]] }
  end)

  local slow

  support.setup(function()
    slow = moongate.start { config = [[
      local gate = require "moongate"
      return { listen = { { "127.0.0.1:$PORT", h2c = true } }, drain = "2s", timeouts = { between = "300ms" },
        on_request = gate.reply(200, ("x"):rep(12 << 20)) }
    ]] }
  end)

  -- A client and its request at the backend, head read.
  local function begun(head, port)
    local client = net.connect(port or gate.port)
    client:send(head or "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    local conn = backend:accept()
    return client, conn, http.request_head(conn)
  end

  local function ended(conn)
    support.eventually("the conn to end", function() return conn.eof or conn.lost end)
  end

  describe("on its way to the client", function()
    it("flows before it is complete, with a length", function()
      local client, conn = begun()
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst"
      http.response_head(client)
      assert.equal("first", client:read_exactly(5))
      conn:send "after"
      assert.equal("after", client:read_exactly(5))
    end)

    it("flows before it is complete, in chunks", function()
      local client, conn = begun()
      conn:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n5\r\naft"
      http.response_head(client)
      assert.equal("firstaft", http.content(client, 8))
      conn:send "er\r\n0\r\n\r\n"
      assert.equal("er", http.content(client, 2))
      assert.is_nil(http.chunk(client))
    end)

    it("flows before it is complete, until close", function()
      local client, conn = begun()
      conn:send "HTTP/1.1 200 OK\r\n\r\nfirst"
      http.response_head(client)
      assert.equal("first", http.content(client, 5))
      conn:send "after"
      assert.equal("after", http.content(client, 5))
      conn:close()
      assert.is_nil(http.chunk(client))
    end)

    it("is preceded by its head, though no byte of it is there yet", function()
      local client, conn = begun()
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
      assert.equal("10", http.response_head(client).headers["Content-Length"])
    end)
  end)

  describe("on its way to the backend", function()
    it("flows before it is complete, with a length", function()
      local client, conn = begun "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
      client:send "first"
      assert.equal("first", conn:read_exactly(5))
      client:send "after"
      assert.equal("after", conn:read_exactly(5))
    end)

    it("flows before it is complete, in chunks", function()
      local client, conn = begun "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      for _, piece in ipairs { "one", "two", "three" } do
        client:send(http.encode_chunk(piece))
        assert.equal(piece, http.content(conn, #piece))
      end
      client:send "0\r\n\r\n"
      assert.is_nil(http.chunk(conn))
    end)

    it("flows while the answer does", function()
      local client, conn = begun "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      conn:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      assert.equal(200, http.response_head(client).status)
      for i = 1, 20 do
        local piece = ("piece %d"):format(i)
        client:send(http.encode_chunk(piece))
        assert.equal(piece, http.content(conn, #piece))
        conn:send(http.encode_chunk(piece:upper()))
        assert.equal(piece:upper(), http.content(client, #piece))
      end
      client:send "0\r\n\r\n"
      assert.is_nil(http.chunk(conn))
      conn:send "0\r\n\r\n"
      assert.is_nil(http.chunk(client))
      client:send "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
      assert.equal("/next", http.request_head(backend:accept()).target)
    end)

    it("is given up when the answer is complete before it", function()
      local client, conn = begun "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
      client:send(("x"):rep(1000))
      conn:read_exactly(1000)
      conn:send "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
      local response = http.response(client)
      assert.equal(403, response.status)
      assert.equal("no", response.body)
      ended(conn)
      ended(client)
    end)

    it("that a backend answers and cuts off does not cost the client that answer", function()
      local client, conn = begun "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
      conn:stop_reading()
      client:post(("x"):rep(1 << 20))
      conn:send "HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
      conn:close() -- unread bytes: a RST
      local response = http.response(client)
      assert.equal(413, response.status)
      assert.equal("no", response.body)
    end)
  end)

  describe("in constant memory", function()
    local piece = ("0123456789abcdef"):rep(1 << 12) -- 64 KiB

    -- What may be held between two ends that do not move: our buffers and the kernel's of four sockets.
    local held_at_most = 40 << 20
    -- Sanitizers keep freed memory back, up to hundreds of MiB.
    local grown_at_most = (({ asan = 512, tsan = 512 })[preset] or 8) << 20

    -- Moves `large` bytes from one conn to the other, which does not read at first. Returns what was sent.
    local function transfer(from, to, total)
      to:stop_reading()
      local before = gate:rss()
      local moved = from:send_until_blocked(piece, 0.15, held_at_most)
      assert.is_true(moved < held_at_most)
      local blocked = gate:rss()
      to:start_reading()
      local rest = total - from.sent
      local sender = support.spawn(function()
        while rest > 0 do
          local part = rest < #piece and piece:sub(1, rest) or piece
          from:send(part, 60)
          rest = rest - #part
        end
      end)
      local after = blocked
      for i = 1, 4 do
        to:skip(i < 4 and total // 4 or total - 3 * (total // 4))
        after = math.max(after, gate:rss())
      end
      sender:join(60)
      assert.is_true(after - before < grown_at_most, ("grew by %d KiB"):format((after - before) >> 10))
    end

    it_fills("passes an upload to a backend that is slow to read", function()
      local client, conn = begun(("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"):format(large))
      client.sent = 0
      transfer(client, conn, large)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
      assert.equal(200, http.response(client).status)
    end)

    it_fills("passes a download to a client that is slow to read", function()
      local client, conn = begun()
      conn:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(large))
      http.response_head(client)
      conn.sent = 0
      transfer(conn, client, large)
      assert.equal("", client:pending())
    end)

    it_fills("passes a download in chunks to a client that is slow to read", function()
      local client, conn = begun()
      conn:send "HTTP/1.1 200 OK\r\n\r\n"
      client:read_until "\r\n\r\n"
      client:stop_reading()
      local before = gate:rss()
      assert.is_true(conn:send_until_blocked(piece, 0.15, held_at_most) < held_at_most)
      assert.is_true(gate:rss() - before < grown_at_most)
      client:start_reading()
      client:skip(1 << 20)
      client:close()
      ended(conn)
    end)
  end)

  describe("whose client leaves", function()
    it("while it goes to the client ends the fetch", function()
      local client, conn = begun()
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nbegin"
      client:read_until "begin"
      client:close()
      local task = support.spawn(function()
        while conn:try_send(("x"):rep(65536)) do end
      end)
      task:join(5)
      assert.is_truthy(conn.lost or conn.eof)
    end)

    it("by a reset while it goes to the client ends the fetch at once", function()
      local client, conn = begun()
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nbegin"
      client:read_until "begin"
      client:reset()
      conn:expect_closed()
    end)

    it("by a reset before the answer ends the fetch at once", function()
      local client, conn = begun()
      client:reset()
      conn:expect_closed()
    end)

    it("while it goes to the backend ends the fetch, and does not look complete", function()
      local client, conn = begun "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
      assert.equal("half", http.content(conn, 4))
      client:close()
      conn:expect_closed()
    end)

    it("by a half-close before the request is whole ends the fetch, and gets no answer", function()
      local client, conn = begun "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"
      conn:read_until "half"
      client:shutdown()
      conn:expect_closed()
      client:expect_closed()
    end)

    it("by a half-close in the middle of a chunk's frame ends the fetch, too", function()
      local client, conn = begun("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" ..
        "4\r\nhalf\r\n0\r\nX-Trail")
      assert.equal("half", http.content(conn, 4))
      client:shutdown()
      conn:expect_closed()
      client:expect_closed()
    end)

    it("by a half-close behind the request is answered", function()
      local client, conn = begun "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
      client:shutdown()
      conn:read_until "body"
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
      assert.equal("ok", http.response(client).body)
      client:expect_eof()
    end)

    it("by a half-close behind the request ends the fetch where abort_on_fin says so", function()
      local client, conn = begun("GET / HTTP/1.1\r\nHost: a\r\n\r\n", gate.values.PORT2)
      client:shutdown()
      conn:expect_closed()
      client:expect_closed()
    end)

    it("by a half-close gets the rest of a long answer", function()
      local size = hard and 1 << 16 or 32 << 20
      local client, conn = begun()
      client:stop_reading()
      local sender = support.spawn(function()
        conn:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(size) .. ("x"):rep(size))
      end)
      client:shutdown()
      support.sleep(0.05)
      client:start_reading()
      http.response_head(client)
      client:skip(size)
      client:expect_eof()
      sender:join()
    end)

    -- Unix sockets, whose buffers do not grow: one of these answers fills the client's, and
    -- what is left of it the proxy's.
    it_fills("by a half-close gets what the proxy still holds of a complete answer", function()
      for kib = 32, 352, 16 do
        local client, conn = begun(nil, gate.dir .. "/site.sock")
        client:stop_reading()
        conn:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(kib << 10) .. ("x"):rep(kib << 10))
        support.sleep(0.01) -- the proxy has all of the answer, or as much as it takes
        client:shutdown()
        support.sleep(0.005)
        client:start_reading()
        http.response_head(client)
        client:skip(kib << 10)
        client:expect_eof()
      end
    end)
  end)

  it_fills("that the client takes late is not cut off by timeouts.idle", function()
    for _, kib in ipairs { 216, 248, 280 } do -- as above
      local client, conn = begun(nil, gate.dir .. "/idle.sock")
      client:stop_reading()
      conn:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(kib << 10) .. ("x"):rep(kib << 10))
      support.sleep(0.25)
      client:start_reading()
      http.response_head(client)
      client:skip(kib << 10)
      client:expect_eof()
    end
  end)

  -- What was in the chunks of a body that was cut off.
  local function cut_off(conn)
    local bytes = conn:read_all()
    assert.is_nil(bytes:find "%f[%w]0+\r\n")
    return (bytes:gsub("(%x+)\r\n([^\r]*)\r\n", "%2"))
  end

  describe("whose backend leaves", function()
    it("before the end of its length is cut off visibly, behind all that came of it", function()
      local client, conn = begun()
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
      conn:close()
      assert.equal("10", http.response_head(client).headers["Content-Length"])
      assert.equal("half", client:read_all())
    end)

    it("in the middle of its chunks is cut off without a last chunk", function()
      for _, rest in ipairs { "", "5\r\n", "0\r\n", "0\r\nX-Trai", "0\r\nX: y\r\n" } do
        local client, conn = begun()
        conn:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n" .. rest)
        conn:close()
        http.response_head(client)
        assert.equal("first", cut_off(client))
      end
    end)

    it("with nonsense for a chunk is cut off without a last chunk", function()
      local client, conn = begun()
      conn:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\nnonsense\r\n0\r\n\r\n"
      http.response_head(client)
      assert.equal("first", cut_off(client))
      ended(conn)
    end)

    it("by a reset is cut off without a last chunk, though its end was to be the close", function()
      local client, conn = begun()
      conn:send "HTTP/1.1 200 OK\r\n\r\nfirst"
      http.response_head(client)
      assert.equal("first", http.content(client, 5))
      conn:reset()
      assert.equal("", cut_off(client))
    end)

    it("is cut off by a reset for a client of HTTP/1.0, who would take an end for the end", function()
      local client, conn = begun "GET / HTTP/1.0\r\n\r\n"
      conn:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
      client:read_until "first"
      conn:close()
      client:expect_reset()
    end)

    it("and comes no more is cut off after timeouts.between", function()
      local client, conn = begun(nil, gate.values.PORT3)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
      http.response_head(client)
      assert.equal("half", client:read_all())
      ended(conn)
    end)

    it("but comes on within timeouts.between lasts", function()
      local client, conn = begun(nil, gate.values.PORT3)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"
      for byte in ("eight by"):gmatch "." do
        support.sleep(0.1)
        conn:send(byte)
      end
      assert.equal("eight by", http.response(client).body)
    end)
  end)

  for protocol, request in pairs {
    ["HTTP/1"] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ["HTTP/1, the last"] = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ["HTTP/2"] = h2.preface ..
      h2.frame("SETTINGS", 0, 0, (">I2I4"):pack(h2.settings.INITIAL_WINDOW_SIZE, 0x7fffffff)) ..
      h2.frame("WINDOW_UPDATE", 0, 0, (">I4"):pack(1 << 30)) ..
      h2.frame("HEADERS", h2.END_STREAM | h2.END_HEADERS, 1, h2.hpack.encode(h2.request_fields "/")),
  } do
    -- The socket holds megabytes for it and takes more when a third of them is gone, long after timeouts.between.
    it_fills("that the client takes slowly lasts: " .. protocol, function()
      local client = assert(require "socket".connect("127.0.0.1", slow.port))
      client:settimeout(20)
      assert(client:send(request))
      local left = 12 << 20
      local function take(n)
        local bytes, why, some = client:receive(n)
        left = left - #(bytes or some)
        assert.is_nil(why)
      end
      for _ = 1, 20 do
        take(48 << 10)
        support.sleep(0.1)
      end
      while left > 0 do take(48 << 10) end
      client:close()
    end)
  end

  it_fills("that the client does not take ends with timeouts.between", function()
    local client, conn = begun(nil, gate.values.PORT3)
    client:stop_reading()
    conn:post("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" .. ("x"):rep(48 << 20))
    ended(conn)
    client:start_reading()
    assert.is_true(client:skip() < 100000000)
  end)
end)
