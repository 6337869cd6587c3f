-- Networks of clients, for policies that count or let in by address.
--
--     local network = require "moongate.network"
--     network.of("2001:db8:0:1::5", 64)   --> "2001:db8:0:1"
--
-- Whoever has one IPv6 address has 2^64 of them: what is counted for each address is not counted at all. So policies
-- count by network, a /64 unless they are told otherwise. An IPv4 address stands for itself.

local gate = require "moongate"

local network = {}

-- What a text that inet_ntop wrote begins with, where no "::" comes before.
local beginnings = { [48] = "^(%x+:%x+:%x+):", [64] = "^(%x+:%x+:%x+:%x+):" }

local function add_groups(groups, text)
  for group in text:gmatch "[^:]+" do groups[#groups + 1] = group end
end

-- The groups of an address that has a "::", which stands for as many zeros as are missing.
local function expand(ip)
  local head, tail = ip:match "^(.-)::([^%%]*)"
  if not head then return nil end
  local groups, last = {}, {}
  add_groups(groups, head)
  add_groups(last, tail)
  for _ = #groups + 1, 8 - #last do groups[#groups + 1] = "0" end
  return table.move(last, 1, #last, #groups + 1, groups)
end

---The network of an address, as a text that is the same for all its addresses; what is no IPv6 address as it is.
---@param ip string as req.client.ip has it
---@param bits 48|64|128
---@return string
function network.of(ip, bits)
  if bits == 128 or not ip:find(":", 1, true) then return ip end
  local beginning = ip:match(beginnings[bits])
  if beginning then return beginning end
  local groups = expand(ip)
  return groups and table.concat(groups, ":", 1, bits // 16) or ip
end

---A kind of option (moongate.options): 48, 64 or 128.
---@param value any
---@return string? wanted
function network.is_bits(value)
  if value ~= 128 and not beginnings[value] then return "48, 64 or 128" end
end

---A kind of option: what gate.cidr takes, addresses and prefixes.
---@param value any
---@return string? wanted
function network.is_set(value)
  if type(value) ~= "table" then return 'a list of addresses and prefixes such as "10.0.0.0/8"' end
  local ok, why = pcall(gate.cidr, value)
  if not ok then return "addresses and prefixes (" .. tostring(why):gsub("^.-gate%.cidr: ", "") .. ")" end
end

---A set of networks, or nil for none.
---@param list table?
---@return moongate.Cidr?
function network.set(list) return list and gate.cidr(list) end

return network
