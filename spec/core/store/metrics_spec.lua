local metrics = require("moongate_core").store.metrics

describe("the metrics", function()
  before_each(function() metrics.open(4) end)
  after_each(function() metrics.close() end)

  local function lines()
    local list = {}
    for line in metrics.write():gmatch "[^\n]*" do
      if line ~= "" then list[#list + 1] = line end
    end
    return list
  end

  it("add up what each worker has counted", function()
    local counter = metrics.get("counter", "requests_total", "")
    for worker = 0, 3 do metrics.add(counter, worker, 10 ^ worker // 1 | 0) end
    assert.equal(1111, metrics.value(counter))
  end)

  it("take figures from threads that are no workers", function()
    local counter = metrics.get("counter", "requests_total", "")
    metrics.add(counter, -1, 5)
    metrics.add(counter, 4, 6)
    metrics.add(counter, 0, 7)
    assert.equal(18, metrics.value(counter))
  end)

  it("find the same series by the same name and labels", function()
    local first = metrics.get("counter", "requests_total", 'site="a"')
    assert.equal(first, metrics.get("counter", "requests_total", 'site="a"'))
    assert.not_equal(first, metrics.get("counter", "requests_total", 'site="b"'))
    assert.not_equal(first, metrics.get("counter", "others_total", 'site="a"'))
  end)

  it("are written sorted, each family with its help and type", function()
    metrics.add(metrics.get("counter", "b_total", 'x="2"', "Second."), 0, 1)
    metrics.add(metrics.get("counter", "b_total", 'x="1"'), 1, 2)
    metrics.add(metrics.get("gauge", "a", "", "First,\nwith a \\."), 2, -3)
    assert.same({
      "# HELP a First,\\nwith a \\\\.",
      "# TYPE a gauge",
      "a -3",
      "# HELP b_total Second.",
      "# TYPE b_total counter",
      'b_total{x="1"} 2',
      'b_total{x="2"} 1',
    }, lines())
  end)

  it("write a histogram with cumulative buckets, sum and count", function()
    local histogram = metrics.get("histogram", "seconds", 'site="a"', "Time.")
    for worker, seconds in pairs { [0] = 0.0001, [1] = 0.00011, [2] = 0.3, [3] = 61 } do
      metrics.observe(histogram, worker, seconds)
    end
    metrics.observe(histogram, 0, -1)
    metrics.observe(histogram, 0, 0 / 0)
    assert.same({
      "# HELP seconds Time.",
      "# TYPE seconds histogram",
      'seconds_bucket{site="a",le="0.0001"} 3',
      'seconds_bucket{site="a",le="0.00025"} 4',
      'seconds_bucket{site="a",le="0.0005"} 4',
      'seconds_bucket{site="a",le="0.001"} 4',
      'seconds_bucket{site="a",le="0.0025"} 4',
      'seconds_bucket{site="a",le="0.005"} 4',
      'seconds_bucket{site="a",le="0.01"} 4',
      'seconds_bucket{site="a",le="0.025"} 4',
      'seconds_bucket{site="a",le="0.05"} 4',
      'seconds_bucket{site="a",le="0.1"} 4',
      'seconds_bucket{site="a",le="0.25"} 4',
      'seconds_bucket{site="a",le="0.5"} 5',
      'seconds_bucket{site="a",le="1"} 5',
      'seconds_bucket{site="a",le="2.5"} 5',
      'seconds_bucket{site="a",le="10"} 5',
      'seconds_bucket{site="a",le="60"} 5',
      'seconds_bucket{site="a",le="+Inf"} 6',
      'seconds_sum{site="a"} 61.30021',
      'seconds_count{site="a"} 6',
    }, lines())
    assert.equal(6, metrics.value(histogram))
  end)

  it("put a value on a bound into the bucket of that bound", function()
    local bounds = { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60 }
    for i, bound in ipairs(bounds) do
      local name = "h" .. i
      local histogram = metrics.get("histogram", name, "")
      metrics.observe(histogram, 0, bound)
      metrics.observe(histogram, 0, bound * 1.0001)
      local text = metrics.write()
      assert.truthy(text:find(('%s_bucket{le="%g"} 1\n'):format(name, bound), 1, true))
      local next_bound = bounds[i + 1] and ("%g"):format(bounds[i + 1]) or "+Inf"
      assert.truthy(text:find(('%s_bucket{le="%s"} 2\n'):format(name, next_bound), 1, true))
    end
  end)

  it("ask for a gauge when they are written", function()
    metrics.gauge_with("temperature", 1.5)
    assert.same({ "# HELP temperature asked for when written", "# TYPE temperature gauge", "temperature 1.5" }, lines())
    metrics.gauge_with("temperature", 3)
    assert.equal("temperature 3", lines()[3])
  end)

  it("stop making series of a family at its limit, and ignore what is added then", function()
    for i = 1, 10000 do assert.truthy(metrics.get("counter", "f_total", ('x="%d"'):format(i))) end
    local none = metrics.get("counter", "f_total", 'x="one more"')
    assert.is_nil(none)
    metrics.add(none, 0, 1)
    metrics.observe(none, 0, 1)
    assert.equal(0, metrics.value(none))
    assert.truthy(metrics.get("counter", "f_total", 'x="1"'))
    assert.truthy(metrics.get("counter", "g_total", 'x="1"'))
  end)

  it("are exact when all workers count at once and somebody reads meanwhile", function()
    local counter = metrics.get("counter", "requests_total", "")
    metrics.hammer(counter, 0, 1, 4, 100000)
    assert.equal(400000, metrics.value(counter))
  end)

  it("are exact when many threads that are no workers count", function()
    local counter = metrics.get("counter", "requests_total", "")
    metrics.hammer(counter, -1, 0, 8, 20000)
    assert.equal(160000, metrics.value(counter))
  end)
end)

describe("a metric's labels", function()
  local function labels(list, room) return metrics.labels(room or 1000, list) end

  it("are pairs in quotes, with what would end them escaped", function()
    assert.equal('site="a",path="\\"\\\\\\n"', labels { { "site", "a" }, { "path", '"\\\n' } })
    assert.equal('empty=""', labels { { "empty", "" } })
    assert.equal("", labels {})
  end)

  it("keep UTF-8 and lose what is none", function()
    assert.equal('x="ä€😀"', labels { { "x", "ä€😀" } })
    assert.equal('x="?a?"', labels { { "x", "\xffa\xc3" } })
    assert.equal('x="????"', labels { { "x", "\xc0\x80\xed\xa0" } })
    assert.equal('x="?b"', labels { { "x", "\xe2b" } })
  end)

  it("are cut to their room, never within a pair or an escape", function()
    for room = 0, 40 do
      local text = labels({ { "ab", 'x"y\\zä' }, { "c", "d" } }, room)
      assert.is_true(#text <= room)
      assert.truthy(text == "" or text:match '^ab="[^"]*[^\\]?.*"$', text)
      assert.truthy(utf8.len(text), text)
      local bare = text:gsub('\\.', "")
      local _, quotes = bare:gsub('"', "")
      assert.equal(0, quotes % 2, text)
    end
  end)
end)
