/* The helper threads (DESIGN 3): what blocks runs here. Two threads, one bounded queue each: `HELP_LOAD` (Lua
 * states, config, PEM) and `HELP_FILES` (log files, disk). A job's `work` runs there; then `done` in the loop that
 * asked, if it gave a mailbox. */
#pragma once

#include "net/mailbox.h"

enum help { HELP_LOAD, HELP_FILES, HELP_COUNT };

struct job {
    struct letter letter;
    struct job *next;                          /* internal */
    struct mailbox *asker;                     /* NULL: nobody is told; `work` frees */
    void (*work)(struct job *);                /* in the helper thread */
    void (*done)(struct job *, struct loop *); /* in the asker's thread; frees */
};

struct helpers;
struct helpers *helpers_create(void);
/* Finishes what is queued, then joins. To be called before the askers close their mailboxes: the result of a job
 * whose asker has closed can be given to nobody, and its memory stays (it is logged). NULL is ignored. */
void helpers_destroy(struct helpers *);
/* False if the queue is full (4096): the job stays the caller's. */
bool helpers_ask(struct helpers *, enum help, struct job *);
