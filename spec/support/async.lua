-- Tasks and deadlines: what makes a spec read like a story while its fake servers run beside it.
--
-- A spec's body and every handler of its fake servers are *tasks*: coroutines over one uv loop. A callback of uv never
-- runs a task; it notes a fact and wakes who waits for it, and the driver resumes tasks from the bottom of the stack.
-- So tasks may wake each other freely, an error in one never unwinds through uv, and a traceback is the task's own.
--
-- Tasks and open things belong to a *scope*. Closing it closes everything in the reverse order of opening, whether the
-- body passed or failed. `support.it` opens one per spec, `support.setup` one that outlives several.
--
-- There is one way to wait, `async.wait`, and it always has a deadline.

local uv = require "luv"

local async = {}

local ready = {}    -- tasks to resume in the next round
local tasks = {}    -- coroutine -> its task
local scopes = {}   -- open scopes, innermost last
local broken        -- the first failure of a task nobody waits for
local closing = 0   -- while a scope closes, such failures are of no interest: its conns are being cut

-- Failures ------------------------------------------------------------------------------------------------------------

local here = debug.getinfo(1, "S").source:match "^@(.*)async%.lua$"

local function is_own_frame(source)
  return source:sub(1, 1) ~= "@" or source:sub(2, #here + 1) == here or source:find("/usr/", 1, true) == 2
end

---Raises `message`, blamed on the line of the spec that called into the harness.
---@param message string
function async.fail(message)
  local level = 2
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then error(message, 0) end
    if info.currentline > 0 and not is_own_frame(info.source) then
      error(("%s:%d: %s"):format(info.short_src, info.currentline, message), 0)
    end
    level = level + 1
  end
end

local function task_trace(thread)
  local lines = {}
  for line in debug.traceback(thread):gmatch "[^\n]+" do
    if line:find("%.lua:%d+:") and not line:find("/usr/", 1, true) then lines[#lines + 1] = line end
  end
  return #lines > 0 and "\n" .. table.concat(lines, "\n") or ""
end

-- An error value with `more` at its end. Values of busted keep their kind: a failed assert stays a failure, a pending
-- stays a pending.
local function append_to_error(err, more)
  if more == "" then return err end
  if type(err) == "string" then return err .. more end
  local meta = debug.getmetatable(err)
  if type(err) == "table" and meta and meta.__type == "failure" then
    if type(err.message) == "string" then err.message = err.message .. more end
    return err
  end
  return err
end

local function error_text(err)
  if type(err) == "table" and type(err.message) == "string" then return err.message end
  return tostring(err)
end

-- Signals and waiting -------------------------------------------------------------------------------------------------

---@class support.Signal
---@field waiters table
local Signal = {}
Signal.__index = Signal

-- While it is active uv does not block. A round of uv.run calls timers first and polls then: without this, a task woken
-- by a timer would wait for the poll to end.
local hurry = uv.new_idle()

local function wake(task)
  if task.queued or task.done then return end
  task.queued = true
  ready[#ready + 1] = task
  hurry:start(function() end)
end

---Makes those who wait on this signal look again.
function Signal:notify()
  for task in pairs(self.waiters) do wake(task) end
end

---@return support.Signal
function async.signal()
  return setmetatable({ waiters = {} }, Signal)
end

---The task that is running; waits are only possible in one.
local function current()
  local task = tasks[coroutine.running()]
  if not task then async.fail "this needs a task: write the spec with support.it, or wrap its body in support.async" end
  return task
end

local slow = ({ asan = 5, tsan = 5, hard = 5 })[os.getenv "MOONGATE_PRESET" or ""] or 1
slow = tonumber(os.getenv "MOONGATE_SPEC_SLOW") or slow

---How many times longer things may take in this build (sanitizers, valgrind, the hard build).
async.slow = slow

---Seconds a wait may take unless it says otherwise, before `async.slow`.
async.deadline = 5

---Suspends the running task until `is_ready()` returns something true, and returns that. It looks at once and again
---each time `signal` fires. Past the deadline the spec fails, telling what was awaited and what had been seen.
---@param signal support.Signal
---@param is_ready fun(): any
---@param what string what is awaited, "a response head"
---@param options? { timeout?: number, seen?: fun(): string }  timeout in seconds, multiplied by `async.slow`
function async.wait(signal, is_ready, what, options)
  local task = current()
  local value = is_ready()
  if value then return value end

  local seconds = (options and options.timeout or async.deadline) * slow
  local late = false
  uv.update_time()
  local timer = uv.new_timer()
  timer:start(math.ceil(seconds * 1000), 0, function()
    late = true
    wake(task)
  end)
  local cleanup <close> = setmetatable({}, { __close = function() -- also when the task is closed while it waits
    signal.waiters[task] = nil
    timer:close()
  end })
  signal.waiters[task] = true
  repeat
    coroutine.yield()
    value = is_ready()
  until value or late
  if value then return value end
  local seen = options and options.seen and "\n  so far: " .. options.seen() or ""
  async.fail(("waited %g s for %s%s"):format(seconds, what, seen))
end

---Waits until `is_ready()` returns something true, for what has no event (a file, /proc): looks every 10 ms.
---@param what string
---@param is_ready fun(): any
---@param options? { timeout?: number, seen?: fun(): string }
function async.eventually(what, is_ready, options)
  local signal, timer = async.signal(), uv.new_timer()
  timer:start(10, 10, function() signal:notify() end)
  local cleanup <close> = setmetatable({}, { __close = function() timer:close() end })
  return async.wait(signal, is_ready, what, options)
end

---Lets time pass. Only for what is about time itself (a slow peer, an idle limit), never to wait for something.
---@param seconds number not multiplied by `async.slow`
function async.sleep(seconds)
  local signal, timer, over = async.signal(), uv.new_timer(), false
  uv.update_time()
  timer:start(math.ceil(seconds * 1000), 0, function()
    over = true
    signal:notify()
  end)
  local cleanup <close> = setmetatable({}, { __close = function() timer:close() end })
  async.wait(signal, function() return over end, "a sleep", { timeout = seconds + 5 })
end

-- Tasks ---------------------------------------------------------------------------------------------------------------

---@class support.Task
---@field done boolean
---@field failure? any
local Task = {}
Task.__index = Task

local function finish_task(task, ok, ...)
  task.done = true
  task.scope.tasks[task] = nil
  tasks[task.thread] = nil
  if ok then
    task.results = table.pack(...)
  else
    task.failure = append_to_error((...), task_trace(task.thread))
    if not task.awaited and closing == 0 then broken = broken or task.failure end
  end
  task.finished:notify()
end

local none = { n = 0 }

local function resume(task)
  task.queued = false
  if task.done then return end
  local arguments = task.arguments -- of the first resume
  task.arguments = none
  local results = table.pack(coroutine.resume(task.thread, table.unpack(arguments, 1, arguments.n)))
  if coroutine.status(task.thread) == "dead" then finish_task(task, table.unpack(results, 1, results.n)) end
end

local function run_ready()
  local round = ready
  ready = {}
  hurry:stop()
  for _, task in ipairs(round) do resume(task) end
end

local function start_task(scope, fn, ...)
  local task = setmetatable({
    thread = coroutine.create(fn), arguments = table.pack(...), scope = scope, done = false, finished = async.signal(),
  }, Task)
  tasks[task.thread] = task
  scope.tasks[task] = true
  wake(task)
  return task
end

---Runs `fn(…)` as a task beside this one. If it fails, the spec fails, unless someone joins it.
---@return support.Task
function async.spawn(fn, ...)
  return start_task(current().scope, fn, ...)
end

---As `spawn`, in a given scope; may be called from a uv callback.
---@param scope support.Scope
---@return support.Task
function async.spawn_in(scope, fn, ...)
  return start_task(scope, fn, ...)
end

---Waits for the task's end and returns what it returned; a failure is raised here.
---@param timeout? number seconds
function Task:join(timeout)
  self.awaited = true
  if self.failure and broken == self.failure then broken = nil end
  async.wait(self.finished, function() return self.done end, "a task to end", { timeout = timeout })
  if self.failure then error(self.failure, 0) end
  return table.unpack(self.results, 1, self.results.n)
end

---Runs the functions side by side, waits for all, returns the first result of each; the first failure is raised.
function async.all(...)
  local started, results = {}, {}
  for i, fn in ipairs { ... } do started[i] = async.spawn(fn) end
  for i, task in ipairs(started) do results[i] = task:join(60) end
  return table.unpack(results, 1, #started)
end

-- Scopes --------------------------------------------------------------------------------------------------------------

---@class support.Scope
local Scope = {}
Scope.__index = Scope

---The scope of the running task: what is opened now is closed with it.
---@return support.Scope
function async.scope()
  return current().scope
end

---Has `close()` run as a task when the scope closes, in reverse order of owning. `thing` is the key for `disown`.
---@generic T
---@param thing T
---@param close fun()
---@return T
function Scope:own(thing, close)
  self.last = self.last + 1
  self.owned[self.last] = { thing = thing, close = close }
  self.places[thing] = self.last
  return thing
end

---Forgets a thing that was closed before its scope.
function Scope:disown(thing)
  local place = self.places[thing]
  if not place then return end
  self.owned[place], self.places[thing] = nil, nil
end

---Has `tell()` add to the message when the spec fails (the log of a process, say). It may return nil.
---@param tell fun(): string?
function Scope:witness(tell)
  table.insert(self.witnesses, tell)
end

---Runs `fn` as a task of this scope and works the loop until it is done. Returns nil, or the failure.
local function drive(scope, fn)
  local main = start_task(scope, fn)
  main.awaited = true
  while true do
    run_ready()
    if main.done then return main.failure end
    if broken then break end
    if #ready == 0 and not uv.loop_alive() then return "the spec waits, but nothing is left that could wake it" end
    uv.run "once"
  end
  local failure = broken
  broken = nil
  return failure
end

local function witnesses_text(scope)
  local texts = {}
  for _, tell in ipairs(scope.witnesses) do
    local ok, text = pcall(tell)
    if text then texts[#texts + 1] = "\n" .. (ok and text or "(a witness failed: " .. tostring(text) .. ")") end
  end
  return table.concat(texts)
end

-- Closes all that the scope owns; returns the failures of doing so, as text.
local function close_scope(scope)
  closing = closing + 1
  local failures = {}
  for place = scope.last, 1, -1 do
    local entry = scope.owned[place]
    if entry then
      scope:disown(entry.thing)
      local failure = drive(scope, entry.close)
      if failure then failures[#failures + 1] = error_text(failure) end
    end
  end
  for task in pairs(scope.tasks) do
    task.done = true
    tasks[task.thread] = nil
    coroutine.close(task.thread)
  end
  uv.run "nowait" -- lets closed handles go
  closing = closing - 1
  broken = nil
  for i = #scopes, 1, -1 do
    if scopes[i] == scope then table.remove(scopes, i) end
  end
  return failures
end

---Opens a scope that lives until `close`; `run` its parts inside.
---@return support.Scope
function async.open()
  local scope = setmetatable({ owned = {}, places = {}, last = 0, tasks = {}, witnesses = {} }, Scope)
  scopes[#scopes + 1] = scope
  return scope
end

---Runs `fn` as a task of the scope. A failure closes the scope and is raised, with what the closing and the witnesses
---of all open scopes have to say.
function Scope:run(fn)
  local failure = drive(self, fn)
  if not failure then return end
  local open = table.move(scopes, 1, #scopes, 1, {})
  local more = {}
  for _, text in ipairs(close_scope(self)) do more[#more + 1] = "\nand when closing: " .. text end
  for _, scope in ipairs(open) do more[#more + 1] = witnesses_text(scope) end
  self.closed = true
  error(append_to_error(failure, table.concat(more)), 0)
end

---Closes everything the scope owns. Raises when that failed (a process that crashed, a leak).
function Scope:close()
  if self.closed then return end
  self.closed = true
  local failures = close_scope(self)
  if #failures > 0 then error(table.concat(failures, "\nand: ") .. witnesses_text(self), 0) end
end

---Runs `fn` in a scope of its own.
---@param fn fun()
function async.run(fn)
  local scope = async.open()
  scope:run(fn)
  scope:close()
end

---Makes a function for busted of a body that waits: `async(function() … end)`.
---@param body fun()
---@return fun()
function async.wrap(body)
  return function() async.run(body) end
end

return setmetatable(async, { __call = function(_, body) return async.wrap(body) end })
