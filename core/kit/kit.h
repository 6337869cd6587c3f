/* The test kit's C side: rehearsals (server/rehearsal.h) as an ordinary Lua program sees them. lua/moongate/testing.lua
 * makes what people use of it; nothing else requires it. Beside core/lua the only folder that knows lua.h: the state
 * here is the test's (lua5.4's, busted's), never a policy's. */
#pragma once

#include "lua/state.h"

#include <lua.h>

/* `require "moongate_kit"`:
 *   open(options) -> rehearsal, or nil, all errors       see kit.c
 *   coverage()    -> { [file] = { [line] = times } }, of all rehearsals that were opened with `coverage`
 *   json(value)   -> text; `null` stands for null */
int luaopen_moongate_kit(lua_State *L);

/* coverage.c: what executed, of the whole process. */
struct coverage *kit_coverage(void);
int kit_coverage_push(lua_State *L); /* a lua_CFunction */

/* json.c */
int kit_json(lua_State *L); /* likewise */
void kit_push_null(lua_State *L);
