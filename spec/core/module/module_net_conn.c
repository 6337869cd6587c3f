/* core/net for specs: conns, ears, and the bare sockets at their other ends. */
#include "module_net.h"

#include "net/conn.h"
#include "net/listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static const char CONN[] = "moongate_core.conn", EAR[] = "moongate_core.ear";

/* ---- conns */

struct lua_conn {
    struct handle handle;
    struct conn conn;
};

static void tell(struct conn *c, const char *name) {
    handle_call(&container_of(c, struct lua_conn, conn)->handle, name);
}

static void lua_on_bytes(struct conn *c) { tell(c, "on_bytes"); }
static void lua_on_end(struct conn *c) { tell(c, "on_end"); }
static void lua_on_connected(struct conn *c) { tell(c, "on_connected"); }
static void lua_on_room(struct conn *c) { tell(c, "on_room"); }
static void lua_on_flushed(struct conn *c) { tell(c, "on_flushed"); }
static void lua_on_deadline(struct conn *c) { tell(c, "on_deadline"); }

static void lua_on_broken(struct conn *c, enum failure why) {
    struct handle *h = &container_of(c, struct lua_conn, conn)->handle;
    if (!handle_push_method(h, "on_broken")) return;
    lua_pushstring(h->home->L, failure_word(why));
    handle_run(h, 1);
}

static const struct conn_handlers lua_handlers = {
    .on_bytes = lua_on_bytes,
    .on_end = lua_on_end,
    .on_broken = lua_on_broken,
    .on_connected = lua_on_connected,
    .on_room = lua_on_room,
    .on_flushed = lua_on_flushed,
    .on_deadline = lua_on_deadline,
};

static void close_conn(struct handle *h) { conn_close(&((struct lua_conn *)h)->conn); }

static struct conn *check_conn(lua_State *L) { return &((struct lua_conn *)luaL_checkudata(L, 1, CONN))->conn; }

/* loop:conn(fd, handlers) */
static int loop_conn(lua_State *L) {
    struct home *home = home_check(L, 1);
    int fd = (int)luaL_checkinteger(L, 2);
    struct lua_conn *c = handle_make(L, home, CONN, sizeof *c, 3, close_conn);
    conn_open(&c->conn, &home->loop, fd, &lua_handlers);
    return 1;
}

static void check_addr(lua_State *L, int at, struct addr *a) {
    luaL_argcheck(L, addr_parse(a, slice_of(luaL_checkstring(L, at))), at, "address expected");
}

/* loop:connect(addr, handlers) */
static int loop_connect(lua_State *L) {
    struct home *home = home_check(L, 1);
    struct addr a;
    check_addr(L, 2, &a);
    struct lua_conn *c = handle_make(L, home, CONN, sizeof *c, 3, close_conn);
    conn_connect(&c->conn, &home->loop, &a, &lua_handlers);
    return 1;
}

/* write(bytes): to `out`, and says so. */
static int conn_on_write(lua_State *L) {
    struct conn *c = check_conn(L);
    size_t n;
    const char *p = luaL_checklstring(L, 2, &n);
    buffer_append(&c->out, p, n);
    conn_wrote(c);
    return 0;
}

/* write_static(n, bytes): n segments of their own, of one text that stays. */
static int conn_on_write_static(lua_State *L) {
    static const char text[] = "segment.";
    struct conn *c = check_conn(L);
    lua_Integer n = luaL_checkinteger(L, 2);
    while (n-- > 0) buffer_append_static(&c->out, text, sizeof text - 1);
    conn_wrote(c);
    return 0;
}

/* take(n): the first n bytes of `in`, all by default. */
static int conn_on_take(lua_State *L) {
    struct conn *c = check_conn(L);
    lua_Integer n = luaL_optinteger(L, 2, (lua_Integer)c->in.size);
    luaL_argcheck(L, n >= 0 && (size_t)n <= c->in.size, 2, "that much is not there");
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, (size_t)n);
    buffer_peek(&c->in, to, (size_t)n);
    buffer_drop(&c->in, (size_t)n);
    luaL_pushresultsize(&b, (size_t)n);
    conn_consumed(c);
    return 1;
}

static int conn_on_limits(lua_State *L) {
    struct conn *c = check_conn(L);
    c->in_limit = (uint32_t)luaL_checkinteger(L, 2);
    c->out_limit = (uint32_t)luaL_checkinteger(L, 3);
    return 0;
}

static int conn_on_state(lua_State *L) {
    static const char *const names[] = { "new", "connecting", "shaking", "open", "broken", "closed" };
    lua_pushstring(L, names[check_conn(L)->state]);
    return 1;
}

/* "", "r", "w" or "rw": what it watches now. */
static int conn_on_watching(lua_State *L) {
    const ev_io *io = &check_conn(L)->io;
    int events = ev_is_active(io) ? io->events : 0;
    lua_pushfstring(L, "%s%s", events & EV_READ ? "r" : "", events & EV_WRITE ? "w" : "");
    return 1;
}

static int conn_on_counts(lua_State *L) {
    struct conn *c = check_conn(L);
    lua_createtable(L, 0, 4);
    lua_pushinteger(L, (lua_Integer)c->in.size);
    lua_setfield(L, -2, "in_size");
    lua_pushinteger(L, (lua_Integer)c->out.size);
    lua_setfield(L, -2, "out_size");
    lua_pushinteger(L, (lua_Integer)c->received);
    lua_setfield(L, -2, "received");
    lua_pushinteger(L, (lua_Integer)c->sent);
    lua_setfield(L, -2, "sent");
    return 1;
}

static int conn_on_finish(lua_State *L) {
    struct conn *c = check_conn(L);
    conn_close(c);
    return 0;
}

static int conn_on_linger(lua_State *L) {
    conn_linger(check_conn(L));
    return 0;
}

static int conn_on_reset(lua_State *L) {
    conn_reset(check_conn(L));
    return 0;
}

static int conn_on_shut(lua_State *L) {
    conn_shut(check_conn(L));
    return 0;
}

static int conn_on_flush(lua_State *L) {
    conn_flush(check_conn(L));
    return 0;
}

static int conn_on_pause(lua_State *L) {
    conn_pause(check_conn(L), lua_toboolean(L, 2));
    return 0;
}

static int conn_on_set_deadline(lua_State *L) {
    conn_deadline(check_conn(L), luaL_checknumber(L, 2));
    return 0;
}

static int conn_on_ask_room(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)conn_room(check_conn(L)));
    return 1;
}

static int conn_on_ask_reusable(lua_State *L) {
    lua_pushboolean(L, conn_reusable(check_conn(L)));
    return 1;
}

static int conn_on_ask_fd(lua_State *L) {
    lua_pushinteger(L, conn_fd(check_conn(L)));
    return 1;
}

static const luaL_Reg conn_methods[] = {
    { "write", conn_on_write },   { "write_static", conn_on_write_static },
    { "take", conn_on_take },     { "limits", conn_on_limits },
    { "state", conn_on_state },   { "watching", conn_on_watching },
    { "counts", conn_on_counts }, { "finish", conn_on_finish },
    { "linger", conn_on_linger }, { "reset", conn_on_reset },
    { "shut", conn_on_shut },     { "flush", conn_on_flush },
    { "pause", conn_on_pause },   { "deadline", conn_on_set_deadline },
    { "room", conn_on_ask_room }, { "reusable", conn_on_ask_reusable },
    { "fd", conn_on_ask_fd },     { NULL, NULL },
};

/* ---- ears */

struct lua_ear {
    struct handle handle;
    struct listener listener;
    struct ear ear;
};

static void ear_on_accept(struct ear *e, int fd, const struct addr *peer) {
    struct handle *h = &container_of(e, struct lua_ear, ear)->handle;
    char text[ADDR_TEXT];
    if (!handle_push_method(h, "call")) {
        close(fd);
        return;
    }
    lua_pushinteger(h->home->L, fd);
    lua_pushstring(h->home->L, addr_text(peer, text).p);
    handle_run(h, 2);
}

static void close_ear(struct handle *h) {
    struct lua_ear *e = (struct lua_ear *)h;
    ear_close(&e->ear);
    free(e->listener.fds);
}

/* loop:ear({ fds… }, workers, on_accept(ear, fd, peer)) */
static int loop_ear(lua_State *L) {
    struct home *home = home_check(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    unsigned count = (unsigned)lua_rawlen(L, 2), workers = (unsigned)luaL_checkinteger(L, 3);
    struct lua_ear *e = handle_make(L, home, EAR, sizeof *e, 4, close_ear);
    static char name[] = "the spec's listener";
    e->listener = (struct listener){ .name = name, .fd_count = count, .fds = calloc(count, sizeof(int)) };
    for (unsigned i = 0; i < count; i++) {
        lua_rawgeti(L, 2, (lua_Integer)i + 1);
        e->listener.fds[i] = (int)lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    ear_open(&e->ear, &home->loop, &e->listener, workers, ear_on_accept);
    return 1;
}

static int ear_on_pause(lua_State *L) {
    struct lua_ear *e = luaL_checkudata(L, 1, EAR);
    ear_pause(&e->ear, lua_toboolean(L, 2));
    return 0;
}

static int ear_on_count(lua_State *L) {
    struct lua_ear *e = luaL_checkudata(L, 1, EAR);
    lua_pushinteger(L, e->ear.io_count);
    return 1;
}

static const luaL_Reg ear_methods[] = { { "pause", ear_on_pause }, { "count", ear_on_count }, { NULL, NULL } };

const luaL_Reg conn_loop_methods[] = {
    { "conn", loop_conn }, { "connect", loop_connect }, { "ear", loop_ear }, { NULL, NULL }
};

/* ---- bare sockets, non-blocking */

static int push_error(lua_State *L, int error) {
    lua_pushnil(L);
    lua_pushstring(L, strerrorname_np(error));
    return 2;
}

static int check_fd(lua_State *L) { return (int)luaL_checkinteger(L, 1); }

static int net_socketpair(lua_State *L) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) return push_error(L, errno);
    lua_pushinteger(L, fds[0]);
    lua_pushinteger(L, fds[1]);
    return 2;
}

/* read(fd, n): bytes ("" at the end), or nil and the error's name. */
static int net_read(lua_State *L) {
    int fd = check_fd(L);
    size_t most = (size_t)luaL_optinteger(L, 2, 65536);
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, most);
    ssize_t n = recv(fd, to, most, 0);
    int error = errno;
    luaL_pushresultsize(&b, n > 0 ? (size_t)n : 0);
    return n < 0 ? push_error(L, error) : 1;
}

/* write(fd, bytes): how many, or nil and the error's name. */
static int net_write(lua_State *L) {
    size_t n;
    const char *p = luaL_checklstring(L, 2, &n);
    ssize_t sent = send(check_fd(L), p, n, MSG_NOSIGNAL);
    if (sent < 0) return push_error(L, errno);
    lua_pushinteger(L, sent);
    return 1;
}

static int net_close(lua_State *L) {
    close(check_fd(L));
    return 0;
}

static int net_shutdown(lua_State *L) {
    shutdown(check_fd(L), SHUT_WR);
    return 0;
}

static int net_reset(lua_State *L) {
    struct linger at_once = { 1, 0 };
    setsockopt(check_fd(L), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(check_fd(L));
    return 0;
}

/* connect(addr): a descriptor whose connect may still be under way, or nil and the error's name. */
static int net_connect(lua_State *L) {
    struct addr a;
    check_addr(L, 1, &a);
    int fd = socket(a.u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(fd, &a.u.sa, a.size) == 0 || errno == EINPROGRESS) {
        lua_pushinteger(L, fd);
        return 1;
    }
    int error = errno;
    close(fd);
    return push_error(L, error);
}

/* bind(addr, count): { fds… } of listener_bind, or nil and the error's name. */
static int net_bind(lua_State *L) {
    struct addr a;
    check_addr(L, 1, &a);
    int fds[16];
    unsigned count = (unsigned)luaL_optinteger(L, 2, 1);
    luaL_argcheck(L, count <= 16, 2, "too many");
    int error = listener_bind(&a, fds, count);
    if (error) return push_error(L, error);
    lua_createtable(L, (int)count, 0);
    for (unsigned i = 0; i < count; i++) {
        lua_pushinteger(L, fds[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* bind_bare(path): a unix socket that is bound and does not listen: its file is left over when it is closed. */
static int net_bind_bare(lua_State *L) {
    struct addr a;
    check_addr(L, 1, &a);
    int fd = socket(a.u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, &a.u.sa, a.size) == 0) {
        lua_pushinteger(L, fd);
        return 1;
    }
    int error = errno;
    close(fd);
    return push_error(L, error);
}

static int net_name(lua_State *L) {
    struct addr a = { .size = sizeof a.u };
    char text[ADDR_TEXT];
    if (getsockname(check_fd(L), &a.u.sa, &a.size) != 0) return push_error(L, errno);
    lua_pushstring(L, addr_text(&a, text).p);
    lua_pushinteger(L, addr_port(&a));
    return 2;
}

static int read_option(int fd, int level, int option) {
    int value = -1;
    socklen_t size = sizeof value;
    getsockopt(fd, level, option, &value, &size);
    return value;
}

/* options(fd): what conn_tune and accept4 are to have set. */
static int net_options(lua_State *L) {
    int fd = check_fd(L);
    lua_createtable(L, 0, 3);
    lua_pushboolean(L, read_option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
    lua_setfield(L, -2, "nodelay");
    lua_pushboolean(L, read_option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
    lua_setfield(L, -2, "keepalive");
    lua_pushboolean(L, read_option(fd, SOL_SOCKET, SO_REUSEPORT) == 1);
    lua_setfield(L, -2, "reuseport");
    return 1;
}

/* limit_files(n): sets the soft limit of descriptors; returns the former. */
static int net_limit_files(lua_State *L) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    lua_pushinteger(L, (lua_Integer)limit.rlim_cur);
    limit.rlim_cur = (rlim_t)luaL_checkinteger(L, 1);
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return push_error(L, errno);
    return 1;
}

static int net_chunk_bytes(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)buffer_chunk_bytes());
    return 1;
}

const luaL_Reg socket_functions[] = {
    { "socketpair", net_socketpair },
    { "read", net_read },
    { "write", net_write },
    { "close", net_close },
    { "shutdown", net_shutdown },
    { "reset", net_reset },
    { "connect", net_connect },
    { "bind", net_bind },
    { "bind_bare", net_bind_bare },
    { "name", net_name },
    { "options", net_options },
    { "limit_files", net_limit_files },
    { "chunk_bytes", net_chunk_bytes },
    { NULL, NULL },
};

void module_open_conns(lua_State *L) {
    module_type(L, CONN, conn_methods);
    module_type(L, EAR, ear_methods);
}
