/* Clients behind a load balancer that speaks the PROXY protocol: its header comes first, and says who they are. From
 * then on they are those, in logs, for policy, and for trusted_proxies.
 *
 * Who connects must be one of those the listener believes, and must send one: whoever else could write a header would
 * be whom he likes. Everything else is closed without an answer, since nothing is known of what is spoken. */
#include "base/log.h"
#include "net/egress.h"
#include "net/proxy_header.h"
#include "proxy/client.h"

static bool is_believed(const struct client *c) {
    const struct host_table *table = client_table(c);
    if (!table) return false;
    if (table->proxies_count) return cidr_match(table->proxies, table->proxies_count, &c->addr);
    return !addr_is_public(&c->addr);
}

static void refuse(struct client *c, const char *why) {
    char text[ADDR_TEXT];
    struct worker *w = client_worker(c);
    metric_add(w->metrics->proxy_headers_refused, w->loop.index, 1);
    log_debug("%s: %.*s %s", c->listener->name, FMT(addr_text(&c->addr, text)), why);
    client_close(c);
}

static void on_bytes(struct conn *conn) {
    struct client *c = client_of_conn(conn);
    struct addr source;
    switch (proxy_header_read(&conn->in, &source)) {
    case PROXY_HEADER_MORE: return;
    case PROXY_HEADER_BAD: refuse(c, "sent no good PROXY header"); return;
    case PROXY_HEADER_DONE: break;
    }
    conn_consumed(conn);
    if (source.size) c->addr = source;
    client_greet(c);
}

static void on_end(struct conn *conn) { client_close(client_of_conn(conn)); }

static void on_broken(struct conn *conn, enum failure why) {
    (void)why;
    client_close(client_of_conn(conn));
}

static void begin(struct client *c) {
    if (!is_believed(c)) refuse(c, "may not send a PROXY header");
    else conn_deadline(&c->conn, client_timeouts(c)->head);
}

static void leave(struct client *c) { (void)c; }

static const struct conn_handlers handlers = {
    .on_bytes = on_bytes, .on_end = on_end, .on_broken = on_broken, .on_deadline = on_end
};
const struct client_protocol client_proxy = {
    .handlers = &handlers, .begin = begin, .drain = client_close, .leave = leave
};
