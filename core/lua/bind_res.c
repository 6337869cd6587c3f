/* `res`: the answer, from wherever it comes, as policy sees it: writable until its head leaves. In on_store it is the
 * response that is about to be stored, while the exchange may be answering its client with another one. */
#include "lua/bind.h"

static const struct handle_kind kind = { .name = "moongate.res" };

/* As the access log and the metrics count it. */
enum { STATUS_CLIENT_LEFT = 499 };

static struct exchange *exchange_of(void *view) { return ((struct view *)view)->exchange; }
static struct response *response_of(void *view) { return ((struct view *)view)->answer.response; }

static void push_text(lua_State *L, const char *text) {
    if (text) lua_pushstring(L, text);
    else lua_pushnil(L);
}

/* ---- getters */

static void get_status(lua_State *L, void *v) {
    int status = response_of(v)->status;
    lua_pushinteger(L, status ? status : STATUS_CLIENT_LEFT);
}

static void get_headers(lua_State *L, void *v) { response_headers_push(L, v); }
static void get_body(lua_State *L, void *v) { body_push(L, v, SIDE_RESPONSE); }

static void get_source(lua_State *L, void *v) {
    enum response_source source = ((struct view *)v)->storing ? SOURCE_BACKEND : exchange_of(v)->source;
    push_text(L, source == SOURCE_NONE ? NULL : exchange_source_name(source));
}

/* NULL: there was none, or it was a fill's and left its names with the exchange. */
static const struct fetch *fetch_of(const struct view *v) {
    return v->storing ? fill_fetch(v->storing->fill) : v->exchange->fetch;
}

static void push_slice(lua_State *L, struct slice s) {
    if (s.p) lua_pushlstring(L, s.p, s.n);
    else lua_pushnil(L);
}

static void get_server(lua_State *L, void *v) {
    const struct fetch *f = fetch_of(v);
    push_slice(L, !f ? exchange_of(v)->server_name : slice_of(f->server ? f->server->name : NULL));
}

static void get_backend(lua_State *L, void *v) {
    const struct fetch *f = fetch_of(v);
    push_slice(L, !f ? exchange_of(v)->backend_name : slice_of(f->backend ? f->backend->name : NULL));
}

static void get_tries(lua_State *L, void *v) {
    const struct fetch *f = fetch_of(v);
    lua_pushinteger(L, f ? f->tries : exchange_of(v)->tries);
}

static void get_cache(lua_State *L, void *v) { response_cache_push(L, v); }

static void get_time(lua_State *L, void *view) {
    const struct view *v = view;
    const struct exchange *x = v->exchange;
    if (v->storing) lua_pushnumber(L, fetch_of(v)->first_byte - x->fetch_began);
    else if (x->first_byte > 0) lua_pushnumber(L, x->first_byte - x->fetch_began);
    else lua_pushnil(L);
}

/* ---- setters */

static void set_status(lua_State *L, void *view) {
    struct view *v = view;
    view_check_response(L, v);
    lua_Integer status = lua_type(L, 3) == LUA_TNUMBER ? lua_tointeger(L, 3) : 0;
    if (status < 200 || status > 599) luaL_error(L, "res.status is a whole number from 200 to 599");
    v->answer.response->status = (int)status;
    v->answer.response->reason = status_reason((int)status);
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
    handle_push(L, s, HANDLE_RES, &kind, storing_of(s) ? view_create(s) : view_of(L, s));
}

void bind_res_open(lua_State *L) { object_kind_open(L, &kind, fields, metamethods, NULL); }
