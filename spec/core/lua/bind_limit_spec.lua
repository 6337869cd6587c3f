local support = require "support"
local it, http, moongate, net = support.it, support.http, support.moongate, support.net

-- A proxy whose on_request runs the script that a request brings as its query, with the limits below.
local config = [[
local gate = require "moongate"
local limits = {
  slow = gate.limit { name = "slow", rate = 3, per = "1h" },
  burst = gate.limit { name = "burst", rate = 100, per = 60, burst = 20 },
  dry = gate.limit { name = "dry", rate = 1, per = 60, dry_run = true, concurrent = 1 },
  places = gate.limit { name = "places", concurrent = 2 },
  quick = gate.limit { name = "quick", rate = 50, burst = 1 },
}
local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } }, lua = { hook_cpu = 2 } }
local function show(ok, ...)
  local texts = table.pack(...)
  for i = 1, texts.n do texts[i] = tostring(texts[i]) end
  return gate.reply(200, (ok and "" or "raised: ") .. table.concat(texts, "|"))
end
function site.on_request(req)
  local code = gate.base64.decode(req.headers["X-Script"])
  local f = assert(load("local gate, req, limits = ... " .. code, "=script", "t"))
  if req.path == "/go_on" then return f(gate, req, limits) end
  return show(pcall(f, gate, req, limits))
end
return site
]]

describe("gate.limit", function()
  local proxy, backend
  support.setup(function()
    backend = net.listen()
    proxy = moongate.start { config = config, values = { BACKEND = backend }, workers = 1 }
  end)

  local function encode(text)
    local out = {}
    local digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for i = 1, #text, 3 do
      local a, b, c = text:byte(i, i + 2)
      local bits = a << 16 | (b or 0) << 8 | (c or 0)
      for j = 0, 3 do
        local known = j < 2 or (j == 2 and b) or (j == 3 and c)
        local at = (bits >> (18 - 6 * j) & 63) + 1
        out[#out + 1] = known and digits:sub(at, at) or "="
      end
    end
    return table.concat(out)
  end

  local function said(script)
    return http.get(proxy.port, "/", { headers = { { "X-Script", encode(script) } } }).body
  end

  local function head_of(script)
    return ("GET /go_on HTTP/1.1\r\nHost: a\r\nX-Script: %s\r\n\r\n"):format(encode(script))
  end

  local function active(key) return tonumber(said(("return limits.places:active(%q)"):format(key))) end

  it("lets through what the rate says, and then says how long to wait", function()
    assert.equal("true|2|true|0|false|true|true|false|true", said [[
      local l = limits.slow
      local a, left = l:take "k"
      local b, none = l:take("k", 2)
      local c, wait = l:take "k"
      local d = l:take "another"
      local huge, never = l:take("k", 4)
      return a, left, b, none, c, wait > 1190 and wait <= 1200, d, huge, never == math.huge
    ]])
  end)

  it("takes strings and numbers as keys, a number by its text", function()
    assert.equal("0|0|false", said [[
      limits.slow:take(7, 3)
      return select(2, limits.slow:take("7", 0)), select(2, limits.slow:take(7, 0)), (limits.slow:take "7")
    ]])
    for _, key in ipairs { "", "nil", "{}", "true", "req" } do
      assert.matches("string or number expected", said(("limits.slow:take(%s)"):format(key)))
    end
    for _, cost in ipairs { "-1", "0/0", "1/0", "2e9" } do
      assert.matches("a cost is 0 to 1e9", said(("limits.slow:take('k', %s)"):format(cost)))
    end
  end)

  it("looks without taking, and forgets when it is told to", function()
    assert.equal("true|2|true|2|false|true|true|3|false", said [[
      local l = limits.slow
      local a, b = l:peek "p"
      local c, d = l:peek "p"
      l:take("p", 3)
      return a, b, c, d, (l:peek "p"), l:reset "p", l:peek "p", select(2, l:peek("p", 0)), l:reset "unknown"
    ]])
  end)

  it("lets through again after the wait", function()
    assert.equal("true|false|true", said [[
      local a = limits.quick:take "k"
      local b, wait = limits.quick:take "k"
      gate.sleep(wait + 0.001)
      return a, b, (limits.quick:take "k")
    ]])
  end)

  it("writes the header fields of a limit", function()
    assert.equal([["burst";q=20;w=12|"burst";r=20;t=0|20|20|0|nil]], said [[
      local f = limits.burst:fields "f"
      return f["RateLimit-Policy"], f.RateLimit, f["RateLimit-Limit"], f["RateLimit-Remaining"], f["RateLimit-Reset"],
        f["Retry-After"]
    ]])
    assert.equal([["burst";r=0;t=12|0|12|1|200]], said [[
      limits.burst:take("f", 20)
      local f = limits.burst:fields "f"
      return f.RateLimit, f["RateLimit-Remaining"], f["RateLimit-Reset"], f["Retry-After"],
        gate.reply(200, "", f).status
    ]])
  end)

  it("lets all through in a dry run, and says by how much it was too soon", function()
    assert.equal("true|0|true|true|userdata|nil|userdata|limited", said [[
      local a, left = limits.dry:take "k"
      local b, wait = limits.dry:take "k"
      local slot, word = limits.dry:enter "k"
      local more, limited = limits.dry:enter "k"
      return a, left, b, wait < -59 and wait >= -60, type(slot), word, type(more), limited
    ]])
  end)

  it("has so many places, until they are left", function()
    assert.equal("2|nil|limited|all 2 places of limit 'places' are taken|true|false|1|2", said [[
      local l = limits.places
      local a, b = l:enter "s", l:enter "s"
      local active = l:active "s"
      local c, word, sentence = l:enter "s"
      local left, again = a:leave(), a:leave()
      local one = l:active "s"
      local d <close> = l:enter "s"
      return active, c, word, sentence, left, again, one, l:active "s"
    ]])
    support.eventually("all left", function() return active "s" == 0 end)
  end)

  it("gives a place back at the end of its block, also when that raises or waits", function()
    assert.equal("1|0|0|0", said [[
      local l = limits.places
      local inside
      do local slot <close> = l:enter "b" gate.sleep(0.001) inside = l:active "b" end
      local after = l:active "b"
      pcall(function() local slot <close> = l:enter "b" error "mine" end)
      local raised = l:active "b"
      do local none <close> = l:enter "full" and l:enter "full" and l:enter "full" end
      return inside, after, raised, l:active "b"
    ]])
  end)

  it("holds a place until the body of the answer has been sent", function()
    local client = net.connect(proxy.port)
    client:send(head_of [[assert(limits.places:enter "body")]])
    local conn = backend:accept()
    http.request(conn)
    assert.equal(1, active "body")
    conn:send "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nbegin"
    client:read_until "begin"
    assert.equal(1, active "body")
    conn:send "-end!"
    client:read_until "%-end!"
    support.eventually("the place is free", function() return active "body" == 0 end)
  end)

  it("gives a place back when the client leaves in the middle of a body", function()
    local client = net.connect(proxy.port)
    client:send(head_of [[assert(limits.places:enter "left")]])
    local conn = backend:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nbegin"
    client:read_until "begin"
    client:reset()
    support.eventually("the place is free", function() return active "left" == 0 end)
  end)

  it("holds a place as long as a tunnel is open", function()
    local client = net.connect(proxy.port)
    client:send(("GET /go_on HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: talk\r\nX-Script: %s\r\n\r\n")
      :format(encode [[assert(limits.places:enter "tunnel")]]))
    local conn = backend:accept()
    http.request_head(conn)
    conn:send "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\nhello"
    client:read_until "hello"
    assert.equal(1, active "tunnel")
    client:close()
    conn:close()
    support.eventually("the place is free", function() return active "tunnel" == 0 end)
  end)

  it("gives the places of a killed script back", function()
    local gate = moongate.start { config = [[
      local gate = require "moongate"
      local places = gate.limit { name = "killed", concurrent = 2 }
      return { listen = "127.0.0.1:$PORT", on_request = function(req)
        if req.path == "/active" then return gate.reply(200, tostring(places:active "k")) end
        local slot <close> = assert(places:enter "k")
        assert(places:enter "k")
        while true do end
      end }
    ]] }
    assert.equal(500, http.get(gate.port, "/").status)
    support.eventually("the places are free", function() return http.get(gate.port, "/active").body == "0" end)
  end)

  it("holds the place of a spawned function until its block ends", function()
    assert.equal("0", said [[
      gate.spawn(function() local slot <close> = limits.places:enter "task" gate.sleep(0.05) end)
      return limits.places:active "task"
    ]])
    support.eventually("it is held", function() return active "task" == 1 end)
    support.eventually("it is free", function() return active "task" == 0 end)
  end)

  it("gives 32 slots to one exchange at most", function()
    assert.matches("raised: .*this exchange holds 32 slots already", said [[
      for i = 1, 33 do limits.places:enter("many" .. i) end
    ]])
  end)

  it("refuses what a limit has no rate or places for, and calls that are none", function()
    assert.matches("limit 'places' has no rate: take cannot be used", said "limits.places:take 'k'")
    assert.matches("limit 'slow' has no `concurrent`: enter cannot be used", said "limits.slow:enter 'k'")
    assert.matches("did you mean 'take'", said "limits.slow:taka 'k'")
    assert.matches("no fields to assign", said "limits.slow.rate = 5")
    assert.matches("made while the file is loaded", said "gate.limit { name = 'late', rate = 1 }")
  end)

  it("tells what it was asked by its metrics", function()
    local text = [[
      local gate = require "moongate"
      local l = gate.limit { name = "m", rate = 2, per = 60 }
      return { admin = "127.0.0.1:$PORT2", sites = { { listen = "127.0.0.1:$PORT",
        on_request = function(req) return l:take "k" and 200 or 429 end } } }
    ]]
    local gate = moongate.start { config = text }
    for _ = 1, 5 do http.get(gate.port, "/") end
    local metrics = http.get(gate.values.PORT2, "/metrics").body
    assert.truthy(metrics:find('moongate_limit_asked_total{limit="m",result="allowed"} 2\n', 1, true))
    assert.truthy(metrics:find('moongate_limit_asked_total{limit="m",result="limited"} 3\n', 1, true))
    assert.truthy(metrics:find('moongate_limit_keys{limit="m"} 1\n', 1, true))
  end)

  -- Loads a config that makes these limits; what the check prints.
  local function checked(made)
    local path = support.temp_dir() .. "/c.lua"
    support.process.write_file(path, ([[
      local gate = require "moongate"
      local function make() %s end
      make()
      return { listen = 8080, on_request = function() return 200 end }
    ]]):format(made))
    local status, out, err = moongate.run { "check", path }
    return (status == 0 and "" or "refused: ") .. out .. err
  end

  it("is refused, with its line, when its options are none", function()
    for options, sentence in pairs {
      ["{}"] = "name is a string", ["{ name = 5, rate = 1 }"] = "name is a string",
      ["{ name = '', rate = 1 }"] = "1 to 64", ["{ name = 'a\"b', rate = 1 }"] = "no quotes",
      ["{ name = 'a' }"] = "has a rate, `concurrent`, or both", ["{ name = 'a', rate = 0 }"] = "rate is a number",
      ["{ name = 'a', rate = '5' }"] = "rate is a number", ["{ name = 'a', rate = 0/0 }"] = "rate is a number",
      ["{ name = 'a', rate = 1, per = 0 }"] = "more than 0 seconds",
      ["{ name = 'a', rate = 1, per = 'x' }"] = "more than 0 seconds",
      ["{ name = 'a', rate = 1, burst = 0 }"] = "burst is a whole number",
      ["{ name = 'a', rate = 1, burst = 1.5 }"] = "burst is a whole number",
      ["{ name = 'a', concurrent = -1 }"] = "concurrent is a whole number",
      ["{ name = 'a', concurrent = 2, per = 5 }"] = "go with a rate",
      ["{ name = 'a', concurrent = 2, burst = 5 }"] = "go with a rate",
      ["{ name = 'a', rate = 1, max = '1K' }"] = "max is 64K or more",
      ["{ name = 'a', rate = 1, on_full = 'drop' }"] = "on_full is",
      ["{ name = 'a', rate = 1, dry_run = 1 }"] = "dry_run is true or false",
      ["{ name = 'a', rate = 1e-9, per = '1000h' }"] = "it would take years",
      ["{ name = 'a', rates = 1 }"] = "did you mean 'rate'",
    } do
      local text = checked("gate.limit " .. options)
      assert(text:find("refused: .*c.lua:2: ") and text:find(sentence, 1, true), options .. ": " .. text)
    end
  end)

  it("is the same when it is made twice, and must not be another", function()
    local one, other = "gate.limit { name = 'a', rate = 1 }", "gate.limit { name = 'a', rate = 2 }"
    assert.matches("^[^r].*ok", checked(("assert(%s == %s)"):format(one, one)))
    assert.matches("another limit of that name", checked(one .. " " .. other))
    assert.matches("cannot be used while the file is loaded", checked "gate.limit { name = 'a', rate = 1 }:take 'k'")
  end)

  it("keeps what keys have taken through reloads, and follows a changed rate at once", function()
    local function text(burst)
      return ([[
        local gate = require "moongate"
        local l = gate.limit { name = "kept", rate = 1, per = 3600, burst = %d }
        return { listen = "127.0.0.1:$PORT", on_request = function(req) return l:take "k" and 200 or 429 end }
      ]]):format(burst)
    end
    local gate = moongate.start { config = text(3), workers = 2 }
    local function allowed(n)
      local count = 0
      for _ = 1, n do count = count + (http.get(gate.port, "/").status == 200 and 1 or 0) end
      return count
    end
    assert.equal(2, allowed(2))
    assert.equal(0, (gate:reload()))
    assert.equal(1, allowed(5))
    gate:reload_with(text(10))
    assert.equal(7, allowed(20))
    gate:write_config(text(1000):gsub("return {", "if gate then error 'no' end return {"))
    assert.equal(1, (gate:reload()))
    assert.equal(0, allowed(5))
  end)

  it("is exact over four workers under load", function()
    local gate = moongate.start { workers = 4, config = [[
      local gate = require "moongate"
      local l = gate.limit { name = "load", rate = 1, per = 3600, burst = 100 }
      return { listen = "127.0.0.1:$PORT", on_request = function(req) return l:take "k" and 200 or 429 end }
    ]] }
    local allowed, refused, tasks = 0, 0, {}
    for i = 1, 16 do
      tasks[i] = support.spawn(function()
        local conn = net.connect(gate.port)
        for _ = 1, 20 do
          local status = http.get(gate.port, "/", { conn = conn }).status
          if status == 200 then allowed = allowed + 1 else refused = refused + 1 end
        end
      end)
    end
    for _, task in ipairs(tasks) do task:join() end
    assert.same({ 100, 220 }, { allowed, refused })
  end)
end)
