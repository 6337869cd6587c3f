/* Ad hoc backends: made from a URL that a script fetches, so that it has pools and a name kept fresh like any other.
 * Each worker has its own; one that nobody has used for a minute is closed, or a script that fetches from ever new
 * hosts would grow the process. */
#include "base/must.h"
#include "net/tls.h"
#include "proxy/fetch.h"

#include <stdio.h>
#include <stdlib.h>

enum { UNUSED_SECONDS = 60, KEY_SIZE = 640 };

struct ad_hoc {
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
    deadline_fini(&a->unused);
    backend_view_close(a->backend, &a->worker->loop);
    loop_bury(&a->worker->loop, &a->grave);
}

static void on_unused(struct deadline *d) {
    struct ad_hoc *a = container_of(d, struct ad_hoc, unused);
    if (a->backend->users > 0) deadline_set(d, UNUSED_SECONDS);
    else ad_hoc_end(a);
}

static struct server_spec *make_spec(const struct target *url, uint16_t port) {
    struct server_spec *spec = must_calloc(1, sizeof *spec);
    struct slice host = url->host;
    if (host.n > 2 && host.p[0] == '[') host = slice_make(host.p + 1, host.n - 2);
    spec->name = must_strndup(url->host.p, url->host.n);
    spec->weight = 1;
    spec->port = port;
    if (!addr_from_ip(&spec->addr, host, port)) spec->host = must_strndup(host.p, host.n);
    return spec;
}

static struct ad_hoc *ad_hoc_create(struct worker *w, struct backend *backend, const char *key) {
    struct ad_hoc *a = must_calloc(1, sizeof *a);
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

static struct backend *make_backend(const struct worker *w, const struct target *url, uint16_t port,
                                    struct tls_trust *trust, struct slice name, const char *key) {
    struct backend_settings settings = {
        .keepalive = 16, .keepalive_idle = 30, .tries = 2, .retry_on = 1u << RETRY_CONNECT
    };
    if (is_https(url)) {
        settings.trust = trust ? tls_trust_ref(trust) : tls_trust_get(&(struct tls_trust_settings){ 0 }, NULL, 0);
        must(settings.trust != NULL); /* with nothing set, there is nothing wrong */
    }
    if (name.p) settings.tls_name = must_strndup(name.p, name.n);
    return backend_create(slice_of(key), make_spec(url, port), 1, &settings, w->count, w->resolver);
}

/* Connections of different trust must not mix, so neither do backends. Its digest stands for it. */
static bool write_key(char key[KEY_SIZE], const struct target *url, uint16_t port, const struct tls_trust *trust,
                      struct slice name) {
    int n = snprintf(key, KEY_SIZE, "%.*s://%.*s:%u", FMT(url->scheme), FMT(url->host), port);
    if (name.p && n < KEY_SIZE) n += snprintf(key + n, (size_t)(KEY_SIZE - n), " as %.*s", FMT(name));
    struct slice digest = trust ? tls_trust_digest(trust) : slice_make(NULL, 0);
    if (digest.n && n < KEY_SIZE) n += snprintf(key + n, (size_t)(KEY_SIZE - n), " by ");
    for (size_t i = 0; i < digest.n && n < KEY_SIZE; i++)
        n += snprintf(key + n, (size_t)(KEY_SIZE - n), "%02x", (unsigned char)digest.p[i]);
    return n < KEY_SIZE;
}

struct backend *ad_hoc_backend(struct worker *w, const struct target *url, struct tls_trust *trust, struct slice name) {
    char key[KEY_SIZE];
    uint16_t port = url->port ? url->port : is_https(url) ? 443 : 80;
    if (!write_key(key, url, port, trust, name)) return NULL;
    struct ad_hoc *a = map_get(&w->ad_hoc, slice_of(key));
    if (!a) a = ad_hoc_create(w, make_backend(w, url, port, trust, name, key), key);
    deadline_set(&a->unused, UNUSED_SECONDS);
    return a->backend;
}

void ad_hoc_give_back(struct backend *backend) {
    if (--backend->users == 0 && backend->orphan) backend_destroy(backend);
}

void ad_hoc_close_all(struct worker *w) {
    struct slice key;
    void *a;
    for (size_t i = 0; map_next(&w->ad_hoc, &i, &key, &a); i = 0) ad_hoc_end(a);
    map_fini(&w->ad_hoc);
}
