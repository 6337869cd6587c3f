/* A state's memory: Lua's allocator with a limit that holds only while script code runs, and the collector's pace
 * (memory.c). */
#pragma once

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

enum { MEMORY_CLASSES = 16, MEMORY_CLASS_BYTES = 16 };

struct memory {
    size_t used; /* bytes Lua holds */
    size_t limit;
    size_t ceiling;    /* of `used`, for the stretch that runs: the limit, or less */
    size_t entered;    /* `used` when the stretch began */
    bool over_ceiling; /* it was refused for its own share's sake, not for the limit's */
    bool script;       /* a script runs: refuse */
    size_t refused;    /* how often */
    bool full;         /* a script was refused for the limit's sake, and nobody has looked yet what is left of it */
    size_t asked;      /* hard build: counts towards the next refusal for no reason */
    size_t collected;  /* `used` at the end of the last cycle */
    size_t seen;       /* `used` at the last step */
    bool cycling;      /* a cycle is under way */
    void *free[MEMORY_CLASSES];
    struct memory_block *blocks;
    char *fresh, *fresh_end;
};

void memory_init(struct memory *, size_t limit);
void memory_allow(struct memory *, size_t limit); /* while a file is loaded: this is the limit from now on */
void memory_fini(struct memory *);                /* after lua_close */
void *memory_alloc(void *memory, void *old, size_t old_size, size_t size); /* a lua_Alloc */

/* A stretch of a script begins, which may add so many bytes; and ends: how many it has added, at most `most`. */
void memory_enter(struct memory *, size_t share);
size_t memory_leave(struct memory *, size_t most);

/* Between turns: collects a little, if it is time. True when a cycle has just ended. */
bool memory_step(struct memory *, lua_State *L);
/* Between turns, after a refusal: does the state hold on to nearly all it may have, even after a whole cycle? Then
 * its scripts will go on being refused. */
bool memory_is_exhausted(struct memory *, lua_State *L);
/* A whole cycle at once: while loading, and in specs. */
void memory_collect(struct memory *, lua_State *L);
