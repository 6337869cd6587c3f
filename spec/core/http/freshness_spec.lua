-- What a shared cache may store, for how long it is fresh, and whom it may be given to.

local core = require "moongate_core"
local rules, date_write = core.rules, core.http.date_write

local SECOND, DAY = 1000, 86400 * 1000
local T = 1700000000 * SECOND -- when responses come

local function date(seconds) return date_write(T // SECOND + seconds) end

-- "Name: value" lines; "@n" in a value is the date n seconds from T.
local function head(...)
  return (table.concat({ ... }, "\n"):gsub("@(%-?%d+)", function(n) return date(tonumber(n)) end))
end

local function story(response, more)
  local s = { response = response, response_time = T }
  for k, v in pairs(more or {}) do s[k] = v end
  return s
end

-- "yes word" or "no word".
local function verdict(s)
  local word, stored = rules.freshness(s)
  return (stored and "yes " or "no ") .. word
end

local function measure(s) return select(3, rules.freshness(s)) end

describe("a response is stored (RFC 9111 3)", function()
  local cases = {
    -- freshness that is told
    { "with max-age", head "Cache-Control: max-age=9", "yes max-age" },
    { "with s-maxage", head "Cache-Control: max-age=0, s-maxage=9", "yes s-maxage" },
    { "with Expires", head("Date: @0", "Expires: @9"), "yes expires" },
    { "of no status that is known, with max-age", head "Cache-Control: max-age=9", "yes max-age", { status = 599 } },
    { "of status 299, with max-age", head "Cache-Control: max-age=9", "yes max-age", { status = 299 } },
    { "of status 302, with Expires", head("Date: @0", "Expires: @9"), "yes expires", { status = 302 } },
    { "to HEAD", head "Cache-Control: max-age=9", "yes max-age", { method = "HEAD" } },
    -- freshness that is guessed
    { "with Last-Modified", head("Date: @0", "Last-Modified: @-100"), "yes heuristic" },
    { "with ETag only", head 'ETag: "x"', "yes validator" },
    { "with a Last-Modified of now", head("Date: @0", "Last-Modified: @0"), "yes validator" },
    { "that is public, of any status", head("Cache-Control: public", "Date: @0", "Last-Modified: @-100"),
      "yes heuristic", { status = 599 } },
    -- that was never fresh
    { "stale, with a validator", head("Cache-Control: max-age=0", 'ETag: "x"'), "yes max-age" },
    { "stale, if it may be served so", head "Cache-Control: max-age=0, stale-while-revalidate=9", "yes max-age" },
    { "stale, if it may be served on an error", head "Cache-Control: max-age=0, stale-if-error=9", "yes max-age" },
    { "old, but fresh once", head("Cache-Control: max-age=5", "Age: 9"), "yes max-age" },
    { "with no-cache and a validator", head("Cache-Control: no-cache", 'ETag: "x"'), "yes no-cache" },
    { "with no-cache, max-age and a validator", head("Cache-Control: no-cache, max-age=9", 'ETag: "x"'),
      "yes no-cache" },
    { "with no-cache of one field", head 'Cache-Control: no-cache="a", max-age=9', "yes max-age" },
    { "with private of one field", head 'Cache-Control: private="a", max-age=9', "yes max-age" },
    { "with Vary", head("Cache-Control: max-age=9", "Vary: Foo"), "yes max-age" },
    { "whatever a response's Pragma says", head("Cache-Control: max-age=9", "Pragma: no-cache"), "yes max-age" },
  }
  for _, case in ipairs(cases) do
    it(case[1], function() assert.equal(case[3], verdict(story(case[2], case[4]))) end)
  end

  for _, status in ipairs { 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501 } do
    it(("by heuristics with status %d (RFC 9110 15.1)"):format(status), function()
      assert.equal("yes heuristic", verdict(story(head("Date: @0", "Last-Modified: @-86400"), { status = status })))
    end)
  end
  for _, status in ipairs { 201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599 } do
    it(("not by heuristics with status %d (RFC 9110 15.1)"):format(status), function()
      assert.equal("no no-freshness", verdict(story(head("Date: @0", "Last-Modified: @-86400", 'ETag: "x"'),
        { status = status })))
    end)
  end
end)

describe("a response is not stored (RFC 9111 3)", function()
  local fresh = "Cache-Control: max-age=9"
  local cases = {
    { "without freshness or validator", "", "no no-freshness" },
    { "that is public and nothing else", "Cache-Control: public", "no no-freshness" },
    { "with an ETag that is none", "ETag: x", "no no-freshness" },
    { "to POST, even with Content-Location", head(fresh, "Content-Location: /"), "no method", { method = "POST" } },
    { "to PUT", fresh, "no method", { method = "PUT" } },
    { "to OPTIONS", fresh, "no method", { method = "OPTIONS" } },
    { "to an unknown method", fresh, "no method", { method = "get" } },
    { "that is interim", fresh, "no status", { status = 103 } },
    { "that is a 304", fresh, "no status", { status = 304 } },
    { "to a request with no-store", fresh, "no request-no-store", { request = "Cache-Control: no-store" } },
    { "with no-store", "Cache-Control: max-age=9, No-Store", "no no-store" },
    { "with no-store and Expires", head("Cache-Control: no-store", "Date: @0", "Expires: @9"), "no no-store" },
    { "with private", "Cache-Control: private, max-age=9", "no private" },
    { "with private of no field", 'Cache-Control: private="", max-age=9', "no private" },
    { "with private in any case", "Cache-Control: public, pRiVaTe, s-maxage=9", "no private" },
    { "with a quote that does not end", 'Cache-Control: max-age=9, x="private', "no malformed" },
    { "with Vary: *", head(fresh, "Vary: *"), "no vary-any" },
    { "with no-cache and nothing to validate by", "Cache-Control: no-cache, max-age=9", "no no-validator" },
    { "with no-cache, of a status not known", head("Cache-Control: no-cache", 'ETag: "x"'), "no no-freshness",
      { status = 299 } },
    { "that was never fresh, with nothing to validate by", "Cache-Control: max-age=0", "no no-validator" },
    { "with a bad max-age", "Cache-Control: max-age=x", "no no-validator" },
    { "that has expired, with nothing to validate by", head("Date: @0", "Expires: @-9"), "no no-validator" },
    { "never fresh, and never to be stale", "Cache-Control: max-age=0, stale-while-revalidate=9, must-revalidate",
      "no no-validator" },
  }
  for _, case in ipairs(cases) do
    it(case[1], function() assert.equal(case[3], verdict(story(case[2], case[4]))) end)
  end
end)

it("no answer to what only one request had is stored (RFC 6585 7.2)", function()
  for _, status in ipairs { 412, 416, 417, 425, 428, 429, 431, 511 } do
    assert.equal("no status", verdict(story("Cache-Control: max-age=9, public", { status = status })))
  end
end)

describe("must-understand (RFC 9111 5.2.2.3)", function()
  local response = "Cache-Control: max-age=9, no-store, must-understand"
  it("outweighs no-store with a status that is known", function()
    assert.equal("yes max-age", verdict(story(response)))
  end)
  it("forbids to store one that is not", function()
    assert.equal("no must-understand", verdict(story(response, { status = 599 })))
    assert.equal("no must-understand", verdict(story("Cache-Control: max-age=9, must-understand", { status = 299 })))
  end)
end)

describe("a response to a request with Authorization (RFC 9111 3.5)", function()
  local cases = {
    { "max-age=9", "no authorization" },
    { "max-age=9, proxy-revalidate", "no authorization" },
    { 'max-age=9, public="x"', "no authorization" },
    { "max-age=9, public", "yes max-age" },
    { "max-age=9, must-revalidate", "yes max-age" },
    { "s-maxage=9", "yes s-maxage" },
    { "s-maxage=9, private", "no private" },
  }
  for _, case in ipairs(cases) do
    it(("with %q"):format(case[1]), function()
      assert.equal(case[2], verdict(story("Cache-Control: " .. case[1], { request = "Authorization: FOO" })))
    end)
  end
  it("needs the permission of CDN-Cache-Control where that counts (RFC 9213 2.2)", function()
    local response = head("Cache-Control: public", "CDN-Cache-Control: max-age=9")
    assert.equal("no authorization", verdict(story(response, { request = "Authorization: FOO", targeted = true })))
  end)
end)

describe("a response with Set-Cookie (RFC 9111 7.3)", function()
  local cases = {
    { head "Cache-Control: max-age=9", "yes max-age" },
    { head "Cache-Control: public, max-age=9", "yes max-age" },
    { head "Cache-Control: s-maxage=9", "yes s-maxage" },
    { head("Date: @0", "Expires: @9"), "yes expires" },
    { head("Cache-Control: public", "Date: @0", "Last-Modified: @-100"), "yes heuristic" },
    { head("Date: @0", "Last-Modified: @-100"), "no set-cookie" },
    { head 'ETag: "x"', "no set-cookie" },
    { head("Cache-Control: no-cache", 'ETag: "x"'), "no set-cookie" },
    { head("Cache-Control: no-cache, max-age=9", 'ETag: "x"'), "no set-cookie" },
    { head("Cache-Control: max-age=0", 'ETag: "x"'), "no set-cookie" },
    { head('Cache-Control: private="Set-Cookie"', 'ETag: "x"'), "yes validator" },
  }
  for _, case in ipairs(cases) do
    it(("and %q"):format(case[1]), function() assert.equal(case[2], verdict(story("Set-Cookie: a=b\n" .. case[1]))) end)
  end
end)

describe("a 206 (RFC 9111 3.3)", function()
  local cases = {
    { "Content-Range: bytes 0-4/10", "yes max-age" },
    { "Content-Range: bytes 0-4/10\nContent-Length: 5", "yes max-age" },
    { "Content-Range: bytes 0-4/10\nContent-Length: 6", "no range" },
    { "Content-Range: bytes 4-9/10\nContent-Length: 5", "no range" },
    { "Content-Range: bytes 0-4/*", "no range" },
    { "Content-Range: bytes 5-4/10", "no range" },
    { "Content-Range: bytes */10", "no range" },
    { "Content-Range: lines 0-4/10", "no range" },
    { "Content-Type: multipart/byteranges; boundary=x", "no range" },
  }
  for _, case in ipairs(cases) do
    it(("with %q"):format(case[1]), function()
      assert.equal(case[2], verdict(story("Cache-Control: max-age=9\n" .. case[1], { status = 206 })))
    end)
  end
end)

describe("the lifetime (RFC 9111 4.2.1)", function()
  local cases = {
    { "is max-age", head "Cache-Control: max-age=9", 9 },
    { "is at most 2^31 seconds", head "Cache-Control: max-age=99999999999", 2147483648 },
    { "is s-maxage, if that is shorter", head "Cache-Control: max-age=3600, s-maxage=1", 1 },
    { "is s-maxage, whatever comes first", head "Cache-Control: s-maxage=1, max-age=3600", 1 },
    { "is s-maxage, in lines of their own", head("Cache-Control: max-age=3600", "Cache-Control: s-maxage=1"), 1 },
    { "is s-maxage, if that is longer", head("Expires: @-10", "Cache-Control: max-age=0, s-maxage=3600"), 3600 },
    { "is max-age, whatever Expires says", head("Cache-Control: max-age=9", "Expires: @-7200", "Date: @0"), 9 },
    { "is max-age, if Expires is bad", head("Cache-Control: max-age=9", "Expires: 0", "Date: @0"), 9 },
    { "is max-age of 0, if Expires is to come", head("Cache-Control: max-age=0", "Expires: @3600", "Date: @0"), 0 },
    { "is Expires less Date", head("Expires: @30", "Date: @10"), 20 },
    { "is Expires less the time of arrival, without Date", head "Expires: @30", 30 },
    { "is Expires less the time of arrival, with a bad Date", head("Expires: @30", "Date: foo"), 30 },
    { "is none with an Expires that has passed", head("Expires: @-30", "Date: @0"), 0 },
    { "is none with an Expires of now", head("Expires: @0", "Date: @0"), 0 },
    { "is none with an Expires before Date, both ahead", head("Expires: @300", "Date: @400"), 0 },
    { "is none with a bad Expires", head("Expires: 0", "Date: @0"), 0 },
    { "is none with two Expires", head("Expires: @30", "Expires: @30", "Date: @0"), 0 },
    { "is none with a bad max-age, though Expires is good", head("Cache-Control: max-age=x", "Expires: @30"), 0 },
    { "does not heed Expires where CDN-Cache-Control counts", head("Expires: @30", "CDN-Cache-Control: x"), 0 },
    { "is that of CDN-Cache-Control", head("Cache-Control: max-age=1", "CDN-Cache-Control: max-age=3600"), 3600 },
    { "is a shorter one of CDN-Cache-Control", head("Cache-Control: max-age=9", "CDN-Cache-Control: max-age=1"), 1 },
  }
  for _, case in ipairs(cases) do
    it(case[1], function() assert.equal(case[3] * SECOND, measure(story(case[2], { targeted = true })).lifetime) end)
  end

  it("is a tenth of the time since Last-Modified, at most a day (RFC 9111 4.2.2)", function()
    for _, case in ipairs { { 5, 500 }, { 600, 60 * SECOND }, { 864000, DAY }, { 8640000, DAY }, { 0, 0 }, { -5,
      0 } } do
      local f = measure(story(head("Date: @0", "Last-Modified: @" .. -case[1])))
      assert.equal(case[2], f.lifetime)
      assert.equal(case[2] > 0, f.heuristic)
    end
    assert.equal(60 * SECOND, measure(story(head "Last-Modified: @-600")).lifetime)
  end)
end)

describe("Expires (RFC 9111 4.2, 5.3)", function()
  local good = {
    "Sun, 06 Nov 2033 08:49:37 GMT", "SUN, 06 Nov 2033 08:49:37 GMT", "Sun, 06 NOV 2033 08:49:37 GMT",
    "Sun, 06 nov 2033 08:49:37 gMT", "Sunday, 06-Nov-33 08:49:37 GMT", "sunDAY, 06-NOV-33 08:49:37 gmt",
    "Sun Nov  6 08:49:37 2033", "sun NOV  6 08:49:37 2033",
  }
  for _, text in ipairs(good) do
    it("is read: " .. text, function()
      assert.equal(2014879777 * SECOND, rules.date("Expires: " .. text, "expires"))
    end)
  end
  for _, text in ipairs { "Tue, 19 Jan 2038 14:14:08 GMT", "Sun, 21 Nov 2286 04:46:39 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT" } do
    it("is read, however far ahead: " .. text, function()
      assert.is_true(rules.date("Expires: " .. text, "Expires") > T)
    end)
  end
  local bad = {
    "", "0", "-1", "foo", "Thu, 18 Aug 2050 02:01:18 UTC", "Thu, 18 Aug 2050 02:01:18 AEST",
    "Thu, 18 Aug 2050 02:01:18 +0000", "Thu, 18 Aug 50 02:01:18 GMT", "Thu 18 Aug 2050 02:01:18 GMT",
    "Thu, 18  Aug  2050 02:01:18 GMT", "Thu, 18-Aug-2050 02:01:18 GMT", "Thu, 18 Aug 2050 02.01.18 GMT",
    "Thu, 18 Aug 2050 2:01:18 GMT", "Thu, 32 Aug 2050 02:01:18 GMT", "Thu, 18 Aug 2050 02:01:18 GMT x",
    "Thu, 18 Aug 2050 02:01:18", ("Thu, 18 Aug 2050 02:01:18 GMT "):rep(9),
  }
  for _, text in ipairs(bad) do
    it("is no date: " .. text, function() assert.is_nil(rules.date("Expires: " .. text, "Expires")) end)
  end
end)

describe("the age at arrival (RFC 9111 4.2.3)", function()
  local fresh = "Cache-Control: max-age=3600"
  it("is 0 without Age and Date", function() assert.equal(0, measure(story(fresh)).age) end)
  it("is Age", function() assert.equal(30 * SECOND, measure(story(head(fresh, "Date: @0", "Age: 30"))).age) end)
  it("is what Date says, if that is more", function()
    assert.equal(7200 * SECOND, measure(story(head(fresh, "Date: @-7200", "Age: 30"))).age)
  end)
  it("is not less than Age, if Date is ahead", function()
    assert.equal(30 * SECOND, measure(story(head(fresh, "Date: @7200", "Age: 30"))).age)
  end)
  it("adds the time that the response took to Age", function()
    assert.equal(35 * SECOND, measure(story(head(fresh, "Age: 30"), { request_time = T - 5 * SECOND })).age)
  end)
  it("does not take the parts of a second, which Date has not, for age", function()
    local f = measure(story(head(fresh, "Date: @0"), { response_time = T + 999 }))
    assert.same({ 0, T + 999 }, { f.age, f.received })
  end)
  it("is 0 if the clock was set back", function()
    local f = measure(story(head(fresh, "Date: @0"), { request_time = T, response_time = T - 9 * SECOND }))
    assert.same({ 0, T }, { f.age, f.received })
  end)
end)

describe("Age (RFC 9111 5.1)", function()
  local cases = {
    { "Age: 0", 0 }, { "Age: 7200", 7200 }, { "Age: 007", 7 },
    { "Age: abc", 0 }, { "Age: -7200", 0 }, { "Age: 7200.0", 0 }, { "Age: 7200;foo=bar", 0 }, { "Age: 7200;foo=111",
      0 },
    { 'Age: "7200"', 0 }, { "Age: +5", 0 }, { "Age:", 0 }, { "", 0 },
    { "Age: 2147483647", 2147483647 }, { "Age: 2147483648", 2147483648 }, { "Age: 2147483649", 2147483648 },
    { "Age: 99999999999999999999999999", 2147483648 },
    { "Age: 7200, 0", 7200 }, { "Age: 0, 7200", 0 }, { "Age: x, 7200", 0 }, { "Age: , 7200", 7200 },
    { "Age: 7200\nAge: 0", 7200 }, { "Age: 0\nAge: 7200", 0 }, { "Age: x\nAge: 7200", 0 }, { "Age:\nAge: 7200", 7200 },
    { "Age: 3600\nAge: 3600", 3600 },
  }
  for _, case in ipairs(cases) do
    it(("of %q"):format(case[1]), function() assert.equal(case[2], rules.age(case[1])) end)
  end
end)

describe("a stored response is reused (RFC 9111 4)", function()
  -- response, request, seconds later -> verdict, and of `more` what is given
  local function reuse(case)
    local got, more = rules.reuse(story(case[2], { targeted = true }), case[3], T + math.floor(case[4] * SECOND))
    assert.equal(case[5], got)
    for k, v in pairs(case[6] or {}) do assert.same({ k, v }, { k, more[k] }) end
  end
  local five = "Cache-Control: max-age=5"
  local swr = "Cache-Control: max-age=5, stale-while-revalidate=5"
  local sie = "Cache-Control: max-age=5, stale-if-error=5"
  local cases = {
    { "while it is fresh (4.2)", five, "", 4.999, "fresh", { age = 4999, left = 1, seconds = 4 } },
    { "not once its age is its lifetime (4.2)", five, "", 5, "validate", { left = 0, reason = "age", seconds = 5 } },
    { "not when it came too old (4.2.3)", five .. "\nAge: 7", "", 0, "validate", { left = -2000, seconds = 7 } },
    { "as of its arrival, if the clock was set back", five, "", -9, "fresh", { age = 0 } },
    { "never without validation, with no-cache (5.2.2.4)", 'Cache-Control: max-age=5, no-cache\nETag: "x"', "", 0,
      "validate", { reason = "age", on_error = false, if_cut_off = false } },
    { "with no-cache of a field (5.2.2.4)", 'Cache-Control: max-age=5, no-cache="x"', "", 0, "fresh" },
    { "with at most 2^31 as its Age (5.1)", "Cache-Control: max-age=1\nAge: 2147483648", "", 99, "validate",
      { seconds = 2147483648 } },

    { "while it is refreshed (RFC 5861 3)", swr, "", 9.999, "revalidate", { left = -4999 } },
    { "not stale for longer (RFC 5861 3)", swr, "", 10, "validate" },
    { "not stale with must-revalidate (5.2.2.2)", swr .. ", must-revalidate", "", 6, "validate",
      { on_error = false, if_cut_off = false } },
    { "not stale with proxy-revalidate (5.2.2.8)", swr .. ", proxy-revalidate", "", 6, "validate",
      { on_error = false, if_cut_off = false } },
    { "not stale with s-maxage (5.2.2.10)", swr .. ", s-maxage=5", "", 6, "validate",
      { on_error = false, if_cut_off = false } },
    { "but fresh with all of them", swr .. ", must-revalidate, proxy-revalidate, s-maxage=5", "", 4, "fresh" },

    { "on an error (RFC 5861 4)", sie, "", 9.999, "validate", { on_error = true, if_cut_off = true } },
    { "not on an error for longer (RFC 5861 4)", sie, "", 10, "validate", { on_error = false, if_cut_off = true } },
    { "not on an error that nothing was said of", five, "", 6, "validate", { on_error = false, if_cut_off = true } },
    { "on an error, if the request says so (RFC 5861 4)", five, "Cache-Control: stale-if-error=5", 6, "validate",
      { on_error = true } },
    { "not on an error with must-revalidate (5.2.2.2)", sie .. ", must-revalidate", "Cache-Control: stale-if-error=9",
      6,
      "validate", { on_error = false, if_cut_off = false } },

    { "not if the request says no-cache (5.2.1.4)", five, "Cache-Control: no-cache", 0, "validate",
      { reason = "request", on_error = false, if_cut_off = false } },
    { "not if the request says Pragma: no-cache (5.4)", five, "Pragma: no-cache", 0, "validate",
      { reason = "request" } },
    { "if the request says another Pragma (5.4)", five, "Pragma: x", 0, "fresh" },
    { "not if the request says max-age=0 (5.2.1.1)", five, "Cache-Control: max-age=0", 0, "validate",
      { reason = "request", on_error = true, if_cut_off = true } },
    { "if it is younger than the request's max-age (5.2.1.1)", five, "Cache-Control: max-age=2", 1.999, "fresh" },
    { "not if it is older than that (5.2.1.1)", five, "Cache-Control: max-age=2", 2, "validate",
      { reason = "request" } },
    { "not if its Age is more than that (5.2.1.1)", "Cache-Control: max-age=3600\nAge: 1800",
      "Cache-Control: max-age=600",
      0, "validate", { reason = "request" } },
    { "if it stays fresh for min-fresh (5.2.1.3)", five, "Cache-Control: min-fresh=2", 3, "fresh" },
    { "not if it does not (5.2.1.3)", five, "Cache-Control: min-fresh=2", 3.001, "validate", { reason = "request" } },
    { "not if it came too old for min-fresh (5.2.1.3)", "Cache-Control: max-age=1500\nAge: 1000",
      "Cache-Control: min-fresh=1000", 0, "validate", { reason = "request" } },

    { "stale, if the request takes it so (5.2.1.2)", five, "Cache-Control: max-stale=2", 7, "stale" },
    { "not stale for longer (5.2.1.2)", five, "Cache-Control: max-stale=2", 7.001, "validate", { reason = "age" } },
    { "however stale, if the request takes it so (5.2.1.2)", five, "Cache-Control: max-stale", 99999, "stale" },
    { "stale from its arrival (5.2.1.2)", "Cache-Control: max-age=1500\nAge: 2000", "Cache-Control: max-stale=1000", 0,
      "stale" },
    { "not stale against must-revalidate (4.2.4)", five .. ", must-revalidate", "Cache-Control: max-stale", 6,
      "validate" },
    { "not stale against s-maxage (4.2.4)", "Cache-Control: s-maxage=5", "Cache-Control: max-stale", 6, "validate" },
    { "not stale against no-cache (4.2.4)", 'Cache-Control: max-age=5, no-cache\nETag: "x"', "Cache-Control: max-stale",
      6, "validate" },
    { "not stale and older than max-age (5.2.1.1)", five, "Cache-Control: max-stale=9, max-age=5", 6, "validate" },
    { "not while it is refreshed, if it is staler than the request takes it (5.2.1.2)", swr,
      "Cache-Control: max-stale=1", 8, "validate", { reason = "request" } },
    { "while it is refreshed, if the request takes it (5.2.1.2)", swr, "Cache-Control: max-stale=9", 8, "revalidate" },
    { "not while it is refreshed, if the request wants it fresh (5.2.1.3)", swr, "Cache-Control: min-fresh=0", 8,
      "validate", { reason = "request" } },

    { "not for a request that must not be stored (5.2.1.5)", five, "Cache-Control: no-store", 0, "bypass",
      { nothing = "bypass" } },
    { "for only-if-cached (5.2.1.7)", five, "Cache-Control: only-if-cached", 0, "fresh", { nothing = "timeout" } },
    { "for only-if-cached, or not at all (5.2.1.7)", five, "Cache-Control: only-if-cached", 5, "timeout" },
    { "for only-if-cached while it is refreshed (5.2.1.7)", swr, "Cache-Control: only-if-cached", 6, "revalidate" },
    { "for only-if-cached and no-store", five, "Cache-Control: only-if-cached, no-store", 0, "fresh" },
    { "for only-if-cached and no-cache: not at all", five, "Cache-Control: only-if-cached, no-cache", 0, "timeout" },

    { "by CDN-Cache-Control (RFC 9213 2.2)", "Cache-Control: max-age=1\nCDN-Cache-Control: max-age=9", "", 5, "fresh" },
  }
  for _, case in ipairs(cases) do
    it(case[1], function() reuse(case) end)
  end

  it("or is asked for when there is none", function()
    local _, more = rules.reuse(story(five), "", T)
    assert.equal("validate", more.nothing)
  end)
end)

it("which answers are errors (RFC 5861 4)", function()
  local found = {}
  for status = 100, 599 do if rules.is_error(status) then found[#found + 1] = status end end
  assert.same({ 500, 502, 503, 504 }, found)
end)

describe("the fields of a response (RFC 9111 3.1)", function()
  it("are stored", function()
    local text = head("Date: @0", "Cache-Control: max-age=9", "Set-Cookie: a=b", "Set-Cookie2: a=b",
      "Content-Type: x/y",
      "Content-Encoding: gzip", "Content-Range: x", "Content-Location: /foo", "Content-MD5: x", "Clear-Site-Data: x",
      'ETag: "x"', "Expires: 0", "Public-Key-Pins: x", "X-Frame-Options: deny", "Vary: a", "Proxy-Status: x",
      "WWW-Authenticate: x", "Warning: x", "Cache-Status: x") .. "\n"
    assert.equal(text, rules.stored(text))
  end)
  local never = {
    "Connection: close", "Keep-Alive: x", "Proxy-Authenticate: x", "Proxy-Authentication-Info: x",
    "Proxy-Authorization: x", "Proxy-Connection: x", "TE: x", "Transfer-Encoding: chunked", "Upgrade: x", "Trailer: x",
    "Age: 5", "Content-Length: 5",
  }
  for _, line in ipairs(never) do
    it("are left out: " .. line, function() assert.equal("A: 1\n", rules.stored("A: 1\n" .. line)) end)
  end
  it("are left out where Connection nominates them", function()
    assert.equal("C: 3\n", rules.stored("Connection: a, b\nA: 1\nb: 2\nC: 3"))
  end)
end)

describe("a stored head is updated (RFC 9111 3.2)", function()
  local cases = {
    { "with new fields", "A: 1\n", "B: 2", "A: 1\nB: 2\n" },
    { "by replacing fields", "A: 1\nB: 1\n", "a: 2", "B: 1\na: 2\n" },
    { "by replacing all lines by all lines", "A: 1\nA: 2\nB: 1", "A: 3\nA: 4\nA: 5", "B: 1\nA: 3\nA: 4\nA: 5\n" },
    { "in its freshness and validators", "Cache-Control: max-age=1\nETag: \"a\"",
      "Cache-Control: max-age=9\nETag: \"b\"",
      "Cache-Control: max-age=9\nETag: \"b\"\n" },
    { "in Content- fields that tell nothing of the bytes", "Content-Foo: 1\nX-Content-Foo: 1\nContent-Location: /a",
      "Content-Foo: 2\nX-Content-Foo: 2\nContent-Location: /b",
      "Content-Foo: 2\nX-Content-Foo: 2\nContent-Location: /b\n" },
    { "but not in what its bytes depend on", "Content-Encoding: gzip\nContent-Type: a/b\nContent-Range: x",
      "Content-Encoding: br\nContent-Type: c/d\nContent-Range: y\nContent-Length: 10",
      "Content-Encoding: gzip\nContent-Type: a/b\nContent-Range: x\n" },
    { "but not with hop-by-hop fields", "A: 1", "Connection: b\nB: 2\nTransfer-Encoding: x\nUpgrade: y\nA: 3",
      "A: 3\n" },
    { "but not with fields that are private", "A: 1", 'Cache-Control: private="b"\nB: 2',
      'A: 1\nCache-Control: private="b"\n' },
    { "without its old Age and Date", "Age: 100\nDate: x\nA: 1", "A: 2", "A: 2\n" },
    { "with the new Age and Date", "Age: 100\nDate: x", "Age: 2\nDate: y", "Age: 2\nDate: y\n" },
    { "with a cookie for all", "Set-Cookie: a=b", "Cache-Control: max-age=2\nSet-Cookie: a=c",
      "Cache-Control: max-age=2\nSet-Cookie: a=c\n" },
    { "but not with somebody's cookie", "A: 1", "Set-Cookie: a=c", "A: 1\n" },
  }
  for _, case in ipairs(cases) do
    it(case[1], function() assert.equal(case[4], rules.update(case[2], case[3])) end)
  end
end)

describe("a 304 is of a stored response (RFC 9111 4.3.4)", function()
  local cases = {
    { "with the same strong ETag", 'ETag: "a"', 'ETag: "a"', true },
    { "not with another", 'ETag: "a"', 'ETag: "b"', false },
    { "not with a strong one for a weak one", 'ETag: W/"a"', 'ETag: "a"', false },
    { "with the same weak ETag", 'ETag: W/"a"', 'ETag: W/"a"', true },
    { "with a weak one for a strong one", 'ETag: "a"', 'ETag: W/"a"', true },
    { "not with another weak one", 'ETag: W/"a"', 'ETag: W/"b"', false },
    { "with the same Last-Modified", head "Last-Modified: @-9", head "Last-Modified: @-9", true },
    { "not with another Last-Modified", head "Last-Modified: @-9", head "Last-Modified: @-8", false },
    { "with the same Last-Modified and no ETag", head("Last-Modified: @-9", 'ETag: "a"'), head "Last-Modified: @-9",
      true },
    { "not with another ETag, whatever Last-Modified says", head("Last-Modified: @-9", 'ETag: "a"'),
      head("Last-Modified: @-9", 'ETag: "b"'), false },
    { "not with an ETag where there is none", "", 'ETag: "a"', false },
    { "with a new ETag and the same strong Last-Modified", head("Last-Modified: @-9", "Date: @0"),
      head("Last-Modified: @-9", 'ETag: "a"'), true },
    { "not with a new ETag and the same weak Last-Modified", head("Last-Modified: @0", "Date: @0"),
      head("Last-Modified: @0", 'ETag: "a"'), false },
    { "not with a Last-Modified where there is none", 'ETag: "a"', head "Last-Modified: @-9", false },
  }
  for _, case in ipairs(cases) do
    it(case[1], function()
      assert.equal(case[4], rules.selects(case[2], case[3], false))
      assert.equal(case[4], rules.selects(case[2], case[3], true))
    end)
  end
  it("without any validator, if no other was asked about", function()
    assert.is_true(rules.selects('ETag: "a"', "A: 1", true))
    assert.is_false(rules.selects('ETag: "a"', "A: 1", false))
  end)
end)

describe("a HEAD response (RFC 9111 4.3.5)", function()
  local stored = head('ETag: "a"', "Last-Modified: @-9")
  local cases = {
    { "updates what it does not differ from", stored, 200, "A: 1", "updates" },
    { "updates what has its validators and length", stored, 200, stored .. "\nContent-Length: 10", "updates" },
    { "makes what has another ETag invalid", stored, 200, 'ETag: "b"', "invalidates" },
    { "makes what has another Last-Modified invalid", stored, 200, head "Last-Modified: @-8", "invalidates" },
    { "makes what has no ETag invalid", "", 200, 'ETag: "b"', "invalidates" },
    { "makes what has another length invalid", stored, 200, "Content-Length: 11", "invalidates" },
    { "makes it invalid if its length is bad", stored, 200, "Content-Length: 10, 10", "invalidates" },
    { "of another status does nothing", stored, 410, 'ETag: "b"', "leaves" },
    { "of an error does nothing", stored, 503, 'ETag: "b"', "leaves" },
    { "of a 304 does nothing", stored, 304, 'ETag: "b"', "leaves" },
  }
  for _, case in ipairs(cases) do
    it(case[1], function() assert.equal(case[5], rules.head(case[2], 10, case[3], case[4])) end)
  end
end)

describe("what is stored becomes invalid (RFC 9111 4.4)", function()
  it("by unsafe and unknown methods, unless they fail", function()
    for _, method in ipairs { "POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "get" } do
      for _, status in ipairs { 200, 201, 204, 299, 302, 399 } do assert.is_true(rules.invalidates(method, status)) end
      for _, status in ipairs { 100, 400, 404, 500, 503 } do assert.is_false(rules.invalidates(method, status)) end
    end
  end)
  it("not by safe ones", function()
    for _, method in ipairs { "GET", "HEAD", "OPTIONS", "TRACE" } do assert.is_false(rules.invalidates(method, 200)) end
  end)

  local cases = {
    { "/b", "http://x/b" },
    { "b", "http://x/dir/b" },
    { "../b?q#f", "http://x/b?q" },
    { "?q", "http://x/dir/a?q" },
    { "", "http://x/dir/a" },
    { "http://x/b", "http://x/b" },
    { "HTTP://X:80/%62", "http://x/b" },
    { "//x/b", "http://x/b" },
    { "http://y/b" },
    { "//y/b" },
    { "https://x/b" },
    { "http://x:81/b" },
    { "http://x.y/b" },
    { "http://x@y/b" },
    { "ftp://x/b" },
    { "mailto:a" },
    { "http://x/a b" },
    { "/%zz" },
    { "http://[::1" },
  }
  for _, case in ipairs(cases) do
    it(("by Location or Content-Location %q, of one origin only"):format(case[1]), function()
      local got = rules.invalidated("http://x/dir/a", case[1])
      assert.equal(case[2], got and got:gsub(":80/", "/", 1))
    end)
  end
  it("on other ports only by what is on that port", function()
    assert.equal("https://x:8443/b", rules.invalidated("https://x:8443/a", "/b"))
    assert.is_nil(rules.invalidated("https://x:8443/a", "https://x/b"))
    assert.equal("https://x/b", (rules.invalidated("https://x:443/a", "https://x/b"):gsub(":443", "")))
    assert.is_nil(rules.invalidated("http://x/a"))
  end)
end)
