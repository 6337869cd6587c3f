/* `res`: the answer, from wherever it comes, as policy sees it: writable until its head leaves. */
#include "lua/bind.h"

static const struct handle_kind kind = { .name = "moongate.res" };

/* As the access log and the metrics count it. */
enum { STATUS_CLIENT_LEFT = 499 };

static struct exchange *exchange_of(void *view) { return ((struct view *)view)->exchange; }

static void push_text(lua_State *L, const char *text) {
    if (text) lua_pushstring(L, text);
    else lua_pushnil(L);
}

/* ---- getters */

static void get_status(lua_State *L, void *v) {
    int status = exchange_of(v)->response.status;
    lua_pushinteger(L, status ? status : STATUS_CLIENT_LEFT);
}

static void get_headers(lua_State *L, void *v) { response_headers_push(L, v); }
static void get_body(lua_State *L, void *v) { body_push(L, v, SIDE_RESPONSE); }

static void get_source(lua_State *L, void *v) {
    enum response_source source = exchange_of(v)->source;
    push_text(L, source == SOURCE_NONE ? NULL : exchange_source_name(source));
}

static void get_server(lua_State *L, void *v) {
    const struct fetch *f = exchange_of(v)->fetch;
    push_text(L, f && f->server ? f->server->name : NULL);
}

static void get_backend(lua_State *L, void *v) {
    const struct fetch *f = exchange_of(v)->fetch;
    push_text(L, f && f->backend ? f->backend->name : NULL);
}

static void get_tries(lua_State *L, void *v) {
    const struct fetch *f = exchange_of(v)->fetch;
    lua_pushinteger(L, f ? f->tries : 0);
}

/* Filled when there is a cache. */
static void get_cache(lua_State *L, void *v) {
    (void)v;
    lua_pushnil(L);
}

static void get_time(lua_State *L, void *v) {
    const struct exchange *x = exchange_of(v);
    if (x->first_byte > 0) lua_pushnumber(L, x->first_byte - x->fetch_began);
    else lua_pushnil(L);
}

/* ---- setters */

static void set_status(lua_State *L, void *view) {
    struct view *v = view;
    view_check_response(L, v);
    lua_Integer status = lua_type(L, 3) == LUA_TNUMBER ? lua_tointeger(L, 3) : 0;
    if (status < 200 || status > 599) luaL_error(L, "res.status is a whole number from 200 to 599");
    v->exchange->response.status = (int)status;
    v->exchange->response.reason = status_reason((int)status);
}

static void set_body(lua_State *L, void *v) { body_assign(L, v); }

/* ---- table */

static const struct field fields[] = {
    { "status", get_status, set_status }, { "headers", get_headers, NULL },
    { "body", get_body, set_body },       { "source", get_source, NULL },
    { "server", get_server, NULL },       { "backend", get_backend, NULL },
    { "tries", get_tries, NULL },         { "cache", get_cache, NULL },
    { "time", get_time, NULL },           { NULL, NULL, NULL },
};

static int res_index(lua_State *L) { return object_index(L, object_self(L, 1, &kind), fields, "res"); }
static int res_newindex(lua_State *L) { return object_newindex(L, object_self(L, 1, &kind), fields, "res"); }

static const luaL_Reg metamethods[] = { { "__index", res_index }, { "__newindex", res_newindex }, { NULL, NULL } };

/* ---- open */

void res_push(lua_State *L, struct subject *s) {
    if (slot_push(L, s, HANDLE_RES)) return;
    handle_push(L, s, HANDLE_RES, &kind, view_of(L, s));
}

void bind_res_open(lua_State *L) { object_kind_open(L, &kind, fields, metamethods, NULL); }
