/* HTTP/2 on the wire (RFC 9113, with RFC 7541, 8441 and 9218), either role, sans-I/O: bytes in, events out, and back.
 *
 * nghttp2 does frames, HPACK, stream states, flow control accounting and the checks of section 8; h2_heads.c makes
 * messages of the fields it finds, h2.c keeps what is received and sent. Content waits in a stream's `in` until it is
 * taken, and only then is its window opened again: a reader that stops stops the sender. What is to be sent waits in
 * `out`, bounded by who fills it (h2_room).
 *
 * Handlers are called from h2_feed (events of the other side) and h2_write (room, the close of a stream that is
 * complete). They may call anything here but h2_feed, h2_write and h2_close. */
#pragma once

#include "http/message.h"

struct h2;
struct h2_stream;
struct h2_trailers;

enum h2_role { H2_SERVER, H2_CLIENT };

/* Error codes of RFC 9113 7 that we say or ask about. */
enum h2_error {
    H2_NO_ERROR = 0,
    H2_PROTOCOL_ERROR = 1,
    H2_INTERNAL_ERROR = 2,
    H2_REFUSED_STREAM = 7,
    H2_CANCEL = 8,
    H2_ENHANCE_YOUR_CALM = 11
};

struct h2_limits {
    uint32_t head;    /* bytes of a head or trailer section, names and values: HEADERS_TOO_LARGE beyond */
    uint32_t target;  /* bytes of :path: TARGET_TOO_LONG beyond */
    uint32_t fields;  /* number of fields */
    uint32_t streams; /* open at a time: of the other side's making, of ours if we are the client */
};

struct h2_handlers {
    /* Server: a stream begins. Returns it, zeroed but for `message` and `trailers`, which say where its head goes; NULL
     * refuses it. */
    struct h2_stream *(*on_begin)(struct h2 *);
    /* The head is complete. `why`: NONE, or what is wrong with it. For a client there may be several: the last has a
     * status of 200 or more. `end`: no body follows. */
    void (*on_head)(struct h2_stream *, enum failure why, bool end);
    void (*on_body)(struct h2_stream *); /* `in` has gained bytes */
    void (*on_end)(struct h2_stream *);  /* the other side is complete; trailers are there */
    void (*on_room)(struct h2_stream *); /* `out` fell below half of its limit after it had reached it */
    /* The stream is over, and `id` is 0; content that it had received may still be taken. `error`: enum h2_error, or
     * another code of the peer. */
    void (*on_close)(struct h2_stream *, uint32_t error);
    /* Client: the peer will take no new streams on this connection. May be NULL. */
    void (*on_goaway)(struct h2 *);
};

/* Embedded in what it serves. */
struct h2_stream {
    struct h2 *h2;
    int32_t id; /* 0: none (any more) */
    union {
        struct request *request;   /* server */
        struct response *response; /* client; its headers were initialised with the arena to use */
    } message;
    struct headers *trailers; /* received ones */
    struct buffer in, out;
    struct h2_trailers *out_trailers; /* sent behind `out`; NULL: none */
    uint64_t sent;                    /* bytes of content that have left `out` */
    enum method method;               /* client: of the request */
    uint32_t head_bytes, fields;      /* of the section under way */
    uint8_t failed;                   /* enum failure of the section under way */
    bool body_next;                   /* the head was there: what follows is content and trailers */
    bool ended;                       /* the other side is complete */
    bool end_out;                     /* `out` is followed by the end */
    bool sent_end;                    /* the end has left */
    bool deaf;                        /* nothing that comes is wanted any more: its message may be gone */
    bool was_full, deferred;
    uint8_t aborting;       /* enum h2_error: a reset follows `out`; 0: none */
    struct slice protocol;  /* server: of an extended CONNECT (RFC 8441); p NULL: none */
    struct slice authority; /* server, while the head is read */
};

struct h2 *h2_open(enum h2_role, const struct h2_limits *, const struct h2_handlers *, void *owner);
/* Every stream is forgotten without a word. NULL is ignored. */
void h2_close(struct h2 *);
void *h2_owner(const struct h2 *);

/* Takes what it can off `in`. False: the peer broke the protocol so badly that nothing can be said any more; what
 * h2_write gives still (a GOAWAY) is to be sent, then the connection is closed. With `most` new streams begun it
 * stops; what is left in `in` waits for the next call. */
bool h2_feed(struct h2 *, struct buffer *in, unsigned most);
/* Appends frames to `out` until it holds `limit` bytes or there is nothing to send. */
void h2_write(struct h2 *, struct buffer *out, size_t limit);
/* Both sides have said all: close the connection when what was written has left. */
bool h2_over(const struct h2 *);
/* The first step of a graceful end (RFC 9113 6.8): asks for no more streams; the second says which was the last. */
void h2_shut_gently(struct h2 *);
void h2_shut(struct h2 *, enum h2_error);

/* -- one stream */
/* Server: a head; `end`: without a body. 1xx may come before. Fields of connections (hop ones) are left out, `extra`
 * is added. */
void h2_send_response(struct h2_stream *, const struct response *, const struct headers *extra, bool end);
struct h2_request {
    const struct request *request; /* Host becomes :authority */
    struct slice target, scheme;
    bool end; /* no body follows */
};
/* Client: begins a stream with a request. `s` is zeroed but for `message` and `trailers`. False: the connection takes
 * no more streams. */
bool h2_send_request(struct h2 *, struct h2_stream *s, const struct h2_request *);
/* How much more may be put into `out`: 64 KiB, less when all streams together hold much. 0: on_room follows. */
size_t h2_room(struct h2_stream *);
/* Takes all of `bytes`. */
void h2_send(struct h2_stream *, struct buffer *bytes);
/* The message is complete; trailers, which are copied, may be NULL. */
void h2_end(struct h2_stream *, const struct headers *trailers);
/* Moves up to `most` bytes of content out of `in` and opens the window by as much. Allowed after on_close. */
size_t h2_take(struct h2_stream *, struct buffer *to, size_t most);
/* on_close follows, from h2_write, and before it nothing. */
void h2_reset(struct h2_stream *, enum h2_error);
/* The same once what waits in `out` has left: the message cannot be completed. */
void h2_abort(struct h2_stream *, enum h2_error);
/* Nothing more of what comes is wanted, nor told; when our side is complete, the other learns that it need not go on
 * (RFC 9113 8.1: RST_STREAM with NO_ERROR). */
void h2_dismiss(struct h2_stream *);
/* Drops what lies in it. Its memory may go when it is over (on_close was called, or h2_close). After h2_close, `h2`
 * must be NULL. */
void h2_stream_fini(struct h2_stream *);
/* Client: how many streams may be open at a time; 0: it takes no new ones. */
uint32_t h2_most_streams(const struct h2 *);
/* "1.52.0": the library that frames it. */
const char *h2_library_version(void);
