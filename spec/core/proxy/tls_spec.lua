-- TLS to clients: which certificate a name gets, who is let in, what a request then knows of it.

local uv = require "luv"
local support = require "support"
local it, http, net, moongate, tls = support.it, support.http, support.net, support.moongate, support.tls

describe("a TLS listener", function()
  local dir, ca, one, two, two_rsa, wild, person

  support.setup(function()
    dir = support.temp_dir()
    uv.fs_chmod(dir, tonumber("755", 8))
    ca = tls.certificate(dir, "ca", { authority = true })
    one = tls.certificate(dir, "one", { ca = ca, names = { "DNS:one.test" } })
    two = tls.certificate(dir, "two", { ca = ca, names = { "DNS:two.test" } })
    two_rsa = tls.certificate(dir, "two_rsa", { ca = ca, names = { "DNS:two.test" }, rsa = true })
    wild = tls.certificate(dir, "wild", { ca = ca, names = { "DNS:*.wild.test" } })
    -- What a TLS client says first, as bytes.
    local server = net.listen()
    local client = support.process.spawn { "openssl", "s_client", "-connect", server.address, "-servername",
      "slow.test" }
    support.process.write_file(dir .. "/hello", server:accept():read_exactly(300))
    client:kill()
    server:close()
    person = tls.certificate(dir, "person", { ca = ca, names = { "DNS:person.test", "email:me@person.test" } })
  end)

  local function start(config, options)
    options = options or {}
    local values = { CERTS = dir }
    for name, value in pairs(options.values or {}) do values[name] = value end
    return moongate.start {
      args = { "--keys", dir }, config = config, values = values, workers = options.workers, env = options.env,
    }
  end

  -- One site with `tls` as given, whose on_request is `body`.
  local function simple(settings, body, options)
    return start(([[
      local gate = require "moongate"
      return {
        listen = { "127.0.0.1:$PORT", tls = %s },
        on_request = function(req) %s end,
      }
    ]]):format(settings, body or 'return gate.reply(200, req.scheme .. " " .. req.path)'), options)
  end

  local own = '{ cert = "$CERTS/one.pem", key = "$CERTS/one.key" }'

  -- The common name in the certificate that a name gets.
  local function shown(gate, name, more)
    local conn, why = net.try_connect_tls(gate.port, tls.client(more), name)
    if not conn then return nil, why end
    local subject = conn.handle.secure:getpeercertificate():subject()
    conn:close()
    return subject[1].value
  end

  -- What s_client says of one handshake.
  local function s_client(gate, ...)
    local _, out, err = support.run({ "openssl", "s_client", "-connect", "127.0.0.1:" .. gate.port, ... },
      { stdin = "", timeout = 10 })
    return out .. err
  end

  it("serves requests, whose scheme is https", function()
    local gate = simple(own)
    local conn = net.connect_tls(gate.port)
    assert.equal("https /a", http.get(nil, "/a", { conn = conn }).body)
    assert.equal("https /b", http.get(nil, "/b", { conn = conn }).body)
  end)

  it("is understood by curl, which verifies it", function()
    local gate = simple(own)
    local status, out = support.run { "curl", "-sS", "--cacert", ca.cert, "--resolve", "one.test:" .. gate.port
      .. ":127.0.0.1",
      ("https://one.test:%d/path"):format(gate.port) }
    assert.equal(0, status)
    assert.equal("https /path", out)
  end)

  it("tells the scheme of the connection, whatever an absolute target claims", function()
    local gate = start([[
      local gate = require "moongate"
      return {
        listen = { "127.0.0.1:$PORT2", { "127.0.0.1:$PORT", tls = ]] .. own .. [[ } },
        on_request = function(req) return gate.reply(200, req.scheme) end,
      }
    ]])
    assert.equal("http", http.get(gate.values.PORT2, "https://a/").body)
    assert.equal("https", http.get(nil, "http://a/", { conn = net.connect_tls(gate.port) }).body)
  end)

  it("tells backends that the client came by https", function()
    local backend = http.backend()
    local gate = start([[return {
      listen = { "127.0.0.1:$PORT", tls = ]] .. own .. [[ }, backends = { app = { "$BACKEND" } },
    }]], { values = { BACKEND = backend } })
    http.get(nil, "/", { conn = net.connect_tls(gate.port) })
    local request = http.await_request(backend)
    assert.equal("https", request.headers["X-Forwarded-Proto"])
    assert.matches("proto=https", request.headers["Forwarded"])
  end)

  it("shows each name its site's certificate, by exact name, wildcard, and else the listener's", function()
    local gate = start [[
      local function site(host, name)
        return { listen = { "127.0.0.1:$PORT", tls = { cert = "$CERTS/one.pem", key = "$CERTS/one.key" } },
          hosts = { host },
          tls = { cert = "$CERTS/" .. name .. ".pem", key = "$CERTS/" .. name .. ".key" }, on_request = 204 }
      end
      return { sites = { site("two.test", "two"), site("*.wild.test", "wild") } }
    ]]
    assert.equal("two", shown(gate, "two.test"))
    assert.equal("two", shown(gate, "TWO.test"))
    assert.equal("wild", shown(gate, "a.wild.test"))
    assert.equal("one", shown(gate, "nobody.test"))
    assert.equal("one", shown(gate))
  end)

  it("chooses among many certificates of a listener by the names they bear", function()
    local gate = simple [[{
      { cert = "$CERTS/one.pem", key = "$CERTS/one.key" }, { cert = "$CERTS/two.pem", key = "$CERTS/two.key" },
      { cert = "$CERTS/wild.pem", key = "$CERTS/wild.key" },
    }]]
    assert.equal("two", shown(gate, "two.test"))
    assert.equal("wild", shown(gate, "x.wild.test"))
    assert.equal("one", shown(gate, "a.b.wild.test"))
    assert.equal("one", shown(gate, "none.test"))
  end)

  it("has RSA and ECDSA side by side", function()
    local gate = simple [[{
      { cert = "$CERTS/two.pem", key = "$CERTS/two.key" }, { cert = "$CERTS/two_rsa.pem", key = "$CERTS/two_rsa.key" },
    }]]
    assert.equal("two_rsa", shown(gate, "two.test", { protocol = "tlsv1_2", ciphers = "ECDHE-RSA-AES128-GCM-SHA256" }))
    assert.equal("two", shown(gate, "two.test", { protocol = "tlsv1_2", ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256" }))
    assert.truthy(two_rsa and wild and two)
  end)

  it("speaks TLS 1.2 with forward secrecy and authenticated encryption only, and 1.3", function()
    local gate = simple(own)
    assert.matches("TLSv1.3", s_client(gate, "-tls1_3"))
    assert.matches("Cipher is ECDHE%-ECDSA%-AES", s_client(gate, "-tls1_2"))
    assert.matches("handshake failure", s_client(gate, "-tls1_2", "-cipher",
      "ECDHE-ECDSA-AES128-SHA256:AES128-GCM-SHA256"))
    assert.matches("protocol version", s_client(gate, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"))
    local modern = simple((own:gsub("}", ', profile = "modern" }')))
    assert.matches("protocol version", s_client(modern, "-tls1_2"))
    assert.matches("TLSv1.3", s_client(modern))
  end)

  it("prefers AES-128, but ChaCha20 for those who prefer that", function()
    local gate = simple(own)
    local aes, chacha = "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"
    assert.matches("Cipher is TLS_AES_128_GCM_SHA256", s_client(gate, "-ciphersuites",
      aes .. ":" .. chacha .. ":TLS_AES_128_GCM_SHA256"))
    assert.matches("Cipher is " .. chacha, s_client(gate, "-ciphersuites", chacha .. ":TLS_AES_128_GCM_SHA256"))
    assert.matches("Cipher is ECDHE%-ECDSA%-AES128%-GCM", s_client(gate, "-tls1_2", "-cipher",
      "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"))
    assert.matches("Cipher is ECDHE%-ECDSA%-CHACHA20", s_client(gate, "-tls1_2", "-cipher",
      "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"))
  end)

  it("agrees on HTTP/2, else on http/1.1, and on nothing else", function()
    local gate = simple(own)
    assert.matches("ALPN protocol: h2", s_client(gate, "-alpn", "http/1.1,h2"))
    assert.matches("ALPN protocol: http/1.1", s_client(gate, "-alpn", "http/1.1"))
    assert.matches("ALPN protocol: http/1.0", s_client(gate, "-alpn", "http/1.0"))
    assert.matches("no application protocol", s_client(gate, "-alpn", "spdy/3"))
    assert.matches("No ALPN negotiated", s_client(gate))
  end)

  it("does not renegotiate", function()
    local gate = simple(own)
    local _, out, err = support.run({ "openssl", "s_client", "-connect", "127.0.0.1:" .. gate.port, "-tls1_2" },
      { stdin = "R\n", timeout = 10 })
    assert.matches("RENEGOTIATING", out .. err)
    assert.matches("no renegotiation", out .. err)
  end)

  it("takes up sessions again, on another worker too, and over a reload", function()
    local gate = simple(own, "return gate.reply(200, tostring(req.client.tls.resumed))", { workers = 4 })
    local file = dir .. "/session"
    local request = "GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n"
    local function handshake(...)
      local _, out = support.run({ "openssl", "s_client", "-connect", "127.0.0.1:" .. gate.port, "-ign_eof", ... },
        { stdin = request, timeout = 10 })
      return out
    end
    assert.matches("\r\nfalse", handshake("-sess_out", file))
    for _ = 1, 8 do assert.matches("\r\ntrue", handshake("-sess_in", file)) end
    assert.equal(0, (gate:reload()))
    assert.matches("\r\ntrue", handshake("-sess_in", file))
    handshake("-tls1_2", "-sess_out", file)
    assert.matches("\r\ntrue", handshake("-tls1_2", "-sess_in", file))
  end)

  it("tells scripts of the connection", function()
    local gate = simple(own, [[
      local t = req.client.tls
      return gate.reply(200, table.concat({ t.version, t.cipher, t.sni, t.alpn or "-", tostring(t.resumed),
        tostring(t.verified), tostring(t.subject), tostring(t.not_after), tostring(t.san) }, "|"))
    ]])
    local conn = net.connect_tls(gate.port, nil, "one.test")
    assert.equal("TLSv1.3|TLS_AES_128_GCM_SHA256|one.test|-|false|false|nil|nil|nil", http.get(nil, "/",
      { conn = conn }).body)
    local plain = start [[
      local gate = require "moongate"
      return { listen = "127.0.0.1:$PORT", on_request = function(req) return gate.reply(200,
        tostring(req.client.tls)) end }
    ]]
    assert.equal("nil", http.get(plain.port).body)
  end)

  local facts = [[
    local t = req.client.tls
    return gate.reply(200, table.concat({ tostring(t.verified), tostring(t.subject), tostring(t.issuer),
      t.serial and #t.serial > 8 and "serial" or "none", t.fingerprint and #t.fingerprint or "none",
      tostring(t.not_after and t.not_after > gate.now()), t.san and table.concat(t.san, " ") or "none" }, "|"))
  ]]
  local asking = '{ cert = "$CERTS/one.pem", key = "$CERTS/one.key", client_ca = "$CERTS/ca.pem"%s }'
  local function with(certificate)
    return tls.client { certificate = certificate.cert, key = certificate.key }
  end

  it("requires a client's certificate, and tells of it", function()
    local gate = simple(asking:format "", facts)
    local conn = net.connect_tls(gate.port, with(person))
    assert.equal("true|CN=person|CN=ca|serial|64|true|DNS:person.test email:me@person.test",
      http.get(nil, "/", { conn = conn }).body)
    local without = net.connect_tls(gate.port, tls.client { protocol = "tlsv1_3" })
    without:post "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    support.eventually("the conn to be refused", function() return without.lost or without.eof end)
    assert.equal("", without:pending())
  end)

  it("requests one, takes what comes, and says whether it is good", function()
    local gate = simple(asking:format ', client_verify = "request"', facts)
    assert.equal("false|nil|nil|none|none|nil|none", http.get(nil, "/", { conn = net.connect_tls(gate.port) }).body)
    local stranger = tls.certificate(dir, "stranger")
    local body = http.get(nil, "/", { conn = net.connect_tls(gate.port, with(stranger)) }).body
    assert.matches("^false|CN=stranger|CN=stranger|", body)
    assert.matches("^true|CN=person|", http.get(nil, "/", { conn = net.connect_tls(gate.port, with(person)) }).body)
  end)

  it("refuses certificates that were revoked", function()
    local revoked = tls.certificate(dir, "revoked", { ca = ca })
    support.process.write_file(dir .. "/index.txt", "")
    support.process.write_file(dir .. "/ca.cnf", ("[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index.txt\ndefault_md=sha256\n"
      .. "default_crl_days=30\ncertificate=%s\nprivate_key=%s\n"):format(dir, ca.cert, ca.key))
    assert.equal(0, (support.run { "openssl", "ca", "-config", dir .. "/ca.cnf", "-revoke", revoked.cert }))
    assert.equal(0, (support.run { "openssl", "ca", "-config", dir .. "/ca.cnf", "-gencrl", "-out", dir
      .. "/crl.pem" }))
    local gate = simple(asking:format ', crl = "$CERTS/crl.pem", client_verify = "request"', facts)
    assert.matches("^false|CN=revoked", http.get(nil, "/", { conn = net.connect_tls(gate.port, with(revoked)) }).body)
    assert.matches("^true|CN=person", http.get(nil, "/", { conn = net.connect_tls(gate.port, with(person)) }).body)
  end)

  describe("with an OCSP answer", function()
    -- About a certificate, good for a week; the file it lies in.
    local function answer(about)
      local file = dir .. "/ocsp.der"
      support.process.write_file(dir .. "/ocsp.txt", "V\t991231235959Z\t\t01\tunknown\t/CN=one\n")
      local function openssl(...) assert.equal(0, (support.run { "openssl", "ocsp", ... })) end
      openssl("-issuer", ca.cert, "-cert", about.cert, "-reqout", dir .. "/ocsp.req")
      openssl("-index", dir .. "/ocsp.txt", "-CA", ca.cert, "-rsigner", ca.cert, "-rkey", ca.key, "-reqin", dir
        .. "/ocsp.req", "-respout", file, "-ndays", "7")
      return file
    end
    local stapled = own:gsub("}", ', ocsp = "$CERTS/ocsp.der" }')

    it("staples it", function()
      answer(one)
      assert.matches("OCSP Response Status: successful", s_client(simple(stapled), "-status"))
      assert.matches("OCSP response: no response sent", s_client(simple(own), "-status"))
    end)

    it("does not staple it when its time is over, and says so", function()
      local file = answer(one)
      -- The last time in it is that of the next update; nobody here holds its signature against it.
      local bytes, count = support.process.read_file(file):gsub("^(.*\24\15)%d+Z", "%120200101000000Z")
      assert.equal(1, count)
      support.process.write_file(file, bytes)
      local gate = simple(stapled)
      gate:wait_log "listen.tls: an OCSP answer has expired: it is not stapled"
      assert.matches("OCSP response: no response sent", s_client(gate, "-status"))
    end)

    it("refuses one about another certificate", function()
      answer(two)
      support.process.write_file(dir .. "/other.lua",
        'return { on_request = 204, listen = { 8443, tls = { cert = "one.pem", ocsp = "ocsp.der", key = "one.key" }}}')
      local status, _, err = moongate.run { "check", "--keys", dir, dir .. "/other.lua" }
      assert.equal(1, status)
      assert.matches("listen.tls.ocsp: ocsp.der: it is not about the certificate", err, 1, true)
    end)
  end)

  it("carries large bodies both ways", function()
    local backend = http.backend(function(request) return 200, nil, request.body end)
    local gate = start([[return {
      listen = { "127.0.0.1:$PORT", tls = ]] .. own .. [[ }, backends = { app = { "$BACKEND" } },
    }]], { values = { BACKEND = backend } })
    local body = ("0123456789abcdef"):rep(support.process.preset == "hard" and 4096 or 256 * 1024)
    local conn = net.connect_tls(gate.port)
    for _ = 1, 2 do assert.equal(body, http.post(nil, "/", body, { conn = conn }).body) end
  end)

  it("holds a backend back for a client that does not read", function()
    local held
    local flood = net.listen(function(conn)
      http.request(conn)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
      held = conn:send_until_blocked(("x"):rep(65536))
    end)
    local gate = start([[return {
      listen = { "127.0.0.1:$PORT", tls = ]] .. own .. [[ }, backends = { app = { "$BACKEND" } },
    }]], { values = { BACKEND = flood } })
    local client = net.connect_tls(gate.port)
    client:stop_reading()
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    support.eventually("the backend to be held back", function() return held end)
  end)

  it("answers pipelined requests, and closes with close_notify", function()
    local gate = simple(own)
    local conn = net.connect_tls(gate.port)
    conn:send(("GET / HTTP/1.1\r\nHost: a\r\n\r\n"):rep(50) .. "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    for _ = 1, 51 do assert.equal(200, http.response(conn).status) end
    conn:expect_eof()
  end)

  it("carries WebSockets", function()
    local gate = start([[return {
      listen = { "127.0.0.1:$PORT", tls = ]] .. own .. [[ }, backends = { app = { "$BACKEND" } },
    }]], { values = { BACKEND = support.websocket.backend() } })
    local conn = net.connect_tls(gate.port)
    local response = http.exchange(nil, "GET", "/", { conn = conn, headers = {
      Connection = "Upgrade", Upgrade = "websocket", ["Sec-WebSocket-Version"] = "13",
      ["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ==" } })
    assert.equal(101, response.status)
  end)

  it("survives those who do not speak TLS, leave, or dawdle", function()
    local gate = start([[return {
      listen = { "127.0.0.1:$PORT", tls = ]] .. own .. [[ }, timeouts = { head = "300ms" }, on_request = 204,
    }]])
    local plain = net.connect(gate.port)
    plain:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.equal(400, http.response(plain).status)
    plain:expect_eof()
    net.connect(gate.port):close()
    local half = net.connect(gate.port)
    half:send "\22\3\1\2\0\1"
    half:reset()
    local slow = net.connect(gate.port)
    slow:send "\22\3\1"
    support.eventually("the slow one to be closed", function() return slow.eof or slow.lost end)
    assert.equal(204, http.get(nil, "/", { conn = net.connect_tls(gate.port) }).status)
  end)

  it("tells who speaks plain HTTP to it what it speaks, in clear", function()
    local gate = start([[return { admin = "127.0.0.1:$PORT2", log = { access = "$CERTS/access.log" }, sites = { {
      listen = { "127.0.0.1:$PORT", tls = ]] .. own .. [[ }, on_request = 204 } } }]])
    for _, request in ipairs { "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
      "PROPFIND /x HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" } do
      local conn = net.connect(gate.port)
      for i = 1, #request, 7 do conn:send(request:sub(i, i + 6)) end
      local answer = http.response(conn)
      assert.equal(400, answer.status)
      assert.matches("this port speaks TLS", answer.body, 1, true)
      assert.equal("close", answer.headers.Connection)
      conn:expect_eof()
    end
    local malformed = net.connect(gate.port)
    malformed:send "GET / HTTP\r\n\r\n"
    assert.equal(400, http.response(malformed).status)
    local figures = http.get(gate.values.PORT2, "/metrics").body
    assert.matches('moongate_misplaced_total{came="http"} 4', figures, 1, true)
    assert.matches('moongate_tls_handshakes_total{result="failed"} 0', figures, 1, true)
    gate:stop()
    local _, told = support.process.read_file(dir .. "/access.log"):gsub('" 400 ', "")
    assert.equal(4, told)
  end)

  it("counts handshakes and those that failed", function()
    local gate = start([[return { admin = "127.0.0.1:$PORT2", sites = { {
      listen = { "127.0.0.1:$PORT", tls = ]] .. own .. [[ }, on_request = 204 } } }]])
    http.get(nil, "/", { conn = net.connect_tls(gate.port) })
    net.connect(gate.port):send "nonsense"
    support.eventually("the figures", function()
      local text = http.get(gate.values.PORT2, "/metrics").body
      return text:find 'moongate_tls_handshakes_total{result="full"} 1'
        and text:find 'moongate_tls_handshakes_total{result="failed"} 1'
    end)
  end)

  it("changes certificates by a reload, for new connections", function()
    local gate = simple(own)
    local old = net.connect_tls(gate.port)
    gate:reload_with [[return {
      listen = { "127.0.0.1:$PORT", tls = { cert = "$CERTS/two.pem", key = "$CERTS/two.key" } }, on_request = 204 }]]
    assert.equal("two", shown(gate))
    assert.equal(204, http.get(nil, "/", { conn = old }).status)
  end)

  it("meets who still waits in the queue of a listener that leaves as it met others", function()
    local gate = start([[return { max_connections = 1, sites = { {
      listen = { "127.0.0.1:$PORT", tls = ]] .. own .. [[ }, on_request = 204 } } }]], { workers = 1 })
    local first = net.connect_tls(gate.port)
    assert.equal(204, http.get(nil, "/", { conn = first }).status)
    local late = support.spawn(function()
      local conn = net.connect_tls(gate.port, nil, "one.test") -- is accepted when nobody listens there any more
      return conn.handle.secure:getpeercertificate():subject()[1].value, http.get(nil, "/", { conn = conn }).status
    end)
    gate:reload_with [[return { listen = "127.0.0.1:$PORT2", on_request = 204 }]]
    local name, status = late:join()
    assert.equal("one", name)
    assert.equal(421, status)
    assert.equal("ECONNREFUSED", select(2, net.try_connect(gate.port)))
  end)

  it("makes a certificate for development, and keeps it", function()
    local state = support.temp_dir()
    uv.fs_chmod(state, tonumber("777", 8))
    local gate = simple('"internal"', nil, { env = { XDG_STATE_HOME = state } })
    local conn = net.connect_tls(gate.port)
    local first = conn.handle.secure:getpeercertificate():digest "sha256"
    assert.equal("https /", http.get(nil, "/", { conn = conn }).body)
    gate:stop()
    gate = simple('"internal"', nil, { env = { XDG_STATE_HOME = state } })
    assert.equal(first, net.connect_tls(gate.port).handle.secure:getpeercertificate():digest "sha256")
    assert.equal(tonumber("600", 8), uv.fs_stat(state .. "/moongate/internal.pem").mode & tonumber("777", 8))
  end)

  it("has a plain counterpart that closes on TLS, without a page", function()
    for _, options in ipairs { "", ", h2c = true" } do
      local gate = start([[return { admin = "127.0.0.1:$PORT2", log = { level = "debug" }, sites = { {
        listen = { { "127.0.0.1:$PORT"]] .. options .. [[ } }, on_request = 204 } } }]])
      local conn = net.connect(gate.port)
      conn:send(support.process.read_file(dir .. "/hello"))
      conn:expect_closed()
      assert.equal("", conn:pending())
      gate:wait_log "speaks TLS, which this listener does not"
      assert.matches('moongate_misplaced_total{came="tls"} 1', http.get(gate.values.PORT2, "/metrics").body, 1, true)
    end
  end)

  describe("asks on_certificate", function()
    local function asking_for(body, load)
      return start(([[
        local gate = require "moongate"
        %s
        return {
          listen = { "127.0.0.1:$PORT", tls = { { cert = "$CERTS/one.pem", key = "$CERTS/one.key" },
            { cert = "$CERTS/two.pem", key = "$CERTS/two.key" } } },
          on_certificate = function(name) %s end, on_request = 204,
        }
      ]]):format(load or "", body))
    end

    it("which may name another one, return one, or leave it", function()
      local text = "[[" .. support.process.read_file(person.cert) .. "]], [["
        .. support.process.read_file(person.key) .. "]]"
      local gate = asking_for([[
        if name == "dynamic.test" then return { cert = cert, key = key } end
        if name == "other.test" then return "two.test" end
        if not name then return "two.test" end
      ]], "local cert, key = " .. text)
      for _ = 1, 3 do assert.equal("person", shown(gate, "dynamic.test")) end
      assert.equal("two", shown(gate, "other.test"))
      assert.equal("two", shown(gate))
      assert.equal("one", shown(gate, "one.test"))
      assert.equal("one", shown(gate, "nobody.test"))
    end)

    it("which may wait, while others are served", function()
      local gate = asking_for [[ if name == "slow.test" then gate.sleep(0.2) end return "two.test" ]]
      local slow = support.spawn(function() return shown(gate, "slow.test") end)
      assert.equal("two", shown(gate, "fast.test"))
      assert.is_falsy(slow.done)
      assert.equal("two", slow:join())
    end)

    it("and ends the handshake when it fails, or returns what is no certificate", function()
      local gate = asking_for [[
        if name == "raise.test" then error "no" end
        return name == "bad.test" and 5 or { cert = "x" } ]]
      assert.is_nil((shown(gate, "raise.test")))
      gate:wait_log "on_certificate of .* failed: .*no"
      assert.is_nil((shown(gate, "bad.test")))
      gate:wait_log "returned a number; expected a name"
      assert.is_nil((shown(gate, "pem.test")))
      gate:wait_log 'on_certificate of .* returned for "pem.test" what is no certificate'
    end)

    it("and forgets it when the client leaves", function()
      local gate = asking_for [[ gate.sleep(30) ]]
      local raw = net.connect(gate.port)
      raw:send(support.process.read_file(dir .. "/hello"))
      gate:reload_with [[return {
        listen = { "127.0.0.1:$PORT", tls = { cert = "$CERTS/one.pem", key = "$CERTS/one.key" } },
        on_request = 204 }]]
      raw:close()
      assert.equal("one", shown(gate))
    end)

    it("which is certificate enough for a listener", function()
      local file = dir .. "/hooked.lua"
      support.process.write_file(file,
        'return { listen = { 8443, tls = true }, on_certificate = function() end, on_request = 204 }')
      assert.equal(0, (moongate.run { "check", file }))
    end)
  end)

  describe("is refused in a config", function()
    local function says(sentence, text)
      local file = dir .. "/bad.lua"
      support.process.write_file(file, text)
      local status, _, err = moongate.run { "check", "--keys", dir, file }
      assert.matches(sentence, err, 1, true)
      return status, err
    end
    local function listener(settings)
      return ("return {\n listen = { 8443, tls = %s }, on_request = 204 }"):format(settings)
    end

    it("with what is wrong, and where", function()
      says("bad.lua:2: listen.tls.key: two.key: it is not that of the certificate",
        listener '{ cert = "one.pem", key = "two.key" }')
      says("listen.tls.cert: missing.pem: no such file", listener '{ cert = "missing.pem", key = "two.key" }')
      says("listen.tls.cert: one.key: holds no certificate in PEM", listener '{ cert = "one.key", key = "one.key" }')
      says('listen.tls: needs a certificate, such as', listener '{ key = "one.key" }')
      says("TLS without a certificate: neither here nor in the `tls` of a site on it", listener "true")
      says('listen.tls.profile: expected "intermediate" or "modern", got "old"',
        listener '{ cert = "one.pem", key = "one.key", profile = "old" }')
      says("listen.tls.client_verify: needs `client_ca`",
        listener '{ cert = "one.pem", key = "one.key", client_verify = "request" }')
      says("listen.tls.crl: one.pem: holds no list of revoked certificates",
        listener '{ cert = "one.pem", key = "one.key", client_ca = "ca.pem", crl = "one.pem" }')
      says("listen.tls.ocsp: one.pem: holds no good OCSP answer",
        listener '{ cert = "one.pem", key = "one.key", ocsp = "one.pem" }')
      says("listen.tls: expected true, \"internal\" or a table", listener '"yes"')
      says("tls: expected a table such as", 'return { listen = 8443, tls = true, on_request = 204 }')
      says("has `tls`, but none of its listeners",
        'return { listen = 8443, tls = { cert = "one.pem", key = "one.key" }, on_request = 204 }')
      says("listen.tls.early_data: expected true or false",
        listener '{ cert = "one.pem", key = "one.key", early_data = 5 }')
    end)

    it("when a key can be read by others", function()
      local loose = tls.certificate(dir, "loose", { ca = ca })
      uv.fs_chmod(loose.key, tonumber("644", 8))
      says("listen.tls.key: loose.key: others can read it: chmod 600",
        listener '{ cert = "loose.pem", key = "loose.key" }')
    end)

    it("when sites on one address do not agree", function()
      says("has another `tls`", [[
        local function site(host, tls) return { listen = { "127.0.0.1:8443", tls = tls }, hosts = { host },
          on_request = 204 } end
        return { sites = { site("a", { cert = "one.pem", key = "one.key" }), site("b", { cert = "two.pem",
          key = "two.key" }) } }
      ]])
    end)

    it("and warned of names that no certificate bears, and of what has expired", function()
      local status = says('warning: no certificate of its `tls` bears the name "other.test"', [[return {
        listen = { 8443, tls = true }, hosts = { "one.test", "other.test" }, tls = { cert = "one.pem",
          key = "one.key" },
        on_request = 204 }]])
      assert.equal(0, status)
      tls.certificate(dir, "old", { ca = ca, days = -1 })
      assert.equal(0, (says("warning: listen.tls: a certificate has expired",
        listener '{ cert = "old.pem", key = "old.key" }')))
    end)
  end)
end)
