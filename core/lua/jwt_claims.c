/* Claims, one rule after the other. A claim of the wrong type is a bad token, not a missing claim: whoever made it
 * meant something that is not understood here.
 *
 * An audience in the token that nobody asked about is refused, as RFC 7519 4.1.3 demands: the token was made for
 * somebody, and he who does not say who he is is not the one. `audience = false` says that it does not matter. */
#include "lua/jwt_claims.h"

#include "lua/bind.h"

#include "base/clock.h"

#include <math.h>

enum { LIST_MAX = 64 };
#define WHAT "gate.jwt.verify"

static int push_claim(lua_State *L, int claims, const char *name) {
    lua_pushstring(L, name);
    return lua_rawget(L, claims);
}

/* ---- Options */

static double number_option(lua_State *L, int options, const char *name, double missing) {
    double number = missing;
    if (option_push(L, options, name) != LUA_TNIL && !seconds_read(L, -1, &number))
        luaL_error(L, WHAT ": %s is seconds, a number or such as \"30s\"", name);
    lua_pop(L, 1);
    return number;
}

/* A string, or a list of strings; with `none`, false too. */
static void check_strings(lua_State *L, int options, const char *name, bool none) {
    int type = option_push(L, options, name);
    bool good = type == LUA_TNIL || type == LUA_TSTRING || (none && type == LUA_TBOOLEAN && !lua_toboolean(L, -1));
    lua_Integer n = type == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
    if (n > 0 && n <= LIST_MAX) good = true;
    for (lua_Integer i = 1; good && i <= n; i++) {
        good = lua_rawgeti(L, -1, i) == LUA_TSTRING;
        lua_pop(L, 1);
    }
    if (!good) luaL_error(L, WHAT ": %s is a string or a list of 1 to 64%s", name, none ? ", or false" : "");
    lua_pop(L, 1);
}

void claims_options_check(lua_State *L, int options) {
    number_option(L, options, "leeway", 0);
    number_option(L, options, "max_age", 0);
    number_option(L, options, "now", 0);
    check_strings(L, options, "issuer", false);
    check_strings(L, options, "audience", true);
    check_strings(L, options, "required", false);
    check_strings(L, options, "subject", false);
}

/* ---- Times */

enum presence { ABSENT, PRESENT, MALFORMED };

static enum presence read_date(lua_State *L, int claims, const char *name, double *date) {
    int type = push_claim(L, claims, name);
    *date = lua_tonumber(L, -1);
    lua_pop(L, 1);
    if (type == LUA_TNIL) return ABSENT;
    return type == LUA_TNUMBER && isfinite(*date) ? PRESENT : MALFORMED;
}

static int fail_date(lua_State *L, const char *name) {
    return fail_world_with(L, "bad_token", "the claim %s is not a number of seconds", name);
}

static int check_age(lua_State *L, int claims, int options, double now, double leeway) {
    double issued, max = number_option(L, options, "max_age", HUGE_VAL);
    enum presence has = read_date(L, claims, "iat", &issued);
    if (has == MALFORMED) return fail_date(L, "iat");
    if (max == HUGE_VAL) return 0;
    if (has == ABSENT) return fail_world_with(L, "missing_claim", "the token does not say when it was issued (iat)");
    if (issued > now + leeway) return fail_world_with(L, "not_yet", "the token was issued in the future");
    if (now - leeway > issued + max)
        return fail_world_with(L, "expired", "the token was issued %.0f seconds ago", now - issued);
    return 0;
}

static int check_times(lua_State *L, int claims, int options) {
    double now = number_option(L, options, "now", -1), leeway = number_option(L, options, "leeway", 0);
    double expires, begins;
    if (now < 0) now = clock_wall();
    enum presence ends = read_date(L, claims, "exp", &expires), starts = read_date(L, claims, "nbf", &begins);
    if (ends == MALFORMED) return fail_date(L, "exp");
    if (starts == MALFORMED) return fail_date(L, "nbf");
    if (ends == PRESENT && now - leeway >= expires)
        return fail_world_with(L, "expired", "the token expired %.0f seconds ago", now - expires);
    if (starts == PRESENT && now + leeway < begins)
        return fail_world_with(L, "not_yet", "the token is valid in %.0f seconds", begins - now);
    return check_age(L, claims, options, now, leeway);
}

/* ---- Names */

/* Is the string at `value` what lies at `wanted`, a string or a list? */
static bool is_wanted(lua_State *L, int value, int wanted) {
    if (lua_type(L, wanted) == LUA_TSTRING) return lua_rawequal(L, value, wanted);
    lua_Integer n = (lua_Integer)lua_rawlen(L, wanted);
    bool found = false;
    for (lua_Integer i = 1; i <= n && !found; i++) {
        lua_rawgeti(L, wanted, i);
        found = lua_rawequal(L, value, -1);
        lua_pop(L, 1);
    }
    budget_spend(L, (size_t)n);
    return found;
}

/* iss and sub. */
static int check_name(lua_State *L, int claims, int options, const char *claim, const char *option, const char *word) {
    int top = lua_gettop(L), type = push_claim(L, claims, claim);
    if (type != LUA_TNIL && type != LUA_TSTRING)
        return fail_world_with(L, "bad_token", "the claim %s is no string", claim);
    if (option_push(L, options, option) != LUA_TNIL && (type == LUA_TNIL || !is_wanted(L, top + 1, top + 2)))
        return fail_world_with(L, word, "the token's %s is another one", option);
    lua_settop(L, top);
    return 0;
}

/* Is one of the audiences at `value`, a string or a list of strings, wanted? */
static enum presence find_audience(lua_State *L, int value, int wanted) {
    bool found = false;
    if (lua_type(L, value) == LUA_TSTRING) return is_wanted(L, value, wanted) ? PRESENT : ABSENT;
    if (!lua_istable(L, value) || lua_rawlen(L, value) > LIST_MAX) return MALFORMED;
    for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, value); i++) {
        if (lua_rawgeti(L, value, i) != LUA_TSTRING) return MALFORMED;
        found = found || is_wanted(L, lua_gettop(L), wanted);
        lua_pop(L, 1);
    }
    return found ? PRESENT : ABSENT;
}

static int check_audience(lua_State *L, int claims, int options) {
    int top = lua_gettop(L), has = push_claim(L, claims, "aud"), wants = option_push(L, options, "audience");
    if (has == LUA_TNIL && (wants == LUA_TNIL || wants == LUA_TBOOLEAN)) {
        lua_settop(L, top);
        return 0;
    }
    if (has == LUA_TNIL) return fail_world_with(L, "wrong_audience", "the token does not say for whom it is (aud)");
    if (wants == LUA_TNIL)
        return fail_world_with(L, "wrong_audience", "the token is for somebody (aud), and no audience is configured");
    if (wants != LUA_TBOOLEAN) {
        enum presence found = find_audience(L, top + 1, top + 2);
        if (found == MALFORMED) return fail_world_with(L, "bad_token", "the claim aud is no string or list of strings");
        if (found == ABSENT) return fail_world_with(L, "wrong_audience", "the token is for somebody else");
    }
    lua_settop(L, top);
    return 0;
}

static int check_one_required(lua_State *L, int claims, int name) {
    lua_pushvalue(L, name);
    if (lua_rawget(L, claims) == LUA_TNIL)
        return fail_world_with(L, "missing_claim", "the token has no claim %.64s", lua_tostring(L, name));
    lua_pop(L, 1);
    return 0;
}

static int check_required(lua_State *L, int claims, int options) {
    int top = lua_gettop(L), failed = 0, type = option_push(L, options, "required");
    if (type == LUA_TSTRING) failed = check_one_required(L, claims, top + 1);
    lua_Integer n = type == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, top + 1) : 0;
    for (lua_Integer i = 1; i <= n && !failed; i++) {
        lua_rawgeti(L, top + 1, i);
        failed = check_one_required(L, claims, top + 2);
        if (!failed) lua_pop(L, 1);
    }
    if (!failed) lua_settop(L, top);
    return failed;
}

int claims_check(lua_State *L, int claims, int options) {
    int failed = check_times(L, claims, options);
    if (!failed) failed = check_name(L, claims, options, "iss", "issuer", "wrong_issuer");
    if (!failed) failed = check_name(L, claims, options, "sub", "subject", "wrong_subject");
    if (!failed) failed = check_audience(L, claims, options);
    if (!failed) failed = check_required(L, claims, options);
    return failed;
}
