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

local function text_of(n, seed)
  local parts, size = {}, 0
  for i = 1, math.huge do
    if size >= n then break end
    parts[i] = ("%s.%d;"):format(seed or "t", i)
    size = size + #parts[i]
  end
  return table.concat(parts):sub(1, n)
end

-- All memory but the tables' comes back when nothing is stored and nobody reads.
local function assert_empty(c, before)
  collectgarbage()
  collectgarbage()
  cache.purge(c, "all")
  cache.sweep(c, 1 << 30)
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
    head, found, info = nil, nil, nil
    assert_empty(c, before)
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
end)
