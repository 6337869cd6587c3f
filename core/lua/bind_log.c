/* gate.log(text), gate.log(level, …): a line in the error log, with the place in the script and the request's id.
 *
 * What a script logs often came from a client. Control characters but line breaks and tabs are shown as "?", so that
 * nothing can speak to the terminal of who reads it; the log itself indents further lines, so that none can look like
 * a line of ours. */
#include "lua/bind.h"

#include "base/log.h"

enum { TEXT_MAX = 8192 };

static const char *const levels[] = { "error", "warn", "info", "debug", NULL }; /* as enum log_level */

static enum log_level level_check(lua_State *L) {
    const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : "";
    for (int i = 0; levels[i]; i++)
        if (strcmp(levels[i], name) == 0) return (enum log_level)i;
    luaL_argerror(L, 1, "a level expected before the values: \"error\", \"warn\", \"info\" or \"debug\"");
    return LOG_LEVEL_INFO;
}

/* Pushes the arguments from `first` on as one text. */
static void push_text(lua_State *L, int first) {
    int n = lua_gettop(L);
    luaL_Buffer b;
    luaL_checkstack(L, 8, NULL);
    luaL_buffinit(L, &b);
    for (int i = first; i <= n && luaL_bufflen(&b) < TEXT_MAX; i++) {
        if (i > first) luaL_addchar(&b, ' ');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
}

static size_t clean(char to[TEXT_MAX], const char *text, size_t n) {
    if (n > TEXT_MAX) n = TEXT_MAX;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        to[i] = (c < ' ' && c != '\n' && c != '\t') || c == 0x7f ? '?' : (char)c;
    }
    return n;
}

static const char *request_id(lua_State *L) {
    const struct subject *s = subject_of(L);
    return s && s->exchange ? s->exchange->id : NULL;
}

static int gate_log(lua_State *L) {
    char text[TEXT_MAX];
    size_t n;
    if (lua_gettop(L) == 0) return luaL_argerror(L, 1, "a value expected");
    bool levelled = lua_gettop(L) > 1;
    enum log_level level = levelled ? level_check(L) : LOG_LEVEL_INFO;
    if (!log_wants(level)) return 0;
    push_text(L, levelled ? 2 : 1);
    const char *p = lua_tolstring(L, -1, &n);
    n = clean(text, p, n);
    luaL_where(L, 1);
    const char *where = lua_tostring(L, -1), *id = request_id(L);
    if (id) log_write(level, "%s%.*s (request %s)", where, (int)n, text, id);
    else log_write(level, "%s%.*s", where, (int)n, text);
    return 0;
}

void bind_log_open(lua_State *L) {
    lua_pushcfunction(L, gate_log);
    lua_setfield(L, -2, "log");
}
