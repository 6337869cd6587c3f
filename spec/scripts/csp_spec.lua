local support = require "support"
local kits = require "scripts.kit"
local policy = require "scripts.policy"
local it = support.it

local function load(use, answer)
  local kit = kits.load { backends = 'app = { "127.0.0.1:9001" }', use = ('require "scripts.csp" %s'):format(use) }
  return kit:backend("app", answer or { headers = { ["Content-Type"] = "text/html" }, body = "<p>" })
end

local function html(body, more)
  local headers = { ["Content-Type"] = "text/html; charset=utf-8" }
  for name, value in pairs(more or {}) do headers[name] = value end
  return { headers = headers, body = body }
end

local NONCE <const> = "'nonce%-([%w+/]+=*)'"

-- luacheck: no max line length (messages stand in one line)
describe("scripts.csp", function()
  it("sends a policy, in an order that stays the same", function()
    for _, given in ipairs {
      [[{ ["img-src"] = "*", ["default-src"] = { "'self'", "https://cdn.example.com" },
        ["upgrade-insecure-requests"] = true }]],
      [["img-src *; default-src 'self' https://cdn.example.com; upgrade-insecure-requests;"]],
    } do
      local kit = load(("{ policy = %s }"):format(given))
      assert.equal("default-src 'self' https://cdn.example.com; img-src *; upgrade-insecure-requests",
        kit:request("/").headers["Content-Security-Policy"])
    end
  end)

  it("has a policy that is only watched", function()
    local headers = load([[{ report_only = "default-src 'none'" }]]):request("/").headers
    assert.equal("default-src 'none'", headers["Content-Security-Policy-Report-Only"])
    assert.is_nil(headers["Content-Security-Policy"])
  end)

  it("puts a new nonce into each policy and page", function()
    local page = ('<script nonce="place-holder">1</script>%s<script nonce="place-holder">2</script>')
      :format((" "):rep(100000))
    local kit = load([[{ policy = "script-src 'nonce' 'strict-dynamic'", placeholder = "place-holder" }]],
      html(page, { ["ETag"] = '"1"', ["Last-Modified"] = "Sun, 06 Nov 1994 08:49:37 GMT" }))
    local seen = {}
    for _ = 1, 3 do
      local res = kit:request { headers = { ["Accept"] = "text/html", ["Range"] = "bytes=0-9" } }
      local nonce = res.headers["Content-Security-Policy"]:match("^script%-src " .. NONCE .. " 'strict%-dynamic'$")
      assert.equal(24, #nonce)
      assert.equal((page:gsub("place%-holder", nonce)), res.body)
      assert.is_nil(seen[nonce])
      seen[nonce] = true
      assert.equal("private, no-cache", res.headers["Cache-Control"])
      assert.is_nil(res.headers["ETag"])
      assert.is_nil(res.headers["Last-Modified"])
      assert.is_nil(res.fetched[1].headers["Range"])
    end
  end)

  it("does not loosen no-store", function()
    local kit = load([[{ policy = "script-src 'nonce'", placeholder = "place-holder" }]],
      html("x", { ["Cache-Control"] = "no-store" }))
    assert.equal("no-store", kit:request("/").headers["Cache-Control"])
  end)

  it("tells the application the nonce, and does not believe a client's", function()
    local kit = load([[{ policy = "script-src 'nonce'", header = "X-Nonce" }]])
    kit:backend("app", function(request) return html(request.headers["X-Nonce"]) end)
    local res = kit:request { headers = { ["X-Nonce"] = "mine" } }
    assert.equal(res.body, res.headers["Content-Security-Policy"]:match(NONCE))
    assert.not_equal("mine", res.body)
  end)

  it("allows nothing in the nonce's place where no page can learn it", function()
    local use = [[{ policy = "default-src 'self'; script-src 'nonce'", placeholder = "place-holder" }]]
    local kit = load(use, { headers = { ["Content-Type"] = "image/svg+xml" }, body = "place-holder" })
    local res = kit:request "/"
    assert.equal("default-src 'self'; script-src 'none'", res.headers["Content-Security-Policy"])
    assert.equal("place-holder", res.body)
    kit = load(use, { status = 206, headers = { ["Content-Type"] = "text/html", ["Content-Range"] = "bytes 0-11/12" },
      body = "place-holder" })
    assert.equal("default-src 'self'; script-src 'none'", kit:request("/").headers["Content-Security-Policy"])
  end)

  it("leaves alone what is no document, a 304, and paths that are left out", function()
    local use = [[{ policy = "default-src 'self'", except = { "/docs" } }]]
    local function sent(answer, path)
      return load(use, answer):request(path or "/").headers["Content-Security-Policy"]
    end
    assert.is_nil(sent { headers = { ["Content-Type"] = "image/png" }, body = "x" })
    assert.is_nil(sent { status = 304 })
    assert.is_nil(sent(html "x", "/docs/a"))
    assert.equal("default-src 'self'", sent { body = "x" })
  end)

  it("keeps an application's own policy, or replaces it, or adds to it", function()
    local answer = html("x", { ["Content-Security-Policy"] = "default-src *" })
    for existing, lines in pairs {
      keep = { "default-src *" }, replace = { "default-src 'self'" }, add = { "default-src *", "default-src 'self'" },
    } do
      local kit = load(([[{ policy = "default-src 'self'", existing = %q }]]):format(existing), answer)
      assert.same(lines, kit:request("/").headers:all "Content-Security-Policy")
    end
  end)

  it("says where reports go, and takes both kinds", function()
    local kit = load [[{ policy = "default-src 'self'", report = "/.csp" }]]
    local headers = kit:request("/").headers
    assert.equal("default-src 'self'; report-to csp; report-uri /.csp", headers["Content-Security-Policy"])
    assert.equal('csp="/.csp"', headers["Reporting-Endpoints"])
    local old = [[{"csp-report":{"document-uri":"https://a.example/p?token=1",
      "blocked-uri":"https://evil.example/x?y#z", "violated-directive":"script-src",
      "effective-directive":"script-src-elem","source-file":"https://a.example/s.js", "line-number":3}}]]
    local res = kit:request { method = "POST", path = "/.csp", body = old }
    assert.equal(204, res.status)
    assert.matches("csp: script%-src%-elem blocked https://evil.example/x on https://a.example/p from ", res.logs[1].text)
    assert.matches(" from https://a.example/s.js:3, seen by 127.0.0.1", res.logs[1].text)
    local new = [=[[{"type":"csp-violation","body":{"documentURL":"https://a.example/","blockedURL":"inline",
      "effectiveDirective":"style-src-attr"}},{"type":"deprecation","body":{}}]]=]
    res = kit:request { method = "POST", path = "/.csp", body = new }
    assert.equal(204, res.status)
    assert.equal(1, #res.logs)
    assert.matches("style%-src%-attr blocked inline on https://a.example/, seen by 127.0.0.1", res.logs[1].text)
  end)

  it("takes no nonsense, nothing large, and not too much of it", function()
    local kit = load [[{ policy = "default-src 'self'", report = "/.csp" }]]
    local function post(body) return kit:request({ method = "POST", path = "/.csp", body = body }) end
    assert.equal(405, kit:request("/.csp").status)
    assert.equal(413, post(("x"):rep(20000)).status)
    for _, body in ipairs { "", "{", "[]", "1", '{"csp-report":1}', '[{"type":"csp-violation","body":[1,null]}, 2]' } do
      local status = post(body).status
      assert(status == 400 or status == 204, body)
    end
    local res = post '{"csp-report":{"blocked-uri":"a\\r\\nforged line","effective-directive":7,"line-number":"x"}}'
    assert.equal(204, res.status)
    assert.is_nil(res.logs[1].text:find "[\r\n]")
    local last
    for _ = 1, 30 do last = post '{"csp-report":{}}'.status end
    assert.equal(429, last)
  end)

  it("gives reports to a function", function()
    local kit = load [[{ policy = "default-src 'self'", report = "/.csp",
      on_report = function(report, req) gate.log("info", "mine", report.directive, report.sample) end }]]
    local body = '{"csp-report":{"violated-directive":"img-src","script-sample":"s"}}'
    local res = kit:request { path = "/.csp", body = body }
    assert.matches("mine img%-src s", res.logs[1].text)
  end)

  it("refuses wrong options", function()
    policy.assert_refused("csp", {
      ["{}"] = "csp: expected policy, report_only or both",
      ["{ policy = {} }"] = "csp: policy: is empty",
      ["{ policy = 1 }"] = "csp: policy: expected a table of directives, or a text",
      [ [[{ policy = "script-source 'self'" }]] ] = 'csp: policy: unknown directive "script-source"',
      [ [[{ policy = "scrip-src 'self'" }]] ] = 'did you mean "script-src"?',
      [ [[{ policy = "default-src self" }]] ] = "csp: policy: default-src: self stands in quotes",
      [ [[{ policy = "default-src 'slef'" }]] ] = 'csp: policy: default-src: unknown keyword "slef", did you mean "self"?',
      [ [[{ policy = "default-src 'none' 'self'" }]] ] = "csp: policy: default-src: 'none' stands alone",
      [ [[{ policy = { ["img-src"] = { "a b" } } }]] ] = "csp: policy: img-src: expected a source",
      [ [[{ policy = "img-src *; img-src 'self'" }]] ] = "csp: policy: img-src: stands there twice",
      [ [[{ policy = "script-src 'nonce'" }]] ] = "csp: 'nonce': say by placeholder or header how pages learn it",
      [ [[{ policy = "img-src *", header = "X-Nonce" }]] ] = "csp: placeholder or header: 'nonce' stands in no directive",
      [ [[{ policy = "script-src 'nonce'", placeholder = "x" }]] ] = "csp: placeholder: expected a text of 8 to 128",
      [ [[{ policy = "img-src *", existing = "merge" }]] ] = 'csp: existing: expected "keep", "replace" or "add"',
      [ [[{ policy = "img-src *", reports = "/x" }]] ] = 'did you mean "report"?',
    })
  end)
end)
