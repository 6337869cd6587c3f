-- HTTP/2 from clients, frame by frame: what requests become on their way to a backend, what answers become, what ends a
-- stream and what ends the connection.

local support = require "support"
local it, http, net, h2, moongate = support.it, support.http, support.net, support.h2, support.moongate
-- In the hard build bytes come one by one, and some calls are refused: not for what asks for pieces or times.
local it_whole = support.process.preset == "hard" and pending or it

-- A proxy before `backend`; `site` is more of its site, `top` of its config.
local function start(backend, site, options)
  options = options or {}
  local values = { BACKEND = backend or net.listen() }
  for name, value in pairs(options.values or {}) do values[name] = value end
  return moongate.start { workers = options.workers, args = options.args, values = values, config = ([[
    local gate = require "moongate"
    return { sites = { {
      listen = { "127.0.0.1:$PORT", h2c = true }, backends = { app = { "$BACKEND" } }, %s
    } }, %s }
  ]]):format(site or "", options.top or "") }
end

-- The lines of the access log once there are `n`.
local function log_lines(gate, n)
  local lines
  support.eventually(n .. " lines in the access log", function()
    lines = {}
    for line in support.process.read_file(gate.dir .. "/access.log"):gmatch "[^\n]+" do lines[#lines + 1] = line end
    return #lines >= n
  end)
  return lines
end
local logged = { top = 'log = { access = "$DIR/access.log" }' }

describe("a listener with h2c", function()
  it("tells both protocols apart by their first bytes", function()
    local gate = start(http.backend "hello")
    assert.equal("hello", h2.connect(gate.port):exchange("/").body)
    assert.equal("hello", http.get(gate.port, "/").body)
  end)

  it("takes a preface that comes in pieces", function()
    local gate = start(http.backend "hello")
    local peer = h2.connect(gate.port, { silent = true })
    peer.conn:send(h2.preface:sub(1, 5))
    support.sleep(0.02)
    peer.conn:send(h2.preface:sub(6, 20))
    support.sleep(0.02)
    peer.conn:send(h2.preface:sub(21))
    peer:set()
    assert.equal("hello", peer:exchange("/").body)
  end)

  it("closes on who speaks neither", function()
    local conn = net.connect(start().port)
    conn:send "PRI * HTTP/2.0\r\n\r\nno\r\n\r\n"
    conn:expect_closed()
  end)
end)

describe("a request of HTTP/2", function()
  it("reaches a backend of HTTP/1.1 whole", function()
    local backend = http.backend()
    local peer = h2.connect(start(backend).port)
    local response = peer:exchange("/a?b=c", { method = "PUT", authority = "x.test:81", body = "some bytes", headers = {
      { "cookie", "a=1" }, { "x-one", "1" }, { "cookie", "b=2" }, { "cookie", "c=3" }, { "content-length", "10" },
      { "te", "trailers" },
    } })
    assert.equal(200, response.status)
    assert.equal("1.1 moongate", response.headers.via)
    local request = http.await_request(backend)
    assert.equal("PUT /a?b=c", request.method .. " " .. request.target)
    assert.equal("x.test:81", request.headers.Host)
    assert.equal("a=1; b=2; c=3", request.headers.Cookie)
    assert.equal("2.0 moongate", request.headers.Via)
    assert.equal("10", request.headers["Content-Length"])
    assert.is_nil(request.headers.TE)
    assert.equal("some bytes", request.body)
  end)

  it("is chunked for HTTP/1.1 when nothing says its length; trailers follow, but for those that route", function()
    local backend = http.backend()
    local peer = h2.connect(start(backend).port)
    peer:exchange("/", { method = "POST", body = "abc", trailers = {
      { "x-sum", "7" }, { "x-forwarded-for", "1.2.3.4" }, { "set-cookie", "a=1" }, { "authorization", "me" },
    } })
    local request = http.await_request(backend)
    assert.equal("abc", request.body)
    assert.equal("chunked", request.headers["Transfer-Encoding"])
    assert.same({ { "x-sum", "7" } }, { table.unpack(request.trailers) })
  end)

  it("is known to policy as any other", function()
    local gate = start(nil, [[on_request = function(req)
      return gate.reply(200, req.version .. " " .. req.host .. " " .. req.method .. " " .. req.scheme)
    end]])
    assert.equal("2.0 a.test GET http", h2.connect(gate.port):exchange("/").body)
  end)

  it("may wait for 100 Continue", function()
    local backend = net.listen()
    local peer = h2.connect(start(backend).port)
    local stream = peer:request("/", { method = "POST", open = true, headers = {
      { "expect", "100-continue" }, { "content-length", "4" },
    } })
    local conn = backend:accept()
    assert.equal("100-continue", http.request_head(conn).headers.Expect)
    conn:send "HTTP/1.1 100 Continue\r\n\r\n"
    assert.equal("100", peer:expect("HEADERS", stream).fields[":status"])
    peer:data(stream, "body", true)
    assert.equal("body", conn:read_exactly(4))
    conn:send(http.encode_response { body = "done" })
    assert.equal("done", peer:response(stream).body)
  end)

  it("shares its connection with others, and each is answered when it is ready", function()
    local backend = net.listen()
    local peer = h2.connect(start(backend).port)
    local slow, quick = peer:request "/slow", peer:request "/quick"
    local conns = {}
    for _ = 1, 2 do
      local conn = backend:accept()
      conns[http.request(conn).target] = conn
    end
    conns["/quick"]:send(http.encode_response { body = "quick" })
    assert.equal("quick", peer:response(quick).body)
    conns["/slow"]:send(http.encode_response { body = "slow" })
    assert.equal("slow", peer:response(slow).body)
  end)

  for what, case in pairs {
    ["a Host that differs from :authority"] = { 400, headers = { { "host", "b.test" } } },
    ["a CONNECT"] = { 501, raw = { { ":method", "CONNECT" }, { ":authority", "a.test:443" } } },
    ["too long a target"] = { 414, target = "/" .. ("a"):rep(9000) },
    ["too many fields"] = { 431, many = 150 },
    ["too large a head"] = { 431, headers = { { "x-big", ("a"):rep(40000) } } },
    ["an expectation nobody can meet"] = { 417, method = "POST", headers = { { "expect", "wonders" } } },
  } do
    it("is refused for " .. what .. ", on its stream alone", function()
      local peer = h2.connect(start(http.backend "fine").port)
      local headers = case.headers or {}
      for i = 1, case.many or 0 do headers[#headers + 1] = { "x-" .. i, "1" } end
      local fields = case.raw or h2.request_fields(case.target or "/", { headers = headers, method = case.method })
      local block = h2.hpack.encode(fields)
      peer:send("HEADERS", h2.END_STREAM | (#block <= 16384 and h2.END_HEADERS or 0), 1, block:sub(1, 16384))
      for at = 16385, #block, 16384 do
        peer:send("CONTINUATION", at + 16384 > #block and h2.END_HEADERS or 0, 1, block:sub(at, at + 16383))
      end
      assert.equal(case[1], peer:response(1).status)
      peer.next_id = 3
      assert.equal("fine", peer:exchange("/").body)
    end)
  end

  it("that is malformed is reset, on its stream alone", function()
    local peer = h2.connect(start(http.backend "fine").port)
    for i, field in ipairs { { "Upper", "1" }, { "connection", "close" }, { "te", "gzip" }, { "x", "a\nb" } } do
      assert.equal("PROTOCOL_ERROR", peer:exchange("/", { headers = { field } }).error, i)
    end
    assert.equal("PROTOCOL_ERROR",
      peer:exchange("/", { method = "POST", body = "four", headers = { { "content-length", "5" } } }).error)
    local stream = peer.next_id
    peer.next_id = stream + 2
    peer:headers(stream, { { ":method", "GET" }, { ":scheme", "http" }, { ":path", "/" } }, true) -- no authority
    assert.equal("PROTOCOL_ERROR", peer:response(stream).error)
    assert.equal("fine", peer:exchange("/").body)
  end)

  it("with too large a body gets 413, whether it says so or not", function()
    local gate = start(http.backend(), "max_body = 1000")
    local peer = h2.connect(gate.port)
    local body = ("a"):rep(5000)
    local told = { { "content-length", "5000" } }
    assert.equal(413, peer:exchange("/", { method = "POST", body = body, headers = told }).status)
    local stream = peer:request("/", { method = "POST", open = true })
    peer:data(stream, body)
    local response = peer:response(stream)
    assert.equal(413, response.status)
    assert.truthy(response.body:find("request", 1, true))
    assert.equal("NO_ERROR", peer:expect("RST_STREAM", stream).error)
  end)

  it("joins the crumbs of a cookie, of which there may be more than fields", function()
    local backend = http.backend()
    local peer = h2.connect(start(backend).port)
    local crumbs = {}
    for i = 1, 300 do crumbs[i] = { "cookie", "n" .. i .. "=" .. ("v"):rep(30) } end
    assert.equal(200, peer:exchange("/", { headers = crumbs }).status)
    local values = {}
    for i, crumb in ipairs(crumbs) do values[i] = crumb[2] end
    assert.equal(table.concat(values, "; "), http.await_request(backend).headers.Cookie)
  end)
end)

describe("an answer over HTTP/2", function()
  it("carries the backend's fields, without those of its connection", function()
    local peer = h2.connect(start(http.backend(function()
      return 200, { { "X-Mixed-Case", "1" }, { "Connection", "X-Hop" }, { "X-Hop", "1" }, { "Keep-Alive", "timeout=5" },
        { "Set-Cookie", "a=1" }, { "Set-Cookie", "b=2" } }, "hello"
    end)).port)
    local response = peer:exchange "/"
    assert.equal("1", response.headers["x-mixed-case"])
    assert.same({ "a=1", "b=2" }, response.headers:all "set-cookie")
    assert.equal("5", response.headers["content-length"])
    for _, name in ipairs { "connection", "keep-alive", "x-hop", "transfer-encoding" } do
      assert.is_nil(response.headers[name], name)
    end
    for _, name in ipairs(response.headers:names()) do assert.equal(name:lower(), name) end
  end)

  it("to HEAD, or with 204 or 304, has no content and ends with its head", function()
    local peer = h2.connect(start(http.backend(function(request)
      if request.method == "HEAD" then return 200, { { "Content-Length", "77" } }, nil end
      local status = tonumber(request.target:sub(2))
      return status, status == 304 and { { "ETag", '"x"' } } or nil, ""
    end)).port)
    local function head(target, method)
      local stream = peer:request(target, { method = method })
      local frame = peer:expect("HEADERS", stream)
      assert.truthy(frame.flags & h2.END_STREAM ~= 0)
      return frame.fields
    end
    assert.equal("204", head("/204")[":status"])
    assert.equal('"x"', head("/304").etag)
    assert.is_nil(head("/204")["content-length"])
    assert.equal("200", head("/200", "HEAD")[":status"])
  end)

  it("passes interim responses on before it", function()
    local backend = net.listen()
    local peer = h2.connect(start(backend).port)
    local stream = peer:request "/"
    local conn = backend:accept()
    http.request(conn)
    conn:send "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    assert.equal("</a.css>", peer:expect("HEADERS", stream).fields.link)
    conn:send(http.encode_response { body = "done" })
    assert.equal("done", peer:response(stream).body)
  end)

  it("ends with trailers behind all of its content, however slowly that leaves", function()
    local body = ("0123456789abcdef"):rep(20000)
    local peer = h2.connect(start(net.listen(function(conn)
      http.request(conn)
      conn:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" .. http.encode_chunk(body)
        .. "0\r\nX-Sum: 7\r\n\r\n")
    end)).port)
    local response = peer:exchange "/"
    assert.equal(#body, #response.body)
    assert.equal("7", response.trailers["x-sum"])
  end)

  it_whole("that breaks off is seen not to be whole, behind all that there was of it", function()
    local peer = h2.connect(start(net.listen(function(conn)
      http.request(conn)
      conn:send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" .. ("a"):rep(90000))
    end)).port)
    local response = peer:exchange "/"
    assert.equal(90000, #response.body)
    assert.equal("INTERNAL_ERROR", response.error)
  end)

  it("that comes before the request is complete tells the client that its rest is not wanted", function()
    local gate = start(nil, "on_request = function() return gate.reply(403, 'no') end")
    local peer = h2.connect(gate.port)
    local stream = peer:request("/", { method = "POST", open = true })
    local response = peer:response(stream)
    assert.equal("403 no", response.status .. " " .. response.body)
    assert.equal("NO_ERROR", peer:expect("RST_STREAM", stream).error)
  end)

  it("that waits for its window outlives its exchange, and trailers of the request then go nowhere", function()
    local gate = start(nil, "on_request = function() return gate.reply(403, 'no') end")
    local peer = h2.connect(gate.port, { settings = { INITIAL_WINDOW_SIZE = 0 } })
    for _ = 1, 20 do
      local stream = peer:request("/", { method = "POST", open = true })
      assert.equal("403", peer:expect("HEADERS", stream).fields[":status"])
      peer:sync()
      peer:data(stream, "late")
      peer:headers(stream, { { "x-sum", "7" } }, true)
      peer:sync()
      peer:open_window(stream, 100)
      assert.equal("no", peer:content(stream, 2))
    end
  end)

  it("is written down like any other", function()
    local backend = net.listen()
    local gate = start(backend, "", logged)
    local peer = h2.connect(gate.port)
    for i = 1, 5 do
      local stream = peer:request("/" .. i)
      local conn = backend:accept()
      http.request(conn)
      conn:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
      assert.equal("one", peer:content(stream, 3))
      conn:send "3\r\ntwo\r\n0\r\n\r\n"
      peer:await(function(frame) return frame.stream == stream and frame.flags & h2.END_STREAM ~= 0 end)
      conn:close()
    end
    for _, line in ipairs(log_lines(gate, 5)) do
      assert.truthy(line:find(' HTTP/2.0" 200 6 ', 1, true), line)
    end
  end)

  it("is sent by urgency (RFC 9218)", function()
    local body = ("a"):rep(300000)
    local gate = start(http.backend(body))
    local peer = h2.connect(gate.port, { thrifty = true, settings = { INITIAL_WINDOW_SIZE = 1000000 } })
    local late = peer:request("/late", { headers = { { "priority", "u=7" } } })
    local soon = peer:request("/soon", { headers = { { "priority", "u=0" } } })
    peer:expect("HEADERS", late)
    peer:expect("HEADERS", soon)
    -- Both have filled what they may by now; the connection's window is shut.
    peer:sync()
    peer:open_window(0, 1000000)
    local ended = peer:await(function(frame) return frame.type == "DATA" and frame.flags & h2.END_STREAM ~= 0 end)
    assert.equal(soon, ended.stream)
  end)
end)

describe("a stream", function()
  it("that is cancelled ends its request at the backend", function()
    local backend = net.listen()
    local gate = start(backend, "", logged)
    local peer = h2.connect(gate.port)
    local stream = peer:request "/"
    local conn = backend:accept()
    http.request(conn)
    peer:reset(stream, "CANCEL")
    conn:expect_closed()
    assert.truthy(log_lines(gate, 1)[1]:find(' HTTP/2.0" 499 0 ', 1, true))
  end)

  it("that is not read does not stop others, and holds its backend back", function()
    local backend = net.listen()
    local peer = h2.connect(start(backend).port, { thrifty = true })
    peer:open_window(0, 1000000)
    peer:request "/stuck"
    local conn = backend:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    assert.truthy(conn:send_until_blocked(("a"):rep(100000)) < 50000000)
    local other = peer:request "/other"
    local second = backend:accept()
    http.request(second)
    second:send(http.encode_response { body = "quick" })
    assert.equal("quick", peer:response(other).body)
  end)

  it("whose upload nobody takes does not stop others", function()
    local backend = net.listen()
    local peer = h2.connect(start(backend).port)
    local stuck = peer:request("/stuck", { method = "POST", open = true })
    local conn = backend:accept()
    http.request_head(conn)
    conn:stop_reading()
    peer:data(stuck, ("a"):rep(200000))
    local other = peer:request("/other", { method = "POST", open = true })
    peer:data(other, "hello", true)
    local second = backend:accept()
    assert.equal("hello", http.request(second).body)
    second:send(http.encode_response { body = "ok" })
    assert.equal("ok", peer:response(other).body)
  end)

  it("may be a WebSocket (RFC 8441)", function()
    local gate = start(support.websocket.backend())
    local peer = h2.connect(gate.port)
    peer:expect "SETTINGS"
    assert.equal(1, peer.settings[h2.settings.ENABLE_CONNECT_PROTOCOL])
    peer:headers(1, {
      { ":method", "CONNECT" }, { ":protocol", "websocket" }, { ":scheme", "http" }, { ":path", "/chat" },
      { ":authority", "a.test" }, { "sec-websocket-version", "13" },
    })
    local head = peer:expect("HEADERS", 1)
    assert.equal("200", head.fields[":status"])
    assert.is_nil(head.fields["sec-websocket-accept"])
    assert.is_nil(head.fields["content-length"])
    peer:data(1, "\x81\x85\0\0\0\0hello")
    assert.equal("\x81\x05hello", peer:content(1, 7))
    peer:data(1, "\x88\x82\0\0\0\0\x03\xe8")
    assert.equal("\x88\x02\x03\xe8", peer:content(1, 4))
    peer:await(function(frame) return frame.stream == 1 and frame.flags & h2.END_STREAM ~= 0 end)
  end)

  it("whose WebSocket is refused gets the backend's answer", function()
    local peer = h2.connect(start(http.backend(function() return 403, nil, "no" end)).port)
    peer:headers(1, {
      { ":method", "CONNECT" }, { ":protocol", "websocket" }, { ":scheme", "http" }, { ":path", "/chat" },
      { ":authority", "a.test" },
    })
    local response = peer:response(1)
    assert.equal("403 no", response.status .. " " .. response.body)
  end)

  it("whose WebSocket the backend knows nothing of is not told that it has one", function()
    local peer = h2.connect(start(http.backend "a page").port)
    peer:headers(1, {
      { ":method", "CONNECT" }, { ":protocol", "websocket" }, { ":scheme", "http" }, { ":path", "/chat" },
      { ":authority", "a.test" },
    })
    local response = peer:response(1)
    assert.equal("501 a page", response.status .. " " .. response.body)
  end)
end)

describe("a connection of HTTP/2", function()
  it("ends politely: what is under way is answered, and it was told which stream was the last", function()
    local backend = net.listen()
    local gate = start(backend)
    local peer = h2.connect(gate.port)
    local stream = peer:request "/"
    local conn = backend:accept()
    http.request(conn)
    gate:signal "term"
    assert.equal(0x7fffffff, peer:expect("GOAWAY").last)
    local last = peer:expect "GOAWAY"
    assert.equal(stream, last.last)
    assert.equal("NO_ERROR", last.error)
    conn:send(http.encode_response { body = "done" })
    assert.equal("done", peer:response(stream).body)
    peer.conn:expect_eof()
    gate:wait()
  end)

  it("ends politely also under a client that always asks for more", function()
    local gate = start(http.backend "ok")
    local peer = h2.connect(gate.port)
    peer:exchange "/"
    gate:signal "term"
    peer:expect "GOAWAY"
    local last
    support.eventually("the last word", function()
      if not pcall(peer.exchange, peer, "/") then return true end
      for _, frame in ipairs(peer.kept) do
        if frame.type == "GOAWAY" then last = frame end
      end
      return last
    end)
    gate:wait()
  end)

  it("outlives a reload, and its next stream meets the new config", function()
    local gate = start(nil, "on_request = function() return gate.reply(200, 'old') end")
    local peer = h2.connect(gate.port)
    assert.equal("old", peer:exchange("/").body)
    gate:reload_with [[
      local gate = require "moongate"
      return { listen = { "127.0.0.1:$PORT", h2c = true },
        on_request = function() return gate.reply(200, "new") end }
    ]]
    assert.equal("new", peer:exchange("/").body)
  end)

  it("that is idle is closed", function()
    local gate = start(http.backend "ok", "timeouts = { idle = 0.3 }")
    local peer = h2.connect(gate.port)
    assert.equal("ok", peer:exchange("/").body)
    assert.equal("NO_ERROR", peer:expect("GOAWAY").error)
  end)

  it("on which nothing ever comes is closed", function()
    local gate = start(nil, "timeouts = { head = 0.3 }")
    local peer = h2.connect(gate.port)
    assert.equal("NO_ERROR", peer:expect("GOAWAY").error)
  end)

  it("on which a head does not go on is closed", function()
    local gate = start(nil, "timeouts = { head = 0.3 }")
    local peer = h2.connect(gate.port)
    peer:sync()
    peer:send("HEADERS", 0, 1, h2.hpack.encode(h2.request_fields "/"))
    assert.equal("ENHANCE_YOUR_CALM", peer:dismissed())
  end)

  it("gets 408 for a body that does not come", function()
    local gate = start(http.backend(), "timeouts = { body = 0.3 }")
    local peer = h2.connect(gate.port)
    local stream = peer:request("/", { method = "POST", open = true })
    assert.equal(408, peer:response(stream).status)
  end)

  it("may say nothing for as long as it likes once its answer has begun", function()
    local backend = net.listen()
    local gate = start(backend, "timeouts = { body = 0.2, head = 0.2 }")
    local peer = h2.connect(gate.port)
    local stream = peer:request("/", { method = "POST", open = true })
    local conn = backend:accept()
    http.request_head(conn)
    conn:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
    assert.equal("one", peer:content(stream, 3))
    support.sleep(0.8)
    peer:data(stream, "late", true)
    assert.equal("late", http.chunk(conn))
    conn:send "3\r\ntwo\r\n0\r\n\r\n"
    assert.equal("two", peer:content(stream, 3))
  end)

  it("loses the streams that it does not take", function()
    local gate = start(http.backend(("a"):rep(10)), "timeouts = { between = 0.3 }")
    local peer = h2.connect(gate.port, { settings = { INITIAL_WINDOW_SIZE = 0 } })
    local stream = peer:request "/"
    assert.equal("CANCEL", peer:expect("RST_STREAM", stream).error)
  end)

  it("that is closed for writing still gets its answers, but not from a site that aborts on that", function()
    local backend = net.listen()
    local peer = h2.connect(start(backend).port, { thrifty = true })
    local stream = peer:request "/"
    local conn = backend:accept()
    http.request(conn)
    peer:sync()
    peer.conn:shutdown()
    conn:send(http.encode_response { body = "done" })
    assert.equal("done", peer:response(stream).body)

    backend = net.listen()
    peer = h2.connect(start(backend, "abort_on_fin = true").port)
    stream = peer:request "/"
    conn = backend:accept()
    http.request(conn)
    conn:send(http.encode_response { body = "answered" })
    assert.equal("answered", peer:response(stream).body)
    peer:request "/"
    http.request(conn)
    peer.conn:shutdown()
    conn:expect_closed()
  end)

  it("over TLS is agreed on by ALPN", function()
    local dir = support.temp_dir()
    local certificate = support.tls.certificate(dir, "a", { names = { "DNS:a.test" } })
    require "luv".fs_chmod(dir, tonumber("755", 8))
    local values = { BACKEND = http.backend "hello", CERTS = dir }
    local gate = moongate.start { args = { "--keys", dir }, values = values, config = [[
      return { listen = { "127.0.0.1:$PORT", tls = { cert = "$CERTS/a.pem", key = "$CERTS/a.key" } },
        backends = { app = { "$BACKEND" } } }
    ]] }
    assert.truthy(certificate)
    assert.equal("hello", h2.connect_tls(gate.port):exchange("/").body)
  end)

  it("is spoken by curl, nghttp and h2load", function()
    local gate = start(http.backend "hello")
    local url = ("http://127.0.0.1:%d/"):format(gate.port)
    local _, out = support.run { "curl", "-sS", "--http2-prior-knowledge", url, "-w", " %{http_version}" }
    assert.equal("hello 2", out)
    _, out = support.run { "nghttp", url }
    assert.equal("hello", out)
    _, out = support.run { "h2load", "-n", "2000", "-c", "4", "-m", "50", url }
    assert.truthy(out:find("2000 succeeded, 0 failed", 1, true))
  end)
end)
