/* One entry in the error log for each failure: which hook, whose site, which request, what was raised and where. */
#include "lua/report.h"

#include "base/log.h"

#include <stdio.h>

enum { TRACE_TEXT = 6000 };

const char *report_text(struct state *state, lua_State *co) {
    lua_State *L = state->L;
    lua_checkstack(co, 4);
    int type = lua_type(co, -1);
    const char *text = type == LUA_TSTRING || type == LUA_TNUMBER ? lua_tostring(co, -1) : NULL;
    if (!text) lua_pushfstring(L, "(the error is a %s, not a text)", lua_typename(co, type));
    else if (state->memory.over_ceiling && strcmp(text, "not enough memory") == 0)
        lua_pushfstring(L, "%s: it has added more than its share (lua.hook_memory)", text);
    else lua_pushlstring(L, text, strlen(text) < TRACE_TEXT ? strlen(text) : TRACE_TEXT);
    luaL_traceback(L, co, lua_tostring(L, -1), 0);
    lua_replace(L, -2);
    return lua_tostring(L, -1);
}

void report_failure(const struct subject *subject, const char *what, const char *text) {
    const char *site = subject->site ? subject->site->name : NULL;
    const char *id = subject->exchange ? subject->exchange->id : NULL;
    char where[96] = "";
    if (id && site)
        snprintf(where, sizeof where, " (request %s, generation %u)", id, subject->site->generation->number);
    else if (id) snprintf(where, sizeof where, " (request %s)", id);
    log_error("%s%s%s failed%s: %.*s", what, site ? " of " : "", site ? site : "", where, TRACE_TEXT, text);
}

void report_place(lua_State *L, char *to, size_t size) {
    lua_Debug about;
    lua_getinfo(L, ">S", &about);
    snprintf(to, size, "%s:%d: ", about.short_src, about.linedefined);
}
