-- What ready-made policies cost a request: the CPU time of their hooks, called again and again on one request in the
-- test kit. Entering a hook comes on top, once for each that a site has (`./dev bench -w hooks`).
--
--     ./dev build release
--     eval "$(build/moongate test --env)" && lua5.4 bench/policies.lua [NAME…]

-- luacheck: no max line length (a case is a line)
local testing = require "moongate.testing"

local HOOKS <const> = { "on_request", "pick_backend", "on_response", "on_log" }
-- Few times, often: a request that was changed thousands of times is not what policies meet.
local TIMES <const>, ROUNDS <const> = 50, 300

-- A hook that calls the policy's so many times as the request says.
local config = [[
local gate = require "moongate"
local function times(f, n) local list = {} for i = 1, n do list[i] = f(i) end return list end
local policy = %s
local site = { listen = { "127.0.0.1:8080", { "127.0.0.1:8443", tls = "internal" } }, backends = {
  app = { "127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003" }, new = { "127.0.0.1:9004" },
  many = times(function(i) return "127.0.1." .. i .. ":80" end, 23), default = { "127.0.0.1:9001" } } }
for _, hook in ipairs { "on_request", "pick_backend", "on_response", "on_log" } do
  local f = policy[hook]
  local counts = f and "X-Times-" .. hook
  if f then
    site[hook] = function(req, other)
      local answer
      local n = tonumber(req.ctx.times and req.ctx.times[hook] or req.headers[counts]) or 1
      if hook == "on_request" then
        req.ctx.times = {}
        for _, each in ipairs { "pick_backend", "on_response", "on_log" } do
          req.ctx.times[each] = req.headers["X-Times-" .. each]
        end
      end
      for _ = 1, n do answer = f(req, other) end
      return answer
    end
  end
end
return { lua = { hook_cpu = 10, memory = "256M" }, sites = { site } }
]]

local gateway = [[require "scripts.api_gateway" { routes = times(function(i)
  return { path = "/s" .. i // 2 .. "/items" .. (i %% 2 == 0 and "/{id}" or ""), backend = "app" } end, %d) }]]

local cases = {
  { "api_gateway, 10 routes", gateway:format(10), path = "/s2/items" },
  { "api_gateway, 10 routes, parameter", gateway:format(10), path = "/s2/items/7" },
  { "api_gateway, 10000 routes", gateway:format(10000), path = "/s4000/items" },
  { "api_gateway, 10000 routes, parameter", gateway:format(10000), path = "/s4000/items/7" },
  { "canary by cookie", [[require "scripts.canary" { canary = "new", stable = "app", share = 10 }]] },
  { "canary with rollback", [[require "scripts.canary" { canary = "new", stable = "app", share = 10, rollback = {} }]] },
  { "sticky_session, no cookie yet", [[require "scripts.sticky_session" { backend = "app", secret = ("s"):rep(16) }]], new = true },
  { "sticky_session, 3 servers", [[require "scripts.sticky_session" { backend = "app", secret = ("s"):rep(16) }]] },
  { "sticky_session, 23 servers", [[require "scripts.sticky_session" { backend = "many", secret = ("s"):rep(16) }]] },
  { "sticky_session by hash, 3 servers", [[require "scripts.sticky_session" { backend = "app", by = "ip" }]] },
  { "sticky_session by hash, 23 servers", [[require "scripts.sticky_session" { backend = "many", by = "ip" }]] },
  { "ab_test", [[require "scripts.ab_test" { experiments = { e = { variants = { a = 1, b = 1 } } } }]] },
  { "mirror, not copied", [[require "scripts.mirror" { backend = "new", share = 0 }]] },
  { "fault_injection, switched off", [[require "scripts.fault_injection" { enabled = function() return false end,
    faults = { { abort = 500 } } }]] },
  { "fault_injection, no hit", [[require "scripts.fault_injection" { enabled = true, faults = { { share = 0, abort = 500 } } }]] },
  { "redirect_https, by https", [[require "scripts.redirect_https" {}]], listen = "127.0.0.1:8443" },
  { "redirect_https, by http", [[require "scripts.redirect_https" {}]], status = 308 },
  { "security_headers", [[require "scripts.security_headers" {}]] },
}

-- CPU seconds of one request whose hook calls the policy's so many times, and its answer.
local function spend(kit, case, hook, n)
  local headers = { Cookie = case.cookie }
  if hook then headers["X-Times-" .. hook] = tostring(n) end
  local began = os.clock()
  local res = kit:request { path = case.path or "/", headers = headers, listen = case.listen }
  return os.clock() - began, res
end

-- The least of several, in microseconds: what else runs on the machine only adds.
local function measure(kit, case, hook)
  local many, one = math.huge, math.huge
  for _ = 1, ROUNDS do
    many = math.min(many, (spend(kit, case, hook, TIMES)))
    one = math.min(one, (spend(kit, case, hook, 1)))
  end
  return math.max(0, (many - one) / (TIMES - 1) * 1e6)
end

local function is_wanted(name)
  for _, wanted in ipairs(arg) do
    if name:find(wanted, 1, true) then return true end
  end
  return #arg == 0
end

for _, case in ipairs(cases) do
  local name, policy = case[1], case[2]
  if is_wanted(name) then
    local kit = testing.load { text = config:format(policy) }
    kit:backend("*", 204)
    -- What the policy gives a client that comes for the first time, it brings the next time.
    local _, first = spend(kit, case)
    assert(first.status == (case.status or 204), name)
    if not case.new then case.cookie = (first.headers["Set-Cookie"] or ""):match "^[^;]+" end
    local sum, parts = 0, {}
    for _, hook in ipairs(HOOKS) do
      local cost = measure(kit, case, hook)
      if cost > 0.02 then
        sum = sum + cost
        parts[#parts + 1] = ("%s %.2f"):format(hook, cost)
      end
    end
    print(("%-40s %6.2f µs   %s"):format(name, sum, table.concat(parts, ", ")))
  end
end
