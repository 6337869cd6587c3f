-- The disk tier, over the wire: what is stored outlives the process, whatever its end, and what cannot be read is
-- fetched. The files themselves are specified in spec/core/store/disk_spec.lua.
--
-- MOONGATE_CRASHES=100 kills as often, and writes what came of it to build/crashes.txt.

local support = require "support"
local cached = require "support.cached"
local uv = require "luv"
local it, http, moongate, process = support.it, support.http, support.moongate, support.process

-- In the hard build bytes come one by one, and some calls are refused: not for what asks for pieces or times.
local it_whole = support.process.preset == "hard" and pending or it

local asked = cached.asked

local crashes = tonumber(os.getenv "MOONGATE_CRASHES" or 8)

-- What /o/NAME/SIZE has to be.
local function body_of(target)
  local size = tonumber(target:match "(%d+)$")
  local line = target .. "|"
  return line:rep(size // #line + 1):sub(1, size)
end

local function start_backend()
  return http.backend(function(request)
    local headers = { ["Cache-Control"] = "max-age=1000", ["X-Target"] = request.target }
    if request.target:find "^/vary/" then headers.Vary = "Accept-Language" end
    if request.target:find "^/short/" then headers["Cache-Control"] = "max-age=5" end
    if request.method ~= "GET" then return 200, {}, "done\n" end
    local variant = headers.Vary and (request.headers["Accept-Language"] or "") .. "/100" or ""
    return 200, headers, body_of(request.target .. variant)
  end)
end

local function config_of(options)
  return ([[
    local gate = require "moongate"
    local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } }, %s
      cache = { purge = "127.0.0.1", memory = "%s", disk = { path = "%s", size = "%s" } } }
    return { %s sites = { site } }
  ]]):format(options.more or "", options.memory or "8M", options.path, options.size or "64M",
    options.top or "")
end

local function start(backend, options)
  return moongate.start {
    values = { BACKEND = backend, PORT = options.port }, config = config_of(options),
    may_crash = options.may_crash, status = options.status, workers = options.workers,
  }
end

local function get(gate, target, headers)
  return http.exchange(gate.port, "GET", target, { headers = headers })
end

local function assert_sound(target, response)
  assert.equal(200, response.status)
  assert.equal(target, response.headers["X-Target"])
  assert.is_true(body_of(target) == response.body, target .. ": not its body")
end

local function from_disk(response) return response.headers["Cache-Status"]:find("hit.*detail=disk") ~= nil end

local function wait_scanned(gate) gate:wait_log "stored responses found" end

-- At once, and so that the supervisor starts no other process.
local function kill(gate)
  local children = gate:children()
  uv.kill(gate.process.pid, "sigstop")
  for _, pid in ipairs(children) do uv.kill(pid, "sigkill") end
  gate.process:kill()
  gate.scope:disown(gate)
  children[#children + 1] = gate.process.pid
  support.eventually("the end of its processes", function()
    for _, pid in ipairs(children) do
      if uv.fs_stat(("/proc/%d/exe"):format(pid)) then return false end
    end
    return true
  end)
end

describe("the disk tier", function()
  local backend, path

  support.before_each(function()
    backend = start_backend()
    path = process.temp_dir(true) .. "/disk"
    uv.fs_mkdir(path, 511)
    uv.fs_chmod(path, 511) -- who serves is not who tests, when that is root
  end)

  -- Stops one proxy, starts the next on the same files.
  local function restart(gate, options)
    gate:stop()
    options = options or { path = path }
    options.port = gate.port -- it is part of every key
    gate = start(backend, options)
    wait_scanned(gate)
    return gate
  end

  local function start_here()
    local gate = start(backend, { path = path })
    wait_scanned(gate)
    return gate
  end

  it("answers after a restart with what was stored before", function()
    local gate = start_here()
    local targets = { "/o/a/10", "/o/b/0", "/o/c/70000", "/o/d/900000" }
    for _, target in ipairs(targets) do assert_sound(target, get(gate, target)) end
    gate = restart(gate)
    for _, target in ipairs(targets) do
      local response = get(gate, target)
      assert_sound(target, response)
      assert.is_true(from_disk(response), response.headers["Cache-Status"])
      assert.is_truthy(response.headers.Age)
      assert.is_false(from_disk(get(gate, target)))
      assert.equal(1, asked(backend, target))
    end
  end)

  it("keeps variants apart", function()
    local gate = start_here()
    local function ask(language) return get(gate, "/vary/x", { ["Accept-Language"] = language }) end
    for _, language in ipairs { "de", "en" } do ask(language) end
    gate = restart(gate)
    for _, language in ipairs { "en", "de" } do
      local response = ask(language)
      assert.is_true(from_disk(response), response.headers["Cache-Status"])
      assert.is_true(response.body == body_of("/vary/x" .. language .. "/100"))
    end
    assert.equal(2, asked(backend, "/vary/x"))
    assert.matches("fwd=vary%-miss", ask("fr").headers["Cache-Status"])
  end)

  it("answers HEAD, ranges, conditions and only-if-cached from there, too", function()
    local gate = start_here()
    for _, name in ipairs { "head", "range", "only" } do get(gate, "/o/" .. name .. "/5000") end
    gate = restart(gate)
    local head = http.exchange(gate.port, "HEAD", "/o/head/5000")
    assert.equal("5000", head.headers["Content-Length"])
    local part = get(gate, "/o/range/5000", { Range = "bytes=10-19" })
    assert.equal(206, part.status)
    assert.equal(body_of("/o/range/5000"):sub(11, 20), part.body)
    assert_sound("/o/only/5000", get(gate, "/o/only/5000", { ["Cache-Control"] = "only-if-cached" }))
    assert.equal(3, #backend.requests)
  end)

  it("has what memory has evicted", function()
    local gate = start(backend, { path = path, memory = "1M" })
    wait_scanned(gate)
    for i = 1, 20 do assert_sound("/o/" .. i .. "/100000", get(gate, "/o/" .. i .. "/100000")) end
    for i = 1, 20 do assert_sound("/o/" .. i .. "/100000", get(gate, "/o/" .. i .. "/100000")) end
    assert.is_true(#backend.requests < 25, #backend.requests .. " fetches")
  end)

  it_whole("loads once for all who ask at once, and long bodies piece by piece", function()
    local gate = start(backend, { path = path, memory = "64M", size = "1G" })
    wait_scanned(gate)
    local target = "/o/long/5000000"
    get(gate, target)
    gate = restart(gate, { path = path, memory = "64M", size = "1G" })
    local clients = {}
    for i = 1, 10 do
      clients[i] = function() assert_sound(target, get(gate, target)) end
    end
    support.all(table.unpack(clients))
    assert.equal(1, asked(backend, target))
  end)

  it("does not bring back what was purged or invalidated", function()
    local gate = start_here()
    get(gate, "/o/gone/100")
    get(gate, "/o/stays/100")
    http.post(gate.port, "/o/gone/100", "x")
    gate = restart(gate)
    assert.is_false(from_disk(get(gate, "/o/gone/100")))
    assert.is_true(from_disk(get(gate, "/o/stays/100")))
  end)

  -- What is purged stays so, though the process is killed as soon as the answer is there.
  local function assert_purged_for_good(purge, options)
    options = options or {}
    options.path, options.may_crash, options.status = path, true, 128 + 9
    options.port = options.port or support.free_port()
    for round = 1, 3 do
      local target = "/o/purged" .. round .. "/1000"
      local gate = start(backend, { path = path, port = options.port })
      wait_scanned(gate)
      get(gate, target)
      get(gate, "/o/stays/1000")
      gate:stop() -- both are written
      gate = start(backend, options)
      wait_scanned(gate)
      purge(gate, target, "http://localhost" .. target)
      kill(gate)
      gate = start(backend, { path = path, port = options.port })
      wait_scanned(gate)
      assert.is_false(from_disk(get(gate, target)))
      assert.is_true(from_disk(get(gate, "/o/stays/1000")))
      gate:stop()
    end
  end

  it("answers a PURGE when it is safe: a crash does not bring it back", function()
    assert_purged_for_good(function(gate, target)
      assert.equal(200, http.exchange(gate.port, "PURGE", target).status)
    end)
  end)

  it("ends `moongate cache purge` when it is safe", function()
    assert_purged_for_good(function(gate, _, url)
      assert.equal(0, (moongate.run { "cache", "purge", "--control", gate.control, "--url", url }))
    end)
  end)

  it("answers a purge on the admin listener when it is safe", function()
    local port = support.free_port()
    assert_purged_for_good(function(_, _, url)
      assert.equal(200, http.exchange(port, "POST", "/cache/purge?url=" .. url).status)
    end, { top = ("admin = '127.0.0.1:%d',"):format(port) })
  end)

  it("lets gate.cache.purge wait until it is safe", function()
    assert_purged_for_good(function(gate, target)
      assert.equal(200, http.exchange(gate.port, "GET", "/purge" .. target).status)
    end, { more = [[
      on_request = function(req)
        local path = req.path:match "^/purge(.*)"
        if path then return gate.reply(200, tostring(gate.cache.purge { url = path })) end
      end,
    ]] })
  end)

  it("answers an unsafe request when what it makes invalid is safely gone", function()
    assert_purged_for_good(function(gate, target)
      assert.equal(200, http.post(gate.port, target, "x").status)
    end)
  end)

  it("does not wait for what a script purges where nothing may wait", function()
    local gate = start(backend, { path = path, more = [[
      on_request = function()
        local ok, why = pcall(table.sort, { 1, 2 }, function() gate.cache.purge { all = true } end)
        return gate.reply(200, tostring(ok) .. " " .. tostring(why))
      end,
    ]] })
    wait_scanned(gate)
    assert.matches("^false .*cannot wait inside table.sort", get(gate, "/").body)
  end)

  it("does not write what is stale soon", function()
    local gate = start_here()
    get(gate, "/short/1")
    gate = restart(gate)
    assert.is_false(from_disk(get(gate, "/short/1")))
  end)

  it("is used by one process at a time: another one waits, and serves", function()
    local first = start_here()
    get(first, "/o/a/100")
    local second = start(backend, { path = path })
    second:wait_log "belongs to another process"
    assert_sound("/o/b/100", get(second, "/o/b/100"))
    first:stop()
    wait_scanned(second)
    assert_sound("/o/a/100", get(second, "/o/a/100"))
  end)

  it("moves with a reload, and is given up by one", function()
    local gate = start_here()
    get(gate, "/o/a/100")
    local other = process.temp_dir(true) .. "/disk"
    uv.fs_mkdir(other, 511)
    uv.fs_chmod(other, 511)
    local mark = gate:log_mark()
    gate:reload_with(config_of { path = other })
    gate:wait_log("0 stored responses found", { from = mark })
    get(gate, "/o/b/100")
    mark = gate:log_mark()
    gate:reload_with(config_of { path = path, size = "100M" })
    gate:wait_log("1 stored responses found", { from = mark })
    gate:reload_with((config_of { path = path }):gsub(", disk = %b{}", ""))
    assert_sound("/o/c/100", get(gate, "/o/c/100"))
  end)

  it("says what is wrong with its directory, and goes on without", function()
    local gate = start(backend, { path = "/proc/nothing/here" })
    gate:wait_log "cache.disk: cannot make /proc/nothing/here: .* memory alone is used"
    assert_sound("/o/a/100", get(gate, "/o/a/100"))
    assert.matches("; hit", get(gate, "/o/a/100").headers["Cache-Status"])
  end)

  it("is refused by check without path, size or memory, and where two have the same", function()
    local function check(text)
      local file = process.temp_dir() .. "/c.lua"
      process.write_file(file, text)
      return select(3, moongate.run { "check", file })
    end
    local site = [[{ listen = "127.0.0.1:%d", backends = { a = { "127.0.0.1:1" } }, cache = { %s } }]]
    local relative = [[memory = "1M", disk = { path = "x", size = "1G" }]]
    assert.matches("absolute path", check("return " .. site:format(1, relative)))
    assert.matches("needs a size", check("return " .. site:format(1, [[memory = "1M", disk = { path = "/x" }]])))
    assert.matches("needs `memory`", check("return " .. site:format(1, [[disk = { path = "/x", size = "1G" }]])))
    local one = site:format(1, [[memory = "1M", disk = { path = "/x", size = "1G" }]])
    local two = site:format(2, [[memory = "1M", disk = { path = "/x/", size = "1G" }]])
    local both = check(("return { sites = { %s, %s } }"):format(one, two))
    assert.matches("sites%[2%]%.cache%.disk%.path: sites%[1%] has its disk there", both)
  end)

  -- Clients that check all they get, until the process is killed under them.
  local function crash(gate, counts)
    local sizes, ended = { 10, 3000, 60000, 200000 }, false
    local function client()
      while not ended do
        local target = ("/o/%d/%d"):format(math.random(200), sizes[math.random(#sizes)])
        local method = math.random(30) == 1 and "PUT" or "GET"
        local ok, response = pcall(http.exchange, gate.port, method, target, { body = method == "PUT" and "x" or nil })
        if not ok then return end
        if method == "GET" then
          assert_sound(target, response)
          counts.answers = counts.answers + 1
          if from_disk(response) then counts.from_disk = counts.from_disk + 1 end
        end
      end
    end
    support.all(client, client, client, client, function()
      support.sleep(0.05 + math.random() * 0.15)
      ended = true
      kill(gate)
      assert.is_nil(gate:log():match "Sanitizer[^\n]*")
    end)
  end

  it_whole("serves nothing that is not what was stored, however often the process is killed", function()
    local options = { path = path, memory = "2M", size = "16M", may_crash = true, status = 128 + 9 }
    options.port = support.free_port()
    local counts = { answers = 0, from_disk = 0 }
    for _ = 1, crashes do
      local gate = start(backend, options)
      wait_scanned(gate)
      crash(gate, counts)
    end
    local message = ("%d kills, %d answers, %d of them from disk, none wrong")
      :format(crashes, counts.answers, counts.from_disk)
    if os.getenv "MOONGATE_CRASHES" then process.write_file("build/crashes.txt", message .. "\n") end
    assert.is_true(counts.from_disk > 0, message)
  end)
end)
