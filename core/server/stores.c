/* The end of what is named and shared. */
#include "server/stores.h"

#include "store/cache.h"
#include "store/limit.h"
#include "store/lock.h"
#include "store/shared.h"

void stores_close(void) {
    locks_close_all();
    shared_close_all();
    limit_close_all();
    cache_close_all();
}
