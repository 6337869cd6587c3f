/* Values between the core and a test's tables. */
#include "kit/kit_inside.h"

struct slice field_text(lua_State *L, const char *name) {
    struct slice s = { NULL, 0 };
    if (lua_getfield(L, 2, name) != LUA_TNIL) s.p = luaL_checklstring(L, -1, &s.n);
    return s; /* the table keeps it */
}

double field_number(lua_State *L, const char *name, double missing) {
    double n = lua_getfield(L, 2, name) == LUA_TNIL ? missing : luaL_checknumber(L, -1);
    lua_pop(L, 1);
    return n;
}

void slice_push(lua_State *L, struct slice s) {
    if (s.p) lua_pushlstring(L, s.p, s.n);
    else lua_pushnil(L);
}

void text_set(lua_State *L, const char *field, const char *text) {
    lua_pushstring(L, text); /* NULL: nil */
    lua_setfield(L, -2, field);
}

void slice_set(lua_State *L, const char *field, struct slice s) {
    slice_push(L, s);
    lua_setfield(L, -2, field);
}

void number_set(lua_State *L, const char *field, double n) {
    lua_pushnumber(L, n);
    lua_setfield(L, -2, field);
}

void integer_set(lua_State *L, const char *field, lua_Integer n) {
    lua_pushinteger(L, n);
    lua_setfield(L, -2, field);
}

void header_list_push(lua_State *L, const struct headers *headers) {
    lua_newtable(L);
    lua_Integer n = 0;
    headers_each(h, headers) {
        lua_createtable(L, 2, 0);
        slice_push(L, h->name);
        lua_rawseti(L, -2, 1);
        slice_push(L, h->value);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, ++n);
    }
}
