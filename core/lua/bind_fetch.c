/* gate.fetch: reading its options into a call (call.h), which is then on its way.
 *
 *     local res, word, sentence = gate.fetch("auth", { path = "/check", headers = { … }, timeout = 0.2 })
 *
 * pick_backend is not asked: a script that fetches says where. */
#include "lua/bind.h"

#include "lua/call.h"
#include "http/grammar.h"
#include "http/uri.h"

enum { TARGET_MAX = 65536, REDIRECTS_MAX = 20 };

static const char *const option_names[] = { "method",  "path", "query",  "args",      "headers", "body",
                                            "timeout", "max",  "stream", "redirects", "tls",     NULL };

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

/* ---- the request: body */

static void read_text_body(lua_State *L, struct call *c) {
    struct slice text = text_check(L, -1);
    c->request.framing = (struct framing){ .kind = FRAMING_LENGTH, .length = text.n };
    c->own_body.hold = SIZE_MAX;
    struct buffer bytes = { 0 };
    buffer_append(&bytes, text.p, text.n);
    if (c->redirects) buffer_share(&c->kept_body, &bytes);
    pipe_write(&c->own_body, &bytes, bytes.size);
    pipe_end(&c->own_body, NULL);
}

/* What a script has received is sent on: the bytes as they are in the pipe, and so with the coding they have. */
static void read_flowing_body(lua_State *L, struct call *c) {
    struct slice coding;
    c->request_body = body_flow_check(L, lua_gettop(L), &c->request.framing, &coding);
    if (coding.p && !headers_find_id(&c->request.headers, HEADER_CONTENT_ENCODING))
        headers_add_id(&c->request.headers, HEADER_CONTENT_ENCODING, coding);
}

/* After the headers. A request whose method expects content says that there is none (RFC 9110 8.6). */
static void read_body(lua_State *L, struct call *c) {
    enum method m = c->request.method;
    int type = option_push(L, 2, "body");
    c->request_body = &c->own_body;
    if (type == LUA_TSTRING) {
        read_text_body(L, c);
    } else if (type == LUA_TFUNCTION) {
        c->request.framing = (struct framing){ .kind = FRAMING_CHUNKED };
        call_take_source(L, c);
    } else if (type == LUA_TUSERDATA && handle_test(L, lua_gettop(L), &body_kind)) {
        read_flowing_body(L, c);
    } else if (type != LUA_TNIL) {
        luaL_error(L, "gate.fetch: body is a string, a function or a body, not a %s", luaL_typename(L, -1));
    } else if (m == METHOD_POST || m == METHOD_PUT || m == METHOD_PATCH) {
        c->request.framing = (struct framing){ .kind = FRAMING_LENGTH };
        pipe_end(&c->own_body, NULL);
    } else {
        c->request_body = NULL;
    }
}

static void read_answer_options(lua_State *L, struct call *c) {
    int type = option_push(L, 2, "stream");
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "gate.fetch: stream is true or false");
    c->stream = lua_toboolean(L, -1);
    if (option_push(L, 2, "redirects") == LUA_TNIL) return;
    int whole = 0;
    lua_Integer n = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : 0;
    if (!whole || n < 0 || n > REDIRECTS_MAX)
        luaL_error(L, "gate.fetch: redirects is a whole number from 0 to %d", REDIRECTS_MAX);
    c->redirects = (unsigned)n;
}

static void read_limits(lua_State *L, struct call *c) {
    c->timeout_given = option_push(L, 2, "timeout") != LUA_TNIL;
    if (c->timeout_given && (!seconds_read(L, -1, &c->timeout) || c->timeout == 0))
        luaL_error(L, "gate.fetch: timeout is seconds more than 0, a number or such as \"500ms\"");
    if (option_push(L, 2, "max") != LUA_TNIL && (!size_read(L, -1, &c->max) || c->max >= SIZE_MAX / 2))
        luaL_error(L, "gate.fetch: max is bytes, a whole number or such as \"1M\"");
}

/* ---- where to */

static bool is_url(struct slice s) { return memmem(s.p, s.n, "://", 3) != NULL; }

/* Redirects to https use the same trust. */
static void read_tls(lua_State *L, struct call *c) {
    if (option_push(L, 2, "tls") == LUA_TNIL) return;
    const struct lua_trust *tls = trust_check(L, lua_gettop(L), "gate.fetch: tls");
    c->trust = tls_trust_ref(tls->trust);
    if (tls->name.p) c->tls_name = arena_copy(&c->arena, tls->name);
}

static void read_url(lua_State *L, struct call *c, struct slice text) {
    struct target *target = &c->request.target;
    if (text.n > 8192 || !url_parse(&c->arena, arena_copy(&c->arena, text), target))
        luaL_argerror(L, 1, "not a valid http:// or https:// URL");
    if (target->query.n) add_query(L, c, target->query);
    read_tls(L, c);
    if (c->trust && slice_equal(target->scheme, SLICE("http"))) luaL_error(L, "gate.fetch: tls is for https:// URLs");
    enum failure why;
    c->backend =
        ad_hoc_backend(c->worker, &(struct ad_hoc_way){ .url = target, .trust = c->trust, .name = c->tls_name }, &why);
    if (why == FAIL_TOO_LARGE) luaL_argerror(L, 1, "the URL's host is too long");
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

static int gate_fetch(lua_State *L) {
    lua_settop(L, 2);
    wait_check(L);
    options_check(L, 2, "gate.fetch", option_names);
    struct call *c = call_new(L);
    c->is_url = read_where(L, c);
    if (!c->backend) return fail_world(L, FAIL_OVERLOADED);
    if (c->is_url) c->egress = generation_egress(state_of(L)->generation);
    read_target(L, c, c->is_url);
    c->has_body = option_push(L, 2, "body") != LUA_TNIL;
    read_method(L, c);
    read_headers(L, c);
    read_limits(L, c);
    read_answer_options(L, c);
    read_body(L, c);
    if (!call_may_begin(c)) return fail_world(L, FAIL_OVERLOADED);
    wait_check(L);
    return call_begin(L, c);
}

void bind_fetch_open(lua_State *L) {
    call_kinds_open(L);
    lua_pushcfunction(L, gate_fetch);
    lua_setfield(L, -2, "fetch");
}
