-- What ready-made policies cost: each one's hooks are called over and over for one request, as a browser sends it.
--
--     ./dev build release
--     lua5.4 bench/scripts.lua            -- or with the beginning of a name
--
-- Nanoseconds of CPU for a request that passes, the best of five rounds; what entering Lua costs (the figures for hooks
-- in bench/run) and what flows of bodies is not in them.

local directory = arg[0]:match "^(.*)/bench/" or "."
package.path = directory .. "/lua/?.lua;" .. package.path
package.cpath = directory .. "/build/release/?.so;" .. package.cpath
local testing = require "moongate.testing"

local config = [[
local gate = require "moongate"
local policies = {}
local function add(name, policy) policies[#policies + 1] = { name = name, hooks = policy } end
%s
local ROUNDS <const>, idle = 5, 0

-- What on_response writes stays in the exchange, which bounds it: so it is called less often, with few lines there.
local function measure(calls, hook, req, res)
  local best = hook and math.huge or 0
  for _ = 1, hook and ROUNDS or 0 do
    local spent = 0
    for _ = 1, calls do
      if res then res.headers["RateLimit"], res.headers["RateLimit-Policy"] = nil, nil end
      local began = os.clock()
      hook(req, res)
      spent = spent + os.clock() - began
    end
    best = math.min(best, spent)
  end
  return hook and best / calls * 1e9 - idle or 0
end

idle = measure(1000, function() end)

local site = { listen = 8080, backends = { app = { "127.0.0.1:9001" } } }
function site.on_request(req) req.ctx.spent = measure(1000, policies[tonumber(req.args.n)].hooks.on_request, req) end
function site.on_response(req, res)
  local one = policies[tonumber(req.args.n)]
  local spent = req.ctx.spent
  local after = measure(20, one.hooks.on_response, req, res)
  res.headers["X-Figures"] = ("%%-36s %%8.0f ns, of these on_response %%6.0f"):format(one.name, spent + after, after)
end
return { sites = { site }, lua = { hook_cpu = 10, memory = "512M" } }
]]

local subjects = {
  [[add("rate_limit", require "scripts.rate_limit" { rate = 1e8 })]],
  [[add("rate_limit, headers", require "scripts.rate_limit" { name = "b", rate = 1e8, headers = "always" })]],
  [[add("rate_limit, 3 routes", require "scripts.rate_limit" { name = "c", rate = 1e8, routes = {
      { path = "/login", methods = { "POST" }, rate = 1 }, { path = "/a", rate = 1 }, { path = "/b", rate = 1 } } })]],
  [[add("request_size, body and target", require "scripts.request_size" { body = "1M", target = 2048 })]],
  [[add("request_size, all", require "scripts.request_size" {
      body = "1M", target = 2048, headers = "8K", field = "4K", fields = 64, args = 50 })]],
  [[add("maintenance, off", require "scripts.maintenance" {})]],
  [[add("maintenance, off, ips and cookie", require "scripts.maintenance" {
      ips = { "10.0.0.0/8" }, cookie = { name = "pass", value = "0123456789abcdef" } })]],
  [[add("geo_redirect, deny and header", require "scripts.geo_redirect" {
      file = "examples/geo_redirect.mmdb", deny = { "KP" }, header = "X-Country" })]],
  [[add("csp", require "scripts.csp" { policy = "default-src 'self'; object-src 'none'" })]],
  [[add("csp, nonce by header", require "scripts.csp" {
      policy = "default-src 'self'; script-src 'nonce' 'strict-dynamic'", header = "X-Nonce" })]],
  [[add("csp, nonce by placeholder", require "scripts.csp" {
      policy = "default-src 'self'; script-src 'nonce' 'strict-dynamic'", placeholder = "place-holder" })]],
  [[add("body_rewrite", require "scripts.body_rewrite" { response = { replace = { needle = "pin" } } })]],
  [[add("body_rewrite, another type", require "scripts.body_rewrite" {
      response = { types = { "text/css" }, replace = { needle = "pin" } } })]],
  [[add("bot_filter", require "scripts.bot_filter" {})]],
  [[add("bot_filter, deny, traps, header", require "scripts.bot_filter" {
      name = "b", deny = { "GPTBot", "masscan" }, traps = { "/.env", "/wp-login.php" }, header = "X-Bot" })]],
  [[add("ip_allow", require "scripts.ip_allow" { allow = { "192.0.2.0/24", "10.0.0.0/8" }, deny = { "192.0.2.1" } })]],
  [[add("cors", require "scripts.cors" { origins = { "https://app.example.com" } })]],
}

local chosen = {}
for _, text in ipairs(subjects) do
  if not arg[1] or text:find('add("' .. arg[1], 1, true) then chosen[#chosen + 1] = text end
end
-- Files are beside what is loaded, which is the folder this is run from.
local kit = testing.load { text = config:format(table.concat(chosen, "\n")) }
kit:backend("app", { headers = { ["Content-Type"] = "text/html" }, body = "<p>well</p>" })

for n = 1, #chosen do
  local res = kit:request {
    path = "/shop/articles?n=" .. n, host = "www.example.com", client = { ip = "192.0.2.17" },
    headers = {
      ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
      ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
      ["Accept-Language"] = "en-US,en;q=0.5", ["Accept-Encoding"] = "gzip, deflate, br",
      ["Cookie"] = "session=0123456789abcdef; theme=dark", ["Origin"] = "https://app.example.com",
      ["Sec-Fetch-Mode"] = "navigate", ["Sec-Fetch-Site"] = "none", ["Upgrade-Insecure-Requests"] = "1",
    },
  }
  print(res.headers["X-Figures"] or ("%s: %d %s"):format(chosen[n], res.status, res.body))
  for _, line in ipairs(res.logs) do print(line.text) end
end
