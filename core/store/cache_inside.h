/* What the files of the cache share; nobody else includes it.
 *
 *   cache_memory.c  runs of memory, a hard limit
 *   cache_room.c    the same with eviction: what is stored stands in queues, and makes room
 *   cache_body.c    bodies and their readers
 *   cache_head.c    stored heads, their tags
 *   cache_marks.c   purges
 *   cache_index.c   keys, variants, look-ups, the sweep
 *   cache_fill.c    fills and followers
 *   cache.c         caches by name, figures
 *
 * Locks, in the order in which they may be taken:
 *   shard   of a key's hash: the index, fills and their followers; whether an object is linked at all
 *   marks   purges and their sequence, the table of tags
 *   url     the index by URL
 *   body    one of some, by address: a body's readers and its window
 *   room    memory and queues
 * Room is made (room_take) with none of them held, since what is evicted leaves the index. */
#pragma once

#include "base/list.h"
#include "store/cache.h"
#include "store/cache_memory.h"

#include <pthread.h>

struct stored;
struct tag;

/* ---- heads */

enum cache_mark { MARK_NONE, MARK_SOFT, MARK_HARD };
enum cache_queue { QUEUE_NONE, QUEUE_SMALL, QUEUE_MAIN };

/* A stored head as the store sees it: the first line of its run, the text behind. */
struct stored {
    struct stored *next;        /* under its key's bucket; when unlinked, in a list of those to be buried */
    struct stored *next_of_url; /* under its URL's bucket */
    uint64_t hash;              /* of its key */
    struct list place;          /* in its queue */
    _Atomic uint64_t checked;   /* `mark` tells all purges up to this sequence */
    uint32_t units;             /* of this run */
    uint32_t weight;            /* units of it and, while it owns it, its body: under the room lock */
    atomic_uchar uses;          /* 0 to 3, since it was last looked at for eviction: set under its shard's lock */
    atomic_uchar mark;          /* enum cache_mark; only grows */
    uint8_t queue;              /* enum cache_queue; under the room lock */
    bool linked;                /* under its shard's lock */
    bool validates;             /* it has an ETag or Last-Modified */
    struct cached head;
};

#define STORED_OF(cached) container_of(cached, struct stored, head)

/* A head as in the draft, one reference, with the body (may be NULL) whose reference it takes over. NULL: no room; the
 * body is left alone. */
struct stored *stored_create(struct cache *, struct slice key, uint64_t hash, const struct cache_draft *,
                             struct cache_body *);
/* Drops the references of a list by `next`. No lock is held. */
void stored_bury(struct stored *);

/* ---- memory with eviction */

enum { GHOST_WAYS = 4 };

struct ghost {
    uint32_t print, when;
};

struct queue {
    struct list list; /* the oldest first */
    uint64_t units, count;
};

struct room {
    pthread_mutex_t lock;
    struct cache_memory memory;
    struct queue small, main;
    struct ghost *ghosts;
    size_t ghost_mask;
    uint32_t ghost_clock;
};

/* Like cache_memory_take; evicts until there is room. `owner` (may be NULL): whose weight grows. */
void *room_take(struct cache *, struct cache_body *, uint32_t want, uint32_t least, uint32_t *units);
void room_give(struct cache *, struct cache_body *, void *run, uint32_t units);
/* Into a queue; `like` (may be NULL): the head whose place it takes. Its body's weight is its own from now on. */
void room_enter(struct cache *, struct stored *, struct stored *like);
void room_leave(struct cache *, struct stored *);
/* The head that is findable with that body, a reference; NULL: none. */
struct stored *room_owner(struct cache *, struct cache_body *);
/* Has it been asked for, lately or often? */
bool room_is_used(struct cache *, struct stored *);
/* Evicts until what is used is within the limit, or nothing is left to evict. */
void room_settle(struct cache *);

/* ---- bodies */

/* Empty, arriving, a reference. What is known of its length is taken at once, up to a run. NULL: no room. */
struct cache_body *body_create(struct cache *, uint64_t length);
/* References of the store's own: heads, readers. */
struct cache_body *body_ref(struct cache_body *);
void body_unref(struct cache_body *); /* NULL is ignored */
/* Its writer should not store it any further: it was evicted. */
void body_squeeze(struct cache_body *);
/* May a new head have it? */
bool body_is_sound(const struct cache_body *);

struct piece;

struct cache_body {
    _Atomic uint64_t refs; /* low half: all references; high half: those of cache_body_ref, who may keep bytes */
    struct cache *cache;
    uint64_t serial;
    struct piece *_Atomic first;
    _Atomic uint64_t available;
    uint64_t expected;
    struct piece *last;   /* the writer's: what it fills, */
    uint32_t left;        /* and how many bytes that still takes */
    uint32_t units;       /* of it and its pieces: room lock */
    struct stored *owner; /* the head whose weight includes it: room lock */
    atomic_uint links;    /* heads in the index */
    atomic_uchar state;   /* enum cache_body_state */
    atomic_bool passing;  /* no more stored: a window */
    atomic_bool squeezed; /* evicted while it arrives: its writer makes it a window */
    bool given_up;        /* nobody will read it: body lock */
    struct list readers;  /* those that were opened while it arrived: body lock */
    uint64_t dropped;     /* the bytes before `first`: body lock */
    struct piece *kept;   /* pieces that all have passed, and somebody may still hold: body lock */
    void (*tell_room)(void *);
    void *room_data;
};

/* ---- purges */

enum { RECENT_PURGES = 4096, PREFIXES_MOST = 1024 };

/* One of the last purges, of an URL or a tag. */
struct recent_purge {
    uint64_t sequence, hash; /* another sequence than is looked for: it was of another kind */
    bool soft;
};

struct prefix {
    struct prefix *next;
    uint64_t sequence;
    uint32_t units;
    bool soft;
    uint32_t n;
    char bytes[];
};

struct tag {
    struct tag *next;
    uint64_t hash;
    uint32_t refs, hit; /* heads that have it; those of them that were purged already: marks lock */
    uint32_t units, n;
    _Atomic uint64_t purged[2]; /* sequence of the last purge: hard, soft */
    char bytes[];
};

struct marks {
    pthread_mutex_t lock;
    _Atomic uint64_t sequence;                 /* of the last purge */
    _Atomic uint64_t all[2];                   /* of the last purge of everything: hard, soft */
    struct recent_purge recent[RECENT_PURGES]; /* by sequence, for fills under way */
    uint64_t forgotten;                        /* purges of prefixes up to here are applied to all, and gone */
    struct prefix *prefixes;                   /* the latest first */
    unsigned prefix_count;
    struct tag **tags;
    size_t tag_mask;
};

/* What purges did to it. Its shard is locked. */
enum cache_mark marks_of(struct cache *, struct stored *);
void mark_raise(struct stored *, enum cache_mark);
/* A head that was just linked, of a response asked for at `sequence`: purged meanwhile? */
void marks_check(struct cache *, struct stored *, uint64_t sequence);
uint64_t marks_sequence(const struct cache *);
/* Every linked head knows of all purges up to `sequence`. */
void marks_forget(struct cache *, uint64_t sequence);
void marks_fini(struct cache *);

/* A reference; NULL: no room. */
struct tag *tag_borrow(struct cache *, struct slice);
void tag_give_back(struct cache *, struct tag *, bool purged);
struct slice tag_slice(const struct tag *);
struct tag *tag_of(struct slice);

/* ---- the index */

enum { SHARDS_MOST = 64, FILL_BUCKETS = 16 };

struct table {
    struct stored **buckets;
    size_t mask;
};

struct shard {
    pthread_mutex_t lock;
    struct table keys;
    struct cache_fill *fills[FILL_BUCKETS];
} __attribute__((aligned(64)));

struct url_shard {
    pthread_mutex_t lock;
    struct table urls;
} __attribute__((aligned(64)));

enum removal { REMOVED_EVICTED, REMOVED_PURGED, REMOVED_EXPIRED, REMOVED_REPLACED, REMOVED_REFUSED };

struct shard *index_shard(struct cache *, uint64_t hash);
/* What there is for a request, of what is not hard-purged; expired passes are unlinked on the way. Shard locked. */
struct found {
    struct stored *best;   /* NULL: none */
    struct stored *varied; /* the latest variant with a Vary, whether it fits or not */
    bool vary_miss, purged;
    bool softly; /* best: purged softly */
};
struct found index_search(struct cache *, struct shard *, const struct cache_key *, const struct headers *request,
                          struct stored **dead);
/* With the shard locked. `dead`: a list of what is to be buried once it is not. */
void index_link(struct cache *, struct shard *, struct stored *, struct stored *like);
void index_unlink(struct cache *, struct shard *, struct stored *, enum removal, struct stored **dead);
/* Those under the key of `s` that it replaces: passes, and variants of the same Vary or all. */
void index_replace(struct cache *, struct shard *, struct stored *s, bool all, struct stored **dead);
/* Something under a key with these lower bits of a hash, that fits, and was asked for since it was stored, or more
 * often than most: a reference. NULL: none. */
struct cached *cache_find_used(struct cache *, uint32_t hash, bool (*fits)(const struct cached *, const void *with),
                               const void *with);
/* Unlinks it if it still is linked. No lock is held. */
void index_remove(struct cache *, struct stored *, enum removal);
/* Marks what has this URL; how many were not hard-purged before. The marks are locked. */
uint64_t index_mark_url(struct cache *, struct slice url, enum cache_mark);
bool index_init(struct cache *);
void index_resize(struct cache *); /* as the limit of its memory wants it */
uint64_t index_bytes(const struct cache *);
void index_fini(struct cache *);
/* Looks at so many objects and unlinks what is purged or of no use any more. True: all have been seen once. */
bool index_sweep(struct cache *, unsigned objects);

/* ---- fills */

/* With the shard locked: those under way are purged, too. */
void fills_purge(struct shard *, const struct cache_key *, enum cache_mark);

/* ---- a cache */

enum { BODY_LOCKS = 64 };

struct body_lock {
    pthread_mutex_t lock;
} __attribute__((aligned(64)));

struct cache {
    struct cache *next;
    struct slice site;
    _Atomic uint64_t max_object;
    unsigned shard_count; /* a power of two, of keys as of URLs */
    struct shard *shards;
    struct url_shard *url_shards;
    struct room room;
    struct marks marks;
    struct disk *_Atomic disk; /* disk.c's; NULL: none */
    struct body_lock body_locks[BODY_LOCKS];
    struct {
        pthread_mutex_t lock;
        unsigned shard;
        size_t bucket;
        uint64_t sequence; /* when it began */
    } sweep;
    struct {
        _Atomic uint64_t objects, passes, stored, freshened, refused, removed[5], evicted_bytes;
    } figures;
};

static inline void cache_count(_Atomic uint64_t *figure, uint64_t n) {
    atomic_fetch_add_explicit(figure, n, memory_order_relaxed);
}

int64_t cache_now(void);                 /* Unix time in ms */
void cache_lock_init(pthread_mutex_t *); /* one that spins before it sleeps */
