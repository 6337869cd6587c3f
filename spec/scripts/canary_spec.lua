-- luacheck: no max line length (cases stand in one line)
local kits = require "scripts.kit"
local policy = require "scripts.policy"
local it = require("support").it

-- The site with canary { more }; the new version answers as `new` says.
local function load(more, new)
  local kit = kits.load {
    backends = 'app = { "127.0.0.1:9001" }, new = { "127.0.0.1:9002" }',
    more = 'local weight = gate.shared "weight" function site.on_request(req) if req.path == "/reply" then return 500 end end',
    use = ('require "scripts.canary" { canary = "new", stable = "app", %s }, '):format(more)
      .. '{ on_request = function(req) if req.args.share then weight:set("share", tonumber(req.args.share)) end end }',
  }
  return kit:backend("app", "old"):backend("new", new or "new")
end

local function ask(kit, headers, path) return kit:request { path = path or "/", headers = headers } end

describe("scripts.canary", function()
  it("gives a client a number by which he stays where he is, and goes over when the share grows", function()
    local kit = load "share = 30"
    local number, line = kits.cookie(ask(kit), "canary")
    assert.matches("^%d%d%d%d$", number)
    assert.matches("HttpOnly", line)
    for n, body in pairs { ["0000"] = "new", ["2999"] = "new", ["3000"] = "old", ["9999"] = "old" } do
      local res = ask(kit, { Cookie = "canary=" .. n })
      assert.equal(body, res.body, n)
      assert.is_nil(kits.cookie(res, "canary"))
    end
    assert.equal("new", ask(load "share = 31", { Cookie = "canary=3000" }).body)
  end)

  it("gives out numbers so that the share is right", function()
    local kit = load "share = 30"
    local count = kits.share(1000, function() return ask(kit).body == "new" end)
    assert(count > 240 and count < 360, count)
    kit = load "share = 0"
    assert.equal(0, kits.share(50, function() return ask(kit).body == "new" end))
    kit = load "share = 100"
    assert.equal(50, kits.share(50, function() return ask(kit).body == "new" end))
  end)

  it("tells clients apart by a key, and leaves who has none alone", function()
    local kit = load 'share = 30, sticky = "header:X-User"'
    assert.equal("old", ask(kit).body)
    local first = {}
    local count = kits.share(1000, function(i)
      first[i] = ask(kit, { ["X-User"] = "u" .. i }).body
      return first[i] == "new"
    end)
    assert(count > 240 and count < 360, count)
    for i = 1, 50 do
      local res = ask(kit, { ["X-User"] = "u" .. i })
      assert.equal(first[i], res.body)
      assert.is_nil(res.headers["Set-Cookie"])
    end
  end)

  it("asks a function for the share, for each request", function()
    local kit = load 'share = function() return gate.shared("weight"):get "share" or 0 end'
    assert.equal("old", ask(kit, { Cookie = "canary=5000" }).body)
    ask(kit, nil, "/?share=60")
    assert.equal("new", ask(kit, { Cookie = "canary=5000" }).body)
  end)

  it("lets a tester choose by a header, and does not forward it", function()
    local kit = load 'share = 0, header = { name = "X-Canary", always = "open sesame", never = "no" }'
    local res = ask(kit, { ["X-Canary"] = "open sesame" })
    assert.equal("new", res.body)
    assert.is_nil(res.fetched[1].headers["X-Canary"])
    assert.equal("old", ask(kit, { ["X-Canary"] = "open" }).body)
    kit = load 'share = 100, header = { name = "X-Canary", always = "open sesame", never = "no" }'
    assert.equal("old", ask(kit, { ["X-Canary"] = "no" }).body)
  end)

  it("has the old version answer what the new one fails, if it may be repeated", function()
    for _, answer in ipairs { 503, { error = "connect_refused" }, { error = "reset" } } do
      local kit = load("share = 100", answer)
      local res = ask(kit)
      assert.equal("old", res.body)
      assert.same({ "new", "app" }, { res.tried[1], res.tried[#res.tried] })
    end
    local kit = load("share = 100", 503)
    assert.equal(503, kit:request({ method = "POST", path = "/" }).status)
    kit = load("share = 100, fallback = false", 503)
    assert.equal(503, ask(kit).status)
  end)

  describe("with rollback", function()
    local rollback = 'share = 50, sticky = "header:X-User", rollback = { requests = 20, window = "1m", %s }'

    -- Requests of both versions' users.
    local function run(kit, count, path)
      return kits.share(count, function(i) return ask(kit, { ["X-User"] = "u" .. i }, path).tried[1] == "new" end)
    end

    it("takes the new version back when it fails more often than the old one, and says so once", function()
      local kit = load(rollback:format "", 503)
      assert(run(kit, 100) >= 20)
      assert.equal(0, run(kit, 100))
      local said = 0
      for _, line in ipairs(kit:logs()) do
        if line.text:find("canary default is rolled back: 100.0 %% of 20 requests failed, 0.0 %%") then said = said + 1 end
      end
      assert.equal(1, said)
    end)

    it("does not judge before it has seen enough, nor by what is old", function()
      local kit = load(rollback:format "", 503)
      assert.equal(19, kits.share(19, function() return ask(kit, { ["X-User"] = "u1" }).tried[1] == "new" end)
        + kits.share(19, function() return ask(kit, { ["X-User"] = "u2" }).tried[1] == "new" end))
      kit:advance(120)
      assert(run(kit, 30) > 0)
      assert(run(kit, 10) > 0)
    end)

    it("leaves it alone while the old version is no better", function()
      local kit = load(rollback:format "", 503)
      kit:backend("app", 503)
      run(kit, 200)
      assert(run(kit, 100) > 20)
    end)

    it("does not hold replies and rare failures against it", function()
      local kit = load(rollback:format "")
      run(kit, 100, "/reply")
      assert(run(kit, 100) > 20)
      local count = 0
      kit = load(rollback:format "", function()
        count = count + 1
        return count % 30 == 0 and 500 or "new"
      end)
      run(kit, 300)
      assert(run(kit, 100) > 20) -- 3.3 % is below the margin of 5
    end)

    it("tries again after `hold`, or for another release", function()
      local kit = load(rollback:format 'hold = "10m"', 503)
      run(kit, 100)
      assert.equal(0, run(kit, 100))
      kit:advance(599)
      assert.equal(0, run(kit, 100))
      kit:advance(2)
      assert(run(kit, 10) > 0)
    end)

    it("still lets testers in", function()
      local kit = load(rollback:format "" .. ', header = { name = "X-Canary", always = "open sesame" }', 503)
      run(kit, 100)
      assert.equal("new", ask(kit, { ["X-Canary"] = "open sesame" }).tried[1])
    end)
  end)

  it("refuses wrong options", function()
    local both = 'canary = "new", stable = "app", share = 1, '
    policy.assert_refused("canary", {
      ["{}"] = "canary: canary: must be given",
      ['{ canary = "a", stable = "a", share = 1 }'] = "canary: canary: is the same backend as stable",
      ['{ canary = "a", stable = "b", share = 101 }'] = "canary: share: expected percent, 0 to 100, or a function, got 101",
      ["{ " .. both .. "shares = 1 }"] = 'canary: unknown option "shares", did you mean "share"?',
      ["{ " .. both .. 'sticky = "session" }'] = 'canary: sticky: expected "ip", "header:NAME"',
      ["{ " .. both .. 'header = { name = "X-C" } }'] = "canary: header.always: must be given",
      ["{ " .. both .. "rollback = { request = 5 } }"] = 'canary: unknown option "rollback.request", did you mean "requests"?',
      ["{ " .. both .. 'rollback = { window = "soon" } }'] = "canary: rollback.window: expected a time",
      ["{ " .. both .. 'cookie_age = "500d" }'] = "canary: cookie: ",
      ["{ " .. both .. "rollback = true }"] = "canary: rollback: expected a table or false, got true",
    })
  end)
end)
