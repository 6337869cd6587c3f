/* A server: one address of a backend, and its live state. Found by (backend, address) in one registry of the
 * process, refcounted, shared by workers and generations: a reload loses neither its pools nor what is known of it. */
#pragma once

#include "base/failure.h"
#include "net/addr.h"
#include "net/loop.h"

#include <stdatomic.h>

/* A worker's idle conns to one server, the most recently used first (backend/server_conn.h). Touched by that worker
 * only. */
struct pool {
    struct list idle;
    unsigned count;     /* of idle */
    struct list shared; /* those whose streams others may borrow */
};

struct queue;

struct server {
    _Atomic unsigned refs;
    char *backend;    /* the backend's name */
    char *name;       /* the address as text: "127.0.0.1:9001"; "app:443 through 127.0.0.1:3128" */
    struct addr addr; /* where connections go: its own, or its parent's */
    char *tunnel;     /* "host:port" that the parent is asked for; NULL: there is none */
    unsigned workers;
    struct pool *pools; /* by worker */
    /* Requests under way (each has a place at it) and open connections, over all workers. */
    _Atomic int active, connections;
    struct queue *_Atomic queue; /* a reference, once a backend has had one (backend/queue.h); NULL: none */
    /* Passive health: failures in a row to connect; not chosen before `rest_until` (monotonic microseconds) while
     * others are well. */
    _Atomic unsigned failures;
    _Atomic uint64_t rest_until;
    /* Active health: false while its checks fail. */
    _Atomic int healthy;
    _Atomic bool speaks_h2; /* over TLS, when it was last asked */
    unsigned in_a_row;      /* checks against the present state; the keeper's */
};

/* Finds or makes; the caller owns one reference. `tunnel` may be NULL. `workers` is fixed for the life of the
 * process. */
struct server *server_get(struct slice backend, const struct addr *, const char *tunnel, unsigned workers);
struct server *server_ref(struct server *);
/* The last reference takes it out of the registry; its pools are empty by then or are emptied (each worker drops its
 * own before it lets go). NULL is ignored. */
void server_unref(struct server *);

/* A place at it for one request, of `most` (0: any number); false: all are taken. */
bool server_enter(struct server *, unsigned most);
/* Gives the place back: to the first who waits for one. */
void server_leave(struct server *);
/* Who has to wait for a place waits in this queue; it is its backend's, and stays the same. */
void server_set_queue(struct server *, struct queue *);

bool server_well(const struct server *); /* healthy and not at rest */
void server_failed(struct server *);     /* a connect failed: after 3 in a row it rests 10 s */
void server_succeeded(struct server *);
/* Visits all, for status: `each` runs under the registry's lock. */
void servers_each(void (*each)(void *with, const struct server *), void *with);
