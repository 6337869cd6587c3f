-- Sends clients that came by http to the same address by https.
--
--     use = { require "scripts.redirect_https" {} }
--
-- A site that listens by both needs nothing else; scripts/security_headers.lua adds the field by which browsers come by
-- https the next time (HSTS). Behind a load balancer that ends TLS, list it in the site's `trusted_proxies`: then the
-- X-Forwarded-Proto it sets says how the client came; nobody else's is believed.
--
-- The client is sent to the host it asked for. Where a site has no `hosts` that may be any, and a cache between could
-- keep the answer for others: give `hosts` or `host`. A request that names no host (HTTP/1.0) is answered 400.
--
-- Put it first into `use`: what comes by http should not get as far as passwords. Costs less than
-- 0.1 µs a request by https, about 1 µs one that is sent away.

local gate = require "moongate"
local options = require "moongate.options"

local statuses = { [301] = true, [302] = true, [307] = true, [308] = true }

---@class redirect_https.Options
---@field status? integer 301, 302, 307 or 308; default 308, with which the method stays what it was
---@field host? string the name to send to; default the one the client asked for
---@field port? integer of the https site, 443
---@field except? string[] paths that stay, with all below them; default { "/.well-known/acme-challenge" }
---@field max_age? moongate.Seconds for which the answer may be kept; default: as long as its status says

local known = {
  status = function(value) if not statuses[value] then return "301, 302, 307 or 308" end end,
  host = function(value)
    if type(value) ~= "string" or not value:find "^[%w.:%[%]_-]+$" then return "a host name" end
  end,
  port = function(value)
    if math.type(value) ~= "integer" or value < 1 or value > 65535 then return "a number from 1 to 65535" end
  end,
  except = "paths", max_age = "seconds",
}

-- The target as it came, without the origin that some clients put before it.
local function target_of(req)
  local target = req.target
  if target:sub(1, 1) ~= "/" then target = target:match "^%a[%w+.-]*://[^/?]*(.*)$" or "/" end
  if target:sub(1, 1) ~= "/" then target = "/" .. target end
  -- Raw bytes beyond ASCII, which no URL has: browsers do not send them.
  return (target:gsub("[^\x21-\x7e]", function(byte) return ("%%%02X"):format(byte:byte()) end))
end

---@param given? redirect_https.Options
---@return moongate.Policy
return function(given)
  given = given or {}
  options.check("redirect_https", given, known)
  local status, except = given.status or 308, given.except or { "/.well-known/acme-challenge" }
  local port = given.port and given.port ~= 443 and ":" .. given.port or ""
  local control = given.max_age and ("max-age=%d"):format(options.seconds(given.max_age) // 1)

  return {
    on_request = function(req)
      if req.scheme == "https" or options.is_below(req.path, except) then return end
      local host = given.host or req.host
      if host == "" then return gate.reply(400, "by https, please\n") end
      local url = ("https://%s%s%s"):format(host, port, target_of(req))
      if not control then return gate.redirect(url, status) end
      return gate.reply(status, nil, { ["Location"] = url, ["Cache-Control"] = control })
    end,
  }
end
