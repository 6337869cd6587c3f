-- `require "socket"`: an unmodified driver (Debian's lua-redis) against a real server, and what LuaSocket's module has.
-- luacheck: no max line length (scripts and messages stand in one line)

local uv = require "luv"
local support = require "support"
local scripted = require "support.scripted"
local it, http, net = support.it, support.http, support.net

local config = scripted.config { names = "gate, socket, redis, REDIS, PATH", before = [[
local redis = require "redis"
local REDIS, PATH = $REDIS, "$DIR/redis.sock"
]] }

local function start_redis(dir)
  local port = support.free_port()
  support.process.spawn {
    "redis-server", "--port", tostring(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir,
    "--unixsocket", dir .. "/redis.sock", "--unixsocketperm", "777",
  }
  support.eventually("the server", function() return net.try_connect(dir .. "/redis.sock") end)
  return port
end

describe("require \"socket\"", function()
  local port

  support.setup(function()
    local dir = support.temp_dir()
    assert(uv.fs_chmod(dir, tonumber("755", 8))) -- the serving process may have given up privileges
    local driver <close> = assert(io.open("/usr/share/lua/5.3/redis.lua"))
    support.process.write_file(dir .. "/redis.lua", driver:read "a")
    port = support.free_port()
    local values = { REDIS = start_redis(dir), DIR = dir, PORT = port }
    support.process.write_file(dir .. "/config.lua", (config:gsub("%$(%u+)", values)))
    support.moongate.start { file = dir .. "/config.lua", ports = { port } }
  end)

  local function run(script)
    local response = http.post(port, "/", script)
    return response.body
  end

  local connect = "local client = redis.connect('127.0.0.1', REDIS) "

  describe("lets lua-redis", function()
    it("set, get and count", function()
      assert.equal("true|value|nil|1|6", run(connect .. [[
        return client:set("key", "value"), client:get "key", client:get "nothing", client:incr "counter",
          client:incrby("counter", 5)
      ]]))
    end)

    it("carry binary and long values", function()
      assert.equal("true|300000|true", run(connect .. [[
        local value = ("\0\r\n$*"):rep(60000)
        local ok, back = client:set("binary", value), client:get "binary"
        return ok, #back, back == value
      ]]))
    end)

    it("pipeline", function()
      assert.equal("3|true|false|v", run(connect .. [[
        client:set("p", "v")
        local replies, count = client:pipeline(function(p)
          p:exists "p"
          p:exists "nothing"
          p:get "p"
        end)
        return count, table.unpack(replies)
      ]]))
    end)

    it("run a transaction, whose coroutines wait inside", function()
      assert.equal("2|true|w", run(connect .. [[
        local replies, count = client:transaction(function(t)
          t:set("t", "w")
          t:get "t"
        end)
        return count, table.unpack(replies)
      ]]))
    end)

    it("publish and subscribe", function()
      assert.equal("subscribe news|message news hello|unsubscribe news", run(connect .. [[
        local publisher = redis.connect("127.0.0.1", REDIS)
        local seen = {}
        for message, abort in client:pubsub { subscribe = { "news" } } do
          seen[#seen + 1] = message.kind .. " " .. message.channel .. (message.kind == "message" and " " .. message.payload or "")
          if message.kind == "subscribe" then publisher:publish("news", "hello") end
          if message.kind == "message" then abort() end
        end
        seen[#seen + 1] = "unsubscribe news"
        return table.unpack(seen)
      ]]))
    end)

    it("raise what the server refuses", function()
      assert.matches("^raised: .*redis error: WRONGTYPE", run(connect .. "client:set('text', 'x') client:lpush('text', 1)"))
      assert.matches("^raised: .*could not connect to .*connect_refused", run(("redis.connect('127.0.0.1', %d)"):format(support.refusing_port())))
    end)

    it("use a Unix socket, and a timeout", function()
      assert.equal("true", run "return redis.connect { scheme = 'unix', path = PATH }:ping()")
      assert.equal("true", run "return redis.connect { host = 'localhost', port = REDIS, timeout = 2 }:ping()")
      local silent = net.listen(function(conn) conn:skip() end)
      assert.matches("^raised: .*timeout", run(
        ("redis.connect { host = '127.0.0.1', port = %d, timeout = 0.05 }:ping()"):format(silent.port)))
    end)

    it("quit", function()
      assert.equal("true", run(connect .. "return client:quit()"))
    end)

    it("serve many hooks at once", function()
      local tasks = {}
      for i = 1, 20 do
        tasks[i] = function()
          assert.equal("OK", (run(connect .. ([[
            for n = 1, 20 do client:set("mine%d", n) assert(client:get "mine%d" == tostring(n)) end
            return "OK"
          ]]):format(i, i))))
        end
      end
      support.all(table.unpack(tasks))
    end)
  end)

  it("has LuaSocket's functions", function()
    local peer = net.listen(function(conn) conn:send "line\nrest" conn:close() end)
    local function at_peer(text) return run(("local HOST, PORT = '127.0.0.1', %d "):format(peer.port) .. text) end
    assert.equal("line|rest|nil|closed|", at_peer "local s = socket.connect(HOST, PORT) return s:receive(), s:receive '*a', s:receive()")
    assert.equal("line", at_peer "local s = socket.tcp4() assert(s:connect(HOST, PORT)) return s:receive()")
    assert.equal("true|true", run "local t = socket.gettime() socket.sleep(0.01) return socket.gettime() - t >= 0.01, t > 1e9")
    assert.matches("^LuaSocket 3", run "return socket._VERSION")
    assert.equal("c", run "return socket.skip(2, 'a', 'b', 'c')")
    assert.equal("nil|connect_refused|the server refused the connection",
      run(("return socket.connect('127.0.0.1', %d)"):format(support.refusing_port())))
  end)

  it("catches with protect what try raised, and nothing else", function()
    assert.equal("nil|no luck|finalized", run [[
      local state = "open"
      local try = socket.newtry(function() state = "finalized" end)
      local f = socket.protect(function() try(nil, "no luck") end)
      local ok, why = f()
      return ok, why, state
    ]])
    assert.equal("1|2", run "return socket.protect(function() return socket.try(1, 2) end)()")
    assert.matches("^raised: script:1: mine", run "socket.protect(function() error 'mine' end)()")
  end)

  it("selects one socket", function()
    local peer = net.listen(function(conn) conn:read_until "go" conn:send "x" conn:skip() end)
    assert.equal("timeout|0|true|true", run(([[
      local s = socket.connect("127.0.0.1", %d)
      local readers, _, word = socket.select({ s }, nil, 0.01)
      local _, writers = socket.select(nil, { s })
      s:send "go"
      local later = socket.select({ s }, nil, 5)
      return word, #readers, writers[s] ~= nil, later[1] == s
    ]]):format(peer.port)))
    assert.matches("one socket at a time", run "local a, b = socket.tcp(), socket.tcp() socket.select({ a, b })")
  end)

  it("makes sources and sinks", function()
    local got = {}
    local peer = net.listen(function(conn)
      conn:send(("s"):rep(5000))
      conn:shutdown()
      got[1] = conn:read_all()
    end)
    assert.equal("5000|sunk", run(([[
      local s = socket.connect("127.0.0.1", %d)
      local length = 0
      for chunk in socket.source("by-length", s, 3000) do length = length + #chunk end
      local sink = socket.sink("keep-open", s)
      sink "sunk"
      for chunk in socket.source("until-closed", s) do length = length + #chunk end
      return length, "sunk"
    ]]):format(peer.port)))
    support.eventually("what was sunk", function() return got[1] end)
    assert.equal("sunk", got[1])
  end)

  it("says what it does not have", function()
    assert.matches("socket.udp: there is no UDP for scripts", run "socket.udp()")
    assert.matches("socket.bind: scripts cannot listen", run "socket.bind('*', 80)")
    assert.matches("a local address cannot be chosen", run "socket.connect('127.0.0.1', 1, '127.0.0.1', 2)")
  end)
end)
