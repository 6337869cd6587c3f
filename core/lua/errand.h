/* An errand: a script function that runs for nobody's request: spawned, repeated, or on_load. It is its own task and
 * has a subject of the keeper kind. It frees itself at its end. */
#pragma once

#include "lua/run.h"

struct errand {
    struct task task;
    struct subject subject;
    struct grave grave;
    struct arena arena;
    struct list node; /* in state->rest->errands; before it begins in the run that spawned it */
    struct state *state;
    const char *what; /* "a task spawned by a hook": for the log */
    bool begun;
    int args; /* on errand_stack, with the function below them */
    /* It is over: `status` is RUN_DONE with its results on the stack, or RUN_FAILED with the error on top. May be
     * NULL: then a failure is logged and counted. Not called when the errand is closed. */
    void (*ended)(struct errand *, enum run_status);
    void *with;
};

/* Makes an errand; then push a function and its arguments on errand_stack. It has not begun. */
struct errand *errand_open(struct state *, const char *what);
static inline lua_State *errand_stack(struct errand *errand) { return errand->subject.run->root.L; }
/* Begins in this turn or the next one. */
void errand_begin(struct errand *, int args);
/* Begins at once; when it does not wait it is over, and gone, on return. */
void errand_run(struct errand *, int args);
/* For `ended`. */
void errand_log_failure(struct errand *);
/* Ends it wherever it stands. */
void errand_close(struct errand *);
