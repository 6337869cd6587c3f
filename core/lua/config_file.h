/* Files that a config names: keys, key sets. */
#pragma once

#include "lua/engine.h"

/* Pushes the whole text of a file, 8 MiB at most, whose path is relative to the config's folder. It is read like the
 * config itself: once for all runs of a load, by the supervisor where that takes privilege, and watched by --watch.
 * Raises, naming `what`, in a hook and for a file that cannot be read. */
void config_file_push(lua_State *L, const char *what, struct slice path);
