/* What operators want of the caches: figures, purges, why something is answered as it is, and warming. Orders and
 * answers are JSON; they come over the control socket (`moongate cache`) and from the admin listener.
 *
 *   { "do": "status" }
 *   { "do": "purge", "url" or "tag" or "prefix": "…", or "all": true; "soft": true, "site": "…" }
 *   { "do": "why", "url": "…", "lines": [ "Name: value" ], "site": "…" }
 *   { "do": "warm", "url": "…", "site": "…" } */
#pragma once

#include <jansson.h>

struct instance;
struct message;
struct cache_order;

/* Who gave an order; embedded. */
struct cache_asker {
    struct cache_order *order; /* NULL: it is answered */
    /* Once, maybe from within cache_order_begin. 0: `text` is JSON; 1: it went wrong, 2: it is no such order, and
     * `text` is a sentence. To be freed. */
    void (*answered)(struct cache_asker *, int status, char *text);
};

/* In the keeper's thread, as cancelling. The order is not kept. */
void cache_order_begin(struct instance *, const json_t *order, struct cache_asker *);
void cache_order_cancel(struct cache_asker *); /* safe when it is answered */
/* The keeper stops serving: purges that wait for a disk are answered with an error. */
void cache_orders_end(struct instance *);

/* The supervisor's MESSAGE_CACHE; in the main thread. */
void cache_order_take(struct instance *, const struct message *);
