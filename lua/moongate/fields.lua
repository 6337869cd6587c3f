-- What ready-made policies do to header fields that hold lists.

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

return fields
