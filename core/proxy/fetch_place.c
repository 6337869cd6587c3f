/* Where a fetch finds a place. The server is chosen by backend.c; addresses that somebody else chose pass the rules of
 * net/egress.h, each before it is connected to; and while all servers are busy the fetch waits in the backend's
 * queue. */
#include "proxy/fetch_place.h"

#include "base/log.h"

/* ---- chosen, and allowed */

static struct choice choice_of(const struct fetch *f) {
    return (struct choice){ f->tried, f->tried_count, f->pick.servers[f->pick_at] };
}

/* The place at it is the fetch's. */
static struct server *choose_server(struct fetch *f, struct backend *backend, enum failure *why) {
    struct loop *loop = &f->worker->loop;
    struct choice choice = choice_of(f);
    if (!f->exact) return backend_choose(backend, loop, &choice, &f->spec, why);
    *why = FAIL_NO_SERVER;
    if (f->tries > 0) return NULL;
    f->spec = backend_spec(backend, loop, f->exact);
    server_enter(f->exact, 0);
    return server_ref(f->exact);
}

static bool is_allowed(const struct fetch *f, const struct addr *addr) {
    const struct generation *g = f->picked_target ? f->generation : NULL;
    return egress_allows(f->egress, addr) && !(g && addr_is_listened(addr, g->listened, g->listened_count));
}

/* A stranger can make as many as he likes: told once a second, counted all. */
static void complain(const struct fetch *f, const struct backend *backend, const struct addr *addr) {
    static _Thread_local double complained;
    char text[ADDR_TEXT];
    worker_count_refused(f->worker);
    if (loop_now(&f->worker->loop) - complained < 1) return;
    complained = loop_now(&f->worker->loop);
    log_warn("%s: connections to %.*s are not allowed", backend->name, FMT(addr_ip_text(addr, text)));
}

/* One whose address passes the rules; those that do not count as tried. */
static struct server *choose_allowed(struct fetch *f, struct backend *backend, enum failure *why) {
    bool refused = false;
    for (;;) {
        struct server *server = choose_server(f, backend, why);
        if (server && is_allowed(f, &server->addr)) return server;
        if (!server && refused && *why == FAIL_NO_SERVER) *why = FAIL_DESTINATION_REFUSED;
        if (!server) return NULL;
        refused = true;
        server_leave(server);
        complain(f, backend, &server->addr);
        *why = FAIL_DESTINATION_REFUSED;
        if (f->tried_count == FETCH_TRIED) {
            server_unref(server);
            return NULL;
        }
        f->tried[f->tried_count++] = server;
    }
}

/* ---- all of them are busy: it waits for a place at one */

static void on_place(void *with) {
    struct fetch *f = with;
    task_wake(&f->worker->loop, &f->task);
}

/* True: it waits, or has got a place at once. */
static bool join_queue(struct fetch *f, struct backend *backend) {
    double now = loop_now(&f->worker->loop);
    struct choice choice = choice_of(f);
    if (f->waits_until == 0) f->waits_until = now + backend->settings.queue_timeout;
    if (f->exact || f->waits_until <= now) return false;
    f->waits = backend_queue(backend, &f->worker->loop, &choice, f->waits_until - now, on_place, f);
    return f->waits != NULL;
}

/* With its place, if it got one. */
static struct server *leave_queue(struct fetch *f) {
    struct backend *backend = f->pick.backends[f->pick_at];
    struct queue_wait *waits = f->waits;
    f->waits = NULL;
    return backend_leave_queue(backend, &f->worker->loop, waits);
}

/* NULL: NONE (it still waits) or QUEUE_TIMEOUT. */
static struct server *await_place(struct fetch *f, struct backend *backend, enum failure *why) {
    bool over = queue_is_over(f->waits);
    *why = over ? FAIL_QUEUE_TIMEOUT : FAIL_NONE;
    if (!over && !queue_place(f->waits)) return NULL;
    struct server *server = leave_queue(f);
    if (server) f->spec = backend_spec(backend, &f->worker->loop, server);
    return server;
}

/* A backend that is not the last of the list is left for the next one rather than waited for. */
struct server *fetch_find_place(struct fetch *f, struct backend *backend, enum failure *why) {
    if (f->waits) return await_place(f, backend, why);
    struct server *server = choose_allowed(f, backend, why);
    bool last = f->pick_at + 1 >= f->pick.count;
    if (server || *why != FAIL_BUSY || !last || f->response.status || !join_queue(f, backend)) return server;
    return await_place(f, backend, why);
}

void fetch_drop_wait(struct fetch *f) {
    if (!f->waits) return;
    struct server *server = leave_queue(f);
    if (server) server_leave(server);
    server_unref(server);
}
