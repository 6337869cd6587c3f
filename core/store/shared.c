/* Shared dictionaries: sixteen shards, each a chained hash table under its own mutex, held for the length of one
 * operation.
 *
 * Memory is bounded per dictionary, by one atomic sum over its shards: a key's cost is its node, its bytes and its
 * share of the table. What has not expired is never evicted: a script counts on what it stored, and a full dictionary
 * says so. What has expired must never stand in the way, though, and a sweep over all keys would stall a worker; so
 * every shard keeps those of its keys that expire in a heap, soonest first. A write drops a few due ones, a write that
 * finds the dictionary full drops all of them, shard after shard, never with two locks held, and then tries once more.
 * A read takes an expired key for absent and leaves it.
 *
 * The cache of the store is another thing: it evicts, and it holds bodies. */
#include "store/shared.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/must.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SHARDS = 16, FIRST_ROOM = 16, KEY_LIMIT = 1024, DUE_PER_WRITE = 4 };
enum { DEFAULT_BYTES = 16 * 1024 * 1024 };

struct node {
    struct node *next;
    uint64_t hash;
    double expires;            /* monotonic seconds; 0: never */
    size_t heap_index;         /* in the shard's heap, when it expires */
    struct shared_value value; /* strings: string.p points into `bytes` */
    uint32_t key_size;
    char bytes[]; /* the key, then the string */
};

/* A node's share of its shard's table and heap. */
enum { NODE_EXTRA = 2 * sizeof(struct node *) };

struct shard {
    pthread_mutex_t lock;
    struct node **table, **heap;
    size_t room, count, heap_room, heap_count;
} __attribute__((aligned(64)));

struct shared {
    struct shard shards[SHARDS];
    size_t limit;
    atomic_size_t bytes, count;
    struct slice name;
    struct shared *next;
};

static struct {
    pthread_mutex_t lock;
    struct shared *first;
} dictionaries = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- the heap of what expires */

static void heap_place(struct shard *s, size_t i, struct node *n) {
    s->heap[i] = n;
    n->heap_index = i;
}

static void heap_rise(struct shard *s, size_t i, struct node *n) {
    while (i > 0 && s->heap[(i - 1) / 2]->expires > n->expires) {
        heap_place(s, i, s->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_place(s, i, n);
}

static void heap_sink(struct shard *s, size_t i, struct node *n) {
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->heap_count) break;
        if (child + 1 < s->heap_count && s->heap[child + 1]->expires < s->heap[child]->expires) child++;
        if (s->heap[child]->expires >= n->expires) break;
        heap_place(s, i, s->heap[child]);
        i = child;
    }
    heap_place(s, i, n);
}

static bool heap_reserve(struct shard *s) {
    if (s->heap_count < s->heap_room) return true;
    size_t room = s->heap_room ? s->heap_room * 2 : FIRST_ROOM;
    struct node **heap = realloc(s->heap, room * sizeof *heap);
    if (!heap) return false;
    s->heap = heap;
    s->heap_room = room;
    return true;
}

static void heap_add(struct shard *s, struct node *n) {
    s->heap_count++;
    heap_rise(s, s->heap_count - 1, n);
}

static void heap_remove(struct shard *s, struct node *n) {
    size_t i = n->heap_index;
    struct node *last = s->heap[--s->heap_count];
    if (last == n) return;
    if (i > 0 && s->heap[(i - 1) / 2]->expires > last->expires) heap_rise(s, i, last);
    else heap_sink(s, i, last);
}

/* ---- nodes and the table */

static size_t value_size(const struct shared_value *v) { return v->kind == SHARED_STRING ? v->string.n : 0; }

static size_t node_cost(size_t key, size_t value) { return sizeof(struct node) + NODE_EXTRA + key + value; }

static size_t cost_of(const struct node *n) { return node_cost(n->key_size, value_size(&n->value)); }

static struct slice key_of(const struct node *n) { return slice_make(n->bytes, n->key_size); }

/* NULL without memory: the size is a stranger's. */
static struct node *make_node(struct slice key, uint64_t hash, const struct shared_value *v, double expires) {
    struct node *n = malloc(sizeof *n + key.n + value_size(v));
    if (!n) return NULL;
    *n = (struct node){ .hash = hash, .expires = expires, .value = *v, .key_size = (uint32_t)key.n };
    memcpy(n->bytes, key.p, key.n);
    if (v->kind != SHARED_STRING) return n;
    if (v->string.n) memcpy(n->bytes + key.n, v->string.p, v->string.n);
    n->value.string.p = n->bytes + key.n;
    return n;
}

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

/* The pointer that points at the key's node, or at the end of its chain; NULL when there is no table. */
static struct node **find_place(struct shard *s, struct slice key, uint64_t hash) {
    if (s->room == 0) return NULL;
    struct node **place = &s->table[hash & (s->room - 1)];
    while (*place && !((*place)->hash == hash && slice_equal(key_of(*place), key))) place = &(*place)->next;
    return place;
}

/* Takes the node at `place` out and frees it. */
static void drop_node(struct shared *d, struct shard *s, struct node **place) {
    struct node *n = *place;
    *place = n->next;
    if (n->expires != 0) heap_remove(s, n);
    s->count--;
    atomic_fetch_sub_explicit(&d->count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&d->bytes, cost_of(n), memory_order_relaxed);
    free(n);
}

/* ---- expiry */

/* Asks for the time only if the key can expire. */
static bool has_expired(const struct node *n) { return n->expires != 0 && n->expires <= clock_monotonic(); }

static void drop_due(struct shared *d, struct shard *s, size_t most) {
    if (s->heap_count == 0) return;
    double now = clock_monotonic();
    while (most-- && s->heap_count && s->heap[0]->expires <= now) {
        struct node *n = s->heap[0];
        struct node **place = find_place(s, key_of(n), n->hash);
        must(place && *place == n);
        drop_node(d, s, place);
    }
}

static void drop_all_due(struct shared *d) {
    for (int i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&d->shards[i].lock);
        drop_due(d, &d->shards[i], SIZE_MAX);
        pthread_mutex_unlock(&d->shards[i].lock);
    }
}

/* ---- operations on one locked shard */

static struct shard *lock_shard(struct shared *d, uint64_t hash) {
    struct shard *s = &d->shards[hash >> 60];
    pthread_mutex_lock(&s->lock);
    return s;
}

/* The key's live node, NULL if there is none. */
static struct node *find_live(struct shard *s, struct slice key, uint64_t hash) {
    struct node **place = find_place(s, key, hash);
    return place && *place && !has_expired(*place) ? *place : NULL;
}

/* Sets the sum to what it will be; false, with nothing changed, beyond the limit. */
static bool reserve_bytes(struct shared *d, size_t more, size_t less) {
    size_t before = atomic_load_explicit(&d->bytes, memory_order_relaxed);
    do {
        if (before - less + more > d->limit && more > less) return false;
    } while (!atomic_compare_exchange_weak_explicit(&d->bytes, &before, before - less + more, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

/* Puts a node for the key in, in place of the one it may have. False when the dictionary is full or there is no
 * memory. */
static bool put_node(struct shared *d, struct shard *s, struct slice key, uint64_t hash, const struct shared_value *v,
                     double expires) {
    if (s->count >= s->room && !grow_table(s)) return false;
    if (expires != 0 && !heap_reserve(s)) return false;
    struct node **place = find_place(s, key, hash), *old = *place;
    size_t more = node_cost(key.n, value_size(v)), less = old ? cost_of(old) : 0;
    if (!reserve_bytes(d, more, less)) return false;
    struct node *n = make_node(key, hash, v, expires);
    if (!n) {
        atomic_fetch_add_explicit(&d->bytes, less - more, memory_order_relaxed);
        return false;
    }
    n->next = old ? old->next : NULL;
    *place = n;
    if (old) {
        if (old->expires != 0) heap_remove(s, old);
        free(old);
    } else {
        s->count++;
        atomic_fetch_add_explicit(&d->count, 1, memory_order_relaxed);
    }
    if (expires != 0) heap_add(s, n);
    return true;
}

static double expiry_of(double ttl) { return ttl > 0 ? clock_monotonic() + ttl : 0; }

static bool is_key(struct slice key) { return key.n >= 1 && key.n <= KEY_LIMIT; }

/* ---- what others call */

/* Sets the key unless `*added` is asked for and it is there. False when full. */
static bool try_set(struct shared *d, struct slice key, uint64_t hash, const struct shared_value *v, double expires,
                    bool *added) {
    struct shard *s = lock_shard(d, hash);
    drop_due(d, s, DUE_PER_WRITE);
    bool there = added && find_live(s, key, hash), ok = there || put_node(d, s, key, hash, v, expires);
    if (added) *added = ok && !there;
    pthread_mutex_unlock(&s->lock);
    return ok;
}

static enum failure set_or_add(struct shared *d, struct slice key, const struct shared_value *v, double ttl,
                               bool *added) {
    if (added) *added = false;
    if (!is_key(key) || value_size(v) > d->limit) return FAIL_TOO_LARGE;
    uint64_t hash = hash_bytes(key);
    double expires = expiry_of(ttl);
    if (try_set(d, key, hash, v, expires, added)) return FAIL_NONE;
    drop_all_due(d);
    return try_set(d, key, hash, v, expires, added) ? FAIL_NONE : FAIL_TOO_LARGE;
}

enum failure shared_set(struct shared *d, struct slice key, const struct shared_value *v, double ttl) {
    if (v->kind != SHARED_NIL) return set_or_add(d, key, v, ttl, NULL);
    shared_remove(d, key);
    return FAIL_NONE;
}

enum failure shared_add(struct shared *d, struct slice key, const struct shared_value *v, double ttl, bool *added) {
    return set_or_add(d, key, v, ttl, added);
}

/* A copy that its taker owns; NIL without memory. */
static struct shared_value copy_value(const struct shared_value *v) {
    if (v->kind != SHARED_STRING) return *v;
    char *p = malloc(v->string.n + 1);
    if (!p) return (struct shared_value){ .kind = SHARED_NIL };
    memcpy(p, v->string.p, v->string.n);
    p[v->string.n] = 0;
    return (struct shared_value){ .kind = SHARED_STRING, .string = slice_make(p, v->string.n) };
}

void shared_value_fini(struct shared_value *v) {
    if (v->kind == SHARED_STRING) free((void *)(uintptr_t)v->string.p);
    v->kind = SHARED_NIL;
}

void shared_get(struct shared *d, struct slice key, struct shared_value *out, double *ttl_left) {
    *out = (struct shared_value){ .kind = SHARED_NIL };
    if (ttl_left) *ttl_left = 0;
    if (!is_key(key)) return;
    uint64_t hash = hash_bytes(key);
    struct shard *s = lock_shard(d, hash);
    struct node *n = find_live(s, key, hash);
    if (n) {
        *out = copy_value(&n->value);
        if (ttl_left && n->expires != 0) *ttl_left = n->expires - clock_monotonic();
    }
    pthread_mutex_unlock(&s->lock);
}

bool shared_remove(struct shared *d, struct slice key) {
    if (!is_key(key)) return false;
    uint64_t hash = hash_bytes(key);
    struct shard *s = lock_shard(d, hash);
    struct node **place = find_place(s, key, hash);
    bool there = place && *place, live = there && !has_expired(*place);
    if (there) drop_node(d, s, place);
    pthread_mutex_unlock(&s->lock);
    return live;
}

static bool is_number(const struct shared_value *v) { return v->kind == SHARED_INTEGER || v->kind == SHARED_NUMBER; }

static double to_number(const struct shared_value *v) {
    return v->kind == SHARED_INTEGER ? (double)v->integer : v->number;
}

/* Integers wrap round, as Lua's do. */
static struct shared_value add_values(const struct shared_value *a, const struct shared_value *b) {
    if (a->kind == SHARED_INTEGER && b->kind == SHARED_INTEGER)
        return (struct shared_value){ .kind = SHARED_INTEGER,
                                      .integer = (int64_t)((uint64_t)a->integer + (uint64_t)b->integer) };
    return (struct shared_value){ .kind = SHARED_NUMBER, .number = to_number(a) + to_number(b) };
}

/* False when full, with `*out` NIL; NIL and true: not a number. */
static bool try_incr(struct shared *d, struct slice key, uint64_t hash, const struct shared_value *by,
                     const struct shared_value *start, double expires, struct shared_value *out) {
    *out = (struct shared_value){ .kind = SHARED_NIL };
    struct shard *s = lock_shard(d, hash);
    struct node *n = find_live(s, key, hash);
    bool ok = true;
    if (n && is_number(&n->value)) {
        *out = n->value = add_values(&n->value, by);
    } else if (!n && start && is_number(start)) {
        drop_due(d, s, DUE_PER_WRITE);
        struct shared_value sum = add_values(start, by);
        ok = put_node(d, s, key, hash, &sum, expires);
        if (ok) *out = sum;
    }
    pthread_mutex_unlock(&s->lock);
    return ok;
}

bool shared_incr(struct shared *d, struct slice key, const struct shared_value *by, const struct shared_value *start,
                 double ttl, struct shared_value *out, enum failure *why) {
    *out = (struct shared_value){ .kind = SHARED_NIL };
    *why = is_key(key) ? FAIL_NONE : FAIL_TOO_LARGE;
    if (*why || !is_number(by)) return false;
    uint64_t hash = hash_bytes(key);
    double expires = expiry_of(ttl);
    bool ok = try_incr(d, key, hash, by, start, expires, out);
    if (!ok) {
        drop_all_due(d);
        ok = try_incr(d, key, hash, by, start, expires, out);
    }
    if (!ok) *why = FAIL_TOO_LARGE;
    return ok && out->kind != SHARED_NIL;
}

/* The live keys of one shard, each with its length before it; NULL if there are none. */
static char *copy_keys(struct shard *s, size_t *size) {
    size_t most = 0, used = 0;
    double now = clock_monotonic();
    for (size_t i = 0; i < s->room; i++)
        for (const struct node *n = s->table[i]; n; n = n->next) most += sizeof n->key_size + n->key_size;
    char *copy = most ? malloc(most) : NULL;
    for (size_t i = 0; copy && i < s->room; i++) {
        for (const struct node *n = s->table[i]; n; n = n->next) {
            if (n->expires != 0 && n->expires <= now) continue;
            memcpy(copy + used, &n->key_size, sizeof n->key_size);
            memcpy(copy + used + sizeof n->key_size, n->bytes, n->key_size);
            used += sizeof n->key_size + n->key_size;
        }
    }
    *size = used;
    return copy;
}

void shared_keys(struct shared *d, bool (*each)(void *with, struct slice key), void *with) {
    bool more = true;
    for (int i = 0; i < SHARDS && more; i++) {
        size_t size;
        pthread_mutex_lock(&d->shards[i].lock);
        char *keys = copy_keys(&d->shards[i], &size);
        pthread_mutex_unlock(&d->shards[i].lock);
        for (size_t at = 0; keys && at < size && more;) {
            uint32_t n;
            memcpy(&n, keys + at, sizeof n);
            more = each(with, slice_make(keys + at + sizeof n, n));
            at += sizeof n + n;
        }
        free(keys);
    }
}

size_t shared_bytes(const struct shared *d) { return atomic_load_explicit(&d->bytes, memory_order_relaxed); }

size_t shared_count(const struct shared *d) { return atomic_load_explicit(&d->count, memory_order_relaxed); }

/* ---- the dictionaries */

static struct shared *make_dictionary(struct slice name, size_t bytes) {
    struct shared *d = aligned_alloc(_Alignof(struct shared), sizeof *d);
    must(d != NULL);
    memset(d, 0, sizeof *d);
    d->limit = bytes ? bytes : DEFAULT_BYTES;
    d->name = slice_make(must_strndup(name.n ? name.p : "", name.n), name.n);
    for (int i = 0; i < SHARDS; i++) must(pthread_mutex_init(&d->shards[i].lock, NULL) == 0);
    return d;
}

struct shared *shared_open(struct slice name, size_t bytes) {
    pthread_mutex_lock(&dictionaries.lock);
    struct shared *d = dictionaries.first;
    while (d && !slice_equal(d->name, name)) d = d->next;
    if (!d) {
        d = make_dictionary(name, bytes);
        d->next = dictionaries.first;
        dictionaries.first = d;
    }
    pthread_mutex_unlock(&dictionaries.lock);
    return d;
}

static void free_shard(struct shard *s) {
    for (size_t i = 0; i < s->room; i++) {
        for (struct node *n = s->table[i], *next; n; n = next) {
            next = n->next;
            free(n);
        }
    }
    free(s->table);
    free(s->heap);
    pthread_mutex_destroy(&s->lock);
}

void shared_close_all(void) {
    while (dictionaries.first) {
        struct shared *d = dictionaries.first;
        dictionaries.first = d->next;
        for (int i = 0; i < SHARDS; i++) free_shard(&d->shards[i]);
        free((void *)(uintptr_t)d->name.p);
        free(d);
    }
}
