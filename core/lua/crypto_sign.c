/* Signatures. OpenSSL's one-call functions fetch algorithms and build contexts anew each time, which is most of the
 * cost of an HMAC and a tenth of that of an RSA verification. So a key keeps the context that it used last, for signing
 * and for verifying one each: policy signs with one scheme.
 *
 * The text is digested here and the digest signed, but for Ed25519, which wants all of the text. Signatures of ECDSA
 * come in two forms: r and s side by side are made DER and back here. */
#include "lua/crypto.h"

#include "base/must.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <stdlib.h>

enum { GOOD_SLOTS = 1024, GOOD_BYTES = 32, DER_MAX = 160, COORDINATE_MAX = 66 };

_Static_assert(sizeof(unsigned char[GOOD_BYTES]) == sizeof *((struct key *)0)->good, "one digest for each");

void prepared_fini(struct prepared *p) {
    EVP_PKEY_CTX_free(p->plain);
    EVP_MD_CTX_free(p->digesting);
    EVP_MAC_CTX_free(p->mac);
    *p = (struct prepared){ 0 };
}

/* ---- Preparing */

static bool same_scheme(const struct key *k, const struct scheme *a, const struct scheme *b) {
    if (k->kind == KEY_ED25519) return true;
    return a->digest == b->digest && (k->kind != KEY_RSA || a->pss == b->pss);
}

static bool set_scheme(struct prepared *p, const struct key *k, EVP_MD *md) {
    if (EVP_PKEY_CTX_set_signature_md(p->plain, md) <= 0) return false;
    if (k->kind != KEY_RSA) return true;
    if (!p->scheme.pss) return EVP_PKEY_CTX_set_rsa_padding(p->plain, RSA_PKCS1_PADDING) > 0;
    return EVP_PKEY_CTX_set_rsa_padding(p->plain, RSA_PKCS1_PSS_PADDING) > 0 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(p->plain, RSA_PSS_SALTLEN_DIGEST) > 0;
}

static bool prepare_plain(struct prepared *p, const struct key *k, struct crypto *c, bool signing) {
    EVP_MD *md = crypto_digest(c, p->scheme.digest);
    p->plain = EVP_PKEY_CTX_new_from_pkey(c->library, k->pkey, NULL);
    if (!md || !p->plain) return false;
    int ready = signing ? EVP_PKEY_sign_init(p->plain) : EVP_PKEY_verify_init(p->plain);
    return ready > 0 && set_scheme(p, k, md);
}

static bool prepare_whole(struct prepared *p, const struct key *k, struct crypto *c, bool signing) {
    p->digesting = EVP_MD_CTX_new();
    if (!p->digesting) return false;
    return (signing ? EVP_DigestSignInit_ex(p->digesting, NULL, NULL, c->library, NULL, k->pkey, NULL)
                    : EVP_DigestVerifyInit_ex(p->digesting, NULL, NULL, c->library, NULL, k->pkey, NULL)) > 0;
}

static bool prepare_mac(struct prepared *p, const struct key *k, struct crypto *c) {
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)digest_openssl_name(p->scheme.digest), 0),
        OSSL_PARAM_construct_end(),
    };
    p->mac = EVP_MAC_CTX_new(c->hmac);
    return p->mac && EVP_MAC_init(p->mac, k->secret, k->secret_n, params);
}

/* NULL: this OpenSSL cannot. */
static struct prepared *prepare(struct key *k, const struct scheme *scheme, bool signing) {
    struct crypto *c = crypto_thread();
    struct prepared *p = signing ? &k->signing : &k->verifying;
    if (p->crypto == c && same_scheme(k, &p->scheme, scheme)) return p;
    prepared_fini(p);
    p->scheme = *scheme;
    bool ready = k->kind == KEY_SECRET    ? prepare_mac(p, k, c)
                 : k->kind == KEY_ED25519 ? prepare_whole(p, k, c, signing)
                                          : prepare_plain(p, k, c, signing);
    if (ready) p->crypto = c;
    else prepared_fini(p);
    return ready ? p : NULL;
}

/* ---- HMAC */

/* Without a key the context begins anew with the one it has. */
static size_t mac_of(struct prepared *p, struct slice data, unsigned char *to) {
    size_t n = 0;
    bool done = EVP_MAC_init(p->mac, NULL, 0, NULL) && EVP_MAC_update(p->mac, (const unsigned char *)data.p, data.n) &&
                EVP_MAC_final(p->mac, to, &n, DIGEST_BYTES_MAX);
    return done ? n : 0;
}

static bool verify_mac(struct prepared *p, struct slice data, struct slice signature) {
    unsigned char mac[DIGEST_BYTES_MAX];
    size_t n = mac_of(p, data, mac);
    return n > 0 && n == signature.n && CRYPTO_memcmp(mac, signature.p, n) == 0;
}

/* ---- ECDSA: raw and DER */

static size_t coordinate_bytes(const struct key *k) {
    static const unsigned char bytes[] = { [CURVE_P256] = 32, [CURVE_P384] = 48, [CURVE_P521] = COORDINATE_MAX };
    return bytes[k->curve];
}

/* The length of the DER text; 0: it is no such signature. */
static size_t raw_to_der(const struct key *k, struct slice raw, unsigned char *der) {
    size_t n = coordinate_bytes(k);
    if (raw.n != 2 * n) return 0;
    const unsigned char *p = (const unsigned char *)raw.p;
    ECDSA_SIG *signature = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(p, (int)n, NULL), *s = BN_bin2bn(p + n, (int)n, NULL);
    must(signature && r && s);
    ECDSA_SIG_set0(signature, r, s);
    int length = i2d_ECDSA_SIG(signature, &der);
    ECDSA_SIG_free(signature);
    return length > 0 ? (size_t)length : 0;
}

static size_t der_to_raw(const struct key *k, const unsigned char *der, size_t length, unsigned char *raw) {
    int n = (int)coordinate_bytes(k);
    ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &der, (long)length);
    if (!signature) return 0;
    bool fits = BN_bn2binpad(ECDSA_SIG_get0_r(signature), raw, n) == n &&
                BN_bn2binpad(ECDSA_SIG_get0_s(signature), raw + n, n) == n;
    ECDSA_SIG_free(signature);
    return fits ? 2 * (size_t)n : 0;
}

/* ---- Sign */

static size_t sign_digest(const struct key *k, struct prepared *p, const struct scheme *scheme, struct slice data,
                          unsigned char *to) {
    unsigned char digest[DIGEST_BYTES_MAX], der[DER_MAX];
    bool convert = k->kind == KEY_EC && scheme->raw;
    unsigned char *out = convert ? der : to;
    size_t n = convert ? sizeof der : SIGNATURE_MAX;
    size_t digested = crypto_digest_bytes(crypto_thread(), scheme->digest, data, digest);
    if (digested == 0 || EVP_PKEY_sign(p->plain, out, &n, digest, digested) <= 0) return 0;
    return convert ? der_to_raw(k, der, n, to) : n;
}

static size_t sign_whole(const struct prepared *p, struct slice data, unsigned char *to) {
    size_t n = SIGNATURE_MAX;
    return EVP_DigestSign(p->digesting, to, &n, (const unsigned char *)data.p, data.n) > 0 ? n : 0;
}

size_t key_sign(struct key *k, const struct scheme *scheme, struct slice data, unsigned char *to, const char **why) {
    *why = "a public key cannot sign";
    if (!k->is_private) return 0;
    *why = "this OpenSSL does not offer that signature";
    struct prepared *p = prepare(k, scheme, true);
    size_t n = !p                       ? 0
               : k->kind == KEY_SECRET  ? mac_of(p, data, to)
               : k->kind == KEY_ED25519 ? sign_whole(p, data, to)
                                        : sign_digest(k, p, scheme, data, to);
    if (n == 0) ERR_clear_error();
    return n;
}

/* ---- Verify */

static bool verify_digest(const struct key *k, struct prepared *p, const struct scheme *scheme, struct slice data,
                          struct slice signature) {
    unsigned char digest[DIGEST_BYTES_MAX], der[DER_MAX];
    if (k->kind == KEY_EC && scheme->raw) {
        signature.n = raw_to_der(k, signature, der);
        signature.p = (const char *)der;
    }
    size_t digested = crypto_digest_bytes(crypto_thread(), scheme->digest, data, digest);
    return digested > 0 && signature.n > 0 &&
           EVP_PKEY_verify(p->plain, (const unsigned char *)signature.p, signature.n, digest, digested) == 1;
}

bool key_verify(struct key *k, const struct scheme *scheme, struct slice data, struct slice signature) {
    struct prepared *p = signature.n > 0 && signature.n <= SIGNATURE_MAX ? prepare(k, scheme, false) : NULL;
    bool good;
    if (!p) good = false;
    else if (k->kind == KEY_SECRET) good = verify_mac(p, data, signature);
    else if (k->kind != KEY_ED25519) good = verify_digest(k, p, scheme, data, signature);
    else
        good = EVP_DigestVerify(p->digesting, (const unsigned char *)signature.p, signature.n,
                                (const unsigned char *)data.p, data.n) == 1;
    if (!good) ERR_clear_error();
    return good;
}

/* ---- Remember */

/* SHA-256 of scheme, lengths and bytes, so that no two things look the same. */
static bool remembered_name(const struct scheme *scheme, struct slice data, struct slice signature,
                            unsigned char to[GOOD_BYTES]) {
    struct crypto *c = crypto_thread();
    EVP_MD *md = crypto_digest(c, DIGEST_SHA256);
    const uint64_t about[] = { (uint64_t)scheme->digest, scheme->pss, scheme->raw, data.n, signature.n };
    return md && EVP_DigestInit_ex2(c->digesting, md, NULL) && EVP_DigestUpdate(c->digesting, about, sizeof about) &&
           EVP_DigestUpdate(c->digesting, data.p, data.n) && EVP_DigestUpdate(c->digesting, signature.p, signature.n) &&
           EVP_DigestFinal_ex(c->digesting, to, NULL);
}

/* An HMAC costs no more than the look. */
bool key_verify_remembered(struct key *k, const struct scheme *scheme, struct slice data, struct slice signature) {
    unsigned char name[GOOD_BYTES];
    if (k->kind == KEY_SECRET || !remembered_name(scheme, data, signature, name))
        return key_verify(k, scheme, data, signature);
    unsigned slot = (name[0] | (unsigned)name[1] << 8) % GOOD_SLOTS;
    if (k->good && memcmp(k->good[slot], name, GOOD_BYTES) == 0) return true;
    if (!key_verify(k, scheme, data, signature)) return false;
    if (!k->good) k->good = must_calloc(GOOD_SLOTS, GOOD_BYTES);
    memcpy(k->good[slot], name, GOOD_BYTES);
    return true;
}

size_t key_steps(const struct key *k, bool signing) {
    if (k->kind == KEY_SECRET) return 100;
    if (k->kind == KEY_RSA) return signing ? 80000 : 3000;
    return k->curve > CURVE_P256 ? 60000 : 6000;
}
