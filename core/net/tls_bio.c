/* The socket, as OpenSSL sees it: a BIO that reads what came before the handshake first, and that never refuses what
 * OpenSSL wants written: what the socket does not take waits in `unsent` (tls.c tells why). Where the kernel may
 * encrypt, a socket BIO of OpenSSL's own stands behind ours for writing, over which it hands over the keys and writes
 * what is no content. */
#include "base/must.h"
#include "net/conn.h"
#include "net/tls_openssl.h"

#include <errno.h>
#include <pthread.h>

enum { UNSENT_MOST = 16 * SSL3_RT_MAX_PLAIN_LENGTH, UNSENT_VECTORS = 16 };

static bool is_passing(int error) { return error == EAGAIN || error == EINTR; }

static ssize_t take(struct tls *t, char *to, size_t n) {
    if (t->received.size == 0) return recv(t->fd, to, n, 0);
    if (n > t->received.size) n = t->received.size;
    buffer_peek(&t->received, to, n);
    buffer_drop(&t->received, n);
    return (ssize_t)n;
}

#ifdef MOONGATE_HARD
/* Single bytes, and every other attempt comes too early. */
static ssize_t receive(struct tls *t, char *to, size_t n) {
    static _Thread_local bool early;
    early = !early;
    errno = EAGAIN;
    return early ? -1 : take(t, to, n < 1 ? n : 1);
}
static size_t cut_share(size_t n) { return n < 5 ? n : 5; }
#else
static ssize_t receive(struct tls *t, char *to, size_t n) { return take(t, to, n); }
static size_t cut_share(size_t n) { return n; }
#endif

/* The first bytes of a client: TLS begins with 22; a capital letter begins a request (or SMTP), which whoever sent it
 * had better be told about in his own words. */
static bool hear_first(struct tls_hello *h, struct slice bytes) {
    bool plain = *bytes.p >= 'A' && *bytes.p <= 'Z';
    h->state = plain ? HELLO_PLAIN : HELLO_NEW;
    if (plain) buffer_append(&h->conn->in, bytes.p, bytes.n);
    return !plain;
}

static int bio_read(BIO *bio, char *to, size_t n, size_t *got) {
    struct tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t r = receive(t, to, n);
    *got = r > 0 ? (size_t)r : 0;
    bool first = r > 0 && t->hello && t->hello->state == HELLO_UNHEARD;
    if (first && !hear_first(t->hello, slice_make(to, *got))) return -1;
    if (r > 0) return 1;
    if (r == 0) t->eof = true;
    else if (is_passing(errno)) BIO_set_retry_read(bio);
    else t->error = errno;
    return r == 0 ? 0 : -1;
}

bool tls_send_unsent(struct tls *t) {
    struct iovec v[UNSENT_VECTORS];
    while (t->unsent.size) {
        struct msghdr message = { .msg_iov = v };
        message.msg_iovlen = (size_t)buffer_vectors(&t->unsent, v, UNSENT_VECTORS);
        if (cut_share(SIZE_MAX) != SIZE_MAX) {
            message.msg_iovlen = 1;
            v[0].iov_len = cut_share(v[0].iov_len);
        }
        ssize_t n = sendmsg(t->fd, &message, MSG_NOSIGNAL);
        if (n >= 0) buffer_drop(&t->unsent, (size_t)n);
        else if (is_passing(errno)) return true;
        else t->error = errno;
        if (n < 0) return false;
        if (cut_share(SIZE_MAX) != SIZE_MAX) return true;
    }
    return true;
}

/* What OpenSSL itself has to say when the kernel encrypts; the socket BIO knows what kind of record it is to be. */
static int write_through(BIO *bio, struct tls *t, const char *from, size_t n, size_t *wrote) {
    int r = BIO_write_ex(BIO_next(bio), from, n, wrote);
    BIO_copy_next_retry(bio);
    if (r != 1 && !BIO_should_retry(bio)) t->error = errno;
    return r;
}

/* Takes everything, unless the other side makes us answer (key updates, alerts) and does not read: then the conn
 * fails. */
static int bio_write(BIO *bio, const char *from, size_t n, size_t *wrote) {
    struct tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (BIO_next(bio) && BIO_get_ktls_send(BIO_next(bio))) return write_through(bio, t, from, n, wrote);
    *wrote = n;
    if (t->error || t->unsent.size > UNSENT_MOST) return -1;
    size_t sent = 0;
    if (!t->corked && !t->unsent.size) {
        ssize_t r = send(t->fd, from, cut_share(n), MSG_NOSIGNAL);
        if (r < 0 && !is_passing(errno)) {
            t->error = errno;
            return -1;
        }
        sent = r > 0 ? (size_t)r : 0;
    }
    if (sent < n) buffer_append(&t->unsent, from + sent, n - sent);
    return 1;
}

/* Nothing may be on its way here when the kernel gets the keys, or it would leave encrypted twice. */
static long flush_before_kernel(BIO *bio, struct tls *t) {
    BIO_clear_retry_flags(bio);
    if (tls_send_unsent(t) && t->unsent.size == 0) return 1;
    if (!t->error) BIO_set_retry_write(bio);
    return -1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer) {
    struct tls *t = BIO_get_data(bio);
    BIO *next = BIO_next(bio);
    if (command == BIO_CTRL_EOF) return t->eof;
    if (command == BIO_CTRL_DUP) return 1;
    if (command == BIO_CTRL_FLUSH) return next ? flush_before_kernel(bio, t) : 1;
    return next ? BIO_ctrl(next, command, number, pointer) : 0;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void) {
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "conn");
    must(bio_method && BIO_meth_set_read_ex(bio_method, bio_read) && BIO_meth_set_write_ex(bio_method, bio_write) &&
         BIO_meth_set_ctrl(bio_method, bio_control));
}

static BIO *make_bio(struct tls *t) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_bio_method);
    BIO *bio = BIO_new(bio_method);
    must(bio != NULL);
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    return bio;
}

/* Two of them, since the kernel is only to get the keys for what we write: OpenSSL 3.0 cannot let it decrypt TLS
 * 1.3. */
static void attach_for_kernel(struct tls *t) {
    BIO *socket = BIO_new_socket(t->fd, BIO_NOCLOSE);
    must(socket != NULL);
    SSL_set_bio(t->ssl, make_bio(t), BIO_push(make_bio(t), socket));
}

void tls_bio_attach(struct tls *t, bool kernel) {
    if (kernel) {
        attach_for_kernel(t);
        return;
    }
    BIO *bio = make_bio(t);
    SSL_set_bio(t->ssl, bio, bio);
}

struct tls *tls_of(const SSL *ssl) {
    return BIO_get_data(SSL_get_rbio(ssl));
}
