local support = require "support"
local probe = require "core.lua.probe"
local it = support.it

describe("req.args", function()
  support.setup(probe.start)

  local target = "/?a=1&b=x%20y+z&flag&a=2&%63=d&e=&&all=yes&bad=%zz%"
  local function said(script) return probe.request("local a = req.args " .. script, { target = target }) end
  local function forwarded(script, from)
    return probe.forwarded("local a = req.args " .. script, { target = from or target }).target
  end

  it("are decoded", function()
    assert.equal("1|x y z|d|%zz%", said "return a.a, a.b, a.c, a.bad")
  end)

  it("are empty text without a value, nil where there is none", function()
    assert.equal("string|string|0|nil", said "return type(a.flag), type(a.e), #a.flag .. '', a.nope")
    assert.equal("nil", probe.request "return req.args.a")
  end)

  it("list all values of a name", function()
    assert.equal("2|1|2|0|yes", said "local l = a:all 'a' return #l, l[1], l[2], #a:all 'nope', a:all('all')[1]")
  end)

  it("are visited in order", function()
    assert.equal("a=1 b=x y z flag= a=2 c=d e= all=yes bad=%zz%", said [[
      local seen = {}
      for name, value in pairs(a) do seen[#seen + 1] = name .. "=" .. value end
      return table.concat(seen, " ")
    ]])
  end)

  it("are replaced by one, in the place of the first, the others staying as they came", function()
    assert.equal("/?a=9&b=x%20y+z&flag&%63=d&e=&all=yes&bad=%zz%", forwarded "a.a = 9")
    assert.equal("/?x=1&c=two", forwarded("a.c = 'two'", "/?x=1&%63=d&c=e"))
  end)

  it("are added at the end, encoded", function()
    assert.equal("/?x=1&new%20one=%26%3D%C3%BC%0D%0A", forwarded("a['new one'] = '&=ü\\r\\n'", "/?x=1"))
    assert.equal("/?x=1", forwarded("a.x = 1", "/"))
    assert.equal("/?x=", forwarded("a.x = ''", "/"))
  end)

  it("are removed by nil, the question mark with the last", function()
    assert.equal("/?y=2", forwarded("a.x = nil", "/?x=1&y=2&x=3"))
    assert.equal("/p", forwarded("a.x = nil a.nope = nil", "/p?x=1"))
  end)

  it("show in req.query what was assigned", function()
    assert.equal("x=2|2", probe.request("req.args.x = 2 return req.query, req.args.x", { target = "/?x=1" }))
  end)

  it("can be changed while they are visited", function()
    assert.equal("4|nil", probe.request([[
      local n = 0
      for name in pairs(req.args) do n = n + 1 req.args[name] = nil end
      return n, req.query
    ]], { target = "/?a=1&b=2&c=3&d=4" }))
  end)

  it("refuse names and values of other types", function()
    probe.raises("not a number", "return req.args[1]")
    probe.raises("not a table", "req.args.x = {}")
    probe.raises("not a boolean", "req.args.x = true")
    probe.raises("not empty", "req.args[''] = 'x'")
    probe.raises("not a nil", "req.args:all(nil)")
    probe.raises("1 MiB", "for i = 1, 100 do req.args['a' .. i] = ('x'):rep(60000) end")
  end)
end)

describe("req.cookies", function()
  support.setup(probe.start)

  local options = { headers = {
    { "Host", "a" }, { "Cookie", 'a=1; lang=de; a=2; quoted="x y"; novalue; =noname' }, { "Cookie", "more=%20" },
  } }
  local function said(script) return probe.request("local c = req.cookies " .. script, options) end

  it("are read by name, as they stand", function()
    assert.equal('1|de|"x y"|%20', said "return c.a, c.lang, c.quoted, c.more")
  end)

  it("heed case", function()
    assert.equal("nil|nil|nil", said "return c.A, c.nope, c.novalue")
  end)

  it("are visited in order", function()
    assert.equal('a=1 lang=de a=2 quoted="x y" more=%20', said [[
      local seen = {}
      for name, value in pairs(c) do seen[#seen + 1] = name .. "=" .. value end
      return table.concat(seen, " ")
    ]])
  end)

  it("are read-only", function()
    probe.raises("read-only", "req.cookies.a = '1'")
    probe.raises("not a number", "return req.cookies[1]")
  end)
end)
