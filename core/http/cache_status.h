/* Cache-Status (RFC 9211): what this cache did with a request. */
#pragma once

#include "http/freshness.h"

enum cache_fwd {
    CACHE_HIT, /* nothing was forwarded */
    CACHE_FWD_BYPASS,
    CACHE_FWD_METHOD,
    CACHE_FWD_URI_MISS,
    CACHE_FWD_VARY_MISS,
    CACHE_FWD_MISS,
    CACHE_FWD_REQUEST,
    CACHE_FWD_STALE,
    CACHE_FWD_PARTIAL,
    CACHE_OWN /* neither: the answer is about the cache itself */
};
struct slice cache_fwd_word(enum cache_fwd); /* "hit", "bypass", "method", "uri-miss", … */

/* The same in one word for people: in the access log, in metrics, in what scripts see. */
#define CACHE_RESULTS(RESULT)                                                                                          \
    RESULT(HIT, "hit")                 /* a fresh answer was there */                                                  \
    RESULT(STALE, "stale")             /* a stale one was, and was good enough */                                      \
    RESULT(REVALIDATED, "revalidated") /* a stale one was, and the backend said that it still holds */                 \
    RESULT(COLLAPSED, "collapsed")     /* somebody else was fetching it, and what he got answered this one, too */     \
    RESULT(MISS, "miss")               /* it was fetched for this request */                                           \
    RESULT(PASS, "pass")               /* it was fetched for this request alone: it is not for others */               \
    RESULT(BYPASS, "bypass")           /* the cache was not asked: policy, method or request wanted it so */

enum cache_result {
#define CACHE_RESULT_ENUM(id, word) CACHE_RESULT_##id,
    CACHE_RESULTS(CACHE_RESULT_ENUM)
#undef CACHE_RESULT_ENUM
        CACHE_RESULT_COUNT
};
const char *cache_result_word(enum cache_result);

struct cache_status {
    struct slice cache; /* our name: a token, else written as a string; not empty, printable ASCII */
    enum cache_fwd fwd;
    int fwd_status; /* the status that came back; 0: left out. Only when forwarded */
    bool has_ttl;
    int64_t ttl;         /* ms of freshness left, may be negative: written in whole seconds, rounded down */
    bool stored;         /* only when forwarded */
    bool collapsed;      /* it waited for somebody else's request. Only when forwarded: by him, */
    bool in_vain;        /* or, since what he got was not for it, by itself after all */
    struct slice detail; /* a word (cache_rule_word), p NULL: none; what is no token is written as a string */
};

/* One member (RFC 9211 2), the value of a new Cache-Status line: field lines of one name are one list, so that the line
 * stands behind what came from upstream. In the arena. */
struct slice cache_status_write(struct arena *, const struct cache_status *);
/* Adds it to the response behind upstream's members, which are kept (RFC 9211 2). What upstream sent is dropped if it
 * is no valid list: it would make the whole field unreadable. */
void cache_status_add(struct headers *, const struct cache_status *);
