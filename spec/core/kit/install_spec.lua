-- The installed tree: it may stand anywhere, and finds its own files.

local support = require "support"
local it, process = support.it, support.process

describe("an installed tree", function()
  local prefix
  support.setup(function()
    prefix = support.temp_dir()
    local build = "build/" .. (os.getenv "MOONGATE_PRESET" or "debug")
    local status, _, err = process.run({ "cmake", "--install", build, "--prefix", prefix }, { timeout = 60 })
    assert(status == 0, err)
  end)

  local env = { LD_PRELOAD = os.getenv "MOONGATE_PRELOAD" or false, ASAN_OPTIONS = "detect_leaks=0",
    LUA_PATH_5_4 = false, LUA_CPATH_5_4 = false, LUA_PATH = false, LUA_CPATH = false }

  it("has the program, the kit, what scripts require, and the manual", function()
    for _, path in ipairs {
      "bin/moongate", "lib/moongate/moongate_kit.so", "share/moongate/lua/moongate/testing.lua",
      "share/moongate/lua/types/testing.lua", "share/moongate/scripts/cors.lua", "share/man/man1/moongate.1",
      "share/doc/moongate/docs/guide.md",
    } do
      local file = io.open(prefix .. "/" .. path)
      assert(file, path)
      file:close()
    end
  end)

  it("explains, and runs specs that load policies with ready-made ones", function()
    local dir = support.temp_dir()
    process.write_file(dir .. "/site.lua", [[
      return { listen = 8080, use = { require "scripts.request_id" {} }, on_request = 204 }]])
    process.write_file(dir .. "/site_spec.lua", [[
      local testing = require "moongate.testing"
      it("is tried", function() assert.equal(204, testing.load("site.lua"):request("/").status) end)
      it("is not that of the source tree", function()
        local module = testing.load("site.lua"):files()[2]
        assert.equal(os.getenv "PREFIX" .. "/share/moongate/scripts/request_id.lua", module)
      end)]])
    local options = { cwd = dir, timeout = 60, env = { PREFIX = prefix } }
    for name, value in pairs(env) do options.env[name] = value end
    local status, out, err = process.run({ prefix .. "/bin/moongate", "test" }, options)
    assert(status == 0, out .. err)
    status, out, err = process.run({ prefix .. "/bin/moongate", "explain", "site.lua", "/" }, options)
    assert(status == 0 and out:find("answer: 204", 1, true), out .. err)
  end)
end)
