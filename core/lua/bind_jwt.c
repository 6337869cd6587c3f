/* gate.jwt: JSON Web Tokens (RFC 7519) as compact JWS (RFC 7515).
 *
 *     local claims, word = gate.jwt.verify(token, { keys = keys, algorithms = { "ES256" }, issuer = "https://id.example" })
 *
 * What decides is the verifier, never the token (RFC 8725): `algorithms` must be given, "none" is none of them, and a key
 * verifies only what its kind can, so that a public key is never taken for the secret of an HMAC. A key that names its
 * algorithm keeps to it. Nothing of the claims is looked at before the signature is good.
 *
 * `keys` may be a function, or an object with a method `find` (gate.jwks): both may wait, so verifying stands in two
 * parts, and the second takes the token apart once more; that is 100 ns. */
#include "lua/jwt_claims.h"
#include "lua/key.h"
#include "lua/plain_json.h"
#include "lua/sandbox.h"

#include "base/base64.h"
#include "base/clock.h"

#include <math.h>
#include <stdlib.h>

enum { TOKEN_MAX = 64 << 10, TRIES_MAX = 8, LIST_MAX = 256, CRIT_MAX = 16 };
enum { ARG_TOKEN = 1, ARG_OPTIONS, AT_HEADER, AT_KEYS, AT_CLAIMS }; /* places on verify's stack */

static const struct algorithm {
    const char *name;
    enum key_kind kind;
    enum curve curve;
    struct scheme scheme;
    size_t secret_min; /* RFC 7518 3.2: as long as the digest */
} algorithms[] = {
    { "HS256", KEY_SECRET, CURVE_NONE, { DIGEST_SHA256, false, false }, 32 },
    { "HS384", KEY_SECRET, CURVE_NONE, { DIGEST_SHA384, false, false }, 48 },
    { "HS512", KEY_SECRET, CURVE_NONE, { DIGEST_SHA512, false, false }, 64 },
    { "RS256", KEY_RSA, CURVE_NONE, { DIGEST_SHA256, false, false }, 0 },
    { "RS384", KEY_RSA, CURVE_NONE, { DIGEST_SHA384, false, false }, 0 },
    { "RS512", KEY_RSA, CURVE_NONE, { DIGEST_SHA512, false, false }, 0 },
    { "PS256", KEY_RSA, CURVE_NONE, { DIGEST_SHA256, true, false }, 0 },
    { "PS384", KEY_RSA, CURVE_NONE, { DIGEST_SHA384, true, false }, 0 },
    { "PS512", KEY_RSA, CURVE_NONE, { DIGEST_SHA512, true, false }, 0 },
    { "ES256", KEY_EC, CURVE_P256, { DIGEST_SHA256, false, true }, 0 },
    { "ES384", KEY_EC, CURVE_P384, { DIGEST_SHA384, false, true }, 0 },
    { "ES512", KEY_EC, CURVE_P521, { DIGEST_SHA512, false, true }, 0 },
    { "EdDSA", KEY_ED25519, CURVE_NONE, { DIGEST_SHA512, false, false }, 0 },
};

static const struct algorithm *algorithm_named(struct slice name) {
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
        if (slice_equal(name, slice_of(algorithms[i].name))) return &algorithms[i];
    return NULL;
}

/* Could this key have made such a signature? */
static bool algorithm_fits(const struct algorithm *a, const struct key *k) {
    struct slice own = key_algorithm(k);
    return key_kind(k) == a->kind && key_curve(k) == a->curve && (!own.p || slice_equal(own, slice_of(a->name))) &&
           (a->kind != KEY_SECRET || key_secret_length(k) >= a->secret_min);
}

/* ---- A token's three parts */

struct token {
    struct slice header, claims, signature; /* base64url */
    struct slice input;                     /* what is signed */
};

static bool token_split(struct slice text, struct token *t) {
    struct slice rest = text;
    t->header = slice_cut(&rest, '.');
    if (!rest.p) return false;
    t->claims = slice_cut(&rest, '.');
    if (!rest.p || memchr(rest.p, '.', rest.n)) return false;
    t->signature = rest;
    t->input = slice_make(text.p, t->header.n + 1 + t->claims.n);
    return t->header.n > 0;
}

static int fail_token(lua_State *L, const char *why) {
    return fail_world_with(L, "bad_token", "the token is malformed: %s", why);
}

/* Pushes the JSON object of a part; 0, or the number of results that tell why not. */
static int push_part(lua_State *L, struct slice text, const char *name) {
    char why[160];
    luaL_Buffer b;
    size_t n;
    bool decoded = base64_decode(luaL_buffinitsize(L, &b, base64_bytes(text.n)), &n, text, BASE64_URL);
    luaL_pushresultsize(&b, decoded ? n : 0);
    if (!decoded) return fail_world_with(L, "bad_token", "the token's %s is not base64url", name);
    const char *problem = json_push_object(L, text_check(L, lua_gettop(L)), why);
    if (problem) return fail_world_with(L, "bad_token", "the token's %s is no JSON: %s", name, problem);
    lua_remove(L, -2);
    return 0;
}

static struct slice token_check(lua_State *L) {
    if (lua_type(L, ARG_TOKEN) != LUA_TSTRING) luaL_typeerror(L, ARG_TOKEN, "string");
    return text_check(L, ARG_TOKEN);
}

/* Pushes the header; 0, or results. */
static int open_token(lua_State *L, struct token *t) {
    struct slice text = token_check(L);
    if (text.n > TOKEN_MAX) return fail_token(L, "it is longer than 64 KiB");
    budget_spend(L, text.n / 4);
    if (!token_split(text, t)) return fail_token(L, "it has not three parts with dots between");
    return push_part(L, t->header, "header");
}

static struct slice header_text(lua_State *L, const char *name) {
    size_t n = 0;
    lua_pushstring(L, name);
    const char *p = lua_rawget(L, AT_HEADER) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
    lua_pop(L, 1);
    return slice_make(p, n); /* the header keeps it */
}

/* ---- Options of verify */

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

/* ---- The header */

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
    if (n == 0 || n > CRIT_MAX) return fail_token(L, "crit is no list of 1 to 16 names");
    for (lua_Integer i = 1; i <= n; i++) {
        size_t length;
        lua_rawgeti(L, -1, i);
        const char *p = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
        if (!p) return fail_token(L, "crit is no list of names");
        if (!is_listed(L, "crit", slice_make(p, length)))
            return fail_world_with(L, "bad_token", "the token wants %.64s to be understood (crit)", p);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, AT_HEADER) == LUA_TNIL) return fail_token(L, "crit names what the header has not");
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
    return 0;
}

static int check_header(lua_State *L) {
    struct slice name = header_text(L, "alg");
    if (!name.p) return fail_token(L, "its header names no alg");
    if (!algorithm_named(name) || !is_listed(L, "algorithms", name))
        return fail_world_with(L, "bad_algorithm", "the token's algorithm is none of those that are accepted");
    lua_pushliteral(L, "kid");
    int type = lua_rawget(L, AT_HEADER);
    lua_pop(L, 1);
    if (type != LUA_TNIL && type != LUA_TSTRING) return fail_token(L, "its kid is no string");
    int failed = check_crit(L);
    return failed ? failed : check_typ(L);
}

/* ---- Keys: those at AT_KEYS that may be tried */

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

/* ---- verify, second part: the keys are there */

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
    failed = push_part(L, t.claims, "payload");
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

static int jwt_verify(lua_State *L) {
    struct token t = { .header = { NULL, 0 } };
    lua_settop(L, 2);
    token_check(L);
    check_verify_options(L);
    int failed = open_token(L, &t);
    if (!failed) failed = check_header(L);
    if (failed) return failed;
    lua_settop(L, AT_HEADER);
    option_push(L, ARG_OPTIONS, "keys");
    return ask_for_keys(L);
}

/* ---- decode */

static int jwt_decode(lua_State *L) {
    struct token t = { .header = { NULL, 0 } };
    lua_settop(L, 1);
    int failed = open_token(L, &t);
    if (!failed) failed = push_part(L, t.claims, "payload");
    if (failed) return failed;
    lua_insert(L, -2);
    return 2;
}

/* ---- sign */

static const char *const sign_options[] = {
    "alg", "kid", "typ", "header", "expires_in", "not_before", "issued_at", NULL
};
enum { SIGN_CLAIMS = 1, SIGN_KEY, SIGN_OPTIONS, SIGN_MORE, SIGN_HEADER };

static const struct algorithm *default_algorithm(const struct key *k) {
    struct slice own = key_algorithm(k);
    if (own.p) return algorithm_named(own);
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
        if (key_kind(k) == algorithms[i].kind && key_curve(k) == algorithms[i].curve) return &algorithms[i];
    return NULL;
}

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
    if (type == LUA_TNIL) a = default_algorithm(k);
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

static int jwt_sign(lua_State *L) {
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

/* ---- gate.jwks: what fetches, waits and repeats is written in Lua */

static int gate_jwks(lua_State *L) {
    if (!state_of(L)->loading)
        return luaL_error(L, "gate.jwks: key sets are declared while the file is loaded, not in hooks");
    require_push(L);
    lua_pushliteral(L, "moongate.jwks");
    lua_call(L, 1, 1);
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
}

void bind_jwt_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "verify", jwt_verify }, { "decode", jwt_decode }, { "sign", jwt_sign }, { NULL, NULL }
    };
    luaL_newlib(L, functions);
    functions_name(L, "gate.jwt");
    front_make(L, "gate.jwt");
    lua_setfield(L, -2, "jwt");
    lua_pushcfunction(L, gate_jwks);
    lua_setfield(L, -2, "jwks");
}
