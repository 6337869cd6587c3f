local kits = require "scripts.kit"
local policy = require "scripts.policy"
local support = require "support"
local it, http = support.it, support.http

local function load(faults, more)
  local kit = kits.load {
    backends = 'app = { "127.0.0.1:9001" }',
    more = 'local switches = gate.shared "switches"',
    use = ('require "scripts.fault_injection" { faults = { %s }, %s }'):format(faults, more or "enabled = true"),
  }
  return kit:backend("app", "ok")
end

describe("scripts.fault_injection", function()
  it("does nothing unless it is enabled", function()
    local kit = load("{ abort = 503 }", "enabled = false")
    assert.equal(200, kit:request("/").status)
    kit = load("{ abort = 503 }", "")
    assert.equal(200, kit:request("/").status)
  end)

  it("is switched on and off while it runs", function()
    local kit = load("{ abort = 503 }", [[enabled = function(req)
      if req.path == "/on" then switches:set("faults", true) elseif req.path == "/off" then switches:remove "faults" end
      return switches:get "faults" end]])
    for path, status in pairs { ["/"] = 200, ["/on"] = 503, ["/off"] = 200 } do
      assert.equal(status, kit:request(path).status)
      kit:request "/off"
    end
  end)

  it("delays, aborts and says so", function()
    local kit = load '{ delay = 2 }, { delay = "500ms" }, { abort = 503, body = "sorry" }, { abort = 500 }'
    local res = kit:request "/"
    assert.same({ 503, "sorry", 2.5, 0 }, { res.status, res.body, res.time, #res.fetched })
    assert.equal("delay=2.500, abort=503", res.headers["X-Fault-Injected"])
    kit = load("{ delay = { 1, 3 } }", "enabled = true, tell = false")
    res = kit:request "/"
    assert(res.time >= 1 and res.time <= 3, res.time)
    assert.same({ 200 }, { res.status, res.headers["X-Fault-Injected"] })
    assert.equal(204, load("{ abort = 204 }"):request("/").status)
  end)

  it("hits the share it is told, the same ones if it is told", function()
    local kit = load "{ share = 25, abort = 500 }"
    local count = kits.share(400, function() return kit:request("/").status == 500 end)
    assert(count > 60 and count < 145, count)
    kit = load '{ share = 50, by = "header:X-User", abort = 500 }'
    local seen = {}
    for i = 1, 20 do
      local request = { path = "/", headers = { ["X-User"] = "u" .. i } }
      local status = kit:request(request).status
      seen[status] = true
      assert.equal(status, kit:request(request).status)
    end
    assert(seen[200] and seen[500])
    assert.equal(200, kit:request("/").status)
  end)

  it("keeps to its methods, paths, and what a function says", function()
    local kit = load [[{ abort = 500, methods = { "POST" }, paths = { "/api" }, except = { "/api/open" },
      when = function(req) return req.args.x ~= "no" end }]]
    local function post(path) return kit:request({ method = "POST", path = path }).status end
    assert.same({ 500, 200, 200, 200, 200 },
      { post "/api/a", post "/api/open/a", post "/apis", post "/api?x=no", kit:request("/api").status })
  end)

  it("comes by a header only with the password, and forwards neither", function()
    local kit = load '{ header = { "X-Fault", "down" }, secret = "0123456789abcdef", abort = 503 }'
    local function ask(value) return kit:request { path = "/", headers = { ["X-Fault"] = value } } end
    assert.equal(503, ask("0123456789abcdef down").status)
    for _, value in ipairs { "down", "0123456789abcdeX down", "0123456789abcdef up", "0123456789abcdef" } do
      local res = ask(value)
      assert.equal(200, res.status)
      assert.is_nil(res.fetched[1].headers["X-Fault"])
    end
    kit = load '{ header = { "X-Fault", "down" }, abort = 503 }'
    assert.equal(503, ask("down").status)
    assert.equal(200, kit:request("/").status)
  end)

  it("throttles bodies", function()
    local kit = load "{ throttle = 10000 }, { throttle = 4096 }"
    kit:backend("app", ("x"):rep(40960))
    local res = kit:request "/"
    assert.equal(40960, #res.body)
    assert.equal(10, res.time)
    assert.equal("throttle=4096", res.headers["X-Fault-Injected"])
    kit:backend("app", { status = 206, headers = { ["Content-Range"] = "bytes 0-1/5" }, body = "ab" })
    res = kit:request { path = "/", headers = { Range = "bytes=0-1" } }
    assert.same({ 206, "ab", 0 }, { res.status, res.body, res.time })
    kit:backend("app", { status = 200, headers = { ["Content-Encoding"] = "strange" }, body = "ab" })
    assert.same({ 200, "ab" }, { kit:request("/").status, kit:request("/").body })
    assert.equal(204, kit:backend("app", 204):request("/").status)
  end)

  it("delays no more at once than it may", function()
    local kit = load("{ delay = 5 }", "enabled = true, max_delayed = 1")
    -- A client that leaves gives its place back.
    assert.equal(0, kit:request({ path = "/", leave = 1 }).status)
    assert.equal(5, kit:request("/").time)
    assert.equal(5, kit:request("/").time)
  end)

  it("lets those go on undelayed that would be too many", function()
    local backend = http.backend "ok"
    local proxy = support.moongate.start { workers = 1, values = { BACKEND = backend }, config = [[
      return { admin = "127.0.0.1:$PORT2", listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } },
        use = { require "scripts.fault_injection" { enabled = true, max_delayed = 1, faults = { { delay = 60 } } } } }
    ]] }
    local held = support.net.connect(proxy.port)
    held:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    support.eventually("the first is held", function()
      return http.get(proxy.values.PORT2, "/metrics").body:find('fault_injections_total{kind="delay"} 1', 1, true)
    end)
    local res = http.get(proxy.port, "/")
    assert.same({ 200, nil }, { res.status, res.headers["X-Fault-Injected"] })
    held:reset()
  end)

  it("refuses wrong options", function()
    policy.assert_refused("fault_injection", {
      ["{}"] = "fault_injection: faults: must be given",
      ["{ faults = {} }"] = "fault_injection: faults: there is none",
      ["{ faults = { { share = 5 } } }"] = "fault_injection: faults[1]: expected delay, abort or throttle",
      ["{ faults = { { delay = 61 } } }"] = "faults[1].delay: expected a time up to 60 s",
      ["{ faults = { { abort = 100 } } }"] = "faults[1].abort: expected a status, 200 to 599, got 100",
      ["{ faults = { { throttle = 1 } } }"] = "faults[1].throttle: expected bytes a second",
      ['{ faults = { { abort = 500, header = "X-Fault" } } }'] = "faults[1].header: expected a field and its value",
      ['{ faults = { { abort = 500, secret = "0123456789abcdef" } } }'] = "faults[1].secret: stands in a header",
      ["{ faults = { { abort = 500, sharre = 1 } } }"] = 'unknown option "faults[1].sharre", did you mean "share"?',
      ["{ enabled = 1, faults = {} }"] = "enabled: expected true, false or a function, got 1",
    })
  end)
end)
