-- gate.jwks: key sets that change while the proxy runs. Tokens are signed here by openssl's keys, in a site of its own.

local support = require "support"
local keys = require "support.keys"
local uv = require "luv"
local it, http, moongate, process = support.it, support.http, support.moongate, support.process

local config = [[
local gate = require "moongate"
local jwks = gate.jwks($SOURCE, $OPTIONS)

local site = { listen = "127.0.0.1:$PORT", lua = { hook_cpu = 2 } }

-- The subject of the token, or the word.
function site.on_request(req)
  if req.path == "/keys" then
    local list, word = jwks:keys()
    return gate.reply(200, list and tostring(#list) or word)
  end
  local claims, word, sentence = gate.jwt.verify(req.headers["Token"], {
    keys = jwks, algorithms = { "ES256", "RS256", "EdDSA" }, now = 1,
  })
  return gate.reply(200, claims and claims.sub or word, { Sentence = sentence })
end

return site
]]

local signing = [[
local gate = require "moongate"
local keys = {}
for kid, pem in pairs { $KEYS } do keys[kid] = gate.crypto.key(pem) end

return { listen = "127.0.0.1:$PORT", on_request = function(req)
  local kid = req.path:sub(2)
  if req.args.jwk then return gate.reply(200, gate.json.encode(keys[kid]:jwk())) end
  return gate.reply(200, gate.jwt.sign({ sub = kid }, keys[kid], { kid = req.args.kid or kid }))
end }
]]

describe("gate.jwks", function()
  local signer
  local jwk, token = {}, {}

  support.setup(function()
    local kinds = { rsa = "rsa", ec = "p256", ed = "ed25519" }
    local list = {}
    for kid, kind in pairs(kinds) do list[#list + 1] = ("%s = %q"):format(kid, keys.private(kind)) end
    signer = moongate.start { config = signing, values = { KEYS = table.concat(list, ", ") }, workers = 1 }
    for kid in pairs(kinds) do
      jwk[kid] = http.get(signer.port, "/" .. kid .. "?jwk=1").body:gsub("^{", ('{"kid":"%s",'):format(kid))
      token[kid] = http.get(signer.port, "/" .. kid).body
    end
    token.stranger = http.get(signer.port, "/ec?kid=stranger").body
  end)

  local function set_of(...)
    local list = {}
    for i, kid in ipairs { ... } do list[i] = jwk[kid] end
    return ('{"keys":[%s]}'):format(table.concat(list, ","))
  end

  -- Started by root, it serves as another user, who must be able to read it.
  local function open_folder()
    local folder = process.temp_dir()
    assert(uv.fs_chmod(folder, tonumber("755", 8)))
    return folder
  end

  local function start(source, options, more)
    local settings = { config = config, values = { SOURCE = ("%q"):format(source), OPTIONS = options or "nil" } }
    for name, value in pairs(more or {}) do settings[name] = value end
    return moongate.start(settings)
  end

  local function ask(proxy, kid)
    return http.get(proxy.port, "/", { headers = { ["Token"] = token[kid] } })
  end

  -- A server of key sets; `answer` may be changed.
  local function serve(set)
    local server
    server = http.backend(function()
      if type(server.answer) == "number" then return server.answer end
      if type(server.answer) == "function" then return server.answer() end
      return 200, nil, server.answer
    end)
    server.answer = set
    return server, ("http://%s/jwks.json"):format(server.address)
  end

  it("takes a text", function()
    local proxy = start(set_of("rsa", "ed"))
    assert.equal("rsa", ask(proxy, "rsa").body)
    assert.equal("ed", ask(proxy, "ed").body)
    assert.equal("unknown_key", ask(proxy, "ec").body)
    assert.equal("2", http.get(proxy.port, "/keys").body)
  end)

  it("takes a file beside the config, which a reload reads anew", function()
    local folder = open_folder()
    process.write_file(folder .. "/keys.json", set_of "rsa")
    local proxy = start(folder .. "/keys.json")
    assert.equal("unknown_key", ask(proxy, "ec").body)
    process.write_file(folder .. "/keys.json", set_of("rsa", "ec"))
    proxy:reload()
    assert.equal("ec", ask(proxy, "ec").body)
  end)

  it("fetches once for all workers and requests", function()
    local server, url = serve(set_of("rsa", "ec", "ed"))
    local proxy = start(url, nil, { workers = 4 })
    local tasks = {}
    for i = 1, 20 do
      tasks[i] = function() assert.equal("ec", ask(proxy, "ec").body) end
    end
    support.all(table.unpack(tasks))
    assert.equal("ed", ask(proxy, "ed").body)
    assert.equal(1, #server.requests)
    assert.equal("/jwks.json", server.requests[1].target)
    proxy:reload() -- a new generation has the keys at once
    assert.equal("rsa", ask(proxy, "rsa").body)
    assert.equal(1, #server.requests)
  end)

  it("fetches anew when a kid is not there, once for each cooldown", function()
    local server, url = serve(set_of "rsa")
    local proxy = start(url, "{ cooldown = '10m' }")
    assert.equal("rsa", ask(proxy, "rsa").body)
    server.answer = set_of("rsa", "ec")
    assert.equal("ec", ask(proxy, "ec").body)
    assert.equal(2, #server.requests)
    for _ = 1, 5 do assert.equal("unknown_key", ask(proxy, "stranger").body) end
    assert.equal(2, #server.requests)
  end)

  it("lets who asks at the same time wait for one fetch", function()
    local server, url = serve(set_of "rsa")
    local proxy = start(url, "{ cooldown = 0.001 }", { workers = 2 })
    assert.equal("rsa", ask(proxy, "rsa").body)
    local arrived, go = 0, false
    server.answer = function()
      arrived = arrived + 1
      support.eventually("all ask", function() return go end)
      return 200, nil, set_of("rsa", "ec")
    end
    local tasks = {}
    for i = 1, 10 do
      tasks[i] = function() assert.equal("ec", ask(proxy, "ec").body) end
    end
    tasks[11] = function()
      support.eventually("somebody fetches", function() return arrived > 0 end)
      go = true
    end
    support.all(table.unpack(tasks))
    assert.equal(1, arrived)
  end)

  it("refreshes in the background, and forgets keys that are gone", function()
    local server, url = serve(set_of("rsa", "ec"))
    local proxy = start(url, "{ refresh = '100ms' }")
    assert.equal("ec", ask(proxy, "ec").body)
    server.answer = set_of "rsa"
    support.eventually("the key is gone", function() return ask(proxy, "ec").body == "unknown_key" end)
    assert.equal("rsa", ask(proxy, "rsa").body)
  end)

  it("keeps its keys while the server fails, until they are stale", function()
    local server, url = serve(set_of "rsa")
    local proxy = start(url, "{ refresh = '100ms', stale = 1.5 }")
    assert.equal("rsa", ask(proxy, "rsa").body)
    for _, answer in ipairs { 503, "no JSON", '{"keys":[]}' } do
      server.answer = answer
      local before = #server.requests
      support.eventually("it asks again", function() return #server.requests > before end)
    end
    proxy:wait_log "warn .*gate.jwks: http://.*status is 503 %(bad_status%)"
    assert.equal("rsa", ask(proxy, "rsa").body)
    server.answer = 503
    support.eventually("they are stale", function() return ask(proxy, "rsa").body == "no_keys" end)
    server.answer = set_of "rsa"
    support.eventually("it comes back", function() return ask(proxy, "rsa").body == "rsa" end)
  end)

  it("says so when there are no keys, without asking for each request", function()
    local server, url = serve(500)
    local proxy = start(url)
    for _ = 1, 5 do
      local response = ask(proxy, "rsa")
      assert.equal("no_keys", response.body)
      assert.matches("the answer's status is 500", response.headers["Sentence"])
    end
    assert(#server.requests <= 2, #server.requests)
  end)

  it("gives the fetch to the next when the client that began it leaves", function()
    local server, url = serve()
    local first = true
    server.answer = function()
      if not first then return 200, nil, set_of "rsa" end
      first = false
      support.eventually("the client has left", function() return server.aborted == 1 end)
      return 500
    end
    local proxy = start(url, "{ refresh = '1h' }", { workers = 1 })
    local conn = support.net.connect(proxy.port)
    conn:send("GET / HTTP/1.1\r\nHost: a\r\nToken: " .. token.rsa .. "\r\n\r\n")
    http.await_request(server, 1)
    local second = support.spawn(function() return ask(proxy, "rsa").body end)
    conn:reset()
    assert.equal("rsa", second:join())
  end)

  it("refuses what is no source, naming the operator's line", function()
    local file = open_folder() .. "/refused.lua"
    local refused = {
      ["5"] = "expected a URL, a file",
      ["'{}'"] = "there is no list of keys",
      ["{ keys = {} }"] = "there is no key that can be used",
      ["'missing.json'"] = "missing.json: no such file",
      ["'http://127.0.0.1:1/', { refersh = 1 }"] = 'unknown option "refersh"',
      ["'http://127.0.0.1:1/', { refresh = 'often' }"] = "refresh: expected seconds",
      ["'http://127.0.0.1:1/', { fetch = 5 }"] = "fetch: expected table",
      ["{ keys = {} }, { refresh = 5 }"] = "only what is fetched has options",
    }
    for arguments, sentence in pairs(refused) do
      local text = "local gate = require 'moongate'\ngate.jwks(%s)\nreturn { listen = 8080 }"
      process.write_file(file, text:format(arguments))
      local status, out, err = moongate.run { "check", file }
      assert.equal(1, status, arguments)
      local said = out .. err
      assert(said:find(sentence, 1, true) and said:find("refused.lua:2:", 1, true), said)
    end
  end)
end)
