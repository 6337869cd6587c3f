-- Lets in who brings a token that the authorization server says is active (RFC 7662): for tokens that only it can
-- read, or that it may take back.
--
--     use = { require "scripts.oauth2_introspection" {
--       url = "https://id.example/introspect", client_id = "shop", client_secret = secret,
--       scopes = { "read" }, claims = { sub = "X-User" },
--     } }
--
-- In the place of `url`, `backend` and `path` name one of the site's backends. Answers are kept for `ttl` seconds, for
-- all workers and never beyond the token's `exp`: for so long a token that was taken back still passes. "No" is kept
-- for `negative_ttl`. Tokens are kept as digests. A server that is slow, gone, or answers something else is not a yes:
-- 503.
--
-- Where the token stands, `scopes`, `claims`, `check` and the answers are those of scripts/jwt_auth.lua.

local gate = require "moongate"
local bearer = require "moongate.bearer"

---@class oauth2_introspection.Options : bearer.Options
---@field url? string of the endpoint
---@field backend? string in its place: the name of a backend of the site
---@field path? string of the endpoint, with a backend
---@field client_id string
---@field client_secret string
---@field in_body? boolean send id and secret in the body (RFC 6749 2.3.1) instead of by Basic authentication; false
---@field timeout? number seconds for an answer, 2
---@field ttl? number seconds for which "active" is kept, 30; 0: not at all
---@field negative_ttl? number seconds for which "not active" is kept, 5; 0: not at all
---@field issuer? string what `iss` must be, if there is one
---@field audience? string what must be in `aud`
---@field size? moongate.Bytes of the dictionary that keeps answers, "16M"
---@field name? string of that dictionary; those that ask the same server in the same way may share one

local known = {
  url = "string", backend = "string", path = "string", client_id = "string", client_secret = "string",
  in_body = "boolean", timeout = "ttl", ttl = "ttl", negative_ttl = "ttl", issuer = "string", audience = "string",
  size = "any", name = "string",
}
for name, kind in pairs(bearer.known) do known[name] = kind end

local ANSWER_MAX <const> = 65536

local function check_options(options)
  local problem = bearer.check(options, known)
  if problem then return problem end
  if (options.url == nil) == (options.backend == nil) then return "expected either url, or backend and path" end
  if options.url and not options.url:find "^https?://" then
    return "url: expected one such as https://id.example/introspect"
  end
  if options.backend and (options.path or ""):sub(1, 1) ~= "/" then return "path: expected one that begins with /" end
  for _, name in ipairs { "client_id", "client_secret" } do
    if not options[name] or options[name] == "" then return name .. ": must be given" end
  end
  if options.timeout == 0 then return "timeout: expected seconds more than 0" end
end

local encode <const> = gate.url.encode

-- An answer's members; those that are null are not there. Nil, word and sentence where it is none.
local function read_answer(text)
  local answer, word, sentence = gate.json.decode(text)
  if type(answer) ~= "table" or type(answer.active) ~= "boolean" then
    return nil, word or "bad_json", sentence or "it does not say whether the token is active"
  end
  for name, value in pairs(answer) do
    if value == gate.json.null then answer[name] = nil end
  end
  return answer
end

-- Is `wanted` the claim, or in it?
local function is_in(claim, wanted)
  if type(claim) ~= "table" then return claim == wanted end
  for _, entry in ipairs(claim) do
    if entry == wanted then return true end
  end
  return false
end

---@param options oauth2_introspection.Options
---@return moongate.Policy
return function(options)
  local problem = check_options(options)
  if problem then error("oauth2_introspection: " .. problem, 2) end
  local target = options.url or options.backend
  local ttl, negative_ttl = options.ttl or 30, options.negative_ttl or 5
  local kept = gate.shared(options.name or "oauth2_introspection", { max = options.size or "16M" })
  -- Who asks whom: answers to others are not ours.
  local salt = ("%s %s %s\0"):format(target, options.path or "", options.client_id)

  local headers = { ["Content-Type"] = "application/x-www-form-urlencoded", ["Accept"] = "application/json" }
  local credentials = ""
  if options.in_body then
    credentials = ("&client_id=%s&client_secret=%s"):format(encode(options.client_id), encode(options.client_secret))
  else
    local pair = encode(options.client_id) .. ":" .. encode(options.client_secret)
    headers["Authorization"] = "Basic " .. gate.base64.encode(pair)
  end

  -- The server's answer as a table, and as it came; or nil, word, sentence.
  local function ask(token)
    local res, word, sentence = gate.fetch(target, {
      method = "POST", path = options.path, headers = headers, timeout = options.timeout or 2, max = ANSWER_MAX,
      body = "token=" .. encode(token) .. "&token_type_hint=access_token" .. credentials,
    })
    if not res then return nil, word, "the authorization server: " .. sentence end
    if res.status ~= 200 then return nil, "bad_status", "the authorization server's status is " .. res.status end
    local answer, bad, why = read_answer(res.body)
    if not answer then return nil, bad, "the authorization server's answer: " .. why end
    return answer, res.body
  end

  -- Keeps an answer no longer than it may be true. A full dictionary keeps less: no harm.
  local function keep(key, answer, text)
    local seconds = answer.active and ttl or negative_ttl
    if answer.active and math.type(answer.exp) then seconds = math.min(seconds, answer.exp - gate.now()) end
    if seconds > 0 then kept:set(key, answer.active and text or false, seconds) end
  end

  -- The server said yes: is it for us, and now?
  local function judge(answer)
    if answer.exp ~= nil and not (math.type(answer.exp) and answer.exp > gate.now()) then
      return nil, "expired", "the token has expired"
    end
    if math.type(answer.nbf) and answer.nbf > gate.now() then return nil, "not_yet", "the token is not valid yet" end
    if options.issuer and answer.iss ~= nil and answer.iss ~= options.issuer then
      return nil, "wrong_issuer", "the token was issued by somebody else"
    end
    if options.audience and not is_in(answer.aud, options.audience) then
      return nil, "wrong_audience", "the token is for somebody else"
    end
    return answer
  end

  return bearer.policy(options, function(token)
    local key = gate.crypto.digest("sha256", salt .. token, "base64url")
    local text = kept:get(key)
    if text == false then return nil, "inactive", "the token is not active (kept)" end
    local answer = text and read_answer(text)
    if not answer then
      local came, word_or_text, sentence = ask(token)
      if not came then return nil, word_or_text, sentence end
      answer = came
      keep(key, answer, word_or_text)
    end
    if not answer.active then return nil, "inactive", "the token is not active" end
    return judge(answer)
  end)
end
