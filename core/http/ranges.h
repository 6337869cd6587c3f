/* Byte ranges (RFC 9110 14) of a body whose length is known, and parts of a body that is not all there (RFC 9111 3.3,
 * 3.4). Positions count from 0; `last` is inclusive, as in the field. */
#pragma once

#include "http/headers.h"

struct byte_range {
    uint64_t first, last; /* first <= last < UINT64_MAX */
};

enum {
    RANGES_MAX = 16, /* ranges that one request gets */
    EXTENTS_MAX = 64 /* extents of one incomplete body */
};

struct byte_ranges {
    uint32_t count;
    struct byte_range list[RANGES_MAX]; /* satisfiable, clipped to the length, in the order asked for */
};

enum ranges_result {
    RANGES_NONE,         /* no Range that we heed: answer with 200 and everything */
    RANGES_SOME,         /* 206 */
    RANGES_UNSATISFIABLE /* 416 */
};

/* Range of a GET (the caller looks at the method, and at If-Range), against a body of `length` bytes (14.1.1, 14.2).
 * NONE: no field or several, another unit, malformed, more than RANGES_MAX, or meant ill: ranges that overlap more than
 * once, or that together are longer than the body. */
enum ranges_result ranges_of(struct byte_ranges *, const struct headers *request, uint64_t length);
enum ranges_form { RANGES_FORM_NONE, RANGES_FORM_FROM, RANGES_FORM_SUFFIX, RANGES_FORM_MANY };
/* What a request asks of a body whose length is not known yet. FROM: one range, in `*out`; its `last` is UINT64_MAX for
 * "first-". SUFFIX: the last `out->last` bytes. MANY: several. NONE: nothing we heed. */
enum ranges_form ranges_form_of(const struct headers *request, struct byte_range *out);

/* ---- Content-Range (14.4) */

enum { CONTENT_RANGE_BYTES = 80 };
static const uint64_t LENGTH_UNKNOWN = UINT64_MAX;

/* "bytes 0-4/10", with an asterisk for LENGTH_UNKNOWN. Returns the bytes written. */
size_t content_range_write(char to[CONTENT_RANGE_BYTES], struct byte_range, uint64_t length);
/* For a 416: the same with an asterisk in place of the range. */
size_t content_range_write_unsatisfied(char to[CONTENT_RANGE_BYTES], uint64_t length);
/* The Content-Range of a 206: one line, unit bytes, first <= last < length. `*length` may be LENGTH_UNKNOWN. */
bool content_range_of(const struct headers *response, struct byte_range *, uint64_t *length);
bool content_range_parse(struct slice, struct byte_range *, uint64_t *length);

/* ---- multipart/byteranges (14.6) */

struct multipart {
    struct slice boundary;     /* a token of 1 to 70 bytes that does not occur in the body, all but surely: random */
    struct slice content_type; /* of the whole body; p NULL: none */
    uint64_t length;           /* of the whole body */
};

/* What stands before each part's bytes. Appends. */
void multipart_part_write(struct buffer *, const struct multipart *, struct byte_range);
/* What ends the message. */
void multipart_end_write(struct buffer *, const struct multipart *);
/* Of all: the parts' heads, their bytes, and the end. */
uint64_t multipart_size(const struct multipart *, const struct byte_ranges *);
/* "multipart/byteranges; boundary=…" */
void multipart_type_write(struct buffer *, const struct multipart *);

/* ---- extents: which bytes of a body are there */

struct extents {
    uint32_t count;
    struct byte_range list[EXTENTS_MAX]; /* ascending, neither overlapping nor touching */
};

/* False, and nothing changed: there is no room for one more. */
bool extents_add(struct extents *, struct byte_range);
bool extents_have(const struct extents *, struct byte_range);
bool extents_complete(const struct extents *, uint64_t length); /* of a body of that length; 0 is complete */
/* The first piece of `wanted` that is missing. False: nothing is. */
bool extents_missing(const struct extents *, struct byte_range wanted, struct byte_range *out);
/* May partial content with these fields be combined with what is stored (RFC 9111 3.4, RFC 9110 15.3.7.3)? Both have
 * the same strong validator: an ETag or, if neither has one, a strong Last-Modified. */
bool partial_combines(const struct headers *stored, const struct headers *response);
