/* Lua's memory. Three things are decided here.
 *
 * The limit refuses only while script code runs. Lua raises when it is refused, and a raise outside of a protected
 * call aborts the process; so what C pushes between script calls is counted and never refused, and a script that is
 * refused fails like any script. Within the limit each call of a hook has a share, so that one that runs wild does not
 * leave the others without. One block may be half of the limit at most: that bounds every loop over a single
 * string.
 *
 * Small blocks (up to 256 bytes: strings, tables, handles, closures) come from free lists by size, which is three
 * times as fast as malloc and keeps a state's objects together. What they hold stays with the state until it is
 * closed. Under AddressSanitizer and in the hard build everything is malloc's, so that a use after free is seen.
 *
 * The collector is stopped (LUA_GCSTOP) and stepped between turns, since a mark of a big state takes longer than a
 * hook's whole budget. A cycle begins when the state has doubled since the last one (at least PACE_MIN more, so that
 * small states are hardly ever marked) and then each turn does work in proportion to what was allocated meanwhile.
 * The generational mode was tried: its young collections cannot be sliced. One exception remains: a script that runs
 * into the limit makes Lua collect at once; that is charged to its own budget. */
#include "lua/memory.h"

#include "base/must.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_BYTES = 32768,
    SMALL_MAX = MEMORY_CLASSES * MEMORY_CLASS_BYTES,
    PACE_MIN = 2 << 20,
    STEP_BYTES = 16384,
    STEPS_MAX = 32,
    HARD_REFUSE = 1009
};

#if defined(__SANITIZE_ADDRESS__) || defined(MOONGATE_HARD)
enum { SMALL = 0 };
#else
enum { SMALL = SMALL_MAX };
#endif

struct memory_block {
    struct memory_block *next;
    max_align_t bytes[];
};

struct free_piece {
    struct free_piece *next;
};

void memory_init(struct memory *m, size_t limit) {
    memset(m, 0, sizeof *m);
    m->limit = m->ceiling = limit;
}

void memory_allow(struct memory *m, size_t limit) { m->limit = m->ceiling = limit; }

void memory_enter(struct memory *m, size_t share) {
    m->entered = m->used;
    m->over_ceiling = false;
    m->ceiling = m->limit > m->used && m->limit - m->used > share ? m->used + share : m->limit;
}

size_t memory_leave(struct memory *m, size_t most) {
    size_t added = m->used > m->entered ? m->used - m->entered : 0;
    m->ceiling = m->limit;
    return added < most ? added : most;
}

void memory_fini(struct memory *m) {
    while (m->blocks) {
        struct memory_block *block = m->blocks;
        m->blocks = block->next;
        free(block);
    }
}

static size_t class_of(size_t size) { return (size - 1) / MEMORY_CLASS_BYTES; }

static void *cut_fresh(struct memory *m, size_t size) {
    if ((size_t)(m->fresh_end - m->fresh) < size) {
        struct memory_block *block = must_malloc(sizeof *block + BLOCK_BYTES);
        block->next = m->blocks;
        m->blocks = block;
        m->fresh = (char *)block->bytes;
        m->fresh_end = m->fresh + BLOCK_BYTES;
    }
    void *p = m->fresh;
    m->fresh += size;
    return p;
}

static void *take_small(struct memory *m, size_t size) {
    size_t class = class_of(size);
    struct free_piece *piece = m->free[class];
    if (!piece) return cut_fresh(m, (class + 1) * MEMORY_CLASS_BYTES);
    m->free[class] = piece->next;
    return piece;
}

static void give_small(struct memory *m, void *p, size_t size) {
    struct free_piece *piece = p;
    piece->next = m->free[class_of(size)];
    m->free[class_of(size)] = piece;
}

static void *take(struct memory *m, size_t size) { return size <= SMALL ? take_small(m, size) : must_malloc(size); }

static void give(struct memory *m, void *p, size_t size) {
    if (size <= SMALL) give_small(m, p, size);
    else free(p);
}

static void *resize(struct memory *m, void *old, size_t old_size, size_t size) {
    if (old_size > SMALL && size > SMALL) return must_realloc(old, size);
    if (old_size <= SMALL && size <= SMALL && class_of(old_size) == class_of(size)) return old;
    void *p = take(m, size);
    memcpy(p, old, old_size < size ? old_size : size);
    give(m, old, old_size);
    return p;
}

/* In the hard build a script is refused now and then for no reason: Lua collects everything and asks again. */
static bool refused_for_fun(struct memory *m) {
#ifdef MOONGATE_HARD
    return ++m->asked % HARD_REFUSE == 0;
#else
    (void)m;
    return false;
#endif
}

static bool must_refuse(struct memory *m, size_t old_size, size_t size) {
    if (!m->script || size <= old_size) return false;
    return m->used + (size - old_size) > m->ceiling || size > m->limit / 2 || refused_for_fun(m);
}

void *memory_alloc(void *memory, void *old, size_t old_size, size_t size) {
    struct memory *m = memory;
    if (!old) old_size = 0; /* Lua tells the kind of object there */
    if (size == 0) {
        if (old_size) give(m, old, old_size);
        m->used -= old_size;
        return NULL;
    }
    if (must_refuse(m, old_size, size)) {
        m->refused++;
        size_t wanted = m->used + (size - old_size);
        m->full = m->full || wanted > m->limit;
        m->over_ceiling = wanted > m->ceiling && wanted <= m->limit;
        return NULL;
    }
    m->used += size - old_size;
    return old_size ? resize(m, old, old_size, size) : take(m, size);
}

static bool cycle_is_due(const struct memory *m) {
    size_t room = m->collected > PACE_MIN ? m->collected : PACE_MIN;
    size_t left = m->limit > m->collected ? (m->limit - m->collected) / 2 : m->limit / 16;
    return m->used > m->collected + (room < left ? room : left);
}

bool memory_step(struct memory *m, lua_State *L) {
    if (!m->cycling) {
        if (!cycle_is_due(m)) return false;
        m->cycling = true;
        m->seen = m->used;
    }
    size_t grown = m->used > m->seen ? m->used - m->seen : 0;
    size_t steps = 1 + grown / STEP_BYTES;
    if (steps > STEPS_MAX) steps = STEPS_MAX;
    bool ended = false;
    while (steps-- && !ended) ended = lua_gc(L, LUA_GCSTEP, 0) != 0;
    m->seen = m->used;
    if (!ended) return false;
    m->cycling = false;
    m->collected = m->used;
    return true;
}

void memory_collect(struct memory *m, lua_State *L) {
    lua_gc(L, LUA_GCCOLLECT);
    m->cycling = false;
    m->collected = m->seen = m->used;
}

bool memory_is_exhausted(struct memory *m, lua_State *L) {
    if (!m->full) return false;
    m->full = false;
    memory_collect(m, L);
    return m->used > m->limit - m->limit / 8;
}
