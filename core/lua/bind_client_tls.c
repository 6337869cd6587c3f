/* `req.client.tls`: what is known of the client's TLS connection, and of its certificate if it showed one. Each text is
 * made when it is first asked for, and kept with the exchange. */
#include "lua/bind.h"

#include "net/tls.h"

enum { FACTS = TLS_FACT_NAMES + 1 };

struct client_tls {
    struct exchange *exchange;
    bool known[FACTS];
    struct slice facts[FACTS];
};

static const struct handle_kind kind = { .name = "moongate.client_tls" };

/* NULL: the client has left. */
static const struct conn *conn_of(const struct client_tls *t) {
    return t->exchange->stream ? &t->exchange->stream->client->conn : NULL;
}

static struct slice find_fact(struct client_tls *t, enum tls_fact fact) {
    if (!t->known[fact] && conn_of(t)) {
        t->facts[fact] = conn_tls_fact(conn_of(t), fact, &t->exchange->arena);
        t->known[fact] = true;
    }
    return t->facts[fact];
}

static void push_fact(lua_State *L, struct client_tls *t, enum tls_fact fact) {
    struct slice text = find_fact(t, fact);
    if (text.p) lua_pushlstring(L, text.p, text.n);
    else lua_pushnil(L);
}

static void get_version(lua_State *L, void *t) { push_fact(L, t, TLS_FACT_VERSION); }
static void get_cipher(lua_State *L, void *t) { push_fact(L, t, TLS_FACT_CIPHER); }
static void get_sni(lua_State *L, void *t) { push_fact(L, t, TLS_FACT_NAME); }
static void get_alpn(lua_State *L, void *t) { push_fact(L, t, TLS_FACT_ALPN); }
static void get_subject(lua_State *L, void *t) { push_fact(L, t, TLS_FACT_SUBJECT); }
static void get_issuer(lua_State *L, void *t) { push_fact(L, t, TLS_FACT_ISSUER); }
static void get_serial(lua_State *L, void *t) { push_fact(L, t, TLS_FACT_SERIAL); }
static void get_fingerprint(lua_State *L, void *t) { push_fact(L, t, TLS_FACT_FINGERPRINT); }

static void get_resumed(lua_State *L, void *t) { lua_pushboolean(L, conn_of(t) && conn_tls_resumed(conn_of(t))); }
static void get_early(lua_State *L, void *t) { lua_pushboolean(L, conn_of(t) && conn_tls_early(conn_of(t))); }
static void get_verified(lua_State *L, void *t) { lua_pushboolean(L, conn_of(t) && conn_tls_verified(conn_of(t))); }

static void get_not_after(lua_State *L, void *t) {
    double at = conn_of(t) ? conn_tls_not_after(conn_of(t)) : 0;
    if (at > 0) lua_pushnumber(L, at);
    else lua_pushnil(L);
}

static void get_san(lua_State *L, void *t) {
    struct slice rest = find_fact(t, TLS_FACT_NAMES);
    if (!rest.p) {
        lua_pushnil(L);
        return;
    }
    lua_newtable(L);
    for (lua_Integer i = 1; rest.n; i++) {
        struct slice line = slice_cut(&rest, '\n');
        budget_spend(L, 1);
        lua_pushlstring(L, line.p, line.n);
        lua_rawseti(L, -2, i);
    }
}

static const struct field fields[] = {
    { "version", get_version, NULL },
    { "cipher", get_cipher, NULL },
    { "sni", get_sni, NULL },
    { "alpn", get_alpn, NULL },
    { "resumed", get_resumed, NULL },
    { "early", get_early, NULL },
    { "verified", get_verified, NULL },
    { "subject", get_subject, NULL },
    { "issuer", get_issuer, NULL },
    { "serial", get_serial, NULL },
    { "fingerprint", get_fingerprint, NULL },
    { "not_after", get_not_after, NULL },
    { "san", get_san, NULL },
    { NULL, NULL, NULL },
};

static int client_tls_index(lua_State *L) {
    return object_index(L, object_self(L, 1, &kind), fields, "req.client.tls");
}
static int client_tls_newindex(lua_State *L) {
    return object_newindex(L, object_self(L, 1, &kind), fields, "req.client.tls");
}

static const luaL_Reg metamethods[] = { { "__index", client_tls_index },
                                        { "__newindex", client_tls_newindex },
                                        { NULL, NULL } };

void client_tls_push(lua_State *L, struct view *v) {
    struct exchange *x = v->exchange;
    if (slot_push(L, &x->subject, HANDLE_CLIENT_TLS)) return;
    if (!x->stream || !x->stream->client->conn.tls) {
        lua_pushnil(L);
        return;
    }
    struct client_tls *t = arena_alloc_zeroed(&x->arena, sizeof *t);
    t->exchange = x;
    handle_push(L, &x->subject, HANDLE_CLIENT_TLS, &kind, t);
}

void bind_client_tls_open(lua_State *L) { object_kind_open(L, &kind, fields, metamethods, NULL); }
