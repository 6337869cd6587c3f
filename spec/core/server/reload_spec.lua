-- Reloading: the new config serves, the old one finishes, and a bad one changes nothing.

local support = require "support"
local uv = require "luv"
local it, net, http, process, moongate = support.it, support.net, support.http, support.process, support.moongate

-- A site that answers by itself.
local function answering(body, more)
  return ([[
    local gate = require "moongate"
    return {
      listen = "127.0.0.1:$PORT", backends = {}, %s
      on_request = function(req) return gate.reply(200, %q) end,
    }
  ]]):format(more or "", body)
end

local function proxying(more)
  local sites = [[sites = { { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } } } }]]
  return ("return { %s, %s }"):format(sites, more or "")
end

-- Memory that a freed block leaves is a sanitizer's to keep.
local function assert_flat(before, after, room)
  if process.preset:find "san$" then return end
  assert.is_true(after < before + room, ("%d, then %d bytes"):format(before, after))
end

local function status_number(gate, name)
  local _, out = gate:command("status", "--json")
  return tonumber(out:match(('"%s":(%%d+)'):format(name)))
end

describe("a reload", function()
  it("serves the new config when the command returns", function()
    local gate = moongate.start { config = answering "one" }
    assert.equal("one", http.get(gate.port).body)
    for _, body in ipairs { "two", "three", "four" } do
      gate:write_config(answering(body))
      local status, out, err = gate:command "reload"
      assert.equal(0, status)
      assert.equal("", err)
      assert.matches("generation %d serves\n$", out)
      for _ = 1, 8 do assert.equal(body, http.get(gate.port).body) end
    end
  end)

  it("is begun by SIGHUP, too", function()
    local gate = moongate.start { config = answering "one" }
    gate:write_config(answering "two")
    gate:signal "hup"
    gate:wait_log "generation 2 serves"
    assert.equal("two", http.get(gate.port).body)
  end)

  it("keeps connections open", function()
    local gate = moongate.start { config = answering "one" }
    local conn = net.connect(gate.port)
    assert.equal("one", http.get(gate.port, "/", { conn = conn }).body)
    gate:reload_with(answering "two")
    assert.equal("two", http.get(gate.port, "/", { conn = conn }).body)
  end)

  it("lets an exchange finish under the config it began with", function()
    local backend = net.listen()
    local function config(name)
      return ([[
        return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } },
          on_response = function(req, res) res.headers["X-Config"] = "%s" end }
      ]]):format(name)
    end
    local gate = moongate.start { config = config "old", values = { BACKEND = backend } }
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    gate:reload_with(config "new")
    assert.equal(2, status_number(gate, "generations_live"))
    conn:send(http.encode_response { body = "x" })
    assert.equal("old", http.response(client).headers["X-Config"])
    support.eventually("the old generation to go", function() return status_number(gate, "generations_live") == 1 end)
  end)

  it("closes the policy of an old generation after the drain time; the body flows on", function()
    local backend = net.listen()
    local gate = moongate.start { config = proxying "drain = 0.2", values = { BACKEND = backend } }
    local client = net.connect(gate.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin"
    client:read_until "begin"
    gate:reload_with(proxying "drain = 0.2")
    support.eventually("the old generation to go", function() return status_number(gate, "generations_live") == 1 end)
    conn:send "ended"
    client:read_until "ended"
  end)

  it("lets at most four generations live", function()
    local backend = net.listen()
    local gate = moongate.start { config = proxying(), values = { BACKEND = backend } }
    local clients, conns = {}, {}
    for i = 1, 8 do
      clients[i] = net.connect(gate.port)
      clients[i]:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
      conns[i] = backend:accept()
      http.request(conns[i])
      assert.equal(0, (gate:reload()))
      assert.is_true(status_number(gate, "generations_live") <= 4)
    end
    for i = 1, 8 do
      conns[i]:send(http.encode_response { body = "x" })
      http.response(clients[i])
    end
    support.eventually("the old generations to go", function() return status_number(gate, "generations_live") == 1 end)
  end)

  it("answers each of many commands truly, and ends with the last config", function()
    local gate = moongate.start { config = answering "0" }
    local tasks = {}
    for i = 1, 20 do
      gate:write_config(i % 4 == 0 and "return {{" or answering(tostring(i)))
      tasks[i] = support.spawn(function() return gate:reload() end)
    end
    gate:write_config(answering "last")
    for i = 1, 20 do tasks[i]:join() end
    assert.equal(0, (gate:reload()))
    assert.equal("last", http.get(gate.port).body)
  end)
end)

describe("listeners over a reload", function()
  it("come and go with the config", function()
    local gate = moongate.start { config = answering "one" }
    gate:reload_with(answering("two", [[hosts = nil,]]):gsub("%$PORT\"", "$PORT2\""))
    assert.equal("two", http.get(gate.values.PORT2).body)
    assert.is_nil((net.try_connect(gate.port)))
    gate:reload_with(answering "three")
    assert.equal("three", http.get(gate.port).body)
    assert.is_nil((net.try_connect(gate.values.PORT2)))
  end)

  it("can be unix sockets", function()
    local gate = moongate.start { config = answering "one" }
    gate:reload_with(answering "two":gsub("127.0.0.1:$PORT", "unix:$DIR/web.sock"))
    local path = gate.dir .. "/web.sock"
    local conn = net.connect(path)
    assert.equal("two", http.get(path, "/", { conn = conn }).body)
    gate:reload_with(answering "three")
    assert.is_nil(uv.fs_lstat(path))
  end)

  it("leave everything as it was when one cannot be bound", function()
    local other = net.listen()
    local gate = moongate.start { config = answering "one", values = { OTHER = other } }
    gate:write_config(answering "two":gsub('"127.0.0.1:$PORT"', '{ "127.0.0.1:$PORT", "127.0.0.1:$PORT2", "$OTHER" }'))
    local status, output = gate:reload()
    assert.equal(1, status)
    assert.matches("listen[3]: cannot listen on " .. other.address, output, 1, true)
    assert.equal("one", http.get(gate.port).body)
    assert.is_nil((net.try_connect(gate.values.PORT2)))
  end)
end)

describe("a config that fails", function()
  local function assert_refused(text, ...)
    local gate = moongate.start { config = answering "one" }
    gate:write_config(text)
    local status, out, err = gate:command "reload"
    assert.equal(1, status)
    assert.equal("", out)
    for _, part in ipairs { ... } do assert.is_truthy(err:find(part, 1, true), part .. " in " .. err) end
    assert.equal("one", http.get(gate.port).body)
    gate:wait_log "the config was not loaded: generation 1 goes on"
    gate:write_config(answering "two")
    assert.equal(0, (gate:reload()))
    assert.equal("two", http.get(gate.port).body)
  end

  it("because of its syntax keeps the old one serving", function()
    assert_refused("return {\n{{\n", "moongate.lua:")
  end)

  it("because of its settings tells all of them, with lines", function()
    local text = "return {\n listen = 'nowhere',\n wrokers = 1,\n}"
    assert_refused(text, "moongate.lua:2: listen: ", "moongate.lua:3: wrokers: ")
  end)

  it("because it raises tells where", function()
    assert_refused("local x = nil\nlocal y = x.z\n", "moongate.lua:2: ")
  end)

  it("because it does not end keeps the old one serving", function()
    assert_refused("while true do end", "moongate.lua:1: ")
  end)

  it("because of its on_load keeps the old one serving, and says it once", function()
    local gate = moongate.start { config = answering "one", workers = 3 }
    gate:write_config(answering("two", "on_load = function() error 'no thanks' end,"))
    local status, output = gate:reload()
    assert.equal(1, status)
    assert.matches("no thanks", output)
    assert.equal(1, select(2, output:gsub("no thanks", "")))
    assert.equal("one", http.get(gate.port).body)
  end)

  it("because its runs differ keeps the old one serving", function()
    assert_refused([[
      local gate = require "moongate"
      local idle = 1 + gate.clock() % 100
      return { listen = "127.0.0.1:$PORT", backends = { a = { "127.0.0.1:9" } }, timeouts = { idle = idle } }
    ]], "moongate.lua:2: timeouts.idle: it is not the same each time the file runs")
  end)

  it("again and again leaks nothing", function()
    local gate = moongate.start { config = answering "one" }
    gate:write_config(answering("two", "on_load = function() error 'no' end,"))
    local function round()
      for _ = 1, 30 do assert.equal(1, (gate:reload())) end
      return gate:rss()
    end
    round()
    local before = round()
    local after = round()
    assert_flat(before, after, 2 * 1024 * 1024)
  end)
end)

describe("over a reload", function()
  it("what on_unload returned reaches on_load", function()
    local function config(name)
      return ([[
        local gate = require "moongate"
        local count = 0
        return {
          listen = "127.0.0.1:$PORT", backends = {},
          on_load = function(state) if state then count = state.count end end,
          on_unload = function() return { count = count, by = "%s" } end,
          on_request = function() count = count + 1 return gate.reply(200, "%s " .. count) end,
        }
      ]]):format(name, name)
    end
    local gate = moongate.start { config = config "a", workers = 1 }
    assert.equal("a 1", http.get(gate.port).body)
    assert.equal("a 2", http.get(gate.port).body)
    gate:reload_with(config "b")
    assert.equal("b 3", http.get(gate.port).body)
  end)

  it("log files change and no line is lost", function()
    local backend = http.backend "hello"
    local gate = moongate.start { config = proxying [[log = { access = "a.log" }]], values = { BACKEND = backend } }
    for _ = 1, 10 do http.get(gate.port, "/a") end
    gate:reload_with(proxying [[log = { access = "b.log" }]])
    for _ = 1, 10 do http.get(gate.port, "/b") end
    assert(uv.fs_rename(gate.dir .. "/b.log", gate.dir .. "/b.old"))
    local mark = gate:log_mark()
    gate:signal "usr1"
    gate:wait_log("logs are reopened", { from = mark })
    for _ = 1, 10 do http.get(gate.port, "/c") end
    gate:stop()
    local function count(file, target)
      return select(2, process.read_file(gate.dir .. "/" .. file):gsub("GET " .. target .. " ", ""))
    end
    assert.equal(10, count("a.log", "/a"))
    assert.equal(10, count("b.old", "/b") + count("b.log", "/b"))
    assert.equal(10, count("b.log", "/c"))
    assert.equal(0, count("b.old", "/c"))
  end)

  it("workers stay as they are, which the command says", function()
    local dir, port = support.temp_dir(), support.free_port()
    local function write(workers)
      process.write_file(dir .. "/moongate.lua", ([[
        return { sites = { { listen = "127.0.0.1:%d", backends = { a = { "127.0.0.1:9" } } } }, workers = %d }
      ]]):format(port, workers))
    end
    local control = { "--control", dir .. "/control.sock" }
    write(2)
    local proxy = process.spawn { moongate.binary, "run", dir .. "/moongate.lua", table.unpack(control) }
    proxy:wait_line("stdout", "^moongate: ready")
    write(4)
    local status, out = moongate.run { "reload", table.unpack(control) }
    assert.equal(0, status)
    assert.matches("workers: 4 takes effect at a restart; it is 2 now", out)
    assert.matches('"workers":2', (select(2, moongate.run { "status", "--json", table.unpack(control) })))
    assert.equal(0, (moongate.run { "stop", table.unpack(control) }))
    assert.equal(0, proxy:wait())
  end)

  it("max_connections changes", function()
    local values = { BACKEND = http.backend "hello" }
    local gate = moongate.start { config = proxying "max_connections = 2", workers = 1, values = values }
    local first, second = net.connect(gate.port), net.connect(gate.port)
    for _, conn in ipairs { first, second } do assert.equal(200, http.get(gate.port, "/", { conn = conn }).status) end
    local third = net.connect(gate.port)
    third:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.equal(200, http.get(gate.port, "/", { conn = first }).status)
    assert.equal("", third:pending())
    gate:reload_with(proxying "max_connections = 3")
    assert.equal(200, http.response(third).status)
    local fourth = net.connect(gate.port)
    fourth:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    first:close()
    assert.equal(200, http.response(fourth).status)
  end)
end)

describe("many reloads under load", function()
  it("fail no request and grow no memory", function()
    local gate = moongate.start { config = proxying(), values = { BACKEND = http.backend "hello" } }
    local running, served = true, 0
    local clients = {}
    for i = 1, 4 do
      clients[i] = support.spawn(function()
        local conn = net.connect(gate.port)
        while running do
          assert.equal(200, http.get(gate.port, "/", { conn = conn }).status)
          served = served + 1
        end
      end)
    end
    local function round()
      for _ = 1, 50 do assert.equal(0, (gate:reload())) end
      return gate:rss()
    end
    round()
    local before = round()
    local after = round()
    running = false
    for i = 1, 4 do clients[i]:join() end
    assert.is_true(served > 100)
    assert_flat(before, after, 4 * 1024 * 1024)
    support.eventually("the old generations to go", function() return status_number(gate, "generations_live") == 1 end)
  end)
end)
