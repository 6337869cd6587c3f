-- The cache under many threads; what it is for is to be run under the sanitizers, too.
local cache = require("moongate_core").cache

local preset = os.getenv "MOONGATE_PRESET"
local rounds = ({ asan = 4000, tsan = 3000, hard = 3000 })[preset] or 10000

describe("a cache that many threads use at once", function()
  after_each(function() cache.close_all() end)

  local function storm(name, memory, max_object, keys, longest)
    local c = cache.open(name, memory, max_object)
    local before = cache.figures(c).used
    local came = cache.storm(c, 6, rounds, keys, longest, max_object)
    assert.same({ 0, 0 }, { came.wrong, came.stuck })
    assert.is_true(came.hits > 0 and came.led > 0 and came.followed > 0 and came.purged > 0)
    cache.purge(c, "all")
    for _ = 1, 2 do cache.sweep(c, 1 << 30) end -- the rest of one round, and another
    local f = cache.figures(c)
    assert.equal(0, f.objects + f.passes)
    assert.equal(before, f.used)
    return came, f
  end

  it("gives each reader the bytes that belong to it, and all memory back", function()
    storm("roomy", 16 << 20, nil, 200, 60000)
  end)

  it("does so when it is full all the time", function()
    local _, f = storm("full", 1 << 20, nil, 400, 60000)
    assert.is_true(f.evicted > 0)
  end)

  it("does so when bodies turn out too large", function()
    local came = storm("windows", 2 << 20, 50000, 50, 400000)
    assert.is_true(came.windows > 0)
  end)
end)
