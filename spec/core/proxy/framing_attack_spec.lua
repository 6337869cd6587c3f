-- Request smuggling and its relatives: whatever two readers could read differently never reaches a backend, and
-- the conn it came on ends.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

describe("a request that can be read in two ways", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = [[
      return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND", keepalive = 0 } } }
    ]] }
  end)

  local smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

  -- Sends the head (and what follows); it must be refused with that status, the conn must end, and the backend must not
  -- have heard of it.
  local function refused(bytes, status)
    local before = backend.accepted
    local client = net.connect(gate.port)
    client:send(bytes)
    client:post(smuggled)
    local response = http.response(client)
    assert.equal(status or 400, response.status)
    assert.equal("close", response.headers.Connection)
    assert.matches("request %x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x\n$", response.body)
    client:expect_closed()
    assert.equal(before, backend.accepted)
  end

  local function post(lines, body)
    return "POST /x HTTP/1.1\r\nHost: a\r\n" .. lines .. "\r\n" .. (body or "")
  end

  describe("by its framing is refused:", function()
    local shapes = {
      { "a length beside chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" },
      { "chunks beside a length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" },
      { "two lengths that differ", "Content-Length: 5\r\nContent-Length: 6\r\n" },
      { "two lengths that agree", "Content-Length: 5\r\nContent-Length: 5\r\n" },
      { "two lengths in a list", "Content-Length: 5, 5\r\n" },
      { "a length with a sign", "Content-Length: +5\r\n" },
      { "a negative length", "Content-Length: -5\r\n" },
      { "a hexadecimal length", "Content-Length: 0x5\r\n" },
      { "an empty length", "Content-Length:\r\n" },
      { "a length with a space in it", "Content-Length: 1 0\r\n" },
      { "a length beyond 64 bits", "Content-Length: 18446744073709551621\r\n" },
      { "a length beyond 63 bits", "Content-Length: 9223372036854775808\r\n" },
      { "a length with a comma behind it", "Content-Length: 5,\r\n" },
      { "chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" },
      { "chunked twice in a list", "Transfer-Encoding: chunked, chunked\r\n" },
      { "chunked and then identity", "Transfer-Encoding: chunked, identity\r\n" },
      { "another coding before chunked", "Transfer-Encoding: gzip, chunked\r\n", 501 },
      { "another coding alone", "Transfer-Encoding: gzip\r\n", 501 },
      { "identity", "Transfer-Encoding: identity\r\n", 501 },
      { "an empty coding", "Transfer-Encoding:\r\n", 501 },
      { "chunked in quotes", "Transfer-Encoding: \"chunked\"\r\n", 501 },
      { "chunked with a parameter", "Transfer-Encoding: chunked;q=1\r\n", 501 },
      { "xchunked", "Transfer-Encoding: xchunked\r\n", 501 },
      { "chunked behind a vertical tab", "Transfer-Encoding: \vchunked\r\n" },
      { "a space before the colon", "Transfer-Encoding : chunked\r\n" },
      { "a tab before the colon", "Content-Length\t: 5\r\n" },
      { "a fold", "Transfer-Encoding:\r\n chunked\r\n" },
      { "a fold behind a value", "X-A: b\r\n Content-Length: 5\r\n" },
      { "a fold behind the request line", " X-A: b\r\n" },
      { "a coding behind a bare LF", "X-A: b\nTransfer-Encoding: chunked\r\n" },
      { "a coding behind a bare CR", "X-A: b\rTransfer-Encoding: chunked\r\n" },
      { "a NUL in a value", "X-A: b\0c\r\n" },
      { "a NUL in a name", "X-\0A: b\r\n" },
      { "a line without a colon", "Transfer-Encoding\r\n" },
      { "an empty name", ": chunked\r\n" },
      { "a name beyond ASCII", "X-\xc3\xa4: 1\r\n" },
      { "a name with a space in it", "X A: 1\r\n" },
      { "a DEL in a value", "X-A: \127\r\n" },
      { "two hosts", "Host: b\r\n" },
    }
    for _, shape in ipairs(shapes) do
      it(shape[1], function() refused(post(shape[2], "0\r\n\r\n"), shape[3]) end)
    end

    it("chunks in HTTP/1.0", function()
      refused "POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    end)
  end)

  describe("by its request line is refused:", function()
    local shapes = {
      { "two spaces before the target", "GET  / HTTP/1.1" },
      { "two spaces behind the target", "GET /  HTTP/1.1" },
      { "a tab between the parts", "GET\t/ HTTP/1.1" },
      { "a space in the target", "GET /a b HTTP/1.1" },
      { "a space at the beginning", " GET / HTTP/1.1" },
      { "a space at the end", "GET / HTTP/1.1 " },
      { "no version", "GET /" },
      { "no target", "GET HTTP/1.1" },
      { "a version in lower case", "GET / http/1.1" },
      { "a version with two digits", "GET / HTTP/1.10" },
      { "a method that is no token", "G(T / HTTP/1.1" },
      { "a fragment", "GET /a#b HTTP/1.1" },
      { "a target without a slash", "GET a HTTP/1.1" },
      { "* for another method than OPTIONS", "GET * HTTP/1.1" },
      { "a scheme that is not served", "GET ftp://a/ HTTP/1.1" },
      { "user information", "GET http://b@a/ HTTP/1.1" },
      { "a NUL in the target", "GET /\0 HTTP/1.1" },
      { "an escaped NUL in the path", "GET /%00 HTTP/1.1" },
      { "a broken escape in the path", "GET /%zz HTTP/1.1" },
      { "a version above 1.1", "GET / HTTP/1.2", 505 },
      { "HTTP/2.0", "GET / HTTP/2.0", 505 },
      { "HTTP/0.9", "GET / HTTP/0.9", 505 },
      { "CONNECT", "CONNECT a:443 HTTP/1.1", 501 },
    }
    for _, shape in ipairs(shapes) do
      it(shape[1], function() refused(shape[2] .. "\r\nHost: a\r\n\r\n", shape[3]) end)
    end

    it("lines that end in LF only", function() refused "GET / HTTP/1.1\nHost: a\n\n" end)
    it("a CR before CRLF", function() refused "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n" end)
  end)

  describe("by its host is refused:", function()
    for name, line in pairs {
      ["none in HTTP/1.1"] = "", ["an empty one"] = "Host:\r\n",
      ["with a path"] = "Host: a/b\r\n", ["with user information"] = "Host: b@a\r\n",
      ["with a bad port"] = "Host: a:99999\r\n", ["with a comma"] = "Host: a, b\r\n",
      ["with a space"] = "Host: a b\r\n",
      ["with an escape"] = "Host: %61\r\n", ["with a broken IPv6 address"] = "Host: [::g]\r\n",
    } do
      it(name, function() refused("GET / HTTP/1.1\r\n" .. line .. "\r\n") end)
    end
  end)

  -- A body that goes wrong is found while it flows: the backend must see that it is not whole.
  describe("by its chunks never looks complete to the backend:", function()
    local shapes = {
      { "a size that overflows", "fffffffffffffffff\r\n" },
      { "a size above 2^63", "8000000000000000\r\n" },
      { "a negative size", "-1\r\nx\r\n" },
      { "a size with 0x", "0x1\r\nx\r\n" },
      { "an empty size", "\r\nx\r\n" },
      { "a size with a space before it", " 1\r\nx\r\n" },
      { "a size that ends in LF only", "1\nx\r\n" },
      { "a chunk that is longer than its size", "1\r\nxy\r\n" },
      { "a chunk that ends in LF only", "1\r\nx\n0\r\n\r\n" },
      { "a chunk without CRLF", "1\r\nx0\r\n\r\n" },
      { "a bare LF in an extension", "1;a\nb\r\nx\r\n" },
      { "a bare CR in an extension", "1;a\rb\r\nx\r\n" },
      { "an extension without a name", "1;=b\r\nx\r\n" },
      { "a NUL in an extension", "1;a=\0\r\nx\r\n" },
      { "extensions without end", "1;" .. ("a"):rep(5000) .. "\r\nx\r\n" },
      { "a trailer with a bare LF", "0\r\nX: y\n\r\n" },
      { "a trailer with a fold", "0\r\nX: y\r\n z\r\n\r\n" },
      { "a trailer without a colon", "0\r\nX\r\n\r\n" },
      { "trailers without end", "0\r\n" .. ("X: y\r\n"):rep(2000) .. "\r\n" },
    }
    for _, shape in ipairs(shapes) do
      it(shape[1], function()
        local client = net.connect(gate.port)
        client:send "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        local conn = backend:accept()
        http.request_head(conn)
        assert.equal("first", http.content(conn, 5))
        client:send(shape[2])
        client:post(smuggled)
        local response = http.response(client)
        assert.equal(400, response.status)
        assert.matches("request %x+\n$", response.body)
        client:expect_closed()
        support.eventually("the backend's conn to end", function() return conn.eof or conn.lost end)
        assert.is_nil(conn:pending():find "0\r\n\r\n$")
        assert.equal(0, #backend.waiting)
      end)
    end
  end)

  it("in what it leaves behind its chunks is a request of its own", function()
    local client = net.connect(gate.port)
    client:send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX" .. smuggled)
    local conn = backend:accept()
    assert.equal("/x", http.request(conn).target)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert.equal(200, http.response(client).status)
    local second = backend:accept()
    assert.equal("XGET", http.request(second).method)
    second:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    http.response(client)
  end)

  it("loses its chunk extensions on the way", function()
    local client = net.connect(gate.port)
    client:send(post("Transfer-Encoding: chunked\r\n", "1;a=b;c=\"d\"\r\nx\r\n0;last\r\n\r\n"))
    local conn = backend:accept()
    http.request_head(conn)
    assert.equal("1\r\nx\r\n0\r\n\r\n", conn:read_until "0\r\n\r\n")
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    http.response(client)
  end)

  it("has neither two lengths nor two codings when it was in capitals", function()
    local client = net.connect(gate.port)
    client:send(post("TRANSFER-ENCODING: Chunked\r\n", "1\r\nx\r\n0\r\n\r\n"))
    local conn = backend:accept()
    local request = http.request(conn)
    assert.same({ "chunked" }, request.headers:all "Transfer-Encoding")
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    http.response(client)
  end)
end)

describe("a response that can be read in two ways", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = [[
      return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }
    ]] }
  end)

  local shapes = {
    { "a length beside chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" },
    { "two lengths that differ", "Content-Length: 5\r\nContent-Length: 6\r\n" },
    { "a length that is no number", "Content-Length: 5x\r\n" },
    { "an unknown coding", "Transfer-Encoding: gzip\r\n" },
    { "chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" },
    { "a fold", "X-A: b\r\n c\r\n" },
    { "a bare LF", "X-A: b\nX-C: d\r\n" },
    { "a NUL", "X-A: \0\r\n" },
    { "a space before a colon", "Content-Length : 5\r\n" },
  }
  for _, shape in ipairs(shapes) do
    it("is answered 502 in its place: " .. shape[1], function()
      local client = net.connect(gate.port)
      client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
      local conn = backend:accept()
      http.request(conn)
      conn:send("HTTP/1.1 200 OK\r\n" .. shape[2] .. "\r\nhello")
      local response = http.response(client)
      assert.equal(502, response.status)
      assert.matches("request %x+\n$", response.body)
      support.eventually("the backend's conn to end", function() return conn.eof or conn.lost end)
    end)
  end

  it("in HTTP/1.0 with chunks is answered 502", function()
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    conn:send "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert.equal(502, http.response(client).status)
  end)
end)
