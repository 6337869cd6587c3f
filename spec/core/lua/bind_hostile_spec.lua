-- Every C function of the bindings that a script can reach, metamethods and iterators included, with arguments nobody
-- would write. Under the sanitizers this is where they earn their keep.

local support = require "support"
local mmdb = require "support.mmdb"
local it, http = support.it, support.http

local config = [[
local gate = require "moongate"
local geo = gate.mmdb "$GEO"

local function lying(...)
  return setmetatable({ ... }, {
    __index = function() return "x" end, __newindex = function() end, __len = function() return math.maxinteger end,
    __pairs = function() return function() return "x", "y" end end, __tostring = function() return "lie" end,
    __name = "moongate.req", __eq = function() return true end, __call = function() return 1 end,
  })
end

local limit = gate.limit { name = "hostile", rate = 1000, burst = 20, concurrent = 10, max = "64K" }

local map = gate.map { x = { 1, 2, y = "z" }, ["*.a"] = 1 }
local edwards = gate.crypto.key {
  kty = "OKP", crv = "Ed25519", x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
  d = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
}

local function values_of(req, res)
  local values = {
    "", "x", "app", "/", "all", "\0", ("x"):rep(100), ("x"):rep(70000), "a\r\nb: c", "500ms", "1K", "-1", "Host",
    "X-A", "Content-Length", "http://[::1", "https://127.0.0.1:1/", "%", "Zg==", 0, 1, -1, 2, 200, 404, 0.5, 1e308,
    -1e308, 1 / 0, -1 / 0,
    0 / 0, math.maxinteger, math.mininteger, 2 ^ 53, true, false, {}, { 1, 2, 3 }, { a = "b" }, { ["X-A"] = "b" },
    { ["a b"] = {} }, { [{}] = 1 }, { max = "64K" }, { timeout = 0.001, path = "/x" }, { timeout = 0.001,
    tls = { verify = false } },
    { headers = { a = {} } }, lying(), lying { a = 1 }, gate.tls { verify = false }, { ca = "x" },
    { verify = false, name = "a", pins = {} }, print, coroutine.create(print), gate, io.stdout, gate.reply(200, "x",
    { a = "b" }),
    gate.backend "app", gate.shared("hostile", { max = "256K" }), limit, limit:enter "slot" or {},
    map, req, req.headers, req.args, req.cookies, req.client,
    req.cache, req.ctx, req.body, gate.cidr { "10.0.0.0/8", ["::/0"] = {} }, gate.cidr { "::1" }, gate.json.null,
    gate.re "(a)(?<b>b)?", gate.re("", "u"), "$1", "(", "[a-z]+", "im",
    { "10.0.0.0/8", "::1" }, { ["10.0.0.0/8"] = "x" }, "10.1.2.3", "::ffff:10.0.0.1", '{"a":[1,{"b":null}]}', "[[[[",
    gate.metrics.counter { name = "hostile_total", help = "", labels = { "a" }, series = 10 },
    { a = 1 }, { name = "x" },
    geo, "country", "$GEO",
    gate.metrics.gauge { name = "hostile", help = "" }, { name = "y", help = "", labels = { "a", "b" } },
    gate.metrics.histogram { name = "hostile_seconds", help = "", labels = { "a", "b" } }, { a = "x", b = true },
    gate.crypto.hasher "md5", gate.crypto.key { kty = "oct", k = "AAAA" }, edwards,
    "sha256", { alg = "HS256" }, { algorithms = { "HS256" }, keys = ("k"):rep(32) }, "eyJhbGciOiJIUzI1NiJ9.e30.AA",
    { keys = { { kty = "oct", k = "AAAA" }, 5 } }, '{"keys":[{"kty":"oct","k":"AAAA"}]}',
    gate.fetch("app", { stream = true }), gate.fetch("app", { stream = true }).body,
    { stream = true }, { body = req.body }, { body = print }, { redirects = 3 }, { plain = true },
  }
  for i = 1, 20 do
    local sock = assert(i % 2 == 0 and gate.socket.tcp() or gate.socket.unix())
    sock:settimeout(0.001)
    if i > 15 and i % 2 == 0 then sock:connect("127.0.0.1", $PORT) end
    values[#values + 1] = sock
  end
  for i = 1, 5 do values[#values + 1] = gate.lock.try("hostile" .. i, { ttl = 60 }) end
  if res then values[#values + 1] = res values[#values + 1] = res.headers values[#values + 1] = res.body end
  return values
end

-- Name and function of all there is.
local function functions_of(values)
  local found, seen = {}, {}
  local function add(name, f)
    if type(f) ~= "function" or seen[f] then return end
    seen[f] = true
    found[#found + 1] = { name = name, call = f }
  end
  for name, f in pairs(gate) do
    if not ("log sleep all spawn every"):find(name, 1, true) then add("gate." .. name, f) end
  end
  for name, library in pairs(gate) do
    for method, f in pairs(type(library) == "table" and library or {}) do add(name .. "." .. method, f) end
  end
  add("lock", function(...) return gate.lock(...) end)
  add("lock.try", gate.lock.try)
  for _, value in ipairs(values) do
    local metatable = type(value) == "userdata" and value ~= io.stdout and debug.getmetatable(value)
    for event, f in pairs(metatable or {}) do
      if event ~= "__gc" then add(metatable.__name .. "." .. event, f) end
      local methods = type(f) == "function" and select(2, debug.getupvalue(f, 2))
      if type(methods) == "table" then
        for method, g in pairs(methods) do add(metatable.__name .. ":" .. tostring(method), g) end
      end
    end
  end
  for _, object in ipairs { values.headers, values.args, values.cookies } do add("iterator", (pairs(object))) end
  return found
end

local random = 1
local function pick(list)
  random = (random * 1103515245 + 12345) & 0x7fffffff
  return list[(random >> 8) % #list + 1]
end

-- Calls of those that may wait.
local waiting = { ["gate.fetch"] = 50, ["socket.connect"] = 20, ["dns.resolve"] = 20, lock = 50 }

local function torture(req, res, rounds)
  local values = values_of(req, res)
  values.headers, values.args, values.cookies = req.headers, req.args, req.cookies
  local functions, calls = functions_of(values), 0
  for _, f in ipairs(functions) do
    local slow = f.name:find "^crypto%.[ps][ac][sr]" or f.name == "crypto.pbkdf2"
    for _ = 1, waiting[f.name] or slow and math.min(rounds, 50) or rounds do
      local arguments = {}
      for i = 1, pick { 0, 1, 2, 2, 3, 3, 3, 4, 5 } do arguments[i] = pick(values) end
      pcall(f.call, table.unpack(arguments, 1, 5))
      calls = calls + 1
    end
  end
  for _, value in ipairs(values) do
    if type(value) == "userdata" and value ~= io.stdout then
      for _, key in ipairs(values) do
        pcall(function() return value[key] end)
        for _ = 1, 3 do pcall(function() value[key] = pick(values) end) end
      end
      pcall(function() return #value .. value < value end)
      pcall(function() for _ in pairs(value) do end end)
      pcall(tostring, value)
    end
  end
  return ("%d functions, %d calls"):format(#functions, calls)
end

local site = {
  listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } }, unsafe = { "debug", "io" },
  lua = { hook_cpu = 10, memory = "256M" },
  timeouts = { head = "100ms", idle = "100ms" }, -- sockets are connected to it that wait without end
}

function site.on_request(req)
  if req.path ~= "/torture" then return end
  req.ctx.said = torture(req, nil, $ROUNDS)
  if req.args.reply then return gate.reply(200, req.ctx.said) end
  req.path, req.method, req.host = "/torture", "POST", "a"
end

function site.on_response(req, res)
  if req.path ~= "/torture" then return end
  req.ctx.said = req.ctx.said .. "; " .. torture(req, res, $ROUNDS)
  return gate.reply(200, req.ctx.said)
end

return site
]]

describe("the bindings", function()
  it("survive hostile arguments", function()
    local backend = http.backend "answer"
    -- ThreadSanitizer does not see Lua's longjmp unwind the stack, and ends the process after some ten thousand errors.
    local geo = support.temp_dir(true) .. "/geo.mmdb"
    mmdb.write(geo, { ["10.0.0.0/8"] = { country = { iso_code = "XX" }, list = mmdb.list { 1, 2 } } })
    local values = { BACKEND = backend, GEO = geo, ROUNDS = support.process.preset == "tsan" and 10 or 300 }
    local proxy = support.moongate.start { config = config, values = values, workers = 1,
      env = { MOONGATE_NAMESERVER = "127.0.0.1:" .. support.free_port() } } -- who asks is refused at once
    for _ = 1, 3 do
      local response = http.post(proxy.port, "/torture", "body", { timeout = 60 })
      assert.equal(200, response.status)
      assert.truthy(response.body:find "^%d+ functions, %d+ calls")
    end
    assert.equal("answer", http.get(proxy.port, "/").body)
  end)
end)
