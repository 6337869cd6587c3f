-- luacheck: no max line length (cases stand in one line)
local kits = require "scripts.kit"
local policy = require "scripts.policy"
local support = require "support"
local it, http = support.it, support.http

local function load(more, before)
  local kit = kits.load {
    backends = 'app = { "127.0.0.1:9001" }, next = { "127.0.0.1:9002" }, default = { "127.0.0.1:9001" }',
    use = ('%s require "scripts.mirror" { backend = "next", %s }'):format(before or "", more or ""),
  }
  return kit:backend("default", "original"):backend("next", "copy")
end

-- What the mirror got for a request.
local function copies(kit, request)
  local list = {}
  kit:request(request)
  for _, got in ipairs(kit:fetched()) do
    if got.backend == "next" then list[#list + 1] = got end
  end
  return list
end

describe("scripts.mirror", function()
  it("copies a request as it was forwarded, when its answer is over", function()
    local kit = load("remove = { 'Cookie' }, headers = { ['X-Env'] = 'test' }",
      "{ on_request = function(req) req.path = '/new' req.headers['X-User'] = 'ada' end },")
    local copy = copies(kit, { path = "/old?a=1&b=%20", headers = { Cookie = "secret=1", Accept = "x", Host = "a.example" } })[1]
    assert.equal("/new?a=1&b=%20", copy.target)
    assert.equal("a.example", copy.host)
    local headers = copy.headers
    assert.same({ "ada", "x", "test", "1" }, { headers["X-User"], headers["Accept"], headers["X-Env"], headers["X-Mirror"] })
    assert.is_nil(headers["Cookie"])
    assert.matches("^%x+$", headers["X-Request-Id"])
  end)

  it("neither delays nor changes the original, whatever becomes of the copy", function()
    for _, answer in ipairs { 500, { error = "connect_refused" }, { status = 200, delay = 8 }, { status = 200, delay = 60 } } do
      local kit = load()
      kit:backend("next", answer)
      local res = kit:request "/"
      assert.same({ 200, "original", 0 }, { res.status, res.body, res.time })
      kit:advance(70)
      assert.same({}, kit:logs())
    end
  end)

  it("keeps to its methods, paths and share", function()
    local kit = load "paths = { '/shop' }, except = { '/shop/pay' }, methods = { 'GET', 'DELETE' }"
    assert.equal(0, #copies(kit, "/"))
    assert.equal(0, #copies(kit, "/shop/pay/now"))
    assert.equal(0, #copies(kit, { method = "HEAD", path = "/shop" }))
    assert.equal(1, #copies(kit, { method = "DELETE", path = "/shop" }))
    assert.equal(2, #copies(kit, "/shop/x"))
    kit = load "share = 25"
    for _ = 1, 400 do kit:request "/" end
    local count = #copies(kit, "/")
    assert(count > 60 and count < 145, count)
    kit = load "share = 50, by = 'header:X-User'"
    for i = 1, 20 do
      count = #copies(kit, { path = "/", headers = { ["X-User"] = "u" .. i } })
      local again = #copies(kit, { path = "/", headers = { ["X-User"] = "u" .. i } })
      if i == 1 then assert(again == 0 or again == 2) end
    end
    assert(count > 2 and count < 38, count)
  end)

  it("copies bodies that are short enough, and forwards them all the same", function()
    local kit = load "methods = { 'POST' }, max_body = 10"
    local function post(body, headers)
      local res = kit:request { method = "POST", path = "/", body = body, headers = headers }
      local original, copy
      for _, got in ipairs(res.fetched) do
        if got.backend == "next" then copy = got else original = got end
      end
      assert.equal(type(body) == "table" and table.concat(body) or body, original.body)
      return copy
    end
    assert.equal("0123456789", post("0123456789").body)
    assert.is_nil(post "0123456789a")
    assert.is_nil(post { "in ", "chunks" })
    kit = load "methods = { 'POST' }, max_body = 0"
    assert.is_nil(post "a")
  end)

  it("leaves out what would be more than `max` at once", function()
    local kit = load "max = 3"
    kit:backend("next", { status = 200, delay = 5 })
    for _ = 1, 10 do kit:request "/" end
    assert.equal(3, #copies(kit, "/"))
    kit:advance(6)
    assert.equal(4, #copies(kit, "/"))
    kit:backend("next", { error = "connect_refused" })
    local before = #copies(kit, "/")
    for _ = 1, 10 do kit:request "/" end -- who fails makes room
    assert.equal(before + 11, #copies(kit, "/"))
  end)

  it("tells both sides where the statuses differ", function()
    local kit = load [[on_difference = function(original, mirror)
      gate.log("warn", original.status, mirror.status, original.method, original.target, mirror.body) end]]
    kit:request "/same"
    assert.same({}, kit:logs())
    kit:backend("next", { status = 503, body = "broken" })
    kit:request "/page?x=1"
    assert.matches("200 503 GET /page%?x=1 broken", kit:logs()[1].text)
  end)

  it("sends copies to a URL", function()
    local kit = kits.load { backends = 'app = { "127.0.0.1:9001" }', use = [[
      require "scripts.mirror" { url = "http://next.test:8080", host = "next.test" } ]] }
    kit:backend("app", "original"):stub("http://next.test:8080/*", 204)
    local got = kit:request("/a?b=c").fetched[2]
    assert.same({ "http://next.test:8080/a?b=c", "next.test" }, { got.url, got.host })
  end)

  it("counts before the real proxy, and a slow mirror keeps nobody waiting", function()
    local app = http.backend(function() return 200, nil, "ok" end)
    local mirrored = http.backend(function(request) return request.target == "/bad" and 500 or 200, nil, "copy" end)
    local proxy = support.moongate.start { values = { APP = app, NEXT = mirrored }, config = [[
      return { admin = "127.0.0.1:$PORT2", listen = "127.0.0.1:$PORT",
        backends = { default = { "$APP" }, next = { "$NEXT" }, slow = { "127.0.0.1:1" } },
        use = {
          require "scripts.mirror" { backend = "next", methods = { "GET", "POST" } },
          require "scripts.mirror" { url = "http://127.0.0.1:1", name = "dead" },
        } }
    ]] }
    for _, path in ipairs { "/", "/", "/bad" } do assert.equal("ok", http.get(proxy.port, path).body) end
    assert.equal("ok", http.post(proxy.port, "/", ("x"):rep(1000)).body)
    support.eventually("the copies are counted", function()
      local text = http.get(proxy.values.PORT2, "/metrics").body
      return text:find('mirror_requests_total{name="next",outcome="same"} 3', 1, true)
        and text:find('mirror_requests_total{name="next",outcome="different"} 1', 1, true)
        and text:find('mirror_statuses_total{name="next",original="2xx",mirror="5xx"} 1', 1, true)
        and text:find('mirror_requests_total{name="dead",outcome="failed"} 3', 1, true)
    end)
    assert.equal(("x"):rep(1000), mirrored.requests[4].body)
  end)

  it("refuses wrong options", function()
    policy.assert_refused("mirror", {
      ["{}"] = "mirror: expected either backend or url",
      ['{ backend = "a", url = "http://b" }'] = "mirror: expected either backend or url",
      ['{ url = "http://b/path" }'] = "mirror: url: expected one such as http://host:8080",
      ['{ backend = "a", share = "10%" }'] = "mirror: share: expected percent, 0 to 100",
      ['{ backend = "a", methods = { "GET POST" } }'] = "mirror: methods: expected a name of letters",
      ['{ backend = "a", max_body = "64K" }'] = "mirror: max_body: expected bytes",
      ['{ backend = "a", shere = 1 }'] = 'mirror: unknown option "shere", did you mean "share"?',
    })
  end)
end)
