-- Settings: what each may be, and what an operator is told of one that is not, to the letter.
-- luacheck: no max line length (messages are shown as they are printed)

local server = require "moongate_core.server"

-- Reads a config; returns it, and the errors and warnings as the command line prints them.
local function read(text)
  return server.read(assert(load(text, "=config.lua", "t"))(), "config.lua", text)
end

-- A config of one line, as the body of a site that would else be good.
local function site(body)
  return ("return { listen = 8080, %s }"):format(body)
end

local function backend(body)
  return site(("backends = { app = { %s } }"):format(body))
end

-- What is wrong, and what is said of it. A config in a line of its own: its errors are all of line 1.
local wrong = {
  ["the whole"] = {
    { "return nil", "the file must return a site or { sites = { … } }, not nothing" },
    { "return 5", "the file must return a site or { sites = { … } }, not an integer" },
    { "return {}", 'listen: a site needs an address to listen on, such as "127.0.0.1:8080"' },
    { "return { sites = {} }", "sites: expected at least one site" },
    { "return { sites = 5 }", "sites: expected a list of sites, got 5" },
    { "return { sites = { 5 } }", "sites[1]: expected a site (a table), got 5" },
    { "return { sites = { app = {} } }", 'sites: expected a list of sites, got an entry under "app"' },
    { 'return { sites = { { listen = 80 } }, listen = 81 }', "listen: this setting belongs to a site" },
    { "return { sites = { { listen = 80 } }, hosts = { 'a' } }", "hosts: this setting belongs to a site" },
    { "return { sites = { { listen = 80, workers = 2 } } }", "sites[1].workers: this setting belongs to the top table" },
    { "return { sites = { {} } }", 'sites[1].listen: a site needs an address to listen on, such as "127.0.0.1:8080"' },
  },
  ["names"] = {
    { site "lsiten = 1", 'lsiten: unknown setting, did you mean "listen"?' },
    { site "max_bdoy = 1", 'max_bdoy: unknown setting, did you mean "max_body"?' },
    { site "worker = 1", 'worker: unknown setting, did you mean "workers"?' },
    { site "time = {}", 'time: unknown setting, did you mean "timeouts"?' },
    { site "zzzzzz = 1", "zzzzzz: unknown setting" },
    { site "weight = 1", "weight: this setting belongs to a server" },
    { site "timeout = 1", "timeout: this setting belongs to `queue` or `health`; did you mean \"timeouts\"?" },
    { site "connect = 1", "connect: this setting belongs to a site's `timeouts` or a backend's `timeouts`" },
    { site "1", "[1]: expected name = value, got an entry without a name" },
    { site "[true] = 1", "true is no name of a setting" },
    { site "on_requets = function() end", 'on_requets: unknown hook, did you mean "on_request"?' },
    { site "onrequest = function() end", 'onrequest: unknown hook, did you mean "on_request"?' },
    { site "helper = function() end", "helper: unknown hook (a function of the policy's own must be local)" },
    { site '["on-request"] = 1', '["on-request"]: unknown setting, did you mean "on_request"?' },
    { site "timeouts = { heads = 1 }", 'timeouts.heads: unknown setting, did you mean "head"?' },
    { backend '"a:1", balanced = "least_conn"', 'backends.app.balanced: unknown setting, did you mean "balance"?' },
    { backend '{ "a:1", wieght = 2 }', 'backends.app[1].wieght: unknown setting, did you mean "weight"?' },
    { site "log = { acess = 'x' }", 'log.acess: unknown setting, did you mean "access"?' },
  },
  ["top settings"] = {
    { site "workers = 0", "workers: expected a whole number from 1 to 64, got 0" },
    { site "workers = 65", "workers: expected a whole number from 1 to 64, got 65" },
    { site "workers = 1.5", "workers: expected a whole number from 1 to 64, got 1.5" },
    { site "workers = 'auto'", 'workers: expected a whole number from 1 to 64, got "auto"' },
    { site "max_connections = -1", "max_connections: expected a whole number from 0 to 10000000, got -1" },
    { site "drain = '2d'", 'drain: expected a time such as 5, "500ms", "10s", "1m", got "2d"' },
    { site "drain = '25h'", 'drain: expected a time from 0 to 24h, got "25h"' },
    { site "user = 5", "user: expected the name of a user, got 5" },
    { site "user = 'a:b'", 'user: expected the name of a user, got "a:b"' },
    { site "log = 'x'", 'log: expected a table, got "x"' },
    { site "log = { level = 'loud' }", 'log.level: expected "error", "warn", "info" or "debug", got "loud"' },
    { site "log = { access = true }", "log.access: expected a string, got true" },
    { site "log = { access = '' }", 'log.access: expected a string, got ""' },
    { site "log = { error = 'syslog' }", 'log.error: expected a path or "stderr", got "syslog", where only the access log goes' },
    { site "log = { access_format = 'xml' }", 'log.access_format: expected "combined" or "json", got "xml"' },
    { site "lua = { memory = '1K' }", 'lua.memory: expected a size from 1M to 16G, got "1K"' },
    { site "lua = { hook_cpu = 0 }", "lua.hook_cpu: expected a time from 1ms to 10s, got 0" },
    { site "unsafe = true", 'unsafe: expected a list such as { "io", "os" }, got true' },
    { site "unsafe = { 5 }", 'unsafe[1]: expected "io", "os", "debug", "package" or "bytecode", got 5' },
    { site "unsafe = 'ffi'", 'unsafe: expected "io", "os", "debug", "package" or "bytecode", got "ffi"' },
    { site "admin = 9901", 'admin: expected an address such as "127.0.0.1:9901", got 9901' },
    { site "admin = 'localhost:9901'", 'admin: expected an address, got the host name "localhost:9901"' },
    { "return { listen = '127.0.0.1:8080', admin = '127.0.0.1:8080' }", "admin: 127.0.0.1:8080 is the address of a site, too (listen)" },
  },
  ["listen"] = {
    { "return { listen = true }", 'listen: expected an address such as "127.0.0.1:8080", 8080, "unix:/run/m.sock", got true' },
    { "return { listen = 0 }", 'listen: expected an address such as "127.0.0.1:8080", 8080, "unix:/run/m.sock", got 0' },
    { "return { listen = 65536 }", 'listen: expected an address such as "127.0.0.1:8080", 8080, "unix:/run/m.sock", got 65536' },
    { "return { listen = '127.0.0.1' }", 'listen: expected an address such as "127.0.0.1:8080", 8080, "unix:/run/m.sock", got "127.0.0.1"' },
    { "return { listen = 'unix:m.sock' }", 'listen: expected an address such as "127.0.0.1:8080", 8080, "unix:/run/m.sock", got "unix:m.sock"' },
    { "return { listen = 'unix:' }", 'listen: expected an address such as "127.0.0.1:8080", 8080, "unix:/run/m.sock", got "unix:"' },
    { "return { listen = 'example.com:80' }", 'listen: expected an address, got the host name "example.com:80"' },
    { "return { listen = {} }", "listen: expected at least one address" },
    { "return { listen = { 80, 'x' } }", 'listen[2]: expected an address such as "127.0.0.1:8080", 8080, "unix:/run/m.sock", got "x"' },
    { "return { listen = { 80, '[::]:80' } }", "listen[2]: [::]:80 stands in the list twice" },
    { "return { listen = { { h2c = false } } }", 'listen[1]: expected an address such as "127.0.0.1:8080", 8080, "unix:/run/m.sock" as the first entry' },
    { "return { listen = { 80, { 81, tsl = true } } }", 'listen[2].tsl: unknown setting, did you mean "tls"?' },
    { "return { listen = { { 80, h2c = 1 } } }", "listen[1].h2c: expected true or false, got 1" },
    { "return { listen = { { 80, proxy_protocol = 5 } } }", "listen[1].proxy_protocol: expected a list of addresses and ranges, got 5" },
    { "return { listen = { { 80, proxy_protocol = {} } } }", "listen[1].proxy_protocol: expected at least one address or range" },
    { "return { listen = { { 80, proxy_protocol = 'x' } } }",
      'listen[1].proxy_protocol: expected an address or range such as "10.0.0.0/8", "::1", "unix", got "x"' },
    { "return { sites = { { listen = { { 80, proxy_protocol = '::1' } } }, { listen = { { 80, proxy_protocol = '::2' } }, hosts = 'a' } } }",
      "sites[2].listen[1]: [::]:80 has another `proxy_protocol` at sites[1].listen[1]: sites on one address agree in its options" },
    { "return { listen = { { 80, tls = 5 } } }", 'listen[1].tls: expected true, "internal" or a table such as { cert = "site.pem", key = "site.key" }, got 5' },
    { "return { listen = { 80, tls = { cert = 'x.pem' } } }", "listen.tls.cert: x.pem: no such file" },
  },
  ["hosts"] = {
    { site "hosts = 5", "hosts: expected a list of host names, got 5" },
    { site "hosts = {}", "hosts: expected at least one host name; leave `hosts` out for the default site" },
    { site "hosts = { 5 }", 'hosts[1]: expected a host name such as "example.com" or "*.example.com", got 5' },
    { site "hosts = { '*' }", 'hosts[1]: "*": a site for all hosts is one without `hosts`' },
    { site "hosts = { 'a.*.com' }", 'hosts[1]: "a.*.com": a wildcard stands for the first labels only: "*.example.com"' },
    { site "hosts = { 'a.com:80' }", 'hosts[1]: "a.com:80": a host has no port here; an IPv6 address stands in brackets' },
    { site "hosts = { 'a b' }", 'hosts[1]: "a b": not a host name' },
    { site "hosts = { 'a..b' }", 'hosts[1]: "a..b": not a host name' },
    { site "hosts = { 'b\\xc3\\xbccher.de' }", 'hosts[1]: "b\\xc3\\xbccher.de": names beyond ASCII are written in their xn-- form' },
    { site "hosts = { 'a.com', 'A.COM' }", 'hosts[2]: "A.COM": this host stands in the list twice' },
    { site "hosts = { 'a.com', extra = 1 }", "hosts.extra: unknown setting" },
  },
  ["backends"] = {
    { site "backends = 'a:1'", 'backends: expected a table such as { app = { "127.0.0.1:9001" } }, got "a:1"' },
    { site "backends = { 'a:1' }", 'backends: a backend needs a name, as in { app = { "127.0.0.1:9001" } }; got one under 1' },
    { site "backends = { app = 'a:1' }", 'backends.app: expected a list of servers such as { "127.0.0.1:9001" }, got "a:1"' },
    { site "backends = { app = {} }", "backends.app: a backend needs at least one server" },
    { site "backends = { ['a/b'] = { 'a:1' } }", 'backends: "a/b" is no name for a backend (no spaces, no "/")' },
    { site "backends = { ['my-app'] = { 5 } }", 'backends["my-app"][1]: expected "host:port", got 5' },
    { backend '"a:1", "80a"', 'backends.app[2]: expected "host:port", got "80a"' },
    { backend '"example.com"', 'backends.app[1]: expected "host:port", got "example.com"' },
    { backend '"example.com:0"', 'backends.app[1]: expected "host:port", got "example.com:0"' },
    { backend '"*:80"', 'backends.app[1]: expected "host:port", got "*:80"' },
    { backend '"300.1.1.1:80"', 'backends.app[1]: expected "host:port", got "300.1.1.1:80"' },
    { backend '"http://a:80"', 'backends.app[1]: expected "host:port", got "http://a:80"' },
    { backend "{}", 'backends.app[1]: expected "host:port", got a table' },
    { backend '{ "a:1", weight = 0 }', "backends.app[1].weight: expected a whole number from 1 to 1000, got 0" },
    { backend '{ "a:1", name = 5 }', "backends.app[1].name: expected a string, got 5" },
    { backend '{ "a:1", "b:1" }', "backends.app[1][2]: expected name = value, got an entry without a name" },
    { backend '"a:1", "a:1"', 'backends.app[2]: the backend has a server "a:1" already; give one of them another name' },
    { backend '"a:1", [3] = "b:1"', "backends.app[3]: there is a gap in the list before this entry" },
    { backend '"a:1", balance = "random"', 'backends.app.balance: expected "round_robin" or "least_conn", got "random"' },
    { backend '"a:1", keepalive = "x"', 'backends.app.keepalive: expected a whole number from 0 to 100000, or { max =, idle = }, got "x"' },
    { backend '"a:1", keepalive = { idle = 0 }', "backends.app.keepalive.idle: expected a time from 100ms to 24h, got 0" },
    { backend '"a:1", retry = { tries = 0 }', "backends.app.retry.tries: expected a whole number from 1 to 16, got 0" },
    { backend '"a:1", retry = { on = { "conect" } }',
      'backends.app.retry.on[1]: expected "connect", "reset", "timeout", "5xx" or a status from 400 to 599, got "conect"' },
    { backend '"a:1", retry = { on = 200 }',
      'backends.app.retry.on: expected "connect", "reset", "timeout", "5xx" or a status from 400 to 599, got 200' },
    { backend '"a:1", timeouts = { connect = 0 }', "backends.app.timeouts.connect: expected a time from 1ms to 24h, got 0" },
    { backend '"a:1", timeouts = { idle = 5 }', "backends.app.timeouts.idle: this setting belongs to a site's `timeouts` or `keepalive`" },
    { backend '"a:1", health = "/"', 'backends.app.health: expected a table, got "/"' },
    { backend '"a:1", health = {}', 'backends.app.health: needs a path, such as health = { path = "/healthz" }' },
    { backend '"a:1", health = { path = "x" }', 'backends.app.health.path: expected a path such as "/healthz", got "x"' },
    { backend '"a:1", health = { path = "/", status = 99 }',
      'backends.app.health.status: expected a status such as 200, "2xx", or a range { 200, 399 }, got 99' },
    { backend '"a:1", health = { path = "/", fall = 0 }', "backends.app.health.fall: expected a whole number from 1 to 100, got 0" },
    { backend '"a:1", health = { path = "/", interval = "10" }',
      'backends.app.health.interval: expected a time such as 5, "500ms", "10s", "1m", got "10"' },
    { backend '"a:1", tls = "yes"', 'backends.app.tls: expected true, false or a table such as { ca = "internal.pem" }, got "yes"' },
    { backend '"unix:/run/a.sock", tls = true', 'backends.app.tls: the server unix:/run/a.sock has no host name: say which one its certificate bears, name = "…"' },
    { backend '"a:1", tls = { ca = "missing.pem" }', "backends.app.tls.ca: missing.pem: no such file" },
    { backend '"unix:/a", parent = "http://p"', "backends.app[1]: no parent connects to a unix socket" },
    { backend '"a:1", proxy_protocol = 3', "backends.app.proxy_protocol: expected a whole number from 0 to 2, got 3" },
    { backend '"a:1", proxy_protocol = 1, parent = "http://p"',
      "backends.app.parent: a PROXY header would go to the parent, not to the servers: one or the other" },
    { backend '"a:1", tls = true, parent = "https://p"',
      "backends.app.parent: TLS to the servers cannot go inside of TLS to the parent: reach it by http://" },
    { backend '"a:1", queue = 10',
      "backends.app.queue: nobody would ever wait in it without `max_connections`, how many requests a server takes at once" },
    { backend '"a:1", max_connections = 1, queue = true',
      "backends.app.queue: expected a whole number from 0 to 1000000, or { max =, timeout = }, got true" },
    { backend '"a:1", max_connections = 1, queue = { max = 1, timeout = 0 }',
      "backends.app.queue.timeout: expected a time from 1ms to 24h, got 0" },
    { backend '"a:1", max_connections = 1e9', "backends.app.max_connections: expected a whole number from 0 to 10000000, got 1000000000" },
  },
  ["other settings of a site"] = {
    { site "max_body = 'lots'", 'max_body: expected a size such as 4096, "64K", "10M", "1G", or "none", got "lots"' },
    { site "max_body = '10k'", 'max_body: expected a size such as 4096, "64K", "10M", "1G", or "none", got "10k"' },
    { site "max_body = -1", 'max_body: expected a size from 1 to 1024G, or "none", got -1' },
    { site "max_body = true", 'max_body: expected a size such as 4096, "64K", "10M", "1G", or "none", got true' },
    { site "max_headers = '1M'", 'max_headers: expected a size from 1K to 64K, got "1M"' },
    { site "max_headers = 'none'", 'max_headers: expected a size such as 4096, "64K", "10M", "1G", got "none"' },
    { site "max_target = '64K'", "max_target: a target longer than `max_headers` (32768 bytes) can never come" },
    { site "buffer_body = 1", "buffer_body: expected true or false, got 1" },
    { site "raw_target = 'yes'", 'raw_target: expected true or false, got "yes"' },
    { site "timeouts = 5", "timeouts: expected a table, got 5" },
    { site "timeouts = { head = '1 s' }", 'timeouts.head: expected a time such as 5, "500ms", "10s", "1m", got "1 s"' },
    { site "timeouts = { head = -1 }", "timeouts.head: expected a time from 0 to 24h, got -1" },
    { site "timeouts = { head = 1/0 }", 'timeouts.head: expected a time such as 5, "500ms", "10s", "1m", got inf' },
    { site "cache = true", "cache: expected a table, got true" },
    { site "cache = { memory = '1K' }", 'cache.memory: expected a size from 1M to 1024G, got "1K"' },
    { site "cache = { memory = '2M', mem = '1M' }", 'cache.mem: unknown setting' },
    { site "cache = {}", 'cache.memory: a cache needs a size, such as "256M"' },
    { site "cache = { memory = '2M', max_object = '3M' }", "cache.max_object: more than the whole `memory` can never be stored" },
    { site "cache = { memory = '2M', negatve = 5 }", 'cache.negatve: unknown setting, did you mean "negative"?' },
    { site "cache = { memory = '2M', negative = 'long' }", 'cache.negative: expected a time such as 5, "500ms", "10s", "1m", got "long"' },
    { site "cache = { memory = '2M', negative = -1 }", "cache.negative: expected a time from 0 to 8760h, got -1" },
    { site "cache = { memory = '2M', negative = {} }", 'cache.negative: expected a time, or a table such as { [404] = "1m" }, got a table' },
    { site "cache = { memory = '2M', negative = { [404] = true } }", 'cache.negative[404]: expected a time such as 5, "500ms", "10s", "1m", got true' },
    { site "cache = { memory = '2M', negative = { [999] = 5 } }", 'cache.negative: 999 is no status of an answer that could be stored: { [404] = "1m" }' },
    { site "cache = { memory = '2M', negative = { gone = 5 } }", 'cache.negative: "gone" is no status of an answer that could be stored: { [404] = "1m" }' },
    { site "cache = { memory = '2M', stale = '9000h' }", 'cache.stale: expected a time from 0 to 8760h, got "9000h"' },
    { site "cache = { memory = '2M', stale_if_error = true }", 'cache.stale_if_error: expected a time such as 5, "500ms", "10s", "1m", got true' },
    { site "cache = { memory = '2M', purge = 'localhost' }", 'cache.purge: expected an address or range such as "10.0.0.0/8", "::1", "unix", got "localhost"' },
    { site "cache = { memory = '2M', purge = { '::1', 5 } }", 'cache.purge[2]: expected an address or range such as "10.0.0.0/8", "::1", "unix", got 5' },
    { site "use = 5", "use: expected a list of policies, got 5" },
    { site "use = { 5 }", "use[1]: expected a policy (a table of hooks), got 5" },
    { site "use = { on_request = 1 }", "use: expected a list of policies; a single one is written use = { policy }" },
    { site "trusted_proxies = 5", "trusted_proxies: expected a list of addresses and ranges, got 5" },
    { site "trusted_proxies = { '10.0.0.0/33' }",
      'trusted_proxies[1]: expected an address or range such as "10.0.0.0/8", "::1", "unix", got "10.0.0.0/33"' },
    { site "fail = 'continue'", 'fail: expected a table such as { on_request = "continue" }, got "continue"' },
    { site "fail = { on_request = true }", 'fail.on_request: expected "continue", got true' },
    { site "fail = { on_requst = 'continue' }", 'fail.on_requst: unknown setting, did you mean "on_request"?' },
    { site "tls = true", 'tls: expected a table such as { cert = "site.pem", key = "site.key" }, or a list of them, got true' },
    { site "forward = 5", "forward: expected true, or a table such as { ports = { 443 } }, got 5" },
    { site "forward = { ports = {} }", "forward.ports: expected at least one port" },
    { site "forward = { ports = { 0 } }", 'forward.ports[1]: expected a port such as 443, or a range such as "8000-8999", got 0' },
    { site "forward = { ports = { 443, '90-80' } }", 'forward.ports[2]: expected a port such as 443, or a range such as "8000-8999", got "90-80"' },
    { site "forward = { alow = {} }", 'forward.alow: unknown setting, did you mean "allow"?' },
    { site "forward = { deny = { 'x' } }", 'forward.deny[1]: expected an address or range such as "10.0.0.0/8", "::1", "unix", got "x"' },
    { site "forward = { parent = 5 }", 'forward.parent: expected "http://host:port" or { url =, auth = }, got 5' },
    { site "forward = { parent = 'proxy:3128' }", 'forward.parent: expected a URL such as "http://proxy.example:3128", without user, path and query' },
    { site "forward = { parent = 'http://u:p@proxy:3128' }", 'forward.parent: expected a URL such as "http://proxy.example:3128", without user, path and query' },
    { site "forward = { parent = { url = 'https://proxy', auth = 'user' } }", 'forward.parent: expected auth such as "user:password"' },
    { site "forward = { parent = { url = 'https://proxy', auth = 'a:b\\n' } }", "forward.parent: auth has a control byte in it" },
    { site "egress = true", 'egress: expected a table such as { allow = { "10.1.0.0/16" } }, got true' },
    { site "egress = { ports = { 80 } }", "egress.ports: this setting belongs to `forward`" },
    { "return { sites = { { listen = 80, forward = true }, { listen = 80, hosts = 'a', forward = true } } }",
      "sites[2].forward: sites[1] forwards what comes to [::]:80 already" },
  },
}

describe("a wrong setting", function()
  for group, cases in pairs(wrong) do
    for _, case in ipairs(cases) do
      it(("is told of, %s: %s"):format(group, case[1]), function()
        local _, errors, good = read(case[1])
        assert.equal("config.lua:1: " .. case[2] .. "\n", errors)
        assert.is_false(good)
      end)
    end
  end

  it("is told of with all others, in the order of the file", function()
    local _, errors = read [[
local site = {
  listen = "127.0.0.1:8080",
  backends = {
    app = { "127.0.0.1:9001", "80a" },
    ["my-app"] = {
      "a:1",
      { "b:1", weight = "x" },
    },
  },
  max_body = "lots",
}

site.timeouts = { idle = "1y" }

return {
  sites = { site },
  workers = 0,
  wrokers = 2,
}
]]
    assert.equal([[
config.lua:4: sites[1].backends.app[2]: expected "host:port", got "80a"
config.lua:7: sites[1].backends["my-app"][2].weight: expected a whole number from 1 to 1000, got "x"
config.lua:10: sites[1].max_body: expected a size such as 4096, "64K", "10M", "1G", or "none", got "lots"
config.lua:13: sites[1].timeouts.idle: expected a time such as 5, "500ms", "10s", "1m", got "1y"
config.lua:17: workers: expected a whole number from 1 to 64, got 0
config.lua:18: wrokers: unknown setting, did you mean "workers"?
]], errors)
  end)

  it("is shown without what a terminal would act on, and not at full length", function()
    local _, errors = read(site [[log = { level = "\27[2J" .. ("x"):rep(100) }]])
    assert.equal('config.lua:1: log.level: expected "error", "warn", "info" or "debug", got "\\x1b[2J' .. ("x"):rep(36) .. '…"\n', errors)
  end)

  it("leaves the others as they are meant", function()
    local config = read(site "workers = 0, max_body = '1M', timeouts = { head = 'x', idle = 7 }")
    assert.equal(1 << 20, config.sites[1].max_body)
    assert.equal(7, config.sites[1].timeouts.idle)
    assert.equal(10, config.sites[1].timeouts.head)
  end)
end)

describe("sites on one address", function()
  local function sites(...)
    local _, errors, good = read("return { sites = {\n" .. table.concat({ ... }, ",\n") .. "\n} }")
    return errors, good
  end

  it("cannot both be its default", function()
    assert.equal("config.lua:3: sites[2]: sites[1] is the default site of [::]:80 already: give one of them `hosts`\n",
      sites("{ listen = 80 }", "{ listen = { 81, '*:80' } }"))
  end)

  it("cannot have the same host", function()
    assert.equal('config.lua:3: sites[2].hosts[2]: "a.com" on [::]:80 is served by sites[1] already\n',
      sites("{ listen = 80, hosts = { 'a.com' } }", "{ listen = 80, hosts = { 'b.com', 'A.com.' } }"))
  end)

  it("agree in its options", function()
    local errors = sites("{ listen = { { 80, h2c = true } }, hosts = { 'a' } }", "{ listen = 80, hosts = { 'b' } }")
    assert.truthy(errors:find("config.lua:3: sites[2].listen: [::]:80 has another `h2c` at sites[1].listen[1]: "
      .. "sites on one address agree in its options\n", 1, true))
  end)

  it("may share it by their hosts", function()
    local errors, good = sites("{ listen = 80, hosts = { 'a.com', '*.a.com' } }", "{ listen = 80, hosts = { 'b.com' } }", "{ listen = 80 }")
    assert.equal("", errors)
    assert.is_true(good)
  end)

  it("may have the same host on different addresses", function()
    local errors = sites("{ listen = 80, hosts = { 'a.com' } }", "{ listen = 81, hosts = { 'a.com' } }")
    assert.equal("", errors)
  end)
end)

describe("a warning", function()
  local function warning(body)
    local _, errors, good = read(site(body))
    assert.is_true(good)
    return errors
  end

  it("says what fail = \"continue\" means", function()
    assert.equal("config.lua:1: warning: fail.on_request: when on_request fails, requests go on as if it had said nothing\n",
      warning "fail = { on_request = 'continue' }")
  end)

  it("says what raw_target lets pass", function()
    assert.equal('config.lua:1: warning: raw_target: paths are forwarded as they came: a check of req.path for "/admin" does not see "/%61dmin"\n',
      warning "raw_target = true")
  end)

  it("says what unsafe means", function()
    assert.equal("config.lua:1: warning: unsafe[1]: scripts may leave the sandbox, and block a worker\n", warning "unsafe = { 'io' }")
  end)

  it("says that all clients are trusted", function()
    assert.equal("config.lua:1: warning: trusted_proxies[2]: every client is believed when it says where a request comes from\n",
      warning "trusted_proxies = { '10.0.0.0/8', '0.0.0.0/0' }")
  end)

  it("says that the admin listener is open to others", function()
    assert.equal("config.lua:1: warning: admin: everybody who reaches 0.0.0.0:9901 can read the figures: better a local address\n",
      warning "admin = '0.0.0.0:9901'")
  end)
end)

describe("a config", function()
  local function good(text)
    local config, errors, fine = read(text)
    assert.equal("", errors)
    assert.is_true(fine)
    return config
  end

  it("has defaults for the open internet", function()
    local config = good 'return { listen = 8080, backends = { app = { "127.0.0.1:9001" } } }'
    local only = config.sites[1]
    assert.same({ head = 10, body = 30, idle = 75, connect = 5, first_byte = 60, between = 60, total = 0 }, only.timeouts)
    assert.equal(64 << 20, only.max_body)
    assert.equal(32768, only.max_headers)
    assert.equal(8192, only.max_target)
    assert.equal(60, config.drain)
    assert.equal(0, config.workers)
    assert.equal(32 << 20, config.memory)
    assert.equal(0.01, config.hook_cpu)
    assert.same({ level = 2, access_format = 0 }, config.log)
    local app = only.backends.app
    assert.equal(128, app.keepalive)
    assert.equal(60, app.keepalive_idle)
    assert.equal(3, app.tries)
    assert.equal(1 << 1, app.retry_on)
    assert.same({}, app.retry_statuses)
    assert.equal(0, app.connect)
    assert.is_nil(app.health.path)
  end)

  it("may be one site with the top settings beside its own", function()
    local config = good [[return { listen = 8080, workers = 2, admin = "127.0.0.1:9901", log = { access = "a.log", access_format = "json" }, user = "www" }]]
    assert.equal(0, config.sites[1].index)
    assert.equal("", config.sites[1].path)
    assert.equal("[::]:8080", config.sites[1].name)
    assert.equal(2, config.workers)
    assert.equal("127.0.0.1:9901", config.admin)
    assert.equal("a.log", config.log.access)
    assert.equal(1, config.log.access_format)
    assert.equal("www", config.user)
  end)

  it("may have nothing but an admin listener", function()
    local config = good [[return { admin = "unix:/run/m.sock" }]]
    assert.same({}, config.sites)
    assert.equal("unix:/run/m.sock", config.admin)
  end)

  it("takes listeners in every form", function()
    local config = good [[return { sites = {
      { listen = "127.0.0.1:8080", hosts = { "A.example" } },
      { listen = { 8081, "unix:/run/m.sock", "[::1]:8082", { "0.0.0.0:8083", tls = false, h2c = false }, { "127.0.0.1:8080" } }, hosts = "b.example." },
      { listen = { "*:8084", proxy_protocol = false } },
    } }]]
    assert.same({ "127.0.0.1:8080", "[::]:8081", "unix:/run/m.sock", "[::1]:8082", "0.0.0.0:8083", "[::]:8084" }, config.listeners)
    assert.same({ "[::]:8081", "unix:/run/m.sock", "[::1]:8082", "0.0.0.0:8083", "127.0.0.1:8080" }, config.sites[2].listeners)
    assert.same({ "a.example" }, config.sites[1].hosts)
    assert.same({ "b.example" }, config.sites[2].hosts)
    assert.equal("b.example", config.sites[2].name)
    assert.equal("[::]:8084", config.sites[3].name)
    assert.equal(3, config.sites[3].index)
    assert.equal("sites[3]", config.sites[3].path)
    assert.equal(4, config.sites[3].line)
  end)

  it("takes servers in every form", function()
    local config = good(backend [["127.0.0.1:9001", "[::1]:9002", "unix:/run/a.sock", "db-1.example.com:80", { "127.0.0.1:9003", name = "b", weight = 7 }]])
    assert.same({
      { name = "127.0.0.1:9001", addr = "127.0.0.1:9001", port = 9001, weight = 1 },
      { name = "[::1]:9002", addr = "[::1]:9002", port = 9002, weight = 1 },
      { name = "unix:/run/a.sock", addr = "unix:/run/a.sock", port = 0, weight = 1 },
      { name = "db-1.example.com:80", host = "db-1.example.com", addr = "", port = 80, weight = 1 },
      { name = "b", addr = "127.0.0.1:9003", port = 9003, weight = 7 },
    }, config.sites[1].backends.app.servers)
  end)

  it("takes all settings of a backend", function()
    local app = good(backend [["a:1", balance = "least_conn", max_connections = 9, keepalive = { max = 3, idle = "5m" },
      retry = { tries = 5, on = { "connect", "reset", "timeout", "5xx", 429, 503 } },
      timeouts = { connect = "100ms", first_byte = 2.5, between = "1h" }, tls = false, queue = { max = 7, timeout = "250ms" },
      health = { path = "/up", host = "h", interval = 1, timeout = "250ms", rise = 1, fall = 9, status = { 200, 204 } }]]).sites[1].backends.app
    assert.equal(1, app.balance)
    assert.equal(9, app.max_connections)
    assert.same({ 7, 0.25 }, { app.queue, app.queue_timeout })
    assert.equal(3, app.keepalive)
    assert.equal(300, app.keepalive_idle)
    assert.equal(5, app.tries)
    assert.equal(1 << 1 | 1 << 2 | 1 << 3 | 1 << 8, app.retry_on)
    assert.same({ 429, 503 }, app.retry_statuses)
    assert.same({ 0.1, 2.5, 3600 }, { app.connect, app.first_byte, app.between })
    assert.same({ path = "/up", host = "h", interval = 1, timeout = 0.25, rise = 1, fall = 9, status_low = 200, status_high = 204 }, app.health)
  end)

  it("takes short forms of a backend's settings", function()
    local app = good(backend [["a:1", keepalive = 0, retry = { on = "reset" }, health = { path = "/", status = "2xx" }]]).sites[1].backends.app
    assert.equal(0, app.keepalive)
    assert.equal(0, app.queue)
    assert.equal(1 << 2, app.retry_on)
    assert.same({ 200, 299 }, { app.health.status_low, app.health.status_high })
    app = good(backend [["a:1", retry = { on = {} }, health = { path = "/", status = 204 }]]).sites[1].backends.app
    assert.equal(0, app.retry_on)
    assert.same({ 204, 204 }, { app.health.status_low, app.health.status_high })
  end)

  for text, bytes in pairs { ["1"] = 1, ["'512'"] = 512, ["'64K'"] = 65536, ["'10M'"] = 10485760, ["'2G'"] = 2 << 30, ["4096.0"] = 4096, ["0"] = -1, ["'0'"] = -1, ["'none'"] = -1 } do
    it(("reads the size %s"):format(text), function()
      assert.equal(bytes, good(site("max_body = " .. text)).sites[1].max_body)
    end)
  end

  for text, seconds in pairs { ["0"] = 0, ["1.5"] = 1.5, ["'500ms'"] = 0.5, ["'0.5s'"] = 0.5, ["'10s'"] = 10, ["'2m'"] = 120, ["'1h'"] = 3600 } do
    it(("reads the time %s"):format(text), function()
      assert.is_near(seconds, good(site("timeouts = { idle = " .. text .. " }")).sites[1].timeouts.idle, 1e-9)
    end)
  end

  it("may have hooks, policies and the settings of a site", function()
    local only = good [[return { listen = 1, on_request = function() end, pick_backend = "app", on_load = function() end, use = { { on_log = function() end } },
      max_headers = "16K", max_target = 512, buffer_body = true, abort_on_fin = true, trusted_proxies = { "10.0.0.0/8", "::1", "unix" },
      backends = { app = { "a:1" } }, forward = false, tls = false }]].sites[1]
    assert.equal(16384, only.max_headers)
    assert.equal(512, only.max_target)
    assert.is_true(only.buffer_body)
    assert.is_true(only.abort_on_fin)
    assert.is_false(only.raw_target)
    assert.equal(3, only.trusted)
  end)
end)

describe("a Host", function()
  local config = { sites = {
    { listen = { 80, 81 }, hosts = { "a.example", "*.a.example" }, backends = { one = { "h:1" } } },
    { listen = 80, hosts = { "*.b.a.example", "b.example", "[::1]" }, backends = { one = { "h:1" }, default = { "h:2" } } },
    { listen = 80, backends = { one = { "h:1" }, two = { "h:2" } } },
  } }

  local function leads(listener, host)
    return (server.route(config, listener, host))
  end

  it("leads to the site that has it", function()
    assert.equal("a.example", leads(1, "a.example"))
    assert.equal("*.b.a.example", leads(1, "b.example"))
    assert.equal("*.b.a.example", leads(1, "[::1]"))
    assert.equal("a.example", leads(1, "a.example."))
  end)

  it("leads to the longest wildcard that fits", function()
    assert.equal("a.example", leads(1, "x.a.example"))
    assert.equal("a.example", leads(1, "x.y.a.example"))
    assert.equal("a.example", leads(1, "b.a.example"))
    assert.equal("*.b.a.example", leads(1, "x.b.a.example"))
    assert.equal("*.b.a.example", leads(1, "x.y.b.a.example"))
  end)

  it("leads to the default site, or nowhere", function()
    for _, host in ipairs { "", "c.example", "xa.example", ".a.example", "example", "a.example.com", "." } do
      assert.equal("[::]:80", leads(1, host))
      assert.is_nil(leads(2, host))
    end
  end)

  it("finds limits and backends without being named", function()
    assert.same({ "a.example", "[::]:80", "one" }, { server.route(config, 1, "a.example") })
    assert.same({ "*.b.a.example", "[::]:80", "default" }, { server.route(config, 1, "b.example") })
    assert.same({ "[::]:80", "[::]:80" }, { server.route(config, 1, "c.example") })
    assert.same({ "a.example", "a.example", "one" }, { server.route(config, 2, "a.example") })
  end)
end)

describe("the line of a setting", function()
  local function lines(text, expected)
    for path, line in pairs(expected) do assert.equal(line, server.line(text, path), path) end
  end

  it("is found in nested constructors", function()
    lines([[
return {
  sites = {
    {
      listen = 1, hosts = { "a",
        "b" },
      backends = { app = {
        "a:1",
        { "b:1",
          weight = 2 },
      } },
    },
    { listen = 2 },
  },
}]], {
      [""] = 1, ["sites"] = 2, ["sites[1]"] = 3, ["sites[1].listen"] = 4, ["sites[1].hosts[1]"] = 4, ["sites[1].hosts[2]"] = 5,
      ["sites[1].backends.app"] = 6, ["sites[1].backends.app[1]"] = 7, ["sites[1].backends.app[2].weight"] = 9, ["sites[2]"] = 12,
      ["sites[2].listen"] = 12, ["sites[2].hosts"] = 12, ["sites[9]"] = 2,
    })
  end)

  it("is found through names and assignments", function()
    lines([[
local app = { "a:1",
  "b:1" }
local site = { listen = 1 }
site.backends = { app = app,
  ["my-app"] = { "c:1" } }
site.timeouts = {}
site.timeouts.idle = 5
function site.on_request(req) return { x = 1 } end
site["max_body"] = 3
return site]], {
      ["listen"] = 3, ["backends.app"] = 1, ["backends.app[2]"] = 2, ['backends["my-app"][1]'] = 5, ["timeouts.idle"] = 7,
      ["on_request"] = 8, ["max_body"] = 9, ["workers"] = 3,
    })
  end)

  it("tells two sites of the same shape apart", function()
    lines([[
local a = { backends = { app = { "a:1" } } }
local b = { backends = { app = {
  "a:1" } } }
return { sites = { a, b } }]], { ["sites[1].backends.app[1]"] = 1, ["sites[2].backends.app[1]"] = 3 })
  end)

  it("is found in a file that returns nothing", function()
    lines("listen = 8080\nbackends = {\n  app = { 'a:1' },\n}\nfunction on_request() end\n",
      { ["listen"] = 1, ["backends.app"] = 3, ["on_request"] = 5, ["workers"] = 0 })
  end)

  it("is not confused by comments, strings and functions", function()
    lines([==[
#!/usr/bin/env moongate
-- return { listen = 1 }
--[[ return {
  listen = 2 } ]]
local text = [=[ return { listen = 3 ]] ]=]
local other = "return { \" listen = 4"
local function helper(x)
  if x then return { listen = 5 } end
  for i = 1, 2 do while x do repeat x = nil until not x end end
  return function() return { listen = 6 } end
end
return {
  on_request = function(req)
    if req then local t = { listen = 7 } end
    return { listen = 8 }
  end,
  pick = helper(function() return {} end) == nil,
  listen = 18,
}]==], { ["listen"] = 18, ["on_request"] = 13 })
  end)

  it("is, for what a function makes, where the function says it", function()
    lines([[
local function make(port)
  return {
    listen = port,
    backends = { app = { "a:1" } },
  }
end
return { sites = { make(1), make(2) } }]], { ["sites[2].backends.app[1]"] = 4, ["sites[2].listen"] = 3, ["sites[2]"] = 7 })
  end)

  it("is found in the argument of a call", function()
    lines("return with_defaults {\n  listen = 1,\n}", { ["listen"] = 2 })
    lines("local s = with({\n  listen = 1,\n})\nreturn s", { ["listen"] = 2 })
  end)

  it("never takes long, whatever the source", function()
    for _, text in ipairs { ("{"):rep(10000), ("return {a="):rep(5000), ("function "):rep(10000), "x = [[", "--[[", '"', "a.b.c.", "a[", ("a.b={"):rep(3000), "return" } do
      server.line(text, "a.b[1]")
    end
  end)
end)
