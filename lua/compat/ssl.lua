-- LuaSec's names over gate.socket, for drivers that say `require "ssl"`: clients only.
--
-- One thing is otherwise, and on purpose: without `verify` the server's certificate is verified, and must bear the
-- name that was connected to (or that :sni said). LuaSec verifies nothing unless it is told to, and never names.
-- Files of keys and roots are read while the config is loaded: make a context then (ssl.newcontext), not in a hook.

local gate = require "moongate"

local ssl = { _VERSION = "1.2.0 (moongate)" }

local versions = {
  any = { "1.2", "1.3" }, sslv23 = { "1.2", "1.3" }, tlsv1_2 = { "1.2" }, tlsv1_3 = { "1.3" },
}

-- `verify` is a word or a list of them, of which "none" is the one that counts.
local function verifies(verify)
  for _, word in ipairs(type(verify) == "table" and verify or { verify }) do
    if word == "none" then return false end
  end
  return true
end

local function options_of(params)
  if params.mode and params.mode ~= "client" then error("ssl: there are only clients here (mode = \"client\")", 3) end
  local speaks = versions[params.protocol or "any"]
  if not speaks then error(("ssl: there is no protocol '%s' here"):format(params.protocol), 3) end
  return {
    ca = params.cafile, cert = params.certificate, key = params.key,
    verify = verifies(params.verify), versions = speaks,
  }
end

local Context = {}

---@param params table LuaSec's: mode, protocol, verify, cafile, certificate, key
function ssl.newcontext(params)
  return setmetatable({ trust = gate.tls(options_of(params)) }, Context)
end

-- What ssl.wrap gives: the socket's methods, and two more.
local Wrapped = {}

function Wrapped.__index(wrapped, key)
  local method = Wrapped[key] or function(self, ...)
    local sock = self.sock
    return sock[key](sock, ...)
  end
  rawset(wrapped, key, method)
  return method
end

---The name that the certificate must bear, also sent to the server.
---@param name string
function Wrapped:sni(name) self.name = name end

---@return boolean? ok
---@return string? word
---@return string? sentence
function Wrapped:dohandshake()
  local ok, word, sentence = self.sock:sslhandshake(self.context.trust, self.name or nil)
  if not ok then return nil, word, sentence end
  return true
end

function Wrapped:__close() self.sock:close() end

---@param sock moongate.Socket connected
---@param params table as for newcontext, or what that made
function ssl.wrap(sock, params)
  local context = getmetatable(params) == Context and params or ssl.newcontext(params)
  return setmetatable({ sock = sock, context = context, name = false }, Wrapped)
end

return ssl
