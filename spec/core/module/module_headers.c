/* Header lists as objects. Strings given to them are kept by an arena of their own. */
#include "module.h"

#include "http/headers.h"

#define HEADERS_TYPE "moongate_core.headers"

struct owned_headers {
    struct headers headers;
    struct arena arena;
};

static struct owned_headers *check_owned(lua_State *L) { return luaL_checkudata(L, 1, HEADERS_TYPE); }
static struct headers *check_headers(lua_State *L) { return &check_owned(L)->headers; }

static struct slice check_kept(lua_State *L, int index) {
    return arena_copy(&check_owned(L)->arena, module_check_slice(L, index));
}

static int headers_lua_new(lua_State *L) {
    struct owned_headers *owned = lua_newuserdatauv(L, sizeof *owned, 0);
    arena_init(&owned->arena);
    headers_init(&owned->headers, &owned->arena);
    luaL_setmetatable(L, HEADERS_TYPE);
    return 1;
}

static int headers_lua_fini(lua_State *L) {
    arena_fini(&check_owned(L)->arena);
    return 0;
}

static int headers_lua_add(lua_State *L) {
    struct slice name = check_kept(L, 2), value = check_kept(L, 3);
    headers_add(check_headers(L), name, value)->hop = lua_toboolean(L, 4);
    return 0;
}

static int headers_lua_set(lua_State *L) {
    struct slice name = check_kept(L, 2), value = check_kept(L, 3);
    headers_set(check_headers(L), name, value);
    return 0;
}

static int headers_lua_remove(lua_State *L) {
    headers_remove(check_headers(L), module_check_slice(L, 2));
    return 0;
}

/* All values of a name, by find and next. */
static int headers_lua_all(lua_State *L) {
    const struct headers *headers = check_headers(L);
    lua_Integer i = 1;
    lua_newtable(L);
    for (struct header *h = headers_find(headers, module_check_slice(L, 2)); h; h = headers_next(headers, h)) {
        module_push_slice(L, h->value);
        lua_seti(L, -2, i++);
    }
    return 1;
}

static int headers_lua_joined(lua_State *L) {
    module_push_slice(L, headers_joined(check_headers(L), module_check_slice(L, 2)));
    return 1;
}

static int headers_lua_has(lua_State *L) {
    enum header_id id = header_id_of(module_check_slice(L, 2));
    lua_pushboolean(L, headers_list_has(check_headers(L), id, module_check_slice(L, 3)));
    return 1;
}

/* What is written, and the size that was announced. */
static int headers_lua_write(lua_State *L) {
    struct buffer out = { 0 };
    headers_write(check_headers(L), &out);
    module_push_buffer(L, &out);
    lua_pushinteger(L, (lua_Integer)headers_written_size(check_headers(L)));
    buffer_fini(&out);
    return 2;
}

/* A copy in an arena of its own, written. */
static int headers_lua_copy(lua_State *L) {
    struct arena arena;
    struct headers copy;
    struct buffer out = { 0 };
    arena_init(&arena);
    headers_init(&copy, &arena);
    headers_copy(&copy, check_headers(L));
    headers_write(&copy, &out);
    module_push_buffer(L, &out);
    buffer_fini(&out);
    arena_fini(&arena);
    return 1;
}

static int headers_lua_id(lua_State *L) {
    enum header_id id = header_id_of(module_check_slice(L, 1));
    if (id == HEADER_OTHER) return 0;
    module_push_slice(L, header_name_of(id));
    lua_pushboolean(L, header_is_core(id));
    return 2;
}

static int headers_lua_known(lua_State *L) {
    lua_newtable(L);
    for (int id = HEADER_OTHER + 1; id < HEADER_ID_COUNT; id++) {
        module_push_slice(L, header_name_of((enum header_id)id));
        lua_seti(L, -2, id);
    }
    return 1;
}

static int headers_lua_valid(lua_State *L) {
    lua_pushboolean(L, header_name_valid(module_check_slice(L, 1)));
    lua_pushboolean(L, header_value_valid(module_check_slice(L, 1)));
    return 2;
}

static int headers_lua_list(lua_State *L) {
    struct slice rest = module_check_slice(L, 1), member;
    lua_newtable(L);
    for (lua_Integer i = 1; header_list_next(&rest, &member); i++) {
        module_push_slice(L, member);
        lua_seti(L, -2, i);
    }
    return 1;
}

static const luaL_Reg methods[] = {
    { "add", headers_lua_add },       { "set", headers_lua_set },
    { "remove", headers_lua_remove }, { "all", headers_lua_all },
    { "joined", headers_lua_joined }, { "has", headers_lua_has },
    { "write", headers_lua_write },   { "copy", headers_lua_copy },
    { "__gc", headers_lua_fini },     { NULL, NULL },
};

int module_headers_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "new", headers_lua_new },     { "id", headers_lua_id },     { "known", headers_lua_known },
        { "valid", headers_lua_valid }, { "list", headers_lua_list }, { NULL, NULL },
    };
    module_make_type(L, HEADERS_TYPE, methods);
    luaL_newlib(L, functions);
    return 1;
}
