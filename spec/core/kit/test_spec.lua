-- `moongate test`: the specs of policies.

local support = require "support"
local it, moongate, process = support.it, support.moongate, support.process

-- A folder with a policy and a spec of it; what the specs start must find a sanitizer's runtime.
local function folder(spec)
  local dir = support.temp_dir()
  process.run { "mkdir", dir .. "/spec" }
  process.write_file(dir .. "/site.lua", [[
local gate = require "moongate"
local site = { listen = 8080, backends = { app = { "127.0.0.1:9" } } }
local function unused(n)
  if n then
    return n

  end
  return 2
end
function site.on_request(req)
  if req.path == "/no" then
    return gate.reply(403)
  end
  req.ctx.n = (function(...) return select("#", ...) end)(1, 2)
end
site.unused = nil
return site, unused
]])
  process.write_file(dir .. "/spec/site_spec.lua", spec or [[
    local testing = require "moongate.testing"
    it("lets pass", function()
      local kit = testing.load "site.lua"
      kit:backend("app", "hello")
      assert.equal("hello", kit:request("/").body)
    end)
  ]])
  return dir
end

local env = { LD_PRELOAD = os.getenv "MOONGATE_PRELOAD" or false, LUA_PATH = false, LUA_CPATH = false,
  ASAN_OPTIONS = "detect_leaks=0" }

local function test(dir, ...)
  return moongate.run({ "test", ... }, { cwd = dir, env = env, timeout = 60 })
end

describe("moongate test", function()
  it("runs the specs of spec/ with the kit, and ends as busted does", function()
    local status, out = test(folder())
    assert.equal(0, status)
    assert.matches("1 success", out)
    status, out = test(folder 'it("fails", function() assert.equal(1, 2) end)')
    assert.equal(1, status)
    assert.matches("1 failure", out)
  end)

  it("runs the specs that are named, and hands busted what stands behind --", function()
    local dir = folder()
    process.write_file(dir .. "/other_spec.lua", 'it("#tagged one", function() end) it("two", function() end)')
    local status, out = test(dir, "other_spec.lua")
    assert.equal(0, status)
    assert.matches("2 successes", out)
    status, out = test(dir, "--", "--tags=tagged", "other_spec.lua")
    assert.equal(0, status)
    assert.matches("1 success", out)
  end)

  it("runs the specs beside where there is no spec/", function()
    local dir = support.temp_dir()
    process.write_file(dir .. "/a_spec.lua", 'it("is found", function() end)')
    local status, out = test(dir)
    assert.equal(0, status)
    assert.matches("1 success", out)
  end)

  it("tells which lines were executed", function()
    local dir = folder()
    local status, out = test(dir, "--coverage", "--lcov", "lcov.info")
    assert.equal(0, status)
    assert.matches("file +covered +lines +uncovered\n", out)
    assert.matches("site.lua +%d+%.%d %% +9/13 +4%-8, 12\n", out)
    local file = assert(io.open(dir .. "/lcov.info"))
    local text = file:read "a"
    file:close()
    assert.matches("SF:site.lua\n", text)
    assert.matches("\nDA:12,0\n", text)
    assert.matches("\nDA:1,2\n", text)
    assert.matches("\nLF:13\nLH:9\nend_of_record\n", text)
  end)

  it("prints the variables under which a bare busted finds the kit", function()
    local dir = folder()
    local _, out = test(dir, "--env")
    assert.matches("^export LUA_PATH_5_4='[^']*/lua/%?%.lua;;'\nexport LUA_CPATH_5_4='[^']*/%?%.so;;'\n$", out)
    -- A shell does not live with a sanitizer's runtime.
    local script = out .. "LD_PRELOAD=$PRELOAD exec lua5.4 $(command -v busted) --ignore-lua spec"
    local shell_env = { PRELOAD = env.LD_PRELOAD or "", LD_PRELOAD = false, ASAN_OPTIONS = env.ASAN_OPTIONS }
    local status, text = process.run({ "sh", "-c", script }, { cwd = dir, env = shell_env, timeout = 60 })
    assert.equal(0, status)
    assert.matches("1 success", text)
  end)

  it("runs what docs/testing.md begins with", function()
    local page = assert(io.open "docs/testing.md")
    local spec = page:read("a"):match "```lua\n(.-)```"
    page:close()
    local dir = folder(spec)
    process.write_file(dir .. "/site.lua", [[return {
      listen = 8080, backends = { app = { "127.0.0.1:3000" } },
      on_request = function(req) if req.path == "/admin" and req.client.ip ~= "127.0.0.1" then return 403 end end,
    }]])
    local status, out = test(dir)
    assert(status == 0 and out:find("1 success", 1, true), out)
  end)

  it("says which package is missing", function()
    local dir = folder()
    local bare = { PATH = dir, LD_PRELOAD = false }
    local status, _, err = moongate.run({ "test" }, { cwd = dir, env = bare })
    assert.equal(1, status)
    assert.matches("apt install lua5.4", err, 1, true)
    assert.matches("apt install lua%-busted", err)
  end)

  it("runs them again when a file is saved", function()
    local dir = folder()
    local watching = process.spawn({ moongate.binary, "test", "--watch" }, { cwd = dir, env = env })
    watching:wait_line("stdout", "1 success / 0 failures", { timeout = 30 })
    watching:wait_line("stdout", "waiting for a change", { timeout = 30 })
    local other = 'return { listen = 8080, on_request = 204, backends = { app = { "[::1]:9" } } }'
    process.write_file(dir .. "/site.lua", other)
    watching:wait_line("stdout", "0 successes / 1 failure", { timeout = 30 })
    watching:kill_with "sigterm"
    watching:wait()
  end)
end)

describe("the lines that have code", function()
  local coverage = require "moongate.coverage"

  it("are those that Lua would run, of functions that were never called too", function()
    local path = support.temp_dir() .. "/a.lua"
    process.write_file(path, table.concat({
      "local a = 1", "", "-- nothing", "local function f(...)", "  local t = {", "    1,", '    "two", 3.5,', "  }",
      "  return t, ...", "end", "for i = 1, 2 do", "  f(i)", "end", "if a == nil then",
      "  goto done", "end", "::done::",
    }, "\n"))
    local lines = {}
    for line in pairs(coverage.lines_of(path)) do lines[#lines + 1] = line end
    table.sort(lines)
    assert.same({ 1, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15 }, lines)
    assert.is_nil(coverage.lines_of "/nonexistent")
  end)
end)
