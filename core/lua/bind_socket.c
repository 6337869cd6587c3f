/* gate.socket: TCP and Unix clients with the methods of LuaSocket, so that drivers written for that run unchanged
 * (lua/socket.lua gives its names to what is here). They wait, but block nobody.
 *
 *     local sock = gate.socket.tcp()
 *     sock:settimeout(0.5)
 *     local ok, word, sentence = sock:connect("cache.internal", 6379)
 *
 * A socket ends with the exchange (or task) that made it: what should outlive it goes into a pool, by
 * `connect(host, port, { pool = "name" })` and, in the end, `setkeepalive`. A pool must be asked for by name, on both
 * sides: a connection may be logged in as somebody, and a script that knows nothing of it must not get it.
 *
 * What LuaSocket has and this has not: servers (bind, listen, accept), UDP, the descriptor. Timeouts are 60 s unless
 * set: a hook that waits for ever helps nobody. */
#include "lua/sandbox.h"
#include "lua/socket_handle.h"

#include "base/clock.h"
#include "base/must.h"
#include "net/tls.h"

#include <math.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>

enum { HOST_MAX = 255, POOL_MAX = 64, KEY_SIZE = 2 * HOST_MAX + POOL_MAX + 128, KEEP_DEFAULT = 30, KEEP_MAX = 1024 };
static const double TIMEOUT_DEFAULT = 60, TIMEOUT_MAX = 86400, TIMEOUT_LEAST = 1e-6, IDLE_DEFAULT = 60;

/* ---- self */

/* Whoever waits in it is told that it is closed. */
static void close_socket(struct socket_handle *h) {
    struct socket *s = h->socket;
    h->socket = NULL;
    if (h->busy) wait_done(&h->wait);
    socket_close(s);
}

static void end_handle(struct socket_handle *h) {
    close_socket(h);
    list_remove(&h->tie.node);
    deadline_fini(&h->deadline);
}

static void socket_collect(void *pointer) {
    struct socket_handle *h = pointer;
    if (h->tie.ended) end_handle(h);
}

const struct handle_kind socket_kind = { .name = "moongate.socket", .collect = socket_collect };

static struct socket_handle *self_any(lua_State *L) { return object_self(L, 1, &socket_kind); }

struct socket_handle *socket_self(lua_State *L) {
    struct socket_handle *h = self_any(L);
    if (h->busy) luaL_error(L, "this socket is in use: another strand waits in its %s", h->busy);
    return h;
}

/* The subject ended: the deadline's loop may be gone when the handle is collected. */
static void tie_on_end(struct tie *tie) {
    struct socket_handle *h = container_of(tie, struct socket_handle, tie);
    end_handle(h);
    h->deadline.loop = NULL;
}

static int fail_closed(lua_State *L) { return fail_world(L, FAIL_CLOSED); }

/* ---- waiting */

static double wait_seconds(const struct socket_handle *h) {
    double now = loop_now(h->loop), seconds = h->block;
    double left = h->until > 0 ? h->until - now : -1;
    if (h->until > 0 && (seconds < 0 || left < seconds)) seconds = left > 0 ? left : 0;
    if (seconds < 0) return 0;
    /* The loop's time is that of the turn's beginning, and a script may have called later. */
    return (seconds > TIMEOUT_LEAST ? seconds : TIMEOUT_LEAST) + (clock_monotonic() - now);
}

static void handle_on_time(struct deadline *d) {
    struct socket_handle *h = container_of(d, struct socket_handle, deadline);
    if (!h->busy) return;
    h->timed_out = true;
    wait_done(&h->wait);
}

static void socket_on_news(struct socket *s) {
    struct socket_handle *h = s->with;
    if (!h->busy || h->timed_out) return;
    if (h->ready(h)) wait_done(&h->wait);
    else deadline_set(&h->deadline, wait_seconds(h));
}

static void wait_cancelled(struct wait *w) {
    struct socket_handle *h = container_of(w, struct socket_handle, wait);
    socket_woken(h);
    if (h->socket) socket_stop_connecting(h->socket);
}

int socket_await(lua_State *L, struct socket_handle *h, const char *method, lua_KFunction k) {
    wait_check(L);
    h->busy = method;
    h->wait.cancel = wait_cancelled;
    deadline_set(&h->deadline, wait_seconds(h));
    return wait_begin(L, &h->wait, (lua_KContext)h, k);
}

/* ---- connect */

static void adopt(struct socket_handle *h, struct socket *s) {
    h->socket = s;
    s->with = h;
    s->on_news = socket_on_news;
}

static void apply_option(struct socket_handle *h, enum socket_option option) {
    static const struct {
        int level, name;
    } options[SOCKET_OPTIONS] = {
        [OPTION_NODELAY] = { IPPROTO_TCP, TCP_NODELAY },
        [OPTION_KEEPALIVE] = { SOL_SOCKET, SO_KEEPALIVE },
        [OPTION_KEEPIDLE] = { IPPROTO_TCP, TCP_KEEPIDLE },
        [OPTION_REUSEADDR] = { SOL_SOCKET, SO_REUSEADDR },
    };
    if (h->socket->state != SOCKET_OPEN) return;
    setsockopt(conn_fd(&h->socket->conn), options[option].level, options[option].name, &h->options[option],
               sizeof h->options[option]);
}

static void apply_options(struct socket_handle *h) {
    for (unsigned i = 0; i < SOCKET_OPTIONS; i++)
        if (h->option_bits & 1u << i) apply_option(h, i);
}

static bool is_connected(struct socket_handle *h) {
    return !h->socket || h->socket->state == SOCKET_OPEN || h->socket->state == SOCKET_NEW ||
           h->socket->state == SOCKET_BROKEN;
}

/* 1, or nil and why not. */
static int finish_connect(lua_State *L, struct socket_handle *h) {
    struct socket *s = h->socket;
    if (!s) return fail_closed(L);
    if (s->state != SOCKET_OPEN && s->why == FAIL_DESTINATION_REFUSED) worker_count_refused(state_of(L)->worker);
    if (s->state != SOCKET_OPEN && s->why == FAIL_CONNECT_TIMEOUT) return fail_world(L, FAIL_TIMEOUT);
    if (s->state != SOCKET_OPEN && s->reason)
        return fail_world_with(L, failure_word(s->why), "%s: %s", failure_sentence(s->why), s->reason);
    if (s->state != SOCKET_OPEN) return fail_world(L, s->why == FAIL_NONE ? FAIL_CLOSED : s->why);
    apply_options(h);
    lua_pushinteger(L, 1);
    return 1;
}

static int connect_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct socket_handle *h = (struct socket_handle *)context;
    bool in_time = socket_woken(h);
    if (h->socket) socket_stop_connecting(h->socket);
    return in_time ? finish_connect(L, h) : fail_world(L, FAIL_TIMEOUT);
}

/* What gate.socket.connect came to: the socket at 1 instead of 1. */
static int connected_k(lua_State *L, int status, lua_KContext context) {
    int results = connect_k(L, status, context);
    if (results == 1) lua_pushvalue(L, 1);
    else close_socket((struct socket_handle *)context);
    return results;
}

/* What a connect is asked for. */
struct connect_request {
    struct socket_target to;
    char unix_path[sizeof "unix:" + sizeof((struct sockaddr_un *)0)->sun_path];
    char key[KEY_SIZE]; /* "" without a pool */
};

static void read_unix(lua_State *L, struct connect_request *q) {
    struct slice path = text_check(L, 2);
    if (path.n == 0 || path.n >= sizeof((struct sockaddr_un *)0)->sun_path || memchr(path.p, 0, path.n))
        luaL_argerror(L, 2, "a path has 1 to 107 bytes");
    memcpy(q->unix_path, "unix:", 5);
    memcpy(q->unix_path + 5, path.p, path.n);
    q->to.host = slice_make(q->unix_path, path.n + 5);
}

static void read_host(lua_State *L, struct connect_request *q) {
    struct slice host = text_check(L, 2);
    if (host.n == 0 || host.n > HOST_MAX) luaL_argerror(L, 2, "a host has 1 to 255 bytes");
    lua_Integer port = luaL_checkinteger(L, 3);
    if (port < 1 || port > 65535) luaL_argerror(L, 3, "a port is 1 to 65535");
    if (host.p[0] == '[' && host.p[host.n - 1] == ']') host = slice_make(host.p + 1, host.n - 2);
    if (slice_starts_with(host, SLICE("unix:"))) luaL_argerror(L, 2, "a host name or an IP expected");
    q->to.host = host;
    q->to.port = (uint16_t)port;
}

/* Whom to trust, of the value on top: a table or what gate.tls made; true is the same as an empty table. What it
 * gives is pushed, and lives as long as that. */
static void read_trust(lua_State *L, const char *what, struct tls_trust **trust, struct slice *name) {
    if (lua_isboolean(L, -1) && lua_toboolean(L, -1)) lua_newtable(L);
    const struct lua_trust *t = trust_check(L, -1, what);
    *trust = t->trust;
    *name = t->name;
}

static void check_name(lua_State *L, const char *what, const struct tls_trust *trust, struct slice name,
                       struct slice host) {
    if (!name.p && tls_trust_verifies(trust) && slice_starts_with(host, SLICE("unix:")))
        luaL_error(L, "%s: a Unix socket has no name: say { name = } or { verify = false }", what);
}

static void read_tls(lua_State *L, int arg, struct connect_request *q) {
    int type = option_push(L, arg, "tls");
    if (type == LUA_TNIL || (type == LUA_TBOOLEAN && !lua_toboolean(L, -1))) return;
    read_trust(L, "connect: tls", &q->to.trust, &q->to.name);
    check_name(L, "connect: tls", q->to.trust, q->to.name, q->to.host);
}

static void write_hex(char *to, size_t size, struct slice bytes) {
    for (size_t i = 0; i < bytes.n && 2 * i + 2 < size; i++)
        snprintf(to + 2 * i, size - 2 * i, "%02x", (unsigned char)bytes.p[i]);
}

/* The options lie at `arg`. A pool's key is all that its connections must have in common. */
static void read_pool(lua_State *L, const struct socket_handle *h, int arg, struct connect_request *q) {
    int type = option_push(L, arg, "pool");
    if (type == LUA_TNIL) return;
    if (type != LUA_TSTRING) luaL_argerror(L, arg, "pool is a name");
    struct slice name = text_check(L, -1);
    if (name.n == 0 || name.n > POOL_MAX || memchr(name.p, 0, name.n))
        luaL_argerror(L, arg, "the name of a pool has 1 to 64 bytes");
    int n = snprintf(q->key, sizeof q->key, "%.*s %d %u %.*s %.*s ", FMT(name), h->family, q->to.port, FMT(q->to.host),
                     FMT(q->to.name));
    if (q->to.trust) write_hex(q->key + n, sizeof q->key - (size_t)n, tls_trust_digest(q->to.trust));
}

static bool take_pooled(struct socket_handle *h, const struct connect_request *q) {
    if (!*q->key) return false;
    struct socket *idle = socket_reuse(h->socket->set, slice_of(q->key), q->to.egress);
    if (idle) {
        socket_close(h->socket);
        adopt(h, idle);
    } else {
        free(h->socket->key);
        h->socket->key = must_strdup(q->key);
    }
    return idle != NULL;
}

/* Stack: the socket, where to, options. */
static int begin_connect(lua_State *L, struct socket_handle *h, lua_KFunction k) {
    struct connect_request q = { .to = { .family = h->family } };
    q.to.egress = generation_egress(state_of(L)->generation);
    int options = h->family == AF_UNIX ? 3 : 4;
    if (!h->socket) return fail_closed(L);
    if (h->socket->state != SOCKET_NEW) return luaL_error(L, "this socket is connected already");
    if (h->family == AF_UNIX) read_unix(L, &q);
    else read_host(L, &q);
    read_tls(L, options, &q);
    read_pool(L, h, options, &q);
    wait_check(L);
    socket_begin(h);
    h->ready = is_connected;
    h->deaf = false;
    if (!take_pooled(h, &q)) {
        q.to.seconds = wait_seconds(h);
        socket_connect(h->socket, state_of(L)->worker->resolver, &q.to);
    }
    lua_settop(L, options);
    if (is_connected(h)) return k(L, LUA_OK, (lua_KContext)h);
    return socket_await(L, h, "connect", k);
}

/* sock:connect(host, port[, { pool = }]); of a Unix socket sock:connect(path[, { pool = }]) */
static int method_connect(lua_State *L) {
    static const char *const names[] = { "pool", "tls", NULL };
    struct socket_handle *h = socket_self(L);
    lua_settop(L, 4);
    options_check(L, h->family == AF_UNIX ? 3 : 4, "connect", names);
    return begin_connect(L, h, connect_k);
}

/* ---- TLS on a connection that stands */

/* What was sent has left, so that the handshake may begin. */
static bool is_flushed(struct socket_handle *h) {
    struct socket *s = h->socket;
    return !s || s->state != SOCKET_OPEN || s->conn.out.size == 0;
}

static bool is_name(struct slice s) { return s.n > 0 && s.n <= 253 && !memchr(s.p, 0, s.n); }

/* Stack: the socket, a name or nil, what it is to trust. */
static int begin_handshake(lua_State *L, struct socket_handle *h) {
    struct tls_trust *trust;
    struct slice name;
    if (!h->socket || h->socket->state != SOCKET_OPEN) return fail_closed(L);
    if (h->socket->conn.in.size) return fail_world_with(L, "dirty", "bytes came before the handshake");
    read_trust(L, "sslhandshake", &trust, &name);
    if (!lua_isnil(L, 2)) name = text_check(L, 2);
    check_name(L, "sslhandshake", trust, name, slice_of(h->socket->name));
    wait_check(L);
    h->ready = is_connected;
    socket_secure(h->socket, trust, name);
    free(h->socket->key); /* whoever takes it from a pool expects what was put there by connect */
    h->socket->key = NULL;
    return socket_await(L, h, "sslhandshake", connect_k);
}

static int flushed_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct socket_handle *h = (struct socket_handle *)context;
    return socket_woken(h) ? begin_handshake(L, h) : fail_world(L, FAIL_TIMEOUT);
}

/* sock:sslhandshake(tls, name): a table of gate.tls's options, or what that made; nothing: the system's roots. */
static int method_sslhandshake(lua_State *L) {
    struct socket_handle *h = socket_self(L);
    lua_settop(L, 3);
    lua_insert(L, 2);
    if (lua_isnil(L, 3)) {
        lua_newtable(L);
        lua_replace(L, 3);
    }
    if (!lua_isnil(L, 2) && (lua_type(L, 2) != LUA_TSTRING || !is_name(text_check(L, 2))))
        return luaL_argerror(L, 2, "a name has 1 to 253 bytes");
    if (!h->socket || h->socket->state != SOCKET_OPEN) return fail_closed(L);
    if (h->socket->trust) return luaL_error(L, "this connection speaks TLS already");
    conn_flush(&h->socket->conn);
    socket_begin(h);
    h->ready = is_flushed;
    if (!is_flushed(h)) return socket_await(L, h, "sslhandshake", flushed_k);
    return begin_handshake(L, h);
}

/* ---- making one */

static struct socket_handle *make_handle(lua_State *L, int family) {
    struct worker *worker = subject_check(L, "gate.socket")->worker;
    struct socket_handle *h = object_new(L, &socket_kind, sizeof *h, 0);
    h->family = family;
    h->block = TIMEOUT_DEFAULT;
    h->total = -1;
    h->loop = &worker->loop;
    h->made = loop_now(h->loop);
    struct socket *s = socket_create(&worker->sockets);
    if (!s) return NULL;
    adopt(h, s);
    deadline_init(&h->deadline, h->loop, handle_on_time);
    h->tie.ended = tie_on_end;
    list_init(&h->tie.node);
    subject_tie(L, &h->tie);
    return h;
}

static int fail_too_many(lua_State *L) {
    return fail_world_with(L, failure_word(FAIL_OVERLOADED), "there are too many sockets");
}

static int push_new(lua_State *L, int family) { return make_handle(L, family) ? 1 : fail_too_many(L); }

static int socket_tcp(lua_State *L) { return push_new(L, AF_UNSPEC); }
static int socket_tcp4(lua_State *L) { return push_new(L, AF_INET); }
static int socket_tcp6(lua_State *L) { return push_new(L, AF_INET6); }
static int socket_unix(lua_State *L) { return push_new(L, AF_UNIX); }

/* gate.socket.connect(host, port[, { pool =, timeout = }]) */
static int socket_connect_new(lua_State *L) {
    static const char *const names[] = { "pool", "tls", "timeout", NULL };
    lua_settop(L, 3);
    options_check(L, 3, "gate.socket.connect", names);
    option_push(L, 3, "timeout");
    double timeout = seconds_opt(L, 4, TIMEOUT_DEFAULT);
    lua_pop(L, 1);
    wait_check(L);
    struct socket_handle *h = make_handle(L, AF_UNSPEC);
    if (!h) return fail_too_many(L);
    h->block = timeout;
    lua_insert(L, 1);
    return begin_connect(L, h, connected_k);
}

/* ---- settings */

/* sock:settimeout(seconds, mode): "b" for each wait (default), "t" for a method in all; nil or negative: none. */
static int method_settimeout(lua_State *L) {
    struct socket_handle *h = socket_self(L);
    double seconds = luaL_optnumber(L, 2, -1);
    const char *mode = luaL_optstring(L, 3, "b");
    luaL_argcheck(L, !isnan(seconds), 2, "a number of seconds");
    if (seconds > TIMEOUT_MAX) seconds = TIMEOUT_MAX;
    if (*mode == 'b') h->block = seconds;
    else if (*mode == 't' || *mode == 'r') h->total = seconds;
    else return luaL_argerror(L, 3, "expected \"b\" or \"t\"");
    lua_pushinteger(L, 1);
    return 1;
}

static int method_setoption(lua_State *L) {
    static const char *const names[] = { "tcp-nodelay", "keepalive", "tcp-keepidle", "reuseaddr", NULL };
    struct socket_handle *h = socket_self(L);
    enum socket_option option = (enum socket_option)luaL_checkoption(L, 2, NULL, names);
    int value = option == OPTION_KEEPIDLE ? (int)luaL_checkinteger(L, 3) : lua_toboolean(L, 3);
    luaL_argcheck(L, option != OPTION_KEEPIDLE || (value > 0 && value <= 32767), 3, "seconds, 1 to 32767");
    if (!h->socket) return fail_closed(L);
    h->options[option] = value;
    h->option_bits |= 1u << option;
    apply_option(h, option);
    lua_pushinteger(L, 1);
    return 1;
}

/* ---- what it is */

static int push_addr(lua_State *L, const struct addr *a) {
    char text[ADDR_TEXT];
    if (a->u.sa.sa_family == AF_UNIX) {
        struct slice path = slice_skip(addr_text(a, text), 5);
        lua_pushlstring(L, path.p, path.n);
        return 1;
    }
    struct slice ip = addr_ip_text(a, text);
    lua_pushlstring(L, ip.p, ip.n);
    lua_pushinteger(L, addr_port(a));
    lua_pushstring(L, a->u.sa.sa_family == AF_INET6 ? "inet6" : "inet");
    return 3;
}

static int push_name(lua_State *L, int (*ask)(int, struct sockaddr *, socklen_t *)) {
    struct socket_handle *h = self_any(L);
    struct addr a = { .size = sizeof a.u };
    if (!h->socket || h->socket->state != SOCKET_OPEN) return fail_closed(L);
    if (ask(conn_fd(&h->socket->conn), &a.u.sa, &a.size) != 0) return fail_closed(L);
    return push_addr(L, &a);
}

static int method_getpeername(lua_State *L) { return push_name(L, getpeername); }
static int method_getsockname(lua_State *L) { return push_name(L, getsockname); }

/* sock:getstats() → bytes received, bytes sent, age in seconds */
static int method_getstats(lua_State *L) {
    struct socket_handle *h = self_any(L);
    const struct conn *c = h->socket ? &h->socket->conn : NULL;
    lua_pushinteger(L, c ? (lua_Integer)c->received : 0);
    lua_pushinteger(L, c ? (lua_Integer)(c->sent + c->out.size) : 0);
    lua_pushnumber(L, clock_monotonic() - h->made);
    return 3;
}

static int method_dirty(lua_State *L) {
    struct socket_handle *h = self_any(L);
    lua_pushboolean(L, h->socket && h->socket->conn.in.size > 0);
    return 1;
}

static int method_getfd(lua_State *L) {
    return luaL_error(L, "a socket has no descriptor that scripts could use: it belongs to the worker's loop");
}

static int method_getreusedtimes(lua_State *L) {
    struct socket_handle *h = self_any(L);
    if (!h->socket) return fail_closed(L);
    lua_pushinteger(L, h->socket->reused);
    return 1;
}

/* ---- its end */

static int method_close(lua_State *L) {
    close_socket(self_any(L));
    lua_pushinteger(L, 1);
    return 1;
}

static int method_shutdown(lua_State *L) {
    static const char *const modes[] = { "both", "send", "receive", NULL };
    struct socket_handle *h = socket_self(L);
    int mode = luaL_checkoption(L, 2, "both", modes);
    if (!h->socket || h->socket->state != SOCKET_OPEN) return fail_closed(L);
    if (mode != 2) conn_shut(&h->socket->conn);
    if (mode != 1) h->deaf = true;
    lua_pushinteger(L, 1);
    return 1;
}

/* sock:setkeepalive(seconds, size): into the pool it was connected with; the socket is closed then. */
static int method_setkeepalive(lua_State *L) {
    struct socket_handle *h = socket_self(L);
    double seconds = seconds_opt(L, 2, IDLE_DEFAULT);
    lua_Integer most = luaL_optinteger(L, 3, KEEP_DEFAULT);
    luaL_argcheck(L, seconds > 0 && seconds <= TIMEOUT_MAX, 2, "more than 0 seconds, a day at most");
    luaL_argcheck(L, most >= 1 && most <= KEEP_MAX, 3, "1 to 1024 connections");
    struct socket *s = h->socket;
    if (!s) return fail_closed(L);
    if (!s->key) return luaL_error(L, "setkeepalive: the socket was connected without { pool = \"name\" }");
    h->socket = NULL;
    if (!h->deaf && socket_keep(s, seconds, (unsigned)most)) {
        lua_pushinteger(L, 1);
        return 1;
    }
    bool dirty = s->state == SOCKET_OPEN && s->conn.in.size > 0;
    socket_close(s);
    return dirty ? fail_world_with(L, "dirty", "bytes that nobody read make it no good for others") : fail_closed(L);
}

/* ---- open */

static const luaL_Reg methods[] = { { "connect", method_connect },
                                    { "sslhandshake", method_sslhandshake },
                                    { "send", socket_send },
                                    { "receive", socket_receive },
                                    { "readable", socket_readable },
                                    { "close", method_close },
                                    { "shutdown", method_shutdown },
                                    { "settimeout", method_settimeout },
                                    { "setoption", method_setoption },
                                    { "setkeepalive", method_setkeepalive },
                                    { "getreusedtimes", method_getreusedtimes },
                                    { "getpeername", method_getpeername },
                                    { "getsockname", method_getsockname },
                                    { "getstats", method_getstats },
                                    { "dirty", method_dirty },
                                    { "getfd", method_getfd },
                                    { NULL, NULL } };

static int handle_index(lua_State *L) {
    static const struct field none[] = { { NULL, NULL, NULL } };
    return object_index(L, self_any(L), none, "a socket");
}

static int handle_newindex(lua_State *L) { return luaL_error(L, "a socket has no fields to assign"); }

static const luaL_Reg metamethods[] = {
    { "__index", handle_index }, { "__newindex", handle_newindex }, { "__close", method_close }, { NULL, NULL }
};

void bind_socket_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "tcp", socket_tcp },   { "tcp4", socket_tcp4 },           { "tcp6", socket_tcp6 },
        { "unix", socket_unix }, { "connect", socket_connect_new }, { NULL, NULL }
    };
    object_kind_open(L, &socket_kind, NULL, metamethods, methods);
    luaL_newlib(L, functions);
    functions_name(L, "gate.socket");
    front_make(L, "gate.socket");
    lua_setfield(L, -2, "socket");
}
