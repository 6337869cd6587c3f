local support = require "support"
local policy = require "scripts.policy"
local it, http = support.it, support.http

local function start(options, settings) return policy.start("cors", options, settings) end

local function get(port, origin) return http.get(port, "/", { headers = { ["Origin"] = origin } }).headers end

local function preflight(port, origin, asked)
  return http.exchange(port, "OPTIONS", "/", { headers = {
    ["Origin"] = origin, ["Access-Control-Request-Method"] = "PUT", ["Access-Control-Request-Headers"] = asked,
  } })
end

describe("scripts.cors", function()
  it("allows listed origins and says that the answer depends on it", function()
    local port = start '{ origins = { "https://app.example.com" } }'
    local headers = get(port, "https://app.example.com")
    assert.equal("https://app.example.com", headers["Access-Control-Allow-Origin"])
    assert.equal("Origin", headers["Vary"])
    headers = get(port, "https://evil.example")
    assert.is_nil(headers["Access-Control-Allow-Origin"])
    assert.equal("Origin", headers["Vary"])
  end)

  it("takes a star for the first labels of a name, and for nothing more", function()
    local port = start '{ origins = { "https://*.example.com" } }'
    for origin, allowed in pairs {
      ["https://a.example.com"] = true, ["https://a.b.example.com"] = true, ["https://example.com"] = false,
      ["https://evilexample.com"] = false, ["http://a.example.com"] = false, ["https://a.example.com:444"] = false,
      ["https://evil.test/.example.com"] = false, ["https://.example.com"] = false, ["null"] = false,
    } do
      assert.equal(allowed and origin or nil, get(port, origin)["Access-Control-Allow-Origin"], origin)
    end
  end)

  it("answers preflights in the application's place", function()
    local port, backend = start '{ origins = { "https://a.example" }, max_age = 60, credentials = true }'
    local response = preflight(port, "https://a.example", "X-Token, Content-Type")
    assert.equal(204, response.status)
    local headers = response.headers
    assert.equal("https://a.example", headers["Access-Control-Allow-Origin"])
    assert.equal("PUT, PATCH, DELETE", headers["Access-Control-Allow-Methods"])
    assert.equal("X-Token, Content-Type", headers["Access-Control-Allow-Headers"])
    assert.equal("true", headers["Access-Control-Allow-Credentials"])
    assert.equal("60", headers["Access-Control-Max-Age"])
    assert.matches("Origin", headers["Vary"])
    response = preflight(port, "https://evil.example", "X-Token")
    assert.equal(204, response.status)
    assert.is_nil(response.headers["Access-Control-Allow-Origin"])
    assert.is_nil(response.headers["Access-Control-Allow-Methods"])
    assert.equal(0, #backend.requests)
  end)

  it("leaves an OPTIONS that is no preflight to the application", function()
    local port, backend = start '{ origins = "*" }'
    assert.equal(200, http.exchange(port, "OPTIONS", "/").status)
    assert.equal(1, #backend.requests)
  end)

  it("opens what is public to everybody, in the same words for all", function()
    local port = start '{ origins = "*", expose = { "X-Total" } }'
    local headers = get(port, "https://anyone.example")
    assert.equal("*", headers["Access-Control-Allow-Origin"])
    assert.equal("X-Total", headers["Access-Control-Expose-Headers"])
    assert.is_nil(headers["Vary"])
  end)

  it("adds to a Vary that is there, once", function()
    local options = '{ origins = { "https://a.example" } }'
    local port = start(options, { headers = { ["Vary"] = "Accept-Encoding" } })
    assert.equal("Accept-Encoding, Origin", get(port, "https://a.example")["Vary"])
    port = start(options, { headers = { ["Vary"] = "Accept, origin" } })
    assert.equal("Accept, origin", get(port, "https://a.example")["Vary"])
  end)

  it("replaces what the application says itself", function()
    local own = { ["Access-Control-Allow-Origin"] = "*", ["Access-Control-Allow-Credentials"] = "true",
      ["Access-Control-Expose-Headers"] = "X-All" }
    local port = start('{ origins = { "https://a.example" } }', { headers = own })
    local headers = get(port, "https://evil.example")
    for name in pairs(own) do assert.is_nil(headers[name], name) end
    headers = get(port, "https://a.example")
    assert.same({ "https://a.example" }, headers:all "Access-Control-Allow-Origin")
    assert.is_nil(headers["Access-Control-Allow-Credentials"])
  end)

  it("asks a function, and takes null for an origin where it is listed", function()
    local port = start '{ origins = function(origin, req) return origin == "https://" .. req.args.tenant end }'
    local function allowed(target)
      local headers = { ["Origin"] = "https://a.example" }
      return http.get(port, target, { headers = headers }).headers["Access-Control-Allow-Origin"]
    end
    assert.equal("https://a.example", allowed "/?tenant=a.example")
    assert.is_nil(allowed "/?tenant=b.example")
    port = start '{ origins = { "null" } }'
    assert.equal("null", get(port, "null")["Access-Control-Allow-Origin"])
    assert.is_nil(get(port, "https://a.example")["Access-Control-Allow-Origin"])
  end)

  it("echoes no more than names in a preflight", function()
    local port = start '{ origins = "*" }'
    assert.equal("x-a, x-b", preflight(port, "https://a.example", "x-a, x-b").headers["Access-Control-Allow-Headers"])
    for _, asked in ipairs { "x-a; x", "<x>", ("x"):rep(5000) } do
      assert.is_nil(preflight(port, "https://a.example", asked).headers["Access-Control-Allow-Headers"])
    end
  end)

  it("lets pages into a private network only if it is told so", function()
    for more, said in pairs { [""] = false, ["private_network = true"] = "true" } do
      local response = http.exchange(start('{ origins = "*", ' .. more .. " }"), "OPTIONS", "/", { headers = {
        ["Origin"] = "https://a.example", ["Access-Control-Request-Method"] = "GET",
        ["Access-Control-Request-Private-Network"] = "true",
      } })
      assert.equal(said or nil, response.headers["Access-Control-Allow-Private-Network"])
    end
  end)

  it("holds for some paths only, and tells times if it is told so", function()
    local port = start '{ origins = "*", paths = { "/api" }, timing = true }'
    local function headers(target)
      return http.get(port, target, { headers = { ["Origin"] = "https://a.b" } }).headers
    end
    assert.equal("*", headers "/api/x"["Access-Control-Allow-Origin"])
    assert.equal("*", headers "/api/x"["Timing-Allow-Origin"])
    assert.is_nil(headers "/apis"["Access-Control-Allow-Origin"])
  end)

  it("keeps out what would change something and comes from elsewhere, if it is told so", function()
    local port, backend = start '{ origins = { "https://a.example" }, refuse = true }'
    local function post(origin, method)
      local headers = { ["Origin"] = origin, ["Host"] = "www.example" }
      return http.exchange(port, method or "POST", "/", { headers = headers }).status
    end
    assert.equal(403, post "https://evil.example")
    assert.equal(403, post "null")
    assert.equal(0, #backend.requests)
    assert.equal(200, post "https://a.example")
    assert.equal(200, post "http://www.example")
    assert.equal(403, post "https://www.example") -- the same host is another origin by another scheme
    assert.equal(200, post(nil))
    assert.equal(200, post("https://evil.example", "GET"))
  end)

  it("refuses wrong options", function()
    policy.assert_refused("cors", {
      ["{}"] = "cors: origins: say who may read",
      ['{ origins = { "app.example.com" } }'] = "cors: origins[1]: expected one such as",
      ['{ origins = { "https://app.example.com/" } }'] = "cors: origins[1]: expected one such as",
      ['{ origins = { "https://*example.com" } }'] = "cors: origins[1]: a * stands for the first labels only",
      ['{ origins = "*", credentials = true }'] = "cors: credentials: browsers refuse them",
      ['{ origins = "*", methods = { "GET, PUT" } }'] = "cors: methods: expected a name",
      ['{ origins = 1 }'] = "cors: origins: expected a list of origins",
      ['{ origins = "*", max_age = "long" }'] = "cors: max_age: expected a time",
      ['{ origin = "*" }'] = 'cors: unknown option "origin", did you mean "origins"?',
    })
  end)
end)
