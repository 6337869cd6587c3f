/* Ad hoc backends: made from a URL that a script fetches or a target that a client names, so that it has pools and a
 * name kept fresh like any other. Each worker has its own; one that nobody has used for a minute is closed, and there
 * are no more than AD_HOC_MOST, or who asks for ever new hosts would grow the process: the one that was used least
 * recently makes room. */
#include "base/must.h"
#include "net/tls.h"
#include "proxy/fetch.h"

#include <stdio.h>
#include <stdlib.h>

enum { UNUSED_SECONDS = 60, KEY_SIZE = 1024 };

#ifdef MOONGATE_HARD
enum { AD_HOC_MOST = 16 };
#else
enum { AD_HOC_MOST = 2048 };
#endif

struct ad_hoc {
    struct list node; /* in worker->ad_hoc_recent */
    struct deadline unused;
    struct grave grave;
    struct backend *backend;
    struct worker *worker;
    char key[KEY_SIZE];
};

static void ad_hoc_bury(struct grave *g) {
    struct ad_hoc *a = container_of(g, struct ad_hoc, grave);
    if (a->backend->users > 0) a->backend->orphan = true; /* at the end of a worker: ad_hoc_give_back sees to it */
    else backend_destroy(a->backend);
    free(a);
}

static void ad_hoc_end(struct ad_hoc *a) {
    map_remove(&a->worker->ad_hoc, slice_of(a->key));
    list_remove(&a->node);
    deadline_fini(&a->unused);
    backend_view_close(a->backend, &a->worker->loop);
    loop_bury(&a->worker->loop, &a->grave);
}

static void on_unused(struct deadline *d) {
    struct ad_hoc *a = container_of(d, struct ad_hoc, unused);
    if (a->backend->users > 0) deadline_set(d, UNUSED_SECONDS);
    else ad_hoc_end(a);
}

static struct server_spec *make_spec(const struct ad_hoc_way *way, uint16_t port) {
    struct server_spec *spec = must_calloc(1, sizeof *spec);
    const struct target *url = way->url;
    struct slice host = url->host;
    if (host.n > 2 && host.p[0] == '[') host = slice_make(host.p + 1, host.n - 2);
    spec->name = must_strndup(url->host.p, url->host.n);
    spec->weight = 1;
    spec->port = port;
    if (way->at) spec->addr = *way->at;
    else if (!addr_from_ip(&spec->addr, host, port)) spec->host = must_strndup(host.p, host.n);
    return spec;
}

static struct ad_hoc *ad_hoc_create(struct worker *w, struct backend *backend, const char *key) {
    struct ad_hoc *a = must_calloc(1, sizeof *a);
    list_init(&a->node);
    a->worker = w;
    snprintf(a->key, sizeof a->key, "%s", key);
    grave_init(&a->grave, ad_hoc_bury);
    deadline_init(&a->unused, &w->loop, on_unused);
    a->backend = backend;
    a->backend->ad_hoc = true;
    backend_view_open(a->backend, &w->loop, &w->mailbox);
    map_set(&w->ad_hoc, slice_of(a->key), a);
    return a;
}

static bool is_https(const struct target *url) { return slice_equal(url->scheme, SLICE("https")); }

static struct backend *make_backend(const struct worker *w, const struct ad_hoc_way *way, uint16_t port,
                                    const char *name) {
    struct backend_settings settings = { .keepalive = 16,
                                         .keepalive_idle = 30,
                                         .tries = 2,
                                         .retry_on = 1u << RETRY_CONNECT,
                                         .proxy_protocol = way->proxy_protocol,
                                         .parent = parent_ref(way->parent) };
    if (is_https(way->url)) {
        settings.trust =
            way->trust ? tls_trust_ref(way->trust) : tls_trust_get(&(struct tls_trust_settings){ 0 }, NULL, 0);
        must(settings.trust != NULL); /* with nothing set, there is nothing wrong */
    }
    if (way->name.p) settings.tls_name = must_strndup(way->name.p, way->name.n);
    return backend_create(slice_of(name), make_spec(way, port), 1, &settings, w->count, w->resolver);
}

/* A text that may turn out too long for its room. */
struct text {
    char *at;
    size_t n;
};

static void add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (t->n < KEY_SIZE) t->n += (size_t)vsnprintf(t->at + t->n, KEY_SIZE - t->n, format, args);
    va_end(args);
}

/* Connections of different trust must not mix, so neither do backends. Its digest stands for it, a parent's address for
 * the parent; they are no part of the name. False: it is too long. */
/* NOLINTNEXTLINE(readability-non-const-parameter): it is written through `t` */
static bool write_key(char key[KEY_SIZE], const struct ad_hoc_way *way, uint16_t port, size_t *name_size) {
    struct text t = { .at = key };
    char at[ADDR_TEXT];
    add(&t, "%.*s://%.*s:%u", FMT(way->url->scheme), FMT(way->url->host), port);
    if (way->name.p) add(&t, " as %.*s", FMT(way->name));
    if (way->at) add(&t, " at %.*s", FMT(addr_text(way->at, at)));
    if (way->proxy_protocol) add(&t, " behind PROXY %u", way->proxy_protocol);
    if (way->parent) add(&t, " through %s", way->parent->name);
    *name_size = t.n;
    struct slice digest = way->trust ? tls_trust_digest(way->trust) : slice_make(NULL, 0);
    if (digest.n) add(&t, " by ");
    for (size_t i = 0; i < digest.n; i++) add(&t, "%02x", (unsigned char)digest.p[i]);
    if (way->parent) add(&t, " %p", (void *)way->parent);
    return t.n < KEY_SIZE;
}

/* Few are in use at a time, so the first one that is not is near. */
static bool make_room(struct worker *w) {
    if (w->ad_hoc.count < AD_HOC_MOST) return true;
    list_each_safe(node, &w->ad_hoc_recent) {
        struct ad_hoc *a = container_of(node, struct ad_hoc, node);
        if (a->backend->users > 0) continue;
        ad_hoc_end(a);
        return true;
    }
    return false;
}

static struct ad_hoc *make(struct worker *w, const struct ad_hoc_way *way, uint16_t port, const char *key,
                           size_t name_size) {
    if (!make_room(w)) return NULL;
    char *name = must_strndup(key, name_size);
    struct ad_hoc *a = ad_hoc_create(w, make_backend(w, way, port, name), key);
    free(name);
    return a;
}

struct backend *ad_hoc_backend(struct worker *w, const struct ad_hoc_way *way, enum failure *why) {
    char key[KEY_SIZE];
    size_t name_size;
    uint16_t port = way->url->port ? way->url->port : is_https(way->url) ? 443 : 80;
    *why = FAIL_TOO_LARGE;
    if (!write_key(key, way, port, &name_size)) return NULL;
    struct ad_hoc *a = map_get(&w->ad_hoc, slice_of(key));
    if (!a) a = make(w, way, port, key, name_size);
    *why = a ? FAIL_NONE : FAIL_OVERLOADED;
    if (!a) return NULL;
    list_remove(&a->node);
    list_push(&w->ad_hoc_recent, &a->node);
    deadline_set(&a->unused, UNUSED_SECONDS);
    return a->backend;
}

void ad_hoc_take(struct backend *backend) { backend->users++; }

void ad_hoc_give_back(struct backend *backend) {
    if (--backend->users == 0 && backend->orphan) backend_destroy(backend);
}

void ad_hoc_close_all(struct worker *w) {
    struct slice key;
    void *a;
    for (size_t i = 0; map_next(&w->ad_hoc, &i, &key, &a); i = 0) ad_hoc_end(a);
    map_fini(&w->ad_hoc);
}
