/* gate.mmdb: what a MaxMind database knows of an address (store/mmdb.h). The file is read while the config is loaded; a
 * reload finds a new one. */
#include "lua/data_file.h"

#include "lua/state_rest.h"
#include "store/mmdb.h"

#include <arpa/inet.h>
#include <unistd.h>

enum { PATH_MOST = 16, INDEX_TEXT = 24, VALUES_MAX = 20000, DEPTH_MAX = 32 };

struct database {
    struct handle handle;
    struct mmdb *db;
    struct mmdb_cursor cursor; /* what is on its way to Lua, which may be refused */
};

static void database_collect(void *pointer) {
    struct database *d = pointer;
    mmdb_cursor_fini(&d->cursor);
    mmdb_unref(d->db);
    d->db = NULL;
}

static const struct handle_kind kind = { .name = "moongate.mmdb", .collect = database_collect };

/* ---- get */

/* One reading: how far it has got. */
struct reading {
    struct mmdb_cursor *cursor;
    unsigned values, depth;
};

static bool push_value(lua_State *L, struct reading *r);

static bool push_map(lua_State *L, struct reading *r, uint32_t count) {
    lua_newtable(L);
    for (uint32_t i = 0; i < count; i++) {
        if (!push_value(L, r) || lua_type(L, -1) != LUA_TSTRING || !push_value(L, r)) return false;
        lua_rawset(L, -3);
    }
    return true;
}

static bool push_list(lua_State *L, struct reading *r, uint32_t count) {
    lua_newtable(L);
    for (uint32_t i = 0; i < count; i++) {
        if (!push_value(L, r)) return false;
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return true;
}

static bool push_container(lua_State *L, struct reading *r, const struct mmdb_value *v) {
    if (r->depth == DEPTH_MAX) return false;
    luaL_checkstack(L, 4, "gate.mmdb");
    r->depth++;
    bool ok = v->kind == MMDB_MAP ? push_map(L, r, v->count) : push_list(L, r, v->count);
    r->depth--;
    return ok;
}

/* False: the database is corrupt, or the value too large. */
static bool push_value(lua_State *L, struct reading *r) {
    struct mmdb_value v;
    if (++r->values > VALUES_MAX || !mmdb_next(r->cursor, &v)) return false;
    budget_spend(L, 8);
    switch (v.kind) {
    case MMDB_MAP:
    case MMDB_LIST: return push_container(L, r, &v);
    case MMDB_TEXT:
    case MMDB_BYTES: lua_pushlstring(L, v.bytes.n ? v.bytes.p : "", v.bytes.n); return true;
    case MMDB_INTEGER: lua_pushinteger(L, v.integer); return true;
    case MMDB_NUMBER: lua_pushnumber(L, v.number); return true;
    case MMDB_BOOLEAN: lua_pushboolean(L, v.boolean); return true;
    }
    return false;
}

static bool address_read(uint8_t to[16], struct slice ip) {
    struct addr addr;
    if (!addr_from_ip(&addr, ip, 0)) return false;
    if (addr.u.sa.sa_family == AF_INET6) {
        memcpy(to, &addr.u.in6.sin6_addr, 16);
        return true;
    }
    memset(to, 0, 10);
    memset(to + 10, 0xff, 2);
    memcpy(to + 12, &addr.u.in.sin_addr, 4);
    return true;
}

/* The names at index 3 and behind; an index, from 1 in Lua, becomes a text on the stack. */
static void read_path(lua_State *L, const char *path[PATH_MOST + 1]) {
    int top = lua_gettop(L), n = top - 2;
    if (n > PATH_MOST) luaL_error(L, "gate.mmdb: a path has at most %d parts", PATH_MOST);
    luaL_checkstack(L, PATH_MOST, "gate.mmdb");
    for (int i = 0; i < n; i++) {
        int whole, at = i + 3;
        lua_Integer index = lua_tointegerx(L, at, &whole);
        bool number = lua_type(L, at) == LUA_TNUMBER && whole && index != 0 && index > INT32_MIN && index < INT32_MAX;
        if (!number && lua_type(L, at) != LUA_TSTRING) luaL_argerror(L, at, "a name, or an index that is not 0");
        path[i] = number ? lua_pushfstring(L, "%d", (int)(index > 0 ? index - 1 : index)) : lua_tostring(L, at);
    }
    path[n < 0 ? 0 : n] = NULL;
}

static int mmdb_get(lua_State *L) {
    struct database *d = object_self(L, 1, &kind);
    const char *path[PATH_MOST + 1];
    uint8_t address[16];
    struct slice ip = string_check(L, 2, ADDR_TEXT);
    read_path(L, path);
    if (!address_read(address, ip)) return fail_world_with(L, "bad_address", "the text is no IP address");
    budget_spend(L, 40);
    mmdb_cursor_fini(&d->cursor);
    enum mmdb_result result = mmdb_find(d->db, address, path, &d->cursor);
    if (result == MMDB_ABSENT) {
        lua_pushnil(L);
        return 1;
    }
    struct reading r = { .cursor = &d->cursor };
    bool ok = result == MMDB_FOUND && push_value(L, &r);
    mmdb_cursor_fini(&d->cursor);
    return ok ? 1 : fail_world_with(L, "bad_database", "the database is corrupt, or the value too large");
}

static int mmdb_index(lua_State *L) {
    static const struct field none[] = { { NULL, NULL, NULL } };
    return object_index(L, object_self(L, 1, &kind), none, "a database of gate.mmdb");
}

static int mmdb_newindex(lua_State *L) { return luaL_error(L, "a database of gate.mmdb is read-only"); }

static const luaL_Reg methods[] = { { "get", mmdb_get }, { NULL, NULL } };
static const luaL_Reg metamethods[] = { { "__index", mmdb_index }, { "__newindex", mmdb_newindex }, { NULL, NULL } };

/* ---- open */

static void release_database(void *db) { mmdb_unref(db); }

static struct mmdb *database_of_file(const struct data_file *file, const char **why) {
    struct mmdb *db = sources_made(file->sources, file->path, &kind);
    if (db) return db;
    int fd = sources_open(file->sources, file->path, why);
    if (fd < 0) return NULL;
    db = mmdb_open(fd, why);
    close(fd);
    if (db) sources_keep(file->sources, file->path, &kind, db, release_database);
    return db;
}

static int gate_mmdb(lua_State *L) {
    struct data_file file;
    const char *why = NULL;
    data_file_check(L, 1, "gate.mmdb", &file);
    struct database *d = object_new(L, &kind, sizeof *d, 0);
    uint64_t began = data_file_begin();
    struct mmdb *db = database_of_file(&file, &why);
    d->db = db ? mmdb_ref(db) : NULL;
    data_file_end(L, began);
    if (!db) return data_file_fail(L, "gate.mmdb", &file, why);
    return 1;
}

void bind_mmdb_open(lua_State *L) {
    object_kind_open(L, &kind, NULL, metamethods, methods);
    lua_pushcfunction(L, gate_mmdb);
    lua_setfield(L, -2, "mmdb");
}
