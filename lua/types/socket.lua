---@meta moongate
-- luacheck: no unused

-- Sockets, names and locks: what a script may wait for, beside `gate.fetch`.

---@class moongate
local gate = {}

---Clients for TCP and Unix sockets, with LuaSocket's methods: drivers written for LuaSocket run on them (`require
---"socket"` gives LuaSocket's names to what is here; say it in the config, since drivers often do so only when they
---connect, and modules are loaded together with the file). They wait without blocking anybody, 60 s at most unless
---`settimeout` says otherwise, and never longer than their exchange lives.
---
---A socket ends with the exchange or task in which it was made: kept longer, it says `closed`. What was sent is still
---delivered. A worker has 4096 of them at most (`overloaded`), idle ones in pools included.
---@class moongate.Sockets
gate.socket = {}

---What connecting takes beside host and port.
---@class moongate.ConnectOptions
---take an idle connection that was put into the pool of this name (and host and port); see setkeepalive
---@field pool? string
---@field tls? boolean|moongate.Tls|moongate.TlsOptions speak TLS; true: trust the system's roots
---@field timeout? moongate.Seconds gate.socket.connect only: in place of settimeout; default 60

---Makes a TCP socket that connects to addresses of either family.
---
---```lua
---local sock <close> = assert(gate.socket.tcp())
---sock:settimeout(0.5)
---assert(sock:connect("cache.internal", 6379))
---```
---@return moongate.Socket? socket
---@return string? word
---@return string? sentence
function gate.socket.tcp() end

---The same for IPv4 alone.
---
---```lua
---local sock = assert(gate.socket.tcp4())
---```
---@return moongate.Socket? socket
---@return string? word
---@return string? sentence
function gate.socket.tcp4() end

---The same for IPv6 alone.
---
---```lua
---local sock = assert(gate.socket.tcp6())
---```
---@return moongate.Socket? socket
---@return string? word
---@return string? sentence
function gate.socket.tcp6() end

---Makes a Unix socket, whose connect takes a path.
---
---```lua
---local sock = assert(gate.socket.unix())
---assert(sock:connect "/run/redis/redis.sock")
---```
---@return moongate.Socket? socket
---@return string? word
---@return string? sentence
function gate.socket.unix() end

---Makes a TCP socket and connects it. Waits. World failures as of `connect`.
---
---```lua
---local sock, word = gate.socket.connect("cache.internal", 6379, { timeout = 0.5, pool = "cache" })
---if not sock then return gate.reply(503, word) end
---```
---@param host string a name or an IP
---@param port integer
---@param options? moongate.ConnectOptions
---@return moongate.Socket? socket
---@return string? word
---@return string? sentence
function gate.socket.connect(host, port, options) end

---A socket. One strand at a time may wait in it: a second one raises.
---@class moongate.Socket
local Socket = {}

---Connects. Waits. After a failure it may be tried again. Names are resolved as those of backends are, and all their
---addresses tried in turn.
---
---World failures: `timeout`, `connect_refused`, `connect_failed`, `name_not_found`, `name_failed`, `closed`, and with
---TLS `tls_failed` and `certificate`. Raises for a socket that is connected.
---
---```lua
---local ok, word, sentence = sock:connect("localhost", 6379)
---```
---@param host string a name or an IP; for a Unix socket the path, and no port
---@param port? integer
---@param options? moongate.ConnectOptions
---@return integer? one
---@return string? word
---@return string? sentence
function Socket:connect(host, port, options) end

---Begins to speak TLS on a plain connection that stands: STARTTLS, or a driver's own way. Waits. What it trusts is a
---table of gate.tls's options, or what that made; nothing: the system's roots. The certificate must bear the name that
---was connected to, unless they say another. `require "ssl"` gives LuaSec's names to this. Connections for a pool are
---made with connect's `tls` instead.
---
---World failures: `tls_failed`, `certificate`, `timeout`, `closed`, after which the connection is lost; `dirty`: bytes
---came before the handshake, from anybody. Raises if it speaks TLS already.
---
---```lua
---sock:send "STARTTLS\r\n"
---assert(sock:receive() == "OK")
---assert(sock:sslhandshake { name = "mail.internal" })
---```
---@param tls? moongate.Tls|moongate.TlsOptions
---@param name? string what the certificate must bear, in place of theirs
---@return integer? one
---@return string? word
---@return string? sentence
function Socket:sslhandshake(tls, name) end

---Sends a string, or what `string.sub(data, i, j)` is of it. Waits only while more than 64 KiB are on their way. What
---was taken over counts as sent.
---
---World failures: nil, `closed` or `timeout`, and the place of the last byte that was sent.
---
---```lua
---assert(sock:send "PING\r\n")
---```
---@param data string
---@param i? integer
---@param j? integer
---@return integer? last the place of the last byte that was sent
---@return string? word
---@return integer? last the same after a failure
function Socket:send(data, i, j) end

---Receives a line (`"*l"`, the default: to the next LF, which is dropped, and so is every CR), all until the peer
---closes (`"*a"`; a TLS stream whose end its peer did not announce is `closed`, not all), or so many bytes. Waits until
---all of it is there, 32 MiB at most.
---
---World failures: nil, `closed` or `timeout`, and what came before; it is not received again. `too_large` (with a
---sentence): more than 32 MiB came, or the worker holds 256 MiB for sockets; the socket is closed then.
---
---```lua
---local line, word, partial = sock:receive()
---local body = sock:receive(tonumber(line))
---```
---@param pattern? string|integer "*l", "*a" or a number of bytes
---@param prefix? string put before what is received, and counted with it: the partial result of an earlier call
---@return string? data
---@return string? word
---@return string? partial
function Socket:receive(pattern, prefix) end

---Waits until there is something to receive, bytes or an end; false when the time has passed.
---
---```lua
---if sock:readable(0.1) then line = sock:receive() end
---```
---@param seconds? moongate.Seconds default 0: look once
---@return boolean
function Socket:readable(seconds) end

---Closes it; what was sent is still delivered. A strand that waits in it is told `closed`. Also what `<close>` does.
---
---```lua
---sock:close()
---```
---@return integer one
function Socket:close() end

---Closes one direction: "send" (the peer sees the end of the stream), "receive", or "both" (default).
---
---```lua
---sock:send(request)
---sock:shutdown "send"
---```
---@param mode? string
---@return integer? one
---@return string? word
---@return string? sentence
function Socket:shutdown(mode) end

---Bounds waiting: with mode "b" (default) from one arrival of bytes to the next, 60 s unless set; with "t" for a
---method in all, no bound unless set. nil or a negative number: no bound. 0: look once.
---
---```lua
---sock:settimeout(0.2)
---sock:settimeout(2, "t")
---```
---@param seconds? number
---@param mode? string
---@return integer one
function Socket:settimeout(seconds, mode) end

---Sets "tcp-nodelay" and "keepalive" (both are on), "tcp-keepidle" (seconds, 60) or "reuseaddr", now or once it is
---connected. Raises for other options.
---
---```lua
---sock:setoption("tcp-nodelay", true)
---```
---@param option string
---@param value? boolean|integer
---@return integer? one
---@return string? word
---@return string? sentence
function Socket:setoption(option, value) end

---Puts the connection into the pool it was connected with, for the next one of this worker who asks for that, and
---closes the socket. Raises if it was connected without a pool: a connection may be logged in as somebody, so nobody
---gets one that does not know its name.
---
---World failures: `closed`, `dirty` (there are bytes that nobody received). The connection is closed then.
---
---```lua
---local sock = assert(gate.socket.connect("cache.internal", 6379, { pool = "cache" }))
---if sock:getreusedtimes() == 0 then log_in(sock) end
---local answer = ask(sock)
---sock:setkeepalive(30, 10)
---```
---@param seconds? moongate.Seconds it stays there; default 60
---@param size? integer connections of that pool that stay, the newest; default 30
---@return integer? one
---@return string? word
---@return string? sentence
function Socket:setkeepalive(seconds, size) end

---How often the connection came out of a pool: 0 is a fresh one.
---
---```lua
---if sock:getreusedtimes() == 0 then log_in(sock) end
---```
---@return integer? count
---@return string? word
---@return string? sentence
function Socket:getreusedtimes() end

---Who is at the other end: IP, port and "inet" or "inet6"; of a Unix socket the path.
---
---```lua
---local ip, port = sock:getpeername()
---```
---@return string? ip
---@return integer|string|nil port
---@return string? family
function Socket:getpeername() end

---The same for this end.
---
---```lua
---local ip, port = sock:getsockname()
---```
---@return string? ip
---@return integer|string|nil port
---@return string? family
function Socket:getsockname() end

---Bytes that came, bytes that were sent, and the socket's age in seconds.
---
---```lua
---local received, sent, age = sock:getstats()
---```
---@return integer received
---@return integer sent
---@return number age
function Socket:getstats() end

---Are there bytes that came and were not received yet?
---
---```lua
---if sock:dirty() then line = sock:receive() end
---```
---@return boolean
function Socket:dirty() end

---Raises: the descriptor belongs to the worker's loop. It is here to say so to drivers.
---
---```lua
---pcall(sock.getfd, sock)
---```
function Socket:getfd() end

---Names: what the resolver of backends knows or asks for. Answers are kept for their TTL, 1 s to 1 h, failures for 1 s.
---@class moongate.Dns
gate.dns = {}

---A record of kind SRV or MX.
---@class moongate.DnsRecord
---@field target string the name it leads to
---@field priority integer least first
---@field weight? integer of SRV
---@field port? integer of SRV

---Resolves a name. Waits. Without a kind: its addresses, IPv4 first, as for a backend (/etc/hosts and search domains
---count). "A" and "AAAA": those of one family. "TXT", "CNAME", "PTR" (of an IP, or of the name itself): texts. "SRV"
---and "MX": records, in the order in which they are to be used.
---
---World failures: `name_not_found` (also: no record of that kind), `name_failed`. Raises for other kinds.
---
---```lua
---for _, record in ipairs(gate.dns.resolve("_http._tcp.app.internal", "SRV") or {}) do
---  gate.log("info", record.target, record.port)
---end
---```
---@param name string
---@param kind? string
---@return string[]|moongate.DnsRecord[]|nil list never empty
---@return string? word
---@return string? sentence
function gate.dns.resolve(name, kind) end

---@class moongate.LockOptions
---@field timeout? moongate.Seconds to wait for it; default 5, 0: not at all
---@field ttl? moongate.Seconds to hold it; default 30. Then it is taken away, and the error log says so

---Locks: `gate.lock(name, options)` waits until nobody else holds the lock of that name, in any worker or generation of
---the process, and gives a lock to be held in a `<close>` variable. Who waits longest is next.
---
---It is given back at the end of the variable's scope, by `release`, when the hook ends in whatever way (also when it
---is killed or its client leaves), or when its ttl has passed, whichever is first.
---
---World failures: `timeout`, `locked` (with a timeout of 0), `overloaded` (65,536 locks and waiting scripts). Raises
---when the same hook holds that lock already.
---
---```lua
---local lock <close>, word = gate.lock("rebuild", { timeout = 2 })
---if not lock then return gate.reply(503, "busy: " .. word) end
---```
---@class moongate.Locks
---@overload fun(name: string, options?: moongate.LockOptions): moongate.Lock?, string?, string?
gate.lock = {}

---The same without waiting: nil, `locked`, sentence while somebody else holds it.
---
---```lua
---local lock <close> = gate.lock.try "refresh"
---if lock then refresh() end
---```
---@param name string
---@param options? moongate.LockOptions without timeout
---@return moongate.Lock? lock
---@return string? word
---@return string? sentence
function gate.lock.try(name, options) end

---A lock that is, or was, held.
---@class moongate.Lock
local Lock = {}

---Gives the lock back. False if it was not held any more: given back before, or taken away when its ttl passed.
---
---```lua
---if not lock:release() then gate.log("warn", "somebody else may have been at it") end
---```
---@return boolean
function Lock:release() end

---Is it still held?
---
---```lua
---if lock:held() then store(result) end
---```
---@return boolean
function Lock:held() end
