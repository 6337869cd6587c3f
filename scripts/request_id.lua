-- Gives every request an id that the client, the application and the logs share.
--
--     use = { require "scripts.request_id" { header = "X-Request-Id" } }
--
-- The application gets it as a header field of the request, the client as one of the response; other hooks find it in
-- `req.ctx.request_id`. With `trust` an id that came with the request is kept (say so only behind a proxy of your own).

local options = require "moongate.options"

local known = { header = "string", trust = "boolean" }

---@class request_id.Options
---@field header? string name of the field, "X-Request-Id"
---@field trust? boolean keep an id that the request brings, if it is at most 128 letters, digits and `._-=+/:`; false

---@param given? request_id.Options
---@return moongate.Policy
return function(given)
  given = given or {}
  options.check("request_id", given, known)
  local header, trust = given.header or "X-Request-Id", given.trust
  if not header:find "^[%w!#$%%&'*+.^_`|~-]+$" then
    options.blame("request_id", ("header: %q is no name"):format(header))
  end

  local function id_of(req)
    local brought = trust and req.headers[header]
    if brought and #brought <= 128 and brought:find "^[%w._=+/:-]+$" then return brought end
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
