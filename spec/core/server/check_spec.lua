-- `moongate check`: all that is wrong with a config, from the command line, without touching the world.
-- luacheck: no max line length (messages are shown as they are printed)

local support = require "support"
local it, http, moongate, net, process = support.it, support.http, support.moongate, support.net, support.process

-- Writes a config, checks it; the directory is left out of what is returned.
local function check(text, files)
  local dir = support.temp_dir()
  for name, content in pairs(files or {}) do process.write_file(dir .. "/" .. name, content) end
  process.write_file(dir .. "/site.lua", text)
  local status, out, err = moongate.run { "check", dir .. "/site.lua" }
  local prefix = (dir .. "/"):gsub("%p", "%%%0")
  return status, (err:gsub(prefix, "")), (out:gsub(prefix, ""))
end

describe("moongate check", function()
  it("accepts a good config, and says nothing on stderr", function()
    local status, err = check [[
      local site = { listen = "127.0.0.1:8080", backends = { app = { "127.0.0.1:9001" } } }
      function site.on_request(req) req.headers["X-Checked"] = "yes" end
      return site
    ]]
    assert.equal("", err)
    assert.equal(0, status)
  end)

  it("lets a file say first how much it takes to load it", function()
    local config = [[%s
      local big = {}
      for i = 1, 40 do big[i] = ("x"):rep(1048576 - i) end
      return { listen = 8080, on_request = function() return #big end, %s }]]
    local status, err = check(config:format("lua = { memory = '64M' }", ""))
    assert.same({ 0, "" }, { status, err })
    status, err = check(config:format("", "lua = { memory = '64M' }"))
    assert.equal(1, status)
    assert.equal('site.lua: not enough memory (the global `lua = { memory = "256M" }`, set at its beginning, gives the file more)\n', err)
    status, err = check(config:format("lua = { memory = '64M' }", "lua = { memory = '8M' }"))
    assert.equal(1, status)
    assert.matches("not enough memory", err)
    status, err = check "lua = { load_cpu = '200ms' } while true do end"
    assert.equal(1, status)
    assert.matches("^site.lua:1: over its CPU budget %(200 ms%)", err)
    status, err = check "lua = { memory = '1K' } return { listen = 8080, on_request = 204 }"
    assert.same({ 1, 'site.lua:1: lua.memory: expected a size from 1M to 16G, got "1K"\n' }, { status, err })
  end)

  -- As root, the serving user may not look into this folder: the supervisor opens what stands below the config.
  it("reads modules below a config that is named without its folder", function()
    local dir = support.temp_dir()
    process.run { "mkdir", dir .. "/sites" }
    process.write_file(dir .. "/sites/shop.lua", 'return { listen = "127.0.0.1:8080", on_request = 204 }')
    process.write_file(dir .. "/site.lua", 'return require "sites.shop"')
    local status, out, err = moongate.run({ "check", "site.lua" }, { cwd = dir })
    assert.equal("", err)
    assert.same({ 0, "site.lua: ok (1 site, 0 backends, 1 listener)\n" }, { status, out })
  end)

  it("finds what else is wrong with constants that pick", function()
    local status, err = check [[
return {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" }, named = { "app.internal:9001" } },
  pick_backend = { "app", tries = "x" },
  use = {
    { pick_backend = "app/one" },
    { pick_backend = { "named/10.0.0.1:9001", "app/127.0.0.1:9001", retry_on = "conect" } },
    { use = { { pick_backend = "nowhere" } } },
  },
}]]
    assert.equal(table.concat({
      'site.lua:6: use[1].pick_backend: the backend "app" has no server "one"',
      'site.lua:8: use[3].use[1].pick_backend: this site has no backend "nowhere"',
      "site.lua:4: pick_backend: a list with wrong tries: expected 1 to 100",
      'site.lua:7: use[2].pick_backend: a list with a wrong retry_on: expected "connect", "reset", "timeout", "5xx" or a status',
      "" }, "\n"), err)
    assert.equal(1, status)
  end)

  it("finds a constant that picks a backend which is not there", function()
    local status, err = check [[
return {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  pick_backend = "ap",
  use = { { pick_backend = { "app", "apps/one" } } },
}
]]
    assert.equal(1, status)
    assert.equal('site.lua:4: pick_backend: this site has no backend "ap"\n' ..
      'site.lua:5: use[1].pick_backend[2]: this site has no backend "apps"\n', err)
  end)

  it("prints every error with file, line and path, and ends with status 1", function()
    local status, err = check [[
return {
  sites = {
    {
      listen = "127.0.0.1:80800",
      backends = { app = { "127.0.0.1:9001", "80a" } },
      max_bdoy = "1M",
    },
  },
  workers = "many",
}
]]
    assert.equal(1, status)
    for _, line in ipairs {
      'site.lua:4: sites[1].listen: expected an address such as "127.0.0.1:8080", 8080, "unix:/run/m.sock", got "127.0.0.1:80800"',
      'site.lua:5: sites[1].backends.app[2]: expected "host:port", got "80a"',
      'site.lua:6: sites[1].max_bdoy: unknown setting, did you mean "max_body"?',
      'site.lua:9: workers: expected a whole number from 1 to 64, got "many"',
    } do
      assert.truthy(err:find(line .. "\n", 1, true), ("%q in\n%s"):format(line, err))
    end
  end)

  it("prints warnings and still succeeds", function()
    local status, err = check [[
return {
  listen = "127.0.0.1:8080",
  backends = { app = { "127.0.0.1:9001" } },
  raw_target = true,
}
]]
    assert.equal(0, status)
    assert.truthy(err:find("site.lua:4: warning: raw_target: paths are forwarded as they came", 1, true), err)
  end)

  it("says so when a rule of the cache is never asked", function()
    local config = [[local site = { listen = "127.0.0.1:8080", backends = { app = { "h:1" } }, %s }
      function site.on_store() end
      return site]]
    local status, err = check(config:format "")
    assert.equal(0, status)
    assert.truthy(err:find("warning: no cache, and an on_store hook: it is never asked", 1, true), err)
    err = select(2, check(config:format "cache = { memory = '1M' }"))
    assert.is_nil(err:find("warning", 1, true))
  end)

  it("says so when every request would be answered 502", function()
    local _, err = check [[return { listen = "127.0.0.1:8080" }]]
    assert.truthy(err:find("warning: no backends and no on_request hook: every request is answered 502\n", 1, true), err)
    _, err = check [[return { listen = "127.0.0.1:8080", backends = { a = { "h:1" }, b = { "h:2" } } }]]
    assert.truthy(err:find('warning: several backends, none named "default", and no pick_backend hook: every request is answered 502\n', 1, true), err)
  end)

  it("tells the line of a syntax error", function()
    local status, err = check "return {\n  listen = ,\n}"
    assert.equal(1, status)
    assert.truthy(err:find "site%.lua:2: ", err)
  end)

  it("tells the line of an error at run time, in a module, too", function()
    local status, err = check("local policy = require 'policy'\nreturn { listen = 80, use = { policy } }", { ["policy.lua"] = "local t\nreturn t.x" })
    assert.equal(1, status)
    assert.truthy(err:find "policy%.lua:2: ", err)
  end)

  it("reads a file that returns nothing as a site", function()
    local status, err = check 'listen = "127.0.0.1:8080"\nbackends = { app = { "127.0.0.1:9001" } }\nfunction on_request(req) end\n'
    assert.equal("", err)
    assert.equal(0, status)
    status, err = check 'listen = "127.0.0.1:8080"\nbackends = { app = { "80a" } }\n'
    assert.equal(1, status)
    assert.truthy(err:find('site.lua:2: backends.app[1]: expected "host:port", got "80a"\n', 1, true), err)
  end)

  it("finds hooks that do not exist in a policy that is used", function()
    local status, err = check [[
local policy = {}
function policy.on_requets() end
return { listen = "127.0.0.1:8080", use = { policy }, backends = { app = { "127.0.0.1:9001" } } }
]]
    assert.equal(1, status)
    assert.truthy(err:find "site%.lua:2: [^\n]*on_requets" and err:find("on_request", 1, true), err)
  end)

  it("binds nothing and connects to nothing", function()
    local taken = net.listen()
    local status, err = check(("return { listen = %q, backends = { app = { %q } } }"):format(taken.address, taken.address))
    assert.equal("", err)
    assert.equal(0, status)
  end)

  it("does not find a file that is not there", function()
    local status, _, err = moongate.run { "check", support.temp_dir() .. "/nothing.lua" }
    assert.equal(1, status)
    assert.truthy(err:find("nothing.lua", 1, true), err)
  end)

  it("fails on warnings, too, when it is strict", function()
    local dir = support.temp_dir()
    process.write_file(dir .. "/site.lua", 'return { listen = "127.0.0.1:8080" }')
    assert.equal(0, (moongate.run { "check", dir .. "/site.lua" }))
    local status, _, err = moongate.run { "check", "--strict", dir .. "/site.lua" }
    assert.equal(1, status)
    assert.truthy(err:find "warning: ")
  end)

  it("prints a line of JSON for each finding", function()
    local dir = support.temp_dir()
    process.write_file(dir .. "/site.lua", 'return {\n listen = 8080,\n raw_target = true,\n fail = { on_request = "continue" },\n on_request = function(req) return req.pth end }')
    local status, out, err = moongate.run { "check", "--json", dir .. "/site.lua" }
    local file = dir .. "/site.lua"
    assert.equal("", err)
    assert.equal(1, status)
    local lines = {}
    for line in out:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal(('{"file":"%s","line":5,"severity":"error","path":null,"message":"req has no field \'pth\' (did you mean \'path\'?)"}'):format(file), lines[#lines])
    assert.equal(3, #lines)
    for i = 1, 2 do assert.truthy(lines[i]:find('"severity":"warning","path":"', 1, true), lines[i]) end
  end)

  it("refuses at a reload what it refuses here, and logs its warnings", function()
    local gate = moongate.start { config = 'return { listen = "127.0.0.1:$PORT", on_request = function(req) return 200 end }' }
    gate:write_config 'return { listen = "127.0.0.1:$PORT", on_request = function(req) return req.pth end }'
    local refused, text = gate:reload()
    assert.equal(1, refused)
    assert.truthy(text:find("req has no field 'pth'", 1, true), text)
    assert.equal(200, http.get(gate.port, "/").status)
    gate:reload_with('return { listen = "127.0.0.1:$PORT", on_request = function(req) return pcall(function() return jit.x end) and 200 end }')
    gate:wait_log "warning: there is no global 'jit'"
  end)
end)
