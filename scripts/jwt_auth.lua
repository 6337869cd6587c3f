-- Lets in who brings a JSON Web Token (RFC 7519) that is signed by one of these keys and says what it should.
--
--     use = { require "scripts.jwt_auth" {
--       jwks = "https://id.example/.well-known/jwks.json", algorithms = { "RS256", "ES256" },
--       issuer = "https://id.example", audience = "shop", claims = { sub = "X-User", scope = "X-Scope" },
--     } }
--
-- The token stands in `Authorization: Bearer ...`, or where `header` or `cookie` says. It must say when it expires,
-- unless `required_claims` says otherwise. `scopes` and `check` ask for more. The claims stand in `req.ctx.claims`,
-- their `sub` in `req.ctx.user`, and what `claims` names in fields of the request; the same fields of a client are
-- removed. The token goes no further, unless `forward` is true.
--
-- Without a token the answer is 401, with a bad one 401, without the scopes 403, all with the challenge of RFC 6750;
-- 503 if there are no keys to verify with. A key beside a reload: `keys` takes what gate.jwt.verify takes, such as
-- gate.crypto.key_file "key.pem", or a secret for HS256.

local gate = require "moongate"
local bearer = require "moongate.bearer"

---@class jwt_auth.Options : bearer.Options
---@field jwks? string|table a URL, a file or a JWK Set; either this or `keys`
---@field jwks_options? moongate.JwksOptions
---@field keys? moongate.Key|string|moongate.Key[]|fun(header: table): any
---@field algorithms string[] those that are accepted, such as { "RS256" }
---@field issuer? string|string[]
---@field audience? string|string[]|false
---@field leeway? moongate.Seconds for clocks that differ, 30
---@field max_age? moongate.Seconds since the token was issued
---@field typ? string such as "at+jwt" (RFC 9068)
---@field required_claims? string[] default { "exp" }
---@field remember? boolean keep signatures found good; false

local known = {
  jwks = "any", jwks_options = "table", keys = "any", algorithms = "table", issuer = "any", audience = "any",
  leeway = "any", max_age = "any", typ = "string", required_claims = "table", remember = "boolean",
}
for name, kind in pairs(bearer.known) do known[name] = kind end

-- A token that is none: what verify raises for it is about the options.
local function check_verify(settings)
  local ok, why = pcall(gate.jwt.verify, "", settings)
  if not ok then return (tostring(why):gsub("^gate%.jwt%.verify: ", "")) end
end

---@param options jwt_auth.Options
---@return moongate.Policy
return function(options)
  local problem = bearer.check(options, known)
  if not problem and (options.jwks == nil) == (options.keys == nil) then problem = "expected either jwks or keys" end
  if not problem and options.jwks_options and not options.jwks then problem = "jwks_options: there is no jwks" end
  if problem then error("jwt_auth: " .. problem, 2) end

  local keys = options.keys
  if options.jwks then
    local ok, made = pcall(gate.jwks, options.jwks, options.jwks_options)
    if not ok then error("jwt_auth: " .. tostring(made):gsub("^.-gate%.jwks: ", "jwks: "), 2) end
    keys = made
  end
  local settings = {
    keys = keys, algorithms = options.algorithms, issuer = options.issuer, audience = options.audience,
    typ = options.typ, leeway = options.leeway or 30, max_age = options.max_age,
    required = options.required_claims or { "exp" }, remember = options.remember,
  }
  if #settings.required == 0 then settings.required = nil end
  problem = check_verify(settings)
  if problem then error("jwt_auth: " .. problem, 2) end

  return bearer.policy(options, function(token) return gate.jwt.verify(token, settings) end)
end
