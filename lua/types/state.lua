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

---A dictionary that all workers see, and that reloads leave alone. Each of its functions takes effect at once and as a
---whole. Values are copies: a table that was stored is another one when it is read. It never drops what has not expired
---unless its options say so: a full one refuses with `full`, and a value that would not fit into an empty one with
---`too_large`.
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

---Adds to a number, in one step for all workers, and gives the sum. World failure: `full`. Raises if what is stored is
---no number.
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
---value meanwhile, it is called again with the new one. So it may not wait, and does nothing that must happen once. What
---it raises is raised, and nothing is stored. World failures: `full`, `too_large`.
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

return gate
