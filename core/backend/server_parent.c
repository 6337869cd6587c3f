/* The step of opening a connection that asks a parent for the server (RFC 9110 9.3.6): CONNECT, its answer, and then
 * what would have begun at once without a parent. Whoever borrowed the connection knows nothing of it; its deadline for
 * connecting covers this, too.
 *
 * A refusal is told as PARENT_REFUSED whatever its status: 407 means our configured password, 403 the parent's rules,
 * 502 that the server is not there, and none of them is the client's affair. The log has the status. Bytes right behind
 * the head belong to the tunnel. */
#include "backend/server_conn.h"
#include "base/log.h"

static const struct h1_limits answer_limits = { .head = 16384, .target = 0, .fields = 100 };

static void fail(struct server_conn *sc, enum failure why) { sc->protocol->handlers->on_broken(&sc->conn, why); }

static void on_connected(struct conn *c) {
    struct server_conn *sc = server_conn_of(c);
    const struct parent *parent = sc->parent;
    struct slice target = slice_of(sc->server->tunnel), authorization = slice_make(NULL, 0);
    if (parent->authorization) authorization = slice_of(parent->authorization);
    const struct slice parts[] = { SLICE("CONNECT "),
                                   target,
                                   SLICE(" HTTP/1.1\r\nHost: "),
                                   target,
                                   authorization.n ? SLICE("\r\nProxy-Authorization: ") : SLICE(""),
                                   authorization,
                                   SLICE("\r\n\r\n") };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) buffer_append(&c->out, parts[i].p, parts[i].n);
    conn_wrote(c);
}

/* A parent that is misconfigured, or we, fails every connection in the same way: told once a second. */
static void complain(const struct server_conn *sc, int status) {
    static _Thread_local double complained;
    double now = loop_now(sc->conn.loop);
    if (now - complained < 1) return;
    complained = now;
    log_warn("backend %s: parent %s answered CONNECT %s with %d", sc->server->backend, sc->parent->name,
             sc->server->tunnel, status);
}

/* 1xx may come before. MORE: not all is there. */
static enum h1_result read_answer(struct server_conn *sc, struct arena *arena, int *status) {
    enum h1_result result;
    do {
        struct response r = { 0 };
        enum failure why = FAIL_NONE;
        headers_init(&r.headers, arena);
        result = h1_read_response(&sc->scan, &sc->conn.in, &answer_limits, arena, &r, &why);
        if (result == H1_DONE) sc->scan = (struct h1_scan){ 0 };
        *status = r.status;
    } while (result == H1_DONE && *status < 200 && *status != 101);
    return result;
}

static void on_bytes(struct conn *c) {
    struct server_conn *sc = server_conn_of(c);
    struct arena arena;
    int status = 0;
    arena_init(&arena);
    enum h1_result result = read_answer(sc, &arena, &status);
    arena_fini(&arena);
    if (result == H1_MORE) return;
    conn_consumed(c);
    bool opened = result == H1_DONE && response_opens_tunnel(METHOD_CONNECT, status);
    if (result == H1_DONE && !opened) complain(sc, status);
    if (result == H1_DONE && !opened) fail(sc, FAIL_PARENT_REFUSED);
    else if (!opened) fail(sc, FAIL_BAD_RESPONSE);
    else server_conn_stands(sc);
}

static void on_end(struct conn *c) { fail(server_conn_of(c), FAIL_PARENT_REFUSED); }
static void on_broken(struct conn *c, enum failure why) { fail(server_conn_of(c), why); }
static void on_nothing(struct conn *c) { (void)c; }

static void on_deadline(struct conn *c) {
    struct server_conn *sc = server_conn_of(c);
    sc->protocol->handlers->on_deadline(c);
}

const struct conn_handlers server_parent_handlers = {
    .on_connected = on_connected,
    .on_bytes = on_bytes,
    .on_end = on_end,
    .on_broken = on_broken,
    .on_room = on_nothing,
    .on_deadline = on_deadline,
};
