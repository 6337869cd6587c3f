/* A fetch on an ad hoc backend whose name is the URL's and whose address is our listener's. Its certificate is not
 * verified: who else would be there? A listener that wants a PROXY header gets one that names nobody. */
#include "server/visit.h"

#include "base/must.h"
#include "http/uri.h"
#include "net/tls.h"
#include "proxy/fetch.h"
#include "server/instance.h"
#include "server/worker_thread.h"

#include <stdlib.h>

static const double VISIT_SECONDS = 300;

struct visit {
    struct list node; /* in instance->visits */
    struct task task;
    struct grave grave;
    struct worker *worker;
    struct arena arena;
    struct request request;
    struct fetch *fetch;
    struct fetch_waiter waiter;
    struct pipe_reader reader;
    struct timeouts timeouts;
    struct visit_answer answer;
    bool reads, whole, over;
    enum failure failed;
    void (*answered)(void *with, const struct visit_answer *);
    void *with;
};

/* ---- its end */

static void visit_bury(struct grave *g) {
    struct visit *v = container_of(g, struct visit, grave);
    arena_fini(&v->arena);
    free(v);
}

static void end(struct visit *v) {
    if (v->over) return;
    v->over = true;
    pipe_remove_reader(&v->reader);
    fetch_waiter_forget(&v->waiter);
    fetch_close(v->fetch);
    task_forget(&v->task);
    list_remove(&v->node);
    loop_bury(&v->worker->loop, &v->grave);
}

static void tell(struct visit *v, const char *error) {
    v->answer.error = error;
    v->answered(v->with, &v->answer);
    end(v);
}

void visit_cancel(struct visit *v) { end(v); }

void visits_end(struct instance *instance) {
    list_each_safe(node, &instance->visits) tell(container_of(node, struct visit, node), "the proxy stops");
}

/* ---- the body: counted, and dropped */

static struct visit *of_reader(struct pipe_reader *r) { return container_of(r, struct visit, reader); }

static size_t visit_room(struct pipe_reader *r) { return SIZE_MAX; }

static void visit_take(struct pipe_reader *r, struct buffer *bytes) {
    of_reader(r)->answer.bytes += bytes->size;
    buffer_fini(bytes);
}

static void visit_on_end(struct pipe_reader *r, const struct headers *trailers) {
    struct visit *v = of_reader(r);
    v->whole = true;
    task_wake(&v->worker->loop, &v->task);
}

static void visit_on_failure(struct pipe_reader *r, enum failure why) {
    struct visit *v = of_reader(r);
    v->failed = why;
    task_wake(&v->worker->loop, &v->task);
}

static const struct pipe_reader_ops reader_ops = { visit_room, visit_take, visit_on_end, visit_on_failure };

static void take_head(struct visit *v) {
    const struct response *r = &v->fetch->response;
    v->answer.status = r->status;
    v->answer.cache_status = headers_joined(&r->headers, SLICE("Cache-Status"));
    v->reads = true;
    v->reader.ops = &reader_ops;
    pipe_add_reader(&v->fetch->body, &v->reader);
}

static void visit_advance(struct task *t) {
    struct visit *v = container_of(t, struct visit, task);
    if (v->over || v->fetch->state == FETCH_TRYING) return;
    if (v->fetch->state != FETCH_HEAD) {
        tell(v, failure_sentence(v->fetch->why));
        return;
    }
    if (!v->reads) take_head(v);
    if (v->whole) tell(v, NULL);
    else if (v->failed) tell(v, failure_sentence(v->failed));
}

/* ---- where it goes */

static uint16_t port_of(const struct target *url) {
    if (url->port) return url->port;
    return slice_equal(url->scheme, SLICE("https")) ? 443 : 80;
}

static bool serves(const struct host_table *table, const struct visit_request *r, const struct target *url) {
    bool https = slice_equal(url->scheme, SLICE("https"));
    const struct site *site = table ? host_table_find(table, url->host) : NULL;
    if (!site || (table->tls != NULL) != https) return false;
    return r->site.n == 0 || slice_equal(r->site, slice_of(site->name));
}

static struct listener *find_listener(const struct worker *w, const struct visit_request *r, const struct target *url) {
    struct listener *found = NULL;
    list_each(node, &w->ears) {
        struct listener *l = container_of(node, struct ear, node)->listener;
        if (!serves(generation_table(w->generation, l), r, url)) continue;
        if (!found || addr_port(&l->addr) == port_of(url)) found = l;
    }
    return found;
}

/* One that listens on all addresses is asked on the loopback one. */
static struct addr address_of(const struct listener *l) {
    struct addr at = l->addr;
    bool any = at.u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&at.u.in6.sin6_addr);
    any |= at.u.sa.sa_family == AF_INET && at.u.in.sin_addr.s_addr == INADDR_ANY;
    if (any) addr_from_ip(&at, SLICE("127.0.0.1"), addr_port(&l->addr));
    return at;
}

/* ---- its beginning */

static bool add_line(struct visit *v, struct slice line) {
    struct slice value = line, name = slice_cut(&value, ':');
    struct headers *h = &v->request.headers;
    if (!value.p || !header_name_valid(name)) return false;
    name = arena_copy(&v->arena, name);
    value = arena_copy(&v->arena, slice_trim(value));
    enum header_id id = header_id_of(name);
    if (!header_value_valid(value) || header_is_core(id)) return false;
    if (id == HEADER_HOST || id == HEADER_USER_AGENT) headers_set(h, name, value);
    else headers_add(h, name, value);
    return true;
}

static bool make_request(struct visit *v, const struct visit_request *from) {
    struct request *r = &v->request;
    headers_init(&r->headers, &v->arena);
    headers_init(&r->trailers, &v->arena);
    r->method = METHOD_GET;
    r->method_name = SLICE("GET");
    r->version = HTTP_1_1;
    headers_add_id(&r->headers, HEADER_HOST, authority_write(&v->arena, &r->target));
    headers_add_id(&r->headers, HEADER_USER_AGENT, SLICE("moongate-cache"));
    for (unsigned i = 0; i < from->line_count; i++)
        if (!add_line(v, from->lines[i])) return false;
    return true;
}

static struct backend *find_backend(struct visit *v, const struct listener *l) {
    enum failure why;
    const struct target *url = &v->request.target;
    struct addr at = address_of(l);
    struct ad_hoc_way way = { .url = url,
                              .at = &at,
                              .proxy_protocol = generation_table(v->worker->generation, l)->proxy_protocol ? 1 : 0 };
    if (slice_equal(url->scheme, SLICE("https"))) {
        way.trust = tls_trust_get(&(struct tls_trust_settings){ .unverified = true }, NULL, 0);
        way.name = url->host;
    }
    struct backend *backend = ad_hoc_backend(v->worker, &way, &why);
    tls_trust_unref(way.trust);
    return backend;
}

static void start(struct visit *v, struct backend *backend) {
    v->timeouts = (struct timeouts){ .connect = 5, .first_byte = VISIT_SECONDS, .between = VISIT_SECONDS };
    struct fetch_options options = {
        .worker = v->worker,
        .backend = backend,
        .request = &v->request,
        .target = target_write(&v->arena, &v->request.target),
        .timeouts = &v->timeouts,
        .total = VISIT_SECONDS,
    };
    v->fetch = fetch_create(&options);
    v->waiter.task = &v->task;
    fetch_await(v->fetch, &v->waiter);
    fetch_start(v->fetch);
}

static const char *prepare(struct visit *v, const struct visit_request *r, struct backend **backend) {
    if (!url_parse(&v->arena, arena_copy(&v->arena, r->url), &v->request.target))
        return "not an http:// or https:// URL";
    const struct listener *l = find_listener(v->worker, r, &v->request.target);
    if (!l) return "no listener that can be asked serves this URL";
    if (!make_request(v, r)) return "not a field of a request: 'Name: value'";
    *backend = find_backend(v, l);
    return *backend ? NULL : "too much is under way";
}

struct visit *visit_begin(struct instance *instance, const struct visit_request *r, const char **why) {
    struct visit *v = must_calloc(1, sizeof *v);
    struct backend *backend = NULL;
    v->worker = &instance->threads[0].worker;
    v->answered = r->answered;
    v->with = r->with;
    arena_init(&v->arena);
    task_init(&v->task, visit_advance);
    grave_init(&v->grave, visit_bury);
    list_init(&v->reader.node);
    *why = v->worker->closing || v->worker->draining ? "it is stopping" : prepare(v, r, &backend);
    if (*why) {
        arena_fini(&v->arena);
        free(v);
        return NULL;
    }
    list_push(&instance->visits, &v->node);
    start(v, backend);
    return v;
}
