/* Shared dictionaries: `gate.shared(name)`. Named, one per process, seen by all workers and generations. Sharded, one
 * mutex a shard, never held across a wait. Bounded: a full one refuses (FAIL_TOO_LARGE), it never evicts what has not
 * expired. */
#pragma once

#include "base/failure.h"
#include "base/slice.h"

struct shared;

enum shared_kind { SHARED_NIL, SHARED_BOOLEAN, SHARED_INTEGER, SHARED_NUMBER, SHARED_STRING };

struct shared_value {
    enum shared_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct slice string; /* from get: malloc'd copy in string.p, freed by shared_value_fini */
    };
};

/* Finds or makes; `bytes` bounds keys, values and overhead together (the first caller's counts; default 16 MiB for
 * 0). */
struct shared *shared_open(struct slice name, size_t bytes);
void shared_close_all(void); /* at the end of the process */
void shared_value_fini(struct shared_value *);

/* `ttl` seconds, 0: for ever. Keys 1 to 1024 bytes. Return NONE or TOO_LARGE. */
enum failure shared_set(struct shared *, struct slice key, const struct shared_value *, double ttl);
/* Only if absent: `*added` tells. */
enum failure shared_add(struct shared *, struct slice key, const struct shared_value *, double ttl, bool *added);
/* Kind SHARED_NIL: absent or expired. `ttl_left` may be NULL; 0: for ever. */
void shared_get(struct shared *, struct slice key, struct shared_value *out, double *ttl_left);
bool shared_remove(struct shared *, struct slice key);
/* Adds to a number (absent: to `start`, with `ttl`); the kinds stay integer where both are. False if the value is no
 * number or (with *why) the dictionary is full. */
bool shared_incr(struct shared *, struct slice key, const struct shared_value *by, const struct shared_value *start,
                 double ttl, struct shared_value *out, enum failure *why);
/* Visits live keys: calls `each` with copies, shard by shard, until it returns false. */
void shared_keys(struct shared *, bool (*each)(void *with, struct slice key), void *with);
size_t shared_bytes(const struct shared *);
size_t shared_count(const struct shared *);
