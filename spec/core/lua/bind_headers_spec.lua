local support = require "support"
local probe = require "core.lua.probe"
local it = support.it

describe("headers", function()
  support.setup(probe.start)

  local lines = {
    { "Host", "example.com" }, { "X-One", "1" }, { "X-TWO", "2" }, { "x-two", "zwei" },
    { "Cookie", "a=1" }, { "Cookie", "b=2" }, { "X-Empty", "" }, { "All", "everything" },
  }

  local function said(script) return probe.request("local h = req.headers " .. script, { headers = lines }) end
  local function forwarded(script) return probe.forwarded("local h = req.headers " .. script, { headers = lines }) end
  local function raises(sentence, script)
    probe.raises(sentence, "local h = req.headers " .. script, { headers = lines })
  end

  it("are read in any case", function()
    assert.equal("1|1|1", said [[return h["X-One"], h["x-one"], h["X-ONE"] ]])
    assert.equal("example.com|example.com", said [[return h.Host, h.host]])
  end)

  it("join repeated lines", function()
    assert.equal("2, zwei", said [[return h["X-Two"] ]])
    assert.equal("a=1, b=2", said [[return h.Cookie]])
  end)

  it("give nil for what is not there, and text for what is empty", function()
    assert.equal("nil|string", said [[return h["X-None"], type(h["X-Empty"])]])
  end)

  it("list the lines of one name", function()
    assert.equal("2|2|zwei|0", said [[local l = h:all "x-two" return #l, l[1], l[2], #h:all "X-None"]])
  end)

  it("visit every line in order with the case it came in", function()
    assert.equal("Host|X-One|X-TWO|x-two|Cookie|Cookie|X-Empty|All", said [[
      local names = {}
      for name in pairs(h) do
        if not name:find "^X%-Script" then names[#names + 1] = name end
      end
      return table.unpack(names)
    ]])
  end)

  it("keep all and add for the methods", function()
    assert.equal("function|everything|everything", said [[return type(h.all), h.All, h.ALL]])
    raises("method", [[h.all = "x"]])
    raises("method", [[h.add = nil]])
    assert.equal("x", forwarded([[h.Add = "x"]]).headers["Add"])
  end)

  it("are set and removed together with what backends may take for them", function()
    local disguised = { { "X_User", "root" }, { "x-USER_name", "root" }, { "X_Trace", "kept" }, { "X-User", "root" } }
    local function sent(script)
      local request = probe.forwarded("local h = req.headers " .. script, { headers = disguised })
      local names = {}
      for _, name in ipairs { "X_User", "X-User", "X-User_Name", "X-User-Name", "X_Trace", "X-Trace" } do
        for _, value in ipairs(request.headers:all(name)) do names[#names + 1] = name .. "=" .. value end
      end
      return table.concat(names, " ")
    end
    assert.equal("X_User=root X-User=root X-User_Name=root X_Trace=kept", sent "")
    assert.equal("X-User=ada X-User_Name=root X_Trace=kept", sent [[h["X-User"] = "ada"]])
    assert.equal("X-User_Name=root X_Trace=kept", sent [[h["X-User"] = nil]])
    assert.equal("X_User=root X-User=root X-User-Name=ada X_Trace=kept", sent [[h["x-user-name"] = "ada"]])
    assert.equal("X_User=ada X-User=root X-User_Name=root X_Trace=kept", sent [[h["X_User"] = "ada"]])
    assert.equal("nil|root", probe.request([[return req.headers["X-Trace"], req.headers["X_User"] ]],
      { headers = disguised }))
  end)

  it("are assigned as one line", function()
    local request = forwarded [[h["X-Two"] = "new" h["X-Number"] = 42 h["X-Float"] = 0.5]]
    assert.same({ "new" }, request.headers:all "X-Two")
    assert.equal("42", request.headers["X-Number"])
    assert.equal("0.5", request.headers["X-Float"])
  end)

  it("are removed by nil", function()
    local request = forwarded [[h["X-Two"] = nil h["X-None"] = nil h.Cookie = nil]]
    assert.same({}, request.headers:all "X-Two")
    assert.same({}, request.headers:all "Cookie")
    assert.equal("1", request.headers["X-One"])
  end)

  it("get further lines by add", function()
    local request = forwarded [[h:add("X-One", "2") h:add("X-One", 3)]]
    assert.same({ "1", "2", "3" }, request.headers:all "X-One")
  end)

  it("lose white space round values", function()
    assert.equal("v", forwarded([[h["X-A"] = " \t v  "]]).headers["X-A"])
  end)

  it("refuse what would break the message", function()
    for _, value in ipairs { "a\\r\\nX-Evil: 1", "a\\nb", "a\\rb", "a\\0b", "a\\1b", "a\\127b" } do
      raises("control character", ([[h["X-A"] = "%s"]]):format(value))
      raises("control character", ([[h:add("X-A", "%s")]]):format(value))
    end
    for _, name in ipairs { "", "a b", "a:b", "a\\r\\nb", "ü", "a\\0" } do
      raises("token", ([[h["%s"] = "x"]]):format(name))
      raises("token", ([[h:add("%s", "x")]]):format(name))
      raises("token", ([[return h["%s"] ]]):format(name))
    end
    raises("token", [[h[("x"):rep(257)] = "x"]])
    raises("64 KiB", [[h["X-A"] = ("x"):rep(65537)]])
  end)

  it("refuse to set the core's own", function()
    local own = {
      "Content-Length", "transfer-encoding", "Connection", "Upgrade", "TE", "Trailer", "Keep-Alive", "Proxy-Connection",
    }
    for _, name in ipairs(own) do
      raises("core's own", ([[h["%s"] = "x"]]):format(name))
      raises("core's own", ([[h["%s"] = nil]]):format(name))
      raises("core's own", ([[h:add("%s", "x")]]):format(name))
    end
  end)

  it("refuse names and values of other types", function()
    raises("not a number", [[return h[1] ]])
    raises("not a table", [[return h[{}] ]])
    raises("not a table", [[h["X-A"] = {}]])
    raises("not a boolean", [[h["X-A"] = true]])
    raises("not a no value", [[h:add("X-A")]])
    raises("not a no value", [[h:add()]])
    raises("not a nil", [[h:all(nil)]])
  end)

  it("keep a request to one Host, which req.host is", function()
    assert.equal("inner:81|inner", said [[h.Host = "inner:81" return h.host, req.host]])
    assert.equal("inner:81", forwarded([[h.Host = "inner:81"]]).headers["Host"])
    raises("one Host", [[h:add("Host", "b")]])
    raises("string, not a nil", [[h.Host = nil]])
    raises('"name:port"', [[h.Host = "a, b"]])
  end)

  it("send on what a script has set, also when the client's Connection names it", function()
    local options = { headers = { { "Host", "a" }, { "Connection", "X-User" }, { "X-User", "mallory" } } }
    assert.equal("ada", probe.forwarded([[req.headers["X-User"] = "ada"]], options).headers["X-User"])
    assert.equal("nil", tostring(probe.forwarded("", options).headers["X-User"]))
  end)

  it("can be changed while they are visited", function()
    assert.equal("done", said [[
      for name in pairs(h) do h[name .. "-Seen"] = nil if name:find "^X%-" then h[name] = nil end end
      assert(h["X-One"] == nil)
      return "done"
    ]])
  end)

  it("know more names than they remember", function()
    assert.equal("1|nil", said [[for i = 1, 2000 do local _ = h["X-" .. i] end return h["X-One"], h["X-2001"] ]])
  end)
end)

describe("headers of an answer", function()
  support.setup(function()
    probe.start()
    probe.answer = function()
      local fields = {
        { "Server", "nginx" }, { "Set-Cookie", "a=1" }, { "Set-Cookie", "b=2" }, { "Vary", "A" }, { "Vary", "B" },
      }
      return 200, fields, "body"
    end
  end)

  it("give the first Set-Cookie and list all", function()
    assert.equal("a=1|2|b=2|A, B", probe.response [[
      local h = res.headers
      local cookies = h:all "Set-Cookie"
      return h["Set-Cookie"], #cookies, cookies[2], h.Vary
    ]])
  end)

  it("are changed before the head leaves", function()
    local response = probe.exchange { on_response = [[
      res.headers.Server = nil
      res.headers["X-Served-By"] = "policy"
      res.headers:add("Set-Cookie", "c=3")
    ]] }
    assert.equal("nil", tostring(response.headers["Server"]))
    assert.equal("policy", response.headers["X-Served-By"])
    assert.same({ "a=1", "b=2", "c=3" }, response.headers:all "Set-Cookie")
    assert.equal("body", response.body)
  end)

  it("may have a Host, which is nothing special there", function()
    assert.equal("x", probe.exchange({ on_response = [[res.headers.Host = "x"]] }).headers["Host"])
  end)
end)
