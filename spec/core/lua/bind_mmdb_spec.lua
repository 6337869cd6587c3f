-- gate.mmdb, on databases that support/mmdb.lua writes.
-- luacheck: no max line length (scripts stand in one line)

local support = require "support"
local engine = require "core.lua.engine"
local mmdb = require "support.mmdb"
local core = require "moongate_core"
local it = support.it

local records = {
  ["10.0.0.0/8"] = {
    country = { iso_code = "XX", names = { en = "Exland", de = "Exland" } }, city = { geoname_id = 5 },
    location = { latitude = 48.5, longitude = -11.25 }, subdivisions = mmdb.list { { iso = "A" }, { iso = "B" } },
    big = mmdb.uint64(1 << 40), huge = mmdb.uint64(-1), small = mmdb.uint16(7), negative = -5, single = mmdb.float(0.5),
    raw = mmdb.bytes "\0\1", yes = true, no = false, long = ("x"):rep(300), empty = {}, none = "",
  },
  ["192.0.2.0/25"] = { country = { iso_code = "YY" } },
  ["2001:db8::/32"] = { country = { iso_code = "ZZ" } },
}

describe("gate.mmdb", function()
  local dir, path

  support.before_each(function()
    engine.before_each()
    dir = support.temp_dir(true)
    path = dir .. "/geo.mmdb"
    mmdb.write(path, records)
  end)
  after_each(engine.after_each)

  local function script(text, file)
    return ([[
      local gate = require "moongate"
      local geo = gate.mmdb %q
      local site = {}
      local function show(ok, ...)
        local texts = table.pack(...)
        for i = 1, texts.n do texts[i] = tostring(texts[i]) end
        return gate.reply(200, (ok and "" or "raised: ") .. table.concat(texts, "|"))
      end
      local function script() %s
      end
      function site.on_request() return show(pcall(script)) end
      return site
    ]]):format(file or path, text)
  end

  local function value(text, options)
    return engine.open(script("return " .. text), options):call("on_request").body
  end

  it("gives what lies at a path", function()
    assert.equal("XX|Exland|48.5|B|A|B", value [[geo:get("10.1.2.3", "country", "iso_code"),
      geo:get("10.1.2.3", "country", "names", "en"), geo:get("10.1.2.3", "location", "latitude"),
      geo:get("10.1.2.3", "subdivisions", 2, "iso"), geo:get("10.1.2.3", "subdivisions", 1, "iso"),
      geo:get("10.1.2.3", "subdivisions", -1, "iso")]])
  end)

  it("finds IPv4, mapped IPv4 and IPv6", function()
    assert.equal("YY|nil|XX|ZZ|nil", value [[geo:get("192.0.2.127", "country", "iso_code"),
      tostring(geo:get("192.0.2.128")), geo:get("::ffff:10.0.0.1", "country", "iso_code"),
      geo:get("2001:db8:1::1", "country", "iso_code"), tostring(geo:get "2001:db9::")]])
  end)

  it("gives the whole record as tables", function()
    assert.equal("XX|Exland|-11.25|2|B", engine.open(script [[
      local all = geo:get "10.0.0.0"
      return all.country.iso_code, all.country.names.de, all.location.longitude, #all.subdivisions, all.subdivisions[2].iso
    ]]):call("on_request").body)
    assert.equal("table|nil", value [[type(geo:get("10.0.0.1", "empty")), tostring(next(geo:get("10.0.0.1", "empty")))]])
  end)

  it("keeps the types of values", function()
    assert.equal("1099511627776|integer|1.844674407371e+19|7|-5|0.5|true|false|300|true|0", (value [[
      geo:get("10.0.0.1", "big"), math.type(geo:get("10.0.0.1", "big")), geo:get("10.0.0.1", "huge"), geo:get("10.0.0.1", "small"),
      geo:get("10.0.0.1", "negative"), geo:get("10.0.0.1", "single"), geo:get("10.0.0.1", "yes"), geo:get("10.0.0.1", "no"),
      #geo:get("10.0.0.1", "long"), geo:get("10.0.0.1", "raw") == "\0\1", #geo:get("10.0.0.1", "none")]]
      :gsub("1%.8446744073%d+e%+19", "1.844674407371e+19")))
  end)

  it("gives nil for what is not there", function()
    for _, arguments in ipairs {
      '"8.8.8.8"', '"10.0.0.1", "nothing"', '"10.0.0.1", "country", "iso_code", "deeper"', '"10.0.0.1", "subdivisions", 3',
      '"10.0.0.1", "subdivisions", "x"', '"10.0.0.1", 1', '"::1"',
    } do
      assert.equal("nil", value(("geo:get(%s)"):format(arguments)))
    end
  end)

  it("says of what is no address that it is none, and raises for what is no path", function()
    assert.equal("nil|bad_address|the text is no IP address", value 'geo:get "unix:"')
    assert.matches("raised: .*string expected", value "geo:get(1)")
    assert.matches("raised: .*a name, or an index", value "geo:get('10.0.0.1', {})")
    assert.matches("raised: .*a name, or an index", value "geo:get('10.0.0.1', 0)")
    assert.matches("raised: .*at most 16 parts", value "geo:get('10.0.0.1', table.unpack({}, 1, 17))")
    assert.matches("raised: .*read%-only", value "(function() geo.x = 1 end)()")
    assert.matches("raised: .*while the config is loaded", value("gate.mmdb 'x'"))
  end)

  it("reads databases of IPv4 alone", function()
    mmdb.write(path, { ["10.0.0.0/8"] = { a = 1 } }, 4)
    assert.equal("1|nil|nil", value 'geo:get("10.0.0.1", "a"), tostring(geo:get "11.0.0.1"), tostring(geo:get "2001:db8::1")')
  end)

  it("survives a database that is cut or damaged", function()
    local bytes = mmdb.encode(records)
    for at = 1, #bytes, 7 do
      local file <close> = assert(io.open(path, "wb"))
      file:write(bytes:sub(1, at - 1), string.char(bytes:byte(at) ~ 0xff), bytes:sub(at + 1))
      file:close()
      local state = engine.load(script [[
        for _, ip in ipairs { "10.0.0.1", "192.0.2.1", "2001:db8::1", "::" } do
          geo:get(ip) geo:get(ip, "country", "iso_code") geo:get(ip, "subdivisions", 1)
        end
        return "alive"]])
      if state then
        assert(state:start())
        assert.equal("alive", state:call("on_request").body)
        state:close()
      end
    end
  end)

  it("is opened once for all states of one file, and anew when the file is another", function()
    local before = core.store.mmdb.count()
    local first = engine.open(script "return geo:get('10.0.0.1', 'country', 'iso_code')")
    local second = engine.open(script "return geo:get('10.0.0.1', 'country', 'iso_code')")
    assert.equal(before + 1, core.store.mmdb.count())
    mmdb.write(path .. ".new", { ["10.0.0.0/8"] = { country = { iso_code = "NN" } } })
    os.rename(path .. ".new", path)
    local third = engine.open(script "return geo:get('10.0.0.1', 'country', 'iso_code')")
    assert.equal("NN", third:call("on_request").body)
    assert.equal("XX", first:call("on_request").body)
    for _, state in ipairs { first, second, third } do state:close() end
    assert.equal(before, core.store.mmdb.count())
  end)

  it("keeps what it has read when the file is overwritten in place", function()
    local state = engine.open(script "return geo:get('10.0.0.1', 'country', 'iso_code')")
    assert(io.open(path, "w")):close()
    assert.equal("XX", state:call("on_request").body)
  end)

  it("fails the load with the place in the config", function()
    local _, errors = engine.load(script("", dir .. "/none.mmdb"))
    assert.truthy(errors:find("config.lua:2: gate.mmdb: " .. dir .. "/none.mmdb: no such file", 1, true), errors)
    support.process.write_file(path, "no database")
    _, errors = engine.load(script "")
    assert.matches("config.lua:2: gate.mmdb: .*geo.mmdb: .*invalid metadata", errors)
    _, errors = engine.load(script("", "/"))
    assert.truthy(errors:find("gate.mmdb: /: not a regular file", 1, true), errors)
  end)

  it("is told by moongate check, and picked up anew by a reload", function()
    local config = ([[
      local gate = require "moongate"
      local geo = gate.mmdb %q
      return { listen = "127.0.0.1:$PORT", on_request = function() return gate.reply(200, geo:get("10.0.0.1", "country", "iso_code")) end }
    ]]):format(path)
    local proxy = support.moongate.start { config = config }
    assert.equal("XX", support.http.get(proxy.port, "/").body)
    mmdb.write(path .. ".new", { ["10.0.0.0/8"] = { country = { iso_code = "NN" } } })
    os.rename(path .. ".new", path)
    local status, output = proxy:reload()
    assert.equal(0, status, output)
    assert.equal("NN", support.http.get(proxy.port, "/").body)
    os.remove(path)
    status, output = proxy:reload()
    assert.equal(1, status)
    assert.matches(":2: gate.mmdb: .*geo.mmdb: no such file", output)
    assert.equal("NN", support.http.get(proxy.port, "/").body)
    support.process.write_file(dir .. "/site.lua", 'local gate = require "moongate"\nlocal geo = gate.mmdb "geo.mmdb"\nreturn {}\n')
    local checked, _, err = support.moongate.run { "check", dir .. "/site.lua" }
    assert.equal(1, checked)
    assert.truthy(err:find("site.lua:2: gate.mmdb: geo.mmdb: no such file", 1, true), err)
  end)
end)
