/* The end of what is named and shared. */
#include "server/stores.h"

#include "store/cache.h"
#include "store/limit.h"
#include "store/lock.h"
#include "store/shared.h"

#include <limits.h>

/* They stay, under the names of their sites, and who comes next finds nothing in them. */
static void empty_caches(void) {
    for (struct cache *c = cache_next(NULL); c; c = cache_next(c)) {
        cache_purge_all(c, false);
        cache_sweep(c, UINT_MAX);
    }
}

void stores_close(void) {
    locks_close_all();
    shared_close_all();
    limit_close_all();
    empty_caches();
}
