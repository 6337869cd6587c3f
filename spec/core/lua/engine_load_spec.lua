-- luacheck: no max line length (scripts and messages stand in one line)
local engine = require "core.lua.engine"

describe("a config file", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("returns a site", function()
    local state = engine.load "return { listen = 8080, hosts = { 'a', 'b' }, on_request = function()\nend }"
    assert.same({ listen = 8080, hosts = { "a", "b" }, on_request = "function 1" }, state:config())
  end)

  it("returns a table with sites", function()
    local state = engine.load "return { sites = { { listen = 1 }, { listen = 2 } }, workers = 4 }"
    assert.same({ sites = { { listen = 1 }, { listen = 2 } }, workers = 4 }, state:config())
  end)

  it("returns nothing: then its globals are the site", function()
    local state = engine.load "listen = '127.0.0.1:80'\nlocal gate = require 'moongate'\nfunction on_request() return 201 end\nhelper = gate.log\nstring_again = string"
    local config = state:config()
    assert.equal("127.0.0.1:80", config.listen)
    assert.equal("function 3", config.on_request)
    assert.is_nil(config.string)
    assert.is_nil(config.require)
    assert.same({ on_request = true }, (state:hooks()))
    assert.is_true(state:start())
    assert.equal("reply 201", engine.answer(state, "on_request"))
  end)

  it("returns nothing else", function()
    local state, errors = engine.load "return 'text'"
    assert.is_nil(state)
    assert.matches("nowhere/config.lua: the file returned a string: expected a site", errors)
    errors = select(2, engine.load "local t = {} t.t = t return t")
    assert.matches("nested too deeply, or holds itself", errors)
  end)

  it("may begin with a #! line or a byte order mark", function()
    assert.equal("function 2", engine.load("#!/usr/bin/env moongate\nreturn { on_request = function() end }"):config().on_request)
    assert.same({ listen = 1 }, engine.load("\xEF\xBB\xBFreturn { listen = 1 }"):config())
  end)

  it("is told its syntax errors in one line", function()
    local _, errors = engine.load "return {\n  listen = "
    assert.equal("nowhere/config.lua:2: unexpected symbol near <eof>", (errors:gsub("\n$", "")))
  end)

  it("is told its errors with place and traceback", function()
    local _, errors = engine.load "local x = 1\nlocal y = = 2"
    assert.matches("^nowhere/config.lua:2: unexpected symbol near '='", errors)
    _, errors = engine.load "local function f(t)\n  return t.x.y\nend\nf {}"
    assert.matches("^nowhere/config.lua:2: attempt to index a nil value %(field 'x'%)\nstack traceback:", errors)
    assert.matches("nowhere/config.lua:4: in main chunk", errors)
    _, errors = engine.load "error {}"
    assert.matches("^nowhere/config.lua:1: %(the error is a table, not a text%)\nstack traceback:", errors)
    _, errors = engine.load "\nerror(nil)"
    assert.matches("^nowhere/config.lua:2: %(the error is nil, not a text%)\n", errors)
  end)

  it("is text", function()
    local _, errors = engine.load((string.dump(function() return {} end):gsub("%z.*", "")))
    assert.matches("attempt to load a binary chunk", errors)
  end)

  describe("requires modules", function()
    it("beside it, once, with their name and path", function()
      local state = engine.load([[
        local one, again = require "lib.one", require "lib.one"
        return { listen = one.value, hosts = { tostring(one == again), one.name, one.path, tostring(require "nothing") } }
      ]], { modules = { ["lib.one"] = "local name, path = ... return { value = 7, name = name, path = path }", nothing = "" } })
      assert.same({ listen = 7, hosts = { "true", "lib.one", "nowhere/lib/one.lua", "true" } }, state:config())
    end)

    it("and is told where they were looked for", function()
      local _, errors = engine.load "require 'no.such'"
      assert.matches("^nowhere/config.lua:1: module 'no.such' not found:\n\tnowhere/no/such.lua %(no such file%)", errors)
      for _, name in ipairs { "../x", "/etc/passwd", "a..b", ".a", "" } do
        _, errors = engine.load(("require %q"):format(name))
        assert.matches("a module's name is words with dots between", errors)
      end
    end)

    it("and is told of cycles", function()
      local _, errors = engine.load("require 'a'", { modules = { a = "require 'b'", b = "require 'c'", c = "require 'b'" } })
      assert.matches("nowhere/c.lua:1: module 'b' requires itself: b %-> c %-> b", errors)
    end)

    it("and is told their errors", function()
      local _, errors = engine.load("\nrequire 'a'", { modules = { a = "\n\nlocal x = = 1" } })
      assert.matches("^nowhere/a.lua:3: unexpected symbol", errors)
      _, errors = engine.load("\nrequire 'a'", { modules = { a = "\nerror 'oh'" } })
      assert.matches("^nowhere/a.lua:2: oh", errors)
      assert.matches("nowhere/config.lua:2: in main chunk", errors)
    end)

    it("and can load one again after it failed", function()
      local state = engine.load([[
        local ok = pcall(require, "a")
        local cycle, err = pcall(require, "a")
        return { hosts = { tostring(ok), tostring(cycle), err:match "[^:]*$" } }
      ]], { modules = { a = "error 'oh'" } })
      assert.same({ hosts = { "false", "false", " oh" } }, state:config())
    end)

    it("only while it is loaded", function()
      local state = engine.open([[
        local gate = require "moongate"
        require "a"
        return { on_request = function() return gate.reply(200, require("a") .. tostring(select(2, pcall(require, "b")))) end }
      ]], { modules = { a = "return 'A'", b = "return 'B'" } })
      assert.matches("^reply 200 A.*modules are loaded together with the file", engine.answer(state, "on_request"))
    end)
  end)

  describe("with on_load", function()
    it("runs it before it serves, with waits", function()
      local state = engine.open [[
        local gate = require "moongate"
        local loaded = "no"
        return {
          on_load = function(state) gate.sleep(0.005) loaded = "yes " .. tostring(state) end,
          on_request = function() return gate.reply(200, loaded) end,
        }
      ]]
      assert.equal("reply 200 yes nil", engine.answer(state, "on_request"))
    end)

    it("fails when that fails", function()
      local state = engine.load "return { on_load = function()\n error 'not today' end }"
      local ok, errors = state:start()
      assert.is_false(ok)
      assert.matches("^nowhere/config.lua:2: on_load: not today\nstack traceback:", errors)
    end)

    it("gets what on_unload of the former generation gave, policy by policy", function()
      local text = [[
        local gate = require "moongate"
        local function counter(name)
          local n = 0
          return {
            on_load = function(state) n = state and state[name] or 0 end,
            on_unload = function() return { [name] = n + 1, list = { 1, 2, { 3 } } } end,
            on_request = function(req) req.ctx[name] = n end,
          }
        end
        local quiet = { on_load = function(state) assert(state == nil) end }
        local site = counter "site"
        site.use = { counter "used", quiet }
        site.on_response = function(req) return gate.reply(200, req.ctx.site .. " " .. req.ctx.used) end
        return site
      ]]
      local snapshot
      for generation = 0, 3 do
        local state = assert(engine.load(text))
        assert.is_true(state:start(snapshot))
        local call = state:begin "on_request"
        call:finish()
        assert.equal(("%d %d"):format(generation, generation), call:again("on_response").body)
        local data
        data, snapshot = state:unload()
        assert.same({ site1 = { { used = generation + 1, list = { 1, 2, { 3 } } }, false, { site = generation + 1, list = { 1, 2, { 3 } } } } }, data)
      end
    end)

    it("gives nothing where on_unload fails, waits, or returns what is no plain data", function()
      for body, sentence in pairs {
        ["error 'oh'"] = "config.lua:1: oh", ["require('moongate').sleep(0)"] = "cannot wait", ["return { f = print }"] = "a function is no plain data",
        ["local t = {} t.t = t return t"] = "holds itself",
      } do
        local state = engine.open(("return { on_unload = function() %s end }"):format(body))
        assert.same({ site1 = { false } }, (state:unload()))
        assert.matches(sentence, engine.log())
      end
    end)
  end)

  it("can be stopped while hooks wait", function()
    local state = engine.open [[
      local gate = require "moongate"
      return { on_request = function() local c <close> = setmetatable({}, { __close = function() print "closed" end }) gate.sleep(100) end }
    ]]
    local call = state:begin "on_request"
    state:stop()
    assert.matches("closed", engine.log())
    assert.equal("failed", call:go())
    assert.equal("carry_on", state:call("on_request").verdict)
  end)

  it("is closed whatever it is at", function()
    for _ = 1, 20 do
      local state = engine.open [[
        local gate = require "moongate"
        gate.every(0.01, function() gate.sleep(1) end, { each = "worker" })
        return { on_request = function() gate.spawn(function() gate.sleep(5) end) gate.all(function() gate.sleep(3) end, function() gate.sleep(4) end) end }
      ]]
      state:become_current()
      state:begin "on_request"
      state:wait(0.02)
      state:close()
    end
    collectgarbage()
  end)
end)
