/* What scripts see of the cache: `req.cache`, what policy wants of it for a request; `res.cache`, what came of that,
 * and in on_store what is stored; gate.cache, purges.
 *
 *     req.cache.bypass = true          neither answered from it nor stored in it
 *     req.cache.refresh = true         not answered from it, but the new answer is stored
 *     req.cache.stale = true           what is stored answers, however stale
 *     res.cache.ttl = 60               on_store: fresh for that long
 *     gate.cache.purge { tag = "shop" } */
#include "lua/bind.h"

#include "lua/run.h"

#include "base/must.h"
#include "http/uri.h"
#include "lua/sandbox.h"
#include "proxy/purge_wait.h"

#include <stdlib.h>

enum { TAG_BYTES = 1024, TEXT_MAX = 64 << 10, LIST_MAX = 1000, SECONDS_MAX = INT32_MAX };

static void push_slice(lua_State *L, struct slice s) {
    if (s.p) lua_pushlstring(L, s.p, s.n);
    else lua_pushnil(L);
}

/* ---- req.cache */

static const struct handle_kind request_kind = { .name = "moongate.cache" };

static struct exchange *exchange_of(void *view) { return ((struct view *)view)->exchange; }

static void get_bypass(lua_State *L, void *v) { lua_pushboolean(L, exchange_of(v)->cache_bypass); }
static void get_refresh(lua_State *L, void *v) { lua_pushboolean(L, exchange_of(v)->cache_refresh); }
static void get_use_stale(lua_State *L, void *v) { lua_pushboolean(L, exchange_of(v)->cache_stale); }

static bool assigned_boolean(lua_State *L, const struct view *v, const char *name) {
    view_check_request(L, v);
    if (!lua_isboolean(L, 3) && !lua_isnil(L, 3))
        luaL_error(L, "req.cache.%s is true or false, not a %s", name, luaL_typename(L, 3));
    return lua_toboolean(L, 3);
}

static void set_bypass(lua_State *L, void *v) { exchange_of(v)->cache_bypass = assigned_boolean(L, v, "bypass"); }
static void set_refresh(lua_State *L, void *v) { exchange_of(v)->cache_refresh = assigned_boolean(L, v, "refresh"); }
static void set_use_stale(lua_State *L, void *v) { exchange_of(v)->cache_stale = assigned_boolean(L, v, "stale"); }

static const struct field request_fields[] = {
    { "bypass", get_bypass, set_bypass },
    { "refresh", get_refresh, set_refresh },
    { "stale", get_use_stale, set_use_stale },
    { NULL, NULL, NULL },
};

static int request_index(lua_State *L) {
    return object_index(L, object_self(L, 1, &request_kind), request_fields, "req.cache");
}
static int request_newindex(lua_State *L) {
    return object_newindex(L, object_self(L, 1, &request_kind), request_fields, "req.cache");
}

static const luaL_Reg request_metamethods[] = { { "__index", request_index },
                                                { "__newindex", request_newindex },
                                                { NULL, NULL } };

void request_cache_push(lua_State *L, struct view *v) {
    handle_push_part(L, &v->exchange->subject, HANDLE_REQ_CACHE, &request_kind, v);
}

/* ---- res.cache */

static const struct handle_kind response_kind = { .name = "moongate.res_cache" };

static const struct caching *caching_of(const struct view *v) { return v->exchange->caching; }

/* The stored response that answers; NULL: none does, or on_store is asked. */
static const struct cached *answering(const struct view *v) {
    const struct caching *c = caching_of(v);
    return !v->storing && c->served ? c->found : NULL;
}

static double seconds_of(int64_t ms) { return (double)ms / 1000; }

static void push_seconds_left(lua_State *L, int64_t ms) { lua_pushnumber(L, ms > 0 ? seconds_of(ms) : 0); }

/* What policy wants, else what the fields say. */
static void push_wish(lua_State *L, double wish, int64_t ms) {
    if (wish >= 0) lua_pushnumber(L, wish);
    else push_seconds_left(L, ms);
}

static void get_status(lua_State *L, void *view) {
    const struct view *v = view;
    if (v->storing) lua_pushstring(L, v->storing->fill->validated ? "revalidated" : "miss");
    else lua_pushstring(L, caching_word(caching_of(v)));
}

static void get_age(lua_State *L, void *view) {
    const struct view *v = view;
    if (v->storing) lua_pushnumber(L, seconds_of(v->storing->fresh.initial_age));
    else if (answering(v)) lua_pushnumber(L, seconds_of(caching_of(v)->reuse.age));
    else lua_pushnil(L);
}

static void get_ttl(lua_State *L, void *view) {
    const struct view *v = view;
    const struct storing *s = v->storing;
    bool stored = s ? s->wish.ttl >= 0 || cache_rule_stores(s->fill->rule) : answering(v) != NULL;
    if (!stored) lua_pushnil(L);
    else if (s) push_wish(L, s->wish.ttl, s->fresh.lifetime - s->fresh.initial_age);
    else push_seconds_left(L, caching_of(v)->stale_found ? 0 : caching_of(v)->reuse.left);
}

static void get_stale(lua_State *L, void *view) {
    const struct view *v = view;
    const struct storing *s = v->storing;
    if (s) push_wish(L, s->wish.stale, s->fresh.stale_while_revalidate);
    else if (answering(v)) push_seconds_left(L, answering(v)->freshness.stale_while_revalidate);
    else lua_pushnil(L);
}

static void get_stale_if_error(lua_State *L, void *view) {
    const struct view *v = view;
    const struct storing *s = v->storing;
    if (s) push_wish(L, s->wish.stale_if_error, s->fresh.stale_if_error);
    else if (answering(v)) push_seconds_left(L, answering(v)->freshness.stale_if_error);
    else lua_pushnil(L);
}

static void get_pass(lua_State *L, void *view) {
    const struct view *v = view;
    const struct storing *s = v->storing;
    if (!s) lua_pushboolean(L, strcmp(caching_word(caching_of(v)), "pass") == 0);
    else if (s->wish.pass >= 0) lua_pushnumber(L, s->wish.pass);
    else lua_pushboolean(L, 0);
}

static void push_tags(lua_State *L, const struct slice *tags, unsigned count) {
    lua_createtable(L, (int)count, 0);
    for (unsigned i = 0; i < count; i++) {
        push_slice(L, tags[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

static void get_tags(lua_State *L, void *view) {
    const struct view *v = view;
    const struct cached *found = answering(v);
    if (v->storing) push_tags(L, v->storing->wish.tags, v->storing->wish.tag_count);
    else push_tags(L, found ? found->tags : NULL, found ? found->tag_count : 0);
}

static void get_key(lua_State *L, void *v) { push_slice(L, caching_of(v)->key.bytes); }

/* What a fill found; of what was there already, why it was not for others. */
static void get_rule(lua_State *L, void *view) {
    const struct view *v = view;
    const struct caching *c = caching_of(v);
    bool heard = caching_leads(c) && c->fill.status && c->fill.state != FILL_STALE;
    if (v->storing) push_slice(L, cache_rule_word(v->storing->fill->rule));
    else if (heard) push_slice(L, cache_rule_word(c->fill.rule));
    else if (c->asks && c->found) push_slice(L, cache_rule_word(c->found->rule));
    else lua_pushnil(L);
}

/* -- setters: only in on_store */

static struct storing *storing_check(lua_State *L, const struct view *v) {
    if (!v->storing)
        luaL_error(L, "res.cache.%s is read-only: this answer is not about to be stored (assign in on_store)",
                   lua_tostring(L, 2));
    view_check_response(L, v);
    return v->storing;
}

/* nil: as the fields say. */
static double assigned_seconds(lua_State *L) {
    double seconds = -1;
    if (lua_isnil(L, 3)) return seconds;
    if (!seconds_read(L, 3, &seconds))
        luaL_error(L, "res.cache.%s is a number of seconds, or such as \"10m\", not %s", lua_tostring(L, 2),
                   value_name_push(L, 3));
    return seconds < SECONDS_MAX ? seconds : SECONDS_MAX;
}

static void set_ttl(lua_State *L, void *v) {
    struct storing *s = storing_check(L, v);
    s->wish.ttl = assigned_seconds(L);
}
static void set_stale(lua_State *L, void *v) {
    struct storing *s = storing_check(L, v);
    s->wish.stale = assigned_seconds(L);
}
static void set_stale_if_error(lua_State *L, void *v) {
    struct storing *s = storing_check(L, v);
    s->wish.stale_if_error = assigned_seconds(L);
}

static void set_pass(lua_State *L, void *v) {
    struct storing *s = storing_check(L, v);
    if (lua_isboolean(L, 3)) s->wish.pass = lua_toboolean(L, 3) ? exchange_of(v)->site->cache.pass : -1;
    else s->wish.pass = assigned_seconds(L);
}

static struct slice assigned_tag(lua_State *L, struct view *v, lua_Integer i) {
    if (lua_rawgeti(L, 3, i) != LUA_TSTRING)
        luaL_error(L, "res.cache.tags is a list of strings: the one at %I is a %s", i, luaL_typename(L, -1));
    struct slice tag = text_check(L, lua_gettop(L));
    if (tag.n == 0 || tag.n > TAG_BYTES) luaL_error(L, "a tag in res.cache.tags has 1 to %d bytes", TAG_BYTES);
    tag = view_copy(L, v, tag);
    lua_pop(L, 1);
    return tag;
}

static void set_tags(lua_State *L, void *view) {
    struct view *v = view;
    struct storing *s = storing_check(L, v);
    lua_Unsigned count = lua_isnil(L, 3) ? 0 : lua_rawlen(L, 3);
    if (!lua_istable(L, 3) && !lua_isnil(L, 3))
        luaL_error(L, "res.cache.tags is a list of strings, not a %s", luaL_typename(L, 3));
    if (count > CACHE_TAGS_MAX) luaL_error(L, "res.cache.tags has at most %d tags", CACHE_TAGS_MAX);
    view_charge(L, v, count * sizeof(struct slice));
    struct slice *tags = arena_alloc(&v->exchange->arena, (count + 1) * sizeof *tags);
    for (lua_Unsigned i = 0; i < count; i++) tags[i] = assigned_tag(L, v, (lua_Integer)i + 1);
    s->wish.tags = tags;
    s->wish.tag_count = (unsigned)count;
}

static const struct field response_fields[] = {
    { "status", get_status, NULL },
    { "age", get_age, NULL },
    { "ttl", get_ttl, set_ttl },
    { "stale", get_stale, set_stale },
    { "stale_if_error", get_stale_if_error, set_stale_if_error },
    { "tags", get_tags, set_tags },
    { "pass", get_pass, set_pass },
    { "key", get_key, NULL },
    { "rule", get_rule, NULL },
    { NULL, NULL, NULL },
};

static int response_index(lua_State *L) {
    return object_index(L, object_self(L, 1, &response_kind), response_fields, "res.cache");
}
static int response_newindex(lua_State *L) {
    return object_newindex(L, object_self(L, 1, &response_kind), response_fields, "res.cache");
}

static const luaL_Reg response_metamethods[] = { { "__index", response_index },
                                                 { "__newindex", response_newindex },
                                                 { NULL, NULL } };

void response_cache_push(lua_State *L, struct view *v) {
    if (caching_of(v)) handle_push_part(L, v->subject, HANDLE_RES_CACHE, &response_kind, v);
    else lua_pushnil(L);
}

/* ---- gate.cache */

/* One way to name what is to go. */
struct purge {
    struct site *site;
    struct cache *cache;
    struct exchange *exchange; /* whose request completes "/path"; NULL: none */
    bool soft;
};

static bool is_path(struct slice s) { return s.n && s.p[0] == '/'; }

/* As stored responses are named; p NULL: it is no URL. In the arena. */
static struct slice stored_url(struct arena *arena, const struct purge *p, struct slice text) {
    struct target t;
    if (is_path(text) && p->exchange) {
        const struct slice parts[] = { caching_origin(p->exchange), text };
        text = arena_concat(arena, parts, 2);
    }
    if (!url_parse(arena, arena_copy(arena, text), &t)) return slice_make(NULL, 0);
    if (!p->site->raw_target) t.path = path_normalise(arena, t.path);
    return t.path.p ? target_url(arena, &t) : t.path;
}

static uint64_t purge_url(const struct purge *p, struct slice text, const char **wrong) {
    struct arena arena;
    arena_init(&arena);
    struct slice url = stored_url(&arena, p, text);
    uint64_t count = url.p ? cache_purge_url(p->cache, url, p->soft) : 0;
    if (!url.p) *wrong = "is no URL (in a hook of a request a path will do)";
    arena_fini(&arena);
    return count;
}

static uint64_t purge_prefix(const struct purge *p, struct slice text, const char **wrong) {
    struct arena arena;
    arena_init(&arena);
    if (is_path(text) && p->exchange) {
        const struct slice parts[] = { caching_origin(p->exchange), text };
        text = arena_concat(&arena, parts, 2);
    }
    bool whole = slice_starts_with(text, SLICE("http://")) || slice_starts_with(text, SLICE("https://"));
    if (!whole) *wrong = "is no beginning of a URL (in a hook of a request a path will do)";
    uint64_t count = whole ? cache_purge_prefix(p->cache, text, p->soft) : 0;
    arena_fini(&arena);
    return count;
}

static uint64_t purge_tag(const struct purge *p, struct slice text, const char **wrong) {
    if (text.n == 0) *wrong = "is empty";
    return text.n ? cache_purge_tag(p->cache, text, p->soft) : 0;
}

static uint64_t purge_key(const struct purge *p, struct slice text, const char **wrong) {
    struct cache_key key = cache_key_of(text);
    (void)wrong;
    return cache_purge_key(p->cache, &key, p->soft);
}

static uint64_t purge_all(const struct purge *p) { return cache_purge_all(p->cache, p->soft); }

static const struct {
    const char *name;
    uint64_t (*purge)(const struct purge *, struct slice, const char **wrong);
} ways[] = { { "url", purge_url }, { "prefix", purge_prefix }, { "tag", purge_tag }, { "key", purge_key } };
enum { WAYS = sizeof ways / sizeof *ways };

/* The text on top, which it pops. */
static uint64_t purge_one(lua_State *L, const struct purge *p, unsigned way) {
    const char *wrong = NULL;
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "gate.cache.purge: %s is a string or a list of strings", ways[way].name);
    struct slice text = string_check(L, lua_gettop(L), TEXT_MAX);
    budget_spend(L, 16);
    uint64_t count = ways[way].purge(p, text, &wrong);
    if (wrong) luaL_error(L, "gate.cache.purge: %s: \"%s\" %s", ways[way].name, text.p, wrong);
    lua_pop(L, 1);
    return count;
}

/* One text or a list of them on top. */
static uint64_t purge_some(lua_State *L, const struct purge *p, unsigned way) {
    uint64_t count = 0;
    if (!lua_istable(L, -1)) return purge_one(L, p, way);
    int list = lua_gettop(L);
    lua_Unsigned n = lua_rawlen(L, list);
    if (n > LIST_MAX) luaL_error(L, "gate.cache.purge: %s has more than %d texts", ways[way].name, LIST_MAX);
    for (lua_Unsigned i = 1; i <= n; i++) {
        lua_rawgeti(L, list, (lua_Integer)i);
        count += purge_one(L, p, way);
    }
    lua_pop(L, 1);
    return count;
}

static bool is_named(lua_State *L, const struct site *site) {
    return lua_type(L, -1) != LUA_TSTRING || strcmp(lua_tostring(L, -1), site->name) == 0;
}

/* The site of that name, on top, or with nil the only one that has a cache. */
static struct site *find_site(lua_State *L) {
    const struct generation *g = state_of(L)->generation;
    struct site *found = NULL;
    unsigned count = 0;
    for (unsigned i = 0; g && i < g->site_count; i++) {
        if (!g->sites[i]->cache.cache || !is_named(L, g->sites[i])) continue;
        found = g->sites[i];
        count++;
    }
    if (count == 1) return found;
    if (lua_type(L, -1) == LUA_TSTRING)
        luaL_error(L, "gate.cache.purge: there is no site \"%s\" with a cache", lua_tostring(L, -1));
    luaL_error(L, count ? "gate.cache.purge: more than one site has a cache: say which, site = \"name\""
                        : "gate.cache.purge: no site has a cache");
    return NULL;
}

static void read_site(lua_State *L, struct purge *p) {
    const struct subject *subject = subject_check(L, "gate.cache.purge");
    int type = option_push(L, 1, "site");
    if (type != LUA_TNIL && type != LUA_TSTRING) luaL_error(L, "gate.cache.purge: site is the name of a site");
    p->exchange = subject->exchange && subject->exchange->site ? subject->exchange : NULL;
    bool own = type == LUA_TNIL && subject->site && subject->site->cache.cache;
    p->site = own ? subject->site : find_site(L);
    p->cache = p->site->cache.cache;
    lua_pop(L, 1);
}

static bool read_flag(lua_State *L, const char *name) {
    int type = option_push(L, 1, name);
    bool value = lua_toboolean(L, -1);
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "gate.cache.purge: %s is true or false", name);
    lua_pop(L, 1);
    return value;
}

/* -- until it is safe on disk */

struct purge_nap {
    struct wait wait;
    struct task task;
    struct purge_wait purge;
    uint64_t count;
};

static void nap_free(struct purge_nap *nap) {
    purge_wait_end(&nap->purge);
    task_forget(&nap->task);
    free(nap);
}

static void nap_cancel(struct wait *w) { nap_free(container_of(w, struct purge_nap, wait)); }

static void nap_advance(struct task *t) {
    struct purge_nap *nap = container_of(t, struct purge_nap, task);
    if (purge_wait_over(&nap->purge)) wait_done(&nap->wait);
}

static int end_purge(lua_State *L, int status, lua_KContext context) {
    struct purge_nap *nap = (struct purge_nap *)context;
    (void)status;
    lua_pushinteger(L, (lua_Integer)nap->count);
    nap_free(nap);
    return 1;
}

static int await_purge(lua_State *L, struct cache *cache, uint64_t count) {
    struct worker *w = state_of(L)->worker;
    struct purge_nap *nap = must_calloc(1, sizeof *nap);
    nap->count = count;
    nap->wait.cancel = nap_cancel;
    task_init(&nap->task, nap_advance);
    if (purge_wait_begin(&nap->purge, cache, &w->loop, &w->mailbox, &nap->task))
        return wait_begin(L, &nap->wait, (lua_KContext)nap, end_purge);
    nap_free(nap);
    lua_pushinteger(L, (lua_Integer)count);
    return 1;
}

/* gate.cache.purge { url = | prefix = | tag = | key = | all = true, soft =, site = } */
static int cache_purge(lua_State *L) {
    static const char *const names[] = { "url", "prefix", "tag", "key", "all", "soft", "site", NULL };
    struct purge p = { 0 };
    uint64_t count = 0;
    unsigned named = 0;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    options_check(L, 1, "gate.cache.purge", names);
    read_site(L, &p);
    p.soft = read_flag(L, "soft");
    bool all = read_flag(L, "all");
    for (unsigned i = 0; i < WAYS; i++) {
        named += option_push(L, 1, ways[i].name) != LUA_TNIL;
        lua_pop(L, 1);
    }
    if (named + all != 1) return luaL_error(L, "gate.cache.purge takes one of url, prefix, tag, key and all = true");
    bool kept = disk_keeps_purges(p.cache);
    if (kept) wait_check(L);
    if (all) count = purge_all(&p);
    for (unsigned i = 0; i < WAYS; i++) {
        if (option_push(L, 1, ways[i].name) != LUA_TNIL) count += purge_some(L, &p, i);
        lua_settop(L, 1);
    }
    if (kept) return await_purge(L, p.cache, count);
    lua_pushinteger(L, (lua_Integer)count);
    return 1;
}

/* ---- open */

void bind_cache_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "purge", cache_purge }, { NULL, NULL } };
    object_kind_open(L, &request_kind, request_fields, request_metamethods, NULL);
    object_kind_open(L, &response_kind, response_fields, response_metamethods, NULL);
    luaL_newlib(L, functions);
    front_make(L, "gate.cache");
    lua_setfield(L, -2, "cache");
}
