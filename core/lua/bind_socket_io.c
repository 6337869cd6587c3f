/* sock:send and sock:receive, with LuaSocket's arguments, results and habits: what was received before a failure is
 * the third result, and how far a send got; "*l" drops every CR.
 *
 * A send is done when the conn has all the bytes: what the socket takes at the end of the turn goes out with one
 * system call for however many sends. A script waits only for room.
 *
 * A receive wakes its script once, when all it asked for is there: until then bytes gather in the conn's `in`, whose
 * limit is raised as they come, never at once to what a peer announced. */
#include "lua/socket_handle.h"

enum { COPY_STEPS = 64 };

/* ---- waiting */

void socket_begin(struct socket_handle *h) {
    h->until = h->total >= 0 ? loop_now(h->loop) + h->total : 0;
    h->timed_out = false;
}

bool socket_woken(struct socket_handle *h) {
    deadline_clear(&h->deadline);
    h->busy = NULL;
    return !h->timed_out;
}

/* ---- send */

/* A quarter of the limit is worth waking up for; conn tells when half of it is free. */
static bool can_send(struct socket_handle *h) {
    struct socket *s = h->socket;
    return !s || s->state != SOCKET_OPEN || conn_room(&s->conn) >= CONN_OUT_LIMIT / 4;
}

static int fail_send(lua_State *L, const struct socket_handle *h, enum failure why) {
    lua_pushnil(L);
    lua_pushstring(L, failure_word(why));
    lua_pushinteger(L, (lua_Integer)h->sent);
    return 3;
}

static int send_k(lua_State *L, int status, lua_KContext context);

static int go_on_with_send(lua_State *L, struct socket_handle *h, bool in_time) {
    struct socket *s = h->socket;
    const char *data = lua_tostring(L, 2);
    if (!s || s->state != SOCKET_OPEN || s->conn.shut) return fail_send(L, h, FAIL_CLOSED);
    size_t left = h->last - h->sent, room = conn_room(&s->conn), n = left < room ? left : room;
    budget_spend(L, n / COPY_STEPS);
    buffer_append(&s->conn.out, data + h->sent, n);
    h->sent += n;
    if (n) conn_wrote(&s->conn);
    if (n < left && !in_time) return fail_send(L, h, FAIL_TIMEOUT);
    if (n < left) return socket_await(L, h, "send", send_k);
    lua_pushinteger(L, (lua_Integer)h->sent);
    return 1;
}

static int send_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct socket_handle *h = (struct socket_handle *)context;
    return go_on_with_send(L, h, socket_woken(h));
}

/* As in string.sub: negative places are counted from the end. */
static size_t place_opt(lua_State *L, int arg, lua_Integer missing, size_t size) {
    lua_Integer at = luaL_optinteger(L, arg, missing);
    if (at >= 0) return (size_t)at;
    return at < -(lua_Integer)size ? 0 : size + (size_t)(at + 1);
}

/* sock:send(data, i, j) → the place of the last byte that was sent, or nil, why, that place. */
int socket_send(lua_State *L) {
    struct socket_handle *h = socket_self(L);
    struct slice data = text_check(L, 2);
    size_t first = place_opt(L, 3, 1, data.n);
    h->last = place_opt(L, 4, -1, data.n);
    if (first < 1) first = 1;
    if (h->last > data.n) h->last = data.n;
    if (first > h->last + 1) first = h->last + 1;
    h->sent = first - 1;
    h->ready = can_send;
    socket_begin(h);
    lua_settop(L, 2);
    return go_on_with_send(L, h, true);
}

/* ---- receive: is there enough? */

/* Bytes that make up the result, with the end of the line; 0: it is not whole yet. */
static bool is_whole(struct socket_handle *h, size_t *n) {
    const struct buffer *in = &h->socket->conn.in;
    *n = in->size;
    if (h->kind == RECEIVE_ALL) return false;
    if (h->kind == RECEIVE_COUNT) {
        *n = h->wanted;
        return in->size >= h->wanted && (h->wanted > 0 || in->size > 0);
    }
    *n = h->scanned = buffer_find(in, '\n', h->scanned);
    return *n < in->size;
}

/* Lets `in` gather twice as much once it is full. */
static bool let_gather(struct socket_handle *h) {
    struct conn *c = &h->socket->conn;
    if (c->in.size < c->in_limit || socket_hold(h->socket, 2 * (size_t)c->in_limit)) return true;
    h->too_much = true;
    return false;
}

static bool is_over(const struct socket_handle *h) { return h->deaf || socket_at_end(h->socket); }

static bool can_receive(struct socket_handle *h) {
    size_t n;
    return !h->socket || is_whole(h, &n) || is_over(h) || !let_gather(h);
}

/* ---- receive: its result */

static void push_stripped(lua_State *L, struct slice bytes) {
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, bytes.n);
    size_t n = 0;
    for (size_t i = 0; i < bytes.n; i++)
        if (bytes.p[i] != '\r') to[n++] = bytes.p[i];
    luaL_pushresultsize(&b, n);
}

/* Pushes the prefix and `n` bytes, which are dropped together with `more` behind them once nothing can raise. */
static void push_received(lua_State *L, struct socket_handle *h, size_t n, size_t more) {
    struct conn *c = &h->socket->conn;
    budget_spend(L, n / COPY_STEPS);
    lua_pushvalue(L, 3);
    struct slice bytes = buffer_gather(&c->in, n);
    if (h->kind == RECEIVE_LINE && memchr(bytes.p, '\r', n)) push_stripped(L, bytes);
    else lua_pushlstring(L, bytes.p, n);
    lua_concat(L, 2);
    buffer_drop(&c->in, n + more);
    socket_hold(h->socket, 0);
}

static int fail_receive(lua_State *L, struct socket_handle *h, enum failure why) {
    lua_pushnil(L);
    lua_pushstring(L, failure_word(why));
    if (h->socket) push_received(L, h, h->socket->conn.in.size, 0);
    else lua_pushvalue(L, 3);
    return 3;
}

/* The rest of what came is of no use without its beginning. */
static int fail_too_much(lua_State *L, struct socket_handle *h) {
    socket_close(h->socket);
    h->socket = NULL;
    return fail_world_with(L, failure_word(FAIL_TOO_LARGE), "more came than a socket gathers");
}

static int receive_k(lua_State *L, int status, lua_KContext context);

/* What came in the last moment still counts. */
static int go_on_with_receive(lua_State *L, struct socket_handle *h, bool in_time) {
    size_t n;
    struct socket *s = h->socket;
    if (!s) return fail_receive(L, h, FAIL_CLOSED);
    if (is_whole(h, &n)) {
        push_received(L, h, n, h->kind == RECEIVE_LINE ? 1 : 0);
        return 1;
    }
    /* What TLS did not end itself, somebody on the way may have cut off: that is not all. */
    if (is_over(h) && h->kind == RECEIVE_ALL && s->conn.in.size > 0 && !conn_truncated(&s->conn)) {
        push_received(L, h, s->conn.in.size, 0);
        return 1;
    }
    if (is_over(h)) return fail_receive(L, h, FAIL_CLOSED);
    if (!in_time) return fail_receive(L, h, FAIL_TIMEOUT);
    if (h->too_much || !let_gather(h)) return fail_too_much(L, h);
    return socket_await(L, h, "receive", receive_k);
}

static int receive_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct socket_handle *h = (struct socket_handle *)context;
    return go_on_with_receive(L, h, socket_woken(h));
}

/* "*l", "*a" (both also without the star), or a number of bytes. */
static void read_pattern(lua_State *L, struct socket_handle *h, size_t prefix) {
    h->kind = RECEIVE_COUNT;
    if (lua_type(L, 2) == LUA_TNUMBER) {
        lua_Integer n = luaL_checkinteger(L, 2);
        luaL_argcheck(L, n >= 0, 2, "a number of bytes is not negative");
        h->wanted = (size_t)n > prefix ? (size_t)n - prefix : 0;
        return;
    }
    const char *pattern = luaL_optstring(L, 2, "*l");
    if (*pattern == '*') pattern++;
    if (*pattern == 'l') h->kind = RECEIVE_LINE;
    else if (*pattern == 'a') h->kind = RECEIVE_ALL;
    else luaL_argerror(L, 2, "expected \"*l\", \"*a\" or a number of bytes");
}

/* sock:receive(pattern, prefix) → data, or nil, why, what came so far. */
int socket_receive(lua_State *L) {
    struct socket_handle *h = socket_self(L);
    size_t prefix;
    luaL_optlstring(L, 3, "", &prefix);
    read_pattern(L, h, prefix);
    lua_settop(L, 3);
    if (lua_isnil(L, 3)) {
        lua_pushliteral(L, "");
        lua_replace(L, 3);
    }
    h->scanned = 0;
    h->too_much = false;
    h->ready = can_receive;
    socket_begin(h);
    if (h->kind == RECEIVE_COUNT && h->wanted > SOCKET_HOLD_MOST)
        return fail_world_with(L, failure_word(FAIL_TOO_LARGE), "a socket gathers 32 MiB at most");
    if (h->kind == RECEIVE_COUNT && h->wanted == 0 && prefix > 0) {
        lua_pushvalue(L, 3);
        return 1;
    }
    return go_on_with_receive(L, h, true);
}

/* ---- readable */

static bool is_readable(struct socket_handle *h) { return !h->socket || h->socket->conn.in.size > 0 || is_over(h); }

static int readable_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct socket_handle *h = (struct socket_handle *)context;
    lua_pushboolean(L, socket_woken(h) || is_readable(h));
    return 1;
}

/* sock:readable(seconds): is there something to receive, bytes or an end, or will there be in so many seconds? */
int socket_readable(lua_State *L) {
    struct socket_handle *h = socket_self(L);
    double seconds = seconds_opt(L, 2, 0);
    h->ready = is_readable;
    socket_begin(h);
    h->until = loop_now(h->loop) + seconds;
    if (!is_readable(h)) return socket_await(L, h, "readable", readable_k);
    lua_pushboolean(L, 1);
    return 1;
}
