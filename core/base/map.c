/* Open addressing with linear probing, a power of two of places, at most three quarters full. The hash is kept beside
 * the key, so a probe compares keys only when 64 bits agree, and growing does not hash again. Removal shifts the
 * run behind it back instead of leaving tombstones: a map that lives for months never fills up with dead places. */
#include "base/map.h"

#include "base/clock.h"
#include "base/must.h"

#include <xxhash.h>

#include <pthread.h>
#include <stdlib.h>

struct map_entry {
    uint64_t hash;
    char *key; /* NULL: the place is free */
    size_t n;
    void *value;
};

enum { ROOM_FIRST = 8 };

static uint64_t hash_seed;
static unsigned char digest_secret[XXH3_SECRET_SIZE_MIN + 56];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void choose_seed(void) {
    random_bytes(&hash_seed, sizeof hash_seed);
    random_bytes(digest_secret, sizeof digest_secret);
}

uint64_t hash_bytes(struct slice s) {
    pthread_once(&hash_once, choose_seed);
    return XXH3_64bits_withSeed(s.n ? s.p : "", s.n, hash_seed);
}

struct digest digest_bytes(struct slice s) {
    pthread_once(&hash_once, choose_seed);
    XXH128_hash_t hash = XXH3_128bits_withSecret(s.n ? s.p : "", s.n, digest_secret, sizeof digest_secret);
    return (struct digest){ hash.low64, hash.high64 };
}

/* XXH64 with seed 0 has been frozen since 2014: scripts may keep what it gave. */
uint64_t hash_bytes_stable(struct slice s) { return XXH64(s.n ? s.p : "", s.n, 0); }

/* The entry that holds the key, or the free place where it belongs. */
static struct map_entry *find_place(struct map_entry *entries, size_t room, uint64_t hash, struct slice key) {
    size_t i = hash & (room - 1);
    for (;; i = (i + 1) & (room - 1)) {
        struct map_entry *e = &entries[i];
        if (!e->key) return e;
        if (e->hash == hash && e->n == key.n && memcmp(e->key, key.n ? key.p : "", key.n) == 0) return e;
    }
}

static void grow_map(struct map *map) {
    size_t room = map->room ? map->room * 2 : ROOM_FIRST;
    struct map_entry *entries = must_calloc(room, sizeof *entries);
    for (size_t i = 0; i < map->room; i++) {
        struct map_entry *e = &map->entries[i];
        if (e->key) *find_place(entries, room, e->hash, slice_make(e->key, e->n)) = *e;
    }
    free(map->entries);
    map->entries = entries;
    map->room = room;
}

void map_fini(struct map *map) {
    if (!map) return;
    for (size_t i = 0; i < map->room; i++) free(map->entries[i].key);
    free(map->entries);
    *map = (struct map){ 0 };
}

void *map_get(const struct map *map, struct slice key) {
    if (!map->count) return NULL;
    const struct map_entry *e = find_place(map->entries, map->room, hash_bytes(key), key);
    return e->key ? e->value : NULL;
}

void *map_set(struct map *map, struct slice key, void *value) {
    must(value);
    if ((map->count + 1) * 4 > map->room * 3) grow_map(map);
    uint64_t hash = hash_bytes(key);
    struct map_entry *e = find_place(map->entries, map->room, hash, key);
    if (e->key) {
        void *former = e->value;
        e->value = value;
        return former;
    }
    char *copy = must_malloc(key.n);
    if (key.n) memcpy(copy, key.p, key.n);
    *e = (struct map_entry){ .hash = hash, .key = copy, .n = key.n, .value = value };
    map->count++;
    return NULL;
}

/* Moves every later entry of the run that may stand in the hole into it, until the run ends. */
static void close_hole(struct map *map, size_t hole) {
    size_t mask = map->room - 1;
    for (size_t i = (hole + 1) & mask; map->entries[i].key; i = (i + 1) & mask) {
        size_t home = map->entries[i].hash & mask;
        if (((i - home) & mask) < ((i - hole) & mask)) continue; /* it would stand before its home */
        map->entries[hole] = map->entries[i];
        hole = i;
    }
    map->entries[hole] = (struct map_entry){ 0 };
}

void *map_remove(struct map *map, struct slice key) {
    if (!map->count) return NULL;
    struct map_entry *e = find_place(map->entries, map->room, hash_bytes(key), key);
    if (!e->key) return NULL;
    void *former = e->value;
    free(e->key);
    close_hole(map, (size_t)(e - map->entries));
    map->count--;
    return former;
}

bool map_next(const struct map *map, size_t *i, struct slice *key, void **value) {
    while (*i < map->room && !map->entries[*i].key) ++*i;
    if (*i >= map->room) return false;
    const struct map_entry *e = &map->entries[(*i)++];
    *key = slice_make(e->key, e->n);
    *value = e->value;
    return true;
}
