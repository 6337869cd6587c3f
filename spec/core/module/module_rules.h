/* What the modules of the caching rules share: messages from text, one field on each line, and tables of results. */
#pragma once

#include "module.h"

#include "http/message.h"

/* The fields of the string at `index` ("Name: value\n…"; nil: none), in the arena. */
void rules_read_fields(lua_State *L, int index, struct headers *, struct arena *);
/* The same from a field of the table at 1. */
void rules_field_fields(lua_State *L, const char *field, struct headers *, struct arena *);
void rules_push_fields(lua_State *L, const struct headers *);
lua_Integer rules_integer(lua_State *L, const char *field, lua_Integer otherwise); /* of the table at 1 */
bool rules_boolean(lua_State *L, const char *field);
struct slice rules_slice(lua_State *L, const char *field); /* Lua keeps it while the table lives */
void rules_set_integer(lua_State *L, const char *field, int64_t);
void rules_set_boolean(lua_State *L, const char *field, bool);
