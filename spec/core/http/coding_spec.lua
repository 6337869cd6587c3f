-- Content codings by themselves: whole, cut everywhere, with little room, broken, and as other programs write them.

local support = require "support"
local it = support.it
local coding = require("moongate_core").coding

local names = { "gzip", "deflate", "br", "zstd" }

local function text_of(n)
  local parts = {}
  for i = 1, n do parts[i] = ("line %d of %d: %x\n"):format(i, n, (i * 2654435761) & 0xffffffff) end
  return table.concat(parts)
end

describe("a content coding", function()
  it("is read as it is written, however both are cut", function()
    for _, name in ipairs(names) do
      for _, text in ipairs { "", "x", "hello, hello, hello", text_of(200), ("\0"):rep(5000) } do
        local whole = coding.encode(name, text)
        for _, options in ipairs { {}, { step = 1 }, { step = 7, room = 1 }, { room = 3 } } do
          assert.same({ "done", text }, { coding.decode(name, whole, options) })
          local cut = coding.encode(name, text, options)
          assert.same({ "done", text }, { coding.decode(name, cut) })
        end
      end
    end
  end)

  it("is read at any border", function()
    local text = text_of(4)
    for _, name in ipairs(names) do
      local bytes = coding.encode(name, text)
      for step = 1, #bytes do assert.same({ "done", text }, { coding.decode(name, bytes, { step = step }) }) end
    end
  end)

  it("has levels that shrink text", function()
    local text = text_of(3000)
    for _, name in ipairs(names) do
      for level = 1, 9 do
        local bytes = coding.encode(name, text, { level = level })
        assert.is_true(#bytes < #text / 2)
        assert.same({ "done", text }, { coding.decode(name, bytes) })
      end
    end
  end)

  it("is broken when it is cut short, anywhere", function()
    for _, name in ipairs(names) do
      local bytes = coding.encode(name, text_of(3))
      for n = 1, #bytes - 1 do assert.equal("broken", (coding.decode(name, bytes:sub(1, n)))) end
    end
  end)

  it("is broken when something follows it, or a byte of its checksum is wrong", function()
    for _, name in ipairs(names) do
      local bytes = coding.encode(name, text_of(3))
      assert.equal("broken", (coding.decode(name, bytes .. "x")))
      assert.equal("broken", (coding.decode(name, bytes .. "x", { step = 1 })))
      assert.equal("broken", (coding.decode(name, "nonsense of some length")))
    end
    local bytes = coding.encode("gzip", "text")
    assert.equal("broken", (coding.decode("gzip", bytes:sub(1, -8) .. "x" .. bytes:sub(-6))))
  end)

  it("of no bytes at all is an empty content", function()
    for _, name in ipairs(names) do assert.same({ "done", "" }, { coding.decode(name, "") }) end
  end)

  it("may have several members, one after the other", function()
    for _, name in ipairs { "gzip", "zstd" } do
      local bytes = coding.encode(name, "first ") .. coding.encode(name, "second ") .. coding.encode(name, "third")
      for _, options in ipairs { {}, { step = 1 }, { step = 3, room = 2 } } do
        assert.same({ "done", "first second third" }, { coding.decode(name, bytes, options) })
      end
    end
  end)

  it("is read as raw deflate, too, where that is what comes as deflate", function()
    local raw = coding.encode("deflate", "hello, hello"):sub(3, -5)
    assert.same({ "done", "hello, hello" }, { coding.decode("deflate", raw) })
    assert.same({ "done", "hello, hello" }, { coding.decode("deflate", raw, { step = 1 }) })
  end)

  it("ends as a bomb beyond what is allowed", function()
    for _, name in ipairs(names) do
      local bytes = coding.encode(name, ("x"):rep(100001))
      assert.equal("bomb", (coding.decode(name, bytes, { most = 100000 })))
      assert.equal("done", (coding.decode(name, bytes, { most = 100001 })))
    end
  end)

  it("ends as a bomb when it is much larger than it came, and not for being well compressed", function()
    for _, name in ipairs(names) do
      assert.equal("bomb", (coding.decode(name, coding.encode(name, ("\0"):rep(32 << 20), { level = 9 }))))
      assert.equal("done", (coding.decode(name, coding.encode(name, ("\0"):rep(4 << 20), { level = 9 }))))
      local often = text_of(10):rep(20000)
      local shrunk = coding.encode(name, often, { level = 1 })
      if #often / #shrunk < 200 then assert.equal("done", (coding.decode(name, shrunk))) end
    end
  end)

  it("is what gzip writes, and gzip reads what is written here", function()
    local text = text_of(500)
    local _, packed = support.run({ "gzip", "-c" }, { stdin = text })
    assert.same({ "done", text }, { coding.decode("gzip", packed) })
    local _, unpacked = support.run({ "gzip", "-dc" }, { stdin = coding.encode("gzip", text, { step = 100 }) })
    assert.equal(text, unpacked)
  end)
end)

describe("Content-Encoding", function()
  local function of(...)
    local fields = {}
    for i, value in ipairs { ... } do fields[i] = { "Content-Encoding", value } end
    return coding.of(fields)
  end

  it("names one coding, in any case, or identity", function()
    assert.equal("identity", of())
    assert.equal("identity", of "identity")
    assert.equal("identity", of "")
    assert.equal("gzip", of "GZip")
    assert.equal("gzip", of "x-gzip")
    assert.equal("br", of "identity, br")
    assert.equal("zstd", of("", "zstd"))
  end)

  it("is unknown for another, and for one on top of another", function()
    assert.equal("unknown", of "compress")
    assert.equal("unknown", of "gzip, br")
    assert.equal("unknown", of("gzip", "gzip"))
    assert.equal("unknown", of "aes128gcm, gzip")
  end)
end)

describe("Accept-Encoding", function()
  local offered = { "zstd", "br", "gzip" }
  local function chosen(value)
    return coding.negotiate(value and { { "Accept-Encoding", value } } or {}, offered)
  end

  it("chooses the highest weight, and of equal ones the first offered", function()
    assert.equal("zstd", chosen "gzip, deflate, br, zstd")
    assert.equal("br", chosen "gzip, br")
    assert.equal("gzip", chosen "gzip, br;q=0.9, zstd;q=0.1")
    assert.equal("br", chosen "gzip;q=0.3,br ; Q=0.301")
    assert.equal("gzip", chosen "GZIP")
  end)

  it("chooses none without the field, for none that is offered, or for a weight of 0", function()
    for _, value in ipairs { "", "deflate", "identity", "gzip;q=0", "gzip;q=0.000, *;q=0", "compress;q=1" } do
      assert.equal("identity", chosen(value))
    end
    assert.equal("identity", chosen(nil))
  end)

  it("takes * for all that are not named", function()
    assert.equal("zstd", chosen "*")
    assert.equal("br", chosen "*;q=0.5, zstd;q=0")
    assert.equal("gzip", chosen "gzip, *;q=0.1")
  end)

  it("leaves it alone where identity is liked better", function()
    assert.equal("identity", chosen "identity, gzip;q=0.5")
    assert.equal("gzip", chosen "identity;q=0.5, gzip;q=0.5")
    assert.equal("gzip", chosen "identity;q=0, gzip;q=0.1")
  end)

  it("counts what is no weight as 0", function()
    for _, weight in ipairs { "2", "1.5", "0.1234", "x", "", "-1", ".5", "1.001" } do
      assert.equal("identity", chosen("gzip;q=" .. weight))
    end
  end)
end)
