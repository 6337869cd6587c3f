-- docs/settings.md against the table the config reader is driven by: the same names, the same defaults.

local headings = {
  TOP = "## The top", LOG = "### `log`", LUA = "### `lua`", SITE = "## A site", LISTENER = "### A listener",
  TIMEOUTS = "### `timeouts`", COMPRESS = "### `compress`", CACHE = "### `cache`", DISK = "### `cache.disk`",
  BACKEND = "## A backend",
  SERVER = "### A server",
  BACKEND_TIMEOUTS = "### `timeouts` of a backend", KEEPALIVE = "### `keepalive`", QUEUE = "### `queue`",
  RETRY = "### `retry`", HEALTH = "### `health`", BACKEND_TLS = "### `tls` of a backend",
  FORWARD = "### `forward`", EGRESS = "### `egress`", PARENT = "### `parent`",
  LISTENER_TLS = "### TLS to clients", CERTIFICATE = "### A certificate",
}

local read_file = require("support.process").read_file

local source, manual = read_file "core/server/settings_table.c", read_file "docs/settings.md"

local constants = {}
for name, value in source:gmatch "#define (%u+) ([%d.]+)\n" do constants[name] = tonumber(value) end

-- Rows of the C table: place, name, type, the default as a number, and whether there is a function behind it.
local function each_row()
  return coroutine.wrap(function()
    for place, name, kind, rest in source:gmatch 'ROW%((%u[%u_]*), "([%w_]+)", (%u[%u%d]*),(.-)%),\n' do
      local preset = rest:match "%.preset = ([^,]+)"
      coroutine.yield(place, name, kind, preset and load("return " .. preset, "=preset", "t", constants)())
    end
  end)
end

-- Rows of the manual: defaults by heading and name.
local documented, heading = {}, nil
for line in manual:gmatch "[^\n]*" do
  if line:find "^#" then heading = line end
  local name, default = line:match "^| `([%w_]+)` |[^|]*|([^|]*)|."
  if name then
    documented[heading] = documented[heading] or {}
    documented[heading][name] = default:match "^ *(.-) *$"
  end
end

local units = { ms = 0.001, s = 1, m = 60, h = 3600, K = 1024, M = 1048576, G = 1073741824, [""] = 1 }

local function number_of(text)
  local digits, unit = text:match "^([%d.]+)(%a*)$"
  return digits and units[unit] and tonumber(digits) * units[unit]
end

describe("docs/settings.md", function()
  it("has every setting there is, and no other", function()
    local known = {}
    for place, name in each_row() do
      local rows = documented[headings[place]]
      assert(rows and rows[name], ("%s.%s is not under %q"):format(place, name, headings[place]))
      known[headings[place] .. name] = true
    end
    assert.is_true(next(known) ~= nil)
    for head, rows in pairs(documented) do
      for name in pairs(rows) do assert(known[head .. name], ("%s: there is no setting %s"):format(head, name)) end
    end
  end)

  it("has their defaults", function()
    for place, name, kind, preset in each_row() do
      if preset and (kind == "SECONDS" or kind == "COUNT" or kind == "SIZE" or kind == "SIZE32") then
        local default = documented[headings[place]][name]
        assert.equal(preset, number_of(default), ("%s.%s: %s"):format(place, name, default))
      end
    end
  end)

  it("names every hook", function()
    for place, name in source:gmatch 'HOOK_ROW%((%u+), "([%w_]+)"' do
      local text = place == "FAIL" and "\n| `" .. name .. "` |" or "`" .. name .. "`"
      assert(manual:find(text, 1, true), name)
    end
  end)
end)
