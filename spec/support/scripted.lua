---A config whose site runs the script that a request's body is, and answers with what it returned.
local scripted = {}

---@class support.ScriptedOptions
---@field names string what the script knows: "gate, socket"
---@field before string Lua text that makes these names; `gate` and `socket` are known already
---@field show? string Lua text that makes `show(value)`: how one is written, tostring

---The answer is the results with "|" between, or "raised: " and the error.
---@param options support.ScriptedOptions
---@return string config
function scripted.config(options)
  return (([[
local gate = require "moongate"
local socket = require "socket"
BEFORE
local show = tostring
SHOW
local site = { listen = "127.0.0.1:$PORT", lua = { hook_cpu = 2 } }

local function join(...)
  local texts = table.pack(...)
  for i = 1, texts.n do texts[i] = show(texts[i]) end
  return table.concat(texts, "|")
end

function site.on_request(req)
  local script = assert(load("local NAMES = ... " .. req.body:text(), "=script", "t"))
  local ok, text = pcall(function() return join(script(NAMES)) end)
  return gate.reply(200, (ok and "" or "raised: ") .. tostring(text))
end

return site
]]):gsub("%f[%u]%u+%f[%U]", { BEFORE = options.before, SHOW = options.show or "", NAMES = options.names }))
end

return scripted
