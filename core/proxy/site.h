/* What one load of the config made, as C reads it: generations, sites, host tables. Immutable while they serve. */
#pragma once

#include "backend/backend.h"
#include "base/map.h"
#include "http/cache_status.h"
#include "http/h1.h"
#include "net/egress.h"
#include "net/listener.h"
#include "proxy/hook.h"
#include "store/cache.h"
#include "store/metrics.h"

/* Seconds; 0: no limit. */
struct timeouts {
    double head;       /* 10: whole request head, from its first byte */
    double body;       /* 30: between two pieces of a request body */
    double idle;       /* 75: keep-alive connection between requests */
    double connect;    /* 5 */
    double first_byte; /* 60: request sent until response head */
    double between; /* 60: between two pieces of a response body; a client that takes nothing for so long is dropped */
    double tunnel;  /* 3600: neither way of a tunnel moved a byte */
    double total;   /* 0: whole exchange */
};

enum { SITE_STATUSES = 600 };

/* Of a site's cache; all NULL where it has none. Its size is asked for when it is wanted (cache_figures). */
struct cache_metrics {
    struct metric *requests[CACHE_RESULT_COUNT], *bytes, *age;
};

/* One set per site name, process-wide: outlives generations. */
struct site_metrics {
    char *name;
    struct metric *_Atomic requests[SITE_STATUSES]; /* by status; made on first use */
    struct metric *latency, *hook_errors[HOOK_COUNT], *hook_seconds[HOOK_COUNT];
    struct metric *bytes_in, *bytes_out;
    struct cache_metrics cache;
};
struct site_metrics *site_metrics_get(struct slice name); /* finds or makes; lives as long as the process */
/* Of its cache; before any generation that serves with it is published. */
void site_metrics_open_cache(struct site_metrics *, const struct cache *);
/* Makes the counter of one status at its first use, and keeps it in `requests`. */
struct metric *site_metrics_requests(struct site_metrics *, int status);

struct port_range {
    uint16_t low, high;
};

/* What a site that is a forward proxy lets its clients reach (proxy/forward.h). */
struct forward {
    bool on;
    struct port_range *ports; /* NULL: 80 and 443; 443 by CONNECT */
    size_t port_count;
    struct egress egress;
    struct parent *parent; /* a reference: the proxy that is asked in turn; NULL: targets themselves */
};
struct forward forward_copy(const struct forward *);
void forward_fini(struct forward *);

enum { CACHE_NEGATIVE = 16 };

/* For how long answers without freshness of their own are fresh. */
struct cache_negative {
    int status; /* 0: every status from 400 */
    double seconds;
};

/* What a site wants of its cache (proxy/caching.h). */
struct cache_policy {
    struct cache *cache; /* NULL: none */
    char *name;          /* in Cache-Status; malloc'd */
    double pass;         /* seconds that an answer which is not for others is remembered */
    double stale;        /* seconds: what answers have as stale-while-revalidate that do not tell one */
    bool has_stale_if_error;
    double stale_if_error; /* seconds: likewise; it also bounds how long what is stale serves when no server can be
                              reached. Without it that is an hour, and only answers that tell one bridge errors */
    unsigned negative_count;
    struct cache_negative negative[CACHE_NEGATIVE];
    struct cidr *purgers; /* whose PURGE is obeyed; NULL: the method is none of ours */
    size_t purger_count;
};

struct site {
    struct generation *generation;
    uint32_t index;
    char *name;   /* its first host, else its first listener */
    char **hosts; /* as configured, lower case; NULL-terminated */
    struct backend **backends;
    unsigned backend_count;
    struct map backends_by_name;
    struct backend *default_backend;       /* the only one, or the one named "default"; NULL: none */
    struct tls_certificates *certificates; /* for its names; a reference; NULL: none */
    struct forward forward;
    struct cidr *trusted; /* trusted_proxies */
    size_t trusted_count;
    uint64_t max_body; /* bytes; UINT64_MAX: no limit; default 64 MiB … see config */
    struct h1_limits limits;
    bool buffer_body, raw_target, abort_on_fin;
    struct cache_policy cache;
    struct timeouts timeouts;
    struct compress compress;
    uint32_t hooks;             /* bits 1 << enum hook: present in the site or a policy it uses, constants included */
    bool fail_open[HOOK_COUNT]; /* fail = { on_request = "continue" } */
    struct site_policy **policies; /* by worker; the implementer of hook.h owns them */
    struct site_metrics *metrics;
};

/* What a generation says of one listener: its options, and which site a Host leads to. */
struct host_table {
    bool h2c;             /* HTTP/2 with prior knowledge, beside HTTP/1 */
    bool proxy_protocol;  /* clients begin with a PROXY header */
    struct cidr *proxies; /* who may send one; NULL: who has no public address */
    size_t proxies_count;
    struct tls_service *tls;               /* a reference; NULL: plain */
    struct tls_certificates *certificates; /* where no site has one for a name; a reference; NULL: none */
    struct map exact;                      /* "example.com" -> site */
    struct map wildcard;                   /* "*.example.com" under ".example.com" -> site; the longest suffix counts */
    struct site *fallback;                 /* the site without hosts; NULL: 421 */
    struct site *forward;                  /* where requests go that name their own target; NULL: none does */
    struct site **guards;                  /* those with on_connect, in the config's order */
    unsigned guard_count;
    struct site
        *first; /* the fallback, else the first of them all: its limits and timeouts hold before a host is known */
};
struct site *host_table_find(const struct host_table *, struct slice host);

struct generation {
    _Atomic unsigned refs;
    uint32_t number; /* 1, 2, … */
    struct site **sites;
    unsigned site_count;
    struct host_table **tables; /* by listener id; NULL entries: not in this generation */
    unsigned table_count;
    struct addr *listened; /* all that it listens on, the admin included */
    size_t listened_count;
    struct egress egress;                 /* where scripts may connect to */
    bool has_egress;                      /* else everywhere */
    unsigned max_connections;             /* clients over all workers; 0: no limit */
    double drain;                         /* seconds */
    struct state **states;                /* by worker (lua/state.h) */
    void (*release)(struct generation *); /* set by server/: called with the last reference, in any thread */
};
/* Where a script of it may connect to: for egress_allows. */
static inline const struct egress *generation_egress(const struct generation *g) {
    return g && g->has_egress ? &g->egress : NULL;
}
struct generation *generation_ref(struct generation *);
void generation_unref(struct generation *); /* NULL is ignored */
struct listener;
/* What it says of the listener; NULL: nothing. `g` may be NULL. */
const struct host_table *generation_table(const struct generation *g, const struct listener *);
