/* body:map: a script function as a stage of a pipe. */
#pragma once

#include "lua/bind.h"
#include "proxy/pipe.h"

/* Takes the function on top of the stack. The stage fails with `why` when the function does. */
struct pipe_stage *stage_map(lua_State *L, enum failure why);
/* Does the call that runs now come from a function that changes this very pipe? */
bool map_is_running(lua_State *L, const struct pipe *);
