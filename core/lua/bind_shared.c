/* gate.shared(name, { max = "16M", evict = "lru" }): a dictionary that all workers and generations see
 * (store/shared.h). Values are booleans, numbers, strings, and tables of these.
 *
 * The store gives bytes as copies: short ones on the stack of the C function, longer ones malloc'd. Those belong to the
 * handle until they have become a Lua value, for that may be refused.
 *
 * What a config says of a dictionary holds for all handles of that name in its state, also for those that say nothing;
 * two that say different things are a mistake. */
#include "lua/bind.h"
#include "lua/packed_value.h"

#include "base/buffer.h"
#include "store/shared.h"

#include <math.h>

enum { KEYS_DEFAULT = 1000, KEYS_MAX = 10000, NAME_BYTES = 64, SHORT_VALUE = 512, WALK_BYTES = 16 << 10 };
enum { MAX_LEAST = 4096, MAX_DEFAULT = 16 << 20 };
enum { FREED_PER_STEP = 4 };

static const char DECLARED; /* registry: name -> struct declaration */

/* What one state says of a dictionary. */
struct declaration {
    struct shared_bounds bounds;
    bool said_max, said_evict;
};

struct dictionary {
    struct handle handle;
    struct shared *shared;
    const struct declaration *declaration; /* its user value keeps it */
    struct shared_value value;             /* on its way to Lua */
    char name[NAME_BYTES + 1];
};

static void dictionary_collect(void *pointer) { shared_value_fini(&((struct dictionary *)pointer)->value); }

static const struct handle_kind kind = { .name = "moongate.shared", .collect = dictionary_collect };

static const struct shared_bounds *bounds_of(const struct dictionary *d) { return &d->declaration->bounds; }

/* ---- self and arguments */

static struct dictionary *dictionary_self(lua_State *L) { return object_self(L, 1, &kind); }

static struct slice key_check(lua_State *L) {
    int type = lua_type(L, 2);
    if (type != LUA_TSTRING && type != LUA_TNUMBER) luaL_typeerror(L, 2, "string");
    struct slice key = text_check(L, 2);
    if (key.n == 0 || key.n > SHARED_KEY_MAX) luaL_argerror(L, 2, "a key has 1 to 1024 bytes");
    return key;
}

static struct shared_value number_at(lua_State *L, int arg) {
    if (lua_isinteger(L, arg)) return (struct shared_value){ .kind = SHARED_INTEGER, .integer = lua_tointeger(L, arg) };
    return (struct shared_value){ .kind = SHARED_NUMBER, .number = lua_tonumber(L, arg) };
}

/* A table is in the state's packing until the next one. Larger than that takes: as large as nothing can be. */
static struct shared_value table_at(lua_State *L, int arg) {
    struct packing *p = packing_of(L);
    packing_add(L, p, arg, "a value");
    return (struct shared_value){ .kind = SHARED_TABLE,
                                  .string = slice_make(p->bytes, p->refused ? SIZE_MAX : p->size) };
}

/* `or_nil`: nil is a value, too. */
static struct shared_value value_check(lua_State *L, int arg, bool or_nil) {
    switch (lua_type(L, arg)) {
    case LUA_TBOOLEAN: return (struct shared_value){ .kind = SHARED_BOOLEAN, .boolean = lua_toboolean(L, arg) };
    case LUA_TNUMBER: return number_at(L, arg);
    case LUA_TSTRING: return (struct shared_value){ .kind = SHARED_STRING, .string = text_check(L, arg) };
    case LUA_TTABLE: return table_at(L, arg);
    case LUA_TNIL:
        if (or_nil) break;
        __attribute__((fallthrough));
    default: luaL_typeerror(L, arg, "boolean, number, string or table");
    }
    return (struct shared_value){ .kind = SHARED_NIL };
}

static struct shared_value number_opt(lua_State *L, int arg, lua_Integer missing) {
    if (lua_isnoneornil(L, arg)) return (struct shared_value){ .kind = SHARED_INTEGER, .integer = missing };
    if (lua_type(L, arg) != LUA_TNUMBER) luaL_typeerror(L, arg, "number");
    return number_at(L, arg);
}

/* A time to live of nothing is a mistake. */
static double ttl_opt(lua_State *L, int arg, double missing) {
    double ttl = seconds_opt(L, arg, missing);
    if (ttl == 0 && !lua_isnoneornil(L, arg)) luaL_argerror(L, arg, "ttl is more than 0 seconds");
    return ttl;
}

static int fail_to_store(lua_State *L, const struct dictionary *d, enum failure why) {
    if (why == FAIL_FULL) return fail_world_with(L, failure_word(why), "the shared dictionary '%s' is full", d->name);
    return fail_world_with(L, failure_word(why), "the value is larger than the shared dictionary '%s'", d->name);
}

static void push_value(lua_State *L, const struct shared_value *v) {
    switch (v->kind) {
    case SHARED_NIL: lua_pushnil(L); break;
    case SHARED_BOOLEAN: lua_pushboolean(L, v->boolean); break;
    case SHARED_INTEGER: lua_pushinteger(L, v->integer); break;
    case SHARED_NUMBER: lua_pushnumber(L, v->number); break;
    case SHARED_STRING: lua_pushlstring(L, v->string.n ? v->string.p : "", v->string.n); break;
    case SHARED_TABLE: packed_push(L, v->string); break;
    }
}

/* ---- reading */

static int shared_get_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    char room[SHORT_VALUE];
    shared_value_fini(&d->value);
    shared_get(d->shared, bounds_of(d), key, room, sizeof room, &d->value, NULL);
    struct shared_value value = d->value;
    if (!value.owned) d->value.kind = SHARED_NIL; /* it lies in `room` */
    push_value(L, &value);
    shared_value_fini(&d->value);
    return 1;
}

static int shared_ttl_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    double left = 0;
    if (shared_look(d->shared, key_check(L), &left) == SHARED_NIL) lua_pushnil(L);
    else lua_pushnumber(L, left > 0 ? left : HUGE_VAL);
    return 1;
}

static int shared_count_method(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)shared_count(dictionary_self(L)->shared));
    return 1;
}

static int shared_memory_method(lua_State *L) {
    const struct dictionary *d = dictionary_self(L);
    lua_pushinteger(L, (lua_Integer)shared_bytes(d->shared));
    lua_pushinteger(L, (lua_Integer)bounds_of(d)->bytes);
    return 2;
}

/* ---- writing */

static int shared_set_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    luaL_checkany(L, 3);
    double ttl = ttl_opt(L, 4, 0);
    struct shared_value value = value_check(L, 3, true);
    enum failure why = shared_set(d->shared, bounds_of(d), key, &value, ttl, SHARED_ALWAYS, NULL);
    if (why != FAIL_NONE) return fail_to_store(L, d, why);
    lua_pushboolean(L, 1);
    return 1;
}

/* true, or false and why not. */
static int set_when(lua_State *L, enum shared_when when, const char *otherwise) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    double ttl = ttl_opt(L, 4, 0);
    struct shared_value value = value_check(L, 3, false);
    bool done = false;
    enum failure why = shared_set(d->shared, bounds_of(d), key, &value, ttl, when, &done);
    if (why != FAIL_NONE) return fail_to_store(L, d, why);
    lua_pushboolean(L, done);
    if (done) return 1;
    lua_pushstring(L, otherwise);
    return 2;
}

static int shared_add_method(lua_State *L) { return set_when(L, SHARED_IF_ABSENT, "exists"); }
static int shared_replace_method(lua_State *L) { return set_when(L, SHARED_IF_PRESENT, "absent"); }

static int shared_incr_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    struct shared_value by = number_opt(L, 3, 1), start = number_opt(L, 4, 0), sum;
    double ttl = ttl_opt(L, 5, 0);
    enum failure why = shared_incr(d->shared, bounds_of(d), key, &by, &start, ttl, &sum);
    if (why != FAIL_NONE) return fail_to_store(L, d, why);
    if (sum.kind == SHARED_NIL)
        return luaL_error(L, "shared dictionary '%s': what is stored under that key is not a number", d->name);
    push_value(L, &sum);
    return 1;
}

static int shared_touch_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    lua_pushboolean(L, shared_touch(d->shared, bounds_of(d), key, ttl_opt(L, 3, 0)));
    return 1;
}

static int shared_remove_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    lua_pushboolean(L, shared_remove(d->shared, key_check(L)));
    return 1;
}

static int shared_clear_method(lua_State *L) {
    size_t count = shared_clear(dictionary_self(L)->shared);
    lua_pushinteger(L, (lua_Integer)count);
    budget_spend(L, count * FREED_PER_STEP);
    return 1;
}

/* ---- update: the function is called without a lock, and again when the value has changed meanwhile */

/* What the function saw: it may use the dictionary itself, so this is no business of its handle. */
struct seen {
    struct handle handle;
    struct shared_value value;
    char room[SHORT_VALUE];
};

static void seen_collect(void *pointer) { shared_value_fini(&((struct seen *)pointer)->value); }

static const struct handle_kind seen_kind = { .name = "moongate.seen", .collect = seen_collect };

/* self, key, function, ttl, seen: asks the function; its value is on top. */
static void ask_function(lua_State *L, struct dictionary *d, struct slice key, struct seen *seen) {
    lua_settop(L, 5);
    shared_value_fini(&seen->value);
    shared_get(d->shared, bounds_of(d), key, seen->room, sizeof seen->room, &seen->value, NULL);
    lua_pushvalue(L, 3);
    push_value(L, &seen->value);
    lua_call(L, 1, 1);
    budget_spend(L, 1);
    int type = lua_type(L, -1);
    if (type == LUA_TFUNCTION || type == LUA_TUSERDATA || type == LUA_TLIGHTUSERDATA || type == LUA_TTHREAD)
        luaL_error(L, "the function of update returned a %s: boolean, number, string, table or nil expected",
                   lua_typename(L, type));
}

static int shared_update_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    struct slice key = key_check(L);
    luaL_checktype(L, 3, LUA_TFUNCTION);
    lua_settop(L, 4);
    double ttl = ttl_opt(L, 4, -1);
    struct seen *seen = object_new(L, &seen_kind, sizeof *seen, 0);
    for (bool done = false; !done;) {
        ask_function(L, d, key, seen);
        struct shared_value value = value_check(L, 6, true);
        enum failure why = shared_swap(d->shared, bounds_of(d), key, &seen->value, &value, ttl, &done);
        if (why != FAIL_NONE) return fail_to_store(L, d, why);
    }
    shared_value_fini(&seen->value);
    return 1;
}

/* ---- keys and pairs: a walk in steps, each copied before Lua sees any of it */

struct walk {
    struct handle handle;
    struct shared_cursor cursor;
    struct packing step; /* key, then value if `values` */
    struct slice rest;   /* of the step */
    struct slice prefix;
    bool values;
};

static void walk_collect(void *pointer) { packing_fini(&((struct walk *)pointer)->step); }

static const struct handle_kind walk_kind = { .name = "moongate.shared_walk", .collect = walk_collect };

static void pack_value(struct packing *p, const struct shared_value *v) {
    switch (v->kind) {
    case SHARED_NIL: break;
    case SHARED_BOOLEAN: packing_boolean(p, v->boolean); break;
    case SHARED_INTEGER: packing_integer(p, v->integer); break;
    case SHARED_NUMBER: packing_number(p, v->number); break;
    case SHARED_STRING: packing_string(p, v->string); break;
    case SHARED_TABLE: packing_raw(p, v->string); break;
    }
}

static void copy_entry(void *with, struct slice key, const struct shared_value *v) {
    struct walk *w = with;
    if (!slice_starts_with(key, w->prefix)) return;
    packing_string(&w->step, key);
    if (w->values) pack_value(&w->step, v);
}

/* Takes the next step that has something in it. False: the walk is over. */
static bool take_step(lua_State *L, struct shared *shared, struct walk *w) {
    while (w->rest.n == 0 && !w->cursor.ended) {
        w->step.size = 0;
        w->step.refused = false;
        size_t seen = shared_walk(shared, &w->cursor, WALK_BYTES, copy_entry, w);
        if (w->step.refused) luaL_error(L, "not enough memory");
        w->rest = slice_make(w->step.bytes, w->step.size);
        budget_spend(L, seen);
    }
    return w->rest.n > 0;
}

static struct walk *walk_new(lua_State *L, bool values) {
    struct walk *w = object_new(L, &walk_kind, sizeof *w, 1);
    w->step.limit = SIZE_MAX;
    w->values = values;
    return w;
}

static int shared_keys_method(lua_State *L) {
    struct dictionary *d = dictionary_self(L);
    lua_settop(L, 3);
    struct slice prefix = lua_isnil(L, 2) ? slice_make("", 0) : text_check(L, 2);
    lua_Integer max = luaL_optinteger(L, 3, KEYS_DEFAULT);
    if (max < 1 || max > KEYS_MAX) return luaL_argerror(L, 3, "1 to 10000 expected");
    struct walk *w = walk_new(L, false);
    w->prefix = prefix;
    lua_newtable(L);
    for (lua_Integer i = 1; i <= max && take_step(L, d->shared, w); i++) {
        w->rest = packed_push(L, w->rest);
        lua_rawseti(L, -2, i);
    }
    packing_fini(&w->step);
    return 1;
}

/* The iterator of pairs(d): upvalues the walk and the dictionary. */
static int next_entry(lua_State *L) {
    struct walk *w = object_self(L, lua_upvalueindex(1), &walk_kind);
    const struct dictionary *d = object_self(L, lua_upvalueindex(2), &kind);
    if (!take_step(L, d->shared, w)) {
        packing_fini(&w->step);
        lua_pushnil(L);
        return 1;
    }
    w->rest = packed_push(L, w->rest);
    w->rest = packed_push(L, w->rest);
    return 2;
}

static int dictionary_pairs(lua_State *L) {
    dictionary_self(L);
    walk_new(L, true);
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, next_entry, 2);
    return 1;
}

/* ---- the object */

static const luaL_Reg methods[] = {
    { "get", shared_get_method },       { "set", shared_set_method },
    { "add", shared_add_method },       { "replace", shared_replace_method },
    { "incr", shared_incr_method },     { "update", shared_update_method },
    { "remove", shared_remove_method }, { "touch", shared_touch_method },
    { "ttl", shared_ttl_method },       { "keys", shared_keys_method },
    { "count", shared_count_method },   { "clear", shared_clear_method },
    { "memory", shared_memory_method }, { NULL, NULL },
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
                                        { "__pairs", dictionary_pairs },
                                        { NULL, NULL } };

/* ---- open */

static uint64_t max_option(lua_State *L) {
    uint64_t bytes = 0;
    if (option_push(L, 2, "max") == LUA_TNIL) return 0;
    if (!size_read(L, -1, &bytes) || bytes < MAX_LEAST)
        luaL_error(L, "gate.shared: max is 4K or more, a whole number of bytes or such as \"16M\"");
    return bytes;
}

static bool evict_option(lua_State *L) {
    int type = option_push(L, 2, "evict");
    if (type == LUA_TNIL || (type == LUA_TBOOLEAN && !lua_toboolean(L, -1))) return false;
    if (type != LUA_TSTRING || strcmp(lua_tostring(L, -1), "lru") != 0)
        luaL_error(L, "gate.shared: evict is \"lru\" or false");
    return true;
}

/* Pushes what this state says of the dictionary whose name is at index 1. */
static struct declaration *declaration_push(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &DECLARED);
    lua_pushvalue(L, 1);
    if (lua_rawget(L, -2) == LUA_TNIL) {
        struct declaration *made = lua_newuserdatauv(L, sizeof *made, 0);
        *made = (struct declaration){ .bounds = { .bytes = MAX_DEFAULT } };
        lua_pushvalue(L, 1);
        lua_pushvalue(L, -2);
        lua_rawset(L, -5);
        lua_replace(L, -2);
    }
    lua_replace(L, -2);
    return lua_touserdata(L, -1);
}

static void declare(lua_State *L, struct declaration *is) {
    uint64_t max = max_option(L);
    bool evicts = evict_option(L), said_evict = !lua_isnil(L, -1);
    if ((max && is->said_max && is->bounds.bytes != max) ||
        (said_evict && is->said_evict && is->bounds.evicts != evicts))
        luaL_error(L, "gate.shared '%s': another max or evict was said before", lua_tostring(L, 1));
    if (max) is->bounds.bytes = (size_t)max;
    if (said_evict) is->bounds.evicts = evicts;
    is->said_max |= max > 0;
    is->said_evict |= said_evict;
}

static int gate_shared(lua_State *L) {
    static const char *const names[] = { "max", "evict", NULL };
    lua_settop(L, 2);
    if (lua_type(L, 1) != LUA_TSTRING) return luaL_typeerror(L, 1, "string");
    struct slice name = text_check(L, 1);
    if (name.n == 0 || name.n > NAME_BYTES || memchr(name.p, 0, name.n))
        return luaL_argerror(L, 1, "a name has 1 to 64 bytes");
    options_check(L, 2, "gate.shared", names);
    struct declaration *declaration = declaration_push(L);
    declare(L, declaration);
    lua_settop(L, 3);
    struct dictionary *d = object_new(L, &kind, sizeof *d, 1);
    lua_pushvalue(L, 3);
    lua_setiuservalue(L, -2, 1);
    memcpy(d->name, name.p, name.n);
    d->declaration = declaration;
    d->shared = shared_open(name);
    if (!d->shared) return luaL_error(L, "gate.shared '%s': there are %d dictionaries already", d->name, SHARED_MOST);
    return 1;
}

void bind_shared_open(lua_State *L) {
    static const luaL_Reg nothing[] = { { NULL, NULL } };
    packed_value_open(L);
    object_kind_open(L, &kind, NULL, metamethods, methods);
    object_kind_open(L, &seen_kind, NULL, nothing, NULL);
    object_kind_open(L, &walk_kind, NULL, nothing, NULL);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &DECLARED);
    lua_pushcfunction(L, gate_shared);
    lua_setfield(L, -2, "shared");
}
