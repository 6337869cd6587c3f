/* Clients come and go here, whatever they speak. */
#include "proxy/client.h"

#include "base/slab.h"
#include "proxy/admission.h"
#include "proxy/exchange.h"
#include "proxy/handshake.h"

#include <unistd.h>

static _Thread_local struct slab clients = SLAB(struct client, 256);

static const struct timeouts fallback_timeouts = { .head = 10, .body = 30, .idle = 75, .between = 60 };
static const struct h1_limits fallback_limits = { .head = 32768, .target = 8192, .fields = 100 };

const struct host_table *client_table(const struct client *c) {
    return generation_table(client_worker(c)->generation, c->listener);
}

static const struct site *first_site(const struct client *c) {
    const struct host_table *table = client_table(c);
    return table ? table->first : NULL;
}

const struct timeouts *client_timeouts(const struct client *c) {
    const struct site *site = first_site(c);
    return site ? &site->timeouts : &fallback_timeouts;
}

const struct h1_limits *client_limits(const struct client *c) {
    const struct site *site = first_site(c);
    return site ? &site->limits : &fallback_limits;
}

static void client_bury(struct grave *g) {
    struct client *c = container_of(g, struct client, grave);
    struct worker *w = client_worker(c);
    slab_give(&clients, c);
    worker_client_gone(w);
}

void client_close(struct client *c) {
    if (c->closed) return;
    c->closed = true;
    admission_cancel(c->admission);
    handshake_cancel(c->handshake);
    conn_close(&c->conn);
    list_remove(&c->node);
    loop_bury(c->conn.loop, &c->grave);
    c->protocol->leave(c);
}

void client_drain(struct client *c) { c->protocol->drain(c); }

void client_begin(struct client *c, const struct client_protocol *protocol) {
    c->protocol = protocol;
    c->conn.handlers = protocol->handlers;
    protocol->begin(c);
}

/* ---- which protocol: on listeners that take HTTP/2 without TLS, its preface tells (RFC 9113 3.4) */

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static void peek(struct conn *conn) {
    struct client *c = client_of_conn(conn);
    size_t n = conn->in.size < sizeof preface - 1 ? conn->in.size : sizeof preface - 1;
    bool same = slice_equal(buffer_gather(&conn->in, n), slice_make(preface, n));
    if (same && n == sizeof preface - 1) client_begin(c, &client_h2);
    else if (!same || conn->ended) client_begin(c, &client_h1);
}

static void peek_on_broken(struct conn *conn, enum failure why) {
    (void)why;
    client_close(client_of_conn(conn));
}

static void peek_on_deadline(struct conn *conn) { client_close(client_of_conn(conn)); }
static void peek_begin(struct client *c) {
    conn_deadline(&c->conn, client_timeouts(c)->head);
    if (c->conn.in.size) peek(&c->conn);
}
static void peek_leave(struct client *c) { (void)c; }

static const struct conn_handlers peek_handlers = {
    .on_bytes = peek, .on_end = peek, .on_broken = peek_on_broken, .on_deadline = peek_on_deadline
};
static const struct client_protocol client_peek = {
    .handlers = &peek_handlers, .begin = peek_begin, .drain = client_close, .leave = peek_leave
};

const struct client_protocol *client_first_protocol(struct client *c) {
    const struct host_table *table = client_table(c);
    if (table && table->tls) return &client_tls;
    c->may_speak_h2 = table && table->h2c;
    return c->may_speak_h2 ? &client_peek : &client_h1;
}

void client_greet(struct client *c) {
    const struct host_table *table = client_table(c);
    client_begin(c, table && table->guard_count ? &client_admission : client_first_protocol(c));
}

void client_accept(struct ear *ear, int fd, const struct addr *peer) {
    struct worker *w = worker_of(ear->loop);
    if (w->draining) {
        close(fd);
        return;
    }
    struct client *c = slab_take_zeroed(&clients);
    c->listener = ear->listener;
    c->addr = *peer;
    list_init(&c->node);
    grave_init(&c->grave, client_bury);
    list_push(&w->clients, &c->node);
    conn_open(&c->conn, ear->loop, fd, &peek_handlers);
    worker_client_came(w);
    const struct host_table *table = client_table(c);
    if (table && table->proxy_protocol) client_begin(c, &client_proxy);
    else client_greet(c);
}
