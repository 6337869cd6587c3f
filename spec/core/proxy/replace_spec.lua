-- Replacing in a stream, by itself: whatever the borders, the same as in the whole.

local coding = require("moongate_core").coding

-- Leftmost, then longest; what was put in is not looked at again.
local function naive(pairs_of, text)
  local out, i = {}, 1
  while i <= #text do
    local best
    for _, pair in ipairs(pairs_of) do
      if text:sub(i, i + #pair[1] - 1) == pair[1] and (not best or #pair[1] > #best[1]) then best = pair end
    end
    out[#out + 1] = best and best[2] or text:sub(i, i)
    i = i + (best and #best[1] or 1)
  end
  return table.concat(out)
end

-- The same at every step and in one.
local function replaced(pairs_of, text)
  local whole = coding.replace(pairs_of, text)
  for step = 1, math.min(#text, 40) do assert.equal(whole, coding.replace(pairs_of, text, step)) end
  assert.equal(naive(pairs_of, text), whole)
  return whole
end

describe("replacing", function()
  it("puts one text in the place of another, wherever it stands", function()
    assert.equal("one two one", replaced({ { "1", "one" } }, "1 two 1"))
    assert.equal("https://a/ https://b/", replaced({ { "http:", "https:" } }, "http://a/ http://b/"))
    assert.equal("", replaced({ { "abc", "" } }, "abcabc"))
    assert.equal("abab", replaced({ { "abc", "x" } }, "abab"))
  end)

  it("looks at nothing twice", function()
    assert.equal("aaaa", replaced({ { "a", "aa" } }, "aa"))
    assert.equal("xa", replaced({ { "aa", "x" } }, "aaa"))
    assert.equal("ba", replaced({ { "a", "b" }, { "b", "a" } }, "ab"))
  end)

  it("finds what begins within what did not match", function()
    assert.equal("aX", replaced({ { "aab", "X" } }, "aaab"))
    assert.equal("abX", replaced({ { "abac", "X" } }, "ababac"))
    assert.equal("nanX", replaced({ { "nano", "X" } }, "nannano"))
  end)

  it("takes the leftmost of several, and there the longest", function()
    assert.equal("L", replaced({ { "ab", "s" }, { "abcd", "L" } }, "abcd"))
    assert.equal("sce", replaced({ { "ab", "s" }, { "abcd", "L" } }, "abce"))
    assert.equal("xd", replaced({ { "abc", "x" }, { "bcd", "y" } }, "abcd"))
    assert.equal("s", replaced({ { "ab", "s" }, { "abcd", "L" } }, "ab"))
    assert.equal("sc", replaced({ { "ab", "s" }, { "abcd", "L" } }, "abc"))
  end)

  it("passes on what may begin one when the end shows that it does not", function()
    assert.equal("hell", replaced({ { "hello", "x" } }, "hell"))
    assert.equal("a<", replaced({ { "<b>", "x" }, { "<i>", "y" } }, "a<"))
  end)

  it("keeps to a thousand random texts what it does to the whole", function()
    local seed = 7
    local function random(n)
      seed = (seed * 1103515245 + 12345) & 0x7fffffff
      return (seed >> 8) % n + 1
    end
    local function text(most)
      local out = {}
      for i = 1, random(most) do out[i] = ("abc"):sub(random(3)):sub(1, 1) end
      return table.concat(out)
    end
    for _ = 1, 1000 do
      local list, seen = {}, {}
      for _ = 1, random(4) do
        local from = text(4)
        if not seen[from] then list[#list + 1] = { from, ("xyz"):rep(random(3) - 1) } end
        seen[from] = true
      end
      local content = text(60)
      local expected = naive(list, content)
      for _, step in ipairs { 1, 2, 3, 7, 1000 } do assert.equal(expected, coding.replace(list, content, step)) end
    end
  end)

  it("takes long texts and many of them", function()
    local long = ("0123456789"):rep(400)
    local content = ("-"):rep(20000) .. long .. ("-"):rep(20000) .. long:sub(1, -2)
    local expected = ("-"):rep(20000) .. "X" .. ("-"):rep(20000) .. long:sub(1, -2)
    assert.equal(expected, coding.replace({ { long, "X" } }, content))
    local list = {}
    for i = 1, 256 do list[i] = { ("<%03d>"):format(i), tostring(i) } end
    assert.equal("1 2 256 <257>", coding.replace(list, "<001> <002> <256> <257>", 1))
  end)

  it("grows by any factor", function()
    local to = ("y"):rep(50000)
    assert.equal(to:rep(20), coding.replace({ { "x", to } }, ("x"):rep(20)))
  end)
end)
