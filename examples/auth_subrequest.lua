-- Authorization by a service: each request is shown to it first, and goes on only if it agrees.
--
--     moongate run examples/auth_subrequest.lua
--
-- The service on port 9002 knows two tokens; the application on port 9001 learns from the proxy who is asking, and
-- cannot be told so by the client:
--
--     $ curl http://127.0.0.1:8080/
--     who are you?
--     $ curl -H 'Authorization: Bearer ada-token' http://127.0.0.1:8080/
--     hello ada
--     $ curl -H 'Authorization: Bearer ada-token' -H 'X-User: root' http://127.0.0.1:8080/
--     hello ada
--     $ curl -H 'Authorization: Bearer bob-token' http://127.0.0.1:8080/admin
--     bob may not GET /admin
--
-- A service that is slow or gone is not a yes. While the hook waits for it, other requests go on.
--
--     $ curl -H 'Authorization: Bearer slow-token' http://127.0.0.1:8080/
--     the authorization service does not answer

local gate = require "moongate"

local site = {
  listen = "127.0.0.1:8080",
  backends = {
    default = { "127.0.0.1:9001" },
    auth = { "127.0.0.1:9002" },
  },
}

function site.on_request(req)
  local token = req.headers["Authorization"]
  if not token then return gate.reply(401, "who are you?\n", { ["WWW-Authenticate"] = "Bearer" }) end
  local answer, word = gate.fetch("auth", {
    path = "/check",
    headers = { ["Authorization"] = token, ["X-Method"] = req.method, ["X-Path"] = req.path },
    timeout = 0.5,
  })
  if not answer then
    gate.log("warn", "authorization: " .. word)
    return gate.reply(503, "the authorization service does not answer\n")
  end
  if answer.status ~= 200 then return gate.reply(403, answer.body) end
  req.headers["X-User"] = answer.headers["X-User"]
  req.headers["Authorization"] = nil
end

-- Service and application, played by two more sites.
local auth = { listen = "127.0.0.1:9002" }
local app = { listen = "127.0.0.1:9001" }

local users = { ["Bearer ada-token"] = "ada", ["Bearer bob-token"] = "bob" }

function auth.on_request(req)
  if req.headers["Authorization"] == "Bearer slow-token" then gate.sleep(2) end
  local user = users[req.headers["Authorization"] or ""]
  if not user then return gate.reply(403, "unknown token\n") end
  local method, path = req.headers["X-Method"], req.headers["X-Path"]
  if path == "/admin" and user ~= "ada" then
    return gate.reply(403, ("%s may not %s %s\n"):format(user, method, path))
  end
  return gate.reply(200, "", { ["X-User"] = user })
end

function app.on_request(req)
  return gate.reply(200, ("hello %s\n"):format(req.headers["X-User"]))
end

return { sites = { site, auth, app } }
