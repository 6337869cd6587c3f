/* Shared dictionaries: sixteen shards, each a chained hash table under its own mutex, held for the length of one
 * operation.
 *
 * Memory is bounded per dictionary, by one atomic sum over its shards: a key's cost is its node, its bytes and its
 * share of the table. What has not expired is not evicted unless the config says so: a script counts on what it stored,
 * and a full dictionary says so. What has expired must never stand in the way, though, and a sweep over all keys would
 * stall a worker; so every shard keeps those of its keys that expire in a heap, soonest first. A write drops a few due
 * ones, a write that finds the dictionary full drops all of them, shard after shard, never with two locks held, and
 * then tries once more. A read takes an expired key for absent and leaves it.
 *
 * Nodes of a shard also stand in the order of their use. Where the config says `evict = "lru"`, each use bears the next
 * number of the dictionary, and a write that still finds no room drops the node with the lowest: every shard shows that
 * of its first node to those who have not locked it. (Choosing among the nodes of one's own shard was tried: in small
 * dictionaries it drops what was used a moment ago.)
 *
 * Walks go over the buckets in the order of their reversed numbers: when a table doubles, bucket i becomes i and
 * i + room, neighbours in that order, so that a walk in steps neither misses nor repeats what stays.
 *
 * The cache of the store is another thing: it holds bodies. */
#include "store/shared.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/map.h"
#include "base/must.h"
#include "store/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SHARDS = 16, FIRST_ROOM = 16, DUE_PER_WRITE = 4, EVICTING_ROUNDS = 4, WALK_BUCKETS = 256 };

struct node {
    struct node *next;
    struct list use; /* in the shard's list, used last at its end */
    uint64_t hash;
    double expires; /* monotonic seconds; 0: never */
    union {         /* by kind; strings and tables lie behind the key */
        bool boolean;
        int64_t integer;
        double number;
    };
    uint32_t heap_index; /* in the shard's heap, when it expires */
    uint32_t size;
    uint32_t used; /* number of its last use; they go round */
    uint16_t key_size;
    uint8_t kind; /* enum shared_kind */
    char bytes[];
};

/* A node's share of its shard's table and heap, and the allocator's word. */
enum { NODE_EXTRA = 3 * sizeof(void *) };

struct shard {
    pthread_mutex_t lock;
    struct node **table, **heap;
    size_t room, count, heap_room, heap_count;
    struct list uses;
    atomic_ullong oldest; /* written under the lock: THERE and `used` of the first in uses; 0: there is none */
} __attribute__((aligned(64)));

static const unsigned long long THERE = 1ull << 32;

struct shared {
    struct shard shards[SHARDS];
    atomic_size_t bytes, count;
    atomic_llong evicted, refused;
    atomic_uint uses; /* numbered so far */
    struct slice name;
    bool metered;
    struct shared *next;
};

static struct {
    pthread_mutex_t lock;
    struct shared *first;
    unsigned count;
} dictionaries = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- the heap of what expires */

static void heap_place(struct shard *s, size_t i, struct node *n) {
    s->heap[i] = n;
    n->heap_index = (uint32_t)i;
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

/* ---- nodes */

static bool has_bytes(enum shared_kind kind) { return kind == SHARED_STRING || kind == SHARED_TABLE; }

static size_t value_size(const struct shared_value *v) { return has_bytes(v->kind) ? v->string.n : 0; }

static size_t node_cost(size_t key, size_t value) { return sizeof(struct node) + NODE_EXTRA + key + value; }

static size_t cost_of(const struct node *n) { return node_cost(n->key_size, n->size); }

static struct slice key_of(const struct node *n) { return slice_make(n->bytes, n->key_size); }

/* As it lies there: not to be kept beyond the lock. */
static struct shared_value value_of(const struct node *n) {
    struct shared_value v = { .kind = (enum shared_kind)n->kind };
    if (has_bytes(v.kind)) v.string = slice_make(n->bytes + n->key_size, n->size);
    else if (v.kind == SHARED_BOOLEAN) v.boolean = n->boolean;
    else v.integer = n->integer; /* the bits of a number, too */
    return v;
}

static void set_scalar(struct node *n, const struct shared_value *v) {
    n->kind = (uint8_t)v->kind;
    if (v->kind == SHARED_BOOLEAN) n->boolean = v->boolean;
    else n->integer = v->integer;
}

/* NULL without memory: the size is a stranger's. */
static struct node *make_node(struct slice key, uint64_t hash, const struct shared_value *v, double expires) {
    struct node *n = malloc(sizeof *n + key.n + value_size(v));
    if (!n) return NULL;
    *n = (struct node){ .hash = hash, .expires = expires, .key_size = (uint16_t)key.n, .kind = (uint8_t)v->kind };
    list_init(&n->use);
    memcpy(n->bytes, key.p, key.n);
    if (!has_bytes(v->kind)) {
        set_scalar(n, v);
        return n;
    }
    n->size = (uint32_t)v->string.n;
    if (v->string.n) memcpy(n->bytes + key.n, v->string.p, v->string.n);
    return n;
}

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

static void note_use(struct shared *d, struct shard *s, struct node *n, const struct shared_bounds *bounds) {
    if (!bounds->evicts) return;
    remove_use(s, n);
    add_use(d, s, n, true);
}

/* The shard whose first node was used longest ago; NULL: there is none. */
static struct shard *find_oldest(struct shared *d) {
    struct shard *found = NULL;
    uint32_t now = atomic_load_explicit(&d->uses, memory_order_relaxed), age = 0;
    for (int i = 0; i < SHARDS; i++) {
        unsigned long long oldest = atomic_load_explicit(&d->shards[i].oldest, memory_order_relaxed);
        if (!oldest || (found && now - (uint32_t)oldest <= age)) continue;
        found = &d->shards[i];
        age = now - (uint32_t)oldest;
    }
    return found;
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
    remove_use(s, n);
    if (n->expires != 0) heap_remove(s, n);
    s->count--;
    atomic_fetch_sub_explicit(&d->count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&d->bytes, cost_of(n), memory_order_relaxed);
    free(n);
}

/* The same for one whose place is not known. */
static void drop_found(struct shared *d, struct shard *s, const struct node *n) {
    struct node **place = find_place(s, key_of(n), n->hash);
    must(place && *place == n);
    drop_node(d, s, place);
}

/* ---- expiry */

/* Asks for the time only if the key can expire. */
static bool has_expired(const struct node *n) { return n->expires != 0 && n->expires <= clock_monotonic(); }

static void drop_due(struct shared *d, struct shard *s, size_t most) {
    if (s->heap_count == 0) return;
    double now = clock_monotonic();
    while (most-- && s->heap_count && s->heap[0]->expires <= now) drop_found(d, s, s->heap[0]);
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
static bool reserve_bytes(struct shared *d, size_t limit, size_t more, size_t less) {
    size_t before = atomic_load_explicit(&d->bytes, memory_order_relaxed);
    do {
        if (before - less + more > limit && more > less) return false;
    } while (!atomic_compare_exchange_weak_explicit(&d->bytes, &before, before - less + more, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

/* Puts a node for the key in, in place of the one it may have. False when the dictionary is full or there is no
 * memory. */
static bool put_node(struct shared *d, struct shard *s, const struct shared_bounds *bounds, struct slice key,
                     uint64_t hash, const struct shared_value *v, double expires) {
    if (s->count >= s->room && !grow_table(s)) return false;
    if (expires != 0 && !heap_reserve(s)) return false;
    struct node **place = find_place(s, key, hash), *old = *place;
    size_t more = node_cost(key.n, value_size(v)), less = old ? cost_of(old) : 0;
    if (!reserve_bytes(d, bounds->bytes, more, less)) return false;
    struct node *n = make_node(key, hash, v, expires);
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

/* ---- changes: what may need room */

enum change_kind { CHANGE_SET, CHANGE_SWAP, CHANGE_INCR };

struct change {
    enum change_kind kind;
    const struct shared_bounds *bounds;
    struct slice key;
    uint64_t hash;
    const struct shared_value *value; /* SET, SWAP; INCR: what is added */
    const struct shared_value *other; /* SWAP: what must be there; INCR: the start, or NULL */
    double expires;
    enum shared_when when; /* SET */
    bool keeps;            /* SWAP: the former's expiry */
    bool done;
    struct shared_value sum; /* INCR */
};

static bool put_changed(struct shared *d, struct shard *s, struct change *c, const struct shared_value *v) {
    c->done = put_node(d, s, c->bounds, c->key, c->hash, v, c->expires);
    return c->done;
}

/* The three return false when there is no room, with nothing changed. */

static bool change_by_set(struct shared *d, struct shard *s, struct change *c) {
    if (c->when != SHARED_ALWAYS && (c->when == SHARED_IF_PRESENT) != (find_live(s, c->key, c->hash) != NULL))
        return true;
    return put_changed(d, s, c, c->value);
}

static bool same_value(const struct node *n, const struct shared_value *v) {
    if (!n || n->kind != (uint8_t)v->kind) return !n && v->kind == SHARED_NIL;
    struct shared_value there = value_of(n);
    if (has_bytes(v->kind)) return slice_equal(there.string, v->string);
    return v->kind == SHARED_BOOLEAN ? there.boolean == v->boolean : there.integer == v->integer;
}

static bool change_by_swap(struct shared *d, struct shard *s, struct change *c) {
    struct node *n = find_live(s, c->key, c->hash);
    if (!same_value(n, c->other)) return true;
    if (c->value->kind == SHARED_NIL) {
        c->done = true;
        if (n) drop_found(d, s, n);
        return true;
    }
    if (c->keeps) c->expires = n ? n->expires : 0;
    return put_changed(d, s, c, c->value);
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

static bool change_by_incr(struct shared *d, struct shard *s, struct change *c) {
    struct node *n = find_live(s, c->key, c->hash);
    struct shared_value there = n ? value_of(n) : (struct shared_value){ .kind = SHARED_NIL };
    const struct shared_value *base = n ? &there : c->other;
    if (!base || !is_number(base)) return true;
    struct shared_value sum = add_values(base, c->value);
    if (n) {
        set_scalar(n, &sum);
        note_use(d, s, n, c->bounds);
        c->done = true;
    } else if (!put_changed(d, s, c, &sum)) return false;
    c->sum = sum;
    return true;
}

static bool try_change(struct shared *d, struct change *c) {
    static bool (*const ways[])(struct shared *, struct shard *, struct change *) = { change_by_set, change_by_swap,
                                                                                      change_by_incr };
    struct shard *s = lock_shard(d, c->hash);
    drop_due(d, s, DUE_PER_WRITE);
    bool ok = ways[c->kind](d, s, c);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

/* Drops what was used longest ago until there is room. */
static void evict_for(struct shared *d, const struct change *c) {
    size_t need = node_cost(c->key.n, c->kind == CHANGE_INCR ? 0 : value_size(c->value));
    while (atomic_load_explicit(&d->bytes, memory_order_relaxed) + need > c->bounds->bytes) {
        struct shard *s = find_oldest(d);
        if (!s) return;
        pthread_mutex_lock(&s->lock);
        if (!list_empty(&s->uses)) {
            drop_found(d, s, container_of(s->uses.next, struct node, use));
            atomic_fetch_add_explicit(&d->evicted, 1, memory_order_relaxed);
        }
        pthread_mutex_unlock(&s->lock);
    }
}

/* Others may take the room that was made, so there are several rounds. */
static enum failure make_change(struct shared *d, struct change *c) {
    if (try_change(d, c)) return FAIL_NONE;
    drop_all_due(d);
    if (try_change(d, c)) return FAIL_NONE;
    for (int i = 0; c->bounds->evicts && i < EVICTING_ROUNDS; i++) {
        evict_for(d, c);
        if (try_change(d, c)) return FAIL_NONE;
    }
    atomic_fetch_add_explicit(&d->refused, 1, memory_order_relaxed);
    return FAIL_FULL;
}

/* ---- what others call */

static double expiry_of(double ttl) { return ttl > 0 ? clock_monotonic() + ttl : 0; }

static bool is_key(struct slice key) { return key.n >= 1 && key.n <= SHARED_KEY_MAX; }

static bool fits(const struct shared_bounds *b, struct slice key, const struct shared_value *v) {
    return is_key(key) && value_size(v) < UINT32_MAX && node_cost(key.n, value_size(v)) <= b->bytes;
}

enum failure shared_set(struct shared *d, const struct shared_bounds *bounds, struct slice key,
                        const struct shared_value *v, double ttl, enum shared_when when, bool *done) {
    if (done) *done = false;
    if (!fits(bounds, key, v)) return FAIL_TOO_LARGE;
    if (v->kind == SHARED_NIL) {
        bool removed = shared_remove(d, key);
        if (done) *done = removed;
        return FAIL_NONE;
    }
    struct change c = { .kind = CHANGE_SET, .bounds = bounds, .key = key, .hash = hash_bytes(key), .value = v };
    c.expires = expiry_of(ttl);
    c.when = when;
    enum failure why = make_change(d, &c);
    if (done) *done = c.done;
    return why;
}

enum failure shared_swap(struct shared *d, const struct shared_bounds *bounds, struct slice key,
                         const struct shared_value *old, const struct shared_value *v, double ttl, bool *done) {
    *done = false;
    if (!fits(bounds, key, v)) return FAIL_TOO_LARGE;
    struct change c = { .kind = CHANGE_SWAP, .bounds = bounds, .key = key, .hash = hash_bytes(key), .value = v };
    c.other = old;
    c.expires = expiry_of(ttl);
    c.keeps = ttl < 0;
    enum failure why = make_change(d, &c);
    *done = c.done;
    return why;
}

enum failure shared_incr(struct shared *d, const struct shared_bounds *bounds, struct slice key,
                         const struct shared_value *by, const struct shared_value *start, double ttl,
                         struct shared_value *out) {
    *out = (struct shared_value){ .kind = SHARED_NIL };
    if (!is_key(key)) return FAIL_TOO_LARGE;
    struct change c = { .kind = CHANGE_INCR, .bounds = bounds, .key = key, .hash = hash_bytes(key), .value = by };
    c.other = start;
    c.expires = expiry_of(ttl);
    enum failure why = make_change(d, &c);
    *out = c.sum;
    return why;
}

/* A copy that its taker owns, in `room` if it fits; NIL without memory. */
static struct shared_value copy_value(struct shared_value v, char *room, size_t size) {
    if (!has_bytes(v.kind)) return v;
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

static double time_left(const struct node *n) { return n->expires != 0 ? n->expires - clock_monotonic() : 0; }

void shared_get(struct shared *d, const struct shared_bounds *bounds, struct slice key, char *room, size_t size,
                struct shared_value *out, double *ttl_left) {
    *out = (struct shared_value){ .kind = SHARED_NIL };
    if (ttl_left) *ttl_left = 0;
    if (!is_key(key)) return;
    uint64_t hash = hash_bytes(key);
    struct shard *s = lock_shard(d, hash);
    struct node *n = find_live(s, key, hash);
    if (n) {
        *out = copy_value(value_of(n), room, size);
        if (ttl_left) *ttl_left = time_left(n);
        note_use(d, s, n, bounds);
    }
    pthread_mutex_unlock(&s->lock);
}

enum shared_kind shared_look(struct shared *d, struct slice key, double *ttl_left) {
    *ttl_left = 0;
    if (!is_key(key)) return SHARED_NIL;
    uint64_t hash = hash_bytes(key);
    struct shard *s = lock_shard(d, hash);
    const struct node *n = find_live(s, key, hash);
    enum shared_kind kind = n ? (enum shared_kind)n->kind : SHARED_NIL;
    if (n) *ttl_left = time_left(n);
    pthread_mutex_unlock(&s->lock);
    return kind;
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

bool shared_touch(struct shared *d, const struct shared_bounds *bounds, struct slice key, double ttl) {
    if (!is_key(key)) return false;
    uint64_t hash = hash_bytes(key);
    double expires = expiry_of(ttl);
    struct shard *s = lock_shard(d, hash);
    struct node *n = find_live(s, key, hash);
    bool ok = n && (expires == 0 || heap_reserve(s));
    if (ok) {
        if (n->expires != 0) heap_remove(s, n);
        n->expires = expires;
        if (expires != 0) heap_add(s, n);
        note_use(d, s, n, bounds);
    }
    pthread_mutex_unlock(&s->lock);
    return ok;
}

/* ---- all of it */

static void init_shard(struct shard *s) {
    pthread_mutexattr_t adaptive; /* it is held for less than it takes to be put to sleep */
    must(pthread_mutexattr_init(&adaptive) == 0);
    must(pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP) == 0);
    must(pthread_mutex_init(&s->lock, &adaptive) == 0);
    pthread_mutexattr_destroy(&adaptive);
    list_init(&s->uses);
}

/* Frees the nodes of a list of uses; how many, and what they cost. */
static size_t free_nodes(struct list *uses, size_t *cost) {
    size_t count = 0;
    for (struct list *node; (node = list_pop(uses)); count++) {
        struct node *n = container_of(node, struct node, use);
        *cost += cost_of(n);
        free(n);
    }
    return count;
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
        list_splice(&nodes, &s->uses);
        show_oldest(s);
        if (s->room) memset(s->table, 0, s->room * sizeof(struct node *));
        s->count = s->heap_count = 0;
        pthread_mutex_unlock(&s->lock);
        size_t count = free_nodes(&nodes, &cost);
        atomic_fetch_sub_explicit(&d->count, count, memory_order_relaxed);
        atomic_fetch_sub_explicit(&d->bytes, cost, memory_order_relaxed);
        all += count;
    }
    return all;
}

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
            struct shared_value v = value_of(n);
            each(with, key_of(n), &v);
            shown += cost_of(n);
        }
        seen++;
        at->bucket = bucket_after(at->bucket, mask);
        if (at->bucket == 0) break;
    }
    pthread_mutex_unlock(&s->lock);
    if (at->bucket == 0) at->ended = ++at->shard == SHARDS;
    return seen;
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
    for (int i = 0; i < SHARDS; i++) init_shard(&d->shards[i]);
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

static void free_shard(struct shard *s) {
    size_t cost = 0;
    free_nodes(&s->uses, &cost);
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
    dictionaries.count = 0;
}
