-- The code of the guide, of the pages for those who come from elsewhere, and of the README is tried: every config and
-- part is loaded in the kit and answers requests while what it asks is well, and while it fails; every spec passes;
-- every command prints what the page says.

local support = require "support"
local it, moongate, process = support.it, support.moongate, support.process
local mmdb = require "support.mmdb"
local page = require "docs.page"
local testing = require "moongate.testing"

local pages = {
  "README.md", "docs/guide.md", "docs/from-openresty.md", "docs/from-haproxy.md", "docs/from-vcl.md",
}

-- What parts name beside the config.
local function write_fixtures(dir)
  process.write_file(dir .. "/moved.csv", "/old,/new\n/older,/new\n")
  process.write_file(dir .. "/hosts.map", "shop.example app\nbeta.example canary\n")
  mmdb.write(dir .. "/GeoLite2-Country.mmdb", { ["127.0.0.0/8"] = { country = { iso_code = "XX" } } })
end

local function write(dir, name, text)
  local folder = name:match "^(.*)/"
  if folder then process.run { "mkdir", "-p", dir .. "/" .. folder } end
  process.write_file(dir .. "/" .. name, text)
end

-- A folder with the files of a block's chapter, and the config that the block is or belongs to.
local function lay_out(blocks, block)
  local dir = support.temp_dir()
  write_fixtures(dir)
  for _, other in ipairs(blocks) do
    if other.name and other.chapter == block.chapter then write(dir, other.name, other.text) end
  end
  local name, text = page.file_of(block)
  if name then write(dir, name, text) end
  return dir, name and dir .. "/" .. name
end

-- Names that are set or read as globals.
local allowed = { gate = false, require = true }
for name in pairs(_G) do if type(name) == "string" then allowed[name] = true end end
for name in ("describe it before_each after_each listen backends hosts use log admin on_request cache_key pick_backend "
  .. "on_store on_response on_error on_log"):gmatch "%S+" do allowed[name] = true end

local function unknown_globals(path)
  local pipe <close> = assert(io.popen("luac5.4 -l -p " .. path))
  local found = {}
  for line in pipe:lines() do
    local name = line:match '_ENV "([%w_]+)"'
    if name and not allowed[name] then found[#found + 1] = name end
  end
  return table.concat(found, ", ")
end

local requests = {
  { method = "GET" },
  { method = "GET", headers = { Host = "www.example.com", Range = "bytes=0-1", ["X-Forwarded-For"] = "192.0.2.1" } },
  { method = "POST", body = '{"item":"moon","user":"ada"}', headers = {
    Authorization = "Bearer eyJhbGciOiJFUzI1NiJ9.e30.c2lnbmVk", Cookie = "sid=s1; user=ada; lang=en",
    ["X-Api-Key"] = "k", ["Content-Type"] = "application/json",
  } },
  { method = "PURGE", headers = { ["User-Agent"] = "bot/1.0" } },
}

local well = { status = 200, body = '{"user":"ada"}', headers = { ["Content-Type"] = "text/html", ["X-User"] = "ada" } }

local function open_kit(path, text, answer)
  local stubs = { ["http://*"] = answer, ["https://*"] = answer }
  local kit = testing.load(path, { stubs = stubs, backends = { ["*"] = answer } })
  for host, port in text:gmatch 'connect%("([%w.]+)", (%d+)' do
    kit:socket(host .. ":" .. port, answer.error and { error = "connect_refused" }
      or function(bytes) return bytes ~= "" and ":0\r\n" or nil end)
  end
  return kit
end

local function assert_well(result, what)
  for _, hook in ipairs(result.hooks) do
    assert(hook.verdict ~= "failed", ("%s: %s"):format(what, hook.error))
  end
end

-- What goes on to a backend finds one.
local function assert_placed(result, what)
  assert(result.error ~= "no_backend" and result.error ~= "pick_failed", what .. ": no backend was picked")
end

local function try(path, text, answer)
  local kit = open_kit(path, text, answer)
  for _, target in ipairs(page.paths_of(text)) do
    for _, request in ipairs(requests) do
      local asked = { path = target, client = { ip = "127.0.0.1" } }
      for name, value in pairs(request) do asked[name] = value end
      local result, what = kit:request(asked), request.method .. " " .. target
      assert_well(result, what)
      assert_placed(result, what)
    end
  end
  kit:advance(61)
  kit:reload()
  for _, line in ipairs(kit:logs()) do assert(not line.text:find " failed: ", line.text) end
  kit:close()
end

local known_methods = page.known_methods()

local function check_names(block, path)
  assert.equal("", unknown_globals(path))
  for _, name in ipairs(page.methods_of(block.text)) do
    assert(known_methods[name] or block.text:find("[.:]" .. name .. "%(") and block.name, "there is no method " .. name)
  end
end

-- What stands around a program that is started here.
local env = {
  LD_PRELOAD = os.getenv "MOONGATE_PRELOAD" or false, LUA_PATH = false, LUA_CPATH = false,
  ASAN_OPTIONS = "detect_leaks=0",
}

-- ThreadSanitizer cannot be loaded into a shell.
local it_runs = process.preset == "tsan" and pending or it

local function run_step(dir, step)
  local command = step.command:gsub("^moongate", moongate.binary)
  local _, out, err = support.run({ "sh", "-c", command }, { cwd = dir, env = env, timeout = 60 })
  local text = "$ %s\n%s%s\nexpected:\n%s"
  assert(page.fits(out .. err, step), text:format(step.command, out, err, table.concat(step, "\n")))
end

for _, path in ipairs(pages) do
  describe(path, function()
    local blocks = page.blocks(path)

    for _, block in ipairs(blocks) do
      local where = ("the block of line %d"):format(block.line)
      if block.language == "lua" and not page.is_frame(block) and not page.is_wrong(block) then
        it(where .. " names what there is", function()
          local _, file = lay_out(blocks, block)
          check_names(block, file)
        end)
      end
      if page.is_config(block) and not page.is_wrong(block) then
        it(where .. " answers, also when what it asks fails", function()
          local _, file = lay_out(blocks, block)
          try(file, block.text, well)
          try(file, block.text, { error = "connect_refused" })
        end)
        it(where .. " passes the check", function()
          local dir, file = lay_out(blocks, block)
          local status, out, err = moongate.run { "check", "--keys", dir, file }
          assert.equal(0, status, out .. err)
        end)
      end
      if block.language == "console" then
        it_runs(where .. " shows what is printed", function()
          local dir = lay_out(blocks, block)
          for _, step in ipairs(page.steps_of(block)) do run_step(dir, step) end
        end)
      end
    end

    it("shows JSON that can be read", function()
      for _, block in ipairs(blocks) do
        if block.language == "json" then
          testing.load { text = ([[
            assert(require("moongate").json.decode(%q))
            return { listen = 8080, on_request = 204 }
          ]]):format(block.text) }:close()
        end
      end
    end)

    it("speaks of what gate has", function()
      local names = page.gate_names(path)
      local kit = testing.load { text = ([[
        local gate = require "moongate"
        for name in (%q):gmatch "%%S+" do
          local value = gate
          for part in name:gmatch "[^.]+" do value = value[part] end
          assert(value ~= nil, "there is no gate." .. name)
        end
        return { listen = 8080, on_request = 204 }
      ]]):format(table.concat(names, " ")) }
      kit:close()
    end)
  end)
end
