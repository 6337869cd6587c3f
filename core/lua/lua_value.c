/* Plain data between Lua and C: what a file returned, what on_unload hands to its successor. Tables are read raw, so
 * that no metamethod runs and nothing here can raise outside of a script. Shared tables are copied each time they are
 * met; what holds itself is found by the depth. */
#include "lua/engine.h"

#include "base/must.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 32, PAIRS = 200000 };

/* A copy under way. */
struct copying {
    lua_State *L;
    bool functions;
    size_t pairs;
    char *why;
    size_t size;
    bool failed;
};

static struct value copy(struct copying *c, int index, unsigned level);

static struct value fail(struct copying *c, const char *what) {
    if (!c->failed) snprintf(c->why, c->size, "%s", what);
    c->failed = true;
    return (struct value){ .kind = VALUE_NIL };
}

static struct value copy_function(struct copying *c, int index) {
    if (!c->functions) return fail(c, "a function is no plain data");
    lua_Debug about;
    lua_pushvalue(c->L, index);
    lua_getinfo(c->L, ">S", &about);
    struct value v = { .kind = VALUE_FUNCTION };
    v.function.file = must_strdup(*about.source == '@' ? about.source + 1 : about.short_src);
    v.function.line = about.linedefined;
    return v;
}

static struct value copy_other(struct copying *c, int index) {
    if (!c->functions) return fail(c, "a userdata or coroutine is no plain data");
    struct value v = { .kind = VALUE_OTHER, .other = lua_typename(c->L, lua_type(c->L, index)) };
    if (lua_type(c->L, index) == LUA_TUSERDATA && lua_rawlen(c->L, index) >= sizeof(struct handle)) {
        const struct handle *h = lua_touserdata(c->L, index);
        if (handle_kind_known(c->L, h->kind)) v.other = h->kind->name;
    }
    return v;
}

struct pairs {
    struct value_pair *list;
    size_t count, room;
};

/* Adds the pair at the top two places of the stack; leaves the key. */
static void copy_pair(struct copying *c, struct pairs *pairs, int top, unsigned level) {
    if (++c->pairs > PAIRS) fail(c, "it has too many entries");
    if (pairs->count == pairs->room) {
        pairs->room = pairs->room ? pairs->room * 2 : 8;
        pairs->list = must_realloc(pairs->list, pairs->room * sizeof *pairs->list);
    }
    struct value_pair *pair = &pairs->list[pairs->count++];
    pair->key = copy(c, top - 1, level + 1);
    pair->value = copy(c, top, level + 1);
    lua_settop(c->L, top - 1);
}

/* Numbers, then strings, each in order: so value_add always appends, and big tables are not shifted about. */
static int compare_keys(const void *a, const void *b) {
    const struct value *x = &((const struct value_pair *)a)->key, *y = &((const struct value_pair *)b)->key;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    if (x->kind == VALUE_INTEGER) return (x->integer > y->integer) - (x->integer < y->integer);
    if (x->kind != VALUE_STRING) return 0;
    size_t n = x->string.n < y->string.n ? x->string.n : y->string.n;
    int order = memcmp(x->string.p, y->string.p, n);
    return order ? order : (x->string.n > y->string.n) - (x->string.n < y->string.n);
}

static struct value copy_table(struct copying *c, int index, unsigned level) {
    lua_State *L = c->L;
    if (level >= LEVELS) return fail(c, "it is nested too deeply, or holds itself");
    if (!lua_checkstack(L, 8)) return fail(c, "it is nested too deeply");
    struct pairs pairs = { 0 };
    lua_pushnil(L);
    while (!c->failed && lua_next(L, index)) copy_pair(c, &pairs, lua_gettop(L), level);
    if (pairs.count) qsort(pairs.list, pairs.count, sizeof *pairs.list, compare_keys);
    struct value table = { .kind = VALUE_TABLE };
    for (size_t i = 0; i < pairs.count; i++) value_add(&table, pairs.list[i].key, pairs.list[i].value);
    free(pairs.list);
    return table;
}

static struct value copy(struct copying *c, int index, unsigned level) {
    lua_State *L = c->L;
    size_t n;
    const char *p;
    switch (lua_type(L, index)) {
    case LUA_TNIL: return (struct value){ .kind = VALUE_NIL };
    case LUA_TBOOLEAN: return (struct value){ .kind = VALUE_BOOLEAN, .boolean = lua_toboolean(L, index) };
    case LUA_TNUMBER:
        if (lua_isinteger(L, index)) return (struct value){ .kind = VALUE_INTEGER, .integer = lua_tointeger(L, index) };
        return (struct value){ .kind = VALUE_NUMBER, .number = lua_tonumber(L, index) };
    case LUA_TSTRING: p = lua_tolstring(L, index, &n); return value_string(slice_make(p, n));
    case LUA_TTABLE: return copy_table(c, index, level);
    case LUA_TFUNCTION: return copy_function(c, index);
    default: return copy_other(c, index);
    }
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `why` is written through `copying` */
bool value_from_lua(lua_State *L, int index, bool functions, struct value *out, char *why, size_t size) {
    struct copying c = { .L = L, .functions = functions, .why = why, .size = size };
    int top = lua_gettop(L);
    *out = copy(&c, lua_absindex(L, index), 0);
    lua_settop(L, top);
    if (!c.failed) return true;
    value_fini(out);
    *out = (struct value){ .kind = VALUE_NIL };
    return false;
}

static void push_table(lua_State *L, const struct value *v) {
    lua_createtable(L, (int)v->table.sequence, (int)(v->table.count - v->table.sequence));
    for (size_t i = 0; i < v->table.count; i++) {
        const struct value_pair *pair = &v->table.list[i];
        if (pair->key.kind == VALUE_NIL || (pair->key.kind == VALUE_NUMBER && isnan(pair->key.number))) continue;
        value_to_lua(L, &pair->key);
        if (lua_isnil(L, -1)) { /* a mark */
            lua_pop(L, 1);
            continue;
        }
        value_to_lua(L, &pair->value);
        lua_rawset(L, -3);
    }
}

void value_to_lua(lua_State *L, const struct value *v) {
    lua_checkstack(L, 8);
    switch (v->kind) {
    case VALUE_BOOLEAN: lua_pushboolean(L, v->boolean); return;
    case VALUE_INTEGER: lua_pushinteger(L, v->integer); return;
    case VALUE_NUMBER: lua_pushnumber(L, v->number); return;
    case VALUE_STRING: lua_pushlstring(L, v->string.p, v->string.n); return;
    case VALUE_TABLE: push_table(L, v); return;
    case VALUE_NIL:
    case VALUE_FUNCTION:
    case VALUE_OTHER: lua_pushnil(L);
    }
}
