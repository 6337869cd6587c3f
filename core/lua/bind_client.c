/* `req.client`: who sends the request: behind trusted proxies, who they say it is. */
#include "lua/bind.h"

static const struct handle_kind kind = { .name = "moongate.client" };

static const struct addr *addr_of(void *view) { return &((struct view *)view)->exchange->client_addr; }

static void get_ip(lua_State *L, void *view) {
    char text[ADDR_TEXT];
    struct slice ip = addr_ip_text(addr_of(view), text);
    lua_pushlstring(L, ip.p, ip.n);
}

/* Unix sockets have none, and a trusted proxy often does not tell. */
static void get_port(lua_State *L, void *view) {
    const struct addr *addr = addr_of(view);
    uint16_t port = addr->u.sa.sa_family == AF_UNIX ? 0 : addr_port(addr);
    if (port) lua_pushinteger(L, port);
    else lua_pushnil(L);
}

static void get_tls(lua_State *L, void *view) { client_tls_push(L, view); }

/* Filled when there is scoring. */
static void get_nil(lua_State *L, void *view) {
    (void)view;
    lua_pushnil(L);
}

static const struct field fields[] = {
    { "ip", get_ip, NULL },     { "port", get_port, NULL }, { "tls", get_tls, NULL },
    { "score", get_nil, NULL }, { NULL, NULL, NULL },
};

static int client_index(lua_State *L) { return object_index(L, object_self(L, 1, &kind), fields, "req.client"); }
static int client_newindex(lua_State *L) { return object_newindex(L, object_self(L, 1, &kind), fields, "req.client"); }

static const luaL_Reg metamethods[] = { { "__index", client_index },
                                        { "__newindex", client_newindex },
                                        { NULL, NULL } };

void client_push(lua_State *L, struct view *v) { handle_push_part(L, &v->exchange->subject, HANDLE_CLIENT, &kind, v); }

void bind_client_open(lua_State *L) {
    object_kind_open(L, &kind, fields, metamethods, NULL);
    bind_client_tls_open(L);
}
