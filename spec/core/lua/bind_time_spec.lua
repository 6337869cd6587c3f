-- gate.time: dates of HTTP and ISO 8601 both ways, and strftime's way.
-- luacheck: no max line length (scripts and texts stand in one line)

local engine = require "core.lua.engine"

local function value(text) return engine.run("return " .. text) end

describe("gate.time", function()
  before_each(engine.before_each)
  after_each(engine.after_each)

  it("writes and reads dates of HTTP, the obsolete forms too (RFC 9110 5.6.7)", function()
    assert.equal("Sun, 06 Nov 1994 08:49:37 GMT", value "gate.time.http(784111777)")
    assert.equal("Sun, 06 Nov 1994 08:49:37 GMT", value "gate.time.http(784111777.9)")
    for _, text in ipairs { "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994" } do
      assert.equal("784111777", value(("gate.time.parse_http %q"):format(text)))
    end
    assert.equal("-1", value "gate.time.parse_http 'Wed, 31 Dec 1969 23:59:59 GMT'")
    assert.matches("^%a+, %d+ %a+ %d+ ", value "gate.time.http()")
  end)

  it("refuses what is no date", function()
    for _, text in ipairs { "", "yesterday", "Sun, 31 Feb 2026 00:00:00 GMT", "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:49:37" } do
      assert.matches("^nil|bad_time|", value(("gate.time.parse_http %q"):format(text)))
    end
  end)

  it("writes ISO 8601", function()
    assert.equal("1994-11-06T08:49:37Z", value "gate.time.iso(784111777)")
    assert.equal("1994-11-06T08:49:37.500Z", value "gate.time.iso(784111777.5, 3)")
    assert.equal("1969-12-31T23:59:59.25Z", value "gate.time.iso(-0.75, 2)")
    assert.equal("0000-01-01T00:00:00Z", value "gate.time.iso(-62167219200)")
    assert.equal("9999-12-31T23:59:59Z", value "gate.time.iso(253402300799)")
    assert.equal("2000-02-29T00:00:00Z", value "gate.time.iso(951782400)")
  end)

  it("reads RFC 3339, offsets and fractions included", function()
    for text, seconds in pairs {
      ["1985-04-12T23:20:50.52Z"] = "482196050.52", ["1996-12-19T16:39:57-08:00"] = "851042397",
      ["1990-12-31T23:59:60Z"] = "662688000", ["1990-12-31T15:59:60-08:00"] = "662688000",
      ["1937-01-01T12:00:27.87+00:20"] = "-1041337172.13", ["1994-11-06t08:49:37z"] = "784111777",
      ["1994-11-06 08:49:37Z"] = "784111777", ["19941106T084937Z"] = "784111777", ["19941106T094937+0100"] = "784111777",
      ["1994-11-06T09:49:37+01"] = "784111777", ["1994-11-06"] = "784080000", ["19941106"] = "784080000",
      ["1994-11-06T08:49:37,5Z"] = "784111777.5", ["1994-11-06T08:49:37.000Z"] = "784111777",
    } do
      assert.equal(seconds, value(("gate.time.parse_iso %q"):format(text)), text)
    end
  end)

  it("refuses times without a zone, and what does not exist", function()
    for _, text in ipairs {
      "", "1994", "1994-11", "1994-11-06T08:49:37", "1994-11-06T08:49Z", "1994-13-06T08:49:37Z", "1994-11-31", "1900-02-29", "1994-11-06T24:00:00Z",
      "1994-11-06T08:60:00Z", "1994-11-06T08:49:37.Z", "1994-11-06T08:49:37+24:00", "1994-11-06T08:49:37+1", "1994-11-06T08:49:37Z ", "94-11-06", "1994-1106",
      "1994-11-06T084937Z", "-1994-11-06", "1994-11-06T08:49:37+01:60", "1994-11-06Tx",
    } do
      assert.matches("^nil|bad_time|", value(("gate.time.parse_iso %q"):format(text)))
    end
  end)

  it("formats strftime's way, in English and UTC", function()
    assert.equal("Sunday Sun November Nov 06  6 310 94 1994 08 08 AM 49 37 7 0 784111777 1994-11-06 08:49:37 UTC +0000 %",
      value "gate.time.format('%A %a %B %b %d %e %j %y %Y %H %I %p %M %S %u %w %s %F %T %Z %z %%', 784111777)")
    assert.equal("12 PM 500000", value "gate.time.format('%I %p %f', 43200.5)")
    assert.matches("raised: .*no conversion at byte 3", value "gate.time.format('a %Q')")
    assert.matches("raised: .*no conversion at byte 1", value "gate.time.format('%')")
    assert.matches("raised: .*longer than 256", value "gate.time.format(('x'):rep(257))")
  end)

  it("raises for times out of the calendar", function()
    for _, when in ipairs { "0/0", "1/0", "-62167219201", "253402300800", "'1'" } do
      assert.matches("^raised: ", value(("gate.time.iso(%s)"):format(when)))
    end
    assert.matches("^raised: .*0 to 9", value "gate.time.iso(0, 10)")
  end)
end)
