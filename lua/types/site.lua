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
---@field on_request? fun(req: moongate.Request): moongate.Reply|integer|nil once, when the head is in
---the parts of the key, of which nil is one; nothing: the target; false: bypass
---@field cache_key? fun(req: moongate.Request): ...
---when a fetch needs a server; `false` on re-asking: deliver what there is
---@field pick_backend? moongate.Pick|fun(req: moongate.Request, last: moongate.LastTry?): moongate.PickAnswer
---once, on the final answer; a reply replaces it
---@field on_response? fun(req: moongate.Request, res: moongate.Response): moongate.Reply|integer|nil
---in a TLS handshake: the name of one of the config's certificates, or PEM; nothing: as configured
---@field on_certificate? fun(name: string?): string|moongate.CertificateText|nil
---@field on_log? fun(req: moongate.Request, res: moongate.Response) after the answer
---the core is about to answer by itself
---@field on_error? fun(req: moongate.Request, err: moongate.ErrorInfo): moongate.Reply|integer|nil
---@field on_load? fun(state: any) once per worker; `state` is what on_unload of the former generation gave
---@field on_unload? fun(): any plain data for the next generation

---"backend", "backend/server", or a list of these tried in order.
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

---A site: its settings are described in the manual, chapter "Settings"; unknown ones are errors.
---
---```lua
---return {
---  listen = "127.0.0.1:8080",
---  backends = { app = { "127.0.0.1:9001", "127.0.0.1:9002" } },
---  on_response = function(req, res) res.headers["Server"] = nil end,
---}
---```
---@class moongate.Site : moongate.Policy
---"127.0.0.1:8080", 8080 (all addresses), "unix:/run/m.sock", or a list of these and of tables { address,
---tls = true }
---@field listen string|integer|table
---@field hosts? string|string[] "example.com", "*.example.com"; none: the default site of its listeners
---certificates for its names: { cert = file, key = file }, or a list of these
---@field tls? table
---lists of servers "host:port", "unix:…", { "host:port", name =, weight = }, and settings beside them
---@field backends? table<string, table>
---@field use? moongate.Policy[] policies that stand before and after the site's own hooks
---@field cache? { memory?: moongate.Bytes }
---compress answers: true, or what is not as usual; the manual tells
---@field compress? boolean|{ types?: string[], min?: moongate.Bytes, codings?: string[], level?: integer }
---@field trusted_proxies? string|string[] CIDRs whose X-Forwarded-* are believed
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

---Where logs go.
---@class moongate.Log
---@field access? string a file, "stderr" or "syslog"; off unless set
---@field access_format? "combined"|"json"
---@field error? string a file; default stderr
---@field level? "error"|"warn"|"info"|"debug" default info

---What a config file may return in place of a single site.
---@class moongate.Config
---@field sites moongate.Site[]
---@field workers? integer
---@field admin? string|integer listener of /metrics and /status
---@field log? moongate.Log
---@field user? string
---@field max_connections? integer
---@field drain? moongate.Seconds
---@field egress? moongate.Egress rules for gate.fetch of URLs and gate.socket; none: everywhere
---@field unsafe? string[]
---@field lua? { memory?: moongate.Bytes, hook_cpu?: moongate.Seconds, load_cpu?: moongate.Seconds }
local Config = {}
