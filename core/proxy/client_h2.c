/* The client's side of HTTP/2: many streams on one conn, each with its exchange. http/h2.c speaks the protocol; here
 * its events become what exchanges know, and what they answer becomes frames.
 *
 * Frames are written in one place, the task, after the exchanges of the turn have had their say, and no further than
 * conn.out has room: so what nghttp2 sends next is decided late, by priority, and a client that does not read costs one
 * buffer and a bounded `out` for each stream.
 *
 * Time. The conn's deadline ticks: with no stream it means idle, else it looks for streams that owe content or do not
 * take what they are sent. */
#include "base/must.h"
#include "base/slab.h"
#include "http/date.h"
#include "http/framing.h"
#include "http/h2.h"
#include "proxy/exchange.h"

#include <stdio.h>
#include <stdlib.h>

enum { STREAMS_MAX = 128, STREAMS_A_TURN = 32 };
static const double GOAWAY_SECONDS = 1; /* between the first word of a graceful end and the last */

struct h2_client {
    struct client *client;
    struct h2 *h2;
    struct task task; /* feeds what is left, writes what is to be sent */
    struct grave grave;
    struct list streams;
    uint32_t requests; /* so far */
    uint64_t progress; /* conn_progress at the last tick */
    double sent_at;    /* loop time at which that had changed */
    bool leaving;      /* GOAWAY was said: closes when the last stream is done */
    bool warned;       /* the first step of a graceful end */
};

struct h2_client_stream {
    struct stream stream;
    struct h2_stream h2;
    struct list node;
    struct grave grave;
    struct h2_client *owner;
    struct exchange *coming; /* its head is not complete yet */
    struct pipe *tunnel_up;
    bool tunnel;
    bool end_told;   /* the answer's end was said with its head */
    uint64_t sent;   /* h2.sent at the last tick */
    double moved_at; /* loop time of the last content either way */
};

static _Thread_local struct slab streams = SLAB(struct h2_client_stream, 64);

static struct h2_client_stream *of_stream(struct stream *s) { return container_of(s, struct h2_client_stream, stream); }
static struct h2_client_stream *of_h2(struct h2_stream *s) { return container_of(s, struct h2_client_stream, h2); }
static struct h2_client_stream *of_reader(struct pipe_reader *r) {
    return container_of(r, struct h2_client_stream, stream.reader);
}

static struct loop *loop_of(const struct h2_client *h) { return h->client->conn.loop; }
static void wake(struct h2_client *h) { task_wake(loop_of(h), &h->task); }
static void note_moved(struct h2_client_stream *s) { s->moved_at = loop_now(loop_of(s->owner)); }

static double least(double a, double b) { return b > 0 && (a == 0 || b < a) ? b : a; }

/* The deadline of the conn: the next look at the streams; without any, the end of idling. That of a graceful end stays
 * as it is. */
static void await(struct h2_client *h, bool busy) {
    const struct timeouts *t = client_timeouts(h->client);
    if (h->warned && !h->leaving) return;
    double idle = h->requests ? t->idle : t->head;
    conn_deadline(&h->client->conn, busy ? least(t->head, least(t->body, t->between)) : idle);
}

/* ---- a stream's life */

static void stream_bury(struct grave *g) {
    struct h2_client_stream *s = container_of(g, struct h2_client_stream, grave);
    slab_give(&streams, s);
}

/* The exchange, if there still is one, is told that its client left. */
static void end_stream(struct h2_client_stream *s) {
    struct exchange *x = s->stream.exchange;
    pipe_remove_reader(&s->stream.reader);
    list_remove(&s->node);
    if (s->coming) exchange_forget(s->coming);
    s->coming = s->stream.exchange = NULL;
    s->tunnel_up = NULL;
    if (x) exchange_client_left(x);
    h2_stream_fini(&s->h2);
    loop_bury(loop_of(s->owner), &s->grave);
}

static const struct stream_ops stream_ops;
static const struct pipe_reader_ops answer_ops;

static struct h2_stream *on_begin(struct h2 *h2) {
    struct h2_client *h = h2_owner(h2);
    if (h->leaving) return NULL;
    struct h2_client_stream *s = slab_take_zeroed(&streams);
    grave_init(&s->grave, stream_bury);
    s->owner = h;
    s->stream.ops = &stream_ops;
    s->stream.reader.ops = &answer_ops;
    s->stream.client = h->client;
    s->coming = exchange_create(&s->stream);
    s->h2.message.request = &s->coming->request;
    s->h2.trailers = &s->coming->request.trailers;
    if (list_empty(&h->streams)) await(h, true);
    list_push(&h->streams, &s->node);
    note_moved(s);
    return &s->h2;
}

static void on_close(struct h2_stream *hs, uint32_t error) {
    (void)error;
    struct h2_client_stream *s = of_h2(hs);
    struct h2_client *h = s->owner;
    end_stream(s);
    if (list_empty(&h->streams)) await(h, false);
    wake(h);
}

/* ---- the request */

static void on_head(struct h2_stream *hs, enum failure why, bool end) {
    struct h2_client_stream *s = of_h2(hs);
    struct exchange *x = s->coming;
    s->coming = NULL;
    s->stream.exchange = x;
    s->stream.body_unread = !end && x->request.framing.kind != FRAMING_NONE;
    s->owner->requests++;
    if (why == FAIL_NONE) exchange_begin(x);
    else exchange_begin_failed(x, why);
}

static void read_tunnel(struct h2_client_stream *s) {
    struct pipe *up = s->tunnel_up;
    struct buffer bytes = { 0 };
    size_t n = h2_take(&s->h2, &bytes, pipe_room(up));
    if (n) pipe_write(up, &bytes, n);
    if (n) wake(s->owner);
    if (!s->tunnel_up || !s->h2.ended || s->h2.in.size) return;
    s->tunnel_up = NULL;
    pipe_end(up, NULL);
}

static bool read_body_part(struct h2_client_stream *s, struct exchange *x) {
    struct buffer content = { 0 };
    size_t n = h2_take(&s->h2, &content, pipe_room(&x->request_body));
    if (n == 0) return false;
    wake(s->owner); /* its window is open again */
    if (!exchange_count_in(x, n)) {
        buffer_fini(&content);
        return false;
    }
    pipe_write(&x->request_body, &content, n);
    return true;
}

static void read_request_body(struct h2_client_stream *s) {
    struct exchange *x = s->stream.exchange;
    note_moved(s); /* if nothing has come, it owes something from now on */
    while (s->stream.exchange == x && read_body_part(s, x)) {}
    if (s->stream.exchange != x || !s->h2.ended || s->h2.in.size || !s->stream.body_unread) return;
    if (x->request_body.state != PIPE_OPEN) return;
    s->stream.body_unread = false;
    pipe_end(&x->request_body, &x->request.trailers);
}

static void read_body(struct stream *stream) {
    struct h2_client_stream *s = of_stream(stream);
    if (s->tunnel_up) read_tunnel(s);
    else if (stream->exchange && stream->exchange->site && stream->body_unread) read_request_body(s);
}

static void on_more(struct h2_stream *hs) { read_body(&of_h2(hs)->stream); }

/* ---- the answer */

static void send_informational(struct stream *stream, const struct response *r) {
    struct h2_client_stream *s = of_stream(stream);
    h2_send_response(&s->h2, r, NULL, false);
    wake(s->owner);
}

static void add_length(struct headers *extra, uint64_t length) {
    char digits[20];
    size_t n = sizeof digits;
    do digits[--n] = (char)('0' + length % 10);
    while ((length /= 10) > 0);
    headers_add_id(extra, HEADER_CONTENT_LENGTH, arena_copy(extra->arena, slice_make(digits + n, sizeof digits - n)));
}

/* HEAD and 304 tell the length that a GET would have had; a backend's own is among its fields. */
static void add_framing(struct headers *extra, const struct response *r, bool body) {
    bool told = headers_find_id(&r->headers, HEADER_CONTENT_LENGTH) && !body;
    bool may_tell = r->status >= 200 && r->status != 204 && (body || r->status != 304);
    if (r->framing.kind == FRAMING_LENGTH && may_tell && !told) add_length(extra, r->framing.length);
    else if (r->framing.kind == FRAMING_NONE && body) add_length(extra, 0);
}

/* An upgrade that was granted: for an extended CONNECT a 200 (RFC 8441 4), whose key nobody asked for. */
static void grant_upgrade(struct h2_client_stream *s, struct response *r) {
    s->tunnel = true;
    r->status = 200;
    headers_remove(&r->headers, SLICE("Sec-WebSocket-Accept"));
    r->framing = (struct framing){ .kind = FRAMING_CHUNKED };
}

/* Whoever knows nothing of an upgrade answers as if it had not been asked for. To an extended CONNECT that answer, too,
 * would say that the tunnel stands (RFC 8441 4); what it does say is 501, as RFC 9220 3 has it for unknown
 * protocols. */
static bool is_taken_for_grant(const struct h2_client_stream *s, const struct response *r) {
    return s->h2.protocol.p && r->status >= 200 && r->status < 300;
}

static void send_head(struct stream *stream, const struct response *response) {
    struct h2_client_stream *s = of_stream(stream);
    struct exchange *x = stream->exchange;
    struct response r = *response;
    struct headers extra;
    headers_init(&extra, &x->arena);
    if (r.status == 101) grant_upgrade(s, &r);
    else if (is_taken_for_grant(s, &r)) r.status = 501;
    if (response_opens_tunnel(x->request.method, r.status)) s->tunnel = true;
    bool body = s->tunnel || response_has_body(x->request.method, r.status);
    bool empty = r.framing.kind == FRAMING_NONE || (r.framing.kind == FRAMING_LENGTH && r.framing.length == 0);
    if (!s->tunnel) add_framing(&extra, &r, body);
    if (!headers_find_id(&r.headers, HEADER_DATE)) headers_add_id(&extra, HEADER_DATE, date_now());
    headers_add_id(&extra, HEADER_VIA, http_via(r.version));
    s->end_told = !s->tunnel && (!body || empty);
    h2_send_response(&s->h2, &r, &extra, s->end_told);
    wake(s->owner);
}

static size_t answer_room(struct pipe_reader *r) { return h2_room(&of_reader(r)->h2); }

static void answer_take(struct pipe_reader *r, struct buffer *bytes) {
    struct h2_client_stream *s = of_reader(r);
    s->stream.exchange->bytes_out += bytes->size;
    if (s->h2.out.size == 0) note_moved(s);
    h2_send(&s->h2, bytes);
    wake(s->owner);
}

static void answer_end(struct pipe_reader *r, const struct headers *trailers) {
    struct h2_client_stream *s = of_reader(r);
    if (!s->end_told) h2_end(&s->h2, trailers);
    wake(s->owner);
    exchange_body_sent(s->stream.exchange);
}

static void answer_fail(struct pipe_reader *r, enum failure why) {
    exchange_body_failed(of_reader(r)->stream.exchange, why);
}

static const struct pipe_reader_ops answer_ops = { answer_room, answer_take, answer_end, answer_fail };

static void on_room(struct h2_stream *hs) {
    note_moved(of_h2(hs));
    pipe_reader_has_room(&of_h2(hs)->stream.reader);
}

/* ---- the end of an exchange: the stream lives on until its last frame has left */

/* Nothing that still comes may go into what was the exchange's. */
static void let_go(struct h2_client_stream *s) {
    pipe_remove_reader(&s->stream.reader);
    s->stream.exchange = NULL;
    s->tunnel_up = NULL;
    h2_dismiss(&s->h2);
    wake(s->owner);
}

static void finish(struct stream *stream) { let_go(of_stream(stream)); }

static void abort_answer(struct stream *stream) {
    let_go(of_stream(stream));
    h2_abort(&of_stream(stream)->h2, H2_INTERNAL_ERROR);
}

static void leave_stream(struct stream *stream) {
    struct exchange *x = stream->exchange;
    let_go(of_stream(stream));
    h2_reset(&of_stream(stream)->h2, H2_CANCEL);
    if (x) exchange_client_left(x);
}

static void begin_tunnel(struct stream *stream, struct pipe *up) {
    struct h2_client_stream *s = of_stream(stream);
    s->tunnel_up = up;
    read_tunnel(s);
}

static const struct stream_ops stream_ops = {
    .send_informational = send_informational,
    .send_head = send_head,
    .read_body = read_body,
    .finish = finish,
    .abort = abort_answer,
    .leave = leave_stream,
    .begin_tunnel = begin_tunnel,
};

static const struct h2_handlers h2_handlers = {
    .on_begin = on_begin,
    .on_head = on_head,
    .on_body = on_more,
    .on_end = on_more,
    .on_room = on_room,
    .on_close = on_close,
};

/* ---- the conn */

/* All was said: what waits in conn.out still leaves. Streams that are left will not be answered any more. */
static void linger(struct h2_client *h) {
    h->leaving = true;
    list_each(node, &h->streams) {
        struct h2_client_stream *s = container_of(node, struct h2_client_stream, node);
        if (s->stream.exchange) leave_stream(&s->stream);
    }
    conn_linger(&h->client->conn);
}

static void feed(struct h2_client *h) {
    struct conn *conn = &h->client->conn;
    if (!h2_feed(h->h2, &conn->in, STREAMS_A_TURN)) {
        h2_write(h->h2, &conn->out, SIZE_MAX); /* the GOAWAY, if there is one */
        conn_wrote(conn);
        linger(h);
        return;
    }
    conn_consumed(conn);
    wake(h);
}

static void advance(struct task *t) {
    struct h2_client *h = container_of(t, struct h2_client, task);
    struct conn *conn = &h->client->conn;
    if (conn->lingering || h->client->closed) return;
    if (conn->in.size) feed(h);
    if (conn->lingering) return;
    size_t before = conn->out.size;
    if (conn_room(conn)) h2_write(h->h2, &conn->out, conn->out_limit);
    if (conn->out.size != before) conn_wrote(conn);
    bool done = list_empty(&h->streams) && (h->leaving || conn->ended);
    if (h2_over(h->h2) || done) linger(h);
}

static struct h2_client *of_conn(struct conn *conn) { return client_of_conn(conn)->h2; }

static void on_bytes(struct conn *conn) { feed(of_conn(conn)); }

static void cancel(struct h2_client_stream *s) {
    if (s->stream.exchange) leave_stream(&s->stream);
    else h2_reset(&s->h2, H2_CANCEL);
}

/* Streams whose request is complete are still answered, unless their site does not want that; others never will be. */
static void on_conn_end(struct conn *conn) {
    struct h2_client *h = of_conn(conn);
    list_each(node, &h->streams) {
        struct h2_client_stream *s = container_of(node, struct h2_client_stream, node);
        const struct exchange *x = s->stream.exchange;
        s->stream.ended = true;
        if (!s->h2.ended || (x && x->site && x->site->abort_on_fin)) cancel(s);
    }
    wake(h);
}

static void on_broken(struct conn *conn, enum failure why) {
    (void)why;
    client_close(client_of_conn(conn));
}

static void on_secured(struct conn *conn) {
    list_each(node, &of_conn(conn)->streams) {
        struct exchange *x = container_of(node, struct h2_client_stream, node)->stream.exchange;
        if (x) exchange_wake(x); /* it may have waited for this */
    }
}

static void on_conn_room(struct conn *conn) { wake(of_conn(conn)); }

static void say_goodbye(struct h2_client *h) {
    h->leaving = true;
    h2_shut(h->h2, H2_NO_ERROR);
    await(h, true);
    wake(h);
}

/* Content is due from the client. Once its answer has begun, it is for the server to say what it still waits for: so
 * calls that stream both ways may be silent one way. */
static bool owes_body(const struct h2_client_stream *s) {
    const struct exchange *x = s->stream.exchange;
    return x && s->stream.body_unread && !x->head_sent && !x->expects_continue && pipe_room(&x->request_body) > 0;
}

static bool is_late(double still, double limit) { return limit > 0 && still >= limit; }

/* False: its head does not come, and nothing else can while it does not. */
static bool check_stream(struct h2_client_stream *s, double now) {
    struct exchange *x = s->stream.exchange;
    const struct timeouts *t = x && x->site ? &x->site->timeouts : client_timeouts(s->owner->client);
    bool waits = s->h2.out.size && s->owner->client->conn.out.size; /* for the connection, which is_stuck judges */
    if (s->h2.sent != s->sent || waits) s->moved_at = now;
    s->sent = s->h2.sent;
    double still = now - s->moved_at;
    if (s->coming) return !is_late(still, t->head);
    if (s->tunnel) return true;
    if (s->h2.out.size && is_late(still, t->between)) cancel(s);
    else if (owes_body(s) && is_late(still, t->body)) exchange_request_failed(x, FAIL_BODY_TIMEOUT);
    return true;
}

static void check_streams(struct h2_client *h) {
    double now = loop_now(loop_of(h));
    list_each(node, &h->streams) {
        if (check_stream(container_of(node, struct h2_client_stream, node), now)) continue;
        h2_shut(h->h2, H2_ENHANCE_YOUR_CALM);
        h2_write(h->h2, &h->client->conn.out, SIZE_MAX);
        conn_wrote(&h->client->conn);
        linger(h);
        return;
    }
}

/* Does the client take nothing of what was written? */
static bool is_stuck(struct h2_client *h) {
    const struct conn *conn = &h->client->conn;
    double now = loop_now(conn->loop);
    uint64_t before = h->progress;
    h->progress = conn_progress(conn);
    if (conn->out.size == 0 || h->progress != before) h->sent_at = now;
    return is_late(now - h->sent_at, client_timeouts(h->client)->between);
}

static void on_deadline(struct conn *conn) {
    struct client *c = client_of_conn(conn);
    struct h2_client *h = c->h2;
    if (!h->leaving && (list_empty(&h->streams) || h->warned)) {
        say_goodbye(h);
        return;
    }
    if (is_stuck(h)) {
        client_close(c);
        return;
    }
    check_streams(h);
    await(h, true);
    wake(h);
}

static const struct conn_handlers handlers = {
    .on_bytes = on_bytes,
    .on_end = on_conn_end,
    .on_broken = on_broken,
    .on_secured = on_secured,
    .on_room = on_conn_room,
    .on_flushed = on_conn_room,
    .on_deadline = on_deadline,
};

/* ---- its beginning and end */

static void h2_client_bury(struct grave *g) {
    struct h2_client *h = container_of(g, struct h2_client, grave);
    h2_close(h->h2);
    free(h);
}

static void begin(struct client *c) {
    const struct h1_limits *l = client_limits(c);
    struct h2_limits limits = { .head = l->head, .target = l->target, .fields = l->fields, .streams = STREAMS_MAX };
    struct h2_client *h = must_calloc(1, sizeof *h);
    h->client = c;
    c->h2 = h;
    list_init(&h->streams);
    task_init(&h->task, advance);
    grave_init(&h->grave, h2_client_bury);
    h->sent_at = loop_now(c->conn.loop);
    h->h2 = h2_open(H2_SERVER, &limits, &h2_handlers, h);
    await(h, false);
    wake(h);
}

/* Says that it will go, and a moment later what was the last stream it took (RFC 9113 6.8). */
static void drain(struct client *c) {
    struct h2_client *h = c->h2;
    if (h->warned) return;
    h->warned = true;
    h2_shut_gently(h->h2);
    conn_deadline(&c->conn, GOAWAY_SECONDS);
    wake(h);
}

static void leave(struct client *c) {
    struct h2_client *h = c->h2;
    task_forget(&h->task);
    list_each_safe(node, &h->streams) end_stream(container_of(node, struct h2_client_stream, node));
    loop_bury(c->conn.loop, &h->grave);
}

const struct client_protocol client_h2 = { .handlers = &handlers, .begin = begin, .drain = drain, .leave = leave };
