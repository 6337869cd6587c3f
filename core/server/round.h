/* A round: something that every worker does once, in its own thread, after which the main thread is told. All changes
 * of generation are rounds. Letters carry it, so it waits for nobody. */
#pragma once

#include "net/mailbox.h"

struct instance;
struct round;
struct worker_thread;

struct round_letter {
    struct letter letter;
    struct round *round;
    struct worker_thread *thread;
};

/* Embedded, or first in what is allocated; alive until `done` has begun. Zeroed but for the two functions. */
struct round {
    /* In each worker's thread. Calls round_report(round, thread) exactly once, now or later. */
    void (*visit)(struct round *, struct worker_thread *);
    /* In the main thread, when all have reported; may free the round or begin it anew. */
    void (*done)(struct round *);
    struct instance *instance;
    struct round_letter *letters; /* one for each worker */
    unsigned left;
};

void round_begin(struct round *, struct instance *);
void round_report(struct round *, struct worker_thread *);
