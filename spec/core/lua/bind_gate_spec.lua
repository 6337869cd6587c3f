-- The small functions of gate: log, hash, equal, base64, now, clock, version, backend.

local support = require "support"
local probe = require "core.lua.probe"
local it = support.it

describe("gate", function()
  support.setup(probe.start)

  it("has a version", function()
    assert.truthy(probe.request("return gate.version"):find "^%d+%.%d+%.%d+")
  end)

  describe("log", function()
    it("writes a line with the place in the script and the id of the request", function()
      local id = probe.request "gate.log 'hello log' return req.id"
      probe.proxy:wait_log("info .*on_request:1: hello log %(request " .. id .. "%)")
    end)

    it("takes a level and joins what follows", function()
      probe.request [[
        gate.log("warn", "a", 1, nil, true, setmetatable({}, { __tostring = function() return "mine" end }))
        return "x"
      ]]
      probe.proxy:wait_log "warn .*a 1 nil true mine"
    end)

    it("cannot be used to forge lines or speak to a terminal", function()
      probe.request "gate.log('info', 'one\\n2026-01-01T00:00:00.000Z error forged\\27[31m') return 'x'"
      probe.proxy:wait_log "^%s+2026%-01%-01T00:00:00.000Z error forged%?%[31m"
    end)

    it("cuts what is too long", function()
      assert.equal("x", probe.request "gate.log(('long '):rep(100000)) return 'x'")
    end)

    it("refuses levels that are none", function()
      probe.raises("a level expected", "gate.log('fatal', 'x')")
      probe.raises("a level expected", "gate.log({}, 'x')")
      probe.raises("a value expected", "gate.log()")
      probe.raises("__tostring", "gate.log(setmetatable({}, { __tostring = function() return {} end }))")
    end)
  end)

  describe("hash", function()
    it("is the same in every process", function()
      local of_nothing = 0xef46db3751d8e999 & math.maxinteger -- XXH64
      assert.equal(tostring(of_nothing), probe.request "return gate.hash ''")
    end)

    it("is not negative", function()
      assert.equal("true", probe.request "for i = 1, 1000 do assert(gate.hash(i) >= 0) end return true")
    end)

    it("takes 1 and 1.0 for one, nil for empty text, and tells booleans apart", function()
      assert.equal("true|true|true|true", probe.request [[
        local h = gate.hash
        return h(1) == h(1.0), h(nil) == h "", h() == h "", h(true) ~= h(false)
      ]])
      assert.equal("3", probe.request "return #{ gate.hash(0/0), gate.hash(1/0), gate.hash(math.mininteger) }")
    end)

    it("refuses what has no text", function()
      for _, value in ipairs { "{}", "print", "req", "coroutine.create(print)" } do
        probe.raises("string, number, boolean or nil expected", ("gate.hash(%s)"):format(value))
      end
    end)
  end)

  describe("equal", function()
    it("compares strings", function()
      assert.equal("true|false|false|true|false", probe.request [[
        local e = gate.equal
        return e("ab", "ab"), e("ab", "ac"), e("ab", "abc"), e("", ""), e("a\0b", "a\0c")
      ]])
    end)

    it("takes nil for equal to nothing", function()
      local script = "return gate.equal(nil, 'a'), gate.equal('a', nil), gate.equal(nil, nil)"
      assert.equal("false|false|false", probe.request(script))
    end)

    it("refuses other types", function()
      probe.raises("string or nil expected", "gate.equal(1, '1')")
      probe.raises("string or nil expected", "gate.equal('1', {})")
    end)
  end)

  describe("base64", function()
    local pairs_of = {
      [""] = "", ["f"] = "Zg==", ["fo"] = "Zm8=", ["foo"] = "Zm9v", ["foob"] = "Zm9vYg==", ["fooba"] = "Zm9vYmE=",
      ["foobar"] = "Zm9vYmFy",
    }

    it("encodes and decodes as RFC 4648 says", function()
      for text, code in pairs(pairs_of) do
        local script = "return gate.base64.encode('%s'), gate.base64.decode('%s')"
        assert.equal(code .. "|" .. text, probe.request(script:format(text, code)))
      end
      assert.equal("true", probe.request [[
        local all = {}
        for i = 0, 255 do all[i + 1] = string.char(i) end
        all = table.concat(all)
        return gate.base64.decode(gate.base64.encode(all)) == all
      ]])
    end)

    it("refuses every other text for a value", function()
      local none = {
        "Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "====", "Z===", "=", "Zg==Zg==", "Zm 9v", "Zm9v\\n", "Zm-_",
        "Zm9\\0", "ü",
      }
      for _, code in ipairs(none) do
        local script = "local text, word = gate.base64.decode('%s') return text, word"
        assert.equal("nil|bad_base64", probe.request(script:format(code)))
      end
    end)

    it("refuses other types, and what is too long", function()
      probe.raises("string expected", "gate.base64.encode(nil)")
      probe.raises("string expected", "gate.base64.decode(5)")
      probe.raises("string expected", "gate.base64.decode({})")
      probe.raises("4 MiB", "gate.base64.encode(('x'):rep((4 << 20) + 1))")
    end)

    it("cannot be changed by a script", function()
      assert(probe.request("gate.base64.encode = print"):find "^raised")
      assert(probe.request("gate.reply = print"):find "^raised")
    end)
  end)

  describe("now and clock", function()
    it("tell the time, and never go back", function()
      local now = tonumber(probe.request "return gate.now()")
      assert(math.abs(now - os.time()) < 5)
      assert.equal("true|float", probe.request [[
        local began = gate.clock()
        gate.sleep(0.01)
        local passed = gate.clock() - began
        return passed >= 0.009 and passed < 5, math.type(began)
      ]])
    end)
  end)

  describe("backend", function()
    it("shows the servers", function()
      assert.equal("app|1|" .. probe.backend.address .. "|" .. probe.backend.address .. "|true|0|1", probe.request [[
        local b = gate.backend "app"
        local s = b.servers[1]
        return b.name, #b.servers, s.name, s.address, s.healthy, s.active, s.weight
      ]])
      assert.equal("one|3", probe.request "local s = gate.backend('other').servers[1] return s.name, s.weight")
    end)

    it("counts requests under way", function()
      local text
      probe.answer = function()
        text = probe.request "return gate.backend('app').servers[1].active"
        return 200, nil, "x"
      end
      probe.exchange {}
      probe.answer = "from the backend"
      assert.equal("1", text)
    end)

    it("may be kept", function()
      probe.request "upvalue.backend = gate.backend 'app'"
      assert.equal("app|1", probe.request "return upvalue.backend.name, #upvalue.backend.servers")
    end)

    it("refuses what is none", function()
      probe.raises("there is no backend 'nope'", "gate.backend 'nope'")
      probe.raises("string expected", "gate.backend()")
      probe.raises("string expected", "gate.backend {}")
      probe.raises("1 to 256", "gate.backend ''")
      probe.raises("did you mean 'name'", "return gate.backend('app').nam")
      probe.raises("read-only", "gate.backend('app').name = 'x'")
    end)
  end)
end)
