-- What policies need that change bodies of certain types on their way.

local rewrite = {}

-- The codings that the core can take off.
local codings <const> = { gzip = true, ["x-gzip"] = true, deflate = true, br = true, zstd = true, identity = true }

local function keep_known(accepted)
  local kept = {}
  for entry in accepted:gmatch "[^,]+" do
    local coding = entry:match "^%s*([^%s;]+)"
    if coding and codings[coding:lower()] then kept[#kept + 1] = entry:match "^%s*(.-)%s*$" end
  end
  return #kept > 0 and table.concat(kept, ", ") or "identity"
end

-- Browsers send few different lists. Strangers may send many, of which some are remembered.
local remembered, room = {}, 64

local function known_codings(accepted)
  local text = remembered[accepted]
  if text then return text end
  text = keep_known(accepted)
  if room > 0 and #accepted <= 256 then remembered[accepted], room = text, room - 1 end
  return text
end

---Makes it possible to change the answer: asks for no part of it, and for no coding that cannot be taken off. What the
---client does not take is not sent to it either way: the core codes again only as the client wants it.
---@param req moongate.Request
function rewrite.prepare(req)
  local headers = req.headers
  if headers["Range"] then headers["Range"], headers["If-Range"] = nil, nil end
  local accepted = headers["Accept-Encoding"]
  local text = accepted and known_codings(accepted)
  if text ~= accepted then headers["Accept-Encoding"] = text end
end

---The media type of a message, in lower case and without parameters; nil if it does not say.
---@param headers moongate.Headers
---@return string?
function rewrite.type_of(headers)
  local name = (headers["Content-Type"] or ""):match "^%s*([^%s;]+)"
  return name and name:lower()
end

---A kind of option (moongate.options): a list of media types, such as { "text/html", "text/*", "*/*" }.
---@param value any
---@return string? wanted
function rewrite.is_types(value)
  local well = type(value) == "table" and #value > 0
  for _, name in ipairs(well and value or {}) do
    well = well and type(name) == "string" and (name:find "^[%l%d.+-]+/[%l%d.+*-]+$" ~= nil or name == "*/*")
  end
  if not well then return 'a list of media types such as { "text/html", "text/*" }, in lower case' end
end

---A function that tells whether a media type is among some.
---@param list string[]
---@return fun(name: string?): boolean
function rewrite.types(list)
  local exact, families = {}, {}
  for _, name in ipairs(list) do
    local family = name:match "^(.+)/%*$"
    if family then families[family] = true else exact[name] = true end
  end
  return function(name)
    if not name then return families["*"] or false end
    return exact[name] or families["*"] or families[name:match "^[^/]*"] or false
  end
end

return rewrite
