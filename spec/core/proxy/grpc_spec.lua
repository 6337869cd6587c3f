-- gRPC through the proxy: calls pass as they are, and what the proxy answers by itself is what gRPC clients understand.

local support = require "support"
local it, http, net, h2, moongate = support.it, support.http, support.net, support.h2, support.moongate

local function start(backend, site)
  return moongate.start { workers = 1, values = { BACKEND = backend or net.listen() }, config = ([[
    local gate = require "moongate"
    return { listen = { "127.0.0.1:$PORT", h2c = true }, backends = { app = { "$BACKEND", h2 = true } }, %s }
  ]]):format(site or "") }
end

local call = { method = "POST", headers = { { "content-type", "application/grpc" }, { "te", "trailers" } } }

-- A call that is not answered by its server; what the client sees.
local function ask(gate, options)
  local with = { body = "\0\0\0\0\1x" }
  for name, value in pairs(call) do with[name] = value end
  for name, value in pairs(options or {}) do with[name] = value end
  return h2.connect(gate.port):exchange("/s/m", with)
end

describe("a gRPC call", function()
  it("passes with its deadline, its messages and its status", function()
    local backend = h2.backend(function(request)
      return 200, { { "content-type", "application/grpc" } }, request.body,
        { { "grpc-status", "5" }, { "grpc-message", "no such thing" }, { "x-meta-bin", "AAA=" } }
    end)
    local response = ask(start(backend), { headers = {
      { "content-type", "application/grpc+proto" }, { "te", "trailers" }, { "grpc-timeout", "500m" },
    } })
    assert.equal("\0\0\0\0\1x", response.body)
    assert.equal("5", response.trailers["grpc-status"])
    assert.equal("no such thing", response.trailers["grpc-message"])
    assert.equal("AAA=", response.trailers["x-meta-bin"])
    local request = http.await_request(backend)
    assert.equal("500m", request.headers["grpc-timeout"])
    assert.equal("trailers", request.headers.te)
  end)

  it("may be answered by trailers alone", function()
    local response = ask(start(h2.backend(function()
      return 200, { { "content-type", "application/grpc" }, { "grpc-status", "12" } }, ""
    end)))
    assert.equal("12", response.headers["grpc-status"])
    assert.equal("", response.body)
    assert.is_nil(response.trailers)
  end)

  it("whose server cannot be reached is unavailable", function()
    local gate = start(("127.0.0.1:%d"):format(support.refusing_port()))
    local response = ask(gate)
    assert.equal(200, response.status)
    assert.equal("14", response.headers["grpc-status"])
    assert.equal("application/grpc", response.headers["content-type"])
    assert.truthy(response.headers["grpc-message"]:find "^the server refused the connection %(request %x+%)$")
    assert.equal("", response.body)
  end)

  it("whose server does not answer in time has exceeded its deadline", function()
    local response = ask(start(net.listen(function(conn) conn:read_all(30) end), "timeouts = { first_byte = 0.2 }"))
    assert.equal("4", response.headers["grpc-status"])
  end)

  for status, code in pairs {
    [400] = 13, [401] = 16, [403] = 7, [404] = 12, [409] = 10, [412] = 9, [413] = 8, [418] = 2, [429] = 8, [431] = 8,
    [500] = 13, [501] = 12, [502] = 14, [503] = 14, [504] = 4,
  } do
    it(("that a script answers with %d has status %d"):format(status, code), function()
      local response = ask(start(nil, ([[on_request = function()
        return gate.reply(%d, "caf\u{e9} 100%%\n", { ["X-A"] = "1" })
      end]]):format(status)))
      assert.equal(200, response.status)
      assert.equal(tostring(code), response.headers["grpc-status"])
      assert.equal("caf%C3%A9 100%25", response.headers["grpc-message"])
      assert.equal("1", response.headers["x-a"])
      assert.equal("", response.body)
    end)
  end

  it("that a script answers in gRPC's own terms is left alone", function()
    local response = ask(start(nil,
      [[on_request = function() return gate.reply(200, "", { ["Grpc-Status"] = "0" }) end]]))
    assert.equal("0", response.headers["grpc-status"])
    assert.is_nil(response.headers["grpc-message"])
  end)

  it("is seen by policy with the status it would have had", function()
    local gate = start(("127.0.0.1:%d"):format(support.refusing_port()),
      [[on_response = function(req, res) res.headers["X-Status"] = tostring(res.status) end]])
    local response = ask(gate)
    assert.equal("502", response.headers["x-status"])
    assert.equal("14", response.headers["grpc-status"])
  end)

  it("too large for its site is out of resources", function()
    assert.equal("8", ask(start(nil, "max_body = 3")).headers["grpc-status"])
  end)
end)

describe("a request that is not gRPC", function()
  it("gets the status and the page", function()
    local gate = start(("127.0.0.1:%d"):format(support.refusing_port()))
    local response = h2.connect(gate.port):exchange("/", { method = "POST", body = "x" })
    assert.equal(502, response.status)
    assert.is_nil(response.headers["grpc-status"])
  end)
end)
