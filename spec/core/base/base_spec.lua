-- The small things of core/base: slices, arena, slab, list, failures, errors, log, must, clock, randomness.

local base = require "moongate_core".base

-- Runs Lua code in another process that has the module; returns what it wrote to stdout and stderr, and how it ended.
local function in_child(code)
  local name = os.tmpname()
  local file = assert(io.open(name, "w"))
  file:write(("package.cpath = %q\nlocal base = require 'moongate_core'.base\n%s\n"):format(package.cpath, code))
  file:close()
  local pipe = assert(io.popen(("LD_PRELOAD=%s lua5.4 %s 2>&1"):format(os.getenv "MOONGATE_PRELOAD" or "", name)))
  local out = pipe:read "a"
  local ok, how, number = pipe:close()
  os.remove(name)
  return out, ok, how, number
end

describe("slices", function()
  it("read decimal digits and nothing else", function()
    assert.equal(0, base.to_u64 "0")
    assert.equal(42, base.to_u64 "0042")
    assert.equal(-1, base.to_u64 "18446744073709551615")
    for _, text in ipairs { "", "18446744073709551616", "99999999999999999999", "-1", "+1", " 1", "1 ", "0x1", "1.0",
      "1\0" } do
      assert.is_nil(base.to_u64(text))
    end
  end)

  it("are trimmed of spaces and tabs only", function()
    assert.equal("a b", base.trim " \t a b\t ")
    assert.equal("", base.trim " \t ")
    assert.equal("\r\na", base.trim "\r\na")
  end)

  it("are cut at every separator", function()
    assert.same({ "a", "", "b" }, base.split("a,,b", ","))
    assert.same({ "", "" }, base.split(",", ","))
    assert.same({ "" }, base.split("", ","))
  end)

  it("compare with and without case", function()
    assert.same({ true, true, true, true }, { base.compare("abc", "abc") })
    assert.same({ false, true, false, false }, { base.compare("aBc", "AbC") })
    assert.same({ false, false, true, true }, { base.compare("aba", "a") })
    assert.same({ false, false, true, true }, { base.compare("a", "") })
    assert.same({ false, false, false, false }, { base.compare("", "a") })
  end)
end)

describe("an arena", function()
  it("keeps pieces of every size apart, aligned, and counts them", function()
    math.randomseed(3)
    for _ = 1, 20 do
      local sizes, sum = {}, 0
      for i = 1, 200 do
        sizes[i] = math.random(0, math.random(10) == 1 and 5000 or 100)
        sum = sum + sizes[i]
      end
      local whole, aligned, used, freed = base.arena(sizes)
      assert.is_true(whole)
      assert.is_true(aligned)
      assert.equal(sum, used)
      assert.is_true(freed)
    end
  end)

  it("grows an array and keeps what is in it", function()
    assert.is_true((base.arena_grow(1000, 0)))
    assert.is_true((base.arena_grow(200, 3)))
    assert.is_true((base.arena_grow(1, 0)))
  end)

  it("copies, lowers, joins and prints", function()
    assert.same({ "AbC\0\xc4", "abc\0\xc4", "AbC\0\xc4x" }, { (select(1, base.arena_text("AbC\0\xc4", "x"))),
      (select(2, base.arena_text("AbC\0\xc4", "x"))), (select(3, base.arena_text("AbC\0\xc4", "x"))) })
    assert.equal("abc:42", (select(4, base.arena_text("abc", ""))))
    local long = ("x"):rep(3000)
    assert.equal(long .. ":42", (select(4, base.arena_text(long, ""))))
    assert.equal("", (base.arena_text("", "")))
  end)
end)

describe("a slab", function()
  it("gives distinct objects, zeroed on demand, and keeps no more than it may", function()
    local kept, distinct, zeroed, left = base.slab(4, 10)
    assert.is_true(kept == 4 or kept == 0) -- none are kept under AddressSanitizer and in the hard build
    assert.is_true(distinct)
    assert.is_true(zeroed)
    assert.equal(0, left)
  end)
end)

describe("a list", function()
  it("pushes at both ends, removes twice without harm, splices and pops", function()
    local numbers, first, emptied = base.list()
    assert.same({ 4, 1, 3, 9 }, numbers)
    assert.equal(4, first)
    assert.is_true(emptied)
  end)
end)

describe("the failure table", function()
  it("has a unique word, a sentence and a sensible status in every row", function()
    local seen = {}
    for i, row in ipairs(base.failures()) do
      assert.truthy(row.word:match "^[a-z_]+$")
      assert.is_nil(seen[row.word])
      seen[row.word] = true
      assert.truthy(row.sentence:match "^%l.*[^.]$")
      assert.is_true(i == 1 or row.status == 0 or (row.status >= 400 and row.status <= 599))
      assert.is_true(row.class >= 0 and row.class <= 3)
    end
    assert.is_true(seen.bad_request and seen.client_left)
  end)
end)

describe("errors", function()
  it("print a line each with the parts they have", function()
    local text, any = base.errors {
      { file = "a.lua", line = 3, path = "sites[1].listen", text = "expected a port" },
      { file = "a.lua", text = "no file" },
      { path = "workers", text = "careful", warning = true },
      { text = "bare" },
    }
    assert.equal("a.lua:3: sites[1].listen: expected a port\na.lua: no file\nwarning: workers: careful\nbare\n", text)
    assert.is_true(any)
  end)

  it("are none when all are warnings", function()
    local text, any = base.errors { { text = "x", warning = true } }
    assert.equal("warning: x\n", text)
    assert.is_false(any)
    assert.same({ "", false }, { base.errors {} })
  end)
end)

describe("the log", function()
  it("stamps a line with time, level and place", function()
    local out = in_child [[base.log(0, "it broke") base.log(1, "careful", 3) base.log(3, "unseen")]]
    local stamp = "%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ "
    assert.truthy(out:match("^" .. stamp .. "error %[%d+%] it broke\n" .. stamp .. "warn %[%d+%.3%] careful\n$"))
  end)

  it("lets no text look like a line of its own", function()
    local out = in_child [[base.log(0, "a\nb\27[31m\r\127\n\n")]]
    assert.truthy(out:match "%] a\n    b\\x1b%[31m\\x0d\\x7f\n$")
  end)

  it("writes long texts whole", function()
    local out = in_child [[base.log(0, ("x"):rep(50000) .. "end")]]
    assert.equal(50003, #out:match "%] (x+end)\n$")
  end)

  it("goes on in a new file when that is opened", function()
    local first, second = os.tmpname(), os.tmpname()
    in_child(([[base.log_open(%q, 3) base.log(3, "one") base.log_open(%q, 0) base.log(1, "no") base.log(0, "two")]])
      :format(first, second))
    local function slurp(name)
      local file = assert(io.open(name))
      local text = file:read "a"
      file:close()
      os.remove(name)
      return text
    end
    assert.truthy(slurp(first):match "%] one\n$")
    assert.truthy(slurp(second):match "^[^\n]+%] two\n$")
  end)
end)

describe("must", function()
  it("lets pass what holds", function() base.must(true) end)

  it("names the condition and its place, prints the dumps and aborts", function()
    local out, ok = in_child [[base.must(true, true) base.must(false)]]
    assert.truthy(out:match "bug: must%(.-%) failed at [^\n]*module_base%.c:%d+\nstate: all good\n")
    assert.falsy(ok)
  end)
end)

describe("clocks", function()
  it("never go back", function()
    local before, wall, us, cpu = base.clock()
    assert.is_true(math.abs(wall - os.time()) < 2)
    assert.is_true(math.abs(us / 1e6 - before) < 1)
    for _ = 1, 1000 do
      local now, _, now_us, now_cpu = base.clock()
      assert.is_true(now >= before and now_us >= us and now_cpu >= cpu)
      before, us, cpu = now, now_us, now_cpu
    end
  end)
end)

describe("randomness", function()
  it("does not repeat", function()
    local seen = {}
    for _ = 1, 1000 do
      local bytes, number = base.random(16)
      assert.is_nil(seen[bytes])
      assert.is_nil(seen[number])
      seen[bytes], seen[number] = true, true
    end
  end)
end)
