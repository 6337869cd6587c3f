-- A table of routes, made for looking up: by host, path, method and version.
--
--     local table = route_table.compile(list)      -- each: { path =, host =, methods =, version =, … }
--     local route, values = table:find(host, path, method, version)
--
-- Of all routes that a path fits, the most specific one that takes the method is found: for each segment from the left
-- a literal comes before a parameter, a parameter before the rest; an exact host before "*.example.com", that before
-- routes of any host. Where routes fit but none takes the method, the methods are given instead.
--
-- Paths without parameters lie in one table, by path. The others are a tree, a table for each segment: literals under
-- their text, and at the places below what is no text. A look-up costs a step for each segment, however many routes
-- there are; only where literals and parameters stand beside each other may it come back and try the other.

local route_table = {}

-- Places in a node of the tree.
local PARAM <const>, REST <const>, LEAF <const> = 1, 2, 3

local SEGMENTS_MAX <const> = 32

-- Reading patterns ----------------------------------------------------------------------------------------------------

-- The text that a segment of a pattern stands for, and what kind it is; or nil and what is wrong.
local function read_segment(segment, is_last)
  if not segment:find "[{}*]" then return segment end
  if segment == "*" and is_last then return "rest", REST end
  local name, star = segment:match "^{([%a_][%w_]*)(%*?)}$"
  if not name then return nil, ('%q: expected a literal, {name}, or at the end {name*} or *'):format(segment) end
  if star == "" then return name, PARAM end
  if not is_last then return nil, ("%q: the rest can only stand at the end"):format(segment) end
  return name, REST
end

---Reads "/users/{id}/files/{path*}": a list of segments, each with `text` and `kind`, and the names of its parameters.
---@param pattern any
---@return { text: string, kind: integer? }[]? segments
---@return string[]|string names or what is wrong
function route_table.parse(pattern)
  if type(pattern) ~= "string" or pattern:sub(1, 1) ~= "/" then return nil, "expected a path that begins with /" end
  if pattern:find "[?#%c%s]" then return nil, "a path has no query, fragment or white space" end
  local segments, names, seen = {}, {}, {}
  for segment, slash in pattern:sub(2):gmatch "([^/]*)(/?)" do
    if #segments > 0 and segments[#segments].last then break end -- gmatch's empty match behind the end
    local text, kind = read_segment(segment, slash == "")
    if not text then return nil, kind end
    if kind and seen[text] then return nil, ("{%s} stands there twice"):format(text) end
    segments[#segments + 1] = { text = text, kind = kind, last = slash == "" }
    if kind then names[#names + 1], seen[text] = text, true end
  end
  if #segments > SEGMENTS_MAX then return nil, ("more than %d segments"):format(SEGMENTS_MAX) end
  return segments, names
end

---A kind of moongate.options: the pattern of a host.
---@param host any
---@return string?
function route_table.is_host(host)
  local name = type(host) == "string" and (host:gsub("^%*%.", "")) or ""
  if not (name:find "^[%l%d._-]+$" or name:find "^%[[%x:]+%]$") then
    return 'a name in lower case, such as "api.example.com" or "*.example.com"'
  end
end

-- Making the table ----------------------------------------------------------------------------------------------------

-- Where the routes of one path and host are: by version ("" is any), by method ("*" is any).
local function add_to_leaf(leaf, route)
  local version = route.version or ""
  local by_method = leaf[version]
  if not by_method then
    by_method = {}
    leaf[version] = by_method
  end
  for _, method in ipairs(route.methods or { "*" }) do
    if by_method[method] then return nil, by_method[method] end
    by_method[method] = route
  end
  return true
end

local function leaf_of(set, pattern, segments, names)
  if #names == 0 then
    set.exact[pattern] = set.exact[pattern] or {}
    return set.exact[pattern]
  end
  local node = set.tree
  for _, segment in ipairs(segments) do
    local place = segment.kind or segment.text
    node[place] = node[place] or {}
    node = node[place]
  end
  -- The rest has no node of its own: it is a leaf.
  if segments[#segments].kind == REST then return node end
  node[LEAF] = node[LEAF] or {}
  return node[LEAF]
end

local Table = {}
Table.__index = Table

---Makes a table of routes, which are kept as they are. Nil, a sentence and the number of the route that it is about if
---there is something wrong.
---@param list { path: string, host: string?, methods: string[]?, version: string? }[]
---@return table?
---@return string? problem
---@return integer? at
function route_table.compile(list)
  local self = setmetatable({ hosts = {}, any = nil, wildcards = false, names = {} }, Table)
  for i, route in ipairs(list) do
    local segments, names = route_table.parse(route.path)
    if not segments then return nil, names, i end
    local set = route.host and self.hosts[route.host] or not route.host and self.any
    if not set then
      set = { exact = {}, tree = {} }
      if route.host then self.hosts[route.host] = set else self.any = set end
      if route.host and route.host:sub(1, 2) == "*." then self.wildcards = true end
    end
    local added, other = add_to_leaf(leaf_of(set, route.path, segments, names), route)
    if not added then return nil, ("is the same as that of %s"):format(other.name or other.path), i end
    if #names > 0 then self.names[route] = names end
  end
  return self
end

-- Looking up ----------------------------------------------------------------------------------------------------------

local function note_methods(ask, by_method)
  for method in pairs(by_method) do
    ask.allow = ask.allow or {}
    ask.allow[method] = true
  end
end

-- The route of a leaf that takes the method, or nil, and the methods that would be taken are noted.
local function take(leaf, ask)
  local versioned, any = ask.version and leaf[ask.version], leaf[""]
  for _, by_method in ipairs { versioned or any, versioned and any or nil } do
    local route = by_method[ask.method] or ask.method == "HEAD" and by_method["GET"] or by_method["*"]
    if route then return route end
    note_methods(ask, by_method)
  end
end

-- The route below a node for what stands in the path from a place on. Values of parameters lie in ask, `count` so far.
local function walk(node, ask, from, count)
  local path, values = ask.path, ask.values
  local slash = path:find("/", from, true)
  local segment = path:sub(from, slash and slash - 1 or -1)
  local literal, param = node[segment], segment ~= "" and node[PARAM] or nil
  local route
  if slash then
    route = literal and walk(literal, ask, slash + 1, count)
    if route then return route end
    if param then
      values[count + 1] = segment
      route = walk(param, ask, slash + 1, count + 1)
    end
  else
    route = literal and literal[LEAF] and take(literal[LEAF], ask)
    if route then return route end
    if param and param[LEAF] then
      values[count + 1] = segment
      route = take(param[LEAF], ask)
    end
  end
  if route then return route end
  if not node[REST] then return nil end
  values[count + 1] = path:sub(from)
  return take(node[REST], ask)
end

local function find_in(set, ask)
  local leaf = set.exact[ask.path]
  return leaf and take(leaf, ask) or walk(set.tree, ask, 2, 0)
end

-- Those of "*.b.example", then of "*.example", for "a.b.example".
local function find_wildcard(self, host, ask)
  local dot = host:find(".", 1, true)
  while dot do
    local set = self.hosts["*" .. host:sub(dot)]
    local route = set and find_in(set, ask)
    if route then return route end
    dot = host:find(".", dot + 1, true)
  end
end

---The route, and the values of its parameters as they stand in the path, in their order; or nil, and the methods that
---the path's routes take, sorted, if there are any.
---@param host string in lower case
---@param path string
---@param method string
---@param version? string
---@return table? route
---@return string[]? values_or_methods
function Table:find(host, path, method, version)
  local ask = { path = path, method = method, version = version, values = {}, allow = nil }
  local set = self.hosts[host]
  local route = set and find_in(set, ask) or self.wildcards and find_wildcard(self, host, ask)
    or self.any and find_in(self.any, ask)
  if route then return route, ask.values end
  if not ask.allow then return nil end
  if ask.allow.GET then ask.allow.HEAD = true end
  local methods = {}
  for name in pairs(ask.allow) do methods[#methods + 1] = name end
  table.sort(methods)
  return nil, methods
end

---The names of a route's parameters, or nil.
---@param route table
---@return string[]?
function Table:names_of(route) return self.names[route] end

return route_table
