/* gate.now, gate.clock and gate.version. */
#include "lua/bind.h"

#include "base/clock.h"
#include "build_info.h"

static int gate_now(lua_State *L) {
    lua_pushnumber(L, clock_wall());
    return 1;
}

static int gate_clock(lua_State *L) {
    lua_pushnumber(L, clock_monotonic());
    return 1;
}

void bind_clock_open(lua_State *L) {
    lua_pushcfunction(L, gate_now);
    lua_setfield(L, -2, "now");
    lua_pushcfunction(L, gate_clock);
    lua_setfield(L, -2, "clock");
    lua_pushliteral(L, MOONGATE_VERSION);
    lua_setfield(L, -2, "version");
}
