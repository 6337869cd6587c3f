-- Cache-Control and CDN-Cache-Control: what they are taken to say.

local rules = require("moongate_core").rules

local MOST = 2147483648

-- Each line of `lines` is one field line.
local function cc(lines) return "Cache-Control: " .. lines:gsub("\n", "\nCache-Control: ") end
local function cdn(lines) return "CDN-Cache-Control: " .. lines:gsub("\n", "\nCDN-Cache-Control: ") end

local function reads(name, cases)
  describe(name, function()
    for _, case in ipairs(cases) do
      it(("of %q"):format(case[1]), function() assert.same(case[2], rules.told(cc(case[1]))) end)
    end
  end)
end

reads("a directive without argument (RFC 9111 5.2.2)", {
  { "", {} },
  { "no-store", { no_store = true } },
  { "nO-StOrE", { no_store = true } },
  { "no-cache", { no_cache = true } },
  { "private", { private = true } },
  { "public", { public = true } },
  { "must-revalidate", { must_revalidate = true } },
  { "proxy-revalidate", { proxy_revalidate = true } },
  { "must-understand", { must_understand = true } },
  { "no-transform", { no_transform = true } },
  { "immutable", { immutable = true } },
  { "public,\t, ,no-store ,", { public = true, no_store = true } },
  { "public\nno-store", { public = true, no_store = true } },
  { "no-storex, xno-store, no_store", {} },
  { "unknown, foo=bar, x=\"no-store, private\"", {} },
})

reads("an argument where there is none (RFC 9111 5.2) forbids, but never permits", {
  { "no-store=x", { no_store = true } },
  { 'no-store=""', { no_store = true } },
  { "no-store =", { no_store = true } },
  { "must-revalidate=0", { must_revalidate = true } },
  { "public=yes", {} },
  { "must-understand=1", {} },
  { "immutable=", {} },
})

reads("delta-seconds (RFC 9111 1.2.2)", {
  { "max-age=0", { max_age = 0 } },
  { "max-age=3600", { max_age = 3600 } },
  { "MaX-aGe=3600", { max_age = 3600 } },
  { "max-age=003600", { max_age = 3600 } },
  { 'max-age="3600"', { max_age = 3600 } },
  { "max-age=2147483647", { max_age = MOST - 1 } },
  { "max-age=2147483648", { max_age = MOST } },
  { "max-age=2147483649", { max_age = MOST } },
  { "max-age=99999999999", { max_age = MOST } },
  { "max-age=" .. ("9"):rep(400), { max_age = MOST } },
  { "max-age=" .. ("0"):rep(400) .. "5", { max_age = 5 } },
  { "s-maxage=5", { s_maxage = 5 } },
  { "stale-while-revalidate=5, stale-if-error=6", { stale_while_revalidate = 5, stale_if_error = 6 } },
})

reads("an invalid value is stale (RFC 9111 4.2.1)", {
  { "max-age", { max_age = 0 } },
  { "max-age=", { max_age = 0 } },
  { 'max-age=""', { max_age = 0 } },
  { "max-age=-3600", { max_age = 0 } },
  { "max-age=+3600", { max_age = 0 } },
  { "max-age=3600.0", { max_age = 0 } },
  { "max-age=3600.5", { max_age = 0 } },
  { "max-age=1e9", { max_age = 0 } },
  { "max-age=0x10", { max_age = 0 } },
  { "max-age=a3600", { max_age = 0 } },
  { "max-age=3600a", { max_age = 0 } },
  { "max-age=3600;x", { max_age = 0 } },
  { "max-age='3600'", { max_age = 0 } },
  { "max-age =3600", { max_age = 0 } },
  { "max-age= 3600", { max_age = 0 } },
  { "max-age=36 00", { max_age = 0 } },
  { 'max-age="36"00"4"', { max_age = 0 } },
  { "max-age==3600", { max_age = 0 } },
  { "s-maxage=x, stale-while-revalidate=x, stale-if-error=x",
    { s_maxage = 0, stale_while_revalidate = 0, stale_if_error = 0 } },
})

reads("the first of several values counts (RFC 9111 4.2.1)", {
  { "max-age=1800, max-age=1", { max_age = 1800 } },
  { "max-age=1800\nmax-age=1", { max_age = 1800 } },
  { "max-age=1, max-age=1800", { max_age = 1 } },
  { "max-age=x, max-age=1800", { max_age = 0 } },
  { "max-age=0, max-age=1800", { max_age = 0 } },
})

reads("quotes hide what is in them (RFC 9111 5.2)", {
  { 'extension="max-age=3600", max-age=1', { max_age = 1 } },
  { 'max-age=1, extension="max-age=3600"', { max_age = 1 } },
  { [[x="\", no-store", max-age=1]], { max_age = 1 } },
  { 'no-cache="a", private="b"', { no_cache_fields = true, private_fields = true } },
})

reads("a quote that does not end hides nobody knows what, so that nothing is stored", {
  { 'x="private', { malformed = true, no_store = true } },
  { 'max-age=5, x="', { malformed = true, no_store = true, max_age = 5 } },
  { [[x="\"]], { malformed = true, no_store = true } },
  { [[x="\]], { malformed = true, no_store = true } },
  { 'max-age="5\nmax-age=6', { malformed = true, no_store = true, max_age = 0 } },
})

describe("field names (RFC 9111 5.2.2.4, 5.2.2.7)", function()
  local cases = {
    { 'no-cache="a"', { no_cache_fields = true } },
    { "no-cache=a", { no_cache_fields = true } },
    { 'no-cache=" a , b,,"', { no_cache_fields = true } },
    { 'private="set-cookie"', { private_fields = true } },
    { 'private=""', { private = true } },
    { 'private=","', { private = true } },
    { "private=", { private = true } },
    { 'private="a b"', { private = true } },
    { 'private="a, b@"', { private = true } },
    { 'private ="a"', { private = true } },
    { 'private="a", private', { private = true, private_fields = true } },
  }
  for _, case in ipairs(cases) do
    it(("of %q"):format(case[1]), function() assert.same(case[2], rules.told(cc(case[1]))) end)
  end

  it("are found in every line, and in quotes of nothing else", function()
    local text = cc 'no-cache="a, B"\nprivate=c, x="d", no-cache="e"' .. "\nA: 1\nB: 2\nC: 3\nD: 4\nE: 5\nF: 6"
    assert.equal(cc 'no-cache="a, B"\nprivate=c, x="d", no-cache="e"' .. "\nD: 4\nF: 6\n", rules.stored(text))
  end)
end)

describe("a request's Cache-Control (RFC 9111 5.2.1)", function()
  local cases = {
    { "Cache-Control: max-age=0", { max_age = 0 } },
    { "Cache-Control: max-age=x", { max_age = 0 } },
    { "Cache-Control: min-fresh=20", { min_fresh = 20 } },
    { "Cache-Control: min-fresh=x, min-fresh", {} },
    { "Cache-Control: max-stale", { max_stale = MOST } },
    { "Cache-Control: max-stale=5", { max_stale = 5 } },
    { "Cache-Control: max-stale=, max-stale=-1", {} },
    { "Cache-Control: max-stale=x, max-stale=7", { max_stale = 7 } },
    { "Cache-Control: no-cache, no-store, only-if-cached", { no_cache = true, no_store = true,
      only_if_cached = true } },
    { "Cache-Control: stale-if-error=9", { stale_if_error = 9 } },
    { "Cache-Control: nothing-to-see-here\nPragma: no-cache", {} },
  }
  for _, case in ipairs(cases) do
    it(("of %q"):format(case[1]), function() assert.same(case[2], rules.asked(case[1])) end)
  end
end)

describe("Pragma (RFC 9111 5.4)", function()
  local cases = {
    { "Pragma: no-cache", { no_cache = true, pragma = true } },
    { "Pragma: x, No-Cache", { no_cache = true, pragma = true } },
    { "Pragma: x\nPragma: no-cache", { no_cache = true, pragma = true } },
    { "Pragma: no-cachex", {} },
    { "Pragma: x", {} },
    { "Cache-Control:\nPragma: no-cache", {} },
  }
  for _, case in ipairs(cases) do
    it(("of a request with %q"):format(case[1]), function() assert.same(case[2], rules.asked(case[1])) end)
  end
  it("says nothing in a response", function() assert.same({}, rules.told("Pragma: no-cache")) end)
end)

describe("CDN-Cache-Control (RFC 9213 2.1)", function()
  local function targeted(more)
    more.targeted = true
    return more
  end
  local good = {
    { "max-age=3600", { max_age = 3600 } },
    { "foobar, max-age=3600", { max_age = 3600 } },
    { "foo", {} },
    { "max-age=0", { max_age = 0 } },
    { "max-age=-1", { max_age = 0 } },
    { "max-age=2147483648", { max_age = MOST } },
    { "max-age=99999999999", { max_age = MOST } },
    { "max-age=999999999999999", { max_age = MOST } },
    { "max-age=1;x=1, s-maxage=2;y", { max_age = 1, s_maxage = 2 } },
    { "max-age=1, max-age=2", { max_age = 2 } },
    { "max-age=1\nmax-age=2", { max_age = 2 } },
    { "no-store, no-store=?0", {} },
    { "private=?0", {} },
    { "no-store=?1;because", { no_store = true } },
    { "private", { private = true } },
    { "no-cache", { no_cache = true } },
    { 'no-cache="a, b"', { no_cache_fields = true } },
    { "private=(a \"b\")", { private_fields = true } },
    { "private=a", { private_fields = true } },
    { "private=()", { private = true } },
    { 'private=""', { private = true } },
    { "private=(1)", { private = true } },
    { "private, private=a", { private_fields = true } },
  }
  for _, case in ipairs(good) do
    it(("of %q replaces Cache-Control"):format(case[1]), function()
      assert.same(targeted(case[2]), rules.told(cc "no-store, max-age=7" .. "\n" .. cdn(case[1]), true))
    end)
  end

  local bad = {
    "", " ", "max-age =100", "max-age= 100", "MaX-aGe=3600", "max-age=10000, &&&&&", 'max-age="10000"', "max-age=1.5",
    "max-age=1000000000000000", "max-age=x", "max-age", "max-age=1,", "no-store=1", 'public="a"', "private=1",
    "max-age=1, no-store=x", "max-age=(1)", "max-age=1\n&",
  }
  for _, text in ipairs(bad) do
    it(("of %q is as if it were not there"):format(text), function()
      assert.same({ no_store = true, max_age = 7 }, rules.told(cc "no-store, max-age=7" .. "\n" .. cdn(text), true))
    end)
  end

  it("is not for a cache that is no gateway's", function()
    assert.same({ max_age = 7 }, rules.told(cc "max-age=7" .. "\n" .. cdn "max-age=9"))
  end)

  it("names fields in strings, tokens and inner lists (RFC 8941 3.1.1)", function()
    local text = cdn 'max-age=1, no-cache="a, b", private=(c "d")' .. "\nA: 1\nB: 1\nC: 1\nD: 1\nE: 1"
    assert.equal(cdn 'max-age=1, no-cache="a, b", private=(c "d")' .. "\nE: 1\n", rules.stored(text, true))
    assert.equal(text .. "\n", rules.stored(text, false))
  end)
end)
