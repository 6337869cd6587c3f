-- Forward requests: targets that clients name, by an absolute target or CONNECT.
-- luacheck: no max line length (bytes of requests stand in one line)

local support = require "support"
local dnsmasq = require "support.dnsmasq"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

local it_fills = support.process.preset == "hard" and pending or it

-- A forward proxy that lets clients reach this machine; `more` are further settings of the site.
local function open_config(more)
  return ([[
    local gate = require "moongate"
    local site = { listen = "127.0.0.1:$PORT", forward = { ports = "1-65535", private = true }, %s }
    return { admin = "127.0.0.1:$PORT2", log = { access = "$DIR/access.log", access_format = "json" }, drain = "1s",
             sites = { site, { listen = "127.0.0.1:$PORT3", on_request = 204 } } }
  ]]):format(more or "")
end

local function start(more, options)
  options = options or {}
  options.config = open_config(more)
  return moongate.start(options)
end

local function connect_to(gate, where, more)
  local client = net.connect(gate.port)
  client:send(("CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n"):format(where, where, more or ""))
  return client
end

-- Both ends of a tunnel.
local function tunnel(gate, server)
  local client = connect_to(gate, server.address)
  assert.equal(200, http.response_head(client).status)
  return client, server:accept()
end

local function metric(gate, name)
  return tonumber(http.get(gate.values.PORT2, "/metrics").body:match("\n" .. name .. " (%d+)"))
end

local function log_line(gate, part)
  local line
  support.eventually("the log line", function()
    for text in support.process.read_file(gate.dir .. "/access.log"):gmatch "[^\n]+" do
      if text:find(part, 1, true) then line = text end
    end
    return line
  end)
  return line
end

describe("a CONNECT", function()
  local gate, server
  support.setup(function()
    gate = start()
    server = net.listen()
  end)

  it("opens a tunnel, answered without a word about a body", function()
    local client = connect_to(gate, server.address)
    local head = http.response_head(client)
    assert.equal(200, head.status)
    assert.equal("Connection Established", head.reason)
    for _, name in ipairs { "Content-Length", "Transfer-Encoding", "Connection" } do assert.is_nil(head.headers[name]) end
    net.expect_joined(client, server:accept())
  end)

  it("passes on what the client sent along with it, and nothing of its head", function()
    local client = net.connect(gate.port)
    client:send(("CONNECT %s HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic x\r\n\r\nearly"):format(server.address))
    assert.equal("early", server:accept():read_exactly(5))
    assert.equal(200, http.response_head(client).status)
  end)

  it("passes on what a server says first", function()
    local client = connect_to(gate, server.address)
    server:accept():send "220 hello\r\n"
    http.response_head(client)
    assert.equal("220 hello\r\n", client:read_exactly(11))
  end)

  it("is taken in HTTP/1.0, too", function()
    local client = net.connect(gate.port)
    client:send(("CONNECT %s HTTP/1.0\r\n\r\nping"):format(server.address))
    assert.equal(200, http.response_head(client).status)
    assert.equal("ping", server:accept():read_exactly(4))
  end)

  it("passes each way's end on by itself", function()
    local client, conn = tunnel(gate, server)
    client:send "last"
    client:shutdown()
    assert.equal("last", conn:read_all())
    conn:send "and more"
    assert.equal("and more", client:read_exactly(8))
    conn:close()
    client:expect_eof()
  end)

  it("ends when one side is reset", function()
    local client, conn = tunnel(gate, server)
    client:reset()
    conn:expect_closed()
    client, conn = tunnel(gate, server)
    conn:reset()
    client:expect_closed()
  end)

  it_fills("holds back a side that is faster than the other takes", function()
    local client, conn = tunnel(gate, server)
    conn:stop_reading()
    client.sent = 0
    local before = gate:rss()
    client:send_until_blocked(("x"):rep(1 << 16), 0.15, 40 << 20)
    assert.is_true(gate:rss() - before < (support.async.slow > 1 and 64 or 4) << 20)
    conn:start_reading()
    conn:skip(client.sent)
  end)

  it("is written to the log when it ends, with its bytes", function()
    local client, conn = tunnel(gate, server)
    client:send "12345"
    conn:read_exactly(5)
    conn:send "123"
    client:read_exactly(3)
    client:close()
    conn:expect_eof()
    conn:close()
    local line = log_line(gate, '"bytes_in":5')
    assert.matches('"method":"CONNECT"', line, 1, true)
    assert.matches(('"target":"%s"'):format(server.address), line, 1, true)
    assert.matches('"status":200', line, 1, true)
    assert.matches('"bytes_out":3', line, 1, true)
    assert.matches(('"server":"%s"'):format(server.address), line, 1, true)
  end)

  it("to nobody is 502, and 504 where nobody answers", function()
    assert.equal(502, http.response(connect_to(gate, "127.0.0.1:" .. net.refusing_port())).status)
    local quick = start 'timeouts = { connect = "200ms" }'
    assert.equal(504, http.response(connect_to(quick, "127.0.0.1:" .. net.black_hole())).status)
  end)

  it("is let go by a client that leaves before there is an answer", function()
    local hole = "127.0.0.1:" .. net.black_hole()
    local before = metric(gate, "moongate_fetches_total")
    local client = connect_to(gate, hole)
    support.eventually("it to be under way", function() return metric(gate, "moongate_fetches_total") > before end)
    client:reset()
    assert.matches('"error":"client_left"', log_line(gate, ('"target":"%s"'):format(hole)), 1, true)
  end)

  for name, target in pairs {
    ["without a port"] = "example.com", ["with port 0"] = "example.com:0", ["with a port too large"] = "a:65536",
    ["with user information"] = "user@example.com:443", ["with a zone"] = "[fe80::1%eth0]:443",
    ["with a path"] = "example.com:443/", ["with a scheme"] = "https://example.com:443", ["with an empty host"] = ":443",
    ["with an escape"] = "exa%6dple.com:443", ["with a huge host"] = ("a"):rep(256) .. ":443",
    ["in origin form"] = "/", ["with a comma"] = "a,b:443", ["with an unclosed bracket"] = "[::1:443",
  } do
    it("whose target is " .. name .. " is 400", function()
      local client = connect_to(gate, target)
      assert.equal(400, http.response(client).status)
      client:expect_closed()
    end)
  end

  for name, head in pairs {
    ["with a space in its target"] = "CONNECT exam ple.com:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    ["with a body"] = "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    ["with chunks"] = "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ["with two hosts"] = "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
  } do
    it(name .. " is 400", function()
      local client = net.connect(gate.port)
      client:send(head)
      assert.equal(400, http.response(client).status)
      client:expect_closed()
    end)
  end

  it("that is refused closes its connection, so that nothing behind it is read as a request", function()
    local refusing = start 'on_request = function(req) if req.method == "CONNECT" then return 403 end return 204 end'
    local client = net.connect(refusing.port)
    client:send "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\nGET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"
    local response = http.response(client)
    assert.equal(403, response.status)
    assert.equal("close", response.headers.Connection)
    assert.equal("", client:read_all())
  end)

  it("is 501 where nobody forwards", function()
    local client = net.connect(gate.values.PORT3)
    client:send "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.equal(501, http.response(client).status)
  end)

  it("never comes back to ourselves, whatever is allowed", function()
    for _, port in ipairs { gate.port, gate.values.PORT2, gate.values.PORT3 } do
      assert.equal(403, http.response(connect_to(gate, "127.0.0.1:" .. port)).status)
      assert.equal(403, http.response(connect_to(gate, "[::ffff:127.0.0.1]:" .. port)).status)
    end
  end)

  it("leaves no server connection to the next one", function()
    local client, conn = tunnel(gate, server)
    client:close()
    conn:expect_closed()
    local _, other = tunnel(gate, server)
    assert.are_not.equal(conn, other)
  end)

  it("survives reloads, and ends with the drain time", function()
    local own = start()
    local client, conn = tunnel(own, server)
    own:reload_with(open_config())
    client:send "still"
    assert.equal("still", conn:read_exactly(5))
    assert.equal(1, metric(own, "moongate_tunnels"))
    own:signal "term"
    client:send "draining"
    assert.equal("draining", conn:read_exactly(8))
    client:expect_closed()
    conn:expect_closed()
    own:wait(10)
  end)
end)

-- HTTP/2, as much of it as a CONNECT takes: heads of literal fields, frames of a given stream.
local h2 = {}

function h2.frame(kind, flags, id, payload)
  return string.pack(">I3BBI4", #payload, kind, flags, id) .. payload
end

function h2.head(id, fields, flags)
  local block = {}
  for i = 1, #fields, 2 do block[#block + 1] = "\0" .. string.pack("s1s1", fields[i], fields[i + 1]) end
  return h2.frame(1, flags or 4, id, table.concat(block))
end

function h2.connect(port, options)
  local conn = net.connect(port)
  conn:send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" .. h2.frame(4, 0, 0, options or ""))
  return conn
end

-- The next frame of that kind and stream: its payload and flags.
function h2.await(conn, kind, id)
  while true do
    local size, got, flags, stream = string.unpack(">I3BBI4", conn:read_exactly(9))
    local payload = size > 0 and conn:read_exactly(size) or ""
    if got == kind and stream == id then return payload, flags end
  end
end

local DATA, HEAD, RESET = 0, 1, 3

-- The next `n` bytes of a stream's content, however they are cut.
function h2.content(conn, id, n)
  local got = ""
  while #got < n do got = got .. h2.await(conn, DATA, id) end
  return got
end

local OK = "\x88" -- :status 200 in HPACK's table

describe("over HTTP/2, a forward proxy", function()
  local gate, server
  support.setup(function()
    gate = moongate.start { config = [[
      local gate = require "moongate"
      return { listen = { "127.0.0.1:$PORT", h2c = true }, forward = { ports = "1-65535", private = true },
        on_request = function(req)
          if req.host == "no.test" then return gate.reply(403, req.method .. " " .. req.path) end
        end }
    ]] }
    server = net.listen()
  end)

  it("opens tunnels by CONNECT, several on a connection", function()
    local client = h2.connect(gate.port)
    local conns = {}
    for id = 1, 5, 2 do
      client:send(h2.head(id, { ":method", "CONNECT", ":authority", server.address }))
      local head, flags = h2.await(client, HEAD, id)
      assert.equal(OK, head:sub(1, 1))
      assert.equal(4, flags)
      conns[id] = server:accept()
    end
    for id, conn in pairs(conns) do
      client:send(h2.frame(DATA, 0, id, "up " .. id))
      assert.equal("up " .. id, conn:read_exactly(4))
      conn:send("down " .. id)
      assert.equal("down " .. id, h2.content(client, id, 6))
    end
    client:send(h2.frame(DATA, 1, 1, "end"))
    assert.equal("end", conns[1]:read_all())
    conns[1]:close()
    assert.equal(1, (select(2, h2.await(client, DATA, 1))))
    client:send(h2.frame(RESET, 0, 3, "\0\0\0\8"))
    conns[3]:expect_closed()
    conns[5]:reset()
    h2.await(client, RESET, 5)
  end)

  it("takes what comes before the answer for the tunnel's", function()
    local client = h2.connect(gate.port)
    client:send(h2.head(1, { ":method", "CONNECT", ":authority", server.address }) .. h2.frame(DATA, 0, 1, "early"))
    assert.equal("early", server:accept():read_exactly(5))
  end)

  it("refuses a CONNECT and serves on", function()
    local client = h2.connect(gate.port)
    client:send(h2.head(1, { ":method", "CONNECT", ":authority", "no.test:443" }))
    h2.await(client, HEAD, 1)
    assert.equal("CONNECT ", h2.content(client, 1, 8))
    client:send(h2.head(3, { ":method", "CONNECT", ":authority", server.address }))
    assert.equal(OK, h2.await(client, HEAD, 3):sub(1, 1))
  end)

  it("refuses one without a port, or with what only other methods have", function()
    local client = h2.connect(gate.port)
    client:send(h2.head(1, { ":method", "CONNECT", ":authority", "a.test" }))
    assert.are_not.equal(OK, h2.await(client, HEAD, 1):sub(1, 1))
    client:send(h2.head(3, { ":method", "CONNECT", ":scheme", "https", ":path", "/", ":authority", "a.test:443" }))
    h2.await(client, RESET, 3)
  end)

  it("knows by the scheme, or for want of backends, that a request is for somebody else", function()
    local target = http.backend(function(request) return 200, nil, request.target .. " " .. request.headers.Host end)
    local client = h2.connect(gate.port)
    client:send(h2.head(1, { ":method", "GET", ":scheme", "http", ":authority", target.address, ":path", "/x" }, 5))
    local expected = "/x " .. target.address
    assert.equal(expected, h2.content(client, 1, #expected))
    client:send(h2.head(3, { ":method", "GET", ":scheme", "ftp", ":authority", target.address, ":path", "/x" }, 5))
    assert.are_not.equal(OK, h2.await(client, HEAD, 3):sub(1, 1))
  end)
end)

describe("timeouts.tunnel", function()
  it("ends tunnels through which nothing passes, and no others", function()
    local gate, server = start 'timeouts = { tunnel = "600ms" }', net.listen()
    local client, conn = tunnel(gate, server)
    for _ = 1, 5 do -- longer in all than the limit
      support.sleep(0.2)
      client:send "x"
      assert.equal("x", conn:read_exactly(1))
    end
    client:expect_closed()
    conn:expect_closed()
    assert.matches('"error":"tunnel_idle"', log_line(gate, '"method":"CONNECT"'), 1, true)
    assert.equal(0, metric(gate, "moongate_tunnels"))
  end)

  it("is for upgrades, too, and for tunnels that are half closed", function()
    local server = net.listen()
    local gate = start('timeouts = { tunnel = "300ms" }, backends = { app = { "$BACKEND" } }', { values = { BACKEND = server } })
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n"
    local conn = server:accept()
    http.request(conn)
    conn:send "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n"
    http.response_head(client)
    client:shutdown()
    conn:expect_eof()
    client:expect_closed()
  end)

  it_fills("ends a tunnel whose one side takes nothing", function()
    local gate, server = start 'timeouts = { tunnel = "1s" }', net.listen()
    local client, conn = tunnel(gate, server)
    conn:stop_reading()
    client:send_until_blocked(("x"):rep(65536), 0.15)
    client:expect_closed()
  end)
end)

describe("an absolute target", function()
  local gate, server
  support.setup(function()
    server = http.backend(function(request) return 200, nil, request.target end)
    gate = start('backends = { local_one = { "$BACKEND" } }',
      { values = { BACKEND = http.backend "the backend" } })
  end)

  local function get(url, headers, conn)
    return http.exchange(gate.port, "GET", url, { headers = headers, conn = conn })
  end
  local function last() return server.requests[#server.requests] end

  it("is asked of its server, in origin form and by its own host", function()
    local response = get("http://" .. server.address .. "/a/../b?c=1", { Host = "elsewhere" })
    assert.equal("/b?c=1", response.body)
    assert.equal(server.address, last().headers.Host)
    assert.equal("/", get("http://" .. server.address).body)
  end)

  it("tells nobody who asks, and nothing that is between client and proxy", function()
    get("http://" .. server.address .. "/", {
      ["Proxy-Authorization"] = "Basic x", ["Proxy-Connection"] = "keep-alive", ["X-Forwarded-For"] = "192.0.2.1",
    })
    local headers = last().headers
    for _, name in ipairs { "Proxy-Authorization", "Proxy-Connection", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host",
      "X-Forwarded-Proto" } do assert.is_nil(headers[name], name) end
    assert.matches("^1%.1 moongate%-%x+$", headers.Via)
  end)

  it("does not tell targets whom a trusted proxy asks for", function()
    local trusting = start 'trusted_proxies = "127.0.0.0/8"'
    for _, name in ipairs { "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded" } do
      http.get(trusting.port, "http://" .. server.address .. "/", { headers = { [name] = "for=192.0.2.1" } })
      assert.is_nil(last().headers[name], name)
    end
  end)

  it("keeps client and server connections for the next", function()
    local conn, before = net.connect(gate.port), #server.requests
    for _ = 1, 3 do assert.equal(200, get("http://" .. server.address .. "/", nil, conn).status) end
    assert.equal(server.requests[before + 1].conn, server.requests[before + 3].conn)
  end)

  it("in a circle is 508", function()
    get("http://" .. server.address .. "/")
    local via = last().headers.Via
    for _, value in ipairs { via, "1.0 other, " .. via .. " (comment), 1.1 third", via:upper() } do
      assert.equal(508, get("http://" .. server.address .. "/", { Via = value }).status, value)
    end
    assert.equal(200, get("http://" .. server.address .. "/", { Via = "1.1 moongate, 1.1 moongate-0" }).status)
  end)

  it("may ask for an upgrade", function()
    local echo = support.websocket.backend()
    local socket = support.websocket.connect(gate.port, "http://" .. echo.address .. "/chat")
    socket:send "hello"
    assert.equal("hello", socket:receive())
    socket:close()
  end)

  it("is 400 when it is none of http or https", function()
    for _, url in ipairs { "ftp://a/", "http://user@a/", "http:///", "http://a:0/", "http://[fe80::1%25eth0]/", "a:80" } do
      assert.equal(400, get(url).status, url)
    end
  end)

  it("is not what other requests have: they go to the site's own backends", function()
    assert.equal("the backend", http.get(gate.port).body)
  end)

  it("of a server that asks for a proxy's password is 502", function()
    local phishing = http.backend(function() return 407, { ["Proxy-Authenticate"] = 'Basic realm="x"' }, "" end)
    local response = get("http://" .. phishing.address .. "/")
    assert.equal(502, response.status)
    assert.is_nil(response.headers["Proxy-Authenticate"])
  end)

  it("carries bodies both ways", function()
    local echo = http.backend(function(request) return 200, nil, request.body end)
    local body = ("0123456789"):rep(20000)
    local response = http.post(gate.port, "http://" .. echo.address .. "/", body)
    assert.equal(body, response.body)
  end)
end)

describe("what a forward proxy lets clients reach", function()
  it("is ports 80 and 443, and by CONNECT 443, of public addresses", function()
    local gate = moongate.start { config = [[
      return { log = { access = "$DIR/access.log", access_format = "json" }, admin = "127.0.0.1:$PORT2",
               sites = { { listen = "127.0.0.1:$PORT", forward = true } } }
    ]] }
    local expected = {
      port_refused = { "127.0.0.1:22", "198.51.100.1:80", "http://1.1.1.1:8080/", "http://1.1.1.1:22/" },
      destination_refused = {
        "127.0.0.1:443", "[::1]:443", "10.1.2.3:443", "169.254.169.254:443", "[::ffff:127.0.0.1]:443", "0.0.0.0:443",
        "[64:ff9b::7f00:1]:443", "http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest/meta-data/",
        "https://192.168.0.1/", "http://localhost/",
      },
    }
    for _, targets in pairs(expected) do
      for _, target in ipairs(targets) do
        local status = target:find "^http" and http.get(gate.port, target).status
          or http.response(connect_to(gate, target)).status
        assert.equal(403, status, target)
      end
    end
    for word, targets in pairs(expected) do
      for _, target in ipairs(targets) do
        assert.matches(('"error":"%s"'):format(word), log_line(gate, ('"target":"%s"'):format(target)), 1, true)
      end
    end
  end)

  it("is what it says, the narrower range first", function()
    local server = net.listen(nil, { host = "127.0.0.1" })
    local gate = moongate.start { config = [[
      return { listen = "127.0.0.1:$PORT", forward = { ports = { "1-65535" }, allow = { "127.0.0.0/8" }, deny = "127.0.0.2" } }
    ]] }
    assert.equal(200, http.response_head(connect_to(gate, server.address)).status)
    assert.equal(403, http.response(connect_to(gate, "127.0.0.2:" .. server.port)).status)
    assert.equal(403, http.response(connect_to(gate, "10.0.0.1:" .. server.port)).status)
  end)

  it("is decided over what names resolve to, each address by itself", function()
    local server = http.backend "reached"
    local dns = dnsmasq.start { "--host-record=inside.test,127.0.0.3", "--host-record=both.test,127.0.0.3",
      "--host-record=both.test,127.0.0.1", "--host-record=good.test,127.0.0.1", "--local-ttl=60" }
    local gate = moongate.start { workers = 1, env = { MOONGATE_NAMESERVER = dns }, config = [[
      return { admin = "127.0.0.1:$PORT2",
        sites = { { listen = "127.0.0.1:$PORT", forward = { ports = "1-65535", allow = "127.0.0.1" } } } }
    ]] }
    local function ask(name) return http.get(gate.port, ("http://%s:%d/"):format(name, server.port)) end
    assert.equal("reached", ask "good.test".body)
    assert.equal(0, metric(gate, "moongate_destinations_refused_total"))
    local response = ask "inside.test"
    assert.equal(403, response.status)
    assert.matches("connections to that address are not allowed", response.body)
    assert.equal(1, metric(gate, "moongate_destinations_refused_total"))
    for _ = 1, 4 do assert.equal("reached", ask "both.test".body) end
    assert.equal(403, http.response(connect_to(gate, "inside.test:" .. server.port)).status)
    assert.equal(502, ask "nowhere.test".status)
    gate:wait_log "inside%.test:%d+: connections to 127%.0%.0%.3 are not allowed"
  end)

  it("is no number spelled in other ways than one", function()
    local gate = moongate.start { config = [[ return { listen = "127.0.0.1:$PORT", forward = true } ]] }
    for _, host in ipairs { "2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "a.0xA" } do
      assert.equal(400, http.response(connect_to(gate, host .. ":443")).status, host)
    end
  end)

  it("does not wait for ever for a name", function()
    local silent = assert(require "socket".udp())
    assert(silent:setsockname("127.0.0.1", 0))
    local address = "127.0.0.1:" .. select(2, silent:getsockname())
    local gate = start('timeouts = { total = "400ms" }', { env = { MOONGATE_NAMESERVER = address } })
    assert.equal(504, http.response(connect_to(gate, "slow.test:443")).status)
    silent:close()
  end)
end)

describe("egress", function()
  -- What `script` comes to under the rules.
  local function run(rules, script, server)
    local gate = moongate.start { values = { SERVER = server }, config = ([[
      local gate = require "moongate"
      local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$SERVER" } } }
      function site.on_request()
        local function say(ok, word) return ok and "reached" or tostring(word) end
        local function connected(host, port, options) return say(gate.socket.connect(host, port, options)) end
        local function fetched(where, options) return say(gate.fetch(where, options)) end
        return gate.reply(200, (function() %s end)())
      end
      return { sites = { site }, admin = "127.0.0.1:$PORT2", %s }
    ]]):format(script, rules) }
    return http.get(gate.port).body, gate
  end

  local fetch = 'return fetched "http://$SERVER/"'

  it("lets scripts connect everywhere unless it is set", function()
    assert.equal("reached", run("", fetch, http.backend "ok"))
  end)

  it("holds URLs of gate.fetch, also those it is redirected to", function()
    local server = http.backend "ok"
    local body, gate = run("egress = {}", fetch, server)
    assert.equal("destination_refused", body)
    assert.equal(1, metric(gate, "moongate_destinations_refused_total"))
    assert.equal(0, #server.requests)
    assert.equal("reached", (run("egress = { allow = '127.0.0.1' }", fetch, server)))
    local elsewhere = http.backend(function() return 302, { Location = "http://127.0.0.2:" .. server.port .. "/" } end)
    assert.equal("destination_refused", (run("egress = { allow = '127.0.0.1' }",
      'return fetched("http://$SERVER/", { redirects = 3 })', elsewhere)))
  end)

  it("does not hold backends, which the operator wrote down", function()
    assert.equal("reached", (run("egress = {}", 'return fetched "app"', http.backend "ok")))
  end)

  it("holds gate.socket, by name, number and path", function()
    local server = net.listen()
    local script = ('return connected("%%s", %d)'):format(server.port)
    for _, host in ipairs { "127.0.0.1", "localhost", "::1", "::ffff:127.0.0.1" } do
      assert.equal("destination_refused", (run("egress = {}", script:format(host), server)), host)
    end
    assert.equal("reached", (run("egress = { private = true }", script:format "127.0.0.1", server)))
    assert.equal("destination_refused", (run("egress = {}", 'local s = gate.socket.unix() return say(s:connect "/run/x.sock")', server)))
  end)

  it("counts what sockets were refused", function()
    local _, gate = run("egress = {}", 'return connected("127.0.0.1", 80)', net.listen())
    assert.equal(1, metric(gate, "moongate_destinations_refused_total"))
  end)
end)

describe("policy of a forward proxy", function()
  it("sees a CONNECT as host and port, and refuses it as any request", function()
    local gate = start [[on_request = function(req)
      if req.method ~= "CONNECT" then return end
      return gate.reply(403, table.concat({ req.host, req.port, "(" .. req.path .. ")", tostring(req.query), req.target }, " "))
    end]]
    assert.equal("app.test 8443 () nil App.test:8443", http.response(connect_to(gate, "App.test:8443")).body)
  end)

  it("sees the scheme of an absolute target", function()
    local gate = start [[on_request = function(req)
      return gate.reply(200, table.concat({ req.scheme, req.host, req.port, req.path, req.target }, " "))
    end]]
    assert.equal("https a.test 443 / https://A.test/", http.get(gate.port, "https://A.test/").body)
    assert.equal("http a.test 81 /x http://a.test:81/x", http.get(gate.port, "http://a.test:81/x").body)
  end)

  it("asks for a password, which is read and goes no further", function()
    local server = http.backend "ok"
    local gate = start [[on_request = function(req)
      if req.headers["Proxy-Authorization"] == "Basic eDp5" then return end
      return gate.reply(407, "who?\n", { ["Proxy-Authenticate"] = 'Basic realm="x"' })
    end]]
    local url = "http://" .. server.address .. "/"
    local response = http.get(gate.port, url)
    assert.equal(407, response.status)
    assert.equal('Basic realm="x"', response.headers["Proxy-Authenticate"])
    assert.equal(407, http.response(connect_to(gate, server.address)).status)
    assert.equal(200, http.get(gate.port, url, { headers = { ["Proxy-Authorization"] = "Basic eDp5" } }).status)
    assert.is_nil(server.requests[1].headers["Proxy-Authorization"])
    local client = connect_to(gate, server.address, "Proxy-Authorization: Basic eDp5\r\n")
    assert.equal(200, http.response_head(client).status)
  end)

  it("may lead elsewhere: another host, or a backend of the site", function()
    local app, other = net.listen(), net.listen()
    local gate = start([[backends = { app = { "$APP" } },
      on_request = function(req) if req.host == "rewritten.test" then req.host = "$OTHER" end end,
      pick_backend = function(req)
        if req.host == "app.test" then return "app" end
        if req.host == "no.test" then return gate.reply(418) end
      end]], { values = { APP = app, OTHER = other } })
    assert.equal(200, http.response_head(connect_to(gate, "app.test:443")).status)
    app:accept()
    assert.equal(200, http.response_head(connect_to(gate, "rewritten.test:443")).status)
    other:accept()
    assert.equal(418, http.response(connect_to(gate, "no.test:443")).status)
  end)

  it("cannot pretend a tunnel, nor make something else of a CONNECT", function()
    local gate = start [[on_request = function(req)
      if req.host == "ok.test" then return 200 end
      if req.host == "empty.test" then return 204 end
      local name = req.host:match "^set%-(%w+)"
      if not name then return end
      local ok, message = pcall(function() req[name] = name == "method" and "GET" or "/x" end)
      return gate.reply(403, message)
    end]]
    assert.equal(502, http.response(connect_to(gate, "ok.test:1")).status)
    assert.equal(502, http.response(connect_to(gate, "empty.test:1")).status)
    gate:wait_log "a CONNECT cannot be answered with 200"
    assert.matches("method of a CONNECT", http.response(connect_to(gate, "set-method.test:1")).body)
    assert.matches("a CONNECT has no path", http.response(connect_to(gate, "set-path.test:1")).body)
    assert.matches("a CONNECT has no query", http.response(connect_to(gate, "set-query.test:1")).body)
  end)

  it("is asked about failures, and logs", function()
    local gate = start [[on_error = function(_, err) return gate.reply(err.status, err.word) end,
      on_log = function(req, res) print(req.method, req.target, res.status) end]]
    assert.equal("connect_refused", http.response(connect_to(gate, "127.0.0.1:" .. net.refusing_port())).body)
    gate:wait_log "CONNECT%s+127.0.0.1:%d+%s+502"
  end)
end)

describe("a site that forwards", function()
  it("takes what names its target, of whatever host, and leaves the rest to the others", function()
    local server = http.backend "the target"
    local gate = moongate.start { values = { TARGET = server }, config = [[
      return { sites = {
        { listen = "127.0.0.1:$PORT", hosts = { "a.test" }, on_request = function() return 201 end },
        { listen = "127.0.0.1:$PORT", forward = { ports = "1-65535", private = true } },
      } }
    ]] }
    assert.equal(201, http.get(gate.port, "/", { headers = { Host = "a.test" } }).status)
    assert.equal("the target", http.get(gate.port, "http://" .. server.address .. "/", { headers = { Host = "a.test" } }).body)
    assert.equal(502, http.get(gate.port, "/", { headers = { Host = "b.test" } }).status)
  end)

  it("works for curl and openssl", function()
    local dir = support.temp_dir()
    require "luv".fs_chmod(dir, tonumber("755", 8))
    local made = support.tls.certificate(dir, "here", { names = { "IP:127.0.0.1" } })
    local secret = moongate.start { values = { CERT = made.cert, KEY = made.key }, args = { "--keys", dir }, config = [[
      return { listen = { "127.0.0.1:$PORT", tls = { cert = "$CERT", key = "$KEY" } }, on_request = 204 }
    ]] }
    local gate = start()
    local proxy = "http://127.0.0.1:" .. gate.port
    local plain = http.backend "hello"
    local status, out, err = support.run { "curl", "-sS", "-x", proxy, "http://" .. plain.address .. "/" }
    assert.equal("0 hello", status .. " " .. out, err)
    status, out, err = support.run { "curl", "-sS", "-p", "-x", proxy, "http://" .. plain.address .. "/" }
    assert.equal("0 hello", status .. " " .. out, err)
    status, out, err = support.run { "curl", "-sS", "-x", proxy, "--cacert", made.cert, "-o", "/dev/null", "-w",
      "%{http_code}", "https://127.0.0.1:" .. secret.port .. "/" }
    assert.equal("0 204", status .. " " .. out, err)
    out = select(2, support.run({ "openssl", "s_client", "-proxy", "127.0.0.1:" .. gate.port, "-connect",
      "127.0.0.1:" .. secret.port, "-CAfile", made.cert }, { stdin = "" }))
    assert.matches("Verify return code: 0", out, 1, true)
  end)
end)
