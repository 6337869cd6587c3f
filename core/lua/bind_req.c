/* `req`: the request as policy sees it. One object through all hooks of an exchange; its parts (headers, args,
 * cookies, body, client, cache) are objects of their own, made when first asked for.
 *
 * What is assigned is what is forwarded. Assigned paths obey the rule for paths that came: what cannot stand in a
 * path is percent-encoded, then it is normalised (unless the site says raw_target), so that a later check sees what
 * the backend will see. `target` stays what came. */
#include "lua/bind.h"

#include "http/grammar.h"
#include "http/uri.h"

#include <math.h>

static const struct handle_kind kind = { .name = "moongate.req" };

static struct exchange *exchange_of(void *view) { return ((struct view *)view)->exchange; }
static struct target *target_of(void *view) { return &exchange_of(view)->request.target; }

static void push_slice(lua_State *L, struct slice s) { lua_pushlstring(L, s.n ? s.p : "", s.n); }

/* ---- getters */

static void get_method(lua_State *L, void *v) { push_slice(L, exchange_of(v)->request.method_name); }
static void get_host(lua_State *L, void *v) { push_slice(L, target_of(v)->host); }
static void get_path(lua_State *L, void *v) { push_slice(L, target_of(v)->path); }
static void get_target(lua_State *L, void *v) { push_slice(L, target_of(v)->raw); }
static void get_version(lua_State *L, void *v) {
    struct slice name = http_version_name(exchange_of(v)->request.version);
    lua_pushlstring(L, name.p + 5, 3); /* behind "HTTP/" */
}
static void get_id(lua_State *L, void *v) { lua_pushlstring(L, exchange_of(v)->id, REQUEST_ID_SIZE); }
static void get_site(lua_State *L, void *v) { push_slice(L, exchange_of(v)->site_name); }
static void get_forward(lua_State *L, void *v) { lua_pushboolean(L, exchange_of(v)->forward); }
static void get_headers(lua_State *L, void *v) { request_headers_push(L, v); }
static void get_args(lua_State *L, void *v) { args_push(L, v); }
static void get_cookies(lua_State *L, void *v) { cookies_push(L, v); }
static void get_body(lua_State *L, void *v) { body_push(L, v, SIDE_REQUEST); }
static void get_client(lua_State *L, void *v) { client_push(L, v); }
static void get_cache(lua_State *L, void *v) { request_cache_push(L, v); }

static struct slice scheme_of(void *v) {
    struct slice believed = exchange_of(v)->forwarded_scheme;
    return believed.p ? believed : target_of(v)->scheme;
}

static void get_scheme(lua_State *L, void *v) { push_slice(L, scheme_of(v)); }

static void get_port(lua_State *L, void *v) {
    uint16_t port = target_of(v)->port;
    if (port == 0) port = slice_equal(scheme_of(v), SLICE("https")) ? 443 : 80;
    lua_pushinteger(L, port);
}

static void get_max_body(lua_State *L, void *v) {
    uint64_t most = exchange_of(v)->max_body;
    if (most > LUA_MAXINTEGER) lua_pushnumber(L, HUGE_VAL);
    else lua_pushinteger(L, (lua_Integer)most);
}

static void get_query(lua_State *L, void *v) {
    struct slice query = target_of(v)->query;
    if (query.p) push_slice(L, query);
    else lua_pushnil(L);
}

static void get_ctx(lua_State *L, void *v) {
    struct subject *subject = &exchange_of(v)->subject;
    if (slot_push_part(L, subject, HANDLE_CTX)) return;
    lua_createtable(L, 0, 4);
    lua_pushvalue(L, -1);
    slot_set(L, subject, HANDLE_CTX);
}

/* ---- setters: the value is at index 3 */

static struct slice assigned_text(lua_State *L, const char *name) {
    if (lua_type(L, 3) != LUA_TSTRING) luaL_error(L, "req.%s is a string, not a %s", name, luaL_typename(L, 3));
    return text_check(L, 3);
}

/* HEAD decides whether the answer has a body, for both sides: it cannot come or go on the way. */
static void set_method(lua_State *L, void *view) {
    struct view *v = view;
    struct request *request = &v->exchange->request;
    view_check_request(L, v);
    struct slice name = assigned_text(L, "method");
    enum method method = method_of(name);
    if (!header_name_valid(name)) luaL_error(L, "req.method is a token (RFC 9110 9.1), which this is not");
    if (method == METHOD_CONNECT) luaL_error(L, "req.method cannot become CONNECT");
    if (request->method == METHOD_CONNECT) luaL_error(L, "the method of a CONNECT cannot be changed");
    if ((method == METHOD_HEAD) != (request->method == METHOD_HEAD))
        luaL_error(L, "req.method cannot change from or to HEAD");
    request->method_name = view_copy(L, v, name);
    request->method = method;
}

static bool is_hex_escape(struct slice s) { return s.n >= 3 && byte_is(s.p[1], BYTE_HEX) && byte_is(s.p[2], BYTE_HEX); }

static bool stands(struct slice s, bool query) {
    if (s.p[0] == '%') return query || is_hex_escape(s);
    if (s.p[0] == '?') return query;
    return byte_is(s.p[0], BYTE_TARGET);
}

struct slice target_encode(struct arena *arena, struct slice s, bool query) {
    static const char digits[] = "0123456789ABCDEF";
    char *start = arena_bytes(arena, 3 * s.n + 1), *out = start;
    for (; s.n; s = slice_skip(s, 1)) {
        if (stands(s, query)) {
            *out++ = s.p[0];
            continue;
        }
        *out++ = '%';
        *out++ = digits[(unsigned char)s.p[0] >> 4];
        *out++ = digits[(unsigned char)s.p[0] & 15];
    }
    return slice_make(start, (size_t)(out - start));
}

/* A CONNECT names a host and a port, and nothing of what is asked there. */
static void check_has_path(lua_State *L, struct view *v, const char *name) {
    view_check_request(L, v);
    if (v->exchange->request.method == METHOD_CONNECT) luaL_error(L, "a CONNECT has no %s", name);
}

static void set_path(lua_State *L, void *view) {
    struct view *v = view;
    struct exchange *x = v->exchange;
    check_has_path(L, v, "path");
    struct slice text = assigned_text(L, "path");
    if (!text.n || text.p[0] != '/') luaL_error(L, "req.path begins with \"/\"");
    view_charge(L, v, 4 * text.n);
    struct slice path = target_encode(&x->arena, text, false);
    if (!x->site || !x->site->raw_target) path = path_normalise(&x->arena, path);
    if (!path.p) luaL_error(L, "req.path has a NUL in it");
    x->request.target.path = path;
    x->target_changed = true;
}

static void set_query(lua_State *L, void *view) {
    struct view *v = view;
    struct slice query = { NULL, 0 };
    check_has_path(L, v, "query");
    if (!lua_isnil(L, 3)) {
        struct slice text = assigned_text(L, "query");
        view_charge(L, v, 3 * text.n);
        query = target_encode(&v->exchange->arena, text, true);
    }
    target_of(v)->query = query;
    v->exchange->target_changed = true;
}

void request_assign_host(lua_State *L, struct view *v, int arg) {
    struct exchange *x = v->exchange;
    struct slice host;
    uint16_t port;
    view_check_request(L, v);
    if (lua_type(L, arg) != LUA_TSTRING)
        luaL_error(L, "the host of a request is a string, not a %s", luaL_typename(L, arg));
    struct slice text = view_copy(L, v, text_check(L, arg));
    if (!authority_parse(&x->arena, text, &host, &port))
        luaL_error(L, "the host of a request is \"name\" or \"name:port\", which this is not");
    bool connect = x->request.method == METHOD_CONNECT;
    x->request.target.host = host;
    if (port || !connect) x->request.target.port = port; /* a CONNECT always has one */
    x->target_changed = true;
    headers_set_id(&x->request.headers, HEADER_HOST, text);
}

static void set_host(lua_State *L, void *v) { request_assign_host(L, v, 3); }

/* It can only be lowered: the site's max_body is what the operator can rely on. */
static void set_max_body(lua_State *L, void *view) {
    struct exchange *x = exchange_of(view);
    uint64_t most;
    view_check_request(L, view);
    if (!size_read(L, 3, &most))
        luaL_error(L, "req.max_body is a whole number of bytes or such as \"64K\", not %s", value_name_push(L, 3));
    if (most < x->max_body) x->max_body = most;
}

/* ---- table */

static const struct field fields[] = {
    { "method", get_method, set_method },
    { "scheme", get_scheme, NULL },
    { "host", get_host, set_host },
    { "port", get_port, NULL },
    { "path", get_path, set_path },
    { "query", get_query, set_query },
    { "target", get_target, NULL },
    { "version", get_version, NULL },
    { "args", get_args, NULL },
    { "headers", get_headers, NULL },
    { "cookies", get_cookies, NULL },
    { "body", get_body, NULL },
    { "client", get_client, NULL },
    { "id", get_id, NULL },
    { "ctx", get_ctx, NULL },
    { "cache", get_cache, NULL },
    { "site", get_site, NULL },
    { "max_body", get_max_body, set_max_body },
    { "forward", get_forward, NULL },
    { NULL, NULL, NULL },
};

static int req_index(lua_State *L) { return object_index(L, object_self(L, 1, &kind), fields, "req"); }
static int req_newindex(lua_State *L) { return object_newindex(L, object_self(L, 1, &kind), fields, "req"); }

static const luaL_Reg metamethods[] = { { "__index", req_index }, { "__newindex", req_newindex }, { NULL, NULL } };

/* ---- open */

void req_push(lua_State *L, struct subject *s) {
    if (slot_push(L, s, HANDLE_REQ)) return;
    handle_push(L, s, HANDLE_REQ, &kind, view_create(&s->exchange->subject));
}

void bind_req_open(lua_State *L) {
    object_kind_open(L, &kind, fields, metamethods, NULL);
    bind_client_open(L);
}
