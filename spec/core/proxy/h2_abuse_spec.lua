-- HTTP/2 from clients that mean harm: each is sent away, or held to what it may cost, and whoever else is there is
-- served as before.

local support = require "support"
local it, http, net, h2, moongate = support.it, support.http, support.net, support.h2, support.moongate

-- Bytes come and go one by one in the hard build.
local hard = support.process.preset == "hard"

local function start(backend, site)
  return moongate.start { workers = 1, values = { BACKEND = backend or http.backend "fine" }, config = ([[
    return { listen = { "127.0.0.1:$PORT", h2c = true }, backends = { app = { "$BACKEND" } }, %s }
  ]]):format(site or "") }
end

-- Sends `bytes` again and again, as an abuser would who reads nothing, until the conn is closed for that.
local function pour(peer, bytes, most)
  for _ = 1, most do
    if not peer.conn:try_send(bytes) then return true end
    if peer.conn.eof then return true end
  end
  return false
end

-- The abuser's goodbye, and that another client noticed nothing.
local function expect_sent_away(gate, peer, error)
  local word = peer:dismissed()
  if error then assert.equal(error, word) end
  support.eventually("the end of the conn", function() return peer.conn.eof or peer.conn.lost end)
  assert.equal("fine", h2.connect(gate.port):exchange("/").body)
end

describe("a client of HTTP/2 is sent away", function()
  -- Posts so many requests, each followed by a frame of its stream.
  local function post_requests(peer, count, kind, payload)
    local burst = {}
    local block = h2.hpack.encode(h2.request_fields "/")
    for id = 1, 2 * count, 2 do
      burst[#burst + 1] = h2.frame("HEADERS", h2.END_HEADERS | h2.END_STREAM, id, block)
      burst[#burst + 1] = h2.frame(kind, 0, id, payload)
    end
    peer.conn:post(table.concat(burst))
  end

  it("that resets its streams as fast as it makes them", function()
    local gate = start()
    local peer = h2.connect(gate.port, { thrifty = true })
    post_requests(peer, 2000, "RST_STREAM", "\0\0\0\8")
    expect_sent_away(gate, peer, "ENHANCE_YOUR_CALM")
  end)

  it("that makes us reset its streams", function()
    local gate = start()
    local peer = h2.connect(gate.port, { thrifty = true })
    post_requests(peer, 3000, "WINDOW_UPDATE", "\0\0\0\0")
    expect_sent_away(gate, peer)
  end)

  it("but not one that cancels now and then", function()
    local gate = start()
    local peer = h2.connect(gate.port)
    for _ = 1, 300 do
      peer:reset(peer:request "/", "CANCEL")
      assert.equal("fine", peer:exchange("/").body)
    end
  end)

  for what, flood in pairs {
    ["PINGs"] = h2.frame("PING", 0, 0, ("x"):rep(8)),
    ["SETTINGS"] = h2.frame("SETTINGS", 0, 0),
    ["PRIORITY frames"] = h2.frame("PRIORITY", 0, 1, "\0\0\0\0\0"),
    ["WINDOW_UPDATEs"] = h2.frame("WINDOW_UPDATE", 0, 0, "\0\0\0\1"),
    ["frames of no known type"] = (">I3BBI4"):pack(1, 99, 0, 0) .. "x",
  } do
    it("that floods us with " .. what, function()
      local gate = start()
      local peer = h2.connect(gate.port)
      peer:sync()
      peer.conn:post(flood:rep(20000))
      expect_sent_away(gate, peer)
    end)
  end

  it("that floods us with empty DATA frames", function()
    local gate = start(net.listen())
    local peer = h2.connect(gate.port)
    local stream = peer:request("/", { method = "POST", open = true })
    peer.conn:post(h2.frame("DATA", 0, stream):rep(20000))
    assert.equal("ENHANCE_YOUR_CALM", peer:dismissed())
  end)

  it("that never ends its head", function()
    local gate = start()
    local peer = h2.connect(gate.port)
    peer:sync()
    peer:send("HEADERS", 0, 1, h2.hpack.encode(h2.request_fields "/"))
    peer.conn:post(h2.frame("CONTINUATION", 0, 1, h2.hpack.literal("x", "y")):rep(20000))
    expect_sent_away(gate, peer)
  end)

  it("whose few bytes stand for megabytes of head", function()
    local gate = start()
    local peer = h2.connect(gate.port)
    peer:sync()
    local bomb = h2.hpack.encode(h2.request_fields "/") .. h2.hpack.literal("x", ("y"):rep(3900), true)
      .. h2.hpack.indexed(62):rep(10000)
    peer:send("HEADERS", h2.END_HEADERS | h2.END_STREAM, 1, bomb)
    expect_sent_away(gate, peer, "ENHANCE_YOUR_CALM")
  end)

  it("whose few bytes stand for thousands of fields", function()
    local gate = start()
    local peer = h2.connect(gate.port)
    peer:sync()
    local bomb = h2.hpack.encode(h2.request_fields "/") .. h2.hpack.literal("x", "", true)
      .. h2.hpack.indexed(62):rep(16000)
    peer:send("HEADERS", h2.END_HEADERS | h2.END_STREAM, 1, bomb)
    expect_sent_away(gate, peer, "ENHANCE_YOUR_CALM")
  end)

  it("that makes more streams than it may", function()
    local gate = start(net.listen())
    local peer = h2.connect(gate.port)
    peer:sync()
    local most = peer.settings[h2.settings.MAX_CONCURRENT_STREAMS]
    for _ = 1, most + 1 do peer:request "/" end
    assert.equal("PROTOCOL_ERROR", peer:dismissed())
  end)

  it("that does not take the answers to its PINGs", function()
    local gate = start()
    local peer = h2.connect(gate.port)
    peer:sync()
    peer.conn:stop_reading()
    assert.truthy(pour(peer, h2.frame("PING", 0, 0, ("x"):rep(8)):rep(1000), 1000))
    assert.equal("fine", h2.connect(gate.port):exchange("/").body)
  end)
end)

describe("a client of HTTP/2 that does not take its answers", function()
  -- A hundred streams of each of its connections, all answered, none read.
  it("holds little memory", function()
    local gate = start(http.backend(("a"):rep(hard and 3000 or 1000000)))
    h2.connect(gate.port):exchange "/"
    local before = gate:rss()
    local peers = {}
    for i = 1, hard and 1 or 5 do
      peers[i] = h2.connect(gate.port, { thrifty = true, settings = { INITIAL_WINDOW_SIZE = 0 } })
      for _ = 1, 100 do peers[i]:request "/" end
      for _ = 1, 100 do peers[i]:expect "HEADERS" end
      peers[i]:sync()
    end
    -- A sanitizer has shadows of its own.
    if support.async.slow == 1 then assert.truthy((gate:rss() - before) / #peers < 24 << 20) end
    peers[1]:open_window(1, 1000)
    peers[1]:content(1, 1000)
  end)

  it("gets them when it does, all of them whole", function()
    local body = ("0123456789"):rep(hard and 200 or 10000)
    local gate = start(http.backend(body))
    local peer = h2.connect(gate.port, { thrifty = true, settings = { INITIAL_WINDOW_SIZE = 0 } })
    local streams = {}
    for i = 1, 40 do streams[i] = peer:request "/" end
    for _, stream in ipairs(streams) do peer:expect("HEADERS", stream) end
    peer:sync()
    peer:open_window(0, 100000000)
    peer:set { INITIAL_WINDOW_SIZE = 1000000 }
    local sizes, left = {}, #streams
    while left > 0 do
      local frame = peer:expect "DATA"
      sizes[frame.stream] = (sizes[frame.stream] or 0) + #frame.bytes
      if frame.flags & h2.END_STREAM ~= 0 then left = left - 1 end
    end
    for _, stream in ipairs(streams) do assert.equal(#body, sizes[stream]) end
  end)
end)
