-- docs/moongate.1 against the program: every command with every option it takes, in the synopsis and below.

local support = require "support"
local it, moongate = support.it, support.moongate

local function read_page()
  local file <close> = assert(io.open "docs/moongate.1")
  return (file:read("a"):gsub("\\%-", "-"))
end

-- What stands below a heading, up to the next.
local function section(page, name)
  return (page:match("\n%.SH " .. name .. "\n(.-)\n%.SH ") or ""):gsub('"', " ")
end

-- The commands, as `moongate --help` lists them, and the options of one.
local function commands()
  local _, out = moongate.run { "--help" }
  local list = {}
  for name in out:match("commands:(\n.-\n)\n"):gmatch "\n  (%l[%l ]-)  ? *[%u%['-]" do list[#list + 1] = name end
  return list
end

local function options_of(command)
  local _, out = moongate.run { command:match "^%l+", command:match " (%l+)$" or "--help", "--help" }
  local list = {}
  for line in out:gmatch "[^\n]+" do
    local letter, name = line:match "^  (%-?%a?),? ?(%-%-[%l-]+)"
    if name and name ~= "--help" then list[#list + 1] = { name = name, letter = letter ~= "" and letter or nil } end
  end
  return list
end

local function has(text, option)
  return text:find(option:gsub("%-", "%%-") .. "%f[^%w-]") ~= nil
end

describe("the manual page", function()
  it("has every command with its options in the synopsis", function()
    local synopsis = section(read_page(), "SYNOPSIS") .. "\n.br\n"
    local count = 0
    for _, command in ipairs(commands()) do
      local text = assert(synopsis:match("%.B moongate " .. command .. "\n(.-)%.br\n"), command)
      for _, option in ipairs(options_of(command)) do
        local found = has(text, option.name) or option.letter and has(text, option.letter)
        assert(found, ("%s has no %s"):format(command, option.name))
        count = count + 1
      end
    end
    assert(count > 20)
  end)

  it("tells what each command and option does", function()
    local page = read_page()
    local told = { commands = section(page, "COMMANDS"), options = section(page, "OPTIONS") }
    for _, command in ipairs(commands()) do
      assert(told.commands:find("\n%.B[IR] +" .. command .. " "), command)
      for _, option in ipairs(options_of(command)) do
        assert(has(told.options, option.name), option.name)
      end
    end
  end)
end)
