/* The story of an exchange, step by step: a request comes, policy is asked, a fetch is made, its answer goes back, a
 * line is written. The steps are functions in the order of enum exchange_step; each goes on, waits to be woken, or
 * jumps (a reply skips the fetch, a failure goes to its page). exchange_advance at the end is the whole engine.
 *
 * What can happen at any time is recorded where it happens and looked at in one place: that the client left
 * (advance), that its body is bad or stopped (exchange_request_failed), that the answer's body broke
 * (exchange_body_failed). */
#include "proxy/exchange.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/slab.h"
#include "http/framing.h"
#include "http/uri.h"
#include "proxy/access_log.h"
#include "proxy/answer.h"
#include "proxy/forward.h"
#include "proxy/forwarded.h"
#include "proxy/last_hop.h"
#include "proxy/purge.h"
#include "proxy/question.h"
#include "proxy/tunnel.h"

enum next { GO_ON, WAIT, JUMPED };

static _Thread_local struct slab exchanges = SLAB(struct exchange, 256);

static struct worker *worker_of_exchange(const struct exchange *x) { return x->subject.worker; }

static enum next jump(struct exchange *x, enum exchange_step step) {
    x->step = (uint8_t)step;
    x->hook_running = false;
    return JUMPED;
}

/* ---- failure: the page, unless the head has left */

/* The fetch keeps its generation alive, and with it the backend's name; the line may come later. */
void exchange_note_fetch(struct exchange *x, const struct fetch *f) {
    if (f->backend) x->backend_name = arena_copy(&x->arena, slice_of(f->backend->name));
    if (f->server) x->server_name = arena_copy(&x->arena, slice_of(f->server->name));
    x->tries = f->tries;
}

static void drop_fetch(struct exchange *x) {
    caching_leave(x);
    if (!x->fetch) return;
    if (x->step < STEP_LOG) exchange_note_fetch(x, x->fetch);
    if (x->body == &x->fetch->body) x->body = NULL;
    fetch_waiter_forget(&x->fetch_waiter);
    fetch_close(x->fetch);
    x->fetch = NULL;
}

/* It ends, but the log line and on_log still tell of it. */
static void stop_fetch(struct exchange *x) {
    caching_leave(x);
    if (!x->fetch) return;
    if (x->body == &x->fetch->body) x->body = NULL;
    fetch_waiter_forget(&x->fetch_waiter);
    fetch_stop(x->fetch);
}

static enum next fail_with_status(struct exchange *x, enum failure why, int status) {
    if (x->failure == FAIL_NONE) x->failure = why;
    hook_cancel(&x->subject);
    stop_fetch(x);
    if (x->head_sent) {
        struct stream *s = x->stream;
        x->stream = NULL;
        if (s && !x->body_done) s->ops->abort(s);
        return jump(x, STEP_ON_LOG);
    }
    /* What follows a bad head is not to be trusted; after a CONNECT it may be a tunnel's. */
    if (!x->site) x->request.framing.keep_alive = false;
    x->error = (struct error_info){ .status = status, .failure = why, .hook = x->failed_hook };
    answer_failure(x, why, status);
    return jump(x, x->error_hook_ran ? STEP_SEND_HEAD : STEP_ON_ERROR);
}

static enum next fail(struct exchange *x, enum failure why) { return fail_with_status(x, why, failure_status(why)); }

static enum next reply(struct exchange *x, const struct reply *r) {
    stop_fetch(x);
    answer_reply(x, r, SOURCE_REPLY);
    return jump(x, STEP_ON_RESPONSE);
}

/* ---- hooks */

static bool has_hook(const struct exchange *x, enum hook hook) {
    return x->subject.site && (x->subject.site->hooks & 1u << hook);
}

/* The generation was closed under it: the site has the hook, and nobody is there to run it. */
static bool lost_hook(const struct exchange *x, enum hook hook) {
    return x->site && !x->subject.site && (x->site->hooks & 1u << hook) && !x->site->fail_open[hook];
}

/* Calls a hook, or goes on with the call that waited. */
static enum verdict ask(struct exchange *x, enum hook hook, const void *detail, struct decision *decision) {
    enum verdict verdict =
        x->hook_running ? hook_go_on(&x->subject, decision) : hook_call(&x->subject, hook, detail, decision);
    x->hook_running = verdict == VERDICT_WAIT;
    if (verdict == VERDICT_FAILED) x->failed_hook = hook_name(hook);
    return verdict;
}

/* ---- 1. take head: the protocol has read it and refused what is ambiguous */

/* Early data may be a replay (RFC 8470): what is not safe to repeat waits for the end of the handshake, which shows
 * that it was none. Others are forwarded with a mark (mark_early). */
static bool is_too_early(const struct exchange *x) {
    bool safe = method_is_safe(x->request.method) && !x->stream->body_unread && !x->request.framing.upgrade;
    return !safe && conn_tls_early(&x->stream->client->conn);
}

static enum next await_handshake(struct exchange *x) {
    if (x->total.at == 0) deadline_set(&x->total, client_timeouts(x->stream->client)->head);
    return WAIT;
}

static enum next take_head(struct exchange *x) {
    if (is_too_early(x)) return await_handshake(x);
    if (x->total.at > 0) deadline_clear(&x->total);
    bool body = x->stream->body_unread;
    /* What comes behind a CONNECT may be meant for the tunnel: if there will be none, nobody else is to read it. */
    if (x->request.method == METHOD_CONNECT) x->request.framing.keep_alive = false;
    x->expects_continue = x->request.framing.expect_continue && body;
    if (!body) pipe_end(&x->request_body, NULL);
    return GO_ON;
}

/* ---- 2. find site */

static void enter_site(struct exchange *x, struct site *site, struct generation *g) {
    x->generation = generation_ref(g);
    x->site = x->subject.site = site;
    x->metrics = site->metrics;
    x->max_body = site->max_body;
    x->site_name = slice_of(site->metrics->name); /* lives as long as the process */
    if (site->timeouts.total > 0) deadline_set(&x->total, site->timeouts.total);
}

static enum failure parse_target(struct exchange *x, bool raw) {
    return target_parse(&x->request.target, &x->arena, x->request.method, x->request.target.raw, x->received_host,
                        client_scheme(x->stream->client), raw);
}

static struct site *look_up(struct exchange *x, const struct host_table *table) {
    x->forward = table->forward && forward_names_target(x, table->forward);
    return x->forward ? table->forward : host_table_find(table, x->request.target.host);
}

static enum next find_site(struct exchange *x) {
    x->received_host = headers_get_id(&x->request.headers, HEADER_HOST);
    x->named_scheme = x->request.target.scheme;
    struct slice raw = x->request.target.raw;
    const struct host_table *table = client_table(x->stream->client);
    if (x->request.method == METHOD_CONNECT && !(table && table->forward)) return fail(x, FAIL_BAD_METHOD);
    enum failure why = parse_target(x, false);
    if (why != FAIL_NONE) return fail(x, why);
    if (x->request.target.absolute)
        x->received_host = authority_write(&x->arena, &x->request.target); /* RFC 9112 3.2.2 */
    struct site *site = table ? look_up(x, table) : NULL;
    if (!site) return fail(x, FAIL_MISDIRECTED);
    enter_site(x, site, worker_of_exchange(x)->generation);
    x->request.target.raw = raw;
    if (site->abort_on_fin && x->stream->ended) { /* its FIN came with the head */
        x->stream->ops->leave(x->stream);
        return WAIT;
    }
    if (site->raw_target && (why = parse_target(x, true)) != FAIL_NONE) return fail(x, why);
    if (exchange_body_is_too_large(x)) return fail(x, FAIL_BODY_TOO_LARGE);
    forwarded_receive(x);
    if (x->forward && (why = forward_receive(x)) != FAIL_NONE) return fail(x, why);
    return GO_ON;
}

/* ---- 3. on_request */

static enum next on_request(struct exchange *x) {
    if (!has_hook(x, HOOK_ON_REQUEST)) return GO_ON;
    struct decision decision;
    switch (ask(x, HOOK_ON_REQUEST, NULL, &decision)) {
    case VERDICT_WAIT: return WAIT;
    case VERDICT_REPLY: return reply(x, &decision.reply);
    case VERDICT_FAILED: return fail(x, FAIL_HOOK_FAILED);
    default: break;
    }
    return exchange_body_is_too_large(x) ? fail(x, FAIL_BODY_TOO_LARGE)
                                         : GO_ON; /* the hook may have lowered max_body */
}

/* ---- 4. cache_key; a PURGE ends here, and what may go no further */

static enum next cache_key(struct exchange *x) {
    struct reply own;
    switch (purge_receive(x, &own)) {
    case PURGE_NOT_OURS: break;
    case PURGE_REFUSED: return fail(x, FAIL_PURGE_REFUSED);
    case PURGE_WAITS: return WAIT;
    case PURGE_DONE: return reply(x, &own);
    }
    if (last_hop_answers(x, &own)) return reply(x, &own);
    bool asks = x->site->cache.cache && x->request.method != METHOD_CONNECT;
    if (!asks || !has_hook(x, HOOK_CACHE_KEY)) return GO_ON;
    struct decision decision;
    switch (ask(x, HOOK_CACHE_KEY, NULL, &decision)) {
    case VERDICT_WAIT: return WAIT;
    case VERDICT_KEY: x->cache_key = decision.key; return GO_ON;
    case VERDICT_FAILED:
    case VERDICT_NO: x->cache_bypass = true; return GO_ON;
    default: return GO_ON;
    }
}

/* ---- 5. look up: hit, stale, join a running fill, begin one; or none of it, and a fetch of its own */

static enum next answer_question(struct exchange *x) {
    struct reply answered = { .status = 204 };
    headers_init(&answered.headers, &x->arena);
    return reply(x, &answered);
}

static enum next ask_cache(struct exchange *x) {
    if (question_take(x)) return answer_question(x);
    switch (caching_look_up(x)) {
    case CACHING_WAIT: return WAIT;
    case CACHING_SERVED: return jump(x, STEP_ON_RESPONSE);
    case CACHING_REFUSED: return fail(x, FAIL_NOT_CACHED);
    case CACHING_FILLS:
        x->fetch_began = loop_now(&worker_of_exchange(x)->loop);
        caching_fill(x);
        return jump(x, STEP_AWAIT_HEAD);
    case CACHING_NONE: break;
    }
    return GO_ON;
}

/* ---- 6. fetch: begin one */

static void wake_by_watch(struct pipe_watch *w) { exchange_wake(container_of(w, struct exchange, buffer_watch)); }

static bool still_buffering(struct exchange *x) {
    if (!x->site->buffer_body || x->request_body.state != PIPE_OPEN) return false;
    if (!x->buffer_watch.on_news) {
        x->buffer_watch.on_news = wake_by_watch;
        pipe_add_watch(&x->request_body, &x->buffer_watch);
        uint64_t most = x->max_body;
        exchange_want_body(x, most == UINT64_MAX ? SIZE_MAX - 1
                                                 : (size_t)most + 1); /* one more, to see that it is too large */
    }
    /* What stages make of it may be more than may come, and then flows. */
    return x->request_body.state == PIPE_OPEN && x->request_body.pending.size < x->request_body.hold;
}

static struct slice wanted_upgrade(const struct exchange *x) {
    if (!x->request.framing.upgrade || x->request.method == METHOD_CONNECT) return slice_make(NULL, 0);
    return framing_upgrade(&x->request.headers);
}

static void mark_early(struct exchange *x) {
    if (x->stream && conn_tls_early(&x->stream->client->conn))
        headers_set(&x->request.headers, SLICE("Early-Data"), SLICE("1"));
}

void exchange_finish_request(struct exchange *x) {
    struct request *r = &x->request;
    x->request_sent = true;
    if (r->method == METHOD_CONNECT) return;
    content_settle_request(x);
    if (r->target.absolute || x->target_changed || r->version != HTTP_1_1)
        headers_set_id(&r->headers, HEADER_HOST, authority_write(&x->arena, &r->target));
    headers_remove(&r->headers, SLICE("HTTP2-Settings"));
    if (!x->forward) forwarded_send(x);
    mark_early(x);
    headers_add_id(&r->headers, HEADER_VIA, x->forward ? forward_via(&x->arena, r->version) : http_via(r->version));
    if (!x->expects_continue) headers_remove_id(&r->headers, HEADER_EXPECT);
}

static enum next fail_given_body(struct exchange *x) {
    log_error("on_request of %s gave the request's body to gate.fetch and has it forwarded as well (request %s)",
              x->site->name, x->id);
    x->failed_hook = hook_name(HOOK_ON_REQUEST);
    return fail(x, FAIL_HOOK_FAILED);
}

void exchange_pass_informational(struct exchange *x, const struct response *r) {
    if (!x->stream || x->head_sent) return;
    if (r->status == 100 && !x->expects_continue) return;
    if (r->status == 100) x->expects_continue = false;
    x->stream->ops->send_informational(x->stream, r);
}

static void forward_informational(struct fetch_waiter *waiter, const struct response *r) {
    exchange_pass_informational(container_of(waiter, struct exchange, fetch_waiter), r);
}

static enum next fetch(struct exchange *x) {
    if (still_buffering(x)) return WAIT;
    if (x->body_given) return fail_given_body(x);
    exchange_finish_request(x);
    struct fetch_options options = {
        .worker = worker_of_exchange(x),
        .site = x->site,
        .exchange = x,
        .request = &x->request,
        .target = target_write(&x->arena, &x->request.target),
        .upgrade = wanted_upgrade(x),
        .request_body = x->request.framing.kind == FRAMING_NONE ? NULL : &x->request_body,
        .timeouts = &x->site->timeouts,
    };
    x->fetch_began = loop_now(&worker_of_exchange(x)->loop);
    x->fetch = fetch_create(&options);
    x->fetch_waiter.task = &x->task;
    x->fetch_waiter.on_informational = forward_informational;
    fetch_await(x->fetch, &x->fetch_waiter);
    fetch_start(x->fetch);
    return GO_ON;
}

/* ---- 7. await head */

/* The only reader of the fetch takes its response as it is; with more readers each would need its own headers. */
static void take_response(struct exchange *x) {
    x->response = x->fetch->response;
    x->source = SOURCE_BACKEND;
    x->body = &x->fetch->body;
    x->first_byte = loop_now(&worker_of_exchange(x)->loop);
    caching_take_changes(x);
    caching_heard(x);
}

bool exchange_takes_fetch(struct exchange *x, struct fetch *f) {
    if (x->step != STEP_AWAIT_HEAD || x->client_left) return false;
    x->fetch = f;
    return true;
}

static enum next take_fetch_failure(struct exchange *x) {
    struct fetch *f = x->fetch;
    enum failure why = f->why;
    if (why == FAIL_PICK_FAILED) x->failed_hook = hook_name(HOOK_PICK_BACKEND);
    if (f->request_broken) return fail(x, x->failure ? x->failure : x->request_body.why);
    return fail(x, why);
}

static enum next await_fill(struct exchange *x) {
    switch (caching_await(x)) {
    case CACHING_WAIT: return WAIT;
    case CACHING_SERVED: return jump(x, STEP_ON_RESPONSE);
    case CACHING_REFUSED: return fail(x, FAIL_TRUNCATED);
    default: return GO_ON; /* the fetch is its own */
    }
}

/* NOLINTNEXTLINE(misc-no-recursion): once, for a response that is adopted */
static enum next await_head(struct exchange *x) {
    enum next filled = caching_leads(x->caching) ? await_fill(x) : GO_ON;
    if (filled != GO_ON) return filled;
    switch (x->fetch->state) {
    case FETCH_TRYING: return WAIT;
    case FETCH_HEAD:
        /* To the client it would come from us; it would tell its password to whoever is there. */
        if (x->forward && x->fetch->response.status == 407) return fail(x, FAIL_BAD_RESPONSE);
        take_response(x);
        if (caching_adopt(x)) return await_head(x);
        break;
    case FETCH_REPLY: return reply(x, &x->fetch->reply);
    case FETCH_FAILED: return take_fetch_failure(x);
    }
    return jump(x, x->fetch->tunnel ? STEP_SEND_HEAD : STEP_ON_RESPONSE);
}

/* ---- 8. on_error: only after a failure */

static enum next on_error(struct exchange *x) {
    x->error_hook_ran = true;
    if (!has_hook(x, HOOK_ON_ERROR)) return GO_ON;
    struct decision decision;
    switch (ask(x, HOOK_ON_ERROR, &x->error, &decision)) {
    case VERDICT_WAIT: return WAIT;
    case VERDICT_REPLY: answer_reply(x, &decision.reply, SOURCE_ERROR); return GO_ON;
    default: return GO_ON; /* its own failure leaves the plain page */
    }
}

/* ---- 9. on_response */

static enum next on_response(struct exchange *x) {
    if (lost_hook(x, HOOK_ON_RESPONSE) && x->source != SOURCE_ERROR) {
        x->error_hook_ran = true;
        return fail(x, FAIL_HOOK_DRAINED); /* what it would have hidden stays hidden */
    }
    if (!has_hook(x, HOOK_ON_RESPONSE)) return GO_ON;
    struct decision decision;
    switch (ask(x, HOOK_ON_RESPONSE, NULL, &decision)) {
    case VERDICT_WAIT: return WAIT;
    case VERDICT_REPLY:
        stop_fetch(x);
        answer_reply(x, &decision.reply, SOURCE_REPLY);
        return GO_ON;
    case VERDICT_FAILED:
        x->error_hook_ran = true; /* neither on_error nor on_response is asked about the page for this */
        return fail(x, FAIL_RESPONSE_HOOK_FAILED);
    default: return GO_ON;
    }
}

/* ---- 10. send head */

/* A body that nobody reads any more: what is already here is dropped, so that a small one does not cost the
 * connection. */
static void drop_request_body(struct exchange *x) {
    if (x->stream->body_unread && !x->expects_continue && !x->drop.pipe && list_empty(&x->request_body.readers)) {
        x->drop.ops = &pipe_drop;
        pipe_add_reader(&x->request_body, &x->drop);
    }
}

/* Policy is not asked about the page for its own failure. */
static enum next fail_content(struct exchange *x) {
    enum failure why = x->body->why;
    if (why == FAIL_RESPONSE_HOOK_FAILED) x->error_hook_ran = true;
    return fail(x, why);
}

static bool has_tunnel(const struct exchange *x) { return x->fetch && x->fetch->tunnel; }

/* Policy answers a CONNECT with what its client would take for a tunnel, and all that follows for the server's. */
static bool pretends_tunnel(const struct exchange *x) {
    bool tunnel = x->source == SOURCE_BACKEND && has_tunnel(x);
    return !tunnel && response_opens_tunnel(x->request.method, x->response.status);
}

static enum next fail_pretended(struct exchange *x) {
    log_error("%s: a CONNECT cannot be answered with %d: there is no tunnel (request %s)",
              x->site ? x->site->name : "?", x->response.status, x->id);
    x->error_hook_ran = true;
    return fail(x, FAIL_RESPONSE_HOOK_FAILED);
}

/* Policy may have made a 205 of an answer with content, and some servers send it themselves. */
static void empty_reset(struct exchange *x) {
    const struct framing *f = &x->response.framing;
    if (x->response.status != 205 || (f->kind == FRAMING_LENGTH && f->length == 0)) return;
    struct answer a = answer_of(x);
    answer_set_body(&a, SLICE(""));
}

static enum next send_head(struct exchange *x) {
    if (pretends_tunnel(x)) return fail_pretended(x);
    bool own = x->source != SOURCE_BACKEND; /* no fetch reads the request body any more */
    if (own && x->site) drop_request_body(x);
    if (x->client_left) return WAIT; /* reading its body showed that it left: advance sees to it */
    if (!caching_is_settled(x->caching)) return WAIT;
    caching_apply(x);
    empty_reset(x);
    switch (has_tunnel(x) ? CONTENT_READY : content_settle_answer(x)) {
    case CONTENT_READY: break;
    case CONTENT_WAITS: return WAIT;
    case CONTENT_FAILED: return fail_content(x);
    }
    if (x->stream->body_unread && own) x->request.framing.keep_alive = false;
    if (x->source == SOURCE_REPLY || x->source == SOURCE_ERROR) answer_suit_client(x);
    framing_settle(&x->response, x->request.method);
    x->stream->ops->send_head(x->stream, &x->response);
    x->head_sent = true;
    if (!own && has_tunnel(x)) {
        tunnel_begin(x);
        return jump(x, STEP_ON_LOG);
    }
    if (!response_has_body(x->request.method, x->response.status)) {
        x->body_done = true;
        return GO_ON;
    }
    pipe_add_reader(x->body, &x->stream->reader);
    return GO_ON;
}

/* ---- 11. body */

static enum next body(struct exchange *x) {
    if (!x->body_done) return WAIT;
    struct stream *s = x->stream;
    x->stream = NULL;
    if (s) s->ops->finish(s); /* else the client has it, and left */
    return GO_ON;
}

/* ---- 12. on_log; the client is already free for its next request */

static enum next on_log(struct exchange *x) {
    if (x->ended == 0) x->ended = loop_now(&worker_of_exchange(x)->loop);
    struct decision ignored;
    if (has_hook(x, HOOK_ON_LOG) && ask(x, HOOK_ON_LOG, NULL, &ignored) == VERDICT_WAIT) return WAIT;
    return GO_ON;
}

/* ---- 13. tunnel: policy has had its say, the generation is let go */

static void leave_site(struct exchange *x) {
    subject_end(&x->subject);
    x->site = x->subject.site = NULL;
    generation_unref(x->generation);
    x->generation = NULL;
}

static enum next tunnel(struct exchange *x) {
    if (!x->tunnel) return GO_ON;
    drop_fetch(x);
    if (x->site) leave_site(x);
    x->ended = 0;
    return WAIT; /* exchange_tunnel_ended goes on */
}

/* ---- 14. log */

static struct metric *requests_metric(struct site_metrics *m, int status) {
    struct metric *metric = atomic_load_explicit(&m->requests[status], memory_order_acquire);
    return metric ? metric : site_metrics_requests(m, status);
}

static void count_cache(const struct exchange *x, int worker) {
    enum cache_result result = CACHE_RESULT_MISS;
    const struct cache_metrics *m = &x->metrics->cache;
    caching_result(x->caching, &result);
    metric_add(m->requests[result], worker, 1);
    if (x->source != SOURCE_CACHE) return;
    metric_add(m->bytes, worker, (int64_t)x->bytes_out);
    metric_observe_real(m->age, worker, x->caching->reuse.age_seconds);
}

static void count(struct exchange *x, double seconds) {
    int worker = worker_of_exchange(x)->loop.index;
    struct site_metrics *m = x->metrics;
    metric_add(worker_of_exchange(x)->metrics->requests_total, worker, 1);
    if (!m) {
        metric_add(worker_of_exchange(x)->metrics->bad_requests, worker, 1);
        return;
    }
    int status = x->head_sent ? x->response.status : 499; /* as nginx counts a client that left before an answer */
    metric_add(requests_metric(m, status), worker, 1);
    metric_observe(m->latency, worker, seconds);
    metric_add(m->bytes_in, worker, (int64_t)x->bytes_in);
    metric_add(m->bytes_out, worker, (int64_t)x->bytes_out);
    if (x->caching) count_cache(x, worker);
}

static void write_line(struct exchange *x, double seconds) {
    char ip[ADDR_TEXT];
    const struct request *r = &x->request;
    if (x->fetch) exchange_note_fetch(x, x->fetch);
    struct access_record record = {
        .client_ip = addr_ip_text(&x->client_addr, ip),
        .id = slice_of(x->id),
        .method = r->method_name,
        .target = r->target.raw,
        .version = http_version_name(r->version),
        .host = x->received_host,
        .referer = headers_get_id(&r->headers, HEADER_REFERER),
        .user_agent = headers_get_id(&r->headers, HEADER_USER_AGENT),
        .site = x->site_name,
        .source = slice_of(exchange_source_name(x->source)),
        .word = slice_of(failure_word(x->failure)),
        .status = x->head_sent ? x->response.status : 499,
        .bytes_in = x->bytes_in,
        .bytes_out = x->bytes_out,
        .wall = clock_wall() - seconds,
        .seconds = seconds,
        .first_byte = x->first_byte ? x->first_byte - x->began : -1,
        .backend = x->backend_name,
        .server = x->server_name,
        .tries = x->tries,
        .cache = slice_of(caching_word(x->caching)),
        .cache_rule = caching_rule(x->caching),
    };
    access_log_write(worker_of_exchange(x)->access, &record);
}

static enum next log_step(struct exchange *x) {
    if (x->ended == 0) x->ended = loop_now(&worker_of_exchange(x)->loop);
    double seconds = x->ended - x->began;
    count(x, seconds);
    struct worker *w = worker_of_exchange(x);
    if (w->access) write_line(x, seconds);
    if (w->observer) w->observer->finished(w->observer, x);
    return GO_ON;
}

/* ---- 15. done */

static void exchange_bury(struct grave *g) {
    struct exchange *x = container_of(g, struct exchange, grave);
    struct worker *w = worker_of_exchange(x);
    arena_fini(&x->arena);
    slab_give(&exchanges, x);
    worker_exchange_gone(w);
}

void ties_end(struct list *ties) {
    for (struct list *node; (node = list_pop(ties));) {
        struct tie *tie = container_of(node, struct tie, node);
        tie->ended(tie);
    }
}

static enum next done(struct exchange *x) {
    drop_fetch(x);
    if (caching_runs(x->caching) && !worker_of_exchange(x)->closing) { /* others want what it fetches */
        worker_exchange_rests(worker_of_exchange(x));
        return WAIT;
    }
    caching_end(x);
    purge_end(x);
    ties_end(&x->ties);
    leave_site(x);
    pipe_remove_reader(&x->drop);
    pipe_fini(&x->request_body);
    if (x->reply_body) pipe_fini(x->reply_body);
    deadline_fini(&x->total);
    list_remove(&x->node);
    task_forget(&x->task);
    loop_bury(&worker_of_exchange(x)->loop, &x->grave);
    return WAIT;
}

/* ---- the engine */

static enum next (*const steps[])(struct exchange *) = {
    [STEP_TAKE_HEAD] = take_head,   [STEP_FIND_SITE] = find_site, [STEP_ON_REQUEST] = on_request,
    [STEP_CACHE_KEY] = cache_key,   [STEP_LOOK_UP] = ask_cache,   [STEP_FETCH] = fetch,
    [STEP_AWAIT_HEAD] = await_head, [STEP_ON_ERROR] = on_error,   [STEP_ON_RESPONSE] = on_response,
    [STEP_SEND_HEAD] = send_head,   [STEP_BODY] = body,           [STEP_ON_LOG] = on_log,
    [STEP_TUNNEL] = tunnel,         [STEP_LOG] = log_step,        [STEP_DONE] = done,
};

/* Nobody is there to be answered: what is under way ends, and the line is written. */
static void abandon(struct exchange *x) {
    if (x->failure == FAIL_NONE) x->failure = FAIL_CLIENT_LEFT;
    hook_cancel(&x->subject);
    stop_fetch(x);
    jump(x, STEP_ON_LOG);
}

static void exchange_advance(struct task *t) {
    struct exchange *x = container_of(t, struct exchange, task);
    for (;;) {
        if (x->client_left && x->step < STEP_ON_LOG) abandon(x);
        if (x->pending_failure && x->step < STEP_ON_LOG) {
            enum failure why = x->pending_failure;
            x->pending_failure = FAIL_NONE;
            if (!x->body_done) fail(x, why); /* else the answer is complete, whatever became of the request's rest */
        }
        switch (steps[x->step](x)) {
        case GO_ON: x->step++; break;
        case JUMPED: break;
        case WAIT:
            if (x->client_left && x->step < STEP_ON_LOG) break;
            return;
        }
    }
}

void exchange_wake(struct exchange *x) { task_wake(&worker_of_exchange(x)->loop, &x->task); }

/* ---- what others tell it */

static void request_body_has_room(struct pipe *p) {
    struct exchange *x = container_of(p, struct exchange, request_body);
    if (x->stream) x->stream->ops->read_body(x->stream);
}

static void fail_later(struct exchange *x, enum failure why) {
    x->pending_failure = why;
    exchange_wake(x);
}

static void on_total(struct deadline *d) {
    struct exchange *x = container_of(d, struct exchange, total);
    fail_later(x, x->step == STEP_TAKE_HEAD ? FAIL_TOO_EARLY : FAIL_TOTAL_TIMEOUT);
}

static void make_id(struct exchange *x, struct worker *w) {
    static const char digits[] = "0123456789abcdef";
    uint64_t id = (w->id_seed + w->id_next++) * UINT64_C(0x9e3779b97f4a7c15);
    for (unsigned i = 0; i < REQUEST_ID_SIZE; i++, id >>= 4) x->id[i] = digits[id & 15];
    x->id[REQUEST_ID_SIZE] = 0;
}

struct exchange *exchange_create(struct stream *s) {
    struct worker *w = client_worker(s->client);
    struct exchange *x = slab_take(&exchanges);
    memset(x, 0, sizeof *x);
    task_init(&x->task, exchange_advance);
    grave_init(&x->grave, exchange_bury);
    list_init(&x->node);
    list_init(&x->fetch_waiter.node);
    list_init(&x->buffer_watch.node);
    list_init(&x->content_watch.node);
    list_init(&x->ties);
    arena_init(&x->arena);
    pipe_init(&x->request_body, request_body_has_room, NULL);
    deadline_init(&x->total, &w->loop, on_total);
    headers_init(&x->request.headers, &x->arena);
    headers_init(&x->request.trailers, &x->arena);
    headers_init(&x->response.headers, &x->arena);
    x->stream = s;
    x->subject =
        (struct subject){ .kind = SUBJECT_EXCHANGE, .worker = w, .exchange = x, .arena = &x->arena, .task = &x->task };
    return x;
}

void exchange_forget(struct exchange *x) {
    arena_fini(&x->arena);
    slab_give(&exchanges, x);
}

static void enlist(struct exchange *x) {
    struct worker *w = worker_of_exchange(x);
    make_id(x, w);
    x->began = loop_now(&w->loop);
    x->client_addr = x->stream->client->addr;
    list_push(&w->exchanges, &x->node);
    exchange_wake(x);
}

void exchange_begin(struct exchange *x) { enlist(x); }

void exchange_begin_failed(struct exchange *x, enum failure why) {
    enlist(x);
    if (!x->request.method_name.p) x->request.version = HTTP_1_1; /* the head was not even read */
    x->pending_failure = why;
}

void exchange_client_left(struct exchange *x) {
    x->stream = NULL;
    x->client_left = !x->body_done || x->tunnel;
    if (x->tunnel) tunnel_client_left(x->tunnel);
    exchange_wake(x);
}

/* While a body is sent on, the fetch must not take what there is of it for the whole. An answer that needs no more of
 * it is finished all the same; the connection then closes. */
void exchange_request_failed(struct exchange *x, enum failure why) {
    bool dropped = x->drop.pipe || (x->head_sent && x->source != SOURCE_BACKEND);
    pipe_fail(&x->request_body, why);
    if (!dropped) fail_later(x, why);
}

bool exchange_count_in(struct exchange *x, size_t n) {
    x->bytes_in += n;
    bool fits = x->bytes_in <= x->max_body;
    if (!fits) exchange_request_failed(x, FAIL_BODY_TOO_LARGE);
    return fits;
}

bool exchange_body_is_too_large(const struct exchange *x) {
    const struct framing *f = &x->request.framing;
    return x->bytes_in > x->max_body || (f->kind == FRAMING_LENGTH && f->length > x->max_body);
}

void exchange_body_sent(struct exchange *x) {
    x->body_done = true;
    if (x->tunnel) tunnel_down_sent(x->tunnel);
    else exchange_wake(x);
}

void exchange_body_failed(struct exchange *x, enum failure why) { fail_later(x, why); }

void exchange_want_body(struct exchange *x, size_t max) {
    x->wants_body = true;
    if (x->expects_continue && x->stream) {
        struct response proceed = { .status = 100, .version = HTTP_1_1, .reason = status_reason(100) };
        x->expects_continue = false;
        x->stream->ops->send_informational(x->stream, &proceed);
    }
    pipe_hold(&x->request_body, max);
}

void exchange_tunnel_ended(struct exchange *x) {
    x->tunnel = NULL;
    exchange_wake(x);
}

void exchange_let_go(struct exchange *x) {
    if (!x->subject.site) return;
    bool waited = x->hook_running;
    if (x->fetch) fetch_let_go(x->fetch);
    if (x->caching) fill_let_go(&x->caching->fill);
    subject_end(&x->subject);
    x->subject.site = NULL;
    if (!waited) return;
    if (x->step < STEP_ON_LOG) fail_later(x, FAIL_HOOK_DRAINED);
    else exchange_wake(x);
    x->hook_running = false;
}

const char *exchange_source_name(enum response_source source) {
    static const char *const names[] = { "none", "backend", "cache", "reply", "error" };
    return names[source];
}
