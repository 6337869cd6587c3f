/* Relative paths begin where the config lies, so that it does not matter where the program was started. */
#include "lua/config_file.h"

#include "lua/state_rest.h"

#include <limits.h>
#include <stdio.h>

/* False: the path is too long. */
static bool full_path(char to[PATH_MAX], const char *config, struct slice path) {
    const char *slash = strrchr(config, '/');
    int folder = slash && path.p[0] != '/' ? (int)(slash - config + 1) : 0;
    return snprintf(to, PATH_MAX, "%.*s%.*s", folder, config, FMT(path)) < PATH_MAX;
}

void config_file_push(lua_State *L, const char *what, struct slice path) {
    char full[PATH_MAX];
    size_t size;
    const char *why;
    const struct state *state = state_of(L);
    if (!state->loading) luaL_error(L, "%s: files are read while the config is loaded, not in hooks", what);
    if (path.n == 0 || memchr(path.p, 0, path.n)) luaL_error(L, "%s: the path of a file expected", what);
    if (!full_path(full, sources_main(state->rest->sources), path)) luaL_error(L, "%s: the path is too long", what);
    const char *text = sources_read(state->rest->sources, full, &size, &why);
    if (!text) luaL_error(L, "%s: cannot read %s: %s", what, full, why);
    lua_pushlstring(L, text, size);
}
