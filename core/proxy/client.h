/* A client: an accepted connection and its protocol (h1 here; h2 comes beside it). It reads heads, begins an exchange
 * for each, one at a time, in order; carries the request body into the exchange's pipe and the answer out. It holds
 * its listener, never a generation. What exchange.c calls is here: no other file writes to a client's conn. */
#pragma once

#include "http/h1.h"
#include "net/conn.h"
#include "proxy/pipe.h"
#include "proxy/worker.h"

enum client_state {
    CLIENT_IDLE,     /* between requests */
    CLIENT_HEAD,     /* a head has begun to come */
    CLIENT_EXCHANGE, /* an exchange is under way */
    CLIENT_TUNNEL,   /* the conn belongs to a tunnel */
    CLIENT_LINGER,   /* last bytes leave, then it closes */
    CLIENT_CLOSED
};

struct client {
    struct conn conn;
    struct list node; /* in worker->clients */
    struct grave grave;
    struct listener *listener;
    struct addr addr;          /* the other side, as accepted */
    struct exchange *exchange; /* NULL: none */
    struct h1_scan scan;
    uint8_t state;               /* enum client_state */
    bool keep_alive;             /* after the present exchange */
    bool last_request;           /* the client said that no other follows (Connection: close, or HTTP/1.0) */
    bool body_unread;            /* the request body has not been read to its end */
    bool chunked;                /* the answer's body is written in chunks */
    struct pipe_reader reader;   /* of the answer's body */
    struct tunnel *tunnel;       /* CLIENT_TUNNEL */
    struct handshake *handshake; /* policy is asked for a certificate; NULL: it is not */
    uint64_t mark;               /* bytes moved either way when the deadline was set */
    uint32_t requests;
};

/* Makes a client of an accepted socket. */
void client_accept(struct ear *, int fd, const struct addr *peer);
static inline struct worker *client_worker(const struct client *c) { return worker_of(c->conn.loop); }

/* client_tls.c: TLS begins, where the listener has it; the answer to a handshake's question for certificates. */
void client_begin_tls(struct client *);
void client_on_hello(struct conn *, struct slice name);
/* What the config shows to who asks for `name`; NULL: nothing. */
struct tls_certificates *client_certificates(const struct client *, struct slice name);
void client_on_handshake(struct conn *);
void client_note_broken(const struct client *, enum failure why);
/* "https" or "http": how the client speaks to us. */
static inline struct slice client_scheme(const struct client *c) {
    return c->conn.tls ? SLICE("https") : SLICE("http");
}

/* -- for exchange.c */
/* A 1xx; nothing for an HTTP/1.0 client. */
void client_send_informational(struct client *, const struct response *);
/* The final head, and how its body will be delimited: by `response->framing`'s length, else in chunks, or until close
 * for an HTTP/1.0 client. Adds Connection, Via, and Date where it lacks. */
void client_send_head(struct client *, const struct response *);
/* Where the body goes: a pipe reader whose end completes the exchange (exchange_body_sent). */
void client_read_body_from(struct client *, struct pipe *);
/* The answer is complete (or has no body): next request, or close. Called once per exchange. */
void client_finish(struct client *);
/* The answer cannot be completed: closes so that the client sees that it is not whole. */
void client_abort(struct client *);
/* Goes on reading the request body: its pipe has room. */
void client_read_request_body(struct client *);
/* Bytes of tunnelled data may flow: the conn is the tunnel's from now on. */
void client_begin_tunnel(struct client *, struct tunnel *, const struct conn_handlers *);
/* Nothing is under way: closes an idle client (drain); others get Connection: close with their answer. */
void client_drain(struct client *);
/* Closes now, whatever happens. */
void client_close(struct client *);
