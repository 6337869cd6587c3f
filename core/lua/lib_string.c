/* The `string` library. find, match, gmatch, gsub stand on our own matcher (pattern.c), rep, sub, byte, lower, upper
 * and reverse are written again: all count what they do. format, pack, packsize and unpack are Lua's own behind a
 * check of their format, whose length bounds them. No single string exceeds half of a state's memory limit
 * (memory.c), which bounds the rest. */
#include "lua/pattern.h"
#include "lua/sandbox.h"

#include <ctype.h>
#include <lualib.h>
#include <string.h>

enum { FORMAT_MAX = 65536, PACK_FORMAT_MAX = 4096, PACK_SIZE_DIGITS = 8, QUOTED_MAX = 1 << 20, BLOCK = 65536 };

static struct slice check_slice(lua_State *L, int arg) {
    struct slice s;
    s.p = luaL_checklstring(L, arg, &s.n);
    return s;
}

/* ---- Positions: 1 is the first byte, -1 the last one */

/* 1 at least. */
static size_t from_position(lua_Integer at, size_t n) {
    if (at > 0) return (size_t)at;
    if (at == 0 || at < -(lua_Integer)n) return 1;
    return n + (size_t)at + 1;
}

/* n at most. */
static size_t to_position(lua_Integer at, size_t n) {
    if (at > (lua_Integer)n) return n;
    if (at >= 0) return (size_t)at;
    return at < -(lua_Integer)n ? 0 : n + (size_t)at + 1;
}

/* ---- Parts and copies */

static int string_len(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)check_slice(L, 1).n);
    return 1;
}

static int string_sub(lua_State *L) {
    struct slice s = check_slice(L, 1);
    size_t from = from_position(luaL_checkinteger(L, 2), s.n), to = to_position(luaL_optinteger(L, 3, -1), s.n);
    if (from > to) {
        lua_pushliteral(L, "");
        return 1;
    }
    budget_spend(L, 1 + (to - from) / 64);
    lua_pushlstring(L, s.p + from - 1, to - from + 1);
    return 1;
}

static int string_byte(lua_State *L) {
    struct slice s = check_slice(L, 1);
    lua_Integer at = luaL_optinteger(L, 2, 1);
    size_t from = from_position(at, s.n), to = to_position(luaL_optinteger(L, 3, at), s.n);
    if (from > to) return 0;
    budget_spend(L, to - from + 1);
    if (to - from >= LUAI_MAXSTACK) return luaL_error(L, "string slice too long");
    luaL_checkstack(L, (int)(to - from + 1), "string slice too long");
    for (size_t i = from; i <= to; i++) lua_pushinteger(L, (unsigned char)s.p[i - 1]);
    return (int)(to - from + 1);
}

/* Writes `to` from `s` in blocks, between which the budget is looked at. */
static int map_bytes(lua_State *L, void (*map)(char *to, const char *from, size_t n, size_t left)) {
    struct slice s = check_slice(L, 1);
    luaL_Buffer buffer;
    char *to = luaL_buffinitsize(L, &buffer, s.n);
    for (size_t at = 0; at < s.n; at += BLOCK) {
        size_t n = s.n - at < BLOCK ? s.n - at : BLOCK;
        budget_spend(L, n / 8);
        map(to + at, s.p + at, n, s.n - at);
    }
    luaL_pushresultsize(&buffer, s.n);
    return 1;
}

static void map_lower(char *to, const char *from, size_t n, size_t left) {
    (void)left;
    for (size_t i = 0; i < n; i++) to[i] = (char)tolower((unsigned char)from[i]);
}

static void map_upper(char *to, const char *from, size_t n, size_t left) {
    (void)left;
    for (size_t i = 0; i < n; i++) to[i] = (char)toupper((unsigned char)from[i]);
}

static int string_lower(lua_State *L) { return map_bytes(L, map_lower); }
static int string_upper(lua_State *L) { return map_bytes(L, map_upper); }

static int string_reverse(lua_State *L) {
    struct slice s = check_slice(L, 1);
    budget_spend(L, s.n / 8);
    luaL_Buffer buffer;
    char *to = luaL_buffinitsize(L, &buffer, s.n);
    for (size_t i = 0; i < s.n; i++) to[i] = s.p[s.n - 1 - i];
    luaL_pushresultsize(&buffer, s.n);
    return 1;
}

/* Fills `to` with `total` bytes, of which the first `unit` are written already and repeat. */
static void fill(lua_State *L, char *to, size_t unit, size_t total) {
    size_t most = unit < BLOCK * 16 ? BLOCK * 16 / unit * unit : unit;
    for (size_t n = unit; n < total;) {
        size_t more = n < most ? n : most;
        if (more > total - n) more = total - n;
        budget_spend(L, 1 + more / 64);
        memcpy(to + n, to, more);
        n += more;
    }
}

static int string_rep(lua_State *L) {
    struct slice s = check_slice(L, 1), separator = { "", 0 };
    lua_Integer times = luaL_checkinteger(L, 2);
    if (!lua_isnoneornil(L, 3)) separator = check_slice(L, 3);
    if (times <= 0 || s.n + separator.n == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    size_t unit = s.n + separator.n, limit = state_of(L)->memory.limit / 2;
    if (unit > limit || (lua_Unsigned)times > limit / unit + 1) return luaL_error(L, "resulting string too large");
    size_t total = unit * (size_t)times - separator.n;
    luaL_Buffer buffer;
    char *to = luaL_buffinitsize(L, &buffer, total + separator.n);
    memcpy(to, s.p, s.n);
    memcpy(to + s.n, separator.p, separator.n);
    fill(L, to, unit, total);
    luaL_pushresultsize(&buffer, total);
    return 1;
}

/* ---- Searching */

static int push_found(lua_State *L, const char *subject, const char *from, const char *to) {
    lua_pushinteger(L, from - subject + 1);
    lua_pushinteger(L, to - subject);
    return 2;
}

/* memmem is linear in the subject, whatever the needle. */
static int find_plain(lua_State *L, struct slice s, struct slice needle, size_t at) {
    budget_spend(L, 1 + (s.n - at) / 32);
    const char *found = needle.n ? memmem(s.p + at, s.n - at, needle.p, needle.n) : s.p + at;
    if (found) return push_found(L, s.p, found, found + needle.n);
    lua_pushnil(L);
    return 1;
}

static int find(lua_State *L, bool places) {
    struct slice s = check_slice(L, 1), pattern = check_slice(L, 2);
    size_t at = from_position(luaL_optinteger(L, 3, 1), s.n) - 1;
    if (at > s.n) {
        lua_pushnil(L);
        return 1;
    }
    if (places && (lua_toboolean(L, 4) || pattern_is_plain(pattern))) return find_plain(L, s, pattern, at);
    struct matching m;
    matching_init(&m, L, s, pattern, true);
    const char *from = s.p + at, *to = matching_search(&m, &from);
    if (!to) {
        lua_pushnil(L);
        return 1;
    }
    if (!places) return matching_push_all(&m, true, from, to);
    push_found(L, s.p, from, to);
    return 2 + matching_push_all(&m, false, from, to);
}

static int string_find(lua_State *L) { return find(L, true); }
static int string_match(lua_State *L) { return find(L, false); }

/* gmatch: upvalues are subject, pattern, where to go on, where the last match ended (0: none yet; an empty match
 * there does not count). */
static int next_match(lua_State *L) {
    struct slice s, pattern;
    s.p = lua_tolstring(L, lua_upvalueindex(1), &s.n);
    pattern.p = lua_tolstring(L, lua_upvalueindex(2), &pattern.n);
    size_t at = (size_t)lua_tointeger(L, lua_upvalueindex(3)), last = (size_t)lua_tointeger(L, lua_upvalueindex(4));
    struct matching m;
    matching_init(&m, L, s, pattern, false);
    for (const char *from = s.p + at; at <= s.n; from++, at = (size_t)(from - s.p)) {
        const char *to = matching_search(&m, &from);
        if (!to) break;
        size_t end = (size_t)(to - s.p) + 1;
        if (end == last) continue;
        lua_pushinteger(L, to - s.p);
        lua_replace(L, lua_upvalueindex(3));
        lua_pushinteger(L, (lua_Integer)end);
        lua_replace(L, lua_upvalueindex(4));
        return matching_push_all(&m, true, from, to);
    }
    lua_pushinteger(L, (lua_Integer)s.n + 1);
    lua_replace(L, lua_upvalueindex(3));
    return 0;
}

static int string_gmatch(lua_State *L) {
    struct slice s = check_slice(L, 1);
    check_slice(L, 2);
    size_t at = from_position(luaL_optinteger(L, 3, 1), s.n) - 1;
    lua_settop(L, 2);
    lua_pushinteger(L, (lua_Integer)(at > s.n ? s.n + 1 : at));
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, next_match, 4);
    return 1;
}

/* ---- gsub */

/* Appends the replacement text of argument 3, with %0 to %9 filled in. */
static void add_text(struct matching *m, luaL_Buffer *buffer, const char *from, const char *to) {
    lua_State *L = m->L;
    size_t n;
    const char *p = lua_tolstring(L, 3, &n), *end = p + n;
    for (const char *escape; (escape = memchr(p, '%', (size_t)(end - p))); p = escape + 2) {
        budget_spend(L, 1);
        luaL_addlstring(buffer, p, (size_t)(escape - p));
        char c = escape + 1 < end ? escape[1] : '\0';
        if (c == '%') luaL_addchar(buffer, '%');
        else if (c == '0') luaL_addlstring(buffer, from, (size_t)(to - from));
        else if (isdigit((unsigned char)c)) {
            matching_push(m, c - '1', from, to);
            luaL_addvalue(buffer);
        } else luaL_error(L, "invalid use of '%%' in replacement string");
    }
    luaL_addlstring(buffer, p, (size_t)(end - p));
}

/* Appends what stands for the match from..to. True if it was changed. */
static bool add_replacement(struct matching *m, luaL_Buffer *buffer, const char *from, const char *to) {
    lua_State *L = m->L;
    switch (lua_type(L, 3)) {
    case LUA_TFUNCTION:
        lua_pushvalue(L, 3);
        lua_call(L, matching_push_all(m, true, from, to), 1);
        break;
    case LUA_TTABLE:
        matching_push(m, 0, from, to);
        lua_gettable(L, 3);
        break;
    default: add_text(m, buffer, from, to); return true;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(buffer, from, (size_t)(to - from));
        return false;
    }
    if (!lua_isstring(L, -1)) luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(buffer);
    return true;
}

static void check_replacement(lua_State *L) {
    int type = lua_type(L, 3);
    luaL_argexpected(L, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE, 3,
                     "string/function/table");
    if (type == LUA_TNUMBER) lua_tostring(L, 3);
}

/* Replaces up to `max` matches; their number. */
static lua_Integer replace_matches(struct matching *m, luaL_Buffer *buffer, lua_Integer max, bool *changed) {
    const char *at = m->subject.p, *last = NULL;
    lua_Integer n = 0;
    while (n < max) {
        budget_spend(m->L, 1);
        const char *to = matching_at(m, at);
        if (to && to != last) {
            n++;
            if (add_replacement(m, buffer, at, to)) *changed = true;
            at = last = to;
        } else if (at < m->subject_end) luaL_addchar(buffer, *at++);
        else break;
        if (m->anchored) break;
    }
    luaL_addlstring(buffer, at, (size_t)(m->subject_end - at));
    return n;
}

static int string_gsub(lua_State *L) {
    struct slice s = check_slice(L, 1), pattern = check_slice(L, 2);
    check_replacement(L);
    lua_Integer max = luaL_optinteger(L, 4, (lua_Integer)s.n + 1);
    struct matching m;
    matching_init(&m, L, s, pattern, true);
    bool changed = false;
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    lua_Integer n = replace_matches(&m, &buffer, max, &changed);
    if (changed) luaL_pushresult(&buffer);
    else lua_pushvalue(L, 1);
    lua_pushinteger(L, n);
    return 2;
}

/* ---- Lua's own, behind a check. Upvalue 1 is the function. */

static int call_own(lua_State *L) { return lua_tocfunction(L, lua_upvalueindex(1))(L); }

static int string_format(lua_State *L) {
    struct slice format = check_slice(L, 1);
    luaL_argcheck(L, format.n <= FORMAT_MAX, 1, "format too long");
    budget_spend(L, 1 + format.n);
    if (memchr(format.p, 'q', format.n))
        for (int i = 2; i <= lua_gettop(L); i++)
            luaL_argcheck(L, lua_type(L, i) != LUA_TSTRING || lua_rawlen(L, i) <= QUOTED_MAX, i, "too long for '%q'");
    return call_own(L);
}

/* The sizes in a format are up to 8 digits: padding is bounded by memory then, and never by patience. */
static void check_pack_format(lua_State *L) {
    struct slice format = check_slice(L, 1);
    luaL_argcheck(L, format.n <= PACK_FORMAT_MAX, 1, "format too long");
    budget_spend(L, 1 + format.n);
    for (size_t i = 0, digits = 0; i < format.n; i++) {
        digits = isdigit((unsigned char)format.p[i]) ? digits + 1 : 0;
        luaL_argcheck(L, digits <= PACK_SIZE_DIGITS, 1, "size too large");
    }
}

static int string_pack(lua_State *L) {
    check_pack_format(L);
    for (int i = 2; i <= lua_gettop(L); i++)
        if (lua_type(L, i) == LUA_TSTRING) budget_spend(L, lua_rawlen(L, i) / 64);
    return call_own(L);
}

static int string_unpack(lua_State *L) {
    check_pack_format(L);
    return call_own(L);
}

static void guard(lua_State *L, const char *name, lua_CFunction guarded) {
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, guarded, 1);
    lua_setfield(L, -2, name);
}

/* luaopen_string has set the metatable of strings, with the arithmetic that turns "10" + 1 into 11. */
static void hide_metatable(lua_State *L) {
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}

int lib_string_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        { "byte", string_byte },       { "find", string_find },   { "gmatch", string_gmatch }, { "gsub", string_gsub },
        { "len", string_len },         { "lower", string_lower }, { "match", string_match },   { "rep", string_rep },
        { "reverse", string_reverse }, { "sub", string_sub },     { "upper", string_upper },   { NULL, NULL },
    };
    luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 0);
    luaL_setfuncs(L, functions, 0);
    guard(L, "format", string_format);
    guard(L, "pack", string_pack);
    guard(L, "packsize", string_unpack);
    guard(L, "unpack", string_unpack);
    lua_pushnil(L);
    lua_setfield(L, -2, "dump");
    hide_metatable(L);
    return 1;
}
