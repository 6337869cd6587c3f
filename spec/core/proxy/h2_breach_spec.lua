-- What a client of HTTP/2 may not do, frame by frame, and what it is told: an error of its stream, or of the
-- connection. Others do not notice. (What costs us more than it costs him is in h2_abuse_spec.)

local support = require "support"
local it, http, h2, moongate = support.it, support.http, support.h2, support.moongate
local frame, encode, fields_of = h2.frame, h2.hpack.encode, h2.request_fields

local END_STREAM, END_HEADERS, PADDED = h2.END_STREAM, h2.END_HEADERS, h2.PADDED
local whole = END_STREAM | END_HEADERS

local function settings(id, value) return frame("SETTINGS", 0, 0, (">I2I4"):pack(id, value)) end
local function head(fields) return frame("HEADERS", whole, 1, encode(fields)) end

-- A GET with these fields behind its own.
local function with(...) return head(fields_of("/", { headers = { ... } })) end

-- A POST of these frames; `length` is told.
local function post(length, ...)
  local fields = fields_of("/", { method = "POST", headers = length and { { "content-length", length } } })
  return frame("HEADERS", END_HEADERS, 1, encode(fields)) .. table.concat { ... }
end

-- A GET without the pseudo-header field, or with another one for it.
local function but(name, ...)
  local fields = {}
  for _, field in ipairs(fields_of "/") do
    if field[1] ~= name then fields[#fields + 1] = field end
  end
  for _, value in ipairs { ... } do fields[#fields + 1] = { name, value } end
  return head(fields)
end

local get = encode(fields_of "/")
local zeros = ("\0"):rep(8)

-- To nghttp2 each piece of a frame's head that comes within another head is a frame, and too many of these end the
-- connection without a word.
local whole_only = { ["something else within a head"] = true, ["a head that goes on in another stream"] = true }
local function it_unless_hard(what) return whole_only[what] and support.process.preset == "hard" and pending or it end

local breaches = {
  ["RST_STREAM PROTOCOL_ERROR"] = {
    ["a pseudo-header field behind others"] = head { { ":method", "GET" }, { "a", "b" }, { ":scheme", "http" },
      { ":path", "/" }, { ":authority", "a" } },
    ["two methods"] = but(":method", "GET", "GET"),
    ["two paths"] = but(":path", "/", "/"),
    ["two authorities"] = but(":authority", "a", "a"),
    ["a pseudo-header field that is none"] = but(":x", "1"),
    ["one of responses"] = but(":status", "200"),
    ["no method"] = but ":method",
    ["no scheme"] = but ":scheme",
    ["no path"] = but ":path",
    ["an empty path"] = but(":path", ""),
    ["a path with a space"] = but(":path", "/a b"),
    ["a method with a space"] = but(":method", "GET /x"),
    ["no authority"] = but(":authority", ""),
    ["an authority with a slash"] = but(":authority", "a/b"),
    [":protocol with another method"] = but(":protocol", "websocket"),
    ["a path for a CONNECT"] = head { { ":method", "CONNECT" }, { ":scheme", "http" }, { ":path", "/" },
      { ":authority", "a:1" } },
    ["a name without letters"] = with { "", "x" },
    ["a name with a space"] = with { "a b", "x" },
    ["a name with a line's end"] = with { "a\r\nb", "x" },
    ["a value with a line's end"] = with { "a", "x\r\ny" },
    ["a value with NUL"] = with { "a", "x\0" },
    ["a value that begins with a space"] = with { "a", " x" },
    ["Transfer-Encoding"] = with { "transfer-encoding", "chunked" },
    ["Upgrade"] = with { "upgrade", "websocket" },
    ["Keep-Alive"] = with { "keep-alive", "1" },
    ["Proxy-Connection"] = with { "proxy-connection", "close" },
    ["TE of more than trailers"] = with { "te", "trailers, deflate" },
    ["a list of lengths"] = with { "content-length", "0, 0" },
    ["a length with a sign"] = with { "content-length", "+0" },
    ["a length without content"] = with { "content-length", "5" },
    ["less content than told"] = post("5", frame("DATA", END_STREAM, 1, "four")),
    ["more content than told"] = post("3", frame("DATA", 0, 1, "four")),
    ["trailers that end nothing"] = post(nil, frame("HEADERS", END_HEADERS, 1, encode { { "a", "b" } })),
    ["a pseudo-header field in trailers"] = post(nil, frame("HEADERS", whole, 1, encode { { ":path", "/" } })),
    ["Transfer-Encoding in trailers"] = post(nil, frame("HEADERS", whole, 1, encode { { "transfer-encoding", "x" } })),
  },
  ["GOAWAY PROTOCOL_ERROR"] = {
    ["a frame size below the least"] = settings(5, 16383),
    ["a frame size beyond the largest"] = settings(5, 16777216),
    ["ENABLE_PUSH of 2"] = settings(2, 2),
    ["SETTINGS of a stream"] = frame("SETTINGS", 0, 1),
    ["a PING of a stream"] = frame("PING", 0, 1, zeros),
    ["a GOAWAY of a stream"] = frame("GOAWAY", 0, 1, zeros),
    ["a promise"] = frame("PUSH_PROMISE", END_HEADERS, 1, "\0\0\0\2"),
    ["a CONTINUATION of nothing"] = frame("CONTINUATION", END_HEADERS, 1),
    ["content of a stream that is idle"] = frame("DATA", 0, 1, "x"),
    ["content of no stream"] = frame("DATA", 0, 0, "x"),
    ["a window for a stream that is idle"] = frame("WINDOW_UPDATE", 0, 1, "\0\0\0\1"),
    ["a window of nothing"] = frame("WINDOW_UPDATE", 0, 0, "\0\0\0\0"),
    ["the end of a stream that is idle"] = frame("RST_STREAM", 0, 1, "\0\0\0\0"),
    ["the end of no stream"] = frame("RST_STREAM", 0, 0, "\0\0\0\0"),
    ["a head of no stream"] = frame("HEADERS", whole, 0, get),
    ["a head of a server's stream"] = frame("HEADERS", whole, 2, get),
    ["a head with more padding than there is"] = frame("HEADERS", whole | PADDED, 1, "\xff" .. get),
    ["content with more padding than there is"] = post(nil, frame("DATA", END_STREAM | PADDED, 1, "\4\0\0\0")),
    ["something else within a head"] = frame("HEADERS", END_STREAM, 1, get) .. frame("PING", 0, 0, zeros),
    ["a head that goes on in another stream"] = frame("HEADERS", END_STREAM, 1, get)
      .. frame("CONTINUATION", END_HEADERS, 3),
    ["a stream that depends on itself"] = frame("PRIORITY", 0, 1, "\0\0\0\1\0"),
    ["a priority of no stream (RFC 9218 7.1)"] = frame("PRIORITY_UPDATE", 0, 0, "\0\0\0\0u=1"),
    ["a priority in a stream (RFC 9218 7.1)"] = frame("PRIORITY_UPDATE", 0, 1, "\0\0\0\1u=1"),
  },
  ["GOAWAY FRAME_SIZE_ERROR"] = {
    ["SETTINGS of an odd size"] = frame("SETTINGS", 0, 0, "abcde"),
    ["an acknowledgement that says something"] = frame("SETTINGS", h2.ACK, 0, "abcdef"),
    ["a PING of 3 bytes"] = frame("PING", 0, 0, "abc"),
    ["a window of 3 bytes"] = frame("WINDOW_UPDATE", 0, 0, "\0\0\0"),
    ["an end of 2 bytes"] = frame("RST_STREAM", 0, 1, "\0\0"),
    ["a GOAWAY of 7 bytes"] = frame("GOAWAY", 0, 0, ("\0"):rep(7)),
    ["a PRIORITY_UPDATE of 3 bytes"] = frame("PRIORITY_UPDATE", 0, 0, "\0\0\0"),
    ["a frame larger than it may be"] = frame("HEADERS", whole, 1, ("x"):rep(16385)),
  },
  ["GOAWAY FLOW_CONTROL_ERROR"] = {
    ["streams' windows beyond the largest"] = settings(4, 0x80000000),
    ["a window beyond the largest"] = frame("WINDOW_UPDATE", 0, 0, "\x7f\xff\xff\xff"),
  },
  ["GOAWAY COMPRESSION_ERROR"] = {
    ["an index that is none"] = frame("HEADERS", whole, 1, "\x80"),
    ["an index of no field"] = frame("HEADERS", whole, 1, "\xff\xff\xff\x03"),
    ["a table larger than it may be"] = frame("HEADERS", whole, 1, "\x3f\xe2\x1f" .. get),
    ["another size of the table behind fields"] = frame("HEADERS", whole, 1, get .. "\x20"),
    ["half a field"] = frame("HEADERS", whole, 1, get:sub(1, -3)),
  },
  ["GOAWAY STREAM_CLOSED"] = {
    ["content behind its end"] = post(nil, frame("DATA", END_STREAM, 1, "x"), frame("DATA", END_STREAM, 1, "x")),
    ["content behind trailers"] = post(nil, frame("HEADERS", whole, 1, encode { { "a", "b" } }),
      frame("DATA", END_STREAM, 1, "x")),
  },
}

describe("a client of HTTP/2", function()
  local gate

  support.setup(function()
    gate = moongate.start { values = { BACKEND = http.backend "fine" }, config = [[
      return { listen = { "127.0.0.1:$PORT", h2c = true }, backends = { app = { "$BACKEND" } } }
    ]] }
  end)

  for told, cases in pairs(breaches) do
    for what, bytes in pairs(cases) do
      it_unless_hard(what)("that sends " .. what .. " is told " .. told, function()
        local peer = h2.connect(gate.port)
        peer:sync()
        peer.conn:post(bytes)
        local kind, error = told:match "(%S+) (%S+)"
        assert.equal(error, peer:expect(kind).error)
        if kind == "GOAWAY" then peer = h2.connect(gate.port) end
        peer.next_id = 3
        assert.equal("fine", peer:exchange("/").body)
      end)
    end
  end
end)
