/* gate.jwt.sign: a token of a table of claims. */
#include "lua/jwt_inside.h"

#include "base/base64.h"
#include "base/clock.h"
#include "lua/plain_json.h"

#include <math.h>

static const char *const sign_options[] = {
    "alg", "kid", "typ", "header", "expires_in", "not_before", "issued_at", NULL
};

enum { SIGN_CLAIMS = 1, SIGN_KEY, SIGN_OPTIONS, SIGN_MORE, SIGN_HEADER };

/* What is wrong with signing so; NULL: nothing. */
static const char *sign_problem(lua_State *L, const struct algorithm *a, const struct key *k) {
    if (!a) return "alg is none that is supported";
    if (a->kind == KEY_SECRET && key_kind(k) == KEY_SECRET && key_secret_length(k) < a->secret_min)
        return lua_pushfstring(L, "a secret for %s has at least %d bytes", a->name, (int)a->secret_min);
    if (!algorithm_fits(a, k)) return lua_pushfstring(L, "%s is not what this key signs", a->name);
    return NULL;
}

static const struct algorithm *read_algorithm(lua_State *L, const struct key *k) {
    size_t n = 0;
    const struct algorithm *a;
    int type = option_push(L, SIGN_OPTIONS, "alg");
    const char *name = type == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
    if (type == LUA_TNIL) a = algorithm_default(k);
    else a = name ? algorithm_named(slice_make(name, n)) : NULL;
    lua_pop(L, 1);
    return a;
}

/* Whole seconds from now into the table at SIGN_MORE. */
static void set_time(lua_State *L, const char *option, const char *claim, double now) {
    double seconds;
    if (option_push(L, SIGN_OPTIONS, option) != LUA_TNIL) {
        if (!seconds_read(L, -1, &seconds) || seconds > 1e10)
            luaL_error(L, "gate.jwt.sign: %s is seconds, a number or such as \"10m\"", option);
        lua_pushinteger(L, (lua_Integer)floor(now + seconds));
        lua_setfield(L, SIGN_MORE, claim);
    }
    lua_pop(L, 1);
}

static void set_times(lua_State *L) {
    double now = clock_wall();
    lua_createtable(L, 0, 3);
    set_time(L, "expires_in", "exp", now);
    set_time(L, "not_before", "nbf", now);
    int type = option_push(L, SIGN_OPTIONS, "issued_at");
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "gate.jwt.sign: issued_at is true or false");
    if (lua_toboolean(L, -1)) {
        lua_pushinteger(L, (lua_Integer)floor(now));
        lua_setfield(L, SIGN_MORE, "iat");
    }
    lua_settop(L, SIGN_MORE);
}

static void set_header(lua_State *L, const char *option, struct slice missing) {
    int type = option_push(L, SIGN_OPTIONS, option);
    if (type != LUA_TNIL && type != LUA_TSTRING) luaL_error(L, "gate.jwt.sign: %s is a string", option);
    if (type == LUA_TNIL && missing.p) lua_pushlstring(L, missing.p, missing.n);
    else lua_pushvalue(L, -1);
    lua_setfield(L, SIGN_HEADER, option);
    lua_pop(L, 1);
}

static void push_encoded(lua_State *L, struct slice bytes) {
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, base64_room(bytes.n));
    luaL_pushresultsize(&b, base64_encode(to, bytes, BASE64_URL));
}

/* Pushes the base64url of the JSON of a table, with the members of another. */
static void push_json_part(lua_State *L, const char *what, int index, int more) {
    const char *why = json_push_text(L, index, more);
    if (why) luaL_error(L, "gate.jwt.sign: the %s: %s", what, why);
    push_encoded(L, text_check(L, lua_gettop(L)));
    lua_remove(L, -2);
}

static void push_header(lua_State *L, const struct algorithm *a, const struct key *k) {
    lua_createtable(L, 0, 3);
    set_header(L, "typ", SLICE("JWT"));
    set_header(L, "kid", key_id(k));
    lua_pushstring(L, a->name);
    lua_setfield(L, SIGN_HEADER, "alg");
    int type = option_push(L, SIGN_OPTIONS, "header");
    if (type != LUA_TNIL && type != LUA_TTABLE) luaL_error(L, "gate.jwt.sign: header is a table");
    if (type == LUA_TTABLE) push_json_part(L, "header", lua_gettop(L), SIGN_HEADER);
    else push_json_part(L, "header", SIGN_HEADER, 0);
}

int jwt_sign(lua_State *L) {
    unsigned char signature[SIGNATURE_MAX];
    const char *why;
    lua_settop(L, 3);
    luaL_checktype(L, SIGN_CLAIMS, LUA_TTABLE);
    bool temporary = lua_type(L, SIGN_KEY) == LUA_TSTRING;
    struct key *k = key_check(L, SIGN_KEY);
    options_check(L, SIGN_OPTIONS, "gate.jwt.sign", sign_options);
    const struct algorithm *a = read_algorithm(L, k);
    why = sign_problem(L, a, k);
    if (why) return luaL_error(L, "gate.jwt.sign: %s", why);
    set_times(L);
    push_header(L, a, k);
    lua_pushliteral(L, ".");
    push_json_part(L, "claims", SIGN_CLAIMS, SIGN_MORE);
    lua_concat(L, 3);
    struct slice input = text_check(L, lua_gettop(L));
    budget_spend(L, key_steps(k, true) + input.n / 8);
    size_t n = key_sign(k, &a->scheme, input, signature, &why);
    if (n == 0) return luaL_error(L, "gate.jwt.sign: %s", why);
    if (temporary) key_fini(k);
    lua_pushliteral(L, ".");
    push_encoded(L, slice_make((const char *)signature, n));
    lua_concat(L, 3);
    return 1;
}
