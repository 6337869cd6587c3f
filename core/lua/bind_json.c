/* gate.json: JSON for scripts (RFC 8259).
 *
 * Decoding is jansson's parser, whose tree is walked into tables: 64-bit integers stay integers, errors have a line and
 * a column. The tree takes 1.2 of the 1.7 ms that 56 KB of small objects cost (measured); it buys a parser that others
 * have attacked for fifteen years. A text of brackets is worth a hundred times its size in nodes, so what it may come
 * to is estimated first, and bounded. (jansson's own allocator hooks are no way to count: they are the whole
 * process's.) The tree belongs to a userdata before anything can raise.
 *
 * Encoding writes directly. Through jansson, each value would be allocated twice, and a float be written with 17
 * digits, 0.1 as 0.10000000000000001; here it gets the fewest of 15 to 17 digits that read back as the same.
 *
 * Which table is an array? One that gate.json.array has marked, as decode marks all it makes, so that [] stays []; else
 * one with a value at 1. Every other is an object, the empty one included. */
#include "lua/bind.h"

#include "base/must.h"
#include "lua/sandbox.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    TEXT_MAX = 8 << 20,
    TREE_MAX = 64 << 20, /* bytes of nodes for one text */
    DEPTH_DEFAULT = 64,
    DEPTH_MAX = 128,
    INDENT_MAX = 8,
    NUMBER_TEXT = 40,
    PATH_TEXT = 256
};

/* Registry keys. */
static const char ARRAY; /* the metatable of arrays */
/* What gate.json.null is: a light userdata, equal to itself in every state. */
static const char NULL_VALUE;

/* ---- a tree on its way to Lua */

struct tree {
    struct handle handle;
    json_t *root;
};

static void tree_collect(void *pointer) {
    struct tree *t = pointer;
    json_decref(t->root);
    t->root = NULL;
}

static const struct handle_kind kind = { .name = "moongate.json_tree", .collect = tree_collect };

static void mark_array(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ARRAY);
    lua_setmetatable(L, -2);
}

static void push_tree(lua_State *L, json_t *value);

static void push_array(lua_State *L, json_t *array) {
    size_t n = json_array_size(array);
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        push_tree(L, json_array_get(array, i));
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    mark_array(L);
}

static void push_object(lua_State *L, json_t *object) {
    const char *key;
    size_t key_size;
    json_t *value;
    lua_createtable(L, 0, (int)json_object_size(object));
    json_object_keylen_foreach(object, key, key_size, value) {
        lua_pushlstring(L, key, key_size);
        push_tree(L, value);
        lua_rawset(L, -3);
    }
}

static void push_tree(lua_State *L, json_t *value) {
    budget_spend(L, 4);
    luaL_checkstack(L, 4, "gate.json.decode");
    switch (json_typeof(value)) {
    case JSON_OBJECT: push_object(L, value); break;
    case JSON_ARRAY: push_array(L, value); break;
    case JSON_STRING: lua_pushlstring(L, json_string_value(value), json_string_length(value)); break;
    case JSON_INTEGER: lua_pushinteger(L, json_integer_value(value)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(value)); break;
    case JSON_TRUE: lua_pushboolean(L, 1); break;
    case JSON_FALSE: lua_pushboolean(L, 0); break;
    case JSON_NULL: lua_pushlightuserdata(L, (void *)(uintptr_t)&NULL_VALUE); break;
    }
}

/* ---- decode */

/* What a text may come to, found before anything is allocated for it. It need not be JSON. */
struct estimate {
    int depth;
    size_t tree; /* bytes of nodes, by what jansson takes for each at most */
};

enum { BYTES_PER_BRACKET = 256, BYTES_PER_COMMA = 128 };

static struct estimate estimate(struct slice s) {
    struct estimate e = { 0, s.n };
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (quoted) {
            if (c == '\\') i++;
            else if (c == '"') quoted = false;
        } else if (c == '"') quoted = true;
        else if (c == '[' || c == '{') {
            if (++depth > e.depth) e.depth = depth;
            e.tree += BYTES_PER_BRACKET;
        } else if (c == ']' || c == '}') depth--;
        else if (c == ',') e.tree += BYTES_PER_COMMA;
    }
    return e;
}

static int depth_option(lua_State *L) {
    static const char *const names[] = { "max_depth", NULL };
    options_check(L, 2, "gate.json.decode", names);
    if (option_push(L, 2, "max_depth") == LUA_TNIL) return DEPTH_DEFAULT;
    int whole;
    lua_Integer depth = lua_tointegerx(L, -1, &whole);
    if (lua_type(L, -1) != LUA_TNUMBER || !whole || depth < 1 || depth > DEPTH_MAX)
        luaL_error(L, "gate.json.decode: max_depth is a whole number from 1 to %d", DEPTH_MAX);
    return (int)depth;
}

static int json_decode(lua_State *L) {
    lua_settop(L, 2);
    if (lua_type(L, 1) != LUA_TSTRING) return luaL_typeerror(L, 1, "string");
    struct slice s = text_check(L, 1);
    int depth = depth_option(L);
    if (s.n > TEXT_MAX) return fail_world_with(L, "bad_json", "the text is longer than %d MiB", TEXT_MAX >> 20);
    budget_spend(L, 1 + s.n / 2);
    struct estimate e = estimate(s);
    if (e.depth > depth) return fail_world_with(L, "bad_json", "deeper than %d levels", depth);
    if (e.tree > TREE_MAX) return fail_world_with(L, "bad_json", "the text has too many values");
    json_error_t why;
    struct tree *t = object_new(L, &kind, sizeof *t, 0);
    t->root = json_loadb(s.p, s.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (!t->root) return fail_world_with(L, "bad_json", "line %d, column %d: %s", why.line, why.column, why.text);
    push_tree(L, t->root);
    tree_collect(t);
    return 1;
}

/* ---- encode: a text that grows, and where in the value it is */

struct text {
    struct handle handle;
    char *p;
    size_t n, room;
};

static void text_collect(void *pointer) {
    struct text *t = pointer;
    free(t->p);
    t->p = NULL;
}

static const struct handle_kind text_kind = { .name = "moongate.json_text", .collect = text_collect };

struct writing {
    struct text *text;
    bool sort;
    int indent, depth;
    struct level {
        const void *table; /* for cycles */
        const char *key;   /* NULL: index; it is kept by its table */
        lua_Integer index;
    } levels[DEPTH_MAX];
};

/* "value.users[3].name" */
static const char *push_path(lua_State *L, const struct writing *w) {
    char path[PATH_TEXT] = "value";
    size_t n = strlen(path);
    for (int i = 0; i < w->depth && n < sizeof path; i++) {
        const char *key = w->levels[i].key;
        int more = key ? snprintf(path + n, sizeof path - n, ".%s", key)
                       : snprintf(path + n, sizeof path - n, "[%lld]", (long long)w->levels[i].index);
        n += (size_t)more;
    }
    return lua_pushstring(L, path);
}

static int raise_at(lua_State *L, const struct writing *w, const char *what) {
    const char *path = push_path(L, w);
    return luaL_error(L, "gate.json.encode: %s: %s", path, what);
}

static char *make_room(lua_State *L, struct writing *w, size_t n) {
    struct text *t = w->text;
    if (t->n + n > t->room) {
        if (n > TEXT_MAX || t->n > TEXT_MAX - n)
            luaL_error(L, "gate.json.encode: the text is longer than %d MiB", TEXT_MAX >> 20);
        t->room = (t->n + n) * 2;
        t->p = must_realloc(t->p, t->room);
    }
    return t->p + t->n;
}

static void put(lua_State *L, struct writing *w, const char *bytes, size_t n) {
    memcpy(make_room(L, w, n), bytes, n);
    w->text->n += n;
}

static void put_line(lua_State *L, struct writing *w, int depth) {
    if (w->indent < 0) return;
    size_t n = (size_t)(depth * w->indent) + 1;
    char *to = make_room(L, w, n);
    memset(to, ' ', n);
    *to = '\n';
    w->text->n += n;
}

/* ---- strings */

/* Bytes of the UTF-8 sequence at p; 0: it is none. */
static size_t measure_rune(const unsigned char *p, size_t n) {
    unsigned c = *p;
    size_t size = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (size == 0 || size > n) return 0;
    for (size_t i = 1; i < size; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    bool overlong = (c == 0xe0 && p[1] < 0xa0) || (c == 0xf0 && p[1] < 0x90);
    bool outside = (c == 0xed && p[1] > 0x9f) || (c == 0xf4 && p[1] > 0x8f);
    return overlong || outside ? 0 : size;
}

/* Escapes one byte that cannot stand in a string; how many bytes that takes. */
static size_t escape(char to[6], unsigned char c) {
    static const char names[] = "\"\"\\\\\bb\ff\nn\rr\tt", digits[] = "0123456789abcdef";
    to[0] = '\\';
    for (const char *p = names; *p; p += 2) {
        if ((unsigned char)*p != c) continue;
        to[1] = p[1];
        return 2;
    }
    memcpy(to + 1, "u00", 3);
    to[4] = digits[c >> 4];
    to[5] = digits[c & 15];
    return 6;
}

/* Returns the place of the byte that is no UTF-8, or s.n. */
static size_t put_text(lua_State *L, struct writing *w, struct slice s) {
    const unsigned char *p = (const unsigned char *)s.p;
    size_t i = 0;
    budget_spend(L, 1 + s.n / 4);
    put(L, w, "\"", 1);
    while (i < s.n) {
        size_t plain = i;
        while (plain < s.n && p[plain] >= ' ' && p[plain] < 0x80 && p[plain] != '"' && p[plain] != '\\') plain++;
        put(L, w, s.p + i, plain - i);
        if ((i = plain) == s.n) break;
        size_t rune = p[i] >= 0x80 ? measure_rune(p + i, s.n - i) : 1;
        if (rune == 0) return i;
        if (rune > 1) put(L, w, s.p + i, rune);
        else w->text->n += escape(make_room(L, w, 6), p[i]);
        i += rune;
    }
    put(L, w, "\"", 1);
    return i;
}

/* ---- values: the one on top of the stack, which stays there. False: a string is no UTF-8, and why is pushed. */

static bool put_value(lua_State *L, struct writing *w);

static bool put_string(lua_State *L, struct writing *w, struct slice s, const char *what) {
    size_t bad = put_text(L, w, s);
    if (bad == s.n) return true;
    const char *path = push_path(L, w);
    lua_pushfstring(L, "%s: the %s is not UTF-8 at byte %d", path, what, (int)bad + 1);
    return false;
}

static void put_number(lua_State *L, struct writing *w) {
    char *to = make_room(L, w, NUMBER_TEXT);
    int n = 0;
    if (lua_isinteger(L, -1)) n = snprintf(to, NUMBER_TEXT, "%lld", (long long)lua_tointeger(L, -1));
    else {
        double number = lua_tonumber(L, -1);
        if (!isfinite(number)) raise_at(L, w, "JSON has no infinity and no NaN");
        for (int digits = 15; digits <= 17; digits++) {
            n = snprintf(to, NUMBER_TEXT, "%.*g", digits, number);
            if (strtod(to, NULL) == number) break;
        }
        /* So that it is read as a float again. */
        if (strspn(to, "-0123456789") == (size_t)n) n += snprintf(to + n, NUMBER_TEXT - (size_t)n, ".0");
    }
    w->text->n += (size_t)n;
}

static void enter(lua_State *L, struct writing *w) {
    const void *table = lua_topointer(L, -1);
    for (int i = 0; i < w->depth; i++)
        if (w->levels[i].table == table) raise_at(L, w, "the table contains itself");
    if (w->depth == DEPTH_MAX) luaL_error(L, "gate.json.encode: deeper than %d levels", DEPTH_MAX);
    luaL_checkstack(L, 6, "gate.json.encode");
    w->levels[w->depth++].table = table;
}

static bool put_array(lua_State *L, struct writing *w, lua_Integer n) {
    put(L, w, "[", 1);
    for (lua_Integer i = 1; i <= n; i++) {
        w->levels[w->depth - 1].key = NULL;
        w->levels[w->depth - 1].index = i;
        if (i > 1) put(L, w, ",", 1);
        put_line(L, w, w->depth);
        lua_rawgeti(L, -1, i);
        if (!put_value(L, w)) return false;
        lua_pop(L, 1);
    }
    if (n) put_line(L, w, w->depth - 1);
    put(L, w, "]", 1);
    return true;
}

static void check_key(lua_State *L, struct writing *w, int at) {
    if (lua_type(L, at) == LUA_TSTRING) return;
    const char *type = luaL_typename(L, at);
    w->depth--; /* the path of the table itself */
    raise_at(L, w, lua_pushfstring(L, "a table with a %s among its keys is neither an array nor an object", type));
}

/* Key and value on top; both stay. */
static bool put_pair(lua_State *L, struct writing *w, bool first) {
    struct slice key;
    check_key(L, w, -2);
    key.p = lua_tolstring(L, -2, &key.n);
    w->levels[w->depth - 1].key = key.p;
    if (!first) put(L, w, ",", 1);
    put_line(L, w, w->depth);
    if (!put_string(L, w, key, "key")) return false;
    put(L, w, ": ", w->indent < 0 ? 1 : 2);
    return put_value(L, w);
}

static bool put_unsorted(lua_State *L, struct writing *w) {
    bool first = true;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (!put_pair(L, w, first)) return false;
        first = false;
    }
    return true;
}

static int compare_keys(const void *a, const void *b) {
    const struct slice *x = a, *y = b;
    int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* The keys of the table on top, in a userdata that is pushed; they are kept by the table. */
static struct slice *push_keys(lua_State *L, struct writing *w, size_t *count) {
    size_t n = 0;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), n++) check_key(L, w, -2);
    struct slice *keys = lua_newuserdatauv(L, (n + 1) * sizeof *keys, 0);
    *count = 0;
    for (lua_pushnil(L); *count < n && lua_next(L, -3); lua_pop(L, 1), ++*count)
        keys[*count].p = lua_tolstring(L, -2, &keys[*count].n);
    lua_pop(L, 1);
    return keys;
}

static bool put_sorted(lua_State *L, struct writing *w) {
    size_t count;
    int table = lua_gettop(L);
    struct slice *keys = push_keys(L, w, &count);
    budget_spend(L, count * 8);
    qsort(keys, count, sizeof *keys, compare_keys);
    for (size_t i = 0; i < count; i++) {
        lua_pushlstring(L, keys[i].p, keys[i].n);
        lua_pushvalue(L, -1);
        lua_rawget(L, table);
        if (!put_pair(L, w, i == 0)) return false;
        lua_pop(L, 2);
    }
    lua_settop(L, table);
    return true;
}

static bool put_object(lua_State *L, struct writing *w) {
    size_t before = w->text->n;
    put(L, w, "{", 1);
    if (!(w->sort ? put_sorted(L, w) : put_unsorted(L, w))) return false;
    if (w->text->n > before + 1) put_line(L, w, w->depth - 1);
    put(L, w, "}", 1);
    return true;
}

static bool is_marked(lua_State *L) {
    if (!lua_getmetatable(L, -1)) return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ARRAY);
    bool marked = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return marked;
}

/* Are 1 to n all the keys there are? */
static bool is_sequence(lua_State *L, lua_Integer n) {
    lua_Integer count = 0;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), count++) {
        lua_Integer key = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
        if (key >= 1 && key <= n) continue;
        lua_pop(L, 2);
        return false;
    }
    budget_spend(L, (size_t)count);
    return count == n;
}

static bool put_table(lua_State *L, struct writing *w) {
    bool array = is_marked(L);
    if (!array) {
        array = lua_rawgeti(L, -1, 1) != LUA_TNIL;
        lua_pop(L, 1);
    }
    lua_Integer n = array ? (lua_Integer)lua_rawlen(L, -1) : 0;
    if (array && !is_sequence(L, n)) raise_at(L, w, "an array with holes, or with other keys than 1 to its length");
    enter(L, w);
    bool ok = array ? put_array(L, w, n) : put_object(L, w);
    w->depth--;
    return ok;
}

static bool put_value(lua_State *L, struct writing *w) {
    budget_spend(L, 4);
    switch (lua_type(L, -1)) {
    case LUA_TNIL: put(L, w, "null", 4); return true;
    case LUA_TBOOLEAN: put(L, w, lua_toboolean(L, -1) ? "true" : "false", lua_toboolean(L, -1) ? 4 : 5); return true;
    case LUA_TNUMBER: put_number(L, w); return true;
    case LUA_TSTRING: return put_string(L, w, text_check(L, lua_gettop(L)), "string");
    case LUA_TTABLE: return put_table(L, w);
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, -1) == &NULL_VALUE) {
            put(L, w, "null", 4);
            return true;
        }
        break;
    default: break;
    }
    raise_at(L, w, lua_pushfstring(L, "JSON has no %s", luaL_typename(L, -1)));
    return false;
}

static void read_options(lua_State *L, int *indent, bool *sort) {
    static const char *const names[] = { "indent", "sort_keys", NULL };
    int whole = 1;
    options_check(L, 2, "gate.json.encode", names);
    *indent = -1;
    if (option_push(L, 2, "indent") != LUA_TNIL) {
        lua_Integer n = lua_tointegerx(L, -1, &whole);
        if (lua_type(L, -1) != LUA_TNUMBER || !whole || n < 0 || n > INDENT_MAX)
            luaL_error(L, "gate.json.encode: indent is a whole number from 0 to %d", INDENT_MAX);
        *indent = (int)n;
    }
    int type = option_push(L, 2, "sort_keys");
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "gate.json.encode: sort_keys is true or false");
    *sort = lua_toboolean(L, -1);
}

static int json_encode(lua_State *L) {
    struct writing w;
    luaL_checkany(L, 1);
    lua_settop(L, 2);
    read_options(L, &w.indent, &w.sort);
    w.depth = 0;
    w.text = object_new(L, &text_kind, sizeof *w.text, 0);
    lua_pushvalue(L, 1);
    bool ok = put_value(L, &w);
    if (ok) lua_pushlstring(L, w.text->p, w.text->n);
    else {
        lua_pushnil(L);
        lua_insert(L, -2);
        lua_pushliteral(L, "bad_json");
        lua_insert(L, -2);
    }
    text_collect(w.text);
    return ok ? 1 : 3;
}

/* ---- marks */

static int json_array_mark(lua_State *L) {
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (lua_getmetatable(L, 1)) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &ARRAY);
        if (!lua_rawequal(L, -1, -2)) return luaL_argerror(L, 1, "the table has a metatable already");
        lua_settop(L, 1);
        return 1;
    }
    mark_array(L);
    return 1;
}

static void make_mark(lua_State *L) {
    lua_createtable(L, 0, 2);
    lua_pushliteral(L, "json array");
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &ARRAY);
}

void bind_json_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "encode", json_encode }, { "decode", json_decode }, { "array", json_array_mark }, { NULL, NULL }
    };
    object_kind_open(L, &kind, NULL, NULL, NULL);
    object_kind_open(L, &text_kind, NULL, NULL, NULL);
    make_mark(L);
    luaL_newlib(L, functions);
    lua_pushlightuserdata(L, (void *)(uintptr_t)&NULL_VALUE);
    lua_setfield(L, -2, "null");
    front_make(L, "gate.json");
    lua_setfield(L, -2, "json");
}
