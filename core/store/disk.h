/* The disk tier of a cache: what is stored in memory is also written to files, from where it is loaded when memory has
 * it no more: evicted, or the process died. It survives restarts and crashes; nothing is served of it that was not
 * checked against a checksum. It is optional and never in the way: a full queue, a full disk or a bad one cost hits,
 * not requests.
 *
 * All file work is done by threads of its own; every function here only takes locks that are held for moments, but
 * those two that say otherwise. All times are Unix ms.
 *
 * One directory belongs to one process at a time: another one (an upgrade: the old drains, the new serves) waits in the
 * background until the first has ended, and serves from memory meanwhile. It must be writable by the user that
 * Moongate serves as. */
#pragma once

#include "store/cache.h"

enum { DISK_LEAST = 16 << 20 }; /* bytes */

struct disk_settings {
    char *path;    /* of the directory, absolute, without "/" at its end; made if its parent exists. NULL: no disk */
    uint64_t size; /* bytes, at least DISK_LEAST */
};

/* From now on the cache has that disk; what it had before is given up, unless it is the same. What is wrong with the
 * path is logged later; the cache goes on without. Waits for the old one's files: not in a loop's thread. */
void disk_open(struct cache *, const struct disk_settings *);
/* At the end of the process, before cache_close_all: what is queued is written. Waits for files. */
void disk_close_all(void);

/* ---- in. `cached` was fetched, and its body is whole: it is written behind, once, if it is stored still, fresh for a
 * while, and there is time for it. */
void disk_offer(struct cached *);

/* ---- out */

/* May the disk have something under that key? */
bool disk_has(struct cache *, const struct cache_key *);
/* Somebody who asked has got `fill` (cache_join) and gives it to the disk, which settles it: with CACHE_LOADED when the
 * response is in memory, its body perhaps still arriving; CACHE_PASSED if it does not fit into it; CACHE_NOT_LOADED
 * when nothing that fits this request was there, or nothing sound, or too much is to be read already. `f` follows it.
 * `request` is copied. */
void disk_load(struct cache *, const struct cache_key *, struct cache_fill *, const struct headers *request,
               struct cache_follower *f);

/* ---- purges. Called by the cache itself, after memory was marked. What was written before, or is about to be, is not
 * loaded any more, after a crash neither: as soon as disk_settled. */
enum disk_purge { DISK_PURGE_KEY = 1, DISK_PURGE_URL, DISK_PURGE_TAG, DISK_PURGE_PREFIX, DISK_PURGE_ALL };
void disk_purge(struct cache *, enum disk_purge, struct slice what, bool soft);
/* May the disk have something under that URL (http://host/path), or be about to? Else a purge of it leaves no trace. */
bool disk_has_url(struct cache *, struct slice url);
/* Something else is stored under that key now: the variants with that `vary`, or `all`, are not loaded any more. */
void disk_supersede(struct cache *, struct slice key, struct slice vary, bool all);

/* Does the cache have a disk, so that purges may have to be waited for? */
bool disk_keeps_purges(struct cache *);
/* Somebody who waits until the purges of before are safe on disk. Embedded. */
struct disk_waiter {
    struct list node;
    struct disk *disk; /* NULL: waits for none */
    uint64_t until;
    void (*tell)(struct disk_waiter *); /* once, in another thread, under a lock: must not call the disk */
};
/* False: they are already; or the cache has no disk, or not one that it reads from while another process has the
 * directory. */
bool disk_await_purges(struct cache *, struct disk_waiter *);
void disk_forget_waiter(struct disk_waiter *); /* afterwards `tell` is not called; safe when told */

/* ---- figures */
enum disk_state {
    DISK_NONE,  /* the cache has no disk */
    DISK_WAITS, /* another process has the directory */
    DISK_SCANS, /* what is found so far is served already; nothing is written yet */
    DISK_SERVES,
    DISK_FAILED /* logged */
};

struct disk_figures {
    enum disk_state state;
    const char *path;              /* as long as the process */
    uint64_t size, objects, bytes; /* bytes: of the objects that can be loaded */
    uint64_t reads, read_bytes;    /* loads that brought something */
    uint64_t missed;               /* loads that did not: another variant, purged, overwritten meanwhile */
    uint64_t writes, written_bytes;
    uint64_t rescued; /* of the writes: again, since it was in use and its place was to be given to others */
    uint64_t skipped; /* not written, or not read: a queue was full; or too large */
    uint64_t corrupt; /* records and journals that failed a check */
    uint64_t errors;  /* of the file system */
    uint64_t purges;  /* that are kept */
};
void disk_figures(struct cache *, struct disk_figures *);
/* "none", "waits", … */
const char *disk_state_word(enum disk_state);
