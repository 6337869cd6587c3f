-- Hello: the smallest config. A file that returns nothing is itself one site; this one answers without any backend.
--
--     moongate run examples/hello.lua
--
--     $ curl http://127.0.0.1:8080/
--     Hello, world!
--     $ curl 'http://127.0.0.1:8080/?name=Ada'
--     Hello, Ada!

local gate = require "moongate"

listen = "127.0.0.1:8080"

function on_request(req)
  return gate.reply(200, ("Hello, %s!\n"):format(req.args.name or "world"))
end
