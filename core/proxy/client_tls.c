/* TLS to clients: which certificates a handshake is shown. The generation that serves when the handshake comes decides,
 * as for requests; the service itself is the listener's at the moment of accepting. */
#include "base/log.h"
#include "net/tls.h"
#include "proxy/client.h"
#include "proxy/handshake.h"

#include <ctype.h>

static const struct host_table *find_table(const struct client *c) {
    const struct generation *g = client_worker(c)->generation;
    return g && c->listener->id < g->table_count ? g->tables[c->listener->id] : NULL;
}

void client_begin_tls(struct client *c) {
    const struct host_table *table = find_table(c);
    if (table && table->tls) conn_tls_accept(&c->conn, table->tls);
}

enum { NAME_MOST = 253 };

/* The site that requests of that name will find. */
static struct site *find_site(const struct host_table *table, struct slice name) {
    char lower[NAME_MOST];
    if (name.n > NAME_MOST) name.n = 0;
    for (size_t i = 0; i < name.n; i++) lower[i] = (char)tolower((unsigned char)name.p[i]);
    return host_table_find(table, slice_make(lower, name.n));
}

/* Those of its site; else the listener's own, if they bear the name. */
struct tls_certificates *client_certificates(const struct client *c, struct slice name) {
    const struct host_table *table = find_table(c);
    if (!table) return NULL;
    const struct site *site = find_site(table, name);
    if (site && site != table->fallback && site->certificates) return site->certificates;
    if (table->certificates && tls_certificates_bear(table->certificates, name)) return table->certificates;
    return site && site->certificates ? site->certificates : table->certificates;
}

void client_on_hello(struct conn *conn, struct slice name) {
    struct client *c = container_of(conn, struct client, conn);
    const struct host_table *table = find_table(c);
    struct site *site = table ? find_site(table, name) : NULL;
    bool asks = site && (site->hooks & 1u << HOOK_ON_CERTIFICATE);
    if (asks) handshake_begin(c, site, name);
    else conn_tls_present(conn, client_certificates(c, name), name);
}

void client_on_handshake(struct conn *conn) {
    struct worker *w = worker_of(conn->loop);
    metric_add(conn_tls_resumed(conn) ? w->metrics->tls_resumed : w->metrics->tls_full, w->loop.index, 1);
}

/* Strangers fail all day: no line of the log for each, but for who looks for one. */
void client_note_broken(const struct client *c, enum failure why) {
    if (why != FAIL_TLS_FAILED) return;
    struct worker *w = client_worker(c);
    char text[ADDR_TEXT];
    metric_add(w->metrics->tls_failed, w->loop.index, 1);
    log_debug("%s: TLS handshake with %.*s failed: %s", c->listener->name, FMT(addr_text(&c->addr, text)),
              conn_tls_reason(&c->conn));
}
