/* Commands that are Lua programs over the kit: a plain Lua 5.4 state, not a policy's, with all libraries. */
#pragma once

#include "server/cli.h"

#include <lua.h>

/* Runs main(arguments) of a module of lua/moongate/. `push` leaves its one argument on the stack. The exit status that
 * main returned; after an error, which is printed, EXIT_FAILED. */
int host_run(const char *module, void (*push)(lua_State *, const void *with), const void *with);
