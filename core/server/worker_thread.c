/* The threads of the workers. Signals are no matter here: the serving process ignores those that the supervisor acts
 * on, and what core/lua needs for its budget it arranges itself.
 *
 * max_connections is shared out evenly, so that no worker asks another one: with a limit of 1000 and four workers each
 * takes 250. A full worker stops accepting; its clients wait in the queues of its sockets. */
#include "server/worker_thread.h"

#include "base/log.h"
#include "base/must.h"
#include "net/tls.h"
#include "proxy/client.h"
#include "server/instance.h"
#include "server/listeners.h"
#include "server/reload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LEAVE_MOST = 65536, SWEPT = 2000 };
static const double LOOK_EVERY = 1, SWEEP_EVERY = 1;

/* ---- ears */

static void pause_ears(struct worker_thread *t, bool full) {
    if (t->full == full) return;
    t->full = full;
    list_each(node, &t->worker.ears) ear_pause(container_of(node, struct ear, node), full);
}

static bool is_full(const struct worker_thread *t) {
    return t->clients_most && t->worker.client_count >= t->clients_most;
}

static void ear_on_client(struct ear *ear, int fd, const struct addr *from) {
    struct worker_thread *t = container_of(worker_of(ear->loop), struct worker_thread, worker);
    client_accept(ear, fd, from);
    if (is_full(t)) pause_ears(t, true);
}

static void open_ear(struct worker_thread *t, struct listener *l) {
    struct ear *ear = must_calloc(1, sizeof *ear);
    ear_open(ear, &t->worker.loop, l, t->worker.count, ear_on_client);
    list_push(&t->worker.ears, &ear->node);
    if (t->full) ear_pause(ear, true);
}

/* Who connected before the listener left has been promised an answer by the kernel. */
static void accept_rest(struct ear *ear) {
    struct addr from;
    unsigned taken = 0;
    for (unsigned i = 0; i < ear->io_count; i++) {
        for (; taken < LEAVE_MOST; taken++) {
            from.size = sizeof from.u;
            int fd = accept4(ear->ios[i].fd, &from.u.sa, &from.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd < 0 && (errno == ECONNABORTED || errno == EINTR)) continue;
            if (fd < 0) break;
            client_accept(ear, fd, &from);
        }
    }
}

/* No site is behind that address any more: idle clients had better know before their next request is answered 421. */
static void dismiss_idle_clients(struct worker *w, const struct listener *l) {
    list_each_safe(node, &w->clients) {
        struct client *c = container_of(node, struct client, node);
        if (c->listener == l) client_drain(c);
    }
}

static void leave_ear(struct worker *w, struct ear *ear) {
    accept_rest(ear);
    ear_close(ear);
    if (ear->listener->leaving) listener_close(ear->listener, w->index, w->count);
    free(ear);
}

static bool has_listener(struct listener *const *list, unsigned count, const struct listener *l) {
    for (unsigned i = 0; i < count; i++)
        if (list[i] == l) return true;
    return false;
}

static bool has_ear(const struct worker *w, const struct listener *l) {
    list_each(node, &w->ears) if (container_of(node, struct ear, node)->listener == l) return true;
    return false;
}

void ears_leave_others(struct worker_thread *t, struct listener *const *list, unsigned count) {
    list_each_safe(node, &t->worker.ears) {
        struct ear *ear = container_of(node, struct ear, node);
        if (has_listener(list, count, ear->listener)) continue;
        dismiss_idle_clients(&t->worker, ear->listener);
        leave_ear(&t->worker, ear);
    }
}

void ears_add(struct worker_thread *t, struct listener *const *list, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        if (!has_ear(&t->worker, list[i])) open_ear(t, list[i]);
}

void ears_leave(struct worker_thread *t) {
    list_each_safe(node, &t->worker.ears) leave_ear(&t->worker, container_of(node, struct ear, node));
}

void clients_limit(struct worker_thread *t, unsigned max_connections) {
    unsigned count = t->worker.count;
    t->clients_most = (max_connections + count - 1) / count;
    pause_ears(t, is_full(t));
}

/* ---- the thread */

static void look_at_figures(struct worker_thread *t) {
    const struct generation *g = t->worker.generation;
    double now = loop_now(&t->worker.loop);
    if (now - t->figures_at < LOOK_EVERY) return;
    t->figures_at = now;
    struct state_figures f = { 0 };
    if (g && g->states && g->states[t->worker.index]) f = state_figures(g->states[t->worker.index]);
    atomic_store_explicit(&t->lua_bytes, f.bytes, memory_order_relaxed);
    atomic_store_explicit(&t->lua_runs, f.runs, memory_order_relaxed);
    atomic_store_explicit(&t->lua_waiting, f.waiting, memory_order_relaxed);
}

struct renew_letter {
    struct letter letter;
    struct instance *instance;
};

static void renew_on_arrival(struct letter *letter, struct loop *loop) {
    struct renew_letter *l = container_of(letter, struct renew_letter, letter);
    reload_renew(l->instance);
    free(l);
}

/* Policy that holds on to more memory than it may would fail every hook from now on. Once for each generation: if the
 * new one is as greedy, it is told in its own turn. */
static void look_at_memory(struct worker_thread *t) {
    const struct generation *g = t->worker.generation;
    if (!g || !g->states || !g->states[t->worker.index] || t->renewing == g->number) return;
    if (!state_over_limit(g->states[t->worker.index])) return;
    struct renew_letter *l = must_calloc(1, sizeof *l);
    l->letter.deliver = renew_on_arrival;
    l->instance = t->instance;
    t->renewing = g->number;
    log_warn("generation %u holds more memory than its limit after a full collection: its config is run anew",
             g->number);
    if (!mailbox_post(&t->instance->mailbox, &l->letter)) free(l);
}

static void worker_after_turn(struct turn_hook *hook) {
    struct worker_thread *t = container_of(hook, struct worker_thread, after_turn);
    if (t->full && !is_full(t)) pause_ears(t, false);
    look_at_figures(t);
    look_at_memory(t);
}

/* What purges left (store/cache.h): a little every second, so that a look-up is never behind a long walk. */
static void worker_on_sweep(struct deadline *d) {
    for (struct cache *c = cache_next(NULL); c; c = cache_next(c)) cache_sweep(c, SWEPT);
    deadline_set(d, SWEEP_EVERY);
}

static void *run_worker(void *arg) {
    struct worker_thread *t = arg;
    log_thread((int)t->worker.index);
    deadline_init(&t->sweep, &t->worker.loop, worker_on_sweep);
    if (t->worker.index == 0) deadline_set(&t->sweep, SWEEP_EVERY);
    loop_run(&t->worker.loop);
    deadline_fini(&t->sweep);
    tls_thread_fini(&t->worker.loop);
    arena_thread_fini();
    buffer_thread_fini();
    return NULL;
}

void worker_threads_start(struct instance *instance, unsigned count) {
    instance->threads = must_calloc(count, sizeof *instance->threads);
    instance->worker_count = count;
    for (unsigned i = 0; i < count; i++) {
        struct worker_thread *t = &instance->threads[i];
        t->instance = instance;
        worker_init(&t->worker, i, count);
        t->worker.helpers = instance->helpers;
        t->after_turn.run = worker_after_turn;
        turn_hook_add(&t->worker.loop, &t->after_turn);
    }
    instance->resolver = resolver_create(&instance->threads[0].worker.mailbox, getenv("MOONGATE_NAMESERVER"));
    for (unsigned i = 0; i < count; i++) {
        struct worker_thread *t = &instance->threads[i];
        t->worker.resolver = instance->resolver;
        must(pthread_create(&t->thread, NULL, run_worker, t) == 0);
    }
}

void worker_threads_join(struct instance *instance) {
    for (unsigned i = 0; i < instance->worker_count; i++) pthread_join(instance->threads[i].thread, NULL);
}

void worker_threads_free(struct instance *instance) {
    if (!instance->threads) return;
    resolver_destroy(instance->resolver);
    instance->resolver = NULL;
    for (unsigned i = 0; i < instance->worker_count; i++) {
        turn_hook_remove(&instance->threads[i].after_turn);
        worker_fini(&instance->threads[i].worker);
    }
    free(instance->threads);
    instance->threads = NULL;
}
