-- Sends clients that came by http to the same address by https.
--
--     use = { require "scripts.redirect_https" {} }
--
-- Behind a load balancer that ends TLS, list it in the site's `trusted_proxies`: then the X-Forwarded-Proto it sets
-- says how the client came.

local gate = require "moongate"

local statuses = { [301] = true, [302] = true, [307] = true, [308] = true }

---@class redirect_https.Options
---@field status? integer 301, 302, 307 or 308; default 308, with which the method stays what it was
---@field host? string the name to send to; default the one the client asked for
---@field port? integer of the https site, 443
---@field except? string[] paths that stay, with all below them; default { "/.well-known/acme-challenge" }

local known = { status = "number", host = "string", port = "number", except = "table" }

local function check(options)
  if type(options) ~= "table" then return "expected a table of options, got " .. type(options) end
  for name, value in pairs(options) do
    if not known[name] then return ("unknown option %q"):format(tostring(name)) end
    if type(value) ~= known[name] then return ("%s: expected a %s, got %s"):format(name, known[name], type(value)) end
  end
  if options.status and not statuses[options.status] then return "status: expected 301, 302, 307 or 308" end
  local port = math.tointeger(options.port or 443)
  if not port or port < 1 or port > 65535 then return "port: expected a number from 1 to 65535" end
  if options.host and not options.host:find "^[%w.:%[%]-]+$" then return "host: expected a host name" end
  for i, path in ipairs(options.except or {}) do
    if type(path) ~= "string" or path:sub(1, 1) ~= "/" then
      return ("except[%d]: expected a path that begins with /"):format(i)
    end
  end
end

---@param options? redirect_https.Options
---@return moongate.Policy
return function(options)
  options = options or {}
  local problem = check(options)
  if problem then error("redirect_https: " .. problem, 2) end
  local status, except = options.status or 308, options.except or { "/.well-known/acme-challenge" }
  local port = options.port and options.port ~= 443 and ":" .. math.tointeger(options.port) or ""

  local function stays(path)
    for _, prefix in ipairs(except) do
      if path == prefix or path:sub(1, #prefix + 1) == prefix .. "/" then return true end
    end
    return false
  end

  return {
    on_request = function(req)
      if req.scheme == "https" or stays(req.path) then return end
      return gate.redirect(("https://%s%s%s"):format(options.host or req.host, port, req.target), status)
    end,
  }
end
