/* Connections to servers: opened, lent, given back, kept idle, dropped.
 *
 * An idle conn keeps its read interest: a server that closes it is noticed at once, and most stale conns are gone
 * before anybody borrows them. What remains (the FIN that is still under way) is the fetch's to forgive, once. */
#include "backend/server_conn.h"

#include "base/must.h"
#include "base/slab.h"
#include "net/stage.h"

static _Thread_local struct slab conns = SLAB(struct server_conn, 256);

static struct server_conn *of_conn(struct conn *c) { return container_of(c, struct server_conn, conn); }

static struct pool *pool_of(struct server_conn *sc) { return &sc->server->pools[sc->conn.loop->index]; }

static void server_conn_bury(struct grave *g) {
    struct server_conn *sc = container_of(g, struct server_conn, grave);
    server_unref(sc->server);
    slab_give(&conns, sc);
}

static void server_conn_close(struct server_conn *sc) {
    if (!list_empty(&sc->node)) {
        list_remove(&sc->node);
        pool_of(sc)->count--;
    }
    if (sc->conn.state != CONN_CLOSED) {
        conn_close(&sc->conn);
        atomic_fetch_sub_explicit(&sc->server->connections, 1, memory_order_relaxed);
    }
    if (sc->borrower) sc->borrower->conn = NULL;
    sc->borrower = NULL;
    loop_bury(sc->conn.loop, &sc->grave);
}

/* ---- events: to the borrower, or, for an idle conn, its end */

static void on_bytes(struct conn *c) {
    struct server_conn *sc = of_conn(c);
    if (!sc->borrower) {
        server_conn_close(sc); /* a server that speaks unasked */
        return;
    }
    sc->response_begun = true;
    sc->borrower->handlers->on_bytes(sc->borrower);
}

static void on_end(struct conn *c) {
    struct server_conn *sc = of_conn(c);
    if (sc->borrower) sc->borrower->handlers->on_end(sc->borrower);
    else server_conn_close(sc);
}

static void on_broken(struct conn *c, enum failure why) {
    struct server_conn *sc = of_conn(c);
    if (sc->borrower) sc->borrower->handlers->on_broken(sc->borrower, why);
    else server_conn_close(sc);
}

static void on_connected(struct conn *c) {
    struct server_conn *sc = of_conn(c);
    if (sc->borrower) sc->borrower->handlers->on_connected(sc->borrower);
}

static void on_room(struct conn *c) {
    struct server_conn *sc = of_conn(c);
    if (sc->borrower) sc->borrower->handlers->on_room(sc->borrower);
}

static void on_flushed(struct conn *c) {
    struct server_conn *sc = of_conn(c);
    if (sc->borrower && sc->borrower->handlers->on_flushed) sc->borrower->handlers->on_flushed(sc->borrower);
}

static void on_deadline(struct conn *c) {
    struct server_conn *sc = of_conn(c);
    if (sc->borrower) sc->borrower->handlers->on_deadline(sc->borrower);
    else server_conn_close(sc);
}

static const struct conn_handlers handlers = {
    .on_bytes = on_bytes,
    .on_end = on_end,
    .on_broken = on_broken,
    .on_connected = on_connected,
    .on_room = on_room,
    .on_flushed = on_flushed,
    .on_deadline = on_deadline,
};

/* ---- the life of one */

static void lend(struct server_conn *sc, struct borrower *b) {
    sc->borrower = b;
    b->conn = sc;
    sc->uses++;
    sc->response_begun = false;
    sc->scan = (struct h1_scan){ 0 };
}

struct server_conn *server_conn_open(struct server *server, struct loop *loop, struct borrower *b, double timeout) {
    struct server_conn *sc = slab_take_zeroed(&conns);
    list_init(&sc->node);
    grave_init(&sc->grave, server_conn_bury);
    sc->server = server_ref(server);
    atomic_fetch_add_explicit(&server->connections, 1, memory_order_relaxed);
    lend(sc, b);
    if (loop->stage) loop->stage->called = server->backend;
    conn_connect(&sc->conn, loop, &server->addr, &handlers);
    if (loop->stage) loop->stage->called = NULL;
    conn_deadline(&sc->conn, timeout);
    return sc;
}

struct server_conn *server_conn_borrow(struct server *server, struct loop *loop, struct borrower *b) {
    struct pool *pool = &server->pools[loop->index];
    for (struct list *node; (node = list_pop(&pool->idle));) {
        pool->count--;
        struct server_conn *sc = container_of(node, struct server_conn, node);
        if (conn_reusable(&sc->conn)) {
            conn_deadline(&sc->conn, 0);
            lend(sc, b);
            return sc;
        }
        server_conn_close(sc);
    }
    return NULL;
}

/* The newest go first and are borrowed first, so that the oldest expire. */
static void keep_idle(struct server_conn *sc, const struct backend_settings *settings) {
    struct pool *pool = pool_of(sc);
    sc->borrower = NULL;
    list_push_front(&pool->idle, &sc->node);
    pool->count++;
    conn_pause(&sc->conn, false);
    conn_deadline(&sc->conn, settings->keepalive_idle);
    if (pool->count > settings->keepalive) server_conn_close(container_of(pool->idle.prev, struct server_conn, node));
}

void server_conn_give_back(struct borrower *b, bool reusable, const struct backend_settings *settings) {
    struct server_conn *sc = b->conn;
    if (!sc) return;
    b->conn = NULL;
    sc->borrower = NULL;
    if (reusable && settings->keepalive > 0 && conn_reusable(&sc->conn)) keep_idle(sc, settings);
    else server_conn_close(sc);
}

void server_conn_drop_idle(struct server *server, struct loop *loop) {
    struct pool *pool = &server->pools[loop->index];
    while (!list_empty(&pool->idle)) server_conn_close(container_of(pool->idle.next, struct server_conn, node));
}
