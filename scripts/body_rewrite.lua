-- Changes bodies while they flow: texts are put in the place of others, or a function gets the pieces.
--
--     use = { require "scripts.body_rewrite" {
--       response = { types = { "text/*" }, replace = { ["http://app.internal"] = "https://www.example.com" } },
--     } }
--
-- `response` and `request` are rules, one or a list. A rule is for some media types (default: text/html), perhaps for
-- some paths, methods and hosts (moongate.rules; the path as this policy finds it). All rules that fit apply, one
-- after the other: what one put in the next one sees.
--
-- `replace` is plain text, no patterns: as many as 256 texts of 4096 bytes in one pass, in C, also where a text is cut
-- by the border of two pieces. A function gives texts that depend on the request. `map` is a function that is called
-- for each message, and gives the function that gets its pieces (body:map): for what plain texts cannot say.
--
-- Bodies are streamed: none is held, however long. Content codings are taken off and put on again. What told of the
-- former content goes (ETag, digests, lengths). Where a rule could apply, clients are not served parts (Range), and
-- backends are not asked for codings that cannot be taken off.
--
-- A body that cannot be read all the same, for its coding or because it is a part, is not let through unchanged: 502
-- for an answer, 415 for a request. `unreadable = "pass"` lets it through, where a change is for looks only.
--
-- Costs about 2 µs a request, 1.5 µs more for an answer that is changed, and 0.3 ms for each MiB searched.

local gate = require "moongate"
local options = require "moongate.options"
local rewrite = require "moongate.rewrite"
local rules = require "moongate.rules"

---@class body_rewrite.Rule : rules.Rule
---@field types? string[] media types; a "*" may stand for the second half: "text/*"; default { "text/html" }
---texts by what they are to be put in the place of; a function may give nil: nothing
---@field replace? table<string, string>|fun(req: moongate.Request, res: moongate.Response?): table<string, string>?
---gives body:map's function for a message, or nil
---@field map? fun(req: moongate.Request, res: moongate.Response?): (fun(piece: string?): string?)?
---@field unreadable? "fail"|"pass" what cannot be changed; default "fail"

---@class body_rewrite.Options
---@field response? body_rewrite.Rule|body_rewrite.Rule[]
---@field request? body_rewrite.Rule|body_rewrite.Rule[]

local function is_replace(value)
  if type(value) == "function" then return nil end
  local count, well = 0, type(value) == "table" and next(value) ~= nil
  for from, to in pairs(well and value or {}) do
    count = count + 1
    well = well and type(from) == "string" and #from >= 1 and #from <= 4096 and type(to) == "string"
  end
  if not well or count > 256 then return "texts = texts, 1 to 256 of them of 1 to 4096 bytes, or a function" end
end

local known_rule = {
  types = rewrite.is_types, replace = is_replace, map = "function",
  unreadable = function(value) if value ~= "fail" and value ~= "pass" then return '"fail" or "pass"' end end,
}

local function list_of(given)
  if given == nil then return {} end
  return type(given) == "table" and (given[1] == nil and next(given) ~= nil) and { given } or given
end

local function problem_of(given)
  local problem = options.problem(given, { response = "table", request = "table" })
  if problem then return problem end
  if given.response == nil and given.request == nil then return "expected response, request or both" end
  for _, side in ipairs { "response", "request" } do
    local list = list_of(given[side])
    if given[side] and not list[1] then return side .. ": expected a rule, or a list of rules" end
    problem = rules.problem(list, known_rule, side)
    if problem then return problem end
    for i, rule in ipairs(list) do
      if (rule.replace == nil) == (rule.map == nil) then return ("%s[%d]: expected replace or map"):format(side, i) end
    end
  end
end

-- Rules as they are applied.
local function compile(given)
  local list = {}
  for i, rule in ipairs(list_of(given)) do
    list[i] = {
      fits = rules.finder { rule }, is_type = rewrite.types(rule.types or { "text/html" }),
      replace = rule.replace, map = rule.map, passes = rule.unreadable == "pass",
    }
  end
  return list
end

-- Declares a change by one of a body's methods. Nil and why, where the core cannot read the body; a change that makes
-- no sense is a mistake of the rule's function and raises.
local function declare(body, method, what)
  local ok, why = pcall(body[method], body, what)
  if ok then return true end
  why = tostring(why)
  if not why:find "%f[%w_]unknown_coding: " and not why:find "%f[%w_]partial: " then error(why, 0) end
  return nil, why
end

local function change(rule, body, req, res)
  local texts = rule.replace
  if type(texts) == "function" then texts = texts(req, res) end
  if texts and next(texts) ~= nil then return declare(body, "replace", texts) end
  local map = rule.map and rule.map(req, res)
  if map then return declare(body, "map", map) end
  return true
end

-- Applies those rules that are for the type. False: one could not be, and that is not to be passed over.
local function apply(list, message, req, res)
  local kind = message.body and rewrite.type_of(message.headers)
  for i = 1, kind and #list or 0 do
    local rule = list[i]
    local ok, why = true, nil
    if rule.is_type(kind) then ok, why = change(rule, message.body, req, res) end
    if not ok then gate.log(rule.passes and "info" or "warn", "body_rewrite:", req.path, why) end
    if not ok and not rule.passes then return false end
  end
  return true
end

---@param given body_rewrite.Options
---@return moongate.Policy
return function(given)
  options.blame("body_rewrite", problem_of(given))
  local for_request, for_response = compile(given.request), compile(given.response)
  local slot = {} -- in req.ctx: the rules for the answer, since later policies may change the path

  local function fitting(compiled, req)
    local list = {}
    for i = 1, #compiled do
      if compiled[i].fits(req) then list[#list + 1] = compiled[i] end
    end
    return list
  end

  local policy = {}

  function policy.on_request(req)
    if not apply(fitting(for_request, req), req, req) then
      return gate.reply(415, "this body's coding cannot be read here\n")
    end
    local list = fitting(for_response, req)
    if not list[1] then return end
    req.ctx[slot] = list
    rewrite.prepare(req)
  end

  if for_response[1] then
    function policy.on_response(req, res)
      if not apply(req.ctx[slot] or {}, res, req, res) then return 502 end
    end
  end
  return policy
end
