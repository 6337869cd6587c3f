-- `moongate explain`: what a config does with one request, told hook by hook. It is a rehearsal, the test kit's: the
-- real core runs the config, and what backends and URLs would answer is canned, as the first lines say.

local core = require "moongate_kit"
local testing = require "moongate.testing"
local wire = require "moongate.testing.wire"

local explain = {}

-- The command line ----------------------------------------------------------------------------------------------------

-- "503", "200 some text", "connect_refused" as the kit's answers.
local function parse_answer(text)
  local status, body = text:match "^(%d%d%d) ?(.*)$"
  if status then return { status = math.tointeger(tonumber(status)), body = body } end
  return { error = text }
end

-- "NAME=ANSWER"; URLs may have "=" in them, answers only behind a space, which URLs do not have.
local function parse_pair(option, text)
  local name, answer = text:match "^([^ ]-)=(%d%d%d .*)$"
  if not name then name, answer = text:match "^(.+)=([%l_]+)$" end
  if not name then name, answer = text:match "^(.-)=(%d%d%d.*)$" end
  if not name then
    error(("%s %s: expected NAME=ANSWER, a status, perhaps with a text, or what fails"):format(option, text), 0)
  end
  return name, wire.normalise(parse_answer(answer), ("%s %s"):format(option, text))
end

-- What each option does to the plan.
local options = {}

options["--header"] = function(plan, text)
  local name, value = text:match "^([^:]+):[ \t]*(.*)$"
  if not name then error(("--header %s: expected 'Name: value'"):format(text), 0) end
  local headers = plan.request.headers
  headers[name] = headers[name] or {}
  table.insert(headers[name], value)
end

options["--client"] = function(plan, text) plan.request.client = { ip = text } end
options["--site"] = function(plan, text) plan.request.site = text end
-- C has seen to these.
for _, name in ipairs { "--body", "--keys", "--user" } do options[name] = function() end end

options["--json"] = function(plan) plan.json = true end

options["--backend"] = function(plan, text)
  local name, answer = parse_pair("--backend", text)
  plan.backends[name] = answer
end

options["--stub"] = function(plan, text)
  local url, answer = parse_pair("--stub", text)
  if not url:find "^https?://." then error(("--stub %s: expected URL=ANSWER, http or https"):format(text), 0) end
  plan.stubs[url] = answer
end

-- "http://host/path" names the host as well.
local function set_target(request, target)
  if not target:find "^/" and not target:find "^https?://" and target ~= "*" and request.method ~= "CONNECT" then
    error(("explain: %s is no TARGET: expected /path, a URL or *"):format(target), 0)
  end
  local host, path = target:match "^https?://([^/?#]+)(.*)$"
  if host then
    request.host = host
    target = path
  end
  request.path = target == "" and "/" or target
end

local function read_plan(args)
  local operands = args.operands
  local plan = {
    file = operands[1], request = { headers = {}, body = args.body }, backends = { ["*"] = { status = 200 } },
    stubs = { ["http://*"] = { status = 200 }, ["https://*"] = { status = 200 } },
  }
  for _, said in ipairs(args) do options[said[1]](plan, said[2]) end
  if #operands == 1 then error("explain needs a TARGET: moongate explain FILE /path", 0) end
  if #operands == 3 then plan.request.method = operands[2] end
  set_target(plan.request, operands[#operands])
  return plan
end

-- Text ----------------------------------------------------------------------------------------------------------------

local shown = 400

-- A value on one line, as Lua writes it.
local function quote(text)
  if not text then return "nil" end
  local cut = #text > shown and text:sub(1, shown) or text
  cut = cut:gsub('[%c"\\]', function(c) return c == "\n" and "\\n" or c == "\r" and "\\r" or ("\\%s"):format(
    c == '"' and c or c == "\\" and c or ("%03d"):format(c:byte())) end)
  return ('"%s"%s'):format(cut, #text > shown and (" … (%d bytes)"):format(#text) or "")
end

local function write_key(key)
  local parts = {}
  for i = 1, key.n do parts[i] = type(key[i]) == "string" and quote(key[i]) or tostring(key[i]) end
  return table.concat(parts, ", ")
end

-- What a hook decided, in words.
local function verdict_of(hook)
  if hook.verdict == "reply" then return ("reply %d"):format(hook.status) end
  if hook.verdict == "pick" then return "pick " .. hook.picked end
  if hook.verdict == "key" then return "key " .. write_key(hook.key) end
  if hook.verdict == "no" and hook.hook == "on_connect" then return "not let in" end
  if hook.verdict == "no" then return hook.hook == "cache_key" and "not cached" or "no other" end
  if hook.error and hook.verdict == "continue" then return "failed; the site goes on" end
  return hook.verdict
end

local function indent(text, by)
  return (text:gsub("\n+$", ""):gsub("\n", "\n" .. by))
end

local function width_of(list, field)
  local width = 0
  for _, one in ipairs(list) do width = math.max(width, utf8.len(one[field]) or #one[field]) end
  return width
end

local function print_hooks(hooks)
  local width = width_of(hooks, "policy")
  for _, hook in ipairs(hooks) do
    local took = hook.time > 0 and ("  (%g s)"):format(hook.time) or ""
    print(("  %-" .. width .. "s  %s%s"):format(hook.policy, verdict_of(hook), took))
    local fields = width_of(hook.changes, "field")
    for _, change in ipairs(hook.changes) do
      local line = "      %-" .. fields .. "s  %s -> %s"
      print(line:format(change.field, quote(change.before), quote(change.after)))
    end
    if hook.error then print("      " .. indent(hook.error, "      ")) end
  end
end

local function print_fetched(fetched)
  if #fetched == 0 then return end
  print "\nasked (canned answers):"
  local rows = {}
  for i, got in ipairs(fetched) do
    rows[i] = { whom = got.url or got.backend .. "/" .. got.server, got = got }
  end
  local width = width_of(rows, "whom")
  for _, row in ipairs(rows) do
    local got = row.got
    local what = got.method and ("%s %s"):format(got.method, got.target) or "connect"
    print(("  %-" .. width .. "s  %s: %s"):format(row.whom, what, got.error or got.status or "?"))
  end
end

local function print_answer(res)
  if res.turned_away then
    print "\nanswer: none, the connection is closed"
    return
  end
  local origin = "a reply"
  if res.source == "backend" then
    origin = ("from %s/%s"):format(res.tried[#res.tried], res.servers[#res.servers])
  elseif res.source == "cache" then
    origin = "from the cache"
  elseif res.error then
    origin = res.error
  end
  local took = res.time > 0 and (", after %g s"):format(res.time) or ""
  print(("\nanswer: %d, %s%s"):format(res.status, origin, took))
  for name, value in pairs(res.headers) do print(("  %s: %s"):format(name, value)) end
  if res.body ~= "" then print("  body: " .. quote(res.body)) end
end

local function print_all(plan, res)
  local method = plan.request.method or (plan.request.body and "POST" or "GET")
  print(("%s %s, site %s of %s"):format(method, plan.request.path, res.site or "(none)", plan.file))
  print "nothing was sent: backends and URLs answered 200, or as --backend and --stub say\n"
  if #res.hooks == 0 then print "  no hook was asked" end
  print_hooks(res.hooks)
  print_fetched(res.fetched)
  print_answer(res)
  if #res.logs == 0 then return end
  print "\nlog:"
  for _, line in ipairs(res.logs) do print(("  %-5s %s"):format(line.level, indent(line.text, "        "))) end
end

-- JSON ----------------------------------------------------------------------------------------------------------------

local function lines_of(headers)
  local lines = {}
  for name, value in pairs(headers) do lines[#lines + 1] = { name, value } end
  return lines
end

local function without_n(key)
  if not key then return nil end
  local list = {}
  for i = 1, key.n do list[i] = key[i] == nil and core.null or key[i] end
  return list
end

local function as_plain(res)
  local hooks, fetched = {}, {}
  for i, hook in ipairs(res.hooks) do
    local copy = {}
    for name, value in pairs(hook) do copy[name] = value end
    copy.key = without_n(hook.key)
    hooks[i] = copy
  end
  for i, got in ipairs(res.fetched) do
    fetched[i] = {
      backend = got.backend, url = got.url, server = got.server, method = got.method, target = got.target,
      status = got.status, error = got.error, body = got.body, headers = got.headers and lines_of(got.headers),
    }
  end
  return {
    status = res.status, turned_away = res.turned_away, headers = lines_of(res.headers), body = res.body,
    source = res.source, site = res.site,
    error = res.error, tried = res.tried, tries = res.tries, cache_key = without_n(res.cache_key), cache = res.cache,
    time = res.time, hooks = hooks, fetched = fetched, logs = res.logs,
  }
end

-- The whole -----------------------------------------------------------------------------------------------------------

-- The command line is wrong.
local function refuse(problem)
  io.stderr:write("moongate: ", (problem:gsub("^kit:request: ", "")), "\n")
  return 2
end

---@param args table operands, and what was said: { option, value }
---@return integer status
function explain.main(args)
  local planned, plan = pcall(read_plan, args)
  if not planned then return refuse(plan) end
  local ok, kit = pcall(testing.load, plan.file, { stubs = plan.stubs, backends = plan.backends, now = os.time() })
  if not ok then
    io.stderr:write(tostring(kit), "\n")
    return 1
  end
  local passed, res = pcall(kit.request, kit, plan.request)
  if not passed then return refuse(res) end
  if plan.json then print(core.json(as_plain(res))) else print_all(plan, res) end
  kit:close()
  return 0
end

return explain
