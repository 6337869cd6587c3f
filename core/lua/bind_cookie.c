/* gate.cookie: a Cookie field taken apart, and a Set-Cookie field made (RFC 6265, and what browsers have added since:
 * SameSite, Partitioned, and the promises of the prefixes __Host- and __Secure-). What a browser would throw away
 * without a word is a mistake of the script here, and raises. */
#include "lua/bind.h"

#include "base/calendar.h"
#include "http/date.h"
#include "http/grammar.h"
#include "http/uri.h"
#include "lua/sandbox.h"

#include <math.h>

enum { FIELD_MAX = 64 << 10, PAIR_MAX = 4096, ATTRIBUTE_MAX = 1024, DOMAIN_MAX = 253 };
static const double AGE_MAX = 400 * 86400.; /* what browsers cut it to */

/* The first of a name wins, as in req.cookies. */
static int cookie_parse(lua_State *L) {
    struct slice rest = string_check(L, 1, FIELD_MAX), name, value;
    lua_newtable(L);
    while (cookie_next(&rest, &name, &value)) {
        budget_spend(L, 4);
        lua_pushlstring(L, name.p, name.n);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, -3) != LUA_TNIL) {
            lua_pop(L, 2);
            continue;
        }
        lua_pop(L, 1);
        lua_pushlstring(L, value.n ? value.p : "", value.n);
        lua_rawset(L, -3);
    }
    return 1;
}

/* ---- build: options at index 3 */

static bool flag_option(lua_State *L, const char *name) {
    int type = option_push(L, 3, name);
    if (type != LUA_TNIL && type != LUA_TBOOLEAN)
        luaL_error(L, "gate.cookie.build: %s is true or false, not a %s", name, luaL_typename(L, -1));
    bool set = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return set;
}

/* p NULL: none. The string stays on the stack. */
static struct slice text_option(lua_State *L, const char *name) {
    int type = option_push(L, 3, name);
    if (type == LUA_TNIL) return slice_make(NULL, 0);
    if (type != LUA_TSTRING) luaL_error(L, "gate.cookie.build: %s is a string, not a %s", name, luaL_typename(L, -1));
    struct slice s = text_check(L, lua_gettop(L));
    if (s.n > ATTRIBUTE_MAX) luaL_error(L, "gate.cookie.build: %s is longer than %d bytes", name, ATTRIBUTE_MAX);
    return s;
}

static bool is_token(struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        if (!byte_is(s.p[i], BYTE_TOKEN)) return false;
    return s.n > 0;
}

/* cookie-octet, and quotes round all of them. */
static bool is_value(struct slice s) {
    if (s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"') s = slice_make(s.p + 1, s.n - 2);
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] >= 0x7f || strchr("\",;\\", s.p[i])) return false;
    return true;
}

static bool is_path(struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < ' ' || s.p[i] >= 0x7f || s.p[i] == ';') return false;
    return s.n && *s.p == '/';
}

static bool is_domain(struct slice s) {
    if (s.n && *s.p == '.') s = slice_skip(s, 1);
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool edge = i == 0 || i + 1 == s.n || s.p[i - 1] == '.' || s.p[i + 1] == '.';
        if (!byte_is(c, BYTE_UNRESERVED) || c == '_' || c == '~' || (edge && c == '-')) return false;
        if (c == '.' && edge) return false;
    }
    return s.n && s.n <= DOMAIN_MAX;
}

enum same_site { SAME_SITE_UNSAID, SAME_SITE_STRICT, SAME_SITE_LAX, SAME_SITE_NONE };

static enum same_site same_site_option(lua_State *L) {
    static const char *const words[] = { "", "strict", "lax", "none" };
    struct slice s = text_option(L, "same_site");
    if (!s.p) return SAME_SITE_UNSAID;
    for (int i = SAME_SITE_STRICT; i <= SAME_SITE_NONE; i++)
        if (slice_equal(s, slice_of(words[i]))) return (enum same_site)i;
    luaL_error(L, "gate.cookie.build: same_site is \"strict\", \"lax\" or \"none\"");
    return SAME_SITE_UNSAID;
}

struct crumbs {
    struct slice name, value, path, domain;
    bool secure, http_only, partitioned;
    enum same_site same_site;
};

static bool has_prefix(struct slice name, struct slice prefix) {
    return name.n >= prefix.n && slice_equal_nocase(slice_make(name.p, prefix.n), prefix);
}

static void check_promises(lua_State *L, const struct crumbs *c) {
    bool host = has_prefix(c->name, SLICE("__Host-"));
    if ((host || has_prefix(c->name, SLICE("__Secure-"))) && !c->secure)
        luaL_error(L, "gate.cookie.build: a name that begins with __Host- or __Secure- needs secure = true");
    if (host && (c->domain.p || !slice_equal(c->path, SLICE("/"))))
        luaL_error(L, "gate.cookie.build: a name that begins with __Host- needs path = \"/\" and no domain");
    if (c->same_site == SAME_SITE_NONE && !c->secure)
        luaL_error(L, "gate.cookie.build: same_site = \"none\" needs secure = true");
    if (c->partitioned && !c->secure) luaL_error(L, "gate.cookie.build: partitioned needs secure = true");
}

static void check_crumbs(lua_State *L, const struct crumbs *c) {
    if (!is_token(c->name)) luaL_argerror(L, 1, "the name of a cookie is a token");
    if (!is_value(c->value))
        luaL_argerror(L, 2,
                      "visible ASCII without spaces, quotes, commas, semicolons and backslashes expected "
                      "(use gate.url.encode)");
    if (c->name.n + c->value.n > PAIR_MAX) luaL_argerror(L, 2, "name and value are longer than 4096 bytes");
    if (c->path.p && !is_path(c->path)) luaL_error(L, "gate.cookie.build: path begins with '/' and has no ';'");
    if (c->domain.p && !is_domain(c->domain)) luaL_error(L, "gate.cookie.build: domain is no host name");
    check_promises(L, c);
}

static void add_attribute(luaL_Buffer *b, const char *name, struct slice value) {
    if (!value.p) return;
    luaL_addstring(b, name);
    luaL_addlstring(b, value.p, value.n);
}

/* 0 deletes the cookie. */
static struct slice age_option(lua_State *L) {
    double seconds;
    if (option_push(L, 3, "max_age") == LUA_TNIL) return slice_make(NULL, 0);
    if (!seconds_read(L, -1, &seconds) || seconds > AGE_MAX)
        luaL_error(L, "gate.cookie.build: max_age is seconds, at most 400 days");
    lua_pushfstring(L, "%I", (lua_Integer)ceil(seconds));
    return text_check(L, lua_gettop(L));
}

static struct slice expires_option(lua_State *L, char to[30]) {
    int type = option_push(L, 3, "expires");
    if (type == LUA_TNIL) return slice_make(NULL, 0);
    double when = lua_tonumber(L, -1);
    if (type != LUA_TNUMBER || !(when >= (double)CALENDAR_FIRST && when <= (double)CALENDAR_LAST))
        luaL_error(L, "gate.cookie.build: expires is Unix seconds of the years 0 to 9999");
    date_write(to, (time_t)floor(when));
    return slice_make(to, 29);
}

static int cookie_build(lua_State *L) {
    static const char *const names[] = { "path",      "domain",    "max_age",     "expires", "secure",
                                         "http_only", "same_site", "partitioned", NULL };
    static const char *const same_sites[] = { NULL, "Strict", "Lax", "None" };
    lua_settop(L, 3);
    struct crumbs c = { .name = string_check(L, 1, PAIR_MAX), .value = string_check(L, 2, PAIR_MAX) };
    options_check(L, 3, "gate.cookie.build", names);
    c.path = text_option(L, "path");
    c.domain = text_option(L, "domain");
    c.secure = flag_option(L, "secure");
    c.http_only = flag_option(L, "http_only");
    c.partitioned = flag_option(L, "partitioned");
    c.same_site = same_site_option(L);
    check_crumbs(L, &c);
    char date[30];
    struct slice age = age_option(L), expires = expires_option(L, date);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addlstring(&b, c.name.p, c.name.n);
    add_attribute(&b, "=", c.value);
    add_attribute(&b, "; Path=", c.path);
    add_attribute(&b, "; Domain=", c.domain);
    add_attribute(&b, "; Max-Age=", age);
    add_attribute(&b, "; Expires=", expires);
    if (c.secure) luaL_addstring(&b, "; Secure");
    if (c.http_only) luaL_addstring(&b, "; HttpOnly");
    add_attribute(&b, "; SameSite=", slice_of(same_sites[c.same_site]));
    if (c.partitioned) luaL_addstring(&b, "; Partitioned");
    luaL_pushresult(&b);
    return 1;
}

void bind_cookie_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "parse", cookie_parse }, { "build", cookie_build }, { NULL, NULL } };
    luaL_newlib(L, functions);
    front_make(L, "gate.cookie");
    lua_setfield(L, -2, "cookie");
}
