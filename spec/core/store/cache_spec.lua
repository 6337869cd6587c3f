local core = require "moongate_core"
local cache = core.cache

local hard = os.getenv "MOONGATE_PRESET" == "hard"

-- Names of caches are forever, so each test has its own.
local count = 0
local function open(memory, max_object)
  count = count + 1
  return assert(cache.open("site" .. count, memory or 4 << 20, max_object))
end

-- Leads a fill of `key` and stores the draft; the head, its body not yet there.
local function store(c, key, draft, request)
  local turn, fill = cache.join(c, key, request or {}, (cache.look_up(c, key, request)))
  assert.equal("lead", turn)
  draft = draft or {}
  draft.url = draft.url or "http://x/" .. key
  draft.request = request
  return fill:store(draft)
end

-- The same with a whole body.
local function put(c, key, body, draft, request)
  draft = draft or {}
  draft.length = draft.length or #body
  local head = store(c, key, draft, request)
  if not head then return nil end
  assert.equal(#body, head:write(body))
  head:finish()
  return head
end

local function get(c, key, request)
  local head, stale = cache.look_up(c, key, request)
  if not head then return nil, stale end
  local reader = head:reader()
  local text = reader:read()
  assert.is_true(reader:at_end())
  reader:close()
  return text, stale
end

local numbers = {}
for i = 1, 10000 do numbers[i] = i end
numbers = table.concat(numbers, ";")

local function text_of(n, seed)
  local text = ("%s:%s"):format(seed or "t", numbers)
  return text:rep(n // #text + 1):sub(1, n)
end

-- All memory but the tables' comes back when nothing is stored and nobody reads; these heads and readers are let go.
local function assert_empty(c, before, ...)
  for _, object in ipairs { ... } do (object.unref or object.close)(object) end
  collectgarbage()
  collectgarbage()
  cache.purge(c, "all")
  for _ = 1, 2 do cache.sweep(c, 1 << 30) end -- the rest of one round, and another
  local f = cache.figures(c)
  assert.equal(0, f.objects + f.passes)
  assert.equal(before, f.used)
end

describe("a cache", function()
  after_each(function() cache.close_all() end)

  it("is one for all who open it by its name, in the order of their making", function()
    local a = cache.open("a.example", 1 << 20)
    local b = cache.open("b.example", 1 << 20)
    assert.equal(a, cache.open("a.example", 2 << 20))
    assert.equal(a, cache.named "a.example")
    assert.equal(b, cache.named "b.example")
    assert.is_nil(cache.named "c.example")
    assert.same({ "a.example", "b.example" }, cache.sites())
  end)

  it("stores a response and gives it back", function()
    local c = open()
    local before = cache.figures(c).used
    local head = put(c, "k", "hello", {
      status = 203, version = 20, reason = "Fine", url = "https://x.example/a?b",
      headers = { "Content-Type", "text/plain", "X-Own", "1", "ETag", '"v"' }, tags = { "red", "blue", "red" },
    })
    local found, stale = cache.look_up(c, "k")
    assert.is_true(head:same(found))
    assert.is_false(stale)
    local info = found:info()
    assert.equal(203, info.status)
    assert.equal(20, info.version)
    assert.equal("Fine", info.reason)
    assert.equal("k", info.key)
    assert.equal("https://x.example/a?b", info.url)
    assert.same({ "Content-Type", "text/plain", "X-Own", "1", "ETag", '"v"' }, info.headers)
    assert.same({ "red", "blue" }, info.tags)
    assert.equal(1, info.hits)
    assert.equal("hello", (get(c, "k")))
    assert.same({ "whole", 5, 5 }, { found:body() })
    assert.same({ nil, "uri-miss" }, { cache.look_up(c, "other") })
    local f = cache.figures(c)
    assert.same({ 1, 1, 0 }, { f.objects, f.stored, f.evicted })
    assert_empty(c, before, head, found)
  end)

  it("keeps bodies of every length whole", function()
    local c = open(16 << 20)
    local before = cache.figures(c).used
    for _, n in ipairs { 0, 1, 47, 48, 49, 1000, 4096, 16383, 65536, 65537, 300000, 1100000 } do
      for _, known in ipairs { true, false } do
        local key, text = n .. tostring(known), text_of(n, n)
        local head = store(c, key, { length = known and n or -1 })
        local at = 1
        while at <= n do
          local piece = text:sub(at, at + (n // 7))
          assert.equal(#piece, head:write(piece))
          at = at + #piece
        end
        head:finish()
        assert.equal(text, (get(c, key)))
      end
    end
    collectgarbage()
    assert_empty(c, before)
  end)

  it("takes of a body what has arrived, and follows the rest", function()
    local c = open()
    local head = store(c, "k", { length = 10 })
    local reader = head:reader()
    assert.equal("", (reader:peek()))
    assert.is_true(reader:await())
    assert.equal(0, reader:told())
    head:write "hello"
    assert.equal(1, reader:told())
    head:write "."
    assert.equal(1, reader:told()) -- once for each asking
    assert.is_false(reader:await())
    assert.equal("hello.", (reader:read()))
    assert.is_false(reader:at_end())
    local late = cache.look_up(c, "k"):reader(3)
    assert.equal("lo.", (late:read()))
    assert.same({ "arriving", 6, 10 }, { head:body() })
    assert.is_true(reader:await())
    head:write "done"
    assert.equal(2, reader:told())
    assert.equal("done", (reader:read()))
    assert.is_true(reader:await())
    head:finish()
    assert.equal(3, reader:told())
    assert.is_true(reader:at_end())
    assert.is_false(reader:await())
    assert.same({ "whole", 10, 10 }, { head:body() })
  end)

  it("opens readers anywhere in a body", function()
    local c, text = open(8 << 20), text_of(700000)
    local head = put(c, "k", text, { length = -1 })
    for _, at in ipairs { 0, 1, 16367, 16368, 16369, 65536, 699999, 700000 } do
      local reader = head:reader(at)
      assert.equal(text:sub(at + 1), (reader:read()))
      assert.is_true(reader:at_end())
    end
    local reader = head:reader(0)
    reader:skip(#reader:peek() - 1)
    assert.equal(1, #reader:peek())
  end)

  it("lays a body whose length is known in one piece", function()
    if hard then return end
    local c = open(8 << 20)
    for _, n in ipairs { 1, 1000, 64 << 10, 500000 } do
      local _, pieces = put(c, "k" .. n, text_of(n)):reader():read()
      assert.equal(1, pieces)
    end
  end)

  it("never finds a body again that broke off, whose readers get what there is", function()
    local c = open()
    local before = cache.figures(c).used
    local head = store(c, "k", { length = 10 })
    local reader = head:reader()
    head:write "hello"
    assert.equal("h", reader:peek():sub(1, 1))
    head:break_off()
    assert.is_nil((cache.look_up(c, "k")))
    assert.equal("hello", (reader:read()))
    assert.is_false(reader:at_end())
    assert.is_false(reader:await())
    assert.same({ "broken", 5, 10 }, { head:body() })
    assert_empty(c, before, head, reader)
  end)
end)

describe("a cache that is full", function()
  after_each(function() cache.close_all() end)

  it("evicts, and never takes more than its limit", function()
    local c = open(2 << 20)
    for i = 1, 3000 do
      local text = text_of(i * 7919 % 20000, i)
      assert.is_truthy(put(c, "k" .. i, text))
      assert.equal(text, (get(c, "k" .. i)))
      local f = cache.figures(c)
      assert(f.used <= f.memory and f.mapped <= f.memory)
    end
    local f = cache.figures(c)
    assert.equal(3000, f.stored)
    assert.equal(3000, f.objects + f.evicted)
    if not hard then assert(f.used > 0.95 * f.memory, f.used) end
  end)

  it("keeps what is used, whatever passes through", function()
    local c = open(2 << 20)
    for i = 1, 20 do put(c, "used" .. i, text_of(10000, i)) end
    for i = 1, 2000 do
      for j = 1, 20 do assert.is_truthy((cache.look_up(c, "used" .. j))) end
      put(c, "scan" .. i, text_of(10000, i))
    end
    assert(cache.figures(c).evicted > 1500)
  end)

  it("spares what is being read while there is anything else", function()
    local c = open(1 << 20)
    local reader = put(c, "k", text_of(100000)):reader()
    for i = 1, 300 do put(c, "scan" .. i, text_of(10000, i)):unref() end
    assert.equal(text_of(100000), (get(c, "k")))
    assert(cache.figures(c).evicted > 200)
    reader:close()
  end)

  it("counts what is being read though nobody finds it, until the last has read it", function()
    if hard then return end -- there it takes memory bit by bit
    local c = open(1 << 20)
    local text = text_of(100000)
    local heads, readers = {}, {}
    for i = 1, 20 do -- more than there is room for
      heads[i] = put(c, "k" .. i, text)
      readers[i] = heads[i] and heads[i]:reader()
    end
    local f = cache.figures(c)
    assert(f.refused > 5 and f.used <= f.memory)
    for i, reader in pairs(readers) do
      assert.equal(text, (reader:read()))
      reader:close()
      heads[i]:unref()
    end
    cache.purge(c, "all")
    for _ = 1, 2 do cache.sweep(c, 1 << 30) end
    assert(cache.figures(c).used < 200000)
  end)

  it("refuses what is too large, and tells its followers to fetch on their own", function()
    local c = open(1 << 20, 50000)
    local _, fill = cache.join(c, "k")
    local _, follower = cache.join(c, "k")
    assert.is_nil(fill:store { url = "u", length = 50001 })
    assert.same({ "passed", 1 }, { follower:outcome() })
    assert.equal(1, cache.figures(c).refused)
    assert.is_truthy(put(c, "k", text_of(50000)))
  end)

  it("takes less memory when its limit is lowered, and more again", function()
    local c = open(8 << 20)
    for i = 1, 1000 do put(c, "k" .. i, text_of(10000, i)) end
    cache.open("site" .. count, 2 << 20)
    local f = cache.figures(c)
    assert(f.memory == 2 << 20 and f.used <= f.memory and f.objects > 100, f.used)
    for i = 1, 1000 do
      local text = get(c, "k" .. i)
      assert(not text or text == text_of(10000, i))
    end
    cache.open("site" .. count, 16 << 20)
    for i = 1, 1000 do put(c, "l" .. i, text_of(10000, i)) end
    f = cache.figures(c)
    assert(f.used > 10e6 and f.used <= f.memory, f.used)
    for i = 1, 1000 do assert.equal(text_of(10000, i), (get(c, "l" .. i))) end
  end)
end)

describe("a body that cannot be stored any further", function()
  after_each(function() cache.close_all() end)

  local window = hard and 96 or 256 << 10
  local most = hard and 1000 or 100000

  it("goes on as a window for its readers, and is not found any more", function()
    local c = open(2 << 20, most)
    local before = cache.figures(c).used
    local head = store(c, "k")
    local reader = head:reader()
    local text, got = text_of(4 * most + 3 * window), {}
    local at = 1
    while at <= #text do
      local n = head:write(text:sub(at))
      assert(n > 0)
      at = at + n
      assert(cache.figures(c).used <= before + most + 300000)
      if at <= #text then assert.equal(0, head:room()) end
      got[#got + 1] = reader:read()
    end
    head:finish()
    assert.equal(text, table.concat(got))
    assert.is_true(reader:at_end())
    assert.is_nil((cache.look_up(c, "k")))
    assert.equal(1, cache.figures(c).refused)
    reader:close()
    assert.is_nil(head:reader())
    assert_empty(c, before, head)
  end)

  it("waits for the slowest reader, and tells its writer when there is room", function()
    local c = open(2 << 20, most)
    local head = store(c, "k")
    local slow, fast = head:reader(), head:reader()
    local text = text_of(most + 4 * window)
    local written = head:write(text)
    assert(written >= most and written <= most + 2 * window)
    assert.equal(text:sub(1, written), (fast:read()))
    assert.equal(0, head:room())
    local told = cache.room_told()
    local _, passing = slow:peek()
    assert.is_true(passing)
    slow:skip(1)
    assert.equal(told, cache.room_told()) -- too little to be worth it
    assert.equal(text:sub(2, written), (slow:read()))
    assert.equal(told + 1, cache.room_told())
    assert(head:write(text:sub(written + 1)) > 0)
    assert.equal(0, head:room())
    fast:read()
    told = cache.room_told()
    slow:close() -- so does leaving
    assert.equal(told + 1, cache.room_told())
    assert.is_nil(head:reader(0)) -- gone
    fast:close()
    assert.is_true(head:abandoned())
    assert.equal("all", head:room())
    assert.is_nil(head:reader(0))
    head:break_off()
  end)

  it("keeps the bytes that somebody holds, though all readers have passed them", function()
    local c = open(2 << 20, most)
    local before = cache.figures(c).used
    local head = store(c, "k")
    local reader = head:reader()
    head:write(text_of(most))
    local let_go = head:hold()
    reader:read()
    local used = cache.figures(c).used
    head:write(text_of(2 * window))
    reader:read()
    head:write(text_of(window))
    reader:read()
    assert(cache.figures(c).used >= before + most)
    let_go()
    head:write "x"
    reader:read()
    head:write "y"
    assert(cache.figures(c).used < used - most // 2)
    head:finish()
  end)

  it("is abandoned when nobody finds it and nobody reads it", function()
    local c = open()
    local head = store(c, "k", { length = 100 })
    local reader = head:reader()
    head:write "hello"
    assert.is_false(head:abandoned())
    reader:close()
    assert.is_false(head:abandoned()) -- somebody may come
    cache.purge(c, "all")
    assert.is_nil((cache.look_up(c, "k")))
    assert.is_true(head:abandoned())
    assert.is_nil(head:reader(0))
    head:break_off()
  end)

  it("is stored on for its readers when it is purged or replaced meanwhile", function()
    local c = open()
    local head = store(c, "k", { length = 100 })
    local reader = head:reader()
    head:write(text_of(50))
    put(c, "k", "another", { replaces_all = true })
    assert.equal("another", (get(c, "k")))
    local text = reader:read()
    assert.is_false(select(2, reader:peek()))
    head:write(text_of(50))
    head:finish()
    assert.equal(text_of(50):rep(2), text .. reader:read())
    assert.is_true(reader:at_end())
  end)
end)

describe("variants of a cached response", function()
  after_each(function() cache.close_all() end)

  local br, gzip = { "Accept-Encoding", "br" }, { "Accept-Encoding", "gzip" }
  local vary = { "Vary", "Accept-Encoding" }

  it("are chosen by the request's fields", function()
    local c = open()
    put(c, "k", "brotli", { headers = vary }, br)
    assert.same({ nil, "vary-miss" }, { cache.look_up(c, "k", gzip) })
    put(c, "k", "gzip", { headers = vary }, gzip)
    assert.equal("brotli", (get(c, "k", br)))
    assert.equal("gzip", (get(c, "k", gzip)))
    assert.same({ nil, "vary-miss" }, { cache.look_up(c, "k", {}) })
    assert.equal(2, #cache.variants(c, "k"))
    put(c, "k", "better", { headers = vary }, br)
    assert.equal("better", (get(c, "k", br)))
    assert.equal(2, cache.figures(c).objects)
  end)

  it("of those that fit, the one with the latest date is taken", function()
    local c, now = open(), os.time() * 1000
    put(c, "k", "new", { received = now, headers = vary }, br)
    local turn, fill = cache.join(c, "k", gzip)
    assert.equal("lead", turn)
    local head = fill:store { url = "u", received = now, initial_age = 60000, length = 3 }
    head:write "old"
    head:finish()
    assert.equal("new", (get(c, "k", br)))
    assert.equal("old", (get(c, "k", gzip)))
  end)

  it("all go when a response says so", function()
    local c = open()
    put(c, "k", "brotli", { headers = vary }, br)
    put(c, "k", "gzip", { headers = vary }, gzip)
    local fill = cache.alone(c, "k")
    fill:store({ url = "u", length = 0, replaces_all = true }):finish()
    assert.equal(1, cache.figures(c).objects)
  end)

  it("have fills of their own, once their Vary is known", function()
    local c = open()
    local turn, first = cache.join(c, "k", br)
    assert.equal("lead", turn)
    local _, follower = cache.join(c, "k", gzip)
    assert.is_truthy(follower)
    first:store({ url = "u", length = 0, headers = vary, request = br }):finish()
    assert.same({ "filled", 1 }, { follower:outcome() })
    assert.same({ nil, "vary-miss" }, { cache.look_up(c, "k", gzip) })
    local known = cache.look_up(c, "k", br)
    local a, fill_gzip = cache.join(c, "k", gzip)
    local b, fill_br = cache.join(c, "k", br, known)
    assert.same({ "lead", "lead" }, { a, b })
    assert.equal("follow", (cache.join(c, "k", gzip)))
    assert.equal("follow", (cache.join(c, "k", br, known)))
    fill_gzip:fail()
    fill_br:fail()
  end)
end)

describe("a fill", function()
  after_each(function() cache.close_all() end)

  it("is led by the first and followed by the others, who are told what came of it", function()
    local c = open()
    for _, case in ipairs {
      { "filled", function(fill) fill:store({ url = "u", length = 0 }):finish() end },
      { "passed", function(fill) fill:pass("u", 0) end },
      { "failed", function(fill) fill:fail() end },
    } do
      local turn, fill = cache.join(c, case[1])
      assert.equal("lead", turn)
      local followers = {}
      for i = 1, 3 do
        turn, followers[i] = cache.join(c, case[1])
        assert.equal("follow", turn)
        assert.same({ "filling", 0 }, { followers[i]:outcome() })
      end
      followers[2]:unfollow()
      case[2](fill)
      assert.same({ case[1], 1 }, { followers[1]:outcome() })
      assert.same({ "filling", 0 }, { followers[2]:outcome() })
      assert.same({ case[1], 1 }, { followers[3]:outcome() })
      followers[1]:unfollow()
      followers[1]:unfollow()
    end
  end)

  it("is not begun when there is something else by now", function()
    local c = open()
    put(c, "k", "one")
    assert.equal("changed", (cache.join(c, "k")))
    local known = cache.look_up(c, "k")
    local turn, fill = cache.join(c, "k", {}, known)
    assert.equal("lead", turn)
    fill:store({ url = "u", length = 0 }):finish()
    assert.equal("changed", (cache.join(c, "k", {}, known)))
  end)

  it("that is alone is not followed", function()
    local c = open()
    local alone = cache.alone(c, "k")
    local turn, fill = cache.join(c, "k")
    assert.equal("lead", turn)
    alone:store({ url = "u", length = 0 }):finish()
    assert.is_truthy((cache.look_up(c, "k")))
    fill:fail()
  end)

  it("freshens a head and keeps its body", function()
    local c = open()
    local before = cache.figures(c).used
    local old = put(c, "k", "body", { headers = { "ETag", "1" } })
    local reader = old:reader()
    local _, fill = cache.join(c, "k", {}, old)
    local new = fill:freshen(old, { url = "http://x/k", headers = { "ETag", "1", "X-New", "1" }, lifetime = 5 })
    assert.is_false(old:same(new))
    assert.is_true(new:same((cache.look_up(c, "k"))))
    assert.same({ "ETag", "1", "X-New", "1" }, new:info().headers)
    assert.same({ "ETag", "1" }, old:info().headers)
    assert.equal("body", (get(c, "k")))
    assert.equal("body", (reader:read()))
    local f = cache.figures(c)
    assert.same({ 1, 1, 1 }, { f.objects, f.stored, f.freshened })
    assert_empty(c, before, reader, old, new)
  end)

  it("freshens what is not in the index any more", function()
    local c = open()
    local old = put(c, "k", "body")
    local _, fill = cache.join(c, "k", {}, old)
    cache.alone(c, "k"):store({ url = "http://x/k", length = 0 }):finish()
    assert.is_truthy(fill:freshen(old, { url = "http://x/k" }))
    assert.equal("body", (get(c, "k")))
    assert.equal(1, cache.figures(c).objects)
  end)

  it("does not freshen a body that broke off", function()
    local c = open()
    local old = store(c, "k", { length = 10 })
    local _, fill = cache.join(c, "k", {}, old)
    old:break_off()
    assert.is_nil(fill:freshen(old, { url = "http://x/k" }))
    assert.is_nil((cache.look_up(c, "k")))
  end)

  it("remembers for a while that a response was not for others", function()
    local c = open()
    local _, fill = cache.join(c, "k")
    fill:pass("http://x/k", 60, 3)
    local mark, stale = cache.look_up(c, "k")
    assert.is_false(stale)
    assert.is_true(mark:info().pass)
    assert.equal(3, mark:info().rule)
    local f = cache.figures(c)
    assert.same({ 0, 1 }, { f.objects, f.passes })
    local alone = cache.alone(c, "k")
    alone:store({ url = "u", length = 0 }):finish() -- after all
    assert.is_false((cache.look_up(c, "k")):info().pass)
    assert.equal(0, cache.figures(c).passes)
    cache.alone(c, "short"):pass("u", 0.001)
    local wait = os.clock() + 0.005
    while os.clock() < wait do end
    assert.same({ nil, "uri-miss" }, { cache.look_up(c, "short") })
  end)

  it("that was passed hides what is stale, but not what is fresh", function()
    local c, now = open(), os.time() * 1000
    put(c, "fresh", "body", { lifetime = 100000 })
    cache.alone(c, "fresh"):pass("u", 60)
    assert.is_false((cache.look_up(c, "fresh")):info().pass)
    put(c, "stale", "body", { received = now - 10000, lifetime = 1000 })
    cache.alone(c, "stale"):pass("u", 60)
    assert.is_true((cache.look_up(c, "stale")):info().pass)
  end)
end)

describe("a purge", function()
  after_each(function() cache.close_all() end)

  local function fill_up(c)
    for i = 1, 6 do
      put(c, "k" .. i, "body", {
        url = ("http://x/%s/%d"):format(i <= 3 and "a" or "b", (i + 1) // 2),
        tags = { i % 2 == 0 and "even" or "odd", "all" },
      })
    end
  end

  local function left(c)
    local found = {}
    for i = 1, 6 do
      local head, stale = cache.look_up(c, "k" .. i)
      found[#found + 1] = not head and "-" or stale and "s" or "f"
    end
    return table.concat(found)
  end

  local cases = {
    { "key", "k2", 1, "f-ffff", "fsffff" },
    { "key", "none", 0, "ffffff", "ffffff" },
    { "url", "http://x/a/1", 2, "--ffff", "ssffff" },
    { "url", "http://x/a", 0, "ffffff", "ffffff" },
    { "tag", "even", 3, "f-f-f-", "fsfsfs" },
    { "tag", "none", 0, "ffffff", "ffffff" },
    { "prefix", "http://x/a/", 0, "---fff", "sssfff" },
    { "prefix", "http://x/", 0, "------", "ssssss" },
    { "all", nil, 6, "------", "ssssss" },
  }

  for _, case in ipairs(cases) do
    it(("by %s %s hits what it names"):format(case[1], case[2] or ""), function()
      local c = open()
      fill_up(c)
      assert.equal(case[3], cache.purge(c, case[1], case[2], true))
      assert.equal(case[5], left(c))
      assert.equal(case[3], cache.purge(c, case[1], case[2]))
      assert.equal(case[4], left(c))
      assert.equal(select(2, case[4]:gsub("%-", "")), cache.figures(c).purged)
      fill_up(c)
      assert.equal("ffffff", left(c)) -- what came later is not hit
    end)

    it(("by %s %s hits what is on its way"):format(case[1], case[2] or ""), function()
      local c = open()
      for _, soft in ipairs { true, false } do
        local fills = {}
        for i = 1, 6 do fills[i] = cache.alone(c, "k" .. i) end
        cache.purge(c, case[1], case[2], soft)
        for i, fill in ipairs(fills) do
          fill:store({
            url = ("http://x/%s/%d"):format(i <= 3 and "a" or "b", (i + 1) // 2), length = 0,
            tags = { i % 2 == 0 and "even" or "odd", "all" },
          }):finish()
        end
        assert.equal(soft and case[5] or case[4], left(c))
      end
    end)
  end

  it("says why nothing is found", function()
    local c = open()
    put(c, "k", "body")
    cache.purge(c, "all")
    assert.is_true(cache.variants(c, "k")[1].purged)
    assert.same({ nil, "purged" }, { cache.look_up(c, "k") })
    assert.same({ nil, "uri-miss" }, { cache.look_up(c, "k") })
  end)

  it("that is soft ends when the response is validated", function()
    local c = open()
    local head = put(c, "k", "body")
    cache.purge(c, "url", "http://x/k", true)
    assert.is_true(select(2, cache.look_up(c, "k")))
    assert.is_true(cache.variants(c, "k")[1].softly)
    local _, fill = cache.join(c, "k", {}, head)
    fill:freshen(head, { url = "http://x/k" })
    assert.is_false(select(2, cache.look_up(c, "k")))
  end)

  it("of a tag that was purged counts only what came since", function()
    local c = open()
    for i = 1, 10 do put(c, "k" .. i, "", { tags = { "t" } }) end
    assert.equal(10, cache.purge(c, "tag", "t"))
    assert.equal(0, cache.purge(c, "tag", "t"))
    put(c, "k11", "", { tags = { "t" } })
    assert.equal(1, cache.purge(c, "tag", "t"))
  end)

  it("by more prefixes than are remembered hits the same", function()
    local c = open()
    for i = 1, 200 do put(c, "k" .. i, "", { url = ("http://x/%d/"):format(i) }) end
    for i = 1, 2500 do cache.purge(c, "prefix", ("http://x/%d/"):format(i * 2)) end
    for i = 1, 200 do
      local head = cache.look_up(c, "k" .. i)
      assert.equal(i % 2 == 1, head ~= nil)
    end
  end)

  it("leaves work to the sweep, which frees what nobody asks for", function()
    local c = open()
    local before = cache.figures(c).used
    for i = 1, 500 do put(c, "k" .. i, "body", { tags = { "t" } }) end
    collectgarbage()
    collectgarbage()
    assert.equal(500, cache.purge(c, "tag", "t"))
    assert.equal(500, cache.figures(c).objects)
    for _ = 1, 10000 do
      if cache.figures(c).objects == 0 then break end
      cache.sweep(c, 50)
    end
    local f = cache.figures(c)
    assert.same({ 0, 500, before }, { f.objects, f.purged, f.used })
  end)
end)

describe("the sweep", function()
  after_each(function() cache.close_all() end)

  it("drops what can be of no use any more", function()
    local c, now = open(), os.time() * 1000
    put(c, "old", "", { received = now - 60000, lifetime = 1000 })
    put(c, "validates", "", { received = now - 60000, lifetime = 1000, headers = { "ETag", "1" } })
    put(c, "dated", "", { received = now - 60000, lifetime = 1000, headers = { "Last-Modified", "then" } })
    put(c, "fresh", "", { received = now - 60000, lifetime = 100000 })
    put(c, "on error", "", { received = now - 60000, lifetime = 1000, stale_if_error = 100000 })
    put(c, "while", "", { received = now - 60000, lifetime = 1000, stale_while_revalidate = 100000 })
    store(c, "arriving", { received = now - 60000, lifetime = 1000 })
    assert.is_truthy((cache.look_up(c, "old"))) -- until then it is found
    cache.sweep(c, 1 << 30)
    assert.is_nil((cache.look_up(c, "old")))
    local f = cache.figures(c)
    assert.same({ 6, 1 }, { f.objects, f.expired })
  end)
end)
