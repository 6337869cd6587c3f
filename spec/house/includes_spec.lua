-- The layers of core/: which folder may include which, held against every #include. Add a folder here, and in
-- core/README.md, before its first file.

local uv = require "luv"

-- Lowest first, each with all it may include.
local layers = {
  base    = "base",
  net     = "base net",
  http    = "base http",
  store   = "base http store",
  backend = "base net http store backend",
  proxy   = "base net http store backend proxy",
  lua     = "base net http store backend proxy lua",
  server  = "base net http store backend proxy lua server",
  kit     = "base net http store backend proxy lua server kit",
}

-- Libraries (or folders of them) that only some files may know, as patterns of their paths.
local libraries = {
  ["lua.h"]         = { "^core/lua/", "^core/kit/" },
  ["lauxlib.h"]     = { "^core/lua/", "^core/kit/" },
  ["lualib.h"]      = { "^core/lua/", "^core/kit/" },
  ["openssl/*"]     = { "^core/net/tls[%w_]*%.[ch]$", "^core/lua/crypto[%w_]*%.[ch]$",
                        "^core/lua/bind_crypto[%w_]*%.c$" },
  ["pcre2.h"]       = { "^core/lua/re_inside%.h$", "^core/server/trace_filter%.c$" },
  ["maxminddb.h"]   = { "^core/store/mmdb%.c$" },
  ["zlib.h"]        = { "^core/http/coding%.c$" },
  ["zstd.h"]        = { "^core/http/coding%.c$" },
  ["encode.h"]      = { "^core/http/coding%.c$" },
  ["decode.h"]      = { "^core/http/coding%.c$" },
  ["http_parser.h"] = { "^core/http/h1[%w_]*%.c$" },
  ["nghttp2/*"]     = { "^core/http/h2%.c$" },
}

-- What families of files share, and how the names of those begin that may include it.
local families = {
  ["kit/kit_inside.h"]           = { "kit" },
  ["lua/body_inside.h"]          = { "bind_body" },
  ["lua/inspect_inside.h"]       = { "inspect" },
  ["lua/jwt_inside.h"]           = { "bind_jwt" },
  ["lua/re_inside.h"]            = { "bind_re", "regex" },
  ["server/supervisor_inside.h"] = { "supervisor", "serving", "upgrade" },
  ["store/cache_inside.h"]       = { "cache", "disk" },
  ["store/disk_inside.h"]        = { "disk" },
  ["store/metrics_inside.h"]     = { "metrics" },
  ["store/shared_inside.h"]      = { "shared" },
}

-- Every file under a folder of core/.
local function files_of(folder)
  local files = {}
  for name, kind in uv.fs_scandir_next, assert(uv.fs_scandir(folder)) do
    local path = folder .. "/" .. name
    if kind == "directory" then table.move(files_of(path), 1, 1000, #files + 1, files)
    elseif name:find "%.[ch]$" then files[#files + 1] = path end
  end
  table.sort(files)
  return files
end

-- `visit(path, line, opening, name)` for every #include of core/.
local function each_include(visit)
  for _, path in ipairs(files_of "core") do
    local number = 0
    for line in io.lines(path) do
      number = number + 1
      local opening, name = line:match '^%s*#%s*include%s*(["<])([^">]+)'
      if name then visit(path, ("%s:%d"):format(path, number), opening, name) end
    end
  end
end

local function assert_none(breaches)
  assert(#breaches == 0, "\n" .. table.concat(breaches, "\n"))
end

describe("the house", function()
  it("has no folder outside the layer table, and none below another", function()
    local breaches = {}
    for _, path in ipairs(files_of "core") do
      local folder = path:match "^core/([^/]+)/[^/]+$"
      if not layers[folder] then breaches[#breaches + 1] = path end
    end
    assert_none(breaches)
  end)

  it("includes only its own row and what is lower", function()
    local breaches = {}
    each_include(function(path, where, opening, name)
      if opening ~= '"' or name == "build_info.h" then return end
      local from, to = path:match "^core/([^/]+)/", name:match "^([^/]+)/"
      if not to then
        breaches[#breaches + 1] = ('%s: "%s" is not written "folder/file.h"'):format(where, name)
      elseif not (" " .. (layers[from] or "") .. " "):find(" " .. to .. " ", 1, true) then
        breaches[#breaches + 1] = ("%s: %s may not include %s"):format(where, from, name)
      elseif not uv.fs_stat("core/" .. name) then
        breaches[#breaches + 1] = ("%s: there is no core/%s"):format(where, name)
      end
    end)
    assert_none(breaches)
  end)

  it("keeps libraries where they belong", function()
    local breaches = {}
    each_include(function(path, where, _, name)
      local allowed = libraries[name:match "[^/]+$"] or libraries[(name:match "^[^/]+/" or "") .. "*"]
      for _, pattern in ipairs(allowed or {}) do
        if path:find(pattern) then return end
      end
      if allowed then breaches[#breaches + 1] = ("%s: %s has no business here"):format(where, name) end
    end)
    assert_none(breaches)
  end)

  it("keeps what a family of files shares within it", function()
    local breaches = {}
    each_include(function(path, where, _, name)
      if not name:find "_inside%.h$" then return end
      local folder = "core/" .. name:match "^[^/]+" .. "/"
      for _, family in ipairs(families[name] or {}) do
        local beginning = folder .. family
        if path:find(beginning, 1, true) == 1 and path:find("^[_.]", #beginning + 1) then return end
      end
      breaches[#breaches + 1] = ("%s: %s is not of this family"):format(where, name)
    end)
    assert_none(breaches)
  end)

  it("includes build_info.h where a version is told only", function()
    local tellers = { ["core/server/version.c"] = true, ["core/lua/bind_clock.c"] = true }
    local breaches = {}
    each_include(function(path, where, _, name)
      if name == "build_info.h" and not tellers[path] then breaches[#breaches + 1] = where end
    end)
    assert_none(breaches)
  end)
end)
