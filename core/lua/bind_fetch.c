/* gate.fetch: one request of a script's own, to a backend or a URL, and its whole answer.
 *
 *     local res, word, sentence = gate.fetch("auth", { path = "/check", headers = { … }, timeout = 0.2 })
 *
 * A call is C's memory, because the fetch holds pointers into it: while the script's options are read it belongs to a
 * userdata (whatever they raise, the collector frees it), then to the wait, whose end (`k` or cancel) buries it
 * behind the fetch. The answer's body is collected here, up to `max`, and becomes a Lua string when it is whole.
 * Streaming is what exchanges are for.
 *
 * pick_backend is not asked: a script that fetches says where. */
#include "lua/bind.h"

#include "base/must.h"
#include "http/grammar.h"
#include "http/uri.h"

#include <stdlib.h>

enum { BODY_MAX = 8 << 20, TARGET_MAX = 65536 };
#define TIMEOUT_DEFAULT 10.0

static const struct timeouts default_timeouts = { .connect = 5, .first_byte = 60, .between = 60 };
static const char *const option_names[] = { "method", "path",    "query", "args", "headers",
                                            "body",   "timeout", "max",   "tls",  NULL };

/* What the calls under way in this thread hold. It is C's memory, which no state's limit knows of, and each may hold
 * a connection. */
static _Thread_local struct {
    unsigned calls;
    size_t bytes;
} held;

enum { HELD_CALLS = 4096, HELD_BYTES = 256 << 20 };

struct call {
    struct wait wait;
    struct task task;
    struct fetch_waiter waiter;
    struct pipe_reader reader;
    struct grave grave;
    struct call_box *box;
    struct worker *worker;
    struct site *site; /* whose backend and times; NULL: none */
    struct backend *backend;
    struct fetch *fetch; /* NULL: not begun, or closed */
    struct arena arena;
    struct request request;
    struct slice target;
    struct buffer query;
    struct pipe request_body;
    bool has_body;
    size_t held;
    double timeout, began, ended;
    uint64_t max;
    struct buffer body; /* of the answer, so far */
    bool reading, finished;
    enum failure why; /* NONE: it is whole */
};

/* What owns a call while it is made. */
struct call_box {
    struct handle handle;
    struct call *call; /* NULL: it is somebody else's */
};

/* ---- a call's life */

static void call_free(struct call *c) {
    pipe_fini(&c->request_body);
    buffer_fini(&c->query);
    buffer_fini(&c->body);
    arena_fini(&c->arena);
    free(c);
}

static void box_collect(void *pointer) {
    struct call_box *box = pointer;
    if (box->call) call_free(box->call);
}

static const struct handle_kind box_kind = { .name = "moongate.call", .collect = box_collect };

static void call_bury(struct grave *g) { call_free(container_of(g, struct call, grave)); }

/* The fetch is over, for whatever reason; its answer's head lasts until the end of this turn. */
static void call_end(struct call *c) {
    pipe_remove_reader(&c->reader);
    fetch_waiter_forget(&c->waiter);
    task_forget(&c->task);
    fetch_close(c->fetch);
    held.calls--;
    held.bytes -= c->held;
    c->box->call = NULL;
    loop_bury(&c->worker->loop, &c->grave);
}

static void call_cancel(struct wait *w) { call_end(container_of(w, struct call, wait)); }

static void call_finish(struct call *c, enum failure why) {
    if (c->finished) return;
    c->finished = true;
    c->why = why;
    c->ended = loop_now(&c->worker->loop);
    wait_done(&c->wait);
}

/* ---- its answer */

static struct call *of_reader(struct pipe_reader *r) { return container_of(r, struct call, reader); }

static size_t answer_room(struct pipe_reader *r) {
    struct call *c = of_reader(r);
    return c->finished ? 0 : (size_t)(c->max + 1 - c->body.size);
}

static void hold(struct call *c, size_t bytes) {
    c->held += bytes;
    held.bytes += bytes;
}

static void answer_take(struct pipe_reader *r, struct buffer *bytes) {
    struct call *c = of_reader(r);
    hold(c, bytes->size);
    buffer_move(&c->body, bytes, bytes->size);
    if (c->body.size > c->max) call_finish(c, FAIL_TOO_LARGE);
    else if (held.bytes > HELD_BYTES) call_finish(c, FAIL_OVERLOADED);
}

static void answer_end(struct pipe_reader *r, const struct headers *trailers) {
    (void)trailers;
    call_finish(of_reader(r), FAIL_NONE);
}

static void answer_fail(struct pipe_reader *r, enum failure why) { call_finish(of_reader(r), why); }

static const struct pipe_reader_ops answer_ops = { answer_room, answer_take, answer_end, answer_fail };

static void call_advance(struct task *t) {
    struct call *c = container_of(t, struct call, task);
    if (c->reading || c->finished) return;
    switch (c->fetch->state) {
    case FETCH_TRYING: return;
    case FETCH_HEAD:
        c->reading = true;
        c->reader.ops = &answer_ops;
        pipe_add_reader(&c->fetch->body, &c->reader);
        return;
    case FETCH_REPLY: call_finish(c, FAIL_NO_BACKEND); return;
    case FETCH_FAILED: call_finish(c, c->fetch->why); return;
    }
}

static void push_body(lua_State *L, const struct buffer *body) {
    luaL_Buffer b;
    size_t n = body->size;
    buffer_peek(body, luaL_buffinitsize(L, &b, n), n);
    luaL_pushresultsize(&b, n);
}

static int push_answer(lua_State *L, const struct call *c) {
    lua_createtable(L, 0, 4);
    lua_pushinteger(L, c->fetch->response.status);
    lua_setfield(L, -2, "status");
    headers_copy_push(L, &c->fetch->response.headers);
    lua_setfield(L, -2, "headers");
    push_body(L, &c->body);
    lua_setfield(L, -2, "body");
    lua_pushnumber(L, c->ended - c->began);
    lua_setfield(L, -2, "time");
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
    call_end(c);
    if (c->why == FAIL_NONE) return push_answer(L, c);
    if (c->why == FAIL_TOO_LARGE)
        return fail_world_with(L, failure_word(c->why), "the answer's body is larger than %llu bytes",
                               (unsigned long long)c->max);
    if (why_more && (c->why == FAIL_TLS_FAILED || c->why == FAIL_CERTIFICATE))
        return fail_world_with(L, failure_word(c->why), "%s: %s", failure_sentence(c->why), why_more);
    return fail_world(L, c->why);
}

/* ---- the request: target */

/* What is added to the query so far is collected in a buffer. */
static void begin_query(lua_State *L, struct call *c, size_t more) {
    if (c->query.size + more > TARGET_MAX) luaL_error(L, "gate.fetch: the query is longer than 64 KiB");
    if (c->query.size) buffer_append(&c->query, "&", 1);
}

static void add_query(lua_State *L, struct call *c, struct slice more) {
    begin_query(L, c, more.n);
    more = target_encode(&c->arena, more, true);
    buffer_append(&c->query, more.p, more.n);
}

static void set_path(lua_State *L, struct call *c, struct slice text) {
    if (!text.n || text.p[0] != '/') luaL_error(L, "gate.fetch: path begins with \"/\"");
    if (text.n > TARGET_MAX) luaL_error(L, "gate.fetch: the path is longer than 64 KiB");
    struct slice query = text, path = slice_cut(&query, '?');
    c->request.target.path = target_encode(&c->arena, path, false);
    if (query.n) add_query(L, c, query);
}

/* One argument, whose value is on top. */
static void add_arg(lua_State *L, struct call *c, struct slice name) {
    size_t n;
    int type = lua_type(L, -1);
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
        luaL_error(L, "gate.fetch: args.%s is a string, a number or a list of them, not a %s", name.p,
                   luaL_typename(L, -1));
    const char *p = lua_tolstring(L, -1, &n);
    begin_query(L, c, name.n + n);
    name = percent_encode(&c->arena, name, NULL);
    struct slice value = percent_encode(&c->arena, slice_make(p, n), NULL);
    buffer_append(&c->query, name.p, name.n);
    buffer_append(&c->query, "=", 1);
    buffer_append(&c->query, value.p, value.n);
    lua_pop(L, 1);
}

/* The table of arguments is on top. */
static void add_args(lua_State *L, struct call *c) {
    for (lua_pushnil(L); lua_next(L, -2);) {
        if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "gate.fetch: args is a table from name to value");
        size_t n;
        const char *p = lua_tolstring(L, -2, &n);
        struct slice name = { p, n };
        if (!lua_istable(L, -1)) {
            add_arg(L, c, name);
            continue;
        }
        lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
        for (lua_Integer i = 1; i <= count; i++) {
            lua_rawgeti(L, -1, i);
            add_arg(L, c, name);
        }
        lua_pop(L, 1);
    }
}

static bool option_text(lua_State *L, const char *name, struct slice *text) {
    int type = option_push(L, 2, name);
    if (type == LUA_TNIL) return false;
    if (type != LUA_TSTRING) luaL_error(L, "gate.fetch: %s is a string, not a %s", name, luaL_typename(L, -1));
    text->p = lua_tolstring(L, -1, &text->n);
    return true; /* it stays on the stack, and so in memory */
}

static void read_target(lua_State *L, struct call *c, bool url) {
    struct slice text;
    if (option_text(L, "path", &text)) {
        if (url) luaL_error(L, "gate.fetch: the URL has the path already");
        set_path(L, c, text);
    } else if (!url) {
        c->request.target.path = SLICE("/");
    }
    if (option_text(L, "query", &text)) add_query(L, c, text);
    int type = option_push(L, 2, "args");
    if (type == LUA_TTABLE) add_args(L, c);
    else if (type != LUA_TNIL) luaL_error(L, "gate.fetch: args is a table, not a %s", luaL_typename(L, -1));
    struct slice path = c->request.target.path, query = buffer_gather(&c->query, c->query.size);
    c->target = query.n ? arena_printf(&c->arena, "%.*s?%.*s", FMT(path), FMT(query)) : path;
}

/* ---- the request: method, headers, body */

static void read_method(lua_State *L, struct call *c) {
    struct slice name = c->has_body ? SLICE("POST") : SLICE("GET");
    if (option_text(L, "method", &name) && !header_name_valid(name)) luaL_error(L, "gate.fetch: method is a token");
    c->request.method_name = arena_copy(&c->arena, name);
    c->request.method = method_of(name);
    if (c->request.method == METHOD_CONNECT) luaL_error(L, "gate.fetch: CONNECT cannot be fetched");
}

static void visit_header(void *with, struct slice name, struct slice value) {
    struct call *c = with;
    headers_add(&c->request.headers, arena_copy(&c->arena, name), arena_copy(&c->arena, value));
}

/* A URL's host; for a backend, the name or address of its first server. Servers at unix sockets are called localhost.
 */
static struct slice default_host(struct call *c) {
    if (c->request.target.host.n) return authority_write(&c->arena, &c->request.target);
    const struct server_spec *spec = &c->backend->specs[0];
    if (!spec->host && spec->addr.u.sa.sa_family == AF_UNIX) return SLICE("localhost");
    if (spec->host)
        return spec->port == 80 ? slice_of(spec->host)
                                : arena_printf(&c->arena, "%s:%u", spec->host, (unsigned)spec->port);
    char text[ADDR_TEXT];
    return arena_copy(&c->arena, addr_text(&spec->addr, text));
}

static void check_host(lua_State *L, struct call *c) {
    const struct header *host = headers_find_id(&c->request.headers, HEADER_HOST);
    if (!host) return;
    struct slice name;
    uint16_t port;
    if (headers_next(&c->request.headers, host) || !authority_parse(&c->arena, host->value, &name, &port))
        luaL_error(L, "gate.fetch: Host is one \"name\" or \"name:port\"");
}

static void read_headers(lua_State *L, struct call *c) {
    struct headers *headers = &c->request.headers;
    if (option_push(L, 2, "headers") != LUA_TNIL) header_table_each(L, lua_gettop(L), "gate.fetch", visit_header, c);
    check_host(L, c);
    if (!headers_find_id(headers, HEADER_HOST)) headers_add_id(headers, HEADER_HOST, default_host(c));
    if (!headers_find_id(headers, HEADER_USER_AGENT)) headers_add_id(headers, HEADER_USER_AGENT, SLICE("moongate"));
    headers_remove_id(headers, HEADER_EXPECT);
}

static void no_room(struct pipe *p) { (void)p; }

static void read_body(lua_State *L, struct call *c) {
    struct slice text;
    if (!option_text(L, "body", &text)) return;
    c->has_body = true;
    c->request.framing = (struct framing){ .kind = FRAMING_LENGTH, .length = text.n };
    c->request_body.hold = SIZE_MAX;
    struct buffer bytes = { 0 };
    buffer_append(&bytes, text.p, text.n);
    pipe_write(&c->request_body, &bytes, bytes.size);
}

static void read_limits(lua_State *L, struct call *c) {
    if (option_push(L, 2, "timeout") != LUA_TNIL && (!seconds_read(L, -1, &c->timeout) || c->timeout == 0))
        luaL_error(L, "gate.fetch: timeout is seconds more than 0, a number or such as \"500ms\"");
    if (option_push(L, 2, "max") != LUA_TNIL && (!size_read(L, -1, &c->max) || c->max >= SIZE_MAX / 2))
        luaL_error(L, "gate.fetch: max is bytes, a whole number or such as \"1M\"");
}

/* ---- where to */

static bool is_url(struct slice s) { return memmem(s.p, s.n, "://", 3) != NULL; }

/* The trust stays on the stack, and so in memory. */
static const struct lua_trust *option_tls(lua_State *L) {
    return option_push(L, 2, "tls") == LUA_TNIL ? NULL : trust_check(L, lua_gettop(L), "gate.fetch: tls");
}

static void read_url(lua_State *L, struct call *c, struct slice text) {
    struct target *target = &c->request.target;
    if (text.n > 8192 || !url_parse(&c->arena, arena_copy(&c->arena, text), target))
        luaL_argerror(L, 1, "not a valid http:// or https:// URL");
    if (target->query.n) add_query(L, c, target->query);
    const struct lua_trust *tls = option_tls(L);
    if (tls && slice_equal(target->scheme, SLICE("http"))) luaL_error(L, "gate.fetch: tls is for https:// URLs");
    c->backend = ad_hoc_backend(c->worker, target, tls ? tls->trust : NULL, tls ? tls->name : slice_make(NULL, 0));
    if (!c->backend) luaL_argerror(L, 1, "the URL's host is too long");
}

/* True: a URL. */
static bool read_where(lua_State *L, struct call *c) {
    const struct subject *subject = subject_of(L);
    struct slice text = backend_name_at(L, 1);
    if (!text.p && lua_type(L, 1) != LUA_TSTRING) luaL_typeerror(L, 1, "a backend's name or a URL");
    if (!text.p) text = text_check(L, 1);
    if (is_url(text)) {
        c->site = subject ? subject->site : NULL;
        read_url(L, c, text);
        return true;
    }
    if (option_push(L, 2, "tls") != LUA_TNIL) luaL_error(L, "gate.fetch: tls is for URLs; a backend has its own");
    c->backend = backend_named(L, text, &c->site);
    return false;
}

/* ---- the function */

static struct call *call_new(lua_State *L) {
    struct call_box *box = object_new(L, &box_kind, sizeof *box, 0);
    struct call *c = box->call = must_calloc(1, sizeof *c);
    c->box = box;
    c->worker = state_of(L)->worker;
    c->timeout = TIMEOUT_DEFAULT;
    c->max = BODY_MAX;
    c->wait.cancel = call_cancel;
    task_init(&c->task, call_advance);
    grave_init(&c->grave, call_bury);
    list_init(&c->waiter.node);
    arena_init(&c->arena);
    headers_init(&c->request.headers, &c->arena);
    c->request.version = HTTP_1_1;
    pipe_init(&c->request_body, no_room, NULL);
    return c;
}

/* A request whose method expects content says that there is none (RFC 9110 8.6). */
static bool sends_body(struct call *c) {
    enum method m = c->request.method;
    if (!c->has_body && m != METHOD_POST && m != METHOD_PUT && m != METHOD_PATCH) return false;
    if (!c->has_body) c->request.framing = (struct framing){ .kind = FRAMING_LENGTH };
    pipe_end(&c->request_body, NULL);
    return true;
}

static void call_begin(struct call *c) {
    struct fetch_options options = {
        .worker = c->worker,
        .site = c->site,
        .backend = c->backend,
        .request = &c->request,
        .target = c->target,
        .request_body = sends_body(c) ? &c->request_body : NULL,
        .timeouts = c->site ? &c->site->timeouts : &default_timeouts,
        .total = c->timeout,
    };
    held.calls++;
    hold(c, c->request_body.pending.size);
    c->began = loop_now(&c->worker->loop);
    c->fetch = fetch_create(&options);
    c->waiter.task = &c->task;
    fetch_await(c->fetch, &c->waiter);
    fetch_start(c->fetch);
}

static int gate_fetch(lua_State *L) {
    lua_settop(L, 2);
    wait_check(L);
    options_check(L, 2, "gate.fetch", option_names);
    struct call *c = call_new(L);
    bool url = read_where(L, c);
    read_target(L, c, url);
    read_body(L, c);
    read_method(L, c);
    read_headers(L, c);
    read_limits(L, c);
    if (held.calls >= HELD_CALLS || held.bytes + c->request_body.pending.size > HELD_BYTES)
        return fail_world(L, FAIL_OVERLOADED);
    wait_check(L);
    call_begin(c);
    return wait_begin(L, &c->wait, (lua_KContext)c, fetch_k);
}

void bind_fetch_open(lua_State *L) {
    object_kind_open(L, &box_kind, NULL, NULL, NULL);
    lua_pushcfunction(L, gate_fetch);
    lua_setfield(L, -2, "fetch");
}
