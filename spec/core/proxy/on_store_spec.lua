-- on_store, over the wire: what policy says of a response before it is stored holds for who gets it from the cache, and
-- what it does takes nothing from who is answered meanwhile.

local support = require "support"
local cached = require "support.cached"
local coding = require("moongate_core").coding
local uv = require "luv"
local it, http, net = support.it, support.http, support.net

local asked = cached.asked

local function start(policy)
  return cached.start { policy = policy, workers = 1, site = [[
    drain = "300ms", cache = { memory = "8M" }, timeouts = { first_byte = "2s", connect = "300ms" } ]] }
end

local function with(headers, body)
  return function() return 200, headers, body or "stored" end
end

local function get(gate, target, headers)
  return http.exchange(gate.port, "GET", target, { headers = headers })
end

describe("on_store", function()
  it("gives a ttl to what has none, is not for all, or was asked for with credentials", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res) if req.args.ttl then res.cache.ttl = tonumber(req.args.ttl) end end
    ]]
    routes["/none"] = with {}
    routes["/private"] = with { ["Cache-Control"] = "private, no-store" }
    routes["/auth"] = with { ["Cache-Control"] = "max-age=100" }
    for _, target in ipairs { "/none", "/private", "/auth" } do
      local credentials = target == "/auth" and { Authorization = "Basic x" } or nil
      assert.equal("stored", get(gate, target .. "?ttl=50", credentials).body)
      local again = get(gate, target .. "?ttl=50", credentials)
      assert.matches("^moongate; hit; ttl=[45]%d", again.headers["Cache-Status"])
      assert.equal(1, asked(backend, target .. "?ttl=50"))
      get(gate, target, credentials)
      get(gate, target, credentials)
      assert.equal(2, asked(backend, target))
    end
    gate:stop()
  end)

  it("begins its ttl when the response comes, whatever age that has", function()
    local gate, backend, routes = start "function site.on_store(req, res) res.cache.ttl = 60 end"
    routes["/old"] = with { Age = "1000", ["Cache-Control"] = "max-age=10" }
    get(gate, "/old")
    local hit = get(gate, "/old")
    assert.equal("1000", hit.headers.Age)
    assert.matches("hit; ttl=[56]%d", hit.headers["Cache-Status"])
    assert.equal(1, asked(backend, "/old"))
    gate:stop()
  end)

  it("changes what is stored: fields, status and body", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res)
        res.headers["Set-Cookie"] = nil
        res.headers["X-Stored"] = "yes"
        if req.path == "/mapped" then res.body:map(function(piece) return piece and piece:upper() end) end
        if req.path == "/replaced" then res.body:replace("red", "blue") end
        if req.path == "/assigned" then res.body = "another" res.status = 203 end
        res.cache.ttl = 60
      end
      function site.on_response(req, res) res.headers["X-Sent"] = res.headers["X-Sent"] and "twice" or "once" end
    ]]
    local wanted = { ["/mapped"] = "A RED ONE", ["/replaced"] = "a blue one", ["/assigned"] = "another" }
    for target, body in pairs(wanted) do
      routes[target] = with({ ["Set-Cookie"] = "id=1", ETag = '"1"' }, "a red one")
      for n = 1, 2 do
        local res = get(gate, target)
        assert.equal(body, res.body)
        assert.equal(target == "/assigned" and 203 or 200, res.status)
        assert.equal("yes", res.headers["X-Stored"])
        assert.equal("once", res.headers["X-Sent"])
        assert.is_nil(res.headers["Set-Cookie"])
        assert.is_nil(res.headers.ETag)
        if n == 2 then assert.equal(tostring(#body), res.headers["Content-Length"]) end
      end
      assert.equal(1, asked(backend, target))
    end
    gate:stop()
  end)

  it("reads the body it stores, and may wait for something else", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res)
        local text = assert(res.body:text())
        gate.sleep(0.01)
        res.headers["X-Length"] = #text
        res.cache.ttl = 60
      end
    ]]
    local body = ("0123456789"):rep(5000)
    routes["/long"] = with({}, body)
    for _ = 1, 2 do
      local res = get(gate, "/long")
      assert.equal(body, res.body)
      assert.equal("50000", res.headers["X-Length"])
    end
    assert.equal(1, asked(backend, "/long"))
    gate:stop()
  end)

  it("is judged by the fields as it left them", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res) res.headers["Cache-Control"] = req.args.say end
    ]]
    routes["/a"] = with { ["Cache-Control"] = "no-store" }
    routes["/b"] = with { ["Cache-Control"] = "max-age=100" }
    for _ = 1, 2 do
      get(gate, "/a?say=max-age=100")
      get(gate, "/b?say=no-store")
    end
    assert.equal(1, asked(backend, "/a?say=max-age=100"))
    assert.equal(2, asked(backend, "/b?say=no-store"))
    gate:stop()
  end)

  it("lets what is stale answer, while it is refreshed and when the backend fails", function()
    local gate, _, routes = start [[
      function site.on_store(req, res)
        res.cache.ttl = 0
        if req.path == "/while" then res.cache.stale = 60 else res.cache.stale_if_error = 60 end
      end
    ]]
    local count, failing = 0, false
    routes["/while"] = function()
      count = count + 1
      return 200, { ["Cache-Control"] = "must-revalidate" }, tostring(count)
    end
    routes["/error"] = function() return failing and 503 or 200, {}, "fine" end
    assert.equal("1", get(gate, "/while").body)
    assert.equal("1", get(gate, "/while").body)
    support.eventually("the backend was asked", function() return get(gate, "/while").body ~= "1" end)
    get(gate, "/error")
    failing = true
    local res = get(gate, "/error")
    assert.equal(200, res.status)
    assert.equal("fine", res.body)
    gate:stop()
  end)

  it("has its say again when the backend has validated, with the fields that came", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res)
        res.headers["X-Seen"] = res.cache.status .. " " .. res.status .. " " .. tostring(res.body ~= nil)
        res.headers["X-Secret"] = nil
        res.cache.ttl = 0
      end
    ]]
    routes["/tagged"] = function(request)
      local status = request.headers["If-None-Match"] == '"1"' and 304 or 200
      return status, { ETag = '"1"', ["X-Secret"] = "s" }, status == 200 and "body" or nil
    end
    local first, second = get(gate, "/tagged"), get(gate, "/tagged")
    assert.equal("miss 200 true", first.headers["X-Seen"])
    assert.equal("revalidated 200 false", second.headers["X-Seen"])
    assert.equal("body", second.body)
    assert.is_nil(second.headers["X-Secret"])
    assert.equal('"1"', backend.requests[2].headers["If-None-Match"])
    gate:stop()
  end)

  it("passes what it does not want stored, and remembers that", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res)
        res.headers["X-Changed"] = "yes"
        res.cache.pass = true
      end
      function site.on_log(req, res) gate.log(("%s %s %s"):format(req.path, res.cache.status, res.cache.rule)) end
    ]]
    routes["/p"] = with { ["Cache-Control"] = "max-age=100" }
    local first = get(gate, "/p")
    assert.equal("yes", first.headers["X-Changed"])
    assert.matches("detail=policy%-pass", first.headers["Cache-Status"])
    assert.matches("detail=policy%-pass", get(gate, "/p").headers["Cache-Status"])
    assert.equal(2, asked(backend, "/p"))
    gate:wait_log "/p pass policy%-pass"
    gate:stop()
  end)

  it("that passes a response has changed it for the one who asked", function()
    local gate, _, routes = start [[
      function site.on_store(req, res)
        if req.path == "/set" then res.body = "set" else res.body:replace("a", "b") end
        res.cache.pass = true
      end
    ]]
    routes["/set"] = with({}, "banana")
    routes["/replaced"] = with({}, "banana")
    assert.equal("set", get(gate, "/set").body)
    assert.equal("bbnbnb", get(gate, "/replaced").body)
    gate:stop()
  end)

  it("fails closed: nothing is stored, and the client has its answer", function()
    local gate, backend, routes = start "function site.on_store(req, res) error 'broken' end"
    routes["/x"] = with { ["Cache-Control"] = "max-age=100" }
    for _ = 1, 2 do
      local res = get(gate, "/x")
      assert.equal("stored", res.body)
      assert.matches("detail=policy%-failed", res.headers["Cache-Status"])
    end
    assert.equal(2, asked(backend, "/x"))
    gate:wait_log "on_store of .* failed .*broken"
    gate:stop()
  end)

  it("fails open where the site says so", function()
    local gate, backend, routes = start [[
      site.fail = { on_store = "continue" }
      function site.on_store(req, res) error 'broken' end
    ]]
    routes["/x"] = with { ["Cache-Control"] = "max-age=100" }
    get(gate, "/x")
    get(gate, "/x")
    assert.equal(1, asked(backend, "/x"))
    gate:stop()
  end)

  it("whose change of the body fails at once gives a page, and stores nothing", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res) res.body:map(function() error "no" end) end
    ]]
    routes["/x"] = with { ["Cache-Control"] = "max-age=100" }
    assert.equal(502, get(gate, "/x").status)
    assert.equal(502, get(gate, "/x").status)
    assert.equal(2, asked(backend, "/x"))
    gate:stop()
  end)

  it("goes on when the client has left that asked first", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res) gate.sleep(0.3) res.cache.ttl = 60 end
    ]]
    routes["/left"] = with {}
    local conn = net.connect(gate.port)
    conn:send "GET /left HTTP/1.1\r\nHost: a\r\n\r\n"
    support.eventually("the backend was asked", function() return asked(backend, "/left") == 1 end)
    conn:close()
    local res = http.exchange(gate.port, "GET", "/left", { headers = { Host = "a" } })
    assert.equal("stored", res.body)
    assert.equal(1, asked(backend, "/left"))
    gate:stop()
  end)

  it("that waits long holds nobody else for more than 3 s", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res) gate.sleep(4.5) res.cache.ttl = 60 end
    ]]
    routes["/late"] = with {}
    local began = uv.hrtime()
    local function ask() return http.exchange(gate.port, "GET", "/late", { headers = { Host = "a" } }) end
    local answers, seconds = {}, {}
    local clients = {}
    for i = 1, 4 do
      clients[i] = function()
        answers[i] = ask()
        seconds[i] = (uv.hrtime() - began) / 1e9
      end
    end
    support.all(table.unpack(clients))
    table.sort(seconds)
    assert.equal(4, asked(backend, "/late"))
    assert.is_true(seconds[1] >= 2.9 and seconds[3] < 4.4, seconds[3])
    assert.is_true(seconds[4] >= 4.4, seconds[4])
    local late = 0
    for _, answer in ipairs(answers) do
      assert.equal("stored", answer.body)
      if answer.headers["Cache-Status"]:find "collapsed=%?0; detail=policy%-late" then late = late + 1 end
    end
    assert.equal(3, late)
    assert.matches("; hit", ask().headers["Cache-Status"])
    gate:stop()
  end)

  it("runs beside on_response of the stale answer, each with a `res` of its own", function()
    local gate, _, routes = start [[
      function site.on_store(req, res)
        req.ctx.stored = res
        res.headers["X-Of"] = "store"
        res.cache.ttl, res.cache.stale = 0, 60
        gate.sleep(0.05)
      end
      function site.on_response(req, res)
        gate.sleep(0.2)
        res.headers["X-Status"] = res.cache.status
        local ok, why = pcall(function() return req.ctx.stored.status end)
        res.headers["X-Other"] = ok and "alive" or why
      end
    ]]
    local count = 0
    routes["/x"] = function() count = count + 1 return 200, {}, tostring(count) end
    local first = get(gate, "/x")
    assert.equal("miss", first.headers["X-Status"])
    assert.matches("has ended", first.headers["X-Other"])
    local second = get(gate, "/x")
    assert.equal("1", second.body)
    assert.equal("store", second.headers["X-Of"])
    assert.equal("stale", second.headers["X-Status"])
    assert.matches("has ended", second.headers["X-Other"])
    gate:stop()
  end)

  it("is ended with its generation: nothing is stored", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res) if req.path == "/slow" then gate.sleep(30) end res.cache.ttl = 60 end
    ]]
    routes["/slow"] = with {}
    local conn = net.connect(gate.port)
    conn:send "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
    support.eventually("the backend was asked", function() return asked(backend, "/slow") == 1 end)
    gate:reload()
    local res = http.response_head(conn)
    assert.equal(200, res.status)
    assert.matches("policy%-failed", res.headers["Cache-Status"])
    conn:close()
    gate:stop()
  end)

  it("is asked of the site first, then of what it uses, from the last to the first", function()
    local gate, _, routes = start [[
      local function mark(name)
        return { on_store = function(req, res)
          res.headers["X-Order"] = (res.headers["X-Order"] or "") .. name
          res.cache.ttl = (res.cache.ttl or 0) + 10
        end }
      end
      site.use = { mark "a", mark "b" }
      site.on_store = mark("s").on_store
    ]]
    routes["/x"] = with {}
    local res = get(gate, "/x")
    assert.equal("sba", res.headers["X-Order"])
    assert.matches("ttl=[23]%d", res.headers["Cache-Status"])
    gate:stop()
  end)

  it("stores a coded body changed, in its coding", function()
    local gate, backend, routes = start [[
      function site.on_store(req, res)
        res.body:replace("red", "blue", { plain = req.args.plain ~= nil })
        res.cache.ttl = 60
      end
    ]]
    local function coded() return 200, { ["Content-Encoding"] = "gzip" }, coding.encode("gzip", "a red one") end
    routes["/coded"] = coded
    for _ = 1, 2 do
      local res = get(gate, "/coded", { ["Accept-Encoding"] = "gzip" })
      assert.equal("gzip", res.headers["Content-Encoding"])
      assert.same({ "done", "a blue one" }, { coding.decode("gzip", res.body) })
      res = get(gate, "/coded?plain", { ["Accept-Encoding"] = "gzip" })
      assert.is_nil(res.headers["Content-Encoding"])
      assert.equal("a blue one", res.body)
    end
    assert.equal(1, asked(backend, "/coded"))
    gate:stop()
  end)
end)
