-- luacheck: no max line length (cases stand in one line)
-- What the options of ready-made policies are checked with, as far as the specs of scripts/ do not show it.

local testing = require "moongate.testing"

-- What an expression over `options` gives.
local function eval(text)
  local kit = testing.load { text = ([[
    local gate, options = require "moongate", require "moongate.options"
    return { listen = 8080, on_request = function(req) return gate.reply(200, tostring(%s)) end }
  ]]):format(text) }
  return kit:request("/").body
end

describe("moongate.options", function()
  it("names the nearest option, if there is one near enough", function()
    local known = { timeout = "seconds", share = "share", by = "string" }
    local cases = { timout = "timeout", tiemout = "timeout", shares = "share", elephant = false, x = false }
    for said, meant in pairs(cases) do
      local got = eval(('options.unknown("option", %q, { timeout = 1, share = 1, by = 1 })'):format(said))
      assert.equal(('unknown option %q'):format(said) .. (meant and (", did you mean %q?"):format(meant) or ""), got)
      assert(not meant or known[meant])
    end
  end)

  it("reads times", function()
    local cases = { ["2"] = "2", ["0.5"] = "0.5", ['"500ms"'] = "0.5", ['"1m"'] = "60", ['"30d"'] = "2592000",
      ['"soon"'] = "nil", ['"-1s"'] = "nil", ["-1"] = "nil", ["{}"] = "nil", ["0/0"] = "nil", ["1/0"] = "nil" }
    for text, seconds in pairs(cases) do assert.equal(seconds, eval("options.seconds(" .. text .. ")"), text) end
  end)

  it("knows what is below a path", function()
    local cases = { ["/a"] = true, ["/a/b"] = true, ["/ab"] = false, ["/dir/x"] = true, ["/dir"] = false, ["/"] = false }
    for path, is in pairs(cases) do
      assert.equal(tostring(is), eval(('options.is_below(%q, { "/a", "/dir/" })'):format(path)), path)
    end
    assert.equal("true", eval 'options.is_below("/any/where", { "/" })')
    assert.equal("false", eval 'options.is_below("/any", nil)')
  end)

  it("tells requests apart", function()
    local kit = testing.load { text = [[
      local gate, options = require "moongate", require "moongate.options"
      return { listen = 8080, on_request = function(req)
        local list = {}
        for i, key in ipairs { "ip", "header:X-User", "cookie:c", "arg:a", "ctx:none", function(r) return r.method end } do
          list[i] = tostring(options.key(key)(req))
        end
        return gate.reply(200, table.concat(list, " "))
      end }
    ]] }
    local res = kit:request { path = "/?a=1", headers = { ["X-User"] = "ada", Cookie = "c=2" }, client = { ip = "10.0.0.9" } }
    assert.equal("10.0.0.9 ada 2 1 nil GET", res.body)
  end)
end)
