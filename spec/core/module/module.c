/* The test module's door: a table of tables. */
#include "module.h"

int luaopen_moongate_core(lua_State *L);

static const luaL_Reg parts[] = {
    { "base", module_base_open },
    { "buffer", module_buffer_open },
    { "map", module_map_open },
    { "value", module_value_open },
    { "http", module_http_open },
    { "headers", module_headers_open },
    { "uri", module_uri_open },
    { "net", module_net_open },
    { "store", module_store_open },
    { "lua", module_lua_open },
    { "proxy", module_proxy_open },
    { "coding", module_coding_open },
    { "limit", module_limit_open },
    { "frozen", module_frozen_open },
    { "cache", module_cache_open },
    { "disk", module_disk_open },
    { "rules", module_rules_open },
    { "parts", module_parts_open },
    { NULL, NULL },
};

struct slice module_check_slice(lua_State *L, int index) {
    struct slice s;
    s.p = luaL_checklstring(L, index, &s.n);
    return s;
}

struct slice module_opt_slice(lua_State *L, int index) {
    if (lua_isnoneornil(L, index)) return (struct slice){ NULL, 0 };
    return module_check_slice(L, index);
}

void module_push_slice(lua_State *L, struct slice s) {
    if (s.p) lua_pushlstring(L, s.p, s.n);
    else lua_pushnil(L);
}

void module_set_slice(lua_State *L, const char *field, struct slice s) {
    module_push_slice(L, s);
    lua_setfield(L, -2, field);
}

void module_push_buffer(lua_State *L, const struct buffer *b) {
    luaL_Buffer text;
    char *to = luaL_buffinitsize(L, &text, b->size);
    buffer_peek(b, to, b->size);
    luaL_pushresultsize(&text, b->size);
}

void module_make_type(lua_State *L, const char *name, const luaL_Reg *methods) {
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

__attribute__((visibility("default"))) int luaopen_moongate_core(lua_State *L) {
    lua_newtable(L);
    for (const luaL_Reg *part = parts; part->name; part++) {
        part->func(L);
        lua_setfield(L, -2, part->name);
    }
    return 1;
}
