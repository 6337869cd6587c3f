-- What a policy can rely on, case by case: a policy, what is sent, what must come of it. contract_spec.lua runs each
-- in the test kit and before the real proxy; that both agree is what makes a test in the kit worth something.
--
-- Around each policy: `site` with the backends app (the servers First and Second), other (the server Other) and dead
-- (a port where nobody listens), `gate`, and the URL WEB of one more server, Web. Each server answers 200 with its name
-- unless `answers` says otherwise, in the kit's words.
--
-- `expect`: status, body, headers (false: absent), source, error (the failure's word; nil: none), tries, asked
-- (what the servers were asked, in order: "Name METHOD target"), got (headers of the last request that reached a
-- server; false: absent), got_body, log (a pattern that must be found in the log). What is not named is not looked at,
-- but for status (200) and error (none).

local cases = {}

local function case(name, fields)
  fields.name = name
  cases[#cases + 1] = fields
end

-- No hooks ------------------------------------------------------------------------------------------------------------

case("a site without hooks asks its default backend", {
  policy = "site.backends.default, site.backends.app = site.backends.app, nil",
  expect = { body = "First", source = "backend", asked = { "First GET /" }, tries = 1 },
})

case("servers take turns", {
  policy = 'site.pick_backend = "app"',
  steps = {
    { expect = { body = "First" } }, { expect = { body = "Second" } }, { expect = { body = "First" } },
  },
})

case("on_connect lets a client in, or fails and is told to go on, before its requests are read", {
  policy = [[
    local seen
    site.fail = { on_connect = "continue" }
    function site.on_connect(client) seen = client.ip error "on purpose" end
    function site.on_request(req) return gate.reply(200, tostring(seen == req.client.ip)) end]],
  expect = { body = "true", source = "reply", log = "on purpose" },
})

case("a path is normalised before it is seen and forwarded", {
  policy = 'function site.on_request(req) req.headers["X-Path"] = req.path end site.pick_backend = "other"',
  request = "/a/../%61dmin/./x%2fy?q=%20",
  expect = { asked = { "Other GET /admin/x%2Fy?q=%20" }, got = { ["X-Path"] = "/admin/x%2Fy" } },
})

case("a request with two lengths is refused", {
  policy = 'site.on_request = 204',
  request = { method = "POST", headers = { ["Content-Length"] = { 1, 2 } }, body = "x" },
  expect = { status = 400, error = "bad_framing", source = "error" },
})

case("hop-by-hop fields end here, what the proxy adds is there", {
  policy = 'site.pick_backend = "other"',
  request = { headers = { Connection = "X-Mine", ["X-Mine"] = "1", ["Keep-Alive"] = "5", Accept = "text/plain" } },
  expect = {
    got = { Connection = false, ["X-Mine"] = false, ["Keep-Alive"] = false, Accept = "text/plain", Via = "1.1 moongate",
      ["X-Forwarded-For"] = "127.0.0.1", ["X-Forwarded-Proto"] = "http" },
  },
})

-- on_request ----------------------------------------------------------------------------------------------------------

case("on_request that returns nothing lets it pass", {
  policy = 'function site.on_request() end site.pick_backend = "other"',
  expect = { body = "Other", source = "backend" },
})

case("on_request replies with a status", {
  policy = "function site.on_request() return 403 end",
  expect = { status = 403, source = "reply", asked = {}, tries = 0 },
})

case("on_request replies with body and headers", {
  policy = [[local no = gate.reply(401, "who?", { ["WWW-Authenticate"] = "Basic", ["X-Two"] = { "a", "b" } })
    function site.on_request() return no end]],
  steps = {
    { expect = { status = 401, body = "who?", headers = {
      ["WWW-Authenticate"] = "Basic", ["X-Two"] = "a, b", ["Content-Type"] = "text/plain; charset=utf-8" } } },
    { expect = { status = 401, body = "who?" } },
  },
})

case("on_request redirects", {
  policy = 'function site.on_request(req) return gate.redirect("https://" .. req.host .. req.path, 308) end',
  request = { path = "/x", host = "example.com" },
  expect = { status = 308, headers = { Location = "https://example.com/x" }, source = "reply" },
})

case("a constant stands in on_request's place", {
  policy = 'site.on_request = gate.reply(503, "later\\n", { ["Retry-After"] = 60 })',
  expect = { status = 503, body = "later\n", headers = { ["Retry-After"] = "60" }, source = "reply" },
})

case("an error that is a reply is that reply", {
  policy = 'local function need() error(gate.reply(403, "no")) end function site.on_request() pcall(print) need() end',
  expect = { status = 403, body = "no", source = "reply" },
})

case("on_request that raises fails closed, and says where", {
  policy = "function site.on_request() error 'broken' end",
  expect = { status = 500, error = "hook_failed", source = "error", asked = {}, log = "broken" },
})

-- What a load would find out is computed here, so that it is found out by running it.

case("on_request that returns nonsense fails closed", {
  policy = "function site.on_request() return setmetatable({}, {}) end",
  expect = { status = 500, error = "hook_failed", log = "returned a table; expected a reply, a status or nothing" },
})

case("on_request that loops is ended, and the request with it", {
  policy = "function site.on_request() while true do end end",
  expect = { status = 500, error = "hook_failed", log = "over its CPU budget" },
})

case("on_request that hoards is ended", {
  policy = "function site.on_request() local t = {} while true do t[#t + 1] = ('x'):rep(1e6) .. #t end end",
  expect = { status = 500, error = "hook_failed" },
})

case("fail = continue lets a failed on_request pass", {
  policy = [[site.fail = { on_request = "continue" } site.pick_backend = "other"
    function site.on_request(req) req.headers["X-Half"] = "1" error "soft" end]],
  expect = { body = "Other", got = { ["X-Half"] = "1" }, log = "soft" },
})

case("policies are asked before the site that uses them, the first reply ends it", {
  policy = [[site.pick_backend = "other"
    local function mark(letter) return { on_request = function(req)
      req.headers["X-Order"] = (req.headers["X-Order"] or "") .. letter
      if req.path == "/" .. letter then return gate.reply(200, req.headers["X-Order"]) end
    end } end
    site.use = { mark "a", mark "b" }
    site.on_request = mark("c").on_request]],
  steps = {
    { expect = { got = { ["X-Order"] = "abc" } } }, { request = "/b", expect = { body = "ab", source = "reply" } },
  },
})

-- What on_request assigns ---------------------------------------------------------------------------------------------

case("path, query and host are rewritten", {
  policy = [[site.pick_backend = "other"
    function site.on_request(req) req.path = "/new place" req.query = "a=1" req.host = "inner.test:81" end]],
  request = "/old?b=2",
  expect = { asked = { "Other GET /new%20place?a=1" }, got = { Host = "inner.test:81" } },
})

case("arguments are changed, the others stay as they came", {
  policy = [[site.pick_backend = "other"
    function site.on_request(req) req.args.drop = nil req.args.page = 2 end]],
  request = "/?keep=%20x&drop=1&page=1&flag",
  expect = { asked = { "Other GET /?keep=%20x&page=2&flag" } },
})

case("the method is changed", {
  policy = 'site.pick_backend = "other" function site.on_request(req) req.method = "PATCH" end',
  request = { method = "POST", body = "x" },
  expect = { asked = { "Other PATCH /" }, got_body = "x" },
})

case("headers are set, added and removed, whatever the case", {
  policy = [[site.pick_backend = "other"
    function site.on_request(req)
      req.headers["x-set"] = 7
      req.headers["ACCEPT"] = nil
      req.headers:add("X-More", "b")
    end]],
  request = { headers = { Accept = "all", ["X-Set"] = { "1", "2" }, ["X-More"] = "a" } },
  expect = { got = { ["X-Set"] = "7", Accept = false, ["X-More"] = "a, b" } },
})

case("repeated fields are joined, cookies read", {
  policy = [[function site.on_request(req)
      return gate.reply(200, req.headers["X-A"] .. "|" .. #req.headers:all("x-a") .. "|" .. req.cookies.lang)
    end]],
  request = { headers = { ["X-A"] = { "1", "2" }, Cookie = "a=b; lang=de" } },
  expect = { body = "1, 2|2|de" },
})

case("a field with a line break cannot be made", {
  policy = 'function site.on_request(req) req.headers["X-A"] = "a\\r\\nX-Evil: 1" end',
  expect = { status = 500, error = "hook_failed" },
})

case("the core's own fields cannot be set", {
  policy = 'function site.on_request(req) req.headers["Content-Length"] = 1 end',
  expect = { status = 500, error = "hook_failed", log = "Content%-Length" },
})

case("an unknown field of req raises, with the nearest", {
  policy = "function site.on_request(req) return req['he' .. 'ders'] end",
  expect = { status = 500, error = "hook_failed", log = "did you mean 'headers'" },
})

case("a request cannot be changed once its fetch has begun", {
  policy = 'function site.pick_backend(req) req.headers["X-Late"] = "1" return "other" end',
  expect = { status = 502, error = "pick_failed", asked = {} },
})

case("what one hook leaves in ctx the next ones find", {
  policy = [[function site.on_request(req) req.ctx.user = "ann" end
    function site.pick_backend(req) return req.ctx.user == "ann" and "other" or "app" end
    function site.on_response(req, res) res.headers["X-User"] = req.ctx.user end]],
  expect = { body = "Other", headers = { ["X-User"] = "ann" } },
})

case("the client's address is known", {
  policy = [[function site.on_request(req)
      return gate.reply(200, req.client.ip .. " " .. req.version .. " " .. req.method)
    end]],
  expect = { body = "127.0.0.1 1.1 GET" },
})

-- Bodies --------------------------------------------------------------------------------------------------------------

case("a body read by a hook is still forwarded", {
  policy = [[site.pick_backend = "other"
    function site.on_request(req) req.headers["X-Size"] = #req.body:text() end]],
  request = { body = "0123456789" },
  expect = { got = { ["X-Size"] = "10" }, got_body = "0123456789", asked = { "Other POST /" } },
})

case("a body larger than the hook takes is its to refuse", {
  policy = [[function site.on_request(req)
      local text, word = req.body:text(4)
      return gate.reply(text and 200 or 413, word)
    end]],
  request = { body = "0123456789" },
  expect = { status = 413, body = "too_large", source = "reply" },
})

case("a body comes in pieces", {
  policy = [[function site.on_request(req)
      local n = 0
      for piece in req.body:chunks() do n = n + #piece end
      return gate.reply(200, tostring(n))
    end]],
  request = { method = "POST", body = { ("x"):rep(2000), ("y"):rep(2000) } },
  expect = { body = "4000" },
})

case("there is no body where none is sent", {
  policy = "function site.on_request(req) return gate.reply(200, tostring(req.body)) end",
  expect = { body = "nil" },
})

case("a body larger than the site takes is refused", {
  policy = 'site.max_body = 8 site.pick_backend = "other"',
  request = { body = "0123456789" },
  expect = { status = 413, error = "body_too_large", asked = {} },
})

case("a hook lowers what the body may have", {
  policy = 'site.pick_backend = "other" function site.on_request(req) req.max_body = 8 req.max_body = "1K" end',
  request = { body = "0123456789" },
  expect = { status = 413, error = "body_too_large", asked = {} },
})

case("a hook lowers what a body may have that comes in chunks", {
  policy = 'site.pick_backend = "other" function site.on_request(req) req.max_body = 8 end',
  request = { method = "POST", body = { "01234", "56789" } },
  expect = { status = 413, error = "body_too_large" },
})

case("a body passes that has just what it may have", {
  policy = [[site.pick_backend = "other" site.max_body = 100
    function site.on_request(req)
      req.max_body = "1G"
      assert(req.max_body == 100)
      req.max_body = 10
      assert(not pcall(function() req.max_body = -1 end) and not pcall(function() req.max_body = "many" end))
    end]],
  request = { method = "POST", body = { "01234", "56789" } },
  answers = { Other = { body = "passed" } },
  expect = { body = "passed" },
})

case("an answer's body can be read and replaced", {
  policy = [[site.pick_backend = "other"
    function site.on_response(req, res) res.body = res.body:text():upper() .. "!" end]],
  answers = { Other = { headers = { ETag = '"x"' }, body = "quiet" } },
  expect = { body = "QUIET!", headers = { ["Content-Length"] = "6", ETag = false } },
})

case("HEAD has a head alone", {
  policy = [[site.pick_backend = "other"
    function site.on_response(req, res) res.headers["X-Body"] = tostring(res.body) end]],
  request = { method = "HEAD" },
  expect = { body = "", headers = { ["X-Body"] = "nil" }, asked = { "Other HEAD /" } },
})

-- cache_key -----------------------------------------------------------------------------------------------------------

case("cache_key is asked where a cache is set, and its failure bypasses", {
  policy = [[site.cache = { memory = "1M" } site.pick_backend = "other"
    function site.cache_key(req) if req.path == "/bad" then error "no key" end return req.path, 1, nil, true end]],
  steps = { { expect = { body = "Other" } }, { request = "/bad", expect = { body = "Other", log = "no key" } } },
})

-- pick_backend --------------------------------------------------------------------------------------------------------

case("pick_backend picks by name", {
  policy = "function site.pick_backend(req) return req.path == '/o' and 'other' or 'app' end",
  steps = { { request = "/o", expect = { body = "Other" } }, { expect = { body = "First" } } },
})

case("pick_backend picks a server", {
  policy = "function site.pick_backend() return 'app/' .. SECOND end",
  steps = { { expect = { body = "Second" } }, { expect = { body = "Second" } } },
})

case("pick_backend that returns nothing means the default", {
  policy = "function site.pick_backend() end",
  expect = { status = 502, error = "no_backend" },
})

case("a backend the site does not have is a failure", {
  policy = "function site.pick_backend() return 'a' .. 'p' end",
  expect = { status = 502, error = "pick_failed", log = 'returned the backend "ap", which this site does not have' },
})

case("pick_backend may reply", {
  policy = "function site.pick_backend() return gate.reply(429, 'full') end",
  expect = { status = 429, body = "full", source = "reply" },
})

case("pick_backend that raises fails closed", {
  policy = "function site.pick_backend() error 'undecided' end",
  expect = { status = 502, error = "pick_failed", log = "undecided" },
})

case("a list is tried in order", {
  policy = "function site.pick_backend() return { 'dead', 'other' } end",
  expect = { body = "Other", tries = 2, asked = { "Other GET /" } },
})

case("a list is not asked again", {
  policy = [[local n = 0
    function site.pick_backend() n = n + 1 return { "dead" } end
    function site.on_response(req, res) res.headers["X-Asked"] = n end]],
  expect = { status = 502, error = "connect_refused", headers = { ["X-Asked"] = "1" } },
})

case("retry_on a status goes on with the list, and delivers the last", {
  policy = "function site.pick_backend() return { 'app', 'other', retry_on = { '5xx' } } end",
  answers = { First = { status = 503, body = "busy" }, Other = { status = 500, body = "worse" } },
  expect = { status = 500, body = "worse", tries = 2, asked = { "First GET /", "Other GET /" } },
})

case("retry_on reset asks another server, of a request that may be repeated", {
  policy = "function site.pick_backend() return { 'app', 'other', retry_on = { 'reset' } } end",
  answers = { First = { error = "reset" } },
  steps = {
    { expect = { body = "Other", asked = { "First GET /", "Other GET /" } } },
  },
})

case("a POST that reached a server is not sent again", {
  policy = "function site.pick_backend() return { 'app', 'other', retry_on = { 'reset', '5xx' } } end",
  answers = { First = { status = 503 } },
  request = { body = "x" },
  expect = { status = 503, tries = 1, asked = { "First POST /" } },
})

case("tries bounds a list", {
  policy = "function site.pick_backend() return { 'app', 'other', tries = 1, retry_on = { 503 } } end",
  answers = { First = { status = 503 } },
  expect = { status = 503, tries = 1 },
})

case("a backend's own retry asks its other server", {
  policy = "site.backends.app.retry = { on = { 'connect', 503 } } function site.pick_backend() return 'app' end",
  answers = { First = { status = 503 } },
  expect = { body = "Second", asked = { "First GET /", "Second GET /" }, tries = 2 },
})

case("pick_backend is asked again after a failure, with what failed", {
  policy = [[function site.pick_backend(req, last)
      if not last then return "dead" end
      req.ctx.last = last.backend .. " " .. last.error .. " " .. last.tries
      return "other"
    end
    function site.on_response(req, res) res.headers["X-Last"] = req.ctx.last end]],
  expect = { body = "Other", headers = { ["X-Last"] = "dead connect_refused 1" }, tries = 2 },
})

case("false on re-asking delivers what there is", {
  policy = [[site.backends.app.retry = { on = { 503 } }
    function site.pick_backend(req, last) if last then return false end return "app" end]],
  answers = { First = { status = 503, body = "busy" } },
  expect = { status = 503, body = "busy", source = "backend", tries = 1 },
})

-- Failures of backends ------------------------------------------------------------------------------------------------

case("a refused connection is told", {
  policy = 'site.pick_backend = "dead"',
  expect = { status = 502, error = "connect_refused", source = "error" },
})

case("a server that closes without an answer is told", {
  policy = 'site.pick_backend = "other"',
  answers = { Other = { error = "reset" } },
  expect = { status = 502, error = "reset", asked = { "Other GET /" } },
})

case("a server that answers nonsense is told", {
  policy = 'site.pick_backend = "other"',
  answers = { Other = { error = "bad_response" } },
  expect = { status = 502, error = "bad_response" },
})

case("a server that does not answer in time is told", {
  policy = 'site.pick_backend = "other" site.timeouts = { first_byte = "200ms" }',
  answers = { Other = { error = "first_byte_timeout" } },
  expect = { status = 504, error = "first_byte_timeout" },
})

case("an answer that breaks off is not passed as a whole one", {
  policy = 'site.pick_backend = "other"',
  answers = { Other = { error = "truncated", body = "0123456789" } },
  expect = { whole = false, body = "01234", error = "truncated" },
})

case("a request longer than it may take is ended", {
  policy = 'site.timeouts = { total = "200ms" } function site.on_request() gate.sleep(5) end',
  expect = { status = 504, error = "total_timeout" },
})

-- on_response ---------------------------------------------------------------------------------------------------------

case("on_response changes status and headers", {
  policy = [[site.pick_backend = "other"
    function site.on_response(req, res)
      res.status = 202
      res.headers["Server"] = nil
      res.headers:add("Set-Cookie", "b=2")
    end]],
  answers = { Other = { headers = { Server = "x", ["Set-Cookie"] = "a=1" } } },
  expect = { status = 202, headers = { Server = false }, cookies = { "a=1", "b=2" }, source = "backend" },
})

case("on_response replaces the answer", {
  policy = [[site.pick_backend = "other"
    function site.on_response(req, res) if res.status == 404 then return gate.reply(200, "instead") end end]],
  answers = { Other = 404 },
  expect = { body = "instead", source = "reply" },
})

case("on_response that raises hides the answer", {
  policy = 'site.pick_backend = "other" function site.on_response() error "cannot clean" end',
  expect = { status = 502, error = "response_hook_failed", source = "error", log = "cannot clean" },
})

case("on_response sees replies and errors, and where they come from", {
  policy = [[site.pick_backend = "dead"
    function site.on_request(req) if req.path == "/r" then return 204 end end
    function site.on_response(req, res) res.headers["X-Source"] = res.source .. " " .. res.tries end]],
  steps = {
    { request = "/r", expect = { status = 204, headers = { ["X-Source"] = "reply 0" } } },
    { expect = { status = 502, error = "connect_refused", headers = { ["X-Source"] = "error 1" } } },
  },
})

case("answers pass the site first, then back through what it uses", {
  policy = [[site.pick_backend = "other"
    local function mark(letter)
      return function(req, res) res.headers["X-Order"] = (res.headers["X-Order"] or "") .. letter end
    end
    site.use = { { on_response = mark "a" }, { on_response = mark "b" } }
    site.on_response = mark "c"]],
  expect = { headers = { ["X-Order"] = "cba" } },
})

-- on_error, on_log ----------------------------------------------------------------------------------------------------

case("on_error is told of the failure and may answer", {
  policy = [[site.pick_backend = "dead"
    function site.on_error(req, err) return gate.reply(err.status, err.word .. ": " .. err.sentence) end]],
  expect = { status = 502, error = "connect_refused", body = "connect_refused: the server refused the connection",
    source = "error" },
})

case("on_error is told which hook failed; its own failure leaves the plain page", {
  policy = [[function site.on_request() error "first" end
    function site.on_error(req, err) error("after " .. err.hook) end]],
  expect = { status = 500, error = "hook_failed", log = "after on_request" },
})

case("on_log runs after the answer, for all policies", {
  policy = [[local seen = gate.shared "log"
    site.use = { { on_log = function(req) seen:incr("used", 1, 0) end } }
    function site.on_log(req, res) seen:set("last", req.path .. " " .. res.status .. " " .. res.source) end
    function site.on_request(req)
      if req.path == "/told" then return gate.reply(200, seen:get "last" .. " " .. seen:get "used") end
      return 404
    end]],
  steps = {
    { request = "/x", expect = { status = 404 } },
    { request = "/told", expect = { body = "/x 404 reply 1" } },
  },
})

case("an on_log that fails harms nobody", {
  policy = 'site.pick_backend = "other" function site.on_log() error "too late" end',
  expect = { body = "Other", log = "too late" },
})

-- Fetches, waits, tasks -----------------------------------------------------------------------------------------------

case("gate.fetch asks a backend", {
  policy = [[function site.on_request(req)
      local got = gate.fetch("other", { path = "/check", args = { a = "1 2" }, headers = { ["X-Key"] = "k" } })
      return gate.reply(got.status, got.body .. got.headers["x-more"])
    end]],
  answers = { Other = { status = 201, headers = { ["X-More"] = "!" } } },
  expect = { status = 201, body = "!", asked = { "Other GET /check?a=1%202" }, got = { ["X-Key"] = "k" } },
})

case("gate.fetch asks a URL, with a body", {
  policy = [[function site.on_request(req)
      local got = gate.fetch(WEB .. "/in?x", { method = "PUT", body = "content" })
      return gate.reply(200, got.body)
    end]],
  expect = { body = "Web", asked = { "Web PUT /in?x" }, got_body = "content" },
})

case("gate.fetch returns a failure's word", {
  policy = [[function site.on_request(req)
      local got, word, sentence = gate.fetch("dead")
      return gate.reply(200, tostring(got) .. " " .. word .. ": " .. sentence)
    end]],
  expect = { body = "nil connect_refused: the server refused the connection" },
})

case("gate.fetch takes no longer than it may", {
  policy = [[function site.on_request(req)
      local got, word = gate.fetch(WEB, { timeout = 0.2 })
      return gate.reply(504, word)
    end]],
  answers = { Web = { error = "first_byte_timeout" } },
  expect = { status = 504, body = "total_timeout", source = "reply" },
})

case("gate.fetch takes no more than it may", {
  policy = [[function site.on_request(req)
      local got, word = gate.fetch(WEB, { max = 3 })
      return gate.reply(200, tostring(got) .. " " .. tostring(word))
    end]],
  answers = { Web = "0123" },
  expect = { body = "nil too_large" },
})

case("gate.sleep waits, through pcall and the script's own coroutines", {
  policy = [[function site.on_request(req)
      local before = gate.clock()
      pcall(function() gate.sleep(0.05) end)
      local co = coroutine.wrap(function() gate.sleep(0.05) coroutine.yield "x" end)
      local x = co()
      return gate.reply(200, x .. tostring(gate.clock() - before >= 0.099))
    end]],
  expect = { body = "xtrue" },
})

case("nothing waits inside a callback of C", {
  policy = [[local waits = { gate.sleep } -- the check does not look into it
    function site.on_request() table.sort({ 2, 1, 3 }, function(a, b) waits[1](0.01) return a < b end) end]],
  expect = { status = 500, error = "hook_failed", log = "cannot wait inside table.sort" },
})

case("gate.all waits for several at once", {
  policy = [[function site.on_request(req)
      local before = gate.clock()
      local a, b, c = gate.all(function() gate.sleep(0.1) return "a" end, function() gate.sleep(0.1) return "b" end,
        function() return gate.fetch("other").body end)
      return gate.reply(200, a .. b .. c .. tostring(gate.clock() - before < 0.19))
    end]],
  expect = { body = "abOthertrue" },
})

case("gate.all raises what one of them raised, and closes the others", {
  policy = [[function site.on_request(req)
      local closed = false
      local ok, problem = pcall(gate.all, function()
        local guard <close> = setmetatable({}, { __close = function() closed = true end })
        gate.sleep(5)
      end, function() gate.sleep(0.01) error("one failed", 0) end)
      return gate.reply(200, tostring(ok) .. " " .. problem .. " " .. tostring(closed))
    end]],
  expect = { body = "false one failed true" },
})

case("gate.spawn runs after the answer, and is not waited for", {
  policy = [[local seen = gate.shared "spawned"
    function site.on_request(req)
      if req.path == "/told" then
        for _ = 1, 200 do
          if seen:get "done" then return gate.reply(200, seen:get "done") end
          gate.sleep(0.01)
        end
      end
      gate.spawn(function(word) gate.sleep(0.05) seen:set("done", word) end, "spawned")
      return gate.reply(200, tostring(seen:get "done"))
    end]],
  steps = { { expect = { body = "nil" } }, { request = "/told", expect = { body = "spawned" } } },
})

case("gate.every repeats", {
  policy = [[local seen = gate.shared "every"
    gate.every(0.05, function() seen:incr("n", 1, 0) end)
    function site.on_request(req)
      for _ = 1, 200 do
        if (seen:get "n" or 0) >= 2 then return gate.reply(200, "twice") end
        gate.sleep(0.01)
      end
    end]],
  expect = { body = "twice" },
})

case("on_load runs before anything is served, and may wait", {
  policy = [[local word
    function site.on_load() gate.sleep(0.02) word = gate.fetch(WEB .. "/word").body end
    function site.on_request() return gate.reply(200, word) end]],
  expect = { body = "Web" },
})

-- Shared state and helpers --------------------------------------------------------------------------------------------

case("shared dictionaries outlive requests; keys can end", {
  policy = [[local hits = gate.shared "hits"
    function site.on_request(req)
      if req.path == "/ttl" then
        local first = hits:add("once", true, 0.05)
        local second, word = hits:add("once", true, 0.05)
        gate.sleep(0.06)
        return gate.reply(200, ("%s %s %s %s"):format(first, second, word, hits:add("once", true, 0.05)))
      end
      return gate.reply(200, tostring(hits:incr("n", 1, 0)))
    end]],
  steps = {
    { expect = { body = "1" } }, { expect = { body = "2" } },
    { request = "/ttl", expect = { body = "true false exists true" } },
  },
})

case("a limit lets so many pass", {
  policy = [[local limit = gate.limit { name = "contract", rate = 2, per = 60 }
    function site.on_request(req) return limit:take(req.client.ip) and 204 or 429 end]],
  steps = { { expect = { status = 204 } }, { expect = { status = 204 } }, { expect = { status = 429 } } },
})

case("a lock is one holder's at a time", {
  policy = [[local seen = gate.shared "order"
    function site.on_request(req)
      gate.all(function()
        local lock <close> = gate.lock "door"
        gate.sleep(0.05)
        seen:set("first", gate.clock())
      end, function()
        gate.sleep(0.01)
        local lock <close> = gate.lock "door"
        seen:set("second", gate.clock())
      end)
      return gate.reply(200, tostring(seen:get "second" >= seen:get "first"))
    end]],
  expect = { body = "true" },
})

case("hashes and codings are the same everywhere", {
  policy = [[function site.on_request(req)
      return gate.reply(200, ("%d %s %s %s"):format(gate.hash("abc") % 1000, gate.base64.encode "a\0b",
        gate.base64.decode "YQ==", gate.equal("a", "a")))
    end]],
  expect = { body = "249 YQBi a true" },
})

case("the sandbox has no files, no processes, no debug library", {
  policy = [[function site.on_request(req)
      return gate.reply(200, ("%s %s %s"):format(io, os.execute, debug and debug.getupvalue))
    end]],
  expect = { body = "nil nil nil" },
})

case("globals are read-only once the file is loaded", {
  policy = "function site.on_request() _G.surprise = 1 end",
  expect = { status = 500, error = "hook_failed", log = "surprise" },
})

case("modules are loaded with the file, not in hooks", {
  policy = 'function site.on_request() require "scripts.cors" end',
  expect = { status = 500, error = "hook_failed", log = "not in hooks" },
})

case("a ready-made policy works as it is", {
  policy = 'site.use = { require "scripts.cors" { origins = { "https://a.test" } } } site.pick_backend = "other"',
  request = { headers = { Origin = "https://a.test" } },
  expect = { body = "Other", headers = { ["Access-Control-Allow-Origin"] = "https://a.test" } },
})

-- The cache -----------------------------------------------------------------------------------------------------------

local function tell(policy)
  return 'site.cache = { memory = "1M" } site.pick_backend = "other" ' .. policy .. [[
    function site.on_response(req, res)
      local c = res.cache
      res.headers["X-Cache"] = c and ("%s %s"):format(c.status, c.rule or "none") or "none"
    end]]
end

local fresh = { Other = { body = "Other", headers = { ["Cache-Control"] = "max-age=60" } } }
local plain = { Other = { body = "Other" } }

case("res.cache tells of a miss, a hit and a bypass", {
  policy = tell "", answers = fresh,
  steps = {
    { request = "/a", expect = { headers = { ["X-Cache"] = "miss max-age" }, asked = { "Other GET /a" }, tries = 1 } },
    { request = "/a", expect = {
      headers = { ["X-Cache"] = "hit max-age", Age = "0" }, source = "cache", asked = {}, tries = 0 } },
    { request = { path = "/a", method = "POST", body = "x" }, expect = { headers = { ["X-Cache"] = "bypass none" } } },
    { request = "/a", expect = { headers = { ["X-Cache"] = "miss max-age" }, source = "backend" } },
  },
})

case("res.cache is nil where there is no cache, and for a reply of on_request", {
  policy = [[site.pick_backend = "other"
    function site.on_request(req) if req.path == "/reply" then return 204 end end
    function site.on_response(req, res) res.headers["X-Cache"] = tostring(res.cache) end]],
  steps = {
    { expect = { headers = { ["X-Cache"] = "nil" } } },
    { request = "/reply", expect = { status = 204, headers = { ["X-Cache"] = "nil" } } },
  },
})

case("on_store gives a ttl", {
  policy = tell "function site.on_store(req, res) res.cache.ttl = '1m' end", answers = plain,
  steps = {
    { expect = { headers = { ["X-Cache"] = "miss policy" } } },
    { expect = { headers = { ["X-Cache"] = "hit policy" }, body = "Other", asked = {} } },
  },
})

case("on_store passes, and that is remembered", {
  policy = tell "function site.on_store(req, res) res.cache.pass = true end", answers = fresh,
  steps = {
    { expect = { headers = { ["X-Cache"] = "pass policy-pass" }, source = "backend" } },
    { expect = { headers = { ["X-Cache"] = "pass policy-pass" }, asked = { "Other GET /" } } },
  },
})

case("on_store rewrites what is stored, on_response what is sent", {
  policy = [[site.cache = { memory = "1M" } site.pick_backend = "other" local sent = 0
    function site.on_store(req, res) res.body:replace("Other", "Stored") res.headers["X-Stored"] = res.source end
    function site.on_response(req, res) sent = sent + 1 res.headers["X-Sent"] = sent end]],
  answers = fresh,
  steps = {
    { expect = { body = "Stored", headers = { ["X-Stored"] = "backend", ["X-Sent"] = "1" } } },
    { expect = { body = "Stored", headers = { ["X-Stored"] = "backend", ["X-Sent"] = "2" }, source = "cache" } },
  },
})

case("on_store that raises stores nothing, and the client is answered", {
  policy = tell "function site.on_store() error 'broken' end", answers = fresh,
  steps = {
    { expect = { body = "Other", headers = { ["X-Cache"] = "pass policy-failed" }, log = "broken" } },
    { expect = { body = "Other", asked = { "Other GET /" } } },
  },
})

case("on_store cannot change its request, and on_response not what is stored", {
  policy = [[site.cache = { memory = "1M" } site.pick_backend = "other"
    function site.on_store(req, res)
      local ok, why = pcall(function() req.headers["X"] = "y" end)
      res.headers["X-Why"] = why:match "req is read%-only"
    end
    function site.on_response(req, res)
      local ok, why = pcall(function() res.cache.ttl = 5 end)
      res.headers["X-Why-Not"] = why:match "res.cache.ttl is read%-only"
    end]],
  answers = fresh,
  expect = { headers = { ["X-Why"] = "req is read-only", ["X-Why-Not"] = "res.cache.ttl is read-only" } },
})

case("req.cache bypasses, refreshes, and takes what is stale", {
  policy = tell [[
    function site.on_request(req) if req.args.how then req.cache[req.args.how] = true end end
    function site.cache_key(req) return req.path end
    function site.on_store(req, res) res.cache.ttl = 0 res.cache.stale_if_error = 60 end]],
  answers = plain,
  steps = {
    { request = "/", expect = { headers = { ["X-Cache"] = "miss policy" } } },
    { request = "/?how=stale", expect = { headers = { ["X-Cache"] = "stale policy" }, asked = {} } },
    { request = "/?how=bypass", expect = {
      headers = { ["X-Cache"] = "bypass none" }, asked = { "Other GET /?how=bypass" } } },
    { request = "/?how=refresh", expect = {
      headers = { ["X-Cache"] = "miss policy" }, asked = { "Other GET /?how=refresh" } } },
    { request = "/new?how=stale", expect = {
      headers = { ["X-Cache"] = "miss policy" }, asked = { "Other GET /new?how=stale" } } },
  },
})

case("gate.cache.purge takes a tag, a URL, a prefix, a key, all", {
  policy = tell [[
    local key
    function site.on_request(req)
      if req.path ~= "/purge" then return end
      local what = { [req.args.by] = req.args.what or true }
      if req.args.by == "key" then what.key = key end
      return gate.reply(200, tostring(gate.cache.purge(what)))
    end
    function site.on_store(req, res) res.cache.tags = { "t", req.args.tag } end
    function site.on_log(req, res) key = res.cache and res.cache.key or key end]],
  answers = fresh,
  steps = {
    { request = "/a/x?tag=one", expect = { headers = { ["X-Cache"] = "miss max-age" } } },
    { request = "/purge?by=tag&what=two", expect = { body = "0", source = "reply" } },
    { request = "/a/x?tag=one", expect = { headers = { ["X-Cache"] = "hit max-age" } } },
    { request = "/purge?by=tag&what=one", expect = { source = "reply" } },
    { request = "/a/x?tag=one", expect = { headers = { ["X-Cache"] = "miss max-age" } } },
    { request = "/purge?by=url&what=/a/x%3Ftag=one", expect = { body = "1" } },
    { request = "/a/x?tag=one", expect = { headers = { ["X-Cache"] = "miss max-age" } } },
    { request = "/purge?by=prefix&what=/a/", expect = {} },
    { request = "/a/x?tag=one", expect = { headers = { ["X-Cache"] = "miss max-age" } } },
    { request = "/purge?by=key", expect = { body = "1" } },
    { request = "/a/x?tag=one", expect = { headers = { ["X-Cache"] = "miss max-age" } } },
    { request = "/purge?by=all", expect = {} },
    { request = "/a/x?tag=one", expect = { headers = { ["X-Cache"] = "miss max-age" } } },
  },
})

case("a query filter makes one key of queries that mean the same", {
  policy = tell [[
    local normal = gate.url.query_filter { drop = { "utm_*" } }
    function site.cache_key(req) return req.path, normal(req.query) end]],
  answers = fresh,
  steps = {
    { request = "/?b=2&a=1", expect = { headers = { ["X-Cache"] = "miss max-age" } } },
    { request = "/?utm_source=x&a=1&b=2", expect = { headers = { ["X-Cache"] = "hit max-age" }, asked = {} } },
    { request = "/?a=1", expect = { headers = { ["X-Cache"] = "miss max-age" } } },
  },
})

return cases
