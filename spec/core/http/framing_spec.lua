-- How a message is delimited, whether its connection lasts, and what ends at this hop.

local http = require "moongate_core".http

local function request(fields, start)
  local r = http.read_request((start or "POST / HTTP/1.1") .. "\r\n" .. fields:gsub("\n", "\r\n") .. "\r\n")
  if r.result ~= "done" then return { framing = r.why } end
  return r
end

local function response(fields, method, start)
  local r = http.read_response((start or "HTTP/1.1 200 OK") .. "\r\n" .. fields:gsub("\n", "\r\n") .. "\r\n", nil,
    method)
  if r.result ~= "done" then return { framing = r.why } end
  return r
end

local H = "Host: x\n"

local function hops(r)
  local out = {}
  for _, field in ipairs(r.headers) do if field.hop then out[#out + 1] = field[1] end end
  return out
end

describe("the framing of a request", function()
  local lengths = {
    { "without fields is none", "", "none", 0 },
    { "is its Content-Length", "Content-Length: 5\n", "length", 5 },
    { "takes 0 as a length", "Content-Length: 0\n", "length", 0 },
    { "takes leading zeros", "Content-Length: 0005\n", "length", 5 },
    { "takes the largest length", "Content-Length: 9223372036854775807\n", "length", math.maxinteger },
    { "takes the name in any case", "content-LENGTH: 5\n", "length", 5 },
    { "takes white space round the value", "Content-Length: \t 5  \n", "length", 5 },
    { "is chunked", "Transfer-Encoding: chunked\n", "chunked", 0 },
    { "is chunked in any case", "transfer-encoding:  CHUNKED \n", "chunked", 0 },
  }
  for _, case in ipairs(lengths) do
    it(case[1], function()
      local r = request(H .. case[2])
      assert.equal("ok", r.framing)
      assert.equal(case[3], r.kind)
      assert.equal(case[4], r.length)
    end)
  end

  local refused = {
    { "both a length and a coding", "Content-Length: 5\nTransfer-Encoding: chunked\n", "bad_framing" },
    { "both in the other order", "Transfer-Encoding: chunked\nContent-Length: 5\n", "bad_framing" },
    { "a length of 0 and a coding", "Transfer-Encoding: chunked\nContent-Length: 0\n", "bad_framing" },
    { "a length and a coding that is unknown", "Content-Length: 5\nTransfer-Encoding: x\n", "bad_framing" },
    { "two lengths", "Content-Length: 5\nContent-Length: 6\n", "bad_framing" },
    { "two lengths that agree", "Content-Length: 5\nContent-Length: 5\n", "bad_framing" },
    { "a list of lengths", "Content-Length: 5, 5\n", "bad_framing" },
    { "an empty length", "Content-Length:\n", "bad_framing" },
    { "a blank length", "Content-Length:  \n", "bad_framing" },
    { "a length with a sign", "Content-Length: +5\n", "bad_framing" },
    { "a negative length", "Content-Length: -5\n", "bad_framing" },
    { "a hexadecimal length", "Content-Length: 0x5\n", "bad_framing" },
    { "a fractional length", "Content-Length: 5.0\n", "bad_framing" },
    { "an exponent", "Content-Length: 5e1\n", "bad_framing" },
    { "a length with a space inside", "Content-Length: 5 5\n", "bad_framing" },
    { "a length with a unit", "Content-Length: 5 bytes\n", "bad_framing" },
    { "a length in quotes", "Content-Length: \"5\"\n", "bad_framing" },
    { "a length behind a comma", "Content-Length: ,5\n", "bad_framing" },
    { "a length before a comma", "Content-Length: 5,\n", "bad_framing" },
    { "a length of 2^63", "Content-Length: 9223372036854775808\n", "bad_framing" },
    { "a length of 2^64 + 5", "Content-Length: 18446744073709551621\n", "bad_framing" },
    { "a length of forty digits", "Content-Length: " .. ("1"):rep(40) .. "\n", "bad_framing" },
    { "a length in other digits", "Content-Length: \xd9\xa5\n", "bad_framing" },
    { "gzip", "Transfer-Encoding: gzip\n", "bad_coding" },
    { "gzip before chunked", "Transfer-Encoding: gzip, chunked\n", "bad_coding" },
    { "gzip behind chunked (RFC 9112 6.3)", "Transfer-Encoding: chunked, gzip\n", "bad_framing" },
    { "gzip behind chunked in another line", "Transfer-Encoding: chunked\nTransfer-Encoding: gzip\n", "bad_framing" },
    { "identity", "Transfer-Encoding: identity\n", "bad_coding" },
    { "chunked twice", "Transfer-Encoding: chunked, chunked\n", "bad_framing" },
    { "chunked in two lines", "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n", "bad_framing" },
    { "identity and chunked in two lines", "Transfer-Encoding: identity\nTransfer-Encoding: chunked\n",
    "bad_coding" },
    { "chunked with a parameter", "Transfer-Encoding: chunked;a=b\n", "bad_coding" },
    { "chunked in quotes", "Transfer-Encoding: \"chunked\"\n", "bad_coding" },
    { "chunked behind a comma", "Transfer-Encoding: ,chunked\n", "bad_coding" },
    { "chunked before a comma", "Transfer-Encoding: chunked,\n", "bad_coding" },
    { "xchunked", "Transfer-Encoding: xchunked\n", "bad_coding" },
    { "an empty coding", "Transfer-Encoding:\n", "bad_coding" },
  }
  for _, case in ipairs(refused) do
    it("refuses " .. case[1], function() assert.equal(case[3], request(H .. case[2]).framing) end)
  end

  it("knows no coding in HTTP/1.0", function()
    assert.equal("bad_framing", request(H .. "Transfer-Encoding: chunked\n", "POST / HTTP/1.0").framing)
    assert.equal("length", request("Content-Length: 5\n", "POST / HTTP/1.0").kind)
  end)

  it("lets a CONNECT have no content", function()
    local connect = "CONNECT x:1 HTTP/1.1"
    assert.equal("bad_framing", request(H .. "Content-Length: 5\n", connect).framing)
    assert.equal("bad_framing", request(H .. "Transfer-Encoding: chunked\n", connect).framing)
    assert.equal("none", request(H .. "Content-Length: 0\n", connect).kind)
    assert.equal("ok", request(H, connect).framing)
  end)
end)

describe("the Host of a request", function()
  it("is needed once in HTTP/1.1 and at most once in 1.0", function()
    assert.equal("bad_host", request("").framing)
    assert.equal("bad_host", request("Host: x\nHost: x\n").framing)
    assert.equal("bad_host", request("Host: x\nhost: y\n").framing)
    assert.equal("ok", request("", "GET / HTTP/1.0").framing)
    assert.equal("ok", request(H, "GET / HTTP/1.0").framing)
    assert.equal("bad_host", request(H .. H, "GET / HTTP/1.0").framing)
    assert.equal("bad_host", request("A: b\n", "GET http://x/ HTTP/1.1").framing)
  end)

  for _, host in ipairs { "", "a b", "a,b", "a/b", "a@b", "http://a", "a:b", "a:0", "a:99999", "a:-1", ":80", "[::1",
    "::1", "a%00b", "a\"", "a:80:80",
    "\xc3\xa4", "a?b", "a#b", "[::1]x", "[::1]:", "<a>" } do
    local valid = host == "[::1]:"
    it(("%s be %q"):format(valid and "may" or "may not", host), function()
      assert.equal(valid and "ok" or "bad_host", request("Host: " .. host .. "\n").framing)
    end)
  end
end)

describe("an Expect", function()
  it("asks to continue when a body follows", function()
    assert.is_true(request(H .. "Content-Length: 5\nExpect: 100-continue\n").expect_continue)
    assert.is_true(request(H .. "Transfer-Encoding: chunked\nexpect: 100-Continue\n").expect_continue)
    assert.is_false(request(H .. "Expect: 100-continue\n").expect_continue)
    assert.is_false(request(H .. "Content-Length: 0\nExpect: 100-continue\n").expect_continue)
    assert.is_false(request(H .. "Content-Length: 5\n").expect_continue)
  end)

  it("of anything else cannot be met", function()
    for _, value in ipairs { "200-ok", "100-continue, x", "100", "continue", "100-continue;a", "\"100-continue\"" } do
      assert.equal("expectation", request(H .. "Content-Length: 5\nExpect: " .. value .. "\n").framing)
    end
    assert.equal("expectation", request(H .. "Content-Length: 5\nExpect: 100-continue\nExpect: x\n").framing)
  end)

  it("means nothing in HTTP/1.0", function()
    local r = request("Content-Length: 5\nExpect: x\n", "POST / HTTP/1.0")
    assert.equal("ok", r.framing)
    assert.is_false(r.expect_continue)
  end)
end)

describe("a connection", function()
  local cases = {
    { 1, "", true }, { 1, "close", false }, { 1, "Close", false }, { 1, "keep-alive", true },
    { 1, "keep-alive, close", false },
    { 1, "x, close ,y", false }, { 1, "closed", true }, { 1, ",close", false },
    { 0, "", false }, { 0, "keep-alive", true }, { 0, "Keep-Alive", true }, { 0, "close", false },
    { 0, "keep-alive, close", false },
    { 0, "x", false },
  }
  for _, case in ipairs(cases) do
    it(("%s behind HTTP/1.%d with %q"):format(case[3] and "lasts" or "ends", case[1], case[2]), function()
      local fields = "Content-Length: 0\n" .. (case[2] ~= "" and "Connection: " .. case[2] .. "\n" or "")
      assert.equal(case[3], request(H .. fields, "GET / HTTP/1." .. case[1]).keep_alive)
      assert.equal(case[3], response(fields, "GET", ("HTTP/1.%d 200 OK"):format(case[1])).keep_alive)
    end)
  end

  it("ends when any of several lines says so", function()
    assert.is_false(request(H .. "Connection: a\nConnection: close\n").keep_alive)
  end)
end)

describe("an upgrade", function()
  it("needs the field and the option", function()
    local r = request(H .. "Connection: keep-alive, Upgrade\nUpgrade: websocket\n", "GET / HTTP/1.1")
    assert.is_true(r.upgrade)
    assert.equal("websocket", r.upgrade_value)
    assert.is_false(request(H .. "Upgrade: websocket\n").upgrade)
    assert.is_nil(request(H .. "Upgrade: websocket\n").upgrade_value)
    assert.is_false(request(H .. "Connection: upgrade\n").upgrade)
    assert.is_false(request(H .. "Connection: upgrade\nUpgrade:\n").upgrade)
    assert.is_false(request("Connection: upgrade\nUpgrade: websocket\n", "GET / HTTP/1.0").upgrade)
  end)

  it("to HTTP is as if it had not been asked for", function()
    for _, value in ipairs { "h2c", "H2C", "h2", "HTTP/2.0", "websocket, h2c", "h2c, websocket", "http/1.1" } do
      local r = request(H .. "Connection: Upgrade, HTTP2-Settings\nHTTP2-Settings: x\nUpgrade: " .. value .. "\n")
      assert.equal("ok", r.framing)
      assert.is_false(r.upgrade)
    end
    assert.is_true(request(H .. "Connection: upgrade\nUpgrade: h2cx\n").upgrade)
  end)

  it("happens with a 101 that says what to", function()
    assert.is_true(response("Connection: upgrade\nUpgrade: websocket\n", "GET", "HTTP/1.1 101 x").upgrade)
    assert.equal("bad_response", response("", "GET", "HTTP/1.1 101 x").framing)
    assert.equal("bad_response", response("Upgrade: websocket\n", "GET", "HTTP/1.1 101 x").framing)
    assert.equal("bad_response", response("Connection: upgrade\nUpgrade: h2c\n", "GET", "HTTP/1.1 101 x").framing)
    assert.is_false(response("Connection: upgrade\nUpgrade: websocket\n", "GET", "HTTP/1.1 200 x").upgrade)
  end)
end)

describe("what ends at this hop", function()
  it("is Connection and all that belongs to it, in any case", function()
    local r = request(H
      .. "connection: close, x-Mine\nKeep-Alive: 5\nProxy-Connection: close\nTE: trailers\nUpgrade: x\n" ..
      "Proxy-Authorization: y\nContent-Length: 0\nX-Mine: 1\nX-Other: 2\nTrailer: a\nX-MINE: 3\nExpect: 100-continue\n")
    assert.same({ "connection", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "Proxy-Authorization",
      "Content-Length", "X-Mine", "X-MINE" },
      hops(r))
    assert.equal("POST / HTTP/1.1\r\nHost: x\r\nX-Other: 2\r\nTrailer: a\r\nExpect: 100-continue\r\nExtra: 1\r\n\r\n",
      r.written)
  end)

  it("is what a backend that makes variables of names would take for the core's own", function()
    local r = request(H .. "Content_Length: 5\ntransfer_Encoding: chunked\nKeep_Alive: 1\nX_Mine: 2\nContent_Type: a\n")
    assert.same({ "Content_Length", "transfer_Encoding", "Keep_Alive" }, hops(r))
    assert.equal("none", r.kind)
  end)

  it("is the coding of a body", function()
    assert.same({ "Transfer-Encoding" }, hops(request(H .. "Transfer-Encoding: chunked\n")))
    assert.same({ "Transfer-Encoding" }, hops(response "Transfer-Encoding: chunked\n"))
  end)

  it("is not what a client nominates although it is meant for the backend", function()
    for _, name in ipairs { "Host", "Authorization", "Cookie", "Content-Type", "Content-Encoding", "Cache-Control",
      "X-Forwarded-For",
      "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Via", "Expect", "User-Agent", "Referer", "X-Request-Id",
      "Trailer" } do
      local value = name == "Expect" and "100-continue" or "v"
      local r = request((name == "Host" and "" or H) .. name .. ": " .. value .. "\nConnection: close, " .. name
        .. "\n")
      assert.same({ "Connection" }, hops(r), name)
    end
  end)

  it("is not a server's question for credentials", function()
    assert.same({}, hops(response("Proxy-Authenticate: Basic\nContent-Length: 0\n", "HEAD")))
    assert.same({}, hops(response("Proxy-Authorization: x\n", "HEAD")))
  end)

  it("is not nominated without end", function()
    local function options(n) return H .. "Connection: " .. ("x,"):rep(n) .. "\n" end
    assert.equal("ok", request(options(32)).framing)
    assert.equal("bad_request", request(options(33)).framing)
    assert.equal("bad_response", response(options(33)).framing)
  end)
end)

describe("the framing of a response", function()
  it("is a length, chunks, or the end of the connection", function()
    local r = response "Content-Length: 5\n"
    assert.same({ "length", 5, true }, { r.kind, r.length, r.keep_alive })
    r = response "Transfer-Encoding: chunked\n"
    assert.same({ "chunked", true }, { r.kind, r.keep_alive })
    r = response "A: b\n"
    assert.same({ "until_close", false }, { r.kind, r.keep_alive })
  end)

  it("takes a length that is repeated and the same", function()
    local r = response "Content-Length: 5\nContent-Length: 5\n"
    assert.same({ "ok", "length", 5 }, { r.framing, r.kind, r.length })
    assert.same({ "Content-Length", "Content-Length" }, hops(r))
    for _, list in ipairs { "5, 5", "5,5 , 05", "5\nContent-Length: 5, 5" } do
      r = response("Content-Length: " .. list .. "\n")
      assert.same({ "ok", "length", 5 }, { r.framing, r.kind, r.length }, list)
    end
    assert.equal("bad_response", response "Content-Length: 5\nContent-Length: 6\n".framing)
  end)

  for _, fields in ipairs { "Content-Length: 5\nTransfer-Encoding: chunked\n", "Transfer-Encoding: gzip, chunked\n",
    "Transfer-Encoding: gzip\n",
    "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n", "Content-Length: x\n", "Content-Length: -1\n",
    "Content-Length:\n",
    "Content-Length: 5, 6\n", "Content-Length: 5,\n", "Content-Length: ,5\n", "Content-Length: 5,x\n",
    "Content-Length: 5, 5\nContent-Length: 6\n", "Content-Length: 9223372036854775808\n",
    "Transfer-Encoding: identity\n" } do
    it("refuses " .. fields:gsub("\n", "; "), function() assert.equal("bad_response", response(fields).framing) end)
  end

  it("knows no coding in HTTP/1.0", function()
    assert.equal("bad_response", response("Transfer-Encoding: chunked\n", "GET", "HTTP/1.0 200 OK").framing)
  end)

  it("is none where there is no body, whatever the fields say", function()
    for _, start in ipairs { "HTTP/1.1 100 x", "HTTP/1.1 103 x", "HTTP/1.1 204 x", "HTTP/1.1 304 x" } do
      for _, fields in ipairs { "", "Content-Length: 5\n", "Transfer-Encoding: chunked\n",
        "Transfer-Encoding: x\nContent-Length: 6\n" } do
        local r = response(fields, "GET", start)
        assert.same({ "ok", "none", true }, { r.framing, r.kind, r.keep_alive })
      end
    end
    assert.equal("none", response("Content-Length: 5\n", "HEAD").kind)
    assert.equal("none", response("Transfer-Encoding: chunked\n", "HEAD").kind)
    assert.equal("none", response("Content-Length: 5\n", "CONNECT").kind)
    assert.equal("length", response("Content-Length: 5\n", "CONNECT", "HTTP/1.1 403 x").kind)
  end)

  it("passes on the length that a HEAD or a 304 tells of", function()
    assert.same({}, hops(response("Content-Length: 5\n", "HEAD")))
    assert.same({}, hops(response("Content-Length: 5\n", "GET", "HTTP/1.1 304 x")))
    assert.same({ "Content-Length" }, hops(response("Content-Length: 5\n", "GET", "HTTP/1.1 204 x")))
    assert.same({ "Content-Length" }, hops(response("Content-Length: 5\n", "HEAD", "HTTP/1.1 204 x")))
    assert.same({ "Content-Length" }, hops(response("Content-Length: 5\n", "CONNECT")))
    assert.same({ "Content-Length", "Transfer-Encoding" },
      hops(response("Content-Length: 5\nTransfer-Encoding: chunked\n", "HEAD")))
  end)
end)
