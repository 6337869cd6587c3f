-- Where a request came from, as the backend is told: X-Forwarded-*, Forwarded, and whom to believe.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

describe("forwarded fields", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = [[
      local function site(listen, settings)
        settings.listen, settings.backends = listen, { app = { "$BACKEND", keepalive = 0 } }
        return settings
      end
      return { drain = "2s", sites = {
        site("127.0.0.1:$PORT", {}),
        site("127.0.0.1:$PORT2", { trusted_proxies = { "127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32" } }),
        site("127.0.0.1:$PORT3", { trusted_proxies = "192.0.2.1" }),
        site("unix:$DIR/site.sock", {}),
        site({ "unix:$DIR/trusted.sock" }, { trusted_proxies = { "unix" } }),
      } }
    ]] }
  end)

  local function forwarded(where, lines, first)
    local client = net.connect(where)
    client:send((first or "GET / HTTP/1.1\r\nHost: site.example:8080") .. "\r\n" .. (lines or "") .. "\r\n")
    local conn = backend:accept()
    local request = http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    http.response(client)
    return request.headers
  end

  local spoofed = "X-Forwarded-For: 1.2.3.4\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: evil\r\n" ..
    "Forwarded: for=1.2.3.4;proto=https;host=evil\r\nX-Forwarded-For: 5.6.7.8\r\n"

  it("tell the backend of client, scheme and host", function()
    local headers = forwarded(gate.port)
    assert.same({ "127.0.0.1" }, headers:all "X-Forwarded-For")
    assert.same({ "http" }, headers:all "X-Forwarded-Proto")
    assert.same({ "site.example:8080" }, headers:all "X-Forwarded-Host")
    assert.same({ 'for=127.0.0.1;host="site.example:8080";proto=http' }, headers:all "Forwarded")
  end)

  it("of a client that is not trusted are not believed", function()
    for _, port in ipairs { gate.port, gate.values.PORT3 } do
      local headers = forwarded(port, spoofed)
      assert.same({ "127.0.0.1" }, headers:all "X-Forwarded-For")
      assert.same({ "http" }, headers:all "X-Forwarded-Proto")
      assert.same({ "site.example:8080" }, headers:all "X-Forwarded-Host")
      assert.same({ 'for=127.0.0.1;host="site.example:8080";proto=http' }, headers:all "Forwarded")
    end
  end)

  it("are not forged by names that some backends take for theirs", function()
    for _, port in ipairs { gate.port, gate.values.PORT2 } do
      local headers = forwarded(port, "X_Forwarded_For: 1.2.3.4\r\nx-forwarded_proto: https\r\n" ..
        "X_FORWARDED_HOST: evil\r\nX_Forwarded_Fo: 1\r\nY_Forwarded_For: 2\r\n")
      assert.same({}, headers:all "X_Forwarded_For")
      assert.same({}, headers:all "X-Forwarded_Proto")
      assert.same({}, headers:all "X_Forwarded_Host")
      assert.same({ "1" }, headers:all "X_Forwarded_Fo")
      assert.same({ "2" }, headers:all "Y_Forwarded_For")
      assert.same({ "127.0.0.1" }, headers:all "X-Forwarded-For")
    end
  end)

  it("of a trusted proxy are kept and added to", function()
    local headers = forwarded(gate.values.PORT2, "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n" ..
      "X-Forwarded-Host: outside.example\r\n")
    assert.same({ "203.0.113.9, 127.0.0.1" }, headers:all "X-Forwarded-For")
    assert.same({ "https" }, headers:all "X-Forwarded-Proto")
    assert.same({ "outside.example" }, headers:all "X-Forwarded-Host")
  end)

  it("of a trusted proxy are added to in one line, though they came in several", function()
    local headers = forwarded(gate.values.PORT2, "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 10.0.0.1\r\n")
    assert.same({ "203.0.113.9, 10.0.0.1, 127.0.0.1" }, headers:all "X-Forwarded-For")
  end)

  it("of a trusted proxy that speaks RFC 7239 are kept and added to", function()
    local headers = forwarded(gate.values.PORT2, 'Forwarded: for="[2001:db8::1]:4711";proto=https;host=h\r\n')
    assert.same({ 'for="[2001:db8::1]:4711";proto=https;host=h, for=127.0.0.1;host="site.example:8080";proto=https' },
      headers:all "Forwarded")
    assert.same({ "https" }, headers:all "X-Forwarded-Proto")
  end)

  it("of a trusted proxy that speaks the older fields are not mixed with what its client says in Forwarded", function()
    local headers = forwarded(gate.values.PORT2,
      "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9;proto=https\r\n")
    assert.same({ "http" }, headers:all "X-Forwarded-Proto")
  end)

  it("of a trusted proxy that speaks the older fields tell the same in Forwarded, whatever stood there", function()
    local headers = forwarded(gate.values.PORT2, "X-Forwarded-For: evil, 203.0.113.9:80\r\n" ..
      "Forwarded: for=6.6.6.6;proto=https;host=evil\r\nX-Forwarded-For: 2001:db9::7, 10.0.0.1\r\n")
    assert.same({ "evil, 203.0.113.9:80, 2001:db9::7, 10.0.0.1, 127.0.0.1" }, headers:all "X-Forwarded-For")
    assert.same({ 'for=unknown, for=203.0.113.9, for="[2001:db9::7]", for=10.0.0.1, ' ..
      'for=127.0.0.1;host="site.example:8080";proto=http' }, headers:all "Forwarded")
  end)

  it("of a trusted proxy that speaks RFC 7239 tell the same in X-Forwarded-For", function()
    local headers = forwarded(gate.values.PORT2,
      'Forwarded: for="[2001:db9::1]:4711";proto=https, for=_x, proto=http, For=10.0.0.1\r\n')
    assert.same({ "2001:db9::1, unknown, 10.0.0.1, 127.0.0.1" }, headers:all "X-Forwarded-For")
  end)

  it("of a trusted proxy tell the last 32 hops in the field that it does not speak", function()
    local headers = forwarded(gate.values.PORT2, "X-Forwarded-For: " .. ("x,"):rep(100) .. "10.0.0.1\r\n")
    assert.equal(("for=unknown, "):rep(31) .. 'for=10.0.0.1, for=127.0.0.1;host="site.example:8080";proto=http',
      headers.Forwarded)
  end)

  it("of a trusted proxy are dropped where a quoted string does not end, which would swallow what is added", function()
    for _, value in ipairs { 'for="203.0.113.9', 'for=203.0.113.9;by="a\\"', 'for="[2001:db8::1]:80", for="\\' } do
      local headers = forwarded(gate.values.PORT2, "Forwarded: " .. value .. "\r\n")
      assert.same({ 'for=127.0.0.1;host="site.example:8080";proto=http' }, headers:all "Forwarded")
    end
  end)

  it("of a trusted proxy that says nothing are as for any client", function()
    local headers = forwarded(gate.values.PORT2)
    assert.same({ "127.0.0.1" }, headers:all "X-Forwarded-For")
    assert.same({ "http" }, headers:all "X-Forwarded-Proto")
  end)

  it("never carry a scheme that is neither http nor https", function()
    for _, claim in ipairs { "javascript", "", "https\t;x", "HTTPS2" } do
      local headers = forwarded(gate.values.PORT2, "X-Forwarded-Proto: " .. claim .. "\r\n")
      assert.same({ "http" }, headers:all "X-Forwarded-Proto")
    end
    assert.same({ "https" }, forwarded(gate.values.PORT2, "X-Forwarded-Proto: HTTPS\r\n"):all "X-Forwarded-Proto")
  end)

  it("name the host of an absolute target, not the field beside it", function()
    local headers = forwarded(gate.port, nil, "GET http://real.example/ HTTP/1.1\r\nHost: evil.example")
    assert.equal("real.example", headers.Host)
    assert.same({ "real.example" }, headers:all "X-Forwarded-Host")
    assert.same({ 'for=127.0.0.1;host="real.example";proto=http' }, headers:all "Forwarded")
  end)

  it("name no host when HTTP/1.0 had none", function()
    local headers = forwarded(gate.port, nil, "GET / HTTP/1.0")
    assert.is_nil(headers["X-Forwarded-Host"])
    assert.same({ "for=127.0.0.1;proto=http" }, headers:all "Forwarded")
  end)

  it("of a client on a Unix socket have no address to tell", function()
    local headers = forwarded(gate.dir .. "/site.sock", spoofed)
    assert.matches("^for=_", headers.Forwarded)
    assert.is_nil((headers["X-Forwarded-For"] or ""):find "1.2.3.4")
    assert.equal("http", headers["X-Forwarded-Proto"])
  end)

  it("tell the scheme that the believed client used, not one that stands left of it", function()
    local headers = forwarded(gate.values.PORT2,
      "X-Forwarded-For: 1.2.3.4, 203.0.113.9\r\nX-Forwarded-Proto: https, http\r\n")
    assert.equal("http", headers["X-Forwarded-Proto"])
  end)

  it("of a trusted proxy on a Unix socket are believed", function()
    local headers = forwarded(gate.dir .. "/trusted.sock",
      "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n")
    assert.matches("^203.0.113.9", headers["X-Forwarded-For"])
    assert.equal("https", headers["X-Forwarded-Proto"])
  end)
end)

describe("the believed client", function()
  local gate

  -- What a script sees as the client's address.
  support.setup(function()
    gate = moongate.start { config = [[
      local gate = require "moongate"
      return {
        drain = "2s", listen = "127.0.0.1:$PORT", trusted_proxies = { "127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32" },
        on_request = function(req) return gate.reply(200, req.client.ip) end,
      }
    ]] }
  end)

  local function believed(lines)
    local client = net.connect(gate.port)
    client:send("GET / HTTP/1.1\r\nHost: a\r\n" .. lines .. "\r\n")
    return http.response(client).body
  end

  for _, case in ipairs {
    { "is the peer when nothing is said", "", "127.0.0.1" },
    { "is whom a trusted proxy names", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9" },
    { "is the last who is not trusted himself", "X-Forwarded-For: 1.1.1.1, 203.0.113.9, 10.1.2.3\r\n", "203.0.113.9" },
    { "is the first when all are trusted", "X-Forwarded-For: 10.0.0.9, 10.1.2.3\r\n", "10.0.0.9" },
    { "is looked for in all lines", "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9" },
    { "is not looked for behind nonsense", "X-Forwarded-For: 1.1.1.1, unknown, 10.1.2.3\r\n", "10.1.2.3" },
    { "may have a port", "X-Forwarded-For: 203.0.113.9:4711\r\n", "203.0.113.9" },
    { "may be of IPv6", "X-Forwarded-For: 2001:db9::1\r\n", "2001:db9::1" },
    { "may be of IPv6 in brackets", "X-Forwarded-For: [2001:db9::1]:99\r\n", "2001:db9::1" },
    { "may be named by Forwarded", 'Forwarded: proto=https;For="[2001:db9::1]:99", for=10.0.0.1\r\n', "2001:db9::1" },
    { "is not named by a Forwarded element that names none", "Forwarded: for=1.1.1.1, proto=https\r\n", "127.0.0.1" },
    { "survives a hundred hops", "X-Forwarded-For: " .. ("10.0.0.1, "):rep(100) .. "10.0.0.2\r\n", "10.0.0.1" },
  } do
    it(case[1], function() assert.equal(case[3], believed(case[2])) end)
  end
end)
