-- What benches with processes of their own share: ports, waiting, and what the system says of them. They run from the
-- project's folder.

local uv = require "luv"

local processes = {}

---Runs the loop until `condition` holds; false after so many seconds.
---@param seconds number
---@param condition fun(): any
---@return any
function processes.wait_until(seconds, condition)
  local deadline = uv.hrtime() + seconds * 1e9
  while not condition() and uv.hrtime() < deadline do
    uv.run "nowait"
    uv.sleep(2)
  end
  return condition()
end

---A port that nobody has at this moment.
---@return integer
function processes.free_port()
  local socket = uv.new_tcp()
  assert(socket:bind("127.0.0.1", 0))
  local port = socket:getsockname().port
  socket:close()
  return port
end

---Until somebody listens there; false after so many seconds.
---@param seconds number
---@param port integer
---@return boolean
function processes.await_port(seconds, port)
  return processes.wait_until(seconds, function()
    local socket, open = uv.new_tcp(), nil
    socket:connect("127.0.0.1", port, function(err) open = not err end)
    processes.wait_until(1, function() return open ~= nil end)
    socket:close()
    return open
  end) or false
end

---What a file says; "" where there is none.
---@param path string
---@return string
function processes.read_file(path)
  local file = io.open(path)
  local text = file and file:read "a" or ""
  if file then file:close() end
  return text
end

---The pid of the process that serves, below a supervisor's.
---@param pid integer
---@return string
function processes.serving(pid)
  return processes.read_file(("/proc/%d/task/%d/children"):format(pid, pid)):match "%d+"
end

return processes
