-- The test kit: a policy tried without a network. `require "moongate.testing"` in busted or plain lua5.4;
-- docs/testing.md shows how, lua/types/testing.lua says what each function takes and gives.
--
-- The config runs in the real core (moongate_kit, core/kit): the same loading, hooks, fetches, limits and bindings as
-- in production. Only the clock, the network and randomness are replaced. This file turns tables into bytes for it and
-- what it saw into tables; it decides nothing that the core decides.

local core = require "moongate_kit"
local wire = require "moongate.testing.wire"

local testing = {}

-- Where `moongate test --coverage` wants to find what was executed.
local coverage_file = os.getenv "MOONGATE_COVERAGE"

-- Appends: specs may run in several processes.
local function write_coverage()
  local file = assert(io.open(coverage_file, "a"))
  for path, lines in pairs(core.coverage()) do
    for line, times in pairs(lines) do file:write(("%s\t%d\t%d\n"):format(path, line, times)) end
  end
  file:close()
end

-- The module's table lives as long as the state.
if coverage_file then setmetatable(testing, { __gc = write_coverage }) end

-- Places --------------------------------------------------------------------------------------------------------------

-- "http://host:80" as people write it.
local function origin_of(place)
  return (place:gsub("^(http://.*):80$", "%1"):gsub("^(https://.*):443$", "%1"))
end

-- A stub's URL with `*` for anything, as a pattern. Without "?" it says nothing of the query.
local function url_pattern(url)
  local escaped = url:gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0"):gsub("%*", ".*")
  return "^" .. escaped .. "$"
end

local function fits(stub, url)
  if not stub.url:find("?", 1, true) then url = url:gsub("%?.*", "") end
  return url:find(stub.pattern) ~= nil
end

local Kit = {}
Kit.__index = Kit

local function miss(kit, sentence)
  kit.missed[#kit.missed + 1] = sentence
end

-- What answers at a backend's server, or nil.
local function find_backend(kit, place, server)
  return kit.backends[place .. "/" .. server] or kit.backends[place] or kit.backends["*"]
end

-- The newest stub that fits, or nil.
local function find_stub(kit, url)
  for i = #kit.stubs, 1, -1 do
    if fits(kit.stubs[i], url) then return kit.stubs[i].answer end
  end
end

-- Is there a stub for anything at that origin? One that fails every connection is told at once.
local function find_origin(kit, origin)
  local found
  for i = #kit.stubs, 1, -1 do
    local stub = kit.stubs[i]
    if origin:find(url_pattern(stub.url:match "^%a+://[^/]*")) then
      if stub.whole_origin then return stub.answer end
      found = found or stub.answer
    end
  end
  return found
end

-- The core's three questions ------------------------------------------------------------------------------------------

local function is_url(place) return place:find("://", 1, true) ~= nil end

local function note_fetch(kit, entry)
  kit.all_fetched[#kit.all_fetched + 1] = entry
  kit.new_fetched[#kit.new_fetched + 1] = entry
  return entry
end

-- The address of a socket, as it may be named: by the names that it was resolved or made up for, and by itself.
local function names_of_socket(kit, server)
  local ip, port = server:match "^(.*):(%d+)$"
  local found = {}
  for _, names in ipairs { kit.made_up, kit.names } do
    for name, addresses in pairs(names) do
      for _, address in ipairs(addresses or {}) do
        if address == ip then found[#found + 1] = name .. ":" .. port end
      end
    end
  end
  found[#found + 1] = server
  return found
end

local function find_socket(kit, server)
  if kit.sockets[server] then return kit.sockets[server] end
  for _, name in ipairs(names_of_socket(kit, server)) do
    if kit.sockets[name] then return kit.sockets[name] end
  end
end

local function connect_socket(kit, server)
  local answer = find_socket(kit, server)
  if type(answer) == "table" then return answer.error end
  if answer then return nil end
  local name = names_of_socket(kit, server)[1]
  miss(kit, ("nothing is stubbed for the socket to %s: kit:socket(%q, …)"):format(name, name))
  return "connect_refused"
end

-- What a socket's function answers is sent as it is: a string, or a list of strings and pauses.
local function on_bytes(kit, stream, server, bytes, opening)
  if opening then kit.streams[stream] = {} end
  local answer = find_socket(kit, server)
  if type(answer) ~= "function" then return { ends = "reset" } end
  local sent = answer(bytes, kit.streams[stream])
  return type(sent) == "string" and { sent } or sent
end

local function on_connect(kit, place, server, at)
  if not place then return connect_socket(kit, server) end
  local url = is_url(place) and origin_of(place) or nil
  local answer
  if url then answer = find_origin(kit, url) else answer = find_backend(kit, place, server) end
  if not answer then
    if url then
      miss(kit, ("no answer is stubbed for %s: kit:stub(%q, …)"):format(url, url .. "/*"))
    else
      miss(kit, ("no answer is stubbed for the backend %q (%s): kit:backend(%q, …)"):format(place, server, place))
    end
    return "connect_refused"
  end
  local failure = type(answer) == "table" and wire.connect_errors[answer.error] and answer.error or nil
  if failure then
    note_fetch(kit, { backend = not url and place or nil, url = url, server = server, error = failure, at = at })
  end
  return failure
end

local function read_request(raw)
  local place, target = raw.place, raw.target
  local request = {
    method = raw.method, target = target, path = target:match "^[^?]*", query = target:match "%?(.*)",
    headers = wire.make_headers(raw.headers), trailers = wire.make_headers(raw.trailers), body = raw.body,
    server = raw.server, at = raw.at,
  }
  request.host = request.headers.Host
  if is_url(place) then request.url = origin_of(place) .. target else request.backend = place end
  return request
end

local function on_answer(kit, raw)
  local request = note_fetch(kit, read_request(raw))
  local answer
  if request.url then answer = find_stub(kit, request.url) else answer = find_backend(kit, raw.place, raw.server) end
  if not answer then
    miss(kit, ("no answer is stubbed for %s %s: kit:stub(%q, …)"):format(request.method, request.url, request.url))
    request.error = "reset"
    return { ends = "reset" }
  end
  local what = "the answer of " .. (request.url or request.backend)
  if type(answer) == "function" then answer = answer(request) end
  answer = wire.normalise(answer, what)
  if wire.connect_errors[answer.error] then
    error(what .. ": a function is asked when the connection stands; give { error = … } itself", 0)
  end
  request.error = answer.error
  if not answer.error and not answer.raw then request.status = answer.status or 200 end
  return wire.play(answer, request.method)
end

local function on_resolve(kit, name)
  local answer = kit.names[name]
  if answer == false then return {} end
  if answer then return answer end
  -- A name is as good as an address when its answers are stubbed: one of its own out of a range that is nobody's.
  if not kit.made_up[name] then
    kit.made_up_count = kit.made_up_count + 1
    kit.made_up[name] = { ("198.18.%d.%d"):format(kit.made_up_count // 250, kit.made_up_count % 250 + 1) }
  end
  return kit.made_up[name]
end

-- A request, or the passing of time, found something unstubbed: that is the test's failure, not the policy's.
local function complain(kit, level)
  local missed = kit.missed
  if #missed == 0 then return end
  kit.missed = {}
  error(table.concat(missed, "\n"), level + 1)
end

-- What was noted ------------------------------------------------------------------------------------------------------

-- The parts of a cache key, out of the core's own writing of them; `n` counts them, nils included.
local function read_key(key)
  if not key then return nil end
  local parts, at, n = {}, 1, 0
  while at <= #key do
    local kind = key:sub(at, at)
    n = n + 1
    at = at + 1
    if kind == "s" then
      local size, rest = key:match("^(%d+):()", at)
      parts[n] = key:sub(rest, rest + tonumber(size) - 1)
      at = rest + tonumber(size)
    elseif kind == "i" or kind == "f" then
      local number, rest = key:match("^([^,]*),()", at)
      parts[n], at = tonumber(number), rest
    elseif kind == "t" or kind == "b" then
      parts[n] = kind == "t"
    end
  end
  parts.n = n
  return parts
end

local function take_notes(kit)
  local hooks, lines, exchanges = kit.rehearsal:notes()
  table.move(lines, 1, #lines, #kit.lines + 1, kit.lines)
  for _, hook in ipairs(hooks) do hook.key = read_key(hook.key) end
  return hooks, lines, exchanges
end

-- Loading -------------------------------------------------------------------------------------------------------------

local function read_source(source)
  if type(source) == "string" then return source, nil end
  if type(source) == "table" and type(source.text) == "string" then
    wire.check_names("kit.load", source, { text = true, name = true })
    return source.name or "config.lua", source.text
  end
  error("kit.load: expected a file's path or { text = … }", 3)
end

local function check_answer(answer, what)
  if type(answer) == "function" then return answer end
  local ok, result = pcall(wire.normalise, answer, what)
  if not ok then error(result, 3) end
  return result
end

-- Is it a backend of any site, or a server of one?
local function known_backend(sites, name)
  if name == "*" then return true end
  local names = {}
  for _, site in ipairs(sites) do
    for _, backend in ipairs(site.backends) do
      if name == backend or name:sub(1, #backend + 1) == backend .. "/" then return true end
      names[#names + 1] = backend
    end
  end
  return false, names
end

local function check_backend(kit, name)
  local known, names = known_backend(kit.rehearsal:sites(), name)
  if known then return end
  error(("this config has no backend %q; it has %s"):format(tostring(name), table.concat(names, ", ")), 3)
end

local load_options = wire.set_of "now seed backends stubs names"

-- What is stubbed before on_load runs; a longer URL says more, so it comes later and counts first.
local function stub_early(kit, options)
  for name, addresses in pairs(options.names or {}) do kit:resolve(name, addresses) end
  for name, answer in pairs(options.backends or {}) do kit.backends[name] = check_answer(answer, "kit.load") end
  local urls = {}
  for url in pairs(options.stubs or {}) do urls[#urls + 1] = url end
  table.sort(urls, function(a, b) return #a < #b end)
  for _, url in ipairs(urls) do kit:stub(url, options.stubs[url]) end
end

---@param file string|{ text: string, name?: string }
---@param options? table now, seed, backends, stubs, names
function testing.load(file, options)
  options = options or {}
  local path, text = read_source(file)
  local ok, problem = pcall(wire.check_names, "kit.load", options, load_options)
  if not ok then error(problem, 2) end
  local kit = setmetatable({
    backends = {}, stubs = {}, names = {}, made_up = {}, made_up_count = 0, missed = {}, all_fetched = {},
    new_fetched = {}, lines = {}, sockets = {}, streams = {},
  }, Kit)
  stub_early(kit, options)
  local rehearsal, errors = core.open {
    file = path, text = text, now = options.now or 1767225600, seed = options.seed or 1,
    coverage = coverage_file ~= nil,
    connect = function(...) return on_connect(kit, ...) end,
    answer = function(request) return on_answer(kit, request) end,
    bytes = function(...) return on_bytes(kit, ...) end,
    resolve = function(name) return on_resolve(kit, name) end,
  }
  if not rehearsal then error(errors .. table.concat(kit.missed, "\n"), 2) end
  kit.rehearsal, kit.path, kit.text = rehearsal, path, text
  take_notes(kit)
  for name in pairs(kit.backends) do check_backend(kit, name) end
  complain(kit, 2)
  return kit
end

---@param file? string|{ text: string, name?: string }
function Kit:reload(file)
  local path, text = self.path, self.text
  if file then path, text = read_source(file) end
  local ok, errors = self.rehearsal:reload(path, text)
  if not ok then error(errors .. table.concat(self.missed, "\n"), 2) end
  self.path, self.text = path, text
  take_notes(self)
end

function Kit:close()
  self.rehearsal:close()
end

-- Stubs ---------------------------------------------------------------------------------------------------------------

function Kit:backend(name, answer)
  check_backend(self, name)
  self.backends[name] = check_answer(answer, "kit:backend")
  self.rehearsal:drop() -- what stood between two requests knows nothing of the new answer
  return self
end

function Kit:stub(url, answer)
  if type(url) ~= "string" or not url:find "^https?://." then
    error("kit:stub: expected an http or https URL, * in it stands for anything", 2)
  end
  answer = check_answer(answer, "kit:stub")
  local whole_origin = url:find "^https?://[^/]+$" ~= nil or url:find "^https?://[^/]+/%*$" ~= nil
  if type(answer) == "table" and wire.connect_errors[answer.error] and not whole_origin then
    error("kit:stub: a connection fails for a whole host: name no path", 2)
  end
  if url:find "^https?://[^/]+$" then url = url .. "/*" end
  self.stubs[#self.stubs + 1] = { url = url, pattern = url_pattern(url), answer = answer, whole_origin = whole_origin }
  if self.rehearsal then self.rehearsal:drop() end
  return self
end

function Kit:socket(address, answer)
  if type(address) ~= "string" or not (address:find ":%d+$" or address:find "^unix:") then
    error('kit:socket: expected "host:port" or "unix:/path"', 2)
  end
  local fails = type(answer) == "table" and wire.connect_errors[answer.error]
  if type(answer) ~= "function" and not fails then
    error("kit:socket: expected a function, or { error = … } with what becomes of the connection", 2)
  end
  self.sockets[address] = answer
  return self
end

function Kit:resolve(name, addresses)
  self.names[name:lower()] = addresses or false
  return self
end

function Kit:health(server, well)
  local backend, address = server:match "^([^/]+)/([%d%[].*)$"
  if not self.rehearsal:health(backend, address or server, well) then
    error(("kit:health: there is no server %q"):format(server), 2)
  end
  return self
end

-- Requests ------------------------------------------------------------------------------------------------------------

local function find_site(kit, name)
  if not name then return nil end
  for i, site in ipairs(kit.rehearsal:sites()) do
    if site.name == name then return i, site end
    for _, host in ipairs(site.hosts) do
      if host == name then return i, site end
    end
  end
  error(("kit:request: there is no site %q"):format(tostring(name)), 0)
end

-- The name that a request for a site would carry.
local function default_host(site)
  local host = site and site.hosts[1] or "localhost"
  return (host:gsub("^%*", "any"))
end

local function names_of(tried, field)
  local list = {}
  for i, one in ipairs(tried or {}) do list[i] = one[field] end
  return list
end

local function take_fetched(kit)
  local fetched = kit.new_fetched
  kit.new_fetched = {}
  return fetched
end

-- The name that a client of TLS would ask for: the one in Host.
local function host_in(bytes)
  local host = bytes:match "\r\n[Hh][Oo][Ss][Tt]:[ \t]*([^\r]*)" or ""
  return (host:gsub(":%d+$", ""))
end

local function to_options(kit, request)
  if type(request) == "string" then request = { path = request } end
  if type(request) ~= "table" then error("kit:request: expected a path or a table", 0) end
  wire.check_names("kit:request", request, wire.request_fields)
  local index, site = find_site(kit, request.site)
  local client = request.client or {}
  wire.check_names("client", client, { ip = true, port = true })
  local bytes, method = request.raw, (request.raw or ""):match "^%u+" or "GET"
  if not bytes then bytes, method = wire.write_request(request, default_host(site or kit.rehearsal:sites()[1])) end
  return {
    bytes = bytes, method = method, host = host_in(bytes), ip = client.ip, port = client.port, site = index,
    listen = request.listen, leave = request.leave,
  }
end

function Kit:request(request)
  local ok, options = pcall(to_options, self, request)
  if not ok then error(options, 2) end
  self.new_fetched = {}
  local passed, answer, ended = pcall(self.rehearsal.request, self.rehearsal, options)
  if not passed then error(answer, 2) end
  local hooks, lines, exchanges = take_notes(self)
  complain(self, 2)
  if not ended then error("kit:request: it never came to an end: nothing is left that could happen", 2) end
  local exchange = exchanges[1] or {}
  return {
    status = answer.status, headers = wire.make_headers(answer.headers), body = answer.body, whole = answer.whole,
    trailers = wire.make_headers(answer.trailers), interim = answer.interim, source = exchange.source,
    site = exchange.site, id = exchange.id, error = exchange.error, failed_hook = exchange.failed_hook,
    turned_away = exchanges[1] == nil,
    time = exchange.time or 0, tries = exchange.tries or 0, tried = names_of(exchange.tried, "backend"),
    servers = names_of(exchange.tried, "server"), cache_key = read_key(exchange.cache_key),
    cache = exchange.cache, fetched = take_fetched(self), logs = lines, hooks = hooks,
  }
end

-- Time and the rest ---------------------------------------------------------------------------------------------------

function Kit:advance(seconds)
  if not math.type(seconds) or not (seconds >= 0 and seconds < 1e9) then
    error(("kit:advance: expected seconds, from 0 to below 1e9, got %s"):format(tostring(seconds)), 2)
  end
  local ok, problem = pcall(self.rehearsal.advance, self.rehearsal, seconds)
  if not ok then error(problem, 2) end
  take_notes(self)
  complain(self, 2)
end

function Kit:now()
  return (self.rehearsal:now())
end

function Kit:clock()
  local _, clock = self.rehearsal:now()
  return clock
end

function Kit:logs()
  return table.move(self.lines, 1, #self.lines, 1, {})
end

function Kit:fetched()
  return table.move(self.all_fetched, 1, #self.all_fetched, 1, {})
end

function Kit:files()
  return self.rehearsal:sources()
end

return testing
