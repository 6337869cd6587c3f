/* `req.body`, `res.body`, and the body of what gate.fetch streams: the content of a message, to be read and changed.
 *
 *     body:text(max)                  all of it; nil, "too_large", sentence beyond max (1 MiB)
 *     for piece in body:chunks(max)   as it comes
 *     body:map(f)  body:replace(…)    change it on its way
 *
 * Reading and changing are stories of their own (bind_body_read.c, bind_body_change.c). Here is what they stand on:
 * what lies behind a body, whether it may be used still, and how a script waits for it; and its ways out: it becomes
 * the body of a fetch or of a reply, or is assigned anew.
 *
 * Strands of gate.all may wait for the same body: the waits stand in a list behind its watch. */
#include "lua/body_inside.h"

#include "base/must.h"
#include "lua/body_map.h"
#include "lua/call.h"

#include <stdlib.h>

const struct handle_kind body_kind = { .name = "moongate.body",
                                       .ended = "the exchange has ended, or the answer was closed" };

struct body *body_self(lua_State *L, int arg) {
    return object_self(L, arg, &body_kind);
}

/* ---- what is behind it */

struct pipe *body_pipe(const struct body *b) {
    switch (b->side) {
    case SIDE_REQUEST: return &b->exchange->request_body;
    case SIDE_RESPONSE: return *b->answer->body;
    default: return call_pipe(b->call);
    }
}

struct content *body_content(const struct body *b) {
    switch (b->side) {
    case SIDE_REQUEST: return &b->exchange->request_content;
    case SIDE_RESPONSE: return b->answer->content;
    default: return call_content(b->call);
    }
}

struct headers *body_headers(const struct body *b) {
    switch (b->side) {
    case SIDE_REQUEST: return &b->exchange->request.headers;
    case SIDE_RESPONSE: return &b->answer->response->headers;
    default: return &call_response(b->call)->headers;
    }
}

struct framing *body_framing(const struct body *b) {
    switch (b->side) {
    case SIDE_REQUEST: return &b->exchange->request.framing;
    case SIDE_RESPONSE: return &b->answer->response->framing;
    default: return &call_response(b->call)->framing;
    }
}

static int status_of(const struct body *b) {
    switch (b->side) {
    case SIDE_REQUEST: return 0;
    case SIDE_RESPONSE: return b->answer->response->status;
    default: return call_response(b->call)->status;
    }
}

bool body_is_partial(const struct body *b) {
    return b->side != SIDE_REQUEST && content_is_partial(status_of(b), body_headers(b));
}

const struct content_failures *body_failures(const struct body *b) {
    return b->side == SIDE_REQUEST ? &request_failures : &response_failures;
}

uint64_t body_decoded_most(const struct body *b) {
    return b->side == SIDE_REQUEST ? b->exchange->max_body : content_most();
}

bool body_is_coded(const struct body *b) {
    struct content *c = body_content(b);
    return content_look(c, body_headers(b)) != CODING_IDENTITY && !c->decoded;
}

/* ---- may it be used? */

static bool is_gone(const struct body *b) {
    const struct exchange *x = b->exchange;
    if (b->side == SIDE_FETCHED) return false;
    if (b->side == SIDE_RESPONSE) return *b->answer->gone;
    return x->head_sent || x->request_sent || x->body_given;
}

static const char *where_to_read(const struct body *b) {
    static const char *const places[] = { "read it in on_request", "read it in on_response", "it was given away" };
    return places[b->side];
}

struct pipe *body_pipe_check(lua_State *L, const struct body *b) {
    const struct subject *subject = subject_check(L, "a body");
    struct pipe *p = is_gone(b) ? NULL : body_pipe(b);
    if (!p || !list_empty(&p->readers))
        luaL_error(L, "the body has been sent on and cannot be read any more (%s)", where_to_read(b));
    if (b->side != SIDE_FETCHED && subject->exchange != b->exchange)
        luaL_error(L, "a body is read in a hook of its exchange, not in a task");
    if (map_is_running(L, p)) luaL_error(L, "a body cannot be read by the function that changes it");
    return p;
}

/* A loop that ended with nil would look like a whole body: failures raise. */
int body_raise(lua_State *L, enum failure why) {
    return luaL_error(L, "%s: %s", failure_word(why), failure_sentence(why));
}

void body_check_coding(lua_State *L, const struct body *b) {
    if (!body_is_coded(b)) return;
    if (body_is_partial(b)) body_raise(L, FAIL_PARTIAL);
    if (body_content(b)->coding == CODING_UNKNOWN) body_raise(L, FAIL_UNKNOWN_CODING);
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

void body_init(struct body *b, enum side side, struct exchange *x, const struct answer *answer, struct call *call) {
    *b = (struct body){ .side = side, .exchange = x, .answer = answer, .call = call, .watch.on_news = on_news };
    list_init(&b->watch.node);
    list_init(&b->waits);
}

void body_leave(struct body *b) {
    pipe_remove_watch(&b->watch);
    on_news(&b->watch);
}

void body_wait_end(struct body_wait *bw) {
    struct body *b = bw->body;
    list_remove(&bw->node);
    if (list_empty(&b->waits)) pipe_remove_watch(&b->watch);
    free(bw);
}

static void cancel_wait(struct wait *w) { body_wait_end(container_of(w, struct body_wait, wait)); }

int body_await(lua_State *L, struct body *b, lua_KFunction k) {
    wait_check(L);
    struct body_wait *bw = must_calloc(1, sizeof *bw);
    bw->wait.cancel = cancel_wait;
    bw->body = b;
    list_push(&b->waits, &bw->node);
    pipe_remove_watch(&b->watch);
    pipe_add_watch(body_pipe(b), &b->watch);
    return wait_begin(L, &bw->wait, (lua_KContext)bw, k);
}

/* ---- giving it away */

struct pipe *body_flow_check(lua_State *L, int arg, struct framing *framing, struct slice *coding) {
    struct body *b = body_self(L, arg);
    struct pipe *p = body_pipe_check(L, b);
    const struct content *c = body_content(b);
    *framing = (struct framing){ .kind = body_framing(b)->kind, .length = body_framing(b)->length };
    if (framing->kind != FRAMING_LENGTH || c->decoded) framing->kind = FRAMING_CHUNKED;
    *coding = slice_make(NULL, 0);
    if (body_is_coded(b)) *coding = headers_joined_id(body_headers(b), HEADER_CONTENT_ENCODING);
    if (b->side != SIDE_REQUEST) return p;
    b->exchange->body_given = true;
    exchange_want_body(b->exchange, 0);
    return p;
}

bool body_is_fetched(lua_State *L, int index) {
    const struct body *b = body_self(L, index);
    return b->side == SIDE_FETCHED;
}

bool body_give(lua_State *L, int index, struct exchange *x, struct reply *reply) {
    const struct handle *h = lua_touserdata(L, index);
    struct body *b = h->pointer;
    if (!b || !x || !call_give(b->call, x)) return false;
    content_look(body_content(b), body_headers(b));
    reply->flow = body_pipe(b);
    reply->framing = *body_framing(b);
    reply->content = *body_content(b);
    if (reply->content.decoded) reply->framing.kind = FRAMING_CHUNKED;
    return true;
}

/* ---- replacing an answer's */

static bool answer_has_body(const struct view *v) {
    return *v->answer.body && response_has_body(v->exchange->request.method, v->answer.response->status);
}

void body_assign(lua_State *L, struct view *v) {
    struct pipe *now = *v->answer.body;
    int status = v->answer.response->status;
    view_check_response(L, v);
    int type = lua_type(L, 3);
    if (type != LUA_TSTRING && type != LUA_TNIL)
        luaL_error(L, "res.body is assigned a string, not a %s", luaL_typename(L, 3));
    struct slice text = { "", 0 };
    if (type == LUA_TSTRING) text = text_check(L, 3);
    if (!v->answer.made) luaL_error(L, "the body of a response that was validated is stored already");
    if (text.n && !status_has_content(status)) luaL_error(L, "a response with status %d has no body", status);
    if (now && map_is_running(L, now)) luaL_error(L, "the function that changes a body cannot assign it");
    pipe_remove_watch(&v->bodies[SIDE_RESPONSE].watch);
    answer_set_body(&v->answer, text);
    body_leave(&v->bodies[SIDE_RESPONSE]);
}

/* ---- open */

void body_push(lua_State *L, struct view *v, enum side side) {
    struct exchange *x = v->exchange;
    bool there = side == SIDE_REQUEST ? x->request.framing.kind != FRAMING_NONE : answer_has_body(v);
    enum handle_slot slot = side == SIDE_REQUEST ? HANDLE_REQ_BODY : HANDLE_RES_BODY;
    struct subject *subject = side == SIDE_REQUEST ? &x->subject : v->subject;
    if (there) handle_push_part(L, subject, slot, &body_kind, &v->bodies[side]);
    else lua_pushnil(L);
}

static const luaL_Reg methods[] = {
    { "text", body_text }, { "chunks", body_chunks }, { "map", body_map }, { "replace", body_replace }, { NULL, NULL },
};

static int body_index(lua_State *L) {
    static const struct field none[] = { { NULL, NULL, NULL } };
    return object_index(L, body_self(L, 1), none, "body");
}

static int body_newindex(lua_State *L) {
    return luaL_error(L, "a body has no fields to assign (assign res.body itself)");
}

static const luaL_Reg metamethods[] = { { "__index", body_index }, { "__newindex", body_newindex }, { NULL, NULL } };

void bind_body_open(lua_State *L) {
    body_read_open(L);
    object_kind_open(L, &body_kind, NULL, metamethods, methods);
}
