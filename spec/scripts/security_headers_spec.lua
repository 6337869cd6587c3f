-- luacheck: no max line length (cases stand in one line)
local support = require "support"
local policy = require "scripts.policy"
local it, http = support.it, support.http

local function get(options, settings, request)
  local port = policy.start("security_headers", options, settings)
  return http.get(port, "/", request).headers
end

describe("scripts.security_headers", function()
  it("adds what is safe for every site", function()
    local headers = get "{}"
    assert.equal("nosniff", headers["X-Content-Type-Options"])
    assert.equal("SAMEORIGIN", headers["X-Frame-Options"])
    assert.equal("strict-origin-when-cross-origin", headers["Referrer-Policy"])
    assert.is_nil(headers["Content-Security-Policy"])
  end)

  it("adds what it is told and leaves out what it is told to", function()
    local headers = get [[{ frame = "DENY", referrer = false, csp = "default-src 'self'" }]]
    assert.equal("DENY", headers["X-Frame-Options"])
    assert.equal("default-src 'self'", headers["Content-Security-Policy"])
    assert.is_nil(headers["Referrer-Policy"])
  end)

  it("keeps what the application has set", function()
    local headers = get("{}", { headers = { ["X-Frame-Options"] = "DENY" } })
    assert.same({ "DENY" }, headers:all "X-Frame-Options")
  end)

  it("speaks of https to clients that came by https only", function()
    assert.is_nil(get("{}")["Strict-Transport-Security"])
    local site = { site = 'trusted_proxies = { "127.0.0.1" },' }
    local headers = get("{}", site, { headers = { ["X-Forwarded-Proto"] = "https" } })
    assert.equal("max-age=31536000", headers["Strict-Transport-Security"])
  end)

  it("says of HSTS what it is told", function()
    local site = { site = 'trusted_proxies = { "127.0.0.1" },' }
    local function hsts(options)
      return get(options, site, { headers = { ["X-Forwarded-Proto"] = "https" } })["Strict-Transport-Security"]
    end
    assert.equal("max-age=3600", hsts '{ hsts = { max_age = "1h" } }')
    assert.equal("max-age=31536000; includeSubDomains; preload", hsts "{ hsts = { subdomains = true, preload = true } }")
    assert.equal("max-age=5", hsts '{ hsts = "max-age=5" }')
    assert.is_nil(hsts "{ hsts = false }")
  end)

  it("says it to who comes by TLS itself", function()
    local kit = require("moongate.testing").load { text = [[
      return { listen = { { "127.0.0.1:8443", tls = "internal" }, "127.0.0.1:8080" },
        use = { require "scripts.security_headers" {} }, on_request = 204 } ]] }
    assert.equal("max-age=31536000", kit:request({ path = "/", listen = "127.0.0.1:8443" }).headers["Strict-Transport-Security"])
    assert.is_nil(kit:request({ path = "/", listen = "127.0.0.1:8080" }).headers["Strict-Transport-Security"])
  end)

  it("replaces and removes what it is told to", function()
    local headers = get('{ frame = "DENY", override = true, remove = { "Server", "X-Powered-By" } }',
      { headers = { ["X-Frame-Options"] = "ALLOWALL", ["Server"] = "x/1.0", ["X-Powered-By"] = "y" } })
    assert.equal("DENY", headers["X-Frame-Options"])
    assert.is_nil(headers["X-Powered-By"])
    assert.is_nil(headers["Server"])
  end)

  it("refuses wrong options", function()
    policy.assert_refused("security_headers", {
      ["{ frames = false }"] = 'security_headers: unknown option "frames", did you mean "frame"?',
      ['{ frame = "NEVER" }'] = 'security_headers: frame: expected "SAMEORIGIN", "DENY" or false, got "NEVER"',
      ["{ hsts = 5 }"] = 'security_headers: hsts: expected "max-age=…", a table or false, got 5',
      ['{ hsts = "preload" }'] = "security_headers: hsts: expected",
      ["{ hsts = { max_ages = 5 } }"] = 'unknown option "hsts.max_ages", did you mean "max_age"?',
      ['{ hsts = { preload = true, max_age = "400d" } }'] = "security_headers: hsts.preload: browsers' lists take it",
      ['{ hsts = { preload = true, subdomains = true, max_age = "1h" } }'] = "security_headers: hsts.preload:",
      ['{ opener = "same" }'] = 'security_headers: opener: expected "same-origin"',
      ["{ csp = true }"] = "security_headers: csp: expected a string or false",
    })
  end)
end)
