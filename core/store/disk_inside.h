/* What the files of the disk tier share; nobody else includes it.
 *
 *   disk_record.c   the one format of records: their heads, their meta, checksums
 *   disk_index.c    what is where, in memory
 *   disk_purges.c   purges and their journal
 *   disk_scan.c     taking a directory: its lock, its journal, its segments
 *   disk_write.c    the writer: queue, segments, records
 *   disk_rescue.c   what is written again before its segment goes
 *   disk_read.c     loads
 *   disk.c          disks of caches, threads, figures
 *
 * Locks: of the index, of the purges, of each queue. None is held while another one is taken, nor while a file is
 * touched. The cache's own may be held when one of these is taken, never the reverse. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "store/cache_inside.h"
#include "store/disk.h"

#ifdef MOONGATE_HARD
enum { DISK_PIECE = 4 << 10 };
#else
enum { DISK_PIECE = 1 << 20 }; /* bytes of a body that have a checksum of their own, and are read at once */
#endif
enum { DISK_UNIT = 512, DISK_READERS = 4, META_MOST = 2 << 20, CANDIDATES_MOST = 16 };

/* ---- checksums */

uint64_t disk_sum(const void *, size_t);
struct digest disk_digest(const void *, size_t, uint64_t seed);

/* ---- records: head, meta, body, one behind the other, beginning at a unit of a segment */

struct segment_head {
    uint64_t magic, size, sequence;
    uint64_t number; /* of the last purge when it was begun */
    uint64_t epoch;  /* of the directory: the journal's */
    uint64_t sum;
};

struct record_head {
    uint64_t magic;
    uint64_t sequence; /* its segment's */
    uint64_t chain; /* `sum` of the record before it, or of the segment's head: what was there earlier does not fit */
    uint64_t key;
    uint64_t number; /* of the last purge that it knows of */
    uint64_t body;   /* bytes */
    uint32_t at;     /* the unit where it begins */
    uint32_t units;
    uint32_t meta; /* bytes */
    uint32_t variant;
    uint32_t expires; /* Unix seconds */
    uint32_t url;     /* disk_url_hash */
    struct digest meta_sum;
    uint64_t sum; /* of all before */
};

void segment_head_seal(struct segment_head *, uint64_t size);
bool segment_head_ok(const struct segment_head *, uint64_t size);
void record_head_seal(struct record_head *);
/* `at` of a segment with `units`. */
bool record_head_ok(const struct record_head *, uint64_t sequence, uint32_t at, uint32_t units);
static inline uint64_t pieces_of(uint64_t body) { return (body + DISK_PIECE - 1) / DISK_PIECE; }
static inline uint64_t units_of(uint64_t bytes) { return (bytes + DISK_UNIT - 1) / DISK_UNIT; }

/* The meta of a record: checksums of the body's pieces, then everything of a stored response but its body. */
size_t meta_size(const struct cached *, uint64_t body);
/* Into `to`, of meta_size; the sums are left for the caller: an array of struct digest at its beginning. */
void meta_write(const struct cached *, uint64_t body, char *to);

struct meta {
    struct arena arena;
    struct headers headers;
    struct cache_draft draft;
    struct slice key;
    const struct digest *sums; /* in the bytes that were read, as are all slices */
};
/* The bytes are 8-aligned, and must live as long. False: no such thing; nothing to fini. */
bool meta_read(struct meta *, const char *bytes, size_t n, uint64_t body);
void meta_fini(struct meta *);

uint64_t disk_key_hash(const struct disk *, struct slice key);
uint32_t disk_url_hash(const struct disk *, struct slice url);
uint32_t disk_variant(struct slice vary);
/* When it is stale, Unix seconds. */
uint32_t disk_expiry(const struct freshness *);

/* ---- the index: 40 bytes an object, 4 for each bucket, and 4 for each of four times as many places of URLs */

struct entry {
    uint64_t key;
    uint32_t next;            /* in its bucket, or among the free; 0: none */
    uint32_t next_in_segment; /* 0: none */
    uint32_t place;           /* unit, over all segments */
    uint32_t variant, expires;
    uint32_t units : 24, pending : 1, dead : 1, loaded : 1; /* loaded: since it was written */
    uint32_t url;                                           /* disk_url_hash */
    uint32_t memory; /* of the hash that its key has in memory; 0: not known since the start */
};

_Static_assert(sizeof(struct entry) == 40, "as documented");

struct disk_index {
    pthread_mutex_t lock;
    struct entry *entries; /* [0] is none */
    uint32_t *buckets;
    uint32_t *urls; /* how many entries, dead ones included, have an URL of that hash */
    uint32_t most, used, free, mask, url_mask;
    bool incomplete; /* records were found that there was no entry for */
    uint64_t objects, units;
    size_t entry_bytes, bucket_bytes, url_bytes; /* mapped */
};

struct candidate {
    uint32_t place;
    uint64_t sequence; /* its segment's */
};

bool disk_index_init(struct disk *);
void disk_index_fini(struct disk *);
void disk_index_count(struct disk *, uint64_t *objects, uint64_t *bytes);
bool disk_index_has(struct disk *, uint64_t key);
/* May a record with that URL be on disk, or about to be? What is superseded counts: a restart may find it again. */
bool disk_index_has_url(struct disk *, uint32_t url);
/* The latest first; their number. */
unsigned disk_index_candidates(struct disk *, uint64_t key, struct candidate found[CANDIDATES_MOST]);
/* Something is about to be written, with that key, variant, expiry and URL; 0: it is there already, or the index is
 * full. */
uint32_t disk_index_reserve(struct disk *, const struct record_head *, uint32_t memory);
/* It was, at that place. False: superseded meanwhile. */
bool disk_index_settle(struct disk *, uint32_t id, uint32_t place, uint32_t units);
void disk_index_cancel(struct disk *, uint32_t id);
/* It is about to be written again: an entry to be, for disk_index_move or _cancel. 0: it is dead, or the index is
 * full. */
uint32_t disk_index_take_over(struct disk *, uint32_t id);
/* It was: `fresh` stands for it from now on. */
void disk_index_move(struct disk *, uint32_t id, uint32_t fresh, uint32_t place);
bool disk_index_is_dead(struct disk *, uint32_t id);
/* It was loaded, and memory knows it by that hash. */
void disk_index_note_load(struct disk *, uint64_t key, uint32_t place, uint32_t memory);
struct disk_lost {
    uint32_t id;
    struct entry entry; /* as it was */
};
/* Of a segment's entries, from `*from` on, those that can be loaded and are fresh for a while; moves `*from`, 0: no
 * more. */
unsigned disk_index_list(struct disk *, uint32_t *from, struct disk_lost *, unsigned most);
/* A record that was found by the scan, which goes from the latest segment to the oldest, each from its beginning. */
void disk_index_add(struct disk *, const struct record_head *, uint32_t segment);
/* True: something that would still be fresh was there. */
bool disk_index_remove(struct disk *, uint64_t key, uint32_t variant, bool all);
void disk_index_remove_place(struct disk *, uint64_t key, uint32_t place);
/* All that is in the segment. */
void disk_index_drop(struct disk *, uint32_t segment);

/* ---- purges */

struct purge_place {
    struct digest what;
    uint64_t number; /* 0: free */
};

struct purge_prefix {
    char *text;
    size_t n;
    uint64_t number;
    bool soft;
};

struct purges {
    pthread_mutex_t lock;
    pthread_cond_t news;
    bool opened, begins, ending, failed; /* begins: its file is being made */
    bool elsewhere;                      /* nobody knows when it will be opened: it is not waited for */
    uint64_t epoch;                      /* random, of the directory */
    uint64_t number;                     /* of the last */
    uint64_t safe;                       /* the last that is on disk */
    uint64_t floor[2];                   /* hard, soft: of the last purge of everything */
    struct purge_place *table;
    size_t mask, count;
    struct purge_prefix *prefixes;
    size_t prefix_count;
    char *out; /* records that are to be appended; before it is opened, purges without numbers */
    size_t out_n, out_room;
    struct list waiters;
    int file;
    uint64_t file_size;
};

void purges_init(struct purges *);
void purges_fini(struct purges *);
/* Reads the journal of the directory, or begins one. What was purged before joins. False: errno. */
bool purges_open(struct disk *);
/* It is not opened now, and may never be: who waits goes on. */
void purges_put_off(struct disk *);
/* The journal's thread. */
void *purges_run(void *disk);
void purges_stop(struct disk *);
uint64_t purges_number(struct disk *);
/* What purges with a higher number than `number` say. */
enum cache_mark purges_mark(struct disk *, uint64_t number, const struct meta *);
/* The same, as far as a head tells: is all of that age purged? */
bool purges_cover(struct disk *, uint64_t number);
enum { PURGE_VARIANT = DISK_PURGE_ALL + 1 }; /* a key, with a `variant` */
/* `kind`: enum disk_purge, or PURGE_VARIANT. */
void purges_add(struct disk *, int kind, struct slice what, bool soft, uint32_t variant);
/* No record is left that does not know of purges up to there. */
void purges_forget(struct disk *, uint64_t number);

/* ---- segments */

struct segment {
    _Atomic uint64_t sequence; /* 0: not in use */
    uint64_t number;           /* purges up to it are known to all its records: the writer's */
    uint32_t first;            /* entries: the index's */
    bool there;                /* the file is: the writer's */
};

struct offer {
    struct offer *next;
    struct cached *cached; /* a reference */
    uint64_t number;
    uint32_t id; /* in the index */
};

struct disk {
    struct disk *next; /* of all there were in this process */
    struct cache *cache;
    char *path;
    uint64_t size;
    int directory, lock; /* -1: not open */
    atomic_int state;    /* enum disk_state */
    atomic_bool closing, closed;

    uint32_t segment_count, segment_units;
    struct segment *segments;
    struct disk_index index;
    struct purges purges;

    struct {
        pthread_mutex_t lock;
        pthread_cond_t news;
        struct offer *first, *last;
        unsigned count;
        uint64_t bytes;
    } offers;
    struct { /* the writer's own */
        uint32_t segment, at;
        int file; /* -1: none */
        uint64_t sequence, chain;
        char *piece;
    } writer;
    struct { /* the writer's, too: what is still to be written again */
        struct disk_lost *list;
        unsigned count, next;
    } rescue;
    _Atomic int64_t complained; /* when an error was logged last */
    struct {
        pthread_mutex_t lock;
        pthread_cond_t news;
        struct load *first, *last;
        unsigned count;  /* begun and not ended */
        struct list all; /* these */
    } loads;

    pthread_t writer_thread, journal_thread, readers[DISK_READERS];
    struct {
        _Atomic uint64_t reads, read_bytes, missed, writes, written_bytes, rescued, skipped, corrupt, errors;
    } figures;
};

static inline uint64_t segment_bytes(const struct disk *d) { return (uint64_t)d->segment_units * DISK_UNIT; }
/* "segment-00012" */
enum { SEGMENT_NAME = 32 };
void segment_name(uint32_t segment, char to[SEGMENT_NAME]);
bool write_whole(int file, const void *bytes, size_t n, uint64_t at);
size_t read_up_to(int file, void *to, size_t n, uint64_t at); /* fewer at its end, or on an error */
bool read_whole(int file, void *to, size_t n, uint64_t at);
/* An error of the file system, with errno: counted, and logged once in a while. In its threads. */
void disk_complain(struct disk *, const char *what);

void *disk_writer_run(void *disk); /* takes the directory first */
enum { DISK_FRESH_LEAST = 10 };    /* seconds that something has to be fresh for, to be written */
bool disk_is_worth_it(const struct cached *);
/* In the writer's thread: is there room in the present segment? */
bool disk_has_room(struct disk *, uint32_t units);
/* Makes the head that of a record at the present place. */
void disk_place_head(struct disk *, struct record_head *, uint64_t number);
/* It was written, whole. */
void disk_wrote(struct disk *, const struct record_head *);
/* What is in use in the segment, which goes next, is to be written again. In the writer's thread, as all of this. */
void disk_plan_rescue(struct disk *, uint32_t segment);
bool disk_rescues(const struct disk *);
void disk_rescue_one(struct disk *);
void *disk_reader_run(void *disk);
/* In the writer's thread. False: it failed, or the disk closes. */
bool disk_take_directory(struct disk *);
void disk_drop_loads(struct disk *); /* all that cannot go on */
