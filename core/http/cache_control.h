/* What Cache-Control says (RFC 9111 5.2, RFC 5861, RFC 8246), and in its stead CDN-Cache-Control (RFC 9213).
 *
 * Forbidding directives are read leniently, permitting ones strictly: "no-store=x" forbids as "no-store" does, but
 * "public=x" permits nothing. Of a directive that comes twice the first counts (RFC 9111 4.2.1). Unknown ones are
 * ignored (5.2.3). Values may be tokens or quoted (5.2).
 *
 * Delta-seconds (RFC 9111 1.2.2): digits, saturating at DELTA_MAX. Anything else (negative, decimal, empty, white
 * space round "=") makes max-age, s-maxage and both stale-… 0, and a request's min-fresh and max-stale as if
 * absent. */
#pragma once

#include "http/headers.h"

static const uint32_t DELTA_MAX = 2147483648; /* seconds */

enum cache_directive {
    CC_NO_STORE = 1 << 0,
    CC_NO_CACHE = 1 << 1, /* without field names; with an empty or malformed list of them, too */
    CC_NO_CACHE_FIELDS = 1 << 2,
    CC_PRIVATE = 1 << 3, /* likewise */
    CC_PRIVATE_FIELDS = 1 << 4,
    CC_PUBLIC = 1 << 5,
    CC_MUST_REVALIDATE = 1 << 6,
    CC_PROXY_REVALIDATE = 1 << 7,
    CC_MUST_UNDERSTAND = 1 << 8,
    CC_NO_TRANSFORM = 1 << 9,
    CC_ONLY_IF_CACHED = 1 << 10,
    CC_IMMUTABLE = 1 << 11,
    CC_MAX_AGE = 1 << 12,
    CC_S_MAXAGE = 1 << 13,
    CC_STALE_WHILE_REVALIDATE = 1 << 14,
    CC_STALE_IF_ERROR = 1 << 15,
    CC_MIN_FRESH = 1 << 16,
    CC_MAX_STALE = 1 << 17, /* without a value `max_stale` is DELTA_MAX: however stale */
    CC_PRAGMA = 1 << 18,    /* CC_NO_CACHE comes from Pragma */
    CC_TARGETED = 1 << 19,  /* from CDN-Cache-Control; Cache-Control and Expires count for nothing */
    CC_MALFORMED = 1 << 20, /* a quoted string does not end: what it hides is not known. CC_NO_STORE is set, too */
};

struct cache_control {
    uint32_t present; /* enum cache_directive */
    /* seconds, 0 to DELTA_MAX; 0 when absent */
    uint32_t max_age, s_maxage, stale_while_revalidate, stale_if_error, min_fresh, max_stale;
};

/* Every Cache-Control line of a request; without one, Pragma: no-cache (RFC 9111 5.4). */
void cache_control_of_request(struct cache_control *, const struct headers *);
/* Of a response. `targeted`: CDN-Cache-Control is for us (we are a gateway). It then replaces Cache-Control, unless it
 * is empty, no valid dictionary, or has a known directive of a wrong type: then it is as if absent (RFC 9213 2.1). */
void cache_control_of_response(struct cache_control *, const struct headers *, bool targeted);
/* RFC 9111 1.2.2: digits, saturating at DELTA_MAX. False leaves `*seconds` alone. */
bool delta_seconds_read(struct slice, uint32_t *seconds);
/* One line, onto what was read before (zeroed at first). For the two above, and for the fuzzer. */
void cache_control_read(struct cache_control *, struct slice line);
/* Does no-cache="…" or private="…" of that response name this field (RFC 9111 5.2.2.4, 5.2.2.7)? `told` is what
 * cache_control_of_response made of these headers; without such a directive this costs nothing. */
bool cache_control_names(const struct cache_control *told, const struct headers *response, struct slice field);
