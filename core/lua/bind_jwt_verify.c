/* gate.jwt.verify: options, the header, keys, the signature, claims, in this order.
 *
 * `keys` may be a function, or an object with a method `find` (gate.jwks): both may wait, so verifying stands in two
 * parts, and the second takes the token apart once more; that is 100 ns. */
#include "lua/jwt_inside.h"

#include "base/base64.h"
#include "lua/jwt_claims.h"

enum { TRIES_MAX = 8, LIST_MAX = 256, CRIT_MAX = 16 };
enum { ARG_OPTIONS = ARG_TOKEN + 1, AT_HEADER, AT_KEYS, AT_CLAIMS }; /* places on the stack */

static struct slice header_text(lua_State *L, const char *name) {
    size_t n = 0;
    lua_pushstring(L, name);
    const char *p = lua_rawget(L, AT_HEADER) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
    lua_pop(L, 1);
    return slice_make(p, n); /* the header keeps it */
}

/* ---- options */

static const char *const verify_options[] = { "keys",   "algorithms", "issuer",  "audience", "subject",
                                              "leeway", "required",   "max_age", "now",      "typ",
                                              "crit",   "remember",   NULL };

/* Is `name` in the list of names of the option? Raises where it is no such list. */
static bool is_listed(lua_State *L, const char *option, struct slice name) {
    bool found = false;
    lua_Integer n = option_push(L, ARG_OPTIONS, option) == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
    for (lua_Integer i = 1; i <= n && !found; i++) {
        size_t length;
        lua_rawgeti(L, -1, i);
        const char *p = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
        found = p && slice_equal(name, slice_make(p, length));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return found;
}

/* A secret must do for every algorithm that is listed, not only for that of the token at hand. */
static void check_secret(lua_State *L, const struct algorithm *a) {
    size_t n;
    if (a->kind == KEY_SECRET && option_push(L, ARG_OPTIONS, "keys") == LUA_TSTRING) {
        const char *p = lua_tolstring(L, -1, &n);
        if (memmem(p, n, "-----BEGIN", 10))
            luaL_error(L,
                       "gate.jwt.verify: keys is a PEM text, which is no secret (make a key of it: gate.crypto.key)");
        if (n < a->secret_min)
            luaL_error(L, "gate.jwt.verify: a secret for %s has at least %d bytes", a->name, (int)a->secret_min);
    }
    if (a->kind == KEY_SECRET) lua_pop(L, 1);
}

static void check_algorithms(lua_State *L) {
    if (option_push(L, ARG_OPTIONS, "algorithms") != LUA_TTABLE || lua_rawlen(L, -1) == 0)
        luaL_error(L, "gate.jwt.verify: algorithms is a list such as { \"RS256\" }: it must be given");
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    luaL_argcheck(L, n <= 32, ARG_OPTIONS, "too many algorithms");
    for (lua_Integer i = 1; i <= n; i++) {
        size_t length;
        lua_rawgeti(L, -1, i);
        const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
        const struct algorithm *a = name ? algorithm_named(slice_make(name, length)) : NULL;
        if (a) check_secret(L, a);
        else
            luaL_error(L, "gate.jwt.verify: algorithms has %s, which is none that is supported",
                       luaL_tolstring(L, -1, NULL));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void check_option_types(lua_State *L) {
    int type = option_push(L, ARG_OPTIONS, "typ");
    if (type != LUA_TNIL && type != LUA_TSTRING) luaL_error(L, "gate.jwt.verify: typ is a string");
    type = option_push(L, ARG_OPTIONS, "crit");
    if (type != LUA_TNIL && type != LUA_TTABLE) luaL_error(L, "gate.jwt.verify: crit is a list of names");
    type = option_push(L, ARG_OPTIONS, "remember");
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "gate.jwt.verify: remember is true or false");
    lua_pop(L, 3);
}

static void check_verify_options(lua_State *L) {
    luaL_checktype(L, ARG_OPTIONS, LUA_TTABLE);
    options_check(L, ARG_OPTIONS, "gate.jwt.verify", verify_options);
    if (option_push(L, ARG_OPTIONS, "keys") == LUA_TNIL)
        luaL_error(L, "gate.jwt.verify: keys must be given: a key, a secret, a list, gate.jwks or a function");
    lua_pop(L, 1);
    check_algorithms(L);
    check_option_types(L);
    claims_options_check(L, ARG_OPTIONS);
}

/* ---- the header */

/* "application/at+jwt" is "at+jwt" (RFC 7515 4.1.9). */
static struct slice media_type(struct slice typ) {
    struct slice prefix = SLICE("application/");
    if (typ.n <= prefix.n || !slice_equal_nocase(slice_make(typ.p, prefix.n), prefix)) return typ;
    struct slice rest = slice_skip(typ, prefix.n);
    return memchr(rest.p, '/', rest.n) ? typ : rest;
}

static int check_typ(lua_State *L) {
    size_t n;
    if (option_push(L, ARG_OPTIONS, "typ") == LUA_TNIL) return 0;
    const char *p = lua_tolstring(L, -1, &n);
    struct slice typ = header_text(L, "typ");
    if (!typ.p || !slice_equal_nocase(media_type(typ), media_type(slice_make(p, n))))
        return fail_world_with(L, "wrong_type", "the token's typ is another one");
    lua_pop(L, 1);
    return 0;
}

/* RFC 7515 4.1.11: a list, not empty, of members that are there; who does not understand one of them refuses. */
static int check_crit(lua_State *L) {
    lua_pushliteral(L, "crit");
    int type = lua_rawget(L, AT_HEADER);
    if (type == LUA_TNIL) {
        lua_pop(L, 1);
        return 0;
    }
    lua_Integer n = type == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
    if (n == 0 || n > CRIT_MAX) return token_fail(L, "crit is no list of 1 to 16 names");
    for (lua_Integer i = 1; i <= n; i++) {
        size_t length;
        lua_rawgeti(L, -1, i);
        const char *p = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
        if (!p) return token_fail(L, "crit is no list of names");
        if (!is_listed(L, "crit", slice_make(p, length)))
            return fail_world_with(L, "bad_token", "the token wants %.64s to be understood (crit)", p);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, AT_HEADER) == LUA_TNIL) return token_fail(L, "crit names what the header has not");
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
    return 0;
}

static int check_header(lua_State *L) {
    struct slice name = header_text(L, "alg");
    if (!name.p) return token_fail(L, "its header names no alg");
    if (!algorithm_named(name) || !is_listed(L, "algorithms", name))
        return fail_world_with(L, "bad_algorithm", "the token's algorithm is none of those that are accepted");
    lua_pushliteral(L, "kid");
    int type = lua_rawget(L, AT_HEADER);
    lua_pop(L, 1);
    if (type != LUA_TNIL && type != LUA_TSTRING) return token_fail(L, "its kid is no string");
    int failed = check_crit(L);
    return failed ? failed : check_typ(L);
}

/* ---- keys: those at AT_KEYS that may be tried */

struct candidates {
    struct key *list[TRIES_MAX];
    unsigned count;
};

/* With a kid in the token, keys of another name are not asked. */
static void add_candidate(struct candidates *c, struct key *k, const struct algorithm *a, struct slice kid) {
    struct slice own = key_id(k);
    if (!k || c->count == TRIES_MAX || !algorithm_fits(a, k)) return;
    if (kid.p && own.p && !slice_equal(kid, own)) return;
    c->list[c->count++] = k;
}

static void add_list(lua_State *L, struct candidates *c, const struct algorithm *a, struct slice kid) {
    lua_Integer n = (lua_Integer)lua_rawlen(L, AT_KEYS);
    if (n > LIST_MAX) luaL_error(L, "gate.jwt.verify: keys has more than 256 keys");
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, AT_KEYS, i);
        struct key *k = key_at(L, -1);
        if (!k) luaL_error(L, "gate.jwt.verify: keys[%I] is no key, but a %s", i, luaL_typename(L, -1));
        add_candidate(c, k, a, kid);
        lua_pop(L, 1);
    }
    budget_spend(L, (size_t)n * 4);
}

static bool is_secret_text(lua_State *L) { return lua_type(L, AT_KEYS) == LUA_TSTRING; }

static void find_candidates(lua_State *L, struct candidates *c, const struct algorithm *a, struct slice kid) {
    if (lua_istable(L, AT_KEYS)) {
        add_list(L, c, a, kid);
        return;
    }
    bool secret = is_secret_text(L);
    if (secret) {
        key_push_secret(L, text_check(L, AT_KEYS));
        lua_replace(L, AT_KEYS);
    }
    struct key *k = key_at(L, AT_KEYS);
    if (!k)
        luaL_error(L, "gate.jwt.verify: keys is a key, a secret, a list of keys, gate.jwks or a function, not a %s",
                   luaL_typename(L, AT_KEYS));
    add_candidate(c, k, a, kid);
}

static bool try_keys(lua_State *L, struct candidates *c, const struct algorithm *a, const struct token *t) {
    char signature[SIGNATURE_MAX + 4];
    size_t n;
    if (t->signature.n > SIGNATURE_MAX / 3 * 4) return false;
    if (!base64_decode(signature, &n, t->signature, BASE64_URL)) return false;
    option_push(L, ARG_OPTIONS, "remember");
    bool remember = lua_toboolean(L, -1);
    for (unsigned i = 0; i < c->count; i++) {
        struct key *k = c->list[i];
        struct slice s = slice_make(signature, n);
        budget_spend(L, key_steps(k, false) + t->input.n / 8);
        if (remember ? key_verify_remembered(k, &a->scheme, t->input, s) : key_verify(k, &a->scheme, t->input, s))
            return true;
    }
    return false;
}

/* ---- the second part: the keys are there */

static int verify_signature(lua_State *L, const struct token *t) {
    const struct algorithm *a = algorithm_named(header_text(L, "alg"));
    struct candidates candidates = { .count = 0 };
    bool temporary = is_secret_text(L);
    find_candidates(L, &candidates, a, header_text(L, "kid"));
    bool good = try_keys(L, &candidates, a, t);
    if (temporary) key_fini(key_at(L, AT_KEYS));
    if (candidates.count == 0) return fail_world_with(L, "unknown_key", "there is no key for this token");
    return good ? 0 : fail_world_with(L, "bad_signature", "the token's signature is wrong");
}

static int finish_verify(lua_State *L) {
    struct token t = { .header = { NULL, 0 } };
    token_split(token_check(L), &t);
    int failed = verify_signature(L, &t);
    if (failed) return failed;
    lua_settop(L, AT_KEYS);
    failed = token_push_part(L, t.claims, "payload");
    if (!failed) failed = claims_check(L, AT_CLAIMS, ARG_OPTIONS);
    if (failed) return failed;
    lua_pushvalue(L, AT_HEADER);
    return 2;
}

/* What a function or a `find` returned: keys, or nil and perhaps a word and a sentence of its own. */
static int found_k(lua_State *L, int status, lua_KContext context) {
    (void)status, (void)context;
    if (lua_toboolean(L, AT_KEYS)) {
        lua_settop(L, AT_KEYS);
        return finish_verify(L);
    }
    if (lua_type(L, AT_KEYS + 1) != LUA_TSTRING)
        return fail_world_with(L, "unknown_key", "there is no key for this token");
    lua_pushnil(L);
    lua_replace(L, AT_KEYS);
    if (lua_type(L, AT_KEYS + 2) != LUA_TSTRING) {
        lua_settop(L, AT_KEYS + 1);
        lua_pushvalue(L, -1);
    }
    return 3;
}

/* ---- the first */

/* Keys at AT_KEYS: calls those that can be called. */
static int ask_for_keys(lua_State *L) {
    int arguments = 1;
    if (lua_istable(L, AT_KEYS)) {
        lua_pushliteral(L, "find");
        if (lua_rawget(L, AT_KEYS) != LUA_TFUNCTION) {
            lua_settop(L, AT_KEYS);
            return finish_verify(L);
        }
        lua_insert(L, AT_KEYS); /* find, the object */
        arguments = 2;
    } else if (!lua_isfunction(L, AT_KEYS)) {
        return finish_verify(L);
    }
    lua_pushvalue(L, AT_HEADER);
    lua_callk(L, arguments, 3, 0, found_k);
    return found_k(L, LUA_OK, 0);
}

int jwt_verify(lua_State *L) {
    struct token t = { .header = { NULL, 0 } };
    lua_settop(L, 2);
    token_check(L);
    check_verify_options(L);
    int failed = token_open(L, &t);
    if (!failed) failed = check_header(L);
    if (failed) return failed;
    lua_settop(L, AT_HEADER);
    option_push(L, ARG_OPTIONS, "keys");
    return ask_for_keys(L);
}
