-- Makes requests slow, fail, or trickle, on purpose: to see what clients and the rest of a system make of it.
--
--     use = { require "scripts.fault_injection" {
--       enabled = function() return switches:get "faults" end,
--       faults = {
--         { share = 5, abort = 503, paths = { "/api" } },
--         { share = 10, delay = { 0.1, 2 } },
--         { header = { "X-Fault", "drip" }, secret = secret, throttle = 4096 },
--       },
--     } }
--
-- Off unless `enabled` is true, or a function that says so for each request: with a key of gate.shared it is a switch
-- that needs no reload. Faults are tried in their order, each with its own share, and several may hit one request: its
-- delays add up, the first abort ends it, of throttles the slowest counts. What was done stands in the answer's
-- `X-Fault-Injected`, in `req.ctx.faults`, and in the metric `fault_injections_total{kind}`; so nobody looks for a bug
-- that is none.
--
-- `header` limits a fault to requests that ask for it (and `secret` to those that know it: "X-Fault: SECRET drip");
-- without a secret every client can ask. The field is not forwarded.
--
-- A delay comes before the backend is asked. At most `max_delayed` requests in each worker are held at once, others go
-- on undelayed: a fault must not become an outage. An abort is the proxy's own answer; the backend is not asked. A
-- throttle lets an answer's body through at so many bytes a second; being a change of the body as far as the core is
-- concerned, it costs the answer its ETag and its length. It flows in the pieces it came in, of up to 64 KiB. Parts
-- (206) and bodies with an unknown coding are not throttled.
--
-- Put it first into `use` to hit everything, or behind the policies that should still do their work. Costs
-- nothing when it is off by `false`, 0.3 µs by a function, and about 0.6 µs with one fault that does not hit.

local gate = require "moongate"
local options = require "moongate.options"

---@class fault_injection.Fault
---@field share? number percent of those the fault is for, 100
---@field by? string|fun(req: moongate.Request): string? the same ones each time: "ip", "header:NAME", …; default: dice
---@field methods? string[]
---@field paths? string[] with all below them
---@field except? string[]
---@field header? { [1]: string, [2]: string } a field and the value that asks for the fault
---@field secret? string that stands before the value, with a space
---@field when? fun(req: moongate.Request): any more to ask
---@field delay? moongate.Seconds|{ [1]: moongate.Seconds, [2]: moongate.Seconds } or between two, evenly; up to 60 s
---@field abort? integer status
---@field body? string of the abort
---@field throttle? integer bytes a second of the answer's body, 2048 or more

---@class fault_injection.Options
---@field enabled? boolean|fun(req: moongate.Request): any
---@field faults fault_injection.Fault[]
---@field max_delayed? integer 100
---@field tell? boolean put X-Fault-Injected into answers; true

local known = {
  enabled = function(value)
    if type(value) ~= "boolean" and type(value) ~= "function" then return "true, false or a function" end
  end,
  faults = "table", max_delayed = "count", tell = "boolean",
}

local DELAY_MAX <const> = 60

local function is_delay(value)
  local seconds = options.seconds(value)
  return seconds ~= nil and seconds <= DELAY_MAX
end

local known_fault = {
  share = "share", by = options.is_key, methods = "tokens", paths = "paths", except = "paths", secret = "secret",
  when = "function", abort = "status", body = "string",
  header = function(value)
    local well = type(value) == "table" and type(value[1]) == "string" and value[1]:find "^[%w-]+$"
      and type(value[2]) == "string" and value[2]:find "^[^%c]+$"
    if not well then return 'a field and its value, as in { "X-Fault", "drip" }' end
  end,
  delay = function(value)
    local well = type(value) ~= "table" and is_delay(value)
      or type(value) == "table" and is_delay(value[1]) and is_delay(value[2])
    if not well then return "a time up to 60 s, or { from, to }" end
  end,
  throttle = function(value)
    if math.type(value) ~= "integer" or value < 2048 then return "bytes a second, 2048 or more" end
  end,
}

local function problem_of(given)
  local problem = options.problem(given, known, { "faults" })
  if problem then return problem end
  if #given.faults == 0 then return "faults: there is none" end
  for i, fault in ipairs(given.faults) do
    local path = ("faults[%d]."):format(i)
    problem = options.problem(fault, known_fault, nil, path)
    if problem then return problem end
    if not (fault.delay or fault.abort or fault.throttle) then
      return path:sub(1, -2) .. ": expected delay, abort or throttle"
    end
    if fault.body and not fault.abort then return path .. "body: is that of an abort" end
    if fault.secret and not fault.header then return path .. "secret: stands in a header" end
  end
end

-- Two functions of a fault --------------------------------------------------------------------------------------------

-- Does a field ask for it?
local function asks(fault, value)
  if not fault.secret then return value == fault.header[2] end
  return value ~= nil and gate.equal(value, fault.secret .. " " .. fault.header[2])
end

-- Whether a request is one of those that are hit. `asked` are the values of fields that ask.
local function chooser(fault, number)
  local methods, key_of, salt = nil, fault.by and options.key(fault.by), "fault " .. number
  if fault.methods then
    methods = {}
    for _, method in ipairs(fault.methods) do methods[method] = true end
  end
  local share = fault.share or 100
  return function(req, asked)
    if methods and not methods[req.method] then return false end
    if fault.header and not asks(fault, asked[fault.header[1]]) then return false end
    if fault.paths and not options.is_below(req.path, fault.paths) then return false end
    if fault.except and options.is_below(req.path, fault.except) then return false end
    if share < 100 then
      local key = key_of and key_of(req) or not key_of and req.id
      if not key or options.percentile(salt, key) >= share then return false end
    end
    return not fault.when or fault.when(req)
  end
end

local function delayer(delay)
  if not delay then return nil end
  local from, to = delay, delay
  if type(delay) == "table" then from, to = delay[1], delay[2] end
  from, to = options.seconds(from), options.seconds(to)
  return function() return from + (to - from) * math.random() end
end

local function reply_of(fault)
  if not fault.abort then return nil end
  local has_body = fault.abort ~= 204 and fault.abort ~= 205 and fault.abort ~= 304
  return gate.reply(fault.abort, has_body and (fault.body or "fault injected\n") or nil)
end

---@param given fault_injection.Options
---@return moongate.Policy
return function(given)
  options.blame("fault_injection", problem_of(given))
  local enabled = given.enabled
  if not enabled then return {} end
  local is_on = type(enabled) == "function" and enabled
  local max_delayed, tell = given.max_delayed or 100, given.tell ~= false
  local delayed = 0 -- in this worker
  local counted = gate.metrics.counter {
    name = "fault_injections_total", help = "Faults made on purpose", labels = { "kind" },
  }
  local faults, fields = {}, {}
  for i, fault in ipairs(given.faults) do
    faults[i] = { given = fault, is_hit = chooser(fault, i), delay_of = delayer(fault.delay), reply = reply_of(fault) }
    if fault.header then fields[fault.header[1]] = true end
  end

  -- What fields ask, which are then gone.
  local function take_fields(req)
    local asked = {}
    for field in pairs(fields) do
      asked[field] = req.headers[field]
      req.headers[field] = nil
    end
    return asked
  end

  -- All that hits this request.
  local function plan(req, asked)
    local delay, abort, throttle = 0, nil, nil
    for _, fault in ipairs(faults) do
      if fault.is_hit(req, asked) then
        if fault.delay_of then delay = delay + fault.delay_of() end
        if fault.reply then abort = abort or fault end
        throttle = math.min(throttle or math.maxinteger, fault.given.throttle or math.maxinteger)
      end
    end
    return delay, abort, throttle ~= math.maxinteger and throttle or nil
  end

  -- Which of these were done, in words.
  local function note(req, done, kind, text)
    counted:add(1, kind)
    done[#done + 1] = text
    req.ctx.faults = done
  end

  local function hold(seconds)
    delayed = delayed + 1
    -- Also when the client leaves.
    local leave <close> = setmetatable({}, { __close = function() delayed = delayed - 1 end })
    gate.sleep(seconds)
    return leave
  end

  -- A function for body:map that lets so many bytes a second through.
  local function drip(rate)
    return function(piece)
      if piece then gate.sleep(#piece / rate) end
      return piece
    end
  end

  return {
    on_request = function(req)
      local asked = take_fields(req)
      if is_on and not is_on(req) then return end
      local delay, abort, throttle = plan(req, asked)
      local done = {}
      if throttle then req.ctx.fault_throttle = throttle end
      if delay > 0 and delayed < max_delayed then
        note(req, done, "delay", ("delay=%.3f"):format(delay))
        hold(delay)
      end
      if not abort then return end
      note(req, done, "abort", "abort=" .. abort.given.abort)
      return abort.reply
    end,

    on_response = function(req, res)
      local rate = req.ctx.fault_throttle
      -- What cannot be changed (a part, an unknown coding) passes as it is.
      if rate and res.source == "backend" and res.body and pcall(res.body.map, res.body, drip(rate)) then
        note(req, req.ctx.faults or {}, "throttle", "throttle=" .. rate)
      end
      if tell and req.ctx.faults then res.headers["X-Fault-Injected"] = table.concat(req.ctx.faults, ", ") end
    end,
  }
end
