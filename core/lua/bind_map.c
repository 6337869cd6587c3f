/* gate.map(source, options): a big table that only C holds (store/frozen.h), made while the file is loaded, of a Lua
 * table or of a file beside the config. All states share it: a file is read once for a load, and known by the digest of
 * its bytes; a table is made into entries in each state, and known by theirs.
 *
 * There is no map[key]: a key may be called "get", and what a stranger asks for must never be one of our functions. */
#include "lua/bind.h"
#include "lua/packed_value.h"
#include "lua/state_rest.h"

#include "base/clock.h"
#include "store/frozen_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <stdio.h>

enum { FILE_MOST = 512 << 20, NAME_BYTES = 4000, WHY_BYTES = 1024, STEPS_PER_PROBE = 8 };

struct map_handle {
    struct handle handle;
    struct frozen *frozen;
};

static void map_collect(void *pointer) { frozen_unref(((struct map_handle *)pointer)->frozen); }

static const struct handle_kind kind = { .name = "moongate.map", .collect = map_collect };

static const struct frozen *frozen_self(lua_State *L) {
    return ((struct map_handle *)object_self(L, 1, &kind))->frozen;
}

static struct slice key_check(lua_State *L) {
    int type = lua_type(L, 2);
    if (type != LUA_TSTRING && type != LUA_TNUMBER) luaL_typeerror(L, 2, "string or number");
    return text_check(L, 2);
}

static void push_slice(lua_State *L, struct slice s) { lua_pushlstring(L, s.n ? s.p : "", s.n); }

/* ---- methods */

static int map_get_method(lua_State *L) {
    struct slice value;
    if (frozen_get(frozen_self(L), key_check(L), &value)) packed_push(L, value);
    else lua_pushnil(L);
    return 1;
}

/* The value and its key, or nil. */
static int push_found(lua_State *L, bool found, struct slice key, struct slice value) {
    if (!found) {
        lua_pushnil(L);
        return 1;
    }
    packed_push(L, value);
    push_slice(L, key);
    return 2;
}

static int map_longest_prefix_method(lua_State *L) {
    struct slice key, value;
    size_t steps;
    bool found = frozen_prefix(frozen_self(L), key_check(L), &key, &value, &steps);
    budget_spend(L, steps * STEPS_PER_PROBE);
    return push_found(L, found, key, value);
}

/* "a.b.example": itself, then *.b.example, *.example. */
static int map_host_method(lua_State *L) {
    const struct frozen *f = frozen_self(L);
    struct slice name = key_check(L), value;
    char wildcard[FROZEN_KEY_MAX];
    if (frozen_get(f, name, &value)) return push_found(L, true, name, value);
    if (name.n > sizeof wildcard) return push_found(L, false, name, value);
    memcpy(wildcard, name.p, name.n);
    for (size_t i = 1; i < name.n; i++) {
        if (name.p[i] != '.') continue;
        wildcard[i - 1] = '*';
        struct slice key = slice_make(wildcard + i - 1, name.n - i + 1);
        budget_spend(L, STEPS_PER_PROBE);
        if (frozen_get(f, key, &value)) return push_found(L, true, key, value);
        wildcard[i - 1] = name.p[i - 1];
    }
    return push_found(L, false, name, value);
}

static int map_memory_method(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)frozen_bytes(frozen_self(L)));
    return 1;
}

static const luaL_Reg methods[] = { { "get", map_get_method },
                                    { "longest_prefix", map_longest_prefix_method },
                                    { "host", map_host_method },
                                    { "memory", map_memory_method },
                                    { NULL, NULL } };

/* ---- metamethods */

static int map_index(lua_State *L) {
    static const struct field none[] = { { NULL, NULL, NULL } };
    frozen_self(L);
    if (lua_type(L, 2) != LUA_TSTRING) return luaL_error(L, "a map is read by map:get(key)");
    return object_index(L, NULL, none, "a map");
}

static int map_newindex(lua_State *L) { return luaL_error(L, "a map is read-only"); }

static int map_len(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)frozen_count(frozen_self(L)));
    return 1;
}

/* Upvalues: the map, and where it is. */
static int next_entry(lua_State *L) {
    const struct map_handle *m = object_self(L, lua_upvalueindex(1), &kind);
    size_t at = (size_t)lua_tointeger(L, lua_upvalueindex(2));
    struct slice key, value;
    if (!frozen_next(m->frozen, &at, &key, &value)) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, (lua_Integer)at);
    lua_replace(L, lua_upvalueindex(2));
    push_slice(L, key);
    packed_push(L, value);
    return 2;
}

static int map_pairs(lua_State *L) {
    frozen_self(L);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, next_entry, 2);
    return 1;
}

static const luaL_Reg metamethods[] = { { "__index", map_index },
                                        { "__newindex", map_newindex },
                                        { "__len", map_len },
                                        { "__pairs", map_pairs },
                                        { NULL, NULL } };

/* ---- of a table */

/* Packs one pair; NULL, or what is wrong. */
static const char *add_pair(struct frozen_maker *maker, const struct value_pair *pair, uint32_t place) {
    char number[24];
    struct slice key = pair->key.string;
    if (pair->key.kind == VALUE_INTEGER)
        key = slice_make(number, (size_t)snprintf(number, sizeof number, "%" PRId64, pair->key.integer));
    else if (pair->key.kind != VALUE_STRING) return "its keys are strings or whole numbers";
    struct packing *p = frozen_add(maker, key, place);
    if (!p) return "its keys have 1 to 1024 bytes";
    packing_value(p, &pair->value);
    return NULL;
}

/* Known by the digest of its entries. */
static struct frozen *end_table(struct frozen_maker *maker, char *why) {
    enum frozen_fault fault;
    uint32_t place;
    struct digest source = frozen_digest(maker);
    struct frozen *f = frozen_find(source);
    if (f) {
        frozen_abandon(maker);
        return f;
    }
    f = frozen_end(maker, source, &fault, &place);
    if (fault == FROZEN_CLASH) snprintf(why, WHY_BYTES, "a key is there as a number and as a string");
    if (fault == FROZEN_LARGE) snprintf(why, WHY_BYTES, "it is too large");
    return f;
}

static struct frozen *make_of_table(lua_State *L, char *why) {
    struct value table;
    if (!value_from_lua(L, 1, false, &table, why, WHY_BYTES)) return NULL;
    struct frozen_maker *maker = frozen_begin();
    const char *wrong = NULL;
    for (size_t i = 0; i < table.table.count && !wrong; i++) wrong = add_pair(maker, &table.table.list[i], (uint32_t)i);
    value_fini(&table);
    if (!wrong) return end_table(maker, why);
    snprintf(why, WHY_BYTES, "%s", wrong);
    frozen_abandon(maker);
    return NULL;
}

/* ---- of a file */

struct wanted {
    enum frozen_format format;
    bool numbers;
};

enum { WANTED_KINDS = 16 };
static unsigned wanted_as(const struct wanted *w) { return 1 + (unsigned)w->format * 2 + w->numbers; }

/* The same bytes read in another way are another map. */
static struct digest digest_file(struct slice text, const struct wanted *w) {
    struct digest d = digest_bytes(text);
    d.high ^= wanted_as(w);
    return d;
}

/* "file:line: what is wrong" in `why`. */
static struct frozen *parse_file(const char *path, struct slice text, const struct wanted *w, struct digest source,
                                 char *why) {
    struct frozen_maker *maker = frozen_begin();
    enum frozen_fault fault;
    struct frozen_trouble trouble;
    uint32_t line;
    if (!frozen_read(maker, text, w->format, w->numbers, &trouble)) {
        frozen_abandon(maker);
        snprintf(why, WHY_BYTES, "%.800s:%" PRIu32 ": %s", path, trouble.line, trouble.what);
        return NULL;
    }
    struct frozen *f = frozen_end(maker, source, &fault, &line);
    if (fault == FROZEN_CLASH)
        snprintf(why, WHY_BYTES, "%.800s:%" PRIu32 ": its key was there before, with another value", path, line);
    if (fault == FROZEN_LARGE) snprintf(why, WHY_BYTES, "%.800s: it is too large", path);
    return f;
}

static void release_frozen(void *made) { frozen_unref(made); }

/* The sources keep a reference for all runs of the load. */
static struct frozen *make_of_file(struct sources *sources, const char *name, const struct wanted *w, char *why) {
    static const char kinds[WANTED_KINDS]; /* their addresses tell the ways of reading apart */
    const void *way = &kinds[wanted_as(w)];
    char path[PATH_MAX];
    size_t size = 0;
    const char *refused = "too long a path";
    struct frozen *f = NULL;
    char *text = NULL;
    if (sources_resolve(sources, name, path, sizeof path)) {
        if ((f = sources_made(sources, path, way))) return frozen_ref(f);
        text = sources_slurp(sources, path, FILE_MOST, &size, &refused);
    }
    if (!text) {
        snprintf(why, WHY_BYTES, "cannot read %s: %s", name, refused);
        return NULL;
    }
    struct digest source = digest_file(slice_make(text, size), w);
    f = frozen_find(source);
    if (!f) f = parse_file(path, slice_make(text, size), w, source, why);
    free(text);
    if (f) sources_keep(sources, path, way, frozen_ref(f), release_frozen);
    return f;
}

/* ---- gate.map */

static const char *name_check(lua_State *L) {
    struct slice name = text_check(L, 1);
    if (name.n == 0 || name.n > NAME_BYTES || memchr(name.p, 0, name.n))
        luaL_argerror(L, 1, "the path of a file expected");
    return name.p;
}

static int word_option(lua_State *L, const char *option, const char *const words[], int missing) {
    if (option_push(L, 2, option) == LUA_TNIL) return missing;
    struct slice word = lua_type(L, -1) == LUA_TSTRING ? text_check(L, -1) : slice_make("", 0);
    for (int i = 0; words[i]; i++)
        if (slice_equal(word, slice_of(words[i]))) return i;
    return luaL_error(L, "gate.map: there is no such %s", option);
}

static struct wanted options_read(lua_State *L) {
    static const char *const names[] = { "format", "type", NULL };
    static const char *const formats[] = { "lines", "csv", "tsv", "json", NULL };
    static const char *const types[] = { "string", "number", NULL };
    bool of_file = lua_type(L, 1) == LUA_TSTRING;
    options_check(L, 2, "gate.map", names);
    if (!of_file && !lua_isnoneornil(L, 2)) luaL_error(L, "gate.map: options go with a file");
    int format = word_option(L, "format", formats, of_file ? (int)frozen_format_of(text_check(L, 1)) : 0);
    bool numbers = word_option(L, "type", types, 0) == 1;
    if (numbers && format == FROZEN_JSON) luaL_error(L, "gate.map: JSON has types of its own");
    return (struct wanted){ (enum frozen_format)format, numbers };
}

/* What takes long is the core's doing, in proportion to a file that the operator chose. */
static int gate_map(lua_State *L) {
    struct state *state = state_of(L);
    char why[WHY_BYTES] = "";
    lua_settop(L, 2);
    bool of_file = lua_type(L, 1) == LUA_TSTRING;
    if (!of_file && !lua_istable(L, 1)) return luaL_typeerror(L, 1, "table or path of a file");
    if (!state->loading) return luaL_error(L, "gate.map: a map is made while the file is loaded");
    const char *name = of_file ? name_check(L) : NULL;
    struct wanted wanted = options_read(L);
    struct map_handle *m = object_new(L, &kind, sizeof *m, 0);
    uint64_t began = clock_thread_cpu_us();
    m->frozen = of_file ? make_of_file(state->rest->sources, name, &wanted, why) : make_of_table(L, why);
    meter_forgive(&state->meter, clock_thread_cpu_us() - began);
    if (m->frozen) return 1;
    m->handle.pointer = NULL;
    return luaL_error(L, "gate.map: %s", why);
}

void bind_map_open(lua_State *L) {
    object_kind_open(L, &kind, NULL, metamethods, methods);
    lua_pushcfunction(L, gate_map);
    lua_setfield(L, -2, "map");
}
