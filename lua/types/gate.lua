---@meta moongate
-- luacheck: no unused

-- What `require "moongate"` gives, as editors and the manual see it; core/lua makes it. spec/lua/api_spec.lua holds
-- these files against what the core registers, both ways.
--
-- Two kinds of failure, everywhere: a script's mistake raises; what the world does (peers, network, limits) comes back
-- as `nil, word, sentence`: the word to test for, the sentence to log. Functions marked "waits" suspend the hook, and
-- nobody else; they raise where a wait is impossible (while the file is loaded, inside table.sort).

---@class moongate
local gate = {}

---The version of this Moongate, such as "0.1.0".
---@type string
gate.version = ""

---@alias moongate.Seconds number|string seconds, or text with a unit: "500ms", "10s", "1m", "1h"
---@alias moongate.Bytes integer|string bytes, or text with a unit: "64K", "16M", "1G"
---Field names to values; a list makes several lines.
---@alias moongate.HeaderTable table<string, string|number|(string|number)[]>

---A reply: an answer as a value. It may be made once, kept, and returned from any hook any number of times. A bare
---status may be returned in its place.
---@class moongate.Reply
---@field status integer
---@field body string?
---@field headers moongate.Headers a copy
local Reply = {}

---Makes a reply. A body without a Content-Type is sent as `text/plain; charset=utf-8`.
---
---Raises for a status that is not 200 to 599, a body that is not a string or whose status has none (204, 205, 304),
---headers whose names are no tokens, whose values hold line breaks or control characters, or which are the core's own
---(Content-Length, Transfer-Encoding, Connection, Upgrade, TE, Trailer, Keep-Alive, Proxy-Connection).
---
---```lua
---return gate.reply(429, "slow down\n", { ["Retry-After"] = 30 })
---```
---@param status integer 200 to 599
---@param body? string|moongate.Body of an answer that gate.fetch streams: it flows on to the client, once
---@param headers? moongate.HeaderTable|moongate.Headers those of a message go without what its connection needs
---@return moongate.Reply
function gate.reply(status, body, headers) end

---Makes a reply that sends the client elsewhere. Raises for a URL that has more than visible ASCII in it, or a status
---that is no redirect.
---
---```lua
---if req.scheme == "http" then return gate.redirect("https://" .. req.host .. req.target, 308) end
---```
---@param url string absolute, or a path of this host
---@param status? integer 301, 302 (default), 303, 307 or 308
---@return moongate.Reply
function gate.redirect(url, status) end

---@class moongate.FetchOptions
---@field method? string default GET, with a body POST
---@field path? string begins with "/", may have a query; default "/". Not for a URL, which has it
---@field query? string added to the query, as it is but for what cannot stand there
---@field args? table<string, string|number|(string|number)[]> added to the query, encoded
---@field headers? moongate.HeaderTable|moongate.Headers default Host: the URL's, or the backend's first server
---a string; a function that gives one piece after the other and nil at the end (it may wait); or a body, which is read
---as the server takes it: req.body (which is then not forwarded), or that of an answer that is streamed
---@field body? string|fun(): string?|moongate.Body
---for all of it, and never more than what is left of the exchange's `timeouts.total`; default 10, of a streamed answer
---until its head
---@field timeout? moongate.Seconds
---@field max? moongate.Bytes of the answer's body, when it is not streamed; default 8M
---@field stream? boolean the answer comes when its head is there, and its body flows
---@field redirects? integer how many may be followed, 0 (default) to 20
---@field tls? moongate.Tls|moongate.TlsOptions for an https URL: whom to trust; default the system's roots

---The whole answer to gate.fetch.
---@class moongate.Fetched
---@field status integer
---@field headers moongate.Headers read-only; they outlive the exchange
---@field body string "" if there is none; without the content coding it came with
---@field trailers moongate.Headers? those behind a chunked body; read-only
---@field time number seconds from the call to the last byte

---An answer to gate.fetch with `stream = true`, as soon as its head is there. It is closed, and with it the server's
---connection, by `close`, by `<close>`, by the end of the hook or task that fetched it, or when it is collected, unless
---its body was made that of a reply.
---@class moongate.FetchedStream
---@field status integer
---@field headers moongate.Headers read-only; they outlive the exchange
---@field body moongate.Body? nil if there is none
---@field trailers moongate.Headers? those behind a chunked body, once it has been read to its end; read-only
---@field time number seconds from the call to the head
local FetchedStream = {}

---Ends it. What was not read is not wanted any more.
---
---```lua
---local res <close> = gate.fetch("app", { path = "/events", stream = true })
---for piece in res.body:chunks() do if piece:find "ready" then res:close() break end end
---```
function FetchedStream:close() end

---Sends a request and gives its answer, whole or streamed. Waits. pick_backend is not asked; an answer of any status is
---an answer.
---
---With `redirects`, 301, 302, 303, 307 and 308 are followed: within a backend's host to the same backend, else by URL.
---Authorization, Proxy-Authorization and Cookie are not taken to another origin. 303, and 301 and 302 to a POST, make
---it a GET; 307 and 308 repeat a body that is a string. What cannot be followed is given as the answer.
---
---World failures: `connect_refused`, `connect_failed`, `connect_timeout`, `tls_failed`, `certificate`,
---`name_not_found`, `name_failed`, `no_server`, `busy`, `queue_timeout`, `stream_refused`, `reset`,
---`first_byte_timeout`, `between_timeout`, `total_timeout`, `bad_response`, `response_headers_too_large`, `truncated`,
---`too_large` (the body is longer than `max`), `overloaded` (the worker has too many fetches under way: 4096, or
---256 MiB), `bad_response_content`, `response_too_large`. Raises when a function that makes the body fails, and for
---unknown backends and options.
---
---```lua
---local res, word = gate.fetch("auth", { path = "/check", args = { user = name }, timeout = "200ms" })
---if not res then gate.log("warn", "auth:", word) end
---```
---@param target string|moongate.Backend a backend of the site, or a URL, "https://host[:port][/path][?query]"
---@param options? moongate.FetchOptions
---@return moongate.Fetched|moongate.FetchedStream? response
---@return string? word
---@return string? sentence
function gate.fetch(target, options) end

---What connections to a server trust. Nothing: the system's roots, and the server's own name.
---@class moongate.TlsOptions
---@field ca? string the only roots: a file, relative to the config (while it is loaded only), or PEM itself
---@field cert? string our own certificate with its chain, for servers that ask for one
---@field key? string its key; if it does not stand beside the certificate
---@field verify? boolean false: any certificate is taken
---@field pins? string|string[] "sha256/BASE64" of public keys, one of which the server's chain must have
---@field versions? string|string[] "1.2", "1.3"; both
---@field name? string what the certificate bears, also sent as SNI; the host's name

---@class moongate.Tls

---What connections to servers trust, made once: for the `tls` of gate.fetch and of sockets. Files are read while the
---config is loaded; in a hook `ca`, `cert` and `key` are PEM. Raises if they cannot be used.
---
---```lua
---local internal = gate.tls { ca = "internal.pem", name = "billing.internal" }
---local res = gate.fetch("https://10.0.0.7/invoices", { tls = internal })
---```
---@param options moongate.TlsOptions
---@return moongate.Tls
function gate.tls(options) end

---A server of a backend, as this moment saw it.
---@class moongate.Server
---@field name string its name in the config, default its address as written there
---@field address string numeric: "127.0.0.1:9001"
---@field healthy boolean neither failing its checks nor resting after failed connects
---@field active integer requests under way, of all workers
---@field weight integer

---A backend, by name; what it stands for is looked up at each use.
---@class moongate.Backend
---@field name string
---those this worker may choose from now (names that resolve to several addresses give several)
---@field servers moongate.Server[]
---@field waiting integer requests that wait for a place at one of them, of all workers (the setting `queue`)
local Backend = {}

---The backend of that name of the site; outside of a site's hooks, the only one of that name. Raises if there is
---none. While the file is loaded it is not looked up yet.
---
---```lua
---for _, server in ipairs(gate.backend("app").servers) do
---  if server.healthy then healthy = healthy + 1 end
---end
---```
---@param name string
---@return moongate.Backend
function gate.backend(name) end

---Writes a line to the error log, with the place in the script and the id of the request. With one argument the level
---is "info"; with more, the first is the level and the others are joined with spaces. At most 8 KiB; control
---characters are shown as "?".
---
---```lua
---gate.log "loaded"
---gate.log("warn", "no user for key", key)
---```
---@param level "error"|"warn"|"info"|"debug"
---@param ... any
---@overload fun(value: any)
function gate.log(level, ...) end

---A number that is the same for the same value in every process, worker and version: a 63-bit hash (XXH64), so `%
---100` gives 0 to 99. nil hashes as "", a number as its text (1 and 1.0 are one). Not for secrets. Raises for tables,
---functions and userdata.
---
---```lua
---if gate.hash(req.cookies.user) % 100 < 5 then return "canary" end
---```
---@param value string|number|boolean|nil
---@return integer
function gate.hash(value) end

---Are two strings equal? Takes as long whatever differs, so that a secret cannot be found out byte by byte; its
---length can. nil equals nothing. Raises for more than 1 MiB.
---
---```lua
---if not gate.equal(req.headers["X-Token"], token) then return 403 end
---```
---@param a string?
---@param b string?
---@return boolean
function gate.equal(a, b) end

---@class moongate.Base64
gate.base64 = {}

---RFC 4648 base64 with padding. At most 4 MiB.
---
---```lua
---req.headers["Authorization"] = "Basic " .. gate.base64.encode(user .. ":" .. password)
---```
---@param bytes string
---@return string
function gate.base64.encode(bytes) end

---Decodes strictly: padding is demanded, white space and stray bits are refused. World failure: `bad_base64`.
---
---```lua
---local credentials = gate.base64.decode(field:sub(7))
---if not credentials then return 400 end
---```
---@param text string at most 4 MiB
---@return string? bytes
---@return string? word
---@return string? sentence
function gate.base64.decode(text) end

---Unix time in seconds, with fraction.
---
---```lua
---if gate.now() > expires then return 410 end
---```
---@return number
function gate.now() end

---Seconds of a clock that never goes back, for durations.
---
---```lua
---local began = gate.clock()
---```
---@return number
function gate.clock() end

---Waits, at most a day. 0 lets others go first.
---
---```lua
---gate.sleep(0.5)
---```
---@param seconds moongate.Seconds
function gate.sleep(seconds) end

---Runs functions, at most 64, side by side and waits for all; gives the first result of each. If one raises, the
---others are closed, and it raises on.
---
---```lua
---local user, cart = gate.all(function() return load_user(id) end, function() return load_cart(id) end)
---```
---@param ... fun(): any
---@return any ...
function gate.all(...) end

---Runs a function once the present hook has answered, apart from the request: `req` and `res` cannot be used in it. It
---is of the hook's site: backends are meant by name as in the hook. What it raises is logged. World failure:
---`overloaded`, there are 1000 under way in this worker.
---
---```lua
---gate.spawn(notify, req.id, res.status)
---```
---@param f fun(...)
---@param ... any
---@return true? spawned
---@return string? word
---@return string? sentence
function gate.spawn(f, ...) end

---@class moongate.EveryOptions
---@field each? "worker" run in every worker instead of once per instance

---Runs a function again and again; declared while the file is loaded, run from the moment its generation serves, and
---never twice at once: the next time is counted from the end of a run. A run that is under way at a reload goes on for
---at most `drain`, beside those of the new generation. What it raises is logged.
---
---```lua
---gate.every(10, function() refresh(gate.fetch("keys", { path = "/list" })) end)
---```
---@param seconds moongate.Seconds between the end of one run and the next
---@param f fun()
---@param options? moongate.EveryOptions
function gate.every(seconds, f, options) end

return gate
