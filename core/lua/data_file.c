/* Data files, as scripts name them. */
#include "lua/data_file.h"

#include "base/clock.h"
#include "lua/state_rest.h"

void data_file_check(lua_State *L, int arg, const char *what, struct data_file *file) {
    struct state *state = state_of(L);
    struct slice name = string_check(L, arg, PATH_MAX);
    if (!state->loading || !state->rest->sources)
        luaL_error(L, "%s: files are read while the config is loaded, not in hooks", what);
    if (name.n == 0 || memchr(name.p, 0, name.n)) luaL_error(L, "%s: that is no name of a file", what);
    file->sources = state->rest->sources;
    file->name = name.p;
    if (!sources_resolve(file->sources, name.p, file->path, sizeof file->path))
        luaL_error(L, "%s: the name of the file is too long", what);
}

int data_file_fail(lua_State *L, const char *what, const struct data_file *file, const char *why) {
    return luaL_error(L, "%s: %s: %s", what, file->name, why);
}

uint64_t data_file_begin(void) { return clock_thread_cpu_us(); }

void data_file_end(lua_State *L, uint64_t began) { state_of(L)->meter.limit += clock_thread_cpu_us() - began; }
