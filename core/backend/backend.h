/* A backend: a named group of servers with its settings, as one generation (or an ad hoc URL) says. Immutable but for
 * the views: each worker has its own view, the list of servers it may choose from, made of numeric addresses at once
 * and of host names by the resolver (kept fresh by TTL; the old answer serves until the new one is in). */
#pragma once

#include "backend/parent.h"
#include "backend/queue.h"
#include "backend/server.h"
#include "net/resolver.h"

enum balance { BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONN };

/* A bit for every status from 0 to 639. */
struct status_set {
    uint64_t bits[10];
};
static inline void status_set_add(struct status_set *s, int status) {
    s->bits[status / 64] |= UINT64_C(1) << (status % 64);
}
static inline bool status_set_has(const struct status_set *s, int status) {
    return s->bits[status / 64] >> (status % 64) & 1;
}

enum { RETRY_ON_5XX = 1u << 8 };

struct server_spec { /* one entry of the config's list */
    char *name;      /* its name for "backend/server", default the address as written */
    char *host;      /* host name to resolve; NULL: `addr` is final */
    struct addr addr;
    uint16_t port;
    unsigned weight; /* 1 to 1000 */
};

/* Times in seconds; 0: unset, the site's counts. */
struct backend_settings {
    enum balance balance;
    unsigned keepalive;               /* idle conns kept per server and worker; default 128, 0: none */
    double keepalive_idle;            /* seconds an idle conn is kept; default 60 */
    unsigned max_connections;         /* requests under way per server, over all workers; 0: no limit */
    unsigned queue;                   /* at most so many wait for a place, over all workers; 0: none */
    double queue_timeout;             /* seconds one may wait; default 5 */
    unsigned tries;                   /* at most so many servers asked for one fetch; default 3 */
    uint32_t retry_on;                /* bits 1 << enum retry_class, and RETRY_ON_5XX; default connect */
    struct status_set retry_statuses; /* named singly: 503 */
    double connect, first_byte, between;
    struct tls_trust *trust; /* a reference: TLS to its servers; NULL: none */
    bool h2;                 /* HTTP/2: by ALPN with TLS, else with prior knowledge */
    unsigned proxy_protocol; /* version of the PROXY header that connections begin with; 0: none */
    struct parent *parent;   /* a reference: the proxy through which its servers are reached; NULL: none */
    char *tls_name;          /* what their certificates bear, and SNI; NULL: each server's own host */
    struct {                 /* active health checks; path NULL: none */
        char *path;
        char *host;
        double interval, timeout;
        unsigned rise, fall;
        int status_low, status_high;
    } health;
};

/* What they own: strings, references. */
void server_specs_free(struct server_spec *, unsigned count); /* malloc'd; NULL is ignored */
void backend_settings_fini(struct backend_settings *);

struct candidate {
    struct server *server; /* a reference */
    const struct server_spec *spec;
    unsigned weight;
    int credit; /* smooth weighted round robin */
};

/* Somebody who waits for the first answer about a backend's names. */
struct backend_waiter {
    struct list node;
    void (*on_resolved)(struct backend_waiter *);
};

struct backend_view {
    struct backend *backend;
    struct loop *loop;
    struct mailbox *mailbox; /* the loop's */
    struct candidate *list;
    unsigned count, room;
    unsigned next;             /* where round robin goes on */
    struct name_answer *names; /* per spec with a host: its question and what it got; internal */
    unsigned unresolved;       /* names without any answer yet */
    struct list waiters;
    enum failure why; /* why the list is empty */
};

struct backend {
    char *name;
    uint32_t index; /* within its site */
    struct server_spec *specs;
    unsigned spec_count;
    struct backend_settings settings;
    struct backend_view *views; /* by worker */
    unsigned workers;
    struct resolver *resolver;
    struct queue *queue; /* NULL: none waits */
    struct queue_user queue_user;
    bool ad_hoc;                        /* made from a URL, by and for one worker */
    unsigned users;                     /* ad hoc: fetches that name it */
    bool orphan;                        /* ad hoc: nothing but these knows it any more */
    struct metric *_Atomic statuses[6]; /* by status / 100; made on first use */
    struct metric *_Atomic latency, *_Atomic waiting, *_Atomic waited;
};

/* Takes over the specs and settings' strings. */
struct backend *backend_create(struct slice name, struct server_spec *specs, unsigned count,
                               const struct backend_settings *, unsigned workers, struct resolver *);
/* A worker takes its view into use (resolves names) and lets go of it; both in the worker's thread. */
void backend_view_open(struct backend *, struct loop *, struct mailbox *);
void backend_view_close(struct backend *, struct loop *);
void backend_destroy(struct backend *); /* all views are closed */

/* Which servers will do: those not in `tried`; only those of that name or address when `only` is given. */
struct choice {
    struct server *const *tried;
    unsigned tried_count;
    struct slice only; /* p NULL: any */
};

/* Chooses a server, preferring well ones, and takes a place at it: the caller ends with server_leave and server_unref.
 * `*spec`: the entry it stands for. NULL with `*why`: NO_SERVER, BUSY (there are some, all with as many requests as they
 * take), NAME_NOT_FOUND, NAME_FAILED; NONE: names are being resolved, wait with backend_await. */
struct server *backend_choose(struct backend *, struct loop *, const struct choice *, const struct server_spec **spec,
                              enum failure *why);
/* After BUSY: waits for a place at one that will do, for `seconds` at most. NULL: there is no queue, or it is full. */
struct queue_wait *backend_queue(struct backend *, struct loop *, const struct choice *, double seconds,
                                 void (*on_news)(void *with), void *with);
/* queue_leave. */
struct server *backend_leave_queue(struct backend *, struct loop *, struct queue_wait *);
/* The entry that a server stands for in this worker's view; NULL: it is not there (any more). */
const struct server_spec *backend_spec(const struct backend *, const struct loop *, const struct server *);
/* What a TLS server's certificate must bear: the backend's `tls_name`, else its host, else its address. `text` (of
 * ADDR_TEXT) may be written to. */
struct slice backend_tls_name(const struct backend *, const struct server_spec *, const struct server *, char *text);
void backend_await(struct backend *, struct loop *, struct backend_waiter *);
void backend_waiter_forget(struct backend_waiter *);
/* Is there a server of that name, or of that address? The loop's view tells what names resolve to now; NULL: only the
 * config is asked. */
bool backend_has_server(const struct backend *, const struct loop *, struct slice name);
/* Counts one finished try in the backend's metrics. status 0: failed. */
void backend_count(struct backend *, int worker, int status, double seconds);
