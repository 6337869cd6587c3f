/* What is global in every file. Most is Lua's own; written again is what would reach too far: setmetatable (no
 * finalizers: they would run whenever the collector does, outside of any budget), xpcall (budget.c says why), rawset
 * (not through a read-only front), load (text only, of bounded length, in the environment of the file it is called
 * from), collectgarbage (counts only), print (to the log). */
#include "base/log.h"
#include "lua/sandbox.h"

#include <lualib.h>
#include <string.h>

enum { PRINT_MAX = 4096, PRINT_STEPS = 500, LOAD_MAX = 1 << 20, LOAD_MAX_IN_HOOK = 32768 };

static int base_print(lua_State *L) {
    int n = lua_gettop(L);
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    for (int i = 1; i <= n && luaL_bufflen(&buffer) < PRINT_MAX; i++) {
        size_t size;
        if (i > 1) luaL_addchar(&buffer, '\t');
        const char *text = luaL_tolstring(L, i, &size);
        if (size > PRINT_MAX) {
            lua_pushlstring(L, text, PRINT_MAX);
            lua_replace(L, -2);
        }
        luaL_addvalue(&buffer);
    }
    luaL_pushresult(&buffer);
    budget_spend(L, PRINT_STEPS);
    log_info("%.*s", PRINT_MAX, lua_tostring(L, -1));
    return 0;
}

static int base_rawset(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checkany(L, 2);
    luaL_checkany(L, 3);
    if (front_test(L, 1)) return luaL_argerror(L, 1, "this table is read-only");
    lua_settop(L, 3);
    lua_rawset(L, 1);
    return 1;
}

/* Lua looks for __gc only here: one that is put into the metatable later has no effect. */
static int base_setmetatable(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, lua_isnil(L, 2) || lua_istable(L, 2), 2, "nil or table");
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) return luaL_error(L, "cannot change a protected metatable");
    if (lua_istable(L, 2)) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL) return luaL_argerror(L, 2, "__gc is not allowed: use <close>");
    }
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

static int base_collectgarbage(lua_State *L) {
    const char *what = luaL_optstring(L, 1, "collect");
    if (strcmp(what, "count") != 0)
        return luaL_error(L, "collectgarbage: only \"count\" is allowed, the collector runs between requests");
    lua_pushnumber(L, (lua_Number)state_of(L)->memory.used / 1024.0);
    return 1;
}

/* ---- xpcall */

/* Upvalue 1 is the script's message handler. A call that is late is not handled: see budget.c. */
static int call_handler(lua_State *L) {
    if (state_of(L)->meter.late) return 1;
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

/* The handler lies at index 1, the results above it. */
static int end_xpcall(lua_State *L, int status, lua_KContext context) {
    (void)context;
    bool ok = status == LUA_OK || status == LUA_YIELD;
    lua_pushboolean(L, ok);
    lua_insert(L, 2);
    return ok ? lua_gettop(L) - 1 : (lua_settop(L, 3), 2);
}

static int base_xpcall(lua_State *L) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, call_handler, 1);
    lua_copy(L, 1, 2); /* the function takes the handler's place, the new handler comes first */
    lua_replace(L, 1);
    return end_xpcall(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, end_xpcall), 0);
}

/* ---- load */

/* Called protected, as lua_load would call the reader: argument 1 gives the pieces, 2 is how many bytes they may
 * have. */
static int gather_pieces(lua_State *L) {
    luaL_Buffer buffer;
    size_t max = (size_t)lua_tointeger(L, 2);
    luaL_buffinit(L, &buffer);
    while (luaL_bufflen(&buffer) <= max) {
        size_t size = 0;
        budget_spend(L, 1);
        lua_pushvalue(L, 1);
        lua_call(L, 0, 1);
        if (!lua_isnil(L, -1) && !lua_tolstring(L, -1, &size)) luaL_error(L, "reader function must return a string");
        if (size == 0) {
            lua_pop(L, 1);
            break;
        }
        luaL_addvalue(&buffer);
    }
    luaL_pushresult(&buffer);
    return 1;
}

/* Argument 1 is a function: its text takes its place. False: the error does. */
static bool read_pieces(lua_State *L, size_t max) {
    lua_pushcfunction(L, gather_pieces);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, (lua_Integer)max);
    bool ok = lua_pcall(L, 2, 1, 0) == LUA_OK;
    lua_replace(L, 1);
    return ok;
}

static int fail_load(lua_State *L, const char *why) {
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

/* Upvalue 1 is the file's environment. */
static int base_load(lua_State *L) {
    bool own_environment = lua_isnone(L, 4);
    const char *default_name = "=(load)";
    size_t n, max = state_of(L)->loading ? LOAD_MAX : LOAD_MAX_IN_HOOK;
    lua_settop(L, 4);
    if (lua_isstring(L, 1)) default_name = lua_tostring(L, 1);
    else {
        luaL_checktype(L, 1, LUA_TFUNCTION);
        if (!read_pieces(L, max)) {
            lua_pushnil(L);
            lua_pushvalue(L, 1);
            return 2;
        }
    }
    const char *text = lua_tolstring(L, 1, &n), *name = luaL_optstring(L, 2, default_name),
               *mode = luaL_optstring(L, 3, "t");
    bool bytecode = sandbox_bytecode(L);
    if (!strchr(mode, 't') && !bytecode) return fail_load(L, "attempt to load bytecode: only text is allowed");
    if (n > max) return fail_load(L, "chunk too long");
    budget_spend(L, n);
    if (luaL_loadbufferx(L, text, n, name, bytecode ? mode : "t") != LUA_OK) {
        lua_pushnil(L);
        lua_insert(L, -2);
        return 2;
    }
    lua_pushvalue(L, own_environment ? lua_upvalueindex(1) : 4);
    if (!lua_setupvalue(L, -2, 1)) lua_pop(L, 1);
    return 1;
}

void lib_base_push_load(lua_State *L, int index) {
    lua_pushvalue(L, index);
    lua_pushcclosure(L, base_load, 1);
}

/* ---- */

int lib_base_open(lua_State *L) {
    static const char *const taken[] = { "assert", "error",    "getmetatable", "ipairs", "next",
                                         "pairs",  "pcall",    "rawequal",     "rawget", "rawlen",
                                         "select", "tonumber", "tostring",     "type",   "_VERSION" };
    static const luaL_Reg functions[] = {
        { "print", base_print },
        { "rawset", base_rawset },
        { "setmetatable", base_setmetatable },
        { "collectgarbage", base_collectgarbage },
        { "xpcall", base_xpcall },
        { NULL, NULL },
    };
    luaL_requiref(L, LUA_GNAME, luaopen_base, 0);
    lua_newtable(L);
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        lua_getfield(L, -2, taken[i]);
        lua_setfield(L, -2, taken[i]);
    }
    lua_replace(L, -2);
    luaL_setfuncs(L, functions, 0);
    function_count(L, "tonumber");
    return 1;
}
