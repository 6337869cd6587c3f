-- The harness, tried on itself: its clients against its servers, its deadlines, its clean-up.

local support = require "support"
local uv = require "luv"
local async, net, http, process = support.async, support.net, support.http, support.process
local websocket, moongate = support.websocket, support.moongate
local it, plain_it = support.it, it

-- The message with which a body fails when it is a spec of its own. (For plain_it: specs don't nest.)
local function failure_of(body)
  local ok, err = pcall(async.run, body)
  assert.is_false(ok, "the body was expected to fail")
  return type(err) == "table" and err.message or err
end

-- Runs `body` with deadlines of a moment.
local function impatiently(body)
  return function()
    local before = async.deadline
    async.deadline = 0.05 / async.slow
    local ok, err = pcall(body)
    async.deadline = before
    if not ok then error(err, 0) end
  end
end

describe("tasks", function()
  it("run side by side and give back what they return", function()
    local signal, seen = async.signal(), nil
    local waiting = support.spawn(function()
      return async.wait(signal, function() return seen end, "the other task")
    end)
    seen = "first"
    signal:notify()
    assert.equal("first", waiting:join())
    assert.same({ 1, 2 }, { support.all(function() return 1 end, function()
      support.sleep(0.01)
      return 2
    end) })
  end)

  it("raise in join what the task raised", function()
    local task = support.spawn(function() error "oh" end)
    local ok, err = pcall(task.join, task)
    assert.is_false(ok)
    assert.matches("support_spec.lua:%d+: oh", err)
  end)

  it("wait inside pcall", function()
    local ok, value = pcall(function()
      support.sleep(0.001)
      return "through"
    end)
    assert.same({ true, "through" }, { ok, value })
  end)
end)

describe("a failing spec", function()
  plain_it("keeps busted's failure and shows where it came from", function()
    local ok, err = pcall(async.run, function() assert.equal(1, 2) end)
    assert.is_false(ok)
    assert.equal("failure", debug.getmetatable(err).__type)
    assert.matches("support_spec.lua:%d+: Expected objects to be equal", err.message)
  end)

  plain_it("shows the traceback of an error", function()
    local function inner() error "deep" end
    local message = failure_of(function()
      inner()
      return nil
    end)
    assert.matches("support_spec.lua:%d+: deep", message)
    assert.matches("support_spec.lua:%d+: in .*'inner'", message)
  end)

  plain_it("says what it waited for and what it had seen", impatiently(function()
    local message = failure_of(function()
      local server = net.listen(function(conn)
        conn:send "half a li"
        conn:read_all(60)
      end)
      net.connect(server.port):read_until "\r\n"
    end)
    assert.matches('support_spec.lua:%d+: waited [%d.]+ s for bytes up to "\\r\\n"', message)
    assert.matches('so far: "half a li" %(9 bytes in all, conn open%)', message)
  end))

  plain_it("does not wait for the deadline when the conn has ended", function()
    local message = failure_of(function()
      local server = net.listen(function(conn) conn:send "bye" end)
      net.connect(server.port):read_exactly(4)
    end)
    assert.matches('the conn ended before 4 bytes\n  received: "bye" %(3 bytes in all, conn EOF%)', message)
  end)

  plain_it("is failed by a handler of its servers", function()
    local message = failure_of(function()
      local server = net.listen(function() error "the handler's" end)
      net.connect(server.port):read_all()
    end)
    assert.matches("support_spec.lua:%d+: the handler's", message)
  end)

  plain_it("closes what it opened, last first, and tells what went wrong in that", function()
    local order, port = {}, nil
    local message = failure_of(function()
      port = net.listen().port
      for i = 1, 3 do
        async.scope():own({}, function()
          order[#order + 1] = i
          if i == 2 then error "stuck" end
        end)
      end
      async.scope():witness(function() return "the log" end)
      error "first of all"
    end)
    assert.same({ 3, 2, 1 }, order)
    assert.matches("first of all.*and when closing: .*stuck.*the log", message)
    async.run(function() assert.same({ nil, "ECONNREFUSED" }, { net.try_connect(port) }) end)
  end)

  plain_it("stays pending when it says so", function()
    local ok, err = pcall(async.run, function() pending "not yet" end)
    assert.is_false(ok)
    assert.equal("pending", (debug.getmetatable(err) or {}).__type or err)
  end)

  plain_it("kills and reaps its processes", function()
    local pid
    failure_of(function()
      pid = process.spawn({ "sleep", "1000" }).pid
      error "on purpose"
    end)
    assert.is_nil(uv.fs_stat("/proc/" .. pid))
  end)

  plain_it("leaves no open handle behind", function()
    local function count()
      local n = 0
      uv.walk(function(handle) n = n + (handle:is_closing() and 0 or 1) end)
      return n
    end
    async.run(function() process.run { "true" } end)
    local before = count()
    failure_of(function()
      local server = net.listen(function(conn) conn:read_all() end)
      for _ = 1, 5 do net.connect(server.port) end
      process.spawn { "sleep", "1000" }
      error "on purpose"
    end)
    assert.equal(before, count())
  end)
end)

describe("setup and before_each", function()
  local server, each
  support.setup(function()
    server = http.backend "from setup"
  end)
  support.before_each(function()
    each = net.listen(function(conn) conn:send "each" end)
  end)

  for round = 1, 2 do
    it("open what outlives their bodies, round " .. round, function()
      assert.equal("from setup", http.get(server.port).body)
      assert.equal("each", net.connect(each.port):read_all())
      assert.equal(round, #server.requests)
    end)
  end
end)

describe("conns", function()
  it("carry bytes both ways and end", function()
    local server = net.listen()
    local client = net.connect(server.port)
    local conn = server:accept()
    client:send "ping, pong"
    assert.equal("ping", conn:read_until "ping")
    assert.equal(", ", conn:read_exactly(2))
    assert.equal("pong", conn:read_some())
    client:shutdown()
    conn:expect_eof()
    conn:send "still here"
    conn:close()
    assert.equal("still here", client:read_all())
  end)

  it("tell a reset from an end", function()
    local server = net.listen()
    local one, two = net.connect(server.port), net.connect(server.port)
    local first, second = server:accept(), server:accept()
    first:reset()
    one:expect_reset()
    second:close()
    two:expect_eof()
    two:expect_closed()
    one:expect_closed()
  end)

  it("stop the other side by not reading", function()
    local server = net.listen(nil, { reading = false })
    local client = net.connect(server.port)
    local conn = server:accept()
    local taken = client:send_until_blocked(("x"):rep(65536))
    assert.is_true(taken > 65536)
    conn:start_reading()
    assert.equal(taken, conn:skip(taken))
    client:shutdown()
    assert.equal(client.sent, conn:skip())
  end)

  it("pass over Unix sockets", function()
    local path = support.temp_dir() .. "/echo.sock"
    local server = net.listen(function(conn) conn:send(conn:read_until "%.") end, { path = path })
    assert.equal("unix:" .. path, server.address)
    local client = net.connect(path)
    client:send "hello."
    assert.equal("hello.", client:read_all())
  end)

  it("are refused by a free port and hang in a black hole", function()
    assert.same({ nil, "ECONNREFUSED" }, { net.try_connect(net.refusing_port()) })
    local port, outcome = net.black_hole(), nil
    support.spawn(function() outcome = net.try_connect(port, { timeout = 60 }) end)
    support.sleep(0.05)
    assert.is_nil(outcome)
  end)

  it("find ports that are free and differ", function()
    local seen = {}
    for _ = 1, 100 do
      local port = net.free_port()
      assert.is_nil(seen[port])
      seen[port] = true
    end
  end)
end)

describe("http", function()
  it("keeps a conn alive and reads lengths, chunks and trailers", function()
    local backend = http.backend(function(request)
      if request.target == "/chunks" then
        local headers = { { "x-A", "1" }, { "X-a", "2" } }
        return { status = 200, headers = headers, body = { "one", "two" }, trailers = { ["X-Sum"] = "6" } }
      end
      return 201, { Echo = request.method }, request.body
    end)
    local conn = net.connect(backend.port)
    local chunked = http.get(backend.port, "/chunks", { conn = conn })
    assert.same({ "one", "two" }, chunked.chunks)
    assert.equal("6", chunked.trailers["x-sum"])
    assert.equal("1, 2", chunked.headers["X-A"])
    assert.same({ "x-A", "X-a", "Transfer-Encoding" }, chunked.headers:names())

    local posted = http.post(backend.port, "/", { "a", "b" }, { conn = conn })
    assert.same({ 201, "POST", "ab" }, { posted.status, posted.headers.echo, posted.body })
    assert.same({ "a", "b" }, backend.requests[2].chunks)
    assert.equal("", http.exchange(backend.port, "HEAD", "/", { conn = conn }).body)
    assert.equal(1, backend.accepted)
    assert.equal("/chunks", http.await_request(backend).target)
  end)

  it("collects interim responses", function()
    local server = net.listen(function(conn)
      http.request(conn)
      conn:send "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
      conn:send "HTTP/1.1 200 OK\r\n\r\nuntil close"
    end)
    local response = http.get(server.port)
    assert.equal(103, response.interim[1].status)
    assert.equal("until close", response.body)
  end)

  it("gives a conn to a handler that returns nothing", function()
    local backend = http.backend(function(request) request.conn:send "HTTP/1.0 200 OK\r\n\r\nby hand" end)
    assert.equal("by hand", http.get(backend.port).body)
  end)

  it("counts requests that were cut short", function()
    local backend = http.backend()
    local client = net.connect(backend.port)
    client:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"
    client:reset()
    async.wait(backend.signal, function() return backend.aborted == 1 end, "the backend to see it")
  end)

  local not_http = {
    ["a bare LF"] = "HTTP/1.1 200 OK\n\r\n",
    ["a fold"] = "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    ["a space before the colon"] = "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    ["a status of four digits"] = "HTTP/1.1 2000 OK\r\n\r\n",
    ["a sign in a length"] = "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    ["two lengths"] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    ["both framings"] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ["a chunk longer than its size"] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
  }
  for name, bytes in pairs(not_http) do
    plain_it("refuses " .. name, function()
      failure_of(function()
        local server = net.listen(function(conn)
          http.request(conn)
          conn:send(bytes)
        end)
        http.get(server.port)
      end)
    end)
  end
end)

describe("websocket", function()
  it("computes the accept of RFC 6455", function()
    assert.equal("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", websocket.accept_of "dGhlIHNhbXBsZSBub25jZQ==")
  end)

  it("echoes frames of every length", function()
    local backend = websocket.backend()
    local client = websocket.connect(backend.port, "/chat")
    for _, size in ipairs { 0, 1, 125, 126, 65535, 65536, 200000 } do
      client:send(("m"):rep(size))
      local payload, kind = client:receive()
      assert.equal(size, #payload)
      assert.equal("text", kind)
    end
    client:send("are you there", "ping")
    assert.same({ "are you there", "pong" }, { client:receive() })
    client:close()
    assert.equal("/chat", backend.requests[1].target)
  end)
end)

describe("processes", function()
  it("give status, output and errors", function()
    local status, out, err = support.run({ "sh", "-c", "cat; echo oops >&2; exit 3" }, { stdin = "in\nput" })
    assert.same({ 3, "in\nput", "oops\n" }, { status, out, err })
  end)

  it("take an environment", function()
    local _, out = support.run({ "sh", "-c", "echo $COLOUR" }, { env = { COLOUR = "blue" } })
    assert.equal("blue\n", out)
  end)

  it("are seen line by line, with their children", function()
    local proc = process.spawn { "sh", "-c", "echo ready 17; sleep 100 & wait" }
    assert.equal("17", proc:wait_line("stdout", "^ready (%d+)$"))
    async.eventually("its child", function() return #proc:children() == 1 end)
    assert.is_true(process.rss(proc.pid) > 10000)
    proc:kill()
    assert.equal(137, proc.status)
  end)
end)

-- Stand-ins for the proxy: shell scripts that behave as it does, or not.
describe("moongate.start", function()
  local function with_binary(script, body)
    return function()
      local real = moongate.binary
      local ok, err = pcall(async.run, function()
        moongate.binary = support.temp_dir() .. "/moongate"
        process.write_file(moongate.binary, "#!/bin/sh\n" .. script)
        uv.fs_chmod(moongate.binary, 493) -- 0755
        body()
      end)
      moongate.binary = real
      if not ok then error(err, 0) end
    end
  end

  local good = [[
    [ "$1" = reload ] && { echo reloaded $3; exit 0; }
    trap 'echo draining >&2; exit 0' TERM
    echo "moongate: ready, pid $$, listening on 127.0.0.1:1, unix:/x"
    while :; do sleep 0.02; done
  ]]

  plain_it("fills the config in, waits until it is ready, and stops it", with_binary(good, function()
    local values = { BACKEND = { address = "127.0.0.1:7" } }
    local gate = moongate.start { values = values, config = "$PORT $PORT2 $BACKEND $OTHER $PORT" }
    local port, _, backend, other, again = process.read_file(gate.config):match "^(%d+) (%d+) (%S+) (%S+) (%d+)$"
    assert.same({ tostring(gate.port), "127.0.0.1:7", "$OTHER", port }, { port, backend, other, again })
    assert.equal("127.0.0.1:1, unix:/x", gate.listening)
    assert.same({ 0, "reloaded " .. gate.control .. "\n" }, { gate:reload() })
    gate:stop()
    gate:wait_log "^draining$"
  end))

  plain_it("tells the log of one that does not start", function()
    local script = "echo 'bad config' >&2; exit 1"
    local message = failure_of(with_binary(script, function() moongate.start { config = "" } end))
    assert.matches("it ended before a line like.*stderr| bad config", message)
  end)

  plain_it("fails the spec when it ends with another status", function()
    local script = good:gsub("exit 0' TERM", "exit 5' TERM")
    local message = failure_of(with_binary(script, function() moongate.start { config = "" } end))
    assert.matches("moongate ended with status 5, expected 0", message)
  end)

  plain_it("fails the spec when a sanitizer reports", function()
    local script = good:gsub("draining", "ERROR: AddressSanitizer: heap-use-after-free")
    local message = failure_of(with_binary(script, function() moongate.start { config = "" } end))
    assert.matches("moongate reports:\nERROR: AddressSanitizer", message)
  end)
end)
