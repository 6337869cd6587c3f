/* What of sites and generations has no better place: the figures of a site, finding a site by Host, and counting
 * references.
 *
 * Figures are kept per name, not per site: a reload makes new sites, and a counter that began at zero with each would
 * be of no use. They are never freed while the process lives, so an exchange may hold them without its generation. */
#include "proxy/site.h"

#include "base/must.h"
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
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

const struct host_table *generation_table(const struct generation *g, const struct listener *l) {
    return g && l->id < g->table_count ? g->tables[l->id] : NULL;
}

void generation_unref(struct generation *g) {
    if (!g) return;
    /* acq_rel: whoever releases it sees all that was done under the other references. */
    unsigned before = atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel);
    must(before > 0);
    if (before == 1 && g->release) g->release(g);
}
