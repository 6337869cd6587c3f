/* The life of a gate.fetch. An answer is either collected, up to `max`, and becomes a Lua string when it is whole; or
 * streamed: then the call ends its wait at the head, and the script reads the fetch's pipe as it does a request's
 * body (bind_body.c), at its own pace, which is the server's as well.
 *
 * A streamed answer is closed by the script, by the end of the run it was begun in, or by the collector, whichever
 * comes first. The collector does not close it on the spot, since closing may run handlers of scripts: it wakes the
 * call's task. */
#include "lua/call.h"

#include "base/must.h"
#include "lua/body_map.h"
#include "proxy/content.h"

#include <stdio.h>
#include <stdlib.h>

/* What the calls under way in this thread hold. It is C's memory, which no state's limit knows of, and each may hold
 * a connection. */
static _Thread_local struct {
    unsigned calls;
    size_t bytes;
} held;

enum { HELD_CALLS = 4096, HELD_BYTES = 256 << 20, BODY_MAX = 8 << 20, SOURCE_PIECE_MAX = 1 << 20 };
#define TIMEOUT_DEFAULT 10.0

static const struct timeouts default_timeouts = { .connect = 5, .first_byte = 60, .between = 60 };

struct fetched {
    struct handle handle;
    struct call *call; /* NULL: closed */
    int status;
    double time;
};

enum { FETCHED_HEADERS = 1, FETCHED_BODY, FETCHED_VALUES = FETCHED_BODY };

/* ---- its end */

static void call_free(struct call *c) {
    pipe_fini(&c->own_body);
    buffer_fini(&c->kept_body);
    buffer_fini(&c->query);
    buffer_fini(&c->text);
    tls_trust_unref(c->trust);
    arena_fini(&c->arena);
    free(c);
}

static void box_collect(void *pointer) {
    struct call_box *box = pointer;
    if (!box->call) return;
    if (box->call->source) callback_close(&box->call->source->callback);
    call_free(box->call);
}

static const struct handle_kind box_kind = { .name = "moongate.call", .collect = box_collect };

static void call_bury(struct grave *g) { call_free(container_of(g, struct call, grave)); }

static void end_objects(struct call *c) {
    if (!c->fetched) return;
    c->fetched->call = NULL;
    c->body_handle->pointer = NULL;
    c->fetched = NULL;
}

/* The fetch is over, for whatever reason; its answer's head lasts until the end of this turn. Who else reads its
 * answer (another fetch, whose request body it is) is told. */
void call_close(struct call *c) {
    if (c->closed) return;
    c->closed = true;
    end_objects(c);
    body_leave(&c->body);
    list_remove(&c->tie.node);
    pipe_remove_reader(&c->reader);
    fetch_waiter_forget(&c->waiter);
    task_forget(&c->task);
    pipe_fail(&c->fetch->body, FAIL_CANCELLED);
    fetch_close(c->fetch);
    if (c->source) callback_close(&c->source->callback);
    held.calls--;
    held.bytes -= c->counted;
    if (c->box) c->box->call = NULL;
    loop_bury(&c->worker->loop, &c->grave);
}

static void call_cancel(struct wait *w) { call_close(container_of(w, struct call, wait)); }

static void on_end(struct tie *tie) { call_close(container_of(tie, struct call, tie)); }

static void call_finish(struct call *c, enum failure why) {
    if (c->finished) return;
    c->finished = true;
    c->why = why;
    c->ended = loop_now(&c->worker->loop);
    wait_done(&c->wait);
}

/* ---- the answer, collected */

static struct call *of_reader(struct pipe_reader *r) { return container_of(r, struct call, reader); }

static size_t answer_room(struct pipe_reader *r) {
    struct call *c = of_reader(r);
    return c->finished ? 0 : (size_t)(c->max + 1 - c->text.size);
}

static void count_bytes(struct call *c, size_t bytes) {
    c->counted += bytes;
    held.bytes += bytes;
}

static void answer_take(struct pipe_reader *r, struct buffer *bytes) {
    struct call *c = of_reader(r);
    count_bytes(c, bytes->size);
    buffer_move(&c->text, bytes, bytes->size);
    if (c->text.size > c->max) call_finish(c, FAIL_TOO_LARGE);
    else if (held.bytes > HELD_BYTES) call_finish(c, FAIL_OVERLOADED);
}

static void answer_end(struct pipe_reader *r, const struct headers *trailers) {
    (void)trailers;
    call_finish(of_reader(r), FAIL_NONE);
}

static void answer_fail(struct pipe_reader *r, enum failure why) { call_finish(of_reader(r), why); }

static const struct pipe_reader_ops answer_ops = { answer_room, answer_take, answer_end, answer_fail };

/* Its content coding is taken off, as for every body a script reads; of one that is not known, or of a part, not. */
static void collect(struct call *c) {
    struct response *r = &c->fetch->response;
    enum coding coding = content_look(&c->content, &r->headers);
    if (coding != CODING_UNKNOWN && !content_is_partial(r->status, &r->headers) &&
        response_has_body(c->request.method, r->status))
        content_decode(&c->content, &c->fetch->body, content_most(), &response_failures);
    c->reading = true;
    c->reader.ops = &answer_ops;
    pipe_add_reader(&c->fetch->body, &c->reader);
}

/* ---- the fetch */

static void begin_fetch(struct call *c) {
    struct fetch_options options = {
        .worker = c->worker,
        .site = c->site,
        .backend = c->backend,
        .request = &c->request,
        .target = c->target,
        .request_body = c->request_body,
        .egress = c->egress,
        .timeouts = c->site ? &c->site->timeouts : &default_timeouts,
        .total = c->timeout - (loop_now(&c->worker->loop) - c->began),
    };
    if (options.total <= 0) options.total = 0.001; /* a redirect took it all: it fails by its deadline */
    c->fetch = fetch_create(&options);
    c->waiter.task = &c->task;
    fetch_await(c->fetch, &c->waiter);
    fetch_start(c->fetch);
}

/* What the former answer said was copied. */
static void follow(struct call *c) {
    fetch_waiter_forget(&c->waiter);
    fetch_close(c->fetch);
    begin_fetch(c);
}

static void take_head(struct call *c) {
    if (c->redirects && call_redirected(c)) {
        follow(c);
        return;
    }
    if (!c->stream) {
        collect(c);
        return;
    }
    /* How long all of it takes is not known; who said it is held to it. */
    if (!c->timeout_given) deadline_clear(&c->fetch->total);
    call_finish(c, FAIL_NONE);
}

static void call_advance(struct task *t) {
    struct call *c = container_of(t, struct call, task);
    if (c->finished && c->stream && !c->fetched && !c->given) {
        call_close(c); /* collected */
        return;
    }
    if (c->reading || c->finished) return;
    switch (c->fetch->state) {
    case FETCH_TRYING: return;
    case FETCH_HEAD: take_head(c); return;
    case FETCH_REPLY: call_finish(c, FAIL_NO_BACKEND); return;
    case FETCH_FAILED: call_finish(c, c->fetch->why); return;
    }
}

/* ---- the request's body, made by a function */

static struct call_source *of_callback(struct callback *cb) { return container_of(cb, struct call_source, callback); }

static int source_push(struct callback *cb, lua_State *L) {
    (void)cb;
    (void)L;
    return 0;
}

static const char *source_take(struct callback *cb, lua_State *L, int results) {
    struct call_source *s = of_callback(cb);
    s->over = results == 0 || lua_isnil(L, 1);
    if (s->over) return NULL;
    size_t n = 0;
    const char *p = lua_type(L, 1) == LUA_TSTRING ? lua_tolstring(L, 1, &n) : NULL;
    if (p && n <= SOURCE_PIECE_MAX) {
        buffer_append(&s->made, p, n);
        return NULL;
    }
    if (p) snprintf(s->wrong, sizeof s->wrong, "the function returned a piece of more than 1 MiB");
    else
        snprintf(s->wrong, sizeof s->wrong, "the function returned a %s; expected a string or nil",
                 luaL_typename(L, 1));
    return s->wrong;
}

static void source_go_on(struct callback *cb) {
    struct call_source *s = of_callback(cb);
    struct pipe *p = &s->call->own_body;
    s->busy = false;
    if (s->over) {
        pipe_end(p, NULL);
        return;
    }
    pipe_write(p, &s->made, s->made.size);
    if (!s->busy && pipe_room(p) > 0) p->on_room(p);
}

static void source_fail(struct callback *cb, enum failure why) {
    struct call *c = of_callback(cb)->call;
    c->source_failed = why == FAIL_HOOK_FAILED;
    pipe_fail(&c->own_body, why);
}

static void source_free(struct callback *cb) {
    buffer_fini(&of_callback(cb)->made);
    free(of_callback(cb));
}

static const struct callback_ops source_ops = {
    "the body function of gate.fetch", source_push, source_take, source_go_on, source_fail, source_free
};

static void body_has_room(struct pipe *p) {
    struct call_source *s = container_of(p, struct call, own_body)->source;
    if (!s || s->busy || s->over) return;
    s->busy = true;
    callback_call(&s->callback);
}

void call_take_source(lua_State *L, struct call *c) {
    c->source = must_calloc(1, sizeof *c->source);
    c->source->call = c;
    callback_open(&c->source->callback, &source_ops, L);
}

/* ---- what the script gets */

static void push_text(lua_State *L, const struct buffer *text) {
    luaL_Buffer b;
    size_t n = text->size;
    buffer_peek(text, luaL_buffinitsize(L, &b, n), n);
    luaL_pushresultsize(&b, n);
}

static void push_trailers(lua_State *L, const struct fetch *f) {
    if (f->trailers.count) headers_copy_push(L, &f->trailers);
    else lua_pushnil(L);
}

static int push_whole(lua_State *L, const struct call *c) {
    lua_createtable(L, 0, 5);
    lua_pushinteger(L, c->fetch->response.status);
    lua_setfield(L, -2, "status");
    headers_copy_push(L, &c->fetch->response.headers);
    lua_setfield(L, -2, "headers");
    push_text(L, &c->text);
    lua_setfield(L, -2, "body");
    push_trailers(L, c->fetch);
    lua_setfield(L, -2, "trailers");
    lua_pushnumber(L, c->ended - c->began);
    lua_setfield(L, -2, "time");
    return 1;
}

static void fetched_collect(void *pointer) {
    struct fetched *f = pointer;
    if (!f->call) return;
    struct call *c = f->call;
    end_objects(c);
    task_wake(&c->worker->loop, &c->task);
}

static const struct handle_kind fetched_kind = { .name = "moongate.fetched", .collect = fetched_collect };

/* A handle of the body that keeps what it is the body of, at -1. */
static void push_body_of(lua_State *L, struct call *c) {
    struct handle *h = lua_newuserdatauv(L, sizeof *h, 1);
    *h = (struct handle){ .kind = &body_kind };
    handle_metatable_push(L, &body_kind);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -2);
    lua_setiuservalue(L, -2, 1);
    c->body_handle = h;
}

/* The run owns the call before anything is pushed: making these objects may be refused. */
static int push_stream(lua_State *L, struct call *c) {
    struct response *r = &c->fetch->response;
    run_tie(L, &c->tie);
    c->box->call = NULL;
    c->box = NULL;
    struct fetched *f = object_new(L, &fetched_kind, sizeof *f, FETCHED_VALUES);
    f->status = r->status;
    f->time = c->ended - c->began;
    headers_copy_push(L, &r->headers);
    lua_setiuservalue(L, -2, FETCHED_HEADERS);
    push_body_of(L, c);
    c->body_handle->pointer = response_has_body(c->request.method, r->status) ? &c->body : NULL;
    lua_setiuservalue(L, -2, FETCHED_BODY);
    f->call = c;
    c->fetched = f;
    return 1;
}

/* The box goes on owning nothing: what may be refused memory below leaves a call that is buried already, at the end
 * of this turn. */
static int fetch_k(lua_State *L, int status, lua_KContext context) {
    struct call *c = (struct call *)context;
    const char *why_more = c->fetch->why_more;
    struct hook_observer *observer = c->worker->observer;
    (void)status;
    if (observer) observer->fetched(observer, subject_of(L), c->fetch, c->why, c->ended - c->began);
    if (c->stream && c->why == FAIL_NONE) return push_stream(L, c);
    call_close(c);
    if (c->source_failed) return luaL_error(L, "gate.fetch: the function that makes the body failed");
    if (c->why == FAIL_NONE) return push_whole(L, c);
    if (c->why == FAIL_TOO_LARGE)
        return fail_world_with(L, failure_word(c->why), "the answer's body is larger than %llu bytes",
                               (unsigned long long)c->max);
    if (why_more) return fail_world_with(L, failure_word(c->why), "%s: %s", failure_sentence(c->why), why_more);
    return fail_world(L, c->why);
}

/* ---- its beginning */

struct call *call_new(lua_State *L) {
    struct call_box *box = object_new(L, &box_kind, sizeof *box, 0);
    struct call *c = box->call = must_calloc(1, sizeof *c);
    c->box = box;
    c->worker = state_of(L)->worker;
    c->timeout = TIMEOUT_DEFAULT;
    c->max = BODY_MAX;
    c->wait.cancel = call_cancel;
    c->tie.ended = on_end;
    task_init(&c->task, call_advance);
    grave_init(&c->grave, call_bury);
    list_init(&c->waiter.node);
    list_init(&c->tie.node);
    arena_init(&c->arena);
    headers_init(&c->request.headers, &c->arena);
    headers_init(&c->request.trailers, &c->arena);
    c->request.version = HTTP_1_1;
    pipe_init(&c->own_body, body_has_room, NULL);
    body_init(&c->body, SIDE_FETCHED, NULL, NULL, c);
    return c;
}

bool call_may_begin(const struct call *c) {
    return held.calls < HELD_CALLS && held.bytes + c->own_body.pending.size <= HELD_BYTES;
}

/* Never longer than what is left of the exchange it is for. */
static void inherit_deadline(struct call *c, const struct subject *subject) {
    const struct exchange *x = subject ? subject->exchange : NULL;
    if (!x || x->total.at <= 0) return;
    double left = x->total.at - loop_now(&c->worker->loop);
    if (left < c->timeout || (c->stream && !c->timeout_given)) {
        c->timeout = left;
        c->timeout_given = true;
    }
}

int call_begin(lua_State *L, struct call *c) {
    inherit_deadline(c, subject_of(L));
    held.calls++;
    count_bytes(c, c->own_body.pending.size);
    c->began = loop_now(&c->worker->loop);
    begin_fetch(c);
    return wait_begin(L, &c->wait, (lua_KContext)c, fetch_k);
}

/* ---- a streamed answer */

struct pipe *call_pipe(const struct call *c) {
    return &c->fetch->body;
}
struct content *call_content(struct call *c) {
    return &c->content;
}
struct response *call_response(const struct call *c) {
    return &c->fetch->response;
}

bool call_give(struct call *c, struct exchange *x) {
    if (c->closed || c->given || !list_empty(&c->fetch->body.readers)) return false;
    c->given = true;
    end_objects(c);
    body_leave(&c->body);
    list_remove(&c->tie.node);
    list_push(&x->ties, &c->tie.node);
    return true;
}

static struct fetched *fetched_self(lua_State *L) { return object_self(L, 1, &fetched_kind); }

static void get_status(lua_State *L, void *f) { lua_pushinteger(L, ((struct fetched *)f)->status); }
static void get_time(lua_State *L, void *f) { lua_pushnumber(L, ((struct fetched *)f)->time); }

static void get_headers(lua_State *L, void *f) {
    (void)f;
    lua_getiuservalue(L, 1, FETCHED_HEADERS);
}

/* nil for what has none. */
static void get_body(lua_State *L, void *fetched) {
    const struct fetched *f = fetched;
    if (f->call && !f->call->body_handle->pointer) lua_pushnil(L);
    else lua_getiuservalue(L, 1, FETCHED_BODY);
}

/* They are known when the body has come. */
static void get_trailers(lua_State *L, void *fetched) {
    const struct fetched *f = fetched;
    if (f->call && f->call->fetch->body.state == PIPE_ENDED) push_trailers(L, f->call->fetch);
    else lua_pushnil(L);
}

static const struct field fields[] = {
    { "status", get_status, NULL },     { "headers", get_headers, NULL }, { "body", get_body, NULL },
    { "trailers", get_trailers, NULL }, { "time", get_time, NULL },       { NULL, NULL, NULL },
};

static int fetched_close(lua_State *L) {
    struct fetched *f = fetched_self(L);
    if (!f->call) return 0;
    if (map_is_running(L, call_pipe(f->call))) return luaL_error(L, "the function that changes a body cannot close it");
    call_close(f->call);
    return 0;
}

static int fetched_index(lua_State *L) { return object_index(L, fetched_self(L), fields, "an answer"); }
static int fetched_newindex(lua_State *L) { return object_newindex(L, fetched_self(L), fields, "an answer"); }

static const luaL_Reg methods[] = { { "close", fetched_close }, { NULL, NULL } };
static const luaL_Reg metamethods[] = {
    { "__index", fetched_index },
    { "__newindex", fetched_newindex },
    { "__close", fetched_close },
    { NULL, NULL },
};

void call_kinds_open(lua_State *L) {
    object_kind_open(L, &box_kind, NULL, NULL, NULL);
    object_kind_open(L, &fetched_kind, fields, metamethods, methods);
}
