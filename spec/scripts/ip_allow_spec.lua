local support = require "support"
local testing = require "moongate.testing"
local policy = require "scripts.policy"
local it, http = support.it, support.http

-- Who is behind a trusted proxy can have any address.
local trusted = { site = 'trusted_proxies = { "127.0.0.1", "unix" },' }

local function start(options)
  local port = policy.start("ip_allow", options, trusted)
  return function(ip) return http.get(port, "/", { headers = { ["X-Forwarded-For"] = ip } }).status end
end

describe("scripts.ip_allow", function()
  it("lets in whom it is told to, and nobody else", function()
    local status_of = start '{ allow = { "10.0.0.0/8", "192.0.2.7", "2001:db8::/33" } }'
    for _, ip in ipairs { "10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::1", "2001:db8:7fff:ffff::" } do
      assert.equal(200, status_of(ip), ip)
    end
    for _, ip in ipairs { "11.0.0.0", "9.255.255.255", "192.0.2.8", "2001:db8:8000::", "2001:db9::1", "::a00:0" } do
      assert.equal(403, status_of(ip), ip)
    end
  end)

  it("keeps out whom it is told to, also out of what is allowed", function()
    local status_of = start '{ deny = { "10.0.0.13", "fe80::/10" } }'
    assert.equal(403, status_of "10.0.0.13")
    assert.equal(403, status_of "febf::1")
    assert.equal(200, status_of "fec0::1")
    assert.equal(200, status_of "10.0.0.14")
    assert.equal(403, (start '{ allow = { "10.0.0.0/8" }, deny = { "10.0.0.13" } }')("10.0.0.13"))
  end)

  it("knows the shapes in which addresses are written", function()
    local status_of = start [[{ allow = {
      "0.0.0.0/0", "::1", "2001:DB8:0:0:1::/80", "::ffff:0:0/96", "64:ff9b::192.0.2.33/128",
    } }]]
    for _, ip in ipairs { "203.0.113.9", "::1", "2001:db8::1:0:0:9", "::ffff:198.51.100.1", "64:ff9b::c000:221" } do
      assert.equal(200, status_of(ip), ip)
    end
    assert.equal(403, status_of "::2")
    assert.equal(403, status_of "2001:db8::2:0:0:9")
  end)

  it("tells clients of a unix socket apart", function()
    local _, _, proxy = policy.start("ip_allow", '{ allow = { "unix" } }')
    assert.equal(200, http.get(proxy.dir .. "/listen.sock").status)
    assert.equal(403, http.get(proxy.port).status)
  end)

  it("reads lists from a file beside the config, and says what is wrong with it", function()
    local folder = support.temp_dir()
    support.process.write_file(folder .. "/blocked.txt", "192.0.2.0/24\n# a comment\n2001:db8::/32 text\n")
    support.process.write_file(folder .. "/site.lua", [[return { listen = 8080, on_request = 204,
      use = { require "scripts.ip_allow" { deny = { file = "blocked.txt" } } } }]])
    local kit = testing.load(folder .. "/site.lua")
    local function status_of(ip) return kit:request({ client = { ip = ip } }).status end
    assert.equal(403, status_of "192.0.2.1")
    assert.equal(403, status_of "2001:db8::1")
    assert.equal(204, status_of "10.0.0.2")
    policy.assert_refused("ip_allow", {
      ['{ deny = { file = "missing.txt" } }'] = "ip_allow: deny: ",
      ['{ deny = { "10.0.0.1", file = "blocked.txt" } }'] = "ip_allow: deny: expected either a list or a file",
    })
  end)

  it("answers as it is told", function()
    local port = policy.start("ip_allow", '{ deny = { "127.0.0.1" }, status = 404, body = "nothing here\\n" }')
    local response = http.get(port)
    assert.equal(404, response.status)
    assert.equal("nothing here\n", response.body)
  end)

  it("refuses wrong options", function()
    local expected = 'ip_allow: allow[1]: expected an address or range such as "10.0.0.0/8", got '
    local problems = {
      ["{}"] = "ip_allow: expected allow, deny or both",
      ['{ allow = { "10.0.0.1" }, staus = 404 }'] = 'ip_allow: unknown option "staus", did you mean "status"?',
      ['{ deny = { "10.0.0.1" }, status = 200 }'] = "ip_allow: status: expected one from 400 to 599",
      ['{ deny = { "::1", "10.0.0.0/33" } }'] = "ip_allow: deny[2]: expected an address",
    }
    for _, text in ipairs {
      "10.0.0", "10.0.0.1.2", "10.0.0.256", "10.0.0.01", "10.0.0.1/", "10.0.0.1/8/8", "", "x", ":", ":::", "1::2::3",
      "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::12345", "::1/129", "unix/1",
    } do
      problems[('{ allow = { "%s" } }'):format(text)] = expected .. ('"%s"'):format(text)
    end
    policy.assert_refused("ip_allow", problems)
  end)
end)
