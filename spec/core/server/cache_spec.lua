-- How operators see and steer the caches: `moongate cache`, the admin listener, figures, the access log, traces.

local uv = require "luv"
local json = require "support.json"
local support = require "support"
local it, http, moongate = support.it, support.http, support.moongate

-- A backend that answers by path, and a proxy before it, with what else its config wants.
local function start(options)
  options = options or {}
  local gate
  local backend = http.backend(function(request)
    local path = request.target:match "^/(%a*)"
    if path == "private" then return 200, { ["Cache-Control"] = "private" }, "mine" end
    if path == "missing" then return 404, {}, "none" end
    if path == "old" then
      if request.headers["If-None-Match"] then return 304, { ["Cache-Control"] = "max-age=0" } end
      return 200, { ["Cache-Control"] = "max-age=0", ETag = '"1"' }, "old"
    end
    return 200, { ["Cache-Control"] = "max-age=100", ["Surrogate-Key"] = path, Vary = options.vary }, "ok " .. path
  end)
  gate = moongate.start { values = { BACKEND = backend }, workers = options.workers, config = ([[
    local site = { listen = { %s %s }, backends = { app = { "$BACKEND", keepalive = 0 } },
      hosts = { "a.example" },
      cache = { memory = "8M", %s } }
    %s
    return { admin = "127.0.0.1:$PORT2", sites = { site },
      log = { access = "$DIR/access.log", access_format = "json" } }
  ]]):format(options.only and "" or '"127.0.0.1:$PORT",', options.only or options.listen or "", options.cache or "",
    options.policy or "") }
  return gate, backend
end

local function get(gate, target, headers)
  headers = headers or {}
  headers.Host = headers.Host or "a.example"
  return http.get(gate.port, target, { headers = headers })
end

local function cache(gate, verb, ...)
  return moongate.run { "cache", verb, "--control", gate.control, ... }
end

local function why(gate, url, ...)
  local status, out, err = cache(gate, "why", url, "--json", ...)
  assert.equal(0, status, err)
  return json.decode(out)
end

describe("moongate cache why", function()
  it("names the key, what is stored for it, and what would be answered", function()
    local gate, backend = start { vary = "Accept-Language" }
    get(gate, "/a?x=1", { ["Accept-Language"] = "de" })
    local url = "http://a.example/a?x=1"
    local found = why(gate, url, "-H", "Accept-Language: de")
    assert.equal("hit", found.result)
    assert.equal(url, found.key)
    assert.equal("a.example", found.site)
    local stored = found.variants[1]
    assert.same({ "accept-language" }, stored.vary)
    assert.same({ "a" }, stored.tags)
    assert.equal(200, stored.status)
    assert.equal(4, stored.bytes)
    assert.equal("whole", stored.body)
    assert.is_true(stored.fits)
    assert.is_true(stored.left > 90 and stored.left <= 100)
    local other = why(gate, url)
    assert.equal("miss", other.result)
    assert.equal("vary-miss", other.why)
    assert.is_false(other.variants[1].fits)
    assert.equal("uri-miss", why(gate, "http://a.example/b").why)
    assert.equal(1, #backend.requests)
    local _, out = cache(gate, "why", url, "-H", "Accept-Language: de")
    assert.matches("^GET http://a.example/a%?x=1, site a.example\n"
      .. "  key        http://a.example/a%?x=1\n  now        hit\n", out)
    assert.matches("  stored     200, by max%-age, varies by accept%-language, fits this request\n", out)
    assert.matches("fresh for %d+ s more\n +4 bytes %(whole%), %d+ hits, tags a\n", out)
  end)

  it("names the rule that keeps something out, by the word of Cache-Status", function()
    local gate = start()
    assert.matches("detail=private", get(gate, "/private").headers["Cache-Status"])
    local found = why(gate, "http://a.example/private")
    assert.equal("pass", found.result)
    assert.equal("private", found.why)
    assert.is_true(found.variants[1].pass)
    assert.equal("private", found.variants[1].rule)
    local _, out = cache(gate, "why", "http://a.example/private")
    assert.matches("now        pass: private\n  mark       not for the cache: private, ", out)
  end)

  it("goes through policy, which knows the key, and may want none", function()
    local gate = start { policy = [[
      function site.on_request(req)
        if req.path == "/deny" then return 403 end
        req.cache.bypass = req.path == "/bypass"
      end
      function site.cache_key(req) return req.path, req.headers["X-User"] end
    ]] }
    get(gate, "/a", { ["X-User"] = "ann" })
    local found = why(gate, "http://a.example/a", "--header", "X-User: ann")
    assert.equal("hit", found.result)
    assert.is_true(found.own_key)
    assert.equal("miss", why(gate, "http://a.example/a").result)
    found = why(gate, "http://a.example/bypass")
    assert.equal("bypass", found.result)
    assert.equal("policy", found.why)
    local status, _, err = cache(gate, "why", "http://a.example/deny")
    assert.equal(1, status)
    assert.equal("moongate: cache: the site answered 403 itself, before the cache was asked\n", err)
  end)

  it("tells a soft purge", function()
    local gate = start()
    get(gate, "/a")
    assert.equal(0, (cache(gate, "purge", "--soft", "--url", "http://a.example/a")))
    local found = why(gate, "http://a.example/a")
    assert.equal("miss", found.result)
    assert.equal("stale", found.why)
    assert.equal("soft", found.variants[1].purged)
  end)

  it("says what it cannot ask", function()
    local gate = start()
    local function refused(status, text, ...)
      local got, _, err = moongate.run { "cache", "why", "--control", gate.control, ... }
      assert.equal(text, err)
      assert.equal(status, got)
    end
    refused(2, "moongate: cache why needs a URL: moongate cache why URL [FILE]\n")
    refused(1, "moongate: cache: not an http:// or https:// URL\n", "a.example/a")
    refused(1, "moongate: cache: no listener that can be asked serves this URL\n", "http://b.example/a")
    refused(1, "moongate: cache: no listener that can be asked serves this URL\n", "https://a.example/a")
    refused(1, "moongate: cache: not a field of a request: 'Name: value'\n", "http://a.example/a", "-H", "x")
  end)
end)

describe("moongate cache purge", function()
  local function is_hit(gate, target) return get(gate, target).headers["Cache-Status"]:find "; hit" ~= nil end

  it("takes out a URL, a tag, a prefix, or all", function()
    local gate = start()
    for _, option in ipairs {
      { "--url", "http://A.example:80/%61" }, { "--tag", "a" }, { "--prefix", "http://a.example/a" }, { "--all" },
    } do
      get(gate, "/a")
      get(gate, "/b")
      assert.is_true(is_hit(gate, "/a"))
      local status, out, err = cache(gate, "purge", "--json", table.unpack(option))
      assert.equal(0, status, err)
      assert.matches('^{"purged":%d+,"soft":false,"sites":%["a.example"%]}\n$', out)
      assert.is_false(is_hit(gate, "/a"), option[1])
      assert.equal(option[1] ~= "--all", is_hit(gate, "/b"))
    end
  end)

  it("wants to know what, and which site", function()
    local gate = start()
    local function refused(status, text, ...)
      local got, _, err = cache(gate, "purge", ...)
      assert.equal(text, err)
      assert.equal(status, got)
    end
    refused(2, "moongate: cache purge takes one of --url, --tag, --prefix and --all\n")
    refused(2, "moongate: cache purge takes one of --url, --tag, --prefix and --all\n", "--all", "--tag", "a")
    refused(2, "moongate: cache: not an http:// or https:// URL\n", "--prefix", "/a")
    refused(1, "moongate: cache: there is no cache of a site of that name\n", "--all", "--site", "b.example")
    assert.equal(0, (cache(gate, "purge", "--all", "--site", "a.example")))
  end)
end)

describe("moongate cache warm", function()
  local function warm(gate, urls, ...)
    local path = support.temp_dir() .. "/urls"
    support.process.write_file(path, urls)
    return cache(gate, "warm", path, ...)
  end

  it("has each URL fetched through the site, and counts what came of it", function()
    local gate, backend = start()
    get(gate, "/here")
    local status, out, err = warm(gate, [[
# comments and empty lines are left out

http://a.example/a
http://a.example/b
http://a.example/here
http://a.example/private
]], "--concurrency", "2")
    assert.equal("2 stored, 1 already there, 1 refused, 0 failed\n  refused: private, 1\n", out)
    assert.equal("", err)
    assert.equal(0, status)
    assert.equal(4, #backend.requests)
    assert.matches("; hit", get(gate, "/b").headers["Cache-Status"])
  end)

  it("fails if one does, and says which", function()
    local gate = start()
    local urls = "http://a.example/a\nhttp://a.example/missing\nhttp://b.example/\n"
    local status, out, err = warm(gate, urls, "--concurrency", "1")
    assert.equal("1 stored, 0 already there, 0 refused, 2 failed\n", out)
    assert.equal("moongate: http://a.example/missing: answered with 404\n"
      .. "moongate: http://b.example/: no listener that can be asked serves this URL\n", err)
    assert.equal(1, status)
  end)

  it("prints a line of JSON for each", function()
    local gate = start()
    local _, out, err = warm(gate, "http://a.example/a\n", "--json")
    assert.equal('{"url":"http://a.example/a","result":"stored","status":200,"bytes":4}\n', out)
    assert.equal("1 stored, 0 already there, 0 refused, 0 failed\n", err)
  end)

  it("goes to listeners with TLS", function()
    local gate = start { listen = '{ "127.0.0.1:$PORT3", tls = "internal" }' }
    local url = ("https://a.example:%d/a"):format(gate.values.PORT3)
    local status, out = warm(gate, url .. "\n")
    assert.equal("1 stored, 0 already there, 0 refused, 0 failed\n", out)
    assert.equal(0, status)
    assert.equal("hit", why(gate, url).result)
  end)

  it("goes to unix sockets, and to listeners that want a PROXY header", function()
    local socket = support.process.temp_dir(true) .. "/a.sock"
    for _, listen in ipairs {
      '"unix:$SOCKET"', '{ "unix:$SOCKET", proxy_protocol = true }',
      '{ "127.0.0.1:$PORT3", proxy_protocol = true }', '{ "unix:$SOCKET", tls = "internal" }',
    } do
      local gate = start { only = listen:gsub("$SOCKET", socket) }
      local url = ("%s://a.example/a"):format(listen:find "tls" and "https" or "http")
      local status, out, err = warm(gate, url .. "\n")
      assert.equal("1 stored, 0 already there, 0 refused, 0 failed\n", out, err)
      assert.equal(0, status)
      assert.equal("hit", why(gate, url).result)
      gate:stop()
    end
  end)

  it("takes URLs of 8 KB, and says what is too long", function()
    local gate, backend = start()
    local url = "http://a.example/a?" .. ("x"):rep(8000)
    local _, out, err = warm(gate, url .. "\n" .. url .. ("x"):rep(10000) .. "\n")
    assert.equal("1 stored, 0 already there, 0 refused, 1 failed\n", out)
    assert.matches("that is too long: an order has 16000 bytes at most", err)
    assert.equal("hit", why(gate, url).result)
    assert.equal(1, #backend.requests)
  end)

  it("leaves nothing behind when the proxy stops", function()
    local gate = start { policy = [[
      local gate = require "moongate"
      function site.on_request(req) gate.sleep(60) end
    ]] }
    local task = support.spawn(function() return warm(gate, "http://a.example/a\n") end)
    support.eventually("the request", function()
      return gate:command "status" == 0 and select(2, gate:command("status", "--json")):find '"clients":1'
    end)
    gate:command("stop", "--now")
    task:join()
    gate:wait()
  end)
end)

describe("moongate cache status", function()
  it("tells figures of each cache", function()
    local gate = start()
    get(gate, "/a")
    get(gate, "/a")
    support.eventually("the count", function()
      local _, out = cache(gate, "status", "--json")
      local one = json.decode(out).caches[1]
      return one.site == "a.example" and one.objects == 1 and one.memory == 8 << 20 and one.used > 0
        and one.requests.hit == 1 and one.requests.miss == 1
    end)
    local status, out = cache(gate, "status")
    assert.equal(0, status)
    assert.matches("^cache of a.example\n  memory +%d+ %a+ of 8192 KiB\n  objects +1 stored now", out)
    assert.matches("\n  requests   2, hit 1 %(50.0 %%%), miss 1 %(50.0 %%%)\n$", out)
  end)
end)

describe("the admin listener", function()
  local function admin(gate, method, target, headers)
    return http.exchange(gate.values.PORT2, method, target, { headers = headers })
  end

  it("tells figures and why, and purges", function()
    local gate = start()
    get(gate, "/a")
    local answer = admin(gate, "GET", "/cache")
    assert.equal("application/json", answer.headers["Content-Type"])
    assert.equal(1, json.decode(answer.body).caches[1].objects)
    answer = admin(gate, "GET", "/cache/why?url=http://a.example/a&header=X:%20y")
    assert.equal(200, answer.status)
    assert.equal("hit", json.decode(answer.body).result)
    answer = admin(gate, "POST", "/cache/purge?tag=a&soft=1")
    assert.equal('{"purged":1,"soft":true,"sites":["a.example"]}\n\n', answer.body .. "\n")
    assert.equal("stale", json.decode(admin(gate, "GET", "/cache/why?url=http://a.example/a").body).why)
    assert.equal(200, admin(gate, "POST", "/cache/purge?all=1").status)
    assert.equal("uri-miss", json.decode(admin(gate, "GET", "/cache/why?url=http://a.example/a").body).why)
  end)

  it("wants the right method, names it knows, and no web page", function()
    local gate = start()
    get(gate, "/a")
    local answer = admin(gate, "GET", "/cache/purge?all=1")
    assert.equal(405, answer.status)
    assert.equal("POST", answer.headers.Allow)
    assert.equal(405, admin(gate, "POST", "/cache").status)
    assert.equal(400, admin(gate, "POST", "/cache/purge?all=1&sitee=x").status)
    assert.equal(400, admin(gate, "POST", "/cache/purge").status)
    assert.equal(409, admin(gate, "POST", "/cache/purge?all=1&site=x").status)
    assert.equal(403, admin(gate, "POST", "/cache/purge?all=1", { Origin = "http://evil.example" }).status)
    assert.equal(403, admin(gate, "POST", "/cache/purge?all=1", { ["Sec-Fetch-Site"] = "cross-site" }).status)
    local from_page = { ["Sec-Fetch-Site"] = "same-site" }
    assert.equal(403, admin(gate, "GET", "/cache/why?url=http://a.example/", from_page).status)
    assert.equal(1, json.decode(admin(gate, "GET", "/cache").body).caches[1].objects)
  end)

  it("is for this machine alone in what it does", function()
    local address
    for _, interface in pairs(uv.interface_addresses()) do
      if not interface.internal and interface.family == "inet" then address = interface.ip end
    end
    if not address then return pending "no other address here" end
    local gate = moongate.start { config = ([[
      return { admin = "%s:$PORT2", sites = { { listen = "127.0.0.1:$PORT", cache = { memory = "8M" } } } }
    ]]):format(address) }
    local function from_outside(method, target)
      return http.exchange(address .. ":" .. gate.values.PORT2, method, target).status
    end
    assert.equal(403, from_outside("POST", "/cache/purge?all=1"))
    assert.equal(403, from_outside("GET", "/cache/why?url=http://a.example/"))
    assert.equal(200, from_outside("GET", "/cache"))
  end)
end)

describe("what the cache did", function()
  -- The words of the log lines for these targets, in order.
  local function words(gate, count)
    local lines = {}
    support.eventually("the log", function()
      lines = {}
      for line in support.process.read_file(gate.dir .. "/access.log"):gmatch "[^\n]+" do
        local one = json.decode(line)
        lines[#lines + 1] = ("%s %s"):format(one.cache, one.cache_rule)
      end
      return #lines == count
    end)
    return lines
  end

  it("stands in the access log, with the rule, and is counted", function()
    local gate = start { workers = 1, policy = [[
      function site.on_request(req)
        if req.path == "/reply" then return 200 end
        req.cache.bypass = req.path == "/bypass"
      end
    ]] }
    for _, target in ipairs { "/a", "/a", "/private", "/private", "/old", "/old", "/bypass", "/reply" } do
      get(gate, target)
    end
    http.post(gate.port, "/a", "x", { headers = { Host = "a.example" } })
    get(gate, "/a", { ["Cache-Control"] = "no-store" })
    local null = tostring(json.null)
    assert.same({
      "miss max-age", "hit max-age", "pass private", "pass private", "miss max-age", "revalidated max-age",
      "bypass " .. null, null .. " " .. null, "bypass method", "bypass request-no-store",
    }, words(gate, 10))
    local page = http.get(gate.values.PORT2, "/metrics").body
    for result, n in pairs { hit = 1, miss = 2, pass = 2, revalidated = 1, bypass = 3, stale = 0, collapsed = 0 } do
      local series = ('moongate_cache_requests_total{site="a.example",result="%s"} %d\n'):format(result, n)
      assert.truthy(page:find(series, 1, true), series)
    end
    for _, series in ipairs {
      'moongate_cache_limit_bytes{site="a.example"} 8388608', 'moongate_cache_age_seconds_count{site="a.example"} 2',
      'moongate_cache_sent_bytes_total{site="a.example"} 7', 'moongate_cache_stored_total{site="a.example"} 2',
    } do
      assert.truthy(page:find(series .. "\n", 1, true), series .. "\n" .. page)
    end
  end)

  it("stands in a trace", function()
    local gate = start()
    local out
    local task = support.spawn(function()
      local _, text = moongate.run { "trace", "--control", gate.control, "--count", "3" }
      out = text
    end)
    support.eventually("the trace's end", function()
      get(gate, "/private")
      get(gate, "/a")
      return out
    end)
    task:join()
    assert.matches("\n  cache: %l+, not stored: private\n", out)
    assert.matches("\n  cache: hit, age 0 s, fresh for %d+ s\n", out .. "\n  cache: hit, age 0 s, fresh for 1 s\n")
  end)
end)

describe("a site's settings for what does not say it itself", function()
  it("keep errors for as long as `negative` says", function()
    local gate, backend = start { cache = 'negative = "1m"' }
    get(gate, "/missing")
    assert.matches("; hit; ttl=%d+", get(gate, "/missing").headers["Cache-Status"])
    assert.equal(1, #backend.requests)
    gate:stop()
    gate, backend = start { cache = "negative = { [410] = 60 }" }
    get(gate, "/missing")
    get(gate, "/missing")
    assert.equal(2, #backend.requests)
  end)

  it("serve what is stale while it is asked for anew, for as long as `stale` says", function()
    local gate = start { cache = "stale = 60" }
    get(gate, "/old")
    support.sleep(0.01) -- of age
    assert.matches("; hit; ttl=%-1", get(gate, "/old").headers["Cache-Status"])
  end)

  it("serve what is stale when the backend fails, for as long as `stale_if_error` says", function()
    for seconds, status in pairs { [60] = 200, [0] = 502 } do
      local gate, backend = start { cache = "stale_if_error = " .. seconds }
      get(gate, "/old")
      backend:close()
      support.sleep(0.01) -- of age
      assert.equal(status, get(gate, "/old").status)
      gate:stop()
    end
  end)
end)
