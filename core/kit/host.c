/* The state that a command's Lua runs in. A command that fails says one line, as those in C do; a traceback would be
 * about us and not about what the operator did, unless it is a bug: then it is asked for with MOONGATE_DEBUG. */
#include "kit/host.h"

#include "base/datadir.h"
#include "base/must.h"
#include "kit/kit.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>

/* On the stack of L: the message handler, the module. */
struct host {
    lua_State *L;
};

struct call {
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

static int load_module(lua_State *L) {
    luaL_openlibs(L);
    set_path(L);
    lua_getglobal(L, "require");
    lua_pushfstring(L, "moongate.%s", (const char *)lua_touserdata(L, 1));
    lua_call(L, 1, 1);
    return 1;
}

static int call_main(lua_State *L) {
    const struct call *call = lua_touserdata(L, 2);
    lua_getfield(L, 1, "main");
    call->push(L, call->with);
    lua_call(L, 1, 1);
    return 1;
}

static int add_traceback(lua_State *L) {
    const char *text = luaL_tolstring(L, 1, NULL);
    if (getenv("MOONGATE_DEBUG")) luaL_traceback(L, L, text, 1);
    return 1;
}

struct host *host_open(const char *module) {
    struct host *host = must_calloc(1, sizeof *host);
    lua_State *L = host->L = luaL_newstate();
    must(L);
    lua_pushcfunction(L, add_traceback);
    lua_pushcfunction(L, load_module);
    lua_pushlightuserdata(L, (void *)(uintptr_t)module);
    if (lua_pcall(L, 1, 1, 1) == LUA_OK) return host;
    cli_fail(EXIT_FAILED, "%s", lua_tostring(L, -1));
    host_close(host);
    return NULL;
}

int host_main(struct host *host, void (*push)(lua_State *, const void *), const void *with) {
    lua_State *L = host->L;
    struct call call = { push, with };
    lua_pushcfunction(L, call_main);
    lua_pushvalue(L, 2);
    lua_pushlightuserdata(L, &call);
    if (lua_pcall(L, 2, 1, 1) != LUA_OK) return cli_fail(EXIT_FAILED, "%s", lua_tostring(L, -1));
    return (int)lua_tointeger(L, -1);
}

void host_close(struct host *host) {
    if (!host) return;
    lua_close(host->L);
    free(host);
}
