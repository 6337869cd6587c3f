-- on_connect: who is let in at all, before anything is spoken.

local support = require "support"
local it, http, net, moongate, h2 = support.it, support.http, support.net, support.moongate, support.h2

local get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

local function start(site, options)
  options = options or {}
  return moongate.start { workers = options.workers or 1, values = options.values, config = ([[
    local gate = require "moongate"
    local site = { listen = %s, on_request = 204 }
    %s
    return { drain = "200ms", admin = "127.0.0.1:$PORT2", log = { level = "debug" }, sites = { site %s } }
  ]]):format(options.listen or '"127.0.0.1:$PORT"', site, options.sites or "") }
end

local function turned_away(gate)
  return tonumber(http.get(gate.values.PORT2, "/metrics").body:match "\nmoongate_turned_away_total (%d+)")
end

-- It is closed, and nothing was said before.
local function expect_silence(conn)
  local _, word = conn:try_send(get)
  conn:expect_closed()
  assert.truthy(word == nil or word == "ECONNRESET" or word == "EPIPE")
end

describe("on_connect", function()
  it("is asked once for a connection, and told who it is", function()
    local gate = start [[
      local seen = {}
      function site.on_connect(client) seen[#seen + 1] = client.ip .. " " .. client.port .. " " .. client.listener end
      function site.on_request() return gate.reply(200, table.concat(seen, "\n")) end
    ]]
    local conn = net.connect(gate.port)
    local first = http.get(gate.port, "/", { conn = conn }).body
    assert.matches("^127%.0%.0%.1 %d+ 127%.0%.0%.1:" .. gate.port .. "$", first)
    assert.equal(first, http.get(gate.port, "/", { conn = conn }).body)
    assert.equal(0, turned_away(gate))
  end)

  it("closes without a word whom it returns false for", function()
    local gate = start [[
      local count = 0
      function site.on_connect()
        count = count + 1
        if count % 2 == 1 then return false end
      end
    ]]
    net.connect(gate.port):expect_closed()
    assert.equal(204, http.get(gate.port).status)
    expect_silence(net.connect(gate.port))
    assert.equal(2, turned_away(gate))
  end)

  it("may be false", function()
    local gate = start "site.on_connect = false"
    net.connect(gate.port):expect_closed()
  end)

  it("may wait; what came meanwhile is answered then", function()
    local answers = { 200, 403 }
    local backend = http.backend(function() return table.remove(answers, 1) end)
    local gate = start([[
      site.backends = { app = { "$BACKEND" } }
      function site.on_connect()
        gate.sleep(0.02)
        local res = gate.fetch("app", { path = "/may" })
        if res.status ~= 200 then return false end
      end
    ]], { values = { BACKEND = backend } })
    local conn = net.connect(gate.port)
    conn:send(get .. get)
    assert.equal(204, http.response(conn).status)
    assert.equal(204, http.response(conn).status)
    expect_silence(net.connect(gate.port))
  end)

  it("comes before the TLS handshake, and before HTTP/2", function()
    local gate = start([[
      local count = 0
      function site.on_connect()
        count = count + 1
        if count > 1 then return false end
      end
    ]], { listen = '{ { "127.0.0.1:$PORT", tls = "internal" }, { "127.0.0.1:$PORT3", h2c = true } }' })
    local client = h2.connect_tls(gate.port)
    assert.equal("204", client:exchange("/").headers[":status"])
    net.connect(gate.port):expect_closed()
    net.connect(gate.values.PORT3):expect_closed()
    assert.equal(2, turned_away(gate))
  end)

  it("is told whom a PROXY header names", function()
    local gate = start([[
      function site.on_connect(client) if client.ip == "203.0.113.9" then return false end end
      function site.on_request(req) return gate.reply(200, req.client.ip) end
    ]], { listen = '{ "127.0.0.1:$PORT", proxy_protocol = true }' })
    local good, bad = net.connect(gate.port), net.connect(gate.port)
    good:send("PROXY TCP4 203.0.113.8 127.0.0.1 1 2\r\n" .. get)
    assert.equal("203.0.113.8", http.response(good).body)
    bad:send("PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n" .. get)
    bad:expect_closed()
  end)

  it("of every policy and site of the listener is asked, until one says no", function()
    local gate = start([[
      local asked = {}
      local function policy(name, answer)
        return { on_connect = function() asked[#asked + 1] = name return answer() end }
      end
      local function carry_on() end
      site.hosts = { "a" }
      site.use = { policy("first", carry_on), policy("second", carry_on) }
      site.on_connect = policy("site", carry_on).on_connect
      function site.on_request() return gate.reply(200, table.concat(asked, " ")) end
      local other = { listen = site.listen, hosts = { "b" }, on_request = 204 }
      other.on_connect = policy("other", function() if #asked > 4 then return false end end).on_connect
    ]], { sites = ", other" })
    assert.equal("first second site other", http.get(gate.port, "/", { headers = { Host = "a" } }).body)
    net.connect(gate.port):expect_closed()
  end)

  it("closes when it fails, and when it returns what it may not", function()
    local gate = start [[
      local answers = {
        function() error "on purpose" end, function() return gate.reply(403) end, function() return true end,
      }
      local count = 0
      function site.on_connect()
        count = count + 1
        if answers[count] then return answers[count]() end
      end
    ]]
    for _, text in ipairs {
      "on_connect of .* failed: .*on purpose", "on_connect returned a reply; expected false or nothing",
      "on_connect returned a boolean; expected false or nothing",
    } do
      net.connect(gate.port):expect_closed()
      gate:wait_log(text)
    end
    assert.equal(204, http.get(gate.port).status)
  end)

  it("lets in when it fails if the site says so", function()
    local gate = start [[
      site.fail = { on_connect = "continue" }
      function site.on_connect() error "on purpose" end
    ]]
    assert.equal(204, http.get(gate.port).status)
  end)

  it("leaves nothing that can be used later", function()
    local gate = start [[
      local kept
      function site.on_connect(client) kept = kept or client end
      function site.on_request() return gate.reply(200, select(2, pcall(function() return kept.ip end))) end
    ]]
    assert.matches("on_connect has ended", http.get(gate.port).body)
  end)

  it("is over when its client has waited too long, and when the client leaves", function()
    local gate = start [[
      site.timeouts = { head = "100ms" }
      function site.on_connect() gate.sleep(60) end
    ]]
    net.connect(gate.port):expect_closed()
    local conn = net.connect(gate.port)
    conn:reset()
    gate:wait_idle()
  end)

  it("ends with its generation", function()
    local gate = moongate.start { workers = 1, config = [[
      local gate = require "moongate"
      local function wait() gate.sleep(60) end
      return { listen = "127.0.0.1:$PORT", on_request = 204, on_connect = wait, drain = "100ms" }
    ]] }
    local conn = net.connect(gate.port)
    support.eventually("the client", function() return select(2, gate:command "status"):find "clients +1 open" end)
    gate:reload_with [[return { listen = "127.0.0.1:$PORT", on_request = 205, drain = "100ms" }]]
    assert.equal(205, http.get(gate.port).status)
    conn:expect_closed()
  end)
end)
