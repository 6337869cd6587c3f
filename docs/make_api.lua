-- Makes docs/api.md of the type files in lua/types, the one place where the Lua API is described:
--
--     lua5.4 docs/make_api.lua > docs/api.md
--
-- It knows as much of LuaCATS as those files use: @class with @field, @alias, @param, @return, @overload, @type.

local files = {
  { "lua/types/site.lua", "What a config returns" },
  { "lua/types/request.lua", "The request" },
  { "lua/types/response.lua", "The response" },
  { "lua/types/body.lua", "Bodies" },
  { "lua/types/gate.lua", "The module" },
  { "lua/types/socket.lua", "Sockets, names, locks" },
  { "lua/types/state.lua", "State of policy" },
  { "lua/types/tools.lua", "The module's tools" },
  { "lua/types/crypto.lua", "Cryptography" },
  { "lua/types/testing.lua", "The test kit" },
}

-- Reading -------------------------------------------------------------------------------------------------------------

-- A type at the front of a text, and what is left of it: types may have spaces in brackets, unions and functions.
local function cut_type(text)
  local depth, at = 0, 1
  while at <= #text do
    local c = text:sub(at, at)
    if c:find "[%[({<]" then depth = depth + 1 elseif c:find "[%])}>]" then depth = depth - 1 end
    if c == '"' then at = text:find('"', at + 1, true) or #text end
    local goes_on = text:sub(at - 1, at - 1):find "[:,|]" or text:sub(at + 1, at + 1) == "|"
    if c == " " and depth == 0 and not goes_on then break end
    at = at + 1
  end
  return text:sub(1, at - 1), text:sub(at + 1)
end

-- What is said of a field or parameter stands behind its type, or in lines of its own above it.
local function about_of(block, text)
  local above = table.concat(block.above, " ")
  block.above = {}
  return above == "" and text or above .. (text == "" and "" or " ") .. text
end

local tags = {}

function tags.class(block, rest)
  local name, parents = rest:match "^([%w_.]+)%s*:?%s*(.*)$"
  block.class, block.parents = name, parents
end

function tags.field(block, rest)
  local name, text = rest:match "^(%[[^%]]+%]%??) (.*)$"
  if not name then name, text = rest:match "^(%S+) (.*)$" end
  local type_name, about = cut_type(text)
  table.insert(block.fields, { name = name, type = type_name, about = about_of(block, about) })
end

function tags.param(block, rest)
  local name, text = rest:match "^(%S+) (.*)$"
  local type_name, about = cut_type(text)
  table.insert(block.params, { name = name, type = type_name, about = about_of(block, about) })
end

tags["return"] = function(block, rest)
  local type_name, about = cut_type(rest)
  table.insert(block.returns, { type = type_name, about = about_of(block, about) })
end

function tags.alias(block, rest)
  local name, text = rest:match "^(%S+) (.*)$"
  local type_name, about = cut_type(text)
  table.insert(block.aliases, { name = name, type = type_name, about = about, text = block.text })
  block.text = {}
end

tags["type"] = function(block, rest) block.type = rest end
tags.overload = function(block, rest) table.insert(block.overloads, rest) end
tags.meta = function() end

local function new_block()
  return { text = {}, above = {}, fields = {}, params = {}, returns = {}, aliases = {}, overloads = {} }
end

-- The blocks of a file: its comments, each with the line of code behind it.
local function read_blocks(path)
  local blocks, block = {}, nil
  for line in io.lines(path) do
    local comment = line:match "^%-%-%-(.*)$"
    local tag, rest = line:match "^%-%-%-@(%l+) ?(.*)$"
    if comment then
      if not block then block = new_block() end
      if tag then
        assert(tags[tag], path .. ": @" .. tag)(block, rest)
      else
        table.insert(block.tagged and block.above or block.text, comment)
      end
      block.tagged = block.tagged or (tag and tag ~= "alias")
    elseif block then
      block.code = line
      blocks[#blocks + 1] = block
      block = nil
    end
  end
  if block then blocks[#blocks + 1] = block end
  return blocks
end

-- The plain comment at the head of a file, behind its @meta.
local function read_intro(path)
  local lines = {}
  for line in io.lines(path) do
    local text = line:match "^%-%- ?([^-].*)$"
    local told = text and not text:find "^luacheck:"
    if told then lines[#lines + 1] = text elseif #lines > 0 then break end
  end
  return table.concat(lines, "\n")
end

-- Sections: a class with what belongs to it ---------------------------------------------------------------------------

local function gather(path)
  local sections, by_variable, aliases = {}, {}, {}
  for _, block in ipairs(read_blocks(path)) do
    for _, alias in ipairs(block.aliases) do aliases[#aliases + 1] = alias end
    local variable = (block.code or ""):match "^local ([%w_]+) = {}" or (block.code or ""):match "^([%w_.]+) = {}"
    local called = (block.code or ""):match "^function ([%w_.:]+%(.-%))"
    local assigned = (block.code or ""):match "^([%w_]+%.[%w_]+) = "
    if block.class then
      local section = { class = block.class, block = block, members = {} }
      sections[#sections + 1] = section
      if variable then by_variable[variable] = section end
      section.variable = variable
    elseif called or assigned then
      local owner = by_variable[(called or assigned):match "^([%w_.]*)[.:]"]
      assert(owner, path .. ": whose is " .. (called or assigned) .. "?")
      table.insert(owner.members, { block = block, signature = called or assigned })
    end
  end
  return sections, aliases
end

-- Writing -------------------------------------------------------------------------------------------------------------

local out, contents = {}, {}

local function emit(...)
  for _, text in ipairs { ... } do out[#out + 1] = text end
  out[#out + 1] = "\n"
end

-- A heading; what is told of it in the contents, with a link to the anchor that is made of it.
local function emit_heading(level, text, told)
  emit(("#"):rep(level), " ", text)
  emit()
  local anchor = text:lower():gsub("[^%w%s_-]", ""):gsub("%s", "-")
  if told then table.insert(contents, { level = level, link = ("[%s](#%s)"):format(told, anchor) }) end
end

local function short(type_name)
  return (type_name:gsub("moongate%.", ""))
end

local function in_cell(text)
  return (text:gsub("|", "\\|"))
end

local function code_in_cell(text)
  return "`" .. in_cell(short(text)) .. "`"
end

local function emit_text(lines)
  for _, line in ipairs(lines) do emit(line) end
  if #lines > 0 then emit() end
end

-- What stands before the example, and the example.
local function split_text(lines)
  local before, example, inside = {}, {}, false
  for _, line in ipairs(lines) do
    if line:find "^```" then inside = true end
    table.insert(inside and example or before, line)
  end
  while before[#before] == "" do before[#before] = nil end
  return before, example
end

local function emit_rows(head, rows)
  if #rows == 0 then return end
  emit(head)
  emit("| --- | --- | --- |")
  for _, row in ipairs(rows) do
    emit("| `", row.name, "` | ", code_in_cell(row.type), " | ", in_cell(row.about), " |")
  end
  emit()
end

-- What an object is called in hooks, where that is not its class in lower case.
local names = { FetchedStream = "res" }

local function signature_of(member)
  local signature = member.signature:gsub("^(%u[%w_]*)([.:])", function(class, joint)
    return (names[class] or class:lower()) .. joint
  end)
  return signature
end

local function emit_member(member)
  local block = member.block
  local before, example = split_text(block.text)
  local signature = signature_of(member)
  emit_heading(3, "`" .. signature .. "`", signature:find "^gate%." and "`" .. signature:match "^[%w_.]+" .. "`")
  emit_text(before)
  if block.type then emit("A `", short(block.type), "`.\n") end
  emit_rows("| parameter | | |", block.params)
  for _, overload in ipairs(block.overloads) do emit("Or `", short(overload), "`.\n") end
  if #block.returns > 0 then
    local list = {}
    for i, value in ipairs(block.returns) do
      list[i] = "`" .. short(value.type) .. "`" .. (value.about ~= "" and " " .. value.about or "")
    end
    emit("Returns ", table.concat(list, ", "), ".\n")
  end
  emit_text(example)
end

local function emit_section(section)
  local block = section.block
  local of_gate = section.variable and section.variable:find "^gate%f[^%w_]"
  local title = of_gate and section.variable or short(section.class)
  emit_heading(2, title, not of_gate and not title:find "Options$" and title)
  if block.parents and block.parents ~= "" then emit("With all that is in ", short(block.parents), ".\n") end
  local before, example = split_text(block.text)
  emit_text(before)
  emit_rows("| field | | |", block.fields)
  emit_text(example)
  for _, member in ipairs(section.members) do emit_member(member) end
end

local function emit_file(path, title)
  local sections, aliases = gather(path)
  emit_heading(1, title, title)
  emit(read_intro(path))
  emit()
  for _, section in ipairs(sections) do emit_section(section) end
  if #aliases == 0 then return end
  emit_heading(2, "Types of " .. title:lower())
  for _, alias in ipairs(aliases) do
    local text = #alias.text > 0 and table.concat(alias.text, " ") or alias.about
    emit("- **", short(alias.name), "**: `", short(alias.type), "`", text ~= "" and " " .. text or "")
  end
  emit()
end

-- A line for each file: its title, then what is in it.
local function contents_text()
  local lines = {}
  for _, entry in ipairs(contents) do
    if entry.level == 1 then
      lines[#lines + 1] = "- **" .. entry.link .. "**"
    else
      lines[#lines] = lines[#lines] .. (lines[#lines]:find "%*%*$" and ": " or ", ") .. entry.link
    end
  end
  return table.concat(lines, "\n") .. "\n\n"
end

for _, file in ipairs(files) do emit_file(file[1], file[2]) end
io.write([[
<!-- Made of lua/types by docs/make_api.lua; change those. -->

This is what scripts see, word by word. [The guide](guide.md) tells what to use when, [settings](settings.md) what else
stands in a config, [operations](operations.md) how to run it.

]], contents_text(), (table.concat(out):gsub("\n+$", "\n")))
