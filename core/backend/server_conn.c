/* Connections to servers: opened, lent, given back, kept idle, shared, dropped, whatever they speak.
 *
 * An idle conn keeps its read interest: a server that closes it is noticed at once, and most stale conns are gone
 * before anybody borrows them. What remains (the FIN that is still under way) is the fetch's to forgive, once. */
#include "backend/server_conn.h"

#include "base/log.h"
#include "base/must.h"
#include "base/slab.h"
#include "net/proxy_header.h"
#include "net/stage.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/socket.h>

static _Thread_local struct slab conns = SLAB(struct server_conn, 256);

static struct pool *pool_of(struct server_conn *sc) { return &sc->server->pools[sc->conn.loop->index]; }

static void server_conn_bury(struct grave *g) {
    struct server_conn *sc = container_of(g, struct server_conn, grave);
    if (sc->h2) server_h2.fini(sc);
    server_unref(sc->server);
    tls_trust_unref(sc->trust);
    parent_unref(sc->parent);
    free(sc->name);
    slab_give(&conns, sc);
}

/* An idle one; those that are shared leave by server_conn_unshare. */
static void leave_idle(struct server_conn *sc) {
    list_remove(&sc->node);
    pool_of(sc)->count--;
}

static bool is_idle(const struct server_conn *sc) { return !list_empty(&sc->node) && !sc->h2; }

void server_conn_close(struct server_conn *sc) {
    if (is_idle(sc)) leave_idle(sc);
    list_remove(&sc->node);
    if (sc->conn.state != CONN_CLOSED) {
        conn_close(&sc->conn);
        atomic_fetch_sub_explicit(&sc->server->connections, 1, memory_order_relaxed);
    }
    loop_bury(sc->conn.loop, &sc->grave);
}

/* A peer that is misconfigured fails every connection in the same way: told once a second. */
void server_conn_complain(const struct server_conn *sc, enum failure why) {
    static _Thread_local double complained;
    const char *reason = conn_tls_reason(&sc->conn);
    if (!reason || loop_now(sc->conn.loop) - complained < 1) return;
    complained = loop_now(sc->conn.loop);
    log_warn("backend %s: server %s as \"%s\": %s: %s", sc->server->backend, sc->server->name,
             sc->name ? sc->name : sc->parent->name, why == FAIL_RESET ? "TLS broke" : failure_sentence(why), reason);
}

static void lend(struct server_conn *sc, struct borrower *b) {
    sc->uses++;
    sc->protocol->lend(sc, b);
}

void server_conn_become(struct server_conn *sc, const struct server_protocol *protocol, struct borrower *b) {
    sc->protocol = protocol;
    sc->conn.handlers = protocol->handlers;
    sc->uses = 1;
    protocol->lend(sc, b);
    protocol->handlers->on_connected(&sc->conn);
}

/* ---- new ones */

/* With TLS the server has a say, and until it was heard everybody opens a connection of his own. */
static const struct server_protocol *expected_protocol(const struct server *server, const struct loop *loop,
                                                       const struct way *way) {
    if (loop->stage) return &server_h1; /* all that is spoken there */
    bool h2 = way->h2 && !way->alone;
    bool sure = !way->trust || atomic_load_explicit(&server->speaks_h2, memory_order_relaxed);
    return h2 && sure ? &server_h2 : &server_h1;
}

static void begin_tls(struct server_conn *sc, struct tls_trust *trust, struct slice name, bool h2) {
    if (sc->conn.loop->stage) conn_tls_pretend(&sc->conn);
    else conn_tls_connect(&sc->conn, trust, name, h2 ? TLS_ALPN_H2 : TLS_ALPN_H1);
}

/* ---- a PROXY header before TLS: it leaves alone, then TLS begins */

static void header_on_flushed(struct conn *c) { server_conn_stands(server_conn_of(c)); }
static void header_on_nothing(struct conn *c) { (void)c; }

static void header_on_broken(struct conn *c, enum failure why) {
    struct server_conn *sc = server_conn_of(c);
    sc->protocol->handlers->on_broken(c, why);
}

/* No server speaks before its client does. */
static void header_on_bytes(struct conn *c) { header_on_broken(c, FAIL_BAD_RESPONSE); }
static void header_on_end(struct conn *c) { header_on_broken(c, FAIL_RESET); }

static void header_on_deadline(struct conn *c) {
    struct server_conn *sc = server_conn_of(c);
    sc->protocol->handlers->on_deadline(c);
}

static const struct conn_handlers header_handlers = {
    .on_connected = header_on_nothing,
    .on_flushed = header_on_flushed,
    .on_bytes = header_on_bytes,
    .on_end = header_on_end,
    .on_broken = header_on_broken,
    .on_room = header_on_nothing,
    .on_deadline = header_on_deadline,
};

/* What is to be done before its protocol may speak: the config lets there be a parent or a PROXY header. `trust` is for
 * the server itself, and begins behind either. */
static void begin_layers(struct server_conn *sc, const struct way *way) {
    sc->wants_h2 = way->h2 && !way->alone;
    if (way->trust) {
        sc->trust = tls_trust_ref(way->trust);
        sc->name = must_strndup(way->name.p, way->name.n);
    }
    if (way->parent && sc->server->tunnel) {
        sc->parent = parent_ref(way->parent);
        sc->conn.handlers = &server_parent_handlers;
        if (way->parent->trust) begin_tls(sc, way->parent->trust, parent_tls_name(way->parent), false);
        return;
    }
    if (way->proxy_protocol) {
        sc->source = way->source;
        proxy_header_write(&sc->conn.out, way->proxy_protocol, &way->source, &way->destination);
        if (way->trust) sc->conn.handlers = &header_handlers;
    } else if (way->trust) {
        begin_tls(sc, way->trust, way->name, sc->wants_h2);
    }
}

void server_conn_stands(struct server_conn *sc) {
    sc->conn.handlers = sc->protocol->handlers;
    if (sc->trust) begin_tls(sc, sc->trust, slice_of(sc->name), sc->wants_h2);
    else sc->protocol->handlers->on_connected(&sc->conn);
}

void server_conn_open(struct server *server, struct loop *loop, struct borrower *b, double timeout,
                      const struct way *way) {
    struct server_conn *sc = slab_take_zeroed(&conns);
    list_init(&sc->node);
    grave_init(&sc->grave, server_conn_bury);
    sc->server = server_ref(server);
    sc->protocol = expected_protocol(server, loop, way);
    atomic_fetch_add_explicit(&server->connections, 1, memory_order_relaxed);
    if (loop->stage) loop->stage->called = server->backend;
    conn_connect(&sc->conn, loop, &server->addr, sc->protocol->handlers);
    if (loop->stage) loop->stage->called = NULL;
    begin_layers(sc, way);
    lend(sc, b);
    sc->connect_timeout = timeout;
    conn_deadline(&sc->conn, timeout);
}

void server_conn_open_another(struct server_conn *sc, struct borrower *b) {
    struct way way = { .trust = sc->trust, .name = slice_of(sc->name), .parent = sc->parent, .h2 = true };
    server_conn_open(sc->server, sc->conn.loop, b, sc->connect_timeout, &way);
}

/* ---- used ones */

static bool is_made_so(const struct server_conn *sc, const struct way *way) {
    bool same_trust = sc->trust == way->trust && (!sc->trust || slice_equal(slice_of(sc->name), way->name));
    if (way->proxy_protocol && !addr_equal(&sc->source, &way->source)) return false;
    return same_trust && parent_equal(sc->parent, sc->server->tunnel ? way->parent : NULL);
}

static bool is_closed_by_peer(const struct server_conn *sc) {
    char byte;
    ssize_t n = recv(conn_fd(&sc->conn), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

static bool borrow_idle(struct pool *pool, struct borrower *b, const struct way *way) {
    list_each_safe(node, &pool->idle) {
        struct server_conn *sc = container_of(node, struct server_conn, node);
        if (!is_made_so(sc, way)) continue;
        if (!conn_reusable(&sc->conn) || (way->careful && is_closed_by_peer(sc))) {
            server_conn_close(sc);
            continue;
        }
        leave_idle(sc);
        conn_deadline(&sc->conn, 0);
        lend(sc, b);
        return true;
    }
    return false;
}

static bool borrow_shared(struct pool *pool, struct borrower *b, const struct way *way) {
    list_each_safe(node, &pool->shared) {
        struct server_conn *sc = container_of(node, struct server_conn, node);
        if (!is_made_so(sc, way)) continue;
        if (way->careful && server_h2_is_idle(sc) && is_closed_by_peer(sc)) continue; /* what it says, it will hear */
        lend(sc, b);
        return true;
    }
    return false;
}

bool server_conn_borrow(struct server *server, struct loop *loop, struct borrower *b, const struct way *way) {
    struct pool *pool = &server->pools[loop->index];
    if (way->h2 && !way->alone && borrow_shared(pool, b, way)) return true;
    bool prior_knowledge = way->h2 && !way->trust; /* nothing but tunnels speak HTTP/1 there */
    return !way->fresh && (!prior_knowledge || way->alone) && borrow_idle(pool, b, way);
}

void server_conn_share(struct server_conn *sc) {
    if (list_empty(&sc->node)) list_push_front(&pool_of(sc)->shared, &sc->node);
}

void server_conn_unshare(struct server_conn *sc) { list_remove(&sc->node); }

/* The newest go first and are borrowed first, so that the oldest expire. */
void server_conn_keep(struct server_conn *sc, const struct backend_settings *settings) {
    struct pool *pool = pool_of(sc);
    list_push_front(&pool->idle, &sc->node);
    pool->count++;
    conn_pause(&sc->conn, false);
    conn_deadline(&sc->conn, fmin(settings->keepalive_idle, sc->h1.idle_most));
    if (pool->count > settings->keepalive) server_conn_close(container_of(pool->idle.prev, struct server_conn, node));
}

void server_conn_give_back(struct borrower *b, bool whole, const struct backend_settings *settings) {
    struct server_stream *s = b->stream;
    if (!s) return;
    b->stream = NULL;
    s->borrower = NULL;
    s->ops->give_back(s, whole, settings);
}

/* Those that are shared and in use go with their last stream. */
void server_conn_drop_idle(struct server *server, struct loop *loop) {
    struct pool *pool = &server->pools[loop->index];
    while (!list_empty(&pool->idle)) server_conn_close(container_of(pool->idle.next, struct server_conn, node));
    list_each_safe(node, &pool->shared) server_h2_retire(container_of(node, struct server_conn, node));
}
