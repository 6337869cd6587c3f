/* What is where. Entries lie in one array, numbered from 1, found by buckets of 4 bytes; those of one segment are a
 * list, so that a segment is dropped without reading it. All arrays are mapped in the size that the disk could need at
 * most, and take memory as they are used: 40 bytes for an object, and 4 for a bucket, of which there is one for every
 * 16 KiB of disk. So nothing is ever rehashed, which would hold up who looks something up meanwhile.
 *
 * Which URLs there are is only counted, in places by their hash: most unsafe requests are for what is never stored, and
 * need neither a line in the journal nor a wait for it. A place that two share costs one of these. A list by URL
 * instead would be as long as somebody rewrites one resource.
 *
 * An entry that is removed before its segment goes stays in that list, dead. One that is pending is in no such list:
 * what it stands for is still to be written. */
#include "store/disk_inside.h"

#include <sys/mman.h>

enum {
    BYTES_PER_ENTRY = 4 << 10,
    BYTES_PER_BUCKET = 16 << 10,
    URLS_PER_BUCKET = 4,
    ENTRIES_LEAST = 4096,
    DROPPED_AT_ONCE = 256
};

static void *map(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

bool disk_index_init(struct disk *d) {
    struct disk_index *x = &d->index;
    uint64_t most = d->size / BYTES_PER_ENTRY, buckets = 1024;
    while (buckets < d->size / BYTES_PER_BUCKET) buckets *= 2;
    if (most < ENTRIES_LEAST) most = ENTRIES_LEAST;
    if (most > UINT32_MAX - 1) most = UINT32_MAX - 1;
    x->most = (uint32_t)most;
    x->mask = (uint32_t)(buckets - 1);
    x->entry_bytes = (size_t)(most + 1) * sizeof *x->entries;
    x->url_mask = (uint32_t)(buckets * URLS_PER_BUCKET - 1);
    x->bucket_bytes = (size_t)buckets * sizeof *x->buckets;
    x->url_bytes = x->bucket_bytes * URLS_PER_BUCKET;
    x->entries = map(x->entry_bytes);
    x->buckets = map(x->bucket_bytes);
    x->urls = map(x->url_bytes);
    cache_lock_init(&x->lock);
    return x->entries && x->buckets && x->urls;
}

void disk_index_fini(struct disk *d) {
    struct disk_index *x = &d->index;
    if (x->entries) munmap(x->entries, x->entry_bytes);
    if (x->buckets) munmap(x->buckets, x->bucket_bytes);
    if (x->urls) munmap(x->urls, x->url_bytes);
    pthread_mutex_destroy(&x->lock);
}

static uint32_t *bucket_of(struct disk_index *x, uint64_t key) { return &x->buckets[key & x->mask]; }

static uint32_t segment_of(const struct disk *d, const struct entry *e) { return e->place / d->segment_units; }

/* ---- all below with the index locked, but where it is public */

/* 0: there is none. */
static uint32_t take_entry(struct disk_index *x, const struct entry *e) {
    uint32_t id = x->free;
    if (id) x->free = x->entries[id].next;
    else if (x->used < x->most) id = ++x->used;
    if (!id) return 0;
    x->entries[id] = *e;
    x->urls[e->url & x->url_mask]++;
    return id;
}

static void give_entry(struct disk_index *x, uint32_t id) {
    x->urls[x->entries[id].url & x->url_mask]--;
    x->entries[id] = (struct entry){ .next = x->free };
    x->free = id;
}

static void link_entry(struct disk_index *x, uint32_t id) {
    uint32_t *bucket = bucket_of(x, x->entries[id].key);
    x->entries[id].next = *bucket;
    *bucket = id;
}

static void unlink_entry(struct disk_index *x, uint32_t id) {
    uint32_t *at = bucket_of(x, x->entries[id].key);
    while (*at != id) at = &x->entries[*at].next;
    *at = x->entries[id].next;
}

static void count_in(struct disk_index *x, const struct entry *e) {
    x->objects++;
    x->units += e->units;
}

static void count_out(struct disk_index *x, const struct entry *e) {
    x->objects--;
    x->units -= e->units;
}

static void kill_entry(struct disk_index *x, uint32_t id) {
    struct entry *e = &x->entries[id];
    unlink_entry(x, id);
    e->dead = 1;
    if (!e->pending) count_out(x, e);
}

static uint32_t find_variant(struct disk_index *x, uint64_t key, uint32_t variant) {
    uint32_t id = *bucket_of(x, key);
    while (id && (x->entries[id].key != key || x->entries[id].variant != variant)) id = x->entries[id].next;
    return id;
}

static uint32_t find_place(struct disk_index *x, uint64_t key, uint32_t place) {
    uint32_t id = *bucket_of(x, key);
    while (id && (x->entries[id].key != key || x->entries[id].pending || x->entries[id].place != place))
        id = x->entries[id].next;
    return id;
}

static void enter_segment(struct disk *d, uint32_t id) {
    struct entry *e = &d->index.entries[id];
    struct segment *s = &d->segments[segment_of(d, e)];
    e->next_in_segment = s->first;
    s->first = id;
    if (!e->dead) count_in(&d->index, e);
}

/* ---- looking */

void disk_index_count(struct disk *d, uint64_t *objects, uint64_t *bytes) {
    pthread_mutex_lock(&d->index.lock);
    *objects = d->index.objects;
    *bytes = d->index.units * DISK_UNIT;
    pthread_mutex_unlock(&d->index.lock);
}

bool disk_index_has(struct disk *d, uint64_t key) {
    struct disk_index *x = &d->index;
    bool has = false;
    pthread_mutex_lock(&x->lock);
    for (uint32_t id = *bucket_of(x, key); id && !has; id = x->entries[id].next)
        has = x->entries[id].key == key && !x->entries[id].pending;
    pthread_mutex_unlock(&x->lock);
    return has;
}

bool disk_index_has_url(struct disk *d, uint32_t url) {
    struct disk_index *x = &d->index;
    pthread_mutex_lock(&x->lock);
    bool has = x->incomplete || x->urls[url & x->url_mask] > 0;
    pthread_mutex_unlock(&x->lock);
    return has;
}

unsigned disk_index_candidates(struct disk *d, uint64_t key, struct candidate found[CANDIDATES_MOST]) {
    struct disk_index *x = &d->index;
    unsigned count = 0;
    pthread_mutex_lock(&x->lock);
    for (uint32_t id = *bucket_of(x, key); id && count < CANDIDATES_MOST; id = x->entries[id].next) {
        const struct entry *e = &x->entries[id];
        if (e->key != key || e->pending) continue;
        uint64_t sequence = atomic_load(&d->segments[segment_of(d, e)].sequence);
        found[count++] = (struct candidate){ e->place, sequence };
    }
    pthread_mutex_unlock(&x->lock);
    return count;
}

/* ---- writing */

static struct entry entry_of(const struct record_head *h) {
    return (struct entry){
        .key = h->key, .variant = h->variant, .expires = h->expires, .units = h->units & 0xffffff, .url = h->url
    };
}

uint32_t disk_index_reserve(struct disk *d, const struct record_head *h, uint32_t memory) {
    struct disk_index *x = &d->index;
    struct entry e = entry_of(h);
    e.pending = 1;
    e.memory = memory;
    pthread_mutex_lock(&x->lock);
    uint32_t id = find_variant(x, h->key, h->variant) ? 0 : take_entry(x, &e);
    if (id) link_entry(x, id);
    pthread_mutex_unlock(&x->lock);
    return id;
}

bool disk_index_settle(struct disk *d, uint32_t id, uint32_t place, uint32_t units) {
    struct disk_index *x = &d->index;
    pthread_mutex_lock(&x->lock);
    struct entry *e = &x->entries[id];
    bool wanted = !e->dead;
    e->pending = 0;
    e->place = place;
    e->units = units & 0xffffff;
    enter_segment(d, id);
    pthread_mutex_unlock(&x->lock);
    return wanted;
}

void disk_index_cancel(struct disk *d, uint32_t id) {
    struct disk_index *x = &d->index;
    pthread_mutex_lock(&x->lock);
    if (!x->entries[id].dead) unlink_entry(x, id);
    give_entry(x, id);
    pthread_mutex_unlock(&x->lock);
}

/* ---- writing again */

uint32_t disk_index_take_over(struct disk *d, uint32_t id) {
    struct disk_index *x = &d->index;
    pthread_mutex_lock(&x->lock);
    struct entry e = x->entries[id];
    e.pending = 1;
    e.loaded = 0;
    uint32_t fresh = e.dead ? 0 : take_entry(x, &e);
    if (fresh) x->entries[fresh].dead = 1; /* the other is the one that is found */
    pthread_mutex_unlock(&x->lock);
    return fresh;
}

void disk_index_move(struct disk *d, uint32_t id, uint32_t fresh, uint32_t place) {
    struct disk_index *x = &d->index;
    pthread_mutex_lock(&x->lock);
    struct entry *e = &x->entries[fresh];
    e->pending = 0;
    e->place = place;
    if (!x->entries[id].dead) {
        kill_entry(x, id);
        e->dead = 0;
        link_entry(x, fresh);
    }
    enter_segment(d, fresh);
    pthread_mutex_unlock(&x->lock);
}

bool disk_index_is_dead(struct disk *d, uint32_t id) {
    pthread_mutex_lock(&d->index.lock);
    bool dead = d->index.entries[id].dead;
    pthread_mutex_unlock(&d->index.lock);
    return dead;
}

void disk_index_note_load(struct disk *d, uint64_t key, uint32_t place, uint32_t memory) {
    struct disk_index *x = &d->index;
    pthread_mutex_lock(&x->lock);
    uint32_t id = find_place(x, key, place);
    if (id) {
        x->entries[id].loaded = 1;
        x->entries[id].memory = memory;
    }
    pthread_mutex_unlock(&x->lock);
}

unsigned disk_index_list(struct disk *d, uint32_t *from, struct disk_lost *found, unsigned most) {
    struct disk_index *x = &d->index;
    uint32_t least = (uint32_t)(cache_now() / 1000) + DISK_FRESH_LEAST;
    unsigned count = 0;
    pthread_mutex_lock(&x->lock);
    for (unsigned i = 0; i < most && *from; i++) {
        const struct entry *e = &x->entries[*from];
        if (!e->dead && e->expires >= least) found[count++] = (struct disk_lost){ *from, *e };
        *from = e->next_in_segment;
    }
    pthread_mutex_unlock(&x->lock);
    return count;
}

/* ---- the scan */

/* Is what was found before to stay? */
static bool is_later(const struct disk *d, const struct entry *known, uint32_t segment) {
    return known->pending || segment_of(d, known) != segment;
}

void disk_index_add(struct disk *d, const struct record_head *h, uint32_t segment) {
    struct disk_index *x = &d->index;
    struct entry e = entry_of(h);
    e.place = segment * d->segment_units + h->at;
    pthread_mutex_lock(&x->lock);
    uint32_t known = find_variant(x, h->key, h->variant);
    bool wanted = !known || !is_later(d, &x->entries[known], segment);
    uint32_t id = wanted ? take_entry(x, &e) : 0;
    x->incomplete |= wanted && !id;
    if (wanted && known) kill_entry(x, known);
    if (id) {
        link_entry(x, id);
        enter_segment(d, id);
    }
    pthread_mutex_unlock(&x->lock);
}

/* ---- removing */

bool disk_index_remove(struct disk *d, uint64_t key, uint32_t variant, bool all) {
    struct disk_index *x = &d->index;
    uint32_t next, now = (uint32_t)(cache_now() / 1000);
    bool fresh = false;
    pthread_mutex_lock(&x->lock);
    for (uint32_t id = *bucket_of(x, key); id; id = next) {
        const struct entry *e = &x->entries[id];
        next = e->next;
        if (e->key != key || !(all || e->variant == variant)) continue;
        fresh |= e->expires >= now;
        kill_entry(x, id);
    }
    pthread_mutex_unlock(&x->lock);
    return fresh;
}

void disk_index_remove_place(struct disk *d, uint64_t key, uint32_t place) {
    struct disk_index *x = &d->index;
    pthread_mutex_lock(&x->lock);
    uint32_t id = find_place(x, key, place);
    if (id) kill_entry(x, id);
    pthread_mutex_unlock(&x->lock);
}

void disk_index_drop(struct disk *d, uint32_t segment) {
    struct disk_index *x = &d->index;
    struct segment *s = &d->segments[segment];
    bool more = true;
    while (more) {
        pthread_mutex_lock(&x->lock);
        for (int i = 0; i < DROPPED_AT_ONCE && s->first; i++) {
            uint32_t id = s->first;
            s->first = x->entries[id].next_in_segment;
            if (!x->entries[id].dead) kill_entry(x, id);
            give_entry(x, id);
        }
        more = s->first != 0;
        pthread_mutex_unlock(&x->lock);
    }
}
