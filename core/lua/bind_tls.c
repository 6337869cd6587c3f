/* gate.tls: what connections to servers trust, for the `tls` of gate.fetch and of sockets.
 *
 *     local internal = gate.tls { ca = "internal.pem", name = "db.internal" }
 *
 * Its files are read while the config is loaded, like modules; a hook can only give the PEM itself. What it makes is
 * shared with every worker that asks for the same (net/tls.h), so a table written in a hook costs a digest, not a
 * parser. */
#include "lua/bind.h"

#include "lua/state_rest.h"
#include "net/tls.h"

enum { PEM_MAX = 1 << 20, PINS_MOST = 64, NAME_MOST = 253 };

static void trust_collect(void *pointer) { tls_trust_unref(((struct lua_trust *)pointer)->trust); }

static const struct handle_kind kind = { .name = "moongate.tls", .collect = trust_collect };

static const char *const option_names[] = { "ca", "cert", "key", "verify", "pins", "versions", "name", NULL };

/* ---- options: the table is at `index`; what they hold stays on the stack until the trust is made */

static struct slice read_file(lua_State *L, const char *what, const char *name, const char *path) {
    struct state *state = state_of(L);
    const char *why = NULL;
    size_t n = 0;
    if (!state->loading) luaL_error(L, "%s: %s is PEM here: files are read while the config is loaded", what, name);
    const char *text = sources_file(state->rest->sources, path, &n, &why);
    if (!text) luaL_error(L, "%s: %s: %s: %s", what, name, path, why);
    return slice_make(text, n);
}

static struct slice read_pem(lua_State *L, int index, const char *what, const char *name) {
    size_t n;
    int type = option_push(L, index, name);
    if (type == LUA_TNIL) return slice_make(NULL, 0);
    if (type != LUA_TSTRING) luaL_error(L, "%s: %s is a file or PEM, not a %s", what, name, luaL_typename(L, -1));
    const char *p = lua_tolstring(L, -1, &n);
    if (n > PEM_MAX) luaL_error(L, "%s: %s is longer than 1 MiB", what, name);
    budget_spend(L, n / 64);
    if (memmem(p, n, "-----BEGIN ", 11)) return slice_make(p, n);
    return read_file(L, what, name, p);
}

static bool read_verify(lua_State *L, int index, const char *what) {
    int type = option_push(L, index, "verify");
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) luaL_error(L, "%s: verify is true or false", what);
    return type == LUA_TNIL || lua_toboolean(L, -1);
}

/* Pushes entry `i` of the list on top, or the string itself if it is no list. False: there are no more. */
static bool push_entry(lua_State *L, int list, lua_Integer i) {
    if (lua_type(L, list) == LUA_TTABLE) return lua_rawgeti(L, list, i) != LUA_TNIL;
    lua_pushvalue(L, list);
    return i == 1 && !lua_isnil(L, list);
}

static unsigned read_pins(lua_State *L, int index, const char *what, struct slice pins[PINS_MOST]) {
    option_push(L, index, "pins");
    int list = lua_gettop(L);
    unsigned count = 0;
    luaL_checkstack(L, PINS_MOST + 8, "pins"); /* they stay there */
    for (; push_entry(L, list, count + 1); count++) {
        if (count == PINS_MOST) luaL_error(L, "%s: at most %d pins", what, PINS_MOST);
        struct slice pin = { "", 0 };
        if (lua_type(L, -1) == LUA_TSTRING) pin.p = lua_tolstring(L, -1, &pin.n);
        if (!tls_pin_valid(pin))
            luaL_error(L, "%s: a pin is \"sha256/\" and the base64 of a public key's SHA-256", what);
        pins[count] = pin;
    }
    return count;
}

static unsigned read_versions(lua_State *L, int index, const char *what) {
    option_push(L, index, "versions");
    int list = lua_gettop(L);
    unsigned versions = 0;
    for (lua_Integer i = 1; push_entry(L, list, i); i++, lua_pop(L, 1)) {
        const char *version = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
        if (strcmp(version, "1.2") == 0) versions |= TLS_1_2;
        else if (strcmp(version, "1.3") == 0) versions |= TLS_1_3;
        else luaL_error(L, "%s: versions are \"1.2\" and \"1.3\"", what);
        budget_spend(L, 1);
    }
    return versions;
}

/* The string is kept by the userdata's user value. */
static void read_name(lua_State *L, int index, const char *what, int object, struct lua_trust *t) {
    int type = option_push(L, index, "name");
    if (type == LUA_TNIL) return;
    size_t n = 0;
    const char *p = type == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
    if (n == 0 || n > NAME_MOST || strlen(p) != n) luaL_error(L, "%s: name is a host name", what);
    lua_setiuservalue(L, object, 1);
    t->name = slice_make(p, n);
}

static struct lua_trust *trust_make(lua_State *L, int index, const char *what) {
    struct slice pins[PINS_MOST];
    char why[256];
    options_check(L, index, what, option_names);
    struct lua_trust *t = object_new(L, &kind, sizeof *t, 1);
    int object = lua_gettop(L);
    struct tls_trust_settings settings = { .pins = pins };
    settings.ca = read_pem(L, index, what, "ca");
    settings.cert = read_pem(L, index, what, "cert");
    settings.key = read_pem(L, index, what, "key");
    settings.unverified = !read_verify(L, index, what);
    settings.versions = read_versions(L, index, what);
    settings.pin_count = read_pins(L, index, what, pins);
    read_name(L, index, what, object, t);
    if (settings.key.p && !settings.cert.p) luaL_error(L, "%s: key without cert", what);
    t->trust = tls_trust_get(&settings, why, sizeof why);
    if (!t->trust) luaL_error(L, "%s: %s", what, why);
    if (state_of(L)->loading && !tls_trust_prepare(t->trust, why, sizeof why)) luaL_error(L, "%s: %s", what, why);
    lua_settop(L, object);
    return t;
}

const struct lua_trust *trust_check(lua_State *L, int index, const char *what) {
    index = lua_absindex(L, index);
    luaL_checkstack(L, 16, "tls");
    if (lua_type(L, index) == LUA_TTABLE) return trust_make(L, index, what);
    const struct handle *h = handle_test(L, index, &kind);
    if (!h) luaL_error(L, "%s is a table, or what gate.tls made, not a %s", what, luaL_typename(L, index));
    lua_pushvalue(L, index);
    return (const struct lua_trust *)h;
}

/* ---- the function */

static int gate_tls(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    trust_make(L, 1, "gate.tls");
    return 1;
}

void bind_tls_open(lua_State *L) {
    object_kind_open(L, &kind, NULL, NULL, NULL);
    lua_pushcfunction(L, gate_tls);
    lua_setfield(L, -2, "tls");
}
