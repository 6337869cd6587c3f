-- Heads: what is read, what is refused, and that it never matters in which pieces the bytes come.

local http = require "moongate_core".http

local function without(t, ...)
  local copy = {}
  for k, v in pairs(t) do copy[k] = v end
  for _, k in ipairs { ... } do copy[k] = nil end
  return copy
end

local function bytes_of(text)
  local out = {}
  for i = 1, #text do out[i] = text:sub(i, i) end
  return out
end

-- The same answer whole, byte by byte, split at every place, and over a chunk's border at every place.
local function same_in_pieces(read, text, options, ...)
  local whole = read(text, options, ...)
  local expected = without(whole, "fed", "left")
  local apart = read(bytes_of(text), options, ...)
  assert.same(expected, without(apart, "fed", "left"))
  if whole.result == "done" then assert.equal(#text - #whole.left, apart.fed) end
  for i = 1, #text - 1 do
    local split = read({ text:sub(1, i), text:sub(i + 1) }, options, ...)
    assert.same(expected, without(split, "fed", "left"), "split behind byte " .. i)
    local straddled = { straddle = i }
    for k, v in pairs(options or {}) do straddled[k] = v end
    assert.same(expected, without(read(text, straddled, ...), "fed", "left"), "chunk border behind byte " .. i)
  end
  return whole
end

local function request(text, options) return http.read_request(text, options) end
local function response(text, options, method) return http.read_response(text, options, method) end

local function plain(fields)
  local out = {}
  for i, field in ipairs(fields) do out[i] = { field[1], field[2] } end
  return out
end

describe("a request head", function()
  it("is read into method, target, version and fields, in their order and case", function()
    local r = same_in_pieces(request,
      "GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-oDD:y \t\r\naccept:\t*/*\r\nEmpty:\r\nBlank:  \r\n\r\nrest")
    assert.equal("done", r.result)
    assert.equal("GET", r.method)
    assert.equal("/a?b=c", r.target)
    assert.equal(11, r.version)
    assert.same({ { "Host", "x" }, { "X-oDD", "y" }, { "accept", "*/*" }, { "Empty", "" },
      { "Blank", "" } }, plain(r.headers))
    assert.equal("rest", r.left)
    assert.equal("ok", r.framing)
  end)

  it("may have no fields in HTTP/1.0", function()
    local r = same_in_pieces(request, "GET / HTTP/1.0\r\n\r\n")
    assert.equal("done", r.result)
    assert.equal(10, r.version)
    assert.same({}, r.headers)
  end)

  it("wants more as long as it is good and not whole", function()
    local head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for i = 0, #head - 1 do assert.equal("more", request(head:sub(1, i)).result) end
  end)

  it("leaves a pipelined request behind it alone", function()
    local r = same_in_pieces(request, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\n")
    assert.equal("/1", r.target)
    assert.equal("GET /2 HTTP/1.1\r\n", r.left)
  end)

  it("may stand behind a few empty lines", function()
    local head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for n = 1, 4 do assert.equal("done", same_in_pieces(request, ("\r\n"):rep(n) .. head).result) end
    assert.equal("bad_request", same_in_pieces(request, ("\r\n"):rep(5) .. head).why)
    assert.is_false(request("\r\n\r\n").started)
    assert.is_true(request("\r\nG").started)
  end)

  for _, method in ipairs { "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND",
    "M-SEARCH", "get", "G",
    "FROB", "SOURCE", "PRI", "QUERY", "X!#$%&'*+-.^_`|~1", ("M"):rep(32) } do
    it("may have the method " .. method, function()
      local r = same_in_pieces(request, method .. " /p HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.equal("done", r.result)
      assert.equal(method, r.method)
      assert.equal("/p", r.target)
      assert.equal(method .. " /p HTTP/1.1\r\nHost: x\r\nExtra: 1\r\n\r\n", r.written)
    end)
  end

  for _, target in ipairs { "*", "/", "//", "/a%20b", "http://example.com", "http://example.com/",
    "https://example.com:444/a?b",
    "http://[::1]:80/", "/\"<>\\^`{|}", "/%zz", "/?a?b", "/;x=y/..", "/:@!$&'()*+,;=" } do
    it("may have the target " .. target, function()
      local r = same_in_pieces(request, "OPTIONS " .. target .. " HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.equal("done", r.result)
      assert.equal(target, r.target)
    end)
  end

  it("may be a CONNECT, whose target is an authority", function()
    local r = same_in_pieces(request, "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
    assert.equal("done", r.result)
    assert.equal("example.com:443", r.target)
    assert.equal("CONNECT", r.method)
  end)

  it("may have every byte that a value may have", function()
    local value = {}
    for i = 33, 255 do if i ~= 127 then value[#value + 1] = string.char(i) end end
    value = "a" .. table.concat(value, "\t ") .. "z"
    local r = request("GET / HTTP/1.1\r\nHost: x\r\nV: " .. value .. "\r\n\r\n")
    assert.equal(value, r.headers[2][2])
  end)

  it("may have every byte that a name may have", function()
    local name = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    local r = request("GET / HTTP/1.1\r\nHost: x\r\n" .. name .. ": v\r\n\r\n")
    assert.equal(name, r.headers[2][1])
  end)

  it("may be larger than http-parser's own limit", function()
    local fields = { "GET / HTTP/1.1\r\nHost: x\r\n" }
    for i = 1, 90 do fields[#fields + 1] = ("F%d: %s\r\n"):format(i, ("v"):rep(2000)) end
    local r = request(table.concat(fields) .. "\r\n", { head = 1000000 })
    assert.equal("done", r.result)
    assert.equal(91, #r.headers)
    assert.equal(("v"):rep(2000), r.headers[91][2])
  end)

  it("costs no more than its bytes when they come one by one", function()
    local text = "GET /" .. ("a"):rep(60000) .. " HTTP/1.1\r\nHost: x\r\nV: " .. ("v"):rep(60000) .. "\r\n\r\n"
    local started = os.clock()
    local r = request(bytes_of(text), { head = 200000, target = 100000 })
    assert.equal("done", r.result)
    assert.is_true(os.clock() - started < 5)
  end)
end)

-- Shapes that must be refused, each written as the head that has it.
local H = "Host: x\r\n"
local function line(text) return text .. "\r\n" .. H .. "\r\n" end
local function field(text) return "GET / HTTP/1.1\r\n" .. H .. text .. "\r\n\r\n" end

local malformed = {
  -- the start line
  { "an empty method", line " / HTTP/1.1" },
  { "a space before the method", line " GET / HTTP/1.1" },
  { "a tab before the method", line "\tGET / HTTP/1.1" },
  { "a tab behind the method", line "GET\t/ HTTP/1.1" },
  { "two spaces behind the method", line "GET  / HTTP/1.1" },
  { "two spaces behind the target", line "GET /  HTTP/1.1" },
  { "a tab behind the target", line "GET /\tHTTP/1.1" },
  { "a space behind the version", line "GET / HTTP/1.1 " },
  { "a tab behind the version", line "GET / HTTP/1.1\t" },
  { "a space in the target", line "GET /a b HTTP/1.1" },
  { "no target", line "GET HTTP/1.1" },
  { "an empty target", line "GET  HTTP/1.1" },
  { "no version", line "GET /" },
  { "no version but a space", line "GET / " },
  { "a method alone", line "GET" },
  { "a method and a space", line "GET " },
  { "a method of 33 bytes", line(("M"):rep(33) .. " / HTTP/1.1") },
  { "a method without end", ("M"):rep(100) },
  { "a bracket in the method", line "G(T / HTTP/1.1" },
  { "a slash in the method", line "G/T / HTTP/1.1" },
  { "a colon in the method", line "GET: / HTTP/1.1" },
  { "a NUL in the method", line "G\0T / HTTP/1.1" },
  { "a byte beyond ASCII in the method", line "G\xc3\x84T / HTTP/1.1" },
  { "a quote in the method", line "\"GET\" / HTTP/1.1" },
  { "a NUL in the target", line "GET /\0 HTTP/1.1" },
  { "a control in the target", line "GET /\1 HTTP/1.1" },
  { "an escape in the target", line "GET /\27 HTTP/1.1" },
  { "a DEL in the target", line "GET /\127 HTTP/1.1" },
  { "a byte beyond ASCII in the target", line "GET /\xc3\xa4 HTTP/1.1" },
  { "0xff in the target", line "GET /\xff HTTP/1.1" },
  { "a fragment in the target", line "GET /a#b HTTP/1.1" },
  { "a CR in the target", line "GET /a\rb HTTP/1.1" },
  { "an LF in the target", line "GET /a\nb HTTP/1.1" },
  { "a target that is a word", line "GET word HTTP/1.1" },
  { "a target that begins with a question mark", line "GET ?a HTTP/1.1" },
  { "a scheme without an authority", line "GET http:// HTTP/1.1" },
  { "a scheme with one slash", line "GET http:/a HTTP/1.1" },
  { "a version in lower case", line "GET / http/1.1" },
  { "a version of another protocol", line "GET / ICE/1.1" },
  { "another protocol of four letters", line "GET / HTTQ/1.1" },
  { "a version without a slash", line "GET / HTTP1.1" },
  { "a version without a dot", line "GET / HTTP/11" },
  { "a version with a comma", line "GET / HTTP/1,1" },
  { "a version with two digits behind the dot", line "GET / HTTP/1.10" },
  { "a version with a leading zero", line "GET / HTTP/01.1" },
  { "a version with two leading digits", line "GET / HTTP/11.1" },
  { "a version without a minor", line "GET / HTTP/1." },
  { "a version with a letter", line "GET / HTTP/1.x" },
  { "a version with a space inside", line "GET / HTTP/ 1.1" },
  { "a version with a sign", line "GET / HTTP/+1.1" },
  { "a version cut short", line "GET / HTT" },
  { "something behind the version", line "GET / HTTP/1.1 x" },
  -- line ends
  { "a bare LF behind the start line", "GET / HTTP/1.1\n" .. H .. "\r\n" },
  { "a bare CR behind the start line", "GET / HTTP/1.1\r" .. H .. "\r\n" },
  { "two CRs behind the start line", "GET / HTTP/1.1\r\r\n" .. H .. "\r\n" },
  { "LF CR behind the start line", "GET / HTTP/1.1\n\r" .. H .. "\r\n" },
  { "a bare LF behind a field", "GET / HTTP/1.1\r\nHost: x\n\r\n" },
  { "a bare CR behind a field", "GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n" },
  { "two CRs behind a field", "GET / HTTP/1.1\r\nHost: x\r\r\n\r\n" },
  { "a bare LF for the empty line", "GET / HTTP/1.1\r\n" .. H .. "\n" },
  { "a bare CR for the empty line", "GET / HTTP/1.1\r\n" .. H .. "\rx" },
  { "two CRs for the empty line", "GET / HTTP/1.1\r\n" .. H .. "\r\r\n" },
  { "LF LF at the end", "GET / HTTP/1.1\r\nHost: x\n\n" },
  { "bare LFs everywhere", "GET / HTTP/1.1\nHost: x\n\n" },
  { "bare CRs everywhere", "GET / HTTP/1.1\rHost: x\r\r" },
  { "an LF before the request", "\n" .. line "GET / HTTP/1.1" },
  { "a CR before the request", "\r" .. line "GET / HTTP/1.1" },
  { "an LF behind an empty line", "\r\n\n" .. line "GET / HTTP/1.1" },
  { "a space in an empty line", " \r\n" .. line "GET / HTTP/1.1" },
  { "a NUL before the request", "\0" .. line "GET / HTTP/1.1" },
  { "a byte order mark", "\xef\xbb\xbf" .. line "GET / HTTP/1.1" },
  { "a TLS handshake", "\22\3\1\2\0\1\0\1\252\3\3" },
  -- names
  { "a fold by a space", field "A: b\r\n c" },
  { "a fold by a tab", field "A: b\r\n\tc" },
  { "a fold behind an empty value", field "A:\r\n b" },
  { "a fold of the first field", "GET / HTTP/1.1\r\n Host: x\r\n\r\n" },
  { "a fold that is empty", field "A: b\r\n " },
  { "a fold before the end", field "A: b\r\n \t" },
  { "a space before the colon", field "A : b" },
  { "a tab before the colon", field "A\t: b" },
  { "a space in a name", field "A B: c" },
  { "a space before a name", field " A: b" },
  { "a field without a colon", field "A" },
  { "a field without a colon but a space", field "A b" },
  { "an empty name", field ": b" },
  { "a colon alone", field ":" },
  { "a NUL in a name", field "A\0: b" },
  { "a control in a name", field "A\1: b" },
  { "a DEL in a name", field "A\127: b" },
  { "a CR in a name", field "A\rB: c" },
  { "an LF in a name", field "A\nB: c" },
  { "a byte beyond ASCII in a name", field "\xc3\xa4: b" },
  { "0x80 in a name", field "A\x80: b" },
  { "a quote in a name", field "\"A\": b" },
  { "a bracket in a name", field "A(b): c" },
  { "a slash in a name", field "A/b: c" },
  { "an at sign in a name", field "A@b: c" },
  { "a comma in a name", field "A,b: c" },
  { "a semicolon in a name", field "A;b: c" },
  { "an equals sign for a colon", field "A=b" },
  { "an angle in a name", field "A<b>: c" },
  { "a square bracket in a name", field "A[0]: c" },
  { "a backslash in a name", field "A\\b: c" },
  { "a brace in a name", field "A{b}: c" },
  { "a question mark in a name", field "A?: c" },
  { "a Content-Length with a space before the colon", field "Content-Length : 5" },
  { "a Transfer-Encoding with a tab before the colon", field "Transfer-Encoding\t: chunked" },
  { "a Transfer-Encoding with a vertical tab before the colon", field "Transfer-Encoding\11: chunked" },
  -- values
  { "a NUL in a value", field "A: b\0c" },
  { "a NUL at the end of a value", field "A: b\0" },
  { "a CR in a value", field "A: b\rc" },
  { "an LF in a value", field "A: b\nc" },
  { "a vertical tab in a value", field "A: b\11c" },
  { "a form feed in a value", field "A: b\12c" },
  { "a bell in a value", field "A: b\7c" },
  { "an escape in a value", field "A: \27[31m" },
  { "0x01 in a value", field "A: \1" },
  { "0x1f in a value", field "A: \31" },
  { "a DEL in a value", field "A: b\127c" },
  { "a DEL in a long value", field("A: " .. ("x"):rep(40) .. "\127" .. ("y"):rep(40)) },
  { "a NUL in a long value", field("A: " .. ("x"):rep(47) .. "\0" .. ("y"):rep(40)) },
  { "a vertical tab before chunked", field "Transfer-Encoding: \11chunked" },
  { "a control behind a tab", field "A: \t\t\1" },
  { "a CR at the end of a value", field "A: b\r" },
  { "a CR before a value", field "A:\rb" },
}

describe("a request head is refused for", function()
  it("at least 120 shapes", function() assert.is_true(#malformed >= 120) end)
  for _, shape in ipairs(malformed) do
    it(shape[1], function()
      local r = same_in_pieces(request, shape[2])
      assert.equal("failed", r.result)
      assert.equal("bad_request", r.why)
    end)
  end

  for _, version in ipairs { "0.9", "1.2", "1.9", "2.0", "3.0", "9.9", "0.0", "0.1" } do
    it("version " .. version .. ", by its own word", function()
      local r = same_in_pieces(request, line("GET / HTTP/" .. version))
      assert.equal("bad_version", r.why)
    end)
  end

  it("the preface of HTTP/2", function()
    assert.equal("bad_version", request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").why)
  end)

  it("every byte outside the grammar, at the first that shows it", function()
    for byte = 0, 255 do
      local c = string.char(byte)
      if not c:match "[%w!#$%%&'*+%-.^_`|~ ]" then assert.equal("failed", request("G" .. c).result, "method "
        .. byte) end
      if byte <= 31 or byte >= 127 or c == "#" then assert.equal("failed", request("GET /" .. c).result, "target "
        .. byte) end
      if not c:match "[%w!#$%%&'*+%-.^_`|~:]" then
        assert.equal("failed", request("GET / HTTP/1.1\r\nA" .. c).result, "name " .. byte)
      end
      if byte < 32 and c ~= "\t" and c ~= "\r" or byte == 127 then
        for pad = 0, 33 do
          assert.equal("failed", request("GET / HTTP/1.1\r\nA: " .. ("v"):rep(pad) .. c).result, "value " .. byte)
        end
      end
    end
  end)
end)

describe("limits of a request head", function()
  local head = "GET /target HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n"

  it("are the bytes of the whole head, to the last", function()
    assert.equal("done", same_in_pieces(request, head, { head = #head }).result)
    for limit = 23, #head - 1 do
      assert.equal("headers_too_large", same_in_pieces(request, head, { head = limit }).why)
    end
  end)

  it("are about the target while it is not yet over", function()
    for limit = 1, 21 do assert.equal("target_too_long", request(head, { head = limit }).why, "limit " .. limit) end
    assert.equal("target_too_long", same_in_pieces(request, "GET /" .. ("a"):rep(100), { head = 50 }).why)
  end)

  it("are the bytes of the target", function()
    assert.equal("done", same_in_pieces(request, head, { target = 7 }).result)
    assert.equal("target_too_long", same_in_pieces(request, head, { target = 6 }).why)
    assert.equal("target_too_long", same_in_pieces(request, "GET /" .. ("a"):rep(20), { target = 20 }).why)
    assert.equal("more", request("GET /" .. ("a"):rep(19), { target = 20 }).result)
    assert.equal("target_too_long", same_in_pieces(request, "GET /aaaaa\1", { target = 5 }).why)
  end)

  it("are the number of fields", function()
    assert.equal("done", same_in_pieces(request, head, { fields = 2 }).result)
    assert.equal("headers_too_large", same_in_pieces(request, head, { fields = 1 }).why)
    assert.equal("headers_too_large", request(head, { fields = 0 }).why)
  end)

  it("do not count what follows the head", function()
    assert.equal("done", request(head .. ("x"):rep(10000), { head = #head }).result)
  end)
end)

describe("a response head", function()
  it("is read into status, reason, version and fields", function()
    local r = same_in_pieces(response, "HTTP/1.1 200 OK then\r\nServer: s\r\nContent-Length: 4\r\n\r\nbody")
    assert.equal("done", r.result)
    assert.equal(200, r.status)
    assert.equal("OK then", r.reason)
    assert.equal(11, r.version)
    assert.equal("body", r.left)
    assert.equal("HTTP/1.1 200 OK then\r\nServer: s\r\nExtra: 1\r\n\r\n", r.written)
  end)

  for _, start in ipairs { "HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 404 Not Found", "HTTP/1.1 100 Continue",
    "HTTP/1.1 599 x",
    "HTTP/1.1 200  two spaces", "HTTP/1.1 200 \xc3\xa4\ttab", "HTTP/1.1 200 HTTP/1.1 200 OK" } do
    it("may begin with " .. start, function()
      local r = same_in_pieces(response, start .. "\r\n\r\n")
      assert.equal("done", r.result)
      assert.equal(tonumber(start:sub(10, 12)), r.status)
    end)
  end

  local bad = { "HTTP/1.1 0200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 099 x", "HTTP/1.1 000 x",
    "HTTP/1.1 600 x",
    "HTTP/1.1 999 x", "HTTP/1.1 2x0 OK", "HTTP/1.1 +20 OK", "HTTP/1.1 -20 OK", "HTTP/1.1  200 OK", "HTTP/1.1\t200 OK",
    "HTTP/1.1 200\tOK",
    "HTTP/1.1200 OK", "HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 OK", " HTTP/1.1 200 OK", "\r\nHTTP/1.1 200 OK",
    "\nHTTP/1.1 200 OK",
    "http/1.1 200 OK", "HTTP/2.0 200 OK", "HTTP/0.9 200 OK", "HTTP/1.2 200 OK", "HTTP/11 200 OK", "ICY 200 OK",
    "HTTP/2 200",
    "HTTP/1.1 200 O\0K", "HTTP/1.1 200 O\1K", "HTTP/1.1 200 O\127K", "HTTP/1.1 200 OK\r", "HTTP/1.1 200 O\rK",
    "HTTP/1.1 200 O\nK",
    "HTTP/1.1 200OK", "HTTP/1.1 200.1 OK", "<html>", "SSH-2.0-x", "" }
  for _, start in ipairs(bad) do
    it(("is refused when it begins with %q"):format(start), function()
      local r = same_in_pieces(response, start .. "\r\nA: b\r\n\r\n")
      assert.equal("failed", r.result)
      assert.equal("bad_response", r.why)
    end)
  end

  for _, shape in ipairs(malformed) do
    local fields = shape[2]:match "^GET / HTTP/1%.1\r\nHost: x\r\n(.*)$"
    if fields then
      it("is refused for " .. shape[1], function()
        local r = same_in_pieces(response, "HTTP/1.1 200 OK\r\n" .. fields)
        assert.equal("bad_response", r.why)
      end)
    end
  end

  it("is too large in its own word", function()
    local head = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    assert.equal("done", same_in_pieces(response, head, { head = #head }).result)
    for limit = 1, #head - 1 do
      assert.equal("response_headers_too_large", response(head, { head = limit }).why)
    end
    assert.equal("response_headers_too_large", same_in_pieces(response, head, { fields = 0 }).why)
  end)
end)
