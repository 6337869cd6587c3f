-- Which server of a backend a request comes to.

local uv = require "luv"
local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

describe("a backend's servers", function()
  -- Fake servers that count; held requests are let go by `release`.
  local function server(options)
    return http.backend(function(request)
      if request.target == "/hold" then request.release = support.async.signal() end
      if request.release then
        local function is_released() return request.released end
        support.async.wait(request.release, is_released, "a release", { timeout = 60 })
      end
      return 200, nil, "ok"
    end, options)
  end

  local function let_go(request)
    request.released = true
    request.release:notify()
  end

  local function counts(servers)
    local list = {}
    for i, each in ipairs(servers) do list[i] = #each.requests end
    return list
  end

  local function start(backend, values, more)
    return moongate.start { values = values, workers = 1, config = ([[
      return { drain = "2s", listen = "127.0.0.1:$PORT", backends = { app = { %s } }, %s }
    ]]):format(backend, more or "") }
  end

  local function get(gate, times, target)
    local conn = net.connect(gate.port)
    for _ = 1, times do assert.equal(200, http.get(gate.port, target or "/", { conn = conn }).status) end
    conn:close()
  end

  describe("by round_robin", function()
    it("take turns", function()
      local a, b, c = server(), server(), server()
      local gate = start('"$A", "$B", "$C"', { A = a, B = b, C = c })
      get(gate, 9)
      assert.same({ 3, 3, 3 }, counts { a, b, c })
    end)

    it("get exactly their weights", function()
      local a, b, c = server(), server(), server()
      local gate = start('{ "$A", weight = 5 }, { "$B", weight = 3 }, "$C"', { A = a, B = b, C = c })
      get(gate, 9)
      assert.same({ 5, 3, 1 }, counts { a, b, c })
      get(gate, 81)
      assert.same({ 50, 30, 10 }, counts { a, b, c })
    end)

    it("are not asked in bursts", function()
      local order = {}
      local function ordered(name)
        return http.backend(function()
          order[#order + 1] = name
          return 200
        end)
      end
      local gate = start('{ "$A", weight = 3 }, "$B"', { A = ordered "a", B = ordered "b" })
      get(gate, 8)
      local text = table.concat(order)
      assert.is_nil(text:find "aaaa")
      assert.is_nil(text:find "bb")
    end)

    it("share what comes while one is away", function()
      local a, b, c = server(), server(), http.backend(function() return { status = 200, close = true } end)
      local gate = start('"$A", "$B", "$C"', { A = a, B = b, C = c })
      get(gate, 3)
      c:close()
      get(gate, 12)
      assert.equal(1, #c.requests)
      assert.equal(14, #a.requests + #b.requests)
      assert.is_true(#a.requests >= 5 and #b.requests >= 5)
    end)
  end)

  describe("by least_conn", function()
    it("get the next request where the fewest are under way", function()
      local a, b = server(), server()
      local gate = start('"$A", "$B", balance = "least_conn"', { A = a, B = b })
      local held = net.connect(gate.port)
      held:send "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
      support.eventually("the held request", function() return #a.requests + #b.requests == 1 end)
      local busy, free = a, b
      if #a.requests == 0 then busy, free = b, a end
      get(gate, 5)
      assert.equal(1, #busy.requests)
      assert.equal(5, #free.requests)
      let_go(busy.requests[1])
      http.response(held)
      get(gate, 4)
      assert.same({ 3, 7 }, { #busy.requests, #free.requests })
    end)

    it("count by weight", function()
      local a, b = server(), server()
      local gate = start('{ "$A", weight = 3 }, "$B", balance = "least_conn"', { A = a, B = b })
      local clients = {}
      for i = 1, 8 do
        clients[i] = net.connect(gate.port)
        clients[i]:send "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
        support.eventually("request " .. i, function() return #a.requests + #b.requests == i end)
      end
      assert.same({ 6, 2 }, counts { a, b })
      for _, each in ipairs { a, b } do
        for _, request in ipairs(each.requests) do let_go(request) end
      end
      for _, client in ipairs(clients) do http.response(client) end
    end)
  end)

  it("get no more at once than max_connections", function()
    local a, b = server(), server()
    local gate = start('"$A", "$B", max_connections = 2', { A = a, B = b })
    local clients = {}
    for i = 1, 4 do
      clients[i] = net.connect(gate.port)
      clients[i]:send "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
      support.eventually("request " .. i, function() return #a.requests + #b.requests == i end)
    end
    assert.same({ 2, 2 }, counts { a, b })
    assert.equal(503, http.get(gate.port).status)
    let_go(b.requests[1])
    http.response(clients[2])
    get(gate, 3)
    assert.same({ 2, 5 }, counts { a, b })
    let_go(a.requests[1])
    let_go(a.requests[2])
    let_go(b.requests[2])
  end)

  it("that refuse three times are left alone for a while", function()
    local port = net.free_port()
    local a = server()
    local gate = start('"$A", "127.0.0.1:$DEAD"', { A = a, DEAD = port })
    get(gate, 8) -- the dead one has been asked three times by now
    local b = server { port = port }
    get(gate, 6)
    assert.equal(0, #b.requests)
    assert.equal(14, #a.requests)
  end)

  it("that refuse are asked all the same when there is no other", function()
    local port = net.free_port()
    local gate = start('"127.0.0.1:$DEAD"', { DEAD = port })
    for _ = 1, 5 do assert.equal(502, http.get(gate.port).status) end
    local back = server { port = port }
    get(gate, 1)
    assert.equal(1, #back.requests)
  end)

  describe("named by", function()
    it("a host name are resolved", function()
      local a = server()
      local gate = start('"localhost:$A_PORT"', { A_PORT = a.port })
      local response = http.get(gate.port)
      assert.equal(200, response.status)
      assert.equal("ok", response.body)
    end)

    it("several names are one list", function()
      local a, b = server(), server()
      local gate = start('"localhost:$A_PORT", "$B"', { A_PORT = a.port, B = b })
      get(gate, 20)
      assert.is_true(#a.requests > 0)
      assert.is_true(#b.requests > 0)
    end)

    it("a Unix socket are reached", function()
      local dir = support.temp_dir()
      local a = server { path = dir .. "/a.sock" }
      assert(uv.fs_chmod(dir, 511) and uv.fs_chmod(dir .. "/a.sock", 511)) -- started by root, it serves as another user
      local gate = start('"$A"', { A = a })
      get(gate, 3)
      assert.equal(3, #a.requests)
      assert.equal(1, a.accepted)
    end)

    it("an IPv6 address are reached", function()
      local a = server { host = "::1" }
      local gate = start('"$A"', { A = a })
      get(gate, 2)
      assert.equal(2, #a.requests)
    end)
  end)
end)
