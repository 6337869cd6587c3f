-- luacheck: no max line length (scripts and messages stand in one line)
-- gate.crypto, held against RFCs and openssl(1).

local engine = require "core.lua.engine"
local it = require("support").it
local keys = require "support.keys"
local process = require "support.process"
local rfc_tokens = require "core.lua.rfc_tokens"

local run, assert_raises = engine.runner "local c = gate.crypto "
local literal = engine.literal

describe("gate.crypto", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  describe("digest", function()
    local of_abc = { -- FIPS 180, RFC 1321, RFC 7693
      sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      sha384 = "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
      sha512 = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        .. "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
      sha1 = "a9993e364706816aba3e25717850c26c9cd0d89d",
      md5 = "900150983cd24fb0d6963f7d28e17f72",
      blake2b512 = "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
        .. "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
    }

    for name, hex in pairs(of_abc) do
      it("is right for " .. name .. ", whole and in pieces", function()
        assert.equal(hex .. "|" .. hex, run([[
          return c.digest(%s, "abc", "hex"), c.hasher(%s):update("a"):update(""):update("bc"):final "hex"
        ]], name, name))
      end)
    end

    it("gives raw bytes, hex, base64 and base64url", function()
      assert.equal("16|1B2M2Y8AsgTpgAmY7PhCfg==|1B2M2Y8AsgTpgAmY7PhCfg|d41d8cd98f00b204e9800998ecf8427e|true", run [[
        local d = c.digest
        return #d("md5", ""), d("md5", "", "base64"), d("md5", "", "base64url"), d("md5", "", "hex"),
          d("md5", "") == d("md5", "", "raw")
      ]])
    end)

    it("reads long texts in pieces", function()
      local million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
      assert.equal(million, run "return c.digest('sha256', ('a'):rep(1000000), 'hex')")
    end)

    it("ends with the hook that asks for too much", function()
      local state = engine.script([[
        local text = ("x"):rep(8 << 20)
        while true do gate.crypto.digest("sha512", text) end
      ]], { hook_cpu = 0.05 })
      assert(engine.cpu(function() assert.equal("failed", state:call("on_request").verdict) end) < 2)
    end)

    it("refuses what makes no sense", function()
      assert_raises("expected sha256", "c.digest('sha3', '')")
      assert_raises("the name of a digest expected", "c.digest(nil, '')")
      assert_raises("string expected", "c.digest('sha256', 5)")
      assert_raises("invalid option 'b64'", "c.digest('sha256', '', 'b64')")
      assert_raises("string expected", "c.digest('sha256', '', 5)")
      assert_raises("given its digest already", "local h = c.hasher 'md5' h:final() h:update 'x'")
      assert_raises("did you mean 'final'", "return c.hasher('md5').finale")
    end)
  end)

  describe("hmac", function()
    it("is that of RFC 4231", function()
      assert.equal("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", run [[
        return c.hmac("sha256", "Jefe", "what do ya want for nothing?", "hex")
      ]])
      assert.equal("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54", run [[
        return c.hmac("sha256", ("\xaa"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First", "hex")
      ]])
    end)

    it("is the same for a long text, and takes an empty key and text", function()
      assert.equal("true|b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad", run [[
        local long = ("x"):rep(300000)
        local inner = c.digest("sha256", ("\x36"):rep(64) .. long)
        return c.hmac("sha256", "", long) == c.digest("sha256", ("\x5c"):rep(64) .. inner), c.hmac("sha256", "", "", "hex")
      ]])
    end)
  end)

  it("derives keys as RFC 5869 says", function()
    assert.equal("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865", run [[
      local okm = c.hkdf("sha256", ("\x0b"):rep(22), {
        salt = "\0\1\2\3\4\5\6\7\8\9\10\11\12", info = "\xf0\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9", length = 42,
      })
      return (okm:gsub(".", function(b) return ("%%02x"):format(b:byte()) end))
    ]])
    assert.equal("32|64", run "return #c.hkdf('sha256', 'x'), #c.hkdf('sha512', 'x', { salt = '' })")
    assert_raises("length is 1 to 8160", "c.hkdf('sha256', 'x', { length = 8161 })")
    assert_raises("1 byte at least", "c.hkdf('sha256', '')")
  end)

  it("gives random bytes", function()
    assert.equal("0|16|true|32", run [[
      return #c.random(0), #c.random(16), c.random(16) ~= c.random(16), #c.random(16, "hex")
    ]])
    assert_raises("0 to 65536", "c.random(65537)")
    assert_raises("0 to 65536", "c.random(-1)")
  end)

  describe("encrypt", function()
    it("is undone by decrypt, with the same key and aad only", function()
      for _, cipher in ipairs { "aes-256-gcm", "chacha20-poly1305" } do
        assert.equal("33|hello|bad_ciphertext|bad_ciphertext|bad_ciphertext|bad_ciphertext", run([[
          local o = { cipher = %s, aad = "for ada" }
          local key, other = c.random(32), c.random(32)
          local sealed = c.encrypt(key, "hello", o)
          local changed = sealed:sub(1, 13) .. string.char(sealed:byte(14) ~ 1) .. sealed:sub(15)
          local function word(...) return (select(2, c.decrypt(...))) end
          return #sealed, c.decrypt(key, sealed, o), word(other, sealed, o),
            word(key, sealed, { cipher = o.cipher, aad = "for bob" }), word(key, changed, o), word(key, "short", o)
        ]], cipher))
      end
    end)

    it("never uses a nonce twice, and encrypts nothing, too", function()
      assert.equal("true|28|0", run [[
        local key = c.random(32)
        local empty = c.encrypt(key, "")
        return c.encrypt(key, "x") ~= c.encrypt(key, "x"), #empty, #c.decrypt(key, empty)
      ]])
    end)

    it("speaks the formats of others with a nonce of theirs", function() -- the GCM specification, test case 16
      assert.equal("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393"
        .. "ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b|true", run [[
        local function bytes(hex) return (hex:gsub("..", function(b) return string.char(tonumber(b, 16)) end)) end
        local key = bytes "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
        local text = bytes("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0"
          .. "de657ba637b39")
        local o = { nonce = bytes "cafebabefacedbaddecaf888", aad = bytes "feedfacedeadbeeffeedfacedeadbeefabaddad2" }
        local sealed = c.encrypt(key, text, o)
        return (sealed:gsub(".", function(b) return ("%%02x"):format(b:byte()) end)), c.decrypt(key, sealed, o) == text
      ]])
    end)

    it("refuses other keys and ciphers", function()
      assert_raises("a key of 32 bytes", "c.encrypt('short', 'x')")
      assert_raises("nonce has 12 bytes", "c.encrypt(c.random(32), 'x', { nonce = 'x' })")
      assert_raises("cipher is", "c.encrypt(c.random(32), 'x', { cipher = 'aes-256-ecb' })")
      assert_raises("did you mean 'aad'", "c.encrypt(c.random(32), 'x', { add = 'x' })")
    end)
  end)

  describe("key", function()
    local described = {
      rsa = "rsa|nil|2048", p256 = "ec|P-256|256", p384 = "ec|P-384|384", p521 = "ec|P-521|521",
      ed25519 = "ed25519|nil|256",
    }

    for kind, about in pairs(described) do
      it("reads and writes PEM and JWK of " .. kind, function()
        local script = [[
          local k = c.key(%s)
          local p = k:public()
          local again, public_again = c.key(k:jwk "private"), c.key(k:jwk())
          assert(again:pem "private" == k:pem "private" and public_again:pem() == k:pem() and p:pem() == k:pem())
          assert(again:thumbprint() == k:thumbprint() and p:thumbprint() == k:thumbprint())
          assert(k:jwk().d == nil and p:jwk().d == nil)
          return k.kind, k.curve, k.bits, k.private, p.private, k:pem "private", p:pem()
        ]]
        local private, public = keys.private(kind), keys.public(kind)
        assert.equal(("%s|true|false|%s|%s"):format(about, private, public), run(script, private))
        assert.equal("false|" .. public, run("local k = c.key(%s) return k.private, k:pem()", public))
      end)
    end

    it("reads a certificate, and PKCS #1", function()
      local path = os.tmpname()
      process.write_file(path, keys.private "rsa")
      local certificate = keys.shell("openssl req -x509 -key " .. path .. " -subj /CN=ada -days 2")
      os.remove(path)
      assert.equal(keys.public "rsa", run("return c.key(%s):pem()", certificate))
      assert.equal("true", run("return c.key(%s).private", keys.convert(keys.private "rsa", "-traditional")))
    end)

    it("reads an encrypted key with its password, while the file is loaded", function()
      local encrypted = keys.convert(keys.private "p256", "-aes256 -passout pass:moon")
      local text = [[
        local gate = require "moongate"
        local pem = %q
        local function word(options) return select(3, gate.crypto.key(pem, options)) end
        local said = { gate.crypto.key(pem, { password = "moon" }).kind, word(), word { password = "sun" } }
        return { on_request = function() return gate.reply(200, table.concat(said, "|")) end }
      ]]
      local state = engine.open(text:format(encrypted), { load_cpu = 10 })
      assert.equal("reply 200 ec|the key: the key is encrypted, and no password was given|the key: the key is encrypted, "
        .. "and not with that password", engine.answer(state, "on_request"))
      assert_raises("not in a hook", "c.key(%s, { password = 'moon' })", encrypted)
    end)

    it("has the thumbprint of RFC 7638", function()
      local case = rfc_tokens.thumbprint
      assert.equal(case.sha256 .. "|2011-04-29|RS256", run(([[
        local k = c.key(%s) return k:thumbprint(), k.kid, k.alg
      ]]):format(literal(case.jwk))))
      local okp = rfc_tokens.cases[#rfc_tokens.cases].jwk -- RFC 8037 A.3
      assert.equal("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", run(("return c.key(%s):thumbprint()"):format(literal(okp))))
    end)

    it("is bad where it is too small, of another kind, or does not hold together", function()
      local function word(text) return select(3, text:find "^([^|]*|[^|]*)") end
      local function of(argument)
        return word(run("local k, w, s = c.key(" .. argument:gsub("%%", "%%%%") .. ") return tostring(k), w, s"))
      end
      for _, kind in ipairs { "rsa_1024", "k256", "x25519" } do
        assert.equal("nil|bad_key", of(("%q"):format(keys.private(kind))), kind)
      end
      local p256 = rfc_tokens.cases[3].jwk
      local function changed(name, value)
        local jwk = {}
        for k, v in pairs(p256) do jwk[k] = v end
        jwk[name] = value
        return literal(jwk)
      end
      assert.equal("moongate.key", of(literal(p256)):match "^[^|]*")
      assert.equal("nil|bad_key", of(changed("x", p256.y)))         -- not on the curve
      assert.equal("nil|bad_key", of(changed("d", p256.x)))         -- of another key
      assert.equal("nil|bad_key", of(changed("d", p256.d .. "=")))  -- no base64url
      assert.equal("nil|bad_key", of(changed("crv", "P-384")))
      assert.equal("nil|bad_key", of(changed("crv", "P-257")))
      assert.equal("nil|bad_key", of(changed("kty", "RSA")))
      for _, text in ipairs {
        '""', '"x"', '"-----BEGIN PUBLIC KEY-----\\n-----END PUBLIC KEY-----\\n"', "{}", '"{}"', '"{"', '{ kty = 5 }',
        '{ kty = "oct" }', '{ kty = "oct", k = "" }', '{ kty = "RSA", n = "AQAB", e = "AQAB" }',
        '{ kty = "OKP", crv = "Ed25519", x = "AA" }', '"{\\"kty\\":\\"oct\\",\\"kty\\":\\"oct\\",\\"k\\":\\"AAAA\\"}"',
      } do
        assert.equal("nil|bad_key", of(text), text)
      end
      assert_raises("expected", "c.key(5)")
      assert_raises("expected", "c.key()")
    end)

    it("keeps what is private to itself unless asked by name", function()
      assert.equal("true|moongate.key|nil", run([[
        local k = c.key(%s)
        return not k:pem():find "PRIVATE", tostring(k):match "^[^:]*", k:jwk().d
      ]], keys.private "ed25519"))
      assert_raises("the key is a public one", "c.key(%s):pem 'private'", keys.public "ed25519")
      assert_raises("a secret has no public half", "c.key({ kty = 'oct', k = 'AAAA' }):jwk()")
      assert_raises("read-only", "c.key({ kty = 'oct', k = 'AAAA' }).kid = 'x'")
    end)

    it("is read out of a file beside the config, while that is loaded", function()
      local folder = process.temp_dir()
      process.write_file(folder .. "/key.pem", keys.private "p256")
      local state = engine.open(([[
        local gate = require "moongate"
        local key = gate.crypto.key_file %q
        return { on_request = function() return gate.reply(200, key.curve) end }
      ]]):format(folder .. "/key.pem"))
      assert.equal("reply 200 P-256", engine.answer(state, "on_request"))
      local _, errors = engine.load "require('moongate').crypto.key_file 'missing.pem'"
      assert.matches("config.lua:1: gate.crypto.key_file: cannot read .*missing.pem: no such file", tostring(errors))
      process.write_file(folder .. "/bad.pem", "x")
      _, errors = engine.load(("require('moongate').crypto.key_file %q"):format(folder .. "/bad.pem"))
      assert.matches("bad.pem: there is no key", tostring(errors))
      assert_raises("not in hooks", "c.key_file 'key.pem'")
    end)

    it("comes in sets, of which what cannot be used is left out", function()
      assert.equal("2|one|nil|3|keys[2]: its kty or crv is not supported", run [[
        local set, left = c.keys { keys = {
          { kty = "oct", k = "AAAA", kid = "one" }, { kty = "new" }, { kty = "oct", k = "AAAA", use = "enc" },
          { kty = "oct", k = "AAAA" }, 5,
        } }
        return #set, set[1].kid, set[2].kid, #left, left[1]
      ]])
      assert.equal("1", run [[return #c.keys '{"keys":[{"kty":"oct","k":"AAAA"}]}']])
      for _, text in ipairs { "'x'", "'[]'", "'5'", "{}", "{ keys = 5 }", "('{\"keys\":[]} x')" } do
        assert.equal("nil|bad_key", run("local k, w = c.keys(" .. text .. ") return k, w"), text)
      end
    end)
  end)

  describe("sign and verify", function()
    for _, kind in ipairs { "rsa", "p256", "p384", "p521", "ed25519" } do
      it("agree for " .. kind .. ", again and again", function()
        assert.equal("ok", run([[
          local k = c.key(%s)
          local p = k:public()
          for i = 1, 3 do
            for _, o in ipairs { {}, { hash = "sha512" }, { padding = "pss" }, { format = "raw" } } do
              local text = "text " .. i
              local s = c.sign(k, text, o)
              assert(c.verify(p, text, s, o) and c.verify(k, text, s, o))
              assert(not c.verify(p, text .. "x", s, o) and not c.verify(p, text, s .. "x", o))
              assert(not c.verify(p, text, s:sub(1, -2), o) and not c.verify(p, text, "", o))
              assert(not c.verify(p, text, ("\0"):rep(#s), o))
            end
          end
          return "ok"
        ]], keys.private(kind)))
      end)
    end

    it("agree with openssl", function()
      local folder = process.temp_dir()
      process.write_file(folder .. "/text", "signed by another")
      for _, case in ipairs {
        { "rsa", "-sha256" }, { "rsa", "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1", "padding = 'pss'" },
        { "p256", "-sha256" }, { "p521", "-sha512", "hash = 'sha512'" },
      } do
        process.write_file(folder .. "/key", keys.private(case[1]))
        keys.shell(("cd %s && openssl dgst %s -sign key -out signature text"):format(folder, case[2]))
        local signature = process.read_file(folder .. "/signature")
        assert.equal("true", run(([[
          return c.verify(c.key(%s), "signed by another", %s, { %s })
        ]]):format("%s", "%s", case[3] or ""), keys.public(case[1]), signature), case[2])
      end
    end)

    it("refuse a public key that shall sign, and take a string for a secret", function()
      assert_raises("a public key cannot sign", "c.sign(c.key(%s), 'x')", keys.public "p256")
      assert.equal("true|true|false", run [[
        local s = c.sign("secret", "x")
        return s == c.hmac("sha256", "secret", "x"), c.verify("secret", "x", s), c.verify("other", "x", s)
      ]])
      assert_raises("no secret key", "c.verify(%s, 'x', 'y')", keys.public "p256")
      assert_raises("1 to 4096 bytes", "c.sign('', 'x')")
      assert_raises("a key, or a secret", "c.sign({}, 'x')")
      assert_raises("padding is", "c.sign('x', 'x', { padding = 'none' })")
    end)

    it("verify the signatures of the RFCs' appendices", function()
      local how = {
        RS256 = "{}", PS384 = "{ hash = 'sha384', padding = 'pss' }", ES256 = "{ format = 'raw' }",
        ES512 = "{ hash = 'sha512', format = 'raw' }", HS256 = "{}", EdDSA = "{}",
      }
      for _, case in ipairs(rfc_tokens.cases) do
        local input, signature = case.token:match "^(.*)%.([^.]*)$"
        local padded = signature:gsub("-", "+"):gsub("_", "/") .. ("="):rep(-#signature % 4)
        assert.equal("true|false", run(([[
          local k, s = c.key(%s), gate.base64.decode %q
          return c.verify(k, %q, s, %s), c.verify(k, %q .. "x", s, %s)
        ]]):format(literal(case.jwk), padded, input, how[case.alg], input, how[case.alg])), case.where)
      end
    end)
  end)
end)
