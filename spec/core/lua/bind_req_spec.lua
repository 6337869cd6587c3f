local support = require "support"
local probe = require "core.lua.probe"
local it = support.it

describe("req", function()
  support.setup(probe.start)

  local function field(name, options) return probe.request("return req." .. name, options) end

  it("has the parts of the request", function()
    local options = { method = "PUT", target = "/a/%62?x=1&y", headers = { { "Host", "Example.com:8080" } }, body = "" }
    assert.equal("PUT", field("method", options))
    assert.equal("http", field("scheme", options))
    assert.equal("example.com", field("host", options))
    assert.equal("8080", field("port", options))
    assert.equal("/a/b", field("path", options))
    assert.equal("x=1&y", field("query", options))
    assert.equal("/a/%62?x=1&y", field("target", options))
    assert.equal("1.1", field("version", options))
    assert.equal("127.0.0.1:" .. probe.port, field("site", options))
    assert.truthy(field("id", options):find "^%x+$")
    assert.equal(16, #field("id", options))
  end)

  it("has no query without a question mark, and an empty one behind it", function()
    assert.equal("nil", field "query")
    assert.equal("", (probe.request("return req.query .. '|'", { target = "/?" }):gsub("|", "")))
  end)

  it("gives the port of the scheme where Host has none", function()
    assert.equal("80", field("port", { headers = { { "Host", "example.com" } } }))
  end)

  it("knows the client", function()
    local script = "local c = req.client return c.ip, type(c.port), c.tls, c.score"
    assert.equal("127.0.0.1|number|nil|nil", probe.request(script))
  end)

  it("keeps ctx from hook to hook, and from nobody else", function()
    local scripts = {
      on_request = "upvalue.ctx = req.ctx; req.ctx.n = 1",
      on_response = "return req.ctx.n, req.ctx == upvalue.ctx",
    }
    assert.equal("1|true", probe.exchange(scripts).body)
    assert.equal("nil|false", probe.request "return req.ctx.n, req.ctx == upvalue.ctx")
  end)

  it("is one object through all hooks", function()
    local scripts = {
      on_request = "upvalue.req = req",
      on_response = "return req == upvalue.req, req.headers == upvalue.req.headers",
    }
    assert.equal("true|true", probe.exchange(scripts).body)
  end)

  it("forwards what is assigned", function()
    local request = probe.forwarded([[
      req.method = "POST"
      req.path = "/other"
      req.query = "q=1"
      req.host = "inner.example:81"
    ]], { target = "/first?old" })
    assert.equal("POST", request.method)
    assert.equal("/other?q=1", request.target)
    assert.equal("inner.example:81", request.headers["Host"])
  end)

  it("leaves target as it came", function()
    local script = [[req.path = "/other" return req.target, req.path]]
    assert.equal("/first?old|/other", probe.request(script, { target = "/first?old" }))
  end)

  it("encodes in an assigned path what cannot stand there, and normalises it", function()
    assert.equal("/a%20b/%C3%BC%3Fx%23", probe.request [[req.path = "/x/../a b/ü?x#" return req.path]])
    assert.equal("/a%2Fb/c", probe.request [[req.path = "/a%2fb/%63" return req.path]])
    assert.equal("/100%25", probe.request [[req.path = "/100%" return req.path]])
    assert.equal("/%0D%0AX:%20y", probe.request "req.path = '/\\r\\nX: y' return req.path")
  end)

  it("encodes in an assigned query what cannot stand there, and removes it by nil", function()
    assert.equal("a=%20&b=%C3%BC&c=%0D%0A%23", probe.request "req.query = 'a= &b=ü&c=\\r\\n#' return req.query")
    assert.equal("/x", probe.forwarded("req.query = nil", { target = "/x?a=1" }).target)
  end)

  it("refuses values that are none", function()
    probe.raises('begins with "/"', [[req.path = "x"]])
    probe.raises('begins with "/"', [[req.path = ""]])
    probe.raises("NUL", [[req.path = "/\0"]])
    probe.raises("req.path is a string, not a nil", [[req.path = nil]])
    probe.raises("req.path is a string, not a table", [[req.path = {}]])
    probe.raises("req.query is a string", [[req.query = 5]])
    probe.raises("token", [[req.method = "G T"]])
    probe.raises("token", [[req.method = ""]])
    probe.raises("CONNECT", [[req.method = "CONNECT"]])
    probe.raises('"name:port"', [[req.host = "a b"]])
    probe.raises('"name:port"', [[req.host = "a:99999"]])
    probe.raises('"name:port"', [[req.host = "user@host"]])
    probe.raises("string, not a nil", [[req.host = nil]])
    probe.raises("true or false", [[req.cache.bypass = 1]])
  end)

  it("does not let HEAD come or go", function()
    probe.raises("from or to HEAD", [[req.method = "HEAD"]])
    local scripts = { on_request = [[upvalue.ok, upvalue.why = pcall(function() req.method = "GET" end)]] }
    probe.exchange(scripts, { method = "HEAD" })
    assert.equal("false|true", probe.request [[return upvalue.ok, upvalue.why:find("HEAD", 1, true) ~= nil]])
  end)

  it("names the nearest field when there is none", function()
    probe.raises("req has no field 'pth' (did you mean 'path'?)", "return req.pth")
    probe.raises("req has no field 'metod' (did you mean 'method'?)", [[req.metod = "GET"]])
    probe.raises("req has no field 'something_else'", "return req.something_else")
    probe.raises("req.client has no field 'ipp' (did you mean 'ip'?)", "return req.client.ipp")
    probe.raises("req.cache has no field 'bypas' (did you mean 'bypass'?)", "req.cache.bypas = true")
    probe.raises("not a number", "return req[1]")
    probe.raises("not a nil", "return req[nil]")
    probe.raises("no field", "return req[('x'):rep(10000)]")
  end)

  it("says which fields are read-only", function()
    local names = {
      "scheme", "port", "target", "version", "id", "site", "ctx", "headers", "args", "cookies", "body",
      "client", "cache",
    }
    for _, name in ipairs(names) do
      probe.raises("req." .. name .. " is read-only", ("req.%s = 'x'"):format(name))
    end
    probe.raises("req.client.ip is read-only", "req.client.ip = 'x'")
  end)

  it("is read-only once the fetch has begun", function()
    for _, statement in ipairs {
      [[req.path = "/x"]], [[req.query = nil]], [[req.host = "x"]], [[req.method = "PUT"]], [[req.args.a = 1]],
      [[req.headers["X-A"] = "1"]], [[req.headers["X-A"] = nil]], [[req.headers:add("X-A", "1")]],
      [[req.cache.bypass = true]],
    } do
      local text = probe.response(statement)
      assert(text:find("fetch has begun", 1, true), statement .. ": " .. text)
      text = probe.exchange({ pick_backend = statement }).body
      assert(text:find("fetch has begun", 1, true), statement .. " in pick_backend: " .. text)
    end
    assert.equal("/|1", probe.response [[req.ctx.a = 1 return req.path, req.ctx.a]])
  end)

  it("raises when it is used after its exchange", function()
    probe.request [[
      upvalue.uses = {
        function() return req.path end, function() req.path = "/" end, function() return req.ctx end,
        function(h) return h["X-A"] end, function(h) h["X-A"] = "1" end, function(h) return h:all "X-A" end,
        function(h) for _ in pairs(h) do end end, function(_, a) return a.x end, function(_, a) a.x = 1 end,
        function(_, _, c) return c.x end, function(_, _, _, c) return c.ip end,
        function(_, _, _, _, c) return c.bypass end,
      }
      upvalue.parts = { req.headers, req.args, req.cookies, req.client, req.cache }
    ]]
    assert.equal("12|true", probe.request [[
      local ended = 0
      for _, use in ipairs(upvalue.uses) do
        local ok, why = pcall(use, table.unpack(upvalue.parts))
        if not ok and why:find("the exchange has ended", 1, true) then ended = ended + 1 end
      end
      return ended, tostring(upvalue.parts[1]):find "ended" ~= nil
    ]])
  end)

  it("takes nothing else for itself", function()
    for _, value in ipairs { "nil", "1", "'x'", "{}", "print", "req.headers", "gate.reply(200)" } do
      probe.raises("moongate.args expected", ("return req.args.all(%s, 'x')"):format(value))
    end
  end)

  it("bounds what scripts write into it", function()
    probe.raises("1 MiB", [[for i = 1, 1000 do req.path = "/" .. ("x"):rep(60000) end]])
    probe.raises("1 MiB", [[for i = 1, 1000000 do req.headers:add("X-A", "") end]])
  end)
end)
