-- Parents: HTTP proxies through which connections are made.
-- luacheck: no max line length (bytes of requests stand in one line)

local support = require "support"
local it, http, net, moongate, tls = support.it, support.http, support.net, support.moongate, support.tls

-- The head of a request, as it came.
local function head_of(conn) return conn:read_until "\r\n\r\n" end

local established = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" -- the length means nothing

describe("the parent of a forward proxy", function()
  local parent, gate, answer
  support.setup(function()
    parent = net.listen()
    -- Another one, which says `answer` to everybody: what fails is tried twice.
    local bad = net.listen(function(conn)
      head_of(conn)
      if answer then conn:try_send(answer)
      else conn:expect_closed() end
    end)
    gate = moongate.start { values = { PARENT = parent.port, BAD = bad.port }, config = [[
      local function site(port, parent)
        return { listen = "127.0.0.1:" .. port, timeouts = { connect = "500ms" },
                 forward = { ports = { 80, 443 }, parent = parent } }
      end
      return { sites = { site($PORT, "http://127.0.0.1:$PARENT"),
        site($PORT2, { url = "http://localhost:$PARENT/", auth = "user:pass word" }),
        site($PORT3, "http://127.0.0.1:$BAD") } }
    ]] }
  end)

  local function connect(where, port)
    local client = net.connect(port or gate.port)
    client:send(("CONNECT %s HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic eDp5\r\nX-Own: 1\r\n\r\n"):format(where))
    return client
  end

  it("is asked for tunnels, in our own words", function()
    local client = connect "app.test:443"
    local conn = parent:accept()
    assert.equal("CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n\r\n", head_of(conn))
    conn:send(established .. "hello")
    assert.equal(200, http.response_head(client).status)
    assert.equal("hello", client:read_exactly(5))
    client:send "and back"
    assert.equal("and back", conn:read_exactly(8))
  end)

  it("gets its own password, and not the client's", function()
    connect("app.test:443", gate.values.PORT2)
    local head = head_of(parent:accept())
    assert.equal("CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\nProxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n\r\n", head)
  end)

  it("is asked for http URLs in absolute form", function()
    local client = net.connect(gate.values.PORT2)
    client:send "GET http://app.test/a/../b?c HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
    local conn = parent:accept()
    local request = http.request(conn)
    assert.equal("http://app.test/b?c", request.target)
    assert.equal("app.test", request.headers.Host)
    assert.equal("Basic dXNlcjpwYXNzIHdvcmQ=", request.headers["Proxy-Authorization"])
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert.equal("ok", http.response(client).body)
    -- The next, for another host, takes the same connection.
    client:send "GET http://other.test/ HTTP/1.1\r\nHost: x\r\n\r\n"
    assert.equal("http://other.test/", http.request(conn).target)
    conn:send "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
    assert.equal(502, http.response(client).status)
  end)

  it("is not asked for ports and addresses that are not allowed", function()
    assert.equal(403, http.response(connect "app.test:25").status)
    assert.equal(403, http.response(connect "10.0.0.1:443").status)
    assert.equal(403, http.response(connect "[::1]:443").status)
    assert.equal(400, http.response(connect "0177.0.0.1:443").status)
  end)

  for name, said in pairs {
    ["refuses"] = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    ["wants another password"] = "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n",
    ["talks nonsense"] = "SSH-2.0-x\r\n\r\n",
    ["switches protocols"] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    ["answers for ever"] = "HTTP/1.1 200 OK\r\nY: " .. ("y"):rep(20000),
  } do
    it("that " .. name .. " is 502", function()
      answer = said
      local response = http.response(connect("app.test:443", gate.values.PORT3))
      assert.equal(502, response.status)
      assert.is_nil(response.headers["Proxy-Authenticate"])
    end)
  end

  it("that says nothing is 504", function()
    answer = nil
    assert.equal(504, http.response(connect("app.test:443", gate.values.PORT3)).status)
  end)

  it("may say 100 first", function()
    local client = connect "app.test:443"
    local conn = parent:accept()
    head_of(conn)
    conn:send("HTTP/1.1 100 Continue\r\n\r\n" .. established)
    assert.equal(200, http.response_head(client).status)
  end)
end)

describe("a parent that is the proxy itself", function()
  it("is not asked, whatever port the system gave it", function()
    local gate = moongate.start { values = { OWN = net.free_port() }, config = [[
      return { listen = "127.0.0.1:$OWN", forward = { parent = "http://127.0.0.1:$OWN" } }
    ]] }
    local client = net.connect(gate.values.OWN)
    client:send "CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.equal(403, http.response(client).status)
    assert.equal(403, http.get(gate.values.OWN, "http://a.test/").status)
  end)
end)

describe("the parent of a backend", function()
  it("is asked for each of its servers by name, and connections to them do not mix", function()
    local parent = net.listen()
    local gate = moongate.start { workers = 1, values = { PARENT = parent.port }, config = [[
      return { listen = "127.0.0.1:$PORT",
        backends = { app = { "one.test:81", "two.test:82", parent = "http://127.0.0.1:$PARENT" } } }
    ]] }
    local conns = {}
    for i = 1, 4 do
      local client = net.connect(gate.port)
      client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
      if i <= 2 then
        local conn = parent:accept()
        conns[i] = { conn = conn, target = head_of(conn):match "^CONNECT (%S+) HTTP/1.1\r\n" }
        conn:send(established)
      end
      local conn = conns[(i - 1) % 2 + 1].conn
      assert.equal("/", http.request(conn).target)
      conn:send(("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d"):format(i))
      assert.equal(tostring(i), http.response(client).body)
    end
    local targets = { conns[1].target, conns[2].target }
    table.sort(targets)
    assert.same({ "one.test:81", "two.test:82" }, targets)
  end)

  it("has TLS to the server inside of the tunnel, with the server's own name", function()
    local dir = support.temp_dir()
    require "luv".fs_chmod(dir, tonumber("755", 8))
    tls.certificate(dir, "here", { names = { "DNS:here.test" } })
    local config = [[
      local function site(port, name)
        return { listen = "127.0.0.1:" .. port, backends = { app = { name .. ":$INNER",
          parent = "http://127.0.0.1:$PROXY", tls = { ca = "$CERTS/here.pem" } } } }
      end
      return { sites = { site($PORT, "here.test"), site($PORT2, "other.test") } }
    ]]
    local inner = moongate.start { args = { "--keys", dir }, values = { CERTS = dir }, config = [[
      local gate = require "moongate"
      return { listen = { "127.0.0.1:$PORT", tls = { cert = "$CERTS/here.pem", key = "$CERTS/here.key" } },
               on_request = function(req) return gate.reply(200, req.client.tls.sni) end }
    ]] }
    local proxy = moongate.start { values = { INNER = inner.port }, config = [[
      return { listen = "127.0.0.1:$PORT", forward = { ports = "1-65535", private = true },
               backends = { inner = { "127.0.0.1:$INNER" } }, pick_backend = "inner" }
    ]] }
    local gate = moongate.start { args = { "--keys", dir }, values = { CERTS = dir, INNER = inner.port,
      PROXY = proxy.port }, config = config }
    for _ = 1, 2 do assert.equal("here.test", http.get(gate.port).body) end
    local response = http.get(gate.values.PORT2)
    assert.equal(502, response.status)
    assert.matches("certificate", response.body)
  end)

  it("that speaks into the tunnel before TLS is not believed", function()
    local parent = net.listen()
    local gate = moongate.start { values = { PARENT = parent.port }, config = [[
      return { listen = "127.0.0.1:$PORT",
        backends = { app = { "one.test:443", parent = "http://127.0.0.1:$PARENT", tls = true, retry = { tries = 1 } } } }
    ]] }
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = parent:accept()
    head_of(conn)
    conn:send(established .. "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
    assert.equal(502, http.response(client).status)
  end)
end)
