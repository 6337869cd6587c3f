/* A worker: one thread, one loop, and what its clients, exchanges and fetches share. The thread itself is
 * run by server/worker_thread.c. Found from a loop: worker_of(loop). */
#pragma once

#include "net/helpers.h"
#include "net/mailbox.h"
#include "net/socket.h"
#include "proxy/site.h"

enum { WORKER_SHOWN = 64 };

struct worker {
    struct loop loop;
    struct mailbox mailbox;
    unsigned index, count;         /* this one's number, and how many there are */
    struct generation *generation; /* the current one: a reference */
    struct resolver *resolver;
    struct helpers *helpers;
    struct access_log *access; /* NULL: off */
    struct list clients;       /* all: client->node */
    struct list exchanges;     /* all: exchange->node */
    struct list tunnels;
    struct list admissions;                       /* whom policy is asked about (proxy/admission.c) */
    struct list handshakes;                       /* that policy is asked about (proxy/handshake.c) */
    struct tls_certificates *shown[WORKER_SHOWN]; /* references: what on_certificate returned lately */
    unsigned shown_next;
    struct list ears;
    unsigned client_count;
    bool closing;                        /* worker_close_all was called: nothing is waited for any more */
    bool draining;                       /* answers carry Connection: close; no new clients */
    void (*on_drained)(struct worker *); /* the last client and exchange left while draining */
    struct map ad_hoc;                   /* ad hoc backends by "scheme://host:port" (proxy/ad_hoc.c) */
    struct list ad_hoc_recent;           /* the same, the one used last at the end */
    struct sockets sockets;              /* those that scripts opened */
    uint64_t id_seed, id_next;           /* request ids */
    struct worker_metrics *metrics;
    struct hook_observer *observer; /* NULL: nobody watches (almost always) */
    struct health *health;          /* the keeper's checks of the current generation; NULL: none */
};

static inline struct worker *worker_of(struct loop *loop) { return container_of(loop, struct worker, loop); }

/* Metrics of the instance, found once. */
struct worker_metrics {
    struct metric *clients_open, *clients_total, *tunnels_open, *requests_total, *refused, *bad_requests, *fetches,
        *destinations_refused, *proxy_headers_refused, *turned_away;
    struct metric *misplaced_http, *misplaced_tls;      /* HTTP came where TLS is spoken, and the reverse */
    struct metric *tls_full, *tls_resumed, *tls_failed; /* handshakes of clients */
    struct metric *tls_early_taken, *tls_early_refused, *tls_kernel;
};

/* By client.c: counts, and tells when the last one left a draining worker. */
void worker_client_came(struct worker *);
void worker_client_gone(struct worker *);
/* By exchange.c: one was buried. */
void worker_exchange_gone(struct worker *);
void worker_exchange_rests(struct worker *); /* only its fill goes on */

/* An address was asked for that is not allowed. */
void worker_count_refused(struct worker *);

void worker_init(struct worker *, unsigned index, unsigned count); /* all but loop_run */
void worker_fini(struct worker *);
/* The backends of a generation, as this worker sees them: opened before it is adopted, closed when its last reference
 * is gone. */
void worker_views_open(struct worker *, const struct generation *);
void worker_views_close(struct worker *, const struct generation *);
/* Takes a new current generation (a reference goes over); the old one is let go. In the worker's thread. */
void worker_adopt(struct worker *, struct generation *);
/* Stops accepting and closes idle clients; on_drained follows, at once if there is nobody. */
void worker_drain(struct worker *);
/* Closes everything that is left, at the end of the drain time. */
void worker_close_all(struct worker *);
/* Drops idle connections to servers, ad hoc backends and idle sockets of scripts; once more at the very end, for what
 * scripts have fetched since. */
void worker_close_pools(struct worker *);
/* Policy of that generation ends in this worker now: waiting hooks of its exchanges fail with HOOK_DRAINED; their
 * subjects' site becomes NULL. Bodies flow on; what a hook has yet to decide fails like a hook that fails. */
void worker_let_go(struct worker *, struct generation *);
