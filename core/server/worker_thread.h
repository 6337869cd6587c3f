/* A worker's thread, and what of a worker the server looks after: its ears, its share of max_connections, its
 * figures. */
#pragma once

#include "lua/state.h"
#include "proxy/worker.h"

#include <pthread.h>
#include <stdatomic.h>

struct instance;
struct start;

struct worker_thread {
    struct worker worker;
    struct instance *instance;
    pthread_t thread;
    struct start *starting; /* reload.c's: an on_load is under way; NULL: none */
    struct turn_hook after_turn;
    unsigned clients_most; /* its share of max_connections; 0: no limit */
    bool full;             /* the ears are paused for it */
    double figures_at;     /* loop time of the last look */
    uint32_t renewing;     /* the generation that was reported to be over its memory */
    struct deadline sweep; /* the keeper's */
    _Atomic size_t lua_bytes, lua_runs,
        lua_waiting; /* of the current state, a second old at most: read by the keeper */
};

/* Makes `count` workers, then starts their threads. */
void worker_threads_start(struct instance *, unsigned count);
/* After every loop was stopped: joins the threads. */
void worker_threads_join(struct instance *);
/* Frees the workers. */
void worker_threads_free(struct instance *);

/* ---- in the worker's thread */

/* From listeners other than these accepts what waits in their queues, then no more. */
void ears_leave_others(struct worker_thread *, struct listener *const *, unsigned count);
/* Accepts from these, too, from now on. */
void ears_add(struct worker_thread *, struct listener *const *, unsigned count);
/* From none, before the end; clients stay. */
void ears_leave(struct worker_thread *);
/* max_connections of all workers together; 0: no limit. */
void clients_limit(struct worker_thread *, unsigned max_connections);
