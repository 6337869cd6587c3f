/* Plain data between Lua and its packed form (store/packed.h). */
#pragma once

#include "lua/engine.h"
#include "store/packed.h"

/* The state's own packing, empty: to be used before any other script code runs. Its bytes stay where they are until the
 * next call. */
struct packing *packing_of(lua_State *L);
/* Packs the value at `index` behind what is there: booleans, numbers, strings and tables of these, read raw. Raises,
 * with `what` ("a value") in front, for what is no plain data, holds itself or is nested more than 32 levels deep. Too
 * large: packing->refused. */
void packing_add(lua_State *L, struct packing *, int index, const char *what);
/* Pushes the value at the front; what stands behind it. May be refused memory. */
struct slice packed_push(lua_State *L, struct slice from);

void packed_value_open(lua_State *L); /* makes packing_of's object */
