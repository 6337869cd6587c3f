-- Adds the header fields that make browsers careful. What the application sets itself, it keeps.
--
--     use = { require "scripts.security_headers" {
--       frame = "DENY", csp = "default-src 'self'", hsts = { subdomains = true },
--     } }
--
-- Every option takes a string, or false: leave that field alone. By default:
--
--     X-Content-Type-Options: nosniff
--     X-Frame-Options: SAMEORIGIN
--     Referrer-Policy: strict-origin-when-cross-origin
--     Strict-Transport-Security: max-age=31536000       (to clients that came by https)
--
-- There is no Content-Security-Policy or Permissions-Policy unless you write one: no default fits an application that
-- was not made for it. `csp_report_only` tries one first; scripts/csp.lua makes them with nonces.
--
-- HSTS binds browsers for its whole `max_age`, and with `subdomains` also for hosts that you may not think of: begin
-- with a short one. `preload` asks for a place on the browsers' lists, which is hard to leave; it is refused with less
-- than they take. Over plain http it is not sent, since it must not be (RFC 6797); scripts/redirect_https.lua brings
-- clients over.
--
-- With `override` the application's own fields are replaced; `remove` takes away those that tell strangers too much:
-- { "Server", "X-Powered-By" }. Replies and error pages get all of it, too. Costs about 0.5 µs a request.

local options = require "moongate.options"

---@class security_headers.Hsts
---@field max_age? moongate.Seconds "365d"
---@field subdomains? boolean
---@field preload? boolean needs subdomains and a max_age of a year

---@class security_headers.Options
---@field content_type? string|false X-Content-Type-Options
---@field frame? string|false X-Frame-Options: "SAMEORIGIN" or "DENY"
---@field referrer? string|false Referrer-Policy
---@field hsts? string|false|security_headers.Hsts Strict-Transport-Security
---@field csp? string|false Content-Security-Policy
---@field csp_report_only? string|false Content-Security-Policy-Report-Only
---@field permissions? string|false Permissions-Policy
---@field opener? string|false Cross-Origin-Opener-Policy
---@field embedder? string|false Cross-Origin-Embedder-Policy
---@field resource? string|false Cross-Origin-Resource-Policy
---@field override? boolean replace what the application has set; false
---@field remove? string[] fields that are taken away

local fields <const> = {
  content_type = { "X-Content-Type-Options", "nosniff" },
  frame = { "X-Frame-Options", "SAMEORIGIN" },
  referrer = { "Referrer-Policy", "strict-origin-when-cross-origin" },
  hsts = { "Strict-Transport-Security", "max-age=31536000" },
  csp = { "Content-Security-Policy", false },
  csp_report_only = { "Content-Security-Policy-Report-Only", false },
  permissions = { "Permissions-Policy", false },
  opener = { "Cross-Origin-Opener-Policy", false },
  embedder = { "Cross-Origin-Embedder-Policy", false },
  resource = { "Cross-Origin-Resource-Policy", false },
}

-- Checking ------------------------------------------------------------------------------------------------------------

local function is_text(value)
  local text = type(value) == "string" and value ~= "" and not value:find "%c"
  if not text and value ~= false then return "a string or false" end
end

-- A field with these values only.
local function one_of(...)
  local list, allowed = table.concat({ ... }, '", "'), {}
  for _, value in ipairs { ... } do allowed[value] = true end
  return function(value)
    if value ~= false and not allowed[value] then return ('"%s" or false'):format(list) end
  end
end

local known = {
  content_type = one_of "nosniff", frame = one_of("SAMEORIGIN", "DENY"),
  opener = one_of("same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"),
  embedder = one_of("require-corp", "credentialless", "unsafe-none"),
  resource = one_of("same-site", "same-origin", "cross-origin"),
  referrer = is_text, csp = is_text, csp_report_only = is_text, permissions = is_text,
  hsts = function(value)
    if type(value) == "string" and value:find "^max%-age=%d+" then return is_text(value) end
    if type(value) ~= "table" and value ~= false then return '"max-age=…", a table or false' end
  end,
  override = "boolean", remove = "tokens",
}
local known_hsts = { max_age = "seconds", subdomains = "boolean", preload = "boolean" }

local YEAR <const> = 31536000

local function problem_of(given)
  local problem = options.problem(given, known)
  if problem or type(given.hsts) ~= "table" then return problem end
  problem = options.problem(given.hsts, known_hsts, nil, "hsts.")
  if problem or not given.hsts.preload then return problem end
  if not given.hsts.subdomains or options.seconds(given.hsts.max_age or YEAR) < YEAR then
    return "hsts.preload: browsers' lists take it with subdomains and a max_age of a year only"
  end
end

-- The policy ----------------------------------------------------------------------------------------------------------

local function hsts_text(hsts)
  return ("max-age=%d%s%s"):format(options.seconds(hsts.max_age or YEAR) // 1,
    hsts.subdomains and "; includeSubDomains" or "", hsts.preload and "; preload" or "")
end

---@param given? security_headers.Options
---@return moongate.Policy
return function(given)
  given = given or {}
  options.blame("security_headers", problem_of(given))

  local always, secure = {}, {}
  for option, field in pairs(fields) do
    local value = given[option]
    if value == nil then value = field[2] end
    if type(value) == "table" then value = hsts_text(value) end
    if value then (option == "hsts" and secure or always)[field[1]] = value end
  end
  local removed, override = given.remove or {}, given.override

  local function add(headers, values)
    for name, value in pairs(values) do
      if override or not headers[name] then headers[name] = value end
    end
  end

  return {
    on_response = function(req, res)
      local headers = res.headers
      for _, name in ipairs(removed) do headers[name] = nil end
      add(headers, always)
      if req.scheme == "https" then add(headers, secure) end
    end,
  }
end
