-- Holds lua/types/ against what core/lua registers, both ways: what is described is there, what is there is
-- described, with types and an example.

local support = require "support"
local mmdb = require "support.mmdb"
local page = require "docs.page"
local http = support.http
local it = support.it

-- What the files describe ---------------------------------------------------------------------------------------------

local files = {
  "lua/types/gate.lua", "lua/types/body.lua", "lua/types/tools.lua", "lua/types/crypto.lua", "lua/types/request.lua",
  "lua/types/response.lua", "lua/types/site.lua", "lua/types/socket.lua", "lua/types/state.lua",
  "lua/types/testing.lua",
}

-- The classes that describe a config's tables, by their place in the table of settings.
local settings_classes = {
  TOP = "Config", LOG = "Log", LUA = "ScriptLimits", SITE = "Site", LISTENER = "Listener", TIMEOUTS = "Timeouts",
  COMPRESS = "CompressSettings", CACHE = "CacheSettings", DISK = "CacheDiskSettings", BACKEND = "BackendSettings",
  SERVER = "ServerSettings", BACKEND_TIMEOUTS = "BackendTimeouts", KEEPALIVE = "KeepaliveSettings",
  RETRY = "RetrySettings", HEALTH = "HealthSettings", BACKEND_TLS = "TlsOptions", LISTENER_TLS = "ListenerTls",
  CERTIFICATE = "Certificate",
}

---@class api.Function
---@field where string
---@field params string[]
---@field comment string[] the `---` lines before it

---@class api.Class
---@field fields table<string, string> name to the rest of the line
---@field functions table<string, api.Function>
---@field comment string[]
---@field parent? string

---@return table<string, api.Class> classes by name
local function read_types()
  local classes, variables = {}, {}
  local current, comment
  local function class_of(variable) return classes[variables[variable]] end
  for _, path in ipairs(files) do
    local number = 0
    comment = {}
    for line in io.lines(path) do
      number = number + 1
      local name, parent = line:match "^%-%-%-@class ([%w_.]+) ?:? ?([%w_.]*)"
      if name then
        current = name
        classes[name] = classes[name] -- a class may go on in another file
          or { fields = {}, functions = {}, comment = comment, parent = parent ~= "" and parent or nil }
      end
      local field, rest = line:match "^%-%-%-@field ([%w_]+%??) (.+)$"
      if field then classes[current].fields[field:gsub("%?$", "")] = rest end
      local variable = line:match "^local (%w+) = {}"
      if variable then variables[variable] = current end
      local owner, key = line:match "^([%w.]+)%.([%w_]+) = "
      if owner then
        class_of(owner).fields[key] = "documented"
        if line:find "= {}$" then variables[owner .. "." .. key] = current end
      end
      local of, called, params = line:match "^function ([%w.]+)[.:]([%w_]+)%((.*)%) end$"
      if of then
        local list = {}
        for param in params:gmatch "[%w_.]+" do list[#list + 1] = param end
        class_of(of).functions[called] = { where = ("%s:%d"):format(path, number), params = list, comment = comment }
      end
      if line:find "^%-%-%-" then comment[#comment + 1] = line else comment = {} end
    end
  end
  return classes
end

-- What is there -------------------------------------------------------------------------------------------------------

local config = [[
local gate = require "moongate"

-- The names of an object: the keys of its metamethods' own table.
local function names(object)
  local fields = debug.getmetatable(object).__index
  if type(fields) == "function" then fields = select(2, debug.getupvalue(fields, 2)) end
  local list = {}
  for name, value in pairs(fields) do
    if type(name) == "string" and (math.type(value) == "integer" or type(value) == "function") then
      list[#list + 1] = name .. (type(value) == "function" and "()" or "")
    end
  end
  return list
end

local function keys(table)
  local list = {}
  for name, value in pairs(table) do list[#list + 1] = name .. (type(value) == "function" and "()" or "") end
  return list
end

local geo = gate.mmdb "$GEO"
local jwks = gate.jwks { keys = { { kty = "oct", k = "AAAA" } } }
local found = {}
local function note(class, list) found[#found + 1] = class .. ": " .. table.concat(list, " ") end

local site = {
  listen = { "127.0.0.1:$PORT", { "127.0.0.1:$PORT2", tls = "internal" } }, backends = { app = { "$BACKEND" } },
  cache = { memory = "1M" }, unsafe = { "debug" },
}

local limit = gate.limit { name = "api", rate = 1, concurrent = 9 }
local map = gate.map {}

function site.on_request(req)
  if req.path == "/plain" then return gate.reply(200, "plain") end
  if req.path == "/tls" then return gate.reply(200, table.concat(names(req.client.tls), " ")) end
  found = {}
  local fetched = gate.fetch("http://127.0.0.1:$PORT/plain")
  note("moongate", keys(gate))
  note("moongate.Base64", keys(gate.base64))
  note("moongate.Json", keys(gate.json))
  note("moongate.Hex", keys(gate.hex))
  note("moongate.Time", keys(gate.time))
  note("moongate.UrlTools", keys(gate.url))
  note("moongate.CacheTools", keys(gate.cache))
  note("moongate.CookieTools", keys(gate.cookie))
  note("moongate.Crypto", keys(gate.crypto))
  note("moongate.Hasher", names(gate.crypto.hasher "md5"))
  note("moongate.Key", names(gate.crypto.key { kty = "oct", k = "AAAA" }))
  note("moongate.Jwt", keys(gate.jwt))
  note("moongate.Jwks", keys(jwks))
  note("moongate.Request", names(req))
  note("moongate.Client", names(req.client))
  note("moongate.RequestCache", names(req.cache))
  note("moongate.Body", names(req.body))
  note("moongate.Args", names(req.args))
  note("moongate.Cookies", names(req.cookies))
  note("moongate.Headers", names(fetched.headers))
  note("moongate.Reply", names(gate.reply(200)))
  note("moongate.Backend", names(gate.backend "app"))
  note("moongate.Server", keys(gate.backend("app").servers[1]))
  note("moongate.Metrics", keys(gate.metrics))
  note("moongate.Counter", names(gate.metrics.counter { name = "a", help = "" }))
  note("moongate.Gauge", names(gate.metrics.gauge { name = "b", help = "" }))
  note("moongate.Histogram", names(gate.metrics.histogram { name = "c", help = "" }))
  note("moongate.Mmdb", names(geo))
  note("moongate.Re", names(gate.re "a"))
  note("moongate.ReFound", keys(gate.re "a":exec "a"))
  note("moongate.Cidr", names(gate.cidr {}))
  note("moongate.Shared", names(gate.shared "api"))
  note("moongate.Limit", names(limit))
  note("moongate.Map", names(map))
  note("moongate.Slot", names(limit:enter "api"))
  note("moongate.Dns", keys(gate.dns))
  note("moongate.Locks", keys(gate.lock))
  note("moongate.Lock", names(gate.lock.try "api"))
  note("moongate.Sockets", keys(gate.socket))
  note("moongate.Socket", names(gate.socket.tcp()))
  note("moongate.Tls", {})
  note("moongate.ClientTls", { gate.fetch("https://localhost:$PORT2/tls", { tls = { verify = false } }).body })
  fetched.trailers = "" -- there only behind a chunked body
  note("moongate.Fetched", keys(fetched))
  note("moongate.FetchedStream", names(gate.fetch("http://127.0.0.1:$PORT/plain", { stream = true })))
end

local arrival
function site.on_connect(client) arrival = names(client) end

function site.on_response(req, res)
  note("moongate.Arrival", arrival)
  if req.path == "/plain" or req.path == "/tls" then return end
  note("moongate.Headers", names(req.headers))
  note("moongate.Headers", names(res.headers))
  note("moongate.Response", names(res))
  note("moongate.ResponseCache", names(res.cache))
  return gate.reply(200, table.concat(found, "\n") .. "\n")
end

return site
]]

---@return table<string, table<string, boolean>> names by class; those of functions end in "()"
local function read_core()
  local backend = http.backend "answer"
  local geo = support.temp_dir(true) .. "/geo.mmdb"
  mmdb.write(geo, {})
  local proxy = support.moongate.start { config = config, values = { BACKEND = backend, GEO = geo } }
  local response = http.post(proxy.port, "/", "body")
  assert(response.status == 200, response.body)
  local core = {}
  for class, list in response.body:gmatch "([%w.]+): ?([^\n]*)\n" do
    core[class] = core[class] or {}
    for name in list:gmatch "%S+" do core[class][name] = true end
  end
  return core
end

-- What the test kit has, from what a few requests come to.
local function read_kit(core)
  local testing = require "moongate.testing"
  local kit = testing.load { text = [[
    local gate = require "moongate"
    local site = { listen = 8080, cache = { memory = "1M" }, backends = { app = { "127.0.0.1:9" } } }
    function site.on_request(req) if req.path == "/no" then return 204 end gate.fetch "http://x.test/a?b" end
    function site.cache_key() return 1 end
    site.pick_backend = "app"
    function site.on_response(req) if req.path == "/bad" then error "bad" end end
    return site]] }
  local function note(class, fields)
    core[class] = core[class] or {}
    for name, value in pairs(fields) do
      if type(name) == "string" then core[class][name .. (type(value) == "function" and "()" or "")] = true end
    end
  end
  note("moongate.Testing", testing)
  note("moongate.Kit", getmetatable(kit).__index)
  core["moongate.Kit"]["__index"] = nil
  kit:stub("http://x.test", 200):backend("app", { error = "connect_refused" })
  for _, path in ipairs { "/", "/bad", "/no" } do
    local result = kit:request(path)
    note("moongate.KitResult", result)
    for _, hook in ipairs(result.hooks) do note("moongate.KitHook", hook) end
    for _, got in ipairs(result.fetched) do note("moongate.KitGot", got) end
    kit:backend("app", "fine")
  end
  local wire = require "moongate.testing.wire"
  note("moongate.KitAnswer", wire.answer_fields)
  note("moongate.KitRequest", wire.request_fields)
  return core
end

-- What must hold ------------------------------------------------------------------------------------------------------

describe("the API files", function()
  local types = read_types()
  local core
  support.setup(function() core = read_kit(read_core()) end)

  local function assert_none(problems)
    table.sort(problems)
    assert(#problems == 0, "\n" .. table.concat(problems, "\n"))
  end

  local function described(class)
    local all = {}
    for name in pairs(class.fields) do all[name] = true end
    for name in pairs(class.functions) do all[name .. "()"] = true end
    return all
  end

  it("describe all that the core registers", function()
    local problems = {}
    for class, names in pairs(core) do
      local all = types[class] and described(types[class]) or {}
      for name in pairs(names) do
        if not all[name] then problems[#problems + 1] = ("%s: %s is not described"):format(class, name) end
      end
    end
    assert_none(problems)
  end)

  it("describe nothing that the core does not register", function()
    local problems = {}
    for class, names in pairs(core) do
      for name in pairs(described(types[class])) do
        if not names[name] then problems[#problems + 1] = ("%s: there is no %s"):format(class, name) end
      end
    end
    assert_none(problems)
  end)

  it("give every function a sentence, the type of each parameter, and one example", function()
    local problems = {}
    for class, description in pairs(types) do
      for name, f in pairs(description.functions) do
        local text = table.concat(f.comment, "\n")
        local function demand(condition, what)
          if not condition then problems[#problems + 1] = ("%s: %s.%s has no %s"):format(f.where, class, name, what) end
        end
        demand(text:find "^%-%-%-[^@`%s]", "sentence")
        demand(select(2, text:gsub("```lua", "")) == 1, "single example")
        for _, param in ipairs(f.params) do
          demand(text:find("@param " .. param:gsub("%.", "%%.") .. "%?? "), "@param " .. param)
        end
      end
    end
    assert_none(problems)
  end)

  it("give examples that are Lua, with methods that there are", function()
    local known, problems, count = page.known_methods(), {}, 0
    for _, path in ipairs(files) do
      for _, block in ipairs(page.blocks_of_comments(path)) do
        local text = block.text:gsub("…", "") -- what is left out
        local ok, why = load(text)
        if not ok then ok, why = load("return " .. text) end
        local where = ("%s:%d"):format(path, block.line)
        if not ok then problems[#problems + 1] = ("%s: %s"):format(where, why) end
        for _, name in ipairs(page.methods_of(text)) do
          if not known[name] then problems[#problems + 1] = ("%s: there is no method %s"):format(where, name) end
        end
        count = count + 1
      end
    end
    assert_none(problems)
    assert(count > 150)
  end)

  it("give every object that scripts meet in hooks an example", function()
    local met = {
      "Request", "Response", "Headers", "Args", "Cookies", "Client", "RequestCache", "ResponseCache", "Policy", "Site",
    }
    for _, class in ipairs(met) do
      local text = table.concat(types["moongate." .. class].comment, "\n")
      assert(text:find("```lua", 1, true), class)
    end
  end)

  it("name only types that they describe", function()
    local aliases = {
      Plain = true, Seconds = true, Bytes = true, HeaderTable = true, Pick = true, PickAnswer = true,
      UrlComponent = true, LabelValue = true, DigestName = true, Encoding = true, JwtAlgorithm = true, JwtRsa = true,
    }
    local problems = {}
    for _, path in ipairs(files) do
      for line in io.lines(path) do
        for name in (line:find "^%-%-%-@meta" and "" or line):gmatch "moongate%.(%u%w*)" do
          local known = types["moongate." .. name] or aliases[name]
          if not known then problems[#problems + 1] = path .. ": moongate." .. name end
        end
      end
    end
    assert_none(problems)
  end)

  it("are Lua, and are read without a word", function()
    for _, path in ipairs(files) do assert(loadfile(path)) end
  end)

  it("describe the settings of a config, and no others", function()
    local places, there, problems = {}, {}, {}
    for place, class in pairs(settings_classes) do
      places[place], there[place] = types["moongate." .. class].fields, {}
    end
    for line in io.lines "core/server/settings_table.c" do
      local place, name = line:match '^%s*ROW%(([%u_]+), "([%w_]+)", %u+'
      if places[place] then
        there[place][name] = true
        if not places[place][name] then problems[#problems + 1] = ("%s: %s is not described"):format(place, name) end
      end
    end
    for place, fields in pairs(places) do
      for name in pairs(fields) do
        if not there[place][name] then problems[#problems + 1] = ("%s: there is no %s"):format(place, name) end
      end
    end
    assert_none(problems)
  end)

  it("describe the hooks that the core calls, and no others", function()
    local there, problems = {}, {}
    for line in io.lines "core/server/settings_table.c" do
      local name = line:match '^%s*HOOK_ROW%(SITE, "([%w_]+)"'
      if name then
        there[name] = true
        if not types["moongate.Policy"].fields[name] then problems[#problems + 1] = name .. " is not described" end
      end
    end
    for name in pairs(types["moongate.Policy"].fields) do
      if not there[name] then problems[#problems + 1] = "there is no " .. name end
    end
    assert_none(problems)
  end)
end)
