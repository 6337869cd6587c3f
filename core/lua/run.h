/* Runs: the execution of a script for a subject, which may wait. hook.c makes one per hook call; gate_task.c for
 * spawned and repeated functions; state.c for on_load. Bindings need only the second part: how a C function waits.
 *
 * A run has strands: coroutines from the state's pool that take turns. One is its root, whose results are the run's;
 * gate.all adds others. A strand waits for at most one thing. The script's own coroutines belong to the strand that
 * resumed them: a wait passes outward through them (lib_coroutine.c). */
#pragma once

#include "lua/engine.h"

/* ---- How a C function waits
 *
 *     struct nap { struct wait wait; struct deadline deadline; };
 *
 *     static int sleep_k(lua_State *L, int status, lua_KContext nap) { free it; push results; return their number; }
 *     static void nap_cancel(struct wait *w) { free it; }
 *     static void nap_on_time(struct deadline *d) { wait_done(&container_of(d, struct nap, deadline)->wait); }
 *
 *     static int gate_sleep(lua_State *L) {
 *         double seconds = luaL_checknumber(L, 1);
 *         wait_check(L);                      // before anything is begun: raises if this cannot wait here
 *         struct nap *nap = …; nap->wait.cancel = nap_cancel;
 *         deadline_set(…);
 *         return wait_begin(L, &nap->wait, (lua_KContext)nap, sleep_k);
 *     }
 *
 * Between wait_check and wait_begin nothing may raise. Of `k` and `cancel` exactly one is called, once: `k` in the
 * coroutine that waited, some time after wait_done; `cancel` outside of Lua, when nobody needs the result any more
 * (also between wait_done and `k`). Neither may be called from within wait_begin or wait_done, nor before them. In `k`
 * (as in any C function called by a script) errors may be raised. The Lua stack of the function is as it was left at
 * wait_begin. */

struct wait {
    struct strand *strand; /* run.c's */
    void (*cancel)(struct wait *);
};

/* Raises "cannot wait inside table.sort" (naming the C function, "while the file is loaded", "while it is closed"). */
void wait_check(lua_State *L);
int wait_begin(lua_State *L, struct wait *, lua_KContext, lua_KFunction k);
/* It can go on: from loop callbacks, or before wait_begin has returned to the loop. A second call does nothing. */
void wait_done(struct wait *);

/* ---- Strands and runs: the engine's */

struct strand {
    lua_State *L;
    int ref;  /* keeps L */
    int args; /* on L's stack, for the next resume */
    struct hook_run *run;
    struct wait *wait; /* NULL: it is not waiting */
    struct list node;  /* in run->ready; else alone */
    /* A strand of gate.all: its end is told here, outside of Lua, with its results or the error on its stack. NULL:
     * the run's root. */
    void (*ended)(struct strand *, int status, int results);
    void *with;
    struct strand *next_free;
};

enum run_status { RUN_DONE, RUN_WAITS, RUN_FAILED };

struct policy_chain;

struct hook_run {
    struct strand root;
    struct state *state;
    struct subject *subject;
    struct strand *current; /* the one that executes; NULL: none */
    struct list ready;      /* strands that can go on */
    unsigned barrier;       /* resumes under way that no wait can pass */
    lua_State *blocked;     /* barrier: where the outermost of them stands */
    bool closing;
    bool waiting;      /* now */
    bool waited;       /* ever */
    bool endless;      /* the budget is for each stretch between two waits: nobody's request waits for its end */
    bool ruined;       /* a coroutine of it died within a hook */
    bool overdue;      /* it has lasted longer than state->hook_time */
    uint64_t cpu_used; /* microseconds, as far as the meter saw */
    uint64_t cpu_limit;
    size_t memory_used;  /* bytes its stretches have added, as far as they added any */
    int results;         /* RUN_DONE: how many lie on root.L */
    struct list ties;    /* run_tie */
    struct list spawned; /* begin when this run ends */
    struct list node;    /* in state->runs */
    struct hook_run *next_free;

    /* hook.c's: the call that this run is for */
    enum hook hook;
    const void *detail;
    const struct policy_chain *chain;
    unsigned at;           /* in the chain */
    double began, sampled; /* of the call: loop time; the clock, 0 if this call is not a sample */
    bool delayed;          /* hard build: made to yield once */
};

/* A run for the subject, which becomes subject->run. Push a function and its arguments on run->root.L, then start. */
struct hook_run *run_open(struct state *, struct subject *);
/* RUN_WAITS: subject->task is woken when run_go_on makes sense. RUN_DONE: run->results values are all there is on
 * root.L; another function may be started after lua_settop(root.L, 0). RUN_FAILED: the error lies on top of root.L,
 * whose stack can still be traced; only run_close may follow. */
enum run_status run_start(struct hook_run *, int args);
enum run_status run_go_on(struct hook_run *);
/* Ends it, wherever it stands: cancels what its strands wait for, closes their coroutines, innermost first, lets what
 * it spawned begin. */
void run_close(struct hook_run *);
/* Keeps at most so many pooled; used by state_stop and specs. */
void runs_trim(struct state *, unsigned keep);

/* `tie` ends with the run that executes, after the <close> handlers, if those run. */
void run_tie(lua_State *L, struct tie *);

/* A further strand of the run that executes, for gate.all: push a function on strand->L; it is started after the
 * present wait began. */
struct strand *strand_open(struct hook_run *);
void strand_ready(struct strand *);
/* Cancels and closes what is under way in it, and gives it back. */
void strand_close(struct strand *);

/* A wait passes from coroutine `inner` through `L`, or has passed back (inner NULL). For lib_coroutine.c. */
void run_link(lua_State *L, lua_State *inner);
/* Is this coroutine part of a chain that waits? */
bool run_is_linked(lua_State *co);

/* The coroutine died of an error while the call was late: its <close> handlers must not run. */
void coroutine_ruin(lua_State *co);
/* lua_resetthread, for scripts' coroutines too: runs the <close> handlers of `co`, called from `L`. LUA_OK, or an
 * error that lies on top of `co`. */
int coroutine_reset(lua_State *L, lua_State *co);

/* gate_task.c: what this run spawned begins. */
void spawned_begin(struct hook_run *);

/* For error messages: "table.sort" for a library function at the top of the stack (popped), else NULL. */
const char *function_name(lua_State *L);
