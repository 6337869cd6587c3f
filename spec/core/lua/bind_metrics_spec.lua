-- gate.metrics, from scripts to the admin page.
-- luacheck: no max line length

local support = require "support"
local http, it = support.http, support.it

local config = [[
local gate = require "moongate"
local metrics = gate.metrics
local plain = metrics.counter { name = "plain_total", help = "No labels." }
local orders = metrics.counter { name = "orders_total", help = "Orders.", labels = { "tier", "paid" } }
local depth = metrics.gauge { name = "queue_depth", help = "Depth.", labels = { "queue" } }
local sizes = metrics.histogram { name = "sizes", help = "Sizes.", buckets = { 1, 2.5, 10 } }
local crowd = metrics.counter { name = "crowd_total", help = "Crowd.", labels = { "who" }, series = 3 }
local times = metrics.histogram { name = "times_seconds", help = "Times.", labels = { "kind" } }
local site = { listen = "127.0.0.1:$PORT" }
function site.on_request(req)
  local script = assert(load("local gate, metrics, plain, orders, depth, sizes, crowd, times = ... " .. req.body:text "64K"))
  local results = table.pack(pcall(script, gate, metrics, plain, orders, depth, sizes, crowd, times))
  for i = 1, results.n do results[i] = tostring(results[i]) end
  return gate.reply(200, table.concat(results, "|"))
end
return { sites = { site }, lua = { hook_cpu = 5 }, admin = "127.0.0.1:$PORT2" }
]]

describe("gate.metrics", function()
  local proxy

  support.before_each(function()
    proxy = support.moongate.start { config = config }
  end)

  local function run(script) return http.post(proxy.port, "/", script).body end

  local function page() return http.get(proxy.values.PORT2, "/metrics").body end

  local function shows(line)
    local text = page()
    assert(("\n" .. text):find("\n" .. line .. "\n", 1, true), line .. "\n" .. table.concat({ text:match "[^\n]*crowd.*" }))
  end

  it("shows a counter without labels from the beginning, with its help and type", function()
    shows "# HELP plain_total No labels."
    shows "# TYPE plain_total counter"
    shows "plain_total 0"
    assert.equal("true", run "plain:add() plain:add(2) plain:add(0.5)")
    shows "plain_total 3.5"
  end)

  it("counts by labels, by place or by name, on all workers together", function()
    for _ = 1, 20 do assert.equal("true", run "orders:add(1, 'gold', true) orders:add(2, { paid = true, tier = 'gold' })") end
    assert.equal("true", run "orders:add(nil, 7, 'no \"quotes\"\\n')")
    shows 'orders_total{tier="gold",paid="true"} 60'
    shows [[orders_total{tier="7",paid="no \"quotes\"\n"} 1]]
  end)

  it("sets a gauge for all workers, the last one counting", function()
    for i = 1, 20 do assert.equal("true", run(("depth:set(%d, 'in')"):format(i))) end
    shows 'queue_depth{queue="in"} 20'
    assert.equal("true", run "depth:add(-20.25, 'in') depth:add(1, { queue = 'out' })")
    shows 'queue_depth{queue="in"} -0.25'
    shows 'queue_depth{queue="out"} 1'
  end)

  it("sorts what is observed into buckets", function()
    assert.equal("true", run "for _, n in ipairs { 0.5, 1, 2, 2.5, 3, 100 } do sizes:observe(n) end times:observe(0.003, 'x')")
    shows 'sizes_bucket{le="1"} 2'
    shows 'sizes_bucket{le="2.5"} 4'
    shows 'sizes_bucket{le="10"} 5'
    shows 'sizes_bucket{le="+Inf"} 6'
    shows "sizes_sum 109"
    shows "sizes_count 6"
    shows 'times_seconds_bucket{kind="x",le="0.0025"} 0'
    shows 'times_seconds_bucket{kind="x",le="0.005"} 1'
  end)

  it("bounds the series: what is more counts as other, and is logged once", function()
    assert.equal("true", run "for i = 1, 100 do crowd:add(1, 'client ' .. i) end crowd:add(1, 'client 1')")
    shows 'crowd_total{who="client 1"} 2'
    shows 'crowd_total{who="client 3"} 1'
    shows 'crowd_total{who="other"} 97'
    assert.is_nil(page():find("client 4", 1, true))
    proxy:wait_log "metric crowd_total has 3 series"
    run "crowd:add(1, 'late')"
    assert.equal(1, select(2, proxy:log():gsub("crowd_total has", "")))
  end)

  it("cuts long values and writes what is no UTF-8 as question marks", function()
    assert.equal("true", run "crowd:add(1, ('x'):rep(1000)) crowd:add(1, '\\255\\0')")
    shows(('crowd_total{who="%s"} 1'):format(("x"):rep(128)))
    shows 'crowd_total{who="??"} 1'
  end)

  it("goes on counting over a reload", function()
    run "plain:add(5)"
    proxy:reload()
    run "plain:add(1)"
    shows "plain_total 6"
  end)

  it("refuses a reload that declares a metric in use otherwise, and takes one that is not", function()
    run "crowd:add(1, 'me')"
    local changed = config:gsub('labels = { "who" }', 'labels = { "whom" }')
    proxy:write_config(changed)
    local status, err = proxy:reload()
    assert.equal(1, status)
    assert.truthy(err:find("gate.metrics: crowd_total cannot be declared so: it has other labels", 1, true), err)
    proxy:reload_with((config:gsub('labels = { "queue" }', 'labels = { "line" }')))
    run "depth:set(1, 'a')"
    shows 'queue_depth{line="a"} 1'
  end)

  it("has one declaration in a config, whether it is used or not", function()
    for script, right in pairs {
      ["metrics.counter { name = 'twice', help = 'y', labels = { 'a', 'b' }, series = 5 }"] = true,
      ["metrics.gauge { name = 'twice', help = 'x', labels = { 'a', 'b' } }"] = false,
      ["metrics.counter { name = 'twice', help = 'x' }"] = false,
      ["metrics.counter { name = 'twice', help = 'x', labels = { 'b', 'a' } }"] = false,
    } do
      local said = run("metrics.counter { name = 'twice', help = 'x', labels = { 'a', 'b' } } " .. script)
      assert.equal(right, said == "true", script)
      if not right then assert.truthy(said:find("gate.metrics: twice was declared otherwise before", 1, true), said) end
    end
    local said = run [[
      metrics.histogram { name = "sizes", help = "x" } metrics.histogram { name = "sizes", help = "x", buckets = { 1, 2 } }]]
    assert.truthy(said:find("sizes was declared otherwise before", 1, true), said)
  end)

  it("can be declared in a hook, once per name", function()
    assert.equal("true", run "metrics.counter { name = 'lazy_total', help = 'x' }:add(1) metrics.counter { name = 'lazy_total', help = 'x' }:add(1)")
    shows "lazy_total 2"
    assert.truthy(run("for i = 1, 1000 do metrics.counter { name = 'n' .. i, help = 'x' } end"):find("there are too many metrics", 1, true))
  end)

  it("raises for what is wrong", function()
    for script, sentence in pairs {
      ["metrics.counter { name = 'a-b', help = '' }"] = "no name for a metric", ["metrics.counter { name = '', help = '' }"] = "no name for a metric",
      ["metrics.counter { name = 'moongate_x', help = '' }"] = "no name for a metric", ["metrics.counter { name = '1a', help = '' }"] = "no name for a metric",
      ["metrics.counter { name = 'x:y', help = '' }"] = "no name for a metric", ["metrics.counter { help = '' }"] = "name is a string", ["metrics.counter { name = 'a' }"] = "help is a string",
      ["metrics.counter { name = 'a', help = '', labels = 'x' }"] = "labels is a list", ["metrics.counter { name = 'a', help = '', labels = { '__x' } }"] = "label 1 is no name",
      ["metrics.histogram { name = 'a', help = '', labels = { 'x', 'le' } }"] = "label 2 is no name", ["metrics.counter { name = 'a', help = '', labels = { 'x', 'x' } }"] = "two labels",
      ["metrics.counter { name = 'a', help = '', labels = { 1 } }"] = "label 1 is no name", ["metrics.counter { name = 'a', help = '', buckets = {} }"] = "no option 'buckets'",
      ["metrics.histogram { name = 'a', help = '', buckets = {} }"] = "1 to 64 numbers", ["metrics.histogram { name = 'a', help = '', buckets = { 1, 1 } }"] = "ascend",
      ["metrics.histogram { name = 'a', help = '', buckets = { 1/0 } }"] = "ascend", ["metrics.counter { name = 'a', help = '', series = 0 }"] = "series is a whole number",
      ["plain:add(-1)"] = "never goes down", ["plain:add(0/0)"] = "neither infinity nor NaN", ["plain:add('1')"] = "number expected",
      ["plain:add(1, 'x')"] = "0 label values expected, got 1", ["orders:add(1, 'x')"] = "2 label values expected, got 1", ["orders:add(1, { tier = 'x' })"] = "label 'paid' has no value",
      ["orders:add(1, { tier = 'x', paid = 'y', pad = 'z' })"] = "there is no label 'pad'", ["orders:add(1, {}, {})"] = "label 'tier' has no value", ["orders:add(1, print, 'x')"] = "the value of a label",
      ["plain:set(1)"] = "nil value (method 'set')", ["depth:set(nil, 'x')"] = "number expected", ["plain.x = 1"] = "no fields to assign", ["depth:observe(1)"] = "nil value (method 'observe')",
    } do
      local said = run(script)
      assert.truthy(said:find "^false|" and said:find(sentence, 1, true), script .. " -> " .. said)
    end
  end)
end)
