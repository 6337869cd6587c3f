-- moongate.network, in the kit: it needs the module `moongate`.

local testing = require "moongate.testing"

local function network_of(ip, bits)
  local kit = testing.load { text = ([[
    local gate, network = require "moongate", require "moongate.network"
    return { listen = 8080, on_request = function(req) return gate.reply(200, network.of(%q, %d)) end }
  ]]):format(ip, bits) }
  return kit:request("/").body
end

describe("moongate.network", function()
  it("gives all addresses of a network the same text", function()
    for ip, text in pairs {
      ["192.0.2.1"] = "192.0.2.1", ["unix:"] = "unix:",
      ["::1"] = "0:0:0:0", ["::"] = "0:0:0:0", ["1::"] = "1:0:0:0", ["2001:db8::1"] = "2001:db8:0:0",
      ["2001:db8::1:2:3:4"] = "2001:db8:0:0", ["2001:db8:0:1::5"] = "2001:db8:0:1",
      ["2001:db8::1:0:0:5"] = "2001:db8:0:0", ["2001:db8::7:1:2:3:4"] = "2001:db8:0:7",
      ["1:2:3:4:5:6:7:8"] = "1:2:3:4", ["fe80::1:2:3:4%eth0"] = "fe80:0:0:0",
    } do
      assert.equal(text, network_of(ip, 64), ip)
    end
    assert.equal("2001:db8:0", network_of("2001:db8::7:1:2:3:4", 48))
    assert.equal("2001:db8::1", network_of("2001:db8::1", 128))
  end)
end)
