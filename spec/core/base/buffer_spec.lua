-- Buffers against a model: whatever is done to them, they hold the bytes a plain Lua string would.

local core = require "moongate_core"
local buffer = core.buffer

local CHUNK, COPY = buffer.CHUNK_BYTES, buffer.COPY_BELOW

-- Text that differs everywhere, so that a byte at a wrong place shows.
local function text_of(n, from)
  local out, seed = {}, from or 0
  for i = 1, n do
    seed = (seed * 1103515245 + 12345) % 2147483648
    out[i] = string.char(33 + seed // 65536 % 90)
  end
  return table.concat(out)
end

local function pattern(from, n)
  local out = {}
  for i = 0, n - 1 do out[i + 1] = string.char((from + i) & 255) end
  return table.concat(out)
end

describe("a buffer", function()
  before_each(collectgarbage) -- what other specs left behind counts as held

  it("is empty at first", function()
    local b = buffer.new()
    assert.equal(0, b:size())
    assert.equal("", (b:text()))
    assert.equal("", b:front())
    b:fini()
    b:fini()
  end)

  it("keeps bytes in order over chunk borders", function()
    local b, all = buffer.new(), text_of(CHUNK * 3 + 17)
    b:append(all)
    assert.equal(all, (b:text()))
    assert.equal(#all, b:size())
    assert.equal(all:sub(1, CHUNK), b:front())
  end)

  it("gathers what lies in pieces", function()
    local b, all = buffer.new(), text_of(CHUNK * 2 + 5)
    b:append(all)
    assert.equal(all:sub(1, CHUNK + 1), b:gather(CHUNK + 1))
    assert.equal(all:sub(1, CHUNK + 1), b:front():sub(1, CHUNK + 1))
    assert.equal(all, (b:text()))
    assert.equal(all, b:gather(#all))
    assert.equal("", b:gather(0))
  end)

  it("drops to the last byte and can be used again", function()
    local b = buffer.new()
    b:append(text_of(CHUNK + 3))
    b:drop(CHUNK)
    b:drop(3)
    assert.equal(0, b:size())
    b:append("again")
    assert.equal("again", (b:text()))
  end)

  it("gives room of any size and takes what was written", function()
    local b = buffer.new()
    for _, n in ipairs { 1, 10, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * 5 } do
      local before, text = b:text(), text_of(n // 2, n)
      b:room(n, text)
      assert.equal(before .. text, (b:text()))
    end
  end)

  it("gives vectors of room and takes back what was not read", function()
    local b = buffer.new()
    b:append("x")
    local held = buffer.chunk_bytes()
    local read, count = b:read(8, CHUNK * 3, "hello")
    assert.equal(5, read)
    assert.is_true(count > 1)
    assert.equal("xhello", (b:text()))
    assert.equal(held, buffer.chunk_bytes())
    assert.equal(0, (b:read(4, 100, "")))
    assert.equal("xhello", (b:text()))
  end)

  it("fills all vectors when so much comes", function()
    local b, all = buffer.new(), text_of(CHUNK * 3)
    b:append("x")
    local read = b:read(4, CHUNK * 3, all)
    assert.equal(#all, read)
    assert.equal("x" .. all, (b:text()))
  end)

  it("does not mind room that nobody committed", function()
    local b = buffer.new()
    b:forget_room(10)
    b:append("a")
    b:forget_room(CHUNK * 2)
    b:append("b")
    b:forget_room(5)
    local to = buffer.new()
    to:forget_room(5)
    to:move(b, 1)
    b:forget_room(5)
    to:share(b)
    assert.equal("ab", (to:text()))
    b:forget_room(5)
    b:drop(1)
    b:forget_room(5)
    b:fini()
  end)

  it("prints what fits nowhere at once", function()
    local b, long = buffer.new(), text_of(5000)
    b:append("a")
    b:printf("short")
    b:printf(long)
    assert.equal("a<short><" .. long .. ">", (b:text()))
  end)

  it("points at static bytes only when they are many", function()
    local b = buffer.new()
    local held = buffer.chunk_bytes()
    b:append_static(3, COPY * 2)
    assert.equal(held, buffer.chunk_bytes())
    b:append_static(7, COPY - 1)
    assert.equal(pattern(3, COPY * 2) .. pattern(7, COPY - 1), (b:text()))
  end)

  it("hands a whole segment over without a copy", function()
    local from, to = buffer.new(), buffer.new()
    from:append(text_of(100))
    local held = buffer.chunk_bytes()
    to:move(from, 100)
    assert.equal(held, buffer.chunk_bytes())
    assert.equal(text_of(100), (to:text()))
    assert.equal(0, from:size())
  end)

  it("shares large pieces and copies small ones", function()
    local from, to = buffer.new(), buffer.new()
    local text = text_of(COPY * 2)
    from:append(text)
    local held = buffer.chunk_bytes()
    to:share(from)
    if COPY * 2 <= CHUNK then assert.equal(held, buffer.chunk_bytes()) end
    from:append("more")
    to:append("other")
    assert.equal(text .. "more", (from:text()))
    assert.equal(text .. "other", (to:text()))
  end)

  it("never lets two buffers that share a chunk write over each other", function()
    local a, b, c = buffer.new(), buffer.new(), buffer.new()
    local text = text_of(COPY)
    a:append(text)
    b:share(a)
    c:share(b)
    a:append("a")
    b:append("b")
    c:append("c")
    a:append("A")
    assert.equal(text .. "aA", (a:text()))
    assert.equal(text .. "b", (b:text()))
    assert.equal(text .. "c", (c:text()))
  end)

  it("holds little more than the bytes when a peer sends one at a time", function()
    local from, to = buffer.new(), buffer.new()
    local before = buffer.chunk_bytes()
    local n = 4000
    for _ = 1, n do
      from:read(1, CHUNK, "x")
      to:move(from, 1)
    end
    assert.equal(("x"):rep(n), (to:text()))
    assert.is_true(buffer.chunk_bytes() - before <= 2 * n + 2 * CHUNK)
  end)

  it("holds little more than the bytes when content and framing alternate", function()
    local from, to = buffer.new(), buffer.new()
    local before = buffer.chunk_bytes()
    local n = 5000
    for _ = 1, n do
      from:append("1\r\nX\r\n")
      from:drop(3)
      to:move(from, 1)
      from:drop(2)
    end
    assert.equal(("X"):rep(n), (to:text()))
    assert.is_true(buffer.chunk_bytes() - before <= 2 * n + 2 * CHUNK)
  end)

  it("gives all memory back", function()
    collectgarbage()
    local before = buffer.chunk_bytes()
    local a, b = buffer.new(), buffer.new()
    a:append(text_of(CHUNK * 4))
    b:share(a)
    b:move(a, CHUNK + 1)
    a:fini()
    b:fini()
    assert.equal(before, buffer.chunk_bytes())
    buffer.thread_fini()
  end)
end)

-- Random operations on a few buffers and as many strings. Seeds are fixed: a failure can be played again.
local operations = {
  function(b, model, random)
    local text = text_of(random(0, random(4) == 1 and CHUNK * 2 or 300), random(1000000))
    b:append(text)
    return model .. text
  end,
  function(b, model, random)
    local from = random(0, 200)
    local n = random(0, random(3) == 1 and COPY * 3 or 20)
    b:append_static(from, n)
    return model .. pattern(from, n)
  end,
  function(b, model, random)
    local want = random(1, CHUNK * 2)
    local text = text_of(random(0, want), random(1000000))
    b:room(want, text)
    return model .. text
  end,
  function(b, model, random)
    local text = text_of(random(0, random(3) == 1 and CHUNK * 3 or 100), random(1000000))
    local read = b:read(random(1, 8), random(1, CHUNK * 3), text)
    return model .. text:sub(1, read)
  end,
  function(b, model, random)
    local n = random(0, #model)
    b:drop(n)
    return model:sub(n + 1)
  end,
  function(b, model, random)
    local n = random(0, random(2) == 1 and #model or math.min(#model, 50))
    assert.equal(model:sub(1, n), b:gather(n))
    return model
  end,
  function(b, model, random)
    b:forget_room(random(1, CHUNK * 2))
    return model
  end,
}

local function run(seed, steps)
  local state = seed
  local function random(low, high)
    if not high then low, high = 1, low end
    state = (state * 6364136223846793005 + 1442695040888963407)
    return low + (state >> 33) % (high - low + 1)
  end
  local buffers, models = {}, {}
  for i = 1, 3 do buffers[i], models[i] = buffer.new(), "" end
  for step = 1, steps do
    local i, kind = random(3), random(#operations + 4)
    local j = i % 3 + 1
    if operations[kind] then
      models[i] = operations[kind](buffers[i], models[i], random)
    elseif kind == #operations + 1 and #models[j] < 100000 then
      buffers[j]:share(buffers[i])
      models[j] = models[j] .. models[i]
    else
      local n = random(0, random(2) == 1 and #models[i] or math.min(#models[i], 64))
      buffers[j]:move(buffers[i], n)
      models[j], models[i] = models[j] .. models[i]:sub(1, n), models[i]:sub(n + 1)
    end
    for k = 1, 3 do
      if #models[k] > 200000 then
        buffers[k]:drop(#models[k])
        models[k] = ""
      end
      assert(buffers[k]:size() == #models[k], ("seed %d, step %d: size"):format(seed, step))
      assert((buffers[k]:text()) == models[k], ("seed %d, step %d: bytes"):format(seed, step))
    end
  end
  for k = 1, 3 do
    assert.equal(models[k]:sub(1, 100), buffers[k]:peek(math.min(100, #models[k])))
    buffers[k]:fini()
  end
end

describe("finding a byte in a buffer", function()
  it("gives its place in whichever segment it lies, and the size when there is none", function()
    local b = buffer.new()
    assert.equal(0, b:find("x", 0))
    b:append "ab\n"
    b:append_static(65, 10) -- a segment of its own: "A" to "J"
    b:append "\nz"
    assert.equal(2, b:find("\n", 0))
    assert.equal(2, b:find("\n", 2))
    assert.equal(13, b:find("\n", 3))
    assert.equal(12, b:find("J", 4))
    assert.equal(14, b:find("z", 14))
    assert.equal(15, b:find("z", 15))
    assert.equal(15, b:find("?", 0))
    assert.equal(15, b:find("a", 1000))
    b:drop(3)
    assert.equal(10, b:find("\n", 0))
    b:fini()
  end)
end)

describe("random operations on buffers", function()
  for seed = 1, 40 do
    it("leave the bytes that strings would hold, seed " .. seed, function()
      collectgarbage()
      local before = buffer.chunk_bytes()
      run(seed * 7919, 150)
      assert.equal(before, buffer.chunk_bytes())
    end)
  end
end)
