-- gate.url.query_filter, in the kit.

local testing = require "moongate.testing"
local it = require("support").it

describe("gate.url.query_filter", function()
  local function filtered(options, query)
    local kit = testing.load { text = ([[
      local gate = require "moongate"
      local site = { listen = 8080 }
      local normal = gate.url.query_filter(%s)
      function site.on_request(req) return gate.reply(200, tostring(normal(%s))) end
      return site]]):format(options, query and ("%q"):format(query) or "nil") }
    return kit:request("/").body
  end

  it("sorts by name, and keeps the order of one name's values", function()
    assert.equal("a=2&a=1&b&b=&c=x%2Fy", filtered("{}", "c=x%2Fy&a=2&b&a=1&b="))
    assert.equal("a=1&aa=2&b=3", filtered("{}", "b=3&aa=2&a=1"))
  end)

  it("leaves the order alone where it is told to", function()
    assert.equal("b=1&a=2", filtered("{ sort = false, drop = { 'c' } }", "b=1&c=9&a=2"))
  end)

  it("drops names, patterns, and what is empty", function()
    assert.equal("a=1", filtered("{ drop = { 'utm_*', 'fbclid' } }", "utm_source=x&&a=1&fbclid=2&utm_=&"))
    assert.equal("fbclids=1&utm=1", filtered("{ drop = { 'utm_*', 'fbclid' } }", "utm=1&fbclids=1"))
  end)

  it("compares names decoded", function()
    assert.equal("nil", filtered("{ drop = { 'utm_*' } }", "%75tm_source=x"))
    assert.equal("a=1&%62=2&c=3", filtered("{}", "c=3&%62=2&a=1"))
  end)

  it("keeps only what is listed", function()
    assert.equal("id=1&page=2", filtered("{ keep = { 'id', 'page' } }", "x=1&page=2&id=1"))
    assert.equal("id=1", filtered("{ keep = { 'i*' }, drop = { 'ix' } }", "ix=1&page=2&id=1"))
    assert.equal("nil", filtered("{ keep = {} }", "x=1"))
    assert.equal("nil", filtered("{ drop = { '*' } }", "x=1&=2"))
  end)

  it("has nothing for nothing", function()
    assert.equal("nil", filtered("{}", nil))
    assert.equal("nil", filtered("{}", ""))
  end)

  it("sorts many", function()
    local given, wanted = {}, {}
    for i = 1, 200 do
      given[i] = ("n%03d=%d"):format((i * 77) % 200, i)
      wanted[i] = given[i]
    end
    table.sort(wanted)
    assert.equal(table.concat(wanted, "&"), filtered("{}", table.concat(given, "&")))
  end)

  it("raises for options that are none", function()
    local wrong = {
      ["{ drops = {} }"] = "has no option 'drops'", ["{ drop = 'a' }"] = "drop is a list of names",
      ["{ keep = { 1 } }"] = "the one at 1 is a number", ["{ sort = 1 }"] = "sort is true or false",
      ["{ drop = { '' } }"] = "has 1 to 256 bytes",
    }
    for options, why in pairs(wrong) do
      local ok, text = pcall(filtered, options, "")
      assert.is_false(ok)
      assert.matches(why, tostring(text), 1, true)
    end
  end)
end)
