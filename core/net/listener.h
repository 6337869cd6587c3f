/* Listening sockets of one address. The supervisor binds (DESIGN 3); a worker accepts from its share of the
 * sockets. The descriptors outlive generations and serving processes. */
#pragma once

#include "net/addr.h"
#include "net/loop.h"

struct listener;

/* A listener as all of a process knows it: one per address, shared by workers, never freed while it serves. */
struct listener {
    struct list node; /* in the instance's list */
    uint32_t id;      /* small, dense: index of per-generation tables */
    struct addr addr;
    char *name; /* as written in the config, for logs: "127.0.0.1:8080" */
    int *fds;   /* all sockets, as from the supervisor */
    unsigned fd_count;
    bool leaving; /* no generation names it any more: accepted from until empty */
};

/* A worker's ear on one listener: the sockets j with j mod workers == index. */
struct ear {
    struct list node;
    struct listener *listener;
    struct loop *loop;
    ev_io *ios;
    unsigned io_count;
    unsigned burst; /* connections the next event may bring, 1 to 16 */
    bool paused;
    ev_timer retry; /* after EMFILE and the like */
    /* A new socket, non-blocking, close-on-exec, tuned. The handler owns it. */
    void (*on_accept)(struct ear *, int fd, const struct addr *peer);
};

void ear_open(struct ear *, struct loop *, struct listener *, unsigned workers,
              void (*on_accept)(struct ear *, int fd, const struct addr *peer));
void ear_pause(struct ear *, bool paused); /* max_connections: accept later */
void ear_close(struct ear *);              /* allowed in on_accept; idempotent; the descriptors stay */

/* Binds `count` SO_REUSEPORT sockets (unix: one, dup'ed), non-blocking and close-on-exec, and listens. EADDRINUSE
 * also when another process holds the address with SO_REUSEPORT. With port 0 all get the same one (getsockname
 * tells). [::] serves both families, and stands for 0.0.0.0 where there is no IPv6. On failure closes all and
 * returns errno; fds[] is filled on 0. A stale unix socket file is replaced only if nobody answers on it. */
int listener_bind(const struct addr *, int *fds, unsigned count);
