-- Keys made by openssl(1), once for each run of the specs, so that what Moongate reads and writes is held against
-- another program.

local process = require "support.process"

local keys = {}

local kinds = {
  rsa = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
  rsa_1024 = "-algorithm RSA -pkeyopt rsa_keygen_bits:1024",
  p256 = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
  p384 = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
  p521 = "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
  k256 = "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
  ed25519 = "-algorithm ED25519",
  x25519 = "-algorithm X25519",
}

local made = {}

---Runs a command of the shell and gives what it printed.
---@param command string
---@return string
function keys.shell(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local out = pipe:read "a"
  assert(pipe:close(), command .. ": " .. out)
  return out
end

---A private key as PEM (PKCS #8).
---@param kind "rsa"|"rsa_1024"|"p256"|"p384"|"p521"|"k256"|"ed25519"|"x25519"
---@return string pem
function keys.private(kind)
  made[kind] = made[kind] or keys.shell("openssl genpkey -quiet " .. kinds[kind] .. " 2>/dev/null || openssl genpkey "
    .. kinds[kind] .. " 2>/dev/null")
  return made[kind]
end

---What `openssl pkey` makes of a key.
---@param pem string
---@param arguments string
---@return string
function keys.convert(pem, arguments)
  local path = os.tmpname()
  process.write_file(path, pem)
  local out = keys.shell(("openssl pkey -in %s %s"):format(path, arguments))
  os.remove(path)
  return out
end

---@param kind string
---@return string pem
function keys.public(kind) return keys.convert(keys.private(kind), "-pubout") end

local function base64url(bytes)
  local path = os.tmpname()
  process.write_file(path, bytes)
  local text = keys.shell("openssl base64 -A -in " .. path)
  os.remove(path)
  return (text:gsub("[+/=%s]", { ["+"] = "-", ["/"] = "_", ["="] = "", ["\n"] = "" }))
end

---A token (RFC 7515) signed by openssl: HS256 with a secret of letters and digits, RS256 with a private key.
---@param claims string JSON
---@param key string the secret, or a PEM
---@return string
function keys.token(claims, key)
  local pem = key:find("-----BEGIN", 1, true)
  local input = base64url('{"alg":"' .. (pem and "RS256" or "HS256") .. '"}') .. "." .. base64url(claims)
  local text, secret, out = os.tmpname(), os.tmpname(), os.tmpname()
  process.write_file(text, input)
  process.write_file(secret, key)
  local how = pem and "-sign " .. secret or "-hmac " .. key
  keys.shell(("openssl dgst -sha256 %s -binary -out %s %s"):format(how, out, text))
  local signature = base64url(process.read_file(out))
  for _, path in ipairs { text, secret, out } do os.remove(path) end
  return input .. "." .. signature
end

return keys
