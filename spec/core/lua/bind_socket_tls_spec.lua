-- TLS on sockets of scripts, and LuaSec's names for it.
-- luacheck: no max line length (scripts and messages stand in one line)

local uv = require "luv"
local support = require "support"
local scripted = require "support.scripted"
local it, http, net, tls = support.it, support.http, support.net, support.tls

local config = scripted.config { names = "gate, socket, ssl, trust, context", before = [[
local ssl = require "ssl"
local trust = gate.tls { ca = "$CERTS/ca.pem" }
local context = ssl.newcontext { mode = "client", protocol = "any", verify = "peer", cafile = "$CERTS/ca.pem" }
]] }

describe("TLS on a socket", function()
  local proxy, dir, ca, server, other

  support.setup(function()
    dir = support.temp_dir()
    uv.fs_chmod(dir, tonumber("755", 8))
    ca = tls.certificate(dir, "ca", { authority = true })
    server = tls.certificate(dir, "server", { ca = ca, names = { "DNS:localhost", "IP:127.0.0.1" } })
    other = tls.certificate(dir, "other", { ca = ca, names = { "DNS:other.test" } })
    proxy = support.moongate.start { config = config, values = { CERTS = dir }, workers = 1 }
  end)

  local function echo(conn)
    while true do conn:send("you said " .. conn:read_until "\n") end
  end

  -- A TLS peer, and a way to run scripts that know HOST and PORT.
  local function with_peer(certificate, script, options)
    options = options or { tls = tls.server(certificate) }
    local peer = net.listen(function(conn)
      local ok, err = pcall(script or echo, conn)
      if not ok and not tostring(err):find("the conn ended", 1, true) then error(err, 0) end
    end, options)
    return function(text)
      return http.post(proxy.port, "/", ("local HOST, PORT = '127.0.0.1', %d "):format(peer.port) .. text).body
    end, peer
  end

  local say = "sock:send 'hello\\n' return sock:receive()"

  it("is spoken after sslhandshake, or from connect on", function()
    local run = with_peer(server)
    assert.equal("1|you said hello", run("local sock = gate.socket.connect(HOST, PORT) local ok = sock:sslhandshake(trust) "
      .. "sock:send 'hello\\n' return ok, sock:receive()"))
    assert.equal("you said hello", run("local sock = assert(gate.socket.connect(HOST, PORT, { tls = trust })) " .. say))
    assert.equal("you said hello", run("local sock = assert(gate.socket.connect('localhost', PORT, { tls = trust })) " .. say))
    assert.equal("you said hello", run("local sock = assert(gate.socket.connect(HOST, PORT, { tls = { verify = false } })) " .. say))
  end)

  it("refuses who is not the one that was asked for, and says why", function()
    local run = with_peer(other)
    assert.matches("^nil|certificate|the server's certificate is not trusted: IP address mismatch",
      run "return gate.socket.connect(HOST, PORT, { tls = trust })")
    assert.matches("^nil|certificate|.*IP address mismatch",
      run "local sock = gate.socket.connect(HOST, PORT) return sock:sslhandshake(trust)")
    run = with_peer(server)
    assert.matches("^nil|certificate|", run "return gate.socket.connect(HOST, PORT, { tls = true })")
    local plain = net.listen(function(conn) conn:send "HTTP/1.1 400 no\r\n\r\n" conn:close() end)
    assert.matches("^nil|tls_failed|", http.post(proxy.port, "/",
      ("return gate.socket.connect('127.0.0.1', %d, { tls = trust })"):format(plain.port)).body)
  end)

  it("begins in the middle of a connection, and not over what came before it", function()
    local run = with_peer(nil, function(conn)
      conn:read_until "STARTTLS\n"
      conn:send "OK\ninjected"
      conn:expect_closed()
    end, {})
    assert.equal("OK|nil|dirty", run [[
      local sock = gate.socket.connect(HOST, PORT)
      sock:send "STARTTLS\n"
      local answer = sock:receive()
      sock:readable(5)
      local ok, word = sock:sslhandshake(trust)
      return answer, ok, word
    ]])
  end)

  it("gives up after its timeout", function()
    local run = with_peer(nil, function(conn) conn:skip() end, {})
    assert.equal("nil|timeout|nil|timeout|closed", run [[
      local sock = gate.socket.connect(HOST, PORT)
      sock:settimeout(0.05)
      local ok, word = sock:sslhandshake(trust)
      local other, why = gate.socket.connect(HOST, PORT, { tls = trust, timeout = 0.05 })
      return ok, word, other, why, (select(2, sock:send "x"))
    ]])
  end)

  it("carries a megabyte each way", function()
    local size = support.process.preset == "hard" and 30000 or 1 << 20
    local run = with_peer(server, function(conn) conn:skip(size) conn:send(("y"):rep(size)) conn:expect_closed() end)
    assert.equal(("%d|%d|true"):format(size, size), run(([[
      local sock = assert(gate.socket.connect(HOST, PORT, { tls = trust }))
      local sent = sock:send(("x"):rep(%d))
      local data = sock:receive(sent)
      return sent, #data, data == ("y"):rep(sent)
    ]]):format(size)))
  end)

  it("is pooled apart from what is plain or trusts another", function()
    local run = with_peer(server)
    local connect = [[
      local function ask(tls)
        local sock = assert(gate.socket.connect(HOST, PORT, { pool = "p", tls = tls }))
        sock:send "x\n"
        sock:receive()
        return sock:getreusedtimes(), assert(sock:setkeepalive())
      end
    ]]
    assert.equal("0|1|0|1", run(connect .. "return (ask(trust)), (ask(trust)), (ask { verify = false }), (ask { verify = false })"))
    assert.equal("2|0", run(connect .. "return (ask(trust)), gate.socket.connect(HOST, PORT, { pool = 'p' }):getreusedtimes()"))
    assert.matches("connected without { pool", run
      "local s = gate.socket.connect(HOST, PORT, { pool = 'q' }) assert(s:sslhandshake(trust)) s:setkeepalive()")
  end)

  it("needs a name for a Unix socket, and is spoken once", function()
    local run = with_peer(server)
    assert.matches("a Unix socket has no name", run "gate.socket.unix():connect('/x', { tls = trust })")
    assert.matches("speaks TLS already", run
      "local s = assert(gate.socket.connect(HOST, PORT, { tls = trust })) s:sslhandshake(trust)")
    assert.equal("nil|closed", run "local ok, word = gate.socket.tcp():sslhandshake(trust) return ok, word")
  end)

  describe("under LuaSec's names", function()
    it("is wrapped around a socket", function()
      local run = with_peer(server)
      assert.equal("true|you said hello|1", run [[
        local sock = socket.connect(HOST, PORT)
        local wrapped = ssl.wrap(sock, context)
        local ok = wrapped:dohandshake()
        wrapped:send "hello\n"
        return ok, wrapped:receive(), wrapped:close()
      ]])
      assert.equal("true|you said hello", run [[
        local wrapped = ssl.wrap(socket.connect(HOST, PORT), { mode = "client", protocol = "tlsv1_2", verify = "none" })
        local ok = wrapped:dohandshake()
        wrapped:send "hello\n"
        return ok, (wrapped:receive())
      ]])
    end)

    it("verifies unless it is told not to", function()
      local run = with_peer(other)
      assert.equal("nil|certificate", run [[
        local wrapped = ssl.wrap(socket.connect(HOST, PORT), { mode = "client", protocol = "any" })
        local ok, word = wrapped:dohandshake()
        return ok, word
      ]])
      assert.equal("nil|certificate", run [[
        local ok, word = ssl.wrap(socket.connect(HOST, PORT), context):dohandshake()
        return ok, word
      ]])
    end)

    it("takes the name of sni for that of the certificate", function()
      local run = with_peer(other)
      assert.equal("true|you said hello", run [[
        local wrapped = ssl.wrap(socket.connect(HOST, PORT), context)
        wrapped:sni "other.test"
        local ok = wrapped:dohandshake()
        wrapped:send "hello\n"
        return ok, (wrapped:receive())
      ]])
      assert.matches("a name has 1 to 253 bytes", run "gate.socket.connect(HOST, PORT):sslhandshake(trust, '')")
    end)

    it("refuses to serve, and protocols that are no more", function()
      local run = with_peer(server)
      assert.matches("only clients", run "ssl.newcontext { mode = 'server' }")
      assert.matches("no protocol 'sslv3'", run "ssl.newcontext { mode = 'client', protocol = 'sslv3' }")
    end)
  end)
end)
