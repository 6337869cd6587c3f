/* `req.cookies`: the cookies the client sent, by name, as they stand in its Cookie fields (RFC 6265 5.4): case
 * counts, the first of a name wins, nothing is decoded.
 *
 * Read-only. What goes to the backend is the Cookie field; a script that wants it changed assigns
 * req.headers["Cookie"], which says what it does. */
#include "lua/bind.h"

#include "http/uri.h"

static const struct handle_kind kind = { .name = "moongate.cookies" };

static const struct headers *fields_of(const struct view *v) { return &v->exchange->request.headers; }

/* The first cookie of that name; p NULL: none. */
static struct slice find_cookie(const struct headers *headers, struct slice name) {
    struct slice found, value;
    for (const struct header *h = headers_find_id(headers, HEADER_COOKIE); h; h = headers_next(headers, h))
        for (struct slice rest = h->value; cookie_next(&rest, &found, &value);)
            if (slice_equal(found, name)) return value;
    return slice_make(NULL, 0);
}

static int cookies_index(lua_State *L) {
    const struct view *v = object_self(L, 1, &kind);
    if (lua_type(L, 2) != LUA_TSTRING)
        return luaL_error(L, "the name of a cookie is a string, not a %s", luaL_typename(L, 2));
    struct slice value = find_cookie(fields_of(v), text_check(L, 2));
    if (!value.p) return 0;
    lua_pushlstring(L, value.p, value.n);
    return 1;
}

static int cookies_newindex(lua_State *L) {
    object_self(L, 1, &kind);
    return luaL_error(L, "req.cookies is read-only (assign req.headers[\"Cookie\"])");
}

/* Upvalues: all fields as one text, the place in it. */
static int cookies_next(lua_State *L) {
    size_t n;
    const char *p = lua_tolstring(L, lua_upvalueindex(1), &n);
    size_t at = (size_t)lua_tointeger(L, lua_upvalueindex(2));
    if (at >= n) return 0;
    struct slice rest = { p + at, n - at }, name, value;
    if (!cookie_next(&rest, &name, &value)) return 0;
    lua_pushinteger(L, rest.p ? (lua_Integer)(rest.p - p) : (lua_Integer)n);
    lua_replace(L, lua_upvalueindex(2));
    lua_pushlstring(L, name.p, name.n);
    lua_pushlstring(L, value.p, value.n);
    return 2;
}

static int cookies_pairs(lua_State *L) {
    const struct headers *headers = fields_of(object_self(L, 1, &kind));
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (const struct header *h = headers_find_id(headers, HEADER_COOKIE); h; h = headers_next(headers, h)) {
        luaL_addlstring(&b, h->value.p, h->value.n);
        luaL_addchar(&b, ';');
    }
    luaL_pushresult(&b);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, cookies_next, 2);
    return 1;
}

void cookies_push(lua_State *L, struct view *v) {
    handle_push_part(L, &v->exchange->subject, HANDLE_COOKIES, &kind, v);
}

static const luaL_Reg metamethods[] = {
    { "__index", cookies_index },
    { "__newindex", cookies_newindex },
    { "__pairs", cookies_pairs },
    { NULL, NULL },
};

void bind_cookies_open(lua_State *L) { object_kind_open(L, &kind, NULL, metamethods, NULL); }
