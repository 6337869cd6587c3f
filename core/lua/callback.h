/* A callback: a script function that C calls again and again for as long as something lives, one call at a time: what
 * changes a body piece by piece, what makes one. Each call is a run of its own, with a hook's budget, and may wait. It
 * is asked for in any phase, and made in the advance phase.
 *
 * It is embedded in what it serves, whose memory is freed at the end of the turn in which it was closed. */
#pragma once

#include "lua/run.h"

struct callback;

struct callback_ops {
    const char *what; /* "body:map": for the log */
    /* Pushes the arguments of the next call; their number. Outside of scripts: must not raise. */
    int (*push)(struct callback *, lua_State *L);
    /* The call returned `results` values, all there is on L. NULL: they are taken; else what is wrong with them, for
     * the log ("returned a number; …"). Must not raise, nor call out. */
    const char *(*take)(struct callback *, lua_State *L, int results);
    /* Follows a take that was right. May close the callback. */
    void (*go_on)(struct callback *);
    /* Instead of take and go_on: it raised (which was logged), or its policy ends. No call follows. May close it. */
    void (*fail)(struct callback *, enum failure why);
    void (*free)(struct callback *);
};

struct callback {
    const struct callback_ops *ops;
    struct state *state; /* NULL: closed */
    struct list node;    /* in state->callbacks */
    struct subject subject;
    struct task task;
    struct grave grave;
    struct arena arena;
    struct worker *worker;
    int ref;
    bool failed;
};

/* Takes the function on top of the stack, called for the subject whose script runs now. */
void callback_open(struct callback *, const struct callback_ops *, lua_State *L);
/* A call is wanted; once per call. */
void callback_call(struct callback *);
/* No call follows, and one under way is cancelled. `free` comes at the end of the turn. Idempotent. */
void callback_close(struct callback *);
/* For state_stop: all of them fail with HOOK_DRAINED. */
void callbacks_stop(struct state *);
