local support = require "support"
local probe = require "core.lua.probe"
local it, http, net = support.it, support.http, support.net

-- A request whose body comes in pieces that the spec sends.
local function begin(script, framing)
  local conn = net.connect(probe.port)
  conn:send(("POST / HTTP/1.1\r\nHost: a\r\n%s\r\n%s\r\n\r\n"):format(framing, probe.field("on_request", script)))
  return conn
end

describe("req.body", function()
  support.setup(probe.start)

  local function said(script, body) return probe.request(script, { method = "POST", body = body }) end

  it("is nil without a body, and empty text for a length of 0", function()
    assert.equal("nil", probe.request "return req.body")
    assert.equal("string|0", said("local t = req.body:text() return type(t), #t", ""))
  end)

  it("is read whole, with a length or in chunks", function()
    assert.equal("hello", said("return req.body:text()", "hello"))
    assert.equal("hello", said("return req.body:text()", { "hel", "lo" }))
    assert.equal("300000", said("return #req.body:text()", ("x"):rep(300000)))
  end)

  it("is read any number of times, and still forwarded", function()
    local request = probe.forwarded([[
      local text = req.body:text()
      req.headers["X-Said"] = text .. req.body:text()
    ]], { method = "POST", body = "hello" })
    assert.equal("hello", request.body)
    assert.equal("5", request.headers["Content-Length"])
    assert.equal("hellohello", request.headers["X-Said"])
    request = probe.forwarded("req.body:text()", { method = "POST", body = { "a", "b", "c" } })
    assert.equal("abc", request.body)
  end)

  it("waits for what has not come yet", function()
    local conn = begin("return req.body:text()", "Content-Length: 10")
    conn:send "hello"
    conn:send "world"
    assert.equal("helloworld", http.response(conn).body)
  end)

  it("is refused beyond max, a byte more being enough", function()
    local script = "local t, word, sentence = req.body:text(4) return t, word, sentence"
    assert.equal("nil|too_large|the body is larger than 4 bytes", said(script, "12345"))
    assert.equal("nil|too_large|the body is larger than 4 bytes", said(script, { "1234", "5" }))
    assert.equal("1234|nil|nil", said(script, "1234"))
    assert.equal("1234|nil|nil", said(script, { "12", "34" }))
    assert.equal("nil|too_large", said("local t, word = req.body:text '1K' return t, word", ("x"):rep(1025)))
  end)

  it("takes 1 MiB by default, and the site's max_body before that", function()
    assert.equal("1048576", said("return #req.body:text()", ("x"):rep(1048576)))
    local options = { method = "POST", body = { ("x"):rep(600000), ("x"):rep(600000) } }
    assert.equal(413, probe.exchange({ on_request = "return #req.body:text()" }, options).status)
  end)

  it("is still forwarded when it was too large to be read", function()
    local request = probe.forwarded("assert(req.body:text(10) == nil)", { method = "POST", body = ("x"):rep(200000) })
    assert.equal(200000, #request.body)
  end)

  it("has the client told to continue, who waits for that", function()
    local conn = begin("return req.body:text()", "Content-Length: 5\r\nExpect: 100-continue")
    assert.equal(100, http.response_head(conn).status)
    conn:send "hello"
    assert.equal("hello", http.response(conn).body)
  end)

  it("can be waited for by several strands", function()
    local conn = begin([[
      local body = req.body
      return gate.all(function() return body:text() end,
                      function() return #body:text() end,
                      function() return "third" end)
    ]], "Content-Length: 5")
    conn:send "hel"
    conn:send "lo"
    assert.equal("hello|5|third", http.response(conn).body)
  end)

  it("comes in chunks that make up the whole", function()
    assert.equal("true|true", said([[
      local largest, parts = 0, {}
      for piece in req.body:chunks() do
        parts[#parts + 1] = piece
        if #piece > largest then largest = #piece end
      end
      return table.concat(parts) == req.body:text(), largest <= 65536
    ]], ("0123456789"):rep(7000)))
    assert.equal("0", said("local n = 0 for _ in req.body:chunks() do n = n + 1 end return n", ""))
  end)

  it("gives a chunk when it is there, before the rest", function()
    local conn = begin([[
      local parts = {}
      for piece in req.body:chunks() do
        parts[#parts + 1] = piece
        gate.log("info", "so far", table.concat(parts))
      end
      return table.concat(parts)
    ]], "Content-Length: 10")
    conn:send "first"
    probe.proxy:wait_log "so far first"
    conn:send "other"
    assert.equal("firstother", http.response(conn).body)
  end)

  it("raises in chunks what would look like the end", function()
    local text = said("for _ in req.body:chunks(3) do end", "12345")
    assert(text:find "raised: .*too_large", text)
  end)

  it("frees the hook when the client leaves while it waits", function()
    local conn = begin([[
      local closed <close> = setmetatable({}, { __close = function() gate.log "closed the hook" end })
      return req.body:text()
    ]], "Content-Length: 10")
    conn:send "hello"
    conn:close()
    probe.proxy:wait_log "closed the hook"
  end)

  it("cannot be read once it has been sent on", function()
    probe.answer = "from the backend"
    for _, script in ipairs { "return req.body:text()", "for _ in req.body:chunks() do end" } do
      local text = probe.response(script, { method = "POST", body = "hello" })
      assert(text:find("sent on", 1, true), text)
    end
  end)

  it("refuses a max that is none", function()
    local none = {
      "-1", "1.5", "'x'", "'10X'", "'-1'", "{}", "1/0", "0/0", "math.mininteger", "true", "'0x10'", "' 1'", "'1e400'",
    }
    for _, max in ipairs(none) do
      local text = said(("return req.body:text(%s)"):format(max), "hello")
      assert(text:find("bytes expected", 1, true), max .. ": " .. text)
    end
    assert.equal("nil|too_large", said("local t, word = req.body:text(0) return t, word", "hello"))
    assert.equal("hello", said("return req.body:text(math.maxinteger // 1024 // 1024)", "hello"))
  end)

  it("has methods and nothing else", function()
    local text = said("return req.body.txt", "hello")
    assert(text:find("did you mean 'text'", 1, true), text)
    text = said("req.body.x = 1", "hello")
    assert(text:find("no fields", 1, true), text)
    text = said("return req.body.text(req)", "hello")
    assert(text:find("moongate.body expected", 1, true), text)
  end)
end)

describe("res.body", function()
  support.setup(probe.start)

  it("is read and still sent", function()
    probe.answer = "hello"
    local response = probe.exchange { on_response = "upvalue.text = res.body:text()" }
    assert.equal("hello", response.body)
    assert.equal("hello", probe.request "return upvalue.text")
  end)

  it("is read however it is framed, and long ones too", function()
    local long = ("0123456789"):rep(20000)
    for _, answer in ipairs { long, { long:sub(1, 70000), long:sub(70001) } } do
      probe.answer = function() return 200, nil, answer end
      local response = probe.exchange { on_response = "res.headers['X-Size'] = #res.body:text()" }
      assert.equal("200000", response.headers["X-Size"])
      assert.equal(long, response.body)
    end
  end)

  it("is refused beyond max, and still sent", function()
    probe.answer = ("x"):rep(100000)
    local response = probe.exchange { on_response = "local t, word = res.body:text(1000) res.headers['X-Word'] = word" }
    assert.equal("too_large", response.headers["X-Word"])
    assert.equal(100000, #response.body)
  end)

  it("is nil for HEAD, 204 and 304", function()
    local script = { on_response = "res.headers['X-Body'] = tostring(res.body)" }
    assert.equal("nil", probe.exchange(script, { method = "HEAD" }).headers["X-Body"])
    for _, status in ipairs { 204, 304 } do
      probe.answer = function() return status end
      assert.equal("nil", probe.exchange(script).headers["X-Body"])
    end
  end)

  it("is replaced by a string, with what told of the former one", function()
    probe.answer = function()
      local fields = {
        { "ETag", '"x"' }, { "Content-Encoding", "gzip" }, { "Accept-Ranges", "bytes" }, { "X-Kept", "1" },
      }
      return 200, fields, "a former body"
    end
    local response = probe.exchange { on_response = "res.body = 'new' res.headers['X-Now'] = res.body:text()" }
    assert.equal("new", response.body)
    assert.equal("new", response.headers["X-Now"])
    assert.equal("3", response.headers["Content-Length"])
    for _, name in ipairs { "ETag", "Content-Encoding", "Accept-Ranges" } do
      assert.equal("nil", tostring(response.headers[name]))
    end
    assert.equal("1", response.headers["X-Kept"])
  end)

  it("is emptied by nil, and may be large", function()
    probe.answer = "something"
    assert.equal("0", probe.exchange({ on_response = "res.body = nil" }).headers["Content-Length"])
    assert.equal(500000, #probe.exchange({ on_response = "res.body = ('x'):rep(500000)" }).body)
  end)

  it("wakes who waits for the former one when it is replaced", function()
    probe.answer = function() return 200, nil, { "begin", ("x"):rep(500000) } end
    local text = probe.exchange({ on_response = [[
      local text = gate.all(function() return res.body:text() end, function() res.body = "replaced" end)
      upvalue.first = text
    ]] }).body
    assert.equal("replaced", text)
    assert.equal("replaced", probe.request "return upvalue.first")
  end)

  it("refuses what is no body", function()
    probe.answer = "something"
    assert(probe.response("res.body = 5"):find("not a number", 1, true))
    assert(probe.response("res.body = {}"):find("not a table", 1, true))
    for _, status in ipairs { 204, 205, 304 } do
      local said = probe.response(("res.status = %d res.body = 'x'"):format(status))
      assert(said:find("a response with status " .. status .. " has no body", 1, true), said)
    end
  end)
end)
