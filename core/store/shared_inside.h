/* What the files of the shared dictionaries share; nobody else includes it.
 *
 *   shared_node.c     a key and its value
 *   shared_heap.c     those nodes of a shard that expire
 *   shared_shard.c    one shard: its table, the order of use
 *   shared_change.c   what may need room: set, swap, add
 *   shared_walk.c     a walk over all keys
 *   shared.c          dictionaries by name, and what needs no room
 *
 * The only locks are the shards'. One is held for the length of one operation, never two at once; every function here
 * that takes a shard, but for those that make and free it, wants it locked. */
#pragma once

#include "base/list.h"
#include "store/shared.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SHARDS = 16, FIRST_ROOM = 16 };

/* ---- nodes */

struct node {
    struct node *next;
    struct list use; /* in the shard's list, used last at its end */
    uint64_t hash;
    double expires; /* monotonic seconds; 0: never */
    union {         /* by kind; strings and tables lie behind the key */
        bool boolean;
        int64_t integer;
        double number;
    };
    uint32_t heap_index; /* in the shard's heap, when it expires */
    uint32_t size;
    uint32_t used; /* number of its last use; they go round */
    uint16_t key_size;
    uint8_t kind; /* enum shared_kind */
    char bytes[];
};

/* A node's share of its shard's table and heap, and the allocator's word. */
enum { NODE_EXTRA = 3 * sizeof(void *) };

bool node_key_fits(struct slice key); /* a key has 1 to SHARED_KEY_MAX bytes */
double node_expiry(double ttl);       /* `expires` of what lives so long from now */
/* A copy of key and value; `expires` as in the node. NULL without memory: the size is a stranger's. */
struct node *node_create(struct slice key, uint64_t hash, const struct shared_value *, double expires);
/* A boolean, integer or number in place of another one of these. */
void node_set_scalar(struct node *, const struct shared_value *);
/* As it lies there: not to be kept beyond the lock. */
struct shared_value node_value(const struct node *);
bool node_has_expired(const struct node *);
double node_time_left(const struct node *); /* seconds; 0: for ever */

static inline bool kind_has_bytes(enum shared_kind kind) { return kind == SHARED_STRING || kind == SHARED_TABLE; }

static inline size_t shared_value_size(const struct shared_value *v) {
    return kind_has_bytes(v->kind) ? v->string.n : 0;
}

static inline struct slice node_key(const struct node *n) { return slice_make(n->bytes, n->key_size); }

/* What a key counts for in the sum of bytes. */
static inline size_t node_cost_of(size_t key, size_t value) { return sizeof(struct node) + NODE_EXTRA + key + value; }

static inline size_t node_cost(const struct node *n) { return node_cost_of(n->key_size, n->size); }

/* ---- shards and dictionaries */

struct shard {
    pthread_mutex_t lock;
    struct node **table, **heap;
    size_t room, count, heap_room, heap_count;
    struct list uses;     /* all nodes, used last at its end */
    atomic_ullong oldest; /* a bit above `used` of the first in uses; 0: there is none. Written under the lock */
} __attribute__((aligned(64)));

struct shared {
    struct shard shards[SHARDS];
    atomic_size_t bytes, count;
    atomic_llong evicted, refused;
    atomic_uint uses; /* numbered so far */
    struct slice name;
    bool metered;
    struct shared *next;
};

void shard_init(struct shard *);
void shard_fini(struct shard *); /* with its nodes */
/* The one of a hash, locked. */
struct shard *shard_lock(struct shared *, uint64_t hash);

/* The key's live node, NULL if there is none. */
struct node *shard_find(struct shard *, struct slice key, uint64_t hash);
/* The pointer that points at the key's node, expired or not, or at the end of its chain; NULL when there is no
 * table. */
struct node **shard_find_place(struct shard *, struct slice key, uint64_t hash);
/* Puts a node for the key in, in place of the one it may have. False when the dictionary is full or there is no
 * memory. */
bool shard_put(struct shared *, struct shard *, const struct shared_bounds *, struct slice key, uint64_t hash,
               const struct shared_value *, double expires);
/* Where the order of use counts, it is the node's turn to be the last. */
void shard_note_use(struct shared *, struct shard *, struct node *, const struct shared_bounds *);
/* Takes a node out and frees it: the one at `place`, or one whose place is not known. */
void shard_drop_at(struct shared *, struct shard *, struct node **place);
void shard_drop(struct shared *, struct shard *, const struct node *);
/* Drops as many that have expired, at most. */
void shard_drop_due(struct shared *, struct shard *, size_t most);
/* Drops the node that was used longest ago; false: there is none. */
bool shard_drop_oldest(struct shared *, struct shard *);
/* Takes all nodes out, into a list by `use`. */
void shard_empty(struct shard *, struct list *nodes);
/* Frees the nodes of such a list; how many, and what they cost. */
size_t nodes_free(struct list *nodes, size_t *cost);

/* Room for one more node that expires; false: no memory. */
bool heap_reserve(struct shard *);
void heap_add(struct shard *, struct node *); /* there is room */
void heap_remove(struct shard *, struct node *);
