-- Who waits for a place at a server, while all of them have as many requests as they take.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

describe("the queue of a backend", function()
  local tell_error = "function site.on_error(_, err) return gate.reply(err.status, err.word) end"

  local function start(backend, options)
    options = options or {}
    return moongate.start { values = options.values, workers = options.workers or 1, config = ([[
      local site = { listen = "127.0.0.1:$PORT", backends = { %s } }
      local gate = require "moongate"
      %s
      return { drain = "200ms", admin = "127.0.0.1:$PORT2", sites = { site } }
    ]]):format(backend, options.policy or "") }
  end

  -- As `moongate status` tells it.
  local function waiting(gate) return tonumber(select(2, gate:command "status"):match "(%d+) waiting for a place") end

  local function await_waiting(gate, n)
    support.eventually(n .. " to wait", function() return waiting(gate) == n end)
  end

  local function ask(gate, target)
    local client = net.connect(gate.port)
    client:send(("GET %s HTTP/1.1\r\nHost: a\r\n\r\n"):format(target or "/"))
    return client
  end

  -- The next request at a server that the spec plays; it is answered by `let_go`.
  local function take(server, conn)
    conn = conn or server:accept()
    return conn, http.request(conn).target
  end

  local function let_go(conn) conn:send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" end

  local function metric(gate, name)
    return tonumber(http.get(gate.values.PORT2, "/metrics").body:match("\n" .. name .. '{backend="app"} (%S+)'))
  end

  -- A gate with one server that takes one request at once, and a client that has it.
  local function busy(settings, options)
    local server = net.listen()
    options = options or {}
    options.values = { SERVER = server }
    local gate = start(('app = { "$SERVER", max_connections = 1, %s }'):format(settings), options)
    local first = ask(gate, "/first")
    return gate, server, take(server), first
  end

  it("lets requests go in the order of their coming", function()
    local gate, server, conn, first = busy "queue = 10"
    local clients = {}
    for i = 1, 4 do
      clients[i] = ask(gate, "/" .. i)
      await_waiting(gate, i)
    end
    assert.equal(4, metric(gate, "moongate_backend_waiting"))
    for i = 1, 4 do
      let_go(conn)
      local _, target = take(server, conn)
      assert.equal("/" .. i, target)
      assert.equal(4 - i, waiting(gate))
    end
    let_go(conn)
    assert.equal(200, http.response(first).status)
    for i = 1, 4 do assert.equal(200, http.response(clients[i]).status) end
    assert.equal(1, server.accepted)
    assert.equal(4, metric(gate, "moongate_backend_queue_seconds_count"))
  end)

  it("never lets more in than the servers take, over all workers", function()
    local now, most, served = 0, 0, 0
    local function handle()
      now, served = now + 1, served + 1
      most = math.max(most, now)
      support.sleep(0.002)
      now = now - 1
      return 200, nil, "ok"
    end
    local gate = start('app = { "$A", "$B", max_connections = 2, queue = 200 }',
      { workers = 4, values = { A = http.backend(handle), B = http.backend(handle) } })
    local clients = {}
    for i = 1, 40 do
      clients[i] = support.spawn(function()
        local conn = net.connect(gate.port)
        for _ = 1, 10 do assert.equal(200, http.get(gate.port, "/", { conn = conn }).status) end
        conn:close()
      end)
    end
    for _, client in ipairs(clients) do client:join() end
    assert.equal(400, served)
    assert.equal(4, most)
    gate:wait_idle()
    assert.equal(0, waiting(gate))
    assert.equal(0, metric(gate, "moongate_backend_waiting"))
  end)

  it("loses no place when those who wait leave, whatever is on its way to them", function()
    local server = http.backend(function()
      support.sleep(0.001)
      return 200, nil, "ok"
    end)
    local gate = start('app = { "$SERVER", max_connections = 2, queue = 500 }',
      { workers = 4, values = { SERVER = server } })
    for _ = 1, 20 do
      local clients = {}
      for i = 1, 20 do clients[i] = ask(gate) end
      for i = 1, 20 do
        if i % 3 == 0 then assert.equal(200, http.response(clients[i]).status) end
        clients[i]:reset()
      end
    end
    gate:wait_idle()
    assert.equal(0, waiting(gate))
    assert.equal(200, http.get(gate.port).status)
  end)

  it("refuses who comes when it is full", function()
    local gate, _, conn = busy("queue = { max = 1 }", { policy = tell_error })
    local second = ask(gate)
    await_waiting(gate, 1)
    local answer = http.get(gate.port)
    assert.same({ 503, "busy" }, { answer.status, answer.body })
    let_go(conn)
    take(nil, conn)
    let_go(conn)
    assert.equal(200, http.response(second).status)
  end)

  it("gives up when a request has waited for its time", function()
    local gate, _, conn = busy('queue = { timeout = "100ms" }', { policy = tell_error })
    local answer = http.get(gate.port)
    assert.same({ 503, "queue_timeout" }, { answer.status, answer.body })
    assert.equal(0, waiting(gate))
    let_go(conn)
  end)

  it("forgets a client that leaves", function()
    local gate, server, conn = busy "queue = 10"
    local second = ask(gate, "/second")
    await_waiting(gate, 1)
    local third = ask(gate, "/third")
    await_waiting(gate, 2)
    second:reset()
    await_waiting(gate, 1)
    let_go(conn)
    local _, target = take(server, conn)
    assert.equal("/third", target)
    let_go(conn)
    assert.equal(200, http.response(third).status)
  end)

  it("keeps who wants a certain server for that one, and others from waiting behind him", function()
    local a, b = net.listen(), net.listen()
    local gate = start('app = { { "$A", name = "a" }, { "$B", name = "b" }, max_connections = 1, queue = 10 }', {
      values = { A = a, B = b },
      policy = [[function site.pick_backend(req) return req.args.to and "app/" .. req.args.to or nil end]],
    })
    ask(gate, "/?to=a")
    local at_a = take(a)
    ask(gate, "/?to=b")
    local at_b = take(b)
    ask(gate, "/2?to=a")
    await_waiting(gate, 1)
    ask(gate, "/anywhere")
    await_waiting(gate, 2)
    let_go(at_b)
    assert.equal("/anywhere", select(2, take(b, at_b)))
    assert.equal(1, waiting(gate))
    let_go(at_a)
    assert.equal("/2?to=a", select(2, take(a, at_a)))
    let_go(at_a)
    let_go(at_b)
  end)

  it("is left alone by a pick whose next backend has a place", function()
    local other = http.backend "other"
    local server = net.listen()
    local gate = start('app = { "$SERVER", max_connections = 1, queue = 10 }, other = { "$OTHER" }', {
      values = { SERVER = server, OTHER = other },
      policy = [[function site.pick_backend() return { "app", "other" } end]],
    })
    ask(gate)
    local conn = take(server)
    assert.equal("other", http.get(gate.port).body)
    let_go(conn)
  end)

  it("tells policy, which may go elsewhere", function()
    local server, other = net.listen(), http.backend "other"
    local gate = start([[app = { "$SERVER", max_connections = 1, queue = { max = 1, timeout = "1s" } },
      other = { "$OTHER" }]], { values = { SERVER = server, OTHER = other }, policy = [[
      function site.pick_backend(req, last)
        if not last then return "app" end
        req.ctx.error = last.error
        return "other"
      end
      function site.on_response(req, res) res.headers["X-Error"] = req.ctx.error end
    ]] })
    ask(gate)
    local conn = take(server)
    local waits = ask(gate)
    await_waiting(gate, 1)
    assert.equal("busy", http.get(gate.port).headers["x-error"])
    assert.equal("queue_timeout", http.response(waits).headers["x-error"])
    let_go(conn)
  end)

  it("goes on with the first when a request breaks off", function()
    local gate, server, conn = busy('queue = 10, retry = { tries = 1 }')
    local second = ask(gate)
    await_waiting(gate, 1)
    conn:reset()
    local _, target = take(server)
    assert.equal("/", target)
    second:close()
  end)

  it("lets a request have its place still when its idle connection turns out to be closed", function()
    local gate, server, conn, first = busy "queue = 10"
    local second = ask(gate, "/second")
    await_waiting(gate, 1)
    let_go(conn)
    http.response(first)
    take(server, conn)
    conn:reset()
    local fresh, target = take(server)
    assert.equal("/second", target)
    let_go(fresh)
    assert.equal(200, http.response(second).status)
  end)

  it("is not overtaken by checks of health, which have no place", function()
    local checks, requests = 0, {}
    local server = http.backend(function(request)
      if request.target == "/healthz" then
        checks = checks + 1
        return 200, nil, "well"
      end
      request.release = support.async.signal()
      requests[#requests + 1] = request
      support.async.wait(request.release, function() return request.released end, "a release", { timeout = 60 })
      return 200, nil, "ok"
    end)
    local gate = start([[app = { "$SERVER", max_connections = 1, queue = 10,
      health = { path = "/healthz", interval = "100ms" } }]], { values = { SERVER = server } })
    local clients = { ask(gate), nil }
    support.eventually("the first", function() return #requests == 1 end)
    clients[2] = ask(gate)
    await_waiting(gate, 1)
    local before = checks
    support.eventually("three checks", function() return checks >= before + 3 end)
    assert.equal(1, #requests)
    for i = 1, 2 do
      support.eventually("request " .. i, function() return #requests == i end)
      requests[i].released = true
      requests[i].release:notify()
      assert.equal(200, http.response(clients[i]).status)
    end
  end)

  it("survives a reload, and sees that servers take more", function()
    local server = net.listen()
    local values = { SERVER = server }
    local function config(most)
      return ([[return { drain = "200ms", listen = "127.0.0.1:$PORT",
        backends = { app = { "$SERVER", max_connections = %d, queue = 10 } } }]]):format(most)
    end
    local gate = moongate.start { config = config(1), workers = 1, values = values }
    ask(gate, "/1")
    local conn = take(server)
    local second = ask(gate, "/2")
    await_waiting(gate, 1)
    gate:reload_with(config(2))
    assert.equal(1, waiting(gate))
    ask(gate, "/3")
    local other, target = take(server)
    assert.equal("/3", target)
    let_go(other)
    assert.equal("/2", select(2, take(server, other)))
    let_go(other)
    assert.equal(200, http.response(second).status)
    let_go(conn)
  end)

  it("holds a tunnel's place until it ends", function()
    local gate, server, conn, first = busy "queue = 10"
    let_go(conn)
    http.response(first)
    local tunnel = net.connect(gate.port)
    tunnel:send "GET /t HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    local up = take(server, conn)
    up:send "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    tunnel:read_until "\r\n\r\n"
    local second = ask(gate, "/second")
    await_waiting(gate, 1)
    tunnel:close()
    up:expect_closed()
    up:close()
    assert.equal("/second", select(2, take(server)))
    second:close()
  end)

  it("is told to scripts", function()
    local gate, _, conn = busy("queue = 10", { policy = [[
      function site.on_request(req)
        if req.path == "/waiting" then return gate.reply(200, tostring(gate.backend("app").waiting)) end
      end
    ]] })
    assert.equal("0", http.get(gate.port, "/waiting").body)
    local second = ask(gate)
    await_waiting(gate, 1)
    assert.equal("1", http.get(gate.port, "/waiting").body)
    second:close()
    let_go(conn)
  end)

  it("ends with the proxy, whoever still waits", function()
    local gate, server, conn, first = busy "queue = 10"
    for _ = 1, 3 do ask(gate) end
    await_waiting(gate, 3)
    gate:stop()
    first:close()
    conn:close()
    server:close()
  end)
end)
