/* The rules of a shared cache (RFC 9111): may it be stored, for how long is it fresh, may it be reused for this
 * request, what does a 304 or a HEAD change, what does a request make invalid.
 *
 * Times are milliseconds since 1970, spans milliseconds. No clock is read here, but where a date of RFC 850 has two
 * digits of a year. */
#pragma once

#include "http/cache_control.h"
#include "http/message.h"

/* ---- the rule that decided
 *
 * RULE(ID, "word", stored): the words are stable. They stand in the access log, in Cache-Status' detail and in
 * `moongate cache why`. */
#define CACHE_RULES(RULE)                                                                                              \
    RULE(S_MAXAGE, "s-maxage", true) /* explicit freshness, 4.2.1 */                                                   \
    RULE(MAX_AGE, "max-age", true)                                                                                     \
    RULE(EXPIRES, "expires", true)                                                                                     \
    RULE(HEURISTIC, "heuristic", true) /* a tenth of the time since Last-Modified, at most a day, 4.2.2 */             \
    RULE(VALIDATOR, "validator", true) /* not fresh for a moment, but can be validated */                              \
    RULE(NO_CACHE, "no-cache", true)   /* validated for each use, 5.2.2.4 */                                           \
    RULE(METHOD, "method", false)      /* neither GET nor HEAD */                                                      \
    RULE(REQUEST_NO_STORE, "request-no-store", false) /* 5.2.1.5 */                                                    \
    RULE(STATUS, "status", false)                     /* interim, 304, or for one request only, as 416 */              \
    RULE(RANGE, "range", false)                       /* a 206 that is not one known range, 3.3 */                     \
    RULE(MUST_UNDERSTAND, "must-understand", false)   /* and a status we do not know, 5.2.2.3 */                       \
    RULE(MALFORMED, "malformed", false)               /* CC_MALFORMED */                                               \
    RULE(NO_STORE, "no-store", false)                 /* 5.2.2.5 */                                                    \
    RULE(PRIVATE, "private", false)                   /* 5.2.2.7 */                                                    \
    RULE(AUTHORIZATION, "authorization", false)       /* in the request, and nothing permits it, 3.5 */                \
    RULE(VARY_ANY, "vary-any", false)                 /* Vary: *, 4.1 */                                               \
    RULE(SET_COOKIE, "set-cookie", false)             /* without explicit freshness or public, 7.3 */                  \
    RULE(NO_FRESHNESS, "no-freshness", false)         /* none told, none to be guessed, nothing to validate by */      \
    RULE(NO_VALIDATOR, "no-validator", false)         /* no-cache, or never fresh, and nothing to validate by */       \
    RULE(POLICY, "policy", true)                /* on_store gave it a ttl; never of freshness_of, as those below */    \
    RULE(POLICY_PASS, "policy-pass", false)     /* on_store wants it passed */                                         \
    RULE(POLICY_FAILED, "policy-failed", false) /* on_store failed */

enum cache_rule {
#define CACHE_RULE_ENUM(id, word, stored) CACHE_RULE_##id,
    CACHE_RULES(CACHE_RULE_ENUM)
#undef CACHE_RULE_ENUM
        CACHE_RULE_COUNT
};

struct slice cache_rule_word(enum cache_rule);
bool cache_rule_stores(enum cache_rule);

/* ---- freshness: stored with each response */

enum {
    FRESHNESS_VALIDATE = 1,    /* no-cache: never used without validation, whatever is left */
    FRESHNESS_NEVER_STALE = 2, /* must-revalidate, proxy-revalidate, s-maxage, no-cache: not even on an error, 4.2.4 */
    FRESHNESS_HEURISTIC = 4,
};

struct freshness {
    int64_t received;    /* when the response came (4.2.3 response_time) */
    int64_t initial_age; /* corrected_initial_age, >= 0 */
    int64_t lifetime;    /* >= 0 */
    /* RFC 5861: spans behind the lifetime; 0 when not told, and with FRESHNESS_NEVER_STALE */
    int64_t stale_while_revalidate, stale_if_error;
    uint8_t flags;
};

/* May the response to this request be stored (RFC 9111 3), and how fresh is it? That is filled in whatever the answer.
 * `asked` and `told` are what cache_control.h makes of both. `request_time`: when the fetch sent its request;
 * `response_time`: when the head came (the later of both counts, should the clock have been set back).
 *
 * HEAD: says what would hold of a GET; what a response without its body is good for, the store decides. Which of its
 * fields are stored, cache_stores_field says. */
enum cache_rule freshness_of(struct freshness *, const struct request *, const struct cache_control *asked,
                             const struct response *, const struct cache_control *told, int64_t request_time,
                             int64_t response_time);
/* May the fields of this answer to a validation, or to a HEAD, become those of what is stored for all? What keeps a
 * whole response from being stored keeps them out, too. `told` is of the updated head for a 304, so that what the
 * stored one permits (public) holds on. True: no, and `*why`. */
bool cache_update_forbidden(enum cache_rule *why, const struct request *, const struct cache_control *asked,
                            const struct headers *update, const struct cache_control *told);
/* Only how fresh: for a stored head that a 304 or HEAD has just updated (cache_update). `told` is of the updated head.
 * A rule that stores, NO_FRESHNESS or NO_VALIDATOR. */
enum cache_rule freshness_measure(struct freshness *, int status, const struct headers *,
                                  const struct cache_control *told, int64_t request_time, int64_t response_time);

/* Seconds; 0 without an Age, and for an invalid one; of a list the first counts; at most DELTA_MAX (RFC 9111 5.1). */
int64_t cache_age_read(const struct headers *);
/* A date field, as caches read it: whatever its letters' case (RFC 9111 4.2), several lines or a bad one are invalid.
 * False: absent or invalid. */
bool cache_date_read(const struct headers *, struct slice name, int64_t *ms);

/* ---- reuse (RFC 9111 4) */

enum reuse_verdict {
    REUSE_FRESH,
    REUSE_STALE,                  /* serve: the client takes it so (max-stale, 5.2.1.2) */
    REUSE_STALE_WHILE_REVALIDATE, /* serve, and refresh behind it (RFC 5861 3) */
    REUSE_VALIDATE,               /* ask first */
    REUSE_BYPASS,                 /* the request says no-store: send it on as it is, store nothing of it */
    REUSE_GATEWAY_TIMEOUT         /* only-if-cached, and nothing that may be served: 504 (5.2.1.7) */
};

enum reuse_reason { REUSE_BY_AGE, REUSE_BY_REQUEST }; /* Cache-Status: fwd=stale, fwd=request */

struct reuse {
    enum reuse_verdict verdict;
    enum reuse_reason reason; /* of VALIDATE: would it be served if the request had asked for nothing? */
    bool stale_on_error;      /* VALIDATE: may be served when the answer is 500, 502, 503, 504 or none (RFC 5861 4) */
    bool stale_if_cut_off;    /* VALIDATE: may be served when no server can be reached (4.2.4); the site decides for how
                                 long and whether at all */
    int64_t age;              /* current_age, 4.2.3 */
    int64_t left;             /* lifetime - age: negative when stale */
    uint32_t age_seconds;     /* the Age to send (5.1), at most DELTA_MAX */
};

/* `now` before `received` counts as `received`. */
struct reuse reuse_of(const struct freshness *, const struct cache_control *asked, int64_t now);
/* When nothing is stored: REUSE_GATEWAY_TIMEOUT, REUSE_BYPASS, or REUSE_VALIDATE for: fetch. */
enum reuse_verdict reuse_of_nothing(const struct cache_control *asked);
/* Of which answers to a validation stale_on_error speaks (RFC 5861 4). */
bool cache_status_is_error(int status);

/* ---- fields */

/* Is the field stored (RFC 9111 3.1)? Not: hop-by-hop ones and those that Connection nominates (both are marked `hop`),
 * the core's own (header_is_core; Content-Length among them, it is written afresh), Proxy-Authenticate, -Authorization
 * and -Authentication-Info, and what no-cache="…" or private="…" name: left out when storing, so that there is nothing
 * to strip when reusing. Nor Age: the freshness has it. */
bool cache_stores_field(const struct header *, const struct headers *response, const struct cache_control *told);
/* Is it taken over from a 304 or HEAD response (RFC 9111 3.2)? What is stored, but Content-Encoding, -Type and -Range,
 * on which the stored bytes depend. Set-Cookie only where the response says that it is for all (public, max-age,
 * s-maxage): else it is meant for the client whose request was sent on. */
bool cache_updates_field(const struct header *, const struct headers *response, const struct cache_control *told);
/* Freshens a stored head (RFC 9111 3.2): every field that `from` has and may update is replaced by all its lines, the
 * rest stays. Age and Date always go; those of `from` take their place, for freshness_measure. Where `from` has no Date
 * the caller adds the time received (RFC 9110 6.6.1). `told` is of `from`, whose slices are kept, not copied. */
void cache_update(struct headers *stored, const struct headers *from, const struct cache_control *told);

/* ---- validation (RFC 9111 4.3) */

/* Does this 304 speak of the stored response (4.3.4)? By a strong ETag if it has one, else a weak one, else
 * Last-Modified. One without any validator speaks of it only if `alone`: its request named no other. */
bool cache_304_selects(const struct headers *stored, const struct headers *not_modified, bool alone);

enum head_effect { HEAD_LEAVES, HEAD_UPDATES, HEAD_INVALIDATES };
/* What the response to a HEAD does to a stored response to GET that could have answered it (4.3.5). Only a 200 does
 * anything. `length` is that of the stored body. INVALIDATES: it is to be validated before its next use. */
enum head_effect cache_head_effect(const struct headers *stored, uint64_t length, int status,
                                   const struct headers *head);

/* ---- invalidation (RFC 9111 4.4) */

/* May the answer to a POST be stored as if a GET had got it (RFC 9110 9.3.3)? A 200 that says how long it is fresh, and
 * that it is the representation of the target, by Content-Location. */
bool cache_post_answers_get(struct arena *, const struct target *, const struct response *,
                            const struct cache_control *told);
/* Does a response with this status to this method make what is stored for the target invalid? Unsafe and unknown
 * methods, 2xx and 3xx. */
bool cache_invalidates(enum method, int status);
/* The URI in Location or Content-Location of such a response, if it has the origin (scheme, host, port) of the target:
 * in `*out`, normalised like a target. False: absent, no URI reference, or of another origin, which must not be
 * invalidated. */
bool cache_invalidated_uri(struct arena *, const struct target *, struct slice value, struct target *out);
