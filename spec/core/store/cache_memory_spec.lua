-- The memory of a cache, without one.
local cache = require("moongate_core").cache

describe("a cache's memory", function()
  for _, limit in ipairs { 1 << 20, 3000000, 40 << 20 } do
    it(("gives out and takes back runs of all lengths within %d bytes"):format(limit), function()
      local good, taken = cache.churn(limit, 50000)
      assert.is_true(good)
      assert(taken > 0.9, taken) -- when a quarter of what is wanted cannot be had
    end)
  end
end)
