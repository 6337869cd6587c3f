-- docs/api.md is what docs/make_api.lua makes of lua/types now.

describe("docs/api.md", function()
  it("is current", function()
    local pipe = assert(io.popen "lua5.4 docs/make_api.lua")
    local made = pipe:read "a"
    assert(pipe:close())
    local file <close> = assert(io.open "docs/api.md")
    local committed = file:read "a"
    assert(made == committed, "lua/types has changed: lua5.4 docs/make_api.lua > docs/api.md")
  end)
end)
