/* The disk is a log: what was written first goes first, used or not. So when a segment is begun, the next that will be
 * dropped is looked through, and what is in use there is written again, behind what is new: FIFO with reinsertion,
 * which is what the queues of memory do (cache_room.c), and costs a bit for each object instead of an order of all.
 * (Requests after Zipf, 0.9, for five times what the disk holds: hits went from 62.5 to 65.0 %, and with a scan through
 * them from 53.1 to 56.4 %, for a quarter more writes. Half a segment instead of a quarter: no hits more, and a third
 * more writes.)
 *
 * In use is what memory has, and has been asked for; it is written from there, with its latest head. And what was
 * loaded since it was written: its record is copied, with the number of the last purge anew, once it is sure that none
 * has hit it. It must be used again to stay again.
 *
 * The work is bounded: a quarter of a segment is rescued at most, and what of one response is beyond that, so that each
 * byte that is new costs a third of another one in the worst case. And it is never in the way: what is new is written
 * first, record by record in turn; what has not been rescued when the segment is full is lost. All in the writer's
 * thread. */
#include "store/disk_inside.h"

#include "base/must.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { RESCUES_MOST = 4096, RESCUED_PART = 4, MOST_AT_ONCE = 256 };

/* ---- choosing */

static bool fits(const struct cached *c, const void *with) {
    const struct entry *e = with;
    return disk_variant(c->vary) == e->variant;
}

/* In memory, a reference; NULL: not there, or nobody asks for it. */
static struct cached *find_used(struct disk *d, const struct entry *e) {
    return e->memory ? cache_find_used(d->cache, e->memory, fits, e) : NULL;
}

static bool is_in_use(struct disk *d, const struct entry *e) {
    if (e->loaded) return true;
    struct cached *used = find_used(d, e);
    cached_unref(used);
    return used != NULL;
}

static void choose(struct disk *d, const struct disk_lost *lost, unsigned count, int64_t *left) {
    for (unsigned i = 0; i < count; i++) {
        if (d->rescue.count == RESCUES_MOST || *left <= 0) return;
        if (!is_in_use(d, &lost[i].entry)) continue;
        *left -= lost[i].entry.units;
        d->rescue.list[d->rescue.count++] = lost[i];
    }
}

void disk_plan_rescue(struct disk *d, uint32_t segment) {
    struct disk_lost some[MOST_AT_ONCE];
    int64_t left = d->segment_units / RESCUED_PART;
    uint32_t from = d->segments[segment].first;
    if (!d->rescue.list) d->rescue.list = must_calloc(RESCUES_MOST, sizeof *d->rescue.list);
    d->rescue.count = d->rescue.next = 0;
    while (from) {
        unsigned count = disk_index_list(d, &from, some, MOST_AT_ONCE);
        choose(d, some, count, &left);
    }
}

/* ---- from memory */

static bool offer_used(struct disk *d, const struct disk_lost *l) {
    struct cached *used = find_used(d, &l->entry);
    if (!used) return false;
    bool same = disk_key_hash(d, used->key) == l->entry.key && disk_is_worth_it(used);
    if (same) {
        disk_index_remove_place(d, l->entry.key, l->entry.place);
        disk_offer(used);
    }
    cached_unref(used);
    return same;
}

/* ---- from its old place */

struct copy {
    struct disk *disk;
    const struct disk_lost *lost;
    struct record_head head;
    char *meta;
    int file;
    uint64_t from; /* bytes, in its file */
};

static bool read_record(struct copy *c) {
    struct disk *d = c->disk;
    char name[SEGMENT_NAME];
    uint32_t segment = c->lost->entry.place / d->segment_units, at = c->lost->entry.place % d->segment_units;
    segment_name(segment, name);
    c->from = (uint64_t)at * DISK_UNIT;
    c->file = openat(d->directory, name, O_RDONLY | O_CLOEXEC);
    if (c->file < 0 || !read_whole(c->file, &c->head, sizeof c->head, c->from)) return false;
    if (!record_head_ok(&c->head, atomic_load(&d->segments[segment].sequence), at, d->segment_units)) return false;
    c->meta = must_malloc(c->head.meta + 1UL);
    return read_whole(c->file, c->meta, c->head.meta, c->from + sizeof c->head) &&
           digest_equal(disk_digest(c->meta, c->head.meta, 0), c->head.meta_sum);
}

static bool is_purged(struct copy *c) {
    struct meta m;
    if (!meta_read(&m, c->meta, c->head.meta, c->head.body)) return true;
    bool purged = purges_mark(c->disk, c->head.number, &m) != MARK_NONE;
    meta_fini(&m);
    return purged;
}

static bool copy_body(struct copy *c, uint64_t to) {
    const struct digest *sums = (const struct digest *)(const void *)c->meta;
    uint64_t behind = sizeof c->head + c->head.meta;
    char *piece = c->disk->writer.piece;
    for (uint64_t done = 0; done < c->head.body; sums++) {
        size_t n = c->head.body - done < DISK_PIECE ? (size_t)(c->head.body - done) : DISK_PIECE;
        if (!read_whole(c->file, piece, n, c->from + behind + done)) return false;
        if (!digest_equal(disk_digest(piece, n, 0), *sums)) return false;
        if (!write_whole(c->disk->writer.file, piece, n, to + behind + done)) return false;
        done += n;
    }
    return true;
}

/* Back to front, as all records. Its head not at all, if it was superseded meanwhile: what did so is written later, and
 * must be the latest that a scan finds. */
static bool write_record(struct copy *c) {
    struct disk *d = c->disk;
    struct record_head h = c->head;
    uint64_t number = purges_number(d); /* before it is asked whether one has hit it */
    uint64_t to = (uint64_t)d->writer.at * DISK_UNIT;
    if (is_purged(c) || !copy_body(c, to) || disk_index_is_dead(d, c->lost->id)) return false;
    disk_place_head(d, &h, number);
    bool ok =
        write_whole(d->writer.file, c->meta, h.meta, to + sizeof h) && write_whole(d->writer.file, &h, sizeof h, to);
    if (ok) disk_wrote(d, &h);
    return ok;
}

static bool copy_lost(struct disk *d, const struct disk_lost *l) {
    struct copy c = { .disk = d, .lost = l, .file = -1 };
    uint32_t id = disk_index_take_over(d, l->id);
    if (!id) return false;
    uint32_t place = d->writer.segment * d->segment_units + d->writer.at;
    bool ok = read_record(&c) && write_record(&c);
    if (ok) disk_index_move(d, l->id, id, place);
    else disk_index_cancel(d, id);
    if (c.file >= 0) close(c.file);
    free(c.meta);
    return ok;
}

/* ---- one by one */

bool disk_rescues(const struct disk *d) { return d->rescue.next < d->rescue.count; }

void disk_rescue_one(struct disk *d) {
    const struct disk_lost *l = &d->rescue.list[d->rescue.next++];
    if (disk_index_is_dead(d, l->id)) return;
    if (!disk_has_room(d, l->entry.units)) {
        d->rescue.count = 0;
        return;
    }
    if (offer_used(d, l) || copy_lost(d, l)) atomic_fetch_add(&d->figures.rescued, 1);
}
