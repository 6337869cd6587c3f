/* Purges, by marks. Each purge has the next number of a sequence, and each stored head remembers up to which number it
 * has looked. A look-up compares the two; only if there was a purge in between, it asks: of everything? of one of its
 * tags (they are objects that heads refer to)? of a prefix of its URL (a bounded list)? The answer becomes the head's
 * mark. So a purge of a tag costs the same for one object and for a hundred thousand; each pays for itself when it is
 * asked for, or when the sweep comes by.
 *
 * What is purged by its key or its URL is marked at once: the index has both. A table of URL marks instead was
 * rejected: it must be asked on every look-up, and nothing says when its entries may go; the second index costs 12 to
 * 16 bytes an object and gives the exact number of what was hit.
 *
 * A purge also hits what is on its way: a response counts as old as the moment at which its fetch began. For purges of
 * everything, prefixes and known tags the sequence says so by itself. For URLs and tags that nobody had when they were
 * purged, the last RECENT_PURGES are remembered by a hash of what they named. A response that was longer under way than
 * these go back counts as purged: that may cost a fetch more, and never keeps what should be gone.
 *
 * The list of prefixes: a walk of the sweep over all heads, once round, leaves those at its beginning behind. If
 * PREFIXES_MOST come sooner, or there is no memory for one, it is walked at once. */
#include "store/cache_inside.h"

#include "base/map.h"
#include "base/must.h"
#include "store/disk.h"

enum { HARD, SOFT };

static uint64_t load(const _Atomic uint64_t *p) { return atomic_load_explicit(p, memory_order_acquire); }
static void store(_Atomic uint64_t *p, uint64_t n) { atomic_store_explicit(p, n, memory_order_release); }

uint64_t marks_sequence(const struct cache *cache) { return load(&cache->marks.sequence); }

void mark_raise(struct stored *s, enum cache_mark mark) {
    unsigned char now = atomic_load_explicit(&s->mark, memory_order_relaxed);
    while (now < mark && !atomic_compare_exchange_weak(&s->mark, &now, (unsigned char)mark)) {}
}

/* ---- tags */

struct slice tag_slice(const struct tag *tag) {
    return slice_make(tag->bytes, tag->n);
}

struct tag *tag_of(struct slice s) {
    return (struct tag *)(uintptr_t)(s.p - offsetof(struct tag, bytes));
}

/* Its place in the table, or the end of its chain. The marks are locked. */
static struct tag **find_tag(struct marks *m, uint64_t hash, struct slice text) {
    struct tag **at = &m->tags[hash & m->tag_mask];
    while (*at && ((*at)->hash != hash || !slice_equal(tag_slice(*at), text))) at = &(*at)->next;
    return at;
}

static struct tag *ref_tag(struct marks *m, uint64_t hash, struct slice text, struct tag *fresh) {
    pthread_mutex_lock(&m->lock);
    struct tag **at = find_tag(m, hash, text), *tag = *at;
    if (!tag && fresh) *at = tag = fresh;
    if (tag) tag->refs++;
    pthread_mutex_unlock(&m->lock);
    return tag;
}

struct tag *tag_borrow(struct cache *cache, struct slice text) {
    uint64_t hash = hash_bytes(text);
    struct tag *tag = ref_tag(&cache->marks, hash, text, NULL);
    if (tag) return tag;
    uint32_t units = memory_units(sizeof *tag + text.n);
    struct tag *fresh = room_take(cache, NULL, units, units, &units);
    if (!fresh) return NULL;
    *fresh = (struct tag){ .hash = hash, .units = units, .n = (uint32_t)text.n };
    if (text.n) memcpy(fresh->bytes, text.p, text.n);
    tag = ref_tag(&cache->marks, hash, text, fresh);
    if (tag != fresh) room_give(cache, NULL, fresh, units);
    return tag;
}

void tag_give_back(struct cache *cache, struct tag *tag, bool purged) {
    struct marks *m = &cache->marks;
    pthread_mutex_lock(&m->lock);
    if (purged && tag->hit) tag->hit--;
    bool last = --tag->refs == 0;
    if (last) *find_tag(m, tag->hash, tag_slice(tag)) = tag->next;
    pthread_mutex_unlock(&m->lock);
    if (last) room_give(cache, NULL, tag, tag->units);
}

/* ---- what purges say of a head */

static enum cache_mark mark_after(const _Atomic uint64_t purged[2], uint64_t from) {
    if (load(&purged[HARD]) > from) return MARK_HARD;
    return load(&purged[SOFT]) > from ? MARK_SOFT : MARK_NONE;
}

static enum cache_mark tags_mark(const struct cached *c, uint64_t from) {
    enum cache_mark mark = MARK_NONE;
    for (uint32_t i = 0; i < c->tag_count && mark < MARK_HARD; i++) {
        enum cache_mark found = mark_after(tag_of(c->tags[i])->purged, from);
        if (found > mark) mark = found;
    }
    return mark;
}

/* The marks are locked. */
static enum cache_mark prefixes_mark(const struct marks *m, const struct cached *c, uint64_t from) {
    enum cache_mark mark = from < m->forgotten ? MARK_HARD : MARK_NONE;
    for (const struct prefix *p = m->prefixes; p && p->sequence > from && mark < MARK_HARD; p = p->next) {
        if (!slice_starts_with(c->url, slice_make(p->bytes, p->n))) continue;
        enum cache_mark found = p->soft ? MARK_SOFT : MARK_HARD;
        if (found > mark) mark = found;
    }
    return mark;
}

static __attribute__((noinline)) void look_again(struct cache *cache, struct stored *s, uint64_t from, uint64_t now) {
    struct marks *m = &cache->marks;
    mark_raise(s, mark_after(m->all, from));
    mark_raise(s, tags_mark(&s->head, from));
    pthread_mutex_lock(&m->lock);
    mark_raise(s, prefixes_mark(m, &s->head, from));
    pthread_mutex_unlock(&m->lock);
    atomic_store_explicit(&s->checked, now, memory_order_relaxed);
}

enum cache_mark marks_of(struct cache *cache, struct stored *s) {
    uint64_t now = marks_sequence(cache), from = atomic_load_explicit(&s->checked, memory_order_relaxed);
    if (from != now) look_again(cache, s, from, now);
    return (enum cache_mark)atomic_load_explicit(&s->mark, memory_order_relaxed);
}

static void remember_purge(struct marks *m, uint64_t sequence, struct slice text, bool soft) {
    m->recent[sequence % RECENT_PURGES] = (struct recent_purge){ sequence, hash_bytes(text), soft };
}

static bool names(const struct recent_purge *p, const struct cached *c, uint64_t url) {
    if (p->hash == url) return true;
    for (uint32_t i = 0; i < c->tag_count; i++)
        if (p->hash == hash_bytes(c->tags[i])) return true;
    return false;
}

/* The marks are locked. */
static enum cache_mark recent_mark(const struct marks *m, const struct cached *c, uint64_t from, uint64_t now) {
    if (now - from > RECENT_PURGES) return MARK_HARD;
    enum cache_mark mark = MARK_NONE;
    uint64_t url = hash_bytes(c->url);
    for (uint64_t n = from + 1; n <= now && mark < MARK_HARD; n++) {
        const struct recent_purge *p = &m->recent[n % RECENT_PURGES];
        if (p->sequence == n && names(p, c, url)) mark = p->soft ? MARK_SOFT : MARK_HARD;
    }
    return mark;
}

void marks_check(struct cache *cache, struct stored *s, uint64_t sequence) {
    struct marks *m = &cache->marks;
    atomic_store_explicit(&s->checked, sequence, memory_order_relaxed);
    if (marks_sequence(cache) == sequence) return;
    pthread_mutex_lock(&m->lock);
    mark_raise(s, recent_mark(m, &s->head, sequence, load(&m->sequence)));
    pthread_mutex_unlock(&m->lock);
    marks_of(cache, s);
}

/* ---- purging */

/* What a purge writes is there before its number is: who sees the number looks again, and finds it. */
static uint64_t begin_purge(struct marks *m) {
    pthread_mutex_lock(&m->lock);
    return load(&m->sequence) + 1;
}

static void end_purge(struct marks *m, uint64_t sequence) {
    store(&m->sequence, sequence);
    pthread_mutex_unlock(&m->lock);
}

uint64_t cache_purge_all(struct cache *cache, bool soft) {
    struct marks *m = &cache->marks;
    uint64_t sequence = begin_purge(m);
    store(&m->all[soft], sequence);
    end_purge(m, sequence);
    disk_purge(cache, DISK_PURGE_ALL, SLICE(""), soft);
    return load(&cache->figures.objects);
}

uint64_t cache_purge_url(struct cache *cache, struct slice url, bool soft) {
    struct marks *m = &cache->marks;
    uint64_t sequence = begin_purge(m);
    remember_purge(m, sequence, url, soft);
    uint64_t hit = index_mark_url(cache, url, soft ? MARK_SOFT : MARK_HARD);
    end_purge(m, sequence);
    disk_purge(cache, DISK_PURGE_URL, url, soft);
    return hit;
}

uint64_t cache_purge_tag(struct cache *cache, struct slice text, bool soft) {
    struct marks *m = &cache->marks;
    uint64_t sequence = begin_purge(m), hit = 0;
    remember_purge(m, sequence, text, soft);
    struct tag *tag = *find_tag(m, hash_bytes(text), text);
    if (tag) {
        hit = tag->refs - tag->hit;
        if (!soft) tag->hit = tag->refs;
        store(&tag->purged[soft], sequence);
    }
    end_purge(m, sequence);
    disk_purge(cache, DISK_PURGE_TAG, text, soft);
    return hit;
}

/* ---- prefixes */

static void free_prefixes(struct cache *cache, struct prefix *p) {
    while (p) {
        struct prefix *next = p->next;
        room_give(cache, NULL, p, p->units);
        p = next;
    }
}

void marks_forget(struct cache *cache, uint64_t sequence) {
    struct marks *m = &cache->marks;
    pthread_mutex_lock(&m->lock);
    struct prefix **at = &m->prefixes;
    while (*at && (*at)->sequence > sequence) at = &(*at)->next;
    struct prefix *gone = *at;
    *at = NULL;
    if (gone) m->forgotten = gone->sequence;
    for (struct prefix *p = gone; p; p = p->next) m->prefix_count--;
    pthread_mutex_unlock(&m->lock);
    free_prefixes(cache, gone);
}

static struct prefix *make_prefix(struct cache *cache, struct slice text, bool soft) {
    uint32_t units = memory_units(sizeof(struct prefix) + text.n);
    struct prefix *p = room_take(cache, NULL, units, units, &units);
    if (!p) return NULL;
    *p = (struct prefix){ .units = units, .soft = soft, .n = (uint32_t)text.n };
    if (text.n) memcpy(p->bytes, text.p, text.n);
    return p;
}

/* The same one again replaces the former. The marks are locked. */
static struct prefix *take_same(struct marks *m, const struct prefix *p) {
    struct prefix **at = &m->prefixes;
    while (*at && ((*at)->soft != p->soft || (*at)->n != p->n || memcmp((*at)->bytes, p->bytes, p->n) != 0))
        at = &(*at)->next;
    struct prefix *same = *at;
    if (!same) return NULL;
    *at = same->next;
    same->next = NULL;
    m->prefix_count--;
    return same;
}

static void add_prefix(struct cache *cache, struct prefix *p) {
    struct marks *m = &cache->marks;
    p->sequence = begin_purge(m);
    struct prefix *same = take_same(m, p);
    p->next = m->prefixes;
    m->prefixes = p;
    m->prefix_count++;
    end_purge(m, p->sequence);
    free_prefixes(cache, same);
}

static bool has_too_many(struct marks *m) {
    pthread_mutex_lock(&m->lock);
    bool full = m->prefix_count >= PREFIXES_MOST;
    pthread_mutex_unlock(&m->lock);
    return full;
}

uint64_t cache_purge_prefix(struct cache *cache, struct slice text, bool soft) {
    if (text.n > MEMORY_RUN_MOST / 2) return 0; /* there is no such URL */
    struct prefix *p = make_prefix(cache, text, soft);
    if (!p)
        return cache_purge_all(cache, soft); /* no room, after all was evicted that could be: there is nothing else */
    add_prefix(cache, p);
    disk_purge(cache, DISK_PURGE_PREFIX, text, soft);
    while (has_too_many(&cache->marks)) index_sweep(cache, UINT32_MAX);
    return 0;
}

void marks_fini(struct cache *cache) {
    free_prefixes(cache, cache->marks.prefixes);
    cache->marks.prefixes = NULL;
}
