/* One entry in the error log for each failure: which hook, whose site, which request, what was raised and where. */
#include "lua/report.h"

#include "base/log.h"

#include <stdio.h>

enum { TRACE_TEXT = 6000 };
#define NO_MEMORY "not enough memory" /* what Lua raises, without a place */

/* Where the script was, as Lua's own messages begin. */
static void push_place(lua_State *L, lua_State *co) {
    lua_Debug about;
    for (int level = 0; lua_getstack(co, level, &about); level++) {
        if (!lua_getinfo(co, "Sl", &about) || about.currentline <= 0) continue;
        lua_pushfstring(L, "%s:%d: ", about.short_src, about.currentline);
        return;
    }
    lua_pushliteral(L, "");
}

/* C's strings end at a NUL, and what follows one is no less told. */
static void push_shown(lua_State *L, const char *text, size_t n) {
    luaL_Buffer shown;
    if (n > TRACE_TEXT) n = TRACE_TEXT;
    char *to = luaL_buffinitsize(L, &shown, n);
    for (size_t i = 0; i < n; i++) to[i] = text[i] ? text[i] : '?';
    luaL_pushresultsize(&shown, n);
}

void report_headline_push(lua_State *L, lua_State *co, int index) {
    size_t n;
    int type = lua_type(co, index);
    const char *text = type == LUA_TSTRING || type == LUA_TNUMBER ? lua_tolstring(co, index, &n) : NULL;
    if (text && strcmp(text, NO_MEMORY) != 0) {
        push_shown(L, text, n);
        return;
    }
    push_place(L, co);
    if (text) lua_pushstring(L, text);
    else lua_pushfstring(L, "(the error is %s%s, not a text)", type == LUA_TNIL ? "" : "a ", lua_typename(co, type));
    lua_concat(L, 2);
}

const char *report_text(struct state *state, lua_State *co) {
    lua_State *L = state->L;
    lua_checkstack(co, 4);
    bool over =
        state->memory.over_ceiling && lua_type(co, -1) == LUA_TSTRING && strcmp(lua_tostring(co, -1), NO_MEMORY) == 0;
    report_headline_push(L, co, -1);
    if (over) {
        lua_pushliteral(L, ": it has added more than its share (lua.hook_memory)");
        lua_concat(L, 2);
    }
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
    *to = 0;
    if (about.linedefined > 0) snprintf(to, size, "%s:%d: ", about.short_src, about.linedefined);
}
