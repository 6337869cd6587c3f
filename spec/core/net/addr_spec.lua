local net = require("moongate_core").net

local function text_of(address)
  local addr = net.addr_parse(address)
  return addr and addr.text
end

describe("an address", function()
  it("is read and written in every form", function()
    for _, text in ipairs { "1.2.3.4:80", "[::1]:80", "[2001:db8::2]:65535", "unix:/run/a.sock", "unix:@abstract" } do
      assert.equal(text, text_of(text))
    end
  end)

  it("means all addresses of both families when there is only a port", function()
    assert.equal("[::]:80", text_of "80")
    assert.equal("[::]:8080", text_of "*:8080")
  end)

  it("is refused when it is something else", function()
    for _, text in ipairs {
      "", ":", ":80", "example.com:80", "1.2.3.4", "1.2.3:80", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:8o",
      "1.2.3.4: 80", "::1:80", "[::1]", "[::1]80", "[::1]:", "[1.2.3.4]:80", "[]:80", "[*]:80", "**:80", "65536", "-1",
      "999999999999999999999", "unix:", "unix:@", "unix:/" .. ("x"):rep(107), "unix:/a\0b", "1.2.3.4\0:80",
    } do
      assert.is_nil(text_of(text), text)
    end
  end)

  it("takes a unix path of the longest length the kernel knows", function()
    local path = "unix:/" .. ("x"):rep(106)
    assert.equal(path, text_of(path))
  end)

  it("shows a mapped IPv4 address as IPv4", function()
    local addr = net.addr_from_ip("::ffff:10.1.2.3", 80)
    assert.equal("10.1.2.3:80", addr.text)
    assert.equal("10.1.2.3", addr.ip)
  end)

  it("shows the IP alone without brackets, and unix for unix sockets", function()
    assert.equal("::1", net.addr_parse("[::1]:80").ip)
    assert.equal("unix:", net.addr_parse("unix:/run/a.sock").ip)
    assert.equal(0, net.addr_parse("unix:/run/a.sock").port)
  end)

  it("equals another of the same family, IP and port only", function()
    assert.is_true(net.addr_equal("1.2.3.4:80", "1.2.3.4:80"))
    assert.is_false(net.addr_equal("1.2.3.4:80", "1.2.3.4:81"))
    assert.is_false(net.addr_equal("1.2.3.4:80", "1.2.3.5:80"))
    assert.is_true(net.addr_equal("[::1]:80", "[0:0::1]:80"))
    assert.is_false(net.addr_equal("[::1]:80", "1.2.3.4:80"))
    assert.is_true(net.addr_equal("unix:/a", "unix:/a"))
    assert.is_false(net.addr_equal("unix:/a", "unix:@a"))
    assert.is_false(net.addr_equal("unix:/a", "unix:/ab"))
  end)
end)

describe("a server's address", function()
  it("is split into host and port without asking anybody", function()
    assert.same({ "example.com", 80 }, { net.addr_split "example.com:80" })
    assert.same({ "a_b-c", 1 }, { net.addr_split "a_b-c:1" })
    assert.same({ "1.2.3.4", 8080 }, { net.addr_split "1.2.3.4:8080" })
    assert.same({ "::1", 80 }, { net.addr_split "[::1]:80" })
  end)

  it("is refused when it is malformed", function()
    for _, text in ipairs {
      "", "example.com", "example.com:", "example.com:0", "example.com:65536", "example.com:80a", ":80", "80", "a b:80",
      "user@host:80", "http://a:80", "a/b:80", "::1:80", "[::1:80", "[example.com]:80", "*:80", ("x"):rep(256) .. ":80",
    } do
      assert.is_nil(net.addr_split(text), text)
    end
  end)
end)

describe("a range", function()
  it("holds the addresses that share its first bits", function()
    assert.is_true(net.cidr_match("10.1.2.3:1", "10.0.0.0/8"))
    assert.is_false(net.cidr_match("11.1.2.3:1", "10.0.0.0/8"))
    assert.is_true(net.cidr_match("192.168.127.255:1", "192.168.0.0/17"))
    assert.is_false(net.cidr_match("192.168.128.0:1", "192.168.0.0/17"))
    assert.is_true(net.cidr_match("[2001:db8:ffff::1]:1", "2001:db8::/32"))
    assert.is_false(net.cidr_match("[2001:db9::1]:1", "2001:db8::/32"))
    assert.is_true(net.cidr_match("1.2.3.4:1", "0.0.0.0/0"))
  end)

  it("is one address when it says no length", function()
    assert.is_true(net.cidr_match("[::1]:1", "::1"))
    assert.is_false(net.cidr_match("[::2]:1", "::1"))
    assert.is_true(net.cidr_match("127.0.0.1:1", "127.0.0.1"))
    assert.is_false(net.cidr_match("127.0.0.2:1", "127.0.0.1"))
  end)

  it("of IPv4 holds a client that came over a dual-stack socket", function()
    assert.is_true(net.cidr_match("[::ffff:10.1.2.3]:1", "10.0.0.0/8"))
    assert.is_false(net.cidr_match("[::ffff:11.1.2.3]:1", "10.0.0.0/8"))
  end)

  it("of all of IPv6 holds no IPv4 client", function()
    assert.is_false(net.cidr_match("10.1.2.3:1", "::/0"))
    assert.is_false(net.cidr_match("[::ffff:10.1.2.3]:1", "::/0"))
    assert.is_true(net.cidr_match("[fe80::1]:1", "::/0"))
  end)

  it("named unix holds the clients of unix sockets, and only those", function()
    assert.is_true(net.cidr_match("unix:/run/a", "10.0.0.0/8", "unix"))
    assert.is_false(net.cidr_match("unix:/run/a", "0.0.0.0/0", "::/0"))
    assert.is_false(net.cidr_match("1.2.3.4:1", "unix"))
  end)

  it("is refused when it is malformed", function()
    for _, text in ipairs {
      "", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0/8", "::/129", "::/0001", "10.0.0.0/8/8", "10.0.0.0/a",
      "10.0.0.0/-1", "unix/8", "localhost",
    } do
      assert.is_nil(net.cidr_match("1.2.3.4:1", text), text)
    end
  end)
end)
