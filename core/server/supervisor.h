/* The supervisor: the parent process of `moongate run`. It holds the listening sockets and the control socket, starts
 * the serving process and restarts it when it dies, passes commands on, and grants what takes privilege. It never
 * reads the config. */
#pragma once

#include <stdbool.h>

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

/* Runs until stopped; the exit status. */
int supervisor_run(const struct run_options *);
