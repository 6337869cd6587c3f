-- The links of the READMEs and the manual lead somewhere, and the functions the README names are where it says.

local uv = require "luv"

local read_file = require("support.process").read_file

local pages = { "README.md", "CONTRIBUTING.md", "core/README.md", "bench/README.md", "spec/support/README.md" }
for name in uv.fs_scandir_next, uv.fs_scandir "docs" do
  if name:find "%.md$" then pages[#pages + 1] = "docs/" .. name end
end

-- The anchors of a page, as they are made of its headings.
local function anchors_of(text)
  local anchors = {}
  for heading in ("\n" .. text):gmatch "\n#+ ([^\n]+)" do
    anchors[heading:lower():gsub("[^%w%s_-]", ""):gsub("%s", "-")] = true
  end
  return anchors
end

describe("the manual", function()
  for _, page in ipairs(pages) do
    it("links to what there is: " .. page, function()
      local folder = page:match "^(.*/)" or ""
      for link in read_file(page):gmatch "%]%(([^)%s]+)%)" do
        local path, anchor = link:match "^([^#]*)#?(.*)$"
        if not link:find "^https?:" then
          local file = path == "" and page or folder .. path
          assert(uv.fs_stat(file), ("%s links to %s"):format(page, link))
          if anchor ~= "" then assert(anchors_of(read_file(file))[anchor], ("%s links to %s"):format(page, link)) end
        end
      end
    end)
  end

  it("names steps that are in exchange.c and fetch.c", function()
    local exchange, fetch = read_file "core/proxy/exchange.c", read_file "core/proxy/fetch.c"
    local text = read_file "README.md"
    for name in text:match("3%. .-\n4%. "):gmatch "`([%l_]+)`" do
      assert(exchange:find("%s" .. name .. "%("), "exchange.c has no " .. name)
    end
    for name in text:match("5%. .-\n6%. "):gmatch "`([%l_]+)`" do
      assert(fetch:find("%s" .. name .. "%("), "fetch.c has no " .. name)
    end
  end)
end)
