/* The story of a fetch: pick a backend, choose a server, get a connection, send, await the head, pass the body on. A
 * try that fails goes through one place, try_failed, which decides whether another may follow: C decides whether,
 * policy only where.
 *
 * Another try is safe when the server cannot have acted on the request (it was never reached), or when acting twice
 * does no harm (an idempotent method, RFC 9110 9.2.2) and no byte of the body is spent. A pooled conn that turns out
 * closed before a byte of the answer came is forgiven once, with a fresh conn to the same server, and does not count
 * as a try.
 *
 * A CONNECT has no head to be sent and none to be awaited: when the connection stands, that is the answer. */
#include "proxy/fetch.h"

#include "base/slab.h"
#include "proxy/exchange.h"
#include "proxy/fetch_place.h"
#include "proxy/forward.h"

enum fetch_step { FETCH_PICK, FETCH_CHOOSE, FETCH_CONNECT, FETCH_SEND, FETCH_AWAIT_HEAD, FETCH_BODY, FETCH_OVER };
enum next { GO_ON, WAIT, JUMPED };

static _Thread_local struct slab fetches = SLAB(struct fetch, 256);

static enum next jump(struct fetch *f, enum fetch_step step) {
    f->step = (uint8_t)step;
    return JUMPED;
}

static void wake(struct fetch *f) { task_wake(&f->worker->loop, &f->task); }

static void tell_waiters(struct fetch *f) {
    list_each(node, &f->waiters) {
        struct fetch_waiter *w = container_of(node, struct fetch_waiter, node);
        task_wake(&f->worker->loop, w->task);
    }
}

static void settle(struct fetch *f, enum fetch_state state) {
    f->state = state;
    tell_waiters(f);
}

static const struct backend_settings *settings_of(const struct fetch *f) { return &f->backend->settings; }

static double first_of(double a, double b) { return a > 0 ? a : b; }

/* ---- the present try */

static void detach_request_body(struct fetch *f) { pipe_remove_reader(&f->body_reader); }

static void end_stream(struct fetch *f, bool reusable) {
    if (f->borrower.stream) server_conn_give_back(&f->borrower, reusable, settings_of(f));
    detach_request_body(f);
}

static void end_try(struct fetch *f, bool reusable) {
    end_stream(f, reusable);
    fetch_drop_wait(f);
    if (f->server_active) server_leave(f->server);
    f->server_active = false;
}

static enum next fail(struct fetch *f, enum failure why) {
    end_try(f, false);
    deadline_clear(&f->total);
    f->why = why;
    bool had_head = f->state == FETCH_HEAD;
    settle(f, FETCH_FAILED);
    if (had_head) pipe_fail(&f->body, why);
    return jump(f, FETCH_OVER);
}

/* ---- may there be another try? */

static bool is_repeatable(const struct fetch *f, enum retry_class class) {
    return f->body_sent == 0 && (class == RETRY_CONNECT || method_is_idempotent(f->request->method));
}

static uint32_t retry_bits(const struct fetch *f) {
    return f->pick.has_retry_on ? f->pick.retry_on : settings_of(f)->retry_on;
}

static const struct status_set *retry_statuses(const struct fetch *f) {
    return f->pick.has_retry_on ? &f->pick.retry_statuses : &settings_of(f)->retry_statuses;
}

static bool tries_left(const struct fetch *f) {
    unsigned tries = f->pick.tries;
    if (tries == 0) tries = settings_of(f)->tries > f->pick.count ? settings_of(f)->tries : f->pick.count;
    return f->tries < tries && f->tried_count < FETCH_TRIED;
}

static bool may_retry(const struct fetch *f, enum failure why) {
    enum retry_class class = failure_class(why);
    return class != RETRY_NEVER && (retry_bits(f) & 1u << class) && is_repeatable(f, class) && tries_left(f);
}

static bool may_retry_status(const struct fetch *f, int status) {
    bool asked = (status >= 500 && (retry_bits(f) & RETRY_ON_5XX)) ||
                 (status < 640 && status_set_has(retry_statuses(f), status));
    return asked && is_repeatable(f, RETRY_RESET) && tries_left(f);
}

/* Health checks are asked of a very server; they are no requests. */
static void count_try(struct fetch *f, int status, double seconds) {
    if (!f->exact) backend_count(f->backend, f->worker->loop.index, status, seconds);
}

/* Remembers the try for policy and for choosing another server. The reference to the server goes to `tried`. */
static void remember_try(struct fetch *f, int status, enum failure why) {
    f->last = (struct last_try){
        .backend = f->backend, .server = f->server, .status = status, .failure = why, .tries = f->tries
    };
    count_try(f, 0, 0);
    if (f->server && f->tried_count < FETCH_TRIED) f->tried[f->tried_count++] = server_ref(f->server);
}

static bool asks_policy(const struct fetch *f) {
    return f->subject.site && (f->subject.site->hooks & 1u << HOOK_PICK_BACKEND) && !f->pick.listed && !f->fixed;
}

/* The generation was closed under an exchange's fetch, and with it the pick_backend that it would ask. */
static bool lost_policy(const struct fetch *f) {
    if (f->subject.site || !f->subject.exchange || !f->site || f->pick.listed || f->fixed) return false;
    return f->site->hooks & 1u << HOOK_PICK_BACKEND && !f->site->fail_open[HOOK_PICK_BACKEND];
}

/* Where the next try goes: a list's next entry (the last one again), policy, or another server of the same backend. */
static enum next try_next(struct fetch *f) {
    if (f->pick_at + 1 < f->pick.count) f->pick_at++;
    return jump(f, asks_policy(f) || lost_policy(f) ? FETCH_PICK : FETCH_CHOOSE);
}

/* Or the server had said that it takes no more streams, and we had not heard it yet. */
static bool was_stale(const struct fetch *f, enum failure why) {
    const struct server_stream *s = f->borrower.stream;
    if (!s || f->stale_retried) return false;
    if (why == FAIL_STREAM_REFUSED) return is_repeatable(f, RETRY_CONNECT);
    return why == FAIL_RESET && !s->fresh && !s->response_begun && is_repeatable(f, RETRY_RESET);
}

static enum next try_failed(struct fetch *f, enum failure why) {
    if (was_stale(f, why)) {
        f->stale_retried = f->fresh_only = true;
        end_stream(f, false);
        return jump(f, FETCH_CONNECT);
    }
    if (f->server && failure_class(why) == RETRY_CONNECT && why != FAIL_STREAM_REFUSED) server_failed(f->server);
    bool again = may_retry(f, why);
    remember_try(f, 0, why);
    end_try(f, false);
    if (again) return try_next(f);
    return fail(f, why);
}

/* ---- 1. pick a backend */

static void take_pick(struct fetch *f) {
    f->pick_at = 0;
    f->picked_target = false;
    f->egress = NULL;
    f->forward_target = f->authorization = slice_make(NULL, 0);
}

/* Made only now: what policy refuses or sends elsewhere is not even looked up. */
static enum next take_target(struct fetch *f) {
    struct forward_choice choice;
    enum failure why = forward_choose(f->subject.exchange, &choice);
    if (why != FAIL_NONE) return fail(f, why);
    pick_one(&f->pick, choice.backend, slice_make(NULL, 0));
    take_pick(f);
    f->picked_target = true;
    f->egress = choice.egress;
    f->forward_target = choice.target;
    f->authorization = choice.authorization;
    ad_hoc_take(choice.backend);
    f->ad_hoc = choice.backend;
    return jump(f, FETCH_CHOOSE);
}

static enum next take_default(struct fetch *f) {
    if (f->tries > 0) return jump(f, FETCH_CHOOSE);
    if (f->forward) return take_target(f);
    const struct site *site = f->subject.site ? f->subject.site : f->site;
    if (!site || !site->default_backend) return fail(f, FAIL_NO_BACKEND);
    pick_one(&f->pick, site->default_backend, slice_make(NULL, 0));
    f->pick_at = 0;
    return jump(f, FETCH_CHOOSE);
}

/* A refused response (retry_on a status) that policy would rather have than another try. */
static enum next deliver_refused(struct fetch *f) {
    if (f->response.status == 0) return fail(f, f->last.failure);
    return jump(f, FETCH_BODY);
}

static enum next pick(struct fetch *f) {
    if (lost_policy(f)) return fail(f, FAIL_HOOK_DRAINED);
    if (!asks_policy(f)) return take_default(f);
    struct decision decision;
    enum verdict verdict = f->hook_running
                               ? hook_go_on(&f->subject, &decision)
                               : hook_call(&f->subject, HOOK_PICK_BACKEND, f->tries ? &f->last : NULL, &decision);
    f->hook_running = verdict == VERDICT_WAIT;
    switch (verdict) {
    case VERDICT_WAIT: return WAIT;
    case VERDICT_PICK:
        pick_copy(&f->pick, &decision.pick);
        take_pick(f);
        return jump(f, FETCH_CHOOSE);
    case VERDICT_REPLY:
        f->reply = decision.reply;
        end_try(f, false);
        settle(f, FETCH_REPLY);
        return jump(f, FETCH_OVER);
    case VERDICT_NO: return f->tries ? deliver_refused(f) : fail(f, FAIL_PICK_FAILED);
    case VERDICT_FAILED: return fail(f, FAIL_PICK_FAILED);
    default: return take_default(f);
    }
}

/* ---- 2. choose a server of it */

static void on_resolved(struct backend_waiter *w) { wake(container_of(w, struct fetch, resolving)); }

static enum next nobody_to_try(struct fetch *f, enum failure why) {
    if (f->response.status) return deliver_refused(f);
    if (f->tries > 0)
        return fail(f, f->last.failure); /* the first failure tells more than that nobody else was there */
    f->server = NULL;
    f->tries++;
    return try_failed(f, why);
}

static enum next choose(struct fetch *f) {
    enum failure why;
    struct backend *backend = f->pick.backends[f->pick_at];
    struct server *server = fetch_find_place(f, backend, &why);
    if (!server && why == FAIL_NONE) {
        if (!f->waits && list_empty(&f->resolving.node)) backend_await(backend, &f->worker->loop, &f->resolving);
        return WAIT;
    }
    if (!server && f->pick_at + 1 < f->pick.count) {
        f->pick_at++;
        return JUMPED;
    }
    if (!server && f->tries > 0) return nobody_to_try(f, why);
    end_try(f, false); /* of a refused response, if there is one */
    f->response.status = 0;
    server_unref(f->server);
    f->server = server;
    f->server_active = server != NULL;
    f->backend = backend;
    if (!server) return nobody_to_try(f, why);
    f->fresh_only = false;
    f->tries++;
    return GO_ON;
}

/* ---- 3. a connection to it */

static struct way way_of(struct fetch *f, char *text) {
    struct way way = { .trust = settings_of(f)->trust,
                       .h2 = settings_of(f)->h2,
                       .parent = settings_of(f)->parent,
                       .alone = f->upgrade.n > 0,
                       .careful = !method_is_idempotent(f->request->method),
                       .fresh = f->fresh_only };
    if (f->connect) way.trust = NULL; /* whatever the client says in there, TLS included, it says to the server */
    if (f->connect) way.alone = true;
    if (way.trust) way.name = backend_tls_name(f->backend, f->spec, f->server, text);
    return way;
}

/* For whom it connects, and where he came in. */
static void name_client(const struct fetch *f, struct way *way) {
    const struct exchange *x = f->subject.exchange;
    way->proxy_protocol = settings_of(f)->proxy_protocol;
    if (!way->proxy_protocol || !x || !x->stream) return;
    way->source = x->client_addr;
    way->destination.size = sizeof way->destination.u;
    if (getsockname(conn_fd(&x->stream->client->conn), &way->destination.u.sa, &way->destination.size) != 0)
        way->destination.size = 0;
}

static enum next connect_step(struct fetch *f) {
    struct loop *loop = &f->worker->loop;
    f->try_began = loop_now(loop);
    f->news = FETCH_NO_NEWS;
    f->why_more = NULL;
    char text[ADDR_TEXT];
    struct way way = way_of(f, text);
    name_client(f, &way);
    if (f->connect || !server_conn_borrow(f->server, loop, &f->borrower, &way))
        server_conn_open(f->server, loop, &f->borrower, first_of(settings_of(f)->connect, f->timeouts.connect), &way);
    return GO_ON;
}

/* ---- 4. send the head; the body follows as the conn has room */

static size_t request_room(struct pipe_reader *r) {
    struct server_stream *s = container_of(r, struct fetch, body_reader)->borrower.stream;
    return s ? s->ops->room(s) : 0;
}

static void set_deadline(struct fetch *f, double seconds) {
    f->borrower.stream->ops->deadline(f->borrower.stream, seconds);
}

static double between(const struct fetch *f) { return first_of(settings_of(f)->between, f->timeouts.between); }

static void await_first_byte(struct fetch *f) {
    double backends = first_of(settings_of(f)->first_byte, f->timeouts.first_byte);
    set_deadline(f, first_of(f->pick.timeout, backends));
}

static void request_take(struct pipe_reader *r, struct buffer *bytes) {
    struct fetch *f = container_of(r, struct fetch, body_reader);
    f->body_sent += bytes->size;
    f->borrower.stream->ops->send(f->borrower.stream, bytes);
    if (f->state == FETCH_TRYING) set_deadline(f, between(f));
}

static void request_end(struct pipe_reader *r, const struct headers *trailers) {
    struct fetch *f = container_of(r, struct fetch, body_reader);
    f->request_body_done = true;
    f->borrower.stream->ops->end(f->borrower.stream, trailers);
    if (f->state == FETCH_TRYING) await_first_byte(f);
}

static void request_fail(struct pipe_reader *r, enum failure why) {
    struct fetch *f = container_of(r, struct fetch, body_reader);
    f->request_broken = true;
    f->news = FETCH_BROKEN;
    f->news_why = why;
    wake(f);
}

static const struct pipe_reader_ops request_ops = { request_room, request_take, request_end, request_fail };

static enum next open_tunnel(struct fetch *f) {
    f->response = (struct response){ .status = 200, .version = HTTP_1_1, .reason = SLICE("Connection Established") };
    headers_init(&f->response.headers, &f->arena);
    headers_init(&f->trailers, &f->arena);
    f->tunnel = f->request_body_done = true;
    f->first_byte = loop_now(&f->worker->loop);
    count_try(f, f->response.status, f->first_byte - f->try_began);
    return jump(f, FETCH_BODY);
}

static enum next send_step(struct fetch *f) {
    struct server_stream *s = f->borrower.stream;
    if (f->news == FETCH_BROKEN) return try_failed(f, f->news_why);
    if (!s->connected) return WAIT;
    server_succeeded(f->server);
    if (f->connect) return open_tunnel(f);
    struct outgoing outgoing = { .target = f->forward_target.p ? f->forward_target : f->target,
                                 .upgrade = f->upgrade,
                                 .authorization = f->authorization,
                                 .body = f->request_body != NULL,
                                 .arena = &f->arena };
    s->ops->send_head(s, f->request, &outgoing);
    if (f->request_body) {
        if (f->request->framing.expect_continue) await_first_byte(f);
        else set_deadline(f, between(f));
        f->body_reader.ops = &request_ops;
        pipe_add_reader(f->request_body, &f->body_reader);
    } else {
        f->request_body_done = true;
        await_first_byte(f);
    }
    return GO_ON;
}

/* ---- 5. await the head */

/* Interim responses are kept until the end and sent on whatever the client takes: a server cannot be let to send them
 * for ever. */
enum { INTERIM_MAX = 64 };

static void pass_informational(struct fetch *f, const struct response *r) {
    list_each_safe(node, &f->waiters) {
        struct fetch_waiter *w = container_of(node, struct fetch_waiter, node);
        if (w->on_informational) w->on_informational(w, r);
    }
}

enum head { HEAD_MORE, HEAD_AGAIN, HEAD_FINAL, HEAD_BAD };

static bool is_tunnel(const struct fetch *f, int status) {
    return status == 101 && f->upgrade.n > 0 && f->request_body_done;
}

static enum head read_head(struct fetch *f, enum failure *why) {
    struct server_stream *s = f->borrower.stream;
    struct response *r = &f->response;
    *r = (struct response){ 0 };
    headers_init(&r->headers, &f->arena);
    headers_init(&f->trailers, &f->arena);
    enum stream_result result = s->ops->read_head(s, r, f->request->method, &f->trailers, why);
    int status = r->status;
    f->tunnel = result == STREAM_DONE && is_tunnel(f, status);
    if (result == STREAM_DONE && (status >= 200 || f->tunnel)) return HEAD_FINAL;
    r->status = 0;
    if (result == STREAM_MORE) return HEAD_MORE;
    if (result == STREAM_DONE && (status == 101 || ++f->interim > INTERIM_MAX)) *why = FAIL_BAD_RESPONSE;
    if (*why != FAIL_NONE) return HEAD_BAD;
    r->status = status;
    pass_informational(f, r);
    if (status == 100) f->continued = true;
    r->status = 0;
    return HEAD_AGAIN;
}

static enum next take_final_head(struct fetch *f) {
    f->first_byte = loop_now(&f->worker->loop);
    count_try(f, f->response.status, f->first_byte - f->try_began);
    if (!f->tunnel && may_retry_status(f, f->response.status)) {
        f->last = (struct last_try){
            .backend = f->backend, .server = f->server, .status = f->response.status, .tries = f->tries
        };
        f->tried[f->tried_count++] = server_ref(f->server);
        set_deadline(f, 0);
        return try_next(f);
    }
    return GO_ON;
}

static enum next await_head(struct fetch *f) {
    const struct server_stream *s = f->borrower.stream;
    enum failure why = FAIL_NONE;
    enum head head;
    while ((head = read_head(f, &why)) == HEAD_AGAIN) {}
    if (head == HEAD_FINAL) return take_final_head(f);
    if (head == HEAD_BAD) return try_failed(f, why);
    if (f->news == FETCH_BROKEN) return try_failed(f, f->news_why);
    if (s->ended) return try_failed(f, s->response_begun ? FAIL_BAD_RESPONSE : FAIL_RESET);
    return WAIT;
}

/* ---- 6. the body flows: bytes come in the gather phase (pump) or when a reader has room */

static void finish_body(struct fetch *f) {
    end_try(f, f->response.framing.keep_alive && f->request_body_done);
    f->step = FETCH_OVER;
    deadline_clear(&f->total);
    pipe_end(&f->body, &f->trailers);
}

static void break_body(struct fetch *f, enum failure why) {
    end_try(f, false);
    f->step = FETCH_OVER;
    deadline_clear(&f->total);
    f->why = why;
    pipe_fail(&f->body, why);
}

/* Decodes what has come, as far as the readers take it. False: nothing more to do now. */
static bool pump_part(struct fetch *f) {
    struct server_stream *s = f->borrower.stream;
    size_t room = pipe_room(&f->body);
    if (room == 0) return false;
    struct buffer content = { 0 };
    enum stream_result result = s->ops->read_body(s, &content, room);
    size_t n = content.size;
    if (n) pipe_write(&f->body, &content, n);
    buffer_fini(&content);
    if (f->step != FETCH_BODY || f->borrower.stream != s) return false; /* a reader closed the fetch */
    if (result == STREAM_DONE) finish_body(f);
    else if (result == STREAM_FAILED) break_body(f, FAIL_BAD_RESPONSE);
    else return n > 0;
    return false;
}

static void pump(struct fetch *f) {
    if (f->step != FETCH_BODY || f->state != FETCH_HEAD || f->tunnel || f->pumping) return;
    f->pumping = true;
    while (pump_part(f)) {}
    f->pumping = false;
    if (f->step != FETCH_BODY) return;
    bool waiting = pipe_room(&f->body) > 0; /* all is decoded but what is no whole piece of framing */
    if (waiting && (f->borrower.stream->ended || f->news == FETCH_BROKEN)) {
        bool closed = f->news != FETCH_BROKEN && !f->borrower.stream->truncated;
        if (f->response.framing.kind == FRAMING_UNTIL_CLOSE && closed) finish_body(f);
        else break_body(f, f->news == FETCH_BROKEN && f->request_broken ? f->news_why : FAIL_TRUNCATED);
        return;
    }
    set_deadline(f, waiting ? between(f) : 0);
}

static void body_has_room(struct pipe *p) { pump(container_of(p, struct fetch, body)); }

/* Nobody reads any more. */
static void body_abandoned(struct pipe *p) {
    struct fetch *f = container_of(p, struct fetch, body);
    if (f->step == FETCH_BODY && f->state == FETCH_HEAD) break_body(f, FAIL_CANCELLED);
}

static enum next body(struct fetch *f) {
    if (f->state != FETCH_HEAD) {
        settle(f, FETCH_HEAD);
        set_deadline(f, f->tunnel ? 0 : between(f));
        const struct framing *framing = &f->response.framing;
        bool empty = framing->kind == FRAMING_NONE || (framing->kind == FRAMING_LENGTH && framing->length == 0);
        if (empty && !f->tunnel) finish_body(f);
    }
    pump(f);
    return WAIT;
}

static enum next over(struct fetch *f) {
    (void)f;
    return WAIT;
}

/* ---- the engine */

static enum next (*const steps[])(struct fetch *) = {
    [FETCH_PICK] = pick,      [FETCH_CHOOSE] = choose,         [FETCH_CONNECT] = connect_step,
    [FETCH_SEND] = send_step, [FETCH_AWAIT_HEAD] = await_head, [FETCH_BODY] = body,
    [FETCH_OVER] = over,
};

static void fetch_advance(struct task *t) {
    struct fetch *f = container_of(t, struct fetch, task);
    if (f->stopped) return;
    if (f->total_over && f->step < FETCH_OVER) {
        f->total_over = false;
        if (f->step == FETCH_BODY && f->state == FETCH_HEAD) break_body(f, FAIL_TOTAL_TIMEOUT);
        else fail(f, FAIL_TOTAL_TIMEOUT);
    }
    for (;;) {
        switch (steps[f->step](f)) {
        case GO_ON: f->step++; break;
        case JUMPED: break;
        case WAIT: return;
        }
    }
}

/* ---- what happens to its conn */

static struct fetch *of_borrower(struct borrower *b) { return container_of(b, struct fetch, borrower); }

static void on_connected(struct borrower *b) { wake(of_borrower(b)); }

static void on_bytes(struct borrower *b) {
    struct fetch *f = of_borrower(b);
    if (f->step == FETCH_BODY) pump(f);
    else wake(f);
}

static void on_end(struct borrower *b) { on_bytes(b); }

static void note_broken(struct fetch *f, enum failure why) {
    if (f->news != FETCH_BROKEN) f->news_why = why;
    f->news = FETCH_BROKEN;
    wake(f);
}

/* A server that answers and closes before it has read the whole request resets the conn: what it said still counts. */
static void on_broken(struct borrower *b, enum failure why) {
    of_borrower(b)->why_more = conn_tls_reason(&b->stream->conn->conn);
    note_broken(of_borrower(b), why);
}

static void on_room(struct borrower *b) { pipe_reader_has_room(&of_borrower(b)->body_reader); }

static void on_deadline(struct borrower *b) {
    struct fetch *f = of_borrower(b);
    if (f->step == FETCH_BODY) {
        if (f->state == FETCH_HEAD) break_body(f, FAIL_BETWEEN_TIMEOUT);
        return;
    }
    /* The client waits for the server's 100. */
    bool asked = f->request->framing.expect_continue && !f->continued && f->body_sent == 0;
    if (f->step == FETCH_AWAIT_HEAD && !f->request_body_done && b->stream->ops->flushed(b->stream) && !asked) {
        /* It is the client that is slow, which its side sees to. */
        set_deadline(f, between(f));
        return;
    }
    note_broken(f, f->step == FETCH_SEND ? FAIL_CONNECT_TIMEOUT : FAIL_FIRST_BYTE_TIMEOUT);
}

static const struct borrower_handlers borrower_handlers = {
    .on_connected = on_connected,
    .on_bytes = on_bytes,
    .on_end = on_end,
    .on_broken = on_broken,
    .on_room = on_room,
    .on_deadline = on_deadline,
};

static void on_total(struct deadline *d) {
    struct fetch *f = container_of(d, struct fetch, total);
    f->total_over = true;
    wake(f);
}

/* ---- its life */

static void fetch_bury(struct grave *g) {
    struct fetch *f = container_of(g, struct fetch, grave);
    for (unsigned i = 0; i < f->tried_count; i++) server_unref(f->tried[i]);
    server_unref(f->server);
    server_unref(f->exact);
    if (f->ad_hoc) ad_hoc_give_back(f->ad_hoc);
    generation_unref(f->generation);
    arena_fini(&f->arena);
    slab_give(&fetches, f);
}

static void set_subject(struct fetch *f, const struct fetch_options *o) {
    f->subject = (struct subject){
        .kind = SUBJECT_FETCH, .worker = o->worker, .exchange = o->exchange, .arena = &f->arena, .task = &f->task
    };
    if (!o->exchange) return;
    f->subject.site = o->exchange->subject.site;
    f->subject.arena = &o->exchange->arena; /* a reply made here is the exchange's answer */
}

struct fetch *fetch_create(const struct fetch_options *o) {
    struct fetch *f = slab_take(&fetches);
    memset(f, 0, offsetof(struct fetch, tried));
    pick_init(&f->pick);
    task_init(&f->task, fetch_advance);
    grave_init(&f->grave, fetch_bury);
    arena_init(&f->arena);
    list_init(&f->waiters);
    list_init(&f->resolving.node);
    f->resolving.on_resolved = on_resolved;
    pipe_init(&f->body, body_has_room, body_abandoned);
    deadline_init(&f->total, &o->worker->loop, on_total);
    f->borrower.handlers = &borrower_handlers;
    f->worker = o->worker;
    f->site = o->site;
    f->generation = o->site ? generation_ref(o->site->generation) : NULL;
    f->request = o->request;
    f->target = o->target;
    f->upgrade = o->upgrade;
    f->request_body = o->request_body;
    f->timeouts = *o->timeouts;
    f->egress = o->egress;
    f->forward = o->exchange && o->exchange->forward;
    f->connect = o->request->method == METHOD_CONNECT;
    set_subject(f, o);
    if (o->backend) {
        f->fixed = true;
        if (o->backend->ad_hoc) f->ad_hoc = o->backend;
        if (f->ad_hoc) ad_hoc_take(f->ad_hoc);
        pick_one(&f->pick, o->backend, o->server);
        f->step = FETCH_CHOOSE;
    }
    if (o->exact) f->exact = server_ref(o->exact);
    if (o->total > 0) deadline_set(&f->total, o->total);
    metric_add(o->worker->metrics->fetches, o->worker->loop.index, 1);
    return f;
}

void fetch_start(struct fetch *f) { wake(f); }

void fetch_await(struct fetch *f, struct fetch_waiter *w) { list_push(&f->waiters, &w->node); }

void fetch_waiter_forget(struct fetch_waiter *w) { list_remove(&w->node); }

void fetch_stop(struct fetch *f) {
    if (!f || f->stopped) return;
    f->stopped = true;
    f->hook_running = false;
    f->step = FETCH_OVER;
    subject_end(&f->subject);
    end_try(f, false);
    backend_waiter_forget(&f->resolving);
    while (list_pop(&f->waiters)) {}
    pipe_fini(&f->body);
    deadline_fini(&f->total);
    task_forget(&f->task);
}

void fetch_close(struct fetch *f) {
    if (!f) return;
    fetch_stop(f);
    loop_bury(&f->worker->loop, &f->grave);
}

void fetch_take_stream(struct fetch *f, struct borrower *b) {
    server_stream_lend(f->borrower.stream, b);
    f->borrower.stream = NULL;
    f->server_active = false;
    f->step = FETCH_OVER;
}

void fetch_let_go(struct fetch *f) {
    bool waited = f->hook_running;
    subject_end(&f->subject);
    f->subject.site = NULL;
    f->hook_running = false;
    if (!waited) return;
    f->step = FETCH_OVER;
    fail(f, FAIL_HOOK_DRAINED);
}
