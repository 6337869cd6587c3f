-- Expect: 100-continue and other interim responses.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

describe("Expect: 100-continue", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = [[
      local function site(listen, settings)
        settings.listen, settings.backends = listen, { app = { "$BACKEND", keepalive = 0 } }
        return settings
      end
      return { drain = "2s", sites = {
        site("127.0.0.1:$PORT", { timeouts = { body = "5s" } }),
        site("127.0.0.1:$PORT2", { buffer_body = true }),
        site("127.0.0.1:$PORT3", { max_body = 10 }),
        site("127.0.0.1:$PORT5", { on_request = function(req)
          if req.path == "/read" then req.headers["X-Body"] = req.body:text(100) end
          if req.path == "/refuse" then return 403 end
        end }),
        site("127.0.0.1:$PORT4", { timeouts = { first_byte = "200ms", between = "200ms", body = "200ms" } }),
      } }
    ]] }
  end)

  local expecting = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
  local ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

  -- A client that expects, and the backend's side: its conn and the head.
  local function expected(port, bytes)
    local client = net.connect(port or gate.port)
    client:send(bytes or expecting)
    local conn = backend:accept()
    return client, conn, http.request_head(conn)
  end

  -- The backend meets the expectation, and the client hears of it.
  local function meet(client, conn)
    conn:send "HTTP/1.1 100 Continue\r\n\r\n"
    assert.equal(100, http.response_head(client).status)
  end

  local function assert_passed_on(client, conn, request)
    assert.equal("100-continue", request.headers.Expect)
    assert.equal("", client:pending())
    meet(client, conn)
    client:send "body"
    assert.equal("body", http.request_body(conn, request).body)
    conn:send(ok)
    assert.equal(200, http.response(client).status)
  end

  it("is forwarded, and the backend's 100 passed on", function()
    assert_passed_on(expected())
  end)

  it("passes one 100 on, not two", function()
    local client, conn, request = expected()
    conn:send "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    assert.equal(100, http.response_head(client).status)
    client:send "body"
    http.request_body(conn, request)
    conn:send(ok)
    local response = http.response(client)
    assert.equal(200, response.status)
    assert.same({}, response.interim)
  end)

  it("does not keep a client from sending its body without waiting", function()
    local client = net.connect(gate.port)
    client:send(expecting .. "body")
    local conn = backend:accept()
    assert.equal("body", http.request(conn).body)
    conn:send(ok)
    assert.equal(200, http.response(client).status)
  end)

  it("is answered by a final answer in place of the 100, and the body is not waited for", function()
    local client, conn = expected()
    conn:send "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    local response = http.response(client)
    assert.equal(403, response.status)
    assert.equal("no", response.body)
    client:expect_closed()
    conn:expect_closed()
  end)

  it("is answered 413 at once when the length is too much", function()
    local client = net.connect(gate.values.PORT3)
    client:send "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n"
    local response = http.response(client)
    assert.equal(413, response.status)
    assert.same({}, response.interim)
    client:expect_closed()
  end)

  it("is met by the proxy itself when the site buffers bodies, and the backend does not hear of it", function()
    local client = net.connect(gate.values.PORT2)
    client:send(expecting)
    assert.equal(100, http.response_head(client).status)
    client:send "body"
    local conn = backend:accept()
    local request = http.request(conn)
    assert.equal("body", request.body)
    assert.is_nil(request.headers.Expect)
    conn:send(ok)
    assert.equal(200, http.response(client).status)
  end)

  it("is met by the proxy itself when a hook asks for the body", function()
    local client = net.connect(gate.values.PORT5)
    client:send((expecting:gsub("/", "/read", 1)))
    assert.equal(100, http.response_head(client).status)
    client:send "body"
    local conn = backend:accept()
    local request = http.request(conn)
    assert.equal("body", request.body)
    assert.equal("body", request.headers["X-Body"])
    assert.is_nil(request.headers.Expect)
    conn:send(ok)
    assert.equal(200, http.response(client).status)
  end)

  it("is not met by the proxy when a hook does not ask for the body", function()
    assert_passed_on(expected(gate.values.PORT5))
  end)

  it("is answered by a hook's reply, and the body is not waited for", function()
    local client = net.connect(gate.values.PORT5)
    client:send((expecting:gsub("/", "/refuse", 1)))
    local response = http.response(client)
    assert.equal(403, response.status)
    assert.same({}, response.interim)
    client:expect_closed()
  end)

  it("is no expectation in HTTP/1.0", function()
    local client = net.connect(gate.port)
    client:send "PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody"
    local conn = backend:accept()
    local request = http.request(conn)
    assert.is_nil(request.headers.Expect)
    conn:send("HTTP/1.1 100 Continue\r\n\r\n" .. ok)
    local response = http.response(client)
    assert.equal(200, response.status)
    assert.same({}, response.interim)
  end)

  it("without a body waits for nothing", function()
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    conn:send(ok)
    assert.equal(200, http.response(client).status)
  end)

  it("is spelled without case", function()
    local client, conn = expected(gate.port, (expecting:gsub("100%-continue", "100-Continue")))
    meet(client, conn)
    client:close()
    conn:expect_closed()
  end)

  it("that the backend neither meets nor answers ends in 504", function()
    local client, conn = expected(gate.values.PORT4)
    assert.equal(504, http.response(client).status)
    client:expect_closed()
    conn:expect_closed()
  end)

  it("that was met by a body that does not come ends in 408", function()
    local client, conn = expected(gate.values.PORT4)
    meet(client, conn)
    assert.equal(408, http.response(client).status)
    conn:expect_closed()
  end)

  it("for anything else is 417", function()
    local client = net.connect(gate.port)
    client:send "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\nContent-Length: 4\r\n\r\n"
    assert.equal(417, http.response(client).status)
  end)
end)

describe("an interim response", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = [[
      return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND", keepalive = 0 } } }
    ]] }
  end)

  local function asked(request)
    local client = net.connect(gate.port)
    client:send(request or "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    local conn = backend:accept()
    http.request(conn)
    return client, conn
  end

  local ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

  it("103 is passed on at once, as often as it comes", function()
    local client, conn = asked()
    for _, link in ipairs { "</a>", "</b>" } do
      conn:send("HTTP/1.1 103 Early Hints\r\nLink: " .. link .. "\r\n\r\n")
      local hint = http.response_head(client)
      assert.equal(103, hint.status)
      assert.equal(link, hint.headers.Link)
    end
    conn:send(ok)
    assert.equal("ok", http.response(client).body)
  end)

  it("is passed on with the final one behind it in one piece", function()
    local client, conn = asked()
    conn:send("HTTP/1.1 102 Processing\r\n\r\n" .. ok)
    local response = http.response(client)
    assert.equal(102, response.interim[1].status)
    assert.equal("ok", response.body)
  end)

  it("100 that nobody waits for is kept back", function()
    local client, conn = asked()
    conn:send("HTTP/1.1 100 Continue\r\n\r\n" .. ok)
    assert.same({}, http.response(client).interim)
  end)

  it("is kept from an HTTP/1.0 client", function()
    local client, conn = asked "GET / HTTP/1.0\r\n\r\n"
    conn:send("HTTP/1.1 103 Early Hints\r\n\r\n" .. ok)
    assert.same({}, http.response(client).interim)
  end)

  it("101 that nobody asked for is nonsense: 502", function()
    local client, conn = asked()
    conn:send "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    assert.equal(502, http.response(client).status)
  end)

  it("after interim response without end is nonsense, too", function()
    local client, conn = asked()
    client:stop_reading()
    conn:post(("HTTP/1.1 103 Early Hints\r\nX: " .. ("y"):rep(100) .. "\r\n\r\n"):rep(20000))
    support.eventually("the backend's conn to end", function() return conn.eof or conn.lost end)
    client:start_reading()
    assert.equal(502, http.response(client).status)
  end)

  it("and then the end is 502", function()
    local client, conn = asked()
    conn:send "HTTP/1.1 103 Early Hints\r\n\r\n"
    conn:close()
    assert.equal(502, http.response(client).status)
  end)
end)
