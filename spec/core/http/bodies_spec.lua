-- Bodies: lengths, chunked coding, trailers; whole, byte by byte, over chunk borders, and with little room.

local core = require "moongate_core"
local http = core.http

local function bytes_of(text)
  local out = {}
  for i = 1, #text do out[i] = text:sub(i, i) end
  return out
end

local function shown(r)
  local trailers = {}
  for i, field in ipairs(r.trailers) do trailers[i] = { field[1], field[2] } end
  return { result = r.result, content = r.content, trailers = trailers }
end

-- The same answer in any pieces.
local function chunked(text)
  local whole = http.read_body("chunked", 0, text)
  local expected = shown(whole)
  local apart = http.read_body("chunked", 0, bytes_of(text))
  assert.same(expected, shown(apart))
  if whole.result == "done" then assert.equal(#text - #whole.left, apart.fed) end
  assert.same(expected, shown(http.read_body("chunked", 0, text, { room = 1 })))
  for i = 1, math.min(#text - 1, 400) do
    local pieces = { text:sub(1, i), text:sub(i + 1) }
    assert.same(expected, shown(http.read_body("chunked", 0, pieces)))
    assert.same(expected, shown(http.read_body("chunked", 0, text, { straddle = i })))
  end
  expected.left = whole.left
  return expected
end

describe("a body with a length", function()
  it("ends at its length", function()
    local r = http.read_body("length", 5, "hello, world")
    assert.equal("done", r.result)
    assert.equal("hello", r.content)
    assert.equal(", world", r.left)
    r = http.read_body("length", 5, { "he", "l" })
    assert.equal("more", r.result)
    assert.equal("hel", r.content)
  end)

  it("of 0, or none at all, is done before it begins", function()
    for _, kind in ipairs { "length", "none" } do
      local r = http.read_body(kind, 0, "next")
      assert.equal("done", r.result)
      assert.equal(0, r.fed)
    end
  end)

  it("passes whatever its size and the room", function()
    local text = ("0123456789"):rep(10000)
    for _, room in ipairs { 1000, 4096, 1 << 20 } do
      local r = http.read_body("length", #text, text, { room = room })
      assert.equal(text, r.content)
      assert.equal("done", r.result)
    end
  end)
end)

describe("a body until the end of the connection", function()
  it("is never done by itself", function()
    local r = http.read_body("until_close", 0, { "abc", "def" })
    assert.equal("more", r.result)
    assert.equal("abcdef", r.content)
  end)
end)

describe("a chunked body", function()
  local good = {
    { "one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello" },
    { "no chunk", "0\r\n\r\n", "" },
    { "many zeros for the last chunk", "0000\r\n\r\n", "" },
    { "sixteen digits", "0000000000000005\r\nhello\r\n0\r\n\r\n", "hello" },
    { "hexadecimal in both cases", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", ("0123456789"):rep(2) },
    { "two-digit sizes", "1F\r\n" .. ("x"):rep(31) .. "\r\n0\r\n\r\n", ("x"):rep(31) },
    { "content that looks like framing", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n" },
    { "content with every byte", "3\r\n\0\r\n\r\n0\r\n\r\n", "\0\r\n" },
    { "an extension", "5;a\r\nhello\r\n0\r\n\r\n", "hello" },
    { "an extension with a value", "5;a=b\r\nhello\r\n0;c=d\r\n\r\n", "hello" },
    { "several extensions", "5;a;b=c;d=\"e\"\r\nhello\r\n0\r\n\r\n", "hello" },
    { "white space round extensions", "5 ; a = b ; c\t=\t\"d\" ;e\r\nhello\r\n0\r\n\r\n", "hello" },
    { "a quoted value with anything in it", "5;a=\"; \\\" \\\\ 0x \xff\t\"\r\nhello\r\n0\r\n\r\n", "hello" },
    { "an empty quoted value", "5;a=\"\"\r\nhello\r\n0\r\n\r\n", "hello" },
  }
  for _, case in ipairs(good) do
    it("may have " .. case[1], function()
      local r = chunked(case[2] .. "NEXT")
      assert.equal("done", r.result)
      assert.equal(case[3], r.content)
      assert.equal("NEXT", r.left)
    end)
  end

  it("wants more until its last byte", function()
    local text = "5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n"
    for i = 0, #text - 1 do assert.equal("more", http.read_body("chunked", 0, text:sub(1, i)).result) end
    assert.equal("done", http.read_body("chunked", 0, text).result)
  end)

  it("of many sizes comes out as it went in", function()
    math.randomseed(5)
    for _ = 1, 30 do
      local content, wire = {}, {}
      for i = 1, 40 do
        local n = math.random(1, math.random(5) == 1 and 20000 or 40)
        content[i] = string.char(math.random(0, 255)):rep(n)
        wire[i] = ("%x\r\n%s\r\n"):format(n, content[i])
      end
      local text, whole = table.concat(wire) .. "0\r\n\r\n", table.concat(content)
      local r = http.read_body("chunked", 0, text, { room = math.random(1, 30000) })
      assert.equal("done", r.result)
      assert.is_true(whole == r.content)
      local pieces, at = {}, 1
      while at <= #text do
        local n = math.random(1, 5000)
        pieces[#pieces + 1] = text:sub(at, at + n - 1)
        at = at + n
      end
      r = http.read_body("chunked", 0, pieces, { room = math.random(1, 30000) })
      assert.equal("done", r.result)
      assert.is_true(whole == r.content)
    end
  end)

  it("moves no more than there is room for", function()
    local r = http.read_body("chunked", 0, { "5\r\nhello\r\n0\r\n\r\n" }, { room = 0 })
    assert.equal("more", r.result)
    assert.equal("", r.content)
  end)

  local bad = {
    { "an empty size", "\r\nhello" },
    { "no size but an extension", ";a\r\n" },
    { "a space before the size", " 5\r\nhello\r\n" },
    { "a tab before the size", "\t5\r\nhello\r\n" },
    { "a sign", "+5\r\nhello\r\n" },
    { "a minus", "-5\r\nhello\r\n" },
    { "0x before the size", "0x5\r\nhello\r\n" },
    { "h behind the size", "5h\r\nhello\r\n" },
    { "a letter that is no digit", "g\r\n" },
    { "a letter behind digits", "5z\r\n" },
    { "an underscore in the size", "1_0\r\n" },
    { "a comma in the size", "1,0\r\n" },
    { "a dot in the size", "5.0\r\n" },
    { "a space in the size", "1 0\r\n" },
    { "a space behind the size", "5 \r\nhello\r\n" },
    { "a tab behind the size", "5\t\r\nhello\r\n" },
    { "a NUL in the size", "5\0\r\nhello\r\n" },
    { "a NUL before the size", "\0" .. "5\r\nhello\r\n" },
    { "a byte beyond ASCII", "\xb5\r\n" },
    { "a full-width digit", "\xef\xbc\x95\r\n" },
    { "seventeen digits", "00000000000000005\r\nhello\r\n" },
    { "a size beyond 64 bits", "10000000000000000\r\n" },
    { "a size of 64 bits", "ffffffffffffffff\r\n" },
    { "a size of 2^63", "8000000000000000\r\n" },
    { "a size that wraps to 5", "10000000000000005\r\nhello\r\n" },
    { "a bare LF behind the size", "5\nhello\r\n" },
    { "a bare CR behind the size", "5\rhello\r\n" },
    { "two CRs behind the size", "5\r\r\nhello\r\n" },
    { "LF CR behind the size", "5\n\rhello\r\n" },
    { "a bare LF behind the content", "5\r\nhello\n0\r\n\r\n" },
    { "a bare CR behind the content", "5\r\nhello\r0\r\n\r\n" },
    { "two CRs behind the content", "5\r\nhello\r\r\n" },
    { "nothing behind the content", "5\r\nhello0\r\n\r\n" },
    { "content that is too long", "5\r\nhello!\r\n" },
    { "content that is too short", "5\r\nhell\r\n0\r\n\r\n" },
    { "a space behind the content", "5\r\nhello \r\n" },
    { "an empty line between chunks", "5\r\nhello\r\n\r\n0\r\n\r\n" },
    { "an extension without a name", "5;\r\nhello\r\n" },
    { "an extension without a name but a value", "5;=b\r\n" },
    { "two semicolons", "5;;a\r\n" },
    { "a semicolon at the end", "5;a;\r\n" },
    { "an extension without a value", "5;a=\r\n" },
    { "an extension without a value before another", "5;a=;b\r\n" },
    { "two equals signs", "5;a==b\r\n" },
    { "a space behind an extension", "5;a \r\n" },
    { "a space behind a value", "5;a=b \r\n" },
    { "a space inside a value", "5;a=b c\r\n" },
    { "a space inside a name", "5;a b\r\n" },
    { "a bracket in a name", "5;a(\r\n" },
    { "a slash in a value", "5;a=b/c\r\n" },
    { "a NUL in an extension", "5;a\0\r\n" },
    { "a control in an extension", "5;a=\1\r\n" },
    { "a byte beyond ASCII in an extension", "5;\xc3\xa4\r\n" },
    { "a bare LF in an extension", "5;a\nhello\r\n" },
    { "a bare CR in an extension", "5;a\rb\r\n" },
    { "an LF inside quotes", "5;a=\"\n\"\r\n" },
    { "a CRLF inside quotes", "5;a=\"\r\n\"\r\n" },
    { "an escaped LF inside quotes", "5;a=\"\\\n\"\r\n" },
    { "an escaped CR inside quotes", "5;a=\"\\\r\"\r\n" },
    { "a NUL inside quotes", "5;a=\"\0\"\r\n" },
    { "a DEL inside quotes", "5;a=\"\127\"\r\n" },
    { "something behind quotes", "5;a=\"b\"c\r\n" },
    { "quotes for a name", "5;\"a\"\r\n" },
    { "quotes inside a value", "5;a=b\"c\"\r\n" },
    { "an extension behind a comma", "5,a\r\n" },
    { "a bare LF behind the last chunk", "0\n\r\n" },
    { "a bare LF for the empty line", "0\r\n\n" },
    { "a bare CR for the empty line", "0\r\n\rx" },
    { "a fold in the trailers", "0\r\nA: b\r\n c\r\n\r\n" },
    { "a trailer without a colon", "0\r\nA\r\n\r\n" },
    { "a trailer with a space before the colon", "0\r\nA : b\r\n\r\n" },
    { "a trailer with a NUL", "0\r\nA: \0\r\n\r\n" },
    { "a trailer with a bare LF", "0\r\nA: b\n\r\n" },
    { "a trailer with a bare CR", "0\r\nA: b\rc\r\n\r\n" },
    { "a trailer without a name", "0\r\n: b\r\n\r\n" },
    { "content behind the last chunk", "0\r\nhello\r\n\r\n" },
  }
  it("is refused for at least 60 shapes", function() assert.is_true(#bad >= 60) end)
  for _, case in ipairs(bad) do
    it("is refused for " .. case[1], function() assert.equal("failed", chunked(case[2]).result) end)
  end

  it("has bounded size lines", function()
    assert.equal("done", http.read_body("chunked", 0, "0;" .. ("a"):rep(4000) .. "\r\n\r\n").result)
    assert.equal("failed", http.read_body("chunked", 0, "0;" .. ("a"):rep(5000)).result)
  end)

  it("has bounded extensions in all", function()
    local chunk = "1;" .. ("a"):rep(1000) .. "\r\nx\r\n"
    assert.equal("done", http.read_body("chunked", 0, chunk:rep(16) .. "0\r\n\r\n").result)
    assert.equal("failed", http.read_body("chunked", 0, chunk:rep(17) .. "0\r\n\r\n").result)
  end)

  it("has bounded trailers", function()
    local function with(n, size) return "0\r\n" .. ("A: " .. ("v"):rep(size) .. "\r\n"):rep(n) .. "\r\n" end
    assert.equal("done", http.read_body("chunked", 0, with(64, 10)).result)
    assert.equal("failed", http.read_body("chunked", 0, with(65, 10)).result)
    assert.equal("done", http.read_body("chunked", 0, with(1, 8000)).result)
    assert.equal("failed", http.read_body("chunked", 0, with(1, 9000)).result)
    assert.equal("failed", http.read_body("chunked", 0, bytes_of(with(1, 9000))).result)
  end)
end)

describe("trailers", function()
  it("are read in order", function()
    local r = chunked "1\r\nx\r\n0\r\nX-Sum: abc \r\ngrpc-status:0\r\nETag: \"e\"\r\nX-Sum: def\r\n\r\nNEXT"
    assert.same({ { "X-Sum", "abc" }, { "grpc-status", "0" }, { "ETag", "\"e\"" }, { "X-Sum", "def" } }, r.trailers)
    assert.equal("NEXT", r.left)
  end)

  it("may be dropped", function()
    local r = http.read_body("chunked", 0, "0\r\nA: b\r\n\r\nNEXT", { drop_trailers = 1 })
    assert.equal("done", r.result)
    assert.same({}, r.trailers)
  end)

  for _, name in ipairs { "Content-Length", "transfer-encoding", "Host", "Connection", "Keep-Alive", "TE", "Trailer",
    "Upgrade",
    "Authorization", "Proxy-Authorization", "Proxy-Foo", "Cookie", "Set-Cookie", "WWW-Authenticate", "Content-Type",
    "Content-Encoding",
    "Content-Range", "content-disposition", "Cache-Control", "Expect", "Max-Forwards", "Pragma", "Range", "If-Match",
    "If-Modified-Since",
    "Age", "Date", "Expires", "Location", "Retry-After", "Vary", "Warning", "X-Forwarded-For", "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "Forwarded", "Via", "Sec-WebSocket-Key", "X-Request-Id", "Content_Length",
    "x_forwarded_for", "Transfer_Encoding" } do
    it("never hold " .. name, function()
      local r = http.read_body("chunked", 0, ("0\r\nA: 1\r\n%s: 2\r\nB: 3\r\n\r\n"):format(name))
      assert.equal("done", r.result)
      assert.equal(2, #r.trailers)
    end)
  end
end)

describe("writing bodies", function()
  it("frames every piece as a chunk and leaves out empty ones", function()
    assert.equal("5\r\nhello\r\n1\r\n \r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
      http.write_body({ "hello", " ", "", "0123456789abcdef" }, true))
    assert.equal("hello world", http.write_body({ "hello", "", " world" }, false))
    assert.equal("0\r\n\r\n", http.write_body({}, true))
  end)

  it("ends with trailers", function()
    assert.equal("0\r\nA: b\r\nC: d\r\n\r\n", http.write_body({}, true, { { "A", "b" }, { "C", "d" } }))
  end)

  it("is read back as it was", function()
    math.randomseed(9)
    for _ = 1, 20 do
      local pieces = {}
      for i = 1, 20 do pieces[i] = string.char(math.random(0, 255)):rep(math.random(0, 40000)) end
      local r = http.read_body("chunked", 0, http.write_body(pieces, true))
      assert.equal("done", r.result)
      assert.is_true(table.concat(pieces) == r.content)
    end
  end)
end)
