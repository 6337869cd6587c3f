/* Shared dictionaries: `gate.shared(name)`. Named, one per process, seen by all workers and generations. Sharded, one
 * mutex a shard, never held across a wait. Bounded: a full one refuses (FAIL_FULL), or, where its config says so, drops
 * what was used longest ago.
 *
 * The bounds come with each call and not with the dictionary: they are a config's, and while a reload drains, two
 * configs use it. A load that fails has then changed nothing. */
#pragma once

#include "base/failure.h"
#include "base/slice.h"

struct shared;

enum { SHARED_KEY_MAX = 1024, SHARED_MOST = 1024 };

enum shared_kind { SHARED_NIL, SHARED_BOOLEAN, SHARED_INTEGER, SHARED_NUMBER, SHARED_STRING, SHARED_TABLE };

struct shared_value {
    enum shared_kind kind;
    bool owned; /* the bytes were malloc'd for this value */
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct slice string; /* of a table: packed (store/packed.h) */
    };
};

struct shared_bounds {
    size_t bytes; /* of keys, values and overhead together */
    bool evicts;  /* what was used longest ago makes room */
};

/* Finds or makes; NULL when there are SHARED_MOST. */
struct shared *shared_open(struct slice name);
void shared_close_all(void); /* at the end of the process */
void shared_value_fini(struct shared_value *);

enum shared_when { SHARED_ALWAYS, SHARED_IF_ABSENT, SHARED_IF_PRESENT };

/* Keys 1 to SHARED_KEY_MAX bytes; `ttl` seconds, 0: for ever. `*done` (may be NULL) tells whether it was stored. NONE,
 * FULL, or TOO_LARGE: such a key or value fits in no dictionary of these bounds. A value of kind NIL removes. */
enum failure shared_set(struct shared *, const struct shared_bounds *, struct slice key, const struct shared_value *,
                        double ttl, enum shared_when, bool *done);
/* The same, if what is stored is `old` (NIL: nothing). `ttl` below 0: what is left of the former. */
enum failure shared_swap(struct shared *, const struct shared_bounds *, struct slice key,
                         const struct shared_value *old, const struct shared_value *, double ttl, bool *done);
/* Kind SHARED_NIL: absent or expired. Bytes are copied into `room` if they fit, else malloc'd: shared_value_fini frees
 * them (without memory it is NIL). `ttl_left` may be NULL; 0: for ever. */
void shared_get(struct shared *, const struct shared_bounds *, struct slice key, char *room, size_t size,
                struct shared_value *out, double *ttl_left);
/* The kind alone, without a copy. */
enum shared_kind shared_look(struct shared *, struct slice key, double *ttl_left);
bool shared_remove(struct shared *, struct slice key);
/* Lets it live `ttl` seconds from now. False: there is no such key. */
bool shared_touch(struct shared *, const struct shared_bounds *, struct slice key, double ttl);
/* Adds to a number (absent: to `start`, with `ttl`); the kinds stay integer where both are. `*out` is NIL if what is
 * there is no number, or nothing is there and `start` is NULL. */
enum failure shared_incr(struct shared *, const struct shared_bounds *, struct slice key, const struct shared_value *by,
                         const struct shared_value *start, double ttl, struct shared_value *out);
/* Removes all; how many there were. */
size_t shared_clear(struct shared *);

/* A walk over all keys, in steps of one short lock each. Zeroed it stands at the beginning. A key that is there from
 * the beginning to the end is visited once, one that comes or goes meanwhile once or not at all. */
struct shared_cursor {
    unsigned shard;
    uint32_t bucket;
    bool ended;
};
/* Visits some, at least a bucket's, until so many bytes were shown or some hundred buckets seen. `each` is called with
 * the shard locked: it copies, and neither raises nor calls back. The number of buckets seen. */
size_t shared_walk(struct shared *, struct shared_cursor *, size_t bytes,
                   void (*each)(void *with, struct slice key, const struct shared_value *), void *with);

size_t shared_bytes(const struct shared *);
size_t shared_count(const struct shared *);
