local core = require "moongate_core"
local map = core.map

describe("a map", function()
  it("finds what was set and nothing else", function()
    local m = map.new()
    assert.is_nil(m:get "a")
    assert.is_nil(m:set("a", 1))
    assert.equal(1, m:get "a")
    assert.equal(1, m:set("a", 2))
    assert.equal(2, m:get "a")
    assert.is_nil(m:get "A")
    assert.is_nil(m:remove "b")
    assert.equal(2, m:remove "a")
    assert.is_nil(m:get "a")
    assert.equal(0, m:count())
  end)

  it("takes any bytes as a key, none included", function()
    local m = map.new()
    for i, key in ipairs { "", "\0", "\0\0", "a\0b", "a", ("x"):rep(10000) } do m:set(key, i) end
    for i, key in ipairs { "", "\0", "\0\0", "a\0b", "a", ("x"):rep(10000) } do assert.equal(i, m:get(key)) end
    assert.equal(6, m:count())
  end)

  for seed = 1, 5 do
    it("does what a Lua table does, seed " .. seed, function()
      local m, model, count = map.new(), {}, 0
      math.randomseed(seed)
      for _ = 1, 20000 do
        local key, action = "k" .. math.random(2000), math.random(3)
        if action == 1 then
          local value = math.random(1 << 40)
          assert.equal(model[key], m:set(key, value))
          if not model[key] then count = count + 1 end
          model[key] = value
        elseif action == 2 then
          assert.equal(model[key], m:remove(key))
          if model[key] then count = count - 1 end
          model[key] = nil
        else
          assert.equal(model[key], m:get(key))
        end
      end
      assert.equal(count, m:count())
      assert.same(model, m:all())
    end)
  end
end)

describe("hashes", function()
  it("are the same for the same bytes in one process", function()
    assert.equal((map.hash "abc"), (map.hash "abc"))
    assert.not_equal((map.hash "abc"), (map.hash "abd"))
    assert.equal(select(3, map.hash "abc"), select(3, map.hash "abc"))
  end)

  it("as digests tell all strings apart, whatever their length", function()
    local seen = {}
    for length = 0, 300 do
      for _, byte in ipairs { "\0", "a" } do
        local digest = select(3, map.hash(byte:rep(length)))
        assert(length == 0 or not seen[digest], length)
        assert.equal(16, #digest)
        seen[digest] = true
      end
    end
  end)

  it("that scripts keep never change", function()
    local _, empty = map.hash ""
    local _, text = map.hash "moongate"
    assert.equal("ef46db3751d8e999", ("%x"):format(empty))
    assert.equal("a553430fee96317b", ("%x"):format(text))
  end)

  it("differ from process to process, digests too", function()
    local seen, n = {}, 0
    for _ = 1, 3 do
      local code = "package.cpath = %q; local a, _, b = require 'moongate_core'.map.hash 'x'"
        .. " local low, high = string.unpack('jj', b) print(a, low, high)"
      local preload = os.getenv "MOONGATE_PRELOAD" or ""
      code = code:gsub("%%q", "[[" .. package.cpath .. "]]")
      local command = ("LD_PRELOAD=%s lua5.4 -e \"%s\""):format(preload, code)
      local pipe = assert(io.popen(command))
      local line = pipe:read "l"
      pipe:close()
      assert.truthy(line)
      for hash in line:gmatch "%S+" do
        if not seen[hash] then seen[hash], n = true, n + 1 end
      end
    end
    assert.equal(9, n)
  end)
end)
