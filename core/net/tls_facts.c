/* What scripts and logs may know of a TLS conn. Asked rarely: everything is made when it is asked for. */
#include "base/arena.h"
#include "net/conn.h"
#include "net/tls_openssl.h"

#include <time.h>

static struct slice copy_text(struct arena *arena, const char *text) {
    return text ? arena_copy(arena, slice_of(text)) : slice_make(NULL, 0);
}

static struct slice copy_alpn(struct arena *arena, const SSL *ssl) {
    const unsigned char *p;
    unsigned n;
    SSL_get0_alpn_selected(ssl, &p, &n);
    return p ? arena_copy(arena, slice_make((const char *)p, n)) : slice_make(NULL, 0);
}

/* RFC 4514: "CN=a,O=b". */
static struct slice write_name(struct arena *arena, const X509_NAME *name) {
    BIO *bio = BIO_new(BIO_s_mem());
    if (!bio) return slice_make(NULL, 0);
    char *p;
    X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB);
    long n = BIO_get_mem_data(bio, &p);
    struct slice text = arena_copy(arena, slice_make(p, (size_t)n));
    BIO_free(bio);
    return text;
}

static struct slice write_hex(struct arena *arena, const unsigned char *bytes, size_t n) {
    static const char digits[] = "0123456789abcdef";
    char *to = arena_bytes(arena, n * 2);
    for (size_t i = 0; i < n; i++) {
        to[2 * i] = digits[bytes[i] >> 4];
        to[2 * i + 1] = digits[bytes[i] & 15];
    }
    return slice_make(to, n * 2);
}

static struct slice write_serial(struct arena *arena, const X509 *x) {
    const ASN1_INTEGER *serial = X509_get0_serialNumber(x);
    return write_hex(arena, ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial));
}

static struct slice write_fingerprint(struct arena *arena, const X509 *x) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    return X509_digest(x, EVP_sha256(), digest, &n) ? write_hex(arena, digest, n) : slice_make(NULL, 0);
}

/* A name with a line end in it would read as two. */
static bool is_one_line(struct slice text) {
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] < 0x20) return false;
    return true;
}

static void write_alternative(struct buffer *to, const GENERAL_NAME *name) {
    const char *kind = name->type == GEN_DNS     ? "DNS:"
                       : name->type == GEN_EMAIL ? "email:"
                       : name->type == GEN_URI   ? "URI:"
                                                 : NULL;
    if (!kind) return;
    const ASN1_STRING *value = name->d.ia5;
    struct slice text = { (const char *)ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value) };
    if (is_one_line(text)) buffer_printf(to, "%s%.*s\n", kind, FMT(text));
}

static struct slice write_alternatives(struct arena *arena, const X509 *x) {
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    struct buffer text = { 0 };
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) write_alternative(&text, sk_GENERAL_NAME_value(names, i));
    GENERAL_NAMES_free(names);
    struct slice copy = arena_copy(arena, buffer_gather(&text, text.size));
    buffer_fini(&text);
    return copy;
}

static const X509 *peer_of(const struct conn *c) { return c->tls ? SSL_get0_peer_certificate(c->tls->ssl) : NULL; }

struct slice conn_tls_fact(const struct conn *c, enum tls_fact fact, struct arena *arena) {
    const SSL *ssl = c->tls ? c->tls->ssl : NULL;
    const X509 *x = peer_of(c);
    struct slice nothing = { NULL, 0 };
    if (!ssl) return nothing;
    switch (fact) {
    case TLS_FACT_VERSION: return copy_text(arena, SSL_get_version(ssl));
    case TLS_FACT_CIPHER: return copy_text(arena, SSL_CIPHER_get_name(SSL_get_current_cipher(ssl)));
    case TLS_FACT_NAME: return copy_text(arena, SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    case TLS_FACT_ALPN: return copy_alpn(arena, ssl);
    case TLS_FACT_SUBJECT: return x ? write_name(arena, X509_get_subject_name(x)) : nothing;
    case TLS_FACT_ISSUER: return x ? write_name(arena, X509_get_issuer_name(x)) : nothing;
    case TLS_FACT_SERIAL: return x ? write_serial(arena, x) : nothing;
    case TLS_FACT_FINGERPRINT: return x ? write_fingerprint(arena, x) : nothing;
    case TLS_FACT_NAMES: return x ? write_alternatives(arena, x) : nothing;
    }
    return nothing;
}

bool conn_tls_resumed(const struct conn *c) { return c->tls && SSL_session_reused(c->tls->ssl); }

bool conn_tls_in_kernel(const struct conn *c) { return c->tls && c->tls->in_kernel; }

bool conn_tls_early_refused(const struct conn *c) {
    return c->tls && SSL_get_early_data_status(c->tls->ssl) == SSL_EARLY_DATA_REJECTED;
}

bool conn_tls_verified(const struct conn *c) { return peer_of(c) && SSL_get_verify_result(c->tls->ssl) == X509_V_OK; }

double conn_tls_not_after(const struct conn *c) {
    const X509 *x = peer_of(c);
    struct tm tm;
    return x && ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) ? (double)timegm(&tm) : 0;
}
