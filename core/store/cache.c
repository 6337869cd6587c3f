/* Caches by name, their limits and figures. One is made once and lives as long as the process: what it holds outlives
 * every generation. The files that do the work: cache_inside.h. */
#include "store/cache_inside.h"

#include "base/clock.h"
#include "base/must.h"

#include <errno.h>
#include <stdlib.h>

enum { MEMORY_LEAST = 1 << 20, MEMORY_PER_SHARD = 1 << 20, SHARDS_LEAST = 16, GHOST_BYTES = 2048, TAG_BYTES = 8192 };

static struct {
    pthread_mutex_t lock;
    struct cache *first;
} caches = { .lock = PTHREAD_MUTEX_INITIALIZER };

int64_t cache_now(void) { return (int64_t)(clock_wall() * 1000); }

void cache_lock_init(pthread_mutex_t *lock) {
    pthread_mutexattr_t adaptive;
    must(pthread_mutexattr_init(&adaptive) == 0);
    must(pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP) == 0);
    must(pthread_mutex_init(lock, &adaptive) == 0);
    pthread_mutexattr_destroy(&adaptive);
}

/* ---- making and ending */

static size_t power_above(uint64_t n, size_t least) {
    size_t power = least;
    while (power < n) power *= 2;
    return power;
}

static void init_locks(struct cache *cache) {
    cache_lock_init(&cache->room.lock);
    cache_lock_init(&cache->marks.lock);
    cache_lock_init(&cache->sweep.lock);
    for (unsigned i = 0; i < BODY_LOCKS; i++) cache_lock_init(&cache->body_locks[i].lock);
}

static void *make_aligned(size_t size) {
    void *p = aligned_alloc(64, (size + 63) / 64 * 64);
    if (p) memset(p, 0, size);
    return p;
}

static bool make_tables(struct cache *cache, uint64_t memory) {
    size_t tags = power_above(memory / TAG_BYTES, 64), ghosts = power_above(memory / GHOST_BYTES, 64);
    cache->shard_count = (unsigned)power_above(memory / MEMORY_PER_SHARD, SHARDS_LEAST);
    if (cache->shard_count > SHARDS_MOST) cache->shard_count = SHARDS_MOST;
    cache->shards = make_aligned(cache->shard_count * sizeof *cache->shards);
    cache->url_shards = make_aligned(cache->shard_count * sizeof *cache->url_shards);
    cache->marks.tags = calloc(tags, sizeof *cache->marks.tags);
    cache->marks.tag_mask = tags - 1;
    cache->room.ghosts = calloc(ghosts, sizeof *cache->room.ghosts);
    cache->room.ghost_mask = ghosts - 1;
    list_init(&cache->room.small.list);
    list_init(&cache->room.main.list);
    return cache->shards && cache->url_shards && cache->marks.tags && cache->room.ghosts && index_init(cache);
}

static uint64_t tables_bytes(const struct cache *cache) {
    return sizeof *cache + index_bytes(cache) + (cache->marks.tag_mask + 1) * sizeof *cache->marks.tags +
           (cache->room.ghost_mask + 1) * sizeof *cache->room.ghosts;
}

static void destroy(struct cache *cache) {
    if (cache->shards && cache->url_shards) index_fini(cache);
    cache_memory_fini(&cache->room.memory);
    free(cache->shards);
    free(cache->url_shards);
    free(cache->marks.tags);
    free(cache->room.ghosts);
    free((void *)(uintptr_t)cache->site.p);
    free(cache);
}

static struct cache *create(struct slice site, uint64_t memory) {
    struct cache *cache = make_aligned(sizeof *cache);
    must(cache != NULL);
    init_locks(cache);
    cache->site = slice_make(must_strndup(site.n ? site.p : "", site.n), site.n);
    cache->room.memory.limit = memory; /* what tables go by */
    if (make_tables(cache, memory) && cache_memory_init(&cache->room.memory, memory, tables_bytes(cache))) return cache;
    int why = errno;
    destroy(cache);
    errno = why;
    return NULL;
}

static struct cache *find(struct slice site) {
    struct cache *cache = caches.first;
    while (cache && !slice_equal(cache->site, site)) cache = cache->next;
    return cache;
}

static void append(struct cache *cache) {
    struct cache **at = &caches.first;
    while (*at) at = &(*at)->next;
    *at = cache;
}

static void set_memory(struct cache *cache, uint64_t memory) {
    uint64_t before = index_bytes(cache);
    pthread_mutex_lock(&cache->room.lock);
    bool same = cache->room.memory.limit == memory;
    cache_memory_set_limit(&cache->room.memory, memory);
    pthread_mutex_unlock(&cache->room.lock);
    if (same) return;
    index_resize(cache);
    uint64_t after = index_bytes(cache);
    pthread_mutex_lock(&cache->room.lock);
    cache_memory_release(&cache->room.memory, before);
    cache_memory_reserve(&cache->room.memory, after);
    pthread_mutex_unlock(&cache->room.lock);
    room_settle(cache);
}

struct cache *cache_open(struct slice site, const struct cache_limits *limits) {
    uint64_t memory = limits->memory < MEMORY_LEAST ? MEMORY_LEAST : limits->memory;
    pthread_mutex_lock(&caches.lock);
    struct cache *cache = find(site);
    if (cache) set_memory(cache, memory);
    else if ((cache = create(site, memory))) append(cache);
    if (cache) atomic_store(&cache->max_object, limits->max_object ? limits->max_object : memory / 8);
    pthread_mutex_unlock(&caches.lock);
    return cache;
}

struct cache *cache_named(struct slice site) {
    pthread_mutex_lock(&caches.lock);
    struct cache *cache = find(site);
    pthread_mutex_unlock(&caches.lock);
    return cache;
}

struct cache *cache_next(const struct cache *after) {
    pthread_mutex_lock(&caches.lock);
    struct cache *cache = after ? after->next : caches.first;
    pthread_mutex_unlock(&caches.lock);
    return cache;
}

struct slice cache_site(const struct cache *cache) {
    return cache->site;
}

void cache_close_all(void) {
    while (caches.first) {
        struct cache *cache = caches.first;
        caches.first = cache->next;
        destroy(cache);
    }
}

/* ---- figures */

static uint64_t read_figure(const _Atomic uint64_t *figure) {
    return atomic_load_explicit(figure, memory_order_relaxed);
}

void cache_figures(struct cache *cache, struct cache_figures *out) {
    const _Atomic uint64_t *removed = cache->figures.removed;
    *out = (struct cache_figures){
        .objects = read_figure(&cache->figures.objects),
        .passes = read_figure(&cache->figures.passes),
        .stored = read_figure(&cache->figures.stored),
        .freshened = read_figure(&cache->figures.freshened),
        .refused = read_figure(&cache->figures.refused) + read_figure(&removed[REMOVED_REFUSED]),
        .evicted = read_figure(&removed[REMOVED_EVICTED]),
        .purged = read_figure(&removed[REMOVED_PURGED]),
        .expired = read_figure(&removed[REMOVED_EXPIRED]),
        .evicted_bytes = read_figure(&cache->figures.evicted_bytes),
    };
    pthread_mutex_lock(&cache->room.lock);
    out->memory = cache->room.memory.limit;
    out->used = cache->room.memory.used;
    out->mapped = cache_memory_touched(&cache->room.memory);
    pthread_mutex_unlock(&cache->room.lock);
}
