-- Asks for a name and a password (RFC 7617). Over plain http both are readable on the way: put TLS in front.
--
--     use = { require "scripts.basic_auth" { realm = "staff", users = { ada = "moon" } } }
--
-- Passwords are compared in constant time, and unknown names take as long as known ones. To ask somebody else, give
-- `check` in the place of `users`; it may wait:
--
--     check = function(user, password)
--       local answer = gate.fetch("accounts", { path = "/login", method = "POST", body = user .. "\n" .. password })
--       return answer and answer.status == 200
--     end
--
-- Who it is stands in `req.ctx.user`, and with `header` in a field of the request. The Authorization field is not
-- forwarded unless `forward` is true.

local gate = require "moongate"
local basic = require "moongate.basic"
local options = require "moongate.options"

---@class basic_auth.Options
---@field users? table<string, string> passwords by name
---@field check? fun(user: string, password: string): boolean? in the place of `users`
---@field realm? string what the client's dialog shows, "restricted"
---@field header? string field of the request that tells the application who it is
---@field forward? boolean leave the Authorization field to the application; false
---@field except? string[] paths that are open, with all below them

local known = {
  users = "table", check = "function", realm = "string", header = "token", forward = "boolean", except = "paths",
}

local function check_users(users)
  if not next(users) then return "users: is empty: nobody could come in" end
  for name, password in pairs(users) do
    if type(name) ~= "string" or type(password) ~= "string" then return "users: expected names = passwords" end
    if name:find(":", 1, true) then return ("users: %q: a name has no colon"):format(name) end
    if password == "" then return ("users.%s: the password is empty"):format(name) end
  end
end

local function problem_of(given)
  local problem = options.problem(given, known)
  if problem then return problem end
  if (given.users == nil) == (given.check == nil) then return "expected either users or check" end
  return given.realm and basic.check_realm(given.realm) or given.users and check_users(given.users) or nil
end

-- A `check` by table. The names are no secret; that one of them exists should still not show in the time it takes.
local function by_table(users)
  return function(user, password)
    local right = users[user]
    local same = gate.equal(password, right or password .. "x")
    return right ~= nil and same
  end
end

---@param given basic_auth.Options
---@return moongate.Policy
return function(given)
  options.blame("basic_auth", problem_of(given))
  local check = given.check or by_table(given.users)
  local challenge = { ["WWW-Authenticate"] = basic.challenge(given.realm or "restricted") }

  return {
    on_request = function(req)
      if given.header then req.headers[given.header] = nil end -- a client does not say this
      if options.is_below(req.path, given.except) then return end
      local user, password = basic.parse(req.headers["Authorization"])
      if not user or not check(user, password) then
        return gate.reply(401, "a name and a password, please\n", challenge)
      end
      req.ctx.user = user
      if given.header then req.headers[given.header] = user end
      if not given.forward then req.headers["Authorization"] = nil end
    end,
  }
end
