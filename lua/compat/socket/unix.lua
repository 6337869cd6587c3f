-- `require "socket.unix"`: gate.socket.unix under LuaSocket's names, old (a function) and new (a table).

local gate = require "moongate"

return setmetatable({ stream = gate.socket.unix }, { __call = function() return gate.socket.unix() end })
