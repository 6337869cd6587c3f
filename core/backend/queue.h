/* A queue: who wants a server of a backend while each of them has as many requests as it takes (`max_connections`)
 * waits in it, in the order of coming, over all workers. A place that is given back goes straight to the first who can
 * use it and is never free in between, so nobody who comes later is faster.
 *
 * There is one for each backend's name in the process, as there are its servers: a reload loses nobody's turn. Its lock
 * is taken only while somebody waits. */
#pragma once

#include "base/slice.h"
#include "net/mailbox.h"

#include <stdbool.h>

struct server;
struct queue;

/* A backend of that name, of one generation: how many requests its servers take at once. While there are several, the
 * largest number counts, so that after a reload those who wait since before have a turn like others. */
struct queue_user {
    struct list node;
    unsigned most;
};

/* Finds or makes; queue_close ends it. */
struct queue *queue_open(struct slice backend, struct queue_user *);
void queue_close(struct queue *, struct queue_user *); /* NULL is ignored */
struct queue *queue_ref(struct queue *);
void queue_unref(struct queue *); /* NULL is ignored */
unsigned queue_length(const struct queue *);

/* One who waits. It belongs to its worker, and ends with queue_leave. */
struct queue_wait;

struct queue_wish {
    struct loop *loop;
    struct mailbox *mailbox; /* the loop's */
    unsigned longest;        /* no more than so many wait at once */
    double timeout;          /* seconds */
    struct server **servers; /* those that will do; any number, not kept */
    unsigned count;
    void (*on_news)(void *with); /* there is a place, or time is up */
    void *with;
};

/* NULL: the queue is full. A place that is free by now is taken at once (queue_place), without on_news. */
struct queue_wait *queue_join(struct queue *, const struct queue_wish *);
/* The server at which a place was got; NULL: none yet. */
const struct server *queue_place(const struct queue_wait *);
bool queue_is_over(const struct queue_wait *); /* its time has passed without one */
double queue_since(const struct queue_wait *); /* when it began, by the loop's time */
/* Ends the wait: returns the server with its place and a reference, which are the caller's, or NULL. */
struct server *queue_leave(struct queue_wait *);

/* By server_leave: gives back one's place at the server. */
void queue_give_back(struct queue *, struct server *);
