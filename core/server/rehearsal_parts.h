/* What the files of the rehearsal share (rehearsal*.c); nobody else includes it. */
#pragma once

#include "base/clock.h"
#include "net/stage.h"
#include "server/config.h"
#include "server/rehearsal.h"

struct rehearsal {
    struct worker worker;
    struct stage stage;
    struct pretence pretence;
    const struct rehearsal_stubs *stubs;
    void *with;
    struct coverage *coverage;

    struct sources *sources; /* of the current generation */
    struct list listeners;   /* struct listener: every address that was ever named */
    unsigned listener_count; /* given out */
    struct list plays;       /* connections to stubs: play->node */
    struct generation *gone; /* the one whose last reference went */
    bool busy;               /* a call turns the loop */

    struct tls_trust *trust; /* the client's; NULL: it was not needed yet */

    /* rehearsal_notes.c */
    struct hook_observer observer;
    struct arena arena; /* of the notes and the last answer */
    struct rehearsal_notes notes;
    struct hook_note **next_hook;
    struct rehearsal_line **next_line;
    struct exchange_note **next_exchange;
};

static inline struct rehearsal *rehearsal_of_loop(struct loop *l) {
    return container_of(worker_of(l), struct rehearsal, worker);
}

/* Around all that turns the loop: the thread's clock, randomness and log become the rehearsal's. */
void rehearsal_enter(struct rehearsal *);
void rehearsal_leave(struct rehearsal *);
/* Moves time to the next deadline, not past `limit`. False: there is none before it. */
bool rehearsal_wait(struct rehearsal *, double limit);

/* rehearsal_stub.c */
void stubs_open(struct rehearsal *);
void stubs_close(struct rehearsal *); /* breaks all connections */

/* rehearsal_notes.c */
void notes_open(struct rehearsal *);
void notes_close(struct rehearsal *);
void notes_on_line(void *with, enum log_level, const char *text);
