-- The cache before a backend, over the wire: what is stored and reused, who asks the backend and who waits, what an
-- answer says of where it came from. The rules themselves are specified in spec/core/http.

local support = require "support"
local cached = require "support.cached"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

local asked = cached.asked

local function start(options)
  return cached.start { policy = options and options.policy, workers = options and options.workers, site = [[
    drain = "2s", cache = { memory = "8M" }, timeouts = { first_byte = "2s", connect = "300ms" } ]] }
end

local function with(headers, body)
  return function() return 200, headers, body or "stored" end
end

describe("the cache", function()
  local gate, backend, routes

  support.setup(function() gate, backend, routes = start() end)

  local function get(target, headers, method)
    return http.exchange(gate.port, method or "GET", target, { headers = headers })
  end

  describe("stores and reuses", function()
    it("what has explicit freshness, with Age and Cache-Status (RFC 9111 4, 5.1; RFC 9211)", function()
      routes["/fresh"] = with { ["Cache-Control"] = "max-age=100", ["X-Kept"] = "yes" }
      local first = get "/fresh"
      assert.equal("stored", first.body)
      assert.is_nil(first.headers.Age)
      assert.matches("^moongate; fwd=uri%-miss; fwd%-status=200; ttl=%d+; stored", first.headers["Cache-Status"])
      local second = get "/fresh"
      assert.equal("stored", second.body)
      assert.equal("0", second.headers.Age)
      assert.equal("yes", second.headers["X-Kept"])
      assert.matches("^moongate; hit; ttl=%d+$", second.headers["Cache-Status"])
      assert.equal("6", second.headers["Content-Length"])
      assert.equal(1, asked(backend, "/fresh"))
    end)

    it("for HEAD what GET has stored (RFC 9110 9.3.2)", function()
      routes["/head"] = with { ["Cache-Control"] = "max-age=100" }
      get "/head"
      local head = get("/head", nil, "HEAD")
      assert.equal("6", head.headers["Content-Length"])
      assert.equal("", head.body)
      assert.equal(1, asked(backend, "/head"))
    end)

    it("an Age that came with it (RFC 9111 4.2.3)", function()
      routes["/aged"] = with { ["Cache-Control"] = "max-age=100", Age = "40" }
      assert.equal("40", get("/aged").headers.Age)
      assert.equal("40", get("/aged").headers.Age)
      assert.matches("ttl=[56]%d", get("/aged").headers["Cache-Status"])
    end)

    it("bodies in chunks, of any size", function()
      local body = ("0123456789abcdef"):rep(20000)
      local chunks = { body:sub(1, 7), body:sub(8, 100000), body:sub(100001) }
      routes["/chunks"] = with({ ["Cache-Control"] = "max-age=100" }, chunks)
      assert.equal(body, get("/chunks").body)
      local again = get "/chunks"
      assert.equal(body, again.body)
      assert.equal(tostring(#body), again.headers["Content-Length"])
      assert.equal(1, asked(backend, "/chunks"))
    end)

    it("an empty body", function()
      routes["/empty"] = function() return 200, { ["Cache-Control"] = "max-age=100" }, "" end
      assert.equal("", get("/empty").body)
      assert.equal("", get("/empty").body)
      assert.equal(1, asked(backend, "/empty"))
    end)

    it("one for each variant (RFC 9111 4.1)", function()
      routes["/vary"] = function(request)
        local language = request.headers["Accept-Language"] or "none"
        return 200, { ["Cache-Control"] = "max-age=100", Vary = "Accept-Language" }, language
      end
      for _ = 1, 2 do
        for _, language in ipairs { "de", "en" } do
          assert.equal(language, get("/vary", { ["Accept-Language"] = language }).body)
        end
        assert.equal("none", get("/vary").body)
      end
      assert.equal(3, asked(backend, "/vary"))
      assert.matches("vary%-miss", get("/vary", { ["Accept-Language"] = "fr" }).headers["Cache-Status"])
    end)

    it("not what is private or no-store, and says by which rule", function()
      for _, word in ipairs { "no-store", "private" } do
        routes["/" .. word] = with { ["Cache-Control"] = word }
        local said = "moongate; fwd=uri-miss; fwd-status=200; detail=" .. word
        for _ = 1, 2 do assert.equal(said, get("/" .. word).headers["Cache-Status"]) end
        assert.equal(2, asked(backend, "/" .. word))
      end
    end)

    it("what is for all, though the last answer was for one", function()
      routes["/mine"] = function(request)
        if request.headers.Cookie then return 200, { ["Cache-Control"] = "private", ETag = '"m"' }, "yours" end
        return 200, { ["Cache-Control"] = "max-age=100" }, "everybody's"
      end
      for _ = 1, 2 do assert.equal("yours", get("/mine", { Cookie = "ann" }).body) end
      assert.equal("everybody's", get("/mine").body)
      assert.matches("hit", get("/mine").headers["Cache-Status"])
    end)

    it("not what is private, and has the backend answer conditions on it", function()
      routes["/own-etag"] = function(request)
        local same = request.headers["If-None-Match"] == '"1"'
        return same and 304 or 200, { ["Cache-Control"] = "private", ETag = '"1"' }, not same and "body" or nil
      end
      get "/own-etag"
      assert.equal(304, get("/own-etag", { ["If-None-Match"] = '"1"' }).status)
      assert.equal('"1"', backend.requests[#backend.requests].headers["If-None-Match"])
      assert.equal("body", get("/own-etag").body)
    end)

    it("nothing for a request that says no-store", function()
      routes["/quiet"] = with { ["Cache-Control"] = "max-age=100" }
      get("/quiet", { ["Cache-Control"] = "no-store" })
      get "/quiet"
      assert.equal(2, asked(backend, "/quiet"))
    end)

    it("nothing by other methods", function()
      routes["/post"] = with { ["Cache-Control"] = "max-age=100" }
      assert.matches("fwd=method", http.post(gate.port, "/post", "x").headers["Cache-Status"])
      get "/post"
      assert.equal(2, asked(backend, "/post"))
    end)
  end)

  describe("validates", function()
    local function tagged(target, control)
      routes[target] = function(request)
        if request.headers["If-None-Match"] == '"1"' then
          return 304, { ETag = '"1"', ["Cache-Control"] = control, ["X-New"] = "yes" }
        end
        return 200, { ETag = '"1"', ["Cache-Control"] = control }, "body"
      end
    end

    it("with the ETag, and takes over the fields of the 304 (RFC 9111 4.3.4)", function()
      tagged("/etag", "max-age=0")
      assert.equal("body", get("/etag").body)
      local second = get "/etag"
      assert.equal(200, second.status)
      assert.equal("body", second.body)
      assert.equal("yes", second.headers["X-New"])
      assert.matches("fwd=stale; fwd%-status=304", second.headers["Cache-Status"])
      assert.equal('"1"', backend.requests[#backend.requests].headers["If-None-Match"])
    end)

    it("for a client that says no-cache (RFC 9111 5.2.1.4)", function()
      tagged("/reload", "max-age=100")
      get "/reload"
      local second = get("/reload", { ["Cache-Control"] = "no-cache" })
      assert.matches("fwd=request; fwd%-status=304", second.headers["Cache-Status"])
      assert.equal("body", second.body)
    end)

    it("and takes a new one in the place of the old", function()
      local n = 0
      routes["/changing"] = function()
        n = n + 1
        return 200, { ETag = ('"%d"'):format(n), ["Cache-Control"] = "max-age=0" }, "body " .. n
      end
      assert.equal("body 1", get("/changing").body)
      assert.equal("body 2", get("/changing").body)
      assert.equal("body 3", get("/changing").body)
    end)

    it("the client's own copy, without asking the backend (RFC 9110 13.1.2)", function()
      tagged("/own", "max-age=100")
      get "/own"
      local answer = get("/own", { ["If-None-Match"] = '"0", "1"' })
      assert.equal(304, answer.status)
      assert.equal('"1"', answer.headers.ETag)
      assert.equal(1, asked(backend, "/own"))
      assert.equal(200, get("/own", { ["If-None-Match"] = '"0"' }).status)
    end)
  end)

  describe("gives ranges", function()
    it("of what it has whole (RFC 9110 14)", function()
      routes["/range"] = with({ ["Cache-Control"] = "max-age=100", ETag = '"r"' }, "0123456789")
      get "/range"
      local part = get("/range", { Range = "bytes=2-4" })
      assert.equal(206, part.status)
      assert.equal("234", part.body)
      assert.equal("bytes 2-4/10", part.headers["Content-Range"])
      assert.equal("89", get("/range", { Range = "bytes=-2" }).body)
      local none = get("/range", { Range = "bytes=20-" })
      assert.equal(416, none.status)
      assert.equal("bytes */10", none.headers["Content-Range"])
      assert.equal(200, get("/range", { Range = "bytes=2-4", ["If-Range"] = '"other"' }).status)
      assert.equal(1, asked(backend, "/range"))
    end)

    it("several in one answer", function()
      local answer = get("/range", { Range = "bytes=0-1,8-9" })
      assert.equal(206, answer.status)
      local boundary = answer.headers["Content-Type"]:match "^multipart/byteranges; boundary=(%w+)$"
      assert.truthy(boundary)
      assert.matches("bytes 0%-1/10\r\n\r\n01\r\n", answer.body)
      assert.matches("bytes 8%-9/10\r\n\r\n89\r\n%-%-" .. boundary .. "%-%-\r\n$", answer.body)
    end)

    it("of a part that a backend gave (RFC 9111 3.3)", function()
      routes["/part"] = function(request)
        assert.equal("bytes=2-5", request.headers.Range)
        return 206, { ["Cache-Control"] = "max-age=100", ETag = '"p"', ["Content-Range"] = "bytes 2-5/10" }, "2345"
      end
      local first = get("/part", { Range = "bytes=2-5" })
      assert.equal(206, first.status)
      assert.equal("2345", first.body)
      local second = get("/part", { Range = "bytes=3-4" })
      assert.equal("34", second.body)
      assert.equal("bytes 3-4/10", second.headers["Content-Range"])
      assert.equal(1, asked(backend, "/part"))
    end)
  end)

  describe("joins parts (RFC 9111 3.4)", function()
    local text = "0123456789"

    local function in_parts(target, etag)
      routes[target] = function(request)
        local first, last = (request.headers.Range or ""):match "^bytes=(%d+)%-(%d*)$"
        if not first then return 200, { ETag = etag, ["Cache-Control"] = "max-age=100" }, text end
        first, last = tonumber(first), tonumber(last) or #text - 1
        return 206, { ETag = etag, ["Cache-Control"] = "max-age=100",
          ["Content-Range"] = ("bytes %d-%d/%d"):format(first, last, #text) }, text:sub(first + 1, last + 1)
      end
    end

    it("that follow each other, and what is then complete is whole", function()
      in_parts("/join", '"j"')
      assert.equal("0123", get("/join", { Range = "bytes=0-3" }).body)
      assert.equal("4567", get("/join", { Range = "bytes=4-7" }).body)
      assert.equal("2345", get("/join", { Range = "bytes=2-5" }).body)
      assert.equal(2, asked(backend, "/join"))
      local whole = get "/join"
      assert.equal(200, whole.status)
      assert.equal(text, whole.body)
      assert.is_nil(whole.headers["Content-Range"])
      local last = backend.requests[#backend.requests]
      assert.equal("bytes=8-", last.headers.Range)
      assert.equal('"j"', last.headers["If-Range"])
      assert.equal(text, get("/join").body)
      assert.equal(3, asked(backend, "/join"))
    end)

    it("but not of different representations", function()
      in_parts("/mixed", '"1"')
      get("/mixed", { Range = "bytes=0-3" })
      in_parts("/mixed", '"2"')
      assert.equal("4567", get("/mixed", { Range = "bytes=4-7" }).body)
      assert.equal(text, get("/mixed").body)
    end)

    it("nor without a strong validator", function()
      in_parts("/weak", 'W/"1"')
      get("/weak", { Range = "bytes=0-3" })
      assert.equal(text, get("/weak").body)
      assert.is_nil(backend.requests[#backend.requests].headers.Range)
    end)
  end)

  describe("is made to forget", function()
    it("by an unsafe method that succeeds, even an unknown one (RFC 9111 4.4)", function()
      for _, method in ipairs { "POST", "DELETE", "FROB" } do
        local target = "/" .. method
        routes[target] = with { ["Cache-Control"] = "max-age=100" }
        get(target)
        get(target)
        assert.equal(1, asked(backend, target))
        get(target, nil, method)
        get(target)
        assert.equal(3, asked(backend, target))
      end
    end)

    it("also what Location names, of the same origin", function()
      routes["/kept"] = with { ["Cache-Control"] = "max-age=100" }
      routes["/other"] = function() return 201, { Location = "/kept" }, "" end
      get "/kept"
      http.post(gate.port, "/other", "x")
      get "/kept"
      assert.equal(2, asked(backend, "/kept"))
    end)
  end)

  it("answers 504 to only-if-cached without anything stored (RFC 9111 5.2.1.7)", function()
    assert.equal(504, get("/never", { ["Cache-Control"] = "only-if-cached" }).status)
    assert.equal(0, asked(backend, "/never"))
  end)

  it("passes 1xx on while it fills", function()
    routes["/hints"] = function(request)
      request.conn:send "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
      return 200, { ["Cache-Control"] = "max-age=100" }, "ok"
    end
    local client = net.connect(gate.port)
    client:send "GET /hints HTTP/1.1\r\nHost: localhost\r\n\r\n"
    local answer = http.response(client)
    assert.equal(103, answer.interim[1].status)
    assert.equal("ok", answer.body)
  end)
end)

describe("many requests for one absent object", function()
  local gate, server

  support.setup(function()
    server = net.listen()
    gate = moongate.start { values = { BACKEND = server }, config = [[
      return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND", keepalive = 0 } },
        cache = { memory = "64M" } }
    ]] }
  end)

  local function ask(target, n)
    local clients = {}
    for i = 1, n do
      clients[i] = net.connect(gate.port)
      clients[i]:send(("GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"):format(target))
    end
    return clients
  end

  it("make one request, and all get the bytes as they come", function()
    local clients = ask("/one", 20)
    local conn = server:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nCache-Control: max-age=100\r\nContent-Length: 10\r\n\r\nfirst"
    local reused = 0
    for _, client in ipairs(clients) do
      local head = client:read_until "first"
      if head:find "Cache%-Status: moongate; fwd=uri%-miss; ttl=%d+; collapsed\r\n" then reused = reused + 1 end
    end
    assert.is_true(reused > 0) -- RFC 9211 2.6
    conn:send "later"
    for _, client in ipairs(clients) do client:read_until "later" end
    assert.equal(1, server.accepted)
  end)

  it("do not wait for one that reads slowly", function()
    local size = 6000000
    local slow = ask("/slow", 1)[1]
    slow:stop_reading()
    local conn = server:accept()
    http.request(conn)
    local quick = ask("/slow", 1)[1]
    support.spawn(function()
      conn:send(("HTTP/1.1 200 OK\r\nCache-Control: max-age=100\r\nContent-Length: %d\r\n\r\n"):format(size))
      conn:send(("x"):rep(size))
    end)
    assert.equal(size, #http.response(quick).body)
    slow:start_reading()
    assert.equal(size, #http.response(slow).body)
  end)

  it("are let go at once, in parallel, when it is not for all", function()
    local clients = ask("/private", 5)
    local first = server:accept()
    http.request(first)
    local private = "HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 2\r\n\r\nok"
    first:send(private)
    local conns = {}
    for i = 1, 4 do
      conns[i] = server:accept()
      http.request(conns[i])
    end
    for _, conn in ipairs(conns) do conn:send(private) end
    for _, client in ipairs(clients) do
      local response = http.response(client)
      assert.equal("ok", response.body)
      assert.is_nil((response.headers["Cache-Status"] .. ";"):find "collapsed;") -- RFC 9211 2.6: "collapsed=?0"
    end
    -- And remembered: the next ones do not wait for each other.
    local later = ask("/private", 2)
    for _ = 1, 2 do http.request(server:accept()) end
    for _, client in ipairs(later) do client:close() end
  end)

  it("go on when the client leaves that asked first", function()
    local first = ask("/left", 1)[1]
    local conn = server:accept()
    http.request(conn)
    local second = ask("/left", 1)[1]
    conn:send "HTTP/1.1 200 OK\r\nCache-Control: max-age=100\r\nContent-Length: 10\r\n\r\nfirst"
    first:read_until "first"
    second:read_until "first"
    first:close()
    conn:send "later"
    second:read_until "later"
    assert.equal("firstlater", http.response(ask("/left", 1)[1]).body)
  end)

  it("see a body that breaks, and it is not kept", function()
    local clients = ask("/broken", 3)
    local conn = server:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nCache-Control: max-age=100\r\nContent-Length: 10\r\n\r\nfirst"
    for _, client in ipairs(clients) do client:read_until "first" end
    conn:close()
    for _, client in ipairs(clients) do client:expect_eof() end
    local again = ask("/broken", 1)[1]
    conn = server:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nCache-Control: max-age=100\r\nContent-Length: 2\r\n\r\nok"
    assert.equal("ok", http.response(again).body)
  end)
end)

describe("what is stale", function()
  it("is served at once and refreshed behind, within stale-while-revalidate (RFC 5861 3)", function()
    local gate, backend, routes = start()
    local n = 0
    routes["/swr"] = function()
      n = n + 1
      return 200, { ["Cache-Control"] = "max-age=0, stale-while-revalidate=100" }, "body " .. n
    end
    assert.equal("body 1", http.get(gate.port, "/swr").body)
    assert.equal("body 1", http.get(gate.port, "/swr").body)
    http.await_request(backend, 2)
    support.eventually("the refreshed one", function() return http.get(gate.port, "/swr").body ~= "body 1" end)
  end)

  it("is served when the backend fails, within stale-if-error, and says so (RFC 5861 4)", function()
    local gate, _, routes = start()
    routes["/sie"] = with { ["Cache-Control"] = "max-age=0, stale-if-error=100" }
    http.get(gate.port, "/sie")
    routes["/sie"] = function() return 503, {}, "down" end
    local answer = http.get(gate.port, "/sie")
    assert.equal(200, answer.status)
    assert.equal("stored", answer.body)
    assert.matches("fwd=stale; fwd%-status=503", answer.headers["Cache-Status"])
  end)

  it("is not served when it must be validated (RFC 9111 5.2.2.2)", function()
    local gate, _, routes = start()
    routes["/must"] = with { ["Cache-Control"] = "max-age=0, must-revalidate, stale-if-error=100", ETag = '"1"' }
    http.get(gate.port, "/must")
    routes["/must"] = function() return 503, {}, "down" end
    assert.equal(503, http.get(gate.port, "/must").status)
  end)
end)

describe("a cache's key", function()
  it("is what policy makes of it", function()
    local gate, backend, routes = start { policy = [[
      function site.cache_key(req)
        if req.path == "/none" then return false end
        return req.path
      end
    ]] }
    routes["/k"] = with { ["Cache-Control"] = "max-age=100" }
    routes["/none"] = with { ["Cache-Control"] = "max-age=100" }
    http.get(gate.port, "/k?a=1")
    http.get(gate.port, "/k?a=2")
    assert.equal(1, #backend.requests)
    http.get(gate.port, "/none")
    assert.matches("fwd=bypass", http.get(gate.port, "/none").headers["Cache-Status"])
    assert.equal(3, #backend.requests)
  end)

  it("has scheme and host in it", function()
    local gate, backend, routes = start()
    routes["/h"] = with { ["Cache-Control"] = "max-age=100" }
    http.get(gate.port, "/h", { headers = { Host = "one" } })
    http.get(gate.port, "/h", { headers = { Host = "two" } })
    http.get(gate.port, "/h", { headers = { Host = "ONE" } })
    assert.equal(2, #backend.requests)
  end)
end)

describe("the answer to a POST", function()
  local gate, backend, routes

  support.setup(function() gate, backend, routes = start() end)

  local function post(target, headers)
    routes[target] = function(request)
      return 200, headers, request.method == "POST" and "posted " .. request.body or "got"
    end
    return http.post(gate.port, target, "x")
  end

  it("answers later GETs if it is fresh and says that it is what they would get (RFC 9110 9.3.3)", function()
    for i, location in ipairs { "/post1", "http://localhost/post2", "./post3", "" } do
      local target = "/post" .. i
      local answer = post(target, { ["Cache-Control"] = "max-age=100", ["Content-Location"] = location })
      assert.equal("posted x", answer.body)
      assert.matches("fwd=method; fwd%-status=200; ttl=%d+; stored$", answer.headers["Cache-Status"])
      local stored = http.get(gate.port, target)
      assert.equal("posted x", stored.body)
      assert.matches("; hit", stored.headers["Cache-Status"])
      assert.equal(1, asked(backend, target))
      post(target, { ["Cache-Control"] = "max-age=100" })
      assert.equal("got", http.get(gate.port, target).body)
    end
  end)

  it("is for its client alone otherwise", function()
    for i, headers in ipairs {
      { ["Cache-Control"] = "max-age=100" }, { ["Content-Location"] = "/other2" },
      { ["Cache-Control"] = "max-age=100", ["Content-Location"] = "/else" },
      { ["Cache-Control"] = "max-age=100, private", ["Content-Location"] = "/other4" },
      { ["Cache-Control"] = "max-age=100", ["Content-Location"] = "http://a.example/other5" },
      { ["Cache-Control"] = "no-store, max-age=100", ["Content-Location"] = "/other6" },
      { ["Last-Modified"] = "Sun, 22 Nov 2020 10:00:00 GMT", ["Content-Location"] = "/other7" },
      { ["Cache-Control"] = "max-age=100", ["Content-Location"] = "/other8", Vary = "*" },
    } do
      local target = "/other" .. i
      local answer = post(target, headers)
      assert.equal("posted x", answer.body)
      assert.is_nil(answer.headers["Cache-Status"]:find "stored")
      assert.equal("got", http.get(gate.port, target).body)
    end
  end)
end)

describe("a compressed answer", function()
  it("is made once of what is stored, and kept", function()
    local gate, backend, routes = start { policy = 'site.compress = { min = 100, codings = { "gzip", "br" } }' }
    local text = ("moon and gate, "):rep(5000)
    routes["/text"] = with({ ["Cache-Control"] = "max-age=100", ["Content-Type"] = "text/plain", ETag = '"1"' }, text)
    assert.equal(text, http.get(gate.port, "/text").body)
    local function coded(coding) return http.get(gate.port, "/text", { headers = { ["Accept-Encoding"] = coding } }) end
    local first = coded "gzip"
    assert.equal("gzip", first.headers["Content-Encoding"])
    assert.equal('W/"1"', first.headers.ETag)
    assert.matches("Accept%-Encoding", first.headers.Vary)
    local second = coded "gzip"
    assert.equal(first.body, second.body)
    assert.equal(tostring(#first.body), second.headers["Content-Length"])
    assert.is_true(#first.body < #text / 20)
    assert.equal("br", coded("br").headers["Content-Encoding"])
    local function head(coding)
      return http.exchange(gate.port, "HEAD", "/text", { headers = { ["Accept-Encoding"] = coding } }).headers
    end
    assert.same({ "gzip", 'W/"1"', second.headers["Content-Length"] },
      { head("gzip")["Content-Encoding"], head("gzip").ETag, head("gzip")["Content-Length"] })
    assert.same({ nil, '"1"', tostring(#text) },
      { head("identity")["Content-Encoding"], head("identity").ETag, head("identity")["Content-Length"] })
    assert.equal(text, http.get(gate.port, "/text").body)
    local part = http.get(gate.port, "/text", { headers = { Range = "bytes=0-3", ["Accept-Encoding"] = "gzip" } })
    assert.equal("moon", part.body)
    assert.equal(304, http.get(gate.port, "/text",
      { headers = { ["If-None-Match"] = 'W/"1"', ["Accept-Encoding"] = "gzip" } }).status)
    assert.equal(1, #backend.requests)
  end)
end)

describe("a reload", function()
  it("keeps what is stored", function()
    local gate, backend, routes = start()
    routes["/r"] = with { ["Cache-Control"] = "max-age=100" }
    http.get(gate.port, "/r")
    gate:reload()
    assert.matches("hit", http.get(gate.port, "/r").headers["Cache-Status"])
    assert.equal(1, #backend.requests)
  end)
end)
