-- gate.url. The examples of resolving are those of RFC 3986 5.4.
-- luacheck: no max line length (scripts and texts stand in one line)

local engine = require "core.lua.engine"

local base = "http://a/b/c/d;p?q"

-- RFC 3986 5.4.1 and 5.4.2, strictly.
local resolved = {
  ["g:h"] = "g:h", ["g"] = "http://a/b/c/g", ["./g"] = "http://a/b/c/g", ["g/"] = "http://a/b/c/g/",
  ["/g"] = "http://a/g", ["//g"] = "http://g", ["?y"] = "http://a/b/c/d;p?y", ["g?y"] = "http://a/b/c/g?y",
  ["#s"] = "http://a/b/c/d;p?q#s", ["g#s"] = "http://a/b/c/g#s", ["g?y#s"] = "http://a/b/c/g?y#s",
  [";x"] = "http://a/b/c/;x", ["g;x"] = "http://a/b/c/g;x", ["g;x?y#s"] = "http://a/b/c/g;x?y#s",
  [""] = "http://a/b/c/d;p?q", ["."] = "http://a/b/c/", ["./"] = "http://a/b/c/", [".."] = "http://a/b/",
  ["../"] = "http://a/b/", ["../g"] = "http://a/b/g", ["../.."] = "http://a/", ["../../"] = "http://a/",
  ["../../g"] = "http://a/g",
  ["../../../g"] = "http://a/g", ["../../../../g"] = "http://a/g", ["/./g"] = "http://a/g", ["/../g"] = "http://a/g",
  ["g."] = "http://a/b/c/g.", [".g"] = "http://a/b/c/.g", ["g.."] = "http://a/b/c/g..", ["..g"] = "http://a/b/c/..g",
  ["./../g"] = "http://a/b/g", ["./g/."] = "http://a/b/c/g/", ["g/./h"] = "http://a/b/c/g/h",
  ["g/../h"] = "http://a/b/c/h", ["g;x=1/./y"] = "http://a/b/c/g;x=1/y", ["g;x=1/../y"] = "http://a/b/c/y",
  ["g?y/./x"] = "http://a/b/c/g?y/./x", ["g?y/../x"] = "http://a/b/c/g?y/../x",
  ["g#s/./x"] = "http://a/b/c/g#s/./x", ["g#s/../x"] = "http://a/b/c/g#s/../x", ["http:g"] = "http:g",
}

local show = [[
  local function show(u)
    if not u then return "nil" end
    local parts = {}
    for _, name in ipairs { "scheme", "user", "host", "port", "path", "query", "fragment" } do
      if u[name] then parts[#parts + 1] = name .. "=" .. tostring(u[name]) end
    end
    return table.concat(parts, " ")
  end
]]

local function parsed(text) return engine.run(show .. ("return show(gate.url.parse %q)"):format(text)) end

describe("gate.url", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("takes a URL apart", function()
    assert.equal("scheme=http user=u:p host=example.com port=8080 path=/a%2Fb;c query=q=1&r fragment=top",
      parsed "HTTP://u:p@Example.COM:8080/a%2Fb;c?q=1&r#top")
  end)

  it("tells what is absent from what is empty", function()
    assert.equal("scheme=http host=a path= query= fragment=", parsed "http://a?#")
    assert.equal("path=", parsed "")
    assert.equal("scheme=file host= path=/etc", parsed "file:///etc")
    assert.equal("scheme=http host=a path=", parsed "http://a:")
  end)

  it("reads the examples of RFC 3986 1.1.2", function()
    assert.equal("scheme=ldap host=[2001:db8::7] path=/c=GB query=objectClass?one", parsed "ldap://[2001:db8::7]/c=GB?objectClass?one")
    assert.equal("scheme=mailto path=John.Doe@example.com", parsed "mailto:John.Doe@example.com")
    assert.equal("scheme=tel path=+1-816-555-1212", parsed "tel:+1-816-555-1212")
    assert.equal("scheme=telnet host=192.0.2.16 port=80 path=/", parsed "telnet://192.0.2.16:80/")
    assert.equal("scheme=urn path=oasis:names:specification:docbook:dtd:xml:4.1.2",
      parsed "urn:oasis:names:specification:docbook:dtd:xml:4.1.2")
  end)

  it("refuses what is no URL, with a word", function()
    for _, text in ipairs {
      "http://a b/", "http://a/\0", "http://a/%", "http://a/%2", "http://a/%zz", "http://a@b@c/", "http://[::1", "http://[::1]x/",
      "http://[g]/", "http://a:b/", "http://a:1:2/", "1a:b", ":x", "http://a/ü", "http://a/<", "http://a\\b", "http://a/#b#c", "http://[]/",
    } do
      local said = engine.run(("local u, word, why = gate.url.parse %q return tostring(u), word, why"):format(text))
      assert.matches("^nil|bad_url|the text is no URL$", said, text)
    end
    for _, port in ipairs { "0", "65536", "99999999999999999999999" } do
      assert.matches("^nil|bad_url|the port", engine.run(("return gate.url.parse 'http://a:%s/'"):format(port)))
    end
  end)

  it("resolves every example of RFC 3986 5.4", function()
    for reference, expected in pairs(resolved) do
      assert.equal(expected, engine.run(("return gate.url.join(%q, %q)"):format(base, reference)), reference)
    end
  end)

  it("joins with a base without a path, and makes no authority of a path", function()
    assert.equal("http://a/b", engine.run "return gate.url.join('http://a', 'b')")
    assert.equal("a:/.//c", engine.run "return gate.url.join('a:/b', '/.//c')")
    assert.matches("^nil|bad_url|the base", engine.run "return gate.url.join('/a', 'b')")
    assert.matches("^nil|bad_url|the reference", engine.run "return gate.url.join('http://a', ' ')")
  end)

  it("builds what it parsed", function()
    for _, text in ipairs { "http://u:p@a:8080/a%2Fb;c?q=1&r#top", "//a?", "?", "#", "", "mailto:a@b", "http://[::1]:80", "file:///x" } do
      assert.equal(text, engine.run(("return gate.url.build(gate.url.parse %q)"):format(text)))
    end
  end)

  it("never builds a part that runs over into the next", function()
    for name, value in pairs {
      scheme = "'ht tp'", user = "'a@b'", host = "'a/b'", path = "'/a?b'", query = "'a#b'", fragment = "'a b'",
    } do
      assert.matches("raised: ", engine.run(
        ("local t = { scheme = 'http', host = 'a', path = '/' } t.%s = %s return gate.url.build(t)"):format(name, value)), name)
    end
    assert.matches("raised: .*path", engine.run "return gate.url.build { path = '//evil/x' }")
    assert.matches("raised: .*", engine.run "return gate.url.build { host = 'a', path = 'x' }")
    assert.matches("raised: .*need a host", engine.run "return gate.url.build { port = 80, path = 'x' }")
    assert.matches("raised: .*did you mean 'host'", engine.run "return gate.url.build { hots = 'a' }")
    assert.matches("raised: .*port is", engine.run "return gate.url.build { host = 'a', port = 1.5 }")
  end)

  it("encodes by component and decodes strictly", function()
    local text = "a b&c=d/é+?~"
    local function encoded(component) return engine.run(("return gate.url.encode(%q, %s)"):format(text, component)) end
    assert.equal("a%20b%26c%3Dd%2F%C3%A9%2B%3F~", encoded "nil")
    assert.equal("a%20b&c=d%2F%C3%A9+%3F~", encoded "'segment'")
    assert.equal("a%20b&c=d/%C3%A9+%3F~", encoded "'path'")
    assert.equal("a%20b&c=d/%C3%A9%2B?~", encoded "'query'")
    assert.equal("a+b%26c%3Dd%2F%C3%A9%2B%3F~", encoded "'form'")
    assert.equal(text, engine.run(("return gate.url.decode(gate.url.encode(%q, 'form'), 'form')"):format(text)))
    assert.equal("a+b", engine.run "return gate.url.decode 'a+b'")
    assert.matches("^nil|bad_url", engine.run "return gate.url.decode '%4'")
    assert.matches("raised: .*invalid option", engine.run "return gate.url.encode('x', 'host')")
    assert.matches("raised: .*longer than 65536 bytes", engine.run "return gate.url.encode(('x'):rep(65537))")
  end)

  it("keeps order and repeats of a query", function()
    assert.equal("b=2;a=1;b=;flag;é=x y", engine.run [[
      local list = {}
      for i, pair in ipairs(gate.url.parse_query "b=2&a=1&&b=&flag&%C3%A9=x+y") do
        list[i] = pair[1] .. (pair[2] and "=" .. pair[2] or "")
      end
      return table.concat(list, ";")]])
    assert.equal("b=2&a=1&b=&flag&%C3%A9=x+y", engine.run [[
      return gate.url.build_query(gate.url.parse_query "b=2&a=1&&b=&flag&%C3%A9=x+y")]])
    assert.equal("", engine.run "return gate.url.build_query {}")
    assert.equal("n=1", engine.run "return gate.url.build_query { { 'n', 1 } }")
  end)

  it("names the pair that is none", function()
    assert.matches("raised: .*pair 2 is a string", engine.run "return gate.url.build_query { { 'a' }, 'b' }")
    assert.matches("raised: .*pair 1: the value is a string or number, not a table", engine.run "return gate.url.build_query { { 'a', {} } }")
    assert.matches("raised: .*a list of", engine.run "return gate.url.build_query { a = 1 }")
  end)
end)
