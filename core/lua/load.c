/* Running the config's file: the chunk, the modules it requires, what it returns, and how its errors are told.
 *
 * All of it runs on the state's main thread, once, under the load budget and without waits. The chunk's result is
 * kept: a table (a site, or one with `sites`), or, when it returned nothing, its globals. */
#include "lua/report.h"
#include "lua/sandbox.h"
#include "lua/state_rest.h"

#include "base/must.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const char LOADED; /* registry: module -> value */

enum { TRIED_TEXT = 2048, WHY_TEXT = 160 };

/* ---- Errors */

/* Splits "file:line: text": the length of "file" and its line, 0 if it does not begin so. */
static size_t parse_place(const char *text, int *line, const char **rest) {
    const char *end = strchr(text, '\n');
    size_t limit = end ? (size_t)(end - text) : strlen(text);
    for (const char *colon = text; (colon = memchr(colon, ':', limit - (size_t)(colon - text))); colon++) {
        char *after;
        if (!isdigit((unsigned char)colon[1])) continue;
        long number = strtol(colon + 1, &after, 10);
        if (*after != ':' || after[1] != ' ' || number <= 0 || number > 100000000) continue;
        *line = (int)number;
        *rest = after + 2;
        return (size_t)(colon - text);
    }
    return 0;
}

void errors_add_raised(struct errors *errors, const struct sources *sources, const char *path, const char *text) {
    int line = 0;
    const char *rest = text;
    size_t n = parse_place(text, &line, &rest);
    char *shown = must_strndup(text, n);
    errors_add(errors,
               n         ? sources_full_path(sources, shown)
               : sources ? sources_main(sources)
                         : NULL,
               line, path, "%s", rest);
    free(shown);
}

/* Is a script running at all? Not while one is compiled. */
static bool is_script_running(lua_State *L) {
    lua_Debug ar;
    for (int level = 1; lua_getstack(L, level, &ar); level++)
        if (lua_getinfo(L, "S", &ar) && *ar.what != 'C') return true;
    return false;
}

/* The message handler: appends the traceback, if there is anything to trace. */
static int add_traceback(lua_State *L) {
    report_headline_push(L, L, 1);
    if (is_script_running(L)) luaL_traceback(L, L, lua_tostring(L, -1), 1);
    return 1;
}

/* ---- Chunks */

/* Without a byte order mark and without the text of a "#!" line. */
static struct slice skip_preamble(struct slice text) {
    if (slice_starts_with(text, SLICE("\xEF\xBB\xBF"))) text = slice_skip(text, 3);
    if (text.n == 0 || *text.p != '#') return text;
    const char *end = memchr(text.p, '\n', text.n);
    return end ? slice_skip(text, (size_t)(end - text.p)) : slice_make(text.p + text.n, 0);
}

void load_chunk_push(lua_State *L, const char *path, struct slice text) {
    text = skip_preamble(text);
    lua_pushfstring(L, "@%s", path);
    if (luaL_loadbufferx(L, text.p, text.n, lua_tostring(L, -1), sandbox_bytecode(L) ? "bt" : "t") != LUA_OK)
        lua_error(L);
    lua_replace(L, -2);
}

/* Pushes a file's chunk, in an environment of its own, and that environment. Raises on a syntax error. */
static void push_chunk(lua_State *L, const char *path, struct slice text, bool main) {
    load_chunk_push(L, path, text);
    environment_push(L, path, main);
    lua_pushvalue(L, -1);
    if (!lua_setupvalue(L, -3, 1)) lua_pop(L, 1);
}

/* ---- require */

static int call_require(lua_State *L);

/* Pushes the name of the module that the require at this level of the stack loads. False: it is no require. */
static bool push_required(lua_State *L, lua_Debug *frame) {
    lua_getinfo(L, "f", frame);
    bool is = lua_tocfunction(L, -1) == call_require;
    lua_pop(L, 1);
    return is && lua_getlocal(L, frame, 1);
}

/* How many levels further out the same module is being loaded; 0: it is not. */
static int find_cycle(lua_State *L) {
    lua_Debug frame;
    for (int level = 1; lua_getstack(L, level, &frame); level++) {
        if (!push_required(L, &frame)) continue;
        bool same = lua_rawequal(L, -1, 1);
        lua_pop(L, 1);
        if (same) return level;
    }
    return 0;
}

static int fail_cycle(lua_State *L, int level) {
    lua_Debug frame;
    lua_pushliteral(L, "");
    for (; level >= 0 && lua_getstack(L, level, &frame); level--) {
        if (!push_required(L, &frame)) continue;
        lua_pushstring(L, level ? " -> " : "");
        lua_concat(L, 3);
    }
    return luaL_error(L, "module '%s' requires itself: %s", lua_tostring(L, 1), lua_tostring(L, -1));
}

/* With `unsafe` "package": Lua's own require, for what is not found here. */
static int require_elsewhere(lua_State *L, const char *name, const char *tried) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    if (lua_getfield(L, -1, "require") != LUA_TFUNCTION) return luaL_error(L, "module '%s' not found:%s", name, tried);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

/* Runs the module's file; its value is on top. */
static int load_module(lua_State *L, const char *name) {
    struct state_rest *rest = state_of(L)->rest;
    char tried[TRIED_TEXT];
    struct slice text;
    const char *path = sources_find(rest->sources, name, &text.p, &text.n, tried, sizeof tried);
    if (!path) return require_elsewhere(L, name, tried);
    push_chunk(L, path, text, false);
    lua_pop(L, 1);
    lua_pushvalue(L, 1);
    lua_pushstring(L, path);
    lua_call(L, 2, 1);
    return 1;
}

static int call_require(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &LOADED);
    lua_pushvalue(L, 1);
    if (lua_rawget(L, 2) != LUA_TNIL) return 1;
    if (!state_of(L)->loading)
        return luaL_error(L, "require '%s': modules are loaded together with the file, not in hooks", name);
    int level = find_cycle(L);
    if (level) return fail_cycle(L, level);
    load_module(L, name);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 1);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -2);
    lua_rawset(L, 2);
    return 1;
}

void require_push(lua_State *L) { lua_pushcfunction(L, call_require); }

void load_provide(lua_State *L, const char *name) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &LOADED) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &LOADED);
    }
    lua_insert(L, -2);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

void load_provided_push(lua_State *L, struct slice name) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &LOADED);
    lua_pushlstring(L, name.p, name.n);
    lua_rawget(L, -2);
    lua_replace(L, -2);
}

/* ---- The file */

/* Called protected, with the message handler: leaves the result and the environment. */
static int run_file(lua_State *L) {
    struct state *state = state_of(L);
    struct sources *sources = state->rest->sources;
    const char *why, *path = sources_main(sources);
    struct slice text;
    text.p = sources_read(sources, path, &text.n, &why);
    if (!text.p) return luaL_error(L, "cannot read %s: %s", path, why);
    push_chunk(L, path, text, true);
    lua_insert(L, 1); /* the environment */
    lua_call(L, 0, 1);
    return 2;
}

static bool call_file(struct state *state) {
    lua_State *L = state->L;
    lua_pushcfunction(L, add_traceback);
    lua_pushcfunction(L, run_file);
    state->loading = true;
    state->memory.script = true;
    meter_enter(&state->meter, L, 0, state->load_cpu);
    int status = lua_pcall(L, 0, 2, -2);
    meter_leave(&state->meter);
    state->memory.script = false;
    state->loading = false;
    budget_disarm(L);
    if (status == LUA_OK) return true;
    const char *text = lua_tostring(L, -1);
    if (status == LUA_ERRMEM)
        text =
            "not enough memory (the global `lua = { memory = \"256M\" }`, set at its beginning, gives the file more)";
    errors_add_raised(state->rest->errors, state->rest->sources, NULL, text ? text : "out of memory");
    return false;
}

/* What a file that returned nothing set: a copy of its globals without the libraries. The environment is on top. */
static void push_own_globals(lua_State *L) {
    environment_globals_push(L, -1);
    lua_newtable(L);
    lua_pushnil(L);
    while (lua_next(L, -3)) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        if (!environment_is_builtin(L)) {
            lua_pushvalue(L, -2);
            lua_pushvalue(L, -2);
            lua_rawset(L, -5);
        }
        lua_pop(L, 1);
    }
    lua_replace(L, -2);
}

/* The globals `unsafe` and `lua` count as if they stood in the table that was returned, so that the settings are read
 * from there. Environment and result are on top. */
static void merge_global(lua_State *L, const char *name) {
    int result = lua_gettop(L);
    lua_pushstring(L, name);
    if (lua_rawget(L, result) == LUA_TNIL) {
        lua_pushstring(L, name);
        environment_globals_push(L, result - 1);
        lua_pushstring(L, name);
        lua_rawget(L, -2);
        lua_replace(L, -2);
        lua_rawset(L, result);
    }
    lua_settop(L, result);
}

static void allow_returned(lua_State *L) {
    lua_pushliteral(L, "unsafe");
    if (lua_rawget(L, -2) != LUA_TNIL) sandbox_allow_listed(L, -1);
    lua_pop(L, 1);
}

/* Takes the environment and the result off the stack. */
static bool keep_result(struct state *state) {
    lua_State *L = state->L;
    struct state_rest *rest = state->rest;
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        push_own_globals(L);
    }
    if (!lua_istable(L, -1)) {
        errors_add(rest->errors, sources_main(rest->sources), 0, NULL,
                   "the file returned a %s: expected a site (a table), a table with `sites`, or nothing",
                   luaL_typename(L, -1));
        return false;
    }
    merge_global(L, "unsafe");
    merge_global(L, "lua");
    allow_returned(L);
    lua_pushliteral(L, "sites");
    rest->listed = lua_rawget(L, -2) != LUA_TNIL;
    lua_pop(L, 1);
    char why[WHY_TEXT];
    if (!value_from_lua(L, -1, true, &rest->config, why, sizeof why)) {
        errors_add(rest->errors, sources_main(rest->sources), 0, NULL, "the table that the file returned: %s", why);
        return false;
    }
    rest->result = luaL_ref(L, LUA_REGISTRYINDEX);
    return true;
}

bool load_file(struct state *state, struct sources *sources, struct errors *errors) {
    state->rest->sources = sources;
    state->rest->errors = errors;
    bool ok = call_file(state) && keep_result(state);
    state->rest->sources = NULL;
    state->rest->errors = NULL;
    lua_settop(state->L, 0);
    return ok;
}
