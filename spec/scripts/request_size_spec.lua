local support = require "support"
local kits = require "scripts.kit"
local policy = require "scripts.policy"
local it, http, net = support.it, support.http, support.net

local function load(use)
  local kit = kits.load {
    backends = 'app = { "127.0.0.1:9001" }', use = ('require "scripts.request_size" %s'):format(use),
  }
  return kit:backend("app", "ok")
end

local function post(body, path) return { method = "POST", path = path or "/", body = body } end

describe("scripts.request_size", function()
  it("refuses a body that is too large before the application sees of it", function()
    local kit = load '{ body = 10 }'
    assert.equal(200, kit:request(post(("x"):rep(10))).status)
    local res = kit:request(post(("x"):rep(11)))
    assert.equal("413 the body is too large\n", res.status .. " " .. res.body)
    assert.same({}, res.tried)
  end)

  it("counts a body that comes in chunks", function()
    local kit = load '{ body = 10 }'
    assert.equal(200, kit:request(post { "01234", "56789" }).status)
    assert.equal(413, kit:request(post { "01234", "567890" }).status)
  end)

  it("never lets the application take chunks up to there for the whole", function()
    local port, backend = policy.start("request_size", '{ body = "64K" }')
    local client = net.connect(port)
    client:send "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ = 1, 5 do client:post(http.encode_chunk(("x"):rep(16384))) end
    client:post "0\r\n\r\n"
    assert.equal(413, http.response(client).status)
    support.eventually("the backend's request is torn", function() return backend.aborted == #backend.requests end)
  end)

  it("asks for a length if it is told so", function()
    local kit = load '{ known_length = true }'
    assert.equal(411, kit:request(post { "01234" }).status)
    assert.equal(200, kit:request(post "01234").status)
    assert.equal(200, kit:request("/").status)
  end)

  it("refuses too many fields, too large ones, and too much in all", function()
    local kit = load '{ fields = 4, field = 60, headers = 100 }'
    assert.equal(200, kit:request({ headers = { A = "1" } }).status)
    for text, headers in pairs {
      ["too many header fields\n"] = { A = { "1", "2", "3", "4", "5" } },
      ["a header field is too large\n"] = { A = ("x"):rep(60) },
      ["the header fields are too large\n"] = { A = ("x"):rep(45), B = ("x"):rep(45) },
    } do
      local res = kit:request { headers = headers }
      assert.equal("431 " .. text, res.status .. " " .. res.body)
    end
  end)

  it("refuses an address that is too long, or has too many arguments", function()
    local kit = load '{ target = 20, args = 2 }'
    assert.equal(200, kit:request("/0123456789012345678").status)
    assert.equal(414, kit:request("/01234567890123456789").status)
    assert.equal(200, kit:request("/?a=1&a=2").status)
    assert.equal(414, kit:request("/?a=1&a=2&a=3").status)
    assert.equal(414, kit:request("/a/../b/../c/../d/../e/..").status)
  end)

  it("has sizes of their own for routes", function()
    local kit = load [[{ body = 10, target = 60, routes = {
      { path = "/upload", methods = { "POST", "PUT" }, body = 20 }, { path = "/free" } } }]]
    assert.equal(200, kit:request(post(("x"):rep(20), "/upload/a")).status)
    assert.equal(413, kit:request(post(("x"):rep(21), "/upload/a")).status)
    assert.equal(413, kit:request(post({ ("x"):rep(21) }, "/upload/a")).status)
    assert.equal(413, kit:request(post(("x"):rep(20), "/uploads")).status)
    assert.equal(200, kit:request(post(("x"):rep(2000), "/free/" .. ("y"):rep(100))).status)
  end)

  it("refuses wrong options", function()
    policy.assert_refused("request_size", {
      ["{ body = 'much' }"] = 'request_size: body: expected a size such as 4096, "64K" or "10M", got "much"',
      ["{ body = -1 }"] = "request_size: body: expected a size",
      ["{ body = 1.5 }"] = "request_size: body: expected a size",
      ["{ fields = 0 }"] = "request_size: fields: expected a whole number, 1 or more",
      ["{ bodi = 1 }"] = 'request_size: unknown option "bodi", did you mean "body"?',
      ["{ routes = { { path = '/a', body = 'x' } } }"] = "request_size: routes[1].body: expected a size",
      ["{ routes = { { path = '/a', boddy = 1 } } }"] = 'did you mean "body"?',
    })
  end)
end)
