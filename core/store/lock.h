/* Locks by name, for all workers and generations of the process. A lock is there as long as somebody holds it; who
 * wants it waits in a line, and whoever gives it back hands it to the first of that line.
 *
 * A claim is one wish for one lock: it waits, then holds, then is left. It is embedded, and may be freed as soon as
 * lock_leave has returned. All functions may be called from any thread, for one claim by one thread at a time. */
#pragma once

#include "base/list.h"
#include "base/slice.h"

struct lock;

struct claim {
    /* The lock is its now. Called in the thread that gave the lock back, with the lines locked: it may send a letter,
     * and nothing else. */
    void (*granted)(struct claim *);
    const void *owner[2]; /* who cannot wait for what it holds itself; never looked into */
    struct lock *lock;    /* the rest is lock.c's */
    struct list node;
};

enum { CLAIMS_MOST = 65536, LOCK_NAME_MOST = 255 };

enum claim_result {
    CLAIM_HOLDS,
    CLAIM_WAITS,  /* `granted` follows, unless it is left before */
    CLAIM_BUSY,   /* somebody else holds it, and it was not to wait */
    CLAIM_IS_OWN, /* its owner holds the lock by another claim */
    CLAIM_FULL    /* there are CLAIMS_MOST */
};

/* The name is copied. `wait`: gets into line. */
enum claim_result lock_claim(struct claim *, struct slice name, bool wait);
/* Gives the lock back or leaves the line; nothing for a claim that is neither. After it `granted` is not called. */
void lock_leave(struct claim *);

/* How many claims hold and wait now. */
struct lock_figures {
    size_t held, waiting;
};
struct lock_figures lock_figures(void);
/* At the end of the process: nobody claims any more. */
void locks_close_all(void);
