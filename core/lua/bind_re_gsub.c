/* gsub of gate.re: the replacement is a text with "$1" and "${name}" in it, a table or a function, as in
 * string.gsub. */
#include "lua/re_inside.h"

/* The group that "1" or "name" means; raises if there is none such. */
static uint32_t group_of(lua_State *L, const struct regex *r, struct slice name) {
    uint64_t number;
    if (slice_to_u64(name, &number) && number <= r->groups) return (uint32_t)number;
    struct names names = regex_names(r);
    for (uint32_t i = 0; i < names.count; i++) {
        PCRE2_SPTR entry = names.first + (size_t)i * names.size;
        if (slice_equal(name, slice_of((const char *)entry + 2))) return (uint32_t)entry[0] << 8 | entry[1];
    }
    lua_pushlstring(L, name.p, name.n);
    luaL_argerror(L, 3, lua_pushfstring(L, "the pattern has no group '%s'", lua_tostring(L, -1)));
    return 0;
}

/* What stands behind a "$": "{name}" or digits; it is taken off the front. */
static struct slice take_name(lua_State *L, struct slice *rest) {
    if (rest->n && *rest->p == '{') {
        const char *end = memchr(rest->p, '}', rest->n);
        if (!end) luaL_argerror(L, 3, "a '${' without '}'");
        struct slice name = slice_make(rest->p + 1, (size_t)(end - rest->p) - 1);
        *rest = slice_skip(*rest, name.n + 2);
        return name;
    }
    size_t n = 0;
    while (n < rest->n && rest->p[n] >= '0' && rest->p[n] <= '9') n++;
    if (n == 0) luaL_argerror(L, 3, "behind '$' stands a number, '{name}' or '$'");
    struct slice name = slice_make(rest->p, n);
    *rest = slice_skip(*rest, n);
    return name;
}

/* Adds the replacement text with its groups filled in. */
static void add_template(lua_State *L, luaL_Buffer *b, const struct scan *scan, struct slice template) {
    const PCRE2_SIZE *places = pcre2_get_ovector_pointer(scan->r->match);
    for (struct slice rest = template; rest.p && rest.n;) {
        struct slice plain = slice_cut(&rest, '$');
        luaL_addlstring(b, plain.p, plain.n);
        if (!rest.p) break;
        if (rest.n && *rest.p == '$') {
            luaL_addchar(b, '$');
            rest = slice_skip(rest, 1);
            continue;
        }
        uint32_t i = group_of(L, scan->r, take_name(L, &rest));
        size_t from = places[2 * i], to = places[2 * i + 1];
        budget_spend(L, 2 + template.n / BYTES_PER_STEP);
        if (from != PCRE2_UNSET && from < to) luaL_addlstring(b, scan->s.p + from, to - from);
    }
}

/* Pushes what a function or table has for the match; false or nil: the match stays. */
static void push_replacement(lua_State *L, const struct scan *scan, int type) {
    if (type == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        int n = regex_push_groups(L, scan->r, scan->s, true);
        lua_call(L, n, 1);
    } else {
        regex_push_group(L, scan->r, scan->s, scan->r->groups ? 1 : 0);
        if (!lua_isnil(L, -1)) lua_rawget(L, 3);
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        lua_pushlstring(L, scan->s.p + scan->from, scan->to - scan->from);
    } else if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
        luaL_error(L, "the replacement is a string or number, not a %s", luaL_typename(L, -1));
}

int re_gsub(lua_State *L) {
    struct scan scan = { .r = regex_self(L), .s = regex_subject(L) };
    int type = lua_type(L, 3);
    struct slice template = type == LUA_TSTRING ? text_check(L, 3) : SLICE("");
    lua_Integer max = regex_max_opt(L, 4), n = 0;
    if (type != LUA_TSTRING && type != LUA_TFUNCTION && type != LUA_TTABLE)
        luaL_typeerror(L, 3, "string, function or table");
    size_t behind = 0;
    luaL_Buffer b;
    lua_settop(L, 3);
    luaL_buffinit(L, &b);
    for (; n < max && scan_next(L, &scan); n++) {
        luaL_addlstring(&b, scan.s.p + behind, scan.from - behind);
        behind = scan.to;
        if (type == LUA_TSTRING) {
            add_template(L, &b, &scan, template);
            continue;
        }
        push_replacement(L, &scan, type);
        luaL_addvalue(&b);
    }
    luaL_addlstring(&b, scan.s.p + behind, scan.s.n - behind);
    luaL_pushresult(&b);
    lua_pushinteger(L, n);
    return 2;
}
