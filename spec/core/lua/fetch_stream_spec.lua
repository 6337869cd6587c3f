-- gate.fetch with bodies that flow: streamed answers, requests made piece by piece, relays; redirects; deadlines.

local support = require "support"
local probe = require "core.lua.probe"
local coding = require("moongate_core").coding
local it, http, net = support.it, support.http, support.net

-- A byte at a time, large bodies only take longer.
local scale = support.process.preset == "hard" and 50 or 1

local function last() return probe.backend.requests[#probe.backend.requests] end

describe("gate.fetch with stream = true", function()
  support.setup(probe.start)
  before_each(function() probe.answer = "from the backend" end)

  it("gives the head at once, and the body as it comes", function()
    local server = net.listen()
    local client = net.connect(probe.port)
    client:send(("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"):format(probe.field("on_request", ([[
      local res = assert(gate.fetch("http://%s/", { stream = true }))
      gate.log("info", "head", res.status, res.headers["X-A"], res.trailers)
      local parts = {}
      for piece in res.body:chunks() do
        parts[#parts + 1] = piece
        gate.log("info", "so far", table.concat(parts))
      end
      return table.concat(parts), res.trailers and res.trailers["X-Sum"]
    ]]):format(server.address))))
    local conn = server:accept()
    http.request_head(conn)
    conn:send "HTTP/1.1 201 Created\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n"
    probe.proxy:wait_log "head 201 b nil"
    conn:send "3\r\none\r\n"
    probe.proxy:wait_log "so far one"
    conn:send "3\r\ntwo\r\n0\r\nX-Sum: 6\r\n\r\n"
    assert.equal("onetwo|6", http.response(client).body)
  end)

  it("holds no more than a window of what is not read yet", function()
    local server = net.listen()
    local client = net.connect(probe.port)
    client:send(("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"):format(probe.field("on_request", ([[
      local res = gate.fetch("http://%s/", { stream = true })
      local first = res.body:chunks()()
      gate.log("info", "has the first piece", #first)
      gate.sleep(0.2)
      local n = #first
      for piece in res.body:chunks() do n = n + #piece end
      return n
    ]]):format(server.address))))
    local conn = server:accept()
    http.request_head(conn)
    conn:send("HTTP/1.1 200 OK\r\nContent-Length: " .. 30000000 // scale .. "\r\n\r\n")
    conn:post(("x"):rep(30000000 // scale))
    probe.proxy:wait_log "has the first piece"
    assert.equal(tostring(30000000 // scale), http.response(client, nil, 20).body)
  end)

  it("gives text, and nothing the second time", function()
    assert.equal("from the backend||200", probe.request [[
      local res = gate.fetch("app", { stream = true })
      return res.body:text(), res.body:text(), res.status
    ]])
    probe.answer = ("x"):rep(100)
    assert.equal("nil|too_large|100", probe.request [[
      local res = gate.fetch("app", { stream = true })
      local text, word = res.body:text(50)
      local n = 0
      for piece in res.body:chunks() do n = n + #piece end
      return text, word, n
    ]])
  end)

  it("decodes what is coded", function()
    for _, name in ipairs { "gzip", "br", "zstd" } do
      probe.answer = function()
        return 200, { { "Content-Encoding", name } }, coding.encode(name, ("moon"):rep(1000))
      end
      assert.equal("4000", probe.request "return #gate.fetch('app', { stream = true }).body:text()")
      assert.equal("4000", probe.request "return #gate.fetch('app').body")
    end
  end)

  it("has no body for HEAD and 204", function()
    assert.equal("nil|200", probe.request [[
      local res = gate.fetch("app", { method = "HEAD", stream = true })
      return res.body, res.status
    ]])
  end)

  it("is closed by close, by <close> and by the end of the hook", function()
    for _, how in ipairs {
      "res:close()",
      "do local closing <close> = res end",
      "return 'the hook ends'",
    } do
      local server = net.listen()
      local client = net.connect(probe.port)
      client:send(("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"):format(probe.field("on_request", ([[
        local res = gate.fetch("http://%s/", { stream = true })
        %s
        gate.sleep(1000)
      ]]):format(server.address, how:find "^return" and "do " .. how .. " end" or how))))
      local conn = server:accept()
      http.request_head(conn)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
      conn:expect_closed()
      client:reset()
    end
  end)

  it("is closed when it is collected", function()
    local server = net.listen()
    probe.request(([[
      gate.spawn(function()
        gate.fetch("http://%s/", { stream = true })
        for _ = 1, 2000 do
          local garbage = {}
          for i = 1, 100 do garbage[i] = { i } end
          gate.sleep(0.001)
        end
      end)
      return "spawned"
    ]]):format(server.address))
    local conn = server:accept()
    http.request_head(conn)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    conn:expect_closed()
  end)

  it("cannot be used once it is closed", function()
    assert.equal("200|false|true", probe.request [[
      local res = gate.fetch("app", { stream = true })
      local body = res.body
      res:close()
      res:close()
      local ok, why = pcall(function() return body:text() end)
      return res.status, ok, why:find("closed", 1, true) ~= nil
    ]])
  end)

  it("says what breaks in the middle", function()
    local cut = net.listen(function(conn)
      http.request_head(conn)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
      conn:close()
    end)
    assert.equal("truncated", probe.request(([[
      local res = gate.fetch("http://%s/", { stream = true })
      local text, word = res.body:text()
      return word
    ]]):format(cut.address)))
  end)

  it("is held to a timeout that was given", function()
    local slow = net.listen(function(conn)
      http.request_head(conn)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
      conn:expect_closed()
    end)
    assert.equal("total_timeout", probe.request(([[
      local res = gate.fetch("http://%s/", { stream = true, timeout = 0.5 })
      local text, word = res.body:text()
      return word
    ]]):format(slow.address)))
  end)

  it("is relayed as a reply, changed or not", function()
    local text = ("the moon "):rep(30000 // scale)
    probe.answer = text
    local response = probe.verdict [[
      local res = gate.fetch("app", { stream = true })
      return gate.reply(res.status, res.body, { ["X-Relayed"] = "1", ["Content-Type"] = "text/x" })
    ]]
    assert.equal(text, response.body)
    assert.equal("1", response.headers["X-Relayed"])
    assert.equal(tostring(#text), response.headers["Content-Length"])
    response = probe.verdict [[
      local res = gate.fetch("app", { stream = true })
      return gate.reply(200, res.body:replace("moon", "sun"), res.headers)
    ]]
    assert.equal((text:gsub("moon", "sun")), response.body)
    response = probe.verdict [[
      local res = gate.fetch("app", { stream = true })
      return gate.reply(200, res.body:map(function(p) return p and p:upper() end))
    ]]
    assert.equal(text:upper(), response.body)
  end)

  it("is relayed as a 205, whose content is cut off", function()
    probe.answer = function() return 205, {}, "content" end
    local response = probe.verdict [[
      local res = gate.fetch("app", { stream = true })
      return gate.reply(res.status, res.body, res.headers)
    ]]
    assert.same({ 205, "", "0" }, { response.status, response.body, response.headers["Content-Length"] })
  end)

  it("is relayed with the coding it has", function()
    local bytes = coding.encode("gzip", "moon")
    probe.answer = function() return 200, { { "Content-Encoding", "gzip" } }, bytes end
    local relay = "return gate.reply(200, gate.fetch('app', { stream = true }).body)"
    local response = probe.verdict(relay)
    assert.equal("gzip", response.headers["Content-Encoding"])
    assert.equal(bytes, response.body)
  end)

  it("is relayed once", function()
    local response = probe.verdict [[
      local res = gate.fetch("app", { stream = true })
      local reply = gate.reply(200, res.body)
      res:close()
      return reply
    ]]
    assert.equal(500, response.status)
    probe.proxy:wait_log "whose body was read, sent or closed"
  end)

  it("stops the server when the client of a relay leaves", function()
    local server = net.listen()
    local client = net.connect(probe.port)
    client:send(("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"):format(probe.field("on_request", ([[verdict:
      return gate.reply(200, gate.fetch("http://%s/", { stream = true }).body)
    ]]):format(server.address))))
    local conn = server:accept()
    http.request_head(conn)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"
    client:read_until "half"
    client:reset()
    conn:expect_closed()
  end)

  it("runs side by side", function()
    assert.equal("from the backendfrom the backend", probe.request [[
      local function get() return gate.fetch("app", { stream = true }).body:text() end
      local a, b = gate.all(get, get)
      return a .. b
    ]])
  end)
end)

describe("gate.fetch with a body that flows", function()
  support.setup(probe.start)
  before_each(function() probe.answer = "from the backend" end)

  it("sends what a function gives, until it gives nil", function()
    assert.equal("200", probe.request [[
      local n = 0
      return gate.fetch("app", { body = function()
        n = n + 1
        if n % 2 == 0 then gate.sleep(0.001) end
        return n <= 50 and ("x"):rep(10000) or nil
      end }).status
    ]])
    assert.equal(500000, #last().body)
    assert.equal("POST", last().method)
    assert.equal("chunked", last().headers["Transfer-Encoding"])
  end)

  it("raises when that function fails, and the server does not take it for whole", function()
    for _, f in ipairs { "error 'oops'", "return 5", "return ('x'):rep(2000000)" } do
      local text = probe.request(([[
        local n = 0
        gate.fetch("app", { body = function() n = n + 1 if n == 2 then %s end return "x" end })
      ]]):format(f))
      assert(text:find("raised: .*the function that makes the body failed"), text)
    end
  end)

  it("sends the request's own body on", function()
    local sent = ("abc"):rep(100000 // scale)
    for _, body in ipairs { sent, { sent:sub(1, 1000), sent:sub(1001) } } do
      assert.equal("from the backend", probe.request("return gate.fetch('app', { body = req.body }).body",
        { method = "POST", body = body }))
      assert.equal(sent, last().body)
    end
    probe.request("return gate.fetch('app', { body = req.body:replace('b', 'x') }).body",
      { method = "POST", body = sent })
    assert.equal((sent:gsub("b", "x")), last().body)
  end)

  it("fails a request that is forwarded all the same", function()
    local response = probe.exchange({ on_request = "gate.fetch('app', { body = req.body })" },
      { method = "POST", body = "abc" })
    assert.equal(500, response.status)
    probe.proxy:wait_log "gave the request's body to gate.fetch"
  end)

  it("sends one answer on as the next request", function()
    probe.answer = function(request)
      if request.method == "GET" then return 200, nil, { ("x"):rep(100000 // scale), ("y"):rep(100000 // scale) } end
      return 200, nil, tostring(#request.body)
    end
    assert.equal(tostring(200000 // scale), probe.request [[
      return gate.fetch("app", { body = gate.fetch("app", { stream = true }).body }).body
    ]])
  end)

  it("fails when the answer it sends on breaks", function()
    local cut = net.listen(function(conn)
      http.request_head(conn)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
      conn:close()
    end)
    assert.equal("nil|truncated", probe.request(([[
      local from = gate.fetch("http://%s/", { stream = true })
      local res, word = gate.fetch("app", { body = from.body })
      return res, word
    ]]):format(cut.address)))
  end)
end)

describe("gate.fetch with redirects", function()
  support.setup(probe.start)

  local function redirecting(map)
    probe.answer = function(request)
      local to = map[request.target:match "^[^?]*"]
      if to then return to[1], { { "Location", to[2] } }, "moved" end
      return 200, nil, ("%s %s %s"):format(request.method, request.target, request.body)
    end
  end

  it("gives them as answers unless told to follow", function()
    redirecting { ["/a"] = { 302, "/b" } }
    assert.equal("302|moved", probe.request "local r = gate.fetch('app', { path = '/a' }) return r.status, r.body")
  end)

  it("follows as many as it may", function()
    redirecting { ["/a/x"] = { 302, "../b?q=1" }, ["/b"] = { 301, "c" }, ["/c"] = { 307, "/d#gone" } }
    assert.equal("GET /d ", probe.request "return gate.fetch('app', { path = '/a/x', redirects = 3 }).body")
    assert.equal("307", probe.request "return gate.fetch('app', { path = '/a/x', redirects = 2 }).status")
    redirecting { ["/a"] = { 302, "?z=1" } }
    assert.equal("302", probe.request "return gate.fetch('app', { path = '/a', redirects = 20 }).status")
  end)

  it("repeats the body where the status says so, else makes it a GET", function()
    redirecting { ["/a"] = { 307, "/b" }, ["/c"] = { 303, "/d" }, ["/e"] = { 302, "/f" } }
    local fetch = "return gate.fetch('app', { method = '%s', path = '%s', body = 'x', redirects = 1 }).body"
    assert.equal("PUT /b x", probe.request(fetch:format("PUT", "/a")))
    assert.equal("GET /d ", probe.request(fetch:format("PUT", "/c")))
    assert.equal("GET /f ", probe.request(fetch:format("POST", "/e")))
    assert.equal("PUT /f x", probe.request(fetch:format("PUT", "/e")))
    for path, status in pairs { ["/a"] = "307", ["/c"] = "200", ["/e"] = "302" } do
      assert.equal(status, probe.request(([[
        local n = 0
        local function once() n = n + 1 return n == 1 and "x" or nil end
        return gate.fetch("app", { method = "PUT", path = "%s", redirects = 1, body = once }).status
      ]]):format(path)))
    end
  end)

  it("leaves credentials with their origin", function()
    local other = http.backend(function(request)
      local headers = request.headers
      return 200, nil, ("%s %s %s"):format(headers["Authorization"], headers["Cookie"], headers["X-A"])
    end)
    redirecting { ["/a"] = { 302, ("http://%s/there"):format(other.address) }, ["/b"] = { 302, "/c" } }
    local headers = "{ Authorization = 'secret', Cookie = 'a=b', ['X-A'] = '1' }"
    assert.equal("nil nil 1", probe.request(
      ("return gate.fetch('app', { path = '/a', redirects = 1, headers = %s }).body"):format(headers)))
    probe.request(("return gate.fetch('app', { path = '/b', redirects = 1, headers = %s }).body"):format(headers))
    assert.equal("secret", last().headers["Authorization"])
  end)

  it("follows nowhere it cannot go", function()
    for _, where in ipairs { "ftp://a/", "http://", "http://user@a/", "//", "" } do
      redirecting { ["/a"] = { 302, where } }
      assert.equal("302", probe.request "return gate.fetch('app', { path = '/a', redirects = 3 }).status")
    end
  end)

  it("follows from http to https", function()
    redirecting { ["/a"] = { 302, "https://127.0.0.1:1/" } }
    assert.equal("connect_refused",
      probe.request "return (select(2, gate.fetch('app', { path = '/a', redirects = 1 })))")
  end)

  it("refuses a number that is none", function()
    for _, n in ipairs { "-1", "21", "1.5", "'1'", "true" } do
      probe.raises("redirects is a whole number", ("gate.fetch('app', { redirects = %s })"):format(n))
    end
    probe.raises("stream is true or false", "gate.fetch('app', { stream = 1 })")
  end)
end)

describe("gate.fetch within an exchange", function()
  it("lasts no longer than what is left of the exchange's total", function()
    local silent = net.listen(function(conn) http.request_head(conn) conn:expect_closed() end)
    local proxy = support.moongate.start { values = { BACKEND = silent }, config = [[
      local gate = require "moongate"
      local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } }, timeouts = { total = "300ms" } }
      function site.on_request(req)
        local began = gate.clock()
        local function ended() gate.log("info", "ended", gate.clock() - began < 2) end
        local closed <close> = setmetatable({}, { __close = ended })
        gate.fetch("app", { timeout = 30 })
      end
      return site
    ]] }
    assert.equal(504, http.get(proxy.port, "/").status)
    proxy:wait_log "ended true"
  end)
end)
