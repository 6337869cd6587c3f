-- HPACK (RFC 7541) for specs. The encoder writes literals that index nothing, so that every byte is the spec's own; the
-- decoder reads all there is.

local hpack = {}

-- Tables --------------------------------------------------------------------------------------------------------------

-- Appendix A; "=" before a value.
local static = {}
for entry in ([[
:authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|:status=204|
:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|accept-encoding=gzip, deflate|
accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|
content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|
cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|
last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|
server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate|
]]):gmatch "\n?([^|\n]+)|" do
  local name, value = entry:match "^([^=]+)=?(.*)$"
  static[#static + 1] = { name, value }
end
assert(#static == 61)

-- Appendix B: how many bits each byte takes, and the end of the string; "a" is 5. The code is canonical: of one length,
-- codes follow each other in the order of the bytes.
local lengths = "isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxxbffhibdgffdgdbbbaaabbbbbbbcdkbhfibccccccccccccccccccccccdcdioijbkaba"
  .. "babbbaccbbbabcbaabccccckgjixprpprrrsrssssststtrstssssqrsrsstrqprrssqsrrtqrssqqrqsrssprrrsrrsvvporsru"
  .. "vvvwwvtuoqvwwvwtqqvvxwwwptpqrqqsrruuttvsvwvvwwwwwxwwwwwvz"

-- by_code[length][code] = byte
local by_code = {}
do
  local code = 0
  for length = 5, 30 do
    by_code[length] = {}
    for byte = 0, 256 do
      if lengths:byte(byte + 1) - 92 == length then
        by_code[length][code] = byte
        code = code + 1
      end
    end
    code = code << 1
  end
end

-- Reading -------------------------------------------------------------------------------------------------------------

local function huffman(bytes)
  local out, code, length = {}, 0, 0
  for i = 1, #bytes do
    local byte = bytes:byte(i)
    for bit = 7, 0, -1 do
      code, length = code << 1 | byte >> bit & 1, length + 1
      local found = length >= 5 and by_code[length][code]
      if found then
        out[#out + 1] = string.char(found)
        code, length = 0, 0
      end
    end
  end
  assert(length < 8 and code == (1 << length) - 1, "a Huffman string that ends badly")
  return table.concat(out)
end

local function integer(bytes, at, bits)
  local most = (1 << bits) - 1
  local n = bytes:byte(at) & most
  at = at + 1
  if n < most then return n, at end
  local shift = 0
  repeat
    local byte = bytes:byte(at)
    n, shift, at = n + ((byte & 127) << shift), shift + 7, at + 1
  until byte < 128
  return n, at
end

local function text(bytes, at)
  local coded = bytes:byte(at) >= 128
  local n
  n, at = integer(bytes, at, 7)
  local s = bytes:sub(at, at + n - 1)
  assert(#s == n, "a string beyond its block")
  return coded and huffman(s) or s, at + n
end

---@class support.HpackDecoder
local Decoder = {}
Decoder.__index = Decoder

---@return support.HpackDecoder
function hpack.decoder() return setmetatable({ dynamic = {}, size = 0, most = 4096 }, Decoder) end

function Decoder:entry(index)
  return assert(index >= 1 and (static[index] or self.dynamic[index - 61]), "no such entry: " .. index)
end

function Decoder:shrink(most)
  while self.size > most do
    local last = table.remove(self.dynamic)
    self.size = self.size - #last[1] - #last[2] - 32
  end
end

function Decoder:add(field)
  self.size = self.size + #field[1] + #field[2] + 32
  table.insert(self.dynamic, 1, field)
  self:shrink(self.most)
end

function Decoder:literal(block, at, bits)
  local index, name, value
  index, at = integer(block, at, bits)
  if index > 0 then name = self:entry(index)[1] else name, at = text(block, at) end
  value, at = text(block, at)
  return { name, value }, at
end

---The fields of a whole block, `{ name, value }` each.
---@param block string
---@return table
function Decoder:decode(block)
  local fields, at = {}, 1
  while at <= #block do
    local byte, field = block:byte(at), nil
    if byte >= 128 then
      field, at = integer(block, at, 7)
      field = self:entry(field)
    elseif byte >= 64 then
      field, at = self:literal(block, at, 6)
      self:add(field)
    elseif byte >= 32 then
      self.most, at = integer(block, at, 5)
      self:shrink(self.most)
    else
      field, at = self:literal(block, at, 4)
    end
    fields[#fields + 1] = field
  end
  return fields
end

-- Writing -------------------------------------------------------------------------------------------------------------

local function write_integer(n, bits, first)
  local most = (1 << bits) - 1
  if n < most then return string.char(first | n) end
  local out = { string.char(first | most) }
  n = n - most
  while n >= 128 do
    out[#out + 1] = string.char(n & 127 | 128)
    n = n >> 7
  end
  return table.concat(out) .. string.char(n)
end

local function write_text(s) return write_integer(#s, 7, 0) .. s end

---A field as a literal without indexing; `indexed`: it goes into the dynamic table.
---@param name string
---@param value string
---@param indexed? boolean
---@return string
function hpack.literal(name, value, indexed)
  return (indexed and "\x40" or "\x00") .. write_text(name) .. write_text(value)
end

---A field that stands in a table; 62 is what was added last.
---@param index integer
---@return string
function hpack.indexed(index) return write_integer(index, 7, 128) end

---@param fields table `{ name, value }` each
---@return string
function hpack.encode(fields)
  local out = {}
  for i, field in ipairs(fields) do out[i] = hpack.literal(field[1], tostring(field[2])) end
  return table.concat(out)
end

return hpack
