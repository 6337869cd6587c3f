local support = require "support"
local probe = require "core.lua.probe"
local it = support.it

describe("res", function()
  support.setup(probe.start)

  before_each(function() probe.answer = "from the backend" end)

  it("tells of a backend's answer", function()
    local script = [[
      return res.status, res.source, res.backend, res.server, res.tries, res.cache, type(res.time), res.time >= 0
    ]]
    assert.equal("200|backend|app|" .. probe.backend.address .. "|1|nil|number|true", probe.response(script))
  end)

  it("tells of a reply, and of an error", function()
    local script = "return res.status, res.source, res.backend, res.server, res.tries, res.time"
    probe.exchange { on_request = "return 'said'", on_log = script }
    probe.proxy:wait_log "on_log says 200|reply|nil|nil|0|nil"
    local told = probe.response(script, { target = "/dead" })
    assert.matches("^502|error|dead|127%.0%.0%.1:%d+|1|nil$", told)
  end)

  it("has a status that can be assigned", function()
    local response = probe.exchange { on_response = "res.status = 404" }
    assert.equal(404, response.status)
    assert.equal("Not Found", response.reason)
    assert.equal("from the backend", response.body)
  end)

  it("loses its body where the status has none", function()
    local response = probe.exchange { on_response = "res.status = 204" }
    assert.equal(204, response.status)
    assert.equal("", response.body)
    assert.equal("nil", tostring(response.headers["Content-Length"]))
  end)

  it("gets an empty one where it had none", function()
    probe.answer = function() return 304 end
    local response = probe.exchange { on_response = "res.status = 200" }
    assert.equal(200, response.status)
    assert.equal("", response.body)
  end)

  it("refuses statuses that are none", function()
    local none = { "100", "199", "600", "-1", "200.5", "'200'", "nil", "{}", "1/0", "0/0", "math.maxinteger" }
    for _, value in ipairs(none) do
      local text = probe.response("res.status = " .. value)
      assert(text:find("200 to 599", 1, true), value .. ": " .. text)
    end
    assert.equal(201, probe.exchange({ on_response = "res.status = 201.0" }).status)
  end)

  it("names the nearest field when there is none, and says which are read-only", function()
    assert(probe.response("return res.stauts"):find("did you mean 'status'", 1, true))
    assert(probe.response("res.boddy = 'x'"):find("did you mean 'body'", 1, true))
    for _, name in ipairs { "headers", "source", "server", "backend", "tries", "cache", "time" } do
      assert(probe.response(("res.%s = 1"):format(name)):find("res." .. name .. " is read-only", 1, true))
    end
  end)

  it("is read-only in on_log, when its head has left", function()
    local statements = {
      "res.status = 200", "res.body = 'x'", "res.headers['X-A'] = '1'", "res.headers:add('X-A', '1')",
    }
    for _, statement in ipairs(statements) do
      local from = probe.proxy:log_mark()
      probe.exchange { on_log = statement }
      probe.proxy:wait_log("on_log says raised: .*head has left", { from = from })
    end
    probe.exchange { on_log = "return res.status, res.headers['Content-Length'], req.path" }
    probe.proxy:wait_log "on_log says 200|16|/"
  end)

  it("can be read in on_log after the client has left", function()
    local conn = support.net.connect(probe.port)
    probe.answer = function() return 200, nil, ("x"):rep(4000000) end
    local script = "gate.sleep(0.05) return req.path, res.status, type(res.headers['Content-Length'])"
    conn:send(("GET /left HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"):format(probe.field("on_log", script)))
    conn:read_until "\r\n\r\n"
    conn:reset()
    probe.proxy:wait_log "on_log says /left|200"
  end)

  it("raises when it is used after its exchange", function()
    probe.exchange { on_response = "upvalue.res = res upvalue.headers = res.headers" }
    probe.raises("the exchange has ended", "return upvalue.res.status")
    probe.raises("the exchange has ended", "upvalue.res.status = 200")
    probe.raises("the exchange has ended", "return upvalue.headers.Server")
    probe.raises("the exchange has ended", "upvalue.headers.Server = nil")
  end)
end)
