local support = require "support"
local kits = require "scripts.kit"
local policy = require "scripts.policy"
local it, http = support.it, support.http

-- The kit, with one rate_limit, or several.
local function load(use, more)
  local kit = kits.load {
    backends = 'app = { "127.0.0.1:9001" }', more = more,
    use = use:find "^%s*{" and ('require "scripts.rate_limit" %s'):format(use) or use,
  }
  return kit:backend("app", "ok")
end

-- The statuses of some requests, one after the other.
local function statuses(kit, count, request)
  local list = {}
  for i = 1, count do list[i] = kit:request(request or "/").status end
  return table.concat(list, " ")
end

local function from(ip, headers, path) return { path = path or "/", client = { ip = ip }, headers = headers } end

describe("scripts.rate_limit", function()
  it("lets so many pass, then one after each interval, and says when to come again", function()
    local kit = load '{ rate = 6, per = "1m", burst = 2 }'
    assert.equal("200 200 429", statuses(kit, 3))
    local res = kit:request "/"
    assert.equal("too many requests\n", res.body)
    assert.equal("10", res.headers["Retry-After"])
    assert.equal("no-store", res.headers["Cache-Control"])
    assert.equal('"rate_limit";q=2;w=60', (res.headers["RateLimit-Policy"]:gsub("w=%d+", "w=60")))
    assert.equal("0", res.headers["RateLimit-Remaining"])
    assert.same({}, res.tried)
    kit:advance(10)
    assert.equal("200 429", statuses(kit, 2))
  end)

  it("counts by address, IPv6 by its /64 or what is asked for", function()
    local kit = load '{ rate = 1, per = 60 }'
    assert.equal(200, kit:request(from "192.0.2.1").status)
    assert.equal(200, kit:request(from "192.0.2.2").status)
    assert.equal(429, kit:request(from "192.0.2.1").status)
    assert.equal(200, kit:request(from "2001:db8::1").status)
    assert.equal(429, kit:request(from "2001:db8::ffff:2").status)
    assert.equal(429, kit:request(from "2001:db8:0:0:1:2:3:4").status)
    assert.equal(200, kit:request(from "2001:db8:0:1::1").status)
    kit = load '{ rate = 1, per = 60, ipv6 = 128 }'
    assert.equal(200, kit:request(from "2001:db8::1").status)
    assert.equal(200, kit:request(from "2001:db8::2").status)
    kit = load '{ rate = 1, per = 60, ipv6 = 48 }'
    assert.equal(200, kit:request(from "2001:db8::1").status)
    assert.equal(429, kit:request(from "2001:db8:0:1::1").status)
  end)

  it("does not believe what a client says of its address", function()
    local kit = load '{ rate = 1, per = 60 }'
    assert.equal(200, kit:request(from("192.0.2.1", { ["X-Forwarded-For"] = "198.51.100.1" })).status)
    assert.equal(429, kit:request(from("192.0.2.1", { ["X-Forwarded-For"] = "198.51.100.2" })).status)
    kit = load('{ rate = 1, per = 60 }', 'site.trusted_proxies = { "192.0.2.0/24" }')
    assert.equal(200, kit:request(from("192.0.2.1", { ["X-Forwarded-For"] = "198.51.100.1" })).status)
    assert.equal(200, kit:request(from("192.0.2.1", { ["X-Forwarded-For"] = "198.51.100.2" })).status)
  end)

  it("counts by a field, a cookie, an argument, or what an earlier policy found out", function()
    for key, request in pairs {
      ["header:X-Key"] = function(k) return { headers = { ["X-Key"] = k } } end,
      ["cookie:sid"] = function(k) return { headers = { ["Cookie"] = "a=b; sid=" .. k } } end,
      ["arg:key"] = function(k) return { path = "/?key=" .. k } end,
      ["ctx:user"] = function(k) return { headers = { ["X-Login"] = k } } end,
    } do
      local login = '{ on_request = function(req) req.ctx.user = req.headers["X-Login"] end }'
      local kit = load(('login, require "scripts.rate_limit" { rate = 1, per = 60, key = %q }'):format(key),
        "local login = " .. login)
      assert.equal("200 429", statuses(kit, 2, request "ada"), key)
      assert.equal("200 429", statuses(kit, 2, request "bob"), key)
      assert.equal("200 429", statuses(kit, 2, "/"), key) -- by address
    end
  end)

  it("does not take a stranger's text for an address", function()
    local kit = load '{ rate = 1, per = 60, key = "header:X-Key" }'
    assert.equal(200, kit:request(from("192.0.2.9", { ["X-Key"] = "192.0.2.1" })).status)
    assert.equal(200, kit:request(from "192.0.2.1").status)
  end)

  it("asks a function for the key, and for what a request costs", function()
    local kit = load [[{
      rate = 10, per = 60,
      key = function(req) if req.path == "/free" then return false end return req.args.user end,
      cost = function(req) return req.method == "POST" and 5 or 1 end,
    }]]
    assert.equal("200 200 429", statuses(kit, 3, { method = "POST", path = "/?user=a" }))
    assert.equal("200 200", statuses(kit, 2, { method = "POST", path = "/?user=b" }))
    assert.equal("200 200 200", statuses(kit, 3, { method = "POST", path = "/free" }))
  end)

  it("does not say when to try again where that would never help", function()
    local kit = load '{ rate = 10, per = 60, cost = 11 }'
    local res = kit:request "/"
    assert.equal(429, res.status)
    assert.is_nil(res.headers["Retry-After"])
  end)

  it("has limits of their own for routes, the first that fits", function()
    local kit = load [[{ rate = 3, per = 60, routes = {
      { path = "/login", methods = { "POST" }, rate = 1, per = 60 },
      { path = { "/health", "/metrics" }, off = true },
      { path = "/api/", key = "header:X-Key", rate = 2, per = 60, name = "api" },
    } }]]
    assert.equal("200 429", statuses(kit, 2, { method = "POST", path = "/login/again" }))
    assert.equal("200 200 429", statuses(kit, 3, { path = "/api/a", headers = { ["X-Key"] = "k" } }))
    assert.equal("200 200 200 200", statuses(kit, 4, "/health"))
    assert.equal("200 200 200 429", statuses(kit, 4, "/login"))
    assert.equal(429, kit:request("/logins").status)
  end)

  it("limits nothing else where there are only routes", function()
    local kit = load '{ routes = { { path = "/login", rate = 1, per = 60 } } }'
    assert.equal("200 200 200", statuses(kit, 3, "/"))
    assert.equal("200 429", statuses(kit, 2, "/login"))
    assert.equal(429, kit:request("/x/../%6cogin").status)
  end)

  it("leaves out paths and networks", function()
    local kit = load '{ rate = 1, per = 60, except = { "/static" }, exempt = { "10.0.0.0/8" } }'
    assert.equal("200 200", statuses(kit, 2, "/static/a.css"))
    assert.equal("200 200", statuses(kit, 2, from "10.1.2.3"))
    assert.equal("200 429", statuses(kit, 2, from "192.0.2.1"))
  end)

  it("only notes what it would have refused in a dry run", function()
    local kit = load('{ rate = 1, per = 60, dry_run = true }', [[
      function site.on_response(req, res) res.headers["X-Limited"] = req.ctx.rate_limited end]])
    assert.is_nil(kit:request("/").headers["X-Limited"])
    local res = kit:request "/"
    assert.equal(200, res.status)
    assert.equal("rate_limit", res.headers["X-Limited"])
  end)

  it("tells where a client stands with every answer, or with none", function()
    local kit = load '{ rate = 2, per = 60, headers = "always" }'
    local headers = kit:request("/").headers
    assert.equal("1", headers["RateLimit-Remaining"])
    assert.equal("2", headers["RateLimit-Limit"])
    assert.is_nil(headers["Retry-After"])
    kit = load '{ rate = 1, per = 60, headers = "never" }'
    kit:request "/"
    local res = kit:request "/"
    assert.is_nil(res.headers["RateLimit"])
    assert.equal("60", res.headers["Retry-After"])
  end)

  it("keeps within two limits at once, and tells of the narrower one", function()
    local kit = load [[
      require "scripts.rate_limit" { name = "second", rate = 5, headers = "always" },
      require "scripts.rate_limit" { name = "hour", rate = 3, per = "1h", headers = "always" }]]
    local headers = kit:request("/").headers
    assert.equal("2", headers["RateLimit-Remaining"])
    assert.equal("3", headers["RateLimit-Limit"])
    assert.equal(2, #headers:all "RateLimit")
    assert.equal("200 200 429", statuses(kit, 3))
    kit:advance(2)
    assert.equal(429, kit:request("/").status)
  end)

  it("gives another answer if it is told so", function()
    local kit = load '{ rate = 1, per = 60, status = 503, body = "busy" }'
    kit:request "/"
    local res = kit:request "/"
    assert.equal("503 busy", res.status .. " " .. res.body)
    kit = load [[{ rate = 1, per = 60, reply = function(req, wait)
      if req.path == "/json" then return gate.reply(429, ('{"wait":%d}'):format(wait)) end
    end }]]
    kit:request "/"
    assert.equal('{"wait":60}', kit:request("/json").body)
    assert.equal("too many requests\n", kit:request("/").body)
  end)

  it("bounds what is under way at once, until the answer has been sent", function()
    local hold, held = true, 0
    local function gate_open() return not hold end
    local waiting = support.http.backend(function()
      held = held + 1
      support.eventually("the answer may go", gate_open)
      return 200, nil, "late"
    end)
    local proxy = support.moongate.start { values = { BACKEND = waiting }, config = [[
      return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } },
        use = { require "scripts.rate_limit" { concurrent = 1, key = "header:X-Key" } } }
    ]] }
    local function get(key) return http.get(proxy.port, "/", { headers = { ["X-Key"] = key } }) end
    local first = support.spawn(function() return get "a" end)
    support.eventually("the first is under way", function() return held == 1 end)
    local refused = get "a"
    assert.equal(429, refused.status)
    assert.equal("1", refused.headers["Retry-After"])
    local other = support.spawn(function() return get "b" end)
    support.eventually("the other is under way", function() return held == 2 end)
    hold = false
    assert.equal(200, first:join().status)
    assert.equal(200, other:join().status)
    support.eventually("the place is free again", function() return get("a").status == 200 end)
  end)

  it("refuses wrong options", function()
    policy.assert_refused("rate_limit", {
      ["{}"] = "rate_limit: expected a rate, concurrent, or routes with these",
      ["{ rate = -1 }"] = "rate_limit: rate is a number of more than 0",
      ["{ rate = 1, burts = 2 }"] = 'rate_limit: unknown option "burts", did you mean "burst"?',
      ["{ rate = 1, per = 'soon' }"] = "rate_limit: per is a time of more than 0 seconds",
      ["{ rate = 1, key = 'X-Key' }"] = 'rate_limit: key: expected "ip", "all", "header:NAME"',
      ["{ rate = 1, cost = 0 }"] = "rate_limit: cost: expected a number of more than 0",
      ["{ rate = 1, ipv6 = 60 }"] = "rate_limit: ipv6: expected 48, 64 or 128",
      ["{ rate = 1, headers = true }"] = 'rate_limit: headers: expected "refused", "always" or "never"',
      ["{ rate = 1, exempt = { '10.0.0/8' } }"] = "rate_limit: exempt: expected addresses and prefixes",
      ["{ routes = { { path = '/a' } } }"] = "rate_limit: routes[1]: expected a rate, concurrent or both, or off",
      ["{ routes = { { path = 'a', rate = 1 } } }"] = "rate_limit: routes[1].path: expected a path that begins with /",
      ["{ routes = { { paht = '/a', rate = 1 } } }"] = 'did you mean "path"?',
      ["{ routes = { { rate = 1, concurrent = 0 } } }"] = "rate_limit: routes[1]: concurrent is a whole number",
      ["{ rate = 1, routes = { path = '/a', rate = 1 } }"] = "rate_limit: routes: expected a list",
    })
  end)
end)
