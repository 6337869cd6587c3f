local support = require "support"
local policy = require "scripts.policy"
local it, http = support.it, support.http

local function start(options) return policy.start("request_id", options) end

describe("scripts.request_id", function()
  it("gives application and client the same id, and every request another", function()
    local port, backend = start "{}"
    local one, two = http.get(port), http.get(port)
    assert.matches("^%x+$", one.headers["X-Request-Id"])
    assert.equal(backend.requests[1].headers["X-Request-Id"], one.headers["X-Request-Id"])
    assert.equal(backend.requests[2].headers["X-Request-Id"], two.headers["X-Request-Id"])
    assert.not_equal(one.headers["X-Request-Id"], two.headers["X-Request-Id"])
  end)

  it("marks a script's own reply, too", function()
    local port = start "{}"
    assert.matches("^%x+$", http.get(port, "/reply").headers["X-Request-Id"])
  end)

  it("does not believe an id that comes with a request", function()
    local port, backend = start "{}"
    local response = http.get(port, "/", { headers = { ["X-Request-Id"] = "mine" } })
    assert.not_equal("mine", response.headers["X-Request-Id"])
    assert.not_equal("mine", backend.requests[1].headers["X-Request-Id"])
  end)

  it("keeps a well formed one when told to trust it, under another name if asked", function()
    local port, backend = start '{ trust = true, header = "X-Trace" }'
    assert.equal("mine-1", http.get(port, "/", { headers = { ["x-trace"] = "mine-1" } }).headers["X-Trace"])
    assert.equal("mine-1", backend.requests[1].headers["X-Trace"])
    local bad = http.get(port, "/", { headers = { ["X-Trace"] = "a b" } })
    assert.matches("^%x+$", bad.headers["X-Trace"])
  end)

  it("refuses wrong options", function()
    policy.assert_refused("request_id", {
      ['{ haeder = "X" }'] = 'request_id: unknown option "haeder"',
      ["{ header = 1 }"] = "request_id: header: expected a string",
      ['{ header = "a b" }'] = 'request_id: header: "a b" is no name',
    })
  end)
end)
