---@meta moongate
-- luacheck: no unused

-- Cryptography for policy: digests, keys and signatures, encryption, passwords, tokens. OpenSSL does the arithmetic.

---@class moongate
local gate = {}

---@alias moongate.DigestName "sha256"|"sha384"|"sha512"|"sha1"|"md5"|"blake2b512"
---How bytes are returned; base64url has no padding.
---@alias moongate.Encoding "raw"|"hex"|"base64"|"base64url"

---Bytes are strings. Texts that come from elsewhere and cannot be read are failures of the world, arguments that make
---no sense raise. Work is counted towards the hook's budget.
---@class moongate.Crypto
gate.crypto = {}

---The digest of some bytes. md5 and sha1 are for what others still sign with them.
---
---```lua
---res.headers["ETag"] = '"' .. gate.crypto.digest("sha256", body, "hex") .. '"'
---```
---@param name moongate.DigestName
---@param data string
---@param encoding? moongate.Encoding default "raw"
---@return string
function gate.crypto.digest(name, data, encoding) end

---A digest that is fed piece by piece.
---@class moongate.Hasher
local Hasher = {}

---Begins a digest.
---
---```lua
---local hasher = gate.crypto.hasher "sha256"
---for piece in req.body:chunks() do hasher:update(piece) end
---req.headers["X-Digest"] = hasher:final "hex"
---```
---@param name moongate.DigestName
---@return moongate.Hasher
function gate.crypto.hasher(name) end

---Adds bytes; gives the hasher back, so that calls can be chained.
---
---```lua
---hasher:update(req.path):update "\n"
---```
---@param data string
---@return moongate.Hasher
function Hasher:update(data) end

---The digest of all that was added. The hasher is of no use afterwards.
---
---```lua
---local digest = hasher:final "base64url"
---```
---@param encoding? moongate.Encoding default "raw"
---@return string
function Hasher:final(encoding) end

---An HMAC (RFC 2104), for signed webhooks and links. Compare it with gate.equal.
---
---```lua
---local expected = "sha256=" .. gate.crypto.hmac("sha256", secret, req.body:text(), "hex")
---if not gate.equal(req.headers["X-Hub-Signature-256"], expected) then return 403 end
---```
---@param name moongate.DigestName
---@param key string
---@param data string
---@param encoding? moongate.Encoding default "raw"
---@return string
function gate.crypto.hmac(name, key, data, encoding) end

---Random bytes fit for secrets.
---
---```lua
---local session = gate.crypto.random(32, "base64url")
---```
---@param count integer bytes, 0 to 65536
---@param encoding? moongate.Encoding default "raw"
---@return string
function gate.crypto.random(count, encoding) end

---The same as gate.equal: compares secrets in constant time.
---
---```lua
---if not gate.crypto.equal(given, expected) then return 403 end
---```
---@param a string?
---@param b string?
---@return boolean
function gate.crypto.equal(a, b) end

---@class moongate.HkdfOptions
---@field salt? string
---@field info? string what the key is for; at most 1024 bytes
---@field length? integer bytes, at most 8160; default as long as the digest

---Makes keys of a secret with enough randomness in it (RFC 5869); of passwords, password_hash makes something.
---
---```lua
---local key = gate.crypto.hkdf("sha256", master, { info = "session cookies" })
---```
---@param name moongate.DigestName
---@param secret string
---@param options? moongate.HkdfOptions
---@return string key
function gate.crypto.hkdf(name, secret, options) end

---@class moongate.CipherOptions
---@field cipher? "aes-256-gcm"|"chacha20-poly1305" default "aes-256-gcm"
---@field aad? string what is not encrypted but must be the same when decrypting; at most 64 KiB
---@field nonce? string 12 bytes, for formats of others, kept beside the text. Never use one twice with a key

---Encrypts and authenticates. The nonce is made here and stands before the text, the tag behind it: 28 bytes more.
---
---```lua
---local cookie = gate.base64.encode(gate.crypto.encrypt(key, user, { aad = "session" }))
---```
---@param key string 32 bytes
---@param text string at most 16 MiB
---@param options? moongate.CipherOptions
---@return string sealed
function gate.crypto.encrypt(key, text, options) end

---Undoes encrypt. World failure: `bad_ciphertext`, another key or aad, or a changed text.
---
---```lua
---local user = gate.crypto.decrypt(key, sealed, { aad = "session" })
---if not user then return gate.redirect "/login" end
---```
---@param key string 32 bytes
---@param sealed string
---@param options? moongate.CipherOptions
---@return string? text
---@return string? word
---@return string? sentence
function gate.crypto.decrypt(key, sealed, options) end

---@class moongate.PasswordOptions
---@field ln? integer 1 to 17: 2^ln blocks; default 15 (32 MiB, some 80 ms)
---@field r? integer 1 to 16: size of a block; default 8
---@field p? integer 1 to 4: how often; default 1

---A text to be stored in a password's place, by scrypt with a random salt. Waits: a helper thread works on it, and
---nobody else is kept waiting. World failure: `overloaded`, there are 32 under way.
---
---```lua
---local stored = gate.crypto.password_hash(password)
---```
---@param password string at most 4096 bytes
---@param options? moongate.PasswordOptions
---@return string? stored "$scrypt$ln=15,r=8,p=1$…$…"
---@return string? word
---@return string? sentence
function gate.crypto.password_hash(password, options) end

---Is it the password that was stored as this text? Takes what password_hash made and passlib's `$scrypt$`,
---`$pbkdf2-sha256$` and `$pbkdf2-sha512$`. Waits. World failures: `bad_hash`, `overloaded`.
---
---```lua
---if not gate.crypto.password_verify(password, users[name] or decoy) then return 401 end
---```
---@param password string at most 4096 bytes
---@param stored string
---@return boolean? same
---@return string? word
---@return string? sentence
function gate.crypto.password_verify(password, stored) end

---@class moongate.Pbkdf2Options
---@field hash? moongate.DigestName default "sha256"
---@field iterations? integer 1 to 2000000; default 600000
---@field length? integer bytes, 1 to 256; default 32

---Derives bytes of a password by PBKDF2 (RFC 8018). Waits. World failure: `overloaded`.
---
---```lua
---local key = gate.crypto.pbkdf2(password, salt, { iterations = 600000 })
---```
---@param password string at most 4096 bytes
---@param salt string 1 to 256 bytes
---@param options? moongate.Pbkdf2Options
---@return string? bytes
---@return string? word
---@return string? sentence
function gate.crypto.pbkdf2(password, salt, options) end

---@class moongate.ScryptOptions : moongate.PasswordOptions
---@field length? integer bytes, 1 to 256; default 32

---Derives bytes of a password by scrypt (RFC 7914). Waits. World failure: `overloaded`. Raises for a cost of more than
---128 MiB.
---
---```lua
---local key = gate.crypto.scrypt(password, salt)
---```
---@param password string at most 4096 bytes
---@param salt string 1 to 256 bytes
---@param options? moongate.ScryptOptions
---@return string? bytes
---@return string? word
---@return string? sentence
function gate.crypto.scrypt(password, salt, options) end

---A key. It is parsed once; sign and verify keep in it what they prepared. Parse keys while the file is loaded.
---@class moongate.Key
---@field kind "secret"|"rsa"|"ec"|"ed25519"
---@field curve "P-256"|"P-384"|"P-521"|nil
---@field bits integer
---@field private boolean can it sign? A secret can
---@field kid string? the name a JWK gave it
---@field alg string? the algorithm a JWK bound it to
local Key = {}

---@class moongate.KeyOptions
---@field password? string of an encrypted PEM; only while the file is loaded

---Reads a key: PEM (private, public, or a certificate's) or a JWK as text or table. RSA of 2048 to 8192 bits, P-256,
---P-384, P-521, Ed25519, and secrets ("oct"). World failure: `bad_key`.
---
---```lua
---local key = assert(gate.crypto.key(pem))
---```
---@param source string|table
---@param options? moongate.KeyOptions
---@return moongate.Key? key
---@return string? word
---@return string? sentence
function gate.crypto.key(source, options) end

---Reads a key's file, relative to the config's folder; only while the file is loaded. Raises if there is no key in
---it, so that `check` and a reload tell.
---
---```lua
---local key = gate.crypto.key_file "keys/signing.pem"
---```
---@param path string
---@param options? moongate.KeyOptions
---@return moongate.Key
function gate.crypto.key_file(path, options) end

---Reads a JWK Set (RFC 7517). Keys that are for encryption, or that are not supported, are left out. World failure:
---`bad_key`, there is no set at all.
---
---```lua
---local keys, left_out = gate.crypto.keys(res.body)
---```
---@param set string|table JSON text of at most 256 KiB, or a table with `keys`; at most 256 of them
---@return moongate.Key[]? keys
---@return string[]|string|nil left_out a sentence for each key that is not there; or the word
---@return string? sentence
function gate.crypto.keys(set) end

---Reads a JWK Set's file, relative to the config's folder; only while the file is loaded. Raises if there is none in
---it.
---
---```lua
---local keys = gate.crypto.keys_file "keys.json"
---```
---@param path string
---@return moongate.Key[] keys
---@return string[] left_out a sentence for each key that is not there
function gate.crypto.keys_file(path) end

---The public half. Raises for a secret.
---
---```lua
---gate.log("info", key:public():pem())
---```
---@return moongate.Key
function Key:public() end

---The key as PEM: SPKI, or PKCS #8 if it is asked for by name.
---
---```lua
---return gate.reply(200, key:pem())
---```
---@param half? "public"|"private" default "public"
---@return string
function Key:pem(half) end

---The key as a JWK.
---
---```lua
---return gate.reply(200, gate.json.encode { keys = { key:jwk() } })
---```
---@param half? "public"|"private" default "public"; of a secret there is only "private"
---@return table<string, string>
function Key:jwk(half) end

---The thumbprint of the public key (RFC 7638), base64url: a good `kid`.
---
---```lua
---local token = gate.jwt.sign(claims, key, { kid = key:thumbprint() })
---```
---@param name? moongate.DigestName default "sha256"
---@return string
function Key:thumbprint(name) end

---@class moongate.SignatureOptions
---@field hash? moongate.DigestName default "sha256"; Ed25519 has its own
---@field padding? "pkcs1"|"pss" of RSA; default "pkcs1". PSS has a salt as long as the digest
---@field format? "der"|"raw" of ECDSA; default "der". "raw" is r and s side by side

---Signs; with a secret it is an HMAC. Raises for a public key.
---
---```lua
---res.headers["X-Signature"] = gate.base64.encode(gate.crypto.sign(key, res.headers["Date"]))
---```
---@param key moongate.Key|string a string is a secret
---@param data string at most 4 MiB
---@param options? moongate.SignatureOptions
---@return string signature
function gate.crypto.sign(key, data, options) end

---Is it a signature of that data by that key?
---
---```lua
---if not gate.crypto.verify(key, body, signature, { padding = "pss" }) then return 403 end
---```
---@param key moongate.Key|string a string is a secret
---@param data string at most 4 MiB
---@param signature string
---@param options? moongate.SignatureOptions
---@return boolean
function gate.crypto.verify(key, data, signature, options) end

---@alias moongate.JwtRsa "RS256"|"RS384"|"RS512"|"PS256"|"PS384"|"PS512"
---@alias moongate.JwtAlgorithm "HS256"|"HS384"|"HS512"|moongate.JwtRsa|"ES256"|"ES384"|"ES512"|"EdDSA"

---JSON Web Tokens (RFC 7519), signed ones. Claims and headers are plain tables; integers stay integers, a null is an
---absent member. Names that come twice, and a null within a list, make a bad token.
---@class moongate.Jwt
gate.jwt = {}

---@class moongate.JwtVerifyOptions
---a key, a secret, a list of keys, what gate.jwks gives, or a function from the header to one of these, which may wait
---@field keys moongate.Key|string|moongate.Key[]|moongate.Jwks|fun(header: table): any
---@field algorithms moongate.JwtAlgorithm[] those that are accepted; must be given
---@field issuer? string|string[] `iss` is one of these
---@field subject? string|string[] `sub` is one of these
---one of these is in `aud`. Without, a token that has an `aud` is refused; false: it does not matter
---@field audience? string|string[]|false
---@field required? string|string[] claims that must be there, such as "exp"
---@field leeway? moongate.Seconds for clocks that differ; default 0
---@field max_age? moongate.Seconds since `iat`, which must then be there
---@field now? number Unix seconds; default gate.now()
---@field typ? string the header's, such as "at+jwt"; default any
---@field crit? string[] what may stand in the header's crit; default nothing
---@field remember? boolean keep signatures found good, 1024 for a key: the same token again costs a digest only

---Verifies a token: its signature first, then its times, issuer, subject, audience and required claims. A key verifies
---only what its kind, curve and `alg` can have signed; with a `kid` in the token, keys of another name are not asked.
---Secrets are as long as the digest (RFC 7518).
---
---World failures: `bad_token`, `bad_algorithm`, `unknown_key`, `bad_signature`, `expired`, `not_yet`, `wrong_issuer`,
---`wrong_subject`, `wrong_audience`, `wrong_type`, `missing_claim`, and those of a function of `keys`, or gate.jwks.
---
---```lua
---local claims, word = gate.jwt.verify(token, { keys = keys, algorithms = { "ES256" }, issuer = "https://id.example" })
---if not claims then return gate.reply(401, word) end
---```
---@param token string at most 64 KiB
---@param options moongate.JwtVerifyOptions
---@return table? claims
---@return table|string|nil header or word
---@return string? sentence
function gate.jwt.verify(token, options) end

---@class moongate.JwtSignOptions
---@field alg? moongate.JwtAlgorithm default the key's own, else the first of its kind: HS256, RS256, ES256…, EdDSA
---@field kid? string default the key's own
---@field typ? string default "JWT"
---@field header? table further members of the header
---@field expires_in? moongate.Seconds sets `exp`
---@field not_before? moongate.Seconds from now; sets `nbf`
---@field issued_at? boolean sets `iat` to now

---Signs claims. Raises for a key that cannot, and for what has no JSON.
---
---```lua
---local token = gate.jwt.sign({ sub = user, scope = "read" }, key, { expires_in = "10m" })
---```
---@param claims table
---@param key moongate.Key|string a string is a secret
---@param options? moongate.JwtSignOptions
---@return string token
function gate.jwt.sign(claims, key, options) end

---What a token says, NOT verified: whoever sent it may have written it. To look at a token before one knows who must
---have signed it. World failure: `bad_token`.
---
---```lua
---local claims = gate.jwt.decode(token)
---local issuer = claims and claims.iss
---```
---@param token string at most 64 KiB
---@return table? claims
---@return table|string|nil header or word
---@return string? sentence
function gate.jwt.decode(token) end

---A set of keys, for the option `keys` of gate.jwt.verify.
---@class moongate.Jwks
local Jwks = {}

---@class moongate.JwksOptions
---@field refresh? moongate.Seconds between fetches in the background; default "10m"
---@field timeout? moongate.Seconds of one fetch; default 5
---@field cooldown? moongate.Seconds between fetches for the sake of an unknown kid; default 30
---@field stale? moongate.Seconds for which keys stay good while their server fails; default "24h"
---@field fetch? table further options of gate.fetch, such as headers; plain data

---Declares a set of keys; only while the file is loaded. One behind a URL is fetched once per instance, when it is
---first needed or after a second, and then again and again; a kid that is not in it makes one fetch for all who ask.
---Words of its own: `no_keys`, there are none yet, or they are stale.
---
---```lua
---local keys = gate.jwks("https://id.example/.well-known/jwks.json", { refresh = "10m" })
---```
---@param source string|table a URL, the path of a file relative to the config's folder, or a JWK Set as text or table
---@param options? moongate.JwksOptions of a URL only
---@return moongate.Jwks
function gate.jwks(source, options) end

---The keys to try for a token with that header; gate.jwt.verify calls it. May wait.
---
---```lua
---local keys = set:find { kid = "2024-07" }
---```
---@param header table
---@return moongate.Key[]? keys
---@return string? word
---@return string? sentence
function Jwks:find(header) end

---All keys, those of a URL as they were fetched last. May wait.
---
---```lua
---for _, key in ipairs(set:keys()) do gate.log(key.kid) end
---```
---@return moongate.Key[]? keys
---@return string? word
---@return string? sentence
function Jwks:keys() end

---Fetches now. Waits.
---
---```lua
---if req.path == "/-/refresh" then set:refresh() end
---```
---@return true? fetched
---@return string? word
---@return string? sentence
function Jwks:refresh() end

return gate
