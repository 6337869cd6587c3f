-- Runs the cases of cases.lua twice: in the test kit, and before the real proxy with real servers.

local cases = require "contract.cases"
local support = require "support"
local testing = require "moongate.testing"
local it, http, net = support.it, support.http, support.net

local servers = { "First", "Second", "Other", "Web" }

-- The config around a policy. To be filled in: an address for each server and for Dead, PORT and DIR.
local function template_of(case)
  return ([[
local gate = require "moongate"
local WEB, SECOND = "http://$WEB", "$SECOND"
local site = { listen = "127.0.0.1:$PORT", backends = {
  app = { "$FIRST", "$SECOND" }, other = { "$OTHER" }, dead = { "$DEAD" },
} }
%s
return { sites = { site }, log = { access = "$DIR/access.log", access_format = "json" } }
]]):format(case.policy)
end

local function steps_of(case)
  return case.steps or { { request = case.request, expect = case.expect } }
end

local function as_request(request)
  if request == nil then return { path = "/" } end
  if type(request) == "string" then return { path = request } end
  if not request.path then request.path = "/" end
  return request
end

-- What a server of that name answers, in the kit's terms.
local function answer_of(case, name)
  local answer = case.answers and case.answers[name]
  if answer == nil then return { body = name } end
  if type(answer) == "string" then return { body = answer } end
  if type(answer) == "number" then return { status = answer } end
  return answer
end

-- What was seen, against what is expected -----------------------------------------------------------------------------

local function check_headers(expected, got, whose)
  for name, value in pairs(expected or {}) do
    local seen = got and got[name]
    assert(seen == (value or nil), ("%s %s: expected %q, got %q"):format(whose, name, tostring(value), tostring(seen)))
  end
end

-- `seen`: status, body, headers, whole, source, error, tries, asked, last (the last request that a server got).
local function check(expect, seen)
  assert.equal(expect.status or 200, seen.status)
  assert.equal(expect.error, seen.error)
  for _, name in ipairs { "body", "source", "tries" } do
    if expect[name] ~= nil then assert.equal(expect[name], seen[name], name) end
  end
  if expect.whole ~= nil then assert.equal(expect.whole, seen.whole) end
  if expect.asked then assert.same(expect.asked, seen.asked) end
  if expect.cookies then assert.same(expect.cookies, seen.headers:all "Set-Cookie") end
  check_headers(expect.headers, seen.headers, "the answer's")
  check_headers(expect.got, seen.last and seen.last.headers, "the server got")
  if expect.got_body then assert.equal(expect.got_body, seen.last.body) end
end

-- In the kit ----------------------------------------------------------------------------------------------------------

local addresses = {
  FIRST = "127.0.0.1:9001", SECOND = "127.0.0.1:9002", OTHER = "127.0.0.1:9003", WEB = "127.0.0.1:9004",
  DEAD = "127.0.0.1:9", PORT = "8080", DIR = "/nowhere",
}
local name_of = {}
for _, name in ipairs(servers) do name_of[addresses[name:upper()]] = name end

local function kit_of(case)
  local options = { backends = {}, stubs = { ["http://" .. addresses.WEB] = answer_of(case, "Web") } }
  local kit = testing.load({ text = template_of(case):gsub("%$(%w+)", addresses) }, options)
  for _, name in ipairs { "First", "Second", "Other" } do
    for _, backend in ipairs(kit.rehearsal:sites()[1].backends) do
      kit:backend(backend .. "/" .. addresses[name:upper()], answer_of(case, name))
      kit:backend(backend .. "/" .. addresses.DEAD, { error = "connect_refused" })
    end
  end
  return kit
end

local function kit_step(kit, request)
  local res = kit:request(as_request(request))
  local asked, last = {}, nil
  for _, got in ipairs(res.fetched) do
    if got.method then
      asked[#asked + 1] = ("%s %s %s"):format(name_of[got.server], got.method, got.target)
      last = got
    end
  end
  res.asked, res.last = asked, last
  return res
end

local function logged(lines, pattern)
  for _, line in ipairs(lines) do
    if line.text:find(pattern) then return true end
  end
end

-- Before the proxy ----------------------------------------------------------------------------------------------------

-- Plays an answer of the kit's kind on a real connection; nothing: it did all itself.
local failing = {
  reset = function(conn) conn:reset() end,
  bad_response = function(conn) conn:try_send "this is no HTTP\r\n\r\n" end,
  first_byte_timeout = function(conn) conn:expect_closed() end,
  truncated = function(conn, body)
    conn:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body:sub(1, #body // 2)))
  end,
}

local function play(answer, conn)
  if answer.error then return failing[answer.error](conn, answer.body) end
  return { status = answer.status or 200, headers = answer.headers, body = answer.body or "" }
end

local function start_servers(case, record)
  local values = { DEAD = "127.0.0.1:" .. support.refusing_port() }
  for _, name in ipairs(servers) do
    values[name:upper()] = http.backend(function(request)
      record[#record + 1] = { name = name, request = request }
      return play(answer_of(case, name), request.conn)
    end)
  end
  return values
end

-- What of the access log is looked at, a table for each line. It is whole once the proxy has ended.
local function read_log(proxy)
  local lines = {}
  for line in io.lines(proxy.dir .. "/access.log") do
    lines[#lines + 1] = {
      source = line:match '"source":"(%w+)"', error = line:match '"error":"([%w_]+)"',
      tries = tonumber(line:match '"tries":(%d+)'),
    }
  end
  return lines
end

-- A map of names to values or lists of values as pairs.
local function as_lines(headers)
  local lines = {}
  for name, value in pairs(headers or {}) do
    for _, one in ipairs(type(value) == "table" and value or { value }) do lines[#lines + 1] = { name, one } end
  end
  return lines
end

-- The answer, or the part of it that came.
local function exchange(proxy, request)
  local conn = net.connect(proxy.port)
  local method = request.method or (request.body and "POST" or "GET")
  local lines = as_lines(request.headers)
  lines[#lines + 1] = { "Host", request.host or "localhost" }
  conn:send(http.encode_request { method = method, target = request.path, headers = lines, body = request.body })
  local seen = http.response_head(conn)
  seen.whole = pcall(http.body, conn, seen, method)
  if not seen.whole then seen.body = conn:pending() end
  conn:close()
  return seen
end

local function proxy_step(proxy, request, record)
  for i = #record, 1, -1 do record[i] = nil end
  local seen = exchange(proxy, as_request(request))
  seen.asked = {}
  for i, got in ipairs(record) do
    seen.asked[i] = ("%s %s %s"):format(got.name, got.request.method, got.request.target)
    seen.last = got.request
  end
  return seen
end

-- Specs ---------------------------------------------------------------------------------------------------------------

it("has sixty cases or more, no two of one name", function()
  local names = {}
  for _, case in ipairs(cases) do
    assert(not names[case.name], case.name)
    names[case.name] = true
  end
  assert(#cases >= 60)
end)

describe("the contract, in the kit:", function()
  for _, case in ipairs(cases) do
    it(case.name, function()
      local kit = kit_of(case)
      for _, step in ipairs(steps_of(case)) do
        local seen = kit_step(kit, step.request)
        check(step.expect, seen)
        if step.expect.log then assert(logged(seen.logs, step.expect.log), "nothing in the log") end
      end
      kit:close()
    end)
  end
end)

describe("the contract, before the proxy:", function()
  for _, case in ipairs(cases) do
    it(case.name, function()
      local record = {}
      local proxy = support.moongate.start {
        config = template_of(case), values = start_servers(case, record), workers = 1,
      }
      local steps, seen = steps_of(case), {}
      for n, step in ipairs(steps) do
        seen[n] = proxy_step(proxy, step.request, record)
        if step.expect.log then proxy:wait_log(step.expect.log) end
      end
      proxy:stop()
      local log = read_log(proxy)
      assert.equal(#steps, #log)
      for n, line in ipairs(log) do
        seen[n].source, seen[n].error, seen[n].tries = line.source, line.error, line.tries
        check(steps[n].expect, seen[n])
      end
    end)
  end
end)
