/* Purges, and their journal.
 *
 * Each purge gets the next number of the directory, which go on over restarts; each record has the number of the last
 * purge that it knows of. What a later one names is not loaded. So nothing is looked for when something is purged, and
 * a record that was about to be written is hit as well. Clocks are not compared: they can be set back.
 *
 * Keys, URLs and tags are kept as 128 bits of a hash, each once: the latest number. Prefixes are a list. When either is
 * full, the older half goes, and everything written before the last of that half counts as purged (`floor`): bounded,
 * and never too little.
 *
 * The journal is a file of checksummed records that is only appended to, by a thread of its own, so that a purge does
 * not wait behind a body: one write and one fdatasync for all that came meanwhile. Mapping it into memory instead, so
 * that a purge is safe from a crash of ours at once, was rejected: who cuts the file kills the process. A purge that
 * somebody asked for, or that follows from an unsafe request (RFC 9111 4.4), is answered when it is safe
 * (disk_await_purges). One of a URL that nothing on disk has is not written down (disk_has_url): it would be one for
 * each unsafe request there is.
 *
 * A journal whose end is torn lost purges that nobody was told are done. One that is damaged elsewhere may have lost
 * others, so everything written before counts as purged. Without a journal there is no directory: its random epoch
 * stands in every segment, and is part of every hash of a key. */
#include "store/disk_inside.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HARD, SOFT };
enum { PURGE_EPOCH = PURGE_VARIANT + 1, PURGE_NUMBER };

#ifdef MOONGATE_HARD
enum { TABLE_ROOM = 64, PREFIXES_ROOM = 8 };
#else
enum { TABLE_ROOM = 1 << 19, PREFIXES_ROOM = 1024 };
#endif
enum { OUT_MOST = 16 << 20, FILE_SLACK = 4 << 20, TEXT_MOST = 128 << 10, TABLE_FIRST = 64 };

static const uint32_t MAGIC = 0x67727570; /* "purg" */

struct journal_record {
    uint32_t magic;
    uint8_t kind, soft; /* enum disk_purge, or one of those beyond */
    uint16_t reserved;
    uint32_t n; /* bytes of text behind */
    uint32_t variant;
    uint64_t number;
    uint64_t sum; /* of all before, and the text */
};

/* ---- records */

static uint64_t record_sum(const struct journal_record *r, const void *text) {
    return disk_sum(r, offsetof(struct journal_record, sum)) ^ disk_digest(text, r->n, 1).low;
}

static void append_record(struct purges *p, struct journal_record r, const void *text) {
    size_t n = r.n, all = sizeof r + n;
    r.magic = MAGIC;
    r.sum = record_sum(&r, text);
    if (p->out_n + all > p->out_room) {
        p->out_room = (p->out_n + all) * 2;
        p->out = must_realloc(p->out, p->out_room);
    }
    memcpy(p->out + p->out_n, &r, sizeof r);
    if (n) memcpy(p->out + p->out_n + sizeof r, text, n);
    p->out_n += all;
}

static void append(struct purges *p, int kind, bool soft, uint64_t number, const void *text, size_t n) {
    append_record(p, (struct journal_record){ .kind = (uint8_t)kind, .soft = soft, .n = (uint32_t)n, .number = number },
                  text);
}

/* ---- what is remembered. With the purges locked */

static uint64_t seed_of(int kind, bool soft, uint32_t variant) {
    return (uint64_t)variant << 8 | (unsigned)(kind * 2 + soft);
}

static struct purge_place *place_of(struct purge_place *table, size_t mask, struct digest what) {
    size_t i = what.low & mask;
    while (table[i].number && !digest_equal(table[i].what, what)) i = (i + 1) & mask;
    return &table[i];
}

/* Of another size, without what is purged anyway. */
static void rebuild(struct purges *p, size_t room) {
    struct purge_place *table = must_calloc(room, sizeof *table);
    p->count = 0;
    for (size_t i = 0; p->table && i <= p->mask; i++) {
        if (p->table[i].number <= p->floor[HARD]) continue;
        *place_of(table, room - 1, p->table[i].what) = p->table[i];
        p->count++;
    }
    free(p->table);
    p->table = table;
    p->mask = room - 1;
}

static void drop_prefix(struct purges *p, size_t i) {
    free(p->prefixes[i].text);
    memmove(&p->prefixes[i], &p->prefixes[i + 1], (--p->prefix_count - i) * sizeof *p->prefixes);
}

static void raise_floor(struct purges *p, bool soft, uint64_t number) {
    if (number > p->floor[soft]) p->floor[soft] = number;
    while (p->prefix_count && p->prefixes[0].number <= p->floor[HARD]) drop_prefix(p, 0);
}

static int compare_numbers(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The number that half of them have at most. */
static uint64_t median(const struct purges *p) {
    uint64_t *numbers = must_calloc(p->count, sizeof *numbers), n = 0;
    for (size_t i = 0; i <= p->mask; i++)
        if (p->table[i].number) numbers[n++] = p->table[i].number;
    qsort(numbers, n, sizeof *numbers, compare_numbers);
    uint64_t middle = numbers[n / 2];
    free(numbers);
    return middle;
}

/* What was written before counts as purged. A journal that is being read, or not there yet, is written anew anyway. */
static void forget_until(struct purges *p, uint64_t number) {
    raise_floor(p, HARD, number);
    if (p->opened) append(p, DISK_PURGE_ALL, HARD, number, "", 0);
}

static void make_room(struct purges *p) {
    size_t room = p->mask + 1;
    if (p->count * 4 < room * 3) return;
    rebuild(p, room);
    if (p->count * 2 < room) return;
    if (room < TABLE_ROOM) {
        rebuild(p, room * 2);
        return;
    }
    forget_until(p, median(p));
    rebuild(p, room);
}

static void remember_digest(struct purges *p, struct digest what, uint64_t number) {
    make_room(p);
    struct purge_place *place = place_of(p->table, p->mask, what);
    if (!place->number) p->count++;
    *place = (struct purge_place){ what, number };
}

static void remember_prefix(struct purges *p, struct slice text, bool soft, uint64_t number) {
    for (size_t i = 0; i < p->prefix_count; i++) {
        if (p->prefixes[i].soft != soft || !slice_equal(slice_make(p->prefixes[i].text, p->prefixes[i].n), text))
            continue;
        drop_prefix(p, i);
        break;
    }
    if (p->prefix_count == PREFIXES_ROOM) forget_until(p, p->prefixes[PREFIXES_ROOM / 2].number);
    p->prefixes[p->prefix_count++] =
        (struct purge_prefix){ must_strndup(text.n ? text.p : "", text.n), text.n, number, soft };
}

static void write_down(struct purges *p, int kind, bool soft, struct slice what, uint32_t variant) {
    struct digest digest = disk_digest(what.p, what.n, seed_of(kind, soft, variant));
    uint64_t number = ++p->number;
    switch (kind) {
    case DISK_PURGE_ALL:
        raise_floor(p, soft, number);
        append(p, kind, soft, number, "", 0);
        break;
    case DISK_PURGE_PREFIX:
        remember_prefix(p, what, soft, number);
        append(p, kind, soft, number, what.p, what.n);
        break;
    default: remember_digest(p, digest, number); append(p, kind, soft, number, &digest, sizeof digest);
    }
}

/* ---- asking */

uint64_t purges_number(struct disk *d) {
    pthread_mutex_lock(&d->purges.lock);
    uint64_t number = d->purges.number;
    pthread_mutex_unlock(&d->purges.lock);
    return number;
}

static bool names(const struct purges *p, uint64_t number, int kind, bool soft, struct slice what, uint32_t variant) {
    return place_of(p->table, p->mask, disk_digest(what.p, what.n, seed_of(kind, soft, variant)))->number > number;
}

static bool hits(const struct purges *p, uint64_t number, bool soft, const struct meta *m) {
    if (p->floor[soft] > number) return true;
    if (names(p, number, DISK_PURGE_URL, soft, m->draft.url, 0)) return true;
    if (names(p, number, DISK_PURGE_KEY, soft, m->key, 0)) return true;
    if (names(p, number, PURGE_VARIANT, soft, m->key, disk_variant(m->draft.vary))) return true;
    for (uint32_t i = 0; i < m->draft.tag_count; i++)
        if (names(p, number, DISK_PURGE_TAG, soft, m->draft.tags[i], 0)) return true;
    for (size_t i = p->prefix_count; i > 0 && p->prefixes[i - 1].number > number; i--) {
        const struct purge_prefix *prefix = &p->prefixes[i - 1];
        if (prefix->soft == soft && slice_starts_with(m->draft.url, slice_make(prefix->text, prefix->n))) return true;
    }
    return false;
}

enum cache_mark purges_mark(struct disk *d, uint64_t number, const struct meta *m) {
    struct purges *p = &d->purges;
    pthread_mutex_lock(&p->lock);
    enum cache_mark mark = MARK_NONE;
    if (number < p->number)
        mark = hits(p, number, HARD, m) ? MARK_HARD : hits(p, number, SOFT, m) ? MARK_SOFT : MARK_NONE;
    pthread_mutex_unlock(&p->lock);
    return mark;
}

bool purges_cover(struct disk *d, uint64_t number) {
    pthread_mutex_lock(&d->purges.lock);
    bool covered = d->purges.floor[HARD] > number;
    pthread_mutex_unlock(&d->purges.lock);
    return covered;
}

/* Before the journal is there, purges wait as records without a number. Too many: all. */
static void add(struct purges *p, int kind, struct slice what, bool soft, uint32_t variant) {
    if (what.n > TEXT_MOST) return; /* nothing has such a name */
    if (p->out_n > OUT_MOST) {
        p->out_n = 0;
        kind = DISK_PURGE_ALL;
        soft = false;
    }
    if (kind == DISK_PURGE_ALL) what.n = 0;
    struct journal_record early = { .kind = (uint8_t)kind, .soft = soft, .n = (uint32_t)what.n, .variant = variant };
    if (p->opened) write_down(p, kind, soft, what, variant);
    else append_record(p, early, what.p);
    pthread_cond_signal(&p->news);
}

void purges_forget(struct disk *d, uint64_t number) {
    pthread_mutex_lock(&d->purges.lock);
    raise_floor(&d->purges, HARD, number);
    pthread_mutex_unlock(&d->purges.lock);
}

void purges_add(struct disk *d, int kind, struct slice what, bool soft, uint32_t variant) {
    pthread_mutex_lock(&d->purges.lock);
    if (!d->purges.failed) add(&d->purges, kind, what, soft, variant);
    pthread_mutex_unlock(&d->purges.lock);
}

/* ---- reading a journal */

enum reading { READING_GOES_ON, READING_ENDS, READING_TORN, READING_DAMAGED };

static bool is_nothing(const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (bytes[i]) return false;
    return true;
}

static void take_record(struct purges *p, const struct journal_record *r, const char *text) {
    struct digest digest = { 0 };
    if (r->number > p->number) p->number = r->number;
    switch (r->kind) {
    case PURGE_EPOCH: memcpy(&p->epoch, text, sizeof p->epoch); break;
    case PURGE_NUMBER: break;
    case DISK_PURGE_ALL: raise_floor(p, r->soft, r->number); break;
    case DISK_PURGE_PREFIX: remember_prefix(p, slice_make(text, r->n), r->soft, r->number); break;
    default: memcpy(&digest, text, sizeof digest); remember_digest(p, digest, r->number);
    }
}

static bool is_known(const struct journal_record *r) {
    if (r->kind < DISK_PURGE_KEY || r->kind > PURGE_NUMBER || r->soft > 1) return false;
    if (r->kind == PURGE_EPOCH) return r->n == sizeof(uint64_t);
    if (r->kind <= DISK_PURGE_TAG || r->kind == PURGE_VARIANT) return r->n == sizeof(struct digest);
    return true;
}

static enum reading read_record(struct purges *p, const char *bytes, size_t n, size_t *size) {
    struct journal_record r;
    if (n == 0) return READING_ENDS;
    if (n < sizeof r || is_nothing(bytes, n)) return READING_TORN;
    memcpy(&r, bytes, sizeof r);
    if (r.magic != MAGIC || r.n > TEXT_MOST) return READING_DAMAGED;
    if (r.n > n - sizeof r) return READING_TORN;
    if (r.sum != record_sum(&r, bytes + sizeof r) || !is_known(&r)) return READING_DAMAGED;
    take_record(p, &r, bytes + sizeof r);
    *size = sizeof r + r.n;
    return READING_GOES_ON;
}

/* All of it; what was purged and forgotten by damage is everything. */
static void read_records(struct disk *d, const char *bytes, size_t n) {
    struct purges *p = &d->purges;
    enum reading reading = READING_GOES_ON;
    for (size_t at = 0, size = 0; reading == READING_GOES_ON; at += size)
        reading = read_record(p, bytes + at, n - at, &size);
    if (reading != READING_DAMAGED) return;
    atomic_fetch_add(&d->figures.corrupt, 1);
    log_warn("%s: the journal of purges is damaged: what was stored counts as purged", d->path);
    p->epoch = 0;
}

static char *read_file(int file, size_t *n) {
    struct stat st;
    if (fstat(file, &st) != 0) return NULL;
    *n = (size_t)st.st_size;
    char *bytes = malloc(*n + 1);
    if (bytes && read_whole(file, bytes, *n, 0)) return bytes;
    free(bytes);
    return NULL;
}

/* ---- writing it */

/* What is remembered now, as a journal, in place of what is to be appended: it is among it. */
static void compact(struct purges *p) {
    p->out_n = 0;
    append(p, PURGE_EPOCH, false, 0, &p->epoch, sizeof p->epoch);
    append(p, PURGE_NUMBER, false, p->number, "", 0);
    for (int soft = HARD; soft <= SOFT; soft++)
        if (p->floor[soft]) append(p, DISK_PURGE_ALL, soft, p->floor[soft], "", 0);
    for (size_t i = 0; i <= p->mask; i++)
        if (p->table[i].number > p->floor[HARD]) /* which kind it was, its hash knows */
            append(p, DISK_PURGE_KEY, false, p->table[i].number, &p->table[i].what, sizeof p->table[i].what);
    for (size_t i = 0; i < p->prefix_count; i++)
        append(p, DISK_PURGE_PREFIX, p->prefixes[i].soft, p->prefixes[i].number, p->prefixes[i].text, p->prefixes[i].n);
}

/* A new file takes the place of the old one when it is whole. */
static bool replace_file(struct disk *d, const char *bytes, size_t n) {
    struct purges *p = &d->purges;
    int file = openat(d->directory, "purges.new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) return false;
    if (!write_whole(file, bytes, n, 0) || fsync(file) != 0 ||
        renameat(d->directory, "purges.new", d->directory, "purges") != 0 || fsync(d->directory) != 0) {
        close(file);
        return false;
    }
    if (p->file >= 0) close(p->file);
    p->file = file;
    p->file_size = n;
    return true;
}

/* Those that came while there was no journal. */
static void number_early(struct purges *p, const char *bytes, size_t n) {
    struct journal_record r;
    for (size_t at = 0; at < n; at += sizeof r + r.n) {
        memcpy(&r, bytes + at, sizeof r);
        write_down(p, r.kind, r.soft, slice_make(bytes + at + sizeof r, r.n), r.variant);
    }
}

static void tell_waiters(struct purges *p) {
    list_each_safe(node, &p->waiters) {
        struct disk_waiter *w = container_of(node, struct disk_waiter, node);
        bool comes = p->opened ? !p->failed && w->until > p->safe : !p->elsewhere && !p->failed;
        if (comes) continue;
        list_remove(node);
        w->tell(w);
    }
}

void purges_put_off(struct disk *d) {
    pthread_mutex_lock(&d->purges.lock);
    d->purges.elsewhere = true;
    tell_waiters(&d->purges);
    pthread_mutex_unlock(&d->purges.lock);
}

static bool begin_file(struct disk *d) {
    struct purges *p = &d->purges;
    while (!p->epoch) random_bytes(&p->epoch, sizeof p->epoch);
    pthread_mutex_lock(&p->lock);
    char *early = p->out;
    size_t n = p->out_n;
    p->out = NULL;
    p->out_n = p->out_room = 0;
    number_early(p, early, n);
    compact(p);
    char *bytes = p->out;
    size_t size = p->out_n;
    p->out = NULL;
    p->out_n = p->out_room = 0;
    p->opened = p->begins = true;
    uint64_t number = p->number;
    pthread_mutex_unlock(&p->lock);
    bool ok = replace_file(d, bytes, size);
    pthread_mutex_lock(&p->lock);
    if (ok) p->safe = number;
    p->failed = !ok;
    p->begins = false;
    tell_waiters(p);
    pthread_cond_signal(&p->news);
    pthread_mutex_unlock(&p->lock);
    free(early);
    free(bytes);
    return ok;
}

bool purges_open(struct disk *d) {
    struct purges *p = &d->purges;
    size_t n = 0;
    int file = openat(d->directory, "purges", O_RDONLY | O_CLOEXEC);
    char *bytes = file >= 0 ? read_file(file, &n) : NULL;
    if (file >= 0) close(file);
    pthread_mutex_lock(&p->lock);
    if (bytes) read_records(d, bytes, n);
    pthread_mutex_unlock(&p->lock);
    free(bytes);
    return begin_file(d);
}

/* ---- the journal's thread */

/* What is purged cannot be kept: then nothing of it may be there when somebody starts again. */
static void give_up(struct disk *d) {
    disk_complain(d, "write its journal of purges");
    log_error("%s: purges cannot be kept: the disk is given up", d->path);
    unlinkat(d->directory, "purges", 0);
    atomic_store(&d->state, DISK_FAILED);
}

static bool write_out(struct disk *d, const char *bytes, size_t n, bool whole) {
    struct purges *p = &d->purges;
    if (whole) return replace_file(d, bytes, n);
    if (!write_whole(p->file, bytes, n, p->file_size) || fdatasync(p->file) != 0) return false;
    p->file_size += n;
    return true;
}

/* Takes what is to be written; the purges are locked. */
static bool take_out(struct purges *p, char **bytes, size_t *n, uint64_t *number) {
    bool whole = p->file_size + p->out_n > FILE_SLACK + 8 * p->count * sizeof(struct purge_place);
    if (whole) compact(p);
    *bytes = p->out;
    *n = p->out_n;
    *number = p->number;
    p->out = NULL;
    p->out_n = p->out_room = 0;
    return whole;
}

void *purges_run(void *disk) {
    struct disk *d = disk;
    struct purges *p = &d->purges;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        bool due = p->opened && !p->begins && p->out_n > 0 && !p->failed;
        if (!due && p->ending) break;
        if (!due) {
            pthread_cond_wait(&p->news, &p->lock);
            continue;
        }
        char *bytes;
        size_t n;
        uint64_t number;
        bool whole = take_out(p, &bytes, &n, &number);
        pthread_mutex_unlock(&p->lock);
        bool ok = write_out(d, bytes, n, whole);
        free(bytes);
        if (!ok) give_up(d);
        pthread_mutex_lock(&p->lock);
        p->failed = !ok;
        if (ok) p->safe = number;
        tell_waiters(p);
    }
    p->failed = true; /* nobody waits for what will not come */
    tell_waiters(p);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

void purges_stop(struct disk *d) {
    pthread_mutex_lock(&d->purges.lock);
    d->purges.ending = true;
    pthread_cond_signal(&d->purges.news);
    pthread_mutex_unlock(&d->purges.lock);
}

/* ---- waiters */

bool disk_await_purges(struct cache *cache, struct disk_waiter *w) {
    struct disk *d = atomic_load(&cache->disk);
    list_init(&w->node);
    w->disk = NULL;
    if (!d) return false;
    struct purges *p = &d->purges;
    pthread_mutex_lock(&p->lock);
    bool waits = !p->failed && (p->opened ? p->safe < p->number : !p->elsewhere);
    w->until = p->number; /* before it is opened: 0, what came until then is safe at once when it is */
    w->disk = d;
    if (waits) list_push(&p->waiters, &w->node);
    pthread_mutex_unlock(&p->lock);
    return waits;
}

void disk_forget_waiter(struct disk_waiter *w) {
    if (!w->disk) return;
    pthread_mutex_lock(&w->disk->purges.lock);
    list_remove(&w->node);
    pthread_mutex_unlock(&w->disk->purges.lock);
    w->disk = NULL;
}

/* ---- life */

void purges_init(struct purges *p) {
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->news, NULL);
    list_init(&p->waiters);
    p->file = -1;
    p->prefixes = must_calloc(PREFIXES_ROOM, sizeof *p->prefixes);
    rebuild(p, TABLE_FIRST);
}

void purges_fini(struct purges *p) {
    while (p->prefix_count) drop_prefix(p, p->prefix_count - 1);
    if (p->file >= 0) close(p->file);
    free(p->prefixes);
    free(p->table);
    free(p->out);
    pthread_cond_destroy(&p->news);
    pthread_mutex_destroy(&p->lock);
}
