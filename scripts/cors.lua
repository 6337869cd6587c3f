-- Tells browsers which pages of other origins may read the answers (the Fetch standard's CORS protocol).
--
--     use = { require "scripts.cors" { origins = { "https://app.example.com", "https://*.example.org" } } }
--
-- Preflight requests are answered here and do not reach the application. Requests of origins that are not listed go on
-- without CORS fields: their browsers do not show the answer to the page. This is no protection of the application.

local gate = require "moongate"
local fields = require "moongate.fields"

---@class cors.Options
---@field origins string[]|"*" who may read; a `*` stands for one or more labels of a host name
---@field methods? string[] beyond GET, HEAD and POST; default PUT, PATCH, DELETE
---@field headers? string[] of requests; default: those that are asked for
---@field expose? string[] header fields of answers that pages may read
---@field credentials? boolean cookies and passwords may be sent; not with origins = "*"
---@field max_age? integer seconds for which a browser keeps a preflight's answer, 600

local known = {
  origins = "table", methods = "table", headers = "table", expose = "table",
  credentials = "boolean", max_age = "number",
}

local function check_list(options, name)
  for i, entry in ipairs(options[name] or {}) do
    if type(entry) ~= "string" or not entry:find "^[%w!#$%%&'*+.^_`|~-]+$" then
      return ("%s[%d]: expected a name, got %q"):format(name, i, tostring(entry))
    end
  end
end

local function check_origins(origins)
  if origins == nil then return 'origins: say who may read, or "*" for everybody' end
  for i, origin in ipairs(origins == "*" and {} or origins) do
    local host = type(origin) == "string" and origin:match "^%l[%l%d+.-]*://([%l%d.*:%[%]-]+)$"
    if not host then
      local text = 'origins[%d]: expected one such as "https://app.example.com", in lower case, got %q'
      return text:format(i, tostring(origin))
    end
    if host:find("*", 2, true) or (host:sub(1, 1) == "*" and not host:find "^%*%.") then
      return ("origins[%d]: a * stands for the first labels only, as in \"https://*.example.com\""):format(i)
    end
  end
end

local function check_options(options)
  if type(options) ~= "table" then return "expected a table of options, got " .. type(options) end
  for name, value in pairs(options) do
    if not known[name] then return ("unknown option %q"):format(tostring(name)) end
    if type(value) ~= known[name] and not (name == "origins" and value == "*") then
      return ("%s: expected a %s, got %s"):format(name, known[name], type(value))
    end
  end
  if options.credentials and options.origins == "*" then
    return 'credentials: browsers refuse them with origins = "*": list the origins'
  end
  if math.type(options.max_age or 0) ~= "integer" or (options.max_age or 0) < 0 then
    return "max_age: expected a whole number of seconds"
  end
  return check_origins(options.origins) or check_list(options, "methods") or check_list(options, "headers")
    or check_list(options, "expose")
end

-- A function that tells whether an origin is listed.
local function matcher(origins)
  if origins == "*" then return function() return true end end
  local exact, suffixes = {}, {}
  for _, origin in ipairs(origins) do
    local scheme, suffix = origin:match "^(.-://)%*(.*)$"
    if scheme then suffixes[#suffixes + 1] = { scheme, suffix } else exact[origin] = true end
  end
  return function(origin)
    if exact[origin] then return true end
    for _, s in ipairs(suffixes) do
      local labels = #origin - #s[1] - #s[2]
      if labels > 0 and origin:sub(1, #s[1]) == s[1] and origin:sub(-#s[2]) == s[2] then
        return origin:sub(#s[1] + 1, #s[1] + labels):find "^[%w.-]+$" ~= nil
      end
    end
    return false
  end
end

---@param options cors.Options
---@return moongate.Policy
return function(options)
  local problem = check_options(options)
  if problem then error("cors: " .. problem, 2) end
  local is_listed = matcher(options.origins)
  local everybody = options.origins == "*"
  local methods = table.concat(options.methods or { "PUT", "PATCH", "DELETE" }, ", ")
  local allowed = options.headers and table.concat(options.headers, ", ")
  local expose = options.expose and table.concat(options.expose, ", ")
  local max_age = tostring(options.max_age or 600)

  local function preflight(req)
    local asked = req.headers["Access-Control-Request-Headers"]
    return gate.reply(204, nil, {
      ["Access-Control-Allow-Methods"] = methods,
      ["Access-Control-Allow-Headers"] = allowed or asked,
      ["Access-Control-Max-Age"] = max_age,
      ["Vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    })
  end

  return {
    on_request = function(req)
      local asks = req.method == "OPTIONS" and req.headers["Access-Control-Request-Method"]
      local origin = req.headers["Origin"]
      if asks and origin then return is_listed(origin) and preflight(req) or 204 end
    end,

    on_response = function(req, res)
      local origin = req.headers["Origin"]
      if not everybody then fields.add_vary(res.headers, "Origin") end
      if not origin or not is_listed(origin) then return end
      res.headers["Access-Control-Allow-Origin"] = everybody and "*" or origin
      if options.credentials then res.headers["Access-Control-Allow-Credentials"] = "true" end
      if expose then res.headers["Access-Control-Expose-Headers"] = expose end
    end,
  }
end
