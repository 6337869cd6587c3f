local support = require "support"
local mmdb = require "support.mmdb"
local testing = require "moongate.testing"
local policy = require "scripts.policy"
local it = support.it

local function country(code) return { country = { iso_code = code } } end

-- A site beside a small database, in which a text may be put in the place of another.
local function load(use, more, from, to)
  local folder = support.temp_dir()
  mmdb.write(folder .. "/geo.mmdb", {
    ["192.0.2.0/24"] = country "DE", ["198.51.100.0/24"] = country "FR", ["203.0.113.0/24"] = country "US",
    ["2001:db8::/32"] = { registered_country = { iso_code = "CH" }, continent = { code = "EU" } },
  })
  if from then
    local file <close> = assert(io.open(folder .. "/geo.mmdb", "r+b"))
    local bytes = file:read "a"
    file:seek("set", bytes:find(from, 1, true) - 1)
    file:write(to)
  end
  support.process.write_file(folder .. "/site.lua", ([[
    local site = { listen = 8080, backends = { app = { "127.0.0.1:9001" } }, %s
      use = { require "scripts.geo_redirect" %s } }
    return site]]):format(more or "", use))
  return testing.load(folder .. "/site.lua"):backend("app", "ok")
end

local function get(kit, ip, path, more)
  local request = { path = path or "/", client = { ip = ip } }
  for name, value in pairs(more or {}) do request[name] = value end
  return kit:request(request)
end

local GERMAN <const>, FRENCH <const>, AMERICAN <const> = "192.0.2.1", "198.51.100.1", "203.0.113.1"
local SWISS <const>, UNKNOWN <const> = "2001:db8::1", "10.0.0.1"

describe("scripts.geo_redirect", function()
  it("keeps out the countries that are denied", function()
    local kit = load '{ file = "geo.mmdb", deny = { "DE", "CH" } }'
    local res = get(kit, GERMAN)
    assert.equal("403 not available where you are\n", res.status .. " " .. res.body)
    assert.equal("no-store", res.headers["Cache-Control"])
    assert.equal(403, get(kit, SWISS).status) -- by where the address is registered
    assert.equal(200, get(kit, FRENCH).status)
    assert.equal(200, get(kit, UNKNOWN).status)
  end)

  it("lets in only those that are allowed, the unknown if it is told so", function()
    local kit = load '{ file = "geo.mmdb", allow = { "DE", "FR" }, deny = { "FR" }, status = 451, body = "no" }'
    assert.equal(200, get(kit, GERMAN).status)
    assert.equal(451, get(kit, FRENCH).status)
    assert.equal("no", get(kit, UNKNOWN).body)
    kit = load '{ file = "geo.mmdb", allow = { "ZZ" } }'
    assert.equal(200, get(kit, UNKNOWN).status)
    assert.equal(403, get(kit, GERMAN).status)
  end)

  it("believes trusted proxies, and nobody else, where a client is", function()
    local use = '{ file = "geo.mmdb", deny = { "DE" } }'
    local said = { headers = { ["X-Forwarded-For"] = FRENCH } }
    assert.equal(403, get(load(use), GERMAN, "/", said).status)
    assert.equal(200, get(load(use, 'trusted_proxies = { "192.0.2.0/24" },'), GERMAN, "/", said).status)
  end)

  it("leaves paths and networks alone", function()
    local kit = load '{ file = "geo.mmdb", deny = { "DE" }, except = { "/imprint" }, exempt = { "192.0.2.128/25" } }'
    assert.equal(200, get(kit, GERMAN, "/imprint").status)
    assert.equal(200, get(kit, "192.0.2.129").status)
    assert.equal(403, get(kit, GERMAN).status)
  end)

  it("sends countries elsewhere with path and query", function()
    local kit = load '{ file = "geo.mmdb", redirect = { DE = "https://de.example.com/", FR = "/fr" } }'
    local res = get(kit, GERMAN, "/a%20b?c=d&e")
    assert.equal(302, res.status)
    assert.equal("https://de.example.com/a%20b?c=d&e", res.headers["Location"])
    assert.equal("no-store", res.headers["Cache-Control"])
    assert.equal("/fr/a", get(kit, FRENCH, "/a").headers["Location"])
    assert.equal("/fr//evil.example/", get(kit, FRENCH, "//evil.example/").headers["Location"])
    assert.equal(200, get(kit, AMERICAN).status)
    kit = load [[{ file = "geo.mmdb", redirect = { DE = "https://de.example.com/x" },
      keep_path = false, redirect_status = 307 }]]
    res = get(kit, GERMAN, "/a?b")
    assert.equal("307 https://de.example.com/x", res.status .. " " .. res.headers["Location"])
  end)

  it("sends nobody in circles, nobody who has chosen, and no request with a body", function()
    local kit = load [[{ file = "geo.mmdb", redirect = { DE = "https://de.example.com", FR = "/fr" },
      choice = { cookie = "country", arg = "stay" } }]]
    assert.equal(200, get(kit, GERMAN, "/", { host = "de.example.com" }).status)
    assert.equal(302, get(kit, GERMAN, "/", { host = "www.example.com" }).status)
    assert.equal(200, get(kit, FRENCH, "/fr").status)
    assert.equal(200, get(kit, FRENCH, "/fr/a").status)
    assert.equal(302, get(kit, FRENCH, "/fritz").status)
    assert.equal(200, get(kit, FRENCH, "/?stay").status)
    assert.equal(200, get(kit, FRENCH, "/", { headers = { ["Cookie"] = "country=us" } }).status)
    assert.equal(200, get(kit, FRENCH, "/", { method = "POST", body = "x" }).status)
  end)

  it("tells the application, which cannot be told so by the client", function()
    local kit = load '{ file = "geo.mmdb", header = "X-Country" }'
    local forged = { headers = { ["X-Country"] = "XX" } }
    assert.equal("DE", get(kit, GERMAN, "/", forged).fetched[1].headers["X-Country"])
    assert.equal("ZZ", get(kit, UNKNOWN, "/", forged).fetched[1].headers["X-Country"])
    kit = load '{ file = "geo.mmdb", header = "X-Continent", path = { "continent", "code" }, deny = { "AF" } }'
    assert.equal("EU", get(kit, SWISS).fetched[1].headers["X-Continent"])
  end)

  it("lets nobody in whom a damaged database would have to speak for, if it decides", function()
    local wrong = "\x2f\xff\xff" -- a pointer out of the file, in the place of a text of two letters
    local kit = load('{ file = "geo.mmdb", deny = { "US" } }', "", "\x42DE", wrong)
    local res = get(kit, GERMAN)
    assert.equal(503, res.status)
    assert.matches("geo_redirect:", res.logs[1].text)
    assert.equal(200, get(kit, FRENCH).status)
    kit = load('{ file = "geo.mmdb", header = "X-Country" }', "", "\x42DE", wrong)
    assert.is_nil(get(kit, GERMAN).fetched[1].headers["X-Country"])
  end)

  it("refuses wrong options", function()
    policy.assert_refused("geo_redirect", {
      ["{}"] = "geo_redirect: file: must be given",
      ['{ file = "missing.mmdb", deny = { "DE" } }'] = "geo_redirect: file: ",
      ['{ file = "x" }'] = "geo_redirect: expected allow, deny, redirect or header",
      ['{ file = "x", deny = { "de" } }'] = 'geo_redirect: deny[1]: expected a country such as "DE", got "de"',
      ['{ file = "x", redirect = { DE = "de.example.com" } }'] = "geo_redirect: redirect.DE: expected a URL",
      ['{ file = "x", redirect = { DE = "//de.example.com" } }'] = "geo_redirect: redirect.DE: expected a URL",
      ['{ file = "x", redirect = { DE = "javascript:1" } }'] = "geo_redirect: redirect.DE: expected a URL",
      ['{ file = "x", redirect = { "https://a.example" } }'] = "geo_redirect: redirect: expected countries = addresses",
      ['{ file = "x", deny = { "DE" }, redirect_status = 200 }'] = "geo_redirect: redirect_status: expected 301",
      ['{ file = "x", alow = { "DE" } }'] = 'did you mean "allow"?',
    })
  end)
end)
