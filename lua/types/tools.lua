---@meta moongate
-- luacheck: no unused

-- The tools that policies are written with: data formats, identifiers, address sets, patterns, figures. They need no
-- network and never wait.

---@class moongate
local gate = {}

---JSON (RFC 8259). 64-bit integers stay integers, floats are written so that they read back as the same.
---@class moongate.Json
---what stands for null in tables; in a text to be written, nil does, too
---@field null lightuserdata
gate.json = {}

---@class moongate.JsonDecodeOptions
---@field max_depth? integer 1 to 128; default 64

---Reads a text of at most 8 MiB. Arrays are marked as gate.json.array does it; of two equal names the last counts.
---World failure: `bad_json`, with line and column; also for integers beyond 64 bits, and for more values than 64 MiB hold.
---
---```lua
---local order, word, why = gate.json.decode(req.body:text "64K")
---if not order then return gate.reply(400, why) end
---```
---@param text string
---@param options? moongate.JsonDecodeOptions
---@return any value
---@return string? word
---@return string? sentence
function gate.json.decode(text, options) end

---@class moongate.JsonEncodeOptions
---@field indent? integer spaces for each level, 0 to 8; default: all in one line
---@field sort_keys? boolean

---Writes a value. A table is an array if it is marked or has a value at 1, else an object, the empty one too; tables are
---read raw. World failure: `bad_json`, a string that is not UTF-8, since strings come from strangers. Raises, naming the
---path, for arrays with holes, keys that are no strings, cycles, functions, infinity and NaN, more than 128 levels or
---8 MiB.
---
---```lua
---return gate.reply(200, gate.json.encode { id = req.id, tags = gate.json.array {} })
---```
---@param value any
---@param options? moongate.JsonEncodeOptions
---@return string? text
---@return string? word
---@return string? sentence
function gate.json.encode(value, options) end

---Marks a table as an array, so that an empty one is written as `[]`, and gives it back. Raises if it has a metatable.
---
---```lua
---local found = gate.json.array()
---```
---@param list? table default: a new one
---@return table
function gate.json.array(list) end

---Bytes as hexadecimal digits.
---@class moongate.Hex
gate.hex = {}

---Two lower-case digits for each byte. At most 4 MiB.
---
---```lua
---req.headers["X-Trace"] = gate.hex.encode(id)
---```
---@param bytes string
---@return string
function gate.hex.encode(bytes) end

---Reads pairs of digits of either case. World failure: `bad_hex`.
---
---```lua
---local key = gate.hex.decode(req.headers["X-Key"] or "")
---```
---@param text string at most 8 MiB
---@return string? bytes
---@return string? word
---@return string? sentence
function gate.hex.decode(text) end

---Dates in UTC and English, whatever the locale, of the years 0 to 9999. Times are Unix seconds; a missing one is now.
---@class moongate.Time
gate.time = {}

---A date as HTTP writes it: "Sun, 06 Nov 1994 08:49:37 GMT".
---
---```lua
---res.headers["Expires"] = gate.time.http(gate.now() + 3600)
---```
---@param when? number
---@return string
function gate.time.http(when) end

---Reads a date of HTTP, the two obsolete forms included. World failure: `bad_time`.
---
---```lua
---local since = gate.time.parse_http(req.headers["If-Modified-Since"] or "")
---```
---@param text string
---@return integer? when
---@return string? word
---@return string? sentence
function gate.time.parse_http(text) end

---A time in the form of ISO 8601 and RFC 3339: "1994-11-06T08:49:37Z".
---
---```lua
---gate.log("info", gate.time.iso(gate.now(), 3))
---```
---@param when? number
---@param digits? integer of the fraction of the second, 0 to 9; default 0. It is cut, not rounded
---@return string
function gate.time.iso(when, digits) end

---Reads RFC 3339, and the basic form of ISO 8601 ("19941106T084937Z"). A time needs a zone; a date alone is its midnight
---in UTC. World failure: `bad_time`.
---
---```lua
---local ends = gate.time.parse_iso(token.expires)
---```
---@param text string
---@return number? when an integer unless the text has a fraction
---@return string? word
---@return string? sentence
function gate.time.parse_iso(text) end

---A time by strftime's conversions: `%Y %y %m %d %e %j %H %I %M %S %p %A %a %B %b %u %w %s %F %T %Z %z %%`, and `%f` for
---microseconds. Raises for others.
---
---```lua
---local day = gate.time.format "%Y-%m-%d"
---```
---@param format string at most 256 bytes
---@param when? number
---@return string
function gate.time.format(format, when) end

---A UUID (RFC 9562), of the kernel's randomness.
---
---```lua
---req.headers["X-Request-Id"] = gate.uuid(7)
---```
---@param version? integer 4 (default): random; 7: ordered by time
---@return string
function gate.uuid(version) end

---URLs (RFC 3986), strictly: what has a byte outside of the grammar is none.
---@class moongate.UrlTools
gate.url = {}

---The parts of a URL, as they stand there, but for scheme and host in lower case. What is absent is nil; path is not.
---@class moongate.UrlParts
---@field scheme? string
---@field user? string what stands before "@"
---@field host? string an IPv6 address in its brackets
---@field port? integer
---@field path? string
---@field query? string without the "?"
---@field fragment? string without the "#"

---Takes a URL, or a relative reference, apart. World failure: `bad_url`.
---
---```lua
---local back = gate.url.parse(req.args.return_to or "")
---if not back or back.host then return 400 end
---```
---@param text string at most 64 KiB
---@return moongate.UrlParts? parts
---@return string? word
---@return string? sentence
function gate.url.parse(text) end

---Puts parts together. They are written as they are; what cannot stand where it would raises, so that no part runs over
---into the next.
---
---```lua
---return gate.redirect(gate.url.build { scheme = "https", host = req.host, path = req.path })
---```
---@param parts moongate.UrlParts
---@return string
function gate.url.build(parts) end

---Resolves a reference against a base (RFC 3986 5). World failure: `bad_url`.
---
---```lua
---local target = gate.url.join("https://example.com/a/b", res.headers["Location"])
---```
---@param base string with a scheme
---@param reference string
---@return string? url
---@return string? word
---@return string? sentence
function gate.url.join(base, reference) end

---@alias moongate.UrlComponent "value"|"segment"|"path"|"query"|"fragment"|"form"

---Percent-encodes what cannot stand in a component: in a value (the default) all but letters, digits and `-._~`, in a
---segment not its delimiters, in a path not "/" either; "form" writes spaces as "+".
---
---```lua
---local path = "/users/" .. gate.url.encode(name, "segment")
---```
---@param text string at most 64 KiB
---@param component? moongate.UrlComponent
---@return string
function gate.url.encode(text, component) end

---Decodes percent-encoding; for a "form" also "+". World failure: `bad_url`, a "%" without two digits.
---
---```lua
---local name = gate.url.decode(segment)
---```
---@param text string at most 64 KiB
---@param component? moongate.UrlComponent
---@return string? decoded
---@return string? word
---@return string? sentence
function gate.url.decode(text, component) end

---The pairs of a query or form in their order, decoded as browsers do it: `{ name, value }`; without "=" there is no
---value. World failure: `bad_url`, more than 10,000 pairs.
---
---```lua
---for _, pair in ipairs(gate.url.parse_query(req.query or "")) do count = count + 1 end
---```
---@param query string at most 64 KiB
---@return string[][]? pairs
---@return string? word
---@return string? sentence
function gate.url.parse_query(query) end

---Writes pairs as a query, encoded as forms are.
---
---```lua
---req.query = gate.url.build_query { { "tag", "a" }, { "tag", "b & c" } }
---```
---@param pairs (string|number)[][]
---@return string
function gate.url.build_query(pairs) end

---@class moongate.CookieTools
gate.cookie = {}

---The cookies of a Cookie field by name; the first of a name wins, nothing is decoded.
---
---```lua
---local sid = gate.cookie.parse(line).sid
---```
---@param field string at most 64 KiB
---@return table<string, string>
function gate.cookie.parse(field) end

---@class moongate.CookieOptions
---@field path? string begins with "/"
---@field domain? string
---@field max_age? moongate.Seconds at most 400 days; 0 deletes the cookie
---@field expires? number Unix seconds
---@field secure? boolean
---@field http_only? boolean
---@field same_site? "strict"|"lax"|"none" "none" needs secure
---@field partitioned? boolean needs secure

---A Set-Cookie field. Raises for what browsers would throw away: a name that is no token, a value with spaces, quotes,
---commas, semicolons or backslashes, more than 4096 bytes, a name that begins with `__Secure-` or `__Host-` without what
---it promises.
---
---```lua
---res.headers:add("Set-Cookie", gate.cookie.build("__Host-sid", id, { path = "/", secure = true, http_only = true }))
---```
---@param name string
---@param value string
---@param options? moongate.CookieOptions
---@return string
function gate.cookie.build(name, value, options) end

return gate
