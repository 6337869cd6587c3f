-- What ready-made policies do to header fields that hold lists.

local gate = require "moongate"

local fields = {}

---Takes one cookie out of what is forwarded.
---@param req moongate.Request
---@param name string
function fields.remove_cookie(req, name)
  local rest = {}
  for other, value in pairs(req.cookies) do
    if other ~= name then rest[#rest + 1] = other .. "=" .. value end
  end
  req.headers["Cookie"] = #rest > 0 and table.concat(rest, "; ") or nil
end

---Says in Vary that an answer depends on a field of the request.
---@param headers moongate.Headers
---@param name string
function fields.add_vary(headers, name)
  local vary = headers["Vary"]
  if vary == "*" or vary and (", " .. vary:lower() .. ","):find(", *" .. name:lower():gsub("%p", "%%%0") .. " *,") then
    return
  end
  headers["Vary"] = vary and vary .. ", " .. name or name
end

---A function that sets a cookie on an answer: HttpOnly, and Secure wherever that is possible or its name promises it.
---Nil and a sentence if browsers would not take it.
---@param name string
---@param given moongate.CookieOptions `secure` and `http_only` apart
---@return fun(req: moongate.Request, res: moongate.Response, value: string)?
---@return string? problem
function fields.cookie_setter(name, given)
  local must = given.same_site == "none" or name:find "^__" ~= nil
  local function line(value, secure)
    return gate.cookie.build(name, value, {
      path = given.path or "/", domain = given.domain, max_age = given.max_age, http_only = true, secure = secure,
      same_site = given.same_site or "lax",
    })
  end
  local ok, why = pcall(line, "x", true)
  if not ok then return nil, "cookie: " .. tostring(why):gsub("^%S+:%d+: ", "") end
  return function(req, res, value)
    res.headers:add("Set-Cookie", line(value, must or req.scheme == "https"))
  end
end

return fields
