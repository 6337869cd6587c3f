-- gate.jwks: key sets (RFC 7517) for gate.jwt.verify, which change while the proxy runs.
--
-- A set out of a table, a text or a file is parsed once. One behind a URL is kept as text in a shared dictionary, so
-- that a new worker or generation has it at once and a set is fetched once per instance; each worker parses it for
-- itself, when its version has changed. The keeper fetches anew in the background (`refresh`); what fails is logged
-- and tried again sooner, and the keys there are stay good for `stale` seconds.
--
-- Two things happen on the way of a request: the very first fetch, and the one for a kid that is not there, since new
-- keys are often used before they are noticed. Of the latter there is one for each `cooldown`, or strangers could make
-- us fetch at will. Who comes while somebody fetches waits for his result, in whichever worker he is.

local gate = require "moongate"

local shared = gate.shared("moongate.jwks", { max = "8M" })

local known = {
  refresh = "seconds", timeout = "seconds", cooldown = "seconds", stale = "seconds", fetch = "table",
}
local units = { ms = 0.001, s = 1, m = 60, h = 3600 }
local TEXT_MAX <const> = 256 * 1024
local FAILED_FOR <const> = 2 -- seconds in which nobody asks again who did not answer, while there are no keys at all
local NAP_FIRST <const>, NAP_MAX <const> = 0.005, 0.1

---@class moongate.jwks.Settings
---@field refresh number
---@field timeout number
---@field cooldown number
---@field stale number
---@field fetch table

local function read_seconds(value)
  if math.type(value) then return value > 0 and value < math.huge and value or nil end
  if type(value) ~= "string" then return nil end
  local number, unit = value:match "^(%d+%.?%d*)(%a+)$"
  local seconds = number and units[unit] and tonumber(number) * units[unit]
  return seconds and seconds > 0 and seconds or nil
end

-- Settings, or nil and what is wrong with the options.
local function read_options(options, is_url)
  if options ~= nil and type(options) ~= "table" then
    return nil, "expected a table of options, got " .. type(options)
  end
  local settings = { refresh = 600, timeout = 5, cooldown = 30, stale = 86400, fetch = {} }
  for name, value in pairs(options or {}) do
    if not known[name] then return nil, ("unknown option %q"):format(tostring(name)) end
    if not is_url then return nil, name .. ": only what is fetched has options" end
    local read = value
    if known[name] == "seconds" then read = read_seconds(value) elseif type(value) ~= "table" then read = nil end
    if read == nil then return nil, ("%s: expected %s, got %q"):format(name, known[name], tostring(value)) end
    settings[name] = read
  end
  return settings
end

-- Which of the keys have a name, and is there one without?
local function index(list)
  local set = { list = list, named = {}, nameless = false }
  for _, key in ipairs(list) do
    if key.kid then set.named[key.kid] = true else set.nameless = true end
  end
  return set
end

local function has(set, kid) return kid == nil or set.nameless or set.named[kid] ~= nil end

-- Sets that do not change
-- -----------------------------------------------------------------------------------------------

local function fixed(source)
  local from_file = type(source) == "string" and not source:find "^%s*{"
  local ok, list, left, why = pcall(from_file and gate.crypto.keys_file or gate.crypto.keys, source)
  if not ok then return nil, list end
  if not list then return nil, why end
  if #list == 0 then return nil, "there is no key that can be used" .. (left[1] and ": " .. left[1] or "") end
  return {
    find = function() return list end,
    keys = function() return list end,
    refresh = function() return true end,
  }
end

-- Sets behind a URL
-- -----------------------------------------------------------------------------------------------------

---@param settings moongate.jwks.Settings
local function fetched(url, settings)
  local request = { timeout = settings.timeout, max = TEXT_MAX }
  for name, value in pairs(settings.fetch) do request[name] = value end
  local encoded, problem = gate.json.encode({ url, settings.fetch }, { sort_keys = true })
  if not encoded then return nil, "fetch: " .. problem end
  local id = gate.crypto.digest("sha256", encoded, "base64url")
  local text_of, version_of, due_at, locked = "text " .. id, "version " .. id, "due " .. id, "lock " .. id
  local failed, cooling = "failed " .. id, "cooling " .. id
  local mine = { version = nil, dies = 0, set = nil } -- of this worker

  -- The newest keys that anybody has, or nil.
  local function current()
    local version = shared:get(version_of)
    if version == mine.version and gate.clock() < mine.dies then return mine.set end
    local text = shared:get(text_of)
    local list = text and gate.crypto.keys(text)
    if not list then return nil end
    mine.set = version == mine.version and mine.set or index(list)
    mine.version, mine.dies = version, gate.clock() + (shared:ttl(text_of) or 0)
    return mine.set
  end

  -- One fetch, whatever others do; true, or nil, word and sentence.
  local function fetch()
    local res, word, sentence = gate.fetch(url, request)
    if not res then return nil, word, sentence end
    if res.status ~= 200 then return nil, "bad_status", "the answer's status is " .. res.status end
    local list, _, why = gate.crypto.keys(res.body)
    if not list then return nil, "bad_key", why end
    if #list == 0 then return nil, "bad_key", "there is no key that can be used" end
    local changed = shared:get(text_of) ~= res.body
    local stored, full, why_full = shared:set(text_of, res.body, settings.stale)
    if not stored then return nil, full, why_full end
    if changed then shared:incr(version_of, 1) end
    shared:remove(failed)
    return true
  end

  local function fetch_and_note()
    local ok, word, sentence = fetch()
    local pause = ok and settings.refresh or math.min(settings.refresh, math.max(1, settings.refresh / 10))
    shared:set(due_at, gate.clock() + pause)
    if ok then return true end
    shared:set(failed, sentence, FAILED_FOR)
    gate.log("warn", ("gate.jwks: %s: %s (%s)"):format(url, sentence, word))
    return nil, word, sentence
  end

  -- Fetches, or waits for who does: once is enough for all. If he is gone before he had an answer, because his client
  -- left, it is somebody else's turn.
  local function fetch_once()
    local nap, give_up, due = NAP_FIRST, gate.clock() + settings.timeout, shared:get(due_at)
    while gate.clock() < give_up do
      if shared:add(locked, true, settings.timeout + 1) then
        local cleanup <close> = setmetatable({}, { __close = function() shared:remove(locked) end })
        return fetch_and_note()
      end
      repeat
        gate.sleep(nap)
        nap = math.min(nap * 1.5, NAP_MAX)
      until not shared:get(locked) or gate.clock() >= give_up
      if shared:get(due_at) ~= due then return shared:get(failed) == nil end
    end
    return false
  end

  local function no_keys()
    local why = shared:get(failed) or "they were not fetched in time"
    return nil, "no_keys", ("the keys of %s cannot be had: %s"):format(url, why)
  end

  gate.every(math.max(0.01, math.min(1, settings.refresh)), function()
    if gate.clock() >= (shared:get(due_at) or 0) then fetch_once() end
  end)

  return {
    find = function(_, header)
      local set = current()
      if not set then
        if not shared:get(failed) then fetch_once() end
        set = current()
        if not set then return no_keys() end
      elseif not has(set, header.kid) and (shared:get(locked) or shared:add(cooling, true, settings.cooldown)) then
        fetch_once()
        set = current() or set
      end
      return set.list
    end,

    keys = function()
      local set = current()
      if not set and not shared:get(failed) then fetch_once() end
      set = set or current()
      if not set then return no_keys() end
      return set.list
    end,

    refresh = function()
      if fetch_once() then return true end
      return no_keys()
    end,
  }
end

---@param source string|table
---@param options? table
return function(source, options)
  if type(source) ~= "string" and type(source) ~= "table" then
    error("gate.jwks: expected a URL, a file, or a JWK Set as text or table, got " .. type(source), 3)
  end
  local is_url = type(source) == "string" and source:find "^https?://" ~= nil
  local settings, problem = read_options(options, is_url)
  local set
  if settings and is_url then set, problem = fetched(source, settings)
  elseif settings then set, problem = fixed(source) end
  if not set then error("gate.jwks: " .. problem, 3) end
  return set
end
