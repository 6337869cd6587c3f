-- Clients and backends that do anything at any moment. Of single answers nothing is expected; the proxy must survive,
-- end cleanly, and hold nothing when all have left. MOONGATE_SPEC_SEED repeats a run.

local support = require "support"
local it, http, net, moongate = support.it, support.http, support.net, support.moongate

local seed = math.tointeger(tonumber(os.getenv "MOONGATE_SPEC_SEED" or os.time()))

local function one_of(list) return list[math.random(#list)] end

-- A string in up to three pieces, cut anywhere; sometimes the rest is left out.
local function pieces(text)
  local list, at = {}, 1
  for _ = 1, math.random(0, 2) do
    local to = math.random(at, #text)
    list[#list + 1] = text:sub(at, to)
    at = to + 1
    if at > #text then break end
  end
  if math.random() < 0.85 then list[#list + 1] = text:sub(at) end
  return list
end

local function end_conn(conn)
  local way = math.random(4)
  if conn.closed then return end
  if way == 1 then conn:reset()
  elseif way == 2 then conn:close()
  elseif way == 3 and not conn.lost then conn:shutdown() end
end

local function send_all(conn, text)
  for _, piece in ipairs(pieces(text)) do
    if not conn:try_send(piece) then return end
    if math.random() < 0.2 then support.sleep(0.001) end
  end
end

local function random_body()
  local size = one_of { 0, 1, 10, 1000, 20000, 70000, 300000 }
  if math.random() < 0.5 then return ("b"):rep(size) end
  local list = {}
  for i = 1, math.random(0, 3) do list[i] = ("c"):rep(math.max(1, size // 3)) end
  return list
end

local function random_request()
  local method = one_of { "GET", "HEAD", "POST", "PUT", "ODD" }
  local headers = {}
  if math.random() < 0.1 then headers.Connection = one_of { "close", "keep-alive", "Upgrade" } end
  if math.random() < 0.1 then headers.Upgrade, headers.Connection = "x", "Upgrade" end
  if math.random() < 0.1 then headers.Expect = "100-continue" end
  if math.random() < 0.05 then headers["Content-Length"] = one_of { "5", "x", "99999" } end
  local text = http.encode_request {
    method = method, target = one_of { "/", "/retry", "/buffered", "/reply", "/wait" }, headers = headers,
    version = one_of { "1.1", "1.1", "1.1", "1.0" },
    body = method ~= "GET" and method ~= "HEAD" and random_body() or nil,
  }
  if math.random() < 0.1 then text = text .. text end
  if math.random() < 0.05 then text = text:gsub("\r\n", "\n", 1) end
  return text
end

local function random_response()
  local status = one_of { 200, 200, 200, 204, 304, 404, 500, 503, 101, 100, 103 }
  local headers = {}
  if math.random() < 0.2 then headers.Connection = "close" end
  if status == 101 then headers.Connection, headers.Upgrade = "Upgrade", "x" end
  local text = http.encode_response {
    status = status, headers = headers, body = random_body(), version = one_of { "1.1", "1.1", "1.0" },
  }
  if status == 100 or status == 103 then text = text .. http.encode_response { body = "after" } end
  if math.random() < 0.1 then text = text .. "surplus" end
  if math.random() < 0.05 then text = text:gsub("HTTP", "HTPT", 1) end
  return text
end

local function play_client(port)
  for _ = 1, 3 do
    local conn = net.try_connect(port)
    if not conn then return end
    if math.random() < 0.1 then conn:stop_reading() end
    for _ = 1, math.random(3) do
      send_all(conn, random_request())
      if math.random() < 0.3 then break end
      pcall(conn.read_until, conn, "\r\n\r\n", 0.02 / support.async.slow)
    end
    end_conn(conn)
    if math.random() < 0.5 then support.sleep(0.002) end
    conn:close()
  end
end

local function play_backend(conn)
  while not (conn.eof or conn.lost or conn.closed) do
    if not pcall(conn.read_until, conn, "\r\n\r\n", 0.5) then break end
    if math.random() < 0.1 then break end
    send_all(conn, random_response())
    if math.random() < 0.2 then break end
  end
  end_conn(conn)
end

describe("chaos", function()
  it("is survived, and nothing is left of it", function()
    math.randomseed(seed)
    local one, two = net.listen(play_backend), net.listen(play_backend)
    local gate = moongate.start { values = { ONE = one, TWO = two }, config = [[
      local gate = require "moongate"
      return {
        drain = "5s", listen = "127.0.0.1:$PORT",
        backends = {
          app = { "$ONE", "$TWO", retry = { on = { "connect", "reset", "timeout", "5xx" } } }, other = { "$TWO" },
        },
        timeouts = { head = "1s", body = "300ms", idle = "300ms", first_byte = "200ms", between = "300ms",
                     total = "2s" },
        on_request = function(req)
          if req.path == "/reply" then return gate.reply(200, ("r"):rep(100000)) end
          if req.path == "/buffered" and req.body then req.body:text(50000) end
          if req.path == "/wait" then gate.fetch("other", { path = "/x" }) end
        end,
        pick_backend = function(req, last)
          if req.path == "/retry" and last then return last.tries < 3 and "other" or false end
          return "app"
        end,
        on_response = function(_, res) res.headers["X-Seen"] = "1" end,
      }
    ]] }
    local tasks = {}
    local clients = support.async.slow > 1 and 60 or 150
    for i = 1, clients do tasks[i] = support.spawn(play_client, gate.port) end
    for _, task in ipairs(tasks) do task:join(60) end

    local response = http.get(gate.port, "/reply")
    assert.equal(100000, #response.body, response.body:sub(1, 200))
    gate:wait_idle(" (seed " .. seed .. ")")
  end)
end)
