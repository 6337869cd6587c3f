/* Disks of caches, their threads, their figures.
 *
 * The threads are the disk's own instead of the two helper threads of net/helpers.h: those do what takes milliseconds,
 * and a log line should not wait behind a gigabyte; and reads want to be several at once, or a device shows nothing of
 * what it can. They sleep until there is work: one writes, one keeps the journal of purges, four read.
 *
 * A disk that is given up stays in a list until the process ends, without files and threads: whoever still has the
 * pointer of a moment ago finds it closed, and there are as many as reloads changed a path. */
#include "store/disk_inside.h"

#include "base/log.h"
#include "base/must.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { SEGMENTS_WANTED = 64, SEGMENT_LEAST = 1 << 20, SEGMENT_MOST = 256 << 20 };

static struct {
    pthread_mutex_t lock;
    struct disk *first;
} disks = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- making one */

/* A power of two, so that a slightly different size keeps what is there. */
static uint64_t segment_size(uint64_t size) {
    uint64_t bytes = SEGMENT_LEAST;
    while (bytes < SEGMENT_MOST && bytes * 2 * SEGMENTS_WANTED <= size) bytes *= 2;
    return bytes;
}

static void init_queues(struct disk *d) {
    pthread_mutex_init(&d->offers.lock, NULL);
    pthread_cond_init(&d->offers.news, NULL);
    pthread_mutex_init(&d->loads.lock, NULL);
    list_init(&d->loads.all);
    pthread_cond_init(&d->loads.news, NULL);
}

static struct disk *create(struct cache *cache, const struct disk_settings *s) {
    struct disk *d = must_calloc(1, sizeof *d);
    d->cache = cache;
    d->path = must_strdup(s->path);
    d->size = s->size < DISK_LEAST ? DISK_LEAST : s->size;
    d->directory = d->lock = d->writer.file = -1;
    d->segment_units = (uint32_t)(segment_size(d->size) / DISK_UNIT);
    d->segment_count = (uint32_t)(d->size / segment_bytes(d));
    d->segments = must_calloc(d->segment_count, sizeof *d->segments);
    atomic_store(&d->state, DISK_WAITS);
    init_queues(d);
    purges_init(&d->purges);
    return d;
}

static void start(struct disk *d) {
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    must(pthread_create(&d->writer_thread, NULL, disk_writer_run, d) == 0);
    must(pthread_create(&d->journal_thread, NULL, purges_run, d) == 0);
    for (int i = 0; i < DISK_READERS; i++) must(pthread_create(&d->readers[i], NULL, disk_reader_run, d) == 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- giving one up */

static void stop_threads(struct disk *d) {
    pthread_mutex_lock(&d->offers.lock);
    pthread_mutex_lock(&d->loads.lock);
    atomic_store(&d->closing, true);
    pthread_cond_broadcast(&d->offers.news);
    pthread_cond_broadcast(&d->loads.news);
    pthread_mutex_unlock(&d->loads.lock);
    pthread_mutex_unlock(&d->offers.lock);
    for (int i = 0; i < DISK_READERS; i++) pthread_join(d->readers[i], NULL);
    disk_drop_loads(d);
    pthread_join(d->writer_thread, NULL);
    purges_stop(d);
    pthread_join(d->journal_thread, NULL);
}

static void give_up(struct disk *d) {
    if (atomic_load(&d->closed)) return;
    struct disk *expected = d;
    atomic_compare_exchange_strong(&d->cache->disk, &expected, NULL);
    stop_threads(d);
    atomic_store(&d->state, DISK_FAILED);
    if (d->lock >= 0) close(d->lock); /* and with it the directory is another's */
    if (d->directory >= 0) close(d->directory);
    d->lock = d->directory = -1;
    atomic_store(&d->closed, true);
}

static void destroy(struct disk *d) {
    disk_index_fini(d);
    purges_fini(&d->purges);
    free(d->segments);
    free(d->path);
    free(d);
}

static void give_up_those(struct cache *cache, const char *path) {
    for (struct disk *d = disks.first; d; d = d->next)
        if (d->cache == cache || (path && strcmp(d->path, path) == 0)) give_up(d);
}

void disk_open(struct cache *cache, const struct disk_settings *s) {
    pthread_mutex_lock(&disks.lock);
    struct disk *now = atomic_load(&cache->disk);
    bool same = now && s->path && strcmp(now->path, s->path) == 0 && now->size == s->size &&
                atomic_load(&now->state) != DISK_FAILED;
    if (!same) give_up_those(cache, s->path);
    struct disk *d = !same && s->path ? create(cache, s) : NULL;
    if (d && !disk_index_init(d)) {
        log_error("cache.disk: no memory for the index of %s: memory alone is used", d->path);
        destroy(d);
    } else if (d) {
        d->next = disks.first;
        disks.first = d;
        start(d);
        atomic_store(&cache->disk, d);
    }
    pthread_mutex_unlock(&disks.lock);
}

void disk_close_all(void) {
    pthread_mutex_lock(&disks.lock);
    for (struct disk *d = disks.first, *next; d; d = next) {
        next = d->next;
        give_up(d);
        destroy(d);
    }
    disks.first = NULL;
    pthread_mutex_unlock(&disks.lock);
}

/* ---- purges, as the cache knows them */

void disk_purge(struct cache *cache, enum disk_purge kind, struct slice what, bool soft) {
    struct disk *d = atomic_load(&cache->disk);
    if (!d || (kind == DISK_PURGE_URL && !disk_has_url(cache, what))) return;
    purges_add(d, kind, what, soft, 0);
}

bool disk_keeps_purges(struct cache *cache) { return atomic_load(&cache->disk) != NULL; }

/* As long as the directory is not read, nobody knows. */
bool disk_has_url(struct cache *cache, struct slice url) {
    struct disk *d = atomic_load(&cache->disk);
    int state = d ? atomic_load(&d->state) : DISK_FAILED;
    if (state == DISK_FAILED) return false;
    return state != DISK_SERVES || disk_index_has_url(d, disk_url_hash(d, url));
}

/* What cannot be seen yet is remembered; else only what would be loaded as fresh after a restart. */
void disk_supersede(struct cache *cache, struct slice key, struct slice vary, bool all) {
    struct disk *d = atomic_load(&cache->disk);
    int state = d ? atomic_load(&d->state) : DISK_FAILED;
    if (state == DISK_FAILED) return;
    uint32_t variant = disk_variant(vary);
    bool there = state != DISK_WAITS && disk_index_remove(d, disk_key_hash(d, key), variant, all);
    if (there || state != DISK_SERVES)
        purges_add(d, all ? DISK_PURGE_KEY : PURGE_VARIANT, key, false, all ? 0 : variant);
}

/* ---- figures */

const char *disk_state_word(enum disk_state state) {
    static const char *const words[] = { "none", "waits", "scans", "serves", "failed" };
    return words[state];
}

void disk_figures(struct cache *cache, struct disk_figures *f) {
    struct disk *d = atomic_load(&cache->disk);
    *f = (struct disk_figures){ .state = DISK_NONE };
    if (!d) return;
    f->state = (enum disk_state)atomic_load(&d->state);
    f->path = d->path;
    f->size = d->size;
    f->reads = atomic_load(&d->figures.reads);
    f->read_bytes = atomic_load(&d->figures.read_bytes);
    f->missed = atomic_load(&d->figures.missed);
    f->writes = atomic_load(&d->figures.writes);
    f->written_bytes = atomic_load(&d->figures.written_bytes);
    f->rescued = atomic_load(&d->figures.rescued);
    f->skipped = atomic_load(&d->figures.skipped);
    f->corrupt = atomic_load(&d->figures.corrupt);
    f->errors = atomic_load(&d->figures.errors);
    disk_index_count(d, &f->objects, &f->bytes);
    pthread_mutex_lock(&d->purges.lock);
    f->purges = d->purges.count + d->purges.prefix_count;
    pthread_mutex_unlock(&d->purges.lock);
}
