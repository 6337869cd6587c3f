/* Pipes as objects: `local p = proxy.pipe { hold =, pull = }`, with readers whose room the spec says, and stages that
 * change lengths. With `pull` the source writes that text by itself whenever it is asked, and then ends. */
#include "module.h"

#include "proxy/pipe.h"

#define PIPE_TYPE   "moongate_core.pipe"
#define READER_TYPE "moongate_core.pipe_reader"

enum { STAGES_MAX = 4 };

struct test_stage {
    struct pipe_stage stage;
    struct buffer held;
    bool ready; /* of a slow one: it may pass a byte on */
    int closed;
};

/* Uservalue 1: a table of what must live as long: its readers, and the text of `pull`. */
struct test_pipe {
    struct pipe pipe;
    struct pipe_watch watch;
    struct arena arena;
    struct headers trailers;
    struct slice pull; /* what the source has still to write */
    bool pulls;
    int asked, abandoned, news;
    struct test_stage stages[STAGES_MAX];
    unsigned stage_count;
};

/* Uservalue 1: its pipe. */
struct test_reader {
    struct pipe_reader reader;
    struct buffer taken;
    size_t room;
    int takes, ends, fails;
    enum failure why;
    const struct headers *trailers;
    size_t leaves_at; /* removes itself when it has taken so much; 0: never */
};

static struct test_pipe *check_pipe(lua_State *L) { return luaL_checkudata(L, 1, PIPE_TYPE); }
static struct test_reader *check_reader(lua_State *L) { return luaL_checkudata(L, 1, READER_TYPE); }

/* ---- readers */

static struct test_reader *of_reader(struct pipe_reader *r) { return container_of(r, struct test_reader, reader); }

static size_t reader_room(struct pipe_reader *r) { return of_reader(r)->room; }

static void reader_take(struct pipe_reader *r, struct buffer *bytes) {
    struct test_reader *t = of_reader(r);
    t->takes++;
    t->room -= bytes->size < t->room ? bytes->size : t->room;
    buffer_move(&t->taken, bytes, bytes->size);
    if (t->leaves_at && t->taken.size >= t->leaves_at) pipe_remove_reader(r);
}

static void reader_end(struct pipe_reader *r, const struct headers *trailers) {
    of_reader(r)->ends++;
    of_reader(r)->trailers = trailers;
}

static void reader_fail(struct pipe_reader *r, enum failure why) {
    of_reader(r)->fails++;
    of_reader(r)->why = why;
}

static const struct pipe_reader_ops reader_ops = { reader_room, reader_take, reader_end, reader_fail };

/* p:read(room, leaves_at): a new reader. */
static int pipe_lua_read(lua_State *L) {
    struct test_pipe *p = check_pipe(L);
    size_t room = (size_t)luaL_checkinteger(L, 2), leaves_at = (size_t)luaL_optinteger(L, 3, 0);
    struct test_reader *t = lua_newuserdatauv(L, sizeof *t, 1);
    *t = (struct test_reader){ .reader = { .ops = &reader_ops }, .room = room, .leaves_at = leaves_at };
    luaL_setmetatable(L, READER_TYPE);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, -2);
    luaL_ref(L, -2);
    lua_pop(L, 1);
    pipe_add_reader(&p->pipe, &t->reader);
    return 1;
}

static int reader_lua_text(lua_State *L) {
    module_push_buffer(L, &check_reader(L)->taken);
    return 1;
}

/* r:more(n): it has room for n bytes more, and says so. */
static int reader_lua_more(lua_State *L) {
    struct test_reader *t = check_reader(L);
    t->room += (size_t)luaL_checkinteger(L, 2);
    pipe_reader_has_room(&t->reader);
    return 0;
}

static int reader_lua_leave(lua_State *L) {
    pipe_remove_reader(&check_reader(L)->reader);
    return 0;
}

/* { takes =, ends =, fails =, why =, attached =, trailer = the first one's value } */
static int reader_lua_state(lua_State *L) {
    struct test_reader *t = check_reader(L);
    lua_newtable(L);
    lua_pushinteger(L, t->takes);
    lua_setfield(L, -2, "takes");
    lua_pushinteger(L, t->ends);
    lua_setfield(L, -2, "ends");
    lua_pushinteger(L, t->fails);
    lua_setfield(L, -2, "fails");
    lua_pushboolean(L, t->reader.pipe != NULL);
    lua_setfield(L, -2, "attached");
    if (t->fails) module_set_slice(L, "why", slice_of(failure_word(t->why)));
    if (t->trailers && t->trailers->count) module_set_slice(L, "trailer", t->trailers->list[0].value);
    return 1;
}

static int reader_lua_gc(lua_State *L) {
    struct test_reader *t = check_reader(L);
    pipe_remove_reader(&t->reader);
    buffer_fini(&t->taken);
    return 0;
}

/* ---- stages */

static struct test_stage *of_stage(struct pipe_stage *s) { return container_of(s, struct test_stage, stage); }

static enum stage_result each_byte(struct buffer *in, struct buffer *out, int times) {
    while (in->size) {
        char byte = *buffer_front(in).p;
        for (int i = 0; i < times; i++) buffer_append(out, &byte, 1);
        buffer_drop(in, 1);
    }
    return STAGE_HUNGRY;
}

static enum stage_result stage_double(struct pipe_stage *s, struct buffer *in, struct buffer *out, bool last) {
    (void)s;
    (void)last;
    return each_byte(in, out, 2);
}

static enum stage_result stage_swallow(struct pipe_stage *s, struct buffer *in, struct buffer *out, bool last) {
    (void)s;
    (void)last;
    return each_byte(in, out, 0);
}

/* Gives everything at the end, in parentheses. */
static enum stage_result stage_hold(struct pipe_stage *s, struct buffer *in, struct buffer *out, bool last) {
    struct buffer *held = &of_stage(s)->held;
    buffer_move(held, in, in->size);
    if (!last) return STAGE_HUNGRY;
    buffer_append(out, "(", 1);
    buffer_move(out, held, held->size);
    buffer_append(out, ")", 1);
    return STAGE_HUNGRY;
}

/* Passes bytes on until it sees a "!". */
static enum stage_result stage_fail(struct pipe_stage *s, struct buffer *in, struct buffer *out, bool last) {
    (void)last;
    while (in->size && *buffer_front(in).p != '!') {
        buffer_append(out, buffer_front(in).p, 1);
        buffer_drop(in, 1);
    }
    s->why = FAIL_BAD_RESPONSE;
    return in->size == 0 ? STAGE_HUNGRY : STAGE_FAILED;
}

/* A thousand bytes for each one, at most STAGE_BYTES a call. */
static enum stage_result stage_grow(struct pipe_stage *s, struct buffer *in, struct buffer *out, bool last) {
    (void)s;
    (void)last;
    char many[1000];
    while (in->size) {
        if (out->size + sizeof many > STAGE_BYTES) return STAGE_FULL;
        memset(many, *buffer_front(in).p, sizeof many);
        buffer_append(out, many, sizeof many);
        buffer_drop(in, 1);
    }
    return STAGE_HUNGRY;
}

/* Passes one byte on for every time it is told that it is ready (p:ready(n)), and the end likewise. */
static enum stage_result stage_slow(struct pipe_stage *s, struct buffer *in, struct buffer *out, bool last) {
    struct test_stage *t = of_stage(s);
    if (!t->ready) return STAGE_BUSY;
    t->ready = false;
    if (in->size) {
        buffer_append(out, buffer_front(in).p, 1);
        buffer_drop(in, 1);
        return in->size || last ? STAGE_BUSY : STAGE_HUNGRY;
    }
    return STAGE_HUNGRY;
}

static void stage_close(struct pipe_stage *s) {
    buffer_fini(&of_stage(s)->held);
    of_stage(s)->closed++;
}

/* p:stage(kind) */
static int pipe_lua_stage(lua_State *L) {
    static const char *const kinds[] = { "double", "swallow", "hold", "fail", "grow", "slow", NULL };
    static const struct pipe_stage_ops ops[] = {
        { stage_double, stage_close }, { stage_swallow, stage_close }, { stage_hold, stage_close },
        { stage_fail, stage_close },   { stage_grow, stage_close },    { stage_slow, stage_close },
    };
    struct test_pipe *p = check_pipe(L);
    luaL_argcheck(L, p->stage_count < STAGES_MAX, 1, "too many stages");
    struct test_stage *stage = &p->stages[p->stage_count++];
    stage->stage.ops = &ops[luaL_checkoption(L, 2, NULL, kinds)];
    pipe_add_stage(&p->pipe, &stage->stage);
    return 0;
}

static struct test_stage *check_stage(lua_State *L) {
    struct test_pipe *p = check_pipe(L);
    lua_Integer n = luaL_checkinteger(L, 2);
    luaL_argcheck(L, n >= 1 && n <= (lua_Integer)p->stage_count, 2, "no such stage");
    return &p->stages[n - 1];
}

/* p:ready(n): stage n, a slow one, can go on by one byte. */
static int pipe_lua_ready(lua_State *L) {
    struct test_stage *stage = check_stage(L);
    stage->ready = true;
    pipe_stage_ready(&stage->stage);
    return 0;
}

/* p:break_stage(n): stage n fails while it is busy. */
static int pipe_lua_break_stage(lua_State *L) {
    pipe_stage_fail(&check_stage(L)->stage, FAIL_HOOK_DRAINED);
    return 0;
}

/* p:waiting(n): bytes that wait before stage n. */
static int pipe_lua_waiting(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)check_stage(L)->stage.in.size);
    return 1;
}

/* p:take(n): takes pending bytes away without being a reader. */
static int pipe_lua_take(lua_State *L) {
    struct test_pipe *p = check_pipe(L);
    size_t n = (size_t)luaL_checkinteger(L, 2);
    struct buffer taken = { 0 };
    luaL_argcheck(L, n <= p->pipe.pending.size, 2, "there is not so much");
    pipe_take(&p->pipe, &taken, n);
    module_push_buffer(L, &taken);
    buffer_fini(&taken);
    return 1;
}

/* ---- the source */

static struct test_pipe *of_pipe(struct pipe *p) { return container_of(p, struct test_pipe, pipe); }

static void source_on_room(struct pipe *p) {
    struct test_pipe *t = of_pipe(p);
    t->asked++;
    while (t->pulls && t->pull.n) {
        size_t n = pipe_room(p);
        if (n == 0) return;
        if (n > t->pull.n) n = t->pull.n;
        struct buffer bytes = { 0 };
        buffer_append(&bytes, t->pull.p, n);
        t->pull = slice_skip(t->pull, n);
        pipe_write(p, &bytes, n);
    }
    if (t->pulls && p->state == PIPE_OPEN) pipe_end(p, NULL);
}

static void source_on_abandoned(struct pipe *p) { of_pipe(p)->abandoned++; }

static void watch_on_news(struct pipe_watch *w) { container_of(w, struct test_pipe, watch)->news++; }

static int pipe_lua_new(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    struct test_pipe *t = lua_newuserdatauv(L, sizeof *t, 1);
    memset(t, 0, sizeof *t);
    pipe_init(&t->pipe, source_on_room, source_on_abandoned);
    t->watch.on_news = watch_on_news;
    pipe_add_watch(&t->pipe, &t->watch);
    arena_init(&t->arena);
    headers_init(&t->trailers, &t->arena);
    luaL_setmetatable(L, PIPE_TYPE);
    lua_newtable(L);
    lua_getfield(L, 1, "pull");
    t->pulls = !lua_isnil(L, -1);
    if (t->pulls) t->pull = module_check_slice(L, -1);
    lua_setfield(L, -2, "pull");
    lua_setiuservalue(L, -2, 1);
    lua_getfield(L, 1, "hold");
    if (!lua_isnil(L, -1)) pipe_hold(&t->pipe, (size_t)luaL_checkinteger(L, -1));
    lua_pop(L, 1);
    return 1;
}

static int pipe_lua_room(lua_State *L) {
    size_t room = pipe_room(&check_pipe(L)->pipe);
    lua_pushinteger(L, (lua_Integer)room);
    return 1;
}

static int pipe_lua_write(lua_State *L) {
    struct slice s = module_check_slice(L, 2);
    struct buffer bytes = { 0 };
    buffer_append(&bytes, s.p, s.n);
    pipe_write(&check_pipe(L)->pipe, &bytes, s.n);
    lua_pushinteger(L, (lua_Integer)bytes.size); /* what was not taken: never anything */
    buffer_fini(&bytes);
    return 1;
}

/* p:finish(trailer): the end, with a trailer of that value. */
static int pipe_lua_finish(lua_State *L) {
    struct test_pipe *t = check_pipe(L);
    struct slice trailer = module_opt_slice(L, 2);
    if (trailer.p) headers_add(&t->trailers, SLICE("X-Trailer"), arena_copy(&t->arena, trailer));
    pipe_end(&t->pipe, trailer.p ? &t->trailers : NULL);
    return 0;
}

static int pipe_lua_fail(lua_State *L) {
    pipe_fail(&check_pipe(L)->pipe, FAIL_TRUNCATED);
    return 0;
}

static int pipe_lua_hold(lua_State *L) {
    pipe_hold(&check_pipe(L)->pipe, (size_t)luaL_checkinteger(L, 2));
    return 0;
}

static int pipe_lua_pending(lua_State *L) {
    module_push_buffer(L, &check_pipe(L)->pipe.pending);
    return 1;
}

static int pipe_lua_fini(lua_State *L) {
    pipe_fini(&check_pipe(L)->pipe);
    return 0;
}

/* { state =, total =, asked =, abandoned =, news =, closed = stages that were closed } */
static int pipe_lua_state(lua_State *L) {
    static const char *const states[] = { "open", "ended", "failed" };
    struct test_pipe *t = check_pipe(L);
    int closed = 0;
    for (unsigned i = 0; i < t->stage_count; i++) closed += t->stages[i].closed;
    lua_newtable(L);
    module_set_slice(L, "state", slice_of(states[t->pipe.state]));
    lua_pushinteger(L, (lua_Integer)t->pipe.total);
    lua_setfield(L, -2, "total");
    lua_pushinteger(L, t->asked);
    lua_setfield(L, -2, "asked");
    lua_pushinteger(L, t->abandoned);
    lua_setfield(L, -2, "abandoned");
    lua_pushinteger(L, t->news);
    lua_setfield(L, -2, "news");
    lua_pushinteger(L, closed);
    lua_setfield(L, -2, "closed");
    return 1;
}

static int pipe_lua_gc(lua_State *L) {
    struct test_pipe *t = check_pipe(L);
    pipe_fini(&t->pipe);
    arena_fini(&t->arena);
    return 0;
}

static const luaL_Reg pipe_methods[] = {
    { "read", pipe_lua_read },       { "stage", pipe_lua_stage },
    { "room", pipe_lua_room },       { "write", pipe_lua_write },
    { "finish", pipe_lua_finish },   { "fail", pipe_lua_fail },
    { "hold", pipe_lua_hold },       { "pending", pipe_lua_pending },
    { "state", pipe_lua_state },     { "ready", pipe_lua_ready },
    { "waiting", pipe_lua_waiting }, { "break_stage", pipe_lua_break_stage },
    { "take", pipe_lua_take },       { "fini", pipe_lua_fini },
    { "__gc", pipe_lua_gc },         { NULL, NULL },
};

static const luaL_Reg reader_methods[] = {
    { "text", reader_lua_text },   { "more", reader_lua_more }, { "leave", reader_lua_leave },
    { "state", reader_lua_state }, { "__gc", reader_lua_gc },   { NULL, NULL },
};

int module_proxy_open(lua_State *L) {
    static const luaL_Reg functions[] = { { "pipe", pipe_lua_new }, { NULL, NULL } };
    module_make_type(L, PIPE_TYPE, pipe_methods);
    module_make_type(L, READER_TYPE, reader_methods);
    luaL_newlib(L, functions);
    lua_pushinteger(L, PIPE_WINDOW);
    lua_setfield(L, -2, "PIPE_WINDOW");
    return 1;
}
