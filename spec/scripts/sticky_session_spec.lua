local kits = require "scripts.kit"
local policy = require "scripts.policy"
local support = require "support"
local it, http = support.it, support.http

local SECRET <const> = 'secret = "0123456789abcdef"'

-- Three servers that answer with their names.
local function load(more, servers)
  local kit = kits.load {
    backends = ("app = { %s }"):format(servers or [[
      { "127.0.0.1:9001", name = "a" }, { "127.0.0.1:9002", name = "b" }, { "127.0.0.1:9003", name = "c" } ]]),
    use = ('require "scripts.sticky_session" { backend = "app", %s }'):format(more),
  }
  return kit:backend("app/127.0.0.1:9001", "a"):backend("app/127.0.0.1:9002", "b"):backend("app/127.0.0.1:9003", "c")
    :backend("app/127.0.0.1:9004", "d")
end

local function ask(kit, headers) return kit:request { path = "/", headers = headers } end

describe("scripts.sticky_session", function()
  describe("with a cookie", function()
    it("sends a client to the server that its first answer came from, and keeps the cookie to itself", function()
      local kit = load(SECRET)
      local seen = {}
      for _ = 1, 6 do
        local res = ask(kit)
        local mark, line = kits.cookie(res, "server")
        assert.matches("; HttpOnly", line)
        assert.is_nil(line:find("127", 1, true))
        seen[res.body] = mark
        for _ = 1, 3 do
          local again = ask(kit, { Cookie = "a=1; server=" .. mark })
          assert.equal(res.body, again.body)
          assert.is_nil(kits.cookie(again, "server"))
          assert.equal("a=1", again.fetched[1].headers["Cookie"])
        end
      end
      assert(seen.a and seen.b and seen.c)
    end)

    it("holds for who comes later with the same secret, and not with another one", function()
      local first = ask(load(SECRET))
      local mark = kits.cookie(first, "server")
      local kit = load(SECRET)
      for _ = 1, 3 do assert.equal(first.body, ask(kit, { Cookie = "server=" .. mark }).body) end
      kit = load 'secret = "fedcba9876543210"'
      assert.is_not_nil(kits.cookie(ask(kit, { Cookie = "server=" .. mark }), "server"))
    end)

    it("takes made-up cookies for none", function()
      local kit = load(SECRET)
      for _, mark in ipairs { "", "a", "127.0.0.1:9001", ("x"):rep(4000), "app/a" } do
        local res = ask(kit, { Cookie = "server=" .. mark })
        assert.equal(200, res.status)
        assert.is_not_nil(kits.cookie(res, "server"))
      end
    end)

    it("moves a client once when its server is unwell, fails, or is gone", function()
      local kit = load(SECRET)
      local first = ask(kit)
      local cookie = { Cookie = "server=" .. kits.cookie(first, "server") }
      kit:health("app/" .. first.servers[1], false)
      local moved = ask(kit, cookie)
      assert.are_not.equal(first.body, moved.body)
      assert.equal(1, moved.tries)
      cookie = { Cookie = "server=" .. kits.cookie(moved, "server") }
      assert.equal(moved.body, ask(kit, cookie).body)
      kit:backend("app/" .. moved.servers[1], { error = "connect_refused" })
      local third = ask(kit, cookie)
      assert.equal(200, third.status)
      assert.are_not.equal(moved.body, third.body)
      assert.is_not_nil(kits.cookie(third, "server"))
      kit = load(SECRET, '"127.0.0.1:9004"')
      assert.equal("d", ask(kit, cookie).body)
    end)

    it("sends nobody new to servers that drain, and keeps who is there", function()
      local there
      local kit = load(SECRET)
      repeat there = ask(kit) until there.body == "a"
      kit = load(SECRET .. ', drain = { "a", "127.0.0.1:9002" }')
      assert.equal("a", ask(kit, { Cookie = "server=" .. kits.cookie(there, "server") }).body)
      for _ = 1, 9 do assert.equal("c", ask(kit).body) end
      kit = load(SECRET .. ', drain = function() return true end') -- all: then there is no choice
      assert.equal(200, ask(kit).status)
    end)

    it("follows the addresses that a name resolves to", function()
      local kit = load(SECRET, '"app.internal:80"')
      kit:resolve("app.internal", { "10.0.0.1", "10.0.0.2", "10.0.0.3" })
      kit:advance(60) -- until the name is asked for again
      kit:backend("app", function(request) return request.server end)
      ask(kit)
      local bodies = {}
      for _ = 1, 6 do
        local res = ask(kit)
        bodies[res.body] = true
        local cookie = { Cookie = "server=" .. kits.cookie(res, "server") }
        for _ = 1, 4 do assert.equal(res.body, ask(kit, cookie).body) end
      end
      assert(bodies["10.0.0.1:80"] and bodies["10.0.0.2:80"] and bodies["10.0.0.3:80"])
    end)

    it("says what it is told of the cookie", function()
      local _, line = kits.cookie(ask(load(SECRET .. [[, cookie = "at", path = "/app", domain = "example.com",
        max_age = "1h", same_site = "none"]])), "at")
      for _, part in ipairs { "Path=/app", "Domain=example.com", "Max%-Age=3600", "SameSite=None", "Secure" } do
        assert.matches(part, line)
      end
    end)

    it("keeps what a cookie's name promises, also on plain http", function()
      local _, line = kits.cookie(ask(load(SECRET .. ', cookie = "__Host-at"')), "__Host%-at")
      assert.matches("; Secure", line)
    end)

    it("leaves requests alone that it is not for", function()
      local kit = load(SECRET .. ', when = function(req) return req.path ~= "/" end')
      local res = ask(kit, { Cookie = "server=x" })
      assert.is_nil(kits.cookie(res, "server"))
      assert.equal("server=x", res.fetched[1].headers["Cookie"])
    end)
  end)

  describe("by hash", function()
    local function where(kit, count)
      local places = {}
      for i = 1, count do places[i] = ask(kit, { ["X-Tenant"] = "t" .. i }).body end
      return places
    end

    local function tally(places)
      local counts = {}
      for _, place in ipairs(places) do counts[place] = (counts[place] or 0) + 1 end
      return counts
    end

    it("sends the same key to the same server, and spreads keys evenly", function()
      local kit = load 'by = "header:X-Tenant"'
      local places = where(kit, 600)
      assert.same(places, where(kit, 600))
      for _, count in pairs(tally(places)) do assert(count > 140 and count < 260, count) end
    end)

    it("moves only the keys of a server that goes, and of one that comes", function()
      local before = where(load 'by = "header:X-Tenant"', 300)
      local kit = load 'by = "header:X-Tenant"'
      kit:health("app/127.0.0.1:9002", false)
      for i, place in ipairs(where(kit, 300)) do
        if before[i] == "b" then assert.are_not.equal("b", place) else assert.equal(before[i], place) end
      end
      kit:health("app/127.0.0.1:9002", true)
      assert.same(before, where(kit, 300))
      local four = [[{ "127.0.0.1:9001", name = "a" }, "127.0.0.1:9002", "127.0.0.1:9003", "127.0.0.1:9004"]]
      for i, place in ipairs(where(load('by = "header:X-Tenant"', four), 300)) do
        assert(place == before[i] or place == "d")
      end
    end)

    it("gives servers their weights", function()
      local kit = load('by = "header:X-Tenant"', '{ "127.0.0.1:9001", weight = 3 }, "127.0.0.1:9002"')
      local counts = tally(where(kit, 600))
      assert(counts.a > 400 and counts.a < 500, counts.a)
    end)

    it("has the next of the key's servers answer what the first cannot", function()
      local kit = load 'by = "header:X-Tenant"'
      local before = where(kit, 60)
      kit:backend("app/127.0.0.1:9001", { error = "connect_refused" })
      for i, place in ipairs(where(kit, 60)) do
        if before[i] ~= "a" then assert.equal(before[i], place) else assert.are_not.equal("a", place) end
      end
    end)

    it("leaves who has no key to the balancer, and drained servers alone", function()
      local kit = load 'by = "header:X-Tenant", drain = { "a" }'
      for i = 1, 30 do assert.are_not.equal("a", ask(kit, { ["X-Tenant"] = "t" .. i }).body) end
      local seen = {}
      for _ = 1, 6 do seen[ask(kit).body] = true end
      assert(seen.a and seen.b and seen.c)
    end)
  end)

  it("holds before the real proxy, on every worker", function()
    local one = http.backend(function() return 200, nil, "one" end)
    local two = http.backend(function() return 200, nil, "two" end)
    local proxy = support.moongate.start { workers = 2, values = { ONE = one, TWO = two }, config = [[
      return { listen = "127.0.0.1:$PORT", backends = { app = { "$ONE", "$TWO" } },
        use = { require "scripts.sticky_session" { backend = "app", secret = "0123456789abcdef" } } }
    ]] }
    local first = http.get(proxy.port, "/")
    local cookie = first.headers["Set-Cookie"]:match "^[^;]*"
    for _ = 1, 10 do assert.equal(first.body, http.get(proxy.port, "/", { headers = { Cookie = cookie } }).body) end
  end)

  it("refuses wrong options", function()
    policy.assert_refused("sticky_session", {
      ["{}"] = "sticky_session: backend: must be given",
      ['{ backend = "app" }'] = "sticky_session: expected either secret (a cookie) or by (a hash)",
      ['{ backend = "app", secret = "short" }'] = "sticky_session: secret: expected a secret of at least 16 bytes",
      ['{ backend = "app", by = "ip", max_age = 5 }'] = "sticky_session: max_age: is of the cookie",
      ["{ backend = 'app', " .. SECRET .. ", cookie = '__Host-at', domain = 'a.example' }"] = "cookie: ",
      ['{ backend = "app", by = "X-User" }'] = 'sticky_session: by: expected "ip"',
      ['{ backend = "app", by = "ip", drains = {} }'] = 'unknown option "drains", did you mean "drain"?',
    })
  end)
end)
