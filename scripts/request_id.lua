-- Gives every request an id that the client, the application and the logs share.
--
--     use = { require "scripts.request_id" { header = "X-Request-Id" } }
--
-- The application gets it as a header field of the request, the client as one of the response; other hooks find it in
-- `req.ctx.request_id`. With `trust` an id that came with the request is kept (say so only behind a proxy of your own).

local known = { header = "string", trust = "boolean" }

---@class request_id.Options
---@field header? string name of the field, "X-Request-Id"
---@field trust? boolean keep an id that the request brings, if it is at most 128 letters, digits and `._-=+/:`; false

---@param options? request_id.Options
---@return moongate.Policy
return function(options)
  options = options or {}
  if type(options) ~= "table" then error("request_id: expected a table of options, got " .. type(options), 2) end
  for name, value in pairs(options) do
    if not known[name] then error(("request_id: unknown option %q"):format(tostring(name)), 2) end
    if type(value) ~= known[name] then error(("request_id: %s: expected a %s"):format(name, known[name]), 2) end
  end
  local header, trust = options.header or "X-Request-Id", options.trust
  if not header:find "^[%w!#$%%&'*+.^_`|~-]+$" then error(("request_id: header: %q is no name"):format(header), 2) end

  local function id_of(req)
    local given = trust and req.headers[header]
    if given and #given <= 128 and given:find "^[%w._=+/:-]+$" then return given end
    return req.id
  end

  return {
    on_request = function(req)
      local id = id_of(req)
      req.ctx.request_id = id
      req.headers[header] = id
    end,
    on_response = function(req, res)
      res.headers[header] = req.ctx.request_id or req.id
    end,
  }
end
