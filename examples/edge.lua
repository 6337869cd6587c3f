-- Edge: keys and their limits, an authorization service, a canary and header hygiene together; the four hooks in one
-- small policy.
--
--     moongate run examples/edge.lua
--
-- The servers on ports 9001 to 9004 are played by further sites of this file.
--
--     $ curl http://127.0.0.1:8080/
--     missing X-Api-Key
--     $ curl -s -o /dev/null -w '%{http_code}\n' -H 'X-Api-Key: wrong' http://127.0.0.1:8080/
--     403
--     $ curl -H 'X-Api-Key: key-of-ada' http://127.0.0.1:8080/hello
--     stable: /hello for ada
--     $ curl -H 'X-Api-Key: key-of-sue' http://127.0.0.1:8080/hello
--     canary: /hello for sue
--
-- A key may come a hundred times a minute, twenty of them at once:
--
--     $ curl -s -H 'X-Api-Key: eager' 'http://127.0.0.1:8080/[1-40]' | tail -1
--     slow down
--     $ curl -si -H 'X-Api-Key: eager' 'http://127.0.0.1:8080/[1-40]' | grep -i retry-after | tail -1
--     Retry-After: 1
--
-- The canary fails at /report; the user gets the answer of the stable version. Whose software it is, nobody needs to
-- know:
--
--     $ curl -H 'X-Api-Key: key-of-sue' http://127.0.0.1:8080/report
--     stable: /report for sue
--     $ curl -si -H 'X-Api-Key: key-of-ada' http://127.0.0.1:8080/hello | grep -i ^server || echo no Server field
--     no Server field

local gate = require "moongate"
local per_key = gate.limit { name = "per-key", rate = 100, per = 60, burst = 20 }

local site = {
  listen   = "127.0.0.1:8080",
  backends = {
    stable = { "127.0.0.1:9001", "127.0.0.1:9002", balance = "least_conn", health = { path = "/healthz" } },
    canary = { "127.0.0.1:9003" },
    auth   = { "127.0.0.1:9004" },
  },
  cache = { memory = "256M" },
}

function site.on_request(req)
  local key = req.headers["X-Api-Key"]
  if not key then return gate.reply(401, "missing X-Api-Key\n") end
  local ok, wait = per_key:take(key)
  if not ok then return gate.reply(429, "slow down\n", { ["Retry-After"] = math.ceil(wait) }) end
  local auth = gate.fetch("auth", { path = "/check", headers = { ["X-Api-Key"] = key }, timeout = 0.2 })
  if not auth or auth.status ~= 200 then return gate.reply(403) end
  req.headers["X-User"] = auth.headers["X-User"]
end

-- What makes answers to one target differ.
function site.cache_key(req)
  return req.target, req.headers["X-User"], req.cookies.lang
end

function site.pick_backend(req)
  if gate.hash(req.headers["X-User"]) % 100 < 5 then return { "canary", "stable", retry_on = { "connect", "5xx" } } end
  return "stable"
end

function site.on_response(_req, res)
  res.headers["Server"] = nil
end

-- The servers.
local keys = { ["key-of-ada"] = "ada", ["key-of-sue"] = "sue" }

local function auth(req)
  local user = keys[req.headers["X-Api-Key"] or ""]
  if not user then return 403 end
  return gate.reply(200, "", { ["X-User"] = user })
end

local function app(name)
  return function(req)
    if req.path == "/healthz" then return 200 end
    if name == "canary" and req.path == "/report" then return 500 end
    local text = ("%s: %s for %s\n"):format(name, req.path, req.headers["X-User"])
    return gate.reply(200, text, { ["Server"] = "Moonshine 0.9" })
  end
end

return {
  sites = {
    site,
    { listen = { "127.0.0.1:9001", "127.0.0.1:9002" }, on_request = app "stable" },
    { listen = "127.0.0.1:9003", on_request = app "canary" },
    { listen = "127.0.0.1:9004", on_request = auth },
  },
}
