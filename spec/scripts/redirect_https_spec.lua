-- luacheck: no max line length (cases stand in one line)
local support = require "support"
local policy = require "scripts.policy"
local it, http = support.it, support.http

describe("scripts.redirect_https", function()
  it("sends clients to the same address by https, with the method they used", function()
    local port, backend = policy.start("redirect_https", "{}")
    local response = http.post(port, "/a/b?c=d%20e", "body", { headers = { Host = "example.com:8080" } })
    assert.equal(308, response.status)
    assert.equal("https://example.com/a/b?c=d%20e", response.headers["Location"])
    assert.equal(0, #backend.requests)
  end)

  it("knows other ports, hosts and statuses", function()
    local port = policy.start("redirect_https", '{ status = 301, host = "www.example.com", port = 8443 }')
    local response = http.get(port, "/")
    assert.equal(301, response.status)
    assert.equal("https://www.example.com:8443/", response.headers["Location"])
  end)

  it("lets the paths through by which certificates are renewed", function()
    local port, backend = policy.start("redirect_https", "{}")
    assert.equal(200, http.get(port, "/.well-known/acme-challenge/token").status)
    assert.equal(308, http.get(port, "/.well-known/acme-challenges").status)
    assert.equal(1, #backend.requests)
  end)

  it("leaves alone who came to a trusted proxy by https", function()
    local port = policy.start("redirect_https", "{}", { site = 'trusted_proxies = { "127.0.0.1" },' })
    assert.equal(200, http.get(port, "/", { headers = { ["X-Forwarded-Proto"] = "https" } }).status)
    assert.equal(308, http.get(port, "/", { headers = { ["X-Forwarded-Proto"] = "http" } }).status)
  end)

  it("understands targets of every form", function()
    local port = policy.start("redirect_https", "{ max_age = 60 }")
    local cases = {
      ["/a?b=http://c/"] = "/a?b=http://c/", ["http://other.example/x?y"] = "/x?y", ["http://other.example"] = "/",
      ["http://other.example?y"] = "/?y", ["//evil.example/"] = "//evil.example/", ["/a%0d%0aSet-Cookie:x"] = "/a%0d%0aSet-Cookie:x",
    }
    for target, path in pairs(cases) do
      local response = http.get(port, target, { headers = { Host = "other.example" } })
      assert.equal("https://other.example" .. path, response.headers["Location"], target)
      assert.equal("max-age=60", response.headers["Cache-Control"])
    end
  end)

  it("does not guess the host of a request that names none", function()
    local port, backend = policy.start("redirect_https", "{}")
    local conn = support.net.connect(port)
    conn:send "GET / HTTP/1.0\r\n\r\n"
    assert.equal(400, http.response(conn).status)
    port = policy.start("redirect_https", '{ host = "www.example.com" }')
    conn = support.net.connect(port)
    conn:send "GET /x HTTP/1.0\r\n\r\n"
    assert.equal("https://www.example.com/x", http.response(conn).headers["Location"])
    assert.equal(0, #backend.requests)
  end)

  it("believes nobody else who says https", function()
    local port = policy.start("redirect_https", "{}")
    assert.equal(308, http.get(port, "/", { headers = { ["X-Forwarded-Proto"] = "https", Forwarded = "proto=https" } }).status)
  end)

  it("refuses wrong options", function()
    policy.assert_refused("redirect_https", {
      ["{ status = 200 }"] = "redirect_https: status: expected 301, 302, 307 or 308",
      ["{ port = 0 }"] = "redirect_https: port: expected a number from 1 to 65535",
      ['{ except = { "a" } }'] = "redirect_https: except: expected a path that begins with / at [1]",
      ["{ hots = 'a' }"] = 'redirect_https: unknown option "hots", did you mean "host"?',
    })
  end)
end)
