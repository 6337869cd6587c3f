-- luacheck: no max line length (scripts and messages stand in one line)
local engine = require "core.lua.engine"

describe("a hook", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  local backends = { "app", "other" }

  local function answer(hook, body, options)
    local state = engine.open(([[
      local gate = require "moongate"
      return { %s = function(req, last) %s end }
    ]]):format(hook, body), { backends = backends })
    return engine.answer(state, hook, options)
  end

  it("that returns nothing carries on", function()
    for _, hook in ipairs { "on_request", "cache_key", "pick_backend", "on_response", "on_log", "on_error" } do
      assert.equal("carry_on", answer(hook, ""))
    end
  end)

  it("that is not there carries on", function()
    local state = engine.open "return {}"
    assert.equal("carry_on", engine.answer(state, "on_request"))
  end)

  describe("on_request", function()
    it("answers with a reply, a redirect or a bare status", function()
      assert.equal("reply 403 no\n", answer("on_request", [[return gate.reply(403, "no\n")]]))
      assert.equal("reply 404", answer("on_request", "return 404"))
      assert.matches("^reply 302", answer("on_request", [[return gate.redirect "https://example.com/"]]))
    end)

    it("fails on what is neither", function()
      for _, value in ipairs { "'text'", "{}", "true", "199", "600", "200.5", "0/0", "print" } do
        assert.equal("failed", answer("on_request", "return " .. value))
        assert.matches("on_request of site1 failed %(request 0123456789abcdef, generation %d+%): nowhere/config.lua:2: on_request returned", engine.log())
      end
    end)

    it("takes a reply that a helper raised as the answer", function()
      local state = engine.open [[
        local gate = require "moongate"
        local function guard() error(gate.reply(403, "guarded")) end
        return { on_request = function(req) guard() end, on_log = function() error(gate.reply(403)) end }
      ]]
      assert.equal("reply 403 guarded", engine.answer(state, "on_request"))
      assert.equal("", engine.log())
    end)
  end)

  describe("that raises", function()
    it("fails closed, and the log has place and traceback", function()
      local state = engine.open [[
local function inner(t) return t.x.y end
return { on_request = function(req) inner {} end }
]]
      assert.equal("failed", engine.answer(state, "on_request"))
      local log = engine.log()
      assert.matches("on_request of site1 failed %(request 0123456789abcdef, generation %d+%): nowhere/config.lua:1: attempt to index a nil value %(field 'x'%)", log)
      assert.matches("stack traceback:", log)
      assert.matches("nowhere/config.lua:2: in function", log)
      assert.equal(1, state:errors "on_request")
    end)

    it("is told with its place whatever it raises", function()
      for raised, told in pairs {
        ["{ code = 1 }"] = "(the error is a table, not a text)", ["nil"] = "(the error is nil, not a text)",
        ["setmetatable({}, { __tostring = function() return 'a lie' end })"] = "(the error is a table, not a text)",
        ["'a\\0b'"] = "a?b",
      } do
        local state = engine.open("return {\n  on_request = function()\n    error(" .. raised .. ")\n  end\n}")
        assert.equal("failed", engine.answer(state, "on_request"))
        local log = engine.log()
        assert.is_truthy(log:find("nowhere/config.lua:3: " .. told .. "\n", 1, true), log)
      end
    end)

    it("carries on where the site says so", function()
      local state = engine.open("return { on_request = function() error 'x' end }", { fail_open = { on_request = true } })
      assert.equal("carry_on", engine.answer(state, "on_request"))
      assert.matches("config.lua:1: x", engine.log())
      assert.equal(1, state:errors "on_request")
    end)

    it("may raise anything", function()
      for _, value in ipairs { "nil", "{}", "setmetatable({}, { __tostring = function() error 'again' end })", "print", "12" } do
        assert.equal("failed", answer("on_request", "error(" .. value .. ")"))
        assert.matches("failed", engine.log())
      end
    end)

    it("leaves the next call alone", function()
      local state = engine.open [[
        local n = 0
        return { on_request = function() n = n + 1; if n % 2 == 1 then error "odd" end return 200 + n end }
      ]]
      for i = 1, 10 do assert.equal(i % 2 == 1 and "failed" or "reply " .. 200 + i, engine.answer(state, "on_request")) end
    end)
  end)

  describe("cache_key", function()
    it("makes different keys of different parts", function()
      local lists = { "'a'", "'a', nil", "'a', 'b'", "'ab'", "nil", "nil, nil", "1", "'1'", "1.5", "true", "false, 1", "'s1:a'", "'a', ''", "''" }
      local seen = {}
      for _, list in ipairs(lists) do
        local key = answer("cache_key", "return " .. list)
        assert.matches("^key ", key)
        assert.is_nil(seen[key], list .. " looks like " .. tostring(seen[key]))
        seen[key] = list
      end
    end)

    it("takes equal numbers as equal, whatever their kind", function()
      assert.equal(answer("cache_key", "return 1"), answer("cache_key", "return 1.0"))
    end)

    it("is bounded", function()
      assert.matches("^key ", answer("cache_key", "return table.unpack({}, 1, 64)"))
      for _, list in ipairs { "table.unpack({}, 1, 65)", "table.unpack({}, 1, 10000)", "('x'):rep(70000)" } do
        assert.equal("failed", answer("cache_key", "return " .. list))
        assert.matches("returned a key of more than 64 parts or 65536 bytes", engine.log())
      end
    end)

    it("bypasses with false", function() assert.equal("no", answer("cache_key", "return false")) end)

    it("fails on a table", function()
      assert.equal("failed", answer("cache_key", "return 'a', {}"))
      assert.matches("returned a table as a part of the key", engine.log())
    end)
  end)

  describe("pick_backend", function()
    it("names a backend, or one of its servers", function()
      assert.equal("pick app", answer("pick_backend", "return 'app'"))
      assert.equal("pick app/one", answer("pick_backend", "return 'app/one'"))
    end)

    it("gives a list with its own rules", function()
      local state = engine.open([[
        return { pick_backend = function() return { "other", "app", tries = 2, retry_on = { "connect", "5xx", 503 }, timeout = "500ms" } end }
      ]], { backends = backends })
      local pick = state:call "pick_backend".pick
      assert.same({ "other", "app" }, { pick[1], pick[2] })
      assert.is_true(pick.listed)
      assert.equal(2, pick.tries)
      assert.equal(0.5, pick.timeout)
      assert.is_true(pick.retry_503)
    end)

    it("answers with a reply, or says no", function()
      assert.equal("reply 503 later", answer("pick_backend", "return gate.reply(503, 'later')"))
      assert.equal("no", answer("pick_backend", "return false"))
    end)

    it("is told of the last try", function()
      assert.equal("reply 200 app|nil|nil|connect_refused|1", answer("pick_backend", [[
        return gate.reply(200, table.concat({ last.backend, tostring(last.server), tostring(last.status), last.error, last.tries }, "|"))
      ]], { last = 1 }))
      assert.equal("reply 200 nil", answer("pick_backend", "return gate.reply(200, tostring(last))"))
    end)

    it("fails naming a backend that is not there", function()
      for value, sentence in pairs {
        ["'nope'"] = 'returned the backend "nope"', ["'app/two'"] = 'returned the server "app/two"', ["{}"] = "without a backend",
        ["{ 'app', 'x' }"] = 'the backend "x"', ["{ 'app', trise = 2 }"] = 'unknown field "trise"', ["{ 'app', tries = 0 }"] = "wrong tries",
        ["{ 'app', retry_on = 'x' }"] = "wrong retry_on", ["{ 'app', timeout = 'x' }"] = "wrong timeout", ["12"] = "returned a number",
      } do
        assert.equal("failed", answer("pick_backend", "return " .. value))
        assert.is_truthy(engine.log():find(sentence, 1, true), value)
      end
    end)
  end)

  it("on_error is told what failed", function()
    assert.equal("reply 502 502|connect_refused|the server refused the connection|nil", answer("on_error", [[
      local err = last
      return gate.reply(err.status, table.concat({ err.status, err.word, err.sentence, tostring(err.hook) }, "|"))
    ]]))
  end)

  describe("as a constant", function()
    it("is decided without a function", function()
      local state = engine.open([[
        local gate = require "moongate"
        return { on_request = gate.reply(403, "closed", { ["X-A"] = "1" }), pick_backend = "app", cache_key = false, on_response = 404 }
      ]], { backends = backends })
      local reply = state:call "on_request"
      assert.equal("reply 403 closed", engine.shown(reply))
      assert.equal("1", reply.headers["X-A"])
      assert.equal("pick app", engine.answer(state, "pick_backend"))
      assert.equal("no", engine.answer(state, "cache_key"))
      assert.equal("reply 404", engine.answer(state, "on_response"))
      assert.equal(0, state:figures().runs)
    end)

    it("may be a list of backends", function()
      local state = engine.open("return { pick_backend = { 'app/one', 'other' } }", { backends = backends })
      assert.equal("pick app/one other", engine.answer(state, "pick_backend"))
    end)

    it("refuses to start with a backend that is not there", function()
      local state = engine.load("return { pick_backend = 'nope' }", { backends = backends })
      local ok, why = state:start()
      assert.is_false(ok)
      assert.matches('pick_backend: the backend "nope", which this site does not have', why)
    end)

    it("must be of a kind that the hook takes", function()
      local state = engine.load "return { on_log = 200, on_request = 'no', cache_key = {} }"
      local hooks, errors = state:hooks()
      assert.same({}, hooks)
      assert.matches("on_log: expected a function, got a number", errors)
      assert.matches("on_request: expected a function, a reply or a status, got a string", errors)
      assert.matches("cache_key: expected a function, a string, a number or false, got a table", errors)
    end)

    it("is false for on_connect, which has nobody to reply to", function()
      local _, errors = engine.load("return { on_connect = 403 }"):hooks()
      assert.matches("on_connect: expected a function or false, got a number", errors, 1, true)
    end)
  end)

  describe("in policies that are used", function()
    local function site(hook, decide)
      return engine.open(([[
        local gate = require "moongate"
        local order = {}
        local function policy(name)
          return { %s = function(req) order[#order + 1] = name; %s end }
        end
        local site = policy "site"
        site.use = { policy "a", policy "b" }
        site.on_error = function() return gate.reply(200, table.concat(order, " ")) end
        return site
      ]]):format(hook, decide or ""), { backends = backends })
    end

    local function order(hook, decide)
      local state = site(hook, decide)
      local first = engine.answer(state, hook)
      return state:call "on_error".body, first
    end

    it("asks guards first, in order, until one answers", function()
      assert.equal("a b site", (order "on_request"))
      local asked, answered = order("on_request", "if name == 'b' then return 403 end")
      assert.equal("a b", asked)
      assert.equal("reply 403", answered)
    end)

    it("asks the site first where a choice is made", function()
      assert.equal("site b a", (order "cache_key"))
      assert.equal("site b a", (order "pick_backend"))
      local asked, answered = order("pick_backend", "if name == 'b' then return 'other' end")
      assert.equal("site b", asked)
      assert.equal("pick other", answered)
    end)

    it("passes answers back through the line", function()
      assert.equal("site b a", (order "on_response"))
      assert.equal("site b", (order("on_response", "if name == 'b' then return 404 end")))
    end)

    it("logs with all of them, also when one fails", function()
      assert.equal("a b site", (order "on_log"))
      assert.equal("a b site", (order("on_log", "if name == 'a' then error 'x' end")))
    end)

    it("may be used by policies, to some depth", function()
      local state = engine.open [[
        local c = { on_request = function() return 201 end }
        return { use = { { use = { c } } } }
      ]]
      assert.equal("reply 201", engine.answer(state, "on_request"))
      local _, errors = engine.load("local p = {}; p.use = { p }; return { use = { p } }")
      assert.matches("holds itself", errors)
    end)

    it("may be constants", function()
      local state = engine.open("return { use = { { on_request = 401 } }, on_request = function() return 200 end }")
      assert.equal("reply 401", engine.answer(state, "on_request"))
    end)

    it("must have hooks by names that exist", function()
      local state = engine.load "return { use = { { on_requst = function() end, note = 'data', helper = function() end }, 12 } }"
      local _, errors = state:hooks()
      assert.matches("use%[1%]%.on_requst: there is no such hook; did you mean on_request%?", errors)
      assert.matches("use%[1%]%.helper: there is no such hook", errors)
      assert.matches("use%[2%]: expected a policy: a table of hooks", errors)
      assert.is_nil(errors:find "note")
    end)
  end)

  it("tells which hooks a site has, for each of several", function()
    local state = engine.load [[
      return { sites = { { on_request = function() end }, { use = { { on_log = function() end } }, pick_backend = 200 } } }
    ]]
    assert.same({ on_request = true }, (state:hooks(1)))
    assert.same({ on_log = true, pick_backend = true }, (state:hooks(2)))
  end)

  it("belongs to its site", function()
    local state = engine.open("return { sites = { { on_request = 201 }, { on_request = 202 } } }", { sites = 2 })
    assert.equal("reply 201", engine.answer(state, "on_request", { site = 0 }))
    assert.equal("reply 202", engine.answer(state, "on_request", { site = 1 }))
  end)

  it("shares req and ctx with the other hooks of its exchange, and loses them at its end", function()
    local state = engine.open [[
      local gate = require "moongate"
      local kept
      local site = {}
      function site.on_request(req) req.ctx.a = 1; kept = req end
      function site.on_response(req, res) return gate.reply(200, tostring(req == kept and req.ctx.a == 1)) end
      function site.on_error() return gate.reply(200, tostring(select(2, pcall(function() return kept.method end)))) end
      return site
    ]]
    local call = state:begin "on_request"
    assert.equal("carry_on", call:finish().verdict)
    assert.equal("true", call:again("on_response").body)
    call:end_subject()
    assert.matches("the exchange has ended", state:call("on_error").body)
  end)
end)
