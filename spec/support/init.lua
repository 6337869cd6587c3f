-- The harness of the specs; README.md beside this file shows one.
--
--     local support = require "support"
--     local it, http, moongate = support.it, support.http, support.moongate

local busted = require "busted"
local async = require "support.async"

local support = {
  async = async,
  net = require "support.net",
  http = require "support.http",
  h2 = require "support.h2",
  tls = require "support.tls",
  process = require "support.process",
  moongate = require "support.moongate",
  websocket = require "support.websocket",
}

support.spawn, support.all, support.sleep = async.spawn, async.all, async.sleep
support.eventually = async.eventually
support.free_port, support.refusing_port = support.net.free_port, support.net.refusing_port
support.run, support.temp_dir = support.process.run, support.process.temp_dir

---`it` for bodies that wait.
---@param name string
---@param body fun()
function support.it(name, body)
  return busted.it(name, async.wrap(body))
end

-- A pair of busted's blocks around specs: what the body opens lives until the second one.
local function bracket(before, after)
  return function(body)
    local scope
    busted[before](function()
      scope = async.open()
      scope:run(body)
    end)
    busted[after](function()
      local opened = scope
      scope = nil
      if opened then opened:close() end
    end)
  end
end

---`setup` for bodies that wait; what it opens lives until the end of the describe.
support.setup = bracket("setup", "teardown")

---`before_each` for bodies that wait; what it opens lives until the end of the spec.
support.before_each = bracket("before_each", "after_each")

return support
