-- PURGE: who may, what it hits, and what a site that has no `purge` does with it.

local support = require "support"
local it, http, moongate = support.it, support.http, support.moongate

local function start(cache, policy)
  local backend = http.backend(function(request)
    return 200, { ["Cache-Control"] = "max-age=100", ["Surrogate-Key"] = "all " .. request.target:sub(2, 2),
                  Vary = "Accept-Language" }, request.method .. " " .. request.target
  end)
  local gate = moongate.start { values = { BACKEND = backend }, config = ([[
    local site = { listen = "127.0.0.1:$PORT", trusted_proxies = { "127.0.0.1" }, backends = { app = { "$BACKEND" } },
      cache = { memory = "8M", %s } }
    %s
    return site
  ]]):format(cache, policy or "") }
  return gate, backend
end

local function status_of(gate, target, headers)
  return http.get(gate.port, target, { headers = headers }).headers["Cache-Status"]
end

local function is_hit(gate, target, headers) return status_of(gate, target, headers):find "; hit" ~= nil end

local function purge(gate, target, headers)
  return http.exchange(gate.port, "PURGE", target, { headers = headers })
end

describe("PURGE", function()
  it("takes a URL out of the cache, with all its variants, and says so", function()
    local gate, backend = start 'purge = "127.0.0.1"'
    http.get(gate.port, "/a?x=1", { headers = { ["Accept-Language"] = "en" } })
    http.get(gate.port, "/a?x=1", { headers = { ["Accept-Language"] = "de" } })
    http.get(gate.port, "/b")
    local answer = purge(gate, "/a?x=1")
    assert.equal(200, answer.status)
    assert.equal('{"purged":2,"soft":false}\n', answer.body)
    assert.equal("application/json", answer.headers["Content-Type"])
    assert.equal("moongate; detail=purged", answer.headers["Cache-Status"])
    assert.is_false(is_hit(gate, "/a?x=1", { ["Accept-Language"] = "en" }))
    assert.is_false(is_hit(gate, "/a?x=1", { ["Accept-Language"] = "de" }))
    assert.is_true(is_hit(gate, "/b"))
    for _, request in ipairs(backend.requests) do assert.equal("GET", request.method) end
  end)

  it("finds a URL whatever its key is made of, and whichever scheme it was asked for by", function()
    local gate = start('purge = "127.0.0.1"', [[
      function site.cache_key(req) return req.path, req.headers["X-User"] end]])
    http.get(gate.port, "/a", { headers = { ["X-User"] = "ann" } })
    http.get(gate.port, "/a", { headers = { ["X-User"] = "bob", ["X-Forwarded-Proto"] = "https" } })
    assert.equal('{"purged":2,"soft":false}\n', purge(gate, "/a").body)
    assert.is_false(is_hit(gate, "/a", { ["X-User"] = "ann" }))
  end)

  it("takes a prefix, with a star at its end", function()
    local gate = start 'purge = "127.0.0.1"'
    for _, target in ipairs { "/a/1", "/a/2", "/b/1" } do http.get(gate.port, target) end
    assert.equal(200, purge(gate, "/a/*").status)
    assert.is_false(is_hit(gate, "/a/1"))
    assert.is_false(is_hit(gate, "/a/2"))
    assert.is_true(is_hit(gate, "/b/1"))
  end)

  it("takes tags, by the names that others have for that field", function()
    for field, value in pairs { ["Surrogate-Key"] = "x a", Xkey = "a", ["Cache-Tag"] = "x,a" } do
      local gate = start 'purge = "127.0.0.1"'
      http.get(gate.port, "/a")
      http.get(gate.port, "/b")
      assert.equal('{"purged":1,"soft":false}\n', purge(gate, "/b", { [field] = value }).body)
      assert.is_false(is_hit(gate, "/a"))
      assert.is_true(is_hit(gate, "/b"))
      gate:stop()
    end
  end)

  it("makes stale instead, when that is wanted", function()
    for field, value in pairs { ["Cache-Purge"] = "soft", ["Fastly-Soft-Purge"] = "1" } do
      local gate = start 'purge = "127.0.0.1"'
      http.get(gate.port, "/a")
      assert.equal('{"purged":1,"soft":true}\n', purge(gate, "/a", { [field] = value }).body)
      assert.matches("fwd=stale", status_of(gate, "/a"))
      assert.is_true(is_hit(gate, "/a"))
      gate:stop()
    end
  end)

  it("is refused to others, behind a trusted proxy by the real client, and not sent on", function()
    local gate, backend = start 'purge = { "127.0.0.1", "10.1.0.0/16" }'
    http.get(gate.port, "/a")
    local answer = purge(gate, "/a", { ["X-Forwarded-For"] = "192.0.2.1" })
    assert.equal(403, answer.status)
    assert.matches("purging is not allowed from this address", answer.body, 1, true)
    assert.is_true(is_hit(gate, "/a"))
    assert.equal(200, purge(gate, "/a", { ["X-Forwarded-For"] = "10.1.2.3" }).status)
    assert.is_false(is_hit(gate, "/a"))
    assert.equal(2, #backend.requests)
  end)

  it("is policy's to refuse, too", function()
    local gate = start('purge = "127.0.0.1"', [[
      function site.on_request(req) if req.method == "PURGE" then return 405 end end]])
    http.get(gate.port, "/a")
    assert.equal(405, purge(gate, "/a").status)
    assert.is_true(is_hit(gate, "/a"))
  end)

  it("is a method like any other where the site has no `purge`", function()
    local gate = start ""
    local answer = purge(gate, "/a")
    assert.equal("PURGE /a", answer.body)
  end)
end)
