local support = require "support"
local kits = require "scripts.kit"
local policy = require "scripts.policy"
local it, http = support.it, support.http

local function load(use, more)
  local kit = kits.load {
    backends = 'app = { "127.0.0.1:9001" }', use = ('require "scripts.bot_filter" %s'):format(use), more = more,
  }
  return kit:backend("app", "ok")
end

local BROWSER <const> = {
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
  ["Accept"] = "text/html", ["Accept-Language"] = "en", ["Accept-Encoding"] = "gzip",
}

-- A browser's fields, some of them otherwise; false: without.
local function browser(changes)
  local headers = {}
  for name, value in pairs(BROWSER) do headers[name] = value end
  for name, value in pairs(changes or {}) do headers[name] = value or nil end
  return headers
end

local function get(kit, path, changes, ip)
  return kit:request { path = path, headers = browser(changes), client = ip and { ip = ip } }
end

-- The resolver asks this. It has what an engine has, and what impostors write into their own zones.
local function start_dnsmasq()
  local port = support.free_port()
  support.process.spawn { "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
    "--no-hosts", "--local=/com/", "--local=/arpa/", "--listen-address=127.0.0.1", "--bind-interfaces",
    "--port=" .. port, "--user=root", "--log-queries", "--log-facility=-",
    "--host-record=crawl-1.googlebot.com,192.0.2.1", "--host-record=crawl-6.googlebot.com,2001:db8::6",
    "--ptr-record=2.2.0.192.in-addr.arpa,crawl-1.googlebot.com", -- says he is, but the name has another address
    "--ptr-record=3.2.0.192.in-addr.arpa,crawl-1.googlebot.com.evil.com",
    "--ptr-record=4.2.0.192.in-addr.arpa,evilgooglebot.com",
    "--host-record=evilgooglebot.com,192.0.2.4", "--host-record=c.acme.com,192.0.2.5" }
  support.eventually("dnsmasq", function() return support.net.try_connect(port) end)
  return "127.0.0.1:" .. port
end

local config = [[
return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } }, trusted_proxies = { "127.0.0.1" },
  use = { require "scripts.bot_filter" $OPTIONS } }
]]

-- luacheck: no max line length (messages stand in one line)
describe("scripts.bot_filter", function()
  it("lets browsers pass, and says what it thinks of them", function()
    local kit = load '{ header = "X-Bot", traps = { "/.env" } }'
    local res = get(kit, "/", { ["X-Bot"] = "bot=google" })
    assert.equal(200, res.status)
    assert.equal("score=0", res.fetched[1].headers["X-Bot"])
  end)

  it("refuses agents by their words, of either case", function()
    local kit = load '{ deny = { "evil.bot", "GPTBot" } }'
    for agent, status in pairs {
      ["Mozilla/5.0 (compatible; gptbot/1.0)"] = 403, ["EVIL.BOT"] = 403, ["evilxbot"] = 200, ["fine"] = 200,
    } do
      assert.equal(status, get(kit, "/", { ["User-Agent"] = agent }).status, agent)
    end
    assert.equal(200, get(kit, "/robots.txt", { ["User-Agent"] = "GPTBot" }).status)
  end)

  it("knows search engines by the names of their addresses, and impostors", function()
    local address = start_dnsmasq()
    local backend = http.backend()
    local use = '{ header = "X-Bot", engines = { acme = { agents = { "AcmeBot" }, domains = { "acme.com" } } } }'
    local proxy = support.moongate.start {
      config = config, values = { BACKEND = backend, OPTIONS = use }, env = { MOONGATE_NAMESERVER = address },
    }
    local function status(agent, ip)
      local headers = browser { ["User-Agent"] = agent, ["X-Forwarded-For"] = ip }
      return http.get(proxy.port, "/", { headers = headers }).status
    end
    local google = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
    assert.equal(200, status(google, "192.0.2.1"))
    assert.equal("bot=google", backend.requests[1].headers["X-Bot"])
    assert.equal(200, status(google, "2001:db8::6"))
    assert.equal(200, status("AcmeBot/1", "192.0.2.5"))
    assert.equal("bot=acme", backend.requests[3].headers["X-Bot"])
    for _, ip in ipairs { "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.9" } do
      assert.equal(403, status(google, ip), ip)
    end
    assert.equal(403, status("AcmeBot/1", "192.0.2.1"))
  end)

  it("verifies nobody while names cannot be resolved, and calls nobody an impostor", function()
    local backend = http.backend()
    local proxy = support.moongate.start {
      config = config, values = { BACKEND = backend, OPTIONS = '{ header = "X-Bot" }' },
      env = { MOONGATE_NAMESERVER = "127.0.0.1:" .. support.free_port() }, -- nobody is there
    }
    local headers = browser { ["User-Agent"] = "Googlebot/2.1", ["X-Forwarded-For"] = "192.0.2.1" }
    assert.equal(200, http.get(proxy.port, "/", { headers = headers }).status)
    assert.equal("score=2", backend.requests[1].headers["X-Bot"])
  end)

  it("verifies nobody who comes by a unix socket", function()
    local _, backend, proxy = policy.start("bot_filter", '{ header = "X-Bot" }')
    local headers = browser { ["User-Agent"] = "Googlebot" }
    assert.equal(200, http.get(proxy.dir .. "/listen.sock", "/", { headers = headers }).status)
    assert.equal("score=2", backend.requests[1].headers["X-Bot"])
  end)

  it("asks for no more names in a second than it may", function()
    local kit = load '{ lookups = 1, header = "X-Bot" }'
    local agent = { ["User-Agent"] = "bingbot" }
    assert.equal(403, get(kit, "/", agent, "192.0.2.1").status) -- the kit has no names of addresses
    assert.equal(200, get(kit, "/", agent, "192.0.2.2").status)
    assert.equal(403, get(kit, "/", agent, "192.0.2.1").status)
    kit:advance(1)
    assert.equal(403, get(kit, "/", agent, "192.0.2.2").status)
  end)

  it("bans who falls into a trap, for a time, with its network", function()
    local kit = load '{ traps = { "/.env", "/trap/" }, ban = "10m" }'
    assert.equal(200, get(kit, "/", nil, "192.0.2.1").status)
    local res = get(kit, "/x/../%2eenv", nil, "192.0.2.1")
    assert.equal(403, res.status)
    assert.matches("banned 192.0.2.1 for /.env", res.logs[1].text)
    assert.equal(403, get(kit, "/", nil, "192.0.2.1").status)
    assert.equal(200, get(kit, "/", nil, "192.0.2.2").status)
    get(kit, "/trap/deep", nil, "2001:db8::1")
    assert.equal(403, get(kit, "/", nil, "2001:db8::2").status)
    kit:advance(600)
    assert.equal(200, get(kit, "/", nil, "192.0.2.1").status)
  end)

  it("bans no browser that another site sent into a trap", function()
    local kit = load '{ traps = { "/trap" } }'
    assert.equal(403, get(kit, "/trap", { ["Sec-Fetch-Site"] = "cross-site" }).status)
    assert.equal(200, get(kit, "/").status)
  end)

  it("scores what does not fit together", function()
    local kit = load '{ header = "X-Bot", threshold = false }'
    local function score(changes, more)
      local request = { headers = browser(changes) }
      for name, value in pairs(more or {}) do request[name] = value end
      return kit:request(request).fetched[1].headers["X-Bot"]
    end
    assert.equal("score=3", score { ["User-Agent"] = false })
    assert.equal("score=4", score { ["User-Agent"] = false, ["Accept"] = false })
    assert.equal("score=3", score { ["User-Agent"] = "curl/8.0" })
    assert.equal("score=3", score { ["User-Agent"] = "python-requests/2.31" })
    assert.equal("score=2", score { ["User-Agent"] = "SomeBot/1.0" })
    assert.equal("score=0", score { ["User-Agent"] = "Robotics Weekly Reader" })
    assert.equal("score=2", score { ["Accept-Language"] = false })
    assert.equal("score=4", score { ["Accept-Language"] = false, ["Accept-Encoding"] = false })
    assert.equal("score=2", score(nil, { version = "1.0", host = "a" }))
  end)

  it("misses what modern browsers say by https", function()
    local kit = load('{ header = "X-Bot" }', 'site.trusted_proxies = { "127.0.0.1" }')
    local function score(changes)
      changes["X-Forwarded-For"], changes["X-Forwarded-Proto"] = "192.0.2.1", "https"
      return kit:request({ headers = browser(changes) }).fetched[1].headers["X-Bot"]
    end
    assert.equal("score=2", score {})
    assert.equal("score=0", score { ["Sec-Fetch-Site"] = "none" })
  end)

  it("refuses from the threshold on, with weights and more of one's own", function()
    local kit = load "{}"
    local bare = { ["Accept-Language"] = false, ["Accept-Encoding"] = false, ["Accept"] = false }
    local res = get(kit, "/", bare)
    assert.equal("403 not for robots\n", res.status .. " " .. res.body)
    kit = load '{ threshold = 3, weights = { tool = 1 }, score = function(req) return tonumber(req.args.s) end }'
    assert.equal(200, get(kit, "/", { ["User-Agent"] = "curl/8.0" }).status)
    assert.equal(403, get(kit, "/?s=2", { ["User-Agent"] = "curl/8.0" }).status)
    kit = load '{ impostors = "score", header = "X-Bot", threshold = 10 }'
    assert.equal("score=7", get(kit, "/", { ["User-Agent"] = "Googlebot" }).fetched[1].headers["X-Bot"])
  end)

  it("leaves paths and networks alone, and everybody in a dry run", function()
    local kit = load '{ deny = { "curl" }, except = { "/api" }, exempt = { "10.0.0.0/8" } }'
    local curl = { ["User-Agent"] = "curl/8.0" }
    assert.equal(200, get(kit, "/api/x", curl).status)
    assert.equal(200, get(kit, "/", curl, "10.1.1.1").status)
    assert.equal(403, get(kit, "/", curl).status)
    kit = load('{ dry_run = true, traps = { "/trap" } }',
      "function site.on_response(req, res) res.headers.R = req.ctx.bot.refused end")
    assert.equal("200 trap", get(kit, "/trap").status .. " " .. tostring(get(kit, "/trap").headers["R"]))
    assert.is_nil(get(kit, "/").headers["R"])
  end)

  it("refuses wrong options", function()
    policy.assert_refused("bot_filter", {
      ["{ impostors = 'ban' }"] = 'bot_filter: impostors: expected "deny" or "score"',
      ["{ engines = { acme = { agents = { 'A' } } } }"] = "bot_filter: engines.acme.domains: must be given",
      ["{ engines = { acme = { agents = { 'A' }, domains = { 'com' } } } }"] = "engines.acme.domains[1]: expected a domain",
      ["{ weights = { tol = 1 } }"] = 'bot_filter: weights: unknown weight "tol", did you mean "tool"?',
      ["{ weights = { tool = 'x' } }"] = "bot_filter: weights.tool: expected a number",
      ["{ threshold = 0 }"] = "bot_filter: threshold: expected a number of more than 0",
      ["{ traps = { 'x' } }"] = "bot_filter: traps: expected",
      ["{ trap = { '/x' } }"] = 'did you mean "traps"?',
    })
  end)
end)
