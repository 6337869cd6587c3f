/* Vary (RFC 9111 4.1): which requests may have the same stored response. */
#pragma once

#include "http/headers.h"

/* VARY_ANY: "*" among the members. No request ever matches; such responses are not stored. */
enum vary { VARY_NONE, VARY_NAMES, VARY_ANY };
enum vary vary_of(const struct headers *response);

/* What the store keeps: the names that Vary nominates with the request's values for them. Empty for VARY_NONE; p NULL
 * for VARY_ANY. The bytes mean nothing to others.
 *
 * The values are normalised (RFC 9111 4.1): lines joined, white space round commas taken out, absent told from empty.
 *   Accept-Encoding: which of br, gzip, zstd and identity are accepted ("*" and q=0 heeded), and absent as identity.
 *     Only where the response has one of these codings: others would be given to who cannot read them, so that then the
 *     value is kept as it is.
 *   Accept-Language: lower case, sorted, weights in one spelling: the order means nothing (RFC 9110 12.5.4). If the
 *     response has one Content-Language, it also matches a request that prefers just that one. */
struct slice vary_key(struct arena *, const struct headers *response, const struct headers *request);

/* Does the request have the values in a vary_key? Allocates nothing; an empty key matches everything at once, p NULL
 * nothing. */
bool vary_matches(struct slice key, const struct headers *request);
/* Visits the names in a vary_key (lower case), for who describes what is stored. */
bool vary_key_next(struct slice *rest, struct slice *name);
