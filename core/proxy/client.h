/* A client: an accepted connection and its protocol. It reads heads and begins an exchange for each, carries the
 * request body into the exchange's pipe and the answer out (stream.h). It holds its listener, never a generation.
 *
 * client.c accepts and closes; client_proxy.c takes PROXY headers; admission.c asks on_connect; client_tls.c shakes hands; client_h1.c and
 * client_h2.c are the protocols. */
#pragma once

#include "http/h1.h"
#include "net/conn.h"
#include "proxy/stream.h"
#include "proxy/worker.h"

/* What a protocol does for client.c. */
struct client_protocol {
    const struct conn_handlers *handlers;
    /* The conn is open, and its handlers are these. What it has read already lies in conn.in. */
    void (*begin)(struct client *);
    /* The worker drains: a client without requests is closed, others are told that theirs are the last. */
    void (*drain)(struct client *);
    /* The client was closed: its exchanges are told (exchange_client_left). */
    void (*leave)(struct client *);
};
extern const struct client_protocol client_proxy, client_admission, client_tls, client_h1, client_h2;

struct h2_client; /* client_h2.c's own */

enum h1_state {
    H1_IDLE,     /* between requests */
    H1_HEAD,     /* a head has begun to come */
    H1_EXCHANGE, /* an exchange is under way */
    H1_TUNNEL,   /* bytes both ways, as they are */
    H1_LINGER    /* last bytes leave, then it closes */
};

/* HTTP/1: one exchange at a time, in order. */
struct h1_client {
    struct stream stream;
    struct h1_scan scan;
    struct h1_body body;    /* of the present request */
    uint8_t state;          /* enum h1_state */
    bool keep_alive;        /* after the present exchange */
    bool last_request;      /* the client said that no other follows (Connection: close, or HTTP/1.0) */
    bool chunked;           /* the answer's body is written in chunks */
    uint32_t requests;      /* so far */
    uint64_t mark;          /* bytes moved either way when the deadline was set */
    struct pipe *tunnel_up; /* H1_TUNNEL: where its bytes go; NULL: ended */
};

struct client {
    struct conn conn;
    struct list node; /* in worker->clients */
    struct grave grave;
    struct listener *listener;
    struct addr addr; /* the other side, as accepted, or as a PROXY header says */
    const struct client_protocol *protocol;
    bool closed;
    bool misplaced;              /* it speaks HTTP where its listener speaks TLS: it is told so */
    bool may_speak_h2;           /* its listener takes HTTP/2 with prior knowledge */
    struct admission *admission; /* policy is asked whether it may come in; NULL: it is not */
    struct handshake *handshake; /* policy is asked for a certificate; NULL: it is not */
    struct generation *met;      /* during a TLS handshake: the one that accepted it, a reference; else NULL */
    struct h1_client h1;
    struct h2_client *h2; /* NULL: it does not speak HTTP/2 */
};

/* Makes a client of an accepted socket. */
void client_accept(struct ear *, int fd, const struct addr *peer);
void client_drain(struct client *);
/* Closes now, whatever happens. Idempotent. */
void client_close(struct client *);

/* -- for the protocols */
/* Its address is known, and nothing stands before what it speaks but the question whether it may come in. */
void client_greet(struct client *);
/* What it speaks first: TLS, or what its first bytes tell. */
const struct client_protocol *client_first_protocol(struct client *);
static inline struct worker *client_worker(const struct client *c) { return worker_of(c->conn.loop); }
static inline struct client *client_of_conn(struct conn *c) { return container_of(c, struct client, conn); }
/* What the generation that serves says of its listener; NULL: nothing does. */
const struct host_table *client_table(const struct client *);
/* What the config shows to who asks for `name`; NULL: nothing. */
struct tls_certificates *client_certificates(const struct client *, struct slice name);
/* "https" or "http": how the client speaks to us. */
static inline struct slice client_scheme(const struct client *c) {
    return c->conn.tls ? SLICE("https") : SLICE("http");
}
/* From now on it speaks `protocol`. */
void client_begin(struct client *, const struct client_protocol *protocol);
/* What holds before a site is known: the limits and times of the listener's first site. */
const struct timeouts *client_timeouts(const struct client *);
const struct h1_limits *client_limits(const struct client *);
