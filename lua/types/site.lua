---@meta moongate.site
-- luacheck: no unused

-- What a config file returns: sites, their settings, and policies.

---A hook returns its decision; nothing returned means: carry on as configured. Wherever a reply may be returned, so
---may a bare status. All but on_unload may wait. A constant that a hook may return may stand in its place:
---`pick_backend = "stable"`.
---
---```lua
---local policy = {}
---function policy.on_request(req)
---  if req.method == "TRACE" then return 405 end
---end
---return policy
---```
---@class moongate.Policy
---once for a connection, before TLS and before anything is read; false: it is closed without a word. On a listener of
---several sites each is asked, until one says false
---@field on_connect? fun(client: moongate.Arrival): false?
---@field on_request? fun(req: moongate.Request): moongate.Reply|integer|nil once, when the head is in
---the parts of the key, of which nil is one; nothing: the target; false: bypass
---@field cache_key? fun(req: moongate.Request): ...
---when a fetch needs a server; `false` on re-asking: deliver what there is
---@field pick_backend? moongate.Pick|fun(req: moongate.Request, last: moongate.LastTry?): moongate.PickAnswer
---when a site caches and a backend has answered, before that is stored or not: `res.cache` says what is to become of
---it, what is changed here is stored. The answer to a request that the cache is not asked for never comes here
---@field on_store? fun(req: moongate.Request, res: moongate.Response)
---once, on the final answer; a reply replaces it
---@field on_response? fun(req: moongate.Request, res: moongate.Response): moongate.Reply|integer|nil
---in a TLS handshake: the name of one of the config's certificates, or PEM; nothing: as configured
---@field on_certificate? fun(name: string?): string|moongate.CertificateText|nil
---@field on_log? fun(req: moongate.Request, res: moongate.Response) after the answer
---the core is about to answer by itself
---@field on_error? fun(req: moongate.Request, err: moongate.ErrorInfo): moongate.Reply|integer|nil
---@field on_load? fun(state: any) once per worker; `state` is what on_unload of the former generation gave
---@field on_unload? fun(): any plain data for the next generation

---"backend", "backend/server" (by its name, or by an address that its name resolves to now), or a list of these tried
---in order.
---@alias moongate.Pick string|moongate.PickList
---@alias moongate.PickAnswer moongate.Pick|moongate.Reply|integer|false|nil

---@class moongate.PickList
---@field [integer] string "backend" or "backend/server"
---@field tries? integer at most so many servers
---what makes the next one be tried; integers are statuses
---@field retry_on? ("connect"|"reset"|"timeout"|"5xx"|integer)[]
---@field timeout? moongate.Seconds for the first byte of each

---A certificate as on_certificate may return it.
---@class moongate.CertificateText
---@field cert string PEM: the certificate, then its chain
---@field key? string PEM; nil: it stands in `cert`

---The try that failed.
---@class moongate.LastTry
---@field backend string
---@field server string?
---@field status integer? nil if there was no response
---@field error string? the failure's word
---@field tries integer

---Why the core answers by itself.
---@class moongate.ErrorInfo
---@field status integer
---@field word string
---@field sentence string
---@field hook string? the hook that failed

---A site: settings and hooks. What each setting means the manual tells, chapter "Settings"; unknown ones are errors.
---
---```lua
---return {
---  listen = "127.0.0.1:8080",
---  backends = { app = { "127.0.0.1:9001", "127.0.0.1:9002" } },
---  on_response = function(req, res) res.headers["Server"] = nil end,
---}
---```
---@class moongate.Site : moongate.Policy
---"127.0.0.1:8080", 8080 (all addresses), "unix:/run/m.sock", a table with options, or a list of these
---@field listen string|integer|moongate.Listener|(string|integer|moongate.Listener)[]
---@field hosts? string|string[] "example.com", "*.example.com"; none: the default site of its listeners
---@field tls? moongate.Certificate|moongate.Certificate[] for its names
---@field backends? table<string, moongate.BackendSettings>
---@field use? moongate.Policy[] policies that stand before and after the site's own hooks
---@field cache? moongate.CacheSettings keep answers, and use them again (RFC 9111)
---@field compress? boolean|moongate.CompressSettings compress answers: true, or what is not as usual
---@field trusted_proxies? string|string[] ranges such as "10.0.0.0/8", whose X-Forwarded-* are believed
---@field forward? boolean|moongate.Forward be a forward proxy: requests that name their own target go there
---@field max_body? moongate.Bytes|"none" default 64M
---@field max_headers? moongate.Bytes default 32K
---@field max_target? moongate.Bytes default 8K
---@field buffer_body? boolean the whole request body is awaited before the fetch
---@field raw_target? boolean paths are forwarded as they came
---@field abort_on_fin? boolean a client that has finished sending has left
---@field timeouts? moongate.Timeouts
---@field fail? table<string, "continue"> hooks whose failure does not stop the request
local Site = {}

---A listener with options; the address stands first.
---
---```lua
---listen = { { "0.0.0.0:443", tls = true }, { "127.0.0.1:8080", h2c = true } }
---```
---@class moongate.Listener
---@field [1] string|integer
---true: its sites have the certificates; "internal": one for development, signed by itself
---@field tls? boolean|"internal"|moongate.ListenerTls
---@field h2c? boolean HTTP/2 without TLS, too
---clients begin with a PROXY header; true: whose address is not public; ranges: who comes from there
---@field proxy_protocol? boolean|string|string[]

---A certificate. Files are relative to the config.
---@class moongate.Certificate
---@field cert string PEM: the certificate, then its chain
---@field key? string PEM; default: it stands in `cert`
---@field ocsp? string DER: an answer that is stapled

---TLS of a listener, with a certificate or a list of them.
---@class moongate.ListenerTls
---@field [integer] moongate.Certificate
---@field cert? string PEM: the certificate, then its chain
---@field key? string PEM; default: it stands in `cert`
---@field ocsp? string DER: an answer that is stapled
---@field profile? "intermediate"|"modern" TLS 1.2 and 1.3 (default), or 1.3 alone
---@field client_ca? string PEM: who may have signed clients' certificates
---@field client_verify? "require"|"request" default "require"
---@field crl? string PEM: lists of revoked client certificates
---requests may come with the first bytes of a resumed TLS 1.3 session; only safe ones are taken
---@field early_data? boolean
---@field ktls? boolean the kernel encrypts what clients get, if it has TLS; not with `early_data`

---Rules for the addresses that may be connected to: all public ones, and what stands here. The narrowest range that
---holds an address decides.
---@class moongate.Egress
---@field private? boolean all addresses
---@field allow? string|string[] ranges: "10.1.0.0/16", "::1", "unix"
---@field deny? string|string[] ranges

---@class moongate.Forward : moongate.Egress
---@field ports? integer|string|(integer|string)[] 443, "8000-8999"; default 80 and 443, for CONNECT 443
---@field parent? string|moongate.Parent

---Another proxy, that is asked in turn.
---@class moongate.Parent
---@field url string "http://proxy.example:3128"
---@field auth? string "user:password"

---How long each thing may take; 0: for ever.
---@class moongate.Timeouts
---@field head? moongate.Seconds a request's head, from its first byte; 10
---@field body? moongate.Seconds between two pieces of a request's body; 30
---@field idle? moongate.Seconds a connection between two requests; 75
---@field connect? moongate.Seconds to a server; 5
---@field first_byte? moongate.Seconds from the request to the answer's head; 60
---@field between? moongate.Seconds between two pieces of an answer's body, either side; 60
---@field tunnel? moongate.Seconds in which neither side of a tunnel moved a byte; 1 h
---@field total? moongate.Seconds the whole exchange; for ever

---Answers are kept in memory, shared by all workers, and stay over reloads.
---@class moongate.CacheSettings
---@field memory? moongate.Bytes how much it may take, all included; without it nothing is cached
---@field max_object? moongate.Bytes the longest body that is kept; an eighth of the memory
---@field name? string in Cache-Status; "moongate"
---@field pass? moongate.Seconds for how long it is remembered that an answer is not for others; 2 min
---for how long answers from 400 without freshness of their own are fresh, all or by status
---@field negative? moongate.Seconds|table<integer, moongate.Seconds>
---@field stale? moongate.Seconds for how long what is no more fresh still answers, while it is asked for anew; 0
---for how long it answers when the backend fails; an hour, when none can be reached
---@field stale_if_error? moongate.Seconds
---@field purge? string|string[] addresses and ranges whose PURGE requests are obeyed; nobody's
---@field disk? moongate.CacheDiskSettings a second place, slower and larger, that lasts over restarts; none

---@class moongate.CacheDiskSettings
---@field path string an absolute directory, writable by `user`, for this site alone
---@field size moongate.Bytes all that its files take

---@class moongate.CompressSettings
---@field types? string|string[] media types such as "text/html" or "text/*", in place of the usual ones
---@field min? moongate.Bytes shorter ones are left alone; 1K
---@field codings? string|string[] of "zstd", "br", "gzip" and "deflate", the preferred first
---@field level? integer 1 (fast) to 9 (small); 4

---A backend: a list of servers, "host:port", "unix:/run/app.sock" or a table, with settings beside them.
---
---```lua
---app = { "10.0.0.1:3000", { "10.0.0.2:3000", weight = 2 }, balance = "least_conn", health = { path = "/healthz" } }
---```
---@class moongate.BackendSettings
---@field [integer] string|moongate.ServerSettings
---@field balance? "round_robin"|"least_conn" default "round_robin"
---@field health? moongate.HealthSettings active checks; none unless given
---@field h2? boolean HTTP/2 to its servers
---@field keepalive? integer|moongate.KeepaliveSettings idle connections kept for each server, in each worker; 128
---@field retry? moongate.RetrySettings
---@field timeouts? moongate.BackendTimeouts
---@field max_connections? integer requests under way at each server, over all workers; 0: no limit
---@field queue? integer|moongate.QueueSettings how many may wait for a place at a server; 0
---@field tls? boolean|moongate.TlsOptions TLS to its servers; true: verified with the system's roots
---@field proxy_protocol? 0|1|2 the version of the PROXY header that connections begin with; 0: none
---@field parent? string|moongate.Parent another proxy, through which its servers are reached

---@class moongate.ServerSettings
---@field [1] string "host:port" or "unix:…"
---@field name? string for "backend/server"; default the address
---@field weight? integer 1 to 1000; 1

---@class moongate.HealthSettings
---@field path string what is asked for
---@field host? string the Host of the check; default the address
---@field interval? moongate.Seconds between checks; 5
---@field timeout? moongate.Seconds of one; 2
---@field rise? integer good answers in a row after which a server is used again; 2
---@field fall? integer bad ones after which it is not; 3
---@field status? integer|string|integer[] what is good: 200, "2xx", { 200, 399 } (default)

---@class moongate.KeepaliveSettings
---@field max? integer idle connections kept; 128
---@field idle? moongate.Seconds how long one is kept; 60

---@class moongate.QueueSettings
---@field max? integer that wait at once, over all workers; 1000
---@field timeout? moongate.Seconds how long one may wait; 5

---@class moongate.RetrySettings
---@field tries? integer servers asked for one request at most; 3
---what another server is asked after; default "connect"
---@field on? ("connect"|"reset"|"timeout"|"5xx"|integer)|("connect"|"reset"|"timeout"|"5xx"|integer)[]

---@class moongate.BackendTimeouts
---@field connect? moongate.Seconds default the site's, as below
---@field first_byte? moongate.Seconds
---@field between? moongate.Seconds

---Where logs go.
---@class moongate.Log
---@field access? string a file, "stderr" or "syslog"; off unless set
---@field access_format? "combined"|"json"
---@field error? string a file; default stderr
---@field level? "error"|"warn"|"info"|"debug" default info

---What scripts may use.
---@class moongate.ScriptLimits
---@field memory? moongate.Bytes of each worker's scripts; 32M
---@field hook_memory? moongate.Bytes that one call of a hook may add; all of it
---@field hook_cpu? moongate.Seconds of CPU for one hook, waits not counted; 0.01
---@field hook_time? moongate.Seconds a hook may last, waits included; 60
---@field load_cpu? moongate.Seconds of CPU to load the file; 1

---What a config file may return in place of a single site.
---@class moongate.Config
---@field sites moongate.Site[]
---@field workers? integer threads that serve; default the CPUs
---@field admin? string|integer listener of /metrics and /status
---@field log? moongate.Log
---@field user? string whom the serving process becomes when root started it; nobody
---@field max_connections? integer of clients, over all workers; 0: no limit
---@field drain? moongate.Seconds how long a reload or a stop waits for what is under way; 60
---@field unsafe? string|string[] what the sandbox lets through: "io", "os", "debug", "package", "bytecode"
---@field lua? moongate.ScriptLimits
---@field egress? moongate.Egress rules for gate.fetch of URLs and gate.socket; none: everywhere
local Config = {}
