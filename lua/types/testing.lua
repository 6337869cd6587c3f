---@meta moongate.testing
-- luacheck: no unused

-- `require "moongate.testing"`, the test kit: in busted or any lua5.4, not in policies. docs/testing.md is the guide.
-- What a test does wrong raises, and so does a request for which nothing is stubbed.

---@class moongate.Testing
local testing = {}

---Loads a config, runs its on_load, and gives a kit that answers requests with it. One kit is open at a time: loading
---another ends it. Raises all errors of the config, each with file and line.
---
---`options`: `now`, Unix seconds at the beginning (default 1 January 2026); `seed` of randomness (1); `backends`,
---`stubs` and `names`, what is answered from the beginning, on_load included, as by `kit:backend`, `kit:stub`,
---`kit:resolve`.
---
---```lua
---local kit = testing.load "site.lua"
---local kit = testing.load({ text = policy }, { stubs = { ["http://config.test/*"] = "{}" } })
---```
---a path, or the text of a config, and the name it has in errors ("config.lua")
---@param file string|{ text: string, name: string? }
---@param options? { now: number?, seed: integer?, backends: table?, stubs: table?, names: table? }
---@return moongate.Kit
function testing.load(file, options) end

---What a stub answers: a body, a status, or a table.
---@class moongate.KitAnswer
---@field status integer? default 200
---@field headers moongate.HeaderTable?
---a list is sent in chunks; numbers in it are pauses, in seconds
---@field body string|(string|number)[]|nil
---@field trailers moongate.HeaderTable? behind a list
---@field delay number? seconds before the answer
---a failure instead, by its word: connect_refused, connect_failed, connect_timeout (of a whole backend or host);
---reset, first_byte_timeout, between_timeout, truncated, bad_response
---@field error string?
---@field raw string? these very bytes, then the end of the connection
local Answer = {}

---A request of a client. A path alone means a GET.
---@class moongate.KitRequest
---@field method string? default GET; with a body POST
---@field path string? the target, query included; default "/"
---@field host string? default the site's first host, else "localhost"
---@field headers moongate.HeaderTable?
---@field body string|string[]|nil a list is sent in chunks
---@field trailers moongate.HeaderTable? behind a list
---@field client { ip: string?, port: integer? }? default 127.0.0.1:40000
---@field site string? its name or a host of it; default the first site's listener, and what Host says
---@field listen string? the listener, as the config names it
---@field version string? "1.1" or "1.0"
---@field leave number? seconds after which the client breaks the connection
---@field raw string? these very bytes instead
local Request = {}

---What a stub got.
---@class moongate.KitGot
---@field method string?
---@field target string? as it was sent
---@field path string? of it
---@field query string? of it, without "?"
---@field host string? the Host field
---@field headers moongate.KitHeaders?
---@field trailers moongate.KitHeaders?
---@field body string?
---@field backend string? whose server it was
---@field url string? the whole URL, if a script fetched one
---@field server string its address
---@field at number when, in seconds of `kit:clock`
---@field status integer? what was answered
---@field error string? the failure that was answered; if the connection failed there is nothing but whom it was for
local Got = {}

---Header fields that were received. Names have no case; repeated lines are joined with ", " (of Set-Cookie: the first).
---`pairs` visits every line.
---@class moongate.KitHeaders
---@field [string] string?
local Headers = {}

---All lines of that name.
---
---```lua
---assert.same({ "a=1", "b=2" }, res.headers:all "Set-Cookie")
---```
---@param name string
---@return string[]
function Headers:all(name) end

---What one hook of one policy did.
---@class moongate.KitHook
---@field hook string "on_request", …
---@field policy string where it stands: "on_request", "sites[1].use[2].on_request"
---continue: it returned nothing; reply, pick, key, no (false), failed; cancelled: nobody waited for it any more
---@field verdict "continue"|"reply"|"pick"|"key"|"no"|"failed"|"cancelled"
---@field status integer? of a reply
---@field picked string? "canary, stable/127.0.0.1:9001"
---@field key table? its parts; `n` counts them, nils included
---@field error string? if it failed: with file, line and traceback
---@field time number seconds, waits included
---what is different after it; the field as a script names it, such as `req.headers["X-User"]`
---@field changes { field: string, before: string?, after: string? }[]
local Hook = {}

---What came of a request.
---@class moongate.KitResult
---@field status integer 0: no answer came
---@field headers moongate.KitHeaders
---@field body string
---@field trailers moongate.KitHeaders
---@field interim integer[] statuses of 1xx answers
---@field whole boolean the answer came to its end
---@field turned_away boolean on_connect did not let the client in
---@field source "backend"|"cache"|"reply"|"error"|nil
---@field error string? the word of the first failure
---@field failed_hook string?
---@field site string? that answered
---@field id string the request's
---@field time number seconds of the kit's clock that the request took
---@field tries integer servers that were asked
---@field tried string[] their backends, in order
---@field servers string[] their addresses, in order
---@field cache_key table? its parts; `n` counts them, nils included
---@field cache string? what came of the cache, as in res.cache.status; nil if there is none, or it was not reached
---@field fetched moongate.KitGot[] what backends and URLs got meanwhile
---@field logs { level: string, text: string }[] lines of the error log
---@field hooks moongate.KitHook[] in the order in which they were asked
local Result = {}

---A config that is loaded, with a clock of its own.
---@class moongate.Kit
local Kit = {}

---Answers for a backend, instead of its servers: always the same, or what a function returns for a request. A function
---cannot fail the connection, which stands when it is called.
---
---```lua
---kit:backend("app", { status = 503, delay = 2 })
---kit:backend("app/127.0.0.1:9001", { error = "connect_refused" })
---kit:backend("*", function(request) return "you asked " .. request.path end)
---```
---@param name string a backend's, "backend/server", or "*" for any that has no answer of its own
---@param answer string|integer|moongate.KitAnswer|fun(request: moongate.KitGot): string|integer|moongate.KitAnswer
---@return moongate.Kit self
function Kit:backend(name, answer) end

---Answers for URLs that scripts fetch. The newest one that fits counts.
---
---```lua
---kit:stub("http://auth.test/check*", 204)
---```
---`*` in it stands for anything; without "?" it says nothing of the query; a host alone means all of it
---@param url string
---@param answer string|integer|moongate.KitAnswer|fun(request: moongate.KitGot): string|integer|moongate.KitAnswer
---@return moongate.Kit self
function Kit:stub(url, answer) end

---Answers on sockets that scripts open, TLS left out: a function that gets the bytes that have come and a table of the
---connection's own, and returns what is sent: a string, a list of strings and pauses (with `ends = "close"` or
---"reset"), or nothing. It is called first with "" when the connection opens.
---
---```lua
---kit:socket("redis.internal:6379", function(bytes, memory) if bytes == "PING\r\n" then return "+PONG\r\n" end end)
---kit:socket("10.0.0.1:6379", { error = "connect_refused" })
---```
---@param address string "host:port" or "unix:/path"
---@param answer { error: string }|fun(bytes: string, memory: table): string|table|nil
---@return moongate.Kit self
function Kit:socket(address, answer) end

---What a host name resolves to from now on. Other names have an address that is made up, of 198.18.0.0/15: not a public
---one, so that under `egress` and `forward` a name needs an address of its own.
---
---```lua
---kit:resolve("app.internal", { "10.0.0.1", "10.0.0.2" })
---kit:resolve("gone.internal", nil)
---```
---@param name string
---@param addresses string[]? nil: there is no such name
---@return moongate.Kit self
function Kit:resolve(name, addresses) end

---Marks a server as a health check would. The kit makes no checks by itself.
---
---```lua
---kit:health("app/127.0.0.1:9001", false)
---```
---@param server string "backend/address", or an address
---@param well boolean
---@return moongate.Kit self
function Kit:health(server, well) end

---Makes a request, to its end: answer, on_log, and what was spawned as far as it does not wait for time. The clock
---moves only as far as something waits for it.
---
---```lua
---local res = kit:request { path = "/admin", headers = { ["X-Key"] = "k" }, client = { ip = "10.0.0.1" } }
---assert.equal(403, res.status)
---```
---@param request string|moongate.KitRequest
---@return moongate.KitResult
function Kit:request(request) end

---Lets time pass: repeated tasks run, what lives for a time ends.
---
---```lua
---kit:advance(60)
---```
---@param seconds number
function Kit:advance(seconds) end

---The kit's Unix time, which `gate.now` and `os.time` tell the policy.
---
---```lua
---local before = kit:now()
---```
---@return number
function Kit:now() end

---The kit's monotonic seconds, which `gate.clock` tells the policy.
---
---```lua
---local began = kit:clock()
---```
---@return number
function Kit:clock() end

---All lines of the error log since the kit was loaded.
---
---```lua
---assert.matches("over quota", kit:logs()[1].text)
---```
---@return { level: string, text: string }[]
function Kit:logs() end

---All that backends and URLs got since the kit was loaded, by repeated and spawned tasks too.
---
---```lua
---assert.equal("http://audit.test/", kit:fetched()[1].url)
---```
---@return moongate.KitGot[]
function Kit:fetched() end

---The files that were loaded: the config, then its modules.
---
---```lua
---print(table.concat(kit:files(), "\n"))
---```
---@return string[]
function Kit:files() end

---Loads the config again, or another one in its place, as a running proxy does: on_unload, then on_load; shared
---dictionaries stay. Raises what is wrong with it; then the old one stays.
---
---```lua
---kit:reload "site.lua"
---```
---@param file? string|{ text: string, name: string? } default: the same file, or text
function Kit:reload(file) end

---Ends the kit. Loading another one does so too.
---
---```lua
---after_each(function() kit:close() end)
---```
function Kit:close() end

return testing
