-- Asks the clients of a forward proxy for a name and a password (RFC 9110 11.7.1, RFC 7617). Both are readable on the
-- way: let clients reach the proxy by TLS, or by a network you trust.
--
--     use = { require "scripts.proxy_auth" { users = { ada = "$scrypt$ln=15,r=8,p=1$…$…" } } }
--
-- `users` are hashes as gate.crypto.password_hash makes them, or passlib. To ask somebody else, give `check` in their
-- place; it may wait, and says yes by anything true:
--
--     check = function(user, password)
--       local answer = gate.fetch("accounts", { path = "/login", method = "POST", body = user .. "\n" .. password })
--       return answer and answer.status == 200
--     end
--
-- A hash takes long to verify, which is its purpose, and a proxy is asked with every request. So a yes is kept for
-- `ttl` seconds, by worker, as a digest under a key that nobody else has. A no is not kept; when more are being
-- verified than there is time for, the answer is 503. Names and addresses that guess are for gate.limit.
--
-- Who it is stands in `req.ctx.user`. Requests that do not name their own target, on a site that has backends as well,
-- are not asked.

local gate = require "moongate"
local basic = require "moongate.basic"
local options = require "moongate.options"

---@class proxy_auth.Options
---@field users? table<string, string> hashes of passwords by name
---@field check? fun(user: string, password: string): boolean? in the place of `users`
---@field realm? string what the client's dialog shows, "proxy"
---@field ttl? number seconds for which a yes is kept, 300; 0: not at all

local known = { users = "table", check = "function", realm = "string", ttl = "ttl" }

local KEPT_MOST <const> = 10000 -- of a worker

local function check_users(users)
  if not next(users) then return "users: is empty: nobody could come in" end
  for name, hash in pairs(users) do
    if type(name) ~= "string" or type(hash) ~= "string" then return "users: expected names = hashes" end
    if name:find(":", 1, true) then return ("users: %q: a name has no colon"):format(name) end
    if not hash:find "^%$scrypt%$" and not hash:find "^%$pbkdf2%-sha%d+%$" then
      return ("users.%s: expected a hash, as gate.crypto.password_hash makes them"):format(name)
    end
  end
end

local function check_options(given)
  local problem = options.problem(given, known)
  if problem then return problem end
  if (given.users == nil) == (given.check == nil) then return "expected either users or check" end
  return given.realm and basic.check_realm(given.realm) or given.users and check_users(given.users)
end

-- A `check` by table. Whoever is not in it takes as long as somebody who is.
local function by_hash(users)
  local _, decoy = next(users)
  return function(user, password)
    local same, word = gate.crypto.password_verify(password, users[user] or decoy)
    return same and users[user] ~= nil, word
  end
end

-- Those who came in lately: digests, each with the time until which it holds.
local function make_memory(ttl)
  local key, kept, count = nil, {}, 0
  local memory = {}

  function memory.digest(field)
    key = key or gate.crypto.random(32)
    return gate.crypto.hmac("sha256", key, field)
  end

  function memory.holds(digest)
    local till = kept[digest]
    return till and gate.clock() < till
  end

  function memory.keep(digest)
    if ttl == 0 then return end
    if count >= KEPT_MOST then kept, count = {}, 0 end -- they are asked once more, no worse
    if not kept[digest] then count = count + 1 end
    kept[digest] = gate.clock() + ttl
  end

  return memory
end

---@param given proxy_auth.Options
---@return moongate.Policy
return function(given)
  options.blame("proxy_auth", check_options(given))
  local check = given.check or by_hash(given.users)
  local memory = make_memory(given.ttl or 300)
  local challenge = { ["Proxy-Authenticate"] = basic.challenge(given.realm or "proxy") }

  return {
    on_request = function(req)
      if not req.forward then return end
      local field = req.headers["Proxy-Authorization"]
      local user, password = basic.parse(field)
      if not user then return gate.reply(407, "a name and a password, please\n", challenge) end
      local digest = memory.digest(field)
      if not memory.holds(digest) then
        local yes, word = check(user, password)
        if word == "overloaded" then return gate.reply(503, "try again\n", { ["Retry-After"] = 1 }) end
        if not yes then return gate.reply(407, "a name and a password, please\n", challenge) end
        memory.keep(digest)
      end
      req.ctx.user = user
    end,
  }
end
