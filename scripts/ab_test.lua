-- Experiments: each client gets a variant of each, the same one every time, and the application, the answer and the
-- metrics say which.
--
--     use = { require "scripts.ab_test" {
--       experiments = {
--         checkout = { variants = { old = 90, new = 10 } },
--         search = { variants = { a = 1, b = 1 }, share = 20, backends = { b = "search2" }, except = { "/api" } },
--       },
--     } }
--
-- The application reads `X-Experiments: checkout=old, search=b`; the browser gets the same field if `expose` is true. A
-- client's own is removed: nobody can claim a variant. Who takes part in what depends on a hash of experiment and key;
-- experiments are independent of each other, and a new weight moves only as many clients as it must, as long as
-- variants are added at the end of the alphabet.
--
-- `by` tells clients apart: "cookie" (the default) gives each one a random id that stays for `cookie_age`. Answers then
-- depend on it, and say so to caches (Vary). Who has no key ("header:X-User" of somebody who is not logged in) takes
-- part in nothing. The id is not signed: who edits it may get another variant. Testers may ask for one, with the
-- password of `force`:
--
--     force = { header = "X-Force", secret = secret }          X-Force: SECRET checkout=new
--
-- Metrics, on the admin listener: `ab_test_requests_total{experiment, variant, status}` with classes of statuses, and
-- `ab_test_seconds{experiment, variant}`, until the answer's head. They belong to the process; more series than
-- there are variants cannot come about. Later hooks find `req.ctx.experiments.checkout == "new"`, on_log hooks too.
--
-- A variant's backend is answered to pick_backend, by the first experiment (in the alphabet) that names one.
--
-- Costs about 3.3 µs a request with one experiment.

local gate = require "moongate"
local fields = require "moongate.fields"
local options = require "moongate.options"

---@class ab_test.Experiment
---@field variants table<string, number> weights
---@field share? number percent of the clients who take part, 100
---@field paths? string[] it is about, with all below them; default all
---@field except? string[] paths it is not about
---@field when? fun(req: moongate.Request): any more to ask
---@field backends? table<string, string> backends of variants

---@class ab_test.Options
---@field experiments table<string, ab_test.Experiment>
---@field by? string|fun(req: moongate.Request): string? "cookie" (default), "ip", "header:NAME", "cookie:NAME",
---"arg:NAME", "ctx:NAME" or a function that gives a text
---@field cookie? string its name, "visitor"
---@field cookie_age? moongate.Seconds "30d"
---@field header? string field of the request, "X-Experiments"
---@field expose? boolean put the field into answers, too; false
---@field force? { header: string, secret: string }

local known = {
  experiments = "table", cookie = "token", cookie_age = "seconds", header = "token", expose = "boolean",
  by = function(value) if value ~= "cookie" then return options.is_key(value) end end,
  force = "table",
}
local known_experiment = {
  variants = "table", share = "share", paths = "paths", except = "paths", when = "function", backends = "table",
}
local known_force = { header = "token", secret = "secret" }

local NAME <const> = "^[%w_.-]+$"

local function is_name(value) return type(value) == "string" and #value <= 64 and value:find(NAME) ~= nil end

local function problem_of_experiment(name, experiment)
  if not is_name(name) then return "experiments: expected names of letters, digits and -_." end
  local path = ("experiments.%s."):format(name)
  local problem = options.problem(experiment, known_experiment, { "variants" }, path)
  if problem then return problem end
  local sum = 0
  for variant, weight in pairs(experiment.variants) do
    if not is_name(variant) then return path .. "variants: expected names of letters, digits and -_. = weights" end
    if not math.type(weight) or not (weight >= 0 and weight <= 1e6) then
      return ("%svariants.%s: expected a weight, 0 or more"):format(path, variant)
    end
    sum = sum + weight
  end
  if sum == 0 then return path .. "variants: no variant has a weight" end
  for variant, backend in pairs(experiment.backends or {}) do
    if not experiment.variants[variant] then
      return options.unknown("variant", variant, experiment.variants, path .. "backends.")
    end
    if type(backend) ~= "string" then return ("%sbackends.%s: expected a backend's name"):format(path, variant) end
  end
end

local function problem_of(given)
  local problem = options.problem(given, known, { "experiments" })
  if problem then return problem end
  if not next(given.experiments) then return "experiments: there is none" end
  for name, experiment in pairs(given.experiments) do
    problem = problem_of_experiment(name, experiment)
    if problem then return problem end
  end
  return given.force and options.problem(given.force, known_force, { "header", "secret" }, "force.")
end

-- Names of a table, in order: what depends on `pairs` would differ from worker to worker.
local function sorted(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- An experiment as requests need it: variants with the percentile they end at.
local function prepare(name, given)
  local ends, sum, total = {}, 0, 0
  local names = sorted(given.variants)
  for _, variant in ipairs(names) do total = total + given.variants[variant] end
  for i, variant in ipairs(names) do
    sum = sum + given.variants[variant]
    ends[i] = { variant = variant, at = 100 * sum / total }
  end
  return { name = name, ends = ends, given = given, share = given.share or 100 }
end

local function variant_at(experiment, place)
  for _, step in ipairs(experiment.ends) do
    if place < step.at then return step.variant end
  end
  return experiment.ends[#experiment.ends].variant -- sums of fractions
end

local function is_about(experiment, req)
  local given = experiment.given
  if given.paths and not options.is_below(req.path, given.paths) then return false end
  if given.except and options.is_below(req.path, given.except) then return false end
  return not given.when or given.when(req)
end

---@param given ab_test.Options
---@return moongate.Policy
return function(given)
  options.blame("ab_test", problem_of(given))
  local by_cookie = (given.by or "cookie") == "cookie"
  local cookie, field, force = given.cookie or "visitor", given.header or "X-Experiments", given.force
  local set_cookie, problem = fields.cookie_setter(cookie, { max_age = options.seconds(given.cookie_age or "30d") })
  options.blame("ab_test", problem)
  local key_of = not by_cookie and options.key(given.by)
  local vary = by_cookie and "Cookie" or type(given.by) == "string" and given.by:match "^header:(.*)$"
  local place = {} -- of what is left in req.ctx: nobody else's

  local experiments = {}
  for i, name in ipairs(sorted(given.experiments)) do experiments[i] = prepare(name, given.experiments[name]) end

  local counted = gate.metrics.counter {
    name = "ab_test_requests_total", help = "Requests by variant", labels = { "experiment", "variant", "status" },
  }
  local timed = gate.metrics.histogram {
    name = "ab_test_seconds", help = "Seconds until the answer's head, by variant",
    labels = { "experiment", "variant" },
  }

  -- What a tester asks for, by experiment.
  local function forced(req)
    local text = force and req.headers[force.header]
    if not text then return {} end
    req.headers[force.header] = nil
    local secret, rest = text:match "^(%S+)%s+(.*)$"
    if not gate.equal(secret, force.secret) then return {} end
    local wishes = {}
    for name, variant in rest:gmatch "([%w_.-]+)=([%w_.-]+)" do
      local experiment = given.experiments[name]
      if experiment and experiment.variants[variant] then wishes[name] = variant end
    end
    return wishes
  end

  -- The client's key, and whether he has to be told it.
  local function identify(req)
    if not by_cookie then return key_of(req), false end
    local id = req.cookies[cookie]
    if id and #id <= 64 and id:find "^[%w_-]+$" then return id, false end
    return gate.uuid(), true
  end

  local function assign(experiment, key, wish)
    if wish then return wish end
    if not key then return nil end
    if options.percentile(experiment.name .. " share", key) >= experiment.share then return nil end
    return variant_at(experiment, options.percentile(experiment.name, key))
  end

  local function tell_metrics(experiment, variant, res)
    counted:add(1, experiment, variant, res.status // 100 .. "xx")
    if res.time then timed:observe(res.time, experiment, variant) end
  end

  local policy = {}

  function policy.on_request(req)
    req.headers[field] = nil -- a client does not say this
    local wishes, key, is_new = forced(req), nil, nil
    local variants, texts = {}, {}
    for _, experiment in ipairs(experiments) do
      if is_about(experiment, req) then
        if is_new == nil then key, is_new = identify(req) end
        local variant = assign(experiment, key, wishes[experiment.name])
        variants[experiment.name] = variant
        if variant then texts[#texts + 1] = experiment.name .. "=" .. variant end
      end
    end
    req.ctx.experiments = variants
    local text = #texts > 0 and table.concat(texts, ", ") or nil
    -- Nobody is given an id for experiments that are not about what he asks for.
    req.ctx[place] = { about = is_new ~= nil, id = is_new and key, text = text, variants = variants }
    if text then req.headers[field] = text end
  end

  function policy.pick_backend(req)
    local mine = req.ctx[place]
    for _, experiment in ipairs(mine and experiments or {}) do
      local backends = experiment.given.backends
      local backend = backends and backends[mine.variants[experiment.name] or ""]
      if backend then return backend end
    end
  end

  function policy.on_response(req, res)
    local mine = req.ctx[place]
    if not mine or not mine.about then return end
    if vary then fields.add_vary(res.headers, vary) end
    if given.expose and mine.text then res.headers[field] = mine.text end
    if mine.id then set_cookie(req, res, mine.id) end
  end

  function policy.on_log(req, res)
    local mine = req.ctx[place]
    if not mine then return end
    for name, variant in pairs(mine.variants) do tell_metrics(name, variant, res) end
  end

  return policy
end
