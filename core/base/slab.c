/* Free lists of equal objects. A free object's first word links to the next; there is no header, no colouring and
 * no lock. malloc alone would do (its per-thread cache is nearly as fast), but its caches stop at small sizes and
 * counts, and a chunk of 16 KiB would go through its slow path on every read.
 *
 * Under AddressSanitizer and in the hard build nothing is kept: every give is a free, so that a use after free is
 * seen where it happens. */
#include "base/slab.h"

#include "base/must.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_KEEPS false
#endif
#endif
#if !defined(SLAB_KEEPS) && (defined(__SANITIZE_ADDRESS__) || defined(MOONGATE_HARD))
#define SLAB_KEEPS false
#endif
#ifndef SLAB_KEEPS
#define SLAB_KEEPS true
#endif

void *slab_take(struct slab *slab) {
    void *object = slab->free;
    if (!object) return must_malloc(slab->size < sizeof(void *) ? sizeof(void *) : slab->size);
    memcpy(&slab->free, object, sizeof slab->free);
    slab->kept--;
    return object;
}

void *slab_take_zeroed(struct slab *slab) { return memset(slab_take(slab), 0, slab->size); }

void slab_give(struct slab *slab, void *object) {
    if (!object) return;
    if (!SLAB_KEEPS || slab->kept >= slab->keep) {
        free(object);
        return;
    }
    memcpy(object, &slab->free, sizeof slab->free);
    slab->free = object;
    slab->kept++;
}

void slab_fini(struct slab *slab) {
    while (slab->free) {
        void *object = slab->free;
        memcpy(&slab->free, object, sizeof slab->free);
        free(object);
    }
    slab->kept = 0;
}
