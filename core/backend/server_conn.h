/* A connection to a server and its protocol, the mirror of proxy/client. It is connecting, lent (server_stream.h), or
 * idle in its worker's pool. */
#pragma once

#include "backend/backend.h"
#include "backend/server_stream.h"
#include "http/h1.h"
#include "net/conn.h"

/* What a protocol does for server_conn.c. */
struct server_protocol {
    const struct conn_handlers *handlers;
    /* The conn stands, or is taken out of the pool again: lends a stream of it. */
    void (*lend)(struct server_conn *, struct borrower *);
    void (*fini)(struct server_conn *); /* its memory goes; may be NULL */
};
extern const struct server_protocol server_h1, server_h2;

/* server_parent.c: connected to the parent, it is asked for the server; its handlers until that stands. */
extern const struct conn_handlers server_parent_handlers;

struct h2_server; /* server_h2.c's own */
/* Takes no more streams; closes with its last. */
void server_h2_retire(struct server_conn *);
/* Has it no stream now? */
bool server_h2_is_idle(const struct server_conn *);

/* HTTP/1: one stream, which is the whole conn. */
struct h1_server {
    struct server_stream stream;
    struct h1_scan scan;
    struct h1_body body; /* reading the response's body */
    bool chunked;        /* the request's body is written in chunks */
    bool tunnel;
    double idle_most; /* seconds it may be kept by what its last response said; INFINITY: it said nothing */
};

/* All that makes connections to one server differ: only one made in the same way can take its place. */
struct way {
    struct tls_trust *trust;         /* TLS; NULL: plain */
    struct slice name;               /* with TLS: what the server's certificate bears */
    struct parent *parent;           /* the proxy through which servers with a `tunnel` are reached; NULL: none */
    unsigned proxy_protocol;         /* version of the PROXY header it begins with; 0: none */
    struct addr source, destination; /* what that says; size 0: nobody */
    bool h2;                         /* HTTP/2: with TLS if the server agrees, without by prior knowledge */
    bool alone;                      /* it will become a tunnel: a connection of its own, HTTP/1.1 */
    bool careful;                    /* for what may not be repeated: looks whether an idle one is just being closed */
    bool fresh;                      /* no idle HTTP/1 one: the last was closed */
};

struct server_conn {
    struct conn conn;
    struct list node; /* in the pool while idle, else alone */
    struct grave grave;
    struct server *server; /* a reference */
    const struct server_protocol *protocol;
    uint32_t uses;           /* requests it has carried, the present one included */
    double connect_timeout;  /* seconds */
    struct tls_trust *trust; /* a reference; NULL: plain */
    char *name;              /* with TLS: the server's name */
    struct parent *parent;   /* a reference; NULL: it goes to the server directly */
    struct addr source;      /* whom its PROXY header names; size 0: nobody, or there was none */
    bool wants_h2;           /* offered when TLS begins behind the parent */
    struct h1_scan scan;     /* of the parent's answer */
    struct h1_server h1;
    struct h2_server *h2; /* NULL: it does not speak HTTP/2 */
};

/* A stream of a conn that was made in this way and stands, as far as can be known without a system call (careful: with
 * one), or, for HTTP/2, is being made. Lent to `b`. False: there is none. */
bool server_conn_borrow(struct server *, struct loop *, struct borrower *b, const struct way *);
/* Opens a new one, lent to `b`; on_connected (after the TLS handshake, if there is one) or on_broken follows, or
 * on_deadline after `timeout` seconds. */
void server_conn_open(struct server *, struct loop *, struct borrower *b, double timeout, const struct way *);
/* Ends a loan (server_stream_ops.give_back); b->stream becomes NULL. Nothing if there is none. Settings NULL: the
 * connection is kept for nobody. */
void server_conn_give_back(struct borrower *b, bool whole, const struct backend_settings *);
/* Closes this worker's idle conns to a server. */
void server_conn_drop_idle(struct server *, struct loop *);

/* -- for the protocols */
static inline struct server_conn *server_conn_of(struct conn *c) { return container_of(c, struct server_conn, conn); }
/* It turned out to speak another protocol: `b` gets a stream of that, and is told that it is connected. */
void server_conn_become(struct server_conn *, const struct server_protocol *, struct borrower *b);
/* Others who had borrowed of it get a connection of their own, made in the same way. */
void server_conn_open_another(struct server_conn *, struct borrower *b);
/* The connection stands, to the server itself: goes on with TLS, if there is to be any, or is ready for its
 * protocol. */
void server_conn_stands(struct server_conn *);
/* Logs why TLS broke it, if it did. */
void server_conn_complain(const struct server_conn *, enum failure why);
/* Keeps it for the next request, if there is room in the pool. */
void server_conn_keep(struct server_conn *, const struct backend_settings *);
/* Others may borrow streams of it, or not any more. Idempotent. */
void server_conn_share(struct server_conn *);
void server_conn_unshare(struct server_conn *);
/* Closes and buries it. Idempotent. */
void server_conn_close(struct server_conn *);
