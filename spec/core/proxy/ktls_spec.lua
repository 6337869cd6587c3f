-- TLS whose records the kernel encrypts (kTLS), where it can; elsewhere everything is as without.

local uv = require "luv"
local support = require "support"
local http, h2, net, moongate, tls = support.http, support.h2, support.net, support.moongate, support.tls

local function read_ulps()
  local file = io.open "/proc/sys/net/ipv4/tcp_available_ulp"
  local text = file and file:read "a" or ""
  if file then file:close() end
  return text
end

local there = read_ulps():find("tls", 1, true) ~= nil
local it = support.it
local function with_kernel(name, body)
  if there then it(name, body)
  else pending(name .. " (this kernel has no TLS)") end
end

describe("a listener with ktls", function()
  local dir, own
  -- Bytes come and go one by one in the hard build.
  local hard = support.process.preset == "hard"
  local body = {}
  for i = 1, hard and 4000 or 200000 do body[i] = ("%06d "):format(i) end
  local large = table.concat(body) -- 1.4 MB, of which no two parts are alike

  support.setup(function()
    dir = support.temp_dir()
    uv.fs_chmod(dir, tonumber("755", 8))
    own = tls.certificate(dir, "own", { names = { "DNS:own.test" } })
  end)

  local function start(answer)
    local backend = http.backend(function(request)
      if request.target == "/small" then return 200, {}, "small\n" end
      return 200, {}, answer or large
    end)
    return moongate.start {
      args = { "--keys", dir }, workers = 1, values = { CERT = own.cert, KEY = own.key, BACKEND = backend },
      config = [[
        return { admin = "127.0.0.1:$PORT2", sites = { {
          listen = { { "127.0.0.1:$PORT", tls = { cert = "$CERT", key = "$KEY", ktls = true } } },
          backends = { app = { "$BACKEND" } },
        } } }
      ]],
    }
  end

  local function figure(gate, name)
    return tonumber(http.get(gate.values.PORT2, "/metrics").body:match("\n" .. name .. " (%d+)"))
  end

  it("serves the same bytes, whoever encrypts them", function()
    local gate = start()
    local conn = net.connect_tls(gate.port)
    for _ = 1, 3 do
      assert.equal("small\n", http.get(nil, "/small", { conn = conn }).body)
      assert.equal(large, http.get(nil, "/large", { conn = conn }).body)
    end
    local client = h2.connect_tls(gate.port)
    assert.equal("small\n", client:exchange("/small").body)
    assert.equal(large, client:exchange("/large").body)
    assert.equal(there and 2 or 0, figure(gate, "moongate_tls_kernel_total"))
  end)

  it("is told at its start when the kernel has no TLS", function()
    local file = dir .. "/ktls.lua"
    support.process.write_file(file, [[
      return { listen = { 8443, tls = { cert = "own.pem", key = "own.key", ktls = true } }, on_request = 204 }
    ]])
    local status, _, err = moongate.run { "check", "--keys", dir, file }
    assert.equal(0, status)
    assert.equal(not there, err:find("listen.tls.ktls: this kernel has no TLS", 1, true) ~= nil)
  end)

  it("has no early data", function()
    local file = dir .. "/early.lua"
    support.process.write_file(file, [[return { on_request = 204,
      listen = { 8443, tls = { cert = "own.pem", key = "own.key", ktls = true, early_data = true } } }]])
    local status, _, err = moongate.run { "check", "--keys", dir, file }
    assert.equal(1, status)
    assert.matches("listen.tls.ktls: does not go with `early_data`", err, 1, true)
  end)

  -- What curl gets with these arguments.
  local function fetch(gate, path, ...)
    local file = dir .. "/fetched"
    local status, _, err = support.run({ "curl", "-sS", "-k", "-o", file,
      ("https://127.0.0.1:%d%s"):format(gate.port, path), ... }, { timeout = 60 })
    assert.equal(0, status, err)
    return support.process.read_file(file)
  end

  it("gives each client every byte, in each version and cipher", function()
    local gate = start()
    local kinds = {
      { "--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256" },
      { "--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384" },
      { "--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305" },
      { "--tlsv1.3", "--tls13-ciphers", "TLS_AES_128_GCM_SHA256" },
      { "--tlsv1.3", "--tls13-ciphers", "TLS_AES_256_GCM_SHA384" },
      { "--tlsv1.3", "--tls13-ciphers", "TLS_CHACHA20_POLY1305_SHA256" },
      { "--http1.1", "-H", "Connection: close" },
    }
    for _, kind in ipairs(kinds) do
      assert.is_true(fetch(gate, "/large", table.unpack(kind)) == large, table.concat(kind, " "))
    end
    assert.equal(there and #kinds or 0, figure(gate, "moongate_tls_kernel_total"))
  end)

  it("says the end after the last byte, also to who reads slowly", function()
    local much = large:rep(hard and 2 or 12)
    local gate = start(much)
    for _, rate in ipairs { "12M", "17M", "29M" } do
      local got = fetch(gate, "/large", "--http1.1", "-H", "Connection: close", "--limit-rate", rate)
      assert.equal(#much, #got)
      assert.is_true(got == much)
    end
  end)

  -- s_client, which sends a request and then, when its answer has come, a command of its own.
  local function command(gate, letter)
    local process = support.process.spawn({ "openssl", "s_client", "-connect", "127.0.0.1:" .. gate.port,
      "-servername", "own.test", "-tls1_3", "-crlf" }, { stdin = true })
    process:write "GET /small HTTP/1.1\nHost: own.test\n\n"
    process:wait_line("stdout", "small")
    process:write(letter .. "\n")
    return process
  end

  it("goes on when a client changes its own keys", function()
    local process = command(start(), "k")
    process:wait_line("stderr", "KEYUPDATE")
    process:write "GET /small HTTP/1.1\nHost: own.test\nConnection: close\n\n"
    process:wait(10)
    local _, answers = table.concat(process.stdout, "\n"):gsub("\nHTTP/1.1 200", "")
    assert.equal(2, answers)
  end)

  with_kernel("ends when a client asks for new keys, which the kernel cannot change", function()
    local process = command(start(), "K")
    process:wait_line("stderr", "KEYUPDATE")
    process:wait(10)
    assert.matches("closed", table.concat(process.stdout, "\n"))
  end)

  it("resumes sessions, whose tickets go through whoever encrypts", function()
    local gate = start()
    local session = dir .. "/session"
    local function meet(...)
      local _, out, err = support.run({ "openssl", "s_client", "-connect", "127.0.0.1:" .. gate.port, "-servername",
        "own.test", "-ign_eof", ... }, { stdin = "GET /small HTTP/1.1\r\nHost: own.test\r\nConnection: close\r\n\r\n",
        timeout = 10 })
      return out .. err
    end
    for _, version in ipairs { "-tls1_2", "-tls1_3" } do
      assert.matches("New, ", meet(version, "-sess_out", session))
      assert.matches("Reused, ", meet(version, "-sess_in", session))
    end
  end)
end)
