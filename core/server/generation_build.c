/* From struct config to what serves: sites, backends, host tables. Everything is copied, since the config goes and a
 * generation stays; after this nothing in it changes but what belongs to a worker (views, policies). */
#include "server/config.h"

#include "base/must.h"
#include "net/tls.h"
#include "server/listeners.h"

#include <stdlib.h>

/* ---- backends */

static char *copy_text(const char *text) { return text ? must_strdup(text) : NULL; }

static struct backend *build_backend(const struct config_backend *from, uint32_t index,
                                     const struct generation_parts *parts) {
    struct server_spec *specs = must_calloc(from->spec_count, sizeof *specs);
    for (unsigned i = 0; i < from->spec_count; i++) {
        specs[i] = from->specs[i];
        specs[i].name = copy_text(from->specs[i].name);
        specs[i].host = copy_text(from->specs[i].host);
    }
    struct backend_settings settings = from->settings;
    settings.trust = tls_trust_ref(settings.trust);
    settings.parent = parent_ref(settings.parent);
    settings.tls_name = copy_text(settings.tls_name);
    settings.health.path = copy_text(settings.health.path);
    settings.health.host = copy_text(settings.health.host);
    struct backend *backend =
        backend_create(slice_of(from->name), specs, from->spec_count, &settings, parts->workers, parts->resolver);
    backend->index = index;
    return backend;
}

static void build_backends(struct site *site, const struct config_site *from, const struct generation_parts *parts) {
    site->backends = must_calloc(from->backend_count + 1, sizeof *site->backends);
    for (unsigned i = 0; i < from->backend_count; i++) {
        struct backend *backend = build_backend(&from->backends[i], i, parts);
        site->backends[site->backend_count++] = backend;
        map_set(&site->backends_by_name, slice_of(backend->name), backend);
    }
    site->default_backend = map_get(&site->backends_by_name, SLICE("default"));
    if (site->backend_count == 1) site->default_backend = site->backends[0];
}

/* ---- sites */

static char **copy_hosts(char *const *from) {
    size_t count = 0;
    while (from[count]) count++;
    char **hosts = must_calloc(count + 1, sizeof *hosts);
    for (size_t i = 0; i < count; i++) hosts[i] = must_strdup(from[i]);
    return hosts;
}

/* Only for hooks that exist: a histogram is twenty lines of every scrape. A slot is written at most once, and before
 * any generation that reads it is published. */
static void open_hook_metrics(struct site_metrics *m, uint32_t hooks) {
    char text[640];
    for (int h = 0; h < HOOK_COUNT; h++) {
        if (!(hooks >> h & 1) || m->hook_seconds[h]) continue;
        struct label labels[] = { { "site", slice_of(m->name) }, { "hook", slice_of(hook_name((enum hook)h)) } };
        struct slice written = metric_labels(text, sizeof text, labels, 2);
        m->hook_errors[h] = metric_get(METRIC_COUNTER, "moongate_hook_errors_total", "Hook calls that failed", written);
        m->hook_seconds[h] =
            metric_get(METRIC_HISTOGRAM, "moongate_hook_seconds", "Seconds of hook calls, waits included", written);
    }
}

/* A name's cache outlives its generations; nothing is mapped before something is stored. */
static struct cache_policy build_cache(const struct config_site *from) {
    const struct config_cache *c = &from->cache;
    struct cache_policy policy = {
        .pass = c->pass,
        .stale = c->stale,
        .has_stale_if_error = c->has_stale_if_error,
        .stale_if_error = c->stale_if_error,
        .negative_count = c->negative_count,
        .purger_count = c->purger_count,
    };
    if (c->memory == 0) return policy;
    policy.cache = cache_open(slice_of(from->name), &(struct cache_limits){ c->memory, c->max_object });
    policy.name = must_strdup(c->name ? c->name : "moongate");
    memcpy(policy.negative, c->negative, sizeof policy.negative);
    if (c->purger_count) {
        policy.purgers = must_calloc(c->purger_count, sizeof *policy.purgers);
        memcpy(policy.purgers, c->purgers, c->purger_count * sizeof *policy.purgers);
    }
    if (!policy.cache) log_error("%s: no memory for its cache: nothing is stored", from->name);
    return policy;
}

static struct site *build_site(struct generation *g, const struct config_site *from,
                               const struct generation_parts *parts) {
    struct site *site = must_calloc(1, sizeof *site);
    site->generation = g;
    site->index = g->site_count;
    site->name = must_strdup(from->name);
    site->hosts = copy_hosts(from->hosts);
    site->certificates = tls_certificates_ref(from->certificates);
    build_backends(site, from, parts);
    site->trusted_count = from->trusted_count;
    site->trusted = must_calloc(from->trusted_count + 1, sizeof *site->trusted);
    if (from->trusted_count) memcpy(site->trusted, from->trusted, from->trusted_count * sizeof *site->trusted);
    site->forward = forward_copy(&from->forward);
    site->max_body = from->max_body;
    site->limits = from->limits;
    site->buffer_body = from->buffer_body;
    site->raw_target = from->raw_target;
    site->abort_on_fin = from->abort_on_fin;
    site->cache = build_cache(from);
    site->timeouts = from->timeouts;
    site->compress = compress_copy(&from->compress);
    site->hooks = from->hooks;
    memcpy(site->fail_open, from->fail_open, sizeof site->fail_open);
    site->policies = must_calloc(parts->workers, sizeof *site->policies);
    site->metrics = site_metrics_get(slice_of(site->name));
    open_hook_metrics(site->metrics, site->hooks);
    if (site->cache.cache) site_metrics_open_cache(site->metrics, site->cache.cache);
    return site;
}

/* ---- host tables */

static void add_to_table(struct host_table *table, struct site *site) {
    for (char **host = site->hosts; *host; host++) {
        if (**host == '*') map_set(&table->wildcard, slice_of(*host + 1), site);
        else map_set(&table->exact, slice_of(*host), site);
    }
    if (site->hooks >> HOOK_ON_CONNECT & 1) {
        table->guards = must_realloc(table->guards, (table->guard_count + 1) * sizeof(struct site *));
        table->guards[table->guard_count++] = site;
    }
    if (!table->first) table->first = site;
    if (site->forward.on) table->forward = site;
    if (*site->hosts) return;
    table->fallback = table->first = site;
}

static unsigned count_ids(const struct config *config, const struct generation_parts *parts) {
    unsigned count = 0;
    for (unsigned i = 0; i < config->listener_count; i++)
        if (parts->listeners[i]->id >= count) count = parts->listeners[i]->id + 1;
    return count;
}

/* Certificates for names that no site has one for: the listener's own, else the default site's, else those of the first
 * site that has any. */
static void add_tls(struct host_table *table, const struct config_listener *l, struct site *site) {
    if (!l->tls) return;
    if (!table->tls) {
        table->tls = tls_service_ref(l->tls);
        if (tls_certificates_count(l->certificates)) table->certificates = tls_certificates_ref(l->certificates);
    }
    bool fallback = table->fallback == site && !tls_certificates_count(l->certificates);
    if (!site->certificates || (table->certificates && !fallback)) return;
    tls_certificates_unref(table->certificates);
    table->certificates = tls_certificates_ref(site->certificates);
}

static void copy_proxies(struct host_table *table, const struct config_listener *l) {
    table->proxy_protocol = l->proxy_protocol;
    if (table->proxies || !l->proxies_count) return;
    table->proxies_count = l->proxies_count;
    table->proxies = must_calloc(l->proxies_count, sizeof *table->proxies);
    memcpy(table->proxies, l->proxies, l->proxies_count * sizeof *table->proxies);
}

static void build_tables(struct generation *g, const struct config *config, const struct generation_parts *parts) {
    g->table_count = count_ids(config, parts);
    g->tables = must_calloc(g->table_count + 1, sizeof(struct host_table *));
    for (unsigned s = 0; s < config->site_count; s++) {
        for (unsigned i = 0; i < config->sites[s].listener_count; i++) {
            uint32_t id = parts->listeners[config->sites[s].listeners[i]]->id;
            if (!g->tables[id]) g->tables[id] = must_calloc(1, sizeof(struct host_table));
            g->tables[id]->h2c = config->listeners[config->sites[s].listeners[i]].h2c;
            copy_proxies(g->tables[id], &config->listeners[config->sites[s].listeners[i]]);
            add_to_table(g->tables[id], g->sites[s]);
            add_tls(g->tables[id], &config->listeners[config->sites[s].listeners[i]], g->sites[s]);
        }
    }
}

/* Where a connection would come in at ourselves. */
static void build_addresses(struct generation *g, const struct config *config, const struct generation_parts *parts) {
    g->listened = must_calloc(config->listener_count + 1, sizeof *g->listened);
    for (unsigned i = 0; i < config->listener_count; i++)
        g->listened[g->listened_count++] = listener_bound(parts->listeners[i]);
    if (config->admin.addr.size) g->listened[g->listened_count++] = config->admin.addr;
}

/* ---- the whole */

/* All that could be wrong was found by config_read; `errors` is for what later parts (certificates) will find only
 * here. */
struct generation *generation_build(const struct config *config, const struct generation_parts *parts, uint32_t number,
                                    struct errors *errors) {
    (void)errors;
    struct generation *g = must_calloc(1, sizeof *g);
    atomic_init(&g->refs, 1);
    g->number = number;
    g->max_connections = config->max_connections;
    g->drain = config->drain;
    g->sites = must_calloc(config->site_count + 1, sizeof(struct site *));
    while (g->site_count < config->site_count) {
        struct site *site = build_site(g, &config->sites[g->site_count], parts);
        g->sites[g->site_count++] = site;
    }
    build_tables(g, config, parts);
    build_addresses(g, config, parts);
    g->egress = egress_copy(&config->egress);
    g->has_egress = config->has_egress;
    g->states = parts->states;
    g->release = parts->release;
    return g;
}

static void destroy_site(struct site *site) {
    for (unsigned i = 0; i < site->backend_count; i++) backend_destroy(site->backends[i]);
    for (char **host = site->hosts; *host; host++) free(*host);
    map_fini(&site->backends_by_name);
    tls_certificates_unref(site->certificates);
    free(site->backends);
    free(site->hosts);
    free(site->trusted);
    forward_fini(&site->forward);
    free(site->cache.name);
    free(site->cache.purgers);
    compress_fini(&site->compress);
    free(site->policies);
    free(site->name);
    free(site);
}

static void destroy_table(struct host_table *table) {
    if (!table) return;
    tls_service_unref(table->tls);
    tls_certificates_unref(table->certificates);
    free(table->proxies);
    free(table->guards);
    map_fini(&table->exact);
    map_fini(&table->wildcard);
    free(table);
}

void generation_destroy(struct generation *g) {
    if (!g) return;
    for (unsigned i = 0; i < g->site_count; i++) destroy_site(g->sites[i]);
    for (unsigned i = 0; i < g->table_count; i++) destroy_table(g->tables[i]);
    egress_fini(&g->egress);
    free(g->listened);
    free(g->sites);
    free(g->tables);
    free(g->states);
    free(g);
}
