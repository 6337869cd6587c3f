/* gate.crypto.encrypt, gate.crypto.decrypt: AES-256-GCM and ChaCha20-Poly1305.
 *
 *     sealed = gate.crypto.encrypt(key, text, { aad = req.host })      -- nonce, ciphertext, tag
 *
 * The nonce is made anew for each text and stands before it: a nonce used twice gives GCM's key away. A script that
 * brings its own, for a format of others, keeps it beside the text. A random nonce of 96 bits is good for 2^32 texts
 * under one key. */
#include "lua/crypto.h"

#include "base/clock.h"

#include <openssl/err.h>

enum { KEY_BYTES = 32, NONCE_BYTES = 12, TAG_BYTES = 16, TEXT_MAX = 16 << 20, AAD_MAX = 64 << 10, FIXED_STEPS = 100 };

/* One call. */
struct sealing {
    enum cipher cipher;
    struct slice key, text, aad, nonce; /* nonce.p NULL: ours, before the text */
    const char *what;
};

static void read_cipher(lua_State *L, struct sealing *s) {
    static const char *const names[] = { "aes-256-gcm", "chacha20-poly1305" };
    int type = option_push(L, 3, "cipher");
    if (type == LUA_TNIL) return;
    for (enum cipher c = 0; type == LUA_TSTRING && c < CIPHER_COUNT; c++) {
        if (strcmp(lua_tostring(L, -1), names[c]) != 0) continue;
        s->cipher = c;
        return;
    }
    luaL_error(L, "%s: cipher is \"aes-256-gcm\" or \"chacha20-poly1305\"", s->what);
}

static struct slice read_bytes(lua_State *L, const struct sealing *s, const char *name) {
    size_t n = 0;
    int type = option_push(L, 3, name);
    if (type == LUA_TNIL) return slice_make(NULL, 0);
    if (type != LUA_TSTRING) luaL_error(L, "%s: %s is a string, not a %s", s->what, name, luaL_typename(L, -1));
    const char *p = lua_tolstring(L, -1, &n);
    return slice_make(p, n); /* it stays on the stack */
}

static struct sealing read_arguments(lua_State *L, const char *what) {
    static const char *const names[] = { "cipher", "aad", "nonce", NULL };
    lua_settop(L, 3);
    struct sealing s = { .key = bytes_argument(L, 1), .text = bytes_argument(L, 2), .what = what };
    if (s.key.n != KEY_BYTES) luaL_argerror(L, 1, "a key of 32 bytes expected (gate.crypto.hkdf makes one)");
    if (s.text.n > TEXT_MAX) luaL_argerror(L, 2, "longer than 16 MiB");
    options_check(L, 3, what, names);
    read_cipher(L, &s);
    s.aad = read_bytes(L, &s, "aad");
    s.nonce = read_bytes(L, &s, "nonce");
    if (s.nonce.p && s.nonce.n != NONCE_BYTES) luaL_error(L, "%s: nonce has 12 bytes", what);
    if (s.aad.n > AAD_MAX) luaL_error(L, "%s: aad has at most 64 KiB", what);
    budget_spend(L, FIXED_STEPS + (s.text.n + s.aad.n) / 8);
    return s;
}

static bool begin(const struct sealing *s, EVP_CIPHER_CTX *c, const unsigned char *nonce, bool sealing) {
    EVP_CIPHER *cipher = crypto_cipher(crypto_thread(), s->cipher);
    int n;
    return cipher && EVP_CipherInit_ex2(c, cipher, (const unsigned char *)s->key.p, nonce, sealing, NULL) == 1 &&
           (s->aad.n == 0 || EVP_CipherUpdate(c, NULL, &n, (const unsigned char *)s->aad.p, (int)s->aad.n) == 1);
}

static bool run(EVP_CIPHER_CTX *c, struct slice from, unsigned char *to) {
    int n;
    return from.n == 0 || EVP_CipherUpdate(c, to, &n, (const unsigned char *)from.p, (int)from.n) == 1;
}

/* The key does not stay behind in the context. */
static bool end(EVP_CIPHER_CTX *c, bool done) {
    EVP_CIPHER_CTX_reset(c);
    if (!done) ERR_clear_error();
    return done;
}

static int crypto_encrypt(lua_State *L) {
    struct sealing s = read_arguments(L, "gate.crypto.encrypt");
    unsigned char nonce[NONCE_BYTES];
    luaL_Buffer b;
    size_t before = s.nonce.p ? 0 : NONCE_BYTES, n = before + s.text.n + TAG_BYTES;
    unsigned char *to = (unsigned char *)luaL_buffinitsize(L, &b, n), rest[TAG_BYTES];
    if (s.nonce.p) memcpy(nonce, s.nonce.p, NONCE_BYTES);
    else random_bytes(nonce, NONCE_BYTES);
    memcpy(to, nonce, before);
    int left;
    EVP_CIPHER_CTX *c = crypto_thread()->ciphering;
    bool done = begin(&s, c, nonce, true) && run(c, s.text, to + before) && EVP_CipherFinal_ex(c, rest, &left) == 1 &&
                EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, to + before + s.text.n) == 1;
    if (!end(c, done)) return luaL_error(L, "gate.crypto.encrypt: this OpenSSL does not offer that cipher");
    luaL_pushresultsize(&b, n);
    return 1;
}

static int fail_sealed(lua_State *L) {
    return fail_world_with(L, "bad_ciphertext", "the text was not encrypted with this key and aad, or was changed");
}

static int crypto_decrypt(lua_State *L) {
    struct sealing s = read_arguments(L, "gate.crypto.decrypt");
    size_t before = s.nonce.p ? 0 : NONCE_BYTES;
    if (s.text.n < before + TAG_BYTES) return fail_sealed(L);
    const unsigned char *nonce = (const unsigned char *)(s.nonce.p ? s.nonce.p : s.text.p);
    struct slice body = slice_make(s.text.p + before, s.text.n - before - TAG_BYTES);
    luaL_Buffer b;
    unsigned char *to = (unsigned char *)luaL_buffinitsize(L, &b, body.n ? body.n : 1), tag[TAG_BYTES], rest[TAG_BYTES];
    memcpy(tag, body.p + body.n, TAG_BYTES);
    int left;
    EVP_CIPHER_CTX *c = crypto_thread()->ciphering;
    bool done = begin(&s, c, nonce, false) && run(c, body, to) &&
                EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) == 1 &&
                EVP_CipherFinal_ex(c, rest, &left) == 1;
    if (!end(c, done)) return fail_sealed(L);
    luaL_pushresultsize(&b, body.n);
    return 1;
}

void bind_crypto_cipher_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "encrypt", crypto_encrypt },
                                          { "decrypt", crypto_decrypt },
                                          { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
}
