/* Keys, and what is done with them: signatures of RSA, ECDSA, Ed25519 and HMAC. No OpenSSL here, so that tokens
 * (gate.jwt) need to know none of it.
 *
 * A key is a userdata of one state, and lives as long as the script holds it. It is parsed once; what signing and
 * verifying prepare is kept in it, so that a second signature costs the arithmetic and little else. How many there are
 * at a time in the process is bounded: their memory is C's, which no state's limit knows of. */
#pragma once

#include "lua/bind.h"

enum digest_name {
    DIGEST_SHA256,
    DIGEST_SHA384,
    DIGEST_SHA512,
    DIGEST_SHA1,
    DIGEST_MD5,
    DIGEST_BLAKE2B512,
    DIGEST_COUNT
};

enum key_kind { KEY_SECRET, KEY_RSA, KEY_EC, KEY_ED25519, KEY_KINDS };
enum curve { CURVE_NONE, CURVE_P256, CURVE_P384, CURVE_P521 };

enum {
    SIGNATURE_MAX = 1024,     /* of RSA with 8192 bits */
    SECRET_BYTES_MAX = 4096,  /* of an HMAC key */
    KEY_NAME_MAX = 255,       /* of kid */
    KEYS_MAX = 16384,         /* in the process, at a time */
    KEY_TEXT_MAX = 256 << 10, /* a PEM file, a JWK Set */
};

/* How a signature is made; what does not apply to the kind of key is not looked at. */
struct scheme {
    enum digest_name digest;
    bool pss; /* RSA: PSS with a salt as long as the digest; else PKCS #1 v1.5 */
    bool raw; /* ECDSA: r and s side by side, as JWS has them; else DER */
};

struct key;

/* The key at `index`; NULL: something else. */
struct key *key_at(lua_State *L, int index);
/* The same, and a string becomes a secret key that replaces it on the stack. Raises naming the argument. `index` is an
 * argument's place. */
struct key *key_check(lua_State *L, int index);
/* Lets go of what a key holds, sooner than the collector would: one that was made of a string for one call. */
void key_fini(struct key *);
/* Pushes a secret key of these bytes. Raises if there are none, too many, or they are a PEM text. */
struct key *key_push_secret(lua_State *L, struct slice bytes);

enum key_kind key_kind(const struct key *);
enum curve key_curve(const struct key *);
bool key_is_private(const struct key *);        /* can sign; a secret can */
struct slice key_id(const struct key *);        /* kid; p NULL: none */
struct slice key_algorithm(const struct key *); /* alg; p NULL: none */
size_t key_secret_length(const struct key *);   /* 0: it is no secret */

/* Into `to`, of SIGNATURE_MAX bytes; the length, 0: it cannot be done (which `why`, static, says). */
size_t key_sign(struct key *, const struct scheme *, struct slice data, unsigned char *to, const char **why);
bool key_verify(struct key *, const struct scheme *, struct slice data, struct slice signature);
/* The same, but a signature found good is remembered by the digest of data and signature, and then costs that digest
 * only. It stays as good as it was: whether it is one never changes. Up to 1024 are kept for a key, 32 bytes each. */
bool key_verify_remembered(struct key *, const struct scheme *, struct slice data, struct slice signature);
/* Steps of the budget that one of these takes, about. */
size_t key_steps(const struct key *, bool signing);
