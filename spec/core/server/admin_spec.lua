-- The admin listener: figures and state, and how little else it does.

local support = require "support"
local it, http, moongate, net = support.it, support.http, support.moongate, support.net
local uv = require "luv"

local function start(options)
  local backend = http.backend "hello"
  return moongate.start {
    values = { BACKEND = backend }, workers = options and options.workers, config = options and options.config or [[
      local site = { listen = "127.0.0.1:$PORT", hosts = { "a.example", "localhost" } }
      site.backends = { app = { "$BACKEND" } }
      function site.on_request(req)
        if req.path == "/broken" then error "on purpose" end
      end
      return { admin = "127.0.0.1:$PORT2", sites = { site } }
    ]],
  }
end

-- The figures as name{labels} -> number, and their kinds.
local function scrape(port)
  local answer = http.get(port, "/metrics")
  assert.equal(200, answer.status)
  assert.equal("text/plain; version=0.0.4; charset=utf-8", answer.headers["content-type"])
  local figures, kinds = {}, {}
  for line in answer.body:gmatch "[^\n]+" do
    local name, kind = line:match "^# TYPE (%S+) (%a+)$"
    if name then
      assert.is_nil(kinds[name], name .. " has two types")
      kinds[name] = kind
    elseif line:sub(1, 1) ~= "#" then
      local series, value = line:match "^(.-) (%S+)$"
      assert.is_nil(figures[series], series .. " stands there twice")
      figures[series] = tonumber(value)
      local family = series:match "^[%a_:][%w_:]*"
      assert.truthy(kinds[family] or kinds[family:gsub("_bucket$", ""):gsub("_sum$", ""):gsub("_count$", "")], line)
    end
  end
  return figures, kinds
end

describe("/metrics", function()
  it("counts requests by site and status, connections and hooks", function()
    local gate = start { workers = 1 } -- hooks are timed by samples: one in sixteen of a worker
    for _ = 1, 31 do http.get(gate.port, "/") end
    http.get(gate.port, "/broken")
    local figures, kinds
    support.eventually("all requests to be counted", function()
      figures, kinds = scrape(gate.values.PORT2)
      return figures['moongate_request_seconds_count{site="a.example"}'] == 32
    end)
    assert.equal(31, figures['moongate_requests_total{site="a.example",status="200"}'])
    assert.equal(1, figures['moongate_requests_total{site="a.example",status="500"}'])
    assert.equal(31, figures['moongate_backend_requests_total{backend="app",status="2xx"}'])
    assert.equal(31, figures['moongate_backend_seconds_count{backend="app"}'])
    assert.equal(1, figures['moongate_hook_errors_total{site="a.example",hook="on_request"}'])
    assert.equal(32, figures['moongate_hook_seconds_count{site="a.example",hook="on_request"}'])
    assert.is_true(figures['moongate_sent_bytes_total{site="a.example"}'] >= 31 * #"hello")
    assert.is_true(figures["moongate_connections_total"] >= 32)
    assert.is_not_nil(figures["moongate_clients"])
    assert.equal(1, figures["moongate_generation"])
    assert.equal("counter", kinds.moongate_requests_total)
    assert.equal("histogram", kinds.moongate_request_seconds)
    gate:stop()
  end)

  it("times each hook of a site that has several", function()
    local gate = start { workers = 1, config = [[
      local function nothing() end
      local site = { listen = "127.0.0.1:$PORT", hosts = { "a.example", "localhost" },
        backends = { app = { "$BACKEND" } } }
      site.on_request, site.pick_backend, site.on_response, site.on_log = nothing, nothing, nothing, nothing
      return { admin = "127.0.0.1:$PORT2", sites = { site } }
    ]] }
    for _ = 1, 32 do http.get(gate.port, "/") end
    support.eventually("all hooks to be counted", function()
      local figures = scrape(gate.values.PORT2)
      for _, hook in ipairs { "on_request", "pick_backend", "on_response", "on_log" } do
        if figures[('moongate_hook_seconds_count{site="a.example",hook="%s"}'):format(hook)] ~= 32 then return false end
      end
      return true
    end)
  end)

  it("counts reloads, those that failed too", function()
    local gate = start()
    gate:reload()
    local good = support.process.read_file(gate.config)
    gate:write_config "return 5"
    assert.not_equal(0, (gate:reload()))
    gate:write_config(good)
    local figures = scrape(gate.values.PORT2)
    assert.equal(1, figures['moongate_reloads_total{result="ok"}'])
    assert.equal(1, figures['moongate_reloads_total{result="failed"}'])
    assert.equal(2, figures["moongate_generation"])
    gate:stop()
  end)

  it("knows the process", function()
    local gate = start()
    local figures, kinds = scrape(gate.values.PORT2)
    assert.is_true(figures.process_resident_memory_bytes > 1e6)
    assert.is_true(figures.process_open_fds > 5)
    assert.is_true(figures.process_cpu_seconds_total >= 0)
    assert.is_true(math.abs(figures.process_start_time_seconds - os.time()) < 60)
    assert.equal("counter", kinds.process_cpu_seconds_total)
    gate:stop()
  end)
end)

describe("/status", function()
  it("is JSON that names generation, listeners, sites and servers", function()
    local gate = start()
    http.get(gate.port, "/")
    local answer = http.get(gate.values.PORT2, "/status")
    assert.equal(200, answer.status)
    assert.equal("application/json", answer.headers["content-type"])
    local body = answer.body
    assert.equal("{", body:sub(1, 1))
    assert.equal("}\n", body:sub(-2))
    for _, part in ipairs {
      '"generation":1', '"workers":', '"uptime":', '"name":"a.example"', ('"127.0.0.1:%d"'):format(gate.port),
      ('"address":%q'):format(gate.values.BACKEND.address), '"healthy":true',
    } do
      assert.truthy(body:find(part, 1, true), part .. " in " .. body)
    end
    gate:stop()
  end)
end)

describe("the admin listener", function()
  it("has an index, and knows no other page", function()
    local gate = start()
    local index = http.get(gate.values.PORT2, "/")
    assert.equal(200, index.status)
    assert.truthy(index.body:find("/metrics", 1, true))
    assert.equal(404, http.get(gate.values.PORT2, "/nothing").status)
    assert.equal(200, http.get(gate.values.PORT2, "/metrics?from=prometheus").status)
    gate:stop()
  end)

  it("serves GET and HEAD only", function()
    local gate = start()
    local answer = http.exchange(gate.values.PORT2, "POST", "/metrics", { body = "x=1" })
    assert.equal(405, answer.status)
    assert.equal("GET, HEAD", answer.headers["allow"])
    local head = http.exchange(gate.values.PORT2, "HEAD", "/status")
    assert.equal(200, head.status)
    assert.equal("", head.body)
    gate:stop()
  end)

  it("closes after one answer, and does not serve what is pipelined behind", function()
    local gate = start()
    local client = net.connect(gate.values.PORT2)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
    local text = client:read_all()
    assert.equal(1, select(2, text:gsub("HTTP/1.1 ", "")))
    assert.truthy(text:find("Connection: close\r\n", 1, true))
    gate:stop()
  end)

  it("answers a head that comes in pieces, and one behind which the client has closed its side", function()
    local gate = start()
    local client = net.connect(gate.values.PORT2)
    for byte in ("GET / HTTP/1.0\r\n\r\n"):gmatch "." do client:send(byte) end
    client:shutdown()
    assert.truthy(client:read_all():find "^HTTP/1.1 200 OK\r\n")
    gate:stop()
  end)

  it("refuses what is no request", function()
    local gate = start()
    for bytes, status in pairs {
      ["nonsense\r\n\r\n"] = 400, ["GET / HTTP/1.1\r\n\r\n"] = 400, ["GET / HTTP/1.1\nHost: a\n\n"] = 400,
      ["GET /" .. ("x"):rep(3000) .. " HTTP/1.1\r\nHost: a\r\n\r\n"] = 414,
      ["GET / HTTP/1.1\r\nHost: a\r\nX: " .. ("x"):rep(20000) .. "\r\n\r\n"] = 431,
    } do
      local client = net.connect(gate.values.PORT2)
      client:send(bytes)
      assert.equal(status, http.response(client).status, bytes:sub(1, 30))
      client:close()
    end
    gate:stop()
  end)

  it("does not mind clients that leave", function()
    local gate = start()
    for i = 1, 50 do
      local client = net.connect(gate.values.PORT2)
      if i % 3 ~= 0 then client:send "GET /metrics HTTP/1.1\r\nHost: a\r\n" end
      if i % 3 == 1 then client:send "\r\n" end
      if i % 2 == 0 then client:reset() else client:close() end
    end
    assert.equal(200, http.get(gate.values.PORT2, "/").status)
    gate:stop()
  end)

  it("holds a bounded number of connections", function()
    local gate = start()
    local clients, held = {}, nil
    for i = 1, 70 do clients[i] = net.connect(gate.values.PORT2) end
    support.eventually("six connections to be closed", function()
      held = 0
      for _, client in ipairs(clients) do
        if not (client.eof or client.lost) then held = held + 1 end
      end
      return held <= 64
    end)
    assert.equal(64, held)
    for _, client in ipairs(clients) do client:close() end
    support.eventually("room again", function() return (pcall(http.get, gate.values.PORT2, "/")) end)
    gate:stop()
  end)

  it("follows the config at a reload", function()
    local gate = start()
    gate:reload_with [[
      return { admin = "127.0.0.1:$PORT3", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }
    ]]
    assert.equal(200, http.get(gate.values.PORT3, "/").status)
    support.eventually("the old address to be closed", function() return not net.try_connect(gate.values.PORT2) end)
    gate:reload_with [[return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }]]
    support.eventually("the admin listener to be closed", function() return not net.try_connect(gate.values.PORT3) end)
    gate:stop()
  end)

  it("may be a unix socket, and all there is", function()
    local gate = start { config = [[return { admin = "unix:$DIR/admin.sock" }]] }
    local client = net.connect(gate.dir .. "/admin.sock")
    client:send "GET /status HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.equal(200, http.response(client).status)
    assert.is_not_nil(uv.fs_stat(gate.dir .. "/admin.sock"))
    gate:stop()
  end)

  it("tells the sums of all workers", function()
    local gate = start { workers = 4 }
    support.all(table.unpack((function()
      local tasks = {}
      for i = 1, 40 do tasks[i] = function() http.get(gate.port, "/") end end
      return tasks
    end)()))
    support.eventually("all requests to be counted", function()
      return scrape(gate.values.PORT2)['moongate_requests_total{site="a.example",status="200"}'] == 40
    end)
    gate:stop()
  end)
end)
