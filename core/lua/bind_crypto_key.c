/* gate.crypto.key, key_file, keys: keys as objects; gate.crypto.sign and verify.
 *
 * A text that is no key is a failure of the world, `nil, "bad_key", sentence`: it came out of a file, a setting or an
 * answer. Passwords are for the time while the file is loaded: how long deriving a key from one takes is written in the
 * PEM, and no request can wait for that. */
#include "lua/config_file.h"
#include "lua/crypto.h"
#include "lua/plain_json.h"

#include "base/base64.h"
#include "base/must.h"

#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { PARSE_STEPS = 20000, SET_MAX = 256, MEMBER_TEXT_MAX = 6000, PEM_ROOM = 16384 };

static atomic_uint keys; /* alive, in the process */

/* ---- A key's life */

void key_fini(struct key *k) {
    prepared_fini(&k->signing);
    prepared_fini(&k->verifying);
    EVP_PKEY_free(k->pkey);
    if (k->secret) OPENSSL_cleanse(k->secret, k->secret_n);
    free(k->secret);
    free(k->id);
    free(k->algorithm);
    free(k->good);
    if (k->counted) atomic_fetch_sub_explicit(&keys, 1, memory_order_relaxed);
    *k = (struct key){ .handle = k->handle };
}

static void key_collect(void *pointer) { key_fini(pointer); }

static const struct handle_kind kind = { .name = "moongate.key", .collect = key_collect };

struct key *key_new(lua_State *L) {
    struct key *k = object_new(L, &kind, sizeof *k, 0);
    k->counted = true;
    if (atomic_fetch_add_explicit(&keys, 1, memory_order_relaxed) >= KEYS_MAX)
        luaL_error(L, "gate.crypto: there are too many keys (parse them once, while the file is loaded)");
    return k;
}

struct key *key_at(lua_State *L, int index) {
    struct handle *h = lua_type(L, index) == LUA_TUSERDATA ? handle_at(L, index) : NULL;
    return h && h->kind == &kind ? h->pointer : NULL;
}

struct key *key_push_secret(lua_State *L, struct slice bytes) {
    if (bytes.n == 0 || bytes.n > SECRET_BYTES_MAX) luaL_error(L, "a secret key has 1 to 4096 bytes");
    /* What verifies signatures is no secret: who takes one for the other lets everybody sign. */
    if (memmem(bytes.p, bytes.n, "-----BEGIN", 10))
        luaL_error(L, "a PEM text is no secret key (make a key of it with gate.crypto.key)");
    struct key *k = key_new(L);
    const char *why;
    key_read_jwk(k, &(struct jwk){ .type = SLICE("oct"), .members[JWK_K] = bytes }, &why);
    return k;
}

struct key *key_check(lua_State *L, int index) {
    struct key *k = key_at(L, index);
    if (k) return k;
    if (lua_type(L, index) != LUA_TSTRING) luaL_typeerror(L, index, "a key, or a secret (a string)");
    k = key_push_secret(L, text_check(L, index));
    lua_replace(L, index);
    return k;
}

enum key_kind key_kind(const struct key *k) { return k->kind; }
enum curve key_curve(const struct key *k) { return k->curve; }
bool key_is_private(const struct key *k) { return k->is_private; }
struct slice key_id(const struct key *k) {
    return slice_of(k->id);
}
struct slice key_algorithm(const struct key *k) {
    return slice_of(k->algorithm);
}
size_t key_secret_length(const struct key *k) { return k->secret_n; }

/* ---- Out of a table */

struct jwk_reading {
    struct jwk jwk;
    char room[2 * MEMBER_TEXT_MAX];
    size_t used;
};

/* A string member of the table at `index`; p NULL: there is none. The table keeps it. */
static struct slice string_member(lua_State *L, int index, const char *name) {
    size_t n = 0;
    lua_pushstring(L, name);
    const char *p = lua_rawget(L, index) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
    lua_pop(L, 1);
    return slice_make(p, n);
}

static bool read_member(struct jwk_reading *r, struct slice text, struct slice *out) {
    size_t n;
    if (text.n > MEMBER_TEXT_MAX || r->used + base64_bytes(text.n) > sizeof r->room) return false;
    if (!base64_decode(r->room + r->used, &n, text, BASE64_URL)) return false;
    *out = slice_make(r->room + r->used, n);
    r->used += n;
    return true;
}

static bool name_key(struct key *k, struct slice id, struct slice algorithm) {
    if (id.n > KEY_NAME_MAX || algorithm.n > KEY_NAME_MAX) return false;
    if (id.p) k->id = must_strndup(id.p, id.n);
    if (algorithm.p) k->algorithm = must_strndup(algorithm.p, algorithm.n);
    return true;
}

/* Fills in `k` from the JWK at `index`. */
static bool read_table(lua_State *L, int index, struct key *k, const char **why) {
    struct jwk_reading r = { .jwk = { string_member(L, index, "kty"), string_member(L, index, "crv"), { { 0 } } } };
    for (int i = 0; i < JWK_MEMBERS; i++) {
        struct slice text = string_member(L, index, jwk_member_names[i]);
        *why = "a member of the JWK is not base64url, or is too long";
        if (text.p && !read_member(&r, text, &r.jwk.members[i])) return false;
    }
    *why = "kid or alg is longer than 255 bytes";
    bool read =
        name_key(k, string_member(L, index, "kid"), string_member(L, index, "alg")) && key_read_jwk(k, &r.jwk, why);
    OPENSSL_cleanse(r.room, r.used);
    return read;
}

/* ---- gate.crypto.key */

static bool is_json(struct slice text) {
    while (text.n && strchr(" \t\r\n", *text.p)) text = slice_skip(text, 1);
    return text.n && *text.p == '{';
}

static struct slice password_option(lua_State *L, const char *what) {
    static const char *const names[] = { "password", NULL };
    size_t n;
    options_check(L, 2, what, names);
    int type = option_push(L, 2, "password");
    if (type == LUA_TNIL) return slice_make(NULL, 0);
    if (type != LUA_TSTRING) luaL_error(L, "%s: password is a string, not a %s", what, luaL_typename(L, -1));
    if (!state_of(L)->loading)
        luaL_error(L, "%s: a password can be used while the file is loaded, not in a hook", what);
    const char *p = lua_tolstring(L, -1, &n);
    return slice_make(p, n);
}

static int fail_key(lua_State *L, struct key *half_built, const char *what, const char *why) {
    key_fini(half_built);
    return fail_world_with(L, "bad_key", "%s: %s", what, why);
}

/* The key of a text (at 1) or table (at 1) becomes the result. */
static int push_key(lua_State *L, struct slice password, const char *what) {
    char room[160];
    const char *why = NULL;
    budget_spend(L, PARSE_STEPS);
    if (lua_type(L, 1) == LUA_TSTRING) {
        struct slice text = text_check(L, 1);
        if (text.n > KEY_TEXT_MAX) return fail_world_with(L, "bad_key", "%s: longer than 256 KiB", what);
        if (!is_json(text)) {
            struct key *k = key_new(L);
            struct passphrase pass = { .text = password };
            return key_read_pem(k, text, &pass, &why) ? 1 : fail_key(L, k, what, why);
        }
        why = json_push_object(L, text, room);
        if (why) return fail_world_with(L, "bad_key", "%s: %s", what, why);
        lua_replace(L, 1);
    }
    struct key *k = key_new(L);
    return read_table(L, 1, k, &why) ? 1 : fail_key(L, k, what, why);
}

static int crypto_key(lua_State *L) {
    lua_settop(L, 2);
    if (lua_type(L, 1) != LUA_TSTRING && lua_type(L, 1) != LUA_TTABLE)
        return luaL_typeerror(L, 1, "a PEM or JWK text, or a JWK's table");
    return push_key(L, password_option(L, "gate.crypto.key"), "the key");
}

static int crypto_key_file(lua_State *L) {
    char what[160];
    lua_settop(L, 2);
    struct slice path = bytes_argument(L, 1);
    struct slice password = password_option(L, "gate.crypto.key_file");
    snprintf(what, sizeof what, "%.140s", path.p);
    config_file_push(L, "gate.crypto.key_file", path);
    lua_replace(L, 1);
    int results = push_key(L, password, what);
    /* A file that holds no key is the operator's mistake, told with its name: nobody has to ask for it. */
    return results == 1 ? 1 : luaL_error(L, "gate.crypto.key_file: %s", lua_tostring(L, -1));
}

/* ---- gate.crypto.keys: a JWK Set */

/* Adds the key on top (a table) to the list at `list`, or a sentence to the one behind it. */
static void add_key(lua_State *L, int list, lua_Integer at) {
    const char *why = "it is no object";
    int index = lua_gettop(L);
    budget_spend(L, PARSE_STEPS);
    struct key *k = key_new(L);
    bool object = lua_istable(L, index);
    struct slice use = object ? string_member(L, index, "use") : slice_make(NULL, 0);
    bool read = object && read_table(L, index, k, &why);
    if (read && slice_equal(use, SLICE("enc"))) {
        why = "it is for encryption";
        read = false;
    }
    if (read) {
        lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
        return;
    }
    key_fini(k);
    lua_pushfstring(L, "keys[%I]: %s", at, why);
    lua_rawseti(L, list + 1, (lua_Integer)lua_rawlen(L, list + 1) + 1);
    lua_settop(L, index);
}

/* The set at 1: the list of its keys, and one of sentences about those that cannot be used. */
static int push_keys(lua_State *L, const char *what) {
    char room[160];
    if (lua_type(L, 1) == LUA_TSTRING) {
        struct slice text = text_check(L, 1);
        if (text.n > KEY_TEXT_MAX) return fail_world_with(L, "bad_key", "%s: longer than 256 KiB", what);
        const char *why = json_push_object(L, text, room);
        if (why) return fail_world_with(L, "bad_key", "%s: %s", what, why);
        lua_replace(L, 1);
    }
    lua_pushliteral(L, "keys");
    if (lua_rawget(L, 1) != LUA_TTABLE) return fail_world_with(L, "bad_key", "%s: there is no list of keys", what);
    lua_Integer n = (lua_Integer)lua_rawlen(L, 2);
    if (n > SET_MAX) return fail_world_with(L, "bad_key", "%s: there are more than 256 keys", what);
    lua_newtable(L);
    lua_newtable(L);
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, 2, i);
        add_key(L, 3, i);
        lua_settop(L, 4);
    }
    return 2;
}

static int crypto_keys(lua_State *L) {
    lua_settop(L, 1);
    if (lua_type(L, 1) != LUA_TSTRING && lua_type(L, 1) != LUA_TTABLE)
        return luaL_typeerror(L, 1, "a JWK Set, as text or table");
    return push_keys(L, "the key set");
}

static int crypto_keys_file(lua_State *L) {
    char what[160];
    lua_settop(L, 1);
    struct slice path = bytes_argument(L, 1);
    snprintf(what, sizeof what, "%.140s", path.p);
    config_file_push(L, "gate.crypto.keys_file", path);
    lua_replace(L, 1);
    int results = push_keys(L, what);
    return results == 2 ? 2 : luaL_error(L, "gate.crypto.keys_file: %s", lua_tostring(L, -1));
}

/* ---- Fields and methods of a key */

static struct key *key_self(lua_State *L) { return object_self(L, 1, &kind); }

static void get_kind(lua_State *L, void *object) {
    static const char *const names[KEY_KINDS] = { "secret", "rsa", "ec", "ed25519" };
    lua_pushstring(L, names[((struct key *)object)->kind]);
}

static void get_curve(lua_State *L, void *object) {
    static const char *const names[] = { NULL, "P-256", "P-384", "P-521" };
    lua_pushstring(L, names[((struct key *)object)->curve]);
}

static void get_bits(lua_State *L, void *object) {
    const struct key *k = object;
    lua_pushinteger(L, k->pkey ? EVP_PKEY_get_bits(k->pkey) : (lua_Integer)k->secret_n * 8);
}

static void get_private(lua_State *L, void *object) { lua_pushboolean(L, ((struct key *)object)->is_private); }
static void get_kid(lua_State *L, void *object) { lua_pushstring(L, ((struct key *)object)->id); }
static void get_alg(lua_State *L, void *object) { lua_pushstring(L, ((struct key *)object)->algorithm); }

static const struct field fields[] = {
    { "kind", get_kind, NULL }, { "curve", get_curve, NULL },
    { "bits", get_bits, NULL }, { "private", get_private, NULL },
    { "kid", get_kid, NULL },   { "alg", get_alg, NULL },
    { NULL, NULL, NULL },
};

/* "public" (default) or "private" at 2. */
static bool half_check(lua_State *L, const struct key *k) {
    static const char *const names[] = { "public", "private", NULL };
    if (!lua_isnoneornil(L, 2)) bytes_argument(L, 2);
    bool private = luaL_checkoption(L, 2, "public", names) == 1;
    if (private && !k->is_private) luaL_argerror(L, 2, "the key is a public one");
    if (!private && k->kind == KEY_SECRET) luaL_argerror(L, 2, "a secret has no public half (ask for \"private\")");
    return private;
}

static int key_public(lua_State *L) {
    const struct key *k = key_self(L);
    if (k->kind == KEY_SECRET) return luaL_error(L, "a secret has no public half");
    budget_spend(L, PARSE_STEPS);
    if (!key_copy_public(key_new(L), k)) return luaL_error(L, "the public half cannot be had");
    return 1;
}

static int key_pem(lua_State *L) {
    char text[PEM_ROOM];
    const struct key *k = key_self(L);
    bool private = half_check(L, k);
    if (k->kind == KEY_SECRET) return luaL_error(L, "there is no PEM of a secret");
    budget_spend(L, PARSE_STEPS);
    size_t n = key_write_pem(k, private, text, sizeof text);
    if (n == 0) return luaL_error(L, "the key has no PEM");
    lua_pushlstring(L, text, n);
    OPENSSL_cleanse(text, n);
    return 1;
}

static void push_base64url(lua_State *L, struct slice bytes) {
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, base64_room(bytes.n));
    luaL_pushresultsize(&b, base64_encode(to, bytes, BASE64_URL));
}

static void set_text(lua_State *L, const char *name, struct slice text) {
    if (!text.p) return;
    lua_pushlstring(L, text.p, text.n);
    lua_setfield(L, -2, name);
}

static int key_jwk(lua_State *L) {
    unsigned char room[JWK_ROOM];
    struct jwk jwk;
    const struct key *k = key_self(L);
    bool private = half_check(L, k);
    budget_spend(L, PARSE_STEPS / 10);
    if (!key_write_jwk(k, private, &jwk, room)) return luaL_error(L, "the key has no JWK");
    lua_newtable(L);
    set_text(L, "kty", jwk.type);
    set_text(L, "crv", jwk.curve);
    set_text(L, "kid", slice_of(k->id));
    set_text(L, "alg", slice_of(k->algorithm));
    for (int i = 0; i < JWK_MEMBERS; i++) {
        if (!jwk.members[i].p) continue;
        push_base64url(L, jwk.members[i]);
        lua_setfield(L, -2, jwk_member_names[i]);
    }
    OPENSSL_cleanse(room, sizeof room);
    return 1;
}

/* ---- RFC 7638: the digest of what a key must have, in lexicographic order */

struct canonical {
    char text[2 * MEMBER_TEXT_MAX + 64];
    size_t n;
};

static void add_text(struct canonical *c, const char *name, struct slice value) {
    int n = snprintf(c->text + c->n, sizeof c->text - c->n, "%s\"%s\":\"%.*s\"", c->n > 1 ? "," : "", name, FMT(value));
    c->n += (size_t)n;
}

static void add_bytes(struct canonical *c, const char *name, struct slice bytes) {
    char text[MEMBER_TEXT_MAX];
    add_text(c, name, slice_make(text, base64_encode(text, bytes, BASE64_URL)));
}

static void add_members(struct canonical *c, const struct jwk *jwk) {
    const struct slice *m = jwk->members;
    if (jwk->curve.p) add_text(c, "crv", jwk->curve);
    if (m[JWK_E].p) add_bytes(c, "e", m[JWK_E]);
    if (m[JWK_K].p) add_bytes(c, "k", m[JWK_K]);
    add_text(c, "kty", jwk->type);
    if (m[JWK_N].p) add_bytes(c, "n", m[JWK_N]);
    if (m[JWK_X].p) add_bytes(c, "x", m[JWK_X]);
    if (m[JWK_Y].p) add_bytes(c, "y", m[JWK_Y]);
}

static int key_thumbprint(lua_State *L) {
    unsigned char room[JWK_ROOM], digest[DIGEST_BYTES_MAX];
    struct canonical c = { .text = "{", .n = 1 };
    struct jwk jwk;
    const struct key *k = key_self(L);
    enum digest_name d = digest_check(L, 2, DIGEST_SHA256);
    budget_spend(L, PARSE_STEPS / 10);
    if (!key_write_jwk(k, false, &jwk, room)) return luaL_error(L, "the key has no thumbprint");
    add_members(&c, &jwk);
    c.text[c.n++] = '}';
    size_t n = crypto_digest_bytes(crypto_thread(), d, slice_make(c.text, c.n), digest);
    OPENSSL_cleanse(c.text, c.n);
    if (n == 0) return luaL_error(L, "this OpenSSL does not offer that digest");
    push_base64url(L, slice_make((const char *)digest, n));
    return 1;
}

static int key_index(lua_State *L) { return object_index(L, key_self(L), fields, "a key"); }
static int key_newindex(lua_State *L) { return object_newindex(L, key_self(L), fields, "a key"); }

/* ---- gate.crypto.sign, gate.crypto.verify */

static const char *const scheme_names[] = { "hash", "padding", "format", NULL };

/* One option out of a list of words, the first of which is the default. */
static int word_option(lua_State *L, int options, const char *what, const char *name, const char *const words[]) {
    int type = option_push(L, options, name);
    if (type == LUA_TNIL) return 0;
    for (int i = 0; type == LUA_TSTRING && words[i]; i++)
        if (strcmp(words[i], lua_tostring(L, -1)) == 0) return i;
    return luaL_error(L, "%s: %s is \"%s\" or \"%s\"", what, name, words[0], words[1]);
}

static struct scheme read_scheme(lua_State *L, int options, const char *what) {
    static const char *const paddings[] = { "pkcs1", "pss", NULL }, *const formats[] = { "der", "raw", NULL };
    struct scheme scheme = { .digest = DIGEST_SHA256 };
    options_check(L, options, what, scheme_names);
    scheme.pss = word_option(L, options, what, "padding", paddings) == 1;
    scheme.raw = word_option(L, options, what, "format", formats) == 1;
    option_push(L, options, "hash");
    scheme.digest = digest_check(L, lua_gettop(L), DIGEST_SHA256);
    return scheme;
}

/* An Ed25519 signature is one call, which takes 3 ns a byte. */
static void text_steps(lua_State *L, const struct key *k, struct slice data, bool signing) {
    if (data.n > 4 << 20) luaL_argerror(L, 2, "longer than 4 MiB (sign its digest)");
    budget_spend(L, key_steps(k, signing) + data.n / 4);
}

static int crypto_sign(lua_State *L) {
    unsigned char signature[SIGNATURE_MAX];
    const char *why;
    lua_settop(L, 3);
    bool temporary = lua_type(L, 1) == LUA_TSTRING;
    struct key *k = key_check(L, 1);
    struct slice data = bytes_argument(L, 2);
    struct scheme scheme = read_scheme(L, 3, "gate.crypto.sign");
    text_steps(L, k, data, true);
    size_t n = key_sign(k, &scheme, data, signature, &why);
    if (temporary) key_fini(k);
    if (n == 0) return luaL_error(L, "gate.crypto.sign: %s", why);
    lua_pushlstring(L, (const char *)signature, n);
    return 1;
}

static int crypto_verify(lua_State *L) {
    lua_settop(L, 4);
    bool temporary = lua_type(L, 1) == LUA_TSTRING;
    struct key *k = key_check(L, 1);
    struct slice data = bytes_argument(L, 2), signature = bytes_argument(L, 3);
    struct scheme scheme = read_scheme(L, 4, "gate.crypto.verify");
    text_steps(L, k, data, false);
    bool good = key_verify(k, &scheme, data, signature);
    if (temporary) key_fini(k);
    lua_pushboolean(L, good);
    return 1;
}

/* ---- open: with the table of gate.crypto on top */

void bind_crypto_key_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "key", crypto_key },   { "key_file", crypto_key_file },
        { "keys", crypto_keys }, { "keys_file", crypto_keys_file },
        { "sign", crypto_sign }, { "verify", crypto_verify },
        { NULL, NULL },
    };
    static const luaL_Reg methods[] = {
        { "public", key_public },         { "pem", key_pem }, { "jwk", key_jwk },
        { "thumbprint", key_thumbprint }, { NULL, NULL },
    };
    static const luaL_Reg metamethods[] = { { "__index", key_index }, { "__newindex", key_newindex }, { NULL, NULL } };
    object_kind_open(L, &kind, fields, metamethods, methods);
    luaL_setfuncs(L, functions, 0);
}
