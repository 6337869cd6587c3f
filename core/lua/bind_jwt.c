/* gate.jwt: JSON Web Tokens (RFC 7519) as compact JWS (RFC 7515).
 *
 *     local claims, word = gate.jwt.verify(token, {
 *         keys = keys, algorithms = { "ES256" }, issuer = "https://id.example" })
 *
 * What decides is the verifier, never the token (RFC 8725): `algorithms` must be given, "none" is none of them, and a
 * key verifies only what its kind can, so that a public key is never taken for the secret of an HMAC. A key that names
 * its algorithm keeps to it. Nothing of the claims is looked at before the signature is good. */
#include "lua/jwt_inside.h"

#include "base/base64.h"
#include "lua/plain_json.h"
#include "lua/sandbox.h"

enum { TOKEN_MAX = 64 << 10 };

/* ---- algorithms */

static const struct algorithm algorithms[] = {
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

const struct algorithm *algorithm_named(struct slice name) {
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
        if (slice_equal(name, slice_of(algorithms[i].name))) return &algorithms[i];
    return NULL;
}

const struct algorithm *algorithm_default(const struct key *k) {
    struct slice own = key_algorithm(k);
    if (own.p) return algorithm_named(own);
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
        if (key_kind(k) == algorithms[i].kind && key_curve(k) == algorithms[i].curve) return &algorithms[i];
    return NULL;
}

bool algorithm_fits(const struct algorithm *a, const struct key *k) {
    struct slice own = key_algorithm(k);
    return key_kind(k) == a->kind && key_curve(k) == a->curve && (!own.p || slice_equal(own, slice_of(a->name))) &&
           (a->kind != KEY_SECRET || key_secret_length(k) >= a->secret_min);
}

/* ---- a token's three parts */

bool token_split(struct slice text, struct token *t) {
    struct slice rest = text;
    t->header = slice_cut(&rest, '.');
    if (!rest.p) return false;
    t->claims = slice_cut(&rest, '.');
    if (!rest.p || memchr(rest.p, '.', rest.n)) return false;
    t->signature = rest;
    t->input = slice_make(text.p, t->header.n + 1 + t->claims.n);
    return t->header.n > 0;
}

int token_fail(lua_State *L, const char *why) {
    return fail_world_with(L, "bad_token", "the token is malformed: %s", why);
}

int token_push_part(lua_State *L, struct slice text, const char *name) {
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

struct slice token_check(lua_State *L) {
    if (lua_type(L, ARG_TOKEN) != LUA_TSTRING) luaL_typeerror(L, ARG_TOKEN, "string");
    return text_check(L, ARG_TOKEN);
}

int token_open(lua_State *L, struct token *t) {
    struct slice text = token_check(L);
    if (text.n > TOKEN_MAX) return token_fail(L, "it is longer than 64 KiB");
    budget_spend(L, text.n / 4);
    if (!token_split(text, t)) return token_fail(L, "it has not three parts with dots between");
    return token_push_part(L, t->header, "header");
}

static int jwt_decode(lua_State *L) {
    struct token t = { .header = { NULL, 0 } };
    lua_settop(L, 1);
    int failed = token_open(L, &t);
    if (!failed) failed = token_push_part(L, t.claims, "payload");
    if (failed) return failed;
    lua_insert(L, -2);
    return 2;
}

/* What fetches, waits and repeats of key sets is written in Lua. */
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
