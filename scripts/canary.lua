-- Sends a share of the traffic to a new version, always the same users, and takes it back by itself when the new
-- version fails more often than the old one.
--
--     use = { require "scripts.canary" {
--       canary = "new", stable = "app", share = 5,
--       rollback = { requests = 100, ratio = 2 },
--     } }
--
-- Who gets it: first whom `header` names (testers, also while it is rolled back), then `share` percent of all, told
-- apart by `sticky`. With "cookie" (the default) a client is given a number that stays his: who had the new version at
-- 5 % has it at 20 %. The number is no secret and not signed: who edits it chooses his version, and no more. Where that
-- matters, tell users apart by something they cannot choose, such as `sticky = "ctx:user"` behind a policy that says
-- who they are. Who has no such key gets the old version. `share` may be a function, called for each request: a share
-- kept in gate.shared is changed without a reload.
--
-- A request that the new version fails (it cannot be reached, resets, is too slow, 5xx) goes on to the old one if it
-- may be repeated; `fallback = false` delivers the failure.
--
-- Rollback: both versions' requests and failures are counted over all workers, in two windows of which the older one
-- fades. When the new version has had `requests` in them, and its rate of failures is more than `ratio` times that of
-- the old one and at least `margin` percent points above it, nobody is sent there any more, for `hold` (default: for
-- good), and the error log says so. What ends it: another `release`, a restart, or removing the key "rolled_back
-- RELEASE" from gate.shared of `name`. A client that left is no failure. Clients who can make the new version fail can
-- have it rolled back: the old one then serves, which is the safe side.
--
-- `req.ctx.canary` tells later hooks whether it was the new version. This policy answers pick_backend: a site's own
-- pick_backend comes before it. Put it into `use` behind what tells who somebody is.
--
-- Costs about 0.6 µs a request, with rollback 1.1 µs.

local gate = require "moongate"
local fields = require "moongate.fields"
local options = require "moongate.options"

---@class canary.Rollback
---@field requests? integer the new version must have had before it is judged, 50
---@field window? moongate.Seconds "1m": failures count for one to two windows
---@field ratio? number failures, compared with the old version's rate, 2
---@field margin? number percent points that it must be above, too; 5
---@field hold? moongate.Seconds for which nobody is sent there; default for good
---@field statuses? fun(status: integer): boolean which are failures; default 500 and above

---@class canary.Options
---@field canary string the backend with the new version
---@field stable string the backend with the old one
---@field share number|fun(req: moongate.Request): number percent, 0 to 100
---"cookie" (default), "ip", "header:NAME", "cookie:NAME", "arg:NAME", "ctx:NAME", or a function that gives a text
---@field sticky? string|fun(req: moongate.Request): string?
---@field cookie? string its name, "canary"
---@field cookie_age? moongate.Seconds how long a client keeps his number, 30d
---@field header? { name: string, always: string, never?: string } values that choose; as good as passwords
---@field fallback? boolean true: failed requests go on to the old version
---@field rollback? canary.Rollback|false default: no rollback
---@field release? string of the new version: another one begins anew
---@field name? string of the dictionary that counts, "canary"

local function is_share(value)
  if type(value) == "function" then return nil end
  if not math.type(value) or not (value >= 0 and value <= 100) then return "percent, 0 to 100, or a function" end
end

local known = {
  canary = "name", stable = "name", share = is_share, cookie = "token", cookie_age = "seconds", header = "table",
  sticky = function(value) if value ~= "cookie" then return options.is_key(value) end end,
  fallback = "boolean", release = "text", name = "text",
  rollback = function(value) if value ~= false and type(value) ~= "table" then return "a table or false" end end,
}
local known_header = { name = "token", always = "text", never = "text" }
local known_rollback = {
  requests = "count", window = "seconds", ratio = "number", margin = "number", hold = "seconds", statuses = "function",
}

local function problem_of(given)
  local problem = options.problem(given, known, { "canary", "stable", "share" })
  if problem then return problem end
  if given.canary == given.stable then return "canary: is the same backend as stable" end
  return given.header and options.problem(given.header, known_header, { "name", "always" }, "header.")
    or given.rollback and options.problem(given.rollback, known_rollback, nil, "rollback.")
end

-- Counters of two versions over time ----------------------------------------------------------------------------------

-- Windows are numbered since 1970, so that all workers mean the same one.
local function counters(shared, release, window)
  local number, names = nil, {}

  local function keys_of(which)
    local now = gate.now() // window
    if now ~= number then number, names = now, {} end
    local keys = names[which]
    if not keys then
      local function key(n, what) return ("%s %s %d %s"):format(release, which, n, what) end
      keys = { key(now, "requests"), key(now, "failures"), key(now - 1, "requests"), key(now - 1, "failures") }
      names[which] = keys
    end
    return keys
  end

  local self = {}

  function self.add(which, failed)
    local keys = keys_of(which)
    -- A dictionary that is full counts nothing, and rolls nothing back.
    shared:incr(keys[1], 1, 0, 2 * window)
    if failed then shared:incr(keys[2], 1, 0, 2 * window) end
  end

  -- Requests and failures: of this window, and of the former one what is not two windows old.
  function self.get(which)
    local keys = keys_of(which)
    local left = 1 - gate.now() % window / window
    local function sum(this, last) return (shared:get(keys[this]) or 0) + left * (shared:get(keys[last]) or 0) end
    return sum(1, 3), sum(2, 4)
  end

  return self
end

local function server_failed(status) return status >= 500 end

-- What judges the new version: `is_off()`, and `count(is_canary, failed)` after each request.
local function judge_of(given, shared)
  local rules = given.rollback or {}
  local window = options.seconds(rules.window or 60)
  local hold = rules.hold and options.seconds(rules.hold)
  local requests, ratio, margin = rules.requests or 50, rules.ratio or 2, rules.margin or 5
  local release = given.release or "default"
  local off = "rolled_back " .. release
  local counted = counters(shared, release, window)

  local function rate(which)
    local all, failed = counted.get(which)
    return all > 0 and 100 * failed / all or 0, all
  end

  local function judge()
    local new, count = rate "canary"
    if count < requests then return end
    local old = rate "stable"
    if new <= old * ratio or new < old + margin then return end
    local text = ("%.1f %% of %d requests failed, %.1f %% of the old version's"):format(new, count // 1, old)
    -- Only one of those who find out says so.
    if shared:add(off, text, hold) then gate.log("error", ("canary %s is rolled back: %s"):format(release, text)) end
  end

  return {
    is_off = function() return shared:get(off) ~= nil end,
    count = function(is_canary, failed)
      counted.add(is_canary and "canary" or "stable", failed)
      if is_canary and failed then judge() end
    end,
  }
end

-- Who is who ----------------------------------------------------------------------------------------------------------

-- A client's number from his cookie, 0 to below 100, or nil.
local function number_of(cookie)
  local digits = cookie and #cookie == 4 and cookie:match "^%d%d%d%d$"
  return digits and tonumber(digits) / 100
end

-- Numbers for those who have none: the request's id is random enough, and the same in all hooks.
local function new_number(req) return ("%04d"):format(gate.hash(req.id) % 10000) end

---@param given canary.Options
---@return moongate.Policy
return function(given)
  options.blame("canary", problem_of(given))
  local by_cookie = (given.sticky or "cookie") == "cookie"
  local cookie, header = given.cookie or "canary", given.header
  local set_cookie, problem = fields.cookie_setter(cookie, { max_age = options.seconds(given.cookie_age or "30d") })
  options.blame("canary", problem)
  local key_of = not by_cookie and options.key(given.sticky)
  local share_of = type(given.share) == "function" and given.share
  local judged = given.rollback and judge_of(given, gate.shared(given.name or "canary", { max = "1M" }))
  local failed_status = given.rollback and given.rollback.statuses or server_failed
  local picks = given.canary
  if given.fallback ~= false then
    picks = { given.canary, given.stable, retry_on = { "connect", "reset", "timeout", "5xx" } }
  end

  -- true or false for those who were asked for by header, nil for all others.
  local function wished(req)
    local value = header and req.headers[header.name]
    if not value then return nil end
    if gate.equal(value, header.always) then return true end
    if header.never and gate.equal(value, header.never) then return false end
  end

  -- The number of who asks, 0 to below 100; nil for who cannot be told apart. `given_out`: he has to be told.
  local function place_of(req)
    if by_cookie then
      local place = number_of(req.cookies[cookie])
      if place then return place end
      local number = new_number(req)
      return tonumber(number) / 100, number
    end
    local key = key_of(req)
    return key and options.percentile("canary", key)
  end

  local function decide(req)
    local wish = wished(req)
    if wish ~= nil then return wish, true end
    local place, given_out = place_of(req)
    req.ctx.canary_number = given_out
    local share = share_of and share_of(req) or given.share
    local chosen = place ~= nil and place < share
    return chosen and not (judged and judged.is_off()), false
  end

  local policy = {}

  function policy.on_request(req)
    -- Decided here, so that all later hooks know and a retry does not decide again.
    req.ctx.canary, req.ctx.canary_wish = decide(req)
    if header then req.headers[header.name] = nil end -- a password goes no further than it must
  end

  function policy.pick_backend(req, last)
    if not req.ctx.canary then return given.stable end
    if last and last.backend == given.stable then return given.stable end
    return picks
  end

  if by_cookie then
    function policy.on_response(req, res)
      local number = req.ctx.canary_number
      if number then set_cookie(req, res, number) end
    end
  end

  if judged then
    function policy.on_log(req, res)
      -- 499: the client left. Replies and failures of hooks tell nothing of either version.
      if res.status == 499 or req.ctx.canary == nil or req.ctx.canary_wish then return end
      if res.tries == 0 then return end
      local is_canary = req.ctx.canary
      local fell_back = is_canary and res.backend == given.stable
      judged.count(is_canary, fell_back or failed_status(res.status))
    end
  end

  return policy
end
