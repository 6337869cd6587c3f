/* The state that a command's Lua runs in. A command that fails says one line, as those in C do; a traceback would be
 * about us and not about what the operator did, unless it is a bug: then it is asked for with MOONGATE_DEBUG. */
#include "kit/host.h"

#include "base/datadir.h"
#include "base/must.h"
#include "kit/kit.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>

struct program {
    const char *module;
    void (*push)(lua_State *, const void *);
    const void *with;
};

static void set_path(lua_State *L) {
    lua_getglobal(L, "package");
    lua_pushfstring(L, "%s/lua/?.lua", datadir());
    lua_setfield(L, -2, "path");
    lua_pushliteral(L, "");
    lua_setfield(L, -2, "cpath");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_moongate_kit);
    lua_setfield(L, -2, "moongate_kit");
    lua_pop(L, 2);
}

static int run_program(lua_State *L) {
    const struct program *p = lua_touserdata(L, 1);
    luaL_openlibs(L);
    set_path(L);
    lua_getglobal(L, "require");
    lua_pushfstring(L, "moongate.%s", p->module);
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "main");
    p->push(L, p->with);
    lua_call(L, 1, 1);
    return 1;
}

static int add_traceback(lua_State *L) {
    const char *text = luaL_tolstring(L, 1, NULL);
    if (getenv("MOONGATE_DEBUG")) luaL_traceback(L, L, text, 1);
    return 1;
}

int host_run(const char *module, void (*push)(lua_State *, const void *), const void *with) {
    struct program p = { .module = module, .push = push, .with = with };
    lua_State *L = luaL_newstate();
    must(L);
    lua_pushcfunction(L, add_traceback);
    lua_pushcfunction(L, run_program);
    lua_pushlightuserdata(L, &p);
    int status;
    if (lua_pcall(L, 1, 1, 1) == LUA_OK) status = (int)lua_tointeger(L, -1);
    else status = cli_fail(EXIT_FAILED, "%s", lua_tostring(L, -1));
    lua_close(L);
    return status;
}
