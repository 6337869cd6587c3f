-- gate.lock: in one worker through the probe, and hammered by four.
-- luacheck: no max line length (scripts and messages stand in one line)

local support = require "support"
local probe = require "core.lua.probe"
local it, http, net = support.it, support.http, support.net

-- Runs a script in a request of its own, until it says (in the log) that it holds what it holds.
local function hold(script)
  local mark = probe.proxy:log_mark()
  local task = support.spawn(function() return probe.request(script) end)
  probe.proxy:wait_log("holding", { from = mark })
  return task
end

local held = [[local lock = assert(gate.lock("name")) gate.log("warn", "holding") ]]
local until_told = "repeat gate.sleep(0.002) until upvalue.go upvalue.go = nil "

describe("gate.lock", function()
  support.setup(probe.start)

  it("is held until the end of its scope, until it is released, or until the hook ends", function()
    assert.equal("moongate.lock", probe.request 'return gate.lock "name"')
    assert.equal("locked|true", probe.request [[
      local word
      do
        local lock <close> = gate.lock "name"
        local other
        gate.all(function() other, word = gate.lock.try "name" end)
      end
      return word, gate.lock.try "name" ~= nil
    ]])
    assert.equal("true|true|false|false|true", probe.request [[
      local lock = gate.lock "name"
      local before = lock:held()
      return before, lock:release(), lock:held(), lock:release(), gate.lock("name"):held()
    ]])
    assert.equal("moongate.lock", probe.request 'return gate.lock.try "name"')
  end)

  it("goes to one after the other, in the order in which they asked", function()
    local holder = hold(held .. until_told)
    probe.request "upvalue.order = {}"
    local tasks = {}
    for i = 1, 5 do
      tasks[i] = support.spawn(function()
        probe.request(("local lock <close> = assert(gate.lock('name')) table.insert(upvalue.order, %d) gate.sleep(0.001)"):format(i))
      end)
      support.eventually("the next one to wait", function()
        return probe.metric "moongate_locks_waiting" == i
      end)
    end
    assert.equal(1, probe.metric "moongate_locks_held")
    probe.request "upvalue.go = true"
    holder:join()
    for _, task in ipairs(tasks) do task:join() end
    assert.equal("1 2 3 4 5", probe.request "return table.concat(upvalue.order, ' ')")
    assert.equal(0, probe.metric "moongate_locks_held")
    assert.equal(0, probe.metric "moongate_locks_waiting")
  end)

  it("gives up after its timeout", function()
    local holder = hold(held .. until_told)
    assert.equal("nil|timeout|the time set for it has passed|true", probe.request [[
      local began = gate.clock()
      local lock, word, sentence = gate.lock("name", { timeout = 0.05 })
      return lock, word, sentence, gate.clock() - began >= 0.05
    ]])
    assert.equal("nil|locked|somebody else holds the lock", probe.request "return gate.lock('name', { timeout = 0 })")
    assert.equal("moongate.lock", probe.request "return gate.lock('other', { timeout = 0 })")
    probe.request "upvalue.go = true"
    holder:join()
    assert.equal("moongate.lock", probe.request "return gate.lock.try 'name'")
  end)

  it("is taken away when its ttl has passed, and the log says so", function()
    assert.equal("false|false|moongate.lock", probe.request [[
      local lock = gate.lock("brief", { ttl = 0.03 })
      repeat gate.sleep(0.005) until not lock:held()
      return lock:held(), lock:release(), gate.lock.try "brief"
    ]])
    probe.proxy:wait_log "the lock 'brief' was held for 0.03 s: its ttl has passed"
    assert.equal(1, probe.metric "moongate_locks_expired_total")
    local holder = hold([[gate.lock("name", { ttl = "50ms" }) gate.log("warn", "holding") ]] .. until_told)
    assert.equal("moongate.lock", probe.request "return gate.lock 'name'")
    probe.request "upvalue.go = true"
    holder:join()
  end)

  it("is given back by a hook that fails, is killed, or is cancelled while it holds or waits", function()
    probe.exchange { on_request = "verdict: gate.lock 'name' error 'oops'" }
    assert.equal("moongate.lock", probe.request "return gate.lock.try 'name'")
    local proxy = support.moongate.start { workers = 1, config = [[
      local gate = require "moongate"
      local site = { listen = "127.0.0.1:$PORT" }
      function site.on_request(req)
        local lock <close> = assert(gate.lock.try "name")
        while req.path == "/late" do end
        return gate.reply(200, "held")
      end
      return site
    ]] }
    assert.equal(500, http.get(proxy.port, "/late").status)
    assert.equal("held", http.get(proxy.port, "/").body)

    local mark = probe.proxy:log_mark()
    local function leave_in(script)
      local client = net.connect(probe.port)
      client:send("GET / HTTP/1.1\r\nHost: a\r\n" .. probe.field("on_request", script) .. "\r\n\r\n")
      probe.proxy:wait_log("holding", { from = mark })
      return client
    end
    local first = leave_in(held .. "gate.sleep(60)")
    local second = net.connect(probe.port)
    second:send("GET / HTTP/1.1\r\nHost: a\r\n" .. probe.field("on_request", "gate.lock('name', { timeout = 60 })") .. "\r\n\r\n")
    support.eventually("the second to wait", function() return probe.metric "moongate_locks_waiting" == 1 end)
    second:reset()
    support.eventually("the second to leave", function() return probe.metric "moongate_locks_waiting" == 0 end)
    first:reset()
    assert.equal("moongate.lock", probe.request "return gate.lock 'name'")
  end)

  it("is not waited for by who holds it", function()
    probe.raises("the lock 'name' is held here already", "local lock <close> = gate.lock 'name' gate.lock 'name'")
    assert.equal("2", probe.request [[
      local count = 0
      local function work()
        local lock <close> = gate.lock "name"
        gate.sleep(0.001)
        count = count + 1
      end
      gate.all(work, work)
      return count
    ]])
  end)

  it("refuses what makes no sense", function()
    probe.raises("string expected", "gate.lock(nil)")
    probe.raises("a name has 1 to 255 bytes", "gate.lock ''")
    probe.raises("a name has 1 to 255 bytes", "gate.lock(('x'):rep(256))")
    probe.raises("timeout is seconds", "gate.lock('x', { timeout = -1 })")
    probe.raises("ttl is more than 0 seconds", "gate.lock('x', { ttl = 0 })")
    probe.raises("has no option 'tll' (did you mean 'ttl'?)", "gate.lock('x', { tll = 1 })")
    probe.raises("cannot wait inside table.sort", "table.sort({ 2, 1 }, function() gate.lock 'x' end)")
    probe.raises("cannot set 'gate.lock.try'", "gate.lock.try = 1")
  end)

  it("has one holder at a time over four workers, and forgets nobody", function()
    local rounds = support.process.preset == "debug" and 60 or 25
    local proxy = support.moongate.start { workers = 4, values = { ROUNDS = rounds }, config = [[
      local gate = require "moongate"
      local shared = gate.shared "figures"
      local site = { listen = "127.0.0.1:$PORT", lua = { hook_cpu = 2 } }
      local function enter(name)
        local lock <close> = assert(gate.lock(name, { timeout = 60 }))
        assert(shared:incr("in " .. name) == 1, "two holders")
        if math.random(4) == 1 then gate.sleep(0) end
        shared:incr("in " .. name, -1)
        shared:incr "entered"
      end
      local function give_up(name)
        local lock <close> = gate.lock(name, { timeout = 0.0005 })
        if lock then
          assert(shared:incr("in " .. name) == 1, "two holders")
          shared:incr("in " .. name, -1)
        end
      end
      function site.on_request(req)
        if req.path == "/count" then return gate.reply(200, tostring(shared:get "entered")) end
        for i = 1, $ROUNDS do
          enter "one"
          if i % 3 == 0 then give_up "one" end
        end
        return gate.reply(200, "done by " .. tostring(site))
      end
      return site
    ]] }
    local clients, seen = {}, {}
    for i = 1, 16 do
      clients[i] = function()
        local response = http.get(proxy.port, "/", { timeout = 60 })
        assert.equal(200, response.status)
        seen[response.body] = true
      end
    end
    support.all(table.unpack(clients))
    assert.equal(tostring(16 * rounds), http.get(proxy.port, "/count").body)
    local workers = 0
    for _ in pairs(seen) do workers = workers + 1 end
    assert.is_true(workers > 1, "all by one worker")
  end)
end)
