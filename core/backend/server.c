/* The registry of servers and what is known of each. The registry's lock is taken when a generation is made or dies
 * and for status, never for a request; what requests touch is atomic or belongs to one worker. */
#include "backend/server.h"

#include "backend/queue.h"

#include "base/clock.h"
#include "base/map.h"
#include "base/must.h"
#include "base/refs.h"
#include "store/metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { FAILURES_UNTIL_REST = 3, REST_US = 10 * 1000 * 1000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map registry; /* "backend\0name" -> server */

enum { KEY_SIZE = 2048, NAME_SIZE = 512 };

static struct slice server_key(char to[KEY_SIZE], struct slice backend, struct slice name) {
    int n = snprintf(to, KEY_SIZE, "%.*s%c%.*s", FMT(backend), 0, FMT(name));
    return slice_make(to, n < KEY_SIZE ? (size_t)n : KEY_SIZE - 1);
}

static struct server *server_create(struct slice backend, const struct addr *addr, const char *tunnel,
                                    struct slice name, unsigned workers) {
    struct server *s = must_calloc(1, sizeof *s);
    s->refs = 1;
    s->backend = must_strndup(backend.p, backend.n);
    s->name = must_strndup(name.p, name.n);
    if (tunnel) s->tunnel = must_strdup(tunnel);
    s->addr = *addr;
    s->healthy = 1;
    s->workers = workers;
    s->pools = must_calloc(workers, sizeof *s->pools);
    for (unsigned i = 0; i < workers; i++) {
        list_init(&s->pools[i].idle);
        list_init(&s->pools[i].shared);
    }
    return s;
}

static void server_destroy(struct server *s) {
    for (unsigned i = 0; i < s->workers; i++) must(list_empty(&s->pools[i].idle) && list_empty(&s->pools[i].shared));
    queue_unref(atomic_load(&s->queue));
    free(s->pools);
    free(s->backend);
    free(s->name);
    free(s->tunnel);
    free(s);
}

struct server *server_get(struct slice backend, const struct addr *addr, const char *tunnel, unsigned workers) {
    char text[ADDR_TEXT], name_text[NAME_SIZE], key_text[KEY_SIZE];
    struct slice name = addr_text(addr, text);
    if (tunnel) {
        int n = snprintf(name_text, NAME_SIZE, "%s through %s", tunnel, text);
        name = slice_make(name_text, n < NAME_SIZE ? (size_t)n : NAME_SIZE - 1);
    }
    struct slice key = server_key(key_text, backend, name);
    pthread_mutex_lock(&lock);
    struct server *s = map_get(&registry, key);
    if (s) {
        refs_take(&s->refs);
    } else {
        s = server_create(backend, addr, tunnel, name, workers);
        map_set(&registry, key, s);
    }
    pthread_mutex_unlock(&lock);
    return s;
}

struct server *server_ref(struct server *s) {
    refs_take(&s->refs);
    return s;
}

void server_unref(struct server *s) {
    if (!s || refs_give_early(&s->refs)) return;
    pthread_mutex_lock(&lock);
    bool last = refs_give(&s->refs);
    if (last) {
        char key[KEY_SIZE];
        map_remove(&registry, server_key(key, slice_of(s->backend), slice_of(s->name)));
        if (registry.count == 0) map_fini(&registry);
    }
    pthread_mutex_unlock(&lock);
    if (last) server_destroy(s);
}

/* ---- places */

bool server_enter(struct server *s, unsigned most) {
    int active = atomic_load(&s->active); /* not relaxed: queue.c counts on it */
    do {
        if (most && active >= (int)most) return false;
    } while (!atomic_compare_exchange_weak(&s->active, &active, active + 1));
    return true;
}

void server_leave(struct server *s) {
    struct queue *q = atomic_load_explicit(&s->queue, memory_order_acquire);
    if (q) queue_give_back(q, s);
    else atomic_fetch_sub_explicit(&s->active, 1, memory_order_relaxed);
}

void server_set_queue(struct server *s, struct queue *q) {
    struct queue *none = NULL;
    if (!atomic_compare_exchange_strong(&s->queue, &none, queue_ref(q))) queue_unref(q);
}

/* ---- health */

bool server_well(const struct server *s) {
    if (!atomic_load_explicit(&s->healthy, memory_order_relaxed)) return false;
    uint64_t rest = atomic_load_explicit(&s->rest_until, memory_order_relaxed);
    return rest == 0 || clock_monotonic_us() >= rest;
}

void server_failed(struct server *s) {
    unsigned failures = atomic_fetch_add_explicit(&s->failures, 1, memory_order_relaxed) + 1;
    if (failures < FAILURES_UNTIL_REST) return;
    atomic_store_explicit(&s->rest_until, clock_monotonic_us() + REST_US, memory_order_relaxed);
}

void server_succeeded(struct server *s) {
    if (atomic_load_explicit(&s->failures, memory_order_relaxed) == 0) return;
    atomic_store_explicit(&s->failures, 0, memory_order_relaxed);
    atomic_store_explicit(&s->rest_until, 0, memory_order_relaxed);
}

void servers_each(void (*each)(void *with, const struct server *), void *with) {
    pthread_mutex_lock(&lock);
    void *server;
    struct slice key;
    for (size_t i = 0; map_next(&registry, &i, &key, &server);) each(with, server);
    pthread_mutex_unlock(&lock);
}
