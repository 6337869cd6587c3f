-- For the specs of core/lua: a proxy whose hooks run what a request brings along, so that each spec shows its own
-- script.
--
--     local probe = require "core.lua.probe"
--     support.setup(probe.start)
--     assert.equal("GET", probe.request "return req.method")
--
-- Scripts see gate, req, res, and `upvalue`, a table that outlives requests. What a script returns comes back as
-- text, its values joined with "|"; what it raises as "raised: …".

local support = require "support"
local http = support.http

local probe = {}

local config = [[
local gate = require "moongate"
local upvalue = {}
local hooks = { "on_request", "pick_backend", "on_response", "on_log" }

local function show(...)
  local texts = table.pack(...)
  for i = 1, texts.n do texts[i] = tostring(texts[i]) end
  return table.concat(texts, "|")
end

-- Scripts lie in the request's fields, taken out before they are forwarded.
local function take_scripts(req)
  req.ctx.scripts = {}
  for _, hook in ipairs(hooks) do
    local field = "X-Script-" .. hook:gsub("_", "-")
    local code = req.headers[field]
    if code then req.ctx.scripts[hook] = gate.base64.decode(code) end
    req.headers[field] = nil
  end
end

local function script_of(req, hook)
  local code = req.ctx.scripts[hook]
  return code and assert(load("local gate, req, res, upvalue, last = ... " .. code, "=" .. hook, "t"))
end

local function run(req, hook, res, last)
  local script = script_of(req, hook)
  if not script then return nil end
  local results = table.pack(pcall(script, gate, req, res, upvalue, last))
  if not results[1] then return "raised: " .. tostring(results[2]) end
  return show(table.unpack(results, 2, results.n))
end

local site = {
  listen = "127.0.0.1:$PORT",
  backends = {
    app = { "$BACKEND" },
    other = { { "$BACKEND", name = "one", weight = 3 } },
    dead = { "127.0.0.1:$DEAD" },
  },
  max_body = "1M",
}

function site.on_request(req)
  take_scripts(req)
  local verdict = req.ctx.scripts.on_request and req.ctx.scripts.on_request:match "^verdict:(.*)"
  if verdict then return assert(load("local gate, req = ... " .. verdict, "=on_request", "t"))(gate, req) end
  local text = run(req, "on_request")
  if text and text ~= "" then return gate.reply(200, text) end
end

function site.pick_backend(req, last)
  if not req.ctx.scripts.pick_backend then return req.path == "/dead" and "dead" or "app" end
  local text = run(req, "pick_backend", nil, last)
  return gate.reply(200, text)
end

function site.on_response(req, res)
  local text = run(req, "on_response", res)
  if text and text ~= "" then return gate.reply(200, text) end
end

function site.on_log(req, res)
  local text = run(req, "on_log", res)
  if text then gate.log("info", "on_log says", text) end
end

return { sites = { site }, admin = "127.0.0.1:$PORT2", lua = { hook_cpu = 2 } } -- sanitizers are slow
]]

local function encode(text)
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local out = {}
  for i = 1, #text, 3 do
    local a, b, c = text:byte(i, i + 2)
    local bits = a << 16 | (b or 0) << 8 | (c or 0)
    local digits = {}
    for j = 0, 3 do
      local at = (bits >> (18 - 6 * j) & 63) + 1
      digits[j + 1] = alphabet:sub(at, at)
    end
    if not b then digits[3] = "=" end
    if not c then digits[4] = "=" end
    out[#out + 1] = table.concat(digits)
  end
  return table.concat(out)
end

---Starts the proxy and a backend; for support.setup. The backend answers with `probe.answer` (a handler or a body).
function probe.start()
  probe.answer = "from the backend"
  probe.backend = http.backend(function(request)
    if type(probe.answer) == "function" then return probe.answer(request) end
    return 200, nil, probe.answer
  end)
  local values = { BACKEND = probe.backend, DEAD = support.refusing_port() }
  probe.proxy = support.moongate.start { config = config, values = values, workers = 1 }
  probe.port = probe.proxy.port
end

local fields = {
  on_request = "X-Script-on-request", pick_backend = "X-Script-pick-backend",
  on_response = "X-Script-on-response", on_log = "X-Script-on-log",
}

---The field that brings a script along, for requests a spec writes itself.
---@param hook string
---@param script string
---@return string line
function probe.field(hook, script) return ("%s: %s"):format(fields[hook], encode(script)) end

---Sends a request whose hooks run these scripts.
---@param scripts table<string, string> by hook
---@param options? table { method, target, headers (a list of pairs), body, conn }
---@return support.Response
function probe.exchange(scripts, options)
  options = options or {}
  local headers = {}
  for _, pair in ipairs(options.headers or {}) do headers[#headers + 1] = pair end
  for hook, script in pairs(scripts) do headers[#headers + 1] = { fields[hook], encode(script) } end
  return http.exchange(probe.port, options.method or "GET", options.target or "/", {
    headers = headers, body = options.body, conn = options.conn,
  })
end

---What a script says in on_request.
---@param script string
---@param options? table as for probe.exchange
---@return string
function probe.request(script, options)
  return probe.exchange({ on_request = script }, options).body
end

---What a script says in on_response.
---@param script string
---@param options? table as for probe.exchange
---@return string
function probe.response(script, options)
  return probe.exchange({ on_response = script }, options).body
end

---The answer when on_request returns what the script returns.
---@param script string
---@param options? table as for probe.exchange
---@return support.Response
function probe.verdict(script, options)
  return probe.exchange({ on_request = "verdict:" .. script }, options)
end

---What the backend was asked after on_request ran the script (which returns nothing).
---@param script string
---@param options? table as for probe.exchange
---@return support.Request
function probe.forwarded(script, options)
  local response = probe.exchange({ on_request = script }, options)
  local request = probe.backend.requests[#probe.backend.requests]
  assert(response.status == 200 and not response.body:find "^raised", response.body)
  return request
end

---A figure of the proxy; 0: there is none yet.
---@param name string of a metric without labels
---@return number
function probe.metric(name)
  local text = http.get(probe.proxy.values.PORT2, "/metrics").body
  return tonumber(text:match("\n" .. name .. " (%S+)\n")) or 0
end

---Holds what a script raises against a sentence it contains.
---@param sentence string
---@param script string
---@param options? table as for probe.exchange
function probe.raises(sentence, script, options)
  local text = probe.request(script, options)
  local raised = text:find "^raised: " and text:find(sentence, 1, true)
  assert(raised, ("%q, expected it to raise %q"):format(text, sentence))
end

return probe
