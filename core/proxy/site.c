/* What of sites and generations has no better place: the figures of a site, finding a site by Host, and counting
 * references.
 *
 * Figures are kept per name, not per site: a reload makes new sites, and a counter that began at zero with each would
 * be of no use. They are never freed while the process lives, so an exchange may hold them without its generation. */
#include "proxy/site.h"

#include "base/must.h"
#include "base/refs.h"
#include "net/listener.h"

#include <pthread.h>
#include <stdlib.h>

static struct {
    pthread_mutex_t lock;
    struct map by_name;
} registry = { .lock = PTHREAD_MUTEX_INITIALIZER };

enum { LABELS = 640 };

static struct metric *get_metric(const char *site, enum metric_kind kind, const char *family, const char *help) {
    char text[LABELS];
    struct label label = { "site", slice_of(site) };
    return metric_get(kind, family, help, metric_labels(text, sizeof text, &label, 1));
}

static struct site_metrics *make_metrics(struct slice name) {
    struct site_metrics *m = must_calloc(1, sizeof *m);
    m->name = must_strndup(name.p, name.n);
    m->latency = get_metric(m->name, METRIC_HISTOGRAM, "moongate_request_seconds",
                            "Seconds from a request's head to the end of its answer");
    m->bytes_in = get_metric(m->name, METRIC_COUNTER, "moongate_received_bytes_total", "Bytes of request bodies");
    m->bytes_out = get_metric(m->name, METRIC_COUNTER, "moongate_sent_bytes_total", "Bytes of response bodies");
    return m;
}

struct site_metrics *site_metrics_get(struct slice name) {
    pthread_mutex_lock(&registry.lock);
    struct site_metrics *m = map_get(&registry.by_name, name);
    if (!m) {
        m = make_metrics(name);
        map_set(&registry.by_name, name, m);
    }
    pthread_mutex_unlock(&registry.lock);
    return m;
}

/* ---- of a cache */

/* Defines the reader of one figure. */
#define READER(name)                                                                                                   \
    static int64_t read_##name(const void *cache) {                                                                    \
        struct cache_figures f;                                                                                        \
        cache_figures((struct cache *)(uintptr_t)cache, &f);                                                           \
        return (int64_t)f.name;                                                                                        \
    }
READER(memory)
READER(used)
READER(objects)
READER(passes)
READER(stored)
READER(freshened)
READER(evicted)
READER(evicted_bytes)
READER(refused)
READER(purged)
READER(expired)

static void open_figures(const char *site, const struct cache *cache) {
    char text[LABELS];
    struct label label = { "site", slice_of(site) };
    struct slice labels = metric_labels(text, sizeof text, &label, 1);
    metric_get_with(METRIC_GAUGE, "moongate_cache_limit_bytes", "Bytes that a site's cache may take", labels,
                    read_memory, cache);
    metric_get_with(METRIC_GAUGE, "moongate_cache_bytes",
                    "Bytes that a site's cache takes, what is still read included", labels, read_used, cache);
    metric_get_with(METRIC_GAUGE, "moongate_cache_objects", "Stored responses", labels, read_objects, cache);
    metric_get_with(METRIC_GAUGE, "moongate_cache_passes", "Keys that are remembered not to be for the cache", labels,
                    read_passes, cache);
    metric_get_with(METRIC_COUNTER, "moongate_cache_stored_total", "Responses that were stored", labels, read_stored,
                    cache);
    metric_get_with(METRIC_COUNTER, "moongate_cache_freshened_total",
                    "Stored responses that a backend said to hold still", labels, read_freshened, cache);
    metric_get_with(METRIC_COUNTER, "moongate_cache_evicted_total", "Stored responses that made room for others",
                    labels, read_evicted, cache);
    metric_get_with(METRIC_COUNTER, "moongate_cache_evicted_bytes_total", "Bytes of stored responses that made room",
                    labels, read_evicted_bytes, cache);
    metric_get_with(METRIC_COUNTER, "moongate_cache_refused_total", "Responses for which there was no room", labels,
                    read_refused, cache);
    metric_get_with(METRIC_COUNTER, "moongate_cache_purged_total", "Stored responses that were purged", labels,
                    read_purged, cache);
    metric_get_with(METRIC_COUNTER, "moongate_cache_expired_total", "Stored responses dropped for their age", labels,
                    read_expired, cache);
}

/* The bounds of the core's own histograms end at a minute. */
static struct metric *open_age(const char *site) {
    struct metric_declaration d = {
        .kind = METRIC_HISTOGRAM,
        .name = "moongate_cache_age_seconds",
        .help = "Age of what was answered from the cache",
        .labels = { "site" },
        .label_count = 1,
        .bounds = { 1, 10, 60, 300, 900, 3600, 3 * 3600, 12 * 3600, 86400, 7 * 86400, 30 * 86400 },
        .bound_count = 11,
        .limit = 10000,
    };
    const char *conflict;
    bool other;
    struct metric_family *family = metric_declare(&d, &conflict);
    struct slice value = slice_of(site);
    return family ? metric_series(family, &value, &other) : NULL;
}

void site_metrics_open_cache(struct site_metrics *m, const struct cache *cache) {
    char text[LABELS];
    if (m->cache.bytes) return;
    for (int r = 0; r < CACHE_RESULT_COUNT; r++) {
        struct label labels[] = { { "site", slice_of(m->name) },
                                  { "result", slice_of(cache_result_word((enum cache_result)r)) } };
        m->cache.requests[r] =
            metric_get(METRIC_COUNTER, "moongate_cache_requests_total", "Requests by what the cache did for them",
                       metric_labels(text, sizeof text, labels, 2));
    }
    m->cache.bytes = get_metric(m->name, METRIC_COUNTER, "moongate_cache_sent_bytes_total",
                                "Bytes of response bodies that came from the cache");
    m->cache.age = open_age(m->name);
    open_figures(m->name, cache);
}

/* Two workers may come here at once: both get the same metric. */
struct metric *site_metrics_requests(struct site_metrics *m, int status) {
    must(status >= 0 && status < SITE_STATUSES);
    char text[LABELS],
        digits[4] = { (char)('0' + status / 100), (char)('0' + status / 10 % 10), (char)('0' + status % 10), '\0' };
    struct label labels[] = { { "site", slice_of(m->name) }, { "status", slice_of(digits) } };
    struct metric *metric = metric_get(METRIC_COUNTER, "moongate_requests_total",
                                       "Requests by site and status of the answer (499: the client left)",
                                       metric_labels(text, sizeof text, labels, 2));
    atomic_store_explicit(&m->requests[status], metric, memory_order_release);
    return metric;
}

/* ".b.c" for "a.b.c", then ".c": the longest known suffix counts. */
static struct site *find_wildcard(const struct map *wildcard, struct slice host) {
    if (!wildcard->count) return NULL;
    for (size_t i = 1; i < host.n; i++) {
        if (host.p[i] != '.') continue;
        struct site *site = map_get(wildcard, slice_skip(host, i));
        if (site) return site;
    }
    return NULL;
}

struct site *host_table_find(const struct host_table *table, struct slice host) {
    /* "example.com." is the same name, fully qualified. */
    if (host.n > 1 && host.p[host.n - 1] == '.') host.n--;
    struct site *site = map_get(&table->exact, host);
    if (!site) site = find_wildcard(&table->wildcard, host);
    return site ? site : table->fallback;
}

struct forward forward_copy(const struct forward *from) {
    struct forward copy = *from;
    copy.egress = egress_copy(&from->egress);
    copy.parent = parent_ref(from->parent);
    copy.ports = NULL;
    if (!from->ports) return copy;
    copy.ports = must_calloc(from->port_count + 1, sizeof *copy.ports);
    memcpy(copy.ports, from->ports, from->port_count * sizeof *copy.ports);
    return copy;
}

void forward_fini(struct forward *f) {
    egress_fini(&f->egress);
    parent_unref(f->parent);
    free(f->ports);
}

struct generation *generation_ref(struct generation *g) {
    refs_take(&g->refs);
    return g;
}

const struct host_table *generation_table(const struct generation *g, const struct listener *l) {
    return g && l->id < g->table_count ? g->tables[l->id] : NULL;
}

void generation_unref(struct generation *g) {
    if (g && refs_give(&g->refs) && g->release) g->release(g);
}
