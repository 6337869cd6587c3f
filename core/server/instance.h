/* The serving process: its main thread, which owns what is there once, and by which everything changes. Workers serve;
 * the main thread takes the supervisor's orders, drives loads (reload.h), keeps account of generations (tenure.h), and
 * waits for everything to end. It never touches what belongs to a worker: it sends rounds (round.h).
 *
 * All fields are the main thread's, but where something else is said. */
#pragma once

#include "base/log.h"
#include "net/helpers.h"
#include "net/listener.h"
#include "net/resolver.h"
#include "proxy/access_log.h"
#include "server/channel.h"
#include "server/round.h"

#include <pthread.h>
#include <stdatomic.h>

struct reload;
struct tenure;
struct trace;
struct profile;
struct worker_thread;
struct admin;

enum instance_state { INSTANCE_STARTS, INSTANCE_SERVES, INSTANCE_DRAINS, INSTANCE_CLOSES };

/* For status and metrics: read by the keeper, under `lock`. */
struct instance_figures {
    pthread_mutex_t lock;
    double began;         /* Unix seconds */
    uint32_t generation;  /* the current one's number; 0: none yet */
    unsigned generations; /* live ones, the current one included */
    unsigned reloads, reloads_failed;
    double loaded; /* Unix seconds of the last swap */
};

/* The commands that wait for a load. */
struct askers {
    uint32_t *ids;
    unsigned count;
};

struct instance {
    struct loop loop;
    struct mailbox mailbox;
    struct setup setup; /* read only */
    enum instance_state state;
    int status; /* the process will end with */
    int orders;
    ev_io orders_io;
    struct helpers *helpers;
    struct resolver *resolver;     /* the keeper's */
    struct worker_thread *threads; /* made by the first load, which says how many */
    unsigned worker_count;

    struct list listeners;       /* struct listener: all that were ever named; clients point at them */
    uint32_t listener_ids;       /* given out */
    struct list tenures;         /* struct tenure, the oldest first */
    struct tenure *current;      /* NULL: none yet, or no more */
    uint32_t generation_numbers; /* given out */
    struct sources *sources;     /* the bytes of the current one; NULL: none yet */

    struct reload *reload;     /* the load under way; NULL: none */
    struct askers next_askers; /* who asked while it runs: another one follows for them */
    bool reload_again;         /* a signal asked */

    struct access_sink *sink; /* NULL: off */
    char *access_path;        /* NULL: off */
    enum access_format access_format;
    char *error_path; /* NULL: stderr */
    enum log_level log_level;
    struct admin *admin; /* the keeper's; NULL: none */
    struct listener *admin_listener;

    struct trace *trace;     /* NULL: nobody traces */
    struct profile *profile; /* likewise */

    struct list visits; /* the keeper's (visit.h) */
    struct list purges; /* the keeper's orders that wait for a disk (cache_orders.h) */

    struct round drain_round, close_round, end_round;
    bool ears_closed;              /* no worker accepts any more */
    unsigned drained;              /* workers that have nothing under way any more */
    bool closed;                   /* close_round is over */
    ev_timer drain_timer;          /* the last call, then the end of the drain time, then of the end */
    _Atomic unsigned clients_left; /* that workers had when they stopped accepting */
    struct instance_figures figures;
};

/* The hidden command `moongate --serve ORDERS ASKS FILE`: the whole life of a serving process; the exit status. */
int instance_main(int orders, int asks);

/* For reload.c: the first load has succeeded, or failed. */
void instance_ready(struct instance *);
void instance_failed(struct instance *, const char *text);
/* For tenure.c: the policy of one has ended, or it is gone for good. */
void instance_tenures_changed(struct instance *);
/* For reload.c: a load has ended, whatever came of it. */
void instance_reload_ended(struct instance *);
/* Stops accepting; what is under way is finished within the drain time. */
void instance_drain(struct instance *);
/* Closes everything now, and ends. */
void instance_close(struct instance *);
