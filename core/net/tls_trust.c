/* Trust: what connections to servers are made with. One context for each worker, made at its first connection; the
 * sessions that servers offered to take up again, by name and address, for each worker alone, so that no lock is on the
 * way to a server. */
#include "base/log.h"
#include "base/map.h"
#include "base/must.h"
#include "base/refs.h"
#include "net/loop.h"
#include "net/tls_openssl.h"

#include <stdio.h>
#include <stdlib.h>

enum { SESSIONS_MOST = 512, PINS_MOST = 64 };

/* One worker's part. */
struct trust_slot {
    SSL_CTX *context;
    struct map sessions; /* struct tls's session_key -> SSL_SESSION */
};

struct tls_trust {
    struct tls_shared shared;
    X509_STORE *_Atomic roots; /* NULL: unverified, or the system's, not yet read */
    bool unverified;
    struct tls_identity *identity; /* NULL: none */
    unsigned char (*pins)[TLS_DIGEST];
    unsigned pin_count;
    unsigned versions;
    struct trust_slot slots[TLS_WORKERS];
};

/* ---- pins */

static bool read_pin(struct slice text, unsigned char to[TLS_DIGEST]) {
    unsigned char bytes[TLS_DIGEST + 1];
    struct slice prefix = SLICE("sha256/");
    if (text.n != prefix.n + 44 || !slice_starts_with(text, prefix) || text.p[text.n - 1] != '=') return false;
    if (EVP_DecodeBlock(bytes, (const unsigned char *)text.p + prefix.n, 44) != TLS_DIGEST + 1) return false;
    memcpy(to, bytes, TLS_DIGEST);
    return true;
}

bool tls_pin_valid(struct slice text) {
    unsigned char digest[TLS_DIGEST];
    return read_pin(text, digest);
}

static bool is_pinned(const struct tls_trust *t, const X509 *x) {
    unsigned char *der = NULL, digest[TLS_DIGEST];
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);
    bool found = n > 0 && EVP_Digest(der, (size_t)n, digest, NULL, EVP_sha256(), NULL);
    OPENSSL_free(der);
    if (!found) return false;
    for (unsigned i = 0; i < t->pin_count; i++)
        if (memcmp(t->pins[i], digest, TLS_DIGEST) == 0) return true;
    return false;
}

/* Of an unverified chain only the server's own certificate counts: whoever has no key can add the others. A session
 * taken up again was pinned when it began, or it would not have been kept. */
bool tls_trust_pinned(const struct tls_trust *t, const SSL *ssl) {
    if (!t->pin_count || SSL_session_reused((SSL *)(uintptr_t)ssl)) return true;
    STACK_OF(X509) *chain = !t->unverified ? SSL_get0_verified_chain(ssl) : NULL;
    for (int i = 0; chain && i < sk_X509_num(chain); i++)
        if (is_pinned(t, sk_X509_value(chain, i))) return true;
    const X509 *leaf = SSL_get0_peer_certificate(ssl);
    return leaf && is_pinned(t, leaf);
}

bool tls_trust_verifies(const struct tls_trust *t) { return !t->unverified; }

/* ---- sessions */

static struct slice session_key(const struct tls *tls) {
    return slice_make((const char *)tls->session_key, TLS_DIGEST);
}

static void forget_some_session(struct map *sessions) {
    struct slice key;
    void *session;
    size_t i = 0;
    if (!map_next(sessions, &i, &key, &session)) return;
    char copy[TLS_DIGEST];
    memcpy(copy, key.p, TLS_DIGEST);
    map_remove(sessions, slice_make(copy, TLS_DIGEST));
    SSL_SESSION_free(session);
}

/* Returns 1: the reference is ours. */
static int keep_session(SSL *ssl, SSL_SESSION *session) {
    struct tls *tls = tls_of(ssl);
    if (!SSL_SESSION_is_resumable(session) || !tls_trust_pinned(tls->trust, ssl)) return 0;
    struct map *sessions = &tls->trust->slots[tls->loop->index].sessions;
    if (sessions->count >= SESSIONS_MOST) forget_some_session(sessions);
    SSL_SESSION_free(map_set(sessions, session_key(tls), session));
    return 1;
}

void tls_trust_resume(struct tls_trust *t, struct tls *tls) {
    SSL_SESSION *session = map_get(&t->slots[tls->loop->index].sessions, session_key(tls));
    if (session) SSL_set_session(tls->ssl, session);
}

/* ---- contexts */

/* NULL: OpenSSL refuses our certificate. */
static SSL_CTX *make_context(const struct tls_trust *t) {
    SSL_CTX *c = SSL_CTX_new_ex(tls_library(), NULL, TLS_client_method());
    must(c != NULL);
    const struct tls_identity *id = t->identity;
    tls_context_init(c, t->versions);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c, keep_session);
    X509_STORE *roots = atomic_load(&t->roots);
    SSL_CTX_set_verify(c, t->unverified ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (roots) SSL_CTX_set1_cert_store(c, roots);
    if (!id || SSL_CTX_use_cert_and_key(c, id->leaf, id->key, id->chain, 1) == 1) return c;
    SSL_CTX_free(c);
    return NULL;
}

SSL *tls_trust_open(struct tls_trust *t, const struct loop *loop) {
    must(loop->index >= 0 && loop->index < TLS_WORKERS);
    struct trust_slot *slot = &t->slots[loop->index];
    if (!slot->context) {
        char why[128];
        if (!tls_trust_prepare(t, why, sizeof why)) log_error("%s", why); /* and trusts nobody */
        slot->context = make_context(t);
    }
    must(slot->context != NULL); /* tls_trust_get has tried it */
    SSL *ssl = SSL_new(slot->context);
    must(ssl != NULL);
    SSL_set_connect_state(ssl);
    return ssl;
}

static void empty_slot(struct trust_slot *slot) {
    struct slice key;
    void *session;
    for (size_t i = 0; map_next(&slot->sessions, &i, &key, &session);) SSL_SESSION_free(session);
    map_fini(&slot->sessions);
    SSL_CTX_free(slot->context);
    slot->context = NULL;
}

/* ---- its life */

static void trust_leave(struct tls_shared *s, const struct loop *loop) {
    struct tls_trust *t = (struct tls_trust *)s;
    for (int i = 0; i < TLS_WORKERS; i++)
        if (!loop || loop->index == i) empty_slot(&t->slots[i]);
}

static void trust_destroy(struct tls_shared *s) {
    struct tls_trust *t = (struct tls_trust *)s;
    X509_STORE_free(atomic_load(&t->roots));
    if (t->identity) tls_shared_unref(&t->identity->shared);
    free(t->pins);
    free(t);
}

static const struct tls_kind trust_kind = { .destroy = trust_destroy, .leave = trust_leave };

static bool read_settings(struct tls_trust *t, const struct tls_trust_settings *s, char *why, size_t size) {
    t->versions = s->versions;
    t->pins = must_calloc(s->pin_count + 1, sizeof *t->pins);
    for (; t->pin_count < s->pin_count; t->pin_count++) {
        if (read_pin(s->pins[t->pin_count], t->pins[t->pin_count])) continue;
        snprintf(why, size, "pins: expected \"sha256/\" and 44 characters of base64");
        return false;
    }
    char text[200];
    if (s->cert.p && !(t->identity = tls_identity_get(s->cert, s->key, slice_make(NULL, 0), why, size))) return false;
    t->unverified = s->unverified;
    X509_STORE *roots = s->ca.p ? tls_roots(s->ca, text, sizeof text) : NULL;
    if (s->ca.p && !roots) {
        snprintf(why, size, "ca: %s", text);
        return false;
    }
    atomic_init(&t->roots, roots);
    if (!t->identity) return true;
    SSL_CTX *tried = make_context(t);
    if (!tried) return tls_explain(why, size, "cert: it cannot be used");
    SSL_CTX_free(tried);
    return true;
}

static void digest_settings(const struct tls_trust_settings *s, unsigned char to[TLS_DIGEST]) {
    unsigned char roots[TLS_ROOTS_VERSION];
    struct slice system = slice_make((const char *)roots, sizeof roots);
    struct slice parts[5 + PINS_MOST] = { SLICE("trust"), s->ca.p ? s->ca : system, s->cert, s->key };
    tls_system_roots_version(roots);
    unsigned char flags[2] = { s->unverified, (unsigned char)s->versions };
    parts[4] = slice_make((const char *)flags, sizeof flags);
    for (unsigned i = 0; i < s->pin_count; i++) parts[5 + i] = s->pins[i];
    tls_digest(parts, 5 + s->pin_count, to);
}

struct tls_trust *tls_trust_get(const struct tls_trust_settings *s, char *why, size_t size) {
    unsigned char digest[TLS_DIGEST];
    if (s->pin_count > PINS_MOST) {
        snprintf(why, size, "pins: expected at most %d", PINS_MOST);
        return NULL;
    }
    digest_settings(s, digest);
    struct tls_trust *t = tls_shared_find(&trust_kind, digest);
    if (t) return t;
    t = must_calloc(1, sizeof *t);
    if (read_settings(t, s, why, size)) return tls_shared_add(&t->shared, &trust_kind, digest);
    trust_destroy(&t->shared);
    return NULL;
}

bool tls_trust_prepare(struct tls_trust *t, char *why, size_t size) {
    if (t->unverified || atomic_load(&t->roots)) return true;
    X509_STORE *roots = tls_roots(slice_make(NULL, 0), why, size), *none = NULL;
    if (!roots) return false;
    if (!atomic_compare_exchange_strong(&t->roots, &none, roots)) X509_STORE_free(roots); /* another thread did it */
    return true;
}

struct tls_trust *tls_trust_ref(struct tls_trust *t) {
    if (t) refs_take(&t->shared.refs);
    return t;
}

void tls_trust_unref(struct tls_trust *t) {
    if (t) tls_shared_unref(&t->shared);
}

struct slice tls_trust_digest(const struct tls_trust *t) {
    return slice_make((const char *)t->shared.digest, TLS_DIGEST);
}
