-- `run --watch`: a saved file is loaded.

local support = require "support"
local uv = require "luv"
local it, http, process, moongate = support.it, support.http, support.process, support.moongate

local function config(body)
  return ([[
    local gate = require "moongate"
    return { listen = "127.0.0.1:$PORT", backends = {}, on_request = function() return gate.reply(200, %q) end }
  ]]):format(body)
end

local function start(text)
  return moongate.start { config = text or config "one", args = { "--watch" } }
end

local function await_body(gate, body)
  support.eventually(("the answer %q"):format(body), function() return http.get(gate.port).body == body end)
end

describe("--watch", function()
  it("loads a config that was written in place", function()
    local gate = start()
    await_body(gate, "one")
    for _, body in ipairs { "two", "three" } do
      gate:write_config(config(body))
      await_body(gate, body)
    end
  end)

  it("loads a config that was replaced by a rename, as editors do", function()
    local gate = start()
    local edited = gate.config .. ".swp"
    process.write_file(edited, (config "two"):gsub("%$PORT", gate.port))
    assert(uv.fs_rename(edited, gate.config))
    await_body(gate, "two")
    gate:write_config(config "three")
    await_body(gate, "three")
  end)

  it("watches the modules that the config requires", function()
    local dir = support.temp_dir()
    process.write_file(dir .. "/part.lua", [[return { body = "one" }]])
    process.write_file(dir .. "/main.lua", ([[
      local gate, part = require "moongate", require "part"
      return { listen = "127.0.0.1:%d", backends = {}, on_request = function() return gate.reply(200, part.body) end }
    ]]):format(support.free_port()))
    local gate = moongate.start { file = dir .. "/main.lua", args = { "--watch" } }
    gate.port = tonumber(gate.listening:match ":(%d+)$")
    await_body(gate, "one")
    process.write_file(dir .. "/part.lua", [[return { body = "two" }]])
    await_body(gate, "two")
  end)

  it("follows a link to another file", function()
    local dir = support.temp_dir()
    local port = support.free_port()
    for _, body in ipairs { "one", "two" } do
      process.write_file(("%s/%s.lua"):format(dir, body), (config(body):gsub("%$PORT", port)))
    end
    assert(uv.fs_symlink(dir .. "/one.lua", dir .. "/current.lua"))
    local gate = moongate.start { file = dir .. "/current.lua", args = { "--watch" } }
    gate.port = port
    await_body(gate, "one")
    assert(uv.fs_symlink(dir .. "/two.lua", dir .. "/next.lua"))
    assert(uv.fs_rename(dir .. "/next.lua", dir .. "/current.lua"))
    await_body(gate, "two")
  end)

  it("keeps the old one while the new one is broken, says why, and loads the repaired one", function()
    local gate = start()
    gate:write_config "return {{{"
    gate:wait_log "the config was not loaded: generation 1 goes on"
    assert.matches(gate.config .. ":1: ", gate:log(), 1, true)
    assert.equal("one", http.get(gate.port).body)
    gate:write_config(config "repaired")
    await_body(gate, "repaired")
  end)

  it("does not mind other files beside it", function()
    local gate = start()
    process.write_file(gate.dir .. "/other.lua", "x")
    gate:write_config(config "two")
    await_body(gate, "two")
    assert.matches("generation +2,", (select(2, gate:command "status")))
  end)
end)
