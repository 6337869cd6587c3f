/* Clients come and go here, whatever they speak. */
#include "proxy/client.h"

#include "base/slab.h"
#include "proxy/exchange.h"

#include <unistd.h>

static _Thread_local struct slab clients = SLAB(struct client, 256);

static const struct timeouts fallback_timeouts = { .head = 10, .body = 30, .idle = 75, .between = 60 };
static const struct h1_limits fallback_limits = { .head = 32768, .target = 8192, .fields = 100 };

/* NULL while no generation serves this listener. */
static const struct site *first_site(const struct client *c) {
    const struct generation *g = client_worker(c)->generation;
    if (!g || c->listener->id >= g->table_count || !g->tables[c->listener->id]) return NULL;
    return g->tables[c->listener->id]->first;
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
    conn_close(&c->conn);
    list_remove(&c->node);
    loop_bury(c->conn.loop, &c->grave);
    c->protocol->leave(c);
}

void client_drain(struct client *c) { c->protocol->drain(c); }

void client_accept(struct ear *ear, int fd, const struct addr *peer) {
    struct worker *w = worker_of(ear->loop);
    if (w->draining) {
        close(fd);
        return;
    }
    struct client *c = slab_take_zeroed(&clients);
    c->listener = ear->listener;
    c->addr = *peer;
    c->protocol = &client_h1;
    list_init(&c->node);
    grave_init(&c->grave, client_bury);
    list_push(&w->clients, &c->node);
    conn_open(&c->conn, ear->loop, fd, c->protocol->handlers);
    worker_client_came(w);
    c->protocol->begin(c);
}
