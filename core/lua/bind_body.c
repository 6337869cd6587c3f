/* `req.body`, `res.body`, and the body of what gate.fetch streams: the content of a message, to be read and changed.
 *
 *     body:text(max)                  all of it; nil, "too_large", sentence beyond max (1 MiB)
 *     for piece in body:chunks(max)   as it comes
 *     body:map(f)  body:replace(…)    change it on its way
 *
 * The body of an exchange is read where it lies: nothing is taken out of the pipe. Before its first reader is there,
 * bytes gather in it (pipe_hold) up to what the script allows, and the script copies from what lies there. So it can
 * be read any number of times while its message is still ours to change, and not afterwards: then it is on its way,
 * at the pace of who reads it. `max` bounds what is held, not only what is returned: this is why chunks has one too.
 * One with a content coding is decoded on the side (struct reading), and goes on as it came.
 *
 * A fetched body belongs to the script alone: what it was given is gone, and nothing is held but a window.
 *
 * What was declared with map and replace is what text and chunks give from then on: it is what will be sent.
 *
 * Strands of gate.all may wait for the same body: the waits stand in a list behind its watch. */
#include "lua/bind.h"

#include "base/must.h"
#include "lua/body_map.h"
#include "lua/call.h"
#include "proxy/answer.h"
#include "proxy/stages.h"

#include <stdlib.h>

enum { TEXT_MAX = 1 << 20, PIECE_MAX = 65536, CODED_SLACK = 65536, REPLACE_BYTES = 1 << 20 };

const struct handle_kind body_kind = { .name = "moongate.body",
                                       .ended = "the exchange has ended, or the answer was closed" };

static struct body *body_self(lua_State *L, int arg) { return object_self(L, arg, &body_kind); }

/* ---- what is behind it */

/* NULL: the answer has none any more. */
static struct pipe *pipe_of(const struct body *b) {
    switch (b->side) {
    case SIDE_REQUEST: return &b->exchange->request_body;
    case SIDE_RESPONSE: return *b->answer->body;
    default: return call_pipe(b->call);
    }
}

static struct content *content_of(const struct body *b) {
    switch (b->side) {
    case SIDE_REQUEST: return &b->exchange->request_content;
    case SIDE_RESPONSE: return b->answer->content;
    default: return call_content(b->call);
    }
}

static struct headers *headers_of(const struct body *b) {
    switch (b->side) {
    case SIDE_REQUEST: return &b->exchange->request.headers;
    case SIDE_RESPONSE: return &b->answer->response->headers;
    default: return &call_response(b->call)->headers;
    }
}

static struct framing *framing_of(const struct body *b) {
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

static bool is_partial(const struct body *b) {
    return b->side != SIDE_REQUEST && content_is_partial(status_of(b), headers_of(b));
}

static const struct content_failures *failures_of(const struct body *b) {
    return b->side == SIDE_REQUEST ? &request_failures : &response_failures;
}

static uint64_t decoded_most(const struct body *b) {
    return b->side == SIDE_REQUEST ? b->exchange->max_body : content_most();
}

/* ---- may it be read? */

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

/* Raises once it is on its way, and where it could not be waited for: in what outlives its exchange, and in the
 * function that makes it. */
static struct pipe *pipe_check(lua_State *L, const struct body *b) {
    const struct subject *subject = subject_check(L, "a body");
    struct pipe *p = is_gone(b) ? NULL : pipe_of(b);
    if (!p || !list_empty(&p->readers))
        luaL_error(L, "the body has been sent on and cannot be read any more (%s)", where_to_read(b));
    if (b->side != SIDE_FETCHED && subject->exchange != b->exchange)
        luaL_error(L, "a body is read in a hook of its exchange, not in a task");
    if (map_is_running(L, p)) luaL_error(L, "a body cannot be read by the function that changes it");
    return p;
}

static uint64_t max_opt(lua_State *L, int arg, uint64_t missing) {
    uint64_t max = size_opt(L, arg, missing);
    return max < SIZE_MAX / 2 ? max : SIZE_MAX / 2;
}

/* It has a coding that reading takes off. */
static bool is_coded(const struct body *b) {
    struct content *c = content_of(b);
    return content_look(c, headers_of(b)) != CODING_IDENTITY && !c->decoded;
}

/* As many bytes as may gather: one more than allowed shows that there is more. */
static void let_gather(const struct body *b, struct pipe *p, uint64_t most) {
    if (b->side == SIDE_REQUEST) exchange_want_body(b->exchange, (size_t)most + 1);
    else pipe_hold(p, (size_t)most + 1);
}

static bool is_too_large(const struct body *b, const struct pipe *p, uint64_t most) {
    const struct framing *f = framing_of(b);
    return p->pending.size > most || (f->kind == FRAMING_LENGTH && !content_of(b)->decoded && f->length > most);
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

static void end_wait(struct body_wait *bw) {
    struct body *b = bw->body;
    list_remove(&bw->node);
    if (list_empty(&b->waits)) pipe_remove_watch(&b->watch);
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
    pipe_remove_watch(&b->watch);
    pipe_add_watch(pipe_of(b), &b->watch);
    return wait_begin(L, &bw->wait, (lua_KContext)bw, k);
}

/* ---- readings: how far a script has read a coded body, which stays in the pipe as it is */

struct reading {
    struct handle handle;
    struct decoder *decoder;
    struct buffer out;
    size_t at; /* coded bytes that were decoded */
    uint64_t given;
};

static void collect_reading(void *pointer) {
    struct reading *r = pointer;
    decoder_destroy(r->decoder);
    buffer_fini(&r->out);
}

static const struct handle_kind reading_kind = { .name = "moongate.reading", .collect = collect_reading };

static struct reading *push_reading(lua_State *L, const struct body *b) {
    struct reading *r = object_new(L, &reading_kind, sizeof *r, 0);
    r->decoder = decoder_create(content_of(b)->coding, decoded_most(b));
    return r;
}

/* Decodes what lies behind `at`, until `out` has about `room` bytes. */
static enum coding_result read_on(struct reading *r, const struct pipe *p, size_t room) {
    struct buffer coded = { 0 };
    buffer_share(&coded, &p->pending);
    buffer_drop(&coded, r->at);
    size_t before = coded.size;
    enum coding_result result = decoder_run(r->decoder, &coded, &r->out, room, p->state == PIPE_ENDED);
    r->at += before - coded.size;
    buffer_fini(&coded);
    return result;
}

static enum failure decoding_failure(const struct body *b, enum coding_result result) {
    return result == CODING_BOMB ? failures_of(b)->bomb : failures_of(b)->broken;
}

/* Pushes what was decoded. */
static void push_decoded(lua_State *L, struct reading *r) {
    luaL_Buffer to;
    size_t n = r->out.size;
    buffer_peek(&r->out, luaL_buffinitsize(L, &to, n), n);
    luaL_pushresultsize(&to, n);
    buffer_drop(&r->out, n);
    r->given += n;
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

static void take_away(struct pipe *p, size_t n) {
    struct buffer gone = { 0 };
    pipe_take(p, &gone, n);
    buffer_fini(&gone);
}

static int fail_too_large(lua_State *L, uint64_t max) {
    return fail_world_with(L, failure_word(FAIL_TOO_LARGE), "the body is larger than %llu bytes",
                           (unsigned long long)max);
}

/* All of a coded body is there. */
static int decode_text(lua_State *L, const struct body *b, const struct pipe *p, uint64_t max) {
    if (p->pending.size == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    struct reading *r = push_reading(L, b);
    for (;;) {
        size_t before = r->out.size;
        enum coding_result result = read_on(r, p, PIECE_MAX);
        budget_spend(L, (r->out.size - before) / 16 + 1);
        if (result == CODING_BROKEN || result == CODING_BOMB) return fail_world(L, decoding_failure(b, result));
        if (r->out.size > max) return fail_too_large(L, max);
        if (result == CODING_HUNGRY) break;
    }
    push_decoded(L, r);
    return 1;
}

static int fail_unreadable(lua_State *L, const struct body *b) {
    if (is_partial(b))
        return fail_world_with(L, failure_word(FAIL_PARTIAL), "a part of a content with a coding cannot be read");
    return fail_world(L, FAIL_UNKNOWN_CODING);
}

static int text_k(lua_State *L, int status, lua_KContext context);

static int go_on_with_text(lua_State *L) {
    struct body *b = body_self(L, 1);
    uint64_t max = max_opt(L, 2, TEXT_MAX);
    struct pipe *p = pipe_check(L, b);
    bool coded = is_coded(b);
    if (coded && (content_of(b)->coding == CODING_UNKNOWN || is_partial(b))) return fail_unreadable(L, b);
    uint64_t most = coded ? max + CODED_SLACK : max; /* what hardly shrinks may be longer in its coding */
    if (is_too_large(b, p, most)) return fail_too_large(L, max);
    let_gather(b, p, most);
    if (is_too_large(b, p, most)) return fail_too_large(L, max);
    if (p->state == PIPE_FAILED) return fail_world(L, p->why);
    if (p->state == PIPE_OPEN) return await_news(L, b, text_k);
    if (coded) return decode_text(L, b, p, max);
    push_pending(L, p, 0, p->pending.size);
    if (b->side == SIDE_FETCHED) take_away(p, p->pending.size);
    return 1;
}

static int text_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    end_wait((struct body_wait *)context);
    return go_on_with_text(L);
}

/* What was read of a fetched body is gone; one that was too large stays, to be read in pieces. */
static int body_text(lua_State *L) {
    lua_settop(L, 2);
    struct body *b = body_self(L, 1);
    struct pipe *p = pipe_check(L, b);
    if (b->side == SIDE_FETCHED && is_coded(b) && content_of(b)->coding != CODING_UNKNOWN && !is_partial(b))
        content_decode(content_of(b), p, decoded_most(b), failures_of(b));
    return go_on_with_text(L);
}

/* ---- chunks: an iterator whose upvalues are the body, max, how much was given, and the reading of a coded body */

enum { UP_BODY = 1, UP_MAX, UP_GIVEN, UP_READING, UPVALUES = UP_READING };

static int chunks_k(lua_State *L, int status, lua_KContext context);

/* A loop that ended with nil would look like a whole body: failures raise. */
static int raise_failure(lua_State *L, enum failure why) {
    return luaL_error(L, "%s: %s", failure_word(why), failure_sentence(why));
}

static void note_given(lua_State *L, uint64_t given) {
    lua_pushinteger(L, (lua_Integer)given);
    lua_replace(L, lua_upvalueindex(UP_GIVEN));
}

static int raise_too_large(lua_State *L, uint64_t max) {
    return luaL_error(L, "too_large: the body is larger than %I bytes", (lua_Integer)max);
}

/* Of what lies in the pipe and stays there. */
static int give_held(lua_State *L, struct body *b, struct pipe *p, uint64_t max, uint64_t at) {
    let_gather(b, p, max);
    if (is_too_large(b, p, max)) return raise_too_large(L, max);
    if (p->pending.size <= at) return 0;
    size_t n = p->pending.size - (size_t)at;
    if (n > PIECE_MAX) n = PIECE_MAX;
    push_pending(L, p, (size_t)at, n);
    note_given(L, at + n);
    return 1;
}

/* Of what the script alone reads: taken away. */
static int give_taken(lua_State *L, struct pipe *p, uint64_t max, uint64_t given) {
    pipe_hold(p, PIECE_MAX);
    size_t n = p->pending.size < PIECE_MAX ? p->pending.size : PIECE_MAX;
    if (given + n > max) return raise_too_large(L, max);
    if (n == 0) return 0;
    push_pending(L, p, 0, n);
    note_given(L, given + n);
    take_away(p, n);
    return 1;
}

/* Of a coded body, decoded on the side. */
static int give_decoded(lua_State *L, struct body *b, struct pipe *p, uint64_t max) {
    struct reading *r = object_self(L, lua_upvalueindex(UP_READING), &reading_kind);
    let_gather(b, p, max + CODED_SLACK);
    if (is_too_large(b, p, max + CODED_SLACK)) return raise_too_large(L, max);
    if (p->pending.size == 0) return 0;
    enum coding_result result = read_on(r, p, PIECE_MAX);
    budget_spend(L, r->out.size / 16 + 1);
    if (result == CODING_BROKEN || result == CODING_BOMB) return raise_failure(L, decoding_failure(b, result));
    if (r->given + r->out.size > max) return raise_too_large(L, max);
    if (r->out.size == 0) return 0;
    push_decoded(L, r);
    return 1;
}

static int next_piece(lua_State *L) {
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(UP_BODY));
    struct body *b = body_self(L, 1);
    uint64_t max = (uint64_t)lua_tointeger(L, lua_upvalueindex(UP_MAX));
    uint64_t given = (uint64_t)lua_tointeger(L, lua_upvalueindex(UP_GIVEN));
    struct pipe *p = pipe_check(L, b);
    int count = b->side == SIDE_FETCHED                      ? give_taken(L, p, max, given)
                : lua_isnil(L, lua_upvalueindex(UP_READING)) ? give_held(L, b, p, max, given)
                                                             : give_decoded(L, b, p, max);
    if (count) return count;
    if (p->state == PIPE_ENDED) return 0;
    if (p->state == PIPE_FAILED) return raise_failure(L, p->why);
    return await_news(L, b, chunks_k);
}

static int chunks_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    end_wait((struct body_wait *)context);
    return next_piece(L);
}

/* Raises for what no coding can be taken off of. */
static void check_readable(lua_State *L, const struct body *b) {
    if (!is_coded(b)) return;
    if (is_partial(b)) raise_failure(L, FAIL_PARTIAL);
    if (content_of(b)->coding == CODING_UNKNOWN) raise_failure(L, FAIL_UNKNOWN_CODING);
}

static int body_chunks(lua_State *L) {
    lua_settop(L, 2);
    struct body *b = body_self(L, 1);
    struct pipe *p = pipe_check(L, b);
    uint64_t max = max_opt(L, 2, b->side == SIDE_FETCHED ? LUA_MAXINTEGER / 2 : TEXT_MAX);
    check_readable(L, b);
    if (b->side == SIDE_FETCHED) content_decode(content_of(b), p, decoded_most(b), failures_of(b));
    lua_pushvalue(L, 1);
    lua_pushinteger(L, (lua_Integer)max);
    lua_pushinteger(L, 0);
    if (is_coded(b)) push_reading(L, b);
    else lua_pushnil(L);
    lua_pushcclosure(L, next_piece, UPVALUES);
    return 1;
}

/* ---- changing it */

static const char *const change_options[] = { "plain", NULL };

/* Raises unless it may be changed. A part cannot: the change could fall on its borders. */
static struct pipe *changeable_check(lua_State *L, const struct body *b) {
    struct pipe *p = pipe_check(L, b);
    if (is_partial(b)) raise_failure(L, FAIL_PARTIAL);
    check_readable(L, b);
    if (p->state == PIPE_FAILED) raise_failure(L, p->why);
    return p;
}

static bool plain_option(lua_State *L, int arg, const char *what) {
    options_check(L, arg, what, change_options);
    int type = option_push(L, arg, "plain");
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "%s: plain is true or false", what);
    bool plain = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return plain;
}

/* From here on nothing may raise. */
static void change(struct body *b, struct pipe *p, bool plain, struct pipe_stage *stage) {
    struct content *c = content_of(b);
    content_decode(c, p, decoded_most(b), failures_of(b));
    content_change(c, headers_of(b), framing_of(b));
    if (plain) c->plain = true;
    pipe_add_stage(p, stage);
}

/* body:map(f[, options]) */
static int body_map(lua_State *L) {
    lua_settop(L, 3);
    struct body *b = body_self(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    bool plain = plain_option(L, 3, "body:map");
    struct pipe *p = changeable_check(L, b);
    lua_pushvalue(L, 2);
    change(b, p, plain, stage_map(L, b->side == SIDE_REQUEST ? FAIL_HOOK_FAILED : FAIL_RESPONSE_HOOK_FAILED));
    lua_settop(L, 1);
    return 1;
}

/* A pair of texts, at two places of the stack. */
static void read_pair(lua_State *L, int from, int to, struct replacement *r, size_t *bytes) {
    if (lua_type(L, from) != LUA_TSTRING || lua_type(L, to) != LUA_TSTRING)
        luaL_error(L, "body:replace takes strings, not a %s and a %s", luaL_typename(L, from), luaL_typename(L, to));
    r->from = text_check(L, from);
    r->to = text_check(L, to);
    if (r->from.n == 0) luaL_error(L, "body:replace: an empty text stands everywhere");
    if (r->from.n > REPLACE_FROM_MAX)
        luaL_error(L, "body:replace: a text to be replaced has at most %d bytes", REPLACE_FROM_MAX);
    *bytes += r->from.n + r->to.n;
    if (*bytes > REPLACE_BYTES) luaL_error(L, "body:replace: the texts are larger than 1 MiB");
}

/* The strings stay in memory: they are in the table, which stays on the stack. */
static unsigned read_pairs(lua_State *L, int table, struct replacement *list) {
    unsigned count = 0;
    size_t bytes = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (count == REPLACEMENTS_MAX) luaL_error(L, "body:replace takes at most %d texts", REPLACEMENTS_MAX);
        int top = lua_gettop(L);
        read_pair(L, top - 1, top, &list[count++], &bytes);
    }
    return count;
}

/* body:replace(from, to[, options]), body:replace({ from = to, … }[, options]) */
static int body_replace(lua_State *L) {
    struct replacement list[REPLACEMENTS_MAX];
    unsigned count = 1;
    size_t bytes = 0;
    lua_settop(L, 4);
    struct body *b = body_self(L, 1);
    bool listed = lua_istable(L, 2);
    bool plain = plain_option(L, listed ? 3 : 4, "body:replace");
    if (listed) count = read_pairs(L, 2, list);
    else read_pair(L, 2, 3, &list[0], &bytes);
    budget_spend(L, count * 64 + 1);
    struct pipe *p = changeable_check(L, b);
    if (count) change(b, p, plain, stage_replace(list, count));
    lua_settop(L, 1);
    return 1;
}

/* ---- giving it away */

struct pipe *body_flow_check(lua_State *L, int arg, struct framing *framing, struct slice *coding) {
    struct body *b = body_self(L, arg);
    struct pipe *p = pipe_check(L, b);
    const struct content *c = content_of(b);
    *framing = (struct framing){ .kind = framing_of(b)->kind, .length = framing_of(b)->length };
    if (framing->kind != FRAMING_LENGTH || c->decoded) framing->kind = FRAMING_CHUNKED;
    *coding = slice_make(NULL, 0);
    if (is_coded(b)) *coding = headers_joined_id(headers_of(b), HEADER_CONTENT_ENCODING);
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
    content_look(content_of(b), headers_of(b));
    reply->flow = pipe_of(b);
    reply->framing = *framing_of(b);
    reply->content = *content_of(b);
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
    if (text.n && !response_has_body(METHOD_GET, status))
        luaL_error(L, "a response with status %d has no body", status);
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
    object_kind_open(L, &reading_kind, NULL, NULL, NULL);
    object_kind_open(L, &body_kind, NULL, metamethods, methods);
}
