/* What a thread keeps of OpenSSL for scripts, and what the crypto bindings' arguments have in common.
 *
 * It is never freed, as the library context that it stands on is not: keys may be closed in another thread after theirs
 * has ended. The list is what keeps leak checkers quiet. */
#include "lua/crypto.h"

#include "base/base64.h"
#include "base/log.h"
#include "base/must.h"
#include "net/tls.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>

enum { PIECE = 64 << 10, BYTES_PER_STEP = 8 };

struct known_crypto {
    struct crypto crypto;
    struct known_crypto *next;
};

static struct known_crypto *known;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const struct {
    const char *name, *openssl;
} digest_names[DIGEST_COUNT] = {
    [DIGEST_SHA256] = { "sha256", "SHA256" }, [DIGEST_SHA384] = { "sha384", "SHA384" },
    [DIGEST_SHA512] = { "sha512", "SHA512" }, [DIGEST_SHA1] = { "sha1", "SHA1" },
    [DIGEST_MD5] = { "md5", "MD5" },          [DIGEST_BLAKE2B512] = { "blake2b512", "BLAKE2B512" },
};

/* ---- The context */

static struct crypto *make(void) {
    struct known_crypto *made = must_calloc(1, sizeof *made);
    struct crypto *c = &made->crypto;
    c->library = tls_library();
    c->hmac = EVP_MAC_fetch(c->library, OSSL_MAC_NAME_HMAC, NULL);
    c->digesting = EVP_MD_CTX_new();
    c->ciphering = EVP_CIPHER_CTX_new();
    must(c->hmac && c->digesting && c->ciphering);
    pthread_mutex_lock(&lock);
    made->next = known;
    known = made;
    pthread_mutex_unlock(&lock);
    return c;
}

struct crypto *crypto_thread(void) {
    static _Thread_local struct crypto *mine;
    if (!mine) mine = make();
    return mine;
}

EVP_MD *crypto_digest(struct crypto *c, enum digest_name d) {
    if (c->digests[d]) return c->digests[d];
    c->digests[d] = EVP_MD_fetch(c->library, digest_names[d].openssl, NULL);
    ERR_clear_error();
    return c->digests[d];
}

const char *digest_openssl_name(enum digest_name d) { return digest_names[d].openssl; }

EVP_CIPHER *crypto_cipher(struct crypto *c, enum cipher which) {
    static const char *const names[] = { "AES-256-GCM", "ChaCha20-Poly1305" };
    if (c->ciphers[which]) return c->ciphers[which];
    c->ciphers[which] = EVP_CIPHER_fetch(c->library, names[which], NULL);
    ERR_clear_error();
    return c->ciphers[which];
}

size_t crypto_digest_bytes(struct crypto *c, enum digest_name d, struct slice data, unsigned char *to) {
    unsigned n = 0;
    EVP_MD *md = crypto_digest(c, d);
    bool done = md && EVP_DigestInit_ex2(c->digesting, md, NULL) && EVP_DigestUpdate(c->digesting, data.p, data.n) &&
                EVP_DigestFinal_ex(c->digesting, to, &n);
    if (!done) ERR_clear_error();
    return done ? n : 0;
}

/* ---- Arguments and results */

struct slice bytes_argument(lua_State *L, int arg) {
    if (lua_type(L, arg) != LUA_TSTRING) luaL_typeerror(L, arg, "string");
    return text_check(L, arg);
}

enum digest_name digest_check(lua_State *L, int arg, enum digest_name missing) {
    if (lua_isnoneornil(L, arg)) {
        if (missing == DIGEST_COUNT) luaL_typeerror(L, arg, "the name of a digest");
        return missing;
    }
    struct slice name = bytes_argument(L, arg);
    for (enum digest_name d = 0; d < DIGEST_COUNT; d++)
        if (slice_equal(name, slice_of(digest_names[d].name))) return d;
    luaL_argerror(L, arg, "expected sha256, sha384, sha512, sha1, md5 or blake2b512");
    return missing;
}

enum encoding encoding_check(lua_State *L, int arg) {
    static const char *const names[] = { "raw", "hex", "base64", "base64url", NULL };
    if (!lua_isnoneornil(L, arg)) bytes_argument(L, arg);
    return (enum encoding)luaL_checkoption(L, arg, "raw", names);
}

void encoded_push(lua_State *L, struct slice bytes, enum encoding encoding) {
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, bytes.n * 2 + 4);
    size_t n = bytes.n;
    switch (encoding) {
    case ENCODING_RAW: memcpy(to, bytes.p, n); break;
    case ENCODING_HEX: hex_write(to, bytes), n *= 2; break;
    case ENCODING_BASE64: n = base64_encode(to, bytes, BASE64_PADDED); break;
    case ENCODING_BASE64URL: n = base64_encode(to, bytes, BASE64_URL); break;
    }
    luaL_pushresultsize(&b, n);
}

void pieces_each(lua_State *L, struct slice data, void (*update)(void *with, struct slice piece), void *with) {
    do {
        struct slice piece = { data.p, data.n < PIECE ? data.n : PIECE };
        budget_spend(L, piece.n / BYTES_PER_STEP + 1);
        update(with, piece);
        data = slice_skip(data, piece.n);
    } while (data.n);
}
