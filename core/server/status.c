/* The status, put together by the keeper: his own view of the generation, what the main thread publishes under its
 * lock, and the sums of the metrics. Nothing of another worker is read but what he publishes. */
#include "server/status.h"

#include "base/clock.h"
#include "server/config.h"
#include "server/instance.h"
#include "server/version.h"
#include "server/worker_thread.h"
#include "store/lock.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

static void set_integer(json_t *object, const char *name, int64_t value) {
    json_object_set_new(object, name, json_integer(value));
}
static void set_text(json_t *object, const char *name, const char *text) {
    json_t *value = json_string(text);
    json_object_set_new(object, name, value ? value : json_null()); /* no UTF-8: no value */
}

static json_t *describe_server(const struct candidate *c) {
    json_t *server = json_object();
    set_text(server, "name", c->spec->name);
    set_text(server, "address", c->server->name);
    set_integer(server, "weight", c->weight);
    json_object_set_new(server, "well", json_boolean(server_well(c->server)));
    json_object_set_new(server, "healthy", json_boolean(atomic_load(&c->server->healthy) != 0));
    set_integer(server, "active", atomic_load(&c->server->active));
    set_integer(server, "connections", atomic_load(&c->server->connections));
    set_integer(server, "failures", atomic_load(&c->server->failures));
    return server;
}

static json_t *describe_backend(const struct backend *b, int keeper) {
    const struct backend_view *view = &b->views[keeper];
    json_t *backend = json_object(), *servers = json_array();
    set_text(backend, "name", b->name);
    for (unsigned i = 0; i < view->count; i++) json_array_append_new(servers, describe_server(&view->list[i]));
    json_object_set_new(backend, "servers", servers);
    if (b->queue) set_integer(backend, "waiting", queue_length(b->queue));
    return backend;
}

/* Since the process began, by class of status; classes that never came are left out. */
static json_t *describe_requests(const struct site_metrics *m) {
    static const char *const classes[] = { "1xx", "2xx", "3xx", "4xx", "5xx" };
    json_t *requests = json_object();
    for (int class = 1; class <= 5; class ++) {
        int64_t sum = 0;
        for (int status = class * 100; status < (class + 1) * 100; status++) {
            struct metric *one = atomic_load_explicit(&m->requests[status], memory_order_acquire);
            if (one) sum += metric_value(one);
        }
        if (sum) set_integer(requests, classes[class - 1], sum);
    }
    return requests;
}

static json_t *describe_site(const struct site *s, int keeper) {
    json_t *site = json_object(), *hosts = json_array(), *backends = json_array();
    set_text(site, "name", s->name);
    for (char **host = s->hosts; *host; host++) json_array_append_new(hosts, json_string(*host));
    for (unsigned i = 0; i < s->backend_count; i++)
        json_array_append_new(backends, describe_backend(s->backends[i], keeper));
    json_object_set_new(site, "hosts", hosts);
    json_object_set_new(site, "requests", describe_requests(s->metrics));
    json_object_set_new(site, "backends", backends);
    return site;
}

static json_t *describe_sites(const struct worker *keeper) {
    json_t *sites = json_array();
    const struct generation *g = keeper->generation;
    for (unsigned i = 0; g && i < g->site_count; i++)
        json_array_append_new(sites, describe_site(g->sites[i], (int)keeper->index));
    return sites;
}

static json_t *describe_listeners(const struct worker *keeper) {
    json_t *listeners = json_array();
    list_each(node, &keeper->ears)
        json_array_append_new(listeners, json_string(container_of(node, struct ear, node)->listener->name));
    return listeners;
}

static json_t *describe_lua(const struct instance *instance) {
    json_t *list = json_array();
    for (unsigned i = 0; i < instance->worker_count; i++) {
        const struct worker_thread *t = &instance->threads[i];
        json_t *lua = json_object();
        set_integer(lua, "worker", i);
        set_integer(lua, "bytes", (int64_t)atomic_load_explicit(&t->lua_bytes, memory_order_relaxed));
        set_integer(lua, "runs", (int64_t)atomic_load_explicit(&t->lua_runs, memory_order_relaxed));
        set_integer(lua, "waiting", (int64_t)atomic_load_explicit(&t->lua_waiting, memory_order_relaxed));
        json_array_append_new(list, lua);
    }
    return list;
}

static void set_figures(json_t *status, struct instance *instance) {
    struct instance_figures *f = &instance->figures;
    pthread_mutex_lock(&f->lock);
    json_object_set_new(status, "uptime", json_real(clock_wall() - f->began));
    set_integer(status, "generation", f->generation);
    set_integer(status, "generations_live", f->generations);
    json_object_set_new(status, "loaded", json_real(f->loaded));
    set_integer(status, "reloads", f->reloads);
    set_integer(status, "reloads_failed", f->reloads_failed);
    pthread_mutex_unlock(&f->lock);
}

static void set_sums(json_t *status, const struct worker_metrics *m) {
    set_integer(status, "clients", metric_value(m->clients_open));
    set_integer(status, "tunnels", metric_value(m->tunnels_open));
    set_integer(status, "connections_total", metric_value(m->clients_total));
    set_integer(status, "requests_total", metric_value(m->requests_total));
    set_integer(status, "bad_requests_total", metric_value(m->bad_requests));
    set_integer(status, "fetches_total", metric_value(m->fetches));
}

void status_json(struct instance *instance, struct buffer *out) {
    const struct worker *keeper = &instance->threads[0].worker;
    json_t *status = json_object();
    set_text(status, "version", version_text());
    set_text(status, "config", instance->setup.file);
    set_integer(status, "supervisor", instance->setup.supervisor);
    set_integer(status, "pid", getpid());
    set_integer(status, "restarts", instance->setup.restarts);
    set_figures(status, instance);
    set_integer(status, "workers", instance->worker_count);
    json_object_set_new(status, "draining", json_boolean(keeper->draining));
    set_sums(status, keeper->metrics);
    json_object_set_new(status, "listeners", describe_listeners(keeper));
    json_object_set_new(status, "sites", describe_sites(keeper));
    json_object_set_new(status, "lua", describe_lua(instance));
    char *text = json_dumps(status, JSON_COMPACT);
    json_decref(status);
    buffer_printf(out, "%s\n", text ? text : "{}");
    free(text);
}

/* ---- the same for metrics */

/* Defines a reader of one figure, under the lock. */
#define READER(name)                                                                                                   \
    static double read_##name(void *with) {                                                                            \
        struct instance_figures *f = &((struct instance *)with)->figures;                                              \
        pthread_mutex_lock(&f->lock);                                                                                  \
        double value = (double)f->name;                                                                                \
        pthread_mutex_unlock(&f->lock);                                                                                \
        return value;                                                                                                  \
    }
READER(generation)
READER(generations)
READER(began)
READER(loaded)

static double read_restarts(void *with) { return ((struct instance *)with)->setup.restarts; }

static double read_locks_held(void *with) { return (void)with, (double)lock_figures().held; }
static double read_locks_waiting(void *with) { return (void)with, (double)lock_figures().waiting; }

void status_metrics(struct instance *instance) {
    metrics_gauge_with("moongate_generation", "Number of the current generation", read_generation, instance);
    metrics_gauge_with("moongate_generations_live", "Generations whose policy may still run", read_generations,
                       instance);
    metrics_gauge_with("moongate_config_loaded_seconds", "Unix time of the last load", read_loaded, instance);
    metrics_gauge_with("moongate_process_began_seconds", "Unix time at which the serving process began", read_began,
                       instance);
    metrics_gauge_with("moongate_restarts", "Serving processes that died before this one", read_restarts, instance);
    metrics_gauge_with("moongate_locks_held", "Locks that scripts hold", read_locks_held, NULL);
    metrics_gauge_with("moongate_locks_waiting", "Scripts that wait for a lock", read_locks_waiting, NULL);
}
