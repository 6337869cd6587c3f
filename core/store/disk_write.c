/* The writer: one thread, one segment at a time, from its beginning to its end, like a log. When no segment is left the
 * oldest is dropped: the index forgets it, then its head is written anew, and what it held can be found by nobody. What
 * was in use there has been written again before (disk_rescue.c).
 *
 * A record is written back to front, its head last: a process that is killed in the middle leaves nothing that looks
 * like a record. Nothing is synced, since a cache may lose its latest when the power fails; what was half written then
 * fails its checks. But each full segment is handed to the device at once, so that the system does not gather
 * gigabytes.
 *
 * The bytes come from the memory object, which is held while it waits. So the queue is bounded in objects and in bytes;
 * what finds it full is not written. A response is written once, when it is whole, not each time it is validated: what
 * is loaded later with an old head is validated again.
 *
 * Responses larger than a segment are not written: between a 128th and a 64th of the disk, from 1 to 256 MiB. */
#include "store/disk_inside.h"

#include "base/log.h"
#include "base/must.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { QUEUE_MOST = 1024, QUEUE_BYTES = 64 << 20, COMPLAIN_EVERY = 60000 /* ms */ };

void disk_complain(struct disk *d, const char *what) {
    int why = errno;
    int64_t now = cache_now(), before = atomic_exchange(&d->complained, now);
    atomic_fetch_add(&d->figures.errors, 1);
    if (now - before < COMPLAIN_EVERY) atomic_store(&d->complained, before);
    else log_error("%s: cannot %s: %s", d->path, what, strerror(why));
}

/* ---- offers */

static bool push_offer(struct disk *d, struct offer *o) {
    uint64_t bytes = cache_body_length(o->cached->body);
    pthread_mutex_lock(&d->offers.lock);
    bool taken = d->offers.count < QUEUE_MOST && (d->offers.bytes + bytes <= QUEUE_BYTES || d->offers.count == 0) &&
                 !atomic_load(&d->closing);
    if (taken) {
        if (d->offers.last) d->offers.last->next = o;
        else d->offers.first = o;
        d->offers.last = o;
        d->offers.count++;
        d->offers.bytes += bytes;
        pthread_cond_signal(&d->offers.news);
    }
    pthread_mutex_unlock(&d->offers.lock);
    return taken;
}

/* Waits, unless something is to be rescued. What it returns counts until drop_offer. NULL: the disk closes, or there is
 * time for that. */
static struct offer *next_offer(struct disk *d) {
    pthread_mutex_lock(&d->offers.lock);
    while (!d->offers.first && !atomic_load(&d->closing) && !disk_rescues(d))
        pthread_cond_wait(&d->offers.news, &d->offers.lock);
    struct offer *o = d->offers.first;
    if (o) {
        d->offers.first = o->next;
        if (!o->next) d->offers.last = NULL;
    }
    pthread_mutex_unlock(&d->offers.lock);
    return o;
}

static void drop_offer(struct disk *d, struct offer *o) {
    pthread_mutex_lock(&d->offers.lock);
    d->offers.count--;
    d->offers.bytes -= cache_body_length(o->cached->body);
    pthread_mutex_unlock(&d->offers.lock);
    cached_unref(o->cached);
    free(o);
}

bool disk_is_worth_it(const struct cached *c) {
    const struct freshness *f = &c->freshness;
    int64_t left = f->received - f->initial_age + f->lifetime - cache_now();
    return !c->pass && !(f->flags & FRESHNESS_VALIDATE) && left > DISK_FRESH_LEAST * 1000 &&
           cache_body_state(c->body) == CACHE_BODY_WHOLE && body_is_sound(c->body);
}

static struct record_head head_of(const struct disk *d, const struct cached *c) {
    return (struct record_head){ .key = disk_key_hash(d, c->key),
                                 .variant = disk_variant(c->vary),
                                 .expires = disk_expiry(&c->freshness),
                                 .url = disk_url_hash(d, c->url) };
}

/* It is in the index and the number is taken before it is seen that nothing has purged or replaced it: what does so
 * later finds it there, and has a higher one. */
void disk_offer(struct cached *c) {
    struct disk *d = atomic_load(&c->cache->disk);
    if (!d || !disk_is_worth_it(c)) return;
    if (atomic_load(&d->state) != DISK_SERVES) {
        atomic_fetch_add(&d->figures.skipped, 1);
        return;
    }
    struct record_head head = head_of(d, c);
    uint32_t id = disk_index_reserve(d, &head, (uint32_t)STORED_OF(c)->hash);
    if (!id) return;
    struct offer *o = must_malloc(sizeof *o);
    *o = (struct offer){ .cached = cached_ref(c), .number = purges_number(d), .id = id };
    bool current = cached_is_current(c);
    if (current && push_offer(d, o)) return;
    if (current) atomic_fetch_add(&d->figures.skipped, 1);
    disk_index_cancel(d, id);
    cached_unref(c);
    free(o);
}

/* ---- segments */

/* The one that is to be written next: a new one, else the oldest. */
static uint32_t choose_segment(const struct disk *d) {
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < d->segment_count; i++) {
        if (!atomic_load(&d->segments[i].sequence)) return i;
        if (atomic_load(&d->segments[i].sequence) < atomic_load(&d->segments[oldest].sequence)) oldest = i;
    }
    return oldest;
}

static uint64_t oldest_number(const struct disk *d) {
    uint64_t number = UINT64_MAX;
    for (uint32_t i = 0; i < d->segment_count; i++)
        if (atomic_load(&d->segments[i].sequence) && d->segments[i].number < number) number = d->segments[i].number;
    return number;
}

static bool make_room(struct disk *d, int file, struct segment *s) {
    if (s->there) return true;
    int result = fallocate(file, 0, 0, (off_t)segment_bytes(d));
    if (result != 0 && errno == EOPNOTSUPP) result = ftruncate(file, (off_t)segment_bytes(d));
    s->there = result == 0;
    return s->there;
}

static int open_segment(struct disk *d, uint32_t segment) {
    char name[SEGMENT_NAME];
    segment_name(segment, name);
    return openat(d->directory, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static void close_segment(struct disk *d) {
    if (d->writer.file < 0) return;
    sync_file_range(d->writer.file, 0, 0, SYNC_FILE_RANGE_WRITE);
    close(d->writer.file);
    d->writer.file = -1;
}

/* A disk that has less room than it was promised makes do with the segments it has. */
static void shrink(struct disk *d, uint32_t segment) {
    char name[SEGMENT_NAME];
    segment_name(segment, name);
    unlinkat(d->directory, name, 0);
    if (segment == 0) return;
    log_warn("%s: no room for more than %u of %u segments", d->path, segment, d->segment_count);
    d->segment_count = segment;
}

static bool begin_segment(struct disk *d, uint32_t segment) {
    struct segment *s = &d->segments[segment];
    struct segment_head head = { .sequence = d->writer.sequence + 1,
                                 .number = purges_number(d),
                                 .epoch = d->purges.epoch };
    char block[DISK_UNIT] = { 0 };
    segment_head_seal(&head, segment_bytes(d));
    memcpy(block, &head, sizeof head);
    atomic_store(&s->sequence, 0);
    disk_index_drop(d, segment);
    int file = open_segment(d, segment);
    if (file < 0 || !make_room(d, file, s) || !write_whole(file, block, sizeof block, 0)) {
        bool full = errno == ENOSPC && file >= 0 && !s->there;
        disk_complain(d, "begin a segment");
        if (file >= 0) close(file);
        if (full) shrink(d, segment);
        return false;
    }
    d->writer.file = file;
    d->writer.segment = segment;
    d->writer.sequence = head.sequence;
    d->writer.chain = head.sum;
    d->writer.at = 1;
    s->number = head.number;
    atomic_store(&s->sequence, head.sequence);
    purges_forget(d, oldest_number(d));
    disk_plan_rescue(d, choose_segment(d));
    return true;
}

bool disk_has_room(struct disk *d, uint32_t units) { return d->writer.at && d->writer.at + units <= d->segment_units; }

/* A segment in which there is room for that much is open. */
static bool find_room(struct disk *d, uint32_t units) {
    if (disk_has_room(d, units)) {
        if (d->writer.file < 0) d->writer.file = open_segment(d, d->writer.segment);
        if (d->writer.file < 0) disk_complain(d, "open a segment");
        return d->writer.file >= 0;
    }
    close_segment(d);
    d->writer.at = 0;
    return begin_segment(d, choose_segment(d));
}

/* ---- records */

/* The next piece of the body into `to`; its length. */
static size_t gather(struct cache_reader *r, char *to) {
    size_t n = 0;
    bool passing;
    for (struct slice s; n < DISK_PIECE && (s = cache_reader_peek(r, &passing)).n;) {
        if (s.n > DISK_PIECE - n) s.n = DISK_PIECE - n;
        memcpy(to + n, s.p, s.n);
        cache_reader_skip(r, s.n);
        n += s.n;
    }
    return n;
}

static void tell_nobody(struct cache_reader *r) { (void)r; }

static bool write_body(struct disk *d, struct cache_body *body, uint64_t at, struct digest *sums) {
    struct cache_reader r;
    if (!cache_reader_open(&r, body, 0, tell_nobody)) return false;
    bool ok = true;
    for (size_t n; ok && (n = gather(&r, d->writer.piece)) > 0; at += n) {
        *sums++ = disk_digest(d->writer.piece, n, 0);
        ok = write_whole(d->writer.file, d->writer.piece, n, at);
    }
    cache_reader_close(&r);
    return ok;
}

void disk_place_head(struct disk *d, struct record_head *h, uint64_t number) {
    h->sequence = d->writer.sequence;
    h->chain = d->writer.chain;
    h->at = d->writer.at;
    h->number = number;
    record_head_seal(h);
}

static bool write_record(struct disk *d, const struct offer *o, struct record_head *h) {
    const struct cached *c = o->cached;
    uint64_t at = (uint64_t)d->writer.at * DISK_UNIT;
    char *meta = must_malloc(h->meta);
    meta_write(c, h->body, meta);
    bool ok = write_body(d, c->body, at + sizeof *h + h->meta, (struct digest *)(void *)meta);
    h->meta_sum = disk_digest(meta, h->meta, 0);
    disk_place_head(d, h, o->number);
    ok = ok && write_whole(d->writer.file, meta, h->meta, at + sizeof *h) &&
         write_whole(d->writer.file, h, sizeof *h, at);
    free(meta);
    return ok;
}

void disk_wrote(struct disk *d, const struct record_head *h) {
    d->writer.at += h->units;
    d->writer.chain = h->sum;
    atomic_fetch_add(&d->figures.writes, 1);
    atomic_fetch_add(&d->figures.written_bytes, (uint64_t)h->units * DISK_UNIT);
}

static void write_offer(struct disk *d, const struct offer *o) {
    const struct cached *c = o->cached;
    uint64_t body = cache_body_length(c->body), meta = meta_size(c, body);
    uint64_t units = units_of(sizeof(struct record_head) + meta + body);
    if (meta > META_MOST || units >= d->segment_units) {
        atomic_fetch_add(&d->figures.skipped, 1);
        disk_index_cancel(d, o->id);
        return;
    }
    if (!find_room(d, (uint32_t)units)) {
        disk_index_cancel(d, o->id);
        return;
    }
    struct record_head h = head_of(d, c);
    h.body = body;
    h.units = (uint32_t)units;
    h.meta = (uint32_t)meta;
    if (write_record(d, o, &h)) {
        disk_wrote(d, &h);
        disk_index_settle(d, o->id, d->writer.segment * d->segment_units + h.at, h.units);
        return;
    }
    disk_complain(d, "write");
    disk_index_cancel(d, o->id);
}

/* What is new, and in turn with it what is rescued. False: the disk closes, and nothing is left. */
static bool write_next(struct disk *d) {
    bool serves = atomic_load(&d->state) == DISK_SERVES;
    struct offer *o = next_offer(d);
    if (o && serves) write_offer(d, o);
    else if (o) disk_index_cancel(d, o->id);
    if (o) drop_offer(d, o);
    if (!o && atomic_load(&d->closing)) return false;
    if (disk_rescues(d)) disk_rescue_one(d);
    return true;
}

void *disk_writer_run(void *disk) {
    struct disk *d = disk;
    if (!disk_take_directory(d)) {
        atomic_store(&d->state, DISK_FAILED);
        return NULL;
    }
    d->writer.piece = must_malloc(DISK_PIECE);
    while (write_next(d)) {}
    close_segment(d);
    free(d->rescue.list);
    free(d->writer.piece);
    return NULL;
}
