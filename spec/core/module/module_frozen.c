/* core/store/frozen.c and frozen_file.c for specs. Values go in and come out as strings, numbers and booleans; of a
 * table only the number of its pairs. */
#include "module.h"
#include "store/frozen_file.h"

#include <lauxlib.h>
#include <lua.h>

static void push_packed(lua_State *L, struct slice from) {
    struct packed v;
    packed_read(from, &v);
    switch (v.kind) {
    case PACKED_BOOLEAN: lua_pushboolean(L, v.boolean); break;
    case PACKED_INTEGER: lua_pushinteger(L, v.integer); break;
    case PACKED_NUMBER: lua_pushnumber(L, v.number); break;
    case PACKED_STRING: module_push_slice(L, v.string); break;
    case PACKED_TABLE: lua_pushfstring(L, "table of %d", (int)v.table.pairs); break;
    }
}

static void add_value(lua_State *L, struct packing *p) {
    if (lua_isboolean(L, -1)) packing_boolean(p, lua_toboolean(L, -1));
    else if (lua_isinteger(L, -1)) packing_integer(p, lua_tointeger(L, -1));
    else if (lua_type(L, -1) == LUA_TNUMBER) packing_number(p, lua_tonumber(L, -1));
    else packing_string(p, module_check_slice(L, -1));
}

/* The map, or nil, what is wrong and its place. */
static int push_map(lua_State *L, struct frozen *f, enum frozen_fault why, uint32_t place) {
    static const char *const words[] = { "fine", "clash", "large" };
    if (f) {
        lua_pushlightuserdata(L, f);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, words[why]);
    lua_pushinteger(L, place);
    return 3;
}

/* make(name, { key, value, key, value… }) */
static int frozen_on_make(lua_State *L) {
    struct slice name = module_check_slice(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    struct frozen_maker *maker = frozen_begin();
    for (lua_Integer i = 1; i < (lua_Integer)lua_rawlen(L, 2); i += 2) {
        lua_rawgeti(L, 2, i);
        struct packing *p = frozen_add(maker, module_check_slice(L, -1), (uint32_t)i);
        lua_rawgeti(L, 2, i + 1);
        if (p) add_value(L, p);
        lua_pop(L, 2);
    }
    enum frozen_fault why;
    uint32_t place;
    struct frozen *f = frozen_end(maker, digest_bytes(name), &why, &place);
    return push_map(L, f, why, place);
}

/* read(text, format, numbers): as make, or nil, what is wrong and its line. */
static int frozen_on_read(lua_State *L) {
    static const char *const formats[] = { "lines", "csv", "tsv", "json", NULL };
    struct slice text = module_check_slice(L, 1);
    struct frozen_maker *maker = frozen_begin();
    struct frozen_trouble trouble;
    uint32_t line;
    enum frozen_format format = (enum frozen_format)luaL_checkoption(L, 2, NULL, formats);
    if (!frozen_read(maker, text, format, lua_toboolean(L, 3), &trouble)) {
        frozen_abandon(maker);
        lua_pushnil(L);
        lua_pushstring(L, trouble.what);
        lua_pushinteger(L, trouble.line);
        return 3;
    }
    enum frozen_fault why;
    struct digest source = frozen_digest(maker);
    struct frozen *f = frozen_end(maker, source, &why, &line);
    return push_map(L, f, why, line);
}

static int frozen_on_find(lua_State *L) {
    struct frozen *f = frozen_find(digest_bytes(module_check_slice(L, 1)));
    if (f) lua_pushlightuserdata(L, f);
    else lua_pushnil(L);
    return 1;
}

static int frozen_on_unref(lua_State *L) {
    frozen_unref(lua_touserdata(L, 1));
    return 0;
}

static int frozen_on_get(lua_State *L) {
    struct slice value;
    if (frozen_get(lua_touserdata(L, 1), module_check_slice(L, 2), &value)) push_packed(L, value);
    else lua_pushnil(L);
    return 1;
}

/* value, key, steps */
static int frozen_on_prefix(lua_State *L) {
    struct slice key, value;
    size_t steps;
    if (!frozen_prefix(lua_touserdata(L, 1), module_check_slice(L, 2), &key, &value, &steps)) {
        lua_pushnil(L);
        lua_pushnil(L);
    } else {
        push_packed(L, value);
        module_push_slice(L, key);
    }
    lua_pushinteger(L, (lua_Integer)steps);
    return 3;
}

/* A list of "key=value", in order. */
static int frozen_on_all(lua_State *L) {
    const struct frozen *f = lua_touserdata(L, 1);
    struct slice key, value;
    lua_Integer n = 0;
    lua_newtable(L);
    for (size_t at = 0; frozen_next(f, &at, &key, &value);) {
        module_push_slice(L, key);
        lua_pushliteral(L, "=");
        push_packed(L, value);
        luaL_tolstring(L, -1, NULL);
        lua_replace(L, -2);
        lua_concat(L, 3);
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

static int frozen_on_size(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)frozen_count(lua_touserdata(L, 1)));
    lua_pushinteger(L, (lua_Integer)frozen_bytes(lua_touserdata(L, 1)));
    return 2;
}

static const luaL_Reg functions[] = {
    { "make", frozen_on_make }, { "read", frozen_on_read },     { "find", frozen_on_find },
    { "get", frozen_on_get },   { "prefix", frozen_on_prefix }, { "all", frozen_on_all },
    { "size", frozen_on_size }, { "unref", frozen_on_unref },   { NULL, NULL },
};

int module_frozen_open(lua_State *L) {
    luaL_newlib(L, functions);
    return 1;
}
