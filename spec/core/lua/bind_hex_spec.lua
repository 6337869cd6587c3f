-- gate.hex and gate.uuid.

local engine = require "core.lua.engine"

describe("gate.hex", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("writes lower case and reads either", function()
    assert.equal("00ff6d6f6f6e|true|", engine.run [[
      return gate.hex.encode "\0\255moon", gate.hex.decode "00FF6d6F6f6e" == "\0\255moon", gate.hex.encode ""]])
  end)

  it("refuses what is no hex, with a word", function()
    for _, text in ipairs { "0", "0g", " 00", "0x00" } do
      assert.matches("^nil|bad_hex|", engine.run(("return gate.hex.decode %q"):format(text)))
    end
    assert.matches("raised: .*string expected", engine.run "return gate.hex.encode(1)")
    assert.matches("raised: .*longer than 4 MiB", engine.run("return gate.hex.encode(('x'):rep((4 << 20) + 1))"))
  end)
end)

describe("gate.uuid", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  local form = "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-([47])%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$"

  it("is of version 4 unless 7 is asked for (RFC 9562)", function()
    assert.equal("4", engine.run("return gate.uuid()"):match(form))
    assert.equal("4", engine.run("return gate.uuid(4)"):match(form))
    assert.equal("7", engine.run("return gate.uuid(7)"):match(form))
    assert.matches("raised: .*4 or 7", engine.run "return gate.uuid(1)")
  end)

  it("does not repeat, across refills of the store of randomness", function()
    assert.equal("1000", engine.run [[
      local seen, count = {}, 0
      for _ = 1, 1000 do
        local id = gate.uuid()
        if not seen[id] then seen[id], count = true, count + 1 end
      end
      return count]])
  end)

  it("of version 7 ascends, and carries the time", function()
    assert.equal("true|true", engine.run [[
      local last, ascends = "", true
      for _ = 1, 1000 do
        local id = gate.uuid(7)
        ascends, last = ascends and id > last, id
      end
      local ms = tonumber(last:sub(1, 8) .. last:sub(10, 13), 16)
      return ascends, math.abs(ms / 1000 - gate.now()) < 5]])
  end)
end)
