-- Lets in by address: whom `deny` names stays out; if there is an `allow`, so does everybody it does not name.
--
--     use = { require "scripts.ip_allow" { allow = { "10.0.0.0/8", "2001:db8::/32" }, deny = { "10.0.0.13" } } }
--
-- The address is that of the client, which behind a proxy listed in `trusted_proxies` is the one it reports. Lists may
-- be long, and may come from a file beside the config (gate.cidr): `deny = { file = "blocked.txt" }`.
--
-- Costs about 1 µs a request, however long the lists.

local gate = require "moongate"
local options = require "moongate.options"

---@class ip_allow.Options
---@field allow? table addresses and ranges, IPv4 and IPv6; "unix" for clients of a unix socket; or { file = "…" }
---@field deny? table the same; asked first
---@field status? integer of the answer to who stays out, 403
---@field body? string of that answer

local known = {
  allow = "table", deny = "table", body = "string",
  status = function(value)
    if math.type(value) ~= "integer" or value < 400 or value > 599 then return "one from 400 to 599" end
  end,
}

local function is_range(text) return type(text) == "string" and (pcall(gate.cidr, { text })) end

-- A set of addresses, and whether unix sockets are in it. Nil and a sentence: it makes no sense.
local function read_list(list, name)
  if list.file and list[1] then return nil, name .. ": expected either a list or a file" end
  local ranges, has_unix = { file = list.file }, false
  for i, text in ipairs(list) do
    if text == "unix" then
      has_unix = true
    elseif is_range(text) then
      ranges[#ranges + 1] = text
    else
      local sentence = '%s[%d]: expected an address or range such as "10.0.0.0/8", got %q'
      return nil, sentence:format(name, i, tostring(text))
    end
  end
  local ok, set = pcall(gate.cidr, ranges)
  if not ok then return nil, ("%s: %s"):format(name, tostring(set):gsub("^.-gate%.cidr: ", "")) end
  return { set = set, has_unix = has_unix }
end

-- Whether an address is in a list; nil: it is none.
local function is_in(list, ip)
  if ip == "unix:" then return list.has_unix end
  return list.set:has((ip:gsub("%%.*$", ""))) -- without the zone of a link-local address
end

---@param given ip_allow.Options
---@return moongate.Policy
return function(given)
  local problem = options.problem(given, known)
  if not problem and not given.allow and not given.deny then problem = "expected allow, deny or both" end
  options.blame("ip_allow", problem)
  local deny, allow
  deny, problem = read_list(given.deny or {}, "deny")
  options.blame("ip_allow", problem)
  if given.allow then allow, problem = read_list(given.allow, "allow") end
  options.blame("ip_allow", problem)
  local refusal = gate.reply(given.status or 403, given.body or "this address may not come in\n")

  return {
    on_request = function(req)
      local ip = req.client.ip
      if is_in(deny, ip) ~= false or allow and not is_in(allow, ip) then return refusal end
    end,
  }
end
