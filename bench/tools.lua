-- What the tools cost: `build/moongate check bench/tools.lua` prints nanoseconds of CPU, the best of three.

local gate = require "moongate"

local function measure(name, times, f)
  local best = math.huge
  for _ = 1, 3 do
    local began = os.clock()
    for i = 1, times do f(i) end
    best = math.min(best, os.clock() - began)
  end
  gate.log("info", ("%-40s %8.0f ns"):format(name, best / times * 1e9))
end

measure("an empty function", 100000, function() end)

local text = [[{"id":9007199254740993,"user":"moon","roles":["admin","editor"],"price":19.99,]]
  .. [["tags":{"a":1,"b":true,"c":null}}]]
local value = assert(gate.json.decode(text))
measure("json.decode, " .. #text .. " bytes", 5000, function() gate.json.decode(text) end)
measure("json.encode, the same", 5000, function() gate.json.encode(value) end)

local list = {}
for i = 1, 500 do list[i] = text end
local long = "[" .. table.concat(list, ",") .. "]"
local values = assert(gate.json.decode(long))
measure("json.decode, " .. #long .. " bytes", 10, function() gate.json.decode(long) end)
measure("json.encode, the same", 10, function() gate.json.encode(values) end)

measure("uuid 4", 20000, function() gate.uuid() end)
measure("uuid 7", 20000, function() gate.uuid(7) end)
measure("url.parse", 10000, function() gate.url.parse "https://user@example.com:8443/a/b?q=1&r=2#top" end)
measure("cookie.build", 10000, function() gate.cookie.build("sid", "abc", { path = "/", secure = true }) end)
measure("time.iso", 20000, function() gate.time.iso(784111777) end)

local few = gate.cidr { "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8" }
measure("cidr:has, 4 prefixes, IPv4", 20000, function() few:has "192.168.1.1" end)
measure("cidr:has, 4 prefixes, IPv6", 20000, function() few:has "fd00:1234::1" end)

local agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
local bots, version = gate.re("bot|crawl|spider|slurp", "i"), gate.re "Chrome/(\\d+)"
local users, same = gate.re "^/api/v(\\d+)/users/([^/]+)$", "^/api/v(%d+)/users/([^/]+)$"
measure("re:test, four words in 101 bytes", 10000, function() bots:test(agent) end)
measure("re:match, Chrome/(\\d+)", 20000, function() version:match(agent) end)
measure("re:match, a path with two groups", 20000, function() users:match "/api/v1/users/alice" end)
measure("string.match, the same path", 20000, function() return ("/api/v1/users/alice"):match(same) end)
measure("gate.re, remembered", 20000, function() gate.re "Chrome/(\\d+)" end)

local plain = gate.metrics.counter { name = "bench_plain_total", help = "none" }
local tiers = gate.metrics.counter { name = "bench_tiers_total", help = "one", labels = { "tier" } }
local pairs_of = gate.metrics.counter { name = "bench_pairs_total", help = "two", labels = { "tier", "status" } }
local times = gate.metrics.histogram { name = "bench_seconds", help = "none" }
local gold = { tier = "gold" }
measure("counter:add(1)", 50000, function() plain:add(1) end)
measure("counter:add(1, \"gold\")", 50000, function() tiers:add(1, "gold") end)
measure("counter:add(1, \"gold\", 200)", 50000, function() pairs_of:add(1, "gold", 200) end)
measure("counter:add(1, { tier = \"gold\" })", 50000, function() tiers:add(1, gold) end)
measure("histogram:observe(0.2)", 50000, function() times:observe(0.2) end)

return { listen = 8080, on_request = 200 }
