/* Tunnels. Bytes that one side has read are moved into the other's `out`, as far as that has room; a full one leaves
 * them in `in`, whose limit stops the reading. So a slow side holds back the other by itself. */
#include "proxy/tunnel.h"

#include "base/must.h"

#include <stdlib.h>

struct tunnel {
    struct list node;          /* in worker->tunnels */
    struct exchange *exchange; /* for the log line */
    struct client *client;     /* NULL once gone */
    struct borrower borrower;  /* of the server's conn */
    struct grave grave;
    bool closed;
};

static void tunnel_bury(struct grave *g) { free(container_of(g, struct tunnel, grave)); }

static struct worker *worker_of_tunnel(const struct tunnel *t) { return t->exchange->subject.worker; }

static void tunnel_end(struct tunnel *t) {
    if (t->closed) return;
    t->closed = true;
    struct worker *w = worker_of_tunnel(t);
    static const struct backend_settings no_pool;
    atomic_fetch_sub_explicit(&t->borrower.conn->server->active, 1, memory_order_relaxed);
    server_conn_give_back(&t->borrower, false, &no_pool);
    list_remove(&t->node);
    metric_add(w->metrics->tunnels_open, w->loop.index, -1);
    struct client *c = t->client;
    t->client = NULL;
    exchange_tunnel_ended(t->exchange);
    loop_bury(&w->loop, &t->grave);
    if (!c) return;
    c->exchange = NULL;
    t->exchange->client = NULL;
    client_close(c);
}

/* One way. Returns the bytes moved. */
static uint64_t move(struct conn *from, struct conn *to) {
    size_t room = conn_room(to), n = from->in.size < room ? from->in.size : room;
    if (n) {
        buffer_move(&to->out, &from->in, n);
        conn_wrote(to);
        conn_consumed(from);
    }
    if (from->ended && from->in.size == 0 && !to->shut) conn_shut(to);
    return n;
}

static void relay(struct tunnel *t) {
    if (t->closed || !t->client || !t->borrower.conn) return;
    struct conn *client = &t->client->conn, *server = &t->borrower.conn->conn;
    t->exchange->bytes_in += move(client, server);
    t->exchange->bytes_out += move(server, client);
    bool over = client->ended && server->ended && !client->in.size && !server->in.size && !client->out.size &&
                !server->out.size;
    if (over) tunnel_end(t);
}

static struct tunnel *of_client(struct conn *c) { return container_of(c, struct client, conn)->tunnel; }
static struct tunnel *of_borrower(struct borrower *b) { return container_of(b, struct tunnel, borrower); }

static void client_on_news(struct conn *c) { relay(of_client(c)); }
static void client_on_broken(struct conn *c, enum failure why) {
    (void)why;
    tunnel_end(of_client(c));
}
static void client_on_deadline(struct conn *c) { (void)c; }

static const struct conn_handlers client_handlers = {
    .on_bytes = client_on_news,
    .on_end = client_on_news,
    .on_broken = client_on_broken,
    .on_room = client_on_news,
    .on_flushed = client_on_news,
    .on_deadline = client_on_deadline,
};

static void server_on_news(struct borrower *b) { relay(of_borrower(b)); }
static void server_on_broken(struct borrower *b, enum failure why) {
    (void)why;
    tunnel_end(of_borrower(b));
}
static void server_on_deadline(struct borrower *b) { (void)b; }

static const struct borrower_handlers server_handlers = {
    .on_connected = server_on_news,
    .on_bytes = server_on_news,
    .on_end = server_on_news,
    .on_broken = server_on_broken,
    .on_room = server_on_news,
    .on_flushed = server_on_news,
    .on_deadline = server_on_deadline,
};

void tunnel_begin(struct exchange *x) {
    struct worker *w = x->subject.worker;
    struct tunnel *t = must_calloc(1, sizeof *t);
    grave_init(&t->grave, tunnel_bury);
    t->exchange = x;
    t->client = x->client;
    t->borrower.handlers = &server_handlers;
    x->tunnel = t;
    list_push(&w->tunnels, &t->node);
    metric_add(w->metrics->tunnels_open, w->loop.index, 1);
    struct server_conn *sc = fetch_take_conn(x->fetch, &t->borrower);
    conn_deadline(&sc->conn, 0);
    client_begin_tunnel(x->client, t, &client_handlers);
    relay(t);
    if (conn_alive(&sc->conn)) return;
    conn_flush(&t->client->conn); /* it broke right behind its answer, and nobody would say so again */
    tunnel_end(t);
}

void tunnel_client_left(struct tunnel *t) {
    t->client = NULL;
    tunnel_end(t);
}

void tunnel_close(struct tunnel *t) { tunnel_end(t); }

void tunnels_close(struct worker *w) {
    list_each_safe(node, &w->tunnels) tunnel_end(container_of(node, struct tunnel, node));
}
