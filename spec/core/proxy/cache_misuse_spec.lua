-- What a cache must not do, over the wire: give one client what is another's, keep what a validation forbids, trust
-- what clients write, or fall over what comes at an odd moment.

local support = require "support"
local cached = require "support.cached"
local it, http, h2, net, moongate = support.it, support.http, support.h2, support.net, support.moongate

-- In the hard build bytes come one by one, and some calls are refused: not for what asks for pieces or times.
local it_whole = support.process.preset == "hard" and pending or it

local asked = cached.asked

local function start(options)
  return cached.start { policy = options and options.policy, workers = options and options.workers, site = [[
    drain = "2s", compress = true,
    cache = { memory = "8M", max_object = "256K", stale_if_error = "60s", negative = { [404] = "60s" } } ]] }
end

describe("the cache", function()
  local gate, backend, routes

  support.setup(function() gate, backend, routes = start() end)

  local function get(target, headers, method)
    return http.exchange(gate.port, method or "GET", target, { headers = headers })
  end

  describe("keeps from others", function()
    it("a cookie on an answer that only `negative` makes fresh (RFC 9111 7.3)", function()
      routes["/lost"] = function() return 404, { ["Set-Cookie"] = "session=1" }, "none" end
      get "/lost"
      get "/lost"
      assert.equal(2, asked(backend, "/lost"))
    end)

    it("a cookie on an answer that nobody said is fresh (RFC 9111 7.3)", function()
      routes["/session"] = function()
        return 200, { ["Set-Cookie"] = "session=1", ["Last-Modified"] = "Sun, 22 Nov 2020 10:00:00 GMT" }, "x"
      end
      get "/session"
      get "/session"
      assert.equal(2, asked(backend, "/session"))
    end)

    it("the fields of a 304 that is private or not to be stored (RFC 9111 3)", function()
      for _, word in ipairs { "private", "no-store" } do
        local target = "/304-" .. word
        routes[target] = function(request)
          if request.headers["If-None-Match"] and request.headers.Cookie then
            return 304, { ETag = '"1"', ["Cache-Control"] = word .. ", max-age=100", ["X-User"] = "ann" }
          end
          return 200, { ETag = '"1"', ["Cache-Control"] = "no-cache" }, "all"
        end
        get(target)
        get(target, { Cookie = "ann" })
        assert.is_nil(get(target).headers["X-User"])
        assert.equal(3, asked(backend, target))
      end
    end)

    it("the fields of a 304 to a request with credentials (RFC 9111 3.5)", function()
      routes["/304-auth"] = function(request)
        if request.headers["If-None-Match"] then
          return 304, { ETag = '"1"', ["X-User"] = request.headers.Authorization }
        end
        return 200, { ETag = '"1"', ["Cache-Control"] = "no-cache" }, "all"
      end
      get "/304-auth"
      get("/304-auth", { Authorization = "Basic YTpi" })
      assert.is_nil(get("/304-auth").headers["X-User"])
    end)

    it("the fields of a HEAD's answer that is private", function()
      local private = false
      routes["/head-private"] = function(request)
        if request.method == "HEAD" then
          return 200, { ["Cache-Control"] = "private, max-age=100", ["X-User"] = "ann", ["Content-Length"] = "3" }
        end
        return 200, { ["Cache-Control"] = "max-age=100" }, "all"
      end
      get "/head-private"
      get("/head-private", { ["Cache-Control"] = "no-cache" }, "HEAD")
      assert.equal(2, asked(backend, "/head-private"))
      assert.is_nil(get("/head-private").headers["X-User"])
      assert.is_false(private)
    end)

    it("what a 304 says varies by everything", function()
      routes["/304-any"] = function(request)
        if request.headers["If-None-Match"] then
          return 304, { ETag = '"1"', Vary = "*", ["Cache-Control"] = "max-age=100" }
        end
        return 200, { ETag = '"1"', ["Cache-Control"] = "no-cache" }, "all"
      end
      for _ = 1, 3 do get "/304-any" end
      assert.equal(3, asked(backend, "/304-any"))
    end)

    it("what varies by a field of ours that differs for each client", function()
      for _, name in ipairs { "X-Forwarded-For", "Forwarded", "Via", "Early-Data" } do
        local target = "/vary-" .. name
        routes[target] = function()
          return 200, { ["Cache-Control"] = "max-age=100", Vary = "Accept, " .. name }, "x"
        end
        get(target)
        get(target)
        assert.equal(2, asked(backend, target))
      end
    end)

    it("but not what varies by what is in the key", function()
      for _, name in ipairs { "X-Forwarded-Proto", "X-Forwarded-Host", "Host" } do
        local target = "/keyed-" .. name
        routes[target] = function() return 200, { ["Cache-Control"] = "max-age=100", Vary = name }, "x" end
        get(target)
        get(target)
        assert.equal(1, asked(backend, target))
      end
    end)

    it("what private= and no-cache= name, but gives it to whom it was meant for (RFC 9111 5.2.2.7)", function()
      routes["/named"] = function()
        return 200, { ["Cache-Control"] = 'max-age=100, private="Set-Cookie, X-Yours"', ["Set-Cookie"] = "a=1",
          ["X-Yours"] = "1" }, "x"
      end
      local first, second = get "/named", get "/named"
      assert.equal(1, asked(backend, "/named"))
      assert.equal("a=1", first.headers["Set-Cookie"])
      assert.equal("1", first.headers["X-Yours"])
      assert.is_nil(second.headers["Set-Cookie"])
      assert.is_nil(second.headers["X-Yours"])
    end)
  end)

  it("is not kept from a URL by who shows credentials there", function()
    routes["/open"] = function() return 200, { ["Cache-Control"] = "max-age=100" }, "open" end
    get("/open", { Authorization = "Basic YTpi" })
    get "/open"
    get "/open"
    assert.equal(2, asked(backend, "/open"))
  end)

  it("is not kept from a URL by who asks for ranges that are none, or many", function()
    routes["/whole"] = function(request)
      local range = request.headers.Range
      if range == "bytes=99-" then return 416, { ["Content-Range"] = "bytes */5" }, "" end
      if range then return 206, { ["Content-Type"] = "multipart/byteranges; boundary=x" }, "--x--" end
      return 200, { ["Cache-Control"] = "max-age=100" }, "whole"
    end
    assert.equal(416, get("/whole", { Range = "bytes=99-" }).status)
    assert.equal(206, get("/whole", { Range = "bytes=0-0,2-2" }).status)
    get "/whole"
    get "/whole"
    assert.equal(3, asked(backend, "/whole"))
  end)

  it("cuts what HTTP/2 clients ask for, in one part or several, and tells HEAD and conditions of the whole", function()
    local both = moongate.start { values = { BACKEND = backend }, config = [[
      return { drain = "2s", listen = { "127.0.0.1:$PORT", h2c = true }, backends = { app = { "$BACKEND" } },
        cache = { memory = "8M" } }
    ]] }
    routes["/parts"] = function()
      return 200, { ["Cache-Control"] = "max-age=100", ETag = '"1"', ["Content-Type"] = "text/plain" }, "0123456789"
    end
    local peer = h2.connect(both.port)
    assert.equal("0123456789", peer:exchange("/parts").body)
    local one = peer:exchange("/parts", { headers = { { "range", "bytes=2-4" } } })
    assert.same({ 206, "234", "3", "bytes 2-4/10" },
      { one.status, one.body, one.headers["content-length"], one.headers["content-range"] })
    local many = peer:exchange("/parts", { headers = { { "range", "bytes=0-0,-2" } } })
    assert.equal(206, many.status)
    assert.equal(#many.body, tonumber(many.headers["content-length"]))
    assert.matches("bytes 0%-0/10\r\n\r\n0\r\n", many.body)
    assert.matches("bytes 8%-9/10\r\n\r\n89\r\n", many.body)
    local head = peer:exchange("/parts", { method = "HEAD", headers = { { "range", "bytes=2-4" } } })
    assert.same({ 200, "", "10" }, { head.status, head.body, head.headers["content-length"] })
    local any = peer:exchange("/parts", { headers = { { "if-none-match", "*" }, { "range", "bytes=2-4" } } })
    assert.same({ 304, "", '"1"' }, { any.status, any.body, any.headers.etag })
    assert.is_string(any.headers.date)
    assert.is_nil(any.headers["content-length"])
    local beyond = peer:exchange("/parts", { headers = { { "range", "bytes=10-" } } })
    assert.same({ 416, "bytes */10", "0" },
      { beyond.status, beyond.headers["content-range"], beyond.headers["content-length"] })
    peer.conn:close()
  end)

  it("does not keep what was fetched before a POST, nor gives it to who asks behind that (RFC 9111 4.4)", function()
    local released, changed = support.async.signal(), false
    routes["/cart"] = function(request)
      local body = changed and "new" or "old"
      if request.method == "POST" then changed = true
      elseif body == "old" then
        support.async.wait(released, function() return changed == "and told" end, "to be released")
      end
      return 200, { ["Cache-Control"] = "max-age=100" }, body
    end
    local before, behind = net.connect(gate.port), net.connect(gate.port)
    before:send "GET /cart HTTP/1.1\r\nHost: localhost\r\n\r\n"
    support.eventually("it to be asked", function() return asked(backend, "/cart") == 1 end)
    http.post(gate.port, "/cart", "")
    behind:send "GET /cart HTTP/1.1\r\nHost: localhost\r\n\r\n"
    get "/none" -- by now the one behind follows, or will come later still
    changed = "and told"
    released:notify()
    assert.equal("old", http.response(before).body)
    assert.equal("new", http.response(behind).body)
    assert.equal("new", get("/cart").body)
    assert.equal(3, asked(backend, "/cart"))
  end)

  it("keeps a bounded number of variants, for each look-up walks over all", function()
    routes["/who"] = function(request)
      return 200, { ["Cache-Control"] = "max-age=100", Vary = "X-Who" }, request.headers["X-Who"]
    end
    for i = 1, 300 do assert.equal(tostring(i), get("/who", { ["X-Who"] = tostring(i) }).body) end
    get("/who", { ["X-Who"] = "300" })
    assert.equal(300, asked(backend, "/who"))
    get("/who", { ["X-Who"] = "1" })
    assert.equal(301, asked(backend, "/who"))
  end)

  it("lets nobody wait for the answer to who shows credentials", function()
    local released = support.async.signal()
    local done = false
    routes["/slow"] = function(request)
      if request.headers.Authorization then
        support.async.wait(released, function() return done end, "to be released")
      end
      return 200, { ["Cache-Control"] = "max-age=100" }, "open"
    end
    local one = net.connect(gate.port)
    one:send "GET /slow HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YTpi\r\n\r\n"
    support.eventually("it to be asked", function() return asked(backend, "/slow") == 1 end)
    assert.equal("open", get("/slow").body)
    done = true
    released:notify()
    assert.equal("open", http.response(one).body)
    one:close()
  end)

  it_whole("stops at once when only a fill is left that nobody reads", function()
    local origin = net.listen()
    local small = moongate.start { values = { BACKEND = origin }, config = [[
      return { drain = "60s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } },
        cache = { memory = "8M" } }
    ]] }
    local one = net.connect(small.port)
    one:send "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = origin:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=100\r\n\r\n5\r\nbegin\r\n"
    one:read_until "begin"
    one:reset()
    support.eventually("the client to be gone", function()
      return select(2, small:command "status"):find "clients +0 open"
    end)
    small:stop() -- fails after 5 s
  end)

  it("answers 304 with the Vary and ETag that the 200 has, where it compresses (RFC 9110 15.4.5)", function()
    routes["/page"] = function()
      return 200, { ETag = '"1"', ["Cache-Control"] = "max-age=100", ["Content-Type"] = "text/html" }, ("x"):rep(5000)
    end
    local full = get("/page", { ["Accept-Encoding"] = "gzip" })
    assert.equal('W/"1"', full.headers.ETag)
    local unchanged = get("/page", { ["Accept-Encoding"] = "gzip", ["If-None-Match"] = 'W/"1"' })
    assert.equal(304, unchanged.status)
    assert.equal("Accept-Encoding", unchanged.headers.Vary)
    assert.equal('W/"1"', unchanged.headers.ETag)
    assert.is_nil(unchanged.headers["Content-Length"])
    local plain = get("/page", { ["If-None-Match"] = '"1"' })
    assert.equal(304, plain.status)
    assert.equal("Accept-Encoding", plain.headers.Vary)
    assert.equal('"1"', plain.headers.ETag)
  end)

  it("keeps to what the site says of stale answers when a HEAD updates them (RFC 9111 4.3.5)", function()
    local status = 200
    routes["/head-stale"] = function()
      return status, { ETag = '"1"', ["Cache-Control"] = status == 200 and "max-age=0" or nil }, "all"
    end
    get "/head-stale"
    assert.equal(200, get("/head-stale", nil, "HEAD").status)
    status = 503
    assert.equal(200, get("/head-stale").status)
  end)

  it("asks for all when a backend sends less of the rest than there is (RFC 9111 3.4)", function()
    local body = ("0123456789"):rep(100)
    routes["/rest"] = function(request)
      local range = request.headers.Range
      if not range then return 200, { ETag = '"1"', ["Cache-Control"] = "max-age=100" }, body end
      local from = tonumber(range:match "bytes=(%d+)")
      local to = from + 99
      return 206, { ETag = '"1"', ["Cache-Control"] = "max-age=100",
        ["Content-Range"] = ("bytes %d-%d/1000"):format(from, to) }, body:sub(from + 1, to + 1)
    end
    assert.equal(206, get("/rest", { Range = "bytes=0-99" }).status)
    local all = get "/rest"
    assert.equal(200, all.status)
    assert.equal(body, all.body)
    assert.is_nil(all.headers["Content-Range"])
  end)

  -- A part is stored, its beginning; what a backend then sends of the rest cannot be joined to it.
  local unfit = {
    { "may not be stored", function(headers) headers["Cache-Control"] = "no-store" end },
    { "is for one only", function(headers) headers["Cache-Control"] = "private, max-age=100" end },
    { "varies by everything", function(headers) headers.Vary = "*" end },
    { "has a length that nobody told", function(_, body) return { body } end },
    { "makes it too large", function() end, 300000 },
  }
  for i, case in ipairs(unfit) do
    it("gives all to who asks for all, when the rest " .. case[1] .. " (RFC 9111 3.4)", function()
      local body, target = ("0123456789"):rep((case[3] or 1000) / 10), "/unfit" .. i
      routes[target] = function(request)
        local headers = { ETag = '"1"', ["Cache-Control"] = "max-age=100" }
        local from, to = (request.headers.Range or ""):match "bytes=(%d+)%-(%d*)"
        if not from then return 200, headers, body end
        local last = tonumber(to) or #body - 1
        local part = body:sub(tonumber(from) + 1, last + 1)
        headers["Content-Range"] = ("bytes %d-%d/%d"):format(from, last, #body)
        return 206, headers, from ~= "0" and case[2](headers, part) or part
      end
      assert.equal(206, get(target, { Range = "bytes=0-499" }).status)
      local all = get(target)
      assert.equal(200, all.status)
      assert.is_true(all.body == body)
      assert.is_nil(all.headers["Content-Range"])
    end)
  end

  -- The first answer's body arrives, and outgrows the cache, while it is validated.
  for _, status in ipairs { 304, 503 } do
    it("survives a " .. status .. " about a body that has outgrown it meanwhile", function()
      local origin = net.listen()
      local small = moongate.start { values = { BACKEND = origin }, config = [[
        return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND", retry = { tries = 1 } } },
          cache = { memory = "8M", max_object = "64K", stale_if_error = "60s" } }
      ]] }
      local piece = ("x"):rep(60000)
      local one = net.connect(small.port)
      one:send "GET /big HTTP/1.1\r\nHost: a\r\n\r\n"
      local first = origin:accept()
      http.request(first)
      first:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"1\"\r\nCache-Control: max-age=0\r\n\r\n"
      first:send(http.encode_chunk(piece))
      one:read_until "xxxx"
      local two = net.connect(small.port)
      two:send "GET /big HTTP/1.1\r\nHost: a\r\n\r\n"
      local second = origin:accept()
      local request = http.request(second)
      for _ = 1, 20 do first:send(http.encode_chunk(piece)) end
      first:send(http.encode_chunk("that is all so far"))
      one:read_until "that is all so far"
      if request.headers["If-None-Match"] then
        second:send(http.encode_response { status = status, headers = { ETag = '"1"' } })
      else
        second:send(http.encode_response { status = 200, body = "anew" })
        assert.equal("anew", http.response(two).body)
      end
      two:reset()
      one:reset()
      first:close()
      small:wait_idle()
    end)
  end

  it_whole("lets a slow reader go on when the backend of what has outgrown it is gone", function()
    local origin = net.listen()
    local small = moongate.start { values = { BACKEND = origin }, config = [[
      return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } },
        cache = { memory = "8M", max_object = "64K" } }
    ]] }
    local one = net.connect(small.port)
    one:send "GET /big HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = origin:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nCache-Control: max-age=100\r\nTransfer-Encoding: chunked\r\n\r\n"
    conn:send(http.encode_chunk "begin")
    one:read_until "begin"
    one:stop_reading()
    conn:send_until_blocked(http.encode_chunk(("x"):rep(16000)))
    conn:reset()
    one:start_reading()
    pcall(one.read_all, one)
    assert.is_true(one.eof or one.lost ~= nil)
  end)

  it("keeps apart what is forwarded with different X-Forwarded-Host", function()
    local other, its_backend, its_routes = start { policy = [[ site.trusted_proxies = { "127.0.0.1" } ]] }
    its_routes["/host"] = function(request)
      return 200, { ["Cache-Control"] = "max-age=100" }, request.headers["X-Forwarded-Host"] or "none"
    end
    local function ask(host)
      return http.get(other.port, "/host", { headers = { Host = "a.test", ["X-Forwarded-Host"] = host } }).body
    end
    assert.equal("evil.test", ask "evil.test")
    assert.equal("a.test", ask "a.test")
    assert.equal("a.test", ask(nil))
    assert.equal(2, asked(its_backend, "/host"))
  end)
end)
