/* A stage: what a loop has in place of the network and of passing time while it rehearses (server/rehearsal.h). A loop
 * that serves has none: `loop->stage` is NULL, and is looked at once a turn, at a connect, at a question about a name
 * and where a deadline enters libev's heap.
 *
 * On a stage no turn blocks. Time is the thread's pretence (base/clock.h) and moves only when its owner moves it;
 * deadlines are kept here and not by libev. Streams are opened by the owner, who has the other end and speaks no TLS
 * there, nor HTTP/2: who connects pretends (conn_tls_pretend). All in the loop's thread. */
#pragma once

#include "net/addr.h"
#include "net/loop.h"
#include "net/resolver.h"

struct stage {
    /* A connected stream socket, non-blocking and close-on-exec, which becomes the conn's; or minus an errno
     * (-ECONNREFUSED). One that never becomes writable is a connect that hangs. `called` is stage->called. */
    int (*connect)(struct stage *, const struct addr *, const char *called);
    /* Fills in the answer: why, count, addrs, ttl. */
    void (*resolve)(struct stage *, struct question *);
    struct pretence *pretence;
    const char *called;          /* during a connect: the backend it is for; NULL: for none */
    struct deadline **deadlines; /* that are armed, in no order */
    unsigned count, room;
    bool busy;     /* the last turn had an event, or a deadline was due */
    bool restless; /* it never comes to rest */
};

/* Before anything is in the loop. */
void stage_open(struct stage *, struct loop *, struct pretence *);
/* After loop_fini. */
void stage_close(struct stage *);
/* Turns until nothing happens any more at this moment. False: it never comes to rest; after five seconds of CPU there
 * was still something to do, and from then on each call is a single turn. */
bool stage_settle(struct stage *, struct loop *);
/* Loop time of the earliest deadline; 0: there is none. */
double stage_next(const struct stage *);
/* Moves time on, never back. What is due then happens in the next turn. */
void stage_move(struct stage *, double to);

/* ---- for the files of net/ */
void stage_arm(struct stage *, struct deadline *);
void stage_disarm(struct stage *, struct deadline *);
void stage_fire_due(struct stage *, struct loop *);
