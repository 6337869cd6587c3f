/* Buffers as objects: `local b = buffer.new()`, its methods named as in buffer.h. */
#include "module.h"

#include "base/must.h"

#define BUFFER_TYPE "moongate_core.buffer"

/* What append_static points to: the 256 bytes in turn, so that any stretch of it can be told. */
static char static_bytes[65536];

static struct buffer *check_buffer(lua_State *L, int index) { return luaL_checkudata(L, index, BUFFER_TYPE); }

static size_t check_size(lua_State *L, int index, size_t most) {
    lua_Integer n = luaL_checkinteger(L, index);
    luaL_argcheck(L, n >= 0 && (size_t)n <= most, index, "out of range");
    return (size_t)n;
}

static int buffer_lua_new(lua_State *L) {
    buffer_init(lua_newuserdatauv(L, sizeof(struct buffer), 0));
    luaL_setmetatable(L, BUFFER_TYPE);
    return 1;
}

static int buffer_lua_fini(lua_State *L) {
    buffer_fini(check_buffer(L, 1));
    return 0;
}

static int buffer_lua_append(lua_State *L) {
    struct slice s = module_check_slice(L, 2);
    buffer_append(check_buffer(L, 1), s.p, s.n);
    return 0;
}

/* b:append_static(from, n): bytes from..from+n-1 of the pattern. */
static int buffer_lua_append_static(lua_State *L) {
    size_t from = check_size(L, 2, sizeof static_bytes), n = check_size(L, 3, sizeof static_bytes - from);
    for (size_t i = 0; i < sizeof static_bytes; i++) static_bytes[i] = (char)(i & 0xff);
    buffer_append_static(check_buffer(L, 1), static_bytes + from, n);
    return 0;
}

static int buffer_lua_printf(lua_State *L) {
    buffer_printf(check_buffer(L, 1), "<%s>", luaL_checkstring(L, 2));
    return 0;
}

/* b:room(n, text): asks for n bytes, writes the text into them (at most n), commits it. */
static int buffer_lua_room(lua_State *L) {
    struct slice s = module_check_slice(L, 3);
    size_t n = check_size(L, 2, SIZE_MAX / 4);
    luaL_argcheck(L, s.n <= n, 3, "longer than the room");
    char *room = buffer_room(check_buffer(L, 1), n);
    memset(room, '?', n);
    memcpy(room, s.p, s.n);
    buffer_commit(check_buffer(L, 1), s.n);
    return 0;
}

/* b:read(max, want, text): as readv does; returns how many bytes of the text found room. */
static int buffer_lua_read(lua_State *L) {
    struct iovec vectors[16];
    int max = (int)check_size(L, 2, 16), count;
    struct slice s = module_check_slice(L, 4);
    size_t done = 0;
    count = buffer_room_vectors(check_buffer(L, 1), vectors, max, (size_t)luaL_checkinteger(L, 3));
    for (int i = 0; i < count; i++) {
        size_t left = s.n - done, n = left < vectors[i].iov_len ? left : vectors[i].iov_len;
        memset(vectors[i].iov_base, '?', vectors[i].iov_len);
        memcpy(vectors[i].iov_base, s.p + done, n);
        done += n;
    }
    buffer_commit(check_buffer(L, 1), done);
    lua_pushinteger(L, (lua_Integer)done);
    lua_pushinteger(L, count);
    return 2;
}

/* Room that nobody commits: the next call must not mind. */
static int buffer_lua_forget_room(lua_State *L) {
    buffer_room(check_buffer(L, 1), (size_t)luaL_checkinteger(L, 2));
    return 0;
}

static int buffer_lua_gather(lua_State *L) {
    struct buffer *b = check_buffer(L, 1);
    module_push_slice(L, buffer_gather(b, check_size(L, 2, b->size)));
    return 1;
}

static int buffer_lua_peek(lua_State *L) {
    struct buffer *b = check_buffer(L, 1);
    size_t n = check_size(L, 2, b->size);
    luaL_Buffer text;
    buffer_peek(b, luaL_buffinitsize(L, &text, n), n);
    luaL_pushresultsize(&text, n);
    return 1;
}

/* b:find(byte, from): places count from 0, as in C. */
static int buffer_lua_find(lua_State *L) {
    const char *byte = luaL_checkstring(L, 2);
    lua_pushinteger(L, (lua_Integer)buffer_find(check_buffer(L, 1), *byte, check_size(L, 3, SIZE_MAX / 4)));
    return 1;
}

static int buffer_lua_front(lua_State *L) {
    module_push_slice(L, buffer_front(check_buffer(L, 1)));
    return 1;
}

static int buffer_lua_drop(lua_State *L) {
    struct buffer *b = check_buffer(L, 1);
    buffer_drop(b, check_size(L, 2, b->size));
    return 0;
}

/* to:move(from, n) */
static int buffer_lua_move(lua_State *L) {
    struct buffer *to = check_buffer(L, 1), *from = check_buffer(L, 2);
    luaL_argcheck(L, to != from, 2, "the same buffer");
    buffer_move(to, from, check_size(L, 3, from->size));
    return 0;
}

static int buffer_lua_share(lua_State *L) {
    struct buffer *to = check_buffer(L, 1), *from = check_buffer(L, 2);
    luaL_argcheck(L, to != from, 2, "the same buffer");
    buffer_share(to, from);
    return 0;
}

static int buffer_lua_size(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)check_buffer(L, 1)->size);
    return 1;
}

/* All bytes, by way of writev's vectors; and how many vectors there were. */
static int buffer_lua_text(lua_State *L) {
    struct buffer *b = check_buffer(L, 1);
    static struct iovec vectors[65536];
    int count = buffer_vectors(b, vectors, 65536);
    luaL_Buffer text;
    luaL_buffinit(L, &text);
    for (int i = 0; i < count; i++) {
        must(vectors[i].iov_len > 0);
        luaL_addlstring(&text, vectors[i].iov_base, vectors[i].iov_len);
    }
    luaL_pushresult(&text);
    lua_pushinteger(L, count);
    return 2;
}

static int buffer_lua_chunk_bytes(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)buffer_chunk_bytes());
    return 1;
}

static int buffer_lua_thread_fini(lua_State *L) {
    (void)L;
    buffer_thread_fini();
    arena_thread_fini();
    return 0;
}

static const luaL_Reg methods[] = {
    { "append", buffer_lua_append }, { "append_static", buffer_lua_append_static },
    { "printf", buffer_lua_printf }, { "room", buffer_lua_room },
    { "read", buffer_lua_read },     { "forget_room", buffer_lua_forget_room },
    { "gather", buffer_lua_gather }, { "peek", buffer_lua_peek },
    { "find", buffer_lua_find },     { "front", buffer_lua_front },
    { "drop", buffer_lua_drop },     { "move", buffer_lua_move },
    { "share", buffer_lua_share },   { "size", buffer_lua_size },
    { "text", buffer_lua_text },     { "fini", buffer_lua_fini },
    { "__gc", buffer_lua_fini },     { NULL, NULL },
};

int module_buffer_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "new", buffer_lua_new },
        { "chunk_bytes", buffer_lua_chunk_bytes },
        { "thread_fini", buffer_lua_thread_fini },
        { NULL, NULL },
    };
    module_make_type(L, BUFFER_TYPE, methods);
    luaL_newlib(L, functions);
    lua_pushinteger(L, CHUNK_BYTES);
    lua_setfield(L, -2, "CHUNK_BYTES");
    lua_pushinteger(L, COPY_BELOW);
    lua_setfield(L, -2, "COPY_BELOW");
    return 1;
}
