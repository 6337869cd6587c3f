/* Service: how a listener meets its clients: versions, ciphers, client certificates, tickets, ALPN. One context for
 * each worker. It has no certificate: that is chosen in each handshake (on_hello), since it depends on the name asked
 * for, and on what generation serves then.
 *
 * What is spoken is short: TLS 1.2 and 1.3, forward secrecy, authenticated encryption. Everything since 2014 or so can
 * do that; whoever cannot is not let in rather than let in badly. Sessions are kept by the clients alone, in tickets.
 *
 * The order of the ciphers is ours: AES with 128 bits first, which is the fastest and is strong enough. But a client
 * that puts ChaCha20 first has no AES in its hardware, and gets it. */
#include "base/clock.h"
#include "base/must.h"
#include "base/refs.h"
#include "net/conn.h"
#include "net/tls_openssl.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char CIPHERS[] = "ECDHE+AESGCM+AES128:ECDHE+AESGCM:ECDHE+CHACHA20",
                  SUITES[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
                  GROUPS[] = "X25519:P-256:P-384";
enum { SESSION_SECONDS = 2 * 3600, EARLY_MOST = 16384 };

struct tls_service {
    struct tls_shared shared;
    enum tls_alpn alpn;
    enum tls_ask ask;
    unsigned versions;
    bool early, kernel;
    X509_STORE *roots; /* who may have signed clients' certificates; NULL: none are asked for */
    SSL_CTX *contexts[TLS_WORKERS];
};

/* ---- in a handshake */

/* h2 before http/1.1, whatever the client's order, and http/1.0 for who offers nothing else; nothing in common ends the
 * handshake (RFC 7301 3.2). */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *size, const unsigned char *in, unsigned n,
                       void *with) {
    static const unsigned char all[] = "\2h2\10http/1.1\10http/1.0";
    const struct tls_service *s = with;
    unsigned skip = s->alpn == TLS_ALPN_H2 ? 0 : 3;
    (void)ssl;
    int r = SSL_select_next_proto((unsigned char **)(uintptr_t)out, size, all + skip, sizeof all - 1 - skip, in, n);
    return r == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* What a client asks for is judged when its certificate is chosen; until then every name will do. */
static int take_name(SSL *ssl, int *alert, void *with) { return SSL_TLSEXT_ERR_OK; }

/* A client takes no answer whose time is over, and some then take no certificate either. */
static bool may_staple(const struct tls_identity *id) {
    return id->ocsp && (id->ocsp_until == 0 || clock_wall() < id->ocsp_until);
}

/* The certificate that was chosen at last knows its OCSP answer; OpenSSL frees what it is given. */
static int staple(SSL *ssl, void *with) {
    const struct tls_hello *h = tls_of(ssl)->hello;
    const X509 *leaf = SSL_get_certificate(ssl);
    for (unsigned i = 0; h && i < h->shown_count; i++) {
        const struct tls_identity *id = h->shown[i];
        if (id->leaf != leaf || !may_staple(id)) continue;
        unsigned char *copy = OPENSSL_memdup(id->ocsp, (size_t)id->ocsp_size);
        if (!copy || !SSL_set_tlsext_status_ocsp_resp(ssl, copy, id->ocsp_size)) return SSL_TLSEXT_ERR_NOACK;
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

/* TLS_ASK_REQUEST: what is wrong with it is told (conn_tls_verified), not punished. */
static int take_anyhow(int good, X509_STORE_CTX *c) { return 1; }

/* ---- contexts */

static void ask_for_certificate(SSL_CTX *c, const struct tls_service *s) {
    if (s->ask == TLS_ASK_NOT) return;
    bool needed = s->ask == TLS_ASK_REQUIRE;
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(s->roots);
    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        const X509 *x = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        if (x) sk_X509_NAME_push(names, X509_NAME_dup(X509_get_subject_name(x)));
    }
    SSL_CTX_set_client_CA_list(c, names);
    SSL_CTX_set1_cert_store(c, s->roots);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER | (needed ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       needed ? NULL : take_anyhow);
}

static SSL_CTX *make_context(struct tls_service *s) {
    SSL_CTX *c = SSL_CTX_new_ex(tls_library(), NULL, TLS_server_method());
    must(c != NULL);
    tls_context_init(c, s->versions);
    must(SSL_CTX_set_cipher_list(c, CIPHERS) && SSL_CTX_set_ciphersuites(c, SUITES));
    must(SSL_CTX_set1_groups_list(c, GROUPS));
    SSL_CTX_set_options(c, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(c, s->shared.digest, TLS_DIGEST); /* other terms: another session */
    SSL_CTX_set_timeout(c, SESSION_SECONDS);
    SSL_CTX_set_num_tickets(c, 1);
    tls_tickets_use(c);
    SSL_CTX_set_cert_cb(c, tls_on_hello, NULL);
    SSL_CTX_set_tlsext_servername_callback(c, take_name);
    SSL_CTX_set_tlsext_status_cb(c, staple);
    SSL_CTX_set_alpn_select_cb(c, choose_alpn, s);
    if (s->early) {
        must(SSL_CTX_set_max_early_data(c, EARLY_MOST));
        tls_replay_use(c);
    }
    if (s->kernel) SSL_CTX_set_options(c, SSL_OP_ENABLE_KTLS);
    ask_for_certificate(c, s);
    return c;
}

SSL *tls_service_open(struct tls_service *s, const struct loop *loop) {
    must(loop->index >= 0 && loop->index < TLS_WORKERS);
    SSL_CTX **c = &s->contexts[loop->index];
    if (!*c) *c = make_context(s);
    SSL *ssl = SSL_new(*c);
    must(ssl != NULL);
    SSL_set_accept_state(ssl);
    return ssl;
}

bool tls_service_takes_early(const struct tls_service *s) { return s->early; }
bool tls_service_in_kernel(const struct tls_service *s) { return s->kernel; }

/* ---- the kernel's TLS */

static bool kernel_there;

/* A socket without a connection cannot have it: an error that only a kernel knows that has it. */
static void ask_kernel(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    kernel_there = setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") == 0 || errno == ENOTCONN;
    close(fd);
}

bool tls_kernel_there(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, ask_kernel);
    return kernel_there;
}

/* ---- its life */

static void service_leave(struct tls_shared *shared, const struct loop *loop) {
    struct tls_service *s = (struct tls_service *)shared;
    for (int i = 0; i < TLS_WORKERS; i++) {
        if (loop && loop->index != i) continue;
        SSL_CTX_free(s->contexts[i]);
        s->contexts[i] = NULL;
    }
}

static void service_destroy(struct tls_shared *shared) {
    struct tls_service *s = (struct tls_service *)shared;
    X509_STORE_free(s->roots);
    free(s);
}

static const struct tls_kind kind = { .destroy = service_destroy, .leave = service_leave };

static bool read_crl(X509_STORE *store, struct slice pem, char *why, size_t size) {
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509_CRL *crl;
    unsigned count = 0;
    for (; (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)); count++) {
        must(X509_STORE_add_crl(store, crl));
        X509_CRL_free(crl);
    }
    BIO_free(bio);
    ERR_clear_error();
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
    if (count == 0) snprintf(why, size, "crl: holds no list of revoked certificates in PEM");
    return count > 0;
}

static bool read_settings(struct tls_service *s, const struct tls_service_settings *from, char *why, size_t size) {
    char text[200];
    s->alpn = from->alpn;
    s->ask = from->ask;
    s->versions = from->versions;
    s->early = from->early;
    s->kernel = from->kernel && !from->early && tls_kernel_there();
    if (s->ask == TLS_ASK_NOT) return true;
    s->roots = tls_roots(from->client_ca, text, sizeof text);
    if (!s->roots) snprintf(why, size, "client_ca: %s", text);
    return s->roots && (!from->crl.p || read_crl(s->roots, from->crl, why, size));
}

struct tls_service *tls_service_get(const struct tls_service_settings *from, char *why, size_t size) {
    unsigned char digest[TLS_DIGEST];
    unsigned char flags[] = { (unsigned char)from->alpn, (unsigned char)from->ask, (unsigned char)from->versions,
                              from->early, from->kernel };
    struct slice parts[] = { SLICE("service"), slice_make((const char *)flags, sizeof flags), from->client_ca,
                             from->crl };
    tls_digest(parts, 4, digest);
    struct tls_service *s = tls_shared_find(&kind, digest);
    if (s) return s;
    s = must_calloc(1, sizeof *s);
    if (read_settings(s, from, why, size)) return tls_shared_add(&s->shared, &kind, digest);
    service_destroy(&s->shared);
    return NULL;
}

struct tls_service *tls_service_ref(struct tls_service *s) {
    if (s) refs_take(&s->shared.refs);
    return s;
}

void tls_service_unref(struct tls_service *s) {
    if (s) tls_shared_unref(&s->shared);
}
