local net = require("moongate_core").net

local function at(ip) return ip:find(":", 1, true) and ("[%s]:80"):format(ip) or ip .. ":80" end
local function allows(ip, rules) return net.egress_allows(ip:find "^unix" and ip or at(ip), rules or {}) end

describe("the rules for where connections may go", function()
  it("let everything public pass", function()
    for _, ip in ipairs {
      "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
      "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0",
      "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15", "2000::1", "2600::", "2a00:1450::1",
      "2001:200::1", "3ffe::1", "::ffff:8.8.8.8",
    } do
      assert.is_true(allows(ip), ip)
    end
  end)

  for name, list in pairs {
    ["the unspecified"] = { "0.0.0.0", "0.1.2.3", "::" },
    ["loopback"] = { "127.0.0.1", "127.255.255.254", "::1" },
    ["private"] = { "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255" },
    ["shared (CGNAT)"] = { "100.64.0.1", "100.127.255.255" },
    ["link-local"] = { "169.254.0.1", "fe80::1", "febf::1" },
    ["a cloud's metadata"] = {
      "169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "169.254.170.2",
    },
    ["unique-local and site-local"] = { "fc00::1", "fdff::1", "fec0::1" },
    ["multicast and broadcast"] = { "224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1", "ff0e::1" },
    ["reserved"] = { "240.0.0.1", "192.0.0.1", "198.18.0.1", "4000::1", "5f00::1", "100::1" },
    ["documentation"] = { "192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1" },
    ["IPv4-mapped"] = { "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254" },
    ["IPv4-compatible"] = { "::127.0.0.1", "::8.8.8.8" },
    ["NAT64"] = { "64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::8.8.8.8" },
    ["6to4 and Teredo"] = { "2002:7f00:1::", "2002:808:808::1", "2001:0:808:808::1" },
  } do
    it("stop addresses that are " .. name, function()
      for _, ip in ipairs(list) do
        assert.is_false(allows(ip), ip)
        assert.is_true(allows(ip, { private = true }), ip)
      end
    end)
  end

  it("stop unix sockets, unless these are allowed", function()
    assert.is_false(allows "unix:/run/a.sock")
    assert.is_true(allows("unix:/run/a.sock", { allow = { "unix" } }))
    assert.is_true(allows("unix:/run/a.sock", { private = true }))
    assert.is_false(allows("unix:/run/a.sock", { private = true, deny = { "unix" } }))
  end)

  it("let the narrower range decide, and deny between two of one size", function()
    local rules = { allow = { "10.0.0.0/8", "10.1.2.3" }, deny = { "10.1.0.0/16", "8.8.8.0/24", "10.9.9.9/32" } }
    assert.is_true(allows("10.2.0.1", rules))
    assert.is_false(allows("10.1.0.1", rules))
    assert.is_true(allows("10.1.2.3", rules))
    assert.is_false(allows("8.8.8.8", rules))
    assert.is_true(allows("::ffff:10.2.0.1", rules))
    assert.is_false(allows("::ffff:10.1.0.1", rules))
    assert.is_false(allows("10.9.9.9", { allow = { "10.9.9.9" }, deny = { "10.9.9.9" } }))
    assert.is_true(allows("198.51.100.7", { deny = { "0.0.0.0/0" }, allow = { "198.51.100.0/24" } }))
    assert.is_false(allows("1.1.1.1", { deny = { "0.0.0.0/0" }, allow = { "198.51.100.0/24" } }))
  end)

  it("look at what an address carries, too", function()
    local nat64 = { allow = { "64:ff9b::/96" } }
    assert.is_true(allows("64:ff9b::8.8.8.8", nat64))
    assert.is_false(allows("64:ff9b::10.0.0.1", nat64))
    assert.is_true(allows("64:ff9b::10.0.0.1", { allow = { "64:ff9b::/96", "10.0.0.0/8" } }))
    assert.is_false(allows("2002:a00:1::1", { private = true, deny = { "10.0.0.0/8" } }))
    assert.is_false(allows("::10.0.0.1", { private = true, deny = { "10.0.0.0/8" } }))
    assert.is_true(allows("::1", { allow = { "::1" } }))
  end)
end)

describe("a listener of ours", function()
  it("is known by its address, and by every local one if it listens on all", function()
    assert.is_true(net.addr_is_listened("127.0.0.1:80", "127.0.0.1:80"))
    assert.is_true(net.addr_is_listened("[::ffff:127.0.0.1]:80", "127.0.0.1:80"))
    assert.is_true(net.addr_is_listened("127.0.0.2:80", "1.1.1.1:80", "[::]:80"))
    assert.is_true(net.addr_is_listened("[::1]:80", "*:80"))
    assert.is_true(net.addr_is_listened("0.0.0.0:80", "127.0.0.1:80"))
  end)

  it("is not another port or machine", function()
    assert.is_false(net.addr_is_listened("127.0.0.1:81", "127.0.0.1:80", "[::]:80"))
    assert.is_false(net.addr_is_listened("127.0.0.2:80", "127.0.0.1:80"))
    assert.is_false(net.addr_is_listened("198.51.100.1:80", "[::]:80"))
    assert.is_false(net.addr_is_listened("198.51.100.1:80", "unix:/run/a.sock"))
  end)
end)
