-- Methods, statuses, dates.

local http = require "moongate_core".http

describe("a method", function()
  it("is known, safe and idempotent as RFC 9110 says", function()
    local methods = { GET = "ksi", HEAD = "ksi", OPTIONS = "ksi", TRACE = "ksi", PUT = "ki", DELETE = "ki",
      POST = "k", PATCH = "k", CONNECT = "k",
      get = "", GETS = "", GE = "", PROPFIND = "", [""] = "" }
    for name, marks in pairs(methods) do
      local known, safe, idempotent = http.method(name)
      assert.equal(marks, (known and "k" or "") .. (safe and "s" or "") .. (idempotent and "i" or ""), name)
    end
  end)

  it("and a status decide whether there is a body", function()
    local function has_body(method, status) return (select(4, http.method(method, status))) end
    assert.is_true(has_body("GET", 200))
    assert.is_true(has_body("POST", 404))
    assert.is_false(has_body("HEAD", 200))
    for _, status in ipairs { 100, 101, 199, 204, 304 } do assert.is_false(has_body("GET", status)) end
  end)
end)

describe("a status", function()
  it("has its phrase, or none", function()
    assert.equal("OK", http.reason(200))
    assert.equal("Not Found", http.reason(404))
    assert.equal("Continue", http.reason(100))
    assert.equal("Network Authentication Required", http.reason(511))
    for _, status in ipairs { 0, 99, 199, 299, 418, 499, 599, 600, -1 } do assert.equal("", http.reason(status)) end
  end)

  it("of every failure has a phrase", function()
    for _, row in ipairs(require "moongate_core".base.failures()) do
      if row.status ~= 0 then assert.not_equal("", http.reason(row.status)) end
    end
  end)
end)

describe("a date", function()
  it("is written in the one form", function()
    assert.equal("Sun, 06 Nov 1994 08:49:37 GMT", http.date_write(784111777))
    assert.equal("Thu, 01 Jan 1970 00:00:00 GMT", http.date_write(0))
    assert.equal("Tue, 29 Feb 2000 23:59:59 GMT", http.date_write(951868799))
    assert.equal("Wed, 31 Dec 1969 23:59:59 GMT", http.date_write(-1))
    assert.equal("Fri, 31 Dec 9999 23:59:59 GMT", http.date_write(253402300799))
  end)

  it("is read in all three", function()
    for _, text in ipairs { "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
      "Sun Nov  6 08:49:37 1994" } do
      assert.equal(784111777, http.date_parse(text))
    end
    assert.equal(784975777, http.date_parse "Wed Nov 16 08:49:37 1994")
    assert.equal(0, http.date_parse "Fri, 01 Jan 1960 00:00:00 GMT")
    assert.equal(951782400, http.date_parse "Tue, 29 Feb 2000 00:00:00 GMT")
  end)

  it("of two digits is never more than 50 years ahead", function()
    local year = tonumber(os.date "!%Y")
    local function year_of(two) return tonumber(os.date("!%Y",
      http.date_parse(("Sunday, 01-Jul-%02d 00:00:00 GMT"):format(two)))) end
    for ahead = -20, 50 do
      if year + ahead >= 1970 then assert.equal(year + ahead, year_of((year + ahead) % 100)) end
    end
    assert.equal(0, http.date_parse(("Sunday, 01-Jul-%02d 00:00:00 GMT"):format((year + 51) % 100)) - http.date_parse(
      ("Wed, 01 Jul %d 00:00:00 GMT"):format(year + 51 - 100)))
  end)

  it("agrees with the system's calendar, both ways", function()
    math.randomseed(2)
    for _ = 1, 3000 do
      local when = math.random(0, 253402300799)
      local text = os.date("!%a, %d %b %Y %H:%M:%S GMT", when)
      assert.equal(text, http.date_write(when))
      assert.equal(when, http.date_parse(text))
    end
  end)

  for _, text in ipairs { "", "0", "784111777", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC",
    "Sun, 06 Nov 1994 08:49:37 +0000",
    "Sun, 6 Nov 1994 08:49:37 GMT", "Xun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Xov 1994 08:49:37 GMT",
    "sun, 06 nov 1994 08:49:37 gmt",
    "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 31 Nov 1994 08:49:37 GMT", "Thu, 29 Feb 2001 00:00:00 GMT",
    "Thu, 29 Feb 1900 00:00:00 GMT",
    "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT", "Sun, 06 Nov 1994 08:49:61 GMT",
    "Sun, 06 Nov 94 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 GMT ", " Sun, 06 Nov 1994 08:49:37 GMT", "Sun,06 Nov 1994 08:49:37 GMT",
    "Sun 06 Nov 1994 08:49:37 GMT",
    "Sun, 06-Nov-94 08:49:37 GMT", "Sunday, 06-Nov-1994 08:49:37 GMT", "Sun Nov 6 08:49:37 1994",
    "Sun Nov  6 08:49:37 94", "Sun, 06 Nov 1994 8:49:37 GMT",
    "Sun, +6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov -994 08:49:37 GMT", "Sun, 06 No", "Sun",
    "Sun, 06 Nov 1994 08:49:37 GMT\0" } do
    it(("is not %q"):format(text), function() assert.equal(-1, http.date_parse(text)) end)
  end

  it("of now is now", function()
    local now = http.date_parse(http.date_now())
    assert.is_true(math.abs(now - os.time()) <= 1)
    assert.equal(29, #http.date_now())
  end)
end)
