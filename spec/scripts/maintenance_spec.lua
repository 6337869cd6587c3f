local support = require "support"
local testing = require "moongate.testing"
local kits = require "scripts.kit"
local policy = require "scripts.policy"
local it = support.it

local SECRET <const> = "0123456789abcdef"

local function load(use, more)
  local kit = kits.load {
    backends = 'app = { "127.0.0.1:9001" }', use = ('require "scripts.maintenance" %s'):format(use), more = more,
  }
  return kit:backend("app", "ok")
end

local function turn(kit, method, query, secret)
  return kit:request {
    method = method, path = "/.m" .. (query or ""), headers = { ["Authorization"] = "Bearer " .. (secret or SECRET) },
  }
end

local CONTROL <const> = ('control = { path = "/.m", secret = "%s" }'):format(SECRET)

describe("scripts.maintenance", function()
  it("shows the page while the switch is on, and only then", function()
    local kit = load(("{ %s }"):format(CONTROL))
    assert.equal(200, kit:request("/").status)
    assert.equal('{"on":true}\n', turn(kit, "PUT").body)
    local res = kit:request "/"
    assert.equal(503, res.status)
    assert.matches("Back soon", res.body)
    assert.equal("text/html; charset=utf-8", res.headers["Content-Type"])
    assert.equal("120", res.headers["Retry-After"])
    assert.equal("no-store", res.headers["Cache-Control"])
    assert.same({}, res.tried)
    assert.equal('{"on":false}\n', turn(kit, "DELETE").body)
    assert.equal(200, kit:request("/").status)
  end)

  it("is turned by a script through gate.shared", function()
    local kit = load("{}", [[
      local switch = gate.shared "maintenance"
      function site.on_response(req) if req.path == "/turn" then switch:set("state", true) end end]])
    assert.equal(200, kit:request("/turn").status)
    assert.equal(503, kit:request("/").status)
  end)

  it("lets nobody turn the switch without the secret", function()
    local kit = load(("{ %s }"):format(CONTROL))
    for _, secret in ipairs { "wrong", "", SECRET .. "x" } do
      assert.equal(401, turn(kit, "PUT", "", secret).status)
      assert.equal(401, turn(kit, "GET", "", secret).status)
    end
    assert.equal(401, kit:request({ method = "PUT", path = "/.m" }).status)
    assert.equal(405, turn(kit, "POST").status)
    assert.equal(200, kit:request("/").status)
  end)

  it("begins and ends by itself, and says when", function()
    local kit = load(("{ %s }"):format(CONTROL))
    turn(kit, "PUT", "?for=30m&message=a+%3Cb%3E")
    local res = kit:request "/"
    assert.equal("1800", res.headers["Retry-After"])
    assert.matches("a &lt;b&gt;", res.body)
    kit:advance(1800)
    assert.equal(200, kit:request("/").status)
    turn(kit, "PUT", "?begins=2026-01-02T00:00:00Z&ends=2026-01-02T01:00:00Z")
    assert.equal(200, kit:request("/").status)
    kit:advance(86400)
    assert.equal(503, kit:request("/").status)
    kit:advance(3600)
    assert.equal(200, kit:request("/").status)
    assert.equal(400, turn(kit, "PUT", "?for=soon").status)
    assert.equal(400, turn(kit, "PUT", "?ends=tomorrow").status)
  end)

  it("lets operators pass, and keeps to itself what proves that they are", function()
    local kit = load [[{ on = true, ips = { "10.0.0.0/8" }, except = { "/health" },
      cookie = { name = "pass", value = "a cookie's value" },
      header = { name = "X-Pass", value = "a header's value" } }]]
    assert.equal(503, kit:request("/").status)
    assert.equal(200, kit:request("/health/a").status)
    assert.equal(503, kit:request("/healthy").status)
    assert.equal(200, kit:request({ client = { ip = "10.1.1.1" } }).status)
    assert.equal(503, kit:request({ headers = { ["X-Forwarded-For"] = "10.1.1.1" } }).status)
    local res = kit:request { headers = { ["Cookie"] = "a=1; pass=a cookie's value" } }
    assert.equal(200, res.status)
    assert.equal("a=1", res.fetched[1].headers["Cookie"])
    res = kit:request { headers = { ["X-Pass"] = "a header's value" } }
    assert.equal(200, res.status)
    assert.is_nil(res.fetched[1].headers["X-Pass"])
    assert.equal(503, kit:request({ headers = { ["X-Pass"] = "a header's valuE" } }).status)
    assert.equal(503, kit:request({ headers = { ["Cookie"] = "pass=" } }).status)
  end)

  it("answers programs in JSON, and otherwise if it is told so", function()
    local kit = load '{ on = true, message = "moving" }'
    local res = kit:request { headers = { ["Accept"] = "application/json" } }
    assert.equal('{"error":"maintenance","message":"moving"}', res.body)
    kit = load '{ on = true, page = "<p>closed</p>", status = 500, retry_after = "1h" }'
    res = kit:request "/"
    assert.equal("500 <p>closed</p> 3600", ("%d %s %s"):format(res.status, res.body, res.headers["Retry-After"]))
    kit = load [[{ on = function(req) return req.args.m == "1" end,
      reply = function(req, state) if req.path == "/own" then return gate.reply(503, "own") end end }]]
    assert.equal(200, kit:request("/own").status)
    assert.equal("own", kit:request("/own?m=1").body)
    assert.matches("Back soon", kit:request("/?m=1").body)
  end)

  it("reads the switch from a file when the config is loaded", function()
    local folder = support.temp_dir()
    local function write(text) support.process.write_file(folder .. "/switch.txt", text) end
    support.process.write_file(folder .. "/site.lua", [[return {
      listen = 8080, backends = { app = { "127.0.0.1:9001" } },
      use = { require "scripts.maintenance" { file = "switch.txt" } } }]])
    write ""
    local kit = testing.load(folder .. "/site.lua"):backend("app", "ok")
    assert.equal(200, kit:request("/").status)
    for text, status in pairs {
      ["on\nmessage We move\n"] = 503, ["# off\n"] = 200, ["message We move\n"] = 200,
      ["begins 2030-01-01T00:00:00Z\n"] = 200, ["ends 2030-01-01T00:00:00Z\n"] = 503,
      ["begins 2020-01-01T00:00:00Z\nends 2021-01-01T00:00:00Z\n"] = 200,
    } do
      write(text)
      kit:reload()
      assert.equal(status, kit:request("/").status, text)
    end
    for text, sentence in pairs {
      ["off\n"] = 'maintenance: file: unknown word "off"', ["ends soon\n"] = "maintenance: file: ends: expected a time",
    } do
      write(text)
      local ok, problem = pcall(kit.reload, kit)
      assert(not ok and tostring(problem):find(sentence, 1, true), tostring(problem))
    end
  end)

  it("shows the page when the application cannot be reached, if it is told so", function()
    local kit = load '{ failures = true }'
    kit:backend("app", { error = "connect_refused" })
    local res = kit:request "/"
    assert.equal(503, res.status)
    assert.matches("Back soon", res.body)
    kit:backend("app", 503) -- its own answer is its own
    assert.equal("", kit:request("/").body)
  end)

  it("refuses wrong options", function()
    policy.assert_refused("maintenance", {
      ['{ control = { path = "/m" } }'] = "maintenance: control.secret: must be given",
      ['{ control = { path = "/m", secret = "short" } }'] = "maintenance: control.secret: expected a secret",
      ['{ cookie = { name = "a b", value = "0123456789abcdef" } }'] = "maintenance: cookie.name: expected a name",
      ['{ ips = { "x" } }'] = "maintenance: ips: expected addresses and prefixes",
      ['{ file = "missing.txt" }'] = "maintenance: file: ",
      ["{ on = 1 }"] = "maintenance: on: expected true, false or a function",
      ["{ retry_after = 'soon' }"] = "maintenance: retry_after: expected a time",
      ["{ massage = 'x' }"] = 'maintenance: unknown option "massage", did you mean "message"?',
    })
  end)
end)
