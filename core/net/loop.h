/* A worker's event loop and its turn: gather -> advance -> flush -> bury (DESIGN 2).
 *
 * Event callbacks only move bytes, decode and record facts, and wake tasks. Then the tasks that have news are
 * advanced until they wait; then conns whose `out` gained bytes are written, once; then what died is freed. Nothing
 * is freed inside a callback. A turn advances for at most 5 ms: what is left goes first in the next one, which does
 * not block. The turn is ours: libev only gathers. All of it belongs to one thread. */
#pragma once

#include "base/list.h"

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

struct loop;
struct stage;

/* Somebody who is advanced when he has news. Embedded; woken any number of times, advanced once for all of them. A
 * wake that comes after (or during) its advance calls for another one, in the same turn while its 5 ms last. */
struct task {
    struct list node;
    void (*advance)(struct task *);
};

/* Something that dies at the end of the turn. Embedded in what is freed. */
struct grave {
    struct list node;
    void (*bury)(struct grave *);
};

/* A deadline that costs nothing to move: only the earliest is in libev's heap, later ones are found when that one
 * fires. `on_time` runs in the gather phase. Embedded. */
struct deadline {
    ev_timer timer;
    double at;    /* loop time, seconds; 0: none */
    double fires; /* loop time at which the running timer looks again; meaningless while none runs */
    struct loop *loop;
    void (*on_time)(struct deadline *);
};

struct loop {
    struct ev_loop *ev;
    ev_check gathered; /* first callback after each poll: refreshes `now` */
    double now;        /* monotonic seconds, see loop_now */
    int index;         /* the worker's number, 0..; the key of per-worker slots */
    bool stopping;
    bool long_task;      /* set by a task that may have taken long (a script): the turn's time is looked at behind it */
    struct list ready;   /* tasks with news */
    struct list dirty;   /* conns to flush (conn.c) */
    struct list dead;    /* graves */
    struct list after;   /* turn hooks: run at the end of each turn (Lua's collector, log buffers) */
    struct stage *stage; /* in a rehearsal (net/stage.h); NULL where it serves */
    uint64_t turns;
    double turn_began; /* monotonic seconds of the present advance phase */
};

/* Called once at the end of every turn, after bury. */
struct turn_hook {
    struct list node;
    void (*run)(struct turn_hook *);
};

void loop_init(struct loop *, int index);
void loop_fini(struct loop *);
void loop_run(struct loop *);  /* until loop_stop and nothing is left to advance */
void loop_turn(struct loop *); /* one turn; waits for an event when nothing is left over from the last one */
void loop_stop(struct loop *); /* from the loop's own thread */
/* The next turn would not wait. */
bool loop_has_leftovers(const struct loop *);
/* The time of the present phase, monotonic seconds (ev_now is wall clock and may jump): taken after the poll, and again
 * when advancing begins. */
double loop_now(const struct loop *);

void task_init(struct task *, void (*advance)(struct task *));
void task_wake(struct loop *, struct task *);
void task_forget(struct task *); /* takes back a wake; safe always */

void grave_init(struct grave *, void (*bury)(struct grave *));
/* Once per grave: a second call before the burial does nothing. */
void loop_bury(struct loop *, struct grave *);

void turn_hook_add(struct loop *, struct turn_hook *);
void turn_hook_remove(struct turn_hook *);

void deadline_init(struct deadline *, struct loop *, void (*on_time)(struct deadline *));
void deadline_set(struct deadline *, double seconds_from_now); /* <= 0: clears */
void deadline_clear(struct deadline *);
/* Must be called before the memory goes; stops the timer for good. */
void deadline_fini(struct deadline *);
