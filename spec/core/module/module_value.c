/* Values as objects: value.from(anything) -> an object; its table part is added pair by pair in the order of `next`. */
#include "module.h"

#define VALUE_TYPE "moongate_core.value"

static struct value *check_value(lua_State *L, int index) { return luaL_checkudata(L, index, VALUE_TYPE); }

static struct value read_table(lua_State *L, int index) {
    struct value table = { .kind = VALUE_TABLE };
    luaL_checkstack(L, 4, "value");
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        struct value key = module_read_value(L, lua_absindex(L, -2));
        value_add(&table, key, module_read_value(L, lua_absindex(L, -1)));
    }
    return table;
}

struct value module_read_value(lua_State *L, int index) {
    switch (lua_type(L, index)) {
    case LUA_TNIL: return (struct value){ .kind = VALUE_NIL };
    case LUA_TBOOLEAN: return (struct value){ .kind = VALUE_BOOLEAN, .boolean = lua_toboolean(L, index) };
    case LUA_TNUMBER:
        if (lua_isinteger(L, index)) return (struct value){ .kind = VALUE_INTEGER, .integer = lua_tointeger(L, index) };
        return (struct value){ .kind = VALUE_NUMBER, .number = lua_tonumber(L, index) };
    case LUA_TSTRING: return value_string(module_check_slice(L, index));
    case LUA_TTABLE: return read_table(L, index);
    case LUA_TFUNCTION: return (struct value){ .kind = VALUE_FUNCTION };
    default: return (struct value){ .kind = VALUE_OTHER, .other = luaL_typename(L, index) };
    }
}

static int push_object(lua_State *L, struct value value) {
    *(struct value *)lua_newuserdatauv(L, sizeof value, 0) = value;
    luaL_setmetatable(L, VALUE_TYPE);
    return 1;
}

static void push_value(lua_State *L, const struct value *value) {
    switch (value->kind) {
    case VALUE_BOOLEAN: lua_pushboolean(L, value->boolean); break;
    case VALUE_INTEGER: lua_pushinteger(L, value->integer); break;
    case VALUE_NUMBER: lua_pushnumber(L, value->number); break;
    case VALUE_STRING: module_push_slice(L, value->string); break;
    default: lua_pushstring(L, value_kind_name(value));
    }
}

static int value_lua_from(lua_State *L) {
    luaL_checkany(L, 1);
    return push_object(L, module_read_value(L, 1));
}

/* value.build { {k, v}, ... }: pairs added in exactly this order. */
static int value_lua_build(lua_State *L) {
    struct value table = { .kind = VALUE_TABLE };
    for (lua_Integer i = 1; i <= luaL_len(L, 1); i++) {
        lua_settop(L, 1);
        lua_geti(L, 1, i);
        lua_geti(L, 2, 1);
        lua_geti(L, 2, 2);
        struct value key = module_read_value(L, 3);
        value_add(&table, key, module_read_value(L, 4));
    }
    return push_object(L, table);
}

static int value_lua_fini(lua_State *L) {
    value_fini(check_value(L, 1));
    return 0;
}

static int value_lua_kind(lua_State *L) {
    lua_pushstring(L, value_kind_name(check_value(L, 1)));
    return 1;
}

static int push_found(lua_State *L, const struct value *found) {
    if (found) push_value(L, found);
    else lua_pushnil(L);
    return 1;
}

static int value_lua_get(lua_State *L) { return push_found(L, value_get(check_value(L, 1), luaL_checkstring(L, 2))); }

static int value_lua_at(lua_State *L) {
    return push_found(L, value_at(check_value(L, 1), (size_t)luaL_checkinteger(L, 2)));
}

static int value_lua_equal(lua_State *L) {
    lua_pushboolean(L, value_equal(check_value(L, 1), check_value(L, 2)));
    return 1;
}

static int value_lua_difference(lua_State *L) {
    char path[32];
    value_difference(check_value(L, 1), check_value(L, 2), path, sizeof path);
    lua_pushstring(L, path);
    return 1;
}

static int value_lua_copy(lua_State *L) { return push_object(L, value_copy(check_value(L, 1))); }

/* The keys of a table in the order they are kept, and how many are its sequence. */
static int value_lua_keys(lua_State *L) {
    const struct value *value = check_value(L, 1);
    luaL_argcheck(L, value->kind == VALUE_TABLE, 1, "not a table");
    lua_newtable(L);
    for (size_t i = 0; i < value->table.count; i++) {
        push_value(L, &value->table.list[i].key);
        lua_seti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushinteger(L, (lua_Integer)value->table.sequence);
    return 2;
}

static const luaL_Reg methods[] = {
    { "kind", value_lua_kind },
    { "get", value_lua_get },
    { "at", value_lua_at },
    { "equal", value_lua_equal },
    { "difference", value_lua_difference },
    { "copy", value_lua_copy },
    { "keys", value_lua_keys },
    { "__gc", value_lua_fini },
    { NULL, NULL },
};

int module_value_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "from", value_lua_from }, { "build", value_lua_build }, { NULL, NULL } };
    module_make_type(L, VALUE_TYPE, methods);
    luaL_newlib(L, functions);
    return 1;
}
