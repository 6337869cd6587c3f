/* Heads, framing, bodies and writing: each call reads one message from text and tells all that is known of it.
 *
 * The text comes as a string or as a list of pieces, each fed as if one read had brought it. `straddle = k` puts a
 * chunk's border behind the first k bytes. */
#include "module.h"

#include "http/date.h"
#include "http/framing.h"
#include "http/h1.h"

struct pieces {
    lua_State *L;
    int index;       /* of the string or list */
    lua_Integer fed; /* so far */
};

static bool next_piece(struct pieces *pieces, struct buffer *in) {
    lua_State *L = pieces->L;
    if (lua_type(L, pieces->index) == LUA_TSTRING) {
        if (pieces->fed++) return false;
        struct slice s = module_check_slice(L, pieces->index);
        buffer_append(in, s.p, s.n);
        return true;
    }
    lua_geti(L, pieces->index, pieces->fed + 1);
    bool there = lua_isstring(L, -1);
    if (there) {
        struct slice s = module_check_slice(L, -1);
        buffer_append(in, s.p, s.n);
        pieces->fed++;
    }
    lua_pop(L, 1);
    return there;
}

static lua_Integer opt_field(lua_State *L, int index, const char *name, lua_Integer otherwise) {
    if (!lua_istable(L, index)) return otherwise;
    lua_getfield(L, index, name);
    lua_Integer value = luaL_optinteger(L, -1, otherwise);
    lua_pop(L, 1);
    return value;
}

static void set_integer(lua_State *L, const char *field, uint64_t n) {
    lua_pushinteger(L, (lua_Integer)n);
    lua_setfield(L, -2, field);
}

static void set_boolean(lua_State *L, const char *field, bool value) {
    lua_pushboolean(L, value);
    lua_setfield(L, -2, field);
}

static void set_word(lua_State *L, const char *field, enum failure failed) {
    lua_pushstring(L, failure_word(failed));
    lua_setfield(L, -2, field);
}

static void set_buffer(lua_State *L, const char *field, const struct buffer *b) {
    module_push_buffer(L, b);
    lua_setfield(L, -2, field);
}

/* Fills the first chunk so far that `k` more bytes reach its end. */
static void straddle(struct buffer *in, lua_Integer k) {
    static const char filler[CHUNK_BYTES];
    if (k <= 0 || k >= CHUNK_BYTES) return;
    buffer_append(in, filler, CHUNK_BYTES - (size_t)k);
}

/* The filler goes when the first bytes behind it are in, so that the chunk stays. */
static void drop_filler(struct buffer *in, lua_Integer k) {
    if (k > 0 && k < CHUNK_BYTES) buffer_drop(in, CHUNK_BYTES - (size_t)k);
}

static const char *const result_names[] = { "more", "done", "failed" };
static const char *const kind_names[] = { "none", "length", "chunked", "until_close" };

/* { { "Name", "value", hop = true }, ... } */
static void set_fields(lua_State *L, const char *field, const struct headers *headers) {
    lua_Integer i = 1;
    lua_newtable(L);
    headers_each(h, headers) {
        lua_newtable(L);
        module_push_slice(L, h->name);
        lua_seti(L, -2, 1);
        module_push_slice(L, h->value);
        lua_seti(L, -2, 2);
        set_boolean(L, "hop", h->hop);
        lua_seti(L, -2, i++);
    }
    lua_setfield(L, -2, field);
}

static void set_framing(lua_State *L, const struct framing *framing, const struct headers *headers) {
    lua_pushstring(L, kind_names[framing->kind]);
    lua_setfield(L, -2, "kind");
    set_integer(L, "length", framing->length);
    set_boolean(L, "keep_alive", framing->keep_alive);
    set_boolean(L, "upgrade", framing->upgrade);
    set_boolean(L, "expect_continue", framing->expect_continue);
    module_set_slice(L, "upgrade_value", framing_upgrade(headers));
}

static struct h1_limits read_limits(lua_State *L, int index) {
    return (struct h1_limits){
        .head = (uint32_t)opt_field(L, index, "head", 65536),
        .target = (uint32_t)opt_field(L, index, "target", 8192),
        .fields = (uint32_t)opt_field(L, index, "fields", 100),
    };
}

static void tell_request(lua_State *L, struct request *request) {
    module_set_slice(L, "method", request->method_name);
    set_integer(L, "method_id", request->method);
    set_integer(L, "version", request->version);
    module_set_slice(L, "target", request->target.raw);
    set_word(L, "framing", framing_of_request(request));
    set_framing(L, &request->framing, &request->headers);
    set_fields(L, "headers", &request->headers);
    struct buffer out = { 0 };
    h1_write_request(&out, request, request->target.raw, SLICE("Extra: 1\r\n"));
    set_buffer(L, "written", &out);
    buffer_fini(&out);
}

static void tell_response(lua_State *L, struct response *response, enum method method) {
    set_integer(L, "status", (uint64_t)response->status);
    set_integer(L, "version", response->version);
    module_set_slice(L, "reason", response->reason);
    set_word(L, "framing", framing_of_response(response, method));
    set_framing(L, &response->framing, &response->headers);
    set_fields(L, "headers", &response->headers);
    struct buffer out = { 0 };
    h1_write_response(&out, response, SLICE("Extra: 1\r\n"));
    set_buffer(L, "written", &out);
    buffer_fini(&out);
}

static void tell_result(lua_State *L, enum h1_result result, enum failure why, const struct pieces *pieces) {
    lua_newtable(L);
    lua_pushstring(L, result_names[result]);
    lua_setfield(L, -2, "result");
    if (result == H1_FAILED) set_word(L, "why", why);
    set_integer(L, "fed", (uint64_t)pieces->fed);
}

/* The reading of a head, fed piece by piece. */
struct reading {
    struct pieces pieces;
    struct h1_limits limits;
    lua_Integer border;
    struct buffer in;
    struct arena arena;
    struct h1_scan scan;
    bool begun;
    enum h1_result result;
    enum failure why;
};

/* The pieces at 1, { head =, target =, fields =, straddle = } at 2. */
static void begin_reading(lua_State *L, struct reading *r) {
    *r = (struct reading){ .pieces = { .L = L, .index = 1 }, .limits = read_limits(L, 2), .result = H1_MORE };
    r->border = opt_field(L, 2, "straddle", 0);
    arena_init(&r->arena);
    straddle(&r->in, r->border);
}

/* Feeds a piece; false: the head has been read, or nothing is left to feed. */
static bool feed_reading(struct reading *r) {
    if (r->result != H1_MORE || !next_piece(&r->pieces, &r->in)) return false;
    if (!r->begun) drop_filler(&r->in, r->border);
    r->begun = true;
    return true;
}

static void tell_reading(lua_State *L, const struct reading *r) {
    tell_result(L, r->result, r->why, &r->pieces);
    set_buffer(L, "left", &r->in);
}

static int end_reading(struct reading *r) {
    buffer_fini(&r->in);
    arena_fini(&r->arena);
    return 1;
}

/* http.read_request(pieces, options) */
static int http_read_request(lua_State *L) {
    struct reading r;
    struct request request = { 0 };
    begin_reading(L, &r);
    while (feed_reading(&r)) r.result = h1_read_request(&r.scan, &r.in, &r.limits, &r.arena, &request, &r.why);
    tell_reading(L, &r);
    set_boolean(L, "started", r.scan.started);
    if (r.result == H1_DONE) tell_request(L, &request);
    return end_reading(&r);
}

/* http.read_response(pieces, options, method) */
static int http_read_response(lua_State *L) {
    struct reading r;
    struct response response = { 0 };
    enum method method = method_of(slice_of(luaL_optstring(L, 3, "GET")));
    begin_reading(L, &r);
    while (feed_reading(&r)) r.result = h1_read_response(&r.scan, &r.in, &r.limits, &r.arena, &response, &r.why);
    tell_reading(L, &r);
    if (r.result == H1_DONE) tell_response(L, &response, method);
    return end_reading(&r);
}

/* http.read_body(kind, length, pieces, { room =, drop_trailers =, straddle = }): `room` is what each call may move. */
static int http_read_body(lua_State *L) {
    struct framing framing = { .kind = (enum framing_kind)luaL_checkoption(L, 1, NULL, kind_names) };
    framing.length = (uint64_t)luaL_checkinteger(L, 2);
    struct pieces pieces = { .L = L, .index = 3 };
    size_t room = (size_t)opt_field(L, 4, "room", 1 << 20);
    lua_Integer border = opt_field(L, 4, "straddle", 0);
    struct buffer in = { 0 }, out = { 0 };
    struct arena arena;
    struct headers trailers;
    struct h1_body body;
    arena_init(&arena);
    headers_init(&trailers, &arena);
    h1_body_start(&body, &framing, opt_field(L, 4, "drop_trailers", 0) ? NULL : &trailers);
    enum h1_result result = body.done ? H1_DONE : H1_MORE;
    straddle(&in, border);
    for (bool first = true; result == H1_MORE && next_piece(&pieces, &in); first = false) {
        if (first) drop_filler(&in, border);
        size_t before;
        do {
            before = in.size;
            result = h1_body_read(&body, &in, &out, room);
        } while (result == H1_MORE && in.size && in.size < before);
    }
    tell_result(L, result, FAIL_BAD_BODY, &pieces);
    set_buffer(L, "content", &out);
    set_buffer(L, "left", &in);
    set_fields(L, "trailers", &trailers);
    buffer_fini(&in);
    buffer_fini(&out);
    arena_fini(&arena);
    return 1;
}

/* http.write_body({ "piece", ... }, chunked, { { name, value }, ... }) */
static int http_write_body(lua_State *L) {
    struct pieces pieces = { .L = L, .index = 1 };
    bool chunked = lua_toboolean(L, 2);
    struct buffer body = { 0 }, out = { 0 };
    struct arena arena;
    struct headers trailers;
    arena_init(&arena);
    headers_init(&trailers, &arena);
    while (next_piece(&pieces, &body)) h1_write_body(&out, &body, chunked);
    if (lua_istable(L, 3)) {
        for (lua_Integer i = 1; i <= luaL_len(L, 3); i++) {
            lua_geti(L, 3, i);
            lua_geti(L, -1, 1);
            lua_geti(L, -2, 2);
            headers_add(&trailers, module_check_slice(L, -2), module_check_slice(L, -1));
        }
    }
    if (chunked) h1_write_last_chunk(&out, lua_istable(L, 3) ? &trailers : NULL);
    module_push_buffer(L, &out);
    buffer_fini(&out);
    arena_fini(&arena);
    return 1;
}

static int http_method(lua_State *L) {
    enum method method = method_of(module_check_slice(L, 1));
    int status = (int)luaL_optinteger(L, 2, 200);
    lua_pushboolean(L, method != METHOD_OTHER);
    lua_pushboolean(L, method_is_safe(method));
    lua_pushboolean(L, method_is_idempotent(method));
    lua_pushboolean(L, response_has_body(method, status));
    return 4;
}

static int http_reason(lua_State *L) {
    module_push_slice(L, status_reason((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int http_date_write(lua_State *L) {
    char text[30];
    date_write(text, (time_t)luaL_checkinteger(L, 1));
    lua_pushstring(L, text);
    return 1;
}

static int http_date_parse(lua_State *L) {
    lua_pushinteger(L, date_parse(module_check_slice(L, 1)));
    return 1;
}

static int http_date_now(lua_State *L) {
    module_push_slice(L, date_now());
    return 1;
}

int module_http_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "read_request", http_read_request },
        { "read_response", http_read_response },
        { "read_body", http_read_body },
        { "write_body", http_write_body },
        { "method", http_method },
        { "reason", http_reason },
        { "date_write", http_date_write },
        { "date_parse", http_date_parse },
        { "date_now", http_date_now },
        { NULL, NULL },
    };
    luaL_newlib(L, functions);
    return 1;
}
