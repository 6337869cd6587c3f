/* A fetch: one request to a backend and its response. The story is in fetch.c. It owns the backend side, its retries
 * and its own hook calls; it may feed several readers. Made for an exchange, or for a script (gate.fetch), a health
 * check. */
#pragma once

#include "backend/server_conn.h"
#include "proxy/pipe.h"
#include "proxy/worker.h"

struct fetch;

/* Somebody who waits for the head, or for the failure that comes instead. */
struct fetch_waiter {
    struct list node;
    struct task *task; /* woken when fetch->state has changed */
    /* A 1xx (not 101) came: called at once, may be NULL. */
    void (*on_informational)(struct fetch_waiter *, const struct response *);
};

enum fetch_state {
    FETCH_TRYING, /* no final head yet */
    FETCH_HEAD,   /* `response` is there; the body flows through `body` */
    FETCH_REPLY,  /* pick_backend returned a reply: `reply` */
    FETCH_FAILED  /* `why`; if `response.status` is not 0 a refused response (retry_on status) is kept: deliver it */
};

enum { FETCH_TRIED = 16 };

struct fetch {
    struct task task;
    struct subject subject;  /* for pick_backend; its site NULL: not asked */
    const struct site *site; /* settings; NULL: none */
    struct grave grave;
    struct worker *worker;
    struct generation *generation; /* a reference or NULL (ad hoc) */
    struct arena arena;            /* the response */
    uint8_t step;                  /* of fetch.c */
    enum fetch_state state;
    enum failure why;
    struct list waiters;

    const struct request *request;  /* not owned: lives as long as the fetch */
    struct slice target;            /* as written in the start line */
    struct slice upgrade;           /* Upgrade to pass on; p NULL: none */
    struct pipe *request_body;      /* NULL: none */
    struct pipe_reader body_reader; /* its reader: into the server conn */
    uint64_t body_sent;
    bool request_body_done;

    struct timeouts timeouts;
    struct deadline total;
    unsigned pick_at;     /* index into pick.backends */
    struct server *exact; /* a reference; NULL: any */
    unsigned tried_count, tries;
    struct last_try last;
    struct backend *backend;        /* of the present or last try */
    struct server *server;          /* a reference; NULL: none */
    const struct server_spec *spec; /* of `backend`: what the server stands for; NULL: not known */
    const char *why_more;           /* FETCH_FAILED: what TLS said, for ever; NULL: nothing */
    struct borrower borrower;
    struct backend_waiter resolving;
    struct queue_wait *waits;                   /* for a place at a server; NULL: it does not */
    double waits_until;                         /* what it may wait in all; 0: it never did */
    const struct egress *egress;                /* rules for the addresses it may connect to; NULL: all */
    struct backend *ad_hoc;                     /* it is a user of this one; NULL: of none */
    struct slice forward_target, authorization; /* of the present pick (struct forward_choice); p NULL: none */
    bool forward;       /* of an exchange that names its target, which is what it picks by itself */
    bool picked_target; /* its present pick is that target, or the parent on the way there: no listener of ours */
    bool connect;       /* a CONNECT: nothing is sent and awaited, the connection is the answer */
    bool fixed;         /* the maker chose the backend: policy is not asked */
    bool hook_running;
    bool server_active; /* this try has a place at the server (server_leave) */
    bool pumping, total_over;
    enum { FETCH_NO_NEWS, FETCH_BROKEN } news;
    enum failure news_why;
    bool stale_retried; /* a stale pooled conn was already forgiven */
    bool fresh_only;    /* the next try must not use an idle conn */
    bool continued;     /* the server said 100 Continue */
    unsigned interim;   /* interim responses, of all tries */
    double try_began, first_byte;

    struct response response;
    struct headers trailers;
    struct pipe body;    /* readers: the client, a script, later the cache */
    bool request_broken; /* it failed because its request body did */
    bool tunnel;         /* 101, or a CONNECT that stands: the stream is to be taken with fetch_take_stream */
    bool stopped;
    /* Not zeroed at the start: counts say what is in them. */
    struct server *tried[FETCH_TRIED];
    struct pick pick;
    struct reply reply; /* FETCH_REPLY */
};

struct fetch_options {
    struct worker *worker;
    struct site *site;         /* policy to ask and timeouts; NULL for none */
    struct exchange *exchange; /* for pick_backend; NULL: not asked */
    struct backend *backend;   /* fixed choice; NULL: ask policy */
    struct slice server;       /* fixed server of it; p NULL: any */
    struct server *exact;      /* this very server of the backend; NULL: any */
    const struct request
        *request; /* fields as they are to be sent, target and headers final; hop fields are left out */
    struct slice target;
    struct slice upgrade;        /* protocol asked for; p NULL: none */
    struct pipe *request_body;   /* NULL: none */
    const struct egress *egress; /* rules for the addresses of `backend`; NULL: all are allowed */
    const struct timeouts *timeouts;
    double total; /* seconds for all of it; 0: none */
};

struct fetch *fetch_create(const struct fetch_options *);
void fetch_start(struct fetch *); /* advances in this turn */
void fetch_await(struct fetch *, struct fetch_waiter *);
void fetch_waiter_forget(struct fetch_waiter *); /* safe when not waiting */
/* Nobody wants its answer any more: everything that is under way ends. What it found out (response, server, tries)
 * can be read until fetch_close. Idempotent; NULL is ignored. */
void fetch_stop(struct fetch *);
/* The one who made it does not want it any more: frees what it held (conn closed unless its response was complete).
 * Its memory goes at the end of the turn. NULL is ignored. */
void fetch_close(struct fetch *);
/* After a tunnel answer: the stream to the server, with what has already come, is lent to `b` instead. It still has
 * its place at the server (server_leave), which is `b`'s to give back. */
void fetch_take_stream(struct fetch *, struct borrower *b);
/* Its policy ends now: a waiting pick_backend fails with HOOK_DRAINED. */
void fetch_let_go(struct fetch *);

/* ---- ad hoc backends (proxy/ad_hoc.c): made from a URL, keyed by all of struct ad_hoc_way, per worker, expire after
 * 60 s unused. */
struct ad_hoc_way {
    const struct target *url; /* its scheme "connect": bytes as they are, its port set */
    struct tls_trust *trust;  /* for https; NULL: the system's roots */
    struct slice name;        /* for https; p NULL: the URL's host */
    struct parent *parent;    /* NULL: none */
    const struct addr *at;    /* where it is; NULL: where the URL's host is */
    unsigned proxy_protocol;  /* version of the PROXY header it wants; 0: none */
};
/* NULL: TOO_LARGE (the host), OVERLOADED (too many are in use). */
struct backend *ad_hoc_backend(struct worker *, const struct ad_hoc_way *, enum failure *why);
/* Counts a fetch among its users, and no more; in between it does not expire. */
void ad_hoc_take(struct backend *);
void ad_hoc_give_back(struct backend *);
void ad_hoc_close_all(struct worker *);
