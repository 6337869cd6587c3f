-- Bearer tokens (RFC 6750), as far as it does not matter how they are verified: where they stand in a request, what is
-- answered to who has none or a bad one, and how claims get to the application. For scripts that verify them
-- (scripts/jwt_auth.lua, scripts/oauth2_introspection.lua).
--
--     local bearer = require "moongate.bearer"
--     local problem = bearer.check(options)
--     return bearer.policy(options, function(token, req) return claims end)   -- or nil, word, sentence
--
-- The answers tell a client what it may do about it, and no more: which rule a token broke goes to the log.

local gate = require "moongate"
local fields = require "moongate.fields"
local options = require "moongate.options"

local bearer = {}

---@class bearer.Options
---@field realm? string in the challenge, "api"
---@field header? string where the token stands: default Authorization (after "Bearer "); another one holds it bare
---@field cookie? string name of a cookie that holds it, in the header's place
---@field required? boolean false: who brings no token goes on without claims; a bad one is refused all the same
---@field scopes? string[] that must all be among those of the token (`scope`, or `scp`)
---fields of the request by claim: what the application is told. A client's own are removed
---@field claims? table<string, string>
---@field forward? boolean leave the token in the request; false
---@field except? string[] paths that are open, with all below them; a client's own fields are removed there, too
---more to ask: false is 403, a reply is that; it may wait
---@field check? fun(claims: table, req: moongate.Request): boolean|moongate.Reply?

---The options of a script's own, and their types, are added to these.
bearer.known = {
  realm = "string", header = "token", cookie = "token", required = "boolean", scopes = "table", claims = "table",
  forward = "boolean", except = "paths", check = "function",
}

local TOKEN <const> = "^[%w._~+/-]+=*$"
local FIELD_MAX <const> = 4096

-- Words that blame the token. All others are ours to answer for: the keys or the server that should have been asked.
local bad_token = {
  bad_token = "the token is malformed", bad_algorithm = "the token is not signed as it should be",
  unknown_key = "the token is signed by somebody else", bad_signature = "the token's signature is wrong",
  expired = "the token has expired", not_yet = "the token is not valid yet",
  wrong_issuer = "the token was issued by somebody else", wrong_subject = "the token is about somebody else",
  wrong_audience = "the token is for somebody else", wrong_type = "the token is for something else",
  missing_claim = "the token does not say enough", inactive = "the token is not valid any more",
}

local function is_field_name(text) return type(text) == "string" and text:find "^[%w!#$%%&'*+.^_`|~-]+$" ~= nil end

local function check_claims(claims)
  for claim, field in pairs(claims) do
    if type(claim) ~= "string" then return 'claims: expected claims = fields, as in { sub = "X-User" }' end
    if not is_field_name(field) then
      return ("claims.%s: expected the name of a field, got %q"):format(claim, tostring(field))
    end
  end
end

local function check_scopes(scopes)
  for i, scope in ipairs(scopes) do
    if type(scope) ~= "string" or not scope:find '^[^%c%s"\\]+$' then
      return ("scopes[%d]: expected the name of a scope, got %q"):format(i, tostring(scope))
    end
  end
end

---What is wrong with the options, or nil. `known` has the types of all that there may be.
---@param given any
---@param known table<string, string>
---@return string? problem
function bearer.check(given, known)
  local problem = options.problem(given, known)
  if problem then return problem end
  if given.realm and given.realm:find '[%c"\\]' then return "realm: no quotes, backslashes or control bytes" end
  if given.header and given.cookie then return "expected either header or cookie" end
  return check_claims(given.claims or {}) or check_scopes(given.scopes or {})
end

-- Where the token stands
-- -------------------------------------------------------------------------------------------------

-- Two functions: one gives a request's token, nil if there is none, false if it is malformed; one takes it away.
local function place_of(given)
  if given.cookie then
    local name = given.cookie
    return function(req) return req.cookies[name] end, function(req) fields.remove_cookie(req, name) end
  end
  local field = given.header or "Authorization"
  local function remove(req) req.headers[field] = nil end
  if field:lower() ~= "authorization" then return function(req) return req.headers[field] end, remove end
  return function(req)
    local value = req.headers[field] or ""
    -- Another scheme is no token: somebody else's business. "Bearer" alone is one that is malformed.
    if (value:match "^%S*"):lower() ~= "bearer" then return nil end
    return value:match "^%S+ +(.-) *$" or false
  end, remove
end

-- What claims say
-- --------------------------------------------------------------------------------------------------------

-- The scopes of a token, as a set: RFC 8693's text with spaces, or a list.
local function scopes_of(claims)
  local set, given = {}, claims.scope or claims.scp
  if type(given) == "string" then
    for scope in given:gmatch "%S+" do set[scope] = true end
  elseif type(given) == "table" then
    for _, scope in ipairs(given) do set[scope] = true end
  end
  return set
end

local function has_scopes(claims, wanted)
  local set = scopes_of(claims)
  for _, scope in ipairs(wanted) do
    if not set[scope] then return false end
  end
  return true
end

-- A claim as the value of a field: nil for none, false for what cannot stand in one. Lists are joined with commas.
local function field_value(claim)
  if type(claim) == "table" then
    local texts = {}
    for i, entry in ipairs(claim) do
      if type(entry) == "table" then return false end
      texts[i] = tostring(entry)
      if texts[i]:find(",", 1, true) then return false end
    end
    if #texts == 0 and next(claim) ~= nil then return false end
    claim = table.concat(texts, ",")
  end
  if claim == nil then return nil end
  local text = tostring(claim)
  return #text <= FIELD_MAX and not text:find "%c" and text or false
end

-- The policy
-- -------------------------------------------------------------------------------------------------------------

---The policy. `verify` gives a token's claims, or nil, word and sentence; it may wait.
---@param given bearer.Options
---@param verify fun(token: string, req: moongate.Request): table?, string?, string?
---@return moongate.Policy
function bearer.policy(given, verify)
  local token_of, remove_token = place_of(given)
  local realm = ('Bearer realm="%s"'):format(given.realm or "api")
  local scope = given.scopes and #given.scopes > 0 and table.concat(given.scopes, " ")
  local told = given.claims or {}

  local function refuse(status, code, why)
    local challenge = code and ('%s, error="%s", error_description="%s"'):format(realm, code, why) or realm
    if code == "insufficient_scope" and scope then challenge = ('%s, scope="%s"'):format(challenge, scope) end
    return gate.reply(status, why .. "\n", { ["WWW-Authenticate"] = challenge, ["Cache-Control"] = "no-store" })
  end

  local function refuse_failed(word, sentence)
    gate.log(bad_token[word] and "info" or "warn", ("bearer token: %s (%s)"):format(sentence or word, word))
    if bad_token[word] then return refuse(401, "invalid_token", bad_token[word]) end
    return gate.reply(503, "tokens cannot be verified at the moment\n", { ["Retry-After"] = 5 })
  end

  local function set_fields(req, claims)
    for claim, field in pairs(told) do
      local value = field_value(claims[claim])
      if value == false then return refuse_failed("bad_token", "the claim " .. claim .. " cannot stand in a field") end
      req.headers[field] = value
    end
  end

  -- Whether these claims are enough: nil, or the reply.
  local function judge(req, claims)
    if scope and not has_scopes(claims, given.scopes) then
      return refuse(403, "insufficient_scope", "the token does not allow this")
    end
    local verdict = true
    if given.check then verdict = given.check(claims, req) end
    if verdict == true then return nil end
    return verdict or refuse(403, "insufficient_scope", "the token does not allow this")
  end

  return {
    on_request = function(req)
      for _, field in pairs(told) do req.headers[field] = nil end -- a client does not say this
      if options.is_below(req.path, given.except) then return end
      local token = token_of(req)
      if token == nil then
        if given.required ~= false then return refuse(401, nil, "a token, please") end
        return
      end
      if not token or not token:find(TOKEN) then return refuse(400, "invalid_request", "the token is malformed") end
      local claims, word, sentence = verify(token, req)
      if not claims then return refuse_failed(word, sentence) end
      local refused = judge(req, claims) or set_fields(req, claims)
      if refused then return refused end
      req.ctx.claims, req.ctx.user = claims, claims.sub
      if not given.forward then remove_token(req) end
    end,
  }
end

return bearer
