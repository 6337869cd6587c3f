/* A stream: the way of one request in and of its answer out, on a client. A client of HTTP/1 has one, which serves
 * request after request; a client of HTTP/2 has many at a time. What an exchange does to its client it does through
 * here, without asking which protocol that speaks.
 *
 * The protocol owns the stream. It ends its exchange's use of it by exchange_client_left, or is told by `finish`,
 * `abort` or `leave` that the exchange needs it no more; from then on neither knows the other. */
#pragma once

#include "http/message.h"
#include "proxy/pipe.h"

struct client;
struct exchange;
struct stream;

struct stream_ops {
    /* A 1xx (not 101); nothing for a client that does not know them. */
    void (*send_informational)(struct stream *, const struct response *);
    /* The final head. The fields of the connection, Via, and Date where it lacks, are added here. How the body will be
     * delimited follows from response->framing: by its length, else as the protocol ends bodies. After it, `reader`
     * may be added to the pipe the body comes from; its end is told by exchange_body_sent. */
    void (*send_head)(struct stream *, const struct response *);
    /* The pipe of the request's body has room: goes on reading into it. */
    void (*read_body)(struct stream *);
    /* The answer is complete, or has no body. */
    void (*finish)(struct stream *);
    /* The answer cannot be completed: the client must see that it is not whole. */
    void (*abort)(struct stream *);
    /* Nobody is to be answered: ends the stream at once, as if the client had (exchange_client_left follows). */
    void (*leave)(struct stream *);
    /* After a head that begins a tunnel: what the client sends goes into `up` (whose on_room must call read_body), what
     * `reader` takes goes to it, both as they are. The end of one way is not the end of the other. */
    void (*begin_tunnel)(struct stream *, struct pipe *up);
};

struct stream {
    const struct stream_ops *ops;
    struct client *client;
    struct exchange *exchange; /* NULL: none */
    struct pipe_reader reader; /* of the answer's body; the protocol sets its ops */
    bool body_unread;          /* the request body has not been read to its end */
    bool ended;                /* the client said that it sends nothing more */
};
