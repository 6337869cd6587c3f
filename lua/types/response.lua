---@meta moongate.response
-- luacheck: no unused

-- `res`, the answer, as hooks get it.

---The answer, wherever it comes from. It is writable until its head leaves (assign in on_response); later assignment
---raises, and so does any use after the exchange has ended, and any field that is not listed here.
---
---```lua
---function site.on_response(req, res)
---  res.headers["Server"] = nil
---  if res.status == 404 then res.body = "there is no such page\n" end
---end
---```
---@class moongate.Response
---@field status integer assignable: 200 to 599. In on_log 499 if the client left before there was an answer
---@field headers moongate.Headers
---nil for HEAD, 204 and 304. Assigning a string (nil: an empty one) replaces it, sets its length, and drops what told
---of the former one: ETag, Content-Encoding, ranges, digests
---@field body moongate.Body?
---@field source "backend"|"cache"|"reply"|"error" where it comes from; read-only
---@field server string? address of the server that answered; read-only
---@field backend string? name of the backend that answered; read-only
---@field tries integer servers that were asked; 0 if none was; read-only
---@field cache nil (comes with the cache)
---seconds from the beginning of the fetch to the answer's head; nil if nothing was fetched; read-only
---@field time number?
local Response = {}
