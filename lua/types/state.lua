---@meta moongate
-- luacheck: no unused

-- State of policy: what outlives a request and is seen by all workers. Dictionaries and limits live as long as the
-- process, and reloads leave what is in them alone; what a config says of them holds from its reload on. Maps are read
-- while the file is loaded.

---@class moongate
local gate = {}

---@class moongate.SharedOptions
---keys, values and overhead together, at least 4K; default 16M
---@field max? moongate.Bytes
---"lru": a full dictionary makes room by dropping what was used longest ago; default: it refuses
---@field evict? "lru"|false

---@alias moongate.Plain string|number|boolean|table tables of these, to any depth up to 32, read raw; no functions

---A dictionary that all workers see, and that reloads leave alone. Each of its functions takes effect at once and as
---a whole. Values are copies: a table that was stored is another one when it is read. It never drops what has not
---expired unless its options say so: a full one refuses with `full`, and a value that would not fit into an empty one
---with `too_large`.
---@class moongate.Shared
local Shared = {}

---Finds or makes the dictionary of that name. What its options say holds for all who open it, also for those who say
---nothing; raises where a config says two things. At most 1024 dictionaries.
---
---```lua
---local seen = gate.shared("seen", { max = "64M" })
---```
---@param name string 1 to 64 bytes
---@param options? moongate.SharedOptions
---@return moongate.Shared
function gate.shared(name, options) end

---The value, or nil if there is none or it has expired.
---
---```lua
---local count = seen:get(req.client.ip) or 0
---```
---@param key string|number 1 to 1024 bytes; a number is its text
---@return moongate.Plain?
function Shared:get(key) end

---Stores a value; nil removes it. World failures: `full`, `too_large`.
---
---```lua
---local ok, word = sessions:set(token, { user = user, since = gate.now() }, "10m")
---```
---@param key string|number
---@param value moongate.Plain?
---@param ttl? moongate.Seconds how long it lives; default for ever
---@return true? stored
---@return string? word
---@return string? sentence
function Shared:set(key, value, ttl) end

---Stores a value unless there is one: true, or false and "exists". World failures: `full`, `too_large`.
---
---```lua
---if not seen:add(req.id, true, 60) then return 409 end
---```
---@param key string|number
---@param value moongate.Plain
---@param ttl? moongate.Seconds how long it lives; default for ever
---@return boolean? added
---@return string? word "exists", or that of a failure
---@return string? sentence
function Shared:add(key, value, ttl) end

---Stores a value if there is one already: true, or false and "absent". World failures: `full`, `too_large`.
---
---```lua
---sessions:replace(token, { user = user, since = gate.now() }, "10m")
---```
---@param key string|number
---@param value moongate.Plain
---@param ttl? moongate.Seconds how long it lives; default for ever
---@return boolean? replaced
---@return string? word "absent", or that of a failure
---@return string? sentence
function Shared:replace(key, value, ttl) end

---Adds to a number, in one step for all workers, and gives the sum. World failure: `full`. Raises if what is stored
---is no number.
---
---```lua
---if hits:incr(req.client.ip, 1, 0, 60) > 100 then return 429 end
---```
---@param key string|number
---@param by? number default 1
---@param start? number what is added to if there is nothing yet; default 0
---@param ttl? moongate.Seconds how long a value made by this call lives; one that was there keeps its time
---@return number? sum
---@return string? word
---@return string? sentence
function Shared:incr(key, by, start, ttl) end

---Replaces a value by what a function makes of it, in one step for all workers, and gives it. The function gets the
---value, or nil; what it returns is stored, nil removes. Nothing is locked while it runs: if another has changed the
---value meanwhile, it is called again with the new one. So it may not wait, and does nothing that must happen once.
---What it raises is raised, and nothing is stored. World failures: `full`, `too_large`.
---
---```lua
---local order = orders:update(id, function(order) order.paid = true return order end)
---```
---@param key string|number
---@param f fun(value: moongate.Plain?): moongate.Plain?
---@param ttl? moongate.Seconds how long it lives; default what is left to the former one
---@return moongate.Plain? value
---@return string? word
---@return string? sentence
function Shared:update(key, f, ttl) end

---Removes a value.
---
---```lua
---if seen:remove(token) then gate.log "token used" end
---```
---@param key string|number
---@return boolean removed false: there was none
function Shared:remove(key) end

---Gives a value a new time to live, counted from now.
---
---```lua
---if not sessions:touch(token, "10m") then return gate.redirect "/login" end
---```
---@param key string|number
---@param ttl? moongate.Seconds default for ever
---@return boolean there false: there is none
function Shared:touch(key, ttl) end

---How long a value still lives, in seconds; math.huge for ever; nil if there is none.
---
---```lua
---local left = bans:ttl(req.client.ip)
---```
---@param key string|number
---@return number?
function Shared:ttl(key) end

---Some or all of the keys, in no order. Nobody is blocked meanwhile: keys that come and go may or may not be there.
---`pairs(dictionary)` goes over all keys and values in the same way, without a list of them.
---
---```lua
---for _, ip in ipairs(bans:keys("10.", 100)) do bans:remove(ip) end
---```
---@param prefix? string only keys that begin so; default all
---@param max? integer at most so many, 1 to 10000; default 1000
---@return string[]
function Shared:keys(prefix, max) end

---How many keys there are, of which some may have expired.
---
---```lua
---res.headers["X-Sessions"] = sessions:count()
---```
---@return integer
function Shared:count() end

---Removes everything, and says how many keys that were. Takes about 50 ns for each, of the hook's budget.
---
---```lua
---if req.path == "/_purge" then return gate.reply(200, bans:clear() .. " bans lifted\n") end
---```
---@return integer
function Shared:clear() end

---How many bytes it takes, and how many it may.
---
---```lua
---local used, max = sessions:memory()
---```
---@return integer used
---@return integer max
function Shared:memory() end

---@class moongate.LimitOptions
---@field name string 1 to 64 characters of visible ASCII; what metrics and fields call it
---@field rate? number how many a key may take, of cost 1, in the time `per`
---@field per? moongate.Seconds default 1
---how many it may take at once after a rest; default the rate, at least 1
---@field burst? integer
---@field concurrent? integer how many places a key may hold at once
---let all through, and count what would have been refused
---@field dry_run? boolean
---memory for keys, at least 64K; default 16M, which is room for 450,000 keys that owe something
---@field max? moongate.Bytes
---what a new key gets when there is no room for it; default "deny". Keys that owe nothing make room by themselves
---@field on_full? "deny"|"allow"

---A limit: what each key may take in a time (`take`), and how many of them may be under way at once (`enter`). One
---for all workers, exact over all of them, to the few milliseconds that a turn lasts. Reloads change what it allows,
---at once, and forget nothing. A key is any text or number; only its hash is kept.
---@class moongate.Limit
local Limit = {}

---Makes the limit of that name; only while the file is loaded. Made twice it must be the same. At most 1024.
---
---```lua
---local per_key = gate.limit { name = "per-key", rate = 100, per = "1m", burst = 20 }
---```
---@param options moongate.LimitOptions
---@return moongate.Limit
function gate.limit(options) end

---Takes from what the key may have: true and how many more it could take now, or false and the seconds until it
---could. A refused take costs nothing. In a dry run it is always true; where it would have been false, what is left
---is minus the wait. "full" comes third where there was no room to remember the key, and `on_full` decided.
---
---```lua
---local ok, wait = per_key:take(key)
---if not ok then return gate.reply(429, "slow down\n", { ["Retry-After"] = math.ceil(wait) }) end
---```
---@param key string|number
---@param cost? number 0 or more, fractions too; default 1. More than the burst is never let through (wait: math.huge)
---@return boolean ok
---@return number left_or_wait
---@return "full"? word
function Limit:take(key, cost) end

---What `take` would say, without taking. With a cost of 0: what is left now.
---
---```lua
---local _, left = per_key:peek(key, 0)
---```
---@param key string|number
---@param cost? number
---@return boolean ok
---@return number left_or_wait
function Limit:peek(key, cost) end

---Forgets what the key has taken; places it holds stay its own.
---
---```lua
---if solved_captcha then attempts:reset(req.client.ip) end
---```
---@param key string|number
---@return boolean known false: it owed nothing
function Limit:reset(key) end

---Header fields that tell a client where it stands: RateLimit and RateLimit-Policy (of the IETF's draft), the older
---RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset, and Retry-After when nothing is left. The burst is the
---quota.
---
---```lua
---if not per_key:take(key) then return gate.reply(429, "slow down\n", per_key:fields(key)) end
---```
---@param key string|number
---@return table<string, string|integer>
function Limit:fields(key) end

---Takes a place among the `concurrent` ones of the key, or gives nil, "limited" (or "full", without room to remember
---the key). The place is held until the exchange is over: its body is sent, its tunnel closed, its client gone,
---whatever becomes of the script. To hold it for a stretch of the script only, declare it `<close>`, or give it back
---with `slot:leave()`. Outside of an exchange (gate.spawn, gate.every) it is held until then, or until it is
---collected. At most 32 in one exchange.
---
---```lua
---if not per_user:enter(user) then return gate.reply(429, "one at a time\n") end
---```
---@param key string|number
---@return moongate.Slot? slot
---@return string? word "limited" or "full"; beside a slot: it was let through by dry_run or on_full
---@return string? sentence
function Limit:enter(key) end

---How many places the key holds now.
---
---```lua
---gate.log("info", user, "has", per_user:active(user), "under way")
---```
---@param key string|number
---@return integer
function Limit:active(key) end

---A place that is held. `local slot <close> = limit:enter(key)` gives it back at the end of the block.
---@class moongate.Slot
local Slot = {}

---Gives the place back.
---
---```lua
---slot:leave()
---```
---@return boolean given_back false: it was before
function Slot:leave() end

---@class moongate.MapOptions
---of a file; default by its ending .csv, .tsv or .json, else "lines"
---@field format? "lines"|"csv"|"tsv"|"json"
---what values of lines, CSV and TSV are; default "string"
---@field type? "string"|"number"

---A big table that is only read: lists of addresses, keys, hosts, redirects. It lies outside of Lua, once for all
---workers, and takes some 11 bytes for each entry besides its text. `#map` is the number of entries, and `pairs(map)`
---goes over them in the order of the file (of a table: of its keys). There is no `map[key]`, lest a key that a client
---chose be the name of a function.
---@class moongate.Map
local Map = {}

---Makes a map of a table, or of a file: only while the file is loaded. A path is relative to the config's folder; the
---user who serves must be able to read it, or it lies under `--keys`. The file is read once for a load, and again by
---a reload; where its bytes are the same, the map is. `moongate check` reads it, too; what is wrong is told with its
---line.
---
---"lines": a key, white space, a value, to the end of the line; lines that are empty or begin with # are left out.
---"csv": two columns, with quotes as in RFC 4180. "tsv": two columns. A key alone stands for true. "json": one
---object, whose values may be anything but null. A key may come twice only with the same value. Files of up to 512
---MiB, keys of 1 to 1024 bytes; tables of up to 200,000 values.
---
---```lua
---local moved = gate.map "moved.csv"
---```
---@param source string|table
---@param options? moongate.MapOptions
---@return moongate.Map
function gate.map(source, options) end

---The value, or nil. A table is a copy.
---
---```lua
---local to = moved:get(req.path)
---if to then return gate.redirect(to, 301) end
---```
---@param key string|number
---@return moongate.Plain?
function Map:get(key) end

---The value of the longest key that a text begins with, and that key, or nil. "/api" begins "/apis", too: end keys
---that are folders with "/".
---
---```lua
---local backend = routes:longest_prefix(req.path)
---```
---@param text string
---@return moongate.Plain? value
---@return string? key
function Map:longest_prefix(text) end

---The value for a host name, and its key, or nil: that of the name itself, else of "*.b.example" for "a.b.example",
---else of "*.example".
---
---```lua
---local tenant = tenants:host(req.host)
---```
---@param name string
---@return moongate.Plain? value
---@return string? key
function Map:host(name) end

---How many bytes it takes, once for all.
---
---```lua
---gate.log("info", #moved, "entries in", moved:memory(), "bytes")
---```
---@return integer
function Map:memory() end

return gate
