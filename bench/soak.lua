-- Calls hooks in one process, without a network, and shows that nothing grows: what a state holds after a full
-- collection, and the process's memory, after each round of calls. Ends with status 1 if the last round holds more
-- than the second by a hundredth.
--
--     ./dev build release && lua5.4 bench/soak.lua [MILLIONS OF CALLS A KIND AND ROUND] [ROUNDS]

package.cpath = "build/release/spec/?.so;" .. package.cpath
local core = require "moongate_core"

local millions, rounds = tonumber(arg[1] or "0.1"), math.tointeger(tonumber(arg[2] or "5"))
local calls = math.floor(millions * 1e6)

-- Failures are logged, a line each: nobody reads them here.
core.base.log_open("/dev/null", 2)

local state = assert(core.lua.open([[
  local gate = require "moongate"
  local site = {}
  function site.on_request(req)
    req.headers["X-Tier"] = "gold"
    req.ctx.key = req.path .. "gold"
  end
  function site.cache_key() error "always" end
  function site.pick_backend()
    local mark <close> = setmetatable({}, { __close = function() end })
    gate.sleep(1000)
  end
  function site.on_error(req)
    local inner = coroutine.wrap(function() coroutine.yield(req.path) end)
    return inner() and coroutine.create(function() end) and nil
  end
  return site
]], { backends = { "app" } }))
assert(state:start())

local kinds = {
  { "return", function(n) state:bench("on_request", n) end },
  { "make coroutines", function(n) state:bench("on_error", n) end },
  { "fail", function(n) state:bench("cache_key", n) end },
  { "wait and are closed", function(n)
    for i = 1, n do
      state:begin("pick_backend"):end_subject()
      if i % 1000 == 0 then
        state:turn()
        collectgarbage() -- the calls' own handles, which are this script's
      end
    end
  end },
}

local function resident()
  local file = assert(io.open "/proc/self/statm")
  local _, pages = file:read("n", "n")
  file:close()
  return pages * 4
end

local function round(n)
  local times = {}
  for _, kind in ipairs(kinds) do
    local began = os.clock()
    kind[2](n)
    times[#times + 1] = ("%s %.0f ns"):format(kind[1], (os.clock() - began) / n * 1e9)
  end
  state:collect()
  collectgarbage()
  local figures = state:figures()
  assert(figures.runs == 0 and figures.waiting == 0, "calls are left over")
  return figures.bytes, table.concat(times, ", ")
end

local second, last
for i = 1, rounds do
  local bytes, times = round(calls)
  if i <= 2 then second = bytes end -- the first round fills the pools
  last = bytes
  print(("%d calls: state %d bytes, resident %d KiB (%s)"):format(i * calls * #kinds, bytes, resident(), times))
end
state:close()
os.exit(last <= second * 1.01)
