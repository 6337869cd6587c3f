-- The resolver against a name server of our own: UDP, in this file, run by the same loop.
local net = require("moongate_core").net
local socket = require "socket"

local A, CNAME, AAAA = 1, 5, 28

local function encode_name(name)
  return (name:gsub("([^.]+)%.?", function(label) return string.pack("s1", label) end)) .. "\0"
end

local function decode_question(packet)
  local at, labels = 13, {}
  while packet:byte(at) ~= 0 do
    local label
    label, at = string.unpack("s1", packet, at)
    labels[#labels + 1] = label
  end
  return table.concat(labels, "."), string.unpack(">I2", packet, at + 1)
end

local function encode_data(record)
  if record.type == CNAME then return encode_name(record.data) end
  if record.type == A then return string.char(record.data:match "(%d+)%.(%d+)%.(%d+)%.(%d+)") end
  local words = {}
  for word in record.data:gmatch "%x+" do words[#words + 1] = string.pack(">I2", tonumber(word, 16)) end
  return table.concat(words)
end

-- The answer to `packet`: a list of records { name, type, ttl, data }, or an error code.
local function encode_answer(packet, records)
  local code = type(records) == "number" and records or 0
  local answers = {}
  for i, record in ipairs(code == 0 and records or {}) do
    local data = encode_data(record)
    -- The name asked for is pointed at: without that, sixteen addresses would need TCP.
    local name = record.name == decode_question(packet) and "\xc0\x0c" or encode_name(record.name)
    answers[i] = name .. string.pack(">I2I2I4s2", record.type, 1, record.ttl, data)
  end
  local question_end = packet:find("\0", 13, true) + 4
  local head = packet:sub(1, 2) .. string.pack(">I2I2I2I2I2", 0x8180 | code, 1, #answers, 0, 0)
  return head .. packet:sub(13, question_end) .. table.concat(answers)
end

describe("the resolver", function()
  local loop, mailbox, server, address, zone, asked

  before_each(function()
    loop, zone, asked = net.loop(), {}, {}
    mailbox = loop:mailbox()
    server = assert(socket.udp())
    assert(server:setsockname("127.0.0.1", 0))
    server:settimeout(0)
    address = "127.0.0.1:" .. select(2, server:getsockname())
    loop:watch(server:getfd(), function()
      local packet, ip, port = server:receivefrom()
      if not packet then return end
      local name, kind = decode_question(packet)
      name = name:lower()
      asked[name] = (asked[name] or 0) + 1
      local answer = zone[name]
      if type(answer) == "function" then answer = answer(kind) end
      if answer == "silence" then return end
      local records = answer or 3
      if type(records) == "table" then
        local fitting = {}
        for _, record in ipairs(records) do
          if record.type == kind or record.type == CNAME then fitting[#fitting + 1] = record end
        end
        records = fitting
      end
      server:sendto(encode_answer(packet, records), ip, port)
    end)
  end)
  after_each(function()
    loop:close()
    server:close()
  end)

  local function ask(resolver, name)
    local answer
    resolver:ask(name, mailbox, function(_, found) answer = found end)
    assert.is_nil(answer)
    assert(loop:run_until(function() return answer end), "no answer for " .. name)
    return answer
  end

  it("finds the addresses of a name, IPv4 first, in order", function()
    zone["app.test"] = {
      { name = "app.test", type = A, ttl = 60, data = "10.0.0.2" },
      { name = "app.test", type = AAAA, ttl = 90, data = "2001:db8:0:0:0:0:0:1" },
      { name = "app.test", type = A, ttl = 60, data = "10.0.0.1" },
    }
    local answer = ask(loop:resolver(mailbox, address), "app.test")
    assert.equal("ok", answer.why)
    assert.same({ "10.0.0.1", "10.0.0.2", "2001:db8::1" }, { table.unpack(answer) })
    assert.is_true(answer.ttl > 58 and answer.ttl < 61)
  end)

  it("takes at most 16 of them, none twice", function()
    local records = {}
    for i = 1, 20 do records[i] = { name = "many.test", type = A, ttl = 60, data = "10.0.0." .. i } end
    zone["many.test"] = records
    local resolver = loop:resolver(mailbox, address)
    assert.equal(16, #ask(resolver, "many.test"))
    zone["twice.test"] = {
      { name = "twice.test", type = A, ttl = 60, data = "10.0.0.1" },
      { name = "twice.test", type = A, ttl = 60, data = "10.0.0.1" },
    }
    assert.same({ "10.0.0.1" }, { table.unpack(ask(resolver, "twice.test")) })
  end)

  it("follows an alias, and keeps the answer for the shortest time of the chain", function()
    zone["www.test"] = {
      { name = "www.test", type = CNAME, ttl = 7, data = "app.test" },
      { name = "app.test", type = A, ttl = 300, data = "10.0.0.9" },
    }
    local answer = ask(loop:resolver(mailbox, address), "www.test")
    assert.same({ "10.0.0.9" }, { table.unpack(answer) })
    assert.is_true(answer.ttl > 5 and answer.ttl < 8)
  end)

  it("asks once for an answer that holds, whatever the case of the letters", function()
    zone["app.test"] = { { name = "app.test", type = A, ttl = 60, data = "10.0.0.1" } }
    local resolver = loop:resolver(mailbox, address)
    ask(resolver, "app.test")
    local questions = asked["app.test"]
    ask(resolver, "App.TEST")
    assert.equal(questions, asked["app.test"])
  end)

  it("asks once for all who ask meanwhile", function()
    zone["app.test"] = { { name = "app.test", type = A, ttl = 60, data = "10.0.0.1" } }
    local resolver = loop:resolver(mailbox, address)
    local count = 0
    for _ = 1, 5 do
      resolver:ask("app.test", mailbox, function(_, found)
        assert.same({ "10.0.0.1" }, { table.unpack(found) })
        count = count + 1
      end)
    end
    assert.is_true(loop:run_until(function() return count == 5 end))
    assert.equal(2, asked["app.test"]) -- A and AAAA
  end)

  it("asks again when the time of an answer has passed, which is one second at least", function()
    zone["app.test"] = { { name = "app.test", type = A, ttl = 0, data = "10.0.0.1" } }
    local resolver = loop:resolver(mailbox, address)
    local first = ask(resolver, "app.test")
    assert.is_true(first.ttl > 0.9 and first.ttl < 1.1)
    zone["app.test"] = { { name = "app.test", type = A, ttl = 1000000, data = "10.0.0.2" } }
    assert.same({ "10.0.0.1" }, { table.unpack(ask(resolver, "app.test")) })
    local passed
    loop:deadline(function() passed = true end):set(1.01)
    loop:run_until(function() return passed end)
    local second = ask(resolver, "app.test")
    assert.same({ "10.0.0.2" }, { table.unpack(second) })
    assert.is_true(second.ttl < 3601)
  end)

  it("says when there is no such name, and does not ask again at once", function()
    local resolver = loop:resolver(mailbox, address)
    local answer = ask(resolver, "nobody.test")
    assert.equal("name_not_found", answer.why)
    assert.equal(0, #answer)
    local questions = asked["nobody.test"]
    assert.equal("name_not_found", ask(resolver, "nobody.test").why)
    assert.equal(questions, asked["nobody.test"])
  end)

  it("says when a name has no address", function()
    zone["mail.test"] = {}
    assert.equal("name_not_found", ask(loop:resolver(mailbox, address), "mail.test").why)
  end)

  it("takes what one family has when the other fails", function()
    zone["half.test"] = function(kind)
      return kind == A and { { name = "half.test", type = A, ttl = 60, data = "10.0.0.1" } } or 2
    end
    local answer = ask(loop:resolver(mailbox, address), "half.test")
    assert.same({ "10.0.0.1" }, { table.unpack(answer) })
  end)

  it("fails when the server fails or does not answer", function()
    local resolver = loop:resolver(mailbox, address)
    zone["broken.test"] = 2
    assert.equal("name_failed", ask(resolver, "broken.test").why)
    zone["silent.test"] = "silence"
    assert.equal("name_failed", ask(resolver, "silent.test").why)
    assert.is_true(asked["silent.test"] >= 4) -- A and AAAA, each tried again
  end)

  it("fails when nobody listens there", function()
    local other = assert(socket.udp())
    assert(other:setsockname("127.0.0.1", 0))
    local port = select(2, other:getsockname())
    other:close()
    assert.equal("name_failed", ask(loop:resolver(mailbox, "127.0.0.1:" .. port), "app.test").why)
  end)

  it("knows localhost and numeric addresses without asking", function()
    local resolver = loop:resolver(mailbox, address)
    assert.equal("127.0.0.1", ask(resolver, "localhost")[1])
    assert.same({ "192.0.2.7" }, { table.unpack(ask(resolver, "192.0.2.7")) })
    assert.same({ "2001:db8::7" }, { table.unpack(ask(resolver, "2001:DB8::7")) })
    assert.same({}, asked)
  end)

  it("does not ask for what cannot be a name", function()
    local resolver = loop:resolver(mailbox, address)
    for _, name in ipairs { "", "a b", "a/b", "app.test\0.evil", "a:b", "ä.test", ("x"):rep(256), "a\r\nb" } do
      assert.equal("name_not_found", ask(resolver, name).why, name)
    end
    for _, name in ipairs { ("x"):rep(64) .. ".test", "a..test", ".test" } do
      assert.not_equal("ok", ask(resolver, name).why, name)
    end
  end)

  it("does not answer a question that was withdrawn, and answers the others", function()
    zone["app.test"] = { { name = "app.test", type = A, ttl = 60, data = "10.0.0.1" } }
    local resolver = loop:resolver(mailbox, address)
    local withdrawn = resolver:ask("app.test", mailbox, function() error "withdrawn" end)
    local answer
    resolver:ask("app.test", mailbox, function(_, found) answer = found end)
    withdrawn:close()
    assert.is_true(loop:run_until(function() return answer end))
  end)

  it("answers who still waits when it is destroyed", function()
    zone["silent.test"] = "silence"
    local resolver = loop:resolver(mailbox, address)
    local answers = {}
    local function note(_, found) answers[#answers + 1] = found.why end
    resolver:ask("silent.test", mailbox, note)
    loop:run_until(function() return asked["silent.test"] end)
    resolver:ask("silent.test", mailbox, note) -- is still in the mailbox
    resolver:close()
    assert.is_true(loop:run_until(function() return #answers == 2 end))
    assert.same({ "name_failed", "name_failed" }, answers)
  end)

  it("is asked by other threads, and answers in their loops", function()
    zone["app.test"] = { { name = "app.test", type = A, ttl = 60, data = "10.0.0.1" } }
    local resolver = loop:far_resolver(address)
    local count = 0
    for i = 1, 40 do
      local name = i % 2 == 0 and "app.test" or "nobody" .. i .. ".test"
      resolver:ask(name, mailbox, function(_, found)
        assert.equal(i % 2 == 0 and "ok" or "name_not_found", found.why)
        count = count + 1
      end)
    end
    assert.is_true(loop:run_until(function() return count == 40 end))
  end)
end)
