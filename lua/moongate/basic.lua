-- Basic credentials (RFC 7617), as Authorization and Proxy-Authorization carry them.

local gate = require "moongate"

local basic = {}

---The name and password of such a field's value; nil if it is none. There are no control characters in them (RFC 7617
---2), so that they can stand in a line.
---@param field string?
---@return string? name
---@return string? password
function basic.parse(field)
  local encoded = field and field:match "^[Bb][Aa][Ss][Ii][Cc] +([%w+/=]+)$"
  local decoded = encoded and gate.base64.decode(encoded)
  if decoded and not decoded:find "%c" then return decoded:match "^([^:]*):(.*)$" end
end

---What is wrong with a realm, to be shown in quotes; nil: nothing.
---@param realm string
---@return string?
function basic.check_realm(realm)
  if realm:find '[%c"\\]' then return "realm: no quotes, backslashes or control bytes" end
end

---The challenge that asks for them: the value of WWW-Authenticate or Proxy-Authenticate.
---@param realm string
---@return string
function basic.challenge(realm) return ('Basic realm="%s", charset="UTF-8"'):format(realm) end

return basic
