/* Changes to a shared dictionary: what may need room.
 *
 * What has not expired is not evicted unless the config says so: a script counts on what it stored, and a full
 * dictionary says so. What has expired must never stand in the way, though. A write drops a few due keys, a write that
 * finds the dictionary full drops all of them, shard after shard, never with two locks held, and then tries once more.
 *
 * Where the config says `evict = "lru"`, a write that still finds no room drops the node that was used longest ago in
 * the whole dictionary. (Choosing among the nodes of one's own shard was tried: in small dictionaries it drops what was
 * used a moment ago.) */
#include "store/shared_inside.h"

#include "base/map.h"

enum { DUE_PER_WRITE = 4, EVICTING_ROUNDS = 4 };

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
    c->done = shard_put(d, s, c->bounds, c->key, c->hash, v, c->expires);
    return c->done;
}

/* The three return false when there is no room, with nothing changed. */

static bool change_by_set(struct shared *d, struct shard *s, struct change *c) {
    if (c->when != SHARED_ALWAYS && (c->when == SHARED_IF_PRESENT) != (shard_find(s, c->key, c->hash) != NULL))
        return true;
    return put_changed(d, s, c, c->value);
}

static bool same_value(const struct node *n, const struct shared_value *v) {
    if (!n || n->kind != (uint8_t)v->kind) return !n && v->kind == SHARED_NIL;
    struct shared_value there = node_value(n);
    if (kind_has_bytes(v->kind)) return slice_equal(there.string, v->string);
    return v->kind == SHARED_BOOLEAN ? there.boolean == v->boolean : there.integer == v->integer;
}

static bool change_by_swap(struct shared *d, struct shard *s, struct change *c) {
    struct node *n = shard_find(s, c->key, c->hash);
    if (!same_value(n, c->other)) return true;
    if (c->value->kind == SHARED_NIL) {
        c->done = true;
        if (n) shard_drop(d, s, n);
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
    struct node *n = shard_find(s, c->key, c->hash);
    struct shared_value there = n ? node_value(n) : (struct shared_value){ .kind = SHARED_NIL };
    const struct shared_value *base = n ? &there : c->other;
    if (!base || !is_number(base)) return true;
    struct shared_value sum = add_values(base, c->value);
    if (n) {
        node_set_scalar(n, &sum);
        shard_note_use(d, s, n, c->bounds);
        c->done = true;
    } else if (!put_changed(d, s, c, &sum)) return false;
    c->sum = sum;
    return true;
}

static bool try_change(struct shared *d, struct change *c) {
    static bool (*const ways[])(struct shared *, struct shard *, struct change *) = { change_by_set, change_by_swap,
                                                                                      change_by_incr };
    struct shard *s = shard_lock(d, c->hash);
    shard_drop_due(d, s, DUE_PER_WRITE);
    bool ok = ways[c->kind](d, s, c);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

/* ---- room */

static void drop_all_due(struct shared *d) {
    for (int i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&d->shards[i].lock);
        shard_drop_due(d, &d->shards[i], SIZE_MAX);
        pthread_mutex_unlock(&d->shards[i].lock);
    }
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

/* Drops what was used longest ago until there is room. */
static void evict_for(struct shared *d, const struct change *c) {
    size_t need = node_cost_of(c->key.n, c->kind == CHANGE_INCR ? 0 : shared_value_size(c->value));
    while (atomic_load_explicit(&d->bytes, memory_order_relaxed) + need > c->bounds->bytes) {
        struct shard *s = find_oldest(d);
        if (!s) return;
        pthread_mutex_lock(&s->lock);
        if (shard_drop_oldest(d, s)) atomic_fetch_add_explicit(&d->evicted, 1, memory_order_relaxed);
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

static bool fits(const struct shared_bounds *b, struct slice key, const struct shared_value *v) {
    return node_key_fits(key) && shared_value_size(v) < UINT32_MAX &&
           node_cost_of(key.n, shared_value_size(v)) <= b->bytes;
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
    c.expires = node_expiry(ttl);
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
    c.expires = node_expiry(ttl);
    c.keeps = ttl < 0;
    enum failure why = make_change(d, &c);
    *done = c.done;
    return why;
}

enum failure shared_incr(struct shared *d, const struct shared_bounds *bounds, struct slice key,
                         const struct shared_value *by, const struct shared_value *start, double ttl,
                         struct shared_value *out) {
    *out = (struct shared_value){ .kind = SHARED_NIL };
    if (!node_key_fits(key)) return FAIL_TOO_LARGE;
    struct change c = { .kind = CHANGE_INCR, .bounds = bounds, .key = key, .hash = hash_bytes(key), .value = by };
    c.other = start;
    c.expires = node_expiry(ttl);
    enum failure why = make_change(d, &c);
    *out = c.sum;
    return why;
}
