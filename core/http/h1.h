/* HTTP/1.0 and 1.1 on the wire (RFC 9112), sans-I/O: bytes in, messages out, and back.
 *
 * Heads: we find the end and refuse every byte outside the grammar; of what is clean http-parser then reads the start
 * line and the fields that frame a message. Bodies: chunked coding and trailers are ours. What is written is made
 * afresh from the parsed message. */
#pragma once

#include "http/message.h"

struct h1_limits {
    uint32_t head;   /* bytes of the whole head: HEADERS_TOO_LARGE beyond */
    uint32_t target; /* bytes of the target: TARGET_TOO_LONG beyond */
    uint32_t fields; /* number of header lines */
};

/* Where the scan of a head stands between reads, so that no byte is scanned twice. Zeroed at the start of each
 * message. */
struct h1_scan {
    uint32_t seen;  /* bytes looked at */
    uint32_t line;  /* where the present line begins */
    uint32_t part;  /* where the present part of a start line begins */
    uint32_t lines; /* complete field lines so far */
    uint8_t state;  /* which part of which line the next byte belongs to, h1_scan.h */
    bool started;   /* bytes of a head have come (empty lines before a request do not count, RFC 9112 2.2) */
};

enum h1_result { H1_MORE, H1_DONE, H1_FAILED };

/* Looks for a whole request head at the front of `in`. H1_MORE: more bytes are needed (the scan is kept).
 * H1_DONE: the head was taken off `in`, copied into `arena`, and `request` is filled up to and without target parts and
 * framing (uri.h, framing.h do those; target.raw, method, version, headers are set). H1_FAILED: `*why`. */
enum h1_result h1_read_request(struct h1_scan *, struct buffer *in, const struct h1_limits *, struct arena *,
                               struct request *, enum failure *why);
/* The same for a response head; `*why` is BAD_RESPONSE or RESPONSE_HEADERS_TOO_LARGE. */
enum h1_result h1_read_response(struct h1_scan *, struct buffer *in, const struct h1_limits *, struct arena *,
                                struct response *, enum failure *why);

/* ---- bodies */

struct h1_body {
    enum framing_kind kind;
    uint8_t state; /* of chunked coding, h1_body.c */
    bool done;
    uint8_t digits;           /* of the present chunk size */
    uint32_t line;            /* bytes of the present chunk-size line: bounded */
    uint32_t extensions;      /* bytes of all chunk extensions so far: bounded, since nobody wants them */
    uint64_t left;            /* of the length or of the present chunk */
    struct headers *trailers; /* where trailers go; NULL: they are checked and dropped */
    struct h1_scan scan;      /* of the trailer section */
};

void h1_body_start(struct h1_body *, const struct framing *, struct headers *trailers);
/* Moves at most `room` bytes of content from `in` to `out`, taking framing off. H1_DONE: the body is complete (`in`
 * stands behind it); H1_MORE: `in` is used up, or the room is; H1_FAILED: malformed chunked coding (BAD_BODY). With
 * FRAMING_UNTIL_CLOSE it is never done by itself: the caller knows of the end. */
enum h1_result h1_body_read(struct h1_body *, struct buffer *in, struct buffer *out, size_t room);

/* ---- writing */

/* "METHOD target HTTP/1.1\r\n" + fields (without hop ones) + `extra` (whole lines, may be empty) + "\r\n". */
void h1_write_request(struct buffer *out, const struct request *, struct slice target, struct slice extra);
/* "HTTP/1.1 status reason\r\n" + fields + extra + "\r\n". */
void h1_write_response(struct buffer *out, const struct response *, struct slice extra);
/* Moves all of `body` behind `out`, in one chunk if `chunked`; nothing for an empty one. */
void h1_write_body(struct buffer *out, struct buffer *body, bool chunked);
/* The last chunk and trailers (NULL: none). */
void h1_write_last_chunk(struct buffer *out, const struct headers *trailers);
