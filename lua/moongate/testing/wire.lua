-- The kit's messages: tables into bytes, lines into headers. For lua/moongate/testing.lua.

local wire = {}

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

function wire.make_headers(lines)
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
  if headers ~= nil and type(headers) ~= "table" then
    error(("headers: expected a table of names and values, got %s"):format(type(headers)), 0)
  end
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
function wire.check_names(what, given, known)
  for name in pairs(given) do
    if not known[name] then
      local names = {}
      for one in pairs(known) do names[#names + 1] = one end
      table.sort(names)
      error(("%s: unknown field %q; there are %s"):format(what, tostring(name), table.concat(names, ", ")), 0)
    end
  end
end

function wire.set_of(text)
  local set = {}
  for name in text:gmatch "%S+" do set[name] = true end
  return set
end

-- Answers of stubs ----------------------------------------------------------------------------------------------------

wire.connect_errors = wire.set_of "connect_refused connect_failed connect_timeout"
local stream_errors = wire.set_of "reset first_byte_timeout between_timeout truncated bad_response"
wire.answer_fields = wire.set_of "status headers body trailers delay error raw"

local function check_answer(answer)
  local status, failure = answer.status, answer.error
  if failure and not wire.connect_errors[failure] and not stream_errors[failure] then
    error(("unknown error %q"):format(tostring(failure)), 0)
  end
  if status ~= nil and (math.type(status) ~= "integer" or status < 100 or status > 999) then
    error(("status: expected 100 to 999, got %s"):format(tostring(status)), 0)
  end
  write_headers(answer.headers)
  write_headers(answer.trailers)
end

-- Whatever a test gives as an answer, as a table.
function wire.normalise(answer, what)
  if type(answer) == "string" then return { body = answer } end
  if math.type(answer) == "integer" then answer = { status = answer } end
  if type(answer) ~= "table" then
    error(("%s: expected a body, a status or a table, got %s"):format(what, type(answer)), 0)
  end
  wire.check_names(what, answer, wire.answer_fields)
  local ok, problem = pcall(check_answer, answer)
  if not ok then error(("%s: %s"):format(what, problem), 0) end
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

function wire.play(answer, method)
  local steps
  if answer.raw then steps = { answer.raw, ends = "close" }
  elseif answer.error then steps = failing[answer.error](answer)
  else steps = write_answer(answer, method) end
  if answer.delay then table.insert(steps, 1, answer.delay) end
  return steps
end

-- Requests ------------------------------------------------------------------------------------------------------------

wire.request_fields = wire.set_of "method path host headers body client site listen version leave raw trailers"

-- A request's bytes.
function wire.write_request(options, host)
  local method = options.method or (options.body and "POST" or "GET")
  local version = tostring(options.version or "1.1")
  local lines, given = write_headers(options.headers)
  if not given.host and version ~= "1.0" then
    lines = ("Host: %s\r\n%s"):format(options.host or host, lines)
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

return wire
