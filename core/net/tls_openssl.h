/* What the tls*.c files share: OpenSSL's types. Nobody else includes it. */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"
#include "net/loop.h"
#include "net/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>

enum { TLS_WORKERS = 64, TLS_DIGEST = 32 };

/* Of one context, either side. */
void tls_context_init(SSL_CTX *, unsigned versions);

/* ---- tls_store.c: contexts, and what was parsed */

/* What OpenSSL complained of last, in words that live for ever; clears its queue. NULL: of nothing. */
const char *tls_error(void);
/* Writes a sentence about it into `why`, after WHAT and a colon. Returns NULL. */
void *tls_explain(char *why, size_t size, const char *what);

/* Something parsed. Immutable, refcounted, found by its digest; the first member of what is shared. */
struct tls_shared {
    const struct tls_kind *kind;
    _Atomic unsigned refs;
    unsigned char digest[TLS_DIGEST];
};

struct tls_kind {
    void (*destroy)(struct tls_shared *);
    /* Frees what it keeps of a thread that ends, which others will not touch, or (loop NULL) of all of them. Called
     * under the registry's lock, so that no thread's context goes before what was made with it. NULL: it keeps
     * nothing. */
    void (*leave)(struct tls_shared *, const struct loop *);
};

/* The digest of a list of slices; which of them a byte belongs to counts, and NULL differs from empty. */
void tls_digest(const struct slice *parts, size_t count, unsigned char to[TLS_DIGEST]);
/* A reference to what is known under this digest, or NULL. */
void *tls_shared_find(const struct tls_kind *, const unsigned char digest[TLS_DIGEST]);
/* Makes it known with one reference, the caller's. If somebody else was faster, that one is returned, and this one
 * destroyed. */
void *tls_shared_add(struct tls_shared *, const struct tls_kind *, const unsigned char digest[TLS_DIGEST]);
void tls_shared_unref(struct tls_shared *); /* NULL is ignored */

/* A certificate with its chain and its key. */
struct tls_identity {
    struct tls_shared shared;
    X509 *leaf;
    STACK_OF(X509) * chain; /* never NULL */
    EVP_PKEY *key;
    unsigned char *ocsp; /* stapled; NULL: none */
    long ocsp_size;
    double ocsp_until;   /* Unix seconds: when the answer is due for another; 0: it does not say */
    double expires;      /* Unix seconds */
    struct arena arena;  /* of the names */
    struct slice *names; /* "a.test", "*.b.test": host names it bears, lower case */
    unsigned name_count;
};
/* From PEM; a reference, or NULL with a sentence. `key` p NULL: it stands beside the certificate. */
struct tls_identity *tls_identity_get(struct slice cert, struct slice key, struct slice ocsp, char *why, size_t size);

/* A store with the certificates of a PEM file, or with the system's (p NULL); to be freed with X509_STORE_free. NULL:
 * a sentence. */
X509_STORE *tls_roots(struct slice pem, char *why, size_t size);
/* Changes when the system's roots do. */
enum { TLS_ROOTS_VERSION = 32 };
void tls_system_roots_version(unsigned char to[TLS_ROOTS_VERSION]);

/* ---- tls_trust.c */

struct tls;

/* A client's session in the worker's context of this trust. */
SSL *tls_trust_open(struct tls_trust *, const struct loop *);
/* Takes up a former session of this worker with the same server, if there is one. */
void tls_trust_resume(struct tls_trust *, struct tls *);
/* Has the server one of the keys it must have? */
bool tls_trust_pinned(const struct tls_trust *, const SSL *);

/* ---- tls_certificates.c */

/* Those to be shown to a client that asks for `name`: at most one for each kind of key. Their number. */
enum { TLS_SHOWN = 3 };
unsigned tls_certificates_choose(const struct tls_certificates *, struct slice name,
                                 const struct tls_identity *shown[TLS_SHOWN]);

/* ---- tls_service.c, tls_tickets.c */

/* A server's session in the worker's context of this service. */
SSL *tls_service_open(struct tls_service *, const struct loop *);
bool tls_service_takes_early(const struct tls_service *);
bool tls_service_in_kernel(const struct tls_service *); /* the kernel is to encrypt, where it can */
/* Tickets of this context are sealed with keys that all threads share, and that change. */
void tls_tickets_use(SSL_CTX *);
void tls_tickets_leave(void); /* at the end of a thread */

/* ---- tls_replay.c */

/* Early data is taken once: by this context only from clients whose hello has not come before. */
void tls_replay_use(SSL_CTX *);

/* ---- tls.c: the layer of one conn */

/* What a server needs until the handshake is over. */
struct tls_hello {
    struct conn *conn; /* who is asked for certificates */
    enum { HELLO_UNHEARD, HELLO_PLAIN, HELLO_NEW, HELLO_ASKED, HELLO_PRESENTED, HELLO_REFUSED } state;
    struct tls_certificates *certificates; /* a reference; NULL: none yet */
    char *name;                            /* that they are shown for */
    const struct tls_identity *shown[TLS_SHOWN];
    unsigned shown_count;
};
/* OpenSSL's callback: a certificate is wanted. */
int tls_on_hello(SSL *, void *);

struct tls {
    SSL *ssl;
    struct loop *loop;
    struct tls_trust *trust;     /* a reference; NULL: the server's side */
    struct tls_service *service; /* a reference; NULL: the client's side */
    struct tls_hello *hello;     /* the server's side, during its handshake; NULL: none */
    const char *reason;          /* of the last failure */
    struct buffer unsent;        /* encrypted */
    struct buffer received;      /* encrypted, received before there was a layer */
    size_t taken;                /* bytes of the last push that lie in `unsent` and were not yet said to be written */
    int fd, error;               /* fd -1: not begun; error: the socket's errno, once it failed */
    /* Early data: it may come; it comes; all of it came, but the handshake is not over; else none. */
    enum { EARLY_NONE, EARLY_AWAITED, EARLY_COMES, EARLY_CAME } early;
    struct buffer ahead; /* early data that the handshake came upon */
    bool corked;         /* what OpenSSL writes is collected in `unsent` */
    bool eof;            /* the socket's FIN was read */
    bool more, truncated, said_end;
    bool shaken;                           /* the handshake is over */
    bool in_kernel;                        /* the kernel encrypts what is written */
    bool owes_end;                         /* in_kernel: close_notify waits for room */
    unsigned char session_key[TLS_DIGEST]; /* name and address: under which its session may be taken up again */
};

/* The layer that an SSL of ours belongs to. */
struct tls *tls_of(const SSL *);

/* ---- its socket (tls_bio.c) */
/* Before the handshake. `kernel`: the kernel gets the keys for what is written, if it can. */
void tls_bio_attach(struct tls *, bool kernel);
/* Sends what it can of `unsent`. False if the socket failed. */
bool tls_send_unsent(struct tls *);
