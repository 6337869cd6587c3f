-- luacheck: no max line length (cases stand in one line)
local kits = require "scripts.kit"
local policy = require "scripts.policy"
local support = require "support"
local it = support.it
-- The hard build is slow: ten thousand routes take more than a load may.
local it_quick = support.process.preset == "hard" and pending or it

-- The gateway with routes, before backends a, b and default that answer with what they got.
local function load(routes, more, site)
  local kit = kits.load {
    backends = 'a = { "127.0.0.1:9001" }, b = { "127.0.0.1:9002" }, default = { "127.0.0.1:9003" }',
    more = site,
    use = ('require "scripts.api_gateway" { routes = { %s }, %s }'):format(routes, more or ""),
  }
  for _, name in ipairs { "a", "b", "default" } do
    kit:backend(name, function(got) return ("%s %s"):format(name, got.target) end)
  end
  return kit
end

local function ask(kit, path, request)
  request = request or {}
  request.path = path
  return kit:request(request)
end

local function body(kit, path, request) return ask(kit, path, request).body end

-- A route for each pattern, which says itself and its parameters.
local function patterns(list)
  local texts = {}
  for i, pattern in ipairs(list) do
    texts[i] = ("{ path = %q, backend = 'a' }"):format(pattern)
  end
  return load(table.concat(texts, ", "), "", [[
    function site.on_response(req, res)
      local list = {}
      for name, value in pairs(req.ctx.params or {}) do list[#list + 1] = name .. "=" .. value end
      table.sort(list)
      res.headers["X-At"] = req.ctx.route
      res.headers["X-Params"] = table.concat(list, " ")
    end ]])
end

describe("scripts.api_gateway", function()
  describe("finds the route", function()
    local kit, list
    before_each(function()
      list = {
        "/", "/users", "/users/", "/users/me", "/users/{id}", "/users/{id}/posts", "/users/me/{what}", "/users/{id}/{rest*}",
        "/files/{path*}", "/static/*", "/{x}/{y}/z", "/v1.0/a-b_c",
      }
      kit = patterns(list)
    end)

    it("that is the most specific one", function()
      local cases = {
        ["/"] = "/", ["/users"] = "/users", ["/users/"] = "/users/", ["/users/me"] = "/users/me",
        ["/users/7"] = "/users/{id} id=7", ["/users/7/posts"] = "/users/{id}/posts id=7",
        ["/users/me/posts"] = "/users/me/{what} what=posts", ["/users/me/a/b"] = "/users/{id}/{rest*} id=me rest=a/b",
        ["/users/7/"] = "/users/{id}/{rest*} id=7 rest=", ["/users/7/a/b/c"] = "/users/{id}/{rest*} id=7 rest=a/b/c",
        ["/files/a/b"] = "/files/{path*} path=a/b", ["/files/"] = "/files/{path*} path=", ["/static/x"] = "/static/* rest=x",
        ["/p/q/z"] = "/{x}/{y}/z x=p y=q", ["/users/q/z"] = "/users/{id}/{rest*} id=q rest=z",
        ["/v1.0/a-b_c"] = "/v1.0/a-b_c",
      }
      for path, expected in pairs(cases) do
        local res = ask(kit, path)
        local got = (res.headers["X-At"] or "none") .. " " .. res.headers["X-Params"]
        assert.equal(expected, (got:gsub(" $", "")), path)
      end
      for _, path in ipairs { "/user", "/users//", "/files", "/p/q/y", "//q/z", "/v1x0/a-b_c", "/p/q/z/", "/%2F/" } do
        assert.equal(404, ask(kit, path).status, path)
      end
    end)

    it("for the path as it is forwarded, and no other spelling of it", function()
      local cases = {
        ["/users/x/../me"] = "/users/me", ["/%75sers/me"] = "/users/me", ["/files/../users/7"] = "/users/{id}",
        ["/users/a%2Fb"] = "/users/{id}", ["/users/./7"] = "/users/{id}",
      }
      for path, pattern in pairs(cases) do
        assert.equal(pattern, ask(kit, path).headers["X-At"], path)
      end
      assert.equal("id=a/b", ask(kit, "/users/a%2Fb").headers["X-Params"])
      assert.equal("id=a b%zz", (ask(kit, "/users/a%20b%25zz").headers["X-Params"]))
    end)
  end)

  it("goes by the host, the exact before the wildcard before none", function()
    local kit = load [[
      { path = "/x", backend = "a", host = "api.example.com" }, { path = "/x", backend = "b", host = "*.example.com" },
      { path = "/x" , backend = "default" }, { path = "/y", backend = "a", host = "*.com" } ]]
    local cases = { ["api.example.com"] = "a /x", ["API.example.com:8080"] = "a /x", ["v.example.com"] = "b /x",
      ["a.b.example.com"] = "b /x", ["example.com"] = "default /x", ["other"] = "default /x" }
    for host, expected in pairs(cases) do assert.equal(expected, body(kit, "/x", { headers = { Host = host } }), host) end
    assert.equal("a /y", body(kit, "/y", { headers = { Host = "api.example.com" } }))
    assert.equal(404, ask(kit, "/y", { headers = { Host = "example.org" } }).status)
  end)

  it("goes by the method, and says which there are", function()
    local kit = load [[
      { path = "/u/{id}", methods = { "GET", "PUT" }, backend = "a" }, { path = "/u/{name}", methods = { "DELETE" }, backend = "b" },
      { path = "/u/me", methods = { "POST" }, backend = "b" }, { path = "/any", backend = "a" } ]]
    assert.equal("a /u/7", body(kit, "/u/7"))
    assert.equal("b /u/7", body(kit, "/u/7", { method = "DELETE" }))
    assert.equal(200, ask(kit, "/u/7", { method = "HEAD" }).status)
    assert.equal("b /u/me", body(kit, "/u/me", { method = "POST" }))
    assert.equal("a /u/me", body(kit, "/u/me")) -- the literal does not take it, the parameter does
    assert.equal("a /any", body(kit, "/any", { method = "PATCH" }))
    local res = ask(kit, "/u/7", { method = "POST" })
    assert.same({ 405, "DELETE, GET, HEAD, PUT" }, { res.status, res.headers["Allow"] })
    res = ask(kit, "/u/me", { method = "PATCH" })
    assert.same({ 405, "DELETE, GET, HEAD, POST, PUT" }, { res.status, res.headers["Allow"] })
    res = ask(kit, "/u/me", { method = "OPTIONS" })
    assert.same({ 204, "DELETE, GET, HEAD, POST, PUT" }, { res.status, res.headers["Allow"] })
    assert.equal(0, #res.fetched)
  end)

  it("answers what has no route, or lets it pass", function()
    local routes = '{ path = "/a", backend = "a", methods = { "GET" } }'
    assert.same({ 404, "not found\n" }, { ask(load(routes), "/b").status, body(load(routes), "/b") })
    local res = ask(load(routes, "json = true"), "/b")
    assert.same({ 404, '{"error":"not found"}\n', "application/json" }, { res.status, res.body, res.headers["Content-Type"] })
    assert.equal("default /b", body(load(routes, "pass = true"), "/b"))
    assert.equal(405, ask(load(routes, "pass = true"), "/a", { method = "PUT" }).status)
  end)

  it("rewrites paths, hosts and fields", function()
    local kit = load [[
      { path = "/api/{path*}", backend = "a", strip = "/api" }, { path = "/v1/{path*}", backend = "a", strip = "/v1/", add = "/new/" },
      { path = "/only", backend = "a", strip = "/only" }, { path = "/plus/{x}", backend = "a", add = "/base" },
      { path = "/u/{id}/p/{post}", backend = "b", rewrite = "/internal/{post}/of/{id}", set_host = "b.internal",
        headers = { ["X-Id"] = "{id}", ["X-Const"] = "1", Cookie = false },
        response_headers = { ["X-Route"] = "posts", Server = false } } ]]
    local cases = {
      ["/api/x/y?q=1"] = "a /x/y?q=1", ["/api/"] = "a /", ["/v1/x"] = "a /new/x", ["/v1/"] = "a /new/", ["/only"] = "a /",
      ["/plus/x"] = "a /base/plus/x", ["/u/7/p/a%2Fb"] = "b /internal/a%2Fb/of/7", ["/u/../api/x"] = "a /x",
      ["/api/%2e%2e/only"] = "a /",
    }
    for path, expected in pairs(cases) do assert.equal(expected, body(kit, path), path) end
    local res = ask(kit, "/u/%0D%0A/p/2", { headers = { Cookie = "a=1", ["X-Id"] = "forged" } })
    local got = res.fetched[1]
    assert.same({ "%0D%0A", "1", "b.internal", "posts" },
      { got.headers["X-Id"], got.headers["X-Const"], got.host, res.headers["X-Route"] })
    assert.is_nil(got.headers["Cookie"])
  end)

  it("tells versions apart by a field or a media type", function()
    local routes = [[{ path = "/u", backend = "a", version = "1" }, { path = "/u", backend = "b", version = "2" },
      { path = "/u", backend = "default" }, { path = "/w", backend = "a", version = "1" } ]]
    local kit = load(routes, 'version = { header = "X-Version", default = "1" }')
    local function at(version, path) return ask(kit, path or "/u", { headers = { ["X-Version"] = version } }) end
    assert.same({ "a /u", "b /u", "default /u" }, { at(nil).body, at("2").body, at("9").body })
    assert.equal("X-Version", at("2").headers["Vary"])
    assert.equal(404, at("2", "/w").status)
    kit = load(routes, 'version = { media_type = "shop" }')
    local function accept(value) return body(kit, "/u", { headers = { Accept = value } }) end
    assert.same({ "b /u", "default /u", "default /u" },
      { accept "text/html, application/vnd.shop.v2+json", accept "application/vnd.other.v2+json", accept(nil) })
  end)

  it("limits each key on each route apart", function()
    local kit = load([[
      { path = "/a", backend = "a" }, { path = "/b", backend = "b" }, { path = "/free", backend = "a", limit = false },
      { path = "/key", backend = "a", limit = { rate = 1, per = "1m", by = "header:X-Key" } } ]],
      'defaults = { limit = { rate = 2, per = "1m" } }')
    assert.same({ 200, 200, 429 }, { ask(kit, "/a").status, ask(kit, "/a").status, ask(kit, "/a").status })
    assert.is_not_nil(ask(kit, "/a").headers["Retry-After"])
    assert.equal(200, ask(kit, "/b").status)
    assert.equal(200, ask(kit, "/a", { client = { ip = "192.0.2.1" } }).status)
    for _ = 1, 5 do assert.equal(200, ask(kit, "/free").status) end
    local long = ("k"):rep(4000)
    for _, key in ipairs { "x", long } do
      local request = { headers = { ["X-Key"] = key } }
      assert.same({ 200, 429 }, { ask(kit, "/key", request).status, ask(kit, "/key", request).status })
    end
    assert.same({ 200, 429 }, { ask(kit, "/key").status, ask(kit, "/key").status })
  end)

  it("runs the policies of a route, and only of that", function()
    local kit = load([[
      { path = "/in", backend = "a", use = {
          require "scripts.basic_auth" { users = { ada = "moon" }, header = "X-User" },
          { on_response = function(req, res) res.headers["X-Order"] = (res.headers["X-Order"] or "") .. "1" end },
          { on_response = function(req, res) res.headers["X-Order"] = (res.headers["X-Order"] or "") .. "2" end },
        } },
      { path = "/out", backend = "a" },
      { path = "/pick/{x}", backend = "a", use = { { pick_backend = "default" },
          { pick_backend = function(req) if req.ctx.params.x == "b" then return "b" end end } } },
      { path = "/no", backend = "a", use = { { on_request = 410 } } },
      { path = "/failing", backend = "a", use = { { on_request = function() error "broken" end } } },
      { path = "/logged", backend = "a", use = { { on_log = function(req) gate.log("warn", "saw", req.ctx.route) end } } } ]])
    assert.equal(401, ask(kit, "/in").status)
    local res = ask(kit, "/in", { headers = { Authorization = "Basic YWRhOm1vb24=" } })
    assert.same({ 200, "ada", "21" }, { res.status, res.fetched[1].headers["X-User"], res.headers["X-Order"] })
    assert.equal(200, ask(kit, "/out").status)
    assert.same({ "b /pick/b", "default /pick/c" }, { body(kit, "/pick/b"), body(kit, "/pick/c") })
    assert.equal(410, ask(kit, "/no").status)
    res = ask(kit, "/failing")
    assert.same({ 500, "on_request" }, { res.status, res.failed_hook })
    ask(kit, "/logged")
    assert.matches("saw /logged", kit:logs()[#kit:logs()].text)
  end)

  it("replies without a backend, and has timeouts of its own", function()
    local kit = load [[{ path = "/well", reply = gate.reply(200, "well\n") }, { path = "/gone", reply = 410 },
      { path = "/slow", backend = "a", timeout = 2 } ]]
    assert.same({ "well\n", 410 }, { body(kit, "/well"), ask(kit, "/gone").status })
    kit:backend("a", { status = 200, delay = 60 })
    local res = ask(kit, "/slow")
    assert.same({ 504, 2 }, { res.status, res.time })
  end)

  it_quick("serves thousands of routes", function()
    local kit = load([[table.unpack((function()
      local list = {}
      for i = 1, 5000 do
        list[2 * i - 1] = { path = "/s" .. i .. "/items", backend = "a" }
        list[2 * i] = { path = "/s" .. i .. "/items/{id}", backend = "b", methods = { "GET" } }
      end
      return list
    end)())]])
    assert.equal("a /s4999/items", body(kit, "/s4999/items"))
    assert.equal("b /s5000/items/7", body(kit, "/s5000/items/7"))
    assert.equal(405, ask(kit, "/s1/items/7", { method = "PUT" }).status)
    assert.equal(404, ask(kit, "/s5001/items").status)
  end)

  it("refuses wrong routes", function()
    local one = '{ path = "/a/{id}", backend = "x", %s }'
    local cases = {
      ['{ path = "/a" }'] = "routes[1]: expected backend or reply",
      ['{ path = "a", backend = "x" }'] = "routes[1].path: expected a path that begins with /",
      ['{ path = "/a/{b", backend = "x" }'] = 'routes[1].path: "{b": expected a literal',
      ['{ path = "/{a*}/b", backend = "x" }'] = "the rest can only stand at the end",
      ['{ path = "/{a}/{a}", backend = "x" }'] = "{a} stands there twice",
      ['{ path = "/a?b", backend = "x" }'] = "a path has no query",
      ['{ path = "/a", backend = "x" }, { path = "/a", backend = "y" }'] = "routes[2].path: is the same as that of /a",
      ['{ path = "/{a}", backend = "x" }, { path = "/{b}", backend = "y" }'] = "routes[2].path: is the same as that of /{a}",
      [one:format 'host = "A.example"'] = "routes[1].host: expected a name in lower case",
      [one:format 'strip = "/b"'] = 'strip: the path does not begin with "/b"',
      [one:format 'rewrite = "/{x}"'] = "rewrite: the path has no {x}",
      [one:format 'headers = { ["X-A"] = "{x}" }'] = "headers.X-A: the path has no {x}",
      [one:format 'headers = { ["X A"] = "x" }'] = "headers: expected a text or false for each field",
      [one:format 'reply = 204'] = "reply: stands in the place of a backend",
      [one:format 'version = "1"'] = "routes[1].version: say where it stands",
      [one:format 'limit = { rate = "x" }'] = "routes[1].limit.rate: expected",
      [one:format 'use = { { on_load = print } }'] = "use[1].on_load: does not work in a route",
      [one:format 'methds = {}'] = 'unknown option "routes[1].methds", did you mean "methods"?',
    }
    local texts = { ["{}"] = "api_gateway: routes: must be given", ["{ routes = {} }"] = "routes: there is none" }
    for routes, sentence in pairs(cases) do texts["{ routes = { " .. routes .. " } }"] = sentence end
    policy.assert_refused("api_gateway", texts)
  end)
end)
