-- Cache-Status (RFC 9211).

local core = require "moongate_core"
local rules, parts = core.rules, core.parts

local function status(s, response)
  s.cache = s.cache or "moongate"
  return rules.status(s, response or "")
end

describe("a member of Cache-Status (RFC 9211 2)", function()
  local cases = {
    { { fwd = "hit" }, "moongate; hit" },
    { { fwd = "hit", ttl = 376000 }, "moongate; hit; ttl=376" },
    { { fwd = "hit", ttl = 999 }, "moongate; hit; ttl=0" },
    { { fwd = "hit", ttl = -1 }, "moongate; hit; ttl=-1" },
    { { fwd = "hit", ttl = -2000 }, "moongate; hit; ttl=-2" },
    { { fwd = "hit", stored = true, collapsed = true, fwd_status = 200 }, "moongate; hit" },
    { { fwd = "bypass" }, "moongate; fwd=bypass" },
    { { fwd = "method" }, "moongate; fwd=method" },
    { { fwd = "uri-miss", fwd_status = 200, ttl = 5000, stored = true, collapsed = true },
      "moongate; fwd=uri-miss; fwd-status=200; ttl=5; stored; collapsed" },
    { { fwd = "vary-miss", stored = true }, "moongate; fwd=vary-miss; stored" },
    { { fwd = "miss", collapsed = true }, "moongate; fwd=miss; collapsed" },
    { { fwd = "miss", collapsed = true, in_vain = true }, "moongate; fwd=miss; collapsed=?0" },
    { { fwd = "request" }, "moongate; fwd=request" },
    { { fwd = "stale", fwd_status = 304 }, "moongate; fwd=stale; fwd-status=304" },
    { { fwd = "partial" }, "moongate; fwd=partial" },
    { { fwd = "miss", detail = "no-store" }, "moongate; fwd=miss; detail=no-store" },
    { { fwd = "miss", detail = 'say "hi"' }, [[moongate; fwd=miss; detail="say \"hi\""]] },
    { { fwd = "miss", detail = "a\r\nSet-Cookie: b" }, "moongate; fwd=miss" },
    { { fwd = "hit", cache = "edge 1" }, '"edge 1"; hit' },
    { { fwd = "hit", cache = "10.0.0.1" }, '"10.0.0.1"; hit' },
  }
  for _, case in ipairs(cases) do
    it(case[2], function()
      assert.equal("Cache-Status: " .. case[2] .. "\n", status(case[1]))
      assert.equal(1, #parts.list(case[2]))
    end)
  end
end)

describe("Cache-Status from upstream (RFC 9211 2)", function()
  it("stays before ours", function()
    assert.equal('Cache-Status: origin; hit\nCache-Status: "b"; fwd=miss\nCache-Status: moongate; fwd=miss\n',
      status({ fwd = "miss" }, 'Cache-Status: origin; hit\nCache-Status: "b"; fwd=miss'))
  end)
  for _, bad in ipairs { "&", "", "a; hit,", "a b", "(a)", "1; hit", 'x"', "Hit from cache" } do
    it(("goes if it is no list: %q"):format(bad), function()
      assert.equal("A: 1\nCache-Status: moongate; hit\n", status({ fwd = "hit" },
        "A: 1\nCache-Status: ok; hit\nCache-Status: " .. bad))
    end)
  end
end)
