-- <close> handlers that run because everything ends: they may do little, and nothing that they try may hurt.

local support = require "support"
local it, http, moongate = support.it, support.http, support.moongate

describe("a spawned task's <close> handler, when its generation ends,", function()
  local config = [[
    local gate = require "moongate"
    local site = { listen = "127.0.0.1:$PORT", backends = {} }
    local function on_close()
      local ok, word = gate.spawn(function() gate.log("too late") end)
      local slept = pcall(gate.sleep, 0)
      local fetched = pcall(gate.fetch, "http://127.0.0.1:$PORT/")
      gate.log(("spawn %s %s sleep %s fetch %s"):format(ok, word, slept, fetched))
    end
    function site.on_request(req)
      gate.spawn(function()
        local closing <close> = setmetatable({}, { __close = on_close })
        gate.log "spawned"
        gate.sleep(100)
      end)
      return 200
    end
    return { sites = { site }, drain = 0.1 }
  ]]

  local function start()
    local gate = moongate.start { config = config }
    assert.equal(200, http.get(gate.port, "/").status)
    gate:wait_log "spawned"
    return gate
  end

  local expected = "spawn nil hook_drained sleep false fetch false"

  it("cannot spawn another one at the stop", function()
    local gate = start()
    gate:stop()
    assert.truthy(gate:log():find(expected, 1, true))
  end)

  it("cannot spawn another one after a reload", function()
    local gate = start()
    local pid = gate:children()[1]
    gate:reload_with(config)
    gate:wait_log(expected)
    assert.equal(200, http.get(gate.port, "/").status)
    assert.equal(pid, gate:children()[1])
    assert.falsy(gate:log():find "too late")
  end)
end)
