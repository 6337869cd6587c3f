-- Lets in by address: whom `deny` names stays out; if there is an `allow`, so does everybody it does not name.
--
--     use = { require "scripts.ip_allow" { allow = { "10.0.0.0/8", "2001:db8::/32" }, deny = { "10.0.0.13" } } }
--
-- The address is that of the client, which behind a proxy listed in `trusted_proxies` is the one it reports. Ranges are
-- looked at one after the other: a list of some dozens is what this is for.

local gate = require "moongate"

---@class ip_allow.Options
---@field allow? string[] addresses and ranges, IPv4 and IPv6; "unix" for clients of a unix socket
---@field deny? string[] the same; asked first
---@field status? integer of the answer to who stays out, 403
---@field body? string of that answer

---@class ip_allow.Range
---@field family 4|6|"unix"
---@field high integer the first 64 bits (IPv6)
---@field low integer the last 64 bits, or the 32 of IPv4
---@field high_mask integer
---@field low_mask integer

-- The 32 bits of a dotted quad.
local function parse_v4(text)
  local number, count = 0, 0
  for part, dot in text:gmatch "([^.]*)(%.?)" do
    if count == 4 then break end
    if not part:find "^%d%d?%d?$" or tonumber(part) > 255 or (#part > 1 and part:sub(1, 1) == "0") then return nil end
    number, count = number << 8 | math.tointeger(tonumber(part)), count + 1
    if (count < 4) ~= (dot == ".") then return nil end
  end
  return count == 4 and number or nil
end

-- The groups of 16 bits on one side of the "::".
local function parse_groups(text, groups)
  if text == "" then return groups end
  for part in (text .. ":"):gmatch "([^:]*):" do
    local v4 = part:find(".", 1, true) and parse_v4(part)
    if v4 then
      groups[#groups + 1], groups[#groups + 2] = v4 >> 16, v4 & 0xffff
    elseif part:find "^%x%x?%x?%x?$" then
      groups[#groups + 1] = math.tointeger(tonumber(part, 16))
    else
      return nil
    end
  end
  return groups
end

-- The two 64-bit halves of an IPv6 address.
local function parse_v6(text)
  local left, right = text:match "^(.-)::(.*)$"
  if right and right:find("::", 1, true) then return nil end
  local groups, tail = parse_groups(left or text, {}), parse_groups(right or "", {})
  if not groups or not tail then return nil end
  local missing = 8 - #groups - #tail
  if left and missing < 1 or not left and missing ~= 0 then return nil end
  for _ = 1, missing do groups[#groups + 1] = 0 end
  table.move(tail, 1, #tail, #groups + 1, groups)
  local high, low = 0, 0
  for i = 1, 4 do
    high, low = high << 16 | groups[i], low << 16 | groups[i + 4]
  end
  return high, low
end

-- Family and bits of an address. An IPv4 address in IPv6's clothes (::ffff:1.2.3.4) is one of IPv4.
local function parse_address(text)
  if text == "unix" or text == "unix:" then return "unix", 0, 0 end
  local v4 = parse_v4(text)
  if v4 then return 4, 0, v4 end
  local high, low = parse_v6((text:gsub("%%.*$", "")))
  if not high then return nil end
  if high == 0 and low >> 32 == 0xffff then return 4, 0, low & 0xffffffff end
  return 6, high, low
end

-- A mask of the first `count` of `width` bits.
local function mask(count, width)
  if count <= 0 then return 0 end
  return ~0 << (width - math.min(count, width))
end

---@return ip_allow.Range? range nil: it is none
local function parse_range(text)
  local address, bits = text, nil
  if text:find("/", 1, true) then address, bits = text:match "^([^/]+)/(%d%d?%d?)$" end
  if not address then return nil end
  local family, high, low = parse_address(address)
  local width = family == 4 and 32 or family == 6 and 128 or 0
  bits = math.tointeger(tonumber(bits or width))
  if family == 4 and text:find ":.*/" then bits = bits - 96 end -- "::ffff:0:0/96"
  if not family or bits < 0 or bits > width then return nil end
  local range = { family = family, high_mask = 0, low_mask = 0 }
  if family == 4 then range.low_mask = mask(bits, 32) & 0xffffffff end
  if family == 6 then range.high_mask, range.low_mask = mask(bits, 64), mask(bits - 64, 64) end
  range.high, range.low = high & range.high_mask, low & range.low_mask
  return range
end

---@param ranges ip_allow.Range[]
local function contains(ranges, family, high, low)
  for _, range in ipairs(ranges) do
    local same = range.family == family and high & range.high_mask == range.high and low & range.low_mask == range.low
    if same then return true end
  end
  return false
end

local known = { allow = "table", deny = "table", status = "number", body = "string" }

local function read_ranges(list, name)
  local ranges = {}
  for i, text in ipairs(list) do
    ranges[i] = type(text) == "string" and parse_range(text) or nil
    if not ranges[i] then
      local sentence = 'ip_allow: %s[%d]: expected an address or range such as "10.0.0.0/8", got %q'
      error(sentence:format(name, i, tostring(text)), 4)
    end
  end
  return ranges
end

local function check_options(options)
  if type(options) ~= "table" then return "expected a table of options, got " .. type(options) end
  for name, value in pairs(options) do
    if not known[name] then return ("unknown option %q"):format(tostring(name)) end
    if type(value) ~= known[name] then return ("%s: expected a %s, got %s"):format(name, known[name], type(value)) end
  end
  if not options.allow and not options.deny then return "expected allow, deny or both" end
  local status = options.status or 403
  if math.type(status) ~= "integer" or status < 400 or status > 599 then
    return "status: expected one from 400 to 599"
  end
end

---@param options ip_allow.Options
---@return moongate.Policy
return function(options)
  local problem = check_options(options)
  if problem then error("ip_allow: " .. problem, 2) end
  local function ranges_of(name) return options[name] and read_ranges(options[name], name) end
  local allow, deny = ranges_of "allow", ranges_of "deny" or {}

  local function may_enter(ip)
    local family, high, low = parse_address(ip)
    if not family then return false end
    if contains(deny, family, high, low) then return false end
    return not allow or contains(allow, family, high, low)
  end

  return {
    on_request = function(req)
      if may_enter(req.client.ip) then return end
      return gate.reply(options.status or 403, options.body or "this address may not come in\n")
    end,
  }
end
