/* body:map and body:replace: the script's function or pairs of texts as a stage of the body's pipe. What was declared
 * is what text and chunks give from then on: it is what will be sent. */
#include "lua/body_inside.h"

#include "lua/body_map.h"
#include "proxy/stages.h"

enum { REPLACE_BYTES = 1 << 20 };

static const char *const change_options[] = { "plain", NULL };

/* Raises unless it may be changed. A part cannot: the change could fall on its borders. */
static struct pipe *changeable_check(lua_State *L, const struct body *b) {
    struct pipe *p = body_pipe_check(L, b);
    if (body_is_partial(b)) body_raise(L, FAIL_PARTIAL);
    body_check_coding(L, b);
    if (p->state == PIPE_FAILED) body_raise(L, p->why);
    return p;
}

static bool plain_option(lua_State *L, int arg, const char *what) {
    options_check(L, arg, what, change_options);
    int type = option_push(L, arg, "plain");
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "%s: plain is true or false", what);
    bool plain = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return plain;
}

/* From here on nothing may raise. */
static void change(struct body *b, struct pipe *p, bool plain, struct pipe_stage *stage) {
    struct content *c = body_content(b);
    content_decode(c, p, body_decoded_most(b), body_failures(b));
    content_change(c, body_headers(b), body_framing(b));
    if (plain) c->plain = true;
    pipe_add_stage(p, stage);
}

/* body:map(f[, options]) */
int body_map(lua_State *L) {
    lua_settop(L, 3);
    struct body *b = body_self(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    bool plain = plain_option(L, 3, "body:map");
    struct pipe *p = changeable_check(L, b);
    lua_pushvalue(L, 2);
    change(b, p, plain, stage_map(L, b->side == SIDE_REQUEST ? FAIL_HOOK_FAILED : FAIL_RESPONSE_HOOK_FAILED));
    lua_settop(L, 1);
    return 1;
}

/* A pair of texts, at two places of the stack. */
static void read_pair(lua_State *L, int from, int to, struct replacement *r, size_t *bytes) {
    if (lua_type(L, from) != LUA_TSTRING || lua_type(L, to) != LUA_TSTRING)
        luaL_error(L, "body:replace takes strings, not a %s and a %s", luaL_typename(L, from), luaL_typename(L, to));
    r->from = text_check(L, from);
    r->to = text_check(L, to);
    if (r->from.n == 0) luaL_error(L, "body:replace: an empty text stands everywhere");
    if (r->from.n > REPLACE_FROM_MAX)
        luaL_error(L, "body:replace: a text to be replaced has at most %d bytes", REPLACE_FROM_MAX);
    *bytes += r->from.n + r->to.n;
    if (*bytes > REPLACE_BYTES) luaL_error(L, "body:replace: the texts are larger than 1 MiB");
}

/* The strings stay in memory: they are in the table, which stays on the stack. */
static unsigned read_pairs(lua_State *L, int table, struct replacement *list) {
    unsigned count = 0;
    size_t bytes = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (count == REPLACEMENTS_MAX) luaL_error(L, "body:replace takes at most %d texts", REPLACEMENTS_MAX);
        int top = lua_gettop(L);
        read_pair(L, top - 1, top, &list[count++], &bytes);
    }
    return count;
}

/* body:replace(from, to[, options]), body:replace({ from = to, … }[, options]) */
int body_replace(lua_State *L) {
    struct replacement list[REPLACEMENTS_MAX];
    unsigned count = 1;
    size_t bytes = 0;
    lua_settop(L, 4);
    struct body *b = body_self(L, 1);
    bool listed = lua_istable(L, 2);
    bool plain = plain_option(L, listed ? 3 : 4, "body:replace");
    if (listed) count = read_pairs(L, 2, list);
    else read_pair(L, 2, 3, &list[0], &bytes);
    budget_spend(L, count * 64 + 1);
    struct pipe *p = changeable_check(L, b);
    if (count) change(b, p, plain, stage_replace(list, count));
    lua_settop(L, 1);
    return 1;
}
