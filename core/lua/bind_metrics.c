/* gate.metrics: counters, gauges and histograms of the operator's own, on the cells of store/metrics.h and so on
 * /metrics. They belong to the process: a reload finds them as they are.
 *
 * An object remembers the series it has found in a tree of tables, a level for each label: adding to a known one takes
 * one raw read a label, no lock and no allocation. What does not fit under the limit of series is not remembered, since
 * strangers choose label values; it costs a look-up under the lock. */
#include "lua/bind.h"

#include "lua/sandbox.h"
#include "store/metrics.h"

#include <math.h>
#include <stdio.h>

enum { NAME_MAX_BYTES = 200, HELP_MAX = 500, SERIES_DEFAULT = 1000, SERIES_MAX = 10000, NUMBER_BYTES = 32 };

/* User value 1: the names of the labels. 2: the series that are known. */
struct figure {
    struct handle handle;
    struct metric_family *family; /* NULL: there are no metrics here, as in `check` */
    struct metric *only;          /* without labels: the series, once it has been used */
    unsigned label_count;
};

static const char DECLARED = 0; /* registry: name -> what it was declared as */

static const struct handle_kind kinds[] = { { .name = "moongate.counter" },
                                            { .name = "moongate.gauge" },
                                            { .name = "moongate.histogram" } };

/* ---- finding the series: self at index 1, the value at 2, labels behind */

static int worker_number(lua_State *L) {
    const struct worker *worker = state_of(L)->worker;
    return worker ? (int)worker->index : -1;
}

/* Replaces the table at index 3 by its values, in the order of the labels. */
static void spread_labels(lua_State *L, const struct figure *f) {
    lua_getiuservalue(L, 1, 1);
    for (unsigned i = 1; i <= f->label_count; i++) {
        lua_rawgeti(L, 4, i);
        if (lua_rawget(L, 3) != LUA_TNIL) continue;
        lua_rawgeti(L, 4, i);
        luaL_error(L, "label '%s' has no value", lua_tostring(L, -1));
    }
    lua_remove(L, 4);
}

/* Only where the series is new, so that known ones need no look at every key. */
static void check_names(lua_State *L, const struct figure *f, int table) {
    lua_getiuservalue(L, 1, 1);
    int names = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        bool known = false;
        for (unsigned i = 1; i <= f->label_count && !known; i++) {
            lua_rawgeti(L, names, i);
            known = lua_rawequal(L, -1, -3);
            lua_pop(L, 1);
        }
        if (!known) luaL_error(L, "there is no label '%s'", luaL_tolstring(L, -2, NULL));
    }
    lua_settop(L, names - 1);
}

static void read_values(lua_State *L, const struct figure *f, int first, struct slice values[METRIC_LABELS]) {
    for (unsigned i = 0; i < f->label_count; i++) {
        int at = first + (int)i, type = lua_type(L, at);
        if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN)
            luaL_argerror(L, at < first + 1 ? 3 : at, "the value of a label is a string, number or boolean");
        lua_pushvalue(L, at); /* a number that is a key must stay one */
        if (type == LUA_TBOOLEAN) lua_pushstring(L, lua_toboolean(L, at) ? "true" : "false");
        values[i] = text_check(L, lua_gettop(L));
    }
}

/* Keeps the series under the values at `first` and behind. */
static void remember(lua_State *L, const struct figure *f, int first, struct metric *m) {
    lua_getiuservalue(L, 1, 2);
    for (unsigned i = 0; i + 1 < f->label_count; i++) {
        lua_pushvalue(L, first + (int)i);
        if (lua_rawget(L, -2) == LUA_TNIL) {
            lua_pop(L, 1);
            lua_newtable(L);
            lua_pushvalue(L, first + (int)i);
            lua_pushvalue(L, -2);
            lua_rawset(L, -4);
        }
    }
    lua_pushvalue(L, first + (int)f->label_count - 1);
    lua_pushlightuserdata(L, m);
    lua_rawset(L, -3);
}

static struct metric *make_series(lua_State *L, struct figure *f, int first) {
    struct slice values[METRIC_LABELS];
    bool other;
    if (first > 3) check_names(L, f, 3);
    budget_spend(L, 40);
    read_values(L, f, first, values);
    struct metric *m = metric_series(f->family, values, &other);
    if (f->label_count == 0) f->only = m;
    else if (!other) remember(L, f, first, m);
    return m;
}

/* NULL: nothing is counted in this process. */
static struct metric *series_of(lua_State *L, struct figure *f) {
    int first = 3, given = lua_gettop(L) - 2;
    if (f->only && given == 0) return f->only;
    if (f->label_count && lua_istable(L, 3)) {
        lua_settop(L, 3);
        spread_labels(L, f);
        first = 4;
    } else if (given != (int)f->label_count)
        luaL_error(L, "%d label value%s expected, got %d", (int)f->label_count, f->label_count == 1 ? "" : "s", given);
    if (!f->family) return NULL;
    luaL_checkstack(L, 4 * METRIC_LABELS, "labels");
    if (f->label_count == 0) return make_series(L, f, first);
    lua_getiuservalue(L, 1, 2);
    for (unsigned i = 0; i < f->label_count; i++) {
        lua_pushvalue(L, first + (int)i);
        if (lua_rawget(L, -2) == LUA_TNIL) return make_series(L, f, first);
    }
    return lua_touserdata(L, -1);
}

/* ---- methods */

/* The value at index 2; there is something at 2 afterwards. */
static double number_check(lua_State *L, bool may_miss) {
    int type = lua_type(L, 2);
    if (type != LUA_TNUMBER && may_miss && type <= LUA_TNIL) {
        if (type == LUA_TNONE) lua_settop(L, 2);
        return 1;
    }
    if (type != LUA_TNUMBER) luaL_typeerror(L, 2, "number");
    double n = lua_tonumber(L, 2);
    if (!isfinite(n)) luaL_argerror(L, 2, "neither infinity nor NaN");
    return n;
}

static int counter_add(lua_State *L) {
    struct figure *f = object_self(L, 1, &kinds[METRIC_COUNTER]);
    double n = number_check(L, true);
    if (n < 0) return luaL_argerror(L, 2, "a counter never goes down");
    metric_add_real(series_of(L, f), worker_number(L), n);
    return 0;
}

static int gauge_add(lua_State *L) {
    struct figure *f = object_self(L, 1, &kinds[METRIC_GAUGE]);
    double n = number_check(L, true);
    metric_add_real(series_of(L, f), -1, n);
    return 0;
}

static int gauge_set(lua_State *L) {
    struct figure *f = object_self(L, 1, &kinds[METRIC_GAUGE]);
    double value = number_check(L, false);
    metric_set_real(series_of(L, f), value);
    return 0;
}

static int histogram_observe(lua_State *L) {
    struct figure *f = object_self(L, 1, &kinds[METRIC_HISTOGRAM]);
    double value = number_check(L, false);
    metric_observe_real(series_of(L, f), worker_number(L), value);
    return 0;
}

static int figure_newindex(lua_State *L) { return luaL_error(L, "a metric has no fields to assign"); }

/* ---- declaring */

/* A string field of the table at index 1, which keeps it. */
static const char *text_field(lua_State *L, const char *name, size_t max) {
    if (option_push(L, 1, name) != LUA_TSTRING) luaL_error(L, "gate.metrics: %s is a string", name);
    struct slice s = text_check(L, lua_gettop(L));
    if (s.n > max || (s.n && memchr(s.p, 0, s.n))) luaL_error(L, "gate.metrics: %s is too long, or has a NUL", name);
    lua_pop(L, 1);
    return s.p;
}

static void read_labels(lua_State *L, struct metric_declaration *d) {
    int type = option_push(L, 1, "labels"), list = lua_gettop(L);
    if (type == LUA_TNIL) return;
    if (type != LUA_TTABLE) luaL_error(L, "gate.metrics: labels is a list of names");
    size_t n = lua_rawlen(L, list);
    if (n > METRIC_LABELS) luaL_error(L, "gate.metrics: more than %d labels", METRIC_LABELS);
    for (size_t i = 0; i < n; i++) {
        bool text = lua_rawgeti(L, list, (lua_Integer)i + 1) == LUA_TSTRING;
        if (!text || lua_rawlen(L, -1) > NAME_MAX_BYTES / 4 || !metric_label_valid(text_check(L, lua_gettop(L))))
            luaL_error(L, "gate.metrics: label %d is no name for a label", (int)i + 1);
        d->labels[i] = lua_tostring(L, -1);
        for (size_t j = 0; j < i; j++)
            if (strcmp(d->labels[i], d->labels[j]) == 0)
                luaL_error(L, "gate.metrics: there are two labels '%s'", d->labels[i]);
    }
    d->label_count = (unsigned)n;
}

static void read_buckets(lua_State *L, struct metric_declaration *d) {
    int type = option_push(L, 1, "buckets"), list = lua_gettop(L);
    if (type == LUA_TNIL) {
        metric_default_bounds(d);
        return;
    }
    size_t n = type == LUA_TTABLE ? lua_rawlen(L, list) : 0;
    if (n < 1 || n > METRIC_BOUNDS) luaL_error(L, "gate.metrics: buckets is a list of 1 to %d numbers", METRIC_BOUNDS);
    for (size_t i = 0; i < n; i++) {
        bool number = lua_rawgeti(L, list, (lua_Integer)i + 1) == LUA_TNUMBER;
        d->bounds[i] = lua_tonumber(L, -1);
        if (!number || !isfinite(d->bounds[i]) || (i && d->bounds[i] <= d->bounds[i - 1]))
            luaL_error(L, "gate.metrics: buckets are finite numbers that ascend");
    }
    d->bound_count = (unsigned)n;
}

static void read_limit(lua_State *L, struct metric_declaration *d) {
    int type = option_push(L, 1, "series"), whole = 1;
    lua_Integer n = type == LUA_TNIL ? SERIES_DEFAULT : lua_tointegerx(L, -1, &whole);
    if ((type != LUA_TNIL && type != LUA_TNUMBER) || !whole || n < 1 || n > SERIES_MAX)
        luaL_error(L, "gate.metrics: series is a whole number from 1 to %d", SERIES_MAX);
    d->limit = (size_t)n;
}

/* Pushes the list of label names, which is the object's own. */
static void push_names(lua_State *L, const struct metric_declaration *d) {
    lua_createtable(L, (int)d->label_count, 0);
    for (unsigned i = 0; i < d->label_count; i++) {
        lua_pushstring(L, d->labels[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

/* What one declaration differs from another by, but for their names. Pushed. */
static void push_shape(lua_State *L, const struct metric_declaration *d) {
    luaL_Buffer shape;
    char number[NUMBER_BYTES];
    luaL_buffinit(L, &shape);
    luaL_addchar(&shape, (char)('0' + d->kind));
    for (unsigned i = 0; i < d->label_count; i++) {
        luaL_addchar(&shape, ',');
        luaL_addstring(&shape, d->labels[i]);
    }
    for (unsigned i = 0; i < d->bound_count; i++) {
        snprintf(number, sizeof number, ";%.17g", d->bounds[i]);
        luaL_addstring(&shape, number);
    }
    luaL_pushresult(&shape);
}

/* In a state a name stands for one declaration: a later one would hide what is added to the former. Leaves the table of
 * them and the shape. */
static void check_shape(lua_State *L, const struct metric_declaration *d) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &DECLARED);
    push_shape(L, d);
    if (lua_getfield(L, -2, d->name) != LUA_TNIL && !lua_rawequal(L, -1, -2))
        luaL_error(L, "gate.metrics: %s was declared otherwise before", d->name);
    lua_pop(L, 1);
}

static int declare(lua_State *L, enum metric_kind kind) {
    static const char *const names[] = { "name", "help", "labels", "series", NULL };
    static const char *const with_buckets[] = { "name", "help", "labels", "series", "buckets", NULL };
    struct metric_declaration d = { .kind = kind };
    const char *conflict;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    options_check(L, 1, "gate.metrics", kind == METRIC_HISTOGRAM ? with_buckets : names);
    d.name = text_field(L, "name", NAME_MAX_BYTES);
    if (!metric_name_valid(slice_of(d.name)))
        return luaL_error(L, "gate.metrics: \"%s\" is no name for a metric: letters, digits, '_', not moongate_…",
                          d.name);
    d.help = text_field(L, "help", HELP_MAX);
    luaL_checkstack(L, METRIC_LABELS + METRIC_BOUNDS + 8, "gate.metrics");
    read_labels(L, &d);
    if (kind == METRIC_HISTOGRAM) read_buckets(L, &d);
    read_limit(L, &d);
    budget_spend(L, 200);
    check_shape(L, &d);
    struct figure *f = object_new(L, &kinds[kind], sizeof *f, 2);
    f->label_count = d.label_count;
    push_names(L, &d);
    lua_setiuservalue(L, -2, 1);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 2);
    f->family = metric_declare(&d, &conflict);
    if (conflict) return luaL_error(L, "gate.metrics: %s cannot be declared so: %s", d.name, conflict);
    lua_insert(L, -3);
    lua_setfield(L, -2, d.name);
    lua_pop(L, 1);
    return 1;
}

static int metrics_counter(lua_State *L) { return declare(L, METRIC_COUNTER); }
static int metrics_gauge(lua_State *L) { return declare(L, METRIC_GAUGE); }
static int metrics_histogram(lua_State *L) { return declare(L, METRIC_HISTOGRAM); }

void bind_metrics_open(lua_State *L) {
    static const luaL_Reg counter_methods[] = { { "add", counter_add }, { NULL, NULL } };
    static const luaL_Reg gauge_methods[] = { { "add", gauge_add }, { "set", gauge_set }, { NULL, NULL } };
    static const luaL_Reg histogram_methods[] = { { "observe", histogram_observe }, { NULL, NULL } };
    /* Methods are found in their table at once: an __index function would take a third of the time of an add. */
    static const luaL_Reg metamethods[] = { { "__newindex", figure_newindex }, { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "counter", metrics_counter }, { "gauge", metrics_gauge }, { "histogram", metrics_histogram }, { NULL, NULL }
    };
    object_kind_open(L, &kinds[METRIC_COUNTER], NULL, metamethods, counter_methods);
    object_kind_open(L, &kinds[METRIC_GAUGE], NULL, metamethods, gauge_methods);
    object_kind_open(L, &kinds[METRIC_HISTOGRAM], NULL, metamethods, histogram_methods);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &DECLARED);
    luaL_newlib(L, functions);
    front_make(L, "gate.metrics");
    lua_setfield(L, -2, "metrics");
}
