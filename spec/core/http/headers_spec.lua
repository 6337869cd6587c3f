-- Header lists: names, ids, repeated fields, lists, writing.

local core = require "moongate_core"
local headers = core.headers

local function with(list)
  local h = headers.new()
  for _, field in ipairs(list) do h:add(field[1], field[2], field.hop) end
  return h
end

describe("the names that have an id", function()
  it("are found in any case and in no other spelling", function()
    for _, name in ipairs(headers.known()) do
      assert.equal(name, (headers.id(name)))
      assert.equal(name, (headers.id(name:lower())))
      assert.equal(name, (headers.id(name:upper())))
      assert.is_nil((headers.id(name .. "x")))
      assert.is_nil((headers.id(name:sub(1, -2) .. "_")))
      for i = 1, #name do
        for _, c in ipairs { "\0", "\r", "M", "@", "`", "[", "{", " ", "\x80", "\xc1" } do
          local other = name:sub(1, i - 1) .. c .. name:sub(i + 1)
          if other:lower() ~= name:lower() then assert.is_nil((headers.id(other)), other) end
        end
      end
    end
    for _, name in ipairs { "", "X", "Accept", "Content", "X-Forwarded-Port",
      ("x"):rep(300) } do assert.is_nil((headers.id(name))) end
  end)

  it("include those that only the core may set", function()
    local core_names = {}
    for _, name in ipairs(headers.known()) do
      if select(2, headers.id(name)) then core_names[#core_names + 1] = name end
    end
    assert.same({ "Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "TE", "Trailer",
      "Transfer-Encoding", "Upgrade" }, core_names)
  end)
end)

describe("names and values", function()
  it("are valid as RFC 9110 has them", function()
    for byte = 0, 255 do
      local c = string.char(byte)
      local name, value = headers.valid("a" .. c)
      assert.equal(c:match "[%w!#$%%&'*+%-.^_`|~]" ~= nil, name, byte)
      assert.equal(byte == 9 or byte >= 32 and byte ~= 127, value, byte)
    end
    assert.same({ false, true }, { headers.valid "" })
    assert.is_true((headers.valid(("a"):rep(256))))
    assert.is_false((headers.valid(("a"):rep(257))))
  end)
end)

describe("a header list", function()
  it("keeps order, case and repeated fields", function()
    local h = with { { "B", "1" }, { "a", "2" }, { "b", "3" }, { "A", "" } }
    assert.equal("B: 1\r\na: 2\r\nb: 3\r\nA: \r\n", (h:write()))
    assert.same({ "1", "3" }, h:all "b")
    assert.same({ "2", "" }, h:all "A")
    assert.same({}, h:all "c")
  end)

  it("says how much it writes", function()
    local h = with { { "A", "b" }, { "C", "" }, { "D", "e", hop = true } }
    h:remove "C"
    local text, size = h:write()
    assert.equal("A: b\r\n", text)
    assert.equal(#text, size)
    assert.same({ "", 0 }, { headers.new():write() })
  end)

  it("sets the first and removes the others", function()
    local h = with { { "X", "1" }, { "Y", "2" }, { "x", "3" }, { "X", "4" } }
    h:set("x", "new")
    assert.equal("X: new\r\nY: 2\r\n", (h:write()))
    h:set("Z", "5")
    h:set("Host", "h")
    h:set("HOST", "i")
    assert.equal("X: new\r\nY: 2\r\nZ: 5\r\nHost: i\r\n", (h:write()))
  end)

  it("removes all of a name, known or not", function()
    local h = with { { "X", "1" }, { "Cookie", "a" }, { "x", "2" }, { "cookie", "b" }, { "Y", "3" } }
    h:remove "x"
    h:remove "COOKIE"
    h:remove "nothing"
    assert.equal("Y: 3\r\n", (h:write()))
    h:add("X", "again")
    assert.same({ "again" }, h:all "X")
  end)

  it("sends on what is set here although the peer had nominated it", function()
    local h = with { { "X-User", "admin", hop = true }, { "X-Role", "root", hop = true } }
    assert.equal("", (h:write()))
    h:set("x-user", "bob")
    assert.equal("X-User: bob\r\n", (h:write()))
  end)

  it("joins repeated fields, but for Set-Cookie, and cookies by their own rule", function()
    local h = with { { "A", "1" }, { "a", "2" }, { "A", "" }, { "Set-Cookie", "x" }, { "Set-Cookie", "y" },
      { "Cookie", "p=1" }, { "Cookie", "q=2" },
      { "One", "only" }, { "Via", "1.1 a" }, { "Via", "1.1 b" } }
    assert.equal("1, 2, ", h:joined "A")
    assert.equal("x", h:joined "set-cookie")
    assert.equal("p=1; q=2", h:joined "cookie")
    assert.equal("only", h:joined "one")
    assert.equal("1.1 a, 1.1 b", h:joined "via")
    assert.is_nil(h:joined "none")
  end)

  it("finds members of lists in any line and case, parameters aside", function()
    local h = with { { "Connection", "keep-alive, Upgrade" }, { "connection", " x ,,close;q=1" },
      { "TE", "trailers" } }
    for _, member in ipairs { "keep-alive", "upgrade", "CLOSE", "x" } do assert.is_true(h:has("Connection",
      member)) end
    for _, member in ipairs { "keep", "alive", "", "y", "trailers" } do assert.is_false(h:has("Connection",
      member)) end
    assert.is_true(h:has("TE", "Trailers"))
  end)

  it("copies without what was removed", function()
    local h = with { { "A", "1" }, { "B", "2" }, { "C", "3" } }
    h:remove "B"
    assert.equal("A: 1\r\nC: 3\r\n", h:copy())
    assert.equal("", headers.new():copy())
  end)

  it("does what a list of pairs does, at random", function()
    math.randomseed(21)
    local names = { "A", "a", "Host", "HOST", "X-Y", "x-y", "Cookie", "Via", "Zed" }
    for _ = 1, 200 do
      local h, model = headers.new(), {}
      for i = 1, 60 do
        local name, value, action = names[math.random(#names)], tostring(i), math.random(5)
        if action <= 3 then
          h:add(name, value)
          model[#model + 1] = { name, value }
        else
          local kept, first = {}, nil
          for _, field in ipairs(model) do
            if field[1]:lower() ~= name:lower() then kept[#kept + 1] = field
            elseif action == 4 and not first then
              first = true
              kept[#kept + 1] = { field[1], value }
            end
          end
          if action == 4 then
            h:set(name, value)
            if not first then kept[#kept + 1] = { name, value } end
          else
            h:remove(name)
          end
          model = kept
        end
        local lines = {}
        for j, field in ipairs(model) do lines[j] = field[1] .. ": " .. field[2] .. "\r\n" end
        assert.equal(table.concat(lines), (h:write()))
      end
    end
  end)
end)

describe("a list value", function()
  local cases = {
    { "", {} }, { "a", { "a" } }, { " a , b ,\tc ", { "a", "b", "c" } }, { ",,a,,b,,", { "a", "b" } }, { ", ,\t,",
    {} },
    { "\"a,b\", c", { "\"a,b\"", "c" } }, { "\"a\\\",b\",c", { "\"a\\\",b\"", "c" } }, { "a=\"x,y\";q=1, b",
    { "a=\"x,y\";q=1", "b" } },
    { "\"open, b", { "\"open, b" } }, { "a\"b\"c,d", { "a\"b\"c", "d" } }, { "\"x\\", { "\"x\\" } }, { "a\\,b",
    { "a\\", "b" } },
  }
  for _, case in ipairs(cases) do
    it(("%q has %d members"):format(case[1], #case[2]), function() assert.same(case[2], headers.list(case[1])) end)
  end
end)
