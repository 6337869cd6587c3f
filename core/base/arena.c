/* Bump allocation in blocks from slabs. The first is 1 KiB, in which a small request (350 bytes of head, a dozen
 * fields) fits whole, so that ten thousand which wait do not each hold twice of what they use; those after it are
 * 2 KiB.
 *
 * What does not fit and is larger than a quarter of the latter gets a block of its own, linked *behind* the current
 * one, so that the rest of the current block is not lost. Smaller things start a new block.
 *
 * Under AddressSanitizer every allocation is a block of its own, so that a write past the end of a slice is seen. In
 * the hard build blocks are tiny, so that every path crosses a border. */
#include "base/arena.h"

#include "base/must.h"
#include "base/slab.h"

#include <stdio.h>
#include <stdlib.h>

struct arena_block {
    struct arena_block *next;
    size_t size; /* of bytes; only FIRST_ROOM and BLOCK_ROOM ones are the slabs' */
    char bytes[];
};

#ifdef MOONGATE_HARD
enum { FIRST_BYTES = 64, BLOCK_BYTES = 128 };
#else
enum { FIRST_BYTES = 1024, BLOCK_BYTES = 2048 };
#endif
enum {
    FIRST_ROOM = FIRST_BYTES - sizeof(struct arena_block),
    BLOCK_ROOM = BLOCK_BYTES - sizeof(struct arena_block),
    OWN_MIN = BLOCK_ROOM / 4,
    ALIGNMENT = 8
};
_Static_assert(OWN_MIN <= FIRST_ROOM, "what gets no block of its own fits into any");

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_SINGLE true
#endif
#endif
#if !defined(ARENA_SINGLE) && defined(__SANITIZE_ADDRESS__)
#define ARENA_SINGLE true
#endif
#ifndef ARENA_SINGLE
#define ARENA_SINGLE false
#endif

static _Thread_local struct slab firsts = SLAB_BYTES(FIRST_BYTES, 256);
static _Thread_local struct slab blocks = SLAB_BYTES(BLOCK_BYTES, 256);

void arena_thread_fini(void) {
    slab_fini(&firsts);
    slab_fini(&blocks);
}

void arena_init(struct arena *arena) { *arena = (struct arena){ 0 }; }

void arena_fini(struct arena *arena) {
    struct arena_block *block = arena->blocks;
    while (block) {
        struct arena_block *next = block->next;
        if (block->size == FIRST_ROOM) slab_give(&firsts, block);
        else if (block->size == BLOCK_ROOM) slab_give(&blocks, block);
        else free(block);
        block = next;
    }
    arena_init(arena);
}

/* A block for one thing, behind the current block so that bumping goes on in that. */
static char *take_own_block(struct arena *arena, size_t n) {
    must(n < SIZE_MAX - BLOCK_BYTES);
    struct arena_block *block = must_malloc(sizeof *block + n);
    block->size = n == FIRST_ROOM || n == BLOCK_ROOM ? 0 : n;
    if (arena->blocks) {
        block->next = arena->blocks->next;
        arena->blocks->next = block;
    } else {
        block->next = NULL;
        arena->blocks = block;
    }
    return block->bytes;
}

static __attribute__((noinline)) char *take_slowly(struct arena *arena, size_t n) {
    if (ARENA_SINGLE || n > OWN_MIN) return take_own_block(arena, n);
    bool first = !arena->blocks;
    struct arena_block *block = slab_take(first ? &firsts : &blocks);
    block->size = first ? FIRST_ROOM : BLOCK_ROOM;
    block->next = arena->blocks;
    arena->blocks = block;
    arena->at = block->bytes + n;
    arena->end = block->bytes + block->size;
    return block->bytes;
}

char *arena_bytes(struct arena *arena, size_t n) {
    arena->used += n;
    if (n > (size_t)(arena->end - arena->at)) return take_slowly(arena, n);
    if (!arena->at) return take_slowly(arena, n); /* n is 0 and nothing was ever taken */
    char *p = arena->at;
    arena->at += n;
    return p;
}

void *arena_alloc(struct arena *arena, size_t n) {
    size_t gap = -(uintptr_t)arena->at & (ALIGNMENT - 1);
    size_t left = (size_t)(arena->end - arena->at);
    arena->used += n;
    if (gap > left || n > left - gap || !arena->at) return take_slowly(arena, n);
    char *p = arena->at + gap;
    arena->at = p + n;
    return p;
}

void *arena_alloc_zeroed(struct arena *arena, size_t n) { return memset(arena_alloc(arena, n), 0, n); }

void *arena_grow(struct arena *arena, void *old, size_t old_size, size_t new_size) {
    if (new_size <= old_size) return old;
    size_t more = new_size - old_size;
    if (old && (char *)old + old_size == arena->at && more <= (size_t)(arena->end - arena->at)) {
        arena->at += more;
        arena->used += more;
        return old;
    }
    void *grown = arena_alloc(arena, new_size);
    if (old) memcpy(grown, old, old_size);
    return grown;
}

struct slice arena_copy(struct arena *arena, struct slice s) {
    char *p = arena_bytes(arena, s.n);
    if (s.n) memcpy(p, s.p, s.n);
    return slice_make(p, s.n);
}

struct slice arena_copy_lower(struct arena *arena, struct slice s) {
    char *p = arena_bytes(arena, s.n);
    for (size_t i = 0; i < s.n; i++) p[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] | 0x20 : s.p[i]);
    return slice_make(p, s.n);
}

struct slice arena_concat(struct arena *a, const struct slice *parts, size_t count) {
    size_t n = 0;
    for (size_t i = 0; i < count; i++) n += parts[i].n;
    char *start = arena_bytes(a, n), *at = start;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].n) memcpy(at, parts[i].p, parts[i].n);
        at += parts[i].n;
    }
    return slice_make(start, n);
}

struct slice arena_join(struct arena *arena, struct slice a, struct slice b) {
    char *p = arena_bytes(arena, a.n + b.n);
    if (a.n) memcpy(p, a.p, a.n);
    if (b.n) memcpy(p + a.n, b.p, b.n);
    return slice_make(p, a.n + b.n);
}

/* vsnprintf wants room for a NUL that the slice does not count. */
struct slice arena_printf(struct arena *arena, const char *format, ...) {
    char small[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    must(n >= 0);
    if ((size_t)n < sizeof small) return arena_copy(arena, slice_make(small, (size_t)n));

    char *p = arena_bytes(arena, (size_t)n + 1);
    va_start(args, format);
    vsnprintf(p, (size_t)n + 1, format, args);
    va_end(args);
    return slice_make(p, (size_t)n);
}
