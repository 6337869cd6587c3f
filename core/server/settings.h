/* The settings of a config file: one literal table of all of them (settings_table.c) and the reader it drives. Only
 * config.c and the settings_*.c files include this; everybody else sees struct config. */
#pragma once

#include "server/config.h"
#include "server/config_lines.h"

/* The tables of a config in which settings have names. Each is read into one C struct, its base. */
enum place {
    PLACE_TOP,              /* struct config */
    PLACE_LOG,              /* struct config_log */
    PLACE_LUA,              /* struct state_limits */
    PLACE_SITE,             /* struct config_site */
    PLACE_LISTENER,         /* struct config_listener */
    PLACE_TIMEOUTS,         /* struct timeouts */
    PLACE_CACHE,            /* struct config_cache */
    PLACE_DISK,             /* struct disk_settings */
    PLACE_COMPRESS,         /* struct compress */
    PLACE_FAIL,             /* struct config_site; its names are those of the hooks */
    PLACE_BACKEND,          /* struct config_backend */
    PLACE_SERVER,           /* struct server_spec */
    PLACE_BACKEND_TIMEOUTS, /* struct backend_settings, as all below */
    PLACE_KEEPALIVE,
    PLACE_QUEUE,
    PLACE_RETRY,
    PLACE_HEALTH,
    PLACE_BACKEND_TLS,  /* struct trust_setting */
    PLACE_LISTENER_TLS, /* struct service_setting */
    PLACE_CERTIFICATE,  /* struct certificate_setting */
    PLACE_FORWARD,      /* struct forward */
    PLACE_EGRESS,       /* struct egress */
    PLACE_PARENT,       /* struct parent_setting (settings_forward.c) */
    PLACE_COUNT
};

enum setting_type {
    SETTING_BOOLEAN, /* bool */
    SETTING_COUNT,   /* unsigned */
    SETTING_SECONDS, /* double */
    SETTING_SIZE,    /* uint64_t, bytes */
    SETTING_SIZE32,  /* uint32_t, bytes */
    SETTING_TEXT,    /* char *, malloc'd; not empty */
    SETTING_WORD,    /* an enum: the index into `words` */
    SETTING_TABLE,   /* a table of the place `table`, read into the struct at `field` */
    SETTING_HOOK,    /* a hook's name; what stands there is core/lua's to judge. `field` is the enum hook */
    SETTING_OWN      /* `read` does it */
};

/* Where the reader is, as a chain on the C stack. The root has no name and no index. */
struct spot {
    const struct spot *up;
    const char *name; /* NULL: a list entry */
    size_t index;     /* of a list entry, from 1 */
};

struct reader {
    struct config *config;
    const struct config_lines *lines; /* NULL: the source is not known */
    struct sources *sources;          /* through which files are read; NULL: none can be */
    struct errors *errors;
};

struct setting {
    enum place place;
    const char *name;
    enum setting_type type;
    size_t field;             /* offset in the place's struct */
    double low, high, preset; /* bounds, both included, and default, in the field's unit */
    bool or_none;             /* SIZE: 0 and "none" mean no limit, UINT64_MAX */
    enum place table;
    const char *const *words; /* NULL-terminated */
    void (*read)(struct reader *, const struct spot *, const struct value *, void *base);
};

/* Ends with a row without a name. */
extern const struct setting settings_table[];
extern const char *const settings_places[PLACE_COUNT]; /* "a site", … for sentences */

/* ---- settings.c: the reader */

/* Sets the defaults of a place's struct (nested places too). */
void settings_preset(enum place, void *base);
/* Reads what `table` says about the settings of that place into `base`. Names it does not know are left for
 * settings_check_names. */
void settings_read(struct reader *, const struct spot *, enum place, const struct value *table, void *base);
/* Every key of `table` must be a name of one of `places` (bits 1 << enum place), or one of the first `entries` list
 * entries. */
void settings_check_names(struct reader *, const struct spot *, const struct value *table, uint32_t places,
                          size_t entries);

enum { SPOT_TEXT = 512, SHOWN_TEXT = 80 };
/* "sites[1].backends[\"my-app\"][2]", "" for the root; returns `to`. */
char *spot_text(const struct spot *, char to[SPOT_TEXT]);
int spot_line(const struct reader *, const struct spot *); /* 0: not known */
void reader_error(struct reader *, const struct spot *, const char *format, ...) __attribute__((format(printf, 3, 4)));
void reader_warn(struct reader *, const struct spot *, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The commonest error: "expected WHAT, got VALUE". Returns false. */
bool reader_expected(struct reader *, const struct spot *, const char *what, const struct value *got);
/* A value as it is shown in an error: "\"80a\"", "8080", "a table"; returns `to`. */
char *value_shown(const struct value *, char to[SHOWN_TEXT]);

/* A list that may be written as its only entry: `hosts = "a"` is `hosts = { "a" }`. */
size_t list_size(const struct value *);
const struct value *list_entry(const struct value *, size_t index);                   /* from 1 */
struct spot list_spot(const struct spot *at, const struct value *list, size_t index); /* of that entry */
/* A whole number that fits, also when written as 4.0. */
bool value_whole(const struct value *, int64_t *out);

/* ---- settings_units.c */
bool size_parse(struct slice, uint64_t *bytes);    /* "512", "64K", "256M", "1G" */
bool seconds_parse(struct slice, double *seconds); /* "500ms", "1.5s", "10m", "1h"; a bare number is none */
enum { UNIT_TEXT = 32 };
char *size_write(double bytes, char to[UNIT_TEXT]); /* the largest unit that leaves a whole number */
char *seconds_write(double seconds, char to[UNIT_TEXT]);
/* The name most like `name` among those of the places, NULL if none is like it. `hooks`: only names of hooks. */
const char *settings_nearest(struct slice name, uint32_t places, bool hooks);

/* ---- the settings that are more than one value: settings_site.c, settings_listen.c, settings_backend.c,
 * settings_tls.c. `base` is the struct of the setting's place. */
void read_sites(struct reader *, const struct spot *, const struct value *, void *base);
void read_admin(struct reader *, const struct spot *, const struct value *, void *base);
void read_user(struct reader *, const struct spot *, const struct value *, void *base);
void read_unsafe(struct reader *, const struct spot *, const struct value *, void *base);
void read_listen(struct reader *, const struct spot *, const struct value *, void *base);
void read_hosts(struct reader *, const struct spot *, const struct value *, void *base);
void read_trusted_proxies(struct reader *, const struct spot *, const struct value *, void *base);
/* A list of ranges into `*list`, malloc'd. */
void read_ranges(struct reader *, const struct spot *, const struct value *, struct cidr **list, size_t *count);
void read_forward(struct reader *, const struct spot *, const struct value *, void *base);
void read_forward_parent(struct reader *, const struct spot *, const struct value *, void *base);
void read_ports(struct reader *, const struct spot *, const struct value *, void *base);
void read_egress(struct reader *, const struct spot *, const struct value *, void *base);
void read_allow(struct reader *, const struct spot *, const struct value *, void *base);
void read_deny(struct reader *, const struct spot *, const struct value *, void *base);
void read_backend_parent(struct reader *, const struct spot *, const struct value *, void *base);
struct parent_setting {
    char *url, *auth;
};
/* Its servers and its TLS are read. */
void check_backend_parent(struct reader *, const struct spot *, const struct config_backend *);
void read_negative(struct reader *, const struct spot *, const struct value *, void *base);
void read_stale_if_error(struct reader *, const struct spot *, const struct value *, void *base);
void read_purge(struct reader *, const struct spot *, const struct value *, void *base);
/* `cache`: as it is written; NULL: it is not. */
void check_cache(struct reader *, const struct spot *site, const struct value *cache, const struct config_cache *);
void read_use(struct reader *, const struct spot *, const struct value *, void *base);
void read_compress(struct reader *, const struct spot *, const struct value *, void *base);
void read_compress_types(struct reader *, const struct spot *, const struct value *, void *base);
void read_compress_codings(struct reader *, const struct spot *, const struct value *, void *base);
void read_fail(struct reader *, const struct spot *, const struct value *, void *base);
void read_backends(struct reader *, const struct spot *, const struct value *, void *base);
void read_keepalive(struct reader *, const struct spot *, const struct value *, void *base);
void read_queue(struct reader *, const struct spot *, const struct value *, void *base);
void read_retry_on(struct reader *, const struct spot *, const struct value *, void *base);
void read_health_status(struct reader *, const struct spot *, const struct value *, void *base);
void read_backend_tls(struct reader *, const struct spot *, const struct value *, void *base);
/* Its servers are read: each must have a name that its certificate can bear. */
void check_backend_tls(struct reader *, const struct spot *, const struct config_backend *);
void read_pins(struct reader *, const struct spot *, const struct value *, void *base);
void read_versions(struct reader *, const struct spot *, const struct value *, void *base);

/* ---- settings_tls.c: TLS to servers, as it is written; what it makes is a trust. */
struct trust_setting {
    bool verify;
    char *name, *ca, *cert, *key;
    struct slice *pins; /* of the value tree */
    unsigned pin_count;
    unsigned versions; /* enum tls_versions */
};

/* TLS to clients. */
struct certificate_setting {
    char *cert, *key, *ocsp;
};
struct service_setting {
    struct certificate_setting certificate;
    unsigned profile; /* 0: intermediate, 1: modern */
    char *client_ca, *crl;
    unsigned client_verify; /* 0: require, 1: request */
    bool early_data, ktls;
};
void read_proxy_protocol(struct reader *, const struct spot *, const struct value *, void *base);
void read_listener_tls(struct reader *, const struct spot *, const struct value *, void *base);
void read_site_tls(struct reader *, const struct spot *, const struct value *, void *base);
/* What must hold between the `tls` of listeners and of sites; all of them are read. */
void settings_check_tls(struct reader *);

/* Appends a site, `index` as in struct config_site, and reads it. */
void read_site(struct reader *, const struct spot *, const struct value *, unsigned index);
