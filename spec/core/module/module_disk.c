/* core/store/disk*.c for specs: a disk for a cache, loads, figures. */
#include "module_cache.h"
#include "store/disk.h"

#include <time.h>

/* disk(cache, path, size); without a path: none. */
static int disk_on_open(lua_State *L) {
    struct disk_settings s = { (char *)(uintptr_t)luaL_optstring(L, 2, NULL),
                               (uint64_t)luaL_optinteger(L, 3, DISK_LEAST) };
    disk_open(lua_touserdata(L, 1), &s);
    return 0;
}

static int disk_on_close_all(lua_State *L) {
    (void)L;
    disk_close_all();
    return 0;
}

static int disk_on_has(lua_State *L) {
    struct cache_key key = cache_key_of(module_check_slice(L, 2));
    lua_pushboolean(L, disk_has(lua_touserdata(L, 1), &key));
    return 1;
}

static int disk_on_has_url(lua_State *L) {
    lua_pushboolean(L, disk_has_url(lua_touserdata(L, 1), module_check_slice(L, 2)));
    return 1;
}

static int disk_on_figures(lua_State *L) {
    struct disk_figures f;
    disk_figures(lua_touserdata(L, 1), &f);
    lua_newtable(L);
    lua_pushstring(L, disk_state_word(f.state));
    lua_setfield(L, -2, "state");
#define FIGURE(name)                                                                                                   \
    lua_pushinteger(L, (lua_Integer)f.name);                                                                           \
    lua_setfield(L, -2, #name);
    FIGURE(size)
    FIGURE(objects)
    FIGURE(bytes)
    FIGURE(reads)
    FIGURE(read_bytes)
    FIGURE(missed)
    FIGURE(writes)
    FIGURE(written_bytes)
    FIGURE(rescued)
    FIGURE(skipped)
    FIGURE(corrupt)
    FIGURE(errors)
    FIGURE(purges)
#undef FIGURE
    return 1;
}

/* offer(cached) */
static int disk_on_offer(lua_State *L) {
    struct cached **c = luaL_checkudata(L, 1, "moongate_core.cached");
    disk_offer(*c);
    return 0;
}

static void nap(void) { nanosleep(&(struct timespec){ 0, 200000 }, NULL); }

/* ---- waiting, as a worker would do by its mailbox */

struct patience {
    struct cache_follower follower;
    struct disk_waiter waiter;
    atomic_bool told;
};

static void follower_on_outcome(struct cache_follower *f) {
    atomic_store(&container_of(f, struct patience, follower)->told, true);
}

static void waiter_on_safe(struct disk_waiter *w) {
    atomic_store(&container_of(w, struct patience, waiter)->told, true);
}

/* settle(cache): waits until all purges are safe; did it wait? */
static int disk_on_settle(lua_State *L) {
    struct patience p = { .waiter.tell = waiter_on_safe };
    bool waits = disk_await_purges(lua_touserdata(L, 1), &p.waiter);
    while (waits && !atomic_load(&p.told)) nap();
    disk_forget_waiter(&p.waiter);
    lua_pushboolean(L, waits);
    return 1;
}

/* load(cache, key, Accept-Language): "loaded", "not loaded", "passed"; "found": memory has it. */
static int disk_on_load(lua_State *L) {
    static const char *const words[] = { "filling", "filled", "passed", "failed", "late", "loaded", "not loaded" };
    struct patience p = { .follower.tell = follower_on_outcome };
    struct cache_key key = cache_key_of(module_check_slice(L, 2));
    struct cache_fill *fill;
    struct arena arena;
    struct headers request;
    arena_init(&arena);
    headers_init(&request, &arena);
    if (lua_isstring(L, 3)) headers_add(&request, SLICE("Accept-Language"), module_check_slice(L, 3));
    enum cache_turn turn = cache_join(lua_touserdata(L, 1), &key, &request, NULL, &p.follower, &fill);
    if (turn == CACHE_LEAD) disk_load(lua_touserdata(L, 1), &key, fill, &request, &p.follower);
    while (turn != CACHE_CHANGED && !atomic_load(&p.told)) nap();
    cache_unfollow(&p.follower);
    arena_fini(&arena);
    lua_pushstring(L, turn == CACHE_CHANGED ? "found" : words[atomic_load(&p.follower.outcome)]);
    return 1;
}

static int disk_on_nap(lua_State *L) {
    (void)L;
    nap();
    return 0;
}

static const luaL_Reg functions[] = {
    { "open", disk_on_open },       { "close_all", disk_on_close_all },
    { "has", disk_on_has },         { "figures", disk_on_figures },
    { "settle", disk_on_settle },   { "nap", disk_on_nap },
    { "offer", disk_on_offer },     { "load", disk_on_load },
    { "has_url", disk_on_has_url }, { NULL, NULL },
};

int module_disk_open(lua_State *L) {
    luaL_newlib(L, functions);
    return 1;
}
