-- Reads JSON, for what commands and the admin listener print. Strings with \u escapes are left as they are.

local json = { null = setmetatable({}, { __tostring = function() return "null" end }) }

local read

local function skip(text, at) return text:match("^%s*()", at) end

local function read_string(text, at)
  local raw, after = "", at + 1
  while true do
    local part, stop, next_at = text:match('^([^"\\]*)(["\\])()', after)
    raw = raw .. assert(part, "a string without an end")
    if stop == '"' then return raw, next_at end
    local escaped = text:sub(next_at, next_at)
    raw = raw .. (({ n = "\n", t = "\t", r = "\r" })[escaped] or escaped)
    after = next_at + 1
  end
end

local function read_list(text, at, close, add)
  at = skip(text, at + 1)
  while text:sub(at, at) ~= close do
    at = skip(text, add(at))
    if text:sub(at, at) == "," then at = skip(text, at + 1) end
    assert(at <= #text, "no " .. close)
  end
  return at + 1
end

local function read_array(text, at)
  local list = {}
  at = read_list(text, at, "]", function(here)
    local value, after = read(text, here)
    list[#list + 1] = value
    return after
  end)
  return list, at
end

local function read_object(text, at)
  local object = {}
  at = read_list(text, at, "}", function(here)
    local name, after = read_string(text, here)
    local value
    value, after = read(text, text:match("^%s*:%s*()", after))
    object[name] = value
    return after
  end)
  return object, at
end

function read(text, at)
  at = skip(text, at)
  local first = text:sub(at, at)
  if first == '"' then return read_string(text, at) end
  if first == "[" then return read_array(text, at) end
  if first == "{" then return read_object(text, at) end
  local word, after = text:match("^([%w.+-]+)()", at)
  local value = ({ ["true"] = true, ["false"] = false, null = json.null })[word]
  if value == nil then value = assert(math.tointeger(tonumber(word)) or tonumber(word), "no JSON: " .. text) end
  return value, after
end

---@param text string
---@return any
function json.decode(text) return (read(text, 1)) end

return json
