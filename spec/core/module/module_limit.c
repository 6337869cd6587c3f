/* core/store/limit.c for specs, with a clock of their own; also from many threads at once. */
#include "base/clock.h"
#include "module.h"
#include "store/limit.h"

#include <lauxlib.h>
#include <lua.h>
#include <pthread.h>

enum { THREADS_MOST = 16 };

static double number_field(lua_State *L, const char *name, double missing) {
    lua_getfield(L, 1, name);
    double n = luaL_optnumber(L, -1, missing);
    lua_pop(L, 1);
    return n;
}

static bool flag_field(lua_State *L, const char *name) {
    lua_getfield(L, 1, name);
    bool is = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return is;
}

/* rule { rate, per, burst, concurrent, bytes, dry_run, full_allows }: a userdata; nil if it does not fit. */
static int limit_on_rule(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    struct limit_rule *rule = lua_newuserdatauv(L, sizeof *rule, 0);
    double rate = number_field(L, "rate", 1);
    *rule = (struct limit_rule){ .concurrent = (uint32_t)number_field(L, "concurrent", 0),
                                 .bytes = (size_t)number_field(L, "bytes", 1 << 20),
                                 .dry_run = flag_field(L, "dry_run"),
                                 .full_allows = flag_field(L, "full_allows") };
    if (!limit_rule_set(rule, rate, number_field(L, "per", 1), (int64_t)number_field(L, "burst", rate))) lua_pushnil(L);
    return 1;
}

static int limit_on_open(lua_State *L) {
    struct limit *l = limit_open(module_check_slice(L, 1), (size_t)luaL_optinteger(L, 2, 1 << 20));
    if (l) lua_pushlightuserdata(L, l);
    else lua_pushnil(L);
    return 1;
}

static int limit_on_close_all(lua_State *L) {
    limit_close_all();
    return 0;
}

/* verdict, passes, left, wait, resets */
static int push_answer(lua_State *L, struct limit_answer a) {
    static const char *const words[] = { "allowed", "refused", "full" };
    lua_pushstring(L, words[a.verdict]);
    lua_pushboolean(L, a.passes);
    lua_pushinteger(L, a.left);
    lua_pushnumber(L, a.wait);
    lua_pushnumber(L, a.resets);
    return 5;
}

/* (limit, rule, key, now, cost) */
static int limit_on_take(lua_State *L) {
    return push_answer(L, limit_take(lua_touserdata(L, 1), lua_touserdata(L, 2), digest_bytes(module_check_slice(L, 3)),
                                     luaL_optnumber(L, 5, 1), luaL_checknumber(L, 4)));
}

static int limit_on_peek(lua_State *L) {
    return push_answer(L, limit_peek(lua_touserdata(L, 1), lua_touserdata(L, 2), digest_bytes(module_check_slice(L, 3)),
                                     luaL_optnumber(L, 5, 1), luaL_checknumber(L, 4)));
}

static int limit_on_reset(lua_State *L) {
    lua_pushboolean(L, limit_reset(lua_touserdata(L, 1), digest_bytes(module_check_slice(L, 2))));
    return 1;
}

static int limit_on_enter(lua_State *L) {
    return push_answer(L, limit_enter(lua_touserdata(L, 1), lua_touserdata(L, 2),
                                      digest_bytes(module_check_slice(L, 3)), luaL_checknumber(L, 4)));
}

static int limit_on_leave(lua_State *L) {
    limit_leave(lua_touserdata(L, 1), digest_bytes(module_check_slice(L, 2)));
    return 0;
}

static int limit_on_places(lua_State *L) {
    lua_pushinteger(L, limit_places(lua_touserdata(L, 1), digest_bytes(module_check_slice(L, 2))));
    return 1;
}

static int limit_on_size(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)limit_keys(lua_touserdata(L, 1)));
    lua_pushinteger(L, (lua_Integer)limit_bytes(lua_touserdata(L, 1)));
    return 2;
}

/* flood(limit, rule, count, now): takes with so many new keys; how many were allowed, how many found it full. */
static int limit_on_flood(lua_State *L) {
    static uint64_t next;
    lua_Integer allowed = 0, full = 0, count = luaL_checkinteger(L, 3);
    for (lua_Integer i = 0; i < count; i++) {
        uint64_t key = ++next;
        struct limit_answer a =
            limit_take(lua_touserdata(L, 1), lua_touserdata(L, 2), digest_bytes(slice_make((char *)&key, sizeof key)),
                       1, luaL_checknumber(L, 4));
        if (a.verdict == LIMIT_ALLOWED) allowed++;
        if (a.verdict == LIMIT_FULL) full++;
    }
    lua_pushinteger(L, allowed);
    lua_pushinteger(L, full);
    return 2;
}

struct taking {
    pthread_t thread;
    struct limit *limit;
    const struct limit_rule *rule;
    lua_Integer times, allowed, entered;
    double now; /* 0: the clock */
    unsigned number;
};

/* Takes from one key of all; besides from keys of its own, so that tables grow meanwhile, and in and out of places. */
static void *run_taking(void *arg) {
    struct taking *t = arg;
    struct digest all = digest_bytes(SLICE("all"));
    for (lua_Integer i = 0; i < t->times; i++) {
        double now = t->now > 0 ? t->now : clock_monotonic();
        if (limit_take(t->limit, t->rule, all, 1, now).verdict == LIMIT_ALLOWED) t->allowed++;
        uint64_t own = (uint64_t)t->number << 32 | (uint64_t)i;
        limit_take(t->limit, t->rule, digest_bytes(slice_make((char *)&own, sizeof own)), 1, now);
        if (limit_enter(t->limit, t->rule, all, now).verdict != LIMIT_ALLOWED) continue;
        t->entered++;
        limit_leave(t->limit, all);
    }
    return NULL;
}

/* hammer(limit, rule, threads, times, now): how many takes of the one key were allowed, and how many seconds it took. */
static int limit_on_hammer(lua_State *L) {
    struct taking list[THREADS_MOST];
    unsigned threads = (unsigned)luaL_checkinteger(L, 3);
    lua_Integer allowed = 0;
    luaL_argcheck(L, threads <= THREADS_MOST, 3, "too many");
    double began = clock_monotonic();
    for (unsigned i = 0; i < threads; i++) {
        list[i] = (struct taking){ .limit = lua_touserdata(L, 1), .rule = lua_touserdata(L, 2), .number = i };
        list[i].times = luaL_checkinteger(L, 4);
        list[i].now = luaL_optnumber(L, 5, 0);
        pthread_create(&list[i].thread, NULL, run_taking, &list[i]);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(list[i].thread, NULL);
        allowed += list[i].allowed;
    }
    lua_pushinteger(L, allowed);
    lua_pushnumber(L, clock_monotonic() - began);
    return 2;
}

static const luaL_Reg functions[] = {
    { "rule", limit_on_rule },
    { "open", limit_on_open },
    { "close_all", limit_on_close_all },
    { "take", limit_on_take },
    { "peek", limit_on_peek },
    { "reset", limit_on_reset },
    { "enter", limit_on_enter },
    { "leave", limit_on_leave },
    { "places", limit_on_places },
    { "size", limit_on_size },
    { "flood", limit_on_flood },
    { "hammer", limit_on_hammer },
    { NULL, NULL },
};

int module_limit_open(lua_State *L) {
    luaL_newlib(L, functions);
    return 1;
}
