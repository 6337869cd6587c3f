/* Entity tags (RFC 9110 8.8.3) and conditional requests (RFC 9110 13), as far as a cache may answer them from what it
 * has stored (RFC 9111 4.3.2). */
#pragma once

#include "http/message.h"

/* ---- entity tags */

struct etag {
    struct slice opaque; /* between the quotes */
    bool weak;
};

/* Exactly the grammar: W/ in upper case, quotes, no white space or control within. False: no entity tag. */
bool etag_parse(struct slice, struct etag *);
bool etag_of(const struct headers *, struct etag *);                /* of ETag; several lines: none */
bool etag_matches_strong(const struct etag *, const struct etag *); /* RFC 9110 8.8.3.2 */
bool etag_matches_weak(const struct etag *, const struct etag *);

/* ---- validators */

/* Can a response with these fields be validated: has it an ETag or a Last-Modified that can be read? */
bool validator_present(const struct headers *response);
/* Have both the same Last-Modified? */
bool last_modified_equal(const struct headers *, const struct headers *);
/* Is Last-Modified a strong validator here: at least a second before Date (RFC 9110 8.8.2.2)? */
bool last_modified_is_strong(const struct headers *response);

/* ---- conditions */

enum condition_result {
    CONDITION_GO_ON,        /* answer as without conditions */
    CONDITION_NOT_MODIFIED, /* 304 */
    CONDITION_FAILED        /* 412: only from condition_of_origin */
};

/* Has the request one of If-Match, If-Unmodified-Since? They are for the origin (RFC 9110 13.1.1, 13.1.4): a cache does
 * not evaluate them. Such a request is sent on, never answered from what is stored. */
bool condition_is_for_origin(const struct headers *request);
/* If-None-Match, else If-Modified-Since, against a stored response that may be reused (RFC 9110 13.2.2 steps 3 and 4,
 * RFC 9111 4.3.2): weak comparison; "*" matches any stored response. GO_ON but for GET and HEAD, and a stored 2xx.
 * Without Last-Modified its Date is compared, without Date the time it was received (`received`, ms since 1970). A date
 * that is none, or in several lines, is ignored. */
enum condition_result condition_of_cache(const struct request *, int status, const struct headers *stored,
                                         int64_t received);
/* All of RFC 9110 13.2.2 but If-Range, for who is the origin of what it serves (a reply of a script, a file). */
enum condition_result condition_of_origin(const struct request *, int status, const struct headers *response);
/* If-Range (RFC 9110 13.1.5): may Range be heeded? True without the field, or if it has the same strong ETag, or the
 * very date of a strong Last-Modified. */
bool condition_allows_range(const struct headers *request, const struct headers *response);
