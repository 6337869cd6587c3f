/* The cache of one site (RFC 9111): stored responses by key, shared by all workers, outliving generations.
 *
 * A stored response is a head (`struct cached`, immutable once it can be found) and a body, each counted by references;
 * who holds one may read it in any thread, without a lock. A body may still be arriving: its readers follow it, each at
 * its own pace, and are told when there is more. A response that validation freshened is a new head with the old body.
 *
 * All that is stored lies in memory of the cache's own (cache_memory.h), whose size is a hard limit: heads, keys, index
 * and bodies. When it is full something is evicted (S3-FIFO: Yang et al., "FIFO queues are all you need for cache
 * eviction", SOSP 2023). An object that does not fit is not stored; its readers do not notice.
 *
 * Beside its text an object takes 264 bytes of head and 40 for each header field, 128 of body and 16 for each piece of
 * it, and 32 of rounding for each of these runs; the tables take 1.7 % of the memory. (With a key and a URL of 32 bytes
 * and no header fields: 582 bytes, measured.)
 *
 * What many threads do is one look-up under the lock of one shard, and reading. All times are Unix time in ms. */
#pragma once

#include "base/buffer.h"
#include "base/list.h"
#include "http/freshness.h"
#include "http/message.h"
#include "http/vary.h"

#include <stdatomic.h>

struct cache;
struct disk;
struct cache_body;
struct cache_fill;

struct cache_limits {
    uint64_t memory;     /* bytes, all included; at least 1 MiB */
    uint64_t max_object; /* bytes of one body; 0: an eighth of the memory */
};

/* Finds the cache of that site, or makes it; lives as long as the process. Its limits are changed to these: what is too
 * much then is evicted at once. NULL: no memory can be mapped (errno). */
struct cache *cache_open(struct slice site, const struct cache_limits *);
/* NULL: there is none of that name. */
struct cache *cache_named(struct slice site);
/* Every cache there is, in the order of their making; NULL: no more. */
struct cache *cache_next(const struct cache *after);
struct slice cache_site(const struct cache *);
void cache_close_all(void); /* at the end of the process: nobody holds anything of theirs */

/* ---- keys */

/* Bytes that tell requests apart, as the caller encoded them; scheme and host are part of them. */
struct cache_key {
    struct slice bytes;
    uint64_t hash[2]; /* seeded, of `bytes` */
};
struct cache_key cache_key_of(struct slice bytes); /* keeps the slice */

/* ---- stored responses */

struct cached {
    _Atomic unsigned refs;
    atomic_uint hits; /* approximate */
    int status;
    uint8_t version; /* enum http_version of the response it came with */
    bool pass;       /* no response: it says that this key is not worth collapsing for until freshness ends */
    bool partial;
    struct slice key, vary;  /* vary: http/vary.h's stored form; n 0: every request fits */
    struct cache_body *body; /* NULL: pass */
    struct cache *cache;
    struct freshness freshness;
    struct header *headers; /* as the backend sent them, without what is never stored; slices into its own block */
    uint32_t header_count, tag_count;
    struct slice *tags;
    struct slice reason, url; /* url: scheme://host/path?query, what purges and people name it by */
    uint64_t first, total;    /* a part (206): its first byte and the whole's length; else 0, 0 */
    uint64_t stored_at;       /* ms */
    enum cache_rule rule;     /* that let it be stored; pass: why not */
};

struct cached *cached_ref(struct cached *);
void cached_unref(struct cached *); /* in any thread; NULL is ignored */
/* Can it be found, and is it neither purged nor softly so? */
bool cached_is_current(struct cached *);

/* Why nothing was found: RFC 9211's words for it. */
enum cache_miss { CACHE_URI_MISS, CACHE_VARY_MISS, CACHE_PURGED };

/* The stored response for a request with these fields (as they are sent to the backend; Vary is matched on them): of
 * several the one with the latest Date. A reference; NULL: none, and `*miss`. Fresh or not is the caller's to say
 * (freshness.h). One softly purged counts as stale: `*stale` (may not be NULL). Counts as a use. */
struct cached *cache_look_up(struct cache *, const struct cache_key *, const struct headers *request, bool *stale,
                             enum cache_miss *miss);

/* ---- filling: one request to the backend for all who want the same */

enum cache_outcome {
    CACHE_FILLING,
    CACHE_FILLED,    /* look it up */
    CACHE_PASSED,    /* there is a response, and it is not for others: fetch on your own */
    CACHE_FAILED,    /* no response came */
    CACHE_LATE,      /* there is a response, and it may be stored, but not soon: fetch on your own */
    CACHE_LOADED,    /* it came from disk (disk.h): look it up */
    CACHE_NOT_LOADED /* there is no such thing on disk: as if nobody had been followed */
};

/* Somebody who waits for a fill. Embedded; belongs to one thread, told in any. */
struct cache_follower {
    struct list node;
    struct cache_fill *fill;               /* NULL: follows none. A reference */
    _Atomic int outcome;                   /* enum cache_outcome; set before the call */
    void (*tell)(struct cache_follower *); /* once, in the leader's thread, under a lock: must not call the cache */
};

enum cache_turn {
    CACHE_LEAD,   /* nobody fetches it: the caller does, and owns `*fill` until it has settled it */
    CACHE_FOLLOW, /* somebody does: `follower` will be told */
    CACHE_CHANGED /* meanwhile there is something else than `known`: look up again */
};
/* `known`: what a look-up returned, or NULL. Only requests that would be answered by the same variant follow each
 * other, as far as the Vary of what is stored tells. */
enum cache_turn cache_join(struct cache *, const struct cache_key *, const struct headers *request,
                           const struct cached *known, struct cache_follower *, struct cache_fill **fill);
/* The leader's last act, before he gives the fill to somebody else: he is told like everybody. */
void cache_fill_follow(struct cache_fill *, struct cache_follower *);
/* It will take long, for no fault of the backend's: its followers are told (CACHE_LATE), and from now on nobody follows
 * it. Again: nothing. */
void cache_fill_release(struct cache_fill *);
/* A fill nobody follows: for those whose leader could not store, or who may not wait. */
struct cache_fill *cache_fill_alone(struct cache *, const struct cache_key *, const struct headers *request);
/* After it returned `tell` is not called (any more). Safe when it follows none. */
void cache_unfollow(struct cache_follower *);

/* A response about to be stored; all is copied. */
struct cache_draft {
    int status;
    uint8_t version;
    struct slice reason;
    enum cache_rule rule;
    const struct headers *headers; /* those `removed` or `hop` are left out */
    struct freshness freshness;
    struct slice url;
    struct slice vary;
    const struct slice *tags;
    uint32_t tag_count;
    uint64_t length; /* of the body; UINT64_MAX: not known yet */
    bool partial;
    uint64_t first, total;
    bool loaded;       /* it comes from disk: */
    bool softly;       /* softly purged */
    bool replaces_all; /* of all variants of the key; else only of those with the same `vary` */
};

/* The leader's answers; each settles the fill, which then is gone; followers are told at once, in parallel. */
/* Stored: it can be found from now on, its body arriving. A reference; NULL: it does not fit: followers were told
 * PASSED. One of unknown length that turns out too large is no more found, and its body goes on as a window. */
struct cached *cache_fill_store(struct cache_fill *, const struct cache_draft *);
/* Validated: `draft` is the head from now on, with the body of `old`. A reference to it, NULL: no room for the head. */
struct cached *cache_fill_freshen(struct cache_fill *, struct cached *old, const struct cache_draft *);
/* Not for others. Remembered for `seconds` (0: not), so that nobody waits for the next one. */
void cache_fill_pass(struct cache_fill *, enum cache_rule, struct slice url, double seconds);
void cache_fill_fail(struct cache_fill *);
void cache_fill_not_loaded(struct cache_fill *);

/* ---- bodies */

enum cache_body_state { CACHE_BODY_ARRIVING, CACHE_BODY_WHOLE, CACHE_BODY_BROKEN };

struct cache_body *cache_body_ref(struct cache_body *);
void cache_body_unref(struct cache_body *); /* in any thread */
enum cache_body_state cache_body_state(const struct cache_body *);
uint64_t cache_body_serial(const struct cache_body *);   /* no other body of this process has had it */
uint64_t cache_body_length(const struct cache_body *);   /* what has arrived; all of it once WHOLE */
uint64_t cache_body_expected(const struct cache_body *); /* UINT64_MAX: not known yet */

/* -- its one writer, who holds the head or the body */
/* How much it takes now. 0 only when it is no longer stored and its slowest reader has not taken what there is: then
 * `tell_room(data)` follows, in any thread. No reader left and not stored: SIZE_MAX, and everything is dropped. */
size_t cache_body_room(struct cache_body *, void (*tell_room)(void *data), void *data);
/* Copies all of `from` and empties it. n <= room. */
void cache_body_write(struct cache_body *, struct buffer *from);
void cache_body_end(struct cache_body *);
/* What there is can still be read; nobody finds it any more. */
void cache_body_break(struct cache_body *);
/* Nobody wants it any more (not stored, no reader): the writer may stop. */
bool cache_body_abandoned(struct cache_body *);

/* -- its readers. Embedded; each belongs to one thread */
struct cache_reader {
    struct list node;
    struct cache_body *body; /* a reference; NULL: closed */
    void *piece;             /* where it is: the store's own */
    size_t offset;
    _Atomic uint64_t position;
    bool listed, armed;
    void (*tell)(struct cache_reader *); /* in the writer's thread, under a lock: must not call the cache */
};
/* At `position` <= what has arrived. False: what was there is gone (a window went on without this reader, or its writer
 * has given it up), and nobody finds it any more: fetch. The one who stores opens the first reader before it asks for
 * room, or the body is abandoned. */
bool cache_reader_open(struct cache_reader *, struct cache_body *, uint64_t position,
                       void (*tell)(struct cache_reader *));
/* The contiguous bytes at its place; n 0: none now. They stay until it goes on. Who keeps them longer takes a reference
 * with cache_body_ref before it goes on (one of the head does not do); if `*passing` that does not help, either: then
 * they are gone, and must be copied. */
struct slice cache_reader_peek(struct cache_reader *, bool *passing);
void cache_reader_skip(struct cache_reader *, size_t n); /* n <= what peek said */
/* All has been read. (A broken body ends by cache_body_state.) */
bool cache_reader_at_end(const struct cache_reader *);
/* Asks for one `tell` when there is more, or the end. False: there is already. */
bool cache_reader_await(struct cache_reader *);
void cache_reader_close(struct cache_reader *); /* afterwards `tell` is not called; safe when closed */

/* ---- purging: by marks, not by walks; what they hit is dropped when it is looked up, or by the sweep. Soft: stale
 * from now on instead of gone. What is on its way is hit, too: a response counts as old as the moment at which its fill
 * began. Returns how many stored responses are hit, as far as that is known without a walk (else 0). */
uint64_t cache_purge_key(struct cache *, const struct cache_key *, bool soft); /* all its variants */
uint64_t cache_purge_url(struct cache *, struct slice url, bool soft);         /* whatever its key */
uint64_t cache_purge_tag(struct cache *, struct slice text, bool soft);
uint64_t cache_purge_prefix(struct cache *, struct slice text, bool soft); /* of URLs */
uint64_t cache_purge_all(struct cache *, bool soft);

/* A little of the work that purges left: at most `objects` are looked at. Called by the keeper every now and then. */
void cache_sweep(struct cache *, unsigned objects);

/* ---- figures */
struct cache_figures {
    uint64_t memory; /* the limit */
    uint64_t used;   /* bytes taken of it, metadata and what readers still hold included */
    uint64_t mapped; /* bytes of address space that have been touched */
    uint64_t objects, passes;
    uint64_t stored, freshened, evicted, refused, purged, expired; /* since the beginning */
    uint64_t evicted_bytes;
};
void cache_figures(struct cache *, struct cache_figures *);

/* ---- explaining: every variant under a key, each a reference while the call lasts; `purged` ones included */
void cache_each_variant(struct cache *, const struct cache_key *,
                        void (*see)(void *data, const struct cached *, bool purged, bool softly), void *data);
