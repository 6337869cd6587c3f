local support = require "support"
local probe = require "core.lua.probe"
local testing = require "moongate.testing"
local it, http, net = support.it, support.http, support.net

describe("gate.fetch", function()
  support.setup(probe.start)

  before_each(function() probe.answer = "from the backend" end)

  local function last() return probe.backend.requests[#probe.backend.requests] end

  local show = "return res and res.status, res and res.body or word, type(res and res.time)"
  local function fetched(arguments)
    return probe.request(("local res, word = gate.fetch(%s) %s"):format(arguments, show))
  end

  -- The word of a fetch that fails.
  local function failed(arguments)
    return probe.request(("local res, word = gate.fetch(%s) return res or word"):format(arguments))
  end

  it("asks a backend of the site and gives the whole answer", function()
    assert.equal("200|from the backend|number", fetched "'app'")
    assert.equal("GET", last().method)
    assert.equal("/", last().target)
    assert.equal(probe.backend.address, last().headers["Host"])
    assert.equal("moongate", last().headers["User-Agent"])
  end)

  it("asks a URL", function()
    assert.equal("200|from the backend|number", fetched("'http://" .. probe.backend.address .. "/path?x=1#gone'"))
    assert.equal("/path?x=1", last().target)
    assert.equal(probe.backend.address, last().headers["Host"])
    fetched("'http://" .. probe.backend.address .. "'")
    assert.equal("/", last().target)
  end)

  it("asks what gate.backend gave", function()
    assert.equal("200|from the backend|number", fetched "gate.backend 'app'")
  end)

  it("sends what its options say", function()
    fetched [["app", { method = "PUT", path = "/a b?x=1", query = "y=2", args = { z = "3 &" }, body = "content",
      headers = { ["X-A"] = 1, ["X-B"] = { "b", "c" }, Host = "inner.example" } }]]
    local request = last()
    assert.equal("PUT", request.method)
    assert.equal("/a%20b?x=1&y=2&z=3%20%26", request.target)
    assert.equal("content", request.body)
    assert.equal("7", request.headers["Content-Length"])
    assert.equal("1", request.headers["X-A"])
    assert.same({ "b", "c" }, request.headers:all "X-B")
    assert.same({ "inner.example" }, request.headers:all "Host")
  end)

  it("posts what has a body, with its length, an empty one too", function()
    fetched "'app', { body = '' }"
    assert.equal("POST", last().method)
    assert.equal("0", last().headers["Content-Length"])
    fetched "'app', { method = 'POST' }"
    assert.equal("0", last().headers["Content-Length"])
    fetched "'app', { body = ('x'):rep(300000) }"
    assert.equal(300000, #last().body)
  end)

  it("adds arguments to a URL", function()
    fetched("'http://" .. probe.backend.address .. "/p?x=1', { args = { y = { 1, 2 } } }")
    assert.equal("/p?x=1&y=1&y=2", last().target)
  end)

  it("gives headers that outlive the exchange", function()
    probe.answer = function() return 201, { { "X-A", "1" }, { "Set-Cookie", "a" }, { "Set-Cookie", "b" } }, "x" end
    assert.equal("1|nil|2", probe.request [[
      local answer = gate.fetch "app"
      upvalue.kept = answer.headers
      return answer.headers["x-a"], answer.headers.Nope, #answer.headers:all "Set-Cookie"
    ]])
    assert.equal("1|X-A", probe.request [[
      local seen
      for name in pairs(upvalue.kept) do if name == "X-A" then seen = name end end
      return upvalue.kept["X-A"], seen
    ]])
    probe.raises("read-only", "upvalue.kept['X-A'] = '2'")
    probe.raises("read-only", "upvalue.kept:add('X-A', '2')")
  end)

  it("takes any status for an answer, with and without a body", function()
    probe.answer = function() return 503, nil, "sorry" end
    assert.equal("503|sorry|number", fetched "'app'")
    probe.answer = function() return 204 end
    assert.equal("204||number", fetched "'app'")
    probe.answer = "text"
    assert.equal("200||number", fetched "'app', { method = 'HEAD' }")
  end)

  it("takes long answers up to max", function()
    probe.answer = ("x"):rep(3000000)
    assert.equal("3000000", probe.request "return #gate.fetch('app').body")
    probe.answer = function() return 200, nil, { ("x"):rep(1000), ("y"):rep(1000) } end
    assert.equal("2000", probe.request "return #gate.fetch('app', { max = 2000 }).body")
    local sentence = "the answer's body is larger than 1999 bytes"
    assert.equal("nil|too_large|" .. sentence, probe.request "return gate.fetch('app', { max = 1999 })")
    assert.equal("too_large", failed "'app', { max = '1K' }")
  end)

  it("says why there is no answer", function()
    assert.equal("connect_refused", failed "'dead'")
    assert.equal("nil|connect_refused|the server refused the connection",
      probe.request(("return gate.fetch 'http://127.0.0.1:%d/'"):format(support.refusing_port())))
    local nonsense = net.listen(function(conn) http.request_head(conn) conn:send "nonsense\r\n\r\n" conn:close() end)
    assert.equal("bad_response", failed(("'http://%s/'"):format(nonsense.address)))
    local cut = net.listen(function(conn)
      http.request_head(conn)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
      conn:close()
    end)
    assert.equal("truncated", failed(("'http://%s/'"):format(cut.address)))
  end)

  it("gives up after its timeout, before the head and in the body", function()
    local silent = net.listen(function(conn) http.request_head(conn) conn:expect_closed() end)
    assert.equal("total_timeout", failed(("'http://%s/', { timeout = '50ms' }"):format(silent.address)))
    local slow = net.listen(function(conn)
      http.request_head(conn)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
      conn:expect_closed()
    end)
    assert.equal("total_timeout", failed(("'http://%s/', { timeout = 0.05 }"):format(slow.address)))
  end)

  it("runs side by side", function()
    local waiting = 0
    probe.answer = function(request)
      waiting = waiting + 1
      support.eventually("both to have come", function() return waiting == 2 end)
      return 200, nil, request.target
    end
    assert.equal("/a|/b", probe.request [[
      return gate.all(function() return gate.fetch("app", { path = "/a" }).body end,
                      function() return gate.fetch("app", { path = "/b" }).body end)
    ]])
  end)

  it("is closed when the client leaves", function()
    local server = net.listen()
    local client = net.connect(probe.port)
    client:send(("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"):format(
      probe.field("on_request", ("return gate.fetch 'http://%s/'"):format(server.address))))
    local conn = server:accept()
    http.request_head(conn)
    client:reset()
    conn:expect_closed()
  end)

  it("works in every hook that may wait", function()
    assert.equal("from the backend", probe.exchange({ on_response = "return gate.fetch('app').body" }).body)
    assert.equal("from the backend", probe.exchange({ pick_backend = "return gate.fetch('app').body" }).body)
    probe.exchange { on_log = "return gate.fetch('app').status" }
    probe.proxy:wait_log "on_log says 200"
    probe.request "gate.spawn(function() gate.log('info', 'spawned', gate.fetch('app').status) end) return 'x'"
    probe.proxy:wait_log "spawned 200"
  end)

  it("reuses connections", function()
    local conns = {}
    probe.answer = function(request) conns[request.conn] = true return 200, nil, "x" end
    probe.request "for i = 1, 5 do gate.fetch 'app' end return 'done'"
    local n = 0
    for _ in pairs(conns) do n = n + 1 end
    assert.equal(1, n)
  end)

  it("cannot wait inside table.sort", function()
    probe.raises("cannot wait inside", "table.sort({ 1, 2 }, function() gate.fetch 'app' end)")
  end)

  it("refuses what is no target", function()
    probe.raises("there is no backend 'nope'", "gate.fetch 'nope'")
    local none = {
      "http://", "http://a b/", "ftp://a/", "http://a:99999/", "http://user@a/", "http://a/\\r\\nX: y", "://",
      "http:///x",
    }
    for _, target in ipairs(none) do
      probe.raises("not a valid http:// or https:// URL", ("gate.fetch '%s'"):format(target))
    end
    probe.raises("a backend's name or a URL expected", "gate.fetch()")
    probe.raises("a backend's name or a URL expected", "gate.fetch({})")
    probe.raises("a backend's name or a URL expected", "gate.fetch(5)")
    probe.raises("a backend's name or a URL expected", "gate.fetch(req)")
  end)

  it("refuses options that are none", function()
    probe.raises("table expected", "gate.fetch('app', 'x')")
    probe.raises("did you mean 'headers'", "gate.fetch('app', { header = {} })")
    probe.raises("are strings", "gate.fetch('app', { 'x' })")
    probe.raises("method is a token", "gate.fetch('app', { method = 'G T' })")
    probe.raises("method is a string", "gate.fetch('app', { method = 5 })")
    probe.raises("CONNECT", "gate.fetch('app', { method = 'CONNECT' })")
    probe.raises('path begins with "/"', "gate.fetch('app', { path = 'x' })")
    probe.raises("path is a string", "gate.fetch('app', { path = {} })")
    probe.raises("the URL has the path already", "gate.fetch('http://127.0.0.1:1/', { path = '/x' })")
    probe.raises("args is a table", "gate.fetch('app', { args = 'x=1' })")
    probe.raises("name to value", "gate.fetch('app', { args = { 'x' } })")
    probe.raises("args.x is a string", "gate.fetch('app', { args = { x = true } })")
    probe.raises("headers are a table", "gate.fetch('app', { headers = 'x' })")
    probe.raises("core's own", "gate.fetch('app', { headers = { ['Content-Length'] = '5' } })")
    probe.raises("control character", "gate.fetch('app', { headers = { ['X-A'] = 'a\\r\\nb' } })")
    probe.raises("Host is one", "gate.fetch('app', { headers = { Host = 'a b' } })")
    probe.raises("Host is one", "gate.fetch('app', { headers = { Host = { 'a', 'b' } } })")
    probe.raises("body is a string", "gate.fetch('app', { body = {} })")
    for _, value in ipairs { "0", "-1", "'x'", "1/0", "0/0", "{}", "true" } do
      probe.raises("timeout is seconds", ("gate.fetch('app', { timeout = %s })"):format(value))
    end
    for _, value in ipairs { "-1", "1.5", "'x'", "1/0", "{}", "true" } do
      probe.raises("max is bytes", ("gate.fetch('app', { max = %s })"):format(value))
    end
  end)

  it("bounds what it copies", function()
    probe.raises("path is longer than 64 KiB", "gate.fetch('app', { path = '/' .. ('x'):rep(70000) })")
    probe.raises("query is longer than 64 KiB", "gate.fetch('app', { query = ('x'):rep(70000) })")
    probe.raises("query is longer than 64 KiB", [[
      local list = {}
      for i = 1, 100000 do list[i] = "x" end
      gate.fetch("app", { args = { a = list } })
    ]])
    probe.raises("headers are larger than 256 KiB", [[
      local headers, value = {}, ("x"):rep(60000)
      for i = 1, 100 do headers["X-" .. i] = { value, value, value } end
      gate.fetch("app", { headers = headers })
    ]])
  end)

  it("sends no line break, wherever it is put", function()
    fetched [["app", { path = "/a\r\nX-Evil: 1", query = "b\r\nX-Evil: 1", args = { ["c\r\n"] = "d\r\nX-Evil: 1" } }]]
    assert.equal("/a%0D%0AX-Evil:%201?b%0D%0AX-Evil:%201&c%0D%0A=d%0D%0AX-Evil%3A%201", last().target)
    assert.equal("nil", tostring(last().headers["X-Evil"]))
  end)
end)

describe("a backend whose name several sites have", function()
  local function load(body)
    local kit = testing.load { text = ([[
      local gate = require "moongate"
      local function site(name, address)
        local self = { listen = 8080, hosts = { name }, cache = { memory = "1M" }, backends = { app = { address } } }
        %s
        return self
      end
      return { sites = { site("one.test", "127.0.0.1:9001"), site("two.test", "127.0.0.1:9002") } }
    ]]):format(body) }
    return kit:backend("app", { headers = { ["Cache-Control"] = "max-age=60" }, body = "x" })
  end

  it("is that of the site, in what its hooks spawn as well", function()
    local kit = load [[
      function self.on_request()
        gate.spawn(function() gate.fetch("app") gate.spawn(gate.fetch, gate.backend "app") end)
        return 204
      end]]
    for host, server in pairs { ["one.test"] = "127.0.0.1:9001", ["two.test"] = "127.0.0.1:9002" } do
      local before = #kit:fetched()
      kit:request { path = "/", host = host }
      kit:advance(1)
      local fetched = kit:fetched()
      assert.same({ 2, server, server }, { #fetched - before, fetched[#fetched - 1].server, fetched[#fetched].server })
    end
  end)

  it("is on a site whose cache a spawned task purges by itself", function()
    local kit = load [[
      function self.on_request(req)
        if req.path == "/purge" then gate.spawn(gate.cache.purge, { all = true }) return 204 end
      end]]
    local function cached(host) return kit:request({ path = "/", host = host }).cache end
    cached "one.test"
    cached "two.test"
    assert.same({ "hit", "hit" }, { cached "one.test", cached "two.test" })
    kit:request { path = "/purge", host = "one.test" }
    kit:advance(1)
    assert.same({ "miss", "hit" }, { cached "one.test", cached "two.test" })
  end)
end)
