-- Active health checks: the keeper asks, and what fails is left out until it passes again.

local support = require "support"
local it, moongate, http = support.it, support.moongate, support.http

describe("a health check", function()
  local function server(name, state)
    return http.backend(function(request)
      if request.target == "/healthz" then return state.status, nil, "" end
      return 200, nil, name
    end)
  end

  local function start(states, health)
    local a, b = server("a", states.a), server("b", states.b)
    local gate = moongate.start { values = { A = a.port, B = b.port, HEALTH = health }, config = [[
      return {
        listen = "127.0.0.1:$PORT",
        backends = {
          app = { "127.0.0.1:$A", "127.0.0.1:$B", health = { path = "/healthz", interval = "100ms"$HEALTH } },
        },
      }
    ]] }
    return gate, a, b
  end

  -- The servers that answer four requests in a row: as many as it takes to see both.
  local function answering(gate)
    local seen = {}
    for _ = 1, 4 do seen[http.get(gate.port, "/").body] = true end
    return (seen.a and "a" or "") .. (seen.b and "b" or "")
  end

  it("takes a server that fails out of the choice, and back when it passes", function()
    local states = { a = { status = 200 }, b = { status = 503 } }
    local gate = start(states, "")
    gate:wait_log "server 127%.0%.0%.1:%d+ is unhealthy"
    assert.equal("a", answering(gate))
    states.b.status = 200
    gate:wait_log "server 127%.0%.0%.1:%d+ is healthy again"
    assert.equal("ab", answering(gate))
  end)

  it("asks every server alone, and its requests are not counted as requests", function()
    local gate, a, b = start({ a = { status = 200 }, b = { status = 200 } }, "")
    http.await_request(a, 3)
    http.await_request(b, 3)
    http.get(gate.port, "/")
    local status, out = gate:command("status", "--json")
    assert.equal(0, status)
    assert.matches('"requests":{"2xx":1}', out, 1, true)
  end)

  it("leaves all in the choice when none is well: a late answer is better than none", function()
    local gate, a, b = start({ a = { status = 500 }, b = { status = 500 } }, ", fall = 1")
    for _, each in ipairs { a, b } do gate:wait_log("server " .. each.address:gsub("%p", "%%%0") .. " is unhealthy") end
    assert.equal("ab", answering(gate))
  end)

  it("takes the statuses that the site calls good", function()
    local states = { a = { status = 404 }, b = { status = 200 } }
    local gate = start(states, ", fall = 1, status = { 200, 404 }")
    states.b.status = 500
    gate:wait_log "is unhealthy"
    assert.equal("a", answering(gate))
  end)

  it("goes on after a reload", function()
    local states = { a = { status = 200 }, b = { status = 200 } }
    local gate = start(states, "")
    assert.equal(0, (gate:reload()))
    states.a.status = 503
    gate:wait_log "is unhealthy"
    assert.equal("b", answering(gate))
  end)
end)
