-- Entity tags, and conditions of requests.

local core = require "moongate_core"
local parts, date_write = core.parts, core.http.date_write

local T = 1700000000 -- seconds

local function head(text) return (text:gsub("@(%-?%d+)", function(n) return date_write(T + tonumber(n)) end)) end

describe("an entity tag (RFC 9110 8.8.3)", function()
  local good = {
    { '"xyzzy"', "xyzzy", false }, { 'W/"xyzzy"', "xyzzy", true }, { '""', "", false }, { 'W/""', "", true },
    { [["a\"]], [[a\]], false }, { '"a,b"', "a,b", false }, { '"\228\255"', "\228\255", false }, { '"!#~"', "!#~",
      false },
  }
  for _, case in ipairs(good) do
    it("is read: " .. case[1], function() assert.same({ case[2], case[3] }, { parts.etag(case[1]) }) end)
  end
  local bad = {
    "", "abc", '"abc', 'abc"', '"a b"', '"a"b"', 'w/"a"', 'W"a"', [[W\"a"]], 'W/a', 'W/ "a"', '"a"x', ' "a"', "'a'",
      "*",
    '"a\127"', '"a\0"', '"a\tb"', '"a", "b"', "W/",
  }
  for _, text in ipairs(bad) do
    it(("is none: %q"):format(text), function() assert.is_nil(parts.etag(text)) end)
  end

  it("matches another strongly or weakly (RFC 9110 8.8.3.2)", function()
    assert.same({ false, true }, { parts.etags_match('W/"1"', 'W/"1"') })
    assert.same({ false, false }, { parts.etags_match('W/"1"', 'W/"2"') })
    assert.same({ false, true }, { parts.etags_match('W/"1"', '"1"') })
    assert.same({ false, true }, { parts.etags_match('"1"', 'W/"1"') })
    assert.same({ true, true }, { parts.etags_match('"1"', '"1"') })
    assert.same({ false, false }, { parts.etags_match('"a"', '"A"') })
  end)
end)

describe("validators (RFC 9110 8.8)", function()
  local cases = {
    { 'ETag: "a"', true, false },
    { 'ETag: W/"a"', true, false },
    { "ETag: a", false, false },
    { 'ETag: "a"\nETag: "a"', false, false },
    { "Last-Modified: @-9", true, false },
    { "Last-Modified: @-9\nDate: @0", true, true },
    { "Last-Modified: @-1\nDate: @0", true, true },
    { "Last-Modified: @0\nDate: @0", true, false },
    { "Last-Modified: x\nDate: @0", false, false },
    { "", false, false },
  }
  for _, case in ipairs(cases) do
    it(("of %q"):format(case[1]), function()
      assert.same({ case[2], case[3] }, { parts.validators(head(case[1])) })
    end)
  end
end)

-- request, response, more -> what a cache does, what an origin does
local function conditions(name, cases)
  describe(name, function()
    for _, case in ipairs(cases) do
      it(case[1], function()
        local c = { request = head(case[2]), response = head(case[3]), received = T * 1000 }
        for k, v in pairs(case.more or {}) do c[k] = v end
        local by_cache, by_origin = parts.condition(c)
        assert.equal(case[4], by_cache)
        assert.equal(case[5] or case[4], by_origin)
      end)
    end
  end)
end

local yes, no, failed = "not_modified", "go_on", "failed"

conditions("If-None-Match (RFC 9110 13.1.2)", {
  { "with the strong tag", 'If-None-Match: "abcdef"', 'ETag: "abcdef"', yes },
  { "with the weak tag", 'If-None-Match: W/"abcdef"', 'ETag: W/"abcdef"', yes },
  { "with the strong tag, now weak", 'If-None-Match: "abcdef"', 'ETag: W/"abcdef"', yes },
  { "with the weak tag, now strong", 'If-None-Match: W/"abcdef"', 'ETag: "abcdef"', yes },
  { "with another tag", 'If-None-Match: "abc"', 'ETag: "abcdef"', no },
  { "with the tag first", 'If-None-Match: "abcdef", "1234", "5678"', 'ETag: "abcdef"', yes },
  { "with the tag second", 'If-None-Match: "1234", "abcdef", "5678"', 'ETag: "abcdef"', yes },
  { "with the tag last", 'If-None-Match: "1234", "5678", "abcdef"', 'ETag: "abcdef"', yes },
  { "with the tag in a second line", 'If-None-Match: "1234"\nIf-None-Match: "abcdef"', 'ETag: "abcdef"', yes },
  { "with empty members", 'If-None-Match: ,, "1" ,,\t"abcdef",', 'ETag: "abcdef"', yes },
  { "with a comma in a tag", 'If-None-Match: "a,b", "c"', 'ETag: "c"', yes },
  { "with a backslash at a tag's end", [[If-None-Match: "a\", "c"]], 'ETag: "c"', yes },
  { "with bytes beyond ASCII", 'If-None-Match: "abcdef\252"', 'ETag: "abcdef\252"', yes },
  { "with an asterisk", "If-None-Match: *", 'ETag: "abcdef"', yes },
  { "with an asterisk and no tag stored", "If-None-Match: *", "", yes },
  { "with an asterisk in quotes", 'If-None-Match: "*"', 'ETag: "abcdef"', no },
  { "with an asterisk among tags", 'If-None-Match: "x", *', 'ETag: "abcdef"', no },
  { "without quotes", "If-None-Match: abcdef", 'ETag: "abcdef"', no },
  { "without quotes on either side", "If-None-Match: abcdef", "ETag: abcdef", no },
  { "with something else before the tag", 'If-None-Match: abc, "abcdef"', 'ETag: "abcdef"', yes },
  { "with w/ in lower case", 'If-None-Match: w/"abcdef"', 'ETag: w/"abcdef"', no },
  { "that is empty", "If-None-Match:", 'ETag: "abcdef"', no },
  { "and no tag stored", 'If-None-Match: "abcdef"', "", no },
  { "before If-Modified-Since, which would not (13.2.2)", 'If-None-Match: "a"\nIf-Modified-Since: @-10000',
    'ETag: "a"\nLast-Modified: @-5000', yes },
  { "before If-Modified-Since, which would (13.2.2)", 'If-None-Match: "b"\nIf-Modified-Since: @0',
    'ETag: "a"\nLast-Modified: @-5000', no },
  { "of HEAD", 'If-None-Match: "a"', 'ETag: "a"', yes, more = { method = "HEAD" } },
  { "of PUT", 'If-None-Match: "a"', 'ETag: "a"', no, failed, more = { method = "PUT" } },
  { "of PUT that is to be the first", "If-None-Match: *", "", no, failed, more = { method = "PUT" } },
  { "of OPTIONS (13.2.1)", 'If-None-Match: "a"', 'ETag: "a"', no, more = { method = "OPTIONS" } },
  { "of a 404 (13.2.1)", 'If-None-Match: "a"', 'ETag: "a"', no, more = { status = 404 } },
  { "of a 302 (13.2.1)", "If-None-Match: *", "", no, more = { status = 302 } },
})

conditions("If-Modified-Since (RFC 9110 13.1.3, RFC 9111 4.3.2)", {
  { "of the same date", "If-Modified-Since: @-3000", "Last-Modified: @-3000", yes },
  { "of a later date", "If-Modified-Since: @-2000", "Last-Modified: @-3000", yes },
  { "of an earlier date", "If-Modified-Since: @-3001", "Last-Modified: @-3000", no },
  { "of a date of RFC 850", "If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT", "Last-Modified: @0", yes },
  { "of a date of asctime", "If-Modified-Since: Tue Nov 14 22:13:20 2023", "Last-Modified: @0", yes },
  { "of no date", "If-Modified-Since: x", "Last-Modified: @-3000", no },
  { "of two dates", "If-Modified-Since: @0\nIf-Modified-Since: @0", "Last-Modified: @-3000", no },
  { "later than a Date, without Last-Modified", "If-Modified-Since: @10", "Date: @5", yes, no },
  { "earlier than a Date, without Last-Modified", "If-Modified-Since: @-3000", "Date: @0", no },
  { "later than the arrival, without both", "If-Modified-Since: @0", "", yes, no },
  { "earlier than the arrival, without both", "If-Modified-Since: @-1", "", no },
  { "of POST", "If-Modified-Since: @0", "Last-Modified: @-3000", no, more = { method = "POST" } },
  { "of a 404 (13.2.1)", "If-Modified-Since: @0", "Last-Modified: @-3000", no, more = { status = 404 } },
})

conditions("If-Match and If-Unmodified-Since (RFC 9110 13.1.1, 13.1.4) are not for a cache:", {
  { "the tag", 'If-Match: "a"', 'ETag: "a"', no },
  { "another tag", 'If-Match: "b"', 'ETag: "a"', no, failed },
  { "the tag, weak", 'If-Match: W/"a"', 'ETag: W/"a"', no, failed },
  { "one of some tags", 'If-Match: "b", "a"', 'ETag: "a"', no },
  { "an asterisk", "If-Match: *", "", no },
  { "a tag where there is none", 'If-Match: "a"', "", no, failed },
  { "a later date", "If-Unmodified-Since: @0", "Last-Modified: @-1", no },
  { "the same date", "If-Unmodified-Since: @0", "Last-Modified: @0", no },
  { "an earlier date", "If-Unmodified-Since: @-1", "Last-Modified: @0", no, failed },
  { "a date where there is none", "If-Unmodified-Since: @-1", "", no },
  { "no date", "If-Unmodified-Since: x", "Last-Modified: @0", no },
  { "If-Match goes before If-Unmodified-Since (13.2.2)", 'If-Match: "a"\nIf-Unmodified-Since: @-1',
    'ETag: "a"\nLast-Modified: @0', no },
  { "both If-Match and If-None-Match (13.2.2)", 'If-Match: "a"\nIf-None-Match: "a"', 'ETag: "a"', yes },
  { "with PUT", 'If-Match: "b"', 'ETag: "a"', no, failed, more = { method = "PUT" } },
})

it("a request is for the origin with If-Match or If-Unmodified-Since (RFC 9110 13.1)", function()
  for text, expected in pairs { ["If-Match: x"] = true, ["If-Unmodified-Since: x"] = true, ["If-None-Match: x"] = false,
    ["If-Modified-Since: x"] = false, ["If-Range: x"] = false, [""] = false } do
    assert.equal(expected, (select(3, parts.condition { request = text, response = "" })))
  end
end)

describe("If-Range (RFC 9110 13.1.5)", function()
  local cases = {
    { "absent", "", "", true },
    { "with the tag", 'If-Range: "a"', 'ETag: "a"', true },
    { "with another tag", 'If-Range: "b"', 'ETag: "a"', false },
    { "with a weak tag", 'If-Range: W/"a"', 'ETag: W/"a"', false },
    { "with a tag that is weak here", 'If-Range: "a"', 'ETag: W/"a"', false },
    { "with a tag and none here", 'If-Range: "a"', "", false },
    { "with a list of tags", 'If-Range: "a", "b"', 'ETag: "a"', false },
    { "in two lines", 'If-Range: "a"\nIf-Range: "a"', 'ETag: "a"', false },
    { "with the date", "If-Range: @-9", "Last-Modified: @-9\nDate: @0", true },
    { "with a later date", "If-Range: @-8", "Last-Modified: @-9\nDate: @0", false },
    { "with an earlier date", "If-Range: @-10", "Last-Modified: @-9\nDate: @0", false },
    { "with a date that is weak", "If-Range: @0", "Last-Modified: @0\nDate: @0", false },
    { "with a date and no Date here", "If-Range: @-9", "Last-Modified: @-9", false },
    { "with nonsense", "If-Range: x", 'ETag: "x"', false },
    { "empty", "If-Range:", "", false },
  }
  for _, case in ipairs(cases) do
    it(case[1], function()
      local c = { request = head(case[2]), response = head(case[3]) }
      assert.equal(case[4], (select(4, parts.condition(c))))
    end)
  end
end)
