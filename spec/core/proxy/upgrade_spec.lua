-- Upgrades: the request that asks, the 101 that grants, and the tunnel that follows.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate
local websocket = support.websocket

-- In the hard build bytes move one by one: what must fill the kernel's buffers would take minutes there.
local it_fills = support.process.preset == "hard" and pending or it

local asking = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n" ..
  "Upgrade: echo/1, other\r\nX-Key: 1\r\n\r\n"
local granting = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\nX-Accept: 2\r\n\r\n"

local config = [[
  return { drain = "1s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } },
           timeouts = { idle = "200ms", between = "200ms", first_byte = "200ms", body = "200ms" } }
]]

describe("an upgrade", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = config }
  end)

  local function asked(bytes)
    local client = net.connect(gate.port)
    client:send(bytes or asking)
    local conn = backend:accept()
    return client, conn, http.request(conn)
  end

  -- Both ends of a tunnel.
  local function tunnel()
    local client, conn = asked()
    conn:send(granting)
    assert.equal(101, http.response_head(client).status)
    return client, conn
  end

  it("is asked for on the client's behalf, and granted with the backend's words", function()
    local client, conn, request = asked()
    assert.equal("Upgrade", request.headers.Connection)
    assert.equal("echo/1, other", request.headers.Upgrade)
    assert.equal("1", request.headers["X-Key"])
    conn:send(granting)
    local response = http.response_head(client)
    assert.equal(101, response.status)
    assert.equal("Upgrade", response.headers.Connection)
    assert.equal("echo/1", response.headers.Upgrade)
    assert.equal("2", response.headers["X-Accept"])
    assert.is_nil(response.headers["Content-Length"])
    assert.is_nil(response.headers["Transfer-Encoding"])
  end)

  it("carries bytes both ways, whatever they are", function()
    local client, conn = tunnel()
    net.expect_joined(client, conn)
  end)

  it("passes on what the backend sent along with the 101", function()
    local client, conn = asked()
    conn:send(granting .. "hello")
    http.response_head(client)
    assert.equal("hello", client:read_exactly(5))
  end)

  it("passes on what the client sent along with its request", function()
    local client, conn = asked(asking .. "early")
    conn:send(granting)
    http.response_head(client)
    assert.equal("early", conn:read_exactly(5))
  end)

  it("passes the client's FIN on, and the backend may go on", function()
    local client, conn = tunnel()
    client:send "last"
    client:shutdown()
    assert.equal("last", conn:read_all())
    conn:send "and more"
    assert.equal("and more", client:read_exactly(8))
    conn:close()
    client:expect_eof()
  end)

  it("passes the backend's FIN on, and the client may go on", function()
    local client, conn = tunnel()
    conn:send "last"
    conn:shutdown()
    assert.equal("last", client:read_all())
    client:send "and more"
    assert.equal("and more", conn:read_exactly(8))
    client:close()
    conn:expect_eof()
  end)

  it("passes on a FIN that came along with the request", function()
    local client = net.connect(gate.port)
    client:send(asking)
    client:shutdown()
    local conn = backend:accept()
    http.request(conn)
    conn:send(granting)
    assert.equal(101, http.response_head(client).status)
    conn:expect_eof()
    conn:send "bye"
    conn:close()
    assert.equal("bye", client:read_all())
  end)

  it("ends when the client is reset", function()
    local client, conn = tunnel()
    client:reset()
    conn:expect_closed()
  end)

  it("ends when the backend is reset", function()
    local client, conn = tunnel()
    conn:reset()
    client:expect_closed()
  end)

  it("lasts through silence longer than every timeout", function()
    local client, conn = tunnel()
    support.sleep(0.5)
    client:send "still there"
    assert.equal("still there", conn:read_exactly(11))
    support.sleep(0.3)
    conn:send "yes"
    assert.equal("yes", client:read_exactly(3))
  end)

  it_fills("holds back a side that is faster than the other takes", function()
    local client, conn = tunnel()
    local piece = ("x"):rep(1 << 16)
    for _, ends in ipairs { { client, conn }, { conn, client } } do
      local from, to = ends[1], ends[2]
      from.sent, to.received = 0, 0
      to:stop_reading()
      local before = gate:rss()
      from:send_until_blocked(piece, 0.15, 40 << 20)
      assert.is_true(gate:rss() - before < (support.async.slow > 1 and 64 or 4) << 20)
      to:start_reading()
      to:skip(from.sent)
    end
  end)

  it("refused is an ordinary answer, and both conns last", function()
    local client, conn = asked()
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"
    local response = http.response(client)
    assert.equal(200, response.status)
    assert.equal("no", response.body)
    client:send "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.equal("/next", http.request(conn).target)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    http.response(client)
    conn:close()
  end)

  for name, lines in pairs {
    ["to h2c"] = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    ["to h2c in a list"] = "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
    ["to h2c in capitals"] = "Connection: Upgrade\r\nUpgrade: H2C\r\n",
    ["to another HTTP"] = "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
    ["that Connection does not name"] = "Upgrade: echo/1\r\n",
    ["to nothing"] = "Connection: Upgrade\r\n",
    ["to an empty list"] = "Connection: Upgrade\r\nUpgrade: ,\r\n",
    ["to names that are too long to pass on"] = "Connection: Upgrade\r\nUpgrade: echo/" .. ("1"):rep(600) .. "\r\n",
  } do
    it("is not asked for " .. name, function()
      local client, conn, request = asked("GET / HTTP/1.1\r\nHost: a\r\n" .. lines .. "\r\n")
      assert.is_nil(request.headers.Upgrade)
      assert.is_nil(request.headers.Connection)
      assert.is_nil(request.headers["HTTP2-Settings"])
      conn:send(granting)
      assert.equal(502, http.response(client).status)
    end)
  end

  it("is not asked for in HTTP/1.0", function()
    local _, _, request = asked "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n"
    assert.is_nil(request.headers.Upgrade)
  end)

  it("is not granted by a 101 that names no protocol", function()
    local client, conn = asked()
    conn:send "HTTP/1.1 101 Switching Protocols\r\n\r\n"
    assert.equal(502, http.response(client).status)
  end)

  it("is not granted by a 101 whose protocol is too long to pass on", function()
    local client, conn = asked()
    local protocol = "echo/" .. ("1"):rep(600)
    conn:send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " .. protocol .. "\r\n\r\n")
    assert.equal(502, http.response(client).status)
  end)

  it("is not granted before the request's body is sent", function()
    local client = net.connect(gate.port)
    client:send("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n" ..
      "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    local conn = backend:accept()
    http.request_head(conn)
    assert.equal("half", http.content(conn, 4))
    conn:send(granting)
    assert.equal(502, http.response(client).status)
    conn:expect_closed()
  end)

  it("may follow a request with a body", function()
    local client = net.connect(gate.port)
    client:send("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n" ..
      "Content-Length: 4\r\n\r\nbodyearly")
    local conn = backend:accept()
    assert.equal("body", http.request(conn).body)
    conn:send(granting)
    assert.equal(101, http.response_head(client).status)
    assert.equal("early", conn:read_exactly(5))
  end)

  it("that is not answered is 504, as any request", function()
    local client = asked()
    assert.equal(504, http.response(client).status)
  end)
end)

describe("a WebSocket", function()
  it("echoes through the proxy", function()
    local backend = websocket.backend()
    local gate = moongate.start { values = { BACKEND = backend }, config = config }
    local socket = websocket.connect(gate.port, "/chat")
    for _, size in ipairs { 0, 1, 125, 126, 65535, 65536, 300000 } do
      local text = ("w"):rep(size)
      socket:send(text)
      assert.equal(text, socket:receive())
    end
    socket:send("ping", "ping")
    assert.same({ "ping", "pong" }, { socket:receive() })
    socket:close()
  end)

  it("survives reloads, and does not keep what it began under", function()
    local backend = websocket.backend()
    local gate = moongate.start { values = { BACKEND = backend }, config = config }
    local sockets = {}
    for i = 1, 10 do
      sockets[i] = websocket.connect(gate.port)
      gate:reload_with(config)
    end
    support.eventually("the old generations to go", function()
      return select(2, gate:command "status"):find "generation +11, 1 live"
    end)
    assert.is_nil(gate:log():find "before its drain time")
    for i, socket in ipairs(sockets) do
      socket:send("still " .. i)
      assert.equal("still " .. i, socket:receive())
      socket:close()
    end
  end)

  it("counts as a request under way at its server, and no more when it has ended", function()
    local backend = websocket.backend()
    local limited = config:gsub('"$BACKEND"', '%0, max_connections = 2')
    local gate = moongate.start { values = { BACKEND = backend }, workers = 1, config = limited }
    local one, two = websocket.connect(gate.port), websocket.connect(gate.port)
    assert.equal(503, http.get(gate.port).status)
    one:close()
    support.eventually("room for another", function()
      local headers = { Connection = "Upgrade", Upgrade = "websocket", ["Sec-WebSocket-Key"] = "x" }
      return http.get(gate.port, "/", { headers = headers }).status == 101
    end)
    two:close()
  end)

  it("leaves its line in the access log when it ends", function()
    local backend = websocket.backend()
    local logged = config:gsub("drain", 'log = { access = "$DIR/access.log", access_format = "json" }, drain')
    local gate = moongate.start { values = { BACKEND = backend }, config = logged }
    local socket = websocket.connect(gate.port, "/logged")
    gate:reload_with(logged)
    socket:send "hello"
    socket:receive()
    socket:close()
    local line
    support.eventually("the line", function()
      line = support.process.read_file(gate.dir .. "/access.log"):match "[^\n]*/logged[^\n]*"
      return line
    end)
    assert.matches('"status":101,', line)
    assert.matches('"backend":"app","server":"' .. backend.address .. '","tries":1', line)
  end)

  it("ends when the proxy has drained long enough", function()
    local backend = websocket.backend()
    local gate = moongate.start { values = { BACKEND = backend }, config = config }
    local socket = websocket.connect(gate.port)
    gate:signal "term"
    socket:send "draining"
    assert.equal("draining", socket:receive())
    socket.conn:expect_closed()
    gate:wait(10)
  end)
end)
