/* core/store/cache*.c for specs: caches, fills, followers, bodies and readers as objects. */
#include "module_cache.h"

#include <string.h>

static const char CACHED[] = "moongate_core.cached", FILL[] = "moongate_core.fill";
static const char FOLLOWER[] = "moongate_core.follower", READER[] = "moongate_core.reader";

/* ---- arguments */

static lua_Integer integer_field(lua_State *L, int table, const char *name, lua_Integer missing) {
    lua_getfield(L, table, name);
    lua_Integer n = luaL_optinteger(L, -1, missing);
    lua_pop(L, 1);
    return n;
}

static bool flag_field(lua_State *L, int table, const char *name) {
    lua_getfield(L, table, name);
    bool is = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return is;
}

/* The table that holds it keeps it alive. */
static struct slice slice_field(lua_State *L, int table, const char *name) {
    lua_getfield(L, table, name);
    struct slice s = module_opt_slice(L, -1);
    lua_pop(L, 1);
    return s;
}

/* From { name, value, name, value, … }; nil: none. */
static void read_headers(lua_State *L, int index, struct headers *headers, struct arena *arena) {
    arena_init(arena);
    headers_init(headers, arena);
    if (!lua_istable(L, index)) return;
    for (lua_Integer i = 1; lua_rawgeti(L, index, i) != LUA_TNIL; i += 2) {
        lua_rawgeti(L, index, i + 1);
        headers_add(headers, arena_copy(arena, module_check_slice(L, -2)),
                    arena_copy(arena, module_check_slice(L, -1)));
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

static struct cache_key check_key(lua_State *L, int index) { return cache_key_of(module_check_slice(L, index)); }

/* ---- stored heads */

static struct cached *check_cached(lua_State *L, int index) {
    struct cached **c = luaL_checkudata(L, index, CACHED);
    luaL_argcheck(L, *c, index, "was let go");
    return *c;
}

/* Takes the reference; nil for NULL. */
static void push_cached(lua_State *L, struct cached *c) {
    if (!c) {
        lua_pushnil(L);
        return;
    }
    *(struct cached **)lua_newuserdatauv(L, sizeof c, 0) = c;
    luaL_setmetatable(L, CACHED);
}

static int cached_on_unref(lua_State *L) {
    struct cached **c = luaL_checkudata(L, 1, CACHED);
    cached_unref(*c);
    *c = NULL;
    return 0;
}

static int cached_on_same(lua_State *L) {
    lua_pushboolean(L, check_cached(L, 1) == check_cached(L, 2));
    return 1;
}

static void push_headers(lua_State *L, const struct cached *c) {
    lua_newtable(L);
    for (uint32_t i = 0; i < c->header_count; i++) {
        module_push_slice(L, c->headers[i].name);
        lua_seti(L, -2, (lua_Integer)i * 2 + 1);
        module_push_slice(L, c->headers[i].value);
        lua_seti(L, -2, (lua_Integer)i * 2 + 2);
    }
    lua_setfield(L, -2, "headers");
}

static void push_tags(lua_State *L, const struct cached *c) {
    lua_newtable(L);
    for (uint32_t i = 0; i < c->tag_count; i++) {
        module_push_slice(L, c->tags[i]);
        lua_seti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "tags");
}

static void set_integer(lua_State *L, const char *name, uint64_t n) {
    lua_pushinteger(L, (lua_Integer)n);
    lua_setfield(L, -2, name);
}

static int cached_on_info(lua_State *L) {
    const struct cached *c = check_cached(L, 1);
    lua_newtable(L);
    set_integer(L, "status", (uint64_t)c->status);
    set_integer(L, "version", c->version);
    set_integer(L, "first", c->first);
    set_integer(L, "total", c->total);
    set_integer(L, "hits", c->hits);
    set_integer(L, "rule", c->rule);
    set_integer(L, "lifetime", (uint64_t)c->freshness.lifetime);
    module_set_slice(L, "reason", c->reason);
    module_set_slice(L, "key", c->key);
    module_set_slice(L, "url", c->url);
    module_set_slice(L, "vary", c->vary);
    lua_pushboolean(L, c->pass);
    lua_setfield(L, -2, "pass");
    lua_pushboolean(L, c->partial);
    lua_setfield(L, -2, "partial");
    push_headers(L, c);
    push_tags(L, c);
    return 1;
}

/* ---- the writer */

static int cached_on_room(lua_State *L) {
    size_t room = cache_body_room(check_cached(L, 1)->body, module_cache_count, module_cache_counter());
    if (room == SIZE_MAX) lua_pushstring(L, "all");
    else lua_pushinteger(L, (lua_Integer)room);
    return 1;
}

/* write(text): as much as there is room for at once; how many bytes were written. */
static int cached_on_write(lua_State *L) {
    struct cache_body *body = check_cached(L, 1)->body;
    struct slice text = module_check_slice(L, 2);
    size_t written = 0, room;
    while (written < text.n && (room = cache_body_room(body, module_cache_count, module_cache_counter())) > 0) {
        struct buffer from = { 0 };
        size_t n = room < text.n - written ? room : text.n - written;
        buffer_append(&from, text.p + written, n);
        cache_body_write(body, &from);
        buffer_fini(&from);
        written += n;
    }
    lua_pushinteger(L, (lua_Integer)written);
    return 1;
}

static int cached_on_finish(lua_State *L) {
    cache_body_end(check_cached(L, 1)->body);
    return 0;
}

static int cached_on_break(lua_State *L) {
    cache_body_break(check_cached(L, 1)->body);
    return 0;
}

static int cached_on_abandoned(lua_State *L) {
    lua_pushboolean(L, cache_body_abandoned(check_cached(L, 1)->body));
    return 1;
}

/* state, length, expected (nil: not known) */
static int cached_on_body(lua_State *L) {
    static const char *const words[] = { "arriving", "whole", "broken" };
    const struct cache_body *body = check_cached(L, 1)->body;
    lua_pushstring(L, words[cache_body_state(body)]);
    lua_pushinteger(L, (lua_Integer)cache_body_length(body));
    if (cache_body_expected(body) != UINT64_MAX) lua_pushinteger(L, (lua_Integer)cache_body_expected(body));
    return lua_gettop(L) - 1;
}

/* hold(): keeps the body's bytes until the function it returns is called. */
static int let_go(lua_State *L) {
    cache_body_unref(lua_touserdata(L, lua_upvalueindex(1)));
    return 0;
}

static int cached_on_hold(lua_State *L) {
    lua_pushlightuserdata(L, cache_body_ref(check_cached(L, 1)->body));
    lua_pushcclosure(L, let_go, 1);
    return 1;
}

/* ---- readers */

struct lua_reader {
    struct cache_reader reader;
    unsigned told;
};

static struct lua_reader *check_reader(lua_State *L) { return luaL_checkudata(L, 1, READER); }

static void reader_on_news(struct cache_reader *r) { container_of(r, struct lua_reader, reader)->told++; }

/* reader(position): nil if what is there is gone. */
static int cached_on_reader(lua_State *L) {
    struct cached *c = check_cached(L, 1);
    uint64_t position = (uint64_t)luaL_optinteger(L, 2, 0);
    struct lua_reader *r = lua_newuserdatauv(L, sizeof *r, 0);
    memset(r, 0, sizeof *r);
    luaL_setmetatable(L, READER);
    if (!cache_reader_open(&r->reader, c->body, position, reader_on_news)) lua_pushnil(L);
    return 1;
}

/* text, passing */
static int reader_on_peek(lua_State *L) {
    bool passing;
    module_push_slice(L, cache_reader_peek(&check_reader(L)->reader, &passing));
    lua_pushboolean(L, passing);
    return 2;
}

static int reader_on_skip(lua_State *L) {
    cache_reader_skip(&check_reader(L)->reader, (size_t)luaL_checkinteger(L, 2));
    return 0;
}

/* All there is, and in how many pieces. */
static int reader_on_read(lua_State *L) {
    struct lua_reader *r = check_reader(L);
    lua_Integer pieces = 0;
    bool passing;
    luaL_Buffer text;
    luaL_buffinit(L, &text);
    for (struct slice s; (s = cache_reader_peek(&r->reader, &passing)).n; pieces++) {
        luaL_addlstring(&text, s.p, s.n);
        cache_reader_skip(&r->reader, s.n);
    }
    luaL_pushresult(&text);
    lua_pushinteger(L, pieces);
    return 2;
}

static int reader_on_at_end(lua_State *L) {
    lua_pushboolean(L, cache_reader_at_end(&check_reader(L)->reader));
    return 1;
}

static int reader_on_await(lua_State *L) {
    lua_pushboolean(L, cache_reader_await(&check_reader(L)->reader));
    return 1;
}

static int reader_on_told(lua_State *L) {
    lua_pushinteger(L, check_reader(L)->told);
    return 1;
}

static int reader_on_close(lua_State *L) {
    cache_reader_close(&check_reader(L)->reader);
    return 0;
}

/* ---- fills */

static struct cache_fill *take_fill(lua_State *L) {
    struct cache_fill **box = luaL_checkudata(L, 1, FILL), *fill = *box;
    luaL_argcheck(L, fill, 1, "is settled");
    *box = NULL;
    return fill;
}

static void push_fill(lua_State *L, struct cache_fill *fill) {
    *(struct cache_fill **)lua_newuserdatauv(L, sizeof fill, 0) = fill;
    luaL_setmetatable(L, FILL);
}

static int fill_on_gc(lua_State *L) {
    struct cache_fill **box = luaL_checkudata(L, 1, FILL);
    if (*box) cache_fill_fail(*box);
    *box = NULL;
    return 0;
}

static int fill_on_fail(lua_State *L) {
    cache_fill_fail(take_fill(L));
    return 0;
}

/* pass(url, seconds, rule) */
static int fill_on_pass(lua_State *L) {
    cache_fill_pass(take_fill(L), (enum cache_rule)luaL_optinteger(L, 4, 0), module_check_slice(L, 2),
                    luaL_checknumber(L, 3));
    return 0;
}

struct lua_draft {
    struct cache_draft draft;
    struct headers headers;
    struct arena arena;
    struct slice tags[64];
};

static void read_freshness(lua_State *L, int table, struct freshness *f) {
    f->received = (int64_t)integer_field(L, table, "received", module_cache_now());
    f->initial_age = (int64_t)integer_field(L, table, "initial_age", 0);
    f->lifetime = (int64_t)integer_field(L, table, "lifetime", 60000);
    f->stale_if_error = (int64_t)integer_field(L, table, "stale_if_error", 0);
    f->stale_while_revalidate = (int64_t)integer_field(L, table, "stale_while_revalidate", 0);
}

/* vary = { stored for these request headers }: by the Vary among `headers`. */
static void read_vary(lua_State *L, int table, struct lua_draft *d) {
    struct headers request;
    struct arena arena;
    lua_getfield(L, table, "request");
    read_headers(L, lua_gettop(L), &request, &arena);
    d->draft.vary = vary_key(&d->arena, &d->headers, &request);
    arena_fini(&arena);
    lua_pop(L, 1);
}

static void read_draft(lua_State *L, int table, struct lua_draft *d) {
    *d = (struct lua_draft){ 0 };
    lua_getfield(L, table, "headers");
    read_headers(L, lua_gettop(L), &d->headers, &d->arena);
    lua_pop(L, 1);
    d->draft = (struct cache_draft){ .status = (int)integer_field(L, table, "status", 200),
                                     .version = (uint8_t)integer_field(L, table, "version", 11),
                                     .reason = slice_field(L, table, "reason"),
                                     .headers = &d->headers,
                                     .url = slice_field(L, table, "url"),
                                     .tags = d->tags,
                                     .length = (uint64_t)integer_field(L, table, "length", -1),
                                     .partial = flag_field(L, table, "partial"),
                                     .first = (uint64_t)integer_field(L, table, "first", 0),
                                     .total = (uint64_t)integer_field(L, table, "total", 0),
                                     .replaces_all = flag_field(L, table, "replaces_all") };
    read_freshness(L, table, &d->draft.freshness);
    read_vary(L, table, d);
    lua_getfield(L, table, "tags");
    for (lua_Integer i = 1; lua_istable(L, -1) && lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
        d->tags[d->draft.tag_count++] = module_check_slice(L, -1);
        lua_pop(L, 1);
    }
    lua_settop(L, table);
}

static int fill_on_store(lua_State *L) {
    struct lua_draft d;
    lua_settop(L, 2);
    read_draft(L, 2, &d);
    push_cached(L, cache_fill_store(take_fill(L), &d.draft));
    arena_fini(&d.arena);
    return 1;
}

/* freshen(old, draft) */
static int fill_on_freshen(lua_State *L) {
    struct lua_draft d;
    struct cached *old = check_cached(L, 2);
    lua_settop(L, 3);
    read_draft(L, 3, &d);
    push_cached(L, cache_fill_freshen(take_fill(L), old, &d.draft));
    arena_fini(&d.arena);
    return 1;
}

/* ---- followers */

struct lua_follower {
    struct cache_follower follower;
    unsigned told;
};

static void follower_on_outcome(struct cache_follower *f) { container_of(f, struct lua_follower, follower)->told++; }

static struct lua_follower *check_follower(lua_State *L) { return luaL_checkudata(L, 1, FOLLOWER); }

static int follower_on_ask(lua_State *L) {
    static const char *const words[] = { "filling", "filled", "passed", "failed" };
    struct lua_follower *f = check_follower(L);
    lua_pushstring(L, words[atomic_load(&f->follower.outcome)]);
    lua_pushinteger(L, f->told);
    return 2;
}

static int follower_on_unfollow(lua_State *L) {
    cache_unfollow(&check_follower(L)->follower);
    return 0;
}

/* ---- caches */

/* open(name, memory, max_object) */
static int cache_on_open(lua_State *L) {
    struct cache_limits limits = { (uint64_t)luaL_optinteger(L, 2, 1 << 20), (uint64_t)luaL_optinteger(L, 3, 0) };
    struct cache *cache = cache_open(module_check_slice(L, 1), &limits);
    if (cache) lua_pushlightuserdata(L, cache);
    else lua_pushnil(L);
    return 1;
}

static int cache_on_named(lua_State *L) {
    struct cache *cache = cache_named(module_check_slice(L, 1));
    if (cache) lua_pushlightuserdata(L, cache);
    else lua_pushnil(L);
    return 1;
}

static int cache_on_sites(lua_State *L) {
    lua_Integer i = 1;
    lua_newtable(L);
    for (struct cache *c = cache_next(NULL); c; c = cache_next(c)) {
        module_push_slice(L, cache_site(c));
        lua_seti(L, -2, i++);
    }
    return 1;
}

static int cache_on_close_all(lua_State *L) {
    lua_gc(L, LUA_GCCOLLECT);
    lua_gc(L, LUA_GCCOLLECT);
    cache_close_all();
    return 0;
}

/* look_up(cache, key, request headers): cached, stale, or nil and why. */
static int cache_on_look_up(lua_State *L) {
    static const char *const words[] = { "uri-miss", "vary-miss", "purged" };
    struct cache_key key = check_key(L, 2);
    struct headers request;
    struct arena arena;
    bool stale = false;
    enum cache_miss miss = CACHE_URI_MISS;
    read_headers(L, 3, &request, &arena);
    struct cached *c = cache_look_up(lua_touserdata(L, 1), &key, &request, &stale, &miss);
    arena_fini(&arena);
    push_cached(L, c);
    if (c) lua_pushboolean(L, stale);
    else lua_pushstring(L, words[miss]);
    return 2;
}

/* join(cache, key, request headers, known): "lead", fill · "follow", follower · "changed" */
static int cache_on_join(lua_State *L) {
    static const char *const words[] = { "lead", "follow", "changed" };
    struct cache_key key = check_key(L, 2);
    const struct cached *known = lua_isnoneornil(L, 4) ? NULL : check_cached(L, 4);
    struct headers request;
    struct arena arena;
    struct cache_fill *fill = NULL;
    lua_settop(L, 4);
    struct lua_follower *f = lua_newuserdatauv(L, sizeof *f, 0);
    memset(f, 0, sizeof *f);
    f->follower.tell = follower_on_outcome;
    luaL_setmetatable(L, FOLLOWER);
    read_headers(L, 3, &request, &arena);
    enum cache_turn turn = cache_join(lua_touserdata(L, 1), &key, &request, known, &f->follower, &fill);
    arena_fini(&arena);
    lua_pushstring(L, words[turn]);
    if (turn == CACHE_LEAD) push_fill(L, fill);
    else if (turn == CACHE_FOLLOW) lua_pushvalue(L, 5);
    else lua_pushnil(L);
    return 2;
}

static int cache_on_alone(lua_State *L) {
    struct cache_key key = check_key(L, 2);
    struct headers request;
    struct arena arena;
    read_headers(L, 3, &request, &arena);
    push_fill(L, cache_fill_alone(lua_touserdata(L, 1), &key, &request));
    arena_fini(&arena);
    return 1;
}

/* purge(cache, kind, what, soft) */
static int cache_on_purge(lua_State *L) {
    static const char *const kinds[] = { "key", "url", "tag", "prefix", "all", NULL };
    struct cache *cache = lua_touserdata(L, 1);
    struct slice what = module_opt_slice(L, 3);
    bool soft = lua_toboolean(L, 4);
    uint64_t hit = 0;
    struct cache_key key;
    switch (luaL_checkoption(L, 2, NULL, kinds)) {
    case 0:
        key = cache_key_of(what);
        hit = cache_purge_key(cache, &key, soft);
        break;
    case 1: hit = cache_purge_url(cache, what, soft); break;
    case 2: hit = cache_purge_tag(cache, what, soft); break;
    case 3: hit = cache_purge_prefix(cache, what, soft); break;
    case 4: hit = cache_purge_all(cache, soft); break;
    }
    lua_pushinteger(L, (lua_Integer)hit);
    return 1;
}

static int cache_on_sweep(lua_State *L) {
    cache_sweep(lua_touserdata(L, 1), (unsigned)luaL_checkinteger(L, 2));
    return 0;
}

static int cache_on_figures(lua_State *L) {
    struct cache_figures f;
    cache_figures(lua_touserdata(L, 1), &f);
    lua_newtable(L);
#define FIGURE(name) set_integer(L, #name, f.name);
    FIGURE(memory)
    FIGURE(used)
    FIGURE(mapped)
    FIGURE(objects)
    FIGURE(passes)
    FIGURE(stored)
    FIGURE(freshened)
    FIGURE(evicted)
    FIGURE(refused)
    FIGURE(purged)
    FIGURE(expired)
    FIGURE(evicted_bytes)
#undef FIGURE
    return 1;
}

/* variants(cache, key): { { url =, vary =, purged =, softly = }, … } */
static void see_variant(void *data, const struct cached *c, bool purged, bool softly) {
    lua_State *L = data;
    lua_newtable(L);
    module_set_slice(L, "url", c->url);
    module_set_slice(L, "vary", c->vary);
    lua_pushboolean(L, purged);
    lua_setfield(L, -2, "purged");
    lua_pushboolean(L, softly);
    lua_setfield(L, -2, "softly");
    lua_seti(L, -2, luaL_len(L, -2) + 1);
}

static int cache_on_variants(lua_State *L) {
    struct cache_key key = check_key(L, 2);
    lua_newtable(L);
    cache_each_variant(lua_touserdata(L, 1), &key, see_variant, L);
    return 1;
}

/* ---- the module */

static const luaL_Reg cached_methods[] = {
    { "unref", cached_on_unref },
    { "__gc", cached_on_unref },
    { "same", cached_on_same },
    { "info", cached_on_info },
    { "room", cached_on_room },
    { "write", cached_on_write },
    { "finish", cached_on_finish },
    { "break_off", cached_on_break },
    { "body", cached_on_body },
    { "hold", cached_on_hold },
    { "abandoned", cached_on_abandoned },
    { "reader", cached_on_reader },
    { NULL, NULL },
};
static const luaL_Reg reader_methods[] = {
    { "peek", reader_on_peek },     { "skip", reader_on_skip },   { "read", reader_on_read },
    { "at_end", reader_on_at_end }, { "await", reader_on_await }, { "told", reader_on_told },
    { "close", reader_on_close },   { "__gc", reader_on_close },  { NULL, NULL },
};
static const luaL_Reg fill_methods[] = {
    { "store", fill_on_store }, { "freshen", fill_on_freshen }, { "pass", fill_on_pass },
    { "fail", fill_on_fail },   { "__gc", fill_on_gc },         { NULL, NULL },
};
static const luaL_Reg follower_methods[] = {
    { "outcome", follower_on_ask },
    { "unfollow", follower_on_unfollow },
    { "__gc", follower_on_unfollow },
    { NULL, NULL },
};
static const luaL_Reg functions[] = {
    { "open", cache_on_open },           { "named", cache_on_named },       { "sites", cache_on_sites },
    { "close_all", cache_on_close_all }, { "look_up", cache_on_look_up },   { "join", cache_on_join },
    { "alone", cache_on_alone },         { "purge", cache_on_purge },       { "sweep", cache_on_sweep },
    { "figures", cache_on_figures },     { "variants", cache_on_variants }, { NULL, NULL },
};

int module_cache_open(lua_State *L) {
    module_make_type(L, CACHED, cached_methods);
    module_make_type(L, READER, reader_methods);
    module_make_type(L, FILL, fill_methods);
    module_make_type(L, FOLLOWER, follower_methods);
    luaL_newlib(L, functions);
    module_cache_load_open(L);
    return 1;
}
