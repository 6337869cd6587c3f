-- Sends copies of requests to another backend, whose answers nobody waits for: to try a new version on real traffic.
--
--     use = { require "scripts.mirror" { backend = "next", share = 10, remove = { "Cookie", "Authorization" } } }
--
-- A copy is made when the answer is over, of the request as it was forwarded: what other policies took away or added is
-- so in the copy, too. It cannot slow its original: it begins after it, in a task of its own; at most `max` are under
-- way in each worker, and what would be more is left out and counted. What fails is counted and otherwise nobody's
-- concern. An upgrade (WebSocket) has no copy, and neither has a request whose client left before the answer was over.
--
-- By default only GET and HEAD are copied, without the bodies that such requests do not have. A method that changes
-- something changes it twice, unless the copy goes to something that has its own data: name it in `methods`. A body is
-- copied if its length is said and at most `max_body`; it is then read whole before its request is forwarded, which
-- costs a slow client's server nothing but that it hears of the request when it is complete. Other requests with
-- bodies are left out ("body"): an endless stream would be an original that waits. Those that ask before they send
-- (Expect) are, too. A compressed body is copied plain.
--
-- The copy carries `X-Mirror: 1`, so that its application can keep from sending mail, and the request's id.
--
-- Metrics, on the admin listener:
--
--     mirror_requests_total{name, outcome}     same, different: the two statuses; failed: the copy got no answer;
--                                              busy, body: left out
--     mirror_statuses_total{name, original, mirror}     classes of statuses where they differ
--     mirror_seconds{name, side}               until the answer's head (original) or end (mirror)
--
-- `on_difference` gets both for a closer look; it runs in the copy's task, and may wait.
--
-- Costs about 0.4 µs a request that is not copied, and one that is as much as a gate.fetch.

local gate = require "moongate"
local options = require "moongate.options"

---@class mirror.Options
---@field backend? string of the site
---@field url? string in its place: where the copies go, "http://host:port", before the request's path
---@field share? number percent of the requests, 100
---what the share is of: all requests of so many users, rather than so many of all requests: "ip", "header:NAME",
---"cookie:NAME", "arg:NAME", "ctx:NAME" or a function
---@field by? string|fun(req: moongate.Request): string?
---@field methods? string[] default GET and HEAD
---@field paths? string[] only these, with all below them
---@field except? string[] not these
---@field when? fun(req: moongate.Request): any more to ask
---@field max? integer copies under way in each worker, 32
---@field max_body? integer bytes of a body that is copied, 65536; 0: none
---@field timeout? moongate.Seconds for a copy, 10
---@field host? string the copy's Host; default as it came
---@field remove? string[] fields that are not copied: other people's passwords are no test data
---@field headers? table<string, string> fields that are added
---@field header? string field that marks copies, "X-Mirror"
---@field on_difference? fun(original: mirror.Side, mirror: mirror.Side)
---@field name? string in the metrics, default the backend or URL

---@class mirror.Side
---@field status integer
---@field method string
---@field target string path and query
---@field id string of the request
---@field time number? seconds
---@field body string? the copy's answer

local known = {
  backend = "name", share = "share", by = options.is_key, methods = "tokens", paths = "paths", except = "paths",
  when = "function", max = "count", timeout = "seconds", host = "text", remove = "tokens", headers = "table",
  header = "token", on_difference = "function", name = "text",
  max_body = function(value)
    if math.type(value) ~= "integer" or value < 0 or value > 8 << 20 then return "bytes, 0 to 8388608" end
  end,
  url = function(value)
    if type(value) ~= "string" or not value:find "^https?://[^/?#]+$" then return "one such as http://host:8080" end
  end,
}

local ANSWER_MAX <const> = 8 << 20

local function problem_of(given)
  local problem = options.problem(given, known)
  if problem then return problem end
  if (given.backend == nil) == (given.url == nil) then return "expected either backend or url" end
  for name, value in pairs(given.headers or {}) do
    if type(name) ~= "string" or type(value) ~= "string" then return "headers: expected fields = texts" end
  end
end

-- Fields of one connection, those that the fetch makes, and those that would make the copy another request.
local dropped <const> = {
  "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE", "Trailer", "Transfer-Encoding",
  "Upgrade", "Content-Length", "Expect",
}

local function set_of(list, more)
  local set = {}
  for _, name in ipairs(list) do set[name:lower()] = true end
  for _, name in ipairs(more or {}) do set[name:lower()] = true end
  return set
end

local function class_of(status) return status // 100 .. "xx" end

---@param given mirror.Options
---@return moongate.Policy
return function(given)
  options.blame("mirror", problem_of(given))
  local target, name = given.backend or given.url, given.name or given.backend or given.url
  local share, max, max_body = given.share or 100, given.max or 32, given.max_body or 65536
  local timeout = options.seconds(given.timeout or 10)
  local key_of = given.by and options.key(given.by)
  local methods, drop = {}, set_of(dropped, given.remove)
  for _, method in ipairs(given.methods or { "GET", "HEAD" }) do methods[method] = true end
  local place = {} -- of what is left in req.ctx: nobody else's
  local under_way = 0 -- in this worker

  local outcomes = gate.metrics.counter {
    name = "mirror_requests_total", help = "Requests that were to be copied, by outcome",
    labels = { "name", "outcome" },
  }
  local statuses = gate.metrics.counter {
    name = "mirror_statuses_total", help = "Copies answered otherwise than their originals, by classes of statuses",
    labels = { "name", "original", "mirror" },
  }
  local seconds = gate.metrics.histogram {
    name = "mirror_seconds", help = "Time of copies and their originals", labels = { "name", "side" },
  }

  local function is_chosen(req)
    if not methods[req.method] then return false end
    if given.paths and not options.is_below(req.path, given.paths) then return false end
    if given.except and options.is_below(req.path, given.except) then return false end
    if share < 100 then
      local key = key_of and key_of(req) or not key_of and req.id
      if not key or options.percentile("mirror " .. name, key) >= share then return false end
    end
    return not given.when or given.when(req)
  end

  -- The body for the copy: "" if there is none; nil if there is one that is not copied.
  local function read_body(req)
    if not req.body then return "" end
    local length = tonumber(req.headers["Content-Length"])
    if not length or length > max_body or req.headers["Expect"] then return nil end
    -- Decoded it may be longer. What cannot be read is told to the client by who forwards it.
    return (req.body:text(max_body))
  end

  local function headers_of(req, had_body)
    local headers = {}
    for field, value in pairs(req.headers) do
      local key = field:lower()
      if not drop[key] and not (had_body and key == "content-encoding") then
        local list = headers[field]
        if list then list[#list + 1] = value else headers[field] = { value } end
      end
    end
    if given.host then headers["Host"] = given.host end
    for field, value in pairs(given.headers or {}) do headers[field] = value end
    headers[given.header or "X-Mirror"] = "1"
    headers["X-Request-Id"] = headers["X-Request-Id"] or req.id
    return headers
  end

  local function compare(original, res)
    seconds:observe(res.time, name, "mirror")
    if original.time then seconds:observe(original.time, name, "original") end
    if res.status == original.status then return outcomes:add(1, name, "same") end
    outcomes:add(1, name, "different")
    statuses:add(1, name, class_of(original.status), class_of(res.status))
    if given.on_difference then
      given.on_difference(original, {
        status = res.status, method = original.method, target = original.target, id = original.id, time = res.time,
        body = res.body,
      })
    end
  end

  local function send(original, body, headers)
    -- Also when the task is closed with its generation.
    local leave <close> = setmetatable({}, { __close = function() under_way = under_way - 1 end })
    local fetched = { method = original.method, headers = headers, timeout = timeout, max = ANSWER_MAX }
    if body ~= "" then fetched.body = body end
    local where = target
    if given.url then where = target .. original.target else fetched.path = original.target end
    local res = gate.fetch(where, fetched)
    if not res then return outcomes:add(1, name, "failed") end
    compare(original, res)
    return leave
  end

  return {
    on_request = function(req)
      if not is_chosen(req) or req.headers["Upgrade"] then return end
      local body = read_body(req)
      if not body then return outcomes:add(1, name, "body") end
      req.ctx[place] = body
    end,

    on_log = function(req, res)
      local body = req.ctx[place]
      if not body or res.status == 499 then return end
      if under_way >= max then return outcomes:add(1, name, "busy") end
      local original = {
        status = res.status, method = req.method, id = req.id, time = res.time,
        target = req.path .. (req.query and "?" .. req.query or ""),
      }
      local headers = headers_of(req, body ~= "")
      under_way = under_way + 1
      if gate.spawn(send, original, body, headers) == nil then
        under_way = under_way - 1
        outcomes:add(1, name, "busy")
      end
    end,
  }
end
