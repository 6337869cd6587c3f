/* Connections to servers: opened, lent, given back, kept idle, dropped, whatever they speak.
 *
 * An idle conn keeps its read interest: a server that closes it is noticed at once, and most stale conns are gone
 * before anybody borrows them. What remains (the FIN that is still under way) is the fetch's to forgive, once. */
#include "backend/server_conn.h"

#include "base/slab.h"

#include <errno.h>
#include <sys/socket.h>

static _Thread_local struct slab conns = SLAB(struct server_conn, 256);

static struct pool *pool_of(struct server_conn *sc) { return &sc->server->pools[sc->conn.loop->index]; }

static void server_conn_bury(struct grave *g) {
    struct server_conn *sc = container_of(g, struct server_conn, grave);
    server_unref(sc->server);
    slab_give(&conns, sc);
}

static void leave_pool(struct server_conn *sc) {
    if (list_empty(&sc->node)) return;
    list_remove(&sc->node);
    pool_of(sc)->count--;
}

void server_conn_close(struct server_conn *sc) {
    leave_pool(sc);
    if (sc->conn.state != CONN_CLOSED) {
        conn_close(&sc->conn);
        atomic_fetch_sub_explicit(&sc->server->connections, 1, memory_order_relaxed);
    }
    loop_bury(sc->conn.loop, &sc->grave);
}

static void lend(struct server_conn *sc, struct borrower *b) {
    sc->uses++;
    sc->protocol->lend(sc, b);
}

void server_conn_open(struct server *server, struct loop *loop, struct borrower *b, double timeout) {
    struct server_conn *sc = slab_take_zeroed(&conns);
    list_init(&sc->node);
    grave_init(&sc->grave, server_conn_bury);
    sc->server = server_ref(server);
    sc->protocol = &server_h1;
    atomic_fetch_add_explicit(&server->connections, 1, memory_order_relaxed);
    conn_connect(&sc->conn, loop, &server->addr, sc->protocol->handlers);
    lend(sc, b);
    conn_deadline(&sc->conn, timeout);
}

/* For what may not be repeated, it is worth a system call to see that a pooled conn is not just being closed. */
static bool is_closed_by_peer(const struct server_conn *sc) {
    char byte;
    ssize_t n = recv(conn_fd(&sc->conn), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

bool server_conn_borrow(struct server *server, struct loop *loop, struct borrower *b, bool careful) {
    struct pool *pool = &server->pools[loop->index];
    while (!list_empty(&pool->idle)) {
        struct server_conn *sc = container_of(pool->idle.next, struct server_conn, node);
        leave_pool(sc);
        if (conn_reusable(&sc->conn) && !(careful && is_closed_by_peer(sc))) {
            conn_deadline(&sc->conn, 0);
            lend(sc, b);
            return true;
        }
        server_conn_close(sc);
    }
    return false;
}

/* The newest go first and are borrowed first, so that the oldest expire. */
void server_conn_keep(struct server_conn *sc, const struct backend_settings *settings) {
    struct pool *pool = pool_of(sc);
    list_push_front(&pool->idle, &sc->node);
    pool->count++;
    conn_pause(&sc->conn, false);
    conn_deadline(&sc->conn, settings->keepalive_idle);
    if (pool->count > settings->keepalive) server_conn_close(container_of(pool->idle.prev, struct server_conn, node));
}

void server_conn_give_back(struct borrower *b, bool whole, const struct backend_settings *settings) {
    struct server_stream *s = b->stream;
    if (!s) return;
    b->stream = NULL;
    s->borrower = NULL;
    s->ops->give_back(s, whole, settings);
}

void server_conn_drop_idle(struct server *server, struct loop *loop) {
    struct pool *pool = &server->pools[loop->index];
    while (!list_empty(&pool->idle)) server_conn_close(container_of(pool->idle.next, struct server_conn, node));
}
