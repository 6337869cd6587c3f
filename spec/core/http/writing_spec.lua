-- What is sent on is made afresh: no byte of framing survives that we did not write.

local http = require "moongate_core".http

describe("a head that is sent on", function()
  it("is always HTTP/1.1, with single spaces and no white space round values", function()
    local r = http.read_request "GET /x HTTP/1.0\r\nHost:\t x \t\r\nA:b\r\n\r\n"
    assert.equal("GET /x HTTP/1.1\r\nHost: x\r\nA: b\r\nExtra: 1\r\n\r\n", r.written)
    local answer = http.read_response "HTTP/1.0 404\r\nA:  b  c \r\n\r\n"
    assert.equal("HTTP/1.1 404 \r\nA: b  c\r\nExtra: 1\r\n\r\n", answer.written)
  end)

  it("reads as the same message again", function()
    local fields = "Host: x\r\nA: b\r\na: c\r\nConnection: close, z\r\nZ: 1\r\nContent-Length: 3\r\n"
    local r = http.read_request("POST /x?y HTTP/1.1\r\n" .. fields .. "\r\n")
    local again = http.read_request(r.written)
    assert.equal("done", again.result)
    assert.equal(r.target, again.target)
    assert.equal("POST /x?y HTTP/1.1\r\nHost: x\r\nA: b\r\na: c\r\nExtra: 1\r\nExtra: 1\r\n\r\n", again.written)
  end)
end)
