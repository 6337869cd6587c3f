/* gate.url: URI references taken apart, put together and resolved (http/reference.h), percent-encoding by component,
 * and queries as lists of pairs, so that order and repeats are kept.
 *
 * What is built is parsed again before it is given out: then no part can have run over into the next, whatever a
 * script put into it. */
#include "lua/bind.h"

#include "http/reference.h"
#include "http/uri.h"
#include "lua/sandbox.h"

#include <ctype.h>

enum { TEXT_MAX = 64 << 10, PAIRS_MAX = 10000 };

static int fail_url(lua_State *L, const char *sentence) { return fail_world_with(L, "bad_url", "%s", sentence); }

/* ---- parse, build, join */

static void set_part(lua_State *L, const char *name, struct slice s, bool lower) {
    if (!s.p) return;
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, s.n);
    for (size_t i = 0; i < s.n; i++) to[i] = lower ? (char)tolower((unsigned char)s.p[i]) : s.p[i];
    luaL_pushresultsize(&b, s.n);
    lua_setfield(L, -2, name);
}

/* An empty port is as good as none (RFC 3986 6.2.3). */
static bool port_read(struct slice text, uint64_t *port) {
    *port = 0;
    return !text.n || (slice_to_u64(text, port) && *port > 0 && *port <= UINT16_MAX);
}

static int url_parse_text(lua_State *L) {
    struct reference r;
    uint64_t port;
    if (!reference_parse(&r, string_check(L, 1, TEXT_MAX))) return fail_url(L, "the text is no URL");
    if (!port_read(r.port, &port)) return fail_url(L, "the port is not 1 to 65535");
    lua_createtable(L, 0, 7);
    set_part(L, "scheme", r.scheme, true);
    set_part(L, "user", r.user, false);
    set_part(L, "host", r.host, true);
    set_part(L, "path", r.path, false);
    set_part(L, "query", r.query, false);
    set_part(L, "fragment", r.fragment, false);
    if (port) {
        lua_pushinteger(L, (lua_Integer)port);
        lua_setfield(L, -2, "port");
    }
    return 1;
}

/* The string stays on the stack. */
static struct slice part_of(lua_State *L, const char *name) {
    int type = option_push(L, 1, name);
    if (type == LUA_TNIL) return slice_make(NULL, 0);
    if (type != LUA_TSTRING) luaL_error(L, "gate.url.build: %s is a string, not a %s", name, luaL_typename(L, -1));
    return text_check(L, lua_gettop(L));
}

static struct slice port_of(lua_State *L) {
    int type = option_push(L, 1, "port");
    if (type == LUA_TNIL) return slice_make(NULL, 0);
    int whole;
    lua_Integer port = lua_tointegerx(L, -1, &whole);
    if (type != LUA_TNUMBER || !whole || port < 1 || port > UINT16_MAX)
        luaL_error(L, "gate.url.build: port is a whole number from 1 to 65535");
    lua_pushfstring(L, "%I", port);
    return text_check(L, lua_gettop(L));
}

static void check_same(lua_State *L, const char *name, struct slice meant, struct slice parsed) {
    if (!meant.p != !parsed.p || (meant.p && !slice_equal(meant, parsed)))
        luaL_error(L, "gate.url.build: %s has what cannot stand there (use gate.url.encode)", name);
}

static int url_build(lua_State *L) {
    static const char *const names[] = { "scheme", "user", "host", "port", "path", "query", "fragment", NULL };
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    options_check(L, 1, "gate.url.build", names);
    struct reference r = { .scheme = part_of(L, "scheme"),
                           .user = part_of(L, "user"),
                           .host = part_of(L, "host"),
                           .port = port_of(L),
                           .path = part_of(L, "path"),
                           .query = part_of(L, "query"),
                           .fragment = part_of(L, "fragment") },
                     again;
    if (!r.host.p && (r.user.p || r.port.p)) return luaL_error(L, "gate.url.build: user and port need a host");
    if (!r.path.p) r.path = SLICE("");
    size_t size = reference_size(&r);
    if (size > TEXT_MAX) return luaL_error(L, "gate.url.build: longer than %d bytes", TEXT_MAX);
    budget_spend(L, 1 + size / 8);
    luaL_Buffer b;
    size_t n = reference_write(luaL_buffinitsize(L, &b, size), &r);
    luaL_pushresultsize(&b, n);
    if (!reference_parse(&again, text_check(L, lua_gettop(L))))
        return luaL_error(L, "gate.url.build: that is no URL: %s", lua_tostring(L, -1));
    check_same(L, "scheme", r.scheme, again.scheme);
    check_same(L, "user", r.user, again.user);
    check_same(L, "host", r.host, again.host);
    check_same(L, "path", r.path, again.path);
    check_same(L, "query", r.query, again.query);
    check_same(L, "fragment", r.fragment, again.fragment);
    return 1;
}

static int url_join(lua_State *L) {
    struct reference base, r, out;
    if (!reference_parse(&base, string_check(L, 1, TEXT_MAX)) || !base.scheme.p)
        return fail_url(L, "the base is no URL with a scheme");
    if (!reference_parse(&r, string_check(L, 2, TEXT_MAX))) return fail_url(L, "the reference is no URL");
    char *path = lua_newuserdatauv(L, base.path.n + r.path.n + 1, 0);
    reference_resolve(&out, &base, &r, path);
    luaL_Buffer b;
    size_t n = reference_write(luaL_buffinitsize(L, &b, reference_size(&out)), &out);
    luaL_pushresultsize(&b, n);
    return 1;
}

/* ---- percent-encoding */

/* What stays as it is in each component, beside the unreserved; "+" never does in a query, where it may mean a
 * space. */
static const char *const components[] = { "value", "segment", "path", "query", "fragment", "form", NULL };
static const char *const kept[] = { "", ":@!$&'()*+,;=", "/:@!$&'()*+,;=", "/?:@!$&'()*,;=", "/?:@!$&'()*+,;=", "" };
enum { COMPONENT_FORM = 5 };

static void add_encoded(luaL_Buffer *b, struct slice s, const char *keep, bool form) {
    char *to = luaL_prepbuffsize(b, s.n * 3);
    size_t n = percent_encode_into(to, s, form ? " " : keep);
    for (size_t i = 0; form && i < n; i++)
        if (to[i] == ' ') to[i] = '+';
    luaL_addsize(b, n);
}

static int url_encode(lua_State *L) {
    struct slice s = string_check(L, 1, TEXT_MAX);
    int component = luaL_checkoption(L, 2, "value", components);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    add_encoded(&b, s, kept[component], component == COMPONENT_FORM);
    luaL_pushresult(&b);
    return 1;
}

static int url_decode(lua_State *L) {
    struct slice s = string_check(L, 1, TEXT_MAX);
    bool form = luaL_checkoption(L, 2, "value", components) == COMPONENT_FORM;
    if (!percent_valid(s)) return fail_url(L, "a '%' without two hexadecimal digits");
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, s.n);
    luaL_pushresultsize(&b, percent_decode_into(to, s, form));
    return 1;
}

/* ---- queries */

static void push_decoded(lua_State *L, struct slice s) {
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, s.n);
    luaL_pushresultsize(&b, percent_decode_into(to, s, true));
}

static int url_parse_query(lua_State *L) {
    struct slice rest = string_check(L, 1, TEXT_MAX), name, value;
    lua_settop(L, 1);
    lua_newtable(L);
    for (lua_Integer i = 1; query_next(&rest, &name, &value); i++) {
        if (i > PAIRS_MAX) return fail_url(L, "the query has more than 10000 pairs");
        budget_spend(L, 8);
        lua_createtable(L, 2, 0);
        push_decoded(L, name);
        lua_rawseti(L, -2, 1);
        if (value.p) {
            push_decoded(L, value);
            lua_rawseti(L, -2, 2);
        }
        lua_rawseti(L, 2, i);
    }
    return 1;
}

/* A string or number at the top of the stack, as a string. */
static struct slice query_text(lua_State *L, lua_Integer pair, const char *what) {
    int type = lua_type(L, -1);
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
        luaL_error(L, "gate.url.build_query: pair %I: the %s is a string or number, not a %s", pair, what,
                   luaL_typename(L, -1));
    return text_check(L, lua_gettop(L));
}

/* Index 2: all parts so far, joined with "&". `i` is the number of the pair, which lies on top. */
static void add_pair(lua_State *L, lua_Integer i) {
    int top = lua_gettop(L);
    if (!lua_istable(L, top))
        luaL_error(L, "gate.url.build_query: pair %I is a %s, not { name, value }", i, luaL_typename(L, top));
    lua_rawgeti(L, top, 1);
    struct slice name = query_text(L, i, "name");
    bool valued = lua_rawgeti(L, top, 2) != LUA_TNIL;
    struct slice value = valued ? query_text(L, i, "value") : SLICE("");
    if (name.n + value.n > TEXT_MAX) luaL_error(L, "gate.url.build_query: longer than %d bytes", TEXT_MAX);
    budget_spend(L, 2 + (name.n + value.n) / 8);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    if (i > 1) luaL_addchar(&b, '&');
    add_encoded(&b, name, NULL, true);
    if (valued) luaL_addchar(&b, '=');
    add_encoded(&b, value, NULL, true);
    luaL_pushresult(&b);
    lua_rawseti(L, 2, i);
    lua_settop(L, top);
}

static int url_build_query(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_newtable(L);
    lua_Integer count = 0;
    size_t size = 0;
    for (; lua_rawgeti(L, 1, count + 1) != LUA_TNIL; lua_settop(L, 2)) {
        if (++count > PAIRS_MAX) return luaL_error(L, "gate.url.build_query: more than %d pairs", PAIRS_MAX);
        add_pair(L, count);
    }
    if (count == 0 && (lua_pushnil(L), lua_next(L, 1)))
        return luaL_argerror(L, 1, "a list of { name, value } expected");
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 2, i);
        size += lua_rawlen(L, -1);
        if (size > 3 * TEXT_MAX) return luaL_error(L, "gate.url.build_query: longer than %d bytes", 3 * TEXT_MAX);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    return 1;
}

void bind_url_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "parse", url_parse_text },
        { "build", url_build },
        { "join", url_join },
        { "encode", url_encode },
        { "decode", url_decode },
        { "parse_query", url_parse_query },
        { "build_query", url_build_query },
        { "query_filter", url_query_filter },
        { NULL, NULL },
    };
    bind_query_filter_open(L);
    luaL_newlib(L, functions);
    front_make(L, "gate.url");
    lua_setfield(L, -2, "url");
}
