/* TLS to clients: the handshake, before it is known which protocol follows (ALPN tells). Which certificates it is shown
 * the generation decides that serves when it comes, as for requests; the service itself is the listener's at the moment
 * of accepting. Where that generation knows the listener no more, the one decides that accepted: until its handshake is
 * over a client holds it. */
#include "base/log.h"
#include "proxy/client.h"
#include "proxy/handshake.h"

#include <ctype.h>

enum { NAME_MOST = 253 };

/* The site that requests of that name will find. */
static struct site *find_site(const struct host_table *table, struct slice name) {
    char lower[NAME_MOST];
    if (name.n > NAME_MOST) name.n = 0;
    for (size_t i = 0; i < name.n; i++) lower[i] = (char)tolower((unsigned char)name.p[i]);
    return host_table_find(table, slice_make(lower, name.n));
}

static const struct host_table *find_table(const struct client *c) {
    const struct host_table *table = client_table(c);
    return table && table->tls ? table : generation_table(c->met, c->listener);
}

/* Those of its site; else the listener's own, if they bear the name. */
struct tls_certificates *client_certificates(const struct client *c, struct slice name) {
    const struct host_table *table = find_table(c);
    const struct site *site = find_site(table, name);
    if (site && site != table->fallback && site->certificates) return site->certificates;
    if (table->certificates && tls_certificates_bear(table->certificates, name)) return table->certificates;
    return site && site->certificates ? site->certificates : table->certificates;
}

static void on_hello(struct conn *conn, struct slice name) {
    struct client *c = client_of_conn(conn);
    const struct host_table *table = find_table(c);
    struct site *site = table == client_table(c) ? find_site(table, name) : NULL; /* who leaves is asked no more */
    bool asks = site && (site->hooks & 1u << HOOK_ON_CERTIFICATE);
    if (asks) handshake_begin(c, site, name);
    else conn_tls_present(conn, client_certificates(c, name), name);
}

static void forget_generation(struct client *c) {
    generation_unref(c->met);
    c->met = NULL;
}

static void count_early(const struct worker *w, const struct conn *conn) {
    if (conn_tls_early(conn)) metric_add(w->metrics->tls_early_taken, w->loop.index, 1);
    if (conn_tls_early_refused(conn)) metric_add(w->metrics->tls_early_refused, w->loop.index, 1);
}

static void on_connected(struct conn *conn) {
    struct worker *w = worker_of(conn->loop);
    count_early(w, conn);
    if (conn_tls_in_kernel(conn)) metric_add(w->metrics->tls_kernel, w->loop.index, 1);
    forget_generation(client_of_conn(conn));
    metric_add(conn_tls_resumed(conn) ? w->metrics->tls_resumed : w->metrics->tls_full, w->loop.index, 1);
    client_begin(client_of_conn(conn), conn_tls_alpn(conn) == TLS_ALPN_H2 ? &client_h2 : &client_h1);
}

/* Whoever typed http for https gets an answer that he can read. */
static void on_plain(struct conn *conn) {
    struct client *c = client_of_conn(conn);
    struct worker *w = client_worker(c);
    metric_add(w->metrics->misplaced_http, w->loop.index, 1);
    forget_generation(c);
    c->misplaced = true;
    client_begin(c, &client_h1);
}

/* Strangers fail all day: no line of the log for each, but for who looks for one. */
static void on_broken(struct conn *conn, enum failure why) {
    struct client *c = client_of_conn(conn);
    struct worker *w = client_worker(c);
    char text[ADDR_TEXT];
    metric_add(w->metrics->tls_failed, w->loop.index, 1);
    log_debug("%s: TLS handshake with %.*s failed: %s", c->listener->name, FMT(addr_text(&c->addr, text)),
              why == FAIL_TLS_FAILED ? conn_tls_reason(conn) : failure_sentence(why));
    client_close(c);
}

static void on_deadline(struct conn *conn) { client_close(client_of_conn(conn)); }
static void on_nothing(struct conn *conn) { (void)conn; }

static const struct conn_handlers handlers = {
    .on_hello = on_hello,
    .on_plain = on_plain,
    .on_connected = on_connected,
    .on_bytes = on_nothing,
    .on_end = on_deadline,
    .on_broken = on_broken,
    .on_deadline = on_deadline,
};

static void begin(struct client *c) {
    c->met = generation_ref(client_worker(c)->generation);
    conn_tls_accept(&c->conn, client_table(c)->tls);
    conn_deadline(&c->conn, client_timeouts(c)->head);
}

const struct client_protocol client_tls = {
    .handlers = &handlers, .begin = begin, .drain = client_close, .leave = forget_generation
};
