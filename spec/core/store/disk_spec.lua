-- The disk tier of a cache: records, segments, purges, and what is made of files that somebody damaged.

local core = require "moongate_core"
local uv = require "luv"
local cache, disk = core.cache, core.disk

local count = 0

local function until_true(what, is_ready)
  local deadline = uv.hrtime() + 20e9
  while not is_ready() do
    assert(uv.hrtime() < deadline, "waited 20 s for " .. what)
    disk.nap()
  end
end

local function temp_dir()
  return assert(uv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/moongate-disk-XXXXXX"))
end

local function remove(dir)
  for name in uv.fs_scandir_next, uv.fs_scandir(dir) do uv.fs_unlink(dir .. "/" .. name) end
  uv.fs_rmdir(dir)
end

local function serves(c)
  until_true("the scan", function()
    return disk.figures(c).state == "serves" or disk.figures(c).state == "failed"
  end)
end

-- A new cache, as after a restart: names of caches are forever.
local function open(dir, options)
  options = options or {}
  count = count + 1
  local c = assert(cache.open("disk" .. count, options.memory or 8 << 20, 4 << 20))
  disk.open(c, dir, options.size)
  if not options.at_once then serves(c) end
  return c
end

local function close(c) disk.open(c) end

local function put(c, key, body, draft, request)
  draft = draft or {}
  local _, fill = cache.join(c, key, request or {}, (cache.look_up(c, key, request)))
  draft.url = draft.url or "http://x/" .. key
  draft.length, draft.request = #body, request
  draft.reason = draft.reason or "OK"
  local head = assert(fill:store(draft))
  assert.equal(#body, head:write(body))
  head:finish()
  return head
end

-- The same, written.
local function keep(c, key, body, draft, request)
  local before = disk.figures(c).writes
  local head = put(c, key, body, draft, request)
  disk.offer(head)
  until_true("a write", function() return disk.figures(c).writes > before end)
  return head
end

local function read(c, key, request)
  local head, stale = cache.look_up(c, key, request)
  if not head then return nil end
  until_true("the body", function() return head:body() ~= "arriving" end)
  local reader = head:reader()
  local text = reader:read()
  reader:close()
  return text, head, stale
end

local function cut(file, size)
  local handle = assert(io.open(file, "rb"))
  local text = handle:read(size) or ""
  handle:close()
  handle = assert(io.open(file, "wb"))
  handle:write(text)
  handle:close()
end

local function flip(file, at)
  local handle = assert(io.open(file, "r+b"))
  handle:seek("set", at)
  local byte = handle:read(1):byte()
  handle:seek("set", at)
  handle:write(string.char(byte ~ 0x40))
  handle:close()
end

describe("a disk", function()
  local dir

  teardown(cache.close_all)
  before_each(function() dir = temp_dir() end)
  after_each(function()
    disk.close_all()
    remove(dir)
  end)

  it("gives back all of a stored response", function()
    local c = open(dir)
    local headers = { "ETag", '"1"', "X-Two", "a", "X-Two", "b" }
    keep(c, "k", "some body", { status = 203, reason = "Fine", headers = headers, tags = { "t1", "t2" },
      lifetime = 77000, url = "http://h/p", partial = true, first = 3, total = 90 })
    close(c)
    c = open(dir)
    assert.equal(1, disk.figures(c).objects)
    assert.is_true(disk.has(c, "k"))
    assert.equal("loaded", disk.load(c, "k"))
    local text, head = read(c, "k")
    assert.equal("some body", text)
    local info = head:info()
    assert.same({ 203, "Fine", 77000, "http://h/p", true, 3, 90 },
      { info.status, info.reason, info.lifetime, info.url, info.partial, info.first, info.total })
    assert.same(headers, info.headers)
    assert.same({ "t1", "t2" }, info.tags)
  end)

  it("keeps bodies of every length round a piece", function()
    local c = open(dir, { size = 1 << 30 })
    local lengths = { 0, 1, 511, 512, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20 }
    for _, n in ipairs(lengths) do keep(c, "n" .. n, ("x" .. n):rep(n):sub(1, n)) end
    close(c)
    c = open(dir, { size = 1 << 30, memory = 64 << 20 })
    for _, n in ipairs(lengths) do
      assert.equal("loaded", disk.load(c, "n" .. n))
      assert.is_true(read(c, "n" .. n) == ("x" .. n):rep(n):sub(1, n), n)
    end
    assert.equal(0, disk.figures(c).corrupt)
  end)

  it("finds the variant that fits", function()
    local c = open(dir)
    for _, language in ipairs { "de", "en" } do
      keep(c, "v", "in " .. language, { headers = { "Vary", "Accept-Language" } }, { "Accept-Language", language })
    end
    close(c)
    c = open(dir)
    assert.equal("loaded", disk.load(c, "v", "en"))
    assert.equal("in en", read(c, "v", { "Accept-Language", "en" }))
    assert.equal("not loaded", disk.load(open(dir .. "/no"), "v", "fr"))
  end)

  it("writes down of purged URLs only those that something is stored under", function()
    local c = open(dir)
    keep(c, "k", "body", { url = "http://x/there" })
    cache.purge(c, "url", "http://x/elsewhere")
    assert.equal(0, disk.figures(c).purges)
    assert.is_false(disk.has_url(c, "http://x/elsewhere"))
    assert.is_true(disk.has_url(c, "http://x/there"))
    close(c)
    c = open(dir)
    assert.is_true(disk.has_url(c, "http://x/there"))
    assert.is_false(disk.has_url(c, "http://x/elsewhere"))
    cache.purge(c, "url", "http://x/there")
    assert.equal(1, disk.figures(c).purges)
    disk.settle(c)
    assert.is_false(disk.settle(c))
    close(c)
    c = open(dir)
    assert.equal("not loaded", disk.load(c, "k"))
  end)

  it("waits for purges that came before it had read its directory", function()
    local c = open(dir)
    keep(c, "k", "body", { url = "http://x/k" })
    close(c)
    c = open(dir, { at_once = true })
    cache.purge(c, "url", "http://x/k")
    disk.settle(c)
    serves(c)
    assert.is_false(disk.settle(c))
    assert.equal("not loaded", disk.load(c, "k"))
  end)

  it("is like a log: the oldest goes, the latest stays, also after a restart", function()
    local c = open(dir)
    local body = ("b"):rep(200000)
    for i = 1, 150 do
      keep(c, "k" .. i, body .. i)
      collectgarbage() -- heads hold memory
    end
    local f = disk.figures(c)
    assert.is_true(f.objects > 40 and f.objects < 90, f.objects)
    assert.is_false(disk.has(c, "k1"))
    close(c)
    c = open(dir)
    assert.equal(f.objects, disk.figures(c).objects)
    for i = 140, 150 do
      assert.equal("loaded", disk.load(c, "k" .. i))
      assert.is_true(read(c, "k" .. i) == body .. i)
    end
    keep(c, "next", "x") -- goes on where the former stopped
    assert.equal(f.objects + 1, disk.figures(c).objects)
  end)

  -- `turns` turns of the log, in each of which the hot ones are asked for.
  local function keep_and_use(c, hot, turns, use)
    local body = ("b"):rep(20000)
    for i = 1, hot do
      keep(c, "hot" .. i, body .. i)
      if i % 10 == 0 then collectgarbage() end
    end
    for i = 1, turns * 800 do
      keep(c, "cold" .. i, body)
      if i % 400 == 0 then
        for h = 1, hot do
          use("hot" .. h)
          if h % 10 == 0 then collectgarbage() end
        end
      end
      if i % 10 == 0 then collectgarbage() end
    end
    return body
  end

  it("writes again what is loaded from it, before its turn to go comes", function()
    local c = open(dir, { memory = 1 << 20 })
    local body = keep_and_use(c, 4, 3, function(key)
      disk.load(c, key)
      read(c, key)
    end)
    assert.is_false(disk.has(c, "cold1"))
    assert.is_true(disk.figures(c).rescued >= 4)
    close(c)
    c = open(dir)
    for h = 1, 4 do
      assert.equal("loaded", disk.load(c, "hot" .. h))
      assert.is_true(read(c, "hot" .. h) == body .. h)
    end
    assert.equal(0, disk.figures(c).corrupt)
  end)

  it("writes again what memory is asked for, though nobody loads it", function()
    local c = open(dir, { memory = 32 << 20 })
    keep_and_use(c, 4, 3, function(key) assert(cache.look_up(c, key)) end)
    assert.is_false(disk.has(c, "cold1"))
    close(c)
    c = open(dir)
    for h = 1, 4 do assert.equal("loaded", disk.load(c, "hot" .. h)) end
  end)

  it("writes nothing again that was purged", function()
    local c = open(dir, { memory = 1 << 20 })
    local last
    keep_and_use(c, 4, 2, function(key)
      disk.load(c, key)
      last = read(c, key) and key or last
      if key == "hot4" then cache.purge(c, "url", "http://x/hot1") end
    end)
    assert.equal("hot4", last)
    close(c)
    c = open(dir)
    assert.equal("not loaded", disk.load(c, "hot1"))
    assert.equal("loaded", disk.load(c, "hot2"))
  end)

  it("writes a quarter of each segment again at most", function()
    local c = open(dir, { memory = 1 << 20 })
    keep_and_use(c, 400, 2, function(key)
      disk.load(c, key)
      read(c, key)
    end)
    local f = disk.figures(c)
    assert.is_true(f.rescued > 0 and f.rescued * 4 <= f.writes, f.rescued .. " of " .. f.writes)
  end)

  it("has the latest of one key", function()
    local c = open(dir)
    for i = 1, 3 do keep(c, "k", "version " .. i) end
    assert.equal(1, disk.figures(c).objects)
    close(c)
    c = open(dir)
    assert.equal(1, disk.figures(c).objects)
    disk.load(c, "k")
    assert.equal("version 3", read(c, "k"))
  end)

  it("does not bring back what something was stored in place of", function()
    local c = open(dir)
    keep(c, "k", "old")
    put(c, "k", "new, and not written")
    assert.is_false(disk.has(c, "k"))
    disk.settle(c)
    close(c)
    c = open(dir)
    assert.equal("not loaded", disk.load(c, "k"))
  end)

  describe("keeps purges", function()
    local function fill(c)
      for i = 1, 4 do
        keep(c, "k" .. i, "body " .. i, { url = "http://h/" .. i .. "/x", tags = { "t" .. i, "all" } })
      end
    end

    local function loaded(c)
      local names = {}
      for i = 1, 4 do
        local word = disk.load(c, "k" .. i)
        if word == "loaded" then names[#names + 1] = i end
      end
      return table.concat(names, " ")
    end

    for _, case in ipairs {
      { "url", "http://h/2/x", "1 3 4" }, { "tag", "t3", "1 2 4" }, { "tag", "all", "" },
      { "prefix", "http://h/1", "2 3 4" },
      { "all", nil, "" }, { "key", "k4", "1 2 3" }, { "url", "http://h/", "1 2 3 4" },
    } do
      it(("of %s %s, over a restart"):format(case[1], case[2] or ""), function()
        local c = open(dir)
        fill(c)
        cache.purge(c, case[1], case[2])
        disk.settle(c)
        close(c)
        c = open(dir)
        assert.equal(case[3], loaded(c))
      end)
    end

    it("that came before the disk was there", function()
      local c = open(dir)
      fill(c)
      local second = open(dir .. "/", { at_once = true }) -- the lock is held: it waits
      assert.equal("waits", disk.figures(second).state)
      cache.purge(second, "tag", "t2")
      close(c)
      serves(second)
      assert.equal("1 3 4", loaded(second))
    end)

    it("softly, as stale", function()
      local c = open(dir)
      keep(c, "k", "body")
      cache.purge(c, "url", "http://x/k", true)
      disk.settle(c)
      close(c)
      c = open(dir)
      assert.equal("loaded", disk.load(c, "k"))
      local _, _, stale = read(c, "k")
      assert.is_true(stale)
    end)

    it("and hits nothing that was stored later", function()
      local c = open(dir)
      fill(c)
      cache.purge(c, "all")
      fill(c)
      disk.settle(c)
      close(c)
      assert.equal("1 2 3 4", loaded(open(dir)))
    end)

    it("more than it has room for, losing too much rather than too little", function()
      local c = open(dir)
      fill(c)
      for i = 1, 3000 do cache.purge(c, "prefix", "http://other/" .. i) end
      cache.purge(c, "tag", "t1")
      disk.settle(c)
      assert.is_true(disk.figures(c).purges < 1100)
      keep(c, "k5", "after")
      close(c)
      c = open(dir)
      assert.is_falsy(loaded(c):find "1")
      assert.equal("loaded", disk.load(c, "k5"))
    end)
  end)

  describe("finds damage:", function()
    it("of every single byte of a record", function()
      local c = open(dir)
      keep(c, "k", "a body", { headers = { "ETag", '"1"' }, tags = { "t" } })
      local size = disk.figures(c).bytes
      close(c)
      local file, served = dir .. "/segment-00000", 0
      for at = 0, size - 1 do
        flip(file, 512 + at)
        c = open(dir)
        local word = disk.load(c, "k")
        if word == "loaded" then
          local text, head = read(c, "k")
          assert.equal("a body", text)
          assert.same({ "ETag", '"1"' }, head:info().headers)
          served = served + 1
        end
        close(c)
        flip(file, 512 + at)
      end
      assert.is_true(served < size - 200, served .. " of " .. size) -- what is behind the record means nothing
    end)

    it("of a body's middle, which breaks it there", function()
      local c = open(dir, { size = 1 << 30 })
      keep(c, "k", ("b"):rep(3 << 20))
      close(c)
      flip(dir .. "/segment-00000", (2 << 20) + 4096)
      c = open(dir, { size = 1 << 30 })
      assert.equal("loaded", disk.load(c, "k"))
      until_true("the fault", function() return disk.figures(c).corrupt == 1 end)
      until_true("its end", function() return not cache.look_up(c, "k") end)
      assert.is_false(disk.has(c, "k"))
    end)

    it("of files that are cut, empty, strange or gone", function()
      for _, harm in ipairs {
        function(f) cut(f, 600) end, function(f) cut(f, 0) end, function(f) uv.fs_unlink(f) end,
        function(f)
          local handle = assert(io.open(f, "wb"))
          for _ = 1, 3000 do handle:write(string.char(math.random(0, 255)):rep(512)) end
          handle:close()
        end,
      } do
        local c = open(dir)
        keep(c, "k", ("b"):rep(5000))
        close(c)
        harm(dir .. "/segment-00000")
        c = open(dir)
        assert.equal("not loaded", disk.load(c, "k"))
        keep(c, "k2", "again")
        close(c)
        c = open(dir)
        assert.equal("loaded", disk.load(c, "k2"))
        close(c)
        for name in uv.fs_scandir_next, uv.fs_scandir(dir) do uv.fs_unlink(dir .. "/" .. name) end
      end
    end)

    it("of files under its hands", function()
      local c = open(dir, { memory = 1 << 20 })
      keep(c, "k", "x")
      cache.purge(c, "key", "other")
      for i = 1, 60 do
        put(c, "filler" .. i, ("f"):rep(50000))
        collectgarbage()
      end
      assert.is_nil((cache.look_up(c, "k")))
      flip(dir .. "/segment-00000", 520)
      assert.equal("not loaded", disk.load(c, "k"))
      assert.equal(1, disk.figures(c).corrupt)
    end)

    it("of the journal: then nothing of before counts", function()
      local c = open(dir)
      keep(c, "k", "x")
      cache.purge(c, "tag", "t")
      cache.purge(c, "tag", "u")
      disk.settle(c)
      close(c)
      flip(dir .. "/purges", 100)
      c = open(dir)
      assert.equal(0, disk.figures(c).objects)
      assert.equal(1, disk.figures(c).corrupt)
      assert.equal("not loaded", disk.load(c, "k"))
    end)

    it("of the journal's end alone: torn, and nobody was told", function()
      local c = open(dir)
      keep(c, "k", "x")
      cache.purge(c, "tag", "t")
      disk.settle(c)
      close(c)
      cut(dir .. "/purges", uv.fs_stat(dir .. "/purges").size - 3)
      c = open(dir)
      assert.equal("loaded", disk.load(c, "k"))
      assert.equal(0, disk.figures(c).corrupt)
    end)
  end)

  it("fails, and says so, where it cannot write", function()
    local c = open("/proc/nothing")
    assert.equal("failed", disk.figures(c).state)
    disk.offer(put(c, "k", "x"))
    assert.equal("not loaded", disk.load(c, "other"))
  end)
end)
