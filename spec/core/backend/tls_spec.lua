-- TLS to backends: whom they are taken for, and what becomes of those who are not it.

local uv = require "luv"
local support = require "support"
local it, http, net, moongate, tls = support.it, support.http, support.net, support.moongate, support.tls

describe("TLS to a backend", function()
  local dir, ca, server, other

  support.setup(function()
    dir = support.temp_dir()
    uv.fs_chmod(dir, tonumber("755", 8)) -- certificates are for all to read; keys are not
    ca = tls.certificate(dir, "ca", { authority = true })
    server = tls.certificate(dir, "server", { ca = ca, names = { "DNS:app.test", "IP:127.0.0.1" } })
    other = tls.certificate(dir, "other", { ca = ca, names = { "DNS:other.test" } })
  end)

  -- A proxy whose backend speaks TLS as `settings` say, with the backend's port and `$CA` in them.
  local function start(backend, settings, options)
    options = options or {}
    local values = { BACKEND = type(backend) == "table" and backend.address or backend, CERTS = dir }
    for name, value in pairs(options.values or {}) do values[name] = value end
    return moongate.start { args = { "--keys", dir }, values = values, env = options.env, workers = options.workers,
      config = ([[
      return {
        listen = "127.0.0.1:$PORT",
        backends = { app = { "$BACKEND", tls = %s%s } },
      }
    ]]):format(settings, options.more or "") }
  end

  local function backend_with(certificate, more, handler)
    return http.backend(handler or "hello", { tls = tls.server(certificate, more) })
  end

  -- The answer through a proxy with these settings; and the proxy.
  local function ask(certificate, settings, more)
    local backend = backend_with(certificate, more)
    local gate = start(backend, settings)
    return http.get(gate.port), gate, backend
  end

  it("carries requests and answers when the certificate is signed by the roots given, for the address", function()
    local response = ask(server, '{ ca = "$CERTS/ca.pem" }')
    assert.equal(200, response.status)
    assert.equal("hello", response.body)
  end)

  it("verifies against the system's roots unless told otherwise", function()
    local backend = backend_with(server)
    local trusting = start(backend, "true", { env = { SSL_CERT_FILE = ca.cert } })
    assert.equal(200, http.get(trusting.port).status)
    local strict = start(backend, "true")
    assert.equal(502, http.get(strict.port).status)
    strict:wait_log 'server 127%.0%.0%.1:%d+ as "127%.0%.0%.1": the server\'s certificate is not trusted: unable to get'
  end)

  it("refuses a certificate that does not bear the name", function()
    local response, gate = ask(other, '{ ca = "$CERTS/ca.pem" }')
    assert.equal(502, response.status)
    gate:wait_log "not trusted: IP address mismatch"
    response, gate = ask(server, '{ ca = "$CERTS/ca.pem", name = "wrong.test" }')
    assert.equal(502, response.status)
    gate:wait_log "not trusted: hostname mismatch"
  end)

  it("takes `name` for the name in the certificate, and sends it as SNI", function()
    local response = ask(other, '{ ca = "$CERTS/ca.pem", name = "other.test" }')
    assert.equal(200, response.status)
  end)

  it("refuses a certificate that has expired", function()
    local old = tls.certificate(dir, "old", { ca = ca, names = { "IP:127.0.0.1" }, days = -1 })
    local response, gate = ask(old, '{ ca = "$CERTS/ca.pem" }')
    assert.equal(502, response.status)
    gate:wait_log "certificate has expired"
  end)

  it("refuses one that signed itself, unless that very one is given as a root", function()
    local own = tls.certificate(dir, "own", { names = { "IP:127.0.0.1" } })
    local response, gate = ask(own, '{ ca = "$CERTS/ca.pem" }')
    assert.equal(502, response.status)
    gate:wait_log "self%-signed certificate"
    assert.equal(200, ask(own, '{ ca = "$CERTS/own.pem" }').status)
  end)

  it("takes any certificate with verify = false, and says so", function()
    local response, gate = ask(other, "{ verify = false }")
    assert.equal(200, response.status)
    gate:wait_log "backends.app.tls.verify: anybody on the way to the servers can pose as one of them"
  end)

  it("holds the keys of the chain against the pins", function()
    local function with(pin, more) return (ask(server, ('{ %s, pins = { "%s" } }'):format(more, pin))) end
    assert.equal(200, with(tls.pin(server), 'ca = "$CERTS/ca.pem"').status)
    assert.equal(200, with(tls.pin(ca), 'ca = "$CERTS/ca.pem"').status)
    assert.equal(502, with(tls.pin(other), 'ca = "$CERTS/ca.pem"').status)
    assert.equal(200, with(tls.pin(server), "verify = false").status)
    assert.equal(502, with(tls.pin(other), "verify = false").status)
  end)

  it("shows its own certificate to a server that asks for one", function()
    tls.certificate(dir, "client", { ca = ca })
    local asks = { cafile = ca.cert, verify = { "peer", "fail_if_no_peer_cert" } }
    local settings = '{ ca = "$CERTS/ca.pem", cert = "$CERTS/client.pem", key = "$CERTS/client.key" }'
    assert.equal(200, ask(server, settings, asks).status)
    local response, _, backend = ask(server, '{ ca = "$CERTS/ca.pem" }', asks)
    assert.equal(502, response.status)
    assert.matches("peer did not return a certificate", backend.refused[1])
  end)

  it("speaks only the versions that it may", function()
    local response, gate = ask(server, '{ ca = "$CERTS/ca.pem", versions = "1.3" }', { protocol = "tlsv1_2" })
    assert.equal(502, response.status)
    gate:wait_log "the TLS handshake with the server failed: tlsv1 alert protocol version"
    assert.equal(200, ask(server, '{ ca = "$CERTS/ca.pem", versions = "1.2" }', { protocol = "tlsv1_2" }).status)
    assert.equal(200, ask(server, '{ ca = "$CERTS/ca.pem", versions = { "1.2", "1.3" } }',
      { protocol = "tlsv1_3" }).status)
  end)

  it("says that a server does not speak TLS", function()
    local plain = net.listen(function(conn)
      conn:read_exactly(200)
      conn:send "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
      pcall(conn.read_all, conn, 20)
    end)
    local gate = start(plain, '{ ca = "$CERTS/ca.pem" }')
    assert.equal(502, http.get(gate.port).status)
    gate:wait_log "the TLS handshake with the server failed: wrong version number"
  end)

  it("fails when the server leaves in the middle of the handshake", function()
    local gate = start(net.listen(function(conn)
      conn:read_some()
      conn:shutdown()
      conn:read_all(20)
    end), '{ ca = "$CERTS/ca.pem" }')
    assert.equal(502, http.get(gate.port).status)
    gate:wait_log "the connection was closed in the middle"
  end)

  it("gives a handshake no more time than a connect", function()
    local mute = net.listen(function(conn) conn:read_all(20) end)
    local gate = start(mute, '{ ca = "$CERTS/ca.pem" }',
      { more = ', timeouts = { connect = "200ms" }, retry = { tries = 1 }' })
    assert.equal(504, http.get(gate.port).status)
  end)

  it("goes on with a slow handshake, byte by byte", function()
    local backend = backend_with(server)
    local slow = net.listen(function(conn)
      local up = net.connect(backend.port)
      support.spawn(function() while true do conn:send(up:read_some()) end end)
      for byte in conn:read_exactly(200):gmatch "." do up:send(byte) end
      while true do up:send(conn:read_some()) end
    end)
    local gate = start(slow, '{ ca = "$CERTS/ca.pem" }')
    assert.equal("hello", http.get(gate.port).body)
  end)

  it("reuses connections", function()
    local backend = backend_with(server)
    local gate = start(backend, '{ ca = "$CERTS/ca.pem" }', { workers = 1 }) -- each has its own pool
    for _ = 1, 6 do assert.equal(200, http.get(gate.port).status) end
    assert.equal(1, backend.accepted)
  end)

  it("takes up sessions again, with the same server only", function()
    local port = support.free_port()
    local peer = support.process.spawn { "openssl", "s_server", "-accept", "127.0.0.1:" .. port, "-cert", server.cert,
      "-key", server.key, "-www" }
    peer:wait_line("stdout", "ACCEPT")
    local gate = start("127.0.0.1:" .. port, '{ ca = "$CERTS/ca.pem" }', { workers = 1 })
    assert.matches("New, TLSv1.3", http.get(gate.port).body)
    assert.matches("Reused, TLSv1.3", http.get(gate.port).body)
    assert.matches("Reused, TLSv1.3", http.get(gate.port).body)
  end)

  it("carries large bodies both ways, with back-pressure", function()
    local body = ("0123456789abcdef"):rep(support.process.preset == "hard" and 8192 or 256 * 1024)
    local backend = backend_with(server, nil, function(request) return 200, nil, request.body end)
    local gate = start(backend, '{ ca = "$CERTS/ca.pem" }')
    assert.equal(body, http.post(gate.port, "/", body).body)

    local held
    local flood = net.listen(function(conn)
      http.request(conn)
      conn:send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
      held = conn:send_until_blocked(("x"):rep(65536))
    end, { tls = tls.server(server) })
    gate = start(flood, '{ ca = "$CERTS/ca.pem" }')
    local client = net.connect(gate.port, { reading = false })
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    support.eventually("the server to be held back", function() return held end)
  end)

  it("takes an end without close_notify for a truncation", function()
    local backend = net.listen(function(conn)
      local target = http.request(conn).target
      conn:send "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it"
      if target == "/cut" then pcall(conn.read_all, conn, 20) end
    end, { tls = tls.server(server) })
    local relay = net.relay(backend.port)
    local gate = start(relay, '{ ca = "$CERTS/ca.pem" }')
    assert.equal("all of it", http.get(gate.port).body)

    local client = net.connect(gate.port)
    client:send "GET /cut HTTP/1.1\r\nHost: a\r\n\r\n"
    http.response_head(client)
    local got = ""
    while got ~= "all of it" do got = got .. http.chunk(client) end
    relay.passed:shutdown()
    assert.equal("", client:read_all()) -- no last chunk
  end)

  it("keeps connections apart that are made in different ways", function()
    local backend = backend_with(server, nil, function() return 200 end)
    local gate = moongate.start { workers = 1, args = { "--keys", dir }, values = { BACKEND = backend, CERTS = dir },
      config = [[
      local function site(host, tls)
        return { listen = "127.0.0.1:$PORT", hosts = { host }, backends = { app = { "$BACKEND", tls = tls } } }
      end
      return { sites = {
        site("a", { ca = "$CERTS/ca.pem" }),
        site("b", { ca = "$CERTS/ca.pem", name = "app.test" }),
        site("c", { ca = "$CERTS/ca.pem", versions = "1.3" }),
        site("d", { ca = "$CERTS/ca.pem" }),
        site("e", false),
      } }
    ]] }
    local function get(host) return http.get(gate.port, "/", { headers = { Host = host } }).status end
    for _, host in ipairs { "a", "b", "c", "a", "b", "c", "d" } do assert.equal(200, get(host)) end
    assert.equal(3, backend.accepted)
    assert.equal(502, get "e")
  end)

  it("keeps them over a reload that changes nothing of it", function()
    local backend = backend_with(server)
    local gate = start(backend, '{ ca = "$CERTS/ca.pem" }', { workers = 1 })
    assert.equal(200, http.get(gate.port).status)
    assert.equal(0, (gate:reload()))
    assert.equal(200, http.get(gate.port).status)
    assert.equal(1, backend.accepted)
  end)

  it("checks health through TLS", function()
    local backend = backend_with(server)
    local gate = start(backend, '{ ca = "$CERTS/ca.pem" }',
      { more = ', health = { path = "/up", interval = "100ms", fall = 1 }' })
    assert.equal("/up", http.await_request(backend, 2).target)
    assert.equal(200, http.get(gate.port).status)
  end)

  it("tells on_error and retries of a certificate as of any failure to connect", function()
    local bad, good = backend_with(other), backend_with(server)
    local gate = moongate.start { args = { "--keys", dir }, values = { BAD = bad, GOOD = good, CERTS = dir },
      config = [[
      return {
        listen = "127.0.0.1:$PORT",
        backends = { app = { "$BAD", "$GOOD", tls = { ca = "$CERTS/ca.pem" } } },
      }
    ]] }
    for _ = 1, 4 do assert.equal(200, http.get(gate.port).status) end
    assert.equal(4, #good.requests)
  end)

  it("is refused where the settings are wrong, with their place", function()
    local function errors(settings)
      local file = dir .. "/bad.lua"
      support.process.write_file(file,
        ('return {\n listen = "127.0.0.1:1",\n backends = { app = { "127.0.0.1:2",\n tls = %s\n} } }')
        :format(settings))
      local status, _, err = moongate.run { "check", "--keys", dir, file }
      assert.equal(1, status)
      return err
    end
    local function says(sentence, settings) assert.matches(sentence, errors(settings), 1, true) end
    says("bad.lua:4: backends.app.tls.ca: missing.pem: no such file", '{ ca = "missing.pem" }')
    says("backends.app.tls.ca: server.key: holds no certificates in PEM", '{ ca = "server.key" }')
    says("backends.app.tls.key: other.key: it is not that of the certificate",
      '{ cert = "server.pem", key = "other.key" }')
    says("backends.app.tls.key: server.pem: holds no key in PEM", '{ cert = "server.pem" }')
    says("backends.app.tls.key: a key without `cert`", '{ key = "server.key" }')
    says('backends.app.tls.pins[1]: expected "sha256/"', '{ pins = { "abc" } }')
    says('backends.app.tls.versions: expected "1.2" or "1.3", got "1.1"', '{ versions = "1.1" }')
    says("with verify = false nothing is held against it", '{ ca = "ca.pem", verify = false }')
    says('backends.app.tls.verfiy: unknown setting, did you mean "verify"?', "{ verfiy = false }")
    says("expected true, false or a table", '"yes"')
  end)
end)
