-- req.cache, res.cache and gate.cache in the kit, where the clock can be moved. What they share with the proxy is in
-- spec/contract; what is stored, over the wire, in spec/core/proxy/on_store_spec.lua.

local testing = require "moongate.testing"
local it = require("support").it

local kit

local function load(policy, answer)
  kit = testing.load { text = ([[
    local gate = require "moongate"
    local said = {}
    local site = {
      listen = 8080, hosts = { "shop.test" }, cache = { memory = "1M", pass = 30 },
      backends = { app = { "127.0.0.1:9001" } },
    }
    %s
    return site
  ]]):format(policy) }
  kit:backend("app", answer or { headers = { ["Cache-Control"] = "max-age=60" }, body = "x" })
  return kit
end

local function get(path, headers) return kit:request { path = path or "/", host = "shop.test", headers = headers } end

local function logged(res, pattern)
  for _, line in ipairs(res.logs) do
    if line.text:find(pattern) then return true end
  end
end

-- What a hook's call says, as text.
local function say(hook, script)
  load(([[
    function site.%s(req, res)
      local function show(value)
        if type(value) == "table" then return table.concat(value, "+") end
        return tostring(value)
      end
      local list = table.pack(pcall(function() %s end))
      for i = 1, list.n do list[i] = show(list[i]) end
      res.headers["X-Said"] = table.concat(list, "|", 2, list.n)
    end
  ]]):format(hook, script))
  return get().headers["X-Said"]
end

describe("req.cache", function()
  it("has booleans, false at first", function()
    load [[
      function site.on_request(req)
        local c = req.cache
        return gate.reply(200, ("%s %s %s"):format(c.bypass, c.refresh, c.stale))
      end]]
    assert.equal("false false false", get().body)
  end)

  it("takes nothing else, and is read-only once the fetch has begun", function()
    load [[
      function site.on_request(req)
        local _, kind = pcall(function() req.cache.stale = 1 end)
        local _, name = pcall(function() req.cache.stales = true end)
        req.ctx.said = kind .. "|" .. name
      end
      function site.on_response(req, res)
        local _, late = pcall(function() req.cache.bypass = true end)
        res.headers["X-Said"] = req.ctx.said .. "|" .. late
      end]]
    local said = get().headers["X-Said"]
    assert.matches("req.cache.stale is true or false, not a number", said, 1, true)
    assert.matches("req.cache has no field 'stales' (did you mean 'stale'?)", said, 1, true)
    assert.matches("req is read-only", said, 1, true)
  end)

  it("stale answers without the backend, also what must be validated", function()
    load("function site.on_request(req) req.cache.stale = true end",
      { headers = { ["Cache-Control"] = "max-age=1, must-revalidate", ETag = '"1"' } })
    assert.equal("miss", get().cache)
    kit:advance(1000)
    local res = get()
    assert.equal("stale", res.cache)
    assert.equal(0, res.tries)
    assert.equal("1000", res.headers.Age)
  end)
end)

describe("res.cache", function()
  it("tells in on_store what the fields say", function()
    assert.equal("miss|0.0|60.0|0.0|0.0||false|max-age", say("on_store", [[
      local c = res.cache
      return c.status, c.age, c.ttl, c.stale, c.stale_if_error, c.tags, c.pass, c.rule]]))
  end)

  it("gives back what was assigned", function()
    assert.equal("10|60.0|3600.0|a+b|30.0", say("on_store", [[
      local c = res.cache
      c.ttl, c.stale, c.stale_if_error, c.tags, c.pass = 10, "1m", "1h", { "a", "b" }, true
      return math.tointeger(c.ttl), c.stale, c.stale_if_error, c.tags, c.pass]]))
    assert.equal("60.0|false", say("on_store", [[
      local c = res.cache
      c.ttl, c.pass = 10, 5
      c.ttl, c.pass = nil, nil
      return c.ttl, c.pass]]))
  end)

  it("refuses what makes no sense", function()
    local wrong = {
      ["res.cache.ttl = -1"] = "res.cache.ttl is a number of seconds, or such as \"10m\", not -1",
      ["res.cache.ttl = 0/0"] = "res.cache.ttl is a number of seconds",
      ["res.cache.ttl = '1 week'"] = "res.cache.ttl is a number of seconds, or such as \"10m\", not \"1 week\"",
      ["res.cache.stale = true"] = "res.cache.stale is a number of seconds, or such as \"10m\", not a boolean",
      ["res.cache.tags = 'a'"] = "res.cache.tags is a list of strings, not a string",
      ["res.cache.tags = { 1 }"] = "the one at 1 is a number",
      ["res.cache.tags = { '' }"] = "has 1 to 1024 bytes",
      ["res.cache.tags = { ('x'):rep(1025) }"] = "has 1 to 1024 bytes",
      ["local t = {} for i = 1, 65 do t[i] = 'a' end res.cache.tags = t"] = "at most 64 tags",
      ["res.cache.status = 'hit'"] = "res.cache.status is read-only",
      ["res.cache.time = 1"] = "res.cache has no field 'time'",
    }
    for script, why in pairs(wrong) do assert.matches(why, say("on_store", script), 1, true) end
  end)

  it("tells in on_response of what answers", function()
    load [[
      function site.on_store(req, res) res.cache.tags, res.cache.stale = { "b" }, 5 end
      function site.on_response(req, res)
        local c = res.cache
        local tags = table.concat(c.tags, "+")
        res.headers["X-Said"] = ("%s %g %g %g %s %s"):format(c.status, c.age, c.ttl, c.stale, c.key, tags)
      end]]
    kit:backend("app", { headers = { ["Cache-Control"] = "max-age=60", ["Cache-Tag"] = "a" }, body = "x" })
    assert.equal("miss 0 60 5 http://shop.test/?q b+a", get("/?q").headers["X-Said"])
    kit:advance(20)
    assert.equal("hit 20 40 5 http://shop.test/?q b+a", get("/?q").headers["X-Said"])
  end)

  it("counts servers and names them when a fill brought the answer", function()
    load [[
      function site.on_response(req, res)
        res.headers["X-Said"] = ("%s %s %d"):format(res.backend, res.server, res.tries)
      end]]
    assert.equal("app 127.0.0.1:9001 1", get().headers["X-Said"])
    assert.equal("nil nil 0", get().headers["X-Said"])
  end)

  it("is fresh for the ttl, and not a moment longer", function()
    load "function site.on_store(req, res) res.cache.ttl = 10 end"
    assert.equal("miss", get().cache)
    kit:advance(9)
    assert.equal("hit", get().cache)
    kit:advance(2)
    assert.equal("miss", get().cache)
  end)

  it("pass holds for one answer: the next may be for all", function()
    load [[
      function site.on_store(req, res)
        if req.args.mine then res.cache.pass = true else res.cache.ttl = 10 end
      end
      function site.cache_key(req) return req.path end]]
    for _ = 1, 2 do assert.equal("pass", get("/?mine=1").cache) end
    assert.equal("miss", get("/").cache)
    assert.equal("hit", get("/?mine=1").cache)
  end)

  it("is written down by the kit: what on_store changed", function()
    load "function site.on_store(req, res) res.cache.ttl = 5 res.headers['X'] = 'y' end"
    local hook = get().hooks[1]
    assert.equal("on_store", hook.hook)
    assert.same({
      { field = 'res.headers["X"]', after = "y" }, { field = "res.cache.ttl", after = "5" },
    }, hook.changes)
  end)

  it("of another kit is not seen", function()
    load ""
    get()
    assert.equal("hit", get().cache)
    kit:close()
    load ""
    assert.equal("miss", get().cache)
  end)
end)

describe("gate.cache.purge", function()
  it("makes stale what it purges softly", function()
    load [[
      function site.on_request(req)
        if req.path ~= "/purge" then return end
        return gate.reply(200, tostring(gate.cache.purge { url = "http://SHOP.test:80/%61", soft = true }))
      end]]
    kit:backend("app", function(request)
      local headers = { ["Cache-Control"] = "max-age=60", ETag = '"1"' }
      return { status = request.headers["If-None-Match"] and 304 or 200, headers = headers, body = "x" }
    end)
    get "/a"
    assert.equal("1", get("/purge").body)
    assert.equal("revalidated", get("/a").cache)
    assert.equal("hit", get("/a").cache)
  end)

  it("works without a request: in gate.every and in tasks", function()
    load "gate.every(10, function() gate.cache.purge { prefix = 'http://shop.test/' } end)"
    get()
    assert.equal("hit", get().cache)
    kit:advance(11)
    assert.equal("miss", get().cache)
  end)

  it("takes lists, and names of sites", function()
    load [[
      function site.on_store(req, res) res.cache.tags = { req.path } end
      function site.on_request(req)
        if req.path ~= "/purge" then return end
        gate.cache.purge { tag = { "/a", "/b" }, site = "shop.test" }
        return 204
      end]]
    for _, path in ipairs { "/a", "/b", "/c", "/purge" } do get(path) end
    assert.same({ "miss", "miss", "hit" }, { get("/a").cache, get("/b").cache, get("/c").cache })
  end)

  it("raises for what cannot be meant", function()
    local wrong = {
      ["{}"] = "takes one of url, prefix, tag, key and all = true",
      ["{ all = true, tag = 'a' }"] = "takes one of",
      ["{ tags = 'a' }"] = "has no option 'tags' (did you mean 'tag'?)",
      ["{ tag = 1 }"] = "tag is a string or a list of strings",
      ["{ tag = '' }"] = "is empty",
      ["{ url = 'nonsense' }"] = "\"nonsense\" is no URL",
      ["{ prefix = 'shop.test/' }"] = "is no beginning of a URL",
      ["{ all = 1 }"] = "all is true or false",
      ["{ all = true, site = 'other' }"] = "there is no site \"other\" with a cache",
      ["'all'"] = "table expected",
    }
    for what, why in pairs(wrong) do
      load(("local what = %s function site.on_request() gate.cache.purge(what) end"):format(what))
      local res = get()
      assert.equal(500, res.status)
      assert(logged(res, why:gsub("%p", "%%%0")), what)
    end
  end)
end)
