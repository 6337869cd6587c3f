/* A hash map from byte strings to pointers: open addressing, hashed with a seed of this process (xxhash), so
 * that strangers cannot choose collisions. Keys are copied. Not thread-safe. Zeroed is empty and valid. */
#pragma once

#include "base/slice.h"

struct map_entry;

struct map {
    struct map_entry *entries;
    size_t count, room;
};

void map_fini(struct map *);
void *map_get(const struct map *, struct slice key);        /* NULL: absent */
void *map_set(struct map *, struct slice key, void *value); /* returns the former; value is not NULL */
void *map_remove(struct map *, struct slice key);           /* returns the former or NULL */
/* Visits all in no order: `for (size_t i = 0; map_next(&m, &i, &key, &value);)`. No change meanwhile. */
bool map_next(const struct map *, size_t *i, struct slice *key, void **value);

uint64_t hash_bytes(struct slice);        /* seeded once per process */
uint64_t hash_bytes_stable(struct slice); /* the same in every process and version: for scripts (gate.hash) */

/* 128 bits that stand for a byte string where keeping it would cost too much: two strings share them by chance once in
 * 2^64 tries. Hashed with 192 random bytes of this process, so that nobody outside can look for two that do. */
struct digest {
    uint64_t low, high;
};
struct digest digest_bytes(struct slice);
static inline bool digest_equal(struct digest a, struct digest b) { return a.low == b.low && a.high == b.high; }
