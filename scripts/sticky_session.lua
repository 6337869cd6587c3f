-- Sends a client to the same server again and again: by a cookie that names the server, or by a hash of a key.
--
--     use = { require "scripts.sticky_session" { backend = "app", secret = secret } }                     -- cookie
--     use = { require "scripts.sticky_session" { backend = "app", by = "header:X-Tenant" } }              -- hash
--
-- The cookie holds an HMAC of the server's address: it tells nobody what servers there are, cannot be made up, and
-- holds on every worker and after a restart, as long as secret and address stay. It is set when the server that
-- answered is not the one it names, so a client whose server is gone, unwell or draining is moved once and stays there.
--
-- The hash is a rendezvous hash by weight: a server that comes or goes moves only the clients that are its own, and
-- they come back to it. There is no cookie; who has no key (no such header) goes where the backend's `balance` says.
-- Clients who choose their key choose their server, and may all choose the same one.
--
-- A server that is not well is passed over as long as another one is; one that fails a request has the next tried
-- for it, as the backend's `retry` says. `drain` lists servers, by name or address, that keep who has their cookie and
-- get nobody new; by hash, they lose everybody at once. A function in its place is asked for each request, so that a
-- list in gate.shared can be changed without a reload:
--
--     drain = function(server) return draining:get(server.name) end
--
-- This policy answers pick_backend, for all requests or those for which `when` says so: a site's own pick_backend comes
-- before it. Servers are told apart by address, so a name that resolves to several is several.
--
-- Costs about 1.2 µs a request with three servers, and 0.2 µs for each further one; by hash 2.3 and 0.5 µs.

local gate = require "moongate"
local fields = require "moongate.fields"
local options = require "moongate.options"

---@class sticky_session.Options
---@field backend string
---@field secret? string for the cookie: at least 16 random bytes
---@field by? string|fun(req: moongate.Request): string? "header:NAME", "cookie:NAME", "arg:NAME", "ctx:NAME", "ip" or a
---function that gives a text: a hash of it chooses, in the place of a cookie
---@field cookie? string its name, "server"
---@field path? string of the cookie, "/"
---@field domain? string of the cookie
---@field max_age? moongate.Seconds how long a browser keeps the cookie; default: until it is closed
---@field same_site? "strict"|"lax"|"none" of the cookie, "lax"
---@field forward? boolean leave the cookie to the application; false
---@field drain? string[]|fun(server: moongate.Server): any servers that get nobody new
---@field when? fun(req: moongate.Request): any requests it is for; default all

local known = {
  backend = "name", secret = "secret", by = options.is_key, cookie = "token", path = "path", domain = "token",
  max_age = "seconds", forward = "boolean", when = "function",
  same_site = function(value)
    if value ~= "strict" and value ~= "lax" and value ~= "none" then return '"strict", "lax" or "none"' end
  end,
  drain = function(value)
    if type(value) ~= "function" and type(value) ~= "table" then return "a list of servers or a function" end
  end,
}

local function problem_of(given)
  local problem = options.problem(given, known, { "backend" })
  if problem then return problem end
  if (given.secret == nil) == (given.by == nil) then return "expected either secret (a cookie) or by (a hash)" end
  if not given.by then return nil end
  for _, name in ipairs { "cookie", "path", "domain", "max_age", "same_site", "forward" } do
    if given[name] ~= nil then return name .. ": is of the cookie, and with by there is none" end
  end
end

-- Which servers get nobody new.
local function drainer(drain)
  if type(drain) == "function" then return drain end
  local set = {}
  for _, name in ipairs(drain or {}) do set[name] = true end
  return function(server) return set[server.name] or set[server.address] end
end

-- Servers that may be asked, those that are well before all others: if none is, all are, as everywhere.
local function usable(servers, is_draining)
  local well, rest = {}, {}
  for _, server in ipairs(servers) do
    if not is_draining(server) then
      rest[#rest + 1] = server
      if server.healthy then well[#well + 1] = server end
    end
  end
  return #well > 0 and well or rest
end

-- The best two by rendezvous hash: whoever is highest of all, and who would be without him.
local function rendezvous(servers, key)
  local first, second, most, next_most = nil, nil, -math.huge, -math.huge
  for _, server in ipairs(servers) do
    local part = (gate.hash(server.address .. "\0" .. key) % (1 << 52) + 0.5) / (1 << 52)
    local score = -server.weight / math.log(part)
    if score > most then
      first, second, most, next_most = server, first, score, most
    elseif score > next_most then
      second, next_most = server, score
    end
  end
  return first, second
end

-- The least busy by weight: for who is new while some servers drain, and the backend cannot be asked.
local function least_busy(servers)
  local best, least = nil, math.huge
  for _, server in ipairs(servers) do
    local load = (server.active + 1) / server.weight
    if load < least then best, least = server, load end
  end
  return best
end

-- By hash -------------------------------------------------------------------------------------------------------------

local function by_hash(given)
  local backend, key_of, is_draining = given.backend, options.key(given.by), drainer(given.drain)
  return {
    pick_backend = function(req, last)
      if given.when and not given.when(req) then return end
      local key = not last and key_of(req)
      if not key then return backend end
      local first, second = rendezvous(usable(gate.backend(backend).servers, is_draining), key)
      if not first then return backend end
      local list = { backend .. "/" .. first.address, second and backend .. "/" .. second.address or backend }
      if second then list[3] = backend end
      return list
    end,
  }
end

-- By cookie -----------------------------------------------------------------------------------------------------------

local KEPT_MAX <const> = 1000

-- Marks of addresses. Addresses come and go with names that are resolved, so what is kept is bounded.
local function marker(secret, backend)
  local marks, count = {}, 0
  return function(address)
    local mark = marks[address]
    if mark then return mark end
    if count == KEPT_MAX then marks, count = {}, 0 end
    mark = gate.crypto.hmac("sha256", secret, backend .. "\0" .. address, "base64url"):sub(1, 24)
    marks[address], count = mark, count + 1
    return mark
  end
end

local function by_cookie(given)
  local backend, name, is_draining = given.backend, given.cookie or "server", drainer(given.drain)
  local mark_of = marker(given.secret, backend)
  local set_cookie, problem = fields.cookie_setter(name, {
    path = given.path, domain = given.domain, max_age = given.max_age and options.seconds(given.max_age),
    same_site = given.same_site,
  })
  options.blame("sticky_session", problem, 4)
  local drains = given.drain ~= nil
  local place = {} -- of what is left in req.ctx: nobody else's

  local function find(servers, mark)
    for _, server in ipairs(servers) do
      if server.healthy and mark_of(server.address) == mark then return server.address end
    end
  end

  -- Who is new goes where the backend says, unless that could be a server that drains.
  local function place_new(servers)
    if not drains then return backend end
    local server = least_busy(usable(servers, is_draining))
    return server and { backend .. "/" .. server.address, backend } or backend
  end

  return {
    on_request = function(req)
      if given.when and not given.when(req) then return end
      local mark = req.cookies[name]
      req.ctx[place] = mark or ""
      if mark and not given.forward then fields.remove_cookie(req, name) end
    end,

    pick_backend = function(req, last)
      local mark = req.ctx[place]
      if not mark then return end
      if last then return backend end
      if mark == "" and not drains then return backend end
      local servers = gate.backend(backend).servers
      local address = mark ~= "" and find(servers, mark)
      if not address then return place_new(servers) end
      return { backend .. "/" .. address, backend }
    end,

    on_response = function(req, res)
      local mark = req.ctx[place]
      -- An answer that no server of this backend gave tells nothing of where the client belongs.
      if not mark or res.source ~= "backend" or res.backend ~= backend then return end
      local now = mark_of(res.server)
      if now ~= mark then set_cookie(req, res, now) end
    end,
  }
end

---@param given sticky_session.Options
---@return moongate.Policy
return function(given)
  options.blame("sticky_session", problem_of(given))
  return given.by and by_hash(given) or by_cookie(given)
end
