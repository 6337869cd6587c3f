/* The near side of a rehearsal: one request over one connection, and what comes back, read as a strict client reads
 * it. Who drives time is here as well: as long as the request is under way, the loop turns until nothing moves, then
 * the clock goes to the next deadline. */
#include "server/rehearsal_parts.h"

#include "base/must.h"
#include "http/framing.h"
#include "net/tls.h"

#include <errno.h>
#include <sys/socket.h>

/* An hour of pretended time: no timeout of a policy is longer, and a repeated task must not keep a request that waits
 * for nothing alive for ever. */
static const double PATIENCE = 3600;
enum { INTERIM = 8 };

struct visit {
    struct conn conn;
    struct rehearsal *rehearsal;
    const struct rehearsal_request *request;
    struct rehearsal_answer *answer;
    struct h1_scan scan;
    struct h1_body decoder;
    struct response *response; /* in the arena */
    struct buffer content;
    unsigned interim;
    bool has_head, over;
};

static const struct h1_limits limits = { .head = 1 << 20, .target = 0, .fields = 1000 };

static void visit_end(struct visit *v, bool whole) {
    v->over = true;
    v->answer->whole = whole;
}

/* ---- reading */

static bool take_interim(struct visit *v) {
    if (v->response->status >= 200 || v->response->status == 101) return false;
    if (v->interim < INTERIM - 1) v->answer->interim[v->interim++] = (unsigned)v->response->status;
    return true;
}

static void begin_body(struct visit *v) {
    struct response *r = v->response;
    v->has_head = true;
    v->answer->status = r->status;
    v->answer->headers = &r->headers;
    v->answer->trailers = &r->trailers;
    h1_body_start(&v->decoder, &r->framing, &r->trailers);
    if (r->status == 101) visit_end(v, true); /* what follows is no HTTP */
}

/* False: more bytes are needed, or it is over. */
static bool read_head(struct visit *v) {
    enum failure why = FAIL_NONE;
    struct arena *arena = &v->rehearsal->arena;
    if (!v->response) v->response = arena_alloc(arena, sizeof *v->response);
    *v->response = (struct response){ 0 };
    headers_init(&v->response->headers, arena);
    headers_init(&v->response->trailers, arena);
    enum h1_result result = h1_read_response(&v->scan, &v->conn.in, &limits, arena, v->response, &why);
    if (result == H1_MORE) return false;
    v->scan = (struct h1_scan){ 0 };
    if (result == H1_DONE) why = framing_of_response(v->response, v->request->method);
    if (why != FAIL_NONE) visit_end(v, false);
    else if (!take_interim(v)) begin_body(v);
    return !v->over;
}

static void read_body(struct visit *v) {
    enum h1_result result =
        v->decoder.done ? H1_DONE : h1_body_read(&v->decoder, &v->conn.in, &v->content, SIZE_MAX / 2);
    if (result != H1_MORE) visit_end(v, result == H1_DONE);
}

static void visit_on_bytes(struct conn *c) {
    struct visit *v = container_of(c, struct visit, conn);
    while (!v->over && !v->has_head && v->conn.in.size && read_head(v)) {}
    if (v->has_head && !v->over) read_body(v);
    if (!v->over) conn_consumed(c);
}

static void visit_on_end(struct conn *c) {
    struct visit *v = container_of(c, struct visit, conn);
    if (!v->over) visit_end(v, v->has_head && v->response->framing.kind == FRAMING_UNTIL_CLOSE);
}

static void visit_on_broken(struct conn *c, enum failure why) {
    struct visit *v = container_of(c, struct visit, conn);
    if (!v->over) visit_end(v, false);
}

static const struct conn_handlers handlers = {
    .on_bytes = visit_on_bytes,
    .on_end = visit_on_end,
    .on_broken = visit_on_broken,
};

/* ---- the request */

static struct listener *find_listener(const struct rehearsal *r, int id) {
    list_each(node, &r->listeners) {
        struct listener *l = container_of(node, struct listener, node);
        if ((int)l->id == id) return l;
    }
    return NULL;
}

/* The client's TLS is real, on both sides; it takes any certificate. */
static bool speaks_tls(struct rehearsal *r, const struct listener *l) {
    const struct generation *g = r->worker.generation;
    struct host_table *table = l->id < g->table_count ? g->tables[l->id] : NULL;
    if (!table || !table->tls) return false;
    char why[256];
    struct tls_trust_settings anything = { .unverified = true };
    if (!r->trust) r->trust = tls_trust_get(&anything, why, sizeof why);
    must(r->trust);
    return true;
}

static void begin(struct visit *v) {
    struct rehearsal *r = v->rehearsal;
    struct loop *loop = &r->worker.loop;
    int ends[2];
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    struct ear ear = { .listener = find_listener(r, v->request->listener), .loop = loop };
    must(ear.listener != NULL);
    client_accept(&ear, ends[0], &v->request->from);
    conn_open(&v->conn, loop, ends[1], &handlers);
    if (speaks_tls(r, ear.listener)) conn_tls_connect(&v->conn, r->trust, v->request->host, TLS_ALPN_H1);
    buffer_append(&v->conn.out, v->request->bytes.p, v->request->bytes.n);
    conn_wrote(&v->conn);
}

/* A reset, which a socketpair cannot show: the proxy's side of it. */
static void reset(struct visit *v) {
    struct worker *w = &v->rehearsal->worker;
    list_each_safe(node, &w->clients) client_close(container_of(node, struct client, node));
    conn_close(&v->conn);
}

/* It goes as soon as it has seen the answer, or when its patience is over. */
static void leave_in_time(struct visit *v, double leave_at) {
    bool leaves = leave_at > 0 && rehearsal_clock(v->rehearsal) >= leave_at;
    if (v->over) conn_close(&v->conn);
    else if (leaves) reset(v);
}

/* It was not let in: there is no line of a log to wait for. */
static bool is_turned_away(const struct rehearsal *r) {
    return list_empty(&r->worker.clients) && list_empty(&r->worker.exchanges);
}

static bool drive(struct visit *v) {
    struct rehearsal *r = v->rehearsal;
    double began = rehearsal_clock(r), leave = v->request->leave;
    double leave_at = leave > 0 ? began + leave : 0;
    for (;;) {
        if (!stage_settle(&r->stage, &r->worker.loop)) return false;
        bool was_open = v->conn.state != CONN_CLOSED;
        leave_in_time(v, leave_at);
        bool open = v->conn.state != CONN_CLOSED;
        if (was_open && !open) continue;
        if (!open && (r->notes.exchanges || is_turned_away(r))) return true; /* it has written its log line */
        double limit = open && leave_at > 0 ? leave_at : began + PATIENCE;
        if (rehearsal_wait(r, limit)) continue;
        if (limit != leave_at) return false;
        stage_move(&r->stage, leave_at);
    }
}

/* What came of the body into memory that lasts until the next request. */
static void keep_body(struct visit *v) {
    struct arena *arena = &v->rehearsal->arena;
    size_t n = v->content.size;
    char *to = arena_bytes(arena, n);
    buffer_peek(&v->content, to, n);
    v->answer->body = slice_make(to, n);
    buffer_fini(&v->content);
}

bool rehearsal_request(struct rehearsal *r, const struct rehearsal_request *request, struct rehearsal_answer *answer) {
    struct visit v = { .rehearsal = r, .request = request, .answer = answer };
    rehearsal_forget(r);
    *answer = (struct rehearsal_answer){ 0 };
    rehearsal_enter(r);
    begin(&v);
    bool ended = drive(&v);
    conn_close(&v.conn);
    if (!ended) worker_close_all(&r->worker);
    stage_settle(&r->stage, &r->worker.loop);
    keep_body(&v);
    rehearsal_leave(r);
    return ended;
}
