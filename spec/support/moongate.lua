-- The proxy under test: started with a config written for the spec, watched, stopped, and judged at its end. A proxy
-- that crashed, leaked, tripped a sanitizer or did not end with status 0 fails the spec that started it.

local uv = require "luv"
local async = require "support.async"
local net = require "support.net"
local process = require "support.process"

local moongate = {}

local root = uv.cwd()

---The binary under test.
moongate.binary = os.getenv "MOONGATE_BINARY" or ("%s/build/%s/moongate"):format(root, process.preset)
if moongate.binary:sub(1, 1) ~= "/" then moongate.binary = root .. "/" .. moongate.binary end

---Workers a proxy is started with unless the spec says otherwise.
moongate.workers = math.tointeger(tonumber(os.getenv "MOONGATE_SPEC_WORKERS" or 1))

-- What no proxy may ever write, as patterns: reports of sanitizers and of libc, our own, and the supervisor's news of a
-- serving process that died.
local reports = {
  "AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "UndefinedBehaviorSanitizer", "runtime error:", "must failed",
  "PANIC: unprotected error", "double free", "corrupted", "stack smashing", "buffer overflow detected",
  "serving process %d+ was killed", "serving process %d+ ended", "serving process %d+ does not end",
}

-- Configs -------------------------------------------------------------------------------------------------------------

-- `$PORT`, `$PORT2`, … become free ports, `$DIR` the spec's directory, other `$NAME`s what `values` says: a number, a
-- string, or something with an address (a fake server). What is not known stays as it is.
local function substitute(text, values, dir)
  return (text:gsub("%$(%u[%u%d_]*)", function(name)
    if name == "DIR" then return dir end
    if values[name] == nil and name:find "^PORT%d*$" then values[name] = net.free_port() end
    local value = values[name]
    return type(value) == "table" and value.address or value and tostring(value)
  end))
end

-- The proxy -----------------------------------------------------------------------------------------------------------

---@class support.Moongate
---@field dir string its directory: config, control socket, logs
---@field config string path of the config
---@field control string path of the control socket
---@field port integer `$PORT` of its config
---@field values table what the placeholders became
---@field process support.Process
---@field listening string the addresses of its ready line
local Moongate = {}
Moongate.__index = Moongate

---Writes the config anew, with the same placeholders.
---@param text string
function Moongate:write_config(text)
  process.write_file(self.config, substitute(text, self.values, self.dir))
end

-- Problems in what it wrote.
local function find_reports(self)
  for _, stream in ipairs { self.process.stderr, self.process.stdout } do
    for i, line in ipairs(stream) do
      for _, report in ipairs(reports) do
        if line:find(report) then return table.concat(stream, "\n", i, math.min(#stream, i + 60)) end
      end
    end
  end
end

local function judge(self)
  if self.judged then return end
  self.judged = true
  local status, report = self.process.status, find_reports(self)
  if report and not self.may_crash then async.fail("moongate reports:\n" .. report) end
  if status ~= self.expected_status then
    local text = "moongate ended with status %d, expected %d\n  %s"
    async.fail(text:format(status, self.expected_status, self.process:tail(30)))
  end
end

---Waits for its end by itself and judges it.
---@param timeout? number seconds
function Moongate:wait(timeout)
  self.process:wait(timeout)
  self.scope:disown(self)
  judge(self)
end

---Stops it as an operator would: SIGTERM, and all is drained. `signal` names another one.
---@param signal? string
function Moongate:stop(signal)
  self.process:kill_with(signal or "sigterm")
  self:wait(15)
end

---@param name string "hup", "usr1", …
function Moongate:signal(name)
  self.process:kill_with("sig" .. name)
end

---Runs `moongate COMMAND --control …` against it.
---@param command string "reload", "status", "stop"
---@param ... string further arguments
---@return integer status, string stdout, string stderr
function Moongate:command(command, ...)
  return process.run({ moongate.binary, command, "--control", self.control, ... })
end

---Reloads; the status is 0 when the new config serves.
---@return integer status, string output of both streams
function Moongate:reload()
  local status, out, err = self:command "reload"
  return status, out .. err
end

---Reloads a new config, which must succeed.
---@param text string
function Moongate:reload_with(text)
  self:write_config(text)
  local status, output = self:reload()
  if status ~= 0 then async.fail(("reload failed with status %d: %s"):format(status, output)) end
end

---Waits until no client is connected and no request is under way at a backend.
---@param note? string for who reads that it did not come to this
function Moongate:wait_idle(note)
  local status
  async.eventually("all clients and requests to be gone" .. (note or ""), function()
    status = select(2, self:command "status")
    return status:find "clients +0 open" and not status:find "active [1-9]"
  end, { timeout = 10, seen = function() return status end })
end

---Waits for a line of its error log (stderr).
---@param pattern string
---@param options? { timeout?: number, from?: integer }  from: as from `log_mark`
function Moongate:wait_log(pattern, options)
  return self.process:wait_line("stderr", pattern, options)
end

---The place of the next log line, for `wait_log`'s `from`.
---@return integer
function Moongate:log_mark()
  return #self.process.stderr + 1
end

---Its error log so far.
---@return string
function Moongate:log()
  return table.concat(self.process.stderr, "\n")
end

---The supervisor's pid.
---@return integer
function Moongate:pid() return self.process.pid end

---The pids it started: the serving process.
---@return integer[]
function Moongate:children() return self.process:children() end

---Resident memory of it and its children.
---@return integer bytes
function Moongate:rss()
  local sum = process.rss(self:pid())
  for _, pid in ipairs(self:children()) do sum = sum + process.rss(pid) end
  return sum
end

-- Waits until someone accepts at an address.
local function wait_port(where)
  local conn
  async.eventually("moongate to accept at " .. tostring(where), function()
    conn = net.try_connect(where)
    return conn
  end)
  conn:close()
end

---@class support.StartOptions
---@field config? string Lua text; `$PORT` …, `$DIR` and names of `values` are substituted
---@field file? string a config that exists (then its ports are its own; say them in `ports`)
---@field values? table<string, any>
---@field args? string[] further arguments of `run`
---@field workers? integer
---@field env? table<string, string|false>
---@field cwd? string
---@field ports? support.Address[] wait until it accepts at these, too
---@field ready? boolean false: don't wait for the ready line
---@field status? integer the exit status expected of it, 0
---@field may_crash? boolean reports in its log are not a failure: the spec kills its workers

---Starts a proxy and waits until it is ready.
---@param options support.StartOptions
---@return support.Moongate
function moongate.start(options)
  local dir = process.temp_dir()
  local self = setmetatable({
    dir = dir, config = options.file or dir .. "/moongate.lua", control = dir .. "/control.sock", values = {},
    expected_status = options.status or 0, may_crash = options.may_crash, scope = async.scope(),
  }, Moongate)
  for name, value in pairs(options.values or {}) do self.values[name] = value end
  if not options.file then self:write_config(options.config) end
  self.port = self.values.PORT

  local argv = { moongate.binary, "run", self.config, "--control", self.control }
  table.move({ "--workers", tostring(options.workers or moongate.workers) }, 1, 2, #argv + 1, argv)
  for _, argument in ipairs(options.args or {}) do argv[#argv + 1] = argument end
  self.process = process.spawn(argv, { env = options.env, cwd = options.cwd })
  self.scope:witness(function() return self.process:tail(30) end)
  self.scope:own(self, function() self:stop() end)

  if options.ready ~= false then
    self.listening = self.process:wait_line("stdout", "^moongate: ready, pid %d+, listening on (.*)$", { timeout = 10 })
  end
  for _, where in ipairs(options.ports or {}) do wait_port(where) end
  return self
end

---Runs the binary to its end: `moongate.run { "check", file }`.
---@param args string[]
---@param options? { stdin?: string, env?: table<string, string|false>, cwd?: string, timeout?: number }
---@return integer status, string stdout, string stderr
function moongate.run(args, options)
  return process.run({ moongate.binary, table.unpack(args) }, options)
end

return moongate
