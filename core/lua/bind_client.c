/* `req.client`: who sends the request: behind trusted proxies, who they say it is. And the client of on_connect, of whom
 * less is known. */
#include "lua/bind.h"

#include "proxy/admission.h"

static const struct handle_kind kind = { .name = "moongate.client" };

static const struct addr *addr_of(void *view) { return &((struct view *)view)->exchange->client_addr; }

static void push_ip(lua_State *L, const struct addr *addr) {
    char text[ADDR_TEXT];
    struct slice ip = addr_ip_text(addr, text);
    lua_pushlstring(L, ip.p, ip.n);
}

static void push_port(lua_State *L, const struct addr *addr) {
    uint16_t port = addr->u.sa.sa_family == AF_UNIX ? 0 : addr_port(addr);
    if (port) lua_pushinteger(L, port);
    else lua_pushnil(L);
}

static void get_ip(lua_State *L, void *view) { push_ip(L, addr_of(view)); }

/* Unix sockets have none, and a trusted proxy often does not tell. */
static void get_port(lua_State *L, void *view) { push_port(L, addr_of(view)); }

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

/* ---- on_connect's */

static const struct handle_kind arrival_kind = { .name = "moongate.arrival", .ended = "on_connect has ended" };

static void get_arrival_ip(lua_State *L, void *arrival) { push_ip(L, ((struct arrival *)arrival)->addr); }
static void get_arrival_port(lua_State *L, void *arrival) { push_port(L, ((struct arrival *)arrival)->addr); }
static void get_listener(lua_State *L, void *arrival) { lua_pushstring(L, ((struct arrival *)arrival)->listener); }

static const struct field arrival_fields[] = {
    { "ip", get_arrival_ip, NULL },
    { "port", get_arrival_port, NULL },
    { "listener", get_listener, NULL },
    { NULL, NULL, NULL },
};

static int arrival_index(lua_State *L) {
    return object_index(L, object_self(L, 1, &arrival_kind), arrival_fields, "client");
}

static int arrival_newindex(lua_State *L) {
    return object_newindex(L, object_self(L, 1, &arrival_kind), arrival_fields, "client");
}

static const luaL_Reg arrival_metamethods[] = { { "__index", arrival_index },
                                                { "__newindex", arrival_newindex },
                                                { NULL, NULL } };

void arrival_push(lua_State *L, struct subject *subject, const struct arrival *arrival) {
    handle_push(L, subject, HANDLE_CLIENT, &arrival_kind, (void *)(uintptr_t)arrival);
}

void bind_client_open(lua_State *L) {
    object_kind_open(L, &kind, fields, metamethods, NULL);
    object_kind_open(L, &arrival_kind, arrival_fields, arrival_metamethods, NULL);
    bind_client_tls_open(L);
}
