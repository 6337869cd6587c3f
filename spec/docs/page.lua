-- A page of the manual, taken apart: its blocks of code, what they are, and in which chapter they stand.
--
-- A Lua block whose first line is `-- NAME.lua` is that file; those of a chapter lie in one folder. One that sets the
-- global `listen` is a config by itself. Any other is a part, which stands in the frame that the guide shows.

local page = {}

local read_file = require("support.process").read_file

---@class page.Block
---@field language string "lua", "console", …
---@field text string
---@field line integer
---@field chapter string
---@field name string? of the file it is

-- The blocks of a text whose lines an iterator gives.
---@return page.Block[]
local function read_blocks(path, lines)
  local blocks, block, chapter, number = {}, nil, "", 0
  for line in lines do
    number = number + 1
    local language = line:match "^```(%l*)"
    if block and language then
      block.text = table.concat(block, "\n") .. "\n"
      block.name = block.language == "lua" and block.text:match "^%-%- ([%w_/]+%.lua)\n" or nil
      blocks[#blocks + 1], block = block, nil
    elseif block then
      block[#block + 1] = line
    elseif language then
      block = { language = language, line = number, chapter = chapter }
    else
      chapter = line:match "^## (.*)" or chapter
    end
  end
  assert(not block, path .. ": a block without an end")
  return blocks
end

function page.blocks(path) return read_blocks(path, io.lines(path)) end

-- Those in the `---` comments of a file of Lua.
function page.blocks_of_comments(path)
  local lines = io.lines(path)
  return read_blocks(path, function()
    local line = lines()
    return line and (line:match "^%-%-%-(.*)$" or "")
  end)
end

local mark = "-- … the part …\n"

-- The frame of parts, as the guide shows it.
local frame
for _, block in ipairs(page.blocks "docs/guide.md") do
  if block.text:find(mark, 1, true) then frame = block.text end
end

function page.is_frame(block) return block.text == frame end

-- Files that begin with "wrong" show what `check` says of them.
local wrong = "%-%- wrong"

function page.is_wrong(block) return block.text:find("^" .. wrong) ~= nil end

-- The file that a block is, or is a part of: its name and text. Nil for what is not Lua.
function page.file_of(block)
  if block.language ~= "lua" then return nil end
  if block.name then return block.name, block.text end
  if block.text:find "\nlisten +=" then return "config.lua", block.text end
  local before, behind = frame:match("^(.-)" .. mark:gsub("%p", "%%%0") .. "(.*)$")
  return "part.lua", before .. block.text .. behind
end

function page.is_config(block)
  local name, text = page.file_of(block)
  return name ~= nil and not name:find "/" and not page.is_frame(block)
    and (text:find "%f[%w]listen +=" or text:find "%f[%w]sites +=") ~= nil
end

-- The paths that a text speaks of, so that its branches are taken: "/home", "^/shop(/.*)$".
function page.paths_of(text)
  local paths, seen = { "/" }, { ["/"] = true }
  for path in text:gmatch '"%^?(/[%w_/.-]*)' do
    if not seen[path] then paths[#paths + 1], seen[path] = path, true end
  end
  return paths
end

-- All that is said of `gate` on the page, in code and in prose: "fetch", "json.encode".
function page.gate_names(path)
  local names, seen = {}, {}
  local text = read_file(path):gsub("```lua\n" .. wrong .. ".-\n```", "")
  for name in text:gmatch "%f[%w_]gate%.([%l_][%w_.]*)" do
    name = name:gsub("%.+$", "")
    if not seen[name] then names[#names + 1], seen[name] = name, true end
  end
  return names
end

-- The methods that are called in a text: ":take(", ":get \"x\"".
function page.methods_of(text)
  local methods = {}
  for name in text:gmatch "[%w_%)%]\"]:([%l_][%w_]*)%s*[%(\"{']" do methods[#methods + 1] = name end
  return methods
end

-- The names of methods that lua/types describes.
function page.known_methods()
  local known = {}
  local pipe <close> = assert(io.popen "cat lua/types/*.lua")
  for line in pipe:lines() do
    local name = line:match "^function [%w.]+:([%w_]+)%("
    if name then known[name] = true end
  end
  for name in pairs(string) do known[name] = true end
  return known
end

-- The commands of a console block, each with the lines that are expected of it.
function page.steps_of(block)
  local steps = {}
  for line in block.text:gmatch "([^\n]*)\n" do
    local command = line:match "^%$ (.*)$"
    if command then steps[#steps + 1] = { command = command } else table.insert(steps[#steps], line) end
  end
  return steps
end

-- Is a text the lines that are expected? A line `...` stands for any lines, `...` within one for anything in it.
function page.fits(text, expected)
  local pattern = {}
  for _, line in ipairs(expected) do
    if line == "..." then
      pattern[#pattern + 1] = ".-"
    else
      pattern[#pattern + 1] = line:gsub("%p", "%%%0"):gsub("%%%.%%%.%%%.", "[^\n]*") .. "\n"
    end
  end
  return text:find("^" .. table.concat(pattern) .. "$") ~= nil
end

return page
