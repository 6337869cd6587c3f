-- The test kit: a policy tried without a network. `require "moongate.testing"` in busted or plain lua5.4;
-- docs/testing.md shows how, lua/types/testing.lua says what each function takes and gives.
--
-- The config runs in the real core (moongate_kit, core/kit): the same loading, hooks, fetches, limits and bindings as
-- in production. Only the clock, the network and randomness are replaced. This file turns tables into bytes for it and
-- what it saw into tables; it decides nothing that the core decides.

local core = require "moongate_kit"

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

-- Headers -------------------------------------------------------------------------------------------------------------

-- Fields by name, whatever the case; repeated lines joined, as scripts see them. `lines` is what really came.
local headers_methods = {}

---@param name string
---@return string[]
function headers_methods:all(name)
  local found = {}
  for _, line in ipairs(rawget(self, "lines")) do
    if line[1]:lower() == name:lower() then found[#found + 1] = line[2] end
  end
  return found
end

local headers_meta = {
  __index = function(self, name)
    if headers_methods[name] then return headers_methods[name] end
    if type(name) ~= "string" then return nil end
    local values = headers_methods.all(self, name)
    if name:lower() == "set-cookie" or #values < 2 then return values[1] end
    return table.concat(values, ", ")
  end,
  __newindex = function() error("these headers were received: they are not for writing", 2) end,
  __pairs = function(self)
    local i, lines = 0, rawget(self, "lines")
    return function()
      i = i + 1
      if lines[i] then return lines[i][1], lines[i][2] end
    end
  end,
}

local function make_headers(lines)
  return setmetatable({ lines = lines }, headers_meta)
end

-- Writing messages ----------------------------------------------------------------------------------------------------

local function check_field(name, value)
  local text = tostring(value)
  if type(name) ~= "string" or not name:find "^[%w!#$%%&'*+.^_`|~-]+$" then
    error(("header name %q is no token"):format(tostring(name)), 0)
  end
  if type(value) ~= "string" and type(value) ~= "number" or text:find "[\r\n\0]" then
    error(("header %s: expected a string or number without line breaks"):format(name), 0)
  end
  return name .. ": " .. text .. "\r\n"
end

-- The lines of a table name -> value or list of values, sorted, and the names in lower case.
local function write_headers(headers)
  local lines, names, given = {}, {}, {}
  for name in pairs(headers or {}) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for _, name in ipairs(names) do
    local value = headers[name]
    if type(value) ~= "table" then value = { value } end
    for _, one in ipairs(value) do lines[#lines + 1] = check_field(name, one) end
    given[name:lower()] = true
  end
  return table.concat(lines), given
end

local function chunk(bytes)
  return bytes == "" and "" or ("%x\r\n%s\r\n"):format(#bytes, bytes)
end

-- Unknown names are mistakes, told with what there is.
local function check_names(what, given, known)
  for name in pairs(given) do
    if not known[name] then
      local names = {}
      for one in pairs(known) do names[#names + 1] = one end
      table.sort(names)
      error(("%s: unknown field %q; there are %s"):format(what, tostring(name), table.concat(names, ", ")), 0)
    end
  end
end

local function set_of(text)
  local set = {}
  for name in text:gmatch "%S+" do set[name] = true end
  return set
end

-- Answers of stubs ----------------------------------------------------------------------------------------------------

local connect_errors = set_of "connect_refused connect_failed connect_timeout"
local stream_errors = set_of "reset first_byte_timeout between_timeout truncated bad_response"
local answer_fields = set_of "status headers body trailers delay error raw"

-- Whatever a test gives as an answer, as a table.
local function normalise(answer, what)
  if type(answer) == "string" then return { body = answer } end
  if math.type(answer) == "integer" then return { status = answer } end
  if type(answer) ~= "table" then
    error(("%s: expected a body, a status or a table, got %s"):format(what, type(answer)), 0)
  end
  check_names(what, answer, answer_fields)
  if answer.error and not connect_errors[answer.error] and not stream_errors[answer.error] then
    error(("%s: unknown error %q"):format(what, tostring(answer.error)), 0)
  end
  return answer
end

local function has_no_body(method, status)
  return method == "HEAD" or status < 200 or status == 204 or status == 304
end

-- A list of strings and pauses as chunks.
local function write_chunks(steps, body)
  for _, part in ipairs(body) do steps[#steps + 1] = type(part) == "number" and part or chunk(part) end
end

-- What goes over the wire: strings and, in seconds, pauses.
local function write_answer(answer, method)
  local status = answer.status or 200
  local body, steps = answer.body or "", {}
  if math.type(status) ~= "integer" or status < 100 or status > 999 then error("status is no HTTP status", 0) end
  local lines, given = write_headers(answer.headers)
  local framing = ""
  if type(body) == "table" then
    framing = given["transfer-encoding"] and "" or "Transfer-Encoding: chunked\r\n"
  elseif not given["content-length"] and not given["transfer-encoding"] and status >= 200 and status ~= 204
    and not (status == 304 and body == "") then
    framing = ("Content-Length: %d\r\n"):format(#body)
  end
  steps[#steps + 1] = ("HTTP/1.1 %d -\r\n%s%s\r\n"):format(status, lines, framing)
  if has_no_body(method, status) then return steps end
  if type(body) == "table" then
    write_chunks(steps, body)
    steps[#steps + 1] = "0\r\n" .. write_headers(answer.trailers) .. "\r\n"
  else
    steps[#steps + 1] = body
  end
  return steps
end

-- The head of an answer whose body does not come whole, and a part of that body.
local function write_part(answer)
  local body = type(answer.body) == "string" and answer.body ~= "" and answer.body or "half of this is missing"
  local lines = write_headers(answer.headers)
  local head = ("HTTP/1.1 %d -\r\n%sContent-Length: %d\r\n\r\n"):format(answer.status or 200, lines, #body)
  return head .. body:sub(1, #body // 2)
end

local never = 1e9

-- Answers that fail, by the word that the core will have for it.
local failing = {
  reset = function() return { ends = "reset" } end,
  first_byte_timeout = function() return { never } end,
  between_timeout = function(answer) return { write_part(answer), never } end,
  truncated = function(answer) return { write_part(answer), ends = "close" } end,
  bad_response = function() return { "this is no HTTP\r\n\r\n", ends = "close" } end,
}

local function play(answer, method)
  local steps
  if answer.raw then steps = { answer.raw, ends = "close" }
  elseif answer.error then steps = failing[answer.error](answer)
  else steps = write_answer(answer, method) end
  if answer.delay then table.insert(steps, 1, answer.delay) end
  return steps
end

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

function Kit:miss(sentence)
  self.missed[#self.missed + 1] = sentence
end

-- What answers at a backend's server, or nil.
function Kit:find_backend(place, server)
  return self.backends[place .. "/" .. server] or self.backends[place] or self.backends["*"]
end

-- The newest stub that fits, or nil.
function Kit:find_stub(url)
  for i = #self.stubs, 1, -1 do
    if fits(self.stubs[i], url) then return self.stubs[i].answer end
  end
end

-- Is there a stub for anything at that origin? One that fails every connection is told at once.
function Kit:find_origin(origin)
  local found
  for i = #self.stubs, 1, -1 do
    local stub = self.stubs[i]
    if origin:find(url_pattern(stub.url:match "^%a+://[^/]*")) then
      if stub.whole_origin then return stub.answer end
      found = found or stub.answer
    end
  end
  return found
end

-- The core's three questions ------------------------------------------------------------------------------------------

local function is_url(place) return place:find("://", 1, true) ~= nil end

function Kit:note_fetch(entry)
  self.all_fetched[#self.all_fetched + 1] = entry
  self.new_fetched[#self.new_fetched + 1] = entry
  return entry
end

function Kit:on_connect(place, server, at)
  if not place then
    self:miss("a socket to " .. server .. " was opened: the kit answers backends and URLs only")
    return "connect_refused"
  end
  local url = is_url(place) and origin_of(place) or nil
  local answer
  if url then answer = self:find_origin(url) else answer = self:find_backend(place, server) end
  if not answer then
    if url then
      self:miss(("no answer is stubbed for %s: kit:stub(%q, …)"):format(url, url .. "/*"))
    else
      self:miss(("no answer is stubbed for the backend %q (%s): kit:backend(%q, …)"):format(place, server, place))
    end
    return "connect_refused"
  end
  local failure = type(answer) == "table" and connect_errors[answer.error] and answer.error or nil
  if failure then
    self:note_fetch { backend = not url and place or nil, url = url, server = server, error = failure, at = at }
  end
  return failure
end

local function read_request(raw)
  local place, target = raw.place, raw.target
  local request = {
    method = raw.method, target = target, path = target:match "^[^?]*", query = target:match "%?(.*)",
    headers = make_headers(raw.headers), trailers = make_headers(raw.trailers), body = raw.body, server = raw.server,
    at = raw.at,
  }
  request.host = request.headers.Host
  if is_url(place) then request.url = origin_of(place) .. target else request.backend = place end
  return request
end

function Kit:on_answer(raw)
  local request = self:note_fetch(read_request(raw))
  local answer
  if request.url then answer = self:find_stub(request.url) else answer = self:find_backend(raw.place, raw.server) end
  if not answer then
    self:miss(("no answer is stubbed for %s %s: kit:stub(%q, …)"):format(request.method, request.url, request.url))
    request.error = "reset"
    return { ends = "reset" }
  end
  local what = "the answer of " .. (request.url or request.backend)
  if type(answer) == "function" then answer = answer(request) end
  answer = normalise(answer, what)
  if connect_errors[answer.error] then
    error(what .. ": a function is asked when the connection stands; give { error = … } itself", 0)
  end
  request.error = answer.error
  if not answer.error and not answer.raw then request.status = answer.status or 200 end
  return play(answer, request.method)
end

function Kit:on_resolve(name)
  local answer = self.names[name]
  if answer == false then return {} end
  if answer then return answer end
  -- A name is as good as an address when its answers are stubbed: one of its own out of a range that is nobody's.
  if not self.made_up[name] then
    self.made_up_count = self.made_up_count + 1
    self.made_up[name] = { ("198.18.%d.%d"):format(self.made_up_count // 250, self.made_up_count % 250 + 1) }
  end
  return self.made_up[name]
end

-- A request, or the passing of time, found something unstubbed: that is the test's failure, not the policy's.
local function complain(kit, level)
  local missed = kit.missed
  if #missed == 0 then return end
  kit.missed = {}
  error(table.concat(missed, "\n"), level + 1)
end

-- Loading -------------------------------------------------------------------------------------------------------------

local function read_source(source)
  if type(source) == "string" then return source, nil end
  if type(source) == "table" and type(source.text) == "string" then
    check_names("kit.load", source, { text = true, name = true })
    return source.name or "config.lua", source.text
  end
  error("kit.load: expected a file's path or { text = … }", 3)
end

local function check_answer(answer, what)
  if type(answer) == "function" then return answer end
  local ok, result = pcall(normalise, answer, what)
  if not ok then error(result, 3) end
  return result
end

local load_options = set_of "now seed backends stubs names"

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
  local ok, problem = pcall(check_names, "kit.load", options, load_options)
  if not ok then error(problem, 2) end
  local kit = setmetatable({
    backends = {}, stubs = {}, names = {}, made_up = {}, made_up_count = 0, missed = {}, all_fetched = {},
    new_fetched = {}, lines = {},
  }, Kit)
  stub_early(kit, options)
  local rehearsal, errors = core.open {
    file = path, text = text, now = options.now or 1767225600, seed = options.seed or 1,
    coverage = coverage_file ~= nil,
    connect = function(...) return kit:on_connect(...) end,
    answer = function(request) return kit:on_answer(request) end,
    resolve = function(name) return kit:on_resolve(name) end,
  }
  if not rehearsal then error(errors:gsub("\n$", ""), 2) end
  kit.rehearsal, kit.warnings, kit.path = rehearsal, errors, path
  kit:take_notes()
  for name in pairs(kit.backends) do kit:check_backend(name) end
  complain(kit, 2)
  return kit
end

---@param file? string|{ text: string, name?: string }
function Kit:reload(file)
  local path, text = self.path, nil
  if file then path, text = read_source(file) end
  local ok, errors = self.rehearsal:reload(path, text)
  if not ok then error(errors:gsub("\n$", ""), 2) end
  self.path = path
  self:take_notes()
end

function Kit:close()
  self.rehearsal:close()
end

-- Stubs ---------------------------------------------------------------------------------------------------------------

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

function Kit:check_backend(name)
  local known, names = known_backend(self.rehearsal:sites(), name)
  if known then return end
  error(("this config has no backend %q; it has %s"):format(tostring(name), table.concat(names, ", ")), 3)
end

function Kit:backend(name, answer)
  self:check_backend(name)
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
  if type(answer) == "table" and connect_errors[answer.error] and not whole_origin then
    error("kit:stub: a connection fails for a whole host: name no path", 2)
  end
  if url:find "^https?://[^/]+$" then url = url .. "/*" end
  self.stubs[#self.stubs + 1] = { url = url, pattern = url_pattern(url), answer = answer, whole_origin = whole_origin }
  if self.rehearsal then self.rehearsal:drop() end
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

local request_fields = set_of "method path host headers body client site listen version leave raw trailers"

function Kit:find_site(name)
  if not name then return nil end
  for i, site in ipairs(self.rehearsal:sites()) do
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

-- A request's bytes.
local function write_request(options, site)
  local method = options.method or (options.body and "POST" or "GET")
  local version = tostring(options.version or "1.1")
  local lines, given = write_headers(options.headers)
  if not given.host and version ~= "1.0" then
    lines = ("Host: %s\r\n%s"):format(options.host or default_host(site), lines)
  end
  local body, framing = options.body, ""
  local chunked = type(body) == "table"
  if chunked then framing = "Transfer-Encoding: chunked\r\n"
  elseif body and not given["content-length"] then framing = ("Content-Length: %d\r\n"):format(#body) end
  local bytes = { ("%s %s HTTP/%s\r\n%s%s\r\n"):format(method, options.path or "/", version, lines, framing) }
  if chunked then
    for _, part in ipairs(body) do bytes[#bytes + 1] = chunk(part) end
    bytes[#bytes + 1] = "0\r\n" .. write_headers(options.trailers) .. "\r\n"
  else
    bytes[#bytes + 1] = body
  end
  return table.concat(bytes), method
end

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

function Kit:take_notes()
  local hooks, lines, exchanges = self.rehearsal:notes()
  table.move(lines, 1, #lines, #self.lines + 1, self.lines)
  for _, hook in ipairs(hooks) do hook.key = read_key(hook.key) end
  return hooks, lines, exchanges
end

local function to_options(kit, request)
  if type(request) == "string" then request = { path = request } end
  if type(request) ~= "table" then error("kit:request: expected a path or a table", 0) end
  check_names("kit:request", request, request_fields)
  local index, site = kit:find_site(request.site)
  local client = request.client or {}
  check_names("client", client, { ip = true, port = true })
  local bytes, method = request.raw, (request.raw or ""):match "^%u+" or "GET"
  if not bytes then bytes, method = write_request(request, site or kit.rehearsal:sites()[1]) end
  return {
    bytes = bytes, method = method, ip = client.ip, port = client.port, site = index, listen = request.listen,
    leave = request.leave,
  }
end

function Kit:request(request)
  local ok, options = pcall(to_options, self, request)
  if not ok then error(options, 2) end
  self.new_fetched = {}
  local passed, answer, ended = pcall(self.rehearsal.request, self.rehearsal, options)
  if not passed then error(answer, 2) end
  local hooks, lines, exchanges = self:take_notes()
  complain(self, 2)
  if not ended then error("kit:request: it never came to an end: nothing is left that could happen", 2) end
  local exchange = exchanges[1]
  return {
    status = answer.status, headers = make_headers(answer.headers), body = answer.body, whole = answer.whole,
    trailers = make_headers(answer.trailers), interim = answer.interim, source = exchange.source, site = exchange.site,
    id = exchange.id, error = exchange.error, failed_hook = exchange.failed_hook, time = exchange.time,
    tries = exchange.tries, tried = names_of(exchange.tried, "backend"), servers = names_of(exchange.tried, "server"),
    cache_key = read_key(exchange.cache_key), fetched = take_fetched(self), logs = lines, hooks = hooks,
  }
end

-- Time and the rest ---------------------------------------------------------------------------------------------------

function Kit:advance(seconds)
  local ok, problem = pcall(self.rehearsal.advance, self.rehearsal, seconds)
  if not ok then error(problem, 2) end
  self:take_notes()
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
