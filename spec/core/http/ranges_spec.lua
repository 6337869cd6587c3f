-- Byte ranges, Content-Range, multipart/byteranges, and the parts of a body that are there.

local core = require "moongate_core"
local parts, date_write = core.parts, core.http.date_write

local T = 1700000000

local function head(text) return (text:gsub("@(%-?%d+)", function(n) return date_write(T + tonumber(n)) end)) end

describe("Range (RFC 9110 14.1.2) of 11 bytes", function()
  local cases = {
    { "bytes=0-1", { 0, 1 } },
    { "bytes=0-0", { 0, 0 } },
    { "bytes=10-10", { 10, 10 } },
    { "bytes=1-", { 1, 10 } },
    { "bytes=-1", { 10, 10 } },
    { "bytes=-5", { 6, 10 } },
    { "bytes=-11", { 0, 10 } },
    { "bytes=-99", { 0, 10 } },
    { "bytes=-99999999999999999999999", { 0, 10 } },
    { "bytes=5-99", { 5, 10 } },
    { "bytes=5-99999999999999999999999", { 5, 10 } },
    { "bytes=0-18446744073709551615", { 0, 10 } },
    { "BYTES=0-1", { 0, 1 } },
    { "bytes=00-01", { 0, 1 } },
    { "bytes= 0-1", { 0, 1 } },
    { "bytes=,0-1,,", { 0, 1 } },
    { "bytes=0-1,3-4", { 0, 1 }, { 3, 4 } },
    { "bytes=0-1 ,\t 3-4, -2", { 0, 1 }, { 3, 4 }, { 9, 10 } },
    { "bytes=3-4,0-1", { 3, 4 }, { 0, 1 } },
    { "bytes=0-1,1-2", { 0, 1 }, { 1, 2 } },
    { "bytes=0-1,99-", { 0, 1 } },
    { "bytes=99-,0-1,-0", { 0, 1 } },
  }
  for _, case in ipairs(cases) do
    it("is satisfied: " .. case[1], function()
      local result, list = parts.ranges("Range: " .. case[1], 11)
      assert.equal("some", result)
      assert.same({ table.unpack(case, 2) }, list)
    end)
  end

  for _, text in ipairs { "bytes=11-", "bytes=99-100", "bytes=99999999999999999999999-", "bytes=-0",
    "bytes=11-,12-,-0" } do
    it("is not satisfied: " .. text, function()
      assert.equal("unsatisfiable", (parts.ranges("Range: " .. text, 11)))
    end)
  end

  local ignored = {
    "", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=1", "bytes=a-b", "bytes=1-0", "bytes=0-1x", "bytes=0-1,x",
    "bytes=0-1,3-2", "bytes=--1", "bytes=0--1", "bytes=0- 1", "bytes=0 -1", "bytes =0-1", "bytes:0-1", "lines=0-1",
    "bytes=0x0-1", "bytes=+0-1", "bytes=0-1;x", "bytes=0-1 3-4", '"bytes=0-1"', "bytes=\"0-1\"", "0-1", "bytes=1-2-3",
    -- greedy (14.2, 17.15)
    "bytes=0-,0-", "bytes=0-9,5-9", "bytes=0-1,0-1,0-1", "bytes=0-1,1-2,2-3", "bytes=-11,0-0",
    "bytes=" .. ("0-0,"):rep(17), "bytes=" .. ("99-,"):rep(17), "bytes=0-0" .. (","):rep(9) .. ("1-1,"):rep(16),
  }
  for _, text in ipairs(ignored) do
    it("is ignored: " .. text:sub(1, 40), function() assert.equal("none", (parts.ranges("Range: " .. text, 11))) end)
  end
  it("is ignored in two lines", function()
    assert.equal("none", (parts.ranges("Range: bytes=0-1\nRange: bytes=0-1", 11)))
  end)
  it("is ignored when absent", function() assert.equal("none", (parts.ranges("", 11))) end)

  it("takes 16 ranges", function()
    local text = "bytes="
    for i = 0, 30, 2 do text = text .. i .. "-" .. i .. "," end
    local result, list = parts.ranges("Range: " .. text, 31)
    assert.same({ "some", 16 }, { result, #list })
  end)
end)

it("Range of an empty body (RFC 9110 14.1.2)", function()
  for text, expected in pairs { ["bytes=0-"] = "unsatisfiable", ["bytes=0-0"] = "unsatisfiable", ["bytes=-0"] =
    "unsatisfiable", ["bytes=-5"] = "none", ["bytes=0-,-5"] = "none" } do
    assert.equal(expected, (parts.ranges("Range: " .. text, 0)))
  end
end)

it("Range of a body whose length is not known", function()
  local cases = {
    { "bytes=5-", "from", 5, -1 }, { "bytes=5-9", "from", 5, 9 }, { "bytes=-5", "suffix", 0, 5 },
    { "bytes=0-1,3-4", "many" }, { "bytes=x", "none" }, { "", "none" },
  }
  for _, case in ipairs(cases) do
    local form, first, last = parts.form("Range: " .. case[1])
    assert.equal(case[2], form)
    if case[3] then assert.same({ case[3], case[4] }, { first, last }) end
  end
end)

describe("Content-Range (RFC 9110 14.4)", function()
  it("is written", function()
    assert.equal("bytes 0-4/10", parts.content_range({ 0, 4 }, 10))
    assert.equal("bytes 0-4/*", parts.content_range({ 0, 4 }, nil))
    assert.equal("bytes 9223372036854775806-9223372036854775806/9223372036854775807",
      parts.content_range({ math.maxinteger - 1, math.maxinteger - 1 }, math.maxinteger))
    assert.equal("bytes */10", parts.content_range(nil, 10))
    assert.equal("bytes */0", parts.content_range(nil, 0))
  end)
  local good = {
    { "bytes 0-4/10", { 0, 4 }, 10 }, { "bytes 9-9/10", { 9, 9 }, 10 }, { "Bytes 0-4/*", { 0, 4 } },
    { "bytes 00-04/010", { 0, 4 }, 10 },
  }
  for _, case in ipairs(good) do
    it("is read: " .. case[1], function()
      local range, length = parts.read_content_range("Content-Range: " .. case[1])
      assert.same({ case[2], case[3] }, { range, length })
    end)
  end
  local bad = {
    "", "bytes", "bytes 0-4", "bytes 0-4/", "bytes 4-0/10", "bytes 0-10/10", "bytes */10", "bytes */*", "bytes=0-4/10",
    "lines 0-4/10", "bytes  0-4/10", "bytes 0 -4/10", "bytes 0-4 /10", "bytes 0-4/10x", "bytes 0-4/-10", "bytes -4/10",
    "bytes 0-/10", "bytes a-b/c", "bytes 0-99999999999999999999/*", "bytes 0-18446744073709551615/*", "bytes 0-4/10, x",
  }
  for _, text in ipairs(bad) do
    it("is none: " .. text, function() assert.is_nil((parts.read_content_range("Content-Range: " .. text))) end)
  end
  it("is none in two lines", function()
    assert.is_nil((parts.read_content_range "Content-Range: bytes 0-4/10\nContent-Range: bytes 0-4/10"))
  end)
end)

describe("multipart/byteranges (RFC 9110 14.6)", function()
  it("is written, as long as was announced", function()
    local type, message, size = parts.multipart({ boundary = "B", type = "text/plain", length = 11 }, { { 0, 1 }, { 9,
      10 } },
      "0123456789A")
    assert.equal("multipart/byteranges; boundary=B", type)
    assert.equal("\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/11\r\n\r\n01"
      .. "\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 9-10/11\r\n\r\n9A\r\n--B--\r\n", message)
    assert.equal(#message, size)
  end)
  it("is written without a type", function()
    local _, message, size = parts.multipart({ boundary = "BB", length = 3 }, { { 0, 0 } }, "abc")
    assert.equal("\r\n--BB\r\nContent-Range: bytes 0-0/3\r\n\r\na\r\n--BB--\r\n", message)
    assert.equal(#message, size)
  end)
end)

describe("extents (RFC 9111 3.4)", function()
  local cases = {
    { "none", {}, {}, { 0, 9 } },
    { "one", { { 3, 5 } }, { { 3, 5 } }, { 0, 2 } },
    { "apart", { { 6, 7 }, { 0, 1 } }, { { 0, 1 }, { 6, 7 } }, { 2, 5 } },
    { "that touch", { { 0, 1 }, { 2, 3 } }, { { 0, 3 } }, { 4, 9 } },
    { "that touch, backwards", { { 2, 3 }, { 0, 1 } }, { { 0, 3 } }, { 4, 9 } },
    { "that overlap", { { 0, 5 }, { 3, 8 } }, { { 0, 8 } }, { 9, 9 } },
    { "one within another", { { 0, 8 }, { 3, 4 } }, { { 0, 8 } }, { 9, 9 } },
    { "one round others", { { 1, 2 }, { 4, 5 }, { 0, 9 } }, { { 0, 9 } }, nil, true },
    { "one that fills a gap", { { 0, 2 }, { 6, 9 }, { 3, 5 } }, { { 0, 9 } }, nil, true },
    { "one that joins two of four", { { 0, 0 }, { 2, 2 }, { 5, 5 }, { 8, 8 }, { 3, 4 } }, { { 0, 0 }, { 2, 5 }, { 8,
      8 } },
      { 1, 1 } },
    { "the same twice", { { 3, 5 }, { 3, 5 } }, { { 3, 5 } }, { 0, 2 } },
    { "beyond what is wanted", { { 0, 99 } }, { { 0, 99 } }, nil, true },
  }
  for _, case in ipairs(cases) do
    it(case[1], function()
      local list, added, missing, complete = parts.extents(case[2], { 0, 9 }, 10)
      assert.same({ case[3], true, case[4], case[5] or false }, { list, added, missing, complete })
    end)
  end
  it("tell what is missing of a part", function()
    local have = { { 0, 3 }, { 6, 7 } }
    for _, case in ipairs { { 0, 3 }, { 1, 2 }, { 6, 6 }, { 2, 5, 4, 5 }, { 3, 8, 4, 5 }, { 5, 6, 5, 5 }, { 7, 9, 8,
      9 },
      { 8, 9, 8, 9 } } do
      local _, _, missing = parts.extents(have, { case[1], case[2] }, 10)
      assert.same(case[3] and { case[3], case[4] } or nil, missing)
    end
  end)
  it("of an empty body are complete", function() assert.is_true((select(4, parts.extents({}, { 0, 0 }, 0)))) end)
  it("have an end", function()
    local many = {}
    for i = 1, 65 do many[i] = { 2 * i, 2 * i } end
    local list, added = parts.extents(many, { 0, 0 }, 1)
    assert.same({ 64, false }, { #list, added })
    many[65] = { 3, 3 }
    list, added = parts.extents(many, { 0, 0 }, 1)
    assert.same({ 63, true }, { #list, added })
  end)
  it("are the same as a set, however they come", function()
    local seed = 1
    local function random(n)
      seed = (seed * 1103515245 + 12345) % 2147483648
      return seed // 65536 % n
    end
    for _ = 1, 300 do
      local set, given = {}, {}
      for i = 1, 1 + random(8) do
        local first = random(30)
        given[i] = { first, first + random(6) }
        for at = given[i][1], given[i][2] do set[at] = true end
      end
      local expected = {}
      for at = 0, 40 do
        if set[at] and not set[at - 1] then expected[#expected + 1] = { at, at } end
        if set[at] then expected[#expected][2] = at end
      end
      assert.same(expected, (parts.extents(given, { 0, 0 }, 1)))
    end
  end)
end)

describe("parts are combined (RFC 9111 3.4, RFC 9110 15.3.7.3)", function()
  local cases = {
    { "with the same strong ETag", 'ETag: "a"', 'ETag: "a"', true },
    { "not with another", 'ETag: "a"', 'ETag: "b"', false },
    { "not with a weak one", 'ETag: W/"a"', 'ETag: W/"a"', false },
    { "not with one in one only", 'ETag: "a"\nLast-Modified: @-9\nDate: @0', "Last-Modified: @-9\nDate: @0", false },
    { "with the same strong Last-Modified", "Last-Modified: @-9\nDate: @0", "Last-Modified: @-9\nDate: @5", true },
    { "not with another", "Last-Modified: @-9\nDate: @0", "Last-Modified: @-8\nDate: @5", false },
    { "not with a weak one", "Last-Modified: @0\nDate: @0", "Last-Modified: @0\nDate: @5", false },
    { "not without validators", "", "", false },
  }
  for _, case in ipairs(cases) do
    it(case[1], function() assert.equal(case[4], parts.combines(head(case[2]), head(case[3]))) end)
  end
end)
