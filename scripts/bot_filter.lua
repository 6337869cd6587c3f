-- Tells search engines from those who pretend to be one, keeps out what falls into a trap, and scores the rest.
--
--     use = { require "scripts.bot_filter" {
--       deny = { "AhrefsBot", "masscan" }, traps = { "/wp-login.php", "/.env" }, header = "X-Bot",
--     } }
--
-- What it looks at, in this order:
--
-- 1. Who is banned, for `ban` after falling into a trap, is refused.
-- 2. Words of `deny` in User-Agent: refused. A client writes there what it likes; it keeps out the honest.
-- 3. Who calls itself a search engine is looked up: the name of its address (PTR) must be in a domain of that engine,
--    and that name must have the address. What was found out is kept: "yes" for a day, "no" for an hour. Verified ones
--    pass without further ado; impostors are refused. While names cannot be resolved, or more than `lookups` a second
--    would be asked for, nobody is verified and nobody called an impostor: such a client is scored like any other.
-- 4. Paths of `traps`: whoever asks for them is banned. Name them in robots.txt, so that honest robots stay away. A
--    page of somebody else's can make browsers ask for a trap: what they say comes from there is refused, not banned.
-- 5. A score of what does not fit together, such as a browser that accepts no language: refused from `threshold` on.
--
-- It keeps out what is simple. Who drives a real browser is not found; limit rates besides.
--
-- Addresses are as `trusted_proxies` lets them be believed, and banned by IPv6 /64: a ban may hit all behind one
-- address. `/robots.txt` is for all. Later hooks find `req.ctx.bot` = { name =, score =, refused = }, the application
-- `bot=google` or `score=3` in `header`; a client's own field is removed. Refusals are counted in
-- `bot_filter_refused_total` by reason; with `dry_run` they are only counted.
--
-- Costs about 2 µs a request whose agent was seen lately, 4 µs with traps, and 6 µs more for a new agent.

local gate = require "moongate"
local network = require "moongate.network"
local options = require "moongate.options"

---@class bot_filter.Engine
---@field agents string[] words of its User-Agent
---@field domains string[] where the names of its addresses end

---@class bot_filter.Options
---@field deny? string[] words in User-Agent, of either case
---more search engines, or others than usual by the same name; false: none are looked up
---@field engines? table<string, bot_filter.Engine>|false
---@field impostors? "deny"|"score" what becomes of those who pretend to be one; "deny"
---@field lookups? number engines that are looked up in a second, 20
---@field traps? string[] paths, with all below them
---@field ban? moongate.Seconds "1h"
---@field threshold? number|false the score to be refused from, 5; false: it is only told
---@field weights? table<string, number> see `usual_weights`
---@field score? fun(req: moongate.Request): number? more to be added to the score
---@field header? string field of the request that tells the application
---@field exempt? table addresses and prefixes that pass, as gate.cidr takes them
---@field except? string[] paths that are not looked at, with all below them
---@field dry_run? boolean
---@field status? integer of refusals, 403
---@field body? string of refusals
---@field name? string of the dictionaries and the limit, "bot_filter"
---@field max? moongate.Bytes of each of the two dictionaries, "4M"; the oldest entries make room

local usual_engines <const> = {
  google = {
    agents = { "Googlebot", "AdsBot-Google", "Mediapartners-Google", "Google-InspectionTool", "Storebot-Google",
      "GoogleOther" },
    domains = { "googlebot.com", "google.com" },
  },
  bing = { agents = { "bingbot", "adidxbot", "BingPreview" }, domains = { "search.msn.com" } },
  apple = { agents = { "Applebot" }, domains = { "applebot.apple.com" } },
  yandex = {
    agents = { "YandexBot", "YandexImages", "YandexMobileBot", "YandexRenderResourcesBot" },
    domains = { "yandex.ru", "yandex.net", "yandex.com" },
  },
  baidu = { agents = { "Baiduspider" }, domains = { "crawl.baidu.com", "crawl.baidu.jp" } },
  yahoo = { agents = { "Yahoo! Slurp" }, domains = { "crawl.yahoo.net" } },
  seznam = { agents = { "SeznamBot" }, domains = { "seznam.cz" } },
  petal = { agents = { "PetalBot" }, domains = { "petalsearch.com" } },
}

local usual_weights <const> = {
  no_agent = 3, -- no User-Agent
  tool = 3, -- it names a program or a library
  robot = 2, -- it calls itself a robot, and is not verified
  no_accept = 1, -- no Accept
  no_language = 2, -- a browser without Accept-Language
  no_encoding = 2, -- a browser without Accept-Encoding
  old_protocol = 2, -- a browser that speaks HTTP/1.0
  no_fetch_site = 2, -- Chrome or Firefox by https without Sec-Fetch-Site
  impostor = 5, -- with impostors = "score"
}

local DAY <const>, HOUR <const>, MINUTE <const> = 86400, 3600, 60

-- Options -------------------------------------------------------------------------------------------------------------

local known = {
  deny = "texts", impostors = "text", lookups = "number", traps = "paths", ban = "seconds", weights = "table",
  score = "function", header = "token", exempt = network.is_set, except = "paths", dry_run = "boolean",
  status = "status", body = "string", name = "text", max = "any",
  engines = function(value)
    if value ~= false and type(value) ~= "table" then return "a table of engines, or false" end
  end,
  threshold = function(value)
    if value ~= false and not (math.type(value) and value > 0) then return "a number of more than 0, or false" end
  end,
}

local function check_engines(engines)
  for name, engine in pairs(engines or {}) do
    if type(name) ~= "string" or not name:find "^[%l%d_-]+$" then return "engines: expected names of small letters" end
    local path = "engines." .. name .. "."
    local problem = options.problem(engine, { agents = "texts", domains = "texts" }, { "agents", "domains" }, path)
    if problem then return problem end
    if not engine.agents[1] then return path .. "agents: is empty" end
    for i, domain in ipairs(engine.domains) do
      if not domain:find "^[%l%d-]+%.[%l%d.-]+$" then
        return ("%sdomains[%d]: expected a domain such as %q, got %q"):format(path, i, "crawl.example.com", domain)
      end
    end
  end
end

local function check_weights(weights)
  for name, weight in pairs(weights or {}) do
    if not usual_weights[name] then return "weights: " .. options.unknown("weight", name, usual_weights) end
    if not math.type(weight) or weight ~= weight then return ("weights.%s: expected a number"):format(name) end
  end
end

local function problem_of(given)
  local problem = options.problem(given, known)
  if problem then return problem end
  local impostors = given.impostors or "deny"
  if impostors ~= "deny" and impostors ~= "score" then return 'impostors: expected "deny" or "score"' end
  return check_engines(given.engines) or check_weights(given.weights)
end

-- Words as one expression, whatever their case; nil for none.
local function words(list)
  local escaped = {}
  for i, word in ipairs(list) do escaped[i] = word:gsub("[^%w]", "\\%0") end
  return #escaped > 0 and gate.re("(" .. table.concat(escaped, "|") .. ")", "i") or nil
end

-- Search engines ------------------------------------------------------------------------------------------------------

local function is_in(name, domains)
  name = name:lower():gsub("%.$", "")
  for _, domain in ipairs(domains) do
    if name:sub(-#domain - 1) == "." .. domain then return true end
  end
  return false
end

-- Has the name this address? Nil: it cannot be told.
local function has_address(name, ip)
  local list, word = gate.dns.resolve(name, ip:find(":", 1, true) and "AAAA" or "A")
  if not list then return word == "name_not_found" and false or nil end
  for _, address in ipairs(list) do
    if address == ip then return true end
  end
  return false
end

-- "yes", "no" or "unknown". At most two names of an address are followed: a stranger writes them.
local function look_up(ip, domains)
  if ip == "unix:" then return "unknown" end
  local names, word = gate.dns.resolve(ip, "PTR")
  if not names then return word == "name_not_found" and "no" or "unknown" end
  local verdict, followed = "no", 0
  for _, name in ipairs(names) do
    if followed < 2 and is_in(name, domains) then
      followed = followed + 1
      local has = has_address(name, ip)
      if has then return "yes" end
      if has == nil then verdict = "unknown" end
    end
  end
  return verdict
end

local seconds_kept <const> = { yes = DAY, no = HOUR, unknown = MINUTE }

-- Engines by their words in small letters, and the expression of these words; nil: none are looked up.
local function engines_of(given)
  if given.engines == false then return {}, nil end
  local by_word, list = {}, {}
  for _, engines in ipairs { usual_engines, given.engines or {} } do
    for name, engine in pairs(engines) do
      for _, word in ipairs(engine.agents) do
        by_word[word:lower()] = { name = name, domains = engine.domains }
      end
    end
  end
  for word in pairs(by_word) do list[#list + 1] = word end
  table.sort(list, function(a, b) return #a > #b or #a == #b and a < b end) -- the longest first
  return by_word, words(list)
end

-- A function that tells of an engine and an address whether they belong together: "yes", "no", "unknown".
local function verifier(given)
  local name = given.name or "bot_filter"
  local kept = gate.shared(name .. "/engines", { max = given.max or "4M", evict = "lru" })
  local lookups = gate.limit { name = name .. "/lookups", rate = given.lookups or 20, max = "64K" }
  return function(engine, ip)
    local key = engine.name .. " " .. ip
    local verdict = kept:get(key)
    if verdict then return verdict end
    if not lookups:take "all" then return "unknown" end
    verdict = look_up(ip, engine.domains)
    kept:set(key, verdict, seconds_kept[verdict])
    return verdict
  end
end

-- What an agent says --------------------------------------------------------------------------------------------------

local tool = gate.re([[curl|wget|python|libwww|perl|ruby|java/|okhttp|go-http|httpclient|axios|node-fetch|undici|scrapy|
  phantomjs|headless|selenium|puppeteer|playwright|nikto|sqlmap|masscan|zgrab|nmap]], "ix")
local robot = gate.re("bot\\b|bot/|crawl|spider|scrape", "i")
local browser = gate.re "^Mozilla/5\\.0 .*(?:Chrome|Firefox|Safari)/\\d"
local modern = gate.re "(?:Chrome|Firefox)/(?:9\\d|[1-9]\\d\\d)"

local AGENTS_MOST <const>, AGENT_MOST <const> = 256, 512

---@class bot_filter.Agent
---@field denied boolean
---@field engine? table what it calls itself
---@field kind "none"|"robot"|"tool"|"browser"|"other"
---@field modern boolean

local function kind_of(agent)
  if agent == "" then return "none" end
  return robot:test(agent) and "robot" or tool:test(agent) and "tool" or browser:test(agent) and "browser" or "other"
end

-- A function that reads agents. Most requests have one of a few hundred: those seen lately are remembered, in two
-- halves of which the older one is dropped when the newer one is full.
local function reader(given)
  local denied, by_word, engine_words = words(given.deny or {}), engines_of(given)
  local recent, former, count = {}, {}, 0

  local function read(agent)
    local word = engine_words and engine_words:match(agent)
    return {
      denied = denied ~= nil and denied:test(agent), engine = word and by_word[word:lower()],
      kind = kind_of(agent), modern = modern:test(agent),
    }
  end

  return function(agent)
    local facts = recent[agent]
    if facts then return facts end
    facts = former[agent] or read(agent)
    if #agent > AGENT_MOST then return facts end
    if count == AGENTS_MOST then recent, former, count = {}, recent, 0 end
    recent[agent], count = facts, count + 1
    return facts
  end
end

-- The score -----------------------------------------------------------------------------------------------------------

local function score_browser(req, agent, weights)
  local headers, score = req.headers, 0
  if not headers["Accept-Language"] then score = score + weights.no_language end
  if not headers["Accept-Encoding"] then score = score + weights.no_encoding end
  if req.version == "1.0" then score = score + weights.old_protocol end
  if agent.modern and req.scheme == "https" and not headers["Sec-Fetch-Site"] then
    score = score + weights.no_fetch_site
  end
  return score
end

local weight_of <const> = { none = "no_agent", robot = "robot", tool = "tool" }

local function score_of(req, agent, weights)
  local score = req.headers["Accept"] and 0 or weights.no_accept
  if agent.kind == "browser" then return score + score_browser(req, agent, weights) end
  return score + (weights[weight_of[agent.kind]] or 0)
end

-- The policy ----------------------------------------------------------------------------------------------------------

---@param given? bot_filter.Options
---@return moongate.Policy
return function(given)
  given = given or {}
  options.blame("bot_filter", problem_of(given))
  local name, threshold = given.name or "bot_filter", given.threshold == nil and 5 or given.threshold
  local read, verify, exempt = reader(given), verifier(given), network.set(given.exempt)
  local bans = given.traps and gate.shared(name .. "/bans", { max = given.max or "4M", evict = "lru" })
  local ban = options.seconds(given.ban or HOUR)
  local weights = {}
  for what, weight in pairs(usual_weights) do weights[what] = given.weights and given.weights[what] or weight end
  local counter = gate.metrics.counter {
    name = "bot_filter_refused_total", help = "Requests that bot_filter refused", labels = { "reason" },
  }
  local refusal = gate.reply(given.status or 403, given.body or "not for robots\n", { ["Cache-Control"] = "no-store" })

  local function refuse(req, reason)
    counter:add(1, reason)
    req.ctx.bot.refused = reason
    if not given.dry_run then return refusal end
  end

  local header = given.header
  local function tell(req, value)
    if header then req.headers[header] = value end
  end

  -- Nobody but the client itself is banned for where it goes: not a browser that another site sends there.
  local function trap(req, key)
    if req.headers["Sec-Fetch-Site"] ~= "cross-site" and not given.dry_run then
      local ok, word = bans:set(key, true, ban)
      gate.log(ok and "info" or "warn", "bot_filter: banned", req.client.ip, "for", req.path, word or "")
    end
    return refuse(req, "trap")
  end

  local function judge(req, agent, verdict)
    local score = score_of(req, agent, weights) + (verdict == "no" and weights.impostor or 0)
    if given.score then score = score + (given.score(req) or 0) end
    req.ctx.bot.score = score
    tell(req, ("score=%g"):format(score))
    if threshold and score >= threshold then return refuse(req, "score") end
  end

  return {
    on_request = function(req)
      if header and req.headers[header] then tell(req, nil) end -- a client does not say this
      local ip, path = req.client.ip, req.path
      if path == "/robots.txt" or options.is_below(path, given.except) or exempt and exempt:has(ip) then return end
      local agent, key = read(req.headers["User-Agent"] or ""), bans and network.of(ip, 64)
      req.ctx.bot = {}
      if bans and bans:get(key) then return refuse(req, "banned") end
      if agent.denied then return refuse(req, "denied") end
      local verdict = agent.engine and verify(agent.engine, ip)
      if verdict == "yes" then
        req.ctx.bot.name = agent.engine.name
        return tell(req, "bot=" .. agent.engine.name)
      end
      if verdict == "no" and given.impostors ~= "score" then return refuse(req, "impostor") end
      if bans and options.is_below(path, given.traps) then return trap(req, key) end
      return judge(req, agent, verdict)
    end,
  }
end
