/* gate.crypto: digests, HMAC, random bytes, HKDF. What belongs to it and is larger stands in files of its own:
 * ciphers (bind_crypto_cipher.c), passwords (bind_crypto_password.c), keys and signatures (bind_crypto_key.c).
 *
 * Bytes are strings on both sides. Names of digests are a closed list: what OpenSSL also knows (md4, ripemd) has no
 * place in new policy, and md5 and sha1 are here because the world still signs webhooks with them. */
#include "lua/crypto.h"
#include "lua/sandbox.h"

#include "base/clock.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <stdatomic.h>

enum { RANDOM_MAX = 64 << 10, DERIVED_MAX = 8160, HASHERS_MAX = 16384, INFO_MAX = 1024, FIXED_STEPS = 50 };

static int fail_digest(lua_State *L) { return luaL_error(L, "gate.crypto: this OpenSSL does not offer that digest"); }

/* ---- Digests */

static void update_digest(void *with, struct slice piece) { EVP_DigestUpdate(with, piece.p, piece.n); }

static int crypto_digest_function(lua_State *L) {
    enum digest_name d = digest_check(L, 1, DIGEST_COUNT);
    struct slice data = bytes_argument(L, 2);
    unsigned char digest[DIGEST_BYTES_MAX];
    unsigned n = 0;
    enum encoding encoding = encoding_check(L, 3);
    struct crypto *c = crypto_thread();
    EVP_MD *md = crypto_digest(c, d);
    if (!md || !EVP_DigestInit_ex2(c->digesting, md, NULL)) return fail_digest(L);
    pieces_each(L, data, update_digest, c->digesting);
    EVP_DigestFinal_ex(c->digesting, digest, &n);
    encoded_push(L, slice_make((const char *)digest, n), encoding);
    return 1;
}

/* ---- HMAC */

static void update_mac(void *with, struct slice piece) {
    EVP_MAC_update(with, (const unsigned char *)piece.p, piece.n);
}

struct mac_box {
    struct handle handle;
    EVP_MAC_CTX *mac;
};

static void mac_collect(void *pointer) { EVP_MAC_CTX_free(((struct mac_box *)pointer)->mac); }

static const struct handle_kind mac_kind = { .name = "moongate.mac", .collect = mac_collect };

/* A short text needs no owner for the context: nothing raises between. */
static size_t mac_short(struct crypto *c, const OSSL_PARAM *params, struct slice key, struct slice data,
                        unsigned char *to) {
    size_t n = 0;
    EVP_MAC_CTX *mac = EVP_MAC_CTX_new(c->hmac);
    bool done = mac && EVP_MAC_init(mac, (const unsigned char *)key.p, key.n, params) &&
                EVP_MAC_update(mac, (const unsigned char *)data.p, data.n) &&
                EVP_MAC_final(mac, to, &n, DIGEST_BYTES_MAX);
    EVP_MAC_CTX_free(mac);
    return done ? n : 0;
}

static size_t mac_long(lua_State *L, struct crypto *c, const OSSL_PARAM *params, struct slice key, struct slice data,
                       unsigned char *to) {
    size_t n = 0;
    struct mac_box *box = object_new(L, &mac_kind, sizeof *box, 0);
    box->mac = EVP_MAC_CTX_new(c->hmac);
    if (!box->mac || !EVP_MAC_init(box->mac, (const unsigned char *)key.p, key.n, params)) return 0;
    pieces_each(L, data, update_mac, box->mac);
    if (!EVP_MAC_final(box->mac, to, &n, DIGEST_BYTES_MAX)) n = 0;
    EVP_MAC_CTX_free(box->mac);
    box->mac = NULL;
    return n;
}

static int crypto_hmac(lua_State *L) {
    enum { SHORT = 16384 };
    enum digest_name d = digest_check(L, 1, DIGEST_COUNT);
    struct slice key = bytes_argument(L, 2), data = bytes_argument(L, 3);
    unsigned char mac[DIGEST_BYTES_MAX];
    enum encoding encoding = encoding_check(L, 4);
    budget_spend(L, (key.n + data.n) / 8 + FIXED_STEPS);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)digest_openssl_name(d), 0),
        OSSL_PARAM_construct_end(),
    };
    struct slice k = key.n ? key : SLICE("");
    struct crypto *c = crypto_thread();
    size_t n = data.n <= SHORT ? mac_short(c, params, k, data, mac) : mac_long(L, c, params, k, data, mac);
    ERR_clear_error();
    if (n == 0) return fail_digest(L);
    encoded_push(L, slice_make((const char *)mac, n), encoding);
    return 1;
}

/* ---- A digest piece by piece */

struct hasher {
    struct handle handle;
    EVP_MD_CTX *digesting; /* NULL: final has been called */
};

static atomic_uint hashers; /* their contexts are C's memory */

static void hasher_free(struct hasher *h) {
    if (!h->digesting) return;
    EVP_MD_CTX_free(h->digesting);
    h->digesting = NULL;
    atomic_fetch_sub_explicit(&hashers, 1, memory_order_relaxed);
}

static void hasher_collect(void *pointer) { hasher_free(pointer); }

static const struct handle_kind hasher_kind = { .name = "moongate.hasher", .collect = hasher_collect };

static struct hasher *hasher_self(lua_State *L) {
    struct hasher *h = object_self(L, 1, &hasher_kind);
    if (!h->digesting) luaL_error(L, "the hasher has given its digest already");
    return h;
}

static int hasher_update(lua_State *L) {
    struct hasher *h = hasher_self(L);
    pieces_each(L, bytes_argument(L, 2), update_digest, h->digesting);
    lua_settop(L, 1);
    return 1;
}

static int hasher_final(lua_State *L) {
    struct hasher *h = hasher_self(L);
    unsigned char digest[DIGEST_BYTES_MAX];
    unsigned n = 0;
    enum encoding encoding = encoding_check(L, 2);
    EVP_DigestFinal_ex(h->digesting, digest, &n);
    hasher_free(h);
    encoded_push(L, slice_make((const char *)digest, n), encoding);
    return 1;
}

static int crypto_hasher(lua_State *L) {
    enum digest_name d = digest_check(L, 1, DIGEST_COUNT);
    EVP_MD *md = crypto_digest(crypto_thread(), d);
    if (!md) return fail_digest(L);
    struct hasher *h = object_new(L, &hasher_kind, sizeof *h, 0);
    if (atomic_load_explicit(&hashers, memory_order_relaxed) >= HASHERS_MAX)
        return luaL_error(L, "gate.crypto.hasher: there are too many that have not given their digest");
    budget_spend(L, FIXED_STEPS);
    h->digesting = EVP_MD_CTX_new();
    if (!h->digesting) return luaL_error(L, "not enough memory");
    atomic_fetch_add_explicit(&hashers, 1, memory_order_relaxed);
    if (!EVP_DigestInit_ex2(h->digesting, md, NULL)) return fail_digest(L);
    return 1;
}

static int hasher_index(lua_State *L) {
    static const struct field none[] = { { NULL, NULL, NULL } };
    return object_index(L, object_self(L, 1, &hasher_kind), none, "a hasher");
}

static const luaL_Reg hasher_methods[] = { { "update", hasher_update }, { "final", hasher_final }, { NULL, NULL } };
static const luaL_Reg hasher_metamethods[] = { { "__index", hasher_index }, { NULL, NULL } };

/* ---- Random bytes, and keys from keys */

static int crypto_random(lua_State *L) {
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n >= 0 && n <= RANDOM_MAX, 1, "0 to 65536 bytes expected");
    enum encoding encoding = encoding_check(L, 2);
    budget_spend(L, (size_t)n / 4 + FIXED_STEPS);
    luaL_Buffer b;
    random_bytes(luaL_buffinitsize(L, &b, (size_t)n), (size_t)n);
    luaL_pushresultsize(&b, (size_t)n);
    encoded_push(L, text_check(L, lua_gettop(L)), encoding);
    return 1;
}

static struct slice option_bytes(lua_State *L, const char *what, const char *name) {
    size_t n;
    int type = option_push(L, 3, name);
    if (type == LUA_TNIL) return SLICE("");
    if (type != LUA_TSTRING) luaL_error(L, "%s: %s is a string, not a %s", what, name, luaL_typename(L, -1));
    const char *p = lua_tolstring(L, -1, &n);
    return slice_make(p, n); /* it stays on the stack */
}

static OSSL_PARAM octets(const char *name, struct slice s) {
    return OSSL_PARAM_construct_octet_string(name, (void *)s.p, s.n);
}

static bool derive_hkdf(const OSSL_PARAM *params, unsigned char *to, size_t n) {
    EVP_KDF *kdf = EVP_KDF_fetch(crypto_thread()->library, "HKDF", NULL);
    EVP_KDF_CTX *deriving = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    bool done = deriving && EVP_KDF_derive(deriving, to, n, params) > 0;
    EVP_KDF_CTX_free(deriving);
    EVP_KDF_free(kdf);
    ERR_clear_error();
    return done;
}

/* gate.crypto.hkdf(digest, secret, { salt =, info =, length = }): RFC 5869, both steps. */
static int crypto_hkdf(lua_State *L) {
    static const char *const names[] = { "salt", "info", "length", NULL };
    static const unsigned char lengths[DIGEST_COUNT] = { 32, 48, 64, 20, 16, 64 };
    unsigned char derived[DERIVED_MAX];
    lua_settop(L, 3);
    enum digest_name d = digest_check(L, 1, DIGEST_COUNT);
    struct slice secret = bytes_argument(L, 2);
    options_check(L, 3, "gate.crypto.hkdf", names);
    struct slice salt = option_bytes(L, "gate.crypto.hkdf", "salt"), info = option_bytes(L, "gate.crypto.hkdf", "info");
    lua_Integer n = lengths[d];
    int whole = 1;
    if (option_push(L, 3, "length") != LUA_TNIL) n = lua_tointegerx(L, -1, &whole);
    if (!whole || n < 1 || n > 255 * lengths[d] || n > DERIVED_MAX)
        return luaL_error(L, "gate.crypto.hkdf: length is 1 to %d bytes",
                          255 * lengths[d] < DERIVED_MAX ? 255 * lengths[d] : DERIVED_MAX);
    if (secret.n == 0 || secret.n + salt.n > SECRET_BYTES_MAX || info.n > INFO_MAX)
        return luaL_error(L, "gate.crypto.hkdf: the secret has 1 byte at least, with salt 4096 at most; info 1024");
    budget_spend(L, FIXED_STEPS * 4 + (size_t)n * 4);
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest_openssl_name(d), 0),
        octets(OSSL_KDF_PARAM_KEY, secret),
        octets(OSSL_KDF_PARAM_SALT, salt),
        octets(OSSL_KDF_PARAM_INFO, info),
        OSSL_PARAM_construct_end(),
    };
    if (!derive_hkdf(params, derived, (size_t)n)) return fail_digest(L);
    lua_pushlstring(L, (const char *)derived, (size_t)n);
    OPENSSL_cleanse(derived, sizeof derived);
    return 1;
}

/* ---- open */

void bind_crypto_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "digest", crypto_digest_function }, { "hmac", crypto_hmac }, { "hasher", crypto_hasher },
        { "random", crypto_random },          { "hkdf", crypto_hkdf }, { NULL, NULL },
    };
    object_kind_open(L, &mac_kind, NULL, NULL, NULL);
    object_kind_open(L, &hasher_kind, NULL, hasher_metamethods, hasher_methods);
    luaL_newlib(L, functions);
    lua_getfield(L, -2, "equal");
    lua_setfield(L, -2, "equal");
    bind_crypto_key_open(L);
    bind_crypto_cipher_open(L);
    bind_crypto_password_open(L);
    functions_name(L, "gate.crypto");
    front_make(L, "gate.crypto");
    lua_setfield(L, -2, "crypto");
}
