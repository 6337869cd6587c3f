/* core/store for specs: metrics and shared dictionaries, both also from many threads at once. */
#include "base/clock.h"
#include "module.h"
#include "store/metrics.h"
#include "store/mmdb.h"
#include "store/prefix_table.h"
#include "store/shared.h"

#include <lauxlib.h>
#include <lua.h>
#include <pthread.h>
#include <stdlib.h>

enum { THREADS_MOST = 16 };

/* ---- metrics */

static int metrics_on_open(lua_State *L) {
    metrics_open((unsigned)luaL_checkinteger(L, 1));
    return 0;
}

static int metrics_on_close(lua_State *L) {
    metrics_close();
    return 0;
}

/* labels(room, { { name, value }… }) */
static int metrics_on_labels(lua_State *L) {
    struct label labels[8];
    char text[1024];
    size_t room = (size_t)luaL_checkinteger(L, 1), count = (size_t)lua_rawlen(L, 2);
    luaL_argcheck(L, room <= sizeof text && count <= 8, 1, "too large");
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, 2, (lua_Integer)i + 1);
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        labels[i] = (struct label){ lua_tostring(L, -2), module_check_slice(L, -1) };
    }
    struct slice made = metric_labels(text, room, labels, count);
    lua_pushlstring(L, made.p, made.n);
    return 1;
}

/* get(kind, family, labels, help): a handle, or nil at the limit. */
static int metrics_on_get(lua_State *L) {
    static const char *const kinds[] = { "counter", "gauge", "histogram", NULL };
    enum metric_kind kind = (enum metric_kind)luaL_checkoption(L, 1, NULL, kinds);
    struct metric *m = metric_get(kind, luaL_checkstring(L, 2), luaL_optstring(L, 4, "help"), module_check_slice(L, 3));
    if (m) lua_pushlightuserdata(L, m);
    else lua_pushnil(L);
    return 1;
}

static int metrics_on_add(lua_State *L) {
    metric_add(lua_touserdata(L, 1), (int)luaL_checkinteger(L, 2), luaL_checkinteger(L, 3));
    return 0;
}

static int metrics_on_observe(lua_State *L) {
    metric_observe(lua_touserdata(L, 1), (int)luaL_checkinteger(L, 2), luaL_checknumber(L, 3));
    return 0;
}

static int metrics_on_value(lua_State *L) {
    lua_pushinteger(L, metric_value(lua_touserdata(L, 1)));
    return 1;
}

static double read_number(void *with) { return *(double *)with; }

static int metrics_on_gauge_with(lua_State *L) {
    static double value;
    value = luaL_checknumber(L, 2);
    metrics_gauge_with(luaL_checkstring(L, 1), "asked for when written", read_number, &value);
    return 0;
}

static int metrics_on_write(lua_State *L) {
    struct buffer out;
    buffer_init(&out);
    metrics_write(&out);
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, out.size);
    size_t size = out.size;
    buffer_peek(&out, to, size);
    luaL_pushresultsize(&b, size);
    buffer_fini(&out);
    return 1;
}

struct counting {
    pthread_t thread;
    struct metric *metric;
    int worker;
    lua_Integer times;
};

static void *run_counting(void *arg) {
    struct counting *c = arg;
    for (lua_Integer i = 0; i < c->times; i++) metric_add(c->metric, c->worker, 1);
    metric_get(METRIC_COUNTER, "made_meanwhile_total", "by a thread", SLICE("a=\"b\""));
    return NULL;
}

/* hammer(metric, first_worker, step, threads, times): thread i adds as worker first + i * step. Reads meanwhile. */
static int metrics_on_hammer(lua_State *L) {
    struct counting list[THREADS_MOST];
    int first = (int)luaL_checkinteger(L, 2), step = (int)luaL_checkinteger(L, 3);
    int threads = (int)luaL_checkinteger(L, 4);
    luaL_argcheck(L, threads <= THREADS_MOST, 4, "too many");
    for (int i = 0; i < threads; i++) {
        list[i] = (struct counting){ .metric = lua_touserdata(L, 1),
                                     .worker = first + i * step,
                                     .times = luaL_checkinteger(L, 5) };
        pthread_create(&list[i].thread, NULL, run_counting, &list[i]);
    }
    struct buffer out;
    buffer_init(&out);
    metrics_write(&out);
    buffer_fini(&out);
    for (int i = 0; i < threads; i++) pthread_join(list[i].thread, NULL);
    return 0;
}

static const luaL_Reg metrics_functions[] = {
    { "open", metrics_on_open },
    { "close", metrics_on_close },
    { "labels", metrics_on_labels },
    { "get", metrics_on_get },
    { "add", metrics_on_add },
    { "observe", metrics_on_observe },
    { "value", metrics_on_value },
    { "gauge_with", metrics_on_gauge_with },
    { "write", metrics_on_write },
    { "hammer", metrics_on_hammer },
    { NULL, NULL },
};

/* ---- prefix tables, databases */

static int prefix_on_tables(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)prefix_tables());
    return 1;
}

static int mmdb_on_count(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)mmdbs());
    return 1;
}

static const luaL_Reg mmdb_functions[] = { { "count", mmdb_on_count }, { NULL, NULL } };
static const luaL_Reg prefix_functions[] = { { "tables", prefix_on_tables }, { NULL, NULL } };

/* ---- shared dictionaries, as light userdata */

static struct shared *check_shared(lua_State *L) {
    struct shared *d = lua_touserdata(L, 1);
    luaL_argcheck(L, d, 1, "dictionary expected");
    return d;
}

static struct shared_value check_value(lua_State *L, int at) {
    switch (lua_type(L, at)) {
    case LUA_TBOOLEAN: return (struct shared_value){ .kind = SHARED_BOOLEAN, .boolean = lua_toboolean(L, at) };
    case LUA_TSTRING: return (struct shared_value){ .kind = SHARED_STRING, .string = module_check_slice(L, at) };
    case LUA_TNUMBER:
        if (lua_isinteger(L, at))
            return (struct shared_value){ .kind = SHARED_INTEGER, .integer = lua_tointeger(L, at) };
        return (struct shared_value){ .kind = SHARED_NUMBER, .number = lua_tonumber(L, at) };
    default: return (struct shared_value){ .kind = SHARED_NIL };
    }
}

static void push_value(lua_State *L, const struct shared_value *v) {
    switch (v->kind) {
    case SHARED_BOOLEAN: lua_pushboolean(L, v->boolean); break;
    case SHARED_INTEGER: lua_pushinteger(L, v->integer); break;
    case SHARED_NUMBER: lua_pushnumber(L, v->number); break;
    case SHARED_STRING: lua_pushlstring(L, v->string.p, v->string.n); break;
    default: lua_pushnil(L);
    }
}

/* What the spec said last with bounds(bytes, evicts). */
static struct shared_bounds bounds;

static int shared_on_bounds(lua_State *L) {
    bounds = (struct shared_bounds){ (size_t)luaL_checkinteger(L, 1), lua_toboolean(L, 2) };
    return 0;
}

static int shared_on_open(lua_State *L) {
    struct shared *d = shared_open(module_check_slice(L, 1));
    if (d) lua_pushlightuserdata(L, d);
    else lua_pushnil(L);
    return 1;
}

static int shared_on_close_all(lua_State *L) {
    shared_close_all();
    return 0;
}

/* set(d, key, value, ttl, when): whether it was, and the failure's word. */
static int shared_on_set(lua_State *L) {
    static const char *const names[] = { "always", "absent", "present", NULL };
    struct shared_value v = check_value(L, 3);
    bool done;
    enum failure why = shared_set(check_shared(L), &bounds, module_check_slice(L, 2), &v, luaL_optnumber(L, 4, 0),
                                  (enum shared_when)luaL_checkoption(L, 5, "always", names), &done);
    lua_pushboolean(L, done);
    lua_pushstring(L, failure_word(why));
    return 2;
}

/* swap(d, key, old, new, ttl) */
static int shared_on_swap(lua_State *L) {
    struct shared_value old = check_value(L, 3), v = check_value(L, 4);
    bool done;
    enum failure why =
        shared_swap(check_shared(L), &bounds, module_check_slice(L, 2), &old, &v, luaL_optnumber(L, 5, -1), &done);
    lua_pushboolean(L, done);
    lua_pushstring(L, failure_word(why));
    return 2;
}

static int shared_on_get(lua_State *L) {
    struct shared_value v;
    double left;
    char room[16];
    shared_get(check_shared(L), &bounds, module_check_slice(L, 2), room, sizeof room, &v, &left);
    push_value(L, &v);
    shared_value_fini(&v);
    lua_pushnumber(L, left);
    return 2;
}

static int shared_on_remove(lua_State *L) {
    lua_pushboolean(L, shared_remove(check_shared(L), module_check_slice(L, 2)));
    return 1;
}

static int shared_on_touch(lua_State *L) {
    lua_pushboolean(L, shared_touch(check_shared(L), &bounds, module_check_slice(L, 2), luaL_optnumber(L, 3, 0)));
    return 1;
}

static int shared_on_clear(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)shared_clear(check_shared(L)));
    return 1;
}

/* incr(d, key, by, start, ttl): the sum or nil, and the failure's word. */
static int shared_on_incr(lua_State *L) {
    struct shared_value by = check_value(L, 3), start = check_value(L, 4), out;
    enum failure why = shared_incr(check_shared(L), &bounds, module_check_slice(L, 2), &by,
                                   lua_isnoneornil(L, 4) ? NULL : &start, luaL_optnumber(L, 5, 0), &out);
    push_value(L, &out);
    lua_pushstring(L, failure_word(why));
    return 2;
}

struct collecting {
    lua_State *L;
    lua_Integer count;
};

static void collect_key(void *with, struct slice key, const struct shared_value *v) {
    struct collecting *c = with;
    lua_pushlstring(c->L, key.p, key.n);
    lua_rawseti(c->L, -2, ++c->count);
}

/* walk(d, between): the keys, in steps of a few; `between` is called after each. */
static int shared_on_walk(lua_State *L) {
    struct shared *d = check_shared(L);
    struct collecting c = { .L = L };
    struct shared_cursor at = { 0 };
    lua_settop(L, 2);
    lua_newtable(L);
    while (!at.ended) {
        shared_walk(d, &at, 1000, collect_key, &c);
        if (lua_isnil(L, 2)) continue;
        lua_pushvalue(L, 2);
        lua_call(L, 0, 0);
    }
    return 1;
}

static int shared_on_size(lua_State *L) {
    struct shared *d = check_shared(L);
    lua_pushinteger(L, (lua_Integer)shared_count(d));
    lua_pushinteger(L, (lua_Integer)shared_bytes(d));
    return 2;
}

/* Spins until a key with this ttl must have expired. */
static int shared_on_pass(lua_State *L) {
    double until = clock_monotonic() + luaL_checknumber(L, 1);
    while (clock_monotonic() <= until) continue;
    return 0;
}

struct hammering {
    pthread_t thread;
    struct shared *shared;
    lua_Integer times;
    unsigned number;
};

/* Adds 1 by reading and swapping, as update does. */
static void swap_once(struct shared *d) {
    struct shared_value old, next;
    char room[8];
    for (bool done = false; !done;) {
        shared_get(d, &bounds, SLICE("swapped"), room, sizeof room, &old, NULL);
        next = (struct shared_value){ .kind = SHARED_INTEGER, .integer = old.kind == SHARED_NIL ? 1 : old.integer + 1 };
        shared_swap(d, &bounds, SLICE("swapped"), &old, &next, -1, &done);
    }
}

/* Adds to two keys of all, and sets, reads, touches and removes a few that all fight for. */
static void *run_hammering(void *arg) {
    struct hammering *h = arg;
    struct shared_value one = { .kind = SHARED_INTEGER, .integer = 1 }, none = { .kind = SHARED_INTEGER }, out;
    for (lua_Integer i = 0; i < h->times; i++) {
        shared_incr(h->shared, &bounds, SLICE("sum"), &one, &none, 0, &out);
        swap_once(h->shared);
        char name[2] = { 'k', (char)('a' + (i + h->number) % 7) }, room[4];
        struct slice key = slice_make(name, 2);
        struct shared_value text = { .kind = SHARED_STRING, .string = SLICE("some text") };
        shared_set(h->shared, &bounds, key, &text, i % 3 ? 0 : 0.0001, SHARED_ALWAYS, NULL);
        shared_get(h->shared, &bounds, key, room, sizeof room, &out, NULL);
        shared_value_fini(&out);
        if (i % 7 == 0) shared_touch(h->shared, &bounds, key, 0.0002);
        if (i % 5 == 0) shared_remove(h->shared, key);
    }
    return NULL;
}

static int shared_on_hammer(lua_State *L) {
    struct hammering list[THREADS_MOST];
    unsigned threads = (unsigned)luaL_checkinteger(L, 2);
    luaL_argcheck(L, threads <= THREADS_MOST, 2, "too many");
    for (unsigned i = 0; i < threads; i++) {
        list[i] = (struct hammering){ .shared = check_shared(L), .times = luaL_checkinteger(L, 3), .number = i };
        pthread_create(&list[i].thread, NULL, run_hammering, &list[i]);
    }
    for (unsigned i = 0; i < threads; i++) pthread_join(list[i].thread, NULL);
    return 0;
}

static const luaL_Reg shared_functions[] = {
    { "bounds", shared_on_bounds }, { "open", shared_on_open },     { "close_all", shared_on_close_all },
    { "set", shared_on_set },       { "swap", shared_on_swap },     { "get", shared_on_get },
    { "remove", shared_on_remove }, { "touch", shared_on_touch },   { "clear", shared_on_clear },
    { "incr", shared_on_incr },     { "walk", shared_on_walk },     { "size", shared_on_size },
    { "pass", shared_on_pass },     { "hammer", shared_on_hammer }, { NULL, NULL },
};

int module_store_open(lua_State *L) {
    lua_createtable(L, 0, 4);
    luaL_newlib(L, metrics_functions);
    lua_setfield(L, -2, "metrics");
    luaL_newlib(L, shared_functions);
    lua_setfield(L, -2, "shared");
    luaL_newlib(L, prefix_functions);
    lua_setfield(L, -2, "prefix");
    luaL_newlib(L, mmdb_functions);
    lua_setfield(L, -2, "mmdb");
    return 1;
}
