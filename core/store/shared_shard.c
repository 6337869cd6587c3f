/* One shard of a dictionary: a chained hash table under a mutex.
 *
 * A sweep over all keys for what has expired would stall a worker, so those that expire stand in a heap besides; a read
 * takes an expired key for absent and leaves it.
 *
 * Nodes also stand in the order of their use. Where the config says `evict = "lru"`, each use bears the next number of
 * the dictionary, and every shard shows that of its first node to those who have not locked it. */
#include "store/shared_inside.h"

#include "base/clock.h"
#include "base/must.h"

#include <stdlib.h>

/* Above every number of a use: such a use is there. */
static const unsigned long long THERE = 1ull << 32;

/* ---- the order of use */

static void show_oldest(struct shard *s) {
    unsigned long long oldest = 0;
    if (!list_empty(&s->uses)) oldest = THERE | container_of(s->uses.next, struct node, use)->used;
    atomic_store_explicit(&s->oldest, oldest, memory_order_relaxed);
}

/* Numbers cost a line that all workers write, so only those who evict have them. */
static void add_use(struct shared *d, struct shard *s, struct node *n, bool numbered) {
    if (numbered) n->used = atomic_fetch_add_explicit(&d->uses, 1, memory_order_relaxed);
    list_push(&s->uses, &n->use);
    if (s->uses.next == &n->use) show_oldest(s);
}

static void remove_use(struct shard *s, struct node *n) {
    bool first = s->uses.next == &n->use;
    list_remove(&n->use);
    if (first) show_oldest(s);
}

void shard_note_use(struct shared *d, struct shard *s, struct node *n, const struct shared_bounds *bounds) {
    if (!bounds->evicts) return;
    remove_use(s, n);
    add_use(d, s, n, true);
}

/* ---- the table */

/* Doubles the table; without memory the chains grow longer instead. */
static bool grow_table(struct shard *s) {
    size_t room = s->room ? s->room * 2 : FIRST_ROOM;
    struct node **table = calloc(room, sizeof(struct node *));
    if (!table) return s->room > 0;
    for (size_t i = 0; i < s->room; i++) {
        for (struct node *n = s->table[i], *next; n; n = next) {
            next = n->next;
            n->next = table[n->hash & (room - 1)];
            table[n->hash & (room - 1)] = n;
        }
    }
    free(s->table);
    s->table = table;
    s->room = room;
    return true;
}

struct node **shard_find_place(struct shard *s, struct slice key, uint64_t hash) {
    if (s->room == 0) return NULL;
    struct node **place = &s->table[hash & (s->room - 1)];
    while (*place && !((*place)->hash == hash && slice_equal(node_key(*place), key))) place = &(*place)->next;
    return place;
}

struct node *shard_find(struct shard *s, struct slice key, uint64_t hash) {
    struct node **place = shard_find_place(s, key, hash);
    return place && *place && !node_has_expired(*place) ? *place : NULL;
}

void shard_drop_at(struct shared *d, struct shard *s, struct node **place) {
    struct node *n = *place;
    *place = n->next;
    remove_use(s, n);
    if (n->expires != 0) heap_remove(s, n);
    s->count--;
    atomic_fetch_sub_explicit(&d->count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&d->bytes, node_cost(n), memory_order_relaxed);
    free(n);
}

void shard_drop(struct shared *d, struct shard *s, const struct node *n) {
    struct node **place = shard_find_place(s, node_key(n), n->hash);
    must(place && *place == n);
    shard_drop_at(d, s, place);
}

void shard_drop_due(struct shared *d, struct shard *s, size_t most) {
    if (s->heap_count == 0) return;
    double now = clock_monotonic();
    while (most-- && s->heap_count && s->heap[0]->expires <= now) shard_drop(d, s, s->heap[0]);
}

bool shard_drop_oldest(struct shared *d, struct shard *s) {
    if (list_empty(&s->uses)) return false;
    shard_drop(d, s, container_of(s->uses.next, struct node, use));
    return true;
}

/* Sets the sum to what it will be; false, with nothing changed, beyond the limit. */
static bool reserve_bytes(struct shared *d, size_t limit, size_t more, size_t less) {
    size_t before = atomic_load_explicit(&d->bytes, memory_order_relaxed);
    do {
        if (before - less + more > limit && more > less) return false;
    } while (!atomic_compare_exchange_weak_explicit(&d->bytes, &before, before - less + more, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

bool shard_put(struct shared *d, struct shard *s, const struct shared_bounds *bounds, struct slice key, uint64_t hash,
               const struct shared_value *v, double expires) {
    if (s->count >= s->room && !grow_table(s)) return false;
    if (expires != 0 && !heap_reserve(s)) return false;
    struct node **place = shard_find_place(s, key, hash), *old = *place;
    size_t more = node_cost_of(key.n, shared_value_size(v)), less = old ? node_cost(old) : 0;
    if (!reserve_bytes(d, bounds->bytes, more, less)) return false;
    struct node *n = node_create(key, hash, v, expires);
    if (!n) {
        atomic_fetch_add_explicit(&d->bytes, less - more, memory_order_relaxed);
        return false;
    }
    n->next = old ? old->next : NULL;
    *place = n;
    if (old) {
        remove_use(s, old);
        if (old->expires != 0) heap_remove(s, old);
        free(old);
    } else {
        s->count++;
        atomic_fetch_add_explicit(&d->count, 1, memory_order_relaxed);
    }
    add_use(d, s, n, bounds->evicts);
    if (expires != 0) heap_add(s, n);
    return true;
}

/* ---- the whole */

void shard_init(struct shard *s) {
    pthread_mutexattr_t adaptive; /* it is held for less than it takes to be put to sleep */
    must(pthread_mutexattr_init(&adaptive) == 0);
    must(pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP) == 0);
    must(pthread_mutex_init(&s->lock, &adaptive) == 0);
    pthread_mutexattr_destroy(&adaptive);
    list_init(&s->uses);
}

struct shard *shard_lock(struct shared *d, uint64_t hash) {
    struct shard *s = &d->shards[hash >> 60];
    pthread_mutex_lock(&s->lock);
    return s;
}

void shard_empty(struct shard *s, struct list *nodes) {
    list_splice(nodes, &s->uses);
    show_oldest(s);
    if (s->room) memset(s->table, 0, s->room * sizeof(struct node *));
    s->count = s->heap_count = 0;
}

size_t nodes_free(struct list *nodes, size_t *cost) {
    size_t count = 0;
    for (struct list *node; (node = list_pop(nodes)); count++) {
        struct node *n = container_of(node, struct node, use);
        *cost += node_cost(n);
        free(n);
    }
    return count;
}

void shard_fini(struct shard *s) {
    size_t cost = 0;
    nodes_free(&s->uses, &cost);
    free(s->table);
    free(s->heap);
    pthread_mutex_destroy(&s->lock);
}
