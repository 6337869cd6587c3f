-- The PROXY protocol: read at listeners, written to backends.
-- luacheck: no max line length (headers stand in one line)

local uv = require "luv"
local support = require "support"
local it, http, net, moongate, tls = support.it, support.http, support.net, support.moongate, support.tls

local SIGNATURE = "\r\n\r\n\0\r\nQUIT\n"
local get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

local function v2(command, family, payload) return SIGNATURE .. string.pack(">BBs2", command, family, payload) end
local tcp4 = v2(0x21, 0x11, "\192\0\2\7\10\0\0\1\x30\x39\1\xbb")
local tcp6 = v2(0x21, 0x21, "\x20\1\x0d\xb8" .. ("\0"):rep(11) .. "\7" .. ("\0"):rep(15) .. "\1\x30\x39\1\xbb")

describe("a listener with proxy_protocol", function()
  local gate, dir, certificate
  support.setup(function()
    dir = support.temp_dir()
    uv.fs_chmod(dir, tonumber("755", 8))
    certificate = tls.certificate(dir, "here", { names = { "DNS:here.test" } })
    gate = moongate.start { args = { "--keys", dir }, values = { CERTS = dir }, config = [[
      local gate = require "moongate"
      local function site(listener)
        listener.proxy_protocol = listener.proxy_protocol or true
        return { listen = listener, timeouts = { head = "400ms" }, on_request = function(req)
          return gate.reply(200, ("%s %s %s"):format(req.client.ip, req.client.port, req.scheme))
        end }
      end
      return { admin = "127.0.0.1:$PORT5", sites = {
        site { "127.0.0.1:$PORT" }, site { "127.0.0.1:$PORT2", h2c = true },
        site { "127.0.0.1:$PORT3", tls = { cert = "$CERTS/here.pem", key = "$CERTS/here.key" } },
        site { "127.0.0.1:$PORT4", proxy_protocol = { "127.0.0.9" } },
      } }
    ]] }
  end)

  local function ask(bytes, port)
    local client = net.connect(port or gate.port)
    client:send(bytes)
    return http.response(client).body, client
  end

  for name, case in pairs {
    ["IPv4 in a line"] = { "PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n", "192.0.2.7 12345 http" },
    ["IPv6 in a line"] = { "PROXY TCP6 2001:db8::7 ::1 1 65535\r\n", "2001:db8::7 1 http" },
    ["IPv4 in bytes"] = { tcp4, "192.0.2.7 12345 http" },
    ["IPv6 in bytes"] = { tcp6, "2001:db8::7 12345 http" },
    ["extensions"] = { v2(0x21, 0x11, "\192\0\2\7\10\0\0\1\x30\x39\1\xbb\4\0\3abc"), "192.0.2.7 12345 http" },
  } do
    it("learns who a client is from " .. name, function()
      local body, client = ask(case[1] .. get)
      assert.equal(case[2], body)
      client:send(get)
      assert.equal(case[2], http.response(client).body)
      assert.equal(case[2], (ask(case[1] .. get, gate.values.PORT2)))
      client = net.connect(gate.port)
      for i = 1, #case[1] do client:send(case[1]:sub(i, i)) end
      client:send(get)
      assert.equal(case[2], http.response(client).body)
    end)
  end

  for name, header in pairs {
    ["UNKNOWN"] = "PROXY UNKNOWN\r\n", ["UNKNOWN with addresses"] = "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
    ["LOCAL"] = v2(0x20, 0, ""), ["LOCAL with addresses"] = v2(0x20, 0x11, ("\1"):rep(12)),
    ["no family"] = v2(0x21, 0, "abc"), ["a unix socket"] = v2(0x21, 0x31, ("x"):rep(216)),
  } do
    it("takes the peer for the client when the header says " .. name, function()
      assert.matches("^127%.0%.0%.1 %d+ http$", (ask(header .. get)))
    end)
  end

  for name, bytes in pairs {
    ["none"] = get, ["half a word"] = "PROXX", ["lower case"] = "proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    ["a bare LF"] = "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n", ["two spaces"] = "PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
    ["a word too many"] = "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n", ["a word too few"] = "PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
    ["another family"] = "PROXY TCP4 ::1 ::1 1 2\r\n", ["a name"] = "PROXY TCP4 localhost 10.0.0.1 1 2\r\n",
    ["a port beyond"] = "PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n", ["a port with a zero"] = "PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
    ["UDP in a line"] = "PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n", ["a line without end"] = "PROXY UNKNOWN " .. ("x"):rep(200),
    ["another version"] = v2(0x11, 0x11, ("\1"):rep(12)), ["another command"] = v2(0x22, 0x11, ("\1"):rep(12)),
    ["a datagram"] = v2(0x21, 0x12, ("\1"):rep(12)), ["too few bytes"] = v2(0x21, 0x11, ("\1"):rep(11)),
    ["too many bytes"] = SIGNATURE .. "\x21\x11\xff\xff",
  } do
    it("closes without a word when there is " .. name, function()
      local client = net.connect(gate.port)
      client:send(bytes)
      support.eventually("it to be closed", function() return client.eof or client.lost end)
      assert.equal(0, client.received)
    end)
  end

  it("closes who dawdles, or leaves", function()
    local client = net.connect(gate.port)
    client:send "PROXY TCP4 192"
    client:expect_closed()
    net.connect(gate.port):close()
  end)

  it("believes none but those it was told of, and counts the others", function()
    local client = net.connect(gate.values.PORT4)
    client:try_send(tcp4 .. get)
    support.eventually("it to be closed", function() return client.eof or client.lost end)
    assert.equal(0, client.received)
    local figures = http.get(gate.values.PORT5, "/metrics").body
    assert.is_true(tonumber(figures:match "moongate_proxy_headers_refused_total (%d+)") > 0)
  end)

  it("goes on with TLS, whether it comes along or later", function()
    -- s_client cannot write a header: a relay puts it before what comes.
    for _, apart in ipairs { false, true } do
      local relay = net.listen(function(conn)
        local up = net.connect(gate.values.PORT3)
        if apart then up:send(tcp4) end
        local hello = conn:read_some()
        up:send((apart and "" or tcp4) .. hello)
        local function pass(from, to)
          local more, bytes = pcall(from.read_some, from) -- raises at the end
          if more and to:try_send(bytes) then return pass(from, to) end
        end
        support.spawn(pass, up, conn)
        pass(conn, up)
      end)
      local _, out = support.run { "curl", "-sS", "--max-time", "10", "--cacert", certificate.cert, "--connect-to",
        "here.test:443:127.0.0.1:" .. relay.port, "https://here.test/" }
      assert.equal("192.0.2.7 12345 https", out)
    end
  end)
end)

describe("a backend with proxy_protocol", function()
  local function start(server, more, options)
    options = options or {}
    options.values = { BACKEND = server.address }
    options.workers = 1
    options.config = ([[ return { drain = "1s", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND", %s } } } ]]):format(more)
    return moongate.start(options)
  end

  it("is told in a line who asks, once for a connection", function()
    local server = net.listen()
    local gate = start(server, "proxy_protocol = 1")
    local client = net.connect(gate.port)
    client:send(get)
    local conn = server:accept()
    local ip, to, port, own = conn:read_until("\r\n"):match "^PROXY TCP4 (%S+) (%S+) (%d+) (%d+)\r\n$"
    assert.same({ "127.0.0.1", "127.0.0.1", tostring(gate.port) }, { ip, to, own })
    assert.is_true(tonumber(port) > 0)
    for _ = 1, 2 do
      assert.equal("/", http.request(conn).target)
      conn:send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
      assert.equal(200, http.response(client).status)
      client:send(get)
    end
    -- Another client's requests do not take that connection.
    local other = net.connect(gate.port)
    other:send(get)
    assert.matches("^PROXY TCP4 ", server:accept():read_until "\r\n")
  end)

  it("is told in bytes, before TLS", function()
    local server = net.listen()
    local gate = start(server, 'proxy_protocol = 2, tls = { verify = false, name = "a.test" }')
    net.connect(gate.port):send(get)
    local conn = server:accept()
    local head = conn:read_exactly(16 + 12)
    assert.equal(SIGNATURE .. "\x21\x11\0\12\127\0\0\1\127\0\0\1", head:sub(1, 24))
    assert.equal(gate.port, (string.unpack(">I2", head, 27)))
    assert.equal("\22\3", conn:read_exactly(2)) -- a handshake
  end)

  it("is asked in nobody's name by checks and scripts", function()
    for version, header in pairs { "PROXY UNKNOWN\r\n", v2(0x20, 0, "") } do
      local server = net.listen()
      start(server, ('proxy_protocol = %d, health = { path = "/up" }'):format(version))
      local conn = server:accept()
      assert.equal(header, conn:read_exactly(#header))
      assert.equal("/up", http.request(conn).target)
    end
  end)

  it("understands another Moongate", function()
    for _, version in ipairs { 1, 2 } do
      local inner = moongate.start { config = [[
        local gate = require "moongate"
        return { listen = { "127.0.0.1:$PORT", proxy_protocol = true },
                 on_request = function(req) return gate.reply(200, req.client.ip) end }
      ]] }
      local gate = start({ address = "127.0.0.1:" .. inner.port },
        ('proxy_protocol = %d }, other = { "127.0.0.1:1" '):format(version))
      gate:reload_with(([[
        return { listen = "127.0.0.1:$PORT", trusted_proxies = "127.0.0.1",
          backends = { app = { "$BACKEND", proxy_protocol = %d } } }
      ]]):format(version))
      for _, ip in ipairs { "192.0.2.9", "192.0.2.8", "192.0.2.9" } do
        assert.equal(ip, http.get(gate.port, "/", { headers = { ["X-Forwarded-For"] = ip } }).body)
      end
    end
  end)
end)
