/* Content codings, and the stages that C brings along, on text:
 *
 *     coding.encode(name, text, { step =, room =, level = }) -> text
 *     coding.decode(name, text, { step =, room =, most = }) -> "done" | "broken" | "bomb", text
 *     coding.of { { name, value }… }, coding.negotiate({ { name, value }… }, { name… }) -> name
 *     coding.replace({ { from, to }… }, text, step) -> text
 *
 * `step`: how many bytes are fed at a time, each step as if a read had brought it; `room`: how many a call may give. */
#include "module.h"

#include "http/coding.h"
#include "proxy/stages.h"

static size_t opt_size(lua_State *L, int index, const char *name, lua_Integer otherwise) {
    if (!lua_istable(L, index)) return (size_t)otherwise;
    lua_getfield(L, index, name);
    lua_Integer value = luaL_optinteger(L, -1, otherwise);
    lua_pop(L, 1);
    return (size_t)value;
}

static enum coding check_coding(lua_State *L, int index) {
    enum coding coding = coding_named(module_check_slice(L, index));
    luaL_argcheck(L, coding != CODING_IDENTITY && coding != CODING_UNKNOWN, index, "no such coding");
    return coding;
}

/* Feeds `text` to whatever `run` is, in steps, until it is used up or fails. */
struct feeding {
    struct slice text;
    size_t step, room;
    enum coding_result (*run)(void *, struct buffer *, struct buffer *, size_t, bool);
    void *with;
};

static enum coding_result feed(struct feeding f, struct buffer *out) {
    struct buffer in = { 0 };
    enum coding_result result;
    do {
        size_t n = f.text.n < f.step ? f.text.n : f.step;
        buffer_append(&in, f.text.p, n);
        f.text = slice_skip(f.text, n);
        do result = f.run(f.with, &in, out, f.room, f.text.n == 0);
        while (result == CODING_FULL);
    } while (result == CODING_HUNGRY && f.text.n);
    buffer_fini(&in);
    return result;
}

static enum coding_result run_encoder(void *e, struct buffer *in, struct buffer *out, size_t room, bool last) {
    return encoder_run(e, in, out, room, last);
}

static enum coding_result run_decoder(void *d, struct buffer *in, struct buffer *out, size_t room, bool last) {
    return decoder_run(d, in, out, room, last);
}

static int coding_lua_encode(lua_State *L) {
    struct buffer out = { 0 };
    struct encoder *e = encoder_create(check_coding(L, 1), (int)opt_size(L, 3, "level", ENCODER_LEVEL_DEFAULT));
    struct feeding f = { .text = module_check_slice(L, 2),
                         .step = opt_size(L, 3, "step", INT32_MAX),
                         .room = opt_size(L, 3, "room", 65536),
                         .run = run_encoder,
                         .with = e };
    feed(f, &out);
    encoder_destroy(e);
    module_push_buffer(L, &out);
    buffer_fini(&out);
    return 1;
}

static int coding_lua_decode(lua_State *L) {
    static const char *const words[] = { "done", "full", "broken", "bomb" };
    struct buffer out = { 0 };
    struct decoder *d = decoder_create(check_coding(L, 1), opt_size(L, 3, "most", INT32_MAX));
    struct feeding f = { .text = module_check_slice(L, 2),
                         .step = opt_size(L, 3, "step", INT32_MAX),
                         .room = opt_size(L, 3, "room", 65536),
                         .run = run_decoder,
                         .with = d };
    lua_pushstring(L, words[feed(f, &out)]);
    decoder_destroy(d);
    module_push_buffer(L, &out);
    buffer_fini(&out);
    return 2;
}

static struct slice field_at(lua_State *L, int index, lua_Integer i) {
    lua_geti(L, index, i);
    struct slice s = module_check_slice(L, -1);
    lua_pop(L, 1); /* the table keeps it */
    return s;
}

static void read_headers(lua_State *L, int index, struct headers *headers) {
    for (lua_Integer i = 1; lua_geti(L, index, i) == LUA_TTABLE; i++) {
        headers_add(headers, field_at(L, lua_gettop(L), 1), field_at(L, lua_gettop(L), 2));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static int coding_lua_of(lua_State *L) {
    struct arena arena;
    struct headers headers;
    arena_init(&arena);
    headers_init(&headers, &arena);
    read_headers(L, 1, &headers);
    module_push_slice(L, coding_name(coding_of(&headers)));
    arena_fini(&arena);
    return 1;
}

static int coding_lua_negotiate(lua_State *L) {
    enum coding offered[8];
    unsigned count = 0;
    struct arena arena;
    struct headers headers;
    arena_init(&arena);
    headers_init(&headers, &arena);
    read_headers(L, 1, &headers);
    for (; count < 8 && lua_geti(L, 2, count + 1) == LUA_TSTRING; lua_pop(L, 1)) offered[count++] = check_coding(L, -1);
    module_push_slice(L, coding_name(coding_negotiate(&headers, offered, count)));
    arena_fini(&arena);
    return 1;
}

static int coding_lua_replace(lua_State *L) {
    struct replacement list[REPLACEMENTS_MAX];
    unsigned count = 0;
    struct slice text = module_check_slice(L, 2);
    size_t step = (size_t)luaL_optinteger(L, 3, INT32_MAX);
    for (; count < REPLACEMENTS_MAX && lua_geti(L, 1, count + 1) == LUA_TTABLE; lua_pop(L, 1), count++)
        list[count] = (struct replacement){ field_at(L, lua_gettop(L), 1), field_at(L, lua_gettop(L), 2) };
    struct pipe_stage *stage = stage_replace(list, count);
    struct buffer in = { 0 }, out = { 0 };
    do {
        size_t n = text.n < step ? text.n : step;
        buffer_append(&in, text.p, n);
        text = slice_skip(text, n);
        enum stage_result result;
        do {
            struct buffer made = { 0 };
            result = stage->ops->run(stage, &in, &made, text.n == 0);
            buffer_move(&out, &made, made.size);
        } while (result == STAGE_FULL);
    } while (text.n);
    stage->ops->close(stage);
    module_push_buffer(L, &out);
    buffer_fini(&in);
    buffer_fini(&out);
    return 1;
}

int module_coding_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "encode", coding_lua_encode },   { "decode", coding_lua_decode },       { "of", coding_lua_of },
        { "replace", coding_lua_replace }, { "negotiate", coding_lua_negotiate }, { NULL, NULL },
    };
    luaL_newlib(L, functions);
    return 1;
}
