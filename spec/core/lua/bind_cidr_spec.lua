-- gate.cidr, and with it core/store/prefix_table.c.
-- luacheck: no max line length (scripts and texts stand in one line)

local support = require "support"
local engine = require "core.lua.engine"
local core = require "moongate_core"

-- What :get says of addresses, joined with "|".
local function gets(set, addresses, options)
  return engine.run(([[
    local set, said = gate.cidr %s, {}
    for i, ip in ipairs { %s } do said[i] = tostring((set:get(ip))) end
    return table.concat(said, "|")]]):format(set, addresses), options)
end

describe("gate.cidr", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("has the addresses of its prefixes", function()
    assert.equal("true|false|true|true|false|3", engine.run [[
      local set = gate.cidr { "10.0.0.0/8", "2001:db8::/32", "192.0.2.1" }
      return set:has "10.255.0.1", set:has "11.0.0.0", set:has "2001:db8:1::", set:has "192.0.2.1", set:has "192.0.2.2", #set]])
  end)

  it("gives the value of the longest match", function()
    assert.equal("outer|inner|host|nil|true|six|other",
      gets([[{ ["10.0.0.0/8"] = "outer", ["10.1.0.0/16"] = "inner", ["10.1.2.3"] = "host", "192.0.2.0/24",
        ["2001:db8::/32"] = "six", ["::/0"] = "other" }]],
        '"10.2.0.1", "10.1.0.1", "10.1.2.3", "11.0.0.1", "192.0.2.9", "2001:db8::1", "fe80::1"'))
  end)

  it("keeps values of any type, as they are", function()
    assert.equal("true|1|nil", engine.run [[
      local t = { "x" }
      local set = gate.cidr { ["10.0.0.0/8"] = t, ["11.0.0.0/8"] = 1 }
      return set:get "10.0.0.1" == t, set:get "11.0.0.1", tostring(set:get "12.0.0.1")]])
  end)

  it("takes IPv4-mapped addresses and prefixes for IPv4, which ::/0 does not have", function()
    assert.equal("four|four|six|nil|nil", gets('{ ["10.0.0.0/8"] = "four", ["::/0"] = "six" }',
      '"::ffff:10.0.0.1", "10.0.0.1", "::10.0.0.1", "11.0.0.1", "::ffff:11.0.0.1"'))
    assert.equal("mapped|nil", gets('{ ["::ffff:10.0.0.0/104"] = "mapped" }', '"10.9.9.9", "11.0.0.0"'))
    assert.equal("all|all|nil", gets('{ ["0.0.0.0/0"] = "all" }', '"1.2.3.4", "::ffff:1.2.3.4", "::1"'))
  end)

  it("ignores bits behind a prefix, and takes brackets round an address", function()
    assert.equal("x|y", gets('{ ["10.1.2.3/8"] = "x", ["2001:db8::1/32"] = "y" }', '"10.9.9.9", "[2001:db8::9]"'))
  end)

  it("is empty of an empty table", function()
    assert.equal("nil|nil", gets("{}", '"10.0.0.1", "::1"'))
  end)

  it("says of what is no address that it is none", function()
    for _, text in ipairs { "", "x", "10.0.0", "10.0.0.256", "10.0.0.1:80", "unix:", "::1::", "10.0.0.1\\0", "[::1", "010.0.0.1", "1.2.3.04", "1.2.3.", "1.2.3.4.", "1111.2.3.4" } do
      assert.equal("nil|bad_address|the text is no IP address", engine.run(('return gate.cidr { "::/0" }:has "%s"'):format(text)))
      assert.equal("nil|bad_address|the text is no IP address", engine.run(('return gate.cidr { "::/0" }:get "%s"'):format(text)))
    end
    assert.matches("raised: .*string expected", engine.run "return gate.cidr {}:has(1)")
  end)

  it("raises for what is no set", function()
    for set, sentence in pairs {
      ['{ "10.0.0.0/33" }'] = '"10.0.0.0/33" is no prefix', ['{ "unix" }'] = '"unix" is no prefix', ["{ 1 }"] = "not a number",
      ["{ [{}] = 1 }"] = "not a table", ['{ [print] = "10.0.0.0/8" }'] = "not a function", ['"10.0.0.0/8"'] = "table of prefixes",
      ['{ ["10.0.0.0/8"] = 1, ["10.1.0.0/8"] = 2 }'] = "10.0.0.0/8 has two values", ['{ "::1/64", ["::2/64"] = 2 }'] = "::/64 has two values",
      ["nil"] = "table of prefixes", ['{ file = "x" }'] = "not in hooks", ['{ file = "x", "::1" }'] = "names of options",
    } do
      local said = engine.run(("return gate.cidr(%s)"):format(set))
      assert.matches("^raised: ", said)
      assert.truthy(said:find(sentence, 1, true), said)
    end
    assert.matches("raised: .*no field 'x'", engine.run "gate.cidr {}.x = 1")
    assert.matches("raised: .*read%-only", engine.run "gate.cidr {}.bytes = 1")
    assert.matches("raised: .*has no field 'hass' %(did you mean 'has'", engine.run "gate.cidr {}:hass()")
  end)

  -- By hand: the longest of the prefixes that have the address.
  it("agrees with a search through the list", function()
    local script = [[
      local random = 12345
      local function pick(n) random = (random * 1103515245 + 12345) & 0x7fffffff return (random >> 8) %% n end
      local list, table_of = {}, {}
      for i = 1, %d do
        local bits = ({ 0, 1, 5, 6, 7, 8, 12, 15, 16, 17, 18, 22, 24, 25, 30, 31, 32 })[pick(17) + 1]
        local address = (pick(8) << 24 | pick(4) << 16 | pick(256) << 8 | pick(256)) & (0xffffffff << (32 - bits)) & 0xffffffff
        local text = ("%%d.%%d.%%d.%%d/%%d"):format(address >> 24, address >> 16 & 255, address >> 8 & 255, address & 255, bits)
        if not table_of[text] then
          list[#list + 1] = { address = address, bits = bits, value = i }
          table_of[text] = i
        end
      end
      local set, wrong = gate.cidr(table_of), 0
      for _ = 1, %d do
        local ip, best = pick(9) << 24 | pick(5) << 16 | pick(256) << 8 | pick(256), nil
        for _, p in ipairs(list) do
          if (ip ~ p.address) >> (32 - p.bits) == 0 and (not best or p.bits > best.bits) then best = p end
        end
        local found = set:get(("%%d.%%d.%%d.%%d"):format(ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255))
        if found ~= (best and best.value) then wrong = wrong + 1 end
      end
      return wrong, #set == #list]]
    for _, size in ipairs { { 20, 500 }, { 300, 500 }, { 4000, 200 } } do
      assert.equal("0|true", engine.run(script:format(size[1], size[2]), { hook_cpu = 20 }))
    end
  end)

  it("says how many bytes it holds, a few for each prefix", function()
    local bytes = tonumber(engine.run([[
      local list = {}
      for i = 0, 9999 do list[i + 1] = ("10.%d.%d.0/24"):format(i // 256, i % 256) end
      return gate.cidr(list).bytes]], { hook_cpu = 5 }))
    assert.is_true(bytes < (1 << 18) + 10000 * 16, bytes)
  end)

  it("walks IPv6 down to the last bit", function()
    local script = [[
      local t = {}
      for bits = 0, 128 do t["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/" .. bits] = bits end
      local set, wrong = gate.cidr(t), 0
      for first = 0, 127 do
        local groups = {}
        for g = 0, 7 do
          local group = 0xffff
          if first // 16 == g then group = 0xffff & ~(1 << (15 - first % 16)) end
          groups[g + 1] = ("%x"):format(group)
        end
        if set:get(table.concat(groups, ":")) ~= first then wrong = wrong + 1 end
      end
      return wrong, set:get "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]]
    assert.equal("0|128", engine.run(script))
  end)

  describe("of a file", function()
    local function script(file)
      return ([[
        local gate = require "moongate"
        local set = gate.cidr { file = %q }
        return { on_request = function(req)
          local said = {}
          for i, ip in ipairs { "10.0.0.1", "10.1.0.1", "192.0.2.1", "2001:db8::1", "8.8.8.8" } do said[i] = tostring(set:get(ip)) end
          return gate.reply(200, #set .. " " .. table.concat(said, "|"))
        end }
      ]]):format(file)
    end

    it("has a prefix a line, perhaps a value, and comments", function()
      local state = engine.open(script "nets.lua", { modules = { nets =
        "# comment\n\n10.0.0.0/8 the office # here\r\n  10.1.0.0/16\tlab;1\n192.0.2.0/24 ; bare\n192.0.2.0/24\n2001:db8::/32 the office" } })
      assert.equal("reply 200 4 the office|lab;1|true|the office|nil", engine.answer(state, "on_request"))
    end)

    it("is made once for all states of one content", function()
      local before = core.store.prefix.tables()
      local nets = { modules = { nets = "10.0.0.0/8 a\n" } }
      local first, second = engine.open(script "nets.lua", nets), engine.open(script "nets.lua", nets)
      assert.equal(before + 1, core.store.prefix.tables())
      engine.open(script "nets.lua", { modules = { nets = "10.0.0.0/8 b\n" } })
      assert.equal(before + 2, core.store.prefix.tables())
      assert.equal(engine.answer(first, "on_request"), engine.answer(second, "on_request"))
    end)

    it("fails the load with the place in the config and in the file", function()
      local _, errors = engine.load(script "nets.lua", { modules = { nets = "10.0.0.0/8\n10.0.0.0/33 x\n\nfoo\nbar\n" } })
      assert.truthy(errors:find('config.lua:2: gate.cidr: nets.lua: line 2: "10.0.0.0/33" is no prefix (and 2 more)', 1, true), errors)
      _, errors = engine.load(script "nets.lua", { modules = { nets = "10.0.0.0/8 a\n10.0.0.0/8 b" } })
      assert.truthy(errors:find("config.lua:2: gate.cidr: nets.lua: a prefix has two values", 1, true), errors)
      _, errors = engine.load(script "nowhere.txt")
      assert.truthy(errors:find("config.lua:2: gate.cidr: nowhere.txt: no such file", 1, true), errors)
      _, errors = engine.load(script "/")
      assert.truthy(errors:find("config.lua:2: gate.cidr: /: not a regular file", 1, true), errors)
    end)

    support.it("is told by moongate check", function()
      local dir = support.temp_dir(true)
      support.process.write_file(dir .. "/nets.txt", "10.0.0.0/8\nno net\n")
      support.process.write_file(dir .. "/site.lua",
        'local gate = require "moongate"\nlocal nets = gate.cidr { file = "nets.txt" }\nreturn { listen = 8080, on_request = 200 }\n')
      local status, _, err = support.moongate.run { "check", dir .. "/site.lua" }
      assert.equal(1, status)
      assert.truthy(err:find('site.lua:2: gate.cidr: nets.txt: line 2: "no" is no prefix', 1, true), err)
    end)
  end)
end)
