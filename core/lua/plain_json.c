/* Jansson between. Its tree belongs to a userdata while values are pushed, for that may be refused memory. */
#include "lua/plain_json.h"

#include "lua/bind.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BYTES_PER_STEP = 2, MEMBERS_MAX = 10000 };

struct json_box {
    struct handle handle;
    json_t *json;
    char *text;
};

static void box_collect(void *pointer) {
    struct json_box *box = pointer;
    json_decref(box->json);
    free(box->text);
}

static const struct handle_kind box_kind = { .name = "moongate.json", .collect = box_collect };

static struct json_box *box_new(lua_State *L) {
    if (!handle_kind_known(L, &box_kind)) object_kind_open(L, &box_kind, NULL, NULL, NULL);
    return object_new(L, &box_kind, sizeof(struct json_box), 0);
}

static void box_empty(struct json_box *box) {
    json_decref(box->json);
    free(box->text);
    box->json = NULL;
    box->text = NULL;
}

/* ---- Into Lua */

static const char *push_value(lua_State *L, json_t *json, unsigned level);

static const char *push_array(lua_State *L, json_t *json, unsigned level) {
    size_t n = json_array_size(json);
    lua_createtable(L, n < 256 ? (int)n : 256, 0);
    for (size_t i = 0; i < n; i++) {
        const char *why = push_value(L, json_array_get(json, i), level + 1);
        if (why) return why;
        if (lua_isnil(L, -1)) return "a list has a null in it";
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return NULL;
}

static const char *push_object(lua_State *L, json_t *json, unsigned level) {
    const char *name;
    json_t *member;
    lua_newtable(L);
    json_object_foreach(json, name, member) {
        lua_pushstring(L, name);
        const char *why = push_value(L, member, level + 1);
        if (why) return why;
        lua_rawset(L, -3);
    }
    return NULL;
}

static const char *push_value(lua_State *L, json_t *json, unsigned level) {
    if (level >= JSON_LEVELS) return "it is nested too deeply";
    luaL_checkstack(L, 4, NULL);
    switch (json_typeof(json)) {
    case JSON_OBJECT: return push_object(L, json, level);
    case JSON_ARRAY: return push_array(L, json, level);
    case JSON_STRING: lua_pushlstring(L, json_string_value(json), json_string_length(json)); break;
    case JSON_INTEGER: lua_pushinteger(L, json_integer_value(json)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(json)); break;
    case JSON_TRUE: lua_pushboolean(L, 1); break;
    case JSON_FALSE: lua_pushboolean(L, 0); break;
    case JSON_NULL: lua_pushnil(L); break;
    }
    return NULL;
}

const char *json_push_object(lua_State *L, struct slice text, char room[160]) {
    json_error_t error;
    int top = lua_gettop(L);
    budget_spend(L, text.n / BYTES_PER_STEP);
    struct json_box *box = box_new(L);
    box->json = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, &error);
    const char *why = room;
    if (json_is_object(box->json)) why = push_value(L, box->json, 0);
    else if (box->json) why = "it is a list, not an object";
    else snprintf(room, 160, "line %d, column %d: %.120s", error.line, error.column, error.text);
    box_empty(box);
    if (why) lua_settop(L, top);
    else lua_replace(L, top + 1);
    if (!why) lua_settop(L, top + 1);
    return why;
}

/* ---- Out of Lua: nothing here raises */

struct building {
    lua_State *L;
    unsigned members;
    const char *why;
};

static json_t *build(struct building *b, int index, unsigned level);

static json_t *fail(struct building *b, const char *why) {
    if (!b->why) b->why = why;
    return NULL;
}

static json_t *build_array(struct building *b, int index, lua_Integer n, unsigned level) {
    json_t *array = json_array();
    for (lua_Integer i = 1; i <= n && !b->why; i++) {
        lua_rawgeti(b->L, index, i);
        json_t *value = build(b, lua_gettop(b->L), level + 1);
        if (value) json_array_append_new(array, value);
        lua_pop(b->L, 1);
    }
    return array;
}

/* The pair on top. */
static void add_member(struct building *b, json_t *object, unsigned level) {
    size_t n;
    if (++b->members > MEMBERS_MAX) b->why = "it has too many members";
    if (lua_type(b->L, -2) != LUA_TSTRING) b->why = "the names of its members are strings";
    if (b->why) return;
    const char *name = lua_tolstring(b->L, -2, &n);
    json_t *value = build(b, lua_gettop(b->L), level + 1);
    if (!value) return;
    if (memchr(name, 0, n) || json_object_set_new(object, name, value) != 0) b->why = "a name in it is not UTF-8";
}

static json_t *build_table(struct building *b, int index, unsigned level) {
    lua_Integer n = (lua_Integer)lua_rawlen(b->L, index);
    if (level >= JSON_LEVELS || !lua_checkstack(b->L, 4)) return fail(b, "it is nested too deeply, or holds itself");
    if (n > MEMBERS_MAX) return fail(b, "it has too many members");
    if (n > 0) return build_array(b, index, n, level);
    json_t *object = json_object();
    lua_pushnil(b->L);
    while (!b->why && lua_next(b->L, index)) {
        add_member(b, object, level);
        lua_pop(b->L, 1);
    }
    return object;
}

static json_t *build_number(struct building *b, int index) {
    if (lua_isinteger(b->L, index)) return json_integer(lua_tointeger(b->L, index));
    double number = lua_tonumber(b->L, index);
    return isfinite(number) ? json_real(number) : fail(b, "a number in it is not finite");
}

static json_t *build_string(struct building *b, int index) {
    size_t n;
    const char *p = lua_tolstring(b->L, index, &n);
    json_t *string = memchr(p, 0, n) ? NULL : json_stringn(p, n);
    return string ? string : fail(b, "a string in it is not UTF-8, or has a NUL");
}

static json_t *build(struct building *b, int index, unsigned level) {
    switch (lua_type(b->L, index)) {
    case LUA_TTABLE: return build_table(b, index, level);
    case LUA_TSTRING: return build_string(b, index);
    case LUA_TNUMBER: return build_number(b, index);
    case LUA_TBOOLEAN: return json_boolean(lua_toboolean(b->L, index));
    default: return fail(b, "it holds what is no plain data");
    }
}

const char *json_push_text(lua_State *L, int index, int more) {
    struct building b = { .L = L };
    int top = lua_gettop(L);
    struct json_box *box = box_new(L);
    box->json = build(&b, index, 0);
    json_t *others = more && !b.why ? build(&b, more, 0) : NULL;
    if (!b.why && others) json_object_update(box->json, others);
    json_decref(others);
    lua_settop(L, top + 1);
    if (!b.why && !json_is_object(box->json)) b.why = "it is a list";
    if (!b.why && !(box->text = json_dumps(box->json, JSON_COMPACT | JSON_SORT_KEYS))) b.why = "it has no text";
    if (!b.why) {
        budget_spend(L, strlen(box->text) / BYTES_PER_STEP);
        lua_pushstring(L, box->text);
    }
    box_empty(box);
    if (!b.why) lua_replace(L, top + 1);
    lua_settop(L, b.why ? top : top + 1);
    return b.why;
}
