/* Loads: what memory does not have is read, checked, and stored in memory like a response that was fetched; then the
 * cache does the rest. The threads that read write into the cache themselves, so that no loop is needed to carry bytes,
 * and no exchange has to stay: who asked for a load follows its fill like everybody else.
 *
 * The meta is read first, then the first piece of the body; only when both are sound the fill is settled. So nearly all
 * responses, one piece long, are either loaded whole or not at all, and on any fault the fill says so and the response
 * is fetched. Longer ones come piece by piece, each after the others' turn, and each checked before a byte of it is
 * given out; a fault in their middle breaks the body, as a backend can.
 *
 * A body that memory does not keep (it was evicted while it came) is a window: then the load stands aside until its
 * slowest reader has made room.
 *
 * A segment may be dropped and written anew under a load. Nothing prevents that: what it then reads does not check, and
 * is no corruption. */
#include "store/disk_inside.h"

#include "base/must.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { LOADS_MOST = 1024, HEAD_READ = 4 << 10, VALUES_MOST = 32 << 10 };

struct load {
    struct load *next; /* in the queue */
    struct list node;  /* among all */
    bool queued;       /* with the loads locked */
    struct disk *disk;
    struct cache_fill *fill; /* NULL: settled */
    struct cached *stored;   /* a reference; NULL: not yet */
    struct headers request;
    struct cache_key key;
    uint64_t hash;
    struct candidate candidate; /* what is loaded */
    struct record_head head;
    char *bytes; /* the meta; NULL: none yet */
    char *piece;
    size_t piece_n, piece_at; /* bytes in it, and how many of them the cache has */
    uint64_t read;            /* pieces */
};

/* ---- the queue */

/* With the loads locked. */
static void queue(struct disk *d, struct load *l) {
    if (l->queued) return;
    l->queued = true;
    l->next = NULL;
    if (d->loads.last) d->loads.last->next = l;
    else d->loads.first = l;
    d->loads.last = l;
    pthread_cond_signal(&d->loads.news);
}

static void push(struct disk *d, struct load *l) {
    pthread_mutex_lock(&d->loads.lock);
    queue(d, l);
    pthread_mutex_unlock(&d->loads.lock);
}

/* Waits. NULL: the disk closes, and nothing is queued. */
static struct load *pop(struct disk *d) {
    pthread_mutex_lock(&d->loads.lock);
    while (!d->loads.first && !atomic_load(&d->closing)) pthread_cond_wait(&d->loads.news, &d->loads.lock);
    struct load *l = d->loads.first;
    if (l) {
        d->loads.first = l->next;
        if (!l->next) d->loads.last = NULL;
        l->queued = false;
    }
    pthread_mutex_unlock(&d->loads.lock);
    return l;
}

/* From now on it is the threads'. */
static bool enlist(struct disk *d, struct load *l) {
    pthread_mutex_lock(&d->loads.lock);
    bool taken = d->loads.count < LOADS_MOST && !atomic_load(&d->closing);
    if (taken) {
        queue(d, l);
        list_push(&d->loads.all, &l->node);
        d->loads.count++;
    }
    pthread_mutex_unlock(&d->loads.lock);
    return taken;
}

static void destroy(struct load *l) {
    free(l->request.list);
    free((void *)(uintptr_t)l->key.bytes.p);
    free(l->bytes);
    free(l->piece);
    free(l);
}

static void end(struct load *l) {
    struct disk *d = l->disk;
    pthread_mutex_lock(&d->loads.lock);
    list_remove(&l->node);
    d->loads.count--;
    pthread_mutex_unlock(&d->loads.lock);
    cached_unref(l->stored);
    destroy(l);
}

/* ---- what is there */

static void note_corrupt(struct load *l) {
    struct disk *d = l->disk;
    bool reused = atomic_load(&d->segments[l->candidate.place / d->segment_units].sequence) != l->candidate.sequence;
    if (!reused) atomic_fetch_add(&d->figures.corrupt, 1);
    disk_index_remove_place(d, l->hash, l->candidate.place);
}

/* From the record's beginning; how many bytes, fewer at the end of a file that was cut. */
static size_t read_some(struct load *l, void *to, size_t n, uint64_t at) {
    struct disk *d = l->disk;
    char name[SEGMENT_NAME];
    segment_name(l->candidate.place / d->segment_units, name);
    int file = openat(d->directory, name, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    size_t got = read_up_to(file, to, n, (uint64_t)(l->candidate.place % d->segment_units) * DISK_UNIT + at);
    close(file);
    return got;
}

static bool read_at(struct load *l, void *to, size_t n, uint64_t at) { return read_some(l, to, n, at) == n; }

/* Head and meta; most of them in one read. */
static bool read_meta(struct load *l) {
    struct disk *d = l->disk;
    uint32_t at = l->candidate.place % d->segment_units;
    char first[HEAD_READ];
    size_t head = sizeof l->head, n = read_some(l, first, HEAD_READ, 0);
    if (n < head) return false;
    memcpy(&l->head, first, head);
    if (!record_head_ok(&l->head, l->candidate.sequence, at, d->segment_units)) return false;
    free(l->bytes);
    l->bytes = must_malloc(l->head.meta + 1UL);
    size_t have = l->head.meta < n - head ? l->head.meta : n - head;
    memcpy(l->bytes, first + head, have);
    if (have < l->head.meta && !read_at(l, l->bytes + have, l->head.meta - have, head + have)) return false;
    return digest_equal(disk_digest(l->bytes, l->head.meta, 0), l->head.meta_sum);
}

static bool read_piece(struct load *l) {
    const struct digest *sums = (const struct digest *)(const void *)l->bytes;
    uint64_t from = l->read * DISK_PIECE, left = l->head.body - from;
    size_t n = left < DISK_PIECE ? (size_t)left : DISK_PIECE;
    if (n == 0) return true;
    if (!l->piece) l->piece = must_malloc(n);
    if (!read_at(l, l->piece, n, sizeof l->head + l->head.meta + from)) return false;
    if (!digest_equal(disk_digest(l->piece, n, 0), sums[l->read])) return false;
    l->piece_n = n;
    l->piece_at = 0;
    l->read++;
    return true;
}

/* ---- giving it to the cache */

static bool store(struct load *l, const struct meta *m, enum cache_mark mark) {
    struct cache_draft draft = m->draft;
    draft.softly = mark == MARK_SOFT;
    l->stored = cache_fill_store(l->fill, &draft);
    l->fill = NULL;
    if (!l->stored) return false;
    disk_index_note_load(l->disk, l->hash, l->candidate.place, (uint32_t)STORED_OF(l->stored)->hash);
    return true;
}

enum fit { FIT_NOT, FIT_FAULT, FIT_STORED, FIT_REFUSED };

/* Is it what is asked for? Then it is stored. */
static enum fit try_meta(struct load *l, struct meta *m) {
    struct disk *d = l->disk;
    enum cache_mark mark = purges_mark(d, l->head.number, m);
    if (mark == MARK_HARD) disk_index_remove_place(d, l->hash, l->candidate.place);
    if (mark == MARK_HARD || !slice_equal(m->key, l->key.bytes)) return FIT_NOT;
    if (m->draft.vary.n && !vary_matches(m->draft.vary, &l->request)) return FIT_NOT;
    if (!read_piece(l)) return FIT_FAULT;
    return store(l, m, mark) ? FIT_STORED : FIT_REFUSED;
}

static enum fit try_candidate(struct load *l) {
    struct meta m;
    if (!read_meta(l) || !meta_read(&m, l->bytes, l->head.meta, l->head.body)) return FIT_FAULT;
    enum fit fit = try_meta(l, &m);
    meta_fini(&m);
    return fit;
}

/* False: it is over, with nothing stored. */
static bool begin(struct load *l) {
    struct disk *d = l->disk;
    struct candidate found[CANDIDATES_MOST];
    unsigned count = disk_index_candidates(d, l->hash, found);
    enum fit fit = FIT_NOT;
    for (unsigned i = 0; i < count && (fit == FIT_NOT || fit == FIT_FAULT); i++) {
        l->candidate = found[i];
        fit = try_candidate(l);
        if (fit == FIT_FAULT) note_corrupt(l);
    }
    if (fit == FIT_STORED) return true;
    atomic_fetch_add(&d->figures.missed, 1);
    if (l->fill) cache_fill_not_loaded(l->fill);
    return false;
}

static void tell_room(void *load) {
    struct load *l = load;
    push(l->disk, l);
}

/* From now on tell_room is not called. */
static void break_off(struct load *l) {
    cache_body_room(l->stored->body, NULL, NULL);
    cache_body_break(l->stored->body);
}

enum flow { FLOW_ON, FLOW_WAITS, FLOW_ENDS };

/* What was read and checked goes into the cache. */
static enum flow give(struct load *l) {
    struct cache_body *body = l->stored->body;
    while (l->piece_at < l->piece_n) {
        size_t room = cache_body_room(body, tell_room, l), n = l->piece_n - l->piece_at;
        if (room == 0) return FLOW_WAITS;
        if (room == SIZE_MAX) {
            break_off(l);
            return FLOW_ENDS;
        }
        struct buffer bytes = { 0 };
        if (n > room) n = room;
        buffer_append(&bytes, l->piece + l->piece_at, n);
        cache_body_write(body, &bytes);
        buffer_fini(&bytes);
        l->piece_at += n;
    }
    return FLOW_ON;
}

static void finish(struct load *l) {
    struct disk *d = l->disk;
    cache_body_end(l->stored->body);
    atomic_fetch_add(&d->figures.reads, 1);
    atomic_fetch_add(&d->figures.read_bytes, l->head.body);
}

static enum flow go_on(struct load *l) {
    enum flow flow = give(l);
    if (flow != FLOW_ON) return flow;
    if (l->read == pieces_of(l->head.body)) {
        finish(l);
        return FLOW_ENDS;
    }
    if (!atomic_load(&l->disk->closing) && read_piece(l)) return FLOW_ON;
    if (!atomic_load(&l->disk->closing)) note_corrupt(l);
    break_off(l);
    return FLOW_ENDS;
}

static void advance(struct load *l) {
    enum flow flow = l->stored || begin(l) ? go_on(l) : FLOW_ENDS;
    if (flow == FLOW_ON) push(l->disk, l);
    if (flow == FLOW_ENDS) end(l);
}

void *disk_reader_run(void *disk) {
    for (struct load *l; (l = pop(disk));) advance(l);
    buffer_thread_fini();
    arena_thread_fini();
    return NULL;
}

/* The threads have ended: what is left waits for room. */
void disk_drop_loads(struct disk *d) {
    for (struct list *node; (node = list_pop(&d->loads.all));) {
        struct load *l = container_of(node, struct load, node);
        if (l->stored) break_off(l);
        else cache_fill_not_loaded(l->fill);
        end(l);
    }
}

/* ---- asking */

bool disk_has(struct cache *cache, const struct cache_key *key) {
    struct disk *d = atomic_load(&cache->disk);
    int state = d ? atomic_load(&d->state) : DISK_NONE;
    if (state != DISK_SCANS && state != DISK_SERVES) return false;
    return disk_index_has(d, disk_key_hash(d, key->bytes));
}

/* One block: the fields, then their text. */
static struct headers copy_request(const struct headers *request) {
    size_t size = (size_t)request->count * sizeof(struct header);
    headers_each(h, request) size += h->name.n + h->value.n;
    struct headers copy = { .list = must_malloc(size + 1) };
    char *text = (char *)(copy.list + request->count);
    headers_each(h, request) {
        struct header *to = &copy.list[copy.count++];
        *to = (struct header){ .name = { text, h->name.n }, .id = h->id };
        if (h->name.n) memcpy(text, h->name.p, h->name.n);
        text += h->name.n;
        to->value = slice_make(text, h->value.n);
        if (h->value.n) memcpy(text, h->value.p, h->value.n);
        text += h->value.n;
    }
    copy.room = copy.count;
    return copy;
}

void disk_load(struct cache *cache, const struct cache_key *key, struct cache_fill *fill, const struct headers *request,
               struct cache_follower *f) {
    struct disk *d = atomic_load(&cache->disk);
    cache_fill_follow(fill, f);
    if (!d) {
        cache_fill_not_loaded(fill);
        return;
    }
    struct load *l = must_malloc(sizeof *l);
    *l = (struct load){ .disk = d, .fill = fill, .key = *key, .hash = disk_key_hash(d, key->bytes) };
    l->key.bytes = slice_make(must_strndup(key->bytes.p, key->bytes.n), key->bytes.n);
    l->request = copy_request(request);
    if (enlist(d, l)) return;
    atomic_fetch_add(&d->figures.skipped, 1);
    cache_fill_not_loaded(fill);
    destroy(l);
}
