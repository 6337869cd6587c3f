-- An API gateway: one table says which requests there are, where each goes, and who may make it how often.
--
--     moongate run examples/api_gateway.lua
--
--     $ curl http://127.0.0.1:8080/users/7
--     users: GET /internal/users/7 for nobody
--     $ curl http://127.0.0.1:8080/files/a/b.txt
--     files: GET /a/b.txt for nobody
--     $ curl -u ada:moon -X PUT http://127.0.0.1:8080/users/7
--     users: PUT /internal/users/7 for ada
--     $ curl -s -o /dev/null -w '%{http_code}\n' -X PUT http://127.0.0.1:8080/users/7
--     401
--
-- What there is no route for, and what a route does not take:
--
--     $ curl http://127.0.0.1:8080/elsewhere
--     {"error":"not found"}
--     $ curl -s -i -X DELETE http://127.0.0.1:8080/users/7 | grep -i ^allow
--     Allow: GET, HEAD, PUT
--
-- The new version of the search, for those who ask for it; the old one may be asked twice a minute:
--
--     $ curl -s -H 'X-Version: 2' 'http://127.0.0.1:8080/search?q=moon'
--     files: GET /v2/search?q=moon for nobody
--     $ curl -s -o /dev/null -w '%{http_code} ' 'http://127.0.0.1:8080/search?[1-3]'; echo
--     200 200 429...

local gate = require "moongate"
local api_gateway = require "scripts.api_gateway"
local basic_auth = require "scripts.basic_auth"

local staff = basic_auth { users = { ada = "moon" }, header = "X-User" }

local site = {
  listen = "127.0.0.1:8080",
  backends = { users = { "127.0.0.1:9001" }, files = { "127.0.0.1:9002" } },
  use = {
    api_gateway {
      json = true,
      version = { header = "X-Version" },
      defaults = { timeout = "2s", limit = { rate = 100, per = "1m" }, headers = { ["X-User"] = false } },
      routes = {
        { path = "/users/{id}", methods = { "GET" }, backend = "users", rewrite = "/internal/users/{id}" },
        {
          path = "/users/{id}", methods = { "PUT" }, backend = "users", rewrite = "/internal/users/{id}",
          use = { staff }, headers = {},
        },
        { path = "/files/{path*}", backend = "files", strip = "/files" },
        { path = "/search", backend = "files", limit = { rate = 2, per = "1m" } },
        { path = "/search", backend = "files", version = "2", add = "/v2" },
        { path = "/status", reply = gate.reply(200, "well\n") },
      },
    },
  },
}

-- The backends, played by two more sites.
local function server(port, name)
  return {
    listen = "127.0.0.1:" .. port,
    on_request = function(req)
      local target = req.path .. (req.query and "?" .. req.query or "")
      return gate.reply(200, ("%s: %s %s for %s\n"):format(name, req.method, target, req.headers["X-User"] or "nobody"))
    end,
  }
end

return { sites = { site, server(9001, "users"), server(9002, "files") } }
