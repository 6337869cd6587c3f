-- `moongate test --coverage`: which lines of the policies were executed. The counts come from the kit, line by line;
-- which lines there are to execute, Lua's own compiler knows: a function that was never called is read out of its
-- bytecode (string.dump; the format is that of Lua 5.4, lundump.c).

local coverage = {}

-- The lines that have code --------------------------------------------------------------------------------------------

local Reader = {}
Reader.__index = Reader

function Reader:byte()
  self.at = self.at + 1
  return self.bytes:byte(self.at - 1)
end

-- Seven bits a byte, the highest first; the last byte has the eighth.
function Reader:number()
  local n = 0
  while true do
    local byte = self:byte()
    n = n << 7 | byte & 0x7f
    if byte & 0x80 ~= 0 then return n end
  end
end

function Reader:skip(n) self.at = self.at + n end

function Reader:skip_string()
  local size = self:number()
  if size > 0 then self:skip(size - 1) end
end

-- Bytes of a constant behind its type; strings have their length.
local constant_sizes = { [0x03] = 8, [0x13] = 8 }

function Reader:skip_constants()
  for _ = 1, self:number() do
    local kind = self:byte()
    if kind & 0x0f == 4 then self:skip_string() else self:skip(constant_sizes[kind] or 0) end
  end
end

-- Marks the line of every instruction. Not the first one of a function with `...`, which has none, nor the last one,
-- the return that Lua adds at `end`.
function Reader:mark_lines(lines, first_line, is_vararg)
  local deltas, absolute = {}, {}
  local count = self:number()
  for i = 1, count do deltas[i] = string.unpack("b", self.bytes, self.at + i - 1) end
  self:skip(count)
  for _ = 1, self:number() do
    local pc = self:number()
    absolute[pc] = self:number()
  end
  local line = first_line
  for i = 1, count do
    line = deltas[i] == -128 and absolute[i - 1] or line + deltas[i]
    if i < count and not (is_vararg and i == 1) then lines[line] = true end
  end
end

function Reader:read_function(lines)
  self:skip_string() -- source
  local first_line = self:number()
  self:number() -- last line
  self:byte() -- parameters
  local is_vararg = self:byte() ~= 0
  self:byte() -- stack
  self:skip(4 * self:number()) -- code
  self:skip_constants()
  self:skip(3 * self:number()) -- upvalues
  for _ = 1, self:number() do self:read_function(lines) end
  self:mark_lines(lines, first_line, is_vararg)
  for _ = 1, self:number() do -- local variables
    self:skip_string()
    self:number()
    self:number()
  end
  for _ = 1, self:number() do self:skip_string() end -- upvalues' names
end

local header_size = 4 + 1 + 1 + 6 + 3 + 8 + 8 + 1

---@param path string a Lua file
---@return table<integer, true>? lines nil if it is no Lua
function coverage.lines_of(path)
  local chunk = loadfile(path, "t")
  if not chunk then return nil end
  local lines = {}
  setmetatable({ bytes = string.dump(chunk), at = header_size + 1 }, Reader):read_function(lines)
  return lines
end

-- Counts --------------------------------------------------------------------------------------------------------------

---@param path string what the kit wrote: file, line and times, between tabs
---@return table<string, table<integer, integer>>
local function read_counts(path)
  local files = {}
  for line in io.lines(path) do
    local file, number, times = line:match "^(.*)\t(%d+)\t(%d+)$"
    if file then
      files[file] = files[file] or {}
      number = math.tointeger(tonumber(number))
      files[file][number] = (files[file][number] or 0) + math.tointeger(tonumber(times))
    end
  end
  return files
end

-- What comes with Moongate is not what is tested.
local function is_own(path, own)
  return path:find(own .. "/lua/", 1, true) == 1 or path:find(own .. "/scripts/", 1, true) == 1
end

local function sorted(set)
  local list = {}
  for key in pairs(set) do list[#list + 1] = key end
  table.sort(list)
  return list
end

-- "3, 7-9"
local function as_ranges(numbers, lines)
  local ranges, i = {}, 1
  while numbers[i] do
    local j = i
    -- Lines without code do not interrupt.
    local function next_line()
      if not numbers[j + 1] then return false end
      for line = numbers[j] + 1, numbers[j + 1] - 1 do
        if lines[line] then return false end
      end
      return true
    end
    while next_line() do j = j + 1 end
    ranges[#ranges + 1] = i == j and tostring(numbers[i]) or ("%d-%d"):format(numbers[i], numbers[j])
    i = j + 1
  end
  return table.concat(ranges, ", ")
end

---@param counts table<string, table<integer, integer>>
---@param own string the directory of what comes with Moongate
local function measure(counts, own)
  local measured = {}
  for _, path in ipairs(sorted(counts)) do
    local lines = not is_own(path, own) and coverage.lines_of(path) or nil
    if lines then
      local file = { path = path, lines = lines, counts = counts[path], missed = {}, all = 0 }
      for _, line in ipairs(sorted(lines)) do
        file.all = file.all + 1
        if not file.counts[line] then file.missed[#file.missed + 1] = line end
      end
      measured[#measured + 1] = file
    end
  end
  return measured
end

-- Telling -------------------------------------------------------------------------------------------------------------

local function percent(covered, all)
  return all == 0 and 100 or 100 * covered / all
end

local function print_table(files)
  local width = #"file"
  for _, file in ipairs(files) do width = math.max(width, #file.path) end
  local row = "%-" .. width .. "s  %7s  %9s  %s"
  local covered, all = 0, 0
  print(row:format("file", "covered", "lines", "uncovered"))
  for _, file in ipairs(files) do
    local hit = file.all - #file.missed
    covered, all = covered + hit, all + file.all
    print((row:format(file.path, ("%.1f %%"):format(percent(hit, file.all)), ("%d/%d"):format(hit, file.all),
      as_ranges(file.missed, file.lines)):gsub(" +$", "")))
  end
  if #files > 1 then
    print((row:format("all", ("%.1f %%"):format(percent(covered, all)), ("%d/%d"):format(covered, all), "")
      :gsub(" +$", "")))
  end
end

local function write_lcov(files, path)
  local out = assert(io.open(path, "w"))
  for _, file in ipairs(files) do
    out:write("TN:\nSF:", file.path, "\n")
    for _, line in ipairs(sorted(file.lines)) do out:write(("DA:%d,%d\n"):format(line, file.counts[line] or 0)) end
    out:write(("LF:%d\nLH:%d\nend_of_record\n"):format(file.all, file.all - #file.missed))
  end
  assert(out:close())
end

---@param options { counts: string, lcov?: string, own: string }
---@return integer status
function coverage.main(options)
  local files = measure(read_counts(options.counts), options.own)
  if #files == 0 then
    print "no policy was executed: nothing of it came through moongate.testing"
    return 0
  end
  print_table(files)
  if options.lcov then write_lcov(files, options.lcov) end
  return 0
end

return coverage
