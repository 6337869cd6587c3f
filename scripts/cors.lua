-- Tells browsers which pages of other origins may read the answers (the Fetch standard's CORS protocol).
--
--     use = { require "scripts.cors" { origins = { "https://app.example.com", "https://*.example.org" } } }
--
-- Preflight requests are answered here and do not reach the application. Requests of origins that are not listed go on
-- without CORS fields: their browsers do not show the answer to the page. What the application says itself of CORS is
-- replaced, so that there is one place to look at. Put this before policies that ask who somebody is: preflights come
-- without cookies and Authorization.
--
-- This is no protection of the application: who is no browser does not care. With `refuse` requests of origins that are
-- neither listed nor the site's own do not reach it unless they are GET or HEAD, which keeps other sites' forms out.
--
-- Costs about 1.5 µs a request.

local gate = require "moongate"
local fields = require "moongate.fields"
local options = require "moongate.options"

---@class cors.Options
---who may read; a `*` stands for one or more labels of a host name; "null" for files and sandboxed frames, which
---anybody can make; or a function
---@field origins string[]|"*"|fun(origin: string, req: moongate.Request): boolean
---@field methods? string[] beyond GET, HEAD and POST; default PUT, PATCH, DELETE
---@field headers? string[] of requests; default: those that are asked for
---@field expose? string[] header fields of answers that pages may read
---@field credentials? boolean cookies and passwords may be sent; not with origins = "*"
---@field max_age? moongate.Seconds for which a browser keeps a preflight's answer, 600
---@field private_network? boolean pages of public sites may ask this one in a private network
---@field timing? boolean listed origins may measure, too (Timing-Allow-Origin)
---@field paths? string[] for which all this holds, with all below them; default all
---@field refuse? boolean 403 for what would change something and comes from elsewhere; false

local function is_origins(value)
  if value ~= "*" and type(value) ~= "table" and type(value) ~= "function" then
    return 'a list of origins, "*" or a function'
  end
end

local known = {
  origins = is_origins, methods = "tokens", headers = "tokens", expose = "tokens", credentials = "boolean",
  max_age = "seconds", private_network = "boolean", timing = "boolean", paths = "paths", refuse = "boolean",
}

local function check_origin(origin)
  if origin == "null" then return nil end
  local host = type(origin) == "string" and origin:match "^%l[%l%d+.-]*://([%l%d.*:%[%]-]+)$"
  if not host then
    return ('expected one such as "https://app.example.com", in lower case, got %q'):format(tostring(origin))
  end
  if host:find("*", 2, true) or (host:sub(1, 1) == "*" and not host:find "^%*%.") then
    return 'a * stands for the first labels only, as in "https://*.example.com"'
  end
end

local function problem_of(given)
  if type(given) == "table" and given.origins == nil then
    for name in pairs(given) do
      if not known[name] then return options.unknown("option", name, known) end
    end
    return 'origins: say who may read, or "*" for everybody'
  end
  local problem = options.problem(given, known)
  if problem then return problem end
  if given.credentials and given.origins == "*" then
    return 'credentials: browsers refuse them with origins = "*": list the origins'
  end
  for i, origin in ipairs(type(given.origins) == "table" and given.origins or {}) do
    problem = check_origin(origin)
    if problem then return ("origins[%d]: %s"):format(i, problem) end
  end
end

-- A function that tells whether an origin is listed.
local function matcher(origins)
  if type(origins) == "function" then return origins end
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

local function list_text(list) return list and table.concat(list, ", ") end

-- Fields that say who may read; the application's own are replaced.
local answered <const> = {
  "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers",
}

-- The names that a preflight asks for, if they are names.
local function asked_headers(req)
  local asked = req.headers["Access-Control-Request-Headers"]
  return asked and #asked <= 4096 and asked:find "^[%w!#$%%&'*+.^_`|~, -]+$" and asked or nil
end

---@param given cors.Options
---@return moongate.Policy
return function(given)
  options.blame("cors", problem_of(given))
  local is_listed, everybody = matcher(given.origins), given.origins == "*"
  local methods = list_text(given.methods or { "PUT", "PATCH", "DELETE" })
  local allowed, expose = list_text(given.headers), list_text(given.expose)
  local max_age = ("%d"):format(options.seconds(given.max_age or 600) // 1)

  local function concerns(req) return not given.paths or options.is_below(req.path, given.paths) end

  local function preflight(req)
    local headers = {
      ["Access-Control-Allow-Methods"] = methods, ["Access-Control-Allow-Headers"] = allowed or asked_headers(req),
      ["Access-Control-Max-Age"] = max_age,
      ["Vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }
    if given.private_network and req.headers["Access-Control-Request-Private-Network"] == "true" then
      headers["Access-Control-Allow-Private-Network"] = "true"
    end
    return gate.reply(204, nil, headers)
  end

  local function is_own(req, origin)
    return origin:lower() == req.scheme .. "://" .. (req.headers["Host"] or ""):lower()
  end

  return {
    on_request = function(req)
      local origin = req.headers["Origin"]
      if not origin or not concerns(req) then return end
      if req.method == "OPTIONS" and req.headers["Access-Control-Request-Method"] then
        return is_listed(origin, req) and preflight(req) or 204
      end
      local changes = given.refuse and req.method ~= "GET" and req.method ~= "HEAD"
      if changes and not is_own(req, origin) and not is_listed(origin, req) then
        return gate.reply(403, "not from there\n", { ["Cache-Control"] = "no-store" })
      end
    end,

    on_response = function(req, res)
      if not concerns(req) then return end
      local origin, headers = req.headers["Origin"], res.headers
      for i = 1, #answered do
        if headers[answered[i]] then headers[answered[i]] = nil end
      end
      if not everybody then fields.add_vary(headers, "Origin") end
      if not origin or not is_listed(origin, req) then return end
      headers["Access-Control-Allow-Origin"] = everybody and "*" or origin
      if given.credentials then headers["Access-Control-Allow-Credentials"] = "true" end
      if expose then headers["Access-Control-Expose-Headers"] = expose end
      if given.timing then headers["Timing-Allow-Origin"] = everybody and "*" or origin end
    end,
  }
end
