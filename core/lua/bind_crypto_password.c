/* gate.crypto.password_hash, password_verify, pbkdf2, scrypt: what takes long on purpose.
 *
 * A worker that took 50 ms for each password would serve nobody else meanwhile, so the work is done by a helper thread
 * and the script waits. The helper is the one that loads configs: a reload may come later by what is queued here, which
 * is bounded (QUEUE_MAX, and by cost for each); beyond that the answer is "overloaded", for who guesses passwords in
 * bulk should not find a queue that grows. Costs are bounded too, since a stored hash names its own.
 *
 * Hashes are texts in the modular crypt format as passlib writes it, so that other tools read them:
 *
 *     $scrypt$ln=15,r=8,p=1$SALT$HASH           base64 without padding
 *     $pbkdf2-sha256$600000$SALT$HASH           the same with "." for "+" (also -sha512)
 */
#include "lua/crypto.h"
#include "lua/run.h"

#include "base/base64.h"
#include "base/clock.h"
#include "base/must.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PASSWORD_MAX = 4096,
    SALT_MAX = 256,
    SALT_BYTES = 16,
    DERIVED_MAX = 256,
    HASH_BYTES = 32,
    ITERATIONS_MAX = 2000000,
    SCRYPT_LN = 15, /* 2^15 blocks of 8 * 128 bytes: 32 MiB, some 80 ms */
    SCRYPT_LN_MAX = 17,
    SCRYPT_R_MAX = 16,
    SCRYPT_P_MAX = 4,
    QUEUE_MAX = 32,
};
static const uint64_t SCRYPT_MEMORY_MAX = 128 << 20;

struct derivation {
    bool scrypt;
    enum digest_name digest; /* PBKDF2 */
    uint64_t cost;           /* iterations; scrypt: N */
    uint32_t r, p;           /* scrypt */
    size_t salt_n, length;   /* of `salt`, of what comes out */
    unsigned char salt[SALT_MAX];
};

struct derived {
    struct derivation how;
    bool failed;
    unsigned char bytes[DERIVED_MAX], expected[DERIVED_MAX];
};

/* One call. It belongs to the job once it is queued, which outlives a script that no longer waits. */
struct deriving {
    struct wait wait;
    struct job job;
    struct derived derived;
    atomic_bool abandoned; /* nobody waits: the helper need not begin */
    bool done;
    size_t password_n;
    char password[PASSWORD_MAX];
};

static atomic_uint queued;

/* ---- The work, in the helper thread */

static bool derive(const struct derivation *how, struct slice password, unsigned char *to) {
    uint64_t memory = SCRYPT_MEMORY_MAX + (8 << 20), n = how->cost;
    uint32_t r = how->r, p = how->p;
    unsigned iterations = (unsigned)how->cost;
    OSSL_PARAM params[8], *at = params;
    *at++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, (void *)password.p, password.n);
    *at++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)how->salt, how->salt_n);
    if (how->scrypt) {
        *at++ = OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n);
        *at++ = OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r);
        *at++ = OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p);
        *at++ = OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &memory);
    } else {
        *at++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest_openssl_name(how->digest), 0);
        *at++ = OSSL_PARAM_construct_uint(OSSL_KDF_PARAM_ITER, &iterations);
    }
    *at = OSSL_PARAM_construct_end();
    EVP_KDF *kdf = EVP_KDF_fetch(crypto_thread()->library, how->scrypt ? "SCRYPT" : "PBKDF2", NULL);
    EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    bool done = context && EVP_KDF_derive(context, to, how->length, params) > 0;
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    ERR_clear_error();
    return done;
}

static void work(struct job *job) {
    struct deriving *d = container_of(job, struct deriving, job);
    if (atomic_load_explicit(&d->abandoned, memory_order_relaxed)) return;
    struct derived *derived = &d->derived;
    derived->failed = !derive(&derived->how, slice_make(d->password, d->password_n), derived->bytes);
}

static void deriving_free(struct deriving *d) {
    OPENSSL_cleanse(d, sizeof *d);
    free(d);
}

static void job_on_done(struct job *job, struct loop *loop) {
    struct deriving *d = container_of(job, struct deriving, job);
    (void)loop;
    atomic_fetch_sub_explicit(&queued, 1, memory_order_relaxed);
    d->done = true;
    if (d->abandoned) deriving_free(d);
    else wait_done(&d->wait);
}

/* The job is still the helper's unless it is done. */
static void deriving_cancel(struct wait *w) {
    struct deriving *d = container_of(w, struct deriving, wait);
    if (d->done) deriving_free(d);
    else atomic_store_explicit(&d->abandoned, true, memory_order_relaxed);
}

/* ---- What the script waits for. Its function decides what becomes of the bytes. */

static int push_result(lua_State *L, struct deriving *d, int (*push)(lua_State *L, const struct derived *d)) {
    struct derived result = d->derived;
    deriving_free(d);
    int results = result.failed ? luaL_error(L, "this OpenSSL does not offer that derivation") : push(L, &result);
    OPENSSL_cleanse(&result, sizeof result);
    return results;
}

static int push_derived(lua_State *L, const struct derived *d) {
    lua_pushlstring(L, (const char *)d->bytes, d->how.length);
    return 1;
}

static int push_same(lua_State *L, const struct derived *d) {
    lua_pushboolean(L, CRYPTO_memcmp(d->bytes, d->expected, d->how.length) == 0);
    return 1;
}

/* Base64 without padding; PBKDF2's has "." for "+". */
static size_t write_bytes(char *to, const unsigned char *bytes, size_t n) {
    size_t length = base64_encode(to, slice_make((const char *)bytes, n), BASE64_PADDED);
    while (length && to[length - 1] == '=') length--;
    return length;
}

static int push_hash(lua_State *L, const struct derived *d) {
    char text[DERIVED_MAX * 4];
    int n = snprintf(text, sizeof text, "$scrypt$ln=%d,r=%" PRIu32 ",p=%" PRIu32 "$", __builtin_ctzll(d->how.cost),
                     d->how.r, d->how.p);
    n += (int)write_bytes(text + n, d->how.salt, d->how.salt_n);
    text[n++] = '$';
    n += (int)write_bytes(text + n, d->bytes, d->how.length);
    lua_pushlstring(L, text, (size_t)n);
    return 1;
}

static int derived_k(lua_State *L, int status, lua_KContext d) {
    (void)status;
    return push_result(L, (struct deriving *)d, push_derived);
}

static int same_k(lua_State *L, int status, lua_KContext d) {
    (void)status;
    return push_result(L, (struct deriving *)d, push_same);
}

static int hash_k(lua_State *L, int status, lua_KContext d) {
    (void)status;
    return push_result(L, (struct deriving *)d, push_hash);
}

/* Queues it and waits. `expected`, as long as what is derived, may be NULL. */
static int wait_for(lua_State *L, const struct derivation *how, struct slice password, const unsigned char *expected,
                    lua_KFunction k) {
    struct worker *worker = state_of(L)->worker;
    wait_check(L);
    if (!worker->helpers || atomic_fetch_add_explicit(&queued, 1, memory_order_relaxed) >= QUEUE_MAX) {
        if (worker->helpers) atomic_fetch_sub_explicit(&queued, 1, memory_order_relaxed);
        return fail_world_with(L, failure_word(FAIL_OVERLOADED), "there are too many passwords to be checked");
    }
    struct deriving *d = must_calloc(1, sizeof *d);
    d->derived.how = *how;
    d->wait.cancel = deriving_cancel;
    d->job = (struct job){ .asker = &worker->mailbox, .work = work, .done = job_on_done };
    d->password_n = password.n;
    memcpy(d->password, password.p, password.n);
    if (expected) memcpy(d->derived.expected, expected, how->length);
    if (!helpers_ask(worker->helpers, HELP_LOAD, &d->job)) {
        atomic_fetch_sub_explicit(&queued, 1, memory_order_relaxed);
        deriving_free(d);
        return fail_world_with(L, failure_word(FAIL_OVERLOADED), "there are too many passwords to be checked");
    }
    return wait_begin(L, &d->wait, (lua_KContext)d, k);
}

/* ---- Arguments */

static struct slice password_check(lua_State *L) {
    struct slice password = bytes_argument(L, 1);
    if (password.n > PASSWORD_MAX) luaL_argerror(L, 1, "longer than 4096 bytes");
    return password;
}

static void salt_check(lua_State *L, struct derivation *how) {
    struct slice salt = bytes_argument(L, 2);
    if (salt.n == 0 || salt.n > SALT_MAX) luaL_argerror(L, 2, "a salt has 1 to 256 bytes");
    memcpy(how->salt, salt.p, how->salt_n = salt.n);
}

static uint64_t whole_option(lua_State *L, int options, const char *what, const char *name, uint64_t missing,
                             uint64_t low, uint64_t high) {
    int whole = 0;
    int type = option_push(L, options, name);
    if (type == LUA_TNIL) return missing;
    lua_Integer n = type == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : 0;
    if (!whole || n < (lua_Integer)low || (uint64_t)n > high)
        luaL_error(L, "%s: %s is a whole number from %I to %I", what, name, (lua_Integer)low, (lua_Integer)high);
    lua_pop(L, 1);
    return (uint64_t)n;
}

static bool scrypt_fits(const struct derivation *how) {
    return how->cost * how->r * 128 <= SCRYPT_MEMORY_MAX && how->cost * how->r * how->p <= (uint64_t)1 << 21;
}

static void read_scrypt(lua_State *L, int options, const char *what, struct derivation *how) {
    how->scrypt = true;
    how->cost = 1ull << whole_option(L, options, what, "ln", SCRYPT_LN, 1, SCRYPT_LN_MAX);
    how->r = (uint32_t)whole_option(L, options, what, "r", 8, 1, SCRYPT_R_MAX);
    how->p = (uint32_t)whole_option(L, options, what, "p", 1, 1, SCRYPT_P_MAX);
    if (!scrypt_fits(how)) luaL_error(L, "%s: that cost takes more than 128 MiB, or too long", what);
}

static int crypto_scrypt(lua_State *L) {
    static const char *const names[] = { "ln", "r", "p", "length", NULL };
    struct derivation how = { .scrypt = true };
    lua_settop(L, 3);
    struct slice password = password_check(L);
    salt_check(L, &how);
    options_check(L, 3, "gate.crypto.scrypt", names);
    read_scrypt(L, 3, "gate.crypto.scrypt", &how);
    how.length = whole_option(L, 3, "gate.crypto.scrypt", "length", HASH_BYTES, 1, DERIVED_MAX);
    return wait_for(L, &how, password, NULL, derived_k);
}

static int crypto_pbkdf2(lua_State *L) {
    static const char *const names[] = { "hash", "iterations", "length", NULL };
    const char *what = "gate.crypto.pbkdf2";
    struct derivation how = { 0 };
    lua_settop(L, 3);
    struct slice password = password_check(L);
    salt_check(L, &how);
    options_check(L, 3, what, names);
    option_push(L, 3, "hash");
    how.digest = digest_check(L, lua_gettop(L), DIGEST_SHA256);
    how.cost = whole_option(L, 3, what, "iterations", 600000, 1, ITERATIONS_MAX);
    how.length = whole_option(L, 3, what, "length", HASH_BYTES, 1, DERIVED_MAX);
    return wait_for(L, &how, password, NULL, derived_k);
}

static int crypto_password_hash(lua_State *L) {
    static const char *const names[] = { "ln", "r", "p", NULL };
    struct derivation how = { .salt_n = SALT_BYTES, .length = HASH_BYTES };
    lua_settop(L, 2);
    struct slice password = password_check(L);
    options_check(L, 2, "gate.crypto.password_hash", names);
    read_scrypt(L, 2, "gate.crypto.password_hash", &how);
    random_bytes(how.salt, how.salt_n);
    return wait_for(L, &how, password, NULL, hash_k);
}

/* ---- Stored hashes */

/* "NAME=DIGITS" of a list of settings; false: it is not that. */
static bool read_setting(struct slice *rest, struct slice name, uint64_t *out) {
    struct slice value = slice_cut(rest, ',');
    return slice_starts_with(value, name) && slice_to_u64(slice_skip(value, name.n), out);
}

static bool read_scrypt_settings(struct slice text, struct derivation *how) {
    uint64_t ln, r, p;
    if (!read_setting(&text, SLICE("ln="), &ln) || !text.p || !read_setting(&text, SLICE("r="), &r) || !text.p ||
        !read_setting(&text, SLICE("p="), &p) || text.p)
        return false;
    if (ln < 1 || ln > SCRYPT_LN_MAX || r < 1 || r > SCRYPT_R_MAX || p < 1 || p > SCRYPT_P_MAX) return false;
    how->cost = 1ull << ln;
    how->r = (uint32_t)r;
    how->p = (uint32_t)p;
    return scrypt_fits(how);
}

/* Base64 without padding, with "." or "+". */
static bool read_bytes(struct slice text, unsigned char *to, size_t room, size_t *n) {
    char padded[DERIVED_MAX * 2];
    char bytes[DERIVED_MAX * 2];
    if (text.n == 0 || text.n > room / 3 * 4 || text.n + 3 > sizeof padded) return false;
    for (size_t i = 0; i < text.n; i++) padded[i] = text.p[i] == '.' ? '+' : text.p[i];
    while (text.n % 4 != 0) padded[text.n++] = '=';
    if (!base64_decode(bytes, n, slice_make(padded, text.n), BASE64_PADDED) || *n > room) return false;
    memcpy(to, bytes, *n);
    return true;
}

static bool read_stored(struct slice text, struct derivation *how, unsigned char expected[DERIVED_MAX]) {
    struct slice empty = slice_cut(&text, '$'), name = slice_cut(&text, '$'), settings = slice_cut(&text, '$');
    struct slice salt = slice_cut(&text, '$'), hash = text;
    if (empty.n || !hash.p) return false;
    how->scrypt = slice_equal(name, SLICE("scrypt"));
    how->digest = slice_equal(name, SLICE("pbkdf2-sha512")) ? DIGEST_SHA512 : DIGEST_SHA256;
    if (!how->scrypt && how->digest == DIGEST_SHA256 && !slice_equal(name, SLICE("pbkdf2-sha256"))) return false;
    if (how->scrypt && !read_scrypt_settings(settings, how)) return false;
    if (!how->scrypt && (!slice_to_u64(settings, &how->cost) || how->cost < 1 || how->cost > ITERATIONS_MAX))
        return false;
    return read_bytes(salt, how->salt, SALT_MAX, &how->salt_n) &&
           read_bytes(hash, expected, DERIVED_MAX, &how->length) && how->length >= 16;
}

static int crypto_password_verify(lua_State *L) {
    struct derivation how = { 0 };
    unsigned char expected[DERIVED_MAX];
    lua_settop(L, 2);
    struct slice password = password_check(L), stored = bytes_argument(L, 2);
    if (!read_stored(stored, &how, expected))
        return fail_world_with(L, "bad_hash", "the stored hash is none that is known, or costs too much");
    return wait_for(L, &how, password, expected, same_k);
}

void bind_crypto_password_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "scrypt", crypto_scrypt },
        { "pbkdf2", crypto_pbkdf2 },
        { "password_hash", crypto_password_hash },
        { "password_verify", crypto_password_verify },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
