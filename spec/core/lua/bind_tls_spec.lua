-- gate.tls, and gate.fetch of https URLs.

local uv = require "luv"
local support = require "support"
local it, http, moongate, tls = support.it, support.http, support.moongate, support.tls

describe("gate.fetch of an https URL", function()
  local dir, ca, server

  support.setup(function()
    dir = support.temp_dir()
    uv.fs_chmod(dir, tonumber("755", 8))
    ca = tls.certificate(dir, "ca", { authority = true })
    server = tls.certificate(dir, "server", { ca = ca, names = { "DNS:app.test", "DNS:localhost", "IP:127.0.0.1" } })
  end)

  -- What a script says of fetches: `body` is that of on_request, with `url`.
  local function run(body, options)
    options = options or {}
    local backend = http.backend("hello", { tls = tls.server(server) })
    local gate = moongate.start {
      args = { "--keys", dir }, env = { SSL_CERT_FILE = options.roots },
      values = { BACKEND_PORT = backend.port, CERTS = dir, CA = support.process.read_file(ca.cert) },
      config = ([[
        local gate = require "moongate"
        local pem = "$CA"
        local url = "https://127.0.0.1:$BACKEND_PORT/"
        %s
        local function say(res, word, sentence)
          return gate.reply(200, res and res.status .. " " .. res.body or word .. ": " .. tostring(sentence))
        end
        return { listen = "127.0.0.1:$PORT", on_request = function(req) %s end }
      ]]):format(options.load or "", body):gsub("\n%-%-%-%-%-", "-----"):gsub('"$CA"', "[[$CA]]"),
    }
    return http.get(gate.port).body, gate, backend
  end

  it("trusts the system's roots unless told otherwise", function()
    assert.equal("200 hello", (run("return say(gate.fetch(url))", { roots = ca.cert })))
    assert.equal("certificate: the server's certificate is not trusted: unable to get local issuer certificate",
      (run "return say(gate.fetch(url))"))
  end)

  it("takes roots as PEM, from a hook", function()
    assert.equal("200 hello", (run "return say(gate.fetch(url, { tls = { ca = pem } }))"))
  end)

  it("takes what gate.tls made while the file was loaded", function()
    local load = 'local trust = gate.tls { ca = "$CERTS/ca.pem", name = "app.test" }'
    assert.equal("200 hello", (run("return say(gate.fetch(url, { tls = trust }))", { load = load })))
    load = 'local trust = gate.tls { ca = "$CERTS/ca.pem", name = "wrong.test" }'
    assert.equal("certificate: the server's certificate is not trusted: hostname mismatch",
      (run("return say(gate.fetch(url, { tls = trust }))", { load = load })))
  end)

  it("verifies the URL's host, and sends it as SNI", function()
    assert.equal("200 hello",
      (run [[return say(gate.fetch(url:gsub("127.0.0.1", "localhost"), { tls = { ca = pem } }))]]))
  end)

  it("takes any certificate where it is told to", function()
    assert.equal("200 hello", (run "return say(gate.fetch(url, { tls = { verify = false } }))"))
  end)

  it("keeps connections of different trust apart, and reuses those of the same", function()
    local _, _, backend = run [[
      for _ = 1, 3 do
        assert(gate.fetch(url, { tls = { ca = pem } }))
        assert(gate.fetch(url, { tls = { verify = false } }))
        assert(gate.fetch(url, { tls = { ca = pem, name = "app.test" } }))
        assert(not gate.fetch(url))
      end
      return 204
    ]]
    assert.equal(9, #backend.requests)
    assert.equal(3, backend.accepted - #backend.refused)
  end)

  it("says what the script did wrong", function()
    local function says(sentence, body)
      local answer = run(("local ok, why = pcall(function() %s end) return gate.reply(200, why)"):format(body))
      assert.matches(sentence, answer, 1, true)
    end
    says("gate.fetch: tls is for https:// URLs", "gate.fetch('http://127.0.0.1:1', { tls = {} })")
    says("gate.fetch: tls has no option 'cs' (did you mean 'ca'?)", "gate.fetch(url, { tls = { cs = 1 } })")
    says("gate.fetch: tls: ca is PEM here: files are read while the config is loaded",
      "gate.fetch(url, { tls = { ca = 'ca.pem' } })")
    says("gate.fetch: tls is a table, or what gate.tls made, not a number", "gate.fetch(url, { tls = 5 })")
    says("gate.tls: ca: holds no certificates in PEM", "gate.tls { ca = '-----BEGIN nothing' }")
    says("gate.tls: key without cert", "gate.tls { key = pem }")
    says("gate.tls: versions are", "gate.tls { versions = '1.1' }")
    says("a pin is", "gate.tls { pins = { 'x' } }")
  end)

  it("refuses a config whose files are missing, with the line", function()
    local file = dir .. "/config.lua"
    support.process.write_file(file,
      'local gate = require "moongate"\nlocal t = gate.tls { ca = "missing.pem" }\nreturn {}')
    local status, _, err = moongate.run { "check", file }
    assert.equal(1, status)
    assert.matches("config.lua:2: gate.tls: ca: missing.pem: no such file", err, 1, true)
  end)
end)
