-- gate.cookie: Cookie fields read, Set-Cookie fields made.
-- luacheck: no max line length (fields stand in one line)

local engine = require "core.lua.engine"

describe("gate.cookie", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("parses a Cookie field; the first of a name wins", function()
    assert.equal('1|"x y"||nil', engine.run [[
      local c = gate.cookie.parse 'a=1; b="x y"; a=2; empty=; lonely; =nameless'
      return c.a, c.b, c.empty, tostring(c.lonely)]])
  end)

  it("builds a Set-Cookie field", function()
    assert.equal("sid=abc", engine.run "return gate.cookie.build('sid', 'abc')")
    assert.equal(
      "sid=abc; Path=/; Domain=example.com; Max-Age=3600; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Secure; HttpOnly; SameSite=None; Partitioned",
      engine.run [[return gate.cookie.build("sid", "abc", {
        path = "/", domain = "example.com", max_age = "1h", expires = 784111777, secure = true, http_only = true,
        same_site = "none", partitioned = true,
      })]])
    assert.equal("a=; Max-Age=0", engine.run "return gate.cookie.build('a', '', { max_age = 0 })")
    assert.equal('a="b"; SameSite=Lax', engine.run [[return gate.cookie.build('a', '"b"', { same_site = 'lax' })]])
    assert.equal("__Host-a=b; Path=/; Secure", engine.run "return gate.cookie.build('__Host-a', 'b', { path = '/', secure = true })")
  end)

  it("raises for what a browser would throw away", function()
    for arguments, sentence in pairs {
      ["'a b', 'c'"] = "token", ["'', 'c'"] = "token", ["'a\\0', 'c'"] = "token", ["'a', 'b;c'"] = "visible ASCII", ["'a', 'b\\r\\nX: y'"] = "visible ASCII",
      ["'a', 'b c'"] = "visible ASCII", ["'a', 'é'"] = "visible ASCII", ["'a', '\"'"] = "visible ASCII", ["'a', ('x'):rep(4096)"] = "4096",
      ["'a', 'b', { path = 'x' }"] = "path begins", ["'a', 'b', { path = '/;x' }"] = "path begins", ["'a', 'b', { path = '/\\n' }"] = "path begins",
      ["'a', 'b', { domain = 'a..b' }"] = "no host name", ["'a', 'b', { domain = '-a' }"] = "no host name", ["'a', 'b', { domain = '' }"] = "no host name",
      ["'a', 'b', { max_age = -1 }"] = "max_age", ["'a', 'b', { max_age = 1e9 }"] = "max_age", ["'a', 'b', { expires = 'never' }"] = "expires",
      ["'a', 'b', { expires = 0/0 }"] = "expires", ["'a', 'b', { same_site = 'Lax' }"] = "same_site is", ["'a', 'b', { same_site = 'none' }"] = "needs secure",
      ["'a', 'b', { partitioned = true }"] = "needs secure", ["'a', 'b', { secure = 1 }"] = "secure is true or false",
      ["'__Secure-a', 'b'"] = "needs secure", ["'__HOST-a', 'b', { secure = true }"] = "needs path",
      ["'__Host-a', 'b', { secure = true, path = '/', domain = 'a.b' }"] = "needs path", ["'a', 'b', { samesite = 'lax' }"] = "did you mean 'same_site'",
      ["'a', 1"] = "string expected", ["'a', 'b', 1"] = "table expected",
    } do
      local said = engine.run(("return gate.cookie.build(%s)"):format(arguments))
      assert.matches("^raised: ", said, arguments)
      assert.truthy(said:find(sentence, 1, true), arguments .. " -> " .. said)
    end
  end)
end)
