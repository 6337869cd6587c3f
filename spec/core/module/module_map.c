/* Maps as objects from strings to integers (kept as pointers, so 0 is out), and the hashes. */
#include "module.h"

#include "base/map.h"

#define MAP_TYPE "moongate_core.map"

static struct map *check_map(lua_State *L) { return luaL_checkudata(L, 1, MAP_TYPE); }

static int push_former(lua_State *L, void *value) {
    if (value) lua_pushinteger(L, (lua_Integer)(intptr_t)value);
    else lua_pushnil(L);
    return 1;
}

static int map_lua_new(lua_State *L) {
    memset(lua_newuserdatauv(L, sizeof(struct map), 0), 0, sizeof(struct map));
    luaL_setmetatable(L, MAP_TYPE);
    return 1;
}

static int map_lua_fini(lua_State *L) {
    map_fini(check_map(L));
    return 0;
}

static int map_lua_get(lua_State *L) { return push_former(L, map_get(check_map(L), module_check_slice(L, 2))); }

static int map_lua_set(lua_State *L) {
    lua_Integer value = luaL_checkinteger(L, 3);
    luaL_argcheck(L, value != 0, 3, "not 0");
    return push_former(L, map_set(check_map(L), module_check_slice(L, 2), (void *)(intptr_t)value));
}

static int map_lua_remove(lua_State *L) { return push_former(L, map_remove(check_map(L), module_check_slice(L, 2))); }

static int map_lua_count(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)check_map(L)->count);
    return 1;
}

/* All of it as a table. */
static int map_lua_all(lua_State *L) {
    struct slice key;
    void *value;
    lua_newtable(L);
    for (size_t i = 0; map_next(check_map(L), &i, &key, &value);) {
        module_push_slice(L, key);
        lua_pushinteger(L, (lua_Integer)(intptr_t)value);
        lua_settable(L, -3);
    }
    return 1;
}

static int map_lua_hash(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)hash_bytes(module_check_slice(L, 1)));
    lua_pushinteger(L, (lua_Integer)hash_bytes_stable(module_check_slice(L, 1)));
    struct digest digest = digest_bytes(module_check_slice(L, 1));
    lua_pushlstring(L, (const char *)&digest, sizeof digest);
    return 3;
}

static const luaL_Reg methods[] = {
    { "get", map_lua_get },
    { "set", map_lua_set },
    { "remove", map_lua_remove },
    { "count", map_lua_count },
    { "all", map_lua_all },
    { "__gc", map_lua_fini },
    { NULL, NULL },
};

int module_map_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "new", map_lua_new }, { "hash", map_lua_hash }, { NULL, NULL } };
    module_make_type(L, MAP_TYPE, methods);
    luaL_newlib(L, functions);
    return 1;
}
