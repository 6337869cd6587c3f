-- Every example does what its head comment says: it is started, each `$ command` of the comment is run, and what it
-- prints is held against the lines below it (`...` there stands for anything within the line).

local support = require "support"
local it, moongate, net, websocket = support.it, support.moongate, support.net, support.websocket
local uv = require "luv"

local read_file = require("support.process").read_file

local names = {}
for name in uv.fs_scandir_next, uv.fs_scandir "examples" do
  if name:find "%.lua$" then names[#names + 1] = name:gsub("%.lua$", "") end
end
table.sort(names)

-- The comment at the head of a file, without its dashes.
local function head_comment(text)
  local lines = {}
  for line in text:gmatch "([^\n]*)\n" do
    local comment = line:match "^%-%- ?(.*)$"
    if not comment then break end
    lines[#lines + 1] = comment
  end
  return lines
end

-- The commands of a comment, each with the lines that are expected of it.
local function find_steps(lines)
  local steps, step = {}, nil
  for _, line in ipairs(lines) do
    local command, output = line:match "^    %$ (.*)$", line:match "^    (.*)$"
    if command then
      step = { command = command, expected = {} }
      steps[#steps + 1] = step
    elseif step and output then
      table.insert(step.expected, output)
    else
      step = nil
    end
  end
  return steps
end

local function matches(line, expected)
  local pattern = expected:gsub("%p", "%%%0"):gsub("%%%.%%%.%%%.", ".*")
  return line:find("^" .. pattern .. "$") ~= nil
end

local function run_step(step)
  local _, out, err = support.run({ "sh", "-c", step.command }, { timeout = 20 })
  local got = {}
  for line in (out:gsub("\r", "") .. (out:find "\n$" and "" or "\n")):gmatch "([^\n]*)\n" do got[#got + 1] = line end
  if out == "" then got = {} end
  local same = #got == #step.expected
  for i, expected in ipairs(step.expected) do same = same and matches(got[i] or "", expected) end
  local text = "$ %s\n%s\nexpected:\n%s\n%s"
  assert(same, text:format(step.command, out, table.concat(step.expected, "\n"), err))
end

-- The ports of the examples become free ones, in the config as in the commands.
local known_ports = { 8080, 8443, 9001, 9002, 9003, 9004, 9901, 9999 }

local function free_ports()
  local ports = {}
  for _, port in ipairs(known_ports) do ports[port] = net.free_port() end
  return ports
end

local function with_ports(text, ports)
  return (text:gsub("%f[%w]%d%d%d%d%f[%W]", function(digits)
    local port = ports[tonumber(digits)]
    return port and tostring(port)
  end))
end

-- Beside NAME.lua there may be files that it reads: NAME.mmdb and the like. They are copied with it.
local function start(name, config)
  local companions = {}
  for file in uv.fs_scandir_next, uv.fs_scandir "examples" do
    if file:find("^" .. name .. "%.") and not file:find "%.lua$" then companions[#companions + 1] = file end
  end
  if #companions == 0 then return moongate.start { config = config } end
  local folder = support.temp_dir()
  assert(uv.fs_chmod(folder, tonumber("755", 8)))
  for _, file in ipairs(companions) do assert(uv.fs_copyfile("examples/" .. file, folder .. "/" .. file)) end
  support.process.write_file(folder .. "/config.lua", config)
  return moongate.start { file = folder .. "/config.lua" }
end

-- What an example cannot bring along, and what a comment cannot say in one line.
local before, after = {}, {}

function before.websocket(ports)
  websocket.backend(nil, { port = ports[9001] })
end

function after.websocket(ports)
  local socket = websocket.connect(ports[8080], "/chat")
  socket:send "over the moon"
  assert.equal("over the moon", (socket:receive()))
  socket:close()
end

describe("the example", function()
  for _, name in ipairs(names) do
    local path = ("examples/%s.lua"):format(name)
    local text = read_file(path)
    local comment = head_comment(text)

    it(name .. " does what its head comment says", function()
      local command = "    moongate run " .. path
      local says = false
      for _, line in ipairs(comment) do says = says or line == command end
      assert(says, "its head comment does not say: " .. command)
      local ports = free_ports()
      local steps = find_steps(head_comment(with_ports(text, ports)))
      assert(#steps > 0, "its head comment has nothing to try")
      if before[name] then before[name](ports) end
      start(name, with_ports(text, ports))
      for _, step in ipairs(steps) do run_step(step) end
      if after[name] then after[name](ports) end
    end)

    it(name .. " passes the check", function()
      local status, out, err = moongate.run { "check", path }
      assert.equal(0, status, out .. err)
    end)
  end
end)
