-- What `moongate check` tells of scripts that it does not run: errors where a hook would surely fail, warnings where
-- something is likely wrong, and nothing where it cannot know.
-- luacheck: no max line length (messages are shown as they are printed)

local support = require "support"
local it, moongate, process = support.it, support.moongate, support.process

-- Checks a site whose policy is `text`; what is printed, without the directory.
local function check(text, files)
  local dir = support.temp_dir()
  for name, content in pairs(files or {}) do process.write_file(dir .. "/" .. name, content) end
  process.write_file(dir .. "/site.lua", 'local gate = require "moongate"\nlocal site = { listen = "127.0.0.1:8080", backends = { app = { "127.0.0.1:9001" }, api = { "127.0.0.1:9002" } } }\n' ..
    "function site.pick_backend() return 'app' end\n" .. text .. "\nreturn site\n")
  local status, _, err = moongate.run { "check", dir .. "/site.lua" }
  local prefix = (dir .. "/"):gsub("%p", "%%%0")
  return (err:gsub(prefix, "")), status
end

-- The body of on_request stands on line 5.
local function check_hook(body) return check("function site.on_request(req)\n" .. body .. "\nend") end

local errors = {
  ["a global that is not there and is called"] = { "prnt(1)", "there is no global 'prnt' (did you mean 'print'?), and it is called" },
  ["a global that is not there and is indexed"] = { "local x = conf.x", "there is no global 'conf', and a field of it is used" },
  ["a global that is not there and is calculated with"] = { "local n = limit + 1", "there is no global 'limit', and it is calculated with" },
  ["a global that is not there in a text"] = { 'local t = "a" .. nmae .. req.path', "there is no global 'nmae', and it is a part of a text" },
  ["a name of another Lua"] = { "return unpack({ 200 })", "there is no global 'unpack' (did you mean 'table.unpack'?), and it is called" },
  ["a function that gate does not have"] = { 'return gate.repply(403)', "gate has no 'repply' (did you mean 'reply'?), and it is called" },
  ["a function that a part of gate does not have"] = { 'local x = gate.base64.encod("x")', "gate.base64 has no 'encod' (did you mean 'encode'?), and it is called" },
  ["a function that a library does not have"] = { "table.insrt({}, 1)", "table has no 'insrt' (did you mean 'insert'?), and it is called" },
  ["an assignment to a library"] = { 'string.find = nil', "cannot set 'string.find': it is read-only" },
  ["a field that req does not have"] = { "local x = req.pth", "req has no field 'pth' (did you mean 'path'?)" },
  ["a field that req.client does not have"] = { "local x = req.client.ipp", "req.client has no field 'ipp' (did you mean 'ip'?)" },
  ["an assignment to a field that req does not have"] = { "req.pathh = '/'", "req has no field 'pathh' (did you mean 'path'?)" },
  ["an assignment to what is read-only"] = { "req.target = '/'", "req.target is read-only" },
  ["an assignment to what belongs to the client"] = { "req.client.ip = '192.0.2.1'", "req.client.ip is read-only" },
  ["a method that req does not have"] = { "req:headres()", "req has no field 'headres' (did you mean 'headers'?)" },
  ["a global that is set in a hook"] = { "seen = true", "global 'seen' is set when the file has been loaded: globals are read-only then (use a local, req.ctx or gate.shared)" },
  ["a command that is run"] = { 'os.execute "ls"', 'there is no os.execute in the sandbox (unsafe = { "os" } allows it), and it is called' },
  ["a file that is opened"] = { 'local f = io.open "x"', 'there is no io in the sandbox (unsafe = { "io" } allows it), and a field of it is used' },
  ["bytecode that is made"] = { 'local b = string.dump(print)', "there is no string.dump in the sandbox, and it is called" },
  ["a wait in a comparison"] = { "table.sort({ 2, 1 }, function(a, b) gate.sleep(1) return a < b end)", "gate.sleep waits: cannot wait inside table.sort" },
  ["a status that is no whole number"] = { "return 200.5", "on_request returns the number 200.5; a status is a whole number from 200 to 599" },
  ["a status that there is not"] = { "return 99", "on_request returns the number 99; a status is a whole number from 200 to 599" },
  ["a boolean as an answer"] = { "return true", "on_request returns a boolean; expected a reply, a status or nothing" },
  ["a table as an answer"] = { "return { status = 200 }", "on_request returns a table; expected a reply, a status or nothing" },
  ["a function that was not called"] = { "return gate.reply", "on_request returns a function; expected a reply, a status or nothing" },
  ["a fetch from a backend that is not there"] = { 'gate.fetch("apl")', 'there is no backend "apl" (did you mean "api"?)' },
  ["a backend that is not there"] = { 'local b = gate.backend("nothing")', 'there is no backend "nothing"' },
}

local clean = {
  ["a feature that is asked for"] = "if ngx then ngx.say() end local j = jit local x = j and j.version",
  ["a feature that is asked for by a comparison"] = "if setfenv ~= nil then setfenv(1, {}) end",
  ["a choice between two names"] = "local unpack = table.unpack or unpack return unpack({ 200 })",
  ["a branch that a constant closes"] = "local DEBUG <const> = false if DEBUG then prnt(1) end",
  ["a branch that a local closes"] = "local debugging = false if debugging then prnt(1) end",
  ["an argument that was replaced"] = "req = { pth = 1 } return req.pth",
  ["an argument that may have been replaced"] = "if gate.now() > 1 then req = { pth = 404 } end local x = req.pth return x",
  ["a status out of a choice"] = "return req.path == '/' and 200 or nil",
  ["a reply"] = "return gate.reply(403, 'no')",
  ["fields that can be set"] = "req.path, req.host, req.query, req.method = '/', 'a', nil, 'GET' req.max_body = 1 req.cache.bypass = true",
  ["fields that are data"] = "req.ctx.whatever = req.headers.anything or req.cookies.any or req.args.any",
  ["a URL that is fetched"] = 'local r = gate.fetch("http://127.0.0.1:1/x")',
  ["a wait in the script's own coroutine"] = "coroutine.wrap(function() gate.sleep(0) end)()",
  ["a wait in pcall"] = "pcall(function() gate.sleep(0) end)",
  ["loops"] = "local n = 0 for i = 1, 10 do n = n + i end for k in pairs(req.headers) do n = n + #k end while n > 0 do n = n - 1 end repeat n = n + 1 until n > 3 return 404",
}

describe("inspecting scripts", function()
  for what, case in pairs(errors) do
    it("finds " .. what, function()
      local err, status = check_hook(case[1])
      assert.equal("site.lua:5: " .. case[2] .. "\n", err)
      assert.equal(1, status)
    end)
  end

  for what, body in pairs(clean) do
    it("finds nothing wrong with " .. what, function()
      local err, status = check_hook(body)
      assert.equal("", err)
      assert.equal(0, status)
    end)
  end

  it("finds all of them at once, in the order of the lines", function()
    local err, status = check "function site.on_request(req)\n  prnt(req.pth)\n  return 42\nend\nfunction site.on_response(req, res)\n  res.stats = req.hst\nend"
    assert.equal(table.concat({
      "site.lua:5: there is no global 'prnt' (did you mean 'print'?), and it is called",
      "site.lua:5: req has no field 'pth' (did you mean 'path'?)",
      "site.lua:6: on_request returns the number 42; a status is a whole number from 200 to 599",
      "site.lua:9: res has no field 'stats' (did you mean 'status'?)",
      "site.lua:9: req has no field 'hst' (did you mean 'host'?)",
      "",
    }, "\n"), (err:gsub("(site.lua:5: req[^\n]*\n)(site.lua:5: there[^\n]*\n)", "%2%1"):gsub("(site.lua:9: req[^\n]*\n)(site.lua:9: res[^\n]*\n)", "%2%1")))
    assert.equal(1, status)
  end)

  it("knows which values each hook may return", function()
    local function pick(body) return (check("function site.pick_backend(req, last)\n" .. body .. "\nend"):gsub("^site.lua:5: ", "")) end
    assert.equal("", pick "if last then return false end return 'app'")
    assert.equal("", pick "return { 'app', 'api', tries = 2, retry_on = { '5xx' }, timeout = 1 }")
    assert.equal("", pick "local list = { 'app' } list[1] = req.host return list")
    assert.equal("", pick "return 'api/127.0.0.1:9002'")
    assert.equal('the backend "api" has no server "one"\n', pick "return 'api/one'")
    assert.equal("", pick "local list = { 'app', retry_on = { 'nothing' } } list.retry_on[1] = 'connect' return list")
    assert.equal("", pick "return { req.path == '/' and 'app' or 'api', tries = req.ctx.tries, retry_on = { req.ctx.on, 503 }, timeout = '2s' }")
    assert.equal('pick_backend returns a list with a wrong retry_on: expected "connect", "reset", "timeout", "5xx" or a status\n',
      pick "return { 'app', 'api', retry_on = { 'connect', 'conect' } }")
    assert.equal("pick_backend returns a list with wrong tries: expected 1 to 100\n", pick "return { 'app', tries = 'x' }")
    assert.equal('pick_backend returns a list with a wrong timeout: expected seconds, or a text like "500ms"\n', pick "return { 'app', timeout = '5 s' }")
    assert.equal("pick_backend returns a list without a backend\n", pick "return {}")
    assert.equal("", pick "return 503")
    assert.equal('there is no backend "ap" (did you mean "app"?)\n', (pick "return 'ap'":gsub('"api"%?', '"app"?')))
    assert.equal('there is no backend "nowhere"\n', pick "return { 'app', 'nowhere' }")
    assert.equal('there is no backend "nowhere"\n', pick "return 'nowhere/one'")
    assert.equal("pick_backend returns the number 42; a status is a whole number from 200 to 599\n", pick "return 42")
    assert.equal("pick_backend returns a boolean; expected a backend's name, a list of them, a reply or nothing\n", pick "return true")
    assert.equal('pick_backend returns a list with an unknown field "trys"; there are tries, retry_on, timeout\n', pick "return { 'app', trys = 3 }")
    assert.equal("", check "function site.on_connect(client) if client.ip == 'x' then return false end end")
    assert.equal("site.lua:4: on_connect returns a number; expected false or nothing\n",
      check "function site.on_connect() return 403 end")
    assert.equal("site.lua:4: client has no field 'ips' (did you mean 'ip'?)\n",
      check "function site.on_connect(client) return client.ips == 'x' and false or nil end")
    assert.equal("site.lua:4: cache_key returns a table as a part of the key; parts are strings, numbers, booleans or nil\n",
      check "function site.cache_key(req) return req.path, {} end")
    assert.equal("", (check "function site.cache_key(req) return req.path, req.host, 1, true, nil end"))
  end)

  it("follows req into functions of the file, and values into functions within functions", function()
    local err = check "local function owner(r)\n  return r.onwer\nend\nfunction site.on_request(req)\n  local function inner() return req.hots end\n  return owner(req) or inner()\nend"
    assert.equal("site.lua:5: req has no field 'onwer'\nsite.lua:8: req has no field 'hots' (did you mean 'host'?)\n", err)
  end)

  it("tells functions on one line apart", function()
    local err = check "site.use = { { on_request = function(q) return q.pth end, on_log = function(q, r) return q.hots, r.stats end }, { on_request = function() return true end } }"
    for _, expected in ipairs {
      "on_request returns a boolean; expected a reply, a status or nothing", "res has no field 'stats' (did you mean 'status'?)",
      "req has no field 'hots' (did you mean 'host'?)", "req has no field 'pth' (did you mean 'path'?)",
    } do assert.truthy(err:find("site.lua:4: " .. expected .. "\n", 1, true), err) end
  end)

  it("looks into modules, and into policies that functions of other files made", function()
    local err, status = check('site.use = { require "guard" { path = "/x" } }', { ["guard.lua"] = [[
return function(options)
  return {
    on_request = function(req)
      if req.path == options.path then return gate.reply(403) end
      return "no"
    end,
  }
end
]] })
    assert.equal("guard.lua:4: there is no global 'gate' (did you mean 'local gate = require \"moongate\"'?), and a field of it is used\n" ..
      "guard.lua:5: on_request returns a string; expected a reply, a status or nothing\n", err)
    assert.equal(1, status)
  end)

  it("only warns of what a function does that no hook is seen to call", function()
    local err, status = check("require 'lib'", { ["lib.lua"] = "local M = {}\nfunction M.save() io.open('x') end\nfunction M.other() setfenv(1, {}) cache = {} end\nreturn M" })
    assert.equal([[
lib.lua:2: warning: there is no io in the sandbox (unsafe = { "io" } allows it), and a field of it is used
lib.lua:3: warning: there is no global 'setfenv', and it is called
lib.lua:3: warning: global 'cache' is set in a function that did not run while the file was loaded (a local?)
]], err)
    assert.equal(0, status)
  end)

  it("only warns of what pcall may be meant to catch", function()
    local err, status = check_hook "local ok = pcall(function() return jit.version end)"
    assert.equal("site.lua:5: warning: there is no global 'jit', and a field of it is used\n", err)
    assert.equal(0, status)
  end)

  it("warns of what blocks a worker where unsafe allows it", function()
    local err, status = check('site.unsafe = { "io" }\nfunction site.on_request(req)\n  local f = io.open "x"\nend')
    assert.truthy(err:find("site.lua:6: warning: io.open blocks its worker, and all who are served by it\n", 1, true), err)
    assert.equal(0, status)
  end)

  it("tells the line in a long function with many constants", function()
    local lines = { "function site.on_request(req)", "local t = {}" }
    for i = 1, 400 do lines[#lines + 1] = ("t[%q] = %q"):format("key" .. i, "value" .. i) end
    for _ = 1, 300 do lines[#lines + 1] = "" end
    lines[#lines + 1] = "if t.key1 == req.hots then return 403 end end"
    assert.equal("site.lua:706: req has no field 'hots' (did you mean 'host'?)\n", (check(table.concat(lines, "\n"))))
  end)

  it("is done with a large file in time", function()
    local lines = {}
    for i = 1, 3000 do lines[#lines + 1] = ("local function f%d(req) if req.path == '/%d' then for i = 1, 3 do print(i) end end end"):format(i % 150, i) .. (i % 150 == 0 and " do end" or "") end
    local text = "do\n" .. table.concat(lines, "\n"):gsub(" do end\n", "\nend do\n") .. "\nend"
    local err, status = check((text:gsub(" do end", "")))
    assert.equal("", err)
    assert.equal(0, status)
  end)

  it("knows every function of gate that waits", function()
    -- What their types say of themselves: "Waits."
    local functions, waits = {}, false
    for _, path in ipairs { "gate", "socket", "tools", "crypto", "state" } do
      for line in io.lines("lua/types/" .. path .. ".lua") do
        if line:find "^%-%-%-.*Waits[.:]" then waits = true end
        local name = line:match "^function (gate[%w_.]+)%("
        if name and waits then functions[#functions + 1] = name end
        if not line:find "^%-%-%-" then waits = false end
      end
    end
    assert.truthy(#functions >= 3, table.concat(functions, " "))
    for _, name in ipairs(functions) do
      local err = check_hook(("table.sort({ 2, 1 }, function(a, b) %s('x') return a < b end)"):format(name))
      assert.truthy(err:find(name .. " waits: cannot wait inside table.sort", 1, true), name .. ": " .. err)
    end
  end)

  it("finds nothing in the examples and the scripts they use", function()
    for name in io.popen("ls examples/*.lua"):lines() do
      local status, out = moongate.run { "check", "--json", name }
      assert.equal(0, status)
      assert.falsy(out:find('"path":null', 1, true), out) -- warnings about settings have a path
    end
  end)

  it("finds no name in the manual that there is not", function()
    local functions = {}
    for name in io.popen("ls README.md docs/*.md"):lines() do
      local file = assert(io.open(name))
      for block in file:read "a":gmatch "\n```lua\n(.-)\n```" do
        local wrong = block:find "^%-%- wrong" -- a file that shows what the check says of it
        if load(block) and not wrong then functions[#functions + 1] = ("do local function example() %s\nend example() end"):format(block) end
      end
      file:close()
    end
    assert.truthy(#functions > 100, #functions)
    local text = table.concat(functions, "\n")
    for line in check_hook(text):gmatch "[^\n]+" do
      local what = line:match "^site.lua:%d+: (.*)"
      local known = what and (what:find "no global" or what:find "^global" or what:find "no backend" or what:find "^warning")
      assert.truthy(known, line)
    end
  end)
end)
