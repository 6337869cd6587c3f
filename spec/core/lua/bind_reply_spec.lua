local support = require "support"
local probe = require "core.lua.probe"
local it = support.it

describe("gate.reply", function()
  support.setup(probe.start)

  it("is the answer when it is returned", function()
    local response = probe.verdict [[return gate.reply(429, "slow down\n", { ["Retry-After"] = 30, ["X-A"] = "b" })]]
    assert.equal(429, response.status)
    assert.equal("slow down\n", response.body)
    assert.equal("30", response.headers["Retry-After"])
    assert.equal("b", response.headers["X-A"])
    assert.equal("10", response.headers["Content-Length"])
  end)

  it("sends text as such unless it says otherwise", function()
    assert.equal("text/plain; charset=utf-8", probe.verdict([[return gate.reply(200, "x")]]).headers["Content-Type"])
    local script = [[return gate.reply(200, "x", { ["content-type"] = "text/html" })]]
    assert.equal("text/html", probe.verdict(script).headers["Content-Type"])
    assert.equal("nil", tostring(probe.verdict("return gate.reply(200)").headers["Content-Type"]))
  end)

  it("may repeat a line", function()
    local response = probe.verdict [[return gate.reply(200, "x", { ["Set-Cookie"] = { "a=1", "b=2" } })]]
    assert.same({ "a=1", "b=2" }, response.headers:all "Set-Cookie")
  end)

  it("may be a bare status", function()
    assert.equal(403, probe.verdict("return 403").status)
  end)

  it("may be thrown by a helper", function()
    assert.equal(402, probe.verdict("error(gate.reply(402, 'pay'))").status)
  end)

  it("may be kept and used again", function()
    probe.request "upvalue.denied = gate.reply(403, 'no', { ['X-A'] = '1' })"
    for _ = 1, 3 do
      assert.equal("403|no|1", probe.request "local r = upvalue.denied return r.status, r.body, r.headers['x-a']")
    end
  end)

  it("has no body where there was none given", function()
    assert.equal("nil|0", probe.request [[
      local reply, lines = gate.reply(204), 0
      for _ in pairs(reply.headers) do lines = lines + 1 end
      return reply.body, lines
    ]])
    assert.equal("", probe.verdict("return gate.reply(204, '')").body)
  end)

  it("takes the headers of a message, without what belongs to its connection", function()
    probe.answer = function() return 200, { { "X-Kept", "1" }, { "Connection", "close" } }, "there" end
    local response = probe.verdict [[
      local answer = assert(gate.fetch "app")
      return gate.reply(answer.status, "other", answer.headers)
    ]]
    assert.equal("1", response.headers["X-Kept"])
    assert.equal("other", response.body)
  end)

  it("replaces an answer in on_response", function()
    assert.equal("instead", probe.exchange({ on_response = "return 'instead'" }).body)
  end)

  it("is read-only", function()
    probe.raises("reply.status is read-only", "gate.reply(200).status = 201")
    probe.raises("did you mean 'status'", "return gate.reply(200).staus")
    probe.raises("read-only", "gate.reply(200).headers['X-A'] = 'b'")
  end)

  it("refuses statuses that are none", function()
    for _, status in ipairs { "", "nil", "'200'", "100", "199", "600", "200.5", "1/0", "{}", "math.mininteger" } do
      probe.raises("200 to 599", ("gate.reply(%s)"):format(status))
    end
  end)

  it("refuses bodies that are none", function()
    probe.raises("string expected", "gate.reply(200, {})")
    probe.raises("string expected", "gate.reply(200, 5)")
    probe.raises("string expected", "gate.reply(200, true)")
    probe.raises("has no body", "gate.reply(204, 'x')")
    probe.raises("has no body", "gate.reply(205, 'x')")
    probe.raises("has no body", "gate.reply(304, 'x')")
  end)

  it("refuses headers that are none", function()
    probe.raises("table expected", "gate.reply(200, nil, 'X: y')")
    probe.raises("table", "gate.reply(200, nil, gate.reply(200))")
    probe.raises("name to value", "gate.reply(200, nil, { 'x' })")
    probe.raises("token", "gate.reply(200, nil, { ['a b'] = 'x' })")
    probe.raises("control character", "gate.reply(200, nil, { ['X-A'] = 'a\\r\\nb: c' })")
    probe.raises("control character", "gate.reply(200, nil, { ['X-A'] = { 'a', 'b\\n' } })")
    probe.raises("not a boolean", "gate.reply(200, nil, { ['X-A'] = true })")
    probe.raises("not a table", "gate.reply(200, nil, { ['X-A'] = { {} } })")
    probe.raises("core's own", "gate.reply(200, nil, { ['content-length'] = 5 })")
    probe.raises("core's own", "gate.reply(200, nil, { Connection = 'close' })")
    probe.raises("256 values", "local l = {} for i = 1, 1000 do l[i] = 'x' end gate.reply(200, nil, { ['X-A'] = l })")
  end)

  it("reads tables raw, whatever their metatables say", function()
    assert.equal("1", probe.request [[
      local lying = setmetatable({ ["X-A"] = "1" }, {
        __index = function() error "index" end,
        __pairs = function() error "pairs" end,
        __len = function() return 1 << 40 end,
      })
      return gate.reply(200, nil, lying).headers["X-A"]
    ]])
  end)
end)

describe("gate.redirect", function()
  support.setup(probe.start)

  it("sends the client elsewhere", function()
    local response = probe.verdict [[return gate.redirect("https://example.com/x?y=1")]]
    assert.equal(302, response.status)
    assert.equal("https://example.com/x?y=1", response.headers["Location"])
    for _, status in ipairs { 301, 303, 307, 308 } do
      assert.equal(status, probe.verdict(("return gate.redirect('/there', %d)"):format(status)).status)
    end
  end)

  it("refuses what is no URL or no redirect", function()
    probe.raises("visible ASCII", [[gate.redirect("/a b")]])
    probe.raises("visible ASCII", [[gate.redirect("/a\r\nSet-Cookie: x")]])
    probe.raises("visible ASCII", [[gate.redirect("/ü")]])
    probe.raises("1 to 8192", [[gate.redirect("")]])
    probe.raises("1 to 8192", [[gate.redirect(("x"):rep(8193))]])
    probe.raises("string expected", [[gate.redirect()]])
    probe.raises("string expected", [[gate.redirect({})]])
    probe.raises("301, 302", [[gate.redirect("/", 200)]])
    probe.raises("301, 302", [[gate.redirect("/", 304)]])
    probe.raises("200 to 599", [[gate.redirect("/", "302")]])
  end)
end)
