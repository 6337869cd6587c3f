-- HTTP/1.1 for specs: strict readers of messages, plain writers, a client and a fake backend. Strict, because what
-- Moongate sends is judged by it: a bare LF, a fold, two framings or a length that is not digits fail the spec.

local async = require "support.async"
local net = require "support.net"

local http = {}

-- Headers -------------------------------------------------------------------------------------------------------------

---A list of `{ name, value }` in the order and case they came in. `headers["content-type"]` finds without case
---(repeated lines joined with ", ", absent: nil), `headers:all(name)` gives every value, `headers:names()` the names.
---@class support.Headers
local methods = {}

function methods:all(name)
  local values = {}
  for _, line in ipairs(self) do
    if line[1]:lower() == name:lower() then values[#values + 1] = line[2] end
  end
  return values
end

function methods:names()
  local names = {}
  for i, line in ipairs(self) do names[i] = line[1] end
  return names
end

local Headers = {
  __index = function(self, name)
    if methods[name] then return methods[name] end
    if type(name) ~= "string" then return nil end
    local values = methods.all(self, name)
    return #values > 0 and table.concat(values, ", ") or nil
  end,
}

---Gives a list of `{ name, value }` these ways to look at it.
---@param list table
---@return support.Headers
function http.headers(list) return setmetatable(list, Headers) end

-- Reading -------------------------------------------------------------------------------------------------------------

local function refuse(what, bytes)
  async.fail(("not HTTP: %s in %s"):format(what, net.quote(bytes)))
end

local token = "[%w!#$%%&'*+%-.^_`|~]+"

-- One line without its CRLF; any other CR, LF or control byte in it is refused.
local function read_line(conn, timeout)
  local line = conn:read_until("\n", timeout)
  if line:sub(-2) ~= "\r\n" then refuse("a line not ended by CRLF", line) end
  line = line:sub(1, -3)
  if line:find "[%z\1-\8\10-\31\127]" then refuse("a control byte", line) end
  return line
end

local function read_fields(conn)
  local headers = setmetatable({}, Headers)
  while true do
    local line = read_line(conn)
    if line == "" then return headers end
    local name, value = line:match("^(" .. token .. "):[ \t]*(.-)[ \t]*$")
    if not name then refuse("a header line", line) end
    headers[#headers + 1] = { name, value }
  end
end

-- How the body is framed: "chunked", a length, or nil when nothing says.
local function framing(headers)
  local codings, lengths = headers:all "Transfer-Encoding", headers:all "Content-Length"
  if #codings > 0 and #lengths > 0 then async.fail "both Transfer-Encoding and Content-Length" end
  if #lengths > 1 then async.fail "more than one Content-Length" end
  if #codings > 0 then
    if table.concat(codings, ","):lower() ~= "chunked" then async.fail("Transfer-Encoding: " .. codings[1]) end
    return "chunked"
  end
  if #lengths == 0 then return nil end
  if not lengths[1]:find "^%d+$" then async.fail("Content-Length: " .. lengths[1]) end
  return math.tointeger(tonumber(lengths[1]))
end

---Reads one chunk: its bytes, or nil and the trailers after the last.
---@param conn support.Conn
---@return string?, support.Headers?
function http.chunk(conn)
  local line = read_line(conn)
  local digits = line:match "^(%x+)$" or line:match "^(%x+)[ \t]*;"
  if not digits then refuse("a chunk size", line) end
  local size = tonumber(digits, 16)
  if size == 0 then return nil, read_fields(conn) end
  local bytes = conn:read_exactly(size)
  if conn:read_exactly(2) ~= "\r\n" then refuse("the end of a chunk", bytes) end
  return bytes
end

---The next `n` bytes of a chunked body, however they are cut.
---@param conn support.Conn
---@param n integer
---@return string
function http.content(conn, n)
  local got = ""
  while #got < n do got = got .. http.chunk(conn) end
  return got
end

-- Reads the body into `message`: `body`, and for chunked ones `chunks` and `trailers`.
local function read_body(conn, message, until_close)
  local frame = framing(message.headers)
  if frame == "chunked" then
    message.chunks = {}
    while true do
      local bytes, trailers = http.chunk(conn)
      message.trailers = trailers
      if not bytes then break end
      table.insert(message.chunks, bytes)
    end
    message.body = table.concat(message.chunks)
  elseif frame then
    message.body = conn:read_exactly(frame)
  else
    message.body = until_close and conn:read_all() or ""
  end
  return message
end

---@class support.Response
---@field version string "1.1"
---@field status integer
---@field reason string
---@field headers support.Headers
---@field body string
---@field chunks? string[] of a chunked body, as they were framed
---@field trailers? support.Headers
---@field interim support.Response[] the 1xx that came before it

---Reads one response head; `http.body` reads the rest.
---@param conn support.Conn
---@param timeout? number seconds to its first line
---@return support.Response
function http.response_head(conn, timeout)
  local line = read_line(conn, timeout)
  local version, status, reason = line:match "^HTTP/(%d%.%d) (%d%d%d) (.*)$"
  if not version then refuse("a status line", line) end
  return { version = version, status = tonumber(status), reason = reason, headers = read_fields(conn), interim = {} }
end

---Reads the body that belongs to a response head.
---@param conn support.Conn
---@param response support.Response
---@param method? string of the request, "GET"
---@return support.Response response
function http.body(conn, response, method)
  local status = response.status
  if method == "HEAD" or status < 200 or status == 204 or status == 304 then
    response.body = ""
    return response
  end
  return read_body(conn, response, true)
end

---Reads the final response with its body. 1xx before it are collected in `interim`; 101 is final.
---@param conn support.Conn
---@param options? { method?: string, timeout?: number }  method of the request, "GET"
---@return support.Response
function http.response(conn, options)
  options = options or {}
  local interim = {}
  while true do
    local response = http.response_head(conn, options.timeout)
    if response.status >= 200 or response.status == 101 then
      response.interim = interim
      return http.body(conn, response, options.method)
    end
    response.body = ""
    interim[#interim + 1] = response
  end
end

---@class support.Request
---@field method string
---@field target string
---@field version string "1.1"
---@field headers support.Headers
---@field body string
---@field chunks? string[]
---@field trailers? support.Headers
---@field conn support.Conn

---Reads one request head; `http.request_body` reads the rest.
---@param conn support.Conn
---@param timeout? number seconds to its first line
---@return support.Request
function http.request_head(conn, timeout)
  local line = read_line(conn, timeout)
  local method, target, version = line:match("^(" .. token .. ") (%S+) HTTP/(%d%.%d)$")
  if not method then refuse("a request line", line) end
  return { method = method, target = target, version = version, headers = read_fields(conn), conn = conn }
end

---@param conn support.Conn
---@param request support.Request
---@return support.Request request
function http.request_body(conn, request)
  return read_body(conn, request, false)
end

---Reads one request with its body.
---@param conn support.Conn
---@param timeout? number seconds to its first line
---@return support.Request
function http.request(conn, timeout)
  return http.request_body(conn, http.request_head(conn, timeout))
end

-- Writing -------------------------------------------------------------------------------------------------------------

-- Adds header lines from a list of pairs or from a map (whose order is by name, so that specs repeat exactly).
local function add_fields(lines, headers)
  if not headers then return end
  for _, line in ipairs(headers) do lines[#lines + 1] = line[1] .. ": " .. line[2] end
  local names = {}
  for name in pairs(headers) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do lines[#lines + 1] = name .. ": " .. tostring(headers[name]) end
end

local function has_field(headers, wanted)
  for key, value in pairs(headers or {}) do
    local name = type(key) == "string" and key or value[1]
    if name:lower() == wanted then return true end
  end
  return false
end

---@param bytes string
---@return string framed
function http.encode_chunk(bytes)
  return ("%x\r\n%s\r\n"):format(#bytes, bytes)
end

-- The bytes of a message: head, framing unless the headers bring their own, body. A body that is a list is chunked.
local function encode(first_line, message, has_no_body)
  local lines, body = { first_line }, message.body or ""
  add_fields(lines, message.headers)
  local chunked = type(body) == "table"
  local own = has_field(message.headers, "content-length") or has_field(message.headers, "transfer-encoding")
  if not own and not has_no_body then
    lines[#lines + 1] = chunked and "Transfer-Encoding: chunked" or "Content-Length: " .. #body
  end
  local parts = { table.concat(lines, "\r\n"), "\r\n\r\n" }
  if not chunked then
    parts[#parts + 1] = body
  else
    for _, bytes in ipairs(body) do parts[#parts + 1] = http.encode_chunk(bytes) end
    local trailers = { "0" }
    add_fields(trailers, message.trailers)
    parts[#parts + 1] = table.concat(trailers, "\r\n") .. "\r\n\r\n"
  end
  return table.concat(parts)
end

---@class support.Outgoing
---@field method? string "GET"
---@field target? string "/"
---@field status? integer 200
---@field reason? string
---@field version? string "1.1"
---@field headers? table a map or a list of pairs
---@field body? string|string[] a list is sent chunked, each its own chunk
---@field trailers? table with a chunked body

---The bytes of a request. Adds Host (localhost) and the framing of a body unless the headers have their own.
---@param request support.Outgoing
---@return string
function http.encode_request(request)
  local first = ("%s %s HTTP/%s"):format(request.method or "GET", request.target or "/", request.version or "1.1")
  if not has_field(request.headers, "host") then first = first .. "\r\nHost: localhost" end
  return encode(first, request, request.body == nil)
end

---The bytes of a response.
---@param response support.Outgoing
---@return string
function http.encode_response(response)
  local status = response.status or 200
  local first = ("HTTP/%s %d %s"):format(response.version or "1.1", status, response.reason or "Some Reason")
  return encode(first, response, status < 200 or status == 204 or status == 304)
end

-- Client --------------------------------------------------------------------------------------------------------------

---@class support.ExchangeOptions
---@field headers? table a map or a list of pairs
---@field body? string|string[] a list is sent chunked
---@field trailers? table
---@field version? string "1.1"
---@field conn? support.Conn
---@field timeout? number seconds to the first line of the answer

---Sends one request and reads the answer. `options.conn` is used and left open; otherwise a conn is opened for it.
---@param where support.Address
---@param method string
---@param target string
---@param options? support.ExchangeOptions
---@return support.Response
function http.exchange(where, method, target, options)
  options = options or {}
  local conn = options.conn or net.connect(where)
  conn:send(http.encode_request {
    method = method, target = target, version = options.version,
    headers = options.headers, body = options.body, trailers = options.trailers,
  })
  local response = http.response(conn, { method = method, timeout = options.timeout })
  if not options.conn and response.status ~= 101 then conn:close() end
  response.conn = conn
  return response
end

---@param where support.Address
---@param target? string "/"
---@param options? support.ExchangeOptions
---@return support.Response
function http.get(where, target, options)
  return http.exchange(where, "GET", target or "/", options)
end

---@param where support.Address
---@param target string
---@param body string|string[]
---@param options? support.ExchangeOptions
---@return support.Response
function http.post(where, target, body, options)
  local with_body = { body = body }
  for name, value in pairs(options or {}) do with_body[name] = value end
  return http.exchange(where, "POST", target, with_body)
end

-- Fake backend --------------------------------------------------------------------------------------------------------

---@class support.Backend: support.Server
---@field requests support.Request[] in the order their bodies ended
---@field aborted integer requests or answers cut short by the other side

local function wants_close(request, response)
  local asked = (request.headers["Connection"] or ""):lower()
  if response.close then return true end
  return asked:find "close" or (request.version == "1.0" and not asked:find "keep%-alive")
end

-- What a handler returned, as a message: a table, or status, headers, body.
local function as_response(first, headers, body)
  if type(first) == "table" then return first end
  return { status = first, headers = headers, body = body }
end

local function serve_one(backend, conn, handler)
  local request = http.request(conn, 3600)
  table.insert(backend.requests, request)
  backend.signal:notify()
  local answer = table.pack(handler(request))
  if answer[1] == nil then return false end
  local response = as_response(answer[1], answer[2], answer[3])
  if request.method == "HEAD" then
    local length = type(response.body) == "string" and #response.body or 0
    local head = { status = response.status, headers = { table.unpack(response.headers or {}) } }
    for name, value in pairs(response.headers or {}) do head.headers[name] = value end
    if not has_field(head.headers, "content-length") then head.headers["Content-Length"] = length end
    conn:send(http.encode_response(head))
  else
    conn:send(http.encode_response(response))
  end
  return not wants_close(request, response)
end

-- Serves a conn until either side ends it. What goes wrong because the other side left is counted, not a failure.
local function serve(backend, conn, handler)
  while true do
    local started = #backend.requests
    local ok, again = pcall(serve_one, backend, conn, handler)
    if not ok then
      local left = conn.lost or conn.eof or conn.closed
      if not left then error(again, 0) end
      if #backend.requests > started or conn:pending() ~= "" then
        backend.aborted = backend.aborted + 1
        backend.signal:notify()
      end
      return
    end
    if not again then return end
  end
end

---A fake HTTP backend on a free port. `handler(request)` returns a status, headers and body, or one table with these
---(and `close = true` to end the conn); a body that is a list is sent chunked. Returning nothing means that it did all
---itself on `request.conn`, which is then closed. Instead of a function: a string, the body of a 200.
---@param handler? string|fun(request: support.Request): any, any, any
---@param options? table as for `net.listen`
---@return support.Backend
function http.backend(handler, options)
  if type(handler) ~= "function" then
    local body = handler or "ok"
    handler = function() return 200, nil, body end
  end
  local backend
  backend = net.listen(function(conn) serve(backend, conn, handler) end, options) --[[@as support.Backend]]
  backend.requests, backend.aborted = {}, 0
  return backend
end

---Waits until a fake backend has got `n` requests in all and returns the last of these.
---@param backend support.Backend
---@param n? integer 1
---@return support.Request
function http.await_request(backend, n)
  n = n or 1
  local what = ("request %d at the backend"):format(n)
  return async.wait(backend.signal, function() return backend.requests[n] end, what, {
    seen = function() return ("%d requests, %d conns"):format(#backend.requests, backend.accepted) end,
  })
end

return http
