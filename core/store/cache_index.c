/* The index: buckets of heads, by key and again by URL. Variants of a key are neighbours in its bucket, the latest
 * first; so are those of other keys that fall there, and a look-up goes by their hashes before it compares bytes.
 *
 * Tables do not grow with what is in them: there is a bucket for each KiB of the limit (a URL's: for each two), 1.2 %
 * of it, touched as they are used. Growing would hold a shard for as long as its objects take to be found again; open
 * addressing was rejected because it needs the same, and a place of 16 bytes where a bucket has 8. Only a reload that
 * changes the limit rebuilds the tables, shard by shard.
 *
 * A head is in the index by key, by URL, and in a queue, or in none of them: all three change under the lock of the
 * key's shard. */
#include "store/cache_inside.h"

#include "base/map.h"
#include "base/must.h"
#include "store/disk.h"

#include <stdlib.h>

enum { BYTES_PER_KEY = 1024, BYTES_PER_URL = 2048, SWEEP_BUCKETS = 64, VARIANTS_MOST = 256 };

/* ---- tables */

static bool table_init(struct table *t, size_t buckets) {
    size_t room = 8;
    while (room < buckets) room *= 2;
    *t = (struct table){ calloc(room, sizeof *t->buckets), room - 1 };
    return t->buckets != NULL;
}

static size_t table_bytes(const struct table *t) { return (t->mask + 1) * sizeof *t->buckets; }

/* The lower bits choose the shard. */
static struct stored **bucket_of(const struct table *t, uint64_t hash) { return &t->buckets[hash >> 8 & t->mask]; }

struct shard *index_shard(struct cache *cache, uint64_t hash) {
    return &cache->shards[hash & (cache->shard_count - 1)];
}

static struct url_shard *url_shard(struct cache *cache, uint64_t hash) {
    return &cache->url_shards[hash & (cache->shard_count - 1)];
}

static size_t buckets_wanted(const struct cache *cache, size_t bytes) {
    return (size_t)(cache->room.memory.limit / bytes / cache->shard_count);
}

bool index_init(struct cache *cache) {
    bool ok = true;
    for (unsigned i = 0; i < cache->shard_count; i++) {
        cache_lock_init(&cache->shards[i].lock);
        cache_lock_init(&cache->url_shards[i].lock);
        ok &= table_init(&cache->shards[i].keys, buckets_wanted(cache, BYTES_PER_KEY));
        ok &= table_init(&cache->url_shards[i].urls, buckets_wanted(cache, BYTES_PER_URL));
    }
    return ok;
}

/* Without memory the old one stays. */
static void rebuild_keys(struct table *t, size_t buckets) {
    struct table old = *t, fresh;
    if (!table_init(&fresh, buckets)) return;
    for (size_t i = 0; i <= old.mask; i++) {
        for (struct stored *s = old.buckets[i], *next; s; s = next) {
            next = s->next;
            struct stored **bucket = bucket_of(&fresh, s->hash);
            s->next = *bucket;
            *bucket = s;
        }
    }
    *t = fresh;
    free(old.buckets);
}

static void rebuild_urls(struct table *t, size_t buckets) {
    struct table old = *t, fresh;
    if (!table_init(&fresh, buckets)) return;
    for (size_t i = 0; i <= old.mask; i++) {
        for (struct stored *s = old.buckets[i], *next; s; s = next) {
            next = s->next_of_url;
            struct stored **bucket = bucket_of(&fresh, hash_bytes(s->head.url));
            s->next_of_url = *bucket;
            *bucket = s;
        }
    }
    *t = fresh;
    free(old.buckets);
}

uint64_t index_bytes(const struct cache *cache) {
    uint64_t bytes = cache->shard_count * (sizeof(struct shard) + sizeof(struct url_shard));
    for (unsigned i = 0; i < cache->shard_count; i++)
        bytes += table_bytes(&cache->shards[i].keys) + table_bytes(&cache->url_shards[i].urls);
    return bytes;
}

void index_fini(struct cache *cache) {
    for (unsigned i = 0; i < cache->shard_count; i++) {
        pthread_mutex_destroy(&cache->shards[i].lock);
        pthread_mutex_destroy(&cache->url_shards[i].lock);
        free(cache->shards[i].keys.buckets);
        free(cache->url_shards[i].urls.buckets);
    }
}

/* Its heads' places change, so the sweep begins anew. */
void index_resize(struct cache *cache) {
    pthread_mutex_lock(&cache->sweep.lock);
    for (unsigned i = 0; i < cache->shard_count; i++) {
        struct shard *shard = &cache->shards[i];
        struct url_shard *urls = &cache->url_shards[i];
        pthread_mutex_lock(&shard->lock);
        rebuild_keys(&shard->keys, buckets_wanted(cache, BYTES_PER_KEY));
        pthread_mutex_unlock(&shard->lock);
        pthread_mutex_lock(&urls->lock);
        rebuild_urls(&urls->urls, buckets_wanted(cache, BYTES_PER_URL));
        pthread_mutex_unlock(&urls->lock);
    }
    cache->sweep.shard = 0;
    cache->sweep.bucket = 0;
    pthread_mutex_unlock(&cache->sweep.lock);
}

/* ---- in and out */

static void link_url(struct cache *cache, struct stored *s) {
    uint64_t hash = hash_bytes(s->head.url);
    struct url_shard *shard = url_shard(cache, hash);
    pthread_mutex_lock(&shard->lock);
    struct stored **bucket = bucket_of(&shard->urls, hash);
    s->next_of_url = *bucket;
    *bucket = s;
    pthread_mutex_unlock(&shard->lock);
}

static void unlink_url(struct cache *cache, struct stored *s) {
    uint64_t hash = hash_bytes(s->head.url);
    struct url_shard *shard = url_shard(cache, hash);
    pthread_mutex_lock(&shard->lock);
    struct stored **at = bucket_of(&shard->urls, hash);
    while (*at != s) at = &(*at)->next_of_url;
    *at = s->next_of_url;
    pthread_mutex_unlock(&shard->lock);
}

void index_link(struct cache *cache, struct shard *shard, struct stored *s, struct stored *like) {
    struct stored **bucket = bucket_of(&shard->keys, s->hash);
    cached_ref(&s->head);
    s->next = *bucket;
    *bucket = s;
    s->linked = true;
    link_url(cache, s);
    if (s->head.body) atomic_fetch_add(&s->head.body->links, 1);
    room_enter(cache, s, like);
    cache_count(s->head.pass ? &cache->figures.passes : &cache->figures.objects, 1);
}

void index_unlink(struct cache *cache, struct shard *shard, struct stored *s, enum removal why, struct stored **dead) {
    struct stored **at = bucket_of(&shard->keys, s->hash);
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    s->linked = false;
    s->next = *dead;
    *dead = s;
    unlink_url(cache, s);
    room_leave(cache, s);
    if (s->head.body) {
        if (why == REMOVED_EVICTED) body_squeeze(s->head.body);
        atomic_fetch_sub(&s->head.body->links, 1);
    }
    cache_count(s->head.pass ? &cache->figures.passes : &cache->figures.objects, (uint64_t)-1);
    cache_count(&cache->figures.removed[why], 1);
}

void index_remove(struct cache *cache, struct stored *s, enum removal why) {
    struct shard *shard = index_shard(cache, s->hash);
    struct stored *dead = NULL;
    pthread_mutex_lock(&shard->lock);
    if (s->linked) index_unlink(cache, shard, s, why, &dead);
    pthread_mutex_unlock(&shard->lock);
    stored_bury(dead);
}

static bool has_key(const struct stored *s, uint64_t hash, struct slice key) {
    return s->hash == hash && slice_equal(s->head.key, key);
}

/* More variants of a key than VARIANTS_MOST are not kept: each look-up of it walks over all, under the lock of the
 * shard, and their number is the clients' to choose (Vary: Cookie). The latest stay. */
void index_replace(struct cache *cache, struct shard *shard, struct stored *s, bool all, struct stored **dead) {
    struct stored *next;
    unsigned variants = 0;
    for (struct stored *old = *bucket_of(&shard->keys, s->hash); old; old = next) {
        next = old->next;
        if (old == s || !has_key(old, s->hash, s->head.key)) continue;
        bool same = old->head.pass == s->head.pass && slice_equal(old->head.vary, s->head.vary);
        bool pass = old->head.pass && !s->head.pass; /* it can be stored after all */
        bool surplus = !old->head.pass && !s->head.pass && ++variants >= VARIANTS_MOST;
        if (same || pass || all || surplus) index_unlink(cache, shard, old, REMOVED_REPLACED, dead);
    }
}

/* ---- looking up */

static int64_t made_at(const struct stored *s) { return s->head.freshness.received - s->head.freshness.initial_age; }

static bool is_fresh(const struct stored *s, int64_t now) { return now - made_at(s) < s->head.freshness.lifetime; }

/* A pass stands in for variants that are no more fresh: what is known of the key is that it is not for others. */
static void weigh_pass(struct found *f, struct stored *pass) {
    int64_t now = cache_now();
    if (f->best && (made_at(f->best) > made_at(pass) || is_fresh(f->best, now))) return;
    f->best = pass;
}

static void see_variant(struct found *f, struct stored *s, const struct headers *request) {
    if (s->head.vary.n && (!f->varied || made_at(s) > made_at(f->varied))) f->varied = s;
    if (s->head.vary.n && !vary_matches(s->head.vary, request)) f->vary_miss = true;
    else if (!f->best || made_at(s) > made_at(f->best)) f->best = s;
}

struct found index_search(struct cache *cache, struct shard *shard, const struct cache_key *key,
                          const struct headers *request, struct stored **dead) {
    struct found f = { 0 };
    struct stored *pass = NULL, *next;
    for (struct stored *s = *bucket_of(&shard->keys, key->hash[0]); s; s = next) {
        next = s->next;
        if (!has_key(s, key->hash[0], key->bytes)) continue;
        if (marks_of(cache, s) == MARK_HARD) {
            f.purged = true;
            index_unlink(cache, shard, s, REMOVED_PURGED, dead);
        } else if (!s->head.pass) {
            see_variant(&f, s, request);
        } else if (is_fresh(s, cache_now())) {
            pass = s;
        } else {
            index_unlink(cache, shard, s, REMOVED_EXPIRED, dead);
        }
    }
    if (pass) weigh_pass(&f, pass);
    f.softly = f.best && atomic_load_explicit(&f.best->mark, memory_order_relaxed) == MARK_SOFT;
    return f;
}

/* All under the lock of the shard, so no use is lost. */
static void note_use(struct stored *s) {
    unsigned char uses = atomic_load_explicit(&s->uses, memory_order_relaxed);
    unsigned hits = atomic_load_explicit(&s->head.hits, memory_order_relaxed);
    if (uses < 3) atomic_store_explicit(&s->uses, (unsigned char)(uses + 1), memory_order_relaxed);
    atomic_store_explicit(&s->head.hits, hits + 1, memory_order_relaxed);
}

struct cached *cache_look_up(struct cache *cache, const struct cache_key *key, const struct headers *request,
                             bool *stale, enum cache_miss *miss) {
    struct shard *shard = index_shard(cache, key->hash[0]);
    struct stored *dead = NULL;
    pthread_mutex_lock(&shard->lock);
    struct found f = index_search(cache, shard, key, request, &dead);
    if (f.best) {
        cached_ref(&f.best->head);
        note_use(f.best);
    }
    pthread_mutex_unlock(&shard->lock);
    if (dead) stored_bury(dead);
    if (stale) *stale = f.softly;
    *miss = f.vary_miss ? CACHE_VARY_MISS : f.purged ? CACHE_PURGED : CACHE_URI_MISS;
    return f.best ? &f.best->head : NULL;
}

bool cached_is_current(struct cached *c) {
    struct stored *s = STORED_OF(c);
    struct shard *shard = index_shard(c->cache, s->hash);
    pthread_mutex_lock(&shard->lock);
    bool current = s->linked && marks_of(c->cache, s) == MARK_NONE;
    pthread_mutex_unlock(&shard->lock);
    return current;
}

struct cached *cache_find_used(struct cache *cache, uint32_t hash,
                               bool (*fits)(const struct cached *, const void *with), const void *with) {
    struct shard *shard = index_shard(cache, hash);
    struct cached *used = NULL;
    pthread_mutex_lock(&shard->lock);
    for (struct stored *s = *bucket_of(&shard->keys, hash); s && !used; s = s->next) {
        bool same = (uint32_t)s->hash == hash && fits(&s->head, with);
        if (same && marks_of(cache, s) == MARK_NONE && room_is_used(cache, s)) used = cached_ref(&s->head);
    }
    pthread_mutex_unlock(&shard->lock);
    return used;
}

void cache_each_variant(struct cache *cache, const struct cache_key *key,
                        void (*see)(void *data, const struct cached *, bool purged, bool softly), void *data) {
    struct stored *seen[VARIANTS_MOST];
    unsigned count = 0;
    struct shard *shard = index_shard(cache, key->hash[0]);
    pthread_mutex_lock(&shard->lock);
    for (struct stored *s = *bucket_of(&shard->keys, key->hash[0]); s && count < VARIANTS_MOST; s = s->next) {
        if (!has_key(s, key->hash[0], key->bytes)) continue;
        marks_of(cache, s);
        cached_ref(&s->head);
        seen[count++] = s;
    }
    pthread_mutex_unlock(&shard->lock);
    for (unsigned i = 0; i < count; i++) {
        unsigned char mark = atomic_load_explicit(&seen[i]->mark, memory_order_relaxed);
        see(data, &seen[i]->head, mark == MARK_HARD, mark == MARK_SOFT);
        cached_unref(&seen[i]->head);
    }
}

/* ---- purging what has a name */

/* 1 if it was not hard-purged before. */
static unsigned mark_one(struct stored *s, enum cache_mark mark) {
    bool gone = atomic_load_explicit(&s->mark, memory_order_relaxed) == MARK_HARD;
    mark_raise(s, mark);
    return !gone && !s->head.pass;
}

uint64_t cache_purge_key(struct cache *cache, const struct cache_key *key, bool soft) {
    enum cache_mark mark = soft ? MARK_SOFT : MARK_HARD;
    struct shard *shard = index_shard(cache, key->hash[0]);
    uint64_t hit = 0;
    pthread_mutex_lock(&shard->lock);
    for (struct stored *s = *bucket_of(&shard->keys, key->hash[0]); s; s = s->next)
        if (has_key(s, key->hash[0], key->bytes)) hit += mark_one(s, mark);
    fills_purge(shard, key, mark);
    pthread_mutex_unlock(&shard->lock);
    disk_purge(cache, DISK_PURGE_KEY, key->bytes, soft);
    return hit;
}

uint64_t index_mark_url(struct cache *cache, struct slice url, enum cache_mark mark) {
    uint64_t hash = hash_bytes(url), hit = 0;
    struct url_shard *shard = url_shard(cache, hash);
    pthread_mutex_lock(&shard->lock);
    for (struct stored *s = *bucket_of(&shard->urls, hash); s; s = s->next_of_url)
        if (slice_equal(s->head.url, url)) hit += mark_one(s, mark);
    pthread_mutex_unlock(&shard->lock);
    return hit;
}

/* ---- the sweep */

/* Neither fresh, nor within a span in which stale ones may be used, and nothing to validate it by. */
static bool is_useless(const struct stored *s, int64_t now) {
    const struct freshness *f = &s->head.freshness;
    if (s->validates || (s->head.body && cache_body_state(s->head.body) == CACHE_BODY_ARRIVING)) return false;
    int64_t stale = f->stale_if_error > f->stale_while_revalidate ? f->stale_if_error : f->stale_while_revalidate;
    return now - made_at(s) >= f->lifetime + stale;
}

static unsigned sweep_bucket(struct cache *cache, struct shard *shard, struct stored **bucket, int64_t now,
                             struct stored **dead) {
    struct stored *next;
    unsigned seen = 0;
    for (struct stored *s = *bucket; s; s = next, seen++) {
        next = s->next;
        if (marks_of(cache, s) == MARK_HARD) index_unlink(cache, shard, s, REMOVED_PURGED, dead);
        else if (is_useless(s, now)) index_unlink(cache, shard, s, REMOVED_EXPIRED, dead);
    }
    return seen;
}

/* Some buckets of the shard the sweep is at, under one lock; the number of objects seen. */
static unsigned sweep_some(struct cache *cache, unsigned most) {
    struct shard *shard = &cache->shards[cache->sweep.shard];
    struct stored *dead = NULL;
    unsigned seen = 0;
    int64_t now = cache_now();
    pthread_mutex_lock(&shard->lock);
    for (int i = 0; i < SWEEP_BUCKETS && seen < most && cache->sweep.bucket <= shard->keys.mask; i++)
        seen += sweep_bucket(cache, shard, &shard->keys.buckets[cache->sweep.bucket++], now, &dead);
    if (cache->sweep.bucket > shard->keys.mask) {
        cache->sweep.bucket = 0;
        cache->sweep.shard++;
    }
    pthread_mutex_unlock(&shard->lock);
    stored_bury(dead);
    return seen;
}

bool index_sweep(struct cache *cache, unsigned objects) {
    unsigned seen = 0;
    bool round;
    pthread_mutex_lock(&cache->sweep.lock);
    do {
        if (cache->sweep.shard == 0 && cache->sweep.bucket == 0) cache->sweep.sequence = marks_sequence(cache);
        seen += sweep_some(cache, objects - seen) + 1; /* an empty bucket is work, too */
        round = cache->sweep.shard == cache->shard_count;
    } while (!round && seen < objects);
    uint64_t sequence = cache->sweep.sequence;
    if (round) cache->sweep.shard = 0;
    pthread_mutex_unlock(&cache->sweep.lock);
    if (round) marks_forget(cache, sequence);
    return round;
}

void cache_sweep(struct cache *cache, unsigned objects) { index_sweep(cache, objects); }
