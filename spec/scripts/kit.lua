-- For the specs of scripts/ that use the test kit: a site that uses one of them, in the kit.

local testing = require "moongate.testing"

local kit = {}

local config = [[
local gate = require "moongate"
local site = { listen = "127.0.0.1:8080", backends = { %s } }
%s
site.use = { %s }
return site
]]

---@param parts { backends: string, use: string, more?: string } Lua text
---@return moongate.Kit
function kit.load(parts)
  return testing.load { text = config:format(parts.backends, parts.more or "", parts.use) }
end

---How many of `count` requests a function is true for.
---@param count integer
---@param f fun(i: integer): any
---@return integer
function kit.share(count, f)
  local n = 0
  for i = 1, count do
    if f(i) then n = n + 1 end
  end
  return n
end

---The value of a cookie that an answer sets, and the whole line; nil if it sets none.
---@param res moongate.KitResult
---@param name string
function kit.cookie(res, name)
  for _, line in ipairs(res.headers:all "Set-Cookie") do
    local value = line:match("^" .. name .. "=([^;]*)")
    if value then return value, line end
  end
end

return kit
