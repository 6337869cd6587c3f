/* `req.cache`: what policy wants of the cache for this request. `bypass`: neither answered from it nor stored in it.
 * `refresh`: not answered from it, but the new answer is stored. */
#include "lua/bind.h"

static const struct handle_kind kind = { .name = "moongate.cache" };

static void get_bypass(lua_State *L, void *v) { lua_pushboolean(L, ((struct view *)v)->exchange->cache_bypass); }
static void get_refresh(lua_State *L, void *v) { lua_pushboolean(L, ((struct view *)v)->exchange->cache_refresh); }

static bool assigned_boolean(lua_State *L, const struct view *v, const char *name) {
    view_check_request(L, v);
    if (!lua_isboolean(L, 3) && !lua_isnil(L, 3))
        luaL_error(L, "req.cache.%s is true or false, not a %s", name, luaL_typename(L, 3));
    return lua_toboolean(L, 3);
}

static void set_bypass(lua_State *L, void *v) {
    ((struct view *)v)->exchange->cache_bypass = assigned_boolean(L, v, "bypass");
}
static void set_refresh(lua_State *L, void *v) { ((struct view *)v)->exchange->cache_refresh = assigned_boolean(L, v, "refresh"); }

static const struct field fields[] = {
    { "bypass", get_bypass, set_bypass },
    { "refresh", get_refresh, set_refresh },
    { NULL, NULL, NULL },
};

static int cache_index(lua_State *L) { return object_index(L, object_self(L, 1, &kind), fields, "req.cache"); }
static int cache_newindex(lua_State *L) { return object_newindex(L, object_self(L, 1, &kind), fields, "req.cache"); }

static const luaL_Reg metamethods[] = { { "__index", cache_index }, { "__newindex", cache_newindex }, { NULL, NULL } };

void request_cache_push(lua_State *L, struct view *v) {
    handle_push_part(L, &v->exchange->subject, HANDLE_REQ_CACHE, &kind, v);
}

void bind_cache_open(lua_State *L) { object_kind_open(L, &kind, fields, metamethods, NULL); }
