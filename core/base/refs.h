/* References that threads share: a count of those who hold something, which begins at 1 with its maker. */
#pragma once

#include "base/must.h"

#include <stdatomic.h>
#include <stdbool.h>

static inline void refs_take(atomic_uint *refs) { atomic_fetch_add_explicit(refs, 1, memory_order_relaxed); }

/* True: it was the last one. Who gave back before is seen in all that he did. */
static inline bool refs_give(atomic_uint *refs) {
    unsigned before = atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel);
    must(before > 0);
    return before == 1;
}

/* Gives back any but the last one; false: it is that. Whoever keeps what he shares in a registry gives the last one back
 * under its lock, or another could be handed out what is dying. */
static inline bool refs_give_early(atomic_uint *refs) {
    unsigned held = atomic_load_explicit(refs, memory_order_relaxed);
    while (held > 1)
        if (atomic_compare_exchange_weak_explicit(refs, &held, held - 1, memory_order_acq_rel, memory_order_relaxed))
            return true;
    return false;
}
