/* The client's side of HTTP/1.1: heads in, answers out, in order.
 *
 * One exchange at a time. What a client pipelines behind it waits in conn.in, bounded, and reading stops when that is
 * full. The request body is decoded straight into the exchange's pipe as far as the pipe has room; the rest waits in
 * conn.in as well, so back-pressure needs no state of its own.
 *
 * The deadline has one meaning at a time: idle, head, or, during an exchange, progress: that the client sends the
 * body it owes or takes the answer we wrote. */
#include "proxy/client.h"

#include "base/clock.h"
#include "base/slab.h"
#include "http/date.h"
#include "http/framing.h"
#include "proxy/exchange.h"
#include "proxy/handshake.h"

#include <unistd.h>

static _Thread_local struct slab clients = SLAB(struct client, 256);

static const struct timeouts fallback_timeouts = { .head = 10, .body = 30, .idle = 75, .between = 60 };
static const struct h1_limits fallback_limits = { .head = 32768, .target = 8192, .fields = 100 };

static struct client *of_conn(struct conn *c) { return container_of(c, struct client, conn); }

/* The site whose limits hold before the host is known; NULL while no generation serves this listener. */
static const struct site *listener_site(const struct client *c) {
    const struct generation *g = client_worker(c)->generation;
    if (!g || c->listener->id >= g->table_count || !g->tables[c->listener->id]) return NULL;
    return g->tables[c->listener->id]->first;
}

static const struct timeouts *timeouts_of(const struct client *c) {
    if (c->exchange && c->exchange->site) return &c->exchange->site->timeouts;
    const struct site *site = listener_site(c);
    return site ? &site->timeouts : &fallback_timeouts;
}

static const struct h1_limits *limits_of(const struct client *c) {
    const struct site *site = listener_site(c);
    return site ? &site->limits : &fallback_limits;
}

static void client_bury(struct grave *g) {
    struct client *c = container_of(g, struct client, grave);
    struct worker *w = client_worker(c);
    slab_give(&clients, c);
    worker_client_gone(w);
}

void client_close(struct client *c) {
    if (c->state == CLIENT_CLOSED) return;
    c->state = CLIENT_CLOSED;
    handshake_cancel(c->handshake);
    pipe_remove_reader(&c->reader);
    conn_close(&c->conn);
    list_remove(&c->node);
    loop_bury(c->conn.loop, &c->grave);
    struct exchange *x = c->exchange;
    c->exchange = NULL;
    if (x) exchange_client_left(x);
}

/* ---- heads */

static void await_head(struct client *c) {
    bool begun = c->scan.started;
    c->state = begun ? CLIENT_HEAD : CLIENT_IDLE;
    const struct timeouts *t = timeouts_of(c);
    conn_deadline(&c->conn, begun || c->requests == 0 ? t->head : t->idle);
}

static void begin_exchange(struct client *c, struct exchange *x) {
    c->exchange = x;
    c->state = CLIENT_EXCHANGE;
    c->requests++;
    c->scan = (struct h1_scan){ 0 };
    c->keep_alive = false;
    c->body_unread = false;
    c->last_request = false;
}

static void refuse_head(struct client *c, struct exchange *x, enum failure why) {
    begin_exchange(c, x);
    conn_deadline(&c->conn, timeouts_of(c)->between);
    exchange_begin_failed(x, why);
}

/* Last bytes leave; what still comes is read away for a moment, lest a RST destroy them on their way. */
static void linger(struct client *c) {
    c->state = CLIENT_LINGER;
    if (c->last_request && !c->body_unread && c->conn.in.size == 0) conn_finish(&c->conn);
    else conn_linger(&c->conn);
}

/* Nothing more is wanted of it. What it has not taken yet of the last answer is still sent. */
static void end_idle(struct client *c) {
    if (c->conn.out.size) linger(c);
    else client_close(c);
}

/* Reads the next head, if it is there whole. It waits while the client does not take the answers it has: bodies wait
 * for room, but a thousand pipelined HEADs are answered by heads alone. */
static void read_head(struct client *c) {
    if (conn_room(&c->conn) == 0) return;
    bool was_started = c->scan.started;
    struct exchange *x = exchange_create(c);
    enum failure why = FAIL_NONE;
    switch (h1_read_request(&c->scan, &c->conn.in, limits_of(c), &x->arena, &x->request, &why)) {
    case H1_MORE:
        exchange_forget(x);
        if (c->scan.started && !was_started) await_head(c);
        if (c->conn.ended) linger(c);
        return;
    case H1_FAILED: refuse_head(c, x, why); return;
    case H1_DONE: break;
    }
    conn_consumed(&c->conn);
    begin_exchange(c, x);
    conn_deadline(&c->conn, timeouts_of(c)->between);
    exchange_begin(x);
}

/* ---- the request body */

static bool read_body_part(struct client *c, struct exchange *x) {
    size_t room = pipe_room(&x->request_body);
    if (room == 0) return false;
    struct buffer content = { 0 };
    enum h1_result result = h1_body_read(&x->request_decoder, &c->conn.in, &content, room);
    bool moved = content.size > 0;
    x->bytes_in += content.size;
    if (x->bytes_in > x->site->max_body) {
        buffer_fini(&content);
        exchange_request_failed(x, FAIL_BODY_TOO_LARGE);
        return false;
    }
    if (result == H1_DONE) c->body_unread = false;
    if (moved) pipe_write(&x->request_body, &content, content.size);
    buffer_fini(&content);
    if (result == H1_DONE) pipe_end(&x->request_body, &x->request.trailers);
    if (result == H1_FAILED) exchange_request_failed(x, FAIL_BAD_BODY);
    return result == H1_MORE && moved;
}

void client_read_request_body(struct client *c) {
    struct exchange *x = c->exchange;
    if (!x || !c->body_unread || !x->site) return;
    size_t before = c->conn.in.size;
    while (c->body_unread && c->exchange == x && read_body_part(c, x)) {}
    if (c->state != CLIENT_EXCHANGE) return;
    if (c->conn.in.size != before) conn_consumed(&c->conn);
    if (!c->body_unread) conn_deadline(&c->conn, x->site->timeouts.between);
    else if (c->conn.ended && pipe_room(&x->request_body) > 0) client_close(c);
    else conn_deadline(&c->conn, x->site->timeouts.body);
}

/* ---- events */

static void client_on_bytes(struct conn *conn) {
    struct client *c = of_conn(conn);
    switch ((enum client_state)c->state) {
    case CLIENT_IDLE:
    case CLIENT_HEAD: read_head(c); break;
    case CLIENT_EXCHANGE: client_read_request_body(c); break;
    case CLIENT_TUNNEL:
    case CLIENT_LINGER:
    case CLIENT_CLOSED: break;
    }
}

/* A FIN: before the request is complete the client has left; afterwards it only says that no more requests come. */
static void client_on_end(struct conn *conn) {
    struct client *c = of_conn(conn);
    struct exchange *x = c->exchange;
    if (!x) {
        bool waits = c->conn.in.size && conn_room(&c->conn) == 0; /* requests that are read when there is room */
        if (c->state != CLIENT_LINGER && !waits) end_idle(c);
        return;
    }
    if (c->body_unread) client_read_request_body(c);
    if (c->exchange != x) return;
    bool owes_body = c->body_unread && c->conn.in.size == 0;
    if (owes_body || (x->site && x->site->abort_on_fin)) client_close(c);
}

static void client_on_broken(struct conn *conn, enum failure why) {
    client_note_broken(of_conn(conn), why);
    client_close(of_conn(conn));
}

static void client_on_room(struct conn *conn) {
    struct client *c = of_conn(conn);
    pipe_reader_has_room(&c->reader);
    if (c->state <= CLIENT_HEAD && c->conn.in.size) read_head(c);
}

/* During an exchange: does the client neither send what it owes nor take what we wrote? */
static void check_progress(struct client *c) {
    struct exchange *x = c->exchange;
    /* Who has an answer to take does not live by talking. */
    uint64_t moved = c->conn.sent + (c->conn.out.size ? 0 : c->conn.received);
    bool still = moved == c->mark;
    bool owes = c->body_unread && x && pipe_room(&x->request_body) > 0 && !x->expects_continue;
    c->mark = moved;
    if (still && c->conn.out.size > 0) {
        client_close(c);
        return;
    }
    conn_deadline(&c->conn, timeouts_of(c)->between);
    if (owes) exchange_request_failed(x, FAIL_BODY_TIMEOUT);
}

static void client_on_deadline(struct conn *conn) {
    struct client *c = of_conn(conn);
    switch ((enum client_state)c->state) {
    case CLIENT_HEAD: refuse_head(c, exchange_create(c), FAIL_HEAD_TIMEOUT); break;
    case CLIENT_EXCHANGE: check_progress(c); break;
    case CLIENT_IDLE: end_idle(c); break;
    case CLIENT_LINGER: client_close(c); break;
    case CLIENT_TUNNEL:
    case CLIENT_CLOSED: break;
    }
}

static const struct conn_handlers handlers = {
    .on_bytes = client_on_bytes,
    .on_end = client_on_end,
    .on_broken = client_on_broken,
    .on_room = client_on_room,
    .on_deadline = client_on_deadline,
    .on_hello = client_on_hello,
    .on_connected = client_on_handshake,
};

/* ---- the answer */

void client_send_informational(struct client *c, const struct response *r) {
    if (c->exchange->request.minor == 0) return;
    h1_write_response(&c->conn.out, r, SLICE(""));
    conn_wrote(&c->conn);
}

static bool may_keep_alive(const struct client *c) {
    bool more = !c->conn.ended || c->conn.in.size; /* a FIN behind pipelined requests */
    return c->exchange->request.framing.keep_alive && !client_worker(c)->draining && more;
}

/* The lines of an answer's head that are ours, made on the stack. */
struct lines {
    size_t n;
    char text[1024];
};

enum { UPGRADE_MAX = 512 };

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
    const struct request *request = &c->exchange->request;
    c->chunked = false;
    if (!response_has_body(request->method, r->status)) {
        add_told_length(l, r);
    } else if (r->framing.kind == FRAMING_LENGTH || r->framing.kind == FRAMING_NONE) {
        add_length(l, r->framing.kind == FRAMING_LENGTH ? r->framing.length : 0);
    } else if (request->minor >= 1) {
        c->chunked = true;
        add_text(l, SLICE("Transfer-Encoding: chunked\r\n"));
    } else {
        c->keep_alive = false;
    }
}

/* A switch, or the demand for one (426, RFC 9110 15.5.22), names its protocols. */
static struct slice told_upgrade(const struct response *r) {
    struct slice upgrade = r->status == 101 || r->status == 426 ? framing_upgrade(&r->headers) : slice_make(NULL, 0);
    return upgrade.n <= UPGRADE_MAX ? upgrade : slice_make(NULL, 0);
}

static void add_connection(struct client *c, const struct response *r, struct lines *l) {
    struct slice upgrade = told_upgrade(r);
    if (upgrade.n) {
        add_text(l, SLICE("Upgrade: "));
        add_text(l, upgrade);
        add_text(l, SLICE("\r\nConnection: Upgrade"));
        add_text(l, r->status == 101 || c->keep_alive ? SLICE("\r\n") : SLICE(", close\r\n"));
    } else if (!c->keep_alive) {
        add_text(l, SLICE("Connection: close\r\n"));
    } else if (c->exchange->request.minor == 0) {
        add_text(l, SLICE("Connection: keep-alive\r\n"));
    }
}

void client_send_head(struct client *c, const struct response *r) {
    struct lines l = { .n = 0 };
    c->keep_alive = may_keep_alive(c);
    choose_framing(c, r, &l);
    if (!headers_find_id(&r->headers, HEADER_DATE)) {
        add_text(&l, SLICE("Date: "));
        add_text(&l, date_now());
        add_text(&l, SLICE("\r\n"));
    }
    add_text(&l, r->minor ? SLICE("Via: 1.1 moongate\r\n") : SLICE("Via: 1.0 moongate\r\n"));
    add_connection(c, r, &l);
    h1_write_response(&c->conn.out, r, slice_make(l.text, l.n));
    conn_wrote(&c->conn);
}

static size_t answer_room(struct pipe_reader *r) { return conn_room(&container_of(r, struct client, reader)->conn); }

static void answer_take(struct pipe_reader *r, struct buffer *bytes) {
    struct client *c = container_of(r, struct client, reader);
    c->exchange->bytes_out += bytes->size;
    h1_write_body(&c->conn.out, bytes, c->chunked);
    conn_wrote(&c->conn);
    conn_deadline(&c->conn, c->exchange->site ? c->exchange->site->timeouts.between : fallback_timeouts.between);
}

static void answer_end(struct pipe_reader *r, const struct headers *trailers) {
    struct client *c = container_of(r, struct client, reader);
    if (c->chunked) h1_write_last_chunk(&c->conn.out, trailers);
    conn_wrote(&c->conn);
    exchange_body_sent(c->exchange);
}

static void answer_fail(struct pipe_reader *r, enum failure why) {
    exchange_body_failed(container_of(r, struct client, reader)->exchange, why);
}

static const struct pipe_reader_ops answer_ops = { answer_room, answer_take, answer_end, answer_fail };

void client_read_body_from(struct client *c, struct pipe *p) {
    c->reader.ops = &answer_ops;
    pipe_add_reader(p, &c->reader);
}

void client_finish(struct client *c) {
    pipe_remove_reader(&c->reader);
    c->exchange = NULL;
    if (!c->keep_alive || c->body_unread || client_worker(c)->draining) {
        linger(c);
        return;
    }
    await_head(c);
    if (c->conn.in.size) read_head(c);
    else if (c->conn.ended) linger(c);
}

/* A client that got part of an answer must see that it is not whole: one with a length or chunks by an early end,
 * behind all that there was of it; one that lasts until close only by a reset. */
void client_abort(struct client *c) {
    bool until_close = !c->chunked && c->exchange->response.framing.kind != FRAMING_LENGTH;
    pipe_remove_reader(&c->reader);
    c->exchange = NULL;
    if (!until_close) {
        linger(c);
        return;
    }
    conn_reset(&c->conn);
    client_close(c);
}

void client_begin_tunnel(struct client *c, struct tunnel *t, const struct conn_handlers *tunnel_handlers) {
    c->state = CLIENT_TUNNEL;
    c->tunnel = t;
    c->conn.handlers = tunnel_handlers;
    conn_deadline(&c->conn, 0);
}

void client_drain(struct client *c) {
    if (c->state == CLIENT_IDLE) end_idle(c);
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
    conn_open(&c->conn, ear->loop, fd, &handlers);
    client_begin_tls(c);
    worker_client_came(w);
    await_head(c);
}
