/* Backends: which servers a worker may choose from, and which it chooses.
 *
 * A view is built anew whenever an answer about a name has come in; numeric addresses are there from the start. A
 * name is asked for when the view opens and again when its TTL is over and somebody chooses (an idle backend asks
 * nothing); the old addresses serve meanwhile, and stay if the new answer is a failure. */
#include "backend/backend.h"

#include "base/must.h"
#include "net/tls.h"
#include "store/metrics.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAME_ADDRESSES = 16, TUNNEL_TEXT = 272 };

struct name_answer {
    struct backend_view *view;
    const struct server_spec *spec;
    struct mailbox *asker;
    struct question *question; /* under way, or NULL */
    bool answered;
    double expires;
    unsigned count;
    struct addr addrs[NAME_ADDRESSES];
};

struct backend *backend_create(struct slice name, struct server_spec *specs, unsigned count,
                               const struct backend_settings *settings, unsigned workers, struct resolver *resolver) {
    struct backend *b = must_calloc(1, sizeof *b);
    b->name = must_strndup(name.p, name.n);
    b->specs = specs;
    b->spec_count = count;
    b->settings = *settings;
    b->workers = workers;
    b->resolver = resolver;
    b->queue_user.most = settings->max_connections;
    if (settings->queue) b->queue = queue_open(name, &b->queue_user);
    b->views = must_calloc(workers, sizeof *b->views);
    for (unsigned i = 0; i < workers; i++) {
        b->views[i].backend = b;
        list_init(&b->views[i].waiters);
    }
    return b;
}

void server_specs_free(struct server_spec *specs, unsigned count) {
    for (unsigned i = 0; specs && i < count; i++) {
        free(specs[i].name);
        free(specs[i].host);
    }
    free(specs);
}

void backend_settings_fini(struct backend_settings *s) {
    tls_trust_unref(s->trust);
    parent_unref(s->parent);
    free(s->tls_name);
    free(s->health.path);
    free(s->health.host);
}

void backend_destroy(struct backend *b) {
    if (!b) return;
    for (unsigned i = 0; i < b->workers; i++) must(!b->views[i].loop);
    server_specs_free(b->specs, b->spec_count);
    backend_settings_fini(&b->settings);
    queue_close(b->queue, &b->queue_user);
    free(b->views);
    free(b->name);
    free(b);
}

/* ---- views */

/* What a parent is asked for. */
static const char *write_tunnel(char *to, size_t size, const struct server_spec *spec) {
    char text[ADDR_TEXT];
    if (spec->host) snprintf(to, size, "%s:%u", spec->host, (unsigned)spec->port);
    else snprintf(to, size, "%.*s", FMT(addr_text(&spec->addr, text)));
    return to;
}

static void add_candidate(struct backend_view *v, const struct server_spec *spec, const struct addr *addr) {
    char tunnel[TUNNEL_TEXT];
    if (v->count == v->room) {
        v->room = v->room ? v->room * 2 : 4;
        v->list = must_realloc(v->list, v->room * sizeof *v->list);
    }
    struct candidate *c = &v->list[v->count++];
    *c = (struct candidate){ .spec = spec, .weight = spec->weight };
    c->server =
        server_get(slice_of(v->backend->name), addr,
                   v->backend->settings.parent ? write_tunnel(tunnel, sizeof tunnel, spec) : NULL, v->backend->workers);
    if (v->backend->queue) server_set_queue(c->server, v->backend->queue);
}

static void clear_candidates(struct backend_view *v) {
    for (unsigned i = 0; i < v->count; i++) server_unref(v->list[i].server);
    free(v->list);
    v->list = NULL;
    v->count = v->room = 0;
}

/* The name to look up: with a parent its own, which looks up the servers'. NULL: none. */
static const char *host_of(const struct backend *b, const struct server_spec *spec) {
    return b->settings.parent ? b->settings.parent->host : spec->host;
}

static void add_spec(struct backend_view *v, unsigned i) {
    const struct server_spec *spec = &v->backend->specs[i];
    const struct parent *parent = v->backend->settings.parent;
    if (!host_of(v->backend, spec)) {
        add_candidate(v, spec, parent ? &parent->addr : &spec->addr);
        return;
    }
    const struct name_answer *answer = &v->names[i];
    for (unsigned k = 0; k < answer->count; k++) {
        struct addr addr = answer->addrs[k];
        addr_set_port(&addr, parent ? parent->port : spec->port);
        add_candidate(v, spec, &addr);
    }
}

/* The old references go last, so that a server in both lists does not die in between. */
static void rebuild_view(struct backend_view *v) {
    struct backend_view old = *v;
    v->list = NULL;
    v->count = v->room = 0;
    for (unsigned i = 0; i < v->backend->spec_count; i++) add_spec(v, i);
    clear_candidates(&old);
    if (v->next >= v->count) v->next = 0;
}

static void tell_waiters(struct backend_view *v) {
    struct list waiting;
    list_init(&waiting);
    list_splice(&waiting, &v->waiters);
    for (struct list *node; (node = list_pop(&waiting));) {
        struct backend_waiter *w = container_of(node, struct backend_waiter, node);
        w->on_resolved(w);
    }
}

static void name_on_answer(struct question *q) {
    struct name_answer *name = q->with;
    struct backend_view *v = name->view;
    name->question = NULL;
    name->expires = loop_now(v->loop) + q->ttl;
    if (q->why == FAIL_NONE) {
        name->count = q->count < NAME_ADDRESSES ? q->count : NAME_ADDRESSES;
        memcpy(name->addrs, q->addrs, name->count * sizeof *q->addrs);
        rebuild_view(v);
    } else if (name->count == 0) {
        v->why = q->why;
    }
    if (!name->answered) v->unresolved--;
    name->answered = true;
    tell_waiters(v);
}

static void ask_name(struct name_answer *name) {
    name->question = question_create(slice_of(host_of(name->view->backend, name->spec)), name->asker, name_on_answer);
    name->question->with = name;
    resolver_ask(name->view->backend->resolver, name->question);
}

static void refresh_names(struct backend_view *v) {
    double now = loop_now(v->loop);
    for (unsigned i = 0; i < v->backend->spec_count; i++) {
        struct name_answer *name = &v->names[i];
        if (name->spec && !name->question && now >= name->expires) ask_name(name);
    }
}

static bool has_names(const struct backend *b) {
    for (unsigned i = 0; i < b->spec_count; i++) {
        if (host_of(b, &b->specs[i])) return true;
    }
    return false;
}

void backend_view_open(struct backend *b, struct loop *loop, struct mailbox *mailbox) {
    struct backend_view *v = &b->views[loop->index];
    v->loop = loop;
    v->mailbox = mailbox;
    v->why = FAIL_NO_SERVER;
    v->next = (unsigned)loop->index; /* workers do not all begin with the same server */
    if (has_names(b)) {
        v->names = must_calloc(b->spec_count, sizeof *v->names);
        for (unsigned i = 0; i < b->spec_count; i++) {
            if (!host_of(b, &b->specs[i])) continue;
            v->names[i] = (struct name_answer){ .view = v, .spec = &b->specs[i], .asker = mailbox };
            v->unresolved++;
        }
        refresh_names(v);
    }
    rebuild_view(v);
}

void backend_view_close(struct backend *b, struct loop *loop) {
    struct backend_view *v = &b->views[loop->index];
    if (!v->loop) return;
    for (unsigned i = 0; v->names && i < b->spec_count; i++) {
        if (v->names[i].question) question_withdraw(v->names[i].question);
    }
    free(v->names);
    v->names = NULL;
    clear_candidates(v);
    v->loop = NULL;
}

void backend_await(struct backend *b, struct loop *loop, struct backend_waiter *w) {
    list_push(&b->views[loop->index].waiters, &w->node);
}

void backend_waiter_forget(struct backend_waiter *w) { list_remove(&w->node); }

/* ---- choosing */

static bool was_tried(const struct choice *choice, const struct server *s) {
    for (unsigned i = 0; i < choice->tried_count; i++) {
        if (choice->tried[i] == s) return true;
    }
    return false;
}

/* A name stands for all addresses it resolves to; an address of these, for one of them. */
static bool is_called(const struct candidate *c, struct slice name) {
    return slice_equal(name, slice_of(c->spec->name)) || slice_equal(name, slice_of(c->server->name));
}

static bool will_do(const struct choice *choice, const struct candidate *c) {
    return !(choice->only.p && !is_called(c, choice->only)) && !was_tried(choice, c->server);
}

static bool is_full(const struct backend_view *v, const struct server *s) {
    unsigned most = v->backend->settings.max_connections;
    return most && atomic_load_explicit(&s->active, memory_order_relaxed) >= (int)most;
}

static bool is_eligible(const struct backend_view *v, const struct choice *choice, const struct candidate *c,
                        bool well) {
    return will_do(choice, c) && !is_full(v, c->server) && (!well || server_well(c->server));
}

/* Smooth weighted round robin: each choice gives every candidate its weight in credit and takes the sum from the
 * chosen, so that the heavy ones do not come in bursts. */
static struct candidate *choose_round_robin(struct backend_view *v, const struct choice *choice, bool well) {
    struct candidate *best = NULL;
    int total = 0;
    for (unsigned i = 0; i < v->count; i++) {
        struct candidate *c = &v->list[(v->next + i) % v->count];
        if (!is_eligible(v, choice, c, well)) continue;
        c->credit += (int)c->weight;
        total += (int)c->weight;
        if (!best || c->credit > best->credit) best = c;
    }
    if (best) best->credit -= total;
    return best;
}

/* The least active requests per weight; ties go round. */
static struct candidate *choose_least_conn(struct backend_view *v, const struct choice *choice, bool well) {
    struct candidate *best = NULL;
    double least = 0;
    unsigned start = v->next++ % v->count;
    for (unsigned i = 0; i < v->count; i++) {
        struct candidate *c = &v->list[(start + i) % v->count];
        if (!is_eligible(v, choice, c, well)) continue;
        double load = (double)atomic_load_explicit(&c->server->active, memory_order_relaxed) / c->weight;
        if (best && load >= least) continue;
        best = c;
        least = load;
    }
    return best;
}

static struct candidate *choose(struct backend_view *v, const struct choice *choice, bool well) {
    if (v->backend->settings.balance == BALANCE_LEAST_CONN) return choose_least_conn(v, choice, well);
    return choose_round_robin(v, choice, well);
}

/* If none is well, those that rest are asked all the same: better a late answer than none. */
static struct candidate *choose_any(struct backend_view *v, const struct choice *choice) {
    struct candidate *c = choose(v, choice, true);
    return c ? c : choose(v, choice, false);
}

static enum failure why_none(const struct backend_view *v, const struct choice *choice) {
    for (unsigned i = 0; i < v->count; i++)
        if (will_do(choice, &v->list[i])) return FAIL_BUSY;
    return FAIL_NO_SERVER;
}

struct server *backend_choose(struct backend *b, struct loop *loop, const struct choice *choice,
                              const struct server_spec **spec, enum failure *why) {
    struct backend_view *v = &b->views[loop->index];
    if (v->names) refresh_names(v);
    if (v->count == 0) {
        *why = v->unresolved ? FAIL_NONE : v->why;
        return NULL;
    }
    struct candidate *c;
    do c = choose_any(v, choice);
    while (c && !server_enter(c->server, b->settings.max_connections)); /* another worker took its last place */
    *why = c ? FAIL_NONE : why_none(v, choice);
    if (!c) return NULL;
    *spec = c->spec;
    return server_ref(c->server);
}

const struct server_spec *backend_spec(const struct backend *b, const struct loop *loop, const struct server *s) {
    const struct backend_view *v = &b->views[loop->index];
    for (unsigned i = 0; i < v->count; i++)
        if (v->list[i].server == s) return v->list[i].spec;
    return NULL;
}

struct slice backend_tls_name(const struct backend *b, const struct server_spec *spec, const struct server *server,
                              char *text) {
    if (b->settings.tls_name) return slice_of(b->settings.tls_name);
    if (spec && spec->host) return slice_of(spec->host);
    const struct addr *addr = spec && server->tunnel ? &spec->addr : &server->addr;
    return addr->u.sa.sa_family == AF_UNIX ? SLICE("") : addr_ip_text(addr, text);
}

bool backend_has_server(const struct backend *b, const struct loop *loop, struct slice name) {
    for (unsigned i = 0; i < b->spec_count; i++) {
        if (slice_equal(name, slice_of(b->specs[i].name))) return true;
    }
    const struct backend_view *v = loop ? &b->views[loop->index] : NULL;
    for (unsigned i = 0; v && i < v->count; i++) {
        if (slice_equal(name, slice_of(v->list[i].server->name))) return true;
    }
    return false;
}

/* ---- figures */

static struct metric *status_metric(struct backend *b, int class) {
    struct metric *m = atomic_load_explicit(&b->statuses[class], memory_order_acquire);
    if (m) return m;
    static const char *const words[6] = { "failed", "1xx", "2xx", "3xx", "4xx", "5xx" };
    char labels[512];
    struct label list[] = { { "backend", slice_of(b->name) }, { "status", slice_of(words[class]) } };
    m = metric_get(METRIC_COUNTER, "moongate_backend_requests_total", "Requests sent to a backend, by class of status",
                   metric_labels(labels, sizeof labels, list, 2));
    atomic_store_explicit(&b->statuses[class], m, memory_order_release);
    return m;
}

/* The backend's metric of that name, made on first use and kept in `place`. */
static struct metric *get_metric(const struct backend *b, struct metric *_Atomic *place, enum metric_kind kind,
                                 const char *name, const char *help) {
    struct metric *m = atomic_load_explicit(place, memory_order_acquire);
    if (m) return m;
    char labels[512];
    struct label list[] = { { "backend", slice_of(b->name) } };
    m = metric_get(kind, name, help, metric_labels(labels, sizeof labels, list, 1));
    atomic_store_explicit(place, m, memory_order_release);
    return m;
}

static struct metric *latency_metric(struct backend *b) {
    return get_metric(b, &b->latency, METRIC_HISTOGRAM, "moongate_backend_seconds",
                      "Seconds from sending a request until the response head");
}

void backend_count(struct backend *b, int worker, int status, double seconds) {
    if (b->ad_hoc) return; /* their names are chosen by URLs: labels must not grow with them */
    int class = status >= 100 && status < 600 ? status / 100 : 0;
    metric_add(status_metric(b, class), worker, 1);
    if (status) metric_observe(latency_metric(b), worker, seconds);
}

/* ---- the queue */

static struct metric *waiting_metric(struct backend *b) {
    return get_metric(b, &b->waiting, METRIC_GAUGE, "moongate_backend_waiting",
                      "Requests that wait for a place at a server of a backend");
}

static struct metric *waited_metric(struct backend *b) {
    return get_metric(b, &b->waited, METRIC_HISTOGRAM, "moongate_backend_queue_seconds",
                      "Seconds that requests have waited for a place at a server, in vain or not");
}

struct queue_wait *backend_queue(struct backend *b, struct loop *loop, const struct choice *choice, double seconds,
                                 void (*on_news)(void *with), void *with) {
    struct backend_view *v = &b->views[loop->index];
    if (!b->queue) return NULL;
    struct server **servers = must_malloc(v->count * sizeof(struct server *));
    struct queue_wish wish = { .loop = loop,
                               .mailbox = v->mailbox,
                               .longest = b->settings.queue,
                               .timeout = seconds,
                               .servers = servers,
                               .on_news = on_news,
                               .with = with };
    for (unsigned i = 0; i < v->count; i++)
        if (will_do(choice, &v->list[i])) servers[wish.count++] = v->list[i].server;
    struct queue_wait *w = queue_join(b->queue, &wish);
    free(servers);
    if (w) metric_add(waiting_metric(b), loop->index, 1);
    return w;
}

struct server *backend_leave_queue(struct backend *b, struct loop *loop, struct queue_wait *w) {
    metric_add(waiting_metric(b), loop->index, -1);
    metric_observe(waited_metric(b), loop->index, loop_now(loop) - queue_since(w));
    return queue_leave(w);
}
