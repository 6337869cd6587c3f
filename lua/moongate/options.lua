-- The options of ready-made policies: checked when the config is loaded, and blamed on the line that gives them.
--
--     local options = require "moongate.options"
--     local known = { share = "share", backend = "name", paths = "paths", when = "function" }
--
--     return function(given)
--       options.check("mirror", given, known, { "backend" })
--       …
--     end
--
-- A kind is a word of `kinds` below, or a function that gets a value and says what it expected instead of it. A policy
-- that wants more than kinds can say calls options.blame with its own sentence.

local gate = require "moongate"

local options = {}

local TOKEN <const> = "^[%w!#$%%&'*+.^_`|~-]+$"

local function is_whole(value) return math.type(value) == "integer" or math.tointeger(value) ~= nil end

local units = { ms = 1e-3, s = 1, m = 60, h = 3600, d = 86400 }

---Seconds of a number or of a text with a unit ("500ms", "10s", "1m", "1h", "1d"), or nil.
---@param value any
---@return number?
function options.seconds(value)
  if math.type(value) then return value >= 0 and value < 1e10 and value or nil end
  if type(value) ~= "string" then return nil end
  local digits, unit = value:match "^(%d+%.?%d*)(%a+)$"
  return digits and units[unit] and tonumber(digits) * units[unit] or nil
end

-- Each gives nil for a value that is well, else what it expected.
local function a(kind)
  return function(value) if type(value) ~= kind then return "a " .. kind end end
end

local function matching(pattern, what)
  return function(value) if type(value) ~= "string" or not value:find(pattern) then return what end end
end

local function list_of(item, what)
  return function(value)
    if type(value) ~= "table" or (next(value) ~= nil and value[1] == nil) then return what end
    for i, entry in ipairs(value) do
      local wanted = item(entry)
      if wanted then return ("%s at [%d]"):format(wanted, i) end
    end
  end
end

local kinds = {
  string = a "string",
  boolean = a "boolean",
  ["function"] = a "function",
  table = a "table",
  any = function() end,
  text = matching("^[^%c]+$", "a text without control characters"),
  name = matching("^[^%s/%c]+$", "a name"),
  token = matching(TOKEN, "a name of letters, digits and -_."),
  path = matching("^/", "a path that begins with /"),
  -- At least 128 bits if it is random; what is shorter is a password.
  secret = function(value)
    if type(value) ~= "string" or #value < 16 then return "a secret of at least 16 bytes" end
  end,
  share = function(value)
    if not math.type(value) or not (value >= 0 and value <= 100) then return "percent, 0 to 100" end
  end,
  count = function(value) if not is_whole(value) or value < 1 then return "a whole number, 1 or more" end end,
  number = function(value) if not math.type(value) or value ~= value or value < 0 then return "0 or more" end end,
  seconds = function(value) if not options.seconds(value) then return 'a time, such as 2, "500ms" or "1m"' end end,
  ttl = function(value) -- a number, for who calculates with it
    if not math.type(value) or not (value >= 0 and value < 1e9) then return "seconds" end
  end,
  status = function(value)
    if not is_whole(value) or value < 200 or value > 599 then return "a status, 200 to 599" end
  end,
}
kinds.tokens = list_of(kinds.token, 'a list of names')
kinds.texts = list_of(kinds.text, "a list of texts")
kinds.paths = list_of(kinds.path, "a list of paths")

-- How many letters differ, swapped neighbours counting as one; for the nearest name.
local function distance(s, t)
  local before, last = {}, {}
  for j = 0, #t do last[j] = j end
  for i = 1, #s do
    local row = { [0] = i }
    for j = 1, #t do
      local same = s:byte(i) == t:byte(j)
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      local swapped = i > 1 and j > 1 and s:byte(i) == t:byte(j - 1) and s:byte(i - 1) == t:byte(j)
      if swapped then row[j] = math.min(row[j], before[j - 2] + 1) end
    end
    before, last = last, row
  end
  return last[#t]
end

local function nearest(said, known)
  local best, least
  for name in pairs(known) do
    local d = distance(said, name)
    if d <= math.max(1, math.min(3, #name // 3)) and (not least or d < least or d == least and name < best) then
      best, least = name, d
    end
  end
  return best
end

---The problem with a name that is not among the known ones.
---@param kind string what it is: "option"
---@param said any
---@param known table<string, any>
---@param path? string where it stands: "rollback."
---@return string
function options.unknown(kind, said, known, path)
  local text = tostring(said):sub(1, 64)
  local meant = type(said) == "string" and nearest(text, known)
  return ("unknown %s %q%s"):format(kind, (path or "") .. text, meant and (", did you mean %q?"):format(meant) or "")
end

local function show(value)
  if type(value) == "string" then return ("%q"):format(value:sub(1, 64)) end
  return math.type(value) and tostring(value) or type(value) == "boolean" and tostring(value) or "a " .. type(value)
end

---What is wrong with a table of options, or nil. `path` stands before the names of nested ones: "rollback.".
---@param given any
---@param known table<string, string|fun(value: any): string?>
---@param needed? string[] those that must be there
---@param path? string
---@return string? problem
function options.problem(given, known, needed, path)
  path = path or ""
  if type(given) ~= "table" then
    return ("%sexpected a table of options, got %s"):format(path ~= "" and path:sub(1, -2) .. ": " or "", show(given))
  end
  for name, value in pairs(given) do
    local kind = known[name]
    if not kind then return options.unknown("option", name, known, path) end
    local wanted = (kinds[kind] or kind)(value)
    if wanted then return ("%s%s: expected %s, got %s"):format(path, name, wanted, show(value)) end
  end
  for _, name in ipairs(needed or {}) do
    if given[name] == nil then return ("%s%s: must be given"):format(path, name) end
  end
end

---Raises a problem where the policy was made: in the config's line, two calls above the caller of this function's.
---@param script string
---@param problem string?
---@param level? integer of the one to blame; default 3: who called the function that calls this one
function options.blame(script, problem, level)
  if problem then error(("%s: %s"):format(script, problem), level or 3) end
end

---Raises what is wrong with the options of a policy; to be called by the function that the config calls.
---@param script string
---@param given any
---@param known table<string, string|fun(value: any): string?>
---@param needed? string[]
function options.check(script, given, known, needed)
  options.blame(script, options.problem(given, known, needed), 4)
end

---Is a path one of the prefixes, or below one? None are none.
---@param path string
---@param prefixes string[]?
---@return boolean
function options.is_below(path, prefixes)
  for _, prefix in ipairs(prefixes or {}) do
    if prefix:sub(-1) == "/" then
      if path:sub(1, #prefix) == prefix then return true end
    elseif path == prefix or path:sub(1, #prefix + 1) == prefix .. "/" then
      return true
    end
  end
  return false
end

-- What a request is told apart by -------------------------------------------------------------------------------------

local keys = {
  header = function(name) return function(req) return req.headers[name] end end,
  cookie = function(name) return function(req) return req.cookies[name] end end,
  arg = function(name) return function(req) return req.args[name] end end,
  ctx = function(name) return function(req) return req.ctx[name] end end,
}

---A kind: how a request is told apart: "ip", "header:NAME", "cookie:NAME", "arg:NAME", "ctx:NAME" (what an earlier
---policy left in req.ctx, such as "ctx:user"), or a function that gets the request.
---@param value any
---@return string? wanted
function options.is_key(value)
  if type(value) == "function" or value == "ip" then return nil end
  local place, name = tostring(value):match "^(%l+):(.+)$"
  if keys[place or ""] and name:find(TOKEN) then return nil end
  return '"ip", "header:NAME", "cookie:NAME", "arg:NAME", "ctx:NAME" or a function'
end

---The function that gives a request's key, nil if it has none.
---@param key string|fun(req: moongate.Request): string?
---@return fun(req: moongate.Request): string?
function options.key(key)
  if type(key) == "function" then return key end
  if key == "ip" then return function(req) return req.client.ip end end
  local place, name = key:match "^(%l+):(.+)$"
  return keys[place](name)
end

---A number from 0 to below 100 that is the same for the same texts: whoever is among the first ten of a hundred is
---among the first twenty, too.
---@param salt string what it is decided for, so that decisions do not go together
---@param key string|number
---@return number
function options.percentile(salt, key)
  return gate.hash(salt .. "\0" .. key) % 10000 / 100
end

return options
