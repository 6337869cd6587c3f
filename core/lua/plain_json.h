/* JSON as tokens and key sets have it: plain data, strict. What two readers could read differently is refused: names
 * that come twice, numbers beyond 64 bits, NUL, bytes behind the end. Integers stay integers. */
#pragma once

#include "lua/engine.h"

enum { JSON_LEVELS = 32 };

/* Pushes the object that a text is; NULL. Else pushes nothing, and says why not (static, or in `room`, of 160 bytes). A
 * null is an absent member; within a list there is none. May raise for lack of memory. */
const char *json_push_object(lua_State *L, struct slice text, char room[160]);

/* Pushes the text of the table at `index`: an object, or a list where it is a sequence of at least one. Members of the
 * table at `more` (0: none) take the place of those of the same name. Returns NULL, or, with nothing pushed, why there
 * is no such text. */
const char *json_push_text(lua_State *L, int index, int more);
