-- Bad days of backends, and what a client is told of them.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

-- In the hard build bytes move one by one: what must fill the kernel's buffers would take minutes there.
local it_fills = support.process.preset == "hard" and pending or it

describe("a backend", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    local values = { BACKEND = backend, REFUSING = net.refusing_port(), HOLE = net.black_hole(), FULL = net.listen() }
    gate = moongate.start { values = values, config = [[
      local function site(listen, server, settings, backend_settings)
        local backend = backend_settings or {}
        backend[1], backend.keepalive = server, 0
        settings.listen, settings.backends = listen, { app = backend }
        return settings
      end
      return { drain = "2s", sites = {
        site("127.0.0.1:$PORT", "$BACKEND", { timeouts = { first_byte = "5s" } }),
        site("127.0.0.1:$PORT2", "127.0.0.1:$REFUSING", {}),
        site("127.0.0.1:$PORT3", "127.0.0.1:$HOLE", { timeouts = { connect = "200ms" } }),
        site("127.0.0.1:$PORT4", "127.0.0.1:$HOLE", { timeouts = { connect = "1m" } },
          { timeouts = { connect = "200ms" } }),
        site("127.0.0.1:$PORT5", "$BACKEND", { timeouts = { first_byte = "200ms" } }),
        site("127.0.0.1:$PORT6", "$BACKEND", { timeouts = { first_byte = "1m" } },
          { timeouts = { first_byte = "200ms" } }),
        site("127.0.0.1:$PORT7", "$BACKEND", { timeouts = { total = "200ms" } }),
        site("127.0.0.1:$PORT8", "$BACKEND", { timeouts = { between = "200ms" } }),
        site("127.0.0.1:$PORT9", "$FULL", {}, { max_connections = 1 }),
        site("127.0.0.1:$PORT10", "no-such-host.invalid:80", {}),
        site("127.0.0.1:$PORT11", "unix:$DIR/nobody.sock", {}),
        { listen = "127.0.0.1:$PORT12" },
        { listen = "127.0.0.1:$PORT13", backends = { a = { "$BACKEND" }, b = { "$BACKEND" } } },
        site("127.0.0.1:$PORT14", "$BACKEND", { timeouts = { between = "1m" } }, { timeouts = { between = "200ms" } }),
      } }
    ]] }
  end)

  local get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
  local ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

  local function ask(port, bytes)
    local client = net.connect(port)
    client:send(bytes or get)
    return client
  end

  local function assert_page(client, status, sentence)
    local response = http.response(client)
    assert.equal(status, response.status)
    assert.matches("^" .. status .. " [%a ]+\n" .. (sentence or "[^\n]+") .. "\nrequest %x+\n$", response.body)
    return response
  end

  -- The client's conn has survived what happened behind it.
  local function assert_lasts(client)
    client:send(get)
    local conn = backend:accept()
    http.request(conn)
    conn:send(ok)
    assert.equal(200, http.response(client).status)
  end

  -- Asks; the backend reads the request and answers with these bytes.
  local function answered(bytes, ends)
    local client = ask(gate.port)
    local conn = backend:accept()
    http.request(conn)
    conn:send(bytes)
    if ends then conn[ends](conn) end
    return client, conn
  end

  describe("that cannot be reached:", function()
    it("refusing is 502", function()
      local client = ask(gate.values.PORT2)
      assert_page(client, 502, "the server refused the connection")
      client:send(get)
      assert_page(client, 502)
    end)

    it("refusing is 502 for a request with a body, too", function()
      local client = ask(gate.values.PORT2, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
      assert_page(client, 502)
    end)

    it("a Unix socket that is not there is 502", function() assert_page(ask(gate.values.PORT11), 502) end)
    it("not answering is 504 after timeouts.connect", function() assert_page(ask(gate.values.PORT3), 504) end)
    it("not answering is 504 after the backend's own timeouts.connect", function()
      assert_page(ask(gate.values.PORT4), 504)
    end)

    it("a name that leads nowhere is 502", function()
      local client = ask(gate.values.PORT10)
      local response = http.response(client, { timeout = 30 })
      assert.equal(502, response.status)
    end)

    it("a server that has all it may have is 503, and says when to come again", function()
      local first = ask(gate.values.PORT9)
      local conn = gate.values.FULL:accept()
      http.request(conn)
      local response = assert_page(ask(gate.values.PORT9), 503)
      assert.is_truthy(response.headers["Retry-After"])
      conn:send(ok)
      assert.equal(200, http.response(first).status)
      local third = ask(gate.values.PORT9)
      conn = gate.values.FULL:accept()
      http.request(conn)
      conn:send(ok)
      assert.equal(200, http.response(third).status)
    end)

    it("none at all is 502", function() assert_page(ask(gate.values.PORT12), 502, "no backend was picked") end)
    it("none chosen of several is 502", function()
      assert_page(ask(gate.values.PORT13), 502, "no backend was picked")
    end)
  end)

  describe("that leaves before its answer:", function()
    it("by FIN is 502", function()
      local client = ask(gate.port)
      local conn = backend:accept()
      http.request(conn)
      conn:close()
      assert_page(client, 502)
      assert_lasts(client)
    end)

    it("by RST is 502", function()
      local client = ask(gate.port)
      local conn = backend:accept()
      http.request(conn)
      conn:reset()
      assert_page(client, 502)
      assert_lasts(client)
    end)

    it("in the middle of its head is 502", function()
      assert_page(answered("HTTP/1.1 200 OK\r\nConten", "close"), 502)
    end)

    it("without reading a large request is 502", function()
      local client = net.connect(gate.port)
      client:post("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" .. ("x"):rep(2000000))
      local conn = backend:accept()
      conn:reset()
      assert_page(client, 502)
    end)
  end)

  describe("that speaks nonsense is 502:", function()
    for name, bytes in pairs {
      ["no HTTP"] = "hello\r\n\r\n", ["HTTP/2"] = "HTTP/2 200\r\n\r\n",
      ["another protocol's version"] = "HTTP/1.9 200 OK\r\n\r\n",
      ["a status of two digits"] = "HTTP/1.1 20 OK\r\n\r\n", ["a status of four digits"] = "HTTP/1.1 0200 OK\r\n\r\n",
      ["a status of 000"] = "HTTP/1.1 000 OK\r\n\r\n", ["a status of 999"] = "HTTP/1.1 999 OK\r\n\r\n",
      ["no blank before the status"] = "HTTP/1.1200 OK\r\n\r\n", ["bare LFs"] = "HTTP/1.1 200 OK\n\n",
      ["a head too large"] = "HTTP/1.1 200 OK\r\nX: " .. ("y"):rep(70000) .. "\r\n\r\n",
      ["too many fields"] = "HTTP/1.1 200 OK\r\n" .. ("X: y\r\n"):rep(300) .. "\r\n",
    } do
      it(name, function()
        local client, conn = answered(bytes)
        assert_page(client, 502)
        support.eventually("the backend's conn to end", function() return conn.eof or conn.lost end)
        assert_lasts(client)
      end)
    end
  end)

  describe("that is slow:", function()
    local function assert_timeout(port)
      local client = ask(port)
      local conn = backend:accept()
      http.request(conn)
      local response = assert_page(client, 504)
      conn:expect_closed()
      return response
    end

    it("is 504 after timeouts.first_byte", function() assert_timeout(gate.values.PORT5) end)
    it("is 504 after the backend's own timeouts.first_byte", function() assert_timeout(gate.values.PORT6) end)
    it("is 504 after timeouts.total", function() assert_timeout(gate.values.PORT7) end)

    it("is 504 after timeouts.first_byte when only half a head has come", function()
      local client = ask(gate.values.PORT5)
      local conn = backend:accept()
      http.request(conn)
      conn:send "HTTP/1.1 200 OK\r\n"
      assert_page(client, 504)
    end)

    it("is 504 after timeouts.first_byte, though it hints that it works on it", function()
      local client = ask(gate.values.PORT5)
      local conn = backend:accept()
      http.request(conn)
      local hints = support.spawn(function()
        while conn:try_send "HTTP/1.1 102 Processing\r\n\r\n" do support.sleep(0.05) end
      end)
      local response = http.response(client)
      assert.equal(504, response.status)
      hints:join()
    end)

    it("counts the time from the end of the request", function()
      local client = net.connect(gate.values.PORT5)
      client:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n"
      local conn = backend:accept()
      for byte in ("slowly"):gmatch "." do
        support.sleep(0.06)
        client:send(byte)
      end
      http.request(conn)
      conn:send(ok)
      assert.equal(200, http.response(client).status)
    end)

    it_fills("in taking a request's body is 504 after timeouts.between", function()
      for _, port in ipairs { gate.values.PORT8, gate.values.PORT14 } do
        local client = net.connect(port)
        client:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n"
        local conn = backend:accept()
        conn:stop_reading()
        client:post(("x"):rep(20000000))
        assert_page(client, 504)
        conn:start_reading()
        support.eventually("the backend's conn to end", function() return conn.eof or conn.lost end)
      end
    end)

    it("in the middle of its answer is cut off after timeouts.total", function()
      local client = ask(gate.values.PORT7)
      local conn = backend:accept()
      http.request(conn)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
      http.response_head(client)
      assert.equal("half", client:read_all())
      conn:expect_closed()
    end)
  end)

  it("is named in the access log with its failure", function()
    local values = { BACKEND = backend, REFUSING = net.refusing_port() }
    local logging = moongate.start { values = values, config = [[
      return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { dead = { "127.0.0.1:$REFUSING" } },
               log = { access = "$DIR/access.log", access_format = "json" } }
    ]] }
    assert_page(ask(logging.port), 502)
    local line
    support.eventually("the line", function()
      line = support.process.read_file(logging.dir .. "/access.log"):match "[^\n]+"
      return line
    end)
    assert.matches('"backend":"dead","server":"127.0.0.1:' .. values.REFUSING .. '","tries":1', line)
    assert.matches('"error":"connect_refused"', line)
  end)

  it("is not asked for a request that was refused", function()
    local before = backend.accepted
    assert_page(ask(gate.port, "GET / HTTP/1.1\r\n\r\n"), 400)
    assert.equal(before, backend.accepted)
  end)
end)

describe("the end of the drain time", function()
  it("ends fetches that are under way, whoever made them", function()
    local silent = net.listen()
    local gate = moongate.start { values = { SILENT = silent }, config = [[
      local gate = require "moongate"
      return {
        drain = "200ms", listen = "127.0.0.1:$PORT", backends = { app = { "$SILENT" } },
        on_request = function(req)
          if req.path == "/proxied" then return end
          if req.path == "/awaited" then gate.fetch("http://$SILENT/") end
          gate.spawn(function() gate.fetch("http://$SILENT/") end)
          gate.spawn(function() gate.fetch("app", { path = "/" }) end)
          return 200
        end,
      }
    ]] }
    assert.equal(200, http.get(gate.port, "/spawned").status)
    local clients = {}
    for i, target in ipairs { "/proxied", "/awaited" } do
      clients[i] = net.connect(gate.port)
      clients[i]:send(("GET %s HTTP/1.1\r\nHost: a\r\n\r\n"):format(target))
    end
    for _ = 1, 4 do silent:accept() end
    gate:stop()
    for _, client in ipairs(clients) do client:expect_closed() end
  end)
end)
