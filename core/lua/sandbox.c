/* The sandbox: what a script can reach, and what it can change.
 *
 * Each file has an environment of its own: a table with the libraries, and its globals beside them. Scripts see it,
 * the libraries and `gate` only through fronts: empty tables whose __index is the real one and whose __newindex
 * raises, so nothing can be changed from one file under another (an environment's front lets globals through while
 * the file is loaded). A front costs one more look-up, 8 ns (measured); a script that counts those says `local find =
 * string.find`, or calls methods: s:find does not pass it. Copies of the libraries for each file were the
 * alternative: as fast as Lua, but assignments to them would be silent.
 *
 * Absent are io, os but for its clocks, package, dofile, loadfile, debug but for traceback, string.dump, bytecode,
 * __gc. `unsafe` brings them back: as a global of the config at once, as a field of the table it returns when it has
 * been loaded (for hooks then). They come without any bound: a loop in io.lines is only stopped between two lines.
 *
 * All tables of this file lie in the registry under the addresses below. */
#include "lua/sandbox.h"

#include "base/clock.h"
#include "lua/bind.h"
#include "lua/run.h"

#include <lualib.h>
#include <string.h>

enum { DATE_FORMAT_MAX = 100 };

/* Registry keys. */
static const char BUILTINS;     /* name -> value: what every environment starts with */
static const char ENVIRONMENTS; /* list of all tables of globals; file -> table of globals, too */
static const char NAMES;        /* function -> "table.sort" */
static const char FRONT;        /* in a metatable: it is a front's */
static const char BYTECODE;     /* true: allowed */

/* ---- Fronts */

/* Upvalue 1: the real table. */
static int front_next(lua_State *L) {
    lua_settop(L, 2);
    return lua_next(L, lua_upvalueindex(1)) ? 2 : 0;
}

static int front_pairs(lua_State *L) {
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, front_next, 1);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

/* Upvalue 1: the name. */
static int front_newindex(lua_State *L) {
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "?";
    return luaL_error(L, "cannot set '%s.%s': it is read-only", lua_tostring(L, lua_upvalueindex(1)), key);
}

/* With a real table on top: replaces it by an empty table with a metatable that has all but __newindex, and pushes
 * the metatable. */
static void make_front(lua_State *L) {
    lua_newtable(L);
    lua_createtable(L, 0, 6);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushvalue(L, -3);
    lua_pushcclosure(L, front_pairs, 1);
    lua_setfield(L, -2, "__pairs");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pushboolean(L, 1);
    lua_rawsetp(L, -2, &FRONT);
    lua_pushvalue(L, -1);
    lua_setmetatable(L, -3);
    lua_remove(L, -3);
}

void front_make(lua_State *L, const char *name) {
    make_front(L);
    lua_pushstring(L, name);
    lua_pushcclosure(L, front_newindex, 1);
    lua_setfield(L, -2, "__newindex");
    lua_pop(L, 1);
}

bool front_test(lua_State *L, int index) {
    if (!lua_getmetatable(L, index)) return false;
    bool is = lua_rawgetp(L, -1, &FRONT) != LUA_TNIL;
    lua_pop(L, 2);
    return is;
}

/* ---- Names of functions */

void functions_name(lua_State *L, const char *name) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &NAMES);
    lua_pushnil(L);
    while (lua_next(L, -3)) {
        if (lua_isfunction(L, -1) && lua_type(L, -2) == LUA_TSTRING) {
            lua_pushfstring(L, "%s%s%s", name, *name ? "." : "", lua_tostring(L, -2));
            lua_rawset(L, -4);
        } else lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

const char *function_name(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &NAMES);
    lua_insert(L, -2);
    lua_rawget(L, -2);
    const char *name = lua_tostring(L, -1); /* stays in the table */
    lua_pop(L, 2);
    return name;
}

/* ---- Functions that are Lua's own, but counted */

/* Upvalue 1 is the function. */
static int call_counted(lua_State *L) {
    size_t steps = 1;
    for (int i = lua_gettop(L); i > 0; i--)
        if (lua_type(L, i) == LUA_TSTRING) steps += lua_rawlen(L, i) / 64;
    budget_spend(L, steps);
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

void function_count(lua_State *L, const char *name) {
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, call_counted, 1);
    lua_setfield(L, -2, name);
}

/* ---- Libraries */

static int open_utf8(lua_State *L) {
    static const char *const counted[] = { "codepoint", "len", "offset", "codes" };
    luaL_requiref(L, LUA_UTF8LIBNAME, luaopen_utf8, 0);
    for (size_t i = 0; i < sizeof counted / sizeof *counted; i++) function_count(L, counted[i]);
    return 1;
}

/* A rehearsal's numbers are the same each time. Lua seeds itself with the time and an address, which is as good as any
 * elsewhere. */
static int open_math(lua_State *L) {
    luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, 0);
    if (!clock_pretended()) return 1;
    lua_getfield(L, -1, "randomseed");
    lua_pushinteger(L, (lua_Integer)random_u64());
    lua_call(L, 1, 0);
    return 1;
}

/* strftime takes its time for every conversion. */
static int os_date(lua_State *L) {
    size_t n = 0;
    luaL_optlstring(L, 1, "", &n);
    luaL_argcheck(L, n <= DATE_FORMAT_MAX, 1, "format too long");
    budget_spend(L, 100);
    if (lua_isnoneornil(L, 2)) {
        lua_settop(L, 1);
        if (lua_isnil(L, 1)) {
            lua_pushliteral(L, "%c");
            lua_replace(L, 1);
        }
        lua_pushinteger(L, (lua_Integer)clock_second());
    }
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* Now is what the house's clock says. */
static int os_time(lua_State *L) {
    if (!lua_isnoneornil(L, 1)) return lua_tocfunction(L, lua_upvalueindex(1))(L);
    lua_pushinteger(L, (lua_Integer)clock_second());
    return 1;
}

/* A table with some functions of the one on top, which it replaces. */
static void pick_functions(lua_State *L, const char *const *names) {
    lua_newtable(L);
    for (; *names; names++) {
        lua_getfield(L, -2, *names);
        lua_setfield(L, -2, *names);
    }
    lua_remove(L, -2);
}

static int open_os(lua_State *L) {
    static const char *const names[] = { "clock", "date", "difftime", "time", NULL };
    luaL_requiref(L, LUA_OSLIBNAME, luaopen_os, 0);
    pick_functions(L, names);
    lua_getfield(L, -1, "date");
    lua_pushcclosure(L, os_date, 1);
    lua_setfield(L, -2, "date");
    lua_getfield(L, -1, "time");
    lua_pushcclosure(L, os_time, 1);
    lua_setfield(L, -2, "time");
    return 1;
}

static int open_debug(lua_State *L) {
    static const char *const names[] = { "traceback", NULL };
    luaL_requiref(L, LUA_DBLIBNAME, luaopen_debug, 0);
    pick_functions(L, names);
    function_count(L, "traceback");
    return 1;
}

/* With the table of builtins below: the library on top becomes one of them. */
static void add_library(lua_State *L, const char *name) {
    functions_name(L, name);
    front_make(L, name);
    lua_setfield(L, -2, name);
}

static void new_registry_table(lua_State *L, const void *key) {
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void sandbox_open(lua_State *L) {
    static const luaL_Reg libraries[] = {
        { "coroutine", lib_coroutine_open },
        { "string", lib_string_open },
        { "table", lib_table_open },
        { "utf8", open_utf8 },
        { "math", open_math },
        { "os", open_os },
        { "debug", open_debug },
    };
    new_registry_table(L, &NAMES);
    new_registry_table(L, &ENVIRONMENTS);
    lib_base_open(L);
    functions_name(L, "");
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        libraries[i].func(L);
        add_library(L, libraries[i].name);
    }
    lua_rawsetp(L, LUA_REGISTRYINDEX, &BUILTINS);
}

/* ---- What `unsafe` allows */

static lua_CFunction unsafe_library(const char *name) {
    if (strcmp(name, "io") == 0) return luaopen_io;
    if (strcmp(name, "os") == 0) return luaopen_os;
    if (strcmp(name, "debug") == 0) return luaopen_debug;
    if (strcmp(name, "package") == 0) return luaopen_package;
    return NULL;
}

/* The value on top becomes a builtin, in the environments that there are, too. Pops it. */
static void add_builtin(lua_State *L, const char *name) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &BUILTINS);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, name);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ENVIRONMENTS);
    for (lua_Integer i = (lua_Integer)lua_rawlen(L, -1); i > 0; i--) {
        lua_rawgeti(L, -1, i);
        lua_pushvalue(L, -4);
        lua_setfield(L, -2, name);
        lua_pop(L, 1);
    }
    lua_pop(L, 3);
}

bool sandbox_allow(lua_State *L, const char *name) {
    if (strcmp(name, "bytecode") == 0) {
        lua_pushboolean(L, 1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &BYTECODE);
        return true;
    }
    lua_CFunction open = unsafe_library(name);
    if (!open) return false;
    luaL_requiref(L, name, open, 0);
    functions_name(L, name);
    front_make(L, name);
    add_builtin(L, name);
    return true;
}

bool sandbox_bytecode(lua_State *L) {
    bool allowed = lua_rawgetp(L, LUA_REGISTRYINDEX, &BYTECODE) != LUA_TNIL;
    lua_pop(L, 1);
    return allowed;
}

/* The value at `index` is a list of names, or one. What it does not know is left to the config's reader, which names
 * the place. */
static void allow_list(lua_State *L, int index) {
    if (lua_type(L, index) == LUA_TSTRING) sandbox_allow(L, lua_tostring(L, index));
    if (!lua_istable(L, index)) return;
    for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, index); i++) {
        if (lua_rawgeti(L, index, i) == LUA_TSTRING) sandbox_allow(L, lua_tostring(L, -1));
        lua_pop(L, 1);
    }
}

void sandbox_allow_listed(lua_State *L, int index) { allow_list(L, lua_absindex(L, index)); }

/* ---- What `lua` allows, for the rest of a file that says it before it returns
 *
 * The first run of a config is what tells its limits; a worker's state has them from that. Values out of bounds are for
 * the settings to tell. */

static const uint64_t MEMORY_LEAST = 1 << 20, MEMORY_MOST = 1ull << 34;
static const double CPU_LEAST = 0.1, CPU_MOST = 60;

static void take_limits(lua_State *L, int index) {
    struct state *state = state_of(L);
    uint64_t bytes;
    double seconds;
    if (state->number >= 0) return;
    if (option_push(L, index, "memory") != LUA_TNIL && size_read(L, -1, &bytes) && bytes >= MEMORY_LEAST &&
        bytes <= MEMORY_MOST)
        memory_allow(&state->memory, (size_t)bytes);
    if (option_push(L, index, "load_cpu") != LUA_TNIL && seconds_read(L, -1, &seconds) && seconds >= CPU_LEAST &&
        seconds <= CPU_MOST && !state->coverage)
        state->meter.limit = (uint64_t)(seconds * 1e6);
    lua_pop(L, 2);
}

/* ---- Environments */

/* Upvalues: the table of globals, the file's name, whether it is the config. */
static int environment_newindex(lua_State *L) {
    struct state *state = state_of(L);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "?";
    if (!state->loading)
        return luaL_error(L,
                          "cannot set global '%s': globals are read-only once the file is loaded (use a local, req.ctx "
                          "or gate.shared)",
                          key);
    lua_settop(L, 3);
    bool config = lua_toboolean(L, lua_upvalueindex(3));
    if (config && strcmp(key, "unsafe") == 0) allow_list(L, 3);
    if (config && strcmp(key, "lua") == 0 && lua_istable(L, 3)) take_limits(L, 3);
    lua_rawset(L, lua_upvalueindex(1));
    return 0;
}

/* Pushes a table of globals with all builtins, and notes it. */
static void push_globals(lua_State *L, const char *file) {
    lua_newtable(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &BUILTINS);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -5);
    }
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ENVIRONMENTS);
    lua_pushvalue(L, -3);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, file);
    lua_pop(L, 2);
}

bool environment_of_file_push(lua_State *L, const char *file) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &ENVIRONMENTS);
    bool found = lua_getfield(L, -1, file) == LUA_TTABLE;
    lua_replace(L, -2);
    if (!found) lua_pop(L, 1);
    return found;
}

/* A function made for one environment: the field of the globals, which lie at `globals`, and its name. Pops it. */
static void add_own(lua_State *L, int globals, const char *name) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &NAMES);
    lua_pushvalue(L, -2);
    lua_pushstring(L, name);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    lua_setfield(L, globals, name);
}

void environment_push(lua_State *L, const char *name, bool main) {
    push_globals(L, name);
    lua_pushvalue(L, -1);
    make_front(L); /* globals, front, metatable */
    lua_pushvalue(L, -3);
    lua_pushstring(L, name);
    lua_pushboolean(L, main);
    lua_pushcclosure(L, environment_newindex, 3);
    lua_setfield(L, -2, "__newindex");
    lua_pop(L, 1);
    int globals = lua_gettop(L) - 1;
    lua_pushvalue(L, -1);
    lua_setfield(L, globals, "_G");
    lib_base_push_load(L, -1);
    add_own(L, globals, "load");
    require_push(L);
    add_own(L, globals, "require");
    lua_remove(L, globals);
}

void environment_globals_push(lua_State *L, int index) {
    lua_getmetatable(L, index);
    lua_getfield(L, -1, "__index");
    lua_replace(L, -2);
}

static bool is_own(const char *name) {
    return strcmp(name, "_G") == 0 || strcmp(name, "load") == 0 || strcmp(name, "require") == 0;
}

bool environment_is_builtin(lua_State *L) {
    if (lua_type(L, -2) == LUA_TSTRING && is_own(lua_tostring(L, -2))) {
        lua_pop(L, 2);
        return true;
    }
    lua_rawgetp(L, LUA_REGISTRYINDEX, &BUILTINS);
    lua_pushvalue(L, -3);
    lua_rawget(L, -2);
    bool same = !lua_isnil(L, -1) && lua_rawequal(L, -1, -3);
    lua_pop(L, 4);
    return same;
}
