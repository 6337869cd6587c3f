/* The server's side of HTTP/1: a head and a body out, heads and a body back, then the next borrower. */
#include "backend/server_conn.h"
#include "http/framing.h"

#include <math.h>
#include <stdio.h>

static const struct h1_limits response_limits = { .head = 65536, .target = 0, .fields = 200 };

static struct server_conn *of_stream(const struct server_stream *s) { return s->conn; }

/* ---- events: to the borrower, or, for an idle conn, its end */

/* NULL: it is idle, and was closed. */
static struct borrower *borrower_of(struct conn *c) {
    struct server_conn *sc = server_conn_of(c);
    if (!sc->h1.stream.borrower) server_conn_close(sc);
    return sc->h1.stream.borrower;
}

static void on_bytes(struct conn *c) {
    struct borrower *b = borrower_of(c); /* a server that speaks unasked is not kept */
    if (!b) return;
    server_conn_of(c)->h1.stream.response_begun = true;
    b->handlers->on_bytes(b);
}

static void on_end(struct conn *c) {
    struct borrower *b = borrower_of(c);
    server_conn_of(c)->h1.stream.ended = true;
    server_conn_of(c)->h1.stream.truncated = conn_truncated(c);
    if (b) b->handlers->on_end(b);
}

static void on_broken(struct conn *c, enum failure why) {
    struct borrower *b = borrower_of(c);
    server_conn_of(c)->h1.stream.broken = true;
    server_conn_complain(server_conn_of(c), why);
    if (b) b->handlers->on_broken(b, why);
}

static void on_connected(struct conn *c) {
    struct borrower *b = borrower_of(c);
    if (b && conn_tls_alpn(c) == TLS_ALPN_H2) {
        server_conn_become(server_conn_of(c), &server_h2, b);
        return;
    }
    server_conn_of(c)->h1.stream.connected = true;
    if (b) b->handlers->on_connected(b);
}

static void on_room(struct conn *c) {
    struct borrower *b = server_conn_of(c)->h1.stream.borrower;
    if (b) b->handlers->on_room(b);
}

static void on_flushed(struct conn *c) {
    struct borrower *b = server_conn_of(c)->h1.stream.borrower;
    if (b && b->handlers->on_flushed) b->handlers->on_flushed(b);
}

static void on_deadline(struct conn *c) {
    struct borrower *b = borrower_of(c);
    if (b) b->handlers->on_deadline(b);
}

static const struct conn_handlers handlers = {
    .on_bytes = on_bytes,
    .on_end = on_end,
    .on_broken = on_broken,
    .on_connected = on_connected,
    .on_room = on_room,
    .on_flushed = on_flushed,
    .on_deadline = on_deadline,
};

/* ---- the request */

enum { AUTHORIZATION_MAX = 512 };

static void send_head(struct server_stream *s, const struct request *request, const struct outgoing *o) {
    struct server_conn *sc = of_stream(s);
    char lines[UPGRADE_MAX + AUTHORIZATION_MAX + 128];
    int n = 0;
    if (o->body && request->framing.kind == FRAMING_LENGTH)
        n = snprintf(lines, sizeof lines, "Content-Length: %llu\r\n", (unsigned long long)request->framing.length);
    else if (o->body) n = snprintf(lines, sizeof lines, "Transfer-Encoding: chunked\r\n");
    if (o->upgrade.n)
        n += snprintf(lines + n, sizeof lines - (size_t)n, "Connection: Upgrade\r\nUpgrade: %.*s\r\n", FMT(o->upgrade));
    if (o->authorization.n && o->authorization.n < AUTHORIZATION_MAX)
        n += snprintf(lines + n, sizeof lines - (size_t)n, "Proxy-Authorization: %.*s\r\n", FMT(o->authorization));
    sc->h1.chunked = o->body && request->framing.kind != FRAMING_LENGTH;
    h1_write_request(&sc->conn.out, request, o->target, slice_make(lines, (size_t)n));
    conn_wrote(&sc->conn);
}

static size_t room(const struct server_stream *s) { return conn_room(&of_stream(s)->conn); }

static void send_body(struct server_stream *s, struct buffer *bytes) {
    struct server_conn *sc = of_stream(s);
    h1_write_body(&sc->conn.out, bytes, sc->h1.chunked);
    conn_wrote(&sc->conn);
}

static void end_body(struct server_stream *s, const struct headers *trailers) {
    struct server_conn *sc = of_stream(s);
    if (sc->h1.chunked) h1_write_last_chunk(&sc->conn.out, trailers);
    if (sc->h1.tunnel) conn_shut(&sc->conn);
    else conn_wrote(&sc->conn);
}

/* ---- the response */

/* Less than the server keeps it: a request on its way when that time is up would be lost, and could not be repeated if it
 * is none that may come twice. */
static double idle_most(const struct headers *headers) {
    uint64_t seconds;
    if (!framing_idle_timeout(headers, &seconds)) return INFINITY;
    return seconds > 1 ? (double)(seconds - 1) : (double)seconds / 2;
}

static enum stream_result read_head(struct server_stream *s, struct response *r, enum method method,
                                    struct headers *trailers, enum failure *why) {
    struct server_conn *sc = of_stream(s);
    if (sc->conn.in.size == 0) return STREAM_MORE;
    switch (h1_read_response(&sc->h1.scan, &sc->conn.in, &response_limits, r->headers.arena, r, why)) {
    case H1_MORE: return STREAM_MORE;
    case H1_FAILED: return STREAM_FAILED;
    case H1_DONE: break;
    }
    conn_consumed(&sc->conn);
    sc->h1.scan = (struct h1_scan){ 0 };
    *why = framing_of_response(r, method);
    if (*why != FAIL_NONE) return STREAM_FAILED;
    if (r->status < 200) return STREAM_DONE;
    h1_body_start(&sc->h1.body, &r->framing, trailers);
    sc->h1.idle_most = idle_most(&r->headers);
    return STREAM_DONE;
}

static enum stream_result read_tunnel(struct server_conn *sc, struct buffer *out, size_t most) {
    size_t n = sc->conn.in.size < most ? sc->conn.in.size : most;
    buffer_move(out, &sc->conn.in, n);
    conn_consumed(&sc->conn);
    return sc->conn.ended && sc->conn.in.size == 0 ? STREAM_DONE : STREAM_MORE;
}

static enum stream_result read_body(struct server_stream *s, struct buffer *out, size_t most) {
    struct server_conn *sc = of_stream(s);
    if (sc->h1.tunnel) return read_tunnel(sc, out, most);
    enum h1_result result = h1_body_read(&sc->h1.body, &sc->conn.in, out, most);
    conn_consumed(&sc->conn);
    return result == H1_DONE ? STREAM_DONE : result == H1_MORE ? STREAM_MORE : STREAM_FAILED;
}

static void begin_tunnel(struct server_stream *s) {
    struct server_conn *sc = of_stream(s);
    sc->h1.tunnel = true;
    sc->h1.chunked = false;
    conn_deadline(&sc->conn, 0);
}

/* ---- the loan */

static void set_deadline(struct server_stream *s, double seconds) { conn_deadline(&of_stream(s)->conn, seconds); }

static bool is_flushed(const struct server_stream *s) { return of_stream(s)->conn.out.size == 0; }

static void give_back(struct server_stream *s, bool whole, const struct backend_settings *settings) {
    struct server_conn *sc = of_stream(s);
    whole = whole && sc->h1.idle_most > 0 && conn_reusable(&sc->conn);
    if (whole && settings && settings->keepalive > 0) server_conn_keep(sc, settings);
    else server_conn_close(sc);
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

static void lend(struct server_conn *sc, struct borrower *b) {
    sc->h1.scan = (struct h1_scan){ 0 };
    sc->h1.stream = (struct server_stream){
        .ops = &stream_ops, .conn = sc, .connected = sc->conn.state == CONN_OPEN, .fresh = sc->uses == 1
    };
    server_stream_lend(&sc->h1.stream, b);
}

const struct server_protocol server_h1 = { .handlers = &handlers, .lend = lend };
