/* The CPU budget of scripts: what stops `while true do end` (budget.c tells how). */
#pragma once

#include <lua.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* Of a state: what its present call has used. All times in microseconds of this thread's CPU. */
struct meter {
    lua_State *volatile L;        /* the coroutine that runs; NULL: no script runs */
    volatile sig_atomic_t late;   /* the call is over its budget */
    volatile sig_atomic_t ticked; /* the timer fired since the meter was entered */
    unsigned steps;               /* of C functions, since the last check */
    bool counting;                /* no timer: the clock is looked at every few thousand instructions */
    bool exact;                   /* `entered` is known */
    bool raised;                  /* late, and an error was raised within a hook: see budget.c */
    char text[112];               /* late: the error, with its place */
    uint64_t limit, entered;
    volatile uint64_t used, last_tick;
};

/* This thread's timer begins with the first call and ends with the last; false if there is none to be had (then
 * states count). */
bool budget_thread_begin(void);
void budget_thread_end(void);

/* For sampler.c, in a handler of a signal to this thread: has the script that runs taken a sample as soon as it can be.
 * False: none runs. */
bool budget_sample(void);

/* The state counts instead, or no more: to be called in its main thread, before coroutines are made. */
void budget_count(lua_State *L);
void budget_count_no_more(lua_State *L);

/* Around all script code. `used` so far of `limit`; leave returns the sum. meter_enter_exact reads the clock at once.
 */
void meter_enter(struct meter *, lua_State *L, uint64_t used, uint64_t limit);
void meter_enter_exact(struct meter *, lua_State *L, uint64_t limit);
uint64_t meter_leave(struct meter *);
/* May the call that was left have taken milliseconds? Costs nothing: the timer fired meanwhile, or there is none. */
static inline bool meter_was_long(const struct meter *m) { return m->ticked || m->counting; }
/* Sets a call aside for another that is made meanwhile, of this state or of another one. */
struct meter_pause {
    struct meter *of_thread;
    struct meter was;
};
void meter_pause(struct meter *, struct meter_pause *);
void meter_go_on(struct meter *, const struct meter_pause *);
/* So much of the call was the core's work, not the script's. Only where the time it began is known: while a file is
 * loaded. */
static inline void meter_forgive(struct meter *m, uint64_t us) {
    if (m->exact) m->entered += us;
}
/* Another coroutine runs from now on. */
static inline void meter_switch(struct meter *m, lua_State *L) { m->L = L; }
/* A coroutine that goes back to the pool and may have been late. */
void budget_disarm(lua_State *L);
/* Does not return if the call is over its budget. For C functions that have done some thousand steps, and after each
 * resume. */
void budget_check(lua_State *L);
