/* `req.body` and `res.body`: the content of a message, to be read by a script and still be forwarded.
 *
 *     body:text(max)              all of it; nil, "too_large", sentence beyond max (1 MiB)
 *     for piece in body:chunks(max)   as it comes
 *
 * Nothing is taken out of the pipe. Before its first reader is there, bytes gather in it (pipe_hold) up to what the
 * script allows, and the script copies from what lies there. So a body can be read any number of times while its
 * message is still ours to change, and not afterwards: then it is on its way, at the pace of who reads it. `max`
 * bounds what is held, not only what is returned: this is why chunks has one too.
 *
 * Strands of gate.all may wait for the same body; a pipe has one watch, so the waits stand in a list behind it. */
#include "lua/bind.h"

#include "base/must.h"
#include "proxy/answer.h"

#include <stdlib.h>

enum { TEXT_MAX = 1 << 20, PIECE_MAX = 65536 };

static const struct handle_kind kind = { .name = "moongate.body" };

static struct body *body_self(lua_State *L, int arg) { return object_self(L, arg, &kind); }

/* ---- the pipe behind it */

/* NULL: the answer has none any more. */
static struct pipe *pipe_of(const struct body *b) {
    return b->side == SIDE_REQUEST ? &b->exchange->request_body : b->exchange->body;
}

static const struct framing *framing_of(const struct body *b) {
    return b->side == SIDE_REQUEST ? &b->exchange->request.framing : &b->exchange->response.framing;
}

/* Raises once it is on its way. */
static struct pipe *pipe_check(lua_State *L, const struct body *b) {
    bool gone = b->exchange->head_sent || (b->side == SIDE_REQUEST && b->exchange->request_sent);
    struct pipe *p = gone ? NULL : pipe_of(b);
    if (!p || !list_empty(&p->readers))
        luaL_error(L, "the body has been sent on and cannot be read any more (%s)",
                   b->side == SIDE_REQUEST ? "read it in on_request" : "read it in on_response");
    return p;
}

static uint64_t max_check(lua_State *L, int arg) {
    uint64_t max = size_opt(L, arg, TEXT_MAX);
    return max < SIZE_MAX - 1 ? max : SIZE_MAX - 2;
}

/* One byte more than allowed shows that there is more. */
static void let_gather(const struct body *b, struct pipe *p, uint64_t max) {
    if (b->side == SIDE_REQUEST) exchange_want_body(b->exchange, (size_t)max + 1);
    else pipe_hold(p, (size_t)max + 1);
}

static bool is_too_large(const struct body *b, const struct pipe *p, uint64_t max) {
    const struct framing *f = framing_of(b);
    return p->pending.size > max || (f->kind == FRAMING_LENGTH && f->length > max);
}

/* ---- waiting for it */

struct body_wait {
    struct wait wait;
    struct list node;
    struct body *body;
};

static void on_news(struct pipe_watch *w) {
    struct body *b = container_of(w, struct body, watch);
    list_each_safe(node, &b->waits) wait_done(&container_of(node, struct body_wait, node)->wait);
}

static void end_wait(struct body_wait *bw) {
    struct body *b = bw->body;
    struct pipe *p = pipe_of(b);
    list_remove(&bw->node);
    if (list_empty(&b->waits) && p && p->watch == &b->watch) p->watch = NULL;
    free(bw);
}

static void cancel_wait(struct wait *w) { end_wait(container_of(w, struct body_wait, wait)); }

/* `k` goes on when there is news. */
static int await_news(lua_State *L, struct body *b, lua_KFunction k) {
    wait_check(L);
    struct body_wait *bw = must_calloc(1, sizeof *bw);
    bw->wait.cancel = cancel_wait;
    bw->body = b;
    list_push(&b->waits, &bw->node);
    b->watch.on_news = on_news;
    pipe_of(b)->watch = &b->watch;
    return wait_begin(L, &bw->wait, (lua_KContext)bw, k);
}

/* ---- text */

/* `n` bytes from `at` on, which are there; the buffer is owned before anything is taken. */
static void push_pending(lua_State *L, const struct pipe *p, size_t at, size_t n) {
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, n);
    if (at == 0) {
        buffer_peek(&p->pending, to, n);
    } else {
        struct buffer share = { 0 };
        buffer_share(&share, &p->pending);
        buffer_drop(&share, at);
        buffer_peek(&share, to, n);
        buffer_fini(&share);
    }
    luaL_pushresultsize(&b, n);
}

static int fail_too_large(lua_State *L, uint64_t max) {
    return fail_world_with(L, failure_word(FAIL_TOO_LARGE), "the body is larger than %llu bytes",
                           (unsigned long long)max);
}

static int text_k(lua_State *L, int status, lua_KContext context);

static int go_on_with_text(lua_State *L) {
    struct body *b = body_self(L, 1);
    uint64_t max = max_check(L, 2);
    struct pipe *p = pipe_check(L, b);
    if (is_too_large(b, p, max)) return fail_too_large(L, max);
    let_gather(b, p, max);
    if (is_too_large(b, p, max)) return fail_too_large(L, max);
    if (p->state == PIPE_FAILED) return fail_world(L, p->why);
    if (p->state == PIPE_OPEN) return await_news(L, b, text_k);
    push_pending(L, p, 0, p->pending.size);
    return 1;
}

static int text_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    end_wait((struct body_wait *)context);
    return go_on_with_text(L);
}

static int body_text(lua_State *L) {
    lua_settop(L, 2);
    return go_on_with_text(L);
}

/* ---- chunks: an iterator whose upvalues are the body, max, and how much was given */

static int chunks_k(lua_State *L, int status, lua_KContext context);

static int give_piece(lua_State *L, const struct pipe *p, size_t at) {
    size_t n = p->pending.size - at;
    if (n > PIECE_MAX) n = PIECE_MAX;
    push_pending(L, p, at, n);
    lua_pushinteger(L, (lua_Integer)at + (lua_Integer)n);
    lua_replace(L, lua_upvalueindex(3));
    return 1;
}

/* A loop that ended with nil would look like a whole body: failures raise. */
static int next_piece(lua_State *L) {
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    struct body *b = body_self(L, 1);
    uint64_t max = (uint64_t)lua_tointeger(L, lua_upvalueindex(2));
    size_t at = (size_t)lua_tointeger(L, lua_upvalueindex(3));
    struct pipe *p = pipe_check(L, b);
    let_gather(b, p, max);
    if (is_too_large(b, p, max)) return luaL_error(L, "too_large: the body is larger than %I bytes", (lua_Integer)max);
    if (p->pending.size > at) return give_piece(L, p, at);
    if (p->state == PIPE_ENDED) return 0;
    if (p->state == PIPE_FAILED) return luaL_error(L, "%s: %s", failure_word(p->why), failure_sentence(p->why));
    return await_news(L, b, chunks_k);
}

static int chunks_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    end_wait((struct body_wait *)context);
    return next_piece(L);
}

static int body_chunks(lua_State *L) {
    pipe_check(L, body_self(L, 1));
    uint64_t max = max_check(L, 2);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, (lua_Integer)(max > LUA_MAXINTEGER ? LUA_MAXINTEGER : max));
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, next_piece, 3);
    return 1;
}

/* ---- replacing an answer's */

static bool answer_has_body(const struct exchange *x) {
    return x->body && response_has_body(x->request.method, x->response.status);
}

void body_assign(lua_State *L, struct view *v) {
    struct exchange *x = v->exchange;
    view_check_response(L, v);
    int type = lua_type(L, 3);
    if (type != LUA_TSTRING && type != LUA_TNIL)
        luaL_error(L, "res.body is assigned a string, not a %s", luaL_typename(L, 3));
    struct slice text = { "", 0 };
    if (type == LUA_TSTRING) text = text_check(L, 3);
    if (text.n && !response_has_body(METHOD_GET, x->response.status))
        luaL_error(L, "a response with status %d has no body", x->response.status);
    struct body *b = &v->bodies[SIDE_RESPONSE];
    struct pipe *old = pipe_of(b);
    if (old && old->watch == &b->watch) old->watch = NULL;
    answer_set_body(x, text);
    on_news(&b->watch);
}

/* ---- open */

void body_push(lua_State *L, struct view *v, enum side side) {
    struct exchange *x = v->exchange;
    bool there = side == SIDE_REQUEST ? x->request.framing.kind != FRAMING_NONE : answer_has_body(x);
    enum handle_slot slot = side == SIDE_REQUEST ? HANDLE_REQ_BODY : HANDLE_RES_BODY;
    if (there) handle_push_part(L, &x->subject, slot, &kind, &v->bodies[side]);
    else lua_pushnil(L);
}

static const luaL_Reg methods[] = { { "text", body_text }, { "chunks", body_chunks }, { NULL, NULL } };

static int body_index(lua_State *L) {
    static const struct field none[] = { { NULL, NULL, NULL } };
    return object_index(L, body_self(L, 1), none, "body");
}

static int body_newindex(lua_State *L) {
    return luaL_error(L, "a body has no fields to assign (assign res.body itself)");
}

static const luaL_Reg metamethods[] = { { "__index", body_index }, { "__newindex", body_newindex }, { NULL, NULL } };

void bind_body_open(lua_State *L) { object_kind_open(L, &kind, NULL, metamethods, methods); }
