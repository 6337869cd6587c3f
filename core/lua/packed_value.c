/* Tables are read raw, so that no metamethod runs; shared ones are copied each time they are met, and what holds itself
 * is found by the depth. The bytes belong to one object of the state from the start, since every push may be refused
 * memory, and every budget_spend may be the last. */
#include "lua/packed_value.h"

#include "lua/bind.h"

enum { LEVELS = 32, KEPT = 64 << 10, PACKED_MOST = 64 << 20 };

static const char SCRATCH; /* registry: the state's object */

struct scratch {
    struct handle handle;
    struct packing packing;
};

static void scratch_collect(void *pointer) { packing_fini(&((struct scratch *)pointer)->packing); }

static const struct handle_kind kind = { .name = "moongate.scratch", .collect = scratch_collect };

struct packing *packing_of(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &SCRATCH);
    struct packing *p = &((struct scratch *)lua_touserdata(L, -1))->packing;
    lua_pop(L, 1);
    if (p->room > KEPT) packing_fini(p);
    p->size = 0;
    p->refused = false;
    p->limit = PACKED_MOST;
    return p;
}

void packed_value_open(lua_State *L) {
    static const luaL_Reg none[] = { { NULL, NULL } };
    object_kind_open(L, &kind, NULL, none, NULL);
    object_new(L, &kind, sizeof(struct scratch), 0);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &SCRATCH);
}

/* ---- packing */

/* One under way. */
struct walk {
    struct packing *packing;
    const char *what;
};

static void pack(lua_State *L, const struct walk *w, int index, unsigned level);

static size_t count_pairs(lua_State *L, int index) {
    size_t pairs = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) pairs++;
    budget_spend(L, pairs);
    return pairs;
}

static void pack_pairs(lua_State *L, const struct walk *w, int index, unsigned level) {
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        int top = lua_gettop(L);
        budget_spend(L, 4);
        pack(L, w, top - 1, level + 1);
        pack(L, w, top, level + 1);
    }
}

static void pack_table(lua_State *L, const struct walk *w, int index, unsigned level) {
    if (level >= LEVELS) luaL_error(L, "%s is nested too deeply, or holds itself", w->what);
    luaL_checkstack(L, 10, "a table that is nested too deeply");
    size_t pairs = count_pairs(L, index);
    packing_table(w->packing, pairs, (size_t)lua_rawlen(L, index));
    if (w->packing->refused) return;
    pack_pairs(L, w, index, level);
}

static void pack(lua_State *L, const struct walk *w, int index, unsigned level) {
    struct packing *p = w->packing;
    if (p->refused) return;
    switch (lua_type(L, index)) {
    case LUA_TBOOLEAN: packing_boolean(p, lua_toboolean(L, index)); return;
    case LUA_TNUMBER:
        if (lua_isinteger(L, index)) packing_integer(p, lua_tointeger(L, index));
        else packing_number(p, lua_tonumber(L, index));
        return;
    case LUA_TSTRING: {
        struct slice s = text_check(L, index);
        budget_spend(L, s.n / 64);
        packing_string(p, s);
        return;
    }
    case LUA_TTABLE: pack_table(L, w, index, level); return;
    default: luaL_error(L, "%s is plain data: a %s is none", w->what, luaL_typename(L, index));
    }
}

void packing_add(lua_State *L, struct packing *p, int index, const char *what) {
    struct walk w = { p, what };
    pack(L, &w, lua_absindex(L, index), 0);
}

/* ---- pushing */

static struct slice push_table(lua_State *L, struct slice from, const struct packed *table) {
    size_t sequence = table->table.sequence < table->table.pairs ? table->table.sequence : table->table.pairs;
    luaL_checkstack(L, 6, NULL);
    lua_createtable(L, (int)sequence, (int)(table->table.pairs - sequence));
    budget_spend(L, table->table.pairs);
    for (size_t i = 0; i < table->table.pairs; i++) {
        from = packed_push(L, from);
        from = packed_push(L, from);
        lua_rawset(L, -3);
    }
    return from;
}

struct slice packed_push(lua_State *L, struct slice from) {
    struct packed v;
    from = packed_read(from, &v);
    switch (v.kind) {
    case PACKED_BOOLEAN: lua_pushboolean(L, v.boolean); break;
    case PACKED_INTEGER: lua_pushinteger(L, v.integer); break;
    case PACKED_NUMBER: lua_pushnumber(L, v.number); break;
    case PACKED_STRING: lua_pushlstring(L, v.string.n ? v.string.p : "", v.string.n); break;
    case PACKED_TABLE: return push_table(L, from, &v);
    }
    return from;
}
