/* What the files of the supervisor share; nobody else includes it.
 *
 *   supervisor.c       the whole: its loop, stopping
 *   serving.c          a serving process, from fork to wait, and what it says
 *   serving_grant.c    what it asks for
 *   serving_death.c    what follows its death
 *   supervisor_order.c commands and signals
 *   upgrade.c          another binary takes over */
#pragma once

#include "server/supervisor.h"

#include "server/channel.h"
#include "server/control.h"
#include "server/held.h"
#include "server/watch.h"

#include <ev.h>

enum serving_state { SERVING_STARTING, SERVING_READY, SERVING_LEAVING };

/* A serving process, from fork to wait. */
struct serving {
    struct list node;
    struct supervisor *supervisor;
    pid_t pid;
    enum serving_state state;
    double began; /* monotonic seconds */
    int orders, asks;
    ev_io orders_io, asks_io;
    ev_child child;
    ev_timer overdue;  /* it was told to end: then it is killed */
    bool failed;       /* it said why it could not start */
    bool changes_user; /* it ends to be started as another user */
    bool killed;       /* by us */
};

struct supervisor {
    struct ev_loop *ev;
    const struct run_options *options;
    struct held held;
    struct control control;
    struct watch watch;
    struct list processes;   /* of struct serving */
    struct serving *current; /* who serves, or starts to; NULL: between a death and a restart */
    struct serving *next;    /* an upgrade's, until it is ready; NULL: none */
    char *user;              /* whom a serving process becomes; NULL: nothing to give up */
    char *exe;               /* the binary's path, for an upgrade */
    bool was_ready;          /* once: from then on deaths are followed by restarts */
    double drain;            /* seconds a serving process takes to drain at most */
    unsigned restarts, deaths_in_a_row;
    ev_timer restart;
    ev_signal signals[5];
    ev_child checker; /* an upgrade's `check`, while it runs */
    enum { SUPERVISOR_RUNS, SUPERVISOR_DRAINS, SUPERVISOR_STOPS } state;
    int status; /* what the process will end with */
};

/* Takes a process on; the descriptors are close-on-exec already. */
struct serving *serving_adopt(struct supervisor *, pid_t, int orders, int asks, enum serving_state);
/* Starts a new one; false: it cannot, with errno. */
bool serving_start(struct supervisor *, struct serving **as);
/* It is to end, at once or when it has drained; one that does not is killed. */
void serving_dismiss(struct serving *, bool now);
void serving_on_asks(struct ev_loop *, ev_io *, int events);

/* A process has ended, and is in no list any more. */
void supervisor_mourn(struct supervisor *, const struct serving *, int status);
void supervisor_on_restart(struct ev_loop *, ev_timer *, int events);

void supervisor_on_command(struct control *, uint32_t id, const char *command);
void supervisor_on_change(struct watch *);
void supervisor_watch_signals(struct supervisor *);

void supervisor_stop(struct supervisor *, bool now);
/* The end, if all processes have ended. */
void supervisor_end_if_alone(struct supervisor *);
