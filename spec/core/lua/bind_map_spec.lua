local support = require "support"
local it, http, moongate = support.it, support.http, support.moongate
local uv = require "luv"

-- A directory with a config and files beside it. The serving process may be another user, who can read them, and
-- make a socket there.
local function folder(files)
  local dir = support.temp_dir()
  uv.fs_chmod(dir, tonumber("777", 8))
  for name, text in pairs(files) do support.process.write_file(dir .. "/" .. name, text) end
  return dir
end

-- What `script` returns in on_request, in a config that first makes a map of `source` (Lua).
local function said(source, script, files)
  local all = { ["c.lua"] = ([[
    local gate = require "moongate"
    local m = gate.map(%s)
    local function show(ok, ...)
      local texts = table.pack(...)
      for i = 1, texts.n do texts[i] = tostring(texts[i]) end
      return gate.reply(200, (ok and "" or "raised: ") .. table.concat(texts, "|"))
    end
    return {
      listen = "unix:" .. "%s", lua = { hook_cpu = 2 },
      on_request = function(req) return show(pcall(function() %s end)) end,
    }
  ]]) }
  for name, text in pairs(files or {}) do all[name] = text end
  local dir = folder(all)
  local config = all["c.lua"]:format(source, dir .. "/s", script)
  support.process.write_file(dir .. "/c.lua", config)
  local gate = moongate.start { file = dir .. "/c.lua", workers = 2 }
  local body = http.get(dir .. "/s", "/").body
  gate:stop()
  return body
end

-- What the check says of it.
local function checked(source, files)
  local all = { ["c.lua"] = ([[
    local gate = require "moongate"
    local m = gate.map(%s)
    return { listen = 8080, on_request = function() return m:get "x" and 200 or 404 end }
  ]]):format(source) }
  for name, text in pairs(files or {}) do all[name] = text end
  local status, out, err = moongate.run { "check", folder(all) .. "/c.lua" }
  return (status == 0 and "" or "refused: ") .. out .. err
end

describe("gate.map", function()
  it("gives what a table holds, by text, numbers by theirs", function()
    assert.equal("1|1.5|text|true|false|nil|x|yes|yes", said([[{
      a = 1, b = 1.5, c = "text", d = true, e = false, f = { g = { "x" } }, [7] = "yes", get = "a key like others" }]],
      [[return m:get "a", m:get "b", m:get "c", m:get "d", m:get "e", m:get "h", m:get("f").g[1], m:get(7),
        m:get "7"]]))
  end)

  it("gives copies of the tables in it", function()
    assert.equal("1", said("{ t = { 1 } }", [[m:get("t")[1] = 2 return m:get("t")[1] ]]))
  end)

  it("counts, and goes over all in order: that of a table's keys", function()
    assert.equal("4|1=a 2=b x=c y=d", said("{ y = 'd', 'a', 'b', x = 'c' }", [[
      local all = {}
      for key, value in pairs(m) do all[#all + 1] = key .. "=" .. value end
      return #m, table.concat(all, " ")
    ]]))
    assert.equal("0|nil|nil", said("{}", [[return #m, m:get "x", m:longest_prefix "x"]]))
  end)

  it("finds the longest key that a text begins with", function()
    assert.equal("deep|/api/v1/|wide|/api/|root|/|nil|deep", said(
      "{ ['/'] = 'root', ['/api/'] = 'wide', ['/api/v1/'] = 'deep' }", [[
      local a, b = m:longest_prefix "/api/v1/users"
      local c, d = m:longest_prefix "/api/v2/users"
      local e, f = m:longest_prefix "/other"
      return a, b, c, d, e, f, m:longest_prefix "none", (m:longest_prefix "/api/v1/")
    ]]))
  end)

  it("finds the key of a host name, wildcards after the name itself", function()
    assert.equal("exact|www.a.example|sub|*.a.example|wide|*.example|nil|nil|wide|nil", said(
      "{ ['www.a.example'] = 'exact', ['*.a.example'] = 'sub', ['*.example'] = 'wide' }", [[
      local a, b = m:host "www.a.example"
      local c, d = m:host "x.y.a.example"
      local e, f = m:host "a.example"
      return a, b, c, d, e, f, m:host "example", (m:host "other.test"), (m:host ".a.example"), (m:host "")
    ]]))
  end)

  it("reads lines of key and value", function()
    assert.equal("a value|true|7|nil|4|b", said("'list.txt'", [[
      return m:get "one", m:get "alone", m:get "n", m:get "#", #m, (function() for k in pairs(m) do return k end end)()
    ]], { ["list.txt"] = "# a comment\nb x\n\n  one \t a value \r\nalone\nn 7" }))
  end)

  it("reads CSV with its quotes", function()
    assert.equal("plain|with, comma|a \"word\"|two\nlines|true||7", said("'list.csv'", [[
      return m:get "a", m:get "b", m:get "c,d", m:get "e", m:get "f", m:get "g", #m + 1
    ]], { ["list.csv"] = 'a,plain\r\nb,"with, comma"\n"c,d","a ""word"""\ne,"two\nlines"\n\nf\ng,' }))
  end)

  it("reads TSV as it is", function()
    assert.equal(" spaces kept |true|#x|3", said("'list.tsv'", [[return m:get "a b", m:get "alone", m:get "k", #m]],
      { ["list.tsv"] = "a b\t spaces kept \nalone\nk\t#x\n" }))
  end)

  it("reads JSON with its types, in its order", function()
    assert.equal("1|integer|1.5|true|x|2|9007199254740993|zabcd", said("'list.json'", [[
      local order = ""
      for key in pairs(m) do order = order .. key end
      return m:get "z", math.type(m:get "z"), m:get "a", m:get "b", m:get("c")[1].d, #m:get "c", m:get "d", order
    ]], { ["list.json"] = '{ "z": 1, "a": 1.5, "b": true, "c": [{ "d": "x" }, 2], "d": 9007199254740993 }' }))
  end)

  it("reads in another format, and numbers, where that is said", function()
    assert.equal("1|integer|0.5|-3|true", said("'list.txt', { format = 'csv', type = 'number' }", [[
      return m:get "a", math.type(m:get "a"), m:get "b", m:get "c", m:get "d"
    ]], { ["list.txt"] = "a,1\nb,0.5\nc,-3\nd" }))
  end)

  it("is one object for all workers, loads and readings of the same", function()
    local dir = folder { ["c.lua"] = [[
      local gate = require "moongate"
      local a, b = gate.map "big.txt", gate.map "big.txt"
      return { listen = "$LISTEN", on_request = function() return gate.reply(200, a:get "k5" .. b:get "k6") end }
    ]] }
    local lines = {}
    for i = 1, 300000 do lines[i] = ("k%d value-of-%d"):format(i, i) end
    support.process.write_file(dir .. "/big.txt", table.concat(lines, "\n"))
    local text = io.open(dir .. "/c.lua"):read("a"):gsub("%$LISTEN", "unix:" .. dir .. "/s")
    support.process.write_file(dir .. "/c.lua", text)
    local gate = moongate.start { file = dir .. "/c.lua", workers = 4 }
    local before = gate:rss()
    for _ = 1, 5 do
      assert.equal(0, (gate:reload()))
      assert.equal("value-of-5value-of-6", http.get(dir .. "/s", "/").body)
    end
    if not support.process.preset:find "san" then
      assert.is_true(gate:rss() < before + (24 << 20), gate:rss() - before)
      assert.is_true(before < 150 << 20, before)
    end
  end)

  it("follows its file at a reload, and not before; a bad file leaves the old map serving", function()
    local port = support.free_port()
    local dir = folder { ["users.csv"] = "ada,one\n", ["c.lua"] = ([[
      local gate = require "moongate"
      local m = gate.map "users.csv"
      return { listen = "127.0.0.1:%d", on_request = function(req) return gate.reply(200, m:get "ada" or "none") end }
    ]]):format(port) }
    local gate = moongate.start { file = dir .. "/c.lua" }
    assert.equal("one", http.get(port, "/").body)
    support.process.write_file(dir .. "/users.csv", "ada,two\n")
    assert.equal("one", http.get(port, "/").body)
    assert.equal(0, (gate:command "reload"))
    assert.equal("two", http.get(port, "/").body)
    support.process.write_file(dir .. "/users.csv", "ada,two\nada,three\n")
    local status, out, err = gate:command "reload"
    assert.equal(1, status)
    assert.matches("users.csv:2: its key was there before, with another value", out .. err)
    assert.equal("two", http.get(port, "/").body)
  end)

  it("is checked by `moongate check`, with the file and line of what is wrong", function()
    assert.matches("ok", checked("'l.txt'", { ["l.txt"] = "x 1\nx 1\n" })) -- the same twice is once
    for name, case in pairs {
      ["l.txt"] = { "a 1\nb 2\na 3\n", "l.txt:3: its key was there before, with another value" },
      ["k.txt"] = { "ok 1\n" .. ("k"):rep(1025) .. " 1\n", "k.txt:2: its key is longer than 1024 bytes" },
      ["a.csv"] = { 'a,1\nb,"open\n', "a.csv:2: its quotes do not end" },
      ["b.csv"] = { 'a,1\n"b"x,1\n', "b.csv:2: something stands behind its quotes" },
      ["c.csv"] = { 'a,1\n"b\nb",2\nc,1,2\n', "c.csv:4: it has more than two columns" },
      ["d.csv"] = { "a,1\n,2\n", "d.csv:2: it has no key" },
      ["e.tsv"] = { "a\t1\n\nb\t1\t2\n", "e.tsv:3: it has more than two columns" },
      ["f.json"] = { '{ "a": 1,\n "b": }', "f.json:2: " },
      ["g.json"] = { "[1]", "g.json:1: it is no object" },
      ["h.json"] = { '{ "a": { "b": null } }', "h.json:1: 'a': null is no value" },
      ["i.json"] = { '{ "a": 1, "a": 2 }', "duplicate" },
      ["j.json"] = { '{ "": 1 }', "j.json:1: a key is empty" },
      ["k.json"] = { '{ "a": ' .. ("["):rep(40) .. ("]"):rep(40) .. " }", "nested too deeply" },
    } do
      local text = checked(("%q"):format(name), { [name] = case[1] })
      assert(text:find("refused: .*c.lua:2: gate.map: .*") and text:find(case[2], 1, true), name .. ": " .. text)
    end
    for value, file in pairs { ["x"] = "a,x\n", ["empty"] = "a,\n", ["hex"] = "b,1\na,inf\n" } do
      local text = checked("'l.csv', { type = 'number' }", { ["l.csv"] = file })
      assert.matches("l.csv:%d: its value is no number", text, value)
    end
  end)

  it("refuses sources and options that are none", function()
    for source, sentence in pairs {
      ["'none.txt'"] = "none.txt: no such file", ["'.'"] = "not a regular file", ["''"] = "path of a file expected",
      ["'a\\0b'"] = "path of a file expected", ["5"] = "table or path of a file expected",
      ["{ print }"] = "a function is no plain data", ["{ [1.5] = 1 }"] = "strings or whole numbers",
      ["{ [''] = 1 }"] = "1 to 1024 bytes", ["{ [1] = 1, ['1'] = 2 }"] = "as a number and as a string",
      ["(function() local t = {} t.t = t return t end)()"] = "holds itself",
      ["{}, { format = 'csv' }"] = "options go with a file", ["'l.txt', { format = 'xml' }"] = "no such format",
      ["'l.txt', { type = 5 }"] = "no such type", ["'l.json', { type = 'number' }"] = "types of its own",
      ["'l.txt', { forma = 'csv' }"] = "did you mean 'format'",
    } do
      local text = checked(source, { ["l.txt"] = "a b\n", ["l.json"] = "{}" })
      assert(text:find("refused: .*c.lua:2: ") and text:find(sentence, 1, true), source .. ": " .. text)
    end
    assert.matches("made while the file is loaded", said("{}", "gate.map {}"))
  end)

  it("has methods and nothing else", function()
    assert.matches("did you mean 'get'", said("{}", "return m.gett"))
    assert.matches("read by map:get%(key%)", said("{}", "return m[1]"))
    assert.matches("read%-only", said("{}", "m.x = 1"))
    assert.matches("string or number expected", said("{}", "m:get(nil)"))
  end)
end)
