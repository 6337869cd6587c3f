-- luacheck: no max line length (cases stand in one line)
local kits = require "scripts.kit"
local policy = require "scripts.policy"
local support = require "support"
local it, http = support.it, support.http

local function load(options)
  local kit = kits.load {
    backends = 'app = { "127.0.0.1:9001" }, other = { "127.0.0.1:9002" }, default = { "127.0.0.1:9001" }',
    use = ('require "scripts.ab_test" { %s }'):format(options),
  }
  return kit:backend("app", "app"):backend("default", "default"):backend("other", "other")
end

local function ask(kit, headers, path) return kit:request { path = path or "/", headers = headers } end
local function told(res) return res.fetched[1].headers["X-Experiments"] end

local by_user = 'by = "header:X-User", experiments = { %s }'

describe("scripts.ab_test", function()
  it("gives a client an id, and the same variant for it each time", function()
    local kit = load "experiments = { e = { variants = { a = 1, b = 1 } } }, expose = true"
    local seen = {}
    for _ = 1, 20 do
      local res = ask(kit)
      local id = kits.cookie(res, "visitor")
      assert.equal("Cookie", res.headers["Vary"])
      seen[told(res)] = true
      local again = ask(kit, { Cookie = "visitor=" .. id })
      assert.equal(told(res), told(again))
      assert.equal(told(res), again.headers["X-Experiments"])
      assert.is_nil(kits.cookie(again, "visitor"))
    end
    assert.same({ ["e=a"] = true, ["e=b"] = true }, seen)
  end)

  it("weighs variants, takes a share, and decides experiments apart from each other", function()
    local kit = load(by_user:format "x = { variants = { a = 3, b = 1 } }, y = { variants = { on = 1, off = 1 }, share = 40 }")
    local counts, pairs_of = {}, {}
    for i = 1, 1000 do
      local text = told(ask(kit, { ["X-User"] = "u" .. i }))
      for part in text:gmatch "[^ ,]+" do counts[part] = (counts[part] or 0) + 1 end
      pairs_of[text] = (pairs_of[text] or 0) + 1
    end
    assert(counts["x=a"] > 690 and counts["x=a"] < 810, counts["x=a"])
    local part = counts["y=on"] + counts["y=off"]
    assert(part > 340 and part < 460, part)
    assert(pairs_of["x=b, y=on"] > 20 and pairs_of["x=a, y=on"] > 100)
  end)

  it("lets nobody claim a variant, and gives none to who has no key", function()
    local kit = load(by_user:format "e = { variants = { a = 1 } }")
    local res = ask(kit, { ["X-Experiments"] = "e=z" })
    assert.is_nil(told(res))
    assert.equal("X-User", res.headers["Vary"])
    assert.equal("e=a", told(ask(kit, { ["X-Experiments"] = "e=z", ["X-User"] = "u" })))
    kit = load "experiments = { e = { variants = { a = 1 } } }"
    assert.is_not_nil(kits.cookie(ask(kit, { Cookie = "visitor=" .. ("x"):rep(65) }), "visitor"))
  end)

  it("keeps to its paths, and marks nobody elsewhere", function()
    local kit = load [[experiments = { e = { variants = { a = 1 }, paths = { "/shop" }, except = { "/shop/api" },
      when = function(req) return req.method == "GET" end } }]]
    for path, text in pairs { ["/shop"] = "e=a", ["/shop/x"] = "e=a", ["/shopping"] = false, ["/shop/api/x"] = false } do
      local res = ask(kit, nil, path)
      assert.equal(text or nil, told(res))
      assert.equal(text and "Cookie" or nil, res.headers["Vary"])
    end
    assert.is_nil(told(kit:request { method = "POST", path = "/shop" }))
  end)

  it("sends variants to backends of their own", function()
    local kit = load(by_user:format 'e = { variants = { a = 1, b = 0 }, backends = { a = "other" } }')
    assert.equal("other", ask(kit, { ["X-User"] = "u" }).body)
    assert.equal("default", ask(kit).body)
  end)

  it("gives testers what they ask for, if they know the password", function()
    local kit = load [[experiments = { e = { variants = { a = 1, b = 0 } } },
      force = { header = "X-Force", secret = "0123456789abcdef" }]]
    local res = ask(kit, { ["X-Force"] = "0123456789abcdef e=b, nothing=x" })
    assert.equal("e=b", told(res))
    assert.is_nil(res.fetched[1].headers["X-Force"])
    assert.equal("e=a", told(ask(kit, { ["X-Force"] = "0123456789abcdeX e=b" })))
    assert.equal("e=a", told(ask(kit, { ["X-Force"] = "0123456789abcdef e=z" })))
    assert.equal("e=a", told(ask(kit, { ["X-Force"] = "e=b" })))
  end)

  it("counts requests by variant", function()
    local backend = http.backend(function(request) return request.target == "/bad" and 500 or 200, nil, "ok" end)
    local proxy = support.moongate.start { values = { BACKEND = backend }, config = [[
      return { listen = "127.0.0.1:$PORT", admin = "127.0.0.1:$PORT2", backends = { app = { "$BACKEND" } },
        use = { require "scripts.ab_test" { experiments = { e = { variants = { a = 1 } } } } } }
    ]] }
    for _, path in ipairs { "/", "/", "/bad" } do http.get(proxy.port, path) end
    support.eventually("the requests are counted", function()
      local text = http.get(tonumber(proxy.values.PORT2), "/metrics").body
      return text:find('ab_test_requests_total{experiment="e",variant="a",status="2xx"} 2', 1, true)
        and text:find('ab_test_requests_total{experiment="e",variant="a",status="5xx"} 1', 1, true)
        and text:find('ab_test_seconds_count{experiment="e",variant="a"} 3', 1, true)
    end)
  end)

  it("refuses wrong options", function()
    policy.assert_refused("ab_test", {
      ["{}"] = "ab_test: experiments: must be given",
      ["{ experiments = {} }"] = "ab_test: experiments: there is none",
      ["{ experiments = { e = {} } }"] = "ab_test: experiments.e.variants: must be given",
      ["{ experiments = { e = { variants = {} } } }"] = "ab_test: experiments.e.variants: no variant has a weight",
      ["{ experiments = { e = { variants = { a = -1 } } } }"] = "ab_test: experiments.e.variants.a: expected a weight",
      ['{ experiments = { ["e=x"] = { variants = { a = 1 } } } }'] = "ab_test: experiments: expected names of letters",
      ['{ experiments = { e = { variants = { on = 1 }, backends = { of = "x" } } } }'] =
        'unknown variant "experiments.e.backends.of", did you mean "on"?',
      ["{ experiments = { e = { variants = { a = 1 }, shares = 5 } } }"] =
        'unknown option "experiments.e.shares", did you mean "share"?',
    })
  end)
end)
