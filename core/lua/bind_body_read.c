/* body:text and body:chunks.
 *
 * The body of an exchange is read where it lies: nothing is taken out of the pipe. Before its first reader is there,
 * bytes gather in it (pipe_hold) up to what the script allows, and the script copies from what lies there. So it can
 * be read any number of times while its message is still ours to change, and not afterwards: then it is on its way,
 * at the pace of who reads it. `max` bounds what is held, not only what is returned: this is why chunks has one too.
 * One with a content coding is decoded on the side (struct reading), and goes on as it came.
 *
 * A fetched body belongs to the script alone: what it was given is gone, and nothing is held but a window. */
#include "lua/body_inside.h"

enum { TEXT_MAX = 1 << 20, PIECE_MAX = 65536, CODED_SLACK = 65536 };

static uint64_t max_opt(lua_State *L, int arg, uint64_t missing) {
    uint64_t max = size_opt(L, arg, missing);
    return max < SIZE_MAX / 2 ? max : SIZE_MAX / 2;
}

/* As many bytes as may gather: one more than allowed shows that there is more. */
static void let_gather(const struct body *b, struct pipe *p, uint64_t most) {
    if (b->side == SIDE_REQUEST) exchange_want_body(b->exchange, (size_t)most + 1);
    else pipe_hold(p, (size_t)most + 1);
}

static bool is_too_large(const struct body *b, const struct pipe *p, uint64_t most) {
    const struct framing *f = body_framing(b);
    return p->pending.size > most || (f->kind == FRAMING_LENGTH && !body_content(b)->decoded && f->length > most);
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
    r->decoder = decoder_create(body_content(b)->coding, body_decoded_most(b));
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
    return result == CODING_BOMB ? body_failures(b)->bomb : body_failures(b)->broken;
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
    if (body_is_partial(b))
        return fail_world_with(L, failure_word(FAIL_PARTIAL), "a part of a content with a coding cannot be read");
    return fail_world(L, FAIL_UNKNOWN_CODING);
}

static int text_k(lua_State *L, int status, lua_KContext context);

static int go_on_with_text(lua_State *L) {
    struct body *b = body_self(L, 1);
    uint64_t max = max_opt(L, 2, TEXT_MAX);
    struct pipe *p = body_pipe_check(L, b);
    bool coded = body_is_coded(b);
    if (coded && (body_content(b)->coding == CODING_UNKNOWN || body_is_partial(b))) return fail_unreadable(L, b);
    uint64_t most = coded ? max + CODED_SLACK : max; /* what hardly shrinks may be longer in its coding */
    if (is_too_large(b, p, most)) return fail_too_large(L, max);
    let_gather(b, p, most);
    if (is_too_large(b, p, most)) return fail_too_large(L, max);
    if (p->state == PIPE_FAILED) return fail_world(L, p->why);
    if (p->state == PIPE_OPEN) return body_await(L, b, text_k);
    if (coded) return decode_text(L, b, p, max);
    push_pending(L, p, 0, p->pending.size);
    if (b->side == SIDE_FETCHED) take_away(p, p->pending.size);
    return 1;
}

static int text_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    body_wait_end((struct body_wait *)context);
    return go_on_with_text(L);
}

/* What was read of a fetched body is gone; one that was too large stays, to be read in pieces. */
int body_text(lua_State *L) {
    lua_settop(L, 2);
    struct body *b = body_self(L, 1);
    struct pipe *p = body_pipe_check(L, b);
    if (b->side == SIDE_FETCHED && body_is_coded(b) && body_content(b)->coding != CODING_UNKNOWN && !body_is_partial(b))
        content_decode(body_content(b), p, body_decoded_most(b), body_failures(b));
    return go_on_with_text(L);
}

/* ---- chunks: an iterator whose upvalues are the body, max, how much was given, and the reading of a coded body */

enum { UP_BODY = 1, UP_MAX, UP_GIVEN, UP_READING, UPVALUES = UP_READING };

static int chunks_k(lua_State *L, int status, lua_KContext context);

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
    if (result == CODING_BROKEN || result == CODING_BOMB) return body_raise(L, decoding_failure(b, result));
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
    struct pipe *p = body_pipe_check(L, b);
    int count = b->side == SIDE_FETCHED                      ? give_taken(L, p, max, given)
                : lua_isnil(L, lua_upvalueindex(UP_READING)) ? give_held(L, b, p, max, given)
                                                             : give_decoded(L, b, p, max);
    if (count) return count;
    if (p->state == PIPE_ENDED) return 0;
    if (p->state == PIPE_FAILED) return body_raise(L, p->why);
    return body_await(L, b, chunks_k);
}

static int chunks_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    body_wait_end((struct body_wait *)context);
    return next_piece(L);
}

int body_chunks(lua_State *L) {
    lua_settop(L, 2);
    struct body *b = body_self(L, 1);
    struct pipe *p = body_pipe_check(L, b);
    uint64_t max = max_opt(L, 2, b->side == SIDE_FETCHED ? LUA_MAXINTEGER / 2 : TEXT_MAX);
    body_check_coding(L, b);
    if (b->side == SIDE_FETCHED) content_decode(body_content(b), p, body_decoded_most(b), body_failures(b));
    lua_pushvalue(L, 1);
    lua_pushinteger(L, (lua_Integer)max);
    lua_pushinteger(L, 0);
    if (body_is_coded(b)) push_reading(L, b);
    else lua_pushnil(L);
    lua_pushcclosure(L, next_piece, UPVALUES);
    return 1;
}

void body_read_open(lua_State *L) { object_kind_open(L, &reading_kind, NULL, NULL, NULL); }
