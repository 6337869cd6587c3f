-- The test kit, as tests of policies use it.

local testing = require "moongate.testing"

local function load(text, options)
  return testing.load({ text = text }, options)
end

-- A site with one backend, `app`, and the hooks of `body`.
local function site(body)
  return ([[
    local gate = require "moongate"
    local site = { listen = "127.0.0.1:8080", backends = { app = { "127.0.0.1:9001", "127.0.0.1:9002" } } }
    %s
    return site
  ]]):format(body or "")
end

local function raises(sentence, f, ...)
  local ok, problem = pcall(f, ...)
  assert(not ok and tostring(problem):find(sentence, 1, true), tostring(problem))
end

describe("kit.load", function()
  it("raises every error of a config with file and line", function()
    raises("config.lua:2: listen: ", load, "return {\n  listen = 'nowhere',\n  backends = { app = { 1 } } }")
    raises("config.lua:3: backends.app[1]: ", load, "return {\n  listen = 'nowhere',\n  backends = { app = { 1 } } }")
    raises("config.lua:1: ", load, "this is no Lua")
  end)

  it("loads a file with the modules beside it, and a text as if it stood here", function()
    local kit = testing.load "examples/hello.lua"
    assert.equal(200, kit:request("/").status)
    local text = 'return { listen = 8080, use = { require "scripts.request_id" {} }, on_request = 204 }'
    kit = testing.load { text = text }
    assert.equal(204, kit:request("/").status)
    assert.same("config.lua", kit:files()[1])
  end)

  it("runs on_load, which may wait, and raises what it raises", function()
    local text = site [[
      local seen
      function site.on_load() gate.sleep(3) seen = gate.fetch("http://config.test/").body end
      function site.on_request() return gate.reply(200, seen) end
    ]]
    local kit = load(text, { stubs = { ["http://config.test/"] = "from afar", ["http://*"] = "else" } })
    assert.equal("from afar", kit:request("/").body)
    raises("attempt to index a nil value", load, text)
    raises('this config has no backend "b"; it has app', load, site(), { backends = { b = 204 } })
    raises("config.lua:4: on_load: sorry", load, site [[
      -- a comment
      function site.on_load() error "sorry" end]])
  end)

  it("ends an on_load that takes too long, and says which", function()
    raises("config.lua:2: on_load: it took longer than 10 s", testing.load, { text = [[
return { listen = 8080, on_request = 204,
  on_load = function() require("moongate").sleep(11) end }]] })
  end)

  it("ends the kit before it", function()
    local first = load(site())
    local second = load(site())
    raises("the kit is closed", first.request, first, "/")
    second:close()
    second:close()
    raises("the kit is closed", second.request, second, "/")
  end)

  it("begins with nothing in the shared dictionaries", function()
    local counting = site [[
      local hits = gate.shared "hits"
      function site.on_request() return gate.reply(200, tostring(hits:incr("n", 1, 0))) end
    ]]
    local kit = load(counting)
    assert.equal("1", kit:request("/").body)
    assert.equal("2", kit:request("/").body)
    assert.equal("1", load(counting):request("/").body)
  end)

  it("refuses options it does not know", function()
    raises("unknown field \"nou\"; there are backends, names, now, seed, stubs", load, site(), { nou = 1 })
    raises("expected a file's path or { text = … }", testing.load, 7)
  end)
end)

describe("a request of the kit", function()
  it("is answered by the backend's stub, with what was asked of it", function()
    local kit = load(site "function site.on_request(req) req.headers['X-User'] = 'ann' end")
    kit:backend("app", function(request)
      return { status = 201, headers = { ["X-Saw"] = request.headers["x-user"] }, body = "you asked " .. request.path }
    end)
    local res = kit:request { method = "PUT", path = "/a?b=c", headers = { Accept = { "x", "y" } }, body = "content" }
    assert.equal(201, res.status)
    assert.equal("ann", res.headers["x-saw"])
    assert.equal("you asked /a", res.body)
    assert.equal("backend", res.source)
    assert.same({ "app" }, res.tried)
    local got = res.fetched[1]
    assert.same({ "PUT", "/a?b=c", "/a", "b=c", "content", "app", "127.0.0.1:9001", 201 },
      { got.method, got.target, got.path, got.query, got.body, got.backend, got.server, got.status })
    assert.equal("x, y", got.headers.accept)
    assert.same({ "x", "y" }, got.headers:all "Accept")
  end)

  it("fails the test when nothing is stubbed for what the policy asks", function()
    local kit = load(site "function site.on_request(req) if req.path == '/f' then gate.fetch 'http://x.test/y' end end")
    raises('no answer is stubbed for the backend "app"', kit.request, kit, "/")
    kit:backend("app", 204)
    raises("no answer is stubbed for http://x.test", kit.request, kit, "/f")
    kit:stub("http://x.test/other", "")
    raises("no answer is stubbed for GET http://x.test/y", kit.request, kit, "/f")
    kit:stub("http://x.test/*", "")
    assert.equal(204, kit:request("/f").status)
    raises('this config has no backend "ap"; it has app', kit.backend, kit, "ap", "")
  end)

  it("names the socket that nothing is stubbed for as the policy does", function()
    local kit = load(site [[
      function site.on_request() return gate.socket.connect("redis.test", 6379) and 200 or 503 end]])
    raises('the socket to redis.test:6379: kit:socket("redis.test:6379", …)', kit.request, kit, "/")
    kit:socket("redis.test:6379", function() end)
    assert.equal(200, kit:request("/").status)
  end)

  it("refuses an answer that is none where it is given", function()
    local kit = load(site())
    for answer, problem in pairs {
      [5] = "kit:backend: status: expected 100 to 999, got 5",
      [{ status = "200" }] = "kit:backend: status: expected 100 to 999, got 200",
      [{ headers = "X-A: 1" }] = "kit:backend: headers: expected a table of names and values, got string",
      [{ headers = { ["a b"] = "c" } }] = 'kit:backend: header name "a b" is no token',
      [{ trailers = { a = "b\r\n" } }] = "kit:backend: header a: expected a string or number without line breaks",
      [{ error = "gone" }] = 'kit:backend: unknown error "gone"',
    } do raises(problem, kit.backend, kit, "app", answer) end
  end)

  it("passes errors of a stub's function on", function()
    local kit = load(site())
    kit:backend("app", function() error "the stub's own mistake" end)
    raises("the stub's own mistake", kit.request, kit, "/")
    kit:backend("app", function() return kit:request("/") end)
    raises("this cannot be called within a stub", kit.request, kit, "/")
    kit:backend("app", function() return true end)
    raises("expected a body, a status or a table, got boolean", kit.request, kit, "/")
    kit:backend("app", "well again")
    assert.equal("well again", kit:request("/").body)
  end)

  it("tells of replies, errors and what was logged", function()
    local kit = load(site [[
      function site.on_request(req)
        gate.log("seen " .. req.path)
        if req.path == "/no" then return gate.reply(403, "no\n") end
        error "broken"
      end]])
    local res = kit:request "/no"
    assert.same({ 403, "reply", nil }, { res.status, res.source, res.error })
    assert(res.logs[1].text:find("seen /no", 1, true))
    res = kit:request "/yes"
    assert.same({ 500, "error", "hook_failed", "on_request" }, { res.status, res.source, res.error, res.failed_hook })
    assert.equal("error", res.logs[2].level)
    assert(res.logs[2].text:find("broken", 1, true))
    assert.equal(3, #kit:logs())
  end)

  it("fails as the stub says, with the failure's own word", function()
    local kit = load(site())
    local expected = {
      connect_refused = { 502, 0 }, connect_failed = { 502, 0 }, connect_timeout = { 504, 10 }, reset = { 502, 0 },
      first_byte_timeout = { 504, 60 }, bad_response = { 502, 0 },
    }
    for word, outcome in pairs(expected) do
      kit:backend("app", { error = word })
      local res = kit:request "/"
      assert.same({ word, outcome[1], outcome[2] }, { res.error, res.status, res.time })
    end
    for word in pairs { truncated = 1, between_timeout = 1 } do
      kit:backend("app", { error = word, body = "0123456789" })
      local res = kit:request "/"
      assert.same({ 200, word, "01234", false }, { res.status, res.error, res.body, res.whole })
    end
    raises("unknown error \"tired\"", kit.backend, kit, "app", { error = "tired" })
  end)

  it("tries servers in order, each with its own stub", function()
    local kit = load(site())
    kit:backend("app/127.0.0.1:9001", { error = "connect_refused" })
    kit:backend("app/127.0.0.1:9002", "the second")
    local res = kit:request "/"
    assert.equal("the second", res.body)
    assert.same({ "127.0.0.1:9001", "127.0.0.1:9002" }, res.servers)
    assert.same({ "connect_refused", 200 }, { res.fetched[1].error, res.fetched[2].status })
    assert.equal(2, res.tries)
  end)

  it("carries any body, in a length or in chunks, and the client's trailers", function()
    local kit = load(site())
    kit:backend("app", function(request) return { body = { request.body, "|", request.trailers["x-sum"] or "" },
      trailers = { ["X-Done"] = "yes" } } end)
    local big = ("0123456789"):rep(30000)
    assert.equal(big .. "|", kit:request({ body = big }).body)
    local res = kit:request { method = "POST", body = { "one ", "two" }, trailers = { ["X-Sum"] = "7" } }
    assert.equal("one two|7", res.body)
    assert.equal("yes", res.trailers["x-done"])
    kit:backend("app", { status = 200, headers = { ["Content-Length"] = 12 } })
    assert.equal("12", kit:request({ method = "HEAD" }).headers["Content-Length"])
  end)

  it("comes from the client, to the host and listener that it says", function()
    local kit = load [[
      local gate = require "moongate"
      local function tell(name)
        return function(req)
          return gate.reply(200, ("%s %s %s %s"):format(name, req.host, req.client.ip, req.client.port))
        end
      end
      return { sites = {
        { listen = "127.0.0.1:8080", hosts = { "a.test", "*.b.test" }, on_request = tell "a" },
        { listen = { "127.0.0.1:8080", "127.0.0.1:9090" }, on_request = tell "rest" },
      } }
    ]]
    local function body(options) return kit:request(options).body end
    assert.equal("a a.test 127.0.0.1 40000", body {})
    assert.equal("a any.b.test 10.1.2.3 7", body { host = "any.b.test", client = { ip = "10.1.2.3", port = 7 } })
    assert.equal("rest other.test 2001:db8::1 40000", body { host = "other.test", client = { ip = "2001:db8::1" } })
    assert.equal("rest a.test 127.0.0.1 40000", body { host = "a.test", listen = "127.0.0.1:9090" })
    assert.equal("a a.test 127.0.0.1 40000", body { site = "a.test" })
    raises("there is no site \"c.test\"", kit.request, kit, { site = "c.test" })
    raises("nothing of this config listens there", kit.request, kit, { listen = "127.0.0.1:1" })
    raises("client.ip is no IP address", kit.request, kit, { client = { ip = "me" } })
    raises("unknown field \"methd\"", kit.request, kit, { methd = "GET" })
  end)

  it("may be bytes, well-formed or not", function()
    local kit = load(site())
    kit:backend("app", 204)
    assert.equal(204, kit:request({ raw = "GET / HTTP/1.0\r\n\r\n" }).status)
    assert.equal("bad_request", kit:request({ raw = "GET / HTTP/1.1\nHost: a\n\n" }).error)
    local res = kit:request { raw = "GET / HT" }
    assert.same({ 408, "head_timeout", 10 }, { res.status, res.error, math.floor(res.time + 10) })
  end)

  it("is given up when the client leaves", function()
    local kit = load(site [[
      function site.on_request(req)
        local closed <close> = setmetatable({}, { __close = function() gate.log "closed" end })
        gate.sleep(5)
      end]])
    local res = kit:request { leave = 2 }
    assert.same({ 0, "client_left", 2, false }, { res.status, res.error, res.time, res.whole })
    assert.equal("closed", res.logs[1].text:match "closed")
    assert.equal("cancelled", res.hooks[1].verdict)
  end)

  it("comes to nothing where on_connect does not let the client in", function()
    local kit = load(site [[
      function site.on_connect(client)
        if client.ip == "203.0.113.9" then gate.sleep(1) return false end
      end
      site.on_request = 204]])
    local res = kit:request { client = { ip = "203.0.113.9" } }
    assert.same({ 0, true, "" }, { res.status, res.turned_away, res.body })
    assert.same({ "on_connect", "no", 1 }, { res.hooks[1].hook, res.hooks[1].verdict, res.hooks[1].time })
    res = kit:request "/"
    assert.same({ 204, false }, { res.status, res.turned_away })
  end)

  it("says what each hook answered and changed", function()
    local kit = load(site [[
      site.cache = { memory = "1M" }
      site.use = { { on_request = function(req) req.headers["X-A"] = "1" end } }
      function site.on_request(req)
        req.path = "/new"
        req.headers.Accept = nil
      end
      function site.cache_key(req) return req.path, nil, 7, true, false, 1.5 end
      function site.pick_backend(req) return { "app/127.0.0.1:9002", "app" } end
      function site.on_response(req, res)
        res.headers.Server = nil
        res.status = 203
        res.body = "mine"
      end]])
    kit:backend("app", { headers = { Server = "x" }, body = "theirs" })
    local res = kit:request { path = "/old", headers = { Accept = "all" } }
    local hooks = res.hooks
    assert.equal(5, #hooks)
    assert.same({ "on_request", "use[1].on_request", "continue" }, { hooks[1].hook, hooks[1].policy, hooks[1].verdict })
    assert.same({ { field = 'req.headers["X-A"]', after = "1" } }, hooks[1].changes)
    assert.same({
      { field = "req.path", before = "/old", after = "/new" }, { field = 'req.headers["Accept"]', before = "all" },
    }, hooks[2].changes)
    assert.same({ "key", { "/new", nil, 7, true, false, 1.5, n = 6 } }, { hooks[3].verdict, hooks[3].key })
    assert.same(hooks[3].key, res.cache_key)
    assert.same({ "pick", "app/127.0.0.1:9002, app" }, { hooks[4].verdict, hooks[4].picked })
    assert.same({
      { field = "res.status", before = "200", after = "203" }, { field = 'res.headers["Server"]', before = "x" },
      { field = "res.body", after = "mine" },
    }, hooks[5].changes)
    assert.same({ 203, "mine" }, { res.status, res.body })
  end)

  it("tells of a hook that fails, also when its site goes on", function()
    local kit = load(site [[
      site.fail = { on_request = "continue" }
      function site.on_request(req) error "soft" end]])
    kit:backend("app", 204)
    local res = kit:request "/"
    assert.equal(204, res.status)
    assert.equal("continue", res.hooks[1].verdict)
    assert(res.hooks[1].error:find("config.lua:4: soft", 1, true), res.hooks[1].error)
  end)

  it("passes interim answers", function()
    local kit = load(site())
    kit:backend("app", { raw = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n" })
    local res = kit:request "/"
    assert.same({ 204, { 103 } }, { res.status, res.interim })
    kit:backend("app", "taken")
    res = kit:request { body = "x", headers = { Expect = "100-continue" } }
    assert.same({ 200, { 100 } }, { res.status, res.interim })
  end)

  it("ends a script that is over its budget, in real time", function()
    local kit = load(site "function site.on_request() while true do end end")
    local res = kit:request "/"
    assert.equal("hook_failed", res.error)
    assert(res.hooks[1].error:find("over its CPU budget (10 ms)", 1, true))
  end)
end)

describe("the kit's time", function()
  it("advances by seconds, and by nothing else", function()
    local kit = load(site())
    for _, seconds in ipairs { -1, 1e9, "1m", 0 / 0 } do
      raises("kit:advance: expected seconds, from 0 to below 1e9, got", kit.advance, kit, seconds)
    end
    raises("kit:advance: expected seconds", kit.advance, kit, nil)
  end)

  it("passes only as far as something waits for it", function()
    local kit = load(site "function site.on_request(req) gate.sleep(2) return 204 end", { now = 1000 })
    local began = os.clock()
    assert.equal(2, kit:request("/").time)
    assert(os.clock() - began < 1)
    assert.equal(1002, kit:now())
    kit:advance(0.5)
    assert.equal(1002.5, kit:now())
  end)

  it("is what scripts and answers are told", function()
    local kit = load(site [[
      function site.on_request(req)
        local before = gate.clock()
        gate.sleep(1.5)
        return gate.reply(200, ("%.1f %d %.1f"):format(gate.now(), os.time(), gate.clock() - before))
      end]], { now = 784111777 })
    local res = kit:request "/"
    assert.equal("784111778.5 784111778 1.5", res.body)
    assert.equal("Sun, 06 Nov 1994 08:49:38 GMT", res.headers.Date)
  end)

  it("lets repeated tasks run, and what they fetch be answered", function()
    local kit = load(site [[
      local n = 0
      gate.every(10, function() n = n + 1 gate.fetch("http://tick.test/" .. n) end)
      function site.on_request() return gate.reply(200, tostring(n)) end]])
    kit:stub("http://tick.test/*", 204)
    kit:advance(35)
    assert.equal("3", kit:request("/").body)
    local fetched = kit:fetched()
    assert.same({ "http://tick.test/1", "http://tick.test/2", "http://tick.test/3" },
      { fetched[1].url, fetched[2].url, fetched[3].url })
    assert.same({ 10, 20, 30 }, { fetched[1].at - 1000, fetched[2].at - 1000, fetched[3].at - 1000 })
  end)

  it("ends what lives for a time", function()
    local kit = load(site [[
      local seen = gate.shared "seen"
      function site.on_request()
        local first = seen:add("key", true, 60)
        return first and 201 or 200
      end]])
    assert.equal(201, kit:request("/").status)
    assert.equal(200, kit:request("/").status)
    kit:advance(61)
    assert.equal(201, kit:request("/").status)
  end)

  it("delays answers, whole and in the middle", function()
    local kit = load(site "site.timeouts = { first_byte = 3, between = 4 }")
    kit:backend("app", { delay = 2, body = { "a", 3, "b" } })
    local res = kit:request "/"
    assert.same({ 200, "ab", 5 }, { res.status, res.body, res.time })
    kit:backend("app", { delay = 3.5 })
    assert.equal("first_byte_timeout", kit:request("/").error)
    kit:backend("app", { body = { "a", 5, "b" } })
    assert.equal("between_timeout", kit:request("/").error)
  end)

  it("lets a server that refused rest, and come back", function()
    local kit = load(site())
    kit:backend("app/127.0.0.1:9001", { error = "connect_refused" })
    kit:backend("app/127.0.0.1:9002", "second")
    for _ = 1, 6 do kit:request "/" end
    assert.same({ "127.0.0.1:9002" }, kit:request("/").servers)
    assert.same({ "127.0.0.1:9002" }, kit:request("/").servers)
    kit:backend("app/127.0.0.1:9001", "first")
    kit:advance(10)
    local bodies = { kit:request("/").body, kit:request("/").body }
    table.sort(bodies)
    assert.same({ "first", "second" }, bodies)
  end)
end)

describe("the kit's world", function()
  it("rolls the same dice for the same seed", function()
    local dice = site "function site.on_request(req) return gate.reply(200, req.id .. math.random(1e9)) end"
    local function roll(seed) return load(dice, { seed = seed }):request("/").body end
    assert.equal(roll(1), roll(1))
    assert.not_equal(roll(1), roll(2))
  end)

  it("resolves names as it is told, and any other to some address", function()
    local kit = load [[return { listen = 8080, backends = { app = { "app.test:80" } } }]]
    kit:backend("app", 204)
    assert.equal("198.18.0.2:80", kit:request("/").servers[1])
    kit:resolve("app.test", { "10.0.0.7" })
    kit:advance(61)
    kit:request "/"
    assert.equal("10.0.0.7:80", kit:request("/").servers[1])
    local gone = [[return { listen = 8080, backends = { app = { "gone.test:80" } } }]]
    kit = load(gone, { names = { ["gone.test"] = false } })
    kit:backend("app", 204)
    assert.equal("name_not_found", kit:request("/").error)
  end)

  it("marks servers as a health check would, and makes none itself", function()
    local kit = load [[return { listen = 8080, backends = {
      app = { "127.0.0.1:9001", "127.0.0.1:9002", health = { path = "/healthz" } } } }]]
    kit:backend("app", 204)
    kit:advance(60)
    assert.equal(0, #kit:fetched())
    kit:health("app/127.0.0.1:9001", false)
    for _ = 1, 4 do assert.equal("127.0.0.1:9002", kit:request("/").servers[1]) end
    raises('there is no server "app/127.0.0.1:1"', kit.health, kit, "app/127.0.0.1:1", true)
  end)

  it("reloads a text that it was given, and the last one of several", function()
    local function answers(status) return { text = ("return { listen = 8080, on_request = %d }"):format(status) } end
    local kit = testing.load(answers(201))
    kit:reload()
    assert.equal(201, kit:request("/").status)
    kit:reload(answers(202))
    kit:reload()
    assert.equal(202, kit:request("/").status)
  end)

  it("reloads, with what on_unload hands over, and keeps the old config when the new one is wrong", function()
    local function version(n)
      return { text = site(([[
        local kept
        function site.on_load(state) kept = state end
        function site.on_unload() return { n = (kept and kept.n or 0) + 1 } end
        function site.on_request() return gate.reply(200, "%s " .. (kept and kept.n or 0)) end]]):format(n)) }
    end
    local kit = testing.load(version "a")
    assert.equal("a 0", kit:request("/").body)
    kit:reload(version "b")
    assert.equal("b 1", kit:request("/").body)
    raises("config.lua:1: ", kit.reload, kit, { text = "no" })
    assert.equal("b 1", kit:request("/").body)
    kit:reload(version "c")
    assert.equal("c 2", kit:request("/").body)
  end)

  it("answers sockets of scripts, by address and by name, with TLS and without", function()
    local kit = load(site [[
      function site.on_request(req)
        local s = gate.socket.tcp()
        s:settimeout(2)
        if req.path == "/dead" then return gate.reply(200, (select(2, s:connect("10.0.0.1", 7)))) end
        assert(s:connect("redis.test", 6379, req.path == "/tls" and { tls = true } or nil))
        local hello = s:receive "*l"
        if req.path == "/start" then assert(s:sslhandshake()) end
        s:send "PI"
        gate.sleep(1)
        s:send "NG\r\n"
        return gate.reply(200, hello .. " " .. s:receive "*l" .. " " .. tostring(select(2, s:receive "*l")))
      end]])
    local opened = 0
    kit:socket("redis.test:6379", function(bytes, memory)
      if bytes == "" then
        opened = opened + 1
        return "hello\r\n"
      end
      memory.all = (memory.all or "") .. bytes
      if memory.all == "PING\r\n" then return { 0.5, "PONG\r\n", ends = "close" } end
    end)
    for n, path in ipairs { "/", "/tls", "/start" } do
      local res = kit:request(path)
      assert.equal("hello PONG closed", res.body)
      assert.same({ 1.5, n }, { res.time, opened })
    end
    kit:socket("10.0.0.1:7", { error = "connect_refused" })
    assert.equal("connect_refused", kit:request("/dead").body)
    raises("expected \"host:port\"", kit.socket, kit, "host", print)
    raises("expected a function", kit.socket, kit, "host:1", 7)
  end)

  it("has empty limits, and lets them fill with its time", function()
    local text = site [[
      local per_minute = gate.limit { name = "test", rate = 1, per = 60 }
      function site.on_request() local ok, wait = per_minute:take("k") return ok and 200 or 429 end]]
    local kit = load(text)
    assert.same({ 200, 429 }, { kit:request("/").status, kit:request("/").status })
    kit:advance(60)
    assert.equal(200, kit:request("/").status)
    assert.equal(200, load(text):request("/").status)
  end)

  it("speaks real TLS to listeners that do, none to servers", function()
    local kit = load [[
      local gate = require "moongate"
      return { listen = { "127.0.0.1:8080", { "127.0.0.1:8443", tls = "internal" } },
        backends = { app = { "127.0.0.1:9001", tls = true } },
        on_request = function(req)
          local tls = req.client.tls
          req.headers["X-Tls"] = req.scheme .. (tls and " " .. tls.version .. " " .. tls.sni or "")
          req.headers["X-Auth"] = gate.fetch("https://auth.test/check").body
        end }]]
    kit:stub("https://auth.test/*", "sure"):backend("app", "secret")
    local got = kit:request({ listen = "127.0.0.1:8443", host = "some.test" }).fetched[2]
    assert.same({ "https TLSv1.3 some.test", "sure" }, { got.headers["X-Tls"], got.headers["X-Auth"] })
    assert.equal("http", kit:request("/").fetched[2].headers["X-Tls"])
  end)

  it("runs what was spawned after the answer", function()
    local kit = load(site [[
      function site.on_request()
        gate.spawn(function()
          gate.fetch("http://audit.test/now")
          gate.sleep(5)
          gate.fetch("http://audit.test/later")
        end)
        return 204
      end]])
    kit:stub("http://audit.test/*", 204)
    local res = kit:request "/"
    assert.equal(0, res.time)
    assert.equal("http://audit.test/now", res.fetched[1].url)
    assert.equal(1, #kit:fetched())
    kit:advance(5)
    assert.equal("http://audit.test/later", kit:fetched()[2].url)
  end)

  it("fails the test when something goes on for ever while no time passes", function()
    local forever = "something goes on for ever while no time passes"
    local kit = testing.load { text = [[
      local gate = require "moongate"
      local function storm() gate.spawn(storm) end
      local site = { listen = "127.0.0.1:8080" }
      function site.on_load() gate.sleep(1) end
      function site.on_request() gate.spawn(storm) return 204 end
      return site]] }
    assert.error_matches(function() kit:request "/" end, forever)
    assert.error_matches(function() kit:advance(1) end, forever)
    assert.error_matches(function() kit:reload() end, "on_load: it goes on for ever")
  end)

  it("frees what it took", function()
    local text = site "function site.on_request(req) gate.sleep(1) return gate.fetch('http://x.test/').status end"
    for _ = 1, 20 do
      local kit = load(text)
      kit:stub("http://x.test", 203)
      assert.equal(203, kit:request("/").status)
    end
    local fds = 0
    for _ in io.popen("ls /proc/self/fd"):lines() do fds = fds + 1 end
    assert(fds < 40, fds)
  end)
end)
