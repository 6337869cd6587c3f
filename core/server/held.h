/* The listening sockets, which the supervisor holds for as long as somebody listens: serving processes come and go
 * (a crash, an upgrade), their clients wait in the sockets' queues meanwhile. */
#pragma once

#include "base/list.h"
#include "net/addr.h"

#include <stdio.h>

struct held_listener {
    struct list node;
    char *address; /* as asked for: addr_text's form */
    int *fds;
    unsigned count;
};

struct held {
    struct list listeners;
    unsigned cpus; /* sockets per listener, unless more workers ask for more */
};

/* The CPUs this process may use: so many sockets a listener has and, where nobody says otherwise, so many workers there
 * are. */
unsigned held_cpus(void);

void held_init(struct held *);
/* Closes all, and removes the files of unix sockets. */
void held_fini(struct held *);
/* Finds, or binds max(cpus, wanted) sockets. NULL with errno. */
const struct held_listener *held_get(struct held *, const char *address, unsigned wanted);
void held_release(struct held *, const char *address);

/* For an upgrade: descriptors stay open over exec or not. */
void held_keep_over_exec(const struct held *, bool keep);
/* A line per listener: `listener COUNT FD … ADDRESS`. */
void held_write(const struct held *, FILE *);
/* Reads what stands behind `listener `; false: malformed. */
bool held_read(struct held *, const char *text);
