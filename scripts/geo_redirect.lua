-- Lets in, keeps out, or sends elsewhere by country, and tells the application where a client is.
--
--     use = { require "scripts.geo_redirect" {
--       file = "GeoLite2-Country.mmdb", deny = { "KP" }, header = "X-Country",
--       redirect = { DE = "https://de.example.com", AT = "https://de.example.com", FR = "/fr" },
--     } }
--
-- The country is what a MaxMind database has for the address of the client, as `trusted_proxies` lets it be believed.
-- An address that the database does not know, a private one for instance, has the country "ZZ", which can stand in all
-- lists. So an `allow` without it refuses such addresses; `exempt` says which ones nobody should be asked about. If the
-- database turns out to be damaged, `allow` and `deny` refuse everybody (503). It is a guess: people use VPNs.
--
-- Redirects are for GET and HEAD, keep path and query, and leave who is there already in peace. `choice` names a cookie
-- or an argument: who brings it has chosen, and is not sent anywhere. Answers that depend on the country are marked
-- no-store; what the application makes of the header is for it to mark.
--
-- `req.ctx.country` tells later hooks, the field of `header` the application; a client's own field is removed. Other
-- things than countries can be asked for by `path`: { "continent", "code" }, { "autonomous_system_number" }.
--
-- Costs about 2 µs a request.

local gate = require "moongate"
local network = require "moongate.network"
local options = require "moongate.options"

---@class geo_redirect.Options
---@field file string a MaxMind database (MMDB), relative to the config's folder
---@field path? (string|integer)[] in the record; default country.iso_code, else registered_country.iso_code
---@field allow? string[] countries that may come in; default all
---@field deny? string[] countries that may not
---@field redirect? table<string, string> where to send countries: a URL, or a path of this host
---@field header? string field of the request that tells the application
---@field choice? { cookie: string?, arg: string? } who brings it is not redirected
---@field exempt? table addresses and prefixes that always come in and stay, as gate.cidr takes them
---@field except? string[] paths that are open to all, with all below them
---@field keep_path? boolean redirects keep path and query; true
---@field redirect_status? integer 302
---@field status? integer of refusals, 403; 451 says that a law wants it
---@field body? string of refusals

local UNKNOWN <const> = "ZZ"

local redirects <const> = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

local function is_path(value)
  local well = type(value) == "table" and #value > 0 and #value <= 16
  for _, step in ipairs(well and value or {}) do
    well = well and (type(step) == "string" or math.type(step) == "integer")
  end
  if not well then return 'a list such as { "continent", "code" }' end
end

local known = {
  file = "text", path = is_path, allow = "texts", deny = "texts", redirect = "table", header = "token",
  choice = "table", exempt = network.is_set, except = "paths", keep_path = "boolean", status = "status",
  body = "string",
  redirect_status = function(value) if not redirects[value] then return "301, 302, 303, 307 or 308" end end,
}

local function check_codes(given, name)
  for i, code in ipairs(given[name] or {}) do
    if not given.path and not code:find "^%u%u$" then
      return ('%s[%d]: expected a country such as "DE", got %q'):format(name, i, code)
    end
  end
end

local function check_redirects(given)
  for code, base in pairs(given.redirect or {}) do
    if type(code) ~= "string" or not given.path and not code:find "^%u%u$" then
      return 'redirect: expected countries = addresses, as in { DE = "https://de.example.com" }'
    end
    local url = type(base) == "string" and gate.url.parse(base)
    local well = url and not url.query and not url.fragment
      and (url.scheme == "https" or url.scheme == "http" or not url.host and url.path:find "^/[^/]")
    if not well then
      return ('redirect.%s: expected a URL such as "https://de.example.com", or a path such as "/de"'):format(code)
    end
  end
end

local function problem_of(given)
  return options.problem(given, known, { "file" })
    or given.choice and options.problem(given.choice, { cookie = "token", arg = "text" }, nil, "choice.")
    or check_codes(given, "allow") or check_codes(given, "deny") or check_redirects(given)
    or not (given.allow or given.deny or given.redirect or given.header)
      and "expected allow, deny, redirect or header" or nil
end

local function set_of(list)
  if not list then return nil end
  local set = {}
  for _, code in ipairs(list) do set[code] = true end
  return set
end

-- A function that gives the country of an address; nil: the database cannot be read.
local function finder(database, path)
  local paths = path and { path } or { { "country", "iso_code" }, { "registered_country", "iso_code" } }
  return function(ip)
    for _, steps in ipairs(paths) do
      local found, word, sentence = database:get(ip, table.unpack(steps))
      if found ~= nil then return tostring(found) end
      if word == "bad_database" then
        gate.log("error", "geo_redirect:", sentence)
        return nil
      end
    end
    return UNKNOWN
  end
end

-- Where redirects lead, taken apart: whoever is below is there already.
local function destinations(list)
  local all = {}
  for code, base in pairs(list or {}) do
    local url = assert(gate.url.parse(base))
    base = base:gsub("/$", "")
    all[code] = { base = base, host = url.host, path = (url.path:gsub("/$", "")) }
  end
  return all
end

local function is_there(req, to)
  return (not to.host or req.host == to.host) and (to.path == "" or options.is_below(req.path, { to.path }))
end

---@param given geo_redirect.Options
---@return moongate.Policy
return function(given)
  options.blame("geo_redirect", problem_of(given))
  local ok, database = pcall(gate.mmdb, given.file)
  if not ok then options.blame("geo_redirect", "file: " .. tostring(database):gsub("^.-gate%.mmdb: ", "")) end
  local country_of = finder(database, given.path)
  local allow, deny, exempt = set_of(given.allow), set_of(given.deny), network.set(given.exempt)
  local elsewhere, choice = destinations(given.redirect), given.choice or {}
  local uncached = { ["Cache-Control"] = "no-store" }
  local refused = gate.reply(given.status or 403, given.body or "not available where you are\n", uncached)
  local blind = gate.reply(503, "it cannot be told where you are\n", uncached)

  local function has_chosen(req)
    return choice.cookie and req.cookies[choice.cookie] or choice.arg and req.args[choice.arg]
  end

  local function redirect(req, country)
    local to = elsewhere[country]
    if not to or (req.method ~= "GET" and req.method ~= "HEAD") or has_chosen(req) or is_there(req, to) then return end
    local url = to.base == "" and "/" or to.base
    if given.keep_path ~= false then url = to.base .. req.path .. (req.query and "?" .. req.query or "") end
    return gate.reply(given.redirect_status or 302, nil, { ["Location"] = url, ["Cache-Control"] = "no-store" })
  end

  return {
    on_request = function(req)
      local ip = req.client.ip
      local country = country_of(ip)
      req.ctx.country = country
      if given.header then req.headers[given.header] = country end -- or nothing: a client does not say this
      if exempt and exempt:has(ip) or options.is_below(req.path, given.except) then return end
      if not country and (allow or deny) then return blind end
      if deny and deny[country] or allow and not allow[country] then return refused end
      return redirect(req, country)
    end,
  }
end
