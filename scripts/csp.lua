-- Sends a Content-Security-Policy (CSP Level 3) with a nonce of its own for every page, and takes the reports.
--
--     use = { require "scripts.csp" {
--       policy = "default-src 'self'; script-src 'nonce' 'strict-dynamic'; object-src 'none'; base-uri 'none'",
--       placeholder = "nonce-5b0c9f6e1d", report = "/.csp-report",
--     } }
--
-- Where 'nonce' stands among the sources, each page gets 'nonce-…' with 128 random bits. The page learns it in one of
-- two ways, or both:
--
-- - `placeholder`: the application writes `<script nonce="nonce-5b0c9f6e1d">`, and whatever stands there is replaced on
--   the way, also in pages out of the cache. Choose a text that only templates know: who can put markup into a page and
--   knows it can have scripts run. Such pages are marked private and not to be kept, since a nonce is for one answer.
-- - `header`: the application finds the nonce in a field of the request and writes it itself. Its pages must not be
--   cached then: a page out of a cache has the nonce of another answer, and its scripts do not run.
--
-- Nothing adds a nonce to every <script> by itself: that would vouch for what an attacker put there, too.
--
-- The policy is sent with documents (HTML, XHTML, XML, SVG, and what has no type), not with a 304, which would change
-- that of the page the browser has. An application's own policy is kept, unless `existing` says "replace", or "add":
-- both hold then. `report_only` is a policy that is only watched, beside `policy` or alone.
--
-- `report` is the path for the browsers' reports, both old (report-uri) and new (report-to) ones. They come from
-- strangers: at most 16 KiB each, 20 a minute from an address and 600 of all, without the queries of addresses. Each is
-- a line in the error log, or a call of `on_report`, and counted in `csp_reports_total` by directive. Put this policy
-- before those that ask who somebody is: browsers send reports without cookies.
--
-- Costs about 1 µs a request, with a nonce by `header` 2.5 µs, by `placeholder` 7 µs and the search through the page.

local gate = require "moongate"
local network = require "moongate.network"
local options = require "moongate.options"
local rewrite = require "moongate.rewrite"

---@alias csp.Directives string|table<string, string|string[]|true> "default-src 'self'; …", or sources by directive

---@class csp.Report
---@field directive string the directive that was violated, such as "script-src-elem"
---@field blocked string address or keyword of what was blocked, without its query
---@field document string address of the page, without its query
---@field source? string address of the script, without its query
---@field line? integer
---@field sample? string
---@field disposition? string "enforce" or "report"

---@class csp.Options
---@field policy? csp.Directives
---@field report_only? csp.Directives
---@field placeholder? string what pages have in the nonce's place; at least 8 letters, digits and "-_"
---@field header? string field of the request that tells the application the nonce
---@field report? string path that takes reports
---@field on_report? fun(report: csp.Report, req: moongate.Request) in the log's place
---@field existing? "keep"|"replace"|"add" where the application sends a policy itself; "keep"
---@field except? string[] paths without a policy, with all below them
---@field name? string of the limit for reports, "csp"

local ENFORCED <const>, WATCHED <const> = "Content-Security-Policy", "Content-Security-Policy-Report-Only"
local REPORT_MAX <const>, TEXT_MAX <const> = 16384, 256

-- Policies ------------------------------------------------------------------------------------------------------------

local directives = {}
for name in ([[default-src script-src script-src-elem script-src-attr style-src style-src-elem style-src-attr img-src
  connect-src font-src frame-src child-src worker-src manifest-src media-src object-src prefetch-src fenced-frame-src
  base-uri form-action frame-ancestors navigate-to sandbox upgrade-insecure-requests block-all-mixed-content
  require-trusted-types-for trusted-types report-uri report-to plugin-types]]):gmatch "%S+" do
  directives[name] = true
end

local keywords = {}
for name in ([[self none nonce unsafe-inline unsafe-eval unsafe-hashes strict-dynamic report-sample wasm-unsafe-eval
  inline-speculation-rules script allow-duplicates]]):gmatch "%S+" do
  keywords[name] = true
end

-- Directives by name, each a list of sources. Nil and a sentence: it makes no sense.
local function split_text(text)
  local parsed = {}
  for part in text:gmatch "[^;]+" do
    local name, sources = part:match "^%s*(%S+)%s*(.-)%s*$"
    if name and parsed[name] then return nil, name .. ": stands there twice" end
    if name then parsed[name] = sources end
  end
  return parsed
end

local function split_sources(value)
  if value == true then return {} end
  if type(value) == "table" then return value end
  local list = {}
  for source in tostring(value):gmatch "%S+" do list[#list + 1] = source end
  return list
end

-- Is what stands in quotes something the standard has?
local function is_quoted(text) return keywords[text] or text:find "^nonce%-" or text:find "^sha%d+%-" end

local function check_sources(sources)
  for _, source in ipairs(sources) do
    if type(source) ~= "string" or not source:find "^[!-~]+$" or source:find "[,;]" then
      return ("expected a source, got %q"):format(tostring(source))
    end
    if keywords[source] then return ("%s stands in quotes: \"'%s'\""):format(source, source) end
    local quoted = source:match "^'(.*)'$"
    if source:find("'", 1, true) and not (quoted and is_quoted(quoted)) then
      return options.unknown("keyword", quoted or source, keywords)
    end
    if quoted == "none" and #sources > 1 then return "'none' stands alone" end
  end
end

local function read_directives(value)
  if type(value) ~= "string" and type(value) ~= "table" then return nil, "expected a table of directives, or a text" end
  local given, problem = value, nil
  if type(value) == "string" then given, problem = split_text(value) end
  if not given then return nil, problem end
  local parsed = {}
  for name, sources in pairs(given) do
    if not directives[name] then return nil, options.unknown("directive", name, directives) end
    parsed[name] = split_sources(sources)
    problem = check_sources(parsed[name])
    if problem then return nil, name .. ": " .. problem end
  end
  if not next(parsed) then return nil, "is empty" end
  return parsed
end

-- The text of a policy, default-src first; without nonces, where there is none to be had.
local function write_directives(parsed, with_nonce)
  local names, parts = {}, {}
  for name in pairs(parsed) do names[#names + 1] = name end
  table.sort(names, function(a, b)
    if (a == "default-src") ~= (b == "default-src") then return a == "default-src" end
    return a < b
  end)
  for i, name in ipairs(names) do
    local sources = {}
    for _, source in ipairs(parsed[name]) do
      if with_nonce or source ~= "'nonce'" then sources[#sources + 1] = source end
    end
    if #sources == 0 and #parsed[name] > 0 then sources[1] = "'none'" end
    parts[i] = name .. (#sources > 0 and " " .. table.concat(sources, " ") or "")
  end
  return table.concat(parts, "; ")
end

-- A policy as it is sent: a function from a nonce, or nil, to its text.
local function compile(parsed, report)
  if report and not parsed["report-uri"] then parsed["report-uri"] = { report } end
  if report and not parsed["report-to"] then parsed["report-to"] = { "csp" } end
  local with, without = write_directives(parsed, true), write_directives(parsed, false)
  return function(nonce)
    if not nonce then return without end
    return (with:gsub("'nonce'", "'nonce-" .. nonce .. "'"))
  end, with ~= without
end

-- Reports -------------------------------------------------------------------------------------------------------------

local function text(value)
  if type(value) ~= "string" then return nil end
  return (value:sub(1, TEXT_MAX):gsub("%c", "?")) -- so that nobody forges lines of a log
end

-- An address without query and fragment, which are nobody's business.
local function address(value) return text(type(value) == "string" and value:match "^[^?#]*") end

local function read_report(body)
  return {
    directive = text(body["effective-directive"] or body.effectiveDirective or body["violated-directive"]) or "unknown",
    blocked = address(body["blocked-uri"] or body.blockedURL) or "unknown",
    document = address(body["document-uri"] or body.documentURL) or "unknown",
    source = address(body["source-file"] or body.sourceFile),
    line = math.tointeger(body["line-number"] or body.lineNumber),
    sample = text(body["script-sample"] or body.sample), disposition = text(body.disposition),
  }
end

-- What a browser sent: { "csp-report": {} }, or a list of { type, body }.
local function read_reports(value)
  local list = {}
  if type(value) ~= "table" then return list end
  if type(value["csp-report"]) == "table" then return { read_report(value["csp-report"]) } end
  for i = 1, math.min(#value, 20) do
    local entry = value[i]
    local is_csp = type(entry) == "table" and entry.type == "csp-violation" and type(entry.body) == "table"
    if is_csp then list[#list + 1] = read_report(entry.body) end
  end
  return list
end

local function log_report(report, req)
  gate.log("warn", ("csp: %s blocked %s on %s%s, seen by %s"):format(report.directive, report.blocked, report.document,
    report.source and (" from %s:%s"):format(report.source, report.line or 0) or "", req.client.ip))
end

-- A hook for the path of reports.
local function receiver(given)
  local name = given.name or "csp"
  local each = gate.limit { name = name .. "/address", rate = 20, per = "1m", max = "1M", on_full = "deny" }
  local all = gate.limit { name = name .. "/all", rate = 600, per = "1m", max = "64K" }
  local counter = gate.metrics.counter {
    name = "csp_reports_total", help = "Reports of violated content security policies", labels = { "directive" },
  }
  return function(req)
    if req.method ~= "POST" then return gate.reply(405, nil, { ["Allow"] = "POST" }) end
    if not each:take(network.of(req.client.ip, 64)) or not all:take "all" then return 429 end
    if not req.body then return 400 end
    local body, word = req.body:text(REPORT_MAX)
    if not body then return word == "too_large" and 413 or 400 end
    local list = read_reports((gate.json.decode(body, { max_depth = 16 })))
    if #list == 0 then return 400 end
    for _, report in ipairs(list) do
      counter:add(1, directives[report.directive] and report.directive or "other")
      local tell = given.on_report or log_report
      tell(report, req)
    end
    return 204
  end
end

-- The policy ----------------------------------------------------------------------------------------------------------

local known = {
  policy = "any", report_only = "any", header = "token", report = "path", on_report = "function", except = "paths",
  name = "text",
  placeholder = function(value)
    if type(value) ~= "string" or not value:find "^[%w_-]+$" or #value < 8 or #value > 128 then
      return 'a text of 8 to 128 letters, digits and "-_"'
    end
  end,
  existing = function(value)
    if value ~= "keep" and value ~= "replace" and value ~= "add" then return '"keep", "replace" or "add"' end
  end,
}

local function problem_of(given)
  local problem = options.problem(given, known)
  if problem then return problem end
  if not given.policy and not given.report_only then return "expected policy, report_only or both" end
  if given.on_report and not given.report then return "on_report: there is no report" end
end

-- The fields to send: functions by name. Nil and a sentence: one of them makes no sense.
local function compile_all(given)
  local sent, uses_nonce = {}, false
  for option, field in pairs { policy = ENFORCED, report_only = WATCHED } do
    if given[option] then
      local parsed, problem = read_directives(given[option])
      if not parsed then return nil, ("%s: %s"):format(option, problem) end
      local has_nonce
      sent[field], has_nonce = compile(parsed, given.report)
      uses_nonce = uses_nonce or has_nonce
    end
  end
  local can_tell = given.placeholder or given.header
  if uses_nonce and not can_tell then return nil, "'nonce': say by placeholder or header how pages learn it" end
  if can_tell and not uses_nonce then return nil, "placeholder or header: 'nonce' stands in no directive" end
  return sent
end

local is_html = rewrite.types { "text/html", "application/xhtml+xml" }
local is_document = rewrite.types {
  "text/html", "application/xhtml+xml", "image/svg+xml", "application/xml", "text/xml",
}

-- The nonce of an answer: nil where none is to be had. A part of a page keeps its placeholder, and no script runs.
local function settle_nonce(given, req, res)
  local nonce = req.ctx.csp_nonce
  if not is_html(rewrite.type_of(res.headers)) or res.status == 206 then return nil end
  if not given.placeholder then return nonce end
  nonce = nonce or gate.crypto.random(16, "base64")
  if res.body then res.body:replace(given.placeholder, nonce) end
  local control = res.headers["Cache-Control"]
  res.headers["Last-Modified"] = nil -- nor can the page be asked for again with a condition
  if not (control and control:lower():find("no-store", 1, true)) then
    res.headers["Cache-Control"] = "private, no-cache"
  end
  return nonce
end

---@param given csp.Options
---@return moongate.Policy
return function(given)
  options.blame("csp", problem_of(given))
  local sent, problem = compile_all(given)
  options.blame("csp", problem)
  local receive = given.report and receiver(given)
  local endpoints = given.report and ('csp="%s"'):format(given.report)

  local function send(headers, field, value)
    if given.existing == "add" then headers:add(field, value)
    elseif given.existing == "replace" or not headers[field] then headers[field] = value end
  end

  local policy = {}

  function policy.on_request(req)
    if receive and req.path == given.report then return receive(req) end
    if given.header then
      req.ctx.csp_nonce = gate.crypto.random(16, "base64")
      req.headers[given.header] = req.ctx.csp_nonce
    end
    local accept = given.placeholder and req.headers["Accept"]
    if accept and accept:find("text/html", 1, true) then rewrite.prepare(req) end
  end

  function policy.on_response(req, res)
    local kind = rewrite.type_of(res.headers)
    if res.status == 304 or kind and not is_document(kind) then return end
    if given.except and options.is_below(req.path, given.except) then return end
    local nonce = settle_nonce(given, req, res)
    for field, write in pairs(sent) do send(res.headers, field, write(nonce)) end
    if endpoints then res.headers:add("Reporting-Endpoints", endpoints) end
  end

  return policy
end
