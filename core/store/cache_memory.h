/* The memory of one cache: a hard limit, and what is counted against it is what the process really grows by.
 *
 * It is given out in runs: whole units of MEMORY_UNIT bytes, as many as are wanted and no more, contiguous, at most
 * MEMORY_RUN_MOST bytes. A run may be cut shorter, or given back, at any unit. Nothing is rounded up to powers of two.
 *
 * Not thread-safe: all calls are made under one lock of the owner's. */
#pragma once

#include "base/list.h"

#include <stdint.h>

enum { MEMORY_UNIT = 64, MEMORY_RUN_MOST = 1 << 20, MEMORY_BINS = 192 };

struct region;

struct cache_memory {
    uint64_t limit, used;              /* bytes; used: runs, their maps, and what was reserved */
    uint64_t mapped;                   /* bytes of all regions, and what was reserved */
    uint64_t filled[MEMORY_BINS / 64]; /* a bit for each bin with something in it */
    struct list bins[MEMORY_BINS];     /* free runs, by length */
    struct region *regions;
};

/* False: no memory can be mapped (errno). `reserved` bytes, the owner's tables, count but lie elsewhere. */
bool cache_memory_init(struct cache_memory *, uint64_t limit, uint64_t reserved);
void cache_memory_fini(struct cache_memory *); /* all runs are gone, too; safe when zeroed */
/* May be less than what is used: then nothing is given out until enough came back. */
void cache_memory_set_limit(struct cache_memory *, uint64_t limit);
void cache_memory_reserve(struct cache_memory *, uint64_t bytes);
void cache_memory_release(struct cache_memory *, uint64_t bytes);

/* A run of `want` units, or the largest there is if that has at least `least`; `*units` tells. NULL: there is none.
 * 1 <= least <= want. The bytes are not cleared. */
void *cache_memory_take(struct cache_memory *, uint32_t want, uint32_t least, uint32_t *units);
/* A whole run or a part of one. */
void cache_memory_give(struct cache_memory *, void *run, uint32_t units);
/* Bytes of address space that have been touched, at most. */
uint64_t cache_memory_touched(const struct cache_memory *);
/* Gives the pages of long free runs back to the system. */
void cache_memory_shrink(struct cache_memory *);

static inline uint32_t memory_units(uint64_t bytes) { return (uint32_t)((bytes + MEMORY_UNIT - 1) / MEMORY_UNIT); }
