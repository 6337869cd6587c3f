/* `req.args`: the arguments of the query, decoded ("%41", "+").
 *
 *     req.args.page               the first value of that name; "" for "?page"; nil
 *     req.args:all "tag"          a list
 *     req.args.page = 2           one argument, in the place of the first; nil removes
 *     for name, value in pairs(req.args)
 *
 * There is no table of arguments: the query is read each time, which for queries of ordinary length costs less than
 * to build one. Assigning writes the query of the forwarded request anew; arguments that are not named stay byte for
 * byte as they came. An argument called `all` is reached by req.args:all "all". */
#include "lua/bind.h"

#include "http/grammar.h"
#include "http/uri.h"

static const struct handle_kind kind = { .name = "moongate.args" };

static struct view *args_self(lua_State *L) { return object_self(L, 1, &kind); }

static struct slice query_of(const struct view *v) { return v->exchange->request.target.query; }

/* ---- decoding, into Lua's memory */

static bool is_plain(struct slice s) { return !s.n || (!memchr(s.p, '%', s.n) && !memchr(s.p, '+', s.n)); }

static bool is_escape(struct slice s) {
    return s.n >= 3 && s.p[0] == '%' && byte_is(s.p[1], BYTE_HEX) && byte_is(s.p[2], BYTE_HEX);
}

/* The next byte of what `s` spells; moves on. */
static char take_byte(struct slice *s) {
    char c = s->p[0];
    size_t n = 1;
    if (is_escape(*s)) {
        c = (char)(hex_value(s->p[1]) << 4 | hex_value(s->p[2]));
        n = 3;
    } else if (c == '+') {
        c = ' ';
    }
    *s = slice_skip(*s, n);
    return c;
}

static void push_decoded(lua_State *L, struct slice s) {
    if (is_plain(s)) {
        lua_pushlstring(L, s.n ? s.p : "", s.n);
        return;
    }
    luaL_Buffer b;
    char *at = luaL_buffinitsize(L, &b, s.n);
    size_t n = 0;
    while (s.n) at[n++] = take_byte(&s);
    luaL_pushresultsize(&b, n);
}

static bool spells(struct slice raw, struct slice name) {
    if (is_plain(raw)) return slice_equal(raw, name);
    while (raw.n && name.n) {
        if (take_byte(&raw) != name.p[0]) return false;
        name = slice_skip(name, 1);
    }
    return raw.n == 0 && name.n == 0;
}

/* The next argument of that name. */
static bool find_next(struct slice *rest, struct slice name, struct slice *value) {
    struct slice raw;
    while (query_next(rest, &raw, value))
        if (spells(raw, name)) return true;
    return false;
}

/* ---- reading */

static struct slice name_check(lua_State *L) {
    if (lua_type(L, 2) != LUA_TSTRING)
        luaL_error(L, "the name of an argument is a string, not a %s", luaL_typename(L, 2));
    return text_check(L, 2);
}

static int args_index(lua_State *L) {
    struct view *v = args_self(L);
    struct slice rest = query_of(v), name = name_check(L), value;
    if (slice_equal(name, SLICE("all"))) {
        lua_pushvalue(L, 2);
        lua_rawget(L, lua_upvalueindex(UPVALUE_NAMES));
        return 1;
    }
    if (!find_next(&rest, name, &value)) return 0;
    push_decoded(L, value);
    return 1;
}

static int args_all(lua_State *L) {
    struct view *v = args_self(L);
    struct slice rest = query_of(v), name = name_check(L), value;
    lua_newtable(L);
    for (lua_Integer i = 1; find_next(&rest, name, &value); i++) {
        push_decoded(L, value);
        lua_rawseti(L, -2, i);
    }
    return 1;
}

/* Upvalues: the query as it was, the place in it. A script may change the query meanwhile. */
static int args_next(lua_State *L) {
    size_t n;
    const char *p = lua_tolstring(L, lua_upvalueindex(1), &n);
    size_t at = (size_t)lua_tointeger(L, lua_upvalueindex(2));
    if (at >= n) return 0;
    struct slice rest = { p + at, n - at }, name, value;
    if (!query_next(&rest, &name, &value)) return 0;
    lua_pushinteger(L, rest.p ? (lua_Integer)(rest.p - p) : (lua_Integer)n);
    lua_replace(L, lua_upvalueindex(2));
    push_decoded(L, name);
    push_decoded(L, value);
    return 2;
}

static int args_pairs(lua_State *L) {
    struct slice query = query_of(args_self(L));
    lua_pushlstring(L, query.p ? query.p : "", query.n);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, args_next, 2);
    return 1;
}

/* ---- writing */

static char *put(char *at, struct slice s) {
    if (s.n) memcpy(at, s.p, s.n);
    return at + s.n;
}

static char *put_pair(char *at, const char *start, struct slice name, struct slice value) {
    if (at != start) *at++ = '&';
    at = put(at, name);
    if (!value.p) return at;
    *at++ = '=';
    return put(at, value);
}

/* The query with `name` set to `value` (p NULL: without it). */
static void rewrite(lua_State *L, struct view *v, struct slice name, struct slice value) {
    struct arena *arena = &v->exchange->arena;
    struct slice rest = query_of(v), raw_name, raw_value;
    view_charge(L, v, rest.n + 3 * (name.n + value.n) + 2);
    struct slice new_name = percent_encode(arena, name, NULL), new_value = percent_encode(arena, value, NULL);
    char *start = arena_bytes(arena, rest.n + new_name.n + new_value.n + 3), *at = start;
    bool placed = value.p == NULL;
    while (query_next(&rest, &raw_name, &raw_value)) {
        bool same = spells(raw_name, name);
        if (!same) at = put_pair(at, start, raw_name, raw_value);
        else if (!placed) at = put_pair(at, start, new_name, new_value);
        placed = placed || same;
    }
    if (!placed) at = put_pair(at, start, new_name, new_value);
    struct slice query = at == start ? slice_make(NULL, 0) : slice_make(start, (size_t)(at - start));
    v->exchange->request.target.query = query;
    v->exchange->target_changed = true;
}

static int args_newindex(lua_State *L) {
    struct view *v = args_self(L);
    struct slice name = name_check(L), value = { NULL, 0 };
    int type = lua_type(L, 3);
    view_check_request(L, v);
    if (type != LUA_TNIL && type != LUA_TSTRING && type != LUA_TNUMBER)
        return luaL_error(L, "the value of argument '%s' is a string or a number, not a %s", name.p,
                          luaL_typename(L, 3));
    if (!name.n) return luaL_error(L, "the name of an argument is not empty");
    if (type != LUA_TNIL) value = text_check(L, 3);
    rewrite(L, v, name, value);
    return 0;
}

/* ---- open */

void args_push(lua_State *L, struct view *v) { handle_push_part(L, &v->exchange->subject, HANDLE_ARGS, &kind, v); }

static const luaL_Reg metamethods[] = {
    { "__index", args_index },
    { "__newindex", args_newindex },
    { "__pairs", args_pairs },
    { NULL, NULL },
};
static const luaL_Reg methods[] = { { "all", args_all }, { NULL, NULL } };

void bind_args_open(lua_State *L) { object_kind_open(L, &kind, NULL, metamethods, methods); }
