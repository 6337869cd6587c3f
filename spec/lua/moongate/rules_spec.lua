-- moongate.rules, in the kit: it needs the module `moongate`.

local testing = require "moongate.testing"

-- A site whose answer to a request is the name of the rule.
local function load(rules)
  return testing.load { text = ([[
    local gate, rules = require "moongate", require "moongate.rules"
    local list = %s
    local problem = rules.problem(list, { name = "text" }, "routes")
    if problem then error(problem, 0) end
    local find = rules.finder(list)
    return { listen = 8080, on_request = function(req)
      local rule = find(req)
      return gate.reply(200, rule and rule.name or "none")
    end }
  ]]):format(rules) }
end

describe("moongate.rules", function()
  it("finds the first rule that fits path, method and host", function()
    local kit = load [[{
      { name = "login", path = "/login", methods = { "POST" } },
      { name = "rpc", path = { "/api/", "/rpc" }, hosts = { "api.example" } },
      { name = "api", path = "/api" },
      { name = "write", methods = { "PUT", "DELETE" } },
    }]]
    local function find(path, method, host)
      return kit:request({ path = path, method = method, host = host or "a.example" }).body
    end
    assert.equal("login", find("/login", "POST"))
    assert.equal("login", find("/login/help", "POST"))
    assert.equal("login", find("/x/../%6cogin", "POST"))
    assert.equal("none", find("/logins", "POST"))
    assert.equal("none", find "/login")
    assert.equal("rpc", find("/api/1", "GET", "API.example:80"))
    assert.equal("api", find("/api", "GET", "api.example"))
    assert.equal("api", find "/api/1")
    assert.equal("write", find("/", "PUT"))
    assert.equal("none", find "/")
  end)

  it("finds none among none", function() assert.equal("none", load("{}"):request("/").body) end)

  it("says what is wrong with rules", function()
    for sentence, rules in pairs {
      ["routes: expected a list"] = '{ path = "/" }',
      ["routes[2].path: expected a path that begins with /"] = "{ {}, { path = {} } }",
      ["routes[1].path: expected a path"] = '{ { path = { "/a", "b" } } }',
      ["routes[1].methods: expected a list of methods"] = '{ { methods = { "post" } } }',
      ["routes[1].hosts: expected a list of host names in lower case"] = '{ { hosts = { "A.example" } } }',
      ["routes[1].name: expected"] = "{ { name = 0 } }",
      ['did you mean "methods"'] = '{ { method = "GET" } }',
    } do
      local ok, said = pcall(load, rules)
      assert(not ok and said:find(sentence, 1, true), tostring(said))
    end
  end)
end)
