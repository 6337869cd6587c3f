/* The client's side of HTTP/1: heads in, answers out, in order.
 *
 * One exchange at a time. What a client pipelines behind it waits in conn.in, bounded, and reading stops when that is
 * full. The request body is decoded straight into the exchange's pipe as far as the pipe has room; the rest waits in
 * conn.in as well, so back-pressure needs no state of its own.
 *
 * The deadline has one meaning at a time: idle, head, or, during an exchange, progress: that the client sends the
 * body it owes or takes the answer we wrote. */
#include "base/log.h"
#include "http/date.h"
#include "http/framing.h"
#include "proxy/exchange.h"

static struct client *of_stream(struct stream *s) { return container_of(s, struct client, h1.stream); }
static struct client *of_reader(struct pipe_reader *r) { return container_of(r, struct client, h1.stream.reader); }
static struct exchange *exchange_of(const struct client *c) { return c->h1.stream.exchange; }

static const struct timeouts *timeouts_of(const struct client *c) {
    const struct exchange *x = exchange_of(c);
    return x && x->site ? &x->site->timeouts : client_timeouts(c);
}

static void leave(struct client *c) {
    struct exchange *x = exchange_of(c);
    pipe_remove_reader(&c->h1.stream.reader);
    c->h1.stream.exchange = NULL;
    c->h1.tunnel_up = NULL;
    if (x) exchange_client_left(x);
}

/* ---- heads */

static void await_head(struct client *c) {
    bool begun = c->h1.scan.started;
    c->h1.state = begun ? H1_HEAD : H1_IDLE;
    const struct timeouts *t = client_timeouts(c);
    conn_deadline(&c->conn, begun || c->h1.requests == 0 ? t->head : t->idle);
}

static void begin_exchange(struct client *c, struct exchange *x) {
    struct h1_client *h = &c->h1;
    h->stream.exchange = x;
    h->stream.body_unread = false;
    h->state = H1_EXCHANGE;
    h->requests++;
    h->scan = (struct h1_scan){ 0 };
    h->keep_alive = false;
    h->last_request = false;
    conn_deadline(&c->conn, timeouts_of(c)->between);
}

static void refuse_head(struct client *c, struct exchange *x, enum failure why) {
    begin_exchange(c, x);
    exchange_begin_failed(x, why);
}

/* The first byte of a handshake's record (RFC 8446 5.1), where a method begins. */
static bool is_tls(const struct client *c) { return !c->conn.tls && *buffer_front(&c->conn.in).p == 22; }

static void note_tls(const struct client *c) {
    struct worker *w = client_worker(c);
    char text[ADDR_TEXT];
    metric_add(w->metrics->misplaced_tls, w->loop.index, 1);
    log_debug("%s: %.*s speaks TLS, which this listener does not", c->listener->name, FMT(addr_text(&c->addr, text)));
}

/* Whoever begins a connection with TLS where none is spoken, or one that may speak HTTP/2 with something that is
 * neither, would not understand a page of ours. */
static void refuse_bytes(struct client *c, struct exchange *x, enum failure why) {
    bool first = c->h1.requests == 0, tls = first && is_tls(c);
    if (!tls && !(first && c->may_speak_h2)) {
        refuse_head(c, x, why);
        return;
    }
    if (tls) note_tls(c);
    exchange_forget(x);
    client_close(c);
}

/* Last bytes leave; what still comes is read away for a moment, lest a RST destroy them on their way. */
static void linger(struct client *c) {
    c->h1.state = H1_LINGER;
    if (c->h1.last_request && !c->h1.stream.body_unread && c->conn.in.size == 0) conn_finish(&c->conn);
    else conn_linger(&c->conn);
}

/* Nothing more is wanted of it. What it has not taken yet of the last answer is still sent. */
static void end_idle(struct client *c) {
    if (c->conn.out.size) linger(c);
    else client_close(c);
}

static void take_head(struct client *c, struct exchange *x) {
    struct h1_client *h = &c->h1;
    conn_consumed(&c->conn);
    begin_exchange(c, x);
    enum failure why = c->misplaced ? FAIL_PLAIN_ON_TLS : framing_of_request(&x->request);
    if (why != FAIL_NONE) {
        exchange_begin_failed(x, why);
        return;
    }
    h1_body_start(&h->body, &x->request.framing, &x->request.trailers);
    h->stream.body_unread = !h->body.done;
    h->last_request = !x->request.framing.keep_alive;
    exchange_begin(x);
}

/* Reads the next head, if it is there whole. It waits while the client does not take the answers it has: bodies wait
 * for room, but a thousand pipelined HEADs are answered by heads alone. */
static void read_head(struct client *c) {
    if (conn_room(&c->conn) == 0) return;
    struct h1_scan *scan = &c->h1.scan;
    bool was_started = scan->started;
    struct exchange *x = exchange_create(&c->h1.stream);
    enum failure why = FAIL_NONE;
    switch (h1_read_request(scan, &c->conn.in, client_limits(c), &x->arena, &x->request, &why)) {
    case H1_MORE:
        exchange_forget(x);
        if (scan->started && !was_started) await_head(c);
        if (c->conn.ended) linger(c);
        return;
    case H1_FAILED: refuse_bytes(c, x, why); return;
    case H1_DONE: take_head(c, x); return;
    }
}

/* ---- the request body */

static bool read_body_part(struct client *c, struct exchange *x) {
    size_t room = pipe_room(&x->request_body);
    if (room == 0) return false;
    struct buffer content = { 0 };
    enum h1_result result = h1_body_read(&c->h1.body, &c->conn.in, &content, room);
    bool moved = content.size > 0;
    if (!exchange_count_in(x, content.size)) {
        buffer_fini(&content);
        return false;
    }
    if (result == H1_DONE) c->h1.stream.body_unread = false;
    if (moved) pipe_write(&x->request_body, &content, content.size);
    buffer_fini(&content);
    if (result == H1_DONE) pipe_end(&x->request_body, &x->request.trailers);
    if (result == H1_FAILED) exchange_request_failed(x, FAIL_BAD_BODY);
    return result == H1_MORE && moved;
}

static void read_request_body(struct client *c) {
    struct stream *s = &c->h1.stream;
    struct exchange *x = s->exchange;
    if (!x || !s->body_unread || !x->site) return;
    size_t before = c->conn.in.size;
    while (s->body_unread && s->exchange == x && read_body_part(c, x)) {}
    if (c->closed || c->h1.state != H1_EXCHANGE) return;
    if (c->conn.in.size != before) conn_consumed(&c->conn);
    if (!s->body_unread) conn_deadline(&c->conn, x->site->timeouts.between);
    else if (c->conn.ended && pipe_room(&x->request_body) > 0) client_close(c);
    else conn_deadline(&c->conn, x->site->timeouts.body);
}

/* ---- a tunnel: what comes goes up as it is */

static void read_tunnel(struct client *c) {
    struct pipe *up = c->h1.tunnel_up;
    if (!up) return;
    size_t room = pipe_room(up), n = c->conn.in.size < room ? c->conn.in.size : room;
    if (n) {
        pipe_write(up, &c->conn.in, n);
        conn_consumed(&c->conn);
    }
    if (!c->conn.ended || c->conn.in.size || !c->h1.tunnel_up) return;
    c->h1.tunnel_up = NULL;
    pipe_end(up, NULL);
}

static void begin_tunnel(struct stream *s, struct pipe *up) {
    struct client *c = of_stream(s);
    c->h1.state = H1_TUNNEL;
    c->h1.tunnel_up = up;
    c->h1.chunked = false;
    c->h1.keep_alive = false;
    conn_deadline(&c->conn, 0);
    read_tunnel(c);
}

static void read_body(struct stream *s) {
    struct client *c = of_stream(s);
    if (c->h1.state == H1_TUNNEL) read_tunnel(c);
    else read_request_body(c);
}

/* ---- events */

static void on_bytes(struct conn *conn) {
    struct client *c = client_of_conn(conn);
    switch ((enum h1_state)c->h1.state) {
    case H1_IDLE:
    case H1_HEAD: read_head(c); break;
    case H1_EXCHANGE: read_request_body(c); break;
    case H1_TUNNEL: read_tunnel(c); break;
    case H1_LINGER: break;
    }
}

/* A FIN: before the request is complete the client has left; afterwards it only says that no more requests come. */
static void end_request(struct client *c) {
    struct stream *s = &c->h1.stream;
    struct exchange *x = s->exchange;
    if (s->body_unread) read_request_body(c);
    if (s->exchange != x) return;
    bool owes_body = s->body_unread && c->conn.in.size == 0;
    if (owes_body || (x->site && x->site->abort_on_fin)) client_close(c);
}

static void on_end(struct conn *conn) {
    struct client *c = client_of_conn(conn);
    bool waits = c->conn.in.size && conn_room(&c->conn) == 0; /* requests that are read when there is room */
    c->h1.stream.ended = true;
    switch ((enum h1_state)c->h1.state) {
    case H1_IDLE:
    case H1_HEAD:
        if (!waits) end_idle(c);
        break;
    case H1_EXCHANGE: end_request(c); break;
    case H1_TUNNEL: read_tunnel(c); break;
    case H1_LINGER: break;
    }
}

static void on_broken(struct conn *conn, enum failure why) {
    (void)why;
    client_close(client_of_conn(conn));
}

static void on_secured(struct conn *conn) {
    struct exchange *x = exchange_of(client_of_conn(conn));
    if (x) exchange_wake(x); /* it may have waited for this */
}

static void on_room(struct conn *conn) {
    struct client *c = client_of_conn(conn);
    pipe_reader_has_room(&c->h1.stream.reader);
    if (!c->closed && c->h1.state <= H1_HEAD && c->conn.in.size) read_head(c);
}

/* During an exchange: does the client neither send what it owes nor take what we wrote? */
static void check_progress(struct client *c) {
    struct exchange *x = exchange_of(c);
    /* Who has an answer to take does not live by talking. */
    uint64_t moved = conn_progress(&c->conn) + (c->conn.out.size ? 0 : c->conn.received);
    bool still = moved == c->h1.mark;
    bool owes = c->h1.stream.body_unread && x && pipe_room(&x->request_body) > 0 && !x->expects_continue;
    c->h1.mark = moved;
    if (still && c->conn.out.size > 0) {
        client_close(c);
        return;
    }
    conn_deadline(&c->conn, timeouts_of(c)->between);
    if (owes) exchange_request_failed(x, FAIL_BODY_TIMEOUT);
}

static void on_deadline(struct conn *conn) {
    struct client *c = client_of_conn(conn);
    switch ((enum h1_state)c->h1.state) {
    case H1_HEAD: refuse_head(c, exchange_create(&c->h1.stream), FAIL_HEAD_TIMEOUT); break;
    case H1_EXCHANGE: check_progress(c); break;
    case H1_IDLE: end_idle(c); break;
    case H1_LINGER: client_close(c); break;
    case H1_TUNNEL: break;
    }
}

static const struct conn_handlers handlers = {
    .on_bytes = on_bytes,
    .on_end = on_end,
    .on_broken = on_broken,
    .on_secured = on_secured,
    .on_room = on_room,
    .on_deadline = on_deadline,
};

/* ---- the answer's head */

static void send_informational(struct stream *s, const struct response *r) {
    struct client *c = of_stream(s);
    if (s->exchange->request.version < HTTP_1_1) return;
    h1_write_response(&c->conn.out, r, SLICE(""));
    conn_wrote(&c->conn);
}

static bool may_keep_alive(const struct client *c) {
    bool more = !c->conn.ended || c->conn.in.size; /* a FIN behind pipelined requests */
    return exchange_of(c)->request.framing.keep_alive && !client_worker(c)->draining && more;
}

/* The lines of an answer's head that are ours, made on the stack. */
struct lines {
    size_t n;
    char text[1024];
};

static void add_text(struct lines *l, struct slice s) {
    memcpy(l->text + l->n, s.p, s.n);
    l->n += s.n;
}

static void add_length(struct lines *l, uint64_t length) {
    char digits[20];
    size_t n = sizeof digits;
    do digits[--n] = (char)('0' + length % 10);
    while ((length /= 10) > 0);
    add_text(l, SLICE("Content-Length: "));
    add_text(l, slice_make(digits + n, sizeof digits - n));
    add_text(l, SLICE("\r\n"));
}

/* HEAD tells the length that a GET would have had, and carries nothing. A backend's own Content-Length is among its
 * fields. */
static void add_told_length(struct lines *l, const struct response *r) {
    bool told = headers_find_id(&r->headers, HEADER_CONTENT_LENGTH) != NULL;
    if (!told && r->status >= 200 && r->status != 204 && r->status != 304 && r->framing.kind == FRAMING_LENGTH)
        add_length(l, r->framing.length);
}

static void choose_framing(struct client *c, const struct response *r, struct lines *l) {
    const struct request *request = &exchange_of(c)->request;
    c->h1.chunked = false;
    if (response_opens_tunnel(request->method, r->status)) return;
    if (!response_has_body(request->method, r->status)) {
        add_told_length(l, r);
    } else if (r->framing.kind == FRAMING_LENGTH || r->framing.kind == FRAMING_NONE) {
        add_length(l, r->framing.kind == FRAMING_LENGTH ? r->framing.length : 0);
    } else if (request->version >= HTTP_1_1) {
        c->h1.chunked = true;
        add_text(l, SLICE("Transfer-Encoding: chunked\r\n"));
    } else {
        c->h1.keep_alive = false;
    }
}

/* A switch, or the demand for one (426, RFC 9110 15.5.22), names its protocols. */
static struct slice told_upgrade(const struct response *r) {
    return r->status == 101 || r->status == 426 ? framing_upgrade(&r->headers) : slice_make(NULL, 0);
}

static void add_connection(struct client *c, const struct response *r, struct lines *l) {
    struct slice upgrade = told_upgrade(r);
    if (response_opens_tunnel(exchange_of(c)->request.method, r->status)) return;
    if (upgrade.n) {
        add_text(l, SLICE("Upgrade: "));
        add_text(l, upgrade);
        add_text(l, SLICE("\r\nConnection: Upgrade"));
        add_text(l, r->status == 101 || c->h1.keep_alive ? SLICE("\r\n") : SLICE(", close\r\n"));
    } else if (!c->h1.keep_alive) {
        add_text(l, SLICE("Connection: close\r\n"));
    } else if (exchange_of(c)->request.version < HTTP_1_1) {
        add_text(l, SLICE("Connection: keep-alive\r\n"));
    }
}

static void send_head(struct stream *s, const struct response *r) {
    struct client *c = of_stream(s);
    struct lines l = { .n = 0 };
    c->h1.keep_alive = may_keep_alive(c);
    choose_framing(c, r, &l);
    if (!headers_find_id(&r->headers, HEADER_DATE)) {
        add_text(&l, SLICE("Date: "));
        add_text(&l, date_now());
        add_text(&l, SLICE("\r\n"));
    }
    add_text(&l, SLICE("Via: "));
    add_text(&l, http_via(r->version));
    add_text(&l, SLICE("\r\n"));
    add_connection(c, r, &l);
    h1_write_response(&c->conn.out, r, slice_make(l.text, l.n));
    conn_wrote(&c->conn);
}

/* ---- its body */

static size_t answer_room(struct pipe_reader *r) { return conn_room(&of_reader(r)->conn); }

static void answer_take(struct pipe_reader *r, struct buffer *bytes) {
    struct client *c = of_reader(r);
    exchange_of(c)->bytes_out += bytes->size;
    h1_write_body(&c->conn.out, bytes, c->h1.chunked);
    conn_wrote(&c->conn);
    if (c->h1.state != H1_TUNNEL) conn_deadline(&c->conn, timeouts_of(c)->between);
}

static void answer_end(struct pipe_reader *r, const struct headers *trailers) {
    struct client *c = of_reader(r);
    if (c->h1.state == H1_TUNNEL) {
        conn_shut(&c->conn);
    } else {
        if (c->h1.chunked) h1_write_last_chunk(&c->conn.out, trailers);
        conn_wrote(&c->conn);
    }
    exchange_body_sent(exchange_of(c));
}

static void answer_fail(struct pipe_reader *r, enum failure why) {
    exchange_body_failed(exchange_of(of_reader(r)), why);
}

static const struct pipe_reader_ops answer_ops = { answer_room, answer_take, answer_end, answer_fail };

/* ---- the end of an exchange */

static void let_go(struct client *c) {
    pipe_remove_reader(&c->h1.stream.reader);
    c->h1.stream.exchange = NULL;
    c->h1.tunnel_up = NULL;
}

static void finish(struct stream *s) {
    struct client *c = of_stream(s);
    let_go(c);
    if (!c->h1.keep_alive || s->body_unread || client_worker(c)->draining) {
        linger(c);
        return;
    }
    await_head(c);
    if (c->conn.in.size) read_head(c);
    else if (c->conn.ended) linger(c);
}

/* A client that got part of an answer must see that it is not whole: one with a length or chunks by an early end,
 * behind all that there was of it; one that lasts until close only by a reset. */
static void abort_answer(struct stream *s) {
    struct client *c = of_stream(s);
    bool until_close = !c->h1.chunked && s->exchange->response.framing.kind != FRAMING_LENGTH;
    let_go(c);
    if (!until_close) {
        linger(c);
        return;
    }
    conn_reset(&c->conn);
    client_close(c);
}

static void leave_stream(struct stream *s) { client_close(of_stream(s)); }

static const struct stream_ops stream_ops = {
    .send_informational = send_informational,
    .send_head = send_head,
    .read_body = read_body,
    .finish = finish,
    .abort = abort_answer,
    .leave = leave_stream,
    .begin_tunnel = begin_tunnel,
};

/* ---- its own beginning and end */

static void begin(struct client *c) {
    struct stream *s = &c->h1.stream;
    s->ops = &stream_ops;
    s->client = c;
    s->reader.ops = &answer_ops;
    await_head(c);
    if (c->conn.in.size) read_head(c);
}

static void drain(struct client *c) {
    if (c->h1.state == H1_IDLE) end_idle(c);
}

const struct client_protocol client_h1 = { .handlers = &handlers, .begin = begin, .drain = drain, .leave = leave };
