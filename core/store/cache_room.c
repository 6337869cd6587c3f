/* Room for what comes, at the expense of what is there: S3-FIFO (Yang et al., SOSP 2023).
 *
 * New objects enter a small queue, a tenth of the memory. Most are never asked for again: they leave it at its other
 * end and only a fingerprint is remembered, for as many as the main queue has objects. What was used while it stood in
 * the small queue goes on to the main one; so does, at once, what comes back while it is remembered. The main queue is
 * a FIFO in which each use (up to three) buys another round. A scan, or wonders of one hit, pass through the small
 * queue and do not touch the rest.
 *
 * A use is a number written in the object, under the lock of its shard which the look-up holds anyway; queues are
 * touched only when something is stored or evicted. (LRU would take the queues' lock, and write two neighbours, for
 * every hit; and hits less.)
 *
 * Differences from the paper: sizes count in memory units, not objects; a victim is chosen in bounded time, so after
 * LOOKS objects that were all used one goes anyway; and what arrives or is being read gets out of the way while there
 * is anything else, for its memory would not come back at once.
 *
 * Fingerprints lie in a table of small sets, with the number of their entry: no list, and old ones are just no longer
 * believed. */
#include "store/cache_inside.h"

#include "base/must.h"

enum { LOOKS = 256, PROMOTING_USES = 1 };

static struct queue *queue_of(struct room *r, const struct stored *s) {
    return s->queue == QUEUE_SMALL ? &r->small : &r->main;
}

/* ---- fingerprints */

static struct ghost *ghost_set(const struct room *r, uint64_t hash) {
    return &r->ghosts[hash & r->ghost_mask & ~(size_t)(GHOST_WAYS - 1)];
}

static uint32_t ghost_print(uint64_t hash) { return (uint32_t)(hash >> 32) | 1; }

static void ghost_add(struct room *r, uint64_t hash) {
    struct ghost *set = ghost_set(r, hash), *oldest = set;
    uint32_t now = ++r->ghost_clock;
    for (int i = 0; i < GHOST_WAYS; i++) {
        if (now - set[i].when > now - oldest->when) oldest = &set[i];
        if (set[i].print) continue;
        oldest = &set[i];
        break;
    }
    *oldest = (struct ghost){ ghost_print(hash), now };
}

static bool ghost_take(struct room *r, uint64_t hash) {
    struct ghost *set = ghost_set(r, hash);
    for (int i = 0; i < GHOST_WAYS; i++) {
        if (set[i].print != ghost_print(hash)) continue;
        bool young = r->ghost_clock - set[i].when < r->main.count;
        set[i].print = 0;
        return young;
    }
    return false;
}

/* ---- queues */

static void enter(struct room *r, struct stored *s, enum cache_queue which, struct list *before) {
    s->queue = (uint8_t)which;
    struct queue *q = queue_of(r, s);
    list_push(before ? before : &q->list, &s->place);
    q->units += s->weight;
    q->count++;
}

static void leave(struct room *r, struct stored *s) {
    struct queue *q = queue_of(r, s);
    list_remove(&s->place);
    q->units -= s->weight;
    q->count--;
    s->queue = QUEUE_NONE;
}

static void requeue(struct room *r, struct stored *s, enum cache_queue which) {
    leave(r, s);
    enter(r, s, which, NULL);
}

static unsigned uses_of(const struct stored *s) { return atomic_load_explicit(&s->uses, memory_order_relaxed); }

static void set_uses(struct stored *s, unsigned uses) {
    atomic_store_explicit(&s->uses, (unsigned char)uses, memory_order_relaxed);
}

void room_enter(struct cache *cache, struct stored *s, struct stored *like) {
    struct room *r = &cache->room;
    struct cache_body *body = s->head.body;
    pthread_mutex_lock(&r->lock);
    s->weight = s->units + (body ? body->units : 0);
    if (body) {
        if (body->owner) { /* `like`, whose weight it was */
            struct stored *old = body->owner;
            old->weight -= body->units;
            if (old->queue) queue_of(r, old)->units -= body->units;
        }
        body->owner = s;
    }
    if (like && like->queue) {
        set_uses(s, uses_of(like));
        enter(r, s, (enum cache_queue)like->queue, &like->place);
    } else {
        enter(r, s, ghost_take(r, s->hash) ? QUEUE_MAIN : QUEUE_SMALL, NULL);
    }
    pthread_mutex_unlock(&r->lock);
}

void room_leave(struct cache *cache, struct stored *s) {
    struct cache_body *body = s->head.body;
    pthread_mutex_lock(&cache->room.lock);
    if (s->queue) leave(&cache->room, s);
    if (body && body->owner == s) body->owner = NULL;
    pthread_mutex_unlock(&cache->room.lock);
}

bool room_is_used(struct cache *cache, struct stored *s) {
    pthread_mutex_lock(&cache->room.lock);
    bool main = s->queue == QUEUE_MAIN;
    pthread_mutex_unlock(&cache->room.lock);
    return main || uses_of(s) >= PROMOTING_USES;
}

struct stored *room_owner(struct cache *cache, struct cache_body *body) {
    pthread_mutex_lock(&cache->room.lock);
    struct stored *s = body->owner;
    if (s) cached_ref(&s->head);
    pthread_mutex_unlock(&cache->room.lock);
    return s;
}

/* ---- victims */

/* Somebody has it: it arrives, or is read. Its memory would not come back at once. */
static bool is_busy(const struct stored *s) {
    return atomic_load_explicit(&s->head.refs, memory_order_relaxed) > 1 ||
           (s->head.body && (uint32_t)atomic_load_explicit(&s->head.body->refs, memory_order_relaxed) > 1);
}

static struct stored *first_of(const struct queue *q) { return container_of(q->list.next, struct stored, place); }

static struct stored *small_victim(struct room *r) {
    uint64_t most = r->small.count < LOOKS ? r->small.count : LOOKS;
    for (uint64_t looked = 0; looked < most; looked++) {
        struct stored *s = first_of(&r->small);
        if (is_busy(s)) {
            requeue(r, s, QUEUE_SMALL);
        } else if (uses_of(s) >= PROMOTING_USES) {
            set_uses(s, 0);
            requeue(r, s, QUEUE_MAIN);
        } else {
            ghost_add(r, s->hash);
            return s;
        }
    }
    return NULL;
}

static struct stored *main_victim(struct room *r) {
    struct stored *idle = NULL;
    uint64_t most = r->main.count < LOOKS / 4 ? r->main.count * 4 : LOOKS;
    for (uint64_t looked = 0; looked < most; looked++) {
        struct stored *s = first_of(&r->main);
        if (!is_busy(s)) {
            if (!uses_of(s)) return s;
            set_uses(s, uses_of(s) - 1);
            idle = s;
        }
        requeue(r, s, QUEUE_MAIN);
    }
    return idle;
}

/* When there is nothing better: whatever has been there longest. */
static struct stored *any_victim(const struct room *r) {
    if (r->main.count) return first_of(&r->main);
    return r->small.count ? first_of(&r->small) : NULL;
}

/* In no queue any more, and a reference. NULL: there is nothing to evict. */
static struct stored *take_victim(struct cache *cache) {
    struct room *r = &cache->room;
    bool small_first = r->small.units * MEMORY_UNIT * 10 > r->memory.limit || !r->main.count;
    struct stored *s = small_first ? small_victim(r) : main_victim(r);
    if (!s) s = small_first ? main_victim(r) : small_victim(r);
    if (!s) s = any_victim(r);
    if (!s) return NULL;
    cache_count(&cache->figures.evicted_bytes, (uint64_t)s->weight * MEMORY_UNIT);
    leave(r, s);
    cached_ref(&s->head);
    return s;
}

static void evict(struct cache *cache, struct stored *s) {
    index_remove(cache, s, REMOVED_EVICTED);
    cached_unref(&s->head);
}

/* ---- memory */

/* Its body's units count in the weight of the head that owns it. */
static void weigh(struct room *r, struct cache_body *body, int64_t units) {
    if (!body) return;
    body->units = (uint32_t)(body->units + units);
    if (!body->owner) return;
    body->owner->weight = (uint32_t)(body->owner->weight + units);
    if (body->owner->queue) queue_of(r, body->owner)->units += (uint64_t)units;
}

void *room_take(struct cache *cache, struct cache_body *owner, uint32_t want, uint32_t least, uint32_t *units) {
    struct room *r = &cache->room;
    for (;;) {
        pthread_mutex_lock(&r->lock);
        void *run = cache_memory_take(&r->memory, want, least, units);
        if (run) weigh(r, owner, *units);
        struct stored *victim = run ? NULL : take_victim(cache);
        pthread_mutex_unlock(&r->lock);
        if (!victim) return run;
        evict(cache, victim);
    }
}

void room_give(struct cache *cache, struct cache_body *owner, void *run, uint32_t units) {
    pthread_mutex_lock(&cache->room.lock);
    weigh(&cache->room, owner, -(int64_t)units);
    cache_memory_give(&cache->room.memory, run, units);
    pthread_mutex_unlock(&cache->room.lock);
}

void room_settle(struct cache *cache) {
    struct room *r = &cache->room;
    for (;;) {
        pthread_mutex_lock(&r->lock);
        struct stored *victim = r->memory.used > r->memory.limit ? take_victim(cache) : NULL;
        if (!victim) cache_memory_shrink(&r->memory);
        pthread_mutex_unlock(&r->lock);
        if (!victim) return;
        evict(cache, victim);
    }
}
