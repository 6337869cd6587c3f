/* What a worker's exchanges share, and how it comes, changes generations, drains and goes. The thread is
 * server/worker_thread.c. */
#include "proxy/worker.h"

#include "base/clock.h"
#include "base/must.h"
#include "net/tls.h"
#include "proxy/admission.h"
#include "proxy/exchange.h"
#include "proxy/handshake.h"
#include "proxy/health.h"
#include "proxy/tunnel.h"

#include <pthread.h>

static struct worker_metrics metrics;

static struct metric *find_handshakes(const char *result) {
    char text[64];
    struct label label = { "result", slice_of(result) };
    return metric_get(METRIC_COUNTER, "moongate_tls_handshakes_total",
                      "TLS handshakes of clients, by what they came to", metric_labels(text, sizeof text, &label, 1));
}

static struct metric *find_misplaced(const char *came) {
    char text[64];
    struct label label = { "came", slice_of(came) };
    return metric_get(METRIC_COUNTER, "moongate_misplaced_total",
                      "Connections that spoke plainly on a TLS listener (http), or TLS on a plain one (tls)",
                      metric_labels(text, sizeof text, &label, 1));
}

static struct metric *find_early(const char *result) {
    char text[64];
    struct label label = { "result", slice_of(result) };
    return metric_get(METRIC_COUNTER, "moongate_tls_early_total",
                      "Handshakes of clients that sent early data, by what became of it: taken or refused",
                      metric_labels(text, sizeof text, &label, 1));
}

static void find_metrics(void) {
    metrics.tls_early_taken = find_early("taken");
    metrics.tls_early_refused = find_early("refused");
    metrics.misplaced_http = find_misplaced("http");
    metrics.misplaced_tls = find_misplaced("tls");
    metrics.tls_full = find_handshakes("full");
    metrics.tls_resumed = find_handshakes("resumed");
    metrics.tls_failed = find_handshakes("failed");
    struct slice none = SLICE("");
    metrics.tls_kernel = metric_get(METRIC_COUNTER, "moongate_tls_kernel_total",
                                    "TLS handshakes of clients after which the kernel encrypts (ktls)", none);
    metrics.clients_open = metric_get(METRIC_GAUGE, "moongate_clients", "Open client connections", none);
    metrics.clients_total =
        metric_get(METRIC_COUNTER, "moongate_connections_total", "Client connections accepted", none);
    metrics.tunnels_open = metric_get(METRIC_GAUGE, "moongate_tunnels", "Open tunnels", none);
    metrics.requests_total =
        metric_get(METRIC_COUNTER, "moongate_exchanges_total", "Requests answered or given up", none);
    metrics.refused =
        metric_get(METRIC_COUNTER, "moongate_refused_total", "Client connections refused for lack of room", none);
    metrics.bad_requests =
        metric_get(METRIC_COUNTER, "moongate_bad_requests_total", "Requests that reached no site", none);
    metrics.turned_away = metric_get(METRIC_COUNTER, "moongate_turned_away_total",
                                     "Client connections that on_connect did not let in", none);
    metrics.proxy_headers_refused = metric_get(
        METRIC_COUNTER, "moongate_proxy_headers_refused_total",
        "Client connections closed for a PROXY header that was missing, malformed or not to be believed", none);
    metrics.destinations_refused =
        metric_get(METRIC_COUNTER, "moongate_destinations_refused_total",
                   "Connections that clients or scripts asked for to addresses that are not allowed", none);
    metrics.fetches =
        metric_get(METRIC_COUNTER, "moongate_fetches_total", "Requests made to backends, by clients and scripts", none);
}

void worker_init(struct worker *w, unsigned index, unsigned count) {
    *w = (struct worker){ .index = index, .count = count };
    loop_init(&w->loop, (int)index);
    mailbox_open(&w->mailbox, &w->loop);
    sockets_init(&w->sockets, &w->loop, &w->mailbox);
    list_init(&w->clients);
    list_init(&w->exchanges);
    list_init(&w->tunnels);
    list_init(&w->admissions);
    list_init(&w->handshakes);
    list_init(&w->ears);
    list_init(&w->ad_hoc_recent);
    random_bytes(&w->id_seed, sizeof w->id_seed);
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_metrics);
    w->metrics = &metrics;
}

static void drop_idle(void *with, const struct server *s) {
    server_conn_drop_idle((struct server *)(uintptr_t)s, with);
}

void worker_fini(struct worker *w) {
    must(list_empty(&w->clients) && list_empty(&w->exchanges) && !w->generation);
    sockets_fini(&w->sockets);
    for (unsigned i = 0; i < WORKER_SHOWN; i++) tls_certificates_unref(w->shown[i]);
    mailbox_close(&w->mailbox);
    loop_fini(&w->loop);
}

void worker_views_open(struct worker *w, const struct generation *g) {
    for (unsigned i = 0; i < g->site_count; i++)
        for (unsigned j = 0; j < g->sites[i]->backend_count; j++)
            backend_view_open(g->sites[i]->backends[j], &w->loop, &w->mailbox);
}

void worker_views_close(struct worker *w, const struct generation *g) {
    for (unsigned i = 0; i < g->site_count; i++)
        for (unsigned j = 0; j < g->sites[i]->backend_count; j++)
            backend_view_close(g->sites[i]->backends[j], &w->loop);
}

void worker_adopt(struct worker *w, struct generation *g) {
    struct generation *old = w->generation;
    w->generation = g;
    if (w->index == 0) {
        health_stop(w->health);
        w->health = g ? health_start(w, g) : NULL;
    }
    generation_unref(old);
}

void worker_client_came(struct worker *w) {
    w->client_count++;
    metric_add(w->metrics->clients_open, w->loop.index, 1);
    metric_add(w->metrics->clients_total, w->loop.index, 1);
}

void worker_count_refused(struct worker *w) { metric_add(w->metrics->destinations_refused, w->loop.index, 1); }

/* Those that have only a fill left: others read of it, perhaps in other workers, and these are waited for. */
static bool only_fills_run(struct worker *w) {
    list_each(node, &w->exchanges) if (container_of(node, struct exchange, node)->step != STEP_DONE) return false;
    return true;
}

static void tell_if_drained(struct worker *w) {
    if (w->draining && w->client_count == 0 && w->on_drained && only_fills_run(w)) w->on_drained(w);
}

void worker_client_gone(struct worker *w) {
    w->client_count--;
    metric_add(w->metrics->clients_open, w->loop.index, -1);
    tell_if_drained(w);
}

void worker_exchange_gone(struct worker *w) { tell_if_drained(w); }

void worker_exchange_rests(struct worker *w) { tell_if_drained(w); }

void worker_drain(struct worker *w) {
    w->draining = true;
    list_each_safe(node, &w->clients) client_drain(container_of(node, struct client, node));
    tell_if_drained(w);
}

void worker_close_all(struct worker *w) {
    tunnels_close(w);
    list_each_safe(node, &w->clients) client_close(container_of(node, struct client, node));
    w->closing = true;
    list_each_safe(node, &w->exchanges) exchange_wake(container_of(node, struct exchange, node));
    worker_close_pools(w);
}

void worker_close_pools(struct worker *w) {
    ad_hoc_close_all(w);
    sockets_drop_idle(&w->sockets);
    servers_each(drop_idle, &w->loop);
}

void worker_let_go(struct worker *w, struct generation *g) {
    admissions_let_go(w, g);
    handshakes_let_go(w, g);
    list_each_safe(node, &w->exchanges) {
        struct exchange *x = container_of(node, struct exchange, node);
        if (x->generation == g) exchange_let_go(x);
    }
}
