/* The server's side of HTTP/2: one conn, many streams, each lent to a borrower of its own.
 *
 * A conn is in its worker's pool as long as it takes new streams, lent or not; borrowers may come while it is still
 * connecting. Frames are written by the task, at the end of the turn. An upgrade is not sent here: it wants a
 * connection of its own (server_conn_borrow). */
#include "backend/server_conn.h"
#include "base/must.h"
#include "base/slab.h"
#include "http/h2.h"

#include <limits.h>
#include <stdlib.h>

/* On one conn, however many its server would take: what waits on a stream for its borrower is bounded by the stream. */
enum { STREAMS_MAX = 100 };
static const struct h2_limits limits = { .head = 65536, .fields = 200, .streams = STREAMS_MAX };

struct h2_server {
    struct server_conn *conn;
    struct h2 *h2; /* NULL until the conn stands */
    struct task task;
    struct list streams;
    unsigned stream_count;
    bool kept;             /* without streams: by the last borrower's backend */
    double keepalive_idle; /* seconds it is kept; 0: for ever */
    bool leaving;          /* it takes no more streams */
};

/* A head that was not asked for yet. */
struct head {
    struct head *next;
    struct response response;
    enum failure why;
};

struct h2_server_stream {
    struct server_stream stream;
    struct h2_stream h2;
    struct list node;
    struct grave grave;
    struct deadline deadline;
    struct h2_server *owner; /* NULL: the conn is gone */
    struct arena *arena;     /* the borrower's */
    struct head *heads, *coming;
    struct headers trailers, *taken_trailers; /* and where the borrower wants them */
    uint64_t heard;                           /* what the conn had received when it was sent */
    bool over;                                /* the stream is gone, but for what it had received */
    bool whole;                               /* it had received all */
};

static _Thread_local struct slab streams = SLAB(struct h2_server_stream, 64);

static struct h2_server_stream *of_stream(const struct server_stream *s) {
    return container_of((struct server_stream *)(uintptr_t)s, struct h2_server_stream, stream);
}
static struct h2_server_stream *of_h2(struct h2_stream *s) { return container_of(s, struct h2_server_stream, h2); }
static struct h2_server_stream *of_node(struct list *n) { return container_of(n, struct h2_server_stream, node); }

static void wake(struct h2_server *h) { task_wake(h->conn->conn.loop, &h->task); }

/* ---- the conn between streams */

static bool takes_streams(const struct h2_server *h) {
    if (h->leaving || h->conn->conn.ended) return false;
    return h->stream_count < (h->h2 ? h2_most_streams(h->h2) : STREAMS_MAX);
}

/* In the pool or not, closed or kept: after everything that may change it. */
static void settle(struct h2_server *h) {
    struct server_conn *sc = h->conn;
    bool idle = h->stream_count == 0;
    bool takes = takes_streams(h);
    if (idle && (!takes || (h->h2 && !h->kept))) {
        server_conn_close(sc);
        return;
    }
    if (takes) server_conn_share(sc);
    else server_conn_unshare(sc);
    if (h->h2) conn_deadline(&sc->conn, idle ? h->keepalive_idle : 0);
}

bool server_h2_is_idle(const struct server_conn *sc) { return sc->h2->stream_count == 0; }

/* ---- streams: their life */

static void stream_bury(struct grave *g) {
    struct h2_server_stream *s = container_of(g, struct h2_server_stream, grave);
    deadline_fini(&s->deadline);
    slab_give(&streams, s);
}

/* Neither the conn nor the borrower has anything to do with it any more. */
static void end_stream(struct h2_server_stream *s, struct loop *loop) {
    list_remove(&s->node);
    deadline_clear(&s->deadline);
    h2_stream_fini(&s->h2);
    loop_bury(loop, &s->grave);
}

static void tell_broken(struct h2_server_stream *s, enum failure why) {
    s->stream.broken = true;
    if (s->stream.borrower) s->stream.borrower->handlers->on_broken(s->stream.borrower, why);
}

static void tell_bytes(struct h2_server_stream *s) {
    s->stream.response_begun = true;
    if (s->stream.borrower) s->stream.borrower->handlers->on_bytes(s->stream.borrower);
}

/* ---- what comes */

static void await_head(struct h2_server_stream *s) {
    s->coming = arena_alloc_zeroed(s->arena, sizeof *s->coming);
    headers_init(&s->coming->response.headers, s->arena);
    s->h2.message.response = &s->coming->response;
}

static void on_head(struct h2_stream *hs, enum failure why, bool end) {
    struct h2_server_stream *s = of_h2(hs);
    struct head **last = &s->heads;
    while (*last) last = &(*last)->next;
    *last = s->coming;
    s->coming->why = why;
    await_head(s);
    if (end) s->whole = true;
    tell_bytes(s);
}

static void on_body(struct h2_stream *hs) { tell_bytes(of_h2(hs)); }

static void on_end(struct h2_stream *hs) {
    of_h2(hs)->whole = true;
    tell_bytes(of_h2(hs));
}

static void on_room(struct h2_stream *hs) {
    struct borrower *b = of_h2(hs)->stream.borrower;
    if (b) b->handlers->on_room(b);
}

/* A stream that was refused, or that a GOAWAY passed over, did nothing there (RFC 9113 8.7). */
static void on_close(struct h2_stream *hs, uint32_t error) {
    struct h2_server_stream *s = of_h2(hs);
    struct h2_server *h = s->owner;
    s->over = true;
    h->stream_count--;
    if (!s->stream.borrower) end_stream(s, h->conn->conn.loop);
    else if (!s->whole) tell_broken(s, error == H2_REFUSED_STREAM ? FAIL_STREAM_REFUSED : FAIL_RESET);
    wake(h);
}

/* At once: nobody may borrow in this turn what settle would take out of the pool at its end. */
static void on_goaway(struct h2 *h2) {
    struct h2_server *h = h2_owner(h2);
    h->leaving = true;
    server_conn_unshare(h->conn);
    wake(h);
}

static const struct h2_handlers h2_handlers = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_room = on_room,
    .on_close = on_close,
    .on_goaway = on_goaway,
};

/* ---- what borrowers do */

static void send_head(struct server_stream *stream, const struct request *request, const struct outgoing *o) {
    struct h2_server_stream *s = of_stream(stream);
    struct h2_request sent = { .request = request,
                               .target = o->target,
                               .scheme = stream->conn->trust ? SLICE("https") : SLICE("http"),
                               .end = !o->body };
    s->arena = o->arena;
    headers_init(&s->trailers, s->arena);
    s->h2.trailers = &s->trailers;
    await_head(s);
    s->heard = stream->conn->conn.received;
    if (h2_send_request(s->owner->h2, &s->h2, &sent)) wake(s->owner);
    else tell_broken(s, FAIL_STREAM_REFUSED);
}

static size_t room(const struct server_stream *stream) {
    struct h2_server_stream *s = of_stream(stream);
    return s->over ? 0 : h2_room(&s->h2);
}

static void send_body(struct server_stream *stream, struct buffer *bytes) {
    struct h2_server_stream *s = of_stream(stream);
    h2_send(&s->h2, bytes);
    if (s->owner) wake(s->owner);
}

static void end_body(struct server_stream *stream, const struct headers *trailers) {
    struct h2_server_stream *s = of_stream(stream);
    h2_end(&s->h2, trailers);
    if (s->owner) wake(s->owner);
}

static enum stream_result read_head(struct server_stream *stream, struct response *r, enum method method,
                                    struct headers *trailers, enum failure *why) {
    (void)method;
    struct h2_server_stream *s = of_stream(stream);
    struct head *head = s->heads;
    if (!head) return STREAM_MORE;
    s->taken_trailers = trailers;
    s->heads = head->next;
    *r = head->response;
    *why = head->why;
    return *why ? STREAM_FAILED : STREAM_DONE;
}

static enum stream_result read_body(struct server_stream *stream, struct buffer *out, size_t most) {
    struct h2_server_stream *s = of_stream(stream);
    if (h2_take(&s->h2, out, most) && s->owner) wake(s->owner); /* its window is open again */
    if (!s->whole || s->h2.in.size) return STREAM_MORE;
    *s->taken_trailers = s->trailers;
    return STREAM_DONE;
}

static void begin_tunnel(struct server_stream *stream) { (void)stream; }

static void set_deadline(struct server_stream *stream, double seconds) {
    deadline_set(&of_stream(stream)->deadline, seconds);
}

static bool is_flushed(const struct server_stream *stream) { return of_stream(stream)->h2.out.size == 0; }

static void give_back(struct server_stream *stream, bool whole, const struct backend_settings *settings) {
    struct h2_server_stream *s = of_stream(stream);
    struct h2_server *h = s->owner;
    (void)whole;
    if (!h) {
        end_stream(s, s->deadline.loop);
        return;
    }
    struct loop *loop = h->conn->conn.loop;
    h->kept = settings && settings->keepalive > 0;
    h->keepalive_idle = settings ? settings->keepalive_idle : 0;
    deadline_clear(&s->deadline);
    if (s->over) {
        end_stream(s, loop);
    } else if (s->h2.id) {
        if (s->h2.ended && s->h2.sent_end) h2_dismiss(&s->h2); /* it closes by itself, right now */
        else h2_reset(&s->h2, H2_CANCEL);
    } else { /* it was never sent */
        h->stream_count--;
        end_stream(s, loop);
    }
    wake(h);
}

static const struct server_stream_ops stream_ops = {
    .send_head = send_head,
    .room = room,
    .send = send_body,
    .end = end_body,
    .read_head = read_head,
    .read_body = read_body,
    .begin_tunnel = begin_tunnel,
    .deadline = set_deadline,
    .flushed = is_flushed,
    .give_back = give_back,
};

/* ---- the conn */

/* Nothing more comes on it. What it had received whole can still be taken. */
static void break_stream(struct h2_server_stream *s, enum failure why) {
    struct h2_server *h = s->owner;
    if (!s->over) h->stream_count--;
    s->over = true;
    s->h2.id = 0;
    if (!s->stream.borrower) end_stream(s, h->conn->conn.loop);
    else if (!s->whole) tell_broken(s, why);
}

/* The conn is gone under its streams. */
static void break_streams(struct h2_server *h, enum failure why) {
    h->leaving = true;
    list_each_safe(node, &h->streams) break_stream(of_node(node), why);
}

/* The protocol has ended, most likely for a breach of it: nothing is read any more, though the conn still stands. What
 * was not sent yet is refused when somebody tries (send_head). */
static void end_sent(struct h2_server *h) {
    h->leaving = true;
    conn_flush(&h->conn->conn); /* the GOAWAY */
    list_each_safe(node, &h->streams) {
        if (of_node(node)->h2.id) break_stream(of_node(node), FAIL_RESET);
    }
}

static void advance(struct task *t) {
    struct h2_server *h = container_of(t, struct h2_server, task);
    struct conn *conn = &h->conn->conn;
    if (conn->state == CONN_CLOSED) return;
    size_t before = conn->out.size;
    if (h->h2 && conn_room(conn)) h2_write(h->h2, &conn->out, conn->out_limit);
    if (conn->out.size != before) conn_wrote(conn);
    if (h->h2 && h2_over(h->h2)) end_sent(h);
    settle(h);
}

static struct h2_server *of_conn(struct conn *c) { return server_conn_of(c)->h2; }

static void end_conn(struct h2_server *h, enum failure why) {
    break_streams(h, why);
    server_conn_unshare(h->conn);
    server_conn_close(h->conn);
}

static void on_bytes(struct conn *c) {
    struct h2_server *h = of_conn(c);
    bool fine = h->h2 && h2_feed(h->h2, &c->in, UINT_MAX);
    if (!fine) {
        end_conn(h, FAIL_BAD_RESPONSE);
        return;
    }
    conn_consumed(c);
    wake(h);
}

static void on_conn_end(struct conn *c) { end_conn(of_conn(c), FAIL_RESET); }
static void on_broken(struct conn *c, enum failure why) {
    server_conn_complain(server_conn_of(c), why);
    end_conn(of_conn(c), why);
}

/* Whether a TLS server speaks HTTP/2 is known once it has said so; until then nobody shares a conn to it. */
static bool agreed(struct server_conn *sc) {
    bool h2 = !sc->trust || conn_tls_alpn(&sc->conn) == TLS_ALPN_H2;
    atomic_store_explicit(&sc->server->speaks_h2, h2, memory_order_relaxed);
    return h2;
}

/* A server that spoke HTTP/2 does so no more: the first of those who waited gets this conn as it is, the others their
 * own. Nobody has sent anything yet. */
static void fini(struct server_conn *);

static void fall_back(struct h2_server *h) {
    struct server_conn *sc = h->conn;
    struct borrower *first = NULL;
    server_conn_unshare(sc);
    list_each_safe(node, &h->streams) {
        struct h2_server_stream *s = of_node(node);
        struct borrower *b = s->stream.borrower;
        end_stream(s, sc->conn.loop);
        if (b && first) server_conn_open_another(sc, b);
        else if (b) first = b;
    }
    fini(sc);
    if (first) server_conn_become(sc, &server_h1, first);
    else server_conn_close(sc);
}

static void on_connected(struct conn *c) {
    struct h2_server *h = of_conn(c);
    if (!agreed(h->conn)) {
        fall_back(h);
        return;
    }
    h->h2 = h2_open(H2_CLIENT, &limits, &h2_handlers, h);
    conn_deadline(c, 0);
    list_each_safe(node, &h->streams) {
        struct h2_server_stream *s = of_node(node);
        s->stream.connected = true;
        deadline_clear(&s->deadline);
        if (s->stream.borrower) s->stream.borrower->handlers->on_connected(s->stream.borrower);
    }
    wake(h);
}

static void on_conn_room(struct conn *c) { wake(of_conn(c)); }

/* Connecting took too long, or nobody has borrowed for a while. */
static void on_conn_deadline(struct conn *c) { end_conn(of_conn(c), FAIL_CONNECT_TIMEOUT); }

static const struct conn_handlers handlers = {
    .on_bytes = on_bytes,
    .on_end = on_conn_end,
    .on_broken = on_broken,
    .on_connected = on_connected,
    .on_room = on_conn_room,
    .on_flushed = on_conn_room,
    .on_deadline = on_conn_deadline,
};

/* ---- lending */

/* A conn on which nothing at all has come meanwhile may be one whose server is gone without a word: others shall not
 * wait for it too. */
static void on_stream_deadline(struct deadline *d) {
    struct h2_server_stream *s = container_of(d, struct h2_server_stream, deadline);
    struct borrower *b = s->stream.borrower;
    if (s->owner && s->h2.id && s->heard == s->owner->conn->conn.received) {
        s->owner->leaving = true;
        wake(s->owner);
    }
    if (b) b->handlers->on_deadline(b);
}

static struct h2_server *h2_server_of(struct server_conn *sc) {
    if (sc->h2) return sc->h2;
    struct h2_server *h = must_calloc(1, sizeof *h);
    h->conn = sc;
    h->kept = true; /* until a borrower knows better */
    list_init(&h->streams);
    task_init(&h->task, advance);
    sc->h2 = h;
    return h;
}

static void lend(struct server_conn *sc, struct borrower *b) {
    struct h2_server *h = h2_server_of(sc);
    struct h2_server_stream *s = slab_take_zeroed(&streams);
    grave_init(&s->grave, stream_bury);
    deadline_init(&s->deadline, sc->conn.loop, on_stream_deadline);
    s->owner = h;
    s->stream =
        (struct server_stream){ .ops = &stream_ops, .conn = sc, .connected = h->h2 != NULL, .fresh = sc->uses == 1 };
    list_push(&h->streams, &s->node);
    h->stream_count++;
    server_stream_lend(&s->stream, b);
    settle(h);
}

void server_h2_retire(struct server_conn *sc) {
    sc->h2->leaving = true;
    settle(sc->h2);
}

static void fini(struct server_conn *sc) {
    struct h2_server *h = sc->h2;
    if (!h) return;
    task_forget(&h->task);
    list_each_safe(node, &h->streams) { /* lent ones, whose borrowers have yet to give them back */
        struct h2_server_stream *s = of_node(node);
        list_remove(node);
        s->owner = NULL;
        s->h2.h2 = NULL;
    }
    h2_close(h->h2);
    free(h);
    sc->h2 = NULL;
}

const struct server_protocol server_h2 = { .handlers = &handlers, .lend = lend, .fini = fini };
