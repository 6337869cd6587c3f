/* gate.shared(name, { size = "16M" }): a dictionary that all workers and generations see (store/shared.h). Values are
 * booleans, numbers and strings.
 *
 * The store gives strings as malloc'd copies. A copy belongs to the handle until it has become a Lua string, for that
 * may be refused. */
#include "lua/bind.h"

#include "base/buffer.h"
#include "store/shared.h"

#include <math.h>

enum { KEY_MAX = 1024, KEYS_DEFAULT = 1000, KEYS_MAX = 10000, NAME_BYTES = 64 };

struct dictionary {
    struct handle handle;
    struct shared *shared;
    struct shared_value value; /* on its way to Lua */
    struct buffer keys;        /* the same: length and bytes of each */
    size_t keys_left;
    char name[NAME_BYTES + 1];
};

static void drop_values(struct dictionary *d) {
    shared_value_fini(&d->value);
    d->value = (struct shared_value){ .kind = SHARED_NIL };
    buffer_fini(&d->keys);
}

static void dictionary_collect(void *pointer) { drop_values(pointer); }

static const struct handle_kind kind = { .name = "moongate.shared", .collect = dictionary_collect };

/* ---- self and arguments */

static struct dictionary *dictionary_self(lua_State *L) { return object_self(L, 1, &kind); }

static struct slice key_check(lua_State *L) {
    int type = lua_type(L, 2);
    if (type != LUA_TSTRING && type != LUA_TNUMBER) luaL_typeerror(L, 2, "string");
    struct slice key = text_check(L, 2);
    if (key.n == 0 || key.n > KEY_MAX) luaL_argerror(L, 2, "a key has 1 to 1024 bytes");
    return key;
}

static struct shared_value value_check(lua_State *L, int arg) {
    struct shared_value value = { .kind = SHARED_NIL };
    switch (lua_type(L, arg)) {
    case LUA_TBOOLEAN: return (struct shared_value){ .kind = SHARED_BOOLEAN, .boolean = lua_toboolean(L, arg) };
    case LUA_TNUMBER:
        if (lua_isinteger(L, arg))
            return (struct shared_value){ .kind = SHARED_INTEGER, .integer = lua_tointeger(L, arg) };
        return (struct shared_value){ .kind = SHARED_NUMBER, .number = lua_tonumber(L, arg) };
    case LUA_TSTRING: return (struct shared_value){ .kind = SHARED_STRING, .string = text_check(L, arg) };
    default: luaL_typeerror(L, arg, "boolean, number or string"); return value;
    }
}

static struct shared_value number_opt(lua_State *L, int arg, lua_Integer missing) {
    if (lua_isnoneornil(L, arg)) return (struct shared_value){ .kind = SHARED_INTEGER, .integer = missing };
    if (lua_type(L, arg) != LUA_TNUMBER) luaL_typeerror(L, arg, "number");
    return value_check(L, arg);
}

/* 0: for ever. A time to live of nothing is a mistake. */
static double ttl_opt(lua_State *L, int arg) {
    double ttl = seconds_opt(L, arg, 0);
    if (ttl == 0 && !lua_isnoneornil(L, arg)) luaL_argerror(L, arg, "ttl is more than 0 seconds");
    return ttl;
}

static int fail_full(lua_State *L, const struct dictionary *d) {
    return fail_world_with(L, failure_word(FAIL_TOO_LARGE), "the shared dictionary '%s' is full", d->name);
}

static void push_value(lua_State *L, const struct shared_value *v) {
    switch (v->kind) {
    case SHARED_NIL: lua_pushnil(L); break;
    case SHARED_BOOLEAN: lua_pushboolean(L, v->boolean); break;
    case SHARED_INTEGER: lua_pushinteger(L, v->integer); break;
    case SHARED_NUMBER: lua_pushnumber(L, v->number); break;
    case SHARED_STRING: lua_pushlstring(L, v->string.n ? v->string.p : "", v->string.n); break;
    }
}

/* ---- methods */

static int shared_get_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    drop_values(d);
    shared_get(d->shared, key, &d->value, NULL);
    push_value(L, &d->value);
    drop_values(d);
    return 1;
}

static int shared_ttl_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    double left = 0;
    drop_values(d);
    shared_get(d->shared, key, &d->value, &left);
    if (d->value.kind == SHARED_NIL) lua_pushnil(L);
    else lua_pushnumber(L, left > 0 ? left : HUGE_VAL);
    drop_values(d);
    return 1;
}

static int shared_set_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    if (lua_isnil(L, 3)) {
        shared_remove(d->shared, key);
        lua_pushboolean(L, 1);
        return 1;
    }
    struct shared_value value = value_check(L, 3);
    if (shared_set(d->shared, key, &value, ttl_opt(L, 4)) != FAIL_NONE) return fail_full(L, d);
    lua_pushboolean(L, 1);
    return 1;
}

static int shared_add_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    struct shared_value value = value_check(L, 3);
    bool added = false;
    if (shared_add(d->shared, key, &value, ttl_opt(L, 4), &added) != FAIL_NONE) return fail_full(L, d);
    lua_pushboolean(L, added);
    if (added) return 1;
    lua_pushliteral(L, "exists");
    return 2;
}

static int shared_incr_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    struct shared_value by = number_opt(L, 3, 1), start = number_opt(L, 4, 0), sum = { .kind = SHARED_NIL };
    double ttl = ttl_opt(L, 5);
    enum failure why = FAIL_NONE;
    if (!shared_incr(d->shared, key, &by, &start, ttl, &sum, &why)) {
        if (why != FAIL_NONE) return fail_full(L, d);
        return luaL_error(L, "shared dictionary '%s': what is stored under that key is not a number", d->name);
    }
    push_value(L, &sum);
    return 1;
}

static int shared_remove_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    lua_pushboolean(L, shared_remove(d->shared, key_check(L)));
    return 1;
}

static bool keep_key(void *with, struct slice key) {
    struct dictionary *d = with;
    if (d->keys_left == 0) return false;
    buffer_append(&d->keys, &key.n, sizeof key.n);
    buffer_append(&d->keys, key.p, key.n);
    return --d->keys_left > 0;
}

static int shared_keys_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    char key[KEY_MAX];
    size_t n;
    lua_Integer max = luaL_optinteger(L, 2, KEYS_DEFAULT);
    if (max < 1 || max > KEYS_MAX) return luaL_argerror(L, 2, "1 to 10000 expected");
    drop_values(d);
    d->keys_left = (size_t)max;
    shared_keys(d->shared, keep_key, d);
    lua_newtable(L);
    for (lua_Integer i = 1; d->keys.size; i++) {
        buffer_peek(&d->keys, &n, sizeof n);
        buffer_drop(&d->keys, sizeof n);
        buffer_peek(&d->keys, key, n);
        buffer_drop(&d->keys, n);
        budget_spend(L, 1);
        lua_pushlstring(L, key, n);
        lua_rawseti(L, -2, i);
    }
    return 1;
}

static const luaL_Reg methods[] = {
    { "get", shared_get_method },       { "set", shared_set_method },
    { "add", shared_add_method },       { "incr", shared_incr_method },
    { "remove", shared_remove_method }, { "ttl", shared_ttl_method },
    { "keys", shared_keys_method },     { NULL, NULL },
};

static int dictionary_index(lua_State *L) {
    static const struct field none[] = { { NULL, NULL, NULL } };
    return object_index(L, dictionary_self(L), none, "a shared dictionary");
}

static int dictionary_newindex(lua_State *L) {
    return luaL_error(L, "a shared dictionary has no fields to assign (use set)");
}

static const luaL_Reg metamethods[] = { { "__index", dictionary_index },
                                        { "__newindex", dictionary_newindex },
                                        { NULL, NULL } };

/* ---- open */

static uint64_t size_option(lua_State *L) {
    static const char *const names[] = { "size", NULL };
    uint64_t bytes = 0;
    options_check(L, 2, "gate.shared", names);
    if (option_push(L, 2, "size") == LUA_TNIL) return 0;
    if (!size_read(L, -1, &bytes) || bytes < 4096)
        luaL_error(L, "gate.shared: size is 4K or more, a whole number of bytes or such as \"16M\"");
    return bytes;
}

static int gate_shared(lua_State *L) {
    lua_settop(L, 2);
    if (lua_type(L, 1) != LUA_TSTRING) return luaL_typeerror(L, 1, "string");
    struct slice name = text_check(L, 1);
    if (name.n == 0 || name.n > NAME_BYTES || memchr(name.p, 0, name.n))
        return luaL_argerror(L, 1, "a name has 1 to 64 bytes");
    uint64_t bytes = size_option(L);
    struct dictionary *d = object_new(L, &kind, sizeof *d, 0);
    memcpy(d->name, name.p, name.n);
    d->shared = shared_open(name, (size_t)bytes);
    return 1;
}

void bind_shared_open(lua_State *L) {
    object_kind_open(L, &kind, NULL, metamethods, methods);
    lua_pushcfunction(L, gate_shared);
    lua_setfield(L, -2, "shared");
}
