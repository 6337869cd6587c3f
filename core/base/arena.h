/* An arena: memory that dies at once. One per request (heads, strings, small tables). Blocks of 1 and 2 KiB
 * come from slabs; what is larger has a block of its own. Nothing is freed singly. Not shared between threads. */
#pragma once

#include "base/slice.h"

#include <stdarg.h>

struct arena_block;

struct arena {
    struct arena_block *blocks;
    char *at, *end;
    size_t used; /* bytes handed out, for limits and figures */
};

void arena_init(struct arena *); /* allocates nothing */
void arena_fini(struct arena *); /* frees all; the arena may be used again afterwards */

void *arena_alloc(struct arena *, size_t n); /* 8-byte aligned, uninitialised, never NULL */
void *arena_alloc_zeroed(struct arena *, size_t n);
char *arena_bytes(struct arena *, size_t n); /* unaligned */
struct slice arena_copy(struct arena *, struct slice);
/* Lower-case ASCII copy. */
struct slice arena_copy_lower(struct arena *, struct slice);
struct slice arena_printf(struct arena *, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct slice arena_join(struct arena *, struct slice a, struct slice b);
/* All the parts, one behind the other. */
struct slice arena_concat(struct arena *, const struct slice *parts, size_t count);
/* Grows an array that may stand at the arena's end in place; otherwise copies. */
void *arena_grow(struct arena *, void *old, size_t old_size, size_t new_size);
/* Frees the blocks this thread keeps for reuse: at the end of a thread. */
void arena_thread_fini(void);
