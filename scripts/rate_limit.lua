-- Lets each client make so many requests in a time, and have so many under way at once; the rest gets 429.
--
--     use = { require "scripts.rate_limit" { rate = 100, per = "1m", burst = 20 } }
--
--     use = { require "scripts.rate_limit" {
--       key = "header:X-Api-Key", rate = 10, concurrent = 5, headers = "always",
--       routes = { { path = "/login", methods = { "POST" }, key = "ip", rate = 5, per = "1m" } },
--     } }
--
-- Rates are kept by GCRA, exactly and over all workers (gate.limit): no windows at whose borders twice as much passes.
-- `burst` is how many may come at once after a rest; then one every per/rate seconds. What is refused costs a client
-- nothing. `concurrent` counts requests whose answer is not sent to its end yet, WebSockets included.
--
-- Who a client is: by default its address, as `trusted_proxies` lets it be believed, of IPv6 its /64. Or a field, a
-- cookie, an argument, what an earlier policy left in req.ctx ("ctx:user"), "all" for one limit of all together, or a
-- function. A client chooses its fields, cookies and arguments: count by them behind the policy that checks them, or
-- give each a limit by address, too. Requests without that key are counted by address.
--
-- `routes`: the first that fits has a limit of its own, in the place of the general one (moongate.rules). What must
-- keep within two limits passes two of these policies, each with a `name` of its own. Put this behind what answers
-- without the application, and before what is dear.
--
-- `dry_run` lets all pass, and counts what would have been refused in the metrics of its `name`; `req.ctx.rate_limited`
-- has that name, for a log line or another policy, as it does for what is refused.
--
-- Memory is bounded by `max` for each limit. Keys that could take their whole burst are forgotten. When all the room is
-- taken by keys that could not, a new client is refused, or with `on_full = "allow"` let through.
--
-- Costs about 0.4 µs a request, 0.3 µs more for each route it passes by, and 1.5 µs with `headers = "always"`.

local gate = require "moongate"
local network = require "moongate.network"
local options = require "moongate.options"
local rules = require "moongate.rules"

---@class rate_limit.Rule
---@field rate? number requests in `per`; this, `concurrent`, or both
---@field per? moongate.Seconds default 1
---@field burst? integer how many at once after a rest; default the rate
---@field concurrent? integer how many under way at once
---"ip" (default), "all", "header:NAME", "cookie:NAME", "arg:NAME", "ctx:NAME", or a function; nil of it: by address;
---false: not limited
---@field key? string|fun(req: moongate.Request): string|number|false|nil
---@field cost? number|fun(req: moongate.Request): number what a request takes, 1; more than the burst never passes

---@class rate_limit.Route : rules.Rule, rate_limit.Rule
---@field name? string of its limit; default the policy's name and the route's number: "rate_limit/1"
---@field off? boolean no limit here

---@class rate_limit.Options : rate_limit.Rule
---@field name? string of its limit in metrics and fields, "rate_limit"
---@field routes? rate_limit.Route[]
---@field except? string[] paths that are not limited, with all below them
---@field exempt? table addresses and prefixes that are not limited, as gate.cidr takes them
---@field ipv6? 48|64|128 bits of an IPv6 address that count as one client, 64
---@field dry_run? boolean
---@field headers? "refused"|"always"|"never" which answers get RateLimit fields; default "refused"
---@field status? integer of refusals, 429
---@field body? string of refusals
---the whole refusal; nil: the usual one. `wait` is in seconds; nil: it is about `concurrent`
---@field reply? fun(req: moongate.Request, wait: number?): moongate.Reply|integer|nil
---@field max? moongate.Bytes memory for the keys of each limit, "16M"
---@field on_full? "deny"|"allow"

local function is_key(value)
  if value ~= "all" and options.is_key(value) then
    return '"ip", "all", "header:NAME", "cookie:NAME", "arg:NAME", "ctx:NAME" or a function'
  end
end

local function is_cost(value)
  local well = type(value) == "function" or math.type(value) and value > 0 and value < math.huge
  if not well then return "a number of more than 0, or a function" end
end

local function one_of(set, what)
  return function(value) if not set[value] then return what end end
end

-- What gate.limit judges by itself is "any" here.
local known_rule = { rate = "any", per = "any", burst = "any", concurrent = "any", key = is_key, cost = is_cost }
local known_route = { name = "text", off = "boolean" }
local known = {
  name = "text", routes = "table", except = "paths", exempt = network.is_set, ipv6 = network.is_bits,
  dry_run = "boolean", status = "status", body = "string", reply = "function", max = "any", on_full = "any",
  headers = one_of({ refused = true, always = true, never = true }, '"refused", "always" or "never"'),
}
for name, kind in pairs(known_rule) do known[name], known_route[name] = kind, kind end

local function is_limited(rule) return rule.rate ~= nil or rule.concurrent ~= nil end

local function problem_of(given)
  local problem = options.problem(given, known) or rules.problem(given.routes or {}, known_route, "routes")
  if problem then return problem end
  for i, route in ipairs(given.routes or {}) do
    if is_limited(route) == (route.off == true) then
      return ("routes[%d]: expected a rate, concurrent or both, or off = true"):format(i)
    end
  end
  if not is_limited(given) and not (given.routes and given.routes[1]) then
    return "expected a rate, concurrent, or routes with these"
  end
end

-- Strangers' texts begin with "=", so that none is taken for an address.
local function key_function(key, by_address)
  if key == "ip" then return by_address end
  if key == "all" then return function() return "all" end end
  local find = options.key(key)
  return function(req)
    local found = find(req)
    if found == nil then return by_address(req) end
    return found and "=" .. found
  end
end

-- A rule as it is applied: its limit, and functions for key and cost. Nil and the problem where gate.limit refuses.
local function apply(rule, given, name)
  if not is_limited(rule) then return {} end
  local ok, limit = pcall(gate.limit, {
    name = name, rate = rule.rate, per = rule.per, burst = rule.burst, concurrent = rule.concurrent,
    dry_run = given.dry_run, max = given.max, on_full = given.on_full,
  })
  if not ok then return nil, (tostring(limit):gsub("^.-gate%.limit: ", "")) end
  local bits = given.ipv6 or 64
  local function by_address(req) return network.of(req.client.ip, bits) end
  local cost = rule.cost or 1
  return {
    limit = limit, name = name, rated = rule.rate ~= nil, bounded = rule.concurrent ~= nil,
    key_of = key_function(rule.key or given.key or "ip", by_address),
    cost_of = type(cost) == "function" and cost or function() return cost end,
  }
end

-- All rules: a function from a request to the one that is for it.
local function apply_all(given)
  local name = given.name or "rate_limit"
  local others, problem = apply(given, given, name)
  if problem then return nil, problem end
  local list = {}
  for i, route in ipairs(given.routes or {}) do
    local applied, why = apply(route, given, route.name or ("%s/%d"):format(name, i))
    if not applied then return nil, ("routes[%d]: %s"):format(i, why) end
    list[i] = { path = route.path, methods = route.methods, hosts = route.hosts, applied = applied }
  end
  local find = rules.finder(list)
  return function(req)
    local route = find(req)
    return route and route.applied or others
  end
end

local together <const> = { "RateLimit", "RateLimit-Policy" }
local apart <const> = { "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset" }

-- Of several limits the older fields tell of the one with least left, the newer ones have a line for each.
local function add_fields(headers, fields)
  for _, name in ipairs(together) do headers:add(name, fields[name]) end
  local least = tonumber(headers["RateLimit-Remaining"])
  if least and least <= fields["RateLimit-Remaining"] then return end
  for _, name in ipairs(apart) do headers[name] = fields[name] end
end

---@param given rate_limit.Options
---@return moongate.Policy
return function(given)
  options.blame("rate_limit", problem_of(given))
  local rule_of, problem = apply_all(given)
  options.blame("rate_limit", problem)
  local exempt, headers = network.set(given.exempt), given.headers or "refused"
  local status, body = given.status or 429, given.body or "too many requests\n"
  local name = given.name or "rate_limit"
  local rule_slot, key_slot = name .. " rule", name .. " key" -- in req.ctx

  local function refuse(req, rule, key, wait)
    req.ctx.rate_limited = rule.name
    local own = given.reply and given.reply(req, wait)
    if own then return own end
    local fields = headers ~= "never" and rule.rated and rule.limit:fields(key) or {}
    -- One second is a guess for what is under way; what costs more than the burst need not be tried again.
    local seconds = wait or 1
    fields["Retry-After"] = seconds < math.huge and math.max(1, math.ceil(seconds)) or nil
    fields["Cache-Control"] = "no-store"
    return gate.reply(status, body, fields)
  end

  -- In a dry run what is left is negative where it would have been refused.
  local function take(req, rule, key)
    local ok, left = rule.limit:take(key, rule.cost_of(req))
    if not ok then return refuse(req, rule, key, left) end
    if left < 0 then req.ctx.rate_limited = rule.name end
    if headers == "always" then req.ctx[rule_slot], req.ctx[key_slot] = rule, key end
  end

  local function enter(req, rule, key)
    local slot, word = rule.limit:enter(key)
    if not slot then return refuse(req, rule, key, nil) end
    if word then req.ctx.rate_limited = rule.name end
  end

  local policy = {}

  function policy.on_request(req)
    if exempt and exempt:has(req.client.ip) then return end
    if given.except and options.is_below(req.path, given.except) then return end
    local rule = rule_of(req)
    local key = rule.limit and rule.key_of(req)
    if not key then return end
    return rule.rated and take(req, rule, key) or rule.bounded and enter(req, rule, key) or nil
  end

  if headers == "always" then
    function policy.on_response(req, res)
      local rule = req.ctx[rule_slot]
      if rule then add_fields(res.headers, rule.limit:fields(req.ctx[key_slot])) end
    end
  end
  return policy
end
