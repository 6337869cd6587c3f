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

  it("refuses wrong options", function()
    policy.assert_refused("security_headers", {
      ["{ frames = false }"] = 'security_headers: unknown option "frames"',
      ['{ frame = "NEVER" }'] = 'security_headers: frame: expected "DENY" or "SAMEORIGIN", got "NEVER"',
      ["{ csp = true }"] = "security_headers: csp: expected a string or false",
    })
  end)
end)
