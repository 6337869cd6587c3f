-- Vary: which requests may have the same stored response.

local rules = require("moongate_core").rules

-- Stores for one request, asks with another.
local function matches(response, first, second)
  local _, key = rules.vary(response, first)
  return rules.vary_matches(key, second)
end

describe("Vary (RFC 9110 12.5.5)", function()
  local cases = {
    { "", "none" },
    { "Vary:", "none" },
    { "Vary: , ,", "none" },
    { "Vary: Foo", "names" },
    { "Vary: foo , , BAR", "names" },
    { "Vary:\nVary: foo", "names" },
    { "Vary: *", "any" },
    { "Vary: *, *", "any" },
    { "Vary: *\nVary: *", "any" },
    { "Vary: , *", "any" },
    { "Vary:\nVary: *", "any" },
    { "Vary: *, Foo", "any" },
    { "Vary: Foo, *", "any" },
    { "Vary: Foo\nVary: Bar, *", "any" },
    { 'Vary: "Foo"', "any" },
    { "Vary: Foo Bar", "any" },
    { "Vary: Foo;q=1", "any" },
    { 'Vary: "Foo, Bar', "any" },
    { "Vary: " .. ("x"):rep(257), "any" },
  }
  for _, case in ipairs(cases) do
    it(("of %q is %s"):format(case[1]:sub(1, 40), case[2]), function()
      local kind, key = rules.vary(case[1], "Foo: 1")
      assert.equal(case[2], kind)
      if kind == "none" then assert.equal("", key) end
      if kind == "any" then assert.is_nil(key) end
      assert.equal(kind ~= "any", rules.vary_matches(key, "Foo: 1"))
    end)
  end

  it("tells its names", function()
    local _, key = rules.vary("Vary: Foo, BAR\nVary: foo", "Foo: 1")
    assert.same({ "foo", "bar", "foo" }, rules.vary_names(key))
  end)
end)

describe("a request matches a stored one (RFC 9111 4.1)", function()
  local foo, three = "Vary: Foo", "Vary: Foo, Bar, Baz"
  local cases = {
    { "with the same value", foo, "Foo: 1", "Foo: 1", true },
    { "with the same value, named otherwise", foo, "foo: 1", "FOO: 1", true },
    { "not with another", foo, "Foo: 1", "Foo: 2", false },
    { "not with a longer one", foo, "Foo: 1", "Foo: 11", false },
    { "not with a shorter one", foo, "Foo: 11", "Foo: 1", false },
    { "not with one in another case", foo, "Foo: a", "Foo: A", false },
    { "not with one that was absent", foo, "", "Foo: 1", false },
    { "not with one that is absent", foo, "Foo: 1", "", false },
    { "not with an empty one that was absent", foo, "", "Foo:", false },
    { "with both absent", foo, "", "", true },
    { "whatever is not named", foo, "Foo: 1\nBar: 1", "Foo: 1\nBar: 2", true },
    { "with all the same", three, "Foo: 1\nBar: abc\nBaz: 789", "Baz: 789\nBar: abc\nFoo: 1", true },
    { "not with one of them another", three, "Foo: 1\nBar: abc\nBaz: 789", "Foo: 1\nBaz: 789\nBar: abcde", false },
    { "with one of them absent in both", three, "Foo: 1\nBaz: 789", "Foo: 1\nBaz: 789", true },
    { "not with one of them absent in one", three, "Foo: 1\nBaz: 789", "Foo: 1\nBar: 1\nBaz: 789", false },
    { "not where values only run together the same", "Vary: Foo, Bar", "Foo: 1\nBar: 23", "Foo: 12\nBar: 3", false },
    { "not where a value is of another name", "Vary: Foo, Bar", "Foo: 1", "Bar: 1", false },

    { "with lines joined", foo, "Foo: 1, 2", "Foo: 1\nFoo: 2", true },
    { "with lines apart", foo, "Foo: 1\nFoo: 2", "Foo: 1, 2", true },
    { "without white space round commas", foo, "Foo: 1,2", "Foo: \t1 ,\t 2 ", true },
    { "not without white space elsewhere", foo, "Foo: 1 2", "Foo: 12", false },
    { "not in another order", foo, "Foo: 1, 2", "Foo: 2, 1", false },
    { "not without white space in quotes", foo, 'Foo: "a, b"', 'Foo: "a,b"', false },
    { "not without white space in quotes with a quote", foo, [[Foo: "\", b"]], [[Foo: "\",b"]], false },
    { "even if a quote does not end", foo, [[Foo: "\]], [[Foo: "\]], true },
    { "with the same cookies in several lines", "Vary: Cookie", "Cookie: a=1; b=2", "Cookie: a=1\nCookie: b=2", true },
    { "not with a comma in a cookie", "Vary: Cookie", "Cookie: a=1,2", "Cookie: a=1, 2", false },
  }
  for _, case in ipairs(cases) do
    it(case[1], function() assert.equal(case[5], matches(case[2], case[3], case[4])) end)
  end
end)

describe("Accept-Encoding (RFC 9110 12.5.3)", function()
  local plain, gzip = "Vary: Accept-Encoding", "Vary: Accept-Encoding\nContent-Encoding: gzip"
  local function ae(value) return value and "Accept-Encoding: " .. value or "" end
  local cases = {
    { "in another order", gzip, "gzip, br", "br,gzip", true },
    { "with other weights", gzip, "gzip, br;q=0.5", "br;q=1.0, gzip;q=0.1", true },
    { "in another case", gzip, "GZip", "gzip", true },
    { "by its old name", gzip, "x-gzip", "gzip", true },
    { "with codings that nobody sends", gzip, "gzip, deflate, sdch", "gzip", true },
    { "with all by an asterisk", gzip, "*", "gzip, br, zstd", true },
    { "with all others by an asterisk", gzip, "gzip;q=0.5, *;q=0.1", "gzip, br, zstd", true },
    { "not with one more", gzip, "gzip", "gzip, br", false },
    { "not with one that is refused", gzip, "gzip, br;q=0", "gzip, br", false },
    { "without one that is refused", gzip, "gzip, br;q=0.000", "gzip", true },
    { "not with all but one by an asterisk", gzip, "*, br;q=0", "*", false },
    { "not if one is refused first", gzip, "br;q=0, *", "*", false },
    { "not absent", gzip, "gzip", nil, false },
    { "absent, if nothing was asked for", plain, "identity", nil, true },
    { "empty, if absent", plain, nil, "", true },
    { "with nothing that we know", plain, nil, "deflate", true },
    { "not if identity is refused", plain, "gzip", "gzip, identity;q=0", false },
    { "not if all else is refused", plain, "gzip", "gzip, *;q=0", false },
    { "if all is refused", plain, "*;q=0", "*;q=0", true },
    { "not with gzip that was not asked for", gzip, nil, "identity", false },
    { "but with the same, even then", gzip, "identity", "identity", true },
    { "absent, both", gzip, nil, nil, true },
    { "not with a coding beyond the usual", "Vary: Accept-Encoding\nContent-Encoding: deflate", "deflate", "x", false },
    { "with the same one beyond the usual", "Vary: Accept-Encoding\nContent-Encoding: deflate", "deflate, x",
      "deflate,x",
      true },
    { "not with several codings", "Vary: Accept-Encoding\nContent-Encoding: gzip, br", "gzip, br", "br, gzip", false },
    { "with a bad weight: as it is", gzip, "gzip;q=2", "gzip;q=2", true },
    { "with a bad weight: not as another", gzip, "gzip;q=2", "gzip", false },
    { "with something unknown behind: as it is", gzip, "gzip;level=1", "gzip", false },
  }
  for _, case in ipairs(cases) do
    it("matches " .. case[1], function() assert.equal(case[5], matches(case[2], ae(case[3]), ae(case[4]))) end)
  end

  it("is not looked at for ever", function()
    local many = ("a,"):rep(40) .. "gzip"
    assert.is_true(matches(gzip, ae(many), ae(many)))
    assert.is_false(matches(gzip, ae(many), ae "gzip"))
  end)
end)

describe("Accept-Language (RFC 9110 12.5.4)", function()
  local plain, german = "Vary: Accept-Language", "Vary: Accept-Language\nContent-Language: de"
  local function al(value) return value and "Accept-Language: " .. value or "" end
  local cases = {
    { "in another order", plain, "en, de", "de, en", true },
    { "in another case", plain, "en, de", "eN, De", true },
    { "with other white space", plain, "en, de", " en ,   de", true },
    { "in several lines", plain, "en, de", "de\nAccept-Language: en", true },
    { "with weights spelled otherwise", plain, "en;q=0.5, de;q=1", "de, en ; q=0.500", true },
    { "not with other weights", plain, "en;q=0.5, de", "en;q=0.4, de", false },
    { "not with more", plain, "en", "en, de", false },
    { "not with a longer tag", plain, "en", "en-gb", false },
    { "not absent", plain, "en", nil, false },
    { "not with what only begins the same", plain, "en-gb, de", "en, de", false },
    { "with what cannot be read, as it is", plain, "en;q=9", "en;q=9", true },
    { "with what cannot be read, not otherwise", plain, "en;q=9", "en", false },
    { "who prefers just the language it is in", german, "en, de", "fr;q=0.5, de;q=1.0", true },
    { "who prefers that alone", german, "en, de", "DE", true },
    { "not who prefers another", german, "en, de", "fr, de;q=0.9", false },
    { "not who prefers several", german, "en, de", "de, fr", false },
    { "not who prefers a region", german, "en, de", "de-at", false },
    { "not who refuses it", german, "en, de", "de;q=0", false },
    { "not who takes anything", german, "en, de", "*", false },
    { "not who says nothing", german, "en, de", nil, false },
    { "not if it is in several", "Vary: Accept-Language\nContent-Language: de, en", "en, de", "de", false },
    { "not if the fields say several", german .. "\nContent-Language: en", "en, de", "de", false },
  }
  for _, case in ipairs(cases) do
    it("matches " .. case[1], function() assert.equal(case[5], matches(case[2], al(case[3]), al(case[4]))) end)
  end
end)
