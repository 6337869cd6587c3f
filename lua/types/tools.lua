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
---World failure: `bad_json`, with line and column; also for integers beyond 64 bits, and for more values than 64 MiB
---hold.
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

---Writes a value. A table is an array if it is marked or has a value at 1, else an object, the empty one too; tables
---are read raw. World failure: `bad_json`, a string that is not UTF-8, since strings come from strangers. Raises,
---naming the path, for arrays with holes, keys that are no strings, cycles, functions, infinity and NaN, more than 128
---levels or 8 MiB.
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

---Reads RFC 3339, and the basic form of ISO 8601 ("19941106T084937Z"). A time needs a zone; a date alone is its
---midnight in UTC. World failure: `bad_time`.
---
---```lua
---local ends = gate.time.parse_iso(token.expires)
---```
---@param text string
---@return number? when an integer unless the text has a fraction
---@return string? word
---@return string? sentence
function gate.time.parse_iso(text) end

---A time by strftime's conversions: `%Y %y %m %d %e %j %H %I %M %S %p %A %a %B %b %u %w %s %F %T %Z %z %%`, and `%f`
---for microseconds. Raises for others.
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

---What gate.url.query_filter does with a query.
---@class moongate.QueryFilter
---names of arguments that are dropped; one that ends in "*": all that begin so
---@field drop? string[]
---@field keep? string[] only these are left, but for those in `drop`
---@field sort? boolean by name, those of one name in the order they came in; true

---Makes a function that gives one form to queries that mean the same, for cache_key. What is left of a query stays as
---it came, escapes included; nil: there is none, or nothing is left. To be made once, while the file is loaded: a
---call then takes less than half a microsecond for ten arguments.
---
---```lua
---local normal = gate.url.query_filter { drop = { "utm_*", "fbclid", "gclid" } }
---function site.cache_key(req) return req.path, normal(req.query) end
---```
---@param options moongate.QueryFilter
---@return fun(query: string?): string?
function gate.url.query_filter(options) end

---Stored responses, of the site whose hook asks.
---@class moongate.CacheTools
gate.cache = {}

---What is to be purged: one of `url`, `prefix`, `tag`, `key` (each a string, or a list of at most 1000) and `all`.
---@class moongate.Purge
---@field url? string|string[] whatever its key; "/path?query" means the host of the request
---@field prefix? string|string[] all whose URL begins so; likewise
---@field tag? string|string[] all that have it: see `res.cache.tags`
---@field key? string|string[] as `res.cache.key` tells it, with all variants
---@field all? boolean
---@field soft? boolean stale from now on, instead of gone: it may still be validated, or serve when the backend fails
---@field site? string the site's name; else that of the hook, or of what spawned it, or the only one with a cache

---Purges stored responses, at once and in all workers, those that are being fetched at this moment included. Anywhere
---but while the file is loaded. Raises for a site that has no cache. With a disk it waits, like gate.sleep, until that
---is safe there: from then on no crash brings back what was purged.
---
---```lua
---function site.on_response(req, res)
---  if req.method == "POST" and res.status < 400 then gate.cache.purge { tag = "products", soft = true } end
---end
---```
---@param what moongate.Purge
---@return integer count how many are hit, as far as that is known at once (else 0)
function gate.cache.purge(what) end

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
---commas, semicolons or backslashes, more than 4096 bytes, a name that begins with `__Secure-` or `__Host-` without
---what it promises.
---
---```lua
---res.headers:add("Set-Cookie", gate.cookie.build("__Host-sid", id, { path = "/", secure = true, http_only = true }))
---```
---@param name string
---@param value string
---@param options? moongate.CookieOptions
---@return string
function gate.cookie.build(name, value, options) end

---A set of IP prefixes, perhaps with values; the longest prefix that has an address wins. It lies outside of Lua's
---memory, and workers that make the same share it. `#set` is the number of prefixes.
---@class moongate.Cidr
---@field bytes integer what it holds outside of Lua's memory
local Cidr = {}

---Makes a set: of a list of prefixes, of a table from prefixes to values, or of both in one. `{ file = "blocked.txt" }`
---reads one beside the config while it is loaded: a prefix a line, perhaps a text behind it, comments after "#" or ";".
---
---A prefix without a length is one address; bits behind the length are ignored. IPv4-mapped addresses are IPv4, which
---"::/0" does not have. Raises for what is no prefix, a prefix with two values, a file that cannot be read, more than 4
---million prefixes.
---
---```lua
---local inside = gate.cidr { "10.0.0.0/8", "fd00::/8", ["192.0.2.0/24"] = "office" }
---```
---@param prefixes table
---@return moongate.Cidr
function gate.cidr(prefixes) end

---Does a prefix have the address? World failure: `bad_address`, which is what the client of a unix socket has.
---
---```lua
---if not inside:has(req.client.ip) then return 403 end
---```
---@param ip string
---@return boolean? found
---@return string? word
---@return string? sentence
function Cidr:has(ip) end

---The value of the longest prefix that has the address: true where none was given, nil if no prefix has it. World
---failure: `bad_address`.
---
---```lua
---req.headers["X-Network"] = inside:get(req.client.ip)
---```
---@param ip string
---@return any value
---@return string? word
---@return string? sentence
function Cidr:get(ip) end

---A compiled regular expression. Positions count bytes from 1.
---
---No pattern can hang: a match that takes too many steps raises `too_complex`, and is never mistaken for "no match".
---@class moongate.Re
---@field pattern string
local Re = {}

---Compiles a regular expression of Perl's kind (PCRE2), or gives the one it has compiled before. `$` matches at the
---very end only, not before a last line feed; without "u", characters are bytes.
---
---Flags: `i` whatever the case, `m` `^` and `$` at every line, `s` "." is line feeds too, `x` white space and comments
---in the pattern, `u` UTF-8 (bytes that are none match nothing). Raises for a wrong pattern, naming the byte, for more
---than 8 KiB or 64 groups.
---
---```lua
---local versioned = gate.re "^/api/v(\\d+)/(?<rest>.*)$"
---```
---@param pattern string
---@param flags? string
---@return moongate.Re
function gate.re(pattern, flags) end

---Does the pattern match anywhere?
---
---```lua
---if bots:test(req.headers["User-Agent"] or "") then return 403 end
---```
---@param text string
---@return boolean
function Re:test(text) end

---The groups of the first match, the whole match if there are none; nil for no match, and for groups that took no part.
---
---```lua
---local version = versioned:match(req.path)
---```
---@param text string
---@param init? integer where to begin; negative from the end
---@return string? ...
function Re:match(text, init) end

---Where the first match begins and ends, and its groups.
---
---```lua
---local from, to = versioned:find(req.path)
---```
---@param text string
---@param init? integer
---@return integer? from
---@return integer? to
---@return string? ...
function Re:find(text, init) end

---@class moongate.ReFound
---@field from integer
---@field to integer
---@field text string the whole match
---@field groups table<integer, string> by number; those that took no part are absent
---@field names table<string, string> by name

---All about the first match; nil if there is none.
---
---```lua
---local found = versioned:exec(req.path)
---if found then req.path = "/" .. found.names.rest end
---```
---@param text string
---@param init? integer
---@return moongate.ReFound?
function Re:exec(text, init) end

---Iterates over the matches, giving what match gives.
---
---```lua
---for name, value in gate.re "(\\w+)=(\\w+)":gmatch(text) do found[name] = value end
---```
---@param text string
---@return fun(): string?
function Re:gmatch(text) end

---Replaces matches. In a text, `$1` and `${name}` stand for groups, `$0` for the match, `$$` for "$"; a function gets
---the groups; a table is asked by the first group. false or nil leaves the match.
---
---```lua
---req.path = gate.re "//+":gsub(req.path, "/")
---```
---@param text string
---@param replacement string|table|fun(...): string|number|false|nil
---@param max? integer how many at most
---@return string text
---@return integer count
function Re:gsub(text, replacement, max) end

---The pieces between the matches.
---
---```lua
---local tags = gate.re "\\s*,\\s*":split(req.headers["X-Tags"] or "")
---```
---@param text string
---@param max? integer how many pieces at most; the last has the rest
---@return string[]
function Re:split(text, max) end

---Figures of one's own on the admin listener's /metrics. They belong to the process: reloads leave them alone.
---@class moongate.Metrics
gate.metrics = {}

---@class moongate.MetricOptions
---@field name string letters, digits and "_"; not "moongate_" at the front
---@field help string
---@field labels? string[] names of at most 8 labels
---how many series there may be, 1 to 10000, default 1000; what would be more is counted with "other" for every label
---@field series? integer

---@class moongate.HistogramOptions : moongate.MetricOptions
---@field buckets? number[] their upper bounds, ascending, at most 64; default 100 µs to 60 s

---@alias moongate.LabelValue string|number|boolean cut to 128 bytes

---@class moongate.Counter
local Counter = {}

---@class moongate.Gauge
local Gauge = {}

---@class moongate.Histogram
local Histogram = {}

---Finds or makes the counter of that name. Raises when it was declared otherwise: in this config, or
---before, if it has been used.
---
---```lua
---local orders = gate.metrics.counter { name = "orders_total", help = "Orders", labels = { "tier" } }
---```
---@param options moongate.MetricOptions
---@return moongate.Counter
function gate.metrics.counter(options) end

---Finds or makes the gauge of that name. Raises when it was declared otherwise: in this config, or
---before, if it has been used.
---
---```lua
---local depth = gate.metrics.gauge { name = "queue_depth", help = "Jobs that wait" }
---```
---@param options moongate.MetricOptions
---@return moongate.Gauge
function gate.metrics.gauge(options) end

---Finds or makes the histogram of that name. Raises when it was declared otherwise: in this config, or
---before, if it has been used.
---
---```lua
---local sizes = gate.metrics.histogram { name = "upload_bytes", help = "Uploads", buckets = { 1e3, 1e6, 1e9 } }
---```
---@param options moongate.HistogramOptions
---@return moongate.Histogram
function gate.metrics.histogram(options) end

---Adds to the series with these label values, given in their order or as one table by name. Raises for negative
---numbers.
---
---```lua
---orders:add(1, "gold")
---```
---@param n? number default 1
---@param ... moongate.LabelValue|table<string, moongate.LabelValue>
function Counter:add(n, ...) end

---Adds to the gauge of these label values.
---
---```lua
---depth:add(-1)
---```
---@param n? number default 1
---@param ... moongate.LabelValue|table<string, moongate.LabelValue>
function Gauge:add(n, ...) end

---Sets the gauge of these label values, which all workers share.
---
---```lua
---gate.every(10, function() depth:set(#jobs) end)
---```
---@param value number
---@param ... moongate.LabelValue|table<string, moongate.LabelValue>
function Gauge:set(value, ...) end

---Counts a value in its bucket.
---
---```lua
---sizes:observe(tonumber(req.headers["Content-Length"]) or 0)
---```
---@param value number
---@param ... moongate.LabelValue|table<string, moongate.LabelValue>
function Histogram:observe(value, ...) end

---A MaxMind database (MMDB), which knows something about addresses: a country, a city, a network's owner.
---@class moongate.Mmdb
local Mmdb = {}

---Opens a database beside the config, while that is loaded. All workers share it; a reload finds a new file. Its bytes
---are copied, so the file may be overwritten. Raises if it cannot be read, or is larger than 1 GiB.
---
---```lua
---local geo = gate.mmdb "GeoLite2-Country.mmdb"
---```
---@param file string relative to the config's folder
---@return moongate.Mmdb
function gate.mmdb(file) end

---What the database has of an address: a value at a path of names and indices (from 1; -1 is the last), or the whole
---record; nil if there is nothing. Numbers beyond 63 bits are floats. World failures: `bad_address`, `bad_database`.
---
---```lua
---local country = geo:get(req.client.ip, "country", "iso_code")
---```
---@param ip string
---@param ... string|integer at most 16
---@return any value
---@return string? word
---@return string? sentence
function Mmdb:get(ip, ...) end

return gate
