-- luacheck: no max line length (scripts and messages stand in one line)
-- gate.jwt: the RFCs' examples, and what must not pass.

local engine = require "core.lua.engine"
local keys = require "support.keys"
local rfc_tokens = require "core.lua.rfc_tokens"
local it = require("support").it

local prelude = [[
  local c, jwt = gate.crypto, gate.jwt
  local secret = ("s"):rep(64)
  -- Claims' subject or the word; the options are added to those that any token needs.
  local function verify(token, options, more)
    local all = { keys = secret, algorithms = { "HS256" } }
    for name, value in pairs(options or {}) do all[name] = value end
    local claims, word = jwt.verify(token, all)
    return claims and (claims.sub or "ok") or word
  end
  local function sign(claims, options) return jwt.sign(claims, secret, options) end
  -- A token of any bytes.
  local function b64(bytes) return (gate.base64.encode(bytes):gsub("[+/=]", { ["+"] = "-", ["/"] = "_", ["="] = "" })) end
  local function forge(header, payload)
    local input = b64(header) .. "." .. b64(payload)
    return input .. "." .. b64(c.hmac("sha256", secret, input))
  end
  local hs256 = '{"alg":"HS256"}'
]]

local run, assert_raises = engine.runner(prelude)
local literal = engine.literal

-- The kind of key for each algorithm.
local algorithms = {
  RS256 = "rsa", RS384 = "rsa", RS512 = "rsa", PS256 = "rsa", PS384 = "rsa", PS512 = "rsa",
  ES256 = "p256", ES384 = "p384", ES512 = "p521", EdDSA = "ed25519",
}

describe("gate.jwt", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  describe("verify", function()
    it("takes the tokens of the RFCs' appendices, and no changed ones", function()
      for i, case in ipairs(rfc_tokens.cases) do
        -- Behind a good signature some have a payload that is no JSON: then it is that which is wrong.
        local expected = i <= 3 and "joe 1300819380 true" or "bad_token"
        assert.equal(expected .. "|bad_signature|bad_algorithm", run(([[
          local o = { keys = c.key(%s), algorithms = { %q }, now = 1300819379 }
          local claims, word = jwt.verify(%q, o)
          local input, signature = (%q):match "^(.*)%%%%.(.*)$"
          local changed = input .. "." .. (signature:sub(1, 1) == "A" and "B" or "A") .. signature:sub(2)
          local _, word_of_changed = jwt.verify(changed, o)
          o.algorithms = { "HS512", "RS512", "PS512" }
          local _, word_of_other = jwt.verify(%q, o)
          return claims and ("%%%%s %%%%d %%%%s"):format(claims.iss, claims.exp, claims["http://example.com/is_root"]) or word,
            word_of_changed, word_of_other
        ]]):format(literal(case.jwk), case.alg, case.token, case.token, case.token)), case.where)
      end
    end)

    it("never takes an unsecured token", function()
      assert.equal("bad_algorithm", run("return verify(%s)", rfc_tokens.unsecured))
      assert_raises("none that is supported", "return verify('a.b.c', { algorithms = { 'none' } })")
      for _, alg in ipairs { "None", "NONE", "nOnE", "" } do
        assert.equal("bad_algorithm", run([[return verify(forge('{"alg":"' .. %s .. '"}', '{}'))]], alg))
      end
    end)

    for alg, kind in pairs(algorithms) do
      it("takes what sign made with " .. alg, function()
        assert.equal(("ada|%s|JWT|bad_signature"):format(alg), run([[
          local k = c.key(%s)
          local o = { keys = k:public(), algorithms = { %s } }
          local token = jwt.sign({ sub = "ada" }, k, { alg = %s })
          local claims, header = assert(jwt.verify(token, o))
          local _, word = jwt.verify(token:gsub("%%.", ".A", 1), o)
          return claims.sub, header.alg, header.typ, word == "bad_token" and "bad_signature" or word
        ]], keys.private(kind), alg, alg))
      end)
    end

    it("does not take a public key for a secret", function()
      local public = keys.public "rsa"
      -- Signed with the text of the PEM, as who has only the public key would.
      assert.equal("unknown_key", run([[
        local pem = %s
        local input = b64 '{"alg":"HS256"}' .. "." .. b64 '{"sub":"eve"}'
        local token = input .. "." .. b64(c.hmac("sha256", pem, input))
        return verify(token, { keys = c.key(pem), algorithms = { "HS256", "RS256" } })
      ]], public))
      assert_raises("which is no secret", "return verify(forge(hs256, '{}'), { keys = %s })", public)
    end)

    it("lets a key do only what its kind, curve and alg say", function()
      assert.equal("unknown_key|unknown_key|unknown_key|unknown_key", run([[
        local p256, rsa = c.key(%s), c.key(%s)
        local jwk = rsa:jwk()
        jwk.alg = "RS256"
        local bound = c.key(jwk)
        return verify(jwt.sign({}, p256), { keys = c.key(%s), algorithms = { "ES256" } }),
          verify(jwt.sign({}, p256), { keys = rsa, algorithms = { "ES256" } }),
          verify(jwt.sign({}, rsa, { alg = "RS512" }), { keys = bound, algorithms = { "RS512" } }),
          verify(sign {}, { keys = p256 })
      ]], keys.private "p256", keys.private "rsa", keys.private "p384"))
    end)

    it("wants secrets as long as the digest", function()
      assert_raises("a secret for HS256 has at least 32 bytes", "return verify(sign {}, { keys = 'short' })")
      assert_raises("a secret for HS512 has at least 64 bytes", "return jwt.sign({}, ('x'):rep(63), { alg = 'HS512' })")
      assert.equal("unknown_key", run [[
        return verify(sign {}, { keys = { c.key { kty = "oct", k = "AAAA" } } })
      ]])
    end)

    it("finds the key by its kid, and else tries all that fit", function()
      local script = [[
        local one = c.key { kty = "oct", kid = "one", k = b64(("1"):rep(32)) }
        local two = c.key { kty = "oct", kid = "two", k = b64(("2"):rep(32)) }
        local nameless = c.key { kty = "oct", k = b64(("3"):rep(32)) }
        local function of(key, kid, list)
          local token = jwt.sign({ sub = "ada" }, key, { kid = kid })
          return verify(token, { keys = list })
        end
        local both = { one, two }
        return of(one, nil, both), of(two, nil, both), of(two, "three", both), of(two, "one", both),
          of(nameless, nil, { one, two, nameless }), of(nameless, "four", { one, nameless }), of(nameless, nil, both), of(one, nil, {})
      ]]
      assert.equal("ada|ada|unknown_key|bad_signature|ada|ada|bad_signature|unknown_key", run(script))
    end)

    it("asks a function for the key, which may wait, or say why there is none", function()
      assert.equal("ada|unknown_key|my_word|my_word|my_word|raised", run [[
        local token = sign({ sub = "ada" }, { kid = "k1" })
        local function word(find) return verify(token, { keys = find }) end
        local sentence = select(3, jwt.verify(token, { algorithms = { "HS256" }, keys = function() return nil, "my_word" end }))
        return word(function(header) gate.sleep(0.001) return header.kid == "k1" and secret end),
          word(function() end), word(function() return nil, "my_word", "because" end), word(function() return false, "my_word" end),
          sentence, pcall(word, function() error "x" end) and "fine" or "raised"
      ]])
      assert.equal("ada|2", run [[
        local asked = 0
        local object = { find = function(self, header) asked = asked + (header.alg == "HS256" and 1 or 0) return self.keys end }
        object.keys = { c.key { kty = "oct", k = b64(secret) } }
        verify(sign {}, { keys = object })
        return verify(sign { sub = "ada" }, { keys = object }), asked
      ]])
    end)

    it("looks at times", function()
      assert.equal("expired|ok|expired|ok|not_yet|ok|ok", run [[
        return verify(sign { exp = 100 }, { now = 100 }), verify(sign { exp = 100 }, { now = 99.9 }),
          verify(sign { exp = 100 }, { now = 110, leeway = 10 }), verify(sign { exp = 100 }, { now = 109, leeway = "10s" }),
          verify(sign { nbf = 100 }, { now = 99 }), verify(sign { nbf = 100 }, { now = 100 }),
          verify(sign { nbf = 100 }, { now = 95, leeway = 5 })
      ]])
      assert.equal("expired|ok|missing_claim|not_yet|ok", run [[
        local o = { now = 1000, max_age = 60 }
        return verify(sign { iat = 939 }, o), verify(sign { iat = 940 }, o), verify(sign {}, o), verify(sign { iat = 1001 }, o),
          verify(sign { iat = 99999 }, { now = 1 })
      ]])
      assert.equal("ok|expired", run [[
        return verify(sign({}, { expires_in = 60, not_before = 0 })), verify(sign { exp = gate.now() - 1 })
      ]])
      for _, claims in ipairs { '{"exp":"9999999999"}', '{"nbf":true}', '{"iat":[]}', '{"exp":{}}' } do
        assert.equal("bad_token", run("return verify(forge(hs256, %s))", claims), claims)
      end
    end)

    it("looks at issuer, subject and audience", function()
      assert.equal("ok|wrong_issuer|wrong_issuer|ok|bad_token", run [[
        return verify(sign { iss = "a" }, { issuer = "a" }), verify(sign { iss = "b" }, { issuer = "a" }),
          verify(sign {}, { issuer = "a" }), verify(sign { iss = "b" }, { issuer = { "a", "b" } }),
          verify(sign { iss = 5 }, {})
      ]])
      assert.equal("me|wrong_subject", run [[
        return verify(sign { sub = "me" }, { subject = "me" }), verify(sign { sub = "you" }, { subject = "me" })
      ]])
      assert.equal("ok|ok|ok|wrong_audience|wrong_audience|wrong_audience|ok|ok|bad_token|bad_token", run [[
        local both = { "x", "y" }
        return verify(sign { aud = "x" }, { audience = "x" }), verify(sign { aud = both }, { audience = "y" }),
          verify(sign { aud = both }, { audience = { "z", "x" } }), verify(sign { aud = both }, { audience = "z" }),
          verify(sign {}, { audience = "x" }), verify(sign { aud = "x" }), verify(sign { aud = "x" }, { audience = false }),
          verify(sign {}), verify(sign { aud = 5 }, { audience = "x" }), verify(sign { aud = { "x", 5 } }, { audience = "x" })
      ]])
    end)

    it("wants claims that are required", function()
      assert.equal("missing_claim|ok|missing_claim|missing_claim", run [[
        return verify(sign {}, { required = { "exp" } }), verify(sign { exp = 1e10 }, { required = { "exp" } }),
          verify(sign { exp = 1e10 }, { required = { "exp", "scope" } }), verify(forge(hs256, '{"a":null}'), { required = "a" })
      ]])
    end)

    it("wants the typ it is told, and understands crit", function()
      assert.equal("ok|ok|wrong_type|ok", run [[
        return verify(sign({}, { typ = "at+jwt" }), { typ = "at+jwt" }),
          verify(sign({}, { typ = "application/AT+JWT" }), { typ = "at+jwt" }), verify(sign({}), { typ = "at+jwt" }),
          verify(sign({}), { typ = "jwt" })
      ]])
      assert.equal("bad_token|ok|bad_token|bad_token|bad_token|bad_token", run [[
        local function of(header, crit) return verify(forge(header, "{}"), { crit = crit }) end
        local known = '{"alg":"HS256","crit":["x"],"x":1}'
        return of(known), of(known, { "x" }), of('{"alg":"HS256","crit":["x"]}', { "x" }), of('{"alg":"HS256","crit":[]}', { "x" }),
          of('{"alg":"HS256","crit":"x","x":1}', { "x" }), of('{"alg":"HS256","crit":["b64"],"b64":false}', {})
      ]])
    end)

    it("refuses what is malformed, before it looks at a key", function()
      local none = {
        "", ".", "..", "a", "a.b", "a.b.c.d", "!.b.c", "e30.e30.", "bnVsbA.e30.", "W10.e30.AA", "eyJhbGciOjV9.e30.AA", -- {"alg":5}
        ("x"):rep(70000),
      }
      for _, token in ipairs(none) do assert.equal("bad_token", run("return verify(%s)", token), token:sub(1, 40)) end
      for _, header in ipairs {
        '{"alg":"HS256","alg":"HS256"}', '{"alg":"HS256"}x', '{"alg":"HS256","kid":5}', '{"alg":"HS256\\u0000"}',
        "{'alg':'HS256'}", '{"alg":"HS256","x":99999999999999999999}', '{"alg":"HS256","a":"\xff"}',
      } do
        assert.equal("bad_token", run("return verify(forge(%s, '{}'))", header), header)
      end
      for _, payload in ipairs { "", "[]", "5", "null", '{"a":1,"a":2}', '{"a":[null]}', "{", ('{"a":'):rep(40) .. "1" .. ("}"):rep(40) } do
        assert.equal("bad_token", run("return verify(forge(hs256, %s))", payload), payload)
      end
      assert.equal("bad_signature|bad_signature|bad_signature", run [[
        local token = sign {}
        return verify(token .. "A"), verify(token:match "^(.*%%.)"), verify(token:match "^(.*%%.)" .. ("A"):rep(5000))
      ]])
    end)

    it("gives claims as plain data, integers as integers", function()
      assert.equal("9007199254740993|integer|1.5|true|nil|b|nested", run [[
        local claims = jwt.verify(forge(hs256, '{"n":9007199254740993,"f":1.5,"t":true,"z":null,"l":["a","b"],"o":{"p":"nested"}}'),
          { keys = secret, algorithms = { "HS256" } })
        return claims.n, math.type(claims.n), claims.f, claims.t, claims.z, claims.l[2], claims.o.p
      ]])
    end)

    it("remembers good signatures if told to, and nothing else", function()
      assert.equal("ada|ada|bad_signature|bad_signature|expired|unknown_key", run([[
        local k = c.key(%s)
        local public, other = k:public(), c.key(%s)
        local token = jwt.sign({ sub = "ada", exp = 100 }, k)
        local changed = token:sub(1, -3) .. (token:sub(-2, -2) == "A" and "B" or "A") .. "A"
        local function of(t, now, keys) return verify(t, { keys = keys or public, algorithms = { "ES256" }, remember = true, now = now }) end
        return of(token, 1), of(token, 1), of(changed, 1), of(changed, 1), of(token, 100), of(token, 1, other)
      ]], keys.private "p256", keys.private "p384"))
    end)

    it("refuses options that make no sense", function()
      local refused = {
        ["{}"] = "keys must be given", ["{ keys = secret }"] = "algorithms is a list",
        ["{ keys = secret, algorithms = {} }"] = "algorithms is a list",
        ["{ keys = secret, algorithms = 'HS256' }"] = "algorithms is a list",
        ["{ keys = secret, algorithms = { 5 } }"] = "none that is supported",
        ["{ keys = secret, algorithms = { 'ES256K' } }"] = "none that is supported",
        ["{ keys = ('x'):rep(32), algorithms = { 'HS256', 'HS384' } }"] = "a secret for HS384 has at least 48 bytes",
        ["{ algorithms = { 'HS256' } }"] = "keys must be given",
        ["{ algorithms = { 'HS256' }, keys = 5 }"] = "keys is a key, a secret",
        ["{ algorithms = { 'HS256' }, keys = { 5 } }"] = "keys[1] is no key",
        ["{ algorithms = { 'HS256' }, key = secret }"] = "did you mean 'keys'",
        ["{ algorithms = { 'HS256' }, keys = secret, leeway = -1 }"] = "leeway is seconds",
        ["{ algorithms = { 'HS256' }, keys = secret, issuer = 5 }"] = "issuer is a string",
        ["{ algorithms = { 'HS256' }, keys = secret, issuer = {} }"] = "issuer is a string",
        ["{ algorithms = { 'HS256' }, keys = secret, audience = true }"] = "or false",
        ["{ algorithms = { 'HS256' }, keys = secret, remember = 5 }"] = "remember is true or false",
        ["{ algorithms = { 'HS256' }, keys = secret, typ = 5 }"] = "typ is a string",
        ["{ algorithms = { 'HS256' }, keys = secret, crit = 'x' }"] = "crit is a list",
        ["nil"] = "table expected", ["5"] = "table expected",
      }
      for options, sentence in pairs(refused) do assert_raises(sentence, "jwt.verify(sign {}, " .. options .. ")") end
      assert_raises("string expected", "jwt.verify(5, { algorithms = { 'HS256' }, keys = secret })")
    end)
  end)

  describe("sign", function()
    it("sets times, kid and header", function()
      assert.equal("true|true|true|k1|at+jwt|true|HS256|nil", run [[
        local now = gate.now()
        local claims, header = jwt.decode(sign({ exp = 5 }, {
          expires_in = "10m", not_before = 0, issued_at = true, kid = "k1", typ = "at+jwt", header = { x = true, alg = "none" },
        }))
        local function near(time, wanted) return math.type(time) == "integer" and math.abs(time - wanted) <= 2 end
        return near(claims.exp, now + 600), near(claims.nbf, now), near(claims.iat, now), header.kid, header.typ, header.x, header.alg,
          claims.jti
      ]])
    end)

    it("leaves the table of claims alone", function()
      assert.equal("nil", run "local claims = {} sign(claims, { expires_in = 5 }) return next(claims)")
    end)

    it("refuses what has no JSON, and keys that cannot", function()
      local refused = {
        ["{ a = print }"] = "no plain data", ["{ a = 0/0 }"] = "not finite", ["{ a = '\\xff' }"] = "not UTF-8",
        ["{ 1, 2 }"] = "it is a list", ["{ [5] = 'x' }"] = "names of its members", ["(function() local t = {} t.t = t return t end)()"] = "holds itself",
        ["'x'"] = "table expected", ["nil"] = "table expected",
      }
      for claims, sentence in pairs(refused) do assert_raises(sentence, "sign(" .. claims .. ")") end
      assert_raises("is not what this key signs", "sign({}, { alg = 'RS256' })")
      assert_raises("alg is none that is supported", "sign({}, { alg = 'none' })")
      assert_raises("a public key cannot sign", "jwt.sign({}, c.key(%s))", keys.public "p256")
      assert_raises("expires_in is seconds", "sign({}, { expires_in = 'soon' })")
      assert_raises("has no option", "sign({}, { expires = 5 })")
    end)
  end)

  describe("decode", function()
    it("tells what a token says, whoever made it", function()
      assert.equal("joe|none", run("local claims, header = jwt.decode(%s) return claims.iss, header.alg", rfc_tokens.unsecured))
      assert.equal("nil|bad_token", run "local claims, word = jwt.decode('a.b.c') return claims, word")
    end)
  end)
end)
