-- `moongate explain`, as an operator sees it.

local support = require "support"
local it, moongate, process = support.it, support.moongate, support.process

local policy = [[
local gate = require "moongate"
local site = { listen = "127.0.0.1:8080", cache = { memory = "1M" }, backends = {
  app = { "127.0.0.1:9001" }, spare = { "127.0.0.1:9002" } } }
site.use = { { on_request = function(req) req.headers["X-Used"] = "yes" end } }
function site.on_connect(client) if client.ip == "192.0.2.9" then return false end end
function site.on_request(req)
  if req.path == "/no" then return gate.reply(403, "no\n") end
  if req.path == "/slow" then gate.sleep(2) end
  if req.path == "/boom" then error "broken" end
  if req.path == "/who" then req.headers["X-User"] = gate.fetch("http://auth.test/who?x=1").body end
  if req.path == "/echo" then return gate.reply(200, req.client.ip .. " " .. req.body:text() .. req.headers["X-A"]) end
  gate.log("saw " .. req.path)
end
function site.cache_key(req) return req.path, 7, nil end
function site.pick_backend() return { "app", "spare" } end
function site.on_response(req, res) res.headers.Server = nil end
return site
]]

-- What it prints, when it succeeds.
local function explain(...)
  local file = support.temp_dir() .. "/site.lua"
  process.write_file(file, policy)
  local status, out, err = moongate.run { "explain", file, ... }
  assert.same({ 0, "" }, { status, err })
  return out, file
end

local function has(out, ...)
  for _, part in ipairs { ... } do assert(out:find(part, 1, true), ("no %q in:\n%s"):format(part, out)) end
end

describe("explain", function()
  it("tells each hook's decision, what it changed, whom was asked and what is answered", function()
    local out, file = explain("GET", "/x?a=1")
    has(out, "GET /x?a=1, site 127.0.0.1:8080 of " .. file .. "\nnothing was sent",
      '\n  use[1].on_request  continue\n      req.headers["X-Used"]  nil -> "yes"\n',
      '\n  cache_key          key "/x", 7, nil\n', "\n  pick_backend       pick app, spare\n",
      "\nasked (canned answers):\n  app/127.0.0.1:9001  GET /x?a=1: 200\n",
      "\nanswer: 200, from app/127.0.0.1:9001\n", "\nlog:\n  info  ", "saw /x")
  end)

  it("takes answers for backends and URLs", function()
    local out = explain("/who", "--backend", "app=connect_refused", "--backend", "spare=418 a teapot",
      "--stub", "http://auth.test/who?x=1=200 ann=x")
    has(out, 'req.headers["X-User"]  nil -> "ann=x"', "connect: connect_refused", "spare/127.0.0.1:9002", ": 418",
      'answer: 418, from spare/127.0.0.1:9002', 'body: "a teapot"')
  end)

  it("takes headers, a body, a client and a URL", function()
    local file = support.temp_dir() .. "/body"
    process.write_file(file, "from a file ")
    local out = explain("POST", "http://some.test/echo", "-H", "X-A: 1", "--header=x-a: 2", "--body", "@" .. file,
      "--client", "2001:db8::7")
    has(out, "POST /echo", 'body: "2001:db8::7 from a file 1, 2"', "reply 200", "answer: 200, a reply")
  end)

  it("tells of failures with their place, and of time that passed", function()
    has(explain "/boom", "  on_request         failed\n", "site.lua:9: broken", "answer: 500, hook_failed")
    has(explain "/slow", "on_request         continue  (2 s)", "after 2 s")
    has(explain "/no", "on_request         reply 403", "answer: 403, a reply")
  end)

  it("tells of clients that are not let in", function()
    has(explain("/", "--client", "192.0.2.9"), "  on_connect  not let in\n\nanswer: none, the connection is closed\n")
  end)

  it("prints JSON", function()
    local out = explain("/who", "--json", "--stub", "http://auth.test/*=503")
    has(out, '"verdict": "pick"', '"picked": "app, spare"', '"url": "http://auth.test/who?x=1"', '"status": 503',
      '"field": "req.headers[\\"X-Used\\"]"', '"key": [\n        "/who",\n        7,\n        null\n      ]')
  end)

  it("says what is wrong with the config, or with what was said", function()
    local file = support.temp_dir() .. "/site.lua"
    process.write_file(file, "return { listen = 'nowhere' }")
    local status, out, err = moongate.run { "explain", file, "/" }
    assert.same({ 1, "" }, { status, out })
    has(err, file .. ":1: listen: ")
    process.write_file(file, policy)
    local mistakes = {
      [{ "explain", file }] = "explain needs a TARGET",
      [{ "explain", file, "/", "-H", "nothing" }] = "expected 'Name: value'",
      [{ "explain", file, "/", "--backend", "app" }] = "expected NAME=ANSWER",
      [{ "explain", file, "/", "--backend", "app=99" }] = "--backend app=99: expected NAME=ANSWER",
      [{ "explain", file, "/", "--stub", "x=200" }] = "--stub x=200: expected URL=ANSWER",
      [{ "explain", file, "GET" }] = "explain: GET is no TARGET: expected /path, a URL or *",
      [{ "explain", file, "/", "--backend", "ap=503" }] = 'this config has no backend "ap"',
      [{ "explain", file, "/", "--backend", "app=tired" }] = 'moongate: --backend app=tired: unknown error "tired"',
      [{ "explain", file, "/", "--body", "@/nonexistent" }] = "/nonexistent: No such file",
      [{ "explain", file, "/", "--client", "me" }] = "moongate: client.ip is no IP address",
      [{ "explain", file, "/", "--site", "b.test" }] = 'moongate: there is no site "b.test"',
      [{ "explain", file, "GET", "/", "more" }] = "explain takes FILE [METHOD] TARGET; more is too much",
      [{ "explain" }] = "explain needs a FILE",
      [{ "explain", "/nonexistent", "/" }] = "/nonexistent: No such file",
    }
    for args, sentence in pairs(mistakes) do
      status, out, err = moongate.run(args)
      -- As with all commands: 2 where the command line is wrong, 1 where what it names is.
      local named = sentence:find "No such file" or sentence:find "has no backend"
      assert.same({ named and 1 or 2, "" }, { status, out }, table.concat(args, " "))
      has(err, sentence)
    end
  end)
end)
