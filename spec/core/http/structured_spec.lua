-- Structured fields (RFC 8941): what is read, and that anything else is refused whole.

local parts = require("moongate_core").parts

local yes = { "boolean", true }

describe("an item (RFC 8941 3.3)", function()
  local good = {
    { "0", { "integer", 0 } },
    { "-0", { "integer", 0 } },
    { "42", { "integer", 42 } },
    { "-42", { "integer", -42 } },
    { "007", { "integer", 7 } },
    { "999999999999999", { "integer", 999999999999999 } },
    { "-999999999999999", { "integer", -999999999999999 } },
    { "1.5", { "decimal", 1500 } },
    { "-1.005", { "decimal", -1005 } },
    { "0.25", { "decimal", 250 } },
    { "999999999999.999", { "decimal", 999999999999999 } },
    { '""', { "string", "" } },
    { '"a b"', { "string", "a b" } },
    { [["a\"b\\"]], { "string", [[a\"b\\]] } },
    { "abc", { "token", "abc" } },
    { "*", { "token", "*" } },
    { "a/b:c", { "token", "a/b:c" } },
    { "A!#$%&'*+-.^_`|~1", { "token", "A!#$%&'*+-.^_`|~1" } },
    { ":aGVsbG8=:", { "bytes", "aGVsbG8=" } },
    { "::", { "bytes", "" } },
    { "?1", yes },
    { "?0", { "boolean", false } },
    { "  1  ", { "integer", 1 } },
    { "1;a", { "integer", 1, a = yes } },
    { "1;a=2;b=\"c\";  d=?0", { "integer", 1, a = { "integer", 2 }, b = { "string", "c" }, d = { "boolean", false } } },
    { "1;a=1;a=2", { "integer", 1, a = { "integer", 2 } } },
    { "1;*x-y_z.0*=t", { "integer", 1, ["*x-y_z.0*"] = { "token", "t" } } },
  }
  for _, case in ipairs(good) do
    it("is read: " .. case[1], function() assert.same(case[2], parts.item(case[1])) end)
  end

  local bad = {
    "", " ", "1 2", "1,2", "-", "--1", "+1", "1000000000000000", "-1000000000000000", "1.", ".5", "1.1234",
    "1000000000000.1", "1e3", "0x1", '"', '"a', [["a\b"]], [["\]], '"a\tb"', '"\127"', '"\228"', "'a'", ":a", ":a b:",
    ":a-b:", "?", "?2", "?true", "&", "a b", "@1", "(1)", "\t1", "1;", "1;A=1", "1;a=", "1;a=(1)", "1 ;a", "1;a =1",
    "1;a= 1", "1;1=a", "1;a,", "\0", "a\0", "1\0",
  }
  for _, text in ipairs(bad) do
    it(("is refused: %q"):format(text), function() assert.is_nil(parts.item(text)) end)
  end
end)

describe("a list (RFC 8941 3.1)", function()
  local good = {
    { "", {} },
    { "  ", {} },
    { "a", { { "token", "a" } } },
    { "a,b", { { "token", "a" }, { "token", "b" } } },
    { "a \t,\t b", { { "token", "a" }, { "token", "b" } } },
    { "()", { { "inner", {} } } },
    { "( a  b;x )", { { "inner", { { "token", "a" }, { "token", "b", x = yes } } } } },
    { '("a" 1);q=1.0, c', { { "inner", { { "string", "a" }, { "integer", 1 } }, q = { "decimal", 1000 } },
      { "token", "c" } } },
  }
  for _, case in ipairs(good) do
    it(("is read: %q"):format(case[1]), function() assert.same(case[2], parts.list(case[1])) end)
  end
  for _, text in ipairs { ",", "a,", "a,,b", ",a", "a b", "(", ")", "(a", "(a,b)", "(a\tb)", "((a))", '("a""b")',
    "(a);",
    "a, &" } do
    it(("is refused: %q"):format(text), function() assert.is_nil(parts.list(text)) end)
  end
end)

describe("a dictionary (RFC 8941 3.2)", function()
  local good = {
    { "", {} },
    { "a", { a = yes } },
    { "a=1, b", { a = { "integer", 1 }, b = yes } },
    { "a;x=1", { a = { "boolean", true, x = { "integer", 1 } } } },
    { "a=?0;x", { a = { "boolean", false, x = yes } } },
    { "a=(1 2);x", { a = { "inner", { { "integer", 1 }, { "integer", 2 } }, x = yes } } },
    { "a=1,b=2,a=3", { a = { "integer", 3 }, b = { "integer", 2 } } },
    { "*a=b", { ["*a"] = { "token", "b" } } },
  }
  for _, case in ipairs(good) do
    it(("is read: %q"):format(case[1]), function() assert.same(case[2], parts.dictionary(case[1])) end)
  end
  for _, text in ipairs { ",", "a=1,", "A=1", "a =1", "a= 1", "a=", "1=a", '"a"=1', "a=1 b=2", "a=1;;", "a=1,&&&&&",
    "-a=1", "a==1", "a=1\0" } do
    it(("is refused: %q"):format(text), function() assert.is_nil(parts.dictionary(text)) end)
  end
end)

describe("a word to be written", function()
  it("is a token or a string (RFC 8941 4.1.6, 4.1.7)", function()
    local cases = {
      { "moongate", true, '"moongate"' },
      { "*a:b/c", true, '"*a:b/c"' },
      { "1a", false, '"1a"' },
      { "", false, '""' },
      { "a b", false, '"a b"' },
      { [[a"b\]], false, [["a\"b\\"]] },
      { "\n", false },
      { "\228", false },
    }
    for _, case in ipairs(cases) do
      local token, text = parts.word(case[1])
      assert.equal(case[2], token)
      assert.equal(case[3], text)
    end
  end)
end)
