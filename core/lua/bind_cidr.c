/* gate.cidr: sets of IP prefixes, with or without values (store/prefix_table.h).
 *
 * A set that a script writes out keeps its values as Lua has them, in a list beside the table: the number that the
 * table gives is the place. A set that is read from a file has texts, which lie with the table and are shared by all
 * workers. A file is read outside of Lua's memory and budget, since the operator chose it: 128 MiB, 4 million
 * prefixes. */
#include "lua/data_file.h"

#include "base/map.h"
#include "base/must.h"
#include "lua/state_rest.h"
#include "store/prefix_table.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

enum { FILE_MAX = 128 << 20, PREFIXES_MAX = 4 << 20, TEXT_MAX = 255, WHY_TEXT = 256, PREFIX_TEXT = 64 };

/* Values of a set without any. In a file's table, texts are offsets, and the one at 0 is the empty text. */
enum { JUST_THERE = 1 };

struct cidr_set {
    struct handle handle;
    struct prefix_table *table;
};

static void set_collect(void *pointer) {
    struct cidr_set *set = pointer;
    prefix_table_unref(set->table);
    set->table = NULL;
}

static const struct handle_kind kind = { .name = "moongate.cidr", .collect = set_collect };

static bool prefix_read(struct prefix *p, struct slice text) {
    struct cidr cidr;
    if (!cidr_parse(&cidr, text) || cidr.unix_socket) return false;
    memset(p, 0, sizeof *p);
    memcpy(p->bytes, cidr.bytes, sizeof p->bytes);
    p->bits = cidr.bits;
    return true;
}

/* ---- methods */

/* "10.1.2.3", "::1", also "[::1]". */
static bool address_read(uint8_t to[16], struct slice ip) {
    char text[INET6_ADDRSTRLEN];
    if (ip.n > 2 && *ip.p == '[' && ip.p[ip.n - 1] == ']') ip = slice_make(ip.p + 1, ip.n - 2);
    if (ip.n >= sizeof text || memchr(ip.p, 0, ip.n)) return false;
    memcpy(text, ip.p, ip.n);
    text[ip.n] = '\0';
    if (memchr(text, ':', ip.n)) return inet_pton(AF_INET6, text, to) == 1;
    memset(to, 0, 10);
    memset(to + 10, 0xff, 2);
    return inet_pton(AF_INET, text, to + 12) == 1;
}

/* The value's number; -1: that is no address. */
static int64_t find_value(lua_State *L, const struct cidr_set *set) {
    uint8_t address[16];
    if (lua_type(L, 2) != LUA_TSTRING) luaL_typeerror(L, 2, "string");
    return address_read(address, text_check(L, 2)) ? (int64_t)prefix_table_get(set->table, address) : -1;
}

static int fail_address(lua_State *L) { return fail_world_with(L, "bad_address", "the text is no IP address"); }

static int cidr_has(lua_State *L) {
    int64_t value = find_value(L, object_self(L, 1, &kind));
    if (value < 0) return fail_address(L);
    lua_pushboolean(L, value > 0);
    return 1;
}

static int cidr_get(lua_State *L) {
    const struct cidr_set *set = object_self(L, 1, &kind);
    int64_t value = find_value(L, set);
    if (value < 0) return fail_address(L);
    if (value == 0) lua_pushnil(L);
    else if (!prefix_table_has_texts(set->table)) {
        lua_getiuservalue(L, 1, 1);
        lua_rawgeti(L, -1, value);
    } else if (value == JUST_THERE) lua_pushboolean(L, 1);
    else lua_pushstring(L, prefix_table_text(set->table, (uint32_t)value));
    return 1;
}

static int cidr_len(lua_State *L) {
    const struct cidr_set *set = object_self(L, 1, &kind);
    lua_pushinteger(L, (lua_Integer)prefix_table_count(set->table));
    return 1;
}

static void get_bytes(lua_State *L, void *set) {
    lua_pushinteger(L, (lua_Integer)prefix_table_bytes(((struct cidr_set *)set)->table));
}

static const struct field fields[] = { { "bytes", get_bytes, NULL }, { NULL, NULL, NULL } };

static int cidr_index(lua_State *L) { return object_index(L, object_self(L, 1, &kind), fields, "a set of gate.cidr"); }

static int cidr_newindex(lua_State *L) {
    return object_newindex(L, object_self(L, 1, &kind), fields, "a set of gate.cidr");
}

static const luaL_Reg methods[] = { { "has", cidr_has }, { "get", cidr_get }, { NULL, NULL } };
static const luaL_Reg metamethods[] = {
    { "__index", cidr_index }, { "__newindex", cidr_newindex }, { "__len", cidr_len }, { NULL, NULL }
};

/* ---- from a table: the script's at index 1, the userdata of prefixes at 2, the list of values at 3 */

static void raise_conflict(lua_State *L, const struct prefix *p) {
    struct addr addr = { .size = sizeof addr.u.in6 };
    char text[ADDR_TEXT];
    addr.u.in6.sin6_family = AF_INET6;
    memcpy(&addr.u.in6.sin6_addr, p->bytes, sizeof p->bytes);
    struct slice ip = addr_ip_text(&addr, text);
    bool ipv4 = !memchr(ip.p, ':', ip.n);
    lua_pushlstring(L, ip.p, ip.n);
    luaL_error(L, "gate.cidr: %s/%d has two values", lua_tostring(L, -1), ipv4 ? p->bits - 96 : p->bits);
}

static size_t count_entries(lua_State *L) {
    size_t n = 0;
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) n++;
    if (n > PREFIXES_MAX) luaL_error(L, "gate.cidr: more than %d prefixes", PREFIXES_MAX);
    return n;
}

static struct slice entry_text(lua_State *L, int at) {
    if (lua_type(L, at) != LUA_TSTRING)
        luaL_error(L, "gate.cidr: a prefix is a string such as \"10.0.0.0/8\", not a %s", luaL_typename(L, at));
    return text_check(L, at);
}

/* Key and value on top. In the list, prefixes stand as values and are just there; else they are keys. */
static void read_entry(lua_State *L, struct prefix *p, lua_Integer i) {
    bool listed = lua_type(L, -2) == LUA_TNUMBER;
    struct slice text = entry_text(L, lua_gettop(L) - (listed ? 0 : 1));
    if (!prefix_read(p, text)) luaL_error(L, "gate.cidr: \"%s\" is no prefix such as \"10.0.0.0/8\"", text.p);
    p->value = (uint32_t)i;
    if (listed) lua_pushboolean(L, 1);
    else lua_pushvalue(L, -1);
    lua_rawseti(L, 3, i);
}

/* Values get the numbers of their prefixes' places, so that all workers' tables are the same whatever order Lua visits
 * keys in; a prefix that is just there has 1, in a set where no other has. Pushes the list of them. */
static void number_values(lua_State *L, struct prefix *list, size_t n) {
    bool plain = true;
    for (size_t i = 0; i < n && plain; i++) {
        lua_rawgeti(L, 3, list[i].value);
        plain = lua_isboolean(L, -1) && lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    lua_createtable(L, plain ? 1 : (int)n, 0);
    for (size_t i = 0, number = 0; i < n; i++) {
        lua_rawgeti(L, 3, list[i].value);
        if (i > 0 && !plain && list[i].bits == list[i - 1].bits && !memcmp(list[i].bytes, list[i - 1].bytes, 16)) {
            lua_rawgeti(L, -2, (lua_Integer)number);
            if (!lua_rawequal(L, -1, -2)) raise_conflict(L, &list[i]);
            lua_pop(L, 1);
        } else if (!plain || i == 0) number++;
        list[i].value = (uint32_t)number;
        lua_rawseti(L, -2, (lua_Integer)number);
    }
}

static int set_from_table(lua_State *L) {
    size_t n = count_entries(L);
    const struct prefix *conflict;
    lua_settop(L, 1);
    struct prefix *list = lua_newuserdatauv(L, (n + 1) * sizeof *list, 0);
    lua_createtable(L, (int)n, 0);
    lua_Integer i = 0;
    for (lua_pushnil(L); i < (lua_Integer)n && lua_next(L, 1); lua_pop(L, 1), i++) {
        budget_spend(L, 16);
        read_entry(L, &list[i], i + 1);
    }
    lua_settop(L, 3);
    budget_spend(L, n * 16);
    prefixes_sort(list, n);
    number_values(L, list, n);
    struct cidr_set *set = object_new(L, &kind, sizeof *set, 1);
    set->table = prefix_table_open(list, n, slice_make(NULL, 0), &conflict);
    must(set->table != NULL);
    lua_pushvalue(L, 4);
    lua_setiuservalue(L, -2, 1);
    return 1;
}

/* ---- from a file: a prefix a line, perhaps a value behind it; "#" and ";" begin comments */

struct reading {
    struct prefix *list;
    size_t count, room;
    char *texts; /* each ends with a NUL; the first is empty */
    size_t texts_size, texts_room;
    struct map by_text; /* place in `texts`, plus one */
    size_t errors;
    char why[WHY_TEXT]; /* of the first error */
};

static void note_error(struct reading *r, size_t line, const char *what, struct slice text) {
    if (r->errors++) return;
    int shown = text.n < PREFIX_TEXT ? (int)text.n : PREFIX_TEXT;
    snprintf(r->why, sizeof r->why, "line %zu: \"%.*s\" %s", line, shown, text.p ? text.p : "", what);
}

static uint32_t value_of(struct reading *r, struct slice text) {
    if (!text.n) return JUST_THERE;
    void *known = map_get(&r->by_text, text);
    if (known) return (uint32_t)(uintptr_t)known;
    if (r->texts_size + text.n + 1 > r->texts_room) {
        r->texts_room = (r->texts_size + text.n + 1) * 2;
        r->texts = must_realloc(r->texts, r->texts_room);
    }
    uint32_t value = (uint32_t)r->texts_size + 1;
    memcpy(r->texts + r->texts_size, text.p, text.n);
    r->texts_size += text.n;
    r->texts[r->texts_size++] = '\0';
    map_set(&r->by_text, text, (void *)(uintptr_t)value);
    return value;
}

static struct slice cut_comment(struct slice line) {
    for (size_t i = 0; i < line.n; i++) {
        bool begins = line.p[i] == '#' || line.p[i] == ';';
        if (begins && (i == 0 || line.p[i - 1] == ' ' || line.p[i - 1] == '\t')) line.n = i;
    }
    if (line.n && line.p[line.n - 1] == '\r') line.n--;
    return slice_trim(line);
}

static void read_line(struct reading *r, struct slice line, size_t number) {
    line = cut_comment(line);
    if (!line.n) return;
    size_t n = 0;
    while (n < line.n && line.p[n] != ' ' && line.p[n] != '\t') n++;
    struct slice prefix = slice_make(line.p, n), text = slice_trim(slice_skip(line, n));
    if (r->count == r->room) {
        r->room = r->room ? r->room * 2 : 256;
        r->list = must_realloc(r->list, r->room * sizeof *r->list);
    }
    if (!prefix_read(&r->list[r->count], prefix)) note_error(r, number, "is no prefix", prefix);
    else if (text.n > TEXT_MAX || memchr(text.p, 0, text.n)) note_error(r, number, "is too long a value", text);
    else r->list[r->count++].value = value_of(r, text);
}

static void read_lines(struct reading *r, struct slice text) {
    r->texts_room = 64;
    r->texts = must_malloc(r->texts_room);
    r->texts[r->texts_size++] = '\0';
    size_t number = 1;
    for (struct slice rest = text; rest.p && r->count < PREFIXES_MAX; number++) {
        struct slice line = slice_cut(&rest, '\n');
        read_line(r, line, number);
    }
    if (r->count == PREFIXES_MAX) note_error(r, number, "has too many prefixes before it", SLICE(""));
}

static void reading_fini(struct reading *r) {
    free(r->list);
    free(r->texts);
    map_fini(&r->by_text);
}

/* NULL: `why` says what is wrong. */
static struct prefix_table *table_of(struct slice text, char why[WHY_TEXT]) {
    struct reading r = { 0 };
    const struct prefix *conflict;
    struct prefix_table *table = NULL;
    read_lines(&r, text);
    if (!r.errors) table = prefix_table_open(r.list, r.count, slice_make(r.texts, r.texts_size), &conflict);
    if (r.errors > 1) snprintf(why, WHY_TEXT, "%.200s (and %zu more)", r.why, r.errors - 1);
    else if (r.errors) snprintf(why, WHY_TEXT, "%s", r.why);
    else if (!table) snprintf(why, WHY_TEXT, "a prefix has two values");
    reading_fini(&r);
    return table;
}

static void release_table(void *table) { prefix_table_unref(table); }

/* NULL: `why` says why not. */
static struct prefix_table *table_of_file(struct data_file *file, char why[WHY_TEXT]) {
    struct prefix_table *table = sources_made(file->sources, file->path, &kind);
    if (table) return table;
    const char *refused = NULL;
    size_t size = 0;
    char *text = sources_slurp(file->sources, file->path, FILE_MAX, &size, &refused);
    if (!text) {
        snprintf(why, WHY_TEXT, "%s", refused);
        return NULL;
    }
    table = table_of(slice_make(text, size), why);
    free(text);
    if (table) sources_keep(file->sources, file->path, &kind, table, release_table);
    return table;
}

static int set_from_file(lua_State *L) {
    static const char *const names[] = { "file", NULL };
    struct data_file file;
    char why[WHY_TEXT];
    options_check(L, 1, "gate.cidr", names);
    data_file_check(L, lua_gettop(L), "gate.cidr", &file);
    struct cidr_set *set = object_new(L, &kind, sizeof *set, 1);
    uint64_t began = data_file_begin();
    struct prefix_table *table = table_of_file(&file, why);
    set->table = table ? prefix_table_ref(table) : NULL;
    data_file_end(L, began);
    if (!table) return data_file_fail(L, "gate.cidr", &file, why);
    return 1;
}

static int gate_cidr(lua_State *L) {
    if (!lua_istable(L, 1)) return luaL_typeerror(L, 1, "table of prefixes, or { file = … },");
    lua_settop(L, 1);
    if (option_push(L, 1, "file") != LUA_TNIL) return set_from_file(L);
    return set_from_table(L);
}

void bind_cidr_open(lua_State *L) {
    object_kind_open(L, &kind, fields, metamethods, methods);
    lua_pushcfunction(L, gate_cidr);
    lua_setfield(L, -2, "cidr");
}
