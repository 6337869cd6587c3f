-- For the specs of core/lua's engine: states without a network, and what they log.
--
--     local state = engine.open [[ return { on_request = function(req) … end } ]]   -- closed at the end of the spec
--     assert.equal("200 hello", engine.answer(state, "on_request"))
--     assert.matches("config.lua:3", engine.log())
-- luacheck: no max line length (scripts and messages stand in one line)

local core = require "moongate_core"

local engine = {}

-- Under ThreadSanitizer specs keep the number of raised errors and of yields small: it does not see Debian's Lua unwind, and counts every
-- frame of ours that is left so as still there. (The executable brings what is missing, core/lua/budget.c; a module cannot.)
engine.few_errors = os.getenv "MOONGATE_PRESET" == "tsan"

local log_path
local log_read = 0
local open_states = {}

---Sends the log to a file that `engine.log` reads; for before_each, with engine.after_each.
function engine.before_each()
  log_path = os.tmpname()
  log_read = 0
  core.base.log_open(log_path, 2)
end

function engine.after_each()
  for i = #open_states, 1, -1 do open_states[i]:close() end
  open_states = {}
  core.base.log_open("/dev/stderr", 2)
  os.remove(log_path)
end

---What was logged since the last call.
---@return string
function engine.log()
  local file = assert(io.open(log_path))
  file:seek("set", log_read)
  local text = file:read "a"
  log_read = log_read + #text
  file:close()
  return text
end

---Loads without starting; nil and the errors if the file is wrong.
---@param text string
---@param options? table backends, modules, sites, memory, hook_cpu, load_cpu, fail_open
function engine.load(text, options)
  local state, errors = core.lua.open(text, options)
  if state then open_states[#open_states + 1] = state end
  return state, errors
end

---Loads and starts; raises the errors of either.
function engine.open(text, options)
  local state, errors = engine.load(text, options)
  if not state then error(errors, 2) end
  local ok, why = state:start()
  if not ok then error(why, 2) end
  return state
end

---A state whose on_request runs the text (with gate and req) and answers with what it returned, joined by "|", or what it raised.
function engine.script(text, options)
  return engine.open(([[
local gate = require "moongate"
local site = {}
local function show(ok, ...)
  local texts = table.pack(...)
  for i = 1, texts.n do texts[i] = tostring(texts[i]) end
  return gate.reply(200, (ok and "" or "raised: ") .. table.concat(texts, "|"))
end
local function script(req) %s
end
function site.on_request(req) return show(pcall(script, req)) end
return site
]]):format(text), options)
end

---What such a script comes to.
---@return string
function engine.run(text, options)
  if engine.few_errors then
    options = options or {}
    options.hook_cpu = options.hook_cpu or 1 -- everything is slow there
  end
  local answer = engine.script(text, options):call "on_request"
  return answer.body or answer.verdict
end

---For scripts with the same beginning: `run(text, …)`, in whose text each %s becomes an argument as a Lua literal, and
---`assert_raises(sentence, text, …)`.
---@param prelude string
function engine.runner(prelude)
  local function run(text, ...)
    local literals = table.pack(...)
    for i = 1, literals.n do literals[i] = ("%q"):format(literals[i]) end
    return engine.run(prelude .. text:format(table.unpack(literals, 1, literals.n)), { hook_cpu = 5 })
  end
  return run, function(sentence, text, ...)
    local said = run(text, ...)
    assert(said:find("^raised: ") and said:find(sentence, 1, true), ("%q, expected it to raise %q"):format(said, sentence))
  end
end

---A table of strings, such as a JWK, as a Lua literal.
function engine.literal(fields)
  local parts = {}
  for name, value in pairs(fields) do parts[#parts + 1] = ("%s = %q"):format(name, value) end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

---An answer in a few words: "reply 200 body", "pick a b", "carry_on".
function engine.shown(answer)
  local words = { answer.verdict }
  if answer.status then words[#words + 1] = answer.status end
  if answer.body then words[#words + 1] = answer.body end
  if answer.key then words[#words + 1] = answer.key end
  for _, backend in ipairs(answer.pick or {}) do words[#words + 1] = backend end
  return table.concat(words, " ")
end

function engine.answer(state, hook, options) return engine.shown(state:call(hook, options)) end

---CPU seconds that f took.
function engine.cpu(f, ...)
  local before = os.clock()
  f(...)
  return os.clock() - before
end

return engine
