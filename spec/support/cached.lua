---A proxy with a cache, before a backend that answers by path.
local http = require "support.http"
local moongate = require "support.moongate"

local cached = {}

---@class support.CachedOptions
---@field site string the site's settings but listen and backends, as Lua text
---@field policy? string more of the file, where `site` and `gate` are known
---@field workers? integer

---`routes["/a"] = function(request) … end` answers for a target, or for a path with any query; others get 404.
---@param options support.CachedOptions
---@return table gate, support.Backend backend, table<string, fun(request: support.Request): any, any, any> routes
function cached.start(options)
  local routes = {}
  local backend = http.backend(function(request)
    local route = routes[request.target] or routes[request.target:match "^[^?]*"]
    if not route then return 404, {}, "nothing here\n" end
    return route(request)
  end)
  local gate = moongate.start { values = { BACKEND = backend }, workers = options.workers, config = ([[
    local gate = require "moongate"
    local site = { listen = "127.0.0.1:$PORT", backends = { app = { "$BACKEND" } }, %s }
    %s
    return site
  ]]):format(options.site, options.policy or "") }
  return gate, backend, routes
end

---How many requests for that target have come to the backend.
function cached.asked(backend, target)
  local n = 0
  for _, request in ipairs(backend.requests) do
    if request.target == target then n = n + 1 end
  end
  return n
end

return cached
