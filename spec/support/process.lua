-- Programs run by specs: their lines, their end, and the environment in which a sanitizer's report is an exit status.

local uv = require "luv"
local async = require "support.async"

local process = {}

local root = uv.cwd()

---The preset whose build is tested.
process.preset = os.getenv "MOONGATE_PRESET" or "debug"

---The exit status of a program a sanitizer has something to say about.
process.sanitizer_status = 86

local function sanitizer_options()
  local exit = "exitcode=" .. process.sanitizer_status
  local suppressions = root .. "/spec/support/"
  return {
    ASAN_OPTIONS = exit .. ":detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
    LSAN_OPTIONS = exit .. ":print_suppressions=0:suppressions=" .. suppressions .. "lsan.supp",
    UBSAN_OPTIONS = exit .. ":halt_on_error=1:print_stacktrace=1",
    TSAN_OPTIONS = exit .. ":second_deadlock_stack=1:suppressions=" .. suppressions .. "tsan.supp",
  }
end

-- The environment for a child: ours without what made this lua5.4 load a sanitizer's runtime.
local function child_env(extra)
  local env = uv.os_environ()
  env.LD_PRELOAD = nil
  for name, value in pairs(sanitizer_options()) do env[name] = value end
  for name, value in pairs(extra or {}) do env[name] = value or nil end
  local list = {}
  for name, value in pairs(env) do list[#list + 1] = name .. "=" .. tostring(value) end
  return list
end

-- Lines ---------------------------------------------------------------------------------------------------------------

-- Collects what comes out of a pipe, whole and in lines.
local function collect(stream, lines, proc)
  local rest = ""
  stream:read_start(function(_, bytes)
    if not bytes then
      if rest ~= "" then lines[#lines + 1] = rest end
      if not stream:is_closing() then stream:close() end
      proc.open_pipes = proc.open_pipes - 1
    else
      table.insert(lines.bytes, bytes)
      rest = rest .. bytes
      for line, after in rest:gmatch "([^\n]*)\n()" do
        lines[#lines + 1] = line
        lines.rest_at = after
      end
      rest = rest:sub(lines.rest_at or 1)
      lines.rest_at = nil
    end
    proc.signal:notify()
  end)
end

-- Processes -----------------------------------------------------------------------------------------------------------

---@class support.Process
---@field pid integer
---@field argv string[]
---@field stdout string[] lines so far
---@field stderr string[] lines so far
---@field status? integer exit status, once it has ended; 128 + n for signal n
local Process = {}
Process.__index = Process

---Starts a program; it is killed at the end of the spec if it still runs.
---@param argv string[]
---@param options? { env?: table<string, string|false>, cwd?: string, stdin?: string|true } stdin true: by Process:write
---@return support.Process
function process.spawn(argv, options)
  options = options or {}
  local scope = async.scope()
  local stdin, stdout, stderr = uv.new_pipe(false), uv.new_pipe(false), uv.new_pipe(false)
  local proc = setmetatable({
    argv = argv, signal = async.signal(), scope = scope,
    stdout = { bytes = {} }, stderr = { bytes = {} }, open_pipes = 2,
  }, Process)
  local handle, pid, word = uv.spawn(argv[1], {
    args = table.move(argv, 2, #argv, 1, {}), env = child_env(options.env), cwd = options.cwd,
    stdio = { stdin, stdout, stderr },
  }, function(code, signal)
    proc.status = signal ~= 0 and 128 + signal or code
    proc.handle:close()
    proc.signal:notify()
  end)
  if not handle then
    for _, pipe in ipairs { stdin, stdout, stderr } do pipe:close() end
    async.fail(("could not run %s: %s (%s)"):format(argv[1], pid, word))
  end
  proc.handle, proc.pid = handle, math.tointeger(pid)
  collect(stdout, proc.stdout, proc)
  collect(stderr, proc.stderr, proc)
  proc.pipes = { stdout, stderr }
  if options.stdin == true then
    proc.stdin, proc.pipes[3] = stdin, stdin
  else
    if options.stdin then stdin:write(options.stdin) end
    stdin:shutdown(function()
      if not stdin:is_closing() then stdin:close() end
    end)
  end
  scope:own(proc, function() proc:kill() end)
  return proc
end

---What it wrote, for messages: the last lines of both streams.
---@param count? integer 15
---@return string
function Process:tail(count)
  local parts = {}
  for _, name in ipairs { "stdout", "stderr" } do
    local lines = self[name]
    for i = math.max(1, #lines - (count or 15) + 1), #lines do
      parts[#parts + 1] = ("    %s| %s"):format(name, lines[i])
    end
  end
  local state = self.status and "ended with status " .. self.status or "running"
  return ("%s (pid %d, %s) wrote:\n%s"):format(table.concat(self.argv, " "), self.pid, state, table.concat(parts, "\n"))
end

---Waits for its end and its last line; returns the exit status.
---@param timeout? number seconds
---@return integer
function Process:wait(timeout)
  async.wait(self.signal, function() return self.status and self.open_pipes == 0 end, "the end of " .. self.argv[1], {
    timeout = timeout, seen = function() return self:tail() end,
  })
  self.scope:disown(self)
  if self.stdin and not self.stdin:is_closing() then self.stdin:close() end
  return self.status
end

---For a process that was spawned with `stdin = true`.
---@param text string
function Process:write(text)
  self.stdin:write(text)
end

---Waits for a line that matches, on stdout or stderr; returns it, or its captures. Lines before `from` don't count.
---@param stream "stdout"|"stderr"
---@param pattern string
---@param options? { timeout?: number, from?: integer }
function Process:wait_line(stream, pattern, options)
  options = options or {}
  local lines, looked = self[stream], (options.from or 1) - 1
  local found
  local function look()
    while looked < #lines and not found do
      looked = looked + 1
      local captures = table.pack(lines[looked]:match(pattern))
      if captures.n > 0 and captures[1] then found = captures end
    end
    return found or (self.status and self.open_pipes == 0)
  end
  async.wait(self.signal, look, ("a line like %q on %s"):format(pattern, stream), {
    timeout = options.timeout, seen = function() return self:tail() end,
  })
  if not found then async.fail(("it ended before a line like %q\n  %s"):format(pattern, self:tail())) end
  return table.unpack(found, 1, found.n)
end

---@param name string "sigterm", "sighup", …
function Process:kill_with(name)
  if not self.status then uv.kill(self.pid, name) end
end

---The pids of its children, and of theirs.
---@return integer[]
function Process:children()
  return process.children(self.pid)
end

---Kills it and what it started, and reaps it.
function Process:kill()
  self.scope:disown(self)
  local pids = self:children()
  if not self.status then uv.kill(self.pid, "sigkill") end
  for _, pid in ipairs(pids) do uv.kill(pid, "sigkill") end
  async.wait(self.signal, function() return self.status end, self.argv[1] .. " to be reaped")
  for _, pipe in ipairs(self.pipes) do
    if not pipe:is_closing() then pipe:close() end
  end
end

---@param pid integer
---@return integer[]
function process.children(pid)
  local pids = {}
  local threads = uv.fs_scandir(("/proc/%d/task"):format(pid))
  if not threads then return pids end
  for name in uv.fs_scandir_next, threads do
    local file = io.open(("/proc/%d/task/%s/children"):format(pid, name))
    for child in (file and file:read "a" or ""):gmatch "%d+" do
      local id = math.tointeger(tonumber(child))
      pids[#pids + 1] = id
      for _, grandchild in ipairs(process.children(id)) do pids[#pids + 1] = grandchild end
    end
    if file then file:close() end
  end
  return pids
end

---Resident memory of one process.
---@param pid integer
---@return integer bytes 0 if it is gone
function process.rss(pid)
  local file = io.open(("/proc/%d/status"):format(pid))
  local text = file and file:read "a" or ""
  if file then file:close() end
  return 1024 * math.tointeger(tonumber(text:match "VmRSS:%s*(%d+)" or 0))
end

---Runs a program to its end.
---@param argv string[]
---@param options? { stdin?: string, env?: table<string, string|false>, cwd?: string, timeout?: number }
---@return integer status, string stdout, string stderr
function process.run(argv, options)
  local proc = process.spawn(argv, options)
  local status = proc:wait(options and options.timeout or 30)
  return status, table.concat(proc.stdout.bytes), table.concat(proc.stderr.bytes)
end

-- Files ---------------------------------------------------------------------------------------------------------------

local function remove(path)
  local stat = uv.fs_lstat(path)
  if not stat then return end
  if stat.type ~= "directory" then
    uv.fs_unlink(path)
    return
  end
  for name in uv.fs_scandir_next, uv.fs_scandir(path) do remove(path .. "/" .. name) end
  uv.fs_rmdir(path)
end

---A fresh directory, removed at the end of the spec (kept when MOONGATE_SPEC_KEEP is set).
---@param open? boolean others may read in it: the user that root's Moongate becomes
---@return string path
function process.temp_dir(open)
  local dir = assert(uv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/moongate-XXXXXX"))
  if open then assert(uv.fs_chmod(dir, tonumber("755", 8))) end
  local key = { dir }
  async.scope():own(key, function()
    if not os.getenv "MOONGATE_SPEC_KEEP" then remove(dir) end
  end)
  return dir
end

---@param path string
---@param text string
function process.write_file(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  assert(file:close())
end

---@param path string
---@return string
function process.read_file(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

return process
