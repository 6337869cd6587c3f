-- For the specs of scripts/: a site that uses one of them before a backend that answers "ok".

local support = require "support"

local policy = {}

local config = [[
return {
  listen = { "127.0.0.1:$PORT", "unix:$DIR/listen.sock" }, backends = { app = { "$BACKEND" } }, $SETTINGS
  use = { require "scripts.$SCRIPT" $OPTIONS },
  on_request = function(req)
    if req.path == "/reply" then return 204 end
    req.headers["X-Seen-User"] = req.ctx.user
  end,
}
]]

---@param script string its name in scripts/
---@param options string Lua text
---@param settings? { site?: string, headers?: table, workers?: integer } more of the site; its backend's fields
---@return integer port
---@return support.Backend backend
---@return support.Moongate proxy
function policy.start(script, options, settings)
  settings = settings or {}
  local backend = support.http.backend(function() return 200, settings.headers, "ok" end)
  local values = { BACKEND = backend, SCRIPT = script, OPTIONS = options, SETTINGS = settings.site or "" }
  local workers = settings.workers
  local proxy = support.moongate.start { config = config, values = values, workers = workers }
  return proxy.port, backend, proxy
end

---Holds what `check` says of wrong options against sentences it must contain.
---@param script string
---@param problems table<string, string> sentences by options
function policy.assert_refused(script, problems)
  local file = support.temp_dir() .. "/refused.lua"
  for options, sentence in pairs(problems) do
    local text = ('return { listen = 8080,\n  use = { require "scripts.%s" %s } }'):format(script, options)
    support.process.write_file(file, text)
    local status, out, err = support.moongate.run { "check", file }
    local said = out .. err
    assert(status == 1 and said:find(sentence, 1, true), ("%s %s: %s"):format(script, options, said))
    -- The line in the operator's file is blamed, not one of the script's.
    assert(said:find("refused.lua:2:", 1, true), said)
  end
end

return policy
