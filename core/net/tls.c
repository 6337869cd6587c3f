/* The layer between a conn and its socket.
 *
 * OpenSSL reads and writes the socket through a BIO of ours, so that writes raise no SIGPIPE, several records leave by
 * one call, and the hard build can cut bytes anywhere. Memory BIOs, the other way, would copy every byte once more.
 *
 * Reading takes as much from the socket as OpenSSL's buffer holds (read ahead): a record costs one call, not two. What
 * is left in that buffer no event announces; tls_has_more says so, and the conn comes again.
 *
 * Writing: a small push is gathered into one record and goes straight to the socket. A larger one makes several
 * records, which are collected and leave together. What the socket refuses stays encrypted in `unsent`; its plain bytes
 * count as written only when all of it has left. So `out` of a conn is empty when nothing is owed to the other side,
 * with TLS as without, and nobody above needs to know of bytes in between. OpenSSL could hold the unsent record itself,
 * but only one, and wants it written again with the same bytes.
 *
 * The kernel may encrypt instead (kTLS, where the service asks for it and the kernel can). Then OpenSSL hands it the
 * keys at the end of the handshake, over a socket BIO of its own that stands behind ours, and what is written goes to
 * the socket as it is: referenced memory is read once, where it lies. OpenSSL still reads, and still says what is no
 * content: tickets, alerts, close_notify. Two things are lost. Keys cannot be changed any more: a client that asks for
 * new ones (KeyUpdate, RFC 8446 4.6.3) is sent away, since OpenSSL would go on with keys that the kernel does not have.
 * And the kernel says to have written what it only holds back for want of room, and forgets it when the socket closes;
 * so close_notify, which leaves after it, waits until there is room for both (end_in_kernel).
 *
 * Early data. A conn whose client takes up a session with requests in its first flight opens before the handshake is
 * over (tls_is_early): reading goes on with the handshake by itself, and what is written goes to a client of whom
 * only the session is known. close_notify cannot be said until the end of it.
 *
 * The buffers go back to malloc whenever they are empty (SSL_MODE_RELEASE_BUFFERS): an idle session keeps none.
 *
 * A FIN without close_notify is an end like any other to OpenSSL here (SSL_OP_IGNORE_UNEXPECTED_EOF), else nothing
 * could be written any more; that it was a truncation is remembered, for whoever delimits a body by it. */
#include "base/must.h"
#include "base/slab.h"
#include "net/conn.h"
#include "net/tls_openssl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

enum { RECORD = SSL3_RT_MAX_PLAIN_LENGTH, PUSH_MOST = 4 * RECORD, LAST_VECTORS = 16 };

static _Thread_local struct slab layers = SLAB(struct tls, 64);

void tls_context_init(SSL_CTX *c, unsigned versions) {
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_read_ahead(c, 1);
    SSL_CTX_set_min_proto_version(c, versions == TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(c, versions == TLS_1_2 ? TLS1_2_VERSION : TLS1_3_VERSION);
}

/* ---- failures */

static const char *describe(struct tls *t) {
    const char *error = tls_error();
    if (error) return error;
    if (t->error) return strerrordesc_np(t->error);
    return t->eof ? "the connection was closed in the middle" : "unknown error";
}

static enum failure judge_handshake(struct tls *t) {
    long verified = SSL_get_verify_result(t->ssl);
    if (t->hello && t->hello->state == HELLO_REFUSED) {
        ERR_clear_error();
        t->reason = "there is no certificate for it";
        return FAIL_TLS_FAILED;
    }
    if (verified == X509_V_OK || !t->trust || !tls_trust_verifies(t->trust)) {
        t->reason = describe(t);
        return FAIL_TLS_FAILED;
    }
    ERR_clear_error();
    t->reason = X509_verify_cert_error_string(verified);
    return FAIL_CERTIFICATE;
}

/* ---- the handshake */

/* What a server needs no more is not kept for as long as the client stays. */
static void forget_hello(struct tls *t) {
    if (!t->hello) return;
    SSL_certs_clear(t->ssl);
    tls_certificates_unref(t->hello->certificates);
    free(t->hello->name);
    free(t->hello);
    t->hello = NULL;
}

static enum tls_shake finish_handshake(struct tls *t, enum failure *why) {
    forget_hello(t);
    if (t->trust && !tls_trust_pinned(t->trust, t->ssl)) {
        t->reason = "none of its keys is pinned";
        *why = FAIL_CERTIFICATE;
        return TLS_SHAKE_FAILED;
    }
    t->shaken = true;
    t->in_kernel = BIO_get_ktls_send(SSL_get_wbio(t->ssl));
    t->more = SSL_has_pending(t->ssl);
    return TLS_SHAKE_DONE;
}

/* A session is taken up again only with the same server: its name, which is digested already, and its address. */
static void name_session(struct tls *t) {
    struct addr addr = { .size = sizeof addr.u };
    if (getpeername(t->fd, &addr.u.sa, &addr.size) != 0 || addr.size > sizeof addr.u) addr.size = 0;
    struct slice parts[] = { slice_make((const char *)t->session_key, TLS_DIGEST),
                             slice_make((const char *)&addr.u, addr.size) };
    tls_digest(parts, 2, t->session_key);
}

static enum tls_shake fail_handshake(struct tls *t, enum failure *why) {
    *why = judge_handshake(t);
    return TLS_SHAKE_FAILED;
}

/* As SSL_do_handshake; 1 also when early data has come, with which the conn can begin. */
static int shake_on(struct tls *t) {
    char bytes[4096];
    size_t n = 0;
    if (t->early == EARLY_NONE) return SSL_do_handshake(t->ssl);
    int r = SSL_read_early_data(t->ssl, bytes, sizeof bytes, &n);
    if (r == SSL_READ_EARLY_DATA_ERROR) return 0;
    t->early = r == SSL_READ_EARLY_DATA_SUCCESS ? EARLY_COMES : EARLY_NONE;
    if (t->early == EARLY_NONE) return SSL_do_handshake(t->ssl);
    buffer_append(&t->ahead, bytes, n);
    return 1;
}

enum tls_shake tls_shake(struct tls *t, int fd, enum failure *why) {
    bool first = t->fd < 0;
    t->fd = fd;
    if (first && t->trust) {
        name_session(t);
        tls_trust_resume(t->trust, t);
    }
    *why = FAIL_TLS_FAILED;
    if (t->reason) return TLS_SHAKE_FAILED;
    if (!tls_send_unsent(t)) return fail_handshake(t, why);
    ERR_clear_error();
    int r = shake_on(t);
    if (r == 1 && t->early == EARLY_COMES) {
        t->more = true;
        return TLS_SHAKE_DONE;
    }
    if (r == 1) return finish_handshake(t, why);
    int error = SSL_get_error(t->ssl, r);
    if (error == SSL_ERROR_WANT_X509_LOOKUP) return TLS_SHAKE_WAIT;
    if (t->hello && t->hello->state == HELLO_PLAIN) return TLS_SHAKE_PLAIN;
    if (error == SSL_ERROR_WANT_WRITE) return TLS_SHAKE_WRITE;
    if (error != SSL_ERROR_WANT_READ) return fail_handshake(t, why);
    return t->unsent.size ? TLS_SHAKE_WRITE : TLS_SHAKE_READ;
}

/* ---- reading */

/* A socket that failed is no matter of TLS. */
static ssize_t fail_layer(struct tls *t) {
    if (!t->error) t->reason = describe(t);
    ERR_clear_error();
    errno = t->error ? t->error : EPROTO;
    return -1;
}

/* SSL_read has given nothing; `sum` bytes came before. What is no passing matter is found again by the next pull. */
static ssize_t end_pull(struct tls *t, size_t sum) {
    int error = SSL_get_error(t->ssl, 0);
    t->more = sum > 0 && error != SSL_ERROR_WANT_READ;
    if (sum > 0) return (ssize_t)sum;
    if (error == SSL_ERROR_WANT_READ) {
        errno = EAGAIN;
        return -1;
    }
    if (error == SSL_ERROR_ZERO_RETURN) {
        t->truncated = t->eof;
        return 0;
    }
    return fail_layer(t);
}

static void end_early(struct tls *t) {
    t->early = EARLY_NONE;
    t->shaken = true;
    forget_hello(t);
}

/* As SSL_read_ex, which also goes on with a handshake that early data has overtaken. */
static int read_on(struct tls *t, char *to, size_t room, size_t *n) {
    if (t->ahead.size) {
        *n = t->ahead.size < room ? t->ahead.size : room;
        buffer_peek(&t->ahead, to, *n);
        buffer_drop(&t->ahead, *n);
        return 1;
    }
    if (t->early == EARLY_COMES) {
        int r = SSL_read_early_data(t->ssl, to, room, n);
        if (r != SSL_READ_EARLY_DATA_FINISH) return r == SSL_READ_EARLY_DATA_SUCCESS;
        t->early = EARLY_CAME;
    }
    int r = SSL_read_ex(t->ssl, to, room, n);
    if (t->early == EARLY_CAME && SSL_is_init_finished(t->ssl)) end_early(t);
    return r;
}

static bool has_pending(const struct tls *t) { return t->ahead.size || SSL_has_pending(t->ssl); }

static ssize_t pull(struct tls *t, const struct iovec *v, int count) {
    size_t sum = 0;
    ERR_clear_error();
    for (int i = 0; i < count; i++) {
        for (size_t at = 0, n; at < v[i].iov_len; at += n, sum += n) {
            if (sum && !has_pending(t)) {
                t->more = false;
                return (ssize_t)sum;
            }
            if (read_on(t, (char *)v[i].iov_base + at, v[i].iov_len - at, &n) != 1) return end_pull(t, sum);
        }
    }
    t->more = has_pending(t);
    return (ssize_t)sum;
}

ssize_t tls_pull(struct tls *t, const struct iovec *v, int count) {
    ssize_t n = pull(t, v, count);
    if (!t->in_kernel || SSL_get_key_update_type(t->ssl) == SSL_KEY_UPDATE_NONE) return n;
    t->reason = "it asks for new keys, which the kernel cannot change";
    errno = EPROTO;
    return -1;
}

bool tls_has_more(const struct tls *t) { return t->more; }
bool tls_truncated(const struct tls *t) { return t->truncated; }
bool tls_is_early(const struct tls *t) { return t->early >= EARLY_COMES; }

/* ---- writing */

/* Where the encryption of a list of vectors stands. */
struct plain {
    const struct iovec *v;
    int count;
    size_t at; /* in v[0] */
};

static void skip_plain(struct plain *p, size_t n) {
    while (p->count && n >= p->v->iov_len - p->at) {
        n -= p->v->iov_len - p->at;
        p->v++;
        p->count--;
        p->at = 0;
    }
    p->at += n;
}

/* What makes the next record: one piece where it fills a record or is the last, else several, gathered. */
static struct slice next_record(const struct plain *p, char gathered[RECORD]) {
    struct slice first = { (const char *)p->v->iov_base + p->at, p->v->iov_len - p->at };
    if (first.n > RECORD) first.n = RECORD;
    if (first.n == RECORD || p->count == 1) return first;
    struct plain rest = *p;
    size_t n = 0;
    while (rest.count && n < RECORD) {
        size_t piece = rest.v->iov_len - rest.at;
        if (piece > RECORD - n) piece = RECORD - n;
        memcpy(gathered + n, (const char *)rest.v->iov_base + rest.at, piece);
        n += piece;
        skip_plain(&rest, piece);
    }
    return slice_make(gathered, n);
}

/* As SSL_write_ex. Who sent early data is answered before his handshake is over, which is what it is for. */
static int write_on(struct tls *t, struct slice bytes, size_t *n) {
    return tls_is_early(t) ? SSL_write_early_data(t->ssl, bytes.p, bytes.n, n)
                           : SSL_write_ex(t->ssl, bytes.p, bytes.n, n);
}

/* Encrypts up to PUSH_MOST bytes; returns how many. */
static size_t encrypt(struct tls *t, struct plain *p) {
    static _Thread_local char gathered[RECORD];
    size_t done = 0, n;
    while (p->count && done < PUSH_MOST) {
        struct slice record = next_record(p, gathered);
        if (record.n && write_on(t, record, &n) != 1) break;
        if (!record.n) n = 0;
        skip_plain(p, n);
        done += n;
    }
    return done;
}

static size_t sum_vectors(const struct plain *p) {
    size_t sum = 0;
    for (int i = 0; i < p->count; i++) sum += p->v[i].iov_len;
    return sum - (p->count ? p->at : 0);
}

/* Says close_notify, if there is room for it and for what the kernel may hold back; else it is still owed. */
static void end_in_kernel(struct tls *t) {
    struct pollfd room = { .fd = t->fd, .events = POLLOUT };
    t->owes_end = poll(&room, 1, 0) == 0 || (SSL_shutdown(t->ssl) < 0 && SSL_want_write(t->ssl));
    ERR_clear_error();
}

static ssize_t push_to_kernel(struct tls *t, const struct iovec *v, int count) {
    if (t->owes_end) end_in_kernel(t);
    if (count == 0) return 0;
    struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = (size_t)count };
    return sendmsg(t->fd, &message, MSG_NOSIGNAL);
}

ssize_t tls_push(struct tls *t, const struct iovec *v, int count) {
    if (t->in_kernel) return push_to_kernel(t, v, count);
    if (!tls_send_unsent(t)) return fail_layer(t);
    if (t->unsent.size) {
        errno = EAGAIN;
        return -1;
    }
    size_t written = t->taken;
    struct plain plain = { .v = v, .count = count };
    t->taken = 0;
    skip_plain(&plain, written);
    size_t left = sum_vectors(&plain);
    if (left == 0) return (ssize_t)written;
    ERR_clear_error();
    t->corked = left > RECORD;
    size_t done = encrypt(t, &plain);
    t->corked = false;
    if (!tls_send_unsent(t) || (done == 0 && t->unsent.size == 0)) return fail_layer(t);
    if (t->unsent.size == 0) return (ssize_t)(written + done);
    t->taken = done;
    if (written) return (ssize_t)written;
    errno = EAGAIN;
    return -1;
}

bool tls_owes(const struct tls *t) { return t->unsent.size > 0 || t->owes_end; }

/* ---- ends */

bool tls_say_end(struct tls *t) {
    if (t->said_end || !t->shaken || t->error) return false;
    t->said_end = true;
    ERR_clear_error();
    if (t->in_kernel) end_in_kernel(t);
    else SSL_shutdown(t->ssl);
    ERR_clear_error();
    return true;
}

void tls_mute(struct tls *t) { t->said_end = true; }

/* The reason why it ends (an alert, close_notify), if the socket takes it now. */
static void send_last(struct tls *t) {
    struct iovec v[LAST_VECTORS];
    if (!t->unsent.size || t->error) return;
    struct msghdr message = { .msg_iov = v };
    message.msg_iovlen = (size_t)buffer_vectors(&t->unsent, v, LAST_VECTORS);
    (void)!sendmsg(t->fd, &message, MSG_NOSIGNAL);
}

/* OpenSSL forgets the session of a connection that was not shut down as it would have it; that is of no use any more
 * with TLS 1.3, nor is it a reason. */
void tls_destroy(struct tls *t) {
    if (!t) return;
    send_last(t);
    SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t->ssl);
    buffer_fini(&t->unsent);
    buffer_fini(&t->ahead);
    buffer_fini(&t->received);
    forget_hello(t);
    tls_trust_unref(t->trust);
    tls_service_unref(t->service);
    slab_give(&layers, t);
}

/* ---- beginning one, as a client */

static bool set_name(struct tls *t, struct slice name) {
    char text[256];
    if (name.n && name.p[name.n - 1] == '.') name.n--;
    if (name.n == 0) return !tls_trust_verifies(t->trust);
    if (name.n >= sizeof text || memchr(name.p, 0, name.n)) return false;
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    struct addr addr;
    if (addr_from_ip(&addr, name, 0)) return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), text);
    SSL_set_hostflags(t->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(t->ssl, text) && SSL_set_tlsext_host_name(t->ssl, text);
}

static void offer_alpn(struct tls *t, enum tls_alpn alpn) {
    static const unsigned char both[] = "\2h2\10http/1.1";
    if (alpn == TLS_ALPN_H1) SSL_set_alpn_protos(t->ssl, both + 3, sizeof both - 4);
    if (alpn == TLS_ALPN_H2) SSL_set_alpn_protos(t->ssl, both, sizeof both - 1);
}

struct tls *tls_connect(struct loop *loop, struct tls_trust *trust, struct slice name, enum tls_alpn alpn) {
    struct tls *t = slab_take_zeroed(&layers);
    t->loop = loop;
    t->fd = -1;
    t->trust = tls_trust_ref(trust);
    t->ssl = tls_trust_open(trust, loop);
    tls_digest(&name, 1, t->session_key);
    tls_bio_attach(t, false);
    offer_alpn(t, alpn);
    if (!set_name(t, name)) t->reason = "there is no name that its certificate could bear";
    return t;
}

/* ---- and as a server */

/* What the conn has read already is the beginning of the handshake. */
struct tls *tls_accept(struct conn *conn, struct loop *loop, int fd, struct tls_service *service) {
    struct tls *t = slab_take_zeroed(&layers);
    t->loop = loop;
    t->fd = fd;
    t->service = tls_service_ref(service);
    t->ssl = tls_service_open(service, loop);
    t->hello = must_calloc(1, sizeof *t->hello);
    t->hello->conn = conn;
    if (tls_service_takes_early(service)) t->early = EARLY_AWAITED;
    buffer_move(&t->received, &conn->in, conn->in.size);
    tls_bio_attach(t, tls_service_in_kernel(service));
    return t;
}

static bool show_certificates(struct tls *t) {
    struct tls_hello *h = t->hello;
    h->shown_count = tls_certificates_choose(h->certificates, slice_of(h->name), h->shown);
    for (unsigned i = 0; i < h->shown_count; i++) {
        const struct tls_identity *id = h->shown[i];
        if (SSL_use_cert_and_key(t->ssl, id->leaf, id->key, id->chain, 1) != 1) return false;
    }
    return h->shown_count > 0;
}

/* Returns as OpenSSL wants it: 1: go on; 0: the handshake ends; -1: wait. */
int tls_on_hello(SSL *ssl, void *with) {
    struct tls *t = tls_of(ssl);
    struct tls_hello *h = t->hello;
    if (h->state == HELLO_NEW) {
        h->state = HELLO_ASKED;
        h->conn->handlers->on_hello(h->conn, slice_of(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)));
    }
    if (h->state == HELLO_PRESENTED) return show_certificates(t);
    return h->state == HELLO_REFUSED ? 0 : -1;
}

void tls_present(struct tls *t, struct tls_certificates *certificates, struct slice name) {
    struct tls_hello *h = t->hello;
    if (!h || h->state != HELLO_ASKED) return;
    h->state = certificates ? HELLO_PRESENTED : HELLO_REFUSED;
    h->certificates = tls_certificates_ref(certificates);
    h->name = must_strndup(name.n ? name.p : "", name.n);
}

const char *tls_reason(const struct tls *t) { return t->reason; }

enum tls_alpn tls_agreed(const struct tls *t) {
    const unsigned char *p;
    unsigned n;
    SSL_get0_alpn_selected(t->ssl, &p, &n);
    struct slice agreed = slice_make((const char *)p, n);
    if (slice_equal(agreed, SLICE("h2"))) return TLS_ALPN_H2;
    return slice_equal(agreed, SLICE("http/1.1")) ? TLS_ALPN_H1 : TLS_ALPN_NONE;
}
