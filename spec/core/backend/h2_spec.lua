-- HTTP/2 to servers, frame by frame: streams that share a connection, and what becomes of requests when one breaks.

local support = require "support"
local it, http, net, h2, moongate = support.it, support.http, support.net, support.h2, support.moongate
local tls = support.tls

-- In the hard build bytes go one by one, and but one of a last word leaves before a conn is closed.
local hard = support.process.preset == "hard"

-- A proxy whose backend, of these settings, speaks HTTP/2; `site` is more of its site.
local function start(backend, settings, site, options)
  options = options or {}
  return moongate.start { workers = 1, values = { BACKEND = backend }, args = options.args, config = ([[
    return { listen = { "127.0.0.1:$PORT", h2c = true },
      backends = { app = { "$BACKEND", h2 = true, %s } }, %s }
  ]]):format(settings or "", site or "") }
end

-- A server scripted frame by frame: its next connection.
local function accept(backend, options) return h2.accept(backend:accept(), options) end

-- A GET by HTTP/1.1, in a task of its own.
local function get(gate, target, options)
  return support.spawn(function() return http.get(gate.port, target or "/", options) end)
end

describe("a backend with h2", function()
  it("gets requests of HTTP/1.1 as HTTP/2", function()
    local backend = h2.backend(function(request) return 201, { { "x-one", "1" } }, "got " .. request.body end)
    local gate = start(backend)
    local response = http.post(gate.port, "/a?b=c", "abc", { headers = {
      { "Connection", "X-Hop" }, { "X-Hop", "1" }, { "TE", "trailers" }, { "X-Mixed-Case", "2" },
    } })
    assert.equal("201 Created got abc", response.status .. " " .. response.reason .. " " .. response.body)
    assert.equal("1", response.headers["X-One"])
    local request = http.await_request(backend)
    assert.equal("POST /a?b=c", request.method .. " " .. request.target)
    assert.equal("http", request.headers[":scheme"])
    assert.equal("localhost", request.headers[":authority"])
    assert.equal("3", request.headers["content-length"])
    assert.equal("2", request.headers["x-mixed-case"])
    assert.equal("1.1 moongate", request.headers.via)
    for _, name in ipairs { "host", "connection", "x-hop", "transfer-encoding" } do
      assert.is_nil(request.headers[name], name)
    end
  end)

  it("gets what its clients say of trailers, and theirs", function()
    local backend = h2.backend(function() return 200, nil, "body", { { "x-sum", "7" } } end)
    local gate = start(backend)
    local conn = net.connect(gate.port)
    conn:send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. "3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n")
    local response = http.response(conn)
    assert.equal("body", response.body)
    assert.equal("7", response.trailers["X-Sum"])
    local request = http.await_request(backend)
    assert.equal("trailers", request.headers.te)
    assert.equal("1", request.trailers["x-end"])
    assert.equal("abc", request.body)
  end)

  it("serves many at a time on one connection", function()
    local backend = net.listen()
    local gate = start(backend)
    local tasks = {}
    for i = 1, 20 do tasks[i] = get(gate, "/" .. i) end
    local peer = accept(backend)
    local requests = {}
    for i = 1, 20 do requests[i] = peer:accept() end
    for i = 20, 1, -1 do peer:respond(requests[i].stream, 200, nil, "for " .. requests[i].target) end
    for i = 1, 20 do assert.equal("for /" .. i, tasks[i]:join().body) end
    assert.equal(1, backend.accepted)
  end)

  it("is given no more streams than it takes, and another connection for those beyond", function()
    local backend = net.listen()
    local gate = start(backend)
    local first = get(gate, "/0")
    local peer = accept(backend, { settings = { MAX_CONCURRENT_STREAMS = 2 } })
    peer:respond(peer:accept().stream, 200, nil, "ok")
    assert.equal("ok", first:join().body)
    peer:sync()
    local tasks = {}
    for i = 1, 3 do tasks[i] = get(gate, "/" .. i) end
    local other = accept(backend)
    other:respond(other:accept().stream, 200, nil, "ok")
    for _ = 1, 2 do peer:respond(peer:accept().stream, 200, nil, "ok") end
    for i = 1, 3 do assert.equal("ok", tasks[i]:join().body) end
  end)

  it("has its complete answers not followed by resets", function()
    local backend = net.listen()
    local gate = start(backend)
    local conn = net.connect(gate.port)
    local peer
    for i = 1, 5 do
      local task = get(gate, "/", { conn = conn })
      peer = peer or accept(backend)
      local request = peer:accept()
      peer:respond(request.stream, 200, nil, ("a"):rep(i == 3 and 100000 or 10))
      task:join()
    end
    peer:sync()
    for _, frame in ipairs(peer.kept) do assert.not_equal("RST_STREAM", frame.type) end
  end)

  it("may answer before it has the whole request, and is spared the rest", function()
    local backend = net.listen()
    local gate = start(backend)
    local conn = net.connect(gate.port)
    conn:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegin"
    local peer = accept(backend)
    local request = peer:accept()
    peer:respond(request.stream, 413, nil, "no")
    local response = http.response(conn)
    assert.equal("413 no", response.status .. " " .. response.body)
    assert.equal("CANCEL", peer:expect("RST_STREAM", request.stream).error)
  end)

  it("passes interim responses on", function()
    local backend = net.listen()
    local gate = start(backend)
    local task = get(gate, "/")
    local peer = accept(backend)
    local stream = peer:accept().stream
    peer:headers(stream, { { ":status", 103 }, { "link", "</a.css>" } })
    peer:respond(stream, 200, nil, "ok")
    local response = task:join()
    assert.equal("</a.css>", response.interim[1].headers.Link)
    assert.equal("ok", response.body)
  end)

  it("answers HEAD, 204 and 304 without content", function()
    local gate = start(h2.backend(function(request)
      if request.method == "HEAD" then return 200, { { "content-length", "77" } }, "" end
      return tonumber(request.target:sub(2)), nil, ""
    end))
    local conn = net.connect(gate.port)
    assert.equal("77", http.exchange(nil, "HEAD", "/", { conn = conn }).headers["Content-Length"])
    assert.equal(204, http.get(nil, "/204", { conn = conn }).status)
    assert.equal(304, http.get(nil, "/304", { conn = conn }).status)
    assert.equal(200, http.get(nil, "/200", { conn = conn }).status)
  end)

  it("streams both ways between clients and servers of HTTP/2", function()
    local backend = net.listen()
    local gate = start(backend)
    local client = h2.connect(gate.port)
    local stream = client:request("/", { method = "POST", open = true, headers = { { "te", "trailers" } } })
    local server = accept(backend)
    local request = server:accept()
    assert.equal("trailers", request.headers.te)
    server:respond(request.stream, 200)
    client:expect("HEADERS", stream)
    for i = 1, 5 do
      client:data(stream, "ping" .. i)
      assert.equal("ping" .. i, server:content(request.stream, 5))
      server:data(request.stream, "pong" .. i)
      assert.equal("pong" .. i, client:content(stream, 5))
    end
    client:data(stream, "", true)
    server:finish_request(request)
    server:headers(request.stream, { { "grpc-status", "0" } }, true)
    assert.equal("0", client:expect("HEADERS", stream).fields["grpc-status"])
  end)

  for what, head in pairs {
    ["too large"] = { { ":status", 200 }, { "x-big", ("a"):rep(15000) }, { "x-big", ("a"):rep(15000) },
      { "x-big", ("a"):rep(15000) }, { "x-big", ("a"):rep(15000) }, { "x-big", ("a"):rep(15000) } },
    ["malformed"] = { { ":status", 200 }, { "Upper", "1" } },
    ["of an upgrade"] = { { ":status", 101 } },
    ["of no status that there is"] = { { ":status", "099" } },
    ["of a status beyond all that there are"] = { { ":status", "600" } },
  } do
    it("that sends a head that is " .. what .. " makes a 502", function()
      local backend = net.listen()
      local gate = start(backend)
      local task = get(gate, "/")
      local peer = accept(backend)
      local block = h2.hpack.encode(head)
      local stream = peer:accept().stream
      local bytes = h2.frame("HEADERS", #block <= 16384 and h2.END_HEADERS or 0, stream, block:sub(1, 16384))
      for at = 16385, #block, 16384 do
        bytes = bytes .. h2.frame("CONTINUATION", at + 16384 > #block and h2.END_HEADERS or 0, stream,
          block:sub(at, at + 16383))
      end
      peer.conn:post(bytes)
      assert.equal(502, task:join().status)
    end)
  end

  it("that breaks off in the middle of its answer is seen to have done so", function()
    local backend = net.listen()
    local gate = start(backend)
    local conn = net.connect(gate.port)
    conn:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local peer = accept(backend)
    local stream = peer:accept().stream
    peer:respond(stream, 200)
    peer:data(stream, "begin")
    conn:read_until "begin"
    peer:reset(stream, "INTERNAL_ERROR")
    assert.equal("\r\n", conn:read_all()) -- of its chunk; no last one
  end)
end)

describe("a connection that many share", function()
  -- Two requests on their way on one connection; `handler(peer, requests)` then does something to it.
  local function begin(settings, site)
    local backend = net.listen()
    local gate = start(backend, settings, site)
    local tasks = { get(gate, "/1"), get(gate, "/2") }
    local peer = accept(backend)
    local requests = { peer:accept(), peer:accept() }
    table.sort(requests, function(a, b) return a.target < b.target end)
    return { backend = backend, gate = gate, tasks = tasks, peer = peer, requests = requests }
  end

  it("outlives the streams that clients cancel", function()
    local backend = net.listen()
    local gate = start(backend)
    local client = net.connect(gate.port)
    client:send "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    local peer = accept(backend)
    local request = peer:accept()
    client:reset()
    assert.equal("CANCEL", peer:expect("RST_STREAM", request.stream).error)
    peer:respond(request.stream, 200, { { "x-late", "1" } }, "late", { { "x-sum", "1" } })
    local task = get(gate, "/2")
    peer:respond(peer:accept().stream, 200, nil, "ok")
    assert.equal("ok", task:join().body)
  end)

  it("is not held up by a client that does not read", function()
    local backend = net.listen()
    local gate = start(backend)
    local peer
    local clients = {}
    for i = 1, 20 do
      clients[i] = net.connect(gate.port)
      clients[i]:stop_reading()
      clients[i]:send "GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n"
      peer = peer or accept(backend)
      local stream = peer:accept().stream
      peer:respond(stream, 200)
      peer:data(stream, ("a"):rep(65535)) -- what it may at first
    end
    local task = get(gate, "/free")
    local stream = peer:accept().stream
    peer:sync()
    local opened = 0
    for _, frame in ipairs(peer.kept) do
      if frame.type == "WINDOW_UPDATE" and frame.stream == 0 then opened = opened + (">I4"):unpack(frame.payload) end
    end
    assert.truthy(opened >= 19 * 65535 - 65535, opened)
    peer:respond(stream, 200, nil, "ok")
    assert.equal("ok", task:join().body)
  end)

  it("that says it takes no more serves what it has; what comes then has another", function()
    local x = begin()
    x.peer:goaway(math.max(x.requests[1].stream, x.requests[2].stream), "NO_ERROR")
    x.peer:sync()
    local third = get(x.gate, "/3")
    local other = accept(x.backend)
    other:respond(other:accept().stream, 200, nil, "three")
    assert.equal("three", third:join().body)
    for i = 1, 2 do
      x.peer:respond(x.requests[i].stream, 200, nil, "ok" .. i)
      assert.equal("ok" .. i, x.tasks[i]:join().body)
    end
    x.peer.conn:expect_closed()
  end)

  it("that passes over a stream loses it to another, without a client noticing", function()
    local x = begin()
    local streams = { x.requests[1].stream, x.requests[2].stream }
    table.sort(streams)
    x.peer:goaway(streams[1], "NO_ERROR")
    x.peer:respond(streams[1], 200, nil, "here")
    local other = accept(x.backend)
    other:respond(other:accept().stream, 200, nil, "there")
    local bodies = { x.tasks[1]:join().body, x.tasks[2]:join().body }
    table.sort(bodies)
    assert.same({ "here", "there" }, bodies)
  end)

  it("that refuses a stream may be asked again, also for a POST of which nothing was sent", function()
    local backend = net.listen()
    local gate = start(backend)
    local task = support.spawn(function() return http.exchange(gate.port, "POST", "/") end)
    local peer = accept(backend)
    peer:reset(peer:accept().stream, "REFUSED_STREAM")
    peer:respond(peer:accept().stream, 200, nil, "second")
    assert.equal("second", task:join().body)
  end)

  it("that refuses a stream with part of a body is not asked with the rest of it", function()
    local backend = net.listen()
    local gate = start(backend, 'retry = { on = { "connect", "reset", "timeout" }, tries = 3 }')
    local conn = net.connect(gate.port)
    conn:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst"
    local peer = accept(backend)
    local stream = peer:accept().stream
    assert.truthy(#peer:expect("DATA", stream).bytes > 0)
    peer:reset(stream, "REFUSED_STREAM")
    assert.equal(502, http.response(conn).status)
    peer:sync()
    for _, frame in ipairs(peer.kept) do assert.not_equal("HEADERS", frame.type) end
  end)

  it("that is lost has its requests sent again on one other", function()
    local backend = net.listen()
    local gate = start(backend)
    local first = get(gate, "/0")
    local peer = accept(backend)
    peer:respond(peer:accept().stream, 200, nil, "ok")
    first:join()
    local tasks = {}
    for i = 1, 5 do tasks[i] = get(gate, "/" .. i) end
    for _ = 1, 5 do peer:accept() end
    peer.conn:reset()
    local other = accept(backend)
    for _ = 1, 5 do other:respond(other:accept().stream, 200, nil, "again") end
    for i = 1, 5 do assert.equal("again", tasks[i]:join().body) end
    assert.equal(2, backend.accepted)
  end)

  for what, breach in pairs {
    ["content on a stream that nobody opened"] = function(peer, stream) peer:data(stream + 100, "x") end,
    ["content before a head"] = function(peer, stream) peer:data(stream, "x", true) end,
    ["a promise"] = function(peer, stream)
      peer:send("PUSH_PROMISE", h2.END_HEADERS, stream, "\0\0\0\2" .. h2.hpack.encode(h2.request_fields "/"))
    end,
    ["fields that cannot be decoded"] = function(peer, stream) peer:send("HEADERS", h2.END_HEADERS, stream, "\x80") end,
  } do
    it("that breaks the protocol by " .. what .. " is told so, and its requests are sent again on one other", function()
      local backend = net.listen()
      local gate = start(backend)
      local first = get(gate, "/0")
      local peer = accept(backend)
      peer:respond(peer:accept().stream, 200, nil, "ok")
      first:join()
      local tasks = { get(gate, "/1"), get(gate, "/2") }
      local stream = peer:accept().stream
      peer:accept()
      breach(peer, stream)
      if not hard then assert.not_equal("NO_ERROR", peer:expect("GOAWAY").error) end
      local other = accept(backend)
      for _ = 1, 2 do other:respond(other:accept().stream, 200, nil, "again") end
      for i = 1, 2 do assert.equal("again", tasks[i]:join().body) end
      if not hard then peer.conn:expect_closed() end
    end)
  end

  it("on which a request waited in vain while nothing came at all gets no others", function()
    local backend = net.listen()
    local gate = start(backend, "retry = { on = {} }", "timeouts = { first_byte = 0.3 }")
    local first = get(gate, "/0")
    local peer = accept(backend)
    peer:respond(peer:accept().stream, 200, nil, "ok")
    first:join()
    peer:sync()
    local lost = get(gate, "/1")
    peer:accept()
    assert.equal(504, lost:join().status)
    local task = get(gate, "/2")
    local other = accept(backend)
    other:respond(other:accept().stream, 200, nil, "ok")
    assert.equal("ok", task:join().body)
  end)

  it("is closed when nobody needs it for a while", function()
    local backend = net.listen()
    local gate = start(backend, "keepalive = { idle = 0.3 }")
    local task = get(gate, "/")
    local peer = accept(backend)
    peer:respond(peer:accept().stream, 200, nil, "ok")
    task:join()
    support.eventually("its end", function() return peer.conn.eof or peer.conn.lost end)
  end)
end)

describe("a TLS backend with h2", function()
  local dir, certificate
  support.setup(function()
    dir = support.temp_dir()
    require "luv".fs_chmod(dir, tonumber("755", 8))
    certificate = tls.certificate(dir, "a", { names = { "DNS:a.test" } })
  end)
  local trusting = 'tls = { name = "a.test", ca = "$CERTS/a.pem" }'

  -- Its servers agree on these protocols.
  local function serve(protocols)
    local offered = { protocols = protocols }
    offered.options = { tls = tls.server(certificate, { alpn = function(asked)
      for _, name in ipairs(asked) do
        if offered.protocols[name] then return name end
      end
    end }) }
    return offered
  end

  local function start_tls(backend)
    local values = { BACKEND = backend, CERTS = dir }
    return moongate.start { workers = 1, args = { "--keys", dir }, values = values, config = [[
      return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND", h2 = true, ]] .. trusting .. [[ } } }
    ]] }
  end

  it("that agrees is spoken to in HTTP/2", function()
    local function tell_scheme(request) return 200, nil, request.headers[":scheme"] end
    local backend = h2.backend(tell_scheme, serve { h2 = true }.options)
    local gate = start_tls(backend)
    assert.equal("https", http.get(gate.port, "/").body)
    assert.equal("https", http.get(gate.port, "/").body)
    assert.equal(1, backend.accepted)
  end)

  it("that does not is spoken to in HTTP/1.1", function()
    local backend = http.backend("old", serve { ["http/1.1"] = true }.options)
    local gate = start_tls(backend)
    assert.equal("old", http.get(gate.port, "/").body)
    assert.equal("1.1", http.await_request(backend).version)
  end)

  it("that does so no more is spoken to in HTTP/1.1, by all who had hoped for a stream", function()
    local served = serve { h2 = true, ["http/1.1"] = true }
    local backend = net.listen(nil, served.options)
    local gate = start_tls(backend)
    local first = get(gate, "/0")
    local peer = h2.accept(backend:accept())
    peer:respond(peer:accept().stream, 200, nil, "new")
    assert.equal("new", first:join().body)
    peer:goaway(1, "NO_ERROR")
    peer.conn:close()
    served.protocols = { ["http/1.1"] = true }
    local tasks = {}
    for i = 1, 3 do tasks[i] = get(gate, "/" .. i) end
    for _ = 1, 3 do
      local conn = backend:accept()
      support.spawn(function()
        http.request(conn)
        conn:send(http.encode_response { body = "old" })
      end)
    end
    for i = 1, 3 do assert.equal("old", tasks[i]:join().body) end
  end)
end)

describe("nghttpd", function()
  it("is a server of HTTP/2", function()
    local size, times = hard and 3000 or 300000, hard and 50 or 500
    local dir = support.temp_dir()
    local file = assert(io.open(dir .. "/page", "wb"))
    file:write(("a"):rep(size))
    file:close()
    local port = support.free_port()
    support.process.spawn { "nghttpd", "--no-tls", "-d", dir, tostring(port) }
    support.eventually("nghttpd to listen", function()
      local probe = net.try_connect(port)
      if probe then probe:close() end
      return probe
    end)
    local gate = start("127.0.0.1:" .. port)
    assert.equal(size, #http.get(gate.port, "/page").body)
    assert.equal(404, http.get(gate.port, "/none").status)
    local url = ("http://127.0.0.1:%d/page"):format(gate.port)
    local _, out = support.run { "h2load", "-n", tostring(times), "-c", "2", "-m", "20", url }
    assert.truthy(out:find(times .. " succeeded, 0 failed", 1, true))
  end)
end)
