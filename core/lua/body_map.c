/* The stage of body:map.
 *
 * It is busy from the moment it gets bytes until the function has answered for a piece of them, and then gives what
 * that returned: so the pipe holds back while the function waits, and no more than one piece is away from it at a
 * time. The end is a call of its own, f(nil). */
#include "lua/body_map.h"

#include "lua/callback.h"

#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>

enum { PIECE_MAX = 65536 };

enum map_state {
    MAP_IDLE,
    MAP_CALLED, /* the function has a piece, or is about to get one */
    MAP_MADE    /* `made` is what it returned */
};

struct map_stage {
    struct pipe_stage stage;
    struct callback callback;
    struct buffer made;
    enum map_state state;
    bool last;  /* nothing follows what is in stage.in */
    bool ended; /* f(nil) was called */
    enum failure why;
    char wrong[128];
};

static struct map_stage *of_stage(struct pipe_stage *s) { return container_of(s, struct map_stage, stage); }
static struct map_stage *of_callback(struct callback *c) { return container_of(c, struct map_stage, callback); }

/* ---- the stage */

static enum stage_result run(struct pipe_stage *s, struct buffer *in, struct buffer *out, bool last) {
    struct map_stage *m = of_stage(s);
    m->last = last;
    if (m->state == MAP_MADE) {
        buffer_move(out, &m->made, m->made.size);
        m->state = MAP_IDLE;
        if (m->ended || (!in->size && !last)) return STAGE_HUNGRY;
        if (out->size >= STAGE_BYTES) return STAGE_FULL;
    }
    if (m->state == MAP_IDLE) callback_call(&m->callback);
    m->state = MAP_CALLED;
    return STAGE_BUSY;
}

static void close_stage(struct pipe_stage *s) { callback_close(&of_stage(s)->callback); }

static const struct pipe_stage_ops stage_ops = { run, close_stage };

/* ---- the function */

static int push_piece(struct callback *c, lua_State *L) {
    struct map_stage *m = of_callback(c);
    struct buffer *in = &m->stage.in;
    if (!in->size) {
        m->ended = true;
        lua_pushnil(L);
        return 1;
    }
    size_t n = in->size < PIECE_MAX ? in->size : PIECE_MAX;
    struct slice piece = buffer_front(in);
    if (piece.n < n) piece = buffer_gather(in, n);
    lua_pushlstring(L, piece.p, n);
    buffer_drop(in, n);
    return 1;
}

static const char *take_result(struct callback *c, lua_State *L, int results) {
    struct map_stage *m = of_callback(c);
    size_t n;
    if (results == 0 || lua_isnil(L, 1)) return NULL;
    if (lua_type(L, 1) != LUA_TSTRING) {
        snprintf(m->wrong, sizeof m->wrong, "the function returned a %s; expected a string or nil",
                 luaL_typename(L, 1));
        return m->wrong;
    }
    const char *p = lua_tolstring(L, 1, &n);
    buffer_append(&m->made, p, n);
    return NULL;
}

static void go_on(struct callback *c) {
    struct map_stage *m = of_callback(c);
    m->state = MAP_MADE;
    pipe_stage_ready(&m->stage);
}

static void fail(struct callback *c, enum failure why) {
    struct map_stage *m = of_callback(c);
    pipe_stage_fail(&m->stage, why == FAIL_HOOK_FAILED ? m->why : why);
}

static void free_stage(struct callback *c) {
    struct map_stage *m = of_callback(c);
    buffer_fini(&m->made);
    free(m);
}

static const struct callback_ops callback_ops = { "body:map", push_piece, take_result, go_on, fail, free_stage };

struct pipe_stage *stage_map(lua_State *L, enum failure why) {
    struct map_stage *m = must_calloc(1, sizeof *m);
    m->stage.ops = &stage_ops;
    m->why = why;
    callback_open(&m->callback, &callback_ops, L);
    return &m->stage;
}

bool map_is_running(lua_State *L, const struct pipe *p) {
    const struct subject *s = subject_of(L);
    list_each(node, &p->stages) {
        struct pipe_stage *stage = container_of(node, struct pipe_stage, node);
        if (stage->ops == &stage_ops && s == &of_stage(stage)->callback.subject) return true;
    }
    return false;
}
