-- Targets, paths, authorities, queries, cookies.

local uri = require "moongate_core".uri

describe("a path", function()
  local paths = {
    { "/", "/" }, { "/a", "/a" }, { "/a/", "/a/" }, { "//", "//" }, { "/a//b", "/a//b" }, { "/a;b=c", "/a;b=c" },
    -- unreserved escapes
    { "/%61dmin", "/admin" }, { "/%41", "/A" }, { "/%7e%2D%5f%30", "/~-_0" }, { "/a%2eb", "/a.b" },
    -- other escapes stay, upper-cased
    { "/a%2fb", "/a%2Fb" }, { "/%3f%23", "/%3F%23" }, { "/%25", "/%25" }, { "/%252e%252e/a", "/%252e%252e/a" },
    { "/%c3%a4", "/%C3%A4" },
    { "/%5c", "/%5C" }, { "/%20", "/%20" }, { "/%0d%0a", "/%0D%0A" }, { "/%7f", "/%7F" }, { "/%3B", "/%3B" },
    -- dot segments
    { "/.", "/" }, { "/./", "/" }, { "/..", "/" }, { "/../", "/" }, { "/../..", "/" },
    { "/../../../etc/passwd", "/etc/passwd" },
    { "/a/.", "/a/" }, { "/a/./b", "/a/b" }, { "/a/..", "/" }, { "/a/../b", "/b" }, { "/a/b/..", "/a/" },
    { "/a/b/../..", "/" },
    { "/a/b/../../..", "/" }, { "/a/b/../../../c", "/c" }, { "/a/b/c/./../../g", "/a/g" },
    { "/mid/content=5/../6", "/mid/6" },
    { "/./a", "/a" }, { "/././a", "/a" }, { "/a/./", "/a/" }, { "/a/../", "/" }, { "/a/b/../", "/a/" },
    -- empty segments are segments
    { "//..", "/" }, { "//../a", "/a" }, { "/a//..", "/a/" }, { "/a//../b", "/a/b" }, { "/a//../../b", "/b" },
    { "/a/..//b", "//b" },
    { "/.//a", "//a" }, { "/..//a", "//a" },
    -- what only looks like dots
    { "/...", "/..." }, { "/.a", "/.a" }, { "/..a", "/..a" }, { "/a..", "/a.." }, { "/a.", "/a." },
    { "/.well-known/x", "/.well-known/x" },
    { "/..;/a", "/..;/a" }, { "/.../..", "/" }, { "/a/..b/c", "/a/..b/c" }, { "/..%2f..", "/..%2F.." },
    { "/..%5c..", "/..%5C.." },
    -- dots in escapes
    { "/%2e", "/" }, { "/%2e%2e", "/" }, { "/%2E%2e/a", "/a" }, { "/.%2e/a", "/a" }, { "/%2e./a", "/a" },
    { "/a/%2e%2e/b", "/b" },
    { "/%2e/a", "/a" }, { "/x/%2E%2E/%61dmin", "/admin" }, { "/a/%2e%2e%2fb", "/a/..%2Fb" },
    { "/%2e%2e/%2e%2e/a", "/a" },
    { "/%2e%2e%2e", "/..." }, { "/a%2f../b", "/a%2F../b" }, { "/x/../admin", "/admin" },
    { "/static/..%2fadmin", "/static/..%2Fadmin" },
    -- what clients send although they should not
    { "/\"<>\\^`{|}", "/\"<>\\^`{|}" }, { "/a/..\\b", "/a/..\\b" }, { "/[x]", "/[x]" },
  }
  for _, case in ipairs(paths) do
    it(("%s is %s"):format(case[1], case[2]), function()
      assert.equal(case[2], (uri.path(case[1])))
      assert.equal(case[2], (uri.path(case[2]))) -- and what is normal stays so
    end)
  end

  for _, path in ipairs { "", "a", "*", "a/b", "/%", "/%4", "/%zz", "/%4g", "/%g4", "/%%41", "/a%", "/%00", "/a%00b",
    "/%0", "/a b", "/a\0", "/a\127",
    "/\xc3\xa4", "/a#b", "/a?b", "/%u0041", "/% 41", "/%-1", "/\t" } do
    it(("%q is none"):format(path), function() assert.is_nil((uri.path(path))) end)
  end

  it("that is normal is not copied", function()
    for _, path in ipairs { "/", "/a/b.html", "/a..b/", "//a" } do assert.is_true(select(2, uri.path(path))) end
    assert.is_false(select(2, uri.path "/a/../b"))
  end)

  it("is normal for good after one pass, and never leaves the root", function()
    local parts = { "/", ".", "..", "%2e", "%2E", "a", "%61", "%2f", "//", "/./", "/../", "%25", "..;", "\\" }
    math.randomseed(17)
    for _ = 1, 20000 do
      local path = { "/" }
      for i = 2, math.random(2, 12) do path[i] = parts[math.random(#parts)] end
      path = table.concat(path)
      local once = uri.path(path)
      assert.equal("/", once:sub(1, 1))
      assert.equal(once, (uri.path(once)), path)
      assert.is_nil((once .. "/"):match "/%.%.?/", path)
      assert.is_true(#once <= #path)
    end
  end)

  it("with thousands of dot segments costs no more than its length", function()
    local started = os.clock()
    assert.equal("/", (uri.path(("/a"):rep(20000) .. ("/.."):rep(20000))))
    assert.equal("/", (uri.path(("/a/.."):rep(20000))))
    assert.is_true(os.clock() - started < 1)
  end)
end)

describe("an authority", function()
  local valid = {
    { "a", "a", 0 }, { "Example.COM", "example.com", 0 }, { "a:80", "a", 80 }, { "a:", "a", 0 },
    { "a:65535", "a", 65535 }, { "a:00080", "a", 80 },
    { "127.0.0.1:8080", "127.0.0.1", 8080 }, { "[::1]", "[::1]", 0 }, { "[::1]:8080", "[::1]", 8080 },
    { "[2001:DB8::A]:1", "[2001:db8::a]", 1 },
    { "a_b-c.d~", "a_b-c.d~", 0 }, { "a.", "a.", 0 }, { "xn--bcher-kva.example", "xn--bcher-kva.example", 0 },
    { "[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", 0 },
    { ("a"):rep(255), ("a"):rep(255), 0 }, { "1", "1", 0 },
  }
  for _, case in ipairs(valid) do
    it("may be " .. case[1], function() assert.same({ case[2], case[3] }, { uri.authority(case[1]) }) end)
  end
  for _, text in ipairs { "", ":", ":80", "a:0", "a:65536", "a:999999", "a:x", "a:8 0", "a: 80", "a:+80", "a:80:90",
    "a b", " a", "a ", "a/b", "a@b", "u:p@h",
    "a,b", "a;b", "a?b", "a#b", "a\\b", "a%41", "a%", "[", "[]", "[::1", "::1", "[1.2.3.4]", "[::1]a", "[::1]]",
    "[[::1]]", "[::1%25eth0]", "[v1.x]",
    "[::g]", "a[", "a\0b", "\xc3\xa4", ("a"):rep(256), "a\"b", "a'b", "a(b)", "a!b", "a*b", "a\tb", "[::1]:0",
    "[::1]:x" } do
    it(("may not be %q"):format(text), function() assert.is_nil((uri.authority(text))) end)
  end
end)

describe("a target", function()
  local function parts(...)
    local t, word = uri.target(...)
    if not t then return word end
    return { t.scheme, t.host, t.port, t.path, t.query or false, t.absolute }
  end

  it("in origin form takes its host from the field and its scheme from the listener", function()
    assert.same({ "http", "example.com", 8080, "/a/b", "c=d?e", false }, parts("GET", "/a/./b?c=d?e",
      "Example.com:8080"))
    assert.same({ "https", "x", 0, "/", "", false }, parts("GET", "/?", "x", "https"))
    assert.equal("", parts("GET", "/")[2])
  end)

  it("in absolute form overrides both", function()
    assert.same({ "https", "other.org", 444, "/admin", "q", true }, parts("GET",
      "HTTPS://Other.org:444/x/../%61dmin?q", "example.com"))
    assert.same({ "http", "a", 0, "/", false, true }, parts("GET", "http://a", "b"))
    assert.same({ "http", "a", 0, "/", "q", true }, parts("GET", "http://a?q", "b"))
    assert.same({ "http", "[::1]", 80, "/", false, true }, parts("GET", "http://[::1]:80/", "b"))
    assert.same({ "http", "a", 0, "*", false, true }, parts("OPTIONS", "http://a", "b"))
  end)

  it("in asterisk form is for OPTIONS", function()
    assert.same({ "http", "x", 0, "*", false, false }, parts("OPTIONS", "*", "x"))
    assert.equal("bad_request", parts("GET", "*", "x"))
  end)

  it("in authority form is for CONNECT and needs a port", function()
    assert.same({ "http", "example.com", 443, "", false, false }, parts("CONNECT", "Example.com:443", "x"))
    assert.same({ "http", "[::1]", 443, "", false, false }, parts("CONNECT", "[::1]:443", "x"))
    for _, raw in ipairs { "example.com", "/", "*", "http://a/", "a:", "a:0", "a:b", "u@a:1", ":1", "" } do
      assert.equal("bad_request", parts("CONNECT", raw, "x"))
    end
    assert.equal("bad_request", parts("GET", "example.com:443", "x"))
  end)

  for _, raw in ipairs { "", "a", "?a", "http:/a", "http:a", "http://", "http:///a", "http://?a", "http://u@a/",
    "http://u:p@a/", "http://a@b@c/", "http://a:x/",
    "http://a:0/", "ftp://a/", "ws://a/", "javascript:x", "httpx://a/", "http://a b/", "/%zz", "/a%00", "/a%0",
    "/a#b", "http://a/#b", "/ä", "//%",
    "http://a\\b/", "http://a,b/", "http://[::1/", "file:///etc/passwd", "/a?b#c", "/a?\1" } do
    it(("may not be %q"):format(raw), function() assert.equal("bad_request", parts("GET", raw, "x")) end)
  end

  it("with a bad Host is refused by that word, unless it overrides it", function()
    assert.equal("bad_host", parts("GET", "/", "a b"))
    assert.equal("bad_host", parts("OPTIONS", "*", ""))
    assert.same({ "http", "a", 0, "/", false, true }, parts("GET", "http://a/", "b b"))
  end)

  it("is left as it came when the site wants it raw", function()
    assert.equal("/x/../%61dmin", uri.target("GET", "/x/../%61dmin", "x", "http", true).path)
    assert.equal("/%zz", uri.target("GET", "/%zz?q", "x", "http", true).path)
    assert.equal("/x/..", uri.target("GET", "http://a/x/..", "x", "http", true).path)
  end)

  it("is written in origin form", function()
    assert.equal("/b?c", uri.target("GET", "/a/../b?c", "x").written)
    assert.equal("/b?c", uri.target("GET", "/b?c", "x").written)
    assert.equal("/?", uri.target("GET", "/?", "x").written)
    assert.equal("/?q", uri.target("GET", "http://a?q", "x").written)
    assert.equal("*", uri.target("OPTIONS", "*", "x").written)
    assert.equal("a:443", uri.target("CONNECT", "a:443", "x").written)
  end)

  it("is written as a URL, without the scheme's own port", function()
    assert.equal("http://x/a?b", uri.target("GET", "/a?b", "x:80").url)
    assert.equal("http://x:443/a", uri.target("GET", "/a", "x:443").url)
    assert.equal("https://x/a", uri.target("GET", "/a", "x:443", "https").url)
    assert.equal("x:8080", uri.target("GET", "/a", "X:8080").authority)
    assert.equal("[::1]", uri.target("GET", "/a", "[::1]:80").authority)
  end)
end)

describe("a URL", function()
  it("is split into its parts", function()
    local t = uri.url "HTTP://Example.com:81/a/../b?c=d#frag?ment"
    assert.same({ "http", "example.com", 81, "/a/../b", "c=d" }, { t.scheme, t.host, t.port, t.path, t.query })
    t = uri.url "https://[::1]"
    assert.same({ "https", "[::1]", 0, "/" }, { t.scheme, t.host, t.port, t.path })
    t = uri.url "http://a?q"
    assert.same({ "/", "q" }, { t.path, t.query })
    assert.equal("/", uri.url "http://a#x".path)
  end)

  it("is not what has no host, another scheme, user information or strange bytes", function()
    for _, url in ipairs { "", "/", "a", "http://", "http:///", "ftp://a", "http://u@a", "http://a b", "http://a/ b",
      "http://a/\n", "http://a/\xc3\xa4", "//a/b",
      "http://a:0", "http://a:70000", "unix:/x", "#", "http://#", "http" } do
      assert.is_nil(uri.url(url), url)
    end
  end)
end)

describe("percent encoding", function()
  it("is undone once, and left alone where it is malformed", function()
    assert.equal("a b", uri.decode "a%20b")
    assert.equal("a+b", uri.decode "a+b")
    assert.equal("a b+", uri.decode("a+b%2B", true))
    assert.equal("%41", uri.decode "%2541")
    assert.equal("%", uri.decode "%")
    assert.equal("%4", uri.decode "%4")
    assert.equal("%zz%", uri.decode "%zz%")
    assert.equal("\0\xff", uri.decode "%00%fF")
    assert.equal("", uri.decode "")
  end)

  it("is made for all but unreserved bytes and those to keep", function()
    assert.equal("a-Z_0.9~", uri.encode "a-Z_0.9~")
    assert.equal("a%20b%2Fc%00%FF", uri.encode "a b/c\0\xff")
    assert.equal("a%20b/c", uri.encode("a b/c", "/"))
    assert.equal("", uri.encode "")
  end)

  it("of any bytes comes back", function()
    math.randomseed(4)
    for _ = 1, 500 do
      local text = {}
      for i = 1, math.random(0, 50) do text[i] = string.char(math.random(0, 255)) end
      text = table.concat(text)
      assert.equal(text, uri.decode(uri.encode(text)))
      assert.is_nil(uri.encode(text):match "[^%w%-._~%%]")
    end
  end)
end)

describe("queries and cookies", function()
  it("are visited pair by pair, still encoded", function()
    assert.same({ { "a", "1" }, { "b", "" }, { "c" }, { "a", "2=3" }, { "", "x" },
      { "%41", "%20+" } }, uri.query "a=1&b=&c&&a=2=3&=x&%41=%20+&")
    assert.same({}, uri.query "")
    assert.same({}, uri.query "&&")
  end)

  it("give cookies their value as it stands, quotes included", function()
    assert.same({ { "a", "1" }, { "b", "\"x y\"" }, { "c", "" }, { "d", "e=f" } },
      uri.cookies "a=1; b=\"x y\";c=;  d = e=f ;; flag; =x;")
    assert.same({}, uri.cookies "")
    assert.same({}, uri.cookies " ; ")
  end)
end)
