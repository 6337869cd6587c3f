/* What the files of cryptography share: OpenSSL 3 as one thread sees it. Only they include this header and OpenSSL's.
 *
 * OpenSSL 3.0 takes locks of its library context at every fetch of an algorithm and at every random byte, so each
 * thread has a context of its own, in which each algorithm is fetched once and kept. A key that was parsed in one
 * thread may be used in another, though never in two at a time: what is prepared for it there is made in that thread's
 * context (crypto_sign.c).
 *
 * OpenSSL's queue of errors belongs to the thread, and TLS reads it: whoever makes a call that may fail empties it. */
#pragma once

#include "lua/engine.h"
#include "lua/key.h"

#include <openssl/evp.h>

enum { DIGEST_BYTES_MAX = 64 };

enum cipher { CIPHER_AES_256_GCM, CIPHER_CHACHA20_POLY1305, CIPHER_COUNT };

struct crypto {
    OSSL_LIB_CTX *library;
    EVP_MD *digests[DIGEST_COUNT]; /* NULL: not fetched yet; ask crypto_digest */
    EVP_CIPHER *ciphers[CIPHER_COUNT];
    EVP_MAC *hmac;
    EVP_MD_CTX *digesting; /* for whoever needs one until it returns */
    EVP_CIPHER_CTX *ciphering;
};

/* This thread's, made at its first call and kept for the thread's life. */
struct crypto *crypto_thread(void);

/* What signing or verifying with a key prepared, for one scheme in one thread. */
struct prepared {
    const struct crypto *crypto; /* NULL: nothing yet */
    struct scheme scheme;
    EVP_PKEY_CTX *plain;   /* RSA, ECDSA: of digests */
    EVP_MD_CTX *digesting; /* Ed25519: of the whole text */
    EVP_MAC_CTX *mac;      /* HMAC */
};

struct key {
    struct handle handle;
    enum key_kind kind;
    enum curve curve;
    bool is_private, counted;
    EVP_PKEY *pkey; /* NULL: a secret */
    unsigned char *secret;
    size_t secret_n;
    char *id, *algorithm; /* kid and alg, NULL: it has none */
    struct prepared signing, verifying;
    unsigned char (*good)[32]; /* digests of signatures found good; NULL: none yet */
};

/* A key of nothing yet, on top of the stack. Raises if there are too many. */
struct key *key_new(lua_State *L);
void prepared_fini(struct prepared *);

/* crypto_key.c: fill in a new key. False: `why` (static, or OpenSSL's) says why not. */
struct passphrase {
    struct slice text; /* p NULL: none was given */
    bool asked;        /* the key wanted one */
};
bool key_read_pem(struct key *, struct slice text, struct passphrase *, const char **why);

/* The members of a JWK that make the key, decoded; those that are not there have p NULL. */
enum jwk_member { JWK_N, JWK_E, JWK_D, JWK_P, JWK_Q, JWK_DP, JWK_DQ, JWK_QI, JWK_X, JWK_Y, JWK_K, JWK_MEMBERS };
struct jwk {
    struct slice type, curve; /* kty, crv */
    struct slice members[JWK_MEMBERS];
};
extern const char *const jwk_member_names[JWK_MEMBERS];
bool key_read_jwk(struct key *, const struct jwk *, const char **why);
/* The other way round: big-endian, as long as RFC 7518 wants them. The slices point into `room`. */
enum { JWK_ROOM = 8 * SIGNATURE_MAX };
bool key_write_jwk(const struct key *, bool private, struct jwk *, unsigned char room[JWK_ROOM]);
/* A PEM text (SPKI or PKCS #8) into `to`; its length, 0: it cannot be, or does not fit. */
size_t key_write_pem(const struct key *, bool private, char *to, size_t room);
bool key_copy_public(struct key *to, const struct key *from);

/* NULL: this OpenSSL does not offer it (md5 where FIPS reigns). */
EVP_MD *crypto_digest(struct crypto *, enum digest_name);
EVP_CIPHER *crypto_cipher(struct crypto *, enum cipher);
/* "SHA256": what OpenSSL calls it. */
const char *digest_openssl_name(enum digest_name);

/* The digest of `data` in one go, `to` has DIGEST_BYTES_MAX; its length, 0 if it cannot be. */
size_t crypto_digest_bytes(struct crypto *, enum digest_name, struct slice data, unsigned char *to);

/* ---- Arguments and results of the bindings */

/* The digest whose name is at `arg` ("sha256"); nil or none: `missing`. Raises for what is no name. */
enum digest_name digest_check(lua_State *L, int arg, enum digest_name missing);
/* What bytes are returned as: the argument is a name, nil or none is raw. Raises for others. */
enum encoding { ENCODING_RAW, ENCODING_HEX, ENCODING_BASE64, ENCODING_BASE64URL };
enum encoding encoding_check(lua_State *L, int arg);
void encoded_push(lua_State *L, struct slice bytes, enum encoding);
/* Of gate.crypto, whose table is on top. */
void bind_crypto_key_open(lua_State *L);
void bind_crypto_cipher_open(lua_State *L);
void bind_crypto_password_open(lua_State *L);
/* A string, and nothing that could be taken for one. */
struct slice bytes_argument(lua_State *L, int arg);
/* Feeds `update` with pieces of `data`, counting steps between them: may raise, so `with` is owned by somebody. */
void pieces_each(lua_State *L, struct slice data, void (*update)(void *with, struct slice piece), void *with);
