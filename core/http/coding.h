/* Content codings (RFC 9110 8.4): gzip, deflate, br and zstd, to read and to write. Sans-I/O: bytes in, bytes out, at
 * most so many a call, so that whoever carries the bytes keeps the pace. */
#pragma once

#include "http/headers.h"

enum coding { CODING_IDENTITY, CODING_GZIP, CODING_DEFLATE, CODING_BR, CODING_ZSTD, CODING_UNKNOWN };

struct slice coding_name(enum coding);  /* "identity", "gzip", …; "unknown" */
enum coding coding_named(struct slice); /* case-insensitive; "x-gzip" is gzip */
/* What Content-Encoding says: IDENTITY without one; UNKNOWN also for several codings on top of each other. */
enum coding coding_of(const struct headers *);
/* Which of `offered` (the preferred first) an Accept-Encoding likes best (RFC 9110 12.5.3): the highest q, then the
 * first offered; IDENTITY when it likes none of them better than that. Without the field: IDENTITY. */
enum coding coding_negotiate(const struct headers *request, const enum coding *offered, unsigned count);

enum coding_result {
    CODING_HUNGRY, /* `in` is used up, and all that it makes was given */
    CODING_FULL,   /* `room` bytes were given, there may be more */
    CODING_BROKEN, /* decoding: malformed, or with `last` truncated, or bytes follow the end */
    CODING_BOMB    /* decoding: more than allowed */
};

/* ---- decoding
 *
 * Bounded: the window of a stranger's stream is 8 MiB at most (zstd, RFC 9659; brotli's 16 MiB), and what comes out is
 * at most `most` bytes, and beyond 4 MiB at most 250 times what went in. Concatenated gzip members and zstd frames are
 * one content. No bytes at all are an empty content, since servers send that. */
struct decoder;
struct decoder *decoder_create(enum coding, uint64_t most); /* neither IDENTITY nor UNKNOWN */
void decoder_destroy(struct decoder *);                     /* NULL is ignored */
/* Takes from `in`, appends at most `room` bytes to `out`. `last`: nothing follows what is in `in`. */
enum coding_result decoder_run(struct decoder *, struct buffer *in, struct buffer *out, size_t room, bool last);

/* ---- encoding */

struct encoder;
enum { ENCODER_LEVEL_MIN = 1, ENCODER_LEVEL_MAX = 9, ENCODER_LEVEL_DEFAULT = 4 };
/* `level`: 1 (fast) to 9 (small), the same scale for every coding. */
struct encoder *encoder_create(enum coding, int level);
void encoder_destroy(struct encoder *); /* NULL is ignored */
/* Gives `room` bytes and up to 4 KiB more. Nothing is held back: whatever is in `in` can be decoded from what was given
 * when it says CODING_HUNGRY. */
enum coding_result encoder_run(struct encoder *, struct buffer *in, struct buffer *out, size_t room, bool last);
