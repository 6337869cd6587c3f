/* gate.url.query_filter: a function that brings queries that mean the same into one form, for cache keys: arguments are
 * dropped by name, the rest is sorted by name, those of one name in the order they came in.
 *
 * What the options say is taken apart once, when the function is made. A call copies nothing of a query that is in that
 * form already. Names are compared decoded, so that "%75tm_source" is no way round; what is kept stays as it came. */
#include "lua/bind.h"

#include "http/uri.h"

#include <stdlib.h>

enum { TEXT_MAX = 64 << 10, NAMES_MAX = 256, NAME_BYTES = 256, PAIRS_KEPT = 64, PAIRS_MAX = 4096, SORTED_BY_HAND = 16 };

/* A name, or with `open` what names begin with. */
struct pattern {
    struct slice text;
    bool open;
};

struct patterns {
    bool given;
    unsigned count;
    uint64_t first[4]; /* bits of the bytes that the texts begin with */
    bool any;          /* "*" is one of them */
    struct pattern list[NAMES_MAX];
};

struct filter {
    struct handle handle;
    bool sorts;
    struct patterns drop, keep;
};

static const struct handle_kind kind = { .name = "moongate.query_filter" };

/* ---- patterns */

static bool may_begin(const struct patterns *p, unsigned char c) { return p->first[c >> 6] >> (c & 63) & 1; }

static bool matches(const struct pattern *p, struct slice name) {
    return p->open ? slice_starts_with(name, p->text) : slice_equal(name, p->text);
}

static bool is_among(const struct patterns *p, struct slice name) {
    if (p->any) return true;
    if (!name.n || !may_begin(p, (unsigned char)name.p[0])) return false;
    for (unsigned i = 0; i < p->count; i++)
        if (matches(&p->list[i], name)) return true;
    return false;
}

static void add_pattern(lua_State *L, struct patterns *p, const char *option, struct slice text) {
    bool open = text.n && text.p[text.n - 1] == '*';
    if (text.n == 0 || text.n > NAME_BYTES)
        luaL_error(L, "gate.url.query_filter: a name in %s has 1 to %d bytes", option, NAME_BYTES);
    if (p->count == NAMES_MAX) luaL_error(L, "gate.url.query_filter: %s has more than %d names", option, NAMES_MAX);
    if (open) text.n--;
    if (text.n == 0) p->any = true;
    else {
        unsigned char first = (unsigned char)text.p[0];
        p->first[first >> 6] |= UINT64_C(1) << (first & 63);
        p->list[p->count++] = (struct pattern){ text, open };
    }
}

/* The strings live in user value `place` of the filter, which is on top. */
static void read_patterns(lua_State *L, struct patterns *p, const char *option, int place) {
    int filter = lua_gettop(L), type = option_push(L, 1, option);
    if (type != LUA_TNIL && type != LUA_TTABLE)
        luaL_error(L, "gate.url.query_filter: %s is a list of names, not a %s", option, luaL_typename(L, -1));
    lua_Unsigned n = type == LUA_TTABLE ? lua_rawlen(L, -1) : 0;
    p->given = type == LUA_TTABLE;
    lua_createtable(L, (int)(n < NAMES_MAX ? n : 0), 0);
    for (lua_Unsigned i = 1; i <= n; i++) {
        if (lua_rawgeti(L, -2, (lua_Integer)i) != LUA_TSTRING)
            luaL_error(L, "gate.url.query_filter: %s is a list of strings: the one at %I is a %s", option,
                       (lua_Integer)i, luaL_typename(L, -1));
        add_pattern(L, p, option, text_check(L, lua_gettop(L)));
        lua_rawseti(L, -2, (lua_Integer)i);
    }
    lua_setiuservalue(L, filter, place);
    lua_settop(L, filter);
}

/* ---- pairs */

struct pair {
    struct slice whole, name; /* the name decoded, if that fitted */
    unsigned at;
};

struct pairs {
    struct pair *list;
    unsigned count;
    bool changed;       /* something was dropped */
    char decoded[1024]; /* what names with escapes are decoded into */
    size_t used;
};

static int compare(const void *a, const void *b) {
    const struct pair *one = a, *other = b;
    size_t n = one->name.n < other->name.n ? one->name.n : other->name.n;
    int order = n ? memcmp(one->name.p, other->name.p, n) : 0;
    if (order == 0) order = (one->name.n > other->name.n) - (one->name.n < other->name.n);
    return order ? order : (one->at > other->at) - (one->at < other->at);
}

static bool is_sorted(const struct pairs *p) {
    for (unsigned i = 1; i < p->count; i++)
        if (compare(&p->list[i - 1], &p->list[i]) > 0) return false;
    return true;
}

static void sort(struct pairs *p) {
    if (p->count > SORTED_BY_HAND) {
        qsort(p->list, p->count, sizeof *p->list, compare);
        return;
    }
    for (unsigned i = 1; i < p->count; i++) {
        struct pair moved = p->list[i];
        unsigned to = i;
        for (; to > 0 && compare(&p->list[to - 1], &moved) > 0; to--) p->list[to] = p->list[to - 1];
        p->list[to] = moved;
    }
}

/* As it came where there is no room for it: such a name is none that anybody drops. */
static struct slice decode_name(struct pairs *p, struct slice name) {
    if (!memchr(name.p, '%', name.n) && !memchr(name.p, '+', name.n)) return name;
    if (name.n > sizeof p->decoded - p->used) return name;
    char *to = p->decoded + p->used;
    size_t n = percent_decode_into(to, name, true);
    p->used += n;
    return slice_make(to, n);
}

static bool is_wanted(const struct filter *f, struct slice name) {
    if (f->keep.given && !is_among(&f->keep, name)) return false;
    return !f->drop.given || !is_among(&f->drop, name);
}

/* False: there is no room for more. */
static bool take_pairs(const struct filter *f, struct slice query, struct pairs *p, unsigned room) {
    struct slice rest = query;
    for (unsigned at = 0; rest.p; at++) {
        struct slice whole = slice_cut(&rest, '&');
        const char *equals = whole.n ? memchr(whole.p, '=', whole.n) : NULL;
        struct slice name = decode_name(p, slice_make(whole.p, equals ? (size_t)(equals - whole.p) : whole.n));
        if (!whole.n || !is_wanted(f, name)) {
            p->changed = true;
            continue;
        }
        if (p->count == room) return false;
        p->list[p->count++] = (struct pair){ whole, name, at };
    }
    return true;
}

static void push_pairs(lua_State *L, const struct pairs *p, size_t room) {
    luaL_Buffer b;
    char *start = luaL_buffinitsize(L, &b, room), *to = start;
    for (unsigned i = 0; i < p->count; i++) {
        if (i) *to++ = '&';
        memcpy(to, p->list[i].whole.p, p->list[i].whole.n);
        to += p->list[i].whole.n;
    }
    luaL_pushresultsize(&b, (size_t)(to - start));
}

/* ---- the function it makes */

static unsigned count_pairs(struct slice query) {
    unsigned count = 1;
    for (size_t i = 0; i < query.n; i++) count += query.p[i] == '&';
    return count;
}

/* A query; nil: there is none, or nothing is left of it. One of more arguments than anybody means stays as it is. */
static int filter_query(lua_State *L) {
    const struct filter *f = object_self(L, lua_upvalueindex(1), &kind);
    if (lua_isnoneornil(L, 1)) {
        lua_pushnil(L);
        return 1;
    }
    struct slice query = string_check(L, 1, TEXT_MAX);
    struct pair kept[PAIRS_KEPT];
    struct pairs p;
    p.list = kept;
    p.count = 0;
    p.changed = false;
    p.used = 0;
    if (!take_pairs(f, query, &p, PAIRS_KEPT)) {
        unsigned room = count_pairs(query);
        if (room > PAIRS_MAX) {
            lua_settop(L, 1);
            return 1;
        }
        budget_spend(L, room * 8);
        p.list = lua_newuserdatauv(L, room * sizeof *p.list, 0);
        p.count = 0;
        p.used = 0;
        take_pairs(f, query, &p, room);
    }
    if (p.count == 0) {
        lua_pushnil(L);
        return 1;
    }
    bool moves = f->sorts && !is_sorted(&p);
    if (moves) sort(&p);
    if (moves || p.changed) push_pairs(L, &p, query.n);
    else lua_pushvalue(L, 1);
    return 1;
}

int url_query_filter(lua_State *L) {
    static const char *const names[] = { "drop", "keep", "sort", NULL };
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    options_check(L, 1, "gate.url.query_filter", names);
    struct filter *f = object_new(L, &kind, sizeof *f, 2);
    read_patterns(L, &f->drop, "drop", 1);
    read_patterns(L, &f->keep, "keep", 2);
    int type = option_push(L, 1, "sort");
    if (type != LUA_TNIL && type != LUA_TBOOLEAN) return luaL_error(L, "gate.url.query_filter: sort is true or false");
    f->sorts = type == LUA_TNIL || lua_toboolean(L, -1);
    lua_pop(L, 1);
    lua_pushcclosure(L, filter_query, 1);
    return 1;
}

void bind_query_filter_open(lua_State *L) { object_kind_open(L, &kind, NULL, NULL, NULL); }
