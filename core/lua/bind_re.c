/* gate.re: Perl's regular expressions, by PCRE2, for patterns that Lua's cannot say. Why none of them can hang, and
 * what that costs, stands in regex.c; here are the methods that scripts see. */
#include "lua/re_inside.h"

enum { PATTERN_MAX = 8192 };

static int gate_re(lua_State *L) {
    string_check(L, 1, PATTERN_MAX);
    uint32_t options = regex_options(L, luaL_optstring(L, 2, ""));
    lua_settop(L, 2);
    regex_push(L, options);
    return 1;
}

/* ---- one match */

/* As in string.find: from 1, negative from the end. False: behind the end. */
static bool init_opt(lua_State *L, struct slice s, size_t *at) {
    lua_Integer init = luaL_optinteger(L, 3, 1);
    if (init < 0) init = init < -(lua_Integer)s.n ? 1 : (lua_Integer)s.n + init + 1;
    if (init == 0) init = 1;
    *at = (size_t)init - 1;
    return *at <= s.n;
}

static int re_test(lua_State *L) {
    struct regex *r = regex_self(L);
    lua_pushboolean(L, regex_match(L, r, regex_subject(L), 0, 0));
    return 1;
}

/* Is there a match from `init` on? */
static bool match_from_init(lua_State *L, struct regex *r, struct slice s) {
    size_t at;
    return init_opt(L, s, &at) && regex_match(L, r, s, at, 0);
}

static int re_match(lua_State *L) {
    struct regex *r = regex_self(L);
    struct slice s = regex_subject(L);
    if (match_from_init(L, r, s)) return regex_push_groups(L, r, s, true);
    lua_pushnil(L);
    return 1;
}

static int re_find(lua_State *L) {
    struct regex *r = regex_self(L);
    struct slice s = regex_subject(L);
    if (!match_from_init(L, r, s)) {
        lua_pushnil(L);
        return 1;
    }
    const PCRE2_SIZE *places = pcre2_get_ovector_pointer(r->match);
    lua_pushinteger(L, (lua_Integer)places[0] + 1);
    lua_pushinteger(L, (lua_Integer)places[1]);
    return 2 + regex_push_groups(L, r, s, false);
}

static void push_named(lua_State *L, const struct regex *r, struct slice s) {
    struct names names = regex_names(r);
    lua_createtable(L, 0, (int)names.count);
    for (uint32_t i = 0; i < names.count; i++) {
        PCRE2_SPTR entry = names.first + (size_t)i * names.size;
        regex_push_group(L, r, s, (uint32_t)entry[0] << 8 | entry[1]);
        lua_setfield(L, -2, (const char *)entry + 2);
    }
}

static int re_exec(lua_State *L) {
    struct regex *r = regex_self(L);
    struct slice s = regex_subject(L);
    if (!match_from_init(L, r, s)) {
        lua_pushnil(L);
        return 1;
    }
    const PCRE2_SIZE *places = pcre2_get_ovector_pointer(r->match);
    lua_createtable(L, 0, 5);
    lua_pushinteger(L, (lua_Integer)places[0] + 1);
    lua_setfield(L, -2, "from");
    lua_pushinteger(L, (lua_Integer)places[1]);
    lua_setfield(L, -2, "to");
    regex_push_group(L, r, s, 0);
    lua_setfield(L, -2, "text");
    lua_createtable(L, (int)r->groups, 0);
    for (uint32_t i = 1; i <= r->groups; i++) {
        regex_push_group(L, r, s, i);
        lua_rawseti(L, -2, i);
    }
    lua_setfield(L, -2, "groups");
    push_named(L, r, s);
    lua_setfield(L, -2, "names");
    return 1;
}

/* ---- one match after another */

/* The next character's bytes. */
static size_t step_of(const struct scan *scan) {
    size_t n = 1;
    while (scan->r->utf && scan->at + n < scan->s.n && ((unsigned char)scan->s.p[scan->at + n] & 0xc0) == 0x80) n++;
    return n;
}

/* After an empty match something else is sought in the same place, then one character further. */
bool scan_next(lua_State *L, struct scan *scan) {
    bool found = false;
    while (!found && scan->at <= scan->s.n) {
        uint32_t options = scan->empty ? PCRE2_NOTEMPTY_ATSTART | PCRE2_ANCHORED : 0;
        found = regex_match(L, scan->r, scan->s, scan->at, options);
        if (!found && !scan->empty) return false;
        if (!found) scan->at += step_of(scan);
        scan->empty = false;
    }
    if (!found) return false;
    const PCRE2_SIZE *places = pcre2_get_ovector_pointer(scan->r->match);
    scan->to = places[1] > scan->at ? places[1] : scan->at;
    scan->from = places[0] < scan->to ? places[0] : scan->to;
    if (scan->from < scan->at) scan->from = scan->at; /* "\K" in a lookbehind */
    scan->empty = scan->to == scan->from;
    scan->at = scan->to;
    return true;
}

/* Upvalues: the regex, the subject, the place, whether the last match was empty. */
static int gmatch_next(lua_State *L) {
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, lua_upvalueindex(2));
    struct scan scan = { .r = regex_self(L),
                         .s = text_check(L, 2),
                         .at = (size_t)lua_tointeger(L, lua_upvalueindex(3)),
                         .empty = lua_toboolean(L, lua_upvalueindex(4)) };
    bool found = scan.at <= scan.s.n && scan_next(L, &scan);
    lua_pushinteger(L, found ? (lua_Integer)scan.at : (lua_Integer)scan.s.n + 1);
    lua_replace(L, lua_upvalueindex(3));
    lua_pushboolean(L, scan.empty);
    lua_replace(L, lua_upvalueindex(4));
    if (found) return regex_push_groups(L, scan.r, scan.s, true);
    lua_pushnil(L);
    return 1;
}

static int re_gmatch(lua_State *L) {
    regex_self(L);
    regex_subject(L);
    lua_settop(L, 2);
    lua_pushinteger(L, 0);
    lua_pushboolean(L, 0);
    lua_pushcclosure(L, gmatch_next, 4);
    return 1;
}

lua_Integer regex_max_opt(lua_State *L, int arg) {
    lua_Integer max = luaL_optinteger(L, arg, LUA_MAXINTEGER);
    if (max < 0) luaL_argerror(L, arg, "not negative");
    return max;
}

static int re_split(lua_State *L) {
    struct scan scan = { .r = regex_self(L), .s = regex_subject(L) };
    lua_Integer max = regex_max_opt(L, 3), n = 0;
    if (max == 0) return luaL_argerror(L, 3, "at least 1 expected");
    size_t behind = 0;
    lua_settop(L, 2);
    lua_newtable(L);
    while (n + 1 < max && scan_next(L, &scan)) {
        /* An empty match at either end would only give an empty piece. */
        if (scan.empty && (scan.from == 0 || scan.from == scan.s.n)) continue;
        lua_pushlstring(L, scan.s.p + behind, scan.from - behind);
        lua_rawseti(L, 3, ++n);
        behind = scan.to;
    }
    lua_pushlstring(L, scan.s.p + behind, scan.s.n - behind);
    lua_rawseti(L, 3, ++n);
    return 1;
}

/* ---- open */

static void get_pattern(lua_State *L, void *regex) {
    (void)regex;
    lua_getiuservalue(L, 1, 1);
}

static const struct field fields[] = { { "pattern", get_pattern, NULL }, { NULL, NULL, NULL } };

static int re_index(lua_State *L) { return object_index(L, regex_self(L), fields, "a pattern of gate.re"); }

static int re_newindex(lua_State *L) { return object_newindex(L, regex_self(L), fields, "a pattern of gate.re"); }

static const luaL_Reg methods[] = {
    { "test", re_test },     { "match", re_match }, { "find", re_find },   { "exec", re_exec },
    { "gmatch", re_gmatch }, { "gsub", re_gsub },   { "split", re_split }, { NULL, NULL },
};
static const luaL_Reg metamethods[] = { { "__index", re_index }, { "__newindex", re_newindex }, { NULL, NULL } };

void bind_re_open(lua_State *L) {
    object_kind_open(L, &regex_kind, fields, metamethods, methods);
    regex_open(L);
    lua_pushcfunction(L, gate_re);
    lua_setfield(L, -2, "re");
}
