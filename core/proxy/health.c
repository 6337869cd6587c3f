/* A check is a fetch like any other, fixed to one server, without policy, on a connection of the ordinary pool: what
 * it finds is what requests would find. Checks of a backend are spread over its interval, lest all be asked in the
 * same moment. */
#include "proxy/health.h"

#include "base/log.h"
#include "base/must.h"
#include "http/uri.h"
#include "proxy/fetch.h"

#include <stdlib.h>

/* One server being asked. */
struct check {
    struct list node;
    struct task task;
    struct health_round *round;
    struct server *server;
    struct fetch *fetch;
    struct fetch_waiter waiter;
    struct arena arena;
    struct request request;
    struct grave grave;
};

/* One backend's rounds. */
struct health_round {
    struct deadline next;
    struct worker *worker;
    struct backend *backend;
    struct list checks;
    unsigned turn; /* which server is asked next */
};

struct health {
    struct generation *generation;
    struct health_round *rounds;
    unsigned count;
    struct grave grave;
    struct worker *worker;
};

static void check_bury(struct grave *g) {
    struct check *k = container_of(g, struct check, grave);
    server_unref(k->server);
    arena_fini(&k->arena);
    free(k);
}

static void check_end(struct check *k) {
    fetch_waiter_forget(&k->waiter);
    fetch_close(k->fetch);
    task_forget(&k->task);
    list_remove(&k->node);
    loop_bury(&k->round->worker->loop, &k->grave);
}

static bool status_is_good(const struct backend_settings *s, int status) {
    return status >= s->health.status_low && status <= s->health.status_high;
}

/* Only the keeper writes these counts. */
static void judge(struct health_round *round, struct server *server, bool good, const char *word) {
    const struct backend_settings *s = &round->backend->settings;
    bool healthy = atomic_load_explicit(&server->healthy, memory_order_relaxed);
    server->in_a_row = good == healthy ? 0 : server->in_a_row + 1;
    if (server->in_a_row < (good ? s->health.rise : s->health.fall)) return;
    if (good == healthy) return;
    server->in_a_row = 0;
    atomic_store_explicit(&server->healthy, good, memory_order_relaxed);
    log_warn("backend %s: server %s is %s (%s)", server->backend, server->name, good ? "healthy again" : "unhealthy",
             word);
}

static void check_advance(struct task *t) {
    struct check *k = container_of(t, struct check, task);
    const struct fetch *f = k->fetch;
    if (f->state == FETCH_TRYING) return;
    bool answered = f->state == FETCH_HEAD;
    bool good = answered && status_is_good(&k->round->backend->settings, f->response.status);
    judge(k->round, k->server, good, answered ? "status" : failure_word(f->why));
    check_end(k);
}

static void make_request(struct check *k) {
    const struct backend_settings *s = &k->round->backend->settings;
    struct request *r = &k->request;
    headers_init(&r->headers, &k->arena);
    headers_init(&r->trailers, &k->arena);
    r->method = METHOD_GET;
    r->method_name = SLICE("GET");
    r->version = HTTP_1_1;
    headers_add_id(&r->headers, HEADER_HOST, slice_of(s->health.host ? s->health.host : k->server->name));
    headers_add_id(&r->headers, HEADER_USER_AGENT, SLICE("moongate-health"));
}

static void check_start(struct health_round *round, struct server *server) {
    const struct backend_settings *s = &round->backend->settings;
    struct check *k = must_calloc(1, sizeof *k);
    struct timeouts timeouts = { .connect = s->health.timeout,
                                 .first_byte = s->health.timeout,
                                 .between = s->health.timeout };
    k->round = round;
    k->server = server_ref(server);
    arena_init(&k->arena);
    grave_init(&k->grave, check_bury);
    task_init(&k->task, check_advance);
    list_push(&round->checks, &k->node);
    make_request(k);
    struct fetch_options options = {
        .worker = round->worker,
        .backend = round->backend,
        .exact = server,
        .request = &k->request,
        .target = slice_of(s->health.path),
        .timeouts = &timeouts,
        .total = s->health.timeout,
    };
    k->fetch = fetch_create(&options);
    k->waiter.task = &k->task;
    fetch_await(k->fetch, &k->waiter);
    fetch_start(k->fetch);
}

static bool is_being_checked(const struct health_round *round, const struct server *server) {
    list_each(node, &round->checks) {
        if (container_of(node, struct check, node)->server == server) return true;
    }
    return false;
}

static void round_on_time(struct deadline *d) {
    struct health_round *round = container_of(d, struct health_round, next);
    const struct backend_view *v = &round->backend->views[round->worker->index];
    double interval = round->backend->settings.health.interval;
    if (v->count > 0) {
        struct server *server = v->list[round->turn++ % v->count].server;
        if (!is_being_checked(round, server)) check_start(round, server);
        interval /= v->count;
    }
    deadline_set(d, interval);
}

static unsigned count_checked(const struct generation *g) {
    unsigned n = 0;
    for (unsigned i = 0; i < g->site_count; i++) {
        for (unsigned j = 0; j < g->sites[i]->backend_count; j++)
            n += g->sites[i]->backends[j]->settings.health.path != NULL;
    }
    return n;
}

static void round_start(struct health *h, struct backend *backend) {
    struct health_round *round = &h->rounds[h->count++];
    round->worker = h->worker;
    round->backend = backend;
    list_init(&round->checks);
    deadline_init(&round->next, &h->worker->loop, round_on_time);
    deadline_set(&round->next, 0.001); /* the first server at once */
}

struct health *health_start(struct worker *w, struct generation *g) {
    unsigned n = count_checked(g);
    if (n == 0) return NULL;
    struct health *h = must_calloc(1, sizeof *h);
    h->generation = generation_ref(g);
    h->worker = w;
    h->rounds = must_calloc(n, sizeof *h->rounds);
    for (unsigned i = 0; i < g->site_count; i++) {
        for (unsigned j = 0; j < g->sites[i]->backend_count; j++) {
            if (g->sites[i]->backends[j]->settings.health.path) round_start(h, g->sites[i]->backends[j]);
        }
    }
    return h;
}

static void health_bury(struct grave *g) {
    struct health *h = container_of(g, struct health, grave);
    generation_unref(h->generation);
    free(h->rounds);
    free(h);
}

void health_stop(struct health *h) {
    if (!h) return;
    for (unsigned i = 0; i < h->count; i++) {
        deadline_fini(&h->rounds[i].next);
        list_each_safe(node, &h->rounds[i].checks) check_end(container_of(node, struct check, node));
    }
    grave_init(&h->grave, health_bury);
    loop_bury(&h->worker->loop, &h->grave); /* after the checks, which stand before it in the list of the dead */
}
