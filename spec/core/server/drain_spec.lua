-- The end: what is under way is finished, what is idle is closed, and nothing takes for ever.

local support = require "support"
local uv = require "luv"
local it, net, http, moongate = support.it, support.net, support.http, support.moongate

-- A proxy whose backend is scripted by hand.
local function start(settings, options)
  local backend = net.listen()
  options = options or {}
  options.values = { BACKEND = backend }
  options.config = ([[
    return { sites = { { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } } }, %s }
  ]]):format(settings or "")
  return moongate.start(options), backend
end

-- A client whose request has reached the backend.
local function begin(gate, backend)
  local client = net.connect(gate.port)
  client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
  local conn = backend:accept()
  http.request(conn)
  return client, conn
end

local function await_refusal(port)
  support.eventually("the port to be closed", function()
    local probe, word = net.try_connect(port)
    if probe then probe:close() end
    return not probe and word
  end)
end

describe("SIGTERM", function()
  it("finishes what is under way, refuses what is new, and ends with 0", function()
    local gate, backend = start()
    local client, conn = begin(gate, backend)
    gate:signal "term"
    await_refusal(gate.port)
    conn:send(http.encode_response { body = "done" })
    local response = http.response(client)
    assert.equal("done", response.body)
    assert.equal("close", response.headers.Connection)
    client:expect_eof()
    gate:wait()
  end)

  it("closes idle connections soon", function()
    local gate = start()
    local idle = net.connect(gate.port)
    support.eventually("the connection to be accepted", function()
      return select(2, gate:command("status", "--json")):find('"clients":1', 1, true)
    end)
    gate:signal "term"
    idle:expect_closed()
    gate:wait(2)
  end)

  it("serves who connected before it", function()
    local gate, backend = start()
    local clients, pid = {}, gate:children()[1]
    uv.kill(pid, "sigstop")
    for i = 1, 20 do
      clients[i] = net.connect(gate.port)
      clients[i]:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    end
    gate:signal "term"
    gate:wait_log "draining"
    uv.kill(pid, "sigcont")
    for _ = 1, 20 do
      local conn = backend:accept()
      http.request(conn)
      conn:send(http.encode_response { headers = { Connection = "close" }, body = "yes" })
      conn:close()
    end
    for i = 1, 20 do
      assert.equal("yes", http.response(clients[i]).body)
      clients[i]:close()
    end
    gate:wait()
  end)

  it("closes what is left when the drain time is over", function()
    local gate, backend = start "drain = 0.3"
    local client = begin(gate, backend)
    gate:signal "term"
    client:expect_closed()
    gate:wait_log "the drain time is over"
    gate:wait()
  end)

  it("ends at once when it comes twice", function()
    local gate, backend = start()
    local client = begin(gate, backend)
    gate:signal "term"
    gate:wait_log "draining"
    gate:signal "int"
    client:expect_closed()
    gate:wait()
  end)

  it("ends a process that is still starting", function()
    local gate = moongate.start { ready = false, config = [[
      local gate = require "moongate"
      return { listen = "127.0.0.1:$PORT", backends = {}, on_load = function() gate.log("loading") gate.sleep(9) end }
    ]] }
    gate:wait_log "loading"
    gate:stop()
    assert.same({}, { table.unpack(gate.process.stdout) })
  end)

  it("lets a tunnel go on until the drain time is over", function()
    local backend = support.websocket.backend()
    local gate = moongate.start { values = { BACKEND = backend }, config = [[
      return { sites = { { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } } }, drain = 1 }
    ]] }
    local tunnel = support.websocket.connect(gate.port, "/")
    gate:signal "term"
    gate:wait_log "draining"
    await_refusal(gate.port)
    tunnel:send "still there?"
    assert.equal("still there?", tunnel:receive())
    gate:wait()
  end)
end)
