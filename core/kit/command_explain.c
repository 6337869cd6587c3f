/* `moongate explain`: the command line as a table; the rest is lua/moongate/explain.lua. */
#include "kit/host.h"

#include <lauxlib.h>

/* { operands = { … }, { "--header", "A: b" }, … } */
static void push_args(lua_State *L, const void *with) {
    const struct cli_args *args = with;
    lua_newtable(L);
    lua_newtable(L);
    for (unsigned i = 0; i < args->operand_count; i++) {
        lua_pushstring(L, args->operands[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "operands");
    for (unsigned i = 0; i < args->said_count; i++) {
        lua_newtable(L);
        lua_pushstring(L, cli_option_name(args->said[i].option));
        lua_rawseti(L, -2, 1);
        lua_pushstring(L, args->said[i].value);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

int command_explain(const struct cli_args *args) { return host_run("explain", push_args, args); }
