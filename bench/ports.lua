-- What benches with processes of their own share: ports, and waiting. They run from the project's folder.

local uv = require "luv"

local ports = {}

---Runs the loop until `condition` holds; false after so many seconds.
---@param seconds number
---@param condition fun(): any
---@return any
function ports.wait_until(seconds, condition)
  local deadline = uv.hrtime() + seconds * 1e9
  while not condition() and uv.hrtime() < deadline do
    uv.run "nowait"
    uv.sleep(2)
  end
  return condition()
end

---One that nobody has at this moment.
---@return integer
function ports.free()
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
function ports.await(seconds, port)
  return ports.wait_until(seconds, function()
    local socket, open = uv.new_tcp(), nil
    socket:connect("127.0.0.1", port, function(err) open = not err end)
    ports.wait_until(1, function() return open ~= nil end)
    socket:close()
    return open
  end) or false
end

return ports
