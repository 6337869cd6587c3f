/* The rules of a cache: directives, freshness, reuse, updates, Vary, Cache-Status. Messages are strings, one field on
 * each line. Times are milliseconds. */
#include "module_rules.h"

#include "http/cache_status.h"
#include "http/framing.h"
#include "http/uri.h"
#include "http/vary.h"

/* ---- messages and tables */

void rules_read_fields(lua_State *L, int index, struct headers *headers, struct arena *arena) {
    headers_init(headers, arena);
    struct slice rest = module_opt_slice(L, index);
    while (rest.p) {
        struct slice value = slice_cut(&rest, '\n'), name = slice_cut(&value, ':');
        if (value.p) headers_add(headers, name, slice_trim(value));
    }
}

void rules_field_fields(lua_State *L, const char *field, struct headers *headers, struct arena *arena) {
    lua_getfield(L, 1, field);
    rules_read_fields(L, -1, headers, arena);
    lua_pop(L, 1); /* the table still has it */
}

void rules_push_fields(lua_State *L, const struct headers *headers) {
    struct buffer out = { 0 };
    headers_each(h, headers) buffer_printf(&out, "%.*s: %.*s\n", FMT(h->name), FMT(h->value));
    module_push_buffer(L, &out);
    buffer_fini(&out);
}

lua_Integer rules_integer(lua_State *L, const char *field, lua_Integer otherwise) {
    lua_getfield(L, 1, field);
    lua_Integer n = luaL_optinteger(L, -1, otherwise);
    lua_pop(L, 1);
    return n;
}

bool rules_boolean(lua_State *L, const char *field) {
    lua_getfield(L, 1, field);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

struct slice rules_slice(lua_State *L, const char *field) {
    lua_getfield(L, 1, field);
    struct slice s = module_opt_slice(L, -1);
    lua_pop(L, 1);
    return s;
}

void rules_set_integer(lua_State *L, const char *field, int64_t n) {
    lua_pushinteger(L, n);
    lua_setfield(L, -2, field);
}

void rules_set_boolean(lua_State *L, const char *field, bool value) {
    lua_pushboolean(L, value);
    lua_setfield(L, -2, field);
}

/* ---- directives */

static const struct {
    uint32_t bit;
    const char *name;
} bits[] = {
    { CC_NO_STORE, "no_store" },
    { CC_NO_CACHE, "no_cache" },
    { CC_NO_CACHE_FIELDS, "no_cache_fields" },
    { CC_PRIVATE, "private" },
    { CC_PRIVATE_FIELDS, "private_fields" },
    { CC_PUBLIC, "public" },
    { CC_MUST_REVALIDATE, "must_revalidate" },
    { CC_PROXY_REVALIDATE, "proxy_revalidate" },
    { CC_MUST_UNDERSTAND, "must_understand" },
    { CC_NO_TRANSFORM, "no_transform" },
    { CC_ONLY_IF_CACHED, "only_if_cached" },
    { CC_IMMUTABLE, "immutable" },
    { CC_PRAGMA, "pragma" },
    { CC_TARGETED, "targeted" },
    { CC_MALFORMED, "malformed" },
};

static void set_span(lua_State *L, const struct cache_control *cc, uint32_t bit, const char *name, uint32_t seconds) {
    if (cc->present & bit) rules_set_integer(L, name, seconds);
}

static int push_directives(lua_State *L, const struct cache_control *cc) {
    lua_newtable(L);
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        if (cc->present & bits[i].bit) rules_set_boolean(L, bits[i].name, true);
    set_span(L, cc, CC_MAX_AGE, "max_age", cc->max_age);
    set_span(L, cc, CC_S_MAXAGE, "s_maxage", cc->s_maxage);
    set_span(L, cc, CC_STALE_WHILE_REVALIDATE, "stale_while_revalidate", cc->stale_while_revalidate);
    set_span(L, cc, CC_STALE_IF_ERROR, "stale_if_error", cc->stale_if_error);
    set_span(L, cc, CC_MIN_FRESH, "min_fresh", cc->min_fresh);
    set_span(L, cc, CC_MAX_STALE, "max_stale", cc->max_stale);
    return 1;
}

/* rules.asked(request) -> the directives that are there */
static int rules_asked(lua_State *L) {
    struct arena arena;
    struct headers headers;
    struct cache_control cc;
    arena_init(&arena);
    rules_read_fields(L, 1, &headers, &arena);
    cache_control_of_request(&cc, &headers);
    arena_fini(&arena);
    return push_directives(L, &cc);
}

/* rules.told(response, targeted) */
static int rules_told(lua_State *L) {
    struct arena arena;
    struct headers headers;
    struct cache_control cc;
    arena_init(&arena);
    rules_read_fields(L, 1, &headers, &arena);
    cache_control_of_response(&cc, &headers, lua_toboolean(L, 2));
    arena_fini(&arena);
    return push_directives(L, &cc);
}

/* ---- freshness and reuse */

struct story {
    struct arena arena;
    struct request request;
    struct response response;
    struct cache_control asked, told;
    struct freshness freshness;
};

/* { method =, request =, status =, response =, targeted =, request_time =, response_time = } at 1 */
static enum cache_rule read_story(lua_State *L, struct story *s) {
    struct slice method = rules_slice(L, "method");
    int64_t response_time = rules_integer(L, "response_time", 0);
    *s = (struct story){ .request.method = method.p ? method_of(method) : METHOD_GET };
    arena_init(&s->arena);
    rules_field_fields(L, "request", &s->request.headers, &s->arena);
    rules_field_fields(L, "response", &s->response.headers, &s->arena);
    s->response.status = (int)rules_integer(L, "status", 200);
    framing_of_response(&s->response, s->request.method);
    cache_control_of_request(&s->asked, &s->request.headers);
    cache_control_of_response(&s->told, &s->response.headers, rules_boolean(L, "targeted"));
    return freshness_of(&s->freshness, &s->request, &s->asked, &s->response, &s->told,
                        rules_integer(L, "request_time", response_time), response_time);
}

/* rules.freshness(story) -> word, stored, { received =, age =, lifetime =, … } */
static int rules_freshness(lua_State *L) {
    struct story s;
    enum cache_rule rule = read_story(L, &s);
    const struct freshness *f = &s.freshness;
    module_push_slice(L, cache_rule_word(rule));
    lua_pushboolean(L, cache_rule_stores(rule));
    lua_newtable(L);
    rules_set_integer(L, "received", f->received);
    rules_set_integer(L, "age", f->initial_age);
    rules_set_integer(L, "lifetime", f->lifetime);
    rules_set_integer(L, "stale_while_revalidate", f->stale_while_revalidate);
    rules_set_integer(L, "stale_if_error", f->stale_if_error);
    rules_set_boolean(L, "validate", f->flags & FRESHNESS_VALIDATE);
    rules_set_boolean(L, "never_stale", f->flags & FRESHNESS_NEVER_STALE);
    rules_set_boolean(L, "heuristic", f->flags & FRESHNESS_HEURISTIC);
    arena_fini(&s.arena);
    return 3;
}

/* rules.reuse(story, request, now) -> verdict, { reason =, … } */
static int rules_reuse(lua_State *L) {
    static const char *const verdicts[] = { "fresh", "stale", "revalidate", "validate", "bypass", "timeout" };
    struct story s;
    struct headers again;
    struct cache_control asked;
    read_story(L, &s);
    rules_read_fields(L, 2, &again, &s.arena);
    cache_control_of_request(&asked, &again);
    struct reuse r = reuse_of(&s.freshness, &asked, luaL_checkinteger(L, 3));
    lua_pushstring(L, verdicts[r.verdict]);
    lua_newtable(L);
    lua_pushstring(L, r.reason == REUSE_BY_AGE ? "age" : "request");
    lua_setfield(L, -2, "reason");
    lua_pushstring(L, verdicts[reuse_of_nothing(&asked)]);
    lua_setfield(L, -2, "nothing");
    rules_set_boolean(L, "on_error", r.stale_on_error);
    rules_set_boolean(L, "if_cut_off", r.stale_if_cut_off);
    rules_set_integer(L, "age", r.age);
    rules_set_integer(L, "left", r.left);
    rules_set_integer(L, "seconds", r.age_seconds);
    arena_fini(&s.arena);
    return 2;
}

static int rules_age(lua_State *L) {
    struct arena arena;
    struct headers headers;
    arena_init(&arena);
    rules_read_fields(L, 1, &headers, &arena);
    lua_pushinteger(L, cache_age_read(&headers));
    arena_fini(&arena);
    return 1;
}

static int rules_date(lua_State *L) {
    struct arena arena;
    struct headers headers;
    int64_t ms;
    arena_init(&arena);
    rules_read_fields(L, 1, &headers, &arena);
    if (cache_date_read(&headers, module_check_slice(L, 2), &ms)) lua_pushinteger(L, ms);
    else lua_pushnil(L);
    arena_fini(&arena);
    return 1;
}

static int rules_is_error(lua_State *L) {
    lua_pushboolean(L, cache_status_is_error((int)luaL_checkinteger(L, 1)));
    return 1;
}

/* ---- fields and updates */

/* rules.stored(response, targeted) -> the fields that are stored */
static int rules_stored(lua_State *L) {
    struct arena arena;
    struct response response = { .status = 200 };
    struct headers kept;
    struct cache_control told;
    arena_init(&arena);
    headers_init(&kept, &arena);
    rules_read_fields(L, 1, &response.headers, &arena);
    framing_of_response(&response, METHOD_GET);
    cache_control_of_response(&told, &response.headers, lua_toboolean(L, 2));
    headers_each(h, &response.headers) if (cache_stores_field(h, &response.headers, &told))
        headers_add(&kept, h->name, h->value);
    rules_push_fields(L, &kept);
    arena_fini(&arena);
    return 1;
}

/* rules.update(stored, from) -> the head that comes of it */
static int rules_update(lua_State *L) {
    struct arena arena;
    struct headers stored;
    struct response from = { .status = 304 };
    struct cache_control told;
    arena_init(&arena);
    rules_read_fields(L, 1, &stored, &arena);
    rules_read_fields(L, 2, &from.headers, &arena);
    framing_of_response(&from, METHOD_GET);
    cache_control_of_response(&told, &from.headers, false);
    cache_update(&stored, &from.headers, &told);
    rules_push_fields(L, &stored);
    arena_fini(&arena);
    return 1;
}

/* rules.selects(stored, not_modified, alone) */
static int rules_selects(lua_State *L) {
    struct arena arena;
    struct headers stored, not_modified;
    arena_init(&arena);
    rules_read_fields(L, 1, &stored, &arena);
    rules_read_fields(L, 2, &not_modified, &arena);
    lua_pushboolean(L, cache_304_selects(&stored, &not_modified, lua_toboolean(L, 3)));
    arena_fini(&arena);
    return 1;
}

/* rules.head(stored, length, status, head) -> "leaves" | "updates" | "invalidates" */
static int rules_head(lua_State *L) {
    static const char *const effects[] = { "leaves", "updates", "invalidates" };
    struct arena arena;
    struct headers stored, head;
    arena_init(&arena);
    rules_read_fields(L, 1, &stored, &arena);
    rules_read_fields(L, 4, &head, &arena);
    uint64_t length = (uint64_t)luaL_checkinteger(L, 2);
    lua_pushstring(L, effects[cache_head_effect(&stored, length, (int)luaL_checkinteger(L, 3), &head)]);
    arena_fini(&arena);
    return 1;
}

static int rules_invalidates(lua_State *L) {
    enum method method = method_of(module_check_slice(L, 1));
    lua_pushboolean(L, cache_invalidates(method, (int)luaL_checkinteger(L, 2)));
    return 1;
}

/* rules.invalidated(url, value) -> the URL that is made invalid, nil: none */
static int rules_invalidated(lua_State *L) {
    struct arena arena;
    struct target target, out;
    arena_init(&arena);
    luaL_argcheck(L, url_parse(&arena, module_check_slice(L, 1), &target), 1, "no URL");
    bool is = cache_invalidated_uri(&arena, &target, module_opt_slice(L, 2), &out);
    if (is) module_push_slice(L, target_url(&arena, &out));
    else lua_pushnil(L);
    arena_fini(&arena);
    return 1;
}

/* ---- Vary */

/* rules.vary(response, request) -> "none" | "names" | "any", key */
static int rules_vary(lua_State *L) {
    static const char *const kinds[] = { "none", "names", "any" };
    struct arena arena;
    struct headers response, request;
    arena_init(&arena);
    rules_read_fields(L, 1, &response, &arena);
    rules_read_fields(L, 2, &request, &arena);
    lua_pushstring(L, kinds[vary_of(&response)]);
    module_push_slice(L, vary_key(&arena, &response, &request));
    arena_fini(&arena);
    return 2;
}

static int rules_vary_matches(lua_State *L) {
    struct arena arena;
    struct headers request;
    arena_init(&arena);
    rules_read_fields(L, 2, &request, &arena);
    lua_pushboolean(L, vary_matches(module_opt_slice(L, 1), &request));
    arena_fini(&arena);
    return 1;
}

static int rules_vary_names(lua_State *L) {
    struct slice rest = module_check_slice(L, 1), name;
    lua_newtable(L);
    for (lua_Integer i = 1; vary_key_next(&rest, &name); i++) {
        module_push_slice(L, name);
        lua_seti(L, -2, i);
    }
    return 1;
}

/* ---- Cache-Status */

/* rules.status({ cache =, fwd =, fwd_status =, ttl =, stored =, collapsed =, in_vain =, detail = }, response) -> response */
static int rules_status(lua_State *L) {
    struct arena arena;
    struct headers headers;
    struct slice fwd = rules_slice(L, "fwd");
    struct cache_status s = {
        .cache = rules_slice(L, "cache"),
        .fwd_status = (int)rules_integer(L, "fwd_status", 0),
        .ttl = rules_integer(L, "ttl", INT64_MIN),
        .stored = rules_boolean(L, "stored"),
        .collapsed = rules_boolean(L, "collapsed"),
        .in_vain = rules_boolean(L, "in_vain"),
        .detail = rules_slice(L, "detail"),
    };
    s.has_ttl = s.ttl != INT64_MIN;
    while (!slice_equal(cache_fwd_word(s.fwd), fwd)) {
        luaL_argcheck(L, s.fwd < CACHE_FWD_PARTIAL, 1, "no such fwd");
        s.fwd++;
    }
    arena_init(&arena);
    rules_read_fields(L, 2, &headers, &arena);
    cache_status_add(&headers, &s);
    rules_push_fields(L, &headers);
    arena_fini(&arena);
    return 1;
}

int module_rules_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "asked", rules_asked },
        { "told", rules_told },
        { "freshness", rules_freshness },
        { "reuse", rules_reuse },
        { "age", rules_age },
        { "date", rules_date },
        { "is_error", rules_is_error },
        { "stored", rules_stored },
        { "update", rules_update },
        { "selects", rules_selects },
        { "head", rules_head },
        { "invalidates", rules_invalidates },
        { "invalidated", rules_invalidated },
        { "vary", rules_vary },
        { "vary_matches", rules_vary_matches },
        { "vary_names", rules_vary_names },
        { "status", rules_status },
        { NULL, NULL },
    };
    luaL_newlib(L, functions);
    return 1;
}
