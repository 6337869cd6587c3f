/* Fills: one request to the backend for all who want the same.
 *
 * A fill lies with its shard from cache_join until it is settled, and has the line of its followers. Settling is one
 * step under the shard's lock: what is stored can be found, the fill cannot any more, and its followers know. So
 * between two look-ups nobody can slip through, and each of the herd is either told or finds what was stored.
 *
 * Which requests are the same cannot be known before the response is there: its Vary tells. While nothing is known of
 * a key, all follow the first; those whom its response does not fit are told FILLED, do not find it, and join again,
 * now with a Vary to tell them apart. So nobody waits for more than two. A fill has the stored form of that Vary for
 * its own request, and those that match it follow.
 *
 * Fills are malloc'd: as many as there are fetches, each of which has much larger buffers. */
#include "store/cache_inside.h"

#include "base/map.h"
#include "base/must.h"
#include "base/refs.h"
#include "store/disk.h"

#include <stdlib.h>

struct cache_fill {
    struct cache_fill *next; /* in its shard's bucket */
    atomic_uint refs;        /* the leader's and its followers' */
    bool alone;              /* nobody follows it */
    enum cache_mark purged;  /* by its key, since it began: under the lock of its shard */
    struct cache *cache;
    uint64_t hash;
    uint64_t sequence; /* of purges, when it began */
    struct list followers;
    struct slice key, vary; /* vary n 0: all follow */
    char bytes[];
};

struct cache_key cache_key_of(struct slice bytes) {
    struct digest d = digest_bytes(bytes);
    return (struct cache_key){ bytes, { d.low, d.high } };
}

static struct shard *shard_of(const struct cache_fill *fill) { return index_shard(fill->cache, fill->hash); }

static struct cache_fill **bucket_of(struct shard *shard, uint64_t hash) {
    return &shard->fills[(hash >> 8) % FILL_BUCKETS];
}

static bool has_key(const struct cache_fill *fill, const struct cache_key *key) {
    return fill->hash == key->hash[0] && slice_equal(fill->key, key->bytes);
}

static void unref_fill(struct cache_fill *fill) {
    if (refs_give(&fill->refs)) free(fill);
}

/* With the shard locked. */
static struct cache_fill *begin(struct cache *cache, struct shard *shard, const struct cache_key *key,
                                struct slice vary) {
    struct cache_fill *fill = must_malloc(sizeof *fill + key->bytes.n + vary.n), **bucket;
    *fill = (struct cache_fill){ .refs = 1, .cache = cache, .hash = key->hash[0] };
    fill->sequence = marks_sequence(cache);
    list_init(&fill->followers);
    fill->key = slice_make(fill->bytes, key->bytes.n);
    fill->vary = slice_make(fill->bytes + key->bytes.n, vary.n);
    if (key->bytes.n) memcpy(fill->bytes, key->bytes.p, key->bytes.n);
    if (vary.n) memcpy(fill->bytes + key->bytes.n, vary.p, vary.n);
    bucket = bucket_of(shard, fill->hash);
    fill->next = *bucket;
    *bucket = fill;
    return fill;
}

static void unlink_fill(struct cache_fill *fill) {
    struct cache_fill **at = bucket_of(shard_of(fill), fill->hash);
    while (*at != fill) at = &(*at)->next;
    *at = fill->next;
}

/* With the shard locked. */
static void tell_followers(struct cache_fill *fill, enum cache_outcome outcome) {
    for (struct list *node; (node = list_pop(&fill->followers));) {
        struct cache_follower *f = container_of(node, struct cache_follower, node);
        atomic_store_explicit(&f->outcome, outcome, memory_order_release);
        f->tell(f);
    }
}

/* With the shard locked: nobody finds it any more, and its followers know. */
static void end_fill(struct cache_fill *fill, enum cache_outcome outcome) {
    unlink_fill(fill);
    tell_followers(fill, outcome);
}

static void settle(struct cache_fill *fill, enum cache_outcome outcome) {
    struct shard *shard = shard_of(fill);
    pthread_mutex_lock(&shard->lock);
    end_fill(fill, outcome);
    pthread_mutex_unlock(&shard->lock);
    unref_fill(fill);
}

void fills_purge(struct shard *shard, const struct cache_key *key, enum cache_mark mark) {
    for (struct cache_fill *fill = *bucket_of(shard, key->hash[0]); fill; fill = fill->next)
        if (has_key(fill, key) && fill->purged < mark) fill->purged = mark;
}

/* ---- joining */

static struct cache_fill *find_fill(struct shard *shard, const struct cache_key *key, const struct headers *request) {
    struct cache_fill *fill = *bucket_of(shard, key->hash[0]);
    for (; fill; fill = fill->next)
        if (!fill->alone && has_key(fill, key) && (!fill->vary.n || vary_matches(fill->vary, request))) return fill;
    return NULL;
}

static void follow(struct cache_fill *fill, struct cache_follower *f) {
    refs_take(&fill->refs);
    atomic_store_explicit(&f->outcome, CACHE_FILLING, memory_order_relaxed);
    f->fill = fill;
    list_push(&fill->followers, &f->node);
}

/* What the Vary of a stored variant makes of this request. */
static struct slice vary_of_request(struct arena *arena, const struct stored *varied, const struct headers *request) {
    if (!varied) return (struct slice){ 0 };
    struct headers stored = { .list = varied->head.headers, .count = varied->head.header_count };
    return vary_key(arena, &stored, request);
}

static struct cache_fill *lead(struct cache *cache, struct shard *shard, const struct cache_key *key,
                               const struct stored *varied, const struct headers *request) {
    struct arena arena;
    arena_init(&arena);
    struct cache_fill *fill = begin(cache, shard, key, vary_of_request(&arena, varied, request));
    arena_fini(&arena);
    return fill;
}

enum cache_turn cache_join(struct cache *cache, const struct cache_key *key, const struct headers *request,
                           const struct cached *known, struct cache_follower *follower, struct cache_fill **fill) {
    struct shard *shard = index_shard(cache, key->hash[0]);
    struct stored *dead = NULL;
    enum cache_turn turn;
    pthread_mutex_lock(&shard->lock);
    struct found f = index_search(cache, shard, key, request, &dead);
    struct cache_fill *running = find_fill(shard, key, request);
    if (f.best && &f.best->head != known) {
        turn = CACHE_CHANGED;
    } else if (running) {
        follow(running, follower);
        turn = CACHE_FOLLOW;
    } else {
        *fill = lead(cache, shard, key, f.varied, request);
        turn = CACHE_LEAD;
    }
    pthread_mutex_unlock(&shard->lock);
    stored_bury(dead);
    return turn;
}

void cache_fill_follow(struct cache_fill *fill, struct cache_follower *f) {
    struct shard *shard = shard_of(fill);
    pthread_mutex_lock(&shard->lock);
    follow(fill, f);
    pthread_mutex_unlock(&shard->lock);
}

/* It stays where it is, for purges to find. */
void cache_fill_release(struct cache_fill *fill) {
    struct shard *shard = shard_of(fill);
    pthread_mutex_lock(&shard->lock);
    fill->alone = true;
    tell_followers(fill, CACHE_LATE);
    pthread_mutex_unlock(&shard->lock);
}

struct cache_fill *cache_fill_alone(struct cache *cache, const struct cache_key *key, const struct headers *request) {
    struct shard *shard = index_shard(cache, key->hash[0]);
    pthread_mutex_lock(&shard->lock);
    struct cache_fill *fill = begin(cache, shard, key, (struct slice){ 0 });
    fill->alone = true;
    pthread_mutex_unlock(&shard->lock);
    return fill;
}

void cache_unfollow(struct cache_follower *f) {
    struct cache_fill *fill = f->fill;
    if (!fill) return;
    struct shard *shard = shard_of(fill);
    pthread_mutex_lock(&shard->lock);
    list_remove(&f->node);
    pthread_mutex_unlock(&shard->lock);
    f->fill = NULL;
    unref_fill(fill);
}

/* ---- settling */

/* From now on it can be found, in the place of `old` (may be NULL) and what else it replaces. */
static void publish(struct cache_fill *fill, struct stored *s, struct stored *old, bool all,
                    enum cache_outcome outcome) {
    struct cache *cache = fill->cache;
    struct shard *shard = shard_of(fill);
    struct stored *dead = NULL;
    pthread_mutex_lock(&shard->lock);
    index_link(cache, shard, s, old && old->linked ? old : NULL);
    marks_check(cache, s, fill->sequence);
    mark_raise(s, fill->purged);
    if (old && old->linked) index_unlink(cache, shard, old, REMOVED_REPLACED, &dead);
    index_replace(cache, shard, s, all, &dead);
    end_fill(fill, outcome);
    pthread_mutex_unlock(&shard->lock);
    stored_bury(dead);
    unref_fill(fill);
}

static struct cached *refuse(struct cache_fill *fill) {
    cache_count(&fill->cache->figures.refused, 1);
    settle(fill, CACHE_PASSED);
    return NULL;
}

static bool is_too_large(struct cache *cache, uint64_t length) {
    return length != UINT64_MAX && length > atomic_load_explicit(&cache->max_object, memory_order_relaxed);
}

struct cached *cache_fill_store(struct cache_fill *fill, const struct cache_draft *draft) {
    struct cache *cache = fill->cache;
    if (is_too_large(cache, draft->length)) return refuse(fill);
    struct cache_body *body = body_create(cache, draft->length);
    struct stored *s = body ? stored_create(cache, fill->key, fill->hash, draft, body) : NULL;
    if (!s) {
        body_unref(body);
        return refuse(fill);
    }
    cache_count(&cache->figures.stored, 1);
    if (draft->softly) mark_raise(s, MARK_SOFT);
    if (!draft->loaded) disk_supersede(cache, s->head.key, s->head.vary, draft->replaces_all);
    publish(fill, s, NULL, draft->replaces_all, draft->loaded ? CACHE_LOADED : CACHE_FILLED);
    return &s->head;
}

/* What is on disk has the old head. */
static bool expires_sooner(const struct freshness *fresh, const struct freshness *old) {
    int64_t span = fresh->received - fresh->initial_age + fresh->lifetime;
    return span < old->received - old->initial_age + old->lifetime || fresh->flags != old->flags;
}

struct cached *cache_fill_freshen(struct cache_fill *fill, struct cached *old, const struct cache_draft *draft) {
    struct cache *cache = fill->cache;
    struct cache_body *body = body_ref(old->body);
    struct stored *s = body_is_sound(body) ? stored_create(cache, fill->key, fill->hash, draft, body) : NULL;
    if (!s) {
        body_unref(body);
        return refuse(fill);
    }
    cache_count(&cache->figures.freshened, 1);
    if (expires_sooner(&draft->freshness, &old->freshness))
        disk_supersede(cache, s->head.key, s->head.vary, draft->replaces_all);
    publish(fill, s, STORED_OF(old), draft->replaces_all, CACHE_FILLED);
    if (!body_is_sound(body)) index_remove(cache, s, REMOVED_REFUSED); /* meanwhile: its writer saw the old head only */
    return &s->head;
}

void cache_fill_pass(struct cache_fill *fill, enum cache_rule rule, struct slice url, double seconds) {
    struct cache_draft draft = { .url = url, .rule = rule, .freshness = { .received = cache_now() } };
    draft.freshness.lifetime = (int64_t)(seconds * 1000);
    struct stored *s = seconds > 0 ? stored_create(fill->cache, fill->key, fill->hash, &draft, NULL) : NULL;
    if (!s) {
        settle(fill, CACHE_PASSED);
        return;
    }
    s->head.pass = true;
    publish(fill, s, NULL, false, CACHE_PASSED);
    cached_unref(&s->head);
}

void cache_fill_fail(struct cache_fill *fill) { settle(fill, CACHE_FAILED); }

void cache_fill_not_loaded(struct cache_fill *fill) { settle(fill, CACHE_NOT_LOADED); }
