/* Values of Lua as JSON, for what commands print. An empty table is an empty list; a string that is no UTF-8 is written
 * with its stray bytes as U+FFFD, since JSON has no other way. */
#include "kit/kit.h"

#include <jansson.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MOST = 32 };

static const char null_mark;

void kit_push_null(lua_State *L) { lua_pushlightuserdata(L, (void *)(uintptr_t)&null_mark); }

static json_t *to_json(lua_State *L, int index, int depth);

/* A byte is replaced as long as the rest does not decode. */
static json_t *text_to_json(const char *text, size_t n) {
    json_t *json = json_stringn(text, n);
    if (json) return json;
    char *clean = malloc(3 * n + 1), *to = clean;
    for (size_t i = 0; clean && i < n; i++) {
        if ((unsigned char)text[i] < 0x80) *to++ = text[i];
        else to = (char *)memcpy(to, "\xef\xbf\xbd", 3) + 3;
    }
    json = clean ? json_stringn(clean, (size_t)(to - clean)) : NULL;
    free(clean);
    return json;
}

static json_t *list_to_json(lua_State *L, int index, lua_Unsigned n, int depth) {
    json_t *json = json_array();
    for (lua_Unsigned i = 1; i <= n; i++) {
        lua_rawgeti(L, index, (lua_Integer)i);
        json_array_append_new(json, to_json(L, lua_gettop(L), depth));
        lua_pop(L, 1);
    }
    return json;
}

static json_t *table_to_json(lua_State *L, int index, int depth) {
    lua_Unsigned n = lua_rawlen(L, index);
    lua_pushnil(L);
    if (n || !lua_next(L, index)) {
        if (n) lua_pop(L, 1);
        return list_to_json(L, index, n, depth);
    }
    json_t *json = json_object();
    do {
        if (lua_type(L, -2) == LUA_TSTRING)
            json_object_set_new(json, lua_tostring(L, -2), to_json(L, lua_gettop(L), depth));
        lua_pop(L, 1);
    } while (lua_next(L, index));
    return json;
}

static json_t *to_json(lua_State *L, int index, int depth) {
    size_t n;
    const char *text;
    switch (lua_type(L, index)) {
    case LUA_TBOOLEAN: return json_boolean(lua_toboolean(L, index));
    case LUA_TNUMBER:
        if (lua_isinteger(L, index)) return json_integer(lua_tointeger(L, index));
        return json_real(lua_tonumber(L, index));
    case LUA_TSTRING: text = lua_tolstring(L, index, &n); return text_to_json(text, n);
    case LUA_TTABLE:
        if (depth == DEPTH_MOST) return json_null();
        lua_checkstack(L, 8);
        return table_to_json(L, index, depth + 1);
    default: return json_null();
    }
}

int kit_json(lua_State *L) {
    luaL_checkany(L, 1);
    json_t *json = to_json(L, 1, 0);
    char *text = json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    json_decref(json);
    lua_pushstring(L, text);
    free(text);
    return 1;
}
