-- Answers 503 with a page while a switch is on; operators pass.
--
--     use = { require "scripts.maintenance" {
--       control = { path = "/.maintenance", secret = "something long and random" },
--       ips = { "10.0.0.0/8" }, except = { "/healthz" }, message = "We are moving to a larger house.",
--     } }
--
-- The switch is on when any of these says so:
--
-- - `gate.shared` of `name`, key "state": true, or a table `{ begins =, ends =, message = }` with Unix times, any of
--   which may be absent. All workers see it at once, reloads keep it, a restart forgets it. `control` turns it over
--   HTTP, with `Authorization: Bearer SECRET`:
--       curl -X PUT -H "$AUTH" 'localhost/.maintenance?for=30m&message=Back+soon'    on, here for half an hour
--       curl -X DELETE -H "$AUTH" localhost/.maintenance                            off
--       curl -H "$AUTH" localhost/.maintenance                                      what is said now, as JSON
-- - `file`, beside the config, read when that is loaded (`moongate reload`): the line "on", or "begins TIME", "ends
--   TIME" (RFC 3339), or both; perhaps "message TEXT". Lines that begin with # and an empty file say nothing.
-- - `on`: true, or a function.
--
-- Who passes: addresses in `ips` (as `trusted_proxies` lets them be believed), and who brings `cookie` or `header`,
-- whose values are compared in constant time, and go no further than here. Put this policy first into `use`.
--
-- What is under way when the switch is turned goes on to its end. With `failures` the same page is shown when the
-- application cannot be reached (502, 503, 504 of Moongate's own).
--
-- Costs about 0.2 µs a request while it is off, 0.4 µs more with `ips` and `cookie`.

local gate = require "moongate"
local fields = require "moongate.fields"
local network = require "moongate.network"
local options = require "moongate.options"

---@class maintenance.State
---@field begins? number Unix seconds
---@field ends? number Unix seconds; also what Retry-After is made of
---@field message? string

---@class maintenance.Options
---@field name? string of the dictionary that holds the switch, "maintenance"
---@field control? { path: string, secret: string } turns the switch over HTTP
---@field file? string relative to the config's folder
---@field on? boolean|fun(req: moongate.Request): boolean
---@field ips? table who passes: addresses and prefixes, as gate.cidr takes them
---@field cookie? { name: string, value: string } who brings it passes
---@field header? { name: string, value: string } who brings it passes
---@field except? string[] paths that are not closed, with all below them
---@field message? string on the page; plain text
---@field page? string HTML in the usual page's place
---the whole answer; nil: the usual one
---@field reply? fun(req: moongate.Request, state: maintenance.State): moongate.Reply|integer|nil
---@field status? integer 503
---@field retry_after? moongate.Seconds where no end is known, "2m"
---@field failures? boolean show the page when the application cannot be reached; false

local known = {
  name = "text", control = "table", file = "text", ips = network.is_set, cookie = "table", header = "table",
  except = "paths", message = "string", page = "string", reply = "function", status = "status",
  retry_after = "seconds", failures = "boolean",
  on = function(value)
    if type(value) ~= "boolean" and type(value) ~= "function" then return "true, false or a function" end
  end,
}

local known_proof = { name = "token", value = "secret" }

local function problem_of(given)
  local function nested(option, kinds, needed)
    return given[option] and options.problem(given[option], kinds, needed, option .. ".")
  end
  return options.problem(given, known)
    or nested("control", { path = "path", secret = "secret" }, { "path", "secret" })
    or nested("cookie", known_proof, { "name", "value" })
    or nested("header", known_proof, { "name", "value" })
end

-- What a file says: a state, or nil for nothing. A second value tells what is wrong with it.
local function read_file(path)
  local ok, map = pcall(gate.map, path, { format = "lines" })
  if not ok then return nil, "file: " .. tostring(map):gsub("^.-gate%.map: ", "") end
  local state
  for key, value in pairs(map) do
    state = state or {}
    if key == "begins" or key == "ends" then
      state[key] = gate.time.parse_iso(tostring(value))
      if not state[key] then return nil, ("file: %s: expected a time such as 2026-01-31T22:00:00Z"):format(key) end
    elseif key == "message" then
      state.message = tostring(value)
    elseif key ~= "on" then
      return nil, "file: " .. options.unknown("word", key, { on = 1, begins = 1, ends = 1, message = 1 })
    end
  end
  if state and not (map:get "on" or state.begins or state.ends) then return nil end -- a message alone
  return state
end

local escapes <const> = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local page_text <const> = [[
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Back soon</title>
<style>body { max-width: 30em; margin: 20vh auto; padding: 0 1em; font: 1.1em/1.5 system-ui, sans-serif }</style>
<h1>Back soon</h1>
<p>%s</p>
]]

local function wants_json(req)
  local accept = req.headers["Accept"] or ""
  return accept:find("application/json", 1, true) ~= nil and not accept:find("text/html", 1, true)
end

-- Is it time? Of a state that says nothing of times: always.
local function is_due(state, now)
  return state and (not state.begins or state.begins <= now) and (not state.ends or now < state.ends)
end

-- The switch over HTTP ------------------------------------------------------------------------------------------------

-- What a PUT asks for. Nil and a sentence: it makes no sense.
local function asked_state(req)
  local state, text = { message = req.args.message }, req.args["for"]
  if text then
    local seconds = options.seconds(tonumber(text) or text)
    if not seconds then return nil, 'for: expected a time such as "30m"' end
    state.ends = gate.now() + seconds
  end
  for _, name in ipairs { "begins", "ends" } do
    local time = req.args[name]
    state[name] = time and gate.time.parse_iso(time) or state[name]
    if time and not state[name] then return nil, name .. ": expected a time such as 2026-01-31T22:00:00Z" end
  end
  return state
end

local function tell(state)
  local shown = { on = state ~= nil }
  if type(state) == "table" then
    shown.message, shown.begins = state.message, state.begins and gate.time.iso(state.begins)
    shown.ends = state.ends and gate.time.iso(state.ends)
  end
  local text = gate.json.encode(shown, { sort_keys = true }) or '{"on":true}' -- a message that is no UTF-8
  return gate.reply(200, text .. "\n", { ["Content-Type"] = "application/json", ["Cache-Control"] = "no-store" })
end

local function control(switch, secret)
  local expected = "Bearer " .. secret
  local function turn(req)
    if req.method == "DELETE" then
      switch:remove "state"
    elseif req.method == "PUT" then
      local state, problem = asked_state(req)
      if not state then return gate.reply(400, problem .. "\n") end
      local ok, _, sentence = switch:set("state", next(state) and state or true)
      if not ok then return gate.reply(507, sentence .. "\n") end
    elseif req.method ~= "GET" and req.method ~= "HEAD" then
      return gate.reply(405, "PUT, DELETE or GET\n", { ["Allow"] = "GET, HEAD, PUT, DELETE" })
    end
    if req.method == "PUT" or req.method == "DELETE" then
      gate.log("warn", "maintenance:", req.method == "PUT" and "on" or "off", "by", req.client.ip)
    end
    return tell(switch:get "state")
  end
  return function(req)
    if gate.equal(req.headers["Authorization"], expected) then return turn(req) end
    return gate.reply(401, "no\n", { ["WWW-Authenticate"] = "Bearer", ["Cache-Control"] = "no-store" })
  end
end

-- The policy ----------------------------------------------------------------------------------------------------------

-- A function that tells whether a request may pass, and takes away what proves it.
local function passes_for(given)
  local ips, cookie, header = network.set(given.ips), given.cookie, given.header
  return function(req)
    local passes = ips and ips:has(req.client.ip) or false
    local shown = header and req.headers[header.name]
    if shown then
      passes = gate.equal(shown, header.value) or passes
      req.headers[header.name] = nil
    end
    shown = cookie and req.cookies[cookie.name]
    if shown then
      passes = gate.equal(shown, cookie.value) or passes
      fields.remove_cookie(req, cookie.name)
    end
    return passes
  end
end

---@param given? maintenance.Options
---@return moongate.Policy
return function(given)
  given = given or {}
  options.blame("maintenance", problem_of(given))
  local filed, problem
  if given.file then filed, problem = read_file(given.file) end
  options.blame("maintenance", problem)
  local switch = gate.shared(given.name or "maintenance", { max = "64K" })
  local turn = given.control and control(switch, given.control.secret)
  local may_pass = passes_for(given)
  local retry_after = math.max(1, math.ceil(options.seconds(given.retry_after or 120)))

  -- What is said now, or nil: it is off.
  local function current(req)
    local state, now = switch:get "state", gate.now()
    if state == true then return {} end
    if is_due(state, now) then return state end
    if is_due(filed, now) then return filed end
    local on = given.on
    if type(on) == "function" then on = on(req) end
    return on and {} or nil
  end

  local function usual(req, state)
    local seconds = state.ends and math.max(1, math.ceil(state.ends - gate.now())) or retry_after
    local message = state.message or given.message or "This site is being worked on."
    local status, headers = given.status or 503, { ["Retry-After"] = seconds, ["Cache-Control"] = "no-store" }
    local json = wants_json(req)
      and gate.json.encode({ error = "maintenance", message = message }, { sort_keys = true })
    headers["Content-Type"] = json and "application/json" or "text/html; charset=utf-8"
    local page = given.page or page_text:format((message:gsub('[&<>"]', escapes)))
    return gate.reply(status, json or page, headers)
  end

  local function closed(req, state) return given.reply and given.reply(req, state) or usual(req, state) end

  local policy = {}

  function policy.on_request(req)
    if turn and req.path == given.control.path then return turn(req) end
    if may_pass(req) then return end
    local state = current(req)
    if state and not options.is_below(req.path, given.except) then return closed(req, state) end
  end

  if given.failures then
    function policy.on_error(req, err)
      if err.status >= 502 and err.status <= 504 then return closed(req, {}) end
    end
  end
  return policy
end
