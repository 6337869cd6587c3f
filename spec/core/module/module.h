/* `require "moongate_core"`: the core's C functions as Lua sees them in specs, as in Lua's own ltests. Built only for
 * the specs. One module_<thing>.c per thing; each has an open function that leaves its table on the stack, and a line
 * in module.c. Arguments are checked by luaL_check*; what a spec does wrong raises. */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"
#include "base/value.h"

#include <lauxlib.h>
#include <lua.h>

int module_base_open(lua_State *L);
int module_buffer_open(lua_State *L);
int module_map_open(lua_State *L);
int module_value_open(lua_State *L);
int module_http_open(lua_State *L);
int module_headers_open(lua_State *L);
int module_uri_open(lua_State *L);
int module_net_open(lua_State *L);
int module_store_open(lua_State *L);
int module_limit_open(lua_State *L);
int module_frozen_open(lua_State *L);
int module_lua_open(lua_State *L);
int module_proxy_open(lua_State *L);
int module_coding_open(lua_State *L);
int module_cache_open(lua_State *L);
int module_disk_open(lua_State *L);
int module_rules_open(lua_State *L);
int module_parts_open(lua_State *L);

/* A string argument; Lua keeps it alive while it is on the stack. */
struct slice module_check_slice(lua_State *L, int index);
/* nil and none: p NULL. */
struct slice module_opt_slice(lua_State *L, int index);
/* nil for p NULL. */
void module_push_slice(lua_State *L, struct slice);
void module_set_slice(lua_State *L, const char *field, struct slice);
/* Whatever is there, functions as such. The caller frees it. */
struct value module_read_value(lua_State *L, int index);
/* All bytes of a buffer. */
void module_push_buffer(lua_State *L, const struct buffer *);
/* A type of userdata, for luaL_setmetatable: its methods, and metamethods among them. */
void module_make_type(lua_State *L, const char *name, const luaL_Reg *methods);
