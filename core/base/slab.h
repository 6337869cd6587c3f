/* Free lists for objects of one size (client, conn, exchange, chunk, segment, arena block). A slab is
 * declared `static _Thread_local struct slab s = SLAB(struct thing, keep);`: each thread has its own, so
 * taking and giving are a few instructions and no lock. At most `keep` free objects stay; the rest go
 * back to malloc, so memory of a peak is returned. Under AddressSanitizer and in the hard build nothing is kept, so
 * that a use after free is seen. An object may be given back by another thread than took it. */
#pragma once

#include <stddef.h>

struct slab {
    void *free;
    size_t size;
    unsigned kept, keep;
};

#define SLAB(type, keep_)                                                                                              \
    { NULL, sizeof(type), 0, (keep_) }
#define SLAB_BYTES(bytes, keep_)                                                                                       \
    { NULL, (bytes), 0, (keep_) }

void *slab_take(struct slab *); /* uninitialised; aborts without memory */
void *slab_take_zeroed(struct slab *);
void slab_give(struct slab *, void *); /* NULL is ignored */
void slab_fini(struct slab *);         /* frees what is kept: at the end of a thread */
