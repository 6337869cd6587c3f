-- Another try: when it is made, where it goes, and when it is not safe.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

local get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
local ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

-- The next request at a server of the spec, answered with these bytes; "reset" and "close" instead of bytes do that.
local function answer(server, bytes)
  local conn = server:accept()
  local request = http.request(conn)
  if bytes == "reset" or bytes == "close" then conn[bytes](conn)
  else conn:send(bytes) end
  return request, conn
end

local function ask(port, bytes)
  local client = net.connect(port)
  client:send(bytes or get)
  return client
end

local function unavailable(text)
  return ("HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n%s"):format(#text, text)
end

describe("a failed try", function()
  local one, two, gate

  support.setup(function()
    one, two = net.listen(), net.listen()
    local values = { ONE = one, TWO = two, REFUSING = net.refusing_port(), REFUSING2 = net.refusing_port(),
      HOLE = net.black_hole() }
    gate = moongate.start { values = values, workers = 1, config = [[
      local function site(listen, backend)
        backend.keepalive = 0
        return { listen = listen, backends = { app = backend }, timeouts = { connect = "150ms", first_byte = "150ms" } }
      end
      return { drain = "2s", sites = {
        site("127.0.0.1:$PORT", { "127.0.0.1:$REFUSING", "$TWO" }),
        site("127.0.0.1:$PORT2", { "127.0.0.1:$HOLE", "$TWO" }),
        site("127.0.0.1:$PORT3", { "$ONE", "$TWO" }),
        site("127.0.0.1:$PORT4", { "$ONE", "$TWO", retry = { on = { "reset", "timeout", "5xx" } } }),
        site("127.0.0.1:$PORT5", { "$ONE", "$TWO", retry = { on = { 503 } } }),
        site("127.0.0.1:$PORT6", { "$ONE", "$TWO", retry = { on = { "5xx" }, tries = 1 } }),
        site("127.0.0.1:$PORT7", { "127.0.0.1:$REFUSING2", "$TWO", retry = { on = { "reset" } } }),
      } }
    ]] }
  end)

  -- Whichever server is asked.
  local function asked()
    local server
    support.eventually("a conn to either server", function()
      server = #one.waiting > 0 and one or #two.waiting > 0 and two
      return server
    end)
    return server
  end

  -- As `answer`, for that server; returns it.
  local function answer_either(bytes)
    local server = asked()
    local request = answer(server, bytes)
    return server, request
  end

  describe("to connect", function()
    it("goes to the next server", function()
      for _ = 1, 4 do
        local client = ask(gate.port)
        answer(two, ok)
        assert.equal("ok", http.response(client).body)
      end
    end)

    it("goes to the next server with all of the body", function()
      for _ = 1, 4 do
        local client = ask(gate.port, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        assert.equal("body", answer(two, ok).body)
        assert.equal(200, http.response(client).status)
      end
    end)

    it("in time goes to the next server", function()
      for _ = 1, 2 do
        local client = ask(gate.values.PORT2)
        answer(two, ok)
        assert.equal("ok", http.response(client).body)
      end
    end)

    it("does not where `on` leaves that out", function()
      local statuses = {}
      for i = 1, 2 do
        local client = ask(gate.values.PORT7)
        support.spawn(function() answer(two, ok) end)
        statuses[i] = http.response(client).status
      end
      table.sort(statuses)
      assert.same({ 200, 502 }, statuses)
    end)
  end)

  describe("without the settings for it", function()
    it("is not repeated after a reset", function()
      local client = ask(gate.values.PORT3)
      answer_either "reset"
      assert.equal(502, http.response(client).status)
    end)

    it("is not repeated after a timeout", function()
      local client = ask(gate.values.PORT3)
      answer_either ""
      assert.equal(504, http.response(client).status)
    end)

    it("is not repeated for a status", function()
      local client = ask(gate.values.PORT3)
      answer_either(unavailable "one")
      assert.equal("one", http.response(client).body)
    end)
  end)

  describe("with the settings for it", function()
    for name, bytes in pairs {
      ["a reset"] = "reset", ["a FIN"] = "close", ["a timeout"] = "", ["a status"] = unavailable "first",
    } do
      it("goes to the other server after " .. name, function()
        local client = ask(gate.values.PORT4)
        local first = answer_either(bytes)
        local second = answer_either(ok)
        assert.not_equal(first, second)
        assert.equal("ok", http.response(client).body)
      end)

      it("is not repeated for a POST after " .. name, function()
        local client = ask(gate.values.PORT4, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        answer_either(bytes)
        assert.is_true(http.response(client).status >= 500)
        assert.equal(0, #one.waiting + #two.waiting)
      end)

      it("is not repeated with a body that is spent after " .. name, function()
        local client = ask(gate.values.PORT4, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        answer_either(bytes)
        assert.is_true(http.response(client).status >= 500)
        assert.equal(0, #one.waiting + #two.waiting)
      end)
    end

    it("is repeated with an empty body", function()
      local client = ask(gate.values.PORT4, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
      answer_either "reset"
      local _, request = answer_either(ok)
      assert.equal("0", request.headers["Content-Length"])
      assert.equal(200, http.response(client).status)
    end)

    it("delivers what the last one said when all fail", function()
      local client = ask(gate.values.PORT4)
      answer_either(unavailable "first")
      answer_either(unavailable "second")
      assert.equal("second", http.response(client).body)
    end)

    it("delivers the last failure when all fail", function()
      local client = ask(gate.values.PORT4)
      answer_either(unavailable "first")
      answer_either "reset"
      assert.equal(502, http.response(client).status)
    end)

    it("is made for one status, and not for another", function()
      local client = ask(gate.values.PORT5)
      answer_either(unavailable "first")
      answer_either "HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\n500"
      assert.equal("500", http.response(client).body)
    end)

    it("is not made beyond `tries`", function()
      local client = ask(gate.values.PORT6)
      answer_either(unavailable "only")
      assert.equal("only", http.response(client).body)
      assert.equal(0, #one.waiting + #two.waiting)
    end)

    it("is not made when the head has been delivered", function()
      local client = ask(gate.values.PORT4)
      local conn = asked():accept()
      http.request(conn)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
      http.response_head(client)
      conn:reset()
      assert.equal("half", client:read_all())
      assert.equal(0, #one.waiting + #two.waiting)
    end)

    it("drops a refused answer's conn, however much of it is to come", function()
      local client = ask(gate.values.PORT4)
      local conn = asked():accept()
      http.request(conn)
      conn:send "HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\nbegin"
      answer_either(ok)
      assert.equal("ok", http.response(client).body)
      support.eventually("the refused conn to end", function() return conn.eof or conn.lost end)
    end)
  end)
end)

describe("a pooled conn that turns out stale", function()
  local server, gate

  support.before_each(function()
    server = net.listen()
    gate = moongate.start { values = { SERVER = server }, workers = 1, config = [[
      return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$SERVER" } } }
    ]] }
  end)

  -- One conn in the pool; returns its server side.
  local function fill()
    local client = ask(gate.port)
    local _, conn = answer(server, ok)
    http.response(client)
    client:close()
    return conn
  end

  it("is forgiven once: a fresh one is used", function()
    local pooled = fill()
    local client = ask(gate.port)
    http.request(pooled)
    pooled:close() -- the request was on its way when the server closed
    answer(server, ok)
    assert.equal("ok", http.response(client).body)
    assert.equal(2, server.accepted)
  end)

  it("by a reset is forgiven, too", function()
    local pooled = fill()
    local client = ask(gate.port)
    http.request(pooled)
    pooled:reset()
    answer(server, ok)
    assert.equal("ok", http.response(client).body)
  end)

  it("is not forgiven twice", function()
    local pooled = fill()
    local client = ask(gate.port)
    http.request(pooled)
    pooled:reset()
    answer(server, "reset")
    assert.equal(502, http.response(client).status)
  end)

  it("is not forgiven for a POST", function()
    local pooled = fill()
    local client = ask(gate.port, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    http.request(pooled)
    pooled:reset()
    assert.equal(502, http.response(client).status)
    assert.equal(1, server.accepted)
  end)

  it("is not forgiven when it began to answer", function()
    local pooled = fill()
    local client = ask(gate.port)
    http.request(pooled)
    pooled:send "HTTP/1.1 2"
    pooled:close()
    assert.equal(502, http.response(client).status)
  end)

  it("is not used at all when its end is known", function()
    local pooled = fill()
    pooled:close()
    local client = ask(gate.port, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    assert.equal("body", answer(server, ok).body)
    assert.equal(200, http.response(client).status)
  end)

  it("costs nothing of a body that was not sent yet", function()
    local pooled = fill()
    local client = ask(gate.port, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
    http.request_head(pooled)
    pooled:reset()
    local conn = server:accept()
    local request = http.request_head(conn)
    client:send "body"
    assert.equal("body", http.request_body(conn, request).body)
    conn:send(ok)
    assert.equal(200, http.response(client).status)
  end)
end)

describe("pick_backend", function()
  local one, two, gate

  support.setup(function()
    one, two = net.listen(), net.listen()
    local values = { ONE = one, TWO = two, REFUSING = net.refusing_port() }
    gate = moongate.start { values = values, workers = 1, config = [[
      local gate = require "moongate"
      local function site(listen, pick, on)
        return {
          listen = listen, pick_backend = pick, timeouts = { first_byte = "150ms" },
          backends = {
            one = { "$ONE", keepalive = 0, retry = { on = on } }, two = { "$TWO", keepalive = 0, retry = { on = on } },
            dead = { "127.0.0.1:$REFUSING" },
            both = { { "$ONE", name = "first" }, { "$TWO", name = "second" }, keepalive = 0 },
          },
        }
      end
      return { drain = "2s", sites = {
        site("127.0.0.1:$PORT", { "one", "two", retry_on = { "5xx", "reset" } }),
        site("127.0.0.1:$PORT2", { "dead", "two" }),
        site("127.0.0.1:$PORT3", { "one", "two", tries = 1, retry_on = { "5xx" } }),
        site("127.0.0.1:$PORT4", function(req, last)
          if not last then return "one" end
          req.ctx.last = last
          if req.path == "/false" then return false end
          if req.path == "/reply" then
            return gate.reply(418, ("%s %s %d"):format(last.backend, tostring(last.status), last.tries))
          end
          if req.path == "/status" then return 429 end
          return "two"
        end, { "5xx", "reset" }),
        site("127.0.0.1:$PORT5", function(req) return "both/" .. req.args.s end),
        site("127.0.0.1:$PORT6", function() return false end),
        site("127.0.0.1:$PORT7", function() return "no" .. "where" end),
        site("127.0.0.1:$PORT8", { "one", "two", retry_on = { 503 }, timeout = 0.15 }),
        site("127.0.0.1:$PORT9", "two"),
        site("127.0.0.1:$PORT10", function() error "no" end),
        site("127.0.0.1:$PORT12", function(_, last) return last and "two" or "dead" end),
      } }
    ]] }
  end)

  it("may be a constant", function()
    local client = ask(gate.values.PORT9)
    answer(two, ok)
    assert.equal("ok", http.response(client).body)
  end)

  it("may name a list, tried in order", function()
    local client = ask(gate.port)
    answer(one, "reset")
    answer(two, ok)
    assert.equal("ok", http.response(client).body)
    client = ask(gate.port)
    answer(one, ok)
    assert.equal("ok", http.response(client).body)
  end)

  it("may name a list, whose last answer is delivered", function()
    local client = ask(gate.port)
    answer(one, unavailable "one")
    answer(two, unavailable "two")
    assert.equal("two", http.response(client).body)
  end)

  it("may name a list, whose dead ones are passed over", function()
    local client = ask(gate.values.PORT2)
    answer(two, ok)
    assert.equal("ok", http.response(client).body)
  end)

  it("may limit the tries of a list", function()
    local client = ask(gate.values.PORT3)
    answer(one, unavailable "one")
    assert.equal("one", http.response(client).body)
  end)

  it("may name single statuses and a timeout in a list", function()
    local client = ask(gate.values.PORT8)
    answer(one, unavailable "one")
    answer(two, "HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\n500")
    assert.equal("500", http.response(client).body)
    client = ask(gate.values.PORT8)
    answer(one, "")
    assert.equal(504, http.response(client).status)
  end)

  it("is asked again with what happened", function()
    local client = ask(gate.values.PORT4)
    answer(one, "reset")
    answer(two, ok)
    assert.equal("ok", http.response(client).body)
    client = ask(gate.values.PORT4, "GET /reply HTTP/1.1\r\nHost: a\r\n\r\n")
    answer(one, unavailable "one")
    local response = http.response(client)
    assert.equal(418, response.status)
    assert.equal("one 503 1", response.body)
  end)

  it("is asked again after a failed connect", function()
    local client = ask(gate.values.PORT12)
    answer(two, ok)
    assert.equal("ok", http.response(client).body)
  end)

  it("may answer with a bare status when asked again", function()
    local client = ask(gate.values.PORT4, "GET /status HTTP/1.1\r\nHost: a\r\n\r\n")
    answer(one, "reset")
    assert.equal(429, http.response(client).status)
  end)

  it("returning false when asked again delivers what there is", function()
    local client = ask(gate.values.PORT4, "GET /false HTTP/1.1\r\nHost: a\r\n\r\n")
    answer(one, unavailable "kept")
    assert.equal("kept", http.response(client).body)
    client:send "GET /false HTTP/1.1\r\nHost: a\r\n\r\n"
    answer(one, "reset")
    assert.equal(502, http.response(client).status)
  end)

  it("returning false when asked again delivers all of a long answer", function()
    local client = ask(gate.values.PORT4, "GET /false HTTP/1.1\r\nHost: a\r\n\r\n")
    local conn = one:accept()
    http.request(conn)
    conn:post("HTTP/1.1 503 No\r\nContent-Length: 1000000\r\n\r\n" .. ("x"):rep(1000000))
    assert.equal(1000000, #http.response(client).body)
  end)

  it("may name a server", function()
    for name, server in pairs { first = one, second = two } do
      local client = ask(gate.values.PORT5, "GET /?s=" .. name .. " HTTP/1.1\r\nHost: a\r\n\r\n")
      answer(server, ok)
      assert.equal("ok", http.response(client).body)
    end
  end)

  it("naming what does not exist, returning false at first, or failing is 502", function()
    for _, port in ipairs { gate.values.PORT6, gate.values.PORT7, gate.values.PORT10 } do
      assert.equal(502, http.response(ask(port)).status)
    end
    local client = ask(gate.values.PORT5, "GET /?s=third HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.equal(502, http.response(client).status)
  end)
end)
