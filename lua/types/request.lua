---@meta moongate.request
-- luacheck: no unused

-- `req`, the request, as hooks get it.

---The request: one object through all hooks of its exchange. What is assigned is what is forwarded. It is writable
---until its fetch begins (assign in on_request); later assignment raises, and so does any use after the exchange has
---ended, and any field that is not listed here.
---
---```lua
---function site.on_request(req)
---  if req.path:find "^/old/" then req.path = req.path:gsub("^/old/", "/") end
---  req.headers["X-Client"] = req.client.ip
---end
---```
---@class moongate.Request
---@field method string "GET"; assignable: a token, neither CONNECT nor from or to HEAD
---"http" or "https", as the client spoke it (behind trusted proxies, as they say), or as the target of a forward
---request names it; read-only
---@field scheme string
---lower case, without the port, "" if there is none; assigning "name" or "name:port" also sets the Host field
---@field host string
---@field port integer the one in Host, else the scheme's; read-only (assign host)
---normalised: percent-decoded where unreserved, dot segments removed, "%2F" kept. Assigning: begins with "/"; what
---cannot stand in a path is percent-encoded, then it is normalised likewise (not with raw_target); a NUL raises
---@field path string
---without "?"; nil if there is no "?". Assigning: what cannot stand in a query is percent-encoded; nil removes it
---@field query string?
---@field target string exactly what came in the start line; read-only
---@field version string "1.0", "1.1" or "2.0"; read-only
---@field args moongate.Args the arguments of the query
---@field headers moongate.Headers
---@field cookies moongate.Cookies
---@field body moongate.Body? nil if the request has none; read-only
---how many bytes the body may have: the site's `max_body`, math.huge for "none". Assigning: bytes, or "64K"; it can
---only become less. What is or turns out to be larger is answered with 413 (`body_too_large`)
---@field max_body integer|number
---@field client moongate.Client
---@field id string 16 hexadecimal digits; also in logs and error pages; read-only
---@field ctx table for scripts: what one hook leaves here, the next ones find; read-only, its fields are not
---@field cache moongate.RequestCache
---@field site string the site's name: its first host, else its first listener; read-only
---@field forward boolean it names its own target, and the site is a forward proxy: a CONNECT, whose path is empty and
---whose method, path and query cannot be assigned, or an absolute target; read-only
local Request = {}

---Who sends the request; read-only.
---
---```lua
---if bans:get(req.client.ip) then return 403 end
---```
---@class moongate.Client
---@field ip string "192.0.2.1", "2001:db8::1", "unix:"; behind trusted proxies the address they give
---@field port integer? nil if it is not known
---@field tls moongate.ClientTls? nil: the connection is plain, or the client has left
---@field score nil (comes with scoring)
local Client = {}

---Who has connected, as on_connect gets it; read-only, and over with that hook.
---
---```lua
---function site.on_connect(client)
---  if bans:get(client.ip) then return false end
---end
---```
---@class moongate.Arrival
---@field ip string the other side of the connection, or whom its PROXY header names
---@field port integer? nil if it is not known
---@field listener string where it came in: "127.0.0.1:8080"
local Arrival = {}

---The client's TLS connection, and its certificate where the listener asks for one (`client_ca`); read-only.
---
---```lua
---if not req.client.tls.verified then return 403 end
---```
---@class moongate.ClientTls
---@field version string "TLSv1.3", "TLSv1.2"
---@field cipher string "TLS_AES_128_GCM_SHA256"
---@field sni string? the name it asked for
---@field alpn string? what was agreed on
---@field resumed boolean it took up a former session
---@field early boolean it came as early data (RFC 8470), and may be a replay: the handshake is not over yet
---@field verified boolean it showed a certificate, and that is good
---@field subject string? "CN=me,O=us" (RFC 4514); as all below nil if it showed no certificate
---@field issuer string?
---@field serial string? hexadecimal
---@field fingerprint string? SHA-256 of the certificate, hexadecimal
---@field not_after number? Unix seconds
---@field san string[]? "DNS:a.example", "email:me@a.example", "URI:spiffe://a/b"
local ClientTls = {}

---What policy wants of the cache. Assignable until the fetch begins; without effect where the site has no cache.
---
---```lua
---if req.headers["X-Refresh"] == secret then req.cache.refresh = true end
---if overloaded then req.cache.stale = true end
---```
---@class moongate.RequestCache
---@field bypass boolean neither answered from the cache nor stored
---@field refresh boolean not answered from the cache, but stored
---what is stored answers, however stale, and the backend is not asked; what is not stored is fetched as always. Less
---than `refresh`
---@field stale boolean
local RequestCache = {}

---Header fields, in the order and the letter case they came in. Names have no case.
---
---Reading a name gives its lines joined with ", " (of Set-Cookie: the first), or nil. Assigning a string or a number
---makes it one line, nil removes it. `pairs` visits every line. Names that are no tokens, values with line breaks or
---other control characters, and assigning the core's own fields (Content-Length, Transfer-Encoding, Connection,
---Upgrade, TE, Trailer, Keep-Alive, Proxy-Connection) raise. Assigning a request's Host is assigning `req.host`.
---
---Of a request, assigning `X-User`, or nil to it, also removes what a client may have sent as `X_User`: servers that
---make variables of names (CGI, WSGI, Rack, PHP) would take one for the other.
---
---`all` and `add` in lower case are the methods; fields of these names are `headers.All` and `headers.Add`.
---
---```lua
---req.headers["X-User"] = name
---res.headers["Server"] = nil
---for name, value in pairs(res.headers) do … end
---```
---@class moongate.Headers
---@field [string] string?
local Headers = {}

---All lines of that name.
---
---```lua
---for _, cookie in ipairs(res.headers:all "Set-Cookie") do … end
---```
---@param name string
---@return string[]
function Headers:all(name) end

---Adds a line behind what is there.
---
---```lua
---res.headers:add("Set-Cookie", "seen=1; Path=/")
---```
---@param name string
---@param value string|number
function Headers:add(name, value) end

---The arguments of the query, decoded. Reading gives the first value of that name, "" for `?name`, or nil; assigning
---a string or a number replaces all of that name by one, nil removes them, and the other arguments stay as they came.
---`pairs` visits all. An argument called "all" is reached by `req.args:all "all"`.
---
---```lua
---req.args.utm_source = nil
---local page = tonumber(req.args.page) or 1
---```
---@class moongate.Args
---@field [string] string?
local Args = {}

---All values of that name.
---
---```lua
---local tags = req.args:all "tag"
---```
---@param name string
---@return string[]
function Args:all(name) end

---The cookies the client sent, by name, as they stand there: case counts, the first of a name wins, quotes are kept.
---`pairs` visits all. Read-only: what is forwarded is the Cookie field (`req.headers["Cookie"]`).
---
---```lua
---local lang = req.cookies.lang or "en"
---```
---@class moongate.Cookies
---@field [string] string?
local Cookies = {}
