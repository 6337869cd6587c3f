/* Commands that are Lua programs over the kit: a plain Lua 5.4 state, not a policy's, with all libraries. */
#pragma once

#include "server/cli.h"

#include <lua.h>

struct host;

/* Loads a module of lua/moongate/ and what it requires: before the process becomes a user who may not read them. NULL:
 * said why. */
struct host *host_open(const char *module);
/* Runs its main(argument). `push` leaves the argument on the stack. The exit status that main returned; after an
 * error, which is printed, EXIT_FAILED. */
int host_main(struct host *, void (*push)(lua_State *, const void *with), const void *with);
void host_close(struct host *); /* NULL is ignored */
