/* The config as read: what the file returned, checked and in C's terms. `struct config` is plain data, made by
 * settings.c out of one value tree and thrown away when a generation has been built of it (generation_build.c); nothing
 * that serves points into it.
 *
 * How a load goes (reload.c and command_check.c drive it):
 *   sources_create -> state_create(-1) -> config_check: config_read, config_hooks, inspect
 *   -> the supervisor binds config->listeners -> generation_build -> states start -> the swap.
 * Every step adds all errors it finds, not the first; a step is not begun when the one before had any. */
#pragma once

#include "base/errors.h"
#include "base/value.h"
#include "lua/state.h"
#include "proxy/access_log.h"
#include "proxy/site.h"
#include "store/disk.h"

#include "base/log.h"

/* An address that sites, or the admin, listen on. One per address: sites that name the same one share it. */
struct config_listener {
    struct addr addr;
    char *name;               /* as written, normalised: "127.0.0.1:8080", "[::]:8080", "unix:/run/m.sock" */
    char *path;               /* where it was named first, for error lines: "sites[1].listen[2]" */
    int line;                 /* of that, 0: not known */
    bool h2c, proxy_protocol; /* options; sites on one address agree in them (config_read checks) */
    struct cidr *proxies;     /* whose PROXY headers are believed; NULL: of who has no public address */
    size_t proxies_count;
    struct tls_service *tls;               /* likewise; a reference; NULL: plain */
    struct tls_certificates *certificates; /* of its own; a reference; NULL: none */
};

struct config_backend {
    char *name;
    char *path;                /* "backends.app" */
    struct server_spec *specs; /* owned; generation_build copies, backend_create takes the copies over */
    unsigned spec_count;
    struct backend_settings settings;
};

struct config_site {
    unsigned index;      /* for state_hooks: 1-based as in `sites`; 0: the file is itself the site */
    int line;            /* where it stands, 0: not known */
    char *path;          /* "sites[2]"; "" for the only site */
    char *name;          /* its first host, else its first listener's name */
    char **hosts;        /* lower case, NULL-terminated; first element NULL: the default site of its listeners */
    unsigned *listeners; /* indices into config->listeners */
    unsigned listener_count;
    struct tls_certificates *certificates; /* for its names; a reference; NULL: none */
    struct config_backend *backends;
    unsigned backend_count;
    struct forward forward;
    struct cidr *trusted;
    size_t trusted_count;
    uint64_t max_body;
    struct h1_limits limits;
    bool buffer_body, raw_target, abort_on_fin;
    struct timeouts timeouts;
    struct compress compress;
    bool fail_open[HOOK_COUNT];
    struct config_cache {
        uint64_t memory;     /* bytes; 0: no cache */
        uint64_t max_object; /* bytes of a body; 0: an eighth of the memory */
        struct disk_settings disk;
        char *name;   /* in Cache-Status; NULL: "moongate" */
        double pass;  /* seconds that an answer which is not for others is remembered */
        double stale; /* seconds in which what is stale is served while it is asked for anew */
        bool has_stale_if_error;
        double stale_if_error; /* seconds in which it is served when the backend fails */
        unsigned negative_count;
        struct cache_negative negative[CACHE_NEGATIVE];
        struct cidr *purgers; /* whose PURGE is obeyed; NULL: the method is none of ours */
        size_t purger_count;
    } cache;
    uint32_t hooks; /* bits 1 << enum hook; filled by config_hooks */
};

struct config_log {
    char *access; /* path, "stderr" or "syslog"; NULL: off */
    enum access_format access_format;
    char *error;          /* path; NULL or "stderr": stderr */
    enum log_level level; /* default LOG_LEVEL_INFO */
};

struct config {
    char *file; /* the config's path, as given */
    struct config_site *sites;
    unsigned site_count;
    struct config_listener
        *listeners; /* of all sites, each address once, in the order of first mention; not the admin's */
    unsigned listener_count;
    struct config_listener admin; /* addr.size 0: none */
    struct config_log log;
    unsigned workers;           /* 0: not set */
    char *user;                 /* NULL: not set */
    unsigned max_connections;   /* clients over all workers; 0: no limit */
    double drain;               /* seconds, default 60 */
    struct egress egress;       /* for scripts */
    bool has_egress;            /* else they may go everywhere */
    struct value unsafe;        /* as written; core/lua reads its own copy from the tree */
    struct state_limits limits; /* of policy states; zeros: defaults */
    struct config_lines *lines; /* of the file, for what is found later; NULL: not known */
};

/* Reads the tree. `config` need not be initialised; afterwards config_fini is due whatever was returned. False:
 * errors were added. `sources` serves to find lines (may be NULL: then there are none). Unknown names, wrong types,
 * wrong ranges, two sites with the same host on one listener, listeners that disagree in options, backends without
 * servers: all are errors with a path. What is allowed but not wise (fail = { … = "continue" }, raw_target) is a
 * warning. No network. Files that it names (certificates, keys) are read through `sources`, relative to
 * the config. */
bool config_read(struct config *config, const struct value *tree, struct sources *sources, struct errors *errors);
/* The same with the file's name (NULL: no lines) and text at hand. */
bool config_read_text(struct config *config, const struct value *tree, const char *file, struct slice text,
                      struct errors *errors);
void config_fini(struct config *);

/* Asks state_hooks for every site and fills site->hooks. False: errors were added. */
bool config_hooks(struct config *, struct state *, struct errors *);
/* Where root starts it, and names no user: can the one whom the config names serve? False: errors were added. */
bool config_check_user(const struct config *, struct errors *);
/* All that can be told of a config without a running instance: config_read, config_hooks, and what its scripts say
 * (lua/inspect.h), as far as each can be done. False: errors were added. config_fini is due whatever was returned. */
bool config_check(struct config *, struct state *, struct sources *, struct errors *);

/* The state of one worker, whose run of the file must come to the same as `config_state`'s: one that reads the clock or
 * rolls dice may say something else each time, and then nobody knows what is served. NULL: errors were added. */
struct state *config_worker_state(const struct config *, struct sources *, unsigned worker,
                                  const struct state *config_state, struct errors *);

/* ---- generation_build.c: on a helper thread */
struct generation_parts {
    unsigned workers;
    struct resolver *resolver;
    struct listener *const *listeners; /* parallel to config->listeners: bound, with their ids */
    struct state **states;             /* by worker, malloc'd; goes over to generation->states on success */
    void (*release)(struct generation *);
};
/* One reference, the caller's. Backends are created, their views not opened (the workers do that when they adopt it).
 * NULL: errors. */
struct generation *generation_build(const struct config *, const struct generation_parts *, uint32_t number,
                                    struct errors *);
/* Frees sites, backends, host tables and the array `states` (the states themselves are gone by then). All views are
 * closed; refs is not looked at. Accepts NULL. */
void generation_destroy(struct generation *);

/* ---- admin.c: /metrics (Prometheus text) and /status (JSON of status.h), GET and HEAD, on the keeper's loop. */
struct instance;
struct admin;
/* In the keeper's thread, as all of these. Accepts on all sockets of the listener (ear_open with workers = 1). */
struct admin *admin_start(struct instance *, struct worker *keeper, struct listener *);
/* Stops accepting, closes its connections; the memory goes at the end of the turn. NULL is ignored. */
void admin_stop(struct admin *);

/* settings_compress.c: what a site's `compress` holds. */
struct compress compress_copy(const struct compress *);
void compress_fini(struct compress *);
