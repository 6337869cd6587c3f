/* Shared dictionaries: sixteen shards, each a chained hash table under its own mutex, held for the length of one
 * operation.
 *
 * Memory is bounded per dictionary, by one atomic sum over its shards: a key's cost is its node, its bytes and its
 * share of the table. What is done here needs no more of it; what does is in shared_change.c.
 *
 * The cache of the store is another thing: it holds bodies. */
#include "store/shared_inside.h"

#include "base/map.h"
#include "base/must.h"
#include "store/metrics.h"

#include <stdlib.h>

static struct {
    pthread_mutex_t lock;
    struct shared *first;
    unsigned count;
} dictionaries = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- keys and values */

/* A copy that its taker owns, in `room` if it fits; NIL without memory. */
static struct shared_value copy_value(struct shared_value v, char *room, size_t size) {
    if (!kind_has_bytes(v.kind)) return v;
    v.owned = v.string.n > size;
    char *p = v.owned ? malloc(v.string.n) : room;
    if (!p) return (struct shared_value){ .kind = SHARED_NIL };
    if (v.string.n) memcpy(p, v.string.p, v.string.n);
    v.string.p = p;
    return v;
}

void shared_value_fini(struct shared_value *v) {
    if (v->owned) free((void *)(uintptr_t)v->string.p);
    *v = (struct shared_value){ .kind = SHARED_NIL };
}

void shared_get(struct shared *d, const struct shared_bounds *bounds, struct slice key, char *room, size_t size,
                struct shared_value *out, double *ttl_left) {
    *out = (struct shared_value){ .kind = SHARED_NIL };
    if (ttl_left) *ttl_left = 0;
    if (!node_key_fits(key)) return;
    uint64_t hash = hash_bytes(key);
    struct shard *s = shard_lock(d, hash);
    struct node *n = shard_find(s, key, hash);
    if (n) {
        *out = copy_value(node_value(n), room, size);
        if (ttl_left) *ttl_left = node_time_left(n);
        shard_note_use(d, s, n, bounds);
    }
    pthread_mutex_unlock(&s->lock);
}

enum shared_kind shared_look(struct shared *d, struct slice key, double *ttl_left) {
    *ttl_left = 0;
    if (!node_key_fits(key)) return SHARED_NIL;
    uint64_t hash = hash_bytes(key);
    struct shard *s = shard_lock(d, hash);
    const struct node *n = shard_find(s, key, hash);
    enum shared_kind kind = n ? (enum shared_kind)n->kind : SHARED_NIL;
    if (n) *ttl_left = node_time_left(n);
    pthread_mutex_unlock(&s->lock);
    return kind;
}

bool shared_remove(struct shared *d, struct slice key) {
    if (!node_key_fits(key)) return false;
    uint64_t hash = hash_bytes(key);
    struct shard *s = shard_lock(d, hash);
    struct node **place = shard_find_place(s, key, hash);
    bool there = place && *place, live = there && !node_has_expired(*place);
    if (there) shard_drop_at(d, s, place);
    pthread_mutex_unlock(&s->lock);
    return live;
}

bool shared_touch(struct shared *d, const struct shared_bounds *bounds, struct slice key, double ttl) {
    if (!node_key_fits(key)) return false;
    uint64_t hash = hash_bytes(key);
    double expires = node_expiry(ttl);
    struct shard *s = shard_lock(d, hash);
    struct node *n = shard_find(s, key, hash);
    bool ok = n && (expires == 0 || heap_reserve(s));
    if (ok) {
        if (n->expires != 0) heap_remove(s, n);
        n->expires = expires;
        if (expires != 0) heap_add(s, n);
        shard_note_use(d, s, n, bounds);
    }
    pthread_mutex_unlock(&s->lock);
    return ok;
}

/* The nodes go without the lock. */
size_t shared_clear(struct shared *d) {
    size_t all = 0;
    for (int i = 0; i < SHARDS; i++) {
        struct shard *s = &d->shards[i];
        struct list nodes;
        size_t cost = 0;
        list_init(&nodes);
        pthread_mutex_lock(&s->lock);
        shard_empty(s, &nodes);
        pthread_mutex_unlock(&s->lock);
        size_t count = nodes_free(&nodes, &cost);
        atomic_fetch_sub_explicit(&d->count, count, memory_order_relaxed);
        atomic_fetch_sub_explicit(&d->bytes, cost, memory_order_relaxed);
        all += count;
    }
    return all;
}

size_t shared_bytes(const struct shared *d) { return atomic_load_explicit(&d->bytes, memory_order_relaxed); }

size_t shared_count(const struct shared *d) { return atomic_load_explicit(&d->count, memory_order_relaxed); }

/* ---- the dictionaries */

static int64_t read_entries(const void *with) { return (int64_t)shared_count(with); }
static int64_t read_bytes(const void *with) { return (int64_t)shared_bytes(with); }

static int64_t read_evicted(const void *with) {
    return atomic_load_explicit(&((const struct shared *)with)->evicted, memory_order_relaxed);
}

static int64_t read_refused(const void *with) {
    return atomic_load_explicit(&((const struct shared *)with)->refused, memory_order_relaxed);
}

/* The run for the config comes before there are metrics: then the next opening does it. */
static void open_metrics(struct shared *d) {
    char text[512];
    struct label label = { "dictionary", d->name };
    struct slice labels = metric_labels(text, sizeof text, &label, 1);
    if (d->metered) return;
    d->metered = metric_get_with(METRIC_GAUGE, "moongate_shared_entries",
                                 "Keys in a shared dictionary, expired ones included", labels, read_entries, d);
    metric_get_with(METRIC_GAUGE, "moongate_shared_bytes", "Bytes that a shared dictionary takes", labels, read_bytes,
                    d);
    metric_get_with(METRIC_COUNTER, "moongate_shared_evictions_total",
                    "Keys that a shared dictionary dropped to make room", labels, read_evicted, d);
    metric_get_with(METRIC_COUNTER, "moongate_shared_refused_total", "Writes that a full shared dictionary refused",
                    labels, read_refused, d);
}

static struct shared *make_dictionary(struct slice name) {
    struct shared *d = aligned_alloc(_Alignof(struct shared), sizeof *d);
    must(d != NULL);
    memset(d, 0, sizeof *d);
    d->name = slice_make(must_strndup(name.n ? name.p : "", name.n), name.n);
    for (int i = 0; i < SHARDS; i++) shard_init(&d->shards[i]);
    d->next = dictionaries.first;
    dictionaries.first = d;
    dictionaries.count++;
    return d;
}

struct shared *shared_open(struct slice name) {
    pthread_mutex_lock(&dictionaries.lock);
    struct shared *d = dictionaries.first;
    while (d && !slice_equal(d->name, name)) d = d->next;
    if (!d && dictionaries.count < SHARED_MOST) d = make_dictionary(name);
    if (d) open_metrics(d);
    pthread_mutex_unlock(&dictionaries.lock);
    return d;
}

void shared_close_all(void) {
    while (dictionaries.first) {
        struct shared *d = dictionaries.first;
        dictionaries.first = d->next;
        for (int i = 0; i < SHARDS; i++) shard_fini(&d->shards[i]);
        free((void *)(uintptr_t)d->name.p);
        free(d);
    }
    dictionaries.count = 0;
}
