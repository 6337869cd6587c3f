-- A table of routes: which requests there are, where each goes, and what is asked of it on the way.
--
--     use = { require "scripts.api_gateway" {
--       defaults = { limit = { rate = 100, per = "1m" }, timeout = 5 },
--       routes = {
--         { path = "/users/{id}", methods = { "GET", "PUT" }, backend = "users", rewrite = "/internal/u/{id}" },
--         { path = "/files/{path*}", backend = "files", strip = "/files", use = { jwt_auth { … } } },
--         { path = "/status", reply = gate.reply(200, "well\n") },
--       },
--     } }
--
-- **Paths.** A segment is a literal or a {parameter}, which takes one segment that is not empty; at the end {name*} or
-- * takes the rest, which may be empty. Parameters are in `req.ctx.params`, decoded; the route's name is in
-- `req.ctx.route`. Compared is `req.path`, normalised, so that no "/x/../" gets past (`raw_target` would undo that).
-- Case and a slash at the end count. Of the routes that fit, the most specific one that takes the method is used,
-- wherever it stands in the list: literals before parameters, from the left; exact hosts before "*.example.com" before
-- none. HEAD is taken where GET is.
--
-- **No route**: 404; routes, but none for the method: 405 with Allow; OPTIONS is then answered 204 with Allow. With
-- `pass` what has no route goes on to the site's other hooks and its default backend instead.
--
-- **Versions.** With `version`, routes may say one: `{ path = "/users", version = "2" }`. It is told by a field of the
-- request, or by `Accept: application/vnd.NAME.v2+json`; who says none gets `default`. Routes without a version serve
-- all that have no route of their own. Versions in the path ("/v2/users") need nothing but the path.
--
-- **On the way**, in this order: the on_request of the policies in `use`, then `limit`, then path and fields are
-- rewritten; so policies see the request as it came. Their other hooks run as those of a site's `use` do:
-- pick_backend is asked from the last to the first, then `backend`. `rewrite` makes a new path of literals and
-- {parameters}, as they stood; `strip` takes a prefix away, `add` puts one before. `headers` and `response_headers` set
-- fields, `false` removes them; {parameters} can be put into the former. A route's own setting replaces that of
-- `defaults`; `use = {}` is none, `limit = false` is no limit.
--
-- A limit counts each key (`by`, the client's address) for each route apart. Who has no key shares one with all others
-- who have none.
--
-- This policy answers pick_backend; a site's own comes before it. Costs about 1.1 µs a request, on a
-- route with a parameter 1.9 µs, however many routes there are: 10,000 take some 10 MiB of each worker's `lua.memory`.

local gate = require "moongate"
local fields = require "moongate.fields"
local options = require "moongate.options"
local route_table = require "moongate.route_table"

---@class api_gateway.Limit
---@field rate number
---@field per? moongate.Seconds 1
---@field burst? integer the rate
---@field by? string|fun(req: moongate.Request): string? "ip" (default), "header:NAME", "ctx:user", …

---@class api_gateway.Policies
---@field backend? string
---@field timeout? moongate.Seconds until the first byte of an answer, of each server
---@field use? moongate.Policy[]
---@field limit? api_gateway.Limit|false
---@field headers? table<string, string|false> of the request that is forwarded
---@field response_headers? table<string, string|false>

---@class api_gateway.Route : api_gateway.Policies
---@field path string
---@field host? string "api.example.com" or "*.example.com"
---@field methods? string[] default: all
---@field version? string
---@field name? string for logs, default the path
---@field reply? moongate.Reply|integer in the place of a backend
---@field strip? string a prefix of the path, literally
---@field add? string put before the path
---@field rewrite? string the whole path
---@field set_host? string the Host that the backend is told

---@class api_gateway.Version
---@field header? string field of the request with the version
---@field media_type? string NAME of Accept: application/vnd.NAME.vVERSION+json
---@field default? string

---@class api_gateway.Options
---@field routes api_gateway.Route[]
---@field defaults? api_gateway.Policies
---@field version? api_gateway.Version
---@field pass? boolean what has no route goes on; false
---@field json? boolean answers of its own are JSON: {"error":"not found"}; false
---@field name? string of the limits, "api_gateway"

local function is_setting(value)
  if type(value) ~= "table" and value ~= false then return "a table or false" end
end

local function is_fields(value)
  if type(value) ~= "table" then return "a table of fields" end
  for name, text in pairs(value) do
    local well = type(name) == "string" and name:find "^[%w!#$%%&'*+.^_`|~-]+$"
      and (text == false or type(text) == "string" and not text:find "%c")
    if not well then return ("a text or false for each field, at %q"):format(tostring(name)) end
  end
end

local known = {
  routes = "table", defaults = "table", version = "table", pass = "boolean", json = "boolean", name = "token",
}
local known_policies = {
  backend = "name", timeout = "seconds", use = "table", limit = is_setting, headers = is_fields,
  response_headers = is_fields,
}
local known_route = {
  path = "string", methods = "tokens", version = "text", name = "text", strip = "path", add = "path", rewrite = "path",
  set_host = "text", host = route_table.is_host,
  reply = function(value)
    if type(value) ~= "userdata" and not (math.type(value) == "integer" and value >= 200 and value <= 599) then
      return "a reply or a status"
    end
  end,
}
for name, kind in pairs(known_policies) do known_route[name] = kind end
local known_limit = { rate = "number", per = "seconds", burst = "count", by = options.is_key }
local known_version = { header = "token", media_type = "token", default = "text" }

-- The hooks of a route's policies that are run here. The others belong to a site.
local hooks <const> = {
  on_request = true, pick_backend = true, on_response = true, on_log = true, on_error = true, cache_key = true,
}

-- Checking ------------------------------------------------------------------------------------------------------------

local function problem_of_use(list, path)
  for i, policy in ipairs(list) do
    if type(policy) ~= "table" then return ("%suse[%d]: expected a policy"):format(path, i) end
    for name in pairs(policy) do
      if not hooks[name] then
        return ("%suse[%d].%s: does not work in a route, only in a site"):format(path, i, name)
      end
    end
  end
end

local function problem_of_policies(given, path)
  if given.limit then
    local problem = options.problem(given.limit, known_limit, { "rate" }, path .. "limit.")
    if problem then return problem end
    if given.limit.rate == 0 then return path .. "limit.rate: expected more than 0" end
  end
  return problem_of_use(given.use or {}, path)
end

-- Every {name} of a text is a parameter of the path.
local function problem_of_template(text, names, path)
  for name in text:gmatch "{([^}]*)}" do
    local found = false
    for _, known_name in ipairs(names) do found = found or known_name == name end
    if not found then return ("%s: the path has no {%s}"):format(path, name) end
  end
end

local function problem_of_rewriting(route, names, path)
  if route.rewrite and (route.strip or route.add) then
    return path .. "rewrite: makes the whole path, beside strip or add"
  end
  local literal = route.path:match "^[^{*]*"
  if route.strip then
    local prefix = route.strip:gsub("/$", "")
    local after = literal:sub(#prefix + 1, #prefix + 1)
    if literal:sub(1, #prefix) ~= prefix or not (after == "/" or after == "" and #literal == #route.path) then
      return ("%sstrip: the path does not begin with %q"):format(path, route.strip)
    end
  end
  local problem = route.rewrite and problem_of_template(route.rewrite, names, path .. "rewrite")
  for field, text in pairs(route.headers or {}) do
    problem = problem or text and problem_of_template(text, names, path .. "headers." .. field)
  end
  return problem
end

local function problem_of_route(route, i, defaults)
  local path = ("routes[%d]."):format(i)
  local problem = options.problem(route, known_route, { "path" }, path) or problem_of_policies(route, path)
  if problem then return problem end
  local segments, names = route_table.parse(route.path)
  if not segments then return ("%spath: %s"):format(path, names) end
  if route.reply and route.backend then return path .. "reply: stands in the place of a backend" end
  if not (route.reply or route.backend or defaults.backend) then
    return path:sub(1, -2) .. ": expected backend or reply"
  end
  return problem_of_rewriting(route, names, path)
end

local function problem_of(given)
  local problem = options.problem(given, known, { "routes" })
  if problem then return problem end
  local defaults = given.defaults or {}
  problem = options.problem(defaults, known_policies, nil, "defaults.") or problem_of_policies(defaults, "defaults.")
  if problem then return problem end
  if given.version then
    problem = options.problem(given.version, known_version, nil, "version.")
    if problem then return problem end
    if (given.version.header == nil) == (given.version.media_type == nil) then
      return "version: expected either header or media_type"
    end
  end
  if #given.routes == 0 then return "routes: there is none" end
  for i, route in ipairs(given.routes) do
    problem = problem_of_route(route, i, defaults)
    if problem then return problem end
    if route.version and not given.version then
      return ("routes[%d].version: say where it stands, in version"):format(i)
    end
  end
end

-- Preparing -----------------------------------------------------------------------------------------------------------

local function setting(route, defaults, name)
  if route[name] ~= nil then return route[name] end
  return defaults[name]
end

-- Limits of the same settings are one, whose keys begin with their routes: there may be thousands of these.
local function limiter(name)
  local limits = {}
  return function(given)
    local rate, per = given.rate, options.seconds(given.per or 1)
    local burst = given.burst or math.max(1, math.ceil(rate))
    local id = ("%s.%g/%g/%d"):format(name, rate, per, burst)
    limits[id] = limits[id] or gate.limit { name = id, rate = rate, per = per, burst = burst }
    return { limit = limits[id], key_of = options.key(given.by or "ip") }
  end
end

-- A function that makes a route's new path of the old one and its parameters, or nil.
local function rewriter(route)
  if route.rewrite then
    return function(_, params) return (route.rewrite:gsub("{([^}]*)}", params)) end
  end
  if not (route.strip or route.add) then return nil end
  local cut, add = #(route.strip or ""):gsub("/$", ""), (route.add or ""):gsub("/$", "")
  return function(path)
    local rest = path:sub(cut + 1)
    return add .. (rest == "" and add == "" and "/" or rest)
  end
end

local function has_entries(t) return t ~= nil and next(t) ~= nil end

-- A route as requests need it; most have little, and say nothing of the rest.
local function prepare(route, defaults, make_limit)
  local use, limit = setting(route, defaults, "use"), setting(route, defaults, "limit")
  local backend, timeout = setting(route, defaults, "backend"), setting(route, defaults, "timeout")
  local headers, response_headers = setting(route, defaults, "headers"), setting(route, defaults, "response_headers")
  return {
    path = route.path, host = route.host, methods = route.methods, version = route.version,
    name = route.name or route.path,
    reply = route.reply,
    pick = backend and timeout and { backend, timeout = timeout } or backend,
    use = has_entries(use) and use or nil,
    limit = limit and make_limit(limit) or nil,
    new_path = rewriter(route), set_host = route.set_host,
    headers = has_entries(headers) and headers or nil,
    response_headers = has_entries(response_headers) and response_headers or nil,
  }
end

-- A hook may be a constant.
local function ask_hook(hook, ...)
  if type(hook) == "function" then return hook(...) end
  return hook
end

local function set_fields(headers, values, params)
  for name, text in pairs(values) do
    if text and params then text = text:gsub("{([^}]*)}", params) end
    headers[name] = text or nil
  end
end

-- A parameter's value, decoded as far as it can be.
local function decode(value)
  return value:find("%", 1, true) and gate.url.decode(value) or value
end

-- A function that gives the version that a request asks for.
local function version_reader(version)
  if not version then return function() end end
  if version.header then return function(req) return req.headers[version.header] or version.default end end
  local pattern = "application/vnd%." .. version.media_type:gsub("%p", "%%%0") .. "%.v([%w._-]+)"
  return function(req) return (req.headers["Accept"] or ""):match(pattern) or version.default end
end

---@param given api_gateway.Options
---@return moongate.Policy
return function(given)
  options.blame("api_gateway", problem_of(given))
  local list, make_limit = {}, limiter(given.name or "api_gateway")
  for i, route in ipairs(given.routes) do list[i] = prepare(route, given.defaults or {}, make_limit) end
  local known_routes, problem, at = route_table.compile(list)
  if not known_routes then options.blame("api_gateway", ("routes[%d].path: %s"):format(at, problem), 3) end
  local version_of = version_reader(given.version)
  local vary = given.version and (given.version.header or "Accept")

  local function refuse(status, text, headers)
    if not given.json then return gate.reply(status, text .. "\n", headers) end
    headers = headers or {}
    headers["Content-Type"] = "application/json"
    return gate.reply(status, gate.json.encode { error = text } .. "\n", headers)
  end
  local not_found = refuse(404, "not found")

  local function no_route(req, methods)
    if not methods then
      if given.pass then return nil end
      return not_found
    end
    local allow = { ["Allow"] = table.concat(methods, ", ") }
    if req.method == "OPTIONS" then return gate.reply(204, nil, allow) end
    return refuse(405, "method not allowed", allow)
  end

  -- The values of parameters by name, as they stand; and in req.ctx decoded.
  local function take_params(req, route, values)
    local names = known_routes:names_of(route)
    if not names then
      req.ctx.params = {}
      return nil
    end
    local raw, decoded = {}, {}
    for i, name in ipairs(names) do raw[name], decoded[name] = values[i], decode(values[i]) end
    req.ctx.params = decoded
    return raw
  end

  local function over_limit(req, route)
    local key = route.name .. "\0" .. (route.limit.key_of(req) or "")
    -- A key has 1024 bytes at most, and a client may choose it.
    if #key > 512 then key = gate.crypto.digest("sha256", key) end
    local ok = route.limit.limit:take(key)
    if ok then return nil end
    return refuse(429, "too many requests", route.limit.limit:fields(key))
  end

  local function forward(req, route, params)
    if route.new_path then req.path = route.new_path(req.path, params) end
    if route.set_host then req.host = route.set_host end
    if route.headers then set_fields(req.headers, route.headers, params) end
  end

  local place = {} -- of the route in req.ctx: nobody else's
  local policy = {}

  function policy.on_request(req)
    local route, values = known_routes:find(req.host, req.path, req.method, version_of(req))
    if not route then return no_route(req, values) end
    req.ctx[place], req.ctx.route = route, route.name
    local params = take_params(req, route, values)
    for _, used in ipairs(route.use or {}) do
      local reply = ask_hook(used.on_request, req)
      if reply ~= nil then return reply end
    end
    local refused = route.limit and over_limit(req, route)
    if refused then return refused end
    if route.reply then return route.reply end
    forward(req, route, params)
  end

  function policy.pick_backend(req, last)
    local route = req.ctx[place]
    if not route then return end
    for i = #(route.use or ""), 1, -1 do
      local answer = ask_hook(route.use[i].pick_backend, req, last)
      if answer ~= nil then return answer end
    end
    return route.pick
  end

  function policy.on_response(req, res)
    if vary then fields.add_vary(res.headers, vary) end
    local route = req.ctx[place]
    if not route then return end
    for i = #(route.use or ""), 1, -1 do
      local reply = ask_hook(route.use[i].on_response, req, res)
      if reply ~= nil then return reply end
    end
    if route.response_headers then set_fields(res.headers, route.response_headers) end
  end

  -- Hooks that few policies have are there only if one does.
  local has = {}
  for _, route in ipairs(list) do
    for _, used in ipairs(route.use or {}) do
      for name in pairs(used) do has[name] = true end
    end
  end

  if has.cache_key then
    function policy.cache_key(req)
      local route = req.ctx[place]
      for i = #(route and route.use or ""), 1, -1 do
        local parts = table.pack(ask_hook(route.use[i].cache_key, req))
        if parts.n > 0 then return table.unpack(parts, 1, parts.n) end
      end
    end
  end

  for _, name in ipairs { "on_log", "on_error" } do
    if has[name] then
      policy[name] = function(req, what)
        local route = req.ctx[place]
        for _, used in ipairs(route and route.use or {}) do
          local reply = ask_hook(used[name], req, what)
          if reply ~= nil and name == "on_error" then return reply end
        end
      end
    end
  end

  return policy
end
