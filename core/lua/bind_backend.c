/* gate.backend(name): what is known of a backend and its servers now, read-only.
 *
 *     for _, server in ipairs(gate.backend("app").servers) do … server.name, .address, .healthy, .active … end
 *
 * A handle is only the name: what it stands for is looked up at each use, so that it may be made while the file is
 * loaded, and kept. */
#include "lua/bind.h"

enum { NAME_BYTES = 256 };

static const struct handle_kind kind = { .name = "moongate.backend" };

struct backend_handle {
    struct handle handle;
    size_t size;
    char name[];
};

static struct slice name_of(const struct backend_handle *h) { return slice_make(h->name, h->size); }

/* ---- finding what it stands for */

/* The backend of that name among all sites; the count tells whether it is the only one. */
static unsigned count_anywhere(const struct generation *g, struct slice name, struct backend **found,
                               struct site **site) {
    unsigned count = 0;
    for (unsigned i = 0; g && i < g->site_count; i++) {
        struct backend *b = map_get(&g->sites[i]->backends_by_name, name);
        if (!b) continue;
        count++;
        *found = b;
        *site = g->sites[i];
    }
    return count;
}

/* How many there are for the script that runs. */
static unsigned find_backend(lua_State *L, struct slice name, struct backend **found, struct site **site) {
    const struct subject *subject = subject_of(L);
    if (!subject || !subject->site) return count_anywhere(state_of(L)->worker->generation, name, found, site);
    *site = subject->site;
    *found = map_get(&subject->site->backends_by_name, name);
    return *found ? 1 : 0;
}

struct backend *backend_named(lua_State *L, struct slice name, struct site **site) {
    struct backend *b = NULL;
    if (!state_of(L)->worker) luaL_error(L, "backends cannot be used while the file is loaded");
    unsigned count = find_backend(L, name, &b, site);
    if (count == 0) luaL_error(L, "there is no backend '%s'", name.p);
    if (count > 1) luaL_error(L, "more than one site has a backend '%s': ask in one of its hooks", name.p);
    return b;
}

struct slice backend_name_at(lua_State *L, int arg) {
    const struct handle *h = handle_at(L, arg);
    return h && h->kind == &kind ? name_of(h->pointer) : slice_make(NULL, 0);
}

/* ---- getters */

static void get_name(lua_State *L, void *object) { lua_pushstring(L, ((struct backend_handle *)object)->name); }

static void push_server(lua_State *L, const struct candidate *c) {
    lua_createtable(L, 0, 5);
    lua_pushstring(L, c->spec->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, c->server->name);
    lua_setfield(L, -2, "address");
    lua_pushboolean(L, server_well(c->server));
    lua_setfield(L, -2, "healthy");
    lua_pushinteger(L, atomic_load_explicit(&c->server->active, memory_order_relaxed));
    lua_setfield(L, -2, "active");
    lua_pushinteger(L, c->weight);
    lua_setfield(L, -2, "weight");
}

static void get_servers(lua_State *L, void *object) {
    struct site *site;
    const struct backend *b = backend_named(L, name_of(object), &site);
    const struct backend_view *view = &b->views[state_of(L)->worker->index];
    lua_createtable(L, (int)view->count, 0);
    for (unsigned i = 0; i < view->count; i++) {
        push_server(L, &view->list[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

static void get_waiting(lua_State *L, void *object) {
    struct site *site;
    const struct backend *b = backend_named(L, name_of(object), &site);
    lua_pushinteger(L, b->queue ? queue_length(b->queue) : 0);
}

static const struct field fields[] = {
    { "name", get_name, NULL }, { "waiting", get_waiting, NULL }, { "servers", get_servers, NULL }, { NULL, NULL, NULL }
};

static int backend_index(lua_State *L) { return object_index(L, object_self(L, 1, &kind), fields, "backend"); }
static int backend_newindex(lua_State *L) { return object_newindex(L, object_self(L, 1, &kind), fields, "backend"); }

static const luaL_Reg metamethods[] = { { "__index", backend_index },
                                        { "__newindex", backend_newindex },
                                        { NULL, NULL } };

/* ---- open */

static int gate_backend(lua_State *L) {
    struct site *site;
    if (lua_type(L, 1) != LUA_TSTRING) return luaL_typeerror(L, 1, "string");
    struct slice name = text_check(L, 1);
    if (name.n == 0 || name.n > NAME_BYTES || memchr(name.p, 0, name.n))
        return luaL_argerror(L, 1, "a name has 1 to 256 bytes");
    if (run_of(L)) backend_named(L, name, &site);
    struct backend_handle *h = object_new(L, &kind, sizeof *h + name.n + 1, 0);
    h->size = name.n;
    memcpy(h->name, name.p, name.n);
    return 1;
}

void bind_backend_open(lua_State *L) {
    object_kind_open(L, &kind, fields, metamethods, NULL);
    lua_pushcfunction(L, gate_backend);
    lua_setfield(L, -2, "backend");
}
