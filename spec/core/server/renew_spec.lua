-- Policy that holds on to more memory than it may is replaced: the bytes that serve are run anew.

local support = require "support"
local it, moongate, http, process = support.it, support.moongate, support.http, support.process

describe("a policy that hoards memory", function()
  local function config(word)
    return ([[
      local gate = require "moongate"
      local hoard = {}
      return {
        listen = "127.0.0.1:$PORT", lua = { memory = "4M", hook_cpu = "1s" },
        on_unload = function() return { from = "%s" } end,
        on_load = function(state) hoard.from = state and state.from end,
        on_request = function(req)
          if req.path == "/grow" then for i = 1, 200 do hoard[#hoard + 1] = ("x"):rep(1000) .. #hoard end end
          return gate.reply(200, ("%s %%d %%s"):format(#hoard, hoard.from))
        end,
      }
    ]]):format(word, word)
  end

  it("is run anew from the bytes that serve, and requests go on", function()
    local gate = moongate.start { config = config "old" }
    process.write_file(gate.config, "this is no Lua")
    support.eventually("a new generation", function()
      http.get(gate.port, "/grow")
      return gate:log():find "generation 2 serves"
    end)
    gate:wait_log "generation 1 holds more memory than its limit after a full collection: its config is run anew"
    local answer = http.get(gate.port, "/")
    assert.equal(200, answer.status)
    assert.matches("^old %d+ old$", answer.body)
    assert.is_true(tonumber(answer.body:match "%d+") < 3000)
  end)
end)
