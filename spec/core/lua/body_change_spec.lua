-- body:map and body:replace, from socket to socket: answers and requests that are changed on their way.

local support = require "support"
local probe = require "core.lua.probe"
local coding = require("moongate_core").coding
local it, http, net = support.it, support.http, support.net

local function answer_with(body, headers, status)
  probe.answer = function() return status or 200, headers or {}, body end
end

local function changed(script, options) return probe.exchange({ on_response = script }, options) end

describe("body:replace", function()
  support.setup(probe.start)

  it("changes an answer, whose length and validators then are others", function()
    answer_with("one two one", {
      { "ETag", '"x"' }, { "Accept-Ranges", "bytes" }, { "Digest", "sha=x" }, { "Content-MD5", "x" }, { "X-Kept", "1" },
    })
    local response = changed "res.body:replace('one', 'three')"
    assert.equal("three two three", response.body)
    for _, name in ipairs { "ETag", "Accept-Ranges", "Digest", "Content-MD5" } do
      assert.equal("nil", tostring(response.headers[name]))
    end
    assert.equal("1", response.headers["X-Kept"])
  end)

  it("tells the length of a short one that came whole, and sends a long one in chunks", function()
    answer_with "abc"
    assert.equal("4", changed("res.body:text() res.body:replace('b', 'xx')").headers["Content-Length"])
    answer_with(("abc"):rep(100000))
    local response = changed "res.body:replace('b', '')"
    assert.equal(("ac"):rep(100000), response.body)
    assert.equal("chunked", response.headers["Transfer-Encoding"])
  end)

  it("finds what lies on the border of two pieces", function()
    probe.answer = function() return 200, nil, { "abc<ti", "tl", "e>x</ti", "tle>" } end
    assert.equal("abc<h1>x</h1>", changed("res.body:replace { ['title>'] = 'h1>' }").body)
  end)

  it("takes many texts in one pass, and several passes one after the other", function()
    answer_with "a b c"
    assert.equal("b c a", changed("res.body:replace { a = 'b', b = 'c', c = 'a' }").body)
    assert.equal("a a a", changed("res.body:replace('b', 'c'):replace('c', 'a')").body)
    assert.equal("a b c", changed("res.body:replace {}").body)
  end)

  it("changes a request", function()
    local request = probe.forwarded("req.body:replace('secret', '***')", { method = "POST", body = "my secret is 1" })
    assert.equal("my *** is 1", request.body)
    assert.equal("nil", tostring(request.headers["Content-MD5"]))
    request = probe.forwarded("req.body:replace('b', 'xyz')", { method = "POST", body = { "aaab", "baaa" } })
    assert.equal("aaaxyzxyzaaa", request.body)
    request = probe.forwarded("req.body:text() req.body:replace('b', 'xyz')", { method = "POST", body = "abc" })
    assert.equal("axyzc", request.body)
    assert.equal("5", request.headers["Content-Length"])
  end)

  it("is what text and chunks give from then on", function()
    answer_with "one"
    local response = changed [[
      local before = res.body:text()
      res.body:replace("one", "two")
      res.headers["X-Said"] = before .. " " .. res.body:text() .. " " .. res.body:text()
      for piece in res.body:chunks() do res.headers["X-Piece"] = piece end
    ]]
    assert.equal("one two two", response.headers["X-Said"])
    assert.equal("two", response.headers["X-Piece"])
    assert.equal("two", response.body)
  end)

  it("reaches an HTTP/1.0 client, closed behind its end", function()
    answer_with(("ab"):rep(50000))
    local conn = net.connect(probe.port)
    conn:send(("GET / HTTP/1.0\r\n%s\r\n\r\n"):format(probe.field("on_response", "res.body:replace('b', 'c')")))
    local text = conn:read_all()
    assert.equal(("ac"):rep(50000), text:match "\r\n\r\n(.*)$")
    assert.is_nil(text:lower():find("transfer-encoding", 1, true))
  end)

  it("keeps trailers", function()
    local server = net.listen(function(conn)
      http.request_head(conn)
      conn:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
      conn:expect_closed()
    end)
    local proxy = support.moongate.start { values = { BACKEND = server }, config = [[
      local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }
      function site.on_response(req, res) res.body:replace("b", "xyz") end
      return site
    ]] }
    local response = http.get(proxy.port, "/")
    assert.equal("axyzc", response.body)
    assert.equal("1", response.trailers["X-Sum"])
  end)

  it("is not there for HEAD, 204 and 304, and not for a part", function()
    answer_with("abc", { { "Content-Range", "bytes 0-2/9" } }, 206)
    local text = probe.response "res.body:replace('a', 'b')"
    assert(text:find("raised: .*partial"), text)
    assert.equal("abc", probe.exchange({ on_response = "res.headers.A = res.body:text()" }).headers.A)
    answer_with "abc"
    assert.equal("nil", changed("res.headers.A = tostring(res.body)", { method = "HEAD" }).headers.A)
  end)

  it("refuses what it cannot replace", function()
    for script, sentence in pairs {
      ["res.body:replace('', 'x')"] = "stands everywhere",
      ["res.body:replace('x')"] = "takes strings",
      ["res.body:replace({ 'x' })"] = "takes strings",
      ["res.body:replace('x', 'y', { plane = true })"] = "did you mean 'plain'",
      ["res.body:replace('x', 'y', { plain = 1 })"] = "plain is true or false",
      ["res.body:replace(('x'):rep(5000), 'y')"] = "at most 4096 bytes",
      ["res.body:replace('x', ('y'):rep(2000000))"] = "larger than 1 MiB",
      ["local t = {} for i = 1, 300 do t['x' .. i] = 'y' end res.body:replace(t)"] = "at most 256 texts",
    } do
      answer_with "abc"
      local text = probe.response(script)
      assert(text:find("raised: ", 1, true) and text:find(sentence, 1, true), script .. ": " .. text)
    end
  end)
end)

describe("body:map", function()
  support.setup(probe.start)

  it("replaces, drops and appends pieces", function()
    answer_with "abc"
    assert.equal("ABC", changed("res.body:map(function(piece) return piece and piece:upper() end)").body)
    assert.equal("abc!", changed("res.body:map(function(piece) return piece or '!' end)").body)
    assert.equal("", changed("res.body:map(function() end)").body)
    answer_with ""
    assert.equal("end", changed("res.body:map(function(piece) return piece == nil and 'end' or 'x' end)").body)
  end)

  it("gets pieces of at most 64 KiB, and nil once", function()
    answer_with(("x"):rep(300000))
    local response = changed [[
      local largest, total, ends = 0, 0, 0
      res.body:map(function(piece)
        if not piece then ends = ends + 1 return ("%d %s %d"):format(total, largest <= 65536, ends) end
        total, largest = total + #piece, math.max(largest, #piece)
      end)
    ]]
    assert.equal("300000 true 1", response.body)
  end)

  it("grows an answer at its reader's pace", function()
    answer_with(("x"):rep(200000))
    assert.equal(("xy"):rep(200000), changed("res.body:map(function(p) return p and p:gsub('x', 'xy') end)").body)
  end)

  it("may wait, and fetch", function()
    probe.answer = function(request)
      if request.target == "/name" then return 200, nil, "moon" end
      return 200, nil, { "hello, ", "NAME" }
    end
    local response = changed [[
      res.body:map(function(piece)
        gate.sleep(0.01)
        return piece and piece:gsub("NAME", gate.fetch("app", { path = "/name" }).body)
      end)
    ]]
    assert.equal("hello, moon", response.body)
  end)

  it("goes behind and before replace, in the order they were declared", function()
    answer_with "abc"
    local upper = "res.body:map(function(p) return p and p:upper() end)"
    assert.equal("ABC", changed("res.body:replace('B', 'x') " .. upper).body)
    assert.equal("AxC", changed(upper .. " res.body:replace('B', 'x')").body)
  end)

  it("changes a request, and waits while it does", function()
    local request = probe.forwarded([[
      req.body:map(function(piece) gate.sleep(0.001) return piece and piece:upper() or "." end)
    ]], { method = "POST", body = ("abc"):rep(50000) })
    assert.equal(("ABC"):rep(50000) .. ".", request.body)
  end)

  it("is a 502 when it fails before anything has left, and is told of in the log", function()
    answer_with "abc"
    for _, f in ipairs { "error 'oops'", "return 5", "return {}" } do
      local response = changed(("res.body:map(function() %s end)"):format(f))
      assert.equal(502, response.status)
    end
    probe.proxy:wait_log "body:map of .* failed .*oops"
    probe.proxy:wait_log "body:map of .* failed .*:%d+: the function returned a number; expected a string or nil"
  end)

  it("has a hook's budget for each call", function()
    local backend = http.backend("abc")
    local proxy = support.moongate.start { values = { BACKEND = backend }, config = [[
      local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }
      function site.on_response(req, res) res.body:map(function() while true do end end) end
      return site
    ]] }
    assert.equal(502, http.get(proxy.port, "/").status)
    proxy:wait_log "body:map of .* failed .*over its CPU budget"
  end)

  it("is a 500 when it fails on a request", function()
    local response = probe.exchange({ on_request = "req.body:map(function() error 'oops' end)" },
      { method = "POST", body = "abc" })
    assert.equal(500, response.status)
  end)

  it("tears an answer off that has begun, visibly", function()
    answer_with(("x"):rep(500000))
    local conn = net.connect(probe.port)
    local script = [[
      local n = 0
      res.body:map(function(piece) n = n + 1 if n > 3 then error "oops" end return piece end)
    ]]
    conn:send(("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"):format(probe.field("on_response", script)))
    assert.equal(200, http.response_head(conn).status)
    local text = conn:read_all()
    assert.is_nil(text:find("\r\n0\r\n\r\n$"))
    assert.is_true(#text < 500000)
  end)

  it("is closed when the client leaves while it waits", function()
    answer_with "abc"
    local conn = net.connect(probe.port)
    local script = [[
      res.body:map(function()
        local closed <close> = setmetatable({}, { __close = function() gate.log "closed the function" end })
        gate.log "waits in the function"
        gate.sleep(1000)
      end)
    ]]
    conn:send(("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"):format(probe.field("on_response", script)))
    probe.proxy:wait_log "waits in the function"
    conn:reset()
    probe.proxy:wait_log "closed the function"
  end)

  it("cannot read the body it makes, nor assign it", function()
    answer_with "abc"
    for _, script in ipairs { "res.body:text()", "for _ in res.body:chunks() do end", "res.body = 'x'" } do
      local response = changed(([[
        res.body:map(function(piece)
          if piece then local ok, why = pcall(function() %s end) return tostring(ok) .. why end
        end)
      ]]):format(script))
      assert(response.body:find "^false.*the function that changes", response.body)
    end
  end)

  it("ends with its policy", function()
    local backend = http.backend(("x"):rep(10))
    local proxy = support.moongate.start { values = { BACKEND = backend }, workers = 1, config = [[
      local gate = require "moongate"
      local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }
      function site.on_response(req, res)
        res.body:map(function(piece)
          if req.path == "/slow" and not piece then gate.log "waits" gate.sleep(1000) end
          return piece
        end)
      end
      return { sites = { site }, drain = 0.1 }
    ]] }
    local conn = net.connect(proxy.port)
    conn:send "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
    proxy:wait_log "waits"
    assert.equal(200, http.response_head(conn).status)
    proxy:reload()
    local text = conn:read_all()
    assert.is_nil(text:find("0\r\n\r\n$"))
    assert.equal(("x"):rep(10), http.get(proxy.port, "/").body)
  end)
end)

describe("a body with a content coding", function()
  support.setup(probe.start)

  local plain = ("the quick brown fox "):rep(500)
  local takes = { { "Accept-Encoding", "gzip, br, zstd, deflate" } }

  local function answer_coded(name, text)
    answer_with(coding.encode(name, text or plain), { { "Content-Encoding", name }, { "ETag", '"x"' } })
  end

  it("is decoded for text and chunks, and goes on as it came", function()
    for _, name in ipairs { "gzip", "deflate", "br", "zstd" } do
      answer_coded(name)
      local response = changed([[
        local parts = {}
        for piece in res.body:chunks() do parts[#parts + 1] = piece end
        res.headers["X-Size"] = ("%d %d"):format(#res.body:text(), #table.concat(parts))
      ]], { headers = takes })
      assert.equal("10000 10000", response.headers["X-Size"])
      assert.equal(name, response.headers["Content-Encoding"])
      assert.equal('"x"', response.headers["ETag"])
      assert.equal(coding.encode(name, plain), response.body)
    end
  end)

  it("is decoded for replace and map, and coded again for who takes that", function()
    for _, name in ipairs { "gzip", "deflate", "br", "zstd" } do
      for _, script in ipairs {
        "res.body:replace('fox', 'dog')",
        "res.body:text() res.body:replace('fox', 'dog')",
        "local all = {} res.body:map(function(p) all[#all + 1] = p" ..
          " if not p then return (table.concat(all):gsub('fox', 'dog')) end end)",
      } do
        answer_coded(name)
        local response = changed(script, { headers = takes })
        assert.equal(name, response.headers["Content-Encoding"])
        assert.same({ "done", (plain:gsub("fox", "dog")) }, { coding.decode(name, response.body) })
        assert.equal("Accept-Encoding", response.headers["Vary"])
        assert.equal("nil", tostring(response.headers["ETag"]))
        response = changed(script)
        assert.equal("nil", tostring(response.headers["Content-Encoding"]))
        assert.equal((plain:gsub("fox", "dog")), response.body)
      end
    end
  end)

  it("is sent plain when the script says so", function()
    answer_coded "gzip"
    local response = changed("res.body:replace('fox', 'dog', { plain = true })", { headers = takes })
    assert.equal((plain:gsub("fox", "dog")), response.body)
    assert.equal("nil", tostring(response.headers["Content-Encoding"]))
  end)

  it("is told of as broken: a word for text, a 502 for what is changed", function()
    local bytes = coding.encode("gzip", plain)
    answer_with(bytes:sub(1, -5), { { "Content-Encoding", "gzip" } })
    local response = changed "local t, word = res.body:text() res.headers['X-Word'] = word"
    assert.equal("bad_response_content", response.headers["X-Word"])
    answer_with("nonsense", { { "Content-Encoding", "gzip" } })
    assert.equal(502, changed("res.body:replace('a', 'b')").status)
    local text = probe.response "for _ in res.body:chunks() do end"
    assert(text:find("raised: .*bad_response_content"), text)
  end)

  it("is refused when nobody knows it", function()
    answer_with("abc", { { "Content-Encoding", "compress" } })
    assert.equal("unknown_coding", changed("local t, w = res.body:text() res.headers.W = w").headers.W)
    for _, script in ipairs { "res.body:replace('a', 'b')", "res.body:map(print)", "res.body:chunks()" } do
      local text = probe.response(script)
      assert(text:find("raised: .*unknown_coding"), text)
    end
  end)

  it("is bounded by max when it is read, decoded", function()
    answer_coded("gzip", ("x"):rep(3000000))
    assert.equal("too_large", changed("local t, w = res.body:text() res.headers.W = w").headers.W)
    assert.equal("3000000", changed("res.headers.W = #res.body:text '3M'").headers.W)
  end)

  -- A byte at a time it is the write of four million bytes, which are allowed, that takes long.
  local it_in_time = support.process.preset == "hard" and function() end or it
  it_in_time("ends as a bomb", function()
    answer_coded("gzip", ("\0"):rep(64 << 20))
    local conn = net.connect(probe.port)
    conn:send(("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"):format(
      probe.field("on_response", "res.body:replace('a', 'b')")))
    local text = conn:read_all()
    assert.is_true(#text < 32 << 20)
  end)

  it("is decoded in a request, and coded again", function()
    for _, name in ipairs { "gzip", "br" } do
      local options = {
        method = "POST", body = coding.encode(name, plain), headers = { { "Content-Encoding", name } },
      }
      local request = probe.forwarded("req.headers['X-Size'] = #req.body:text()", options)
      assert.equal("10000", request.headers["X-Size"])
      assert.equal(options.body, request.body)
      request = probe.forwarded("req.body:replace('fox', 'dog')", options)
      assert.equal(name, request.headers["Content-Encoding"])
      assert.same({ "done", (plain:gsub("fox", "dog")) }, { coding.decode(name, request.body) })
      request = probe.forwarded("req.body:replace('fox', 'dog', { plain = true })", options)
      assert.equal((plain:gsub("fox", "dog")), request.body)
    end
    local broken = { method = "POST", body = "nonsense", headers = { { "Content-Encoding", "gzip" } } }
    assert.equal(400, probe.exchange({ on_request = "req.body:replace('a', 'b')" }, broken).status)
    assert.equal("bad_content", probe.request("local t, word = req.body:text() return word", broken))
  end)

  it("is cut anywhere by its server", function()
    local bytes = coding.encode("gzip", "one two three")
    for cut = 1, #bytes - 1 do
      probe.answer = function()
        return 200, { { "Content-Encoding", "gzip" } }, { bytes:sub(1, cut), bytes:sub(cut + 1) }
      end
      assert.equal("one 2 three", changed("res.body:replace('two', '2')").body)
    end
  end)
end)
