-- Max-Forwards (RFC 9110 7.6.2): OPTIONS and TRACE that may go no further are answered by us.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

describe("Max-Forwards", function()
  local backend, gate

  support.setup(function()
    backend = net.listen()
    gate = moongate.start { values = { BACKEND = backend }, config = [[
      local gate = require "moongate"
      return { sites = {
        { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND", keepalive = 0 } } },
        { listen = "127.0.0.1:$PORT2", backends = { app = { "$BACKEND", keepalive = 0 } },
          cache = { memory = "1M" }, on_request = function(req)
            if req.path == "/policy" then return gate.reply(200, "by policy\n") end
          end },
      } }
    ]] }
  end)

  local function send(method, lines, where)
    local client = net.connect(where or gate.port)
    client:send(method .. " HTTP/1.1\r\nHost: a.example\r\n" .. lines .. "\r\n")
    return client
  end

  -- What the backend gets of it.
  local function forwarded(method, lines)
    local client = send(method, lines)
    local conn = backend:accept()
    local request = http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert.equal(200, http.response(client).status)
    return request.headers:all "Max-Forwards"
  end

  it("is one less at the next hop", function()
    assert.same({ "4" }, forwarded("OPTIONS /a", "Max-Forwards: 5\r\n"))
    assert.same({ "0" }, forwarded("TRACE /a", "max-forwards:  1 \r\n"))
    assert.same({ "18446744073709551614" }, forwarded("OPTIONS *", "Max-Forwards: 18446744073709551615\r\n"))
  end)

  it("is passed as it is with other methods", function()
    assert.same({ "0" }, forwarded("GET /a", "Max-Forwards: 0\r\n"))
    assert.same({ "7" }, forwarded("PROPFIND /a", "Max-Forwards: 7\r\n"))
  end)

  it("is passed as it is when it is no number", function()
    for _, value in ipairs { "-1", "", "x", "1, 2", "0x1", "99999999999999999999" } do
      assert.same({ value }, forwarded("OPTIONS /a", "Max-Forwards: " .. value .. "\r\n"))
    end
  end)

  it("of 0 has an OPTIONS answered here", function()
    for _, target in ipairs { "/a", "*" } do
      local before = backend.accepted
      local response = http.response(send("OPTIONS " .. target, "Max-Forwards: 0\r\n"))
      assert.equal(204, response.status)
      assert.equal(before, backend.accepted)
    end
  end)

  it("of 0 has a TRACE reflected, without what is secret", function()
    local response = http.response(send("TRACE /a?b=c",
      "Max-Forwards: 0\r\nCookie: s=1\r\nAuthorization: Basic eA==\r\nX-Api-Key: k\r\nVia: 1.0 first, 1.1 second\r\n"))
    assert.equal(200, response.status)
    assert.equal("message/http", response.headers["Content-Type"])
    assert.equal("TRACE /a?b=c HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\nVia: 1.0 first, 1.1 second\r\n\r\n",
      response.body)
  end)

  it("comes after policy, and before the cache", function()
    local reached = http.response(send("OPTIONS /policy", "Max-Forwards: 0\r\n", gate.values.PORT2))
    assert.same({ 200, "by policy\n" }, { reached.status, reached.body })
    assert.equal(204, http.response(send("OPTIONS /a", "Max-Forwards: 0\r\n", gate.values.PORT2)).status)
  end)
end)
