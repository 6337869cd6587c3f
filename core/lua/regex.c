/* Compiled patterns of gate.re, and the one call that matches.
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
#include "lua/re_inside.h"

#include "lua/memory.h"

enum {
    SUBJECT_MAX = 16 << 20,
    STEPS_MAX = 500000,
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
const struct handle_kind regex_kind = { .name = "moongate.re", .collect = regex_collect };

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

void regex_open(lua_State *L) {
    object_kind_open(L, &engine_kind, NULL, NULL, NULL);
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

/* ---- compiling */

uint32_t regex_options(lua_State *L, const char *flags) {
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
    struct regex *r = object_new(L, &regex_kind, sizeof *r, 1);
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

void regex_push(lua_State *L, uint32_t options) {
    lua_pushfstring(L, "%d/", (int)options);
    lua_pushvalue(L, 1);
    lua_concat(L, 2);
    if (push_cached(L, 1)) return;
    if (!push_cached(L, 2)) push_compiled(L, options);
    remember(L);
}

/* ---- matching */

struct regex *regex_self(lua_State *L) {
    return object_self(L, 1, &regex_kind);
}

struct slice regex_subject(lua_State *L) {
    return string_check(L, 2, SUBJECT_MAX);
}

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

bool regex_match(lua_State *L, struct regex *r, struct slice s, size_t at, uint32_t options) {
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

void regex_push_group(lua_State *L, const struct regex *r, struct slice s, uint32_t i) {
    const PCRE2_SIZE *places = pcre2_get_ovector_pointer(r->match);
    /* "\K" in a lookahead can put the beginning behind the end: then there is nothing between. */
    if (places[2 * i] == PCRE2_UNSET) lua_pushnil(L);
    else if (places[2 * i] > places[2 * i + 1]) lua_pushliteral(L, "");
    else lua_pushlstring(L, s.p + places[2 * i], places[2 * i + 1] - places[2 * i]);
}

int regex_push_groups(lua_State *L, const struct regex *r, struct slice s, bool whole) {
    luaL_checkstack(L, GROUPS_MAX, "groups");
    if (r->groups == 0 && whole) {
        regex_push_group(L, r, s, 0);
        return 1;
    }
    for (uint32_t i = 1; i <= r->groups; i++) regex_push_group(L, r, s, i);
    return (int)r->groups;
}

struct names regex_names(const struct regex *r) {
    struct names names = { 0 };
    pcre2_pattern_info(r->code, PCRE2_INFO_NAMECOUNT, &names.count);
    pcre2_pattern_info(r->code, PCRE2_INFO_NAMEENTRYSIZE, &names.size);
    pcre2_pattern_info(r->code, PCRE2_INFO_NAMETABLE, &names.first);
    return names;
}
