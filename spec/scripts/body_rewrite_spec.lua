local support = require "support"
local kits = require "scripts.kit"
local policy = require "scripts.policy"
local it, http, net = support.it, support.http, support.net
-- In the hard build bytes come one by one, and some calls are refused: not for what asks for pieces or times.
local it_whole = support.process.preset == "hard" and pending or it

local function load(use, answer, more)
  local kit = kits.load {
    backends = 'app = { "127.0.0.1:9001" }', use = ('require "scripts.body_rewrite" %s'):format(use), more = more,
  }
  return kit:backend("app", answer)
end

local function page(body, kind, more)
  local answer = { headers = { ["Content-Type"] = kind or "text/html; charset=utf-8", ["ETag"] = '"1"' }, body = body }
  for name, value in pairs(more or {}) do answer.headers[name] = value end
  return answer
end

-- luacheck: no max line length (messages stand in one line)
describe("scripts.body_rewrite", function()
  it("puts texts in the place of others in answers of its types", function()
    local use = '{ response = { replace = { cat = "dog", ["<b>"] = "<i>" } } }'
    local res = load(use, page { "a ca", "t and <", "b>" }):request "/"
    assert.equal("a dog and <i>", res.body)
    assert.is_nil(res.headers["ETag"])
    assert.equal("a cat", load(use, page("a cat", "text/plain")):request("/").body)
    assert.equal("a dog", load(use, page("a cat", "TEXT/HTML")):request("/").body)
    assert.equal("a cat", load(use, { body = "a cat" }):request("/").body)
  end)

  it("takes families of types, and all", function()
    for types, changed in pairs {
      ['"text/*"'] = { ["text/css"] = true, ["application/json"] = false },
      ['"*/*"'] = { ["text/css"] = true, ["application/json"] = true },
      ['"application/json", "text/css"'] = { ["text/css"] = true, ["text/html"] = false, ["application/json"] = true },
    } do
      local use = ('{ response = { types = { %s }, replace = { a = "b" } } }'):format(types)
      for kind, yes in pairs(changed) do
        assert.equal(yes and "b" or "a", load(use, page("a", kind)):request("/").body, types .. " " .. kind)
      end
    end
  end)

  it("takes a type that says nothing for none", function()
    for _, kind in ipairs { "", " ", ";", "; charset=utf-8" } do
      local kit = load('{ response = { replace = { a = "b" } }, request = { replace = { a = "b" } } }', page("a", kind))
      local res = kit:request { body = "a", headers = { ["Content-Type"] = kind } }
      assert.same({ 200, "a", "a" }, { res.status, res.body, res.fetched[1].body }, kind)
    end
  end)

  it("changes requests", function()
    local kit = load('{ request = { types = { "application/json" }, replace = { old = "new" } } }', "ok")
    local res = kit:request { body = '{"a":"old"}', headers = { ["Content-Type"] = "application/json" } }
    assert.equal('{"a":"new"}', res.fetched[1].body)
    res = kit:request { body = "old", headers = { ["Content-Type"] = "text/plain" } }
    assert.equal("old", res.fetched[1].body)
    assert.equal(200, kit:request("/").status)
  end)

  it("applies all rules that fit, one after the other", function()
    local use = [[{ response = { { replace = { a = "b" } }, { path = "/x", replace = { b = "c" } },
      { path = "/y", replace = { b = "d" } } } }]]
    assert.equal("c", load(use, page "a"):request("/x/1").body)
    assert.equal("d", load(use, page "a"):request("/y").body)
    assert.equal("b", load(use, page "a"):request("/").body)
  end)

  it("goes by the path as it found it", function()
    local use = '{ response = { path = "/x", replace = { a = "b" } } }'
    local kit = load(use, page "a", 'function site.on_request(req) req.path = "/other" end')
    assert.equal("b", kit:request("/x").body)
  end)

  it("asks functions for texts, and for a function that changes the pieces", function()
    local use = [[{ response = {
      { replace = function(req, res) if req.args.name then return { ["{{name}}"] = req.args.name } end end },
      { path = "/loud", map = function(req, res)
        local count = 0
        return function(piece)
          if not piece then return ("(%d)"):format(count) end
          count = count + #piece
          return piece:upper()
        end
      end },
    } }]]
    assert.equal("hello ada", load(use, page "hello {{name}}"):request("/?name=ada").body)
    local res = load(use, page "hello {{name}}"):request "/"
    assert.equal("hello {{name}}", res.body)
    assert.equal('"1"', res.headers["ETag"])
    assert.equal("HELLO ADA(9)", load(use, page "hello {{name}}"):request("/loud?name=ada").body)
  end)

  it("asks backends for whole bodies in codings it knows, where a rule could apply", function()
    local kit = load('{ response = { path = "/x", replace = { a = "b" } } }', page "a")
    local function sent(path, codings)
      local headers = { ["Range"] = "bytes=0-1", ["If-Range"] = '"1"', ["Accept-Encoding"] = codings }
      return kit:request({ path = path, headers = headers }).fetched[1].headers
    end
    local headers = sent("/x", "gzip, compress;q=0.5, br;q=0.9, *")
    assert.equal("gzip, br;q=0.9", headers["Accept-Encoding"])
    assert.is_nil(headers["Range"])
    assert.is_nil(headers["If-Range"])
    assert.equal("identity", sent("/x", "compress")["Accept-Encoding"])
    headers = sent("/", "compress")
    assert.equal("compress", headers["Accept-Encoding"])
    assert.equal("bytes=0-1", headers["Range"])
  end)

  it("lets nothing through unchanged that it cannot read, unless it is told so", function()
    local strange = page("a", nil, { ["Content-Encoding"] = "compress" })
    local part = page("a", nil, { ["Content-Range"] = "bytes 0-0/9" })
    part.status = 206
    for _, answer in ipairs { strange, part } do
      local res = load('{ response = { replace = { a = "b" } } }', answer):request "/"
      assert.equal(502, res.status)
      assert.matches("body_rewrite: / ", res.logs[1].text)
      res = load('{ response = { replace = { a = "b" }, unreadable = "pass" } }', answer):request "/"
      assert.equal("a", res.body)
    end
    local kit = load('{ request = { replace = { a = "b" } } }', "ok")
    local headers = { ["Content-Type"] = "text/html", ["Content-Encoding"] = "compress" }
    assert.equal(415, kit:request({ body = "a", headers = headers }).status)
  end)

  it("fails the answer when a rule's function makes no sense", function()
    local use = '{ response = { unreadable = "pass", replace = function() return { a = 1 } end } }'
    local res = load(use, page "a"):request "/"
    assert.equal("502 on_response", res.status .. " " .. tostring(res.failed_hook))
  end)

  it_whole("holds no body until its end", function()
    local backend = net.listen()
    local proxy = support.moongate.start { values = { BACKEND = backend }, config = [[
      return { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } },
        use = { require "scripts.body_rewrite" { response = { replace = { needle = "pin" } } } } }
    ]] }
    local client = net.connect(proxy.port)
    client:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local conn = backend:accept()
    http.request(conn)
    conn:send "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
    conn:send(http.encode_chunk "a nee")
    conn:send(http.encode_chunk "dle, ")
    client:read_until "pin, " -- while the backend still sends
    conn:send(http.encode_chunk "all" .. "0\r\n\r\n")
    client:read_until "all"
  end)

  it("refuses wrong options", function()
    policy.assert_refused("body_rewrite", {
      ["{}"] = "body_rewrite: expected response, request or both",
      ["{ response = {} }"] = "body_rewrite: response: expected a rule, or a list of rules",
      ["{ response = { replace = {} } }"] = "body_rewrite: response[1].replace: expected texts = texts",
      ["{ response = { replace = { a = 1 } } }"] = "body_rewrite: response[1].replace: expected texts = texts",
      ["{ response = { { types = { 'html' }, replace = { a = 'b' } } } }"] = "body_rewrite: response[1].types: expected a list",
      ["{ response = { { types = { 'text/html' } } } }"] = "body_rewrite: response[1]: expected replace or map",
      ["{ response = { replace = { a = 'b' }, map = print } }"] = "body_rewrite: response[1]: expected replace or map",
      ["{ response = { replacements = { a = 'b' } } }"] = 'body_rewrite: unknown option',
      ["{ respons = {} }"] = 'did you mean "response"?',
      ["{ response = 'x' }"] = "body_rewrite: response: expected a table",
    })
  end)
end)
