/* Purging: by operators over the control socket and the admin listener, and by whoever a site's `cache.purge` allows
 * to, with the method PURGE:
 *
 *   PURGE /path                          that URL of the request's host, whatever its key and variants
 *   PURGE /prefix/ and a star            all URLs that begin so
 *   PURGE /, Surrogate-Key: a b          all that bears one of these tags (also Xkey, Cache-Tag)
 *   Cache-Purge: soft                    beside any of them: stale from now on instead of gone (also Fastly-Soft-Purge:
 *   1)
 *
 * http and https are not told apart: who purges often comes another way than those who read. */
#pragma once

#include "proxy/exchange.h"

enum purge_kind { PURGE_URL, PURGE_TAG, PURGE_PREFIX, PURGE_ALL };

struct purge_order {
    enum purge_kind kind;
    struct slice text; /* PURGE_ALL: not looked at */
    bool soft;
};
/* How many stored responses it hits, as far as that is known at once. In any thread. */
uint64_t purge_run(struct cache *, const struct purge_order *);

enum purge_answer {
    PURGE_NOT_OURS, /* another method, or the site has no `cache.purge`: to be treated as any request */
    PURGE_REFUSED,  /* not from this client */
    PURGE_WAITS,    /* memory is purged, the disk's journal is being written: the exchange is woken */
    PURGE_DONE      /* `reply` says so */
};
/* Asked again after a wake. */
enum purge_answer purge_receive(struct exchange *, struct reply *);
/* It waits no more. Safe when it never did. */
void purge_end(struct exchange *);
