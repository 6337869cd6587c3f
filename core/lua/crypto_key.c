/* Keys from PEM and JWK, and back.
 *
 * Accepted is what policy has a use for: RSA of 2048 to 8192 bits, the three NIST curves, Ed25519. Smaller RSA is
 * broken or soon will be, larger takes a worker's time; the bounds hold for every way in, certificates included, so
 * that nobody behind needs to ask again. */
#include "lua/crypto.h"

#include "base/must.h"

#include <openssl/core_names.h>
#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>

enum { RSA_BITS_MIN = 2048, RSA_BITS_MAX = 8192, COORDINATE_MAX = 66, GROUP_NAME = 32, ED25519_BYTES = 32 };

const char *const jwk_member_names[JWK_MEMBERS] = { "n", "e", "d", "p", "q", "dp", "dq", "qi", "x", "y", "k" };

static const struct {
    const char *jwk, *group;
    size_t bytes; /* of a coordinate */
} curves[] = {
    [CURVE_P256] = { "P-256", "prime256v1", 32 },
    [CURVE_P384] = { "P-384", "secp384r1", 48 },
    [CURVE_P521] = { "P-521", "secp521r1", 66 },
};

/* ---- What kind it is */

static enum curve find_curve(const EVP_PKEY *pkey) {
    char name[GROUP_NAME];
    size_t n;
    if (!EVP_PKEY_get_group_name(pkey, name, sizeof name, &n)) return CURVE_NONE;
    for (enum curve c = CURVE_P256; c <= CURVE_P521; c++)
        if (strcmp(name, curves[c].group) == 0) return c;
    return CURVE_NONE;
}

static bool has_number(const EVP_PKEY *pkey, const char *name) {
    BIGNUM *number = NULL;
    bool has = EVP_PKEY_get_bn_param(pkey, name, &number) == 1;
    BN_clear_free(number);
    return has;
}

static bool has_private(const struct key *k) {
    size_t n = 0;
    if (k->kind == KEY_ED25519) return EVP_PKEY_get_raw_private_key(k->pkey, NULL, &n) == 1;
    return has_number(k->pkey, k->kind == KEY_RSA ? OSSL_PKEY_PARAM_RSA_D : OSSL_PKEY_PARAM_PRIV_KEY);
}

/* Takes the key over, whatever it is. */
static bool adopt(struct key *k, EVP_PKEY *pkey, const char **why) {
    k->pkey = pkey;
    if (EVP_PKEY_is_a(pkey, "RSA")) {
        int bits = EVP_PKEY_get_bits(pkey);
        *why = bits < RSA_BITS_MIN ? "an RSA key has 2048 bits at least" : "an RSA key has 8192 bits at most";
        if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX) return false;
        k->kind = KEY_RSA;
    } else if (EVP_PKEY_is_a(pkey, "EC")) {
        *why = "of elliptic curves only P-256, P-384 and P-521 are supported";
        k->kind = KEY_EC;
        k->curve = find_curve(pkey);
        if (k->curve == CURVE_NONE) return false;
    } else if (EVP_PKEY_is_a(pkey, "ED25519")) {
        k->kind = KEY_ED25519;
    } else {
        *why = "only RSA, EC and Ed25519 keys are supported";
        return false;
    }
    k->is_private = has_private(k);
    ERR_clear_error();
    return true;
}

/* ---- PEM */

/* For a passphrase that nobody gave OpenSSL would ask at the terminal. */
static int give_passphrase(char *to, int room, int writing, void *with) {
    struct passphrase *pass = with;
    (void)writing;
    pass->asked = true;
    if (!pass->text.p || pass->text.n > (size_t)room) return -1;
    memcpy(to, pass->text.p, pass->text.n);
    return (int)pass->text.n;
}

static EVP_PKEY *read_certificate(BIO *from, OSSL_LIB_CTX *library) {
    EVP_PKEY *pkey = NULL;
    X509 *certificate = X509_new_ex(library, NULL);
    if (certificate && PEM_read_bio_X509(from, &certificate, NULL, NULL)) pkey = X509_get_pubkey(certificate);
    X509_free(certificate);
    return pkey;
}

static EVP_PKEY *read_key(BIO *from, OSSL_LIB_CTX *library, struct passphrase *pass) {
    EVP_PKEY *pkey = NULL;
    OSSL_DECODER_CTX *decoding = OSSL_DECODER_CTX_new_for_pkey(&pkey, "PEM", NULL, NULL, 0, library, NULL);
    if (!decoding) return NULL;
    OSSL_DECODER_CTX_set_pem_password_cb(decoding, give_passphrase, pass);
    if (!OSSL_DECODER_from_bio(decoding, from)) {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }
    OSSL_DECODER_CTX_free(decoding);
    return pkey;
}

bool key_read_pem(struct key *k, struct slice text, struct passphrase *pass, const char **why) {
    static const struct slice begin = { "-----BEGIN CERTIFICATE", 22 };
    OSSL_LIB_CTX *library = crypto_thread()->library;
    BIO *from = BIO_new_mem_buf(text.p, (int)text.n);
    must(from);
    bool certificate = memmem(text.p, text.n, begin.p, begin.n) != NULL;
    EVP_PKEY *pkey = certificate ? read_certificate(from, library) : read_key(from, library, pass);
    BIO_free(from);
    ERR_clear_error();
    if (pkey) return adopt(k, pkey, why);
    *why = !pass->asked   ? "there is no key in the text that could be read"
           : pass->text.p ? "the key is encrypted, and not with that password"
                          : "the key is encrypted, and no password was given";
    return false;
}

/* ---- Out of a JWK */

/* Adds a number, which `numbers` owns until the parameters are made. */
static bool add_number(OSSL_PARAM_BLD *build, const char *name, struct slice bytes, BIGNUM **number) {
    *number = BN_bin2bn((const unsigned char *)bytes.p, (int)bytes.n, NULL);
    return *number && OSSL_PARAM_BLD_push_BN(build, name, *number);
}

static bool add_rsa(OSSL_PARAM_BLD *build, const struct jwk *jwk, BIGNUM *numbers[JWK_MEMBERS]) {
    static const char *const names[] = { OSSL_PKEY_PARAM_RSA_N,         OSSL_PKEY_PARAM_RSA_E,
                                         OSSL_PKEY_PARAM_RSA_D,         OSSL_PKEY_PARAM_RSA_FACTOR1,
                                         OSSL_PKEY_PARAM_RSA_FACTOR2,   OSSL_PKEY_PARAM_RSA_EXPONENT1,
                                         OSSL_PKEY_PARAM_RSA_EXPONENT2, OSSL_PKEY_PARAM_RSA_COEFFICIENT1 };
    for (int i = JWK_N; i <= JWK_QI; i++)
        if (jwk->members[i].p && !add_number(build, names[i], jwk->members[i], &numbers[i])) return false;
    return true;
}

static bool add_ec(OSSL_PARAM_BLD *build, const struct jwk *jwk, enum curve curve, BIGNUM *numbers[JWK_MEMBERS],
                   unsigned char point[1 + 2 * COORDINATE_MAX]) {
    size_t n = curves[curve].bytes;
    const struct slice *m = jwk->members;
    point[0] = 4; /* uncompressed */
    memcpy(point + 1, m[JWK_X].p, n);
    memcpy(point + 1 + n, m[JWK_Y].p, n);
    return OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, curves[curve].group, 0) &&
           OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * n) &&
           (!m[JWK_D].p || add_number(build, OSSL_PKEY_PARAM_PRIV_KEY, m[JWK_D], &numbers[JWK_D]));
}

static bool add_ed25519(OSSL_PARAM_BLD *build, const struct jwk *jwk) {
    const struct slice x = jwk->members[JWK_X], d = jwk->members[JWK_D];
    return OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, x.p, x.n) &&
           (!d.p || OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PRIV_KEY, d.p, d.n));
}

static EVP_PKEY *make_pkey(const char *type, OSSL_PARAM *params, bool private) {
    EVP_PKEY *pkey = NULL;
    EVP_PKEY_CTX *making = EVP_PKEY_CTX_new_from_name(crypto_thread()->library, type, NULL);
    int selection = private ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY;
    if (!making || EVP_PKEY_fromdata_init(making) <= 0 || EVP_PKEY_fromdata(making, &pkey, selection, params) <= 0) {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }
    EVP_PKEY_CTX_free(making);
    return pkey;
}

/* Do the private and the public half belong together, is the point on its curve? A decoder asks that by itself. */
static bool is_sound(EVP_PKEY *pkey, const struct key *k) {
    EVP_PKEY_CTX *checking = EVP_PKEY_CTX_new_from_pkey(crypto_thread()->library, pkey, NULL);
    bool sound =
        checking && EVP_PKEY_public_check(checking) == 1 && (!k->is_private || EVP_PKEY_pairwise_check(checking) == 1);
    EVP_PKEY_CTX_free(checking);
    return sound;
}

static const char *jwk_problem(const struct jwk *jwk, enum curve curve, const char *type) {
    const struct slice *m = jwk->members;
    if (strcmp(type, "RSA") == 0) {
        int parts = (m[JWK_P].p != NULL) + (m[JWK_Q].p != NULL) + (m[JWK_DP].p != NULL) + (m[JWK_DQ].p != NULL) +
                    (m[JWK_QI].p != NULL);
        if (!m[JWK_N].p || !m[JWK_E].p) return "an RSA JWK has n and e";
        if (m[JWK_E].n > 8) return "e is larger than 64 bits";
        if (m[JWK_N].n > RSA_BITS_MAX / 8) return "an RSA key has 8192 bits at most";
        if (parts != 0 && parts != 5) return "of p, q, dp, dq and qi an RSA JWK has all or none";
        if (parts == 5 && !m[JWK_D].p) return "an RSA JWK with p has d, too";
        return NULL;
    }
    size_t n = curve ? curves[curve].bytes : ED25519_BYTES;
    if (!m[JWK_X].p || m[JWK_X].n != n || (m[JWK_D].p && m[JWK_D].n != n)) return "x or d is not as long as crv says";
    if (curve && (!m[JWK_Y].p || m[JWK_Y].n != n)) return "y is not as long as crv says";
    return NULL;
}

static EVP_PKEY *build_pkey(const struct jwk *jwk, enum curve curve, const char *type) {
    BIGNUM *numbers[JWK_MEMBERS] = { NULL };
    unsigned char point[1 + 2 * COORDINATE_MAX];
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    must(build);
    bool added = curve                      ? add_ec(build, jwk, curve, numbers, point)
                 : strcmp(type, "RSA") == 0 ? add_rsa(build, jwk, numbers)
                                            : add_ed25519(build, jwk);
    OSSL_PARAM *params = added ? OSSL_PARAM_BLD_to_param(build) : NULL;
    if (params) pkey = make_pkey(type, params, jwk->members[JWK_D].p != NULL);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    for (int i = 0; i < JWK_MEMBERS; i++) BN_clear_free(numbers[i]);
    return pkey;
}

static bool read_secret(struct key *k, struct slice bytes, const char **why) {
    *why = "k has 1 to 4096 bytes";
    if (!bytes.p || bytes.n == 0 || bytes.n > SECRET_BYTES_MAX) return false;
    k->kind = KEY_SECRET;
    k->is_private = true;
    k->secret = must_malloc(bytes.n);
    k->secret_n = bytes.n;
    memcpy(k->secret, bytes.p, bytes.n);
    return true;
}

static enum curve curve_named(struct slice name) {
    for (enum curve c = CURVE_P256; c <= CURVE_P521; c++)
        if (slice_equal(name, slice_of(curves[c].jwk))) return c;
    return CURVE_NONE;
}

bool key_read_jwk(struct key *k, const struct jwk *jwk, const char **why) {
    const char *type = NULL;
    enum curve curve = CURVE_NONE;
    if (slice_equal(jwk->type, SLICE("oct"))) return read_secret(k, jwk->members[JWK_K], why);
    if (slice_equal(jwk->type, SLICE("RSA"))) type = "RSA";
    if (slice_equal(jwk->type, SLICE("EC")) && (curve = curve_named(jwk->curve))) type = "EC";
    if (slice_equal(jwk->type, SLICE("OKP")) && slice_equal(jwk->curve, SLICE("Ed25519"))) type = "ED25519";
    *why = "its kty or crv is not supported";
    if (!type || (*why = jwk_problem(jwk, curve, type))) return false;
    EVP_PKEY *pkey = build_pkey(jwk, curve, type);
    *why = "its numbers make no key";
    bool good = pkey && adopt(k, pkey, why);
    if (good && k->kind != KEY_RSA && !is_sound(pkey, k)) {
        *why = "its numbers do not belong together";
        good = false;
    }
    ERR_clear_error();
    return good;
}

/* ---- Into a JWK */

struct writing {
    unsigned char *room;
    size_t used;
};

/* `bytes` 0: as long as it is. */
static bool write_number(const EVP_PKEY *pkey, const char *name, size_t bytes, struct writing *w, struct slice *out) {
    BIGNUM *number = NULL;
    if (EVP_PKEY_get_bn_param(pkey, name, &number) != 1) return false;
    size_t n = bytes ? bytes : (size_t)BN_num_bytes(number);
    bool fits = w->used + n <= JWK_ROOM && BN_bn2binpad(number, w->room + w->used, (int)n) == (int)n;
    BN_clear_free(number);
    if (!fits) return false;
    *out = slice_make((const char *)w->room + w->used, n);
    w->used += n;
    return true;
}

static bool write_rsa(const struct key *k, bool private, struct jwk *jwk, struct writing *w) {
    static const char *const parts[] = { OSSL_PKEY_PARAM_RSA_FACTOR1, OSSL_PKEY_PARAM_RSA_FACTOR2,
                                         OSSL_PKEY_PARAM_RSA_EXPONENT1, OSSL_PKEY_PARAM_RSA_EXPONENT2,
                                         OSSL_PKEY_PARAM_RSA_COEFFICIENT1 };
    struct slice *m = jwk->members;
    if (!write_number(k->pkey, OSSL_PKEY_PARAM_RSA_N, 0, w, &m[JWK_N])) return false;
    if (!write_number(k->pkey, OSSL_PKEY_PARAM_RSA_E, 0, w, &m[JWK_E])) return false;
    if (!private) return true;
    if (!write_number(k->pkey, OSSL_PKEY_PARAM_RSA_D, m[JWK_N].n, w, &m[JWK_D])) return false;
    if (!has_number(k->pkey, parts[0])) return true;
    for (int i = 0; i < 5; i++)
        if (!write_number(k->pkey, parts[i], 0, w, &m[JWK_P + i])) return false;
    return true;
}

static bool write_ec(const struct key *k, bool private, struct jwk *jwk, struct writing *w) {
    size_t n = curves[k->curve].bytes;
    jwk->curve = slice_of(curves[k->curve].jwk);
    return write_number(k->pkey, OSSL_PKEY_PARAM_EC_PUB_X, n, w, &jwk->members[JWK_X]) &&
           write_number(k->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, n, w, &jwk->members[JWK_Y]) &&
           (!private || write_number(k->pkey, OSSL_PKEY_PARAM_PRIV_KEY, n, w, &jwk->members[JWK_D]));
}

static bool write_ed25519(const struct key *k, bool private, struct jwk *jwk, struct writing *w) {
    size_t n = ED25519_BYTES;
    jwk->curve = SLICE("Ed25519");
    if (EVP_PKEY_get_raw_public_key(k->pkey, w->room, &n) != 1) return false;
    jwk->members[JWK_X] = slice_make((const char *)w->room, n);
    if (!private) return true;
    if (EVP_PKEY_get_raw_private_key(k->pkey, w->room + ED25519_BYTES, &n) != 1) return false;
    jwk->members[JWK_D] = slice_make((const char *)w->room + ED25519_BYTES, n);
    return true;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `room` is written through `writing` */
bool key_write_jwk(const struct key *k, bool private, struct jwk *jwk, unsigned char room[JWK_ROOM]) {
    static const char *const types[KEY_KINDS] = { "oct", "RSA", "EC", "OKP" };
    struct writing w = { .room = room };
    bool written = true;
    *jwk = (struct jwk){ .type = slice_of(types[k->kind]) };
    if (private && !k->is_private) return false;
    switch (k->kind) {
    case KEY_SECRET: jwk->members[JWK_K] = slice_make((const char *)k->secret, k->secret_n); break;
    case KEY_RSA: written = write_rsa(k, private, jwk, &w); break;
    case KEY_EC: written = write_ec(k, private, jwk, &w); break;
    case KEY_ED25519: written = write_ed25519(k, private, jwk, &w); break;
    case KEY_KINDS: written = false;
    }
    ERR_clear_error();
    return written;
}

/* ---- Into PEM, and without its private half */

size_t key_write_pem(const struct key *k, bool private, char *to, size_t room) {
    char *text;
    size_t n = 0;
    if (!k->pkey || (private && !k->is_private)) return 0;
    BIO *out = BIO_new(BIO_s_secmem());
    must(out);
    OSSL_LIB_CTX *library = crypto_thread()->library;
    bool written = private ? PEM_write_bio_PrivateKey_ex(out, k->pkey, NULL, NULL, 0, NULL, NULL, library, NULL)
                           : PEM_write_bio_PUBKEY_ex(out, k->pkey, library, NULL);
    long size = BIO_get_mem_data(out, &text);
    if (written && size > 0 && (size_t)size <= room) memcpy(to, text, n = (size_t)size);
    BIO_free(out);
    ERR_clear_error();
    return n;
}

bool key_copy_public(struct key *to, const struct key *from) {
    OSSL_PARAM *params = NULL;
    const char *why;
    EVP_PKEY *pkey = NULL;
    if (EVP_PKEY_todata(from->pkey, EVP_PKEY_PUBLIC_KEY, &params) == 1)
        pkey = make_pkey(EVP_PKEY_get0_type_name(from->pkey), params, false);
    OSSL_PARAM_free(params);
    ERR_clear_error();
    if (!pkey || !adopt(to, pkey, &why)) return false;
    to->id = from->id ? must_strdup(from->id) : NULL;
    to->algorithm = from->algorithm ? must_strdup(from->algorithm) : NULL;
    return true;
}
