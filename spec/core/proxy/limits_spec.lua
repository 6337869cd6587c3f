-- What is too much, too long, too slow or not served here, and how that is said: one plain page with the request's id.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

describe("limits", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = [[
      return {
        drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND", keepalive = 0 } },
        hosts = { "a", "*.wild.example" },
        max_body = 1000, max_headers = "2K", max_target = 100,
        timeouts = { head = "200ms", body = "300ms", idle = "200ms" },
      }
    ]] }
  end)

  local ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

  local function send(bytes)
    local client = net.connect(gate.port)
    client:send(bytes)
    return client
  end

  local function assert_page(response, status)
    assert.equal(status, response.status)
    assert.matches(("^%d [%%a -]+\n[^\n]+\nrequest %s\n$"):format(status, ("%x"):rep(16)), response.body)
    assert.equal("text/plain; charset=utf-8", response.headers["Content-Type"])
    assert.equal("no-store", response.headers["Cache-Control"])
    assert.same({ tostring(#response.body) }, response.headers:all "Content-Length")
  end

  local function assert_refused(client, status)
    assert_page(http.response(client), status)
    client:expect_closed()
  end

  local function assert_serves(client)
    client:send "GET /again HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    assert.equal("/again", http.request(conn).target)
    conn:send(ok)
    assert.equal(200, http.response(client).status)
  end

  local function get(target, lines)
    return ("GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n"):format(target, lines or "")
  end

  describe("of heads:", function()
    it("a malformed one is answered 400", function()
      assert_refused(send "nonsense\r\n\r\n", 400)
    end)

    it("something that is no HTTP at all is answered 400", function()
      assert_refused(send "\1\2\3\2\0\1\0\1\252\3\3", 400)
    end)

    it("a target at the limit passes, one byte more is 414", function()
      local client = send(get("/" .. ("x"):rep(99)))
      local conn = backend:accept()
      http.request(conn)
      conn:send(ok)
      assert.equal(200, http.response(client).status)
      client = send(get("/" .. ("x"):rep(100)))
      assert_refused(client, 414)
    end)

    it("a target without end is 414 before it ends", function()
      assert_refused(send("GET /" .. ("x"):rep(200)), 414)
    end)

    it("headers that are too large are 431", function()
      assert_refused(send(get("/", "X: " .. ("y"):rep(2048) .. "\r\n")), 431)
    end)

    it("headers without end are 431 before they end", function()
      assert_refused(send("GET / HTTP/1.1\r\nHost: a\r\n" .. ("A: b\r\n"):rep(400)), 431)
    end)

    it("too many lines are 431", function()
      local client = send("GET / HTTP/1.1\r\nHost: a\r\n" .. ("A:\r\n"):rep(201) .. "\r\n")
      assert_page(http.response(client), 431)
    end)

    it("one that does not come to its end is 408", function()
      assert_refused(send "GET / HTTP/1.1\r\nHost: a\r\n", 408)
    end)

    it("one that trickles in is 408, too", function()
      local client = net.connect(gate.port)
      local task = support.spawn(function()
        for byte in ("GET / HTTP/1.1\r\nHost: a\r\nX: " .. ("y"):rep(1000)):gmatch "." do
          if not client:try_send(byte) then return end
          support.sleep(0.005)
        end
      end)
      assert_page(http.response(client), 408)
      client:close()
      task:join()
    end)

    it("one that does not begin ends the conn without a word", function()
      net.connect(gate.port):expect_eof()
    end)

    it("a conn that asks nothing more ends without a word", function()
      local client = net.connect(gate.port)
      assert_serves(client)
      client:expect_eof()
    end)

    it("a second one that does not come to its end is 408", function()
      local client = net.connect(gate.port)
      assert_serves(client)
      client:send "GET / HT"
      assert_refused(client, 408)
    end)
  end)

  describe("of bodies:", function()
    it("a length at the limit passes", function()
      local client = send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" .. ("x"):rep(1000))
      local conn = backend:accept()
      assert.equal(1000, #http.request(conn).body)
      conn:send(ok)
      assert.equal(200, http.response(client).status)
    end)

    it("a length above it is 413 before a byte of it is read", function()
      assert_refused(send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413)
    end)

    it("a length above it is 413 when the body came along", function()
      for _ = 1, 3 do
        local client = send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n" .. ("x"):rep(1001))
        assert_refused(client, 413)
      end
      assert_serves(net.connect(gate.port))
    end)

    it("a length far above it is 413 for a client that sends all the same", function()
      local client = net.connect(gate.port)
      client:post("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" .. ("x"):rep(200000))
      assert_page(http.response(client), 413)
    end)

    it("chunks at the limit pass", function()
      local client = send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" ..
        http.encode_chunk(("x"):rep(1000)) .. "0\r\n\r\n")
      local conn = backend:accept()
      assert.equal(1000, #http.request(conn).body)
      conn:send(ok)
      assert.equal(200, http.response(client).status)
    end)

    it("chunks above it are 413, and the backend does not take them for the whole", function()
      local client = send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" ..
        http.encode_chunk(("x"):rep(600)))
      local conn = backend:accept()
      http.request_head(conn)
      assert.equal(600, #http.content(conn, 600))
      client:send(http.encode_chunk(("x"):rep(401)) .. "0\r\n\r\n")
      assert_refused(client, 413)
      support.eventually("the backend's conn to end", function() return conn.eof or conn.lost end)
      assert.is_nil(conn:pending():find "0\r\n\r\n")
    end)

    it("one that stops coming is 408, and the fetch ends", function()
      local client = send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"
      local conn = backend:accept()
      http.request_head(conn)
      conn:read_until "half"
      assert_refused(client, 408)
      support.eventually("the backend's conn to end", function() return conn.eof or conn.lost end)
    end)

    it("one that the backend does not take is not blamed on the client", function()
      local client = send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
      local conn = backend:accept()
      http.request(conn)
      support.sleep(0.5) -- longer than timeouts.body
      conn:send(ok)
      assert.equal(200, http.response(client).status)
    end)
  end)

  describe("of what is served:", function()
    it("another host is 421", function()
      assert_refused(send "GET / HTTP/1.1\r\nHost: b\r\n\r\n", 421)
    end)

    it("the host of an absolute target counts, not the field", function()
      local client = send "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"
      assert_page(http.response(client), 421)
    end)

    it("a host is found without case, port and final dot", function()
      for _, host in ipairs { "A", "a:8080", "x.WILD.example", "x.y.wild.example:1" } do
        local client = send("GET / HTTP/1.1\r\nHost: " .. host .. "\r\n\r\n")
        local conn = backend:accept()
        http.request(conn)
        conn:send(ok)
        assert.equal(200, http.response(client).status, host)
      end
      assert_page(http.response(send "GET / HTTP/1.1\r\nHost: wild.example\r\n\r\n"), 421)
    end)

    it("another expectation than 100-continue is 417", function()
      assert_page(http.response(send(get("/", "Expect: miracles\r\n"))), 417)
    end)

    it("another transfer coding is 501", function()
      assert_refused(send(get("/", "Transfer-Encoding: br\r\n")), 501)
    end)

    it("another version is 505", function()
      assert_refused(send "GET / HTTP/1.7\r\nHost: a\r\n\r\n", 505)
    end)
  end)

  it("give every page an id of its own", function()
    local seen = {}
    for _ = 1, 20 do
      local id = http.response(send "GET / HTTP/1.1\r\nHost: b\r\n\r\n").body:match "request (%x+)"
      assert.is_nil(seen[id])
      seen[id] = true
    end
  end)

  it("answer HEAD with the head of the page only", function()
    local client = send "HEAD / HTTP/1.1\r\nHost: b\r\n\r\n"
    local response = http.response(client, { method = "HEAD" })
    assert.equal(421, response.status)
    assert.is_truthy(tonumber(response.headers["Content-Length"]) > 0)
    client:expect_closed()
  end)
end)

describe("buffer_body", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = [[
      return {
        drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND", keepalive = 0 } },
        max_body = 1000, buffer_body = true, timeouts = { body = "300ms" },
      }
    ]] }
  end)

  it("asks no backend before the body is whole", function()
    local client = net.connect(gate.port)
    client:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf"
    support.sleep(0.05)
    assert.equal(0, backend.accepted)
    client:send "half"
    local conn = backend:accept()
    assert.equal("halfhalf", http.request(conn).body)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert.equal(200, http.response(client).status)
  end)

  it("takes chunks up to max_body, and answers 413 for more", function()
    for size = 999, 1000 do
      local client = net.connect(gate.port)
      client:send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" ..
        http.encode_chunk(("x"):rep(size)) .. "0\r\n\r\n")
      local conn = backend:accept()
      assert.equal(size, #http.request(conn).body)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
      assert.equal(200, http.response(client).status)
    end
    local before = backend.accepted
    local client = net.connect(gate.port)
    client:send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" ..
      http.encode_chunk(("x"):rep(1001)) .. "0\r\n\r\n")
    assert.equal(413, http.response(client).status)
    assert.equal(before, backend.accepted)
  end)

  it("answers 408 when the rest does not come", function()
    local before = backend.accepted
    local client = net.connect(gate.port)
    client:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf"
    assert.equal(408, http.response(client).status)
    assert.equal(before, backend.accepted)
  end)
end)
