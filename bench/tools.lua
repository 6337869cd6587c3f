-- What the tools cost: `build/moongate check bench/tools.lua` prints nanoseconds, best of three.

local gate = require "moongate"

local function measure(name, times, f)
  local best = math.huge
  for _ = 1, 3 do
    local began = gate.clock()
    for i = 1, times do f(i) end
    best = math.min(best, gate.clock() - began)
  end
  gate.log("info", ("%-40s %8.0f ns"):format(name, best / times * 1e9))
end

measure("an empty function", 100000, function() end)

local text = [[{"id":9007199254740993,"user":"moon","roles":["admin","editor"],"price":19.99,"tags":{"a":1,"b":true,"c":null}}]]
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

return { listen = 8080, on_request = 200 }
