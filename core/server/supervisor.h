/* The supervisor: the parent process of `moongate run`. It holds the listening sockets and the control socket, starts
 * the serving process and restarts it when it dies, passes commands on, and grants what takes privilege. It never
 * reads the config. */
#pragma once

#include "server/channel.h"
#include "server/control.h"
#include "server/held.h"
#include "server/watch.h"

#include <ev.h>

struct run_options {
    char *file;       /* the config, absolute */
    char *control;    /* the control socket's path */
    char *pidfile;    /* NULL: none */
    char *user;       /* --user; NULL: not given */
    char *keys;       /* --keys, absolute; NULL: none */
    unsigned workers; /* --workers; 0: not given */
    bool watch, detached;
    int ready_fd;      /* -D: a byte is written and it is closed when ready; -1: none */
    int resume_fd;     /* what an upgrade left for us (upgrade.h); -1: a fresh start */
    char *const *argv; /* for an upgrade's exec */
};

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

/* Runs until stopped; the exit status. */
int supervisor_run(const struct run_options *);

/* For upgrade.c: takes a process on (fds are close-on-exec already), starts a new one. */
struct serving *supervisor_adopt(struct supervisor *, pid_t, int orders, int asks, enum serving_state);
bool supervisor_start_serving(struct supervisor *, struct serving **as);
