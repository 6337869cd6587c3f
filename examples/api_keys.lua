-- API keys: who calls is told by a key; what they may do, by their plan.
--
--     moongate run examples/api_keys.lua
--
--     $ curl http://127.0.0.1:8080/v1/items
--     {"error":"missing X-Api-Key"}
--     $ curl -H 'X-Api-Key: nonsense' http://127.0.0.1:8080/v1/items
--     {"error":"unknown key"}
--     $ curl -H 'X-Api-Key: k-free-1' http://127.0.0.1:8080/v1/items
--     free: GET /v1/items for acme
--     $ curl -X POST -H 'X-Api-Key: k-free-1' http://127.0.0.1:8080/v1/items
--     {"error":"the free plan is read-only"}
--     $ curl -X POST -H 'X-Api-Key: k-paid-1' http://127.0.0.1:8080/v1/items
--     paid: POST /v1/items for globex
--
-- Calls are counted per key, over all workers and across reloads, and the operator can ask for the figures:
--
--     $ curl 'http://127.0.0.1:8080/v1/usage' -H 'X-Api-Key: k-free-1'
--     acme: 1 calls

local gate = require "moongate"

-- In real life these come from a module beside this file: local keys = require "keys"
local keys = {
  ["k-free-1"] = { customer = "acme", plan = "free" },
  ["k-paid-1"] = { customer = "globex", plan = "paid" },
}

local reading = { GET = true, HEAD = true, OPTIONS = true }
local usage = gate.shared("usage", { max = "1M" })

local site = {
  listen = "127.0.0.1:8080",
  backends = { free = { "127.0.0.1:9001" }, paid = { "127.0.0.1:9002" } },
}

local function refuse(status, text)
  return gate.reply(status, ('{"error":"%s"}\n'):format(text), { ["Content-Type"] = "application/json" })
end

function site.on_request(req)
  local key = req.headers["X-Api-Key"]
  if not key then return refuse(401, "missing X-Api-Key") end
  local caller = keys[key]
  if not caller then return refuse(403, "unknown key") end
  if req.path == "/v1/usage" then
    return gate.reply(200, ("%s: %d calls\n"):format(caller.customer, usage:get(caller.customer) or 0))
  end
  if caller.plan == "free" and not reading[req.method] then return refuse(403, "the free plan is read-only") end
  usage:incr(caller.customer, 1)
  req.ctx.plan = caller.plan
  req.headers["X-Customer"] = caller.customer
  req.headers["X-Api-Key"] = nil -- a secret goes no further than it must
end

function site.pick_backend(req)
  return req.ctx.plan
end

-- The two backends, played by two more sites.
local function server(port, name)
  return {
    listen = "127.0.0.1:" .. port,
    on_request = function(req)
      return gate.reply(200, ("%s: %s %s for %s\n"):format(name, req.method, req.path, req.headers["X-Customer"]))
    end,
  }
end

return { sites = { site, server(9001, "free"), server(9002, "paid") } }
