-- `compress`: what is compressed, for whom, and what its head then says.

local support = require "support"
local coding = require("moongate_core").coding
local it, http, net = support.it, support.http, support.net
-- In the hard build bytes come one by one, and some calls are refused: not for what asks for pieces or times.
local it_whole = support.process.preset == "hard" and pending or it

local page = ("<p>the moon</p>\n"):rep(500)

describe("compress", function()
  local answer, proxy, backend

  support.setup(function()
    backend = http.backend(function(request) return answer(request) end)
    proxy = support.moongate.start { values = { BACKEND = backend }, config = [[
      local gate = require "moongate"
      local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } }, compress = true }
      function site.on_request(req)
        if req.path == "/reply" then return gate.reply(200, ("moon "):rep(1000)) end
      end
      function site.on_response(req, res)
        if req.path == "/replace" then res.body:replace("moon", "sun") end
      end
      return site
    ]] }
  end)

  before_each(function()
    answer = function() return 200, { { "Content-Type", "text/html; charset=utf-8" }, { "ETag", '"x"' } }, page end
  end)

  local function get(accepts, target, more)
    local headers = more or {}
    if accepts then headers[#headers + 1] = { "Accept-Encoding", accepts } end
    return http.get(proxy.port, target or "/", { headers = headers })
  end

  local function coded(response) return response.headers["Content-Encoding"] end

  it_whole("chooses what the client likes best, and the site prefers", function()
    for accepts, name in pairs {
      ["gzip"] = "gzip", ["gzip, br"] = "br", ["gzip, deflate, br, zstd"] = "zstd", ["br;q=0.5, gzip"] = "gzip",
    } do
      local response = get(accepts)
      assert.equal(name, coded(response))
      assert.same({ "done", page }, { coding.decode(name, response.body) })
      assert.is_true(#response.body < #page / 5)
    end
  end)

  it("says that the answer depends on what is accepted, also where it is not coded", function()
    assert.equal("Accept-Encoding", get("gzip").headers["Vary"])
    assert.equal("Accept-Encoding", get(nil).headers["Vary"])
    assert.equal("nil", tostring(coded(get(nil))))
    answer = function() return 200, { { "Content-Type", "text/html" }, { "Vary", "Cookie" } }, page end
    assert.equal("Cookie, Accept-Encoding", get("gzip").headers["Vary"])
    answer = function() return 200, { { "Content-Type", "text/html" }, { "Vary", "accept-encoding" } }, page end
    assert.equal("accept-encoding", get("gzip").headers["Vary"])
  end)

  it("weakens the ETag, and drops what tells of bytes", function()
    answer = function()
      return 200, {
        { "Content-Type", "text/html" }, { "ETag", '"x"' }, { "Accept-Ranges", "bytes" }, { "Repr-Digest", "x" },
      }, page
    end
    local response = get "gzip"
    assert.equal('W/"x"', response.headers["ETag"])
    assert.equal("nil", tostring(response.headers["Accept-Ranges"]))
    assert.equal("nil", tostring(response.headers["Repr-Digest"]))
    assert.equal("nil", tostring(response.headers["Content-Length"]))
    assert.equal('"x"', get(nil).headers["ETag"])
  end)

  it("leaves alone what is no text, short, coded, a part, or not to be transformed", function()
    local html = { "Content-Type", "text/html" }
    for _, case in ipairs {
      { 200, { { "Content-Type", "image/png" } }, page },
      { 200, {}, page },
      { 200, { html }, ("x"):rep(1023) },
      { 200, { html, { "Content-Encoding", "br" } }, coding.encode("br", page) },
      { 206, { html, { "Content-Range", "bytes 0-7999/9000" } }, page },
      { 200, { html, { "Cache-Control", "public, no-transform" } }, page },
      { 204, { html } }, { 304, { html } },
    } do
      answer = function() return case[1], case[2], case[3] end
      local response = get "gzip"
      assert.equal(case[1], response.status)
      assert.equal(case[3] or "", response.body)
    end
    answer = function() return 200, { html }, ("x"):rep(1024) end
    assert.equal("gzip", coded(get "gzip"))
  end)

  it("compresses replies of scripts and pages for errors, with their length", function()
    local response = get("gzip", "/reply")
    assert.equal("gzip", coded(response))
    assert.equal(tostring(#response.body), response.headers["Content-Length"])
    assert.same({ "done", ("moon "):rep(1000) }, { coding.decode("gzip", response.body) })
  end)

  it("compresses what was changed", function()
    local response = get("gzip", "/replace")
    assert.same({ "done", (page:gsub("moon", "sun")) }, { coding.decode("gzip", response.body) })
  end)

  it("tells HEAD what GET would get, but for a length that nobody knows (RFC 9110 9.3.2)", function()
    local full = get("gzip")
    local response = http.exchange(proxy.port, "HEAD", "/", { headers = { { "Accept-Encoding", "gzip" } } })
    assert.equal("Accept-Encoding", response.headers["Vary"])
    assert.equal("gzip", coded(response))
    assert.equal(full.headers.ETag, response.headers.ETag)
    assert.is_nil(response.headers["Content-Length"])
    local plain = http.exchange(proxy.port, "HEAD", "/")
    assert.is_nil(coded(plain))
    assert.equal(tostring(#page), plain.headers["Content-Length"])
  end)

  it("does not speak in codings to HTTP/1.0", function()
    local conn = net.connect(proxy.port)
    conn:send "GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n"
    assert.equal(page, conn:read_all():match "\r\n\r\n(.*)$")
  end)

  it_whole("sends each piece on when it comes", function()
    local server = net.listen()
    local slow = support.moongate.start { values = { BACKEND = server }, config = [[
      return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } },
               compress = { types = { "text/*" }, codings = "gzip", min = 0, level = 9 } }
    ]] }
    local client = net.connect(slow.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n"
    local conn = server:accept()
    http.request_head(conn)
    conn:send "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert.equal("gzip", http.response_head(client).headers["Content-Encoding"])
    local bytes = ""
    for i = 1, 5 do
      conn:send(http.encode_chunk(("data: %d\n\n"):format(i)))
      bytes = bytes .. http.chunk(client)
      local _, text = coding.decode("gzip", bytes)
      assert.equal(("data: %d\n\n"):format(i), text:sub(-9))
    end
    conn:send "0\r\n\r\n"
  end)

  it("is what curl takes apart", function()
    for _, accepts in ipairs { "gzip", "br", "zstd", "deflate" } do
      local status, out = support.run { "curl", "-sS", "--compressed", "-H", "Accept-Encoding: " .. accepts,
        ("http://127.0.0.1:%d/"):format(proxy.port) }
      assert.equal(0, status)
      assert.equal(page, out)
    end
  end)

  it("is refused with settings that are none", function()
    for setting, sentence in pairs {
      ["'yes'"] = "true or a table", ["{ types = {} }"] = "1 to 32 media types", ["{ types = 'html' }"] = "media type",
      ["{ codings = {} }"] = "the preferred first", ["{ codings = { 'lzma' } }"] = "deflate",
      ["{ codings = { 'br', 'br' } }"] = "twice", ["{ level = 10 }"] = "level", ["{ mim = 1 }"] = "min",
    } do
      local path = support.temp_dir() .. "/moongate.lua"
      local file <close> = assert(io.open(path, "w"))
      file:write("return { listen = '127.0.0.1:1', compress = " .. setting .. " }")
      file:close()
      local status, _, err = support.moongate.run { "check", path }
      assert.equal(1, status)
      assert(err:find(sentence, 1, true), setting .. ": " .. err)
    end
  end)
end)

-- Sanitizers keep freed memory, and byte by byte it would take minutes.
local preset = support.process.preset
local it_plainly = (preset == "debug" or preset == "release") and it or function() end

describe("a body that is changed", function()
  it_plainly("takes constant memory, however long it is and slow its reader", function()
    local size = preset == "release" and 512 << 20 or 64 << 20
    local piece, sent = ("the moon "):rep(7281), 0
    local count = size // #piece
    local backend = net.listen(function(conn)
      http.request_head(conn)
      conn:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(#piece * count))
      for i = 1, count do
        conn:send(piece, 60)
        sent = i
      end
      conn:expect_closed()
    end)
    local proxy = support.moongate.start { values = { BACKEND = backend }, workers = 1, config = [[
      local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }
      function site.on_response(req, res)
        res.body:replace("moon", "sunshine"):map(function(piece) return piece end)
      end
      return site
    ]] }
    local client = net.connect(proxy.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    client:read_until "sunshine"
    client:stop_reading()
    local before
    support.eventually("the backend to be stopped", function()
      local stopped = before == sent
      before = sent
      support.sleep(0.2)
      return stopped and before == sent
    end)
    assert.is_true(sent * #piece < 32 << 20)
    local rss = proxy:rss()
    client:start_reading()
    local n, looked = 0, 0
    while true do
      local bytes = client:read_some()
      if not bytes or bytes:sub(-5) == "0\r\n\r\n" then break end
      n = n + #bytes
      if n - looked > 16 << 20 then
        assert.is_true(proxy:rss() - rss < 32 << 20)
        looked = n
      end
    end
    assert.is_true(n > #piece * count)
  end)
end)
