-- HTTP/1.0 and 1.1 over the wire, both sides scripted byte by byte.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

describe("HTTP/1", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = [[
      local function on_response(_, res)
        local status = tonumber(res.headers["X-Become"])
        if status then res.status = status end
      end
      return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND", keepalive = 0 } },
        on_response = on_response }
    ]] }
  end)

  -- The backend's side of one exchange: reads the request, answers with exactly these bytes, ends its conn when told.
  local function answer(bytes, close)
    local conn = backend:accept()
    local request = http.request(conn)
    conn:send(bytes)
    if close then conn:close() end
    return request, conn
  end

  -- One exchange with exact bytes either way; returns the answer, the request as the backend saw it, the client.
  local function exchange(sent, answered, options)
    options = options or {}
    local client = options.client or net.connect(gate.port)
    client:send(sent)
    local request = answer(answered, options.close)
    return http.response(client, { method = options.method }), request, client
  end

  local ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
  local get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

  describe("a conn", function()
    it("carries one request after the other", function()
      local client = net.connect(gate.port)
      for i = 1, 3 do
        local response, request = exchange(("GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"):format(i), ok, { client = client })
        assert.equal("/" .. i, request.target)
        assert.equal("ok", response.body)
        assert.is_nil(response.headers.Connection)
      end
    end)

    it("ends after the answer when the client asks for that", function()
      local response, request, client = exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ok)
      assert.equal("close", response.headers.Connection)
      assert.is_nil(request.headers.Connection)
      client:expect_eof()
    end)

    it("outlives a backend that closes its own", function()
      local close = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
      local response, _, client = exchange(get, close, { close = true })
      assert.is_nil(response.headers.Connection)
      exchange(get, ok, { client = client })
    end)

    it("of HTTP/1.0 ends after one answer", function()
      local response, request, client = exchange("GET / HTTP/1.0\r\n\r\n", ok)
      assert.equal("ok", response.body)
      assert.equal("1.1", response.version)
      assert.equal("close", response.headers.Connection)
      assert.equal("1.1", request.version)
      client:expect_eof()
    end)

    it("of HTTP/1.0 lasts when the client asks for that, and says so", function()
      local sent = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
      local response, _, client = exchange(sent, ok)
      assert.equal("keep-alive", response.headers.Connection:lower())
      exchange(sent, ok, { client = client })
    end)

    it("takes a request whose bytes come one by one", function()
      local client = net.connect(gate.port)
      for byte in ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"):gmatch "." do client:send(byte) end
      local request = answer(ok)
      assert.equal("abc", request.body)
      assert.equal(200, http.response(client).status)
    end)

    it("takes an empty line before a request line", function()
      local _, request = exchange("\r\n\r\n" .. get, ok)
      assert.equal("GET", request.method)
    end)

    it("closes without a word when the client leaves before it asks anything", function()
      local client = net.connect(gate.port)
      client:shutdown()
      client:expect_eof()
    end)

    it("closes without a word when the client leaves in the middle of a head", function()
      local client = net.connect(gate.port)
      client:send "GET / HTTP/1.1\r\nHos"
      client:shutdown()
      client:expect_eof()
    end)

    it("gets its answer when the client says that no more requests come", function()
      local client = net.connect(gate.port)
      client:send(get)
      client:shutdown()
      answer(ok)
      assert.equal("ok", http.response(client).body)
      client:expect_eof()
    end)
  end)

  describe("pipelining", function()
    it("answers in order, though the first is slow", function()
      local client = net.connect(gate.port)
      client:send "GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /fast HTTP/1.1\r\nHost: a\r\n\r\n"
      local slow = backend:accept()
      assert.equal("/slow", http.request(slow).target)
      assert.equal(0, #backend.waiting)
      slow:send "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow"
      assert.equal("/fast", answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfast").target)
      assert.equal("slow", http.response(client).body)
      assert.equal("fast", http.response(client).body)
    end)

    it("keeps bodies apart", function()
      local client = net.connect(gate.port)
      client:send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst" ..
        "POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n" ..
        "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
      for i, body in ipairs { "first", "second", "" } do
        local request = answer(ok)
        assert.equal("/" .. i, request.target)
        assert.equal(body, request.body)
        assert.equal(200, http.response(client).status)
      end
    end)

    it("answers a hundred requests sent at once", function()
      local client = net.connect(gate.port)
      client:send(get:rep(100))
      for _ = 1, 100 do
        answer(ok)
        assert.equal("ok", http.response(client).body)
      end
    end)

    it("does not answer what follows a request that closes", function()
      local client = net.connect(gate.port)
      client:send("GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.equal("/1", answer(ok).target)
      assert.equal(200, http.response(client).status)
      client:expect_eof()
      assert.equal(0, #backend.waiting)
    end)

    it("answers all requests that came before the client's FIN", function()
      local client = net.connect(gate.port)
      client:send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
      client:shutdown()
      for i = 1, 2 do
        assert.equal("/" .. i, answer(ok).target)
        assert.equal("ok", http.response(client).body)
      end
      client:expect_eof()
    end)
  end)

  describe("answers without a body", function()
    it("of HEAD tell the length once and carry nothing", function()
      local sent = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
      local answered = "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"
      local response, request, client = exchange(sent, answered, { method = "HEAD" })
      assert.equal("HEAD", request.method)
      assert.same({ "12345" }, response.headers:all "Content-Length")
      exchange(get, ok, { client = client })
    end)

    it("of HEAD say nothing of a length the backend does not know", function()
      local sent = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
      local answered = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      local response, _, client = exchange(sent, answered, { method = "HEAD" })
      assert.is_nil(response.headers["Content-Length"])
      exchange(get, ok, { client = client })
    end)

    it("with status 204 have no length", function()
      local response, _, client = exchange(get, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
      assert.equal(204, response.status)
      assert.is_nil(response.headers["Content-Length"])
      assert.is_nil(response.headers["Transfer-Encoding"])
      exchange(get, ok, { client = client })
    end)

    it("with status 205 have a length of 0, whoever gave them content", function()
      for _, answered in ipairs {
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 3\r\nContent-Encoding: x\r\n\r\nyes",
        "HTTP/1.1 205 Reset Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Become: 205\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Become: 205\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nX-Become: 205\r\n\r\n",
      } do
        local response, _, client = exchange(get, answered)
        assert.equal(205, response.status)
        assert.same({ "0" }, response.headers:all "Content-Length")
        assert.is_nil(response.headers["Transfer-Encoding"])
        assert.is_nil(response.headers["Content-Encoding"])
        exchange(get, ok, { client = client })
      end
    end)

    it("with status 304 keep what they tell of the body", function()
      local answered = "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n"
      local response, _, client = exchange(get, answered)
      assert.equal('"x"', response.headers.ETag)
      assert.same({ "77" }, response.headers:all "Content-Length")
      exchange(get, ok, { client = client })
    end)

    it("lose the length they tell of where policy makes them answers that have content, or a 204", function()
      local head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
      local response = exchange(get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nX-Become: 200\r\n\r\n")
      assert.equal(200, response.status)
      assert.same({ "0" }, response.headers:all "Content-Length")
      response = exchange(head, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Become: 204\r\n\r\n", { method = "HEAD" })
      assert.equal(204, response.status)
      assert.same({}, response.headers:all "Content-Length")
      response = exchange(head, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Become: 404\r\n\r\n", { method = "HEAD" })
      assert.same({ "4" }, response.headers:all "Content-Length")
    end)

    it("are not confused by a body that a HEAD was answered with all the same", function()
      local client = net.connect(gate.port)
      client:send "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
      local _, conn = answer(ok)
      local response = http.response(client, { method = "HEAD" })
      assert.equal("2", response.headers["Content-Length"])
      conn:expect_closed()
      local second = exchange(get, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", { client = client })
      assert.equal("yes", second.body)
    end)
  end)

  describe("a request body", function()
    it("with a length keeps it", function()
      local _, request = exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", ok)
      assert.equal("hello", request.body)
      assert.equal("5", request.headers["Content-Length"])
      assert.is_nil(request.chunks)
    end)

    it("of no bytes keeps its length", function()
      local _, request = exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", ok)
      assert.equal("0", request.headers["Content-Length"])
    end)

    it("in chunks stays in chunks", function()
      local _, request = exchange("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" ..
        "2\r\nhe\r\n3;note=\"x\"\r\nllo\r\n0\r\n\r\n", ok)
      assert.equal("hello", request.body)
      assert.is_truthy(request.chunks)
      assert.is_nil(request.headers["Content-Length"])
    end)

    it("in chunks passes its trailers on", function()
      local _, request = exchange("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" ..
        "Trailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n", ok)
      assert.equal("42", request.trailers["X-Sum"])
      assert.equal("X-Sum", request.headers.Trailer)
    end)

    it("in chunks of nothing is a chunked body of nothing", function()
      local _, request = exchange("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ok)
      assert.equal("", request.body)
      assert.is_truthy(request.chunks)
    end)

    it("loses trailers that would change how the request is read", function()
      local _, request = exchange("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" ..
        "1\r\nx\r\n0\r\nContent-Length: 7\r\nHost: b\r\nAuthorization: z\r\nX-Fine: 1\r\n\r\n", ok)
      assert.same({ "X-Fine" }, request.trailers:names())
    end)

    it("comes with a GET, too", function()
      local _, request = exchange("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", ok)
      assert.equal("abc", request.body)
    end)

    it("of HTTP/1.0 is forwarded with its length", function()
      local _, request = exchange("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", ok)
      assert.equal("abc", request.body)
    end)

    it("is absent from a request without one", function()
      local _, request = exchange(get, ok)
      assert.is_nil(request.headers["Content-Length"])
      assert.is_nil(request.headers["Transfer-Encoding"])
    end)
  end)

  describe("a response body", function()
    it("in chunks stays in chunks for HTTP/1.1, trailers included", function()
      local response = exchange(get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" ..
        "5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 9\r\n\r\n")
      assert.equal("hello world", response.body)
      assert.is_truthy(response.chunks)
      assert.equal("9", response.trailers["X-Sum"])
      assert.is_nil(response.headers["Content-Length"])
    end)

    it("in chunks becomes plain bytes until close for HTTP/1.0", function()
      local response, _, client = exchange("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 9\r\n\r\n")
      assert.equal("hello", response.body)
      assert.is_nil(response.headers["Transfer-Encoding"])
      assert.equal("close", response.headers.Connection)
      assert.is_true(client.eof)
    end)

    it("until close becomes chunks for HTTP/1.1, and the conn lasts", function()
      local response, _, client = exchange(get, "HTTP/1.1 200 OK\r\n\r\nall of it", { close = true })
      assert.equal("all of it", response.body)
      assert.is_truthy(response.chunks)
      exchange(get, ok, { client = client })
    end)

    it("until close stays so for HTTP/1.0", function()
      local response = exchange("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nall of it", { close = true })
      assert.equal("all of it", response.body)
      assert.equal("close", response.headers.Connection)
    end)

    it("with a length keeps it exactly", function()
      local response, _, client = exchange(get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
      assert.same({ "5" }, response.headers:all "Content-Length")
      assert.is_nil(response.headers["Transfer-Encoding"])
      exchange(get, ok, { client = client })
    end)

    it("with the same length said twice in one line has it once", function()
      local response, _, client = exchange(get, "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello")
      assert.same({ "5" }, response.headers:all "Content-Length")
      assert.equal("hello", response.body)
      exchange(get, ok, { client = client })
    end)

    it("with the same length said twice has it once", function()
      local response = exchange(get, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok")
      assert.same({ "2" }, response.headers:all "Content-Length")
      assert.equal("ok", response.body)
    end)

    it("of no bytes has a length of 0", function()
      local response, _, client = exchange(get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
      assert.equal("0", response.headers["Content-Length"])
      exchange(get, ok, { client = client })
    end)

    it("ends where its length says, whatever follows", function()
      local client = net.connect(gate.port)
      client:send(get)
      local _, conn = answer(ok .. "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
      assert.equal("ok", http.response(client).body)
      conn:expect_closed()
      assert.equal("", client:pending())
    end)
  end)

  describe("a target", function()
    local function target_of(line, host)
      local _, request = exchange(line .. " HTTP/1.1\r\nHost: " .. (host or "a") .. "\r\n\r\n", ok)
      return request.target, request.headers.Host
    end

    it("in absolute form is forwarded in origin form, its host in place of the field", function()
      assert.same({ "/x?y=1", "other.example:81" }, { target_of("GET http://other.example:81/x?y=1", "a") })
    end)

    it("in absolute form without a path is /", function()
      assert.same({ "/", "other.example" }, { target_of "GET http://other.example" })
    end)

    it("in absolute form with a query but no path keeps the query", function()
      assert.equal("/?q", (target_of "GET http://other.example?q"))
    end)

    it("* is forwarded for OPTIONS", function()
      assert.equal("*", (target_of "OPTIONS *"))
    end)

    it("is forwarded normalised", function()
      assert.equal("/admin?x=%61/../y", (target_of "GET /a/../%61dmin?x=%61/../y"))
      assert.equal("/a%2Fb//c", (target_of "GET /a%2fb//./c"))
    end)

    it("keeps an empty query", function()
      assert.equal("/x?", (target_of "GET /x?"))
    end)

    it("of HTTP/1.0 without Host gets an empty Host", function()
      local _, request = exchange("GET /x HTTP/1.0\r\n\r\n", ok)
      assert.same({ "" }, request.headers:all "Host")
    end)
  end)

  describe("a request head", function()
    local function forwarded(lines, method)
      local _, request = exchange((method or "GET") .. " / HTTP/1.1\r\nHost: a\r\n" .. lines .. "\r\n", ok)
      return request
    end

    it("with a method nobody knows is forwarded", function()
      assert.equal("BREW-Coffee", forwarded("", "BREW-Coffee").method)
      assert.equal("get", forwarded("", "get").method)
    end)

    it("keeps the case, order and repetition of its fields", function()
      local request = forwarded "X-oDD-cAsE: 1\r\nb: 2\r\nX-Odd-Case: 3\r\nB:\r\n"
      local seen = {}
      for _, line in ipairs(request.headers) do
        local name = line[1]:lower()
        if name == "b" or name == "x-odd-case" then seen[#seen + 1] = line[1] .. "=" .. line[2] end
      end
      assert.same({ "X-oDD-cAsE=1", "b=2", "X-Odd-Case=3", "B=" }, seen)
    end)

    it("loses its hop-by-hop fields", function()
      local request = forwarded("Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n" ..
        "TE: trailers\r\nUpgrade: foo\r\nProxy-Authorization: Basic eA==\r\nX-Kept: 1\r\n")
      for _, name in ipairs { "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade",
        "Proxy-Authorization" } do
        assert.is_nil(request.headers[name], name)
      end
      assert.equal("1", request.headers["X-Kept"])
    end)

    it("loses the fields that Connection nominates, all lines of them", function()
      local request = forwarded("X-Private: 1\r\nConnection: x-private, close\r\nConnection: X-Other\r\n" ..
        "X-OTHER: 2\r\nX-Private: 3\r\n")
      assert.is_nil(request.headers["X-Private"])
      assert.is_nil(request.headers["X-Other"])
    end)

    it("keeps the fields it is routed and judged by, though Connection nominates them", function()
      local request = forwarded("Cookie: a=1\r\nAuthorization: x\r\n" ..
        "Connection: Host, Cookie, Authorization, X-Forwarded-For, Via\r\n")
      assert.equal("a", request.headers.Host)
      assert.equal("a=1", request.headers.Cookie)
      assert.equal("x", request.headers.Authorization)
      assert.equal("127.0.0.1", request.headers["X-Forwarded-For"])
      assert.is_truthy(request.headers.Via)
    end)

    it("says in Via by what it came, behind who said so before", function()
      assert.equal("1.1 moongate", forwarded("").headers.Via)
      assert.equal("1.0 front, 1.1 moongate", forwarded("Via: 1.0 front\r\n").headers.Via)
      local _, request = exchange("GET / HTTP/1.0\r\n\r\n", ok)
      assert.equal("1.0 moongate", request.headers.Via)
    end)

    it("keeps bytes beyond ASCII in its values", function()
      assert.equal("gr\xc3\xbcn\xff", forwarded("X-Text: gr\xc3\xbcn\xff\r\n").headers["X-Text"])
    end)

    it("gets along without the reason phrase and the date", function()
      local response = exchange(get, "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n")
      assert.equal(299, response.status)
      assert.equal("", response.reason)
      assert.matches("^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$", response.headers.Date)
    end)
  end)

  describe("a response head", function()
    local function passed(lines, first)
      return (exchange(get, (first or "HTTP/1.1 200 OK") .. "\r\nContent-Length: 0\r\n" .. lines .. "\r\n"))
    end

    it("keeps status, reason, and the case, order and repetition of its fields", function()
      local response = passed("sEt-cOOkie: a\r\nX-A: 1\r\nSet-Cookie: b\r\nDate: yesterday\r\n",
        "HTTP/1.1 418 I'm a teapot")
      assert.equal(418, response.status)
      assert.equal("I'm a teapot", response.reason)
      assert.same({ "a", "b" }, response.headers:all "Set-Cookie")
      assert.equal("sEt-cOOkie", response.headers:names()[1])
      assert.same({ "yesterday" }, response.headers:all "Date")
    end)

    it("loses its hop-by-hop fields and those that Connection nominates", function()
      local response = passed "Connection: close, X-Hop\r\nKeep-Alive: 5\r\nX-Hop: 1\r\nUpgrade: x\r\nX-Kept: 1\r\n"
      for _, name in ipairs { "Connection", "Keep-Alive", "X-Hop", "Upgrade" } do
        assert.is_nil(response.headers[name], name)
      end
      assert.equal("1", response.headers["X-Kept"])
    end)

    it("says in Via by what it came, behind who said so before", function()
      assert.equal("1.1 moongate", passed("").headers.Via)
      assert.equal("1.1 inner, 1.1 moongate", passed("Via: 1.1 inner\r\n").headers.Via)
      assert.equal("1.0 moongate", passed("", "HTTP/1.0 200 OK").headers.Via)
    end)

    it("is read though its bytes come one by one", function()
      local client = net.connect(gate.port)
      client:send(get)
      local conn = backend:accept()
      http.request(conn)
      for byte in ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabc"):gmatch "." do conn:send(byte) end
      local response = http.response(client)
      assert.equal("abc", response.body)
      assert.equal("b", response.headers["X-A"])
    end)
  end)
end)
