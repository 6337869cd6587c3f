-- dnsmasq as the name server of a proxy (`env = { MOONGATE_NAMESERVER = address }`): it knows what it is told and
-- nothing else.

local async = require "support.async"
local net = require "support.net"
local process = require "support.process"

local dnsmasq = {}

---Starts one, and waits until it answers.
---@param records string[] options of it, such as "--host-record=app.test,192.0.2.1"
---@return string address
---@return support.Process
function dnsmasq.start(records)
  local port = net.free_port()
  local argv = { "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
    "--local=/test/", "--local=/arpa/", "--listen-address=127.0.0.1", "--bind-interfaces", "--port=" .. port,
    "--user=root", "--log-queries", "--log-facility=-" }
  table.move(records, 1, #records, #argv + 1, argv)
  local server = process.spawn(argv)
  async.eventually("dnsmasq", function() return net.try_connect(port) end)
  return "127.0.0.1:" .. port, server
end

return dnsmasq
