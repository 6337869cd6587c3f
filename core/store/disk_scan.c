/* Taking a directory, in the writer's thread: the lock, the journal of purges, the segments.
 *
 * The lock is asked for again and again instead of once with a wait, so that a process can end that waits for it.
 *
 * The scan goes from the latest segment to the oldest, so that of two records under one key the later counts, whenever
 * somebody asks meanwhile. In each segment it follows heads: a record says how long it is, and where the next one
 * begins. Bodies are not read. The chain ends at the first head that does not check, or does not belong behind the one
 * before: what was there in an earlier use of the segment, or of the place, never fits. Behind the last record of the
 * latest segment writing goes on, so that a process that dies often does not use up a segment each time. */
#include "store/disk_inside.h"

#include "base/log.h"
#include "base/must.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SCANNED_AT_ONCE = 64 << 10, LOCK_EVERY = 50 /* ms */ };

void segment_name(uint32_t segment, char to[SEGMENT_NAME]) { snprintf(to, SEGMENT_NAME, "segment-%05u", segment); }

size_t read_up_to(int file, void *to, size_t n, uint64_t at) {
    size_t got = 0;
    while (got < n) {
        ssize_t some = pread(file, (char *)to + got, n - got, (off_t)(at + got));
        if (some < 0 && errno == EINTR) continue;
        if (some <= 0) break;
        got += (size_t)some;
    }
    return got;
}

bool read_whole(int file, void *to, size_t n, uint64_t at) { return read_up_to(file, to, n, at) == n; }

bool write_whole(int file, const void *bytes, size_t n, uint64_t at) {
    for (size_t done = 0; done < n;) {
        ssize_t some = pwrite(file, (const char *)bytes + done, n - done, (off_t)(at + done));
        if (some < 0 && errno == EINTR) continue;
        if (some <= 0) return false;
        done += (size_t)some;
    }
    return true;
}

/* ---- the directory */

static bool refuse(struct disk *d, const char *what) {
    log_error("cache.disk: cannot %s %s: %s (it must belong to the user that serves); memory alone is used", what,
              d->path, strerror(errno));
    return false;
}

static bool open_directory(struct disk *d) {
    if (mkdir(d->path, 0700) != 0 && errno != EEXIST) return refuse(d, "make");
    d->directory = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->directory < 0) return refuse(d, "open");
    d->lock = openat(d->directory, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return d->lock >= 0 || refuse(d, "write in");
}

static bool take_lock(struct disk *d) {
    bool said = false;
    while (flock(d->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) return refuse(d, "lock");
        if (atomic_load(&d->closing)) return false;
        if (!said) {
            log_info("%s belongs to another process: waiting for its end", d->path);
            purges_put_off(d);
        }
        said = true;
        nanosleep(&(struct timespec){ 0, LOCK_EVERY * 1000000L }, NULL);
    }
    return true;
}

/* ---- segments */

struct scan {
    struct disk *disk;
    uint32_t segment;
    int file;
    struct segment_head head;
    uint32_t at; /* behind the last record */
    uint64_t chain;
    char *bytes; /* SCANNED_AT_ONCE of the file, from `from` */
    uint64_t from;
    size_t n;
};

static bool open_segment(struct scan *s, uint32_t segment) {
    struct disk *d = s->disk;
    char name[SEGMENT_NAME];
    segment_name(segment, name);
    s->segment = segment;
    s->at = 1;
    s->n = 0;
    s->file = openat(d->directory, name, O_RDONLY | O_CLOEXEC);
    if (s->file < 0) return false;
    bool sound = read_whole(s->file, &s->head, sizeof s->head, 0) && segment_head_ok(&s->head, segment_bytes(d)) &&
                 s->head.epoch == d->purges.epoch;
    s->chain = s->head.sum;
    if (!sound) close(s->file);
    return sound;
}

/* The head at that place; NULL: it cannot be read. */
static const struct record_head *head_at(struct scan *s, uint32_t at) {
    uint64_t from = (uint64_t)at * DISK_UNIT;
    if (from < s->from || from + sizeof(struct record_head) > s->from + s->n) {
        ssize_t n = pread(s->file, s->bytes, SCANNED_AT_ONCE, (off_t)from);
        s->from = from;
        s->n = n > 0 ? (size_t)n : 0;
    }
    if (from + sizeof(struct record_head) > s->from + s->n) return NULL;
    return (const struct record_head *)(const void *)(s->bytes + (from - s->from));
}

static void scan_segment(struct scan *s) {
    struct disk *d = s->disk;
    while (!atomic_load(&d->closing)) {
        const struct record_head *h = s->at < d->segment_units ? head_at(s, s->at) : NULL;
        if (!h || !record_head_ok(h, s->head.sequence, s->at, d->segment_units) || h->chain != s->chain) return;
        if (!purges_cover(d, h->number)) disk_index_add(d, h, s->segment);
        s->chain = h->sum;
        s->at += h->units;
    }
}

struct known {
    uint64_t sequence;
    uint32_t segment;
};

static int latest_first(const void *a, const void *b) {
    uint64_t x = ((const struct known *)a)->sequence, y = ((const struct known *)b)->sequence;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Those that are there; their number. */
static uint32_t find_segments(struct scan *s, struct known *known) {
    struct disk *d = s->disk;
    uint32_t count = 0;
    for (uint32_t i = 0; i < d->segment_count; i++) {
        if (!open_segment(s, i)) continue;
        close(s->file);
        known[count++] = (struct known){ s->head.sequence, i };
        atomic_store(&d->segments[i].sequence, s->head.sequence);
        d->segments[i].number = s->head.number;
        d->segments[i].there = true;
    }
    qsort(known, count, sizeof *known, latest_first);
    return count;
}

/* Writing goes on there. */
static void go_on_behind(struct scan *s) {
    struct disk *d = s->disk;
    d->writer.segment = s->segment;
    d->writer.sequence = s->head.sequence;
    d->writer.at = s->at;
    d->writer.chain = s->chain;
}

/* Of a disk that was larger. */
static void remove_rest(struct disk *d) {
    char name[SEGMENT_NAME];
    for (uint32_t i = d->segment_count;; i++) {
        segment_name(i, name);
        if (unlinkat(d->directory, name, 0) != 0) return;
    }
}

static void scan_segments(struct disk *d) {
    struct scan s = { .disk = d, .bytes = must_malloc(SCANNED_AT_ONCE) };
    struct known *known = must_calloc(d->segment_count, sizeof *known);
    uint32_t count = find_segments(&s, known);
    for (uint32_t i = 0; i < count && !atomic_load(&d->closing); i++) {
        if (!open_segment(&s, known[i].segment)) continue;
        scan_segment(&s);
        close(s.file);
        if (i == 0) go_on_behind(&s);
    }
    remove_rest(d);
    free(known);
    free(s.bytes);
}

bool disk_take_directory(struct disk *d) {
    if (!open_directory(d) || !take_lock(d) || (!purges_open(d) && !refuse(d, "keep purges in"))) {
        purges_put_off(d);
        return false;
    }
    atomic_store(&d->state, DISK_SCANS);
    scan_segments(d);
    if (atomic_load(&d->closing)) return false;
    uint64_t objects, bytes;
    disk_index_count(d, &objects, &bytes);
    atomic_store(&d->state, DISK_SERVES);
    log_info("%s: %llu stored responses found, %llu bytes", d->path, (unsigned long long)objects,
             (unsigned long long)bytes);
    return true;
}
