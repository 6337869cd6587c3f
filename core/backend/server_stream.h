/* A stream to a server: one request's way there and its response's way back. For HTTP/1 it is a whole connection,
 * lent to one borrower at a time; for HTTP/2 one of many on it. What a fetch does to its server it does through here,
 * without asking which protocol that speaks. */
#pragma once

#include "base/failure.h"
#include "http/message.h"

struct backend_settings;
struct borrower;
struct server_conn;
struct server_stream;

/* Who has borrowed: embedded in a fetch, a tunnel. Handlers run in the gather phase. */
struct borrower {
    const struct borrower_handlers *handlers;
    struct server_stream *stream; /* NULL: none. May become another one until on_connected was told */
};

struct borrower_handlers {
    void (*on_connected)(struct borrower *);
    void (*on_bytes)(struct borrower *); /* something of the response is to be read */
    void (*on_end)(struct borrower *);   /* the server says nothing more */
    void (*on_broken)(struct borrower *, enum failure why);
    void (*on_room)(struct borrower *);    /* the request body may flow again */
    void (*on_flushed)(struct borrower *); /* all that was written has left; may be NULL */
    void (*on_deadline)(struct borrower *);
};

enum stream_result { STREAM_MORE, STREAM_DONE, STREAM_FAILED };

/* What is sent, beside the fields of the request. */
struct outgoing {
    struct slice target;        /* of the start line */
    struct slice upgrade;       /* protocol asked for; p NULL: none */
    struct slice authorization; /* Proxy-Authorization, for a server that is a parent; p NULL: none */
    bool body;                  /* one follows, delimited by request->framing */
    struct arena *arena;        /* where the fields of the response go; it outlives the loan */
};

struct server_stream_ops {
    void (*send_head)(struct server_stream *, const struct request *, const struct outgoing *);
    /* The request's body: bytes it takes now; takes all of `bytes`; the end (in a tunnel: of this way only). */
    size_t (*room)(const struct server_stream *);
    void (*send)(struct server_stream *, struct buffer *bytes);
    void (*end)(struct server_stream *, const struct headers *trailers);
    /* The next head, also a 1xx. DONE: in `r`, whose headers were initialised with the arena its strings go to, with
     * framing; MORE: it has not come; FAILED: `*why`. Before the first one, `trailers` says where those of the body
     * go. */
    enum stream_result (*read_head)(struct server_stream *, struct response *r, enum method, struct headers *trailers,
                                    enum failure *why);
    /* Moves at most `room` bytes of the body behind `out`. DONE: that was its end. MORE: no more now. A body that ends
     * with the connection has no end of its own: `ended` tells. */
    enum stream_result (*read_body)(struct server_stream *, struct buffer *out, size_t room);
    /* After the head that answered an upgrade: from now on both bodies are bytes as they come. */
    void (*begin_tunnel)(struct server_stream *);
    void (*deadline)(struct server_stream *, double seconds); /* then on_deadline; 0: none */
    bool (*flushed)(const struct server_stream *);            /* nothing that was written waits here */
    /* Ends the loan; `whole`: request and response are complete, the connection may carry another. */
    void (*give_back)(struct server_stream *, bool whole, const struct backend_settings *);
};

struct server_stream {
    const struct server_stream_ops *ops;
    struct server_conn *conn;
    struct borrower *borrower; /* NULL while it is not lent */
    bool connected;
    bool fresh;          /* the connection has carried no request before */
    bool response_begun; /* a byte of the present response has come */
    bool ended, broken;  /* on_end, on_broken were told */
    bool truncated;      /* it ended in a way that anybody on the way can bring about (TLS without close_notify) */
};

static inline void server_stream_lend(struct server_stream *s, struct borrower *b) {
    s->borrower = b;
    b->stream = s;
}
