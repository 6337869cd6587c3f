---@meta moongate.body
-- luacheck: no unused

-- Bodies: `req.body`, `res.body`, and the body of an answer that gate.fetch streams.

---The body of a message, to be read and to be changed on its way.
---
---Reading the body of an exchange does not take it away: it is still forwarded, and what is read is held until then,
---which `max` bounds. Once its message goes on, reading and changing raise: a request's body is for on_request, an
---answer's for on_response. A client that waits for it is told to continue. A fetched body is the script's alone: what
---was read is gone, and no more than a window is held of what was not.
---
---A content coding (gzip, deflate, br, zstd) is taken off for whoever reads or changes. A body that was only read goes
---on as it came; one that was changed is coded again as it was, if the other side takes that. Decoding is bounded: to
---the site's `max_body` (requests) or 4 GiB, and beyond 4 MiB to 250 times what came.
---
---A changed message has another length (it is sent in chunks, unless all of it is there when its head leaves), and
---loses what told of the former content: ETag, Accept-Ranges, digests. The head of a changed answer leaves with the
---first bytes of what it was changed to: what fails before that is an error page, later a torn answer that nobody
---takes for whole. Changes apply in the order in which they were declared, and `text` and `chunks` then give what was
---changed.
---
---A part of a content (206) cannot be changed, since the change could lie on its border: that raises. Where answers are
---changed, take the client's wish for parts away: `req.headers["Range"] = nil` in on_request.
---@class moongate.Body
local Body = {}

---All of it. Waits. World failures: `too_large`, it is longer than `max`; `body_timeout`, `bad_body`, `body_too_large`,
---`bad_content` (a request's); `truncated`, `between_timeout`, `bad_response`, `bad_response_content`,
---`response_too_large` (an answer's); `unknown_coding`; `partial`, a part of what has a coding.
---
---```lua
---local text, word = req.body:text "64K"
---if not text then return word == "too_large" and 413 or 400 end
---```
---@param max? moongate.Bytes default 1M
---@return string? text
---@return string? word
---@return string? sentence
function Body:text(max) end

---Visits it piece by piece, as it comes; pieces have at most 64 KiB. Waits. So that a loop that ends has seen all of
---it, failures raise here.
---
---```lua
---for piece in req.body:chunks "1M" do scan(piece) end
---```
---@param max? moongate.Bytes of the whole; default 1M, of a fetched body none
---@return fun(): string?
function Body:chunks(max) end

---@class moongate.ChangeOptions
---@field plain? boolean the changed body is sent without a content coding

---Has a function change it, piece by piece, while it flows. `f(piece)` is called for each, of 1 byte to 64 KiB,
---wherever they happen to be cut, and returns what is sent in its place, nil for nothing; at the end `f(nil)` may
---return a last piece. It may wait (the body waits with it), and has a hook's budget for each call. What it raises,
---or returns that is neither string nor nil, fails the message: 500 for a request, 502 for an answer, or a torn
---answer if its head has left. It ends with its policy, as hooks do (`drain`).
---
---Raises `unknown_coding` and `partial`, so that what must be changed never passes unchanged.
---
---```lua
---local size = 0
---res.body:map(function(piece)
---  if not piece then return ("<!-- %d bytes -->"):format(size) end
---  size = size + #piece
---  return piece
---end)
---```
---@param f fun(piece: string?): string?
---@param options? moongate.ChangeOptions
---@return moongate.Body self
function Body:map(f, options) end

---Puts one text in the place of another, wherever it stands, while the body flows: also across the borders of pieces,
---in C. With a table many at once, in one pass: where several match the leftmost counts, and there the longest; what
---was put in is not looked at again. `body:replace(pairs, options)` takes options as well. At most 256 texts of 4096
---bytes.
---
---Raises as `map` does.
---
---```lua
---res.body:replace("http://internal.example", "https://www.example.com")
---res.body:replace { ["{{user}}"] = name, ["{{year}}"] = "2026" }
---```
---@param from string|table<string, string> plain, no pattern
---@param to? string|moongate.ChangeOptions
---@param options? moongate.ChangeOptions
---@return moongate.Body self
function Body:replace(from, to, options) end
