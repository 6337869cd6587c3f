-- `moongate trace`: what policy does with live requests, seen over the control socket.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

local config = [[
local gate = require "moongate"
local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } }
function site.on_request(req)
  req.headers["X-User"] = "ann"
  req.headers["Cookie"] = "secret"
  if req.path == "/403" then return 403 end
  if req.path == "/bad" then error "boom" end
  if req.path == "/fetch" then gate.fetch("app", { path = "/inner" }) end
  req.path = "/changed"
end
function site.pick_backend() return "app" end
function site.on_response(req, res) res.headers["X-Out"] = "1" end
return site
]]

local function start()
  local backend = http.backend(function() return 200, {}, "hello" end)
  return moongate.start { config = config, values = { BACKEND = backend } }, backend
end

-- Begins a trace, has `ask` send requests until it ends, and gives what it printed.
local function trace(gate, arguments, ask)
  local status, out, err
  local task = support.spawn(function()
    status, out, err = moongate.run { "trace", "--control", gate.control, table.unpack(arguments) }
  end)
  if ask then
    support.eventually("the trace's end", function()
      ask()
      return status
    end)
  end
  task:join()
  return status, out, err
end

describe("moongate trace", function()
  it("tells each hook, where it stands, what it decided and changed, and who answered", function()
    local gate, backend = start()
    local status, out, err = trace(gate, { "--count", "1" }, function() http.get(gate.port, "/x?y=1") end)
    assert.equal("moongate: traced 1\n", err)
    assert.equal(0, status)
    for _, line in ipairs {
      'GET "/x%?y=1" of localhost, from 127%.0%.0%.1, site ',
      "\n  on_request .*moongate.lua:3 +continue  %(%d+%.%d+ ms%)\n",
      '\n      req.headers%["X%-User"%]  nil %-> "ann"\n',
      '\n      req.path  "/x" %-> "/changed"\n',
      "\n  pick_backend .*moongate.lua:11 +pick app ",
      '\n      res.headers%["X%-Out"%]  nil %-> "1"\n',
      "\n  answer: 200, from backend, app/" .. backend.address:gsub("%p", "%%%0") .. ", after ",
    } do
      assert.truthy(out:find(line), line .. " in\n" .. out)
    end
  end)

  it("prints JSON, a line for each, and masks what is secret unless told not to", function()
    local gate = start()
    local _, out = trace(gate, { "--json", "--count", "1" }, function() http.get(gate.port, "/403") end)
    local line, last = out:match "^([^\n]*)\n([^\n]*)\n$"
    assert.truthy(line:find('"target":"/403","hooks":[{"hook":"on_request","policy":"on_request","place":"', 1, true))
    assert.truthy(line:find('{"field":"req.headers[\\"Cookie\\"]","before":null,"after":"(masked)"}', 1, true), out)
    assert.truthy(line:find('"status":403,"source":"reply"', 1, true), out)
    assert.equal('{"end":"count","traced":1,"dropped":0}', last)
    _, out = trace(gate, { "--json", "--count", "1", "--secrets" }, function() http.get(gate.port, "/403") end)
    assert.truthy(out:find('"after":"secret"', 1, true), out)
  end)

  it("tells what failed, with the traceback, and what was fetched", function()
    local gate = start()
    local _, out = trace(gate, { "--count", "1" }, function() http.get(gate.port, "/bad") end)
    assert.matches("failed +%(.*moongate.lua:7: boom.*stack traceback:", out)
    assert.truthy(out:find("answer: 500, from error, hook_failed", 1, true), out)
    _, out = trace(gate, { "--count", "1" }, function() http.get(gate.port, "/fetch") end)
    assert.matches("fetched GET /inner of app: 200, %d+%.%d m?s", out)
  end)

  it("answers before its first line, however soon that comes", function()
    local gate = start()
    for _ = 1, 20 do
      local status, out, err = trace(gate, { "--json", "--count", "1" }, function() http.get(gate.port, "/403") end)
      assert.same({ 0, "moongate: traced 1\n" }, { status, err })
      assert.matches('^{[^\n]+\n{"end":"count","traced":1,"dropped":0}\n$', out)
    end
  end)

  it("shows only what the filter wants", function()
    local gate = start()
    local function ask()
      http.get(gate.port, "/other", { headers = { ["X-Key"] = "blue" } })
      http.exchange(gate.port, "POST", "/403", { headers = { ["X-Key"] = "blue" } })
      http.get(gate.port, "/403", { headers = { ["X-Key"] = "red" } })
      http.get(gate.port, "/403", { headers = { ["X-Key"] = "blue" } })
    end
    local filter = "path ^/4 and method get and status 4xx and client 127.0.0.0/8 and header x-key ^b " ..
      "and host LOCALHOST"
    local _, out = trace(gate, { filter, "--json", "--count", "3" }, ask)
    local count = 0
    for line in out:gmatch '[^\n]+' do
      if not line:find '^{"end"' then
        count = count + 1
        assert.truthy(line:find('"method":"GET"', 1, true) and line:find('"target":"/403"', 1, true), line)
      end
    end
    assert.equal(3, count)
  end)

  it("ends after its seconds, and when nothing came says so", function()
    local gate = start()
    local status, out, err = trace(gate, { "path ^/never", "--seconds", "1" })
    assert.same({ 0, "", "moongate: traced 0\n" }, { status, out, err })
  end)

  local mistakes = {
    ["path ("] = "the pattern '(': missing closing parenthesis, at character 2",
    ["pth ^/x"] = "there is no term 'pth'; there are path, host, method, status, client, header, id",
    ["status high"] = "status 'high': expected a status, or a class such as 5xx",
    ["client here "] = "client 'here': expected an address or a CIDR",
    ["header x-key "] = "header: expected NAME PATTERN",
    ["path ^/ and status "] = "status: what of it?",
  }
  for filter, sentence in pairs(mistakes) do
    it("says what is wrong with the filter '" .. filter .. "'", function()
      local gate = start()
      local status, out, err = trace(gate, { filter })
      assert.same({ 2, "", "moongate: trace: " .. sentence .. "\n" }, { status, out, err })
    end)
  end

  it("ends when the one who asked leaves, so that another one can trace", function()
    local gate = start()
    local client = net.connect(gate.control)
    client:send "trace 0 0 0 \n"
    client:read_until "0\n"
    local status, _, err = trace(gate, { "--count", "1" })
    assert.equal(1, status)
    assert.equal("moongate: trace: somebody else traces already: one at a time\n", err)
    client:close()
    support.eventually("a trace of our own", function()
      status = trace(gate, { "--seconds", "1" })
      return status == 0
    end)
  end)

  it("looks at no more lines of a head than people send, however many a script has added", function()
    local gate = moongate.start { config = [[
      local site = { listen = "127.0.0.1:$PORT" }
      function site.on_request(req)
        for i = 1, 2000 do req.headers:add("X-" .. i, "y") end
        return 403
      end
      return site]] }
    local _, out = trace(gate, { "--count", "1" }, function() http.get(gate.port, "/") end)
    assert.truthy(out:find('req.headers["X-200"]  nil -> "y"', 1, true), out)
    assert.falsy(out:find('X-300', 1, true), out)
    assert.matches('req.headers  nil %-> "%(200%d lines; the first 256 are looked at%)"', out)
  end)

  it("lets go of what is under way when it ends in the middle, and when the proxy stops", function()
    local stuck = net.listen()
    local gate = moongate.start { config = config, values = { BACKEND = stuck }, workers = 4 }
    local client = net.connect(gate.port)
    local onlooker = net.connect(gate.control)
    onlooker:send "trace 0 0 0 \n"
    onlooker:read_until "0\n"
    client:send "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    local server = stuck:accept()
    onlooker:close()
    local again
    support.eventually("another trace", function()
      again = net.connect(gate.control)
      again:send "trace 0 0 0 \n"
      return again:read_some() == "0\n"
    end)
    server:close()
    client:read_until "HTTP/1.1 502"
    gate:stop()
    again:read_until '"end":"closed"'
  end)

  it("holds up nobody when it is not read, and counts what it drops", function()
    local gate = start()
    local onlooker = net.connect(gate.control)
    onlooker:send "trace 0 0 0 \n"
    onlooker:read_until "0\n"
    onlooker:stop_reading()
    local conn, target = net.connect(gate.port), "/403?" .. ("x"):rep(390)
    for _ = 1, 2500 do
      if http.get(gate.port, target, { conn = conn }).status ~= 403 then error "not answered" end
    end
    conn:close()
    onlooker:start_reading()
    gate:stop()
    local text = onlooker:read_until '"end":"closed"[^\n]*\n'
    assert.truthy(tonumber(text:match '"dropped":(%d+)') > 0, text:sub(-200))
  end)
end)
