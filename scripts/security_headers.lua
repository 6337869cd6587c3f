-- Adds the header fields that make browsers careful. What the application sets itself, it keeps.
--
--     use = { require "scripts.security_headers" { frame = "DENY", csp = "default-src 'self'" } }
--
-- Every option takes a string, or false: leave that field alone. By default:
--
--     X-Content-Type-Options: nosniff
--     X-Frame-Options: SAMEORIGIN
--     Referrer-Policy: strict-origin-when-cross-origin
--     Strict-Transport-Security: max-age=31536000       (to clients that came by https)
--
-- There is no Content-Security-Policy or Permissions-Policy unless you write one: no default fits an application
-- that was not made for it.

---@class security_headers.Options
---@field content_type? string|false X-Content-Type-Options
---@field frame? string|false X-Frame-Options: "SAMEORIGIN" or "DENY"
---@field referrer? string|false Referrer-Policy
---@field hsts? string|false Strict-Transport-Security
---@field csp? string|false Content-Security-Policy
---@field permissions? string|false Permissions-Policy
---@field opener? string|false Cross-Origin-Opener-Policy

local fields = {
  content_type = { "X-Content-Type-Options", "nosniff" },
  frame = { "X-Frame-Options", "SAMEORIGIN" },
  referrer = { "Referrer-Policy", "strict-origin-when-cross-origin" },
  hsts = { "Strict-Transport-Security", "max-age=31536000" },
  csp = { "Content-Security-Policy", false },
  permissions = { "Permissions-Policy", false },
  opener = { "Cross-Origin-Opener-Policy", false },
}

local function check(options)
  if type(options) ~= "table" then return "expected a table of options, got " .. type(options) end
  for name, value in pairs(options) do
    if not fields[name] then return ("unknown option %q"):format(tostring(name)) end
    local text = type(value) == "string" and value ~= "" and not value:find "[\r\n%z]"
    if not text and value ~= false then return name .. ": expected a string or false" end
  end
  if options.frame and options.frame ~= "DENY" and options.frame ~= "SAMEORIGIN" then
    return ('frame: expected "DENY" or "SAMEORIGIN", got %q'):format(options.frame)
  end
end

---@param options? security_headers.Options
---@return moongate.Policy
return function(options)
  options = options or {}
  local problem = check(options)
  if problem then error("security_headers: " .. problem, 2) end

  local always, secure = {}, {}
  for option, field in pairs(fields) do
    local value = options[option]
    if value == nil then value = field[2] end
    if value then (option == "hsts" and secure or always)[field[1]] = value end
  end

  local function add(headers, values)
    for name, value in pairs(values) do
      if not headers[name] then headers[name] = value end
    end
  end

  return {
    on_response = function(req, res)
      add(res.headers, always)
      if req.scheme == "https" then add(res.headers, secure) end
    end,
  }
end
