/* TLS: the layer between a conn's buffers and its socket, and what connections to servers trust. The only headers of
 * OpenSSL are in tls_openssl.h and the tls*.c files.
 *
 * Each thread has an OSSL_LIB_CTX of its own, made when it first needs one: threads contend on the default one. What
 * was parsed (certificates, keys, roots, trusts) is immutable, refcounted and shared by all threads; it is found by the
 * digest of its content, so that an unchanged file is never parsed twice. */
#pragma once

#include "base/failure.h"
#include "base/slice.h"

#include <sys/types.h>
#include <sys/uio.h>

struct conn;
struct loop;
struct ossl_lib_ctx_st;
struct tls;

/* This thread's OpenSSL (an OSSL_LIB_CTX), made when it is first asked for; never NULL, lives as long as the
 * process. */
struct ossl_lib_ctx_st *tls_library(void);

/* Bits of protocol versions; older ones are not spoken. */
enum tls_versions { TLS_1_2 = 1, TLS_1_3 = 2 };

/* What is offered by ALPN, and what was agreed on. */
enum tls_alpn { TLS_ALPN_NONE, TLS_ALPN_H1, TLS_ALPN_H2 /* offered: h2, else http/1.1 */ };

/* ---- Trust: what connections to servers are made with. Any thread.
 *
 * Zeroed: the server's certificate must be signed by one of the system's roots and bear the name asked for. */
struct tls_trust_settings {
    struct slice ca;        /* PEM: the only roots; p NULL: the system's */
    struct slice cert, key; /* PEM: our certificate with its chain, and its key; p NULL: none */
    const struct slice *pins;
    unsigned pin_count; /* "sha256/BASE64" of a public key, of which one must be in the server's chain */
    bool unverified;    /* any certificate is taken: only pins are looked at */
    unsigned versions;  /* enum tls_versions; 0: all */
};

struct tls_trust;

/* One reference for the caller, or NULL with a sentence in `why` that names what is wrong. */
struct tls_trust *tls_trust_get(const struct tls_trust_settings *, char *why, size_t size);
/* Reads the system's roots, if it needs them and nobody has read them yet: some 20 ms. A first connection does it, too;
 * this is for whoever has the time beforehand. False: a sentence. */
bool tls_trust_prepare(struct tls_trust *, char *why, size_t size);
bool tls_trust_verifies(const struct tls_trust *);
struct tls_trust *tls_trust_ref(struct tls_trust *); /* NULL stays NULL */
void tls_trust_unref(struct tls_trust *);            /* NULL is ignored */
/* Of its content; lives as long as it. */
struct slice tls_trust_digest(const struct tls_trust *);
/* Is it a pin as the settings take it? */
bool tls_pin_valid(struct slice);

/* ---- Certificates: what a listener or a site may show its clients. Any thread; filled first, then immutable. */

struct tls_certificates;
struct tls_certificates *tls_certificates_create(void);                   /* one reference */
struct tls_certificates *tls_certificates_ref(struct tls_certificates *); /* NULL stays NULL */
void tls_certificates_unref(struct tls_certificates *);                   /* NULL is ignored */
/* Adds one, from PEM; `key` p NULL: it stands beside the certificate. `ocsp`: an answer to be stapled, DER; p NULL:
 * none. False: a sentence that begins with "cert: ", "key: " or "ocsp: ". */
bool tls_certificates_add(struct tls_certificates *, struct slice cert, struct slice key, struct slice ocsp, char *why,
                          size_t size);
unsigned tls_certificates_count(const struct tls_certificates *);
bool tls_certificates_equal(const struct tls_certificates *, const struct tls_certificates *); /* NULL equals NULL */
/* Does one of them bear this name? Wildcards stand for one label. */
bool tls_certificates_bear(const struct tls_certificates *, struct slice name);
/* When the first of them expires, Unix seconds. */
double tls_certificates_expire(const struct tls_certificates *);
/* Has one of them an OCSP answer that held only until before `now`, Unix seconds? It is not stapled. */
bool tls_certificates_unstapled(const struct tls_certificates *, double now);
/* A certificate for development, signed by itself, for localhost: PEM, malloc'd, with its key. */
char *tls_make_internal(void);

/* ---- Service: how clients are met. Any thread; immutable, refcounted, found by content as trusts are. */

enum tls_ask { TLS_ASK_NOT, TLS_ASK_REQUEST, TLS_ASK_REQUIRE };

struct tls_service_settings {
    enum tls_alpn alpn; /* the best that is agreed to */
    unsigned versions;  /* enum tls_versions; 0: all */
    enum tls_ask ask;   /* for the client's certificate. REQUEST: one that cannot be verified is taken, and told of */
    struct slice client_ca; /* PEM: who may have signed it */
    struct slice crl;       /* PEM: revoked ones; p NULL: none */
    bool early;             /* early data is taken (RFC 8446 2.3) */
    bool kernel;            /* the kernel encrypts, if it has TLS and knows the cipher; not with `early` */
};

struct tls_service;
struct tls_service *tls_service_get(const struct tls_service_settings *, char *why, size_t size);
struct tls_service *tls_service_ref(struct tls_service *); /* NULL stays NULL */
void tls_service_unref(struct tls_service *);              /* NULL is ignored */
/* Has the kernel TLS, to encrypt itself (kTLS)? Asked once; whether it knows a cipher, too, each handshake finds out.
 * Any thread. */
bool tls_kernel_there(void);

/* ---- Conns, in their thread */

/* Makes an accepted conn's bytes pass through TLS, those that lie in `in` already included. on_hello asks for the
 * certificates, then on_connected follows, or on_broken with TLS_FAILED. The deadline is the owner's.
 *
 * With early data on_connected comes before the end of the handshake (conn_tls_early), and on_secured when it is over.
 * What is written meanwhile leaves at once; the FIN waits. */
void conn_tls_accept(struct conn *, struct tls_service *);
/* The answer to on_hello, in it or later: what to choose from (a reference is taken), for this name; or NULL: the
 * handshake ends. Safe when nothing was asked. */
void conn_tls_present(struct conn *, struct tls_certificates *, struct slice name);

/* What is known of a TLS conn, text in the arena; p NULL: nothing, or no TLS. */
enum tls_fact {
    TLS_FACT_VERSION, /* "TLSv1.3" */
    TLS_FACT_CIPHER,
    TLS_FACT_NAME, /* SNI */
    TLS_FACT_ALPN,
    /* of the client's certificate */
    TLS_FACT_SUBJECT,
    TLS_FACT_ISSUER,
    TLS_FACT_SERIAL,      /* hex */
    TLS_FACT_FINGERPRINT, /* SHA-256, hex */
    TLS_FACT_NAMES        /* "DNS:a", "email:b", one a line */
};
struct arena;
struct slice conn_tls_fact(const struct conn *, enum tls_fact, struct arena *);
bool conn_tls_resumed(const struct conn *);
bool conn_tls_in_kernel(const struct conn *); /* the kernel encrypts what is written */
/* The handshake is not over: what was read is early data, which may be a replay. */
bool conn_tls_early(const struct conn *);
bool conn_tls_early_refused(const struct conn *); /* it sent some, which was not taken: it sends it again */
bool conn_tls_verified(const struct conn *);      /* it showed a certificate, and that is good */
double conn_tls_not_after(const struct conn *);   /* of its certificate, Unix seconds; 0: it showed none */

/* Makes the conn's bytes pass through TLS, as the client: on a conn that is connecting or open, whose `in` and `out`
 * are empty. on_connected follows after the handshake, or on_broken with TLS_FAILED or CERTIFICATE; never from inside
 * this call. The deadline is the owner's. Holds a reference to the trust. `name`: the server's, a host name (sent as
 * SNI) or an address, which its certificate must bear; empty only with an unverified trust. */
void conn_tls_connect(struct conn *, struct tls_trust *, struct slice name, enum tls_alpn alpn);
/* On a stage (net/stage.h), in its place: on_connected follows as after a handshake, and bytes go plainly. */
void conn_tls_pretend(struct conn *);
/* Why the last thing about TLS failed: "certificate has expired", "wrong version number"; NULL: nothing did. Lives for
 * ever. */
const char *conn_tls_reason(const struct conn *);
enum tls_alpn conn_tls_alpn(const struct conn *); /* what was agreed on; NONE: nothing, or no TLS */
/* Frees this thread's contexts: at its end, when it has no TLS conn any more. `loop`: its own, NULL: it has none. */
void tls_thread_fini(const struct loop *);

/* Is this client's hello new, as of `now` (Unix seconds)? It is remembered. False, too, when that cannot be known. Any
 * thread. */
bool tls_replay_note(struct slice hello, double now);

/* ---- The layer, as conn.c sees it. Errors are errno's: EAGAIN: later; EPROTO: not TLS any more. */

enum tls_shake {
    TLS_SHAKE_READ,
    TLS_SHAKE_WRITE,
    TLS_SHAKE_WAIT /* for tls_present */,
    TLS_SHAKE_PLAIN /* what came is no TLS, but may be HTTP; it lies in the conn's `in`, and the layer is of no use */,
    TLS_SHAKE_DONE,
    TLS_SHAKE_FAILED
};

/* The layer of a conn that connects; the arguments are conn_tls_connect's. */
struct tls *tls_connect(struct loop *, struct tls_trust *, struct slice name, enum tls_alpn alpn);
struct tls *tls_accept(struct conn *, struct loop *, int fd, struct tls_service *);
void tls_present(struct tls *, struct tls_certificates *, struct slice name);
/* Begins the handshake, or goes on with it; FAILED: `*why`. */
enum tls_shake tls_shake(struct tls *, int fd, enum failure *why);
/* As readv. 0: the other side said that it ends (close_notify), or its FIN came without that (tls_truncated). */
ssize_t tls_pull(struct tls *, const struct iovec *, int count);
/* As sendmsg, but what it says to have written has left for the socket, encrypted. Bytes it did not take must come
 * again as they were, with more behind them or not. */
ssize_t tls_push(struct tls *, const struct iovec *, int count);
/* Bytes have been read from the socket that tls_pull has not yet given: no event will tell of them. */
bool tls_has_more(const struct tls *);
/* Encrypted bytes wait for the socket: tls_push writes them, also without vectors. */
bool tls_owes(const struct tls *);
bool tls_truncated(const struct tls *);
bool tls_is_early(const struct tls *); /* the handshake is not over, though bytes go */
/* Says that we send no more (close_notify), once; false if it was said before. */
bool tls_say_end(struct tls *);
void tls_mute(struct tls *); /* it will not be said */
const char *tls_reason(const struct tls *);
enum tls_alpn tls_agreed(const struct tls *);
void tls_destroy(struct tls *); /* NULL is ignored; without a word to the other side */
