/* Tunnels. Two pipes, each with the one side as its source and the other as its reader, so that a slow side holds back
 * the other by the pipes' own back-pressure, whatever protocols the two speak. */
#include "proxy/tunnel.h"

#include "base/must.h"

#include <stdlib.h>

struct tunnel {
    struct list node; /* in worker->tunnels */
    struct grave grave;
    struct exchange *exchange;    /* for the log line; its stream is the client's side */
    struct borrower borrower;     /* the server's side */
    struct pipe up, down;         /* to the server, to the client */
    struct pipe_reader up_reader; /* into the server's stream */
    bool up_sent, down_sent;      /* that way has ended, and the end was passed on */
    bool pumping, closed;
    struct deadline idle;
    double patience; /* timeouts.tunnel; 0: for ever */
};

static struct worker *worker_of_tunnel(const struct tunnel *t) { return t->exchange->subject.worker; }

static void tunnel_bury(struct grave *g) { free(container_of(g, struct tunnel, grave)); }

/* `gently`: what was written to the client still leaves. */
static void tunnel_end(struct tunnel *t, bool gently) {
    if (t->closed) return;
    t->closed = true;
    struct worker *w = worker_of_tunnel(t);
    struct exchange *x = t->exchange;
    struct stream *s = x->stream;
    x->bytes_in += t->up.total;
    server_leave(t->borrower.stream->conn->server);
    server_conn_give_back(&t->borrower, false, NULL);
    deadline_fini(&t->idle);
    pipe_fini(&t->up);
    pipe_fini(&t->down);
    list_remove(&t->node);
    metric_add(w->metrics->tunnels_open, w->loop.index, -1);
    loop_bury(&w->loop, &t->grave);
    x->stream = NULL;
    exchange_tunnel_ended(x);
    if (!s) return;
    s->exchange = NULL;
    if (gently) s->ops->finish(s);
    else s->ops->leave(s);
}

static void end_if_over(struct tunnel *t) {
    if (t->closed || !t->up_sent || !t->down_sent) return;
    if (t->borrower.stream->ops->flushed(t->borrower.stream)) tunnel_end(t, true);
}

/* ---- silence: neither side sends, or neither takes what the other does */

static void note_moved(struct tunnel *t) {
    if (!t->closed) deadline_set(&t->idle, t->patience);
}

static void on_idle(struct deadline *d) {
    struct tunnel *t = container_of(d, struct tunnel, idle);
    if (t->exchange->failure == FAIL_NONE) t->exchange->failure = FAIL_TUNNEL_IDLE;
    tunnel_end(t, false);
}

/* ---- up: the client's bytes */

static size_t up_room(struct pipe_reader *r) {
    struct server_stream *s = container_of(r, struct tunnel, up_reader)->borrower.stream;
    return s->ops->room(s);
}

static void up_take(struct pipe_reader *r, struct buffer *bytes) {
    struct tunnel *t = container_of(r, struct tunnel, up_reader);
    struct server_stream *s = t->borrower.stream;
    note_moved(t);
    s->ops->send(s, bytes);
}

static void up_end(struct pipe_reader *r, const struct headers *trailers) {
    struct tunnel *t = container_of(r, struct tunnel, up_reader);
    t->borrower.stream->ops->end(t->borrower.stream, trailers);
    t->up_sent = true;
    end_if_over(t);
}

static void up_fail(struct pipe_reader *r, enum failure why) {
    (void)why;
    tunnel_end(container_of(r, struct tunnel, up_reader), false);
}

static const struct pipe_reader_ops up_ops = { up_room, up_take, up_end, up_fail };

static void up_has_room(struct pipe *p) {
    struct stream *s = container_of(p, struct tunnel, up)->exchange->stream;
    if (s) s->ops->read_body(s);
}

/* ---- down: the server's */

static bool pump_part(struct tunnel *t) {
    struct server_stream *s = t->borrower.stream;
    struct buffer bytes = { 0 };
    size_t room = t->closed ? 0 : pipe_room(&t->down);
    if (room == 0) return false;
    enum stream_result result = s->ops->read_body(s, &bytes, room);
    bool moved = bytes.size > 0;
    if (moved) note_moved(t);
    if (moved) pipe_write(&t->down, &bytes, bytes.size);
    buffer_fini(&bytes);
    if (t->closed) return false;
    if (result == STREAM_DONE) pipe_end(&t->down, NULL);
    if (result == STREAM_FAILED) tunnel_end(t, false);
    return result == STREAM_MORE && moved;
}

static void pump(struct tunnel *t) {
    if (t->pumping) return;
    t->pumping = true;
    while (pump_part(t)) {}
    t->pumping = false;
}

static void down_has_room(struct pipe *p) { pump(container_of(p, struct tunnel, down)); }

void tunnel_down_sent(struct tunnel *t) {
    t->down_sent = true;
    end_if_over(t);
}

/* ---- what happens to the server's stream */

static struct tunnel *of_borrower(struct borrower *b) { return container_of(b, struct tunnel, borrower); }

static void on_bytes(struct borrower *b) { pump(of_borrower(b)); }
static void on_broken(struct borrower *b, enum failure why) {
    (void)why;
    tunnel_end(of_borrower(b), false);
}
static void on_room(struct borrower *b) { pipe_reader_has_room(&of_borrower(b)->up_reader); }
static void on_flushed(struct borrower *b) { end_if_over(of_borrower(b)); }
static void on_nothing(struct borrower *b) { (void)b; }

static const struct borrower_handlers borrower_handlers = {
    .on_connected = on_nothing,
    .on_bytes = on_bytes,
    .on_end = on_bytes,
    .on_broken = on_broken,
    .on_room = on_room,
    .on_flushed = on_flushed,
    .on_deadline = on_nothing,
};

/* ---- its life */

void tunnel_begin(struct exchange *x) {
    struct worker *w = x->subject.worker;
    struct tunnel *t = must_calloc(1, sizeof *t);
    grave_init(&t->grave, tunnel_bury);
    pipe_init(&t->up, up_has_room, NULL);
    pipe_init(&t->down, down_has_room, NULL);
    t->exchange = x;
    t->patience = x->site->timeouts.tunnel;
    deadline_init(&t->idle, &w->loop, on_idle);
    deadline_set(&t->idle, t->patience);
    t->borrower.handlers = &borrower_handlers;
    t->up_reader.ops = &up_ops;
    x->tunnel = t;
    list_push(&w->tunnels, &t->node);
    metric_add(w->metrics->tunnels_open, w->loop.index, 1);
    fetch_take_stream(x->fetch, &t->borrower);
    struct server_stream *server = t->borrower.stream;
    server->ops->begin_tunnel(server);
    x->stream->ops->begin_tunnel(x->stream, &t->up);
    pipe_add_reader(&t->down, &x->stream->reader);
    if (!t->closed) pipe_add_reader(&t->up, &t->up_reader);
    if (!t->closed && server->broken) tunnel_end(t, true); /* right behind its answer, and nobody would say so again */
}

void tunnel_client_left(struct tunnel *t) { tunnel_end(t, false); }

void tunnels_close(struct worker *w) {
    list_each_safe(node, &w->tunnels) tunnel_end(container_of(node, struct tunnel, node), false);
}
