-- Conns to servers that are kept for the next request.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

describe("the pool of a server", function()
  local server, gate

  local function start(settings)
    server = net.listen()
    gate = moongate.start { values = { SERVER = server }, workers = 1, config = ([[
      return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$SERVER", %s } } }
    ]]):format(settings or "") }
  end

  local ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
  local get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

  -- One exchange over `conn`, or over the next one the proxy opens; returns that.
  local function exchange(conn, answer, request)
    local client = net.connect(gate.port)
    client:send(request or get)
    conn = conn or server:accept()
    http.request(conn)
    conn:send(answer or ok)
    assert.equal(200, http.response(client).status)
    client:close()
    return conn
  end

  it("serves one client after the other with one conn", function()
    start()
    local conn = exchange()
    for _ = 1, 5 do exchange(conn) end
    assert.equal(1, server.accepted)
  end)

  it("keeps conns with all kinds of bodies, and after none", function()
    start()
    local conn = exchange()
    exchange(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    exchange(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n")
    exchange(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    exchange(conn, ok, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    exchange(conn, ok, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
    exchange(conn, "HTTP/1.1 103 Early Hints\r\n\r\n" .. ok)
    exchange(conn, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
    exchange(conn)
    assert.equal(1, server.accepted)
  end)

  it("opens a conn for each request that comes while the others are busy", function()
    start()
    local clients, conns = {}, {}
    for i = 1, 3 do
      clients[i] = net.connect(gate.port)
      clients[i]:send(get)
      conns[i] = server:accept()
      http.request(conns[i])
    end
    for i = 1, 3 do
      conns[i]:send(ok)
      http.response(clients[i])
    end
    exchange(conns[3]) -- the one used last
    assert.equal(3, server.accepted)
  end)

  for name, answer in pairs {
    ["Connection: close"] = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    ["HTTP/1.0"] = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ["bytes behind the answer"] = ok .. "x",
  } do
    it("does not take a conn back after " .. name, function()
      start()
      local conn = exchange(nil, answer)
      conn:expect_closed()
      exchange()
    end)
  end

  it("does not take a conn back whose request was not read to its end", function()
    start()
    local client = net.connect(gate.port)
    client:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"
    local conn = server:accept()
    http.request_head(conn)
    conn:read_until "half"
    conn:send(ok)
    assert.equal(200, http.response(client).status)
    conn:expect_closed()
  end)

  it("does not take a conn back whose answer was not read to its end", function()
    start()
    local client = net.connect(gate.port)
    client:send(get)
    local conn = server:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    client:read_until "half"
    client:reset()
    conn:expect_closed()
  end)

  it("drops a conn that its server closes", function()
    start()
    local conn = exchange()
    conn:shutdown()
    conn:expect_closed()
    exchange()
  end)

  it("drops a conn whose server speaks unasked", function()
    start()
    local conn = exchange()
    conn:send "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    conn:expect_closed()
    exchange()
  end)

  it("does not take what a server says unasked for the next answer", function()
    start()
    local conn = exchange()
    conn:post "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    local client = net.connect(gate.port)
    client:send(get)
    local second = server:accept()
    http.request(second)
    second:send(ok)
    assert.equal("ok", http.response(client).body)
  end)

  it("holds no more idle conns than `keepalive`", function()
    start "keepalive = 2"
    local clients, conns = {}, {}
    for i = 1, 4 do
      clients[i] = net.connect(gate.port)
      clients[i]:send(get)
      conns[i] = server:accept()
      http.request(conns[i])
    end
    for i = 1, 4 do
      conns[i]:send(ok)
      http.response(clients[i])
    end
    support.eventually("two conns to end", function()
      local ended = 0
      for _, conn in ipairs(conns) do ended = ended + (conn.eof and 1 or 0) end
      return ended == 2
    end)
    assert.is_true(conns[1].eof and conns[2].eof) -- the oldest
    exchange(conns[4])
  end)

  it("holds none with keepalive = 0, and says so to the server by closing", function()
    start "keepalive = 0"
    for _ = 1, 3 do exchange():expect_closed() end
  end)

  it("lets idle conns go after a while", function()
    start 'keepalive = { max = 5, idle = "200ms" }'
    local conn = exchange()
    conn:expect_eof()
    exchange()
  end)

  it("lets idle conns go before their server does, if it says when", function()
    start()
    local told = "HTTP/1.1 200 OK\r\nKeep-Alive: max=9, Timeout = %s\r\nContent-Length: 2\r\n\r\nok"
    exchange(nil, told:format "0"):expect_eof()
    local conn = exchange(nil, told:format "99999999999")
    exchange(conn, told:format "nonsense")
    exchange(conn, told:format "1")
    conn:expect_eof()
    exchange()
  end)

  it("does not count the time of a request as idle", function()
    start 'keepalive = { max = 5, idle = "150ms" }'
    local conn = exchange()
    local client = net.connect(gate.port)
    client:send(get)
    http.request(conn)
    support.sleep(0.3)
    conn:send(ok)
    assert.equal(200, http.response(client).status)
  end)
end)
