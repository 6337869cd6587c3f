-- What a hostile review found: rare orders of events that once held memory, connections or secrets wrongly.

local support = require "support"
local uv = require "luv"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

-- In the hard build bytes move one by one: what must fill the kernel's buffers would take minutes there.
local it_fills = support.process.preset == "hard" and pending or it

local head_request = "HEAD / HTTP/1.1\r\nHost: a\r\nX-Long: " .. ("x"):rep(900) .. "\r\n\r\n"

-- Answers with heads alone, of 4 KiB.
local function start_heads()
  return moongate.start { config = [[
    local gate = require "moongate"
    local long = { ["X-Long"] = ("x"):rep(4000) }
    return { listen = "127.0.0.1:$PORT", backends = {}, on_request = function() return gate.reply(204, nil, long) end }
  ]] }
end

describe("a client that pipelines and does not read", function()
  it_fills("is not read from either, though its answers have no bodies", function()
    local gate = start_heads()
    local client = net.connect(gate.port)
    client:stop_reading()
    client:send_until_blocked(head_request:rep(1000), nil, 48 << 20)
    client:reset()
  end)

  it_fills("gets all answers when it reads after all, also behind its FIN", function()
    local gate = start_heads()
    local client, count = net.connect(gate.port), 3000
    client:stop_reading()
    client.handle:recv_buffer_size(65536)
    client:post(head_request:rep(count))
    client:start_reading()
    client:shutdown()
    local _, answers = client:read_all():gsub("HTTP/1%.1 204 ", "")
    assert.equal(count, answers)
  end)
end)

describe("a server that breaks the connection right behind its 101", function()
  -- The size makes the first read end exactly where the reset is found by the next one, in the same turn.
  it_fills("ends the tunnel", function()
    local backend = net.listen()
    local gate = moongate.start { workers = 1, values = { BACKEND = backend }, config = [[
      return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }
    ]] }
    for size = 16351, 16352 do
      local client = net.connect(gate.port)
      client:send "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
      local conn, pid = backend:accept(), gate:children()[1]
      http.request(conn)
      uv.kill(pid, "sigstop")
      local head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
      conn:send(head .. ("x"):rep(size - #head))
      conn:reset()
      uv.kill(pid, "sigcont")
      client:read_all()
      client:close()
      support.eventually("the tunnel's end", function()
        return select(2, gate:command("status", "--json")):find('"clients":0', 1, true)
      end)
    end
  end)
end)

describe("a generation that is closed while an exchange of it goes on", function()
  local function reload_and_await_close(gate, config)
    gate:reload_with(config)
    support.eventually("the old generation's end", function()
      return select(2, gate:command("status", "--json")):find('"generations_live":1', 1, true)
    end)
  end

  local function start(hooks, settings)
    local backend = net.listen()
    local config = ([[
      local gate = require "moongate"
      local site = { listen = "127.0.0.1:$PORT", backends = { default = { "$BACKEND" } }, %s }
      %s
      return { sites = { site }, drain = 0.1 }
    ]]):format(settings or "", hooks)
    return moongate.start { values = { BACKEND = backend }, config = config }, backend, config
  end

  local hides = 'function site.on_response(req, res) res.headers["X-Secret"] = nil end'

  local function answer_after_drain(settings)
    local gate, backend, config = start(hides, settings)
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    reload_and_await_close(gate, config)
    conn:send(http.encode_response { headers = { ["X-Secret"] = "1234" }, body = "yes" })
    return http.response(client)
  end

  it("does not deliver what on_response has not seen", function()
    local response = answer_after_drain()
    assert.equal(503, response.status)
    assert.is_nil(response.headers["X-Secret"])
  end)

  it("delivers it where the site wants that", function()
    local response = answer_after_drain 'fail = { on_response = "continue" }'
    assert.equal(200, response.status)
    assert.equal("yes", response.body)
  end)

  it("does not choose a backend that pick_backend has not", function()
    local gate, _, config = start("function site.pick_backend(req) return 403 end", "buffer_body = true")
    local client = net.connect(gate.port)
    client:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab"
    support.eventually("the exchange", function()
      return select(2, gate:command("status", "--json")):find('"clients":1', 1, true)
    end)
    reload_and_await_close(gate, config)
    client:send "cd"
    assert.equal(503, http.response(client).status)
  end)
end)

describe("a hook that fetches while everything is closed", function()
  it("leaves no connection behind", function()
    local backend, slow = http.backend "yes", net.listen()
    local gate = moongate.start { values = { BACKEND = backend, SLOW = slow }, config = [[
      local gate = require "moongate"
      local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" }, default = { "$SLOW" } } }
      function site.on_log(req, res)
        gate.fetch("http://$BACKEND/x")
      end
      return { sites = { site }, drain = 0.1 }
    ]] }
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    http.request(slow:accept())
    gate:signal "term"
    client:expect_closed()
    gate:wait()
  end)
end)

describe("gate.every of a generation that drains", function()
  it("does not run beside the new one's", function()
    local backend = net.listen()
    local function config(n)
      return ([[
        local gate = require "moongate"
        gate.every(0.02, function() gate.log("tick of %d") end)
        return { listen = "127.0.0.1:$PORT", backends = { default = { "$BACKEND" } } }
      ]]):format(n)
    end
    local gate = moongate.start { values = { BACKEND = backend }, config = config(1) }
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    gate:wait_log "tick of 1"
    gate:reload_with(config(2))
    local mark = gate:log_mark()
    gate:wait_log("tick of 2", { from = mark })
    mark = gate:log_mark()
    for _ = 1, 5 do
      gate:wait_log("tick of %d", { from = mark })
      assert.is_nil(gate.process.stderr[gate:log_mark() - 1]:find "tick of 1")
      mark = gate:log_mark()
    end
    conn:send(http.encode_response { body = "yes" })
    assert.equal(200, http.response(client).status)
  end)
end)

describe("a client that takes nothing of its answer", function()
  it_fills("is dropped, though it goes on talking", function()
    local backend = net.listen()
    local gate = moongate.start { values = { BACKEND = backend }, config = [[
      return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } }, timeouts = { between = 0.3 } }
    ]] }
    local client = net.connect(gate.port)
    client:stop_reading()
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    local piece = ("x"):rep(1 << 20)
    for _ = 1, 64 do conn:post(piece) end
    support.eventually("the client to be dropped", function() return not client:try_send "G" end)
  end)
end)
