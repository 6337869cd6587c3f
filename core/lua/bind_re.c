/* gate.re: Perl's regular expressions, by PCRE2, for patterns that Lua's cannot say.
 *
 * No pattern can hang, whatever the subject. PCRE2's own match limit does not see to that: it counts anew for each
 * place where a match could begin, and neither the compiled code's loops nor a long run of one repeated character count
 * at all (`a+(a+)[bc]` takes a second for 2,000 bytes under a limit of 100,000; measured). So every pattern is compiled
 * with a callout before each item, which counts steps, and how far the match has moved since the last one; beyond
 * STEPS_MAX, or when the hook is late, it ends the match and the script is told by an error. That costs 100 to 400 ns a
 * match (a plain one takes 30 to 200, measured), and is why a fixed text is better sought with string.find.
 *
 * A failure to match for lack of steps or memory raises and is never mistaken for "no match", which a rule that refuses
 * requests would take for innocence.
 *
 * Patterns are compiled to machine code where the system lets us have executable memory, else interpreted; the meaning
 * is the same. All other memory of theirs is the state's, counted as Lua's own. The last patterns that were asked for
 * are remembered: two generations of CACHE_MAX, the older of which is forgotten when the younger is full. */
#include "lua/bind.h"

#include "lua/memory.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    PATTERN_MAX = 8192,
    SUBJECT_MAX = 16 << 20,
    STEPS_MAX = 500000,
    BYTES_PER_STEP = 64,
    CACHE_MAX = 128,
    JIT_MAX = 4 << 20, /* bytes of machine code in one state */
    HEAP_KIB = 1024,
    GROUPS_MAX = 64,
    MESSAGE_TEXT = 160,
    SHOWN_TEXT = 60
};

/* ---- the state's part */

struct engine {
    struct handle handle;
    const volatile sig_atomic_t *late;
    pcre2_general_context *general;
    pcre2_compile_context *compile;
    pcre2_match_context *match;
    size_t jit_bytes;
    size_t steps, at; /* of the match under way */
};

struct regex {
    struct handle handle;
    struct engine *engine; /* made before, collected after */
    pcre2_code *code;
    pcre2_match_data *match;
    size_t jit_bytes;
    uint32_t groups; /* the whole match not counted */
    bool utf;
};

static void engine_collect(void *pointer) {
    struct engine *e = pointer;
    pcre2_match_context_free(e->match);
    pcre2_compile_context_free(e->compile);
    pcre2_general_context_free(e->general);
}

static void regex_collect(void *pointer) {
    struct regex *r = pointer;
    pcre2_match_data_free(r->match);
    pcre2_code_free(r->code);
    r->engine->jit_bytes -= r->jit_bytes;
}

static const struct handle_kind engine_kind = { .name = "moongate.re_engine", .collect = engine_collect };
static const struct handle_kind kind = { .name = "moongate.re", .collect = regex_collect };

/* The size stands before each block. When the state has no room, what is garbage goes first, as Lua does it. */
static void *state_malloc(size_t n, void *with) {
    struct state *state = with;
    size_t size = sizeof(max_align_t) + n;
    max_align_t *block = memory_alloc(&state->memory, NULL, 0, size);
    if (!block) {
        lua_gc(state->L, LUA_GCCOLLECT);
        block = memory_alloc(&state->memory, NULL, 0, size);
    }
    if (!block) return NULL;
    memcpy(block, &n, sizeof n);
    return block + 1;
}

static void state_free(void *p, void *with) {
    struct state *state = with;
    if (!p) return;
    max_align_t *block = (max_align_t *)p - 1;
    size_t n;
    memcpy(&n, block, sizeof n);
    memory_alloc(&state->memory, block, sizeof *block + n, 0);
}

static int engine_on_callout(pcre2_callout_block *block, void *with) {
    struct engine *e = with;
    size_t at = block->current_position;
    e->steps += 1 + (at > e->at ? at - e->at : e->at - at) / BYTES_PER_STEP;
    e->at = at;
    return e->steps > STEPS_MAX || *e->late ? PCRE2_ERROR_CALLOUT : 0;
}

static struct engine *engine_of(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &engine_kind.name);
    struct engine *e = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return e;
}

/* ---- compiling */

static uint32_t options_of(lua_State *L, const char *flags) {
    static const char letters[] = "imsxu";
    static const uint32_t options[] = { PCRE2_CASELESS, PCRE2_MULTILINE, PCRE2_DOTALL, PCRE2_EXTENDED,
                                        PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF };
    /* "$" is the end, not also before a last line feed: a check of "^\d+$" must not let "1\n" through. */
    uint32_t all = PCRE2_AUTO_CALLOUT | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C;
    for (; *flags; flags++) {
        const char *letter = strchr(letters, *flags);
        if (!letter) luaL_argerror(L, 2, lua_pushfstring(L, "there is no flag '%c' (flags are i, m, s, x, u)", *flags));
        all |= options[letter - letters];
    }
    return all & PCRE2_UTF ? all : all | PCRE2_NEVER_UTF;
}

static int raise_compile(lua_State *L, int error, size_t at) {
    unsigned char text[MESSAGE_TEXT];
    pcre2_get_error_message(error, text, sizeof text);
    return luaL_argerror(L, 1, lua_pushfstring(L, "%s at byte %d of the pattern", (char *)text, (int)at + 1));
}

/* Machine code, if there is room and the system allows it. */
static void try_jit(struct regex *r) {
    size_t bytes = 0;
    if (r->engine->jit_bytes >= JIT_MAX || pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) != 0) return;
    pcre2_pattern_info(r->code, PCRE2_INFO_JITSIZE, &bytes);
    r->jit_bytes = bytes;
    r->engine->jit_bytes += bytes;
}

/* Pushes the object for the pattern at index 1 and the flags at 2. */
static void push_compiled(lua_State *L, uint32_t options) {
    struct slice pattern = text_check(L, 1);
    struct regex *r = object_new(L, &kind, sizeof *r, 1);
    int error;
    size_t at;
    r->engine = engine_of(L);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    budget_spend(L, 200 + pattern.n * 16);
    r->code = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, options, &error, &at, r->engine->compile);
    if (!r->code) raise_compile(L, error, at);
    pcre2_pattern_info(r->code, PCRE2_INFO_CAPTURECOUNT, &r->groups);
    if (r->groups > GROUPS_MAX) luaL_argerror(L, 1, lua_pushfstring(L, "more than %d groups", GROUPS_MAX));
    r->utf = options & PCRE2_UTF;
    r->match = pcre2_match_data_create_from_pattern(r->code, r->engine->general);
    if (!r->match) luaL_error(L, "not enough memory");
    try_jit(r);
}

/* With the key on top: pushes what a generation of the cache has for it; false: nothing. */
static bool push_cached(lua_State *L, int generation) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &engine_kind.name);
    lua_getiuservalue(L, -1, generation);
    lua_pushvalue(L, -3);
    bool found = lua_rawget(L, -2) != LUA_TNIL;
    lua_replace(L, -3);
    lua_pop(L, 1);
    if (!found) lua_pop(L, 1);
    return found;
}

/* With key and object on top, which stay. User values 1 and 2 are the generations, 3 the size of the younger. */
static void remember(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &engine_kind.name);
    int engine = lua_gettop(L);
    lua_getiuservalue(L, engine, 3);
    lua_Integer count = lua_tointeger(L, -1);
    if (count >= CACHE_MAX) {
        lua_newtable(L);
        lua_getiuservalue(L, engine, 1);
        lua_setiuservalue(L, engine, 2);
        lua_setiuservalue(L, engine, 1);
        count = 0;
    }
    lua_getiuservalue(L, engine, 1);
    lua_pushvalue(L, engine - 2);
    lua_pushvalue(L, engine - 1);
    lua_rawset(L, -3);
    lua_pushinteger(L, count + 1);
    lua_setiuservalue(L, engine, 3);
    lua_settop(L, engine - 1);
}

static int gate_re(lua_State *L) {
    string_check(L, 1, PATTERN_MAX);
    const char *flags = luaL_optstring(L, 2, "");
    uint32_t options = options_of(L, flags);
    lua_settop(L, 2);
    lua_pushfstring(L, "%d/", (int)options);
    lua_pushvalue(L, 1);
    lua_concat(L, 2);
    if (push_cached(L, 1)) return 1;
    if (!push_cached(L, 2)) push_compiled(L, options);
    remember(L);
    return 1;
}

/* ---- matching */

static struct regex *regex_self(lua_State *L) { return object_self(L, 1, &kind); }

static int raise_match(lua_State *L, struct regex *r, int error) {
    unsigned char text[MESSAGE_TEXT];
    char shown[SHOWN_TEXT + 1] = "";
    budget_check(L);
    lua_getiuservalue(L, 1, 1);
    const char *pattern = lua_tostring(L, -1);
    strncpy(shown, pattern ? pattern : "", SHOWN_TEXT);
    bool complex = error == PCRE2_ERROR_CALLOUT || error == PCRE2_ERROR_MATCHLIMIT || error == PCRE2_ERROR_HEAPLIMIT ||
                   error == PCRE2_ERROR_DEPTHLIMIT || error == PCRE2_ERROR_RECURSELOOP;
    if (complex) return luaL_error(L, "too_complex: the pattern '%s' takes too many steps here", shown);
    pcre2_get_error_message(error, text, sizeof text);
    return luaL_error(L, "the pattern '%s': %s", shown, (char *)text);
}

/* Is there a match at `at` or behind? Its places are then in the match data, until the next call. The regex is at index
 * 1 or, in an iterator, wherever it is kept. */
static bool regex_match(lua_State *L, struct regex *r, struct slice s, size_t at, uint32_t options) {
    struct engine *e = r->engine;
    e->steps = 0;
    e->at = at;
    int n = pcre2_match(r->code, (PCRE2_SPTR)s.p, s.n, at, options, r->match, e->match);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)
        n = pcre2_match(r->code, (PCRE2_SPTR)s.p, s.n, at, options | PCRE2_NO_JIT, r->match, e->match);
    budget_spend(L, 4 + e->steps + (s.n - at) / BYTES_PER_STEP);
    if (n < 0 && n != PCRE2_ERROR_NOMATCH) raise_match(L, r, n);
    return n > 0;
}

/* Pushes a group, 0 the whole match; nil if it took no part. */
static void push_group(lua_State *L, const struct regex *r, struct slice s, uint32_t i) {
    const PCRE2_SIZE *places = pcre2_get_ovector_pointer(r->match);
    /* "\K" in a lookahead can put the beginning behind the end: then there is nothing between. */
    if (places[2 * i] == PCRE2_UNSET) lua_pushnil(L);
    else if (places[2 * i] > places[2 * i + 1]) lua_pushliteral(L, "");
    else lua_pushlstring(L, s.p + places[2 * i], places[2 * i + 1] - places[2 * i]);
}

/* All groups; the whole match if there are none and `whole`. */
static int push_groups(lua_State *L, const struct regex *r, struct slice s, bool whole) {
    luaL_checkstack(L, GROUPS_MAX, "groups");
    if (r->groups == 0 && whole) {
        push_group(L, r, s, 0);
        return 1;
    }
    for (uint32_t i = 1; i <= r->groups; i++) push_group(L, r, s, i);
    return (int)r->groups;
}

static struct slice subject_text(lua_State *L) { return string_check(L, 2, SUBJECT_MAX); }

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
    lua_pushboolean(L, regex_match(L, r, subject_text(L), 0, 0));
    return 1;
}

static int re_match(lua_State *L) {
    struct regex *r = regex_self(L);
    struct slice s = subject_text(L);
    size_t at;
    if (init_opt(L, s, &at) && regex_match(L, r, s, at, 0)) return push_groups(L, r, s, true);
    lua_pushnil(L);
    return 1;
}

static int re_find(lua_State *L) {
    struct regex *r = regex_self(L);
    struct slice s = subject_text(L);
    size_t at;
    if (!init_opt(L, s, &at) || !regex_match(L, r, s, at, 0)) {
        lua_pushnil(L);
        return 1;
    }
    const PCRE2_SIZE *places = pcre2_get_ovector_pointer(r->match);
    lua_pushinteger(L, (lua_Integer)places[0] + 1);
    lua_pushinteger(L, (lua_Integer)places[1]);
    return 2 + push_groups(L, r, s, false);
}

/* The names lie in the pattern, each as two bytes of number, text, NUL. */
struct names {
    PCRE2_SPTR first;
    uint32_t count, size;
};

static struct names names_of(const struct regex *r) {
    struct names names = { 0 };
    pcre2_pattern_info(r->code, PCRE2_INFO_NAMECOUNT, &names.count);
    pcre2_pattern_info(r->code, PCRE2_INFO_NAMEENTRYSIZE, &names.size);
    pcre2_pattern_info(r->code, PCRE2_INFO_NAMETABLE, &names.first);
    return names;
}

static void push_named(lua_State *L, const struct regex *r, struct slice s) {
    struct names names = names_of(r);
    lua_createtable(L, 0, (int)names.count);
    for (uint32_t i = 0; i < names.count; i++) {
        PCRE2_SPTR entry = names.first + (size_t)i * names.size;
        push_group(L, r, s, (uint32_t)entry[0] << 8 | entry[1]);
        lua_setfield(L, -2, (const char *)entry + 2);
    }
}

static int re_exec(lua_State *L) {
    struct regex *r = regex_self(L);
    struct slice s = subject_text(L);
    size_t at;
    if (!init_opt(L, s, &at) || !regex_match(L, r, s, at, 0)) {
        lua_pushnil(L);
        return 1;
    }
    const PCRE2_SIZE *places = pcre2_get_ovector_pointer(r->match);
    lua_createtable(L, 0, 5);
    lua_pushinteger(L, (lua_Integer)places[0] + 1);
    lua_setfield(L, -2, "from");
    lua_pushinteger(L, (lua_Integer)places[1]);
    lua_setfield(L, -2, "to");
    push_group(L, r, s, 0);
    lua_setfield(L, -2, "text");
    lua_createtable(L, (int)r->groups, 0);
    for (uint32_t i = 1; i <= r->groups; i++) {
        push_group(L, r, s, i);
        lua_rawseti(L, -2, i);
    }
    lua_setfield(L, -2, "groups");
    push_named(L, r, s);
    lua_setfield(L, -2, "names");
    return 1;
}

/* ---- one match after another */

struct scan {
    struct regex *r;
    struct slice s;
    size_t at;       /* where to look on */
    bool empty;      /* the last match was empty, and ended there */
    size_t from, to; /* of the last match */
};

/* The next character's bytes. */
static size_t step_of(const struct scan *scan) {
    size_t n = 1;
    while (scan->r->utf && scan->at + n < scan->s.n && ((unsigned char)scan->s.p[scan->at + n] & 0xc0) == 0x80) n++;
    return n;
}

/* After an empty match something else is sought in the same place, then one character further. */
static bool scan_next(lua_State *L, struct scan *scan) {
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
    if (found) return push_groups(L, scan.r, scan.s, true);
    lua_pushnil(L);
    return 1;
}

static int re_gmatch(lua_State *L) {
    regex_self(L);
    subject_text(L);
    lua_settop(L, 2);
    lua_pushinteger(L, 0);
    lua_pushboolean(L, 0);
    lua_pushcclosure(L, gmatch_next, 4);
    return 1;
}

static lua_Integer max_opt(lua_State *L, int arg) {
    lua_Integer max = luaL_optinteger(L, arg, LUA_MAXINTEGER);
    if (max < 0) luaL_argerror(L, arg, "not negative");
    return max;
}

static int re_split(lua_State *L) {
    struct scan scan = { .r = regex_self(L), .s = subject_text(L) };
    lua_Integer max = max_opt(L, 3), n = 0;
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

/* ---- gsub */

/* The group that "1" or "name" means; raises if there is none such. */
static uint32_t group_of(lua_State *L, const struct regex *r, struct slice name) {
    uint64_t number;
    if (slice_to_u64(name, &number) && number <= r->groups) return (uint32_t)number;
    struct names names = names_of(r);
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
        int n = push_groups(L, scan->r, scan->s, true);
        lua_call(L, n, 1);
    } else {
        push_group(L, scan->r, scan->s, scan->r->groups ? 1 : 0);
        if (!lua_isnil(L, -1)) lua_rawget(L, 3);
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        lua_pushlstring(L, scan->s.p + scan->from, scan->to - scan->from);
    } else if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
        luaL_error(L, "the replacement is a string or number, not a %s", luaL_typename(L, -1));
}

static int re_gsub(lua_State *L) {
    struct scan scan = { .r = regex_self(L), .s = subject_text(L) };
    int type = lua_type(L, 3);
    struct slice template = type == LUA_TSTRING ? text_check(L, 3) : SLICE("");
    lua_Integer max = max_opt(L, 4), n = 0;
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

static void open_engine(lua_State *L) {
    struct state *state = state_of(L);
    struct engine *e = object_new(L, &engine_kind, sizeof *e, 3);
    e->late = &state->meter.late;
    e->general = pcre2_general_context_create(state_malloc, state_free, state);
    e->compile = pcre2_compile_context_create(e->general);
    e->match = pcre2_match_context_create(e->general);
    if (!e->general || !e->compile || !e->match) luaL_error(L, "not enough memory");
    pcre2_set_callout(e->match, engine_on_callout, e);
    pcre2_set_heap_limit(e->match, HEAP_KIB);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &engine_kind.name);
}

void bind_re_open(lua_State *L) {
    object_kind_open(L, &engine_kind, NULL, NULL, NULL);
    object_kind_open(L, &kind, fields, metamethods, methods);
    open_engine(L);
    lua_pushcfunction(L, gate_re);
    lua_setfield(L, -2, "re");
}
