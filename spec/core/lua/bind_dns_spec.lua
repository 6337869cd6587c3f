-- gate.dns against dnsmasq.
-- luacheck: no max line length (scripts and messages stand in one line)

local support = require "support"
local dnsmasq = require "support.dnsmasq"
local scripted = require "support.scripted"
local it, http = support.it, support.http

local records = {
  "--host-record=app.test,192.0.2.1,2001:db8::1", "--host-record=four.test,192.0.2.4", "--cname=www.test,app.test",
  "--srv-host=_http._tcp.app.test,b.test,8080,10,5", "--srv-host=_http._tcp.app.test,a.test,8081,1,1",
  "--srv-host=_http._tcp.app.test,c.test,8082,10,50", "--mx-host=app.test,mail2.test,20", "--mx-host=app.test,mail.test,5",
  "--txt-record=app.test,v=spf1 -all", "--ptr-record=1.2.0.192.in-addr.arpa,app.test", "--local-ttl=60",
  "--txt-record=once.test,once", "--mx-host=once.test,m.test,1",
}

local config = scripted.config { names = "gate, socket", before = "", show = [[
function show(value)
  if type(value) ~= "table" then return tostring(value) end
  local items = {}
  for n, item in ipairs(value) do
    items[n] = type(item) ~= "table" and item
      or ("%s %d %s %s"):format(item.target, item.priority, tostring(item.weight), tostring(item.port))
  end
  return "{" .. table.concat(items, ", ") .. "}"
end
]] }

describe("gate.dns.resolve", function()
  local proxy, server
  support.setup(function()
    local address
    address, server = dnsmasq.start(records)
    proxy = support.moongate.start { config = config, workers = 2, env = { MOONGATE_NAMESERVER = address } }
  end)

  local function run(script) return http.post(proxy.port, "/", script).body end

  it("gives addresses, of both families or of one", function()
    assert.equal("{192.0.2.1, 2001:db8::1}", run "return gate.dns.resolve 'app.test'")
    assert.equal("{192.0.2.1}", run "return gate.dns.resolve('app.test', 'A')")
    assert.equal("{2001:db8::1}", run "return gate.dns.resolve('App.Test', 'AAAA')")
    assert.equal("{192.0.2.9}", run "return gate.dns.resolve '192.0.2.9'")
    assert.equal("{192.0.2.1, 2001:db8::1}", run "return gate.dns.resolve 'www.test'")
  end)

  it("gives records in the order of their use", function()
    assert.equal("{a.test 1 1 8081, c.test 10 50 8082, b.test 10 5 8080}",
      run "return gate.dns.resolve('_http._tcp.app.test', 'SRV')")
    assert.equal("{mail.test 5 nil nil, mail2.test 20 nil nil}", run "return gate.dns.resolve('app.test', 'MX')")
  end)

  it("gives texts and names", function()
    assert.equal("{v=spf1 -all}", run "return gate.dns.resolve('app.test', 'TXT')")
    assert.equal("{app.test}", run "return gate.dns.resolve('www.test', 'CNAME')")
    assert.equal("{app.test}", run "return gate.dns.resolve('192.0.2.1', 'PTR')")
    assert.equal("{app.test}", run "return gate.dns.resolve('1.2.0.192.in-addr.arpa', 'PTR')")
    assert.equal("name_not_found", run "return (select(2, gate.dns.resolve('2001:db8::5', 'PTR')))")
  end)

  it("says what is not there", function()
    assert.equal("nil|name_not_found|the server's name has no address", run "return gate.dns.resolve 'nobody.test'")
    assert.equal("nil|name_not_found|the server's name has no address", run "return gate.dns.resolve('four.test', 'AAAA')")
    assert.equal("nil|name_not_found|the name has no SRV record", run "return gate.dns.resolve('four.test', 'SRV')")
    assert.equal("name_not_found", run "return (select(2, gate.dns.resolve('a b', 'TXT')))")
    assert.matches("^raised: .*expected A, AAAA, SRV", run "gate.dns.resolve('app.test', 'HINFO')")
    assert.matches("^raised: .*cannot wait inside table.sort", run "table.sort({ 2, 1 }, function() gate.dns.resolve 'x.test' end)")
  end)

  it("asks once for what it knows, of each kind", function()
    local function queries(kind)
      local count = 0
      for _, line in ipairs(server.stderr) do
        if line:find("query[" .. kind .. "] once.test ", 1, true) then count = count + 1 end
      end
      return count
    end
    for _ = 1, 3 do
      assert.equal("{once}", run "return gate.dns.resolve('once.test', 'TXT')")
      assert.equal("{m.test 1 nil nil}", run "return gate.dns.resolve('once.test', 'MX')")
    end
    support.eventually("the queries to be logged", function() return queries "TXT" > 0 and queries "MX" > 0 end)
    assert.equal(1, queries "TXT")
    assert.equal(1, queries "MX")
  end)

  it("is asked by many at once", function()
    assert.equal("192.0.2.1 a.test v=spf1 -all 192.0.2.4", run [[
      local dns = gate.dns
      local a, b, c, d = gate.all(function() return dns.resolve("app.test")[1] end,
        function() return dns.resolve("_http._tcp.app.test", "SRV")[1].target end,
        function() return dns.resolve("app.test", "TXT")[1] end, function() return dns.resolve("four.test")[1] end)
      return a .. " " .. b .. " " .. c .. " " .. d
    ]])
  end)

  it("serves LuaSocket's names", function()
    assert.equal("192.0.2.1", run "return (socket.dns.toip 'app.test')")
    assert.equal("192.0.2.1 inet 2001:db8::1 inet6", run [[
      local list = socket.dns.getaddrinfo "app.test"
      return list[1].addr .. " " .. list[1].family .. " " .. list[2].addr .. " " .. list[2].family
    ]])
    assert.equal("app.test", run "return (socket.dns.tohostname '192.0.2.1')")
    assert.equal("nil|name_not_found|the server's name has no address", run "return socket.dns.toip 'nobody.test'")
  end)
end)
