-- TLS for specs: certificates made on the spot, and conns of `net` that pass through TLS (LuaSec), either side: what
-- the proxy is tried against is not its own code.

local uv = require "luv"
local ssl = require "ssl"
local async = require "support.async"
local process = require "support.process"

local tls = {}

-- Certificates --------------------------------------------------------------------------------------------------------

local function openssl(...)
  local status, _, err = process.run { "openssl", ... }
  if status ~= 0 then async.fail("openssl " .. table.concat({ ... }, " ") .. "\n" .. err) end
end

---@class support.Certificate
---@field cert string path of the PEM file
---@field key string path of its key

---@class support.CertificateOptions
---@field ca? support.Certificate who signs it; itself otherwise
---@field names? string[] subjectAltName: "DNS:a.test", "IP:127.0.0.1"
---@field rsa? boolean an RSA key instead of P-256
---@field days? integer how long it is valid, 30; negative: it has expired
---@field authority? boolean it may sign others

---Makes `NAME.pem` and `NAME.key` in a directory.
---@param dir string
---@param name string also its subject's common name
---@param options? support.CertificateOptions
---@return support.Certificate
function tls.certificate(dir, name, options)
  options = options or {}
  local made = { cert = ("%s/%s.pem"):format(dir, name), key = ("%s/%s.key"):format(dir, name) }
  local request = ("%s/%s.csr"):format(dir, name)
  local kind = options.rsa and { "-newkey", "rsa:2048" } or { "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256" }
  local argv = { "req", "-new", "-nodes", "-keyout", made.key, "-out", request, "-subj", "/CN=" .. name }
  table.move(kind, 1, #kind, #argv + 1, argv)
  local names = options.names and table.concat(options.names, ",")
  if names then table.move({ "-addext", "subjectAltName=" .. names }, 1, 2, #argv + 1, argv) end
  local constraint = "basicConstraints=critical,CA:" .. (options.authority and "true" or "false")
  table.move({ "-addext", constraint }, 1, 2, #argv + 1, argv)
  openssl(table.unpack(argv))
  local sign = { "x509", "-req", "-in", request, "-out", made.cert, "-copy_extensions", "copy",
    "-days", tostring(options.days or 30) }
  local by = options.ca and { "-CA", options.ca.cert, "-CAkey", options.ca.key, "-CAcreateserial" }
    or { "-signkey", made.key }
  table.move(by, 1, #by, #sign + 1, sign)
  openssl(table.unpack(sign))
  return made
end

---The pin of a certificate's key, as a config has it.
---@param certificate support.Certificate
---@return string
function tls.pin(certificate)
  local status, out = process.run { "sh", "-c",
    ("openssl x509 -in %s -noout -pubkey | openssl pkey -pubin -outform der |"
    .. " openssl dgst -sha256 -binary | openssl base64"):format(certificate.cert) }
  assert(status == 0)
  return "sha256/" .. out:gsub("%s", "")
end

-- Handles: what `net`'s conns need of luv's streams -------------------------------------------------------------------

---@class support.TlsHandle
---@field secure any LuaSec's connection
---@field shaken boolean
local Handle = {}
Handle.__index = Handle

local function watch(self)
  if self.closed then return end
  local events = ""
  if not self.shaken then events = self.wants or "rw"
  else
    if self.on_bytes and not self.ended then events = "r" end
    if self.queue[1] or self.wants == "w" then events = events .. "w" end
  end
  if events == self.watched then return end
  self.watched = events
  if events == "" then self.poll:stop() return end
  -- A reset comes as an error, which ends the watch; the next read tells of it.
  self.poll:start(events, function(err)
    if err then self.watched = nil end
    self:on_event()
  end)
end

local wants = { wantread = "r", wantwrite = "w", timeout = "w" }

local function shake(self)
  local ok, why = self.secure:dohandshake()
  if ok then
    self.shaken, self.wants = true, nil
    if self.on_shaken then self.on_shaken() end
  elseif wants[why] then self.wants = wants[why]
  else
    self.failed = tostring(why)
    self:fail("EPROTO: " .. self.failed)
    if self.on_shaken then self.on_shaken(self.failed) end
  end
end

local function read(self)
  while self.on_bytes and not self.ended and not self.closed do
    local bytes, why, partial = self.secure:receive(65536)
    bytes = bytes or partial
    if bytes and bytes ~= "" then self.on_bytes(nil, bytes) end
    if why and wants[why] then return end
    if why == "closed" then
      self.ended = true
      self.on_bytes(nil, nil)
    elseif why then
      self.ended = true
      self.on_bytes(why:find "reset" and "ECONNRESET" or "EPROTO: " .. why, nil)
    end
  end
end

local function write(self)
  while self.queue[1] do
    local first = self.queue[1]
    local last, why, partial = self.secure:send(first.bytes, first.at)
    first.at = (last or partial or first.at - 1) + 1
    if not last then
      if wants[why] then return end
      self:fail(why == "closed" and "EPIPE" or "EPROTO: " .. tostring(why))
      return
    end
    table.remove(self.queue, 1)
    if first.done then first.done() end
  end
end

function Handle:on_event()
  if not self.shaken then shake(self) end
  if self.shaken and not self.closed then read(self) end
  if self.shaken and not self.closed then write(self) end
  watch(self)
end

function Handle:fail(word)
  local queue = self.queue
  self.queue, self.ended = {}, true
  if self.on_bytes then self.on_bytes(word) end
  for _, each in ipairs(queue) do if each.done then each.done(word) end end
end

function Handle:read_start(on_bytes)
  self.on_bytes = on_bytes
  -- What LuaSec has decrypted already makes no event.
  if self.shaken and not self.closed then read(self) end
  watch(self)
  return true
end

function Handle:read_stop()
  self.on_bytes = nil
  watch(self)
end

function Handle:write(bytes, done)
  if self.closed then return nil, "EPIPE" end
  if bytes == "" then
    if done then done() end
    return true
  end
  self.queue[#self.queue + 1] = { bytes = bytes, at = 1, done = done }
  watch(self)
  return true
end

function Handle:get_write_queue_size()
  local sum = 0
  for _, each in ipairs(self.queue) do sum = sum + #each.bytes - each.at + 1 end
  return sum
end

function Handle.nodelay() end

function Handle:close()
  if self.closed then return end
  self.closed = true
  self.poll:stop()
  self.poll:close()
  self.secure:close()
end

local contexts = {}

-- A context of LuaSec's parameters, made once.
local function context_of(parameters)
  local context = contexts[parameters]
  if not context then
    context = assert(ssl.newcontext(parameters))
    contexts[parameters] = context
  end
  return context
end

---A handle over a connected LuaSocket socket.
---@param plain any
---@param parameters table LuaSec's
---@param name? string SNI
---@return support.TlsHandle
function tls.handle(plain, parameters, name)
  plain:settimeout(0)
  plain:setoption("tcp-nodelay", true)
  local secure = assert(ssl.wrap(plain, context_of(parameters)))
  secure:settimeout(0)
  if name then secure:sni(name) end
  local self = setmetatable({ secure = secure, queue = {}, shaken = false }, Handle)
  self.poll = uv.new_poll(secure:getfd())
  return self
end

---LuaSec's parameters for one side: `server { cert =, key = }`, `client { ca = }`. Whatever else is LuaSec's.
---@param certificate support.Certificate
---@param more? table
---@return table
function tls.server(certificate, more)
  local parameters = { mode = "server", protocol = "any", certificate = certificate.cert, key = certificate.key,
    verify = "none", options = "all" }
  for name, value in pairs(more or {}) do parameters[name] = value end
  return parameters
end

---@param more? table
---@return table
function tls.client(more)
  local parameters = { mode = "client", protocol = "any", verify = "none", options = "all" }
  for name, value in pairs(more or {}) do parameters[name] = value end
  return parameters
end

return tls
