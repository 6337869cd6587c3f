-- Early data (RFC 8446 2.3, RFC 8470): what comes before the handshake is over, and may come again.
--
-- The client is openssl s_client; between it and the proxy stands somebody who delivers what he likes, when he likes.

local support = require "support"
local it, http, net, moongate, tls = support.it, support.http, support.net, support.moongate, support.tls

describe("early data", function()
  local dir, own

  support.setup(function()
    dir = support.temp_dir()
    require("luv").fs_chmod(dir, tonumber("755", 8))
    own = tls.certificate(dir, "own", { names = { "DNS:own.test" } })
  end)

  local function start(options)
    options = options or {}
    local backend = http.backend(options.answer or "answer\n")
    local gate = moongate.start {
      args = { "--keys", dir }, workers = options.workers,
      values = { CERT = own.cert, KEY = own.key, BACKEND = backend, HEAD = options.head or "10s" },
      config = ([[
        local gate = require "moongate"
        return { admin = "127.0.0.1:$PORT2", sites = { {
          listen = { { "127.0.0.1:$PORT", tls = { cert = "$CERT", key = "$KEY", early_data = %s } } },
          timeouts = { head = "$HEAD" },
          backends = { app = { "$BACKEND" } },
          on_request = function(req) req.headers["X-Early"] = tostring(req.client.tls.early) end,
        } } }
      ]]):format(options.off and "false" or "true"),
    }
    return gate, backend
  end

  local ending = "\r\nHost: own.test\r\nConnection: close\r\n\r\n"

  local function client(port, session, request, ...)
    local file = ("%s/early-%d"):format(dir, port)
    support.process.write_file(file, request)
    return support.process.spawn { "openssl", "s_client", "-connect", "127.0.0.1:" .. port, "-servername", "own.test",
      "-ign_eof", "-sess_in", session, "-early_data", file, ... }
  end

  -- A session to be taken up: the file it lies in.
  local function meet(gate, ...)
    local session = ("%s/session-%d"):format(dir, gate.port)
    local _, out = support.run({ "openssl", "s_client", "-connect", "127.0.0.1:" .. gate.port, "-servername",
      "own.test", "-ign_eof", "-sess_out", session, ... }, { stdin = "GET /first HTTP/1.1" .. ending, timeout = 10 })
    assert.matches("Max Early Data: 16384", out)
    return session
  end

  local function record(conn)
    local head = conn:read_exactly(5)
    return head .. conn:read_exactly(head:byte(4) * 256 + head:byte(5)), head:byte()
  end

  -- Somebody in the middle: what a client sends first, with its early data in one record, has been delivered; the rest
  -- of its handshake waits for `release`. What the proxy answers reaches the client.
  local function middle(gate, session, request, ...)
    local between = net.listen()
    local process = client(between.port, session, request, ...)
    local near, far, flight = between:accept(), net.connect(gate.port), ""
    repeat
      local bytes, kind = record(near)
      flight = flight .. bytes
      far:send(bytes)
    until kind == 23
    local function pump(from, to)
      support.spawn(function()
        repeat
          local open, bytes = pcall(from.read_some, from)
        until not open or not to:try_send(bytes)
      end)
    end
    pump(far, near)
    local function release() pump(near, far) end
    return { process = process, flight = flight, release = release, near = near, far = far }
  end

  local function figure(gate, result)
    local text = http.get(gate.values.PORT2, "/metrics").body
    return tonumber(text:match('moongate_tls_early_total{result="' .. result .. '"} (%d+)'))
  end

  it("is served before the handshake is over, marked for backends and scripts", function()
    local gate, backend = start()
    local session = meet(gate)
    assert.is_nil(http.await_request(backend, 1).headers["Early-Data"])
    local between = middle(gate, session, "GET /early HTTP/1.1" .. ending)
    local request = http.await_request(backend, 2)
    assert.equal("/early", request.target)
    assert.equal("1", request.headers["Early-Data"])
    assert.equal("true", request.headers["X-Early"])
    between.process:wait_line("stdout", "answer") -- though the client's own handshake is still on its way
    between.release()
    between.process:wait(10)
    assert.matches("Early data was accepted", table.concat(between.process.stdout, "\n"))
    assert.equal(1, figure(gate, "taken"))
  end)

  it("waits for the end of the handshake with what is not safe", function()
    local gate, backend = start()
    local session = meet(gate)
    local requests = {
      "POST /unsafe HTTP/1.1\r\nHost: own.test\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
      "DELETE /unsafe HTTP/1.1" .. ending,
      "GET /unsafe HTTP/1.1\r\nHost: own.test\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
      "GET /unsafe HTTP/1.1\r\nHost: own.test\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n",
    }
    for i, text in ipairs(requests) do
      local between = middle(gate, session, text)
      -- Somebody else's request comes through meanwhile; it does not.
      assert.equal(200, http.get(nil, "/other", { conn = net.connect_tls(gate.port) }).status)
      assert.equal(2 * i, #backend.requests)
      between.release()
      local request = http.await_request(backend, 2 * i + 1)
      assert.equal("/unsafe", request.target)
      assert.is_nil(request.headers["Early-Data"])
      assert.equal("false", request.headers["X-Early"])
      between.process:wait_line("stdout", "answer")
      between.process:kill()
    end
  end)

  it("answers 425 when that does not come", function()
    local gate, backend = start { head = "500ms" }
    local between = middle(gate, meet(gate), "POST /unsafe HTTP/1.1\r\nHost: own.test\r\nContent-Length: 0\r\n\r\n")
    between.process:wait_line("stdout", "425 Too Early")
    assert.equal(1, #backend.requests)
  end)

  it("passes on what a backend thinks too early, and a mark that came with the request", function()
    local gate, backend = start { answer = function(request)
      return request.headers["Early-Data"] and 425 or 200, nil, "thought"
    end }
    local between = middle(gate, meet(gate), "GET /early HTTP/1.1" .. ending)
    between.process:wait_line("stdout", "HTTP/1.1 425")
    between.release()
    local answer = http.get(nil, "/", { conn = net.connect_tls(gate.port), headers = { ["Early-Data"] = "1" } })
    assert.equal(425, answer.status)
    assert.equal("1", http.await_request(backend, 3).headers["Early-Data"])
  end)

  it("is taken once, on whichever worker", function()
    local gate, backend = start { workers = 4 }
    local between = middle(gate, meet(gate), "GET /early HTTP/1.1" .. ending)
    http.await_request(backend, 2)
    for _ = 1, 8 do
      local replay = net.connect(gate.port)
      replay:send(between.flight)
      support.eventually("the answer of a handshake", function() return replay:pending() ~= "" end)
      replay:reset()
    end
    between.release()
    between.process:wait(10)
    assert.equal(2, #backend.requests)
    assert.equal(1, figure(gate, "taken"))
  end)

  it("is taken again from a client that begins again, and is over a reload", function()
    local gate, backend = start()
    local session = meet(gate)
    for i = 1, 3 do
      local process = client(gate.port, session, "GET /early HTTP/1.1" .. ending)
      process:wait(10)
      assert.matches("Early data was accepted", table.concat(process.stdout, "\n"))
      assert.equal("/early", http.await_request(backend, 1 + i).target)
      if i == 2 then assert.equal(0, (gate:reload())) end
    end
  end)

  it("reaches HTTP/2, whose streams wait one by one", function()
    local gate, backend = start()
    -- A session of http/1.1 is no good for h2 (its ALPN differs): a handshake of its own makes one.
    local session = meet(gate, "-alpn", "http/1.1") .. ".h2"
    local preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" .. "\0\0\0\4\0\0\0\0\0"
    local function literal(name, value) return "\0" .. string.char(#name) .. name .. string.char(#value) .. value end
    local function head(id, method, path)
      local block = literal(":method", method) .. literal(":scheme", "https") .. literal(":path", path)
        .. literal(":authority", "own.test")
      return string.pack(">I3BBI4", #block, 1, 5, id) .. block
    end
    local hello = support.process.spawn({ "openssl", "s_client", "-connect", "127.0.0.1:" .. gate.port, "-servername",
      "own.test", "-alpn", "h2", "-ign_eof", "-sess_out", session }, { stdin = preface .. head(1, "GET", "/first") })
    support.eventually("the session", function()
      return #backend.requests == 2 and (support.process.read_file(session) or ""):find "END SSL SESSION"
    end)
    hello:kill()
    local between = middle(gate, session, preface .. head(1, "GET", "/safe") .. head(3, "DELETE", "/unsafe")
      .. head(5, "GET", "/safe"), "-alpn", "h2")
    for i = 3, 4 do
      local request = http.await_request(backend, i)
      assert.equal("/safe", request.target)
      assert.equal("1", request.headers["Early-Data"])
    end
    assert.equal(4, #backend.requests)
    between.release()
    local request = http.await_request(backend, 5)
    assert.equal("/unsafe", request.target)
    assert.is_nil(request.headers["Early-Data"])
    between.process:kill()
  end)

  it("is not offered unless the listener says so", function()
    local gate = start { off = true }
    local _, out = support.run({ "openssl", "s_client", "-connect", "127.0.0.1:" .. gate.port, "-ign_eof" },
      { stdin = "GET / HTTP/1.1" .. ending, timeout = 10 })
    assert.matches("Max Early Data: 0", out)
  end)

  it("does not keep anything from TLS 1.2 and from those who send none", function()
    local gate = start()
    for _, version in ipairs { "-tls1_2", "-tls1_3" } do
      local _, out = support.run({ "openssl", "s_client", "-connect", "127.0.0.1:" .. gate.port, "-ign_eof", version },
        { stdin = "GET / HTTP/1.1" .. ending, timeout = 10 })
      assert.matches("\r\nanswer", out)
    end
    assert.equal(0, figure(gate, "taken"))
  end)
end)
