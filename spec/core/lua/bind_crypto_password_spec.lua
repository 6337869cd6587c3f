-- luacheck: no max line length (scripts and messages stand in one line)
-- What takes long on purpose: passwords, which a helper thread works on while the script waits.

local support = require "support"
local probe = require "core.lua.probe"
local it = support.it

describe("gate.crypto", function()
  support.setup(probe.start)

  local function hex(expression)
    return probe.request(([[
      local c = gate.crypto
      return ((%s):gsub(".", function(b) return ("%%02x"):format(b:byte()) end))
    ]]):format(expression))
  end

  it("derives by PBKDF2 and scrypt as RFC 7914 says", function()
    assert.equal("55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
      .. "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783",
      hex "c.pbkdf2('passwd', 'salt', { iterations = 1, length = 64 })")
    assert.equal("8c0511f4c6e597c6ac6315d8f0362e225f3c501495ba23b868c005174dc4ee71", hex [[
      c.pbkdf2("passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", { hash = "sha512", iterations = 4096 })
    ]])
    assert.equal("7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
      .. "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887",
      hex "c.scrypt('pleaseletmein', 'SodiumChloride', { ln = 14, length = 64 })")
  end)

  it("verifies passwords that passlib hashed", function()
    local hashes = {
      "$pbkdf2-sha256$1000$MDEyMzQ1Njc4OWFiY2RlZg$oI0xgCMPSb5PCu.rfnlmLgtCO4/utcPb2HLmh2upQOs",
      "$pbkdf2-sha512$1000$MDEyMzQ1Njc4OWFiY2RlZg$mb4Ix9Z0VqMQ.e69t8YfInEFLld3VXkd13BtwBVt.dQt6ezQx1U/xPZ5TVBS/qv/0o5"
        .. "nlptoZ4mITAWtddLd6Q",
      "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$pLQewN9IdLh64F7cKj3MH2cSW8TUCVGjeX4H2sE5c90",
    }
    for _, hash in ipairs(hashes) do
      local script = "local v = gate.crypto.password_verify return v('moon', %q), v('sun', %q), v('', %q)"
      assert.equal("true|false|false", probe.request(script:format(hash, hash, hash)), hash)
    end
  end)

  it("hashes passwords so that it can verify them", function()
    assert.equal("true|false|true|true", probe.request [[
      local c = gate.crypto
      local one, two = c.password_hash("moon", { ln = 10 }), c.password_hash("moon", { ln = 10 })
      return c.password_verify("moon", one), c.password_verify("sun", one), one ~= two,
        one:find "^%$scrypt%$ln=10,r=8,p=1%$[%w+/]+%$[%w+/]+$" == 1
    ]])
  end)

  it("says what is no hash, or one that costs too much", function()
    for _, hash in ipairs {
      "", "moon", "$", "$$$$", "$2b$12$abcdefghijklmnopqrstuv", "$scrypt$ln=10,r=8,p=1$AAAA", "$scrypt$ln=10,r=8,p=1$AAAA$AAAA",
      "$scrypt$ln=30,r=8,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAA", "$scrypt$ln=17,r=16,p=4$AAAA$AAAAAAAAAAAAAAAAAAAAAA",
      "$scrypt$ln=10,r=8$AAAA$AAAAAAAAAAAAAAAAAAAAAA", "$scrypt$ln=10,r=8,p=1,x=1$AAAA$AAAAAAAAAAAAAAAAAAAAAA",
      "$pbkdf2-sha256$9999999999$AAAA$AAAAAAAAAAAAAAAAAAAAAA", "$pbkdf2-sha256$0$AAAA$AAAAAAAAAAAAAAAAAAAAAA",
      "$pbkdf2-sha256$1000$!!!!$AAAAAAAAAAAAAAAAAAAAAA", "$pbkdf2-sha256$1000$AAAA$" .. ("A"):rep(1000),
    } do
      local script = "local ok, word = gate.crypto.password_verify('x', %q) return ok, word"
      assert.equal("nil|bad_hash", probe.request(script:format(hash)), hash)
    end
  end)

  it("does not keep others waiting", function()
    -- One client's password takes long; others are answered meanwhile, by the one worker there is.
    local slow = support.spawn(function()
      return probe.request "return gate.crypto.password_verify('x', gate.crypto.password_hash('x'))"
    end)
    assert.equal("quick", probe.request "return 'quick'")
    assert.equal("true", slow:join())
  end)

  it("survives clients that leave meanwhile", function()
    for _ = 1, 10 do
      local conn = support.net.connect(probe.port)
      conn:send("GET / HTTP/1.1\r\nHost: a\r\n" .. probe.field("on_request", "gate.crypto.password_hash('x')") .. "\r\n\r\n")
      conn:close()
    end
    assert.equal("true", probe.request "return #gate.crypto.pbkdf2('x', 'salt', { iterations = 1 }) == 32")
  end)

  it("refuses when too many wait", function()
    local said = probe.request [[
      local tasks, refused = {}, 0
      for i = 1, 60 do
        tasks[i] = function()
          local hash, word = gate.crypto.password_hash("x", { ln = 10 })
          if not hash then refused = refused + (word == "overloaded" and 1 or 100) end
        end
      end
      gate.all(table.unpack(tasks))
      return refused
    ]]
    local refused = tonumber(said) -- more than 28 if the helper has not come to those whose clients left
    assert(refused and refused >= 28 and refused < 60, said)
    assert.equal("32", probe.request "return #gate.crypto.pbkdf2('x', 'salt', { iterations = 1 })")
  end)

  it("refuses what makes no sense", function()
    probe.raises("iterations is a whole number from 1 to 2000000", "gate.crypto.pbkdf2('x', 'salt', { iterations = 0 })")
    probe.raises("iterations is a whole number", "gate.crypto.pbkdf2('x', 'salt', { iterations = 1.5 })")
    probe.raises("length is a whole number", "gate.crypto.pbkdf2('x', 'salt', { length = 257 })")
    probe.raises("ln is a whole number from 1 to 17", "gate.crypto.scrypt('x', 'salt', { ln = 18 })")
    probe.raises("that cost takes more than 128 MiB", "gate.crypto.password_hash('x', { ln = 17, r = 16 })")
    probe.raises("a salt has 1 to 256 bytes", "gate.crypto.scrypt('x', '')")
    probe.raises("longer than 4096", "gate.crypto.password_hash(('x'):rep(4097))")
    probe.raises("did you mean 'hash'", "gate.crypto.pbkdf2('x', 'salt', { hsh = 'sha1' })")
    probe.raises("cannot wait inside table.sort", "table.sort({ 1, 2 }, function() gate.crypto.password_hash 'x' end)")
  end)
end)
