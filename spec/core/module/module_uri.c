/* Targets, paths, queries, cookies. */
#include "module.h"

#include "http/uri.h"

static void push_target(lua_State *L, struct arena *arena, const struct target *target) {
    lua_newtable(L);
    module_set_slice(L, "scheme", target->scheme);
    module_set_slice(L, "host", target->host);
    lua_pushinteger(L, target->port);
    lua_setfield(L, -2, "port");
    module_set_slice(L, "path", target->path);
    module_set_slice(L, "query", target->query);
    lua_pushboolean(L, target->absolute);
    lua_setfield(L, -2, "absolute");
    module_set_slice(L, "written", target_write(arena, target));
    module_set_slice(L, "authority", authority_write(arena, target));
    module_set_slice(L, "url", target_url(arena, target));
}

/* uri.target(method, raw, host, scheme, raw_path) -> parts, or nil and a word */
static int uri_target(lua_State *L) {
    struct arena arena;
    struct target target;
    enum method method = method_of(module_check_slice(L, 1));
    struct slice raw = module_check_slice(L, 2), host = module_opt_slice(L, 3);
    struct slice scheme = slice_of(luaL_optstring(L, 4, "http"));
    arena_init(&arena);
    enum failure failed = target_parse(&target, &arena, method, raw, host, scheme, lua_toboolean(L, 5));
    if (failed) {
        lua_pushnil(L);
        lua_pushstring(L, failure_word(failed));
    } else {
        push_target(L, &arena, &target);
    }
    arena_fini(&arena);
    return failed ? 2 : 1;
}

static int uri_url(lua_State *L) {
    struct arena arena;
    struct target target;
    struct slice url = module_check_slice(L, 1);
    arena_init(&arena);
    if (url_parse(&arena, url, &target)) push_target(L, &arena, &target);
    else lua_pushnil(L);
    arena_fini(&arena);
    return 1;
}

/* The path, and whether it is the very same bytes. */
static int uri_path(lua_State *L) {
    struct arena arena;
    struct slice given = module_check_slice(L, 1);
    arena_init(&arena);
    struct slice path = path_normalise(&arena, given);
    module_push_slice(L, path);
    lua_pushboolean(L, path.p == given.p);
    arena_fini(&arena);
    return 2;
}

static int uri_authority(lua_State *L) {
    struct arena arena;
    struct slice host, text = module_check_slice(L, 1);
    uint16_t port;
    arena_init(&arena);
    bool valid = authority_parse(&arena, text, &host, &port);
    if (valid != authority_valid(text)) return luaL_error(L, "authority_valid disagrees");
    if (valid) {
        module_push_slice(L, host);
        lua_pushinteger(L, port);
    }
    arena_fini(&arena);
    return valid ? 2 : 0;
}

static int uri_decode(lua_State *L) {
    struct arena arena;
    struct slice text = module_check_slice(L, 1);
    arena_init(&arena);
    module_push_slice(L, percent_decode(&arena, text, lua_toboolean(L, 2)));
    arena_fini(&arena);
    return 1;
}

static int uri_encode(lua_State *L) {
    struct arena arena;
    struct slice text = module_check_slice(L, 1);
    const char *keep = luaL_optstring(L, 2, NULL);
    arena_init(&arena);
    module_push_slice(L, percent_encode(&arena, text, keep));
    arena_fini(&arena);
    return 1;
}

typedef bool (*visit)(struct slice *rest, struct slice *name, struct slice *value);

/* { { name, value or nil }, ... } */
static int push_pairs(lua_State *L, visit next) {
    struct slice rest = module_check_slice(L, 1), name, value;
    lua_newtable(L);
    for (lua_Integer i = 1; next(&rest, &name, &value); i++) {
        lua_newtable(L);
        module_push_slice(L, name);
        lua_seti(L, -2, 1);
        module_push_slice(L, value);
        lua_seti(L, -2, 2);
        lua_seti(L, -2, i);
    }
    return 1;
}

static int uri_query(lua_State *L) { return push_pairs(L, query_next); }
static int uri_cookies(lua_State *L) { return push_pairs(L, cookie_next); }

int module_uri_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "target", uri_target },       { "url", uri_url },         { "path", uri_path },
        { "authority", uri_authority }, { "decode", uri_decode },   { "encode", uri_encode },
        { "query", uri_query },         { "cookies", uri_cookies }, { NULL, NULL },
    };
    luaL_newlib(L, functions);
    return 1;
}
