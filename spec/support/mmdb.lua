-- A writer of small MaxMind databases (MaxMind DB file format 2.0), for specs:
--
--     mmdb.write(path, { ["10.0.0.0/8"] = { country = { iso_code = "XX" } }, ["2001:db8::/32"] = { … } })
--
-- Numbers that are whole are written as uint32, or int32 if negative, others as doubles; `mmdb.uint64(n)`,
-- `.uint16(n)`, `.float(n)`, `.bytes(s)` and `.list { … }` say what else there is.

local mmdb = {}

local function typed(kind, format)
  return function(value) return { kind = kind, bytes = format and format:pack(value) or value } end
end

mmdb.uint16, mmdb.uint64, mmdb.float = typed(5, ">I2"), typed(9, ">I8"), typed(15, ">f")
mmdb.bytes = typed(4)
function mmdb.list(values) return { kind = 11, list = values } end

local function head(kind, size)
  local extra = ""
  if size >= 65821 then size, extra = 31, (">I3"):pack(size - 65821)
  elseif size >= 285 then size, extra = 30, (">I2"):pack(size - 285)
  elseif size >= 29 then size, extra = 29, (">I1"):pack(size - 29) end
  if kind < 8 then return string.char(kind << 5 | size) .. extra end
  return string.char(size, kind - 7) .. extra
end

local encode

local function encode_map(map)
  local keys, parts = {}, {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  for i, key in ipairs(keys) do parts[i] = head(2, #key) .. key .. encode(map[key]) end
  return head(7, #keys) .. table.concat(parts)
end

local function encode_number(n)
  if math.type(n) == "float" then return head(3, 8) .. (">d"):pack(n) end
  return n < 0 and head(8, 4) .. (">i4"):pack(n) or head(6, 4) .. (">I4"):pack(n)
end

function encode(value)
  if type(value) == "string" then return head(2, #value) .. value end
  if type(value) == "boolean" then return head(14, value and 1 or 0) end
  if type(value) == "number" then return encode_number(value) end
  if not value.kind then return encode_map(value) end
  if not value.list then return head(value.kind, #value.bytes) .. value.bytes end
  local parts = {}
  for i, item in ipairs(value.list) do parts[i] = encode(item) end
  return head(11, #parts) .. table.concat(parts)
end

-- The address as a list of bits; IPv4 as the last 32 of 128 when the tree is one of IPv6.
local function bits_of(text, version)
  local a, b, c, d = text:match "^(%d+)%.(%d+)%.(%d+)%.(%d+)$"
  local bytes = {}
  if a then
    for i = 1, version == 6 and 12 or 0 do bytes[i] = 0 end
    for _, byte in ipairs { a, b, c, d } do bytes[#bytes + 1] = tonumber(byte) end
  else
    local left, right = text:match "^(.-)::(.*)$"
    local groups = {}
    for group in (left or text):gmatch "%x+" do groups[#groups + 1] = tonumber(group, 16) end
    local tail = {}
    for group in (right or ""):gmatch "%x+" do tail[#tail + 1] = tonumber(group, 16) end
    while #groups + #tail < 8 do groups[#groups + 1] = 0 end
    table.move(tail, 1, #tail, #groups + 1, groups)
    for _, group in ipairs(groups) do bytes[#bytes + 1], bytes[#bytes + 2] = group >> 8, group & 255 end
  end
  local bits = {}
  for _, byte in ipairs(bytes) do
    for i = 7, 0, -1 do bits[#bits + 1] = byte >> i & 1 end
  end
  return bits, a and version == 6 and 96 or 0
end

-- Nodes are { [0] = way, [1] = way }, a way a node or { offset = … } or nil.
local function insert(root, prefix, leaf, version)
  local address, length = prefix:match "^(.-)/(%d+)$"
  local bits, shift = bits_of(address, version)
  local node = root
  for i = 1, length + shift - 1 do
    node[bits[i]] = node[bits[i]] or {}
    node = node[bits[i]]
  end
  node[bits[length + shift]] = leaf
end

local function number_nodes(root)
  local nodes = { root }
  root.number = 0
  for _, node in ipairs(nodes) do -- grows meanwhile
    for way = 0, 1 do
      local next_node = node[way]
      if next_node and not next_node.offset then
        next_node.number = #nodes
        nodes[#nodes + 1] = next_node
      end
    end
  end
  return nodes
end

---The bytes of a database.
---@param records table<string, any> by prefix; none within another
---@param version? integer of IP: 6 (default) or 4
---@return string
function mmdb.encode(records, version)
  version = version or 6
  local root, data, size = {}, {}, 0
  for prefix, record in pairs(records) do
    insert(root, prefix, { offset = size }, version)
    data[#data + 1] = encode(record)
    size = size + #data[#data]
  end
  local nodes, tree = number_nodes(root), {}
  for _, node in ipairs(nodes) do
    for way = 0, 1 do
      local to = node[way]
      local record = not to and #nodes or to.offset and #nodes + 16 + to.offset or to.number
      tree[#tree + 1] = (">I3"):pack(record)
    end
  end
  local metadata = encode {
    node_count = #nodes, record_size = mmdb.uint16(24), ip_version = mmdb.uint16(version), database_type = "Spec",
    languages = mmdb.list { "en" }, binary_format_major_version = mmdb.uint16(2),
    binary_format_minor_version = mmdb.uint16(0), build_epoch = mmdb.uint64(1), description = { en = "for specs" },
  }
  return table.concat(tree) .. ("\0"):rep(16) .. table.concat(data) .. "\xab\xcd\xefMaxMind.com" .. metadata
end

---Writes a database.
function mmdb.write(path, records, version)
  local file <close> = assert(io.open(path, "wb"))
  file:write(mmdb.encode(records, version))
end

return mmdb
