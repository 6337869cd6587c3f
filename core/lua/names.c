/* Globals of a file and what lies in libraries. A value counts as known only if nothing can put another one in its
 * place: builtins that the file does not set itself, and what is behind a front. */
#include "lua/names.h"

#include "lua/bind.h"
#include "lua/sandbox.h"
#include "lua/state_rest.h"

/* ---- kinds of objects, and which of their fields are objects */

static const struct object_kind known_kinds[] = {
    { "req", "moongate.req", 0, NULL },
    { "res", "moongate.res", 0, NULL },
    { "req.client", "moongate.client", 0, NULL },
    { "client.tls", "moongate.client_tls", 0, NULL },
    { "client", "moongate.arrival", 0, NULL },
    { "req.cache", "moongate.cache", 0, NULL },
    { "res.cache", "moongate.res_cache", 0, NULL },
};
enum { KINDS = sizeof known_kinds / sizeof *known_kinds };

static const struct {
    const char *kind, *field, *leads_to;
} parts[] = {
    { "moongate.req", "client", "moongate.client" },
    { "moongate.req", "cache", "moongate.cache" },
    { "moongate.client", "tls", "moongate.client_tls" },
    { "moongate.res", "cache", "moongate.res_cache" },
};

/* Keeps the value on top, which it pops. */
static int keep(struct names *n) {
    int place = (int)lua_rawlen(n->L, n->table) + 1;
    lua_rawseti(n->L, n->table, place);
    return place;
}

/* The names of a kind are an upvalue of its __index (bind.c). */
static void find_kind(struct names *n, struct object_kind *k) {
    lua_State *L = n->L;
    const struct state *state = state_of(L);
    for (size_t i = 0; i < KIND_PLACES; i++) {
        const struct known_kind *known = &state->kinds[i];
        if (!known->kind || strcmp(known->kind->name, k->kind) != 0) continue;
        int top = lua_gettop(L);
        lua_rawgeti(L, LUA_REGISTRYINDEX, known->metatable);
        lua_getfield(L, -1, "__index");
        if (lua_isfunction(L, -1) && lua_getupvalue(L, -1, UPVALUE_NAMES) && lua_istable(L, -1)) k->place = keep(n);
        k->fields = known->fields;
        lua_settop(L, top);
    }
}

void names_open(struct names *n, lua_State *L, struct arena *arena) {
    *n = (struct names){ .L = L, .arena = arena };
    lua_newtable(L);
    n->table = lua_gettop(L);
    lua_pushnil(L);
    n->kinds = arena_alloc(arena, sizeof known_kinds);
    memcpy(n->kinds, known_kinds, sizeof known_kinds);
    for (size_t i = 0; i < KINDS; i++) find_kind(n, &n->kinds[i]);
}

void names_close(struct names *n) {
    lua_settop(n->L, n->table - 1);
    map_fini(&n->by_path);
    map_fini(&n->missing);
    map_fini(&n->assigned);
}

struct fact names_object(struct names *n, const char *kind) {
    for (size_t i = 0; i < KINDS; i++)
        if (n->kinds[i].place && strcmp(n->kinds[i].kind, kind) == 0)
            return (struct fact){ .kind = FACT_OBJECT, .object = &n->kinds[i] };
    return fact_any();
}

bool names_object_has(struct names *n, const struct object_kind *k, struct slice field) {
    lua_rawgeti(n->L, n->table, k->place);
    lua_pushlstring(n->L, field.p, field.n);
    bool has = lua_rawget(n->L, -2) != LUA_TNIL;
    lua_pop(n->L, 2);
    return has;
}

bool names_object_keeps(const struct object_kind *k, struct slice field) {
    for (const struct field *f = k->fields; f && f->name; f++)
        if (slice_equal(field, slice_of(f->name))) return !f->set;
    return false;
}

/* ---- the file */

static bool is_environment(const struct proto *p, unsigned upvalue) {
    return slice_equal(p->upvalues[upvalue].name, SLICE("_ENV"));
}

/* A function of more than 255 constants loads the environment, and names, into registers: then any text that it loads
 * may be the name of a global that it sets. */
static void note_assigned(struct names *n, const struct proto *p) {
    bool loads_it = false;
    for (unsigned at = 0; at < p->code_count; at++) {
        uint32_t i = p->code[at];
        if (op_of(i) == OP_GETUPVAL && is_environment(p, op_b(i))) loads_it = true;
        if (op_of(i) == OP_SETTABUP && is_environment(p, op_a(i)))
            map_set(&n->assigned, p->constants[op_b(i)].string, n);
    }
    for (unsigned at = 0; at < p->code_count && loads_it; at++) {
        if (op_of(p->code[at]) != OP_LOADK) continue;
        const struct constant *c = &p->constants[op_bx(p->code[at])];
        if (c->kind == CONSTANT_STRING) map_set(&n->assigned, c->string, n);
    }
    for (unsigned i = 0; i < p->proto_count; i++) note_assigned(n, p->protos[i]);
}

bool names_file(struct names *n, const struct proto *main) {
    map_fini(&n->assigned);
    n->globals = 0;
    if (!environment_of_file_push(n->L, main->file)) return false;
    lua_replace(n->L, n->table + 1);
    n->globals = n->table + 1;
    note_assigned(n, main);
    return true;
}

/* ---- facts */

static struct fact missing(struct names *n, const char *of, struct slice key) {
    struct slice path =
        *of ? arena_printf(n->arena, "%s.%.*s%c", of, FMT(key), 0) : arena_printf(n->arena, "%.*s%c", FMT(key), 0);
    const char *known = map_get(&n->missing, path);
    if (!known) map_set(&n->missing, path, (char *)(uintptr_t)(known = path.p));
    return (struct fact){ .kind = FACT_MISSING, .missing = known };
}

/* The value on top, which it pops. */
static struct fact make_live(struct names *n, struct slice path) {
    int type = lua_type(n->L, -1);
    struct live *l = map_get(&n->by_path, path);
    bool constant = type == LUA_TTABLE || type == LUA_TFUNCTION || type == LUA_TUSERDATA;
    if (l || !constant) {
        lua_pop(n->L, 1);
        return l ? (struct fact){ .kind = FACT_LIVE, .live = l } : fact_any();
    }
    l = arena_alloc_zeroed(n->arena, sizeof *l);
    l->path = arena_printf(n->arena, "%.*s%c", FMT(path), 0).p;
    l->type = type;
    l->front = type == LUA_TTABLE && front_test(n->L, -1);
    l->place = keep(n);
    map_set(&n->by_path, path, l);
    return (struct fact){ .kind = FACT_LIVE, .live = l };
}

bool names_is_set(struct names *n, struct slice name) {
    lua_pushlstring(n->L, name.p, name.n);
    bool is = lua_rawget(n->L, n->globals) != LUA_TNIL;
    lua_pop(n->L, 1);
    return is;
}

struct fact names_global(struct names *n, struct slice name) {
    lua_State *L = n->L;
    if (map_get(&n->assigned, name) || slice_equal(name, SLICE("_G"))) return fact_any();
    lua_pushlstring(L, name.p, name.n);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, n->globals) == LUA_TNIL) {
        lua_pop(L, 2);
        return missing(n, "", name);
    }
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    if (environment_is_builtin(L)) {
        struct fact f = make_live(n, name);
        lua_pop(L, 1);
        return f;
    }
    lua_pop(L, 2);
    return fact_any();
}

static struct fact field_of_live(struct names *n, const struct live *l, struct slice key) {
    lua_State *L = n->L;
    if (!l->front) return fact_any();
    lua_rawgeti(L, n->table, l->place);
    environment_globals_push(L, -1); /* what is behind the front */
    lua_pushlstring(L, key.p, key.n);
    int type = lua_rawget(L, -2);
    lua_replace(L, -3);
    lua_pop(L, 1);
    if (type != LUA_TNIL) return make_live(n, arena_printf(n->arena, "%s.%.*s", l->path, FMT(key)));
    lua_pop(L, 1);
    return missing(n, l->path, key);
}

struct fact names_field(struct names *n, struct fact base, struct slice key) {
    if (base.kind == FACT_LIVE) return field_of_live(n, base.live, key);
    for (size_t i = 0; base.kind == FACT_OBJECT && i < sizeof parts / sizeof *parts; i++)
        if (strcmp(parts[i].kind, base.object->kind) == 0 && slice_equal(key, slice_of(parts[i].field)))
            return names_object(n, parts[i].leads_to);
    return fact_any();
}

struct fact names_call(struct names *n, struct fact function, const struct fact *arguments, unsigned count) {
    if (function.kind != FACT_LIVE || strcmp(function.live->path, "require") != 0) return fact_any();
    if (count != 1 || arguments[0].kind != FACT_STRING) return fact_any();
    struct slice name = arguments[0].string;
    load_provided_push(n->L, name);
    if (slice_equal(name, SLICE("moongate"))) return make_live(n, SLICE("gate"));
    bool library = lua_istable(n->L, -1) && front_test(n->L, -1);
    if (library) return make_live(n, name);
    lua_pop(n->L, 1);
    return fact_any();
}

/* ---- did you mean */

/* The key of the table on top, which it pops, that is most like the name. */
static const char *like_key(struct names *n, struct slice name) {
    lua_State *L = n->L;
    struct likeness l = likeness_begin(name);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
        if (lua_type(L, -2) == LUA_TSTRING) likeness_try(&l, lua_tostring(L, -2));
    const char *best = l.best ? arena_printf(n->arena, "%s%c", l.best, 0).p : NULL;
    lua_pop(L, 1);
    return best;
}

const char *names_like_missing(struct names *n, const char *path) {
    const char *dot = strrchr(path, '.');
    if (!dot) {
        lua_pushvalue(n->L, n->globals);
        return like_key(n, slice_of(path));
    }
    const struct live *l = map_get(&n->by_path, slice_make(path, (size_t)(dot - path)));
    if (!l) return NULL;
    lua_rawgeti(n->L, n->table, l->place);
    environment_globals_push(n->L, -1);
    lua_remove(n->L, -2);
    return like_key(n, slice_of(dot + 1));
}

const char *names_like_field(struct names *n, const struct object_kind *k, struct slice field) {
    lua_rawgeti(n->L, n->table, k->place);
    return like_key(n, field);
}
