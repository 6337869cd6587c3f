-- Clients that leave at any moment, of answers that are stored, followed, cut, validated, purged and evicted while they
-- arrive, from backends that die, dawdle and change their minds. What arrives whole must be the body of its URL, in a
-- version the backend has had; nothing may be left of it, and the proxy stops at once. MOONGATE_SPEC_SEED repeats it.

local support = require "support"
local it, http, h2, net, moongate = support.it, support.http, support.h2, support.net, support.moongate

local seed = math.tointeger(tonumber(os.getenv "MOONGATE_SPEC_SEED" or os.time()))

local SIZES = { 0, 1, 100, 5000, 40000, 200000, 700000 } -- the last is larger than max_object
local KINDS = { "fresh", "stale", "tagged", "vary", "private", "odd", "page" }

local function one_of(list) return list[math.random(#list)] end
local function chance(p) return math.random() < p end

-- The body of a URL in a version: "[/fresh/3 v17]" over and over, cut to the size. So any part of it tells whose it is.
local made = {}
local function body_of(path, version)
  local key = path .. " v" .. version
  if not made[key] then
    local size, line = SIZES[tonumber(path:match "/(%d+)$")], "[" .. key .. "]"
    made[key] = (line:rep(size // #line + 1)):sub(1, size)
  end
  return made[key]
end

-- Backends -----------------------------------------------------------------------------------------------------------

local versions = {}

local function control_of(kind)
  if kind == "private" then return "private" end
  if kind == "stale" then return "max-age=0, stale-while-revalidate=5, stale-if-error=5" end
  if kind == "tagged" then return one_of { "no-cache", "max-age=0", "max-age=0, stale-if-error=5" } end
  return one_of { "max-age=1", "max-age=100", "s-maxage=1", "max-age=0" }
end

local function head_of(request, version)
  local path = request.target:match "^[^?]*"
  local kind = path:match "^/(%a+)"
  local headers = {
    ["Cache-Control"] = control_of(kind), ETag = ('"%s %d"'):format(path, version), ["X-Version"] = tostring(version),
    ["Surrogate-Key"] = kind .. " all", ["Content-Type"] = kind == "page" and "text/html" or "application/x-bytes",
  }
  if kind == "vary" then headers.Vary, headers["X-For"] = "X-Who", request.headers["X-Who"] or "nobody" end
  return path, headers
end

local function send_in_pieces(conn, text)
  local at = 1
  while at <= #text do
    local n = chance(0.7) and #text or math.random(1, 60000)
    if not conn:try_send(text:sub(at, at + n - 1)) then return false end
    at = at + n
    if chance(0.2) then support.sleep(0.002) end
  end
  return true
end

local function ranged(request, body, headers)
  local first, last = (request.headers.Range or ""):match "^bytes=(%d+)%-(%d*)$"
  first = tonumber(first)
  local condition = request.headers["If-Range"]
  if not first or first >= #body or chance(0.3) or (condition and condition ~= headers.ETag) then return 200, body end
  last = math.min(tonumber(last) or math.huge, #body - 1)
  if last < first then return 200, body end
  headers["Content-Range"] = ("bytes %d-%d/%d"):format(first, last, #body)
  return 206, body:sub(first + 1, math.tointeger(last) + 1)
end

local function answer(conn, request)
  local version = versions[request.target:match "^[^?]*"] or 1
  local path, headers = head_of(request, version)
  if chance(0.1) then versions[path] = version + 1 end
  if request.method ~= "GET" and request.method ~= "HEAD" then
    return conn:try_send(http.encode_response { status = 200, body = "done" })
  end
  if chance(0.04) then return false end
  if chance(0.04) then support.sleep(0.25) end -- longer than first_byte
  if chance(0.06) then
    return conn:try_send(http.encode_response { status = one_of { 500, 503, 404 }, body = "[error]" })
  end
  if request.headers["If-None-Match"] == headers.ETag then
    return conn:try_send(http.encode_response { status = 304, headers = headers })
  end
  local status, body = ranged(request, body_of(path, version), headers)
  if request.method == "HEAD" then
    headers["Content-Length"] = tostring(#body)
    return conn:try_send(http.encode_response { status = status, headers = headers })
  end
  local sent = body
  if #body > 1 and chance(0.5) then sent = { body:sub(1, #body // 2), body:sub(#body // 2 + 1) } end
  local text = http.encode_response { status = status, headers = headers, body = sent }
  if chance(0.06) then
    send_in_pieces(conn, text:sub(1, math.random(#text))) -- dies mid-body, or mid-head
    return false
  end
  return send_in_pieces(conn, text)
end

local function play_backend(conn)
  while not (conn.eof or conn.lost or conn.closed) do
    local ok, request = pcall(http.request, conn, 3)
    if not ok or not answer(conn, request) then break end
  end
  if conn.closed then return end
  if chance(0.5) then conn:reset() else conn:close() end
end

-- Clients ------------------------------------------------------------------------------------------------------------

local RANGES = { "bytes=0-99", "bytes=50-", "bytes=-10", "bytes=0-9,20-29", "bytes=1000-30000", "bytes=99999999-" }
local WISHES = { "no-cache", "no-store", "only-if-cached", "max-stale", "max-age=0" }

local function random_request()
  local target = ("/%s/%d"):format(one_of(KINDS), math.random(#SIZES))
  local method = chance(0.1) and "HEAD" or chance(0.04) and "POST" or chance(0.06) and "PURGE" or "GET"
  local headers = {}
  if chance(0.2) then headers[#headers + 1] = { "range", one_of(RANGES) } end
  if chance(0.1) then headers[#headers + 1] = { "if-none-match", one_of { "*", ('"%s 1"'):format(target) } } end
  if chance(0.1) then headers[#headers + 1] = { "cache-control", one_of(WISHES) } end
  if chance(0.5) then headers[#headers + 1] = { "x-who", one_of { "ann", "bob", "cyd" } } end
  if chance(0.3) then headers[#headers + 1] = { "accept-encoding", one_of { "gzip", "br", "identity" } } end
  if method == "PURGE" and chance(0.4) then
    headers[#headers + 1] = { "surrogate-key", one_of { "all", "fresh", "stale page" } }
  end
  if method == "PURGE" and chance(0.5) then headers[#headers + 1] = { "cache-purge", "soft" } end
  return { method = method, target = target, headers = headers }
end

local function field(request, name)
  for _, pair in ipairs(request.headers) do
    if pair[1] == name then return pair[2] end
  end
end

local checked = 0

local function describe_answer(request, response, why)
  return ("seed %d: %s %s %s: %s: %d, %d bytes %q, %s"):format(seed, request.method, request.target,
    field(request, "range") or "", why, response.status, #response.body, response.body:sub(1, 60),
    response.headers["Cache-Status"] or "no Cache-Status")
end

-- Only answers that came whole.
local function check(request, response)
  if request.method == "POST" or request.method == "PURGE" or response.headers["Content-Encoding"] then return end
  local function hold(condition, why) if not condition then error(describe_answer(request, response, why), 0) end end
  if request.method == "HEAD" or response.status == 304 or response.status == 416 then
    hold(response.body == "", "a body where none is")
    return
  end
  if response.status ~= 200 and response.status ~= 206 then return end
  local version = tonumber(response.headers["X-Version"])
  hold(version, "no version")
  local whole = body_of(request.target, version)
  local who = response.headers["X-For"]
  if who then hold(who == (field(request, "x-who") or "nobody"), "for somebody else: " .. who) end
  checked = checked + 1
  if response.status == 200 then hold(response.body == whole, "not the body of its version") return end
  hold(field(request, "range"), "a part that nobody asked for")
  local range = response.headers["Content-Range"]
  if not range then return end -- several parts
  local first, last, total = range:match "bytes (%d+)%-(%d+)/(%d+)"
  hold(tonumber(total) == #whole, "of another length " .. range)
  hold(response.body == whole:sub(tonumber(first) + 1, tonumber(last) + 1), "not that part: " .. range)
end

local function leave(conn)
  if chance(0.5) then conn:reset() else conn:close() end
end

local function play_h1(port)
  local conn = net.try_connect(port)
  if not conn then return end
  for _ = 1, math.random(4) do
    local request = random_request()
    if not conn:try_send(http.encode_request(request)) then break end
    if chance(0.1) then conn:stop_reading() support.sleep(0.05) if not conn.closed then conn:start_reading() end end
    if chance(0.2) then
      support.sleep(math.random() * 0.01)
      leave(conn)
      return
    end
    local ok, response = pcall(http.response, conn, { method = request.method, timeout = 8 })
    if not ok then
      if type(response) == "string" and response:find "waited" then error("seed " .. seed .. ": " .. response, 0) end
      break -- it was cut short
    end
    check(request, response)
    if (response.headers.Connection or ""):lower() == "close" then break end
  end
  if not conn.closed then conn:close() end
end

local function play_h2(port)
  local conn = net.try_connect(port)
  if not conn then return end
  local ok, why = pcall(function()
    local peer = h2.connect(conn, { settings = chance(0.3) and { INITIAL_WINDOW_SIZE = 1000 } or nil })
    local open = {}
    for _ = 1, math.random(6) do
      local request = random_request()
      local stream = peer:request(request.target, { method = request.method, headers = request.headers })
      if chance(0.3) then peer:reset(stream, "CANCEL") else open[#open + 1] = { stream, request } end
    end
    if chance(0.2) then return end
    for _, each in ipairs(open) do
      if chance(0.2) then
        peer:reset(each[1], "CANCEL")
      else
        local got, response = pcall(peer.response, peer, each[1])
        if not got then return end
        if not response.error then check(each[2], response) end
      end
    end
  end)
  if not conn.closed then leave(conn) end
  if not ok and tostring(why):find "^seed" then error(why, 0) end
end

local function play(port)
  for _ = 1, 3 do (chance(0.3) and play_h2 or play_h1)(port) end
end

describe("chaos round the cache", function()
  for _, workers in ipairs { 1, 4 } do
    it("with " .. workers .. " workers gives nobody what is not his, and leaves nothing", function()
      math.randomseed(seed)
      versions = {}
      local one, two = net.listen(play_backend), net.listen(play_backend)
      local gate = moongate.start { values = { ONE = one, TWO = two }, workers = workers, config = [[
        local gate = require "moongate"
        return {
          drain = "5s", listen = { "127.0.0.1:$PORT", h2c = true },
          backends = { app = { "$ONE", "$TWO" } },
          cache = { memory = "2M", max_object = "512K", purge = { "127.0.0.1" }, negative = "1s" },
          compress = true,
          timeouts = { first_byte = "200ms", between = "500ms", total = "5s" },
          on_store = function(req, res)
            if req.path:find "^/odd" then
              gate.sleep(0.003)
              res.cache.ttl = 1
            end
          end,
        }
      ]] }
      local tasks, before = {}, checked
      local clients = support.async.slow > 1 and 60 or 120
      for i = 1, clients do tasks[i] = support.spawn(play, gate.port) end
      support.sleep(0.1)
      gate:reload()
      for _, task in ipairs(tasks) do task:join(60) end
      assert.is_true(checked > before + 20, "too few answers came whole: " .. checked - before)
      gate:wait_idle(" (seed " .. seed .. ")")
    end)
  end

  it("stops at once while clients, fills and followers are under way", function()
    math.randomseed(seed)
    for round = 1, 3 do
      local origin = net.listen(play_backend)
      local gate = moongate.start { values = { ONE = origin }, workers = 4, config = [[
        return { listen = { "127.0.0.1:$PORT", h2c = true }, backends = { app = { "$ONE" } },
          cache = { memory = "2M", max_object = "512K" }, drain = 0, compress = true }
      ]] }
      for _ = 1, 40 do support.spawn(function() pcall(play, gate.port) end) end
      for i = 1, 12 do -- readers of what outgrows the cache, in all workers, who do not read
        local conn = net.try_connect(gate.port)
        if conn then
          conn:try_send(http.encode_request { target = "/fresh/" .. 7 - i % 2 })
          conn:stop_reading()
        end
      end
      support.sleep(0.02 * round)
      local began = os.time()
      gate:stop()
      assert.is_true(os.time() - began < 10)
    end
  end)
end)
