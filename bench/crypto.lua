-- What cryptography costs: `build/moongate check bench/crypto.lua` prints microseconds, best of five.

local gate = require "moongate"
local crypto, jwt = gate.crypto, gate.jwt

local function measure(name, times, f)
  local best = math.huge
  for _ = 1, 5 do
    local began = os.clock() -- CPU time: others may be at work
    for _ = 1, times do f() end
    best = math.min(best, os.clock() - began)
  end
  gate.log("info", ("%-40s %8.2f us"):format(name, best / times * 1e6))
end

-- The keys of RFC 7515's and RFC 8037's appendices, public halves and all.
local ec = assert(crypto.key {
  kty = "EC", crv = "P-256", x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
  y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", d = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
})
local ed = assert(crypto.key {
  kty = "OKP", crv = "Ed25519", x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
  d = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
})
local rsa = assert(crypto.key {
  kty = "RSA", e = "AQAB",
  n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-p"
    .. "CgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapH"
    .. "g665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4"
    .. "FRWyuXpoQ",
})
local rs256 = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb"
  .. "290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGb"
  .. "ds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383"
  .. "LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVr"
  .. "Bp0igcN_IoypGlUPQGe77Rw"

local secret, key = ("s"):rep(32), crypto.random(32)
local hs_key = assert(crypto.key { kty = "oct", k = gate.crypto.digest("sha256", "x", "base64url") })
local short, long = ("x"):rep(64), ("x"):rep(16384)

measure("an empty function", 20000, function() end)
measure("digest sha256, 64 bytes, hex", 5000, function() crypto.digest("sha256", short, "hex") end)
measure("digest sha256, 16 KiB", 200, function() crypto.digest("sha256", long) end)
measure("hmac sha256, 64 bytes", 2000, function() crypto.hmac("sha256", secret, short) end)
measure("random, 16 bytes, hex", 5000, function() crypto.random(16, "hex") end)
measure("encrypt aes-256-gcm, 64 bytes", 2000, function() crypto.encrypt(key, short) end)
local sealed = crypto.encrypt(key, short)
measure("decrypt aes-256-gcm, 64 bytes", 2000, function() crypto.decrypt(key, sealed) end)
measure("sign ES256", 100, function() crypto.sign(ec, short) end)
measure("sign Ed25519", 100, function() crypto.sign(ed, short) end)

local claims = { iss = "https://id.example", sub = "ada", aud = "shop", exp = 1e10, scope = "read write" }
local function verify(name, token, keys, algorithm, more, times)
  local options = { keys = keys, algorithms = { algorithm }, audience = false, now = 1 }
  for option, value in pairs(more or {}) do options[option] = value end
  assert(jwt.verify(token, options))
  measure("jwt.verify " .. name, times, function() jwt.verify(token, options) end)
end
local hs256, es256, eddsa = jwt.sign(claims, hs_key), jwt.sign(claims, ec), jwt.sign(claims, ed)
verify("HS256, a key", hs256, hs_key, "HS256", nil, 2000)
verify("HS256, a string", jwt.sign(claims, secret), secret, "HS256", nil, 2000)
verify("RS256", rs256, rsa, "RS256", nil, 300)
verify("RS256, remembered", rs256, rsa, "RS256", { remember = true }, 2000)
verify("ES256", es256, ec:public(), "ES256", nil, 200)
verify("ES256, remembered", es256, ec:public(), "ES256", { remember = true }, 2000)
verify("EdDSA", eddsa, ed:public(), "EdDSA", nil, 200)
measure("jwt.decode", 2000, function() jwt.decode(es256) end)
measure("jwt.sign HS256", 1000, function() jwt.sign(claims, hs_key) end)

return { listen = 8080, on_request = 200 }
