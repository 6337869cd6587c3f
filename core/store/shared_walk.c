/* Walks over all keys of a shared dictionary, in steps of one short lock each.
 *
 * They go over the buckets in the order of their reversed numbers: when a table doubles, bucket i becomes i and
 * i + room, neighbours in that order, so that a walk in steps neither misses nor repeats what stays. */
#include "store/shared_inside.h"

#include "base/clock.h"

enum { WALK_BUCKETS = 256 };

static uint32_t reverse_bits(uint32_t n) {
    n = (n >> 1 & 0x55555555u) | (n & 0x55555555u) << 1;
    n = (n >> 2 & 0x33333333u) | (n & 0x33333333u) << 2;
    n = (n >> 4 & 0x0f0f0f0fu) | (n & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(n);
}

/* The next bucket in the order of reversed numbers; 0 after the last. */
static uint32_t bucket_after(uint32_t bucket, uint32_t mask) { return reverse_bits(reverse_bits(bucket | ~mask) + 1); }

size_t shared_walk(struct shared *d, struct shared_cursor *at, size_t bytes,
                   void (*each)(void *with, struct slice key, const struct shared_value *), void *with) {
    struct shard *s = &d->shards[at->shard];
    size_t seen = 0, shown = 0;
    double now = clock_monotonic();
    pthread_mutex_lock(&s->lock);
    while (s->room && seen < WALK_BUCKETS && shown < bytes) {
        uint32_t mask = (uint32_t)s->room - 1;
        for (const struct node *n = s->table[at->bucket & mask]; n; n = n->next) {
            if (n->expires != 0 && n->expires <= now) continue;
            struct shared_value v = node_value(n);
            each(with, node_key(n), &v);
            shown += node_cost(n);
        }
        seen++;
        at->bucket = bucket_after(at->bucket, mask);
        if (at->bucket == 0) break;
    }
    pthread_mutex_unlock(&s->lock);
    if (at->bucket == 0) at->ended = ++at->shard == SHARDS;
    return seen;
}
