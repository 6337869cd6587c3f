/* A connection to a server and its protocol (h1), the mirror of proxy/client. It is connecting, lent to one borrower,
 * or idle in its worker's pool. For h1 the borrower has it whole; for h2 (later) it will have one stream of it. */
#pragma once

#include "backend/backend.h"
#include "http/h1.h"
#include "net/conn.h"

struct server_conn;

/* Who has borrowed: embedded in a fetch. Handlers run in the gather phase. */
struct borrower {
    const struct borrower_handlers *handlers;
    struct server_conn *conn; /* NULL: none */
};

struct borrower_handlers {
    void (*on_connected)(struct borrower *);
    void (*on_bytes)(struct borrower *); /* bytes of the response to be read */
    void (*on_end)(struct borrower *);   /* FIN */
    void (*on_broken)(struct borrower *, enum failure why);
    void (*on_room)(struct borrower *);    /* the request body may flow again */
    void (*on_flushed)(struct borrower *); /* all that was written has left; may be NULL */
    void (*on_deadline)(struct borrower *);
};

/* All that makes connections to one server differ: only one made in the same way can take its place. */
struct way {
    struct tls_trust *trust; /* TLS; NULL: plain */
    struct slice name;       /* with TLS: what the server's certificate bears */
};

struct server_conn {
    struct conn conn;
    struct list node; /* in the pool while idle, else alone */
    struct grave grave;
    struct server *server;     /* a reference */
    struct borrower *borrower; /* NULL while idle */
    struct h1_scan scan;
    struct h1_body body;     /* reading the response's body */
    uint32_t uses;           /* requests it has carried, the present one included: 1 is fresh */
    bool response_begun;     /* a byte of the present response has come */
    struct tls_trust *trust; /* a reference; NULL: plain */
    char *name;              /* with TLS: the server's name */
};

/* An idle conn from the pool that was made in this way, good as far as can be known without a system call; NULL: none.
 * Lent to `b`. */
struct server_conn *server_conn_borrow(struct server *, struct loop *, struct borrower *b, const struct way *);
/* Opens a new one, lent to `b`; on_connected (after the TLS handshake, if there is one) or on_broken follows, or
 * on_deadline after `timeout` seconds. */
struct server_conn *server_conn_open(struct server *, struct loop *, struct borrower *b, double timeout,
                                     const struct way *);
/* Ends the loan: into the pool when `reusable` and there is room there, otherwise closed. b->conn becomes NULL. */
void server_conn_give_back(struct borrower *b, bool reusable, const struct backend_settings *);
/* Closes this worker's idle conns to a server. */
void server_conn_drop_idle(struct server *, struct loop *);
