-- Rules for some requests, told by path, method and host, for policies that have options "per rule".
--
--     local rules = require "moongate.rules"
--     local find = rules.finder { { path = "/login", methods = { "POST" }, rate = 5 }, { path = "/", rate = 100 } }
--     local rule = find(req)
--
-- The first rule that fits counts. A path fits with all below it, "/login" also "/login/help", but not "/logins"; it is
-- held against `req.path`, which is normalised, and is the one that is forwarded. What a backend takes for the same
-- path although it is not (other case, doubled slashes) does not fit: keep what holds for all other requests strict.

local options = require "moongate.options"

local rules = {}

---@class rules.Rule
---@field path? string|string[] one or more; default all
---@field methods? string[] default all
---@field hosts? string[] default all

local function is_paths(value)
  local list = type(value) == "string" and { value } or value
  local well = type(list) == "table" and #list > 0
  for _, path in ipairs(well and list or {}) do well = well and type(path) == "string" and path:sub(1, 1) == "/" end
  if not well then return "a path that begins with /, or a list of these" end
end

local function is_names(pattern, what)
  return function(value)
    if type(value) ~= "table" or #value == 0 then return what end
    for _, name in ipairs(value) do
      if type(name) ~= "string" or not name:find(pattern) then return what end
    end
  end
end

local known = {
  path = is_paths, methods = is_names("^[A-Z-]+$", 'a list of methods such as { "POST" }'),
  hosts = is_names("^[%l%d.:%[%]_-]+$", "a list of host names in lower case"),
}

---What is wrong with a list of rules, or nil. `own` has the options that a rule has beside those of rules.Rule.
---@param list any
---@param own table<string, any> as options.problem takes them
---@param name string of the option, "rules"
---@return string? problem
function rules.problem(list, own, name)
  if type(list) ~= "table" or (next(list) ~= nil and list[1] == nil) then
    return name .. ': expected a list such as { { path = "/login", … } }'
  end
  local all = {}
  for _, kinds in ipairs { known, own } do
    for option, kind in pairs(kinds) do all[option] = kind end
  end
  for i, rule in ipairs(list) do
    local problem = options.problem(rule, all, nil, ("%s[%d]."):format(name, i))
    if problem then return problem end
  end
end

local function set_of(list)
  if not list then return nil end
  local set = {}
  for _, name in ipairs(list) do set[name] = true end
  return set
end

---@generic T : rules.Rule
---@param list T[]
---@return fun(req: moongate.Request): T? rule the first that fits, or nil
function rules.finder(list)
  local tests = {}
  for i, rule in ipairs(list) do
    local paths = type(rule.path) == "string" and { rule.path } or rule.path
    tests[i] = { rule = rule, paths = paths, methods = set_of(rule.methods), hosts = set_of(rule.hosts) }
  end
  if #tests == 0 then return function() end end

  return function(req)
    local path, method, host = req.path, req.method, req.host
    for i = 1, #tests do
      local t = tests[i]
      local fits = (not t.paths or options.is_below(path, t.paths)) and (not t.methods or t.methods[method])
        and (not t.hosts or t.hosts[host])
      if fits then return t.rule end
    end
  end
end

return rules
