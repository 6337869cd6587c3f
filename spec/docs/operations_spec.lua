-- docs/operations.md against the code: the failure table, the metrics, the fields of the access log.

local uv = require "luv"

local read_file = require("support.process").read_file

local manual = read_file "docs/operations.md"

local function assert_in_manual(text)
  assert(manual:find(text, 1, true), "docs/operations.md has no " .. text)
end

describe("docs/operations.md", function()
  it("has every failure with its word, status and sentence", function()
    local count = 0
    for name, status, word, sentence in read_file("core/base/failure.h")
      :gmatch 'FAILURE%(([%u_]+), (%d+), RETRY_%u+, "([%l_]+)",[%s\\]*"([^"]+)"%)' do
      if name ~= "NONE" then
        local row = ("| `%s` | %s | %s |"):format(word, status == "0" and "-" or status, sentence)
        local _, times = manual:gsub((row:gsub("%p", "%%%0")), "")
        assert.equal(1, times, row)
        count = count + 1
      end
    end
    assert.is_true(count > 30)
  end)

  it("has every metric with its help", function()
    local count = 0
    for _, folder in ipairs { "net", "store", "backend", "proxy", "lua", "server" } do
      for name in uv.fs_scandir_next, assert(uv.fs_scandir("core/" .. folder)) do
        local source = name:find "%.c$" and read_file(("core/%s/%s"):format(folder, name)) or ""
        for family, help in source:gmatch '"(moongate_[%l_]+)",%s*"([^"]+)"' do
          assert_in_manual("| `" .. family .. "` |")
          assert_in_manual("| " .. help .. " |")
          count = count + 1
        end
        for family, help in source:gmatch '# HELP (moongate_[%l_]+) ([^\\]+)\\n' do
          assert_in_manual("| `" .. family .. "` |")
          assert_in_manual("| " .. help .. " |")
        end
      end
    end
    assert.is_true(count > 15)
  end)

  it("has every field of the JSON access log", function()
    local source = read_file "core/proxy/access_log.c"
    local count = 0
    for name in source:gmatch 'put_[js]%l+%(b, "([%l_]+)", ' do
      assert_in_manual("`" .. name .. "`")
      count = count + 1
    end
    assert.is_true(count > 10)
  end)
end)
