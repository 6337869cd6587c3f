/* Frozen maps: `gate.map(source)`. Made once, while a config is loaded, then only read, by all workers and generations
 * without a lock. Keys are byte strings, values plain data (store/packed.h). A map is known by the digest of what it
 * was made of: who makes the same again gets the one there is. */
#pragma once

#include "base/map.h"
#include "store/packed.h"

struct frozen;
struct frozen_maker;

enum { FROZEN_KEY_MAX = 1024 };

/* ---- making one */

struct frozen_maker *frozen_begin(void);
/* Begins an entry; NULL: the key has not 1 to FROZEN_KEY_MAX bytes. Its value is then packed into what is returned,
 * which stays the maker's. `place` (a line, or any number) tells entries apart in frozen_end. */
struct packing *frozen_add(struct frozen_maker *, struct slice key, uint32_t place);
void frozen_abandon(struct frozen_maker *); /* NULL is ignored */

enum frozen_fault {
    FROZEN_FINE,
    FROZEN_CLASH, /* a key comes again with another value; `*place` of the second */
    FROZEN_LARGE  /* more than 4 GiB, or than there is memory for */
};
/* Of all that was added, for who knows no other. */
struct digest frozen_digest(const struct frozen_maker *);
/* Takes the maker over. A key that comes again with the same value is one. NULL and why, or a reference. */
struct frozen *frozen_end(struct frozen_maker *, struct digest source, enum frozen_fault *why, uint32_t *place);

/* ---- having one */

struct frozen *frozen_find(struct digest source); /* a reference; NULL: there is none (any more) */
struct frozen *frozen_ref(struct frozen *);
void frozen_unref(struct frozen *); /* any thread; NULL is ignored */

/* ---- reading: values are packed, and live as long as the map */

bool frozen_get(const struct frozen *, struct slice key, struct slice *value);
/* The longest key that `text` begins with; how many it looked for goes into `*steps`. */
bool frozen_prefix(const struct frozen *, struct slice text, struct slice *key, struct slice *value, size_t *steps);
/* The entry at `*at`, 0 at first, in the order in which they were added; false after the last. */
bool frozen_next(const struct frozen *, size_t *at, struct slice *key, struct slice *value);
size_t frozen_count(const struct frozen *);
size_t frozen_bytes(const struct frozen *);
