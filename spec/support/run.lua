-- Runs spec files side by side, each in a busted process of its own, and sums up:
--
--     MOONGATE_PRESET=asan lua5.4 spec/support/run.lua [--jobs N] [--again] [file or folder…]
--
-- A file that passes gives one line; one that fails gives its output. Last comes `N passed, N failed, N skipped`. A
-- file whose process ends badly (a crash, a sanitizer's report, the time limit) has failed, whatever it had counted.
--
-- With `--again` (or MOONGATE_SPEC_AGAIN=1) files that failed run once more at the end, one at a time: what counts is
-- that run, and the first one is shown as unsteady. A crash or a sanitizer's report is not forgiven.

local uv = require "luv"

local preset = os.getenv "MOONGATE_PRESET" or "debug"
local durations_path = ("build/%s/spec/durations"):format(preset)
local time_limit = 300 -- seconds for one file

-- What to run ---------------------------------------------------------------------------------------------------------

local function find_specs(path, found)
  local stat = uv.fs_stat(path)
  if not stat then
    io.stderr:write(path, ": no such spec\n")
    os.exit(2)
  end
  if stat.type ~= "directory" then
    found[#found + 1] = path
  elseif not path:find "spec/support$" then
    for name, kind in uv.fs_scandir_next, uv.fs_scandir(path) do
      if kind == "directory" or name:find "_spec%.lua$" then find_specs(path .. "/" .. name, found) end
    end
  end
  return found
end

-- How long each file took the last time, so that the long ones begin first.
local function read_durations()
  local durations, file = {}, io.open(durations_path)
  for line in file and file:lines() or function() end do
    local seconds, path = line:match "^(%S+) (.+)$"
    if path then durations[path] = tonumber(seconds) end
  end
  if file then file:close() end
  return durations
end

local function write_durations(durations)
  local file = io.open(durations_path, "w")
  if not file then return end
  for path, seconds in pairs(durations) do file:write(("%.2f %s\n"):format(seconds, path)) end
  file:close()
end

-- The environment -----------------------------------------------------------------------------------------------------

-- lua5.4 is not built with sanitizers, the module under test is: their runtime has to be there first.
local function sanitizer_env(env)
  local library = ({ asan = "libasan.so", tsan = "libtsan.so" })[preset]
  if not library then return end
  local pipe = assert(io.popen("cc -print-file-name=" .. library))
  env.LD_PRELOAD = pipe:read "l"
  pipe:close()
  env.ASAN_OPTIONS = "exitcode=86:detect_leaks=1"
  env.LSAN_OPTIONS = "exitcode=86:print_suppressions=0:suppressions=" .. uv.cwd() .. "/spec/support/lsan.supp"
  env.UBSAN_OPTIONS = "exitcode=86:halt_on_error=1:print_stacktrace=1"
  env.TSAN_OPTIONS = "exitcode=86:suppressions=" .. uv.cwd() .. "/spec/support/tsan.supp"
end

local function child_env()
  local env = uv.os_environ()
  env.MOONGATE_PRESET = preset
  sanitizer_env(env)
  local list = {}
  for name, value in pairs(env) do list[#list + 1] = name .. "=" .. value end
  return list
end

local function find_busted()
  for folder in (os.getenv "PATH" or ""):gmatch "[^:]+" do
    if uv.fs_access(folder .. "/busted", "R") then return folder .. "/busted" end
  end
  io.stderr:write "busted is not installed\n"
  os.exit(2)
end

-- One file ------------------------------------------------------------------------------------------------------------

local sums = { passed = 0, failed = 0, skipped = 0 }

local function count(output, status, signal)
  local passed, failures, errors, pending =
    output:match "(%d+) success%l* / (%d+) failures? / (%d+) errors? / (%d+) pending"
  local result = { passed = tonumber(passed or 0), skipped = tonumber(pending or 0) }
  result.failed = tonumber(failures or 0) + tonumber(errors or 0)
  if (status ~= 0 or signal ~= 0 or not passed) and result.failed == 0 then
    result.failed = 1
    result.note = signal ~= 0 and "killed by signal " .. signal or "ended with status " .. status
  end
  return result
end

-- What no second run takes back: it was seen, however rare it is.
local function is_final(result, output)
  local crashed = result.note ~= nil and not result.late
  return crashed or output:find "Sanitizer" ~= nil or output:find "runtime error:" ~= nil
end

local function report(path, result, seconds, output)
  for name in pairs(sums) do sums[name] = sums[name] + math.tointeger(result[name]) end
  local skipped = result.skipped > 0 and (", %d skipped"):format(result.skipped) or ""
  if result.failed == 0 then
    io.write(("ok    %s  %d passed%s  (%.1f s)\n"):format(path, result.passed, skipped, seconds))
  else
    local line = "\nFAIL  %s  %d passed, %d failed%s  (%.1f s)  %s\n"
    io.write(line:format(path, result.passed, result.failed, skipped, seconds, result.note or ""))
    io.write(output:gsub("\n+$", ""), "\n\n")
  end
  io.flush()
end

-- Ports of its own for each of the files that run side by side (net.free_port).
local function with_ports(env, slot, slots)
  local first, last = 10000, 32000
  local span = (last - first) // slots
  local list = table.move(env, 1, #env, 1, {})
  list[#list + 1] = ("MOONGATE_SPEC_PORTS=%d-%d"):format(first + slot * span, first + (slot + 1) * span - 1)
  return list
end

local function run_file(path, busted, env, on_done)
  local ends = assert(uv.pipe({ nonblock = true }, {})) -- one pipe for both streams keeps their order
  local out, output, open = uv.new_pipe(false), {}, 2
  out:open(ends.read)
  local began, status, signal, late = uv.hrtime(), nil, nil, false
  local limit = uv.new_timer()
  local process, pid

  local function finish()
    open = open - 1
    if open > 0 then return end
    local seconds = (uv.hrtime() - began) / 1e9
    local text = table.concat(output)
    local result = count(text, status, signal)
    if late then result.late, result.note = true, ("did not end within %d s"):format(time_limit) end
    on_done(result, seconds, text)
  end

  process, pid = uv.spawn("lua5.4", {
    args = { busted, "--ignore-lua", "-o", "plainTerminal", path }, env = env, stdio = { nil, ends.write, ends.write },
  }, function(code, by_signal)
    status, signal = code, by_signal
    limit:close()
    process:close()
    finish()
  end)
  assert(process, pid)
  uv.fs_close(ends.write)
  limit:start(time_limit * 1000, 0, function()
    late = true
    uv.kill(pid, "sigkill")
  end)
  out:read_start(function(_, bytes)
    if bytes then
      output[#output + 1] = bytes
    else
      out:close()
      finish()
    end
  end)
end

-- All -----------------------------------------------------------------------------------------------------------------

local jobs, paths, again = #uv.cpu_info(), {}, os.getenv "MOONGATE_SPEC_AGAIN" == "1"
local i = 1
while arg[i] do
  if arg[i] == "--jobs" then
    i = i + 1
    jobs = assert(tonumber(arg[i]), "--jobs wants a number")
  elseif arg[i] == "--again" then
    again = true
  else
    find_specs(arg[i]:gsub("/$", ""), paths)
  end
  i = i + 1
end
if #paths == 0 then find_specs("spec", paths) end

local durations = read_durations()
table.sort(paths, function(a, b)
  local long_a, long_b = durations[a] or math.huge, durations[b] or math.huge
  if long_a ~= long_b then return long_a > long_b end
  return a < b
end)

local busted, env, next_path, unsteady = find_busted(), child_env(), 1, {}

local function run_next(slot)
  local path = paths[next_path]
  next_path = next_path + 1
  if not path then return end
  run_file(path, busted, with_ports(env, slot, jobs), function(result, seconds, output)
    durations[path] = seconds
    if again and result.failed > 0 and not is_final(result, output) then
      unsteady[#unsteady + 1] = path
      io.write("\nUNSTEADY  ", path, ": it failed as follows, and runs again at the end\n", output, "\n")
    else
      report(path, result, seconds, output)
    end
    run_next(slot)
  end)
end

local function run_unsteady(n)
  local path = unsteady[n]
  if not path then return end
  run_file(path, busted, with_ports(env, 0, jobs), function(result, seconds, output)
    report(path, result, seconds, output)
    run_unsteady(n + 1)
  end)
end

for slot = 0, jobs - 1 do run_next(slot) end
uv.run()
run_unsteady(1)
uv.run()

if #unsteady > 0 then print("unsteady: " .. table.concat(unsteady, ", ")) end
write_durations(durations)
print(("%d passed, %d failed, %d skipped"):format(sums.passed, sums.failed, sums.skipped))
os.exit(sums.failed == 0 and sums.passed > 0)
